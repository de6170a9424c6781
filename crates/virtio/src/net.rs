//! A network card backed by a tap device (section 5.1 of the specification;
//! Documentation/networking/tuntap.rst). Packets go between the tap and guest memory in one system
//! call each, with the header both sides share (`struct virtio_net_hdr_v1`), so that checksums and
//! segmentation the guest leaves out are done by the host's kernel or not at all.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use virtio_bindings::{virtio_ids::VIRTIO_ID_NET, virtio_net::*};
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::{
    Device, QueueError, Served,
    buffers::{self, Buffers, Vectors, total},
    turn::{self, Turn, rearm},
};
use crate::Memory;

/// Index of the queue of buffers for packets to the guest (5.1.2).
pub const RECEIVE: usize = 0;
/// Index of the queue of packets from the guest.
pub const TRANSMIT: usize = 1;
/// Entries of each queue. The guest fills the receive queue with buffers when the interface comes
/// up, so its length costs start-up time and memory.
const QUEUE_SIZE: u16 = 128;
/// Bytes of `struct virtio_net_hdr_v1`, which precedes every packet in either direction.
const HEADER: u64 = 12;
/// Offset of `num_buffers` in it.
const NUM_BUFFERS: u32 = 10;
/// The least a receive buffer must hold where no segmentation is offered to the guest (5.1.6.3.1).
const LEAST_BUFFER: u64 = 1526 - 2;
/// Most bytes of a packet the guest sends: 64 KiB of segmented TCP and its headers.
const LONGEST_PACKET: u64 = HEADER + 65_550;

/// `TUN_F_*` (include/uapi/linux/if_tun.h): what the tap may hand over unfinished.
const TUN_F_CSUM: libc::c_uint = 1;
/// `_IOW('T', 208, unsigned int)` and `_IOW('T', 216, int)` of the same header.
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

/// A network card.
#[derive(Debug)]
pub struct Net {
    tap: OwnedFd,
    mac: [u8; 6],
    buffers: Buffers,
    vectors: Vectors,
}

impl Net {
    /// A card with this hardware address on a tap device, which was opened with IFF_NO_PI and
    /// IFF_VNET_HDR and must not block.
    ///
    /// # Errors
    /// The tap refuses the size of the header.
    pub fn new(tap: OwnedFd, mac: [u8; 6]) -> io::Result<Self> {
        let size = HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer, which is to a live one.
        if unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self::with_fd(tap, mac))
    }

    /// The same on anything that carries a header and a packet per read and write.
    pub(crate) fn with_fd(tap: OwnedFd, mac: [u8; 6]) -> Self {
        Self { tap, mac, buffers: Buffers::default(), vectors: Vectors::default() }
    }

    /// Moves packets from the tap into the guest's buffers until one of them runs out, or the turn.
    fn receive(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, QueueError> {
        let mut turn = Turn::of(queue);
        queue.disable_notification(memory)?;
        let mut moved = false;
        let more = loop {
            let Some(chain) = turn.next(queue, memory)? else {
                // The guest tells when it adds buffers; if it just did, go on.
                let more = rearm(queue, memory)?;
                if more && !turn.is_over() {
                    continue;
                }
                break more;
            };
            let head = chain.head_index();
            self.buffers.fill(chain, memory)?;
            let writable = &mut self.buffers.writable;
            if total(writable) < LEAST_BUFFER {
                return Err(QueueError::Request("a buffer too short for a packet"));
            }
            let count = match self.vectors.read(self.tap.as_fd(), writable, memory) {
                Ok(count) => count,
                Err(QueueError::Host(_)) => {
                    // Nothing to read, or an interface that went away: the buffer waits.
                    queue.go_to_previous_position();
                    break false;
                }
                Err(error) => return Err(error),
            };
            // One packet a buffer; the tap leaves this field to us (5.1.6.4).
            buffers::advance(writable, NUM_BUFFERS);
            buffers::write_front(writable, memory, &1_u16.to_le_bytes());
            queue.add_used(memory, head, count as u32)?;
            moved = true;
        };
        Ok(Served { notice: (moved && queue.needs_notification(memory)?).into(), more })
    }

    /// Sends the guest's packets. What the tap refuses is lost, as on any network.
    fn transmit(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, QueueError> {
        turn::serve_each(queue, memory, |chain| {
            self.buffers.fill(chain, memory)?;
            if !(HEADER..=LONGEST_PACKET).contains(&total(&self.buffers.readable)) {
                return Err(QueueError::Request(
                    "a packet shorter than its header or longer than any",
                ));
            }
            match self.vectors.write(self.tap.as_fd(), &self.buffers.readable, memory) {
                Ok(_) | Err(QueueError::Host(_)) => Ok(0),
                Err(error) => Err(error),
            }
        })
    }
}

impl Device for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    /// Checksums may be left out both ways, and the guest may send segments to be cut up. It is
    /// not offered such segments itself: it would need buffers of 64 KiB.
    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC
            | 1 << VIRTIO_NET_F_CSUM
            | 1 << VIRTIO_NET_F_GUEST_CSUM
            | 1 << VIRTIO_NET_F_HOST_TSO4
            | 1 << VIRTIO_NET_F_HOST_TSO6
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.mac
    }

    fn activate(&mut self, features: u64) -> io::Result<()> {
        let offload = if features & 1 << VIRTIO_NET_F_GUEST_CSUM == 0 { 0 } else { TUN_F_CSUM };
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        let result = unsafe {
            libc::ioctl(self.tap.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(offload))
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        match index {
            RECEIVE => self.receive(&mut queues[RECEIVE], memory),
            _ => self.transmit(&mut queues[TRANSMIT], memory),
        }
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.as_fd())
    }

    fn handle_event(
        &mut self,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        self.receive(&mut queues[RECEIVE], memory)
    }

    fn save(&self) -> Vec<u8> {
        self.mac.to_vec()
    }

    /// The guest goes on with the address it has read.
    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        self.mac = saved.try_into().map_err(|_| "length")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
