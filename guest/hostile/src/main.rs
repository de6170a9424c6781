//! A guest that means harm: a kernel of its own, a few pages long, that does one misdeed to its
//! monitor and says whether the machine was still whole after it. The microVM's tests boot it; the
//! kernel command line says which misdeed (`misdeed=NAME`, `amount=N`).
//!
//! ```text
//!  monitor ─64-bit boot protocol─► _start ─► main ─► misdeed ─► frames: Exited 0, PowerOff
//!                                                       │ (or none: it crashes, hangs, is killed)
//!                                                       └► anything unexpected: words, Exited 1
//! ```
//! Interrupts stay off and there is no IDT, so that any exception is a triple fault.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod boot;
mod cpu;
mod frames;
mod memory;
mod paging;
mod queues;
mod report;
mod ring;
mod sweep;
mod virtio;

use boot::{BootParams, Words};

/// What it can do, given the zero page and the amount asked for.
type Misdeed = fn(&BootParams, u64);

/// All of them by name.
const MISDEEDS: &[(&str, Misdeed)] = &[
    ("nothing", |_, _| ()),
    ("triple-fault", |_, _| cpu::triple_fault()),
    ("spin", |_, _| cpu::spin()),
    ("halt", |_, _| cpu::halt()),
    ("reset", |_, _| cpu::reset()),
    ("run-nowhere", |_, _| cpu::run_nowhere()),
    ("init-itself", |_, _| cpu::init_itself()),
    ("smi-itself", |_, _| cpu::smi_itself()),
    ("touch", |boot, _| memory::touch(boot)),
    ("flood", |_, bytes| report::flood(bytes)),
    ("ports", |_, _| sweep::ports()),
    ("addresses", |boot, _| sweep::addresses(boot)),
    ("frames-noise", |_, seed| frames::noise(seed)),
    ("frames-unknown", |_, _| frames::unknown()),
    ("frames-long", |_, _| frames::long()),
    ("frames-monitors", |_, _| frames::monitors()),
    ("frames-marks", |_, count| frames::marks(count)),
    ("frames-reports", |_, count| frames::reports(count)),
    ("frames-ended", |_, _| frames::ended()),
    ("queues", |boot, _| queues::broken(boot)),
    ("queue-addresses", |boot, _| queues::addresses(boot)),
    ("queue-order", |boot, _| queues::order(boot)),
    ("queue-feedback", |boot, _| queues::feedback(boot)),
    ("queue-race", |boot, count| queues::race(boot, count)),
    ("queue-noise", |boot, count| queues::noise(boot, count)),
    ("resets", |boot, count| virtio::resets(boot, count)),
];

/// Where `_start` goes.
#[unsafe(no_mangle)]
extern "C" fn main(zero_page: u64) -> ! {
    let boot = BootParams::at(zero_page);
    let words = Words::of(&boot);
    paging::take_over();
    let name = words.value("misdeed").unwrap_or("nothing");
    match MISDEEDS.iter().find(|(known, _)| *known == name) {
        Some((_, misdeed)) => misdeed(&boot, words.number("amount").unwrap_or(0)),
        None => report::fail("no such misdeed", 0, 0),
    }
    report::survived()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::fail("a panic of its own", 0, 0)
}
