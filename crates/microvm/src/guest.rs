//! What this program and the guest's PID 1 agree on, and how the guest gets its configuration.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use compare_image::cpio;
use compare_spec::RootDevice;
use compare_wire::{GuestConfig, GuestIdentity};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The root disk: the first device of its kind, and what its file system is mounted with.
pub const fn root(device: RootDevice) -> (&'static str, &'static str) {
    match device {
        RootDevice::Blk => ("/dev/vda", ""),
        RootDevice::Pmem => ("/dev/pmem0", "dax"),
    }
}
/// File system on it.
pub const ROOT_TYPE: &str = "erofs";
/// The interface: the first, and only, Ethernet device.
pub const INTERFACE: &str = "eth0";

/// An archive that holds [`GuestConfig::PATH`], in an anonymous file (memfd_create(2)).
///
/// # Errors
/// No memory or no descriptors are left.
pub fn config_archive(config: &GuestConfig) -> io::Result<OwnedFd> {
    let mut archive = Vec::new();
    cpio::append_file(&mut archive, GuestConfig::PATH, 0o400, &config.encode());
    anonymous(c"compare-guest-config", &archive)
}

/// The identity of a restored guest, in an anonymous file.
///
/// # Errors
/// No memory or no descriptors are left, or the name is too long for a host name.
pub fn identity_file(identity: &GuestIdentity) -> io::Result<OwnedFd> {
    let bytes = identity
        .encode()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "its name is too long"))?;
    anonymous(c"compare-guest-identity", &bytes)
}

fn anonymous(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_archive_holds_the_configuration() {
        let config = GuestConfig {
            root: root(RootDevice::Blk).0.to_owned(),
            root_type: ROOT_TYPE.to_owned(),
            root_options: String::new(),
            hostname: "h".to_owned(),
            command: vec!["/bin/true".to_owned()],
            env: Vec::new(),
            working_dir: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: vec![],
            net: None,
            settings: Vec::new(),
            rlimits: Vec::new(),
        };
        let file = File::from(config_archive(&config).unwrap());
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.starts_with(b"070701"));
        let encoded = config.encode();
        assert!(bytes.windows(encoded.len()).any(|window| window == encoded));
    }
}
