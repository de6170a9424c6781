//! Lies to the frames port.

use crate::{
    cpu::{Noise, out8, out16, out32},
    report::{FRAMES, fail, kind, send},
};

/// Bytes without sense, in all widths. No stream of them stays a stream of frames for long.
pub fn noise(seed: u64) {
    let mut noise = Noise::new(seed);
    for _ in 0..10_000 {
        let value = noise.next();
        match value % 3 {
            0 => out8(FRAMES, noise.next() as u8),
            1 => out16(FRAMES, noise.next() as u16),
            _ => out32(FRAMES, noise.next() as u32),
        }
    }
    fail("the monitor took noise", 0, 0);
}

/// A kind nobody defined.
pub fn unknown() {
    send(0x1234, 0, 0, &[]);
    fail("the monitor took an unknown frame", 0, 0);
}

/// A payload longer than any.
pub fn long() {
    send(kind::INIT, 0xffff, 0, &[]);
    fail("the monitor took a frame too long", 0, 0);
}

/// Speaks for its monitor.
pub fn monitors() {
    send(kind::CRASHED, 0, 0, &[]);
    fail("the monitor let a guest speak for it", 0, 0);
}

/// Says the same mark over and over.
pub fn marks(count: u64) {
    (0..count).for_each(|_| send(kind::INIT, 0, 0, &[]));
}

/// Sends reports that are none.
pub fn reports(count: u64) {
    (0..count).for_each(|index| send(kind::REPORT, 240, 0, &[index as u32; 60]));
}

/// Says that the workload ended, and stays.
pub fn ended() {
    send(kind::EXITED, 0, 0, &[]);
    crate::cpu::spin();
}
