//! What is known about the machine a run happened on. Figures without it mean nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// This machine and its kernel.
    Local,
    /// The emulated machine with AMD SVM.
    Lab,
}

/// What one nanosecond of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// A nanosecond of the machine's monotonic clock.
    Real,
    /// One instruction of the emulated machine.
    Instructions,
}

/// What stands behind `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KvmKind {
    /// VMX or SVM of this CPU.
    Hardware,
    /// VMX or SVM that a hypervisor below passes on.
    Nested,
    /// No hardware behind it; it cannot run Linux.
    Software,
    /// SVM of the emulated host.
    EmulatedSvm,
    /// Not there or not usable.
    None,
}

/// How control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// Version 1 controllers only.
    V1,
    /// Version 2, unified.
    V2,
    /// Version 1 controllers beside a version 2 mount without controllers.
    Hybrid,
    /// None mounted.
    None,
}

/// The facts of the machine. `None` is "could not be read"; the reason stands in the record's
/// `unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostFacts {
    /// Where the run happened.
    pub kind: HostKind,
    /// What a nanosecond is.
    pub clock: Clock,
    /// What stands behind `/dev/kvm`.
    pub kvm: KvmKind,
    /// How control groups are mounted.
    pub cgroup: CgroupMode,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// CPU model name.
    pub cpu: Option<String>,
    /// Microcode revision.
    pub microcode: Option<String>,
    /// CPUs online.
    pub cpus: u32,
    /// Whether SMT is active.
    pub smt: Option<bool>,
    /// CPU frequency governor of CPU 0.
    pub governor: Option<String>,
    /// Whether turbo frequencies are allowed.
    pub turbo: Option<bool>,
    /// CPU vulnerabilities and their mitigation, as the kernel words them.
    pub mitigations: std::collections::BTreeMap<String, String>,
    /// MemTotal, bytes.
    pub memory_bytes: u64,
    /// Transparent huge pages: always, madvise or never.
    pub thp: Option<String>,
    /// Whether same-page merging runs.
    pub ksm: Option<bool>,
    /// The `nx_huge_pages` parameter of kvm, which dominates VM creation since Linux 6.1.
    pub nx_huge_pages: Option<String>,
    /// Whether the cgroup v2 mount favours dynamic modifications (`favordynmods`).
    pub favordynmods: Option<bool>,
    /// The clock source in use.
    pub clocksource: Option<String>,
}
