//! System call filters: lists of what is allowed, compiled to classic BPF (seccomp(2);
//! Documentation/userspace-api/seccomp_filter.rst).
//!
//! ```text
//!  Policy (list) ──compile──► Filter (instructions) ──install──► the thread's every system call
//!                                                     kill ◄── other architecture
//!   tree over the numbers ─► ret allow                kill ◄── not on the list
//!                         └► tests of the arguments ─► ret allow │ ret default
//! ```
//! The kernel walks the program once for every number there is when it is installed, to learn which
//! calls need no look at their arguments, and again at every call that does: hence a tree.

mod assembler;
mod compile;
mod condition;
mod filter;
mod listener;
mod names;
mod policy;
#[cfg(test)]
mod tests;

pub use condition::{Argument, Condition, int, long};
pub use filter::Filter;
pub use listener::{Listener, Notice};
pub(crate) use names::described;
pub use names::{name, number};
pub use policy::{Action, Call, Policy};
