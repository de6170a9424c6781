//! Memory: the routines compiled code calls, and a guest that wants all of it.

use core::arch::asm;

use crate::{boot::BootParams, cpu, report};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

unsafe extern "C" {
    /// Where this program ends, as its linker says.
    static _end: u8;
}

/// Writes to every page of RAM above this program.
pub fn touch(boot: &BootParams) {
    let own_end = &raw const _end as u64;
    let mut pages = 0;
    for (start, end) in boot.ram() {
        // What is not mapped (`paging`) is left alone; no test has that much.
        let mut page = start.max(own_end.next_multiple_of(MIB));
        while page < end.min(4 << 30) {
            cpu::write(page, page | 1);
            pages += 1;
            page += PAGE;
        }
    }
    report::print("pages ");
    report::print_number(pages);
    report::print("\n");
}

// What the compiler may call in place of a loop. There is no C library here to have them.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller gives two ranges of `count` bytes; the direction flag is clear.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rcx") count => _,
            options(nostack)
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: as the caller promises; a copy upwards overwrites nothing not yet read.
        return unsafe { memcpy(to, from, count) };
    }
    for index in (0..count).rev() {
        // SAFETY: within both ranges. Volatile, so that the compiler makes no call to this
        // function of it.
        unsafe { to.add(index).write_volatile(from.add(index).read_volatile()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller gives a range of `count` bytes; the direction flag is clear.
    unsafe {
        asm!(
            "rep stosb",
            inout("rdi") to => _,
            in("al") value as u8,
            inout("rcx") count => _,
            options(nostack)
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: within the ranges the caller gives. Volatile, as above.
        let (a, b) = unsafe { (one.add(index).read_volatile(), other.add(index).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(one, other, count) }
}
