//! Frames: those the monitor writes itself, and the port by which the guest's PID 1 sends its own.
//! The monitor stamps a guest's frame at the exit that completes it, on the host's clock.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    sync::Mutex,
};

use compare_backend::monotonic_ns;
use compare_wire::{Decoder, Frame, Kind};

use crate::bus::lock;

/// Most bytes held back: far more than the marks of a start.
const MOST_HELD: usize = 2048;

/// Where frames go: the backend's pipe, or nowhere when the monitor is run by hand.
///
/// Frames are stamped when they come to pass, but the marks on the way to the workload are held
/// back until the last of them: a write would wake the backend in the midst of what is measured, to
/// compete for the CPU. The container's child does the same.
#[derive(Debug)]
pub struct Frames {
    pipe: Option<File>,
    held: Mutex<Vec<u8>>,
}

impl Frames {
    /// Frames into a pipe.
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe: pipe.map(File::from), held: Mutex::default() }
    }

    /// Stamps a frame now and writes it with the next that is sent.
    pub fn hold(&self, kind: Kind, arg: u32, payload: &[u8]) {
        let (bytes, len) = Frame::new(kind, arg, monotonic_ns(), payload).encode();
        let mut held = lock(&self.held);
        held.extend_from_slice(&bytes[..len]);
        // A guest that says the same over and over is not kept in memory. Who no longer reads is
        // noticed by the next that is sent.
        if held.len() > MOST_HELD {
            let _ = self.write(&mut held);
        }
    }

    /// Stamps a frame now and writes it, behind those held back.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn send(&self, kind: Kind, arg: u32, payload: &[u8]) -> io::Result<()> {
        self.hold(kind, arg, payload);
        self.release()
    }

    /// Writes what is held back.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn release(&self) -> io::Result<()> {
        self.write(&mut lock(&self.held))
    }

    fn write(&self, held: &mut Vec<u8>) -> io::Result<()> {
        let result = match &self.pipe {
            Some(pipe) if !held.is_empty() => (&*pipe).write_all(held),
            _ => Ok(()),
        };
        held.clear();
        result
    }
}

/// The guest's side: bytes written to [`compare_wire::ports::FRAMES`].
#[derive(Debug, Default)]
pub struct FramePort(Decoder);

/// What the guest wrote is not what a guest may say; the stream cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No frame.
    #[error("wrote no frame to its port: {0}")]
    NoFrame(#[from] compare_wire::FrameError),
    /// A frame only the monitor may send.
    #[error("spoke for its monitor: {0:?}")]
    NotAGuests(Kind),
}

impl FramePort {
    /// Takes bytes in; hands each frame they complete to `deliver`.
    ///
    /// # Errors
    /// The bytes are not frames of a guest.
    pub fn write(
        &mut self,
        mut bytes: &[u8],
        mut deliver: impl FnMut(&Frame),
    ) -> Result<(), PortError> {
        while let Some(frame) = self.0.take(&mut bytes)? {
            if !frame.kind.is_guests() {
                return Err(PortError::NotAGuests(frame.kind));
            }
            deliver(&frame);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(kinds: &[Kind]) -> (Vec<Kind>, Result<(), PortError>) {
        let mut port = FramePort::default();
        let mut seen = Vec::new();
        for &kind in kinds {
            let (bytes, len) = Frame::new(kind, 0, 0, b"payload").encode();
            for byte in &bytes[..len] {
                if let Err(error) = port.write(&[*byte], |frame| seen.push(frame.kind)) {
                    return (seen, Err(error));
                }
            }
        }
        (seen, Ok(()))
    }

    #[test]
    fn a_guest_speaks_for_itself_only() {
        let (seen, result) = taken(&[Kind::Init, Kind::Exec]);
        assert_eq!(seen, [Kind::Init, Kind::Exec]);
        assert!(result.is_ok());
        let (seen, result) = taken(&[Kind::Init, Kind::Crashed, Kind::Exec]);
        assert_eq!(seen, [Kind::Init]);
        assert_eq!(result.unwrap_err().to_string(), "spoke for its monitor: Crashed");
    }

    #[test]
    fn frames_are_stamped_when_they_come_to_pass() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let frames = Frames::new(Some(writer));
        let before = monotonic_ns();
        frames.hold(Kind::Kernel, 0, b"");
        let between = monotonic_ns();
        frames.send(Kind::Exec, 0, b"").unwrap();
        let mut bytes = [0; 64];
        let count = nix::unistd::read(&reader, &mut bytes).unwrap();
        let (mut decoder, mut input) = (Decoder::default(), &bytes[..count]);
        let mut next = || decoder.take(&mut input).unwrap().map(|frame| (frame.kind, frame.ns));
        let (first, second) = (next().unwrap(), next().unwrap());
        assert_eq!((first.0, second.0, next()), (Kind::Kernel, Kind::Exec, None));
        assert!((before..=between).contains(&first.1) && second.1 >= between);
        Frames::new(None).send(Kind::Kernel, 0, b"").unwrap();
    }
}
