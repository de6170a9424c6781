//! A veth pair (veth(4)) made in one message, its far end born in the instance's network namespace.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Addressing, Control, Interface, NetError, netlink::Request};

/// A network namespace, by a process in it or by a descriptor of it.
#[derive(Debug, Clone, Copy)]
pub enum Netns<'a> {
    /// That of a process, by its id.
    Pid(i32),
    /// `/proc/PID/ns/net`, opened.
    Fd(BorrowedFd<'a>),
}

/// linux/if_link.h: IFLA_INFO_KIND and IFLA_INFO_DATA within IFLA_LINKINFO.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
/// linux/veth.h.
const VETH_INFO_PEER: u16 = 1;

/// Makes a pair: the host's end in the calling thread's namespace, set up and up; the other in
/// `netns`, with its hardware address, to be set up there by [`Addressing::peer_settings`].
///
/// # Errors
/// The name is taken, the kernel has no veth, or the privilege is missing. Nothing is left then.
pub fn create_veth(
    host: &Interface,
    peer: &Interface,
    addressing: &Addressing,
    netns: Netns<'_>,
) -> Result<(), NetError> {
    let mut request = Request::link(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    request.name(host);
    request.attribute(libc::IFLA_ADDRESS, &addressing.host_mac);
    one_queue(&mut request);
    let info = request.begin(libc::IFLA_LINKINFO);
    request.attribute(IFLA_INFO_KIND, b"veth");
    let data = request.begin(IFLA_INFO_DATA);
    let other = request.begin(VETH_INFO_PEER);
    request.ifinfomsg();
    request.name(peer);
    request.attribute(libc::IFLA_ADDRESS, &addressing.peer_mac);
    one_queue(&mut request);
    match netns {
        Netns::Pid(pid) => request.attribute(libc::IFLA_NET_NS_PID, &pid.to_ne_bytes()),
        Netns::Fd(fd) => request.attribute(libc::IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes()),
    }
    request.end(other);
    request.end(data);
    request.end(info);
    let attempt = || format!("create the veth pair {host} and {peer}");
    request.send().map_err(|source| NetError::Link { attempt: attempt(), source })?;
    let configured =
        Control::open().and_then(|control| control.configure(host, &addressing.host_settings()));
    configured.map_err(|error| {
        let _ = delete_link(host);
        NetError::configure(host, error)
    })
}

/// One queue: an end would get one for each CPU, each with directories of its own in sysfs.
fn one_queue(request: &mut Request) {
    request.attribute(libc::IFLA_NUM_TX_QUEUES, &1_u32.to_ne_bytes());
    request.attribute(libc::IFLA_NUM_RX_QUEUES, &1_u32.to_ne_bytes());
}

/// Deletes a link, and with it its peer. Returns once the kernel is done; a link that is gone
/// already is no error.
///
/// # Errors
/// The kernel refuses.
pub fn delete_link(name: &Interface) -> Result<(), NetError> {
    let mut request = Request::link(libc::RTM_DELLINK, 0);
    request.name(name);
    match request.send() {
        Err(source) if source.raw_os_error() != Some(libc::ENODEV) => {
            Err(NetError::Link { attempt: format!("delete the link {name}"), source })
        }
        _ => Ok(()),
    }
}
