//! A record seen from its sides: which columns a report has, and what stands in each.

use std::collections::BTreeSet;

use compare_spec::{Comparison, HostKind, Outcome, Plan, Record, Side, Summary, Trial, Unit};

use crate::units;

/// The most columns a report shows; the JSON holds the rest.
const MAX_SIDES: usize = 16;

/// The sides of a run: the plan's, then what else was run.
pub(crate) fn sides(plan: &Plan, trials: &[Trial]) -> Vec<Side> {
    let mut seen = BTreeSet::new();
    let ran = trials.iter().map(Trial::side);
    plan.sides().into_iter().chain(ran).filter(|side| seen.insert(side.clone())).collect()
}

/// Whether a trial belongs to a side.
pub(crate) fn is_of(side: &Side, trial: &Trial) -> bool {
    trial.backend == side.backend && trial.start == side.start
}

/// A record and its sides.
pub(crate) struct View<'a> {
    pub(crate) record: &'a Record,
    pub(crate) sides: Vec<Side>,
    /// Sides there was no room for.
    pub(crate) hidden: usize,
}

impl<'a> View<'a> {
    pub(crate) fn new(record: &'a Record) -> Self {
        let mut sides = sides(&record.plan.spec, &record.trials);
        let hidden = sides.len().saturating_sub(MAX_SIDES);
        sides.truncate(MAX_SIDES);
        Self { record, sides, hidden }
    }

    pub(crate) fn is_lab(&self) -> bool {
        self.record.host.kind == HostKind::Lab
    }

    /// The side every other is set against, and the others.
    pub(crate) fn base_and_others(&self) -> Option<(&Side, &[Side])> {
        self.sides.split_first()
    }

    pub(crate) fn trials(&self, side: &Side) -> impl Iterator<Item = &'a Trial> {
        let side = side.clone();
        self.record.trials.iter().filter(move |trial| is_of(&side, trial))
    }

    /// How many trials of a side were `ok`, and how many it had.
    pub(crate) fn counts(&self, side: &Side) -> (usize, usize) {
        let ok = self.trials(side).filter(|trial| trial.outcome == Outcome::Ok).count();
        (ok, self.trials(side).count())
    }

    pub(crate) fn summary(&self, side: &Side, figure: &str) -> Option<&'a Summary> {
        let of_side =
            |summary: &&Summary| summary.backend == side.backend && summary.start == side.start;
        self.record.summary.iter().filter(of_side).find(|summary| summary.figure == figure)
    }

    pub(crate) fn median(&self, side: &Side, figure: &str) -> Option<f64> {
        self.summary(side, figure).map(|summary| summary.median)
    }

    /// A side against the base.
    pub(crate) fn comparison(&self, other: &Side, figure: &str) -> Option<&'a Comparison> {
        let (base, other) = (self.sides.first()?.label(), other.label());
        let of_both =
            |comparison: &&Comparison| comparison.base == base && comparison.other == other;
        self.record.comparisons.iter().filter(of_both).find(|found| found.figure == figure)
    }

    /// Whether a figure of either side comes from a single trial, which bears no interval.
    pub(crate) fn is_single(&self, other: &Side, figure: &str) -> bool {
        let base = self.sides.first();
        let single = |side: &Side| self.summary(side, figure).is_some_and(|summary| summary.n < 2);
        single(other) || base.is_some_and(single)
    }

    /// Whether any figure comes from more than one trial, so that it has a spread.
    pub(crate) fn is_repeated(&self) -> bool {
        self.record.summary.iter().any(|summary| summary.n > 1)
    }

    /// A quantity in the unit that suits it; times of the lab say that they are virtual.
    pub(crate) fn quantity(&self, unit: Unit, value: f64) -> String {
        let (number, name) = units::quantity(unit, value);
        format!("{number} {}{name}", self.virtual_mark(unit))
    }

    /// What stands before a unit of time that is not of the real world.
    pub(crate) fn virtual_mark(&self, unit: Unit) -> &'static str {
        if self.is_lab() && unit == Unit::Ns { "virtual " } else { "" }
    }

    /// What stands behind the title of a table that was not taken on real hardware.
    pub(crate) fn lab_mark(&self) -> &'static str {
        if self.is_lab() { " (lab: emulated host)" } else { "" }
    }
}
