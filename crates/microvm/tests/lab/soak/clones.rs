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

use super::{
    count,
    host::Host,
    line, monitors,
    monitors::Sum,
    record,
    still::{Watch, places},
    warm_up, workload,
};
use crate::fixture::Fixture;

/// The most that one more clone may cost, bytes of PSS.
const PSS_BAR_BYTES: f64 = (4 << 20) as f64;
/// So many times memory is looked at while the clones are started.
const SAMPLES: usize = 20;
/// How long an answer may take: a hundred times as long as it does.
const ANSWER: Duration = Duration::from_millis(100);

/// So long they are watched while none of them is asked.
const REST: Duration = Duration::from_secs(1);
/// In so many parts: a guest that stands still is emulated at a hundredth of the speed.
const REST_PARTS: u32 = 20;
/// As many clones may stand still before the measurement is given up.
const MOST_STILL: usize = 20;

/// A running clone.
pub type Clone = Box<dyn Instance>;

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

    let mut crowd = Crowd::default();
    let (rest, answers, failure) = match crowd.gather(fixture, &mut backend, &workload, count) {
        Ok((rest, answers)) => (Some(rest), answers, None),
        Err(why) => (None, Vec::new(), Some(why)),
    };
    let answer_ns: Vec<f64> = answers.iter().filter_map(|one| one.clone().ok()).collect();
    let silent: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
    let answered = Sum::of(&crowd.clones);
    let by_mapping = crowd.clones.last().map(|last| monitors::mappings(last.as_ref()));
    let running = crowd.clones.len();
    let replaced = crowd.still.len();
    let stopping = crowd.stop(workload.timeout.stop.0);
    let Crowd { ready_ns, samples, still, stop_ns, .. } = crowd;
    let fits = fits(&samples);
    record(
        "clones",
        &json!({ "workload": workload.name, "wanted": count, "failure": failure,
            "ready": ready_ns.len(), "answering_at_the_end": answer_ns.len(), "silent": silent,
            "stopped": stop_ns.len(), "template_ready_ns": template_ns,
            "snapshot_bytes": allocated(&directory.path().join("memory")),
            "ready_ns": ready_ns, "ready_ns_median": median(&ready_ns),
            "answer_ns": answer_ns, "answer_ns_median": median(&answer_ns),
            "stop_ns_median": median(&stop_ns),
            "stood_still": still, "stood_still_and_replaced": replaced, "cpu_share_of_a_clone_at_rest": rest, "for_one_more_clone": fits,
            "samples": samples.iter().map(sample).collect::<Vec<_>>(),
            "after_answering": figures(&answered.figures()),
            "host_before": before.json(), "host_saved": saved.json(),
            "host_after": Host::read().json(), "last_clone_by_mapping": by_mapping }),
    );
    assert_eq!(failure, None);
    assert_eq!(silent, Vec::<String>::new(), "clones that no longer answer");
    assert_eq!(stopping, Ok(()), "clones are stopped");
    assert_eq!(stop_ns.len() + still.len() - replaced, running, "clones that could be stopped");
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

/// Tells now and then how far it is: a minute may go by.
fn tell_some(done: usize, what: &str) {
    if done.is_multiple_of(5) {
        println!("{done} clones {what}");
    }
}

/// All clones that run, and what was measured of them so far.
#[derive(Default)]
struct Crowd {
    clones: Vec<Clone>,
    /// How long each took to answer, nanoseconds.
    ready_ns: Vec<f64>,
    samples: Vec<(f64, Sum, Host)>,
    /// Those that stood still, for the record.
    still: Vec<Value>,
    /// How long each took to stop, nanoseconds.
    stop_ns: Vec<f64>,
    /// Number of starts, for names and addresses of their own.
    starts: usize,
}

impl Crowd {
    /// Has `count` clones answer, rest and answer once more; tells the share of a CPU that one at
    /// rest uses, and how long each answer took.
    fn gather(
        &mut self,
        fixture: &Fixture,
        backend: &mut MicrovmBackend,
        workload: &Workload,
        count: usize,
    ) -> Result<(f64, Vec<Result<f64, String>>), String> {
        loop {
            self.ready_ns.truncate(self.clones.len());
            self.fill(fixture, backend, workload, count)?;
            let Some(share) = self.rest()? else { continue };
            let watch = Watch::of(&self.clones);
            let mut answers = Vec::new();
            for clone in &mut self.clones {
                answers.push(answer(clone.as_mut(), workload));
                tell_some(answers.len(), "were asked once more");
            }
            match watch.busy(&self.clones) {
                Some(index) => self.give_up(index)?,
                None => return Ok((share, answers)),
            }
        }
    }

    /// Starts clones until there are `count`, each once the one before it answers and rests.
    fn fill(
        &mut self,
        fixture: &Fixture,
        backend: &mut MicrovmBackend,
        workload: &Workload,
        count: usize,
    ) -> Result<(), String> {
        while self.clones.len() < count {
            let watch = Watch::of(&self.clones);
            self.starts += 1;
            let (clone, ns) = start(fixture, backend, workload, self.starts)
                .map_err(|error| format!("clone {}: {error}", self.clones.len() + 1))?;
            self.clones.push(clone);
            self.ready_ns.push(ns);
            if let Some(index) = watch.busy(&self.clones) {
                // The one that was started meanwhile had but a part of the CPU.
                let meanwhile = self.clones.pop().expect("it was started");
                self.give_up(index)?;
                end(meanwhile)?;
                self.ready_ns.truncate(self.clones.len());
                continue;
            }
            let n = self.clones.len();
            println!("{n} clones answer, the last after {:.1} ms", ns / 1e6);
            let is_new = self.samples.last().is_none_or(|last| last.0 < n as f64);
            if is_new && (n <= 2 || n.is_multiple_of(count.div_ceil(SAMPLES))) {
                self.samples.push((n as f64, Sum::of(&self.clones), Host::read()));
            }
        }
        Ok(())
    }

    /// The share of a CPU that a clone uses which has nothing to do, over some time; the mean of
    /// all. None if one of them stood still, which is then gone.
    fn rest(&mut self) -> Result<Option<f64>, String> {
        let watch = Watch::of(&self.clones);
        for part in 1..=REST_PARTS {
            std::thread::sleep(REST / REST_PARTS);
            println!("at rest for {part} of {REST_PARTS} parts");
            if let Some(index) = watch.busy(&self.clones) {
                self.give_up(index)?;
                return Ok(None);
            }
        }
        let shares = watch.shares(&self.clones);
        Ok(Some(shares.iter().sum::<f64>() / shares.len() as f64))
    }

    /// Stops all, one after the other.
    fn stop(&mut self, grace: Duration) -> Result<(), String> {
        while let Some(mut clone) = self.clones.pop() {
            let watch = Watch::of(&self.clones);
            clone.stop(grace).map_err(|error| error.to_string())?;
            self.stop_ns.extend(stop_ns(clone.as_ref()));
            tell_some(self.stop_ns.len(), "are stopped");
            if let Some(index) = watch.busy(&self.clones) {
                self.give_up(index)?;
            }
        }
        Ok(())
    }

    /// Ends one that stands still.
    fn give_up(&mut self, index: usize) -> Result<(), String> {
        let clone = self.clones.remove(index);
        let rip =
            places(clone.as_ref()).map_err(|error| format!("where it stands still: {error}"))?;
        println!("one of {} clones stands still, at {rip:?}", self.clones.len() + 1);
        self.still.push(json!({ "clones": self.clones.len() + 1, "rip": rip }));
        end(clone)?;
        match self.still.len() > MOST_STILL {
            true => Err(format!("more than {MOST_STILL} clones stood still")),
            false => Ok(()),
        }
    }
}

/// Ends a clone at once.
fn end(mut clone: Clone) -> Result<(), String> {
    clone.stop(Duration::ZERO).map_err(|error| error.to_string())
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
