//! The system calls of the child for which neither libc nor nix will do. glibc's setuid(2),
//! setgid(2) and setgroups(2) signal every thread it remembers, and the child, a copy of a process
//! with threads, remembers threads it does not have: here they are made raw. Nothing allocates.
#![allow(unsafe_code)] // raw system calls; each wrapper is safe for every argument it can be given.

use std::{ffi::CStr, mem, os::fd::RawFd, ptr};

use nix::errno::Errno;

/// The result of a system call that tells nothing but success.
fn done(result: libc::c_long) -> Result<(), Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(()) }
}

pub(crate) fn setgroups(groups: &[libc::gid_t]) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many group ids as the slice holds.
    done(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// Real, effective and saved.
pub(crate) fn setgid(gid: libc::gid_t) -> Result<(), Errno> {
    // SAFETY: three integers.
    done(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
}

/// Real, effective and saved.
pub(crate) fn setuid(uid: libc::uid_t) -> Result<(), Errno> {
    // SAFETY: three integers.
    done(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

pub(crate) fn sethostname(name: &str) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many bytes as the string has.
    done(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())
}

/// One of the prctl(2) operations that take one integer.
pub(crate) fn prctl(operation: libc::c_int, argument: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the callers' operations take integers only; unused ones are 0, as some demand.
    done(unsafe { libc::prctl(operation, argument, 0, 0, 0) }.into())
}

/// PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL.
pub(crate) fn clear_ambient() -> Result<(), Errno> {
    // SAFETY: integers only.
    done(
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }
            .into(),
    )
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

/// _LINUX_CAPABILITY_VERSION_3.
const CAP_VERSION: u32 = 0x2008_0522;

/// Keeps of the permitted capabilities those in `mask`, makes them effective, and none inheritable
/// (capset(2)).
pub(crate) fn keep_capabilities(mask: u64) -> Result<(), Errno> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: header and data have the layout of version 3, which the header names.
    done(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    for (half, mask) in data.iter_mut().zip([mask as u32, (mask >> 32) as u32]) {
        half.permitted &= mask;
        half.effective = half.permitted;
        half.inheritable = 0;
    }
    // SAFETY: as above; the kernel only reads.
    done(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
}

/// A session keyring of its own, so that the host's keys are out of reach (keyctl(2)).
pub(crate) fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = ptr::null::<libc::c_char>();
    // SAFETY: a null name is allowed and asks for an anonymous keyring.
    done(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) })
}

/// Closes every descriptor from `first` on (close_range(2), Linux 5.9). The caller's `OwnedFd`s of
/// them are dead after it: only for a process that never drops them.
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: three integers. That nothing owned is used afterwards is the child's concern: it
    // ends in execve or _exit and runs no destructors.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })
}

/// Makes `to` the same as `from`, open across execve unless `flags` say otherwise.
pub(crate) fn duplicate(from: RawFd, to: RawFd, flags: libc::c_int) -> Result<(), Errno> {
    if from == to {
        return Ok(());
    }
    // SAFETY: three integers; see `close_from` for what becomes of the old `to`.
    done(unsafe { libc::dup3(from, to, flags) }.into())
}

/// The same file under the lowest free number from `least` on, closed by execve.
pub(crate) fn duplicate_above(from: RawFd, least: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: three integers.
    let fd = unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, least) };
    if fd < 0 { Err(Errno::last()) } else { Ok(fd) }
}

/// Room for a cmsghdr and one int, aligned as cmsg(3) wants it.
type Control = [u64; 4];

/// A message of one part and with control data, to or from whoever the socket is connected to.
fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeroes are a valid msghdr: nothing, to nobody.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut *part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of::<Control>();
    message
}

/// Sends a descriptor through a Unix socket (unix(7), SCM_RIGHTS), with one byte.
pub(crate) fn send_descriptor(socket: RawFd, fd: RawFd) -> Result<(), Errno> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control::default();
    let mut message = message(&mut part, &mut control);
    // SAFETY: plain arithmetic on a length.
    let (space, len) = unsafe {
        let size = mem::size_of::<RawFd>() as u32;
        (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size) as usize)
    };
    message.msg_controllen = space.min(mem::size_of_val(&control));
    // SAFETY: `control` is large enough for the header that CMSG_FIRSTHDR finds at its start, and for
    // an int behind it; the kernel reads what `message` points to, all of it in this frame.
    done(unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = len;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) as libc::c_long
    })
}

/// Takes a descriptor that [`send_descriptor`] sent.
pub(crate) fn receive_descriptor(socket: RawFd) -> Result<RawFd, Errno> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control::default();
    let mut message = message(&mut part, &mut control);
    // SAFETY: the kernel writes to what `message` points to, all of it in this frame.
    let got = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    done(got as libc::c_long)?;
    // SAFETY: the kernel has set the length of `control`, within which CMSG_FIRSTHDR stays.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    match header {
        Some(header) if header.cmsg_type == libc::SCM_RIGHTS => {
            // SAFETY: behind such a header lies at least one descriptor.
            Ok(unsafe { libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned() })
        }
        _ => Err(Errno::EBADMSG),
    }
}

/// Puts a signal's action back to its default (signal(7): an ignored signal stays ignored across
/// execve). Raw, since glibc refuses the two real-time signals it keeps to itself.
pub(crate) fn default_signal(number: libc::c_int) -> Result<(), Errno> {
    // `struct sigaction` of asm/signal.h: handler (SIG_DFL), flags, restorer, mask.
    let action = [0_u64; 4];
    let none = ptr::null_mut::<u64>();
    let set_bytes = mem::size_of::<u64>();
    // SAFETY: `action` has the kernel's layout on x86-64, the old action is not asked for, and the
    // kernel's signal set is 8 bytes.
    done(unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), none, set_bytes) })
}

/// Opens a file for reading without following magic links such as `/proc/self/exe` (openat2(2),
/// RESOLVE_NO_MAGICLINKS: ELOOP).
pub(crate) fn open_without_magic(path: &CStr) -> Result<RawFd, Errno> {
    // SAFETY: all zeroes are a valid open_how.
    let mut how: libc::open_how = unsafe { mem::zeroed() };
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
    how.resolve = libc::RESOLVE_NO_MAGICLINKS;
    let size = mem::size_of::<libc::open_how>();
    // SAFETY: `path` ends in NUL, and `how` has the size given.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), &raw mut how, size)
    };
    if fd < 0 { Err(Errno::last()) } else { Ok(fd as RawFd) }
}

/// setrlimit(2) of this process.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let (this, none) = (0, ptr::null_mut::<libc::rlimit64>());
    // SAFETY: the kernel reads a rlimit64, and the old one is not asked for.
    done(unsafe { libc::syscall(libc::SYS_prlimit64, this, resource, &raw const limit, none) })
}

/// A mount of this directory, nowhere yet (open_tree(2), OPEN_TREE_CLONE; Linux 5.2); with
/// AT_RECURSIVE, of those below it too.
pub(crate) fn open_tree(path: &CStr, more: libc::c_int) -> Result<RawFd, Errno> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | more as libc::c_uint;
    // SAFETY: `path` ends in NUL.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 { Err(Errno::last()) } else { Ok(fd as RawFd) }
}

/// Puts a mount of [`open_tree`] on a directory (move_mount(2)).
pub(crate) fn move_mount(fd: RawFd, path: &CStr) -> Result<(), Errno> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    let (here, to, flags) = (c"".as_ptr(), path.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: both paths end in NUL.
    done(unsafe { libc::syscall(libc::SYS_move_mount, fd, here, libc::AT_FDCWD, to, flags) })
}

/// Reads and closes.
pub(crate) fn read_and_close(fd: RawFd, buffer: &mut [u8]) -> usize {
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    // SAFETY: `fd` is the caller's, who gives it up.
    unsafe { libc::close(fd) };
    usize::try_from(got).unwrap_or(0)
}

/// execve(2): returns only the error.
///
/// # Safety
/// `argv` and `envp` hold pointers to strings that end in NUL, and end in a null pointer.
pub(crate) unsafe fn execve(
    program: &CStr,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
) -> Errno {
    // SAFETY: `program` ends in NUL; the arrays are the caller's promise.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Errno::last()
}

/// readlink(2), of which only success or failure counts.
pub(crate) fn readlink(path: &CStr, target: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: `path` ends in NUL, and the buffer is writable for its length.
    done(unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) }
        as libc::c_long)
}
