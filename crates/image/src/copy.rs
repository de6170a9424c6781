//! Copies a tree of the host into a root, never through a link and never out of it.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    error::{At, Result},
    rooted::Root,
    tree::walk,
};

/// Copies what `keep` accepts of everything below `source` to the same place below `to` in `root`:
/// content, type, permission bits, links. Owners become those of this process, and extended
/// attributes are left behind. Returns how many entries belong to someone other than root, a fact
/// that no image keeps.
pub(crate) fn copy_tree(
    source: &Path,
    root: &Root,
    to: &Path,
    keep: impl Fn(&Path) -> bool,
) -> Result<u64> {
    let mut foreign = 0;
    let mut names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut modes: Vec<(PathBuf, u32)> = Vec::new();
    for (path, facts) in walk(source)? {
        if !keep(&path) {
            continue;
        }
        let (outside, inside) = (source.join(&path), to.join(&path));
        let (kind, mode) = (facts.file_type(), facts.mode() & 0o7777);
        foreign += u64::from(facts.uid() != 0 || facts.gid() != 0);
        if kind.is_dir() {
            // The mode comes last: it may forbid its owner to write.
            if root.directory(&inside)? || path.as_os_str().is_empty() {
                modes.push((inside, mode));
            }
        } else if kind.is_symlink() {
            root.symlink(&inside, &fs::read_link(&outside).at("read", &outside)?)?;
        } else if !kind.is_file() {
            root.fifo(&inside, mode)?;
        } else if let Some(first) = names.get(&(facts.dev(), facts.ino())) {
            root.hard_link(&inside, first)?;
        } else {
            root.copy(&inside, mode, &outside)?;
            if facts.nlink() > 1 {
                names.insert((facts.dev(), facts.ino()), inside);
            }
        }
    }
    for (path, mode) in modes.iter().rev() {
        root.set_directory_mode(path, *mode)?;
    }
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::tree::tree_digest;

    #[test]
    fn a_copy_is_the_same_tree() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("closed/sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("closed/sub/tool"), "x").unwrap();
        fs::hard_link(from.join("closed/sub/tool"), from.join("again")).unwrap();
        fs::set_permissions(from.join("again"), fs::Permissions::from_mode(0o6755)).unwrap();
        fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o1555)).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        copy_tree(&from, &Root::open(&to).unwrap(), Path::new(""), |_| true).unwrap();
        assert_eq!(tree_digest(&from).unwrap(), tree_digest(&to).unwrap());
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        copy_tree(&from, &Root::open(&other).unwrap(), Path::new("below"), |path| {
            !path.starts_with("closed")
        })
        .unwrap();
        assert!(other.join("below/again").exists() && !other.join("below/closed").exists());
        for closed in [from.join("closed"), to.join("closed")] {
            fs::set_permissions(closed, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}
