//! Carries out a plan on the machine this process runs on, be it the user's or the emulated one.

use std::path::Path;

use anyhow::{Context, Result};
use compare_backend::Backend;
use compare_cgroup::{Hierarchy, Parent};
use compare_container::ContainerBackend;
use compare_lab::Paths;
use compare_microvm::{MicrovmBackend, MicrovmConfig};
use compare_runner::{Cancel, Setting};
use compare_spec::{Image, Plan, RunEvent};

/// Where control groups are mounted.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

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
    for what in Parent::reclaim(&hierarchy) {
        tell(RunEvent::Reclaimed { what });
    }
    compare_net::enter_private_netns()
        .context("cannot make a network namespace: run as root, or see `compare doctor`")?;
    compare_container::enter_private_mounts().context("cannot make a mount namespace")?;
    let kvm = compare_microvm::kvm_check(Path::new("/dev/kvm")).kind;
    let host =
        compare_probe::host_facts(Path::new("/"), plan.host, plan.clock, kvm, hierarchy.mode());
    let unavailable = compare_probe::unavailable_facts(&host);
    let mut backends: Vec<Box<dyn Backend>> = Vec::new();
    for name in &plan.backends {
        match name.as_str() {
            "container" => backends.push(Box::new(ContainerBackend::new())),
            "microvm" => backends.push(Box::new(MicrovmBackend::new(MicrovmConfig {
                vmm: paths.vmm.clone(),
                kernel: paths.kernel.clone(),
                initramfs: paths.initramfs.clone(),
                kvm: "/dev/kvm".into(),
                append: String::new(),
            }))),
            _ => {}
        }
    }
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
