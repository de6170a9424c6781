//! The words host, guest init and monitor exchange: phase marks and reports as small frames, and
//! the description of the guest's one process. Everything a guest sends is hostile input, so frames
//! are bounded and decoding never trusts a length.

mod capabilities;
mod frame;
mod guest;
pub mod ports;

pub use capabilities::DEFAULT_CAPABILITIES;
pub use frame::{Decoder, Frame, FrameError, Kind, MAX_PAYLOAD};
pub use guest::{Control, GuestConfig, GuestNet, GuestReport};
