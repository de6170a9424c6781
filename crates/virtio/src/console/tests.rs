//! The console, between two pipes.

use std::{
    fs::File,
    io::{Read, Write},
};

use nix::{fcntl::OFlag, unistd::pipe2};

use super::*;
use crate::{
    driver::{
        BUFFERS, Driver, Entry, VERSION_1, assert_a_turn_ends, assert_hostile_queues_break,
        assert_noise_is_survived,
    },
    hostile::assert_any_driver_is_survived,
    transport::Transport,
};

/// What holds more than a pipe does.
const MUCH: u32 = 200_000;

/// A console, where it is typed and where it is printed.
fn console() -> (Console, File, File) {
    let pipe = || pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    let ((input, keyboard), (screen, output)) = (pipe(), pipe());
    (Console::new(input, output).unwrap(), keyboard.into(), screen.into())
}

fn driver() -> (Driver, File, File) {
    let (console, keyboard, screen) = console();
    (Driver::ready(Box::new(console), VERSION_1, 2), keyboard, screen)
}

fn read(screen: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // It ends with nothing more to read, not with the end of the file.
    assert!(screen.read_to_end(&mut bytes).is_err());
    bytes
}

#[test]
fn what_is_printed_is_seen() {
    let (mut driver, _keyboard, mut screen) = driver();
    driver.put(BUFFERS, b"hello\n");
    driver.request(TRANSMIT, &[(BUFFERS, 2, false), (BUFFERS + 2, 4, false)]);
    assert_eq!(read(&mut screen), b"hello\n");
    assert_eq!((driver.used(TRANSMIT), driver.interrupts.0.get()), ((1, 0, 0), 1));
}

#[test]
fn what_is_typed_arrives_when_there_is_room() {
    let (mut driver, mut keyboard, _screen) = driver();
    keyboard.write_all(b"ls -l\n").unwrap();
    driver.device.handle_event();
    driver.request(RECEIVE, &[(BUFFERS, 2, true), (BUFFERS + 0x100, 2, true)]);
    assert_eq!(driver.used(RECEIVE), (1, 0, 4));
    assert_eq!([driver.bytes(BUFFERS, 3), driver.bytes(BUFFERS + 0x100, 2)].concat(), b"ls\0 -");
    driver.request(RECEIVE, &[(BUFFERS, 100, true)]);
    assert_eq!(driver.used(RECEIVE), (2, 0, 2));
    driver.request(RECEIVE, &[(BUFFERS, 100, true)]);
    assert_eq!(driver.used(RECEIVE).0, 2, "the buffer waits");
    keyboard.write_all(b"x").unwrap();
    driver.device.handle_event();
    assert_eq!(driver.used(RECEIVE), (3, 0, 1));
    drop(keyboard);
    driver.device.handle_event();
    driver.request(RECEIVE, &[(BUFFERS, 100, true)]);
    assert_eq!((driver.used(RECEIVE).0, driver.is_broken()), (3, false), "nobody types any more");
}

#[test]
fn what_nobody_reads_waits_and_none_is_lost_or_told_twice() {
    let (mut driver, _keyboard, mut screen) = driver();
    let text: Vec<u8> = (0..MUCH).map(|index| (index % 251) as u8).collect();
    driver.put(BUFFERS, &text);
    driver.request(TRANSMIT, &[(BUFFERS, MUCH, false)]);
    assert_eq!(driver.used(TRANSMIT).0, 0, "the pipe is full");
    let mut seen = read(&mut screen);
    assert!(!seen.is_empty() && seen.len() < text.len());
    driver.device.handle_event();
    // In the middle of it the machine is saved and restored, on another pipe.
    let state = driver.device.save();
    let before = read(&mut screen);
    seen.extend(before);
    let (other, _keyboard, mut screen) = console();
    let (memory, line) = (driver.memory.clone(), driver.interrupts.clone());
    driver.device = Transport::restore(Box::new(other), memory, line, &state).unwrap();
    driver.device.resume();
    while driver.used(TRANSMIT).0 == 0 {
        seen.extend(read(&mut screen));
        driver.device.handle_event();
    }
    seen.extend(read(&mut screen));
    assert!(seen == text, "{} of {}", seen.len(), text.len());
}

#[test]
fn a_state_of_another_length_is_refused() {
    assert_eq!(console().0.restore(&[0; 3]), Err("length"));
}

#[test]
fn an_edge_triggered_loop_misses_nothing() {
    let (mut driver, mut keyboard, mut screen) = driver();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1);
    epoll.add(driver.device.watched().unwrap(), event).unwrap();
    let wakes = || epoll.wait(&mut [EpollEvent::empty(); 4], EpollTimeout::ZERO).unwrap() == 1;
    for round in 1..20 {
        driver.request(RECEIVE, &[(BUFFERS, 100, true)]);
        keyboard.write_all(b"x").unwrap();
        assert!(wakes(), "{round}");
        driver.device.handle_event();
        assert_eq!(driver.used(RECEIVE).0, round);
        driver.request(TRANSMIT, &[(BUFFERS, MUCH, false)]);
        assert_eq!(driver.used(TRANSMIT).0, round - 1);
        let mut seen = read(&mut screen).len();
        while driver.used(TRANSMIT).0 < round {
            assert!(wakes(), "{round}");
            driver.device.handle_event();
            seen += read(&mut screen).len();
        }
        assert_eq!(seen, MUCH as usize);
    }
}

#[test]
fn without_a_screen_printing_is_for_nobody() {
    let (mut driver, _keyboard, screen) = driver();
    drop(screen);
    driver.request(TRANSMIT, &[(BUFFERS, 10, false)]);
    assert_eq!((driver.used(TRANSMIT).0, driver.is_broken()), (1, false));
}

#[test]
fn any_driver_is_survived() {
    for queue in [RECEIVE, TRANSMIT] {
        assert_hostile_queues_break(|| typed().0, queue);
    }
    assert_noise_is_survived(|| typed().0, 2);
    assert_any_driver_is_survived(2, || {
        let (console, mut keyboard, screen) = console();
        keyboard.write_all(b"some words").unwrap();
        (Box::new(console), Box::new((keyboard, screen)))
    });
}

/// A console with something typed, so that buffers are looked at.
fn typed() -> (Driver, File) {
    let (driver, mut keyboard, _) = driver();
    keyboard.write_all(b"some words").unwrap();
    (driver, keyboard)
}

/// A keyboard that is always typed on, and a screen that takes everything.
#[test]
fn turns_end() {
    for (queue, flags) in [(RECEIVE, 2), (TRANSMIT, 0)] {
        let zero = || File::options().read(true).write(true).open("/dev/zero").unwrap().into();
        let console = Console::new(zero(), zero()).unwrap();
        let driver = Driver::ready(Box::new(console), VERSION_1, 2);
        let buffer = Entry { address: BUFFERS, length: 64, flags, next: 0 };
        assert_a_turn_ends(driver, queue, &[buffer]);
    }
}
