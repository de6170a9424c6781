//! The record as CSV: one row for each trial, with the host's kind and clock in every row, so that
//! no row is taken for what it is not once rows of several runs stand in one table.

use compare_spec::{Record, Trial};

/// Columns after those of the run, each with its value.
type Field = (&'static str, fn(&Trial) -> Option<u64>);

const FIELDS: [Field; 22] = [
    ("created_ns", |trial| trial.events_ns.created),
    ("kernel_ns", |trial| trial.events_ns.kernel),
    ("init_ns", |trial| trial.events_ns.init),
    ("exec_ns", |trial| trial.events_ns.exec),
    ("ready_ns", |trial| trial.events_ns.ready),
    ("stop_ns", |trial| trial.events_ns.stop),
    ("stopped_ns", |trial| trial.events_ns.stopped),
    ("release_ns", |trial| trial.events_ns.stopped?.checked_sub(trial.events_ns.stop?)),
    ("rss_bytes", |trial| trial.memory.rss_bytes),
    ("pss_bytes", |trial| trial.memory.pss_bytes),
    ("uss_bytes", |trial| trial.memory.uss_bytes),
    ("vmm_overhead_bytes", |trial| trial.memory.vmm_overhead_bytes),
    ("cgroup_current_bytes", |trial| trial.memory.cgroup_current_bytes),
    ("cgroup_peak_bytes", |trial| trial.memory.cgroup_peak_bytes),
    ("guest_used_bytes", |trial| trial.memory.guest_used_bytes),
    ("cgroup_anon_bytes", |trial| trial.memory.cgroup_split.anon_bytes),
    ("cgroup_file_bytes", |trial| trial.memory.cgroup_split.file_bytes),
    ("cgroup_kernel_bytes", |trial| trial.memory.cgroup_split.kernel_bytes),
    ("cgroup_pagetables_bytes", |trial| trial.memory.cgroup_split.pagetables_bytes),
    ("cgroup_sec_pagetables_bytes", |trial| trial.memory.cgroup_split.sec_pagetables_bytes),
    ("cgroup_slab_bytes", |trial| trial.memory.cgroup_split.slab_bytes),
    ("cgroup_sock_bytes", |trial| trial.memory.cgroup_split.sock_bytes),
];

/// Every trial of a record as a row of CSV (RFC 4180, lines ended by a bare line feed) under a
/// header that only ever gains columns at its end. A figure that could not be taken is empty.
/// Times are nanoseconds since the request, but for `release_ns`, which is `stopped` − `stop`.
pub fn csv(record: &Record) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |row: Vec<String>| {
        writer.write_record(row).expect("rows of equal length fit into memory");
    };
    let run =
        ["host_kind", "clock", "workload", "seed", "plan", "backend", "start", "index", "outcome"];
    let header = run.into_iter().chain(FIELDS.iter().map(|(name, _)| *name));
    let end = ["kernel_release", "image_digest", "detail", "gone_ns"];
    write(header.chain(end).map(str::to_owned).collect());
    for trial in &record.trials {
        let run = [
            name(&record.host.kind),
            name(&record.host.clock),
            record.plan.workload.clone(),
            record.plan.seed.to_string(),
            record.plan.digest.to_string(),
            trial.backend.clone(),
            trial.start.clone(),
            trial.index.to_string(),
            name(&trial.outcome),
        ];
        let figures = FIELDS
            .iter()
            .map(|(_, value)| value(trial).map(|value| value.to_string()).unwrap_or_default());
        let end = [
            trial.kernel_release.clone().unwrap_or_default(),
            trial.image_digest.to_string(),
            trial.detail.clone().unwrap_or_default(),
            trial.events_ns.gone.map(|value| value.to_string()).unwrap_or_default(),
        ];
        write(run.into_iter().chain(figures).chain(end).collect());
    }
    let bytes = writer.into_inner().expect("memory takes every write");
    String::from_utf8(bytes).expect("fields are UTF-8, and so are commas and quotes")
}

/// A unit-only enum as the record spells it.
fn name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
