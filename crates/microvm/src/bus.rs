//! Where the guest's port and memory accesses go: the one place that knows which device answers at
//! which address. Whatever answers nowhere reads as all ones, as on a PC.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use compare_virtio::transport::Transport;
use compare_wire::{Frame, Kind, ports};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    console::Console,
    ending::Ending,
    frames::{FramePort, Frames},
    identity::IdentityPort,
    layout,
    save::Saver,
    trim::unmap_start_up_code,
    watch::Watch,
};

/// An interrupt line of the guest, raised through an eventfd.
#[derive(Debug)]
pub struct Line(pub EventFd);

impl vm_superio::Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> std::io::Result<()> {
        self.0.write(1)
    }
}

/// All devices.
pub struct Bus {
    /// The console at [`layout::SERIAL_PORT`].
    pub console: Mutex<Console<Line>>,
    /// The frames port.
    pub frame_port: Mutex<FramePort>,
    /// Where frames go.
    pub frames: Arc<Frames>,
    /// The virtio devices in the order of their addresses.
    pub virtio: Vec<Mutex<Transport<Line>>>,
    /// Raised when PID 1 runs: only then does it take control bytes.
    pub init_runs: EventFd,
    /// Notices CPUs that can never go on.
    pub watch: Watch,
    /// Who a restored guest is.
    pub identity: Mutex<IdentityPort>,
    /// Saves the machine, if it was built for that.
    pub saver: Option<Saver>,
}

/// A device's lock. A panic in another thread ends the process, so it is never poisoned for long.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// The guest writes to a port; `data` holds one byte or, from a string instruction, many.
    pub fn write_port(&self, port: u16, data: &[u8]) -> Option<Ending> {
        match port {
            layout::SERIAL_PORT..0x400 => {
                let mut console = lock(&self.console);
                let register = (port - layout::SERIAL_PORT) as u8;
                data.iter().for_each(|&byte| console.write(register, byte));
                None
            }
            ports::FRAMES => self.write_frames(data),
            layout::I8042_COMMAND_PORT if data.first() == Some(&layout::I8042_RESET) => {
                Some(Ending::Crashed("reset by the keyboard controller".to_owned()))
            }
            _ => None,
        }
    }

    fn write_frames(&self, data: &[u8]) -> Option<Ending> {
        let mut ending = None;
        let result = lock(&self.frame_port).write(data, |frame| {
            ending = ending.take().or_else(|| self.deliver(frame));
        });
        match result {
            Ok(()) => ending,
            Err(error) => Some(Ending::Crashed(format!("the guest {error}"))),
        }
    }

    fn deliver(&self, frame: &Frame) -> Option<Ending> {
        if frame.kind == Kind::Init {
            self.frames.hold(frame.kind, frame.arg, frame.payload());
            // The last mark before the workload runs; of a guest that is booted, that is Exec.
            if lock(&self.identity).was_told() && self.frames.release().is_err() {
                return Some(Ending::Abandoned);
            }
            return self.init_runs.write(1).err().map(|_| Ending::Abandoned);
        }
        if self.frames.send(frame.kind, frame.arg, frame.payload()).is_err() {
            return Some(Ending::Abandoned);
        }
        match frame.kind {
            Kind::PowerOff => Some(Ending::PowerOff),
            Kind::Save => Some(Ending::Save),
            // The start is over.
            Kind::Exec => {
                unmap_start_up_code();
                None
            }
            _ => None,
        }
    }

    /// The guest reads a port.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        match port {
            layout::SERIAL_PORT..0x400 => {
                let mut console = lock(&self.console);
                let register = (port - layout::SERIAL_PORT) as u8;
                data.iter_mut().for_each(|byte| *byte = console.read(register));
            }
            ports::IDENTITY => lock(&self.identity).read(data),
            // Ready for a command, with nothing to say.
            layout::I8042_COMMAND_PORT => data.fill(0),
            _ => data.fill(0xff),
        }
    }

    /// The guest reads memory that is no RAM.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        match self.virtio_at(address) {
            Some((device, offset)) => lock(device).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes memory that is no RAM.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.virtio_at(address) {
            lock(device).write(offset, data);
        }
    }

    fn virtio_at(&self, address: u64) -> Option<(&Mutex<Transport<Line>>, u64)> {
        let offset = address.checked_sub(layout::VIRTIO_START)?;
        let device = self.virtio.get(usize::try_from(offset / layout::VIRTIO_SIZE).ok()?)?;
        Some((device, offset % layout::VIRTIO_SIZE))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn bus() -> (Bus, std::fs::File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let console = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let event = || EventFd::new(0).unwrap();
        let bus = Bus {
            console: Mutex::new(Console::new(Line(event()), console)),
            frame_port: Mutex::default(),
            frames: Arc::new(Frames::new(Some(writer))),
            virtio: Vec::new(),
            init_runs: event(),
            watch: Watch::new(1).unwrap(),
            identity: Mutex::default(),
            saver: None,
        };
        (bus, reader.into())
    }

    fn frame(kind: Kind) -> Vec<u8> {
        let (bytes, len) = Frame::new(kind, 0, 0, b"").encode();
        bytes[..len].to_vec()
    }

    #[test]
    fn every_way_to_end_ends() {
        let (bus, mut reader) = bus();
        assert_eq!(bus.write_port(ports::FRAMES, &frame(Kind::Init)), None);
        assert_eq!(bus.init_runs.read().unwrap(), 1);
        assert_eq!(bus.write_port(ports::FRAMES, &frame(Kind::PowerOff)), Some(Ending::PowerOff));
        assert!(matches!(
            bus.write_port(ports::FRAMES, &frame(Kind::Created)),
            Some(Ending::Crashed(_))
        ));
        assert_eq!(bus.write_port(ports::FRAMES, &frame(Kind::Save)), Some(Ending::Save));
        assert!(matches!(bus.write_port(0x64, &[0xfe]), Some(Ending::Crashed(_))));
        assert_eq!(bus.write_port(0x64, &[0xd1]), None);
        let mut seen = [0; 64];
        assert_eq!(reader.read(&mut seen).unwrap(), 48, "Init, PowerOff and Save");
    }

    #[test]
    fn nothing_answers_where_nothing_is() {
        let (bus, _reader) = bus();
        let mut data = [0; 4];
        bus.read_port(0x80, &mut data);
        assert_eq!(data, [0xff; 4]);
        for address in [0, layout::VIRTIO_START, layout::VIRTIO_START - 1, u64::MAX] {
            bus.write_memory(address, &[0; 8]);
            bus.read_memory(address, &mut data);
            assert_eq!(data, [0xff; 4]);
        }
    }
}
