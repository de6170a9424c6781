//! What the guest finds in memory when it starts: the zero page with its memory map, the command
//! line, a GDT, an identity mapping and the MP table. This is the 64-bit boot protocol of
//! Documentation/arch/x86/boot.rst, which enters an uncompressed kernel at its ELF entry point.

use linux_loader::{
    configurator::{BootConfigurator, BootParams, linux::LinuxBootConfigurator},
    loader::bootparam::{boot_e820_entry, boot_params},
};
use vm_memory::{Bytes, GuestAddress};

use crate::{
    error::Error,
    layout,
    memory::{self, Memory},
    mptable::mp_table,
};

/// Code segment selector at entry: `__BOOT_CS` of the boot protocol.
pub const CODE_SELECTOR: u16 = 0x10;
/// Data segment selector at entry: `__BOOT_DS` of the boot protocol.
pub const DATA_SELECTOR: u16 = 0x18;
/// Segment descriptors by index (Intel SDM vol. 3, 3.4.5): two unused, then flat 64-bit code
/// (present, ring 0, long, execute/read) and flat data (present, ring 0, 4 GiB, read/write).
pub const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Page table bits (Intel SDM vol. 3, table 4-15 and on): present, writable, large page.
const PRESENT_WRITABLE: u64 = 0x3;
const LARGE: u64 = 0x80;

/// e820 types (arch/x86/include/asm/e820/types.h).
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// An initramfs in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initramfs {
    /// Guest-physical address.
    pub address: u64,
    /// Length, bytes.
    pub length: u64,
}

/// Writes everything the guest expects to find.
///
/// # Errors
/// Guest RAM is smaller than the fixed addresses of [`layout`].
pub fn write(
    memory: &Memory,
    ram_bytes: u64,
    vcpus: u32,
    irqs: &[u32],
    command_line: &str,
    initramfs: Initramfs,
) -> Result<(), Error> {
    let place = |what: &'static str, bytes: &[u8], address: u64| {
        memory
            .write_slice(bytes, GuestAddress(address))
            .map_err(|source| Error::GuestMemory { what, source: Box::new(source) })
    };
    place("the GDT", &little_endian(&GDT), layout::BOOT_GDT)?;
    place(
        "page tables",
        &little_endian(&[layout::BOOT_PDPT | PRESENT_WRITABLE]),
        layout::BOOT_PML4,
    )?;
    place("page tables", &little_endian(&[layout::BOOT_PD | PRESENT_WRITABLE]), layout::BOOT_PDPT)?;
    let large_pages: Vec<u64> =
        (0..512).map(|page| page << 21 | LARGE | PRESENT_WRITABLE).collect();
    place("page tables", &little_endian(&large_pages), layout::BOOT_PD)?;
    place("the command line", command_line.as_bytes(), layout::COMMAND_LINE)?;
    place("the MP table", &mp_table(vcpus, irqs), layout::MP_TABLE)?;
    let params = zero_page(ram_bytes, command_line.len(), initramfs);
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(layout::ZERO_PAGE)),
        memory,
    )
    .map_err(|source| Error::GuestMemory { what: "the zero page", source: Box::new(source) })
}

fn little_endian(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The zero page (Documentation/arch/x86/zero-page.rst; fields of the boot protocol).
fn zero_page(ram_bytes: u64, command_line_len: usize, initramfs: Initramfs) -> boot_params {
    let mut params = boot_params::default();
    params.hdr.boot_flag = 0xaa55;
    params.hdr.header = u32::from_le_bytes(*b"HdrS");
    params.hdr.version = 0x020f;
    params.hdr.type_of_loader = 0xff; // undefined: none of the registered boot loaders
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.cmdline_size = command_line_len as u32;
    params.hdr.ramdisk_image = initramfs.address as u32;
    params.hdr.ramdisk_size = initramfs.length as u32;
    let map = memory_map(ram_bytes);
    params.e820_entries = map.len() as u8;
    params.e820_table[..map.len()].copy_from_slice(&map);
    params
}

/// The memory map: RAM with the MP table and the PC's hole cut out, and the hole for devices.
fn memory_map(ram_bytes: u64) -> Vec<boot_e820_entry> {
    let entry = |start: u64, end: u64, r#type: u32| boot_e820_entry {
        addr: start,
        size: end - start,
        r#type,
    };
    let mut map = vec![
        entry(0, layout::LOW_RAM_END, E820_RAM),
        entry(layout::MP_TABLE, layout::MP_TABLE + layout::MP_TABLE_MAX as u64, E820_RESERVED),
    ];
    let ranges = memory::ranges(ram_bytes);
    map.push(entry(layout::HIGH_RAM_START, ranges[0].end, E820_RAM));
    map.extend(ranges[1..].iter().map(|range| entry(range.start, range.end, E820_RAM)));
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(bytes: u64) -> Vec<(u64, u64, u32)> {
        memory_map(bytes)
            .iter()
            .map(|entry| (entry.addr, entry.addr + entry.size, entry.r#type))
            .collect()
    }

    #[test]
    fn the_memory_map_leaves_the_holes_out() {
        let low = [(0, 0x9_fc00, E820_RAM), (0x9_fc00, 0xa_0000, E820_RESERVED)];
        assert_eq!(map(128 << 20), [&low[..], &[(0x10_0000, 128 << 20, E820_RAM)]].concat());
        assert_eq!(
            map(5 << 30)[2..],
            [(0x10_0000, 0xd000_0000, E820_RAM), (4 << 30, (5 << 30) + 0x3000_0000, E820_RAM)]
        );
    }

    #[test]
    fn everything_is_where_the_protocol_wants_it() {
        let memory = memory::map(64 << 20).unwrap();
        let initramfs = Initramfs { address: 0x3f0_0000, length: 0x1234 };
        write(&memory, 64 << 20, 2, &[4, 5], "console=ttyS0", initramfs).unwrap();
        let read = |address: u64| memory.read_obj::<u32>(GuestAddress(address)).unwrap();
        assert_eq!(read(layout::ZERO_PAGE + 0x202), u32::from_le_bytes(*b"HdrS"));
        assert_eq!(read(layout::ZERO_PAGE + 0x218), 0x3f0_0000);
        assert_eq!(read(layout::ZERO_PAGE + 0x21c), 0x1234);
        assert_eq!(read(layout::ZERO_PAGE + 0x228), layout::COMMAND_LINE as u32);
        assert_eq!(read(layout::BOOT_PML4), 0xa003);
        assert_eq!(read(layout::BOOT_PD + 8), 0x20_0083);
        assert_eq!(read(layout::MP_TABLE), u32::from_le_bytes(*b"_MP_"));
        let mut line = [0xff; 14];
        memory.read_slice(&mut line, GuestAddress(layout::COMMAND_LINE)).unwrap();
        assert_eq!(&line, b"console=ttyS0\0");
    }

    #[test]
    fn too_little_memory_is_an_error() {
        let memory = memory::map(64 << 10).unwrap();
        let initramfs = Initramfs { address: 0, length: 0 };
        assert!(write(&memory, 64 << 10, 1, &[], "", initramfs).is_err());
    }
}
