//! The ways a backend starts, and the sides of a comparison: a backend in one of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The way an instance starts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum StartMode {
    /// Everything is booted or created anew.
    #[default]
    Cold,
    /// It goes on from a snapshot: an instance that was started once, was ready, and was saved.
    Restored,
}

impl StartMode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Cold, Self::Restored];

    /// As plans and records write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Restored => "restored",
        }
    }
}

/// A backend in one start mode: a column of every table. Start modes are never mixed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side {
    /// Name of the backend.
    pub backend: String,
    /// Start mode, as [`StartMode::as_str`] writes it.
    pub start: String,
}

impl Side {
    /// The name in tables and in comparisons: the backend's, and behind it the start mode where it
    /// is not `cold`.
    pub fn label(&self) -> String {
        match self.start.as_str() {
            "cold" => self.backend.clone(),
            start => format!("{} {start}", self.backend),
        }
    }
}
