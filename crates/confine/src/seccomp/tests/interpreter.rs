//! A machine for classic BPF as far as seccomp allows it and the compiler uses it
//! (Documentation/networking/filter.rst). Whatever else it meets is a mistake.

use libc::sock_filter;

/// Runs a program on one system call; returns what it answers.
pub(super) fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    walk(program, arch, number, arguments).0
}

/// How many instructions it takes to answer.
pub(super) fn steps(program: &[sock_filter], number: u32) -> usize {
    walk(program, super::AUDIT_ARCH_X86_64, number, [0; 6]).1
}

fn walk(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut data = [0_u8; 64];
    data[..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + 8 * index..][..8].copy_from_slice(&argument.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0, 0_u32);
    for steps in 1.. {
        let instruction = program[at];
        let k = instruction.k;
        at += 1;
        let jump = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => {
                let word = data[k as usize..][..4].try_into().unwrap();
                accumulator = u32::from_le_bytes(word);
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return (k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
    unreachable!("jumps only lead forward")
}
