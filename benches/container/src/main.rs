//! What a container's start is made of. It runs on the host that runs the containers: this one, or
//! the emulated one, where `benches/container-floor` brings it.
//!
//! ```text
//!  floor whole --tree DIR --runs 40 --gap 100    whole containers: create, start, exit, delete
//!  floor steps --tree DIR --runs 40 --gap 100    each step by itself, in a process of its own
//!  floor trace --tree DIR                        the system calls of one start, with their times
//!  floor once  --tree DIR                        one container and nothing else: what others' tools do
//! ```
//! `--workload FILE` is another workload than the program `/hello` of the tree, `--command WORDS`
//! another program. `--gap` is the idle time before each run, milliseconds: cold is 100, in a row 0.

mod steps;
mod trace;
mod whole;

use std::{path::PathBuf, process::exit, time::Duration};

type Failure = Box<dyn std::error::Error>;

/// What to measure.
struct Settings {
    tree: PathBuf,
    workload: Option<PathBuf>,
    command: Vec<String>,
    runs: u32,
    gap: Duration,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let result = settings(arguments).and_then(|settings| match mode.as_str() {
        "whole" => whole::measure(&settings),
        "steps" => steps::measure(&settings),
        "trace" => trace::run(&settings),
        "once" => whole::once(&settings),
        _ => Err("whole, steps, trace or once?".into()),
    });
    if let Err(error) = result {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        eprintln!("floor: {text}");
        exit(1);
    }
}

fn settings(mut arguments: impl Iterator<Item = String>) -> Result<Settings, Failure> {
    let mut settings = Settings {
        tree: PathBuf::new(),
        workload: None,
        command: vec!["/hello".to_owned()],
        runs: 40,
        gap: Duration::ZERO,
    };
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} lacks its value"))?;
        match option.as_str() {
            "--tree" => settings.tree = value.into(),
            "--workload" => settings.workload = Some(value.into()),
            "--command" => settings.command = value.split(' ').map(str::to_owned).collect(),
            "--runs" => settings.runs = value.parse()?,
            "--gap" => settings.gap = Duration::from_millis(value.parse()?),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    Ok(settings)
}
