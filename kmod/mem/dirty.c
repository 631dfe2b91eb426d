// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirty.c - which pages of a slot were written (KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG; dirty rings, api.rst 8.29).
 *
 * One hook, keel_first_write(), stands before the first write to a page since somebody began to watch it: the write
 * fault on a protected page comes there (mmu/tdp.c, mmu.lock held for read), keel's own writes to guest memory do
 * (guestmem.c), and where the CPU lists what it writes, the backend at each exit, afterwards.  There a page is protected by
 * taking its dirty bit away (struct mmu_format, logged), unless it is of a slot with a sink that has to know before.
 *
 * The sinks: one bitmap a slot, the vCPU's ring, and a snapshot's store, which is the one that has to know before.  Taking
 * bits and protecting their pages again is one step under mmu.lock held for write; TLBs are flushed once, before the ioctl
 * returns, since only then may the VMM copy pages.  slots_lock keeps slot and bitmap.  Bits travel in pieces through a buffer of bounded size.
 *
 * With dirty rings the bitmap stays, and says which pages are listed in some vCPU's ring: one that is gets no second
 * entry, whoever writes it, until the VMM has given the first back.
 */
#include <linux/compat.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include "ops.h"

#define CHUNK_LONGS	8192UL		/* 64 KB: the bits of 2 GB */

/* ------------------------------------------------------------- sinks */

/*
 * Entries that a full ring has still free: what one way into the guest and out of it can add.  An instruction that is
 * emulated dirties the tables of its operands' pages as well, and the clock has pages of its own.
 */
static u32 ring_reserved(void)
{
	return 64 + keel_hw.dirty_log_size;
}

static u32 ring_used(const struct keel_dirty_ring *ring)
{
	return ring->dirty_index - smp_load_acquire(&ring->reset_index);
}

bool keel_ring_full(struct keel_vcpu *vcpu)
{
	return ring_used(&vcpu->ring) >= vcpu->vm->slots.ring_entries - ring_reserved();
}

static void ring_push(struct keel_vcpu *vcpu, u32 slot, u64 offset)
{
	struct keel_dirty_ring *ring = &vcpu->ring;
	u32 size = vcpu->vm->slots.ring_entries;
	struct kvm_dirty_gfn *entry = &ring->entries[ring->dirty_index & (size - 1)];

	if (unlikely(ring_used(ring) >= size)) {
		/* Better no guest than one of which a page is lost on its way to another host. */
		WRITE_ONCE(vcpu->vm->dead, true);
		keel_request(KEEL_REQ_VM_DEAD, vcpu);
		return;
	}
	WRITE_ONCE(entry->slot, slot);
	WRITE_ONCE(entry->offset, offset);
	smp_store_release(&entry->flags, KVM_DIRTY_GFN_F_DIRTY);	/* with whoever harvests */
	smp_store_release(&ring->dirty_index, ring->dirty_index + 1);	/* with ring_reset() */
	if (keel_ring_full(vcpu))
		keel_request(KEEL_REQ_RING_FULL, vcpu);
}

/*
 * A locked instruction whether the bit was set or not: it orders a write to the page made before the look at the
 * bitmap, so whoever takes the bit away sees the write.
 */
int keel_tell_sinks(struct keel_vcpu *vcpu, struct keel_slot *slot, u64 gfn, bool locked)
{
	u64 offset = gfn - slot->base_gfn;
	int err;

	if (slot->kept) {
		err = keel_keep(vcpu->vm, slot, gfn, !locked && !vcpu->atomic);
		if (err)
			return err;
	}
	if (slot->dirty && !test_and_set_bit(offset, slot->dirty) && vcpu->ring.entries)
		ring_push(vcpu, slot->id, offset);
	return 0;
}

unsigned long keel_rings_room(struct keel_vm *vm)
{
	u32 usable = vm->slots.ring_entries - ring_reserved();
	struct keel_vcpu *vcpu;
	unsigned long room = 0;
	unsigned int i;

	keel_for_each_vcpu(vcpu, i, vm)
		room += usable - min(usable, ring_used(&vcpu->ring));
	return room;
}

/* Nobody wrote it for a vCPU: whichever has room lists it. */
void keel_log_restored(struct keel_vm *vm, struct keel_slot *slot, u64 gfn)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	if (test_and_set_bit(gfn - slot->base_gfn, slot->dirty) || !vm->slots.ring_entries)
		return;
	keel_for_each_vcpu(vcpu, i, vm) {
		if (keel_ring_full(vcpu))
			continue;
		ring_push(vcpu, slot->id, gfn - slot->base_gfn);
		return;
	}
}

/* ------------------------------------------------------------- bitmaps */

static struct keel_slot *logged_slot(struct keel_vm *vm, u32 id)
{
	struct keel_slot *slot;

	lockdep_assert_held(&vm->slots_lock);
	if (!keel_slot_id_valid(id))
		return ERR_PTR(-EINVAL);
	slot = xa_load(&vm->slots.by_id, id);
	if (!slot || !slot->dirty)
		return ERR_PTR(-ENOENT);
	return slot;
}

/* For the two ioctls that hand out and take back bitmaps. */
static struct keel_slot *bitmap_slot(struct keel_vm *vm, u32 id)
{
	return vm->slots.ring_entries ? ERR_PTR(-ENXIO) : logged_slot(vm, id);
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

		/* Whatever the words in between are: which pages are dirty is the guest's choice. */
		if (i % 64 == 63)
			cond_resched_rwlock_write(&vm->mmu.lock);
		/* Not written if there is nothing to take: most of a big guest is clean. */
		if (!(buf[i] & atomic_long_read(word))) {
			buf[i] = 0;
			continue;
		}
		buf[i] &= atomic_long_fetch_andnot(buf[i], word);
		flush |= mmu_protect_pages(vm, slot, slot->base_gfn + (first + i) * BITS_PER_LONG, buf[i]);
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

/* A program of 32 bits sets no more of the pointer than it has. */
static void __user *log_bitmap(void __user *bitmap)
{
	return in_compat_syscall() ? compat_ptr((uintptr_t)bitmap) : bitmap;
}

VM_IOCTL(keel_get_dirty_log)
{
	const struct kvm_dirty_log *log = buf;
	void __user *bitmap = log_bitmap(log->dirty_bitmap);
	struct keel_slot *slot;
	long err = 0;

	mutex_lock(&vm->slots_lock);
	slot = bitmap_slot(vm, log->slot);
	/* What CPUs have listed comes here as they leave the guest. */
	if (!IS_ERR(slot) && keel_hw.dirty_log_size)
		keel_request_all(vm, KEEL_REQ_KICK, true);
	if (IS_ERR(slot))
		err = PTR_ERR(slot);
	else if (!(vm->slots.dirty_log_caps & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE))
		err = log_get_and_clear(vm, slot, bitmap);
	else if (copy_to_user(bitmap, slot->dirty, BITS_TO_LONGS(slot->npages) * sizeof(long)))
		err = -EFAULT;
	mutex_unlock(&vm->slots_lock);
	return err;
}

static int log_clear(struct keel_vm *vm, struct keel_slot *slot, const struct kvm_clear_dirty_log *log)
{
	const unsigned long __user *from = log_bitmap(log->dirty_bitmap);
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
	slot = bitmap_slot(vm, log->slot);
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

/* ------------------------------------------------------------- dirty rings */

/* Pages of one word of a slot's bitmap, out of a ring. */
struct ring_run {
	u32 slot;
	u64 word;
	unsigned long bits;
};

static bool take_run(struct keel_vm *vm, struct ring_run *run)
{
	struct keel_slot *slot = logged_slot(vm, run->slot);

	if (IS_ERR(slot) || run->word >= BITS_TO_LONGS(slot->npages))
		return false;
	return take_bits(vm, slot, run->word, &run->bits, 1);
}

/*
 * Give back what the VMM has harvested.  It may write what it likes to the ring, meanwhile too: how many entries there
 * are to look at is known without it, and slot and page are read once and mean nothing but that the page is to be
 * watched again; if it was not listed, nothing happens.
 */
static u32 ring_reset(struct keel_vm *vm, struct keel_dirty_ring *ring, bool *flush)
{
	u32 behind = smp_load_acquire(&ring->dirty_index), first = ring->reset_index, at;
	struct ring_run run = {};

	for (at = first; at != behind; at++) {
		struct kvm_dirty_gfn *entry = &ring->entries[at & (vm->slots.ring_entries - 1)];
		u32 slot;
		u64 offset;

		if (!(smp_load_acquire(&entry->flags) & KVM_DIRTY_GFN_F_RESET))
			break;
		slot = READ_ONCE(entry->slot);
		offset = READ_ONCE(entry->offset);
		WRITE_ONCE(entry->flags, 0);
		if (slot != run.slot || offset / BITS_PER_LONG != run.word) {
			*flush |= take_run(vm, &run);
			run = (struct ring_run) { .slot = slot, .word = offset / BITS_PER_LONG };
			cond_resched();
		}
		run.bits |= BIT(offset % BITS_PER_LONG);
	}
	*flush |= take_run(vm, &run);
	smp_store_release(&ring->reset_index, at);
	return at - first;
}

VM_IOCTL(keel_reset_dirty_rings)
{
	struct keel_vcpu *vcpu;
	bool flush = false;
	unsigned int i;
	long n = 0;

	mutex_lock(&vm->slots_lock);
	if (vm->slots.ring_entries) {
		keel_for_each_vcpu(vcpu, i, vm)
			n += ring_reset(vm, &vcpu->ring, &flush);
		if (flush)
			keel_flush_tlbs(vm);
	} else {
		n = -EINVAL;
	}
	mutex_unlock(&vm->slots_lock);
	return n;
}

/* vm->lock is held: no vCPU comes into being meanwhile. */
long keel_enable_dirty_ring(struct keel_vm *vm, u64 arg)
{
	u32 bytes = arg;	/* has always been told in so many bits: the others are not looked at */
	u32 entries = bytes / sizeof(struct kvm_dirty_gfn);
	struct keel_slot *slot;
	unsigned long id;

	lockdep_assert_held(&vm->lock);
	if (!is_power_of_2(bytes) || bytes < PAGE_SIZE || entries < ring_reserved())
		return -EINVAL;
	if (entries > KEEL_DIRTY_RING_MAX)
		return -E2BIG;
	if (vm->slots.ring_entries || vm->nr_vcpus)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	vm->slots.ring_entries = entries;
	/* No vCPU has written anything: a page that counts as dirty was only said to. */
	xa_for_each(&vm->slots.by_id, id, slot)
		if (slot->dirty)
			bitmap_zero(slot->dirty, slot->npages);
	mutex_unlock(&vm->slots_lock);
	return 0;
}

unsigned long keel_ring_pages(struct keel_vm *vm)
{
	return vm->slots.ring_entries * sizeof(struct kvm_dirty_gfn) / PAGE_SIZE;
}

struct page *keel_ring_page(struct keel_vcpu *vcpu, unsigned long index)
{
	if (index >= keel_ring_pages(vcpu->vm))
		return NULL;
	return vmalloc_to_page((void *)vcpu->ring.entries + index * PAGE_SIZE);
}

int keel_ring_init(struct keel_vcpu *vcpu)
{
	if (!vcpu->vm->slots.ring_entries)
		return 0;
	vcpu->ring.entries = __vmalloc(keel_ring_pages(vcpu->vm) * PAGE_SIZE, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	return vcpu->ring.entries ? 0 : -ENOMEM;
}

void keel_ring_free(struct keel_vcpu *vcpu)
{
	vfree(vcpu->ring.entries);
}
