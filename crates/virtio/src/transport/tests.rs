//! The registers, with a device that does nothing.

use super::*;
use crate::{
    QueueError,
    driver::{Driver, VERSION_1},
};

/// Does nothing, and interrupts.
struct Idle;

impl Device for Idle {
    fn id(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queue_sizes(&self) -> &'static [u16] {
        &[8, 8]
    }
    fn config(&self) -> &[u8] {
        b"config"
    }
    fn activate(&mut self, features: u64) -> std::io::Result<()> {
        if features & 1 << 5 == 0 { Ok(()) } else { Err(std::io::Error::other("no")) }
    }
    fn serve(&mut self, _: usize, _: &mut [Queue], _: &Memory) -> Result<Served, QueueError> {
        Ok(Notice::Used.into())
    }
}

#[test]
fn a_driver_finds_what_the_specification_says() {
    let mut driver = Driver::new(Box::new(Idle));
    assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!((driver.read(VIRTIO_MMIO_VERSION), driver.read(VIRTIO_MMIO_DEVICE_ID)), (2, 42));
    assert_eq!(
        driver.read(VIRTIO_MMIO_DEVICE_FEATURES) as u64,
        TRANSPORT_FEATURES & 0xffff_ffff | 1 << 5
    );
    driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 1);
    driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 8);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 2);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
}

#[test]
fn configuration_is_read_by_any_width_and_ends() {
    let driver = Driver::new(Box::new(Idle));
    let read = |offset: u64, width: usize| {
        let mut bytes = vec![0xff; width];
        driver.device.read(offset, &mut bytes);
        bytes
    };
    assert_eq!(read(0x100, 1), b"c");
    assert_eq!(read(0x102, 2), b"nf");
    assert_eq!(read(0x104, 4), b"ig\0\0");
    assert_eq!(read(0x106, 4), [0; 4]);
    assert_eq!(read(u64::MAX, 8), [0; 8]);
    assert_eq!(read(0x0, 2), [0; 2], "registers are 32 bits wide");
}

#[test]
fn features_are_settled_once_and_only_if_acceptable() {
    let mut driver = Driver::new(Box::new(Idle));
    driver.negotiate(VERSION_1);
    assert_eq!(driver.status(), 11);
    driver.negotiate(1 << 28);
    assert_eq!(driver.status(), 3, "without VERSION_1");
    driver.negotiate(VERSION_1 | 1 << 6);
    assert_eq!(driver.status(), 3, "never offered");
}

#[test]
fn a_driver_that_skips_a_step_gets_a_broken_device() {
    let mut driver = Driver::new(Box::new(Idle));
    driver.negotiate(VERSION_1);
    driver.set_up_queue(0);
    driver.write(VIRTIO_MMIO_STATUS, 15);
    assert!(driver.is_broken(), "one queue is missing");
    let mut driver = Driver::new(Box::new(Idle));
    driver.write(VIRTIO_MMIO_STATUS, 4);
    assert!(driver.is_broken(), "no features, no queues");
    let mut driver = Driver::new(Box::new(Idle));
    driver.negotiate(VERSION_1 | 1 << 5);
    (0..2).for_each(|queue| driver.set_up_queue(queue));
    driver.write(VIRTIO_MMIO_STATUS, 15);
    assert!(driver.is_broken(), "the device refuses");
}

#[test]
fn queues_outside_of_memory_are_refused() {
    for register in
        [VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_USED_HIGH]
    {
        let mut driver = Driver::new(Box::new(Idle));
        driver.negotiate(VERSION_1);
        (0..2).for_each(|queue| driver.set_up_queue(queue));
        driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
        driver.write(register, 0xffff_ffff);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        driver.write(VIRTIO_MMIO_STATUS, 15);
        assert!(driver.is_broken());
    }
}

#[test]
fn queues_stay_as_they_are_once_in_use() {
    let mut driver = Driver::ready(Box::new(Idle), VERSION_1, 2);
    driver.write(VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xffff_ffff);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 1);
}

#[test]
fn interrupts_are_told_and_acknowledged() {
    let mut driver = Driver::ready(Box::new(Idle), VERSION_1, 2);
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_eq!((driver.interrupts.0.get(), driver.read(VIRTIO_MMIO_INTERRUPT_STATUS)), (1, 1));
    driver.write(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 7);
    driver.write(VIRTIO_MMIO_STATUS, 0);
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_eq!(
        driver.interrupts.0.get(),
        1,
        "neither an unknown queue nor one of a device in reset"
    );
}

#[test]
fn noise_is_survived() {
    crate::driver::assert_noise_is_survived(|| Driver::ready(Box::new(Idle), VERSION_1, 2), 2);
}
