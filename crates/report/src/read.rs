//! A record read back from a file that anybody may have written.

use std::{fs::File, io::Read as _, path::Path};

use compare_spec::{Record, SCHEMA};
use serde::Deserialize;

use crate::{
    error::ReportError,
    locate::field_at,
    text::{clean, clip},
};

/// The most bytes read: thousands of trials, each with its output, take a tenth of it.
pub const MAX_RECORD_BYTES: u64 = 64 << 20;

/// Reads a record.
///
/// # Errors
/// The file cannot be read or is longer than [`MAX_RECORD_BYTES`]; it is not JSON, or has no
/// `schema`, or one this build does not know; a field is missing or has the wrong type. Whatever
/// the file holds, this returns.
pub fn read(path: &Path) -> Result<Record, ReportError> {
    let failed = |source| ReportError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_RECORD_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_RECORD_BYTES {
        return Err(ReportError::TooLong { path: path.to_owned(), limit: MAX_RECORD_BYTES });
    }
    parse(path, &bytes)
}

/// The version alone, whatever else a later version may hold.
#[derive(Deserialize)]
struct Head {
    schema: String,
}

/// Parses the bytes of a record; `path` is what errors call them.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Record, ReportError> {
    let broken = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        let position = format!(" at line {line} column {column}");
        let message = error.to_string();
        let problem = message.strip_suffix(&position).unwrap_or(&message);
        ReportError::Parse {
            path: path.to_owned(),
            line,
            column,
            field: clean(&field_at(bytes, line, column)),
            problem: clean(&clip(problem, 400)),
        }
    };
    let head: Head = match serde_json::from_slice(bytes) {
        Ok(head) => head,
        Err(error) if error.is_data() => {
            return Err(ReportError::NotARecord { path: path.to_owned() });
        }
        Err(error) => return Err(broken(error)),
    };
    if head.schema != SCHEMA {
        let found = clean(&clip(&head.schema, 60));
        return Err(ReportError::Schema { path: path.to_owned(), found });
    }
    serde_json::from_slice(bytes).map_err(broken)
}
