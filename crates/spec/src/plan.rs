//! What a run will do, decided before it starts, so that it can be saved, replayed and compared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Clock, Digest, HostKind, Workload, WorkloadError};

/// A run, fully decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What is run.
    pub workload: Workload,
    /// The backends compared, by name. The first is the base of every ratio.
    pub backends: Vec<String>,
    /// Measured trials of each backend.
    pub trials: u32,
    /// Trials of each backend before the first measured one, recorded nowhere.
    pub warmup: u32,
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
    /// Index into [`Plan::backends`].
    pub backend: usize,
    /// Count of this backend's trials before this one; warm-ups count separately.
    pub index: u32,
    /// Whether it is a warm-up.
    pub warmup: bool,
}

/// The most trials and warm-ups of one backend.
const MAX_TRIALS: u32 = 100_000;

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
        let mut names: Vec<&String> = self.backends.iter().collect();
        names.sort();
        names.dedup();
        if names.is_empty() || names.len() != self.backends.len() {
            return wrong("backends", "name at least one, and each once");
        }
        self.workload.validate(file)
    }

    /// Digest of the plan's canonical JSON: equal digests, equal runs.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("a plan has string keys only"))
    }

    /// The order of all trials: warm-ups first, then rounds. Each round holds every backend once,
    /// in an order drawn from the seed; every second round mirrors the one before (ABBA), so that
    /// a drift of the machine weighs on all backends alike.
    pub fn schedule(&self) -> Vec<Slot> {
        let backends = self.backends.len();
        let mut slots = Vec::new();
        for index in 0..self.warmup {
            slots.extend((0..backends).map(|backend| Slot { backend, index, warmup: true }));
        }
        let mut random = SplitMix64(self.seed);
        let mut order: Vec<usize> = (0..backends).collect();
        for index in 0..self.trials {
            if index % 2 == 0 {
                for last in (1..backends).rev() {
                    let bound = last as u64 + 1;
                    order.swap(last, (random.next() % bound) as usize);
                }
            } else {
                order.reverse();
            }
            slots.extend(order.iter().map(|&backend| Slot { backend, index, warmup: false }));
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
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        let workload = Workload::parse(
            "w",
            "name = \"w\"\ncommand = [\"/w\"]\nready = { exit = 0 }\n[image]\nprogram = \"hello\"\n",
        )
        .unwrap();
        Plan {
            workload,
            backends: vec!["container".into(), "microvm".into()],
            trials: 8,
            warmup: 1,
            seed,
            host: HostKind::Lab,
            clock: Clock::Instructions,
        }
    }

    #[test]
    fn a_plan_from_a_file_is_checked() {
        plan(1).validate("p").unwrap();
        let wrong = |change: fn(&mut Plan)| {
            let mut plan = plan(1);
            change(&mut plan);
            plan.validate("p.json").unwrap_err().to_string()
        };
        assert!(wrong(|plan| plan.trials = 4_000_000_000).contains("`trials`"));
        assert!(wrong(|plan| plan.backends.clear()).contains("`backends`"));
        assert!(wrong(|plan| plan.backends[1] = "container".into()).contains("`backends`"));
        assert!(wrong(|plan| plan.workload.vcpus = 0).contains("`vcpus`"));
    }

    #[test]
    fn a_schedule_is_fixed_by_its_seed() {
        assert_eq!(plan(1).schedule(), plan(1).schedule());
        assert_eq!(plan(1).digest(), plan(1).digest());
        assert_ne!(plan(1).digest(), plan(2).digest());
        let differs = (2..40).any(|seed| plan(seed).schedule() != plan(1).schedule());
        assert!(differs, "the seed must matter");
    }

    #[test]
    fn rounds_are_balanced_and_mirrored() {
        let schedule = plan(7).schedule();
        assert!(schedule[..2].iter().all(|slot| slot.warmup));
        let measured = &schedule[2..];
        assert_eq!(measured.len(), 16);
        for pair in measured.chunks(4) {
            let order: Vec<usize> = pair.iter().map(|slot| slot.backend).collect();
            assert_eq!((order[0], order[1]), (order[3], order[2]), "ABBA");
            assert_ne!(order[0], order[1]);
        }
    }
}
