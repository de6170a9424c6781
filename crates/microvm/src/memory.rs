//! Guest RAM: anonymous, reserved nowhere, backed page by page as the guest touches it.

use std::ops::Range;

use compare_spec::Bytes;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::{error::Error, layout};

pub use compare_virtio::Memory;

/// A page of the x86-64.
pub const PAGE: u64 = 4096;

/// The guest-physical ranges of `bytes` of RAM: what fits below the hole for devices, the rest
/// above it. A last part-page is left out.
pub fn ranges(bytes: u64) -> Vec<Range<u64>> {
    let bytes = bytes / PAGE * PAGE;
    let below = bytes.min(layout::MMIO_GAP_START);
    let low = 0..below;
    let mut ranges = vec![low];
    if bytes > below {
        ranges.push(layout::MMIO_GAP_END..layout::MMIO_GAP_END + (bytes - below));
    }
    ranges
}

/// Maps guest RAM.
///
/// # Errors
/// The address space is used up or limited (setrlimit(2)).
pub fn map(bytes: u64) -> Result<Memory, Error> {
    map_with(bytes, None)
}

/// Maps guest RAM, and above it room for a file that is memory to the guest.
///
/// # Errors
/// As [`map`].
pub fn map_with(bytes: u64, window: Option<Range<u64>>) -> Result<Memory, Error> {
    let ranges: Vec<_> = ranges(bytes)
        .into_iter()
        .chain(window)
        .map(|range| (GuestAddress(range.start), (range.end - range.start) as usize))
        .collect();
    Memory::from_ranges(&ranges)
        .map_err(|source| Error::MapMemory { memory: Bytes(bytes), source: Box::new(source) })
}

/// Bytes of RAM.
pub fn bytes(memory: &Memory) -> u64 {
    memory.iter().map(GuestMemoryRegion::len).sum()
}

/// Where guest RAM lies in the monitor's own address space.
pub fn host_ranges(memory: &Memory) -> Vec<Range<u64>> {
    memory
        .iter()
        .map(|region| {
            let start = region.as_ptr() as u64;
            start..start + region.len()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_makes_room_for_devices() {
        let bounds = |bytes| {
            ranges(bytes).into_iter().map(|range| (range.start, range.end)).collect::<Vec<_>>()
        };
        assert_eq!(bounds(128 << 20), [(0, 128 << 20)]);
        assert_eq!(bounds((64 << 20) + 5), [(0, 64 << 20)]);
        let gib = 1 << 30;
        assert_eq!(bounds(4 * gib), [(0, 0xd000_0000), (4 * gib, 4 * gib + 3 * gib / 4)]);
    }

    #[test]
    fn mappings_are_told_as_they_are() {
        let memory = map(8 << 20).unwrap();
        let ranges = host_ranges(&memory);
        assert_eq!(ranges.len(), 1);
        assert_eq!(ranges[0].end - ranges[0].start, 8 << 20);
    }
}
