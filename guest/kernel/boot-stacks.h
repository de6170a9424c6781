/* Leaves the stacks of threads that are made during boot as they are: build.sh has it included before
 * kernel/fork.c and nothing else. The kernel clears all four pages of a new stack, of which a thread
 * that sleeps all its life uses one (README.md has the price), so that nothing of another process can
 * leak through a variable nobody set. Before the kernel is up there is no process that anything could
 * be of; from then on stacks are cleared as ever. */
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/thread_info.h>

#undef THREADINFO_GFP
#define THREADINFO_GFP (GFP_KERNEL_ACCOUNT | (system_state < SYSTEM_RUNNING ? 0 : __GFP_ZERO))
