// SPDX-License-Identifier: GPL-2.0-only
/*
 * memslot.c - which user memory stands where in the guest (KVM_SET_USER_MEMORY_REGION).
 *
 * One table for the whole life of the VM, changed in place: by guest page in a red-black tree, by user address in
 * an interval tree (the notifier's way in), by number in an xarray.  Writers hold slots_lock, have the VM paused and
 * take mmu.lock for write around the change; so readers need none of these three but only one of them, see keel.h,
 * and nobody waits for a grace period.  Everything that can fail is done before the pause, and what takes time, which
 * is what the change means for the tables the CPU walks, with vCPUs running, before it or after.
 */
#include <linux/nospec.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/processor.h>
#include "keel.h"

#define SLOT_FLAGS	(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)
#define SLOT_MAX_PAGES	((1ULL << 31) - 1)

bool keel_slot_id_valid(u32 id)
{
	return (u16)id < KEEL_MAX_MEMSLOTS && id >> 16 < KEEL_SPACES;
}

struct keel_slot *keel_slot_find(struct keel_vm *vm, unsigned int space, u64 gfn)
{
	struct rb_node *node = vm->slots.by_gfn[space].rb_node;

	while (node) {
		struct keel_slot *slot = rb_entry(node, struct keel_slot, gfn_node);

		if (gfn < slot->base_gfn)
			node = node->rb_left;
		else if (gfn - slot->base_gfn < slot->npages)
			return slot;
		else
			node = node->rb_right;
	}
	return NULL;
}

/* Does a slot of @space other than @self hold one of these pages? */
static bool slot_overlaps(struct keel_vm *vm, unsigned int space, const struct keel_slot *self, u64 gfn, u64 npages)
{
	struct rb_node *node = vm->slots.by_gfn[space].rb_node, *first = NULL;

	/* The first slot that ends behind gfn; those after it only start later. */
	while (node) {
		struct keel_slot *slot = rb_entry(node, struct keel_slot, gfn_node);

		if (slot->base_gfn + slot->npages > gfn) {
			first = node;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	if (first && rb_entry(first, struct keel_slot, gfn_node) == self)
		first = rb_next(first);
	return first && rb_entry(first, struct keel_slot, gfn_node)->base_gfn < gfn + npages;
}

static bool slot_before(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct keel_slot, gfn_node)->base_gfn < rb_entry(b, struct keel_slot, gfn_node)->base_gfn;
}

/*
 * What may not be read while it changes: VM paused, and mmu.lock against the notifier.  For how long is counted.
 */
static ktime_t slots_change_begin(struct keel_vm *vm)
{
	ktime_t start = ktime_get();

	lockdep_assert_held(&vm->slots_lock);
	keel_vm_pause(vm);
	return start;
}

static void slots_change_end(struct keel_vm *vm, ktime_t start)
{
	vm->slots.generation++;
	vm->stat.memslot_changes++;
	keel_vm_resume(vm);
	vm->stat.memslot_stood_ns += ktime_to_ns(ktime_sub(ktime_get(), start));
}

static void slot_link(struct keel_vm *vm, struct keel_slot *slot)
{
	write_lock(&vm->mmu.lock);
	rb_add(&slot->gfn_node, &vm->slots.by_gfn[keel_slot_space(slot)], slot_before);
	interval_tree_insert(&slot->hva_node, &vm->slots.by_hva);
	write_unlock(&vm->mmu.lock);
}

/* No guest page finds it any more; what is mapped of it the host still does. */
static void slot_hide(struct keel_vm *vm, struct keel_slot *slot)
{
	write_lock(&vm->mmu.lock);
	rb_erase(&slot->gfn_node, &vm->slots.by_gfn[keel_slot_space(slot)]);
	write_unlock(&vm->mmu.lock);
}

static void slot_unlink(struct keel_vm *vm, struct keel_slot *slot)
{
	write_lock(&vm->mmu.lock);
	interval_tree_remove(&slot->hva_node, &vm->slots.by_hva);
	write_unlock(&vm->mmu.lock);
}

/* With the first that is logged, and without the last, backends may have something to turn on or off. */
static void count_logged(struct keel_vm *vm, bool was, bool is)
{
	if (was == is)
		return;
	vm->slots.logged += is ? 1 : -1;
	if (vm->slots.logged == is)
		keel_request_all(vm, KEEL_REQ_INTERCEPTS, false);
}

/* VM paused. */
static void slot_set_dirty(struct keel_slot *slot, unsigned long *dirty)
{
	slot->dirty = dirty;
	slot->watched = slot->dirty || slot->kept;
}

void keel_slot_keep(struct keel_slot *slot, bool on)
{
	slot->kept = on;
	slot->watched = slot->dirty || slot->kept;
}

static void slot_free(struct keel_slot *slot)
{
	kvfree(slot->dirty);
	kfree(slot);
}

/* A ring lists the pages written, from the first on. */
static bool initially_dirty(struct keel_vm *vm)
{
	return vm->slots.dirty_log_caps & KVM_DIRTY_LOG_INITIALLY_SET && !vm->slots.ring_entries;
}

static unsigned long *dirty_alloc(struct keel_vm *vm, u64 npages)
{
	unsigned long *dirty = kvcalloc(BITS_TO_LONGS(npages), sizeof(long), GFP_KERNEL_ACCOUNT);

	if (dirty && initially_dirty(vm))
		bitmap_set(dirty, 0, npages);
	return dirty;
}

static int slot_create(struct keel_vm *vm, const struct kvm_userspace_memory_region *mem)
{
	struct keel_slot *slot;
	ktime_t start;
	int err;

	slot = kzalloc(sizeof(*slot), GFP_KERNEL_ACCOUNT);
	if (!slot)
		return -ENOMEM;
	slot->id = mem->slot;
	slot->flags = mem->flags;
	slot->base_gfn = mem->guest_phys_addr >> PAGE_SHIFT;
	slot->npages = mem->memory_size >> PAGE_SHIFT;
	slot->hva = mem->userspace_addr;
	slot->hva_node.start = slot->hva;
	slot->hva_node.last = slot->hva + mem->memory_size - 1;
	err = -ENOMEM;
	if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
		slot_set_dirty(slot, dirty_alloc(vm, slot->npages));
		if (!slot->dirty)
			goto free;
	}
	err = xa_insert(&vm->slots.by_id, slot->id, slot, GFP_KERNEL_ACCOUNT);
	if (err)
		goto free;

	/* Nothing was mapped there, and the absence of memory is not cached: no flush. */
	start = slots_change_begin(vm);
	slot_link(vm, slot);
	count_logged(vm, false, slot->dirty);
	vm->slots.count++;
	vm->slots.pages[keel_slot_space(slot)] += slot->npages;
	slots_change_end(vm, start);
	return 0;
free:
	slot_free(slot);
	return err;
}

static void slot_delete(struct keel_vm *vm, struct keel_slot *slot)
{
	ktime_t start = slots_change_begin(vm);
	LIST_HEAD(tables);

	slot_hide(vm, slot);
	count_logged(vm, slot->dirty, false);
	vm->slots.count--;
	vm->slots.pages[keel_slot_space(slot)] -= slot->npages;
	slots_change_end(vm, start);
	/* Until then vCPUs may go on with what is mapped, but nothing more will be. */
	mmu_zap_slot(vm, slot, &tables);
	mmu_zap_free(vm, &tables, true);
	slot_unlink(vm, slot);
	xa_erase(&vm->slots.by_id, slot->id);
	slot_free(slot);
}

/* Another place in the guest, another set of flags, or both. */
static int slot_change(struct keel_vm *vm, struct keel_slot *slot, u64 base_gfn, u32 flags)
{
	bool logged = slot->flags & KVM_MEM_LOG_DIRTY_PAGES, logging = flags & KVM_MEM_LOG_DIRTY_PAGES;
	bool moves = base_gfn != slot->base_gfn;
	unsigned long *dirty = slot->dirty;
	LIST_HEAD(tables);
	ktime_t start;

	if (logging && !logged) {
		dirty = dirty_alloc(vm, slot->npages);
		if (!dirty)
			return -ENOMEM;
	}

	/* Nothing may be mapped of it when it moves: all but what comes back meanwhile goes before. */
	if (moves) {
		mmu_zap_slot(vm, slot, &tables);
		mmu_zap_free(vm, &tables, true);
	}
	start = slots_change_begin(vm);
	if (moves) {
		mmu_zap_slot(vm, slot, &tables);
		slot_hide(vm, slot);
		slot_unlink(vm, slot);
		slot->base_gfn = base_gfn;
		slot_link(vm, slot);
	}
	slot->flags = flags;
	count_logged(vm, logged, logging);
	slot_set_dirty(slot, logging ? dirty : NULL);
	slots_change_end(vm, start);
	mmu_zap_free(vm, &tables, true);

	/*
	 * The log tells of what is written when the ioctl has returned.  Where all pages count as dirty to begin with,
	 * clearing them is what protects them.
	 */
	if (logging && !logged && !moves && !initially_dirty(vm))
		mmu_protect_slot(vm, slot);
	if (logged && !logging && !moves && !slot->kept)
		mmu_unprotect_slot(vm, slot);
	if (!logging)
		kvfree(dirty);
	return 0;
}

static int region_check(const struct kvm_userspace_memory_region *mem)
{
	u64 end_gfn = (mem->guest_phys_addr + mem->memory_size) >> PAGE_SHIFT;

	if (!keel_slot_id_valid(mem->slot))
		return -EINVAL;
	if (mem->flags & ~SLOT_FLAGS)
		return -EINVAL;
	if (!PAGE_ALIGNED(mem->memory_size) || !PAGE_ALIGNED(mem->guest_phys_addr) ||
	    !PAGE_ALIGNED(mem->userspace_addr))
		return -EINVAL;
	if (mem->userspace_addr != untagged_addr(mem->userspace_addr) ||
	    !access_ok((void __user *)mem->userspace_addr, mem->memory_size))
		return -EINVAL;
	if (mem->guest_phys_addr + mem->memory_size < mem->guest_phys_addr ||
	    mem->memory_size >> PAGE_SHIFT > SLOT_MAX_PAGES)
		return -EINVAL;
	if (mem->memory_size && end_gfn - 1 > mmu_max_gfn())
		return -EINVAL;
	return 0;
}

static int region_set(struct keel_vm *vm, const struct kvm_userspace_memory_region *mem)
{
	struct keel_slot *slot = xa_load(&vm->slots.by_id, mem->slot);
	u64 base_gfn = mem->guest_phys_addr >> PAGE_SHIFT;
	u64 npages = mem->memory_size >> PAGE_SHIFT;
	unsigned int space = array_index_nospec(mem->slot >> 16, KEEL_SPACES);

	/* What a snapshot has is of the memory there was. */
	if (keel_has_snapshot(vm) && (!slot || slot->base_gfn != base_gfn || slot->npages != npages))
		return -EBUSY;
	if (!npages) {
		if (!slot)
			return -EINVAL;
		slot_delete(vm, slot);
		return 0;
	}
	if (slot) {
		if (slot->hva != mem->userspace_addr || slot->npages != npages ||
		    (slot->flags ^ mem->flags) & KVM_MEM_READONLY)
			return -EINVAL;
		if (slot->base_gfn == base_gfn && slot->flags == mem->flags)
			return 0;
	} else if (vm->slots.pages[space] + npages > LONG_MAX >> PAGE_SHIFT) {
		return -EINVAL;
	}
	if (slot_overlaps(vm, space, slot, base_gfn, npages))
		return -EEXIST;
	if (slot)
		return slot_change(vm, slot, base_gfn, mem->flags);
	return slot_create(vm, mem);
}

/*
 * What the longer form has behind the fields of the shorter is for memory of a guest_memfd, whose flag is refused; without
 * it KVM does not look at that.
 */
VM_IOCTL(keel_set_memory_region)
{
	const struct kvm_userspace_memory_region *mem = buf;
	int err;

	BUILD_BUG_ON(offsetof(struct kvm_userspace_memory_region2, guest_memfd_offset) != sizeof(*mem));
	BUILD_BUG_ON(offsetof(struct kvm_userspace_memory_region2, userspace_addr) !=
		     offsetof(struct kvm_userspace_memory_region, userspace_addr));
	err = region_check(mem);
	if (err)
		return err;
	mutex_lock(&vm->slots_lock);
	err = region_set(vm, mem);
	mutex_unlock(&vm->slots_lock);
	return err;
}

u32 keel_memslots_list(struct keel_vm *vm, struct kvm_userspace_memory_region *regions)
{
	struct keel_slot *slot;
	unsigned long id;
	u32 n = 0;

	lockdep_assert_held(&vm->slots_lock);
	if (!regions)
		return vm->slots.count;
	xa_for_each(&vm->slots.by_id, id, slot) {
		regions[n++] = (struct kvm_userspace_memory_region){
			.slot = slot->id, .flags = slot->flags, .guest_phys_addr = slot->base_gfn << PAGE_SHIFT,
			.memory_size = slot->npages << PAGE_SHIFT, .userspace_addr = slot->hva,
		};
	}
	return n;
}

void keel_memslots_init(struct keel_vm *vm)
{
	memset(vm->slots.by_gfn, 0, sizeof(vm->slots.by_gfn));
	vm->slots.by_hva = RB_ROOT_CACHED;
	xa_init_flags(&vm->slots.by_id, XA_FLAGS_ACCOUNT);
	vm->slots.generation = 1;	/* a vCPU's zero means it knows no slot */
}

void keel_memslots_free(struct keel_vm *vm)
{
	struct keel_slot *slot;
	unsigned long id;

	/* The notifier may still look at the tree until it is put. */
	write_lock(&vm->mmu.lock);
	memset(vm->slots.by_gfn, 0, sizeof(vm->slots.by_gfn));
	vm->slots.by_hva = RB_ROOT_CACHED;
	write_unlock(&vm->mmu.lock);
	xa_for_each(&vm->slots.by_id, id, slot)
		slot_free(slot);
	xa_destroy(&vm->slots.by_id);
}
