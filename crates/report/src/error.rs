//! What can be wrong with a record that is read back.

use std::path::PathBuf;

use compare_spec::SCHEMA;

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file could not be read.
    #[error("{file}: cannot read the record", file = path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is longer than any record of this tool.
    #[error("{file}: longer than {limit} bytes: not a record of this tool", file = path.display())]
    TooLong {
        /// The file asked for.
        path: PathBuf,
        /// The most bytes read.
        limit: u64,
    },
    /// Not JSON, or a field that is missing or has the wrong type.
    #[error(
        "{file}:{line}:{column}: {at}{problem}",
        file = path.display(),
        at = if field.is_empty() { String::new() } else { format!("field `{field}`: ") },
    )]
    Parse {
        /// The file asked for.
        path: PathBuf,
        /// Line of the problem, from 1.
        line: usize,
        /// Column, in bytes from 1.
        column: usize,
        /// Path of the field the problem is at, such as `trials[3].events_ns`; empty at the top.
        field: String,
        /// What is wrong, as the JSON parser words it.
        problem: String,
    },
    /// JSON, but not a record.
    #[error("{file}: not a record of this tool: it has no text field `schema`", file = path.display())]
    NotARecord {
        /// The file asked for.
        path: PathBuf,
    },
    /// A record of a version this build does not know.
    #[error("{file}: {found}: this build reads {SCHEMA}", file = path.display())]
    Schema {
        /// The file asked for.
        path: PathBuf,
        /// The version found there, quoted and cut short where it is not a plain name.
        found: String,
    },
}
