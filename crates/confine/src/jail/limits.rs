//! Resource limits (setrlimit(2)), hard and soft: what may be lowered by anybody, and raised again
//! only with CAP_SYS_RESOURCE.
#![allow(unsafe_code)]

use super::sys::result;
use crate::Error;

/// No core files, no descriptors from `descriptors` on, no file beyond `file_bytes`.
pub(super) fn set(descriptors: u64, file_bytes: u64) -> Result<(), Error> {
    for (resource, most, attempt) in [
        (libc::RLIMIT_CORE, 0, "limit core files"),
        (libc::RLIMIT_NOFILE, descriptors, "limit descriptors"),
        (libc::RLIMIT_FSIZE, file_bytes, "limit the length of files"),
    ] {
        lower(resource, most).map_err(Error::system(attempt))?;
    }
    Ok(())
}

/// A limit that is lower already stays so.
fn lower(resource: libc::__rlimit_resource_t, most: u64) -> std::io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit through the pointer, which is to a live one.
    result(unsafe { libc::getrlimit(resource, &raw mut limit) }.into())?;
    limit.rlim_max = limit.rlim_max.min(most);
    limit.rlim_cur = limit.rlim_cur.min(most);
    // SAFETY: setrlimit reads one rlimit.
    result(unsafe { libc::setrlimit(resource, &raw const limit) }.into()).map(drop)
}
