//! Everything the child needs, made before it exists: it may not allocate.

use std::{
    ffi::{CStr, CString, NulError},
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    sync::Arc,
};

use compare_backend::StartRequest;
use compare_cgroup::Leaf;
use compare_net::Settings;
use compare_spec::Workload;

use crate::{rootless::Surroundings, seccomp::Filters};

/// The group that terminals belong to, on every Linux.
const TTY: u32 = 5;

/// How the container's cgroup is mounted inside it.
pub(crate) enum CgroupMounts {
    /// One file system.
    V2,
    /// Directory and controllers of each.
    V1(Vec<(CString, CString)>),
}

/// What is the same for all containers of a run.
#[derive(Debug)]
pub(crate) struct Host {
    /// Signals this program ignores, bit 0 for signal 1: the workload must not inherit that.
    pub(crate) ignored: u64,
    pub(crate) surroundings: Surroundings,
    pub(crate) filters: Filters,
    /// `thermal_throttle` of each CPU that has one: from it one can learn what others do.
    pub(crate) masked: Vec<CString>,
}

impl Host {
    pub(crate) fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let throttle = |cpu: fs::DirEntry| {
            let path = cpu.path().join("thermal_throttle");
            path.is_dir()
                .then(|| CString::new(path.into_os_string().into_encoded_bytes()).ok())
                .flatten()
        };
        Self {
            ignored: crate::instance::signal_set(&status, "SigIgn:").unwrap_or(0),
            surroundings: Surroundings::look(),
            filters: Filters::new(),
            masked: cpus.filter_map(throttle).collect(),
        }
    }
}

/// The container's network namespace.
pub(crate) enum Network {
    /// The child's own, where the link's far end will be, if there is one.
    Own(Option<Settings>),
    /// To be entered; all is set up.
    Pooled(OwnedFd),
}

/// The child's ends of what it shares with this program.
pub(crate) struct Ends {
    /// Takes frames.
    pub(crate) frames: OwnedFd,
    /// Takes the workload's output.
    pub(crate) output: OwnedFd,
    /// An eventfd: readable once the child may go on.
    pub(crate) release: OwnedFd,
    /// Takes the descriptor of the seccomp listener.
    pub(crate) listener: OwnedFd,
}

/// What the child works from.
pub(crate) struct Prepared {
    pub(crate) hostname: String,
    pub(crate) tree: CString,
    pub(crate) tree_step: String,
    pub(crate) cgroups: CgroupMounts,
    pub(crate) net: Network,
    /// In a user namespace, whose root the child is to become.
    pub(crate) userns: bool,
    /// Device nodes are the host's, bound.
    pub(crate) bind_devices: bool,
    /// Options of the root's overlay.
    pub(crate) overlay: &'static CStr,
    /// Options of devpts.
    pub(crate) pts: &'static CStr,
    /// Supplementary groups are as they are.
    pub(crate) keep_groups: bool,
    /// What is written to which file of /proc, and what failing at that is called.
    pub(crate) settings: Vec<(CString, String, String)>,
    /// Resource, soft and hard limit (setrlimit(2)), and what failing at that is called.
    pub(crate) rlimits: Vec<(u32, u64, u64, String)>,
    pub(crate) program: CString,
    pub(crate) argv: Strings,
    pub(crate) envp: Strings,
    pub(crate) working_dir: CString,
    pub(crate) chdir_step: String,
    pub(crate) exec_step: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) host: Arc<Host>,
    pub(crate) ends: Ends,
}

impl Prepared {
    pub(crate) fn new(
        request: &StartRequest<'_>,
        leaf: &Leaf,
        net: Network,
        userns: bool,
        host: Arc<Host>,
        ends: Ends,
    ) -> Result<Self, NulError> {
        let (workload, image) = (request.workload, request.image);
        let program = workload.command.first().map(String::as_str).unwrap_or_default();
        let env = workload.env.iter().map(|(name, value)| format!("{name}={value}"));
        let directory = workload.working_dir.display();
        Ok(Self {
            hostname: request.name.to_owned(),
            tree: CString::new(image.tree.as_os_str().as_bytes())?,
            tree_step: format!("open the image's tree {}", image.tree.display()),
            cgroups: cgroup_mounts(leaf)?,
            net,
            userns,
            bind_devices: userns || host.surroundings.is_nested(),
            // In a user namespace a directory that was removed can be marked by a `user.` attribute
            // only, which a tmpfs has since Linux 6.6.
            overlay: if userns || host.surroundings.is_nested() {
                c"lowerdir=/proc/self/fd/0,upperdir=upper,workdir=work,userxattr"
            } else {
                c"lowerdir=/proc/self/fd/0,upperdir=upper,workdir=work"
            },
            pts: if userns || host.surroundings.has_group(TTY) {
                c"newinstance,ptmxmode=0666,mode=0620,gid=5"
            } else {
                c"newinstance,ptmxmode=0666,mode=0620"
            },
            keep_groups: host.surroundings.no_setgroups && image.groups.is_empty(),
            settings: settings(workload)?,
            rlimits: rlimits(workload),
            program: CString::new(program)?,
            argv: Strings::new(workload.command.iter().cloned())?,
            envp: Strings::new(env)?,
            working_dir: CString::new(workload.working_dir.as_os_str().as_bytes())?,
            chdir_step: format!("chdir {directory}"),
            exec_step: format!("execve {program}"),
            uid: image.uid,
            gid: image.gid,
            groups: image.groups.clone(),
            host,
            ends,
        })
    }
}

fn settings(workload: &Workload) -> Result<Vec<(CString, String, String)>, NulError> {
    let files = workload.sysctl_files();
    files
        .into_iter()
        .map(|(path, value)| {
            let step = format!("write {value} to {path}");
            Ok((CString::new(path)?, value, step))
        })
        .collect()
}

fn rlimits(workload: &Workload) -> Vec<(u32, u64, u64, String)> {
    let name = |number: u32| {
        let known = workload.rlimits.keys().find(|known| known.number() == number);
        known.map_or_else(String::new, |known| format!("{known:?}").to_lowercase())
    };
    let limit = |(resource, soft, hard)| {
        let step = format!(
            "set rlimits.{} (above this program's own hard limit it takes CAP_SYS_RESOURCE)",
            name(resource)
        );
        (resource, soft, hard, step)
    };
    workload.rlimits().into_iter().map(limit).collect()
}

fn cgroup_mounts(leaf: &Leaf) -> Result<CgroupMounts, NulError> {
    let controllers = leaf.v1_controllers();
    if controllers.is_empty() {
        return Ok(CgroupMounts::V2);
    }
    let mount = |names: String| {
        Ok((CString::new(format!("/sys/fs/cgroup/{names}"))?, CString::new(names)?))
    };
    controllers.into_iter().map(mount).collect::<Result<_, _>>().map(CgroupMounts::V1)
}

/// Strings as execve(2) takes them: pointers that end in a null one.
pub(crate) struct Strings {
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    fn new(strings: impl Iterator<Item = String>) -> Result<Self, NulError> {
        let strings = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let null = std::iter::once(std::ptr::null());
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(null).collect();
        Ok(Self { _strings: strings, pointers })
    }

    /// Valid as long as this value is, wherever it is moved: a CString's bytes are on the heap.
    pub(crate) fn pointers(&self) -> &[*const libc::c_char] {
        &self.pointers
    }
}
