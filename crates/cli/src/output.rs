//! Standard output.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Prints to standard output. Whoever reads only the first lines (`| head`) has what they wanted.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
