//! The call. Registers as in syscall(2) for x86-64; numbers are those of `libc`, which is used for
//! its constants and structures alone.
#![allow(unsafe_code)]

use core::arch::asm;

/// An error number (errno(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What a system call gives.
pub type Result<T> = core::result::Result<T, Errno>;

/// A system call with up to six arguments.
///
/// # Errors
/// The kernel says so.
///
/// # Safety
/// The arguments are what this call demands; pointers are to memory it may use as it does.
pub unsafe fn call(number: i64, arguments: [usize; 6]) -> Result<usize> {
    let result: isize;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: `syscall` overwrites rax, rcx and r11 only; what the kernel does with the arguments
    // is covered by this function's own contract.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    // The last page of numbers is errors.
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_errors_are_told_apart() {
        // SAFETY: neither call takes a pointer; closing a descriptor nobody has changes nothing.
        let (pid, closed) = unsafe {
            (call(libc::SYS_getpid, [0; 6]), call(libc::SYS_close, [usize::MAX, 0, 0, 0, 0, 0]))
        };
        assert_eq!(pid, Ok(std::process::id() as usize));
        assert_eq!(closed, Err(Errno(libc::EBADF)));
    }
}
