//! The identity of a tree: one digest over every name, type, mode, owner and content. Container
//! and microVM report the same digest because both are made from this one tree.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use compare_spec::Digest;
use nix::sys::{
    stat::{UtimensatFlags, utimensat},
    time::TimeSpec,
};
use sha2::{Digest as _, Sha256};

use crate::error::{At, Error, Result};

/// What is known about a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFacts {
    /// Its identity.
    pub digest: Digest,
    /// Regular files, links and pipes; not directories.
    pub files: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
}

/// Everything below `root`, `root` itself first as the empty path, sorted by the bytes of the path.
/// Sockets are left out; device nodes are refused.
pub(crate) fn walk(root: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = vec![(PathBuf::new(), fs::metadata(root).at("read", root)?)];
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let outside = root.join(&directory);
        for entry in fs::read_dir(&outside).at("read", &outside)? {
            let entry = entry.at("read", &outside)?;
            let path = directory.join(entry.file_name());
            let facts = entry.metadata().at("read", &entry.path())?;
            let kind = facts.file_type();
            if kind.is_socket() {
                continue;
            }
            if kind.is_char_device() || kind.is_block_device() {
                let problem = "a device node cannot be part of an image: remove it, the backends make /dev themselves";
                return Err(Error::Source { path: entry.path(), problem: problem.to_owned() });
            }
            if kind.is_dir() {
                pending.push(path.clone());
            }
            found.push((path, facts));
        }
    }
    found.sort_by(|(left, _), (right, _)| left.as_os_str().cmp(right.as_os_str()));
    Ok(found)
}

/// The digest of a tree, as an image of it would be: everything owned by root, whoever owns it
/// here. For each entry, in the order of the path's bytes, these fields with a NUL behind each:
/// type (`d`, `f`, `l`, `p`, or `h` for a further name of a file already listed), permission bits
/// in octal, `0:0`, size, SHA-256 of the content or the target of the link, path.
///
/// # Errors
/// Something cannot be read, or is a device node.
pub fn tree_digest(root: &Path) -> Result<TreeFacts> {
    let mut hash = Sha256::new();
    let mut names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let (mut files, mut bytes) = (0, 0);
    for (path, facts) in walk(root)? {
        let outside = root.join(&path);
        let kind = facts.file_type();
        files += u64::from(!kind.is_dir());
        let mode = facts.mode() & 0o7777;
        let first = if kind.is_file() && facts.nlink() > 1 {
            names.get(&(facts.dev(), facts.ino()))
        } else {
            None
        };
        let (letter, mode, size, content) = if let Some(first) = first {
            ('h', mode, 0, first.as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            bytes += facts.len();
            names.insert((facts.dev(), facts.ino()), path.clone());
            ('f', mode, facts.len(), file_digest(&outside)?.hex().as_bytes().to_vec())
        } else if kind.is_symlink() {
            // The modes of links mean nothing (symlink(7)).
            (
                'l',
                0o777,
                0,
                fs::read_link(&outside).at("read", &outside)?.as_os_str().as_bytes().to_vec(),
            )
        } else if kind.is_dir() {
            ('d', mode, 0, Vec::new())
        } else {
            ('p', mode, 0, Vec::new())
        };
        hash.update(format!("{letter}\0{mode:o}\x000:0\0{size}\0"));
        hash.update(&content);
        hash.update(b"\0");
        hash.update(path.as_os_str().as_bytes());
        hash.update(b"\0");
    }
    Ok(TreeFacts { digest: Digest::from_hash(&hash.finalize()), files, bytes })
}

/// The digest of a file's bytes.
///
/// # Errors
/// It cannot be read.
pub fn file_digest(path: &Path) -> Result<Digest> {
    let mut file = File::open(path).at("open", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_hash(&hash.finalize())),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
}

/// Gives everything below `root` the same time stamp, the epoch, as its EROFS image has.
pub(crate) fn reset_times(root: &Path) -> Result<()> {
    let epoch = TimeSpec::new(0, 0);
    for (path, _) in walk(root)? {
        let outside = root.join(path);
        utimensat(nix::fcntl::AT_FDCWD, &outside, &epoch, &epoch, UtimensatFlags::NoFollowSymlink)
            .at("set the time of", &outside)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn tree(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
        }
        symlink("a", folder.path().join("z")).unwrap();
        folder
    }

    #[test]
    fn equal_trees_have_equal_digests() {
        let (one, two) = (tree(&["a", "b"]), tree(&["b", "a"]));
        let facts = tree_digest(one.path()).unwrap();
        assert_eq!(facts, tree_digest(two.path()).unwrap());
        assert_eq!((facts.files, facts.bytes), (3, 2));
        reset_times(one.path()).unwrap();
        assert_eq!(facts, tree_digest(one.path()).unwrap());
    }

    #[test]
    fn every_difference_counts() {
        let same = tree_digest(tree(&["a", "b"]).path()).unwrap().digest;
        let changes: [fn(&Path); 6] = [
            |root| fs::write(root.join("a"), "c").unwrap(),
            |root| fs::rename(root.join("a"), root.join("c")).unwrap(),
            |root| fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o4755)).unwrap(),
            |root| fs::create_dir(root.join("d")).unwrap(),
            |root| fs::hard_link(root.join("a"), root.join("d")).unwrap(),
            |root| {
                fs::remove_file(root.join("z")).unwrap();
                symlink("b", root.join("z")).unwrap();
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let folder = tree(&["a", "b"]);
            change(folder.path());
            assert_ne!(tree_digest(folder.path()).unwrap().digest, same, "change {index}");
        }
    }

    #[test]
    fn sockets_are_left_out() {
        let folder = tree(&["a"]);
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert_eq!(tree_digest(folder.path()).unwrap(), tree_digest(tree(&["a"]).path()).unwrap());
    }

    #[test]
    fn device_nodes_are_refused() {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        let folder = tree(&[]);
        match mknod(&folder.path().join("null"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)) {
            Ok(()) => {
                let error = tree_digest(folder.path()).unwrap_err().to_string();
                assert!(error.contains("null: a device node cannot be part"), "{error}");
            }
            Err(error) => crate::testing::skip(&format!("cannot make a device node: {error}")),
        }
    }
}
