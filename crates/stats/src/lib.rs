//! Statistics over `&[f64]`, as docs/measurement.md asks for them: medians, percentiles, outliers,
//! bootstrap intervals, a permutation test and a straight line. Pure functions without
//! dependencies: equal input and seed give equal output on every machine and in every later
//! version, so a saved record can be checked again years later.
//!
//! Three rules hold throughout. A result has the unit of its input. A slice without values, or
//! with one that is NaN or infinite, has no statistics: the answer is `None`, never NaN. Order of
//! the input means nothing, except that it fixes which resamples a seed draws.

mod bootstrap;
mod fit;
mod order;
mod outlier;
mod permutation;
mod random;

pub use bootstrap::{MIN_RESAMPLES, difference_ci95, median_ci95, ratio_ci95};
pub use fit::{Fit, linear_fit};
pub use order::{mad, median, percentile};
pub use outlier::{MIN_VALUES, MODIFIED_Z_LIMIT, modified_z_scores, outliers};
pub use permutation::permutation_test;
