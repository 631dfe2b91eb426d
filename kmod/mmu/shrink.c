// SPDX-License-Identifier: GPL-2.0-only
/*
 * shrink.c - how much memory tables may hold.  All that is in them can be found again by faults, so they are given
 * back when the host is short of memory (a shrinker), or when a VM has more than it may (KVM_SET_NR_MMU_PAGES).
 *
 * Taken out are the tables that map small pages, in the order of guest addresses and round again: those above are a
 * 512th of them, and large pages have none.  Locks: keel_hw_lock for the list of VMs, only if it is free, since who
 * holds it may be the one who needs the memory; mmu.lock for write.
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

	return asked ?: vm->slots.total_pages / 64 + 8 * vm->slots.count + TABLES_LEAST;
}

unsigned long mmu_shrink(struct keel_vm *vm, unsigned long n)
{
	struct mmu_zap zap = MMU_ZAP_INIT(zap);
	struct keel_mmu *mmu = &vm->mmu;
	unsigned int level, looks;
	unsigned long found = 0;
	u64 gfn;

	/* Not there yet, or no more: nor need the lock be. */
	if (!READ_ONCE(mmu->root))
		return 0;
	write_lock(&mmu->lock);
	gfn = mmu->shrink_gfn;
	for (looks = 0; looks < LOOKS_MOST && found < n && mmu_lookup(vm, gfn, &level); looks++) {
		if (level == 1) {
			mmu_zap_range(vm, gfn, gfn + mmu_level_pages(2), &zap);
			found++;
		}
		gfn = (gfn | (mmu_level_pages(max(level, 2U)) - 1)) + 1;
		if (gfn > mmu_max_gfn())
			gfn = 0;
	}
	mmu->shrink_gfn = gfn;
	mmu_zap_flush(vm, &zap);
	write_unlock(&mmu->lock);
	mmu_zap_free(vm, &zap, true);
	return found;
}

VM_IOCTL(mmu_set_nr_pages)
{
	if (arg < TABLES_LEAST || arg > UINT_MAX)
		return -EINVAL;
	WRITE_ONCE(vm->mmu.table_limit, arg);
	while (READ_ONCE(vm->stat.table_pages) > arg && mmu_shrink(vm, MMU_SHRINK_BATCH))
		;
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

	if (!mutex_trylock(&keel_hw_lock))
		return SHRINK_STOP;
	list_for_each_entry(vm, &keel_vms, list) {
		freed += mmu_shrink(vm, sc->nr_to_scan - freed);
		if (freed >= sc->nr_to_scan) {
			list_move_tail(&vm->list, &keel_vms);	/* next time it is another's turn */
			break;
		}
	}
	mutex_unlock(&keel_hw_lock);
	return freed ?: SHRINK_STOP;
}

static struct shrinker *mmu_shrinker;

int mmu_shrinker_init(void)
{
	mmu_shrinker = keel_shrinker_alloc("keel-mmu");
	if (!mmu_shrinker)
		return -ENOMEM;
	mmu_shrinker->count_objects = shrink_count;
	mmu_shrinker->scan_objects = shrink_scan;
	mmu_shrinker->seeks = 10 * DEFAULT_SEEKS;	/* each costs up to 512 faults */
	return keel_shrinker_register(mmu_shrinker, "keel-mmu");
}

void mmu_shrinker_exit(void)
{
	keel_shrinker_free(mmu_shrinker);
}
