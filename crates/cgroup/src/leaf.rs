//! One instance's own group: the processes in it, and its end.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use compare_spec::CgroupMode;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{CgroupError, Controller, files, freezer::thaw_killed};

/// How long a group is waited for that ought to be empty. An exiting process leaves its group
/// within microseconds of its parent seeing it end, unless it has much memory to give back.
const EMPTY_DEADLINE: Duration = Duration::from_secs(5);

/// The leaf's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) dir: PathBuf,
    pub(crate) controllers: Vec<Controller>,
}

/// One instance's group. Dropping it kills what is in it and removes it, as a last resort.
#[derive(Debug)]
pub struct Leaf {
    name: String,
    pub(crate) mode: CgroupMode,
    pub(crate) groups: Vec<Group>,
    pub(crate) missing: Vec<(Controller, String)>,
    removed: bool,
}

impl Leaf {
    pub(crate) fn new(name: &str, mode: CgroupMode) -> Self {
        Self {
            name: name.to_owned(),
            mode,
            groups: Vec::new(),
            missing: Vec::new(),
            removed: false,
        }
    }

    /// Its name below the parent.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory in the hierarchy that holds the memory controller, or the first one.
    pub fn path(&self) -> &Path {
        self.dir(Controller::Memory).unwrap_or_else(|| {
            self.groups.first().map_or(Path::new("/nonexistent"), |group| group.dir.as_path())
        })
    }

    /// Its directory in the hierarchy of one controller.
    pub(crate) fn dir(&self, controller: Controller) -> Option<&Path> {
        let group = self.groups.iter().find(|group| group.controllers.contains(&controller))?;
        Some(&group.dir)
    }

    pub(crate) fn need(&self, controller: Controller) -> Result<&Path, CgroupError> {
        self.dir(controller).ok_or_else(|| CgroupError::Missing {
            controller,
            reason: self.why_missing(controller).to_owned(),
        })
    }

    pub(crate) fn why_missing(&self, controller: Controller) -> &str {
        let missing = self.missing.iter().find(|(missing, _)| *missing == controller);
        missing.map_or("it is not mounted", |(_, reason)| reason)
    }

    /// The directory, for `CLONE_INTO_CGROUP`; none on v1, where a process joins by itself.
    ///
    /// # Errors
    /// It cannot be opened, because the leaf is gone.
    pub fn directory_fd(&self) -> io::Result<Option<OwnedFd>> {
        if self.mode != CgroupMode::V2 {
            return Ok(None);
        }
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        File::options()
            .read(true)
            .custom_flags(flags)
            .open(self.path())
            .map(|file| Some(file.into()))
    }

    /// The files by which a single-threaded process joins on v1, opened; empty on v2.
    pub(crate) fn tasks_fds(&self) -> io::Result<Vec<OwnedFd>> {
        if self.mode == CgroupMode::V2 {
            return Ok(Vec::new());
        }
        let open = |group: &Group| {
            File::options().write(true).open(group.dir.join("tasks")).map(OwnedFd::from)
        };
        self.groups.iter().map(open).collect()
    }

    /// The controllers of each v1 hierarchy it is in, as `mount -o` takes them; empty on v2.
    pub fn v1_controllers(&self) -> Vec<String> {
        let names = |group: &Group| {
            let names: Vec<_> =
                group.controllers.iter().map(|controller| controller.name()).collect();
            names.join(",")
        };
        let groups = if self.mode == CgroupMode::V2 { &[] } else { self.groups.as_slice() };
        groups.iter().map(names).collect()
    }

    /// The processes in it, as this process's PID namespace knows them.
    ///
    /// # Errors
    /// The list cannot be read, because the leaf is gone.
    pub fn procs(&self) -> io::Result<Vec<i32>> {
        files::pids(&self.path().join("cgroup.procs"))
    }

    /// Kills every process in it. Race-free on v2 (`cgroup.kill`, Linux 5.14) and on v1 (`pids.max`
    /// of 0 lets nothing be born while the killing goes on). Does not wait for them to be gone.
    ///
    /// # Errors
    /// Processes are left that could not be killed.
    pub fn kill(&self) -> io::Result<()> {
        // On v1 in every hierarchy first: the one with the pids controller need not come first.
        for group in &self.groups {
            let _ = fs::write(group.dir.join("pids.max"), "0");
        }
        self.groups.iter().try_for_each(|group| kill_all(&group.dir))
    }

    /// Removes it. Processes whose end was seen may take a moment to leave it; that is waited for.
    /// Does nothing where it is gone already.
    ///
    /// # Errors
    /// It still holds processes after five seconds, or the kernel refuses.
    pub fn remove(&mut self) -> Result<(), CgroupError> {
        if !self.removed {
            self.groups.iter().try_for_each(|group| remove_dir(&group.dir))?;
            self.removed = true;
        }
        Ok(())
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if !self.removed {
            let _ = self.kill();
            let _ = self.remove();
        }
    }
}

/// Kills every process of one group, as [`Leaf::kill`].
pub(crate) fn kill_all(dir: &Path) -> io::Result<()> {
    let put = |name: &str, byte: &[u8]| {
        File::options().write(true).open(dir.join(name)).and_then(|mut file| file.write_all(byte))
    };
    if !dir.exists() || put("cgroup.kill", b"1").is_ok() {
        return Ok(());
    }
    let _ = put("pids.max", b"0");
    let procs = dir.join("cgroup.procs");
    let mut before = Vec::new();
    // Without the pids controller a process may fork while the list is read: read until no new one
    // shows up.
    loop {
        let pids = files::pids(&procs)?;
        let fresh: Vec<i32> = pids.iter().copied().filter(|pid| !before.contains(pid)).collect();
        if fresh.is_empty() {
            thaw_killed(dir);
            return Ok(());
        }
        for &pid in &fresh {
            if pid == 0 {
                return Err(io::Error::other(format!(
                    "{}: holds a process of another PID namespace",
                    dir.display()
                )));
            }
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        before = pids;
    }
}

/// Removes one group, waiting until it is empty.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), CgroupError> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(20);
    loop {
        let source = match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        if source.raw_os_error() != Some(libc::EBUSY) || started.elapsed() > EMPTY_DEADLINE {
            let pids = files::pids(&dir.join("cgroup.procs")).unwrap_or_default();
            return Err(CgroupError::Remove { path: dir.to_owned(), pids, source });
        }
        wait_for_change(dir, pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Waits until the group's `populated` changes (v2: `cgroup.events` tells by POLLPRI), at most
/// 5 ms, since it may have changed before the file was opened; v1 tells nobody, so there it only
/// pauses: 20 µs at first.
fn wait_for_change(dir: &Path, pause: Duration) {
    match File::open(dir.join("cgroup.events")) {
        Ok(mut events) => {
            let mut text = String::new();
            let _ = events.read_to_string(&mut text);
            if files::keyed(&text, "populated") == Some(1) {
                let _ = poll(
                    &mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)],
                    PollTimeout::from(5_u8),
                );
            } else {
                thread::sleep(pause);
            }
        }
        Err(_) => thread::sleep(pause),
    }
}

/// The groups below one.
pub(crate) fn children(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
