//! What a run tells while it goes on: the same events drive the progress display of a local run
//! and travel as JSON lines out of the emulated host.

use serde::{Deserialize, Serialize};

use crate::{Artefacts, HostFacts, Snapshot, Trial, Unavailable};

/// The events of a start, in order (docs/measurement.md's table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Namespaces and cgroup, or VM, vCPUs, memory and devices, exist.
    Created,
    /// First entry into the guest.
    Kernel,
    /// The first code of ours runs inside; in a restored guest, its PID 1 has taken on the name and
    /// the address of this instance.
    Init,
    /// `execve` of the workload; never in a restored instance, whose workload runs already.
    Exec,
    /// The first successful readiness probe.
    Ready,
    /// Every process is gone, and everything released.
    Stopped,
    /// What the kernel takes down by itself once nobody uses it, a network namespace and its links,
    /// is gone too.
    Gone,
}

/// What a trial is doing, for the progress display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Between the request and readiness; no finer, since nothing is reported inside a timed region.
    Starting,
    /// Ready; memory is being read.
    Measuring,
    /// Being stopped and released.
    Stopping,
}

/// One thing that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum RunEvent {
    /// The run begins on this machine.
    Begin {
        /// Its facts.
        host: Box<HostFacts>,
        /// Digests of everything that is run.
        artefacts: Artefacts,
        /// What cannot be measured here, and why.
        unavailable: Vec<Unavailable>,
    },
    /// Something an earlier run left behind was removed.
    Reclaimed {
        /// What it was.
        what: String,
    },
    /// An instance is started to be saved, before the first trial of a side that restores it.
    Template {
        /// The name of the backend that restores it.
        backend: String,
        /// Its start mode.
        start: String,
    },
    /// That instance was saved.
    Saved {
        /// What it took.
        snapshot: Snapshot,
    },
    /// A trial enters a stage.
    Trial {
        /// The backend's name.
        backend: String,
        /// Its start mode.
        start: String,
        /// Count of this backend's trials before this one.
        index: u32,
        /// Whether it is a warm-up.
        warmup: bool,
        /// What it is doing.
        stage: Stage,
    },
    /// A trial ended. Warm-ups end too, but only measured trials enter the record.
    Done {
        /// What was measured.
        trial: Box<Trial>,
        /// Whether it was a warm-up.
        warmup: bool,
        /// What could not be measured in it, and why.
        unavailable: Vec<Unavailable>,
    },
    /// A backend in one start mode is not tried again.
    GivenUp {
        /// The backend's name.
        backend: String,
        /// Its start mode.
        start: String,
        /// Measured trials that are therefore left out.
        left: u32,
        /// Why: it failed several times in a row, or there is no snapshot to restore.
        reason: String,
    },
    /// The run ended; nothing follows.
    End {
        /// Whether it was cut short by a signal.
        interrupted: bool,
    },
    /// The run could not go on.
    Failed {
        /// The whole chain of causes.
        message: String,
    },
}
