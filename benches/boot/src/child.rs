//! A program started with nothing between the time stamp and `execve`, and its end.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    time::{ClockId, clock_gettime},
    unistd::{ForkResult, Pid, fork, pipe},
};

/// CLOCK_MONOTONIC, nanoseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// A started program.
pub struct Child {
    /// Its process.
    pub pid: Pid,
    /// When it called `execve`.
    pub exec_ns: u64,
}

/// Starts a program: `standard` become its descriptors 0 to 2, those in `inherited` keep their
/// numbers.
///
/// # Errors
/// fork(2) or pipe(2) fails, or the program cannot be executed.
pub fn start(argv: &[CString], standard: [RawFd; 3], inherited: &[RawFd]) -> io::Result<Child> {
    let (reader, writer) = pipe()?;
    let pointers: Vec<*const libc::c_char> =
        argv.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: this program has one thread; the child makes async-signal-safe calls only.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            let mut stamp = [0; 8];
            match nix::unistd::read(&reader, &mut stamp)? {
                8 => Ok(Child { pid: child, exec_ns: u64::from_le_bytes(stamp) }),
                _ => Err(io::Error::other("the child died before execve")),
            }
        }
        // SAFETY: dup2 and fcntl take descriptor numbers; execve takes arrays of C strings ended
        // by null, which live in `argv`, `pointers` and `environment`.
        ForkResult::Child => unsafe {
            for (target, fd) in standard.into_iter().enumerate() {
                libc::dup2(fd, target as RawFd);
            }
            for &fd in inherited {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            libc::fcntl(writer.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
            let stamp = now_ns().to_le_bytes();
            libc::write(writer.as_raw_fd(), stamp.as_ptr().cast(), stamp.len());
            libc::execve(pointers[0], pointers.as_ptr(), environment.as_ptr());
            libc::_exit(127)
        },
    }
}

impl Child {
    /// Waits for its end and returns when that was: all it had is released by then.
    ///
    /// # Errors
    /// It failed.
    pub fn wait(self) -> io::Result<u64> {
        match waitpid(self.pid, None)? {
            WaitStatus::Exited(_, 0) => Ok(now_ns()),
            status => Err(io::Error::other(format!("it ended with {status:?}"))),
        }
    }
}

/// A pipe.
///
/// # Errors
/// pipe2(2) fails.
pub fn close_on_exec_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}
