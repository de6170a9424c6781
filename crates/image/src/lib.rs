//! Everything a run needs before anything is started, made once and cached by content: the root
//! file system of a workload (one tree, one EROFS image made from it), the guest kernel, the
//! initramfs archives, and the kernel and disk of the emulated host.
//!
//! ```text
//!  workload ──► prepare ───────► Image   ┐
//!  guest/kernel ► guest_kernel ► vmlinux ├─► backends, lab
//!  apt ─────────► lab_kernel, lab_disk   ┘
//!            all through Cache: one directory per key, complete or absent
//! ```

mod apt;
mod bzimage;
mod cache;
mod copy;
pub mod cpio;
mod elf;
mod erofs;
mod error;
mod guest_kernel;
mod in_place;
mod lab;
mod libraries;
mod manifest;
mod packages;
mod prepare;
mod program;
mod progress;
mod requirement;
mod rooted;
mod skeleton;
mod tree;
mod user;
mod vmlinux;
mod workloads;

pub use cache::{Cache, Entry, Kind, Recipe};
pub use cpio::init_archive;
pub use error::{Error, Result};
pub use guest_kernel::guest_kernel;
pub use in_place::in_place;
pub use lab::{LabKernel, lab_disk, lab_kernel};
pub use manifest::{Manifest, PackageVersion};
pub use prepare::{Options, Prepared, prepare, verify};
pub use progress::{Progress, Silent};
pub use requirement::{Purpose, Requirement, check_packages, install_command, required_packages};
pub use tree::{TreeFacts, file_digest, tree_digest};
pub use user::{User, resolve_user};
pub use vmlinux::{KernelArtefact, check_kernel};
pub use workloads::{builtin, load};

#[cfg(test)]
mod testing;
