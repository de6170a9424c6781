//! Has everything made that a run needs, and nothing it does not: a container on this host needs
//! no kernel, a run on this host no emulated machine.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use compare_image::{Cache, Kind, Options, Progress};
use compare_lab::{LabFiles, Paths, inside::DISK};
use compare_spec::{HostKind, Image, Plan, RootDevice, Workload};

use crate::{
    exit::{Code, coded},
    tool::companion,
};

/// The modules of the emulated host; their own needs come along.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "overlay",
    "erofs",
    "veth",
    "tun",
    "irqbypass",
    "kvm_amd",
];
/// The guest kernel's configuration and build script, in the clone this program was built from.
const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest/kernel");
/// What is put on top of it for more than one virtual CPU. One CPU needs no locks, and a kernel
/// without them is smaller, starts faster and survives the emulator's defect (docs/lab.md).
const SMP: &str = "smp.config";

/// Everything a run is made of.
#[derive(Debug)]
pub struct Prepared {
    /// The root file system, by its paths on this host.
    pub image: Image,
    /// The rest, likewise.
    pub paths: Paths,
    /// The same inside the emulated host, where the run happens there.
    pub lab: Option<LabRun>,
}

/// A run on the emulated host.
#[derive(Debug)]
pub struct LabRun {
    /// The machine.
    pub files: LabFiles,
    /// The root file system, by its paths inside.
    pub image: Image,
    /// The rest, likewise.
    pub paths: Paths,
}

/// Has everything made for a plan.
///
/// # Errors
/// Something cannot be made; the message says what is missing.
pub fn prepare(plan: &Plan, kernel: Option<&Path>, progress: &dyn Progress) -> Result<Prepared> {
    let given = kernel.map(compare_image::check_kernel).transpose();
    let given = given.map_err(|error| coded(Code::Usage, error.to_string()))?;
    let cache = Cache::open_default(progress)?;
    let mut paths = Paths::default();
    if plan.backends.iter().any(|name| name == "microvm") {
        let kernel = match given {
            Some(kernel) => kernel,
            None => {
                let fragment = (plan.workload.vcpus > 1).then_some(SMP);
                compare_image::guest_kernel(&cache, Path::new(RECIPE), fragment, progress)?
            }
        };
        let init = companion("compare-init")?;
        let archive =
            compare_image::init_archive(&std::fs::read(&init).context("cannot read compare-init")?);
        paths.vmm = companion("compare-vmm")?;
        paths.initramfs = cache.file(Kind::Lab, "guest.cpio", &archive, progress)?;
        paths.kernel = kernel.vmlinux;
        paths.artefacts.kernel = Some(kernel.digest);
        paths.artefacts.init = Some(compare_image::file_digest(&init)?);
        paths.artefacts.vmm = Some(compare_image::file_digest(&paths.vmm)?);
    }
    let image = image(&cache, plan, progress)?;
    let lab = (plan.host == HostKind::Lab)
        .then(|| lab_run(&cache, &image, &mut paths, progress))
        .transpose()?;
    Ok(Prepared { image, paths, lab })
}

fn image(cache: &Cache, plan: &Plan, progress: &dyn Progress) -> Result<Image> {
    let own = env::current_exe().context("cannot tell where this program lies")?;
    let programs = own.parent().context("this program lies nowhere")?;
    let prepared = compare_image::prepare(
        cache,
        &plan.workload,
        &Options { programs, refresh: false },
        progress,
    )?;
    let image = match plan.microvm_root {
        RootDevice::Blk => prepared.image,
        RootDevice::Pmem => compare_image::in_place(cache, &prepared.image, progress)?,
    };
    // Both shapes are what the digest says, or there is no comparison.
    compare_image::verify(&image)?;
    Ok(image)
}

fn lab_run(
    cache: &Cache,
    image: &Image,
    paths: &mut Paths,
    progress: &dyn Progress,
) -> Result<LabRun> {
    let mut entries = vec![
        ("image/tree".to_owned(), image.tree.clone()),
        ("image/root.erofs".to_owned(), image.erofs.clone()),
    ];
    let mut inside = Paths::default();
    let mut take = |name: &str, from: &Path, to: &mut PathBuf| {
        if !from.as_os_str().is_empty() {
            entries.push((name.to_owned(), from.to_owned()));
            *to = Path::new(DISK).join(name);
        }
    };
    take("compare-vmm", &paths.vmm, &mut inside.vmm);
    take("vmlinux", &paths.kernel, &mut inside.kernel);
    take("guest.cpio", &paths.initramfs, &mut inside.initramfs);
    let (files, digest) = machine(cache, &entries, progress)?;
    paths.artefacts.lab_kernel = Some(digest);
    inside.artefacts = paths.artefacts.clone();
    let image = Image {
        tree: Path::new(DISK).join("image/tree"),
        erofs: Path::new(DISK).join("image/root.erofs"),
        ..image.clone()
    };
    Ok(LabRun { files, image, paths: inside })
}

/// The emulated machine with these files on its disk, and its kernel's digest.
fn machine(
    cache: &Cache,
    entries: &[(String, PathBuf)],
    progress: &dyn Progress,
) -> Result<(LabFiles, compare_spec::Digest)> {
    let kernel = compare_image::lab_kernel(cache, &MODULES, progress)?;
    let own = env::current_exe().context("cannot tell where this program lies")?;
    let archive = compare_lab::initramfs(&own, &kernel.modules)
        .context("cannot make the emulated host's initramfs")?;
    let initramfs = cache.file(Kind::Lab, "lab.cpio", &archive, progress)?;
    let borrowed: Vec<(&str, &Path)> =
        entries.iter().map(|(name, path)| (name.as_str(), path.as_path())).collect();
    let disk = compare_image::lab_disk(cache, &borrowed, progress)?;
    Ok((LabFiles { kernel: kernel.vmlinuz, initramfs, disk }, kernel.digest))
}

/// The emulated machine with a user's own files on its disk below `files/`, and the variables that
/// tell a test where the parts of a run are.
///
/// # Errors
/// As for [`prepare`].
pub fn prepare_files(
    files: &[(String, PathBuf)],
    workload: Option<&Workload>,
    progress: &dyn Progress,
) -> Result<(LabFiles, Vec<(String, String)>)> {
    let cache = Cache::open_default(progress)?;
    let mut entries = Vec::new();
    let mut variables = Vec::new();
    for (name, path) in files {
        if !path.exists() {
            return Err(coded(
                Code::Usage,
                format!("--file {}: there is no such file", path.display()),
            ));
        }
        entries.push((format!("files/{name}"), path.clone()));
    }
    if let Some(workload) = workload {
        let plan = Plan {
            workload: workload.clone(),
            backends: vec!["microvm".to_owned()],
            starts: vec![compare_spec::StartMode::Cold],
            microvm_root: RootDevice::default(),
            microvm_memory_pages: compare_spec::MemoryPages::default(),
            trials: 1,
            warmup: 0,
            gap: compare_spec::Span::default(),
            seed: 1,
            host: HostKind::Local,
            clock: compare_spec::Clock::Real,
        };
        let prepared = prepare(&plan, None, progress)?;
        for (name, variable, path) in [
            ("vmlinux", "KERNEL", prepared.paths.kernel),
            ("guest.cpio", "INITRAMFS", prepared.paths.initramfs),
            ("compare-init", "INIT", companion("compare-init")?),
            ("compare-vmm", "VMM", prepared.paths.vmm),
            ("image/tree", "TREE", prepared.image.tree),
            ("image/root.erofs", "EROFS", prepared.image.erofs),
        ] {
            entries.push((name.to_owned(), path));
            variables.push((format!("COMPARE_TEST_{variable}"), format!("{DISK}/{name}")));
        }
    }
    Ok((machine(&cache, &entries, progress)?.0, variables))
}
