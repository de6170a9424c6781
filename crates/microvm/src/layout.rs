//! Every guest-physical address, interrupt line and I/O port of the machine, in one place.
//!
//! ```text
//!           0 ┌─────────────────────────┐
//!       0x500 │ GDT of the boot CPU     │  read once, by the first segment load
//!      0x7000 │ zero page (boot_params) │
//!      0x9000 │ boot page tables, 3 × 4K│  identity map of the first GiB
//!     0x20000 │ kernel command line     │
//!     0x9f800 │ ACPI tables             │
//!     0x9fc00 │ MP table                │  last KiB of base memory, where the guest looks for it
//!     0xa0000 ├─────────────────────────┤  no memory, as on a PC
//!    0x100000 │ kernel, at the physical │
//!             │ addresses its ELF asks  │
//!             │ ...                     │
//!             │ initramfs, at the top   │
//!  0xd0000000 ├─────────────────────────┤  3.25 GiB
//!             │ virtio-mmio, 4K a device│
//!  0xfec00000 │ IOAPIC                  │
//!  0xfee00000 │ local APICs             │
//!  0xfffbd000 │ KVM's own TSS (VMX)     │
//! 0x100000000 ├─────────────────────────┤
//!             │ RAM beyond 3.25 GiB     │
//!             └─────────────────────────┘
//! ```

/// The GDT the boot CPU starts with.
pub const BOOT_GDT: u64 = 0x500;
/// `struct boot_params`, which Linux calls the zero page (Documentation/arch/x86/zero-page.rst).
pub const ZERO_PAGE: u64 = 0x7000;
/// Top-level page table of the boot CPU; the next two levels follow, a page each.
pub const BOOT_PML4: u64 = 0x9000;
/// Second-level page table.
pub const BOOT_PDPT: u64 = 0xa000;
/// Third-level page table: 512 entries of 2 MiB.
pub const BOOT_PD: u64 = 0xb000;
/// The kernel command line, ended by a NUL.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Most bytes of command line, the NUL included: COMMAND_LINE_SIZE of arch/x86/include/asm/setup.h.
pub const COMMAND_LINE_MAX: usize = 2048;
/// ACPI's root pointer and the tables behind it, in the same page as the MP table.
pub const ACPI: u64 = 0x9_f800;
/// Bytes they may take.
pub const ACPI_MAX: usize = 0x400;
/// The MP floating pointer and its table: "the last kilobyte of system base memory" of the
/// MultiProcessor Specification 1.4, section 4.
pub const MP_TABLE: u64 = 0x9_fc00;
/// Bytes the MP table may take: up to the end of base memory.
pub const MP_TABLE_MAX: usize = 0x400;
/// End of the memory below the PC's video and ROM area.
pub const LOW_RAM_END: u64 = ACPI;
/// Where memory goes on above that area; kernels are loaded from here on.
pub const HIGH_RAM_START: u64 = 0x10_0000;

/// Where RAM stops and devices begin: 3.25 GiB.
pub const MMIO_GAP_START: u64 = 0xd000_0000;
/// Where RAM goes on: 4 GiB.
pub const MMIO_GAP_END: u64 = 0x1_0000_0000;
/// The first virtio-mmio device; each further one lies [`VIRTIO_SIZE`] higher.
pub const VIRTIO_START: u64 = MMIO_GAP_START;
/// Bytes of one virtio-mmio device: a page, of which the registers take 0x100.
pub const VIRTIO_SIZE: u64 = 0x1000;
/// Physical address of the IOAPIC, fixed in KVM (arch/x86/kvm/ioapic.h).
pub const IOAPIC: u32 = 0xfec0_0000;
/// Physical address of every local APIC after reset (Intel SDM vol. 3, 11.4.1).
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM on Intel CPUs needs to itself (KVM_SET_TSS_ADDR, Documentation/virt/kvm/api.rst).
pub const KVM_TSS: usize = 0xfffb_d000;

/// Serial port of the console: COM1 of a PC, 8 ports.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Interrupt of the console: COM1's.
pub const SERIAL_IRQ: u32 = 4;
/// Command port of the PC's keyboard controller, which can reset the machine.
pub const I8042_COMMAND_PORT: u16 = 0x64;
/// The command that does.
pub const I8042_RESET: u8 = 0xfe;
/// The virtio devices' interrupts: those of the ISA bus no other device here uses. They are edge
/// triggered, as irqfd(2) without a resampler delivers them.
pub const VIRTIO_IRQS: [u32; 8] = [5, 6, 7, 9, 10, 11, 12, 15];

/// Most virtual CPUs: what the one KiB of MP table has room for, with a margin.
pub const MAX_VCPUS: u32 = 32;

/// Guest-physical address of the virtio device with this index.
pub const fn virtio_address(index: usize) -> u64 {
    VIRTIO_START + index as u64 * VIRTIO_SIZE
}

/// The interrupts in use with so many virtio devices.
pub fn irqs(devices: usize) -> Vec<u32> {
    [SERIAL_IRQ].into_iter().chain(VIRTIO_IRQS.into_iter().take(devices)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps() {
        let blocks = [
            (BOOT_GDT, 0x40),
            (ZERO_PAGE, 0x1000),
            (BOOT_PML4, 0x1000),
            (BOOT_PDPT, 0x1000),
            (BOOT_PD, 0x1000),
            (COMMAND_LINE, COMMAND_LINE_MAX as u64),
            (ACPI, ACPI_MAX as u64),
            (MP_TABLE, MP_TABLE_MAX as u64),
            (HIGH_RAM_START, MMIO_GAP_START - HIGH_RAM_START),
            (VIRTIO_START, VIRTIO_SIZE * VIRTIO_IRQS.len() as u64),
            (IOAPIC.into(), 0x1000),
            (LOCAL_APIC.into(), 0x1000),
            (KVM_TSS as u64, 0x3000),
            (MMIO_GAP_END, 1),
        ];
        for pair in blocks.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        assert!(!VIRTIO_IRQS.contains(&SERIAL_IRQ));
        assert!(VIRTIO_IRQS.iter().all(|irq| (3..16).contains(irq)), "ISA interrupts");
    }
}
