//! A leaf of the host's real control groups, with processes in it. Needs root.
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(unsafe_code)] // clone_into

use std::{
    io::Read,
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    path::Path,
    thread,
    time::Duration,
};

use compare_cgroup::{
    Hierarchy, Limits, Parent,
    spawn::{Ended, clone_into},
};
use compare_spec::{Bytes, CgroupMode};

#[test]
fn processes_are_born_in_it_counted_killed_and_gone() {
    let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup")).unwrap();
    let parent = match Parent::create(&hierarchy) {
        Ok(parent) => parent,
        Err(error) => {
            let required =
                std::env::var("COMPARE_REQUIRE").is_ok_and(|what| what.contains("cgroup"));
            assert!(!required, "{error}");
            println!("SKIP: {error}");
            return;
        }
    };
    assert!(hierarchy.check().iter().all(|finding| finding.ok), "{:?}", hierarchy.check());
    let limits = Limits {
        memory: Some(Bytes::mib(16)),
        cpus: Some(0.5),
        pids: Some(4),
        ..Limits::default()
    };
    let mut leaf = parent.create_leaf("leaf", &limits).unwrap();

    // SAFETY: the closure makes system calls only. One fork per level until the limit stops it.
    let fork = || unsafe {
        while libc::fork() == 0 {}
        loop {
            libc::pause();
        }
    };
    // SAFETY: as said above.
    let child = unsafe { clone_into(&leaf, 0, fork) }.unwrap();
    while leaf.pids_limit_hits() == Some(0) {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(leaf.procs().unwrap().len(), 4);
    assert!(leaf.procs().unwrap().contains(&child.pid));
    assert!(leaf.memory().current.is_some() && leaf.cpu_usage_ns().is_some());
    assert_eq!(child.try_wait().unwrap(), None);
    leaf.kill().unwrap();
    assert_eq!(child.wait().unwrap(), Ended::Signal(libc::SIGKILL));
    assert!(child.wait().is_err(), "reaped once");
    leaf.remove().unwrap();
    leaf.remove().unwrap();
    assert!(parent.leaves().is_empty());

    let leaf = parent.create_leaf("leaf", &limits).unwrap();
    // SAFETY: the closure does nothing.
    let child = unsafe { clone_into(&leaf, 0, || 42) }.unwrap();
    assert_eq!(child.wait().unwrap(), Ended::Code(42));
    drop(leaf);
    limits_and_freezer(&parent, &hierarchy);
    reclaim_what_is_frozen(&hierarchy);
    let path = parent.path().to_owned();
    drop(parent);
    assert!(!path.exists());
}

/// What only some leaves have. There is one parent for each process: the other test's.
fn limits_and_freezer(parent: &Parent, hierarchy: &Hierarchy) {
    let v2 = hierarchy.mode() == CgroupMode::V2;
    let limits = Limits {
        memory: Some(Bytes::mib(16)),
        memory_high: v2.then(|| Bytes::mib(8)),
        swap: Some(Bytes(0)),
        cpu_weight: Some(300),
        cpuset: Some("0".parse().unwrap()),
        freezer: true,
        ..Limits::default()
    };
    let mut leaf = parent.create_leaf("limited", &limits).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the closure makes two system calls, of which one reads a byte of a static string.
    let spin = || unsafe {
        libc::write(writer.as_raw_fd(), c".".as_ptr().cast(), 1);
        loop {
            libc::getppid();
        }
    };
    // SAFETY: as said above.
    let child = unsafe { clone_into(&leaf, 0, spin) }.unwrap();
    reader.read_exact(&mut [0]).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid)).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");

    leaf.freeze().unwrap();
    // The last it ran for may be accounted after it is called frozen; what runs is never found to have
    // used the same twice.
    let used = (0..5).find_map(|_| {
        let used = leaf.cpu_usage_ns().unwrap();
        thread::sleep(Duration::from_millis(20)); // long enough for it to be seen if it ran
        (leaf.cpu_usage_ns().unwrap() == used).then_some(used)
    });
    let used = used.expect("it is frozen");
    leaf.freeze().unwrap();
    leaf.thaw().unwrap();
    while leaf.cpu_usage_ns().unwrap() == used {
        thread::yield_now();
    }
    // What is frozen dies all the same.
    leaf.freeze().unwrap();
    leaf.kill().unwrap();
    assert_eq!(child.wait().unwrap(), Ended::Signal(libc::SIGKILL));
    leaf.remove().unwrap();

    let far = Limits { cpuset: Some("0,8000".parse().unwrap()), ..Limits::default() };
    let error = parent.create_leaf("far", &far).unwrap_err();
    assert!(error.to_string().contains("CPUs 0,8000 are asked for"), "{error}");
    assert!(parent.leaves().is_empty());
}

/// A run that was killed while one of its leaves was frozen.
fn reclaim_what_is_frozen(hierarchy: &Hierarchy) {
    // Above PID_MAX_LIMIT: nobody's.
    let group = "compare-4194305-1/leaf";
    let root = Path::new("/sys/fs/cgroup");
    let (mounts, file, frozen) = match hierarchy.mode() {
        CgroupMode::V2 => (vec![root.to_owned()], "cgroup.freeze", "1"),
        _ => (vec![root.join("memory"), root.join("freezer")], "freezer.state", "FROZEN"),
    };
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "waits_to_be_killed", "--nocapture"])
        .env(WAITS, "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    for mount in &mounts {
        std::fs::create_dir_all(mount.join(group)).unwrap();
        std::fs::write(mount.join(group).join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    std::fs::write(mounts[mounts.len() - 1].join(group).join(file), frozen).unwrap();
    let lines = Parent::reclaim(hierarchy);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("could not")), "{lines:?}");
    assert!(mounts.iter().all(|mount| !mount.join("compare-4194305-1").exists()), "{lines:?}");
}

/// Tells the test below that it is the process to be killed.
const WAITS: &str = "COMPARE_WAITS";

#[test]
fn waits_to_be_killed() {
    if std::env::var_os(WAITS).is_some() {
        std::io::stdin().lines().for_each(drop);
    }
}
