//! How control groups are mounted on this host, and where groups of ours go: directly below the
//! mount where that can be written (so that limits around this program do not distort what it
//! measures), below this process's own group where it cannot (containers, delegation).

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use compare_spec::CgroupMode;
use nix::unistd::{AccessFlags, access};

use crate::{CgroupError, Finding};

/// A controller this program uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory: limit and charge.
    Memory,
    /// CPU quota.
    Cpu,
    /// CPU time used; on v2 part of every group.
    Cpuacct,
    /// Number of processes.
    Pids,
    /// Which CPUs.
    Cpuset,
    /// Standing still; on v2 part of every group.
    Freezer,
}

impl Controller {
    /// Those of every leaf.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Cpuacct, Self::Pids];
    /// Those that a leaf gets if its limits need them.
    pub(crate) const ON_REQUEST: [Self; 2] = [Self::Cpuset, Self::Freezer];

    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Pids => "pids",
            Self::Cpuset => "cpuset",
            Self::Freezer => "freezer",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One directory below which groups are made, and the controllers it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) dir: PathBuf,
    pub(crate) controllers: Vec<Controller>,
}

/// Where groups can be made on this host.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    root: PathBuf,
    pub(crate) proc: PathBuf,
    mode: CgroupMode,
    /// The directory of this process's own v2 group, as far as the mount shows it.
    own: Option<PathBuf>,
    pub(crate) bases: Vec<Base>,
    /// What a leaf gets if its limits need it; on v2 in the same directory.
    pub(crate) on_request: Vec<Base>,
    missing: Vec<(Controller, String)>,
}

impl Hierarchy {
    /// Looks at the cgroup mount at `root`, `/sys/fs/cgroup` on every current distribution. A host
    /// without control groups is no error here; its mode is [`CgroupMode::None`].
    ///
    /// # Errors
    /// The mount's files cannot be read.
    pub fn detect(root: &Path) -> Result<Self, CgroupError> {
        Self::detect_in(root, Path::new("/proc"))
    }

    /// As [`Hierarchy::detect`], with another `/proc`.
    pub(crate) fn detect_in(root: &Path, proc: &Path) -> Result<Self, CgroupError> {
        let own = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let mut found = Self {
            root: root.to_owned(),
            proc: proc.to_owned(),
            mode: CgroupMode::None,
            own: None,
            bases: Vec::new(),
            on_request: Vec::new(),
            missing: Vec::new(),
        };
        if root.join("cgroup.controllers").exists() {
            found.mode = CgroupMode::V2;
            found.detect_v2(&own)?;
        } else if Controller::ALL.iter().any(|controller| root.join(controller.name()).is_dir()) {
            let unified = root.join("unified/cgroup.controllers").exists();
            found.mode = if unified { CgroupMode::Hybrid } else { CgroupMode::V1 };
            found.detect_v1(&own);
        } else {
            let reason = format!("no control groups are mounted at {}", root.display());
            found.missing = Controller::ALL.map(|controller| (controller, reason.clone())).into();
        }
        Ok(found)
    }

    fn detect_v2(&mut self, own: &str) -> Result<(), CgroupError> {
        let own = own_group(own, "");
        let dir = writable(&self.root, own);
        self.own = below(&self.root, own);
        let path = dir.join("cgroup.controllers");
        let offered = crate::files::read(&path)?;
        let mut base = Base { dir: dir.clone(), controllers: vec![Controller::Cpuacct] };
        let wanted = [Controller::Memory, Controller::Cpu, Controller::Pids, Controller::Cpuset];
        for controller in wanted {
            let is_offered = offered.split_ascii_whitespace().any(|name| name == controller.name());
            if is_offered && controller == Controller::Cpuset {
                self.on_request.push(Base { dir: dir.clone(), controllers: vec![controller] });
            } else if is_offered {
                base.controllers.push(controller);
            } else {
                self.missing.push((
                    controller,
                    format!(
                        "{} does not list it: have it delegated (systemd: Delegate=yes), or boot with \
                         cgroup_no_v1=all where a v1 mount holds it",
                        path.display()
                    ),
                ));
            }
        }
        self.bases.push(base);
        Ok(())
    }

    fn detect_v1(&mut self, own: &str) {
        for controller in Controller::ALL.into_iter().chain(Controller::ON_REQUEST) {
            let mount = self.root.join(controller.name());
            // `cpu` and `cpuacct` are often two names of one mount.
            let Ok(mount) = mount.canonicalize() else {
                let reason =
                    format!("{} does not exist: mount the v1 controller there", mount.display());
                self.missing.push((controller, reason));
                continue;
            };
            let dir = writable(&mount, own_group(own, controller.name()));
            match self.bases.iter_mut().find(|base| base.dir == dir) {
                Some(base) => base.controllers.push(controller),
                None if Controller::ON_REQUEST.contains(&controller) => {
                    self.on_request.push(Base { dir, controllers: vec![controller] });
                }
                None => self.bases.push(Base { dir, controllers: vec![controller] }),
            }
        }
    }

    /// Whether this process lives in the v2 group `dir`, and that is not the root of all, which alone
    /// may hold processes and hand controllers down (`cgroup.type` exists in all others).
    pub(crate) fn is_own(&self, dir: &Path) -> bool {
        self.own.as_deref() == Some(dir) && dir.join("cgroup.type").exists()
    }

    /// How control groups are mounted.
    pub fn mode(&self) -> CgroupMode {
        self.mode
    }

    /// Where the mount was looked for.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Why a controller cannot be used; none where it can.
    pub fn missing(&self, controller: Controller) -> Option<&str> {
        self.missing
            .iter()
            .find(|(missing, _)| *missing == controller)
            .map(|(_, reason)| reason.as_str())
    }

    /// Whether each controller is there and can be written, for `doctor`.
    pub fn check(&self) -> Vec<Finding> {
        let name = |controller| match controller {
            Controller::Memory => "cgroup memory",
            Controller::Cpu => "cgroup cpu",
            Controller::Cpuacct => "cgroup cpuacct",
            Controller::Pids => "cgroup pids",
            Controller::Cpuset => "cgroup cpuset",
            Controller::Freezer => "cgroup freezer",
        };
        let wanted = Controller::ALL.into_iter();
        wanted
            .map(|controller| {
                let name = name(controller);
                let Some(base) =
                    self.bases.iter().find(|base| base.controllers.contains(&controller))
                else {
                    let reason = self.missing(controller).unwrap_or("not mounted").to_owned();
                    let remedy = Some("see cgroups(7), \"Delegation\"".to_owned());
                    return Finding { name, ok: false, evidence: reason, remedy };
                };
                let dir = base.dir.display();
                match access(&base.dir, AccessFlags::W_OK) {
                    Ok(()) => Finding {
                        name,
                        ok: true,
                        evidence: format!("groups can be made in {dir}"),
                        remedy: None,
                    },
                    Err(error) => Finding {
                        name,
                        ok: false,
                        evidence: format!("{dir}: {}", error.desc()),
                        remedy: Some(
                            "run as root, or have a group delegated: `systemd-run --user --scope \
                             -p Delegate=yes compare …`"
                                .to_owned(),
                        ),
                    },
                }
            })
            .collect()
    }
}

/// `mount` where it can be written, the process's own group below it where not.
fn writable(mount: &Path, own: &str) -> PathBuf {
    if access(mount, AccessFlags::W_OK).is_ok() {
        return mount.to_owned();
    }
    below(mount, own).filter(|dir| dir.is_dir()).unwrap_or_else(|| mount.to_owned())
}

/// The directory of a group that `/proc/self/cgroup` names; none where it lies outside the mount, as
/// seen from a cgroup namespace.
fn below(mount: &Path, group: &str) -> Option<PathBuf> {
    let group = group.strip_prefix('/')?;
    if group.is_empty() {
        return Some(mount.to_owned());
    }
    (!group.split('/').any(|part| part == "..")).then(|| mount.join(group))
}

/// The process's own group in a hierarchy: the line of `/proc/self/cgroup` (cgroups(7)) whose list
/// of controllers holds `controller`, or the v2 line for the empty name.
fn own_group<'a>(text: &'a str, controller: &str) -> &'a str {
    text.lines()
        .find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            controllers.split(',').any(|name| name == controller).then_some(path)
        })
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn own_groups_are_told_apart() {
        let text = "4:memory:/a/b\n1:cpu,cpuacct:/c\n9:name=systemd:/s\n0::/u:v\n";
        assert_eq!(own_group(text, "memory"), "/a/b");
        assert_eq!(own_group(text, "cpuacct"), "/c");
        assert_eq!(own_group(text, ""), "/u:v");
        assert_eq!(own_group(text, "pids"), "");
    }

    #[test]
    fn modes_are_told_apart() {
        let v2 = Fake::v2("memory cpu");
        let found = v2.detect();
        assert_eq!(found.mode(), CgroupMode::V2);
        assert!(found.missing(Controller::Memory).is_none());
        assert!(found.missing(Controller::Pids).unwrap().contains("cgroup.controllers"));
        let failed: Vec<_> = found.check().into_iter().filter(|finding| !finding.ok).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].name, "cgroup pids");

        let v1 = Fake::v1(&["memory", "cpu", "cpuacct", "pids"]);
        assert_eq!(v1.detect().mode(), CgroupMode::V1);
        v1.write("unified/cgroup.controllers", "");
        assert_eq!(v1.detect().mode(), CgroupMode::Hybrid);

        let empty = Fake::empty();
        assert_eq!(empty.detect().mode(), CgroupMode::None);
        assert!(empty.detect().check().iter().all(|finding| !finding.ok));
    }

    #[test]
    fn a_mount_of_two_names_is_one_base() {
        let v1 = Fake::v1(&["memory", "cpu,cpuacct", "pids"]);
        for name in ["cpu", "cpuacct"] {
            std::os::unix::fs::symlink("cpu,cpuacct", v1.root().join(name)).unwrap();
        }
        let found = v1.detect();
        assert_eq!(found.bases.len(), 3);
        assert_eq!(found.bases[1].controllers, [Controller::Cpu, Controller::Cpuacct]);
    }
}
