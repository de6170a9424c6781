//! The straight line through a density run: its slope is the cost of one more instance, which
//! total ÷ n is not, since it spreads what all instances share over them.

use crate::order::finite;

/// A least-squares line y = intercept + slope · x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Change of y for one more x, in y's unit per x's.
    pub slope: f64,
    /// 95 % confidence interval of the slope; `None` for two points, which any line meets.
    pub slope_ci95: Option<[f64; 2]>,
    /// y at x = 0, in y's unit.
    pub intercept: f64,
    /// Number of points.
    pub n: usize,
}

/// Fits a line by ordinary least squares. The interval of the slope is
/// slope ± t(0.975, n − 2) · s / √Σ(x − x̄)², with s² = Σ residual² / (n − 2) (Draper and Smith,
/// "Applied regression analysis", 3rd edition, section 1.4); it assumes independent errors of
/// equal size.
///
/// `None` where the slices differ in length, have fewer than two points, any value that is not
/// finite, or the same x throughout.
pub fn linear_fit(x: &[f64], y: &[f64]) -> Option<Fit> {
    let n = x.len();
    if n != y.len() || n < 2 {
        return None;
    }
    let (x, y) = (finite(x)?, finite(y)?);
    let (x_mean, y_mean) = (mean(&x), mean(&y));
    let points = || x.iter().map(|x| x - x_mean).zip(y.iter().map(|y| y - y_mean));
    let sxx: f64 = points().map(|(dx, _)| dx * dx).sum();
    let sxy: f64 = points().map(|(dx, dy)| dx * dy).sum();
    let slope = sxy / sxx;
    let intercept = y_mean - slope * x_mean;
    let residual: f64 = points().map(|(dx, dy)| (dy - slope * dx).powi(2)).sum();
    if sxx <= 0.0 || ![slope, intercept, residual].iter().all(|value| value.is_finite()) {
        return None;
    }
    let freedom = n - 2;
    let half = t975(freedom) * (residual / freedom as f64 / sxx).sqrt();
    let slope_ci95 = (freedom > 0 && half.is_finite()).then_some([slope - half, slope + half]);
    Some(Fit { slope, slope_ci95, intercept, n })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// 0.975 quantile of Student's t, 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
const T975: [f64; 30] = [
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010,
    2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687,
    2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
];

/// The 0.975 quantile of Student's t; beyond the table by Abramowitz and Stegun 26.7.5, which is
/// exact to four decimals there. Infinite for no degree of freedom.
fn t975(freedom: usize) -> f64 {
    if freedom == 0 {
        return f64::INFINITY;
    }
    if let Some(t) = T975.get(freedom - 1) {
        return *t;
    }
    /// 0.975 quantile of the standard normal distribution.
    const Z: f64 = 1.959_964;
    let v = freedom as f64;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    Z + first / v + second / (v * v)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// NIST Statistical Reference Datasets, "Norris": (y, x) and certified values.
    #[rustfmt::skip]
    const NORRIS: [(f64, f64); 36] = [
        (0.1, 0.2), (338.8, 337.4), (118.1, 118.2), (888.0, 884.6), (9.2, 10.1), (228.1, 226.5),
        (668.5, 666.3), (998.5, 996.3), (449.1, 448.6), (778.9, 777.0), (559.2, 558.2), (0.3, 0.4),
        (0.1, 0.6), (778.1, 775.5), (668.8, 666.9), (339.3, 338.0), (448.9, 447.5), (10.8, 11.6),
        (557.7, 556.0), (228.3, 228.1), (998.0, 995.8), (888.8, 887.6), (119.6, 120.2), (0.3, 0.3),
        (0.6, 0.3), (557.6, 556.8), (339.3, 339.1), (888.0, 887.2), (998.5, 999.0), (778.9, 779.0),
        (10.2, 11.1), (117.6, 118.3), (228.9, 229.2), (668.4, 669.1), (449.2, 448.9), (0.2, 0.5),
    ];

    #[test]
    fn certified_by_nist() {
        let (y, x): (Vec<f64>, Vec<f64>) = NORRIS.into_iter().unzip();
        let fit = linear_fit(&x, &y).unwrap();
        assert!((fit.slope - 1.002_116_818_020_45).abs() < 1e-12, "{fit:?}");
        assert!((fit.intercept + 0.262_323_073_774_029).abs() < 1e-10, "{fit:?}");
        let half = 0.429_796_848_199_937e-3 * t975(34);
        let [low, high] = fit.slope_ci95.unwrap();
        assert!((fit.slope - low - half).abs() < 1e-12 && (high - fit.slope - half).abs() < 1e-12);
    }

    #[test]
    fn quantiles_of_t() {
        for (freedom, expected) in
            [(1, 12.7062), (30, 2.0423), (31, 2.0395), (60, 2.0003), (120, 1.9799)]
        {
            assert!((t975(freedom) - expected).abs() < 1e-4, "t({freedom}) = {}", t975(freedom));
        }
    }

    #[test]
    fn two_points_have_a_slope_and_no_interval() {
        let fit = linear_fit(&[1.0, 3.0], &[10.0, 20.0]).unwrap();
        assert_eq!(fit, Fit { slope: 5.0, slope_ci95: None, intercept: 5.0, n: 2 });
    }

    #[test]
    fn no_line() {
        assert_eq!(linear_fit(&[], &[]), None);
        assert_eq!(linear_fit(&[1.0], &[1.0]), None);
        assert_eq!(linear_fit(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(linear_fit(&[2.0, 2.0, 2.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(linear_fit(&[1.0, f64::NAN], &[1.0, 2.0]), None);
    }

    proptest! {
        #[test]
        fn a_line_is_found_again(slope in -1e6..1e6_f64, intercept in -1e6..1e6_f64, n in 3_usize..40) {
            let x: Vec<f64> = (1..=n).map(|i| i as f64).collect();
            let y: Vec<f64> = x.iter().map(|x| intercept + slope * x).collect();
            let fit = linear_fit(&x, &y).unwrap();
            let [low, high] = fit.slope_ci95.unwrap();
            prop_assert!((fit.slope - slope).abs() < 1e-6 * slope.abs().max(intercept.abs()).max(1.0));
            prop_assert!(low <= fit.slope && fit.slope <= high);
        }

        #[test]
        fn any_floats_never_panic(points in prop::collection::vec(any::<(f64, f64)>(), 0..10)) {
            let (x, y): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
            prop_assert!(linear_fit(&x, &y).is_none_or(|fit| fit.slope.is_finite()));
        }
    }
}
