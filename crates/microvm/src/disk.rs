//! The root disk: a file behind a block device, from which the guest copies what it reads into its own
//! RAM, or, as persistent memory, part of the guest's physical memory itself.
//!
//! ```text
//!  blk   file ─► host's page cache ── copied by a request ──► guest's page cache
//!  pmem  file ─► host's page cache ══ mapped, page by page ══► guest (DAX: nothing is copied)
//! ```
//! The mapping is private to the guest, so that its writes never reach the file; as a root file system
//! is not written to, all guests of one file and the host share one copy.

use std::{fs::File, ops::Range, path::Path};

use compare_spec::RootDevice;
use compare_virtio::{Device, block::Block, pmem::Pmem};

use crate::{
    error::Error,
    layout,
    mapping::map_file,
    memory::{self, Memory},
};

/// What start and length of persistent memory are multiples of: Linux adds such memory in sections
/// (SECTION_SIZE_BITS of arch/x86/include/asm/sparsemem.h: 128 MiB), of which it maps subsections
/// (SUBSECTION_SHIFT of include/linux/mmzone.h: 2 MiB).
const SECTION: u64 = 128 << 20;
const SUBSECTION: u64 = 2 << 20;

/// A disk, opened.
#[derive(Debug)]
pub struct Disk {
    file: File,
    length: u64,
    device: RootDevice,
}

impl Disk {
    /// Opens a disk, which must have the expected length if one is given.
    ///
    /// # Errors
    /// It cannot be read or is of another length.
    pub fn open(path: &Path, expected: Option<u64>, device: RootDevice) -> Result<Self, Error> {
        let failed = |attempt| move |source| Error::File { attempt, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed("open the disk"))?;
        let length = file.metadata().map_err(failed("read the length of"))?.len();
        match expected {
            Some(expected) if expected != length => {
                Err(Error::DiskLength { path: path.to_owned(), actual: length, expected })
            }
            _ => Ok(Self { file, length, device }),
        }
    }

    /// The guest-physical memory it takes in a machine with so much RAM: above all of that, and above
    /// the hole for devices.
    pub fn window(&self, ram_bytes: u64) -> Option<Range<u64>> {
        let end_of_ram = memory::ranges(ram_bytes).last().map_or(0, |range| range.end);
        let start = end_of_ram.max(layout::MMIO_GAP_END).next_multiple_of(SECTION);
        (self.device == RootDevice::Pmem)
            .then(|| start..start + self.length.max(1).next_multiple_of(SUBSECTION))
    }

    /// The device; puts the file into its window, which `memory` has.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn into_device(self, memory: &Memory, ram_bytes: u64) -> Result<Box<dyn Device>, Error> {
        let Some(window) = self.window(ram_bytes) else {
            return Ok(Box::new(Block::new(self.file, self.length)));
        };
        map_file(memory, window.start, &self.file, 0, self.length)
            .map_err(Error::system("map the disk"))?;
        Ok(Box::new(Pmem::new(window.start, window.end - window.start)))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::FileExt};

    use compare_spec::MemoryPages;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    fn disk(bytes: &[u8], device: RootDevice) -> (Disk, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        (Disk::open(file.path(), Some(bytes.len() as u64), device).unwrap(), file)
    }

    #[test]
    fn a_window_lies_beside_ram_and_devices_in_whole_sections() {
        let (disk, _file) = disk(&[1; 5000], RootDevice::Pmem);
        let (mib, gib) = (1 << 20, 1 << 30);
        for (ram, start) in [
            (64 * mib, 4 * gib),
            (3 * gib, 4 * gib),
            (4 * gib, 4 * gib + 768 * mib),
            (4 * gib + mib, 4 * gib + 896 * mib),
        ] {
            assert_eq!(disk.window(ram), Some(start..start + 2 * mib), "{ram:#x}");
        }
    }

    #[test]
    fn a_block_device_takes_no_memory() {
        let (disk, _file) = disk(&[1; 4096], RootDevice::Blk);
        assert_eq!(disk.window(64 << 20), None);
        let memory = memory::map(1 << 20).unwrap();
        assert_eq!(disk.into_device(&memory, 1 << 20).unwrap().id(), 2);
    }

    #[test]
    fn what_is_written_to_the_window_never_reaches_the_file() {
        let (disk, file) = disk(&[7; 5000], RootDevice::Pmem);
        let window = disk.window(1 << 20).unwrap();
        let memory = memory::map_with(1 << 20, Some(window.clone()), MemoryPages::Normal).unwrap();
        assert_eq!(disk.into_device(&memory, 1 << 20).unwrap().id(), 27);
        let byte = |offset| memory.read_obj::<u8>(GuestAddress(window.start + offset)).unwrap();
        assert_eq!((byte(4999), byte(5000), byte((2 << 20) - 1)), (7, 0, 0));
        memory.write_obj(9_u8, GuestAddress(window.start)).unwrap();
        assert_eq!(byte(0), 9);
        let mut bytes = [0; 5000];
        file.as_file().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 5000]);
    }

    #[test]
    fn a_disk_of_another_length_is_refused() {
        let (_, file) = disk(&[1; 4096], RootDevice::Pmem);
        let error = Disk::open(file.path(), Some(8192), RootDevice::Pmem).unwrap_err();
        assert!(error.to_string().contains("8192"), "{error}");
    }
}
