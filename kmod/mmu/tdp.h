/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tdp.h - what the files of this room do to the two-dimensional tables of tdp.c.
 */
#ifndef KEEL_MMU_TDP_H
#define KEEL_MMU_TDP_H

#include "keel.h"
#include "pte.h"

/* What an unmapping leaves to be done: flush before mmu.lock is dropped, free after. */
struct mmu_zap {
	struct list_head tables;
	bool flush;
	long leaves[PG_LEVEL_1G];	/* of each level, not taken off the VM's counters yet */
};

#define MMU_ZAP_INIT(name) { .tables = LIST_HEAD_INIT((name).tables) }

#define mmu_for_each_view(view, vm)	\
	for (view = (vm)->mmu.view; view < (vm)->mmu.view + MMU_VIEWS; view++)
#define mmu_for_each_view_of(view, vm, of)	\
	mmu_for_each_view(view, vm)		\
		if (view->space != (of)) {	\
		} else

/* Unmap gfns [start, end) of a view.  lock held for write. */
void mmu_zap_range(struct keel_vm *vm, struct mmu_view *view, u64 start, u64 end, struct mmu_zap *zap);
void mmu_zap_all(struct keel_vm *vm, struct mmu_zap *zap);
void mmu_zap_flush(struct keel_vm *vm, struct mmu_zap *zap);
/* lock not held. */

/*
 * protect.c.  The entry that decides about @gfn: a leaf, or where a leaf or table is missing.  lock held.  The second
 * also tells which rights the way there grants, and whether host_write is true: the entry's own are only worth that much.
 */
u64 *mmu_lookup(const struct mmu_view *view, u64 gfn, unsigned int *level);
u64 *mmu_lookup_held(const struct mmu_view *view, u64 gfn, unsigned int *level, u64 *held);
/* An entry above @gfn lacks the right to be written: the entries below it shall, in its place.  lock not held. */
void mmu_push_down(struct keel_vm *vm, struct mmu_view *view, u64 gfn);

/*
 * The host takes the right to write from gfns [start, end), which are one slot's; what is there else stays.  As cheap as
 * to protect a slot.  True if TLBs may know better.  lock held for write.
 */
bool mmu_host_protects(struct keel_vm *vm, struct mmu_view *view, u64 start, u64 end);

/* What a level-1 leaf of the slot's lacks whose next write has to be known: where it must not go by, the right itself. */
static inline u64 mmu_watch_bit(const struct mmu_format *fmt, const struct keel_slot *slot)
{
	return slot && !slot->kept ? fmt->logged : fmt->write;
}

/* Can a page of @level be mapped there?  Guest and user address alike below the size, and all of it in the slot. */
static inline bool mmu_slot_has_large(const struct keel_slot *slot, u64 gfn, unsigned int level)
{
	u64 pages = mmu_level_pages(level), start = round_down(gfn, pages);

	return ((slot->base_gfn ^ slot->hva >> PAGE_SHIFT) & (pages - 1)) == 0 && start >= slot->base_gfn &&
	       start + pages <= slot->base_gfn + slot->npages;
}

/* What an entry must grant for that MMU_ACC_*. */
static inline u64 mmu_rights_needed(const struct mmu_format *fmt, u32 access)
{
	return fmt->read | (access & MMU_ACC_WRITE ? fmt->write : 0) | (access & MMU_ACC_FETCH ? fmt->exec : 0);
}

/*
 * Was a page of gfns [start, end) accessed?  With @clear, look anew from here; not where the CPU does not tell, and the
 * pages have to be unmapped for that.  lock held.
 */
bool mmu_age_range(struct mmu_view *view, u64 start, u64 end, bool clear);

/* A table comes into being, or goes: where the kernel tells of memory in page tables, the VMM's cgroup has it. */
static inline void mmu_account(const void *table, int n)
{
	mod_lruvec_page_state(virt_to_page(table), NR_SECONDARY_PAGETABLE, n);
}

/* shrink.c: tables are given back, since what they hold can be found again. */
#define MMU_SHRINK_BATCH	64
extern atomic_long_t mmu_tables;		/* of all VMs */
/*
 * Give back up to @n tables of @vm: how many they were.  It looks on until there are @enough, or no more; 0: what the first
 * look finds will do.  mmu.lock not held; may sleep.
 */
unsigned long mmu_shrink(struct keel_vm *vm, unsigned long n, unsigned long enough);
/* As many as @vm may have before it gives some back itself. */
unsigned long mmu_table_limit(const struct keel_vm *vm);
/* A zeroed page for a table of @vm; NULL: there is none.  May sleep, mmu.lock not held. */
void *mmu_table_page(struct keel_vm *vm);
int mmu_shrinker_init(void);
void mmu_shrinker_exit(void);

/* notifier.c: does an invalidation run in [start, end)?  lock held. */
static inline bool mmu_notifier_runs(const struct keel_mmu *mmu, unsigned long start, unsigned long end)
{
	return smp_load_acquire(&mmu->notifier_count) && start < READ_ONCE(mmu->notifier_end) &&
	       end > READ_ONCE(mmu->notifier_start);
}

/* Does a page found at @hva after @seq was read still stand?  lock held. */
static inline bool mmu_notifier_stale(const struct keel_mmu *mmu, unsigned long seq, unsigned long hva)
{
	if (mmu_notifier_runs(mmu, hva, hva + 1))
		return true;
	smp_rmb();	/* with notifier_end(): the sequence moves before the count, and another range is set */
	return READ_ONCE(mmu->notifier_seq) != seq;
}

extern const struct mmu_notifier_ops mmu_notifier_ops;

#endif
