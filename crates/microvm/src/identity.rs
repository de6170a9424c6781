//! The port from which a restored guest's PID 1 reads who it is: once, for the bytes that seed its
//! random numbers are nobody else's.

use std::time::{SystemTime, UNIX_EPOCH};

use compare_wire::GuestIdentity;

/// The port.
#[derive(Debug, Default)]
pub struct IdentityPort {
    identity: Option<GuestIdentity>,
    told: bool,
    unread: std::vec::IntoIter<u8>,
}

impl IdentityPort {
    /// A port that gives this identity, with the time of the first read.
    pub fn new(identity: GuestIdentity) -> Self {
        Self { identity: Some(identity), told: false, unread: Vec::new().into_iter() }
    }

    /// Whether a guest has read it.
    pub fn was_told(&self) -> bool {
        self.told
    }

    /// The guest reads. One `rep insb` may arrive in pieces. What is not there reads as all ones.
    pub fn read(&mut self, data: &mut [u8]) {
        if let Some(mut identity) = self.identity.take() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            identity.realtime_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            let bytes = identity.encode().map_or_else(Vec::new, Vec::from);
            self.unread = bytes.into_iter();
            self.told = true;
        }
        data.iter_mut().for_each(|byte| *byte = self.unread.next().unwrap_or(0xff));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_with_the_time() {
        let identity = GuestIdentity {
            hostname: "h".to_owned(),
            net: None,
            mac: [2; 6],
            realtime_ns: 0,
            seed: [7; 32],
        };
        let mut port = IdentityPort::new(identity.clone());
        let mut bytes = [0; GuestIdentity::SIZE];
        assert!(!port.was_told());
        let (first, second) = bytes.split_at_mut(100);
        port.read(first);
        port.read(second);
        assert!(port.was_told());
        let told = GuestIdentity::decode(&bytes).unwrap();
        assert!(told.realtime_ns > 1_600_000_000_000_000_000, "{told:?}");
        assert_eq!(GuestIdentity { realtime_ns: 0, ..told }, identity);
        port.read(&mut bytes);
        assert_eq!(bytes, [0xff; GuestIdentity::SIZE]);
    }
}
