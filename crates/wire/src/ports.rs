//! The I/O ports by which a guest talks to its monitor. They lie in a range no PC device claims.

/// Takes the bytes of frames ([`crate::Frame`] without a time) from the guest, by `outb`, `outw` or
/// `outl`: each is an exit of its own, also within `rep outs`, so four bytes at a time are cheapest.
/// The monitor stamps each frame at the exit that completes it.
pub const FRAMES: u16 = 0x0600;
/// One past the last port a write of four bytes touches; PID 1 asks for `FRAMES..END` with ioperm(2).
pub const END: u16 = 0x0604;
