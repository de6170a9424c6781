//! Broken virtqueues. After each the device must have given up (DEVICE_NEEDS_RESET, section 2.1.2 of
//! the virtio specification) and be sound again after a reset.

use crate::{
    boot::BootParams,
    cpu::Noise,
    report::expect,
    ring::{Entry, INDIRECT, NEXT, Rings, WRITE, describe_at},
    virtio::{
        BLOCK, DRIVER_OK, Device, EVENT_IDX, FEATURES_OK, NEEDS_RESET, NEGOTIATED, NET, READY,
        VERSION_1, register,
    },
};

/// The most descriptors of one broken chain.
type Chain = [Entry; 8];

/// Pads a chain.
fn chain(entries: &[Entry]) -> Chain {
    let mut chain = [(0, 0, 0, 0); 8];
    chain[..entries.len()].copy_from_slice(entries);
    chain
}

/// Chains no device may follow.
fn broken_chains(at: u64, end: u64, device: u64) -> [Chain; 20] {
    let good = (at, 16, NEXT, 1);
    let table = at + 0x8000;
    let all_of_it = |next| (0, end as u32, NEXT, next);
    [
        chain(&[(at, 16, NEXT, 0)]),                   // a loop of one
        chain(&[good, (at, 16, NEXT, 0)]),             // a loop of two
        chain(&[(at, 16, NEXT, Rings::SIZE)]),         // a next outside of the table
        chain(&[(at, 16, NEXT, 0xffff)]),              // and far outside
        chain(&[good, (at, 0, WRITE, 0)]),             // an empty descriptor
        chain(&[(at, 0, 0, 0)]),                       // an empty first one
        chain(&[(end, 16, 0, 0)]),                     // beyond the end of RAM
        chain(&[good, (end - 8, 16, WRITE, 0)]),       // across it
        chain(&[(u64::MAX - 8, 16, 0, 0)]),            // around the end of everything
        chain(&[(u64::MAX, 1, 0, 0)]),                 // at it
        chain(&[good, (1 << 52, 16, WRITE, 0)]),       // where no address can be
        chain(&[good, (device, 16, WRITE, 0)]),        // the device's own registers
        chain(&[good, (0xfee0_0000, 4096, WRITE, 0)]), // the local APIC
        chain(&[good, (at, u32::MAX, WRITE, 0)]),      // 4 GiB
        chain(&[
            all_of_it(1),
            all_of_it(2),
            all_of_it(3),
            all_of_it(4),
            all_of_it(5),
            all_of_it(6),
            all_of_it(7),
            (0, end as u32, 0, 0),
        ]), // all of RAM, again and again
        chain(&[(at, 2000, WRITE | NEXT, 1), (at, 16, 0, 0)]), // readable behind writable
        chain(&[(end, 16, INDIRECT, 0)]),              // an indirect table outside of RAM
        chain(&[(table, 17, INDIRECT, 0)]),            // of odd length
        chain(&[(table, 32, INDIRECT, 0)]),            // that loops
        chain(&[(table, 0xffff_fff0, INDIRECT, 0)]),   // and is huge
    ]
}

/// Every kind of broken chain, head and index in every queue, with and without event indexes.
pub fn broken(boot: &BootParams) {
    for kind in [BLOCK, NET] {
        for device in Device::all(boot, kind) {
            for features in [0, EVENT_IDX] {
                for queue in 0..device.queues() {
                    break_queue(device, features, queue, boot.ram_end());
                }
            }
        }
    }
    Device::disk(boot).assert_disk_works();
}

fn break_queue(device: Device, features: u64, queue: u32, ram_end: u64) {
    let start = || device.bring_up(features, device.queues())[queue as usize];
    let at = start().buffers();
    for (number, chain) in (0..).zip(broken_chains(at, ram_end, device.address())) {
        let mut rings = start();
        // The indirect table: an entry that points at itself, and one that is indirect again.
        describe_at(at + 0x8000, 0, (at, 16, NEXT, 0));
        describe_at(at + 0x8000, 1, (at + 0x8000, 32, INDIRECT, 0));
        (0..).zip(chain).for_each(|(index, entry)| rings.describe(index, entry));
        rings.offer(0);
        device.notify(queue);
        device.await_broken("a broken chain was taken", number);
        expect("used entries of a broken chain", rings.used_index().into(), 0);
    }
    for head in [Rings::SIZE, 0x7fff, 0xffff] {
        let mut rings = start();
        rings.offer(head);
        device.notify(queue);
        device.await_broken("a head outside of the table was taken", head.into());
    }
    for index in [Rings::SIZE + 1, 0x7fff, 0xffff] {
        let mut rings = start();
        rings.set_available(index);
        device.notify(queue);
        device.await_broken("more entries than the ring has were taken", index.into());
    }
}

/// Rings where no rings can be.
pub fn addresses(boot: &BootParams) {
    let disk = Device::disk(boot);
    let end = boot.ram_end();
    let wrong = [
        end,
        end - 16, // the table is 128 bytes long, the rings 20 and more
        disk.address(),
        0xfec0_0000,
        0xffff_f000,
        1 << 40,
        (1 << 52) - 4096,
        1 << 52,
        1 << 63,
        u64::MAX << 12,
        u64::MAX << 4,
    ];
    for which in 0..3 {
        for address in wrong {
            disk.negotiate(VERSION_1);
            let mut rings = Rings::empty(0).addresses();
            rings[which] = address;
            disk.give_queue(0, Rings::SIZE.into(), rings);
            disk.set_status(READY);
            disk.notify(0);
            disk.await_broken("a ring that cannot be was taken", address);
        }
    }
    // A ring that fits, but not at the queue's real size.
    disk.negotiate(VERSION_1);
    let mut rings = Rings::empty(0).addresses();
    rings[0] = end - 128;
    disk.give_queue(0, 128, rings);
    disk.set_status(READY);
    disk.await_broken("a table across the end of RAM was taken", 128);
    disk.assert_disk_works();
}

/// Registers written at the wrong time and with wrong values.
pub fn order(boot: &BootParams) {
    let disk = Device::disk(boot);
    // Ready without having agreed on anything.
    disk.set_status(0);
    disk.set_status(1 | 2 | DRIVER_OK);
    disk.await_broken("a device without features was taken", 0);
    // Ready without a queue.
    disk.negotiate(VERSION_1);
    disk.set_status(READY);
    disk.await_broken("a device without a queue was taken", 0);
    // Features nobody offered, and none at all.
    for features in [u64::MAX, 0, VERSION_1 | 1 << 63, VERSION_1 | 1] {
        disk.negotiate(features);
        expect("features nobody offered", (disk.status() & FEATURES_OK).into(), 0);
    }
    // Sizes no queue can have, queues that are not there.
    for size in [0, 3, 129, 256, 0xffff, 0x1_0000, 0x1_0008, u32::MAX] {
        disk.negotiate(VERSION_1);
        disk.give_queue(0, size, Rings::empty(0).addresses());
        disk.set_status(READY);
        disk.notify(0);
        let _ = disk.status();
        disk.write(register::QUEUE_SEL, size | 0x100);
        expect("size of a queue that is not there", disk.read(register::QUEUE_NUM_MAX).into(), 0);
        disk.write(register::QUEUE_READY, 1);
        disk.notify(size);
    }
    // Everything once more while the queue is in use.
    let mut rings = disk.bring_up(0, 1)[0];
    for (name, address) in (0..).zip([0, 1 << 52, boot.ram_end(), disk.address()]) {
        disk.write(register::QUEUE_SEL, 0);
        disk.write(register::QUEUE_NUM, 2 << name);
        disk.write_address(register::QUEUE_DESC, address);
        disk.write_address(register::QUEUE_AVAIL, address);
        disk.write_address(register::QUEUE_USED, address);
        disk.write(register::QUEUE_READY, 0);
        disk.write(register::QUEUE_READY, 1);
        disk.write(register::DRIVER_FEATURES, u32::MAX);
        disk.write(register::INTERRUPT_ACK, u32::MAX);
        disk.write(register::CONFIG, u32::MAX);
        disk.set_status(NEGOTIATED);
        disk.set_status(READY);
        disk.set_status(NEEDS_RESET);
        rings.put_request(0, 0);
        rings.offer(0);
        disk.notify(0);
        while rings.used_index() != name + 1 {
            expect("status of a queue in use", disk.status().into(), READY.into());
        }
        expect("answer in the midst", rings.request_status().into(), 0);
    }
    disk.assert_disk_works();
}

/// Rings that lie over each other, so that what the device writes is what it reads next. Whatever
/// the device makes of it, it must come to an end and answer its registers.
pub fn feedback(boot: &BootParams) {
    let disk = Device::disk(boot);
    for features in [0, EVENT_IDX] {
        // The used ring's 72 bytes and the available ring's 22, in every place to each other.
        for distance in (0..0x60).step_by(2) {
            for above in [true, false] {
                disk.negotiate(VERSION_1 | features);
                let mut rings = Rings::empty(0);
                let [table, _, used] = rings.addresses();
                let available = if above { used + distance } else { used - distance };
                rings.move_available(available);
                // One chain in every place, so that any head is a request.
                (0..2).for_each(|place| rings.put_request(place * 3, 0));
                disk.give_queue(0, Rings::SIZE.into(), [table, available, used]);
                disk.set_status(READY);
                for _ in 0..3 {
                    rings.offer(0);
                    disk.notify(0);
                    disk.look(6);
                }
                // The table over the rings, too.
                disk.negotiate(VERSION_1 | features);
                disk.give_queue(0, Rings::SIZE.into(), [available - 16, available, used]);
                disk.set_status(READY);
                rings.offer(0);
                disk.notify(0);
                disk.look(6);
            }
        }
    }
    disk.assert_disk_works();
}

/// Descriptors that change while the disk looks at them: good and broken ones take turns.
pub fn race(boot: &BootParams, count: u64) {
    let disk = Device::disk(boot);
    let end = boot.ram_end();
    for round in 0..count {
        let mut rings = disk.bring_up(0, 1)[0];
        rings.put_request(0, 0);
        (0..Rings::SIZE).for_each(|_| rings.offer(0));
        disk.notify(0);
        let data = rings.buffers() + 0x200;
        for turn in 0..2000 {
            // The data's descriptor alone: address, length and the way on.
            match (turn + round) % 4 {
                0 => rings.describe(1, (end - 8, 512, NEXT | WRITE, 2)),
                1 => rings.describe(1, (data, u32::MAX, NEXT | WRITE, 1)),
                2 => rings.describe(1, (u64::MAX, 0, INDIRECT | NEXT, 9)),
                _ => rings.put_request(0, 0),
            }
        }
        disk.set_status(0);
    }
    disk.assert_disk_works();
}

/// Descriptors, rings and registers without sense, in every device.
pub fn noise(boot: &BootParams, count: u64) {
    let mut noise = Noise::new(99);
    for round in 0..count {
        for kind in [BLOCK, NET] {
            for device in Device::all(boot, kind) {
                let features = if round % 2 == 0 { 0 } else { EVENT_IDX };
                let mut rings = device.bring_up(features, device.queues());
                let at = rings[0].buffers();
                for _ in 0..16 {
                    let queue = (noise.next() % u64::from(device.queues())) as usize;
                    // Most of it near what is right: it gets further.
                    let wild = noise.next().is_multiple_of(8);
                    let address = if wild {
                        noise.next() << (noise.next() % 33)
                    } else {
                        at + noise.next() % 0x4000
                    };
                    let length = if wild { noise.next() } else { noise.next() % 3000 };
                    rings[queue].describe(
                        noise.next() as u16 % Rings::SIZE,
                        (address, length as u32, noise.next() as u16 & 7, noise.next() as u16 % 9),
                    );
                    match noise.next() % 4 {
                        0 => device.write(noise.next() % 0x108 / 4 * 4, noise.next() as u32),
                        1 => rings[queue].set_available(noise.next() as u16),
                        _ => rings[queue].offer(noise.next() as u16 % (Rings::SIZE + 1)),
                    }
                    device.notify(queue as u32);
                }
                device.set_status(0);
                expect("status after noise", device.status().into(), 0);
            }
        }
    }
    Device::disk(boot).assert_disk_works();
}
