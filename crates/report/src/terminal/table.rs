//! A table in columns of characters. Where it is too wide it first loses its explanations, then is
//! cut into tables below each other that repeat the rows' names.

use super::{Style, Tone};
use crate::{
    document::{Cell, Column, Kind, Row, Table},
    text::{clean, clip},
};

const INDENT: usize = 2;
/// Blank characters between columns: as many of these as fit.
const GAPS: [usize; 2] = [3, 2];
/// The most characters of a cell.
const MAX_CELL: usize = 40;
/// The least and most characters of an axis of bars.
const BARS: (usize, usize) = (12, 44);
/// Parts of a character cell, in eighths (Unicode block elements).
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// The lines of a table.
pub(super) fn lines(table: &Table, style: Style) -> Vec<String> {
    let layout = Layout::new(table);
    let all: Vec<usize> = (0..table.columns.len()).collect();
    let terse: Vec<usize> =
        all.iter().copied().filter(|&place| table.columns[place].kind != Kind::Meaning).collect();
    for shown in [&all, &terse] {
        if let Some(gap) = GAPS.into_iter().find(|gap| layout.width(shown, *gap) <= style.width) {
            return layout.render(shown, gap, style);
        }
    }
    let mut lines = Vec::new();
    let mut rest = terse.get(1..).unwrap_or_default();
    while !rest.is_empty() {
        let mut part = vec![0, rest[0]];
        rest = &rest[1..];
        while let Some((next, others)) = rest.split_first()
            && layout.width(&[part.as_slice(), &[*next]].concat(), GAPS[1]) <= style.width
        {
            part.push(*next);
            rest = others;
        }
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(layout.render(&part, GAPS[1], style));
    }
    lines
}

/// A cleaned table and the widths of its columns.
struct Layout {
    heads: Vec<(String, Kind)>,
    rows: Vec<Row>,
    widths: Vec<Widths>,
}

/// Characters of a column: in all, and of the sub-column at its right end.
#[derive(Clone, Copy, Default)]
struct Widths {
    total: usize,
    tail: usize,
}

impl Layout {
    fn new(table: &Table) -> Self {
        let heads: Vec<(String, Kind)> = table
            .columns
            .iter()
            .map(|Column { title, kind }| (clean(&clip(title, MAX_CELL)), *kind))
            .collect();
        let rows: Vec<Row> = table.rows.iter().map(cleaned).collect();
        let widths = heads.iter().enumerate().map(|(place, (title, kind))| {
            if *kind == Kind::Bars {
                return Widths { total: BARS.0, tail: 0 };
            }
            let mut text = 0;
            let mut tail = 0;
            for row in &rows {
                if let Some(Cell::Text { text: main, tail: rest }) = row.cells.get(place) {
                    text = text.max(length(main));
                    tail = tail.max(length(rest));
                }
            }
            let joined = if tail > 0 { text + 1 + tail } else { text };
            Widths { total: joined.max(length(title)), tail }
        });
        let widths = widths.collect();
        Self { heads, rows, widths }
    }

    fn width(&self, shown: &[usize], gap: usize) -> usize {
        let columns: usize = shown.iter().map(|&place| self.widths[place].total).sum();
        INDENT + columns + gap * shown.len().saturating_sub(1)
    }

    fn render(&self, shown: &[usize], gap: usize, style: Style) -> Vec<String> {
        let spare = style.width.saturating_sub(self.width(shown, gap));
        let bars = (BARS.0 + spare).min(BARS.1);
        let separator = " ".repeat(gap);
        let join = |cells: Vec<String>| format!("{}{}", " ".repeat(INDENT), cells.join(&separator));

        let heads = shown.iter().map(|&place| {
            let (title, kind) = &self.heads[place];
            let width = self.widths[place].total;
            let padded = match kind {
                Kind::Number => format!("{title:>width$}"),
                _ => format!("{title:width$}"),
            };
            style.paint(&padded, Tone::Faint)
        });
        let mut lines = vec![join(heads.collect())];
        for row in &self.rows {
            let cells = shown.iter().map(|&place| match row.cells.get(place) {
                Some(Cell::Text { text, tail }) => {
                    let tone = match self.heads[place].1 {
                        Kind::Meaning => Tone::Faint,
                        _ if row.strong => Tone::Strong,
                        _ => Tone::Plain,
                    };
                    style.paint(&self.padded(place, text, tail), tone)
                }
                Some(Cell::Bar { start, length }) => {
                    style.paint(&bar(*start, *length, bars), Tone::Bar)
                }
                None => String::new(),
            });
            lines.push(join(cells.collect()));
        }
        lines
    }

    fn padded(&self, place: usize, text: &str, tail: &str) -> String {
        let Widths { total, tail: tail_width } = self.widths[place];
        if self.heads[place].1 == Kind::Meaning {
            return text.to_owned();
        }
        if self.heads[place].1 != Kind::Number {
            return format!("{text:total$}");
        }
        if tail_width == 0 {
            return format!("{text:>total$}");
        }
        let main = total - tail_width - 1;
        format!("{text:>main$} {tail:tail_width$}")
    }
}

fn cleaned(row: &Row) -> Row {
    let cells = row.cells.iter().map(|cell| match cell {
        Cell::Text { text, tail } => {
            Cell::with_tail(clean(&clip(text, MAX_CELL)), clean(&clip(tail, MAX_CELL)))
        }
        bar => bar.clone(),
    });
    Row { cells: cells.collect(), strong: row.strong }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A bar on an axis of `width` characters. It starts at a whole character and ends at an eighth of
/// one; what is there at all shows at least one eighth.
fn bar(start: f64, length: f64, width: usize) -> String {
    if length <= 0.0 || width == 0 {
        return String::new();
    }
    let first = ((start * width as f64).round() as usize).min(width - 1);
    let eighths = ((length * width as f64 * 8.0).round() as usize).clamp(1, (width - first) * 8);
    format!("{}{}{}", " ".repeat(first), "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_start_and_end_where_they_should() {
        assert_eq!(bar(0.0, 1.0, 4), "████");
        assert_eq!(bar(0.5, 0.5, 4), "  ██");
        assert_eq!(bar(0.0, 0.0001, 4), "▏");
        assert_eq!(bar(1.0, 0.2, 4), "   ▊");
        assert_eq!(bar(0.2, 0.0, 4), "");
    }

    #[test]
    fn a_table_too_wide_is_cut_and_repeats_its_names() {
        let columns = std::iter::once(Column::new("ms", Kind::Name))
            .chain((0..6).map(|n| Column::new(format!("backend-{n}"), Kind::Number)))
            .chain([Column::new("", Kind::Meaning)])
            .collect();
        let cells = std::iter::once(Cell::new("ready"))
            .chain((0..6).map(|n| Cell::with_tail(format!("{n}.00"), "± 0.01")))
            .chain([Cell::new("explained")])
            .collect();
        let table = Table { columns, rows: vec![Row { cells, strong: true }], caption: None };
        let lines = lines(&table, Style { color: false, width: 40 });
        assert_eq!(lines.iter().filter(|line| line.contains("ready")).count(), 3, "{lines:#?}");
        assert!(lines.iter().all(|line| length(line) <= 40), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("explained")));
    }
}
