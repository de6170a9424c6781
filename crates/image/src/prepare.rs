//! From a workload to the root file system it runs in: the tree that containers share read-only
//! and the EROFS image that microVMs boot from, made from that tree.
//!
//! An image from packages is found again by what the workload asks for, not by the versions apt
//! would give today: that needs neither apt nor a network, and a measurement keeps its bytes until
//! [`Options::refresh`] asks for new ones. The versions stand in the [`Manifest`].

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use compare_spec::{Digest, Image, ImageSource, Workload};

use crate::{
    cache::{Cache, Kind, Recipe},
    copy::copy_tree,
    elf,
    erofs::{self, Layout},
    error::{At, Error, Result},
    manifest::{Manifest, PackageVersion, read_manifest, write_manifest},
    packages,
    progress::Progress,
    rooted::Root,
    skeleton,
    tree::{file_digest, reset_times, tree_digest},
    user::resolve_user,
};

/// Part of every key: raised when the same source gives another tree than before.
const BUILDER: u32 = 1;
/// Names in the directory of an entry.
const TREE: &str = "tree";
const EROFS: &str = "rootfs.erofs";

/// How images are made.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The directory that holds the programs built with this tool, such as `compare-hello`: the
    /// one of the running executable.
    pub programs: &'a Path,
    /// Whether to make the image again from what apt offers today, even if there is one.
    pub refresh: bool,
}

/// A root file system, ready for any backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What backends need.
    pub image: Image,
    /// Where it came from.
    pub manifest: Manifest,
}

/// Makes the root file system of a workload, or finds it in the cache. Mount points are added to
/// every tree, and all of it belongs to root: what a daemon must own, it takes when it starts.
///
/// # Errors
/// The source cannot be had or holds what no image can; the workload's user is unknown in it; the
/// cache cannot be written.
pub fn prepare(
    cache: &Cache,
    workload: &Workload,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Prepared> {
    let begin = Instant::now();
    let name = format!("root file system of {}", workload.name);
    let source = Source::resolve(&workload.image, options)?;
    let build = |staging: &Path| {
        progress.step(&name);
        make(cache, &workload.image, &source, staging, progress)
    };
    let key = source.key(&workload.image);
    // Only packages can be newer than what their names say.
    let refresh = options.refresh && matches!(source, Source::Packages { .. });
    let recipe = Recipe { kind: Kind::Image, key: &key, what: &name, refresh };
    let entry = cache.entry(recipe, progress, build, open)?;
    progress.done(&name, begin.elapsed(), entry.cached);

    let (manifest, path) = (entry.value, cache.path(Kind::Image, &key));
    let user = resolve_user(&path.join(TREE), &workload.user)?;
    let image = Image {
        digest: manifest.digest.clone(),
        tree: path.join(TREE),
        erofs: path.join(EROFS),
        erofs_digest: manifest.erofs_digest.clone(),
        erofs_bytes: manifest.erofs_bytes,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
    };
    Ok(Prepared { image, manifest })
}

/// Reads every byte of an image and compares it with its digests. [`prepare`] looks only at the
/// length and superblock of the EROFS file.
///
/// # Errors
/// Something differs; the message says what to delete.
pub fn verify(image: &Image) -> Result<()> {
    let entry = image.erofs.parent().unwrap_or(&image.erofs).to_owned();
    erofs::check(&image.erofs, image.erofs_bytes, &entry)?;
    let found = [
        (&image.erofs, file_digest(&image.erofs)?, &image.erofs_digest),
        (&image.tree, tree_digest(&image.tree)?.digest, &image.digest),
    ];
    for (path, actual, expected) in found {
        if actual != *expected {
            let problem =
                format!("its digest is {} where {} was written", actual.short(), expected.short());
            return Err(Error::Corrupt { path: path.clone(), problem, entry });
        }
    }
    Ok(())
}

/// Where the tree comes from, with what identifies it.
enum Source {
    /// The distribution's packages; the distribution is part of the identity.
    Packages { distribution: String },
    /// A program of this tool.
    Program { file: PathBuf, digest: Digest },
    /// A directory of the host.
    Directory { path: PathBuf, digest: Digest },
}

impl Source {
    fn resolve(source: &ImageSource, options: &Options<'_>) -> Result<Self> {
        if let Some(name) = &source.program {
            let file = options.programs.join(format!("compare-{name}"));
            let problem = if name.contains('/') || !file.is_file() {
                "no program of this name is built with compare; there is `hello`"
            } else if elf::needs(&file)?.is_none_or(|needs| needs.interpreter.is_some()) {
                "not a static program for x86-64; build it with `cargo build --release`"
            } else {
                let digest = file_digest(&file)?;
                return Ok(Self::Program { file, digest });
            };
            return Err(Error::Source { path: file, problem: problem.to_owned() });
        }
        if let Some(path) = &source.directory {
            if !path.is_dir() {
                let problem =
                    "not a directory: `image.directory` names the root of a file system".to_owned();
                return Err(Error::Source { path: path.clone(), problem });
            }
            return Ok(Self::Directory { path: path.clone(), digest: tree_digest(path)?.digest });
        }
        Ok(Self::Packages { distribution: distribution() })
    }

    /// The key of the entry: everything that decides what is in the tree.
    fn key(&self, image: &ImageSource) -> Digest {
        let identity = match self {
            Self::Packages { distribution } => distribution.clone(),
            Self::Program { digest, .. } | Self::Directory { digest, .. } => digest.to_string(),
        };
        // The path of a directory says nothing about its content.
        let source = ImageSource { directory: None, ..image.clone() };
        let whole = serde_json::json!({ "builder": BUILDER, "arch": "x86-64", "identity": identity, "source": source });
        Digest::of(whole.to_string().as_bytes())
    }
}

/// The distribution and its release, such as `debian 12` (os-release(5)).
pub(crate) fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    format!("{} {}", field("ID"), field("VERSION_ID"))
}

fn make(
    cache: &Cache,
    image: &ImageSource,
    source: &Source,
    staging: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let tree = staging.join(TREE);
    fs::create_dir(&tree).at("create", &tree)?;
    let root = Root::open(&tree)?;
    let mut versions: Vec<PackageVersion> = Vec::new();
    match source {
        Source::Packages { .. } => {
            versions =
                packages::fill(cache, &image.packages, &root, &staging.join("unpacked"), progress)?;
        }
        Source::Program { file, .. } => {
            root.set_directory_mode(Path::new(""), 0o755)?;
            root.copy(Path::new(image.program.as_deref().unwrap_or_default()), 0o755, file)?;
        }
        Source::Directory { path, digest } => {
            progress.detail(&format!("copying {}", path.display()));
            let foreign = copy_tree(path, &root, Path::new(""), |_| true)?;
            if tree_digest(&tree)?.digest != *digest {
                let problem =
                    "changed while it was copied: run again when nothing writes to it".to_owned();
                return Err(Error::Source { path: path.clone(), problem });
            }
            if foreign > 0 {
                progress.note(&format!(
                    "{}: {foreign} files of other owners belong to root in the image",
                    path.display()
                ));
            }
        }
    }
    skeleton::mount_points(&root)?;
    for file in &image.files {
        root.file(&file.path, file.mode, &mut file.content.as_bytes())?;
    }
    reset_times(root.path())?;

    progress.detail("making the root disk");
    let facts = tree_digest(&tree)?;
    let (erofs_digest, erofs_bytes) = erofs::make(&tree, &staging.join(EROFS), Layout::Packed)?;
    write_manifest(
        staging,
        &Manifest {
            digest: facts.digest,
            erofs_digest,
            erofs_bytes,
            files: facts.files,
            bytes: facts.bytes,
            packages: versions,
        },
    )
}

fn open(entry: &Path) -> Result<Manifest> {
    let manifest: Manifest = read_manifest(entry)?;
    erofs::check(&entry.join(EROFS), manifest.erofs_bytes, entry)?;
    let tree = entry.join(TREE);
    if !tree.is_dir() {
        return Err(Error::Corrupt {
            path: tree,
            problem: "is missing".to_owned(),
            entry: entry.to_owned(),
        });
    }
    Ok(manifest)
}
