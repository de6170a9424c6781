//! A container that was started: what it tells, how it ends, and the release of all it had.

use std::{
    fs, io,
    net::Ipv4Addr,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use compare_backend::{FrameReader, Instance, Output, Timeline, monotonic_ns};
use compare_cgroup::{
    Leaf,
    spawn::{Child, Ended, NOT_STARTED},
};
use compare_net::{Interface, delete_link};
use compare_spec::{Exit, GuestFacts, Phase, Workload};
use compare_wire::{Frame, Kind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a killed process may take to end before that is an error: it gives back its memory.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Our ends of what the container writes to.
pub(crate) struct Pipes {
    pub(crate) frames: OwnedFd,
    pub(crate) output: OwnedFd,
}

/// A running or ended container.
pub(crate) struct Container {
    child: Child,
    leaf: Leaf,
    frames: FrameReader,
    output: Output,
    timeline: Timeline,
    link: Option<(Interface, Ipv4Addr)>,
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
            timeline: Timeline::start(),
            link: None,
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

    /// It goes on with this timeline.
    pub(crate) fn with(self, timeline: Timeline) -> Self {
        let mut this = self;
        this.timeline = timeline;
        this
    }

    fn take_frame(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Init => self.timeline.reach_at(Phase::Init, frame.ns),
            Kind::Exec => self.timeline.reach_at(Phase::Exec, frame.ns),
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

    /// Gives back everything but the process, which is gone. Tries all of it, tells the first error.
    fn release(&mut self) -> io::Result<()> {
        // The kernel waits out RCU grace periods in this (8 to 20 ms). Asked for before the kill
        // instead, it took no less.
        let link = self.link.as_ref().map_or(Ok(()), |(host_end, _)| delete_link(host_end));
        let leaf = self.leaf.remove();
        link.map_err(io::Error::other)?;
        leaf.map_err(io::Error::other)
    }
}

impl Instance for Container {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let child = self.exit.is_none().then(|| self.child.as_fd());
        [child, self.frames.fd(), self.output.fd()].into_iter().flatten().collect()
    }

    fn pump(&mut self) -> io::Result<()> {
        self.output.pump()?;
        self.pump_frames()?;
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
