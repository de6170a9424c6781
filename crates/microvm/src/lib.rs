//! The microVM: a monitor of our own on KVM, and the backend that starts one monitor per instance.
//!
//! ```text
//!  MicrovmBackend::start ─clone into leaf, exec─► compare-vmm ─KVM_RUN─► guest kernel ─► PID 1 ─► workload
//!        ▲   ▲                                       │   │                                │
//!        │   └──── frames (pipe): Created, Kernel ◄──┘   │ stamps                         │
//!        │                        Init, Exec, Exited … ◄─┴── frames port ◄────────────────┘
//!        └──────── console (pipe) ◄── serial port;  control bytes ──► serial port
//! ```
//! [`machine`] is the recipe of the monitor; [`layout`] holds every address of the machine.

pub mod args;
mod backend;
mod boot;
mod bus;
mod check;
mod cmdline;
mod console;
mod cpuid;
pub mod ending;
mod error;
mod events;
pub mod frames;
mod guest;
mod initramfs;
mod instance;
mod kernel;
pub mod layout;
pub mod machine;
mod mapping;
mod memory;
mod mptable;
mod vcpu;
mod virtio;
mod vm;
mod watch;

pub use backend::{MicrovmBackend, MicrovmConfig};
pub use check::{KvmVerdict, kvm_check};
pub use cmdline::command_line;
pub use error::Error;
