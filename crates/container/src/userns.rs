//! The user namespace of a container (user_namespaces(7)): which ids of the host stand for those
//! inside, and the image's files under the ids that they have inside.
//!
//! ```text
//!  parent                                     child (CLONE_NEWUSER: all rights, no id of its own)
//!  uid_map, gid_map ─ idmapped copy of the image's mount ─ SCM_RIGHTS ─► becomes root inside
//!                                                                       └► moves it over the tree
//! ```
#![allow(unsafe_code)] // mount_setattr(2)

use std::{
    ffi::CStr,
    fs::{self, File},
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::sys;

/// First of the host's ids that containers get: within those that are set aside for containers
/// (systemd, "Users, Groups, UIDs and GIDs": 524288 to 1879048191).
const FIRST_ID: u32 = 0x6000_0000;
/// Ids of each container.
const IDS: u32 = 1 << 16;
/// As many ranges fit.
const RANGES: u32 = 0x1000;

/// The host's id of root in the container in `slot`, whose ids no other living one has below slot
/// 4096.
pub(crate) fn first_id(slot: u32) -> u32 {
    FIRST_ID + slot % RANGES * IDS
}

/// Gives the user namespace of a process its ids.
pub(crate) fn map(pid: i32, first: u32) -> io::Result<()> {
    let line = format!("0 {first} {IDS}");
    fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    fs::write(format!("/proc/{pid}/gid_map"), &line)
}

/// A mount of this directory, nowhere yet, that shows its files under the ids they have in the user
/// namespace of a process (mount_setattr(2), MOUNT_ATTR_IDMAP; Linux 5.12, and the file system must
/// know of it).
pub(crate) fn mapped(tree: &CStr, pid: i32) -> io::Result<OwnedFd> {
    let tree = sys::open_tree(tree, 0)?;
    // SAFETY: a new descriptor, which nobody else owns.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    let namespace = File::open(format!("/proc/{pid}/ns/user"))?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    let size = mem::size_of::<libc::mount_attr>();
    let (here, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path ends in NUL, and the kernel reads a mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            here,
            flags,
            &raw const attributes,
            size,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}
