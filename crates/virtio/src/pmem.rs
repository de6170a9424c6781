//! Persistent memory (section 5.19 of the specification; struct virtio_pmem_config of
//! include/uapi/linux/virtio_pmem.h): a file the monitor has mapped into guest-physical memory, which
//! the guest uses in place. The device itself only says where it lies, and answers flushes.
//!
//! The mapping is private to the guest (copy on write), so what it writes is never in the file, and a
//! flush has nothing to do.

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;
use virtio_queue::Queue;

use crate::{
    Device, Memory, QueueError, Served,
    buffers::{self, Buffers},
    turn,
};

/// Entries of the queue of flushes.
const QUEUE_SIZE: u16 = 8;
/// The one type of request, `VIRTIO_PMEM_REQ_TYPE_FLUSH` (5.19.6).
const FLUSH: u32 = 0;
/// Answers: it is done, or it failed (5.19.6.1).
const DONE: u32 = 0;
const FAILED: u32 = u32::MAX;

/// Persistent memory.
#[derive(Debug)]
pub struct Pmem {
    config: [u8; 16],
    buffers: Buffers,
}

impl Pmem {
    /// Memory of `size` bytes at guest-physical `start`. Linux wants both in multiples of 2 MiB
    /// (a memory-hotplug subsection), and the range beside any RAM. [`Memory`] must hold the range
    /// too: other devices are handed its pages, as when a file in use in place goes out by sendfile(2).
    pub fn new(start: u64, size: u64) -> Self {
        let mut config = [0; 16];
        config[..8].copy_from_slice(&start.to_le_bytes());
        config[8..].copy_from_slice(&size.to_le_bytes());
        Self { config, buffers: Buffers::default() }
    }
}

impl Device for Pmem {
    fn id(&self) -> u32 {
        VIRTIO_ID_PMEM
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        turn::serve_each(&mut queues[index], memory, |chain| {
            self.buffers.fill(chain, memory)?;
            let mut kind = [0; 4];
            if buffers::read_front(&self.buffers.readable, memory, &mut kind) < kind.len() {
                return Err(QueueError::Request("no room for its type"));
            }
            let answer = if u32::from_le_bytes(kind) == FLUSH { DONE } else { FAILED };
            let answer = answer.to_le_bytes();
            if buffers::write_front(&self.buffers.writable, memory, &answer) < answer.len() {
                return Err(QueueError::Request("no room for its answer"));
            }
            Ok(answer.len() as u32)
        })
    }

    fn save(&self) -> Vec<u8> {
        self.config.to_vec()
    }

    /// The guest has mapped it where it was.
    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        if saved == self.config { Ok(()) } else { Err("start and size") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        driver::{
            BUFFERS, Driver, Entry, VERSION_1, assert_a_turn_ends, assert_hostile_queues_break,
            assert_noise_is_survived,
        },
        hostile::assert_any_driver_is_survived,
    };

    const START: u64 = 0x1_4000_0000;

    fn driver() -> Driver {
        Driver::ready(Box::new(Pmem::new(START, 2 << 20)), VERSION_1, 1)
    }

    #[test]
    fn it_says_where_it_lies() {
        let driver = driver();
        assert_eq!((driver.read(0x100), driver.read(0x104)), (0x4000_0000, 1));
        assert_eq!((driver.read(0x108), driver.read(0x10c)), (2 << 20, 0));
        assert_eq!(driver.read(0x008), 27);
    }

    #[test]
    fn flushes_are_answered_and_nothing_else_is_done() {
        let mut driver = driver();
        for (kind, answer) in [(0_u32, 0_u32), (1, u32::MAX)] {
            driver.put(BUFFERS, &kind.to_le_bytes());
            driver.put(BUFFERS + 64, &[7; 4]);
            driver.request(0, &[(BUFFERS, 4, false), (BUFFERS + 64, 4, true)]);
            assert_eq!(driver.bytes(BUFFERS + 64, 4), answer.to_le_bytes());
            assert_eq!(driver.used(0).2, 4);
        }
        assert!(!driver.is_broken());
        driver.request(0, &[(BUFFERS, 3, false), (BUFFERS + 64, 4, true)]);
        assert!(driver.is_broken());
    }

    #[test]
    fn a_snapshot_is_of_one_place() {
        let mut pmem = Pmem::new(START, 2 << 20);
        assert_eq!(pmem.restore(&Pmem::new(START, 2 << 20).save()), Ok(()));
        assert_eq!(pmem.restore(&Pmem::new(START, 4 << 20).save()), Err("start and size"));
    }

    #[test]
    fn a_turn_ends() {
        let request = Entry { address: BUFFERS, length: 4, flags: 1, next: 1 };
        let answer = Entry { address: BUFFERS + 64, length: 4, flags: 2, next: 0 };
        assert_a_turn_ends(driver(), 0, &[request, answer]);
    }

    #[test]
    fn any_driver_is_survived() {
        assert_hostile_queues_break(driver, 0);
        assert_noise_is_survived(driver, 1);
        assert_any_driver_is_survived(1, || (Box::new(Pmem::new(START, 2 << 20)), Box::new(())));
    }
}
