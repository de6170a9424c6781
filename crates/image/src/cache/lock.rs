//! The lock on a key: one process makes an entry, others wait for it. The kernel releases it when
//! its holder ends, however that happens.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use compare_spec::Digest;

use super::Kind;
use crate::error::{At, Result};

/// Held while an entry is made.
#[derive(Debug)]
pub(super) struct KeyLock {
    /// Closing it releases the lock (flock(2)).
    _file: File,
    path: PathBuf,
    waited: bool,
}

impl KeyLock {
    /// Takes the lock, calling `announce` once if it is held by someone else.
    pub(super) fn take(
        root: &Path,
        kind: Kind,
        key: &Digest,
        announce: impl FnOnce(),
    ) -> Result<Self> {
        let path = root.join("lock").join(format!("{}-{}", kind.name(), key.hex()));
        let mut announce = Some(announce);
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .at("create", &path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(announce) = announce.take() {
                        announce();
                    }
                    lock_patiently(&file).at("lock", &path)?;
                }
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
            // Whoever held it removed the file: then this is a lock on nothing.
            let inode = file.metadata().at("read", &path)?.ino();
            if fs::metadata(&path).is_ok_and(|now| now.ino() == inode) {
                return Ok(Self { _file: file, path, waited: announce.is_none() });
            }
        }
    }

    /// Whether somebody else held it first.
    pub(super) fn waited(&self) -> bool {
        self.waited
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while still held, so that nobody can hold it under this name meanwhile.
        let _ = fs::remove_file(&self.path);
    }
}

fn lock_patiently(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
