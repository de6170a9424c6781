//! The wording of a comparison: a ratio or a difference with its interval.

use compare_spec::{Comparison, Readiness};

use crate::{
    units::{self, Scale},
    view::View,
};

/// `7.31 × (95 % CI 7.29–7.34)`.
pub(super) fn ratio(comparison: &Comparison, single: bool) -> String {
    let (low, high) = units::ratio_ends(comparison.ratio, comparison.ratio_ci95);
    let interval = interval(&low, &high, single);
    format!("{} × ({interval})", units::ratio(comparison.ratio))
}

/// `61.3 ms more (95 % CI 61.1–61.5)`; the ends without sign, since they say `more` as well.
/// Where the sign is in doubt: `difference -0.10 ms (95 % CI -0.30 to 0.20)`.
pub(super) fn difference(view: &View, comparison: &Comparison, single: bool) -> String {
    let Comparison { difference, difference_ci95: [low, high], unit, .. } = *comparison;
    let size = [difference, low, high].into_iter().map(f64::abs).fold(0.0, f64::max);
    let scale = Scale::of_three_digits(unit, size);
    let unit = format!("{}{}", view.virtual_mark(unit), scale.name);
    let with = |value: f64, ends: [f64; 2]| {
        let (low, high) = scale.ends(ends);
        (scale.show(value), interval(&low, &high, single))
    };
    if single || is_clear(comparison) {
        let less = difference < 0.0;
        let ends = if less { [-high, -low] } else { [low, high] };
        let (number, interval) = with(difference.abs(), ends);
        return format!("{number} {unit} {} ({interval})", if less { "less" } else { "more" });
    }
    let (number, interval) = with(difference, [low, high]);
    format!("difference {number} {unit} ({interval})")
}

/// Whether the interval of the difference leaves no doubt about its sign.
pub(super) fn is_clear(comparison: &Comparison) -> bool {
    let [low, high] = comparison.difference_ci95;
    low > 0.0 || high < 0.0
}

/// What a workload does when it becomes ready, after `to`.
pub(super) fn ready_verb(ready: &Readiness) -> &'static str {
    match ready {
        Readiness::Exit(_) => "run to its exit",
        Readiness::Log(_) => "write the line awaited",
        Readiness::Tcp {} => "accept its first connection",
        Readiness::Http(_) => "answer its first request",
    }
}

fn interval(low: &str, high: &str, single: bool) -> String {
    if single {
        return "n = 1: no interval".to_owned();
    }
    let dash = if low.starts_with('-') || high.starts_with('-') { " to " } else { "–" };
    format!("95 % CI {low}{dash}{high}")
}
