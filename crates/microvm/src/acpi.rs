//! The little ACPI there is: how a kernel that is built without the MP table learns of its CPUs and
//! of the IOAPIC, as distributions' cloud kernels are (CONFIG_X86_MPPARSE). Without either it
//! delivers interrupts through the old controllers and takes its time from a PIT, which this machine
//! has not: no timer would ever expire. Our own kernels have no ACPI and read the MP table.
//!
//! ```text
//!  zero page (acpi_rsdp_addr) ─► RSDP ─► XSDT ─► MADT: local APICs, IOAPIC
//! ```
//! That is all: there is no DSDT, so Linux gives its interpreter up once it has these tables.
//! Sections are those of the ACPI Specification 6.4.

use crate::layout;

/// Bytes of an RSDP of revision 2 (table 5.3), the part its first checksum is of, and of every other
/// table's header (table 5.4).
const RSDP_BYTES: usize = 36;
const RSDP_FIRST_BYTES: usize = 20;
const HEADER_BYTES: usize = 36;
/// Where in its table a checksum lies.
const RSDP_CHECKSUM: usize = 8;
const RSDP_EXTENDED_CHECKSUM: usize = 32;
const CHECKSUM: usize = 9;

/// Interrupt controller structures (table 5.21).
const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const LOCAL_APIC_NMI: u8 = 4;
/// Flags of the MADT: the machine has 8259s too (table 5.20); of a local APIC: usable (table 5.23).
const PCAT_COMPAT: u32 = 1;
const ENABLED: u32 = 1;
/// Every processor, in an NMI's entry (table 5.30).
const ALL: u8 = 0xff;

/// The bytes of all tables for this many CPUs, to be placed at [`layout::ACPI`].
pub fn tables(vcpus: u32) -> Vec<u8> {
    let xsdt_address = layout::ACPI + RSDP_BYTES as u64;
    let madt_address = xsdt_address + (HEADER_BYTES + size_of::<u64>()) as u64;

    let mut rsdp = b"RSD PTR \0COMPAR\x02".to_vec(); // checksum, OEM id, revision
    rsdp.extend_from_slice(&[0; 4]); // no RSDT: the XSDT comes in its place
    rsdp.extend_from_slice(&(RSDP_BYTES as u32).to_le_bytes());
    rsdp.extend_from_slice(&xsdt_address.to_le_bytes());
    rsdp.extend_from_slice(&[0; 4]); // extended checksum, reserved
    rsdp[RSDP_CHECKSUM] = checksum(&rsdp[..RSDP_FIRST_BYTES]);
    rsdp[RSDP_EXTENDED_CHECKSUM] = checksum(&rsdp);

    let mut controllers = layout::LOCAL_APIC.to_le_bytes().to_vec();
    controllers.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    for id in 0..vcpus as u8 {
        controllers.extend_from_slice(&[LOCAL_APIC, 8, id, id]);
        controllers.extend_from_slice(&ENABLED.to_le_bytes());
    }
    // Its interrupts are the ISA bus's, from 0 on.
    controllers.extend_from_slice(&[IO_APIC, 12, vcpus as u8, 0]);
    controllers.extend_from_slice(&layout::IOAPIC.to_le_bytes());
    controllers.extend_from_slice(&0_u32.to_le_bytes());
    controllers.extend_from_slice(&[LOCAL_APIC_NMI, 6, ALL, 0, 0, 1]);

    rsdp.extend_from_slice(&table(b"XSDT", 1, &madt_address.to_le_bytes()));
    rsdp.extend_from_slice(&table(b"APIC", 5, &controllers));
    rsdp
}

/// A table behind its header.
fn table(signature: &[u8; 4], revision: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend_from_slice(&((HEADER_BYTES + contents.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&[revision, 0]); // checksum
    bytes.extend_from_slice(b"COMPARMICROVM \x01\0\0\0"); // OEM id, table id and revision
    bytes.extend_from_slice(b"CMPR\x01\0\0\0"); // whose tables these are, and of which version
    bytes.extend_from_slice(contents);
    bytes[CHECKSUM] = checksum(&bytes);
    bytes
}

/// The byte that makes the sum of all zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_sub(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Follows the pointers as a kernel does.
    #[test]
    fn every_cpu_is_found_from_the_first_table_on() {
        for vcpus in [1, 2, layout::MAX_VCPUS] {
            let bytes = tables(vcpus);
            assert!(bytes.len() <= layout::ACPI_MAX, "{}", bytes.len());
            let at = |address: &[u8]| {
                (u64::from_le_bytes(address.try_into().unwrap()) - layout::ACPI) as usize
            };
            assert_eq!(&bytes[..8], b"RSD PTR ");
            assert_eq!(checksum(&bytes[..RSDP_FIRST_BYTES]), 0);
            assert_eq!(checksum(&bytes[..RSDP_BYTES]), 0);
            let xsdt = &bytes[at(&bytes[24..32])..];
            assert_eq!((&xsdt[..4], word(xsdt, 4)), (b"XSDT".as_slice(), 44));
            assert_eq!(checksum(&xsdt[..44]), 0);
            let madt = &bytes[at(&xsdt[36..44])..];
            assert_eq!((&madt[..4], word(madt, 4)), (b"APIC".as_slice(), madt.len()));
            assert_eq!(checksum(madt), 0);
            let mut entries = &madt[44..];
            let mut found = (Vec::new(), 0, 0);
            while let [kind, length, ..] = *entries {
                match kind {
                    LOCAL_APIC => found.0.push(u32::from(entries[3])),
                    IO_APIC => found.1 = word(entries, 4),
                    _ => found.2 += 1,
                }
                entries = &entries[usize::from(length)..];
            }
            assert_eq!(found, ((0..vcpus).collect(), 0xfec0_0000, 1));
        }
    }
}
