//! One boot under the tracepoints of KVM: each VM exit and each nested page fault from the first
//! entry to PID 1, with the guest's instruction pointer. Time is not worth anything here.

use std::{fs, io, path::Path};

use compare_wire::Kind;
use nix::mount::{MsFlags, mount};

use crate::{
    args::{Column, Settings},
    monitor::Guest,
};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Boots the first column and prints the trace as the kernel words it.
///
/// # Errors
/// There is no tracefs, or the boot fails.
pub fn run(settings: &Settings) -> io::Result<()> {
    let column = first(settings)?;
    let _ = mount(Some("t"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>);
    let set = |name: &str, value: &str| fs::write(Path::new(TRACEFS).join(name), value);
    set("buffer_size_kb", "65536")?;
    set("events/kvm/kvm_exit/enable", "1")?;
    set("events/kvm/kvm_page_fault/enable", "1")?;
    // Once without, so that the page cache holds what is read.
    set("tracing_on", "0")?;
    let mut warm = Guest::start(settings, column, &settings.idle_disk, "idle", false)?;
    warm.until(Kind::Exec)?;
    warm.stop()?;
    set("tracing_on", "1")?;
    let mut guest = Guest::start(settings, column, &settings.idle_disk, "idle", false)?;
    guest.until(Kind::Exec)?;
    set("tracing_on", "0")?;
    guest.stop()?;
    print!("{}", fs::read_to_string(Path::new(TRACEFS).join("trace"))?);
    Ok(())
}

/// Boots the first column twice and prints the addresses of the host's kernel, for a profile that
/// the emulator takes.
///
/// # Errors
/// The boot fails, or the addresses are hidden.
pub fn profile(settings: &Settings) -> io::Result<()> {
    let column = first(settings)?;
    for _ in 0..2 {
        let mut guest = Guest::start(settings, column, &settings.idle_disk, "idle", false)?;
        guest.until(Kind::Exec)?;
        guest.wait_for_hello()?;
        // Long enough for the timer tick to come, and to stop.
        std::thread::sleep(std::time::Duration::from_millis(50));
        guest.stop()?;
    }
    fs::write("/proc/sys/kernel/kptr_restrict", "0")?;
    print!("{}", fs::read_to_string("/proc/kallsyms")?);
    Ok(())
}

/// Boots the first column and prints its kernel's log, which the workload hands out: with
/// `initcall_debug log_buf_len=1M` among its words, what each of its initcalls takes.
///
/// # Errors
/// The boot fails.
pub fn log(settings: &Settings) -> io::Result<()> {
    let mut warm = Guest::start(settings, first(settings)?, &settings.idle_disk, "idle", false)?;
    warm.until(Kind::Exec)?;
    warm.stop()?;
    let mut guest =
        Guest::start(settings, first(settings)?, &settings.idle_disk, "tell-log", false)?;
    print!("{}", guest.wait_for_hello()?);
    guest.stop()
}

fn first(settings: &Settings) -> io::Result<&Column> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "no --kernel");
    settings.columns.first().ok_or_else(missing)
}
