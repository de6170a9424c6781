//! The guest kernel's command line, every word of it with its reason.

use crate::{error::Error, layout};

/// What the guest is told on its command line.
///
/// - `console=ttyS0`: PID 1's standard output, and where a panic is told.
/// - `quiet loglevel=1`: nothing of a normal boot is printed, since each byte is an exit to the
///   monitor. Not 0, which would silence a panic too (`console_verbose`, include/linux/printk.h).
/// - `reboot=t panic=-1`: a panic restarts at once, by triple fault, which the monitor sees.
/// - `8250.nr_uarts=1`: only the port that exists is probed.
/// - `noreplace-smp`: with one CPU the kernel would take the LOCK prefixes out of its code, which
///   makes a private copy of 300 of its pages, at two faults each, that guests share otherwise.
/// - `retain_initrd`: freed initramfs pages are overwritten, each a fault and a private copy, too.
///   The guest does without their RAM; the host has it only once.
/// - `virtio_mmio.device=SIZE@ADDRESS:IRQ`: there is no bus to find the devices by
///   (Documentation/admin-guide/kernel-parameters.txt).
///
/// `extra` goes at the end, where it overrides.
///
/// # Errors
/// The line is longer than the kernel reads.
pub fn command_line(virtio_devices: usize, extra: &str) -> Result<String, Error> {
    let mut line = "console=ttyS0 quiet loglevel=1 reboot=t panic=-1 8250.nr_uarts=1 \
                    noreplace-smp retain_initrd"
        .to_owned();
    for (index, irq) in layout::VIRTIO_IRQS.iter().enumerate().take(virtio_devices) {
        let address = layout::virtio_address(index);
        line.push_str(&format!(" virtio_mmio.device=4K@{address:#x}:{irq}"));
    }
    if !extra.is_empty() {
        line.push(' ');
        line.push_str(extra);
    }
    match line.len() + 1 {
        length if length > layout::COMMAND_LINE_MAX => {
            Err(Error::CommandLine { length, most: layout::COMMAND_LINE_MAX })
        }
        _ => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_announced_in_order() {
        let line = command_line(2, "debug").unwrap();
        assert!(line.starts_with("console=ttyS0 "));
        assert!(line.ends_with(
            "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 debug"
        ));
        assert!(!command_line(0, "").unwrap().contains("virtio"));
    }

    #[test]
    fn a_line_the_kernel_would_cut_is_refused() {
        assert!(matches!(command_line(0, &"x".repeat(2048)), Err(Error::CommandLine { .. })));
    }
}
