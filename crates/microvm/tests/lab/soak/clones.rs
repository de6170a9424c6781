//! Many clones of one saved machine, all at once.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    time::Duration,
};

use compare_backend::{Backend, Instance, StartRequest, Timeline, monotonic_ns};
use compare_microvm::MicrovmBackend;
use compare_probe::{settle, until_ready};
use compare_spec::Workload;
use compare_stats::median;
use nix::sys::{
    eventfd::EventFd,
    resource::{Resource, getrlimit, setrlimit},
};
use serde_json::{Map, Value, json};

use super::{count, host::Host, line, monitors, monitors::Sum, record, warm_up, workload};
use crate::fixture::Fixture;

/// The most that one more clone may cost, bytes of PSS.
const PSS_BAR_BYTES: f64 = (4 << 20) as f64;
/// So many times memory is looked at while the clones are started.
const SAMPLES: usize = 20;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// So long they are watched while none of them is asked.
const REST: Duration = Duration::from_secs(1);

type Clone = Box<dyn Instance>;

/// Starts clones, each once the one before it answers, and asks all of them again at the end.
pub fn concurrent(fixture: &Fixture) {
    let workload = workload();
    let count = count(20);
    warm_up(fixture);
    // Some descriptors for each instance: more than a process usually may have.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("setrlimit");
    let directory = tempfile::tempdir().expect("a directory");
    let before = Host::read();
    let mut backend =
        MicrovmBackend::restoring(fixture.config.clone(), directory.path().to_owned());
    let template_ns = save(fixture, &mut backend, &workload);
    let saved = Host::read();

    let (mut clones, mut ready_ns, mut failure) = (Vec::new(), Vec::new(), None);
    let mut samples: Vec<(f64, Sum, Host)> = Vec::new();
    for n in 1..=count {
        match start(fixture, &mut backend, &workload, n) {
            Ok((clone, ns)) => {
                clones.push(clone);
                ready_ns.push(ns);
            }
            Err(error) => {
                failure = Some(format!("clone {n}: {error}"));
                break;
            }
        }
        println!("{n} clones answer, the last after {:.1} ms", ready_ns[n - 1] / 1e6);
        if n <= 2 || n % count.div_ceil(SAMPLES) == 0 {
            let sum = Sum::of(&clones);
            samples.push((n as f64, sum, Host::read()));
        }
    }
    let rest = cpu_share_at_rest(&clones);
    let answers: Vec<_> = clones.iter_mut().map(|one| answer(one.as_mut(), &workload)).collect();
    let answer_ns: Vec<f64> = answers.iter().filter_map(|one| one.clone().ok()).collect();
    let silent: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
    let answered = Sum::of(&clones);
    let by_mapping = clones.last().map(|last| monitors::mappings(last.as_ref()));
    let stops: Vec<_> = clones.iter_mut().map(|one| one.stop(workload.timeout.stop.0)).collect();
    let stopped = stops.iter().filter(|one| one.is_ok()).count();
    let stop_ns: Vec<f64> = clones.iter().filter_map(|one| stop_ns(one.as_ref())).collect();
    drop(clones);
    let fits = fits(&samples);
    record(
        "clones",
        &json!({ "workload": workload.name, "wanted": count, "failure": failure,
            "ready": ready_ns.len(), "answering_at_the_end": answer_ns.len(), "silent": silent,
            "stopped": stopped, "template_ready_ns": template_ns,
            "snapshot_bytes": allocated(&directory.path().join("memory")),
            "ready_ns": ready_ns, "ready_ns_median": median(&ready_ns),
            "answer_ns": answer_ns, "answer_ns_median": median(&answer_ns),
            "stop_ns_median": median(&stop_ns),
            "cpu_share_of_a_clone_at_rest": rest, "for_one_more_clone": fits,
            "samples": samples.iter().map(sample).collect::<Vec<_>>(),
            "after_answering": figures(&answered.figures()),
            "host_before": before.json(), "host_saved": saved.json(),
            "host_after": Host::read().json(), "last_clone_by_mapping": by_mapping }),
    );
    assert_eq!(failure, None);
    assert_eq!(silent, Vec::<String>::new(), "clones that no longer answer");
    assert_eq!(stopped, count, "clones that could be stopped");
    let slope = fits["pss"]["slope"].as_f64().expect("three samples or more");
    assert!(slope <= PSS_BAR_BYTES, "one more clone costs {slope:.0} bytes of PSS");
}

/// Starts the template, saves it once it answers and rests, and stops it. Tells how long it took to
/// answer, nanoseconds.
fn save(fixture: &Fixture, backend: &mut MicrovmBackend, workload: &Workload) -> u64 {
    let template = backend.template().expect("restoring needs a template");
    let never = EventFd::new().expect("an eventfd");
    let mut instance = fixture.start_by(template.backend, &fixture.image, workload);
    until_ready(instance.as_mut(), workload, never.as_fd()).expect("the template answers");
    settle(instance.as_mut(), never.as_fd());
    instance.save(&template.directory).expect("save");
    instance.stop(Duration::ZERO).expect("stop");
    instance.timeline().events().ready.expect("it was ready")
}

/// One more clone that answers and rests, and how long it took to answer, nanoseconds.
fn start(
    fixture: &Fixture,
    backend: &mut MicrovmBackend,
    workload: &Workload,
    n: usize,
) -> Result<(Clone, f64), String> {
    let never = EventFd::new().map_err(|error| error.to_string())?;
    let name = format!("c{n}");
    let (image, parent) = (&fixture.image, &fixture.parent);
    let request = StartRequest { name: &name, slot: n as u32, workload, image, parent };
    let mut clone = backend
        .start(&request, Timeline::start())
        .map_err(|error| format!("{error}: {:?}", error.source))?;
    until_ready(clone.as_mut(), workload, never.as_fd())
        .map_err(|why| format!("{why:?}\n{}", clone.output().tail()))?;
    settle(clone.as_mut(), never.as_fd());
    let ns = clone.timeline().events().ready.ok_or("it has no time")?;
    Ok((clone, ns as f64))
}

/// The share of a CPU that a clone uses which has nothing to do, over some time; the mean of all.
fn cpu_share_at_rest(clones: &[Clone]) -> f64 {
    let used_ns = || clones.iter().filter_map(|one| one.leaf().cpu_usage_ns()).sum::<u64>();
    let (begin, used) = (monotonic_ns(), used_ns());
    std::thread::sleep(REST);
    (used_ns() - used) as f64 / (monotonic_ns() - begin) as f64 / clones.len() as f64
}

/// Asks once more; tells how long the answer took, nanoseconds.
fn answer(clone: &mut dyn Instance, workload: &Workload) -> Result<f64, String> {
    clone.pump().map_err(|error| error.to_string())?;
    let port = workload.port.ok_or("it serves nothing")?;
    let address = SocketAddr::from((clone.address().ok_or("it has no address")?, port));
    let begin = monotonic_ns();
    let mut text = String::new();
    let asked = TcpStream::connect_timeout(&address, ANSWER).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: clone\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut text)
    });
    let took_ns = (monotonic_ns() - begin) as f64;
    asked.map_err(|error| format!("{address}: {error}"))?;
    match text.starts_with("HTTP/1.1 200 ") {
        true => Ok(took_ns),
        false => Err(format!("{address}: {}", text.lines().next().unwrap_or_default())),
    }
}

/// From asking to stop until all is gone, nanoseconds.
fn stop_ns(clone: &dyn Instance) -> Option<f64> {
    let events = clone.timeline().events();
    Some((events.stopped? - events.stop?) as f64)
}

/// What one more clone costs, by figure: the line through all samples but the first, in which the
/// one clone holds what the later ones share.
fn fits(samples: &[(f64, Sum, Host)]) -> Value {
    let later = samples.get(1..).unwrap_or_default();
    let clones: Vec<f64> = later.iter().map(|(n, ..)| *n).collect();
    let all = |sample: &(f64, Sum, Host)| {
        sample.1.figures().into_iter().chain(sample.2.figures()).collect::<Vec<_>>()
    };
    let names = later.first().map(all).unwrap_or_default();
    let named = names.iter().enumerate().map(|(index, (name, _))| {
        let values: Vec<f64> = later.iter().map(|sample| all(sample)[index].1).collect();
        ((*name).to_owned(), line(&clones, &values))
    });
    named.collect::<Map<_, _>>().into()
}

fn sample((n, sum, host): &(f64, Sum, Host)) -> Value {
    json!({ "clones": n, "monitors": figures(&sum.figures()), "host": host.json() })
}

fn figures(figures: &[(&str, f64)]) -> Value {
    let named = figures.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    named.collect::<Map<_, _>>().into()
}

/// Bytes of a file, its holes not counted (inode(7), `st_blocks`).
fn allocated(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.blocks() * 512)
}
