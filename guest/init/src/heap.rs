//! Memory for strings and lists: handed out front to back from an area of the program's own, further
//! ones being asked of the kernel. Only what was handed out last is taken back, which is enough: the
//! configuration stays to the end, and what a report takes goes in the opposite order it came.
#![allow(unsafe_code)] // An allocator.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ptr,
};

use crate::sys;

/// Bytes of an area: in the first, what starting a workload takes, with room to spare. Pages nobody touches
/// are none.
const AREA_BYTES: usize = 128 << 10;

/// The allocator, and its first area behind it: the first page serves both.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Heap {
    /// What is free: first and last address. Both 0 before the first use, so that the whole value is
    /// zero and takes nothing of the file.
    free: UnsafeCell<(usize, usize)>,
    area: UnsafeCell<[u8; AREA_BYTES]>,
}

// SAFETY: PID 1 has one thread; the process between clone and exec, which shares its memory,
// allocates nothing and runs while PID 1 stands still.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty one.
    #[allow(clippy::new_without_default)] // There is one, a static.
    pub const fn new() -> Self {
        Self { free: UnsafeCell::new((0, 0)), area: UnsafeCell::new([0; AREA_BYTES]) }
    }

    /// Where free memory begins and ends.
    #[allow(clippy::mut_from_ref)] // That is what the cell is for.
    fn free(&self) -> &mut (usize, usize) {
        // SAFETY: one thread, and no caller keeps the reference while it calls another.
        let free = unsafe { &mut *self.free.get() };
        if free.1 == 0 {
            let begin = self.area.get() as usize;
            *free = (begin, begin + AREA_BYTES);
        }
        free
    }
}

// SAFETY: what is handed out lies between the bounds of `free`, which move behind it, so no two pieces
// overlap; they move back over the last piece only. Areas are never given back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let free = self.free();
        let fits = |(begin, end): (usize, usize)| {
            let start = begin.checked_next_multiple_of(layout.align())?;
            let next = start.checked_add(layout.size())?;
            (next <= end).then_some((start, next))
        };
        let piece = fits(*free).or_else(|| {
            let bytes = layout.size().checked_next_multiple_of(AREA_BYTES)?;
            let begin = sys::map_memory(bytes).ok()? as usize;
            *free = (begin, begin + bytes);
            fits(*free)
        });
        piece.map_or(ptr::null_mut(), |(start, next)| {
            free.0 = next;
            start as *mut u8
        })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let free = self.free();
        if piece as usize + layout.size() == free.0 {
            free.0 = piece as usize;
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let free = self.free();
        let is_last = piece as usize + layout.size() == free.0;
        if is_last && size <= free.1 - piece as usize {
            free.0 = piece as usize + size;
            return piece;
        }
        // SAFETY: the caller vouches for `size`, which is not 0; the alignment is that of the piece.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both pieces have that many bytes, and the new one overlaps no other.
            unsafe { ptr::copy_nonoverlapping(piece, new, layout.size().min(size)) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static HEAP: Heap = Heap::new();

    #[test]
    fn pieces_are_apart_and_the_last_one_comes_back() {
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: sizes are not 0, pieces are given back as they were got, and only this test uses
        // this heap.
        unsafe {
            let first = HEAP.alloc(layout(3));
            let second = HEAP.alloc(layout(5));
            assert!(first.cast::<u64>().is_aligned() && second as usize >= first as usize + 3);
            first.write_bytes(1, 3);
            second.write_bytes(2, 5);
            let grown = HEAP.realloc(second, layout(5), 500);
            assert_eq!(grown, second, "the last piece grows in place");
            let moved = HEAP.realloc(first, layout(3), 100);
            assert!(moved as usize >= grown as usize + 500);
            assert_eq!(core::slice::from_raw_parts(moved, 3), [1; 3]);
            assert_eq!(core::slice::from_raw_parts(grown, 5), [2; 5]);
            // As often as one likes: what comes back is used again.
            for _ in 0..10 * AREA_BYTES {
                let piece = HEAP.alloc(layout(64));
                assert_eq!(piece as usize, (moved as usize + 100).next_multiple_of(8));
                HEAP.dealloc(piece, layout(64));
            }
            // More than the area holds comes from the kernel.
            let large = HEAP.alloc(layout(3 * AREA_BYTES));
            large.write_bytes(3, 3 * AREA_BYTES);
            let grown = HEAP.realloc(large, layout(3 * AREA_BYTES), 9 * AREA_BYTES);
            assert_eq!(core::slice::from_raw_parts(grown, 3 * AREA_BYTES), vec![3; 3 * AREA_BYTES]);
        }
    }
}
