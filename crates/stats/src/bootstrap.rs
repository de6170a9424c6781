//! Percentile-bootstrap confidence intervals of a median and of the difference and the ratio of
//! two (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13). No normal
//! distribution is assumed, which start-up times do not have.
//!
//! Few values bear no such interval, however many resamples are drawn: the span from the least to
//! the greatest of n values holds the median with probability 1 − 2^(1−n), which reaches 95 % at
//! n = 6.

use crate::{
    order::{finite, interpolate, middle},
    random::SplitMix64,
};

/// The least number of resamples: below it the ends of a 95 % interval rest on fewer than 50
/// resamples each. A smaller number asked for is raised to it.
pub const MIN_RESAMPLES: usize = 2_000;

/// The 95 % interval of the median: `[low, high]`, in the unit of `values`.
///
/// One value gives that value twice, which is no interval. `None` for no values, or for any that
/// is not finite.
pub fn median_ci95(values: &[f64], resamples: usize, seed: u64) -> Option<[f64; 2]> {
    let values = finite(values)?;
    let mut draw = Resampler::new(&values);
    interval(resamples, seed, |random| draw.median(random))
}

/// The 95 % interval of median(`other`) − median(`base`): `[low, high]`, in their unit. The two
/// are resampled independently of each other.
///
/// `None` where either has no values or any that is not finite.
pub fn difference_ci95(
    base: &[f64],
    other: &[f64],
    resamples: usize,
    seed: u64,
) -> Option<[f64; 2]> {
    interval_of_two(base, other, resamples, seed, |base, other| other - base)
}

/// The 95 % interval of median(`other`) ÷ median(`base`): `[low, high]`, without unit.
///
/// `None` where either has no values or any that is not finite, and where a value of `base` is
/// not positive: durations and sizes have no ratio to nothing.
pub fn ratio_ci95(base: &[f64], other: &[f64], resamples: usize, seed: u64) -> Option<[f64; 2]> {
    if base.iter().any(|value| *value <= 0.0) {
        return None;
    }
    interval_of_two(base, other, resamples, seed, |base, other| other / base)
}

fn interval_of_two(
    base: &[f64],
    other: &[f64],
    resamples: usize,
    seed: u64,
    statistic: impl Fn(f64, f64) -> f64,
) -> Option<[f64; 2]> {
    let (base, other) = (finite(base)?, finite(other)?);
    let (mut base, mut other) = (Resampler::new(&base), Resampler::new(&other));
    interval(resamples, seed, |random| statistic(base.median(random), other.median(random)))
}

/// Draws the statistic and takes the 2.5th and 97.5th percentile of what came.
fn interval(
    resamples: usize,
    seed: u64,
    mut draw: impl FnMut(&mut SplitMix64) -> f64,
) -> Option<[f64; 2]> {
    let mut random = SplitMix64::new(seed);
    let mut drawn: Vec<f64> =
        (0..resamples.max(MIN_RESAMPLES)).map(|_| draw(&mut random)).collect();
    if !drawn.iter().all(|value| value.is_finite()) {
        return None;
    }
    drawn.sort_unstable_by(f64::total_cmp);
    Some([interpolate(&drawn, 2.5)?, interpolate(&drawn, 97.5)?])
}

/// Medians of samples drawn with replacement; one buffer for all of them.
struct Resampler<'a> {
    values: &'a [f64],
    sample: Vec<f64>,
}

impl<'a> Resampler<'a> {
    fn new(values: &'a [f64]) -> Self {
        Self { values, sample: values.to_vec() }
    }

    fn median(&mut self, random: &mut SplitMix64) -> f64 {
        for place in &mut self.sample {
            *place = self.values[random.below(self.values.len())];
        }
        middle(&mut self.sample)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: [f64; 8] = [17.1, 16.9, 17.4, 17.0, 18.2, 16.8, 17.3, 17.2];
    const OTHER: [f64; 7] = [78.0, 79.1, 77.7, 78.4, 78.2, 80.3, 77.9];

    /// The same numbers from an independent implementation in Python (`statistics.median`, big
    /// integers): they must never change.
    #[test]
    fn pinned() {
        let close = |got: Option<[f64; 2]>, want: [f64; 2]| {
            let got = got.unwrap();
            assert!((got[0] - want[0]).abs() + (got[1] - want[1]).abs() < 1e-9, "{got:?}");
        };
        close(median_ci95(&BASE, 2000, 1), [16.9, 17.4]);
        close(difference_ci95(&BASE, &OTHER, 2000, 1), [60.6, 62.1]);
        close(ratio_ci95(&BASE, &OTHER, 2000, 1), [4.489_913_544_668, 4.652_818_991_098]);
    }

    #[test]
    fn one_value_is_a_point() {
        assert_eq!(median_ci95(&[3.0], 2000, 9), Some([3.0, 3.0]));
        assert_eq!(difference_ci95(&[3.0], &[4.0], 2000, 9), Some([1.0, 1.0]));
        assert_eq!(ratio_ci95(&[3.0], &[6.0], 2000, 9), Some([2.0, 2.0]));
    }

    #[test]
    fn no_interval_of_nothing_and_no_ratio_to_nothing() {
        for bad in [&[][..], &[f64::NAN], &[1.0, f64::NEG_INFINITY]] {
            assert_eq!(median_ci95(bad, 2000, 1), None);
            assert_eq!(difference_ci95(bad, &BASE, 2000, 1), None);
            assert_eq!(difference_ci95(&BASE, bad, 2000, 1), None);
            assert_eq!(ratio_ci95(&BASE, bad, 2000, 1), None);
        }
        assert_eq!(ratio_ci95(&[1.0, 0.0], &BASE, 2000, 1), None);
        assert_eq!(difference_ci95(&[-f64::MAX], &[f64::MAX], 2000, 1), None);
    }

    #[test]
    fn too_few_resamples_are_raised() {
        assert_eq!(median_ci95(&BASE, 0, 5), median_ci95(&BASE, MIN_RESAMPLES, 5));
    }

    /// 95 % intervals of the median of 25 uniform values must hold the true median about 95 times
    /// in 100; 400 repetitions have a standard deviation of 1.1 %.
    #[test]
    fn coverage() {
        let mut random = SplitMix64::new(42);
        let held = (0..400).filter(|seed| {
            let values: Vec<f64> =
                (0..25).map(|_| random.next() as f64 / u64::MAX as f64).collect();
            let [low, high] = median_ci95(&values, 2000, *seed).unwrap();
            low <= 0.5 && 0.5 <= high
        });
        let percent = held.count() as f64 / 4.0;
        assert!((91.0..=98.5).contains(&percent), "{percent} %");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn intervals_are_ordered_inside_the_values_and_repeatable(
            values in prop::collection::vec(1.0..1e9_f64, 1..30),
            other in prop::collection::vec(1.0..1e9_f64, 1..30),
            seed in any::<u64>(),
        ) {
            let [low, high] = median_ci95(&values, 2000, seed).unwrap();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(least <= low && low <= high && high <= most);
            prop_assert_eq!(median_ci95(&values, 2000, seed), Some([low, high]));
            let [low, high] = difference_ci95(&values, &other, 2000, seed).unwrap();
            prop_assert!(low <= high);
            let [low, high] = ratio_ci95(&values, &other, 2000, seed).unwrap();
            prop_assert!(0.0 < low && low <= high);
        }
    }
}
