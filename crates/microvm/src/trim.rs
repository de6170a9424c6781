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
    use std::{fs, hint::black_box};

    use super::*;

    /// Bytes of this program's code that are mapped now (proc_pid_smaps(5)).
    fn mapped() -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let code = ptr::addr_of!(etext) as usize - 1;
        let holds = |line: &str| {
            let (first, last) = line.split_once(' ')?.0.split_once('-')?;
            let number = |text| usize::from_str_radix(text, 16).ok();
            Some((number(first)?..number(last)?).contains(&code))
        };
        let mut lines = smaps.lines().skip_while(|line| holds(line) != Some(true));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    #[test]
    fn code_goes_and_comes_back() {
        let start = ptr::addr_of!(__executable_start) as usize;
        let end = ptr::addr_of!(etext) as usize;
        let touch = || {
            let pages = (start..end).step_by(PAGE);
            // SAFETY: all of it is mapped and readable.
            pages.map(|page| u64::from(unsafe { (page as *const u8).read_volatile() })).sum::<u64>()
        };
        let (sum, before) = (touch(), mapped());
        unmap_start_up_code();
        let after = mapped();
        assert!(after < before / 2, "{before} bytes mapped, {after} afterwards");
        assert_eq!(black_box(touch()), sum, "and the same as before");
    }
}
