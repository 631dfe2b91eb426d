/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * snap.h - a whole VM taken and put back (uapi/keel.h): its state, in one piece (state.c), how it is set up, and VMs made
 * of that (setup.c), and snapshots of it and of its memory (snapshot.c).
 */
#ifndef KEEL_SNAP_H
#define KEEL_SNAP_H

struct keel_snaps;
struct keel_slot;
struct seq_file;

VM_IOCTL(keel_get_info);	/* also of no VM */
SYS_IOCTL(keel_create_vm_from);
VM_IOCTL(keel_get_state);
VM_IOCTL(keel_set_state);
VM_IOCTL(keel_snapshot);
VM_IOCTL(keel_reset);
VM_IOCTL(keel_drop);
VM_IOCTL(keel_mark_dirty);
VM_IOCTL(keel_allow_reset);

/* KEEL_RESET_RUN, on the way to KVM_RUN: 0, or why it does not come to that. */
long keel_reset_first(struct keel_vm *vm, unsigned long uarg);
/* May guests ask for it by hypercall?  Then one does, in the slow loop: KEEL_RESUME, or KVM_RUN's -errno, nothing done. */
bool keel_reset_allowed(struct keel_vm *vm);
int keel_guest_reset(struct keel_vcpu *vcpu);

/* Does the VM have a snapshot?  slots_lock held. */
bool keel_has_snapshot(struct keel_vm *vm);
/*
 * The sink of mem/dirty.c, of a slot whose pages are kept: before a write to @gfn.  0; -EAGAIN, if it may not sleep and would
 * have to.  Other than in keel_keep_fault() want of memory is the snapshot's loss, not the writer's.
 */
int keel_keep(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, bool may_sleep);
/* The same for a guest's write, on its way to being allowed: 0, -ENOMEM, -EFAULT, -EINTR.  May sleep. */
int keel_keep_fault(struct keel_vm *vm, struct keel_slot *slot, u64 gfn);
void keel_snaps_free(struct keel_vm *vm);
void keel_snaps_show(struct seq_file *m, struct keel_vm *vm);	/* a line each; keel_hw_lock held */
int keel_snaps_init(void);	/* module load, unload */
void keel_snaps_exit(void);

#endif
