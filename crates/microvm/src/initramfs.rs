//! Places the initramfs: an archive file that every guest shares, mapped, and right behind it a
//! second archive with what is this guest's own. The kernel unpacks one after the other and skips
//! zeroes in between (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{fs::File, io, os::fd::OwnedFd, os::unix::fs::FileExt, path::Path};

use compare_spec::Bytes as Size;
use vm_memory::{Bytes, GuestAddress};

use crate::{
    boot::Initramfs,
    error::Error,
    layout,
    mapping::map_file,
    memory::{Memory, PAGE},
};

/// RAM the kernel is left with besides itself and the initramfs, at the least: below this it stops
/// before it can say why.
const LEAST_FREE: u64 = 16 << 20;

/// The archives of a guest.
#[derive(Debug)]
pub struct Archives {
    shared: File,
    shared_len: u64,
    own: Vec<u8>,
}

impl Archives {
    /// Opens the shared archive and reads the guest's own, an anonymous file such as
    /// memfd_create(2) makes.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn open(shared_path: &Path, own: Option<OwnedFd>) -> Result<Self, Error> {
        let failed =
            |attempt| move |source| Error::File { attempt, path: shared_path.to_owned(), source };
        let shared = File::open(shared_path).map_err(failed("open the initramfs"))?;
        let shared_len = shared.metadata().map_err(failed("read the length of"))?.len();
        let own = own
            .map(read_all)
            .transpose()
            .map_err(Error::system("read the guest's configuration"))?;
        Ok(Self { shared, shared_len, own: own.unwrap_or_default() })
    }

    /// Bytes of guest memory they take.
    fn len(&self) -> u64 {
        self.shared_len.next_multiple_of(PAGE) + self.own.len() as u64
    }

    /// Places them at the top of RAM below the device hole.
    ///
    /// # Errors
    /// RAM has no room for them above the kernel, or the file cannot be mapped.
    pub fn load(
        &self,
        memory: &Memory,
        ram_bytes: u64,
        kernel_end: u64,
        path: &Path,
    ) -> Result<Initramfs, Error> {
        let needed = kernel_end + self.len().next_multiple_of(PAGE) + LEAST_FREE;
        if ram_bytes < needed {
            return Err(Error::MemoryTooSmall { memory: Size(ram_bytes), needed: Size(needed) });
        }
        let top = ram_bytes.min(layout::MMIO_GAP_START) / PAGE * PAGE;
        let address = top - self.len().next_multiple_of(PAGE);
        map_file(memory, address, &self.shared, 0, self.shared_len).map_err(|source| {
            Error::File { attempt: "map the initramfs", path: path.to_owned(), source }
        })?;
        memory
            .write_slice(&self.own, GuestAddress(address + self.shared_len.next_multiple_of(PAGE)))
            .map_err(|source| Error::GuestMemory {
                what: "the configuration",
                source: Box::new(source),
            })?;
        Ok(Initramfs { address, length: self.len() })
    }
}

fn read_all(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd);
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn archives_lie_at_the_top_one_behind_the_other() {
        let path =
            std::env::temp_dir().join(format!("compare-microvm-cpio-{}", std::process::id()));
        std::fs::write(&path, [3; 5000]).unwrap();
        let own_path = path.with_extension("own");
        std::fs::write(&own_path, [4; 100]).unwrap();
        let archives = Archives::open(&path, Some(File::open(&own_path).unwrap().into())).unwrap();
        let memory = memory::map(32 << 20).unwrap();
        let initramfs = archives.load(&memory, 32 << 20, 2 << 20, &path).unwrap();
        assert_eq!(initramfs, Initramfs { address: (32 << 20) - 3 * 4096, length: 8192 + 100 });
        let at =
            |offset: u64| memory.read_obj::<u8>(GuestAddress(initramfs.address + offset)).unwrap();
        assert_eq!([at(0), at(4999), at(5000), at(8191), at(8192), at(8291)], [3, 3, 0, 0, 4, 4]);
        let error = archives.load(&memory, 32 << 20, 30 << 20, &path).unwrap_err();
        assert!(matches!(error, Error::MemoryTooSmall { .. }), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&own_path).unwrap();
    }
}
