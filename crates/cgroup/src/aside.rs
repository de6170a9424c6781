//! Making room in a group that was handed to this program (systemd: `Delegate=yes`): the program
//! itself is born in it, but a v2 group may not both hold processes and hand controllers down
//! (cgroups(7), "no internal processes"). So the program steps aside, into a group of its own below,
//! and back once nothing needs the controllers any more.
//!
//! ```text
//!  run-7.scope  [compare]          run-7.scope              +memory +cpu +pids
//!                            ──►    ├─ compare-7-99-self    [compare]
//!                                   └─ compare-7-99         leaves
//! ```
//! Processes of others in that group are left where they are: they are not ours to move.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{CgroupError, files, leaf::remove_dir, owner};

/// This program's processes in a group of their own, until dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    dir: PathBuf,
    base: PathBuf,
    /// The controllers that `base` handed down before.
    before: String,
}

impl Aside {
    /// Moves this process, and what it started, from `base` to a new group `name` below it.
    pub(crate) fn step(base: &Path, name: &str, proc: &Path) -> Result<Self, CgroupError> {
        let dir = base.join(name);
        let before = files::read(&base.join("cgroup.subtree_control"))?;
        fs::create_dir(&dir).map_err(|source| create_error(&dir, source))?;
        // From here on, dropping it undoes what was done.
        let aside = Self { dir, base: base.to_owned(), before };
        let this = std::process::id() as i32;
        move_all(base, &aside.dir, |pid| owner::descends(proc, pid, this))?;
        Ok(aside)
    }

    /// Takes back the controllers handed down since, without which no process may come back.
    fn undo(&self) -> Result<(), CgroupError> {
        let control = self.base.join("cgroup.subtree_control");
        let now = files::read(&control)?;
        let had = |name: &&str| self.before.split_ascii_whitespace().any(|before| before == *name);
        let given: Vec<String> = now
            .split_ascii_whitespace()
            .filter(|name| !had(name))
            .map(|name| format!("-{name}"))
            .collect();
        if !given.is_empty() {
            files::write(&control, &given.join(" "))?;
        }
        move_all(&self.dir, &self.base, |_| true)?;
        remove_dir(&self.dir)
    }
}

impl Drop for Aside {
    /// Where another run below the same group still needs the controllers, this process ends where it
    /// is, and the next run removes the empty group by its name.
    fn drop(&mut self) {
        let _ = self.undo();
    }
}

/// Moves the processes of one group that are meant to another. Those born meanwhile too: the list is
/// read until it shows no new one.
fn move_all(from: &Path, to: &Path, is_meant: impl Fn(i32) -> bool) -> Result<(), CgroupError> {
    let (list, target) = (from.join("cgroup.procs"), to.join("cgroup.procs"));
    let mut seen = Vec::new();
    loop {
        let pids = files::pids(&list)
            .map_err(|source| CgroupError::Read { path: list.clone(), source })?;
        let fresh: Vec<i32> =
            pids.into_iter().filter(|pid| !seen.contains(pid) && is_meant(*pid)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for &pid in &fresh {
            match files::write(&target, &pid.to_string()) {
                // It ended in the meantime.
                Err(CgroupError::Write { source, .. })
                    if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.map_err(|error| refused(from, error))?,
            }
        }
        seen.extend(fresh);
    }
}

/// What making a group failed by.
pub(crate) fn create_error(dir: &Path, source: io::Error) -> CgroupError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            CgroupError::NotDelegated { path: dir.parent().unwrap_or(dir).to_owned(), source }
        }
        _ => CgroupError::Create { path: dir.to_owned(), source },
    }
}

/// What writing to a file of `group` failed by.
pub(crate) fn refused(group: &Path, error: CgroupError) -> CgroupError {
    match error {
        CgroupError::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            CgroupError::NotDelegated { path: group.to_owned(), source }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Hierarchy, Parent, fake::Fake};

    /// A fake in whose root this process lives, as in a cgroup namespace or a delegated group.
    fn own(is_real_root: bool) -> (Fake, Hierarchy) {
        let (fake, pid) = (Fake::v2("memory cpu pids"), std::process::id());
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        fake.write("proc/self/cgroup", "0::/\n");
        fake.write(&format!("proc/{pid}/stat"), &stat);
        // Somebody else's, which descends from nobody.
        fake.write("proc/77/stat", "77 (x) S 1 77");
        fake.write("cgroup.procs", &format!("77\n{pid}\n"));
        if !is_real_root {
            fake.write("cgroup.type", "domain\n");
        }
        let hierarchy = Hierarchy::detect_in(fake.root(), &fake.root().join("proc")).unwrap();
        (fake, hierarchy)
    }

    #[test]
    fn this_process_steps_aside_in_a_group_of_its_own() {
        let (fake, hierarchy) = own(false);
        let parent = Parent::create(&hierarchy).unwrap();
        let name = parent.path().file_name().unwrap().to_str().unwrap().to_owned();
        let pid = std::process::id().to_string();
        assert_eq!(fake.read(&format!("{name}-self/cgroup.procs")), pid, "and nobody else");
        assert_eq!(fake.read("cgroup.subtree_control"), "+memory +cpu +pids");
        assert!(parent.leaves().is_empty());
        drop(parent);
        assert_eq!(fake.read("cgroup.procs"), pid, "back again");
    }

    #[test]
    fn nobody_moves_in_the_root() {
        let (fake, hierarchy) = own(true);
        let parent = Parent::create(&hierarchy).unwrap();
        let name = parent.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!fake.root().join(format!("{name}-self")).exists());
        drop(parent);
        assert_eq!(fake.read("cgroup.procs"), format!("77\n{}\n", std::process::id()));
    }
}
