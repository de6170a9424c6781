/* Makes the first page table of the vmalloc area beforehand and not all 64: build.sh has it included
 * before arch/x86/mm/init_64.c and nothing else. Every address space copies the top level of these
 * tables once, when it is made, so what they point to must be there by then (README.md has the price
 * of 64 pages). The area is handed out from its lowest address on, except to per-CPU variables of an
 * SMP kernel, and one table maps 512 GiB of it, eight times the memory a guest can have. */
#include <linux/pgtable.h>

#if !defined(CONFIG_SMP) && !defined(CONFIG_X86_5LEVEL)
#undef VMEMORY_END
#define VMEMORY_END VMALLOC_START
#endif
