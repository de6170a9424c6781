//! The host's side: a Unix socket at PATH where programs ask for ports of the guest, sockets at
//! `PATH_port` where they wait for the guest, and every connection between.
//!
//! All sockets are watched by one epoll(7) instance, edge triggered, which is itself the descriptor
//! the event loop watches: each edge makes it readable anew, and nothing has to be unwatched while
//! the guest has no room.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, accept4, connect, socket},
    },
};

use super::{
    connection::{Connection, Greeting, Stage},
    packet::{Header, STREAM, op},
};

/// Most connections at a time: each holds a descriptor and, where its reader is slow, 64 KiB.
pub const MOST_CONNECTIONS: usize = 256;
/// Most RST packets owed before no more is taken from the guest.
const MOST_RESETS: usize = 64;
/// First port given to programs of the host; they do not choose theirs.
const FIRST_PORT: u32 = 1 << 30;
/// The port that means any (VMADDR_PORT_ANY, vsock(7)); none has it.
const ANY: u32 = u32::MAX;
/// The token of the listening socket, where a connection between two such ports would be.
const LISTENER: u64 = u64::MAX;
/// Events taken from the kernel at a time.
const BATCH: usize = 16;

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Port on the host's side.
    pub host: u32,
    /// Port on the guest's side.
    pub guest: u32,
}

impl Key {
    fn token(self) -> u64 {
        u64::from(self.host) << 32 | u64::from(self.guest)
    }

    fn of(token: u64) -> Self {
        Self { host: (token >> 32) as u32, guest: token as u32 }
    }
}

/// A refusal owed to the guest: of which connection, and of which type of socket.
pub type Reset = (Key, u16);

/// Every connection.
#[derive(Debug)]
pub struct Host {
    listener: UnixListener,
    path: PathBuf,
    epoll: Epoll,
    connections: BTreeMap<Key, Connection>,
    /// Connections that have something for the guest, each once.
    line: VecDeque<Key>,
    resets: VecDeque<Reset>,
    last_port: u32,
}

impl Host {
    /// Takes over a listening socket that was bound to `path`.
    ///
    /// # Errors
    /// epoll_create1(2) or epoll_ctl(2) fails.
    pub fn new(listener: UnixListener, path: PathBuf) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, LISTENER);
        epoll.add(&listener, event)?;
        Ok(Self {
            listener,
            path,
            epoll,
            connections: BTreeMap::new(),
            line: VecDeque::new(),
            resets: VecDeque::new(),
            last_port: FIRST_PORT - 1,
        })
    }

    /// Readable when anything happened.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Closes every connection.
    pub fn clear(&mut self) {
        self.connections.clear();
        self.line.clear();
        self.resets.clear();
    }

    /// Whether the guest must first take some of what it is owed.
    pub fn is_full(&self) -> bool {
        self.resets.len() >= MOST_RESETS
    }

    /// Whether there may be something for the guest.
    pub fn has_something(&self) -> bool {
        !self.resets.is_empty() || !self.line.is_empty()
    }

    /// The next refusal owed.
    pub fn next_reset(&mut self) -> Option<Reset> {
        self.resets.pop_front()
    }

    /// The next connection in line.
    pub fn next_in_line(&mut self) -> Option<(Key, &mut Connection)> {
        let key = self.line.pop_front()?;
        let connection = self.connections.get_mut(&key)?;
        connection.in_line = false;
        Some((key, connection))
    }

    /// Takes a connection out, and out of the line: that never holds more than there are.
    fn remove(&mut self, key: Key) -> Option<Connection> {
        let connection = self.connections.remove(&key)?;
        if connection.in_line {
            self.line.retain(|other| *other != key);
        }
        Some(connection)
    }

    /// Puts a connection in line again if it has more, or ends it if it is over.
    pub fn settle(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.is_over() {
            self.refuse(key);
        } else if connection.wants_to_send() && !connection.in_line {
            connection.in_line = true;
            self.line.push_back(key);
        }
    }

    /// Closes a connection, if there is one, and tells the guest.
    pub fn refuse(&mut self, key: Key) {
        self.remove(key);
        self.resets.push_back((key, STREAM));
    }

    /// Refuses a packet of an unknown type of socket.
    pub fn refuse_type(&mut self, key: Key, kind: u16) {
        self.resets.push_back((key, kind));
    }

    /// Takes in whatever happened to the sockets.
    pub fn take_events(&mut self) {
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.accept(),
                    token => self.take_event(Key::of(token), event.events()),
                }
            }
        }
    }

    fn take_event(&mut self, key: Key, flags: EpollFlags) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.readable |= flags.intersects(
            EpollFlags::EPOLLIN
                | EpollFlags::EPOLLRDHUP
                | EpollFlags::EPOLLHUP
                | EpollFlags::EPOLLERR,
        );
        connection.hung_up |= flags.contains(EpollFlags::EPOLLHUP);
        match connection.stage {
            Stage::Greeting => self.greet(key),
            Stage::Requested => {}
            Stage::Open => match connection.flush() {
                Ok(()) => self.settle(key),
                Err(_) => self.refuse(key),
            },
        }
    }

    /// Takes in the programs that wait at the listening socket.
    fn accept(&mut self) {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        loop {
            let fd = match accept4(self.listener.as_raw_fd(), flags) {
                Ok(fd) => fd,
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(_) => return,
            };
            #[allow(unsafe_code)]
            // SAFETY: accept4 has just made this descriptor, and nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let key = Key { host: self.unused_port(), guest: ANY };
            // Where there is no room for it, its program sees the end of the stream.
            let _ = self.add(key, Connection::from_host(socket));
        }
    }

    fn unused_port(&mut self) -> u32 {
        loop {
            self.last_port = match self.last_port.wrapping_add(1) {
                0 | ANY => FIRST_PORT,
                port => port,
            };
            let all =
                Key { host: self.last_port, guest: 0 }..=Key { host: self.last_port, guest: ANY };
            if self.connections.range(all).next().is_none() {
                return self.last_port;
            }
        }
    }

    fn add(&mut self, key: Key, connection: Connection) -> io::Result<()> {
        if self.connections.len() >= MOST_CONNECTIONS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.epoll.add(connection.socket(), EpollEvent::new(watched(), key.token()))?;
        self.connections.insert(key, connection);
        Ok(())
    }

    /// A program has said something before its connection is one.
    fn greet(&mut self, key: Key) {
        let Some(mut connection) = self.remove(key) else { return };
        match connection.read_greeting() {
            Greeting::Partial => drop(self.connections.insert(key, connection)),
            Greeting::Port(guest) if guest != ANY => {
                let key = Key { host: key.host, guest };
                if self.connections.contains_key(&key) {
                    return; // the guest has guessed our port and connected to it meanwhile
                }
                connection.request();
                // With another token, whatever is there already is told again.
                let mut event = EpollEvent::new(watched(), key.token());
                if self.epoll.modify(connection.socket(), &mut event).is_ok() {
                    self.connections.insert(key, connection);
                    self.settle(key);
                }
            }
            Greeting::Port(_) | Greeting::Refused => {}
        }
    }

    /// Takes a packet of the guest's for these ports, with the bytes that followed.
    pub fn take(&mut self, key: Key, header: &Header, bytes: &[u8]) {
        if key.host == ANY || key.guest == ANY {
            self.refuse_unless_reset(key, header);
            return;
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            match header.op {
                op::REQUEST => self.connect(key, header),
                _ => self.refuse_unless_reset(key, header),
            }
            return;
        };
        connection.take_credit(header);
        let sound = match (header.op, connection.stage) {
            (op::RST, _) => {
                self.remove(key);
                return;
            }
            (op::RESPONSE, Stage::Requested) => connection.open(key.host).is_ok(),
            (op::RW, Stage::Open) => connection.take_bytes(bytes).is_ok(),
            (op::SHUTDOWN, Stage::Open) => {
                connection.end(header.flags);
                true
            }
            (op::CREDIT_UPDATE, Stage::Open) => true,
            (op::CREDIT_REQUEST, Stage::Open) => {
                connection.owe_credit();
                true
            }
            _ => false,
        };
        if sound { self.settle(key) } else { self.refuse(key) }
    }

    fn refuse_unless_reset(&mut self, key: Key, header: &Header) {
        if header.op != op::RST {
            self.refuse(key);
        }
    }

    /// The guest asks for a port of the host's.
    fn connect(&mut self, key: Key, request: &Header) {
        let added = self
            .dial(key.host)
            .and_then(|socket| self.add(key, Connection::from_guest(socket, request)));
        match added {
            Ok(()) => self.settle(key),
            Err(_) => self.refuse(key),
        }
    }

    /// Connects to the program that waits at `PATH_port`, which must have room for it at once.
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path.as_os_str())?)?;
        Ok(socket)
    }
}

/// What is watched of a connection.
fn watched() -> EpollFlags {
    EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET
}
