//! The guest's network: loopback, and one interface with a static neighbour, so that nothing is
//! asked for and nothing waited for.

use compare_net::{Control, Interface, Neighbour, Settings, StepError};
use compare_wire::GuestNet;

use crate::{failure::Failure, sys::Errno};

/// Sets the network up.
pub fn configure(net: &GuestNet) -> Result<(), Failure> {
    let interface = Interface::new(&net.interface).map_err(|error| Failure {
        step: format!("configure the network: {error}"),
        errno: Errno(libc::EINVAL),
    })?;
    let settings = Settings {
        mac: None,
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
            step: format!("configure the network: {step}"),
            errno: Errno(errno),
        })
}
