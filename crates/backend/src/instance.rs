//! The traits. An instance never blocks: whoever waits for it polls [`Instance::fds`] beside its
//! own descriptors and calls [`Instance::pump`] when one is readable.

use std::{
    io,
    net::Ipv4Addr,
    ops::Range,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use compare_cgroup::{Leaf, Parent};
use compare_spec::{Bytes, Confinement, Exit, GuestFacts, Image, Phase, Refused, Workload};

use crate::{Output, Timeline};

/// What to start.
#[derive(Debug, Clone, Copy)]
pub struct StartRequest<'a> {
    /// Unique among the living instances of this process, at most 11 characters of `[a-z0-9-]`:
    /// the leaf cgroup, host name and network interface (IFNAMSIZ) are called after it.
    pub name: &'a str,
    /// Number of the instance, from 0, unique among the living ones: its network address.
    pub slot: u32,
    /// What to run.
    pub workload: &'a Workload,
    /// On which root file system.
    pub image: &'a Image,
    /// Where the instance's leaf cgroup is made.
    pub parent: &'a Parent,
}

/// A start that did not succeed. Whatever it had made is gone again.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct StartError {
    /// What was attempted and on what, with the remedy where the host lacks something.
    pub attempt: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// The phases it had reached.
    pub timeline: Timeline,
}

/// What a backend that restores must have before its first start: a saved instance of another.
pub struct Template<'a> {
    /// Starts the instance that is saved. It makes everything anew.
    pub backend: &'a mut dyn Backend,
    /// Where it is saved, and where every later start restores from. The caller makes it, empty and
    /// for this user alone, and removes it after the last start.
    pub directory: PathBuf,
}

/// A way to run workloads.
pub trait Backend: Send {
    /// Its name; with [`Backend::start_mode`] the column in every table.
    fn name(&self) -> &str;

    /// The way it starts: `cold` makes everything anew, `restored` goes on from a saved instance.
    fn start_mode(&self) -> &str {
        "cold"
    }

    /// What must be saved before the first start; none where every start makes everything anew.
    ///
    /// Whoever drives the backend starts an instance of [`Template::backend`], waits until it is
    /// ready and at rest, and calls [`Instance::save`] with [`Template::directory`]. From then on
    /// [`Backend::start`] restores from there. The first instance it starts is for rehearsal: it is
    /// waited for, asked for its working set ([`Instance::note_working_set`]) and stopped.
    fn template(&mut self) -> Option<Template<'_>> {
        None
    }

    /// Makes what may be made before the clock starts, of the next start; by default nothing may. What
    /// fails here is told by the start that misses it.
    fn prepare(&mut self, workload: &Workload) {
        let _ = workload;
    }

    /// Starts an instance. `timeline` was started right before the call; nothing is done for the
    /// instance earlier. Returns once the instance's own code is running or about to; later phases
    /// arrive by [`Instance::pump`].
    ///
    /// # Errors
    /// The host refuses something the backend needs. Failures inside the instance (a missing
    /// program, a guest that dies) are no errors here: they arrive as its [`Exit`].
    #[expect(clippy::result_large_err, reason = "it is made at most once a trial")]
    fn start(
        &mut self,
        request: &StartRequest<'_>,
        timeline: Timeline,
    ) -> Result<Box<dyn Instance>, StartError>;
}

/// A started workload. Dropping it kills and releases everything, as a last resort without a word;
/// [`Instance::stop`] is the way that tells.
pub trait Instance {
    /// Descriptors to poll for reading.
    fn fds(&self) -> Vec<BorrowedFd<'_>>;

    /// Takes in whatever happened, without blocking.
    ///
    /// # Errors
    /// The instance can no longer be followed.
    fn pump(&mut self) -> io::Result<()>;

    /// The phases reached so far.
    fn timeline(&self) -> &Timeline;

    /// The same, for the phases that others see (`ready`).
    fn timeline_mut(&mut self) -> &mut Timeline;

    /// Whether the workload may answer by now, so that the probe begins to ask: it was executed. A
    /// restored instance has no such phase; its workload goes on with [`Phase::Init`].
    fn may_answer(&self) -> bool {
        self.timeline().has(Phase::Exec)
    }

    /// How the workload ended, and when (nanoseconds of [`crate::monotonic_ns`]); none while it runs.
    fn exit(&self) -> Option<(&Exit, u64)>;

    /// Where it answers, in the network namespace of the thread that started it.
    fn address(&self) -> Option<Ipv4Addr>;

    /// What it wrote.
    fn output(&mut self) -> &mut Output;

    /// Its leaf cgroup: every host process of the instance is in it.
    fn leaf(&self) -> &Leaf;

    /// Where guest RAM is mapped in the monitor's address space; empty for a container.
    fn guest_ram(&self) -> &[Range<u64>];

    /// The kernel release the workload runs on, once known.
    fn kernel_release(&self) -> Option<&str>;

    /// How far its monitor, or a container's workload, is confined; none as long as it is not known.
    fn confinement(&self) -> Option<&Confinement> {
        None
    }

    /// System calls its workload was refused so far; none where nothing refuses any.
    fn refused(&self) -> Vec<Refused> {
        Vec::new()
    }

    /// Asks a guest what it knows of its memory and waits for the answer; none for a container.
    ///
    /// # Errors
    /// It does not answer before the deadline.
    fn guest_facts(&mut self, deadline: Duration) -> io::Result<Option<GuestFacts>>;

    /// Saves the whole instance, as it is now, in an empty directory, for a backend that restores
    /// it. The instance is over then: its monitor has ended, and [`Instance::stop`] only releases
    /// what is left.
    ///
    /// # Errors
    /// The instance cannot be written there, or its backend cannot save at all (`Unsupported`).
    /// It may be over all the same.
    fn save(&mut self, directory: &Path) -> io::Result<()> {
        let _ = directory;
        Err(io::Error::new(io::ErrorKind::Unsupported, "this backend cannot save instances"))
    }

    /// Notes, beside the snapshot it was restored from, which memory it has come to need until now,
    /// for later instances to begin with; tells how much that is. None where there is nothing to
    /// note: an instance that was not restored, or a backend that has no use for it.
    ///
    /// # Errors
    /// It cannot be found out, or not be written there.
    fn note_working_set(&mut self) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    /// Sends the workload its stop signal, waits `grace`, kills what is left, and releases
    /// everything: processes, cgroup, network, mounts, descriptors. Returns with `stopped` reached;
    /// what the kernel takes down later by itself, [`Instance::until_gone`] waits for.
    /// An instance that already ended is only released. Further calls do nothing.
    ///
    /// # Errors
    /// Something could not be released; the message names it.
    fn stop(&mut self, grace: Duration) -> io::Result<()>;

    /// Waits, once it is stopped, until the kernel has taken down what it takes down by itself when
    /// nobody uses it any more. Returns with `gone` reached.
    ///
    /// # Errors
    /// Something is still there after `patience`; the message names it.
    fn until_gone(&mut self, patience: Duration) -> io::Result<()> {
        let _ = patience;
        if let Some(stopped) = self.timeline().events().stopped {
            let ns = self.timeline().t0() + stopped;
            self.timeline_mut().reach_at(Phase::Gone, ns);
        }
        Ok(())
    }
}
