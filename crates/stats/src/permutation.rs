//! The permutation test behind the gate: how often would a difference of medians this large come
//! about if the two sides were the same? It assumes nothing about their distribution.

use crate::{
    order::{finite, middle},
    random::SplitMix64,
};

/// The two-sided p-value, 0 < p ≤ 1, of the difference between the medians of `base` and `other`,
/// if all values came from one distribution.
///
/// Where there are no more than `resamples` ways to deal the values out to the two sides, all are
/// tried and p is exact. Otherwise `resamples` ways (at least 1,000) are drawn and
/// p = (1 + as large or larger) / (1 + drawn), which is never 0 (Phipson and Smyth, "Permutation
/// p-values should never be zero", SAGMB 9, 2010).
///
/// Few values cannot be significant: with fewer than 8 on each side p stays above 0.01, however
/// far apart they lie, since a median does not mind which of the values beyond it are exchanged.
/// `None` where either side has no values, or any that is not finite.
pub fn permutation_test(base: &[f64], other: &[f64], resamples: usize, seed: u64) -> Option<f64> {
    let (base, other) = (finite(base)?, finite(other)?);
    let pool: Vec<f64> = base.iter().chain(&other).copied().collect();
    let mut dealt = pool.clone();
    let split = base.len();
    let observed = distance(&mut dealt, split);
    // Equal differences may differ in their last bits, by the order in which they were rounded.
    let bar = observed - observed * 1e-12;

    if combinations(pool.len(), split).is_some_and(|ways| ways <= resamples) {
        return Some(exact(&pool, split, bar));
    }
    let drawn = resamples.max(1_000);
    let mut random = SplitMix64::new(seed);
    let mut as_large = 0_usize;
    for _ in 0..drawn {
        dealt.copy_from_slice(&pool);
        for place in 0..split {
            let from = place + random.below(dealt.len() - place);
            dealt.swap(place, from);
        }
        as_large += usize::from(distance(&mut dealt, split) >= bar);
    }
    Some((1 + as_large) as f64 / (1 + drawn) as f64)
}

/// |difference of medians| between the first `split` values and the others; reorders both parts.
fn distance(values: &mut [f64], split: usize) -> f64 {
    let (base, other) = values.split_at_mut(split);
    (middle(other) - middle(base)).abs()
}

/// The share of all ways to choose `split` values of `pool` whose distance reaches `bar`.
fn exact(pool: &[f64], split: usize, bar: f64) -> f64 {
    let mut chosen: Vec<usize> = (0..split).collect();
    let (mut ways, mut as_large) = (0_usize, 0_usize);
    let mut dealt = Vec::with_capacity(pool.len());
    loop {
        dealt.clear();
        dealt.extend(chosen.iter().map(|&index| pool[index]));
        let left = (0..pool.len()).filter(|index| !chosen.contains(index));
        dealt.extend(left.map(|index| pool[index]));
        ways += 1;
        as_large += usize::from(distance(&mut dealt, split) >= bar);
        // The next combination in lexicographic order: advance the last index that can move.
        let free = pool.len() - split;
        let Some(place) = (0..split).rev().find(|&place| chosen[place] < free + place) else {
            return as_large as f64 / ways as f64;
        };
        let start = chosen[place] + 1;
        for (offset, index) in chosen[place..].iter_mut().enumerate() {
            *index = start + offset;
        }
    }
}

/// The number of ways to choose `k` of `n`; `None` where it does not fit.
fn combinations(n: usize, k: usize) -> Option<usize> {
    (0..k.min(n - k)).try_fold(1_usize, |ways, i| Some(ways.checked_mul(n - i)? / (i + 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of the 20 ways to deal 1, 2, 3 and 11, 12, 13 out, four have medians ten apart: the one
    /// seen, the one with 3 and 11 exchanged, and the mirror image of each.
    #[test]
    fn exact_known_answers() {
        let p = |a: &[f64], b: &[f64]| permutation_test(a, b, 2000, 1).unwrap();
        assert_eq!(p(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]), 4.0 / 20.0);
        assert_eq!(p(&[1.0, 1.0], &[1.0, 1.0]), 1.0);
        assert_eq!(p(&[1.0], &[2.0]), 1.0);
    }

    /// Two sides of n that do not touch: the values between the medians can be dealt out in
    /// C(2k, k) ways, k = (n − 1) / 2 rounded down, that change neither, twice for the mirror.
    #[test]
    fn eight_on_each_side_are_the_least_that_can_be_significant() {
        for (n, p) in [(5, 12.0 / 252.0), (7, 40.0 / 3432.0), (8, 40.0 / 12_870.0)] {
            let low: Vec<f64> = (0..n).map(f64::from).collect();
            let high: Vec<f64> = (100..100 + n).map(f64::from).collect();
            assert_eq!(permutation_test(&low, &high, 20_000, 1), Some(p), "n = {n}");
            assert_eq!(p < 0.01, n >= 8);
        }
    }

    /// Where all ways could be tried, drawing at random must come close to the exact answer.
    #[test]
    fn drawing_agrees_with_trying_all() {
        let base = [5.1, 4.9, 5.6, 5.0, 5.8, 5.2, 5.05];
        let other = [5.3, 5.7, 5.5, 5.9, 5.15, 6.0, 5.4];
        let all = permutation_test(&base, &other, 3432, 1).unwrap();
        let drawn = permutation_test(&base, &other, 3431, 1).unwrap();
        assert!((all - drawn).abs() < 0.03, "exact {all}, drawn {drawn}");
    }

    #[test]
    fn far_apart_is_significant_and_alike_is_not() {
        let base: Vec<f64> = (0..30).map(|i| f64::from(i % 7)).collect();
        let far: Vec<f64> = base.iter().map(|value| value + 100.0).collect();
        assert_eq!(permutation_test(&base, &far, 2000, 3), Some(1.0 / 2001.0));
        assert!(permutation_test(&base, &base, 2000, 3).unwrap() > 0.9);
    }

    #[test]
    fn no_test_of_nothing() {
        assert_eq!(permutation_test(&[], &[1.0], 2000, 1), None);
        assert_eq!(permutation_test(&[1.0], &[f64::NAN], 2000, 1), None);
    }

    #[test]
    fn counts_of_combinations() {
        assert_eq!(combinations(6, 3), Some(20));
        assert_eq!(combinations(14, 7), Some(3432));
        assert_eq!(combinations(5, 5), Some(1));
        assert_eq!(combinations(400, 200), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_probability_that_does_not_mind_the_sides(
            base in prop::collection::vec(0.0..1e9_f64, 1..6),
            other in prop::collection::vec(0.0..1e9_f64, 1..6),
        ) {
            let p = permutation_test(&base, &other, 2000, 1).unwrap();
            prop_assert!(0.0 < p && p <= 1.0);
            prop_assert_eq!(p, permutation_test(&other, &base, 2000, 1).unwrap());
        }

        #[test]
        fn any_floats_never_panic(
            base in prop::collection::vec(any::<f64>(), 0..8),
            other in prop::collection::vec(any::<f64>(), 0..8),
        ) {
            let p = permutation_test(&base, &other, 100, 1);
            prop_assert!(p.is_none_or(|p| 0.0 < p && p <= 1.0));
        }
    }
}
