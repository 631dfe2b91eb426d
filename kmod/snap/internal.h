/* SPDX-License-Identifier: GPL-2.0-only */
/* internal.h - what the files of this room share. */
#ifndef KEEL_SNAP_INTERNAL_H
#define KEEL_SNAP_INTERNAL_H

#include "keel.h"

/* A VM's state as KEEL_GET_STATE gives it. */
struct snap_state {
	void *data;
	size_t size;
};

/* That one takes, with its padding. */
static inline size_t snap_section_bytes(size_t length)
{
	return sizeof(struct keel_section) + ALIGN(length, 8);
}

/* The VM is stopped, for all of these.  0; -errno, and *bad says of which section, where it is about one. */
int snap_state_get(struct keel_vm *vm, struct snap_state *state, struct keel_section *bad);
/* Is it one for this VM?  Then set it: what fails leaves the VM with some of it. */
int snap_state_fits(struct keel_vm *vm, const struct snap_state *state, struct keel_section *bad);
int snap_state_apply(struct keel_vm *vm, const struct snap_state *state, bool time_goes_on, struct keel_section *bad);
void snap_state_free(struct snap_state *state);
/* The sections of the VM's set-up, at most so large; written to @at, which is zeroed, and counted.  slots_lock held. */
size_t snap_setup_size(struct keel_vm *vm);
void *snap_setup_get(struct keel_vm *vm, void *at, u32 *sections);
/* Stop it: as KEEL_GET_STATE and KEEL_SET_STATE have it; or with @forget, what vCPUs are in the midst of is no matter. */
int snap_stop(struct keel_vm *vm, bool forget, struct keel_section *bad);
/* The same for a vCPU's thread that rests: others that are in KVM_RUN are stopped there, and forget. */
int snap_stop_all(struct keel_vm *vm);

#endif
