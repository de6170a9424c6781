//! The reading end of an instance's pipe of frames.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use compare_wire::{Decoder, Frame};
use nix::{errno::Errno, unistd::read};

/// The most reads of 4 KiB in one go.
const READS: usize = 64;

/// Reads frames without blocking.
#[derive(Debug)]
pub struct FrameReader {
    pipe: Option<OwnedFd>,
    decoder: Decoder,
}

impl FrameReader {
    /// Reads from `pipe`, which must not block (O_NONBLOCK).
    pub fn new(pipe: OwnedFd) -> Self {
        Self { pipe: Some(pipe), decoder: Decoder::default() }
    }

    /// To be polled for reading; none once every writer is gone.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// The frames that are there, at most about 256 KiB of them at a time.
    ///
    /// # Errors
    /// The pipe cannot be read, or holds no frames (`InvalidData`).
    pub fn pump(&mut self) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 4096];
        // Bounded, so that a flood holds nobody up; whatever is left makes the pipe readable again.
        for _ in 0..READS {
            let Some(pipe) = &self.pipe else { break };
            match read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let mut bytes = &buffer[..count];
                    while let Some(frame) = self
                        .decoder
                        .take(&mut bytes)
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
                    {
                        frames.push(frame);
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(frames)
    }
}
