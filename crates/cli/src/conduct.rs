//! Carries out a plan on the machine this process runs on, be it the user's or the emulated one.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::{Context, Result, bail};
use compare_backend::Backend;
use compare_cgroup::{Hierarchy, Parent};
use compare_container::ContainerBackend;
use compare_lab::Paths;
use compare_microvm::{MicrovmBackend, MicrovmConfig, args::DeviceArgs};
use compare_runner::{Cancel, Scratch, Setting};
use compare_spec::{
    ContainerVariant, HostKind, Image, MemoryPages, Plan, RunEvent, Side, StartMode,
};

/// Where control groups are mounted.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Whether anybody gets transparent huge pages, and who
/// (Documentation/admin-guide/mm/transhuge.rst).
const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Runs the plan in the calling thread, which must be one that lives as long as the run and does
/// nothing else: it moves into network and mount namespaces of its own, so that whatever happens,
/// no interface and no mount outlives it.
///
/// # Errors
/// The host refuses something without which no trial can be made.
pub fn conduct(
    plan: &Plan,
    image: &Image,
    paths: &Paths,
    cancel: &Cancel,
    tell: &mut dyn FnMut(RunEvent),
) -> Result<()> {
    let hierarchy =
        Hierarchy::detect(Path::new(CGROUP_ROOT)).context("cannot use control groups")?;
    let temporary = std::env::temp_dir();
    for what in Parent::reclaim(&hierarchy).into_iter().chain(Scratch::reclaim(&temporary)) {
        tell(RunEvent::Reclaimed { what });
    }
    compare_net::enter_private_netns()
        .context("cannot make a network namespace: run as root, or see `compare doctor`")?;
    compare_container::enter_private_mounts().context("cannot make a mount namespace")?;
    if plan.microvm_memory_pages == MemoryPages::Thp && plan.host == HostKind::Lab {
        // That machine has none unless it is asked; what it has then is in the host's facts.
        fs::write(THP, "madvise").context("allow transparent huge pages in the emulated host")?;
    }
    let kvm = compare_microvm::kvm_check(Path::new("/dev/kvm")).kind;
    let host =
        compare_probe::host_facts(Path::new("/"), plan.host, plan.clock, kvm, hierarchy.mode());
    if let Some(problem) = no_huge_pages(plan.microvm_memory_pages, host.thp.as_deref()) {
        bail!(problem);
    }
    let unavailable = compare_probe::unavailable_facts(&host);
    // Removed when this function returns, after the last instance is gone.
    let scratch = plan
        .starts
        .contains(&StartMode::Restored)
        .then(|| Scratch::create(&temporary))
        .transpose()
        .with_context(|| {
            format!(
                "cannot make a private directory for snapshots in {}: set TMPDIR to another place",
                temporary.display()
            )
        })?;
    // While the emulated host waits for its disk, its clock of instructions has none to count and
    // leaps from timer to timer, by seconds where this machine is busy.
    let emulated = plan.host == HostKind::Lab;
    if emulated || scratch.is_some() {
        warm_microvm(paths, image);
    }
    if emulated {
        warm_tree(&image.tree);
    }
    let mut backends = backends(plan, paths, scratch.as_ref())?;
    let parent = Parent::create(&hierarchy).context("cannot make a control group for the run")?;
    let setting = Setting {
        plan,
        image,
        backends: &mut backends,
        parent: &parent,
        host,
        artefacts: paths.artefacts.clone(),
        unavailable,
        cancel,
    };
    compare_runner::run(setting, tell)?;
    Ok(())
}

/// Why microVMs cannot have these pages where [`THP`] is `thp`.
fn no_huge_pages(pages: MemoryPages, thp: Option<&str>) -> Option<String> {
    let problem = match (pages, thp) {
        (MemoryPages::Normal, _) | (_, Some("always" | "madvise")) => return None,
        (_, None) => "this kernel has no transparent huge pages".to_owned(),
        (_, Some(thp)) => format!(
            "this host's transparent huge pages are `{thp}`: as root, `echo madvise > {THP}`"
        ),
    };
    Some(format!("--microvm-memory-pages {}: {problem}", pages.as_str()))
}

/// Reads what a microVM is started from. The instance that snapshots are made of comes before all
/// warm-ups, and would otherwise wait for the disk within its own start. What cannot be read is told
/// by that start.
fn warm_microvm(paths: &Paths, image: &Image) {
    for path in [&paths.vmm, &paths.kernel, &paths.initramfs, &image.erofs] {
        warm_file(path);
    }
}

/// Reads what a container is started from.
fn warm_tree(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => warm_tree(&entry.path()),
            Ok(kind) if kind.is_file() => warm_file(&entry.path()),
            _ => {}
        }
    }
}

fn warm_file(path: &Path) {
    let _ = File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
}

/// One for each side of the plan.
fn backends(
    plan: &Plan,
    paths: &Paths,
    scratch: Option<&Scratch>,
) -> Result<Vec<Box<dyn Backend>>> {
    let config = MicrovmConfig {
        vmm: paths.vmm.clone(),
        kernel: paths.kernel.clone(),
        initramfs: paths.initramfs.clone(),
        kvm: "/dev/kvm".into(),
        append: String::new(),
    };
    let mut backends: Vec<Box<dyn Backend>> = Vec::new();
    for Side { backend, start } in plan.sides() {
        if let Some(variant) = ContainerVariant::of(&backend) {
            backends.push(Box::new(ContainerBackend::of(variant)));
            continue;
        }
        match (backend.as_str(), start.as_str(), scratch) {
            ("microvm" | "microvm-pmem" | "microvm-thp", "cold", _) => {
                let devices = DeviceArgs {
                    root_device: plan.microvm_root,
                    memory_pages: plan.microvm_memory_pages,
                    ..DeviceArgs::default()
                };
                let backend = MicrovmBackend::new(config.clone()).with_devices(devices);
                backends.push(Box::new(backend));
            }
            ("microvm", "restored", Some(scratch)) => {
                let directory = scratch.path().join(&backend);
                backends.push(Box::new(MicrovmBackend::restoring(config.clone(), directory)));
            }
            // The run itself says which of the plan's it does not have.
            _ => {}
        }
    }
    Ok(backends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_refused_where_nobody_gets_any() {
        let refused = |thp| no_huge_pages(MemoryPages::Thp, thp);
        assert_eq!((refused(Some("madvise")), refused(Some("always"))), (None, None));
        assert!(refused(Some("never")).unwrap().contains("echo madvise >"));
        assert!(refused(None).unwrap().contains("no transparent huge pages"));
        assert_eq!(no_huge_pages(MemoryPages::Normal, Some("never")), None);
    }
}
