//! Directories in which entries are made. Each is locked by its maker, so that what a dead one
//! left can be told from what a living one works on, even across reused process numbers.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    error::{At, Result},
    progress::Progress,
};

/// A directory of one maker. Removed with all it holds unless committed.
#[derive(Debug)]
pub(super) struct Staging {
    root: PathBuf,
    path: PathBuf,
    lock: File,
    committed: bool,
}

/// Tells apart the directories that one process makes in one clock tick.
static COUNT: AtomicU64 = AtomicU64::new(0);

fn fresh(root: &Path, kind: &str) -> PathBuf {
    let time =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let random = time.rotate_left(24) ^ COUNT.fetch_add(1, Ordering::Relaxed);
    root.join("tmp").join(format!("{kind}-{}-{random:016x}", process::id()))
}

/// Shared by makers between making a directory and locking it; exclusive for whoever cleans up.
fn gate(root: &Path) -> Result<File> {
    let path = root.join("lock/staging");
    File::options().create(true).truncate(false).write(true).open(&path).at("create", &path)
}

impl Staging {
    /// Makes an empty directory.
    pub(super) fn create(root: &Path, kind: &str) -> Result<Self> {
        let gate = gate(root)?;
        gate.lock_shared().at("lock", root)?;
        let path = fresh(root, kind);
        fs::create_dir(&path).at("create", &path)?;
        let lock = File::open(&path).at("open", &path)?;
        lock.lock().at("lock", &path)?;
        Ok(Self { root: root.to_owned(), path, lock, committed: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until everything in it is on disk: a rename that survives a power failure must not
    /// bring empty files with it.
    pub(super) fn sync(&self) -> Result<()> {
        nix::unistd::syncfs(&self.lock).at("write out", &self.path)
    }

    /// Puts it in the place of `entry`, replacing what is there.
    pub(super) fn commit(mut self, entry: &Path) -> Result<()> {
        self.lock
            .set_permissions(fs::Permissions::from_mode(0o755))
            .at("set the mode of", &self.path)?;
        if entry.exists() {
            Self::discard(&self.root, entry)?;
        }
        fs::rename(&self.path, entry).at("move into place", entry)?;
        self.committed = true;
        let parent = entry.parent().unwrap_or(&self.root);
        File::open(parent).and_then(|directory| directory.sync_all()).at("write out", parent)
    }

    /// Removes an entry: out of its place in one step first.
    pub(super) fn discard(root: &Path, entry: &Path) -> Result<()> {
        let doomed = fresh(root, "removed");
        fs::rename(entry, &doomed).at("move away", entry)?;
        remove_tree(&doomed).at("remove", &doomed)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed now is removed when the cache is opened next.
            let _ = remove_tree(&self.path);
        }
    }
}

/// Removes what makers that died have left. Leaves alone what is locked: its maker lives.
pub(super) fn reclaim(root: &Path, progress: &dyn Progress) -> Result<()> {
    let gate = gate(root)?;
    match gate.try_lock() {
        Ok(()) => {}
        // Someone is about to make one, or cleans up already.
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error).at("lock", root),
    }
    let tmp = root.join("tmp");
    for entry in fs::read_dir(&tmp).at("read", &tmp)? {
        let path = entry.at("read", &tmp)?.path();
        let Ok(directory) = File::open(&path) else { continue };
        if directory.try_lock().is_err() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match remove_tree(&path) {
            Ok(()) => progress
                .note(&format!("removed what an interrupted compare left in the cache: {name}")),
            Err(error) => progress.note(&format!("cannot remove {}: {error}", path.display())),
        }
    }
    Ok(())
}

/// Removes a directory and all it holds, even where modes forbid it to its owner. A program that
/// outlived its parent may still be writing there: tried again a few times.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..5 {
        result = fs::remove_dir_all(path);
        match &result {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => {
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => allow(path)?,
            Err(_) => {}
        }
    }
    result
}

fn allow(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            allow(&entry.path())?;
        }
    }
    Ok(())
}
