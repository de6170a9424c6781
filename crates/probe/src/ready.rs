//! Waits until an instance is ready, by the workload's own definition.
//!
//! ```text
//!              exec reached            refused, cut off, wrong answer
//!  waiting ───────────────► attempt ─────────────────────────────► pause (RESOLUTION) ─► attempt
//!                              └── expected answer ──► ready
//! ```
//! Exit and log readiness are events of the instance and have no resolution; TCP and HTTP are asked
//! every [`RESOLUTION`], and not before the workload was executed, since nothing can answer earlier.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use compare_backend::{Instance, monotonic_ns};
use compare_spec::{Exit, Phase, Readiness, Workload};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use crate::http::{Attempt, Progress};

/// The pause between two attempts: the most by which `ready` comes too late. Half a millisecond is
/// below 1 % of any microVM's start; the attempts themselves cost the machine little.
pub const RESOLUTION: Duration = Duration::from_micros(500);

/// How finely readiness of this kind is seen, nanoseconds; 0 where it is an event.
pub fn resolution_ns(ready: &Readiness) -> u64 {
    match ready {
        Readiness::Exit(_) | Readiness::Log(_) => 0,
        Readiness::Tcp {} | Readiness::Http(_) => RESOLUTION.as_nanos() as u64,
    }
}

/// A successful readiness check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// What was seen.
    pub evidence: String,
}

/// Why an instance is not ready.
#[derive(Debug)]
pub enum NotReady {
    /// Time ran out; the text says how the last attempt went.
    Timeout(String),
    /// It ended first, or with the wrong exit code.
    Ended(Exit),
    /// The run was cancelled.
    Cancelled,
    /// It can no longer be followed.
    Lost(io::Error),
}

/// Waits for readiness and marks [`Phase::Ready`] in the instance's timeline. `cancel` becoming
/// readable ends the wait.
///
/// # Errors
/// See [`NotReady`].
pub fn until_ready(
    instance: &mut dyn Instance,
    workload: &Workload,
    cancel: BorrowedFd<'_>,
) -> Result<Ready, NotReady> {
    let give_up = instance.timeline().t0() + workload.timeout.start.0.as_nanos() as u64;
    let mut attempt: Option<Attempt> = None;
    let mut next_attempt_ns = 0;
    let mut last = "it never executed the workload".to_owned();
    let mut spare = None;
    let mut news = true;
    loop {
        if news {
            instance.pump().map_err(NotReady::Lost)?;
            if let Some(found) = happened(instance, workload)? {
                return Ok(found);
            }
        }
        let now = monotonic_ns();
        if now >= give_up {
            return Err(NotReady::Timeout(last));
        }
        if attempt.as_ref().is_some_and(|attempt| now >= attempt.deadline_ns) {
            last = "a connection was not answered in time".to_owned();
            attempt = None;
            next_attempt_ns = now;
        }
        let asks = matches!(workload.ready, Readiness::Tcp {} | Readiness::Http(_));
        let executed = instance.may_answer();
        if let (Some(address), Some(port), true) =
            (instance.address(), workload.port, asks && executed)
        {
            if attempt.is_none() && now >= next_attempt_ns {
                match Attempt::connect(address, port, now, &mut spare) {
                    Ok(begun) => attempt = Some(begun),
                    Err(error) => {
                        last = format!("connect to {address}:{port}: {error}");
                        next_attempt_ns = now + resolution_ns(&workload.ready);
                    }
                }
            }
        } else if executed {
            last = match &workload.ready {
                Readiness::Log(log) => format!("no line of output contains `{}`", log.contains),
                Readiness::Exit(code) => format!("it has not exited (with {code})"),
                _ => "the instance has no address".to_owned(),
            };
        }
        let wake = match &attempt {
            Some(attempt) => attempt.deadline_ns,
            None if asks && executed => next_attempt_ns,
            None => give_up,
        };
        let attempt_is_ready;
        (attempt_is_ready, news) = wait(instance, cancel, attempt.as_ref(), wake.min(give_up))?;
        if let (Some(current), Some(address), true) =
            (&mut attempt, instance.address(), attempt_is_ready)
        {
            let now = monotonic_ns();
            match current.advance(&workload.ready, address, now) {
                Progress::Pending => {}
                Progress::Ready(evidence) => {
                    instance.timeline_mut().reach(Phase::Ready);
                    return Ok(Ready { evidence });
                }
                Progress::Failed(why) => {
                    last = why;
                    attempt = None;
                    next_attempt_ns = now + resolution_ns(&workload.ready);
                }
            }
        }
    }
}

/// Readiness that is an event of the instance, or the end of waiting for it.
fn happened(instance: &mut dyn Instance, workload: &Workload) -> Result<Option<Ready>, NotReady> {
    if let Readiness::Log(_) = &workload.ready
        && let Some((line, ns)) = instance.output().matched()
    {
        let evidence = format!("wrote `{line}`");
        instance.timeline_mut().reach_at(Phase::Ready, ns);
        return Ok(Some(Ready { evidence }));
    }
    let Some((exit, ns)) = instance.exit() else { return Ok(None) };
    match (&workload.ready, exit) {
        (Readiness::Exit(wanted), Exit::Code { code }) if i32::from(*wanted) == *code => {
            let evidence = format!("exited with {code}");
            instance.timeline_mut().reach_at(Phase::Ready, ns);
            Ok(Some(Ready { evidence }))
        }
        _ => Err(NotReady::Ended(exit.clone())),
    }
}

/// Sleeps until something can be read or `wake_ns`; tells whether the attempt can go on, and whether
/// there is news of the instance.
fn wait(
    instance: &dyn Instance,
    cancel: BorrowedFd<'_>,
    attempt: Option<&Attempt>,
    wake_ns: u64,
) -> Result<(bool, bool), NotReady> {
    let mut fds = vec![PollFd::new(cancel.as_fd(), PollFlags::POLLIN)];
    if let Some(attempt) = attempt {
        fds.push(PollFd::new(attempt.fd(), attempt.interest()));
    }
    fds.extend(instance.fds().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    let timeout = Duration::from_nanos(wake_ns.saturating_sub(monotonic_ns()));
    match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(NotReady::Lost(error.into())),
    }
    let readable = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    if readable(&fds[0]) {
        return Err(NotReady::Cancelled);
    }
    let others = 1 + usize::from(attempt.is_some());
    Ok((attempt.is_some() && readable(&fds[1]), fds[others..].iter().any(readable)))
}
