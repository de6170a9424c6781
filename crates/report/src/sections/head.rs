//! The head of a report: the host, the run, and what makes every figure below doubtful.

use std::{collections::BTreeSet, time::Duration};

use compare_spec::{
    CgroupMode, Clock, Digest, HostFacts, KvmKind, MemoryPages, Readiness, RootDevice, Side,
    Snapshot, Span, Unit,
};

use crate::{document::Block, text::list, view::View};

/// A probe may be coarser than 1 % of what it measures only up to this (docs/measurement.md).
const FINE_PROBE_NS: u64 = 1_000_000;

/// The most snapshots told; the JSON holds the rest.
const MAX_SNAPSHOTS: usize = 16;

/// What `microvm-pmem` in the tables means.
const PMEM: &str = "microvm-pmem has its root in persistent memory: pages of the host's page cache, \
                    mapped and not copied (DAX); not the default, a block device";

/// What `microvm-thp` in the tables means.
const THP: &str = "microvm-thp has RAM in pages of 2 MiB where the host had such a page free \
                   (transparent huge pages); not the default, pages of 4 KiB";

/// The host, then machine, run, image, readiness, kernels and snapshots, one line each.
pub(super) fn facts(view: &View) -> [Block; 2] {
    let mut facts = vec![("machine", machine(&view.record.host)), ("run", run(view))];
    if let Some(image) = image(view) {
        facts.push(("image", image));
    }
    if view.record.plan.spec.microvm_root == RootDevice::Pmem {
        facts.push(("root", PMEM.to_owned()));
    }
    if view.record.plan.spec.microvm_memory_pages == MemoryPages::Thp {
        facts.push(("pages", THP.to_owned()));
    }
    facts.push(("ready", readiness(view)));
    let kernels: Vec<String> = view.sides.iter().filter_map(|side| kernel(view, side)).collect();
    if !kernels.is_empty() {
        facts.push(("kernel", kernels.join(", ")));
    }
    // The monitor is the same in every start mode.
    // Once for each backend: its start modes differ in who they are only.
    let mut told = BTreeSet::new();
    let confined = view.sides.iter().filter_map(|side| Some((side, confinement(view, side)?)));
    let confined = confined.filter(|(side, _)| told.insert(&side.backend));
    facts.extend(confined.map(|(_, text)| ("confined", text)));
    facts.extend(
        view.record
            .snapshots
            .iter()
            .take(MAX_SNAPSHOTS)
            .map(|snapshot| ("snapshot", snapshot_costs(view, snapshot))),
    );
    [Block::Host(host(view)), Block::Facts(facts)]
}

/// What a reader must know before any figure.
pub(super) fn warnings(view: &View) -> Vec<Block> {
    let record = view.record;
    let mut warnings = Vec::new();
    if record.interrupted {
        let planned = u64::from(record.plan.trials) * view.sides.len() as u64;
        let ran = record.trials.len();
        warnings
            .push(format!("interrupted: {ran} of {planned} trials ran; the figures are of those"));
    }
    let mounted: Vec<(String, BTreeSet<&Digest>)> = view
        .sides
        .iter()
        .map(|side| (side.label(), view.trials(side).map(|trial| &trial.image_digest).collect()))
        .collect();
    if mounted
        .iter()
        .any(|(_, digests)| digests.iter().any(|digest| **digest != record.image.digest))
    {
        let each: Vec<String> = mounted
            .iter()
            .filter(|(_, digests)| !digests.is_empty())
            .map(|(label, digests)| {
                let digests: Vec<String> =
                    digests.iter().take(4).map(|digest| digest.short().to_owned()).collect();
                format!("{label} {}", list(&digests))
            })
            .collect();
        warnings.push(format!(
            "the backends did not all mount image {}: {}; these figures do not compare like with like",
            record.image.digest.short(),
            each.join(", "),
        ));
    }
    let ready = view.sides.iter().filter_map(|side| view.median(side, "ready"));
    let least = ready.fold(f64::INFINITY, f64::min);
    let resolution = record.probe.resolution_ns;
    if resolution > FINE_PROBE_NS && resolution as f64 > least / 100.0 {
        warnings.push(format!(
            "the probe looks only every {}, more than 1 % of {}: it may set the result",
            view.quantity(Unit::Ns, resolution as f64),
            view.quantity(Unit::Ns, least),
        ));
    }
    if view.hidden > 0 {
        warnings.push(format!("{} more backends are not shown; the JSON holds them", view.hidden));
    }
    warnings.into_iter().map(Block::Warning).collect()
}

fn host(view: &View) -> String {
    let host = &view.record.host;
    if view.is_lab() {
        let clock = match host.clock {
            Clock::Instructions => {
                "clock: instructions (1 virtual ns = 1 instruction); times are virtual"
            }
            Clock::Real => "clock: wall time of an emulated machine",
        };
        return format!(
            "lab — emulated AMD SVM machine (QEMU TCG), {clock}, compare them with each other, not \
             with hardware"
        );
    }
    let clock = match host.clock {
        Clock::Real => "",
        Clock::Instructions => ", clock: instructions",
    };
    let cpu = host.cpu.as_deref().unwrap_or("CPU unknown");
    format!(
        "local — {cpu}, kernel {}, {}, {}{clock}",
        host.kernel,
        cgroup(host.cgroup),
        kvm(host.kvm)
    )
}

fn machine(host: &HostFacts) -> String {
    let switch = |name: &str, fact: Option<bool>| {
        fact.map(|on| format!("{name} {}", if on { "on" } else { "off" }))
    };
    let named =
        |name: &str, fact: &Option<String>| fact.as_ref().map(|value| format!("{name} {value}"));
    let (memory, unit) = crate::units::quantity(Unit::Bytes, host.memory_bytes as f64);
    let cpus = if host.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", host.cpus) };
    let mut facts = vec![cpus, format!("{memory} {unit}")];
    if host.kind == compare_spec::HostKind::Lab {
        facts.push(format!("kernel {}", host.kernel));
        facts.push(cgroup(host.cgroup).to_owned());
        facts.push(kvm(host.kvm).to_owned());
    }
    let rest = [
        switch("SMT", host.smt),
        named("governor", &host.governor),
        switch("turbo", host.turbo),
        named("THP", &host.thp),
        switch("KSM", host.ksm.filter(|on| *on)),
        named("nx_huge_pages", &host.nx_huge_pages),
        switch("favordynmods", host.favordynmods),
        named("clocksource", &host.clocksource.clone().filter(|source| source != "tsc")),
    ];
    facts.extend(rest.into_iter().flatten());
    facts.join(", ")
}

fn cgroup(mode: CgroupMode) -> &'static str {
    match mode {
        CgroupMode::V1 => "cgroup v1",
        CgroupMode::V2 => "cgroup v2",
        CgroupMode::Hybrid => "cgroup hybrid",
        CgroupMode::None => "no cgroup",
    }
}

fn kvm(kind: KvmKind) -> &'static str {
    match kind {
        KvmKind::Hardware => "KVM on hardware",
        KvmKind::Nested => "nested KVM",
        KvmKind::Software => "software KVM (cannot run Linux)",
        KvmKind::EmulatedSvm => "KVM on emulated SVM",
        KvmKind::None => "no KVM",
    }
}

fn run(view: &View) -> String {
    let (plan, tool) = (&view.record.plan, &view.record.tool);
    let cold = view.sides.iter().all(|side| side.start == "cold");
    let trials = format!(
        "{}{} trial{}",
        plan.trials,
        if cold { " cold" } else { "" },
        if plan.trials == 1 { "" } else { "s" }
    );
    let labels: Vec<String> = view.sides.iter().map(Side::label).collect();
    let (each, order) = match labels.len() {
        0 | 1 => ("", ""),
        _ => ("each ", " in random ABBA order"),
    };
    let warmup = match plan.spec.warmup {
        0 => "no warm-up".to_owned(),
        1 => "after 1 warm-up".to_owned(),
        n => format!("after {n} warm-ups"),
    };
    let gap = match plan.spec.gap {
        Span(Duration::ZERO) => String::new(),
        gap => format!(", {gap} idle before each"),
    };
    let revision = tool.revision.as_deref().map(|revision| revision.get(..12).unwrap_or(revision));
    let built = match (revision, tool.dirty == Some(true)) {
        (Some(revision), false) => format!(" ({revision})"),
        (Some(revision), true) => format!(" ({revision}, dirty)"),
        (None, true) => " (dirty)".to_owned(),
        (None, false) => String::new(),
    };
    format!(
        "{}, {trials} {each}of {}{order}, {warmup}{gap}, seed {}, plan {}, compare {}{built}",
        plan.workload,
        list(&labels),
        plan.seed,
        plan.digest.short(),
        tool.version,
    )
}

/// The image, if it is the one all trials mounted; else there is a warning instead.
fn image(view: &View) -> Option<String> {
    let image = &view.record.image;
    let same = view.record.trials.iter().all(|trial| trial.image_digest == image.digest);
    let whose = match view.sides.len() {
        _ if view.record.trials.is_empty() => "",
        0 | 1 => ", mounted in every trial",
        _ => ", the same bytes mounted by every backend",
    };
    same.then(|| format!("{}{whose}", image.digest.short()))
}

fn readiness(view: &View) -> String {
    let workload = &view.record.plan.spec.workload;
    let port = workload.port.unwrap_or_default();
    let event = match &workload.ready {
        Readiness::Exit(code) => format!("it exits with code {code}"),
        Readiness::Log(log) => format!("it writes a line with \"{}\"", log.contains),
        Readiness::Tcp {} => format!("port {port} accepts a connection"),
        Readiness::Http(http) => {
            format!("GET {} on port {port} answers {}", http.path, http.status)
        }
    };
    match view.record.probe.resolution_ns {
        0 => format!("{event}; seen as it happens, not polled"),
        ns => {
            let resolution = view.quantity(Unit::Ns, ns as f64);
            format!("{event}; probe resolution {resolution}")
        }
    }
}

/// What a snapshot took to make, which is in no figure of the trials that restored it.
fn snapshot_costs(view: &View, snapshot: &Snapshot) -> String {
    let quantity = |unit, value: u64| view.quantity(unit, value as f64);
    let working_set = snapshot.working_set_bytes.map_or_else(String::new, |bytes| {
        format!(
            " and begin with copies of the {} that the first of them, before the trials, wrote to \
             until it was ready",
            quantity(Unit::Bytes, bytes)
        )
    });
    format!(
        "{} restores one made before the trials: ready after {}, saved in {}, {} on disk; restored \
         instances share its pages through the host's page cache{working_set}",
        snapshot.backend,
        quantity(Unit::Ns, snapshot.ready_ns),
        quantity(Unit::Ns, snapshot.save_ns),
        quantity(Unit::Bytes, snapshot.bytes),
    )
}

/// What a container's workload, or a guest that breaks out into its monitor, would find.
fn confinement(view: &View, side: &Side) -> Option<String> {
    let confinement = view.trials(side).find_map(|trial| trial.confinement.as_ref())?;
    let mut parts = Vec::new();
    match confinement.namespaces.len() {
        0 => parts.push("no namespaces of its own".to_owned()),
        _ => parts.push(format!("own {} namespaces", list(&confinement.namespaces))),
    }
    if confinement.empty_root {
        parts.push("empty root".to_owned());
    }
    parts.push(match confinement.capabilities {
        0 => format!("user {}, no capabilities", confinement.uid),
        set => format!("user {}, {} capabilities", confinement.uid, set.count_ones()),
    });
    parts.extend(confinement.filters.iter().map(|filter| {
        format!(
            "{} thread may make {} system calls ({} BPF instructions)",
            filter.thread, filter.system_calls, filter.instructions
        )
    }));
    parts.extend(confinement.lacks.iter().map(|lack| format!("not to be had here: {lack}")));
    let whose = match own_kernel(view, side) {
        Some((_, false)) => "workload",
        _ => "monitor",
    };
    Some(format!("{}'s {whose}: {}", side.backend, parts.join("; ")))
}

/// The kernel a side's workload ran on, and whose it is.
fn kernel(view: &View, side: &Side) -> Option<String> {
    let (release, own) = own_kernel(view, side)?;
    Some(format!("{} {release} ({})", side.label(), if own { "own" } else { "host's" }))
}

/// The release a side's workload saw, and whether that kernel is its own.
pub(super) fn own_kernel<'a>(view: &View<'a>, side: &Side) -> Option<(&'a str, bool)> {
    let trial = view.trials(side).find(|trial| trial.kernel_release.is_some())?;
    let release = trial.kernel_release.as_deref()?;
    Some((release, trial.guest.is_some() || release != view.record.host.kernel))
}
