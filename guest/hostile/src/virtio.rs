//! The driver's side of a virtio device on the mmio transport (section 4.2 of the virtio
//! specification, 1.2), without any of a driver's manners.

use crate::{
    boot::BootParams,
    cpu,
    report::{expect, fail},
    ring::Rings,
};

/// What the first register reads as: "virt".
pub const MAGIC: u32 = 0x7472_6976;
/// Device IDs (section 5).
pub const NET: u32 = 1;
/// A disk.
pub const BLOCK: u32 = 2;

/// Status bits (section 2.1).
pub const FEATURES_OK: u32 = 8;
/// The driver is ready.
pub const DRIVER_OK: u32 = 4;
/// The device gave up.
pub const NEEDS_RESET: u32 = 64;
/// Everything up to FEATURES_OK, and up to DRIVER_OK.
pub const NEGOTIATED: u32 = 1 | 2 | FEATURES_OK;
/// All of it.
pub const READY: u32 = NEGOTIATED | DRIVER_OK;

/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_RING_EVENT_IDX.
pub const EVENT_IDX: u64 = 1 << 29;

/// Registers (4.2.2).
pub mod register {
    /// Device ID.
    pub const DEVICE_ID: u64 = 0x08;
    /// Which half of the driver's features.
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    /// The driver's features.
    pub const DRIVER_FEATURES: u64 = 0x20;
    /// Which queue.
    pub const QUEUE_SEL: u64 = 0x30;
    /// The most entries it may have.
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    /// Entries.
    pub const QUEUE_NUM: u64 = 0x38;
    /// Handed over.
    pub const QUEUE_READY: u64 = 0x44;
    /// Doorbell.
    pub const QUEUE_NOTIFY: u64 = 0x50;
    /// Acknowledges an interrupt.
    pub const INTERRUPT_ACK: u64 = 0x64;
    /// Status.
    pub const STATUS: u64 = 0x70;
    /// The descriptor table's address, in halves.
    pub const QUEUE_DESC: u64 = 0x80;
    /// The available ring's.
    pub const QUEUE_AVAIL: u64 = 0x90;
    /// The used ring's.
    pub const QUEUE_USED: u64 = 0xa0;
    /// The configuration space.
    pub const CONFIG: u64 = 0x100;
}

/// Reads of the status register, an exit each, after which a device is given up.
const PATIENCE: u32 = 200_000;

/// A device.
#[derive(Clone, Copy)]
pub struct Device(u64);

impl Device {
    /// All devices of this kind.
    pub fn all(boot: &BootParams, kind: u32) -> impl Iterator<Item = Self> {
        boot.devices().map(Self).filter(move |device| device.read(register::DEVICE_ID) == kind)
    }

    /// The disk.
    pub fn disk(boot: &BootParams) -> Self {
        Self::all(boot, BLOCK).next().unwrap_or_else(|| fail("no disk", 0, 0))
    }

    /// Where its registers are.
    pub fn address(self) -> u64 {
        self.0
    }

    /// Reads a register.
    pub fn read(self, register: u64) -> u32 {
        cpu::read(self.0 + register)
    }

    /// Writes a register.
    pub fn write(self, register: u64, value: u32) {
        cpu::write(self.0 + register, value);
    }

    /// Writes an address register, low half first.
    pub fn write_address(self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    /// The status register.
    pub fn status(self) -> u32 {
        self.read(register::STATUS)
    }

    /// Reads the status register so many times: some time goes by, and the device must answer.
    pub fn look(self, times: u64) {
        for _ in 0..times {
            self.status();
        }
    }

    /// Sets the status register, which adds bits, or resets the device.
    pub fn set_status(self, status: u32) {
        self.write(register::STATUS, status);
    }

    /// Resets the device and agrees on features.
    pub fn negotiate(self, features: u64) {
        self.set_status(0);
        self.set_status(1 | 2);
        for half in [0, 1] {
            self.write(register::DRIVER_FEATURES_SEL, half);
            self.write(register::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.set_status(NEGOTIATED);
    }

    /// Hands a queue over with its rings at these addresses: table, available, used.
    pub fn give_queue(self, queue: u32, size: u32, rings: [u64; 3]) {
        self.write(register::QUEUE_SEL, queue);
        self.write(register::QUEUE_NUM, size);
        for (register, address) in
            [register::QUEUE_DESC, register::QUEUE_AVAIL, register::QUEUE_USED]
                .into_iter()
                .zip(rings)
        {
            self.write_address(register, address);
        }
        self.write(register::QUEUE_READY, 1);
    }

    /// Brings the device up with `queues` empty queues; returns them.
    pub fn bring_up(self, features: u64, queues: u32) -> [Rings; 2] {
        self.negotiate(VERSION_1 | features);
        let rings = [Rings::empty(0), Rings::empty(1)];
        for queue in 0..queues {
            self.give_queue(queue, Rings::SIZE.into(), rings[queue as usize].addresses());
        }
        self.set_status(READY);
        expect("status of a device brought up", self.status().into(), READY.into());
        rings
    }

    /// Rings a queue's doorbell.
    pub fn notify(self, queue: u32) {
        self.write(register::QUEUE_NOTIFY, queue);
    }

    /// Waits until the device gives up.
    pub fn await_broken(self, what: &str, number: u64) {
        let broken = (0..PATIENCE).any(|_| self.status() & NEEDS_RESET != 0);
        if !broken {
            fail(what, number, self.status().into());
        }
        self.set_status(0);
        expect("status after a reset", self.status().into(), 0);
    }

    /// Number of queues.
    pub fn queues(self) -> u32 {
        if self.read(register::DEVICE_ID) == NET { 2 } else { 1 }
    }

    /// Reads the first sector, as any driver would: a sound device answers.
    pub fn assert_disk_works(self) {
        let mut rings = self.bring_up(0, 1)[0];
        rings.put_request(0, 0);
        rings.offer(0);
        self.notify(0);
        if !(0..PATIENCE).any(|_| rings.used_index() == 1 || self.status() & NEEDS_RESET != 0) {
            fail("the disk does not answer", self.status().into(), 0);
        }
        expect("answer of the disk", rings.request_status().into(), 0);
        self.set_status(0);
    }
}

/// Resets every device over and over, at every point of its life.
pub fn resets(boot: &BootParams, count: u64) {
    for round in 0..count {
        for kind in [BLOCK, NET] {
            for device in Device::all(boot, kind) {
                let mut rings = device.bring_up(0, device.queues());
                for queue in 0..device.queues() {
                    rings[queue as usize].put_request(0, round);
                    rings[queue as usize].offer(0);
                    device.notify(queue);
                }
                // While the request may be under way, or before, or after.
                device.look(round % 4);
                device.set_status(0);
                (0..round % 3).for_each(|_| device.set_status(0));
            }
        }
    }
    Device::disk(boot).assert_disk_works();
}
