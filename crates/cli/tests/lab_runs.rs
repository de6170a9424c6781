//! The program as a person uses it, on the emulated host: the main job, and what goes wrong with it.
//! Each test is a whole run; the artefacts are made once and cached (`compare setup`).
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use support::{Run, lab_is_here, run, scratch};

const HELLO: &str =
    "name = \"mine\"\ncommand = [\"/hello\"]\nmemory = \"64MiB\"\n[image]\nprogram = \"hello\"\n";

/// A workload file of one's own, run once without warm-up in real time, which boots fastest.
fn own(text: &str, more: &[&str]) -> Option<Run> {
    if !lab_is_here() {
        return None;
    }
    let directory = scratch();
    let file = directory.path().join("mine.toml");
    std::fs::write(&file, text).unwrap();
    let record = directory.path().join("record.json");
    let mut arguments =
        vec!["run", "--workload", file.to_str().unwrap(), "--host", "lab", "--clock", "real"];
    arguments.extend(["--trials", "1", "--warmup", "0", "--export-json", record.to_str().unwrap()]);
    arguments.extend(more);
    Some(run(&arguments))
}

fn outcomes(run: &Run) -> Vec<(String, String, String)> {
    let record = run.record();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let trials = record["trials"].as_array().unwrap();
    trials
        .iter()
        .map(|trial| (text(&trial["backend"]), text(&trial["outcome"]), text(&trial["detail"])))
        .collect()
}

/// The main job twice: both backends answer with nginx's own page from the same bytes, each on its
/// kernel, and instruction-counted medians repeat.
#[test]
fn nginx_both_ways_twice() {
    if !lab_is_here() {
        return;
    }
    let once = |name: &str| {
        let directory = scratch();
        let json = directory.path().join(name);
        let arguments = [
            "run",
            "--workload",
            "nginx",
            "--host",
            "lab",
            "--trials",
            "3",
            "--seed",
            "1",
            "--export-json",
        ];
        let run = run(&[&arguments[..], &[json.to_str().unwrap()]].concat());
        run.expect(0);
        (run.record(), run)
    };
    let (a, output) = once("a.json");
    let (b, _) = once("b.json");
    assert_eq!(a["schema"], "compare/1");
    assert_eq!(a["plan"]["digest"], b["plan"]["digest"]);
    assert_eq!(a["host"]["kind"], "lab");
    assert_eq!(a["host"]["clock"], "instructions");
    assert_eq!(a["host"]["kvm"], "emulated-svm");
    assert_eq!(a["host"]["cgroup"], "v2");
    assert!(output.stdout.starts_with("host: lab"), "{}", output.stdout);
    for trial in a["trials"].as_array().unwrap() {
        assert_eq!(trial["outcome"], "ok", "{trial}");
        assert_eq!(trial["image_digest"], a["image"]["digest"]);
        assert!(trial["evidence"].as_str().unwrap().contains("Welcome to nginx!"), "{trial}");
        let same = trial["kernel_release"] == a["host"]["kernel"];
        assert_eq!(same, trial["backend"] == "container", "{trial}");
        for figure in
            ["rss_bytes", "pss_bytes", "uss_bytes", "cgroup_current_bytes", "cgroup_peak_bytes"]
        {
            assert!(trial["memory"][figure].as_u64().unwrap() > 0, "{figure}: {trial}");
        }
        assert_eq!(trial["memory"]["vmm_overhead_bytes"].is_u64(), trial["backend"] == "microvm");
        assert_eq!(trial["memory"]["guest_used_bytes"].is_u64(), trial["backend"] == "microvm");
    }
    assert_eq!(a["trials"].as_array().unwrap().len(), 6);
    for (one, other) in
        a["summary"].as_array().unwrap().iter().zip(b["summary"].as_array().unwrap())
    {
        assert_eq!((&one["backend"], &one["figure"]), (&other["backend"], &other["figure"]));
        if one["figure"] == "ready" {
            let ratio = one["median"].as_f64().unwrap() / other["median"].as_f64().unwrap();
            assert!((0.98..1.02).contains(&ratio), "{one} against {other}");
        }
    }
}

#[test]
fn hello_exits_and_its_plan_runs_again() {
    let Some(first) = own(&format!("ready = {{ exit = 0 }}\n{HELLO}"), &[]) else { return };
    first.expect(0);
    assert_eq!(outcomes(&first).len(), 2);
    let directory = scratch();
    let saved = directory.path().join("saved.json");
    std::fs::write(&saved, first.record().to_string()).unwrap();
    let again =
        run(&["run", "--plan", saved.to_str().unwrap(), "--export-json", saved.to_str().unwrap()]);
    again.expect(0);
    assert_eq!(again.record()["plan"]["digest"], first.record()["plan"]["digest"]);
}

#[test]
fn log_readiness_is_seen_on_both() {
    let Some(run) = own(&format!("ready = {{ log = {{ contains = \"hello\" }} }}\n{HELLO}"), &[])
    else {
        return;
    };
    run.expect(0);
    for trial in run.record()["trials"].as_array().unwrap() {
        assert_eq!(trial["evidence"], "wrote `hello`");
    }
}

#[test]
fn a_missing_program_is_named_on_both() {
    let text = format!("ready = {{ exit = 0 }}\n{HELLO}").replace("[\"/hello\"]", "[\"/nothing\"]");
    let Some(run) = own(&text, &[]) else { return };
    run.expect(1);
    for (backend, outcome, detail) in outcomes(&run) {
        assert_eq!(outcome, "exec-failed", "{backend}");
        assert!(
            detail.contains("/nothing") && detail.contains("No such file"),
            "{backend}: {detail}"
        );
    }
}

#[test]
fn a_probe_that_never_succeeds_times_out_on_both() {
    let text = format!("ready = {{ exit = 3 }}\n{HELLO}");
    let Some(run) = own(&text, &[]) else { return };
    run.expect(1);
    for (backend, outcome, detail) in outcomes(&run) {
        assert_eq!(outcome, "exited", "{backend}");
        assert!(detail.contains("exited with 0") && detail.contains('3'), "{backend}: {detail}");
    }
    if !lab_is_here() {
        return;
    }
    let nginx = run_shown("nginx").replace("path = \"/\"", "path = \"/no-such-page\"");
    let nginx = nginx.replace("start = \"30s\"", "start = \"3s\"");
    let run = own(&nginx, &[]).unwrap();
    run.expect(1);
    for (backend, outcome, detail) in outcomes(&run) {
        assert_eq!(outcome, "timeout", "{backend}");
        assert!(detail.contains("404"), "{backend}: {detail}");
    }
}

fn run_shown(workload: &str) -> String {
    run(&["workloads", "show", workload]).stdout
}

#[test]
fn a_workload_that_ends_at_once_is_not_ready() {
    let Some(run) = own(&format!("port = 80\nready = {{ tcp = {{}} }}\n{HELLO}"), &[]) else {
        return;
    };
    run.expect(1);
    for (backend, outcome, detail) in outcomes(&run) {
        assert_eq!(outcome, "exited", "{backend}");
        assert!(detail.contains("exited with 0 before it was ready"), "{backend}: {detail}");
    }
    let record = run.record();
    assert!(record["trials"][0]["output_tail"].as_str().unwrap().contains("hello"));
}

#[test]
fn too_little_memory_for_a_guest_is_said() {
    let text = format!("ready = {{ exit = 0 }}\n{HELLO}").replace("64MiB", "8MiB");
    let Some(run) = own(&text, &[]) else { return };
    run.expect(1);
    let outcomes = outcomes(&run);
    let of = |name: &str| outcomes.iter().find(|(backend, ..)| backend == name).unwrap();
    assert_eq!(of("container").1, "ok");
    assert!(
        ["guest-crashed", "backend-failed"].contains(&of("microvm").1.as_str()),
        "{outcomes:?}"
    );
    assert!(of("microvm").2.contains("memory"), "{outcomes:?}");
}

/// Ctrl-C in mid-run: the trial in progress is cleaned up, and what was measured is in the record.
#[test]
fn an_interrupt_keeps_what_was_measured() {
    if !lab_is_here() {
        return;
    }
    let directory = scratch();
    let json = directory.path().join("cut.json");
    let arguments = ["run", "-w", "hello", "--host", "lab", "--trials", "100000", "--export-json"];
    let run =
        support::interrupt_after(&[&arguments[..], &[json.to_str().unwrap()]].concat(), "trial 3:");
    run.expect(130);
    let record = run.record();
    assert_eq!(record["interrupted"], true);
    let trials = record["trials"].as_array().unwrap();
    assert!(trials.iter().filter(|trial| trial["outcome"] == "ok").count() >= 2, "{record}");
}

/// A microVM restored from a snapshot answers as the booted one does, without having executed anything,
/// and sooner; what the snapshot took is told.
#[test]
fn restored_nginx_answers_beside_a_cold_one() {
    if !lab_is_here() {
        return;
    }
    let directory = scratch();
    let json = directory.path().join("record.json");
    let arguments =
        ["run", "-w", "nginx", "--host", "lab", "--trials", "2", "--start", "cold,restored"];
    let run = run(&[&arguments[..], &["--export-json", json.to_str().unwrap()]].concat());
    run.expect(0);
    let record = run.record();
    let trials = record["trials"].as_array().unwrap();
    let of = |backend: &str, start: &str| {
        let is_it =
            |trial: &&serde_json::Value| trial["backend"] == backend && trial["start"] == start;
        trials.iter().filter(is_it).collect::<Vec<_>>()
    };
    assert_eq!(trials.len(), 6);
    let (cold, restored) = (of("microvm", "cold"), of("microvm", "restored"));
    assert_eq!((of("container", "cold").len(), cold.len(), restored.len()), (2, 2, 2));
    let ns = |trial: &serde_json::Value, phase: &str| trial["events_ns"][phase].as_u64();
    for trial in &restored {
        assert_eq!(trial["outcome"], "ok", "{trial}");
        assert!(trial["evidence"].as_str().unwrap().contains("Welcome to nginx!"), "{trial}");
        assert_eq!(ns(trial, "exec"), None, "{trial}");
        assert!(ns(trial, "kernel") <= ns(trial, "init") && ns(trial, "kernel").is_some());
        assert!(ns(trial, "init") <= ns(trial, "ready"), "{trial}");
        assert_eq!(trial["kernel_release"], cold[0]["kernel_release"], "{trial}");
        for trial_cold in &cold {
            assert!(ns(trial, "ready") < ns(trial_cold, "ready"), "{trial} {trial_cold}");
        }
    }
    let snapshots = record["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 1);
    for figure in ["ready_ns", "save_ns", "bytes", "working_set_bytes"] {
        assert!(snapshots[0][figure].as_u64().unwrap() > 0, "{snapshots:?}");
    }
    let compared = record["comparisons"].as_array().unwrap();
    assert!(compared.iter().any(|one| one["other"] == "microvm restored"), "{compared:?}");
    assert!(run.stdout.contains("restores one made before the trials"), "{}", run.stdout);
}

/// The kinds of containers are columns of their own: one whose root is nobody outside, and one whose
/// network was there before, which therefore starts sooner.
#[test]
fn kinds_of_containers_stand_beside_each_other() {
    if !lab_is_here() {
        return;
    }
    let directory = scratch();
    let json = directory.path().join("a.json");
    let kinds = ["container", "container:userns", "container:pooled"];
    let run = run(&[
        "run",
        "-w",
        "nginx",
        "--host",
        "lab",
        "--backend",
        &kinds.join(","),
        "--trials",
        "2",
        "--export-json",
        json.to_str().unwrap(),
    ]);
    run.expect(0);
    let record = run.record();
    let trials = record["trials"].as_array().unwrap();
    let of =
        |kind: &str| trials.iter().filter(|trial| trial["backend"] == kind).collect::<Vec<_>>();
    for kind in kinds {
        assert_eq!(of(kind).len(), 2, "{kind}");
        for trial in of(kind) {
            let uid = trial["confinement"]["uid"].as_u64().unwrap();
            assert_eq!(uid != 0, kind == "container:userns", "{trial}");
            assert!(trial["events_ns"]["gone"].as_u64() >= trial["events_ns"]["stopped"].as_u64());
        }
    }
    let created = |kind: &str| of(kind)[1]["events_ns"]["created"].as_u64().unwrap();
    assert!(created("container:pooled") < created("container"), "no network is made");
}
