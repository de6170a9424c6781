//! The card, on a socket pair that keeps packets apart as a tap does.

use std::os::fd::AsFd;

use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{read, write},
};

use super::*;
use crate::{
    driver::{
        BUFFERS, Driver, Entry, VERSION_1, assert_a_turn_ends, assert_hostile_queues_break,
        assert_noise_is_survived, assert_rings_over_each_other_end,
    },
    hostile::assert_any_driver_is_survived,
    transport::Transport,
};

const PACKET_AT: u64 = BUFFERS;

/// A card that takes any features, since a socket has no offloads to set.
struct OnSocket(Net);

impl Device for OnSocket {
    fn id(&self) -> u32 {
        self.0.id()
    }
    fn features(&self) -> u64 {
        self.0.features()
    }
    fn queue_sizes(&self) -> &'static [u16] {
        self.0.queue_sizes()
    }
    fn config(&self) -> &[u8] {
        self.0.config()
    }
    fn activate(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn serve(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        self.0.serve(index, queues, memory)
    }
    fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.0.watched()
    }
    fn handle_event(
        &mut self,
        queues: &mut [Queue],
        memory: &Memory,
    ) -> Result<Served, QueueError> {
        self.0.handle_event(queues, memory)
    }
    fn save(&self) -> Vec<u8> {
        self.0.save()
    }
    fn restore(&mut self, saved: &[u8]) -> Result<(), &'static str> {
        self.0.restore(saved)
    }
}

fn net() -> (OnSocket, OwnedFd) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (tap, wire) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (OnSocket(Net::with_fd(tap, [2, 0, 0, 0, 0, 9])), wire)
}

fn card() -> (Driver, OwnedFd) {
    let (net, wire) = net();
    (Driver::ready(Box::new(net), VERSION_1, 2), wire)
}

#[test]
fn it_shows_its_address() {
    let (driver, _wire) = card();
    let mut mac = [0; 6];
    driver.device.read(0x100, &mut mac);
    assert_eq!(mac, [2, 0, 0, 0, 0, 9]);
}

#[test]
fn packets_go_out_whole_and_in_order() {
    let (mut driver, wire) = card();
    driver.put(PACKET_AT, &[5; 100]);
    driver.request(TRANSMIT, &[(PACKET_AT, 12, false), (PACKET_AT + 12, 60, false)]);
    driver.request(TRANSMIT, &[(PACKET_AT, 40, false)]);
    let mut packet = [0; 2000];
    assert_eq!(read(wire.as_fd(), &mut packet), Ok(72));
    assert_eq!(read(wire.as_fd(), &mut packet), Ok(40));
    assert_eq!(driver.used(TRANSMIT), (2, 0, 0));
    assert!(!driver.is_broken());
}

#[test]
fn a_packet_the_host_refuses_is_lost_and_nothing_else() {
    let (mut driver, wire) = card();
    drop(wire);
    driver.request(TRANSMIT, &[(PACKET_AT, 40, false)]);
    assert_eq!(driver.used(TRANSMIT).0, 1);
    assert!(!driver.is_broken());
}

#[test]
fn packets_come_in_when_there_is_room() {
    let (mut driver, wire) = card();
    write(&wire, &[7; 90]).unwrap();
    write(&wire, &[8; 80]).unwrap();
    driver.device.serve(RECEIVE);
    assert_eq!(driver.used(RECEIVE).0, 0, "no room yet");
    driver.request(RECEIVE, &[(PACKET_AT, 6, true), (PACKET_AT + 0x100, 2000, true)]);
    assert_eq!(driver.used(RECEIVE), (1, 0, 90));
    assert_eq!(driver.bytes(PACKET_AT, 6), [7; 6]);
    let rest = driver.bytes(PACKET_AT + 0x100, 90);
    assert_eq!(rest[..4], [7, 7, 7, 7]);
    assert_eq!(rest[4..6], [1, 0], "one buffer used");
    assert_eq!((rest[6], rest[83], rest[84]), (7, 7, 0));
    driver.request(RECEIVE, &[(PACKET_AT, 2000, true)]);
    assert_eq!(driver.used(RECEIVE), (2, 0, 80));
    driver.request(RECEIVE, &[(PACKET_AT, 2000, true)]);
    assert_eq!(driver.used(RECEIVE).0, 2, "nothing left: the buffer waits");
    write(&wire, &[9; 70]).unwrap();
    driver.device.serve(RECEIVE);
    assert_eq!(driver.used(RECEIVE), (3, 0, 70));
    assert_eq!(driver.interrupts.0.get(), 3);
}

#[test]
fn buffers_and_packets_of_impossible_size_break_the_device() {
    let (mut driver, _wire) = card();
    driver.request(RECEIVE, &[(PACKET_AT, 1000, true)]);
    assert!(driver.is_broken());
    let (mut driver, _wire) = card();
    driver.request(TRANSMIT, &[(PACKET_AT, 11, false)]);
    assert!(driver.is_broken());
    let (mut driver, _wire) = card();
    driver.request(TRANSMIT, &[(PACKET_AT, 70_000, false)]);
    assert!(driver.is_broken());
}

#[test]
fn hostile_queues_break_the_device_only() {
    for queue in [RECEIVE, TRANSMIT] {
        assert_hostile_queues_break(|| card().0, queue);
    }
    assert_noise_is_survived(|| card().0, 2);
    for (queue, flags) in [(0, 2), (1, 0)] {
        let buffer = Entry { address: BUFFERS, length: 2000, flags, next: 0 };
        for features in [VERSION_1, VERSION_1 | 1 << 29] {
            assert_rings_over_each_other_end(|| card().0, features, queue, &[buffer]);
        }
    }
}

#[test]
fn any_driver_is_survived() {
    assert_any_driver_is_survived(2, || {
        let (net, wire) = net();
        (0..3).for_each(|_| assert_eq!(write(&wire, &[3; 90]), Ok(90)));
        (Box::new(net), Box::new(wire))
    });
}

#[test]
fn the_address_the_guest_has_read_goes_with_it() {
    let (mut driver, wire) = card();
    let state = driver.device.save();
    assert_eq!(state.device, [2, 0, 0, 0, 0, 9]);
    let other = OnSocket(Net::with_fd(wire, [2; 6]));
    driver.device = Transport::restore(
        Box::new(other),
        driver.memory.clone(),
        driver.interrupts.clone(),
        &state,
    )
    .unwrap();
    let mut mac = [0; 6];
    driver.device.read(0x100, &mut mac);
    assert_eq!(mac, [2, 0, 0, 0, 0, 9]);
}

#[test]
fn packets_wake_the_device() {
    let (mut driver, wire) = card();
    driver.request(RECEIVE, &[(PACKET_AT, 2000, true)]);
    write(&wire, &[7; 90]).unwrap();
    assert!(driver.device.watched().is_some());
    driver.device.handle_event();
    assert_eq!(driver.used(RECEIVE), (1, 0, 90));
}

/// A tap that always has something, and takes everything.
#[test]
fn turns_end() {
    for (queue, flags) in [(RECEIVE, 2), (TRANSMIT, 0)] {
        let tap = std::fs::File::options().read(true).write(true).open("/dev/zero").unwrap();
        let card = OnSocket(Net::with_fd(tap.into(), [2; 6]));
        let driver = Driver::ready(Box::new(card), VERSION_1, 2);
        let buffer = Entry { address: BUFFERS, length: 1526, flags, next: 0 };
        assert_a_turn_ends(driver, queue, &[buffer]);
    }
}
