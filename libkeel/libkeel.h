/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libkeel.h - the calls of <keel.h> as functions, and nothing else: no virtual machine monitor is in here.
 *
 * What a call does, and each errno's meaning, stands in <keel.h> with the ioctl that it makes.  @node is an open
 * KEEL_NODE, @vm what KVM_CREATE_VM on it gave.  All of them answer 0, or a file descriptor, or an errno as a negative
 * number: errno itself means nothing.  Where that is negative, nothing was written through a pointer but @bad, and by
 * keel_reset_run() what it says.  No call keeps anything, and all may be made by several threads at the same time.
 * Manual: keel_snapshot(3).
 */
#ifndef LIBKEEL_H
#define LIBKEEL_H

#include <stddef.h>
#include <stdint.h>
#include <keel.h>

#ifdef __cplusplus
extern "C" {
#endif

/* KEEL_NODE, or @path if that is not NULL; closed by exec.  It is a node of KVM's interface as well. */
int keel_open(const char *path);

/* KEEL_GET_INFO, of a node or a VM.  ENOTTY: no keel, but perhaps another KVM. */
int keel_info(int fd, struct keel_info *info);

/* KEEL_BESIDE_KVM: hand over @kvm_vm, a VM of the kernel's own KVM; -1 takes it back. */
int keel_beside(int node, int kvm_vm);

/*
 * KEEL_GET_STATE, into memory of malloc()'s that is as large as it has to be: free(*state).
 * KEEL_SET_STATE, KEEL_CREATE_VM_FROM, which answers a file descriptor.  @flags of all three as there.
 * @bad, if not NULL: the section that an error is about, where it is about one; all zero else.
 */
int keel_get_state(int vm, uint32_t flags, void **state, size_t *size, struct keel_section *bad);
int keel_set_state(int vm, const void *state, size_t size, uint32_t flags, struct keel_section *bad);
int keel_create_vm_from(int node, const void *state, size_t size, uint32_t flags, struct keel_section *bad);

/* KEEL_SNAPSHOT, KEEL_RESET, KEEL_DROP.  @pages, how many were put back, may be NULL. */
int keel_snapshot(int vm, uint32_t flags, uint32_t *id);
int keel_reset(int vm, uint32_t id, uint32_t flags, uint64_t *pages);
int keel_drop(int vm, uint32_t id);

/*
 * KEEL_RESET_RUN: keel_reset() and then KVM_RUN of @vcpu.  @id is 0 from the moment when the VM was reset, so that a call which a
 * signal ended can be made again; as long as it is not, the error is the reset's.
 */
int keel_reset_run(int vcpu, uint32_t *id, uint32_t flags, uint64_t *pages);

/* KEEL_ALLOW_RESET: the guest may ask for that by itself, of snapshot @id; 0: no more. */
int keel_allow_reset(int vm, uint32_t id, uint32_t flags);

/*
 * KEEL_WORKING_SET: what was accessed of the @size bytes from @gpa on, as at most @room ranges in @ranges; answers how many.
 * @gpa and @size say then what has not been looked at.
 */
int keel_working_set(int vm, uint64_t *gpa, uint64_t *size, uint32_t space, uint32_t flags,
		     struct keel_gpa_range *ranges, uint32_t room);

/* KEEL_MARK_DIRTY: @size bytes at guest physical address @gpa of address space @space are about to be written. */
int keel_mark_dirty(int vm, uint64_t gpa, uint64_t size, uint32_t space);

#ifdef __cplusplus
}
#endif

#endif
