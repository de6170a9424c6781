//! The workload inside the guest: does one thing, by name.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::exit,
    time::Duration,
};

/// Plays a part; does not come back.
pub fn play(part: &str, argument: Option<&str>) -> ! {
    match part {
        "hello" => println!("hello from the guest"),
        "exit" => exit(argument.and_then(|code| code.parse().ok()).unwrap_or(1)),
        "abort" => {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).map(drop).unwrap_or(())
        }
        "view" => view(),
        "eat" => eat(),
        "sleep" => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        "stubborn" => {
            let mut set = nix::sys::signal::SigSet::empty();
            set.add(nix::sys::signal::Signal::SIGTERM);
            set.thread_block().expect("block a signal");
            println!("stubborn");
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        "serve" => serve(),
        "flood" => flood(),
        "cpus" => println!("cpus {}", std::thread::available_parallelism().map_or(0, usize::from)),
        "orphan" => orphan(),
        "halt" => {
            let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_HALT_SYSTEM);
        }
        _ => exit(99),
    }
    exit(0)
}

/// Prints what a process sees of itself and its world.
fn view() {
    for file in ["/proc/self/status", "/proc/mounts", "/proc/sys/kernel/hostname", "/proc/cmdline"]
    {
        println!(
            "== {file}\n{}",
            std::fs::read_to_string(file).unwrap_or_else(|error| error.to_string())
        );
    }
    println!("cwd {}", std::env::current_dir().expect("a working directory").display());
    for (name, value) in std::env::vars() {
        println!("env {name}={value}");
    }
    std::fs::write("/written", "x").expect("the root is writable");
    for path in [
        "/dev/null",
        "/dev/urandom",
        "/dev/pts/ptmx",
        "/dev/shm",
        "/dev/fd/1",
        "/lower",
        "/compare.config",
    ] {
        println!("path {path} {}", std::fs::exists(path).unwrap_or(false));
    }
}

/// Uses up all memory.
fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1_u8; 1 << 20]);
    }
}

/// Answers HTTP on port 80, one connection at a time.
fn serve() {
    let listener = TcpListener::bind("0.0.0.0:80").expect("bind port 80");
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream.expect("accept");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let body = "x".repeat(200_000);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
}

/// Prints more than is kept.
fn flood() {
    let line = "flood ".repeat(20);
    for _ in 0..1000 {
        println!("{line}");
    }
}

/// Leaves an orphan behind that ends before it does.
fn orphan() {
    let program = std::env::current_exe().expect("its own path");
    for _ in 0..20 {
        let child = std::process::Command::new(&program).args(["actor", "hello"]).spawn();
        std::mem::forget(child.expect("spawn"));
    }
    std::thread::sleep(Duration::from_millis(300));
}
