//! Removing what a killed run left behind: groups whose name says that a dead process of ours made
//! them. Everything else is left alone.

use std::{io, path::Path};

use crate::{
    Hierarchy, Parent, files,
    hierarchy::Base,
    leaf::{children, kill_all, remove_dir},
    owner::Owner,
};

impl Parent {
    /// Finds groups named as [`Parent::create`] names them whose owner no longer lives, kills what
    /// is in them and removes them. One line for each thing removed, or that could not be.
    pub fn reclaim(hierarchy: &Hierarchy) -> Vec<String> {
        let mut lines = Vec::new();
        // What is frozen dies only once it is thawed: its groups go first.
        let own_mounts = |base: &&Base| hierarchy.bases.iter().all(|other| other.dir != base.dir);
        for base in hierarchy.on_request.iter().filter(own_mounts).chain(&hierarchy.bases) {
            for name in children(&base.dir).unwrap_or_default() {
                if Owner::parse(&name).is_none_or(|owner| owner.lives(&hierarchy.proc)) {
                    continue;
                }
                let dir = base.dir.join(name);
                match reclaim_group(&dir, &mut lines) {
                    Ok(()) => lines.push(format!("cgroup {} of a dead run", dir.display())),
                    Err(error) => lines
                        .push(format!("cgroup {} could not be removed: {error}", dir.display())),
                }
            }
        }
        lines
    }
}

/// Kills and removes a group and its leaves.
fn reclaim_group(dir: &Path, lines: &mut Vec<String>) -> io::Result<()> {
    let leaves = match children(dir) {
        // Another run was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for leaf in leaves {
        reclaim_group(&dir.join(leaf), lines)?;
    }
    let pids = files::pids(&dir.join("cgroup.procs")).unwrap_or_default();
    // A process of another PID namespace shows as 0: its group's owner may live there, unseen.
    if pids.contains(&0) {
        return Err(io::Error::other("a process of another PID namespace is in it"));
    }
    if !pids.is_empty() {
        kill_all(dir)?;
        lines.extend(pids.iter().map(|pid| format!("process {pid} in {}", dir.display())));
    }
    remove_dir(dir).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fake::Fake;

    #[test]
    fn only_groups_of_dead_owners_go() {
        let fake = Fake::v2("memory");
        let mine = Owner::this(Path::new("/proc")).unwrap().name();
        for name in ["compare-999999999-5/leaf", &mine, "compare-app", "docker"] {
            fs::create_dir_all(fake.root().join(name)).unwrap();
        }
        let lines = Parent::reclaim(&fake.detect());
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("compare-999999999-5"));
        assert!(!fake.root().join("compare-999999999-5").exists());
        for kept in [&mine, "compare-app", "docker"] {
            assert!(fake.root().join(kept).exists(), "{kept}");
        }
        assert!(Parent::reclaim(&fake.detect()).is_empty());
    }
}
