//! The working set of a snapshot: the pages that the first machine restored from it wrote to until it
//! was ready. Every later one begins with copies of them, made in one go, since a page that is
//! copied when the guest first writes to it costs two exits more: one that maps the file's page for
//! the read before, and one that takes it away again. (Ustiugov et al., "Benchmarking, Analysis, and
//! Optimization of Serverless Function Snapshots", ASPLOS 2021, call it record and prefetch.)
//!
//! It lies beside the snapshot in a file of its own and is nothing but advice: a machine without it
//! comes to the same pages one by one.
//!
//! ```text
//!  0         8        12      16
//!  ├ MAGIC ──┼ CRC-32 ┼ runs ─┼ offset in guest RAM, length: two u64 for each run ┤   little endian
//! ```
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use compare_virtio::Memory;

use crate::{error::Error, memory::PAGE};

/// Its name in the snapshot's directory.
const NAME: &str = "working-set";
/// What the file begins with.
const MAGIC: &[u8; 8] = b"cmp-wset";
/// Bytes before the runs, and of each run.
const HEADER: usize = 16;
const RUN: usize = 16;
/// Most runs believed: no machine writes to so many pieces of its memory before it is ready, and
/// one that did would be slower for the reading.
const MOST_RUNS: usize = 1 << 16;
/// Entries of /proc/PID/pagemap read at a time, and their bits (Documentation/admin-guide/mm/pagemap.rst).
const ENTRIES: usize = 4096;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// Runs of guest RAM by their offset in it, sorted and disjoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WorkingSet(Vec<Range<u64>>);

impl WorkingSet {
    /// The pages of guest RAM that a restored machine has copies of. `pagemap` is its monitor's
    /// /proc/PID/pagemap, `ram` where guest RAM is mapped there.
    ///
    /// # Errors
    /// `pagemap` cannot be read.
    pub fn of_process(pagemap: &File, ram: &[Range<u64>]) -> io::Result<Self> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut base = 0;
        let mut entries = vec![0; 8 * ENTRIES];
        for range in ram {
            let (first, pages) = (range.start / PAGE, (range.end - range.start) / PAGE);
            for start in (0..pages).step_by(ENTRIES) {
                let count = ENTRIES.min((pages - start) as usize);
                let entries = &mut entries[..8 * count];
                pagemap.read_exact_at(entries, 8 * (first + start))?;
                for (entry, page) in entries.as_chunks::<8>().0.iter().zip(start..) {
                    let entry = u64::from_le_bytes(*entry);
                    if entry & SWAPPED == 0 && entry & (PRESENT | OF_FILE) != PRESENT {
                        continue;
                    }
                    let at = base + page * PAGE;
                    match runs.last_mut() {
                        Some(last) if last.end == at => last.end += PAGE,
                        _ => runs.push(at..at + PAGE),
                    }
                }
            }
            base += pages * PAGE;
        }
        runs.truncate(MOST_RUNS);
        Ok(Self(runs))
    }

    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.start).sum()
    }

    /// Puts it beside a snapshot.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let runs: Vec<u8> = self
            .0
            .iter()
            .flat_map(|run| [run.start, run.end - run.start])
            .flat_map(u64::to_le_bytes)
            .collect();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&runs).to_le_bytes());
        bytes.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&runs);
        std::fs::write(directory.join(NAME), bytes)
    }

    /// That of a snapshot of so many bytes of RAM; an empty one where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn read(directory: &Path, ram_bytes: u64) -> Result<Self, Error> {
        let path = directory.join(NAME);
        match read(&path) {
            Ok(bytes) => Self::decode(&bytes, ram_bytes)
                .map_err(|problem| Error::Snapshot { path, problem: problem.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::File { attempt: "read the working set", path, source }),
        }
    }

    fn decode(bytes: &[u8], ram_bytes: u64) -> Result<Self, &'static str> {
        let (header, runs) = bytes.split_at_checked(HEADER).ok_or("it is truncated")?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if header[..8] != *MAGIC {
            return Err("it is no working set of compare");
        }
        if runs.len() != word(12) as usize * RUN {
            return Err("it is truncated");
        }
        if crc32fast::hash(runs) != word(8) {
            return Err("its checksum does not match: it is corrupt");
        }
        let mut end = 0;
        let run = |[start, length]: [u64; 2]| {
            let run = start..start.checked_add(length)?;
            let fits = run.start >= end && run.end <= ram_bytes && !run.is_empty();
            end = run.end;
            (fits && start.is_multiple_of(PAGE) && length.is_multiple_of(PAGE)).then_some(run)
        };
        let words = runs.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let words: Vec<u64> = words.collect();
        words
            .as_chunks::<2>()
            .0
            .iter()
            .copied()
            .map(run)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or("its runs are not in order or not of this machine's memory")
    }

    /// Makes the copies. What cannot be had (MADV_POPULATE_WRITE came with Linux 5.14) the guest
    /// comes to by itself.
    pub fn bring_in(&self, memory: &Memory) {
        let mut base = 0;
        for region in memory.iter() {
            let length = region.len();
            for run in &self.0 {
                let (start, end) = (run.start.max(base), run.end.min(base + length));
                if start >= end {
                    continue;
                }
                // SAFETY: the range lies inside the region's mapping, which lives; its contents stay
                // what they are (madvise(2)).
                unsafe {
                    libc::madvise(
                        region.as_ptr().add((start - base) as usize).cast(),
                        (end - start) as usize,
                        libc::MADV_POPULATE_WRITE,
                    )
                };
            }
            base += length;
        }
    }
}

/// The whole file, by as few calls as it takes.
fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    let most = HEADER + MOST_RUNS * RUN;
    let file = File::open(path)?;
    let length = file.metadata()?.len().min(most as u64) as usize;
    let mut bytes = Vec::with_capacity(length + 1);
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::{mapping::map_file, memory};

    const RAM: u64 = 1 << 20;

    fn restored() -> (Memory, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; RAM as usize]).unwrap();
        let ram = memory::map(RAM).unwrap();
        map_file(&ram, 0, file.as_file(), 0, RAM).unwrap();
        (ram, file)
    }

    fn own_copies(ram: &Memory) -> WorkingSet {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        WorkingSet::of_process(&pagemap, &memory::host_ranges(ram)).unwrap()
    }

    #[test]
    fn what_one_machine_wrote_to_the_next_begins_with() {
        let (first, _file) = restored();
        for page in [3, 4, 200] {
            first.write_obj(9_u8, GuestAddress(page * PAGE)).unwrap();
        }
        first.read_obj::<u8>(GuestAddress(100 * PAGE)).unwrap();
        let set = own_copies(&first);
        assert_eq!(set.0, [3 * PAGE..5 * PAGE, 200 * PAGE..201 * PAGE]);
        assert_eq!(set.bytes(), 3 * PAGE);

        let directory = tempfile::tempdir().unwrap();
        assert_eq!(WorkingSet::read(directory.path(), RAM).unwrap(), WorkingSet::default());
        set.write(directory.path()).unwrap();
        let read = WorkingSet::read(directory.path(), RAM).unwrap();
        assert_eq!(read, set);

        let (next, _file) = restored();
        read.bring_in(&next);
        assert_eq!(own_copies(&next), set, "needs MADV_POPULATE_WRITE, Linux 5.14");
        assert_eq!(next.read_obj::<u8>(GuestAddress(3 * PAGE)).unwrap(), 7);
    }

    #[test]
    fn a_working_set_is_believed_only_whole_and_of_this_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        WorkingSet(vec![0..PAGE, 4 * PAGE..RAM]).write(directory.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert!(WorkingSet::decode(&whole, RAM).is_ok());
        assert!(WorkingSet::decode(&whole, RAM - PAGE).is_err(), "beyond RAM");
        for cut in 0..whole.len() {
            assert!(WorkingSet::decode(&whole[..cut], RAM).is_err(), "{cut}");
            let mut other = whole.clone();
            other[cut] ^= 1;
            assert!(WorkingSet::decode(&other, RAM).is_err(), "{cut}");
        }
        let first = 0..PAGE;
        for second in [0..PAGE, PAGE + 1..2 * PAGE, PAGE..PAGE, 3 * PAGE..2 * RAM, PAGE..u64::MAX] {
            WorkingSet(vec![first.clone(), second.clone()]).write(directory.path()).unwrap();
            assert!(WorkingSet::read(directory.path(), RAM).is_err(), "{second:?}");
        }
    }
}
