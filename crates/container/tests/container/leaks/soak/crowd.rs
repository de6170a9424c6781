//! Many containers at once, each started once the one before it answers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use compare_backend::{Instance, monotonic_ns};
use compare_probe::{read_memory, settle};
use compare_spec::{EventsNs, Memory, Readiness};
use compare_stats::median;
use nix::sys::{
    eventfd::EventFd,
    resource::{Resource, getrlimit, setrlimit},
};
use serde_json::{Map, Value, json};

use super::{Job, PATIENCE, host::Host, line};
use crate::world::World;

/// The most by which the start of the last may exceed that of the first.
const SLOWER: f64 = 1.2;
/// So many times memory is looked at while they are started.
const SAMPLES: usize = 20;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);

type Figure = (&'static str, fn(&Memory) -> Option<u64>);

/// What is added up over all containers.
const FIGURES: [Figure; 8] = [
    ("pss", |memory| memory.pss_bytes),
    ("uss", |memory| memory.uss_bytes),
    ("rss", |memory| memory.rss_bytes),
    ("charge", |memory| memory.cgroup_current_bytes),
    ("anon", |memory| memory.cgroup_split.anon_bytes),
    ("file", |memory| memory.cgroup_split.file_bytes),
    ("kernel", |memory| memory.cgroup_split.kernel_bytes),
    ("slab", |memory| memory.cgroup_split.slab_bytes),
];

/// Sums over containers and figures of the host, by name, with as many as there were.
struct Sample {
    containers: f64,
    figures: Vec<(&'static str, f64)>,
}

/// Starts them, asks all once more at the end, and stops them.
pub fn at_once(world: &mut World) {
    let job = Job::find(world, 10);
    // Some descriptors for each: more than a process usually may have.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    // The first of all has the kernel set up what stays, and reads the files.
    let mut first = job.start(world);
    first.stop(job.workload.timeout.stop.0).unwrap();
    first.until_gone(PATIENCE).unwrap();
    drop(first);
    let never = EventFd::new().unwrap();
    let before = Host::read();
    let (mut crowd, mut events, mut samples) = (Vec::new(), Vec::<EventsNs>::new(), Vec::new());
    for n in 1..=job.count {
        let mut container = job.start(world);
        settle(&mut *container, never.as_fd());
        events.push(container.timeline().events());
        crowd.push(container);
        if n <= 2 || n.is_multiple_of(job.count.div_ceil(SAMPLES)) {
            samples.push(Sample::of(&mut crowd));
            let ready = events[n - 1].ready.unwrap() as f64 / 1e6;
            println!("{n} containers answer, the last after {ready:.2} ms");
        }
    }
    let answers: Vec<_> = crowd.iter().map(|one| answer(&**one, &job)).collect();
    let silent: Vec<&String> = answers.iter().filter_map(|one| one.as_ref().err()).collect();
    let answer_ns: Vec<f64> = answers.iter().filter_map(|one| one.as_ref().ok()).copied().collect();
    let full = Host::read();
    let mut stop_ns = Vec::new();
    while let Some(mut container) = crowd.pop() {
        container.stop(job.workload.timeout.stop.0).unwrap();
        container.until_gone(PATIENCE).unwrap();
        let events = container.timeline().events();
        stop_ns.push((events.stopped.unwrap() - events.stop.unwrap()) as f64);
    }
    let after = Host::read();
    let phase = |of: fn(&EventsNs) -> Option<u64>| -> Vec<f64> {
        events.iter().filter_map(of).map(|ns| ns as f64).collect()
    };
    let ready_ns = phase(|events| events.ready);
    let numbers: Vec<f64> = (1..=ready_ns.len()).map(|n| n as f64).collect();
    let slower = ready_ns[ready_ns.len() - 1] / ready_ns[0];
    job.record(
        "crowd",
        &json!({ "workload": job.workload.name, "wanted": job.count,
            "answering_at_the_end": answer_ns.len(), "silent": silent,
            "created_ns": phase(|events| events.created), "exec_ns": phase(|events| events.exec),
            "ready_ns": ready_ns, "ready_ns_median": median(&ready_ns),
            "ready_line": line(&numbers, &ready_ns), "last_to_first": slower,
            "answer_ns_median": median(&answer_ns), "stop_ns_median": median(&stop_ns),
            "for_one_more": fits(&samples),
            "samples": samples.iter().map(Sample::json).collect::<Vec<_>>(),
            "host_before": before.json(), "host_full": full.json(), "host_after": after.json() }),
    );
    assert_eq!(silent, Vec::<&String>::new(), "containers that no longer answer");
    if job.is_long() {
        assert_eq!(before.counts, after.counts, "left on the host");
        assert!(slower <= SLOWER, "the last start takes {slower:.2} times as long as the first");
    }
}

impl Sample {
    fn of(crowd: &mut [Box<dyn Instance>]) -> Self {
        let memory: Vec<Memory> =
            crowd.iter_mut().map(|one| read_memory(&mut **one).memory).collect();
        let sums = FIGURES.iter().filter_map(|(name, of)| {
            let sum = memory.iter().map(of).sum::<Option<u64>>()?;
            Some((*name, sum as f64))
        });
        let figures = sums.chain(Host::read().figures()).collect();
        Self { containers: crowd.len() as f64, figures }
    }

    fn json(&self) -> Value {
        let named = self.figures.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        let named: Map<_, _> = named.collect();
        json!({ "containers": self.containers, "figures": named })
    }
}

/// What one more costs, by figure: the line through all samples but the first, in which the one
/// container holds what the later ones share.
fn fits(samples: &[Sample]) -> Value {
    let later = samples.get(1..).unwrap_or_default();
    let containers: Vec<f64> = later.iter().map(|sample| sample.containers).collect();
    let names = later.first().map(|sample| sample.figures.clone()).unwrap_or_default();
    let named = names.iter().map(|(name, _)| {
        let of = |sample: &Sample| {
            sample.figures.iter().find(|one| one.0 == *name).map_or(f64::NAN, |one| one.1)
        };
        let values: Vec<f64> = later.iter().map(of).collect();
        ((*name).to_owned(), line(&containers, &values))
    });
    named.collect::<Map<_, _>>().into()
}

/// Asks once more; tells how long the answer took, nanoseconds.
fn answer(container: &dyn Instance, job: &Job) -> Result<f64, String> {
    let address = SocketAddr::from((container.address().unwrap(), job.workload.port.unwrap()));
    let (begin, started) = (monotonic_ns(), Instant::now());
    let mut text = String::new();
    let asked = TcpStream::connect_timeout(&address, ANSWER).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER))?;
        if matches!(job.workload.ready, Readiness::Http(_)) {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: container\r\nConnection: close\r\n\r\n")?;
        }
        stream.read_to_string(&mut text)
    });
    let took_ns = (monotonic_ns() - begin) as f64;
    asked.map_err(|error| format!("{address}: {error} after {:?}", started.elapsed()))?;
    let expected =
        if matches!(job.workload.ready, Readiness::Http(_)) { "HTTP/1.1 200 " } else { "hello " };
    match text.starts_with(expected) {
        true => Ok(took_ns),
        false => Err(format!("{address}: {}", text.lines().next().unwrap_or_default())),
    }
}
