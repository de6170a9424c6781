//! virtio devices, version 1.2 of the specification ("the specification" below), on the mmio
//! transport. Everything a driver writes is hostile: a broken queue or request ends in
//! DEVICE_NEEDS_RESET (2.1.2), never in a panic or an access outside of guest RAM.
//!
//! ```text
//!  guest register access ──► Transport ──► Device (block, net, …)
//!  guest queue notify ─ioeventfd─► event loop ──► Transport::serve ──► Device::serve ──► Buffers
//!  Device::watched() ───readable─► event loop ──► Transport::handle_event ──► Device::handle_event
//! ```
//!
//! Nothing here knows of KVM: the monitor passes register accesses and events on, and lends an
//! interrupt line ([`vm_superio::Trigger`]) and guest memory ([`Memory`]).

pub mod balloon;
pub mod block;
pub mod buffers;
pub mod console;
pub mod net;
pub mod pmem;
mod random;
pub mod rng;
pub mod transport;
pub mod turn;
pub mod vsock;

#[cfg(test)]
mod driver;
#[cfg(test)]
mod hostile;

use std::{io, os::fd::BorrowedFd};

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

/// Guest RAM as devices and monitor see it. No dirty tracking: nothing here migrates.
pub type Memory = GuestMemoryMmap<()>;

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

/// What a driver is to be interrupted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Nothing.
    None,
    /// Buffers were used.
    Used,
    /// The configuration space has changed.
    Config,
}

/// What came of a turn of serving (module [`turn`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// What the driver is to be interrupted for.
    pub notice: Notice,
    /// Whether the turn ended before the work did: whoever serves is to come back for the rest, which
    /// the driver will not ring for.
    pub more: bool,
}

impl From<Notice> for Served {
    fn from(notice: Notice) -> Self {
        Self { notice, more: false }
    }
}

impl From<bool> for Notice {
    fn from(used: bool) -> Self {
        if used { Self::Used } else { Self::None }
    }
}

/// What a device adds to the transport.
pub trait Device: Send {
    /// Device ID (section 5).
    fn id(&self) -> u32;
    /// Feature bits offered, those of the transport left out.
    fn features(&self) -> u64;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> &'static [u16];
    /// How many queues, from the first on, a driver with these features must have set up.
    fn queues_needed(&self, _features: u64) -> usize {
        self.queue_sizes().len()
    }
    /// The device's configuration space.
    fn config(&self) -> &[u8];
    /// The driver writes to the configuration space. Most devices have nothing that can be written.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}
    /// The driver is ready, with these feature bits.
    ///
    /// # Errors
    /// The host side refuses them.
    fn activate(&mut self, features: u64) -> io::Result<()>;
    /// The driver starts anew: whatever it told the device is forgotten.
    fn reset(&mut self) {}
    /// Serves a queue, a turn of it at the most.
    ///
    /// # Errors
    /// The driver's queue or request is broken, and the device with it.
    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError>;

    /// A descriptor to be watched beside the doorbells, the same for the device's whole life. It is
    /// watched for input, edge triggered: [`Self::handle_event`] takes all there is or can be taken, if
    /// need be in several turns; what it leaves is taken when the driver rings a doorbell.
    fn watched(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Something happened on the watched descriptor, or the turn before left more to do.
    ///
    /// # Errors
    /// As [`Self::serve`].
    fn handle_event(
        &mut self,
        _queues: &mut [Queue],
        _memory: &Memory,
    ) -> Result<Served, QueueError> {
        Ok(Notice::None.into())
    }

    /// What a snapshot must hold of the device beside its transport.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    /// Takes in what [`Self::save`] gave, before the device is activated. The bytes are hostile.
    ///
    /// # Errors
    /// The name of the field that cannot be: the bytes are of no such device.
    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        if saved.is_empty() { Ok(()) } else { Err("length") }
    }
}
