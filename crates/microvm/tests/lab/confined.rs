//! The monitor as others see it once its guest runs, and what becomes of it when it is made to ask
//! for something it never would.

use std::{fs, path::PathBuf, time::Duration};

use compare_backend::Instance;
use compare_confine::{inject, jail::FIRST_UID};
use compare_spec::{Exit, Phase};

use crate::{
    fixture::{Fixture, pump_until},
    scenarios::Scenario,
};

/// All of them.
pub const ALL: &[(&str, Scenario)] = &[
    ("the_monitor_is_confined", confined),
    ("a_forbidden_call_kills_the_monitor_and_is_told", forbidden),
];

fn running(fixture: &Fixture) -> (Box<dyn Instance>, PathBuf) {
    let mut instance = fixture.start(&fixture.workload(&["sleep"]));
    pump_until(instance.as_mut(), Duration::from_secs(60), |one| one.timeline().has(Phase::Exec));
    // KVM puts a thread of the kernel's own beside the monitor (kvm_vm_create_worker_thread); those
    // execute nothing.
    let processes = instance.leaf().procs().expect("the leaf's processes");
    let paths = processes.iter().map(|id| PathBuf::from(format!("/proc/{id}")));
    let programs: Vec<_> = paths.filter(|path| path.join("exe").read_link().is_ok()).collect();
    let [monitor] = &programs[..] else { panic!("the monitor alone: {programs:?}") };
    (instance, monitor.clone())
}

/// The threads of a process by name.
fn threads(process: &std::path::Path) -> Vec<(String, PathBuf)> {
    let tasks = fs::read_dir(process.join("task")).expect("threads");
    tasks
        .map(|task| {
            let path = task.expect("a thread").path();
            (fs::read_to_string(path.join("comm")).expect("a name").trim().to_owned(), path)
        })
        .collect()
}

fn confined(fixture: &Fixture) {
    let (mut instance, process) = running(fixture);
    let told = instance.confinement().expect("it tells").clone();
    assert_eq!((told.capabilities, told.lacks.len()), (0, 0), "{told:?}");
    assert!(told.empty_root && told.no_new_privileges && told.uid >= FIRST_UID, "{told:?}");
    let filters: Vec<_> = told.filters.iter().map(|filter| filter.thread.as_str()).collect();
    assert_eq!(filters, ["vcpu", "devices"]);
    assert!(told.filters.iter().all(|one| (10..60).contains(&one.system_calls)), "{told:?}");
    // What it tells is what is so.
    let seen = threads(&process);
    assert_eq!(seen.len(), 2, "{seen:?}");
    for (name, thread) in &seen {
        let status = fs::read_to_string(thread.join("status")).expect("its status");
        for line in [
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            assert!(status.contains(line), "{name}: no {line:?} in:\n{status}");
        }
        assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", told.uid)), "{status}");
    }
    let root: Vec<_> = fs::read_dir(process.join("root")).expect("its root").collect();
    assert!(root.is_empty(), "{root:?}");
    for kind in ["mnt", "net", "ipc", "uts"] {
        let of = |who: PathBuf| fs::read_link(who.join("ns").join(kind)).expect("a namespace");
        assert_ne!(of(process.clone()), of("/proc/self".into()), "{kind}");
    }
    instance.stop(Duration::ZERO).expect("stop");
}

fn forbidden(fixture: &Fixture) {
    for wanted in ["devices", "compare-vmm"] {
        let (mut instance, process) = running(fixture);
        let (_, thread) = threads(&process)
            .into_iter()
            .find(|(name, _)| name == wanted)
            .expect("a thread of that name");
        let thread = thread.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("an id");
        inject::system_call(thread, libc::SYS_socket, [1, 1, 0]).expect("inject a call");
        pump_until(instance.as_mut(), Duration::from_secs(30), |one| one.exit().is_some());
        let exit = instance.exit().expect("it ended").0.clone();
        let Exit::MonitorFailed { reason } = &exit else { panic!("{wanted}: {exit:?}") };
        assert!(reason.contains("its filter forbids"), "{wanted}: {reason}");
        instance.stop(Duration::ZERO).expect("stop");
    }
}
