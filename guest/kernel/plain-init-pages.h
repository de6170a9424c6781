/* Gives the pages of boot code and data back as they are: build.sh has it included before
 * arch/x86/mm/init.c, and before the other files of that name, which it leaves alone. They would be
 * overwritten first, each a page of host memory and two faults, for bugs in drivers this kernel does
 * not have; and their mapping would be made writable, which it is, and not executable, which
 * mark_rodata_ro() does for everything from read-only data on in pages of 2 MiB, unless one was
 * split here before (README.md has the price). Under `rodata=off` all of the kernel stays
 * executable, these pages included. */
#include <linux/kernel.h>
#include <linux/poison.h>
#include <linux/set_memory.h>

#undef POISON_FREE_INITMEM
#define POISON_FREE_INITMEM -1

/* Kbuild tells each file its path; the compiler settles the comparison. */
#define ELSEWHERE __builtin_strcmp(KBUILD_MODFILE, "arch/x86/mm/init")
#define set_memory_nx(addr, numpages) ((void)(ELSEWHERE && (set_memory_nx)(addr, numpages)))
#define set_memory_rw(addr, numpages) ((void)(ELSEWHERE && (set_memory_rw)(addr, numpages)))
