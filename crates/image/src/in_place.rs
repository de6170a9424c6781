//! The same tree as an image whose files can be used in place, as persistent memory: each file in blocks
//! of its own. Otherwise the end of a file lies behind its inode, which is smaller and saves a read, but
//! Linux then copies the whole file (`erofs_read_inode`, fs/erofs/inode.c, where it sets `S_DAX`).

use std::{path::Path, time::Instant};

use compare_spec::{Digest, Image};
use serde::{Deserialize, Serialize};

use crate::{
    cache::{Cache, Kind, Recipe},
    erofs::{self, Layout},
    error::Result,
    manifest::{read_manifest, write_manifest},
    progress::Progress,
};

/// Name in the directory of an entry.
const EROFS: &str = "rootfs.erofs";

#[derive(Debug, Serialize, Deserialize)]
struct Made {
    erofs_digest: Digest,
    erofs_bytes: u64,
}

/// Makes that image from the tree of `image`, or finds it in the cache; all else stays as it is.
///
/// # Errors
/// The cache cannot be written.
pub fn in_place(cache: &Cache, image: &Image, progress: &dyn Progress) -> Result<Image> {
    let begin = Instant::now();
    let name = "root disk to be used in place";
    let key = Digest::of(format!("in place {}", image.digest).as_bytes());
    let build = |staging: &Path| {
        progress.step(name);
        let path = staging.join(EROFS);
        let (erofs_digest, erofs_bytes) = erofs::make(&image.tree, &path, Layout::InPlace)?;
        write_manifest(staging, &Made { erofs_digest, erofs_bytes })
    };
    let open = |entry: &Path| {
        let made: Made = read_manifest(entry)?;
        erofs::check(&entry.join(EROFS), made.erofs_bytes, entry)?;
        Ok(made)
    };
    let recipe = Recipe { kind: Kind::Image, key: &key, what: name, refresh: false };
    let entry = cache.entry(recipe, progress, build, open)?;
    progress.done(name, begin.elapsed(), entry.cached);
    let Made { erofs_digest, erofs_bytes } = entry.value;
    let erofs = cache.path(Kind::Image, &key).join(EROFS);
    Ok(Image { erofs, erofs_digest, erofs_bytes, ..image.clone() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Silent, tree_digest, verify};

    #[test]
    fn files_get_blocks_of_their_own() {
        if !crate::testing::has("mkfs.erofs") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for number in 0..100 {
            fs::write(tree.join(number.to_string()), "short").unwrap();
        }
        let packed = folder.path().join("packed.erofs");
        let (erofs_digest, erofs_bytes) = erofs::make(&tree, &packed, Layout::Packed).unwrap();
        let image = Image {
            digest: tree_digest(&tree).unwrap().digest,
            tree,
            erofs: packed,
            erofs_digest,
            erofs_bytes,
            uid: 0,
            gid: 0,
            groups: vec![7],
        };
        let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
        let first = in_place(&cache, &image, &Silent).unwrap();
        assert!(erofs_bytes < 20 * 4096, "{erofs_bytes} bytes");
        assert!(first.erofs_bytes > 100 * 4096, "{} bytes", first.erofs_bytes);
        assert_eq!((&first.digest, &first.groups), (&image.digest, &image.groups));
        verify(&first).unwrap();
        assert_eq!(in_place(&cache, &image, &Silent).unwrap(), first);
    }
}
