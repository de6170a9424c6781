//! The report for a terminal: aligned, within a width, readable with and without colour.

mod table;

use compare_spec::Record;

use crate::{
    document::Block,
    sections,
    text::{clean, clip, fold, wrap},
};

/// Below this many columns no table can be read.
const MIN_WIDTH: usize = 40;
/// Lines longer than this are hard to read, however wide the terminal.
const MAX_WIDTH: usize = 120;

/// The most characters of one paragraph: more is not meant to be read.
const MAX_TEXT: usize = 2_000;

/// How a terminal report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether to use ANSI colours. Nothing is told by colour alone.
    pub color: bool,
    /// Columns to fill at most; kept between 40 and 120. Only a table whose first two columns are
    /// wider than that, because of long names, goes beyond.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { color: false, width: 80 }
    }
}

/// What a piece of text is, which colour underlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Strong,
    Faint,
    Bar,
    Alarm,
}

impl Style {
    /// `text` in a tone (ECMA-48, Select Graphic Rendition).
    fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            _ if !self.color || text.trim().is_empty() => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Bar => "36",
            Tone::Alarm => "1;33",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The report of a record as lines of text, each ended. Control characters from the record are
/// replaced, so nothing in it can drive the terminal.
pub fn terminal(record: &Record, style: Style) -> String {
    let style = Style { width: style.width.clamp(MIN_WIDTH, MAX_WIDTH), ..style };
    let mut page = Page { style, out: String::new() };
    let blocks = sections::report(record);
    let mut before = None;
    for block in &blocks {
        if before.is_some_and(|before| is_apart(before, block)) {
            page.out.push('\n');
        }
        page.block(block);
        before = Some(block);
    }
    page.out
}

/// Whether an empty line stands between two blocks.
fn is_apart(before: &Block, block: &Block) -> bool {
    match (before, block) {
        (Block::Heading(_), _) => false,
        (Block::Warning(_), Block::Warning(_)) => false,
        (_, Block::Finding(_) | Block::Note(_)) => matches!(before, Block::Table(_)),
        (_, Block::Item { .. }) => false,
        _ => true,
    }
}

struct Page {
    style: Style,
    out: String,
}

impl Page {
    fn block(&mut self, block: &Block) {
        match block {
            Block::Host(host) => self.paragraph("host: ", host, Tone::Strong),
            Block::Facts(facts) => {
                let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
                for (label, fact) in facts {
                    self.paragraph(&format!("  {label:width$}  "), fact, Tone::Plain);
                }
            }
            Block::Warning(text) => self.paragraph("WARNING: ", text, Tone::Alarm),
            Block::Heading(text) => self.paragraph("", text, Tone::Strong),
            Block::Table(table) => {
                for line in table::lines(table, self.style) {
                    self.line(&line);
                }
            }
            Block::Finding(text) => self.paragraph("  ", text, Tone::Strong),
            Block::Note(text) => self.paragraph("  ", text, Tone::Plain),
            Block::Item { text, quote } => {
                self.paragraph("  - ", text, Tone::Plain);
                quote.iter().for_each(|line| self.quote(line));
            }
        }
    }

    /// A line of output behind a mark; what is too long goes on below, further in.
    fn quote(&mut self, line: &str) {
        // Two blanks less, for those that go on.
        let width = self.style.width - 8;
        let parts = fold(&clip(&clean(line), 4 * width), width);
        for (number, part) in parts.iter().enumerate() {
            let indent = if number == 0 { "" } else { "  " };
            self.line(&format!(
                "    {}",
                self.style.paint(&format!("| {indent}{}", part.trim_end()), Tone::Faint)
            ));
        }
    }

    /// Wrapped text whose first line starts with `lead` and whose others stand below its end. A
    /// lead before plain text steps back.
    fn paragraph(&mut self, lead: &str, text: &str, tone: Tone) {
        let indent = lead.chars().count();
        for (number, line) in
            wrap(&clean(&clip(text, MAX_TEXT)), self.style.width - indent).iter().enumerate()
        {
            let lead = if number == 0 { lead.to_owned() } else { " ".repeat(indent) };
            self.line(&if tone == Tone::Plain {
                format!("{}{line}", self.style.paint(&lead, Tone::Faint))
            } else {
                self.style.paint(&format!("{lead}{line}"), tone)
            });
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }
}
