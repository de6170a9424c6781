//! What the guest finds in memory when it starts: the zero page with its memory map, the command
//! line, a GDT, an identity mapping, the MP table and ACPI's. This is the 64-bit boot protocol of
//! Documentation/arch/x86/boot.rst, which enters an uncompressed kernel at its ELF entry point and a
//! bzImage at its own; the latter's setup header is in the zero page already (`KernelFile::load`).

use linux_loader::{
    configurator::{BootConfigurator, BootParams, linux::LinuxBootConfigurator},
    loader::bootparam::{boot_e820_entry, boot_params},
};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use crate::{
    acpi, bzimage,
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
/// Guest RAM is smaller than the fixed addresses of [`layout`], or the kernel's setup header does not
/// allow for a command line that long or an initramfs that high.
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
    place("the ACPI tables", &acpi::tables(vcpus), layout::ACPI)?;
    let mut params: boot_params = memory
        .read_obj(GuestAddress(layout::ZERO_PAGE))
        .map_err(|source| Error::GuestMemory { what: "the zero page", source: Box::new(source) })?;
    complete_zero_page(&mut params, ram_bytes, command_line.len(), initramfs)?;
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(layout::ZERO_PAGE)),
        memory,
    )
    .map_err(|source| Error::GuestMemory { what: "the zero page", source: Box::new(source) })
}

fn little_endian(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Completes the zero page (Documentation/arch/x86/zero-page.rst; fields of the boot protocol). All of
/// it is zero so far, but for the setup header of a kernel that has one: that stays as it is where it
/// is not the loader's to write.
fn complete_zero_page(
    params: &mut boot_params,
    ram_bytes: u64,
    command_line_len: usize,
    initramfs: Initramfs,
) -> Result<(), Error> {
    match bzimage::Limits::of(params.as_slice()) {
        Some(limits) => {
            let most = limits.command_line as usize;
            if command_line_len > most {
                return Err(Error::CommandLine { length: command_line_len, most });
            }
            if (initramfs.address + initramfs.length).saturating_sub(1) > limits.initramfs {
                let most = limits.initramfs;
                let source = format!("the kernel takes none above {most:#x}: less memory helps");
                return Err(Error::GuestMemory { what: "the initramfs", source: source.into() });
            }
        }
        None => {
            params.hdr.boot_flag = 0xaa55;
            params.hdr.header = u32::from_le_bytes(*b"HdrS");
            params.hdr.version = 0x020f;
            params.hdr.cmdline_size = command_line_len as u32;
        }
    }
    params.acpi_rsdp_addr = layout::ACPI;
    params.hdr.type_of_loader = 0xff; // undefined: none of the registered boot loaders
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.ramdisk_image = initramfs.address as u32;
    params.hdr.ramdisk_size = initramfs.length as u32;
    let map = memory_map(ram_bytes);
    params.e820_entries = map.len() as u8;
    params.e820_table[..map.len()].copy_from_slice(&map);
    Ok(())
}

/// The memory map: RAM with the tables and the PC's hole cut out, and the hole for devices.
fn memory_map(ram_bytes: u64) -> Vec<boot_e820_entry> {
    let entry = |start: u64, end: u64, r#type: u32| boot_e820_entry {
        addr: start,
        size: end - start,
        r#type,
    };
    let mut map = vec![
        entry(0, layout::LOW_RAM_END, E820_RAM),
        entry(layout::ACPI, layout::MP_TABLE + layout::MP_TABLE_MAX as u64, E820_RESERVED),
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
        let low = [(0, 0x9_f800, E820_RAM), (0x9_f800, 0xa_0000, E820_RESERVED)];
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
    fn a_setup_header_stays_and_its_limits_hold() {
        let header = crate::bzimage::tests::image();
        let write = |command_line: &str, xloadflags: u8, initramfs: Initramfs| {
            let memory = memory::map(64 << 20).unwrap();
            let place = |offset: u64, bytes: &[u8]| {
                memory.write_slice(bytes, GuestAddress(layout::ZERO_PAGE + offset)).unwrap();
            };
            place(0x1f1, &header[0x1f1..0x26c]);
            place(0x236, &[xloadflags]);
            write(&memory, 64 << 20, 1, &[4], command_line, initramfs).map(|()| memory)
        };
        let low = Initramfs { address: 0x3f0_0000, length: 0x1000 };
        let high = Initramfs { address: 0x7fff_f000, length: 0x1001 };
        let memory = write("quiet", 1, low).unwrap();
        let read =
            |offset: u64| memory.read_obj::<u32>(GuestAddress(layout::ZERO_PAGE + offset)).unwrap();
        assert_eq!((read(0x218), read(0x21c)), (0x3f0_0000, 0x1000));
        assert_eq!((read(0x230), read(0x238)), (0x20_0000, 2047), "the kernel's own");
        assert_eq!(read(0x210) & 0xffff, 0x01ff, "undefined loader, loaded high");
        let long = write(&"x".repeat(2048), 1, low).unwrap_err();
        assert!(matches!(long, Error::CommandLine { length: 2048, most: 2047 }));
        let text = write("", 1, high).unwrap_err().chain();
        assert!(text.contains("the initramfs") && text.contains("none above 0x7fffffff"), "{text}");
        assert!(write("", 3, high).is_ok(), "it takes one anywhere");
    }

    #[test]
    fn too_little_memory_is_an_error() {
        let memory = memory::map(64 << 10).unwrap();
        let initramfs = Initramfs { address: 0, length: 0 };
        assert!(write(&memory, 64 << 10, 1, &[], "", initramfs).is_err());
    }
}
