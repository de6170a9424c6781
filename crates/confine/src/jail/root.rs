//! An empty read-only root. It is a file system of its own without a place on any disk: nothing is
//! made beforehand and nothing is left behind, since it goes with the mount namespace.
#![allow(unsafe_code)] // the mount calls of Linux 5.2 and pivot_root(2): the C library has none.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use libc::{c_long, c_uint};

use super::sys::result;
use crate::Error;

/// linux/mount.h.
const FSOPEN_CLOEXEC: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const FSMOUNT_CLOEXEC: c_uint = 1;
const MOUNT_ATTR_RDONLY: c_uint = 1;
const MOUNT_ATTR_NOSUID: c_uint = 2;
const MOUNT_ATTR_NODEV: c_uint = 4;
const MOUNT_ATTR_NOEXEC: c_uint = 8;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;

/// Makes it the root and the working directory of everything in the caller's mount namespace, which
/// must be its own, and takes the old root away.
///
/// A ramfs: there in every kernel, and cheaper to make than a tmpfs. It is mounted over the old root
/// itself, so that no directory has to exist anywhere.
pub(super) fn make_empty() -> Result<(), Error> {
    // Else taking the old root away would take it from the namespace it is a copy of too.
    mount(c"/", libc::MS_REC | libc::MS_PRIVATE).map_err(Error::system("make mounts private"))?;
    let root = detached().map_err(Error::system("make an empty file system"))?;
    // SAFETY: two descriptors (one the constant for none), two paths that end in NUL, flags.
    result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            root.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            c"/".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map_err(Error::system("mount an empty file system"))?;
    // SAFETY: an open descriptor.
    result(unsafe { libc::fchdir(root.as_raw_fd()) }.into())
        .map_err(Error::system("change to the empty root"))?;
    // pivot_root(2), `pivot_root(".", ".")`: the old root ends up on top and is taken off.
    // SAFETY: two paths that end in NUL.
    result(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })
        .map_err(Error::system("pivot to the empty root"))?;
    // SAFETY: a path that ends in NUL, and flags.
    result(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())
        .map_err(Error::system("detach the old root"))?;
    // SAFETY: a path that ends in NUL.
    result(unsafe { libc::chdir(c"/".as_ptr()) }.into())
        .map(drop)
        .map_err(Error::system("change to the root"))
}

/// Changes how a mount spreads.
fn mount(target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let none = ptr::null();
    // SAFETY: `target` ends in NUL; source, type and options are ignored for such flags.
    result(unsafe { libc::mount(none, target.as_ptr(), none, flags, ptr::null()) }.into()).map(drop)
}

/// The file system, mounted nowhere yet.
fn detached() -> io::Result<OwnedFd> {
    // SAFETY: a name that ends in NUL, and flags.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, c"ramfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let none = ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    result(unsafe {
        let fd = context.as_raw_fd();
        libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0)
    })?;
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    // SAFETY: an open descriptor and flags.
    owned(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes)
    })
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = result(fd)?;
    // SAFETY: the kernel has just returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
