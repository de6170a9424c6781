//! Reports: what a run's record says, for people and for programs. It never runs anything; every
//! report can be made again from the saved record alone.
//!
//! ```text
//! trials ── summarise ──► record ── json ──► file ── read ──► record
//!                            ├── sections ──► document ──► terminal, markdown
//!                            └── csv
//! ```
//!
//! The sections say what stands where, once; the two renderers only know how a table or a warning
//! looks. A record comes from a file somebody else may have written, so its strings are cleaned of
//! control characters before they reach a terminal.

mod csv;
mod document;
mod error;
mod figure;
mod json;
mod locate;
mod markdown;
mod read;
mod sections;
mod summary;
mod terminal;
mod text;
mod units;
mod view;

pub use csv::csv;
pub use error::ReportError;
pub use json::{json, schema};
pub use markdown::markdown;
pub use read::{MAX_RECORD_BYTES, read};
pub use summary::{RESAMPLES, summarise};
pub use terminal::{Style, terminal};

#[cfg(test)]
mod tests;
