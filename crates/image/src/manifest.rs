//! What is written down beside a root file system: its digests, and where its bytes came from.

use std::{fs, path::Path};

use compare_spec::Digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{At, Error, Result};

/// File name of manifests in their entries.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The facts of one root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Digest of the tree.
    pub digest: Digest,
    /// Digest of the EROFS file.
    pub erofs_digest: Digest,
    /// Length of the EROFS file, bytes.
    pub erofs_bytes: u64,
    /// Files, links and pipes in the tree.
    pub files: u64,
    /// Bytes of all regular files in the tree.
    pub bytes: u64,
    /// The packages anything was taken from, sorted by name.
    pub packages: Vec<PackageVersion>,
}

/// One package of the distribution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageVersion {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// Whether all of it is there, or only the libraries that others need.
    pub whole: bool,
}

/// Writes any manifest into the directory of an entry.
pub(crate) fn write_manifest(entry: &Path, manifest: &impl Serialize) -> Result<()> {
    let path = entry.join(MANIFEST);
    let text = serde_json::to_vec_pretty(manifest).expect("manifests have string keys only");
    fs::write(&path, text).at("write", &path)
}

/// Reads it back.
pub(crate) fn read_manifest<T: DeserializeOwned>(entry: &Path) -> Result<T> {
    let path = entry.join(MANIFEST);
    let text = fs::read(&path).at("read", &path)?;
    serde_json::from_slice(&text).map_err(|error| Error::Corrupt {
        problem: error.to_string(),
        path,
        entry: entry.to_owned(),
    })
}
