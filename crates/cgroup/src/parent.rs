//! The group this process makes, below which every instance gets its leaf. Its name says who made it
//! (see [`crate::Parent::reclaim`]); it holds no process itself, as v2 requires of a group that
//! hands controllers down (cgroups(7), "no internal processes").

use std::{fs, io, path::Path};

use compare_spec::CgroupMode;

use crate::{
    CgroupError, Controller, Hierarchy, Leaf, Limits,
    aside::{Aside, create_error, refused},
    files,
    hierarchy::Base,
    leaf::{self, Group},
    limits::inherit_cpuset,
    owner::Owner,
};

/// This process's group in every hierarchy needed. Removed when dropped.
#[derive(Debug)]
pub struct Parent {
    mode: CgroupMode,
    groups: Vec<Base>,
    /// Where a leaf goes besides if its limits need it; made by the first that does.
    on_request: Vec<Base>,
    missing: Vec<(Controller, String)>,
    /// Where this process itself went, if it had to make room. Comes back last.
    _aside: Option<Aside>,
}

impl Parent {
    /// Makes `compare-PID-STARTTIME` in every hierarchy needed. A controller that is not there is
    /// an error only once a limit needs it; figures it would give are unavailable.
    ///
    /// # Errors
    /// No control groups are mounted, this user may make none, the group exists already (one parent per
    /// process), or controllers cannot be handed down to it, since processes of others live above.
    pub fn create(hierarchy: &Hierarchy) -> Result<Self, CgroupError> {
        if hierarchy.bases.is_empty() {
            return Err(CgroupError::NotMounted { root: hierarchy.root().to_owned() });
        }
        let missing = Controller::ALL
            .into_iter()
            .chain(Controller::ON_REQUEST)
            .filter_map(|controller| Some((controller, hierarchy.missing(controller)?.to_owned())))
            .collect();
        let mut parent = Self {
            mode: hierarchy.mode(),
            groups: Vec::new(),
            on_request: Vec::new(),
            missing,
            _aside: None,
        };
        let owner = Owner::this(&hierarchy.proc).ok_or_else(|| CgroupError::Read {
            path: hierarchy.proc.join("self/stat"),
            source: io::Error::from(io::ErrorKind::InvalidData),
        })?;
        for base in &hierarchy.bases {
            let dir = base.dir.join(owner.name());
            if hierarchy.mode() == CgroupMode::V2 {
                if hierarchy.is_own(&base.dir) {
                    let name = owner.own_name();
                    parent._aside = Some(Aside::step(&base.dir, &name, &hierarchy.proc)?);
                }
                hand_down(&base.dir, &base.controllers)?;
            }
            fs::create_dir(&dir).map_err(|source| create_error(&dir, source))?;
            parent.groups.push(Base { dir: dir.clone(), controllers: base.controllers.clone() });
            parent.furnish(&dir, &base.controllers)?;
            if hierarchy.mode() == CgroupMode::V2 {
                hand_down(&dir, &base.controllers)?;
            }
        }
        let below = |base: &Base| Base { dir: base.dir.join(owner.name()), ..base.clone() };
        parent.on_request = hierarchy.on_request.iter().map(below).collect();
        Ok(parent)
    }

    /// Makes a leaf below it with these limits.
    ///
    /// # Errors
    /// The name does not fit a directory, the leaf exists, or a limit cannot be set. Nothing is
    /// left of it then.
    pub fn create_leaf(&self, name: &str, limits: &Limits) -> Result<Leaf, CgroupError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(CgroupError::Name(name.to_owned()));
        }
        let mut leaf = Leaf::new(name, self.mode);
        for base in &self.groups {
            let dir = base.dir.join(name);
            fs::create_dir(&dir)
                .map_err(|source| CgroupError::Create { path: dir.clone(), source })?;
            leaf.groups.push(Group { dir: dir.clone(), controllers: base.controllers.clone() });
            self.furnish(&dir, &base.controllers)?;
        }
        leaf.missing.clone_from(&self.missing);
        for controller in limits.on_request(self.mode) {
            let offered =
                self.on_request.iter().find(|base| base.controllers.contains(&controller));
            if let Some(base) = offered {
                self.extend(&mut leaf, base)?;
            }
        }
        leaf.limit(limits)?;
        Ok(leaf)
    }

    /// Gives a leaf controllers that not every leaf has.
    fn extend(&self, leaf: &mut Leaf, base: &Base) -> Result<(), CgroupError> {
        if self.mode == CgroupMode::V2 {
            for dir in [base.dir.parent().unwrap_or(&base.dir), &base.dir] {
                hand_down(dir, &base.controllers)?;
            }
            // The one group it has on v2.
            leaf.groups.iter_mut().for_each(|group| group.controllers.extend(&base.controllers));
            return Ok(());
        }
        let dir = base.dir.join(leaf.name());
        // Ours: another leaf before this one may have needed it.
        match fs::create_dir(&base.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(|source| create_error(&base.dir, source))?;
                self.furnish(&base.dir, &base.controllers)?;
            }
        }
        fs::create_dir(&dir).map_err(|source| CgroupError::Create { path: dir.clone(), source })?;
        leaf.groups.push(Group { dir: dir.clone(), controllers: base.controllers.clone() });
        self.furnish(&dir, &base.controllers)
    }

    /// Puts into a new group what it needs before it takes processes.
    fn furnish(&self, dir: &Path, controllers: &[Controller]) -> Result<(), CgroupError> {
        if self.mode != CgroupMode::V2 && controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(dir)?;
        }
        Ok(())
    }

    /// The names of the leaves that exist below it: empty once every instance is gone.
    pub fn leaves(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .groups
            .iter()
            .flat_map(|group| leaf::children(&group.dir).unwrap_or_default())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Its directory in the hierarchy that holds the memory controller, or the first one.
    pub fn path(&self) -> &Path {
        let memory =
            self.groups.iter().find(|group| group.controllers.contains(&Controller::Memory));
        &memory.or(self.groups.first()).expect("create makes at least one group").dir
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for group in self.on_request.iter().chain(&self.groups) {
            let _ = leaf::remove_dir(&group.dir);
        }
    }
}

/// Lets groups below `dir` use the controllers (cgroups(7), `cgroup.subtree_control`). Reads
/// first: a write that changes nothing still takes the global cgroup lock.
fn hand_down(dir: &Path, controllers: &[Controller]) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.subtree_control");
    let have = if path.exists() { files::read(&path)? } else { String::new() };
    let wanted: Vec<String> = controllers
        .iter()
        // CPU time is part of every v2 group, without a controller.
        .filter(|controller| **controller != Controller::Cpuacct)
        .filter(|controller| !have.split_ascii_whitespace().any(|name| name == controller.name()))
        .map(|controller| format!("+{controller}"))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    files::write(&path, &wanted.join(" ")).map_err(|error| match error {
        CgroupError::Write { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
            let pids = files::pids(&dir.join("cgroup.procs")).unwrap_or_default();
            CgroupError::Occupied { path: dir.to_owned(), pids }
        }
        other => refused(dir, other),
    })
}

#[cfg(test)]
mod tests {
    use compare_spec::Bytes;

    use super::*;
    use crate::fake::Fake;

    fn limits() -> Limits {
        Limits {
            memory: Some(Bytes::mib(64)),
            cpus: Some(0.5),
            pids: Some(32),
            ..Limits::default()
        }
    }

    #[test]
    fn v2_controllers_are_handed_down_and_limits_written() {
        let fake = Fake::v2("cpuset cpu io memory pids");
        let parent = Parent::create(&fake.detect()).unwrap();
        assert_eq!(fake.read("cgroup.subtree_control"), "+memory +cpu +pids");
        let leaf = parent.create_leaf("a-1", &limits()).unwrap();
        let read = |name: &str| fs::read_to_string(leaf.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("pids.max"), "32");
        assert_eq!(parent.leaves(), ["a-1"]);
        assert!(parent.create_leaf("a-1", &limits()).is_err(), "names are unique");
        assert!(parent.create_leaf("../x", &limits()).is_err());
    }

    #[test]
    fn v1_limits_go_to_each_hierarchy() {
        let fake = Fake::v1(&["memory", "cpu", "cpuacct", "pids"]);
        let parent = Parent::create(&fake.detect()).unwrap();
        let leaf = parent.create_leaf("b", &limits()).unwrap();
        let name = parent.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(fake.read(&format!("memory/{name}/b/memory.limit_in_bytes")), "67108864");
        assert_eq!(fake.read(&format!("cpu/{name}/b/cpu.cfs_quota_us")), "50000");
        assert_eq!(fake.read(&format!("pids/{name}/b/pids.max")), "32");
        assert!(leaf.path().starts_with(fake.root().join("memory")));
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_with_the_reason() {
        let fake = Fake::v2("memory");
        let parent = Parent::create(&fake.detect()).unwrap();
        let error = parent.create_leaf("c", &limits()).unwrap_err().to_string();
        assert!(error.contains("`cpu`") && error.contains("cgroup.controllers"), "{error}");
        parent
            .create_leaf("d", &Limits { memory: Some(Bytes::mib(64)), ..Limits::default() })
            .unwrap();
    }

    #[test]
    fn without_a_mount_the_remedy_is_named() {
        let error = Parent::create(&Fake::empty().detect()).unwrap_err().to_string();
        assert!(error.contains("mount -t cgroup2"), "{error}");
    }
}
