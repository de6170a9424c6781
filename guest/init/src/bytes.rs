//! The functions on bytes that the compiler counts on wherever it runs (core, "symbols that the core
//! library depends on"), by string instructions: there is no C library to bring them. What they handle
//! here is short, so few instructions matter more than wide ones.

use core::arch::asm;

/// memcpy(3).
///
/// # Safety
/// Both have `count` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: writes `count` bytes at `to` and reads as many at `from`, which the caller vouches for:
    // words first, then the rest. The direction flag is clear, as the ABI has it.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, edx",
            "rep movsb",
            inout("rcx") count / 8 => _, inout("rdi") to => _, inout("rsi") from => _,
            in("edx") count % 8,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// memmove(3).
///
/// # Safety
/// Both have `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: going forward never reads what it has written: `to` is not within `from`.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: as `memcpy`, from the last byte to the first; the direction flag is cleared again.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _,
            options(nostack),
        );
    }
    to
}

/// memset(3).
///
/// # Safety
/// `to` has `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: writes `count` bytes at `to`: words first, then the rest. The direction flag is clear.
    unsafe {
        asm!(
            "rep stosq",
            "mov ecx, edx",
            "rep stosb",
            inout("rcx") count / 8 => _, inout("rdi") to => _,
            in("rax") u64::from(byte as u8) * 0x0101_0101_0101_0101, in("edx") count % 8,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// memcmp(3).
///
/// # Safety
/// Both have `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for place in 0..count {
        // SAFETY: `place` is below `count`. Volatile, or the compiler might see memcmp in this loop.
        let (a, b) = unsafe { (a.add(place).read_volatile(), b.add(place).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// bcmp(3).
///
/// # Safety
/// Both have `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: the caller vouches for the same.
    unsafe { memcmp(a, b, count) }
}

/// strlen(3).
///
/// # Safety
/// A zero byte ends the string.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: no byte behind the zero is read. Volatile, or the compiler might see strlen in this loop.
    while unsafe { string.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}
