//! Holds the workspace to its design: which crate may use which other, and where the libraries that
//! make a crate special may be used. An arrow that is not in this table does not exist.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crate → crates of the workspace it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("wire", &[]),
    ("stats", &[]),
    ("syscall", &[]),
    ("net", &["syscall"]),
    ("virtio", &[]),
    ("confine", &[]),
    ("cgroup", &["spec"]),
    ("image", &["spec"]),
    ("backend", &["spec", "wire", "cgroup"]),
    ("container", &["backend", "spec", "wire", "image", "cgroup", "net", "confine"]),
    ("microvm", &["backend", "spec", "wire", "image", "cgroup", "net", "virtio", "confine"]),
    ("probe", &["backend", "spec", "cgroup"]),
    ("runner", &["spec", "backend", "probe", "cgroup"]),
    ("lab", &["spec", "image"]),
    ("report", &["spec", "stats"]),
    ("init", &["wire", "syscall"]),
    ("hello", &[]),
    ("hostile", &[]),
    ("boot", &["image", "microvm", "net", "spec", "wire"]),
    ("floor", &["backend", "cgroup", "container", "net", "probe", "spec"]),
];

/// Library → crates that may use it.
const ROOMS: &[(&str, &[&str])] = &[
    ("kvm-ioctls", &["microvm"]),
    ("kvm-bindings", &["microvm"]),
    ("vm-memory", &["microvm", "virtio"]),
    ("linux-loader", &["microvm"]),
    ("vmm-sys-util", &["microvm"]),
    ("virtio-queue", &["virtio"]),
    ("tokio", &["lab", "cli"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
];

#[test]
fn arrows_go_where_the_design_says() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let arrows: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut seen = 0;
    for package in metadata.packages {
        let name = package.name.trim_start_matches("compare-").to_owned();
        if name == "cli" {
            continue;
        }
        seen += 1;
        let allowed =
            arrows.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            if let Some(used) = dependency.name.strip_prefix("compare-") {
                assert!(allowed.contains(used), "{name} may not use {used}");
            }
            if let Some((_, rooms)) = ROOMS.iter().find(|(library, _)| *library == dependency.name)
            {
                assert!(rooms.contains(&name.as_str()), "{name} may not use {}", dependency.name);
            }
        }
    }
    assert_eq!(seen, ARROWS.len(), "a crate of the table is gone");
}
