//! The balloon, and what the host's kernel says of the pages behind it.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::*;
use crate::{
    driver::{
        BUFFERS, Driver, Entry, RAM, VERSION_1, assert_a_turn_ends, assert_hostile_queues_break,
    },
    hostile::assert_any_driver_is_survived,
    transport::Transport,
};

const REPORTING: u64 = 1 << VIRTIO_BALLOON_F_REPORTING;

fn driver() -> (Driver, Control) {
    let (balloon, control) = Balloon::new().unwrap();
    (Driver::ready(Box::new(balloon), VERSION_1 | REPORTING, 3), control)
}

/// Whether the host holds a page of the guest's (mincore(2) tells of private pages as well).
fn is_there(memory: &Memory, page: u64) -> bool {
    let address = memory.get_host_address(GuestAddress(page * PAGE)).unwrap();
    let mut resident = [0_u8];
    #[allow(unsafe_code)]
    // SAFETY: one page of a mapping, and room for the answer about it.
    let result = unsafe { libc::mincore(address.cast(), PAGE as usize, resident.as_mut_ptr()) };
    assert_eq!(result, 0);
    resident[0] & 1 == 1
}

fn touch(memory: &Memory, pages: std::ops::Range<u64>) {
    pages.for_each(|page| memory.write_obj(7_u8, GuestAddress(page * PAGE)).unwrap());
}

fn there(memory: &Memory, pages: std::ops::Range<u64>) -> Vec<u64> {
    pages.filter(|&page| is_there(memory, page)).collect()
}

/// A request that lists these pages.
fn list(driver: &mut Driver, queue: usize, pages: &[u32]) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.put(BUFFERS, &bytes);
    driver.request(queue, &[(BUFFERS, bytes.len() as u32, false)]);
}

#[test]
fn a_target_reaches_the_driver() {
    let (mut driver, control) = driver();
    assert_eq!((driver.read(0x100), driver.read(0x0fc)), (0, 0));
    control.set_target_pages(300);
    assert!(driver.device.watched().is_some());
    driver.device.handle_event();
    assert_eq!(
        (driver.read(0x100), driver.read(0x0fc)),
        (300, 1),
        "and the generation has changed"
    );
    assert_eq!(driver.read(0x060), 2, "a change of configuration");
    driver.device.handle_event();
    assert_eq!(driver.read(0x0fc), 1, "nothing new");
    driver.write(0x104, 299);
    assert_eq!((driver.read(0x104), control.actual_pages()), (299, 299));
    driver.write(0x100, 5);
    driver.device.write(0x106, &[0; 8]);
    driver.device.write(u64::MAX, &[1; 2]);
    assert_eq!(driver.read(0x100), 300, "the target is not the driver's to write");
}

#[test]
fn a_target_set_before_the_driver_is_ready_is_there_when_it_is() {
    let (balloon, control) = Balloon::new().unwrap();
    control.set_target_pages(12);
    let driver = Driver::ready(Box::new(balloon), VERSION_1, 2);
    assert_eq!(driver.read(0x100), 12);
}

#[test]
fn pages_given_up_are_the_hosts() {
    let (mut driver, control) = driver();
    touch(&driver.memory, 0x40..0x50);
    list(&mut driver, INFLATE, &[0x44, 0x43, 0x48, 0x49]);
    assert_eq!(driver.used(INFLATE), (1, 0, 0));
    let stayed: Vec<u64> = [0x40..0x43, 0x45..0x48, 0x4a..0x50].into_iter().flatten().collect();
    assert_eq!(there(&driver.memory, 0x40..0x50), stayed);
    assert_eq!(control.reclaimed_bytes(), 4 * PAGE);
    list(&mut driver, DEFLATE, &[0x44, 0x43]);
    assert_eq!(driver.bytes(0x44 * PAGE, 1), [0], "a page taken back is a new one");
    assert_eq!(driver.used(DEFLATE).0, 1);
}

#[test]
fn free_pages_are_the_hosts_and_parts_of_pages_are_not() {
    let (mut driver, control) = driver();
    touch(&driver.memory, 0x40..0x50);
    let parts = [(0x41 * PAGE, 0x3000, true), (0x46 * PAGE + 8, 0x2000, true)];
    driver.request(REPORT, &parts);
    let stayed: Vec<u64> = [0x40..0x41, 0x44..0x47, 0x48..0x50].into_iter().flatten().collect();
    assert_eq!(there(&driver.memory, 0x40..0x50), stayed);
    assert_eq!(control.reclaimed_bytes(), 4 * PAGE);
    driver.request(REPORT, &[(0x40 * PAGE + 1, 0x1000, true)]);
    assert!(is_there(&driver.memory, 0x40) && is_there(&driver.memory, 0x50 - 1));
    assert_eq!(driver.used(REPORT).0, 2);
}

#[test]
fn a_shared_mapping_gives_its_pages_back_too() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = std::fs::File::from(memfd_create(c"ram", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(16 * PAGE).unwrap();
    let offset = vm_memory::FileOffset::new(file.try_clone().unwrap(), 0);
    let memory =
        Memory::from_ranges_with_files([(GuestAddress(0), 16 * PAGE as usize, Some(offset))])
            .unwrap();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    touch(&memory, 0..16);
    assert_eq!(blocks(), 16 * 8);
    pages::discard(&memory, 4 * PAGE, 8 * PAGE).unwrap();
    assert_eq!(blocks(), 8 * 8);
    assert!(pages::discard(&memory, 15 * PAGE, 2 * PAGE).is_err());
}

#[test]
fn a_stretch_over_two_regions_is_dropped_and_a_hole_is_not() {
    let size = 4 * PAGE as usize;
    let ranges = [0, 4 * PAGE, 16 * PAGE].map(|start| (GuestAddress(start), size));
    let memory = Memory::from_ranges(&ranges).unwrap();
    touch(&memory, 0..8);
    pages::discard(&memory, 2 * PAGE, 4 * PAGE).unwrap();
    assert_eq!(there(&memory, 0..8), [0, 1, 6, 7]);
    assert!(pages::discard(&memory, 6 * PAGE, 4 * PAGE).is_err());
}

#[test]
fn pages_and_lists_that_cannot_be_break_the_device() {
    let lists: &[&[(u64, u32, bool)]] = &[
        &[(BUFFERS, 6, false)],
        &[(BUFFERS, 4, true)],
        &[(BUFFERS, MOST_PAGES as u32 * 4 + 4, false)],
    ];
    for parts in lists {
        let (mut driver, _) = driver();
        driver.request(INFLATE, parts);
        assert!(driver.is_broken(), "{parts:x?}");
    }
    for page in [(RAM / PAGE) as u32, u32::MAX] {
        let (mut driver, _) = driver();
        list(&mut driver, INFLATE, &[0x40, page]);
        assert!(driver.is_broken(), "{page:#x}");
    }
    let (mut driver, _) = driver();
    driver.request(REPORT, &[(BUFFERS, 4096, false)]);
    assert!(driver.is_broken());
}

#[test]
fn a_driver_may_do_without_reports() {
    let (balloon, _control) = Balloon::new().unwrap();
    let mut driver = Driver::ready(Box::new(balloon), VERSION_1, 2);
    driver.request(REPORT, &[(BUFFERS, 4096, true)]);
    assert_eq!((driver.used(REPORT).0, driver.is_broken()), (0, false), "a queue nobody set up");
    let (balloon, _control) = Balloon::new().unwrap();
    let mut driver = Driver::new(Box::new(balloon));
    driver.negotiate(VERSION_1 | REPORTING);
    (0..2).for_each(|queue| driver.set_up_queue(queue));
    driver.write(0x070, 15);
    assert!(driver.is_broken(), "it wanted reports");
}

#[test]
fn target_and_pages_outlive_a_snapshot_and_pages_no_reset() {
    let (mut driver, control) = driver();
    control.set_target_pages(40);
    driver.device.handle_event();
    driver.write(0x104, 30);
    let state = driver.device.save();
    let (balloon, other) = Balloon::new().unwrap();
    let (memory, line) = (driver.memory.clone(), driver.interrupts.clone());
    driver.device = Transport::restore(Box::new(balloon), memory, line, &state).unwrap();
    assert_eq!((driver.read(0x100), driver.read(0x104)), (40, 30));
    assert_eq!((other.target_pages(), other.actual_pages()), (40, 30));
    driver.write(0x070, 0);
    assert_eq!((other.target_pages(), other.actual_pages()), (40, 0));
    assert_eq!(Balloon::new().unwrap().0.restore(&[0; 7]), Err("length"));
}

#[test]
fn any_driver_is_survived() {
    (0..3).for_each(|queue| assert_hostile_queues_break(|| driver().0, queue));
    assert_any_driver_is_survived(3, || {
        let (balloon, control) = Balloon::new().unwrap();
        control.set_target_pages(9);
        (Box::new(balloon), Box::new(control))
    });
}

#[test]
fn turns_end() {
    for (queue, length, flags) in [(INFLATE, 4, 0), (DEFLATE, 4, 0), (REPORT, 4096, 2)] {
        let (driver, _control) = driver();
        driver.put(BUFFERS, &100_u32.to_le_bytes());
        let pages = Entry { address: BUFFERS, length, flags, next: 0 };
        assert_a_turn_ends(driver, queue, &[pages]);
    }
}
