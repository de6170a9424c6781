//! The end of a link that the kernel deletes by itself: with the network namespace its peer is in,
//! once nobody is there any more (network_namespaces(7)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};

use crate::{Interface, NetError};

/// RTMGRP_LINK of linux/rtnetlink.h: links that come, change and go.
const RTMGRP_LINK: u32 = 1;

/// Waits until the calling thread's network namespace has no link of this name, told by the
/// kernel's own notices (rtnetlink(7)). Returns at once if it has none.
///
/// # Errors
/// It is still there after `patience`, or the kernel cannot be asked.
pub fn until_gone(name: &Interface, patience: Duration) -> Result<(), NetError> {
    let attempt = || format!("see the end of the link {name}");
    wait(name, patience).map_err(|source| NetError::Link { attempt: attempt(), source })
}

fn wait(name: &Interface, patience: Duration) -> io::Result<()> {
    let begin = Instant::now();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let notices = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(notices.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
    // Only now: a notice from before would have been missed.
    while if_nametoindex(name.to_string().as_str()).is_ok() {
        let left = patience.saturating_sub(begin.elapsed());
        if left.is_zero() {
            let seconds = patience.as_secs_f64();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("still there after {seconds} s"),
            ));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(notices.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        drain(notices.as_raw_fd())?;
    }
    Ok(())
}

/// Takes every notice that is there: what they say, the kernel is asked itself.
fn drain(notices: i32) -> io::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        match recv(notices, &mut buffer, MsgFlags::empty()) {
            // More notices than room is no loss either.
            Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
