//! What an instance wrote: the last of it, kept within bounds, and a watch for one line.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{errno::Errno, unistd::read};

/// The most bytes of output kept: the end of it, where the reason of a failure stands.
const KEPT_BYTES: usize = 64 << 10;
/// The most of one line that is searched.
const LINE_BYTES: usize = 4 << 10;

/// The reading end of an instance's output. The writer is held back while nobody reads
/// (pipe(7)), so a flood costs the instance, not this program.
#[derive(Debug)]
pub struct Output {
    pipe: Option<OwnedFd>,
    kept: VecDeque<u8>,
    total: u64,
    watch: Option<String>,
    line: Vec<u8>,
    matched: Option<(String, u64)>,
}

impl Output {
    /// Reads from `pipe`, which must not block (O_NONBLOCK).
    pub fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe: Some(pipe),
            kept: VecDeque::new(),
            total: 0,
            watch: None,
            line: Vec::new(),
            matched: None,
        }
    }

    /// From now on look for a line that contains `text`.
    pub fn watch(&mut self, text: &str) {
        self.watch = Some(text.to_owned());
    }

    /// The line that was looked for, and when it was read.
    pub fn matched(&self) -> Option<(&str, u64)> {
        self.matched.as_ref().map(|(line, ns)| (line.as_str(), *ns))
    }

    /// To be polled for reading; none once every writer is gone.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what there is, without blocking, at most about a megabyte at a time.
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub fn pump(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        for _ in 0..64 {
            let Some(pipe) = &self.pipe else { return Ok(()) };
            match read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.take(&buffer[..count]),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(KEPT_BYTES);
        self.kept.drain(..excess);
        let Some(watch) = &self.watch else { return };
        if self.matched.is_some() {
            return;
        }
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < LINE_BYTES {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            if line.contains(watch.as_str()) {
                let line = line.trim_end().to_owned();
                self.matched = Some((line, super::monotonic_ns()));
                return;
            }
            self.line.clear();
        }
    }

    /// The last output, at most 64 KiB, with a first line that says what was left out.
    pub fn tail(&self) -> String {
        let (front, back) = self.kept.as_slices();
        let text = String::from_utf8_lossy(&[front, back].concat()).into_owned();
        match self.total.saturating_sub(self.kept.len() as u64) {
            0 => text,
            dropped => format!("[{dropped} bytes before this were dropped]\n{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::{fcntl::OFlag, unistd::pipe2};

    use super::*;

    #[test]
    fn the_end_is_kept_and_the_line_found() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let mut output = Output::new(reader);
        output.watch("up and");
        let mut writer = std::fs::File::from(writer);
        writer.write_all(b"starting\nall is up a").unwrap();
        output.pump().unwrap();
        assert!(output.matched().is_none());
        writer.write_all(b"nd running\nmore\n").unwrap();
        output.pump().unwrap();
        assert_eq!(output.matched().unwrap().0, "all is up and running");
        for _ in 0..40 {
            writer.write_all(&[b'x'; 4096]).unwrap();
            output.pump().unwrap();
        }
        drop(writer);
        output.pump().unwrap();
        assert!(output.fd().is_none());
        let tail = output.tail();
        assert!(tail.starts_with("[98"), "{}", &tail[..60]);
        assert!(tail.len() < KEPT_BYTES + 100);
    }
}
