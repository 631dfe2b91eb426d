/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ioctl.h - ioctl tables.  A row names the ioctl, the lock it runs under and its handler; the argument is
 * copied by size and direction in the ioctl's number unless the row says ARG_RAW.
 */
#ifndef KEEL_IOCTL_H
#define KEEL_IOCTL_H

#include "keel.h"
#include <uapi/keel.h>

enum keel_ioctl_flags {
	LOCK_NONE,		/* the handler takes what it needs */
	LOCK_VM,		/* vm->lock */
	LOCK_VCPU,		/* vcpu->mutex, vCPU loaded, VM's tables readable (keel_vcpu_begin) */
	LOCK_RESET_VCPU,	/* the same, after the VM was reset as the argument says; the handler's is 0 */
	LOCK_MASK = 0xf,
	ARG_RAW = 0x10,		/* not copied: variable size, or a number */
	ARG_FILLED = 0x20,	/* the handler writes every byte of its answer; else it is cleared first */
};

struct keel_ioctl {
	u32 cmd;
	u8 lock, flags;		/* LOCK_*, ARG_* */
	u16 words;		/* the argument's, if it is copied word by word */
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

/* Of a vCPU's, where a copy of any size would take longer to begin than most arguments take word by word. */
#define KEEL_ARG_WORDS		64
#define IOCTL_WORDS(c)	\
	(_IOC_SIZE(c) % sizeof(u64) || _IOC_SIZE(c) > KEEL_ARG_WORDS * sizeof(u64) ? 0 : _IOC_SIZE(c) / sizeof(u64))
#define IOCTL_HOW(c, f)		\
	.cmd = c, .lock = (f) & LOCK_MASK, .flags = ((f) & ~LOCK_MASK) | (_IOC_DIR(c) == _IOC_NONE ? ARG_RAW : 0)

#define SYS_ENTRY(c, f, h)	{ IOCTL_HOW(c, f), .call = keel_call_sys, .sys = h }
#define VM_ENTRY(c, f, h)	{ IOCTL_HOW(c, f), .call = keel_call_vm, .vm = h }
#define VCPU_ENTRY(c, f, h)	{ IOCTL_HOW(c, f), .words = IOCTL_WORDS(c), .call = keel_call_vcpu, .vcpu = h }

/* A table with an index: VMMs make some of these calls for each exit. */
struct keel_ioctls {
	const struct keel_ioctl *rows, *end;
	const struct keel_ioctl *first[_IOC_NRMASK + 1];	/* that has this number; if none has, any */
};

#define KEEL_IOCTLS(name, table)	struct keel_ioctls name __ro_after_init = \
	{ .rows = table, .end = table + ARRAY_SIZE(table) }
void keel_ioctls_index(struct keel_ioctls *t);	/* at load */

/* NULL: there is none. */
const struct keel_ioctl *keel_ioctl_next(const struct keel_ioctls *t, const struct keel_ioctl *row, unsigned int cmd);
static inline const struct keel_ioctl *keel_ioctl_find(const struct keel_ioctls *t, unsigned int cmd)
{
	const struct keel_ioctl *row = t->first[_IOC_NR(cmd)];

	return likely(row->cmd == cmd) ? row : keel_ioctl_next(t, row, cmd);
}

/* Is nothing to be copied?  Then the handler can be called as it is. */
static inline bool keel_ioctl_is_raw(const struct keel_ioctl *row)
{
	return row->flags & ARG_RAW;
}

/* Bring the argument into the kernel, call, bring the answer back. */
long keel_ioctl_copied(const struct keel_ioctl *row, void *object, unsigned long arg);

int keel_check_extension(unsigned long cap);
struct file *keel_vm_file(void);	/* a new VM's, which it is the private_data of */
long keel_create_vm(unsigned long type);
/* vm->lock held.  The second: those in which it differs from a new one, how many; NULL: only count. */
long keel_vm_enable_cap(struct keel_vm *vm, u32 cap, u64 arg);
unsigned int keel_vm_caps(const struct keel_vm *vm, struct keel_setup_cap *caps, bool late);
VM_IOCTL(keel_set_boot_cpu_id);
extern struct keel_ioctls keel_vcpu_ioctls;
long keel_create_vcpu(struct keel_vm *vm, u32 id);
/* One that KVM_CREATE_VCPU gives the file of later.  vm->lock held. */
struct keel_vcpu *keel_vcpu_add(struct keel_vm *vm, u32 id);
void keel_vcpu_free(struct keel_vcpu *vcpu);
int keel_objects_init(void);	/* caches of vm.c and vcpu.c */
void keel_objects_exit(void);
void keel_vms_wait(void);	/* until the last VM's memory is freed */

#define KEEL_SYNC_REGS	(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

/* kvm_run, its data page for port I/O, and the coalesced ring, at KVM's fixed page offsets */
#define KEEL_VCPU_MMAP_PAGES	(KVM_COALESCED_MMIO_PAGE_OFFSET + 1)

#endif
