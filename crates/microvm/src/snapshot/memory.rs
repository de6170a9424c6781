//! Guest RAM on its way into a snapshot: only pages that are not zero are stored and summed up, so
//! that RAM the guest never touched takes neither disk nor time.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::AsFd, unix::fs::FileExt},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek64},
};
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

use compare_virtio::Memory;

use crate::memory::PAGE;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Entries of /proc/PID/pagemap read at a time, and the bits of one that say that the page is in
/// memory or in swap (Documentation/admin-guide/mm/pagemap.rst).
const ENTRIES: usize = 512;
const PRESENT_OR_SWAPPED: u64 = 3 << 62;

/// A run of guest RAM, by its offset in the snapshot, and where its bytes come from.
type Read<'a> = Box<dyn FnMut(&mut [u8], u64) -> io::Result<()> + 'a>;

/// The pages of guest RAM that may hold something.
pub struct Pages<'a> {
    runs: Vec<Range<u64>>,
    read: Read<'a>,
}

impl<'a> Pages<'a> {
    /// Those of a running machine: pages somebody touched, and those in the ranges `untouched`, which
    /// hold something without that, since files are mapped there. `pagemap` is this process's
    /// /proc/self/pagemap.
    ///
    /// # Errors
    /// `pagemap` cannot be read.
    pub fn of_memory(
        memory: &'a Memory,
        pagemap: &File,
        untouched: &[Range<u64>],
    ) -> io::Result<Self> {
        let mut runs = Vec::new();
        let mut offset = 0;
        for region in memory.iter() {
            let pages = region.len() / PAGE;
            let first = region.as_ptr() as u64 / PAGE;
            let mut entries = [0; 8 * ENTRIES];
            for start in (0..pages).step_by(ENTRIES) {
                let count = ENTRIES.min((pages - start) as usize);
                pagemap.read_exact_at(&mut entries[..8 * count], 8 * (first + start))?;
                for (entry, page) in entries[..8 * count].as_chunks::<8>().0.iter().zip(start..) {
                    let at = offset + page * PAGE;
                    let touched = u64::from_le_bytes(*entry) & PRESENT_OR_SWAPPED != 0;
                    if touched || untouched.iter().any(|range| range.contains(&at)) {
                        add(&mut runs, at..at + PAGE);
                    }
                }
            }
            offset += region.len();
        }
        let read = move |into: &mut [u8], mut offset: u64| {
            for region in memory.iter() {
                if offset < region.len() {
                    return region
                        .read_slice(into, vm_memory::MemoryRegionAddress(offset))
                        .map_err(io::Error::other);
                }
                offset -= region.len();
            }
            Err(io::ErrorKind::InvalidInput.into())
        };
        Ok(Self { runs, read: Box::new(read) })
    }

    /// Those of a snapshot's file of so many bytes.
    ///
    /// # Errors
    /// lseek(2) fails.
    pub fn of_file(file: &'a File, length: u64) -> io::Result<Self> {
        let seek = |from: u64, whence| match lseek64(file.as_fd(), from as i64, whence) {
            Ok(offset) => Ok(Some((offset as u64).min(length))),
            Err(Errno::ENXIO) => Ok(None), // nothing but a hole from here on
            Err(error) => Err(io::Error::from(error)),
        };
        let mut runs = Vec::new();
        let mut at = 0;
        while let Some(start) = seek(at, Whence::SeekData)? {
            if start >= length {
                break;
            }
            at = seek(start, Whence::SeekHole)?.unwrap_or(length);
            add(&mut runs, start / PAGE * PAGE..at.next_multiple_of(PAGE).min(length));
        }
        Ok(Self { runs, read: Box::new(|into, offset| file.read_exact_at(into, offset)) })
    }

    /// Hands each page that is not zero to `take`, with its offset, in order.
    fn each(mut self, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        for run in &self.runs {
            for start in run.clone().step_by(CHUNK) {
                let bytes = &mut buffer[..CHUNK.min((run.end - start) as usize)];
                (self.read)(bytes, start)?;
                for (page, at) in bytes.chunks(PAGE as usize).zip((start..).step_by(PAGE as usize))
                {
                    if page.iter().any(|&byte| byte != 0) {
                        take(at, page)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The CRC-32 of offset and contents of each page that is not zero.
    ///
    /// # Errors
    /// A page cannot be read.
    pub fn checksum(self) -> io::Result<u32> {
        self.sum(|_, _| Ok(()))
    }

    /// Writes the pages that are not zero into an empty file of `length` bytes; returns the checksum.
    ///
    /// # Errors
    /// A page cannot be read or written.
    pub fn write(self, file: &File, length: u64) -> io::Result<u32> {
        file.set_len(length)?;
        self.sum(|at, page| file.write_all_at(page, at))
    }

    fn sum(self, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<u32> {
        let mut checksum = crc32fast::Hasher::new();
        self.each(|at, page| {
            checksum.update(&at.to_le_bytes());
            checksum.update(page);
            take(at, page)
        })?;
        Ok(checksum.finalize())
    }
}

/// Adds a run behind those there are, joined to the last where it touches it.
fn add(runs: &mut Vec<Range<u64>>, run: Range<u64>) {
    match runs.last_mut() {
        Some(last) if run.start <= last.end => last.end = run.end,
        _ => runs.push(run),
    }
}
