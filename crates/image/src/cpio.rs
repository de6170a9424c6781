//! Writes initramfs archives in the kernel's "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Archives may be put one behind
//! the other: the kernel unpacks each in turn and skips zeroes in between.

/// An archive under construction. Everything in it belongs to root and has no time stamp, so that
/// equal contents give equal bytes.
///
/// Paths are given without a leading slash; parents must be added before what they hold, as the
/// kernel makes none.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

/// Type bits of the mode field, as in `<linux/stat.h>`.
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
/// Archives end at a multiple of this, the traditional block size of cpio; four would do.
const BLOCK: usize = 512;

impl Archive {
    /// An archive with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with these permission bits.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.entry(path, S_IFDIR | mode, 2, (0, 0), &[]);
    }

    /// Adds a regular file with these permission bits.
    ///
    /// # Panics
    /// The file is 4 GiB or larger, which the format cannot say.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, S_IFREG | mode, 1, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, S_IFLNK | 0o777, 1, (0, 0), target.as_bytes());
    }

    /// Adds a character device with these permission bits and this number.
    pub fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, S_IFCHR | mode, 1, (major, minor), &[]);
    }

    /// Ends the archive and returns its bytes, a multiple of 512.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = u32::MAX;
        self.entry("TRAILER!!!", 0, 1, (0, 0), &[]);
        self.pad(BLOCK);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32), content: &[u8]) {
        let size = u32::try_from(content.len()).expect("files of 4 GiB do not fit the format");
        self.inode = self.inode.wrapping_add(1);
        let name_size = path.len() as u32 + 1;
        let (uid, gid, mtime, dev_major, dev_minor, check) = (0, 0, 0, 0, 0, 0);
        let fields = [
            self.inode, mode, uid, gid, links, mtime, size, dev_major, dev_minor, device.0,
            device.1, name_size, check,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

/// The archive every guest boots with: `/init`, the directories it mounts on, and the console that
/// the kernel opens for it.
pub fn init_archive(init: &[u8]) -> Vec<u8> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "newroot"] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, init);
    archive.finish()
}

/// Appends an archive with one more file at the root of the initramfs, such as a guest's own
/// configuration, to an archive that is already finished.
///
/// # Panics
/// As for [`Archive::file`].
pub fn append_file(archive: &mut Vec<u8>, path: &str, mode: u32, content: &[u8]) {
    archive.resize(archive.len().next_multiple_of(4), 0);
    let mut second = Archive::new();
    second.file(path.trim_start_matches('/'), mode, content);
    archive.extend_from_slice(&second.finish());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_kernels() {
        let mut archive = Archive::new();
        archive.file("a", 0o755, b"hello");
        let bytes = archive.finish();
        let header = concat!(
            "070701", "00000001", "000081ed", "00000000", "00000000", "00000001", "00000000",
            "00000005", "00000000", "00000000", "00000000", "00000000", "00000002", "00000000",
            "a\0"
        );
        assert_eq!(&bytes[..112], header.as_bytes());
        assert_eq!(&bytes[112..120], b"hello\0\0\0");
        assert_eq!(&bytes[120..126], b"070701");
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn archives_follow_one_another() {
        let mut archive = init_archive(b"\x7fELF");
        let first = archive.len();
        append_file(&mut archive, "/compare.config", 0o600, b"x");
        assert_eq!(&archive[first..first + 6], b"070701");
        assert_eq!(archive.len() % 512, 0);
        assert_eq!(init_archive(b"\x7fELF"), archive[..first]);
    }
}
