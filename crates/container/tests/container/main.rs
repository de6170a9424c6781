//! Containers, really started: needs root. The binary is static and plays both parts: started by
//! cargo it runs the cases below, one after another in one thread with private network and mount
//! namespaces; copied into a container's root it is the workload (`workload.rs`).
//!
//! A machine that cannot start containers prints `SKIP: reason`; `COMPARE_REQUIRE=container` turns
//! that into a failure. Arguments that are not options filter cases by name.
#![allow(clippy::unwrap_used)] // a test crate throughout, though without #[test] for clippy to see

mod isolation;
mod leaks;
mod network;
mod outcomes;
mod stopping;
mod variants;
mod workload;
mod world;

use std::{panic, process::exit, time::Instant};

use world::World;

type Case = (&'static str, fn(&mut World));

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(mode) = args.first().and_then(|arg| arg.strip_prefix("workload:")) {
        exit(workload::run(mode, &args[1..]));
    }
    let mut world = match World::new() {
        Ok(world) => world,
        Err(reason) => {
            println!("SKIP: {reason}");
            exit(i32::from(
                std::env::var("COMPARE_REQUIRE").is_ok_and(|what| what.contains("container")),
            ));
        }
    };
    let cases: Vec<Case> = [
        outcomes::CASES,
        isolation::CASES,
        variants::CASES,
        network::CASES,
        stopping::CASES,
        leaks::CASES,
    ]
    .concat()
    .into_iter()
    .filter(|(name, _)| {
        let mut filters = args.iter().filter(|arg| !arg.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    })
    .collect();
    println!("\nrunning {} tests", cases.len());
    let started = Instant::now();
    let mut failed = Vec::new();
    for (name, case) in &cases {
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            case(&mut world);
            world.assert_clean();
        }));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        if result.is_err() {
            failed.push(*name);
        }
    }
    drop(world);
    for name in &failed {
        println!("failed: {name}");
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        cases.len() - failed.len(),
        failed.len(),
        started.elapsed().as_secs_f64()
    );
    exit(i32::from(!failed.is_empty()));
}
