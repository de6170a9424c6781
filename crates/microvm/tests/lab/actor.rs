//! The workload inside the guest: does one thing, by name.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    process::exit,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept, bind, connect, listen, socket,
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
        "limits" => limits(),
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
        "identity" => identity(),
        "flood" => flood(),
        "cpus" => println!("cpus {}", std::thread::available_parallelism().map_or(0, usize::from)),
        "orphan" => orphan(),
        "random" => random(),
        "write" => write(),
        "talk" => talk(),
        "release" => release(),
        "in-place" => in_place(),
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

/// Prints what it is limited to and how its kernel is set.
fn limits() {
    for file in [
        "/proc/self/limits",
        "/proc/self/oom_score_adj",
        "/proc/sys/net/core/somaxconn",
        "/proc/sys/kernel/sem",
    ] {
        print!("{file}: {}", std::fs::read_to_string(file).expect("read a file of /proc"));
    }
    println!("standing by");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
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

/// Tells whoever connects how many have, and who this machine is.
fn identity() {
    let listener = TcpListener::bind("0.0.0.0:80").expect("bind port 80");
    for (stream, count) in listener.incoming().zip(1..) {
        let mut random = [0; 16];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut random))
            .expect("random");
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let _ = write!(
            stream.expect("accept"),
            "count {count}\nhost {host}random {random:02x?}\ntime {}\ncpus {}\n",
            now.map_or(0, |now| now.as_millis()),
            std::thread::available_parallelism().map_or(0, usize::from)
        );
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

/// Tells which source of entropy the kernel has chosen, and reads it.
fn random() {
    let read = |path| std::fs::read_to_string(path).expect("read /sys");
    println!("source {}", read("/sys/class/misc/hw_random/rng_current").trim());
    let mut device = File::open("/dev/hwrng").expect("open");
    for _ in 0..2 {
        let mut bytes = [0; 64];
        device.read_exact(&mut bytes).expect("read");
        println!("random {}", bytes.map(|byte| format!("{byte:02x}")).concat());
    }
}

/// Reads the second disk, and writes and syncs something.
fn write() {
    let disk = File::options().read(true).write(true).open("/dev/vdb").expect("open");
    let mut first = [0; 16];
    disk.read_exact_at(&mut first, 0).expect("read");
    println!("first {}", String::from_utf8_lossy(&first));
    disk.write_all_at(&[b'w'; 8192], 512 << 10).expect("write");
    disk.sync_all().expect("sync");
    let past = disk.write_all_at(&[b'w'; 4096], 1 << 20).and_then(|()| disk.sync_all());
    println!("past the end {}", past.is_err());
}

fn vsock() -> OwnedFd {
    socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None).expect("a socket")
}

/// Calls the host's port 5000, which a confined monitor refuses; then answers on port 6000, for each
/// connection what came and how many there were.
fn talk() {
    let listener = vsock();
    bind(listener.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, 6000)).expect("bind");
    listen(&listener, Backlog::new(4).expect("4")).expect("listen");
    let caller = vsock();
    let called = connect(caller.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, 5000));
    println!("called {called:?}");
    println!("listening");
    for count in 1.. {
        use std::os::fd::FromRawFd;
        let accepted = accept(listener.as_raw_fd()).expect("accept");
        // SAFETY: accept(2) has just given this descriptor to nobody else.
        let mut stream = File::from(unsafe { OwnedFd::from_raw_fd(accepted) });
        let mut line = [0; 16];
        let length = stream.read(&mut line).expect("read");
        let mut random = [0; 8];
        let source = File::open("/dev/hwrng").and_then(|mut file| file.read_exact(&mut random));
        let text = String::from_utf8_lossy(&line[..length]);
        let _ = write!(stream, "{count} {text} {} {random:02x?}", source.is_ok());
    }
}

/// Uses 128 MiB, frees them when told that there is nothing left to do, and stays.
fn release() {
    let used = vec![1_u8; 128 << 20];
    println!("used {}", used.iter().step_by(4096).map(|&byte| usize::from(byte)).sum::<usize>());
    std::thread::sleep(Duration::from_secs(1));
    drop(used);
    println!("freed");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Tells of a root in persistent memory: what this program reads as, and whether it is used in place;
/// then writes to the disk, behind the file system's back.
fn in_place() {
    let program = File::open("/actor").expect("open");
    let length = program.metadata().expect("look").len() as usize;
    // Mapped, it takes none of this guest's RAM, which is hardly larger.
    // SAFETY: a new mapping, of a whole file that nobody writes to, for as long as this process.
    let bytes = unsafe {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        let start = libc::mmap(std::ptr::null_mut(), length, prot, flags, program.as_raw_fd(), 0);
        assert_ne!(start, libc::MAP_FAILED);
        std::slice::from_raw_parts(start.cast::<u8>(), length)
    };
    println!("actor {}", compare_spec::Digest::of(bytes));
    // SAFETY: all zeroes are a valid statx, and statx(2) takes a path and a pointer to one.
    let attributes = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        assert_eq!(libc::statx(0, c"/actor".as_ptr(), 0, libc::STATX_BASIC_STATS, &mut found), 0);
        found.stx_attributes
    };
    println!("used in place {}", attributes & libc::STATX_ATTR_DAX as u64 != 0);
    let disk = File::options().read(true).write(true).open("/dev/pmem0").expect("open");
    let written = disk.write_all_at(&[b'w'; 8192], 0).and_then(|()| disk.sync_all());
    println!("written {}", written.is_ok());
    let mut bytes = [0; 8192];
    disk.read_exact_at(&mut bytes, 0).expect("read");
    println!("read back {}", bytes.iter().all(|&byte| byte == b'w'));
}
