//! What the host itself has in use.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Map, Value};

/// What /proc/meminfo tells that an instance could leave in use (proc_meminfo(5)).
const MEMINFO: [&str; 7] =
    ["MemAvailable", "MemFree", "Slab", "SUnreclaim", "PageTables", "SecPageTables", "Percpu"];

/// One look at the host: figures in bytes, and numbers of things.
#[derive(Debug, Clone)]
pub struct Host {
    /// By the kernel's name, bytes.
    pub bytes: Vec<(&'static str, f64)>,
    /// Numbers of things that must be the same again once every instance is gone.
    pub counts: Vec<(&'static str, f64)>,
    /// Control groups that are removed and not yet forgotten: the kernel forgets them when their
    /// last page goes.
    pub dying_cgroups: f64,
}

impl Host {
    /// Reads all of it.
    pub fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").expect("read meminfo");
        let bytes =
            MEMINFO.iter().filter_map(|&name| Some((name, 1024.0 * keyed(&meminfo, name)?)));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
        let root = Path::new("/sys/fs/cgroup");
        let stat = fs::read_to_string(root.join("cgroup.stat")).expect("read cgroup.stat");
        Self {
            bytes: bytes.collect(),
            counts: vec![
                ("mounts", mounts.lines().count() as f64),
                ("network namespaces", network_namespaces() as f64),
                ("control groups", directories(root) as f64),
            ],
            dying_cgroups: keyed(&stat, "nr_dying_descendants").unwrap_or(f64::NAN),
        }
    }

    /// All figures, by name.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let dying = ("dying control groups", self.dying_cgroups);
        self.bytes.iter().chain(&self.counts).copied().chain([dying]).collect()
    }

    /// All figures, for the record.
    pub fn json(&self) -> Value {
        let figures = self.figures().into_iter();
        figures.map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>().into()
    }
}

/// The number that follows a key and perhaps a colon.
fn keyed(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()?.trim_end_matches(':') == key).then(|| words.next()?.parse().ok())?
    })
}

/// Those that a process or thread is in, and those that only the kernel still knows.
fn network_namespaces() -> usize {
    let slab = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    if let Some(active) = keyed(&slab, "net_namespace") {
        return active as usize;
    }
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let links = processes.filter_map(|one| fs::read_link(one.path().join("ns/net")).ok());
    links.collect::<BTreeSet<_>>().len()
}

fn directories(path: &Path) -> usize {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let found = below.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + found.map(|one| directories(&one.path())).sum::<usize>()
}
