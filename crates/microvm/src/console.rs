//! The console: a serial port whose output goes to a descriptor and whose input carries the bytes
//! of [`compare_wire::Control`] to PID 1.
//!
//! Each byte the guest sends is an exit anyway, but not each has to be a system call of ours: bytes
//! gather until the driver looks at the port again. Linux does so after every byte when it prints a
//! message of its own, and in the interrupt after every 16 bytes of a program's output
//! (drivers/tty/serial/8250/8250_port.c), so that nothing is held back for long.

use std::{
    fs::File,
    io::{self, Write},
};

use serde::{Deserialize, Serialize};
use vm_superio::{Serial, SerialState, Trigger, serial::NoEvents};

/// Most bytes gathered.
const GATHERED: usize = 64;

/// The output side.
#[derive(Debug)]
struct Output {
    to: File,
    gathered: Vec<u8>,
}

impl Output {
    /// Blocks while the reader is slow, and the guest's CPU with it: a flood costs the guest. A
    /// reader that is gone loses output, nothing else.
    fn drain(&mut self) {
        if !self.gathered.is_empty() {
            let _ = self.to.write_all(&self.gathered);
            self.gathered.clear();
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED || bytes.contains(&b'\n') {
            self.drain();
        }
        Ok(bytes.len())
    }

    /// The port flushes after every byte; that is what gathering avoids.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The serial port.
#[derive(Debug)]
pub struct Console<T: Trigger>(Serial<T, NoEvents, Output>);

impl<T: Trigger> Console<T> {
    /// A port that interrupts by `line` and prints to `to`.
    pub fn new(line: T, to: File) -> Self {
        Self(Serial::new(line, Output { to, gathered: Vec::with_capacity(GATHERED) }))
    }

    /// A port as it was saved.
    ///
    /// # Errors
    /// The state holds more input than there is room for.
    pub fn restore(state: &ConsoleState, line: T, to: File) -> io::Result<Self> {
        let output = Output { to, gathered: Vec::with_capacity(GATHERED) };
        Serial::from_state(&state.registers(), line, NoEvents, output).map(Self).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "more input than the port holds")
        })
    }

    /// Its registers and what it has not handed over yet. Output that was gathered is printed first.
    pub fn save(&mut self) -> ConsoleState {
        self.drain();
        ConsoleState::of(self.0.state())
    }

    /// The guest writes a register.
    pub fn write(&mut self, register: u8, value: u8) {
        // What can fail is the interrupt's eventfd, and it cannot while KVM takes from it.
        let _ = self.0.write(register, value);
    }

    /// The guest reads a register.
    pub fn read(&mut self, register: u8) -> u8 {
        self.0.writer_mut().drain();
        self.0.read(register)
    }

    /// Bytes the guest's input has room for.
    pub fn room(&self) -> usize {
        self.0.fifo_capacity()
    }

    /// Input for the guest. What finds no room is dropped: a guest that left 64 control bytes
    /// unread does not read them.
    pub fn input(&mut self, bytes: &[u8]) {
        let _ = self.0.enqueue_raw_bytes(bytes);
    }

    /// Prints what is left.
    pub fn drain(&mut self) {
        self.0.writer_mut().drain();
    }
}

/// The registers of a saved port, in the order of [`SerialState`], and its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    registers: [u8; 9],
    input: Vec<u8>,
}

impl ConsoleState {
    fn of(state: SerialState) -> Self {
        Self {
            registers: [
                state.baud_divisor_low,
                state.baud_divisor_high,
                state.interrupt_enable,
                state.interrupt_identification,
                state.line_control,
                state.line_status,
                state.modem_control,
                state.modem_status,
                state.scratch,
            ],
            input: state.in_buffer,
        }
    }

    fn registers(&self) -> SerialState {
        let [low, high, enable, identification, line, status, modem, modem_status, scratch] =
            self.registers;
        SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control: line,
            line_status: status,
            modem_control: modem,
            modem_status,
            scratch,
            in_buffer: self.input.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Read, rc::Rc};

    use super::*;

    struct Counter(Rc<Cell<u32>>);
    impl Trigger for Counter {
        type E = io::Error;
        fn trigger(&self) -> io::Result<()> {
            self.0.set(self.0.get() + 1);
            Ok(())
        }
    }

    /// Registers of the 8250: transmit/receive, interrupt enable, line status.
    const DATA: u8 = 0;
    const ENABLE: u8 = 1;
    const STATUS: u8 = 5;

    fn console() -> (Console<Counter>, File, Rc<Cell<u32>>) {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let count = Rc::new(Cell::new(0));
        (Console::new(Counter(count.clone()), writer.into()), reader.into(), count)
    }

    fn printed(reader: &mut File) -> String {
        let mut text = [0; 256];
        let count = reader.read(&mut text).unwrap_or(0);
        String::from_utf8_lossy(&text[..count]).into_owned()
    }

    #[test]
    fn output_appears_at_the_next_look_or_line() {
        let (mut console, mut reader, _) = console();
        b"ab".iter().for_each(|&byte| console.write(DATA, byte));
        assert_eq!(printed(&mut reader), "");
        console.read(STATUS);
        assert_eq!(printed(&mut reader), "ab");
        b"line\nrest".iter().for_each(|&byte| console.write(DATA, byte));
        assert_eq!(printed(&mut reader), "line\n");
        (0..GATHERED).for_each(|_| console.write(DATA, b'x'));
        assert_eq!(printed(&mut reader).len(), GATHERED);
        console.drain();
        assert_eq!(printed(&mut reader), "xxxx");
    }

    #[test]
    fn input_interrupts_and_stays_within_bounds() {
        let (mut console, _reader, count) = console();
        console.write(ENABLE, 1);
        console.input(&[0xc0]);
        assert_eq!(count.get(), 1);
        assert_eq!(console.read(DATA), 0xc0);
        console.input(&[1; 500]);
        assert_eq!(console.room(), 0);
        console.input(&[2]);
    }

    #[test]
    fn a_saved_port_goes_on() {
        let (mut console, mut reader, _) = console();
        console.write(ENABLE, 1);
        console.write(DATA, b'x');
        console.input(&[0xc1]);
        let state = console.save();
        assert_eq!(printed(&mut reader), "x", "nothing is lost");
        let (_, writer) = nix::unistd::pipe().unwrap();
        let count = Rc::new(Cell::new(0));
        let mut restored = Console::restore(&state, Counter(count), writer.into()).unwrap();
        assert_eq!(restored.save(), state);
        assert_eq!((restored.read(ENABLE), restored.read(DATA)), (1, 0xc1));
        let full = ConsoleState { input: vec![0; 65], ..state };
        let (_, writer) = nix::unistd::pipe().unwrap();
        assert!(Console::restore(&full, Counter(Rc::default()), writer.into()).is_err());
    }
}
