/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmm.h - the virtual machine monitor of the examples: one vCPU, memory, a Linux kernel, a serial port that only sends,
 * and a place by which a program in the guest calls its host (guest.h).  No other devices.
 */
#ifndef EXAMPLES_VMM_H
#define EXAMPLES_VMM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "guest.h"

struct vmm {
	int node, vm, vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *memory;	/* from guest physical address 0 */
	size_t size;
	unsigned int slots;
	FILE *console;		/* what the guest's serial port sends; NULL: nowhere */
	void *state;		/* of vmm_freeze() */
	size_t state_size;
};

/* How vmm_run() came back */
enum vmm_exit {
	VMM_CALL,		/* the guest's program has written vmm_call() to CALL_GPA */
	VMM_INTERRUPTED,	/* a signal */
	VMM_SHUTDOWN,		/* the guest has ended: triple fault, or its kernel's reboot */
	VMM_ERROR,		/* keel has: said on standard error */
};

/* All of these but vmm_run() end the process with a message when they fail. */
void vmm_new(struct vmm *v, const char *node, size_t size);
void vmm_memory(struct vmm *v, uint64_t gpa, void *memory, size_t size);	/* that is there as well, from @gpa */
void vmm_linux(struct vmm *v, const char *kernel, const char *initrd, const char *command_line);

/* Run the guest until something is to be done about it.  A call is over only with the next call of vmm_run() or vmm_settle(). */
enum vmm_exit vmm_run(struct vmm *v);
uint32_t vmm_call(const struct vmm *v);
void vmm_settle(struct vmm *v);	/* complete the exit without going on: a snapshot wants that */

/*
 * A template for children of fork(2).  The parent has its guest where they shall begin, and calls vmm_freeze(); it does not run
 * it any more.  In a child vmm_thaw() makes a VM of the copy that it has of all that, with files of its own; it closes the parent's.
 */
void vmm_freeze(struct vmm *v);
void vmm_thaw(struct vmm *v, const char *node);

uint64_t vmm_now(void);		/* ns, monotonic */
void vmm_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
