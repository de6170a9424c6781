/* Leaves out the code in real mode below 1 MiB where nothing needs it: build.sh has it included before
 * arch/x86/kernel/x86_init.c and nothing else. Other CPUs start there, a machine wakes up there, and
 * `reboot=bios` leaves through it; a kernel without SMP in a machine without firmware does none of
 * that, and need neither copy it nor give those pages rights of their own (README.md has the price). */
#include <asm/realmode.h>
#include <asm/x86_init.h>

#ifndef CONFIG_SMP
#define init_real_mode x86_init_noop
#endif
