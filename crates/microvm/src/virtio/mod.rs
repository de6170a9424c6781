//! virtio devices, version 1.2 of the specification ("the specification" below), on the mmio
//! transport. Everything a driver writes is hostile: a broken queue or request ends in
//! DEVICE_NEEDS_RESET (2.1.2), never in a panic or an access outside of guest RAM.
//!
//! ```text
//!  guest register access ──► Transport ──► Device (block, net)
//!  guest queue notify ─ioeventfd─► event loop ──► Transport::serve ──► Device::serve ──► Buffers
//! ```

pub mod block;
pub mod buffers;
pub mod net;
pub mod transport;

#[cfg(test)]
pub(crate) mod driver;

use std::io;

use virtio_queue::Queue;

use crate::memory::Memory;

/// Why a device cannot go on until its driver resets it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings themselves are broken.
    #[error("broken queue: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// A chain of descriptors is broken.
    #[error("broken request: {0}")]
    Request(&'static str),
    /// The host side of the device failed.
    #[error("the device's back end failed")]
    Host(#[from] io::Error),
}

/// What a device adds to the transport.
pub trait Device: Send {
    /// Device ID (section 5).
    fn id(&self) -> u32;
    /// Feature bits offered, those of the transport left out.
    fn features(&self) -> u64;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> &'static [u16];
    /// The device's configuration space.
    fn config(&self) -> &[u8];
    /// The driver is ready, with these feature bits.
    ///
    /// # Errors
    /// The host side refuses them.
    fn activate(&mut self, features: u64) -> io::Result<()>;
    /// Serves everything in a queue; says whether to interrupt the driver.
    ///
    /// # Errors
    /// The driver's queue or request is broken, and the device with it.
    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<bool, QueueError>;
}
