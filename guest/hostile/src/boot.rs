//! How the guest is entered and what it was told: the first instructions, the zero page
//! (Documentation/arch/x86/zero-page.rst) and the words of the command line in it.

use core::arch::global_asm;

// The 64-bit boot protocol (Documentation/arch/x86/boot.rst) enters in long mode with interrupts off
// and the zero page in RSI. Compiled code wants a stack and, since it uses SSE registers for plain
// moves, CR4.OSFXSR and CR4.OSXMMEXCPT (Intel SDM vol. 3, 2.5).
global_asm!(
    ".globl _start",
    "_start:",
    "cli",
    "mov rax, cr4",
    "or rax, 0x600",
    "mov cr4, rax",
    "lea rsp, [rip + {stack} + {stack_bytes}]",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "call main",
    "ud2",
    stack = sym STACK,
    stack_bytes = const STACK_BYTES,
);

const STACK_BYTES: usize = 64 << 10;

#[repr(C, align(16))]
struct Stack([u8; STACK_BYTES]);

static mut STACK: Stack = Stack([0; STACK_BYTES]);

/// Offsets in the zero page.
const E820_ENTRIES: u64 = 0x1e8;
const CMD_LINE_PTR: u64 = 0x228;
const E820_TABLE: u64 = 0x2d0;
const E820_ENTRY_BYTES: u64 = 20;
const E820_RAM: u32 = 1;
/// Most bytes of command line looked at.
const COMMAND_LINE_MAX: usize = 2048;

/// The zero page.
pub struct BootParams(u64);

impl BootParams {
    /// The zero page at this address.
    pub fn at(address: u64) -> Self {
        Self(address)
    }

    fn read<T: Copy>(&self, offset: u64) -> T {
        // SAFETY: the zero page is a page of RAM that nothing else writes, mapped where it is, and
        // every offset used here lies within it; fields need not be aligned.
        unsafe { core::ptr::read_unaligned((self.0 + offset) as *const T) }
    }

    fn command_line(&self) -> &'static [u8] {
        let start = u64::from(self.read::<u32>(CMD_LINE_PTR)) as *const u8;
        let mut length = 0;
        // SAFETY: the command line is RAM below 4 GiB, ended by a NUL; nothing writes it.
        while length < COMMAND_LINE_MAX && unsafe { *start.add(length) } != 0 {
            length += 1;
        }
        // SAFETY: as above; so many bytes were just read.
        unsafe { core::slice::from_raw_parts(start, length) }
    }

    /// Stretches of RAM: start and end.
    pub fn ram(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..u64::from(self.read::<u8>(E820_ENTRIES))).filter_map(|index| {
            let entry = E820_TABLE + index * E820_ENTRY_BYTES;
            let (start, length): (u64, u64) = (self.read(entry), self.read(entry + 8));
            (self.read::<u32>(entry + 16) == E820_RAM).then_some((start, start + length))
        })
    }

    /// One past the last byte of RAM.
    pub fn ram_end(&self) -> u64 {
        self.ram().map(|(_, end)| end).max().unwrap_or(0)
    }

    /// Addresses of the virtio devices, which the command line names as
    /// `virtio_mmio.device=SIZE@ADDRESS:IRQ`.
    pub fn devices(&self) -> impl Iterator<Item = u64> {
        Words::of(self).all().filter_map(|word| {
            let place = word.strip_prefix("virtio_mmio.device=")?.split_once("@0x")?.1;
            u64::from_str_radix(place.split_once(':')?.0, 16).ok()
        })
    }
}

/// The words of the command line.
#[derive(Clone, Copy)]
pub struct Words(&'static str);

impl Words {
    /// Of this zero page.
    pub fn of(boot: &BootParams) -> Self {
        Self(core::str::from_utf8(boot.command_line()).unwrap_or(""))
    }

    fn all(self) -> impl Iterator<Item = &'static str> {
        self.0.split_ascii_whitespace()
    }

    /// What stands behind `NAME=`.
    pub fn value(self, name: &str) -> Option<&'static str> {
        self.all().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The same as a number.
    pub fn number(self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }
}
