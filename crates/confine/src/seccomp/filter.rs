//! A compiled filter and its installation.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use libc::{c_int, c_ulong, sock_filter, sock_fprog};

use crate::Error;

/// A program for the kernel, and which system calls it can let through.
#[derive(Debug, Clone)]
pub struct Filter {
    program: Vec<sock_filter>,
    calls: Vec<u32>,
}

impl Filter {
    pub(super) fn new(program: Vec<sock_filter>, calls: Vec<u32>) -> Self {
        Self { program, calls }
    }

    /// A program made elsewhere; which calls it lets through is not known.
    pub fn from_instructions(program: Vec<sock_filter>) -> Self {
        Self { program, calls: Vec::new() }
    }

    /// The instructions, first to last.
    pub fn instructions(&self) -> &[sock_filter] {
        &self.program
    }

    /// Numbers of the calls that are made at least with some arguments, in order.
    pub fn system_calls(&self) -> &[u32] {
        &self.calls
    }

    /// Subjects the calling thread, and those it starts from now on, to the filter for good. Takes
    /// the possibility of gaining privileges with it (`no_new_privs`), which the kernel demands.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn install(&self) -> Result<(), Error> {
        self.set(0).map(drop)
    }

    /// The same for every thread of the process at once.
    ///
    /// # Errors
    /// The kernel refuses, or a thread has a filter of its own already. No thread has this one then.
    pub fn install_in_all_threads(&self) -> Result<(), Error> {
        match self.set(libc::SECCOMP_FILTER_FLAG_TSYNC)? {
            0 => Ok(()),
            thread => Err(Error::ThreadDiffers { thread: thread as i32 }),
        }
    }

    /// The same as [`Filter::install`], and gives the descriptor for the [`super::Listener`] that
    /// [`super::Action::Notify`] needs. Allocates nothing.
    ///
    /// # Errors
    /// The kernel refuses, or there is a listener above this thread already.
    pub fn install_with_listener(&self) -> Result<OwnedFd, Error> {
        let fd = self.set(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
        // SAFETY: with this flag the kernel returns a new descriptor, which nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    fn set(&self, flags: c_ulong) -> Result<libc::c_long, Error> {
        crate::jail::no_new_privileges()?;
        let program = sock_fprog {
            // At most BPF_MAXINSNS, which the compiler saw to; of a longer one the kernel refuses
            // what is left.
            len: self.program.len().try_into().unwrap_or(u16::MAX),
            filter: self.program.as_ptr().cast_mut(),
        };
        let mode = libc::SECCOMP_SET_MODE_FILTER as c_int;
        // SAFETY: seccomp(2) reads a sock_fprog and the `len` instructions it points to, all of
        // which live in this frame and in `self`, and writes to neither.
        match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) } {
            -1 => Err(Error::system("install the system call filter")(io::Error::last_os_error())),
            result => Ok(result),
        }
    }
}
