//! One rtnetlink request and its acknowledgement (netlink(7), rtnetlink(7)), encoded by hand:
//! three messages do not justify a dependency.
#![allow(unsafe_code)] // the raw socket calls, whose safe wrappers lack nothing but NETLINK_ROUTE's zero protocol

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::Interface;

/// A request under construction: a header, an ifinfomsg, then attributes that may nest.
pub(crate) struct Request(Vec<u8>);

/// Where a nested attribute began.
pub(crate) struct Nest(usize);

/// `struct ifinfomsg` of linux/rtnetlink.h: family, type, index, flags, change; all zero here.
const IFINFOMSG: [u8; 16] = [0; 16];

impl Request {
    /// A request about a link, to be acknowledged.
    pub(crate) fn link(kind: u16, flags: i32) -> Self {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let mut bytes = Vec::with_capacity(512);
        bytes.extend(0_u32.to_ne_bytes()); // nlmsg_len, set when sent
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes()); // nlmsg_seq
        bytes.extend(0_u32.to_ne_bytes()); // nlmsg_pid: the kernel
        bytes.extend(IFINFOMSG);
        Self(bytes)
    }

    /// An attribute: length, type, value, padded to four bytes.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let nest = self.begin(kind);
        self.0.extend(value);
        self.end(nest);
    }

    /// The name of an interface.
    pub(crate) fn name(&mut self, name: &Interface) {
        self.attribute(libc::IFLA_IFNAME, name.as_bytes_with_nul());
    }

    /// Another ifinfomsg, which some attributes begin with.
    pub(crate) fn ifinfomsg(&mut self) {
        self.0.extend(IFINFOMSG);
    }

    /// Begins an attribute that holds others.
    pub(crate) fn begin(&mut self, kind: u16) -> Nest {
        let nest = Nest(self.0.len());
        self.0.extend(0_u16.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        nest
    }

    /// Ends it.
    pub(crate) fn end(&mut self, nest: Nest) {
        let len = (self.0.len() - nest.0) as u16;
        self.0[nest.0..nest.0 + 2].copy_from_slice(&len.to_ne_bytes());
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    /// Sends it and waits for the acknowledgement, which the kernel gives once it is carried out.
    pub(crate) fn send(mut self) -> io::Result<()> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        // SAFETY: socket(2) takes three integers.
        let fd = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the buffer is readable for its length. Without an address the message goes to
        // the kernel.
        let sent =
            unsafe { libc::send(socket.as_raw_fd(), self.0.as_ptr().cast(), self.0.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut reply = [0_u8; 1024];
        loop {
            // SAFETY: the buffer is writable for its length.
            let got = unsafe {
                libc::recv(socket.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0)
            };
            match usize::try_from(got) {
                Ok(got) => return acknowledged(&reply[..got]),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

/// Reads an NLMSG_ERROR message: the header, then a negative error number, 0 for success.
fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let header = mem::size_of::<libc::nlmsghdr>();
    let kind = reply.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code = reply.get(header..header + 4);
    match (kind, code) {
        (Some(kind), Some(code)) if i32::from(kind) == libc::NLMSG_ERROR => {
            match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
            }
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink: not an acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_are_padded() {
        let mut request = Request::link(libc::RTM_NEWLINK, 0);
        let nest = request.begin(18);
        request.attribute(1, b"veth");
        request.attribute(2, b"abc");
        request.end(nest);
        assert_eq!(request.0.len(), 16 + 16 + 4 + 8 + 8);
        assert_eq!(request.0[32..36], [20, 0, 18, 0]);
        assert_eq!(request.0[44..52], [7, 0, 2, 0, b'a', b'b', b'c', 0]);
    }

    #[test]
    fn acknowledgements_are_read_with_care() {
        let mut reply = vec![0; 20];
        reply[4] = 2;
        assert!(acknowledged(&reply).is_ok());
        reply[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(acknowledged(&reply).unwrap_err().raw_os_error(), Some(17));
        for len in 0..20 {
            assert!(acknowledged(&reply[..len]).is_err());
        }
    }
}
