//! The cache: one directory for each artefact, named by the digest of what it was made from.
//! Either complete or absent, whatever happens to the process that makes it.
//!
//! ```text
//!  <root>/packages|kernel|image|lab/<key>/   complete entries
//!         tmp/<kind>-<pid>-<random>/         being made; its maker holds a lock on it
//!         lock/<kind>-<key>                  held while an entry is made
//! ```

mod lock;
mod staging;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use compare_spec::Digest;

pub(crate) use self::staging::remove_tree;
use self::{lock::KeyLock, staging::Staging};
use crate::{
    error::{At, Error, Result},
    progress::Progress,
};

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Packages as downloaded.
    Packages,
    /// Kernels, guest's and emulated host's.
    Kernel,
    /// Root file systems.
    Image,
    /// What the emulated host is started with, and initramfs archives.
    Lab,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Packages, Self::Kernel, Self::Image, Self::Lab];

    /// Its directory.
    const fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Kernel => "kernel",
            Self::Image => "image",
            Self::Lab => "lab",
        }
    }

    /// How many entries are kept at least. Each build of this tool makes new ones of some kinds.
    const fn kept(self) -> usize {
        match self {
            Self::Packages => 12,
            Self::Kernel | Self::Lab => 8,
            Self::Image => 16,
        }
    }
}

/// Which entry is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Digest of everything that decides its content.
    pub key: &'a Digest,
    /// What people call it, without an article.
    pub what: &'a str,
    /// Whether it is to be made again even if it is there.
    pub refresh: bool,
}

/// An entry and how it was come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// What opening it gave.
    pub value: T,
    /// Whether it was there already.
    pub cached: bool,
}

/// A cache directory. Any number of processes may use one at the same time.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the user's cache: `$XDG_CACHE_HOME/compare`, else `~/.cache/compare` (XDG Base
    /// Directory Specification).
    ///
    /// # Errors
    /// No directory is known, or it cannot be made.
    pub fn open_default(progress: &dyn Progress) -> Result<Self> {
        let absolute =
            |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        Self::open(&home.ok_or(Error::NoCacheHome)?.join("compare"), progress)
    }

    /// Opens the cache at `root`, making it if need be, and removes what makers that died have
    /// left in it.
    ///
    /// # Errors
    /// It cannot be made or written to.
    pub fn open(root: &Path, progress: &dyn Progress) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        // Root file systems in it may hold set-user-ID programs: nobody else is to run them.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).at("create", root)?;
        for name in Kind::ALL.map(Kind::name).into_iter().chain(["tmp", "lock"]) {
            let path = root.join(name);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        staging::reclaim(root, progress)?;
        Ok(Self { root: root.to_owned() })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an entry is, or would be.
    pub fn path(&self, kind: Kind, key: &Digest) -> PathBuf {
        self.root.join(kind.name()).join(key.hex())
    }

    /// Returns what `open` makes of an entry's directory. If the entry is not there, or `open`
    /// refuses it as damaged, `build` makes it in a fresh directory that then takes its place in
    /// one step. Where another process is making the same entry, waits for it and uses its result.
    ///
    /// # Errors
    /// Whatever `build` or `open` fail with; a full disk is told as such. Nothing is left behind.
    pub fn entry<T>(
        &self,
        recipe: Recipe<'_>,
        progress: &dyn Progress,
        build: impl FnOnce(&Path) -> Result<()>,
        open: impl Fn(&Path) -> Result<T>,
    ) -> Result<Entry<T>> {
        let path = self.path(recipe.kind, recipe.key);
        let ready = || match path.exists().then(|| open(&path)) {
            Some(Ok(value)) => {
                touch(&path);
                Some(Entry { value, cached: true })
            }
            _ => None,
        };
        if !recipe.refresh
            && let Some(entry) = ready()
        {
            return Ok(entry);
        }
        let lock = KeyLock::take(&self.root, recipe.kind, recipe.key, || {
            progress.note(&format!("waiting for another compare that builds the {}", recipe.what));
        })?;
        // Another process may have made it since; whoever waited wants just that.
        if (lock.waited() || !recipe.refresh)
            && let Some(entry) = ready()
        {
            return Ok(entry);
        }
        if path.exists() && !recipe.refresh {
            let why = open(&path).err().map(|error| error.chain()).unwrap_or_default();
            progress.note(&format!("the {} is damaged and is made again ({why})", recipe.what));
        }
        self.make(recipe.kind, &path, build)?;
        Ok(Entry { value: open(&path)?, cached: false })
    }

    fn make(&self, kind: Kind, path: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let begin = || {
            let staging = Staging::create(&self.root, kind.name())?;
            build(staging.path())?;
            staging.sync()?;
            Ok(staging)
        };
        let staging = begin().map_err(|error: Error| self.explain(error))?;
        staging.commit(path)?;
        // What cannot be removed now may go next time.
        let _ = self.trim(kind);
        Ok(())
    }

    /// Turns a failure for want of space into one that says so.
    fn explain(&self, error: Error) -> Error {
        if !error.is_disk_full() || matches!(error, Error::DiskFull { .. }) {
            return error;
        }
        let path = match &error {
            Error::Io { path, .. } => path.clone(),
            _ => self.root.clone(),
        };
        Error::DiskFull { path, free_bytes: self.free_bytes(), source: Box::new(error) }
    }

    /// Bytes that can still be written to the cache's file system; 0 if that cannot be read.
    pub fn free_bytes(&self) -> u64 {
        nix::sys::statvfs::statvfs(&self.root)
            .map_or(0, |facts| facts.blocks_available() * facts.fragment_size())
    }

    /// Stores bytes under their own digest and returns the file's path.
    ///
    /// # Errors
    /// As for [`Cache::entry`].
    pub fn file(
        &self,
        kind: Kind,
        name: &str,
        bytes: &[u8],
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let key = Digest::of(&[name.as_bytes(), b"\0", bytes].concat());
        let recipe = Recipe { kind, key: &key, what: name, refresh: false };
        let build = |staging: &Path| {
            let path = staging.join(name);
            fs::write(&path, bytes).at("write", &path)
        };
        let open = |entry: &Path| {
            let path = entry.join(name);
            let length = fs::metadata(&path).at("read", &path)?.len();
            if length != bytes.len() as u64 {
                let problem = format!("{length} bytes where {} were written", bytes.len());
                return Err(Error::Corrupt { path, problem, entry: entry.to_owned() });
            }
            Ok(path)
        };
        Ok(self.entry(recipe, progress, build, open)?.value)
    }

    /// Removes entries that were last used more than an hour ago, except the most recently used.
    fn trim(&self, kind: Kind) -> Result<()> {
        let directory = self.root.join(kind.name());
        let mut entries: Vec<(SystemTime, PathBuf)> = fs::read_dir(&directory)
            .at("read", &directory)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        entries.sort();
        entries.truncate(entries.len().saturating_sub(kind.kept()));
        let old =
            |time: &SystemTime| time.elapsed().is_ok_and(|age| age > Duration::from_secs(3600));
        for (_, path) in entries.iter().filter(|(time, _)| old(time)) {
            Staging::discard(&self.root, path)?;
        }
        Ok(())
    }
}

/// Marks an entry as used; only [`Cache::trim`] looks, so that a failure does not matter.
fn touch(path: &Path) {
    if let Ok(directory) = fs::File::open(path) {
        let _: io::Result<()> = directory.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests;
