//! `compare report FILE`, and the writing of every report.

use std::{fs, io::IsTerminal, path::Path};

use anyhow::{Context, Result};
use compare_report::Style;
use compare_spec::Record;

use crate::{
    args::{Exports, Report},
    exit::Code,
    output::print,
};

pub fn run(report: Report) -> Result<Code> {
    let record = compare_report::read(&report.file)?;
    publish(&record, &report.exports)?;
    Ok(Code::Success)
}

/// Prints the report and writes every file asked for.
///
/// # Errors
/// A file cannot be written. The report is printed all the same.
pub fn publish(record: &Record, exports: &Exports) -> Result<()> {
    type Render = fn(&Record) -> String;
    let texts: [(&Option<_>, Render); 3] = [
        (&exports.export_json, compare_report::json),
        (&exports.export_markdown, compare_report::markdown),
        (&exports.export_csv, compare_report::csv),
    ];
    let wanted = || texts.iter().filter_map(|(path, render)| Some((path.as_deref()?, render)));
    if wanted().all(|(path, _)| path != Path::new("-")) {
        let out = std::io::stdout();
        let color = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let width = if out.is_terminal() { terminal_width() } else { 80 };
        print(&compare_report::terminal(record, Style { color, width }))?;
    }
    for (path, render) in wanted() {
        if path == Path::new("-") {
            print(&render(record))?;
        } else {
            write(path, &render(record))?;
        }
    }
    Ok(())
}

/// Checks, before a run, that every file asked for can be written: a long run must not end in a
/// mistyped path.
///
/// # Errors
/// One cannot.
pub fn check(exports: &Exports) -> Result<()> {
    for path in
        [&exports.export_json, &exports.export_markdown, &exports.export_csv].into_iter().flatten()
    {
        if path != Path::new("-") {
            let existed = path.exists();
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("{}: cannot be written", path.display()))?;
            if !existed {
                let _ = fs::remove_file(path);
            }
        }
    }
    Ok(())
}

/// Replaces a file in one step, so that no half-written record is ever found.
fn write(path: &Path, text: &str) -> Result<()> {
    let context = || format!("{}: cannot be written", path.display());
    // Devices and pipes cannot be replaced, links should stay what they are.
    if fs::symlink_metadata(path).is_ok_and(|facts| !facts.is_file()) {
        return fs::write(path, text).with_context(context);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })
        .with_context(context)
}

fn terminal_width() -> usize {
    let (_, columns) = console::Term::stdout().size();
    usize::from(columns).clamp(60, 120)
}
