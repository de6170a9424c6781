//! The event loop: one thread that serves the devices while the CPUs run, woken by the guest's
//! doorbells (ioeventfd), by packets and by control bytes.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use crate::{
    bus::{Bus, lock},
    ending::Ending,
    virtio::net,
    watch,
};

/// Events taken from the kernel at a time.
const BATCH: usize = 16;

/// What an event means.
#[derive(Debug)]
enum Source {
    /// The guest notified a queue of a device.
    Doorbell { device: usize, queue: usize, event: EventFd },
    /// Packets wait for a network card.
    Packets { device: usize, _tap: OwnedFd },
    /// PID 1 runs: control bytes may be passed on.
    InitRuns,
    /// Control bytes wait.
    Control,
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

    /// Serves a card's receive queue whenever packets arrive. Edge triggered: the card reads until
    /// nothing is left or the guest has no room, and its doorbell tells when there is room again.
    ///
    /// # Errors
    /// epoll_ctl(2) fails.
    pub fn attach_packets(&mut self, device: usize, tap: OwnedFd) -> io::Result<()> {
        let fd = tap.as_raw_fd();
        self.watch(
            fd,
            EventSet::IN | EventSet::EDGE_TRIGGERED,
            Source::Packets { device, _tap: tap },
        )
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
        loop {
            let count = match self.epoll.wait(watch::PERIOD.as_millis() as i32, &mut events) {
                Ok(0) => match idle(bus) {
                    Some(ending) => return ending,
                    None => continue,
                },
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return failed(error),
            };
            for event in &events[..count] {
                self.handle(event.data() as usize, bus);
            }
        }
    }

    fn handle(&mut self, token: usize, bus: &Bus) {
        match &self.sources[token] {
            Source::Doorbell { device, queue, event } => {
                let _ = event.read();
                lock(&bus.virtio[*device]).serve(*queue);
            }
            Source::Packets { device, .. } => lock(&bus.virtio[*device]).serve(net::RECEIVE),
            Source::InitRuns => {
                let _ = bus.init_runs.read();
                if self.sources.iter().any(|source| matches!(source, Source::Control)) {
                    return; // a guest may send that mark again
                }
                // A control descriptor that cannot be watched (a file, /dev/null) has nothing to say.
                let fd = self.control.as_raw_fd();
                let _ = self.watch(fd, EventSet::IN, Source::Control);
            }
            Source::Control => self.pass_control(bus),
        }
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

/// Nothing happened for a while: tells what is held back, and sees whether anything ever can.
fn idle(bus: &Bus) -> Option<Ending> {
    if bus.frames.release().is_err() {
        return Some(Ending::Abandoned);
    }
    bus.watch.tick().then(|| Ending::Crashed("every CPU halted with interrupts off".to_owned()))
}
