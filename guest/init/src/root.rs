//! The workload's root: the read-only disk with a writable layer in memory over it, and the file
//! systems every program expects, as the container has them. What a container masks to guard the
//! host's kernel (parts of /proc and /sys) is left open here: this kernel is the workload's own.

use alloc::ffi::CString;
use core::ffi::CStr;

use compare_wire::GuestConfig;

use crate::{
    failure::{Failure, step},
    sys,
};

/// How long a root disk that is not there yet is waited for, since the last thing that came to /dev.
const PATIENCE_MS: i32 = 1000;

const NO_SUID_DEV_EXEC: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// One file system to mount in the new root.
struct Mount {
    kind: &'static CStr,
    target: &'static CStr,
    flags: u64,
    data: &'static CStr,
}

/// What is mounted besides the root, in this order. `/dev` is the kernel's own devtmpfs, which is
/// filled already.
const MOUNTS: [Mount; 7] = [
    Mount { kind: c"proc", target: c"proc", flags: NO_SUID_DEV_EXEC, data: c"" },
    Mount { kind: c"sysfs", target: c"sys", flags: NO_SUID_DEV_EXEC | libc::MS_RDONLY, data: c"" },
    Mount {
        kind: c"cgroup2",
        target: c"sys/fs/cgroup",
        flags: NO_SUID_DEV_EXEC | libc::MS_RDONLY,
        data: c"",
    },
    Mount { kind: c"devtmpfs", target: c"dev", flags: libc::MS_NOSUID, data: c"mode=0755" },
    Mount {
        kind: c"devpts",
        target: c"dev/pts",
        flags: libc::MS_NOSUID | libc::MS_NOEXEC,
        data: c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    },
    Mount {
        kind: c"tmpfs",
        target: c"dev/shm",
        flags: NO_SUID_DEV_EXEC,
        data: c"mode=1777,size=65536k",
    },
    Mount { kind: c"mqueue", target: c"dev/mqueue", flags: NO_SUID_DEV_EXEC, data: c"" },
];

/// Links of /dev (runtime-spec, config-linux.md, "Default Devices" and "Dev symbolic links").
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];

/// Builds the root and makes it this process's.
pub fn enter(config: &GuestConfig) -> Result<(), Failure> {
    // The disk's node, before anything can be read from it.
    step("mount /dev", sys::mount(c"dev", c"/dev", c"devtmpfs", libc::MS_NOSUID, c"mode=0755"))?;
    for directory in [c"/lower", c"/rw", c"/newroot"] {
        step("make a directory", sys::make_dir(directory, 0o755))?;
    }
    let disk = c_string(&config.root)?;
    let kind = c_string(&config.root_type)?;
    let options = c_string(&config.root_options)?;
    if config.root.starts_with("/dev/pmem") {
        step("wait for the root disk", await_device(&disk))?;
    }
    step("mount the root disk", sys::mount(&disk, c"/lower", &kind, libc::MS_RDONLY, &options))?;
    step("mount the writable layer", sys::mount(c"rw", c"/rw", c"tmpfs", 0, c"mode=0755"))?;
    step("make a directory", sys::make_dir(c"/rw/upper", 0o755))?;
    step("make a directory", sys::make_dir(c"/rw/work", 0o755))?;
    let layers = c"lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work";
    step(
        "mount the root overlay",
        sys::mount(c"overlay", c"/newroot", c"overlay", libc::MS_NODEV, layers),
    )?;

    step("enter the root", sys::change_dir(c"/newroot"))?;
    for mount in &MOUNTS {
        attach(mount)?;
    }
    for (target, path) in LINKS {
        // devtmpfs brings a ptmx of its own, which serves the first instance only.
        if path == c"dev/ptmx" {
            let _ = sys::unlink(path);
        }
        step("make a link in /dev", sys::symlink(target, path))?;
    }
    // The initramfs cannot be left by pivot_root(2) (Documentation/filesystems/ramfs-rootfs-initramfs.rst):
    // the new root is moved over it instead.
    step("move the root into place", sys::mount(c".", c"/", c"", libc::MS_MOVE, c""))?;
    step("change the root", sys::change_root(c"."))?;
    step("change the root", sys::change_dir(c"/"))
}

/// Waits until the node of persistent memory is there; one that does not come is an error of whoever
/// needs it. A thread of the kernel finds it, which nobody waits for at boot (ND_REGION_ASYNC,
/// drivers/nvdimm/virtio_pmem.c), as for block devices the kernel does itself.
fn await_device(disk: &CStr) -> Result<(), sys::Errno> {
    let is_absent = || sys::file_len(disk) == Err(sys::Errno(libc::ENOENT));
    if !is_absent() {
        return Ok(());
    }
    let created = sys::watch_directory(c"/dev")?;
    while is_absent() && sys::wait_readable_for(created, PATIENCE_MS) {
        sys::read(created, &mut [0; 256])?;
    }
    sys::close(created);
    Ok(())
}

fn attach(mount: &Mount) -> Result<(), Failure> {
    let made = sys::make_dir(mount.target, 0o755);
    match sys::mount(mount.kind, mount.target, mount.kind, mount.flags, mount.data) {
        Ok(()) => Ok(()),
        // A kernel of the user's may lack one of these; a program that needs it will say so.
        Err(sys::Errno(libc::ENODEV)) => Ok(()),
        Err(sys::Errno(libc::ENOENT)) if made.is_err() => Ok(()),
        Err(errno) => {
            let target = mount.target.to_str().unwrap_or_default();
            Err(Failure { step: ["mount ", target].concat(), errno })
        }
    }
}

/// A string of the configuration as the kernel takes it.
pub fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text)
        .map_err(|_| Failure { step: ["use ", text].concat(), errno: sys::Errno(libc::EINVAL) })
}
