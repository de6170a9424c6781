//! System calls, made directly: PID 1 needs about thirty, and going without the C library's
//! wrappers keeps its state (errno, locks, buffers) out of a process that must never fail on its
//! own account. Numbers and meanings as in syscalls(2); registers as in syscall(2) for x86-64.
#![allow(unsafe_code)]

use core::{arch::asm, ffi::CStr, mem::MaybeUninit};

use compare_syscall::call;
pub use compare_syscall::{Errno, Result};

/// A system call whose arguments are numbers or pointers to live, properly sized memory of the
/// caller: all of those below.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {{
        let mut arguments = [0_usize; 6];
        let given = [$($argument as usize),*];
        arguments[..given.len()].copy_from_slice(&given);
        // SAFETY: each wrapper below passes integers, and pointers made from references that live
        // across the call, with the lengths or terminators the call reads or writes by.
        unsafe { call(libc::$number, arguments) }
    }};
}

/// A file descriptor. PID 1 opens few and mostly keeps them.
pub type Fd = i32;

/// open(2), with close-on-exec.
pub fn open(path: &CStr, flags: i32) -> Result<Fd> {
    call!(SYS_open, path.as_ptr(), flags | libc::O_CLOEXEC, 0).map(|fd| fd as Fd)
}

/// close(2).
pub fn close(fd: Fd) {
    let _ = call!(SYS_close, fd);
}

/// read(2).
pub fn read(fd: Fd, into: &mut [u8]) -> Result<usize> {
    call!(SYS_read, fd, into.as_mut_ptr(), into.len())
}

/// dup3(2) without flags.
pub fn dup_to(fd: Fd, to: Fd) -> Result<()> {
    call!(SYS_dup3, fd, to, 0).map(drop)
}

/// Reads a small file; bytes beyond the buffer are left out.
pub fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let fd = open(path, libc::O_RDONLY)?;
    let mut filled = 0;
    let result = loop {
        match read(fd, &mut buffer[filled..]) {
            Ok(0) => break Ok(()),
            Ok(count) => filled += count,
            Err(error) => break Err(error),
        }
    };
    close(fd);
    result.map(|()| &buffer[..filled])
}

/// Writes to a file in one go, as those of /proc want it.
pub fn write_file(path: &CStr, bytes: &[u8]) -> Result<()> {
    let fd = open(path, libc::O_WRONLY)?;
    let result = call!(SYS_write, fd, bytes.as_ptr(), bytes.len());
    close(fd);
    result.map(drop)
}

/// Length of a file.
pub fn file_len(path: &CStr) -> Result<usize> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    call!(SYS_stat, path.as_ptr(), stat.as_mut_ptr())?;
    // SAFETY: stat(2) succeeded and has filled it in.
    Ok(unsafe { stat.assume_init() }.st_size as usize)
}

/// mkdir(2); a directory that is there already is fine.
pub fn make_dir(path: &CStr, mode: u32) -> Result<()> {
    match call!(SYS_mkdir, path.as_ptr(), mode) {
        Ok(_) | Err(Errno(libc::EEXIST)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// symlink(2); one that is there already is fine.
pub fn symlink(target: &CStr, path: &CStr) -> Result<()> {
    match call!(SYS_symlink, target.as_ptr(), path.as_ptr()) {
        Ok(_) | Err(Errno(libc::EEXIST)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// unlink(2).
pub fn unlink(path: &CStr) -> Result<()> {
    call!(SYS_unlink, path.as_ptr()).map(drop)
}

/// umask(2).
pub fn set_umask(mask: u32) {
    let _ = call!(SYS_umask, mask);
}

/// mount(2).
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Result<()> {
    call!(SYS_mount, source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr())
        .map(drop)
}

/// chdir(2).
pub fn change_dir(path: &CStr) -> Result<()> {
    call!(SYS_chdir, path.as_ptr()).map(drop)
}

/// chroot(2).
pub fn change_root(path: &CStr) -> Result<()> {
    call!(SYS_chroot, path.as_ptr()).map(drop)
}

/// sethostname(2).
pub fn set_host_name(name: &[u8]) -> Result<()> {
    call!(SYS_sethostname, name.as_ptr(), name.len()).map(drop)
}

/// ioperm(2).
pub fn allow_ports(from: u16, count: u16, on: bool) -> Result<()> {
    call!(SYS_ioperm, from, count, u8::from(on)).map(drop)
}

/// clock_settime(2) of CLOCK_REALTIME.
pub fn set_clock(ns: u64) -> Result<()> {
    let time = [(ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64];
    call!(SYS_clock_settime, libc::CLOCK_REALTIME, time.as_ptr()).map(drop)
}

/// `_IOW('R', 3, int[2])` and `_IO('R', 7)` of include/uapi/linux/random.h.
const RNDADDENTROPY: u32 = 0x4008_5203;
const RNDRESEEDCRNG: u32 = 0x5207;

/// RNDADDENTROPY and RNDRESEEDCRNG of random(4): credits the seed, and has the generator start anew
/// from it at once.
pub fn seed_random(seed: &[u8; 32]) -> Result<()> {
    // struct rand_pool_info: bits of entropy, bytes, the bytes.
    let mut info = [0_u8; 8 + 32];
    info[..4].copy_from_slice(&(8 * seed.len() as u32).to_ne_bytes());
    info[4..8].copy_from_slice(&(seed.len() as u32).to_ne_bytes());
    info[8..].copy_from_slice(seed);
    let fd = open(c"/dev/urandom", libc::O_RDONLY)?;
    let result = call!(SYS_ioctl, fd, RNDADDENTROPY, info.as_ptr())
        .and_then(|_| call!(SYS_ioctl, fd, RNDRESEEDCRNG));
    close(fd);
    result.map(drop)
}

/// setsid(2).
pub fn new_session() -> Result<()> {
    call!(SYS_setsid).map(drop)
}

/// setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    call!(SYS_setgroups, groups.len(), groups.as_ptr()).map(drop)
}

/// setresgid(2), all three.
pub fn set_group(id: u32) -> Result<()> {
    call!(SYS_setresgid, id, id, id).map(drop)
}

/// setresuid(2), all three.
pub fn set_user(id: u32) -> Result<()> {
    call!(SYS_setresuid, id, id, id).map(drop)
}

/// prctl(2) with up to two arguments.
pub fn control_process(option: i32, a: usize, b: usize) -> Result<usize> {
    call!(SYS_prctl, option, a, b, 0, 0)
}

/// capset(2) of the calling thread: permitted and effective as given, nothing inheritable.
pub fn set_capabilities(set: u64) -> Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    call!(SYS_capset, header.as_ptr(), data.as_ptr()).map(drop)
}

/// prlimit(2) of the calling process: sets a limit, soft and hard.
pub fn limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limits = [soft, hard];
    call!(SYS_prlimit64, 0, resource, limits.as_ptr(), 0).map(drop)
}

/// kill(2).
pub fn kill(pid: i32, signal: u8) -> Result<()> {
    call!(SYS_kill, pid, signal).map(drop)
}

/// wait4(2) for any child that has ended, without blocking: its id and status.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0_i32;
    match call!(SYS_wait4, -1_isize, &raw mut status, libc::WNOHANG, 0) {
        Ok(pid) if pid > 0 => Some((pid as i32, status)),
        _ => None,
    }
}

/// Blocks a signal (rt_sigprocmask(2)), or with `None` unblocks all.
pub fn block_signal(signal: Option<i32>) -> Result<()> {
    let set = signal.map_or(0_u64, |number| 1 << (number - 1));
    call!(SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, 0, 8).map(drop)
}

/// A descriptor that becomes readable with this signal (signalfd(2)).
pub fn signal_fd(signal: i32) -> Result<Fd> {
    let set = 1_u64 << (signal - 1);
    call!(SYS_signalfd4, -1_isize, &raw const set, 8, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        .map(|fd| fd as Fd)
}

/// Waits until one of these is readable (poll(2)); says which are.
pub fn wait_readable<const N: usize>(fds: [Fd; N]) -> [bool; N] {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let _ = call!(SYS_poll, polled.as_mut_ptr(), N, -1_isize);
    polled.map(|entry| entry.revents != 0)
}

/// Waits until this is readable, so long at the most (poll(2)); says whether it is.
pub fn wait_readable_for(fd: Fd, timeout_ms: i32) -> bool {
    let mut polled = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    call!(SYS_poll, polled.as_mut_ptr(), 1, timeout_ms).is_ok_and(|ready| ready > 0)
}

/// A descriptor that becomes readable when something is made in a directory (inotify(7)).
pub fn watch_directory(path: &CStr) -> Result<Fd> {
    let fd = call!(SYS_inotify_init1, libc::IN_CLOEXEC)?;
    call!(SYS_inotify_add_watch, fd, path.as_ptr(), libc::IN_CREATE)?;
    Ok(fd as Fd)
}

/// Reads a terminal's settings, lets them be changed, and writes them back (ioctl_tty(2), TCGETS
/// and TCSETS with the kernel's own termios).
pub fn change_terminal(fd: Fd, change: impl FnOnce(&mut Termios)) -> Result<()> {
    let mut settings = Termios::default();
    call!(SYS_ioctl, fd, libc::TCGETS, &raw mut settings)?;
    change(&mut settings);
    call!(SYS_ioctl, fd, libc::TCSETS, &raw const settings).map(drop)
}

/// The kernel's `struct termios` (include/uapi/asm-generic/termbits.h).
#[repr(C)]
#[derive(Debug, Default)]
pub struct Termios {
    /// Input modes.
    pub input: u32,
    /// Output modes.
    pub output: u32,
    control: u32,
    /// Local modes.
    pub local: u32,
    line: u8,
    characters: [u8; 19],
}

/// Waits until everything written to a terminal has left it (TCSBRK with an argument: tcdrain(3)).
pub fn drain_terminal(fd: Fd) {
    let _ = call!(SYS_ioctl, fd, libc::TCSBRK, 1);
}

/// uname(2), the kernel release alone.
pub fn kernel_release(buffer: &mut [u8; 65]) -> &[u8] {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    let _ = call!(SYS_uname, names.as_mut_ptr());
    // SAFETY: all zeroes are a valid utsname, which is nothing but characters, and so is what
    // uname(2) writes.
    let names = unsafe { names.assume_init() };
    for (place, &character) in buffer.iter_mut().zip(&names.release) {
        *place = character as u8;
    }
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    &buffer[..end]
}

/// Number of CPUs this process may run on (sched_getaffinity(2)): all that are online.
pub fn online_cpus() -> u32 {
    let mut mask = [0_u64; 16];
    let _ = call!(SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr());
    mask.iter().map(|word| word.count_ones()).sum()
}

/// New memory for this process alone, all zero (mmap(2)).
pub fn map_memory(bytes: usize) -> Result<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    call!(SYS_mmap, 0, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1_isize, 0)
        .map(|address| address as *mut u8)
}

/// execve(2); comes back only with an error.
///
/// # Safety
/// `argv` and `envp` are arrays of pointers to C strings, each ended by a null pointer.
pub unsafe fn execute(path: &CStr, argv: *const *const u8, envp: *const *const u8) -> Errno {
    // SAFETY: the caller vouches for the arrays; the path is a C string.
    let result = unsafe {
        call(libc::SYS_execve, [path.as_ptr() as usize, argv as usize, envp as usize, 0, 0, 0])
    };
    result.err().unwrap_or(Errno(libc::EINVAL))
}

/// _exit(2).
pub fn exit(code: i32) -> ! {
    loop {
        let _ = call!(SYS_exit, code);
    }
}

/// Ends this process by SIGILL, which nobody takes for an exit of its own will.
pub fn trap() -> ! {
    // SAFETY: an undefined instruction touches nothing, and nothing comes after it.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}

/// Runs `child` in a new process that shares this one's memory, on a stack of its own, while this
/// one waits until the new one has called execve(2) or ended (clone(2) with CLONE_VM and
/// CLONE_VFORK: the way of vfork(2), without copying page tables). Returns its process id.
///
/// # Safety
/// `child` never returns, and changes no memory in a way that this process does not expect.
pub unsafe fn spawn<T>(
    stack: &mut [MaybeUninit<u8>],
    child: unsafe extern "C" fn(*mut T) -> !,
    argument: *mut T,
) -> Result<i32> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end as usize & !15;
    let result: isize;
    // SAFETY: the new process starts behind `syscall` with rax 0 on the given stack, aligned to 16
    // bytes as the ABI wants it before a call, and goes straight into `child`, which by contract
    // never returns and is fit to run beside the suspended parent. The parent goes on with all
    // registers but those named unchanged. The direction flag is clear as Rust code has it.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags as usize, in("rsi") top, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") argument, in("r13") child,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno(-result as i32)) } else { Ok(result as i32) }
}

/// Writes bytes to a port, four at a time where there are as many: each `out` is an exit to the
/// monitor, whatever its width.
///
/// # Safety
/// The process may write to the port and the three behind it (ioperm(2)), and the device there
/// takes any bytes at any width.
pub unsafe fn write_port(port: u16, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        // SAFETY: the caller vouches for the port; no memory is touched.
        unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") u32::from_le_bytes(*word), options(nostack, nomem))
        };
    }
    for &byte in rest {
        // SAFETY: as above.
        unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nostack, nomem)) };
    }
}

/// Reads bytes from a port by one `rep insb`, which is one exit to the monitor.
///
/// # Safety
/// The process may read from the port (ioperm(2)), and reading there has no other effect.
pub unsafe fn read_port(port: u16, into: &mut [u8]) {
    // SAFETY: the caller vouches for the port; `rep insb` writes rcx bytes from rdi on, which are
    // those of `into`; the direction flag is clear as Rust code has it.
    unsafe {
        asm!(
            "rep insb",
            in("dx") port, inout("rdi") into.as_mut_ptr() => _, inout("rcx") into.len() => _,
            options(nostack),
        );
    }
}
