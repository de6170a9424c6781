//! Setup headers good and bad, made up field by field.

use super::*;
use crate::memory;

/// Sectors of setup code and paragraphs of kernel in [`image`].
const SECTS: u8 = 3;
const PARAGRAPHS: u32 = 1000;

fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    bytes[offset..offset + field.len()].copy_from_slice(field);
}

/// A bzImage as Linux 6.1 makes them: boot protocol 2.15, at 16 MiB.
pub fn image() -> Vec<u8> {
    let start = (usize::from(SECTS) + 1) * 512;
    let mut bytes = vec![0; start];
    bytes.extend((0..PARAGRAPHS * 16).map(|index| (index % 253) as u8));
    put(&mut bytes, SETUP_SECTS, &[SECTS]);
    put(&mut bytes, SYSSIZE, &PARAGRAPHS.to_le_bytes());
    put(&mut bytes, BOOT_FLAG, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut bytes, MAGIC, b"HdrS\x0f\x02");
    put(&mut bytes, LOADFLAGS, &[LOADED_HIGH]);
    put(&mut bytes, INITRD_ADDR_MAX, &0x7fff_ffff_u32.to_le_bytes());
    put(&mut bytes, KERNEL_ALIGNMENT, &0x20_0000_u32.to_le_bytes());
    put(&mut bytes, RELOCATABLE_KERNEL, &[1]);
    put(&mut bytes, XLOADFLAGS, &0x7f_u16.to_le_bytes());
    put(&mut bytes, CMDLINE_SIZE, &2047_u32.to_le_bytes());
    put(&mut bytes, PREF_ADDRESS, &0x100_0000_u64.to_le_bytes());
    put(&mut bytes, INIT_SIZE, &0x30_0000_u32.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Result<BzImage, String> {
    BzImage::parse(&bytes[..bytes.len().min(HEAD)], bytes.len() as u64)
}

/// The image with one field changed.
fn problem(offset: usize, field: &[u8]) -> String {
    let mut bytes = image();
    put(&mut bytes, offset, field);
    parse(&bytes).unwrap_err()
}

#[test]
fn a_good_one_is_taken_as_it_says() {
    let bytes = image();
    assert!(BzImage::is(&bytes));
    let kernel = parse(&bytes).unwrap();
    assert_eq!((kernel.address, kernel.entry()), (0x100_0000, 0x100_0200));
    assert_eq!((kernel.code.clone(), kernel.init_size), (2048..2048 + 16000, 0x30_0000));
    assert_eq!(kernel.header, bytes[0x1f1..0x26c]);

    let memory = memory::map(1 << 20).unwrap();
    kernel.place_header(&memory).unwrap();
    let mut page = [0; PAGE as usize];
    memory.read_slice(&mut page, GuestAddress(layout::ZERO_PAGE)).unwrap();
    assert_eq!(page[0x1f1..0x26c], bytes[0x1f1..0x26c]);
    assert!(page[..0x1f1].iter().chain(&page[0x26c..]).all(|&byte| byte == 0));
    assert_eq!(Limits::of(&page), Some(Limits { command_line: 2047, initramfs: u64::MAX }));
    put(&mut page, XLOADFLAGS, &[1]);
    assert_eq!(Limits::of(&page).unwrap().initramfs, 0x7fff_ffff);
    assert_eq!(Limits::of(&[0; 4096]), None);
}

#[test]
fn a_header_ends_where_it_says() {
    let mut bytes = image();
    bytes[JUMP] = 0x62; // the end of init_size: protocol 2.10, but the fields are there
    assert_eq!(parse(&bytes).unwrap().header.len(), 0x264 - 0x1f1);
    bytes[JUMP] = 0xff; // a protocol to come
    assert_eq!(parse(&bytes).unwrap().header.len(), 0x26c - 0x1f1);
    assert!(problem(JUMP, &[0x10]).contains("its length"));
}

#[test]
fn setup_code_of_no_length_is_four_sectors() {
    let mut bytes = image();
    bytes[SETUP_SECTS] = 0;
    bytes.extend([0; 512]);
    assert_eq!(parse(&bytes).unwrap().code.start, 5 * 512);
}

#[test]
fn what_cannot_be_booted_is_told_apart() {
    assert!(problem(VERSION, &[0x05, 0x02]).contains("boot protocol 2.05, too old"));
    assert!(problem(VERSION, &[0x0b, 0x02]).contains("2.11, too old"));
    assert!(problem(XLOADFLAGS, &[0x7e]).contains("32-bit"));
    assert!(problem(LOADFLAGS, &[0]).contains("zImage"));
    assert!(problem(SYSSIZE, &(PARAGRAPHS + 1).to_le_bytes()).contains("cut short: 18048 bytes"));
    assert!(problem(SYSSIZE, &u32::MAX.to_le_bytes()).contains("cut short"));
    assert!(problem(SYSSIZE, &0x20_u32.to_le_bytes()).contains("its size"));
    assert!(problem(INIT_SIZE, &15_999_u32.to_le_bytes()).contains("its size"));
    for address in [0, 0xf_f000, 0x100_0001, 0x110_0000, 0x3fe0_0000, 1 << 30, u64::MAX - 4095] {
        let problem = problem(PREF_ADDRESS, &address.to_le_bytes());
        assert!(problem.contains("the address"), "{address:#x}: {problem}");
    }
    assert!(problem(KERNEL_ALIGNMENT, &0_u32.to_le_bytes()).contains("the address"));
    assert!(problem(INIT_SIZE, &u32::MAX.to_le_bytes()).contains("the address"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = image();
    for length in 0..bytes.len() {
        let head = &bytes[..length.min(HEAD)];
        assert!(BzImage::parse(head, length as u64).is_err(), "{length}");
        assert!(length >= 0x206 || !BzImage::is(head), "{length}");
        let _ = Limits::of(head);
    }
}

/// Every byte of the header with every value; then many at once. What is taken lies where it may.
#[test]
fn no_header_leads_outside() {
    let good = image();
    let check = |bytes: &[u8]| {
        let Ok(kernel) = parse(bytes) else { return false };
        assert!(kernel.code.start >= 1024 && kernel.code.end <= bytes.len() as u64);
        assert!(kernel.code.end - kernel.code.start <= kernel.init_size);
        assert!(kernel.address >= layout::HIGH_RAM_START);
        assert!(kernel.address + kernel.init_size <= MAPPED);
        assert!((kernel.address..kernel.address + kernel.init_size).contains(&kernel.entry()));
        assert!(HEADER_START + kernel.header.len() <= HEADER_END);
        true
    };
    let mut taken = 0;
    for offset in HEADER_START..HEADER_END {
        let mut bytes = good.clone();
        for value in 0..=255 {
            bytes[offset] = value;
            taken += u32::from(check(&bytes));
        }
    }
    assert!(taken > 1000, "most fields are not the loader's concern: {taken}");
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = HEADER_START + (seed >> 33) as usize % (HEADER_END - HEADER_START);
            bytes[offset] = (seed >> 56) as u8;
        }
        check(&bytes);
    }
}
