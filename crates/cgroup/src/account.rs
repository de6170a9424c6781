//! What a leaf is charged: memory by kind, CPU time, kills. A figure its cgroup version cannot
//! tell is `None`, with the reason beside it, never 0.

use std::io;

use compare_spec::CgroupMode;

use crate::{Controller, Leaf, files};

/// A leaf's memory charge, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryCharge {
    /// All of it now (v2 `memory.current`, v1 `memory.usage_in_bytes`).
    pub current: Option<u64>,
    /// The most it ever was (v2 `memory.peak`, Linux 5.19; v1 `memory.max_usage_in_bytes`).
    pub peak: Option<u64>,
    /// Anonymous memory (v2 `anon`, v1 `total_rss`).
    pub anon: Option<u64>,
    /// Page cache, tmpfs included (v2 `file`, v1 `total_cache`).
    pub file: Option<u64>,
    /// Kernel memory of all kinds (v2 `kernel`, Linux 5.18; v1 `memory.kmem.usage_in_bytes`).
    pub kernel: Option<u64>,
    /// Page tables (v2 only).
    pub pagetables: Option<u64>,
    /// Page tables of virtual machines (v2 only, Linux 6.1).
    pub sec_pagetables: Option<u64>,
    /// Slab (v2 only).
    pub slab: Option<u64>,
    /// Socket buffers (v2 `sock`, v1 `memory.kmem.tcp.usage_in_bytes`).
    pub sock: Option<u64>,
    /// Each figure above that is `None`, and why.
    pub unavailable: Vec<(&'static str, String)>,
}

impl MemoryCharge {
    /// The value, or none and a note why.
    fn note(&mut self, figure: &'static str, value: Result<u64, String>) -> Option<u64> {
        value.map_err(|reason| self.unavailable.push((figure, reason))).ok()
    }
}

impl Leaf {
    /// What it is charged now.
    pub fn memory(&self) -> MemoryCharge {
        let mut charge = MemoryCharge::default();
        let Some(dir) = self.dir(Controller::Memory) else {
            let reason = self.why_missing(Controller::Memory).to_owned();
            for figure in [
                "current",
                "peak",
                "anon",
                "file",
                "kernel",
                "pagetables",
                "sec_pagetables",
                "slab",
                "sock",
            ] {
                charge.unavailable.push((figure, reason.clone()));
            }
            return charge;
        };
        let number =
            |name: &str| files::number(&dir.join(name)).map_err(|error| format!("{name}: {error}"));
        let stat = files::read(&dir.join("memory.stat")).unwrap_or_default();
        let keyed = |key: &str| {
            files::keyed(&stat, key)
                .ok_or_else(|| format!("memory.stat has no `{key}` on this kernel"))
        };
        let v1_lacks = || Err("cgroup v1 does not tell it apart".to_owned());
        if self.mode == CgroupMode::V2 {
            charge.current = charge.note("current", number("memory.current"));
            charge.peak = charge.note("peak", number("memory.peak"));
            charge.anon = charge.note("anon", keyed("anon"));
            charge.file = charge.note("file", keyed("file"));
            charge.kernel = charge.note("kernel", keyed("kernel"));
            charge.pagetables = charge.note("pagetables", keyed("pagetables"));
            charge.sec_pagetables = charge.note("sec_pagetables", keyed("sec_pagetables"));
            charge.slab = charge.note("slab", keyed("slab"));
            charge.sock = charge.note("sock", keyed("sock"));
        } else {
            charge.current = charge.note("current", number("memory.usage_in_bytes"));
            charge.peak = charge.note("peak", number("memory.max_usage_in_bytes"));
            charge.anon = charge.note("anon", keyed("total_rss"));
            charge.file = charge.note("file", keyed("total_cache"));
            charge.kernel = charge.note("kernel", number("memory.kmem.usage_in_bytes"));
            charge.pagetables = charge.note("pagetables", v1_lacks());
            charge.sec_pagetables = charge.note("sec_pagetables", v1_lacks());
            charge.slab = charge.note("slab", v1_lacks());
            charge.sock = charge.note("sock", number("memory.kmem.tcp.usage_in_bytes"));
        }
        charge
    }

    /// How often the kernel killed a process in it for want of memory (v2 `memory.events`, v1
    /// `memory.oom_control` since Linux 4.13).
    pub fn oom_kills(&self) -> Option<u64> {
        let file = if self.mode == CgroupMode::V2 { "memory.events" } else { "memory.oom_control" };
        self.count(Controller::Memory, file, "oom_kill")
    }

    /// How often a fork in it failed at the pids limit (`pids.events`).
    pub fn pids_limit_hits(&self) -> Option<u64> {
        self.count(Controller::Pids, "pids.events", "max")
    }

    /// CPU time its processes used, nanoseconds (v2 `cpu.stat`, v1 `cpuacct.usage`).
    pub fn cpu_usage_ns(&self) -> Option<u64> {
        if self.mode == CgroupMode::V2 {
            return Some(self.count(Controller::Cpuacct, "cpu.stat", "usage_usec")? * 1000);
        }
        files::number(&self.dir(Controller::Cpuacct)?.join("cpuacct.usage")).ok()
    }

    fn count(&self, controller: Controller, file: &str, key: &str) -> Option<u64> {
        let text: io::Result<String> = std::fs::read_to_string(self.dir(controller)?.join(file));
        files::keyed(&text.ok()?, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Parent, fake::Fake};

    fn leaf(fake: &Fake, files: &[(&str, &str)]) -> (Parent, Leaf) {
        let parent = Parent::create(&fake.detect()).unwrap();
        let leaf = parent.create_leaf("l", &Limits::default()).unwrap();
        for group in &leaf.groups {
            for (name, text) in files {
                std::fs::write(group.dir.join(name), text).unwrap();
            }
        }
        (parent, leaf)
    }

    #[test]
    fn v2_figures_and_what_an_older_kernel_lacks() {
        let fake = Fake::v2("memory cpu pids");
        let (_parent, leaf) = leaf(
            &fake,
            &[
                ("memory.current", "9000\n"),
                (
                    "memory.stat",
                    "anon 1\nanon_thp 7\nfile 2\nkernel 3\npagetables 4\nslab 5\nslab_x 6\nsock 0\n",
                ),
                ("memory.events", "low 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 9\n"),
                ("pids.events", "max 4\n"),
                ("cpu.stat", "usage_usec 12\nuser_usec 3\n"),
            ],
        );
        let charge = leaf.memory();
        assert_eq!((charge.current, charge.anon, charge.file), (Some(9000), Some(1), Some(2)));
        assert_eq!((charge.slab, charge.sock, charge.peak), (Some(5), Some(0), None));
        let missing: Vec<_> = charge.unavailable.iter().map(|(figure, _)| *figure).collect();
        assert_eq!(missing, ["peak", "sec_pagetables"]);
        assert_eq!((leaf.oom_kills(), leaf.pids_limit_hits()), (Some(1), Some(4)));
        assert_eq!(leaf.cpu_usage_ns(), Some(12_000));
    }

    #[test]
    fn v1_figures_and_what_it_cannot_tell() {
        let fake = Fake::v1(&["memory", "cpu", "cpuacct", "pids"]);
        let (_parent, leaf) = leaf(
            &fake,
            &[
                ("memory.usage_in_bytes", "100\n"),
                ("memory.max_usage_in_bytes", "200\n"),
                ("memory.kmem.usage_in_bytes", "30\n"),
                ("memory.stat", "cache 9\nrss 9\ntotal_cache 50\ntotal_rss 20\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                ("cpuacct.usage", "77\n"),
            ],
        );
        let charge = leaf.memory();
        assert_eq!((charge.current, charge.peak), (Some(100), Some(200)));
        assert_eq!((charge.anon, charge.file, charge.kernel), (Some(20), Some(50), Some(30)));
        assert!(charge.pagetables.is_none() && charge.slab.is_none() && charge.sock.is_none());
        assert_eq!(charge.unavailable.len(), 4);
        assert_eq!((leaf.oom_kills(), leaf.cpu_usage_ns()), (Some(2), Some(77)));
        assert_eq!(leaf.pids_limit_hits(), None);
    }

    #[test]
    fn garbage_is_unavailable_not_zero() {
        let fake = Fake::v2("memory");
        let (_parent, leaf) =
            leaf(&fake, &[("memory.current", "max\n"), ("memory.stat", "anon x\n")]);
        let charge = leaf.memory();
        assert_eq!((charge.current, charge.anon), (None, None));
        assert_eq!(charge.unavailable.len(), 9);
    }
}
