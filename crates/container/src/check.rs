//! Whether containers can be made here: each need tried, in a thread with namespaces of its own,
//! rather than guessed from versions.

use std::{fs, io, os::fd::AsFd, thread};

use compare_cgroup::Finding;
use compare_net::{Addressing, Interface, Netns, create_veth, enter_private_netns};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::enter_private_mounts;

pub(crate) fn check() -> Vec<Finding> {
    let mut findings = vec![privileges()];
    findings.extend(
        [
            ("mount namespace", CloneFlags::CLONE_NEWNS),
            ("pid namespace", CloneFlags::CLONE_NEWPID),
            ("network namespace", CloneFlags::CLONE_NEWNET),
            ("uts namespace", CloneFlags::CLONE_NEWUTS),
            ("ipc namespace", CloneFlags::CLONE_NEWIPC),
            ("cgroup namespace", CloneFlags::CLONE_NEWCGROUP),
            // nix has no name for it.
            ("time namespace", CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)),
        ]
        .map(|(name, flag)| {
            finding(name, "can be unshared", NAMESPACE_REMEDY, move || Ok(unshare(flag)?))
        }),
    );
    findings.push(finding("overlayfs", "an overlay on tmpfs mounts", OVERLAY_REMEDY, overlay));
    findings.push(finding("veth", "a pair between two namespaces can be made", VETH_REMEDY, veth));
    findings.push(system_call_filter());
    findings.push(root());
    findings
}

const NAMESPACE_REMEDY: &str = "run as root on a kernel with this namespace (CONFIG_*_NS), and allow it \
                                where user.max_*_namespaces is 0";
const OVERLAY_REMEDY: &str = "load the module: modprobe overlay";
const VETH_REMEDY: &str = "load the module: modprobe veth";

/// Runs `attempt` in a thread of its own, which takes whatever it unshared with it.
fn finding(
    name: &'static str,
    evidence: &str,
    remedy: &str,
    attempt: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Finding {
    let result =
        thread::spawn(attempt).join().unwrap_or_else(|_| Err(io::Error::other("panicked")));
    match result {
        Ok(()) => Finding { name, ok: true, evidence: evidence.to_owned(), remedy: None },
        Err(error) => Finding {
            name,
            ok: false,
            evidence: error.to_string(),
            remedy: Some(remedy.to_owned()),
        },
    }
}

fn overlay() -> io::Result<()> {
    enter_private_mounts()?;
    let base = std::env::temp_dir();
    mount(Some("tmpfs"), &base, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    // This thread's alone since it has mounts of its own; and a path could hold what ends an option.
    std::env::set_current_dir(&base)?;
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(name)?;
    }
    let options = Some("lowerdir=lower,upperdir=upper,workdir=work");
    let overlay = Some("overlay");
    Ok(mount(overlay, "merged", overlay, MsFlags::empty(), options)?)
}

fn veth() -> io::Result<()> {
    enter_private_netns().map_err(io::Error::other)?;
    let far = fs::File::open("/proc/thread-self/ns/net")?;
    enter_private_netns().map_err(io::Error::other)?;
    let name = Interface::new("c-check").map_err(io::Error::other)?;
    create_veth(&name, &Interface::ETH0, &Addressing::of(0), Netns::Fd(far.as_fd())).map_err(
        |error| {
            let cause = std::error::Error::source(&error)
                .map_or(String::new(), |cause| format!(": {cause}"));
            io::Error::other(format!("{error}{cause}"))
        },
    )
}

/// The capabilities a start uses (capabilities(7)), by name and bit.
const NEEDED: [(&str, u32); 8] = [
    ("CHOWN", 0),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_ADMIN", 12),
    ("SYS_CHROOT", 18),
    ("SYS_ADMIN", 21),
    ("MKNOD", 27),
];

fn privileges() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = crate::instance::signal_set(&status, "CapEff:").unwrap_or(0);
    let missing: Vec<_> =
        NEEDED.iter().filter(|(_, bit)| effective & 1 << bit == 0).map(|(name, _)| *name).collect();
    let name = "privileges";
    if missing.is_empty() {
        return Finding {
            name,
            ok: true,
            evidence: format!("CapEff {effective:016x}"),
            remedy: None,
        };
    }
    let evidence = format!("missing CAP_{}", missing.join(", CAP_"));
    Finding { name, ok: false, evidence, remedy: Some("run as root".to_owned()) }
}

/// What the kernel can do about a system call that a filter does not let through (seccomp(2)).
fn system_call_filter() -> Finding {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = fs::read_to_string(path).unwrap_or_default();
    let ok = actions.split_ascii_whitespace().any(|action| action == "user_notif");
    Finding {
        name: "seccomp",
        ok,
        evidence: format!("{path}: {}", if actions.is_empty() { "none" } else { actions.trim() }),
        remedy: (!ok).then(|| "use Linux 5.12 or later with CONFIG_SECCOMP_FILTER".to_owned()),
    }
}

/// pivot_root(2) cannot leave the initial ramfs.
fn root() -> Finding {
    let name = "root file system";
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let kind = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next()? == "/").then(|| fields.next()).flatten()
    });
    match kind {
        Some("rootfs") => Finding {
            name,
            ok: false,
            evidence: "/ is the initial ramfs, which pivot_root cannot leave".to_owned(),
            remedy: Some("switch to a tmpfs or a disk first, such as by switch_root".to_owned()),
        },
        kind => {
            Finding { name, ok: true, evidence: kind.unwrap_or("unknown").to_owned(), remedy: None }
        }
    }
}
