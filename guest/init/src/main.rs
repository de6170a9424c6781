//! What makes the library a program that needs neither the standard library nor the C library: where
//! the kernel enters it, its allocator, and what becomes of a panic. It all is for size: its file is
//! unpacked page by page by every guest that boots.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod bytes;

use core::{arch::naked_asm, panic::PanicInfo};

use compare_init::Heap;

#[global_allocator]
static HEAP: Heap = Heap::new();

/// Where the kernel enters: the stack pointer at the arguments, aligned to 16 bytes, rbp 0 by
/// convention the end of the stack (System V ABI for x86-64, 3.4.1). The call aligns it as `main`
/// expects.
///
/// # Safety
/// The kernel alone enters here.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {main}", "ud2", main = sym main)
}

extern "C" fn main() -> ! {
    compare_init::main()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    compare_init::panic(info)
}
