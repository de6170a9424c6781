//! A console with one port (section 5.3 of the specification). Bytes go straight between guest memory
//! and two descriptors of the host that do not block: what finds no reader waits in the guest's queue,
//! which slows down the guest and nobody else.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use crate::{
    Device, Memory, Notice, QueueError, Served,
    buffers::{self, Buffers, Vectors},
    turn::{Turn, rearm},
};

/// Index of the queue of what is typed (5.3.2).
pub const RECEIVE: usize = 0;
/// Index of the queue of what is printed.
pub const TRANSMIT: usize = 1;
/// Entries of each queue. Linux fills the first with a page for each.
const QUEUE_SIZE: u16 = 16;

/// Most bytes of one request to print; Linux makes them of 32 KiB at the most.
const MOST_PRINTED: u64 = 1 << 20;

/// A console.
#[derive(Debug)]
pub struct Console {
    input: OwnedFd,
    output: OwnedFd,
    /// Watches both; edge triggered, as the event loop watches it.
    epoll: Epoll,
    /// Bytes of the oldest request to print that are printed.
    printed: u32,
    input_ended: bool,
    buffers: Buffers,
    vectors: Vectors,
}

impl Console {
    /// A console that takes bytes from one descriptor and gives them to another, neither of which may
    /// block; nor may the other end of `output` be closed unless SIGPIPE is ignored.
    ///
    /// # Errors
    /// epoll(7) fails.
    pub fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (fd, flag) in [(&input, EpollFlags::EPOLLIN), (&output, EpollFlags::EPOLLOUT)] {
            match epoll.add(fd, EpollEvent::new(flag | EpollFlags::EPOLLET, 0)) {
                // A file is always ready (epoll_ctl(2)).
                Ok(()) | Err(Errno::EPERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self {
            input,
            output,
            epoll,
            printed: 0,
            input_ended: false,
            buffers: Buffers::default(),
            vectors: Vectors::default(),
        })
    }

    /// Hands over what was typed, as long as the guest has room.
    fn receive(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, QueueError> {
        let mut turn = Turn::of(queue);
        let mut moved = false;
        let mut more = false;
        queue.disable_notification(memory)?;
        while !self.input_ended {
            let Some(chain) = turn.next(queue, memory)? else {
                more = rearm(queue, memory)?;
                if more && !turn.is_over() {
                    continue;
                }
                break;
            };
            more = false;
            let head = chain.head_index();
            self.buffers.fill(chain, memory)?;
            if self.buffers.writable.is_empty() {
                return Err(QueueError::Request("nothing to write to"));
            }
            match self.vectors.read(self.input.as_fd(), &self.buffers.writable, memory) {
                Ok(count) if count > 0 => {
                    queue.add_used(memory, head, count as u32)?;
                    moved = true;
                    continue;
                }
                Err(QueueError::Host(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(QueueError::Host(_)) => self.input_ended = true,
                Err(error) => return Err(error),
            }
            queue.go_to_previous_position();
            break;
        }
        Ok(Served { notice: (moved && queue.needs_notification(memory)?).into(), more })
    }

    /// Prints what the guest has for the host, as long as somebody reads it.
    fn transmit(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, QueueError> {
        let mut turn = Turn::of(queue);
        let mut moved = false;
        let more = 'turn: loop {
            queue.disable_notification(memory)?;
            while let Some(chain) = turn.next(queue, memory)? {
                let head = chain.head_index();
                self.buffers.fill_up_to(chain, memory, MOST_PRINTED)?;
                if !self.print(memory)? {
                    queue.go_to_previous_position();
                    break 'turn false;
                }
                self.printed = 0;
                queue.add_used(memory, head, 0)?;
                moved = true;
            }
            let more = rearm(queue, memory)?;
            if !more || turn.is_over() {
                break more;
            }
        };
        Ok(Served { notice: (moved && queue.needs_notification(memory)?).into(), more })
    }

    /// Prints the request in `self.buffers`; says whether it is done with.
    fn print(&mut self, memory: &Memory) -> Result<bool, QueueError> {
        let readable = &mut self.buffers.readable;
        buffers::advance(readable, self.printed);
        while !readable.is_empty() {
            match self.vectors.write(self.output.as_fd(), readable, memory) {
                Ok(count) => {
                    buffers::advance(readable, count as u32);
                    self.printed += count as u32;
                }
                Err(QueueError::Host(error)) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(false),
                    io::ErrorKind::Interrupted => {}
                    // Nobody will ever read it: it is gone, as on a terminal that was closed.
                    _ => return Ok(true),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; 2]
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn activate(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) {
        self.printed = 0;
    }

    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        match index {
            RECEIVE => self.receive(&mut queues[RECEIVE], memory),
            _ => self.transmit(&mut queues[TRANSMIT], memory),
        }
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.0.as_fd())
    }

    fn handle_event(
        &mut self,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        // Either descriptor may be ready: both are tried. Taking the events is what lets the next
        // edge through.
        let _ = self.epoll.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::ZERO);
        let received = self.receive(&mut queues[RECEIVE], memory)?;
        let printed = self.transmit(&mut queues[TRANSMIT], memory)?;
        let used = [received, printed].iter().any(|served| served.notice == Notice::Used);
        Ok(Served { notice: used.into(), more: received.more || printed.more })
    }

    fn save(&self) -> Vec<u8> {
        self.printed.to_le_bytes().to_vec()
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        self.printed = u32::from_le_bytes(saved.try_into().map_err(|_| "length")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
