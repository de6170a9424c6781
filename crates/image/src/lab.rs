//! What the emulated host is made of: the distribution's own cloud kernel with a few modules, and
//! a disk with everything a run needs inside.

mod modules;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use compare_spec::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    apt::{Apt, Control, download, unpack},
    cache::{Cache, Kind, Recipe, remove_tree},
    copy::copy_tree,
    erofs::{self, Layout},
    error::{At, Error, Result},
    manifest::{read_manifest, write_manifest},
    prepare::distribution,
    progress::Progress,
    rooted::Root,
    tree::{file_digest, tree_digest, walk},
};

const STEP: &str = "kernel of the emulated host";
const DISK: &str = "disk of the emulated host";
/// Debian's kernel for virtual machines, then Ubuntu's.
const KERNELS: [&str; 3] = ["linux-image-cloud-amd64", "linux-image-kvm", "linux-image-virtual"];
/// Part of every key: raised when the same input gives another result than before.
const BUILDER: u32 = 1;

/// The emulated host's kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabKernel {
    /// The kernel, a bzImage.
    pub vmlinuz: PathBuf,
    /// Modules, uncompressed, in the order in which they can be loaded.
    pub modules: Vec<PathBuf>,
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// Digest over kernel and modules.
    pub digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
struct KernelManifest {
    package: String,
    version: String,
    release: String,
    digest: Digest,
    modules: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskManifest {
    erofs_digest: Digest,
    erofs_bytes: u64,
}

/// Gets the distribution's kernel for virtual machines with `modules` and what they depend on, or
/// finds it in the cache. Modules that are built into the kernel are left out.
///
/// # Errors
/// The packages cannot be had, a module is in none of them, or the cache cannot be written.
pub fn lab_kernel(cache: &Cache, modules: &[&str], progress: &dyn Progress) -> Result<LabKernel> {
    let begin = Instant::now();
    let key = Digest::of(format!("{BUILDER} {} {modules:?}", distribution()).as_bytes());
    let build = |staging: &Path| {
        progress.step(STEP);
        make_kernel(cache, modules, staging, progress)
    };
    let recipe = Recipe { kind: Kind::Kernel, key: &key, what: STEP, refresh: false };
    let entry = cache.entry(recipe, progress, build, open_kernel)?;
    progress.done(STEP, begin.elapsed(), entry.cached);
    Ok(entry.value)
}

fn open_kernel(entry: &Path) -> Result<LabKernel> {
    let manifest: KernelManifest = read_manifest(entry)?;
    let files = entry.join("files");
    if tree_digest(&files)?.digest != manifest.digest {
        let problem = "its files are not those that were unpacked".to_owned();
        return Err(Error::Corrupt { path: files, problem, entry: entry.to_owned() });
    }
    Ok(LabKernel {
        vmlinuz: files.join("vmlinuz"),
        modules: manifest.modules.iter().map(|name| files.join("modules").join(name)).collect(),
        release: manifest.release,
        digest: manifest.digest,
    })
}

fn make_kernel(
    cache: &Cache,
    modules: &[&str],
    staging: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    progress.detail("asking apt for a kernel");
    let mut apt = Apt::default();
    let packages = kernel_packages(&mut apt)?;
    let unpacked = staging.join("unpacked");
    for (control, file) in packages.iter().zip(download(cache, &packages, progress)?) {
        progress.detail(&format!("unpacking {}", control.name));
        unpack(&file, &unpacked)?;
    }
    let missing = |what: &str| Error::Package {
        package: packages[0].name.clone(),
        problem: format!("holds no {what}"),
        source: None,
    };
    let (boot, release) = boot_files(&unpacked)?.ok_or_else(|| missing("kernel with modules"))?;

    // Ubuntu keeps the rarer modules in a package of their own.
    let extra = format!("linux-modules-extra-{release}");
    let mut index = modules::Index::read(&unpacked, &release)?;
    if modules.iter().any(|name| !index.has(name)) {
        apt.look_up(std::slice::from_ref(&extra))?;
        if let Some(control) = apt.get(&extra).cloned() {
            unpack(&download(cache, &[control], progress)?[0], &unpacked)?;
            index = modules::Index::read(&unpacked, &release)?;
        }
    }
    let files = staging.join("files");
    fs::create_dir_all(files.join("modules")).at("create", &files)?;
    let names = index.collect(modules, &files.join("modules"), &packages[0].name)?;
    fs::copy(&boot, files.join("vmlinuz")).at("copy", &boot)?;
    remove_tree(&unpacked).at("remove", &unpacked)?;
    write_manifest(
        staging,
        &KernelManifest {
            package: packages[0].name.clone(),
            version: packages[0].version.clone(),
            release,
            digest: tree_digest(&files)?.digest,
            modules: names,
        },
    )
}

/// The package with the kernel and, where they are apart, the one with its modules.
fn kernel_packages(apt: &mut Apt) -> Result<Vec<Control>> {
    apt.look_up(&KERNELS.map(str::to_owned))?;
    let Some(newest) = KERNELS.iter().find_map(|name| apt.get(name)).cloned() else {
        return apt.need(KERNELS[0]).map(|control| vec![control]);
    };
    let named = |prefix: &'static str| move |control: &Control| control.name.starts_with(prefix);
    let image = apt.depends(&newest)?.into_iter().find(named("linux-image-")).ok_or_else(|| {
        Error::Package {
            package: newest.name.clone(),
            problem: "depends on no kernel".to_owned(),
            source: None,
        }
    })?;
    let modules = apt.depends(&image)?.into_iter().find(named("linux-modules-"));
    Ok(std::iter::once(image).chain(modules).collect())
}

/// The kernel's file and its release.
fn boot_files(unpacked: &Path) -> Result<Option<(PathBuf, String)>> {
    let found =
        walk(unpacked)?.into_iter().filter(|(_, facts)| facts.is_file()).find_map(|(path, _)| {
            let release = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            Some((unpacked.join(&path), release))
        });
    Ok(found)
}

/// Makes a disk, an EROFS image, from files and directories of this host, or finds it in the
/// cache: `entries` are pairs of the path on the disk and the path here. Directories are copied
/// whole; modes are kept and everything belongs to root. Reads every byte each time to know
/// whether something changed.
///
/// # Errors
/// A file cannot be read, or the cache not be written.
pub fn lab_disk(
    cache: &Cache,
    entries: &[(&str, &Path)],
    progress: &dyn Progress,
) -> Result<PathBuf> {
    let begin = Instant::now();
    let mut lines = vec![format!("{BUILDER}")];
    for (name, path) in entries {
        let facts = fs::metadata(path).at("read", path)?;
        let digest = if facts.is_dir() { tree_digest(path)?.digest } else { file_digest(path)? };
        lines.push(format!("{name}\0{:o}\0{digest}", mode(&facts)));
    }
    lines.sort();
    let key = Digest::of(lines.join("\n").as_bytes());
    let build = |staging: &Path| {
        progress.step(DISK);
        make_disk(entries, staging)
    };
    let open = |entry: &Path| {
        let manifest: DiskManifest = read_manifest(entry)?;
        let disk = entry.join("disk.erofs");
        erofs::check(&disk, manifest.erofs_bytes, entry).map(|()| disk)
    };
    let entry = cache.entry(
        Recipe { kind: Kind::Lab, key: &key, what: DISK, refresh: false },
        progress,
        build,
        open,
    )?;
    progress.done(DISK, begin.elapsed(), entry.cached);
    Ok(entry.value)
}

fn make_disk(entries: &[(&str, &Path)], staging: &Path) -> Result<()> {
    let tree = staging.join("tree");
    fs::create_dir(&tree).at("create", &tree)?;
    let root = Root::open(&tree)?;
    root.set_directory_mode(Path::new(""), 0o755)?;
    for (name, path) in entries {
        let facts = fs::metadata(path).at("read", path)?;
        if facts.is_dir() {
            root.directory(Path::new(name))?;
            copy_tree(path, &root, Path::new(name), |_| true)?;
        } else {
            let path = fs::canonicalize(path).at("read", path)?;
            root.copy(Path::new(name), mode(&facts), &path)?;
        }
    }
    let (erofs_digest, erofs_bytes) =
        erofs::make(&tree, &staging.join("disk.erofs"), Layout::Packed)?;
    remove_tree(&tree).at("remove", &tree)?;
    write_manifest(staging, &DiskManifest { erofs_digest, erofs_bytes })
}

fn mode(facts: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    facts.permissions().mode() & 0o7777
}
