//! Where a run keeps what must not outlive it: a directory for this user alone, whose name says
//! which process made it, so that a later run can remove what a killed one left behind.
//!
//! ```text
//! compare-PID-STARTTIME/     held by flock(2) as long as the run lives
//!   microvm/                 a snapshot, made before the first trial, removed after the last
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::statvfs::statvfs,
    unistd::geteuid,
};

/// What the name of every such directory starts with.
const PREFIX: &str = "compare-";
/// Read, write and search for the owner alone: a snapshot holds all of an instance's memory.
const PRIVATE: u32 = 0o700;

/// A directory of mode 0700, removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// Makes it; its parent exists.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        DirBuilder::new().mode(PRIVATE).create(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // Where this fails the next run finds it by its parent's name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The private directory of this run. Removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: PrivateDirectory,
    _held: Flock<File>,
}

impl Scratch {
    /// Makes `compare-PID-STARTTIME` in `base`, usually [`std::env::temp_dir`], which follows
    /// `TMPDIR`.
    ///
    /// # Errors
    /// `base` is not there or not writable, or this process has such a directory there already.
    pub fn create(base: &Path) -> io::Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid).ok_or_else(|| io::Error::other("/proc/self/stat"))?;
        let path = base.join(format!("{PREFIX}{pid}-{start}"));
        let directory = PrivateDirectory::create(&path)?;
        let held = hold(&path)?;
        Ok(Self { directory, _held: held })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory.0
    }

    /// Bytes that this user may still write there (statvfs(3)).
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn room_bytes(&self) -> io::Result<u64> {
        let facts = statvfs(self.path())?;
        Ok(facts.blocks_available() * facts.fragment_size())
    }

    /// Removes the directories in `base` that dead runs of this user left there. One line for each
    /// removed, or that could not be.
    pub fn reclaim(base: &Path) -> Vec<String> {
        let entries = fs::read_dir(base).into_iter().flatten().filter_map(Result::ok);
        let left = entries.map(|entry| entry.path()).filter(|path| is_left_behind(path));
        left.map(|path| match fs::remove_dir_all(&path) {
            Ok(()) => format!("directory {} of a dead run", path.display()),
            Err(error) => format!("directory {} could not be removed: {error}", path.display()),
        })
        .collect()
    }
}

/// Holds a directory until the answer is dropped or the process ends, whichever way (flock(2)).
fn hold(path: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error.into())
}

/// Whether a directory is named as one of ours, is this user's own, and nobody lives who made it.
/// Its name and its lock must both say so: a process of another PID namespace is not in `/proc`,
/// and between making a directory and locking it lies a moment.
fn is_left_behind(path: &Path) -> bool {
    let owner = path.file_name().and_then(|name| owner(name.to_str()?));
    let Some((pid, start)) = owner else { return false };
    let ours = fs::symlink_metadata(path)
        .is_ok_and(|facts| facts.is_dir() && facts.uid() == geteuid().as_raw());
    ours && start_time(pid) != Some(start) && hold(path).is_ok()
}

/// The process id and its start time in a directory's name, if the name is one of ours.
fn owner(name: &str) -> Option<(u32, u64)> {
    let (pid, start) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(pid) && digits(start)).then(|| Some((pid.parse().ok()?, start.parse().ok()?))).flatten()
}

/// Field 22 of `/proc/PID/stat`, clock ticks since boot (proc_pid_stat(5)); none for a process that
/// is gone or only waits to be buried. It tells a process from a later one with the same id. Fields
/// are counted after the last `)`: the program's name may hold any character.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Has the files of a directory written to disk, so that no later trial runs beside that, and tells
/// the bytes they take there, holes not counted (stat(2), `st_blocks`).
pub(crate) fn sync(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += sync(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            bytes += file.metadata()?.blocks() * 512;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_goes_with_all_that_is_in_it() {
        let base = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(base.path()).unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(scratch.room_bytes().unwrap() > 0);
        fs::create_dir(path.join("microvm")).unwrap();
        fs::write(path.join("microvm/memory"), [7; 8192]).unwrap();
        let sparse = File::create(path.join("holes")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        assert_eq!(sync(&path).unwrap(), 8192, "holes take nothing");
        assert!(Scratch::create(base.path()).is_err(), "one for each process");
        assert_eq!(Scratch::reclaim(base.path()), [""; 0], "whoever made it lives");
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_dead_runs_left_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let pid = std::process::id();
        let recycled = format!("compare-{pid}-{}", start_time(pid).unwrap() + 1);
        let dead = ["compare-4194305-7", recycled.as_str()];
        let kept = ["compare-4194305-8", "compare-4194305", "compare-x-1", "compare-4194305-7-1"];
        for name in dead.iter().chain(&kept) {
            fs::create_dir_all(at(name).join("microvm")).unwrap();
        }
        fs::write(at("compare-4194305-9"), "a file").unwrap();
        std::os::unix::fs::symlink(at("compare-x-1"), at("compare-4194305-10")).unwrap();
        // Held, as by a run whose process another PID namespace hides.
        let held = hold(&at("compare-4194305-8")).unwrap();
        let lines = Scratch::reclaim(base.path());
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(dead.iter().all(|name| !at(name).exists()), "{lines:?}");
        assert!(kept.iter().all(|name| at(name).join("microvm").exists()));
        assert!(at("compare-4194305-9").exists() && at("compare-4194305-10").is_symlink());
        drop(held);
        assert_eq!(Scratch::reclaim(base.path()).len(), 1);
        assert_eq!(Scratch::reclaim(&at("nowhere")), [""; 0]);
    }
}
