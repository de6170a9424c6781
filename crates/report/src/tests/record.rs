//! Records built by hand.

use compare_spec::{
    Artefacts, CgroupMode, Clock, Confinement, Digest, EventsNs, Exit, FilterSize, GuestFacts,
    HostFacts, HostKind, ImageRecord, KvmKind, Memory, Outcome, Plan, PlanRecord, ProbeRecord,
    Record, SCHEMA, Snapshot, StartMode, ToolRecord, Trial, Unavailable, Workload,
};

use crate::summarise;

const HOST_KERNEL: &str = "6.1.0-56-cloud-amd64";
const NGINX: &str = r#"
name = "nginx"
command = ["/usr/sbin/nginx"]
port = 80
ready = { http = { path = "/" } }
[image]
packages = ["nginx-light"]
"#;

pub(super) fn plan(backends: &[&str], trials: u32) -> Plan {
    Plan {
        workload: Workload::parse("nginx", NGINX).unwrap(),
        backends: backends.iter().map(|name| (*name).to_owned()).collect(),
        starts: vec![StartMode::Cold],
        microvm_root: compare_spec::RootDevice::default(),
        microvm_memory_pages: compare_spec::MemoryPages::default(),
        trials,
        warmup: 1,
        gap: compare_spec::Span::default(),
        seed: 1,
        host: HostKind::Lab,
        clock: Clock::Instructions,
    }
}

pub(super) fn container(index: u32) -> Trial {
    let shift = u64::from(index) * 31_000;
    Trial {
        backend: "container".to_owned(),
        start: "cold".to_owned(),
        index,
        outcome: Outcome::Ok,
        detail: None,
        exit: Some(Exit::Code { code: 0 }),
        events_ns: EventsNs {
            t0: 0,
            created: Some(1_921_400 + shift / 10),
            kernel: None,
            init: Some(2_312_900 + shift / 8),
            exec: Some(2_704_100 + shift / 6),
            ready: Some(17_020_300 + shift),
            stop: Some(40_000_000),
            stopped: Some(44_112_000 + shift),
            gone: Some(53_400_000 + shift),
        },
        memory: Memory {
            rss_bytes: Some(9_465_856),
            pss_bytes: Some(5_206_016),
            uss_bytes: Some(3_371_008 + 4096 * u64::from(index)),
            vmm_overhead_bytes: None,
            cgroup_current_bytes: Some(4_878_336 + 4096 * u64::from(index)),
            cgroup_peak_bytes: Some(7_012_352),
            guest_used_bytes: None,
            ..Memory::default()
        },
        kernel_release: Some(HOST_KERNEL.to_owned()),
        guest: None,
        refused: Vec::new(),
        confinement: None,
        image_digest: Digest::of(b"image"),
        evidence: Some("HTTP/1.1 200 OK".to_owned()),
        output_tail: None,
    }
}

pub(super) fn microvm(index: u32) -> Trial {
    let shift = u64::from(index) * 112_000;
    Trial {
        backend: "microvm".to_owned(),
        events_ns: EventsNs {
            t0: 0,
            created: Some(2_102_000 + shift / 12),
            kernel: Some(3_441_700 + shift / 9),
            init: Some(44_803_200 + shift / 2),
            exec: Some(47_107_900 + shift / 2),
            ready: Some(78_310_600 + shift),
            stop: Some(120_000_000),
            stopped: Some(137_304_000 + shift),
            gone: Some(137_304_000 + shift),
        },
        memory: Memory {
            rss_bytes: Some(50_331_648),
            pss_bytes: Some(49_807_360),
            uss_bytes: Some(49_545_216 + 8192 * u64::from(index)),
            vmm_overhead_bytes: Some(2_211_840),
            cgroup_current_bytes: Some(44_933_120 + 16_384 * u64::from(index)),
            cgroup_peak_bytes: Some(51_118_080),
            guest_used_bytes: Some(28_311_552),
            ..Memory::default()
        },
        kernel_release: Some("6.1.192".to_owned()),
        guest: Some(GuestFacts { ram_bytes: 128 << 20, ..GuestFacts::default() }),
        confinement: Some(Confinement {
            namespaces: ["ipc", "net", "uts", "mount"].map(str::to_owned).to_vec(),
            empty_root: true,
            uid: 1_879_049_000,
            gid: 1_879_049_000,
            capabilities: 0,
            no_new_privileges: true,
            filters: vec![
                FilterSize { thread: "vcpu".to_owned(), system_calls: 30, instructions: 67 },
                FilterSize { thread: "devices".to_owned(), system_calls: 33, instructions: 63 },
            ],
            lacks: Vec::new(),
        }),
        ..container(index)
    }
}

pub(super) fn crashed(index: u32) -> Trial {
    Trial {
        outcome: Outcome::GuestCrashed,
        detail: Some("the guest reset itself 31.2 ms after its first instruction".to_owned()),
        exit: Some(Exit::GuestCrashed { reason: "reset".to_owned() }),
        events_ns: EventsNs {
            ready: None,
            exec: None,
            init: None,
            ..microvm(index).events_ns
        },
        memory: Memory::default(),
        kernel_release: None,
        guest: None,
        evidence: None,
        output_tail: Some(
            "[    0.028113] VFS: Cannot open root device \"vda\" or unknown-block(254,0): error -6\n\
             [    0.028950] \u{1b}[31mKernel panic\u{1b}[0m - not syncing: VFS: Unable to mount root fs on unknown-block(254,0)\n\
             [    0.031002] Rebooting in 1 seconds..\r\n"
                .to_owned(),
        ),
        ..microvm(index)
    }
}

pub(super) fn lab() -> HostFacts {
    HostFacts {
        kind: HostKind::Lab,
        clock: Clock::Instructions,
        kvm: KvmKind::EmulatedSvm,
        cgroup: CgroupMode::V2,
        kernel: HOST_KERNEL.to_owned(),
        cpu: Some("QEMU TCG CPU version 2.5+".to_owned()),
        microcode: None,
        cpus: 1,
        smt: Some(false),
        governor: None,
        turbo: None,
        mitigations: Default::default(),
        memory_bytes: 2_089_459_712,
        thp: Some("never".to_owned()),
        ksm: Some(false),
        nx_huge_pages: Some("N".to_owned()),
        favordynmods: Some(false),
        clocksource: Some("tsc".to_owned()),
    }
}

pub(super) fn local() -> HostFacts {
    HostFacts {
        kind: HostKind::Local,
        clock: Clock::Real,
        kvm: KvmKind::Hardware,
        cpu: Some("AMD EPYC 7313P 16-Core Processor".to_owned()),
        cpus: 32,
        smt: Some(true),
        governor: Some("performance".to_owned()),
        turbo: Some(true),
        memory_bytes: 135_000_000_000,
        ..lab()
    }
}

pub(super) fn record(host: HostFacts, plan: Plan, trials: Vec<Trial>) -> Record {
    let (summary, comparisons) = summarise(&trials, &plan);
    Record {
        schema: SCHEMA.to_owned(),
        tool: ToolRecord {
            version: "0.1.0".to_owned(),
            revision: Some("9598dca0c0ffee".to_owned()),
            dirty: Some(false),
        },
        host,
        plan: PlanRecord {
            workload: plan.workload.name.clone(),
            seed: plan.seed,
            trials: plan.trials,
            digest: plan.digest(),
            spec: plan,
        },
        image: ImageRecord {
            digest: Digest::of(b"image"),
            erofs_digest: Digest::of(b"erofs"),
            erofs_bytes: 14_680_064,
        },
        artefacts: Artefacts::default(),
        probe: ProbeRecord { resolution_ns: 50_000 },
        trials,
        snapshots: Vec::new(),
        summary,
        comparisons,
        unavailable: vec![
            Unavailable {
                figure: "turbo".to_owned(),
                backend: None,
                reason: "no cpufreq driver is loaded".to_owned(),
            },
            Unavailable {
                figure: "governor".to_owned(),
                backend: None,
                reason: "no cpufreq driver is loaded".to_owned(),
            },
            Unavailable {
                figure: "vmm_overhead".to_owned(),
                backend: Some("container".to_owned()),
                reason: "a container has no monitor".to_owned(),
            },
        ],
        interrupted: false,
    }
}

/// Two backends, three trials each, one of which failed, in the lab.
pub(super) fn sample() -> Record {
    let trials = vec![container(0), microvm(0), crashed(1), container(1), container(2), microvm(2)];
    record(lab(), plan(&["container", "microvm"], 3), trials)
}

/// The trial of a microVM that was restored: no `exec`, and memory that it shares.
fn restored(index: u32) -> Trial {
    let mut trial = microvm(index);
    "restored".clone_into(&mut trial.start);
    let events = &mut trial.events_ns;
    events.init = Some(4_120_000 + u64::from(index) * 7_000);
    events.exec = None;
    events.ready = Some(6_310_000 + u64::from(index) * 9_000);
    trial.memory.pss_bytes = Some(21_233_664);
    trial.memory.uss_bytes = Some(9_437_184);
    trial.memory.cgroup_current_bytes = Some(12_582_912);
    trial.memory.cgroup_peak_bytes = Some(12_582_912);
    trial
}

/// Six trials each of a container, a microVM and a restored one.
pub(super) fn with_restored() -> Record {
    let trials = (0..6).flat_map(|index| [container(index), microvm(index), restored(index)]);
    let mut plan = plan(&["container", "microvm"], 6);
    plan.starts = vec![StartMode::Cold, StartMode::Restored];
    let mut record = record(lab(), plan, trials.collect());
    record.unavailable.clear();
    record.snapshots = vec![Snapshot {
        backend: "microvm".to_owned(),
        ready_ns: 80_120_400,
        save_ns: 12_345_600,
        bytes: 31_457_280,
        working_set_bytes: Some(1_048_576),
    }];
    record
}
