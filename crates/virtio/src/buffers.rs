//! One request of a driver: its descriptors, checked, sorted into what the device reads and what it
//! writes, and turned into vectors for readv(2) and writev(2).
#![allow(unsafe_code)]

use std::{io, ops::Deref, os::fd::AsRawFd, os::fd::BorrowedFd};

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::QueueError;
use crate::Memory;

/// Most descriptors of a request: as many as one readv(2) takes (IOV_MAX).
const MAX_SEGMENTS: usize = 1024;
/// Most bytes of a request, far above what Linux asks for at a time.
const MAX_BYTES: u64 = 16 << 20;

/// A piece of guest memory that was found to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: u64,
    /// Length, bytes; never 0.
    pub length: u32,
}

/// A request's pieces of memory, in order. Kept from request to request, so that serving one
/// allocates nothing.
#[derive(Debug, Default)]
pub struct Buffers {
    /// What the device reads.
    pub readable: Vec<Segment>,
    /// What the device writes.
    pub writable: Vec<Segment>,
}

/// Bytes in these segments.
pub fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.length)).sum()
}

impl Buffers {
    /// Takes in a chain.
    ///
    /// # Errors
    /// It loops or breaks off, holds nothing or an empty descriptor, reaches outside of guest RAM,
    /// is longer than any sane request, or has a readable descriptor behind a writable one
    /// (section 2.7.4.2).
    pub fn fill<M>(&mut self, chain: DescriptorChain<M>, memory: &Memory) -> Result<(), QueueError>
    where
        M: Deref<Target = Memory>,
    {
        self.fill_up_to(chain, memory, MAX_BYTES)
    }

    /// The same for a device that has a bound of its own on the bytes of a request.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn fill_up_to<M>(
        &mut self,
        chain: DescriptorChain<M>,
        memory: &Memory,
        most_bytes: u64,
    ) -> Result<(), QueueError>
    where
        M: Deref<Target = Memory>,
    {
        self.readable.clear();
        self.writable.clear();
        let mut bytes = 0;
        let mut broken_off = true;
        for descriptor in chain {
            broken_off = descriptor.has_next();
            let segment = Segment { address: descriptor.addr().0, length: descriptor.len() };
            bytes += u64::from(segment.length);
            let count = self.readable.len() + self.writable.len();
            if segment.length == 0 {
                return Err(QueueError::Request("an empty descriptor"));
            }
            if bytes > most_bytes || count == MAX_SEGMENTS {
                return Err(QueueError::Request("too long"));
            }
            if !memory.check_range(GuestAddress(segment.address), segment.length as usize) {
                return Err(QueueError::Request("a descriptor outside of memory"));
            }
            if descriptor.is_write_only() {
                self.writable.push(segment);
            } else if self.writable.is_empty() {
                self.readable.push(segment);
            } else {
                return Err(QueueError::Request("a readable descriptor behind a writable one"));
            }
        }
        // The iterator stops silently at a loop, at an index outside of the table and at a table
        // outside of memory; each leaves the last descriptor pointing on, or none at all.
        if broken_off { Err(QueueError::Request("a chain without end")) } else { Ok(()) }
    }
}

/// Copies the first bytes of these segments; says how many there were.
pub fn read_front(segments: &[Segment], memory: &Memory, into: &mut [u8]) -> usize {
    let mut done = 0;
    for segment in segments {
        let count = (into.len() - done).min(segment.length as usize);
        if memory.read_slice(&mut into[done..done + count], GuestAddress(segment.address)).is_err()
        {
            break;
        }
        done += count;
    }
    done
}

/// Writes bytes to the front of these segments; says how many found room.
pub fn write_front(segments: &[Segment], memory: &Memory, bytes: &[u8]) -> usize {
    let mut done = 0;
    for segment in segments {
        let count = (bytes.len() - done).min(segment.length as usize);
        if memory.write_slice(&bytes[done..done + count], GuestAddress(segment.address)).is_err() {
            break;
        }
        done += count;
    }
    done
}

/// Takes the first `skip` bytes away.
pub fn advance(segments: &mut Vec<Segment>, mut skip: u32) {
    let mut whole = 0;
    for segment in segments.iter_mut() {
        if segment.length > skip {
            segment.address += u64::from(skip);
            segment.length -= skip;
            break;
        }
        skip -= segment.length;
        whole += 1;
    }
    segments.drain(..whole);
}

/// Keeps the first `keep` bytes.
pub fn truncate(segments: &mut Vec<Segment>, mut keep: u32) {
    segments.retain_mut(|segment| {
        segment.length = segment.length.min(keep);
        keep -= segment.length;
        segment.length > 0
    });
}

/// Takes the last byte away; returns its address.
pub fn pop_last_byte(segments: &mut Vec<Segment>) -> Option<u64> {
    let last = segments.last_mut()?;
    last.length -= 1;
    let address = last.address + u64::from(last.length);
    if last.length == 0 {
        segments.pop();
    }
    Some(address)
}

/// The host's side of these segments, for one vectored system call.
fn vectors(
    segments: &[Segment],
    memory: &Memory,
    vectors: &mut Vec<libc::iovec>,
) -> Result<(), QueueError> {
    vectors.clear();
    for segment in segments {
        for slice in memory.get_slices(GuestAddress(segment.address), segment.length as usize) {
            let slice = slice.map_err(|_| QueueError::Request("a descriptor outside of memory"))?;
            let pointer = slice.ptr_guard_mut();
            vectors.push(libc::iovec { iov_base: pointer.as_ptr().cast(), iov_len: slice.len() });
        }
    }
    Ok(())
}

/// Vectored reads and writes between a descriptor and guest memory.
#[derive(Debug, Default)]
pub struct Vectors(Vec<libc::iovec>);

// SAFETY: the pointers are only ever used inside the call that filled them; between calls the
// vector is nothing but spare capacity.
unsafe impl Send for Vectors {}

impl Vectors {
    /// Reads from `offset` of a file into guest memory (preadv(2)); says how many bytes came.
    ///
    /// # Errors
    /// The segments are not guest memory, or the read fails.
    pub fn read_at(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        into: &[Segment],
        memory: &Memory,
    ) -> Result<u64, QueueError> {
        vectors(into, memory, &mut self.0)?;
        // SAFETY: each vector is a stretch of guest RAM, mapped writable for as long as `memory`
        // lives, which outlasts the call; the kernel checks the number of vectors and the offset.
        // Nothing holds references into guest memory, so the kernel may write to it.
        let count = unsafe {
            libc::preadv(
                file.as_raw_fd(),
                self.0.as_ptr(),
                self.0.len() as libc::c_int,
                offset as libc::off_t,
            )
        };
        counted(count)
    }

    /// Writes guest memory to `offset` of a file (pwritev(2)); says how many bytes went.
    ///
    /// # Errors
    /// The segments are not guest memory, or the write fails.
    pub fn write_at(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        from: &[Segment],
        memory: &Memory,
    ) -> Result<u64, QueueError> {
        vectors(from, memory, &mut self.0)?;
        // SAFETY: as in `read_at`; the kernel only reads the memory.
        let count = unsafe {
            libc::pwritev(
                file.as_raw_fd(),
                self.0.as_ptr(),
                self.0.len() as libc::c_int,
                offset as libc::off_t,
            )
        };
        counted(count)
    }

    /// Reads from a descriptor into guest memory (readv(2)).
    ///
    /// # Errors
    /// As [`Self::read_at`]; `WouldBlock` where there is nothing yet.
    pub fn read(
        &mut self,
        from: BorrowedFd<'_>,
        into: &[Segment],
        memory: &Memory,
    ) -> Result<u64, QueueError> {
        vectors(into, memory, &mut self.0)?;
        // SAFETY: as in `read_at`.
        counted(unsafe {
            libc::readv(from.as_raw_fd(), self.0.as_ptr(), self.0.len() as libc::c_int)
        })
    }

    /// Writes guest memory to a descriptor (writev(2)).
    ///
    /// # Errors
    /// The segments are not guest memory, or the write fails.
    pub fn write(
        &mut self,
        to: BorrowedFd<'_>,
        from: &[Segment],
        memory: &Memory,
    ) -> Result<u64, QueueError> {
        vectors(from, memory, &mut self.0)?;
        // SAFETY: as in `read_at`; the kernel only reads the memory. That the guest may change it
        // meanwhile makes a strange packet, nothing else.
        counted(unsafe {
            libc::writev(to.as_raw_fd(), self.0.as_ptr(), self.0.len() as libc::c_int)
        })
    }
}

fn counted(count: isize) -> Result<u64, QueueError> {
    u64::try_from(count).map_err(|_| QueueError::Host(io::Error::last_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(lengths: &[u32]) -> Vec<Segment> {
        lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| Segment { address: i as u64 * 0x100, length })
            .collect()
    }

    #[test]
    fn pieces_are_cut_at_either_end() {
        let mut all = segments(&[4, 4, 8]);
        advance(&mut all, 6);
        assert_eq!(
            all,
            [Segment { address: 0x102, length: 2 }, Segment { address: 0x200, length: 8 }]
        );
        assert_eq!(pop_last_byte(&mut all), Some(0x207));
        assert_eq!(total(&all), 9);
        advance(&mut all, 9);
        assert_eq!((all.len(), pop_last_byte(&mut all)), (0, None));
        let mut one = segments(&[1]);
        assert_eq!((pop_last_byte(&mut one), one.len()), (Some(0), 0));
    }

    #[test]
    fn headers_may_be_split_anyhow() {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let parts = segments(&[3, 1, 200]);
        assert_eq!(write_front(&parts, &memory, b"abcdefgh"), 8);
        let mut back = [0; 8];
        assert_eq!(read_front(&parts, &memory, &mut back), 8);
        assert_eq!(&back, b"abcdefgh");
        assert_eq!(read_front(&parts[..2], &memory, &mut back), 4);
    }
}
