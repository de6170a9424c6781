//! The record of a run: what scripts parse and what every report is made from. Its field names are
//! a contract (`compare/1`); new fields may be added, none renamed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, HostFacts, Phase, Plan, Side};

/// The version of the record's form.
pub const SCHEMA: &str = "compare/1";

/// Everything a run found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program that made it.
    pub tool: ToolRecord,
    /// The machine.
    pub host: HostFacts,
    /// What was to be done.
    pub plan: PlanRecord,
    /// The root file system, the same for every backend.
    pub image: ImageRecord,
    /// Digests of what else was run.
    pub artefacts: Artefacts,
    /// How readiness was probed.
    pub probe: ProbeRecord,
    /// Every measured trial, in the order they ran.
    pub trials: Vec<Trial>,
    /// What the snapshots cost that restored trials started from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// Statistics of each figure for each backend in each start mode.
    pub summary: Vec<Summary>,
    /// Differences and ratios between backends.
    pub comparisons: Vec<Comparison>,
    /// What could not be measured, and why.
    pub unavailable: Vec<Unavailable>,
    /// Whether the run was cut short.
    pub interrupted: bool,
}

/// The program that made a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolRecord {
    /// Version of the package.
    pub version: String,
    /// Git revision it was built from, where known.
    pub revision: Option<String>,
    /// Whether the work tree had changes that no revision holds.
    pub dirty: Option<bool>,
}

/// The plan, with the fields scripts look for at the top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRecord {
    /// Name of the workload.
    pub workload: String,
    /// Seed.
    pub seed: u64,
    /// Measured trials of each backend.
    pub trials: u32,
    /// Digest of the plan.
    pub digest: Digest,
    /// The whole plan: `compare run --plan FILE` runs it again.
    pub spec: Plan,
}

/// The root file system's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRecord {
    /// Digest of the tree, whatever shape a backend takes it in.
    pub digest: Digest,
    /// Digest of the EROFS file made from it.
    pub erofs_digest: Digest,
    /// Its length, bytes.
    pub erofs_bytes: u64,
}

/// Digests of the programs and kernels a run used; `None` where the run had no use for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artefacts {
    /// The guest kernel.
    pub kernel: Option<Digest>,
    /// The guest's PID 1.
    pub init: Option<Digest>,
    /// The virtual machine monitor.
    pub vmm: Option<Digest>,
    /// Release of the emulated host's kernel.
    pub lab_kernel: Option<Digest>,
}

/// How readiness was probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeRecord {
    /// Time between two attempts, nanoseconds: the resolution of `ready`. 0 where readiness is an
    /// event, not polled.
    pub resolution_ns: u64,
}

/// What it took to make the snapshot that the restored trials of a backend started from: one cold
/// start before all trials, which is in none of their figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Name of the backend that restores it.
    pub backend: String,
    /// Nanoseconds from the request to start the instance that was saved until it was ready.
    pub ready_ns: u64,
    /// Nanoseconds it took to save it, once at rest.
    pub save_ns: u64,
    /// Bytes the snapshot takes on disk, holes not counted.
    pub bytes: u64,
    /// Bytes of memory that the first instance restored from it wrote to until it was ready, which
    /// every trial began with copies of. Absent where nobody noted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_set_bytes: Option<u64>,
}

/// One start of one backend, from the request to the release of everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Name of the backend.
    pub backend: String,
    /// Start mode: `cold` boots or creates everything anew, `restored` goes on from a snapshot.
    pub start: String,
    /// Count of the trials of this backend in this start mode before this one.
    pub index: u32,
    /// How it went.
    pub outcome: Outcome,
    /// What happened, in words, where `outcome` is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How the workload ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// When each phase was reached.
    pub events_ns: EventsNs,
    /// Memory, once ready and settled.
    pub memory: Memory,
    /// Kernel release the workload ran on.
    pub kernel_release: Option<String>,
    /// What was seen inside a guest with a kernel of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestFacts>,
    /// What the workload of a container, or the monitor of a microVM, could still do to its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// System calls a container's workload was refused by its filter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// Digest of the image this backend was started from. Tree and EROFS file were both verified
    /// against it before the run.
    pub image_digest: Digest,
    /// What the probe saw that made it ready: the first line of the response, or the matched line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The last output of the workload and of the guest's console, where the trial failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tail: Option<String>,
}

impl Trial {
    /// The column it belongs to.
    pub fn side(&self) -> Side {
        Side { backend: self.backend.clone(), start: self.start.clone() }
    }
}

/// What a container's workload runs without, or a monitor has taken from itself before its guest's
/// first instruction (docs/confinement.md).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Confinement {
    /// Kinds of namespaces it is in that are not the tool's: `mount`, `net`, `ipc`, `uts`, `pid`,
    /// `cgroup`, `time`, `user`.
    pub namespaces: Vec<String>,
    /// Whether its root is an empty read-only directory.
    pub empty_root: bool,
    /// Its user id on the host.
    pub uid: u32,
    /// Its group id on the host.
    pub gid: u32,
    /// Capabilities it still has, a bit each (capabilities(7)).
    pub capabilities: u64,
    /// Whether no program it executes could gain privileges.
    pub no_new_privileges: bool,
    /// Its system call filters, one for each kind of thread.
    pub filters: Vec<FilterSize>,
    /// What could not be had on this host, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
}

/// A system call that was refused (EPERM).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// Its name.
    pub call: String,
    /// How often.
    pub times: u64,
}

/// Size of a system call filter (seccomp(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilterSize {
    /// The threads it is for.
    pub thread: String,
    /// System calls it lets through, at least with some arguments.
    pub system_calls: u32,
    /// Instructions of the program.
    pub instructions: u32,
}

/// How a trial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Ready, measured, stopped, nothing left behind.
    Ok,
    /// Not ready in time.
    Timeout,
    /// The workload ended before it was ready, or with the wrong exit code.
    Exited,
    /// The workload's program could not be executed.
    ExecFailed,
    /// Killed for want of memory.
    Oom,
    /// The backend could not start or run it.
    BackendFailed,
    /// The guest's kernel panicked, reset or halted.
    GuestCrashed,
    /// Something was left behind.
    Leaked,
    /// Cut short by a signal.
    Interrupted,
}

/// How a workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum Exit {
    /// It exited.
    Code {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// The kernel killed it for want of memory.
    Oom,
    /// `execve` of the program failed.
    ExecFailed {
        /// The error number (errno(3)).
        errno: i32,
        /// The program.
        path: String,
    },
    /// A step before `execve` failed inside the container or the guest.
    SetupFailed {
        /// The step.
        step: String,
        /// The error number, 0 where there is none.
        errno: i32,
    },
    /// The guest's kernel panicked, reset or halted.
    GuestCrashed {
        /// What the monitor saw.
        reason: String,
    },
    /// The monitor itself failed.
    MonitorFailed {
        /// What it said.
        reason: String,
    },
}

/// Nanoseconds since the backend was asked to start, on the host's monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsNs {
    /// Always 0: the request.
    pub t0: u64,
    /// See [`Phase::Created`].
    pub created: Option<u64>,
    /// See [`Phase::Kernel`]; none for a container.
    pub kernel: Option<u64>,
    /// See [`Phase::Init`].
    pub init: Option<u64>,
    /// See [`Phase::Exec`]; none for a restored instance.
    pub exec: Option<u64>,
    /// See [`Phase::Ready`].
    pub ready: Option<u64>,
    /// When the stop was asked for: the start of the way to `stopped`.
    pub stop: Option<u64>,
    /// See [`Phase::Stopped`].
    pub stopped: Option<u64>,
    /// See [`Phase::Gone`]; none in records made before it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<u64>,
}

impl EventsNs {
    /// The time of a phase.
    pub fn get(&self, phase: Phase) -> Option<u64> {
        match phase {
            Phase::Created => self.created,
            Phase::Kernel => self.kernel,
            Phase::Init => self.init,
            Phase::Exec => self.exec,
            Phase::Ready => self.ready,
            Phase::Stopped => self.stopped,
            Phase::Gone => self.gone,
        }
    }

    /// Sets the time of a phase; the first time stays.
    pub fn set(&mut self, phase: Phase, ns: u64) {
        let place = match phase {
            Phase::Created => &mut self.created,
            Phase::Kernel => &mut self.kernel,
            Phase::Init => &mut self.init,
            Phase::Exec => &mut self.exec,
            Phase::Ready => &mut self.ready,
            Phase::Stopped => &mut self.stopped,
            Phase::Gone => &mut self.gone,
        };
        place.get_or_insert(ns);
    }
}

/// Memory of one instance once ready and settled, bytes. `None` could not be taken; the record's
/// `unavailable` says why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Resident set of all host processes of the instance (`smaps_rollup` Rss).
    pub rss_bytes: Option<u64>,
    /// Their proportional share of it (Pss).
    pub pss_bytes: Option<u64>,
    /// What is theirs alone (Private_Clean + Private_Dirty).
    pub uss_bytes: Option<u64>,
    /// Resident memory of the monitor outside the mapping of guest RAM; none for a container.
    pub vmm_overhead_bytes: Option<u64>,
    /// What the instance's own cgroup is charged.
    pub cgroup_current_bytes: Option<u64>,
    /// The most it was ever charged.
    pub cgroup_peak_bytes: Option<u64>,
    /// `cgroup_current_bytes` by kind.
    pub cgroup_split: MemorySplit,
    /// MemTotal − MemAvailable inside the guest; none for a container.
    pub guest_used_bytes: Option<u64>,
}

/// A cgroup's charge by kind, bytes (`memory.stat`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySplit {
    /// Anonymous memory.
    pub anon_bytes: Option<u64>,
    /// Page cache, tmpfs included.
    pub file_bytes: Option<u64>,
    /// Kernel memory, all kinds.
    pub kernel_bytes: Option<u64>,
    /// Page tables.
    pub pagetables_bytes: Option<u64>,
    /// Page tables of virtual machines (`sec_pagetables`).
    pub sec_pagetables_bytes: Option<u64>,
    /// Slab.
    pub slab_bytes: Option<u64>,
    /// Socket buffers.
    pub sock_bytes: Option<u64>,
}

/// A guest's view of its own memory (`/proc/meminfo`), bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestFacts {
    /// RAM given to the machine.
    pub ram_bytes: u64,
    /// MemTotal: RAM less what the kernel reserved at boot.
    pub total_bytes: Option<u64>,
    /// MemAvailable.
    pub available_bytes: Option<u64>,
    /// MemFree.
    pub free_bytes: Option<u64>,
    /// Slab.
    pub slab_bytes: Option<u64>,
    /// Page cache (Cached).
    pub cached_bytes: Option<u64>,
}

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Bytes.
    Bytes,
}

/// Statistics of one figure of one backend in one start mode over its `ok` trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Name of the backend.
    pub backend: String,
    /// Start mode.
    pub start: String,
    /// Name of the figure: a field of `events_ns` or of `memory`, without its unit's suffix.
    pub figure: String,
    /// Number of values.
    pub n: u32,
    /// Median.
    pub median: f64,
    /// Bootstrap 95 % confidence interval of the median.
    pub ci95: [f64; 2],
    /// 5th percentile.
    pub p5: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Median absolute deviation.
    pub mad: f64,
    /// Indices of trials that stand out (modified z-score above 3.5). They are kept.
    pub outliers: Vec<u32>,
    /// Unit of all of these.
    pub unit: Unit,
}

/// One figure of two backends, or of two start modes of one, set against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Name of the figure.
    pub figure: String,
    /// The base: a backend, and behind it the start mode where it is not `cold`.
    pub base: String,
    /// The other, likewise.
    pub other: String,
    /// `other` − `base`, medians.
    pub difference: f64,
    /// Bootstrap 95 % confidence interval of the difference.
    pub difference_ci95: [f64; 2],
    /// `other` ÷ `base`, medians.
    pub ratio: f64,
    /// Bootstrap 95 % confidence interval of the ratio.
    pub ratio_ci95: [f64; 2],
    /// Unit of the difference.
    pub unit: Unit,
}

/// A figure that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Unavailable {
    /// Name of the figure or fact.
    pub figure: String,
    /// The backend it is missing for, and behind it the start mode where it is missing in that one
    /// alone; none where it is a fact of the host.
    pub backend: Option<String>,
    /// Why.
    pub reason: String,
}
