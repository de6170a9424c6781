//! Everything this process holds that a trial could leave behind. Taken before and after: any
//! difference is a leak.

use std::{collections::BTreeSet, fs, io};

/// What this process, its network and mount namespace and its cgroup hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors: `number → target`.
    descriptors: BTreeSet<String>,
    /// Network interfaces of the calling thread's namespace.
    links: BTreeSet<String>,
    /// Mount points of the calling thread's namespace.
    mounts: BTreeSet<String>,
    /// Leaf cgroups of the run.
    leaves: BTreeSet<String>,
    /// Children of any thread, zombies included.
    children: BTreeSet<String>,
}

impl Footprint {
    /// Takes it; `leaves` are the leaf cgroups that the run has now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn take(leaves: Vec<String>) -> io::Result<Self> {
        Ok(Self {
            descriptors: descriptors()?,
            links: lines("/proc/thread-self/net/dev", |line| {
                Some(line.split_once(':')?.0.trim().to_owned())
            })?,
            mounts: lines("/proc/thread-self/mountinfo", |line| {
                Some(line.split(' ').nth(4)?.to_owned())
            })?,
            leaves: leaves.into_iter().collect(),
            children: children()?,
        })
    }

    /// What is there now and was not before, in words.
    pub fn grown_since(&self, before: &Self) -> Vec<String> {
        let kinds = [
            ("descriptor", &self.descriptors, &before.descriptors),
            ("network interface", &self.links, &before.links),
            ("mount", &self.mounts, &before.mounts),
            ("cgroup", &self.leaves, &before.leaves),
            ("process", &self.children, &before.children),
        ];
        kinds
            .iter()
            .flat_map(|(kind, now, then)| {
                now.difference(then).map(move |thing| format!("{kind} {thing}"))
            })
            .collect()
    }
}

fn lines(path: &str, pick: impl Fn(&str) -> Option<String>) -> io::Result<BTreeSet<String>> {
    Ok(fs::read_to_string(path)?.lines().filter_map(pick).collect())
}

fn descriptors() -> io::Result<BTreeSet<String>> {
    let entries = fs::read_dir("/proc/self/fd")?;
    // The descriptor of this very listing is closed by the time its link is read.
    Ok(entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            Some(format!("{} → {}", path.file_name()?.to_str()?, target.display()))
        })
        .filter(|text| !text.contains("/proc/") || !text.ends_with("/fd"))
        .collect())
}

fn children() -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task")? {
        // Without CONFIG_PROC_CHILDREN there is no such file, and no such check.
        let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(str::to_owned));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_file_and_a_leaf_show() {
        let before = Footprint::take(Vec::new()).unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        let after = Footprint::take(vec!["t0".to_owned()]).unwrap();
        let grown = after.grown_since(&before);
        assert!(
            grown.iter().any(|what| what.starts_with("descriptor") && what.ends_with("/dev/null")),
            "{grown:?}"
        );
        assert!(grown.contains(&"cgroup t0".to_owned()), "{grown:?}");
        drop(file);
        let again = Footprint::take(Vec::new()).unwrap();
        assert!(!again.grown_since(&before).iter().any(|what| what.contains("/dev/null")));
    }
}
