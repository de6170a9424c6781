//! The command line.

use std::io;

use compare_spec::Bytes;

/// What to measure.
pub struct Settings {
    /// Runs of every column.
    pub runs: u32,
    /// The monitor.
    pub vmm: String,
    /// Initramfs with the guest's PID 1.
    pub initramfs: String,
    /// Disk with `/hello`.
    pub disk: String,
    /// Disk with this program as `/hello`.
    pub idle_disk: String,
    /// RAM of the guest.
    pub memory: Bytes,
    /// Kernels.
    pub columns: Vec<Column>,
}

/// A kernel with its name in the results.
pub struct Column {
    /// Name in the results.
    pub name: String,
    /// An uncompressed `vmlinux`.
    pub kernel: String,
    /// More words for its command line.
    pub words: String,
}

/// Reads the options.
///
/// # Errors
/// One is unknown, or lacks its value.
pub fn parse(mut arguments: impl Iterator<Item = String>) -> io::Result<Settings> {
    let mut settings = Settings {
        runs: 10,
        vmm: String::new(),
        initramfs: String::new(),
        disk: String::new(),
        idle_disk: String::new(),
        memory: Bytes::mib(128),
        columns: Vec::new(),
    };
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| wrong(&format!("{option} lacks its value")))?;
        match option.as_str() {
            "--runs" => settings.runs = value.parse().map_err(|_| wrong(&value))?,
            "--vmm" => settings.vmm = value,
            "--initramfs" => settings.initramfs = value,
            "--disk" => settings.disk = value,
            "--idle-disk" => settings.idle_disk = value,
            "--memory" => settings.memory = value.parse().map_err(|_| wrong(&value))?,
            "--kernel" => settings.columns.push(column(&value)?),
            _ => return Err(wrong(&format!("unknown option {option}"))),
        }
    }
    Ok(settings)
}

fn column(text: &str) -> io::Result<Column> {
    let (name, rest) = text.split_once('=').ok_or_else(|| wrong(text))?;
    let (kernel, words) = rest.split_once(',').unwrap_or((rest, ""));
    Ok(Column { name: name.to_owned(), kernel: kernel.to_owned(), words: words.to_owned() })
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}
