//! The emulated host: a machine with AMD SVM, run by QEMU without hardware support, in which KVM is
//! real and an unmodified Linux guest boots. It serves whoever has no usable `/dev/kvm`, and gives
//! figures that repeat: with instruction-counted time one nanosecond of its clock is one instruction.
//!
//! ```text
//!  this machine                      emulated machine
//!  compare ── QEMU ── virtio console ── compare agent (PID 1) ── runner ── container, microVM
//!          requests ►                ◄ events, one JSON object a line
//! ```

pub mod inside;
mod machine;
mod protocol;

pub use machine::{Lab, LabError, LabFiles, QEMU, initramfs};
pub use protocol::{Event, Paths, Request};
