//! A set of CPUs as people and the kernel write it: `0-3,8` (cpuset(7), "List format").

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::units::as_text;

/// Numbers of CPUs, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u32>);

/// A string that is no set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a set of CPUs: write numbers and ranges from 0 to 8191, such as 0-3,8")]
pub struct CpuSetError(String);

/// One more than the highest number: what the kernel can be built for on x86-64 (NR_CPUS).
const MAX_CPUS: u32 = 8192;

impl CpuSet {
    /// Whether every CPU of it is in `other` too.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;

    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse().ok().filter(|number| digits && *number < MAX_CPUS)
            };
            let (first, last): (u32, u32) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        };
        let ranges: Option<Vec<_>> =
            text.trim().split(',').map(|part| range(part.trim())).collect();
        let ranges = ranges.ok_or_else(|| CpuSetError(text.to_owned()))?;
        Ok(Self(ranges.into_iter().flatten().collect()))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

as_text!(CpuSet, "0-3,8");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written() {
        for (text, written) in
            [("0", "0"), ("0-3,8", "0-3,8"), ("8, 3,2,1-2", "1-3,8"), ("8191", "8191")]
        {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), written);
        }
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        assert!(set("1,3").is_within(&set("0-3")) && !set("1,4").is_within(&set("0-3")));
    }

    #[test]
    fn what_is_no_set_is_told_what_one_is() {
        for text in ["", ",", "1-", "-1", "3-1", "x", "0,", "+1", "8192", "0-4294967295"] {
            let error = text.parse::<CpuSet>().unwrap_err().to_string();
            assert!(error.contains("0-3,8"), "{error}");
        }
    }
}
