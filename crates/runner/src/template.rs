//! The instance that is saved once so that others can be restored from it. It is no trial: it is
//! started, waited for and stopped like one, but before all of them, and what it took stands in the
//! record by itself.

use std::{io, path::Path};

use compare_backend::{Backend, Instance, StartRequest, Template, Timeline, monotonic_ns};
use compare_cgroup::Parent;
use compare_probe::{NotReady, settle};
use compare_spec::{Image, Plan, Snapshot};

use crate::{
    Cancel, Footprint, RunError,
    scratch::{PrivateDirectory, sync},
    trial::{GONE, grace, wait_until_ready, why_not_ready, why_not_started},
};

/// Name of the instance that is saved, and of the first that is restored from it.
const NAME: &str = "template";
const REHEARSAL: &str = "rehearsal";

/// How it went.
pub(crate) enum Made {
    /// It was saved there, until the directory is dropped.
    Saved(PrivateDirectory, Snapshot),
    /// There is nothing to restore, and why.
    Failed(String),
    /// The run was cancelled meanwhile.
    Cancelled,
}

/// Makes what `backend` must have before its first start: nothing, where it wants nothing. An
/// instance that leaves anything behind is a failure, as in a trial.
///
/// # Errors
/// What it leaves behind could not be looked at.
pub(crate) fn make(
    plan: &Plan,
    image: &Image,
    backend: &mut dyn Backend,
    parent: &Parent,
    cancel: &Cancel,
) -> Result<Option<Made>, RunError> {
    let name = backend.name().to_owned();
    let Some(Template { backend: template, directory: path }) = backend.template() else {
        return Ok(None);
    };
    let before = Footprint::take(parent.leaves()).map_err(RunError::Footprint)?;
    let made = match PrivateDirectory::create(&path) {
        Ok(directory) => match start_and_save(plan, image, template, parent, &path, cancel) {
            Ok(Some(Costs { ready_ns, save_ns, bytes })) => {
                let backend = name;
                let snapshot =
                    Snapshot { backend, ready_ns, save_ns, bytes, working_set_bytes: None };
                Made::Saved(directory, snapshot)
            }
            Ok(None) => Made::Cancelled,
            Err(reason) => Made::Failed(reason),
        },
        Err(error) => Made::Failed(format!("make the directory {}: {error}", path.display())),
    };
    let left = || Footprint::take(parent.leaves()).map(|now| now.grown_since(&before));
    let failed = |who, left: Vec<String>| {
        Made::Failed(format!("the {who} instance left behind: {}", left.join(", ")))
    };
    let Made::Saved(directory, mut snapshot) = made else { return Ok(Some(made)) };
    let behind = left().map_err(RunError::Footprint)?;
    if !behind.is_empty() {
        return Ok(Some(failed("saved", behind)));
    }
    snapshot.working_set_bytes = rehearse(plan, image, backend, parent, cancel);
    let behind = left().map_err(RunError::Footprint)?;
    if !behind.is_empty() {
        return Ok(Some(failed("first restored", behind)));
    }
    Ok(Some(Made::Saved(directory, snapshot)))
}

/// What a snapshot took, as in [`Snapshot`].
struct Costs {
    ready_ns: u64,
    save_ns: u64,
    bytes: u64,
}

/// None if the run was cancelled; else what it took, or why it failed. The instance is gone either
/// way.
fn start_and_save(
    plan: &Plan,
    image: &Image,
    backend: &mut dyn Backend,
    parent: &Parent,
    directory: &Path,
    cancel: &Cancel,
) -> Result<Option<Costs>, String> {
    let request = StartRequest { name: NAME, slot: 0, workload: &plan.workload, image, parent };
    let mut instance =
        backend.start(&request, Timeline::start()).map_err(|error| why_not_started(&error))?;
    let saved = save_once_ready(plan, &mut *instance, directory, cancel);
    let stopped = instance.stop(grace(plan, cancel)).and_then(|()| instance.until_gone(GONE));
    let costs = saved?;
    stopped.map_err(|error| format!("the saved instance could not be released: {error}"))?;
    Ok(costs)
}

/// Restores an instance for the first time and has it note what it needed until it was ready; tells
/// how many bytes. None where there is nothing to note, or where it failed: why, the trials will say,
/// which do the same.
fn rehearse(
    plan: &Plan,
    image: &Image,
    backend: &mut dyn Backend,
    parent: &Parent,
    cancel: &Cancel,
) -> Option<u64> {
    let request =
        StartRequest { name: REHEARSAL, slot: 0, workload: &plan.workload, image, parent };
    let mut instance = backend.start(&request, Timeline::start()).ok()?;
    let noted = wait_until_ready(plan, &mut *instance, cancel)
        .ok()
        .and_then(|_| instance.note_working_set().ok().flatten());
    let _ = instance.stop(grace(plan, cancel)); // what it leaves behind, the caller sees
    noted.map(|bytes| bytes.0)
}

fn save_once_ready(
    plan: &Plan,
    instance: &mut dyn Instance,
    directory: &Path,
    cancel: &Cancel,
) -> Result<Option<Costs>, String> {
    match wait_until_ready(plan, instance, cancel) {
        Ok(_) => {}
        Err(NotReady::Cancelled) => return Ok(None),
        Err(other) => {
            let (_, why) = why_not_ready(other, plan);
            let tail = instance.output().tail();
            let last =
                tail.trim_end().lines().last().map(|line| format!("; its last line: {line}"));
            return Err(format!("{why}{}", last.unwrap_or_default()));
        }
    }
    // Saved at rest: whatever it would still do, every restored instance would do again. One that
    // never rests, or of which nobody knows, is saved as it is.
    settle(instance, cancel.fd());
    if cancel.is_cancelled() {
        return Ok(None);
    }
    let ready_ns = instance.timeline().events().ready.unwrap_or_default();
    let begin = monotonic_ns();
    instance.save(directory).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull => ": set TMPDIR to a directory with room",
            _ => "",
        };
        format!("save it in {}: {error}{remedy}", directory.display())
    })?;
    let save_ns = monotonic_ns() - begin;
    let bytes = sync(directory)
        .map_err(|error| format!("write {} to disk: {error}", directory.display()))?;
    Ok(Some(Costs { ready_ns, save_ns, bytes }))
}
