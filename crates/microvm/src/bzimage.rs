//! Reads the setup header of a bzImage, the compressed kernel distributions ship: how to place it and
//! where its 64-bit entry point is (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and
//! "64-bit Boot Protocol"). It is booted as it is and decompresses itself in the guest.
//!
//! ```text
//!  file   ├ boot sector ┼ setup code, for BIOSes ┼ protected-mode kernel: syssize × 16 bytes ┤
//!              └ setup header at 0x1f1            │
//!  guest                        pref_address ────►├ +0x200: entry          ┤ … init_size: room to unpack
//! ```

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};

use crate::{error::Error, layout, memory::Memory, memory::PAGE};

/// Where the setup header begins, in the file and in the zero page.
const HEADER_START: usize = 0x1f1;
/// Where it ends at the latest: as much of it as `struct setup_header` has today
/// (arch/x86/include/uapi/asm/bootparam.h).
const HEADER_END: usize = 0x26c;
/// Bytes of a file to look at.
pub const HEAD: usize = HEADER_END;

/// Offsets of its fields.
const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const BOOT_FLAG: usize = 0x1fe;
const JUMP: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const INITRD_ADDR_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE_KERNEL: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;

/// The first version whose header tells of a 64-bit entry point.
const VERSION_XLOADFLAGS: u16 = 0x20c;
/// `loadflags`: the protected-mode kernel goes above 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is a 64-bit entry point at 0x200; it takes data above 4 GiB, too.
const XLF_KERNEL_64: u16 = 1;
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;
/// The 64-bit entry point, from the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// Bytes of a sector, and how many of them hold setup code where the header says 0.
const SECTOR: u64 = 512;
const DEFAULT_SETUP_SECTS: u8 = 4;
/// What the page tables at entry map (`layout::BOOT_PD`): the kernel must unpack itself in there.
const MAPPED: u64 = 1 << 30;

/// A bzImage that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BzImage {
    /// The protected-mode kernel in the file.
    pub code: Range<u64>,
    /// Where it goes in guest memory: its preferred address.
    pub address: u64,
    /// Bytes of guest memory it needs there to unpack itself and run.
    pub init_size: u64,
    /// The setup header, from offset 0x1f1 on, which the zero page takes over.
    header: Vec<u8>,
}

impl BzImage {
    /// Whether a file with these first bytes is a Linux kernel with a setup header.
    pub fn is(head: &[u8]) -> bool {
        head.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
            && head.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
    }

    /// Reads the header of a file of `length` bytes from its first [`HEAD`] bytes, or fewer where there
    /// are no more.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(head: &[u8], length: u64) -> Result<Self, String> {
        let fields = Fields(head);
        let version = fields.u16(VERSION)?;
        if version < VERSION_XLOADFLAGS {
            return Err(format!(
                "a bzImage of boot protocol {}.{:02}, too old: it takes 2.12 (Linux 3.8) or newer",
                version >> 8,
                version & 0xff
            ));
        }
        if fields.u16(XLOADFLAGS)? & XLF_KERNEL_64 == 0 {
            return Err("a 32-bit bzImage; give one for x86-64".to_owned());
        }
        if fields.u8(LOADFLAGS)? & LOADED_HIGH == 0 {
            return Err("a zImage, which loads below 1 MiB; give a bzImage".to_owned());
        }

        let sectors = match fields.u8(SETUP_SECTS)? {
            0 => DEFAULT_SETUP_SECTS,
            sectors => sectors,
        };
        let start = (u64::from(sectors) + 1) * SECTOR;
        let code = start..start + u64::from(fields.u32(SYSSIZE)?) * 16;
        if code.end > length {
            return Err(format!(
                "a bzImage that is cut short: {length} bytes where {} were expected",
                code.end
            ));
        }
        let (address, init_size) = (fields.u64(PREF_ADDRESS)?, fields.u32(INIT_SIZE)?.into());
        let wrong =
            |what: &str| Err(format!("a bzImage whose setup header makes no sense: {what}"));
        if code.end - code.start <= ENTRY_64 || init_size < code.end - code.start {
            return wrong("its size");
        }
        let alignment = u64::from(fields.u32(KERNEL_ALIGNMENT)?);
        let relocatable = fields.u8(RELOCATABLE_KERNEL)? != 0;
        let aligned = address.is_multiple_of(PAGE)
            && (!relocatable || alignment.is_power_of_two() && address.is_multiple_of(alignment));
        let end = address.checked_add(init_size);
        if !aligned || address < layout::HIGH_RAM_START || end.is_none_or(|end| end > MAPPED) {
            return wrong("the address it wants to be loaded at");
        }
        // "The end of setup header can be calculated as 0x0202 + byte value at offset 0x0201."
        let header_end = (MAGIC + usize::from(fields.u8(JUMP)?)).min(HEADER_END);
        if header_end < INIT_SIZE + 4 {
            return wrong("its length");
        }
        let header = head.get(HEADER_START..header_end).ok_or_else(cut_short)?.to_vec();
        Ok(Self { code, address, init_size, header })
    }

    /// Guest-physical address of its first instruction.
    pub fn entry(&self) -> u64 {
        self.address + ENTRY_64
    }

    /// Puts the header into the zero page, for [`crate::boot::write`] to complete.
    ///
    /// # Errors
    /// Guest RAM does not reach that far.
    pub fn place_header(&self, memory: &Memory) -> Result<(), Error> {
        let address = layout::ZERO_PAGE + HEADER_START as u64;
        memory.write_slice(&self.header, GuestAddress(address)).map_err(|source| {
            Error::GuestMemory { what: "the setup header", source: Box::new(source) }
        })
    }
}

/// The limits a setup header sets to what its loader may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of command line, the NUL left out.
    pub command_line: u32,
    /// The highest address of the initramfs's last byte.
    pub initramfs: u64,
}

impl Limits {
    /// Of the zero page in guest memory; none where no kernel put its header there, as `vmlinux` has
    /// none.
    pub fn of(zero_page: &[u8]) -> Option<Self> {
        let fields = Fields(zero_page);
        if !BzImage::is(zero_page) {
            return None;
        }
        let above = fields.u16(XLOADFLAGS).ok()? & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
        Some(Self {
            command_line: fields.u32(CMDLINE_SIZE).ok()?,
            initramfs: if above { u64::MAX } else { fields.u32(INITRD_ADDR_MAX).ok()?.into() },
        })
    }
}

/// Little-endian fields by offset.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], String> {
        self.0.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(cut_short)
    }

    fn u8(&self, offset: usize) -> Result<u8, String> {
        self.bytes(offset).map(u8::from_le_bytes)
    }

    fn u16(&self, offset: usize) -> Result<u16, String> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32, String> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, String> {
        self.bytes(offset).map(u64::from_le_bytes)
    }
}

fn cut_short() -> String {
    "a bzImage that is cut short within its setup header".to_owned()
}

#[cfg(test)]
pub mod tests;
