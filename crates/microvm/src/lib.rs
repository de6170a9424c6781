//! The microVM: a monitor of our own on KVM, and the backend that starts one monitor per instance.
//!
//! ```text
//!  MicrovmBackend::start ─clone into leaf, exec─► compare-vmm ─KVM_RUN─► guest kernel ─► PID 1 ─► workload
//!        ▲   ▲                                       │   │                                │
//!        │   └──── frames (pipe): Created, Kernel ◄──┘   │ stamps                         │
//!        │                        Init, Exec, Exited … ◄─┴── frames port ◄────────────────┘
//!        └──────── console (pipe) ◄── serial port;  control bytes ──► serial port
//! ```
//! [`machine`] is the recipe by which the monitor boots a machine, [`restore`] the one by which it goes
//! on with one that was saved ([`snapshot`]); [`layout`] holds every address of the machine.

mod acpi;
pub mod args;
mod assembly;
mod backend;
mod boot;
mod bus;
mod bzimage;
mod check;
mod cmdline;
mod confinement;
mod console;
mod cpuid;
mod devices;
mod disk;
pub mod ending;
mod error;
mod events;
pub mod frames;
mod guest;
mod identity;
mod initramfs;
mod instance;
mod kernel;
pub mod layout;
pub mod machine;
mod mapping;
mod memory;
mod mptable;
pub mod restore;
mod save;
pub mod snapshot;
mod spawn;
mod state;
mod trim;
mod vcpu;
mod vm;
mod watch;

pub use backend::{MicrovmBackend, MicrovmConfig};
pub use check::{KvmVerdict, kvm_check};
pub use cmdline::command_line;
pub use error::Error;
