//! The mmio transport of virtio, version 2 (section 4.2 of the specification): the registers by
//! which a driver finds a device, agrees on features, hands over queues and takes interrupts.
//!
//! ```text
//!  status:  0 ─ACKNOWLEDGE─DRIVER─► features written ─FEATURES_OK─► queues set up ─DRIVER_OK─► serving
//!           ▲                            (dropped again if unacceptable)                        │
//!           └───────────── driver writes 0 ◄──────────── NEEDS_RESET ◄── broken queue or request┘
//! ```

mod state;

pub use state::{QueueState, RestoreError, TransportState};

use std::{os::fd::BorrowedFd, sync::Arc};

use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
        VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
        VIRTIO_F_VERSION_1,
    },
    virtio_mmio::*,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::{Queue, QueueT};
use vm_superio::Trigger;

use super::{Device, Notice, QueueError, Served};
use crate::Memory;

/// "virt", little endian (4.2.2).
const MAGIC: u32 = 0x7472_6976;
/// Devices of version 1 and later of the specification show this.
const VERSION: u32 = 2;
/// Vendor ID: none is assigned to us.
const VENDOR: u32 = 0;
/// Features of every device of ours.
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Status bits as they stand in the register.
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;
/// Every status bit there is (2.1).
const STATUS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | FEATURES_OK
    | DRIVER_OK
    | NEEDS_RESET
    | VIRTIO_CONFIG_S_FAILED;

/// A device behind its registers.
pub struct Transport<T> {
    device: Box<dyn Device>,
    memory: Arc<Memory>,
    line: T,
    queues: Vec<Queue>,
    status: u32,
    interrupt_status: u32,
    config_generation: u32,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

impl<T: Trigger> Transport<T> {
    /// Puts a device behind registers; `line` interrupts the guest.
    pub fn new(device: Box<dyn Device>, memory: Arc<Memory>, line: T) -> Self {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|&size| Queue::new(size).expect("queue sizes of our devices are powers of two"))
            .collect();
        Self {
            device,
            memory,
            line,
            queues,
            status: 0,
            interrupt_status: 0,
            config_generation: 0,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
        }
    }

    fn features(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// The guest reads a register or the configuration space.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= VIRTIO_MMIO_CONFIG.into() {
            let start = (offset - u64::from(VIRTIO_MMIO_CONFIG)) as usize;
            let config = self.device.config();
            let known = config
                .get(start..config.len().min(start.saturating_add(data.len())))
                .unwrap_or(&[]);
            data[..known.len()].copy_from_slice(known);
            return;
        }
        // Registers are 32 bits wide and read as such (4.2.2.2); anything else reads as zero.
        if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.register(offset as u32).to_le_bytes();
        }
    }

    fn register(&self, offset: u32) -> u32 {
        let queue = self.queues.get(self.queue_sel as usize);
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device.id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.device_features_sel {
                0 => self.features() as u32,
                1 => (self.features() >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| queue.ready().into()),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt_status,
            VIRTIO_MMIO_STATUS => self.status,
            // No shared memory region: its length reads as all ones (4.2.2).
            VIRTIO_MMIO_SHM_LEN_LOW | VIRTIO_MMIO_SHM_LEN_HIGH => u32::MAX,
            VIRTIO_MMIO_SHM_BASE_LOW | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            VIRTIO_MMIO_CONFIG_GENERATION => self.config_generation,
            _ => 0,
        }
    }

    /// The guest writes a register or the configuration space.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(start) = offset.checked_sub(VIRTIO_MMIO_CONFIG.into()) {
            self.device.write_config(start as usize, data);
            return;
        }
        let Ok(word) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(word);
        match u32::try_from(offset) {
            Ok(VIRTIO_MMIO_DEVICE_FEATURES_SEL) => self.device_features_sel = value,
            Ok(VIRTIO_MMIO_DRIVER_FEATURES_SEL) => self.driver_features_sel = value,
            Ok(VIRTIO_MMIO_DRIVER_FEATURES) => self.write_driver_features(value),
            Ok(VIRTIO_MMIO_QUEUE_SEL) => self.queue_sel = value,
            // Of a queue that is there, doorbells tell: a turn is all that an odd driver gets here.
            Ok(VIRTIO_MMIO_QUEUE_NOTIFY) => drop(self.serve(value as usize)),
            Ok(VIRTIO_MMIO_INTERRUPT_ACK) => self.interrupt_status &= !value,
            Ok(VIRTIO_MMIO_STATUS) => self.write_status(value),
            Ok(register @ VIRTIO_MMIO_QUEUE_NUM..=VIRTIO_MMIO_QUEUE_USED_HIGH) => {
                self.write_queue(register, value);
            }
            _ => {}
        }
    }

    fn write_driver_features(&mut self, value: u32) {
        if self.status & FEATURES_OK != 0 {
            return; // settled (3.1.1)
        }
        let shift = match self.driver_features_sel {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features &= !(u64::from(u32::MAX) << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    /// Queue registers count between FEATURES_OK and DRIVER_OK only. Sizes and addresses that no queue
    /// can have leave it as it was: harm for the guest alone.
    fn write_queue(&mut self, register: u32, value: u32) {
        if self.status & (FEATURES_OK | DRIVER_OK) != FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else { return };
        if queue.ready() && register != VIRTIO_MMIO_QUEUE_READY {
            return; // 4.2.2.2: not while the queue is in use
        }
        match register {
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            VIRTIO_MMIO_QUEUE_READY => queue.set_ready(value == 1),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let new = value & !self.status;
        self.status |= value & STATUS & !NEEDS_RESET; // that bit is the device's own
        if new & FEATURES_OK != 0 && !self.acceptable() {
            self.status &= !FEATURES_OK;
        }
        if new & DRIVER_OK != 0 {
            self.activate();
        }
    }

    /// Drivers of the old interface are refused: without VERSION_1 rings lie elsewhere (6.1).
    fn acceptable(&self) -> bool {
        self.driver_features & !self.features() == 0
            && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        let memory = &*self.memory;
        let needed = self.device.queues_needed(self.driver_features);
        let usable = self.status & FEATURES_OK != 0
            && self.queues.iter().enumerate().all(|(index, queue)| {
                if index < needed || queue.ready() { queue.is_valid(memory) } else { true }
            });
        self.set_event_idx();
        if !usable || self.device.activate(self.driver_features).is_err() {
            self.fail();
        }
    }

    fn set_event_idx(&mut self) {
        let event_idx = self.driver_features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        self.queues.iter_mut().for_each(|queue| queue.set_event_idx(event_idx));
    }

    fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.status = 0;
        self.interrupt_status = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
    }

    /// Whether the driver is ready and the device sound.
    pub fn is_serving(&self) -> bool {
        self.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    /// Serves a turn of a queue, if the driver is ready; other numbers mean nothing. Says whether there
    /// is more: the queue is then to be served again, after the other devices.
    pub fn serve(&mut self, queue: usize) -> bool {
        if !self.is_serving() || !self.queues.get(queue).is_some_and(Queue::ready) {
            return false;
        }
        let result = self.device.serve(queue, &mut self.queues, &self.memory);
        self.tell(result)
    }

    /// A descriptor that the monitor is to watch for input, edge triggered, calling
    /// [`Self::handle_event`] at every edge.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.device.watched()
    }

    /// Something happened on the watched descriptor. Says whether there is more: this is then to be
    /// called again, after the other devices were served.
    pub fn handle_event(&mut self) -> bool {
        if !self.is_serving() {
            return false;
        }
        let result = self.device.handle_event(&mut self.queues, &self.memory);
        self.tell(result)
    }

    fn tell(&mut self, result: Result<Served, QueueError>) -> bool {
        let Ok(Served { notice, more }) = result else {
            self.fail();
            return false;
        };
        match notice {
            Notice::None => {}
            Notice::Used => self.interrupt(VIRTIO_MMIO_INT_VRING),
            Notice::Config => {
                self.config_generation = self.config_generation.wrapping_add(1);
                self.interrupt(VIRTIO_MMIO_INT_CONFIG);
            }
        }
        more
    }

    /// The device stops until it is reset, and the driver is told (2.1.2).
    fn fail(&mut self) {
        self.status |= NEEDS_RESET;
        self.interrupt(VIRTIO_MMIO_INT_CONFIG);
    }

    fn interrupt(&mut self, reason: u32) {
        self.interrupt_status |= reason;
        // The line is an eventfd, which only refuses a write when 2^64 of them were not taken.
        let _ = self.line.trigger();
    }
}

#[cfg(test)]
mod tests;
