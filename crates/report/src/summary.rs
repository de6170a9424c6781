//! From trials to statistics: the summary of every figure and its comparison with the base.

use compare_spec::{Comparison, Outcome, Plan, Side, Summary, Trial};
use compare_stats::{difference_ci95, mad, median, median_ci95, outliers, percentile, ratio_ci95};

use crate::{
    figure::{self, Figure},
    view::{is_of, sides},
};

/// Bootstrap resamples behind every interval; docs/measurement.md asks for 2,000 at least. At 5,000 the
/// ends of an interval move by a few per cent of its width from seed to seed.
pub const RESAMPLES: usize = 5_000;

/// Statistics of every figure over the trials whose outcome is `ok`, and every other side set
/// against the first of the plan.
///
/// Figures are `created`, `kernel`, `init`, `exec`, `ready`, `stopped` (nanoseconds since the
/// request), `release` (`stopped` − `stop`), and `rss`, `pss`, `uss`, `vmm_overhead`,
/// `cgroup_current`, `cgroup_peak`, `guest_used` (bytes); the names carry no unit, since
/// [`Summary::unit`] does. A figure no trial has is left out. Start modes are kept apart; the
/// comparisons name a backend and its start mode as [`Side::label`] does.
/// A comparison is left out where the base has a value of 0, to which nothing has a ratio.
///
/// One value has no interval: `ci95` is that value twice and `n` is 1. Intervals are drawn from
/// the plan's seed, so equal trials give equal results. The numbers are finite.
pub fn summarise(trials: &[Trial], plan: &Plan) -> (Vec<Summary>, Vec<Comparison>) {
    let sides = sides(plan, trials);
    let mut summary = Vec::new();
    let mut comparisons = Vec::new();
    for side in &sides {
        let of_side =
            figure::all().filter_map(|figure| summarise_one(trials, side, figure, plan.seed));
        summary.extend(of_side);
    }
    let Some((base, others)) = sides.split_first() else {
        return (summary, comparisons);
    };
    for other in others {
        let of_both =
            figure::all().filter_map(|figure| compare_one(trials, base, other, figure, plan.seed));
        comparisons.extend(of_both);
    }
    (summary, comparisons)
}

fn summarise_one(trials: &[Trial], side: &Side, figure: &Figure, seed: u64) -> Option<Summary> {
    let (indices, values) = values(trials, side, figure);
    Some(Summary {
        backend: side.backend.clone(),
        start: side.start.clone(),
        figure: figure.name.to_owned(),
        n: u32::try_from(values.len()).ok()?,
        median: median(&values)?,
        ci95: median_ci95(&values, RESAMPLES, seed)?,
        p5: percentile(&values, 5.0)?,
        p95: percentile(&values, 95.0)?,
        mad: mad(&values)?,
        outliers: outliers(&values).into_iter().map(|place| indices[place]).collect(),
        unit: figure.unit,
    })
}

fn compare_one(
    trials: &[Trial],
    base: &Side,
    other: &Side,
    figure: &Figure,
    seed: u64,
) -> Option<Comparison> {
    let (_, base_values) = values(trials, base, figure);
    let (_, other_values) = values(trials, other, figure);
    let (base_median, other_median) = (median(&base_values)?, median(&other_values)?);
    Some(Comparison {
        figure: figure.name.to_owned(),
        base: base.label(),
        other: other.label(),
        difference: other_median - base_median,
        difference_ci95: difference_ci95(&base_values, &other_values, RESAMPLES, seed)?,
        ratio: other_median / base_median,
        ratio_ci95: ratio_ci95(&base_values, &other_values, RESAMPLES, seed)?,
        unit: figure.unit,
    })
}

/// A figure's values over the `ok` trials of a side, and those trials' indices.
fn values(trials: &[Trial], side: &Side, figure: &Figure) -> (Vec<u32>, Vec<f64>) {
    let ok = trials.iter().filter(|trial| trial.outcome == Outcome::Ok && is_of(side, trial));
    ok.filter_map(|trial| Some((trial.index, (figure.value)(trial)? as f64))).unzip()
}
