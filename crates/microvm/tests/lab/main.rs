//! Boots real guests: every way a workload can end, what is left of it, and what goes in and out.
//!
//! ```text
//!  lab prepare DIR INIT     here: makes DIR/root.erofs, with this very program in it, and DIR/initramfs.cpio
//!  lab [NAME…]              in the emulated host: runs the tests; finds compare-vmm, vmlinux,
//!                           initramfs.cpio and root.erofs beside itself, or by COMPARE_TEST_VMM,
//!                           …_KERNEL, …_INITRAMFS, …_ROOT; likewise a second kernel for more CPUs
//!                           (vmlinux-smp), one of a distribution (bzimage) and `guest/hostile`
//!                           with COMPARE_SOAK=WORKLOAD also the long measurements (`soak`)
//!  lab --kernel …           in place of a monitor, in one test: floods its output
//!  /actor actor PART        in the guest: is the workload
//! ```
//! Where it cannot run it prints `SKIP: reason`; `COMPARE_REQUIRE=microvm` makes that a failure.

mod actor;
mod confined;
mod devices;
mod fixture;
mod hostile;
mod scenarios;
mod snapshots;
mod soak;

use std::{any::Any, path::Path, process::exit, time::Instant};

use fixture::{Fixture, open_descriptors};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--kernel", ..] => hostile::flooding_monitor(),
        ["actor", part] => actor::play(part, None),
        ["actor", part, argument] => actor::play(part, Some(argument)),
        ["prepare", directory, init] => {
            return fixture::prepare(Path::new(directory), Path::new(init))
                .expect("prepare the tests' files");
        }
        _ => {}
    }
    let wanted: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let fixture = match Fixture::find() {
        Ok(fixture) => fixture,
        Err(reason) => {
            println!("SKIP: microvm: {reason}");
            let required = std::env::var("COMPARE_REQUIRE").unwrap_or_default();
            let failed = u32::from(required.split(',').any(|word| word == "microvm"));
            conclude(0, failed)
        }
    };
    let descriptors = open_descriptors();
    let (mut passed, mut failed) = (0, 0);
    let tests = [scenarios::ALL, devices::ALL, snapshots::ALL, hostile::ALL, confined::ALL];
    for (name, scenario) in tests.into_iter().flatten().chain(soak::asked_for()) {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let start = Instant::now();
        let play = || {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                scenario(&fixture);
                fixture.assert_nothing_left(descriptors);
            }))
        };
        let mut result = play();
        if HAVE_SMP_KERNELS.contains(name) && result.as_ref().is_err_and(stood_still) {
            println!(
                "     stood still, which the emulator may be to blame for (docs/lab.md): again"
            );
            result = play();
        }
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({} ms)", start.elapsed().as_millis());
        passed += u32::from(result.is_ok());
        failed += u32::from(result.is_err());
    }
    conclude(passed, failed)
}

/// Tests whose guests' kernels have locks for several CPUs, at which an interrupt that the emulator
/// delivers twice may leave them waiting for ever: these get a second chance.
const HAVE_SMP_KERNELS: &[&str] = &[
    "every_cpu_comes_up",
    "every_cpu_of_a_saved_machine_goes_on",
    "a_guest_that_halts_is_told",
    "a_distributions_own_kernel_boots",
    "a_distributions_own_kernel_has_timers",
];

/// Whether a test gave up waiting.
fn stood_still(panic: &Box<dyn Any + Send>) -> bool {
    panic.downcast_ref::<String>().is_some_and(|message| message.starts_with(fixture::GIVEN_UP))
}

/// Prints the summary as the test harness of the standard library words it, and leaves.
fn conclude(passed: u32, failed: u32) -> ! {
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    exit(i32::from(failed > 0))
}
