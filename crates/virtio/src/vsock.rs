//! Sockets between guest and host (section 5.10 of the specification; vsock(7)). The host's side are
//! Unix sockets, which take no privileges, as Firecracker and Cloud Hypervisor have them:
//!
//! - the guest connects to port N of the host (context ID 2): so does the device to `PATH_N`;
//! - a program of the host connects to PATH and writes `CONNECT N\n`: the device asks the guest's
//!   port N, and answers `OK M\n`, with the port the guest sees, or closes.
//!
//! Anything odd about a packet ends its connection by RST; a packet without a whole header, or longer
//! than any, breaks the device. What is under way when a snapshot is taken is lost; the restored guest is told so
//! (5.10.6.7), closes its connections and reads its context ID again. Until it has done that it gets no
//! packet, or it would close a connection that was made since.

mod connection;
mod host;
mod packet;

use std::{
    io,
    os::{fd::BorrowedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::atomic::Ordering,
};

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use crate::{
    Device, Memory, QueueError, Served,
    buffers::{self, Buffers, Segment, Vectors},
    turn::{Turn, rearm},
};
use host::{Host, Key};
use packet::{HEADER, Header, STREAM, op};

/// Index of the queue of packets to the guest (5.10.2).
pub const RECEIVE: usize = 0;
/// Index of the queue of packets from the guest.
pub const TRANSMIT: usize = 1;
/// Index of the queue of events.
pub const EVENT: usize = 2;
/// Entries of the queues. Linux fills the first with pages and the last with eight events when it
/// finds the device.
const QUEUE_SIZES: [u16; 3] = [64, 64, 8];
/// Context ID of the host (5.10.4).
const HOST: u64 = 2;
/// Most bytes in one packet of the guest's (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE of Linux).
const LONGEST: u32 = 64 << 10;
/// The one event there is, `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, as it stands in memory.
const TRANSPORT_RESET: [u8; 4] = 0_u32.to_le_bytes();

/// Sockets between guest and host.
#[derive(Debug)]
pub struct Vsock {
    guest: u64,
    config: [u8; 8],
    host: Host,
    buffers: Buffers,
    body: Vec<Segment>,
    vectors: Vectors,
    bytes: Vec<u8>,
    reset: Reset,
}

/// How far a guest is that was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// It was not, or has closed its connections since.
    Done,
    /// It is yet to be told.
    Owed,
    /// It was told. Linux gives the buffer of an event back once it has handled it, so that there are
    /// then more than `available` buffers.
    Told { available: u16 },
}

impl Vsock {
    /// Sockets of the guest with this context ID, 3 or above. `listener` was bound to `path`, whose
    /// directory also holds the sockets of the host's ports; whoever bound it removes it.
    ///
    /// # Errors
    /// The context ID is not a guest's, or epoll(7) fails.
    pub fn new(guest: u64, listener: UnixListener, path: PathBuf) -> io::Result<Self> {
        // 5.10.4: the rest are reserved, and the upper half must be zero.
        if !(HOST + 1..u64::from(u32::MAX)).contains(&guest) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not the context ID of a guest",
            ));
        }
        Ok(Self {
            guest,
            config: guest.to_le_bytes(),
            host: Host::new(listener, path)?,
            buffers: Buffers::default(),
            body: Vec::new(),
            vectors: Vectors::default(),
            bytes: Vec::new(),
            reset: Reset::Done,
        })
    }

    /// Moves packets both ways until there is nothing or no room, or a queue has had its turn.
    fn pump(&mut self, queues: &mut [Queue], memory: &Memory) -> Result<Served, QueueError> {
        self.host.take_events();
        let mut used = [false; 3];
        let mut turns = [RECEIVE, TRANSMIT].map(|queue| Turn::of(&queues[queue]));
        let more = loop {
            queues.iter_mut().try_for_each(|queue| queue.disable_notification(memory))?;
            used[EVENT] |= self.tell_reset(&mut queues[EVENT], memory)?;
            let sent = self.transmit(&mut queues[TRANSMIT], memory, &mut turns[TRANSMIT])?;
            let received = self.is_listening(&queues[EVENT], memory)?
                && self.receive(&mut queues[RECEIVE], memory, &mut turns[RECEIVE])?;
            used[TRANSMIT] |= sent;
            used[RECEIVE] |= received;
            let room = rearm(&mut queues[RECEIVE], memory)?;
            let packets = rearm(&mut queues[TRANSMIT], memory)?;
            let events = self.rearm_events(&mut queues[EVENT], memory)?;
            let more = packets && !self.host.is_full()
                || room
                    && self.host.has_something()
                    && self.is_listening(&queues[EVENT], memory)?
                || events && self.reset == Reset::Owed;
            let more = sent || received || more;
            if !more || turns.iter().any(Turn::is_over) {
                break more;
            }
        };
        let mut notify = false;
        for (queue, used) in queues.iter_mut().zip(used) {
            notify |= used && queue.needs_notification(memory)?;
        }
        Ok(Served { notice: notify.into(), more })
    }

    /// Takes the guest's packets, as long as the answers they ask for have room.
    fn transmit(
        &mut self,
        queue: &mut Queue,
        memory: &Memory,
        turn: &mut Turn,
    ) -> Result<bool, QueueError> {
        let mut moved = false;
        while !self.host.is_full() {
            let Some(chain) = turn.next(queue, memory)? else { break };
            let head = chain.head_index();
            self.buffers.fill_up_to(chain, memory, HEADER as u64 + u64::from(LONGEST))?;
            self.take_packet(memory)?;
            queue.add_used(memory, head, 0)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Takes the packet in `self.buffers`.
    fn take_packet(&mut self, memory: &Memory) -> Result<(), QueueError> {
        let readable = &mut self.buffers.readable;
        let mut header = [0; HEADER];
        if buffers::read_front(readable, memory, &mut header) < HEADER {
            return Err(QueueError::Request("no room for its header"));
        }
        buffers::advance(readable, HEADER as u32);
        let header = Header::parse(&header);
        let key = Key { host: header.dst_port, guest: header.src_port };
        if header.kind != STREAM {
            if header.op != op::RST {
                self.host.refuse_type(key, header.kind);
            }
            return Ok(());
        }
        // Only data packets have a length; one that is longer than the packet is not one.
        let length = if header.op == op::RW { header.len } else { 0 };
        if (header.src_cid, header.dst_cid) != (self.guest, HOST)
            || u64::from(length) > buffers::total(readable)
        {
            if header.op != op::RST {
                self.host.refuse(key);
            }
            return Ok(());
        }
        self.bytes.resize(length as usize, 0);
        buffers::read_front(readable, memory, &mut self.bytes);
        self.host.take(key, &header, &self.bytes);
        Ok(())
    }

    /// Gives the guest what there is for it, as long as it has room.
    fn receive(
        &mut self,
        queue: &mut Queue,
        memory: &Memory,
        turn: &mut Turn,
    ) -> Result<bool, QueueError> {
        let mut moved = false;
        while self.host.has_something() {
            let Some(chain) = turn.next(queue, memory)? else { break };
            let head = chain.head_index();
            self.buffers.fill(chain, memory)?;
            if buffers::total(&self.buffers.writable) <= HEADER as u64 {
                return Err(QueueError::Request("a buffer too short for a packet"));
            }
            let Some(header) = self.next_packet(memory)? else {
                queue.go_to_previous_position();
                break;
            };
            buffers::write_front(&self.buffers.writable, memory, &header.encode());
            queue.add_used(memory, head, HEADER as u32 + header.len)?;
            moved = true;
        }
        Ok(moved)
    }

    /// The next packet for the guest, of which the bytes behind the header are in place.
    fn next_packet(&mut self, memory: &Memory) -> Result<Option<Header>, QueueError> {
        let packet = |guest, key: Key, op| Header {
            src_cid: HOST,
            dst_cid: guest,
            src_port: key.host,
            dst_port: key.guest,
            kind: STREAM,
            op,
            ..Header::default()
        };
        loop {
            if let Some((key, kind)) = self.host.next_reset() {
                return Ok(Some(Header { kind, ..packet(self.guest, key, op::RST) }));
            }
            let Some((key, connection)) = self.host.next_in_line() else { return Ok(None) };
            self.body.clone_from(&self.buffers.writable);
            buffers::advance(&mut self.body, HEADER as u32);
            match connection.next(&mut self.body, &mut self.vectors, memory) {
                Ok(None) => self.host.settle(key),
                Ok(Some((op, flags, len))) => {
                    let (buf_alloc, fwd_cnt) = connection.told_credit();
                    self.host.settle(key);
                    let header = packet(self.guest, key, op);
                    return Ok(Some(Header { flags, len, buf_alloc, fwd_cnt, ..header }));
                }
                Err(QueueError::Host(_)) => self.host.refuse(key),
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells a restored guest that its connections are gone, once it has room for an event.
    fn tell_reset(&mut self, queue: &mut Queue, memory: &Memory) -> Result<bool, QueueError> {
        if self.reset != Reset::Owed {
            return Ok(false);
        }
        let Some(chain) = queue.iter(memory)?.next() else { return Ok(false) };
        let head = chain.head_index();
        self.buffers.fill(chain, memory)?;
        let count = buffers::write_front(&self.buffers.writable, memory, &TRANSPORT_RESET);
        if count < TRANSPORT_RESET.len() {
            return Err(QueueError::Request("a buffer too short for an event"));
        }
        let available = queue.avail_idx(memory, Ordering::Acquire)?.0;
        queue.add_used(memory, head, count as u32)?;
        self.reset = Reset::Told { available };
        Ok(true)
    }

    /// As [`rearm`]; but while the guest is handling what it was told, it is to notify of the buffer it
    /// gives back, not of the first that it gave.
    fn rearm_events(&self, queue: &mut Queue, memory: &Memory) -> Result<bool, QueueError> {
        let Reset::Told { available } = self.reset else { return rearm(queue, memory) };
        let next = queue.next_avail();
        queue.set_next_avail(available);
        let more = rearm(queue, memory);
        queue.set_next_avail(next);
        more
    }

    /// Whether the guest may be given packets.
    fn is_listening(&mut self, events: &Queue, memory: &Memory) -> Result<bool, QueueError> {
        if let Reset::Told { available } = self.reset
            && events.avail_idx(memory, Ordering::Acquire)?.0 != available
        {
            self.reset = Reset::Done;
        }
        Ok(self.reset == Reset::Done)
    }
}

impl Device for Vsock {
    fn id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    /// Streams need no feature (5.10.3).
    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) {
        self.host.clear();
        self.reset = Reset::Done;
    }

    fn serve(
        &mut self,
        _: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        self.pump(queues, memory)
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        Some(self.host.events())
    }

    fn handle_event(
        &mut self,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        self.pump(queues, memory)
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        self.reset = Reset::Owed;
        if saved.is_empty() { Ok(()) } else { Err("length") }
    }
}

#[cfg(test)]
mod tests;
