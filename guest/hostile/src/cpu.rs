//! What a CPU alone can do to its machine, and the instructions everything else is made of.

use core::arch::asm;

/// A table register's operand: limit 0 and address 0.
#[repr(C, packed)]
struct NoTable {
    limit: u16,
    address: u64,
}

/// An exception without any table of handlers: exception, double fault, triple fault.
pub fn triple_fault() {
    let none = NoTable { limit: 0, address: 0 };
    // SAFETY: `lidt` reads ten bytes that live on this stack; nothing runs after `ud2`, which is
    // the purpose.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const none, options(noreturn)) }
}

/// For ever busy, deaf to interrupts.
pub fn spin() {
    // SAFETY: touches nothing.
    unsafe { asm!("cli", "2:", "jmp 2b", options(noreturn)) }
}

/// For ever idle, deaf to interrupts.
pub fn halt() {
    // SAFETY: touches nothing.
    unsafe { asm!("cli", "2:", "hlt", "jmp 2b", options(noreturn)) }
}

/// Resets the machine by its keyboard controller (port 0x64, command 0xfe).
pub fn reset() {
    out8(0x64, 0xfe);
}

/// Jumps to where neither RAM nor a device is.
pub fn run_nowhere() {
    let nowhere = 0xe000_0000_u64;
    // SAFETY: there is nothing to come back to, which is the purpose.
    unsafe { asm!("jmp {}", in(reg) nowhere, options(noreturn)) }
}

/// Sends its own CPU an INIT: it starts over at the reset vector, where this machine has nothing.
pub fn init_itself() {
    command_itself(0x8_4500); // all CPUs with this one, delivery mode INIT, level assert
}

/// Sends its own CPU a system management interrupt, of which this machine has no handler.
pub fn smi_itself() {
    command_itself(0x8_4200); // all CPUs with this one, delivery mode SMI
}

/// Writes the local APIC's interrupt command register (Intel SDM vol. 3, 11.6.1).
fn command_itself(command: u32) {
    const INTERRUPT_COMMAND: u64 = 0xfee0_0300;
    write::<u32>(INTERRUPT_COMMAND + 0x10, 0);
    write::<u32>(INTERRUPT_COMMAND, command);
    halt();
}

/// Writes a byte to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: no device of this machine reaches memory through a port.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

/// Writes two bytes to a port.
pub fn out16(port: u16, value: u16) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) }
}

/// Writes four bytes to a port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) }
}

/// Reads a byte from a port.
pub fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as in `out8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// Reads two bytes from a port.
pub fn in16(port: u16) -> u16 {
    let value: u16;
    // SAFETY: as in `out8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack)) }
    value
}

/// Reads four bytes from a port.
pub fn in32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as in `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) }
    value
}

/// Reads a run of bytes from one port by a string instruction.
pub fn in8_run(port: u16, into: &mut [u8]) {
    // SAFETY: `rep insb` writes exactly the bytes of `into`; the direction flag is clear.
    unsafe {
        asm!(
            "rep insb",
            in("dx") port,
            inout("rdi") into.as_mut_ptr() => _,
            inout("rcx") into.len() => _,
            options(nostack)
        )
    }
}

/// Writes a run of bytes to one port by a string instruction.
pub fn out8_run(port: u16, from: &[u8]) {
    // SAFETY: `rep outsb` reads exactly the bytes of `from`; the direction flag is clear.
    unsafe {
        asm!(
            "rep outsb",
            in("dx") port,
            inout("rsi") from.as_ptr() => _,
            inout("rcx") from.len() => _,
            options(nostack)
        )
    }
}

/// Reads from an address.
pub fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the address is mapped (`paging`), and is either a device's or RAM that nothing of this
    // program lives in.
    unsafe { core::ptr::read_volatile(address as *const T) }
}

/// Writes to an address.
pub fn write<T: Copy>(address: u64, value: T) {
    // SAFETY: as in `read`.
    unsafe { core::ptr::write_volatile(address as *mut T, value) }
}

/// The CPUID leaf's EAX.
pub fn cpuid_eax(leaf: u32) -> u32 {
    core::arch::x86_64::__cpuid(leaf).eax
}

/// Numbers without order, always the same (Knuth's linear congruential generator, MMIX).
pub struct Noise(u64);

impl Noise {
    /// From a seed on.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, 31 bits.
    pub fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}
