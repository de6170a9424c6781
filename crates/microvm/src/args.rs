//! The monitor's command line, written by the backend and read by the monitor. Hand-made: the
//! monitor starts once for every VM, and a parser that knows ten options takes no time at all.

use std::{
    ffi::{CString, OsStr, OsString},
    os::{fd::RawFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use compare_spec::Bytes;

/// What `--help` prints.
pub const HELP: &str = "\
compare-vmm: boots one Linux kernel in one KVM virtual machine (part of `compare`)

usage: compare-vmm --kernel FILE --initramfs FILE --memory SIZE [OPTION…]

  --kernel FILE         uncompressed x86-64 kernel (vmlinux)
  --initramfs FILE      uncompressed cpio archive (newc) that holds /init
  --memory SIZE         RAM of the guest: 128MiB
  --vcpus N             virtual CPUs, 1 to 32 (1)
  --disk FILE           read-only disk, /dev/vda in the guest
  --disk-bytes N        length the disk must have
  --tap-fd N            tap device (IFF_NO_PI, IFF_VNET_HDR), eth0 in the guest
  --mac XX:XX:…         hardware address of eth0
  --config-fd N         second archive, unpacked after the first
  --frames-fd N         pipe that takes frames (crates/wire)
  --append TEXT         more words for the kernel command line
  --kvm FILE            KVM device (/dev/kvm)
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
    /// KVM device.
    pub kvm: PathBuf,
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
            kvm: "/dev/kvm".into(),
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
            _ if !OPTIONS.contains(&name) => {
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
        if missing {
            return Err(UsageError(format!("{name} is missing")));
        }
    }
    Ok(Invocation::Run(Box::new(args)))
}

const OPTIONS: [&str; 12] = [
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
        _ => args.kvm = value.into(),
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str, value: &OsStr) -> Result<T, UsageError> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed
        .ok_or_else(|| UsageError(format!("{name} {}: not a number it can take", value.display())))
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
        let mut option = |name: &str, value: &[u8]| -> Result<(), std::ffi::NulError> {
            argv.push(CString::new(name)?);
            argv.push(CString::new(value)?);
            Ok(())
        };
        let [a, b, c, d, e, f] = self.mac;
        option("--kernel", self.kernel.as_os_str().as_bytes())?;
        option("--initramfs", self.initramfs.as_os_str().as_bytes())?;
        option("--memory", self.memory.0.to_string().as_bytes())?;
        option("--vcpus", self.vcpus.to_string().as_bytes())?;
        option("--mac", format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").as_bytes())?;
        option("--append", self.append.as_bytes())?;
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
            kvm: "/dev/other".into(),
        };
        let argv = args.to_argv().unwrap();
        assert_eq!(
            parse(argv.into_iter().skip(1).map(|text| OsString::from_vec(text.into_bytes()))),
            Ok(Invocation::Run(Box::new(args)))
        );
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
        assert!(OPTIONS.iter().all(|option| HELP.contains(&format!("  {option} "))));
    }
}
