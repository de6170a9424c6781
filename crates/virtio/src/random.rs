//! The host's randomness.
#![allow(unsafe_code)]

use std::io;

/// Fills up to 256 bytes, which getrandom(2) gives whole and without being interrupted.
///
/// # Errors
/// getrandom(2) fails or is not there.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: getrandom writes at most `len` bytes to the pointer, which has room for them.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(count) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
