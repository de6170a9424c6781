//! The compiled program against the list it was compiled from, both run on every number and on
//! arguments near and far from what the list names.

mod interpreter;

use proptest::{collection::vec, prelude::*, sample::select};

use self::interpreter::run;
use super::{
    compile::{AUDIT_ARCH_X86_64, BPF_MAXINSNS},
    *,
};
use crate::Error;

const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// Compares filter and list on one call.
fn agree(policy: &Policy, filter: &Filter, number: u32, arguments: [u64; 6]) {
    let said = run(filter.instructions(), AUDIT_ARCH_X86_64, number, arguments);
    assert_eq!(said, policy.decide(number, &arguments).value(), "call {number} {arguments:x?}");
}

fn agree_on_all(policy: &Policy, arguments: &[[u64; 6]]) {
    let filter = policy.compile().unwrap();
    let beyond = [1 << 29, 0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x7fff_ffff, u32::MAX];
    for number in (0..=600).chain(beyond) {
        for arguments in arguments {
            agree(policy, &filter, number, *arguments);
        }
    }
    for number in [0, 1, 59] {
        let said = run(filter.instructions(), AUDIT_ARCH_I386, number, [0; 6]);
        assert_eq!(said, libc::SECCOMP_RET_KILL_PROCESS);
    }
}

#[test]
fn shapes_of_lists() {
    let all: Vec<i64> = (0..=600).collect();
    let every_second: Vec<i64> = (0..=600).step_by(2).collect();
    for list in
        [&[][..], &[0], &[600], &[5], &[5, 6], &[0, 1, 2, 9, 11, 12, 300], &all, &every_second]
    {
        for default in [Action::KillProcess, Action::Errno(1), Action::Allow] {
            agree_on_all(&Policy::new(default).allow(list), &[[0; 6]]);
        }
    }
}

#[test]
fn a_tree_is_shallow_and_small() {
    let every_second: Vec<i64> = (0..=460).step_by(2).collect();
    let filter = Policy::new(Action::KillProcess).allow(&every_second).compile().unwrap();
    // 231 calls: a comparison each and one less between them, and little beside.
    assert!(filter.instructions().len() <= 2 * 231 + 40, "{}", filter.instructions().len());
    let steps = |number| interpreter::steps(filter.instructions(), number);
    assert!(
        (0..=460).all(|number| steps(number) <= 4 + 10 + 3),
        "{:?}",
        (0..=460).map(steps).max()
    );
}

#[test]
fn neighbours_share_a_range() {
    let filter = Policy::new(Action::KillProcess).allow(&[3, 4, 5, 6]).compile().unwrap();
    assert_eq!(filter.instructions().len(), 7, "{:?}", filter.instructions());
    assert_eq!(filter.system_calls(), [3, 4, 5, 6]);
}

#[test]
fn far_jumps_arrive() {
    // Each call has so many values that none reaches over its neighbour.
    let values: Vec<u64> = (0..300).map(|value| value * 3).collect();
    let policy = (0..10).fold(Policy::new(Action::Errno(38)), |policy, number| {
        policy.call(Call::new(number * 7).when([int(1).one_of(values.clone()), int(2).is(5)]))
    });
    assert!(policy.compile().unwrap().instructions().len() > 3000);
    let arguments: Vec<[u64; 6]> = [0, 1, 3, 300, 600, 897, 898]
        .iter()
        .flat_map(|&value| [[0, value, 5, 0, 0, 0], [0, value, 6, 0, 0, 0]])
        .collect();
    agree_on_all(&policy, &arguments);
}

#[test]
fn only_the_lower_half_of_an_int_counts() {
    let policy = Policy::new(Action::KillProcess).call(Call::new(16).when([int(1).is(0xae80)]));
    let filter = policy.compile().unwrap();
    let said = |value| run(filter.instructions(), AUDIT_ARCH_X86_64, 16, [0, value, 0, 0, 0, 0]);
    assert_eq!(said(0xffff_ffff_0000_ae80), libc::SECCOMP_RET_ALLOW);
    let policy = Policy::new(Action::KillProcess).call(Call::new(16).when([long(1).is(0xae80)]));
    let filter = policy.compile().unwrap();
    let said = |value| run(filter.instructions(), AUDIT_ARCH_X86_64, 16, [0, value, 0, 0, 0, 0]);
    assert_eq!(said(0xffff_ffff_0000_ae80), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(said(0xae80), libc::SECCOMP_RET_ALLOW);
}

#[test]
fn senseless_lists_are_refused() {
    let policy = Policy::new(Action::KillProcess);
    let refused = |policy: Policy| policy.compile().unwrap_err().to_string();
    assert_eq!(refused(policy.clone().allow(&[1, 2, 1])), "filter: write is on the list twice");
    let with = |condition| policy.clone().call(Call::new(16).when([condition]));
    assert_eq!(refused(with(int(6).is(0))), "filter: ioctl: a system call has six arguments");
    assert_eq!(refused(with(int(1).is(1 << 32))), "filter: ioctl: wider than the argument");
    assert_eq!(
        refused(with(int(1).one_of(vec![1 << 32]))),
        "filter: ioctl: wider than the argument"
    );
    assert_eq!(
        refused(with(long(1).masked(1, 2))),
        "filter: ioctl: the value has bits outside of the mask"
    );
    assert_eq!(refused(with(int(1).one_of(vec![]))), "filter: ioctl: one of no values");
    assert!(
        refused(policy.clone().allow(&[0x4000_0000])).ends_with("no system call has this number")
    );
    assert!(refused(policy.clone().allow(&[-1])).ends_with("no system call has this number"));
    let values: Vec<u64> = (0..BPF_MAXINSNS as u64).collect();
    assert!(matches!(with(int(1).one_of(values)).compile(), Err(Error::TooLong { .. })));
}

/// Values whose halves differ and agree in all ways.
fn value() -> impl Strategy<Value = u64> {
    let half = || select(vec![0_u64, 1, 2, 4, 5, 0xae80, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]);
    prop_oneof![(half(), half()).prop_map(|(high, low)| high << 32 | low), any::<u64>()]
}

fn condition() -> impl Strategy<Value = Condition> {
    let (index, wide) = (0..6_u8, any::<bool>());
    (index, wide, value(), value(), vec(value(), 1..6), 0..3).prop_map(
        |(index, wide, mask, value, values, kind)| {
            let all = if wide { u64::MAX } else { u32::MAX.into() };
            let argument = if wide { long(index) } else { int(index) };
            match kind {
                0 => argument.is(value & all),
                1 => argument.masked(mask & all, value & mask & all),
                _ => argument.one_of(values.iter().map(|value| value & all).collect::<Vec<_>>()),
            }
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let action = select(vec![Action::Allow, Action::Errno(38), Action::Log, Action::Trap]);
    let alternatives = vec(vec(condition(), 0..3), 0..3);
    (0..=600_i64, action, alternatives).prop_map(|(number, action, alternatives)| {
        alternatives.into_iter().fold(Call::new(number).with(action), Call::when)
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let default = select(vec![Action::KillProcess, Action::Errno(1), Action::Allow]);
    (default, vec(call(), 0..60)).prop_map(|(default, mut calls)| {
        calls.sort_by_key(|call| call.number);
        calls.dedup_by_key(|call| call.number);
        calls.into_iter().fold(Policy::new(default), Policy::call)
    })
}

proptest! {
    #[test]
    fn filters_decide_as_their_lists(
        policy in policy(),
        arguments in vec([value(), value(), value(), value(), value(), value()], 1..4),
    ) {
        agree_on_all(&policy, &arguments);
    }

    /// Arguments that fulfil one of a call's conditions exactly, or nearly.
    #[test]
    fn conditions_are_met_exactly(
        call in call(),
        base in value(),
        flip in 0..64_u32,
        index in 0..6_usize,
    ) {
        let policy = Policy::new(Action::KillProcess).call(call.clone());
        let filter = policy.compile().unwrap();
        let mut arguments = [base; 6];
        for condition in call.alternatives.iter().flatten() {
            let index = usize::from(condition.argument.index);
            arguments[index] = match &condition.test {
                condition::Test::Masked { mask, value } => arguments[index] & !mask | value,
                condition::Test::OneOf(values) => values[0],
            };
            agree(&policy, &filter, call.number, arguments);
        }
        arguments[index] ^= 1 << flip;
        agree(&policy, &filter, call.number, arguments);
    }
}
