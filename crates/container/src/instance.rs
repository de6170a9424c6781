//! A container that was started: what it tells, how it ends, and the release of all it had.
#![allow(unsafe_code)] // a descriptor that was received

use std::{
    collections::BTreeMap,
    fs, io,
    net::Ipv4Addr,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use compare_backend::{FrameReader, Instance, Output, Timeline, monotonic_ns};
use compare_cgroup::{
    Leaf,
    spawn::{Child, Ended, NOT_STARTED},
};
use compare_confine::seccomp::{Listener, Notice, name};
use compare_net::{Interface, until_gone};
use compare_spec::{Confinement, Exit, GuestFacts, Phase, Refused, Workload};
use compare_wire::{Frame, Kind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys;

/// How long a killed process may take to end before that is an error: it gives back its memory.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Refusals between two looks at everything else.
const REFUSALS_A_TURN: u32 = 64;

/// Our ends of what the container writes to.
pub(crate) struct Pipes {
    pub(crate) frames: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) listener: OwnedFd,
}

/// A running or ended container.
pub(crate) struct Container {
    child: Child,
    leaf: Leaf,
    frames: FrameReader,
    output: Output,
    /// Where the listener for refused system calls comes from, with `Exec`.
    handover: OwnedFd,
    listener: Option<Listener>,
    refused: BTreeMap<u32, u64>,
    confinement: Confinement,
    timeline: Timeline,
    link: Option<(Interface, Ipv4Addr)>,
    /// Held until it is released: a network namespace that was made for it before.
    network: Option<OwnedFd>,
    /// We killed it, so that nothing else need have.
    killed: bool,
    /// What a step before or at `execve` failed with.
    failure: Option<Exit>,
    exit: Option<(Exit, u64)>,
    released: bool,
    program: String,
    stop_signal: i32,
    kernel_release: Option<String>,
}

impl Container {
    pub(crate) fn new(
        child: Child,
        leaf: Leaf,
        pipes: Pipes,
        workload: &Workload,
        kernel_release: Option<String>,
    ) -> Self {
        Self {
            child,
            leaf,
            frames: FrameReader::new(pipes.frames),
            output: Output::new(pipes.output),
            handover: pipes.listener,
            listener: None,
            refused: BTreeMap::new(),
            confinement: Confinement::default(),
            timeline: Timeline::start(),
            link: None,
            network: None,
            killed: false,
            failure: None,
            exit: None,
            released: false,
            program: workload.command.first().cloned().unwrap_or_default(),
            stop_signal: workload.stop_signal.number(),
            kernel_release,
        }
    }

    /// It has a link, which is to be deleted with it.
    pub(crate) fn linked(&mut self, host_end: Interface, address: Ipv4Addr) {
        self.link = Some((host_end, address));
    }

    /// What its workload runs without, for the record.
    pub(crate) fn confined(&mut self, confinement: Confinement) {
        self.confinement = confinement;
    }

    /// Keeps its network namespace for as long as it is not released.
    pub(crate) fn keep(&mut self, network: OwnedFd) {
        self.network = Some(network);
    }

    /// Sends its first process a descriptor.
    pub(crate) fn hand_over(&self, fd: &OwnedFd) -> io::Result<()> {
        Ok(sys::send_descriptor(self.handover.as_raw_fd(), fd.as_raw_fd())?)
    }

    /// It goes on with this timeline.
    pub(crate) fn with(self, timeline: Timeline) -> Self {
        let mut this = self;
        this.timeline = timeline;
        this
    }

    fn take_frame(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Init => self.timeline.reach_at(Phase::Init, frame.ns),
            Kind::Exec => {
                self.timeline.reach_at(Phase::Exec, frame.ns);
                self.listener = sys::receive_descriptor(self.handover.as_raw_fd()).ok().map(|fd| {
                    // SAFETY: the kernel has just made it for this process, and nobody else owns it.
                    Listener::new(unsafe { OwnedFd::from_raw_fd(fd) })
                });
                if self.listener.is_none() {
                    let lack = "refused system calls are not told: there was no listener to be had";
                    self.confinement.lacks.push(lack.to_owned());
                }
            }
            Kind::Failed => {
                let (step, errno) = (frame.text(), frame.arg as i32);
                self.failure = Some(if step.starts_with("execve ") {
                    Exit::ExecFailed { errno, path: self.program.clone() }
                } else {
                    Exit::SetupFailed { step, errno }
                });
            }
            // Only our own child holds the pipe, and it sends nothing else.
            _ => {}
        }
    }

    fn pump_frames(&mut self) -> io::Result<()> {
        for frame in self.frames.pump()? {
            self.take_frame(&frame);
        }
        Ok(())
    }

    /// Refuses what the workload may not do and takes note of it. Whoever tries without end is given
    /// an end of each turn.
    fn refuse(&mut self) -> io::Result<()> {
        for _ in 0..REFUSALS_A_TURN {
            let Some(listener) = &self.listener else { return Ok(()) };
            match listener.refuse_next(libc::EPERM)? {
                Notice::Refused(number) => *self.refused.entry(number).or_default() += 1,
                Notice::Nothing => return Ok(()),
                Notice::Over => self.listener = None,
            }
        }
        Ok(())
    }

    fn exit_of(&mut self, ended: Ended) -> Exit {
        match (self.failure.take(), ended) {
            (Some(failure), _) => failure,
            (None, Ended::Code(NOT_STARTED)) if !self.timeline.has(Phase::Init) => {
                Exit::SetupFailed { step: "join the cgroup".to_owned(), errno: 0 }
            }
            (None, Ended::Code(code)) => Exit::Code { code },
            // Only the kernel's own count tells its killing from another's.
            (None, Ended::Signal(libc::SIGKILL)) if !self.killed && self.oom_killed() => Exit::Oom,
            (None, Ended::Signal(signal)) => Exit::Signal { signal },
        }
    }

    fn oom_killed(&self) -> bool {
        self.leaf.oom_kills().unwrap_or(0) > 0
    }

    /// Takes in what happens until it has ended; whether it has before the deadline. Its output is
    /// read meanwhile: a writer that is held back could not end.
    fn wait_until(&mut self, deadline: Instant) -> io::Result<bool> {
        loop {
            self.pump()?;
            if self.exit.is_some() {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Rounded up: a timeout of 0 would spin through the last millisecond.
            let timeout =
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let mut fds: Vec<_> =
                self.fds().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the stop signal would do anything. As PID 1 of its namespace the workload is spared
    /// signals it has neither a handler for nor blocked (pid_namespaces(7)): waiting for those would
    /// be waiting out the whole grace for nothing.
    fn heeds_stop_signal(&self) -> bool {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.pid)).unwrap_or_default();
        let set = |key| signal_set(&status, key).unwrap_or(u64::MAX);
        let bit = 1 << (self.stop_signal - 1);
        self.stop_signal != libc::SIGKILL && (set("SigCgt:") | set("SigBlk:")) & bit != 0
    }

    fn end(&mut self, grace: Duration) -> io::Result<()> {
        if self.heeds_stop_signal() {
            // It may be ending by itself: then there is nobody to signal, and that is fine.
            let _ = self.child.signal(self.stop_signal);
            if self.wait_until(Instant::now() + grace)? {
                return Ok(());
            }
        }
        // With PID 1 of a PID namespace the kernel kills all the others and waits for them.
        let _ = self.child.signal(libc::SIGKILL);
        self.killed = true;
        if self.wait_until(Instant::now() + KILL_DEADLINE)? {
            return Ok(());
        }
        Err(io::Error::other(format!("process {} does not die", self.child.pid)))
    }

    /// Gives back everything but the process, which is gone. The link goes with the network
    /// namespace of the last process, which the kernel takes down by itself.
    fn release(&mut self) -> io::Result<()> {
        self.network = None;
        self.leaf.remove().map_err(io::Error::other)
    }
}

impl Instance for Container {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let child = self.exit.is_none().then(|| self.child.as_fd());
        // After `Exec` there is at most the failure of execve(2), which ends the process too.
        let frames = self.frames.fd().filter(|_| !self.timeline.has(Phase::Exec));
        let listener = self.listener.as_ref().map(AsFd::as_fd);
        [child, frames, self.output.fd(), listener].into_iter().flatten().collect()
    }

    fn pump(&mut self) -> io::Result<()> {
        self.output.pump()?;
        self.pump_frames()?;
        self.refuse()?;
        if self.exit.is_none()
            && let Some(ended) = self.child.try_wait()?
        {
            let ns = monotonic_ns();
            // What it wrote between the reads above and its end.
            self.pump_frames()?;
            self.output.pump()?;
            self.exit = Some((self.exit_of(ended), ns));
        }
        Ok(())
    }

    fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    fn timeline_mut(&mut self) -> &mut Timeline {
        &mut self.timeline
    }

    fn exit(&self) -> Option<(&Exit, u64)> {
        self.exit.as_ref().map(|(exit, ns)| (exit, *ns))
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.link.map(|(_, address)| address)
    }

    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    fn guest_ram(&self) -> &[Range<u64>] {
        &[]
    }

    fn kernel_release(&self) -> Option<&str> {
        self.kernel_release.as_deref()
    }

    fn confinement(&self) -> Option<&Confinement> {
        self.timeline.has(Phase::Exec).then_some(&self.confinement)
    }

    fn refused(&self) -> Vec<Refused> {
        let named = |(&number, &times)| Refused {
            call: name(number).map_or_else(|| number.to_string(), str::to_owned),
            times,
        };
        self.refused.iter().map(named).collect()
    }

    fn guest_facts(&mut self, _deadline: Duration) -> io::Result<Option<GuestFacts>> {
        Ok(None)
    }

    fn stop(&mut self, grace: Duration) -> io::Result<()> {
        if self.released {
            return Ok(());
        }
        self.timeline.stop_asked();
        self.pump()?;
        if self.exit.is_none() {
            self.end(grace)?;
        }
        self.release()?;
        self.released = true;
        self.timeline.reach(Phase::Stopped);
        Ok(())
    }

    /// Of a container without a link nothing can be seen that would tell when its network namespace
    /// is gone.
    fn until_gone(&mut self, patience: Duration) -> io::Result<()> {
        if let Some((host_end, _)) = &self.link {
            until_gone(host_end, patience).map_err(io::Error::other)?;
            self.timeline.reach(Phase::Gone);
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        if self.exit.is_none() {
            // With a deadline: what even SIGKILL does not end must not hold this program.
            let _ = self.end(Duration::ZERO);
        }
        let _ = self.release();
    }
}

/// A set of signals in the text of `/proc/PID/status`: bit 0 for signal 1 (proc_pid_status(5)).
pub(crate) fn signal_set(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
