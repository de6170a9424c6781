//! The disk, driven through its registers.

use std::{io::Write, os::fd::AsRawFd, os::unix::fs::FileExt};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;
use crate::{
    driver::{
        BUFFERS, Driver, Entry, SIZE, VERSION_1, assert_a_turn_ends, assert_hostile_queues_break,
        assert_noise_is_survived, assert_rings_over_each_other_end,
    },
    hostile::assert_any_driver_is_survived,
};

const HEADER_AT: u64 = BUFFERS;
const DATA_AT: u64 = BUFFERS + 0x1000;
const STATUS_AT: u64 = BUFFERS + 0x8000;

/// Four sectors, each filled with its number plus one.
fn file() -> File {
    let mut file = File::from(memfd_create(c"disk", MFdFlags::MFD_CLOEXEC).unwrap());
    (1..=4_u8).for_each(|sector| file.write_all(&[sector; 512]).unwrap());
    file
}

/// A disk that cannot be written, of a file that does not end with a sector.
fn disk() -> Block {
    Block::new(file(), 2048 + 100)
}

fn driver() -> Driver {
    Driver::ready(Box::new(disk()), VERSION_1, 1)
}

/// A disk that can be written, and its file.
fn writable(features: u64) -> (Driver, File) {
    let file = file();
    let disk = Block::writable(file.try_clone().unwrap(), 2048);
    (Driver::ready(Box::new(disk), VERSION_1 | features, 1), file)
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Makes a request of this type at this sector; returns its status and the length told.
fn ask(driver: &mut Driver, kind: u32, sector: u64, parts: &[(u64, u32, bool)]) -> (u8, u32) {
    driver.put(HEADER_AT, &kind.to_le_bytes());
    driver.put(HEADER_AT + 8, &sector.to_le_bytes());
    driver.put(STATUS_AT, &[0xff]);
    let mut chain = vec![(HEADER_AT, 16, false)];
    chain.extend_from_slice(parts);
    chain.push((STATUS_AT, 1, true));
    driver.request(0, &chain);
    (driver.bytes(STATUS_AT, 1)[0], driver.used(0).2)
}

#[test]
fn it_shows_its_size_and_that_it_is_read_only() {
    let driver = driver();
    assert_eq!(driver.read(0x100), 4, "capacity in whole sectors");
    assert_eq!(driver.read(0x008), 2);
    assert_ne!(driver.read(0x010) & 1 << VIRTIO_BLK_F_RO, 0);
}

#[test]
fn sectors_are_read_into_any_pieces() {
    let mut driver = driver();
    let pieces = [(DATA_AT, 100, true), (DATA_AT + 0x400, 700, true), (DATA_AT + 0x800, 224, true)];
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 1, &pieces), (0, 1025));
    assert_eq!(driver.bytes(DATA_AT, 100), [2; 100]);
    let middle = driver.bytes(DATA_AT + 0x400, 700);
    assert_eq!((middle[411], middle[412]), (2, 3));
    assert_eq!(driver.bytes(DATA_AT + 0x800, 224), [3; 224]);
    assert_eq!(driver.interrupts.0.get(), 1);
}

#[test]
fn header_and_status_may_share_descriptors_with_data() {
    let mut driver = driver();
    driver.put(HEADER_AT, &[0; 16]);
    driver.request(0, &[(HEADER_AT, 5, false), (HEADER_AT + 5, 11, false), (DATA_AT, 513, true)]);
    assert_eq!(driver.bytes(DATA_AT, 513)[510..], [1, 1, 0]);
    assert_eq!(driver.used(0), (1, 0, 513));
}

#[test]
fn an_indirect_request_is_served() {
    let mut driver = driver();
    let table = BUFFERS + 0x4000;
    driver.put(HEADER_AT, &[0; 16]);
    driver.describe_at(table, 0, Entry { address: HEADER_AT, length: 16, flags: 1, next: 1 });
    driver.describe_at(table, 1, Entry { address: DATA_AT, length: 512, flags: 3, next: 2 });
    driver.describe_at(table, 2, Entry { address: STATUS_AT, length: 1, flags: 2, next: 0 });
    driver.describe(0, 3, Entry { address: table, length: 48, flags: 4, next: 0 });
    driver.offer(0, 3);
    assert_eq!(driver.used(0), (1, 3, 513));
    assert_eq!(driver.bytes(DATA_AT, 512), [1; 512]);
}

#[test]
fn what_cannot_be_done_is_told_in_the_status() {
    let mut driver = driver();
    let sector = [(DATA_AT, 512, true)];
    let long = [(DATA_AT, 1024, true)];
    let odd = [(DATA_AT, 511, true)];
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 4, &sector), (1, 1), "beyond the end");
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 3, &long), (1, 1), "across the end");
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, u64::MAX, &sector), (1, 1), "far beyond the end");
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 0, &odd), (1, 1), "no whole sector");
    assert_eq!(
        ask(&mut driver, VIRTIO_BLK_T_OUT, 0, &[(DATA_AT, 512, false)]),
        (1, 1),
        "read-only"
    );
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]), (0, 1));
    assert_eq!(ask(&mut driver, 77, 0, &[]), (2, 1), "unknown");
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_GET_ID, 0, &[(DATA_AT, 20, true)]), (0, 21));
    assert!(driver.bytes(DATA_AT, 20).starts_with(b"compare-root"));
    assert!(!driver.is_broken());
}

#[test]
fn a_file_that_became_shorter_is_an_error_to_the_guest_only() {
    let mut block = disk();
    block.file.set_len(512).unwrap();
    block.file.flush().unwrap();
    let mut driver = Driver::ready(Box::new(block), VERSION_1, 1);
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 0, &[(DATA_AT, 512, true)]), (0, 513));
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 1, &[(DATA_AT, 512, true)]), (1, 1));
}

#[test]
fn requests_without_room_break_the_device() {
    for parts in [
        &[(HEADER_AT, 16, false)][..],
        &[(HEADER_AT, 15, false), (STATUS_AT, 1, true)],
        &[(STATUS_AT, 1, true)],
    ] {
        let mut driver = driver();
        driver.request(0, parts);
        assert!(driver.is_broken(), "{parts:x?}");
    }
}

#[test]
fn sectors_are_written_from_any_pieces() {
    for features in [0, 1 << VIRTIO_BLK_F_FLUSH] {
        let (mut driver, file) = writable(features);
        assert_eq!(driver.read(0x010) & 1 << VIRTIO_BLK_F_RO, 0);
        driver.put(DATA_AT, &[8; 512]);
        driver.put(DATA_AT + 0x800, &[9; 512]);
        let pieces = [(DATA_AT, 500, false), (DATA_AT + 0x800, 512, false), (DATA_AT, 12, false)];
        assert_eq!(ask(&mut driver, VIRTIO_BLK_T_OUT, 2, &pieces), (0, 1));
        assert_eq!(ask(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]), (0, 1));
        let bytes = content(&file);
        assert_eq!((bytes[1023], bytes[1024], bytes[1523]), (2, 8, 8));
        assert_eq!((bytes[1524], bytes[2035], bytes[2036]), (9, 9, 8));
        assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 3, &[(DATA_AT, 512, true)]), (0, 513));
        assert_eq!(driver.bytes(DATA_AT, 512)[..], bytes[1536..]);
    }
}

#[test]
fn header_and_data_may_share_a_descriptor() {
    let (mut driver, file) = writable(0);
    driver.put(HEADER_AT, &[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    driver.put(HEADER_AT + 16, &[6; 512]);
    driver.request(0, &[(HEADER_AT, 528, false), (STATUS_AT, 1, true)]);
    assert_eq!(driver.used(0), (1, 0, 1));
    assert_eq!(content(&file)[1535..], [&[3][..], &[6; 512]].concat());
}

#[test]
fn nothing_is_written_beyond_the_end_or_in_parts_of_sectors() {
    let (mut driver, file) = writable(0);
    let sector = [(DATA_AT, 512, false)];
    let long = [(DATA_AT, 1024, false)];
    for (sector, parts) in [(4, &sector), (3, &long), (u64::MAX, &sector), (u64::MAX / 512, &long)]
    {
        assert_eq!(ask(&mut driver, VIRTIO_BLK_T_OUT, sector, parts), (1, 1), "{sector:#x}");
    }
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_OUT, 0, &[(DATA_AT, 511, false)]), (1, 1));
    assert!(!driver.is_broken());
    assert_eq!(file.metadata().unwrap().len(), 2048);
    assert_eq!((content(&file)[0], content(&file)[2047]), (1, 4));
}

#[test]
fn what_the_host_refuses_to_write_is_an_error_to_the_guest() {
    let whole = file();
    let file = File::open(format!("/proc/self/fd/{}", whole.as_raw_fd())).unwrap();
    let mut driver = Driver::ready(Box::new(Block::writable(file, 2048)), VERSION_1, 1);
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_OUT, 0, &[(DATA_AT, 512, false)]), (1, 1));
    assert!(!driver.is_broken());
}

#[test]
fn a_snapshot_is_of_one_size_of_disk() {
    assert_eq!(disk().restore(&disk().save()), Ok(()));
    assert_eq!(Block::new(file(), 1024).restore(&disk().save()), Err("capacity"));
    assert_eq!(disk().restore(&[]), Err("capacity"));
}

#[test]
fn hostile_queues_break_the_device_only() {
    assert_hostile_queues_break(driver, 0);
    assert_hostile_queues_break(|| writable(0).0, 0);
    assert_noise_is_survived(driver, 1);
    let status = Entry { address: BUFFERS + 100, length: 1, flags: 2, next: 0 };
    let request = [Entry { address: BUFFERS, length: 16, flags: 1, next: 1 }, status];
    for features in [VERSION_1, VERSION_1 | 1 << 29] {
        assert_rings_over_each_other_end(driver, features, 0, &request);
    }
}

#[test]
fn any_driver_is_survived() {
    assert_any_driver_is_survived(1, || (Box::new(disk()), Box::new(())));
    assert_any_driver_is_survived(1, || (Box::new(Block::writable(file(), 2048)), Box::new(())));
}

/// What is read lands in the ring of the driver and in the header of the request: the disk asks itself
/// for sector after sector.
#[test]
fn a_disk_that_feeds_its_own_queue_takes_turns() {
    const SECTORS: u16 = 1000;
    let ring = Driver::available_ring(0);
    let header_at = ring + 64;
    let mut file = File::from(memfd_create(c"disk", MFdFlags::MFD_CLOEXEC).unwrap());
    for sector in 0..SECTORS {
        let mut bytes = [0; 512];
        bytes[2..4].copy_from_slice(&(sector + 2).to_le_bytes());
        bytes[64 + 8..64 + 10].copy_from_slice(&(sector + 1).to_le_bytes());
        file.write_all(&bytes).unwrap();
    }
    let disk = Block::new(file, u64::from(SECTORS) * 512);
    let mut driver = Driver::ready(Box::new(disk), VERSION_1, 1);
    driver.put(header_at, &[0; 16]);
    driver.describe(0, 0, Entry { address: header_at, length: 16, flags: 1, next: 1 });
    driver.describe(0, 1, Entry { address: ring, length: 512, flags: 3, next: 2 });
    driver.describe(0, 2, Entry { address: STATUS_AT, length: 1, flags: 2, next: 0 });
    driver.set_available(0, 1);
    let mut turns = 1;
    while driver.device.serve(0) {
        assert_eq!(driver.used(0).0, turns * SIZE, "turn {turns}");
        turns += 1;
    }
    // The last one asks for a sector behind the end.
    assert_eq!((driver.used(0).0, turns), (SECTORS + 1, SECTORS / SIZE + 1));
    assert!(!driver.is_broken());
}

#[test]
fn a_turn_ends() {
    let (driver, _) = writable(0);
    driver.put(HEADER_AT, &VIRTIO_BLK_T_GET_ID.to_le_bytes());
    let header = Entry { address: HEADER_AT, length: 16, flags: 1, next: 1 };
    let rest = Entry { address: DATA_AT, length: 21, flags: 2, next: 0 };
    assert_a_turn_ends(driver, 0, &[header, rest]);
}
