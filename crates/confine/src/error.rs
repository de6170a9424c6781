//! What confining can fail at. None of it is passed over in silence: a process that cannot confine
//! itself as it was told to does not go on; what it may do without is told as a
//! [`Lack`](crate::Lack) instead.

use std::io;

/// A filter that cannot be compiled or a step of confinement that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call is on the list twice.
    #[error("filter: {call} is on the list twice")]
    Twice {
        /// Its name.
        call: String,
    },
    /// A condition makes no sense.
    #[error("filter: {call}: {problem}")]
    Condition {
        /// Name of the system call.
        call: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The program is longer than the kernel takes.
    #[error("filter: {instructions} instructions are more than the {most} the kernel takes")]
    TooLong {
        /// Its length.
        instructions: usize,
        /// `BPF_MAXINSNS`.
        most: usize,
    },
    /// Another thread has a filter that is not part of this one's history, so that not all could
    /// be given the same.
    #[error("install the filter in every thread: thread {thread} has another")]
    ThreadDiffers {
        /// Its id.
        thread: i32,
    },
    /// The process has other threads, which what it does to itself would not reach.
    #[error("enter the jail: the process has more than one thread")]
    NotAlone,
    /// The process this one was to die with died meanwhile.
    #[error("enter the jail: the parent process is gone")]
    ParentGone,
    /// A system call failed.
    #[error("{attempt}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// The error number of a failed system call.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// A failed system call.
    pub(crate) fn system(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { attempt, source }
    }
}
