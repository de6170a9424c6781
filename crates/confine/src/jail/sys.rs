//! The system calls for which the C library will not do, and the few prctl(2) operations in use.
//! glibc's own setuid(2) and its kin signal every thread; here there is one.
#![allow(unsafe_code)] // raw system calls; each wrapper is safe for every argument it can be given.

use std::io;

use libc::{c_int, c_long, c_ulong};

use crate::Error;

/// The result of a system call.
pub(super) fn result(value: c_long) -> io::Result<c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A prctl(2) operation that takes integers.
pub(super) fn prctl(operation: c_int, argument: c_ulong) -> io::Result<c_long> {
    // SAFETY: the operations in use take integers only; unused ones are 0, as some demand.
    result(unsafe { libc::prctl(operation, argument, 0, 0, 0) }.into())
}

pub(super) fn effective_uid() -> u32 {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// From now on execve(2) gives nothing that the process does not have already.
pub(crate) fn no_new_privileges() -> Result<(), Error> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop).map_err(Error::system("set no_new_privs"))
}

pub(super) fn set_dumpable(dumpable: bool) -> Result<(), Error> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into())
        .map(drop)
        .map_err(Error::system("set whether the process is dumpable"))
}

/// The process that this one was set to die with, if any.
pub(super) struct Parent {
    pid: i32,
    signal: c_int,
}

impl Parent {
    pub(super) fn now() -> Result<Self, Error> {
        let mut signal: c_int = 0;
        // SAFETY: PR_GET_PDEATHSIG writes one int through the pointer, which is to a live one.
        result(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) }.into())
            .map_err(Error::system("read the signal of the parent's death"))?;
        Ok(Self { pid: parent_pid(), signal })
    }

    /// Sets it anew: a change of credentials takes it away (prctl(2), PR_SET_PDEATHSIG).
    pub(super) fn die_with_it(&self) -> Result<(), Error> {
        if self.signal == 0 {
            return Ok(());
        }
        prctl(libc::PR_SET_PDEATHSIG, self.signal as c_ulong)
            .map_err(Error::system("set the signal of the parent's death"))?;
        // It may have died in between; then the process has another parent already.
        if parent_pid() == self.pid { Ok(()) } else { Err(Error::ParentGone) }
    }
}

fn parent_pid() -> i32 {
    // SAFETY: getppid(2) takes nothing and cannot fail.
    unsafe { libc::getppid() }
}
