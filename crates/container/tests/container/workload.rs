//! What runs inside: each mode does one thing and tells what it saw on standard output.
#![allow(unsafe_code)] // signals, a fault on purpose, raw system calls

use std::{
    fs,
    io::{self, Write},
    net::TcpListener,
    process::{Command, exit},
    thread,
    time::Duration,
};

pub fn run(mode: &str, args: &[String]) -> i32 {
    let arg = |index: usize| args.get(index).map(String::as_str).unwrap_or_default();
    match mode {
        "exit" => return arg(0).parse().unwrap(),
        // SAFETY: deliberately not: the fault is what is tested.
        "fault" => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
        "eat" => eat(),
        "fork" => fork_until_refused(),
        "fds" => list("/proc/self/fd"),
        "cat" => args.iter().for_each(|path| println!("{path}: {}", show(fs::read(path)))),
        "write" => args
            .iter()
            .for_each(|path| println!("{path}: {}", show(fs::write(path, b"x").map(|()| "")))),
        "remove" => args
            .iter()
            .for_each(|path| println!("{path}: {}", show(fs::remove_dir_all(path).map(|()| "")))),
        "list" => args.iter().for_each(|path| list(path)),
        "open-device" => open_device(arg(0)),
        "facts" => facts(),
        "calls" => calls(),
        "refused" => refused(arg(0).parse().unwrap()),
        "serve" => serve(arg(0).parse().unwrap()),
        "sleep" => sleep(),
        "handle" => handle(false),
        "ignore" => handle(true),
        "flood" => flood(arg(0).parse().unwrap()),
        other => panic!("no mode {other}"),
    }
    0
}

fn show<T: AsRef<[u8]>>(result: io::Result<T>) -> String {
    match result {
        Ok(bytes) => format!("[{}]", String::from_utf8_lossy(bytes.as_ref())),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn list(path: &str) {
    match fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.unwrap().path();
                println!(
                    "{} -> {}",
                    path.display(),
                    fs::read_link(&path).unwrap_or_default().display()
                );
            }
        }
        Err(error) => println!("{path}: errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn eat() {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; 1 << 20]);
        std::hint::black_box(&eaten);
    }
}

fn fork_until_refused() {
    let mut children = Vec::new();
    for _ in 0..200 {
        match Command::new("/w").arg("workload:sleep").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                println!(
                    "refused after {}: errno {}",
                    children.len(),
                    error.raw_os_error().unwrap_or(0)
                );
                return;
            }
        }
    }
    println!("never refused");
}

/// Makes a node of block device 8:0 there and opens it.
fn open_device(path: &str) {
    let name = std::ffi::CString::new(path).unwrap();
    // SAFETY: `name` ends in NUL.
    let made = unsafe { libc::mknod(name.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(8, 0)) };
    let opened = fs::File::open(path).map(|_| "opened");
    println!("mknod {made}, open {}", show(opened));
}

fn facts() {
    println!("hostname [{}]", show(fs::read("/proc/sys/kernel/hostname")));
    println!("cwd [{}]", std::env::current_dir().unwrap().display());
    println!("args {:?}", std::env::args().collect::<Vec<_>>());
    println!("env {:?}", std::env::vars().collect::<Vec<_>>());
    // SAFETY: no preconditions.
    let (pid, ppid, sid, umask) =
        unsafe { (libc::getpid(), libc::getppid(), libc::getsid(0), libc::umask(0)) };
    println!("pid {pid} ppid {ppid} sid {sid} umask {umask:03o}");
    let mut signal = 0;
    // SAFETY: PR_GET_PDEATHSIG stores one int.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    println!("pdeathsig {signal}");
    println!("{}", fs::read_to_string("/proc/self/status").unwrap());
    println!("{}", fs::read_to_string("/proc/self/mountinfo").unwrap());
    println!("cgroup\n{}", fs::read_to_string("/proc/self/cgroup").unwrap());
}

/// What a filter makes of some calls.
fn calls() {
    // SAFETY: none of them gets memory, and all are refused.
    let errno =
        |number, first: libc::c_long| match unsafe { libc::syscall(number, first, 0, 0, 0, 0) } {
            -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
            _ => 0,
        };
    println!("mount {}", errno(libc::SYS_mount, 0));
    println!("unshare {}", errno(libc::SYS_unshare, 0x1000_0000));
    println!("clone {}", errno(libc::SYS_clone, 0x1000_0000 | 17));
    println!("bpf {}", errno(libc::SYS_bpf, 0));
    println!("keyctl {}", errno(libc::SYS_keyctl, 0));
    println!("vsock {}", errno(libc::SYS_socket, 40));
    println!("clone3 {}", errno(libc::SYS_clone3, 0));
    println!("unknown {}", errno(1000, 0));
    println!("time namespace offset {}", show(fs::read("/proc/self/timens_offsets")));
}

fn refused(times: u64) {
    for _ in 0..times {
        // SAFETY: it is refused.
        unsafe { libc::syscall(libc::SYS_reboot, 0, 0, 0, 0) };
    }
}

fn serve(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        // Whoever only looks whether there is somebody is gone by now.
        let Ok(from) = stream.peer_addr() else { continue };
        let _ = stream.write_all(format!("hello {}", from.ip()).as_bytes());
    }
}

fn sleep() {
    println!("asleep");
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

extern "C" fn handler(_: libc::c_int) {
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(7) }
}

extern "C" fn nothing(_: libc::c_int) {}

/// Has a handler for SIGTERM that ends it, or one that does nothing.
fn handle(ignore: bool) {
    let handler = if ignore { nothing as *const () } else { handler as *const () };
    // SAFETY: both are handlers of the right type and do only async-signal-safe things.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    sleep();
}

fn flood(bytes: usize) {
    let line = [b'y'; 1 << 16];
    let mut left = bytes;
    let mut out = io::stdout().lock();
    while left > 0 {
        let count = left.min(line.len());
        if out.write_all(&line[..count]).is_err() {
            exit(1);
        }
        left -= count;
    }
    out.write_all(b"\nend of flood\n").unwrap();
    out.flush().unwrap();
}
