//! Guests that mean harm, and programs of the host that do as they please.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    super::{EVENT, RECEIVE, TRANSMIT, packet::Header},
    guest::{GUEST, Guest, Sockets},
};
use crate::{
    driver::{BUFFERS, Driver, VERSION_1, assert_hostile_queues_break, assert_noise_is_survived},
    hostile::{assert_any_driver_is_survived, config},
};

fn driver() -> (Driver, Sockets) {
    let sockets = Sockets::new();
    (Driver::ready(Box::new(sockets.device(GUEST)), VERSION_1, 3), sockets)
}

#[test]
fn hostile_queues_break_the_device_only() {
    assert_hostile_queues_break(|| driver().0, TRANSMIT);
    assert_noise_is_survived(|| driver().0, 3);
    // The other queues are only looked at when there is something to put into them.
    for buffer in [20, 44] {
        let (mut driver, _sockets) = driver();
        driver.request(RECEIVE, &[(BUFFERS, buffer, true)]);
        assert!(!driver.is_broken());
        driver.put(BUFFERS + 0x1000, &[1; 44]);
        driver.request(TRANSMIT, &[(BUFFERS + 0x1000, 44, false)]);
        assert!(driver.is_broken(), "{buffer}");
    }
    let (mut driver, _sockets) = driver();
    driver.request(TRANSMIT, &[(BUFFERS, 43, false)]);
    assert!(driver.is_broken(), "half a header");
}

#[test]
fn any_driver_is_survived() {
    assert_any_driver_is_survived(3, || {
        let sockets = Sockets::new();
        let mut program = sockets.connect();
        program.write_all(b"CONNECT 1\nhello").unwrap();
        let waiting = sockets.wait_at(0);
        (Box::new(sockets.device(GUEST)), Box::new((sockets, program, waiting)))
    });
}

#[derive(Debug, Clone)]
enum Step {
    /// The guest sends a packet, between few ports.
    Packet(Header, usize),
    /// The guest takes a packet.
    Take,
    Hold,
    /// A program connects and greets.
    Greet(u32),
    Write(usize, usize),
    Read(usize),
    Close(usize),
    Event,
}

fn header() -> impl Strategy<Value = Header> {
    let often = |good: u64| prop_oneof![20 => Just(good), 1 => any::<u64>()];
    let port = || prop_oneof![8 => 0_u32..3, 4 => (1_u32 << 30)..(1 << 30) + 3, 1 => any::<u32>()];
    let small = || prop_oneof![0_u32..5, 0_u32..70_000, any::<u32>()];
    let kind = prop_oneof![20 => Just(1_u16), 1 => any::<u16>()];
    let addresses = (often(GUEST), often(2), port(), port());
    (addresses, kind, 0_u16..9, small(), 0_u32..5, small(), small()).prop_map(
        |((src_cid, dst_cid, src_port, dst_port), kind, op, len, flags, buf_alloc, fwd_cnt)| {
            Header {
                src_cid,
                dst_cid,
                src_port,
                dst_port,
                len,
                kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (header(), 0_usize..3000).prop_map(|(header, length)| Step::Packet(header, length)),
        6 => Just(Step::Take),
        1 => Just(Step::Hold),
        2 => (0_u32..4).prop_map(Step::Greet),
        2 => (any::<usize>(), 0_usize..100_000).prop_map(|(which, length)| Step::Write(which, length)),
        2 => any::<usize>().prop_map(Step::Read),
        1 => any::<usize>().prop_map(Step::Close),
        3 => Just(Step::Event),
    ]
}

/// Packets of any content break nothing: the device goes on, whoever lives and whoever dies.
#[test]
fn any_packets_and_any_programs_are_survived() {
    let script = prop::collection::vec(step(), 1..150);
    TestRunner::new(config(48))
        .run(&script, |script| {
            let mut guest = Guest::new();
            let waiting = guest.sockets.wait_at(0);
            waiting.set_nonblocking(true).unwrap();
            let mut programs: Vec<UnixStream> = Vec::new();
            for step in script {
                programs.extend(waiting.accept().map(|(program, _)| program));
                let count = programs.len().max(1);
                match step {
                    Step::Packet(mut header, length) => {
                        if length % 4 != 0 {
                            header.len = length as u32;
                        }
                        guest.send_packet(&header, &vec![5; length]);
                    }
                    Step::Take => drop(guest.take()),
                    Step::Hold => guest.toggle_buffers(),
                    Step::Greet(port) => {
                        let mut program = guest.sockets.connect();
                        program.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
                        programs.push(program);
                    }
                    Step::Write(which, length) => {
                        if let Some(program) = programs.get_mut(which % count) {
                            let _ = program.set_nonblocking(true);
                            let _ = program.write(&vec![6; length]);
                        }
                    }
                    Step::Read(which) => {
                        if let Some(program) = programs.get_mut(which % count) {
                            let _ = program.set_nonblocking(true);
                            let _ = program.read(&mut vec![0; 100_000]);
                        }
                    }
                    Step::Close(which) if !programs.is_empty() => {
                        drop(programs.swap_remove(which % count));
                    }
                    Step::Close(_) => {}
                    Step::Event => drop(guest.driver.device.handle_event()),
                }
                prop_assert!(!guest.driver.is_broken());
            }
            // However it stands, connections can be made.
            guest.release_buffers();
            guest.driver.device.handle_event();
            while guest.take().is_some() {}
            let there = guest.sockets.wait_at(77);
            guest.send(super::op::REQUEST, 77, 77);
            prop_assert_eq!(guest.operations(), [super::op::RESPONSE]);
            there.accept().unwrap();
            guest.driver.device.serve(EVENT);
            Ok(())
        })
        .unwrap();
}
