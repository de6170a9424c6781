//! EROFS images: the read-only disks that microVMs and the emulated host boot from. Uncompressed,
//! so that their pages can be shared, and the same bytes for the same tree.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use compare_spec::Digest;

use crate::{
    error::{At, Error, Result},
    program::{command, run},
    tree::file_digest,
};

/// A fixed identity: the images are told apart by their digests.
const UUID: &str = "636f6d70-6172-4500-8000-65726f667300";
/// Offset and value of the superblock's magic (`EROFS_SUPER_OFFSET`, `EROFS_SUPER_MAGIC_V1`,
/// fs/erofs/erofs_fs.h).
const EROFS_SUPER_OFFSET: u64 = 1024;
const EROFS_SUPER_MAGIC_V1: u32 = 0xE0F5_E1E2;
/// Images are whole blocks, so that a disk of 512-byte sectors holds them exactly.
const BLOCK: u64 = 4096;

/// Where the bytes of files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The end of a file behind its inode, where it fits.
    Packed,
    /// All of a file in blocks of its own, as DAX needs (mkfs.erofs(1), `noinline_data`).
    InPlace,
}

/// Makes `image` from the tree `directory` and returns the digest and length of its bytes.
pub(crate) fn make(directory: &Path, image: &Path, layout: Layout) -> Result<(Digest, u64)> {
    // No extended attributes (-x-1), no times (-T0), a fixed UUID, everything owned by root: what
    // is left is decided by names, types, modes and contents alone.
    let mut mkfs = command("mkfs.erofs");
    mkfs.args(["-x-1", "-T0", "-U", UUID, "--all-root"]);
    if layout == Layout::InPlace {
        mkfs.arg("-Enoinline_data");
    }
    mkfs.arg(image).arg(directory);
    run(&mut mkfs)?;
    let length = std::fs::metadata(image).at("read", image)?.len();
    if !length.is_multiple_of(BLOCK) {
        let file = File::options().write(true).open(image).at("open", image)?;
        file.set_len(length.next_multiple_of(BLOCK)).at("write", image)?;
    }
    Ok((file_digest(image)?, length.next_multiple_of(BLOCK)))
}

/// A quick look at an image that was made earlier: its length and its superblock.
pub(crate) fn check(image: &Path, length: u64, entry: &Path) -> Result<()> {
    let damaged = |problem: String| Error::Corrupt {
        path: image.to_owned(),
        problem,
        entry: entry.to_owned(),
    };
    let file = match File::open(image) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("is missing".to_owned()));
        }
        file => file.at("open", image)?,
    };
    let actual = file.metadata().at("read", image)?.len();
    if actual != length {
        return Err(damaged(format!("{actual} bytes where {length} were written")));
    }
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, EROFS_SUPER_OFFSET).at("read", image)?;
    if u32::from_le_bytes(magic) != EROFS_SUPER_MAGIC_V1 {
        return Err(damaged("not an EROFS image".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        if !crate::testing::has("mkfs.erofs") {
            return;
        }
        // A tmpfs lists files in the order they were made in, where ext4 would hide a difference.
        let place = Path::new("/dev/shm");
        let folder =
            if place.is_dir() { tempfile::tempdir_in(place) } else { tempfile::tempdir() }.unwrap();
        let mut digests = Vec::new();
        for (name, order) in [("one", [1, 2, 3, 4, 5]), ("two", [5, 3, 1, 4, 2])] {
            let tree = folder.path().join(name);
            for number in order {
                let directory = tree.join(format!("directory-{number}"));
                fs::create_dir_all(&directory).unwrap();
                for inner in order {
                    fs::write(
                        directory.join(format!("file-{inner}")),
                        format!("{number}").repeat(inner * 3000),
                    )
                    .unwrap();
                }
            }
            let image = folder.path().join(format!("{name}.erofs"));
            let (digest, length) = make(&tree, &image, Layout::Packed).unwrap();
            assert_eq!((length % 4096, length), (0, fs::metadata(&image).unwrap().len()));
            check(&image, length, folder.path()).unwrap();
            digests.push(digest);
        }
        assert_eq!(digests[0], digests[1]);
    }

    #[test]
    fn damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("rootfs.erofs");
        let text = |length| check(&image, length, Path::new("/entry")).unwrap_err().to_string();
        assert!(
            text(8192).ends_with("rootfs.erofs: is missing: delete /entry and run `compare setup`")
        );
        fs::write(&image, vec![0; 4096]).unwrap();
        assert!(text(8192).contains("4096 bytes where 8192 were written"));
        assert!(text(4096).contains("not an EROFS image"));
    }
}
