// SPDX-License-Identifier: GPL-2.0-only
/*
 * notifier.c - the host's memory manager takes pages back: whatever it unmaps or moves in the user's page tables leaves
 * the guest's first.  What it only write-protects stays there to be read: fork(2) does that to all memory of a VMM's, and
 * a guest that reads is not to pay for it page by page.
 *
 * A fault looks a page up in the user's tables without our lock.  That it may map what it found it knows from
 * notifier_seq, which it read before, and which moves with every invalidation of a slot's memory that ends; and from
 * the range of those that still run.  It checks them with mmu.lock held for read.
 *
 * Most of what a process does to its memory concerns no slot, and then mmu.lock is held for write by nobody: faults go
 * on.  An invalidation is counted before slots are looked for.  A slot that is not found is linked later, with mmu.lock
 * held for write, so all faults in it see the count; in one that is found, faults that did not see it are over before
 * its pages are unmapped.  At the end the sequence moves before the count does, and faults look at the count first.
 * Slots are found through the interval tree, which mmu.lock guards.
 */
#include "ops.h"
#include "tdp.h"

static struct keel_vm *notifier_vm(struct mmu_notifier *mn)
{
	return container_of(mn, struct keel_vm, mmu.mn);
}

/* The guest pages of a slot whose user addresses lie in [*start, *end), at least in part, and in which space they are. */
static unsigned int slot_gfns(const struct interval_tree_node *node, unsigned long start, unsigned long end, u64 *first,
			      u64 *behind)
{
	const struct keel_slot *slot = container_of(node, struct keel_slot, hva_node);

	start = max(start, node->start);
	end = min(end, node->last + 1);
	*first = slot->base_gfn + ((start - slot->hva) >> PAGE_SHIFT);
	*behind = slot->base_gfn + ((end - slot->hva + PAGE_SIZE - 1) >> PAGE_SHIFT);
	return keel_slot_space(slot);
}

/* What views have of these guest pages, [first, behind) of each slot.  lock held. */
#define for_each_view_in(view, node, vm, start, end, first, behind)	\
	keel_for_each_slot_at(node, vm, start, end)				\
		mmu_for_each_view_of(view, vm, slot_gfns(node, start, end, &(first), &(behind)))

/* lock held for write. */
static void zap_user_range(struct keel_vm *vm, unsigned long start, unsigned long end, struct mmu_zap *zap)
{
	struct interval_tree_node *node;
	struct mmu_view *view;
	u64 first, behind;

	for_each_view_in(view, node, vm, start, end, first, behind)
		mmu_zap_range(vm, view, first, behind, zap);
}

/* True if TLBs have to hear of it.  lock held for write. */
static bool protect_user_range(struct keel_vm *vm, unsigned long start, unsigned long end)
{
	struct interval_tree_node *node;
	struct mmu_view *view;
	u64 first, behind;
	bool found = false;

	for_each_view_in(view, node, vm, start, end, first, behind)
		found |= mmu_host_protects(vm, view, first, behind);
	return found;
}

/* Is there a slot with memory in the range?  lock not held. */
static bool notifier_concerns(struct keel_vm *vm, const struct mmu_notifier_range *range)
{
	bool found;

	read_lock(&vm->mmu.lock);
	found = interval_tree_iter_first(&vm->slots.by_hva, range->start, range->end - 1);
	read_unlock(&vm->mmu.lock);
	return found;
}

static int notifier_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct keel_vm *vm = notifier_vm(mn);
	struct keel_mmu *mmu = &vm->mmu;
	struct mmu_zap zap = MMU_ZAP_INIT(zap);

	spin_lock(&mmu->notifier_lock);
	if (mmu->notifier_count) {
		/* It only gets wider: whoever reads the two one after the other has at least what ran before. */
		WRITE_ONCE(mmu->notifier_start, min(mmu->notifier_start, range->start));
		WRITE_ONCE(mmu->notifier_end, max(mmu->notifier_end, range->end));
	} else {
		WRITE_ONCE(mmu->notifier_start, range->start);
		WRITE_ONCE(mmu->notifier_end, range->end);
	}
	smp_store_release(&mmu->notifier_count, mmu->notifier_count + 1);	/* with mmu_notifier_runs() */
	spin_unlock(&mmu->notifier_lock);
	if (!notifier_concerns(vm, range))
		return 0;

	write_lock(&mmu->lock);
	/* The pages stay what they are, and where. */
	if (range->event == MMU_NOTIFY_PROTECTION_PAGE)
		zap.flush = protect_user_range(vm, range->start, range->end);
	else
		zap_user_range(vm, range->start, range->end, &zap);
	if (zap.flush)
		vm->stat.notifier_invalidations++;
	mmu_zap_flush(vm, &zap);
	write_unlock(&mmu->lock);
	mmu_zap_free(vm, &zap.tables, mmu_notifier_range_blockable(range));
	return 0;
}

static void notifier_moves(struct keel_mmu *mmu)
{
	WRITE_ONCE(mmu->notifier_seq, mmu->notifier_seq + 1);
}

static void notifier_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct keel_vm *vm = notifier_vm(mn);
	struct keel_mmu *mmu = &vm->mmu;
	/* What lies in no slot concerns no fault; faults in a slot made from here on find what the host has done. */
	bool concerns = notifier_concerns(vm, range);

	spin_lock(&mmu->notifier_lock);
	if (concerns)
		notifier_moves(mmu);
	WARN_ON_ONCE(mmu->notifier_count <= 0);
	smp_store_release(&mmu->notifier_count, mmu->notifier_count - 1);	/* with mmu_notifier_runs() */
	spin_unlock(&mmu->notifier_lock);
}

/*
 * Without accessed bits what is mapped counts as used; unmapped, it is known to be used when the guest faults on it.  That
 * takes a flush in any case: an invalidation to come finds nothing to flush for.  The caller may hold spinlocks.
 */
static bool notifier_age_by_fault(struct keel_vm *vm, unsigned long start, unsigned long end)
{
	struct mmu_zap zap = MMU_ZAP_INIT(zap);
	bool young;

	write_lock(&vm->mmu.lock);
	zap_user_range(vm, start, end, &zap);
	young = zap.flush;
	mmu_zap_flush(vm, &zap);
	write_unlock(&vm->mmu.lock);
	mmu_zap_free(vm, &zap.tables, false);
	return young;
}

/* Accessed bits are taken with lock held for read: faults and the CPU may go on meanwhile. */
static bool notifier_age(struct mmu_notifier *mn, unsigned long start, unsigned long end, bool clear, bool flush)
{
	struct keel_vm *vm = notifier_vm(mn);
	struct interval_tree_node *node;
	struct mmu_view *view;
	u64 first, behind;
	bool young = false;

	if (clear && !keel_hw.mmu_fmt->accessed)
		return notifier_age_by_fault(vm, start, end);
	read_lock(&vm->mmu.lock);
	for_each_view_in(view, node, vm, start, end, first, behind)
		young |= mmu_age_range(view, first, behind, clear);
	if (young && flush)
		keel_flush_tlbs(vm);
	read_unlock(&vm->mmu.lock);
	return young;
}

static keel_young_t notifier_clear_flush_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long start,
					       unsigned long end)
{
	return notifier_age(mn, start, end, true, true);
}

/*
 * A TLB may go on using the page without setting the bit again: the kernel takes an estimate here.  That of shadow paging
 * would do so for ever.
 */
static keel_young_t notifier_clear_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long start,
					 unsigned long end)
{
	return notifier_age(mn, start, end, true, !keel_hw.two_dim);
}

static keel_young_t notifier_test_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long address)
{
	return notifier_age(mn, address, address + 1, false, false);
}

/* The address space goes while the VM's files are still open elsewhere. */
static void notifier_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct keel_vm *vm = notifier_vm(mn);
	struct mmu_zap zap = MMU_ZAP_INIT(zap);

	spin_lock(&vm->mmu.notifier_lock);
	notifier_moves(&vm->mmu);
	spin_unlock(&vm->mmu.notifier_lock);
	write_lock(&vm->mmu.lock);
	mmu_zap_all(vm, &zap);
	mmu_zap_flush(vm, &zap);
	write_unlock(&vm->mmu.lock);
	mmu_zap_free(vm, &zap.tables, true);
}

static void notifier_free(struct mmu_notifier *mn)
{
	keel_vm_free(notifier_vm(mn));
}

const struct mmu_notifier_ops mmu_notifier_ops = {
	.invalidate_range_start = notifier_start,
	.invalidate_range_end	= notifier_end,
	.clear_flush_young	= notifier_clear_flush_young,
	.clear_young		= notifier_clear_young,
	.test_young		= notifier_test_young,
	.release		= notifier_release,
	.free_notifier		= notifier_free,
};
