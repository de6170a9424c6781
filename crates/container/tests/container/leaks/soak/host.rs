//! What the host itself has in use.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Map, Value};

/// What /proc/meminfo tells that a container could leave in use (proc_meminfo(5)).
const MEMINFO: [&str; 7] =
    ["MemAvailable", "MemFree", "Slab", "SUnreclaim", "PageTables", "KernelStack", "Percpu"];

/// One look at the host. A figure that this kernel does not tell is not there.
#[derive(Debug, Clone)]
pub struct Host {
    /// Figures by the kernel's name, bytes.
    bytes: Vec<(&'static str, f64)>,
    /// Numbers of things that must be the same again once every container is gone.
    pub counts: Vec<(&'static str, f64)>,
    /// Numbers of things that the kernel gives up by itself, later: network namespaces, and control
    /// groups that are removed, when their last page goes.
    later: Vec<(&'static str, f64)>,
}

impl Host {
    /// Reads all of it.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let meminfo = text("/proc/meminfo");
        let bytes =
            MEMINFO.iter().filter_map(|&name| Some((name, 1024.0 * keyed(&meminfo, name)?)));
        let root = Path::new("/sys/fs/cgroup");
        let dying = keyed(&text("/sys/fs/cgroup/cgroup.stat"), "nr_dying_descendants");
        let slab = keyed(&text("/proc/slabinfo"), "net_namespace");
        let later = [
            ("network namespaces, of processes", Some(network_namespaces() as f64)),
            ("network namespaces, of the kernel", slab),
            ("dying control groups", dying),
        ];
        Self {
            bytes: bytes.collect(),
            counts: vec![
                ("mounts", text("/proc/thread-self/mountinfo").lines().count() as f64),
                ("control groups", directories(root) as f64),
                ("descriptors", fs::read_dir("/proc/self/fd").unwrap().count() as f64),
                ("processes", processes() as f64),
            ],
            later: later.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        }
    }

    /// All figures, by name.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        self.bytes.iter().chain(&self.counts).chain(&self.later).copied().collect()
    }

    /// One figure.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures().into_iter().find(|figure| figure.0 == name).map(|figure| figure.1)
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

/// The processes of this program's users: kernel threads, which come and go, have no executable.
fn processes() -> usize {
    let all = fs::read_dir("/proc").expect("list processes").flatten();
    all.filter(|one| fs::read_link(one.path().join("exe")).is_ok()).count()
}

/// Those that a process is in.
fn network_namespaces() -> usize {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let links = processes.filter_map(|one| fs::read_link(one.path().join("ns/net")).ok());
    links.collect::<BTreeSet<_>>().len()
}

fn directories(path: &Path) -> usize {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let found = below.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + found.map(|one| directories(&one.path())).sum::<usize>()
}
