//! The MP table: how a guest without ACPI learns of its CPUs and of the IOAPIC's wiring
//! (Intel MultiProcessor Specification 1.4, chapter 4; its tables are cited below).

use crate::layout;

/// Version of KVM's local APICs and IOAPIC (arch/x86/kvm/lapic.c: 0x14; ioapic.h: 0x11).
const LOCAL_APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
/// Specification revision 1.4.
const SPEC_REVISION: u8 = 4;

/// Entry types (table 4-3).
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IOAPIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// Kinds of interrupt (table 4-10).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

/// Every local APIC.
const ALL: u8 = 0xff;

/// The bytes of floating pointer and table for this many CPUs, to be placed at
/// [`layout::MP_TABLE`]. `irqs` are the interrupts in use: the guest programs an IOAPIC entry for
/// each that is listed, an exit apiece, so none is listed in vain.
pub fn mp_table(vcpus: u32, irqs: &[u32]) -> Vec<u8> {
    let ioapic_id = vcpus as u8;
    let mut entries = Vec::new();
    let mut count = 0_u16;
    let mut entry = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for id in 0..vcpus as u8 {
        // Table 4-4: usable, and the first is the boot processor. Signature and features are left
        // to CPUID, which every guest of ours reads.
        let flags = 1 | u8::from(id == 0) << 1;
        let mut processor = [0; 20];
        processor[..4].copy_from_slice(&[PROCESSOR, id, LOCAL_APIC_VERSION, flags]);
        entry(&processor);
    }
    entry(b"\x01\x00ISA   "); // Table 4-6: BUS, bus id 0, its name
    debug_assert_eq!(BUS, 1);
    let [a, b, c, d] = layout::IOAPIC.to_le_bytes();
    entry(&[IOAPIC, ioapic_id, IOAPIC_VERSION, 1, a, b, c, d]);
    for &irq in irqs {
        // Polarity and trigger as the bus has them (flags 0): on ISA edge and active high.
        entry(&[IO_INTERRUPT, INT, 0, 0, 0, irq as u8, ioapic_id, irq as u8]);
    }
    entry(&[LOCAL_INTERRUPT, EXT_INT, 0, 0, 0, 0, 0, 0]);
    entry(&[LOCAL_INTERRUPT, NMI, 0, 0, 0, 0, ALL, 1]);

    // Table 4-2, the header.
    let mut table = Vec::with_capacity(44 + entries.len());
    table.extend_from_slice(b"PCMP");
    table.extend_from_slice(&(44 + entries.len() as u16).to_le_bytes());
    table.extend_from_slice(&[SPEC_REVISION, 0]);
    table.extend_from_slice(b"COMPARE MICROVM     "); // OEM id of 8 bytes, product id of 12
    table.extend_from_slice(&[0; 6]); // no OEM table
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&layout::LOCAL_APIC.to_le_bytes());
    table.extend_from_slice(&[0; 4]); // no extended entries
    table.extend_from_slice(&entries);
    table[7] = checksum(&table);

    // Table 4-1, the floating pointer; the table follows it directly.
    let mut bytes = b"_MP_".to_vec();
    bytes.extend_from_slice(&(layout::MP_TABLE as u32 + 16).to_le_bytes());
    bytes.extend_from_slice(&[1, SPEC_REVISION, 0, 0, 0, 0, 0, 0]); // length in units of 16
    bytes[10] = checksum(&bytes);
    bytes.extend_from_slice(&table);
    bytes
}

/// The byte that makes the sum of all zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
    }

    #[test]
    fn both_parts_add_up_to_zero_for_any_number_of_cpus() {
        for vcpus in 1..=layout::MAX_VCPUS {
            let bytes = mp_table(vcpus, &[4, 5, 6]);
            let (pointer, table) = bytes.split_at(16);
            assert_eq!(&pointer[..4], b"_MP_");
            assert_eq!(&table[..4], b"PCMP");
            assert_eq!((sum(pointer), sum(table)), (0, 0));
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let entries = u16::from_le_bytes([table[34], table[35]]);
            assert_eq!(u32::from(entries), vcpus + 2 + 3 + 2);
            assert_eq!(table.len(), 44 + 20 * vcpus as usize + 7 * 8);
        }
    }

    #[test]
    fn the_largest_table_fits_its_place() {
        let irqs: Vec<u32> = (0..16).collect();
        assert!(mp_table(layout::MAX_VCPUS, &irqs).len() <= layout::MP_TABLE_MAX);
    }
}
