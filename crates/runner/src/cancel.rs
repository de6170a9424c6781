//! The wish to stop, visible to every poll(2) of a run.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};

/// Cancels a run from another thread. Clones are the same wish.
#[derive(Debug, Clone)]
pub struct Cancel {
    event: Arc<EventFd>,
}

impl Cancel {
    /// Nothing is cancelled yet.
    ///
    /// # Errors
    /// No eventfd(2) is to be had.
    pub fn new() -> nix::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { event: Arc::new(EventFd::from_flags(flags)?) })
    }

    /// Cancels. It stays cancelled.
    pub fn cancel(&self) {
        // The counter is never read back, so it is full only after 2^64 − 2 calls.
        let _ = self.event.write(1);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Lets this time pass, less if it is cancelled meanwhile; whether it was.
    pub fn wait(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)];
        let begin = Instant::now();
        loop {
            let left = TimeSpec::from_duration(time.saturating_sub(begin.elapsed()));
            match ppoll(&mut fds, Some(left), None) {
                Err(Errno::EINTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Readable once cancelled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_sees_it() {
        let cancel = Cancel::new().unwrap();
        let clone = cancel.clone();
        assert!(!clone.is_cancelled());
        cancel.cancel();
        assert!(clone.is_cancelled() && clone.is_cancelled());
    }
}
