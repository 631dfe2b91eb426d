// SPDX-License-Identifier: GPL-2.0-only
/*
 * shrink.c - how much memory tables may hold.  All that is in them can be found again by faults, so they are given
 * back when the host is short of memory (a shrinker), or when a VM has more than it may (KVM_SET_NR_MMU_PAGES).
 *
 * Taken out are the tables that map small pages, in the order of guest addresses and round again: large pages have none,
 * and those above are a 512th of them, unless memory lies scattered; then the VMM's own page tables are as many.
 *
 * Locks: keel_hw_lock for the list of VMs, only if it is free, since who holds it may be the one who needs the memory;
 * mmu.lock for write.
 */
#include "pte.h"
#include "tdp.h"

#define TABLES_LEAST	64	/* what KVM_SET_NR_MMU_PAGES has to grant */
#define LOOKS_MOST	4096	/* with the lock held */

/*
 * A 512th of the memory is what small pages need if slots are large; each slot has its own tables on the way.  More
 * is of no use to a guest, but a VMM could want it without end by having the same memory in many places.
 */
unsigned long mmu_table_limit(const struct keel_vm *vm)
{
	unsigned long asked = READ_ONCE(vm->mmu.table_limit);

	return asked ?: (vm->slots.pages[0] + vm->slots.pages[1]) / 64 + 8 * vm->slots.count + TABLES_LEAST;
}

/* From where the last one ended; @ends counts how often it came to the end of a view. */
static unsigned long shrink_part(struct keel_vm *vm, unsigned long n, unsigned int *ends)
{
	struct mmu_zap zap = MMU_ZAP_INIT(zap);
	struct keel_mmu *mmu = &vm->mmu;
	unsigned int level, looks, at;
	unsigned long found = 0;
	u64 gfn;

	write_lock(&mmu->lock);
	gfn = mmu->shrink_gfn;
	at = mmu->shrink_view;
	for (looks = 0; looks < LOOKS_MOST && found < n; looks++) {
		struct mmu_view *view = &mmu->view[at];

		if (!mmu_lookup(view, gfn, &level)) {
			gfn = 0;
			at = (at + 1) % MMU_VIEWS;
			++*ends;
			continue;
		}
		if (level == 1) {
			mmu_zap_range(vm, view, gfn, gfn + mmu_level_pages(2), &zap);
			found++;
		}
		gfn = (gfn | (mmu_level_pages(max(level, 2U)) - 1)) + 1;
		if (gfn > mmu_max_gfn()) {
			gfn = 0;
			at = (at + 1) % MMU_VIEWS;
			++*ends;
		}
	}
	mmu->shrink_gfn = gfn;
	mmu->shrink_view = at;
	mmu_zap_flush(vm, &zap);
	write_unlock(&mmu->lock);
	mmu_zap_free(vm, &zap.tables, true);
	return found;
}

unsigned long mmu_shrink(struct keel_vm *vm, unsigned long n, unsigned long enough)
{
	unsigned long found = 0;
	unsigned int ends = 0;

	/* None there yet, or no more: nor need the lock be. */
	if (!n || !READ_ONCE(vm->stat.table_pages))
		return 0;
	/* All views, and what lay before where it began. */
	do {
		found += shrink_part(vm, n - found, &ends);
		cond_resched();
	} while (found < min(n, enough) && ends <= MMU_VIEWS);
	return found;
}

/*
 * Before anything is killed for a page, in the VMM's cgroup or on the host, the VM's own tables are given back.
 * Reclaim in a cgroup does not come to the shrinker below, which is the host's.  A module's belongs to cgroups by lists
 * of objects that have a link (list_lru), for which a table has no room; and what there would be to gain is a 512th of
 * the guest's memory.
 */
void *mmu_table_page(struct keel_vm *vm)
{
	unsigned long page = get_zeroed_page(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);

	if (!page)
		mmu_shrink(vm, MMU_SHRINK_BATCH, 1);
	return (void *)(page ?: get_zeroed_page(GFP_KERNEL_ACCOUNT));
}

VM_IOCTL(mmu_set_nr_pages)
{
	u64 have = READ_ONCE(vm->stat.table_pages);

	if (arg < TABLES_LEAST || arg > UINT_MAX)
		return -EINVAL;
	WRITE_ONCE(vm->mmu.table_limit, arg);
	/* Once: what vCPUs make anew meanwhile they bring down themselves. */
	if (have > arg)
		mmu_shrink(vm, have - arg, have - arg);
	return 0;
}

VM_IOCTL(mmu_get_nr_pages)
{
	return min_t(unsigned long, mmu_table_limit(vm), INT_MAX);
}

static unsigned long shrink_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	return atomic_long_read(&mmu_tables) ?: SHRINK_EMPTY;
}

static unsigned long shrink_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long freed = 0;
	struct keel_vm *vm;
	u64 all;

	if (!mutex_trylock(&keel_hw_lock))
		return SHRINK_STOP;
	/* Each its share of what is wanted. */
	all = max(atomic_long_read(&mmu_tables), 1L);
	list_for_each_entry(vm, &keel_vms, list)
		freed += mmu_shrink(vm, DIV_ROUND_UP_ULL(sc->nr_to_scan * READ_ONCE(vm->stat.table_pages), all), 0);
	mutex_unlock(&keel_hw_lock);
	return freed ?: SHRINK_STOP;
}

static struct shrinker *mmu_shrinker;

int mmu_shrinker_init(void)
{
	/* Each costs up to 512 faults to make again. */
	mmu_shrinker = keel_shrinker_add("keel-mmu", 10 * DEFAULT_SEEKS, shrink_count, shrink_scan);
	return mmu_shrinker ? 0 : -ENOMEM;
}

void mmu_shrinker_exit(void)
{
	keel_shrinker_free(mmu_shrinker);
}
