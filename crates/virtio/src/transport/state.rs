//! A device's registers as plain data, for snapshots. What is restored is hostile input, as much as
//! anything a driver writes: a state no driver could have brought about is refused, by field.

use std::{io, sync::Arc, sync::atomic::Ordering};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vm_superio::Trigger;

use super::{DRIVER_OK, FEATURES_OK, STATUS, Transport};
use crate::{Device, Memory};

/// One queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Entries.
    pub size: u16,
    /// Whether the driver has handed it over.
    pub ready: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the ring of the driver.
    pub available: u64,
    /// Guest-physical address of the ring of the device.
    pub used: u64,
    /// Index of the next entry to take.
    pub next_available: u16,
    /// Index of the next entry to give back.
    pub next_used: u16,
}

/// A device behind its registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// Device ID.
    pub device_id: u32,
    /// Features the driver has written.
    pub driver_features: u64,
    /// Status register.
    pub status: u32,
    /// Interrupts the driver has not acknowledged.
    pub interrupt_status: u32,
    /// Generation of the configuration space.
    pub config_generation: u32,
    /// Which half of the device's features is shown.
    pub device_features_sel: u32,
    /// Which half of the driver's features is written.
    pub driver_features_sel: u32,
    /// Which queue the queue registers are about.
    pub queue_sel: u32,
    /// Every queue of the device.
    pub queues: Vec<QueueState>,
    /// What the device itself adds.
    pub device: Vec<u8>,
}

/// A saved state that no device can go on from.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It is another device's.
    #[error("device ID: {saved} was saved where {actual} is")]
    DeviceId {
        /// What was saved.
        saved: u32,
        /// What the device is.
        actual: u32,
    },
    /// Bits that do not exist or exclude each other.
    #[error("status: {0:#x} cannot be")]
    Status(u32),
    /// Bits that do not exist.
    #[error("interrupt status: {0:#x} cannot be")]
    InterruptStatus(u32),
    /// The device does not offer these features (any more).
    #[error("driver features: {0:#x} are not on offer")]
    Features(u64),
    /// Another number of queues.
    #[error("queues: {saved} were saved where there are {actual}")]
    Queues {
        /// What was saved.
        saved: usize,
        /// What the device has.
        actual: usize,
    },
    /// A queue that cannot be.
    #[error("queue {queue}: {field}: {value:#x} cannot be")]
    Queue {
        /// Which.
        queue: usize,
        /// What about it.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The device does not take its own part.
    #[error("device {device_id}: {field}: not of this device")]
    Device {
        /// Device ID.
        device_id: u32,
        /// What about it.
        field: &'static str,
    },
    /// The host side of the device refuses to go on.
    #[error("activate device {device_id}")]
    Activate {
        /// Device ID.
        device_id: u32,
        /// Why.
        source: io::Error,
    },
}

impl<T: Trigger> Transport<T> {
    /// The registers as they stand. Nothing may be running in the guest meanwhile.
    pub fn save(&self) -> TransportState {
        TransportState {
            device_id: self.device.id(),
            driver_features: self.driver_features,
            status: self.status,
            interrupt_status: self.interrupt_status,
            config_generation: self.config_generation,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            queue_sel: self.queue_sel,
            queues: self.queues.iter().map(save_queue).collect(),
            device: self.device.save(),
        }
    }

    /// Puts a device behind registers as they were saved, and activates it if its driver had.
    /// Guest memory must hold already what it held then.
    ///
    /// # Errors
    /// The state is not of this device, or not of any.
    pub fn restore(
        device: Box<dyn Device>,
        memory: Arc<Memory>,
        line: T,
        state: &TransportState,
    ) -> Result<Self, RestoreError> {
        let device_id = device.id();
        if state.device_id != device_id {
            return Err(RestoreError::DeviceId { saved: state.device_id, actual: device_id });
        }
        let mut transport = Self::new(device, memory, line);
        if state.queues.len() != transport.queues.len() {
            return Err(RestoreError::Queues {
                saved: state.queues.len(),
                actual: transport.queues.len(),
            });
        }
        if state.interrupt_status & !(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG) != 0 {
            return Err(RestoreError::InterruptStatus(state.interrupt_status));
        }
        transport.status = state.status;
        transport.interrupt_status = state.interrupt_status;
        transport.config_generation = state.config_generation;
        transport.driver_features = state.driver_features;
        transport.device_features_sel = state.device_features_sel;
        transport.driver_features_sel = state.driver_features_sel;
        transport.queue_sel = state.queue_sel;
        transport
            .device
            .restore(&state.device)
            .map_err(|field| RestoreError::Device { device_id, field })?;

        let serving = transport.is_serving();
        if state.status & !STATUS != 0 || serving && state.status & FEATURES_OK == 0 {
            return Err(RestoreError::Status(state.status));
        }
        if state.status & FEATURES_OK != 0 && !transport.acceptable() {
            return Err(RestoreError::Features(state.driver_features));
        }
        let needed = transport.device.queues_needed(state.driver_features);
        for (index, saved) in state.queues.iter().enumerate() {
            let refused = |(field, value)| RestoreError::Queue { queue: index, field, value };
            let queue = &mut transport.queues[index];
            restore_queue(queue, saved).map_err(refused)?;
            if state.status & DRIVER_OK == 0 {
                check_unused(saved).map_err(refused)?;
            } else if serving && (saved.ready || index < needed) {
                check_in_use(queue, &transport.memory).map_err(refused)?;
            }
        }
        if serving {
            transport.set_event_idx();
            transport
                .device
                .activate(state.driver_features)
                .map_err(|source| RestoreError::Activate { device_id, source })?;
        }
        Ok(transport)
    }

    /// Sets a restored device going, once its guest can be interrupted: whatever was under way when
    /// it was saved (a doorbell, an interrupt, a packet) happens again, since neither doorbells nor
    /// lines are part of the state. A driver takes either once too often without harm.
    pub fn resume(&mut self) {
        // Nothing runs that could add to a queue: a turn of each is all there is.
        for queue in 0..self.queues.len() {
            self.serve(queue);
        }
        self.handle_event();
        if self.interrupt_status != 0 {
            self.interrupt(0);
        }
    }
}

fn save_queue(queue: &Queue) -> QueueState {
    QueueState {
        size: queue.size(),
        ready: queue.ready(),
        descriptors: queue.desc_table(),
        available: queue.avail_ring(),
        used: queue.used_ring(),
        next_available: queue.next_avail(),
        next_used: queue.next_used(),
    }
}

/// A field and its value.
type Odd = (&'static str, u64);

fn restore_queue(queue: &mut Queue, saved: &QueueState) -> Result<(), Odd> {
    let QueueState { descriptors, available, used, .. } = *saved;
    queue.try_set_size(saved.size).map_err(|_| ("size", saved.size.into()))?;
    queue
        .try_set_desc_table_address(GuestAddress(descriptors))
        .map_err(|_| ("descriptors", descriptors))?;
    queue
        .try_set_avail_ring_address(GuestAddress(available))
        .map_err(|_| ("available", available))?;
    queue.try_set_used_ring_address(GuestAddress(used)).map_err(|_| ("used", used))?;
    queue.set_next_avail(saved.next_available);
    queue.set_next_used(saved.next_used);
    queue.set_ready(saved.ready);
    Ok(())
}

/// A queue nobody has served yet starts at the beginning.
fn check_unused(saved: &QueueState) -> Result<(), Odd> {
    match (saved.next_available, saved.next_used) {
        (0, 0) => Ok(()),
        (0, next) => Err(("next_used", next.into())),
        (next, _) => Err(("next_available", next.into())),
    }
}

/// A queue that will be served lies in memory; no more entries are under way than it has.
fn check_in_use(queue: &Queue, memory: &Memory) -> Result<(), Odd> {
    if !queue.ready() {
        return Err(("ready", 0));
    }
    check_inside(queue, memory)?;
    let (next, size) = (queue.next_avail(), queue.size());
    let offered = queue
        .avail_idx(memory, Ordering::Acquire)
        .map_err(|_| ("available", queue.avail_ring()))?;
    if offered.0.wrapping_sub(next) > size {
        return Err(("next_available", next.into()));
    }
    if next.wrapping_sub(queue.next_used()) > size {
        return Err(("next_used", queue.next_used().into()));
    }
    Ok(())
}

/// Every part of the queue lies in memory (sizes: 2.7).
fn check_inside(queue: &Queue, memory: &Memory) -> Result<(), Odd> {
    let size = usize::from(queue.size());
    let parts = [
        ("descriptors", queue.desc_table(), 16 * size),
        ("available", queue.avail_ring(), 6 + 2 * size),
        ("used", queue.used_ring(), 6 + 8 * size),
    ];
    match parts.iter().find(|part| !memory.check_range(GuestAddress(part.1), part.2)) {
        Some(&(field, address, _)) => Err((field, address)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
