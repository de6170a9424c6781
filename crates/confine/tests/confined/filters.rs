//! Filters in the kernel.

use std::os::unix::process::ExitStatusExt;

use compare_confine::inject;

use crate::{Case, seen::Seen};

pub const CASES: &[Case] = &[
    ("what_the_lists_allow_goes_on", allowed),
    ("a_panic_ends_as_everywhere", aborted),
    ("what_they_do_not_kills", forbidden),
    ("a_call_put_in_the_place_of_another_kills", injected),
    ("a_call_may_fail_instead", errno),
    ("all_threads_at_once", all_threads),
    ("a_thread_with_another_filter_is_told", thread_differs),
];

fn allowed() {
    for part in ["allowed:vcpu", "allowed:devices"] {
        Seen::start(part, None).end_well();
    }
}

fn aborted() {
    for part in ["abort:vcpu", "abort:devices"] {
        let (status, _) = Seen::start(part, None).end();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    }
}

fn forbidden() {
    for kind in ["vcpu", "devices"] {
        for call in [
            "socket", "open", "execve", "fork", "thread", "mmap", "mprotect", "ioctl", "signal",
            "ptrace", "x32", "prctl",
        ] {
            println!("{kind}: {call}");
            Seen::start(&format!("forbidden:{kind}:{call}"), None).end_killed();
        }
    }
    println!("vcpu: read");
    Seen::start("forbidden:vcpu:read", None).end_killed();
}

fn injected() {
    for (call, number) in [("socket", libc::SYS_socket), ("execve", libc::SYS_execve)] {
        println!("{call}");
        let mut seen = Seen::start("asleep", None);
        assert_eq!(seen.line(), "asleep");
        inject::system_call(seen.pid() as i32, number, [1, 1, 0]).unwrap();
        seen.end_killed();
    }
}

fn errno() {
    let mut seen = Seen::start("errno", None);
    assert_eq!(seen.line(), "socket: 13, getppid: fine");
    seen.end_well();
}

fn all_threads() {
    let mut seen = Seen::start("all_threads", None);
    assert_eq!(seen.line(), "installed");
    seen.end_killed();
}

fn thread_differs() {
    let mut seen = Seen::start("thread_differs", None);
    let line = seen.line();
    assert!(line.starts_with("install the filter in every thread: thread "), "{line}");
    seen.end_well();
}
