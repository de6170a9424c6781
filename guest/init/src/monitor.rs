//! The way to the monitor: frames through an I/O port.
#![allow(unsafe_code)]

use compare_wire::{Frame, GuestIdentity, Kind, ports};

use crate::sys;

/// Proof that the port may be used: only [`Monitor::open`] makes one.
#[derive(Debug)]
pub struct Monitor(());

impl Monitor {
    /// Asks the kernel for the port.
    pub fn open() -> sys::Result<Self> {
        sys::allow_ports(ports::FRAMES, ports::END - ports::FRAMES, true).map(|()| Self(()))
    }

    /// Sends a frame. The monitor stamps it when its last byte arrives.
    pub fn send(&self, kind: Kind, arg: u32, payload: &[u8]) {
        let (bytes, len) = Frame::new(kind, arg, 0, payload).encode();
        // SAFETY: `open` was granted the port, and a child inherits that (ioperm(2)) until it
        // gives it up; what listens there takes bytes and nothing else.
        unsafe { sys::write_port(ports::FRAMES, &bytes[..len]) };
    }

    /// Asks who this machine is; none where it was not restored.
    pub fn identity(&self) -> Option<GuestIdentity> {
        let mut bytes = [0; GuestIdentity::SIZE];
        // SAFETY: `open` was granted the port; the monitor only answers there.
        unsafe { sys::read_port(ports::IDENTITY, &mut bytes) };
        GuestIdentity::decode(&bytes).ok()
    }
}

/// Gives the port up, for the workload must not have it.
pub fn leave() -> sys::Result<()> {
    sys::allow_ports(ports::FRAMES, ports::END - ports::FRAMES, false)
}
