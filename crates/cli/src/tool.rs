//! What this program is and where its companions are.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};
use compare_spec::ToolRecord;

/// What `compare --version` says after the name: also that this is not ImageMagick's `compare`.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (container against microVM, measured side by side)");

/// The program's identity for the record.
pub fn record() -> ToolRecord {
    ToolRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: option_env!("COMPARE_REVISION").map(str::to_owned),
        dirty: option_env!("COMPARE_DIRTY").and_then(|dirty| dirty.parse().ok()),
    }
}

/// A program built along with this one, which lies beside it.
///
/// # Errors
/// It is not there.
pub fn companion(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where this program lies")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!(
            "{} is missing: build the whole workspace (`cargo build --release --workspace`)",
            path.display()
        );
    }
    Ok(path)
}
