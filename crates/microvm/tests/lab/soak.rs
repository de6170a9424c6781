//! Endurance and density: far more instances than any test starts, and what they cost the host.
//! Takes minutes, so that it runs only where `COMPARE_SOAK` names a workload's file, whose image is
//! then the tests' image; `benches/microvm-soak` sets all of it up.
//!
//! Each measurement prints one line, `record NAME {json}`, before it decides whether it passed: what
//! falls short is a figure too.

mod clones;
mod host;
mod monitors;
mod starts;
mod still;

use std::path::Path;

use compare_spec::Workload;
use serde_json::{Value, json};

use crate::{fixture::Fixture, scenarios::Scenario};

/// All of them.
const ALL: &[(&str, Scenario)] =
    &[("soak_starts", starts::consecutive), ("soak_clones", clones::concurrent)];

/// All of them where they are asked for, else none.
pub fn asked_for() -> &'static [(&'static str, Scenario)] {
    if std::env::var_os("COMPARE_SOAK").is_some() { ALL } else { &[] }
}

/// The workload that is measured.
fn workload() -> Workload {
    let path = std::env::var_os("COMPARE_SOAK").expect("it was asked for");
    Workload::read(Path::new(&path)).expect("a workload")
}

/// How many instances are asked for.
fn count(default: usize) -> usize {
    std::env::var("COMPARE_SOAK_COUNT").map_or(default, |text| text.parse().expect("a number"))
}

/// Reads what instances are made from, so that it is in the host's page cache: while the emulated
/// host waits for its disk, its clock of instructions has none to count and leaps from timer to
/// timer, by seconds where this machine is busy.
fn warm_up(fixture: &Fixture) {
    let config = &fixture.config;
    for path in [&config.vmm, &config.kernel, &config.initramfs, &fixture.image.erofs] {
        let read = std::fs::File::open(path)
            .and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
        read.unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    }
}

fn record(name: &str, value: &Value) {
    println!("record {name} {value}");
}

/// The straight line through the points, in the unit of `y` for one more `x`.
fn line(x: &[f64], y: &[f64]) -> Value {
    compare_stats::linear_fit(x, y).map_or(Value::Null, |fit| {
        json!({ "slope": fit.slope, "slope_ci95": fit.slope_ci95, "intercept": fit.intercept, "points": fit.n })
    })
}
