//! Namespaces made once and entered by many: an empty read-only root, no network but a loopback
//! interface that is down, no IPC objects, a host name. Making such namespaces and letting them go
//! costs several times what entering them does. What is shared there is nothing: no process in it
//! may mount, make a socket or an IPC object, and each has a user id of its own.
//!
//! ```text
//!  tool: Room::make ── a thread of its own unshares, pivots, opens its namespaces, ends
//!          │ four descriptors
//!          ├──► monitor: Jail { room } .enter ─ setns ×4
//!          └──► monitor …                       the last descriptor or process gone: all gone
//! ```
#![allow(unsafe_code)] // setns, unshare.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    thread,
};

use super::{root, sys::result};
use crate::{Error, Namespace};

/// Kind, flag of clone(2), and name in `/proc/PID/ns`. The mount namespace last: with it goes `/proc`.
const KINDS: [(Namespace, libc::c_int, &str); 4] = [
    (Namespace::Ipc, libc::CLONE_NEWIPC, "ipc"),
    (Namespace::Net, libc::CLONE_NEWNET, "net"),
    (Namespace::Uts, libc::CLONE_NEWUTS, "uts"),
    (Namespace::Mount, libc::CLONE_NEWNS, "mnt"),
];

/// Namespaces to enter.
#[derive(Debug)]
pub struct Room([OwnedFd; 4]);

impl Room {
    /// Makes one. Needs CAP_SYS_ADMIN; the caller's own namespaces stay as they are.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make() -> Result<Self, Error> {
        let made = thread::Builder::new()
            .name("room".to_owned())
            .spawn(Self::make_here)
            .map_err(Error::system("start a thread"))?;
        made.join().unwrap_or_else(|_| {
            Err(Error::system("make a room")(io::Error::other("its thread panicked")))
        })
    }

    fn make_here() -> Result<Self, Error> {
        // Opened while there is a /proc; what is opened below it later is what the thread has then.
        let directory = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open("/proc/thread-self/ns")
            .map_err(Error::system("open /proc/thread-self/ns"))?;
        let flags = KINDS.iter().fold(0, |flags, (_, flag, _)| flags | flag);
        // SAFETY: unshare(2) takes flags; none of these concerns memory or descriptors.
        result(unsafe { libc::unshare(flags) }.into()).map_err(Error::system("make namespaces"))?;
        root::make_empty()?;
        let [ipc, net, uts, mount] = KINDS.map(|(_, _, name)| {
            open_at(&directory, name).map_err(Error::system("open a namespace"))
        });
        Ok(Self([ipc?, net?, uts?, mount?]))
    }

    /// The descriptors, to be passed on to a process that shall enter.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 4] {
        self.0.each_ref().map(AsFd::as_fd)
    }

    /// The room behind descriptors that were passed on, in the same order.
    pub fn from_descriptors(descriptors: [OwnedFd; 4]) -> Self {
        Self(descriptors)
    }

    /// Moves the process in, which must have one thread.
    pub(super) fn enter(self) -> Result<Vec<Namespace>, Error> {
        for (fd, (_, flag, _)) in self.0.iter().zip(KINDS) {
            // SAFETY: an open descriptor and a flag.
            result(unsafe { libc::setns(fd.as_raw_fd(), flag) }.into()).map_err(|error| {
                // Only a mount namespace asks for that (setns(2)).
                match error.raw_os_error() {
                    Some(libc::EINVAL) if flag == libc::CLONE_NEWNS => Error::NotAlone,
                    _ => Error::system("enter a namespace")(error),
                }
            })?;
        }
        Ok(KINDS.map(|(kind, _, _)| kind).to_vec())
    }
}

/// Opens a file below a directory.
fn open_at(directory: &File, name: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(name)?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: an open descriptor, a name that ends in NUL, and flags that create nothing.
    let fd = unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) };
    let fd = result(fd.into())? as libc::c_int;
    // SAFETY: the kernel has just returned a new descriptor, which nobody else owns.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}
