//! A read-only block device backed by a file (section 5.2 of the specification). Requests are
//! served in order, straight from the host's page cache into guest memory.

use std::{fs::File, io, os::fd::AsFd};

use virtio_bindings::{virtio_blk::*, virtio_ids::VIRTIO_ID_BLOCK};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::{
    Device, QueueError,
    buffers::{self, Buffers, Vectors, total},
};
use crate::memory::Memory;

/// Bytes of a sector (5.2.4).
const SECTOR: u64 = 512;
/// Descriptors a request may have: header, status, and one page each for half a megabyte.
const QUEUE_SIZE: u16 = 128;
/// Most data descriptors in a request (`seg_max`).
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of a request's header: type, reserved, sector (5.2.6).
const HEADER: usize = 16;
/// Bytes of the identity a GET_ID request is answered with (5.2.6).
const ID: [u8; VIRTIO_BLK_ID_BYTES as usize] = *b"compare-root\0\0\0\0\0\0\0\0";

/// A disk.
#[derive(Debug)]
pub struct Block {
    file: File,
    sectors: u64,
    config: [u8; 16],
    buffers: Buffers,
    vectors: Vectors,
}

impl Block {
    /// A disk of the whole sectors in `file`, `length` bytes long.
    pub fn new(file: File, length: u64) -> Self {
        let sectors = length / SECTOR;
        // struct virtio_blk_config: capacity, size_max, seg_max.
        let mut config = [0; 16];
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        config[12..].copy_from_slice(&SEG_MAX.to_le_bytes());
        Self { file, sectors, config, buffers: Buffers::default(), vectors: Vectors::default() }
    }

    /// Serves the request in `self.buffers`; returns how many bytes were written to it.
    fn request(&mut self, memory: &Memory) -> Result<u32, QueueError> {
        let mut header = [0; HEADER];
        let Buffers { readable, writable } = &mut self.buffers;
        if buffers::read_front(readable, memory, &mut header) < HEADER {
            return Err(QueueError::Request("no room for its header"));
        }
        let Some(status_address) = buffers::pop_last_byte(writable) else {
            return Err(QueueError::Request("no room for its status"));
        };
        let kind = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
        let sector = u64::from_le_bytes(header[8..].try_into().expect("8 bytes"));
        let (status, written) = match kind {
            VIRTIO_BLK_T_IN => self.read(sector, memory)?,
            VIRTIO_BLK_T_FLUSH => (VIRTIO_BLK_S_OK, 0),
            VIRTIO_BLK_T_GET_ID => {
                (VIRTIO_BLK_S_OK, buffers::write_front(writable, memory, &ID) as u64)
            }
            VIRTIO_BLK_T_OUT => (VIRTIO_BLK_S_IOERR, 0), // read-only: 5.2.6.2
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
        let end = sector.checked_add(length / SECTOR);
        if !length.is_multiple_of(SECTOR) || end.is_none_or(|end| end > self.sectors) {
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
}

impl Device for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_RO | 1 << VIRTIO_BLK_F_SEG_MAX
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<bool, QueueError> {
        let queue = &mut queues[index];
        loop {
            queue.disable_notification(memory)?;
            while let Some(chain) = queue.iter(memory)?.next() {
                let head = chain.head_index();
                self.buffers.fill(chain, memory)?;
                let written = self.request(memory)?;
                queue.add_used(memory, head, written)?;
            }
            if !queue.enable_notification(memory)? {
                return Ok(queue.needs_notification(memory)?);
            }
        }
    }
}

#[cfg(test)]
mod tests;
