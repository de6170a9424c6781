//! System calls made directly, for code that runs where there is no C library or where none of its
//! state may be touched: in the guest's PID 1, and in a container's child between clone and exec.
//! Besides the call itself, what both do by it: setting up a network interface.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod call;
mod configure;
mod interface;

pub use call::{Errno, Result, call};
pub use configure::{Control, Neighbour, Settings, Step, StepError, configure, request};
pub use interface::{Interface, NameError};
