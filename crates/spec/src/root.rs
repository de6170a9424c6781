//! What a microVM's root disk is to its guest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The device a microVM has its root file system on.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RootDevice {
    /// A virtio block device: what the guest reads is copied into its RAM.
    #[default]
    Blk,
    /// Virtio persistent memory, used in place (DAX): the guest maps the host's page cache.
    Pmem,
}

impl RootDevice {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Blk, Self::Pmem];

    /// As plans, records and command lines write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blk => "blk",
            Self::Pmem => "pmem",
        }
    }

    /// What a backend of microVMs with this root is called: never the same as another's, so that no
    /// figure of one can pass for the other's.
    pub const fn microvm(self) -> &'static str {
        match self {
            Self::Blk => "microvm",
            Self::Pmem => "microvm-pmem",
        }
    }
}
