/* Leaves out /sys/kernel/slab: build.sh has it included before mm/slub.c and
 * nothing else. In mm/slub.c the one initcall that this takes away is
 * slab_sysfs_init, which makes a directory of attribute files for each slab
 * cache (README.md has the price) and for which Kconfig has no switch.
 * slab_state then stays at UP, a state in which mm/slub.c skips sysfs by
 * itself; a destroyed cache leaves its descriptor behind. */
#include <linux/init.h>

#undef __initcall
#define __initcall(fn) static initcall_t fn##_unused __attribute__((unused)) = fn
#undef late_initcall
#define late_initcall(fn) __initcall(fn)
