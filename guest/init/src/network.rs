//! The guest's network: loopback, and one interface with a static neighbour, so that nothing is
//! asked for and nothing waited for.

use compare_syscall::{Control, Interface, Neighbour, Settings, StepError};
use compare_wire::GuestNet;

use crate::{failure::Failure, sys::Errno};

/// Sets the network up, with a new hardware address if one is given. Setting a new address takes the
/// old one's routes and neighbours away.
pub fn configure(net: &GuestNet, mac: Option<[u8; 6]>) -> Result<(), Failure> {
    let interface = Interface::new(&net.interface).map_err(|_| Failure {
        step: ["configure the network: use the name ", &net.interface].concat(),
        errno: Errno(libc::EINVAL),
    })?;
    let settings = Settings {
        mac,
        address: net.address,
        prefix: net.prefix,
        neighbour: Some(Neighbour { address: net.gateway, mac: net.gateway_mac }),
        gateway: Some(net.gateway),
    };
    Control::open()
        .and_then(|control| {
            control.bring_up(&Interface::LOOPBACK)?;
            control.configure(&interface, &settings)
        })
        .map_err(|StepError { step, errno }| Failure {
            step: ["configure the network: ", step.as_str()].concat(),
            errno: Errno(errno),
        })
}
