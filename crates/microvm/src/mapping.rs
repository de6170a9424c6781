//! Puts pieces of files into guest memory by mapping instead of copying: a page the guest never
//! touches costs nothing, and one it only reads is the host's page cache, shared by every guest
//! that boots from the same file.
#![allow(unsafe_code)]

use std::{fs::File, io, os::fd::AsRawFd};

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::memory::{Memory, PAGE};

/// Maps `length` bytes of `file` from `offset` at a guest-physical address, private to this guest:
/// what the guest writes there stays its own. Address and offset are multiples of the page size.
/// The last page goes on with whatever the file holds after `length`, or with zeroes at its end.
///
/// # Errors
/// The range is not inside one stretch of guest RAM (`InvalidInput`), or mmap(2) fails.
pub fn map_file(
    memory: &Memory,
    address: u64,
    file: &File,
    offset: u64,
    length: u64,
) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let pages = length.next_multiple_of(PAGE) as usize;
    let slice = memory
        .get_slice(GuestAddress(address), pages)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    if !address.is_multiple_of(PAGE) || !offset.is_multiple_of(PAGE) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not aligned to a page"));
    }
    let target = slice.ptr_guard_mut();
    // SAFETY: MAP_FIXED replaces exactly the pages of `slice`, which `get_slice` found to lie
    // inside one region of `memory`. They are this program's own mapping, page aligned as regions
    // and `address` are, and stay mapped, so the region's bounds still hold and its munmap(2)
    // covers the new mapping too. Guest memory is only ever accessed through volatile copies, so
    // no reference into the replaced pages exists.
    let mapped = unsafe {
        libc::mmap(
            target.as_ptr().cast(),
            pages,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::Bytes;

    use super::*;
    use crate::memory;

    #[test]
    fn a_file_appears_and_stays_as_it_was() {
        let path = std::env::temp_dir().join(format!("compare-microvm-map-{}", std::process::id()));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let memory = memory::map(1 << 20).unwrap();
        map_file(&memory, 0x2000, &file, 0, 5000).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x2000 + 4999)).unwrap(), 7);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x2000 + 5000)).unwrap(), 0);
        memory.write_obj(9_u8, GuestAddress(0x2000)).unwrap();
        let mut first = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut first, 0).unwrap();
        assert_eq!(first, [7]);
        for (address, offset) in [(0x2001, 0), (0x2000, 1), (1 << 20, 0), ((1 << 20) - 4096, 0)] {
            assert!(map_file(&memory, address, &file, offset, 5000).is_err());
        }
    }
}
