//! A leaf of the host's real control groups, with processes in it. Needs root.
#![allow(unsafe_code)] // clone_into

use std::{path::Path, thread, time::Duration};

use compare_cgroup::{
    Hierarchy, Limits, Parent,
    spawn::{Ended, clone_into},
};
use compare_spec::Bytes;

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
    let limits = Limits { memory: Some(Bytes::mib(16)), cpus: Some(0.5), pids: Some(4) };
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
    let path = parent.path().to_owned();
    drop((leaf, parent));
    assert!(!path.exists());
}
