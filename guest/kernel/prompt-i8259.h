/* Does not wait for an interrupt controller that has nothing to settle: build.sh has it included
 * before arch/x86/kernel/i8259.c and nothing else. That file waits 100 microseconds after it has set
 * up the 8259A, and 2 after each word before, for chips of old (README.md has the price); KVM's has
 * taken a word when the `out` is done. */
#include <linux/delay.h>

#undef udelay
#define udelay(microseconds) do { } while (0)
