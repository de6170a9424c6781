//! `compare run`: decides the plan and the host, has everything made, runs, and publishes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use compare_lab::{Event, Lab, Request};
use compare_runner::Cancel;
use compare_spec::{Clock, HostKind, Outcome, Plan, Record, RunEvent, StartMode};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    args::{BackendName, HostChoice, Run},
    commands::report::{check, publish},
    conduct::conduct,
    exit::{Code, chain_text, coded},
    place,
    prepare::{LabRun, Prepared, prepare},
    progress::{RunProgress, SetupProgress, seconds},
    record::Collector,
};

pub fn run(arguments: Run) -> Result<Code> {
    check(&arguments.exports)?;
    let plan = decide(&arguments)?;
    let begin = Instant::now();
    let prepared = prepare(&plan, arguments.kernel.as_deref(), &SetupProgress::new())?;
    if begin.elapsed().as_secs() >= 2 {
        eprintln!("set-up: {}", seconds(begin.elapsed()));
    }
    if plan.host == HostKind::Local {
        enter_rootless()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    let record = runtime.block_on(perform(plan, &prepared))?;
    publish(&record, &arguments.exports)?;
    Ok(code_of(&record))
}

/// An ordinary user goes on as root of a user namespace. Only now: the set-up needs none, and there is
/// no way back.
fn enter_rootless() -> Result<()> {
    match place::enter_rootless() {
        Some(finding) if finding.ok => eprintln!("rootless: {}", finding.evidence),
        Some(finding) => {
            let remedy = finding.remedy.unwrap_or_default();
            anyhow::bail!("rootless: {}\n  {remedy}", finding.evidence)
        }
        None => {}
    }
    Ok(())
}

/// Success is every planned trial of every side, each of them `ok`.
fn code_of(record: &Record) -> Code {
    let plan = &record.plan.spec;
    let ok = record.trials.iter().filter(|trial| trial.outcome == Outcome::Ok).count();
    if record.interrupted {
        Code::Interrupted
    } else if ok == plan.sides().len() * plan.trials as usize {
        Code::Success
    } else {
        Code::Failure
    }
}

/// The plan: a saved one, or what the arguments say. Prints which host it chose and why.
fn decide(arguments: &Run) -> Result<Plan> {
    let mut plan = match &arguments.plan {
        Some(path) => read_plan(path)?,
        None => {
            let name = arguments.workload.as_deref().context("no workload was named")?;
            let mut workload = compare_image::load(name)?;
            workload.memory = arguments.memory.unwrap_or(workload.memory);
            workload.timeout.start = arguments.timeout.unwrap_or(workload.timeout.start);
            workload.validate("with --memory and --timeout")?;
            let mut backends: Vec<String> = Vec::new();
            for name in &arguments.backend {
                if !backends.iter().any(|known| known == name.as_str()) {
                    backends.push(name.as_str().to_owned());
                }
            }
            let mut starts: Vec<StartMode> = Vec::new();
            for mode in arguments.start.iter().map(|choice| StartMode::from(*choice)) {
                if !starts.contains(&mode) {
                    starts.push(mode);
                }
            }
            let plan = Plan {
                workload,
                backends,
                starts,
                microvm_root: arguments.microvm_root.into(),
                microvm_memory_pages: arguments.microvm_memory_pages.into(),
                trials: arguments.trials,
                warmup: arguments.warmup,
                gap: arguments.gap,
                seed: arguments.seed,
                host: HostKind::Local,
                clock: Clock::Real,
            };
            plan.validate(name)?;
            plan
        }
    };
    let choice = match (arguments.plan.is_some(), arguments.host, plan.host) {
        (true, HostChoice::Auto, HostKind::Lab) => HostChoice::Lab,
        (true, HostChoice::Auto, HostKind::Local) => HostChoice::Local,
        (_, choice, _) => choice,
    };
    let (host, why) = place::choose(choice, &plan.backends)?;
    let wanted = arguments.clock.map(Clock::from);
    let saved = arguments.plan.is_some().then_some(plan.clock).filter(|_| host == plan.host);
    plan.host = host;
    plan.clock = match (host, wanted.or(saved)) {
        (HostKind::Local, None | Some(Clock::Real)) => Clock::Real,
        (HostKind::Local, Some(Clock::Instructions)) => {
            return Err(coded(
                Code::Usage,
                "only the emulated host counts instructions: use --host lab with --clock instructions",
            ));
        }
        (HostKind::Lab, clock) => clock.unwrap_or(Clock::Instructions),
    };
    match host {
        HostKind::Local => eprintln!("host: this machine ({why})"),
        HostKind::Lab => eprintln!("host: the lab, an emulated machine ({why})"),
    }
    Ok(plan)
}

/// A plan by itself, or the plan of a record.
fn read_plan(path: &std::path::Path) -> Result<Plan> {
    let wrong = |problem: String| coded(Code::Usage, format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("cannot read the plan: {error}")))?;
    let whole: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let plan = whole.pointer("/plan/spec").unwrap_or(&whole);
    let plan: Plan = serde_json::from_value(plan.clone())
        .map_err(|error| wrong(format!("neither a plan nor a record: {error}")))?;
    plan.validate(&path.display().to_string())?;
    let known = |name: &String| <BackendName as clap::ValueEnum>::from_str(name, false).is_ok();
    match plan.backends.iter().find(|name| !known(name)) {
        Some(name) => Err(wrong(format!("there is no backend `{name}`"))),
        None => Ok(plan),
    }
}

/// Runs the plan where it says and collects the record. Ctrl-C ends the run, not the report.
async fn perform(plan: Plan, prepared: &Prepared) -> Result<Record> {
    let begin = Instant::now();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut collector = Collector::default();
    let mut progress = RunProgress::start(&plan);
    let mut source = tokio::select! {
        source = Source::start(&plan, prepared, &progress) => source?,
        _ = interrupt.recv() => return Err(coded(Code::Interrupted, NOTHING_MEASURED)),
        _ = terminate.recv() => return Err(coded(Code::Interrupted, NOTHING_MEASURED)),
    };
    let mut asked_to_stop = 0;
    let failure = loop {
        let event = tokio::select! {
            event = source.next() => event,
            _ = interrupt.recv() => { asked_to_stop += 1; Ok(None) }
            _ = terminate.recv() => { asked_to_stop += 1; Ok(None) }
        };
        match event {
            Ok(Some(RunEvent::Failed { message })) => break Some(anyhow::anyhow!(message)),
            Ok(Some(event)) => {
                progress.show(&event);
                let ended = matches!(event, RunEvent::End { .. });
                collector.take(event);
                if ended {
                    break None;
                }
            }
            Ok(None) if asked_to_stop == 1 => {
                progress.line(
                    "stopping: the trial in progress is cleaned up; once more ends it at once",
                );
                source.cancel().await;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    source.close().await;
    let interrupted = asked_to_stop > 0;
    if interrupted {
        collector.interrupt();
    }
    if let Some(error) = &failure {
        collector.broke(chain_text(error));
    }
    let record = collector.finish(plan, &prepared.image);
    match (record, failure) {
        (Some(record), None) => {
            progress.finish(begin);
            Ok(record)
        }
        // What was measured before it broke is worth more than the error alone.
        (Some(record), Some(error)) if !record.trials.is_empty() => {
            progress.line(&format!("error: {}", chain_text(&error)));
            progress.finish(begin);
            Ok(record)
        }
        (_, Some(error)) => Err(error),
        (None, None) if interrupted => Err(coded(Code::Interrupted, NOTHING_MEASURED)),
        (None, None) => Err(anyhow::anyhow!("the run ended before it began")),
    }
}

const NOTHING_MEASURED: &str = "interrupted before anything was measured";

/// How long the emulated host may say nothing: a guest that spins is emulated slowly, and its
/// trial's timeout counts its own time.
const SILENCE: Duration = Duration::from_secs(6 * 60);

/// Where events come from.
enum Source {
    Local {
        events: mpsc::UnboundedReceiver<RunEvent>,
        cancel: Cancel,
        thread: Option<std::thread::JoinHandle<()>>,
    },
    Lab(Box<Lab>),
}

impl Source {
    async fn start(plan: &Plan, prepared: &Prepared, progress: &RunProgress) -> Result<Self> {
        if let Some(LabRun { files, image, paths }) = &prepared.lab {
            let mut lab = Lab::boot(files, plan.clock).await?;
            progress.line(&format!("the emulated host is up (Linux {})", lab.kernel()));
            let (plan, image, paths) =
                (Box::new(plan.clone()), Box::new(image.clone()), Box::new(paths.clone()));
            lab.ask(&Request::Run { plan, image, paths }).await?;
            return Ok(Self::Lab(Box::new(lab)));
        }
        let (sender, events) = mpsc::unbounded_channel();
        let cancel = Cancel::new()?;
        let (plan, image, paths, wish) =
            (plan.clone(), prepared.image.clone(), prepared.paths.clone(), cancel.clone());
        // The kernel kills what a thread started when the thread ends, so the run has one of its own.
        let thread = std::thread::Builder::new().name("run".to_owned()).spawn(move || {
            let mut tell = |event| {
                let _ = sender.send(event);
            };
            if let Err(error) = conduct(&plan, &image, &paths, &wish, &mut tell) {
                tell(RunEvent::Failed { message: chain_text(&error) });
            }
        })?;
        Ok(Self::Local { events, cancel, thread: Some(thread) })
    }

    async fn next(&mut self) -> Result<Option<RunEvent>> {
        match self {
            Self::Local { events, .. } => {
                Ok(Some(events.recv().await.context("the run ended without a word")?))
            }
            Self::Lab(lab) => {
                let event = tokio::time::timeout(SILENCE, lab.next()).await.map_err(|_| {
                    anyhow::anyhow!("the emulated host has been silent for {SILENCE:?}: given up")
                })?;
                match event? {
                    Event::Run { run } => Ok(Some(run)),
                    Event::Failed { message } => Ok(Some(RunEvent::Failed { message })),
                    other => Err(anyhow::anyhow!(
                        "the emulated host said {other:?} in the middle of a run"
                    )),
                }
            }
        }
    }

    async fn cancel(&mut self) {
        match self {
            Self::Local { cancel, .. } => cancel.cancel(),
            Self::Lab(lab) => {
                // If it is gone, the next event says so.
                let _ = lab.ask(&Request::Cancel).await;
            }
        }
    }

    async fn close(self) {
        match self {
            Self::Local { cancel, thread, .. } => {
                cancel.cancel();
                if let Some(thread) = thread {
                    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
                }
            }
            Self::Lab(lab) => lab.close().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use compare_spec::{
        Artefacts, CgroupMode, Digest, EventsNs, Image, KvmKind, Memory, Snapshot, Trial,
    };

    use super::*;

    fn plan() -> Plan {
        Plan {
            workload: compare_image::load("nginx").unwrap(),
            backends: vec!["container".to_owned(), "microvm".to_owned()],
            starts: vec![StartMode::Cold, StartMode::Restored],
            microvm_root: compare_spec::RootDevice::default(),
            microvm_memory_pages: compare_spec::MemoryPages::default(),
            trials: 2,
            warmup: 0,
            gap: compare_spec::Span::default(),
            seed: 1,
            host: HostKind::Local,
            clock: Clock::Real,
        }
    }

    /// The record of a run in which all trials of these start modes went well.
    fn record(modes: &[&str], more: RunEvent) -> Record {
        let (kvm, cgroup) = (KvmKind::None, CgroupMode::None);
        let host =
            compare_probe::host_facts("/".as_ref(), HostKind::Local, Clock::Real, kvm, cgroup);
        let mut collector = Collector::default();
        collector.take(RunEvent::Begin {
            host: Box::new(host),
            artefacts: Artefacts::default(),
            unavailable: Vec::new(),
        });
        collector.take(more);
        for slot in plan().schedule() {
            let side = &plan().sides()[slot.side];
            if !modes.contains(&side.start.as_str()) {
                continue;
            }
            let trial = Trial {
                backend: side.backend.clone(),
                start: side.start.clone(),
                index: slot.index,
                outcome: Outcome::Ok,
                detail: None,
                exit: None,
                events_ns: EventsNs::default(),
                memory: Memory::default(),
                kernel_release: None,
                guest: None,
                confinement: None,
                refused: Vec::new(),
                image_digest: Digest::of(b"tree"),
                evidence: None,
                output_tail: None,
            };
            let trial = Box::new(trial);
            collector.take(RunEvent::Done { trial, warmup: false, unavailable: Vec::new() });
        }
        let image = Image {
            digest: Digest::of(b"tree"),
            tree: "/".into(),
            erofs: "/dev/null".into(),
            erofs_digest: Digest::of(b"erofs"),
            erofs_bytes: 0,
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
        collector.finish(plan(), &image).unwrap()
    }

    #[test]
    fn restored_trials_that_were_given_up_fail_the_run() {
        let given_up = RunEvent::GivenUp {
            backend: "microvm".to_owned(),
            start: "restored".to_owned(),
            left: 2,
            reason: "there is no snapshot to restore: no room".to_owned(),
        };
        let record = record(&["cold"], given_up);
        assert_eq!(code_of(&record), Code::Failure);
        let missing = &record.unavailable[0];
        assert_eq!(missing.backend.as_deref(), Some("microvm restored"));
        assert!(missing.reason.contains("no room; the remaining 2 were not run"), "{missing:?}");
    }

    #[test]
    fn every_start_mode_counts_towards_success() {
        let snapshot = Snapshot {
            backend: "microvm".to_owned(),
            ready_ns: 3,
            save_ns: 2,
            bytes: 1,
            working_set_bytes: None,
        };
        let record = record(&["cold", "restored"], RunEvent::Saved { snapshot: snapshot.clone() });
        assert_eq!(code_of(&record), Code::Success);
        assert_eq!(record.snapshots, [snapshot]);
    }
}
