//! The contract every backend fulfils: start a workload, tell its phases as they happen, say how
//! it ended, and release everything. The runner and the probe know backends by this alone.

pub mod fake;
mod instance;
mod output;
mod reader;
mod timeline;

pub use instance::{Backend, Instance, StartError, StartRequest, Template};
pub use output::Output;
pub use reader::FrameReader;
pub use timeline::{Timeline, monotonic_ns};
