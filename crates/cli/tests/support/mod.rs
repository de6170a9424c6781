//! Runs the program and looks at what it said. `COMPARE_BIN` names another build of it.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The program.
pub fn program() -> PathBuf {
    std::env::var_os("COMPARE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_compare").into(), PathBuf::from)
}

/// A finished run.
#[derive(Debug)]
pub struct Run {
    arguments: Vec<String>,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    record: Option<(serde_json::Value, PathBuf)>,
}

impl Run {
    /// Fails the test unless the program ended with `code`.
    pub fn expect(&self, code: i32) {
        assert_eq!(
            self.code,
            Some(code),
            "compare {}\n--- stdout\n{}\n--- stderr\n{}",
            self.arguments.join(" "),
            self.stdout,
            self.stderr
        );
    }

    /// A run that was started some other way.
    pub fn of(what: &str, output: std::process::Output) -> Self {
        Self {
            arguments: vec![what.to_owned()],
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            record: None,
        }
    }

    /// The record it exported.
    pub fn record(&self) -> serde_json::Value {
        self.record.as_ref().unwrap_or_else(|| panic!("no record\n{}", self.stderr)).0.clone()
    }
}

/// A directory that is gone after the test.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Run {
    finish(arguments, command(arguments).spawn().unwrap())
}

/// Runs the program with another environment.
pub fn run_with(arguments: &[&str], env: &[(&str, &str)]) -> Run {
    finish(arguments, command(arguments).envs(env.iter().copied()).spawn().unwrap())
}

/// Runs the program in a process group of its own and sends SIGINT to the whole group, as a terminal
/// does, once a line of its standard error contains `sign`.
pub fn interrupt_after(arguments: &[&str], sign: &str) -> Run {
    let mut child = command(arguments).process_group(0).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(sign) {
        let count = stderr.read_line(&mut said).unwrap();
        assert_ne!(count, 0, "it ended before it said `{sign}`:\n{said}");
    }
    let group = format!("-{}", child.id());
    let interrupted = Command::new("kill").args(["-INT", "--", &group]).status().unwrap();
    assert!(interrupted.success());
    stderr.read_to_string(&mut said).unwrap();
    let mut run = finish(arguments, child);
    run.stderr = said;
    run
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(arguments: &[&str], child: std::process::Child) -> Run {
    let run = Run::of(&arguments.join(" "), child.wait_with_output().unwrap());
    let exported = arguments
        .iter()
        .position(|argument| *argument == "--export-json")
        .map(|at| arguments[at + 1]);
    let record = exported.filter(|path| *path != "-").and_then(|path| {
        let record = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        Some((record, path.into()))
    });
    Run { record, ..run }
}

/// Whether the emulated host can be started; insists where `COMPARE_REQUIRE=lab`. Runs in it are
/// made only where they are asked for, since the first one builds a kernel.
pub fn lab_is_here() -> bool {
    let wanted =
        std::env::var("COMPARE_REQUIRE").is_ok_and(|what| what.split(',').any(|one| one == "lab"));
    if !wanted {
        println!("SKIP: set COMPARE_REQUIRE=lab, as scripts/test does");
    }
    wanted
}
