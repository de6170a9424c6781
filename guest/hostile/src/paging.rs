//! Page tables of its own: the first 4 GiB where they are, and above them a window of 2 MiB that can be
//! moved over any guest-physical address there is.

use core::arch::asm;

use crate::cpu::cpuid_eax;

/// Entries of 4-level paging (Intel SDM vol. 3, table 4-15 and on): present, writable, large.
const PRESENT_WRITABLE: u64 = 0x3;
const LARGE: u64 = 0x80;
/// Bytes a large page maps.
pub const WINDOW_BYTES: u64 = 2 << 20;
/// Where the window is: right above what is mapped as it is.
const WINDOW: u64 = 4 << 30;

#[repr(C, align(4096))]
struct Table([u64; 512]);

static mut PML4: Table = Table([0; 512]);
static mut PDPT: Table = Table([0; 512]);
static mut PDS: [Table; 5] = [const { Table([0; 512]) }; 5];

/// Switches to them.
pub fn take_over() {
    let (pml4, pdpt) = (&raw mut PML4, &raw mut PDPT);
    // SAFETY: one CPU, no interrupts: nothing else uses the tables before CR3 points at them. They
    // lie in RAM that is mapped where it is, before and after.
    unsafe {
        (*pml4).0[0] = pdpt as u64 | PRESENT_WRITABLE;
        for gib in 0..5 {
            let pd = (&raw mut PDS).cast::<Table>().add(gib);
            (*pdpt).0[gib] = pd as u64 | PRESENT_WRITABLE;
            if gib < 4 {
                for page in 0..512 {
                    let address = (gib as u64) << 30 | (page as u64) << 21;
                    (*pd).0[page] = address | LARGE | PRESENT_WRITABLE;
                }
            }
        }
        asm!("mov cr3, {}", in(reg) pml4 as u64, options(nostack));
    }
}

/// Moves the window over the 2 MiB around a guest-physical address; says where that address is now.
pub fn look_at(physical: u64) -> u64 {
    // SAFETY: as in `take_over`; the window holds nothing of this program's.
    unsafe {
        let entry = (&raw mut PDS).cast::<Table>().add(4).cast::<u64>();
        let page = physical / WINDOW_BYTES * WINDOW_BYTES;
        entry.write_volatile(page | LARGE | PRESENT_WRITABLE);
        asm!("invlpg [{}]", in(reg) WINDOW, options(nostack));
    }
    WINDOW + physical % WINDOW_BYTES
}

/// Bits of a guest-physical address (CPUID 0x8000_0008): beyond them every access faults.
pub fn physical_bits() -> u32 {
    cpuid_eax(0x8000_0008) & 0xff
}
