//! Stopping everything in a leaf where it is, and letting it go on.
//!
//! ```text
//!             freeze: written                told: all of it stands
//!  running ──────────────────► freezing ────────────────────────────► frozen
//!     ▲                                                                  │
//!     └────────────────────────── thaw ──────────────────────────────────┘
//! ```
//! v2 tells by an event (`cgroup.events`, cgroup-v2.rst); v1 tells nobody, its state has to be read
//! again and again (cgroup-v1/freezer-subsystem.rst).

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use compare_spec::CgroupMode;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{Controller, Leaf, files};

/// How long a leaf is waited for. One that does not freeze holds a process that sleeps in the kernel
/// and hears no signal, such as on a disk that is gone.
const DEADLINE: Duration = Duration::from_secs(5);

impl Leaf {
    /// Freezes every process in it and returns once all stand still, those born later too. They can
    /// still be killed ([`Leaf::kill`]).
    ///
    /// # Errors
    /// Something in it does not stand still within five seconds (it goes on then), the kernel cannot
    /// (v2 before Linux 5.2), or on v1 it was made without [`crate::Limits::freezer`].
    pub fn freeze(&self) -> io::Result<()> {
        let result = self.set_frozen(true);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            let _ = self.set_frozen(false);
        }
        result
    }

    /// Lets its processes go on; does nothing where they do.
    ///
    /// # Errors
    /// As for [`Leaf::freeze`].
    pub fn thaw(&self) -> io::Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        if self.mode == CgroupMode::V2 {
            let dir = self.path();
            files::write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })
                .map_err(io::Error::other)?;
            return await_event(dir, frozen);
        }
        let dir = self.dir(Controller::Freezer).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "the leaf was made without a freezer group")
        })?;
        let state = if frozen { FROZEN } else { THAWED };
        files::write(&dir.join(V1_STATE), state).map_err(io::Error::other)?;
        await_state(dir, state)
    }
}

/// The v1 file and what it holds.
const V1_STATE: &str = "freezer.state";
const FROZEN: &str = "FROZEN";
const THAWED: &str = "THAWED";

/// Thaws a v1 freezer group; other groups are left as they are. What was killed while it was frozen
/// there dies only then.
pub(crate) fn thaw_killed(dir: &Path) {
    let path = dir.join(V1_STATE);
    if path.exists() {
        let _ = files::write(&path, THAWED);
    }
}

fn await_event(dir: &Path, frozen: bool) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut events = File::open(dir.join("cgroup.events"))?;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        match files::keyed(&text, "frozen") {
            Some(state) if (state == 1) == frozen => return Ok(()),
            Some(_) => {}
            None => return Err(io::ErrorKind::Unsupported.into()),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Whatever changed since the file was read is told.
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn await_state(dir: &Path, state: &str) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_micros(20);
    while files::read(&dir.join(V1_STATE)).map_err(io::Error::other)?.trim() != state {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(pause); // v1 has no event for it
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Parent, fake::Fake};

    #[test]
    fn each_version_is_told_in_its_words() {
        let v2 = Fake::v2("memory");
        let parent = Parent::create(&v2.detect()).unwrap();
        let leaf = parent.create_leaf("a", &Limits::default()).unwrap();
        std::fs::write(leaf.path().join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        leaf.freeze().unwrap();
        assert_eq!(files::read(&leaf.path().join("cgroup.freeze")).unwrap(), "1");
        std::fs::write(leaf.path().join("cgroup.events"), "populated 1\n").unwrap();
        assert_eq!(leaf.thaw().unwrap_err().kind(), io::ErrorKind::Unsupported);

        let v1 = Fake::v1(&["memory", "freezer"]);
        let parent = Parent::create(&v1.detect()).unwrap();
        let limits = Limits { freezer: true, ..Limits::default() };
        let leaf = parent.create_leaf("a", &limits).unwrap();
        leaf.freeze().unwrap();
        let state = || files::read(&leaf.dir(Controller::Freezer).unwrap().join(V1_STATE)).unwrap();
        assert_eq!(state(), FROZEN);
        leaf.thaw().unwrap();
        assert_eq!(state(), THAWED);
        let without = parent.create_leaf("b", &Limits::default()).unwrap();
        assert_eq!(without.freeze().unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
