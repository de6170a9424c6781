//! Starting a process that is in a leaf from its first instruction on. Writing a process id into
//! `cgroup.procs` would do too, but blocks 8 to 16 ms on an idle host (it waits for an RCU grace
//! period): clone3(2) with `CLONE_INTO_CGROUP` on v2, and a single-threaded child that writes `0`
//! into `tasks` on v1, take well under 0.1 ms.
//!
//! ```text
//!  parent                           child
//!  open leaf dir / tasks ─ clone3 ──► die with the parent ─► join (v1) ─► the caller's closure
//!         ◄── pid, pidfd                                                      │ never returns:
//!  wait: waitid(P_PIDFD)  ◄────────────────────────────────────────────── exec or _exit(code)
//! ```
#![allow(unsafe_code)] // clone3, prctl, waitid on a pidfd: no safe wrapper makes a child of these.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use crate::Leaf;

/// Exit status of a child that could not join its leaf (v1) or whose parent had died already. No
/// shell uses it for a program's own failure.
pub const NOT_STARTED: i32 = 124;

/// A process started by [`clone_into`].
#[derive(Debug)]
pub struct Child {
    /// Its process id in this process's PID namespace. May be reused once [`Child::wait`] returned.
    pub pid: i32,
    /// Becomes readable when it ends (pidfd_open(2)).
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// Starts a process in `leaf`, with the namespaces in `flags` (`CLONE_NEW*`), that runs `child` and
/// exits with what it returns. Memory is copied on write, as by fork(2). Before `child` runs, the
/// process is set to die with the thread that started it (`PR_SET_PDEATHSIG`: keep that thread),
/// and signal handlers are back at their defaults (`CLONE_CLEAR_SIGHAND`).
///
/// # Safety
/// The new process has one thread, a copy of the caller. If this process has other threads, one of
/// them may have held any lock, the allocator's included, at that moment. `child` must therefore
/// only do what signal-safety(7) allows, must not allocate, free, print, panic or call wrappers
/// that glibc synchronises between threads (`setuid` and its kin: use the raw system calls), and
/// everything it uses must be prepared beforehand.
///
/// # Errors
/// The leaf's files cannot be opened, or clone3(2) fails.
pub unsafe fn clone_into(
    leaf: &Leaf,
    flags: u64,
    mut child: impl FnMut() -> i32,
) -> io::Result<Child> {
    let directory = leaf.directory_fd()?;
    let tasks = leaf.tasks_fds()?;
    let parent = pidfd_of_this()?;
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(directory) = &directory {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a clone_args of the size given, `pidfd` outlives the call, and without
    // CLONE_VM the child works on its own copy of this stack. What runs in the child keeps to
    // async-signal-safe calls: here below, and in `child` by this function's own contract.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, mem::size_of::<CloneArgs>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = if begin(&parent, &tasks) { child() } else { NOT_STARTED };
            // SAFETY: _exit(2) has no preconditions and runs no handlers of the copied process.
            unsafe { libc::_exit(code) }
        }
        pid => {
            // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
    }
}

/// In the child: die with the parent, and be in the leaf. Allocates nothing.
fn begin(parent: &OwnedFd, tasks: &[OwnedFd]) -> bool {
    // SAFETY: PR_SET_PDEATHSIG takes one integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // The parent may have died before that took effect. getppid(2) would not tell: in a new PID
    // namespace it is always 0.
    let mut watch = libc::pollfd { fd: parent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd is passed and counted, and lives on this stack.
    if unsafe { libc::poll(&raw mut watch, 1, 0) } != 0 {
        return false;
    }
    tasks.iter().all(|file| {
        // SAFETY: one byte is read from a static string.
        unsafe { libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1 }
    })
}

/// A descriptor of this process, readable once it has ended (pidfd_open(2)).
fn pidfd_of_this() -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

impl Child {
    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// It was reaped already (`ECHILD`).
    pub fn wait(&self) -> io::Result<Ended> {
        loop {
            match self.wait_with(0) {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its end, if it has ended: reaps it then.
    ///
    /// # Errors
    /// It was reaped already (`ECHILD`).
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        self.wait_with(libc::WNOHANG)
    }

    fn wait_with(&self, flags: i32) -> io::Result<Option<Ended>> {
        // SAFETY: all zeroes are a valid siginfo_t, plain old data.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let fd = self.pidfd.as_raw_fd() as libc::id_t;
        // SAFETY: `pidfd` is open, and `info` can be written.
        if unsafe { libc::waitid(libc::P_PIDFD, fd, &raw mut info, libc::WEXITED | flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid(2) fills in the SIGCHLD fields, or leaves `si_pid` 0 if nothing ended.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok((pid != 0).then_some(match info.si_code {
            libc::CLD_EXITED => Ended::Code(status),
            _ => Ended::Signal(status),
        }))
    }

    /// Sends it a signal (pidfd_send_signal(2)): never another process that got its id.
    ///
    /// # Errors
    /// It has been reaped (`ESRCH`), or may not be signalled.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let fd = self.pidfd.as_raw_fd();
        let none = ptr::null::<libc::siginfo_t>();
        // SAFETY: `pidfd` is open, and no siginfo is passed.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, none, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Signal handlers go back to their defaults (linux/sched.h, Linux 5.5); libc has it as a c_int it does
/// not fit.
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// Born in [`CloneArgs::cgroup`] (linux/sched.h, Linux 5.7).
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, CLONE_ARGS_SIZE_VER2; clone3(2) explains the fields.
#[repr(C)]
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "clone3(2) explains them by these names")]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}
