//! Conditions on the arguments of a system call. Only values can be looked at, never what a pointer
//! leads to: another thread could change that after the look.

use std::borrow::Cow;

/// One of the six arguments, as wide as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    pub(super) index: u8,
    pub(super) width: Width,
}

/// How much of the register counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// The kernel takes an `int` or `unsigned int`: the upper half may hold anything.
    Int,
    /// The kernel takes a `long` or a pointer.
    Long,
}

/// An argument of which the kernel takes the lower 32 bits, counted from 0.
pub const fn int(index: u8) -> Argument {
    Argument { index, width: Width::Int }
}

/// An argument of which the kernel takes all 64 bits, counted from 0.
pub const fn long(index: u8) -> Argument {
    Argument { index, width: Width::Long }
}

/// Something that must hold of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub(super) argument: Argument,
    pub(super) test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// The bits in `mask` are those of `value`.
    Masked { mask: u64, value: u64 },
    /// Equal to one of these, the likeliest first.
    OneOf(Cow<'static, [u64]>),
}

impl Argument {
    /// It equals `value`.
    pub fn is(self, value: u64) -> Condition {
        let mask = self.all_bits();
        Condition { argument: self, test: Test::Masked { mask, value } }
    }

    /// Its bits in `mask` are those of `value`.
    pub fn masked(self, mask: u64, value: u64) -> Condition {
        Condition { argument: self, test: Test::Masked { mask, value } }
    }

    /// It equals one of `values`, which are compared in this order.
    pub fn one_of(self, values: impl Into<Cow<'static, [u64]>>) -> Condition {
        Condition { argument: self, test: Test::OneOf(values.into()) }
    }

    fn all_bits(self) -> u64 {
        match self.width {
            Width::Int => u32::MAX.into(),
            Width::Long => u64::MAX,
        }
    }
}

impl Condition {
    /// Whether it holds of these arguments.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let Some(argument) = arguments.get(usize::from(self.argument.index)) else {
            return false;
        };
        let argument = argument & self.argument.all_bits();
        match &self.test {
            Test::Masked { mask, value } => argument & mask == *value,
            Test::OneOf(values) => values.contains(&argument),
        }
    }

    /// Why it cannot be compiled, or could never hold.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let all = self.argument.all_bits();
        match &self.test {
            _ if self.argument.index > 5 => Some("a system call has six arguments"),
            Test::Masked { mask, value } if (mask | value) & !all != 0 => {
                Some("wider than the argument")
            }
            Test::Masked { mask, value } if value & !mask != 0 => {
                Some("the value has bits outside of the mask")
            }
            Test::OneOf(values) if values.iter().any(|value| value & !all != 0) => {
                Some("wider than the argument")
            }
            Test::OneOf(values) if values.is_empty() => Some("one of no values"),
            _ => None,
        }
    }
}
