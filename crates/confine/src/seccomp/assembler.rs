//! Writes a classic BPF program from its end to its start. Its jumps only lead forward, so
//! everything a jump leads to is there when the jump is written, at a known distance.
//!
//! A conditional jump reaches 255 instructions. What lies farther is reached by a step in between:
//! for a `ret` another `ret`, for anything else a `ja`, which reaches everywhere.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET,
    BPF_W, sock_filter,
};

/// Farthest a step may be placed: one less than a jump reaches, since writing the step of a jump's
/// other branch moves the first one away.
const REACH: usize = 254;

/// An instruction that was written, counted from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The filter's answer.
    Return(u32),
    /// More of the program.
    Code(Label),
}

/// What a conditional jump asks of the accumulator.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Equal,
    AtLeast,
    AnyBit,
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<sock_filter>,
    /// The nearest `ret` of each value.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// Writes a conditional jump.
    pub(super) fn jump(&mut self, compare: Compare, value: u32, yes: Target, no: Target) -> Target {
        let (yes, no) = (self.near(yes), self.near(no));
        let code = match compare {
            Compare::Equal => BPF_JEQ,
            Compare::AtLeast => BPF_JGE,
            Compare::AnyBit => BPF_JSET,
        };
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(sock_filter { code: (BPF_JMP | code | BPF_K) as u16, jt, jf, k: value })
    }

    /// Loads a word of `struct seccomp_data` before what was written last.
    pub(super) fn load(&mut self, offset: u32) -> Target {
        self.plain(BPF_LD | BPF_W | BPF_ABS, offset)
    }

    /// Masks the accumulator before what was written last.
    pub(super) fn and(&mut self, mask: u32) -> Target {
        self.plain(BPF_ALU | BPF_AND | BPF_K, mask)
    }

    /// Goes on at `target` from what is written next.
    pub(super) fn go(&mut self, target: Target) {
        match target {
            Target::Code(label) if self.distance(label) == 0 => {}
            Target::Code(label) => {
                let distance = self.distance(label) as u32;
                self.plain(BPF_JMP | BPF_JA, distance);
            }
            Target::Return(value) => {
                self.plain(BPF_RET | BPF_K, value);
            }
        }
    }

    /// How many instructions there are.
    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }

    /// The program, first instruction first.
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    /// An instruction for `target` that the next but one can reach.
    fn near(&mut self, target: Target) -> Label {
        match target {
            Target::Code(label) if self.distance(label) <= REACH => label,
            Target::Code(label) => {
                let distance = self.distance(label) as u32;
                self.write(BPF_JMP | BPF_JA, distance)
            }
            Target::Return(value) => {
                let known = self.returns.iter().position(|(known, _)| *known == value);
                match known.map(|index| self.returns[index].1) {
                    Some(label) if self.distance(label) <= REACH => label,
                    _ => {
                        let label = self.write(BPF_RET | BPF_K, value);
                        self.returns.retain(|(known, _)| *known != value);
                        self.returns.push((value, label));
                        label
                    }
                }
            }
        }
    }

    /// Instructions between the next one to be written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }

    fn plain(&mut self, code: u32, k: u32) -> Target {
        Target::Code(self.write(code, k))
    }

    fn write(&mut self, code: u32, k: u32) -> Label {
        self.push(sock_filter { code: code as u16, jt: 0, jf: 0, k });
        Label(self.reversed.len() - 1)
    }

    fn push(&mut self, instruction: sock_filter) -> Target {
        self.reversed.push(instruction);
        Target::Code(Label(self.reversed.len() - 1))
    }
}
