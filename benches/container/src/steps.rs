//! What a start is made of, each step by itself in a process of its own, over and over.
#![allow(unsafe_code)] // fork(2), in a process with one thread

use std::{
    ffi::CString,
    fs,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::Path,
    thread,
    time::Instant,
};

use compare_cgroup::{Hierarchy, Limits, Parent, spawn::clone_into};
use compare_net::{Addressing, Interface, Netns, create_veth, enter_private_netns};
use compare_spec::Bytes;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};
use serde_json::json;

use crate::{Failure, Settings};

type Act = fn(&Path) -> Result<(), Failure>;

/// The namespaces of a container; `all` is what it gets at its birth.
const NAMESPACES: [(&str, i32); 9] = [
    ("mount namespace", libc::CLONE_NEWNS),
    ("pid namespace", libc::CLONE_NEWPID),
    ("network namespace", libc::CLONE_NEWNET),
    ("uts namespace", libc::CLONE_NEWUTS),
    ("ipc namespace", libc::CLONE_NEWIPC),
    ("cgroup namespace", libc::CLONE_NEWCGROUP),
    ("time namespace", libc::CLONE_NEWTIME),
    ("user namespace", libc::CLONE_NEWUSER),
    (
        "all but user",
        libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWTIME,
    ),
];

/// Name, what is done before, what is timed.
const STEPS: [(&str, Act, Act); 6] = [
    ("fork and exit", nothing, nothing),
    ("mount tmpfs", own_mounts, |_| mounted("tmpfs", "/tmp", None)),
    ("mount overlay", overlay_ready, overlay),
    ("mount sysfs", own_mounts_and_network, |_| mounted("sysfs", "/tmp", None)),
    ("mount devpts", own_mounts, |_| mounted("devpts", "/tmp", Some("newinstance"))),
    ("veth pair, host end set up", two_networks, veth),
];

/// A line of JSON for each run of each step: nanoseconds it took, and nanoseconds from its end until
/// its process was reaped, so with releasing what it made.
pub fn measure(settings: &Settings) -> Result<(), Failure> {
    let tree = settings.tree.as_path();
    let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"))?;
    let parent = Parent::create(&hierarchy)?;
    let inside = settings.command.first().ok_or("--command names no program")?;
    let program = tree.join(inside.trim_start_matches('/'));
    for run in 0..=settings.runs {
        let tell = |name: &str, ns: u64, release_ns: u64| {
            if run > 0 {
                println!("{}", json!({ "step": name, "ns": ns, "release_ns": release_ns }));
            }
        };
        for (name, flags) in NAMESPACES {
            thread::sleep(settings.gap);
            let flags = CloneFlags::from_bits_retain(flags);
            let (ns, release) = in_child(tree, |_| Ok(()), |_| Ok(unshare(flags)?))?;
            tell(&format!("unshare {name}"), ns, release);
        }
        for (name, before, act) in STEPS {
            thread::sleep(settings.gap);
            let (ns, release) = in_child(tree, before, act)?;
            tell(name, ns, release);
        }
        thread::sleep(settings.gap);
        let (leaf_ns, clone_ns, remove_ns) = cgroup(&parent)?;
        tell("cgroup with memory, cpu and pids limits", leaf_ns, remove_ns);
        tell("clone3 into it, exit, wait", clone_ns, 0);
        thread::sleep(settings.gap);
        let begin = Instant::now();
        execute(&program)?;
        tell("fork, execve of the program, wait", nanoseconds(begin), 0);
    }
    Ok(())
}

fn nanoseconds(begin: Instant) -> u64 {
    begin.elapsed().as_nanos() as u64
}

/// Times `act` in a child; and how long the child takes from there to its end.
fn in_child(
    tree: &Path,
    before: impl FnOnce(&Path) -> Result<(), Failure>,
    act: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(u64, u64), Failure> {
    let (mut reader, mut writer) = io::pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let timed = before(tree).and_then(|()| {
                let begin = Instant::now();
                act(tree)?;
                Ok(nanoseconds(begin))
            });
            let text = match timed {
                Ok(ns) => format!("{ns} {}", compare_backend::monotonic_ns()),
                Err(error) => format!("failed: {error}"),
            };
            let _ = writer.write_all(text.as_bytes());
            // SAFETY: no preconditions; nothing of the parent's is run on the way out.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            waitpid(child, None)?;
            let end = compare_backend::monotonic_ns();
            let mut text = String::new();
            reader.read_to_string(&mut text)?;
            let (ns, done) = text.split_once(' ').unwrap_or_default();
            match (ns.parse(), done.parse::<u64>()) {
                (Ok(ns), Ok(done)) => Ok((ns, end - done)),
                _ => Err(text.into()),
            }
        }
    }
}

fn nothing(_: &Path) -> Result<(), Failure> {
    Ok(())
}

fn own_mounts(_: &Path) -> Result<(), Failure> {
    Ok(compare_container::enter_private_mounts()?)
}

/// Each network namespace has a sysfs of its own.
fn own_mounts_and_network(tree: &Path) -> Result<(), Failure> {
    own_mounts(tree)?;
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

fn mounted(kind: &str, at: &str, options: Option<&str>) -> Result<(), Failure> {
    Ok(mount(Some(kind), at, Some(kind), MsFlags::empty(), options)?)
}

fn overlay_ready(tree: &Path) -> Result<(), Failure> {
    own_mounts(tree)?;
    mounted("tmpfs", "/tmp", None)?;
    Ok(["/tmp/upper", "/tmp/work"].into_iter().try_for_each(fs::create_dir)?)
}

fn overlay(tree: &Path) -> Result<(), Failure> {
    let options = format!("lowerdir={},upperdir=/tmp/upper,workdir=/tmp/work", tree.display());
    Ok(mount(Some("o"), "/tmp", Some("overlay"), MsFlags::empty(), Some(options.as_str()))?)
}

const FAR: &str = "/tmp/far-network";

/// The far one is kept by a file, and goes with this process's mounts.
fn two_networks(tree: &Path) -> Result<(), Failure> {
    own_mounts(tree)?;
    mounted("tmpfs", "/tmp", None)?;
    enter_private_netns()?;
    fs::write(FAR, "")?;
    mount(Some("/proc/self/ns/net"), FAR, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(enter_private_netns()?)
}

fn veth(_: &Path) -> Result<(), Failure> {
    let far = fs::File::open(FAR)?;
    let host = Interface::new("c-floor")?;
    Ok(create_veth(&host, &Interface::ETH0, &Addressing::of(1), Netns::Fd(far.as_fd()))?)
}

/// Nanoseconds to make a leaf, to start a process in it and see its end, to remove it.
fn cgroup(parent: &Parent) -> Result<(u64, u64, u64), Failure> {
    let limits = Limits {
        memory: Some(Bytes::mib(64)),
        cpus: Some(1.0),
        pids: Some(64),
        ..Limits::default()
    };
    let begin = Instant::now();
    let mut leaf = parent.create_leaf("floor", &limits)?;
    let leaf_ns = nanoseconds(begin);
    let begin = Instant::now();
    // SAFETY: the child does nothing at all.
    let child = unsafe { clone_into(&leaf, 0, || 0) }?;
    child.wait()?;
    let clone_ns = nanoseconds(begin);
    let begin = Instant::now();
    leaf.remove()?;
    Ok((leaf_ns, clone_ns, nanoseconds(begin)))
}

fn execute(program: &Path) -> Result<(), Failure> {
    let name = CString::new(program.as_os_str().as_encoded_bytes())?;
    let (argv, envp) = ([name.as_ptr(), std::ptr::null()], [std::ptr::null()]);
    let null = fs::File::options().write(true).open("/dev/null")?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            use std::os::fd::AsRawFd;
            // SAFETY: integers; the strings end in NUL and the arrays in a null pointer.
            unsafe {
                libc::dup2(null.as_raw_fd(), 1);
                libc::execve(name.as_ptr(), argv.as_ptr(), envp.as_ptr());
                libc::_exit(1)
            }
        }
        ForkResult::Parent { child } => Ok(waitpid(child, None).map(drop)?),
    }
}
