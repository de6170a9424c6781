//! The plan, from the first warm-up to the last trial.

use std::io;

use compare_backend::Backend;
use compare_cgroup::Parent;
use compare_spec::{Artefacts, HostFacts, Image, Plan, RunEvent, Side, Slot, Trial, Unavailable};

use crate::{
    Cancel, Footprint,
    template::{self, Made},
    trial,
};

/// A backend that fails this often in a row in one start mode is not tried again in it: its remaining
/// trials would only wait out the same timeout. The record says how many were left out.
const FAILURES_IN_A_ROW: u32 = 3;

/// A run that could not be carried out at all. A failed trial is no such error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan names a backend, or a start mode of it, that was not given.
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
    /// The backends, one for each start mode; each side of the plan must be among them.
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
    let sides = plan.sides();
    let places: Vec<usize> = sides
        .iter()
        .map(|side| {
            let place = backends.iter().position(|backend| {
                backend.name() == side.backend && backend.start_mode() == side.start
            });
            place.ok_or_else(|| RunError::UnknownBackend(side.label()))
        })
        .collect::<Result<_, _>>()?;
    let schedule = plan.schedule();
    let mut given_up = vec![false; sides.len()];
    // Removed when this returns, whichever way.
    let mut snapshots = Vec::new();
    for (number, side) in sides.iter().enumerate() {
        if cancel.is_cancelled() {
            break;
        }
        let backend = &mut *backends[places[number]];
        let Side { backend: name, start } = side.clone();
        if backend.template().is_some() {
            tell(RunEvent::Template { backend: name, start });
        }
        match template::make(plan, image, backend, parent, cancel)? {
            Some(Made::Saved(directory, snapshot)) => {
                snapshots.push(directory);
                tell(RunEvent::Saved { snapshot });
            }
            Some(Made::Failed(why)) => {
                given_up[number] = true;
                let reason = format!("there is no snapshot to restore: {why}");
                tell(giving_up(side, number, &schedule, reason));
            }
            Some(Made::Cancelled) | None => {}
        }
    }
    let mut streaks = vec![0; sides.len()];
    for (number, slot) in schedule.iter().enumerate() {
        if cancel.is_cancelled() {
            break;
        }
        if given_up[slot.side] {
            continue;
        }
        let backend = &mut *backends[places[slot.side]];
        backend.prepare(&plan.workload);
        if cancel.wait(plan.gap.0) {
            break;
        }
        let ok = one(plan, image, backend, parent, *slot, number, cancel, tell)?;
        let streak = &mut streaks[slot.side];
        *streak = if ok { 0 } else { *streak + 1 };
        if *streak == FAILURES_IN_A_ROW {
            given_up[slot.side] = true;
            let reason = "several trials in a row failed".to_owned();
            match giving_up(&sides[slot.side], slot.side, &schedule[number + 1..], reason) {
                RunEvent::GivenUp { left: 0, .. } => {}
                event => tell(event),
            }
        }
    }
    drop(snapshots);
    let interrupted = cancel.is_cancelled();
    tell(RunEvent::End { interrupted });
    Ok(interrupted)
}

/// The remaining trials of a side are left out.
fn giving_up(side: &Side, number: usize, remaining: &[Slot], reason: String) -> RunEvent {
    let left = remaining.iter().filter(|slot| slot.side == number && !slot.warmup).count();
    let Side { backend, start } = side.clone();
    RunEvent::GivenUp { backend, start, left: left as u32, reason }
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
