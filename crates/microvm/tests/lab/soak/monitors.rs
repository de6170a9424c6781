//! Memory of the monitors: sums over running instances, and one of them by mapping.

use std::{collections::BTreeMap, fs};

use compare_backend::Instance;
use serde_json::{Value, json};

/// Sums over instances, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    /// Proportional share of all pages (proc_pid_smaps(5)).
    pub pss: f64,
    /// Pages nobody else maps.
    pub uss: f64,
    /// Resident pages.
    pub rss: f64,
    /// What the instances' control groups are charged.
    pub charge: f64,
    /// Of it: anonymous pages.
    pub anon: f64,
    /// Of it: kernel memory of all kinds.
    pub kernel: f64,
    /// Of it: page tables of processes and of virtual machines.
    pub page_tables: f64,
}

impl Sum {
    /// Adds up all of them; tells how far it is.
    pub fn of(instances: &[Box<dyn Instance>]) -> Self {
        let mut sum = Self::default();
        for (read_before, instance) in instances.iter().enumerate() {
            if read_before > 0 && read_before.is_multiple_of(20) {
                println!("memory of {read_before} of {} monitors is read", instances.len());
            }
            read(instance.as_ref(), "smaps_rollup").iter().for_each(|text| sum.add(text));
            let charge = instance.leaf().memory();
            let bytes = |figure: Option<u64>| figure.unwrap_or(0) as f64;
            sum.charge += bytes(charge.current);
            sum.anon += bytes(charge.anon);
            sum.kernel += bytes(charge.kernel);
            sum.page_tables += bytes(charge.pagetables) + bytes(charge.sec_pagetables);
        }
        sum
    }

    fn add(&mut self, text: &str) {
        for (name, bytes) in text.lines().filter_map(field) {
            match name {
                "Pss" => self.pss += bytes,
                "Rss" => self.rss += bytes,
                "Private_Clean" | "Private_Dirty" => self.uss += bytes,
                _ => {}
            }
        }
    }

    /// All figures, by name.
    pub fn figures(&self) -> [(&'static str, f64); 7] {
        [
            ("pss", self.pss),
            ("uss", self.uss),
            ("rss", self.rss),
            ("charge", self.charge),
            ("anon", self.anon),
            ("kernel", self.kernel),
            ("page_tables", self.page_tables),
        ]
    }
}

/// This file of every process of the instance.
fn read(instance: &dyn Instance, file: &str) -> Vec<String> {
    let pids = instance.leaf().procs().expect("processes of the instance");
    let texts: Vec<String> = pids
        .iter()
        // KVM's worker, a kernel thread in the monitor's control group, has no memory to tell of.
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/{file}")).ok())
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(texts.len(), 1, "monitors in {}: {pids:?}", instance.leaf().name());
    texts
}

/// A line such as `Pss:   12 kB`, in bytes.
fn field(line: &str) -> Option<(&str, f64)> {
    let (name, value) = line.split_once(':')?;
    let kib: f64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((name, kib * 1024.0))
}

/// The mappings of an instance's monitor, those that hold most private bytes first.
pub fn mappings(instance: &dyn Instance) -> Value {
    let mut found: BTreeMap<String, BTreeMap<&str, f64>> = BTreeMap::new();
    for text in read(instance, "smaps") {
        let mut name = String::new();
        for line in text.lines() {
            if let Some((figure, bytes)) = field(line) {
                let kept = ["Size", "Rss", "Pss", "Private_Clean", "Private_Dirty", "Shared_Clean"];
                if let Some(kept) = kept.iter().find(|kept| **kept == figure) {
                    *found.entry(name.clone()).or_default().entry(kept).or_default() += bytes;
                }
            } else if let Some(start) =
                line.split_once('-').and_then(|(start, _)| u64::from_str_radix(start, 16).ok())
            {
                name = title(line, instance.guest_ram().iter().any(|range| range.contains(&start)));
            }
        }
    }
    let mut all: Vec<_> = found.into_iter().collect();
    let private = |one: &BTreeMap<&str, f64>| {
        ["Private_Clean", "Private_Dirty"].iter().filter_map(|name| one.get(name)).sum::<f64>()
    };
    all.sort_by(|one, other| private(&other.1).total_cmp(&private(&one.1)));
    all.iter().map(|(name, bytes)| json!({ "mapping": name, "bytes": bytes })).collect()
}

/// What a mapping is: its permissions, and its file or kind.
fn title(line: &str, is_guest_ram: bool) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let permissions = words.get(1).unwrap_or(&"");
    let file = words.get(5).map_or("anonymous", |path| path.rsplit('/').next().unwrap_or(path));
    if is_guest_ram { format!("guest RAM ({file})") } else { format!("{file} {permissions}") }
}
