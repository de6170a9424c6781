//! Guest RAM: anonymous, reserved nowhere, backed page by page as the guest touches it.
#![allow(unsafe_code)]

use std::{io, ops::Range, ptr};

use compare_spec::{Bytes, MemoryPages};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
    mmap::MmapRegionBuilder,
};

use crate::{error::Error, layout};

pub use compare_virtio::Memory;

/// A page of the x86-64.
pub const PAGE: u64 = 4096;
/// A huge one.
const HUGE_PAGE: usize = 2 << 20;

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
    map_with(bytes, None, MemoryPages::Normal)
}

/// Maps guest RAM of such pages, and above it room for a file that is memory to the guest.
///
/// # Errors
/// As [`map`], or the kernel has no transparent huge pages.
pub fn map_with(
    bytes: u64,
    window: Option<Range<u64>>,
    pages: MemoryPages,
) -> Result<Memory, Error> {
    let failed = |source| Error::MapMemory { memory: Bytes(bytes), source };
    let length = |range: &Range<u64>| (range.end - range.start) as usize;
    let regions = ranges(bytes)
        .into_iter()
        .map(|range| (pages, range))
        .chain(window.map(|range| (MemoryPages::Normal, range)))
        .map(|(pages, range)| {
            let region = match pages {
                MemoryPages::Normal => {
                    MmapRegion::new(length(&range)).map_err(|error| Box::new(error).into())
                }
                MemoryPages::Thp => map_huge(length(&range)),
            };
            let region = region.map_err(failed)?;
            GuestRegionMmap::new(region, GuestAddress(range.start))
                .ok_or_else(|| failed("it does not end below 2^64".into()))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Memory::from_regions(regions).map_err(|error| failed(Box::new(error)))
}

/// Maps memory of huge pages where there are any. It begins on a boundary of such a page, as it does in
/// the guest: KVM gives the guest a page as one only where it lies alike on both sides. Never unmapped:
/// it is the machine's, which goes with the process.
fn map_huge(length: usize) -> Result<MmapRegion<()>, Box<dyn std::error::Error + Send + Sync>> {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: a new mapping wherever there is room, of nothing that exists.
    let whole =
        unsafe { libc::mmap(ptr::null_mut(), length + HUGE_PAGE, protection, flags, -1, 0) };
    if whole == libc::MAP_FAILED {
        return Err(io::Error::last_os_error().into());
    }
    let skipped = (whole as usize).next_multiple_of(HUGE_PAGE) - whole as usize;
    // SAFETY: less than a huge page further on `length` bytes are left of the mapping.
    let start = unsafe { whole.cast::<u8>().add(skipped) };
    // SAFETY: the range lies in the new mapping; the advice changes no contents.
    if unsafe { libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let builder = MmapRegionBuilder::new(length).with_mmap_prot(protection).with_mmap_flags(flags);
    // SAFETY: the range is mapped, readable and writable, and stays so.
    Ok(unsafe { builder.with_raw_mmap_pointer(start) }.build()?)
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
    fn huge_pages_lie_alike_in_host_and_guest() {
        let memory = map_with(6 << 20, None, MemoryPages::Thp).unwrap();
        let range = &host_ranges(&memory)[0];
        assert_eq!((range.start % HUGE_PAGE as u64, range.end - range.start), (0, 6 << 20));
        vm_memory::Bytes::write_obj(&memory, 1_u8, GuestAddress((6 << 20) - 1)).unwrap();
    }

    #[test]
    fn mappings_are_told_as_they_are() {
        let memory = map(8 << 20).unwrap();
        let ranges = host_ranges(&memory);
        assert_eq!(ranges.len(), 1);
        assert_eq!(ranges[0].end - ranges[0].start, 8 << 20);
    }
}
