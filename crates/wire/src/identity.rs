//! Who a restored guest is. Everything else it has from the machine that was saved, and shares with
//! every other machine restored from it.

use alloc::string::String;

use crate::{
    GuestNet,
    encoding::{DecodeError, Field, record},
};

/// What PID 1 takes on before anything else runs in a restored guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestIdentity {
    /// Host name.
    pub hostname: String,
    /// Network, if there is one.
    pub net: Option<GuestNet>,
    /// Hardware address of its interface.
    pub mac: [u8; 6],
    /// CLOCK_REALTIME of the host when the guest asks, nanoseconds. Its CLOCK_MONOTONIC goes on from
    /// where it was saved.
    pub realtime_ns: u64,
    /// Random bytes no other machine gets: 256 bits, the strength of the kernel's generator
    /// (random(4)).
    pub seed: [u8; 32],
}

record!(GuestIdentity { hostname, net, mac, realtime_ns, seed });

impl GuestIdentity {
    /// Bytes of its encoding, zeroes at the end included: room for the longest host name the kernel
    /// takes (64) and the longest interface name (15).
    pub const SIZE: usize = 256;

    /// Its bytes; none where a name is longer than the kernel would take.
    pub fn encode(&self) -> Option<[u8; Self::SIZE]> {
        let mut bytes = [0; Self::SIZE];
        let encoded = self.to_bytes();
        bytes.get_mut(..encoded.len())?.copy_from_slice(&encoded);
        Some(bytes)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// The bytes are not an identity.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::take(&mut &*bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn identity(name: usize) -> GuestIdentity {
        GuestIdentity {
            hostname: "h".repeat(name),
            net: Some(GuestNet {
                interface: "i".repeat(15),
                address: Ipv4Addr::BROADCAST,
                prefix: 32,
                gateway: Ipv4Addr::BROADCAST,
                gateway_mac: [0xff; 6],
            }),
            mac: [0xff; 6],
            realtime_ns: u64::MAX,
            seed: [0xff; 32],
        }
    }

    #[test]
    fn the_longest_identity_has_room() {
        let longest = identity(64);
        let bytes = longest.encode().unwrap();
        assert_eq!(GuestIdentity::decode(&bytes), Ok(longest));
        assert_eq!(identity(200).encode(), None);
    }

    #[test]
    fn what_no_monitor_says_is_no_identity() {
        // A port where nothing is reads as all ones.
        assert!(GuestIdentity::decode(&[0xff; GuestIdentity::SIZE]).is_err());
    }
}
