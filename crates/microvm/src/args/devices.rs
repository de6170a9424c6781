//! Options for devices that no machine has unless it is asked for: each costs its guest some of the
//! time it takes to boot.

use std::{
    ffi::{NulError, OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use compare_spec::{MemoryPages, RootDevice};

use super::{UsageError, VmmArgs, number};

/// Which of them a machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceArgs {
    /// What the read-only disk is to the guest.
    pub root_device: RootDevice,
    /// What pages RAM is made of.
    pub memory_pages: MemoryPages,
    /// A writable disk.
    pub scratch: Option<PathBuf>,
    /// A source of entropy.
    pub rng: bool,
    /// Sockets between guest and host; the host's side is a Unix socket with this path.
    pub vsock: Option<PathBuf>,
    /// Context ID of the guest (vsock(7)).
    pub vsock_cid: u32,
    /// A balloon with free-page reporting.
    pub balloon: bool,
    /// What the guest is asked to give up, MiB.
    pub balloon_mib: Option<u32>,
}

impl Default for DeviceArgs {
    fn default() -> Self {
        Self {
            root_device: RootDevice::Blk,
            memory_pages: MemoryPages::Normal,
            scratch: None,
            rng: false,
            vsock: None,
            vsock_cid: LEAST_CID,
            balloon: false,
            balloon_mib: None,
        }
    }
}

/// The first context ID that can be a guest's (section 5.10.4 of the virtio specification).
const LEAST_CID: u32 = 3;

/// What the 256 connections of a vsock device and whatever else a monitor has open stay below.
const DESCRIPTORS: u64 = 512;

/// Options that stand alone.
pub(super) const FLAGS: [&str; 2] = ["--rng", "--balloon"];
/// Options that take a value.
pub(super) const VALUES: [&str; 6] =
    ["--root-device", "--memory-pages", "--scratch", "--vsock", "--vsock-cid", "--balloon-mib"];

impl DeviceArgs {
    /// Number from which on the monitor opens no descriptors, if a device takes connections.
    pub fn listens(&self) -> Option<u64> {
        self.vsock.is_some().then_some(DESCRIPTORS)
    }

    /// Takes in a flag of [`FLAGS`].
    pub(super) fn set_flag(&mut self, name: &str) {
        match name {
            "--rng" => self.rng = true,
            _ => self.balloon = true,
        }
    }

    /// Takes in an option of [`VALUES`].
    pub(super) fn set(&mut self, name: &str, value: OsString) -> Result<(), UsageError> {
        match name {
            "--root-device" => self.root_device = root_device(name, &value)?,
            "--memory-pages" => self.memory_pages = memory_pages(name, &value)?,
            "--scratch" => self.scratch = Some(value.into()),
            "--vsock" => self.vsock = Some(value.into()),
            "--vsock-cid" => self.vsock_cid = cid(number(name, &value)?)?,
            _ => self.balloon_mib = Some(number(name, &value)?),
        }
        Ok(())
    }

    /// Checks what one option alone does not show.
    pub(super) fn check(&self, args: &VmmArgs) -> Result<(), UsageError> {
        let refuse = |text: &str| Err(UsageError(text.to_owned()));
        let saves = args.save_to.is_some();
        if self.root_device == RootDevice::Pmem {
            if args.disk.is_none() {
                return refuse("--root-device pmem without --disk");
            }
            // Its pages are the guest's memory, which a snapshot holds, but they are not its RAM.
            if saves || args.restore.is_some() {
                return refuse("--root-device pmem: such a machine is neither saved nor restored");
            }
        }
        if self.memory_pages == MemoryPages::Thp && args.restore.is_some() {
            return refuse("--memory-pages thp with --restore: its RAM is the snapshot's file");
        }
        if self.vsock_cid != LEAST_CID && self.vsock.is_none() {
            return refuse("--vsock-cid without --vsock");
        }
        // What the guest has read of the disk stays in its RAM, and so in the snapshot: restored twice,
        // or later, it would find another disk beneath.
        if saves && self.scratch.is_some() {
            return refuse(
                "--scratch with --save-to: the disk changes after the machine was saved",
            );
        }
        let Some(mib) = self.balloon_mib else { return Ok(()) };
        if !self.balloon {
            return refuse("--balloon-mib without --balloon");
        }
        // The balloon counts pages of 4 KiB in 32 bits.
        let target = u64::from(mib) << 20;
        let restored = args.restore.is_some();
        if target >> 12 > u32::MAX.into() || !restored && target >= args.memory.0 {
            return refuse("--balloon-mib: as much as the guest has, or more");
        }
        Ok(())
    }

    /// Hands each option that differs from the default to `option`, with its value if it has one.
    pub(super) fn write(
        &self,
        mut option: impl FnMut(&str, Option<&[u8]>) -> Result<(), NulError>,
    ) -> Result<(), NulError> {
        if self.root_device != RootDevice::Blk {
            option("--root-device", Some(self.root_device.as_str().as_bytes()))?;
        }
        if self.memory_pages != MemoryPages::Normal {
            option("--memory-pages", Some(self.memory_pages.as_str().as_bytes()))?;
        }
        for (name, path) in [("--scratch", &self.scratch), ("--vsock", &self.vsock)] {
            if let Some(path) = path {
                option(name, Some(path.as_os_str().as_bytes()))?;
            }
        }
        for (name, given) in [("--rng", self.rng), ("--balloon", self.balloon)] {
            if given {
                option(name, None)?;
            }
        }
        if self.vsock_cid != LEAST_CID {
            option("--vsock-cid", Some(self.vsock_cid.to_string().as_bytes()))?;
        }
        match self.balloon_mib {
            Some(mib) => option("--balloon-mib", Some(mib.to_string().as_bytes())),
            None => Ok(()),
        }
    }
}

fn root_device(name: &str, value: &OsStr) -> Result<RootDevice, UsageError> {
    let found = RootDevice::ALL.into_iter().find(|device| value == device.as_str());
    found.ok_or_else(|| UsageError(format!("{name} {}: write blk or pmem", value.display())))
}

fn memory_pages(name: &str, value: &OsStr) -> Result<MemoryPages, UsageError> {
    let found = MemoryPages::ALL.into_iter().find(|pages| value == pages.as_str());
    found.ok_or_else(|| UsageError(format!("{name} {}: write normal or thp", value.display())))
}

/// The last number means any (VMADDR_CID_ANY, vsock(7)).
fn cid(cid: u32) -> Result<u32, UsageError> {
    match cid {
        ..LEAST_CID | u32::MAX => {
            Err(UsageError(format!("--vsock-cid {cid}: a guest's is {LEAST_CID} or above")))
        }
        _ => Ok(cid),
    }
}

#[cfg(test)]
mod tests {
    use compare_spec::Bytes;

    use super::*;
    use crate::args::{Invocation, parse};

    const LEAST: &str = "--kernel k --initramfs i --memory 64MiB ";

    fn parsed(text: &str) -> Result<DeviceArgs, String> {
        match parse((LEAST.to_owned() + text).split_whitespace().map(OsString::from)) {
            Ok(Invocation::Run(args)) => Ok(args.devices),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn no_device_is_there_unasked() {
        assert_eq!(parsed(""), Ok(DeviceArgs::default()));
    }

    #[test]
    fn each_is_had_by_its_option() {
        let all = "--disk d --root-device pmem --memory-pages thp --rng --scratch /s --balloon --vsock /v --vsock-cid 7 --balloon-mib 63";
        let devices = parsed(all).unwrap();
        let expected = DeviceArgs {
            root_device: RootDevice::Pmem,
            memory_pages: MemoryPages::Thp,
            scratch: Some("/s".into()),
            rng: true,
            vsock: Some("/v".into()),
            vsock_cid: 7,
            balloon: true,
            balloon_mib: Some(63),
        };
        assert_eq!(devices, expected);
        let args = VmmArgs {
            memory: Bytes::mib(64),
            disk: Some("d".into()),
            devices,
            ..VmmArgs::default()
        };
        let args = VmmArgs { kernel: "k".into(), initramfs: "i".into(), ..args };
        let argv = args.to_argv().unwrap().into_iter().skip(1);
        let argv = argv.map(|text| text.into_string().unwrap().into());
        assert_eq!(parse(argv), Ok(Invocation::Run(Box::new(args))));
    }

    #[test]
    fn nonsense_is_named() {
        let neither = "--root-device pmem: such a machine is neither saved nor restored";
        let smaller = "--balloon-mib: as much as the guest has, or more";
        for (text, expected) in [
            ("--vsock v --vsock-cid 2", "--vsock-cid 2: a guest's is 3 or above"),
            ("--vsock v --vsock-cid 4294967295", "--vsock-cid 4294967295: a guest's is 3 or above"),
            ("--vsock v --vsock-cid x", "--vsock-cid x: not a number it can take"),
            ("--vsock-cid 4", "--vsock-cid without --vsock"),
            ("--balloon-mib 4", "--balloon-mib without --balloon"),
            ("--balloon --balloon-mib 64", smaller),
            ("--balloon --restore d --balloon-mib 4294967295", smaller),
            ("--rng yes", "unknown option yes"),
            ("--scratch", "--scratch lacks its value"),
            ("--root-device nvme", "--root-device nvme: write blk or pmem"),
            ("--root-device pmem", "--root-device pmem without --disk"),
            ("--memory-pages 1g", "--memory-pages 1g: write normal or thp"),
            (
                "--memory-pages thp --restore d",
                "--memory-pages thp with --restore: its RAM is the snapshot's file",
            ),
            ("--disk d --root-device pmem --save-to d", neither),
            ("--disk d --root-device pmem --restore d", neither),
            (
                "--scratch s --save-to d",
                "--scratch with --save-to: the disk changes after the machine was saved",
            ),
        ] {
            assert_eq!(parsed(text), Err(format!("{expected}; see --help")), "{text}");
        }
    }

    #[test]
    fn what_can_be_saved_may_be() {
        assert!(parsed("--rng --vsock v --balloon --balloon-mib 8 --save-to d").is_ok());
    }
}
