// SPDX-License-Identifier: GPL-2.0-only
/*
 * protect.c - entries of the two-dimensional tables lose the right to be written, and get it back: how the next write
 * to a page is made known (mem/dirty.c).  And their age.
 *
 * The CPU grants what all entries on the way to a page grant (EPT: Intel SDM 3C 28.3.2; nested paging: APM volume 2
 * 15.25.6).  So a whole slot is watched by taking the right from the entries of tables that are all the slot's, as far
 * up as there are such: some hundred at most at its two ends, and one for each 1, or 512, GiB between.  What that means
 * is pushed down where a write comes: the entries below lose the right, and the one above gets it back.  Until then an
 * entry may seem to grant what it does not: who asks for rights asks mmu_lookup_held().
 *
 * The host takes the right from a range in the same way when it makes pages copy-on-write (fork(2)), or wants to know of
 * their next write; then what is pushed down is also that its word is to be asked for each of them (host_write, pte.h).
 *
 * All this with mmu.lock held for write: a push half done, beside another fault that goes on where it is done already,
 * would take a right back that was given anew, with TLBs that know of it.
 */
#include "ops.h"
#include "mem/hostpage.h"
#include "pte.h"
#include "tdp.h"

static __always_inline u64 *lookup(const struct mmu_view *view, u64 gfn, unsigned int *level, u64 *held)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	/* What a right is to an entry that grants it, host_write is to one that lacks it. */
	const u64 present = fmt->present, large = fmt->large, flip = fmt->inverted ^ fmt->host_write;
	u64 *table = view->root, *ptep, pte, all = ~0ULL;
	unsigned int at = keel_hw.root_levels;

	if (!table)
		return NULL;
	for (; ; at--) {
		ptep = &table[mmu_index(gfn, at)];
		pte = READ_ONCE(*ptep);
		if (at == 1 || !(pte & present) || pte & large)
			break;
		all &= pte ^ flip;
		table = mmu_pte_table(pte);
	}
	*level = at;
	if (held)
		*held = all & (fmt->read | fmt->write | fmt->exec | fmt->host_write);
	return ptep;
}

u64 *mmu_lookup(const struct mmu_view *view, u64 gfn, unsigned int *level)
{
	return lookup(view, gfn, level, NULL);
}

u64 *mmu_lookup_held(const struct mmu_view *view, u64 gfn, unsigned int *level, u64 *held)
{
	*held = 0;
	return lookup(view, gfn, level, held);
}

/* First page behind what an entry of @level that covers @gfn covers. */
static u64 mmu_behind(u64 gfn, unsigned int level)
{
	return (gfn | (mmu_level_pages(level) - 1)) + 1;
}

/* -------------------------------------------------------------- protection */

/*
 * What an entry of @level lacks whose writes come here.  A large leaf is split by that, to tell of one page's alone.
 */
static u64 protect_bit(const struct keel_slot *slot, unsigned int level)
{
	return level == 1 ? mmu_watch_bit(keel_hw.mmu_fmt, slot) : keel_hw.mmu_fmt->write;
}

static bool protect_entry(const struct keel_slot *slot, u64 *ptep, unsigned int level)
{
	u64 bit = protect_bit(slot, level), pte = READ_ONCE(*ptep);

	if (!(pte & keel_hw.mmu_fmt->present) || !(pte & bit))
		return false;
	atomic64_andnot(bit, (atomic64_t *)ptep);
	return true;
}

/* By the host: what it grants is to be asked anew. */
static bool host_protect_entry(u64 *ptep, unsigned int level)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 pte = READ_ONCE(*ptep);

	if (!(pte & fmt->present))
		return false;
	if (mmu_is_table(fmt, pte, level))
		atomic64_or(fmt->host_write, (atomic64_t *)ptep);
	else
		atomic64_andnot(fmt->host_write, (atomic64_t *)ptep);
	if (pte & fmt->write) {
		atomic64_andnot(fmt->write, (atomic64_t *)ptep);
		return true;
	}
	/* One that the dirty log has closed may be open in TLBs still: that flushes when it is through, without the lock. */
	return !mmu_is_table(fmt, pte, level) && pte & fmt->host_write;
}

/* The host has taken it from all that is below? */
static bool host_has_taken(u64 pte)
{
	return pte & keel_hw.mmu_fmt->host_write;
}

/*
 * @table covers guest pages from @base on.  At most two entries a level are gone into, others protected as they are: of
 * what is @slot's, or by the host where that is NULL.
 */
static bool protect_table(const struct keel_slot *slot, u64 *table, unsigned int level, u64 base, u64 start, u64 end)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 span = mmu_level_pages(level);
	u64 first = max(start, base), behind = min(end, base + span * MMU_PTES), gfn;
	bool found = false;

	for (gfn = round_down(first, span); gfn < behind; gfn += span) {
		u64 *ptep = &table[mmu_index(gfn, level)];
		u64 pte = READ_ONCE(*ptep);

		if (mmu_is_table(fmt, pte, level) && (gfn < start || gfn + span > end)) {
			/* Else no TLB knows a page below as one that can be written. */
			if (pte & fmt->write || (!slot && !host_has_taken(pte)))
				found |= protect_table(slot, mmu_pte_table(pte), level - 1, gfn, start, end);
		} else {
			found |= slot ? protect_entry(slot, ptep, level) : host_protect_entry(ptep, level);
		}
	}
	return found;
}

/* True if TLBs may know better. */
static bool protect_range(struct keel_vm *vm, struct keel_slot *slot, u64 start, u64 end)
{
	struct mmu_view *view;
	bool found = false;

	lockdep_assert_held_write(&vm->mmu.lock);
	mmu_for_each_view_of(view, vm, keel_slot_space(slot))
		if (view->root)
			found |= protect_table(slot, view->root, keel_hw.root_levels, 0, start, end);
	return found;
}

bool mmu_host_protects(struct keel_vm *vm, struct mmu_view *view, u64 start, u64 end)
{
	lockdep_assert_held_write(&vm->mmu.lock);
	return view->root && protect_table(NULL, view->root, keel_hw.root_levels, 0, start, end);
}

bool mmu_protect_pages(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, unsigned long mask)
{
	bool found = false;

	while (mask) {
		/* A run of set bits at a time; shifts by a whole word are not to be had. */
		unsigned long first = __ffs(mask);
		unsigned long run = ~(mask >> first) ? __ffs(~(mask >> first)) : BITS_PER_LONG;

		found |= protect_range(vm, slot, gfn + first, gfn + first + run);
		if (first + run >= BITS_PER_LONG)
			break;
		mask &= ~0UL << (first + run);
	}
	return found;
}

void mmu_protect_slot(struct keel_vm *vm, struct keel_slot *slot)
{
	write_lock(&vm->mmu.lock);
	if (protect_range(vm, slot, slot->base_gfn, slot->base_gfn + slot->npages))
		keel_flush_tlbs(vm);
	write_unlock(&vm->mmu.lock);
}

/* What an entry lacks that points to a table of @level, the entries there shall.  True if TLBs may know better. */
static bool push_entry(const struct keel_slot *slot, u64 pte, unsigned int level)
{
	u64 *table = mmu_pte_table(pte);
	bool found = false;
	unsigned int i;

	for (i = 0; i < MMU_PTES; i++) {
		found |= protect_entry(slot, &table[i], level);
		if (host_has_taken(pte))
			found |= host_protect_entry(&table[i], level);
	}
	/*
	 * No TLB has a page from below with more rights than the way there had.  But a CPU may know entries of tables
	 * each for itself, and is not to put those as they were behind one above as it is now.
	 */
	return found && level > 1;
}

static void entry_pushed(u64 *ptep)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;

	atomic64_andnot(fmt->host_write, (atomic64_t *)ptep);
	atomic64_or(fmt->write, (atomic64_t *)ptep);
}

void mmu_push_down(struct keel_vm *vm, struct mmu_view *view, u64 gfn)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 *entry[MMU_MAX_LEVELS], *table;
	const struct keel_slot *slot;
	unsigned int level, n = 0;
	bool flush = false;

	write_lock(&vm->mmu.lock);
	slot = keel_slot_find(vm, view->space, gfn);	/* all that is below such an entry is one slot's */
	table = view->root;
	for (level = keel_hw.root_levels; table && level > 1; level--) {
		u64 *ptep = &table[mmu_index(gfn, level)], pte = READ_ONCE(*ptep);

		if (!mmu_is_table(fmt, pte, level))
			break;
		table = mmu_pte_table(pte);
		if (pte & fmt->write)
			continue;
		entry[n++] = ptep;
		flush |= push_entry(slot, pte, level - 1);
	}
	if (flush)
		keel_flush_tlbs(vm);
	while (n)
		entry_pushed(entry[--n]);
	write_unlock(&vm->mmu.lock);
}

/* -------------------------------------------------------------- told by the CPU */

/* The leaf by which the CPU may write a page of 4K; NULL: there is none. */
static u64 *writable_leaf(const struct mmu_view *view, u64 gfn, struct mmu_near *near)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 *ptep, pte, held;
	unsigned int level;

	if (likely(near->view == view && near->first == round_down(gfn, MMU_PTES))) {
		ptep = &near->table[mmu_index(gfn, 1)];
	} else {
		ptep = mmu_lookup_held(view, gfn, &level, &held);
		if (!ptep || level > 1 || !(held & fmt->write))
			return NULL;
		*near = (struct mmu_near){
			.view = view, .first = round_down(gfn, MMU_PTES), .table = ptep - mmu_index(gfn, 1),
		};
	}
	pte = READ_ONCE(*ptep);
	return pte & fmt->present && pte & fmt->write ? ptep : NULL;
}

void *mmu_take_page(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, unsigned int how, struct mmu_near *near)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 *ptep, pte;

	lockdep_assert_held_write(&vm->mmu.lock);
	ptep = writable_leaf(&vm->mmu.view[keel_slot_space(slot)], gfn, near);
	if (!ptep)
		return NULL;
	pte = READ_ONCE(*ptep);
	if (how & MMU_TAKE_WRITTEN && !(pte & fmt->dirty))
		return MMU_NOT_WRITTEN;
	if (mmu_is_device(fmt, pte) || !pfn_valid(mmu_pte_addr(pte) >> PAGE_SHIFT))
		return NULL;
	atomic64_andnot(how & MMU_TAKE_LEAVE ? fmt->dirty : fmt->write, (atomic64_t *)ptep);
	/* The host has not asked for it back, or it would not be here, and knows that it is written. */
	return __va(mmu_pte_addr(pte));
}

bool mmu_page_written(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, struct mmu_near *near)
{
	u64 *ptep;

	lockdep_assert_held_write(&vm->mmu.lock);
	ptep = writable_leaf(&vm->mmu.view[keel_slot_space(slot)], gfn, near);
	return !ptep || READ_ONCE(*ptep) & keel_hw.mmu_fmt->dirty;
}

/* -------------------------------------------------------------- and back */

static void unprotect_entry(u64 *ptep)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 pte = READ_ONCE(*ptep);

	if (pte & fmt->host_write && !(pte & fmt->write))
		atomic64_or(fmt->write, (atomic64_t *)ptep);
}

/* What lies at @gfn; where that ends. */
static u64 unprotect_step(struct keel_vm *vm, struct mmu_view *view, struct keel_slot *slot, u64 gfn,
			  struct mmu_zap *zap)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 *table = view->root, *ptep, pte, end;
	unsigned int level;

	for (level = keel_hw.root_levels; level > 1; level--) {
		ptep = &table[mmu_index(gfn, level)];
		pte = READ_ONCE(*ptep);
		if (!mmu_is_table(fmt, pte, level)) {
			if (pte & fmt->present)
				unprotect_entry(ptep);
			return mmu_behind(gfn, level);
		}
		if (level <= keel_hw.max_page_level && mmu_slot_has_large(slot, gfn, level) &&
		    mem_host_level(vm->mm, keel_slot_hva(slot, gfn)) >= level) {
			gfn = round_down(gfn, mmu_level_pages(level));
			mmu_zap_range(vm, view, gfn, gfn + mmu_level_pages(level), zap);
			return mmu_behind(gfn, level);
		}
		/* What the host has taken it has to give. */
		if (host_has_taken(pte) && push_entry(slot, pte, level - 1))
			keel_flush_tlbs(vm);
		if (!(pte & fmt->write))
			entry_pushed(ptep);
		table = mmu_pte_table(pte);
	}
	end = min(mmu_behind(gfn, 2), slot->base_gfn + slot->npages);
	for (; gfn < end; gfn++)
		unprotect_entry(&table[mmu_index(gfn, 1)]);
	return gfn;
}

#define UNPROTECT_STEPS	16	/* with the lock held */

static void unprotect_view(struct keel_vm *vm, struct mmu_view *view, struct keel_slot *slot)
{
	u64 gfn = slot->base_gfn, end = gfn + slot->npages;
	struct mmu_zap zap = MMU_ZAP_INIT(zap);
	unsigned int steps;

	while (gfn < end) {
		write_lock(&vm->mmu.lock);
		if (!view->root)
			gfn = end;
		for (steps = 0; gfn < end && steps < UNPROTECT_STEPS; steps++)
			gfn = unprotect_step(vm, view, slot, gfn, &zap);
		mmu_zap_flush(vm, &zap);
		write_unlock(&vm->mmu.lock);
		mmu_zap_free(vm, &zap.tables, true);
		cond_resched();
	}
}

void mmu_unprotect_slot(struct keel_vm *vm, struct keel_slot *slot)
{
	struct mmu_view *view;

	lockdep_assert_held(&vm->slots_lock);
	mmu_for_each_view_of(view, vm, keel_slot_space(slot))
		unprotect_view(vm, view, slot);
}

/* -------------------------------------------------------------- age */

/* Take the accessed bit from the leaves of gfns [start, end): true if one had it.  lock held. */
static bool take_accessed(struct mmu_view *view, u64 start, u64 end)
{
	u64 accessed = keel_hw.mmu_fmt->accessed;
	bool found = false;
	u64 gfn = start;

	while (gfn < end) {
		unsigned int level;
		u64 *ptep = mmu_lookup(view, gfn, &level);

		if (!ptep)
			return false;
		/* At the bottom go on in the same table. */
		for (;;) {
			u64 pte = READ_ONCE(*ptep);

			if (mmu_is_leaf(keel_hw.mmu_fmt, pte, level) && pte & accessed) {
				atomic64_andnot(accessed, (atomic64_t *)ptep);
				found = true;
			}
			gfn = mmu_behind(gfn, level);
			if (level > 1 || gfn >= end || !mmu_index(gfn, 1))
				break;
			ptep++;
		}
	}
	return found;
}

bool mmu_age_range(struct mmu_view *view, u64 start, u64 end, bool clear)
{
	u64 accessed = keel_hw.mmu_fmt->accessed;
	u64 gfn;

	if (clear)
		return take_accessed(view, start, end);
	for (gfn = start; gfn < end; ) {
		unsigned int level;
		u64 *ptep = mmu_lookup(view, gfn, &level), pte;

		if (!ptep)
			return false;
		pte = READ_ONCE(*ptep);
		if (mmu_is_leaf(keel_hw.mmu_fmt, pte, level) && (!accessed || pte & accessed))
			return true;
		gfn = mmu_behind(gfn, level);
	}
	return false;
}
