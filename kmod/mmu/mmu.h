/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mmu.h - translation of guest addresses: the guest's own page tables (walk.c), the two-dimensional tables
 * the CPU walks (tdp.c, pte.h), what stands for both where it cannot (shadow.c), and the host memory manager's
 * notifications (notifier.c).
 */
#ifndef KEEL_MMU_H
#define KEEL_MMU_H

#include <linux/interval_tree.h>
#include <linux/mmu_notifier.h>
#include "walk.h"

/*
 * A view: a set of tables by which the CPU finds a space's memory, with rights of its own.  Whoever takes something
 * from a slot does so in all views of the slot's space; a vCPU looks through one.
 */
struct mmu_view {
	u64 *root;		/* NULL: none yet, or no more */
	unsigned int space;	/* whose slots it shows */
	u64 large_lacks;	/* rights (struct mmu_format) that leaves above level 1 never grant here */
};

#define MMU_VIEWS	KEEL_SPACES	/* one each: what a vCPU sees, and what it sees in system management mode */

struct keel_mmu {
	rwlock_t lock;			/* read: map with cmpxchg; write: unmap, protect, free */
	struct mmu_notifier mn;
	spinlock_t notifier_lock;	/* for changes of these four, see notifier.c */
	/* Of invalidations by the host: how many of those that concerned a slot have ended, how many of all run... */
	unsigned long notifier_seq;
	long notifier_count;
	unsigned long notifier_start, notifier_end;	/* ...and what user addresses they cover between them */
	struct mmu_view view[MMU_VIEWS];
	unsigned long table_limit;	/* the VMM's choice of how many tables there may be, 0: none made */
	u64 shrink_gfn;			/* where the next look for tables to give back begins... */
	unsigned int shrink_view;	/* ...and in which view */
};

#define MMU_CACHE_PAGES	4	/* what one walk takes at most */
#define MMU_MEMOS	8
#define MMU_NO_GFN	(~0ULL)

struct keel_vcpu_mmu {
	struct mmu_view *view;		/* that it looks through */
	/* The slots looked up last, latest first (guestmem.c); valid while slots_gen is the table's. */
	struct keel_slot *slots[2];
	u64 slots_gen;
	/* Guest walks done before (translate.c). */
	struct mmu_memo {
		struct mmu_walk_env env;
		u64 page, gpa;			/* of the linear page, and of the page it led to */
		u64 slots_gen;
		u32 access;
		unsigned int levels;		/* 0: holds nothing */
		u64 __user *at[MMU_MAX_LEVELS];	/* the entries it went through... */
		u64 entry[MMU_MAX_LEVELS];	/* ...and what they were */
	} memo[MMU_MEMOS];
	struct mmu_shadow *shadow;	/* NULL with two-dimensional paging */
	u64 fresh_gfn;			/* or MMU_NO_GFN: behind the page that last had to be brought in by the slow loop */
	/* Zeroed pages for tables: taken where allocating is not possible, refilled where it is. */
	unsigned int nr_cached;
	void *cache[MMU_CACHE_PAGES];
};

enum mmu_result {
	MMU_FIXED,	/* enter the guest again */
	MMU_MMIO,	/* no memory there, or a write to a read-only slot: emulate */
	MMU_SLOW,	/* needs to sleep; only in the fast loop */
	MMU_GUEST,	/* shadow paging: the guest's own fault */
	MMU_AGAIN,	/* the same; the vCPU's state, and slots, may be others than they were at the fault */
};

int mmu_init(void);			/* module load/unload: caches */
void mmu_exit(void);
int mmu_vm_init(struct keel_vm *vm);	/* registers the notifier for vm->mm */
/* No vCPU runs again: unmap everything, free tables.  The notifier still runs, and finds nothing. */
void mmu_vm_release(struct keel_vm *vm);
/* Put the notifier; its free callback calls keel_vm_free(), later and with bottom halves off. */
void mmu_vm_put(struct keel_vm *vm);
u64 mmu_max_gfn(void);			/* last page a slot can hold */
int mmu_vcpu_init(struct keel_vcpu *vcpu);
void mmu_vcpu_destroy(struct keel_vcpu *vcpu);

/* Get a root and have the backend load it; run on KEEL_REQ_MMU_RELOAD and before the first entry.  May sleep. */
int mmu_load(struct keel_vcpu *vcpu);
/* The vCPU looks into another address space from here on: what it knew of memory it forgets. */
void mmu_space_changed(struct keel_vcpu *vcpu);
/* A nested page fault at @gpa.  enum mmu_result, or -errno for KVM_RUN (-EFAULT: user memory is not there). */
int mmu_fault(struct keel_vcpu *vcpu, u64 gpa, u32 access);

/*
 * Shadow paging (shadow.c), where the CPU has no two-dimensional: a page fault of the guest at linear @gva with the
 * CPU's error code.  As mmu_fault(), with where the access goes in *gpa and *access for MMU_MMIO; MMU_GUEST: *fault.
 */
int mmu_shadow_fault(struct keel_vcpu *vcpu, u64 gva, u32 error, u64 *gpa, u32 *access, struct emul_fault *fault);
void mmu_shadow_drop(struct keel_vcpu *vcpu);			/* forget all */
void mmu_shadow_invlpg(struct keel_vcpu *vcpu, u64 gva);	/* forget one page; the CPU's TLB is flushed, too */
/* The control registers for the CPU to run the guest with; a backend adds what is its own. */
struct mmu_shadow_crs {
	u64 cr0, cr4, efer;
};
struct mmu_shadow_crs mmu_shadow_crs(struct keel_vcpu *vcpu);
int mmu_shadow_init(struct keel_vcpu *vcpu);
void mmu_shadow_destroy(struct keel_vcpu *vcpu);

/* The registers a guest walk depends on, as they are. */
void mmu_walk_env(struct keel_vcpu *vcpu, struct mmu_walk_env *env);
/* Linear to physical through the guest's page tables, rights checked, accessed/dirty bits set.
 * 0; 1: *fault says which exception; -EAGAIN in the fast loop. */
int mmu_gva_to_gpa(struct keel_vcpu *vcpu, u64 gva, u32 access, u64 *gpa, struct emul_fault *fault);
/* PAE: the four PDPTEs at @cr3 into vcpu->pdptrs, if they are such that the CPU would load them.  May sleep. */
bool mmu_load_pdptrs(struct keel_vcpu *vcpu, u64 cr3);

/*
 * Slot changes; called with slots_lock, vCPUs may run.  Unmap what a slot maps; make the next write to each of its
 * pages known, in a bounded number of steps however large it is; nobody needs to know any more.  TLBs are flushed.
 * The tables that led there are put to @tables: as many as there were, and freed when the caller has the time.
 */
void mmu_zap_slot(struct keel_vm *vm, struct keel_slot *slot, struct list_head *tables);
void mmu_zap_free(struct keel_vm *vm, struct list_head *tables, bool may_sleep);
void mmu_protect_slot(struct keel_vm *vm, struct keel_slot *slot);
void mmu_unprotect_slot(struct keel_vm *vm, struct keel_slot *slot);
/*
 * Make the next write to the pages of @mask (bit i: gfn + i) known: true if one would have gone by.  Caller holds lock
 * for write, flushes.
 */
bool mmu_protect_pages(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, unsigned long mask);

/*
 * Where the last leaf was found, and its neighbours are: for pages that are looked at one after the other.  Zeroed at the
 * start, and again whenever lock was let go.
 */
struct mmu_near {
	const struct mmu_view *view;
	u64 first;			/* gfn of table[0] */
	u64 *table;			/* those above grant writes */
};

#define MMU_TAKE_LEAVE		BIT(0)	/* the right; what goes is the CPU's mark of writes (struct mmu_format, dirty) */
#define MMU_TAKE_WRITTEN	BIT(1)	/* only if it has that mark; else it is left as it is, and the answer this: */
#define MMU_NOT_WRITTEN		((void *)1)

/*
 * A page that is to be what it was, mapped for the guest to write it: where it is, for the kernel, as long as the caller
 * holds lock for write.  NULL: it is not mapped that way, or no ordinary memory.  It loses the right to be written, or what
 * @how says.  Caller flushes.
 */
void *mmu_take_page(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, unsigned int how, struct mmu_near *near);
/* May a page left writable have been written since?  It may, if it is not mapped that way any more.  lock held for write. */
bool mmu_page_written(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, struct mmu_near *near);
/* Does the CPU mark the pages it accesses in the tables that it walks for guests? */
bool mmu_tells_accessed(void);
bool mmu_executes_small(void);		/* do guests execute from small pages only? */
VM_IOCTL(mmu_working_set);		/* KEEL_WORKING_SET */
VCPU_IOCTL(mmu_pre_fault);		/* KVM_PRE_FAULT_MEMORY */
VM_IOCTL(mmu_set_nr_pages);		/* KVM_SET_NR_MMU_PAGES */
VM_IOCTL(mmu_get_nr_pages);
VCPU_IOCTL(mmu_translate);		/* KVM_TRANSLATE */

#endif
