//! Reading and writing the small text files of a cgroup.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use crate::CgroupError;

/// Writes `value` in one write(2), as cgroup files require. The kernel makes the files with the
/// group; only a unit test's plain directory needs them created.
pub(crate) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    OpenOptions::new()
        .write(true)
        .create(cfg!(test))
        .truncate(cfg!(test))
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| CgroupError::Write {
            path: path.to_owned(),
            value: value.to_owned(),
            source,
        })
}

/// The whole text of a file.
pub(crate) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

/// A file that holds one number.
pub(crate) fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is not a number", text.trim()))
    })
}

/// The number after `key` in a file of lines `key number` (`memory.stat`, `cpu.stat`).
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The numbers of a file with one on each line (`cgroup.procs`).
pub(crate) fn pids(path: &Path) -> io::Result<Vec<i32>> {
    Ok(fs::read_to_string(path)?.lines().filter_map(|line| line.parse().ok()).collect())
}
