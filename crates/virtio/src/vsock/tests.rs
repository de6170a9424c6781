//! Guest and host programs on both sides of the device.

mod guest;
mod hostile;

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{
    connection::ROOM,
    packet::{SHUTDOWN_BOTH, SHUTDOWN_RCV, SHUTDOWN_SEND},
    *,
};
use crate::{
    driver::{BUFFERS, Entry, assert_a_turn_ends},
    transport::Transport,
};
use guest::{GUEST, Guest, Sockets};

/// A port of the guest's, and one where a program of the host's waits.
const HERE: u32 = 1024;
const THERE: u32 = 52;

/// A connection the guest has made, from the guest's and from the host's side.
fn connected() -> (Guest, UnixStream) {
    let mut guest = Guest::new();
    let waiting = guest.sockets.wait_at(THERE);
    guest.send(op::REQUEST, THERE, HERE);
    assert_eq!(guest.operations(), [op::RESPONSE]);
    let (program, _) = waiting.accept().unwrap();
    program.set_nonblocking(true).unwrap();
    (guest, program)
}

/// Everything there is to read now.
fn read(program: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match program.read_to_end(&mut bytes) {
        Ok(_) => bytes.extend(b"<end>"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
    }
    bytes
}

#[test]
fn a_guest_reaches_a_program_of_the_host() {
    let (mut guest, mut program) = connected();
    guest.send_bytes(THERE, HERE, b"ping");
    assert_eq!(read(&mut program), b"ping");
    program.write_all(b"pong and more").unwrap();
    guest.driver.device.handle_event();
    let (header, bytes) = guest.take().unwrap();
    assert_eq!((header.src_cid, header.dst_cid), (HOST, GUEST));
    assert_eq!((header.src_port, header.dst_port, header.op), (THERE, HERE, op::RW));
    assert_eq!((header.buf_alloc, header.fwd_cnt), (ROOM, 4));
    assert_eq!(bytes, b"pong and more");
    assert_eq!(guest.take(), None);
}

#[test]
fn a_program_of_the_host_reaches_the_guest() {
    let mut guest = Guest::new();
    let mut program = guest.sockets.connect();
    program.write_all(b"CONN").unwrap();
    guest.driver.device.handle_event();
    assert_eq!(guest.take(), None, "half a greeting");
    program.write_all(b"ECT 1024\nearly").unwrap();
    guest.driver.device.handle_event();
    let (request, _) = guest.take().unwrap();
    assert_eq!((request.op, request.dst_port), (op::REQUEST, HERE));
    let ours = request.src_port;
    assert_eq!(read(&mut program), b"", "the guest has not agreed");
    guest.send(op::RESPONSE, ours, HERE);
    assert_eq!(read(&mut program), format!("OK {ours}\n").as_bytes());
    assert_eq!(guest.take().unwrap().1, b"early");
    guest.send_bytes(ours, HERE, b"answer");
    assert_eq!(read(&mut program), b"answer");
}

#[test]
fn whoever_is_not_there_is_refused() {
    let mut guest = Guest::new();
    guest.send(op::REQUEST, 99, HERE);
    let (reset, _) = guest.take().unwrap();
    assert_eq!((reset.op, reset.src_port, reset.dst_port), (op::RST, 99, HERE));
    let mut program = guest.sockets.connect();
    program.write_all(b"CONNECT 7\n").unwrap();
    guest.driver.device.handle_event();
    let (request, _) = guest.take().unwrap();
    guest.send(op::RST, request.src_port, 7);
    assert_eq!(read(&mut program), b"<end>");
    assert_eq!(guest.take(), None, "no answer to a refusal");
}

#[test]
fn greetings_that_are_none_are_refused() {
    let long = [b'x'; 40];
    let wrong: [&[u8]; 6] =
        [b"GET /\n", b"CONNECT\n", b"CONNECT -1\n", b"CONNECT 4294967295\n", b"\xff\n", &long];
    for greeting in wrong {
        let mut guest = Guest::new();
        let mut program = guest.sockets.connect();
        program.write_all(greeting).unwrap();
        guest.driver.device.handle_event();
        // What was not read when the socket was closed makes it a reset instead of an end.
        let end = program.read_to_end(&mut Vec::new());
        assert!(!matches!(end, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
        assert_eq!(guest.take(), None);
    }
}

/// What makes a packet odd.
type Spoil = fn(&mut Header);

#[test]
fn odd_packets_end_their_connection() {
    let odd: &[(&str, Spoil)] = &[
        ("another guest's", |header| header.src_cid = 4),
        ("for another guest", |header| header.dst_cid = 4),
        ("no stream", |header| header.kind = 2),
        ("a second request", |header| header.op = op::REQUEST),
        ("an answer to nothing", |header| header.op = op::RESPONSE),
        ("no operation", |header| header.op = 0),
        ("an unknown operation", |header| header.op = 77),
        ("longer than the packet", |header| header.len = 5),
        ("longer than any", |header| header.len = u32::MAX),
        ("to no port", |header| header.dst_port = u32::MAX),
        ("from no port", |header| header.src_port = u32::MAX),
        ("of no connection", |header| header.src_port = 5),
    ];
    for (name, spoil) in odd {
        let (mut guest, _program) = connected();
        let mut header = guest.header(op::RW, THERE, HERE);
        spoil(&mut header);
        guest.send_packet(&header, b"");
        assert_eq!(guest.operations(), [op::RST], "{name}");
        assert!(!guest.driver.is_broken(), "{name}");
        // And a refusal is never answered.
        guest.send_packet(&Header { op: op::RST, ..header }, b"");
        assert_eq!(guest.take(), None, "{name}");
    }
}

#[test]
fn neither_side_sends_more_than_the_other_has_room_for() {
    let (mut guest, mut program) = connected();
    // The host: nothing without credit, then no byte more than granted.
    guest.room = 0;
    guest.send(op::CREDIT_UPDATE, THERE, HERE);
    program.write_all(&[3; 1000]).unwrap();
    guest.driver.device.handle_event();
    assert_eq!(guest.take(), None);
    guest.room = 300;
    guest.send(op::CREDIT_UPDATE, THERE, HERE);
    assert_eq!(guest.bytes(), [3; 300]);
    guest.taken = 250;
    guest.send(op::CREDIT_UPDATE, THERE, HERE);
    assert_eq!(guest.bytes(), [3; 250]);
    for (taken, lie) in [(551, "bytes taken that were never sent"), (249, "bytes given back")] {
        guest.taken = taken;
        guest.send(op::CREDIT_UPDATE, THERE, HERE);
        assert_eq!(guest.bytes(), b"", "{lie}");
    }
    // The guest: what it has room for is kept while nobody reads, and told when it is read.
    let mut sent = 0;
    let mut told = 0;
    while sent - told + 4096 <= ROOM {
        guest.send_bytes(THERE, HERE, &[4; 4096]);
        sent += 4096;
        told = guest.told(told);
    }
    assert!(!guest.driver.is_broken());
    assert!(sent > ROOM, "the socket took some");
    let mut all = read(&mut program).len();
    guest.driver.device.handle_event();
    assert!(guest.told(told) > told, "room again");
    all += read(&mut program).len();
    assert_eq!(all, sent as usize);
}

#[test]
fn a_guest_that_overdraws_its_credit_is_refused() {
    let (mut guest, _program) = connected();
    let mut refused = false;
    for _ in 0..1000 {
        guest.send_bytes(THERE, HERE, &[4; 4096]);
        refused = guest.operations().contains(&op::RST);
        if refused {
            break;
        }
    }
    assert!(refused && !guest.driver.is_broken());
}

#[test]
fn room_is_told_on_request() {
    let (mut guest, _program) = connected();
    guest.send(op::CREDIT_REQUEST, THERE, HERE);
    let (update, _) = guest.take().unwrap();
    assert_eq!((update.op, update.buf_alloc, update.fwd_cnt), (op::CREDIT_UPDATE, ROOM, 0));
}

#[test]
fn a_guest_ends_a_connection_in_either_way() {
    let (mut guest, mut program) = connected();
    guest.send_bytes(THERE, HERE, b"last");
    guest.shut_down(THERE, HERE, SHUTDOWN_SEND);
    assert_eq!(read(&mut program), b"last<end>");
    program.write_all(b"still").unwrap();
    guest.driver.device.handle_event();
    assert_eq!(guest.bytes(), b"still");
    guest.shut_down(THERE, HERE, SHUTDOWN_RCV);
    assert_eq!(guest.operations(), [op::RST], "both directions: it is over");
    assert!(program.write_all(b"more").is_err());
    let (mut guest, mut program) = connected();
    guest.send(op::RST, THERE, HERE);
    assert_eq!((read(&mut program), guest.take()), (b"<end>".to_vec(), None));
}

#[test]
fn a_host_ends_a_connection_in_either_way() {
    let (mut guest, mut program) = connected();
    program.write_all(b"last").unwrap();
    program.shutdown(std::net::Shutdown::Write).unwrap();
    guest.driver.device.handle_event();
    assert_eq!(guest.take().unwrap().1, b"last");
    let (shutdown, _) = guest.take().unwrap();
    assert_eq!((shutdown.op, shutdown.flags), (op::SHUTDOWN, SHUTDOWN_SEND));
    guest.send_bytes(THERE, HERE, b"still");
    assert_eq!(read(&mut program), b"still");
    drop(program);
    guest.driver.device.handle_event();
    let (shutdown, _) = guest.take().unwrap();
    assert_eq!((shutdown.op, shutdown.flags), (op::SHUTDOWN, SHUTDOWN_BOTH));
    guest.send_bytes(THERE, HERE, b"to nobody");
    assert_eq!(guest.operations(), [op::RST]);
}

#[test]
fn without_buffers_packets_wait_and_none_is_lost() {
    let mut guest = Guest::new();
    guest.hold_buffers();
    let taken = guest.driver.used(TRANSMIT).0;
    let mut sent = 0;
    while u32::from(guest.driver.used(TRANSMIT).0 - taken) == sent {
        guest.send(op::REQUEST, 9, sent);
        sent += 1;
        assert!(sent < 100, "the device takes what it cannot answer");
    }
    guest.release_buffers();
    let refused: Vec<_> = std::iter::from_fn(|| guest.take())
        .map(|(header, _)| (header.op, header.dst_port))
        .collect();
    assert_eq!(refused, (0..sent).map(|port| (op::RST, port)).collect::<Vec<_>>());
}

#[test]
fn there_is_an_end_of_connections() {
    let mut guest = Guest::new();
    let waiting = guest.sockets.wait_at(THERE);
    let mut programs = Vec::new();
    for port in 0..host::MOST_CONNECTIONS as u32 + 10 {
        guest.send(op::REQUEST, THERE, port);
        programs.push(waiting.accept().unwrap());
        let expected = if port < host::MOST_CONNECTIONS as u32 { op::RESPONSE } else { op::RST };
        assert_eq!(guest.operations(), [expected], "{port}");
    }
    guest.send(op::RST, THERE, 3);
    guest.send(op::REQUEST, THERE, 3);
    assert_eq!(guest.operations(), [op::RESPONSE], "room again");
}

#[test]
fn an_edge_triggered_loop_misses_nothing() {
    let (mut guest, mut program) = connected();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1);
    epoll.add(guest.driver.device.watched().unwrap(), event).unwrap();
    let wakes = || epoll.wait(&mut [EpollEvent::empty(); 4], EpollTimeout::ZERO).unwrap();
    if wakes() == 1 {
        guest.driver.device.handle_event();
    }
    assert_eq!(wakes(), 0);
    for byte in 0..20 {
        program.write_all(&[byte]).unwrap();
        assert_eq!(wakes(), 1, "{byte}");
        guest.driver.device.handle_event();
        assert_eq!(guest.bytes(), [byte]);
        let mut other = guest.sockets.connect();
        assert_eq!(wakes(), 1, "{byte}");
        guest.driver.device.handle_event();
        other.write_all(b"CONNECT 5\n").unwrap();
        assert_eq!(wakes(), 1, "{byte}");
        guest.driver.device.handle_event();
        assert_eq!(guest.operations(), [op::REQUEST]);
        while wakes() == 1 {
            guest.driver.device.handle_event();
        }
    }
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_gone() {
    let (mut guest, mut program) = connected();
    let state = guest.driver.device.save();
    guest.sockets = Sockets::new();
    let (memory, line) = (guest.driver.memory.clone(), guest.driver.interrupts.clone());
    let vsock = guest.sockets.device(GUEST + 1);
    guest.driver.device = Transport::restore(Box::new(vsock), memory, line, &state).unwrap();
    assert_eq!(read(&mut program), b"<end>");
    assert_eq!(guest.driver.read(0x100), GUEST as u32 + 1);
    guest.driver.device.resume();
    assert_eq!(guest.driver.used(EVENT).0, 0, "no room for an event yet");
    guest.driver.put(0x30000, &[9; 4]);
    guest.driver.request(EVENT, &[(0x30000, 4, true)]);
    assert_eq!(guest.driver.used(EVENT), (1, 0, 4));
    assert_eq!(guest.driver.bytes(0x30000, 4), [0; 4]);
    let mut caller = guest.sockets.connect();
    caller.write_all(b"CONNECT 1024\n").unwrap();
    guest.driver.device.handle_event();
    guest.driver.device.handle_event();
    assert_eq!(guest.take(), None, "it would close what it has just opened");
    guest.driver.request(EVENT, &[(0x30000, 4, true)]);
    assert_eq!(guest.driver.used(EVENT).0, 1, "told once");
    assert_eq!(guest.operations(), [op::REQUEST], "it has closed its connections");
}

#[test]
fn a_reset_closes_everything() {
    let (mut guest, mut program) = connected();
    guest.driver.write(0x070, 0);
    assert_eq!(read(&mut program), b"<end>");
}

#[test]
fn a_guest_has_a_context_id_of_a_guest() {
    for cid in [0, 1, 2, u64::from(u32::MAX), 1 << 32] {
        let sockets = Sockets::new();
        assert!(Vsock::new(cid, sockets.listener(), sockets.path()).is_err(), "{cid}");
    }
}

/// Packets that need no answer, without end.
#[test]
fn a_turn_ends() {
    let guest = Guest::new();
    guest.driver.put(BUFFERS, &guest.header(op::RST, THERE, HERE).encode());
    let packet = Entry { address: BUFFERS, length: HEADER as u32, flags: 0, next: 0 };
    assert_a_turn_ends(guest.driver, TRANSMIT, &[packet]);
}
