//! What a run will do, decided before it starts, so that it can be saved, replayed and compared.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Clock, ContainerVariant, Digest, HostKind, MemoryPages, Readiness, RootDevice, Side, Span,
    StartMode, Workload, WorkloadError,
};

/// A run, fully decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What is run.
    pub workload: Workload,
    /// The backends compared, by name. The first is the base of every ratio.
    pub backends: Vec<String>,
    /// The start modes each of them is measured in; a container always starts cold.
    #[serde(default = "cold", skip_serializing_if = "is_cold")]
    pub starts: Vec<StartMode>,
    /// What the root disk of microVMs is to them. Those with another than the default are called
    /// otherwise in every table and every trial ([`RootDevice::microvm`]).
    #[serde(default, skip_serializing_if = "is_default")]
    pub microvm_root: RootDevice,
    /// What pages the memory of microVMs is made of; other than the default likewise
    /// ([`MemoryPages::microvm`]).
    #[serde(default, skip_serializing_if = "is_default")]
    pub microvm_memory_pages: MemoryPages,
    /// Measured trials of each backend in each start mode.
    pub trials: u32,
    /// Trials of each of them before the first measured one, recorded nowhere.
    pub warmup: u32,
    /// Idle time before each trial: the machine has cleared away the one before, and has gone to rest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gap: Span,
    /// Seed of the order of trials and of every resampling.
    pub seed: u64,
    /// Where it runs.
    pub host: HostKind,
    /// What time is counted in.
    pub clock: Clock,
}

/// One entry of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Index into [`Plan::sides`].
    pub side: usize,
    /// Count of this side's trials before this one; warm-ups count separately.
    pub index: u32,
    /// Whether it is a warm-up.
    pub warmup: bool,
}

/// The most trials and warm-ups of one side.
const MAX_TRIALS: u32 = 100_000;
/// The longest idle time before a trial.
const MAX_GAP: Span = Span(Duration::from_secs(60 * 60));
/// Has nothing to restore: a process and its namespaces start anew or not at all.
fn always_cold(backend: &str) -> bool {
    ContainerVariant::of(backend).is_some()
}
/// The backend with a root disk.
const MICROVM: &str = RootDevice::Blk.microvm();

fn cold() -> Vec<StartMode> {
    vec![StartMode::Cold]
}
fn is_cold(starts: &[StartMode]) -> bool {
    starts == [StartMode::Cold]
}
fn is_default<T: Default + PartialEq>(choice: &T) -> bool {
    *choice == T::default()
}

impl Plan {
    /// Checks a plan that came from a file; `file` is what errors call it.
    ///
    /// # Errors
    /// A field is out of range, or the workload is wrong.
    pub fn validate(&self, file: &str) -> Result<(), WorkloadError> {
        let wrong = |field: &'static str, problem: &str| {
            let problem = problem.to_owned();
            Err(WorkloadError::Field { file: file.to_owned(), field, problem })
        };
        if self.trials == 0 || self.trials > MAX_TRIALS || self.warmup > MAX_TRIALS {
            return wrong("trials", "use 1 to 100000, and as many warm-ups at most");
        }
        if self.gap > MAX_GAP {
            return wrong("gap", "use at most 1h");
        }
        let mut names: Vec<&String> = self.backends.iter().collect();
        names.sort();
        names.dedup();
        if names.is_empty() || names.len() != self.backends.len() {
            return wrong("backends", "name at least one, and each once");
        }
        let mut starts = self.starts.clone();
        starts.sort();
        starts.dedup();
        if starts.is_empty() || starts.len() != self.starts.len() {
            return wrong("starts", "name `cold`, `restored` or both, and each once");
        }
        if let Some((field, problem)) = self.cannot_restore() {
            return wrong(field, &problem);
        }
        if let Some(problem) = self.cannot_have_root() {
            return wrong("microvm_root", problem);
        }
        if let Some(problem) = self.cannot_have_pages() {
            return wrong("microvm_memory_pages", problem);
        }
        self.workload.validate(file)
    }

    /// The field that keeps a plan that restores from being carried out, and why.
    fn cannot_restore(&self) -> Option<(&'static str, String)> {
        if !self.starts.contains(&StartMode::Restored) {
            return None;
        }
        if self.backends.iter().all(|name| always_cold(name)) {
            let problem = "a container always starts cold: name the backend `microvm` too, or \
                           leave `restored` out";
            return Some(("starts", problem.to_owned()));
        }
        let (field, why) = match self.workload.ready {
            Readiness::Exit(_) => ("ready.exit", "once it has exited, nothing is left to save"),
            Readiness::Log(_) => ("ready.log", "a restored workload does not write its line again"),
            Readiness::Tcp {} | Readiness::Http(_) => return None,
        };
        let remedy = "start it `cold` only, or use `tcp` or `http` readiness";
        Some((field, format!("cannot be seen with start mode `restored`: {why}; {remedy}")))
    }

    /// Why microVMs cannot have the root disk a plan names.
    fn cannot_have_root(&self) -> Option<&'static str> {
        if self.microvm_root == RootDevice::Blk {
            None
        } else if self.backends.iter().all(|name| name != MICROVM) {
            Some("no microVM is started: name the backend `microvm` too, or leave it out")
        } else if self.starts.contains(&StartMode::Restored) {
            Some(
                "a microVM with its root in persistent memory cannot be saved: start it `cold` only",
            )
        } else {
            None
        }
    }

    /// Why microVMs cannot have the memory a plan names.
    fn cannot_have_pages(&self) -> Option<&'static str> {
        if self.microvm_memory_pages == MemoryPages::Normal {
            None
        } else if self.backends.iter().all(|name| name != MICROVM) {
            Some("no microVM is started: name the backend `microvm` too, or leave it out")
        } else if self.starts.contains(&StartMode::Restored) {
            Some(
                "the memory of a restored microVM is its snapshot's file, in pages of 4 KiB: start it \
                 `cold` only",
            )
        } else if self.microvm_root != RootDevice::Blk {
            Some("one choice that is not the default at a time: leave `microvm_root` out")
        } else {
            None
        }
    }

    /// What is compared, in the plan's order: each backend in each start mode it has.
    pub fn sides(&self) -> Vec<Side> {
        let mut sides = Vec::new();
        for backend in &self.backends {
            let starts: &[StartMode] =
                if always_cold(backend) { &[StartMode::Cold] } else { &self.starts };
            let name = match backend.as_str() {
                MICROVM => self.microvm_memory_pages.microvm(self.microvm_root),
                other => other,
            };
            // There are no more modes than these, whatever a file says.
            sides.extend(
                starts
                    .iter()
                    .take(StartMode::ALL.len())
                    .map(|mode| Side { backend: name.to_owned(), start: mode.as_str().to_owned() }),
            );
        }
        sides
    }

    /// Digest of the plan's canonical JSON: equal digests, equal runs.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("a plan has string keys only"))
    }

    /// The order of all trials: warm-ups first, then rounds. Each round holds every side once, in an
    /// order drawn from the seed; every second round mirrors the one before (ABBA, ABCCBA), so that
    /// a drift of the machine weighs on all sides alike.
    pub fn schedule(&self) -> Vec<Slot> {
        let sides = self.sides().len();
        let mut slots = Vec::new();
        for index in 0..self.warmup {
            slots.extend((0..sides).map(|side| Slot { side, index, warmup: true }));
        }
        let mut random = SplitMix64(self.seed);
        let mut order: Vec<usize> = (0..sides).collect();
        for index in 0..self.trials {
            if index % 2 == 0 {
                for last in (1..sides).rev() {
                    let bound = last as u64 + 1;
                    order.swap(last, (random.next() % bound) as usize);
                }
            } else {
                order.reverse();
            }
            slots.extend(order.iter().map(|&side| Slot { side, index, warmup: false }));
        }
        slots
    }
}

/// The SplitMix64 generator (Steele, Lea and Flood, OOPSLA 2014): the order of trials must not
/// change with a library's version.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
