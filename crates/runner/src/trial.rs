//! One start of one backend: start, wait until ready, measure, stop. Whatever happens becomes the
//! trial's record.

use std::{error::Error, time::Duration};

use compare_backend::{Backend, Instance, StartError, StartRequest, Timeline};
use compare_cgroup::Parent;
use compare_probe::{MemoryReading, NotReady, Ready, read_memory, read_peak, settle, until_ready};
use compare_spec::{
    EventsNs, Exit, Image, Memory, Outcome, Plan, Readiness, RunEvent, Slot, Span, Stage, Trial,
    Unavailable,
};

use crate::Cancel;

/// How long the kernel may take to clear away what nobody uses any more.
pub(crate) const GONE: Duration = Duration::from_secs(10);

/// A trial and what could not be measured in it.
#[derive(Debug)]
pub(crate) struct Finished {
    pub trial: Trial,
    pub unavailable: Vec<Unavailable>,
}

/// Performs the trial. Nothing is told between the request to start and readiness.
#[expect(clippy::too_many_arguments, reason = "each is a different thing, used once")]
pub(crate) fn perform(
    plan: &Plan,
    image: &Image,
    backend: &mut dyn Backend,
    parent: &Parent,
    slot: Slot,
    number: usize,
    cancel: &Cancel,
    tell: &mut dyn FnMut(RunEvent),
) -> Finished {
    let name = backend.name().to_owned();
    let start = backend.start_mode().to_owned();
    let stage = |stage| RunEvent::Trial {
        backend: name.clone(),
        start: start.clone(),
        index: slot.index,
        warmup: slot.warmup,
        stage,
    };
    let mut finished = Finished {
        trial: Trial {
            backend: name.clone(),
            start: start.clone(),
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
            image_digest: image.digest.clone(),
            evidence: None,
            output_tail: None,
        },
        unavailable: Vec::new(),
    };
    let label = format!("t{number}");
    let request = StartRequest { name: &label, slot: 0, workload: &plan.workload, image, parent };
    tell(stage(Stage::Starting));
    let mut instance = match backend.start(&request, Timeline::start()) {
        Ok(instance) => instance,
        Err(error) => {
            finished.trial.fail_to_start(&error);
            return finished;
        }
    };
    match wait_until_ready(plan, &mut *instance, cancel) {
        Ok(ready) => {
            finished.trial.evidence = Some(ready.evidence);
            tell(stage(Stage::Measuring));
            finished.measure(plan, &mut *instance, cancel);
        }
        Err(not_ready) => finished.trial.not_ready(not_ready, plan),
    }
    tell(stage(Stage::Stopping));
    finished.trial.finish(plan, &mut *instance, cancel);
    finished
}

impl Finished {
    fn measure(&mut self, plan: &Plan, instance: &mut dyn Instance, cancel: &Cancel) {
        let rested = match plan.workload.ready {
            Readiness::Exit(_) => None,
            _ => settle(instance, cancel.fd()),
        };
        let ended = instance.exit().map(|(exit, _)| exit.clone());
        let mut reading = if ended.is_some() { read_peak(instance) } else { read_memory(instance) };
        if rested.is_none() && ended.is_none() {
            let reason = "its CPU time is not accounted, so nobody knows when it rests";
            reading.unavailable.push(("settled".to_owned(), reason.to_owned()));
        }
        if rested == Some(false) && ended.is_none() && !cancel.is_cancelled() {
            let reason =
                "the workload did not come to rest within 2 s; memory was read while it worked";
            reading.unavailable.push(("settled".to_owned(), reason.to_owned()));
        }
        let MemoryReading { memory, guest, unavailable } = reading;
        self.trial.memory = memory;
        self.trial.guest = guest;
        let side = self.trial.side().label();
        self.unavailable.extend(unavailable.into_iter().map(|(figure, reason)| Unavailable {
            figure,
            backend: Some(side.clone()),
            reason,
        }));
        // A program that did what it was to do may end; one that fails after all has failed.
        let by_design = matches!(plan.workload.ready, Readiness::Exit(_));
        if let Some(exit) = ended.filter(|exit| !by_design && *exit != Exit::Code { code: 0 }) {
            self.trial
                .fail(outcome_of(&exit), format!("{} right after it was ready", words(&exit)));
        }
        if cancel.is_cancelled() {
            self.trial.fail(Outcome::Interrupted, "cut short by a signal".to_owned());
        }
    }
}

/// What a trial's record says of the ways to fail.
trait Fail {
    fn fail(&mut self, outcome: Outcome, detail: String);
    fn fail_to_start(&mut self, error: &StartError);
    fn not_ready(&mut self, why: NotReady, plan: &Plan);
    fn finish(&mut self, plan: &Plan, instance: &mut dyn Instance, cancel: &Cancel);
}

impl Fail for Trial {
    /// The first failure names the trial; later ones are consequences.
    fn fail(&mut self, outcome: Outcome, detail: String) {
        if self.outcome == Outcome::Ok {
            self.outcome = outcome;
            self.detail = Some(detail);
        }
    }

    fn fail_to_start(&mut self, error: &StartError) {
        self.events_ns = error.timeline.events();
        self.fail(Outcome::BackendFailed, why_not_started(error));
    }

    fn not_ready(&mut self, why: NotReady, plan: &Plan) {
        let (outcome, detail) = why_not_ready(why, plan);
        self.fail(outcome, detail);
    }

    fn finish(&mut self, plan: &Plan, instance: &mut dyn Instance, cancel: &Cancel) {
        let grace = grace(plan, cancel);
        let refused_forks = instance.leaf().pids_limit_hits().unwrap_or(0);
        if let Err(error) = instance.stop(grace) {
            self.fail(Outcome::Leaked, format!("could not be released: {}", chain(&error)));
        } else if let Err(error) = instance.until_gone(GONE) {
            self.fail(Outcome::Leaked, format!("could not be seen gone: {}", chain(&error)));
        }
        self.events_ns = instance.timeline().events();
        if let (Some(stop), Some(stopped)) = (self.events_ns.stop, self.events_ns.stopped)
            && !grace.is_zero()
            && stopped - stop >= grace.as_nanos() as u64
        {
            // It was killed after the whole grace: how long that took says nothing of the backend.
            self.events_ns.stop = None;
            self.detail
                .get_or_insert_with(|| "it ignored its stop signal and was killed".to_owned());
        }
        if refused_forks > 0 {
            let detail =
                self.detail.take().map_or_else(String::new, |detail| format!("{detail}; "));
            self.detail = Some(format!(
                "{detail}its limit of {} processes and threads refused it another one, {refused_forks} \
                 times (`pids`)",
                plan.workload.pids
            ));
        }
        self.exit = instance.exit().map(|(exit, _)| exit.clone());
        self.kernel_release = instance.kernel_release().map(str::to_owned);
        self.confinement = instance.confinement().cloned();
        self.refused = instance.refused();
        if self.outcome != Outcome::Ok {
            let tail = instance.output().tail();
            self.output_tail = Some(tail).filter(|tail| !tail.is_empty());
        }
    }
}

/// Waits until it is ready by the workload's definition, or will never be.
pub(crate) fn wait_until_ready(
    plan: &Plan,
    instance: &mut dyn Instance,
    cancel: &Cancel,
) -> Result<Ready, NotReady> {
    if let Readiness::Log(log) = &plan.workload.ready {
        instance.output().watch(&log.contains);
    }
    until_ready(instance, &plan.workload, cancel.fd())
}

/// The whole chain of causes in one line.
pub(crate) fn why_not_started(error: &StartError) -> String {
    chain(error)
}

fn chain(error: &dyn Error) -> String {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    why
}

/// What it counts as, and the reason in words.
pub(crate) fn why_not_ready(why: NotReady, plan: &Plan) -> (Outcome, String) {
    match why {
        NotReady::Timeout(last) => {
            let limit: Span = plan.workload.timeout.start;
            (Outcome::Timeout, format!("not ready within {limit} (timeout.start): {last}"))
        }
        NotReady::Ended(exit) => {
            let mut detail = format!("{} before it was ready", words(&exit));
            if let Readiness::Exit(code) = plan.workload.ready {
                detail = format!("{}; ready would be exit code {code}", words(&exit));
            }
            (outcome_of(&exit), detail)
        }
        NotReady::Cancelled => (Outcome::Interrupted, "cut short by a signal".to_owned()),
        NotReady::Lost(error) => (Outcome::BackendFailed, format!("lost sight of it: {error}")),
    }
}

/// How long an instance may take to stop. Whoever presses Ctrl-C does not want to wait for it.
pub(crate) fn grace(plan: &Plan, cancel: &Cancel) -> Duration {
    if cancel.is_cancelled() { Duration::ZERO } else { plan.workload.timeout.stop.0 }
}

fn outcome_of(exit: &Exit) -> Outcome {
    match exit {
        Exit::Code { .. } | Exit::Signal { .. } => Outcome::Exited,
        Exit::Oom => Outcome::Oom,
        Exit::ExecFailed { .. } => Outcome::ExecFailed,
        Exit::SetupFailed { .. } | Exit::MonitorFailed { .. } => Outcome::BackendFailed,
        Exit::GuestCrashed { .. } => Outcome::GuestCrashed,
    }
}

fn words(exit: &Exit) -> String {
    let errno = |errno: i32| nix::errno::Errno::from_raw(errno).desc();
    match exit {
        Exit::Code { code } => format!("it exited with {code}"),
        Exit::Signal { signal: nix::libc::SIGSYS } => {
            "it was killed by SIGSYS, such as for a system call of another architecture".to_owned()
        }
        Exit::Signal { signal } => match nix::sys::signal::Signal::try_from(*signal) {
            Ok(signal) => format!("it was killed by {signal}"),
            Err(_) => format!("it was killed by signal {signal}"),
        },
        Exit::Oom => "it was killed for want of memory: raise the workload's `memory`".to_owned(),
        Exit::ExecFailed { errno: number, path } => {
            format!("{path} could not be executed: {}", errno(*number))
        }
        Exit::SetupFailed { step, errno: 0 } => format!("{step} failed"),
        Exit::SetupFailed { step, errno: number } => format!("{step}: {}", errno(*number)),
        Exit::GuestCrashed { reason } => format!("the guest crashed ({reason})"),
        Exit::MonitorFailed { reason } => format!("the monitor failed: {reason}"),
    }
}
