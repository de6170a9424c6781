//! Pages that go back to the host.
#![allow(unsafe_code)]

use std::{io, ops::Range};

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::{Memory, QueueError};

/// Bytes of a page in the balloon's own count (5.5.6), which are those of a page of the host.
pub const PAGE: u64 = 4096;

/// Pages, gathered into stretches, so that each takes one system call.
#[derive(Debug, Default)]
pub struct Runs(Vec<Range<u64>>);

impl Runs {
    /// Forgets them all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds the page at a guest-physical address. Linux lists neighbours in either direction.
    pub fn add(&mut self, address: u64) {
        match self.0.last_mut() {
            Some(run) if run.end == address => run.end += PAGE,
            Some(run) if run.start == address + PAGE => run.start = address,
            _ => self.0.push(address..address + PAGE),
        }
    }

    /// Drops them; says how many bytes that was.
    ///
    /// # Errors
    /// A page is no RAM. Those before it are gone.
    pub fn drop_from(&self, memory: &Memory) -> Result<u64, QueueError> {
        let mut dropped = 0;
        for run in &self.0 {
            discard(memory, run.start, run.end - run.start)?;
            dropped += run.end - run.start;
        }
        Ok(dropped)
    }
}

/// Gives whole pages of guest RAM back to the host.
///
/// # Errors
/// The range is not RAM, or madvise(2) fails.
pub fn discard(memory: &Memory, address: u64, length: u64) -> Result<(), QueueError> {
    let outside = |_| QueueError::Request("pages outside of memory");
    let mut address = GuestAddress(address);
    for slice in memory.get_slices(address, length as usize) {
        let slice = slice.map_err(outside)?;
        let region = memory.find_region(address).ok_or(QueueError::Request("no such region"))?;
        let advice = match region.flags() & libc::MAP_SHARED {
            0 => libc::MADV_DONTNEED,
            _ => libc::MADV_REMOVE,
        };
        // SAFETY: the slice lies inside one region of guest RAM, which stays mapped; it starts at a
        // page and is of whole pages, or the call fails. Nothing holds references into guest RAM,
        // and its bytes may change at any time anyway, as they do when the guest writes them.
        let result =
            unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), slice.len(), advice) };
        if result < 0 {
            return Err(io::Error::last_os_error().into());
        }
        address.0 += slice.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_gathered_in_either_direction() {
        let mut runs = Runs::default();
        [5, 6, 7, 3, 2, 9, 9].iter().for_each(|page| runs.add(page * PAGE));
        let pages: Vec<_> = runs.0.iter().map(|run| run.start / PAGE..run.end / PAGE).collect();
        assert_eq!(pages, [5..8, 2..4, 9..10, 9..10]);
    }
}
