//! Order statistics: median, percentile and median absolute deviation. The report leads with
//! these instead of mean and standard deviation, since start-up times are skewed to the right.

/// The median: the middle value, or the mean of the two in the middle.
///
/// `None` for no values, or for any that is not finite.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = finite(values)?;
    Some(middle(&mut values))
}

/// The `percent`-th percentile, 0 to 100, interpolated linearly between the two nearest values:
/// type 7 of Hyndman and Fan, "Sample quantiles in statistical packages", The American
/// Statistician 50 (1996), which is the default of R and NumPy. For n values in ascending order
/// x(1)…x(n) it lies at position 1 + (n − 1) · percent / 100.
///
/// One value is its own percentile, whichever is asked for. `None` for no values, for any that is
/// not finite, and for a `percent` outside 0 to 100.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    if !(0.0..=100.0).contains(&percent) {
        return None;
    }
    let mut values = finite(values)?;
    values.sort_unstable_by(f64::total_cmp);
    interpolate(&values, percent)
}

/// The median absolute deviation: the median of |x − median|, unscaled. Multiply by 1.4826 to
/// estimate the standard deviation of normal data (Hampel, "The influence curve and its role in
/// robust estimation", JASA 69, 1974).
///
/// 0 for one value. `None` for no values, or for any that is not finite.
pub fn mad(values: &[f64]) -> Option<f64> {
    let center = median(values)?;
    let deviations: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
    median(&deviations)
}

/// A copy of `values`, if there are any and all are finite.
pub(crate) fn finite(values: &[f64]) -> Option<Vec<f64>> {
    let usable = !values.is_empty() && values.iter().all(|value| value.is_finite());
    usable.then(|| values.to_vec())
}

/// The median of finite values, which it reorders; there is at least one.
pub(crate) fn middle(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let odd = !values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    if odd {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    lower.midpoint(upper)
}

/// The percentile of finite values in ascending order; `None` for no values or on overflow.
pub(crate) fn interpolate(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = last as f64 * percent / 100.0;
    let index = (position.floor() as usize).min(last);
    let (low, high) = (sorted[index], sorted[(index + 1).min(last)]);
    let value = low + (position - index as f64) * (high - low);
    value.is_finite().then_some(value.clamp(low, high))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[5.0]), Some(5.0));
        assert_eq!(median(&[f64::MAX, f64::MAX]), Some(f64::MAX));
    }

    /// R: `quantile(1:10, c(.05, .25, .95))` and `quantile(c(15, 20, 35, 40, 50), .4)`.
    #[test]
    fn percentiles_agree_with_r() {
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        for (percent, expected) in
            [(0.0, 1.0), (5.0, 1.45), (25.0, 3.25), (95.0, 9.55), (100.0, 10.0)]
        {
            let got = percentile(&ten, percent).unwrap();
            assert!((got - expected).abs() < 1e-12, "p{percent}: {got}");
        }
        assert_eq!(percentile(&[50.0, 15.0, 35.0, 20.0, 40.0], 40.0), Some(29.0));
        assert_eq!(percentile(&[7.0], 5.0), Some(7.0));
    }

    /// R: `mad(c(1, 1, 2, 2, 4, 6, 9), constant = 1)`.
    #[test]
    fn mad_agrees_with_r() {
        assert_eq!(mad(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert_eq!(mad(&[3.0]), Some(0.0));
    }

    #[test]
    fn no_statistics_of_nothing_or_of_what_is_not_a_number() {
        for bad in [&[][..], &[f64::NAN], &[1.0, f64::INFINITY], &[1.0, f64::NAN, 2.0]] {
            assert_eq!(median(bad), None);
            assert_eq!(mad(bad), None);
            assert_eq!(percentile(bad, 50.0), None);
        }
        for percent in [-0.1, 100.1, f64::NAN] {
            assert_eq!(percentile(&[1.0], percent), None);
        }
    }

    proptest! {
        #[test]
        fn percentiles_rise_and_stay_in_range(
            values in prop::collection::vec(-1e12..1e12_f64, 1..60),
            a in 0.0..=100.0_f64,
            b in 0.0..=100.0_f64,
        ) {
            let (low, high) = (percentile(&values, a.min(b)).unwrap(), percentile(&values, a.max(b)).unwrap());
            prop_assert!(low <= high);
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(least <= low && high <= most);
        }

        #[test]
        fn the_median_is_the_50th_percentile_and_splits_the_values(
            values in prop::collection::vec(-1e12..1e12_f64, 1..60),
        ) {
            let center = median(&values).unwrap();
            let percentile = percentile(&values, 50.0).unwrap();
            prop_assert!((center - percentile).abs() <= 1e-3);
            prop_assert!(2 * values.iter().filter(|value| **value < center).count() <= values.len());
            prop_assert!(2 * values.iter().filter(|value| **value > center).count() <= values.len());
        }

        #[test]
        fn any_floats_never_panic(values in prop::collection::vec(any::<f64>(), 0..20), p in any::<f64>()) {
            for result in [median(&values), mad(&values), percentile(&values, p)] {
                prop_assert!(result.is_none_or(f64::is_finite));
            }
        }
    }
}
