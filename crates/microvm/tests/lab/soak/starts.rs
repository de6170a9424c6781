//! One instance after the other, as many as a host sees in a day.

use std::{panic::AssertUnwindSafe, time::Duration};

use compare_spec::Exit;
use compare_stats::median;
use serde_json::{Value, json};

use super::{count, host::Host, line, record, warm_up, workload};
use crate::fixture::{Fixture, open_descriptors, pump_until};

/// The first and the last so many starts are compared.
const SPAN: usize = 100;
/// The most by which the median of the last starts may exceed that of the first.
const SLOWER: f64 = 1.05;
/// The most by which a figure of the host may grow over all starts: what a page of it per start
/// would be.
const GROWTH_BYTES_PER_START: f64 = 4096.0;

/// How long one instance took, nanoseconds since it was asked for.
struct Times {
    exit: f64,
    stopped: f64,
}

/// Starts and stops one after the other; looks for what is left after each.
pub fn consecutive(fixture: &Fixture) {
    let workload = workload();
    let count = count(1000);
    let span = SPAN.min(count / 2).max(1);
    warm_up(fixture);
    let descriptors = open_descriptors();
    let before = Host::read();
    let (mut times, mut hosts, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=count {
        let one = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut instance = fixture.start(&workload);
            let limit = Duration::from_secs(60);
            pump_until(instance.as_mut(), limit, |one| one.exit().is_some());
            let (exit, at_ns) =
                instance.exit().map(|(exit, ns)| (exit.clone(), ns)).expect("it ended");
            let exit_ns = at_ns - instance.timeline().t0();
            assert_eq!(exit, Exit::Code { code: 0 }, "{}", instance.output().tail());
            instance.stop(Duration::from_secs(1)).expect("stop");
            let stopped_ns = instance.timeline().events().stopped.expect("it was stopped");
            drop(instance);
            fixture.assert_nothing_left(descriptors);
            Times { exit: exit_ns as f64, stopped: stopped_ns as f64 }
        }));
        match one {
            Ok(one) => times.push(one),
            // Its words were printed when it failed.
            Err(_) => failures.push(n),
        }
        hosts.push(Host::read());
        if n % 25 == 0 {
            let last = times.last().map_or(0.0, |one| one.exit / 1e6);
            println!("{n} starts, {} failed; the last took {last:.1} ms", failures.len());
        }
    }
    let exits: Vec<f64> = times.iter().map(|one| one.exit).collect();
    let stops: Vec<f64> = times.iter().map(|one| one.stopped).collect();
    let names = before.figures();
    let series =
        |index: usize| hosts.iter().map(|host| host.figures()[index].1).collect::<Vec<_>>();
    let drift: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(index, (name, value))| json!({ "figure": name, "before": value, "starts": course(&series(index), span) }))
        .collect();
    record(
        "starts",
        &json!({ "workload": workload.name, "starts": count, "failed": failures, "span": span,
            "exit_ns": course(&exits, span), "stopped_ns": course(&stops, span), "host": drift }),
    );
    assert_eq!(failures, Vec::<usize>::new(), "starts that failed");
    let ratio = last(&exits, span) / first(&exits, span);
    assert!(ratio <= SLOWER, "the last {span} starts take {ratio:.3} times as long as the first");
    let after = &hosts[count - 1];
    assert_eq!(before.counts, after.counts, "left on the host");
    let available = series(0);
    let lost = first(&available, span) - last(&available, span);
    assert!(lost <= GROWTH_BYTES_PER_START * count as f64, "{lost} bytes of the host are lost");
}

fn first(values: &[f64], span: usize) -> f64 {
    median(&values[..span.min(values.len())]).unwrap_or(f64::NAN)
}

fn last(values: &[f64], span: usize) -> f64 {
    median(&values[values.len().saturating_sub(span)..]).unwrap_or(f64::NAN)
}

/// How a figure went over all starts.
fn course(values: &[f64], span: usize) -> Value {
    let starts: Vec<f64> = (1..=values.len()).map(|n| n as f64).collect();
    // What is set up once is set up in the first starts: the line begins after them.
    let later = span.min(values.len());
    json!({
        "first_median": first(values, span), "last_median": last(values, span),
        "min": values.iter().copied().fold(f64::INFINITY, f64::min),
        "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "end": values.last(), "line_after_first": line(&starts[later..], &values[later..]),
    })
}
