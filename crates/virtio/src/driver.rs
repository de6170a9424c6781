//! A driver for the tests of transport and devices: well-behaved where asked, and able to write
//! any descriptor where not. It talks to a device as a guest does, by registers and memory alone.

#![allow(unsafe_code)]

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use virtio_bindings::{virtio_mmio::*, virtio_ring::*};
use vm_memory::{Bytes, GuestAddress, GuestRegionMmap, MmapRegion};
use vm_superio::Trigger;

use super::{Device, transport::Transport};
use crate::Memory;

/// RAM of the tests' guests.
pub const RAM: u64 = 1 << 20;
/// Entries of every queue.
pub const SIZE: u16 = 8;
/// Where the rings of a queue lie, and how far apart queues are.
const RINGS: u64 = 0x1000;
const RINGS_STEP: u64 = 0x3000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Where buffers may lie.
pub const BUFFERS: u64 = 0x10000;

/// Feature bits every good driver takes.
pub const VERSION_1: u64 = 1 << 32;

/// An interrupt line that counts.
#[derive(Clone, Default)]
pub struct Counter(pub Rc<Cell<u32>>);

impl Trigger for Counter {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

/// A descriptor as it stands in the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Guest-physical address.
    pub address: u64,
    /// Length.
    pub length: u32,
    /// Flags.
    pub flags: u16,
    /// Next entry.
    pub next: u16,
}

/// Pages around the guest's RAM that nothing may touch: what reaches outside dies of it.
const GUARD: usize = 1 << 20;

/// Where a guest's RAM is mapped.
struct Room(*mut libc::c_void);

impl Room {
    fn new() -> (Self, Memory) {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let size = RAM as usize;
        // SAFETY: a new mapping where there is room, and access to a part of it.
        unsafe {
            let start =
                libc::mmap(std::ptr::null_mut(), size + 2 * GUARD, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let ram = start.byte_add(GUARD);
            assert_eq!(libc::mprotect(ram, size, prot), 0);
            let region = MmapRegion::build_raw(ram.cast(), size, prot, flags).unwrap();
            let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
            (Self(start), Memory::from_regions(vec![region]).unwrap())
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`; the driver drops the device and its memory before.
        unsafe { libc::munmap(self.0, RAM as usize + 2 * GUARD) };
    }
}

/// The driver and the device it drives.
pub struct Driver {
    /// The device behind its registers.
    pub device: Transport<Counter>,
    /// Guest memory.
    pub memory: Arc<Memory>,
    /// Interrupts so far.
    pub interrupts: Counter,
    available: [u16; 3],
    _room: Room,
}

impl Driver {
    /// A device nobody has touched yet.
    pub fn new(device: Box<dyn Device>) -> Self {
        let (room, memory) = Room::new();
        let memory = Arc::new(memory);
        let interrupts = Counter::default();
        let device = Transport::new(device, memory.clone(), interrupts.clone());
        Self { device, memory, interrupts, available: [0; 3], _room: room }
    }

    /// A device brought up with these features and this many queues.
    pub fn ready(device: Box<dyn Device>, features: u64, queues: u32) -> Self {
        let mut driver = Self::new(device);
        driver.bring_up(features, queues);
        driver
    }

    /// Resets the device and brings it up.
    pub fn bring_up(&mut self, features: u64, queues: u32) {
        self.negotiate(features);
        (0..queues as usize).for_each(|queue| {
            self.set_available(queue, 0);
            self.put(Self::rings(queue) + USED, &[0; 4]);
            self.set_up_queue(queue as u32);
        });
        self.write(VIRTIO_MMIO_STATUS, 15);
        assert!(self.device.is_serving(), "status {:#x}", self.status());
    }

    /// Reads a register.
    pub fn read(&self, register: u32) -> u32 {
        let mut word = [0; 4];
        self.device.read(register.into(), &mut word);
        u32::from_le_bytes(word)
    }

    /// Writes a register.
    pub fn write(&mut self, register: u32, value: u32) {
        self.device.write(register.into(), &value.to_le_bytes());
    }

    /// The features the device offers.
    pub fn offered(&mut self) -> u64 {
        let mut half = |sel: u32| {
            self.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, sel);
            u64::from(self.read(VIRTIO_MMIO_DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// The status register.
    pub fn status(&self) -> u32 {
        self.read(VIRTIO_MMIO_STATUS)
    }

    /// Whether the device wants to be reset.
    pub fn is_broken(&self) -> bool {
        self.status() & 64 != 0
    }

    /// Agrees on features.
    pub fn negotiate(&mut self, features: u64) {
        self.write(VIRTIO_MMIO_STATUS, 0);
        self.write(VIRTIO_MMIO_STATUS, 3);
        for half in [0, 1] {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.write(VIRTIO_MMIO_STATUS, 11);
    }

    /// Hands a queue over.
    pub fn set_up_queue(&mut self, queue: u32) {
        let base = (RINGS + u64::from(queue) * RINGS_STEP) as u32;
        self.write(VIRTIO_MMIO_QUEUE_SEL, queue);
        self.write(VIRTIO_MMIO_QUEUE_NUM, SIZE.into());
        self.write(VIRTIO_MMIO_QUEUE_DESC_LOW, base);
        self.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, base + AVAIL as u32);
        self.write(VIRTIO_MMIO_QUEUE_USED_LOW, base + USED as u32);
        for high in
            [VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_USED_HIGH]
        {
            self.write(high, 0);
        }
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    fn rings(queue: usize) -> u64 {
        RINGS + queue as u64 * RINGS_STEP
    }

    /// Where a queue's ring of the driver lies.
    pub fn available_ring(queue: usize) -> u64 {
        Self::rings(queue) + AVAIL
    }

    /// Writes a descriptor into a queue's table.
    pub fn describe(&self, queue: usize, index: u16, entry: Entry) {
        self.describe_at(Self::rings(queue), index, entry);
    }

    /// Writes a descriptor into a table anywhere.
    pub fn describe_at(&self, table: u64, index: u16, entry: Entry) {
        let at = table + u64::from(index) * 16;
        self.memory.write_obj(entry.address, GuestAddress(at)).unwrap();
        self.memory.write_obj(entry.length, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(entry.flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(entry.next, GuestAddress(at + 14)).unwrap();
    }

    /// Offers the chain that starts at `head` and rings the doorbell.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let ring = Self::rings(queue) + AVAIL;
        let index = self.available[queue];
        self.memory.write_obj(head, GuestAddress(ring + 4 + u64::from(index % SIZE) * 2)).unwrap();
        self.set_available(queue, index.wrapping_add(1));
        self.device.serve(queue);
    }

    /// Sets the ring's index, to whatever.
    pub fn set_available(&mut self, queue: usize, index: u16) {
        self.available[queue] = index;
        self.memory.write_obj(index, GuestAddress(Self::rings(queue) + AVAIL + 2)).unwrap();
    }

    /// Offers these pieces of memory (address, length, whether the device writes) as one chain from
    /// descriptor 0 on.
    pub fn request(&mut self, queue: usize, parts: &[(u64, u32, bool)]) {
        for (index, &(address, length, writable)) in parts.iter().enumerate() {
            let more = index + 1 < parts.len();
            let flags = if writable { VRING_DESC_F_WRITE } else { 0 }
                | if more { VRING_DESC_F_NEXT } else { 0 };
            let entry = Entry { address, length, flags: flags as u16, next: index as u16 + 1 };
            self.describe(queue, index as u16, entry);
        }
        self.offer(queue, 0);
    }

    /// The used ring: how many entries, and the last one's head and length.
    pub fn used(&self, queue: usize) -> (u16, u32, u32) {
        let count = self.memory.read_obj(GuestAddress(Self::rings(queue) + USED + 2)).unwrap();
        let (head, length) = self.used_entry(queue, u16::wrapping_sub(count, 1));
        (count, head, length)
    }

    /// One entry of the used ring: head and length.
    pub fn used_entry(&self, queue: usize, index: u16) -> (u32, u32) {
        let entry = Self::rings(queue) + USED + 4 + u64::from(index % SIZE) * 8;
        let word = |at: u64| self.memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        (word(entry), word(entry + 4))
    }

    /// Bytes of guest memory.
    pub fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Puts bytes into guest memory.
    pub fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }
}

/// Ways to break a queue, for every device: each must end with the device broken and nothing else.
pub fn assert_hostile_queues_break(make: impl Fn() -> Driver, queue: usize) {
    let next = VRING_DESC_F_NEXT as u16;
    let write = VRING_DESC_F_WRITE as u16;
    let indirect = VRING_DESC_F_INDIRECT as u16;
    let entry = |address, length, flags, next| Entry { address, length, flags, next };
    let table = BUFFERS + 0x8000;
    let good = entry(BUFFERS, 16, next, 1);
    let cases: &[(&str, &[Entry])] = &[
        ("a loop of one", &[entry(BUFFERS, 16, next, 0)]),
        ("a loop of two", &[good, entry(BUFFERS, 16, next, 0)]),
        ("a next outside of the table", &[entry(BUFFERS, 16, next, SIZE)]),
        ("an empty descriptor", &[good, entry(BUFFERS, 0, write, 0)]),
        ("an empty first descriptor", &[entry(BUFFERS, 0, 0, 0)]),
        ("beyond the end of memory", &[entry(RAM, 16, 0, 0)]),
        ("across the end of memory", &[good, entry(RAM - 8, 16, write, 0)]),
        ("around the end of the address space", &[entry(u64::MAX - 8, 16, 0, 0)]),
        ("4 GiB long", &[good, entry(BUFFERS, u32::MAX, write, 0)]),
        (
            "all of memory, again and again",
            &[
                entry(0, RAM as u32, next, 1),
                entry(0, RAM as u32, next, 2),
                entry(0, RAM as u32, next, 3),
                entry(0, RAM as u32, next, 4),
                entry(0, RAM as u32, next, 5),
                entry(0, RAM as u32, next, 6),
                entry(0, RAM as u32, next, 7),
                entry(0, RAM as u32, 0, 0),
            ],
        ),
        (
            "readable behind writable",
            &[entry(BUFFERS, 2000, write | next, 1), entry(BUFFERS, 16, 0, 0)],
        ),
        ("an indirect table outside of memory", &[entry(RAM, 16, indirect, 0)]),
        ("an indirect table of odd length", &[entry(table, 17, indirect, 0)]),
        ("an empty indirect table", &[entry(table, 0, indirect, 0)]),
        ("an indirect table that loops", &[entry(table, 32, indirect, 0)]),
        ("an indirect table that is huge", &[entry(table, 0xffff_fff0, indirect, 0)]),
    ];
    for (name, entries) in cases {
        let mut driver = make();
        // The indirect table: an entry that points at itself, and one that is indirect again.
        driver.describe_at(table, 0, entry(BUFFERS, 16, next, 0));
        driver.describe_at(table, 1, entry(table, 32, indirect, 0));
        for (index, &entry) in entries.iter().enumerate() {
            driver.describe(queue, index as u16, entry);
        }
        driver.offer(queue, 0);
        assert!(driver.is_broken(), "{name}");
        assert_eq!(driver.used(queue).0, 0, "{name}");
        assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2, "{name}");
        // It stays broken until reset, and is sound after.
        driver.offer(queue, 0);
        assert!(driver.is_broken(), "{name}");
        driver.write(VIRTIO_MMIO_STATUS, 0);
        assert_eq!((driver.status(), driver.read(VIRTIO_MMIO_INTERRUPT_STATUS)), (0, 0), "{name}");
    }
    let mut driver = make();
    driver.offer(queue, SIZE); // a head outside of the table
    assert!(driver.is_broken(), "head");
    let mut driver = make();
    driver.set_available(queue, SIZE + 1); // more than the ring holds
    driver.device.serve(queue);
    assert!(driver.is_broken(), "index");
}

/// Rings that lie over each other, so that what the device writes is what it reads next: whatever the
/// device makes of it, it comes to an end. The chain that starts at descriptor 0 is one it takes.
pub fn assert_rings_over_each_other_end(
    make: impl Fn() -> Driver,
    features: u64,
    queue: u32,
    chain: &[Entry],
) {
    for distance in (0..0x60).step_by(2) {
        for above in [true, false] {
            let mut driver = make();
            driver.negotiate(features);
            for queue in 0..=queue.max(1) {
                driver.set_up_queue(queue);
            }
            let used = Driver::rings(queue as usize) + USED;
            let available = if above { used + distance } else { used - distance };
            driver.write(VIRTIO_MMIO_QUEUE_SEL, queue);
            driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
            driver.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, available as u32);
            driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
            driver.write(VIRTIO_MMIO_STATUS, 15);
            assert!(driver.device.is_serving());
            for (index, &entry) in (0..).zip(chain) {
                driver.describe(queue as usize, index, entry);
            }
            for index in 1..4_u16 {
                driver.memory.write_obj(index, GuestAddress(available + 2)).unwrap();
                driver.device.serve(queue as usize);
            }
        }
    }
}

/// A second CPU that adds requests as fast as the device serves them: each turn still ends after as
/// many as the queue has entries, the device says that there is more, and the others get their turn.
/// The chain that starts at descriptor 0 is one the device takes, and there is always work to it.
pub fn assert_a_turn_ends(mut driver: Driver, queue: usize, chain: &[Entry]) {
    for (index, &entry) in (0..).zip(chain) {
        driver.describe(queue, index, entry);
    }
    let (memory, rings) = (driver.memory.clone(), Driver::rings(queue));
    let (used_at, available_at) = (GuestAddress(rings + USED + 2), GuestAddress(rings + AVAIL + 2));
    for place in 0..u64::from(SIZE) {
        memory.write_obj(0_u16, GuestAddress(rings + AVAIL + 4 + place * 2)).unwrap();
    }
    let used = || memory.read_obj::<u16>(used_at).unwrap();
    let (stop, feed) = (AtomicBool::new(false), &memory);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            // A device that never comes to an end fails, instead of hanging.
            while !stop.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(20) {
                let used = feed.load::<u16>(used_at, Ordering::Acquire).unwrap();
                feed.store(used.wrapping_add(SIZE), available_at, Ordering::Release).unwrap();
            }
        });
        let (mut full, mut longest) = (0, 0);
        let begin = Instant::now();
        while full < 100 && begin.elapsed() < Duration::from_secs(20) {
            let before = used();
            let more = driver.device.serve(queue);
            assert!(!driver.is_broken());
            let served = used().wrapping_sub(before);
            longest = longest.max(served);
            full += u32::from(served == SIZE && more);
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!((full, longest), (100, SIZE), "whole turns, and requests of the longest");
    });
}

/// Random tables, rings and register writes: whatever happens, nothing panics and nothing outside
/// of guest memory is touched.
pub fn assert_noise_is_survived(make: impl Fn() -> Driver, queues: u32) {
    let mut seed = 42_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    for _ in 0..300 {
        let mut driver = make();
        for _ in 0..40 {
            let queue = random() as u32 % queues;
            match random() % 4 {
                0 => driver.write(random() as u32 % 0x110, random() as u32),
                1 => driver.offer(queue as usize, random() as u16 % (SIZE + 1)),
                2 => driver.set_available(queue as usize, random() as u16),
                _ => driver.describe(
                    queue as usize,
                    random() as u16 % SIZE,
                    Entry {
                        address: if random() % 4 == 0 { random() << 20 } else { random() % RAM },
                        length: if random() % 4 == 0 {
                            random() as u32
                        } else {
                            random() as u32 % 3000
                        },
                        flags: random() as u16 & 7,
                        next: random() as u16 % (SIZE + 2),
                    },
                ),
            }
            let mut data = vec![0; 1 + random() as usize % 16];
            driver.device.read(random() % 0x120, &mut data);
        }
    }
}
