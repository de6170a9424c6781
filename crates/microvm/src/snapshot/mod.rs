//! A saved machine: a directory with two files, and a third that is advice ([`WorkingSet`]). `memory` is guest RAM, its ranges one after another,
//! with holes where it is zero; restored machines map it and copy what they write. `state` is all
//! the rest, small, read whole and checked at every start:
//!
//! ```text
//!  0         8        12       16       20
//!  ├ MAGIC ──┼ VERSION ┼ length ┼ CRC-32 ┼ a Snapshot, postcard-encoded ┤   little endian
//! ```
//! A snapshot is hostile input: whatever is wrong with it is told, and nothing of it is believed
//! before its checksum held.

mod memory;
mod working_set;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use compare_virtio::transport::TransportState;
use serde::{Deserialize, Serialize};

pub use memory::Pages;
pub use working_set::WorkingSet;

use crate::{
    console::ConsoleState,
    error::Error,
    state::{VcpuState, VmState},
};

/// What the file of the state begins with.
const MAGIC: &[u8; 8] = b"cmp-snap";
/// Changes whenever [`Snapshot`] does.
const VERSION: u32 = 1;
/// Bytes before the encoded snapshot.
const HEADER: usize = 20;
/// Most bytes of state believed: 32 CPUs of about 10 KiB each and eight devices are far below.
const MOST_STATE: u64 = 4 << 20;

/// Everything of a machine but its RAM.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Bytes of guest RAM.
    pub ram_bytes: u64,
    /// CRC-32 of guest RAM, as [`Pages::checksum`] computes it.
    pub ram_checksum: u32,
    /// The CPUs.
    pub vcpus: Vec<VcpuState>,
    /// What they share.
    pub vm: VmState,
    /// The console.
    pub console: ConsoleState,
    /// The virtio devices in the order of their addresses.
    pub devices: Vec<TransportState>,
    /// Length of the disk, bytes, if there is one: the device of this machine needs the same.
    pub disk_bytes: Option<u64>,
}

/// The files of a snapshot that is yet to be made. Opened when the machine is built, before it is
/// confined.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    memory: File,
    state: File,
}

impl Files {
    /// Creates them.
    ///
    /// # Errors
    /// The directory is not there, or already holds a snapshot.
    pub fn create(directory: &Path) -> Result<Self, Error> {
        let create = |name| {
            let path = directory.join(name);
            let options =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            options.map_err(|source| Error::File { attempt: "create", path, source })
        };
        Ok(Self {
            directory: directory.to_owned(),
            memory: create("memory")?,
            state: create("state")?,
        })
    }

    /// Where guest RAM goes.
    pub fn memory(&self) -> &File {
        &self.memory
    }

    /// Writes the state, behind which the snapshot is whole.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn finish(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let state = postcard::to_stdvec(snapshot).expect("plain data always encodes");
        let mut bytes = Vec::with_capacity(HEADER + state.len());
        bytes.extend_from_slice(MAGIC);
        for word in [VERSION, state.len() as u32, crc32fast::hash(&state)] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&state);
        self.state.rewind().and_then(|()| self.state.write_all(&bytes)).map_err(|source| {
            Error::File { attempt: "write", path: self.directory.join("state"), source }
        })
    }
}

/// A saved machine, ready to be restored any number of times.
#[derive(Debug)]
pub struct Saved {
    directory: PathBuf,
    /// Guest RAM.
    pub memory: File,
    /// All the rest.
    pub snapshot: Snapshot,
}

impl Saved {
    /// Opens a snapshot and checks all of it but the contents of guest RAM.
    ///
    /// # Errors
    /// It is not there, truncated, corrupt, or of another version.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let open = |name| {
            let path = directory.join(name);
            match File::open(&path) {
                Ok(file) => Ok((file, path)),
                Err(source) => Err(Error::File { attempt: "open the snapshot", path, source }),
            }
        };
        let (state, path) = open("state")?;
        let snapshot = read_state(state, &path)?;
        let (memory, path) = open("memory")?;
        let length = memory
            .metadata()
            .map_err(|source| Error::File {
                attempt: "read the length of",
                path: path.clone(),
                source,
            })?
            .len();
        if length != snapshot.ram_bytes {
            return Err(Error::Snapshot {
                path,
                problem: format!(
                    "{length} bytes where the saved machine has {} of RAM: it is truncated or not \
                     the one that was saved",
                    snapshot.ram_bytes
                ),
            });
        }
        Ok(Self { directory: directory.to_owned(), memory, snapshot })
    }

    /// Checks the contents of guest RAM too, which reads all of it: once after saving, not at every
    /// start.
    ///
    /// # Errors
    /// It cannot be read or is not what was saved.
    pub fn verify(&self) -> Result<(), Error> {
        let path = self.directory.join("memory");
        let checksum = Pages::of_file(&self.memory, self.snapshot.ram_bytes)
            .and_then(Pages::checksum)
            .map_err(|source| Error::File { attempt: "read", path: path.clone(), source })?;
        if checksum == self.snapshot.ram_checksum {
            return Ok(());
        }
        Err(Error::Snapshot {
            path,
            problem: "its checksum does not match: it is corrupt".to_owned(),
        })
    }
}

fn read_state(file: File, path: &Path) -> Result<Snapshot, Error> {
    let bad = |problem: String| Error::Snapshot { path: path.to_owned(), problem };
    let most = HEADER as u64 + MOST_STATE;
    let read = || {
        // Room for all of it and a byte, so that its end is seen without asking for more.
        let length = file.metadata()?.len().min(most) as usize;
        let mut bytes = Vec::with_capacity(length + 1);
        (&file).take(most).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = read().map_err(|source: io::Error| Error::File {
        attempt: "read the snapshot",
        path: path.to_owned(),
        source,
    })?;
    let Some((header, state)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(bad(format!("{} bytes are too short: it is truncated", bytes.len())));
    };
    if header[..8] != *MAGIC {
        return Err(bad("it is not a snapshot of compare".to_owned()));
    }
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if word(8) != VERSION {
        return Err(bad(format!(
            "it is of version {}, this program reads version {VERSION}: save it anew",
            word(8)
        )));
    }
    if state.len() != word(12) as usize {
        return Err(bad(format!(
            "{} bytes of state where there should be {}: it is truncated",
            state.len(),
            word(12)
        )));
    }
    if crc32fast::hash(state) != word(16) {
        return Err(bad("its checksum does not match: it is corrupt".to_owned()));
    }
    postcard::from_bytes(state)
        .map_err(|error| bad(format!("its state cannot be decoded: {error}")))
}

#[cfg(test)]
mod tests;
