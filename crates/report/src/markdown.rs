//! The report as GitHub-flavoured Markdown, for job summaries and comments.

use compare_spec::Record;

use crate::{
    document::{Block, Cell, Kind, Row, Table},
    sections,
    text::clean,
};

/// Characters of the longest bar.
const BARS: f64 = 24.0;

/// The report of a record as Markdown; the first line names the host. Text from the record is
/// escaped, so that it shows as it is and opens no markup of its own.
pub fn markdown(record: &Record) -> String {
    let mut out = String::new();
    let mut listing = false;
    for block in sections::report(record) {
        let item = matches!(block, Block::Item { .. });
        let goes_on = item && listing;
        if !out.is_empty() && !goes_on {
            out.push('\n');
        }
        listing = item;
        push(&mut out, &block);
    }
    out
}

fn push(out: &mut String, block: &Block) {
    match block {
        Block::Host(host) => line(out, &format!("host: {}", escape(host))),
        Block::Facts(facts) => {
            for (label, fact) in facts {
                line(out, &format!("- **{label}**: {}", escape(fact)));
            }
        }
        Block::Warning(text) => line(out, &format!("> **WARNING: {}**", escape(text))),
        Block::Heading(text) => line(out, &format!("### {}", escape(text))),
        Block::Table(table) => push_table(out, table),
        Block::Finding(text) => line(out, &format!("**{}**", escape(text))),
        Block::Note(text) => line(out, &escape(text)),
        Block::Item { text, quote } => {
            line(out, &format!("- {}", escape(text)));
            if !quote.is_empty() {
                let fence = fence(quote);
                line(out, &format!("  {fence}text"));
                for quoted in quote {
                    line(out, &format!("  {}", clean(quoted)));
                }
                line(out, &format!("  {fence}"));
            }
        }
    }
}

fn push_table(out: &mut String, table: &Table) {
    let titles: Vec<String> = table.columns.iter().map(|column| escape(&column.title)).collect();
    line(out, &format!("| {} |", titles.join(" | ")));
    let rules = table.columns.iter().map(|column| match column.kind {
        Kind::Number => "--:",
        Kind::Name | Kind::Bars | Kind::Meaning => ":--",
    });
    line(out, &format!("| {} |", rules.collect::<Vec<_>>().join(" | ")));
    for Row { cells, strong } in &table.rows {
        let kinds = table.columns.iter().map(|column| column.kind);
        let cells: Vec<String> = cells
            .iter()
            .zip(kinds)
            .map(|(cell, kind)| show(cell, *strong && kind != Kind::Meaning))
            .collect();
        line(out, &format!("| {} |", cells.join(" | ")));
    }
    if let Some(caption) = &table.caption {
        line(out, &format!("\n*{}*", escape(caption)));
    }
}

fn show(cell: &Cell, strong: bool) -> String {
    match cell {
        Cell::Text { text, tail } => {
            let text = escape(format!("{text} {tail}").trim());
            if strong && !text.is_empty() { format!("**{text}**") } else { text }
        }
        // No offset: HTML folds leading blanks.
        Cell::Bar { length, .. } => match (length * BARS).round() as usize {
            0 if *length > 0.0 => "▏".to_owned(),
            blocks => "█".repeat(blocks.min(BARS as usize)),
        },
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// Text with every character that could open markup or end a table's cell escaped. Underscores
/// are left alone inside words, where they mean nothing (GFM, section 6.2).
fn escape(text: &str) -> String {
    let cleaned = clean(text);
    let mut escaped = String::with_capacity(cleaned.len());
    let mut before = ' ';
    let mut chars = cleaned.chars().peekable();
    while let Some(c) = chars.next() {
        let in_word = before.is_alphanumeric() && chars.peek().is_some_and(|c| c.is_alphanumeric());
        match c {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '[' | ']' | '|' | '~' | '#' | '>' => escaped.extend(['\\', c]),
            '_' if !in_word => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
        before = c;
    }
    escaped
}

/// A fence longer than any run of backticks in what it encloses.
fn fence(lines: &[String]) -> String {
    let longest =
        lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_opens_markup() {
        assert_eq!(escape("a|b <img> `x` *y*"), "a\\|b &lt;img\\> \\`x\\` \\*y\\*");
        assert_eq!(escape("vmm_overhead _x_"), "vmm_overhead \\_x\\_");
        assert_eq!(fence(&["a ```` b".to_owned()]), "`````");
        assert_eq!(fence(&[]), "```");
    }
}
