//! What pages a microVM's memory is made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::RootDevice;

/// The pages the host gives a microVM for its RAM.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum MemoryPages {
    /// Of 4 KiB, each when the guest first touches it. The host may still make huge ones of them where
    /// its transparent huge pages are `always`.
    #[default]
    Normal,
    /// Of 2 MiB where the host has such a page free (transparent huge pages, madvise(2)).
    Thp,
}

impl MemoryPages {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Thp];

    /// As plans, records and command lines write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Thp => "thp",
        }
    }

    /// What a backend of microVMs with such memory and this root is called: never the same as
    /// another's, so that no figure of one can pass for the other's.
    pub const fn microvm(self, root: RootDevice) -> &'static str {
        match self {
            Self::Normal => root.microvm(),
            Self::Thp => "microvm-thp",
        }
    }
}
