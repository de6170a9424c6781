//! Confinement: what a process takes from itself before it lets anybody's guest run.
//!
//! ```text
//!  everything is open, one thread ─► Jail::enter ─► threads start ─► each installs its Filter ─► guest
//!                                     │ namespaces, empty root, own uid,      │ a list of calls
//!                                     │ no capabilities, limits               │ compiled to a tree
//!                                     └────────────► Confinement (plain data for the record) ◄─┘
//! ```
//! [`seccomp`] compiles lists of system calls to filters and knows nothing of who uses them, [`jail`]
//! does the rest, and [`monitor`] holds the lists of the microVM's monitor.

mod error;
pub mod inject;
pub mod jail;
pub mod monitor;
pub mod seccomp;
mod summary;

pub use error::Error;
pub use jail::{Identity, Jail, Room};
pub use summary::{Confinement, FilterSize, Lack, Namespace, Part};
