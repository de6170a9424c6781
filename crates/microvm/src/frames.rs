//! Frames: those the monitor writes itself, and the port by which the guest's PID 1 sends its own.
//! The monitor stamps a guest's frame at the exit that completes it, on the host's clock.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use compare_backend::monotonic_ns;
use compare_wire::{Decoder, Frame, Kind};

/// Where frames go: the backend's pipe, or nowhere when the monitor is run by hand.
#[derive(Debug)]
pub struct Frames(Option<File>);

impl Frames {
    /// Frames into a pipe.
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self(pipe.map(File::from))
    }

    /// Writes a frame, stamped now. One below PIPE_BUF is never torn apart (pipe(7)), so any thread
    /// may send.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn send(&self, kind: Kind, arg: u32, payload: &[u8]) -> io::Result<()> {
        let Some(pipe) = &self.0 else { return Ok(()) };
        let (bytes, len) = Frame::new(kind, arg, monotonic_ns(), payload).encode();
        (&*pipe).write_all(&bytes[..len])
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
    fn frames_are_stamped_when_sent() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let before = monotonic_ns();
        Frames::new(Some(writer)).send(Kind::Kernel, 0, b"").unwrap();
        let mut bytes = [0; 64];
        let count = nix::unistd::read(&reader, &mut bytes).unwrap();
        let frame = Decoder::default().take(&mut &bytes[..count]).unwrap().unwrap();
        assert_eq!(frame.kind, Kind::Kernel);
        assert!((before..=monotonic_ns()).contains(&frame.ns));
        Frames::new(None).send(Kind::Kernel, 0, b"").unwrap();
    }
}
