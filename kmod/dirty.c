// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirty.c - which pages of a slot were written (KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG).
 *
 * One bitmap a slot.  A bit is set by the write fault on a protected page (mmu/tdp.c, mmu.lock held for read) and by
 * keel's own writes to guest memory (guestmem.c).  Taking bits and protecting their pages again is one step under
 * mmu.lock held for write; TLBs are flushed once, before the ioctl returns, since only then may the VMM copy pages.
 * slots_lock keeps slot and bitmap.  Bits travel in pieces through a buffer of bounded size.
 */
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "keel.h"

#define CHUNK_LONGS	8192UL		/* 64 KB: the bits of 2 GB */

static struct keel_slot *logged_slot(struct keel_vm *vm, u32 id)
{
	struct keel_slot *slot;

	lockdep_assert_held(&vm->slots_lock);
	if ((u16)id >= KEEL_MAX_MEMSLOTS || id >> 16)
		return ERR_PTR(-EINVAL);
	slot = xa_load(&vm->slots.by_id, id);
	if (!slot || !slot->dirty)
		return ERR_PTR(-ENOENT);
	return slot;
}

/*
 * Take from @slot's bitmap, from word @first on, the bits that are set in buf[0..n) as well, and have those pages
 * protected.  The bits taken are left in @buf.  True if TLBs must be flushed.
 */
static bool take_bits(struct keel_vm *vm, struct keel_slot *slot, unsigned long first, unsigned long *buf,
		      unsigned long n)
{
	bool flush = false;
	unsigned long i;

	write_lock(&vm->mmu.lock);
	for (i = 0; i < n; i++) {
		atomic_long_t *word = (atomic_long_t *)&slot->dirty[first + i];

		/* Not written if there is nothing to take: most of a big guest is clean. */
		if (!(buf[i] & atomic_long_read(word))) {
			buf[i] = 0;
			continue;
		}
		buf[i] &= atomic_long_fetch_andnot(buf[i], word);
		flush |= mmu_protect_pages(vm, slot, slot->base_gfn + (first + i) * BITS_PER_LONG, buf[i]);
		if (i % 64 == 63)
			cond_resched_rwlock_write(&vm->mmu.lock);
	}
	write_unlock(&vm->mmu.lock);
	return flush;
}

static void give_back_bits(struct keel_slot *slot, unsigned long first, const unsigned long *buf, unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++)
		if (buf[i])
			atomic_long_or(buf[i], (atomic_long_t *)&slot->dirty[first + i]);
}

static unsigned long *chunk_alloc(unsigned long longs)
{
	return kvmalloc_array(min(longs, CHUNK_LONGS), sizeof(long), GFP_KERNEL_ACCOUNT);
}

static int log_get_and_clear(struct keel_vm *vm, struct keel_slot *slot, unsigned long __user *to)
{
	unsigned long longs = BITS_TO_LONGS(slot->npages), first, n, *chunk;
	bool flush = false;
	int err = 0;

	chunk = chunk_alloc(longs);
	if (!chunk)
		return -ENOMEM;
	for (first = 0; first < longs; first += n) {
		n = min(longs - first, CHUNK_LONGS);
		memset(chunk, 0xff, n * sizeof(long));
		flush |= take_bits(vm, slot, first, chunk, n);
		if (copy_to_user(to + first, chunk, n * sizeof(long))) {
			give_back_bits(slot, first, chunk, n);
			err = -EFAULT;
			break;
		}
	}
	if (flush)
		keel_flush_tlbs(vm);
	kvfree(chunk);
	return err;
}

VM_IOCTL(keel_get_dirty_log)
{
	const struct kvm_dirty_log *log = buf;
	struct keel_slot *slot;
	long err = 0;

	mutex_lock(&vm->slots_lock);
	slot = logged_slot(vm, log->slot);
	if (IS_ERR(slot))
		err = PTR_ERR(slot);
	else if (!(vm->slots.dirty_log_caps & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE))
		err = log_get_and_clear(vm, slot, log->dirty_bitmap);
	else if (copy_to_user(log->dirty_bitmap, slot->dirty, BITS_TO_LONGS(slot->npages) * sizeof(long)))
		err = -EFAULT;
	mutex_unlock(&vm->slots_lock);
	return err;
}

static int log_clear(struct keel_vm *vm, struct keel_slot *slot, const struct kvm_clear_dirty_log *log)
{
	const unsigned long __user *from = log->dirty_bitmap;
	unsigned long longs = BITS_TO_LONGS(log->num_pages), done, n, *chunk;
	bool flush = false;
	int err = 0;

	chunk = chunk_alloc(longs);
	if (!chunk)
		return -ENOMEM;
	for (done = 0; done < longs; done += n) {
		n = min(longs - done, CHUNK_LONGS);
		if (copy_from_user(chunk, from + done, n * sizeof(long))) {
			err = -EFAULT;
			break;
		}
		/* Bits behind the end of the slot are never set, so never taken. */
		flush |= take_bits(vm, slot, log->first_page / BITS_PER_LONG + done, chunk, n);
	}
	if (flush)
		keel_flush_tlbs(vm);
	kvfree(chunk);
	return err;
}

VM_IOCTL(keel_clear_dirty_log)
{
	const struct kvm_clear_dirty_log *log = buf;
	struct keel_slot *slot;
	long err;

	if (log->first_page % BITS_PER_LONG)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	slot = logged_slot(vm, log->slot);
	if (IS_ERR(slot)) {
		err = PTR_ERR(slot);
	} else if (log->first_page > slot->npages || log->num_pages > slot->npages - log->first_page ||
		   /* whole words, but for the end of the slot */
		   (log->num_pages % BITS_PER_LONG && log->num_pages != slot->npages - log->first_page)) {
		err = -EINVAL;
	} else {
		err = log->num_pages ? log_clear(vm, slot, log) : 0;
	}
	mutex_unlock(&vm->slots_lock);
	return err;
}

long keel_enable_dirty_log_caps(struct keel_vm *vm, u64 caps)
{
	u64 allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;

	if (caps & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
		allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
	if (caps & ~allowed)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	vm->slots.dirty_log_caps = caps;
	mutex_unlock(&vm->slots_lock);
	return 0;
}
