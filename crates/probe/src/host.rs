//! The facts of this machine, from `/proc` and `/sys`. The root is injected, so that tests can set
//! up any machine in a directory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use compare_spec::{CgroupMode, Clock, HostFacts, HostKind, KvmKind, Unavailable};

/// Reads the facts below `root` (`/`). What stands behind `/dev/kvm` and how cgroups are mounted are
/// found out by those who use them, and given.
pub fn host_facts(
    root: &Path,
    kind: HostKind,
    clock: Clock,
    kvm: KvmKind,
    cgroup: CgroupMode,
) -> HostFacts {
    let files = Files { root: root.to_owned() };
    HostFacts {
        kind,
        clock,
        kvm,
        cgroup,
        kernel: files.word("proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
        cpu: files.field("proc/cpuinfo", "model name"),
        microcode: files.field("proc/cpuinfo", "microcode"),
        cpus: files
            .word("sys/devices/system/cpu/online")
            .and_then(|list| count_cpus(&list))
            .unwrap_or(1),
        smt: files.flag("sys/devices/system/cpu/smt/active"),
        governor: files.word("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo: files
            .flag("sys/devices/system/cpu/intel_pstate/no_turbo")
            .map(|off| !off)
            .or_else(|| files.flag("sys/devices/system/cpu/cpufreq/boost")),
        mitigations: files.all("sys/devices/system/cpu/vulnerabilities"),
        memory_bytes: files
            .field("proc/meminfo", "MemTotal")
            .and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok())
            .map_or(0, |kib| kib << 10),
        thp: files
            .word("sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|text| chosen(&text)),
        ksm: files.flag("sys/kernel/mm/ksm/run"),
        nx_huge_pages: files.word("sys/module/kvm/parameters/nx_huge_pages"),
        favordynmods: files.word("proc/self/mounts").map(|mounts| {
            mounts.lines().any(|line| line.contains(" cgroup2 ") && line.contains("favordynmods"))
        }),
        clocksource: files.word("sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }
}

/// The facts that could not be read, for the record's `unavailable`.
pub fn unavailable_facts(facts: &HostFacts) -> Vec<Unavailable> {
    let absent = [
        ("cpu", facts.cpu.is_none(), "/proc/cpuinfo names no model"),
        ("microcode", facts.microcode.is_none(), "/proc/cpuinfo tells no revision"),
        ("smt", facts.smt.is_none(), "the kernel has no SMT control"),
        ("governor", facts.governor.is_none(), "no cpufreq driver"),
        ("turbo", facts.turbo.is_none(), "no cpufreq driver tells it"),
        ("thp", facts.thp.is_none(), "the kernel has no transparent huge pages"),
        ("ksm", facts.ksm.is_none(), "the kernel has no same-page merging"),
        ("nx_huge_pages", facts.nx_huge_pages.is_none(), "no kvm module with that parameter"),
        ("clocksource", facts.clocksource.is_none(), "not in /sys"),
    ];
    absent
        .into_iter()
        .filter(|(_, is_absent, _)| *is_absent)
        .map(|(figure, _, reason)| Unavailable {
            figure: format!("host.{figure}"),
            backend: None,
            reason: reason.to_owned(),
        })
        .collect()
}

struct Files {
    root: PathBuf,
}

impl Files {
    /// A file's text without the white space around it.
    fn word(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The value of the first line `NAME : VALUE`.
    fn field(&self, path: &str, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_owned())
    }

    /// A file that holds 0 or 1.
    fn flag(&self, path: &str) -> Option<bool> {
        match self.word(path)?.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// Every file of a directory by name.
    fn all(&self, path: &str) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.root.join(path)) else { return BTreeMap::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Some((name.clone(), self.word(&format!("{path}/{name}"))?)))
            .collect()
    }
}

/// The number of CPUs in a list such as `0-3,8` (cpuset(7), "List format").
fn count_cpus(list: &str) -> Option<u32> {
    list.split(',')
        .map(|range| match range.split_once('-') {
            Some((first, last)) => {
                Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
            }
            None => range.parse::<u32>().ok().map(|_| 1),
        })
        .sum()
}

/// The chosen word of a list such as `always [madvise] never`.
fn chosen(list: &str) -> Option<String> {
    let (_, rest) = list.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_from_the_given_root() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.1.0-test\n"),
            ("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU\nmicrocode\t: 0x7\n"),
            ("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n"),
            ("sys/devices/system/cpu/online", "0-3,8\n"),
            ("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let facts =
            host_facts(root.path(), HostKind::Local, Clock::Real, KvmKind::None, CgroupMode::V2);
        assert_eq!(facts.kernel, "6.1.0-test");
        assert_eq!(facts.cpu.as_deref(), Some("Some CPU"));
        assert_eq!((facts.cpus, facts.memory_bytes, facts.turbo), (5, 2 << 20, Some(false)));
        assert_eq!(facts.thp.as_deref(), Some("madvise"));
        assert_eq!(facts.mitigations["meltdown"], "Not affected");
        let missing: Vec<String> =
            unavailable_facts(&facts).into_iter().map(|one| one.figure).collect();
        assert_eq!(
            missing,
            ["host.smt", "host.governor", "host.ksm", "host.nx_huge_pages", "host.clocksource"]
        );
    }
}
