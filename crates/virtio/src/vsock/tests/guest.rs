//! The guest's driver, with buffers for packets always on offer, and the host's sockets.

use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
};

use tempfile::TempDir;

use super::super::{
    HOST, RECEIVE, TRANSMIT, Vsock,
    packet::{HEADER, Header, STREAM, op},
};
use crate::driver::{BUFFERS, Driver, Entry, SIZE, VERSION_1};

/// The guest's context ID.
pub const GUEST: u64 = 3;
/// Where buffers for packets to the guest lie, and how far apart.
const PACKETS: u64 = 0x40000;
const PACKET: u64 = 0x1000;

/// The directory of the host's sockets.
pub struct Sockets {
    directory: TempDir,
    listener: UnixListener,
}

impl Sockets {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("vsock")).unwrap();
        Self { directory, listener }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("vsock")
    }

    pub fn listener(&self) -> UnixListener {
        self.listener.try_clone().unwrap()
    }

    pub fn device(&self, cid: u64) -> Vsock {
        Vsock::new(cid, self.listener(), self.path()).unwrap()
    }

    /// A program that waits at a port.
    pub fn wait_at(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.directory.path().join(format!("vsock_{port}"))).unwrap()
    }

    /// A program that wants to reach the guest.
    pub fn connect(&self) -> UnixStream {
        let program = UnixStream::connect(self.path()).unwrap();
        program.set_nonblocking(true).unwrap();
        program
    }
}

/// The guest.
pub struct Guest {
    pub driver: Driver,
    pub sockets: Sockets,
    /// Room it tells of in every packet, and how much it says to have taken.
    pub room: u32,
    pub taken: u32,
    seen: u16,
    held: Option<Vec<u16>>,
}

impl Guest {
    pub fn new() -> Self {
        let sockets = Sockets::new();
        let driver = Driver::ready(Box::new(sockets.device(GUEST)), VERSION_1, 3);
        let mut guest = Self { driver, sockets, room: 1 << 20, taken: 0, seen: 0, held: None };
        (0..SIZE).for_each(|index| guest.offer(index));
        guest
    }

    fn offer(&mut self, index: u16) {
        if let Some(held) = &mut self.held {
            held.push(index);
            return;
        }
        let address = PACKETS + u64::from(index) * PACKET;
        let entry = Entry { address, length: PACKET as u32, flags: 2, next: 0 };
        self.driver.describe(RECEIVE, index, entry);
        self.driver.offer(RECEIVE, index);
    }

    /// From now on packets find no buffers: those on offer are used up by refusals.
    pub fn hold_buffers(&mut self) {
        self.held = Some(Vec::new());
        (1000..1000 + u32::from(SIZE)).for_each(|port| self.send(op::REQUEST, 9, port));
        while self.take().is_some() {}
        assert_eq!(self.held.as_ref().map(Vec::len), Some(SIZE.into()));
    }

    /// Stops offering the buffers that are taken, or offers them again.
    pub fn toggle_buffers(&mut self) {
        match self.held {
            None => self.held = Some(Vec::new()),
            Some(_) => self.release_buffers(),
        }
    }

    /// Offers all buffers again.
    pub fn release_buffers(&mut self) {
        let held = self.held.take().unwrap_or_default();
        held.into_iter().for_each(|index| self.offer(index));
    }

    /// The next packet for the guest.
    pub fn take(&mut self) -> Option<(Header, Vec<u8>)> {
        if self.driver.used(RECEIVE).0 == self.seen {
            return None;
        }
        let (head, length) = self.driver.used_entry(RECEIVE, self.seen);
        self.seen = self.seen.wrapping_add(1);
        let bytes = self.driver.bytes(PACKETS + u64::from(head) * PACKET, length as usize);
        let header = Header::parse(bytes[..HEADER].try_into().unwrap());
        assert_eq!(header.len as usize, bytes.len() - HEADER);
        self.offer(head as u16);
        Some((header, bytes[HEADER..].to_vec()))
    }

    /// The operations of all packets there are.
    pub fn operations(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.take()).map(|(header, _)| header.op).collect()
    }

    /// The bytes of all packets there are.
    pub fn bytes(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.take()).flat_map(|(_, bytes)| bytes).collect()
    }

    /// How many bytes the device says to have taken, in the last packet if there is any.
    pub fn told(&mut self, before: u32) -> u32 {
        std::iter::from_fn(|| self.take()).last().map_or(before, |(header, _)| header.fwd_cnt)
    }

    pub fn header(&self, op: u16, host_port: u32, guest_port: u32) -> Header {
        Header {
            src_cid: GUEST,
            dst_cid: HOST,
            src_port: guest_port,
            dst_port: host_port,
            kind: STREAM,
            op,
            buf_alloc: self.room,
            fwd_cnt: self.taken,
            ..Header::default()
        }
    }

    pub fn send(&mut self, op: u16, host_port: u32, guest_port: u32) {
        self.send_packet(&self.header(op, host_port, guest_port), b"");
    }

    pub fn shut_down(&mut self, host_port: u32, guest_port: u32, flags: u32) {
        let header = self.header(op::SHUTDOWN, host_port, guest_port);
        self.send_packet(&Header { flags, ..header }, b"");
    }

    pub fn send_bytes(&mut self, host_port: u32, guest_port: u32, bytes: &[u8]) {
        let header = self.header(op::RW, host_port, guest_port);
        self.send_packet(&Header { len: bytes.len() as u32, ..header }, bytes);
    }

    pub fn send_packet(&mut self, header: &Header, bytes: &[u8]) {
        self.driver.put(BUFFERS, &header.encode());
        self.driver.put(BUFFERS + 0x100, bytes);
        let parts = [(BUFFERS, HEADER as u32, false), (BUFFERS + 0x100, bytes.len() as u32, false)];
        let count = if bytes.is_empty() { 1 } else { 2 };
        self.driver.request(TRANSMIT, &parts[..count]);
    }
}
