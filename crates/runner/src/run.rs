//! The plan, from the first warm-up to the last trial.

use std::io;

use compare_backend::Backend;
use compare_cgroup::Parent;
use compare_spec::{Artefacts, HostFacts, Image, Plan, RunEvent, Slot, Trial, Unavailable};

use crate::{Cancel, Footprint, trial};

/// A backend that fails this often in a row is not tried again: its remaining trials would only
/// wait out the same timeout. The record says how many were left out.
const FAILURES_IN_A_ROW: u32 = 3;

/// A run that could not be carried out at all. A failed trial is no such error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan names a backend that was not given.
    #[error("the plan names the backend `{0}`, which this run does not have")]
    UnknownBackend(String),
    /// What a trial leaves behind could not be looked at.
    #[error("cannot look for leaks in /proc")]
    Footprint(#[source] io::Error),
}

/// What a run is carried out with.
pub struct Setting<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The root file system of every backend.
    pub image: &'a Image,
    /// The backends; each name in the plan must be among them.
    pub backends: &'a mut [Box<dyn Backend>],
    /// Where leaf cgroups are made.
    pub parent: &'a Parent,
    /// The facts of this machine.
    pub host: HostFacts,
    /// Digests of what is run.
    pub artefacts: Artefacts,
    /// What cannot be measured here, and why.
    pub unavailable: Vec<Unavailable>,
    /// Ends the run early.
    pub cancel: &'a Cancel,
}

/// Carries out the plan and tells every event. Instances are started from the calling thread, in
/// whose network and mount namespaces they live; the thread must outlive the run, since the kernel
/// kills them with it (PR_SET_PDEATHSIG, prctl(2)). Returns whether it was cut short.
///
/// # Errors
/// See [`RunError`]. Trials that fail are recorded, not returned.
pub fn run(setting: Setting<'_>, tell: &mut dyn FnMut(RunEvent)) -> Result<bool, RunError> {
    let Setting { plan, image, backends, parent, host, artefacts, unavailable, cancel } = setting;
    tell(RunEvent::Begin { host: Box::new(host), artefacts, unavailable });
    let places: Vec<usize> = plan
        .backends
        .iter()
        .map(|name| {
            let place = backends.iter().position(|backend| backend.name() == name);
            place.ok_or_else(|| RunError::UnknownBackend(name.clone()))
        })
        .collect::<Result<_, _>>()?;
    let mut streaks = vec![0; backends.len()];
    for (number, slot) in plan.schedule().into_iter().enumerate() {
        if cancel.is_cancelled() {
            break;
        }
        let place = places[slot.backend];
        if streaks[place] >= FAILURES_IN_A_ROW {
            continue;
        }
        let backend = &mut *backends[place];
        let ok = one(plan, image, backend, parent, slot, number, cancel, tell)?;
        streaks[place] = if ok { 0 } else { streaks[place] + 1 };
        if streaks[place] == FAILURES_IN_A_ROW {
            let left = plan.schedule()[number + 1..]
                .iter()
                .filter(|other| other.backend == slot.backend)
                .count();
            if left > 0 {
                tell(RunEvent::GivenUp {
                    backend: plan.backends[slot.backend].clone(),
                    left: left as u32,
                });
            }
        }
    }
    let interrupted = cancel.is_cancelled();
    tell(RunEvent::End { interrupted });
    Ok(interrupted)
}

/// One trial between two looks at what this process holds. Tells whether it went well.
#[expect(clippy::too_many_arguments, reason = "each is a different thing, used once")]
fn one(
    plan: &Plan,
    image: &Image,
    backend: &mut dyn Backend,
    parent: &Parent,
    slot: Slot,
    number: usize,
    cancel: &Cancel,
    tell: &mut dyn FnMut(RunEvent),
) -> Result<bool, RunError> {
    let before = Footprint::take(parent.leaves()).map_err(RunError::Footprint)?;
    let trial::Finished { mut trial, unavailable } =
        trial::perform(plan, image, backend, parent, slot, number, cancel, tell);
    let after = Footprint::take(parent.leaves()).map_err(RunError::Footprint)?;
    let left = after.grown_since(&before);
    if !left.is_empty() {
        trial.outcome = compare_spec::Outcome::Leaked;
        let detail = trial.detail.take().map_or_else(String::new, |detail| format!("{detail}; "));
        trial.detail = Some(format!("{detail}left behind: {}", left.join(", ")));
    }
    let ok = is_ok(&trial);
    tell(RunEvent::Done { trial: Box::new(trial), warmup: slot.warmup, unavailable });
    Ok(ok)
}

fn is_ok(trial: &Trial) -> bool {
    trial.outcome == compare_spec::Outcome::Ok
}
