//! A tap device (linux tuntap.rst): the host's end of a microVM's network. It lives as long as its
//! descriptor.
#![allow(unsafe_code)] // ioctls on C structures.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use compare_syscall::request;

use crate::{Addressing, Control, Interface, NetError, Settings};

/// Length of `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6): a modern device always uses this one.
const VNET_HDR_BYTES: libc::c_int = 12;

/// A tap device, set up and up. Dropping its descriptor, in every process that has it, removes it.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    interface: Interface,
}

impl Tap {
    /// Makes one in the calling thread's network namespace, with the host side of `addressing`.
    /// Reads and writes on it do not block. With `vnet_hdr` each frame carries a virtio header of
    /// 12 bytes in front.
    ///
    /// # Errors
    /// `/dev/net/tun` is missing, the name is taken, or the privilege is missing.
    pub fn create(
        name: &Interface,
        addressing: &Addressing,
        vnet_hdr: bool,
    ) -> Result<Self, NetError> {
        let fail = |step, source| NetError::Tap { name: name.to_string(), step, source };
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open("/dev/net/tun")
            .map_err(|error| fail("open /dev/net/tun", error))?;
        let fd = OwnedFd::from(file);
        let mut request = request(name);
        let header = if vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as libc::c_short;
        // SAFETY: TUNSETIFF takes an ifreq, which is initialised and may be written.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } != 0 {
            return Err(fail("make the device (TUNSETIFF)", io::Error::last_os_error()));
        }
        if vnet_hdr {
            let size = VNET_HDR_BYTES;
            // SAFETY: TUNSETVNETHDRSZ takes a pointer to an int, which lives on this stack.
            if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) } != 0 {
                return Err(fail(
                    "set the header's size (TUNSETVNETHDRSZ)",
                    io::Error::last_os_error(),
                ));
            }
        }
        let settings = Settings { mac: Some(addressing.host_mac), ..addressing.host_settings() };
        Control::open()
            .and_then(|control| control.configure(name, &settings))
            .map_err(|error| NetError::configure(name, error))?;
        Ok(Self { fd, interface: *name })
    }

    /// Its name.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Its descriptor alone, to be handed to the monitor.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
