use std::io::Write;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::memory;

const RAM: u64 = 2 << 20;

/// What was written to guest RAM is in the file, what was not takes no room, and the checksum of
/// both is the same.
#[test]
fn ram_is_stored_where_it_is_not_zero() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::create(directory.path()).unwrap();
    let ram = memory::map(RAM).unwrap();
    ram.write_slice(b"low", GuestAddress(0x3000)).unwrap();
    ram.write_slice(&[7; 9000], GuestAddress(RAM - 9000)).unwrap();
    ram.write_slice(&[0; 4096], GuestAddress(0x8000)).unwrap();
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let pages = || Pages::of_memory(&ram, &pagemap, &[]).unwrap();
    let checksum = pages().write(files.memory(), RAM).unwrap();
    assert_eq!(pages().checksum().unwrap(), checksum);
    let of_file = || Pages::of_file(files.memory(), RAM).unwrap().checksum().unwrap();
    assert_eq!(of_file(), checksum);
    let stored = std::fs::read(directory.path().join("memory")).unwrap();
    assert_eq!(stored.len() as u64, RAM);
    assert_eq!(&stored[0x3000..0x3003], b"low");
    assert!(stored[RAM as usize - 9000..].iter().all(|&byte| byte == 7));
    let blocks = std::os::unix::fs::MetadataExt::blocks(&files.memory().metadata().unwrap());
    assert!(blocks * 512 <= 64 << 10, "{blocks} blocks");
    std::os::unix::fs::FileExt::write_all_at(files.memory(), &[1], 0x3000).unwrap();
    assert_ne!(of_file(), checksum);
}

/// A range that files are mapped to is stored although nobody touched it.
#[test]
fn ram_that_is_a_file_is_stored_untouched() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[9; 4096]).unwrap();
    let ram = memory::map(RAM).unwrap();
    crate::mapping::map_file(&ram, 0x10000, &file, 0, 4096).unwrap();
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let sum = |untouched: &[std::ops::Range<u64>]| {
        Pages::of_memory(&ram, &pagemap, untouched).unwrap().checksum().unwrap()
    };
    let (mapped, without) = (0x10000..0x11000, sum(&[]));
    assert_ne!(sum(std::slice::from_ref(&mapped)), without);
}

#[test]
fn a_state_is_believed_only_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let problem = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        read_state(File::open(&path).unwrap(), &path).unwrap_err().to_string()
    };
    let with = |version: u32, length: u32, checksum: u32, state: &[u8]| {
        let words = [version, length, checksum].map(u32::to_le_bytes).concat();
        [MAGIC.as_slice(), &words, state].concat()
    };
    assert!(problem(b"").contains("truncated"));
    assert!(problem(&[0; 64]).contains("not a snapshot"));
    assert!(problem(&with(9, 0, 0, b"")).contains("of version 9, this program reads version 1"));
    assert!(
        problem(&with(VERSION, 5, 0, b"1234")).contains("4 bytes of state where there should be 5")
    );
    assert!(problem(&with(VERSION, 4, 0, b"1234")).contains("corrupt"));
    let valid = crc32fast::hash(b"1234");
    assert!(problem(&with(VERSION, 4, valid, b"1234")).contains("cannot be decoded"));
}

#[test]
fn a_snapshot_is_never_written_over() {
    let directory = tempfile::tempdir().unwrap();
    Files::create(directory.path()).unwrap();
    assert!(Files::create(directory.path()).unwrap_err().chain().contains("File exists"));
    assert!(Saved::open(&directory.path().join("none")).is_err());
}
