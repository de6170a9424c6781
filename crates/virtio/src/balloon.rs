//! A memory balloon with free-page reporting (section 5.5 of the specification): pages the guest
//! gives up, because it was asked to or because they are free, go back to the host.
//!
//! Guest RAM is a private mapping, anonymous or copy-on-write from a file. MADV_DONTNEED (madvise(2))
//! drops this guest's own pages of either; what is read there next is zeroes or the file. A shared
//! mapping would keep its pages, so those are punched out of what backs them (MADV_REMOVE).
//!
//! Linux reports blocks of 4 MiB (2 MiB with huge pages) two seconds after they were freed, and only
//! while 32 of them are free beyond its low watermark (mm/page_reporting.c): a guest of 64 MiB reports
//! nothing, and is reached by a target alone.

mod control;
mod pages;

pub use control::Control;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::Queue;

use crate::{
    Device, Memory, Notice, QueueError, Served,
    buffers::{self, Buffers},
    turn,
};
use control::Shared;
use pages::{PAGE, Runs};

/// Index of the queue of pages given up (5.5.2).
pub const INFLATE: usize = 0;
/// Index of the queue of pages taken back.
pub const DEFLATE: usize = 1;
/// Index of the queue of free pages. The specification numbers it 4, but queues of features that are
/// not offered leave no gap in Linux, and neither statistics nor hints are offered here.
pub const REPORT: usize = 2;
/// Entries of each queue. Linux reports free pages 32 blocks at a time and demands a queue of so many
/// (PAGE_REPORTING_CAPACITY, include/linux/page_reporting.h).
const QUEUE_SIZE: u16 = 32;
/// Most pages in one request; Linux puts 256 (VIRTIO_BALLOON_ARRAY_PFNS_MAX).
const MOST_PAGES: usize = 4096;
/// Bytes of a page's number in a request (5.5.6).
const NUMBER: usize = 4;
/// Most bytes of a report: what a chain can hold at all (2.7.5.2). They are only ever dropped.
const MOST_REPORTED: u64 = u32::MAX as u64;

/// Feature bits (5.5.3).
const VIRTIO_BALLOON_F_DEFLATE_ON_OOM: u64 = 2;
const VIRTIO_BALLOON_F_REPORTING: u64 = 5;

/// Where `actual` stands in the configuration space, behind `num_pages` (5.5.4).
const ACTUAL: usize = 4;

/// A balloon.
#[derive(Debug)]
pub struct Balloon {
    /// `num_pages` and `actual`, little endian.
    config: [u8; 8],
    shared: Arc<Shared>,
    buffers: Buffers,
    numbers: Vec<u8>,
    runs: Runs,
}

impl Balloon {
    /// An empty balloon, and what it is inflated by.
    ///
    /// # Errors
    /// eventfd(2) fails.
    pub fn new() -> io::Result<(Self, Control)> {
        let (shared, control) = Control::new()?;
        let balloon = Self {
            config: [0; 8],
            shared,
            buffers: Buffers::default(),
            numbers: Vec::new(),
            runs: Runs::default(),
        };
        Ok((balloon, control))
    }

    /// Shows the driver the target; says whether it is a new one.
    fn show_target(&mut self) -> bool {
        let target = self.shared.target().to_le_bytes();
        let new = self.config[..ACTUAL] != target;
        self.config[..ACTUAL].copy_from_slice(&target);
        new
    }

    fn tell_actual(&self) {
        let actual = self.config[ACTUAL..].try_into().expect("4 of 8 bytes");
        self.shared.set_actual(u32::from_le_bytes(actual));
    }

    /// Bytes of the list of pages in `self.buffers`.
    fn list_length(&self) -> Result<usize, QueueError> {
        let length = buffers::total(&self.buffers.readable) as usize;
        if !self.buffers.writable.is_empty() || !length.is_multiple_of(NUMBER) {
            return Err(QueueError::Request("no list of pages"));
        }
        if length > MOST_PAGES * NUMBER {
            return Err(QueueError::Request("too many pages"));
        }
        Ok(length)
    }

    /// Takes the pages whose numbers the request in `self.buffers` holds.
    fn inflate(&mut self, memory: &Memory) -> Result<(), QueueError> {
        let length = self.list_length()?;
        self.numbers.resize(length, 0);
        if buffers::read_front(&self.buffers.readable, memory, &mut self.numbers) < length {
            return Err(QueueError::Request("a list outside of memory"));
        }
        self.runs.clear();
        for number in self.numbers.chunks_exact(NUMBER) {
            let number = u32::from_le_bytes(number.try_into().expect("4 bytes"));
            self.runs.add(u64::from(number) * PAGE);
        }
        let dropped = self.runs.drop_from(memory)?;
        self.shared.add_reclaimed(dropped);
        Ok(())
    }

    /// Drops the free pages that are the request in `self.buffers`; part-pages stay.
    fn report(&mut self, memory: &Memory) -> Result<(), QueueError> {
        if !self.buffers.readable.is_empty() {
            return Err(QueueError::Request("something to read"));
        }
        for segment in &self.buffers.writable {
            let end = (segment.address + u64::from(segment.length)) / PAGE * PAGE;
            let start = segment.address.next_multiple_of(PAGE);
            if start < end {
                pages::discard(memory, start, end - start)?;
                self.shared.add_reclaimed(end - start);
            }
        }
        Ok(())
    }
}

impl Device for Balloon {
    fn id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    /// A guest that runs out of memory may take pages back unasked.
    fn features(&self) -> u64 {
        1 << VIRTIO_BALLOON_F_DEFLATE_ON_OOM | 1 << VIRTIO_BALLOON_F_REPORTING
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; 3]
    }

    fn queues_needed(&self, features: u64) -> usize {
        if features & 1 << VIRTIO_BALLOON_F_REPORTING == 0 { REPORT } else { REPORT + 1 }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    /// `actual` is the driver's to write (5.5.6.1).
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        for (index, &byte) in data.iter().enumerate() {
            match offset.checked_add(index) {
                Some(at @ ACTUAL..8) => self.config[at] = byte,
                _ => return,
            }
        }
        self.tell_actual();
    }

    fn activate(&mut self, _: u64) -> io::Result<()> {
        self.show_target();
        Ok(())
    }

    /// Its pages are the guest's again, by whatever kernel it now runs.
    fn reset(&mut self) {
        self.config[ACTUAL..].fill(0);
        self.tell_actual();
    }

    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        turn::serve_each(&mut queues[index], memory, |chain| {
            match index {
                INFLATE => {
                    self.buffers.fill(chain, memory)?;
                    self.inflate(memory)?;
                }
                // A page taken back is there again as soon as it is touched.
                DEFLATE => {
                    self.buffers.fill(chain, memory)?;
                    self.list_length()?;
                }
                _ => {
                    self.buffers.fill_up_to(chain, memory, MOST_REPORTED)?;
                    self.report(memory)?;
                }
            }
            Ok(0)
        })
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.wake.as_fd())
    }

    /// The target was set.
    fn handle_event(&mut self, _: &mut [Queue], _: &Memory) -> Result<Served, QueueError> {
        let _ = self.shared.wake.read();
        Ok(if self.show_target() { Notice::Config } else { Notice::None }.into())
    }

    fn save(&self) -> Vec<u8> {
        self.config.to_vec()
    }

    /// The guest goes on with the target it had, until another is set.
    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        self.config = saved.try_into().map_err(|_| "length")?;
        let target = self.config[..ACTUAL].try_into().expect("4 of 8 bytes");
        self.shared.set_target(u32::from_le_bytes(target));
        self.tell_actual();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
