//! What a workload may use beyond memory, CPU time and processes, and how its kernel is set for it:
//! plain data, and its numbers as system calls take them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Workload;
use crate::{Bytes, CpuSet};

/// Limits of an instance's control group that few workloads need (cgroup-v2.rst).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupLimits {
    /// Memory above which the container is slowed down to give some back (`memory.high`; needs cgroup
    /// v2). A microVM's kernel presses its own processes at `memory`, so there it does nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<Bytes>,
    /// Swap of the container beyond `memory`; none where absent. A microVM has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Bytes>,
    /// Share of CPU time where others want it too, 1 to 10000, for either backend; 100 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// The host's CPUs either backend runs on, such as `0-3,8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<CpuSet>,
}

impl GroupLimits {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A resource of a process that getrlimit(2) knows, in lower case and without `RLIMIT_`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "getrlimit(2) explains them by these names")]
pub enum Resource {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}

impl Resource {
    /// Its number (include/uapi/asm-generic/resource.h), which is its place above.
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// A limit of a resource, in getrlimit(2)'s unit: a number, or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a limit is a whole number or \"unlimited\"")]
pub enum Ceiling {
    /// So much.
    Number(u64),
    /// As much as it likes.
    Word(Unlimited),
}

/// The word for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// RLIM_INFINITY.
    Unlimited,
}

impl Ceiling {
    /// As setrlimit(2) takes it: no limit is RLIM_INFINITY.
    pub const fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Word(Unlimited::Unlimited) => u64::MAX,
        }
    }
}

/// The settings of a kernel that each namespace has its own of: those a container may be given.
const NAMESPACED: &str = "kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.*";
/// The longest value the kernel reads of one setting (a page, proc_sys_call_handler).
const MAX_SYSCTL: usize = 4096;

impl Workload {
    /// Resource limits by number: resource, soft, hard; u64::MAX is no limit (setrlimit(2)).
    pub fn rlimits(&self) -> Vec<(u32, u64, u64)> {
        let numbers = |(resource, [soft, hard]): (&Resource, &[Ceiling; 2])| {
            (resource.number(), soft.number(), hard.number())
        };
        self.rlimits.iter().map(numbers).collect()
    }

    /// The files of `/proc/sys` that `sysctls` names, and what to write there (proc_sys(5)).
    pub fn sysctl_files(&self) -> Vec<(String, String)> {
        let file = |name: &str| format!("/proc/sys/{}", name.replace('.', "/"));
        self.sysctls.iter().map(|(name, value)| (file(name), value.clone())).collect()
    }

    /// Field and problem, where one of these cannot work.
    pub(super) fn check_limits(&self) -> Result<(), (&'static str, String)> {
        let limits = &self.limits;
        if let Some(high) = limits.memory_high
            && (high.0 == 0 || high > self.memory)
        {
            let memory = self.memory;
            let problem = format!("{high}: use more than 0, and at most `memory`, {memory}");
            return Err(("limits.memory_high", problem));
        }
        if let Some(weight) = limits.cpu_weight
            && !(1..=10_000).contains(&weight)
        {
            return Err(("limits.cpu_weight", format!("{weight}: use 1 to 10000; 100 is usual")));
        }
        if let Some(score) = self.oom_score_adj
            && !(-1000..=1000).contains(&score)
        {
            let problem = format!("{score}: use -1000 (never killed) to 1000 (killed first)");
            return Err(("oom_score_adj", problem));
        }
        check_rlimits(&self.rlimits)?;
        self.sysctls.iter().try_for_each(|(name, value)| check_sysctl(name, value))
    }
}

/// Descriptors that a start has open until its `execve`.
const LEAST_FILES: u64 = 8;

fn check_rlimits(limits: &BTreeMap<Resource, [Ceiling; 2]>) -> Result<(), (&'static str, String)> {
    for (resource, [soft, hard]) in limits {
        let name = format!("{resource:?}").to_lowercase();
        if soft.number() > hard.number() {
            let problem =
                format!("`{name}`: the soft limit is above the hard one: write [soft, hard]");
            return Err(("rlimits", problem));
        }
        if *resource == Resource::Nofile && soft.number() < LEAST_FILES {
            let problem = format!("`nofile`: a start itself takes {LEAST_FILES}: use that or more");
            return Err(("rlimits", problem));
        }
        if *resource == Resource::Nofile && hard.number() == u64::MAX {
            let problem = "`nofile`: Linux has nobody open without limit: use a number up to \
                           fs.nr_open, usually 1048576";
            return Err(("rlimits", problem.to_owned()));
        }
    }
    Ok(())
}

fn check_sysctl(name: &str, value: &str) -> Result<(), (&'static str, String)> {
    let wrong = |problem: String| Err(("sysctls", problem));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !name.split('.').all(|part| !part.is_empty() && part.bytes().all(plain)) {
        return wrong(format!("`{name}`: write it as sysctl(8) does, such as net.core.somaxconn"));
    }
    let namespaced = ["kernel.shm", "kernel.msg", "fs.mqueue.", "net."];
    if name != "kernel.sem" && !namespaced.iter().any(|prefix| name.starts_with(prefix)) {
        return wrong(format!(
            "`{name}` is one setting of a whole kernel, which a container shares with its host: \
             {NAMESPACED} are an instance's own"
        ));
    }
    if value.is_empty()
        || value.len() >= MAX_SYSCTL
        || value.contains(|c: char| c.is_control() && c != '\t')
    {
        return wrong(format!("`{name}`: its value is one line of 1 to {} bytes", MAX_SYSCTL - 1));
    }
    Ok(())
}
