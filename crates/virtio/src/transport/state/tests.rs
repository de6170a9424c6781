//! Saving and restoring, with a device that counts what it served.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use proptest::prelude::*;
use virtio_bindings::virtio_mmio::*;

use super::*;
use crate::{
    Notice, QueueError, Served,
    driver::{BUFFERS, Counter, Driver, RAM, VERSION_1},
};
use virtio_queue::QueueOwnedT;

/// Gives back every chain, and remembers with which features it was activated.
#[derive(Clone, Default)]
struct Echo {
    features: Arc<AtomicU32>,
    own: u8,
}

impl Device for Echo {
    fn id(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queue_sizes(&self) -> &'static [u16] {
        &[8, 8]
    }
    fn queues_needed(&self, _: u64) -> usize {
        1
    }
    fn config(&self) -> &[u8] {
        std::slice::from_ref(&self.own)
    }
    fn write_config(&mut self, _: usize, data: &[u8]) {
        self.own = data.first().copied().unwrap_or(0);
    }
    fn activate(&mut self, features: u64) -> io::Result<()> {
        self.features.store(features as u32, Ordering::Relaxed);
        if self.own == 99 { Err(io::Error::other("no")) } else { Ok(()) }
    }
    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        let queue = &mut queues[index];
        while let Some(chain) = queue.iter(memory)?.next() {
            queue.add_used(memory, chain.head_index(), 0)?;
        }
        Ok(Notice::from(queue.needs_notification(memory)?).into())
    }
    fn save(&self) -> Vec<u8> {
        vec![self.own]
    }
    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        let [own] = *saved else { return Err("length") };
        self.own = own;
        Ok(())
    }
}

/// A driver in the middle of its work, with a request it has not rung for.
fn working() -> Driver {
    let mut driver = Driver::ready(Box::new(Echo::default()), VERSION_1 | 1 << 5, 1);
    driver.device.write(0x100, &[7]);
    driver.request(0, &[(BUFFERS, 16, false)]);
    driver.set_available(0, 2);
    driver
}

fn restored(driver: &Driver, state: &TransportState) -> Result<Transport<Counter>, RestoreError> {
    Transport::restore(
        Box::new(Echo::default()),
        driver.memory.clone(),
        driver.interrupts.clone(),
        state,
    )
}

#[test]
fn a_device_goes_on_where_it_was() {
    let mut driver = working();
    let text = serde_json::to_string(&driver.device.save()).unwrap();
    let state: TransportState = serde_json::from_str(&text).unwrap();
    assert_eq!((state.device_id, state.status, state.interrupt_status), (42, 15, 1));
    let queue = state.queues[0];
    assert_eq!((queue.size, queue.next_available, queue.next_used), (8, 1, 1));

    let echo = Echo::default();
    driver.device = Transport::restore(
        Box::new(echo.clone()),
        driver.memory.clone(),
        driver.interrupts.clone(),
        &state,
    )
    .unwrap();
    assert_eq!(driver.device.save(), state);
    assert_eq!(echo.features.load(Ordering::Relaxed), 1 << 5, "activated");
    assert_eq!(driver.used(0).0, 1);
    driver.interrupts.0.set(0);
    driver.device.resume();
    assert_eq!(driver.used(0).0, 2, "what nobody rang for is served");
    assert_ne!(driver.interrupts.0.get(), 0, "what was not acknowledged is told again");
    driver.write(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn a_device_in_any_stage_is_saved_and_restored() {
    let mut driver = Driver::new(Box::new(Echo::default()));
    let check = |driver: &Driver, serving: bool| {
        let state = driver.device.save();
        let device = restored(driver, &state).unwrap();
        assert_eq!((device.save(), device.is_serving()), (state, serving));
    };
    check(&driver, false);
    driver.negotiate(VERSION_1);
    check(&driver, false);
    driver.set_up_queue(1);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.write(VIRTIO_MMIO_QUEUE_DESC_HIGH, 7);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    check(&driver, false);
    driver.write(VIRTIO_MMIO_STATUS, 15);
    assert!(driver.is_broken());
    check(&driver, false);
    check(&working(), true);
}

/// A change that makes a state impossible.
type Spoil = fn(&mut TransportState);

#[test]
fn what_cannot_be_is_refused_by_name() {
    let cases: &[(&str, Spoil)] = &[
        ("device ID", |state| state.device_id = 2),
        ("status: 0x115", |state| state.status = 0x115),
        ("status: 0x7", |state| state.status = 7),
        ("interrupt status: 0x4", |state| state.interrupt_status = 4),
        ("driver features", |state| state.driver_features |= 1 << 6),
        ("driver features", |state| state.driver_features = 0),
        ("queues: 1", |state| state.queues.truncate(1)),
        ("queues: 3", |state| state.queues.push(state.queues[0])),
        ("queue 0: size: 0x0", |state| state.queues[0].size = 0),
        ("queue 0: size: 0x10", |state| state.queues[0].size = 16),
        ("queue 1: size: 0x7", |state| state.queues[1].size = 7),
        ("queue 0: ready", |state| state.queues[0].ready = false),
        ("queue 0: descriptors: 0x8", |state| state.queues[0].descriptors = 8),
        ("queue 0: descriptors: 0xff", |state| state.queues[0].descriptors = RAM - 16),
        ("queue 0: descriptors", |state| state.queues[0].descriptors = u64::MAX - 15),
        ("queue 0: available: 0x1", |state| state.queues[0].available = 1),
        ("queue 0: available", |state| state.queues[0].available = RAM - 16),
        ("queue 0: used: 0x2", |state| state.queues[0].used = 2),
        ("queue 0: used", |state| state.queues[0].used = RAM - 64),
        ("queue 1: descriptors", |state| {
            state.queues[1] = QueueState { ready: true, descriptors: RAM, ..state.queues[1] };
        }),
        ("queue 0: next_available: 0x3", |state| state.queues[0].next_available = 3),
        ("queue 0: next_available", |state| state.queues[0].next_available = 2_u16.wrapping_sub(9)),
        ("queue 0: next_used: 0x2", |state| state.queues[0].next_used = 2),
        ("queue 0: next_used", |state| state.queues[0].next_used = 1_u16.wrapping_sub(9)),
        ("queue 0: next_used", |state| (state.status, state.queues[0].next_available) = (11, 0)),
        ("queue 0: next_available", |state| state.status = 11),
        ("device 42: length", |state| state.device.clear()),
        ("activate device 42", |state| state.device = vec![99]),
    ];
    let driver = working();
    for (name, spoil) in cases {
        let mut state = driver.device.save();
        spoil(&mut state);
        match restored(&driver, &state) {
            Ok(_) => panic!("{name}: taken"),
            Err(error) => assert!(error.to_string().starts_with(name), "{name}: {error}"),
        }
    }
}

prop_compose! {
    fn any_queue()(
        size in prop_oneof![Just(8_u16), any::<u16>()],
        ready: bool,
        addresses in [0..RAM + 4096, 0..RAM + 4096, 0..RAM + 4096],
        next_available: u16,
        next_used in 0_u16..20,
    ) -> QueueState {
        let [descriptors, available, used] = addresses.map(|address| address & !0xf);
        QueueState { size, ready, descriptors, available, used, next_available, next_used }
    }
}

prop_compose! {
    fn any_state()(
        status in prop_oneof![Just(15_u32), Just(79), 0..256_u32],
        driver_features in prop_oneof![Just(VERSION_1), Just(VERSION_1 | 1 << 29), any::<u64>()],
        selectors: (u32, u32, u32),
        queues in prop::collection::vec(any_queue(), 2..3),
        own: u8,
    ) -> TransportState {
        TransportState {
            device_id: 42,
            driver_features,
            status,
            interrupt_status: 3,
            config_generation: 9,
            device_features_sel: selectors.0,
            driver_features_sel: selectors.1,
            queue_sel: selectors.2,
            queues,
            device: vec![own],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is restored is refused or goes on as a device does.
    #[test]
    fn any_state_is_refused_or_sound(state in any_state()) {
        let mut driver = working();
        if let Ok(device) = restored(&driver, &state) {
            prop_assert_eq!(device.save(), state);
            driver.device = device;
            driver.device.resume();
            (0..3).for_each(|queue| _ = driver.device.serve(queue));
            driver.write(VIRTIO_MMIO_STATUS, 0);
            prop_assert_eq!(driver.status(), 0);
        }
    }
}
