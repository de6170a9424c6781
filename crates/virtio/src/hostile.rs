//! Drivers that mean harm, for the tests of every device: any register access, any descriptor, any
//! ring, in any order, by one CPU or by two at a time. Whatever they do, a device does not panic,
//! does not hang, touches nothing outside of guest RAM (which lies between pages that kill whoever
//! tries) and works again after a reset.

use std::{
    any::Any,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes, GuestAddress};

use crate::{
    Device,
    driver::{BUFFERS, Driver, Entry, RAM, SIZE, VERSION_1},
    transport::Transport,
};

/// A device and whatever must live as long.
pub type Made = (Box<dyn Device>, Box<dyn Any>);

/// Scripts tried for each device (PROPTEST_CASES asks for more), and steps of each.
const SCRIPTS: u32 = 40;
const STEPS: usize = 60;
/// Steps taken while another CPU writes to memory.
const RACES: u32 = 500;

#[derive(Debug, Clone)]
enum Step {
    /// Writes any bytes to any place.
    Write(u64, Vec<u8>),
    /// Writes a register.
    Register(u32, u32),
    /// Reads any number of bytes.
    Read(u64, usize),
    /// Sets the device up with some of the features it offers.
    BringUp(u64),
    Reset,
    Describe(usize, u16, Entry),
    Offer(usize, u16),
    Available(usize, u16),
    /// A request of which every part lies in memory.
    Request(usize, Vec<(u64, u32, bool)>),
    /// Writes to memory.
    Scribble(u64, Vec<u8>),
    Serve(usize),
    Event,
    SaveAndRestore,
}

fn register() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0_u32..0x110 / 4).prop_map(|word| word * 4),
        Just(VIRTIO_MMIO_STATUS),
        Just(VIRTIO_MMIO_QUEUE_NOTIFY),
        Just(VIRTIO_MMIO_QUEUE_READY),
    ]
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..16, any::<u32>()]
}

/// A byte more often small, so that headers and requests make sense now and then.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0_u8), 2 => 0_u8..8, 1 => any::<u8>()]
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..32).prop_map(|index| BUFFERS + index * 64),
        2 => 0..RAM,
        1 => RAM - 64..RAM + 64,
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1_u32..64, 4 => 64_u32..5000, 1 => Just(0), 1 => any::<u32>()]
}

prop_compose! {
    fn entry()(
        address in address(),
        length in length(),
        flags in 0_u16..8,
        next in 0..SIZE + 2,
    ) -> Entry {
        Entry { address, length, flags, next }
    }
}

prop_compose! {
    fn part()(
        address in (0_u64..64).prop_map(|index| BUFFERS + index * 64),
        length in prop_oneof![1_u32..64, Just(44), 64_u32..9000],
        writable: bool,
    ) -> (u64, u32, bool) {
        (address, length, writable)
    }
}

/// Parts in the order a driver must keep.
fn parts() -> impl Strategy<Value = Vec<(u64, u32, bool)>> {
    prop::collection::vec(part(), 1..5).prop_map(|mut parts| {
        parts.sort_by_key(|part| part.2);
        parts
    })
}

fn step(queues: usize) -> impl Strategy<Value = Step> {
    let bytes = |most| prop::collection::vec(byte(), 0..most);
    prop_oneof![
        2 => (prop_oneof![0_u64..0x120, any::<u64>()], bytes(20)).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        3 => (register(), value()).prop_map(|(register, value)| Step::Register(register, value)),
        2 => (prop_oneof![0_u64..0x120, any::<u64>()], 0_usize..20).prop_map(|(at, width)| Step::Read(at, width)),
        1 => any::<u64>().prop_map(Step::BringUp),
        1 => Just(Step::Reset),
        4 => (0..queues, 0..SIZE, entry()).prop_map(|(queue, index, entry)| Step::Describe(queue, index, entry)),
        3 => (0..queues, 0..SIZE + 1).prop_map(|(queue, head)| Step::Offer(queue, head)),
        1 => (0..queues, any::<u16>()).prop_map(|(queue, index)| Step::Available(queue, index)),
        8 => (0..queues, parts()).prop_map(|(queue, parts)| Step::Request(queue, parts)),
        4 => ((0_u64..64).prop_map(|index| BUFFERS + index * 64), bytes(64)).prop_map(|(at, bytes)| Step::Scribble(at, bytes)),
        2 => (0..queues + 1).prop_map(Step::Serve),
        2 => Just(Step::Event),
        1 => Just(Step::SaveAndRestore),
    ]
}

fn take(
    driver: &mut Driver,
    step: Step,
    queues: u32,
    make: &impl Fn() -> Made,
) -> Option<Box<dyn Any>> {
    match step {
        Step::Write(offset, bytes) => driver.device.write(offset, &bytes),
        Step::Register(register, value) => driver.write(register, value),
        Step::Read(offset, width) => driver.device.read(offset, &mut vec![0; width]),
        Step::BringUp(features) => {
            let features = features & driver.offered();
            driver.bring_up(VERSION_1 | features, queues);
        }
        Step::Reset => driver.write(VIRTIO_MMIO_STATUS, 0),
        Step::Describe(queue, index, entry) => driver.describe(queue, index, entry),
        Step::Offer(queue, head) => driver.offer(queue, head),
        Step::Available(queue, index) => driver.set_available(queue, index),
        Step::Request(queue, parts) => driver.request(queue, &parts),
        Step::Scribble(address, bytes) => driver.put(address, &bytes),
        Step::Serve(queue) => drop(driver.device.serve(queue)),
        Step::Event => drop(driver.device.handle_event()),
        Step::SaveAndRestore => {
            let (device, keep) = make();
            let (memory, line) = (driver.memory.clone(), driver.interrupts.clone());
            // A driver that spoiled its own rings cannot be restored, and that is all.
            if let Ok(device) = Transport::restore(device, memory, line, &driver.device.save()) {
                driver.device = device;
                driver.device.resume();
                return Some(keep);
            }
        }
    }
    None
}

/// So many scripts, or as many as PROPTEST_CASES asks for.
pub fn config(scripts: u32) -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..Default::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = scripts;
    }
    config
}

/// Runs scripts of hostile steps, alone and with a second CPU that writes to rings and buffers
/// while the device reads them.
pub fn assert_any_driver_is_survived(queues: u32, make: impl Fn() -> Made) {
    let script = prop::collection::vec(step(queues as usize), 1..STEPS);
    TestRunner::new(config(SCRIPTS))
        .run(&script, |script| {
            let (device, keep) = make();
            let mut kept = vec![keep];
            let mut driver = Driver::ready(device, VERSION_1, queues);
            for step in script {
                kept.extend(take(&mut driver, step, queues, &make));
            }
            driver.bring_up(VERSION_1, queues);
            Ok(())
        })
        .unwrap();
    assert_any_access_is_survived(queues, &make);
    assert_races_are_survived(queues, make);
}

/// Every width at every offset, on a device that is ready and on one that is not.
fn assert_any_access_is_survived(queues: u32, make: &impl Fn() -> Made) {
    let (device, _keep) = make();
    let mut driver = Driver::ready(device, VERSION_1, queues);
    for fill in [0, 1, 0xff] {
        for offset in (0..0x120).chain(u64::MAX - 16..=u64::MAX) {
            for width in 0..10 {
                driver.device.read(offset, &mut vec![0; width]);
                driver.device.write(offset, &vec![fill; width]);
            }
        }
        driver.bring_up(VERSION_1, queues);
    }
}

/// A second CPU changes rings, tables and buffers all the time.
fn assert_races_are_survived(queues: u32, make: impl Fn() -> Made) {
    let (device, _keep) = make();
    let mut driver = Driver::ready(device, VERSION_1, queues);
    let (memory, stop) = (driver.memory.clone(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 7_u64;
            while !stop.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (at, value) = (seed >> 48, (seed >> 24) as u16);
                // Rings and tables, or buffers; small numbers more often than not.
                let address =
                    if value & 1 == 0 { 0x1000 + at % 0x9000 } else { BUFFERS + at % 2048 };
                let value = if value & 2 == 0 { value % 9 } else { value };
                memory.write_obj(value, GuestAddress(address & !1)).unwrap();
            }
        });
        let mut runner = TestRunner::deterministic();
        let step = step(queues as usize);
        for round in 0..RACES {
            if round % 10 == 0 {
                let event_idx = if round % 20 == 0 { 1 << 29 } else { 0 };
                driver.bring_up(VERSION_1 | event_idx, queues);
            }
            let step = step.new_tree(&mut runner).unwrap().current();
            if !matches!(step, Step::SaveAndRestore) {
                take(&mut driver, step, queues, &make);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    driver.bring_up(VERSION_1, queues);
}
