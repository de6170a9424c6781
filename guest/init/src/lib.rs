//! PID 1 of the microVM, all but what a program without the standard library needs besides (`main.rs`):
//! so that its parts have tests, which run with it. It marks that it runs, builds the workload's world,
//! starts the workload, and then does what is left for the first process: it buries orphans, passes
//! signals on, answers what is asked of the guest, and cuts the power when the workload has ended.
//!
//! ```text
//!  kernel ─► Init frame ─► root ─► host name ─► network ─► settings ─► Exec frame ─► execve
//!                    any step fails: Failed frame ─► PowerOff frame
//!  then: SIGCHLD ─► reap; the workload itself ─► Exited frame ─► drain console ─► PowerOff frame
//!        control byte on the console ─► signal the workload, Report frame, or be saved
//! ```
//! The monitor ends the machine at PowerOff: nothing has to be unmounted or synced, since nothing
//! of this machine outlives it.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod attend;
mod failure;
mod heap;
mod identity;
mod monitor;
mod network;
mod report;
mod root;
mod sys;
mod workload;

pub use attend::{main, panic};
pub use heap::Heap;
