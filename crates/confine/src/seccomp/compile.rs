//! From a list to a program: the architecture, then a balanced binary search tree over the numbers,
//! then the tests of the arguments.

use std::mem::offset_of;

use libc::seccomp_data;

use super::{
    Filter,
    assembler::{Assembler, Compare, Target},
    condition::{Condition, Test, Width},
    described,
    policy::{Action, Call, Policy},
};
use crate::Error;

/// `AUDIT_ARCH_X86_64` (linux/audit.h): `EM_X86_64`, 64-bit, little-endian. The x32 calls have it
/// too, but numbers from 0x4000_0000 on, where nothing of a list is.
pub(super) const AUDIT_ARCH_X86_64: u32 = 62 | 0x8000_0000 | 0x4000_0000;
/// First number of an x32 call (`__X32_SYSCALL_BIT`, asm/unistd.h).
const X32_SYSCALL_BIT: u32 = 0x4000_0000;
/// About as many numbers are looked at when a filter is installed (NR_syscalls of Linux 6).
const NUMBERS: u32 = 470;
/// Longest program the kernel takes (linux/bpf_common.h).
pub(super) const BPF_MAXINSNS: usize = 4096;

/// Numbers that lead to the same place.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: u32,
    last: u32,
    target: Target,
}

pub(super) fn compile(policy: &Policy) -> Result<Filter, Error> {
    let mut calls: Vec<&Call> = policy.calls.iter().collect();
    calls.sort_by_key(|call| call.number);
    check(&calls)?;

    let default = Target::Return(policy.default.value());
    let mut assembler = Assembler::default();
    let mut ranges: Vec<Range> = Vec::with_capacity(calls.len());
    for call in &calls {
        let target = decision(&mut assembler, call, default);
        match ranges.last_mut() {
            _ if target == default => {}
            Some(range) if range.target == target && range.last + 1 == call.number => {
                range.last = call.number;
            }
            _ => ranges.push(Range { first: call.number, last: call.number, target }),
        }
    }
    let tree = search(&mut assembler, &ranges, (0, u32::MAX), default);
    assembler.go(tree);
    let tree = assembler.load(offset_of!(seccomp_data, nr) as u32);
    let foreign = Target::Return(Action::KillProcess.value());
    assembler.jump(Compare::Equal, AUDIT_ARCH_X86_64, tree, foreign);
    assembler.load(offset_of!(seccomp_data, arch) as u32);

    if assembler.len() > BPF_MAXINSNS {
        return Err(Error::TooLong { instructions: assembler.len(), most: BPF_MAXINSNS });
    }
    let made = |call: &&Call| matches!(call.action, Action::Allow | Action::Log);
    let numbers = calls.into_iter().filter(made).map(|call| call.number).collect();
    Ok(Filter::new(assembler.finish(), numbers))
}

fn check(sorted: &[&Call]) -> Result<(), Error> {
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].number == pair[1].number) {
        return Err(Error::Twice { call: described(pair[0].number) });
    }
    for call in sorted {
        let conditions = call.alternatives.iter().flatten();
        let problem = match conditions.filter_map(Condition::problem).next() {
            None if call.number >= X32_SYSCALL_BIT => Some("no system call has this number"),
            problem => problem,
        };
        if let Some(problem) = problem {
            return Err(Error::Condition { call: described(call.number), problem });
        }
    }
    Ok(())
}

/// The tree over `ranges`, which are sorted and within `bounds`, first and last number that get here.
/// The accumulator holds the number.
fn search(
    assembler: &mut Assembler,
    ranges: &[Range],
    bounds: (u32, u32),
    default: Target,
) -> Target {
    match ranges {
        [] => default,
        [Range { first, last, target }] => {
            let (from_start, to_end) = (*first == bounds.0, *last == bounds.1);
            if first == last && !(from_start && to_end) {
                return assembler.jump(Compare::Equal, *first, *target, default);
            }
            let upper = match to_end {
                true => *target,
                false => assembler.jump(Compare::AtLeast, last + 1, default, *target),
            };
            match from_start {
                true => upper,
                false => assembler.jump(Compare::AtLeast, *first, upper, default),
            }
        }
        _ => {
            let (left, right) = ranges.split_at(middle(ranges, bounds));
            let middle = right[0].first;
            let right = search(assembler, right, (middle, bounds.1), default);
            let left = search(assembler, left, (bounds.0, middle - 1), default);
            assembler.jump(Compare::AtLeast, middle, right, left)
        }
    }
}

/// Where to divide `ranges`, so that on both sides lie as many of the numbers there are: installing a
/// filter walks it once for each. Outside of them, as many ranges.
fn middle(ranges: &[Range], bounds: (u32, u32)) -> usize {
    let end = bounds.1.min(NUMBERS);
    let Some(twice) = bounds.0.checked_add(end).filter(|_| bounds.0 < end) else {
        return ranges.len() / 2;
    };
    let distance = |index: &usize| (2 * u64::from(ranges[*index].first)).abs_diff(twice.into());
    (1..ranges.len()).min_by_key(distance).unwrap_or(1)
}

/// What becomes of a call once its number is known.
fn decision(assembler: &mut Assembler, call: &Call, default: Target) -> Target {
    let action = Target::Return(call.action.value());
    let default = call.otherwise.map_or(default, |action| Target::Return(action.value()));
    if call.alternatives.is_empty() {
        return action;
    }
    call.alternatives.iter().rev().fold(default, |otherwise, conditions| {
        conditions
            .iter()
            .rev()
            .fold(action, |then, condition| test(assembler, condition, then, otherwise))
    })
}

/// Tests one condition, loading its argument.
fn test(
    assembler: &mut Assembler,
    condition: &Condition,
    then: Target,
    otherwise: Target,
) -> Target {
    let low = offset_of!(seccomp_data, args) as u32 + 8 * u32::from(condition.argument.index);
    let high = low + 4; // little-endian
    match &condition.test {
        Test::Masked { mask, value } => {
            let half = |word: u64| (word as u32, (word >> 32) as u32);
            let ((mask_low, mask_high), (value_low, value_high)) = (half(*mask), half(*value));
            let then = masked(assembler, low, mask_low, value_low, then, otherwise);
            masked(assembler, high, mask_high, value_high, then, otherwise)
        }
        Test::OneOf(values) if condition.argument.width == Width::Int => {
            one_of(assembler, low, values.iter().copied(), then, otherwise)
        }
        Test::OneOf(values) => {
            let mut halves: Vec<u64> = values.iter().map(|value| value >> 32).collect();
            halves.sort_unstable();
            halves.dedup();
            let next = halves.into_iter().fold(otherwise, |next, half| {
                let same = values.iter().copied().filter(|value| value >> 32 == half);
                let then = one_of(assembler, low, same, then, otherwise);
                assembler.jump(Compare::Equal, half as u32, then, next)
            });
            load_before(assembler, next, high)
        }
    }
}

/// Tests the bits of one half of an argument, if any count.
fn masked(
    assembler: &mut Assembler,
    offset: u32,
    mask: u32,
    value: u32,
    then: Target,
    otherwise: Target,
) -> Target {
    match (mask, value) {
        (0, _) => return then,
        (u32::MAX, _) => assembler.jump(Compare::Equal, value, then, otherwise),
        (_, 0) => assembler.jump(Compare::AnyBit, mask, otherwise, then),
        _ => {
            assembler.jump(Compare::Equal, value, then, otherwise);
            assembler.and(mask)
        }
    };
    assembler.load(offset)
}

/// Compares one half of an argument with each value in turn.
fn one_of(
    assembler: &mut Assembler,
    offset: u32,
    values: impl DoubleEndedIterator<Item = u64>,
    then: Target,
    otherwise: Target,
) -> Target {
    let next = values
        .rev()
        .fold(otherwise, |next, value| assembler.jump(Compare::Equal, value as u32, then, next));
    load_before(assembler, next, offset)
}

/// Loads a word and goes on at `next`.
fn load_before(assembler: &mut Assembler, next: Target, offset: u32) -> Target {
    assembler.go(next);
    assembler.load(offset)
}
