//! Whole runs over a fake backend: what is told, what is recorded, what a failure does to the rest.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;

use compare_backend::{
    Backend,
    fake::{FakeBackend, Script},
};
use compare_cgroup::{Hierarchy, Parent};
use compare_runner::{Cancel, Setting, run};
use compare_spec::{
    Artefacts, Clock, Digest, Exit, HostKind, Image, KvmKind, Outcome, Plan, RunEvent, Trial,
    Workload,
};

fn plan(backends: &[&str], trials: u32, ready: &str) -> Plan {
    let text = format!(
        "name = \"fake\"\ncommand = [\"/fake\"]\nready = {ready}\ntimeout = {{ start = \"40ms\" }}\n[image]\nprogram = \"hello\"\n"
    );
    Plan {
        workload: Workload::parse("fake", &text).unwrap(),
        backends: backends.iter().map(|name| (*name).to_owned()).collect(),
        trials,
        warmup: 1,
        seed: 1,
        host: HostKind::Local,
        clock: Clock::Real,
    }
}

/// Runs it; `None` where this machine lets us make no cgroup.
fn events(plan: &Plan, backends: Vec<FakeBackend>, cancel: &Cancel) -> Option<Vec<RunEvent>> {
    let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"));
    let parent = match hierarchy
        .and_then(|hierarchy| Parent::create(&hierarchy).map(|parent| (hierarchy, parent)))
    {
        Ok((_, parent)) => parent,
        Err(error) => {
            let required = std::env::var("COMPARE_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|what| what == "container"), "{error}");
            println!("SKIP: no cgroup can be made here: {error}");
            return None;
        }
    };
    let image = Image {
        digest: Digest::of(b"tree"),
        tree: "/".into(),
        erofs: "/dev/null".into(),
        erofs_digest: Digest::of(b"erofs"),
        erofs_bytes: 0,
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    let cgroup = compare_spec::CgroupMode::None;
    let host =
        compare_probe::host_facts(Path::new("/"), plan.host, plan.clock, KvmKind::None, cgroup);
    let mut backends: Vec<Box<dyn Backend>> =
        backends.into_iter().map(|fake| Box::new(fake) as Box<dyn Backend>).collect();
    let setting = Setting {
        plan,
        image: &image,
        backends: &mut backends,
        parent: &parent,
        host,
        artefacts: Artefacts::default(),
        unavailable: Vec::new(),
        cancel,
    };
    let mut events = Vec::new();
    run(setting, &mut |event| events.push(event)).unwrap();
    Some(events)
}

fn trials(events: &[RunEvent], of: &str) -> Vec<Trial> {
    let done = events.iter().filter_map(|event| match event {
        RunEvent::Done { trial, warmup: false, .. } => Some((**trial).clone()),
        _ => None,
    });
    done.filter(|trial| trial.backend == of).collect()
}

/// Runs share this process's descriptors, and each looks for what the other would seem to leak.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

const UP: &str = "{ log = { contains = \"up\" } }";

#[test]
fn every_trial_is_told_and_recorded() {
    let _alone = ALONE.lock();
    let plan = plan(&["a", "b"], 3, UP);
    let fakes = vec![
        FakeBackend::new("b", vec![Script::Say("b is up".into())]),
        FakeBackend::new("a", vec![Script::Say("a is up".into())]),
    ];
    let Some(events) = events(&plan, fakes, &Cancel::new().unwrap()) else { return };
    assert!(matches!(events.first(), Some(RunEvent::Begin { .. })));
    assert!(matches!(events.last(), Some(RunEvent::End { interrupted: false })));
    for name in ["a", "b"] {
        let trials = trials(&events, name);
        assert_eq!(trials.iter().map(|trial| trial.index).collect::<Vec<_>>(), [0, 1, 2]);
        for trial in trials {
            assert_eq!(trial.outcome, Outcome::Ok, "{:?}", trial.detail);
            assert_eq!(trial.evidence, Some(format!("wrote `{name} is up`")));
            let events = trial.events_ns;
            assert!(
                events.created <= events.exec
                    && events.exec <= events.ready
                    && events.ready < events.stopped
            );
        }
    }
    let warmups =
        events.iter().filter(|event| matches!(event, RunEvent::Done { warmup: true, .. })).count();
    assert_eq!(warmups, 2);
}

#[test]
fn failures_are_data_and_end_in_giving_up() {
    let _alone = ALONE.lock();
    let plan = plan(&["good", "bad"], 5, UP);
    let fakes = vec![
        FakeBackend::new("good", vec![Script::Say("up".into())]),
        FakeBackend::new(
            "bad",
            vec![
                Script::Refuse("open /dev/nothing".into()),
                Script::End(Exit::Code { code: 3 }),
                Script::Hang,
            ],
        ),
    ];
    let Some(events) = events(&plan, fakes, &Cancel::new().unwrap()) else { return };
    assert_eq!(trials(&events, "good").len(), 5, "one backend's failures are not the other's");
    let bad = trials(&events, "bad");
    assert_eq!(bad[0].outcome, Outcome::Exited);
    assert!(bad[0].detail.as_ref().unwrap().contains("exited with 3"), "{:?}", bad[0].detail);
    assert_eq!(bad[1].outcome, Outcome::Timeout);
    assert!(
        bad[1].detail.as_ref().unwrap().contains("no line of output contains `up`"),
        "{:?}",
        bad[1].detail
    );
    assert_eq!(bad.len(), 2, "the warm-up and two trials failed in a row");
    assert!(events.contains(&RunEvent::GivenUp { backend: "bad".into(), left: 3 }));
}

#[test]
fn a_wrong_exit_code_is_not_ready() {
    let _alone = ALONE.lock();
    let plan = plan(&["a"], 1, "{ exit = 0 }");
    let fakes = vec![FakeBackend::new(
        "a",
        vec![Script::End(Exit::Code { code: 0 }), Script::End(Exit::Code { code: 1 })],
    )];
    let Some(events) = events(&plan, fakes, &Cancel::new().unwrap()) else { return };
    let trial = &trials(&events, "a")[0];
    assert_eq!(trial.outcome, Outcome::Exited);
    assert!(
        trial.detail.as_ref().unwrap().contains("ready would be exit code 0"),
        "{:?}",
        trial.detail
    );
}

#[test]
fn a_leak_fails_the_trial() {
    let _alone = ALONE.lock();
    let plan = plan(&["a"], 1, UP);
    let fakes =
        vec![FakeBackend::new("a", vec![Script::Say("up".into()), Script::Leak("up".into())])];
    let Some(events) = events(&plan, fakes, &Cancel::new().unwrap()) else { return };
    let trial = &trials(&events, "a")[0];
    assert_eq!(trial.outcome, Outcome::Leaked);
    assert!(trial.detail.as_ref().unwrap().contains("descriptor"), "{:?}", trial.detail);
}

#[test]
fn a_cancelled_run_says_so_and_starts_nothing() {
    let _alone = ALONE.lock();
    let plan = plan(&["a"], 3, UP);
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let fakes = vec![FakeBackend::new("a", vec![Script::Say("up".into())])];
    let Some(events) = events(&plan, fakes, &cancel) else { return };
    assert_eq!(events.last(), Some(&RunEvent::End { interrupted: true }));
    assert!(!events.iter().any(|event| matches!(event, RunEvent::Done { .. })));
}
