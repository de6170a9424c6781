//! For tests of a confined process: makes one of its threads ask for something it never would.
#![allow(unsafe_code)] // ptrace(2), waitpid(2).

use std::{io, mem, ptr};

use libc::{c_long, c_uint, c_void, pid_t};

/// `PTRACE_EVENT_STOP` (linux/ptrace.h): a stop that PTRACE_INTERRUPT asked for.
const PTRACE_EVENT_STOP: i32 = 128;

/// Lets a thread of another process make the system call `number` instead of the next it makes, and
/// leaves it to what comes of that. A filter sees the call that is put in its place: it is asked
/// after the tracer is (Linux 4.8, seccomp(2), SECCOMP_RET_TRACE).
///
/// # Errors
/// The thread cannot be traced (ptrace(2)), or it ends before it makes a call.
pub fn system_call(thread: pid_t, number: c_long, arguments: [u64; 3]) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, thread, 0, libc::PTRACE_O_TRACESYSGOOD as u64)?;
    request(libc::PTRACE_INTERRUPT, thread, 0, 0)?;
    loop {
        let signal = match stopped(thread)? {
            Stop::Call if at_entry(thread)? => break,
            Stop::Call => 0,
            Stop::Signal(signal) => signal,
        };
        request(libc::PTRACE_SYSCALL, thread, 0, signal)?;
    }
    // SAFETY: all zeroes are valid registers.
    let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
    request(libc::PTRACE_GETREGS, thread, 0, &raw mut registers as u64)?;
    registers.orig_rax = number as u64;
    [registers.rdi, registers.rsi, registers.rdx] = arguments;
    request(libc::PTRACE_SETREGS, thread, 0, &raw const registers as u64)?;
    request(libc::PTRACE_DETACH, thread, 0, 0)
}

/// Why a thread has stopped.
enum Stop {
    /// It enters or leaves a system call.
    Call,
    /// A signal is to be delivered; 0 for none.
    Signal(u64),
}

fn stopped(thread: pid_t) -> io::Result<Stop> {
    let mut status = 0;
    // SAFETY: `status` can be written.
    if unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::other(format!("thread {thread} ended: status {status:#x}")));
    }
    let signal = libc::WSTOPSIG(status);
    Ok(match status >> 16 {
        PTRACE_EVENT_STOP => Stop::Signal(0),
        _ if signal == libc::SIGTRAP | 0x80 => Stop::Call,
        _ => Stop::Signal(signal as u64),
    })
}

/// Whether it enters a call and does not leave one.
fn at_entry(thread: pid_t) -> io::Result<bool> {
    // SAFETY: all zeroes are valid.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&info) as u64;
    request(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info as u64)?;
    Ok(info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

/// `data` is a number, or the address of what `operation` reads or writes, which lives in the caller.
fn request(operation: c_uint, thread: pid_t, address: u64, data: u64) -> io::Result<()> {
    let address = ptr::without_provenance_mut::<c_void>(address as usize);
    // SAFETY: ptrace(2) fails for a thread that is not traced; pointers are as said above.
    let result = unsafe { libc::ptrace(operation, thread, address, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
