//! Descriptors a process was started with by accident.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use super::sys::result;
use crate::Error;

/// Closes every descriptor but `keep` (close_range(2), Linux 5.9). The first thing a program does:
/// what it opens itself later it closes itself.
///
/// # Safety
/// Nothing in the process owns or uses a descriptor that is not in `keep`.
///
/// # Errors
/// The kernel refuses.
pub unsafe fn close_except(keep: &[RawFd]) -> Result<(), Error> {
    let mut kept: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 0;
    for last in kept.iter().map(|&fd| fd.checked_sub(1)).chain([Some(u32::MAX)]) {
        if let Some(last) = last.filter(|last| *last >= first) {
            // SAFETY: three integers; that nobody misses what is closed is the caller's promise.
            result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
                .map_err(Error::system("close descriptors"))?;
        }
        first = last.map_or(1, |last| last.saturating_add(2));
    }
    Ok(())
}
