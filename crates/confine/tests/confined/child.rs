//! The parts a child plays.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsRawFd,
    process::exit,
    sync::mpsc,
    thread,
    time::Duration,
};

use compare_confine::{
    Confinement, FilterSize, Identity, Jail, Room,
    jail::close_except,
    monitor::Monitor,
    seccomp::{Action, Call, Filter, Policy, int},
};

/// Plays a part; does not come back.
pub fn play(part: &str) -> ! {
    match part.split(':').collect::<Vec<_>>()[..] {
        ["own"] => report(confined(None)),
        ["room"] => report(confined(Some(Room::make().unwrap()))),
        ["chosen"] => {
            let jail = Jail {
                identity: Identity::Of { uid: 12, gid: 34 },
                empty_bounding_set: false,
                ..jail(None)
            };
            report(jail.enter().unwrap());
        }
        ["refused"] => {
            // As where /proc/sys/user/max_user_namespaces is 0.
            let unshare = Call::new(libc::SYS_unshare).with(Action::Errno(libc::ENOSPC as u16));
            let policy = Policy::new(Action::Allow).call(unshare);
            policy.compile().unwrap().install().unwrap();
            report(jail(None).enter().unwrap());
        }
        ["two"] => two(),
        ["threads"] => {
            thread::spawn(|| thread::sleep(Duration::from_secs(60)));
            println!("{}", jail(None).enter().unwrap_err());
        }
        ["closed"] => closed(),
        ["parent"] => parent(),
        ["allowed", kind] => allowed(kind),
        ["abort", kind] => {
            filter(kind).install().unwrap();
            eprintln!("a panic's message");
            std::process::abort();
        }
        ["forbidden", kind, call] => forbidden(kind, call),
        ["asleep"] => {
            filter("devices").install().unwrap();
            println!("asleep");
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
        ["errno"] => {
            let socket = Call::new(libc::SYS_socket).with(Action::Errno(libc::EACCES as u16));
            Policy::new(Action::Allow).call(socket).compile().unwrap().install().unwrap();
            // SAFETY: three integers.
            let refused = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) } < 0;
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap();
            assert!(refused);
            // SAFETY: takes nothing.
            unsafe { libc::getppid() };
            println!("socket: {errno}, getppid: fine");
        }
        ["all_threads"] => all_threads(),
        ["thread_differs"] => {
            let (go, wait) = mpsc::channel();
            thread::spawn(move || {
                Policy::new(Action::Allow).compile().unwrap().install().unwrap();
                go.send(()).unwrap();
                thread::sleep(Duration::from_secs(60));
            });
            wait.recv().unwrap();
            let policy = Policy::new(Action::Allow).compile().unwrap();
            println!("{}", policy.install_in_all_threads().unwrap_err());
        }
        _ => exit(99),
    }
    exit(0)
}

fn jail(room: Option<Room>) -> Jail {
    Jail {
        room,
        identity: Identity::OfProcess,
        empty_bounding_set: true,
        descriptors: 0,
        file_bytes: 4096,
    }
}

/// Enters a jail and tries what must not work in it.
fn confined(room: Option<Room>) -> Confinement {
    let mut got = jail(room).enter().unwrap();
    if got.empty_root {
        assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/"));
        let made = std::fs::create_dir("/made").unwrap_err();
        assert_eq!(made.raw_os_error(), Some(libc::EROFS));
        for path in ["/proc", "/..", "../../etc", "/dev/null"] {
            assert_eq!(path == "/..", std::fs::metadata(path).is_ok(), "{path}");
        }
    }
    let opened = File::open("/").unwrap_err();
    assert_eq!(opened.raw_os_error(), Some(libc::EMFILE));
    assert!(Room::make().is_err());
    got.filters.push(FilterSize::of("vcpu", &filter("vcpu")));
    got
}

/// Prints it and waits to be looked at.
fn report(got: Confinement) {
    println!("{}", serde_json::to_string(&got).unwrap());
    let _ = std::io::stdin().read(&mut [0]);
}

fn monitor() -> Monitor {
    Monitor { process: std::process::id(), saves: false, listens: false }
}

fn filter(kind: &str) -> Filter {
    let policy = if kind == "vcpu" { monitor().vcpu() } else { monitor().devices() };
    policy.compile().unwrap()
}

/// What a program does all the time.
fn allowed(kind: &str) {
    let filter = filter(kind);
    let (go, wait) = mpsc::channel::<u32>();
    let waker = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        go.send(7).unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    filter.install().unwrap();
    let mut memory = Vec::new();
    for size in [10, 100_000, 10_000_000] {
        let mut block = vec![1_u8; size];
        block.resize(size * 2, 2);
        memory.push(block);
    }
    drop(memory);
    assert_eq!(wait.recv(), Ok(7));
    assert!(!waker.is_finished());
    println!("{:?}", std::time::Instant::now());
    eprintln!("{:?}", std::time::SystemTime::now());
    thread::yield_now();
    // SAFETY: two integers and a signal number of 0, which is none.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), 0) };
    assert_eq!(sent, 0);
    std::io::stdout().flush().unwrap();
}

fn forbidden(kind: &str, call: &str) {
    let page = page();
    filter(kind).install().unwrap();
    // SAFETY: numbers, a page of this process's own, or nothing; where a pointer is expected and
    // none is given, the kernel refuses it.
    unsafe {
        match call {
            "socket" => libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0),
            "open" => File::open("/").map_or(1, |_| 0),
            "execve" => libc::syscall(libc::SYS_execve, 0, 0, 0),
            "fork" => libc::fork().into(),
            "thread" => thread::Builder::new().spawn(|| ()).map_or(1, |_| 0),
            "mmap" => {
                let (prot, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
                libc::syscall(libc::SYS_mmap, 0, 4096, prot, flags | libc::MAP_ANONYMOUS, -1, 0)
            }
            "mprotect" => libc::mprotect(page, 4096, libc::PROT_EXEC).into(),
            "ioctl" => libc::ioctl(1, libc::TCGETS, page).into(),
            "signal" => libc::syscall(libc::SYS_tgkill, libc::getppid(), libc::getppid(), 0),
            "ptrace" => libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0),
            "x32" => libc::syscall(0x4000_0000 + libc::SYS_getpid),
            "prctl" => libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0).into(),
            "read" => libc::read(0, page, 1) as libc::c_long,
            _ => exit(98),
        };
    }
    println!("survived");
}

/// A page of memory.
fn page() -> *mut libc::c_void {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    // SAFETY: a new anonymous mapping, wherever the kernel likes.
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags | libc::MAP_ANONYMOUS, -1, 0) }
}

/// Two processes in one room. Both are copies of this one, which has one thread.
fn two() {
    let room = Room::make().unwrap();
    let namespaces = |kind: &str| {
        let process = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        process.display().to_string()
    };
    let before = namespaces("mnt");
    let copy =
        || Room::from_descriptors(room.descriptors().map(|fd| fd.try_clone_to_owned().unwrap()));
    let mut kids = Vec::new();
    for _ in 0..2 {
        let room = copy();
        // SAFETY: this process has one thread, so that its copy may do anything.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // The parent learns by the kernel's own files.
            jail(Some(room)).enter().unwrap();
            thread::sleep(Duration::from_secs(60));
            exit(0);
        }
        kids.push(pid);
    }
    thread::sleep(Duration::from_millis(300));
    let of = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(of(&kids[0]), of(&kids[1]));
    assert_ne!(of(&kids[0]).display().to_string(), before);
    assert_eq!(namespaces("mnt"), before, "the maker stays where it was");
    // As the first one's user, the second cannot be reached.
    let uid = 0x7000_0000 + kids[0] as u32;
    // SAFETY: this process has one thread; integers, and pids of this process's own children.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            assert_eq!(libc::setresuid(uid, uid, uid), 0);
            assert_eq!(libc::kill(kids[0], 0), 0);
            exit(i32::from(libc::kill(kids[1], 0) != -1));
        }
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, 0);
        assert_eq!(status, 0);
        for pid in kids {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, &raw mut status, 0);
        }
    }
    println!("same namespaces, different users, no signal");
}

fn closed() {
    let file = File::open("/").unwrap();
    for fd in [5, 17, 40, 41, 42, 43, 900] {
        // SAFETY: numbers; nothing owns the targets, which are beyond what is open.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), fd) }, fd);
    }
    let listing = std::mem::ManuallyDrop::new(file);
    assert!(listing.as_raw_fd() > 2);
    // SAFETY: nothing uses what is closed: the file above is never dropped.
    unsafe { close_except(&[42, 0, 2, 1, 40, 42]).unwrap() };
    let open: Vec<String> = (0..1000)
        // SAFETY: a number; it says whether it is open.
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0)
        .map(|fd| fd.to_string())
        .collect();
    println!("open: {}", open.join(" "));
}

/// What it was set to die with, it still is.
fn parent() {
    // SAFETY: two integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    jail(None).enter().unwrap();
    let mut signal = 0;
    // SAFETY: writes one int.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    println!("dies of {signal}");
}

fn all_threads() {
    let (go, wait) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        wait.recv().unwrap();
        // SAFETY: three integers.
        unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
        println!("survived");
    });
    let policy = Policy::new(Action::Allow).call(
        Call::new(libc::SYS_socket)
            .with(Action::KillProcess)
            .when([int(0).is(libc::AF_UNIX as u64)]),
    );
    policy.compile().unwrap().install_in_all_threads().unwrap();
    println!("installed");
    go.send(()).unwrap();
    let _ = other.join();
}
