//! Kernels good and bad, made up byte by byte.

use super::*;
use crate::memory;

/// A file that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bytes: &[u8]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(format!("compare-microvm-kernel-{}-{number}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An ELF file with one segment of `body` at this file offset and physical address.
fn elf_file(offset: u64, address: u64, body: &[u8], memsz: u64) -> Vec<u8> {
    let mut header = elf::Elf64_Ehdr::default();
    header.e_ident[..6].copy_from_slice(&ELF64_LITTLE_ENDIAN);
    header.e_machine = elf::EM_X86_64;
    header.e_entry = address;
    header.e_phoff = 64;
    header.e_phnum = 1;
    header.e_phentsize = 56;
    let segment = elf::Elf64_Phdr {
        p_type: elf::PT_LOAD,
        p_offset: offset,
        p_paddr: address,
        p_filesz: body.len() as u64,
        p_memsz: memsz,
        ..Default::default()
    };
    let mut bytes = header.as_slice().to_vec();
    bytes.extend_from_slice(segment.as_slice());
    bytes.resize(offset as usize, 0xee);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&[0xee; 100]); // what follows must not reach the guest
    bytes
}

fn problem(bytes: &[u8]) -> String {
    let file = Scratch::new(bytes);
    KernelFile::open(&file.0).unwrap_err().chain()
}

#[test]
fn segments_land_where_they_ask_whatever_their_alignment() {
    let body: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8).collect();
    for (offset, address) in
        [(0x1000, 0x20_0000), (0x1010, 0x20_0010), (0x1008, 0x20_0000), (0x1ff0, 0x20_0ff0)]
    {
        let file = Scratch::new(&elf_file(offset, address, &body, 20_000));
        let kernel = KernelFile::open(&file.0).unwrap();
        let memory = memory::map(4 << 20).unwrap();
        assert_eq!(kernel.load(&memory).unwrap(), Kernel { entry: address, end: address + 20_000 });
        let mut seen = vec![0; body.len() + 200];
        memory.read_slice(&mut seen, GuestAddress(address - 100)).unwrap();
        assert_eq!(seen[100..100 + body.len()], body);
        assert!(seen[..100].iter().chain(&seen[100 + body.len()..]).all(|&byte| byte == 0));
    }
}

#[test]
fn a_bzimage_is_one_segment_with_its_header_in_the_zero_page() {
    let bytes = crate::bzimage::tests::image();
    let file = Scratch::new(&bytes);
    let kernel = KernelFile::open(&file.0).unwrap();
    let memory = memory::map(32 << 20).unwrap();
    let expected = Kernel { entry: 0x100_0200, end: 0x130_0000 };
    assert_eq!((kernel.load(&memory).unwrap(), kernel.end()), (expected, expected.end));
    let mut seen = vec![0; 16_000];
    memory.read_slice(&mut seen, GuestAddress(0x100_0000)).unwrap();
    assert_eq!(seen, bytes[2048..]);
    let magic: u32 = memory.read_obj(GuestAddress(layout::ZERO_PAGE + 0x202)).unwrap();
    assert_eq!(magic, u32::from_le_bytes(*b"HdrS"));
    assert!(problem(&bytes[..5000]).contains("cut short: 5000 bytes where 18048"));
}

#[test]
fn what_is_no_kernel_is_told_apart() {
    assert!(problem(b"#!/bin/sh\n").contains("too short"));
    assert!(problem(&[0x4d; 4096]).contains("no 64-bit ELF"));
    let good = elf_file(0x1000, 0x20_0000, &[1; 5000], 5000);
    assert!(problem(&good[..0x1800]).contains("cut short"));
    assert!(
        problem(&good[..70]).contains("read") || problem(&good[..64]).contains("outside the file")
    );
    assert!(problem(&elf_file(0x1000, 0x1000, &[1; 50], 50)).contains("no RAM"));
    assert!(problem(&elf_file(0x1000, u64::MAX - 10, &[1; 50], 50)).contains("no RAM"));
    assert!(problem(&elf_file(0x1000, 0x20_0000, &[1; 50], 10)).contains("no RAM"));
    let mut other = good.clone();
    other[18] = 183; // EM_AARCH64
    assert!(problem(&other).contains("machine 183"));
    let mut outside = good.clone();
    outside[24] = 0xff; // the entry's low byte stays inside, its next one does not
    outside[26] = 0xff;
    assert!(problem(&outside).contains("entry point"));
    assert!(KernelFile::open(Path::new("/no/kernel")).unwrap_err().chain().contains("/no/kernel"));
}

#[test]
fn any_header_is_refused_or_loaded_but_never_a_panic() {
    let good = elf_file(0x1000, 0x20_0000, &[1; 5000], 5000);
    let memory = memory::map(4 << 20).unwrap();
    let mut seed = 1_u64;
    for _ in 0..500 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes[(seed >> 33) as usize % 120] = (seed >> 56) as u8;
        }
        let file = Scratch::new(&bytes);
        if let Ok(kernel) = KernelFile::open(&file.0) {
            let _ = kernel.load(&memory);
        }
    }
}
