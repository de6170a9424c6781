//! One connection between a port of the guest and a Unix socket of the host, with the credit both
//! ends give each other (5.10.6.3).
//!
//! ```text
//!  host connects ─"CONNECT port"─► Greeting ─REQUEST─► Requested ─RESPONSE─► Open ─┐
//!  guest asks ─REQUEST──────────────────────────────────────────────────────► Open ─┤
//!                        gone ◄── RST of either side, or both directions shut down ◄┘
//! ```

use std::{
    collections::VecDeque,
    io,
    num::Wrapping,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, Shutdown, recv, send, shutdown},
};

use super::packet::{Header, SHUTDOWN_BOTH, SHUTDOWN_RCV, SHUTDOWN_SEND, op};
use crate::{
    Memory, QueueError,
    buffers::{Segment, Vectors},
};

/// Bytes of the guest's that are kept where the host's reader is slow.
pub const ROOM: u32 = 64 << 10;
/// Longest line a host's program may greet with.
const GREETING: usize = 32;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The host's program has yet to name a port.
    Greeting,
    /// The guest was asked.
    Requested,
    /// Bytes flow.
    Open,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// How far it is.
    pub stage: Stage,
    /// Whether it waits in line to send to the guest.
    pub in_line: bool,
    /// Bytes may be there to be read.
    pub readable: bool,
    /// The host's end is closed in both directions.
    pub hung_up: bool,
    /// Operations owed to the guest: REQUEST or RESPONSE, CREDIT_UPDATE.
    owed: Option<u16>,
    credit_owed: bool,
    /// What the host's end does no more, and how much of that the guest has been told.
    ended: u32,
    ended_told: u32,
    /// What the guest does no more, and whether the host's program has been told.
    guest_ended: u32,
    end_passed_on: bool,
    /// From the guest, not yet taken by the socket.
    outgoing: VecDeque<u8>,
    forwarded: Wrapping<u32>,
    forwarded_told: Wrapping<u32>,
    sent: Wrapping<u32>,
    guest_room: u32,
    guest_forwarded: Wrapping<u32>,
}

/// What a greeting comes to.
pub enum Greeting {
    /// Not whole yet.
    Partial,
    /// This port of the guest is asked for.
    Port(u32),
    /// No greeting.
    Refused,
}

impl Connection {
    /// A connection the host's program has opened.
    pub fn from_host(socket: OwnedFd) -> Self {
        Self {
            socket,
            stage: Stage::Greeting,
            in_line: false,
            readable: false,
            hung_up: false,
            owed: None,
            credit_owed: false,
            ended: 0,
            ended_told: 0,
            guest_ended: 0,
            end_passed_on: false,
            outgoing: VecDeque::new(),
            forwarded: Wrapping(0),
            forwarded_told: Wrapping(0),
            sent: Wrapping(0),
            guest_room: 0,
            guest_forwarded: Wrapping(0),
        }
    }

    /// A connection the guest has asked for, to a host's program that has taken it.
    pub fn from_guest(socket: OwnedFd, request: &Header) -> Self {
        let mut connection = Self::from_host(socket);
        connection.stage = Stage::Open;
        connection.owed = Some(op::RESPONSE);
        connection.take_credit(request);
        connection
    }

    /// The host's end.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads the line `CONNECT port`, and not a byte beyond.
    pub fn read_greeting(&self) -> Greeting {
        let mut line = [0; GREETING];
        let fd = self.socket.as_raw_fd();
        let count = match recv(fd, &mut line, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Greeting::Partial,
            Err(_) => return Greeting::Refused,
        };
        let Some(end) = line[..count].iter().position(|&byte| byte == b'\n') else {
            let hopeless = count == 0 || count == GREETING;
            return if hopeless { Greeting::Refused } else { Greeting::Partial };
        };
        let taken = recv(fd, &mut line[..=end], MsgFlags::MSG_DONTWAIT);
        let port = std::str::from_utf8(&line[..end])
            .ok()
            .and_then(|line| line.strip_prefix("CONNECT ")?.parse().ok());
        match port {
            Some(port) if taken == Ok(end + 1) => Greeting::Port(port),
            _ => Greeting::Refused,
        }
    }

    /// The guest is to be asked.
    pub fn request(&mut self) {
        self.stage = Stage::Requested;
        self.owed = Some(op::REQUEST);
    }

    /// The guest has agreed: the host's program is told our port.
    ///
    /// # Errors
    /// Its end is closed.
    pub fn open(&mut self, host_port: u32) -> io::Result<()> {
        self.stage = Stage::Open;
        let line = format!("OK {host_port}\n");
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.socket.as_raw_fd(), line.as_bytes(), flags)? {
            count if count == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Every packet tells how much its sender has room for. Those of two CPUs may have overtaken each
    /// other, so that a smaller count is stale; one beyond what was sent is a lie. Neither counts.
    pub fn take_credit(&mut self, header: &Header) {
        self.guest_room = header.buf_alloc;
        let forwarded = Wrapping(header.fwd_cnt);
        if self.sent - forwarded <= self.sent - self.guest_forwarded {
            self.guest_forwarded = forwarded;
        }
    }

    /// Bytes the guest has room for.
    fn credit(&self) -> u32 {
        self.guest_room.saturating_sub((self.sent - self.guest_forwarded).0)
    }

    /// The guest asks how much room there is.
    pub fn owe_credit(&mut self) {
        self.credit_owed = true;
    }

    /// Bytes from the guest.
    ///
    /// # Errors
    /// The guest had no credit for them or had ended its stream, or the host's end is closed.
    pub fn take_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = ROOM as usize - self.outgoing.len();
        if bytes.len() > room || self.guest_ended & SHUTDOWN_SEND != 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.outgoing.extend(bytes);
        self.flush()
    }

    /// Passes on what the socket takes.
    ///
    /// # Errors
    /// The host's end is closed.
    pub fn flush(&mut self) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !self.outgoing.is_empty() {
            match send(self.socket.as_raw_fd(), self.outgoing.as_slices().0, flags) {
                Ok(count) => {
                    self.outgoing.drain(..count);
                    self.forwarded += count as u32;
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // Before the guest believes that there is no room left.
        if (self.forwarded - self.forwarded_told).0 >= ROOM / 2 {
            self.credit_owed = true;
        }
        self.pass_on_end();
        Ok(())
    }

    /// The guest ends one or both directions.
    pub fn end(&mut self, flags: u32) {
        let new = flags & SHUTDOWN_BOTH & !self.guest_ended;
        self.guest_ended |= new;
        if new & SHUTDOWN_RCV != 0 {
            // Where the other end is closed there is nobody to be told.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
        }
        self.pass_on_end();
    }

    /// The host's program sees the end of the stream behind its last byte. Once: each shutdown(2) is
    /// an event on the socket, even one that changes nothing.
    fn pass_on_end(&mut self) {
        let ended = self.guest_ended & SHUTDOWN_SEND != 0 && self.outgoing.is_empty();
        if ended && !self.end_passed_on {
            self.end_passed_on = true;
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        }
    }

    /// Whether the guest has ended both directions, and all it sent has gone out.
    pub fn is_over(&self) -> bool {
        self.guest_ended == SHUTDOWN_BOTH && self.outgoing.is_empty()
    }

    /// Whether there may be something for the guest.
    pub fn wants_to_send(&self) -> bool {
        let control = self.owed.is_some() || self.credit_owed || self.ended & !self.ended_told != 0;
        control && self.stage != Stage::Greeting || self.may_read()
    }

    fn may_read(&self) -> bool {
        self.stage == Stage::Open
            && self.readable
            && self.guest_ended & SHUTDOWN_RCV == 0
            && self.credit() > 0
    }

    /// The next packet for the guest: operation, flags and length, with bytes read into `body`, whose
    /// length it may cut. `None` where there is nothing.
    ///
    /// # Errors
    /// The host's end failed (`Host`), or the segments are not guest memory.
    pub fn next(
        &mut self,
        body: &mut Vec<Segment>,
        vectors: &mut Vectors,
        memory: &Memory,
    ) -> Result<Option<(u16, u32, u32)>, QueueError> {
        if let Some(owed) = self.owed.take() {
            return Ok(Some((owed, 0, 0)));
        }
        if self.may_read() {
            crate::buffers::truncate(body, self.credit());
            match vectors.read(self.socket.as_fd(), body, memory) {
                Ok(0) => {
                    self.readable = false;
                    self.ended |= if self.hung_up { SHUTDOWN_BOTH } else { SHUTDOWN_SEND };
                }
                Ok(count) => {
                    self.sent += count as u32;
                    return Ok(Some((op::RW, 0, count as u32)));
                }
                Err(QueueError::Host(error)) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.readable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(QueueError::Host(error)),
                },
                Err(error) => return Err(error),
            }
        }
        if self.ended & !self.ended_told != 0 {
            self.ended_told = self.ended;
            return Ok(Some((op::SHUTDOWN, self.ended, 0)));
        }
        if self.credit_owed {
            return Ok(Some((op::CREDIT_UPDATE, 0, 0)));
        }
        Ok(None)
    }

    /// What every packet to the guest tells of our room.
    pub fn told_credit(&mut self) -> (u32, u32) {
        self.credit_owed = false;
        self.forwarded_told = self.forwarded;
        (ROOM, self.forwarded.0)
    }
}
