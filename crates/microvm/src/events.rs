//! The event loop: one thread that serves the devices while the CPUs run, woken by the guest's
//! doorbells (ioeventfd), by packets and connections, and by control bytes.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    time::{Duration, Instant},
};

use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use crate::{
    bus::{Bus, lock},
    ending::Ending,
    watch,
};

/// Events taken from the kernel at a time.
const BATCH: usize = 16;

/// What an event means.
#[derive(Debug)]
enum Source {
    /// The guest notified a queue of a device.
    Doorbell { device: usize, queue: usize, event: EventFd },
    /// Something happened on the host's side of a device.
    Device { device: usize },
    /// PID 1 runs: control bytes may be passed on.
    InitRuns,
    /// Control bytes wait.
    Control,
}

impl Source {
    /// Whether the guest's CPUs cause it. Packets and control bytes come to a dead guest, too.
    fn is_sign_of_life(&self) -> bool {
        matches!(self, Self::Doorbell { .. } | Self::InitRuns)
    }
}

/// The sources of events and the epoll(7) instance that watches them.
#[derive(Debug)]
pub struct EventLoop {
    epoll: Epoll,
    sources: Vec<Source>,
    control: File,
}

impl EventLoop {
    /// A loop that passes `control` on once PID 1 runs.
    ///
    /// # Errors
    /// epoll_create1(2) fails.
    pub fn new(control: File) -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, sources: Vec::new(), control })
    }

    /// Serves a queue whenever its doorbell rings.
    ///
    /// # Errors
    /// epoll_ctl(2) fails.
    pub fn attach_doorbell(
        &mut self,
        device: usize,
        queue: usize,
        event: EventFd,
    ) -> io::Result<()> {
        let fd = event.as_raw_fd();
        self.watch(fd, EventSet::IN, Source::Doorbell { device, queue, event })
    }

    /// Lets a device know whenever something happens on the descriptor it watches, which stays open
    /// as long as the machine. Edge triggered: the device takes all there is or the guest has room
    /// for, and a doorbell tells when there is room again.
    ///
    /// # Errors
    /// epoll_ctl(2) fails.
    pub fn attach_device(&mut self, device: usize, watched: BorrowedFd<'_>) -> io::Result<()> {
        let set = EventSet::IN | EventSet::EDGE_TRIGGERED;
        self.watch(watched.as_raw_fd(), set, Source::Device { device })
    }

    fn watch(&mut self, fd: RawFd, set: EventSet, source: Source) -> io::Result<()> {
        let token = self.sources.len() as u64;
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(set, token))?;
        self.sources.push(source);
        Ok(())
    }

    /// Serves until the machine ends.
    pub fn run(mut self, bus: &Bus) -> Ending {
        let failed = |error: io::Error| Ending::Failed(format!("wait for events: {error}"));
        if let Err(error) = self.watch(bus.init_runs.as_raw_fd(), EventSet::IN, Source::InitRuns) {
            return failed(error);
        }
        let mut events = [EpollEvent::default(); BATCH];
        let mut quiet_since = Instant::now();
        // Whoever is to be served; between rounds, whoever had a turn and has more to do.
        let mut round: Vec<usize> = Vec::new();
        loop {
            let patience = if round.is_empty() { watch::PERIOD } else { Duration::ZERO };
            let count = match self.epoll.wait(patience.as_millis() as i32, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return failed(error),
            };
            let tokens = events[..count].iter().map(|event| event.data() as usize);
            if tokens.clone().any(|token| self.sources[token].is_sign_of_life()) {
                quiet_since = Instant::now();
            } else if count == 0 && round.is_empty() || quiet_since.elapsed() >= watch::PERIOD {
                if let Some(ending) = idle(bus) {
                    return ending;
                }
                quiet_since = Instant::now();
            }
            round.extend(tokens);
            round.sort_unstable();
            round.dedup();
            round.retain(|&token| self.handle(token, bus));
        }
    }

    /// Handles an event; says whether there is more to do for it.
    fn handle(&mut self, token: usize, bus: &Bus) -> bool {
        match &self.sources[token] {
            Source::Doorbell { device, queue, event } => {
                let _ = event.read();
                return lock(&bus.virtio[*device]).serve(*queue);
            }
            Source::Device { device } => return lock(&bus.virtio[*device]).handle_event(),
            Source::InitRuns => {
                let _ = bus.init_runs.read();
                if self.sources.iter().any(|source| matches!(source, Source::Control)) {
                    return false; // a guest may send that mark again
                }
                // A control descriptor that cannot be watched (a file, /dev/null) has nothing to say.
                let fd = self.control.as_raw_fd();
                let _ = self.watch(fd, EventSet::IN, Source::Control);
            }
            Source::Control => self.pass_control(bus),
        }
        false
    }

    fn pass_control(&mut self, bus: &Bus) {
        let mut bytes = [0; 64];
        let mut console = lock(&bus.console);
        let room = console.room().clamp(1, bytes.len());
        match self.control.read(&mut bytes[..room]) {
            Ok(count) if count > 0 => console.input(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Its other end is closed: nothing will come any more.
            _ => {
                let fd = self.control.as_raw_fd();
                let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
            }
        }
    }
}

/// The guest did nothing for a while: tells what is held back, and sees whether anything ever can.
fn idle(bus: &Bus) -> Option<Ending> {
    if bus.frames.release().is_err() {
        return Some(Ending::Abandoned);
    }
    bus.watch.tick().then(|| Ending::Crashed("every CPU halted with interrupts off".to_owned()))
}
