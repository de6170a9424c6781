//! Times what the host and the guest do between `execve` of the monitor and PID 1, and between the
//! guest's end and the last page given back; counts the guest's memory. It runs on the host that
//! runs the virtual machines, which is the emulated one for every published figure:
//! `benches/microvm-boot` brings it there.
//!
//! ```text
//!  boot --runs 10 --vmm FILE --initramfs FILE --disk FILE --idle-disk FILE --memory 128MiB
//!       --kernel NAME=FILE[,WORDS] …     one JSON object a line, one line a run
//!  boot trace …                          one boot under the tracepoints of KVM instead
//!  boot profile …                        two boots, and the host kernel's addresses (ditto)
//!  boot log …                            one boot, and the log of the guest's kernel
//!  boot bare                             the smallest use of KVM, started by the above
//!  hello idle|log                        inside the guest: prints a line, or the log, and sleeps
//! ```

mod args;
mod bare;
mod child;
mod memory;
mod monitor;
mod trace;

use std::{io, process::exit};

use args::Settings;
use serde::Serialize;

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    let result = match arguments.peek().map(String::as_str) {
        Some("bare") => bare::run(),
        Some("idle") => idle(""),
        Some("tell-log") => idle(&kernel_log()),
        Some("trace") => args::parse(arguments.skip(1)).and_then(|settings| trace::run(&settings)),
        Some("log") => args::parse(arguments.skip(1)).and_then(|settings| trace::log(&settings)),
        Some("profile") => {
            args::parse(arguments.skip(1)).and_then(|settings| trace::profile(&settings))
        }
        _ => args::parse(arguments).and_then(|settings| measure(&settings)),
    };
    if let Err(error) = result {
        eprintln!("boot: {error}");
        exit(1);
    }
}

/// One run of one column; times in nanoseconds, memory in bytes.
#[derive(Serialize)]
struct Line<'a, T> {
    column: &'a str,
    run: u32,
    #[serde(flatten)]
    figures: T,
}

/// All columns in turn, over and over, so that none has the machine in another state than the
/// others have it. The first round fills the page cache and is not told.
fn measure(settings: &Settings) -> io::Result<()> {
    for run in 0..=settings.runs {
        tell("bare", run, bare::start()?)?;
        for column in &settings.columns {
            tell(&column.name, run, monitor::time(settings, column)?)?;
        }
    }
    for run in 0..=settings.runs {
        for column in &settings.columns {
            let name = format!("{} idle", column.name);
            tell(&name, run, monitor::weigh(settings, column)?)?;
        }
    }
    Ok(())
}

fn tell(column: &str, run: u32, figures: impl Serialize) -> io::Result<()> {
    if run > 0 {
        println!("{}", serde_json::to_string(&Line { column, run, figures })?);
    }
    Ok(())
}

/// The workload whose memory is read: as `hello`, but it stays.
fn idle(before: &str) -> ! {
    println!("{before}hello");
    loop {
        nix::unistd::pause();
    }
}

/// What `dmesg` prints: SYSLOG_ACTION_READ_ALL of syslog(2).
#[allow(unsafe_code)]
fn kernel_log() -> String {
    let mut text = vec![0_u8; 1 << 20];
    // SAFETY: the buffer is as long as the call is told.
    let count = unsafe { libc::klogctl(3, text.as_mut_ptr().cast(), text.len() as libc::c_int) };
    text.truncate(usize::try_from(count).unwrap_or(0));
    String::from_utf8_lossy(&text).into_owned()
}
