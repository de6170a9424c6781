//! Numbers with units that a reader can take in: one scale for a whole table, so that its rows
//! can be compared by eye, and three digits for a number in a sentence.

use compare_spec::Unit;

/// Units of time and size with their factor, ascending.
const TIME: [(&str, f64); 4] = [("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
const SIZE: [(&str, f64); 4] =
    [("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];

/// Numbers above this are written with an exponent: only a broken record holds them.
const MAX_PLAIN: f64 = 1e15;

/// One unit and number of decimals for many values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    pub(crate) name: &'static str,
    factor: f64,
    decimals: usize,
}

impl Scale {
    /// The scale in which the greatest value has a unit that suits it: two decimals, three where
    /// the least value that is not 0 would lose its second digit, one where the greatest is long.
    pub(crate) fn of(unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        let sizes = values.into_iter().map(f64::abs).filter(|value| *value > 0.0);
        let (least, most) = sizes.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), size| {
            (low.min(size), high.max(size))
        });
        let (name, factor) = suited(unit, most);
        let decimals = match (least / factor, most / factor) {
            _ if factor == 1.0 => 0,
            (least, _) if least < 0.1 => 3,
            (least, most) if least >= 1.0 && most >= 1000.0 => 1,
            _ => 2,
        };
        Self { name, factor, decimals }
    }

    /// The scale in which a number of this size has three digits.
    pub(crate) fn of_three_digits(unit: Unit, size: f64) -> Self {
        let (name, factor) = suited(unit, size.abs());
        let decimals = if factor == 1.0 { 0 } else { decimals(size.abs() / factor) };
        Self { name, factor, decimals }
    }

    /// The number alone.
    pub(crate) fn show(self, value: f64) -> String {
        fixed(value / self.factor, self.decimals)
    }

    /// The number with its sign.
    pub(crate) fn signed(self, value: f64) -> String {
        let text = self.show(value);
        let is_zero = !text.contains(|c: char| c.is_ascii_digit() && c != '0');
        if value > 0.0 && !is_zero { format!("+{text}") } else { text }
    }

    /// The two ends of an interval, with as many more decimals, up to two, as it takes to tell
    /// them apart.
    pub(crate) fn ends(self, [low, high]: [f64; 2]) -> (String, String) {
        let at = |more| Self { decimals: self.decimals + more, ..self };
        let more = (0..=2).find(|more| at(*more).show(low) != at(*more).show(high)).unwrap_or(0);
        (at(more).show(low), at(more).show(high))
    }
}

/// A quantity with three digits and the name of the unit that suits it.
pub(crate) fn quantity(unit: Unit, value: f64) -> (String, &'static str) {
    let scale = Scale::of_three_digits(unit, value);
    (scale.show(value), scale.name)
}

/// A ratio with three digits.
pub(crate) fn ratio(value: f64) -> String {
    fixed(value, decimals(value.abs()))
}

/// A share as a signed percentage without decimals.
pub(crate) fn percent(share: f64) -> String {
    let sign = if share > 0.0 { "+" } else { "" };
    format!("{sign}{} %", fixed(100.0 * share, 0))
}

/// The ends of a ratio's interval, told apart where up to two more decimals can.
pub(crate) fn ratio_ends(value: f64, ends: [f64; 2]) -> (String, String) {
    Scale { name: "", factor: 1.0, decimals: decimals(value.abs()) }.ends(ends)
}

/// The largest unit of which `size` is at least one, once rounded to three digits.
fn suited(unit: Unit, size: f64) -> (&'static str, f64) {
    let units = match unit {
        Unit::Ns => &TIME,
        Unit::Bytes => &SIZE,
    };
    let fits = |(_, factor): &&(&str, f64)| size >= factor * 0.9995;
    *units.iter().rfind(fits).unwrap_or(&units[0])
}

/// Decimals that give a number three digits.
fn decimals(size: f64) -> usize {
    match size {
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    }
}

/// Fixed-point, without a minus before nothing.
fn fixed(value: f64, decimals: usize) -> String {
    if value.abs() >= MAX_PLAIN {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(zero) if !zero.contains(|c: char| c.is_ascii_digit() && c != '0') => zero.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unit: Unit, value: f64) -> String {
        let (number, name) = quantity(unit, value);
        format!("{number} {name}")
    }

    #[test]
    fn quantities_have_three_digits_and_the_unit_that_suits() {
        let times = [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (1_000.0, "1.00 µs"),
            (50_000.0, "50.0 µs"),
            (999_600.0, "1.00 ms"),
            (61_300_000.0, "61.3 ms"),
            (-412_345_678.0, "-412 ms"),
            (3_000_000_000.0, "3.00 s"),
            (1e300, "1.00e291 s"),
        ];
        for (value, expected) in times {
            assert_eq!(text(Unit::Ns, value), expected);
        }
        let sizes =
            [(512.0, "512 B"), (4096.0, "4.00 KiB"), (40_055_603.2, "38.2 MiB"), (5e9, "4.66 GiB")];
        for (value, expected) in sizes {
            assert_eq!(text(Unit::Bytes, value), expected);
        }
    }

    #[test]
    fn a_table_has_one_scale_that_shows_its_least_value() {
        let scale = Scale::of(Unit::Ns, [390_000.0, 78_300_000.0, 0.0]);
        assert_eq!((scale.name, scale.show(78_300_000.0)), ("ms", "78.30".to_owned()));
        assert_eq!(scale.show(390_000.0), "0.39");
        assert_eq!(Scale::of(Unit::Ns, [12_000.0, 5e6]).show(12_000.0), "0.012");
        assert_eq!(Scale::of(Unit::Ns, [640.0]).show(640.0), "640");
        assert_eq!(Scale::of(Unit::Bytes, []).show(0.0), "0");
    }

    #[test]
    fn signs() {
        let scale = Scale::of(Unit::Ns, [2e6]);
        assert_eq!(scale.signed(2e6), "+2.00");
        assert_eq!(scale.signed(-2e6), "-2.00");
        assert_eq!(scale.signed(-1.0), "0.00");
        assert_eq!(scale.signed(1.0), "0.00");
    }

    #[test]
    fn percentages() {
        assert_eq!(percent(0.213), "+21 %");
        assert_eq!(percent(-0.5), "-50 %");
        assert_eq!(percent(1e300), "+1.00e302 %");
    }

    #[test]
    fn narrow_intervals_gain_decimals() {
        assert_eq!(ratio_ends(7.31, [7.29, 7.34]), ("7.29".to_owned(), "7.34".to_owned()));
        assert_eq!(ratio_ends(7.31, [7.3121, 7.3134]), ("7.312".to_owned(), "7.313".to_owned()));
        assert_eq!(ratio_ends(7.31, [7.31, 7.31]), ("7.31".to_owned(), "7.31".to_owned()));
    }
}
