//! A running microVM as the backend sees it: its monitor's process, the frames and output that come
//! out of it, and the control bytes that go in.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use compare_backend::{FrameReader, Instance, Output, Timeline, monotonic_ns};
use compare_cgroup::{
    Leaf,
    spawn::{Child, Ended},
};
use compare_spec::{Bytes, Confinement, Exit, GuestFacts, Phase, Signal};
use compare_wire::{Control, Frame, GuestReport, Kind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    confinement,
    memory::PAGE,
    snapshot::{Saved, WorkingSet},
};

/// How long the monitor may take from the workload's end to its own, before it is killed: the guest
/// prints what is left and asks for its power to be cut.
const POWER_OFF_GRACE: Duration = Duration::from_secs(2);
/// How long saving may take: guest RAM is written to a disk that may be slow.
const SAVE_DEADLINE: Duration = Duration::from_secs(120);
/// Most mappings of guest RAM believed: below and above the device hole, and a root in place.
const MAX_RANGES: usize = 3;

/// What a started monitor consists of.
#[derive(Debug)]
pub struct Parts {
    /// The process.
    pub child: Child,
    /// Its cgroup.
    pub leaf: Leaf,
    /// Reading end of its pipe of frames.
    pub frames: OwnedFd,
    /// Its console.
    pub output: Output,
    /// Writing end of the guest's control bytes.
    pub control: OwnedFd,
    /// Where the guest answers.
    pub address: Option<Ipv4Addr>,
    /// Guest RAM.
    pub ram: Bytes,
    /// What asks the workload to stop.
    pub stop_signal: Signal,
    /// Where the monitor can save the machine.
    pub save_to: Option<PathBuf>,
    /// Where the machine was saved that it goes on with, if it was.
    pub restored_from: Option<PathBuf>,
}

/// A running microVM.
#[derive(Debug)]
pub struct MicrovmInstance {
    child: Child,
    ended: Option<Ended>,
    leaf: Leaf,
    frames: FrameReader,
    output: Output,
    control: OwnedFd,
    address: Option<Ipv4Addr>,
    ram: Bytes,
    stop_signal: Signal,
    save_to: Option<PathBuf>,
    restored_from: Option<PathBuf>,
    saved: bool,
    timeline: Timeline,
    exit: Option<(Exit, u64)>,
    guest_ram: Vec<Range<u64>>,
    report: Option<GuestReport>,
    confinement: Option<Confinement>,
    release: Option<String>,
    /// Nothing will be written any more: PID 1 printed all there was and had its power cut, or the
    /// monitor is gone.
    silent: bool,
    killed: bool,
    released: bool,
}

impl MicrovmInstance {
    pub(crate) fn new(parts: Parts, timeline: Timeline) -> Self {
        Self {
            child: parts.child,
            ended: None,
            leaf: parts.leaf,
            frames: FrameReader::new(parts.frames),
            output: parts.output,
            control: parts.control,
            address: parts.address,
            ram: parts.ram,
            stop_signal: parts.stop_signal,
            save_to: parts.save_to,
            restored_from: parts.restored_from,
            saved: false,
            timeline,
            exit: None,
            guest_ram: Vec::new(),
            report: None,
            confinement: None,
            release: None,
            silent: false,
            killed: false,
            released: false,
        }
    }

    /// Takes in one frame. What comes from the guest may be anything, so each kind counts once.
    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Created => self.timeline.reach_at(Phase::Created, frame.ns),
            Kind::Kernel => self.timeline.reach_at(Phase::Kernel, frame.ns),
            Kind::Init => self.timeline.reach_at(Phase::Init, frame.ns),
            Kind::Exec => self.timeline.reach_at(Phase::Exec, frame.ns),
            Kind::GuestRam if self.guest_ram.len() < MAX_RANGES => {
                self.guest_ram.extend(range(frame))
            }
            Kind::GuestRam => {}
            Kind::Report => {
                if let Ok(report) = GuestReport::decode(frame.payload()) {
                    self.release.get_or_insert_with(|| report.release.clone());
                    self.report = Some(report);
                }
            }
            Kind::Confined => self.confinement = confinement::told(frame.payload()),
            // A guest's request, which its monitor answers.
            Kind::Save => {}
            Kind::Saved => self.saved = true,
            Kind::Failed | Kind::Exited | Kind::PowerOff | Kind::Crashed | Kind::MonitorFailed => {
                self.exit.get_or_insert_with(|| (exit_of(frame), frame.ns));
                self.silent |= !matches!(frame.kind, Kind::Failed | Kind::Exited);
            }
        }
    }

    /// Why a monitor ended that did not say so.
    fn silent_end(&self, ended: Ended) -> Exit {
        match ended {
            Ended::Code(0) if self.saved => Exit::Code { code: 0 },
            Ended::Signal(signal) if self.killed => Exit::Signal { signal },
            _ if self.leaf.oom_kills().unwrap_or(0) > 0 => Exit::Oom,
            Ended::Signal(libc::SIGSYS) => Exit::MonitorFailed {
                reason: "the monitor made a system call that its filter forbids, and was killed \
                         (SIGSYS)"
                    .to_owned(),
            },
            Ended::Signal(signal) => {
                Exit::MonitorFailed { reason: format!("the monitor was killed by signal {signal}") }
            }
            Ended::Code(code) => Exit::MonitorFailed {
                reason: format!("the monitor exited with code {code} without a word"),
            },
        }
    }

    /// Tells the guest's PID 1 something. A full pipe means it does not listen.
    fn tell(&self, control: Control) -> io::Result<()> {
        nix::unistd::write(&self.control, &[control.encode()]).map(drop).map_err(Into::into)
    }

    /// Pumps until `done` says so or the deadline is over; says which.
    fn pump_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> io::Result<bool> {
        loop {
            self.pump()?;
            if done(self) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut polled: Vec<PollFd<'_>> =
                self.fds().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            // Rounded up, so that the last fraction of a millisecond is not spun away.
            let timeout =
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut polled, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks the workload to stop, and ends what does not.
    fn end(&mut self, grace: Duration) -> io::Result<()> {
        if self.exit.is_none()
            && self.tell(Control::Signal(self.stop_signal.number() as u8)).is_ok()
        {
            self.pump_until(Instant::now() + grace, |this| {
                this.exit.is_some() || this.ended.is_some()
            })?;
        }
        if self.exit.is_some() {
            self.pump_until(Instant::now() + POWER_OFF_GRACE, |this| this.ended.is_some())?;
        }
        if self.ended.is_none() {
            self.killed = true;
            self.child.signal(libc::SIGKILL)?;
            self.ended = Some(self.child.wait()?);
        }
        self.pump()
    }

    /// Gives back what the instance holds. The tap device went with the monitor's last descriptor.
    fn release(&mut self) -> io::Result<()> {
        self.leaf.kill()?;
        self.leaf.remove().map_err(io::Error::other)
    }
}

impl Instance for MicrovmInstance {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let process = self.ended.is_none().then(|| self.child.as_fd());
        self.frames.fd().into_iter().chain(self.output.fd()).chain(process).collect()
    }

    fn pump(&mut self) -> io::Result<()> {
        // The process first: what it wrote before its end is then there to be read below.
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        for frame in self.frames.pump()? {
            self.take(&frame);
        }
        if let (Some(ended), None) = (self.ended, &self.exit) {
            self.exit = Some((self.silent_end(ended), monotonic_ns()));
        }
        self.silent |= self.ended.is_some();
        self.output.pump()
    }

    fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    fn timeline_mut(&mut self) -> &mut Timeline {
        &mut self.timeline
    }

    /// Told once the last output is there too, as of a container: a line that was looked for must
    /// not come after the end.
    fn exit(&self) -> Option<(&Exit, u64)> {
        self.exit.as_ref().filter(|_| self.silent).map(|(exit, ns)| (exit, *ns))
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    fn guest_ram(&self) -> &[Range<u64>] {
        &self.guest_ram
    }

    fn kernel_release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    fn confinement(&self) -> Option<&Confinement> {
        self.confinement.as_ref()
    }

    fn guest_facts(&mut self, deadline: Duration) -> io::Result<Option<GuestFacts>> {
        self.report = None;
        let failed = |kind, text: &str| {
            Err(io::Error::new(kind, format!("ask the guest for its memory: {text}")))
        };
        if self.exit.is_some() || self.tell(Control::Report).is_err() {
            return failed(io::ErrorKind::NotConnected, "it has ended");
        }
        self.pump_until(Instant::now() + deadline, |this| {
            this.report.is_some() || this.exit.is_some()
        })?;
        match &self.report {
            Some(report) => Ok(Some(facts(report, self.ram))),
            None if self.exit.is_some() => {
                failed(io::ErrorKind::NotConnected, "it ended before it answered")
            }
            None => failed(io::ErrorKind::TimedOut, &format!("no answer within {deadline:?}")),
        }
    }

    fn may_answer(&self) -> bool {
        self.timeline.has(if self.restored_from.is_some() { Phase::Init } else { Phase::Exec })
    }

    /// The monitor saves the machine and ends. What it wrote is read back and checked, all of it.
    fn save(&mut self, directory: &Path) -> io::Result<()> {
        if self.save_to.as_deref() != Some(directory) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("this machine was not built to be saved to {}", directory.display()),
            ));
        }
        self.tell(Control::Save)?;
        let over = self.pump_until(Instant::now() + SAVE_DEADLINE, |this| this.ended.is_some())?;
        match &self.exit {
            _ if self.saved => {}
            Some((Exit::MonitorFailed { reason } | Exit::GuestCrashed { reason }, _)) => {
                return Err(io::Error::other(reason.clone()));
            }
            Some(_) => return Err(io::Error::other("the workload ended before it was saved")),
            None if !over => return Err(io::ErrorKind::TimedOut.into()),
            None => return Err(io::Error::other("the monitor ended without a word")),
        }
        let verified = Saved::open(directory).and_then(|saved| saved.verify());
        verified.map_err(|error| io::Error::other(error.chain()))
    }

    /// The monitor told where guest RAM is; which of its pages are the machine's own, the kernel tells.
    fn note_working_set(&mut self) -> io::Result<Option<Bytes>> {
        let Some(directory) = &self.restored_from else { return Ok(None) };
        let mapped: u64 = self.guest_ram.iter().map(|range| range.end - range.start).sum();
        if mapped != self.ram.0 / PAGE * PAGE {
            return Err(io::Error::other("the monitor did not tell where guest RAM is"));
        }
        let pagemap = File::open(format!("/proc/{}/pagemap", self.child.pid))?;
        let set = WorkingSet::of_process(&pagemap, &self.guest_ram)?;
        set.write(directory)?;
        Ok(Some(Bytes(set.bytes())))
    }

    fn stop(&mut self, grace: Duration) -> io::Result<()> {
        if self.released {
            return Ok(());
        }
        self.timeline.stop_asked();
        // Released in any case, also where the monitor can no longer be followed.
        let ended = self.end(grace);
        self.release()?;
        self.released = true;
        self.timeline.reach(Phase::Stopped);
        ended
    }
}

impl Drop for MicrovmInstance {
    fn drop(&mut self) {
        if !self.released {
            let _ = self.child.signal(libc::SIGKILL);
            let _ = self.release();
            let _ = self.child.wait();
        }
    }
}

/// How an instance ended, by the frame that says so.
fn exit_of(frame: &Frame) -> Exit {
    let errno = frame.arg as i32;
    match frame.kind {
        Kind::Exited if frame.payload() == b"oom" => Exit::Oom,
        // wait(2): the low seven bits are the signal, or 0 and the next byte is the code.
        Kind::Exited => match errno & 0x7f {
            0 => Exit::Code { code: errno >> 8 & 0xff },
            signal => Exit::Signal { signal },
        },
        Kind::Failed => match frame.text().strip_prefix("execve ") {
            Some(path) => Exit::ExecFailed { errno, path: path.to_owned() },
            None => Exit::SetupFailed { step: frame.text(), errno },
        },
        Kind::PowerOff => {
            Exit::GuestCrashed { reason: "it powered off before the workload ended".to_owned() }
        }
        Kind::Crashed => Exit::GuestCrashed { reason: frame.text() },
        _ if errno != 0 => Exit::MonitorFailed {
            reason: format!("{}: {}", frame.text(), io::Error::from_raw_os_error(errno)),
        },
        _ => Exit::MonitorFailed { reason: frame.text() },
    }
}

/// The mapping a [`Kind::GuestRam`] frame tells of.
fn range(frame: &Frame) -> Option<Range<u64>> {
    let (start, length) = frame.payload().split_first_chunk()?;
    let start = u64::from_le_bytes(*start);
    let length = u64::from_le_bytes(length.try_into().ok()?);
    Some(start..start.checked_add(length)?)
}

fn facts(report: &GuestReport, ram: Bytes) -> GuestFacts {
    // Hostile numbers must not overflow; a wrong figure is the guest's own lie.
    let bytes = |kib: u64| Some(kib.saturating_mul(1024));
    GuestFacts {
        ram_bytes: ram.0,
        total_bytes: bytes(report.total_kib),
        available_bytes: bytes(report.available_kib),
        free_bytes: bytes(report.free_kib),
        slab_bytes: bytes(report.slab_kib),
        cached_bytes: bytes(report.cached_kib),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_name() {
        let exit = |kind, arg, payload: &[u8]| exit_of(&Frame::new(kind, arg, 0, payload));
        assert_eq!(exit(Kind::Exited, 7 << 8, b""), Exit::Code { code: 7 });
        assert_eq!(exit(Kind::Exited, 15, b""), Exit::Signal { signal: 15 });
        assert_eq!(
            exit(Kind::Exited, 0x80 | 6, b""),
            Exit::Signal { signal: 6 },
            "with a core dump"
        );
        assert_eq!(exit(Kind::Exited, 9, b"oom"), Exit::Oom);
        assert_eq!(
            exit(Kind::Failed, 2, b"execve /bin/none"),
            Exit::ExecFailed { errno: 2, path: "/bin/none".to_owned() }
        );
        assert_eq!(
            exit(Kind::Failed, 6, b"mount the root disk"),
            Exit::SetupFailed { step: "mount the root disk".to_owned(), errno: 6 }
        );
        assert_eq!(
            exit(Kind::Crashed, 0, b"fault"),
            Exit::GuestCrashed { reason: "fault".to_owned() }
        );
        assert_eq!(
            exit(Kind::MonitorFailed, 2, b"execve of the monitor"),
            Exit::MonitorFailed {
                reason: "execve of the monitor: No such file or directory (os error 2)".to_owned()
            }
        );
    }

    #[test]
    fn ranges_are_believed_only_whole() {
        let frame = |payload: &[u8]| range(&Frame::new(Kind::GuestRam, 0, 0, payload));
        let whole = [4096_u64.to_le_bytes(), 8192_u64.to_le_bytes()].concat();
        assert_eq!(frame(&whole), Some(4096..12288));
        assert_eq!(frame(&whole[..15]), None);
        assert_eq!(frame(&[0xff; 16]), None);
    }
}
