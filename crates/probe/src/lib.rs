//! What is read from outside: whether an instance is ready, what memory it takes, and what machine
//! this is. The same readings for every backend, through the contract of `compare-backend`.

mod host;
mod http;
mod memory;
mod ready;
mod settle;

pub use host::{host_facts, unavailable_facts};
pub use memory::{MemoryReading, read_memory, read_peak};
pub use ready::{NotReady, RESOLUTION, Ready, resolution_ns, until_ready};
pub use settle::settle;
