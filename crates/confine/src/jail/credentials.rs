//! User, groups and capabilities (credentials(7), capabilities(7)).
#![allow(unsafe_code)]

use std::{io, ptr};

use libc::c_ulong;

use super::sys::{prctl, result};
use crate::{Confinement, Error, Lack, Part};

/// First of the user ids that processes give themselves: this and their process id. Distributions
/// leave 1879048192 to 2147352575 unassigned (systemd, "Users, Groups, UIDs and GIDs"), and process
/// ids end at 4194304 (proc(5), pid_max).
pub const FIRST_UID: u32 = 0x7000_0000;
/// `nobody`, for where a user namespace has no more ids than the usual 65536.
const NOBODY: u32 = 65534;

/// Who a process becomes that is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// A user and a group that nobody else is, while it lives: [`FIRST_UID`] and its process id. Of
    /// the same user, two of them could send each other signals and look into each other.
    #[default]
    OfProcess,
    /// This user and group.
    Of {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Leaves all groups and becomes `identity`, if `root`. Tells what could not be had.
pub(super) fn become_other(root: bool, identity: Identity) -> Result<Vec<Lack>, Error> {
    let mut lacks = Vec::new();
    if root {
        if let Err(error) = set_no_groups() {
            lacks.push(Lack { part: Part::Groups, errno: refused(error, "leave all groups")? });
        }
        let own = FIRST_UID.saturating_add(std::process::id());
        let (uid, gid) = match identity {
            Identity::OfProcess => (own, own),
            Identity::Of { uid, gid } => (uid, gid),
        };
        let mut became = set_ids(uid, gid);
        let outside = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
        if became.as_ref().is_err_and(outside) {
            became = set_ids(NOBODY, NOBODY);
        }
        if let Err(error) = became {
            let errno = refused(error, "become an unprivileged user")?;
            lacks.push(Lack { part: Part::Identity, errno });
        }
    } else {
        lacks.push(Lack { part: Part::Identity, errno: libc::EPERM });
        if count_groups()? > 0 {
            lacks.push(Lack { part: Part::Groups, errno: libc::EPERM });
        }
    }
    Ok(lacks)
}

/// The error number of what only privileges would have given; else the error.
fn refused(error: io::Error, attempt: &'static str) -> Result<i32, Error> {
    match error.raw_os_error() {
        Some(errno @ (libc::EPERM | libc::EINVAL)) => Ok(errno),
        _ => Err(Error::system(attempt)(error)),
    }
}

fn set_no_groups() -> io::Result<()> {
    let none = ptr::null::<libc::gid_t>();
    // SAFETY: of an empty list nothing is read.
    result(unsafe { libc::syscall(libc::SYS_setgroups, 0, none) }).map(drop)
}

/// Real, effective and saved. The group first: as another user it may no longer.
fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: three integers.
    result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: three integers.
    result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

fn count_groups() -> Result<u32, Error> {
    // SAFETY: with a size of 0 only the number is asked for.
    let count = result(unsafe { libc::getgroups(0, ptr::null_mut()) }.into());
    count.map(|count| count as u32).map_err(Error::system("count the groups"))
}

/// Within: the error number where it may not (CAP_SETPCAP).
pub(super) fn empty_bounding_set() -> Result<Result<(), i32>, Error> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(_) => {}
            Err(error) => {
                return match error.raw_os_error() {
                    // Beyond the last one this kernel knows.
                    Some(libc::EINVAL) => Ok(Ok(())),
                    Some(libc::EPERM) => Ok(Err(libc::EPERM)),
                    _ => Err(Error::system("empty the bounding set")(error)),
                };
            }
        }
    }
    Ok(Ok(()))
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, of which version 3 takes two: low and high 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION: u32 = 0x2008_0522;

/// Drops the effective, permitted, inheritable and, with them, ambient capabilities.
pub(super) fn drop_capabilities() -> Result<(), Error> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let none = [CapData::default(); 2];
    // SAFETY: header and data have the layout of version 3, which the header names.
    result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) })
        .map(drop)
        .map_err(Error::system("drop all capabilities"))
}

/// Permitted capabilities, a bit each.
fn capabilities() -> Result<u64, Error> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: as above; the kernel writes both entries of `data`.
    result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })
        .map_err(Error::system("read the capabilities"))?;
    Ok(u64::from(data[1].permitted) << 32 | u64::from(data[0].permitted))
}

/// Fills in what the kernel says of the process now.
pub(super) fn describe(got: &mut Confinement) -> Result<(), Error> {
    got.capabilities = capabilities()?;
    got.groups = count_groups()?;
    got.no_new_privileges = flag(libc::PR_GET_NO_NEW_PRIVS)?;
    got.dumpable = flag(libc::PR_GET_DUMPABLE)?;
    Ok(())
}

fn flag(operation: libc::c_int) -> Result<bool, Error> {
    let zero: c_ulong = 0;
    prctl(operation, zero).map(|value| value == 1).map_err(Error::system("read a flag"))
}

/// Effective user and group.
pub(super) fn ids() -> (u32, u32) {
    // SAFETY: neither takes anything or can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}
