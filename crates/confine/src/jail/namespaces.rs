//! Namespaces of the process's own. Not among them: a PID namespace, which only children would be in
//! (there are none); a cgroup and a time namespace, which hide what an empty root hides already; a
//! network namespace, which costs more than all else together and hides nothing from a process that
//! may not make sockets. Those that share a [`Room`](super::Room) have that one too.
#![allow(unsafe_code)]

use std::io;

use super::{root, sys::result};
use crate::{Error, Namespace};

/// Moves the process into new namespaces and an empty root; with `user`, as the owner of a user
/// namespace, which needs no privilege where the host lets users have any. In it the process has no
/// user id: everything it may still use is open.
///
/// Within: the error number where the host does not let it.
pub(super) fn unshare(user: bool) -> Result<Result<Vec<Namespace>, i32>, Error> {
    let mut kinds = vec![Namespace::Mount, Namespace::Ipc, Namespace::Uts];
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if user {
        kinds.push(Namespace::User);
        flags |= libc::CLONE_NEWUSER;
    }
    // CLONE_THREAD changes nothing for a process of one thread and fails for any other: namespaces
    // and credentials are each thread's own (unshare(2)).
    // SAFETY: unshare(2) takes flags; none of these concerns memory or descriptors.
    match result(unsafe { libc::unshare(flags | libc::CLONE_THREAD) }.into()) {
        Ok(_) => {}
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::EINVAL) if !alone() => Err(Error::NotAlone),
                // Refused, by a capability, a limit (/proc/sys/user) or a kernel without.
                Some(
                    errno @ (libc::EPERM
                    | libc::EACCES
                    | libc::ENOSPC
                    | libc::EUSERS
                    | libc::EINVAL),
                ) => Ok(Err(errno)),
                _ => Err(Error::system("make namespaces")(error)),
            };
        }
    }
    match root::make_empty() {
        Ok(()) => Ok(Ok(kinds)),
        // A security module may let a user namespace be made and forbid everything in it.
        Err(Error::System { source, .. }) if user && denied(&source) => {
            Ok(Err(source.raw_os_error().unwrap_or(libc::EPERM)))
        }
        Err(error) => Err(error),
    }
}

fn denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// Whether the process has one thread.
fn alone() -> bool {
    // SAFETY: unshare(2) takes flags; this one alone does nothing but fail.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}
