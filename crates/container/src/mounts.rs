//! The root file system and the mounts of the OCI runtime specification (config-linux.md, "Default
//! Filesystems", "Default Devices"; masked and read-only paths as Docker sets them). All of it runs
//! in the child and allocates nothing. Every target is resolved after pivot_root, when no path can
//! lead out any more.

use std::{ffi::CStr, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{chdir, mkdir, pivot_root, symlinkat},
};

use crate::{
    child::{At, Failure},
    prepared::{CgroupMounts, Prepared},
    sys,
};

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NONE: Option<&CStr> = None;

/// Makes the overlay of the image and a tmpfs the root. Both are mounted over the image's own
/// directory, in this mount namespace only, so nothing need be made on the host or removed later:
///
/// ```text
///  image.tree (directory) ◄─ covered by ─ tmpfs {upper, work} ◄─ covered by ─ overlay = new root
///         └─ reached by a descriptor opened before: lowerdir=/proc/self/fd/0
/// ```
/// The descriptor is opened here, since a mount of another namespace cannot be a layer, and is 0,
/// which is not needed yet, so that the options are known beforehand and no path in them needs
/// escaping or tells the workload of the host.
/// The tmpfs is charged to the container's cgroup and goes with its mount namespace.
pub(crate) fn enter_root(prepared: &Prepared) -> Result<(), Failure<'_>> {
    let tree = prepared.tree.as_c_str();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, c"/", NONE, private, NONE).at("make the mounts private")?;
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let layer = open(tree, directory, Mode::empty()).at(&prepared.tree_step)?;
    sys::duplicate(layer.as_raw_fd(), 0, 0).at("dup the image's tree")?;
    let tmpfs = Some(c"tmpfs");
    mount(tmpfs, tree, tmpfs, MsFlags::MS_NODEV, Some(c"mode=0755"))
        .at("mount tmpfs for changes")?;
    chdir(tree).at("chdir to the tmpfs for changes")?;
    let mode = Mode::from_bits_truncate(0o755);
    mkdir(c"upper", mode)
        .and_then(|()| mkdir(c"work", mode))
        .at("mkdir on the tmpfs for changes")?;
    let overlay = Some(c"overlay");
    let options = Some(c"lowerdir=/proc/self/fd/0,upperdir=upper,workdir=work");
    // nodev: CAP_MKNOD must not reach the host's devices, and no devices cgroup guards them.
    mount(overlay, c".", overlay, MsFlags::MS_NODEV, options).at("mount overlay on /")?;
    chdir(tree).at("chdir to the new root")?;
    // pivot_root(2), "pivot_root(\".\", \".\")": the old root ends up on top and is taken off.
    pivot_root(c".", c".").at("pivot_root")?;
    umount2(c".", MntFlags::MNT_DETACH).at("detach the old root")?;
    chdir(c"/").at("chdir /")
}

/// Mounts proc, dev, sys and what belongs in them.
pub(crate) fn mount_defaults(prepared: &Prepared) -> Result<(), Failure<'static>> {
    let mode = Mode::from_bits_truncate(0o755);
    for (path, step) in
        [(c"/proc", "mkdir /proc"), (c"/dev", "mkdir /dev"), (c"/sys", "mkdir /sys")]
    {
        match mkdir(path, mode) {
            Ok(()) => {}
            Err(Errno::EEXIST) => must_be_directory(path).at(step)?,
            Err(error) => return Err(Failure::new(step, error)),
        }
    }
    mount(Some(c"proc"), c"/proc", Some(c"proc"), SAFE, NONE).at("mount proc on /proc")?;
    mount_dev()?;
    let sysfs = Some(c"sysfs");
    mount(sysfs, c"/sys", sysfs, SAFE | MsFlags::MS_RDONLY, NONE).at("mount sysfs on /sys")?;
    mount_cgroup(&prepared.cgroups)
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

/// Name, major and minor of the default devices (linux devices.txt).
const DEVICES: [(&CStr, u64, u64); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

const DEV_LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
    (c"/proc/kcore", c"/dev/core"),
];

/// `/dev`: a tmpfs that is `nodev` but for the default devices. Each is bound onto itself while the
/// tmpfs still allows devices, so that it stays usable when the tmpfs no longer does.
fn mount_dev() -> Result<(), Failure<'static>> {
    let tmpfs = Some(c"tmpfs");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME;
    let options = Some(c"mode=755,size=65536k");
    mount(tmpfs, c"/dev", tmpfs, flags, options).at("mount tmpfs on /dev")?;
    for (path, major, minor) in DEVICES {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(path, SFlag::S_IFCHR, mode, makedev(major, minor)).at("mknod in /dev")?;
        mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE).at("bind a device in /dev")?;
    }
    let nodev = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NODEV | flags;
    mount(NONE, c"/dev", NONE, nodev, NONE).at("remount /dev nodev")?;
    for (target, path) in DEV_LINKS {
        symlinkat(target, nix::fcntl::AT_FDCWD, path).at("symlink in /dev")?;
    }
    let mode = Mode::from_bits_truncate(0o755);
    for path in [c"/dev/pts", c"/dev/shm", c"/dev/mqueue"] {
        mkdir(path, mode).at("mkdir in /dev")?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount(Some(c"devpts"), c"/dev/pts", Some(c"devpts"), flags, options)
        .at("mount devpts on /dev/pts")?;
    let options = Some(c"mode=1777,size=65536k");
    mount(Some(c"shm"), c"/dev/shm", tmpfs, SAFE, options).at("mount tmpfs on /dev/shm")?;
    let mqueue = Some(c"mqueue");
    mount(mqueue, c"/dev/mqueue", mqueue, SAFE, NONE).at("mount mqueue on /dev/mqueue")
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

/// Files and directories that tell of the host or let it be harmed; made to look empty.
const MASKED: [&CStr; 12] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/sys/devices/virtual/powercap",
    c"/sys/firmware",
];

const READ_ONLY: [&CStr; 5] =
    [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// Covers the masked paths and makes the read-only ones so. What a kernel lacks is skipped.
pub(crate) fn mask() -> Result<(), Failure<'static>> {
    for path in MASKED {
        match mount(Some(c"/dev/null"), path, NONE, MsFlags::MS_BIND, NONE) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // A file cannot cover a directory.
            Err(Errno::ENOTDIR) => {
                let flags = SAFE | MsFlags::MS_RDONLY;
                mount(Some(c"tmpfs"), path, Some(c"tmpfs"), flags, Some(c"size=0k,nr_inodes=1"))
                    .at("mask a directory of /proc or /sys")?;
            }
            Err(error) => return Err(Failure::new("mask a file of /proc or /sys", error)),
        }
    }
    for path in READ_ONLY {
        match mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE) {
            Ok(()) => {}
            Err(Errno::ENOENT) => continue,
            Err(error) => return Err(Failure::new("bind a read-only path of /proc", error)),
        }
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | SAFE;
        mount(NONE, path, NONE, flags, NONE).at("make a path of /proc read-only")?;
    }
    Ok(())
}
