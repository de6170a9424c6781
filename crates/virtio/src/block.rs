//! A block device backed by a file (section 5.2 of the specification), read-only unless made
//! writable. Requests are served in order, straight between the host's page cache and guest memory.

use std::{fs::File, io, os::fd::AsFd};

use virtio_bindings::{virtio_blk::*, virtio_ids::VIRTIO_ID_BLOCK};
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::{
    Device, QueueError, Served,
    buffers::{self, Buffers, Vectors, total},
    turn,
};
use crate::Memory;

/// Bytes of a sector (5.2.4).
const SECTOR: u64 = 512;
/// Descriptors a request may have: header, status, and one page each for half a megabyte.
const QUEUE_SIZE: u16 = 128;
/// Most data descriptors in a request (`seg_max`).
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of a request's header: type, reserved, sector (5.2.6).
const HEADER: usize = 16;
/// What a GET_ID request is answered with (5.2.6).
type Identity = [u8; VIRTIO_BLK_ID_BYTES as usize];
const READ_ONLY: Identity = *b"compare-root\0\0\0\0\0\0\0\0";
const WRITABLE: Identity = *b"compare-disk\0\0\0\0\0\0\0\0";

/// A disk.
#[derive(Debug)]
pub struct Block {
    file: File,
    sectors: u64,
    writable: bool,
    /// Each write is on the disk before it is done: the driver knows of no flush (5.2.6.2).
    write_through: bool,
    config: [u8; 16],
    buffers: Buffers,
    vectors: Vectors,
}

impl Block {
    /// A read-only disk of the whole sectors in `file`, `length` bytes long.
    pub fn new(file: File, length: u64) -> Self {
        Self::with_mode(file, length, false)
    }

    /// The same, but the guest may write to it. What it has flushed is on the host's disk.
    pub fn writable(file: File, length: u64) -> Self {
        Self::with_mode(file, length, true)
    }

    fn with_mode(file: File, length: u64, writable: bool) -> Self {
        let sectors = length / SECTOR;
        // struct virtio_blk_config: capacity, size_max, seg_max.
        let mut config = [0; 16];
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        config[12..].copy_from_slice(&SEG_MAX.to_le_bytes());
        Self {
            file,
            sectors,
            writable,
            write_through: false,
            config,
            buffers: Buffers::default(),
            vectors: Vectors::default(),
        }
    }

    /// Serves the request in `self.buffers`; returns how many bytes were written to it.
    fn request(&mut self, memory: &Memory) -> Result<u32, QueueError> {
        let mut header = [0; HEADER];
        let Buffers { readable, writable } = &mut self.buffers;
        if buffers::read_front(readable, memory, &mut header) < HEADER {
            return Err(QueueError::Request("no room for its header"));
        }
        buffers::advance(readable, HEADER as u32);
        let Some(status_address) = buffers::pop_last_byte(writable) else {
            return Err(QueueError::Request("no room for its status"));
        };
        let kind = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
        let sector = u64::from_le_bytes(header[8..].try_into().expect("8 bytes"));
        let (status, written) = match kind {
            VIRTIO_BLK_T_IN => self.read(sector, memory)?,
            VIRTIO_BLK_T_OUT => (self.write(sector, memory)?, 0),
            VIRTIO_BLK_T_FLUSH => (self.flush(), 0),
            VIRTIO_BLK_T_GET_ID => {
                let identity = if self.writable { WRITABLE } else { READ_ONLY };
                (VIRTIO_BLK_S_OK, buffers::write_front(writable, memory, &identity) as u64)
            }
            _ => (VIRTIO_BLK_S_UNSUPP, 0),
        };
        memory
            .write_obj(status as u8, GuestAddress(status_address))
            .map_err(|_| QueueError::Request("its status is outside of memory"))?;
        Ok(written as u32 + 1)
    }

    /// Reads sectors into the request; a read beyond the end or from a file that has become shorter
    /// is an I/O error to the guest.
    fn read(&mut self, sector: u64, memory: &Memory) -> Result<(u32, u64), QueueError> {
        let length = total(&self.buffers.writable);
        if !self.has(sector, length) {
            return Ok((VIRTIO_BLK_S_IOERR, 0));
        }
        match self.vectors.read_at(
            self.file.as_fd(),
            sector * SECTOR,
            &self.buffers.writable,
            memory,
        ) {
            Ok(count) if count == length => Ok((VIRTIO_BLK_S_OK, count)),
            Ok(_) | Err(QueueError::Host(_)) => Ok((VIRTIO_BLK_S_IOERR, 0)),
            Err(error) => Err(error),
        }
    }

    /// Writes the request's sectors; a host that has no room is an I/O error to the guest, and so is
    /// a disk that is read-only (5.2.6.2).
    fn write(&mut self, sector: u64, memory: &Memory) -> Result<u32, QueueError> {
        let length = total(&self.buffers.readable);
        if !self.writable || !self.has(sector, length) {
            return Ok(VIRTIO_BLK_S_IOERR);
        }
        let (offset, from) = (sector * SECTOR, &self.buffers.readable);
        match self.vectors.write_at(self.file.as_fd(), offset, from, memory) {
            Ok(count) if count == length && self.write_through => Ok(self.flush()),
            Ok(count) if count == length => Ok(VIRTIO_BLK_S_OK),
            Ok(_) | Err(QueueError::Host(_)) => Ok(VIRTIO_BLK_S_IOERR),
            Err(error) => Err(error),
        }
    }

    /// What has been written is on the disk (fdatasync(2)).
    fn flush(&self) -> u32 {
        if !self.writable {
            return VIRTIO_BLK_S_OK; // nothing can have been
        }
        self.file.sync_data().map_or(VIRTIO_BLK_S_IOERR, |()| VIRTIO_BLK_S_OK)
    }

    /// Whether these are whole sectors of the disk.
    fn has(&self, sector: u64, length: u64) -> bool {
        let end = sector.checked_add(length / SECTOR);
        length.is_multiple_of(SECTOR) && end.is_some_and(|end| end <= self.sectors)
    }
}

impl Device for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let mode = if self.writable { VIRTIO_BLK_F_FLUSH } else { VIRTIO_BLK_F_RO };
        1 << mode | 1 << VIRTIO_BLK_F_SEG_MAX
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, features: u64) -> io::Result<()> {
        self.write_through = features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        self.sectors.to_le_bytes().to_vec()
    }

    /// A disk of another size is another disk.
    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        if saved == self.sectors.to_le_bytes() { Ok(()) } else { Err("capacity") }
    }

    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        turn::serve_each(&mut queues[index], memory, |chain| {
            self.buffers.fill(chain, memory)?;
            self.request(memory)
        })
    }
}

#[cfg(test)]
mod tests;
