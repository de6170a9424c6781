//! One container after the other, as many as a host sees in a day.

use std::panic::AssertUnwindSafe;

use compare_spec::EventsNs;
use compare_stats::median;
use serde_json::{Map, Value, json};

use super::{Job, PATIENCE, host::Host, line};
use crate::world::World;

/// The first and the last so many starts are compared.
const SPAN: usize = 100;
/// The most that a start may cost the host for good: a page.
const GROWTH_BYTES_PER_START: f64 = 4096.0;

type Time = (&'static str, fn(&EventsNs) -> Option<u64>);

/// What is timed, and how: nanoseconds since the request; the last two since the stop was asked for.
const TIMES: [Time; 5] = [
    ("created_ns", |events| events.created),
    ("exec_ns", |events| events.exec),
    ("ready_ns", |events| events.ready),
    ("stopped_ns", |events| events.stopped?.checked_sub(events.stop?)),
    ("gone_ns", |events| events.gone?.checked_sub(events.stop?)),
];

/// Starts and stops one after the other; looks for what is left after each.
pub fn in_a_row(world: &mut World) {
    let job = Job::find(world, 50);
    let span = SPAN.min(job.count / 2).max(1);
    // The first of all has the kernel set up what stays.
    one(world, &job);
    let before = Host::read();
    let (mut events, mut hosts, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=job.count {
        match std::panic::catch_unwind(AssertUnwindSafe(|| one(world, &job))) {
            Ok(one) => events.push(one),
            // Its words were printed when it failed.
            Err(_) => failures.push(n),
        }
        hosts.push(Host::read());
        if n.is_multiple_of(50) {
            let last = events.last().and_then(|one| one.ready).unwrap_or(0) as f64 / 1e6;
            println!(
                "{n} starts, {} failed; the last was ready after {last:.2} ms",
                failures.len()
            );
        }
    }
    let times = TIMES.iter().filter_map(|(name, of)| {
        let values: Vec<f64> = events.iter().filter_map(of).map(|ns| ns as f64).collect();
        (!values.is_empty()).then(|| ((*name).to_owned(), course(&values, span)))
    });
    let series = |name| hosts.iter().filter_map(|host| host.get(name)).collect::<Vec<f64>>();
    let host: Vec<Value> = before
        .figures()
        .into_iter()
        .map(|(name, value)| json!({ "figure": name, "before": value, "starts": course(&series(name), span) }))
        .collect();
    job.record(
        "starts",
        &json!({ "workload": job.workload.name, "port": job.workload.port, "starts": job.count,
            "failed": failures, "span": span, "times": times.collect::<Map<_, _>>(), "host": host }),
    );
    assert_eq!(failures, Vec::<usize>::new(), "starts that failed");
    if job.is_long() {
        assert_eq!(before.counts, hosts[job.count - 1].counts, "left on the host");
        let available = series("MemAvailable");
        let lost = first(&available, span) - last(&available, span);
        assert!(lost <= GROWTH_BYTES_PER_START * job.count as f64, "{lost} bytes are lost");
    }
}

/// Starts one, stops it, and fails if anything of it is left.
fn one(world: &mut World, job: &Job) -> EventsNs {
    let mut instance = job.start(world);
    instance.stop(job.workload.timeout.stop.0).unwrap();
    instance.until_gone(PATIENCE).unwrap();
    let events = instance.timeline().events();
    drop(instance);
    world.assert_clean();
    events
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
