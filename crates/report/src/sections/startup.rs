//! Start-up: when each event came, how the sides compare, and where the time went.

use compare_spec::{Side, Unit};

use super::compared::{difference, is_clear, ratio, ready_verb};
use crate::{
    document::{Block, Cell, Column, Kind, Row, Table},
    figure::{ENDING, PHASES},
    units::Scale,
    view::View,
};

/// The least trials whose span holds their median with 95 % probability: 1 − 2^(1−n) ≥ 0.95.
const INTERVAL_NEEDS: u32 = 6;

/// The table of events, the comparison in words and the chart of steps.
pub(super) fn section(view: &View) -> Vec<Block> {
    let mark = view.lab_mark();
    let measure = if view.is_repeated() { "median ± MAD" } else { "one trial" };
    let mut blocks = vec![
        Block::Heading(format!("Start-up since the request, {measure}{mark}")),
        Block::Table(events(view)),
    ];
    blocks.extend(sentences(view));
    blocks.push(Block::Heading(format!("Where the time goes, step by step{mark}")));
    blocks.push(Block::Table(steps(view)));
    blocks
}

/// The caption of every table of the lab.
pub(super) fn caption(view: &View) -> Option<String> {
    view.is_lab().then(|| {
        "Lab: emulated AMD SVM machine. Times are virtual: compare them with each other, not with \
         hardware."
            .to_owned()
    })
}

fn events(view: &View) -> Table {
    let leaving = &ENDING[1..];
    let figures = || PHASES.iter().chain(leaving);
    let medians = view
        .sides
        .iter()
        .flat_map(|side| figures().filter_map(|figure| view.median(side, figure.name)));
    let scale = Scale::of(Unit::Ns, medians);

    let mut columns =
        vec![Column::new(format!("{}{}", view.virtual_mark(Unit::Ns), scale.name), Kind::Name)];
    columns.extend(view.sides.iter().map(|side| Column::new(side.label(), Kind::Number)));
    columns.push(Column::new("", Kind::Meaning));

    let row = |name: &str, meaning: &str, strong: bool, cell: &dyn Fn(&Side) -> Cell| {
        let cells = view.sides.iter().map(cell);
        let cells =
            [Cell::new(name)].into_iter().chain(cells).chain([Cell::new(meaning)]).collect();
        Row { cells, strong }
    };
    let median = |figure: &'static str| {
        move |side: &Side| {
            view.summary(side, figure).map_or_else(Cell::missing, |summary| {
                let tail = if summary.n > 1 {
                    format!("± {}", scale.show(summary.mad))
                } else {
                    String::new()
                };
                Cell::with_tail(scale.show(summary.median), tail)
            })
        }
    };
    let spread = |side: &Side| {
        view.summary(side, "ready").filter(|summary| summary.n > 1).map_or_else(
            Cell::missing,
            |summary| {
                Cell::with_tail(scale.show(summary.p5), format!("… {}", scale.show(summary.p95)))
            },
        )
    };
    let counts = |side: &Side| {
        let (ok, all) = view.counts(side);
        Cell::new(format!("{ok}/{all}"))
    };

    let seen = |name: &str| view.sides.iter().any(|side| view.summary(side, name).is_some());
    let mut rows = Vec::new();
    for figure in PHASES.iter().filter(|figure| seen(figure.name)) {
        rows.push(row(figure.name, figure.meaning, figure.name == "ready", &median(figure.name)));
    }
    if view.is_repeated() {
        rows.push(row("p5 … p95", "of ready", false, &spread));
    }
    for figure in leaving.iter().filter(|figure| seen(figure.name)) {
        rows.push(row(figure.name, figure.meaning, false, &median(figure.name)));
    }
    rows.push(row("trials", "ok / run; only ok ones count", false, &counts));
    Table { columns, rows, caption: caption(view) }
}

/// `ready` and the end of each side against the base, in words.
fn sentences(view: &View) -> Vec<Block> {
    let mut blocks = Vec::new();
    let Some((base, others)) = view.base_and_others() else {
        return blocks;
    };
    let verb = ready_verb(&view.record.plan.spec.workload.ready);
    for other in others {
        let (name, base) = (other.label(), base.label());
        if let Some(ready) = view.comparison(other, "ready") {
            let single = view.is_single(other, "ready");
            let doubt = if single || is_clear(ready) { "" } else { ", which may be none" };
            blocks.push(Block::Finding(format!(
                "{name} takes {} as long as {base} to {verb}: {}{doubt}.",
                ratio(ready, single),
                difference(view, ready, single),
            )));
        }
        // Until nothing of either is left; where that is not known of both, until it is released.
        let endings = [("teardown", "gone"), ("release", "released")];
        let ending = endings
            .into_iter()
            .find_map(|(figure, what)| Some((figure, what, view.comparison(other, figure)?)));
        if let Some((figure, what, ending)) = ending {
            let single = view.is_single(other, figure);
            blocks.push(Block::Note(format!(
                "Asked to stop, {name} takes {} as long to be {what}.",
                ratio(ending, single)
            )));
        }
    }
    let fewest =
        view.sides.iter().filter_map(|side| view.summary(side, "ready")).map(|one| one.n).min();
    if let Some(n) = fewest.filter(|n| (2..INTERVAL_NEEDS).contains(n)) {
        blocks.push(Block::Note(format!(
            "With {n} trials an interval is no more than the range seen: 95 % needs {INTERVAL_NEEDS}."
        )));
    }
    blocks
}

/// The way to `ready` cut at each event: differences of the medians above, so that they add up.
fn steps(view: &View) -> Table {
    let ready = view.sides.iter().filter_map(|side| view.median(side, "ready"));
    let axis = ready.fold(0.0, f64::max);
    let mut steps = Vec::new();
    for side in &view.sides {
        let mut before = 0.0;
        let total = view.median(side, "ready");
        let reached =
            PHASES.iter().filter_map(|figure| Some((figure.name, view.median(side, figure.name)?)));
        for (place, (name, at)) in reached.enumerate() {
            let label = if place == 0 { side.label() } else { String::new() };
            steps.push((label, name, before, at - before, total));
            before = at;
        }
    }
    let scale = Scale::of(Unit::Ns, steps.iter().map(|(.., length, _)| *length));
    let share = |part: f64, whole: f64| {
        let share = part / whole;
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    };
    let rows = steps
        .into_iter()
        .map(|(label, name, start, length, total)| {
            let percent = total.map_or_else(Cell::missing, |total| {
                Cell::new(format!("{:.0} %", 100.0 * share(length, total)))
            });
            let cells = vec![
                Cell::new(label),
                Cell::new(format!("→ {name}")),
                Cell::new(scale.show(length)),
                percent,
                Cell::Bar { start: share(start, axis), length: share(length, axis) },
            ];
            Row { cells, strong: false }
        })
        .collect();
    let columns = vec![
        Column::new("", Kind::Name),
        Column::new("until", Kind::Name),
        Column::new(format!("{}{}", view.virtual_mark(Unit::Ns), scale.name), Kind::Number),
        Column::new("share", Kind::Number),
        Column::new("", Kind::Bars),
    ];
    Table { columns, rows, caption: caption(view) }
}
