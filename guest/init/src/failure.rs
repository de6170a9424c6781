//! A step of PID 1 that failed: what the monitor is told of it.

use alloc::{borrow::ToOwned, string::String};

use crate::sys::{self, Errno};

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// The step in words: `mount the root disk`, `execve /bin/true`.
    pub step: String,
    /// Why.
    pub errno: Errno,
}

/// Names the step that a result belongs to.
pub fn step<T>(name: &str, result: sys::Result<T>) -> Result<T, Failure> {
    result.map_err(|errno| Failure { step: name.to_owned(), errno })
}
