//! Addresses of an instance's link: derived from its slot alone, so nothing has to be kept or
//! negotiated, and both ends can know the other's hardware address before it exists.

use std::net::Ipv4Addr;

use crate::{Neighbour, Settings};

/// Slots with addresses of their own: the networks of prefix 30 in 10.0.0.0/8 (RFC 1918).
const SLOTS: u32 = 1 << 22;

/// Both ends of one instance's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressing {
    /// Address of the host's end.
    pub host_ip: Ipv4Addr,
    /// Address of the instance's end.
    pub peer_ip: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Hardware address of the host's end: locally administered (IEEE 802, second bit).
    pub host_mac: [u8; 6],
    /// Hardware address of the instance's end.
    pub peer_mac: [u8; 6],
}

impl Addressing {
    /// The link of the instance in `slot`. Unique for slots below 2²²; beyond, they repeat.
    pub fn of(slot: u32) -> Self {
        let slot = slot % SLOTS;
        let network = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + 4 * slot;
        let [_, high, middle, low] = slot.to_be_bytes();
        Self {
            host_ip: Ipv4Addr::from(network + 1),
            peer_ip: Ipv4Addr::from(network + 2),
            prefix: 30,
            host_mac: [0x02, 0xc0, 0, high, middle, low],
            peer_mac: [0x02, 0xc0, 1, high, middle, low],
        }
    }

    /// How the host's end is set up. Its hardware address is left as it was made.
    pub fn host_settings(&self) -> Settings {
        Settings {
            mac: None,
            address: self.host_ip,
            prefix: self.prefix,
            neighbour: Some(Neighbour { address: self.peer_ip, mac: self.peer_mac }),
            gateway: None,
        }
    }

    /// How the instance's end is set up: the host's end is its neighbour and default route.
    pub fn peer_settings(&self) -> Settings {
        Settings {
            mac: None,
            address: self.peer_ip,
            prefix: self.prefix,
            neighbour: Some(Neighbour { address: self.host_ip, mac: self.host_mac }),
            gateway: Some(self.host_ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_slot_has_a_link_of_its_own() {
        let mut seen = HashSet::new();
        for slot in (0..5000).chain([65_535, 65_536, SLOTS - 1]) {
            let link = Addressing::of(slot);
            let network = |ip: Ipv4Addr| u32::from(ip) >> 2;
            assert_eq!(network(link.host_ip), network(link.peer_ip));
            assert_eq!(link.host_ip.octets()[0], 10);
            assert_eq!(link.host_mac[0] & 3, 2, "local and not multicast");
            assert!(
                seen.insert((link.host_ip, link.host_mac))
                    && seen.insert((link.peer_ip, link.peer_mac))
            );
        }
        assert_eq!(Addressing::of(1).peer_ip, Ipv4Addr::new(10, 0, 0, 6));
        assert_eq!(Addressing::of(SLOTS), Addressing::of(0));
    }
}
