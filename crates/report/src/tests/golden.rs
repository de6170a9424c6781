//! Golden files: what each report looks like. Read every change of them as a designer would.

use compare_spec::{Digest, Outcome, Readiness, StartMode, Trial, Unavailable};
use insta::assert_snapshot;

use super::record::{container, crashed, lab, local, microvm, plan, record, sample, with_restored};
use crate::{Style, csv, json, markdown, schema, summarise, terminal};

fn plain(record: &compare_spec::Record) -> String {
    terminal(record, Style::default())
}

/// The trial of one backend as that of another, its times stretched.
fn as_backend(name: &str, factor: u64, mut trial: Trial) -> Trial {
    name.clone_into(&mut trial.backend);
    let events = &mut trial.events_ns;
    for event in [&mut events.created, &mut events.init, &mut events.exec, &mut events.ready] {
        *event = event.map(|ns| ns * factor);
    }
    trial
}

#[test]
fn lab_with_a_failure() {
    assert_snapshot!(plain(&sample()));
}

#[test]
fn lab_with_a_failure_as_markdown() {
    assert_snapshot!(markdown(&sample()));
}

#[test]
fn lab_with_a_failure_as_csv() {
    assert_snapshot!(csv(&sample()));
}

#[test]
fn in_colour() {
    assert_snapshot!(
        terminal(&sample(), Style { color: true, width: 100 }).replace('\u{1b}', "ESC")
    );
}

/// Ten trials on real hardware, one of them slow, and a memory figure that differs by nothing.
#[test]
fn local_with_an_outlier() {
    let mut trials: Vec<Trial> =
        (0..10).flat_map(|index| [container(index), microvm(index)]).collect();
    trials[15].events_ns.ready = Some(99_871_000);
    trials[15].memory.rss_bytes = Some(50_331_648 + 4096);
    let mut plan = plan(&["container", "microvm"], 10);
    plan.host = compare_spec::HostKind::Local;
    assert_snapshot!(plain(&record(local(), plan, trials)));
}

#[test]
fn one_backend_one_trial_whose_readiness_is_an_exit() {
    let mut plan = plan(&["container"], 1);
    plan.workload.ready = Readiness::Exit(0);
    plan.warmup = 0;
    let mut record = record(local(), plan, vec![container(0)]);
    record.probe.resolution_ns = 0;
    record.unavailable.clear();
    assert_snapshot!(plain(&record));
}

#[test]
fn one_trial_each() {
    let mut record =
        record(lab(), plan(&["container", "microvm"], 1), vec![container(0), microvm(0)]);
    record.unavailable.clear();
    assert_snapshot!(plain(&record));
}

/// A difference that may as well be none, from backends that share the host's kernel.
#[test]
fn no_difference() {
    let trials = (0..10).flat_map(|index| {
        [container(index), as_backend("crun", 1, container((index * 7 + 3) % 10))]
    });
    let mut record = record(local(), plan(&["container", "crun"], 10), trials.collect());
    record.unavailable.clear();
    assert_snapshot!(plain(&record));
}

/// Interrupted before any trial succeeded.
#[test]
fn nothing_succeeded() {
    let mut interrupted = crashed(0);
    interrupted.outcome = Outcome::Interrupted;
    interrupted.detail = None;
    interrupted.output_tail = None;
    let trials = vec![crashed(0), interrupted];
    let mut record = record(lab(), plan(&["container", "microvm"], 10), trials);
    record.interrupted = true;
    assert_snapshot!(plain(&record));
}

/// Three backends, figures missing, another image, a coarse probe.
#[test]
fn doubtful() {
    let mut trials = Vec::new();
    for index in 0..6 {
        let mut third = as_backend("firecracker", 2, microvm(index));
        third.memory.uss_bytes = None;
        third.memory.cgroup_current_bytes = None;
        third.memory.pss_bytes = None;
        third.image_digest = Digest::of(b"another image");
        trials.extend([container(index), microvm(index), third]);
    }
    let mut record = record(local(), plan(&["container", "microvm", "firecracker"], 6), trials);
    record.probe.resolution_ns = 5_000_000;
    record.unavailable = vec![Unavailable {
        figure: "pss".to_owned(),
        backend: Some("firecracker".to_owned()),
        reason: "/proc/4711/smaps_rollup: permission denied".to_owned(),
    }];
    assert_snapshot!(plain(&record));
}

/// A start mode other than cold is a column of its own.
#[test]
fn restored_stands_beside_cold() {
    assert_snapshot!(plain(&with_restored()));
}

#[test]
fn restored_stands_beside_cold_in_markdown() {
    assert_snapshot!(markdown(&with_restored()));
}

#[test]
fn restored_is_a_column_of_every_form() {
    let record = with_restored();
    let rows: Vec<String> = csv(&record).lines().map(str::to_owned).collect();
    assert!(
        rows[3].contains(",microvm,restored,0,ok,2102000,3441700,4120000,,6310000,"),
        "{}",
        rows[3]
    );
    let json: serde_json::Value = serde_json::from_str(&json(&record)).unwrap();
    assert_eq!(json["plan"]["spec"]["starts"], serde_json::json!(["cold", "restored"]));
    assert_eq!(json["snapshots"][0]["bytes"], 31_457_280);
    let compared = json["comparisons"].as_array().unwrap();
    let of = |other: &str, figure: &str| {
        compared.iter().any(|one| {
            one["base"] == "container" && one["other"] == other && one["figure"] == figure
        })
    };
    assert!(of("microvm restored", "ready") && of("microvm restored", "uss"));
    assert!(of("microvm", "exec") && !of("microvm restored", "exec"));
}

/// Without a snapshot nothing was restored: the column stays, and the reason is told.
#[test]
fn restored_trials_that_were_given_up() {
    let mut record = with_restored();
    record.trials.retain(|trial| trial.start == "cold");
    (record.summary, record.comparisons) = summarise(&record.trials, &record.plan.spec);
    record.snapshots.clear();
    record.unavailable = vec![Unavailable {
        figure: "trials".to_owned(),
        backend: Some("microvm restored".to_owned()),
        reason: "there is no snapshot to restore: save it in /tmp/compare-7-9/microvm: no storage \
                 space: set TMPDIR to a directory with room; the remaining 6 were not run"
            .to_owned(),
    }];
    assert_snapshot!(plain(&record));
}

/// Only restored: the container is cold all the same, and the ratios are against it.
#[test]
fn restored_against_a_container() {
    let mut record = with_restored();
    record.plan.spec.starts = vec![StartMode::Restored];
    record.plan.digest = record.plan.spec.digest();
    record.trials.retain(|trial| trial.backend == "container" || trial.start == "restored");
    (record.summary, record.comparisons) = summarise(&record.trials, &record.plan.spec);
    assert_snapshot!(plain(&record));
}

#[test]
fn lines_fit_and_every_report_starts_with_the_host() {
    for width in [40, 60, 80, 120] {
        let text = terminal(&sample(), Style { color: false, width });
        assert!(text.starts_with("host: lab — "), "{text}");
        let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > width).collect();
        assert_eq!(wide, [""; 0], "wider than {width}");
    }
    assert!(markdown(&sample()).starts_with("host: lab — "));
}

#[test]
fn every_table_of_the_lab_says_so() {
    let text = markdown(&sample());
    let tables = text.lines().filter(|line| line.starts_with("| :--")).count();
    assert_eq!((tables, text.matches("*Lab: emulated").count()), (3, 3));
    assert!(csv(&sample()).lines().skip(1).all(|row| row.starts_with("lab,instructions,")));
}

#[test]
fn the_schema_and_the_record_agree_on_names() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let record: serde_json::Value = serde_json::from_str(&json(&sample())).unwrap();
    let (known, used) = (schema["properties"].as_object().unwrap(), record.as_object().unwrap());
    assert!(used.keys().all(|key| known.contains_key(key)));
    assert!(schema["required"].as_array().unwrap().contains(&"trials".into()));
    assert_eq!(record["schema"], "compare/1");
}
