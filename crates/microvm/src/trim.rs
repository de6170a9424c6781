//! Giving back what only a start needs.
#![allow(unsafe_code)]

use std::ptr;

unsafe extern "C" {
    /// Where the program's first page is mapped, and the end of its code: the linker's own symbols
    /// (ld(1); end(3)). In between lie headers, read-only data that needs no relocation, and code.
    static __executable_start: u8;
    static etext: u8;
}

const PAGE: usize = 4096;

/// Unmaps the pages of this program's code, of which a start touches nearly all and a running guest
/// a few: those come back from the page cache when they are used (madvise(2), MADV_DONTNEED). Nothing
/// is ever written there, so nothing is lost. Takes some 50 µs, and a page fault for each 64 KiB that
/// are used again.
pub(crate) fn unmap_start_up_code() {
    let start = ptr::addr_of!(__executable_start) as usize;
    let end = ptr::addr_of!(etext) as usize / PAGE * PAGE;
    // SAFETY: the range is this program's own mapping of its file, read-only and unchanged: what is
    // dropped is read again from the file.
    unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_and_constants_are_there_afterwards() {
        let before = std::hint::black_box("a constant of the program").to_owned();
        super::unmap_start_up_code();
        assert_eq!(before, std::hint::black_box("a constant of the program"));
    }
}
