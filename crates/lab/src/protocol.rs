//! What is said over the virtio console: one JSON object a line in either direction.

use std::path::PathBuf;

use compare_spec::{Image, Plan, RunEvent};
use serde::{Deserialize, Serialize};

/// What the agent is asked to do. It does one thing and powers the machine off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Carry out a plan.
    Run {
        /// The plan.
        plan: Box<Plan>,
        /// The root file system, by its paths inside.
        image: Box<Image>,
        /// Everything else that is run, by its paths inside.
        paths: Box<Paths>,
    },
    /// Run a program and tell its output.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
        /// Its environment.
        env: Vec<(String, String)>,
    },
    /// End the run in progress early.
    Cancel,
}

/// The files of a run and their digests.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Paths {
    /// The monitor.
    pub vmm: PathBuf,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initramfs: PathBuf,
    /// Their digests, for the record.
    pub artefacts: compare_spec::Artefacts,
}

/// What the agent tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "agent", rename_all = "kebab-case")]
pub enum Event {
    /// The machine is up and takes a request.
    Up {
        /// Kernel release of the emulated host.
        kernel: String,
    },
    /// Something happened in the run.
    Run {
        /// What.
        run: RunEvent,
    },
    /// A piece of the program's output.
    Output {
        /// Its text.
        text: String,
    },
    /// The program ended.
    Exited {
        /// Its exit code; 128 + N where signal N ended it.
        code: i32,
    },
    /// The agent could not do what it was asked.
    Failed {
        /// The whole chain of causes.
        message: String,
    },
}
