//! The I/O ports by which a guest talks to its monitor. They lie in a range no PC device claims.

/// Takes the bytes of frames ([`crate::Frame`] without a time) from the guest, by `outb`, `outw` or
/// `outl`: each is an exit of its own, also within `rep outs`, so four bytes at a time are cheapest.
/// The monitor stamps each frame at the exit that completes it.
pub const FRAMES: u16 = 0x0600;
/// Gives the bytes of an encoded [`crate::GuestIdentity`] to the guest, for one `rep insb`.
pub const IDENTITY: u16 = 0x0604;
/// One past the last port; PID 1 asks for `FRAMES..END` with ioperm(2).
pub const END: u16 = 0x0605;
