//! Memory: the figures users confuse, side by side, with what each one is.

use compare_spec::{Side, Unit};

use super::startup::caption;
use crate::{
    document::{Block, Cell, Column, Kind, Row, Table},
    figure::{Figure, MEMORY},
    units::{self, Scale},
    view::View,
};

/// The table of memory figures; nothing where none was taken.
pub(super) fn section(view: &View) -> Vec<Block> {
    let medians = || {
        let of_side = |side| MEMORY.iter().filter_map(move |figure| view.median(side, figure.name));
        view.sides.iter().flat_map(of_side)
    };
    if medians().next().is_none() {
        return vec![Block::Note("No memory figure could be taken.".to_owned())];
    }
    let scale = Scale::of(Unit::Bytes, medians());
    let (base, others) = (view.sides.first(), view.sides.get(1..).unwrap_or_default());

    let mut columns = vec![Column::new(scale.name, Kind::Name)];
    columns.extend(base.map(|side| Column::new(side.label(), Kind::Number)));
    columns.extend(others.iter().map(|side| Column::new(side.label(), Kind::Number)));
    if others.len() == 1 {
        columns.push(Column::new("difference", Kind::Number));
    }
    columns.push(Column::new("", Kind::Meaning));

    let value = |side: &Side, figure: &Figure| {
        view.median(side, figure.name)
            .map_or_else(Cell::missing, |median| Cell::new(scale.show(median)))
    };
    let ratio = |side: &Side, figure: &Figure| {
        let comparison = view.comparison(side, figure.name);
        comparison.map(|one| format!("({} ×)", units::ratio(one.ratio))).unwrap_or_default()
    };
    let difference = |side: &Side, figure: &Figure| {
        view.comparison(side, figure.name).map_or_else(Cell::missing, |comparison| {
            Cell::with_tail(scale.signed(comparison.difference), ratio(side, figure))
        })
    };
    let with_ratio = |side: &Side, figure: &Figure| match value(side, figure) {
        Cell::Text { text, .. } if others.len() > 1 => Cell::with_tail(text, ratio(side, figure)),
        cell => cell,
    };
    let rows = MEMORY.iter().map(|figure| {
        let mut cells = vec![Cell::new(figure.name)];
        cells.extend(base.map(|side| value(side, figure)));
        cells.extend(others.iter().map(|side| with_ratio(side, figure)));
        if let [other] = others {
            cells.push(difference(other, figure));
        }
        cells.push(Cell::new(figure.meaning));
        Row { cells, strong: figure.name == "cgroup_current" }
    });
    let measure = match (view.is_repeated(), base) {
        (false, _) => "one trial".to_owned(),
        (true, Some(base)) if others.len() > 1 => format!("median (ratio to {})", base.label()),
        _ => "median".to_owned(),
    };
    vec![
        Block::Heading(format!("Memory once ready and settled, {measure}{}", view.lab_mark())),
        Block::Table(Table { columns, rows: rows.collect(), caption: caption(view) }),
    ]
}
