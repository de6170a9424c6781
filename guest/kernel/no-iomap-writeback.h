/* Leaves out a pool of 32 bios of 256 pages each: build.sh has it included before
 * fs/iomap/buffered-io.c and nothing else. The one initcall that this takes away fills the pool, a
 * page of memory for each bio (README.md has the price), which only file systems that write through
 * iomap_writepages() take from: XFS, GFS2 and zonefs, none of which is configured. From 6.5 on block
 * devices may write that way, so there it stays. */
#include <linux/init.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#undef fs_initcall
#define fs_initcall(fn) static initcall_t fn##_unused __attribute__((unused)) = fn
#endif
