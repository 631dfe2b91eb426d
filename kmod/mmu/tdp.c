// SPDX-License-Identifier: GPL-2.0-only
/*
 * tdp.c - the two-dimensional tables: guest physical to host physical, walked by the CPU (nested paging, AMD APM
 * volume 2 chapter 15.25; EPT, Intel SDM 3C 28.3).
 *
 * One root per view (mmu.h), used by all vCPUs that look through it.  mmu.lock held for read: faults of all vCPUs map
 * in parallel, each entry by compare-and-exchange against what was seen, since the CPU sets bits in them too.  Held for
 * write: entries go or lose rights (protect.c), tables are taken out.  So tables do not vanish under the read lock.  A
 * table taken out, and what it leads to, is freed once no TLB can know it.
 *
 * A page is held by a reference only while it is being mapped.  After that the notifier is what we have: the
 * host announces what it will do to the page, see notifier.c.
 */
#include <linux/cpu.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include "ops.h"
#include "trace.h"
#include "mem/hostpage.h"
#include "pte.h"
#include "tdp.h"

/*
 * On CPUs with the iTLB multihit bug a guest that changes the size of a page it executes can bring on a machine check
 * (Documentation/admin-guide/hw-vuln/multihit.rst): large leaves are not executable there, and the first fetch from one
 * makes small ones of it, which it stays until it is unmapped.  They are tables like others, counted and given back.
 */
static char *nx_large = "auto";
module_param(nx_large, charp, 0444);
MODULE_PARM_DESC(nx_large, "Have guests execute from small pages only: on, off, or auto, where the CPU needs it (auto)");

static bool mmu_nx_large __ro_after_init;

bool mmu_executes_small(void)
{
	return mmu_nx_large;
}

#define MMU_NEAR	16ULL	/* pages that a fault maps at most */

/* An access that no large leaf of the view grants. */
static bool mmu_small_only(const struct mmu_view *view, u32 access)
{
	return mmu_rights_needed(keel_hw.mmu_fmt, access) & view->large_lacks;
}

static void mmu_count_leaf(struct keel_vm *vm, unsigned int level, long n)
{
	keel_count_shared(level == 1 ? &vm->stat.pages_4k : level == 2 ? &vm->stat.pages_2m : &vm->stat.pages_1g, n);
}

atomic_long_t mmu_tables = ATOMIC_LONG_INIT(0);

static void mmu_count_table(struct keel_vm *vm, const u64 *table, int n)
{
	keel_count_shared(&vm->stat.table_pages, n);
	atomic_long_add(n, &mmu_tables);
	mmu_account(table, n);
}

static u64 mmu_last_gfn __ro_after_init;

u64 mmu_max_gfn(void)
{
	return mmu_last_gfn;
}

/* -------------------------------------------------------------- page cache */

static int mmu_cache_fill(struct keel_vcpu *vcpu)
{
	struct keel_vcpu_mmu *mmu = &vcpu->mmu;

	if (unlikely(vcpu->vm->stat.table_pages >= mmu_table_limit(vcpu->vm)))
		mmu_shrink(vcpu->vm, MMU_SHRINK_BATCH, 0);
	while (mmu->nr_cached < MMU_CACHE_PAGES) {
		void *page = mmu_table_page(vcpu->vm);

		if (!page)	/* enough for one walk will do */
			return mmu->nr_cached >= keel_hw.root_levels - 1 ? 0 : -ENOMEM;
		mmu->cache[mmu->nr_cached++] = page;
	}
	return 0;
}

static u64 *mmu_cache_take(struct keel_vcpu *vcpu)
{
	struct keel_vcpu_mmu *mmu = &vcpu->mmu;

	return mmu->nr_cached ? mmu->cache[--mmu->nr_cached] : NULL;
}

static void mmu_cache_return(struct keel_vcpu *vcpu, u64 *table)
{
	vcpu->mmu.cache[vcpu->mmu.nr_cached++] = table;
}

/* -------------------------------------------------------------- zap */

static void mmu_free_tables(struct keel_vm *vm, u64 *table, unsigned int level, bool may_sleep)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	long leaves = 0;
	int i;

	for (i = 0; i < MMU_PTES; i++) {
		if (mmu_is_table(fmt, table[i], level))
			mmu_free_tables(vm, mmu_pte_table(table[i]), level - 1, may_sleep);
		else if (mmu_is_leaf(fmt, table[i], level))
			leaves++;
	}
	if (leaves)
		mmu_count_leaf(vm, level, -leaves);
	mmu_count_table(vm, table, -1);
	free_page((unsigned long)table);
	if (may_sleep)
		cond_resched();
}

void mmu_zap_free(struct keel_vm *vm, struct list_head *tables, bool may_sleep)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, tables, lru) {
		unsigned int level = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		mmu_free_tables(vm, page_address(page), level, may_sleep);
	}
}

/* A table is taken out whole: its size does not matter here. */
static void mmu_zap_entry(u64 *ptep, unsigned int level, struct mmu_zap *zap)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 old = xchg(ptep, 0);

	if (!(old & fmt->present))
		return;
	zap->flush = true;
	if (mmu_is_table(fmt, old, level)) {
		struct page *page = virt_to_page(mmu_pte_table(old));

		set_page_private(page, level - 1);
		list_add(&page->lru, &zap->tables);
	} else {
		zap->leaves[level - 1]++;
	}
}

void mmu_zap_flush(struct keel_vm *vm, struct mmu_zap *zap)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(zap->leaves); i++)
		if (zap->leaves[i])
			mmu_count_leaf(vm, i + 1, -zap->leaves[i]);
	memset(zap->leaves, 0, sizeof(zap->leaves));
	if (zap->flush)
		keel_flush_tlbs(vm);
	zap->flush = false;
}

/* @table covers guest pages from @base on.  At most two entries a level are gone into, the others go whole. */
static void mmu_zap_table(struct keel_vm *vm, u64 *table, unsigned int level, u64 base, u64 start, u64 end,
			  struct mmu_zap *zap)
{
	u64 span = mmu_level_pages(level);
	u64 first = max(start, base), behind = min(end, base + span * MMU_PTES), gfn;

	for (gfn = round_down(first, span); gfn < behind; gfn += span) {
		u64 *ptep = &table[mmu_index(gfn, level)];
		u64 pte = READ_ONCE(*ptep);

		if (!pte)
			continue;
		if (mmu_is_table(keel_hw.mmu_fmt, pte, level) && (gfn < start || gfn + span > end))
			mmu_zap_table(vm, mmu_pte_table(pte), level - 1, gfn, start, end, zap);
		else
			mmu_zap_entry(ptep, level, zap);
	}
}

void mmu_zap_range(struct keel_vm *vm, struct mmu_view *view, u64 start, u64 end, struct mmu_zap *zap)
{
	lockdep_assert_held_write(&vm->mmu.lock);
	if (view->root)
		mmu_zap_table(vm, view->root, keel_hw.root_levels, 0, start, end, zap);
}

void mmu_zap_all(struct keel_vm *vm, struct mmu_zap *zap)
{
	struct mmu_view *view;

	mmu_for_each_view(view, vm)
		mmu_zap_range(vm, view, 0, mmu_level_pages(keel_hw.root_levels + 1), zap);
}

void mmu_zap_slot(struct keel_vm *vm, struct keel_slot *slot, struct list_head *tables)
{
	struct mmu_zap zap = MMU_ZAP_INIT(zap);
	struct mmu_view *view;

	write_lock(&vm->mmu.lock);
	mmu_for_each_view_of(view, vm, keel_slot_space(slot))
		mmu_zap_range(vm, view, slot->base_gfn, slot->base_gfn + slot->npages, &zap);
	mmu_zap_flush(vm, &zap);
	write_unlock(&vm->mmu.lock);
	list_splice(&zap.tables, tables);
}

/* -------------------------------------------------------------- mapping */

/*
 * A large leaf becomes a table of smaller ones with the same rights, or more: where it was protected because of one
 * page, small ones can be watched each for itself, and each may be executed.  TLBs may keep what they have.
 * 0; -ENOMEM: no page cached.
 */
static int mmu_split(struct keel_vcpu *vcpu, const struct keel_slot *slot, u64 *ptep, u64 old, unsigned int level)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 span = mmu_level_pages(level - 1) << PAGE_SHIFT;
	u64 *table = mmu_cache_take(vcpu);
	u64 pte = old;
	int i;

	if (!table)
		return -ENOMEM;
	if (level == 2) {
		pte = mmu_grant(fmt, pte & ~fmt->large, fmt->exec);
		if (pte & fmt->host_write && !(pte & fmt->write))
			pte = (pte | fmt->write) & ~mmu_watch_bit(fmt, slot);
	}
	for (i = 0; i < MMU_PTES; i++)
		table[i] = pte + i * span;
	if (cmpxchg64(ptep, old, mmu_table_pte(fmt, table)) != old) {
		clear_page(table);
		mmu_cache_return(vcpu, table);
		return 0;
	}
	mmu_count_leaf(vcpu->vm, level, -1);
	mmu_count_leaf(vcpu->vm, level - 1, MMU_PTES);
	mmu_count_table(vcpu->vm, table, 1);
	return 0;
}

static int mmu_add_table(struct keel_vcpu *vcpu, u64 *ptep, u64 old)
{
	u64 *table = mmu_cache_take(vcpu);

	if (!table)
		return -ENOMEM;
	if (cmpxchg64(ptep, old, mmu_table_pte(keel_hw.mmu_fmt, table)) != old)
		mmu_cache_return(vcpu, table);
	else
		mmu_count_table(vcpu->vm, table, 1);
	return 0;
}

static u64 mmu_leaf_pte(const struct mmu_view *view, const struct mem_page *map, unsigned int level)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 pfn = round_down(map->pfn, mmu_level_pages(level));
	u64 pte = PFN_PHYS(pfn) | map->memory | fmt->inverted | fmt->accessed;

	if (map->access & MMU_ACC_AHEAD)
		pte &= ~fmt->accessed;
	pte = mmu_grant(fmt, pte, fmt->read | (fmt->exec & ~(level > 1 ? view->large_lacks : 0)));
	if (level > 1)
		pte |= fmt->large;
	if (map->writable) {
		pte |= fmt->host_write | fmt->write | fmt->dirty;
		/* Where writes are logged a read must not open the page for them. */
		if (keel_slot_watched(map->slot) && !(map->access & MMU_ACC_WRITE))
			pte &= ~mmu_watch_bit(fmt, map->slot);
	}
	return pte;
}

/* Write the leaf.  False: the entry has changed meanwhile. */
static bool mmu_set_leaf(struct keel_vcpu *vcpu, u64 gfn, u64 *ptep, u64 old, u64 new, unsigned int level)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	bool present = old & fmt->present;
	bool moved = present && mmu_pte_addr(old) != mmu_pte_addr(new);

	/* Someone else was here, for the same page: what it may do it may still do. */
	if (present && !moved)
		new |= old & (fmt->write | fmt->accessed | fmt->dirty | fmt->host_write);
	if (old != new && cmpxchg64(ptep, old, new) != old)
		return false;
	if (!present)
		mmu_count_leaf(vcpu->vm, level, 1);
	trace_keel_map(vcpu, gfn << PAGE_SHIFT, level, new, false);
	/* The host does not exchange a page unannounced; if it ever did, no TLB may keep the old one. */
	if (WARN_ON_ONCE(moved))
		keel_flush_tlbs(vcpu->vm);
	return true;
}

/* A leaf for a page that nobody has asked for, but for its address; 0: it is none to be mapped. */
static u64 mmu_near_pte(const struct mmu_view *view, struct keel_slot *slot, const struct mem_entry *e)
{
	struct mem_page near = { .slot = slot };

	if (!mem_use_near(&near, e))
		return 0;
	return mmu_leaf_pte(view, &near, 1) & ~keel_hw.mmu_fmt->accessed;
}

/*
 * Pages are touched in order, mostly: with one that was just mapped the others of its 16 are that are in the user's
 * tables as well.  Nobody has asked for them: they are not accessed, which is why they are left alone where the CPU would
 * not tell if they were; and their first write is told to whoever waits for it, the dirty log or the host.
 */
static noinline void mmu_install_near(struct keel_vcpu *vcpu, const struct mem_page *map)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	const struct keel_slot *slot = map->slot;
	struct mem_entry entry[MMU_NEAR];
	u64 page = (map->hva & ~PMD_MASK) >> PAGE_SHIFT;	/* of those in the same table of the user's */
	u64 before = min3(map->gfn % MMU_NEAR, map->gfn - slot->base_gfn, page);
	u64 after = min3(MMU_NEAR - map->gfn % MMU_NEAR, slot->base_gfn + slot->npages - map->gfn, PTRS_PER_PTE - page);
	unsigned long hva = map->hva - (before << PAGE_SHIFT), flags = 0;
	unsigned int n = before + after, i, level, mapped = 0;
	u64 alike = 0;		/* what leaves have for entries with these flags */
	u64 *ptep;

	if (!fmt->accessed || mmu_notifier_runs(&vcpu->vm->mmu, hva, hva + (n << PAGE_SHIFT)))
		return;
	ptep = mmu_lookup(vcpu->mmu.view, map->gfn, &level);
	if (!ptep || level > 1)
		return;
	ptep -= before;
	for (i = 0; i < n && READ_ONCE(ptep[i]) & fmt->present; i++)
		;
	if (i == n)
		return;
	mem_look(vcpu->vm->mm, hva, entry, n);
	for (; i < n; i++) {
		u64 old = READ_ONCE(ptep[i]), pte;

		if (old & fmt->present)
			continue;
		/* Of a device's memory the address matters, too. */
		if (entry[i].flags != flags || flags & _PAGE_SPECIAL) {
			flags = entry[i].flags;
			alike = mmu_near_pte(vcpu->mmu.view, map->slot, &entry[i]);
		}
		if (!alike)
			continue;
		pte = alike | PFN_PHYS(entry[i].pfn);
		if (cmpxchg64(&ptep[i], old, pte) != old)
			continue;
		trace_keel_map(vcpu, (map->gfn - before + i) << PAGE_SHIFT, 1, pte, false);
		mapped++;
	}
	if (mapped)
		mmu_count_leaf(vcpu->vm, 1, mapped);
}

/*
 * Map @map->gfn, making tables on the way.  lock held for read.  0; -ENOMEM: the page cache is empty; -EBUSY: for a
 * write, and an entry above lacks the right, see mmu_push_down(); or what keel_first_write() said.
 */
static int mmu_install(struct keel_vcpu *vcpu, const struct mem_page *map)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	const struct mmu_view *view = vcpu->mmu.view;
	u64 *table = view->root;
	unsigned int level = keel_hw.root_levels;
	u64 need = 0;
	int err = 0;

	if (map->access & MMU_ACC_WRITE) {
		need = fmt->write;
		err = keel_first_write_locked(vcpu, map->slot, map->gfn);
	}
	while (!err) {
		u64 *ptep = &table[mmu_index(map->gfn, level)];
		u64 pte = READ_ONCE(*ptep);

		if (mmu_is_table(fmt, pte, level)) {
			if (unlikely(need & ~pte))
				return -EBUSY;
			table = mmu_pte_table(pte);
			level--;
		} else if (level <= map->level) {
			if (mmu_set_leaf(vcpu, map->gfn, ptep, pte, mmu_leaf_pte(view, map, level), level))
				return 0;
		} else if (pte & fmt->present) {
			err = mmu_split(vcpu, map->slot, ptep, pte, level);
		} else {
			err = mmu_add_table(vcpu, ptep, pte);
		}
	}
	return err;
}

/* -------------------------------------------------------------- faults */

/* Of the levels the user's mapping allows, the largest that fits the slot. */
static unsigned int mmu_map_level(const struct mmu_view *view, const struct mem_page *map)
{
	const struct keel_slot *slot = map->slot;
	unsigned int level;

	if (keel_slot_watched(slot) || mmu_small_only(view, map->access))
		return 1;
	for (level = min(map->level, keel_hw.max_page_level); level > 1; level--)
		if (mmu_slot_has_large(slot, map->gfn, level))
			break;
	return level;
}

/* A small page that may be written, once that is known: nothing else is wrong with it, nor on the way there. */
static int mmu_open_page(struct keel_vcpu *vcpu, const struct mem_page *map, u64 *ptep, u64 pte)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	int err = keel_first_write_locked(vcpu, map->slot, map->gfn);

	/* If it has changed meanwhile the guest faults again. */
	if (!err)
		mmu_set_leaf(vcpu, map->gfn, ptep, pte, pte | fmt->write | fmt->accessed | fmt->dirty, 1);
	return err;
}

/*
 * The entry is there but forbids the access: a write to a page protected for the dirty log, if the user may write it;
 * a fetch from a large page that has to become small; or it was changed since.  True: nothing more to do.
 */
static bool mmu_fix_present(struct keel_vcpu *vcpu, struct mem_page *map)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	struct mmu_view *view = vcpu->mmu.view;
	u64 *ptep, pte, held, lacks;
	unsigned int level;
	bool fixed = false;
	int err = 0;

again:
	read_lock(&vcpu->vm->mmu.lock);
	ptep = mmu_lookup_held(view, map->gfn, &level, &held);
	if (!ptep)
		goto out;
	pte = READ_ONCE(*ptep);
	if (!mmu_is_leaf(fmt, pte, level))
		goto out;
	lacks = mmu_rights_needed(fmt, map->access) & ~(held & mmu_rights(fmt, pte));
	map->writable = pte & held & fmt->host_write;
	if (!lacks) {
		fixed = true;
	} else if (level == 1 && lacks == fmt->write && held & fmt->write && map->writable) {
		err = mmu_open_page(vcpu, map, ptep, pte);
		fixed = !err;
	} else if (map->writable || !(lacks & fmt->write)) {
		map->pfn = (mmu_pte_addr(pte) >> PAGE_SHIFT) + (map->gfn & (mmu_level_pages(level) - 1));
		map->level = keel_slot_watched(map->slot) || mmu_small_only(view, map->access) ? 1 : level;
		map->memory = mmu_pte_memory(fmt, pte);
		err = mmu_install(vcpu, map);
		fixed = !err;
	}
out:
	read_unlock(&vcpu->vm->mmu.lock);
	if (unlikely(err == -EBUSY)) {
		mmu_push_down(vcpu->vm, view, map->gfn);
		err = 0;
		goto again;
	}
	return fixed;
}

/* KVM_RUN fails for a page of a slot: which one (KVM_CAP_MEMORY_FAULT_INFO). */
static void mmu_tell_fault(struct keel_vcpu *vcpu, u64 gfn)
{
	vcpu->run->exit_reason = KVM_EXIT_MEMORY_FAULT;
	*kvm_run_memory_fault(vcpu->run) = (struct kvm_run_memory_fault){
		.gpa = gfn << PAGE_SHIFT, .size = PAGE_SIZE,	/* flags 0: no memory is a guest's alone */
	};
}

/* What the host said about the user's page, as KVM_RUN tells it. */
static int mmu_fault_error(struct keel_vcpu *vcpu, const struct mem_page *map, int err)
{
	switch (err) {
	case -EHWPOISON:
		if (map->access & MMU_ACC_AHEAD)
			return err;
		/* The memory is broken: the VMM learns it by signal, and KVM_RUN returns for that. */
		send_sig_mceerr(BUS_MCEERR_AR, (void __user *)map->hva, PAGE_SHIFT, current);
		return MMU_FIXED;
	case -EAGAIN:
		return MMU_AGAIN;
	case -EINTR:
		if (!(map->access & MMU_ACC_AHEAD))
			vcpu->run->exit_reason = KVM_EXIT_INTR;
		return -EINTR;
	case -EFAULT:
		if (!(map->access & MMU_ACC_AHEAD))
			mmu_tell_fault(vcpu, map->gfn);
		return err;
	default:
		return err;
	}
}

/*
 * Have the host bring the user's page in.  That may take as long as whoever serves the user's faults likes, and nobody is to
 * wait for this vCPU meanwhile: a guest that has asked for it goes on with something else, or the thread waits outside the
 * loop, with its state out of its hands.  -EAGAIN: either happened, and what was known of the fault is old.  0: it is there,
 * or it is a file's, or cannot be there, as mem_find_slow() finds out.
 */
static int mmu_bring_in(struct keel_vcpu *vcpu, const struct mem_page *map)
{
	bool write = map->access & MMU_ACC_WRITE, apf = vcpu->pv.apf && !vcpu->smm;
	struct mm_struct *mm = vcpu->vm->mm;
	int err;

	err = mem_touch(mm, map->hva, write, apf ? MEM_NOW : MEM_NO_FILE);
	if (err != -EAGAIN)
		return 0;
	if (apf && keel_apf_start(vcpu, map->gfn, map->hva, write))
		return err;
	keel_vcpu_rest(vcpu);
	err = mem_touch(mm, map->hva, write, MEM_WAIT);
	keel_vcpu_rested(vcpu);
	return err == -EINTR ? err : -EAGAIN;
}

static int mmu_find_slow(struct keel_vcpu *vcpu, struct mem_page *map)
{
	struct mm_struct *mm = vcpu->vm->mm;
	int err;

	if (!(map->access & MMU_ACC_AHEAD)) {
		err = mmu_bring_in(vcpu, map);
		if (err)
			return err;
		if (!mem_find_fast(mm, map))
			return 0;
	}
	return mem_find_slow(mm, map);
}

/* There is memory, and it may be accessed so. */
static noinline int mmu_fault_in(struct keel_vcpu *vcpu, struct keel_slot *slot, u64 gfn, u32 access)
{
	struct keel_mmu *mmu = &vcpu->vm->mmu;
	struct mem_page map = { .slot = slot, .gfn = gfn, .access = access };
	bool stale, near, there = false;
	unsigned long seq;
	int err;

	map.hva = keel_slot_hva(map.slot, map.gfn);
	/* Where this can be waited for; under the lock it could not. */
	if (unlikely(map.slot->kept) && access & MMU_ACC_WRITE && !vcpu->atomic) {
		err = access & MMU_ACC_AHEAD || mem_host_level(vcpu->vm->mm, map.hva) ? 0 : mmu_bring_in(vcpu, &map);
		if (!err)
			err = keel_keep_fault(vcpu->vm, map.slot, map.gfn);
		/* What else is wrong with the page shows below, unless it is there and the user may not read it: by a key. */
		if (err == -EFAULT && !mem_find_fast(vcpu->vm->mm, &map)) {
			err = keel_keep_fault(vcpu->vm, map.slot, map.gfn);
			there = err == -EFAULT && !mem_find_fast(vcpu->vm->mm, &map);
		}
		if (err == -ENOMEM || err == -EINTR || err == -EAGAIN || there)
			return mmu_fault_error(vcpu, &map, err);
	}
	if (access & MMU_ACC_PRESENT && mmu_fix_present(vcpu, &map))
		return MMU_FIXED;

	if (!vcpu->atomic) {
		err = mmu_cache_fill(vcpu);
		if (err)
			return err;
	}
	seq = READ_ONCE(mmu->notifier_seq);
	smp_rmb();	/* with the locks of the notifier: sequence first, then the user's tables */
	/* What is there already came to the slow loop for a page for tables, and says nothing about the next. */
	near = !mem_find_fast(vcpu->vm->mm, &map);
	if (!near) {
		if (vcpu->atomic)
			return MMU_SLOW;
		if (!(access & MMU_ACC_AHEAD))
			vcpu->mmu.fresh_gfn = map.gfn + 1;
		err = mmu_find_slow(vcpu, &map);
		if (err)
			return mmu_fault_error(vcpu, &map, err);
	}
	map.level = mmu_map_level(vcpu->mmu.view, &map);

	err = 0;
	read_lock(&mmu->lock);
	stale = mmu_notifier_stale(mmu, seq, map.hva);
	if (!stale) {
		err = mmu_install(vcpu, &map);
		if (!err)
			mem_mark_written(&map);
		/* One that had to be brought in is the first of its kind. */
		if (!err && near && map.level == 1)
			mmu_install_near(vcpu, &map);
	}
	read_unlock(&mmu->lock);
	if (map.held)
		put_page(map.held);

	if (unlikely(err == -EBUSY))
		mmu_push_down(vcpu->vm, vcpu->mmu.view, map.gfn);	/* and the guest faults again */
	else if (unlikely(err == -EAGAIN && !vcpu->atomic))
		stale = true;		/* it is another page than the one that was kept */
	else if (err)
		return vcpu->atomic ? MMU_SLOW : mmu_fault_error(vcpu, &map, err);
	if (stale) {
		/* The host is at work there: let it, and let the guest fault again. */
		if (vcpu->atomic)
			return MMU_SLOW;
		cond_resched();
	}
	return MMU_FIXED;
}

/* By itself, for an access to a device is over soon. */
int mmu_fault(struct keel_vcpu *vcpu, u64 gpa, u32 access)
{
	u64 gfn = gpa >> PAGE_SHIFT;
	struct keel_slot *slot;

	/*
	 * A guest that walks through memory the user has not touched yet: the fast loop would look in vain each time.
	 * A guess, and good for once: the slow loop makes it again, if it is memory at all.
	 */
	if (vcpu->atomic && gfn == vcpu->mmu.fresh_gfn) {
		vcpu->mmu.fresh_gfn = MMU_NO_GFN;
		return MMU_SLOW;
	}
	slot = keel_vcpu_slot(vcpu, gfn);
	if (!slot || (access & MMU_ACC_WRITE && slot->flags & KVM_MEM_READONLY))
		return MMU_MMIO;
	return mmu_fault_in(vcpu, slot, gfn, access);
}

/* -------------------------------------------------------------- life */

int mmu_load(struct keel_vcpu *vcpu)
{
	struct keel_mmu *mmu = &vcpu->vm->mmu;
	struct mmu_view *view = vcpu->mmu.view;
	int err;

	err = mmu_cache_fill(vcpu);
	if (err)
		return err;
	if (!READ_ONCE(view->root)) {
		write_lock(&mmu->lock);
		if (!view->root) {
			WRITE_ONCE(view->root, mmu_cache_take(vcpu));
			mmu_count_table(vcpu->vm, view->root, 1);
		}
		write_unlock(&mmu->lock);
	}
	/* With shadow paging the tables are walked by us alone, and the CPU has others. */
	if (!vcpu->mmu.shadow)
		keel_call(load_root, vcpu, __sme_set(__pa(view->root)));
	return 0;
}

void mmu_space_changed(struct keel_vcpu *vcpu)
{
	unsigned int i;

	vcpu->mmu.view = &vcpu->vm->mmu.view[vcpu->smm];
	vcpu->mmu.slots_gen = 0;
	vcpu->mmu.fresh_gfn = MMU_NO_GFN;
	for (i = 0; i < MMU_MEMOS; i++)
		vcpu->mmu.memo[i].levels = 0;
	keel_request(KEEL_REQ_MMU_RELOAD, vcpu);
	keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
}

int mmu_vm_init(struct keel_vm *vm)
{
	struct mmu_view *view;

	rwlock_init(&vm->mmu.lock);
	spin_lock_init(&vm->mmu.notifier_lock);
	mmu_for_each_view(view, vm) {
		view->space = view - vm->mmu.view;
		view->large_lacks = mmu_nx_large ? keel_hw.mmu_fmt->exec : 0;
	}
	vm->mmu.mn.ops = &mmu_notifier_ops;
	return mmu_notifier_register(&vm->mmu.mn, vm->mm);
}

void mmu_vm_release(struct keel_vm *vm)
{
	struct mmu_view *view;

	mmu_for_each_view(view, vm) {
		u64 *root;

		write_lock(&vm->mmu.lock);
		root = view->root;
		view->root = NULL;
		write_unlock(&vm->mmu.lock);
		/* No vCPU enters again, and what TLBs know of these goes with the tag it has there. */
		if (root)
			mmu_free_tables(vm, root, keel_hw.root_levels, true);
	}
}

void mmu_vm_put(struct keel_vm *vm)
{
	mmu_notifier_put(&vm->mmu.mn);
}

int mmu_vcpu_init(struct keel_vcpu *vcpu)
{
	memset(&vcpu->mmu, 0, sizeof(vcpu->mmu));
	vcpu->mmu.view = &vcpu->vm->mmu.view[vcpu->smm];
	vcpu->mmu.fresh_gfn = MMU_NO_GFN;
	return keel_hw.two_dim ? 0 : mmu_shadow_init(vcpu);
}

void mmu_vcpu_destroy(struct keel_vcpu *vcpu)
{
	mmu_shadow_destroy(vcpu);
	while (vcpu->mmu.nr_cached)
		free_page((unsigned long)mmu_cache_take(vcpu));
}

int mmu_init(void)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;

	/* Our own bits must be none of the CPU's, nor of the address. */
	if (WARN_ON(!fmt || !fmt->present || !fmt->logged || fmt->ram == fmt->device ||
		    fmt->host_write & (MMU_ADDR_MASK | fmt->table | fmt->write | fmt->exec | fmt->ram | fmt->device)))
		return -EINVAL;
	mmu_last_gfn = (1ULL << (min(mmu_phys_bits(), 9 * keel_hw.root_levels + PAGE_SHIFT) - PAGE_SHIFT)) - 1;
	mmu_nx_large = boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT) && !cpu_mitigations_off();
	if (!sysfs_streq(nx_large, "auto") && kstrtobool(nx_large, &mmu_nx_large)) {
		pr_err("keel: not loaded: nx_large is on, off or auto\n");
		return -EINVAL;
	}
	return mmu_shrinker_init();
}

void mmu_exit(void)
{
	mmu_shrinker_exit();
	/* The callbacks of notifiers put have run to their ends. */
	mmu_notifier_synchronize();
}
