//! Outliers by the modified z-score. They are flagged so that a reader sees them, never dropped:
//! a slow start is a fact about the host, and medians bear it.

use crate::order::{finite, median};

/// A value stands out where the absolute modified z-score is above this (Iglewicz and Hoaglin,
/// "How to detect and handle outliers", ASQC 1993, page 11).
pub const MODIFIED_Z_LIMIT: f64 = 3.5;

/// Below this many values none is flagged: of three values drawn from one normal distribution the
/// third would be flagged about every third time, for no better reason than that two lie close.
pub const MIN_VALUES: usize = 5;

/// 0.75 quantile of the standard normal distribution: scales MAD to a standard deviation.
const MAD_SCALE: f64 = 0.6745;
/// √(π/2): scales the mean absolute deviation to a standard deviation.
const MEAN_AD_SCALE: f64 = 1.253_314;

/// The modified z-score of each value, in the order given and without unit:
/// 0.6745 · (x − median) / MAD (Iglewicz and Hoaglin 1993).
///
/// Where MAD is 0, because more than half of the values are equal, the mean absolute deviation
/// takes its place: (x − median) / (1.253314 · mean |x − median|), as IBM SPSS does. All scores
/// are 0 where all values are equal. `None` for no values, or for any that is not finite.
pub fn modified_z_scores(values: &[f64]) -> Option<Vec<f64>> {
    let values = finite(values)?;
    let center = median(&values)?;
    let deviations: Vec<f64> = values.iter().map(|value| value - center).collect();
    let sizes: Vec<f64> = deviations.iter().map(|deviation| deviation.abs()).collect();
    let mad = median(&sizes)?;
    let spread = if mad > 0.0 {
        mad / MAD_SCALE
    } else {
        MEAN_AD_SCALE * sizes.iter().sum::<f64>() / sizes.len() as f64
    };
    let score = |deviation: &f64| if spread > 0.0 { deviation / spread } else { 0.0 };
    Some(deviations.iter().map(score).collect())
}

/// Positions in `values` of those that stand out: absolute modified z-score above
/// [`MODIFIED_Z_LIMIT`].
///
/// Empty for fewer than [`MIN_VALUES`] values, or where any is not finite.
pub fn outliers(values: &[f64]) -> Vec<usize> {
    if values.len() < MIN_VALUES {
        return Vec::new();
    }
    let scores = modified_z_scores(values).unwrap_or_default();
    let far = |(index, score): (usize, f64)| (score.abs() > MODIFIED_Z_LIMIT).then_some(index);
    scores.into_iter().enumerate().filter_map(far).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Median 2.45 and MAD 0.15, by hand.
    #[test]
    fn known_answer() {
        let values = [2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3];
        let scores = modified_z_scores(&values).unwrap();
        assert!((scores[8] - 0.6745 * 5.75 / 0.15).abs() < 1e-9, "{scores:?}");
        assert_eq!(outliers(&values), [8, 9]);
    }

    #[test]
    fn equal_values_do_not_stand_out_but_the_one_that_differs_does() {
        assert_eq!(outliers(&[4.0; 9]), [0; 0]);
        assert_eq!(modified_z_scores(&[4.0; 3]), Some(vec![0.0; 3]));
        let mut values = vec![4.0; 10];
        values[3] = 5.0;
        assert_eq!(outliers(&values), [3]);
    }

    #[test]
    fn few_values_and_bad_values_flag_nothing() {
        assert_eq!(outliers(&[1.0, 1.1, 1.2, 900.0]), [0; 0]);
        assert_eq!(outliers(&[1.0, 1.1, 1.2, 1.3, f64::NAN]), [0; 0]);
        assert_eq!(modified_z_scores(&[]), None);
    }

    proptest! {
        #[test]
        fn never_more_than_half_and_shift_does_not_matter(
            values in prop::collection::vec((0_i32..1000).prop_map(f64::from), 5..40),
            shift in (0_i32..1000).prop_map(f64::from),
        ) {
            let found = outliers(&values);
            prop_assert!(found.len() * 2 <= values.len());
            let shifted: Vec<f64> = values.iter().map(|value| value + shift).collect();
            prop_assert_eq!(found, outliers(&shifted));
        }
    }
}
