//! A network namespace for this program's own thread: whatever links it makes are out of the
//! host's sight and vanish with it, however it ends.

use std::{fs, io};

use nix::sched::{CloneFlags, unshare};

use crate::{Control, Interface, NetError};

/// Moves the calling thread, and no other, into a new network namespace with loopback up. Threads
/// and processes it starts later are in it too. There is no way back.
///
/// # Errors
/// The kernel refuses (CAP_SYS_ADMIN), or loopback cannot be brought up.
pub fn enter_private_netns() -> Result<(), NetError> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| NetError::Namespace { source: error.into() })?;
    // Links of ours have IPv4 addresses alone: the kernel need not make up others for them, and look
    // for duplicates and routers. A kernel without IPv6 has no such file.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let lo = Interface::LOOPBACK;
    Control::open()
        .and_then(|control| control.bring_up(&lo))
        .map_err(|error| NetError::configure(&lo, error))
}

/// The names of all interfaces in the calling thread's network namespace (if_nameindex(3)).
///
/// # Errors
/// The kernel cannot list them.
pub fn links() -> io::Result<Vec<String>> {
    let list = nix::net::if_::if_nameindex()?;
    Ok((&list).into_iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
}
