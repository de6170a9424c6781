//! The words host, guest init and monitor exchange: phase marks and reports as small frames, and
//! the description of the guest's one process. Everything a guest sends is hostile input, so frames
//! are bounded and decoding never trusts a length.
//!
//! Nothing here needs the standard library, and no dependency brings it in: the guest's PID 1 is built
//! without it.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod capabilities;
mod encoding;
mod frame;
mod guest;
mod identity;
pub mod ports;

pub use capabilities::DEFAULT_CAPABILITIES;
pub use encoding::DecodeError;
pub use frame::{Decoder, Frame, FrameError, Kind, MAX_PAYLOAD};
pub use guest::{Control, GuestConfig, GuestNet, GuestReport};
pub use identity::GuestIdentity;
