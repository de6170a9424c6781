//! Records which system calls each kind of thread of a program makes once its guest runs: the monitor's
//! lists are checked against it.
//!
//! `record PROGRAM COMMAND…` runs the command and traces (ptrace(2)) every process below it that
//! becomes PROGRAM. A thread counts from its first KVM_RUN or epoll_wait(2) on, and goes by the name
//! it has then.
#![allow(unsafe_code, clippy::unwrap_used)] // ptrace, waitpid, fork; a tool for the developer

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CString,
    fs, io,
    process::exit,
    ptr,
};

use compare_confine::seccomp::name;

const KVM_RUN: u64 = 0xae80;

/// A thread that is traced.
#[derive(Default)]
struct Thread {
    /// It runs the program.
    wanted: bool,
    /// It was seen stopped.
    known: bool,
    /// Its name, once its work has begun.
    kind: Option<String>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().expect("the program's name");
    let command: Vec<CString> = arguments.map(|text| CString::new(text).unwrap()).collect();
    // SAFETY: this process has one thread.
    let first = unsafe { libc::fork() };
    if first == 0 {
        become_traced(&command);
    }
    let mut threads: HashMap<i32, Thread> = HashMap::new();
    let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut code = 1;
    loop {
        let mut status = 0;
        // SAFETY: `status` can be written.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if pid < 0 {
            break;
        }
        if !libc::WIFSTOPPED(status) {
            if pid == first {
                code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 };
            }
            threads.remove(&pid);
            continue;
        }
        let signal = step(pid, status, &program, threads.entry(pid).or_default(), &mut seen);
        let wanted = threads.get(&pid).is_some_and(|thread| thread.wanted);
        let request = if wanted { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        let _ = trace(request, pid, 0, signal);
    }
    for ((kind, call), count) in seen {
        println!("{kind:16} {count:8} {call}");
    }
    exit(code)
}

fn become_traced(command: &[CString]) -> ! {
    let pointers: Vec<_> =
        command.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: the array ends in null and its strings in NUL.
    unsafe {
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        libc::raise(libc::SIGSTOP);
        libc::execv(pointers[0], pointers.as_ptr());
    }
    eprintln!("{:?}: {}", command[0], io::Error::last_os_error());
    exit(127)
}

/// Looks at a stopped thread; returns the signal it is to get.
fn step(
    pid: i32,
    status: i32,
    program: &str,
    thread: &mut Thread,
    seen: &mut BTreeMap<(String, String), u64>,
) -> u64 {
    let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
    if !thread.known {
        thread.known = true;
        thread.wanted = runs(pid, program);
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        let _ = trace(libc::PTRACE_SETOPTIONS, pid, 0, options as u64);
        return if signal == libc::SIGSTOP { 0 } else { signal as u64 };
    }
    if event == libc::PTRACE_EVENT_EXEC {
        *thread = Thread { wanted: runs(pid, program), known: true, kind: None };
    }
    if event != 0 {
        return 0;
    }
    if signal != libc::SIGTRAP | 0x80 {
        return signal as u64;
    }
    if let Some((number, arguments)) = entered(pid) {
        let begins = number == libc::SYS_epoll_wait as u64
            || number == libc::SYS_ioctl as u64 && arguments[1] == KVM_RUN;
        if begins && thread.kind.is_none() {
            thread.kind = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        }
        if let Some(kind) = &thread.kind {
            let key = (kind.trim().to_owned(), described(number, &arguments));
            *seen.entry(key).or_default() += 1;
        }
    }
    0
}

fn runs(pid: i32, program: &str) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|path| path.file_name().is_some_and(|name| name == program))
}

/// A call with the arguments a filter may look at.
fn described(number: u64, arguments: &[u64; 6]) -> String {
    let name = name(number as u32).unwrap_or("?");
    let shown = match name {
        "ioctl" | "futex" => &arguments[1..2],
        "mmap" => &arguments[2..4],
        "mprotect" | "madvise" => &arguments[2..3],
        _ => &[],
    };
    format!("{name} {shown:x?}")
}

/// The call a thread enters, if it does not leave one.
fn entered(pid: i32) -> Option<(u64, [u64; 6])> {
    // SAFETY: all zeroes are valid.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info) as u64;
    trace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info as u64).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: at an entry, this is the part that is filled in.
    let entry = unsafe { info.u.entry };
    Some((entry.nr, entry.args))
}

fn trace(request: u32, pid: i32, address: u64, data: u64) -> io::Result<()> {
    let address = ptr::without_provenance_mut::<libc::c_void>(address as usize);
    // SAFETY: fails for what is not traced; `data` is a number or the address of the caller's info.
    let result = unsafe { libc::ptrace(request, pid, address, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
