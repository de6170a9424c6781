/* Leaves alone an interrupt controller that nobody used before: build.sh has it included before
 * arch/x86/kernel/apic/apic.c and nothing else. At boot that file has every pin of the IOAPIC read,
 * masked, saved and restored, for what firmware or an earlier kernel may have left in it; each
 * access of its registers is an exit to the host, about 590 in all (README.md has the price). Here
 * nothing ran before this kernel: KVM's IOAPIC comes out of reset with every pin masked, and there
 * is neither interrupt remapping nor kexec. `noapic` works as ever. */
#include <linux/kernel.h>
#include <linux/irq.h>
#include <asm/io_apic.h>

#define save_ioapic_entries() 0
#define mask_ioapic_entries() do { } while (0)
#define restore_ioapic_entries() do { } while (0)
#define enable_IO_APIC() do { if (skip_ioapic_setup) (enable_IO_APIC)(); } while (0)
