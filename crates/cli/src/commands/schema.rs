//! `compare schema`

use anyhow::Result;

use crate::exit::Code;

pub fn run() -> Result<Code> {
    println!("{}", compare_report::schema().trim_end());
    Ok(Code::Success)
}
