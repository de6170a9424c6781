//! What the guest's PID 1 is told, what it tells, and what it can be asked: all encoded as
//! `encoding` says. The configuration travels as a file of the initramfs, [`GuestConfig::PATH`].

use alloc::{string::String, vec::Vec};
use core::net::Ipv4Addr;

use crate::encoding::{DecodeError, Field, record};

/// What the guest's PID 1 does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// Block device that holds the read-only root, such as `/dev/vda`.
    pub root: String,
    /// File system on it.
    pub root_type: String,
    /// Its mount options, such as `dax`; none if empty.
    pub root_options: String,
    /// Host name.
    pub hostname: String,
    /// Program (absolute path) and arguments.
    pub command: Vec<String>,
    /// Complete environment.
    pub env: Vec<(String, String)>,
    /// Where the program starts.
    pub working_dir: String,
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Network, if there is one.
    pub net: Option<GuestNet>,
    /// Files of /proc written to before the program starts, and what: settings of the kernel, and
    /// [`GuestConfig::OOM_SCORE_ADJ`], which the program inherits.
    pub settings: Vec<(String, String)>,
    /// The program's resource limits: number, soft and hard (setrlimit(2)).
    pub rlimits: Vec<(u32, (u64, u64))>,
}

record!(GuestConfig {
    root,
    root_type,
    root_options,
    hostname,
    command,
    env,
    working_dir,
    uid,
    gid,
    groups,
    net,
    settings,
    rlimits
});

impl GuestConfig {
    /// Where PID 1 finds it.
    pub const PATH: &'static str = "/compare.config";
    /// How soon the kernel kills for want of memory (proc_pid_oom_score_adj(5)): PID 1's own, whom it
    /// never kills, and of all that PID 1 starts.
    pub const OOM_SCORE_ADJ: &'static str = "/proc/self/oom_score_adj";

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.to_bytes()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// The bytes are not a configuration.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::take(&mut &*bytes)
    }
}

/// The guest's one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestNet {
    /// Name of the interface, such as `eth0`.
    pub interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// The host's end, the default route.
    pub gateway: Ipv4Addr,
    /// Its hardware address, set as a static neighbour so that no ARP is waited for.
    pub gateway_mac: [u8; 6],
}

record!(GuestNet { interface, address, prefix, gateway, gateway_mac });

/// What the guest knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestReport {
    /// `uname -r`, at most 64 bytes.
    pub release: String,
    /// Number of CPUs online.
    pub cpus: u32,
    /// MemTotal, KiB.
    pub total_kib: u64,
    /// MemAvailable, KiB.
    pub available_kib: u64,
    /// MemFree, KiB.
    pub free_kib: u64,
    /// Slab, KiB.
    pub slab_kib: u64,
    /// Cached, KiB.
    pub cached_kib: u64,
}

record!(GuestReport { release, cpus, total_kib, available_kib, free_kib, slab_kib, cached_kib });

impl GuestReport {
    /// Its bytes, at most [`crate::MAX_PAYLOAD`].
    pub fn encode(&self) -> Vec<u8> {
        self.to_bytes()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// The bytes are not a report.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::take(&mut &*bytes)
    }
}

/// One byte from the monitor to PID 1, over the console's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Send this signal (1 to 63) to the workload.
    Signal(u8),
    /// Send a [`GuestReport`].
    Report,
    /// Get ready to be saved ([`crate::Kind::Save`]).
    Save,
}

impl Control {
    /// Its byte: signals are their number with the top bit set, so that no stray key press is one.
    pub fn encode(self) -> u8 {
        match self {
            Self::Signal(number) => 0x80 | (number & 0x3f),
            Self::Report => 0xc0,
            Self::Save => 0xc1,
        }
    }

    /// Reads it back; other bytes mean nothing.
    pub fn decode(byte: u8) -> Option<Self> {
        match byte {
            0xc0 => Some(Self::Report),
            0xc1 => Some(Self::Save),
            0x81..=0xbf => Some(Self::Signal(byte & 0x3f)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_survive() {
        for number in 1..64 {
            let control = Control::Signal(number);
            assert_eq!(Control::decode(control.encode()), Some(control));
        }
        for control in [Control::Report, Control::Save] {
            assert_eq!(Control::decode(control.encode()), Some(control));
        }
        assert!((0..=0x80).all(|byte| Control::decode(byte).is_none()));
    }

    #[test]
    fn configurations_survive_and_pieces_of_them_are_errors() {
        let config = GuestConfig {
            root: "/dev/vda".to_owned(),
            root_type: "erofs".to_owned(),
            root_options: "dax".to_owned(),
            hostname: "h".to_owned(),
            command: vec!["/bin/sh".to_owned(), String::new(), "é".to_owned()],
            env: vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x".repeat(200_000))],
            working_dir: "/".to_owned(),
            uid: 7,
            gid: u32::MAX,
            groups: vec![1, 2, 3],
            net: Some(GuestNet {
                interface: "eth0".to_owned(),
                address: Ipv4Addr::new(10, 0, 0, 2),
                prefix: 30,
                gateway: Ipv4Addr::new(10, 0, 0, 1),
                gateway_mac: [2, 3, 4, 5, 6, 7],
            }),
            settings: vec![("/proc/sys/kernel/sem".to_owned(), "1 2".to_owned())],
            rlimits: vec![(7, (1024, u64::MAX))],
        };
        let bytes = config.encode();
        assert_eq!(GuestConfig::decode(&bytes), Ok(config.clone()));
        for len in (0..200).chain(bytes.len() - 60..bytes.len()) {
            assert_eq!(GuestConfig::decode(&bytes[..len]), Err(DecodeError), "{len}");
        }
        let without = GuestConfig { net: None, ..config };
        assert_eq!(GuestConfig::decode(&without.encode()), Ok(without));
    }

    #[test]
    fn the_largest_report_fits_a_frame() {
        let report = GuestReport {
            release: "r".repeat(64),
            cpus: u32::MAX,
            total_kib: u64::MAX,
            available_kib: u64::MAX,
            free_kib: u64::MAX,
            slab_kib: u64::MAX,
            cached_kib: u64::MAX,
        };
        assert!(report.encode().len() <= crate::MAX_PAYLOAD);
        assert_eq!(GuestReport::decode(&report.encode()), Ok(report));
        assert!(GuestReport::decode(&[0xff; 9]).is_err());
    }
}
