//! Starts the monitor's process without a copy of this program's memory. A copy of all page tables,
//! thrown away again by execve(2), and the faults of this program on pages that are shared meanwhile
//! take longer than building the machine's interrupt controllers; as vfork(2) does, the child
//! borrows the memory instead, and this thread stands still until it is another program.
//!
//! ```text
//!  this thread ── clone3 ─────────────── stands still ──────────────► goes on: pid, pidfd
//!                    └─► child, on a stack of its own: die with the parent ─► closure ─► execve
//! ```
//! On cgroup v1, where a process joins its leaf by itself, it is `compare_cgroup::spawn` that starts
//! it, with a copy.
#![allow(unsafe_code)]

use std::{
    arch::asm,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use compare_cgroup::{
    Leaf,
    spawn::{CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, Child, CloneArgs, NOT_STARTED, clone_into},
};

/// Stack of the child until it is another program: it nests few calls.
const STACK_BYTES: usize = 64 << 10;

/// What the child needs, on the stack of the thread that stands still.
struct Start<F> {
    parent: libc::pid_t,
    child: F,
}

/// Starts a process in `leaf` that runs `child` and exits with what it returns, if it returns. It is
/// set to die with the thread that started it (`PR_SET_PDEATHSIG`: keep that thread), and signal
/// handlers are back at their defaults.
///
/// # Safety
/// `child` runs in this program's own memory, while its other threads go on. It must do what
/// signal-safety(7) allows and no more: not allocate, free, print, panic or call wrappers that glibc
/// synchronises between threads; and it must write to nothing but its own stack. It should end in
/// execve(2).
///
/// # Errors
/// The leaf's directory cannot be opened, or clone3(2) fails.
pub unsafe fn spawn<F: FnMut() -> i32>(leaf: &Leaf, child: F) -> io::Result<Child> {
    let Some(directory) = leaf.directory_fd()? else {
        // SAFETY: what `child` may do there is more than what it may do here.
        return unsafe { clone_into(leaf, 0, child) };
    };
    // SAFETY: getpid(2) takes nothing.
    let mut start = Start { parent: unsafe { libc::getpid() }, child };
    // Left as it is, so that pages which are not needed are not touched.
    let mut stack: Vec<u8> = Vec::with_capacity(STACK_BYTES);
    let stack: &mut [MaybeUninit<u8>] = stack.spare_capacity_mut();
    let bottom = (stack.as_mut_ptr() as usize).next_multiple_of(16);
    let top = stack.as_mut_ptr_range().end as usize & !15;
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64
            | CLONE_CLEAR_SIGHAND
            | CLONE_INTO_CGROUP,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: bottom as u64,
        stack_size: (top - bottom) as u64,
        cgroup: directory.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    let result: i64;
    // SAFETY: `args` is a clone_args of the size given, and `pidfd` outlives the call. The new
    // process starts behind `syscall` with rax 0 at the top of `stack`, aligned to 16 bytes as the
    // ABI wants it before a call, and goes straight into `run`, which does not return; this thread
    // stands still meanwhile (CLONE_VFORK), so that `stack` and `start` live as long as they are used,
    // and goes on with all registers but those named unchanged.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const args, in("rsi") size_of::<CloneArgs>(),
            in("r12") &raw mut start, in("r13") run::<F> as unsafe extern "C" fn(*mut Start<F>) -> !,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    // SAFETY: the kernel has stored a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: result as i32, pidfd })
}

/// The child. Allocates nothing.
unsafe extern "C" fn run<F: FnMut() -> i32>(start: *mut Start<F>) -> ! {
    // SAFETY: `spawn` passes a live `Start`, and does not touch it as long as this runs.
    let start = unsafe { &mut *start };
    // SAFETY: integers only. The parent may have died before PR_SET_PDEATHSIG took effect; its
    // process id is this one's, since both are in one PID namespace.
    let orphan = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::getppid() != start.parent
    };
    let code = if orphan { NOT_STARTED } else { (start.child)() };
    // SAFETY: _exit(2) has no preconditions, and runs no handlers of the program whose memory this is.
    unsafe { libc::_exit(code) }
}
