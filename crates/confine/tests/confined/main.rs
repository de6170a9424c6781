//! Processes that really confine themselves. Each case is a process: this program again, with the
//! case as its argument, since only a process with one thread can confine itself. It is looked at
//! from outside, as the kernel shows it in `/proc`.
//!
//! What needs root prints `SKIP: reason` without it; `COMPARE_REQUIRE=confine` makes that a failure.
#![allow(unsafe_code, clippy::unwrap_used)] // a test throughout, of raw system calls

mod child;
mod filters;
mod jails;
mod seen;

use std::{panic, process::exit};

type Case = (&'static str, fn());

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(part) = arguments.first().and_then(|argument| argument.strip_prefix("child:")) {
        child::play(part);
    }
    let wanted = |name: &str| {
        let mut words = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
        words.peek().is_none() || words.any(|word| name.contains(word.as_str()))
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in [filters::CASES, jails::CASES].concat() {
        if !wanted(name) {
            continue;
        }
        let before = seen::surroundings();
        let result = panic::catch_unwind(|| {
            case();
            assert_eq!(seen::surroundings(), before, "left behind");
        });
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        passed += u32::from(result.is_ok());
        failed += u32::from(result.is_err());
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    exit(i32::from(failed > 0))
}

/// Whether this is root; says that a case cannot run if not.
fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        let required = std::env::var("COMPARE_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|word| word == "confine"), "required, but not root");
        println!("SKIP: not root");
    }
    root
}
