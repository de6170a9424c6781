//! The other end of [`Action::Notify`]: the caller waits until this side has said what becomes of its
//! call (seccomp_unotify(2)).
#![allow(unsafe_code)]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use libc::{c_short, pollfd, seccomp_notif, seccomp_notif_resp};

#[cfg(doc)]
use super::Action;

/// Tells of calls that a filter leaves to this side. Once it is dropped, such calls fail with
/// `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// What there was to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The call of this number was refused.
    Refused(u32),
    /// Nothing now.
    Nothing,
    /// Nobody is left whom the filter holds.
    Over,
}

impl Listener {
    /// From [`super::Filter::install_with_listener`], wherever that was called.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Has the next waiting call fail with this error number. Never blocks.
    ///
    /// # Errors
    /// The kernel refuses; the call waits on.
    pub fn refuse_next(&self, errno: i32) -> io::Result<Notice> {
        // RECV would wait for a call.
        let mut asked = pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is passed and counted, and lives on this stack.
        match unsafe { libc::poll(&raw mut asked, 1, 0) } {
            -1 => return interrupted(io::Error::last_os_error()),
            0 => return Ok(Notice::Nothing),
            _ if asked.revents & libc::POLLIN as c_short != 0 => {}
            _ if asked.revents & libc::POLLHUP as c_short != 0 => return Ok(Notice::Over),
            // Interrupted.
            _ => return Ok(Notice::Nothing),
        }
        // SAFETY: all zeroes are a valid seccomp_notif, and what the kernel wants to find.
        let mut call: seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the request is that of the structure passed, which the kernel fills in.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) }
            != 0
        {
            return interrupted(io::Error::last_os_error());
        }
        let mut answer = seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags: 0 };
        // SAFETY: as above; the kernel only reads.
        let sent = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
        };
        match sent {
            0 => Ok(Notice::Refused(call.data.nr as u32)),
            _ => interrupted(io::Error::last_os_error()),
        }
    }
}

/// The caller may have died or been interrupted in between (ENOENT), and this side as well.
fn interrupted(error: io::Error) -> io::Result<Notice> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EINTR) => Ok(Notice::Nothing),
        _ => Err(error),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
