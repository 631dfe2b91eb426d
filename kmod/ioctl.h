/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ioctl.h - ioctl tables.  A row names the ioctl, the lock it runs under and its handler; the argument is
 * copied by size and direction in the ioctl's number unless the row says ARG_RAW.
 */
#ifndef KEEL_IOCTL_H
#define KEEL_IOCTL_H

#include "keel.h"

enum keel_ioctl_flags {
	LOCK_NONE,		/* the handler takes what it needs */
	LOCK_VM,		/* vm->lock */
	LOCK_VCPU,		/* vcpu->mutex, vCPU loaded, VM's tables readable (keel_vcpu_begin) */
	LOCK_MASK = 0xf,
	ARG_RAW = 0x10,		/* not copied: variable size, or a number */
};

struct keel_ioctl {
	u32 cmd;
	u32 flags;
	long (*call)(const struct keel_ioctl *row, void *object, void *buf, unsigned long arg);
	union {
		SYS_IOCTL((*sys));
		VM_IOCTL((*vm));
		VCPU_IOCTL((*vcpu));
	};
};

static inline long keel_call_sys(const struct keel_ioctl *row, void *object, void *buf, unsigned long arg)
{
	return row->sys(buf, arg);
}

static inline long keel_call_vm(const struct keel_ioctl *row, void *object, void *buf, unsigned long arg)
{
	return row->vm(object, buf, arg);
}

static inline long keel_call_vcpu(const struct keel_ioctl *row, void *object, void *buf, unsigned long arg)
{
	return row->vcpu(object, buf, arg);
}

#define SYS_ENTRY(c, f, h)	{ .cmd = c, .flags = f, .call = keel_call_sys, .sys = h }
#define VM_ENTRY(c, f, h)	{ .cmd = c, .flags = f, .call = keel_call_vm, .vm = h }
#define VCPU_ENTRY(c, f, h)	{ .cmd = c, .flags = f, .call = keel_call_vcpu, .vcpu = h }

const struct keel_ioctl *keel_ioctl_find(const struct keel_ioctl *table, unsigned int n, unsigned int cmd);
long keel_ioctl_call(const struct keel_ioctl *row, void *object, unsigned long arg);

int keel_check_extension(u32 cap);
long keel_create_vm(unsigned long type);
long keel_create_vcpu(struct keel_vm *vm, u32 id);
void keel_vcpu_free(struct keel_vcpu *vcpu);
int keel_objects_init(void);	/* caches of vm.c and vcpu.c */
void keel_objects_exit(void);
void keel_vms_wait(void);	/* until the last VM's memory is freed */

#define KEEL_SYNC_REGS	(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

/* kvm_run, its data page for port I/O, and the coalesced ring, at KVM's fixed page offsets */
#define KEEL_VCPU_MMAP_PAGES	(KVM_COALESCED_MMIO_PAGE_OFFSET + 1)

#endif
