//! Frames: what a container's first process and a monitor write into the pipe that their backend
//! reads, and what a guest writes to port [`crate::ports::FRAMES`].
//!
//! ```text
//!  0      2      4          8               16
//!  ├ kind ┼ len ─┼── arg ───┼──── ns ───────┼ payload: len bytes, at most 240 ┤   little endian
//! ```
//! `ns` is CLOCK_MONOTONIC of the host. A guest leaves it 0, since its clock is not the host's;
//! the monitor fills it in.

use alloc::string::String;
use core::{error::Error, fmt};

/// The most bytes a frame carries: header and payload fit 256, below PIPE_BUF (pipe(7)), so that a
/// write of one frame is atomic.
pub const MAX_PAYLOAD: usize = 240;
const HEADER: usize = 16;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Everything the backend makes before it runs code inside exists.
    Created = 1,
    /// First entry into the guest.
    Kernel = 2,
    /// First code of ours inside.
    Init = 3,
    /// About to call `execve`.
    Exec = 4,
    /// A step before or at `execve` failed: `arg` is errno, the payload names the step.
    Failed = 5,
    /// The workload ended: `arg` is its status as wait(2) encodes it.
    Exited = 6,
    /// A mapping of guest RAM in the monitor: payload is start and length, two u64.
    GuestRam = 7,
    /// What the guest knows of itself: an encoded [`crate::GuestReport`].
    Report = 8,
    /// The guest asks for its power to be cut.
    PowerOff = 9,
    /// The monitor saw the guest crash: the payload says how.
    Crashed = 10,
    /// The monitor failed: the payload says how.
    MonitorFailed = 11,
    /// The guest is ready to be saved, at this very write. What follows it happens in a machine that
    /// was restored, where PID 1 takes on its [`crate::GuestIdentity`] and says [`Kind::Init`].
    Save = 12,
    /// The machine was saved and ends.
    Saved = 13,
    /// How far the monitor has confined itself: a postcard-encoded summary.
    Confined = 14,
}

impl Kind {
    fn from_u16(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Created,
            2 => Self::Kernel,
            3 => Self::Init,
            4 => Self::Exec,
            5 => Self::Failed,
            6 => Self::Exited,
            7 => Self::GuestRam,
            8 => Self::Report,
            9 => Self::PowerOff,
            10 => Self::Crashed,
            11 => Self::MonitorFailed,
            12 => Self::Save,
            13 => Self::Saved,
            14 => Self::Confined,
            _ => return None,
        })
    }

    /// Whether a guest may send it; everything else only its monitor can know.
    pub fn is_guests(self) -> bool {
        matches!(
            self,
            Self::Init
                | Self::Exec
                | Self::Failed
                | Self::Exited
                | Self::Report
                | Self::PowerOff
                | Self::Save
        )
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// A number that goes with it.
    pub arg: u32,
    /// When, nanoseconds of the host's CLOCK_MONOTONIC; 0 from a guest.
    pub ns: u64,
    len: usize,
    payload: [u8; MAX_PAYLOAD],
}

/// A stream that does not consist of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A kind nobody defined.
    Kind(u16),
    /// A payload longer than [`MAX_PAYLOAD`].
    Length(u16),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "frame of unknown kind {kind}"),
            Self::Length(length) => {
                write!(f, "frame with a payload of {length} bytes, above the most, {MAX_PAYLOAD}")
            }
        }
    }
}

impl Error for FrameError {}

impl Frame {
    /// A frame; a payload beyond [`MAX_PAYLOAD`] is cut. Allocates nothing: the process between
    /// clone and exec calls it.
    pub fn new(kind: Kind, arg: u32, ns: u64, payload: &[u8]) -> Self {
        let len = payload.len().min(MAX_PAYLOAD);
        let mut frame = Self { kind, arg, ns, len, payload: [0; MAX_PAYLOAD] };
        frame.payload[..len].copy_from_slice(&payload[..len]);
        frame
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload[..self.len]
    }

    /// The payload as text, for kinds that carry some.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.payload()).into_owned()
    }

    /// The frame's bytes and how many of them count.
    pub fn encode(&self) -> ([u8; HEADER + MAX_PAYLOAD], usize) {
        let mut bytes = [0; HEADER + MAX_PAYLOAD];
        bytes[0..2].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[2..4].copy_from_slice(&(self.len as u16).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.arg.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.ns.to_le_bytes());
        bytes[HEADER..].copy_from_slice(&self.payload);
        (bytes, HEADER + self.len)
    }
}

/// Puts frames together from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    bytes: [u8; HEADER + MAX_PAYLOAD],
    filled: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { bytes: [0; HEADER + MAX_PAYLOAD], filled: 0 }
    }
}

impl Decoder {
    /// Takes bytes from the front of `input` until a frame is complete or the input is used up.
    ///
    /// # Errors
    /// The bytes are no frame. The stream cannot be followed any further.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        loop {
            let need = if self.filled < HEADER { HEADER } else { HEADER + self.payload_len() };
            if self.filled == need {
                let kind = u16::from_le_bytes([self.bytes[0], self.bytes[1]]);
                let kind = Kind::from_u16(kind).ok_or(FrameError::Kind(kind))?;
                let arg = u32::from_le_bytes(self.bytes[4..8].try_into().expect("4 bytes"));
                let ns = u64::from_le_bytes(self.bytes[8..16].try_into().expect("8 bytes"));
                let frame = Frame::new(kind, arg, ns, &self.bytes[HEADER..need]);
                self.filled = 0;
                return Ok(Some(frame));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let count = input.len().min(need - self.filled);
            self.bytes[self.filled..self.filled + count].copy_from_slice(&input[..count]);
            self.filled += count;
            *input = &input[count..];
            if self.filled == HEADER && self.payload_len() > MAX_PAYLOAD {
                return Err(FrameError::Length(self.payload_len() as u16));
            }
        }
    }

    fn payload_len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[2], self.bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(mut input: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        while let Some(frame) = decoder.take(&mut input)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn frames_survive_any_split() {
        let frames = [
            Frame::new(Kind::Init, 0, 12, b""),
            Frame::new(Kind::Failed, 2, 99, b"execve /bin/nothing"),
            Frame::new(Kind::Report, 0, 1, &[7; 400]),
        ];
        let mut stream = Vec::new();
        for frame in &frames {
            let (bytes, len) = frame.encode();
            stream.extend_from_slice(&bytes[..len]);
        }
        assert_eq!(frames[2].payload().len(), MAX_PAYLOAD);
        assert_eq!(decode(&stream).unwrap(), frames);
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for byte in &stream {
            seen.extend(decoder.take(&mut std::slice::from_ref(byte)).unwrap());
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        assert_eq!(decode(&[0xff; 64]), Err(FrameError::Length(0xffff)));
        let mut zeroes_then_more = vec![0; 16];
        zeroes_then_more.extend([1; 3]);
        assert_eq!(decode(&zeroes_then_more), Err(FrameError::Kind(0)));
        for seed in 0..2000_u32 {
            let noise: Vec<u8> = (0..200)
                .map(|i| (seed.wrapping_mul(2_654_435_761).wrapping_add(i * 40_503) >> 7) as u8)
                .collect();
            let _ = decode(&noise);
        }
    }

    #[test]
    fn a_guest_may_not_speak_for_its_monitor() {
        assert!(Kind::Init.is_guests() && Kind::Exited.is_guests());
        assert!(
            !Kind::Kernel.is_guests() && !Kind::GuestRam.is_guests() && !Kind::Crashed.is_guests()
        );
    }
}
