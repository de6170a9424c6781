//! A source of entropy (section 5.4 of the specification): the host kernel's, by getrandom(2).

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::Queue;

use crate::{
    Device, Memory, QueueError, Served,
    buffers::{self, Buffers},
    random, turn,
};

/// Entries of the queue. Linux has one request under way at a time.
const QUEUE_SIZE: u16 = 8;
/// Most bytes given to one request; a longer one is answered in part, as 5.4.6.1 allows. Up to so
/// many getrandom(2) is not interrupted.
const MOST: usize = 256;

/// A source of entropy.
#[derive(Debug, Default)]
pub struct Rng {
    buffers: Buffers,
}

impl Rng {
    /// One fed by this host.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Device for Rng {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &[]
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
            if !self.buffers.readable.is_empty() {
                return Err(QueueError::Request("something to read")); // 5.4.6.1
            }
            let mut bytes = [0; MOST];
            let length = buffers::total(&self.buffers.writable).min(MOST as u64) as usize;
            random::fill(&mut bytes[..length])?;
            Ok(buffers::write_front(&self.buffers.writable, memory, &bytes[..length]) as u32)
        })
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

    fn driver() -> Driver {
        Driver::ready(Box::new(Rng::new()), VERSION_1, 1)
    }

    #[test]
    fn requests_are_filled_and_no_two_alike() {
        let mut driver = driver();
        driver.request(0, &[(BUFFERS, 40, true), (BUFFERS + 0x100, 24, true)]);
        assert_eq!(driver.used(0), (1, 0, 64));
        let first = [driver.bytes(BUFFERS, 40), driver.bytes(BUFFERS + 0x100, 24)].concat();
        assert_eq!(driver.bytes(BUFFERS + 40, 8), [0; 8], "no byte more");
        driver.request(0, &[(BUFFERS, 64, true)]);
        assert_eq!(driver.used(0), (2, 0, 64));
        let second = driver.bytes(BUFFERS, 64);
        assert_ne!(first, second);
        // 64 random bytes hold fewer than 8 different values once in 10^90.
        for mut bytes in [first, second] {
            bytes.sort_unstable();
            bytes.dedup();
            assert!(bytes.len() > 8);
        }
        assert_eq!(driver.interrupts.0.get(), 2);
    }

    #[test]
    fn a_long_request_is_answered_in_part() {
        let mut driver = driver();
        driver.request(0, &[(BUFFERS, 5000, true)]);
        assert_eq!(driver.used(0), (1, 0, 256));
        assert_eq!(driver.bytes(BUFFERS + 256, 4744), [0; 4744]);
    }

    #[test]
    fn a_request_that_can_be_read_breaks_the_device() {
        let mut driver = driver();
        driver.request(0, &[(BUFFERS, 8, false), (BUFFERS, 64, true)]);
        assert!(driver.is_broken());
    }

    #[test]
    fn a_turn_ends() {
        let buffer = Entry { address: BUFFERS, length: 16, flags: 2, next: 0 };
        assert_a_turn_ends(driver(), 0, &[buffer]);
    }

    #[test]
    fn any_driver_is_survived() {
        assert_hostile_queues_break(driver, 0);
        assert_noise_is_survived(driver, 1);
        assert_any_driver_is_survived(1, || (Box::new(Rng::new()), Box::new(())));
    }
}
