//! What an instance may use, and how each cgroup version is told.

use std::{io, path::Path};

use compare_spec::{Bytes, CgroupMode, CpuSet};

use crate::{CgroupError, Controller, Leaf, files};

/// What an instance may use. `None` is no limit, and costs nothing: each file that is written takes
/// about 20 µs of the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Memory, with no swap beyond it unless `swap` says so.
    pub memory: Option<Bytes>,
    /// Memory above which the group is slowed down and pressed to give some back (`memory.high`).
    /// v2 only.
    pub memory_high: Option<Bytes>,
    /// Swap beyond memory; none if absent and `memory` is there. v1 needs `memory` too.
    pub swap: Option<Bytes>,
    /// CPU time per unit of wall time.
    pub cpus: Option<f64>,
    /// Share of CPU time where others want it too, 1 to 10000 (`cpu.weight`); 100 where absent.
    pub cpu_weight: Option<u32>,
    /// The CPUs it runs on.
    pub cpuset: Option<CpuSet>,
    /// Processes and threads at a time.
    pub pids: Option<u32>,
    /// To be frozen by [`Leaf::freeze`]: on v1 it must then be in one more group; on v2 any leaf can
    /// be.
    pub freezer: bool,
}

/// Period of the CPU quota, microseconds: the kernel's default (sched-bwc.rst).
const CPU_PERIOD_US: u64 = 100_000;

impl Limits {
    /// The controllers that a leaf with these limits needs beyond those every leaf has.
    pub(crate) fn on_request(&self, mode: CgroupMode) -> impl Iterator<Item = Controller> {
        let freezer = self.freezer && mode != CgroupMode::V2;
        let cpuset = self.cpuset.is_some().then_some(Controller::Cpuset);
        cpuset.into_iter().chain(freezer.then_some(Controller::Freezer))
    }
}

impl Leaf {
    /// Sets the limits (cgroup-v2.rst; cgroup-v1/memory.rst, sched-bwc.rst, cpusets.rst, pids.rst).
    pub(crate) fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let v2 = self.mode == CgroupMode::V2;
        if let Some(Bytes(bytes)) = limits.memory {
            let dir = self.need(Controller::Memory)?;
            let text = bytes.to_string();
            if v2 {
                files::write(&dir.join("memory.max"), &text)?;
                // Half-killed instances tell nothing: all of it goes, or nothing.
                optional(files::write(&dir.join("memory.oom.group"), "1"))?;
            } else {
                files::write(&dir.join("memory.limit_in_bytes"), &text)?;
            }
        }
        self.limit_swap(limits)?;
        if let Some(high) = limits.memory_high {
            let dir = self.need(Controller::Memory)?;
            if !v2 {
                return Err(CgroupError::Unsupported {
                    limit: "memory_high",
                    reason:
                        "cgroup v1 slows nobody down at a boundary (its soft limit only says whose \
                             memory goes first when the host runs out): use a host with cgroup v2"
                            .to_owned(),
                });
            }
            files::write(&dir.join("memory.high"), &high.0.to_string())?;
        }
        if let Some(cpus) = limits.cpus {
            let dir = self.need(Controller::Cpu)?;
            // The kernel refuses quotas below 1 ms.
            let quota = ((cpus * CPU_PERIOD_US as f64).round() as u64).max(1000);
            if v2 {
                files::write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?;
            } else {
                // A new group's period is the default already.
                files::write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
        }
        if let Some(weight) = limits.cpu_weight {
            let dir = self.need(Controller::Cpu)?;
            if v2 {
                files::write(&dir.join("cpu.weight"), &weight.to_string())?;
            } else {
                files::write(&dir.join("cpu.shares"), &shares(weight).to_string())?;
            }
        }
        if let Some(cpus) = &limits.cpuset {
            self.limit_cpus(self.need(Controller::Cpuset)?, cpus)?;
        }
        if let Some(pids) = limits.pids {
            files::write(&self.need(Controller::Pids)?.join("pids.max"), &pids.to_string())?;
        }
        if limits.freezer && !v2 {
            self.need(Controller::Freezer)?;
        }
        Ok(())
    }

    /// After memory: v1 limits both together, to no less than memory alone.
    fn limit_swap(&self, limits: &Limits) -> Result<(), CgroupError> {
        let swap = match (limits.swap, limits.memory) {
            (None, None) => return Ok(()),
            (swap, _) => swap.unwrap_or_default().0,
        };
        let dir = self.need(Controller::Memory)?;
        let unsupported = |reason: &str| {
            Err(CgroupError::Unsupported { limit: "swap", reason: reason.to_owned() })
        };
        let (file, bytes) = match (self.mode, limits.memory) {
            (CgroupMode::V2, _) => ("memory.swap.max", swap),
            (_, Some(memory)) => ("memory.memsw.limit_in_bytes", memory.0.saturating_add(swap)),
            (_, None) => {
                return unsupported("cgroup v1 limits it together with memory: limit that too");
            }
        };
        match files::write(&dir.join(file), &bytes.to_string()) {
            // A kernel without swap, or that does not account it. No swap is what it gives then.
            Err(CgroupError::Write { source, .. })
                if source.kind() == io::ErrorKind::NotFound && swap > 0 =>
            {
                unsupported(
                    "this kernel does not account swap: boot it with swapaccount=1, or one with CONFIG_SWAP",
                )
            }
            other => optional(other),
        }
    }

    /// v2 takes any number and then runs on what there is of them, or on all where none is; v1 says
    /// ERANGE or EACCES: so it is looked at beforehand what there is.
    fn limit_cpus(&self, dir: &Path, cpus: &CpuSet) -> Result<(), CgroupError> {
        let (v1, v2) = ("cpuset.effective_cpus", "cpuset.cpus.effective");
        let name = if self.mode == CgroupMode::V2 { v2 } else { v1 };
        let offered = files::read(&dir.parent().unwrap_or(dir).join(name)).unwrap_or_default();
        match offered.parse::<CpuSet>() {
            Ok(offered) if !cpus.is_within(&offered) => Err(CgroupError::Unsupported {
                limit: "cpuset",
                reason: format!("CPUs {cpus} are asked for and {offered} are there"),
            }),
            _ => files::write(&dir.join("cpuset.cpus"), &cpus.to_string()),
        }
    }
}

/// Gives a new v1 group the CPUs and memory nodes of the one above it: without both it takes no
/// process (cgroup-v1/cpusets.rst).
pub(crate) fn inherit_cpuset(dir: &Path) -> Result<(), CgroupError> {
    let above = dir.parent().unwrap_or(dir);
    for name in ["cpuset.cpus", "cpuset.mems"] {
        files::write(&dir.join(name), files::read(&above.join(name))?.trim())?;
    }
    Ok(())
}

/// The v1 shares that the scheduler takes a v2 weight for (`sched_weight_from_cgroup`,
/// kernel/sched/sched.h), so that 100, the one default, is 1024, the other. The formula of the OCI
/// runtimes, which stretches one range over the other, is not used for it makes 100 of 2597.
fn shares(weight: u32) -> u64 {
    (u64::from(weight) * 1024 + 50) / 100
}

/// A file that older kernels lack.
fn optional(result: Result<(), CgroupError>) -> Result<(), CgroupError> {
    match result {
        Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parent, fake::Fake};

    fn all() -> Limits {
        Limits {
            memory: Some(Bytes::mib(64)),
            memory_high: Some(Bytes::mib(48)),
            swap: Some(Bytes::mib(8)),
            cpus: Some(0.5),
            cpu_weight: Some(200),
            cpuset: Some("0-1".parse().unwrap()),
            pids: Some(32),
            freezer: true,
        }
    }

    fn v1() -> Fake {
        let fake = Fake::v1(&["memory", "cpu", "cpuacct", "pids", "cpuset", "freezer"]);
        fake.write("cpuset/cpuset.cpus", "0-3\n");
        fake.write("cpuset/cpuset.mems", "0\n");
        fake
    }

    #[test]
    fn v2_files_of_every_limit() {
        let fake = Fake::v2("cpuset cpu memory pids");
        let parent = Parent::create(&fake.detect()).unwrap();
        let leaf = parent.create_leaf("a", &all()).unwrap();
        let read = |name: &str| std::fs::read_to_string(leaf.path().join(name)).unwrap();
        for (name, text) in [
            ("memory.max", "67108864"),
            ("memory.high", "50331648"),
            ("memory.swap.max", "8388608"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "200"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "32"),
        ] {
            assert_eq!(read(name), text, "{name}");
        }
        assert_eq!(fake.read("cgroup.subtree_control"), "+cpuset", "written last, for this leaf");
    }

    #[test]
    fn nothing_is_written_that_is_not_asked_for() {
        let fake = Fake::v2("cpuset cpu memory pids");
        let parent = Parent::create(&fake.detect()).unwrap();
        let leaf = parent.create_leaf("a", &Limits::default()).unwrap();
        assert_eq!(std::fs::read_dir(leaf.path()).unwrap().count(), 0);
        assert_eq!(fake.read("cgroup.subtree_control"), "+memory +cpu +pids");
        let v1 = v1();
        let parent = Parent::create(&v1.detect()).unwrap();
        let leaf = parent.create_leaf("a", &Limits::default()).unwrap();
        assert_eq!(leaf.groups.len(), 4);
        let name = parent.path().file_name().unwrap();
        assert!(!v1.root().join("cpuset").join(name).exists());
    }

    #[test]
    fn v1_files_of_every_limit() {
        let fake = v1();
        let parent = Parent::create(&fake.detect()).unwrap();
        let leaf = parent.create_leaf("b", &Limits { memory_high: None, ..all() }).unwrap();
        let name = parent.path().file_name().unwrap().to_str().unwrap();
        for (path, text) in [
            ("memory/NAME/b/memory.limit_in_bytes", "67108864"),
            ("memory/NAME/b/memory.memsw.limit_in_bytes", "75497472"),
            ("cpu/NAME/b/cpu.shares", "2048"),
            ("cpuset/NAME/cpuset.cpus", "0-3"),
            ("cpuset/NAME/b/cpuset.cpus", "0-1"),
            ("cpuset/NAME/b/cpuset.mems", "0"),
        ] {
            assert_eq!(fake.read(&path.replace("NAME", name)), text, "{path}");
        }
        assert!(fake.root().join(format!("freezer/{name}/b")).exists());
        assert_eq!(leaf.v1_controllers().len(), 6);
        // A second one finds the parent's groups there.
        parent.create_leaf("c", &Limits { memory_high: None, ..all() }).unwrap();
    }

    #[test]
    fn what_v1_cannot_is_refused_with_the_reason() {
        let fake = v1();
        let parent = Parent::create(&fake.detect()).unwrap();
        let error = |name, limits| parent.create_leaf(name, &limits).unwrap_err().to_string();
        let high = error("x", all());
        assert!(high.contains("memory_high") && high.contains("soft limit"), "{high}");
        let swap = Limits { swap: Some(Bytes::mib(1)), ..Limits::default() };
        assert!(error("y", swap).contains("together with memory"));
    }

    #[test]
    fn a_controller_on_request_that_is_missing_is_told() {
        let fake = Fake::v2("cpu memory pids");
        let parent = Parent::create(&fake.detect()).unwrap();
        let error = parent.create_leaf("x", &all()).unwrap_err().to_string();
        assert!(error.contains("`cpuset`") && error.contains("cgroup.controllers"), "{error}");
        let fake = Fake::v1(&["memory"]);
        let parent = Parent::create(&fake.detect()).unwrap();
        let limits = Limits { freezer: true, ..Limits::default() };
        let error = parent.create_leaf("x", &limits).unwrap_err().to_string();
        assert!(error.contains("`freezer`") && error.contains("mount the v1"), "{error}");
    }

    #[test]
    fn weights_become_the_shares_the_scheduler_takes_them_for() {
        assert_eq!([1, 100, 200, 10_000].map(shares), [10, 1024, 2048, 102_400]);
    }
}
