//! `compare schema`

use anyhow::Result;

use crate::{exit::Code, output::print};

pub fn run() -> Result<Code> {
    print(&format!("{}\n", compare_report::schema().trim_end()))?;
    Ok(Code::Success)
}
