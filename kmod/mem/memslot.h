/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memslot.h - guest physical memory: which user memory stands where (memslot.c), access to it (guestmem.c)
 * and which pages were written (dirty.c).  Who may look at slots: see keel.h.
 */
#ifndef KEEL_MEMSLOT_H
#define KEEL_MEMSLOT_H

#include <linux/interval_tree.h>
#include <linux/nospec.h>
#include <linux/rbtree.h>

/*
 * Two address spaces (KVM_CAP_MULTI_ADDRESS_SPACE): what a vCPU sees, and what it sees in system management mode.  A
 * slot's number has its space in the upper half.
 */
#define KEEL_SPACES	2

struct keel_slot {
	struct rb_node gfn_node;		/* by base_gfn, slots never overlap */
	struct interval_tree_node hva_node;	/* by host virtual address, may overlap */
	u64 base_gfn;
	u64 npages;
	unsigned long hva;
	u32 flags;				/* KVM_MEM_* */
	u32 id;
	unsigned long *dirty;			/* one bit a page, with KVM_MEM_LOG_DIRTY_PAGES */
	bool kept;				/* a snapshot wants to have pages as they were */
	bool watched;				/* somebody wants to know of the first write to each: one of the two */
};

struct keel_memslots {
	struct rb_root by_gfn[KEEL_SPACES];
	struct rb_root_cached by_hva;
	struct xarray by_id;
	unsigned int count;
	unsigned int logged;		/* those with KVM_MEM_LOG_DIRTY_PAGES */
	u64 pages[KEEL_SPACES];		/* of all slots; the second is another view of much the same memory */
	u64 generation;			/* changes with every change of the table */
	u64 dirty_log_caps;		/* KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET */
	u32 ring_entries;		/* of each vCPU's dirty ring; 0: the VMM reads bitmaps */
};

/*
 * A vCPU's list of pages written, shared with userspace.  Only the vCPU's thread adds, only who holds slots_lock takes
 * back; the indices run on and are cut to the size when used.
 */
struct keel_dirty_ring {
	struct kvm_dirty_gfn *entries;
	u32 dirty_index;		/* the next to be filled */
	u32 reset_index;		/* the first that userspace has not given back */
};

/* @gfn is one of @slot's, also for a CPU that guesses: the guest sees nothing of the VMM's memory behind it. */
static inline unsigned long keel_slot_hva(const struct keel_slot *slot, u64 gfn)
{
	return slot->hva + (array_index_nospec(gfn - slot->base_gfn, slot->npages) << PAGE_SHIFT);
}

static inline unsigned int keel_slot_space(const struct keel_slot *slot)
{
	return slot->id >> 16;
}

/* A slot's number as the ABI has it: could there be such a one? */
bool keel_slot_id_valid(u32 id);
/* Nodes of slots with memory at the user's addresses [@start, @end).  mmu.lock or slots_lock held. */
#define keel_for_each_slot_at(node, vm, start, end)							\
	for (node = interval_tree_iter_first(&(vm)->slots.by_hva, start, (end) - 1); node;	\
	     node = interval_tree_iter_next(node, start, (end) - 1))

struct keel_slot *keel_slot_find(struct keel_vm *vm, unsigned int space, u64 gfn);	/* NULL: no memory there */
struct keel_slot *keel_vcpu_slot(struct keel_vcpu *vcpu, u64 gfn);	/* the same, remembers the last ones */

/* Whose memory that is, by the VMM's address; mostly it is the slot that it was before.  slots_lock held. */
static inline struct keel_slot *keel_slot_of_hva(struct keel_memslots *slots, unsigned long hva, struct keel_slot *last)
{
	struct interval_tree_node *node;

	if (likely(last && hva - last->hva < last->npages << PAGE_SHIFT))
		return last;
	node = interval_tree_iter_first(&slots->by_hva, hva, hva);
	return node ? container_of(node, struct keel_slot, hva_node) : NULL;
}

/* A snapshot begins or ends to keep what is in it.  VM paused, slots_lock held. */
void keel_slot_keep(struct keel_slot *slot, bool on);
void keel_memslots_init(struct keel_vm *vm);
void keel_memslots_free(struct keel_vm *vm);
VM_IOCTL(keel_set_memory_region);	/* KVM_SET_USER_MEMORY_REGION, and the longer form of it */
/* How many there are, and which; NULL: only count.  slots_lock held. */
u32 keel_memslots_list(struct keel_vm *vm, struct kvm_userspace_memory_region *regions);
VM_IOCTL(keel_get_dirty_log);
VM_IOCTL(keel_clear_dirty_log);
VM_IOCTL(keel_reset_dirty_rings);
long keel_enable_dirty_log_caps(struct keel_vm *vm, u64 caps);
long keel_enable_dirty_ring(struct keel_vm *vm, u64 bytes);

/* Does somebody want to know of the first write to each page? */
static inline bool keel_slot_watched(const struct keel_slot *slot)
{
	return slot->watched;
}

/*
 * The hook for that: before this vCPU may write the page, or keel writes it for the vCPU.  Its thread, any loop.  0, or
 * the write is not to be made: -EAGAIN, if that takes sleeping, in the fast loop or with a lock held; -errno.
 */
int keel_tell_sinks(struct keel_vcpu *vcpu, struct keel_slot *slot, u64 gfn, bool locked);
static __always_inline int keel_first_write(struct keel_vcpu *vcpu, struct keel_slot *slot, u64 gfn)
{
	return unlikely(keel_slot_watched(slot)) ? keel_tell_sinks(vcpu, slot, gfn, false) : 0;
}

static __always_inline int keel_first_write_locked(struct keel_vcpu *vcpu, struct keel_slot *slot, u64 gfn)
{
	return unlikely(keel_slot_watched(slot)) ? keel_tell_sinks(vcpu, slot, gfn, true) : 0;
}

/*
 * A page of a logged slot was put back by a reset; before that, how many there is room for in the rings.  VM stopped,
 * slots_lock held.
 */
void keel_log_restored(struct keel_vm *vm, struct keel_slot *slot, u64 gfn);
unsigned long keel_rings_room(struct keel_vm *vm);

/* A vCPU's dirty ring; all of them are content with a VM that has none. */
#define KEEL_DIRTY_RING_MAX	65536
int keel_ring_init(struct keel_vcpu *vcpu);
void keel_ring_free(struct keel_vcpu *vcpu);
unsigned long keel_ring_pages(struct keel_vm *vm);
struct page *keel_ring_page(struct keel_vcpu *vcpu, unsigned long index);	/* NULL: behind its end */
bool keel_ring_full(struct keel_vcpu *vcpu);	/* too full to enter the guest once more */

/*
 * Guest physical memory.  0; -EFAULT: no slot, read-only slot (writes), or the user memory behind it is gone;
 * -EAGAIN: in the fast loop, and the memory is not at hand.  May cross pages and slots.
 */
int keel_vcpu_read(struct keel_vcpu *vcpu, u64 gpa, void *buf, unsigned int len);
int keel_vcpu_write(struct keel_vcpu *vcpu, u64 gpa, const void *buf, unsigned int len);
/* Compare and exchange 1, 2, 4 or 8 bytes inside a page: 0 swapped, 1 not equal, else as above. */
int keel_vcpu_cmpxchg(struct keel_vcpu *vcpu, u64 gpa, void *old, const void *new, unsigned int len);

#endif
