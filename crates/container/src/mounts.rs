//! The root file system and the mounts of the OCI runtime specification (config-linux.md, "Default
//! Filesystems", "Default Devices"; masked and read-only paths as Docker sets them). All of it runs
//! in the child and allocates nothing. Every target is resolved after pivot_root, when no path can
//! lead out any more.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, RawFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{chdir, mkdir, pivot_root, symlinkat},
};

use crate::{
    child::{At, Failure},
    prepared::{CgroupMounts, Host, Prepared},
    sys,
};

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NONE: Option<&CStr> = None;

/// Makes the overlay of the image and a tmpfs the root. Both are mounted over the image's own
/// directory, in this mount namespace only, so nothing need be made on the host or removed later:
///
/// ```text
///  image.tree (directory) ◄─ covered by ─ tmpfs {upper, work, dev} ◄─ covered by ─ overlay = new root
///         └─ reached by a descriptor opened before: lowerdir=/proc/self/fd/0
/// ```
/// The descriptor is opened here, since a mount of another namespace cannot be a layer, and is 0,
/// which is not needed yet, so that the options are known beforehand and no path in them needs
/// escaping or tells the workload of the host.
/// The tmpfs is charged to the container's cgroup and goes with its mount namespace.
pub(crate) fn enter_root(prepared: &Prepared) -> Result<Dev, Failure<'_>> {
    let tree = prepared.tree.as_c_str();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, c"/", NONE, private, NONE).at("make the mounts private")?;
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let layer = open(tree, directory, Mode::empty()).at(&prepared.tree_step)?;
    sys::duplicate(layer.as_raw_fd(), 0, 0).at("dup the image's tree")?;
    let tmpfs = Some(c"tmpfs");
    mount(tmpfs, tree, tmpfs, MsFlags::empty(), Some(c"mode=0755"))
        .at("mount tmpfs for changes")?;
    chdir(tree).at("chdir to the tmpfs for changes")?;
    let mode = Mode::from_bits_truncate(0o755);
    for name in [c"upper", c"work", c"dev"] {
        mkdir(name, mode).at("mkdir on the tmpfs for changes")?;
    }
    if prepared.bind_devices {
        bind_devices()?;
    }
    let dev =
        sys::open_tree(c"dev", libc::AT_RECURSIVE).at("open_tree on the tmpfs for changes")?;
    let overlay = Some(c"overlay");
    let options = Some(prepared.overlay);
    // nodev: CAP_MKNOD must not reach the host's devices, and no devices cgroup guards them.
    mount(overlay, c".", overlay, MsFlags::MS_NODEV, options).at("mount overlay on /")?;
    chdir(tree).at("chdir to the new root")?;
    // pivot_root(2), "pivot_root(\".\", \".\")": the old root ends up on top and is taken off.
    pivot_root(c".", c".").at("pivot_root")?;
    // In a user namespace these may only be mounted where others of their kind can be seen already
    // (fs/namespace.c, mount_too_revealing): those of the old root.
    mount_proc_and_sys()?;
    umount2(c".", MntFlags::MNT_DETACH).at("detach the old root")?;
    chdir(c"/").at("chdir /")?;
    Ok(Dev { mount: dev, has_nodes: prepared.bind_devices })
}

/// A directory of the tmpfs for changes, to be `/dev`: a file system of its own would cost five times
/// as much. Closed with all other descriptors.
#[derive(Clone, Copy)]
pub(crate) struct Dev {
    mount: RawFd,
    has_nodes: bool,
}

/// Below the working directory, which is the new root.
fn mount_proc_and_sys() -> Result<(), Failure<'static>> {
    must_be_there(c"proc", "mkdir /proc")?;
    mount(Some(c"proc"), c"proc", Some(c"proc"), SAFE, NONE).at("mount proc on /proc")?;
    must_be_there(c"sys", "mkdir /sys")?;
    let sysfs = Some(c"sysfs");
    mount(sysfs, c"sys", sysfs, SAFE | MsFlags::MS_RDONLY, NONE).at("mount sysfs on /sys")
}

/// Mounts `/dev` and the container's cgroup.
pub(crate) fn mount_defaults(prepared: &Prepared, dev: Dev) -> Result<(), Failure<'static>> {
    must_be_there(c"/dev", "mkdir /dev")?;
    mount_dev(dev)?;
    mount_cgroup(&prepared.cgroups)
}

/// Makes a mount point if the image has none.
fn must_be_there(path: &CStr, step: &'static str) -> Result<(), Failure<'static>> {
    match must_be_directory(path) {
        Err(Errno::ENOENT) => mkdir(path, Mode::from_bits_truncate(0o755)).at(step),
        other => other.at(step),
    }
}

/// A mount point that is a symbolic link could be made to point elsewhere once other mounts are
/// there, so that the paths masked later would miss what was mounted. readlink(2) fails with EINVAL
/// on everything else.
fn must_be_directory(path: &CStr) -> Result<(), Errno> {
    let mut target = [0; 1];
    match sys::readlink(path, &mut target) {
        Err(Errno::EINVAL) => Ok(()),
        Ok(()) => Err(Errno::ELOOP),
        Err(error) => Err(error),
    }
}

/// Name, name below the tmpfs for changes, major and minor of the default devices (linux devices.txt).
const DEVICES: [(&CStr, &CStr, u64, u64); 6] = [
    (c"/dev/null", c"dev/null", 1, 3),
    (c"/dev/zero", c"dev/zero", 1, 5),
    (c"/dev/full", c"dev/full", 1, 7),
    (c"/dev/random", c"dev/random", 1, 8),
    (c"/dev/urandom", c"dev/urandom", 1, 9),
    (c"/dev/tty", c"dev/tty", 5, 0),
];

const DEV_LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
    (c"/proc/kcore", c"/dev/core"),
];

/// `/dev`: `nodev` but for the default devices. Each is bound onto itself while the mount still
/// allows devices, so that it stays usable when the mount no longer does.
fn mount_dev(dev: Dev) -> Result<(), Failure<'static>> {
    sys::move_mount(dev.mount, c"/dev").at("move_mount to /dev")?;
    for (path, _, major, minor) in DEVICES.iter().copied().filter(|_| !dev.has_nodes) {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(path, SFlag::S_IFCHR, mode, makedev(major, minor)).at("mknod in /dev")?;
        mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE).at("bind a device in /dev")?;
    }
    let nodev = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOSUID
        | MsFlags::MS_STRICTATIME;
    mount(NONE, c"/dev", NONE, nodev, NONE).at("remount /dev nodev")?;
    for (target, path) in DEV_LINKS {
        symlinkat(target, nix::fcntl::AT_FDCWD, path).at("symlink in /dev")?;
    }
    let mode = Mode::from_bits_truncate(0o755);
    for path in [c"/dev/pts", c"/dev/shm", EMPTY] {
        mkdir(path, mode).at("mkdir in /dev")?;
    }
    Ok(())
}

/// In a user namespace nobody can make nodes: the host's are bound, before they are out of reach. In
/// the directory that is to be `/dev`, below the working directory.
fn bind_devices() -> Result<(), Failure<'static>> {
    for (host, here, _, _) in DEVICES {
        let made = mknod(here, SFlag::S_IFREG, Mode::from_bits_truncate(0o666), 0);
        made.at("make a file for a device")?;
        mount(Some(host), here, NONE, MsFlags::MS_BIND, NONE).at("bind a device of the host")?;
    }
    Ok(())
}

/// What lies below `/dev`. Its last step: before it, [`EMPTY`] covers what is masked.
pub(crate) fn mount_below_dev(prepared: &Prepared) -> Result<(), Failure<'static>> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let devpts = Some(c"devpts");
    mount(devpts, c"/dev/pts", devpts, flags, Some(prepared.pts)).at("mount devpts on /dev/pts")?;
    let options = Some(c"mode=1777,size=65536k");
    mount(Some(c"shm"), c"/dev/shm", Some(c"tmpfs"), SAFE, options)
        .at("mount tmpfs on /dev/shm")?;
    let mqueue = Some(c"mqueue");
    mount(mqueue, EMPTY, mqueue, SAFE, NONE).at("mount mqueue on /dev/mqueue")
}

/// The container's own cgroup, read-only. Which one that is, its cgroup namespace says.
fn mount_cgroup(cgroups: &CgroupMounts) -> Result<(), Failure<'static>> {
    let step = "mount cgroup on /sys/fs/cgroup";
    let read_only = SAFE | MsFlags::MS_RDONLY;
    match cgroups {
        CgroupMounts::V2 => {
            mount(Some(c"cgroup"), c"/sys/fs/cgroup", Some(c"cgroup2"), read_only, NONE).at(step)
        }
        CgroupMounts::V1(mounts) => {
            let tmpfs = Some(c"tmpfs");
            mount(tmpfs, c"/sys/fs/cgroup", tmpfs, SAFE, Some(c"mode=755")).at(step)?;
            for (path, controllers) in mounts {
                mkdir(path.as_c_str(), Mode::from_bits_truncate(0o755)).at(step)?;
                let cgroup = Some(c"cgroup");
                mount(cgroup, path.as_c_str(), cgroup, read_only, Some(controllers.as_c_str()))
                    .at(step)?;
            }
            let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | read_only;
            mount(NONE, c"/sys/fs/cgroup", NONE, remount, NONE).at(step)
        }
    }
}

/// Files and directories that tell of the host or let it be harmed; made to look empty. Whether a
/// kernel has a directory there or a file, is tried in this order of likelihood.
const MASKED: [(&CStr, Covers); 12] = [
    (c"/proc/acpi", Covers::Directory),
    (c"/proc/asound", Covers::Directory),
    (c"/proc/interrupts", Covers::File),
    (c"/proc/kcore", Covers::File),
    (c"/proc/keys", Covers::File),
    (c"/proc/latency_stats", Covers::File),
    (c"/proc/sched_debug", Covers::File),
    (c"/proc/scsi", Covers::Directory),
    (c"/proc/timer_list", Covers::File),
    (c"/proc/timer_stats", Covers::File),
    (c"/sys/devices/virtual/powercap", Covers::Directory),
    (c"/sys/firmware", Covers::Directory),
];

#[derive(Clone, Copy, PartialEq)]
enum Covers {
    File,
    Directory,
}

/// An empty directory that no path leads to once a file system is mounted on it.
const EMPTY: &CStr = c"/dev/mqueue";

const READ_ONLY: [&CStr; 5] =
    [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// Covers the masked paths, those of each CPU too, and makes the read-only ones so. What a kernel lacks is skipped. Bound
/// rather than each a tmpfs, which costs the kernel three times as much.
pub(crate) fn mask(host: &Host) -> Result<(), Failure<'static>> {
    let of_cpus = host.masked.iter().map(|path| (path.as_c_str(), Covers::Directory));
    for (path, kind) in MASKED.into_iter().chain(of_cpus) {
        let covered = match cover(path, kind) {
            // One cannot cover the other.
            Err(Errno::ENOTDIR) if kind == Covers::File => cover(path, Covers::Directory),
            Err(Errno::ENOTDIR) => cover(path, Covers::File),
            other => other,
        };
        match covered {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(Failure::new("mask a path of /proc or /sys", error)),
        }
    }
    for path in READ_ONLY {
        match mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE) {
            Ok(()) => {}
            Err(Errno::ENOENT) => continue,
            Err(error) => return Err(Failure::new("bind a read-only path of /proc", error)),
        }
        make_read_only(path).at("make a path of /proc read-only")?;
    }
    Ok(())
}

fn cover(path: &CStr, kind: Covers) -> Result<(), Errno> {
    let source = if kind == Covers::File { c"/dev/null" } else { EMPTY };
    mount(Some(source), path, NONE, MsFlags::MS_BIND, NONE)?;
    if kind == Covers::Directory { make_read_only(path) } else { Ok(()) }
}

fn make_read_only(path: &CStr) -> Result<(), Errno> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | SAFE;
    mount(NONE, path, NONE, flags, NONE)
}
