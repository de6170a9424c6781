/* Makes do with 64 of the 4,096 wait queues that DAX has for locked entries: build.sh has it included
 * before fs/dax.c and nothing else. A queue is chosen by hash and waiters look at what they are woken
 * for, so fewer queues are slower only where many threads wait at once; the others' pages, 23 of them,
 * are never touched (README.md has the price). */
#include <linux/hash.h>
#include <linux/wait.h>

#define DAX_QUEUE_BITS 6

#undef hash_long
#define hash_long(value, bits) hash_64(value, DAX_QUEUE_BITS)
#undef init_waitqueue_head
#define init_waitqueue_head(queue) \
	do { \
		static struct lock_class_key key; \
		if ((queue) < wait_table + (1 << DAX_QUEUE_BITS)) \
			__init_waitqueue_head(queue, #queue, &key); \
	} while (0)
