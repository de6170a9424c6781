//! What the guest says: words on the console, and the frames of `crates/wire` by which it ends.

use crate::cpu::{halt, out8, out32};

/// COM1's transmit register.
const SERIAL: u16 = 0x3f8;
/// `compare_wire::ports::FRAMES`.
pub const FRAMES: u16 = 0x600;
/// `compare_wire::Kind`, as numbers.
pub mod kind {
    /// First code of ours inside.
    pub const INIT: u16 = 3;
    /// The workload ended.
    pub const EXITED: u16 = 6;
    /// What the guest knows of itself.
    pub const REPORT: u16 = 8;
    /// The guest asks for its power to be cut.
    pub const POWER_OFF: u16 = 9;
    /// Only a monitor knows that.
    pub const CRASHED: u16 = 10;
}

/// Prints a text.
pub fn print(text: &str) {
    text.bytes().for_each(|byte| out8(SERIAL, byte));
}

/// Prints a number in hexadecimal.
pub fn print_number(number: u64) {
    for shift in (0..16).rev() {
        let digit = (number >> (shift * 4) & 0xf) as u8;
        out8(SERIAL, if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

/// Sends a frame: 16 bytes of head, then its payload.
pub fn send(kind: u16, length: u16, arg: u32, payload: &[u32]) {
    for word in [u32::from(kind) | u32::from(length) << 16, arg, 0, 0] {
        out32(FRAMES, word);
    }
    payload.iter().for_each(|&word| out32(FRAMES, word));
}

fn end(code: u32) -> ! {
    send(kind::EXITED, 0, code << 8, &[]);
    send(kind::POWER_OFF, 0, 0, &[]);
    loop {
        halt();
    }
}

/// The misdeed is done and the machine still works.
pub fn survived() -> ! {
    print("survived\n");
    end(0)
}

/// Something was not as a sound monitor leaves it.
pub fn fail(what: &str, one: u64, other: u64) -> ! {
    print("failed: ");
    print(what);
    print(": ");
    print_number(one);
    print(" ");
    print_number(other);
    print("\n");
    end(1)
}

/// Fails unless both are the same.
pub fn expect(what: &str, seen: u64, wanted: u64) {
    if seen != wanted {
        fail(what, seen, wanted);
    }
}

/// Writes so many bytes to the console, four at a time, and a last line.
pub fn flood(bytes: u64) {
    for line in 0..bytes / 64 {
        (0..15).for_each(|_| out32(SERIAL, u32::from_le_bytes(*b"full")));
        out32(SERIAL, u32::from_le_bytes([b'0' + (line % 10) as u8, b'.', b'.', b'\n']));
    }
    print("the last line\n");
}
