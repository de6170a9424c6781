//! A prepared root file system: one set of bytes in the two shapes the backends take it in.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A content-addressed root file system, ready to be booted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest over every path, mode, owner, type and content of the tree.
    pub digest: Digest,
    /// The tree as a directory: the container's read-only lower layer.
    pub tree: PathBuf,
    /// The same tree as an uncompressed EROFS image: the microVM's read-only root disk.
    pub erofs: PathBuf,
    /// Digest of the EROFS file's bytes.
    pub erofs_digest: Digest,
    /// Length of the EROFS file, bytes.
    pub erofs_bytes: u64,
    /// Numeric user, group and supplementary groups the workload runs as, resolved in the tree's
    /// own `/etc/passwd` and `/etc/group`.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}
