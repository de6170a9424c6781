//! Whole runs over a fake backend: what is told, what is recorded, what a failure does to the rest.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use compare_backend::{
    Backend,
    fake::{FakeBackend, Journal, Script},
};
use compare_cgroup::{Hierarchy, Parent};
use compare_runner::{Cancel, Setting, run};
use compare_spec::{
    Artefacts, Clock, Digest, Exit, HostKind, Image, KvmKind, Outcome, Plan, RunEvent, StartMode,
    Trial, Workload,
};

fn plan(backends: &[&str], trials: u32, ready: &str) -> Plan {
    let text = format!(
        "name = \"fake\"\ncommand = [\"/fake\"]\nready = {ready}\ntimeout = {{ start = \"40ms\" }}\n[image]\nprogram = \"hello\"\n"
    );
    Plan {
        workload: Workload::parse("fake", &text).unwrap(),
        backends: backends.iter().map(|name| (*name).to_owned()).collect(),
        starts: vec![StartMode::Cold],
        microvm_root: compare_spec::RootDevice::default(),
        microvm_memory_pages: compare_spec::MemoryPages::default(),
        trials,
        warmup: 1,
        gap: compare_spec::Span::default(),
        seed: 1,
        host: HostKind::Local,
        clock: Clock::Real,
    }
}

/// Runs it; `None` where this machine lets us make no cgroup.
fn events(plan: &Plan, backends: Vec<FakeBackend>, cancel: &Cancel) -> Option<Vec<RunEvent>> {
    events_seen(plan, backends, cancel, &mut |_| {})
}

/// The same, with a look at each event as it comes.
fn events_seen(
    plan: &Plan,
    backends: Vec<FakeBackend>,
    cancel: &Cancel,
    watch: &mut dyn FnMut(&RunEvent),
) -> Option<Vec<RunEvent>> {
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
    run(setting, &mut |event| {
        watch(&event);
        events.push(event);
    })
    .unwrap();
    Some(events)
}

fn trials(events: &[RunEvent], of: &str) -> Vec<Trial> {
    let done = events.iter().filter_map(|event| match event {
        RunEvent::Done { trial, warmup: false, .. } => Some((**trial).clone()),
        _ => None,
    });
    done.filter(|trial| trial.backend == of).collect()
}

/// Side, trials left out and reason of whatever was given up.
fn given_up(events: &[RunEvent]) -> Vec<(String, u32, String)> {
    let given_up = events.iter().filter_map(|event| match event {
        RunEvent::GivenUp { backend, start, left, reason } if start == "cold" => {
            Some((backend.clone(), *left, reason.clone()))
        }
        RunEvent::GivenUp { backend, start, left, reason } => {
            Some((format!("{backend} {start}"), *left, reason.clone()))
        }
        _ => None,
    });
    given_up.collect()
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

/// The machine is left idle before each trial, warm-ups too, and a cancelled run does not wait for it.
#[test]
fn a_gap_lies_before_each_trial() {
    let _alone = ALONE.lock();
    let mut plan = plan(&["a"], 2, UP);
    plan.gap = compare_spec::Span(Duration::from_millis(60));
    let fake = || vec![FakeBackend::new("a", vec![Script::Say("a is up".into())])];
    let begin = Instant::now();
    let Some(_) = events(&plan, fake(), &Cancel::new().unwrap()) else { return };
    assert!(begin.elapsed() >= 3 * plan.gap.0, "{:?}", begin.elapsed());

    plan.gap = compare_spec::Span(Duration::from_secs(3600));
    let cancel = Cancel::new().unwrap();
    let (told, begun) = std::sync::mpsc::channel();
    let other = cancel.clone();
    let canceller = std::thread::spawn(move || {
        begun.recv().unwrap();
        other.cancel();
    });
    let events = events_seen(&plan, fake(), &cancel, &mut |_| told.send(()).unwrap_or_default());
    canceller.join().unwrap();
    assert!(matches!(events.unwrap().last(), Some(RunEvent::End { interrupted: true })));
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
    assert_eq!(given_up(&events), [("bad".into(), 3, "several trials in a row failed".into())]);
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

/// A container and a microVM that starts cold and restored, all fake. The cold starts that are saved
/// play `template`.
struct Restoring {
    place: tempfile::TempDir,
    journal: Journal,
    plan: Plan,
    template: Vec<Script>,
    restored: Vec<Script>,
}

impl Restoring {
    fn new(trials: u32) -> Self {
        let starts = vec![StartMode::Cold, StartMode::Restored];
        Self {
            place: tempfile::tempdir().unwrap(),
            journal: Journal::default(),
            plan: Plan { starts, ..plan(&["container", "microvm"], trials, UP) },
            template: vec![Script::Say("up".into())],
            restored: vec![Script::Say("up".into())],
        }
    }

    fn directory(&self) -> PathBuf {
        self.place.path().join("microvm")
    }

    fn events(&self, cancel: &Cancel, watch: &mut dyn FnMut(&RunEvent)) -> Option<Vec<RunEvent>> {
        let up = || vec![Script::Say("up".into())];
        let fakes = vec![
            FakeBackend::new("microvm", self.template.clone())
                .telling(&self.journal)
                .restored(self.directory(), self.restored.clone()),
            FakeBackend::new("microvm", up()).telling(&self.journal),
            FakeBackend::new("container", up()).telling(&self.journal),
        ];
        let events = events_seen(&self.plan, fakes, cancel, watch)?;
        assert!(!self.directory().exists(), "the snapshot outlives the run");
        Some(events)
    }

    fn plain(&self) -> Option<Vec<RunEvent>> {
        self.events(&Cancel::new().unwrap(), &mut |_| {})
    }
}

#[test]
fn a_snapshot_is_made_once_and_before_everything() {
    let _alone = ALONE.lock();
    let restoring = Restoring::new(4);
    let mut mode = 0;
    let directory = restoring.directory();
    let Some(events) = restoring.events(&Cancel::new().unwrap(), &mut |event| {
        if matches!(event, RunEvent::Saved { .. }) {
            mode = directory.metadata().unwrap().mode() & 0o777;
        }
    }) else {
        return;
    };
    assert_eq!(mode, 0o700, "a snapshot is for its user alone");
    let journal = restoring.journal.lines();
    // Saved once it was ready, which the fake insists on, then stopped; one restored to see what that
    // needs; then the warm-ups.
    assert_eq!(
        journal[..7],
        [
            "microvm: start template",
            "microvm: save template",
            "microvm: stop template",
            "microvm restored: start rehearsal",
            "microvm restored: stop rehearsal",
            "container: start t0",
            "container: stop t0"
        ]
    );
    assert_eq!(journal.iter().filter(|line| line.contains("template")).count(), 3, "{journal:?}");
    let starts: Vec<&str> = journal
        .iter()
        .filter_map(|line| line.split_once(": start t"))
        .map(|(side, _)| side)
        .collect();
    let measured = &starts[4..];
    assert_eq!(measured.len(), 12);
    for round in measured.chunks(3) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, ["container", "microvm", "microvm restored"], "{measured:?}");
    }

    let template = events.iter().position(|event| matches!(event, RunEvent::Template { .. }));
    let saved = events.iter().position(|event| matches!(event, RunEvent::Saved { .. })).unwrap();
    let first = events.iter().position(|event| matches!(event, RunEvent::Trial { .. })).unwrap();
    assert!(template.unwrap() < saved && saved < first);
    let RunEvent::Saved { snapshot } = &events[saved] else { unreachable!() };
    assert_eq!(snapshot.backend, "microvm");
    assert!(snapshot.ready_ns > 0 && snapshot.save_ns > 0 && snapshot.bytes > 0, "{snapshot:?}");

    let microvm = trials(&events, "microvm");
    let (restored, cold): (Vec<_>, Vec<_>) =
        microvm.iter().partition(|trial| trial.start == "restored");
    assert_eq!((restored.len(), cold.len(), trials(&events, "container").len()), (4, 4, 4));
    for trial in restored {
        assert_eq!(trial.outcome, Outcome::Ok, "{:?}", trial.detail);
        let events = trial.events_ns;
        assert!(events.exec.is_none() && events.kernel.is_some() && events.init <= events.ready);
    }
    assert!(cold.iter().all(|trial| trial.start == "cold" && trial.events_ns.exec.is_some()));
}

#[test]
fn without_a_snapshot_restored_trials_are_given_up_with_the_reason() {
    let _alone = ALONE.lock();
    let cases = [
        (Script::Bulky("up".into()), "no storage space: set TMPDIR"),
        (Script::Refuse("open /dev/nothing".into()), "open /dev/nothing"),
        (Script::End(Exit::Code { code: 3 }), "exited with 3 before it was ready"),
        (Script::Say("never".into()), "contains `up`; its last line: never"),
        (Script::Leak("up".into()), "left behind: descriptor"),
    ];
    for (script, why) in cases {
        let mut restoring = Restoring::new(2);
        restoring.template = vec![script];
        let Some(events) = restoring.plain() else { return };
        let [(side, left, reason)] = &given_up(&events)[..] else { panic!("{events:?}") };
        assert_eq!((side.as_str(), *left), ("microvm restored", 2));
        assert!(reason.contains("no snapshot to restore") && reason.contains(why), "{reason}");
        let microvm = trials(&events, "microvm");
        assert!(microvm.iter().all(|trial| trial.start == "cold" && trial.outcome == Outcome::Ok));
        assert_eq!((microvm.len(), trials(&events, "container").len()), (2, 2));
        let journal = restoring.journal.lines();
        assert!(!journal.iter().any(|line| line.starts_with("microvm restored")), "{journal:?}");
        // Whatever was started for it is gone.
        let count = |what: &str| journal.iter().filter(|line| line.ends_with(what)).count();
        assert!(count("stop template") == 1 || count("start template") == 1, "{journal:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_a_reason_too() {
    let _alone = ALONE.lock();
    let mut restoring = Restoring::new(1);
    let place = restoring.place.path().to_owned();
    restoring.place.disable_cleanup(true);
    std::fs::remove_dir(&place).unwrap();
    let Some(events) = restoring.plain() else { return };
    let [(_, _, reason)] = &given_up(&events)[..] else { panic!("{events:?}") };
    assert!(reason.contains(place.to_str().unwrap()), "{reason}");
}

#[test]
fn failing_restored_starts_are_data_and_the_snapshot_goes() {
    let _alone = ALONE.lock();
    let mut restoring = Restoring::new(4);
    restoring.restored = vec![Script::Refuse("map the snapshot".into())];
    let Some(events) = restoring.plain() else { return };
    let failed: Vec<Trial> = trials(&events, "microvm")
        .into_iter()
        .filter(|trial| trial.outcome == Outcome::BackendFailed)
        .collect();
    assert_eq!(failed.len(), 2, "the warm-up and two trials failed in a row");
    assert!(failed.iter().all(|trial| trial.start == "restored"));
    let reason = "several trials in a row failed".to_owned();
    assert_eq!(given_up(&events), [("microvm restored".to_owned(), 2, reason)]);
}

#[test]
fn an_interrupt_leaves_no_snapshot() {
    let _alone = ALONE.lock();
    type When = fn(&RunEvent) -> bool;
    let moments: [(When, &str); 3] = [
        (|event| matches!(event, RunEvent::Begin { .. }), ""),
        (|event| matches!(event, RunEvent::Template { .. }), "microvm: start template"),
        (|event| matches!(event, RunEvent::Done { .. }), "container: stop t0"),
    ];
    for (is_now, last_asked) in moments {
        let restoring = Restoring::new(4);
        let cancel = Cancel::new().unwrap();
        let Some(events) = restoring.events(&cancel, &mut |event| {
            if is_now(event) {
                cancel.cancel();
            }
        }) else {
            return;
        };
        assert_eq!(events.last(), Some(&RunEvent::End { interrupted: true }));
        assert_eq!(given_up(&events), [], "an interrupt is no failure");
        let journal = restoring.journal.lines();
        assert!(last_asked.is_empty() == journal.is_empty(), "{journal:?}");
        assert!(journal.iter().any(|line| line == last_asked) || journal.is_empty(), "{journal:?}");
        let of = |what: &str| journal.iter().filter(|line| line.contains(what)).count();
        assert_eq!(of(": start "), of(": stop "), "{journal:?}");
    }
}
