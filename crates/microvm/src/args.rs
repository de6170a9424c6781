//! The monitor's command line, written by the backend and read by the monitor. Hand-made: the
//! monitor starts once for every VM, and a parser that knows twenty options takes no time at all.

mod devices;

use std::{
    ffi::{CString, OsStr, OsString},
    os::{fd::RawFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use compare_spec::Bytes;

pub use devices::DeviceArgs;

/// What `--help` prints.
pub const HELP: &str = "\
compare-vmm: boots one Linux kernel in one KVM virtual machine (part of `compare`)

usage: compare-vmm --kernel FILE --initramfs FILE --memory SIZE [OPTION…]
       compare-vmm --restore DIR [OPTION…]

  --kernel FILE         x86-64 kernel: an uncompressed vmlinux, or a bzImage
  --initramfs FILE      uncompressed cpio archive (newc) that holds /init
  --memory SIZE         RAM of the guest: 128MiB
  --memory-pages KIND   pages RAM is made of: normal, or thp: of 2 MiB where the host
                        has such a page free (normal)
  --vcpus N             virtual CPUs, 1 to 32 (1)
  --disk FILE           read-only disk, /dev/vda in the guest
  --root-device KIND    what the disk is: blk, or pmem: /dev/pmem0, memory the guest
                        uses in place; such a machine cannot be saved (blk)
  --disk-bytes N        length the disk must have
  --tap-fd N            tap device (IFF_NO_PI, IFF_VNET_HDR), eth0 in the guest
  --mac XX:XX:…         hardware address of eth0
  --config-fd N         second archive, unpacked after the first
  --frames-fd N         pipe that takes frames (crates/wire)
  --append TEXT         more words for the kernel command line
  --save-to DIR         build the machine so that it can be saved there
  --restore DIR         go on with a machine that was saved, with the same disk and
                        network; --config-fd is then its identity (crates/wire)
  --room-fds N,N,N,N    namespaces to confine the monitor to, made for several;
                        without, it makes its own where it may
  --kvm FILE            KVM device (/dev/kvm)

Devices besides disk and tap, in the order in which the guest finds them behind those:
  --scratch FILE        writable disk, /dev/vdb in the guest (behind --disk)
  --rng                 source of entropy, /dev/hwrng
  --vsock PATH          sockets of the guest: a program of the host connects to PATH and
                        writes \"CONNECT PORT\"; the guest's own calls are refused
  --vsock-cid N         context ID of the guest, 3 or above (3)
  --balloon             memory balloon; pages the guest has freed go back to the host
  --balloon-mib N       how much of its memory the guest is asked to give up (0)
  --help, --version

The guest's console is standard output, its control bytes are standard input.
Exit code: 0 powered off, 1 monitor failed, 2 wrong usage, 3 guest crashed.
";

/// What the monitor is to run. Descriptors are inherited by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmArgs {
    /// Kernel file.
    pub kernel: PathBuf,
    /// Initramfs every guest shares.
    pub initramfs: PathBuf,
    /// RAM of the guest.
    pub memory: Bytes,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Read-only disk.
    pub disk: Option<PathBuf>,
    /// Length it must have, bytes.
    pub disk_bytes: Option<u64>,
    /// Tap device.
    pub tap_fd: Option<RawFd>,
    /// Hardware address of the guest's interface.
    pub mac: [u8; 6],
    /// Archive of this guest alone.
    pub config_fd: Option<RawFd>,
    /// Pipe for frames.
    pub frames_fd: Option<RawFd>,
    /// More words for the kernel command line.
    pub append: String,
    /// Where the machine is to be saved.
    pub save_to: Option<PathBuf>,
    /// A saved machine to go on with, instead of booting a kernel.
    pub restore: Option<PathBuf>,
    /// Descriptors of namespaces to confine the monitor to (`compare_confine::Room`).
    pub room_fds: Option<[RawFd; 4]>,
    /// KVM device.
    pub kvm: PathBuf,
    /// Devices besides disk and tap.
    pub devices: DeviceArgs,
}

impl Default for VmmArgs {
    fn default() -> Self {
        Self {
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            memory: Bytes(0),
            vcpus: 1,
            disk: None,
            disk_bytes: None,
            tap_fd: None,
            mac: DEFAULT_MAC,
            config_fd: None,
            frames_fd: None,
            append: String::new(),
            save_to: None,
            restore: None,
            room_fds: None,
            kvm: "/dev/kvm".into(),
            devices: DeviceArgs::default(),
        }
    }
}

/// Locally administered, unicast (IEEE 802, 8.4): an address no maker gave to any card.
const DEFAULT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Run a machine.
    Run(Box<VmmArgs>),
}

/// A command line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; see --help")]
pub struct UsageError(String);

/// Reads a command line, the program's own name left out.
///
/// # Errors
/// An option is unknown, lacks its value, or has one that makes no sense; a needed one is missing.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut args = VmmArgs::default();
    let mut arguments = arguments.into_iter();
    while let Some(option) = arguments.next() {
        let name = option.to_str().unwrap_or_default();
        match name {
            "--help" | "-h" => return Ok(Invocation::Help),
            "--version" | "-V" => return Ok(Invocation::Version),
            _ if devices::FLAGS.contains(&name) => {
                args.devices.set_flag(name);
                continue;
            }
            _ if !OPTIONS.contains(&name) && !devices::VALUES.contains(&name) => {
                return Err(UsageError(format!("unknown option {}", option.display())));
            }
            _ => {}
        }
        let value =
            arguments.next().ok_or_else(|| UsageError(format!("{name} lacks its value")))?;
        set(&mut args, name, value)?;
    }
    for (name, missing) in [
        ("--kernel", args.kernel.as_os_str().is_empty()),
        ("--initramfs", args.initramfs.as_os_str().is_empty()),
        ("--memory", args.memory.0 == 0),
    ] {
        if missing && args.restore.is_none() {
            return Err(UsageError(format!("{name} is missing")));
        }
    }
    args.devices.check(&args)?;
    Ok(Invocation::Run(Box::new(args)))
}

const OPTIONS: [&str; 15] = [
    "--kernel",
    "--initramfs",
    "--memory",
    "--vcpus",
    "--disk",
    "--disk-bytes",
    "--tap-fd",
    "--mac",
    "--config-fd",
    "--frames-fd",
    "--append",
    "--save-to",
    "--restore",
    "--room-fds",
    "--kvm",
];

fn set(args: &mut VmmArgs, name: &str, value: OsString) -> Result<(), UsageError> {
    match name {
        "--kernel" => args.kernel = value.into(),
        "--initramfs" => args.initramfs = value.into(),
        "--memory" => args.memory = number(name, &value)?,
        "--vcpus" => args.vcpus = number(name, &value)?,
        "--disk" => args.disk = Some(value.into()),
        "--disk-bytes" => args.disk_bytes = Some(number(name, &value)?),
        "--tap-fd" => args.tap_fd = Some(number(name, &value)?),
        "--mac" => args.mac = mac(&value)?,
        "--config-fd" => args.config_fd = Some(number(name, &value)?),
        "--frames-fd" => args.frames_fd = Some(number(name, &value)?),
        "--append" => args.append = value.to_string_lossy().into_owned(),
        "--save-to" => args.save_to = Some(value.into()),
        "--restore" => args.restore = Some(value.into()),
        "--room-fds" => args.room_fds = Some(room_fds(name, &value)?),
        "--kvm" => args.kvm = value.into(),
        _ => args.devices.set(name, value)?,
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str, value: &OsStr) -> Result<T, UsageError> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed
        .ok_or_else(|| UsageError(format!("{name} {}: not a number it can take", value.display())))
}

fn room_fds(name: &str, value: &OsStr) -> Result<[RawFd; 4], UsageError> {
    let fds = value
        .to_string_lossy()
        .split(',')
        .map(|fd| number(name, OsStr::new(fd)))
        .collect::<Result<Vec<RawFd>, _>>()?;
    fds.try_into()
        .map_err(|_| UsageError(format!("{name} {}: write four numbers", value.display())))
}

fn mac(value: &OsStr) -> Result<[u8; 6], UsageError> {
    let bad = || UsageError(format!("--mac {}: write it as 02:00:00:00:00:01", value.display()));
    let parts: Vec<u8> = value
        .to_str()
        .ok_or_else(bad)?
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).map_err(|_| bad()))
        .collect::<Result<_, _>>()?;
    parts.try_into().map_err(|_| bad())
}

impl VmmArgs {
    /// The arguments that [`parse`] reads back, for execve(2), the program's name first.
    ///
    /// # Errors
    /// A value holds a NUL, which no argument can.
    pub fn to_argv(&self) -> Result<Vec<CString>, std::ffi::NulError> {
        let mut argv = vec![CString::new("compare-vmm")?];
        self.devices.write(|name, value| {
            argv.push(CString::new(name)?);
            argv.extend(value.map(CString::new).transpose()?);
            Ok(())
        })?;
        let mut option = |name: &str, value: &[u8]| -> Result<(), std::ffi::NulError> {
            argv.push(CString::new(name)?);
            argv.push(CString::new(value)?);
            Ok(())
        };
        let [a, b, c, d, e, f] = self.mac;
        if let Some(directory) = &self.restore {
            option("--restore", directory.as_os_str().as_bytes())?;
        } else {
            option("--kernel", self.kernel.as_os_str().as_bytes())?;
            option("--initramfs", self.initramfs.as_os_str().as_bytes())?;
            option("--memory", self.memory.0.to_string().as_bytes())?;
            option("--vcpus", self.vcpus.to_string().as_bytes())?;
            option("--append", self.append.as_bytes())?;
        }
        if let Some([ipc, net, uts, mount]) = self.room_fds {
            option("--room-fds", format!("{ipc},{net},{uts},{mount}").as_bytes())?;
        }
        if let Some(directory) = &self.save_to {
            option("--save-to", directory.as_os_str().as_bytes())?;
        }
        option("--mac", format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").as_bytes())?;
        option("--kvm", self.kvm.as_os_str().as_bytes())?;
        if let Some(disk) = &self.disk {
            option("--disk", disk.as_os_str().as_bytes())?;
        }
        if let Some(bytes) = self.disk_bytes {
            option("--disk-bytes", bytes.to_string().as_bytes())?;
        }
        for (name, fd) in [
            ("--tap-fd", self.tap_fd),
            ("--config-fd", self.config_fd),
            ("--frames-fd", self.frames_fd),
        ] {
            if let Some(fd) = fd {
                option(name, fd.to_string().as_bytes())?;
            }
        }
        Ok(argv)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parsed(text: &str) -> Result<Invocation, UsageError> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let args = VmmArgs {
            kernel: "/k".into(),
            initramfs: OsString::from_vec(b"/i \xff".to_vec()).into(),
            memory: Bytes::mib(128),
            vcpus: 4,
            disk: Some("/d".into()),
            disk_bytes: Some(4096),
            tap_fd: Some(7),
            mac: [2, 0xaa, 0, 0, 1, 0xff],
            config_fd: Some(8),
            frames_fd: Some(9),
            append: "debug nosmp".to_owned(),
            save_to: Some("/s".into()),
            restore: None,
            room_fds: Some([10, 11, 12, 13]),
            kvm: "/dev/other".into(),
            devices: DeviceArgs::default(),
        };
        let restored =
            VmmArgs { restore: Some("/s".into()), disk: Some("/d".into()), ..VmmArgs::default() };
        for args in [args, restored] {
            let argv = args.to_argv().unwrap();
            assert_eq!(
                parse(argv.into_iter().skip(1).map(|text| OsString::from_vec(text.into_bytes()))),
                Ok(Invocation::Run(Box::new(args)))
            );
        }
    }

    #[test]
    fn the_little_that_is_needed_is_enough() {
        let Ok(Invocation::Run(args)) = parsed("--kernel k --initramfs i --memory 64MiB") else {
            panic!()
        };
        assert_eq!((args.vcpus, args.memory, args.mac), (1, Bytes::mib(64), DEFAULT_MAC));
        assert_eq!(parsed("--help"), Ok(Invocation::Help));
        assert_eq!(parsed("--kernel k --version"), Ok(Invocation::Version));
    }

    #[test]
    fn nonsense_is_named() {
        for (text, expected) in [
            ("--kernel k --memory 1MiB", "--initramfs is missing"),
            ("--colour red", "unknown option --colour"),
            ("--kernel", "--kernel lacks its value"),
            ("--vcpus many", "--vcpus many: not a number it can take"),
            ("--mac 1:2:3", "--mac 1:2:3: write it as 02:00:00:00:00:01"),
        ] {
            assert_eq!(parsed(text).unwrap_err().to_string(), format!("{expected}; see --help"));
        }
    }

    #[test]
    fn every_option_is_in_the_help() {
        let options = OPTIONS.iter().chain(&devices::FLAGS).chain(&devices::VALUES);
        for option in options {
            assert!(HELP.contains(&format!("  {option} ")), "{option}");
        }
    }
}
