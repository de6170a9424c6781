//! A mount namespace for this program's own thread, so that no mount it makes is seen elsewhere or
//! outlives it.

use std::io;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Moves the calling thread, and no other, into a new mount namespace from which no mount is passed
/// on (mount_namespaces(7)). There is no way back.
///
/// # Errors
/// The kernel refuses (CAP_SYS_ADMIN).
pub fn enter_private_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}
