//! The figures of docs/measurement.md: their names, units and meaning, and where a trial holds them.

use compare_spec::{Trial, Unit};

/// One figure.
pub(crate) struct Figure {
    /// As `summary` and `comparisons` name it.
    pub(crate) name: &'static str,
    /// Unit of its values.
    pub(crate) unit: Unit,
    /// What it is, in a few words.
    pub(crate) meaning: &'static str,
    /// Its value in a trial.
    pub(crate) value: fn(&Trial) -> Option<u64>,
}

/// The events on the way to readiness, in order.
pub(crate) const PHASES: [Figure; 5] = [
    time("created", "namespaces + cgroup, or VM, exist", |trial| trial.events_ns.created),
    time("kernel", "first entry into the guest", |trial| trial.events_ns.kernel),
    time("init", "first code of ours inside", |trial| trial.events_ns.init),
    time("exec", "execve of the workload", |trial| trial.events_ns.exec),
    time("ready", "first success of the probe", |trial| trial.events_ns.ready),
];

/// The events on the way out.
pub(crate) const ENDING: [Figure; 3] = [
    time("stopped", "all processes gone, all released", |trial| trial.events_ns.stopped),
    time("release", "from asking to stop to all released", |trial| {
        trial.events_ns.stopped?.checked_sub(trial.events_ns.stop?)
    }),
    time("teardown", "the same, until the kernel's done", |trial| {
        trial.events_ns.gone?.checked_sub(trial.events_ns.stop?)
    }),
];

/// Memory, once ready and settled.
pub(crate) const MEMORY: [Figure; 7] = [
    bytes("rss", "resident on the host", |trial| trial.memory.rss_bytes),
    bytes("pss", "proportional share", |trial| trial.memory.pss_bytes),
    bytes("uss", "private pages", |trial| trial.memory.uss_bytes),
    bytes("vmm_overhead", "monitor, no guest RAM", |trial| trial.memory.vmm_overhead_bytes),
    bytes("cgroup_current", "charged to its cgroup", |trial| trial.memory.cgroup_current_bytes),
    bytes("cgroup_peak", "most ever charged", |trial| trial.memory.cgroup_peak_bytes),
    bytes("guest_used", "MemTotal-MemAvailable", |trial| trial.memory.guest_used_bytes),
];

/// Every figure, in the order of a report.
pub(crate) fn all() -> impl Iterator<Item = &'static Figure> {
    PHASES.iter().chain(&ENDING).chain(&MEMORY)
}

const fn time(
    name: &'static str,
    meaning: &'static str,
    value: fn(&Trial) -> Option<u64>,
) -> Figure {
    Figure { name, unit: Unit::Ns, meaning, value }
}

const fn bytes(
    name: &'static str,
    meaning: &'static str,
    value: fn(&Trial) -> Option<u64>,
) -> Figure {
    Figure { name, unit: Unit::Bytes, meaning, value }
}
