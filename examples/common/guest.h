/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * guest.h - what a program in the guest and its host on the outside agree on: where in the guest's physical memory things
 * are of which its kernel knows nothing, and which the program gets by mmap() of /dev/mem.
 */
#ifndef EXAMPLES_GUEST_H
#define EXAMPLES_GUEST_H

#include <stddef.h>
#include <stdint.h>

/*
 * There is no memory: a 32-bit store here is a call to the host.  OUT would do it as well, but not in user mode in the lab:
 * its QEMU wants the task's segment not busy to look at the I/O permission bitmap, and they all are.
 */
#define CALL_GPA	0xd0000000ULL

/* Memory that both see is here. */
#define SHARED_GPA	0x100000000ULL

/*
 * For the program in the guest, which is its init (guest.c).  guest_must() ends it, and the kernel with it, with a message on the
 * console.
 */
void guest_must(int ok, const char *what);
void *guest_memory(uint64_t gpa, size_t size);
void guest_call(uint32_t what);		/* the host; what it has changed in memory is seen after it */

#endif
