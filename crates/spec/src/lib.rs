//! Plain data that goes in and out of `compare`: the workload, the plan, the host's facts, the
//! events of a run and the record it leaves. Serde types and their validation, nothing else: every
//! other crate speaks in these terms, so none of them needs to know another.

mod container;
mod cpus;
mod digest;
mod event;
mod host;
mod image;
mod pages;
mod plan;
mod record;
mod root;
mod start;
mod units;
mod workload;

pub use container::ContainerVariant;
pub use cpus::{CpuSet, CpuSetError};
pub use digest::Digest;
pub use event::{Phase, RunEvent, Stage};
pub use host::{CgroupMode, Clock, HostFacts, HostKind, KvmKind};
pub use image::Image;
pub use pages::MemoryPages;
pub use plan::{Plan, Slot};
pub use record::{
    Artefacts, Comparison, Confinement, EventsNs, Exit, FilterSize, GuestFacts, ImageRecord,
    Memory, MemorySplit, Outcome, PlanRecord, ProbeRecord, Record, Refused, SCHEMA, Snapshot,
    Summary, ToolRecord, Trial, Unavailable, Unit,
};
pub use root::RootDevice;
pub use start::{Side, StartMode};
pub use units::{Bytes, Span, UnitError};
pub use workload::{
    Ceiling, File, GroupLimits, HttpReady, ImageSource, LogReady, Readiness, Resource, Signal,
    Timeouts, Unlimited, Workload, WorkloadError,
};
