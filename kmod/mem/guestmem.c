// SPDX-License-Identifier: GPL-2.0-only
/*
 * guestmem.c - a vCPU's thread reads and writes guest physical memory, through the user addresses behind it.
 *
 * No locks: the slots stand still between keel_vcpu_begin() and keel_vcpu_end(), and the thread's mm is the VM's.
 * In the fast loop page faults are disabled, so an access that would have to sleep fails and is tried again
 * outside (-EAGAIN).  The emulator and the guest walk come here several times an instruction: accesses of a
 * register's size inside a page have a way of their own.
 */
#include <linux/mmdebug.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include "keel.h"

static struct keel_slot *slot_lookup(struct keel_vcpu *vcpu, u64 gfn)
{
	struct keel_vcpu_mmu *mmu = &vcpu->mmu;
	struct keel_slot *slot;

	/* Outside somebody may be taking the slots apart. */
	WARN_ON_ONCE(!vcpu->in_loop);
	slot = keel_slot_find(vcpu->vm, vcpu->smm, gfn);
	if (mmu->slots_gen != vcpu->vm->slots.generation) {
		mmu->slots_gen = vcpu->vm->slots.generation;
		mmu->slots[0] = NULL;
	}
	if (slot) {
		mmu->slots[1] = mmu->slots[0];
		mmu->slots[0] = slot;
	}
	return slot;
}

static __always_inline bool slot_has(const struct keel_slot *slot, u64 gfn)
{
	return slot && gfn - slot->base_gfn < slot->npages;
}

static __always_inline struct keel_slot *vcpu_slot(struct keel_vcpu *vcpu, u64 gfn)
{
	struct keel_vcpu_mmu *mmu = &vcpu->mmu;

	VM_WARN_ON_ONCE(!vcpu->in_loop);	/* see above; on debug kernels, for this is the fastest of ways */
	if (likely(mmu->slots_gen == vcpu->vm->slots.generation)) {
		if (likely(slot_has(mmu->slots[0], gfn)))
			return mmu->slots[0];
		if (mmu->slots[0] && slot_has(mmu->slots[1], gfn)) {
			swap(mmu->slots[0], mmu->slots[1]);
			return mmu->slots[0];
		}
	}
	return slot_lookup(vcpu, gfn);
}

struct keel_slot *keel_vcpu_slot(struct keel_vcpu *vcpu, u64 gfn)
{
	return vcpu_slot(vcpu, gfn);
}

static __always_inline void __user *slot_user(const struct keel_slot *slot, u64 gpa)
{
	return (void __user *)(keel_slot_hva(slot, gpa >> PAGE_SHIFT) + offset_in_page(gpa));
}

static __always_inline struct keel_slot *writable_slot(struct keel_vcpu *vcpu, u64 gfn)
{
	struct keel_slot *slot = vcpu_slot(vcpu, gfn);

	return slot && !(slot->flags & KVM_MEM_READONLY) ? slot : NULL;
}

static int user_gone(const struct keel_vcpu *vcpu)
{
	return vcpu->atomic ? -EAGAIN : -EFAULT;
}

static int read_pages(struct keel_vcpu *vcpu, u64 gpa, void *buf, unsigned int len)
{
	while (len) {
		unsigned int n = min_t(unsigned int, len, PAGE_SIZE - offset_in_page(gpa));
		struct keel_slot *slot = vcpu_slot(vcpu, gpa >> PAGE_SHIFT);

		if (!slot)
			return -EFAULT;
		if (copy_from_user(buf, slot_user(slot, gpa), n))
			return user_gone(vcpu);
		gpa += n;
		buf += n;
		len -= n;
	}
	return 0;
}

#define READ_ONE(type) do {								\
	type val;									\
											\
	if (unlikely(get_user(val, (type __user *)slot_user(slot, gpa))))		\
		return user_gone(vcpu);							\
	memcpy(buf, &val, sizeof(val));							\
	return 0;									\
} while (0)

int keel_vcpu_read(struct keel_vcpu *vcpu, u64 gpa, void *buf, unsigned int len)
{
	struct keel_slot *slot;

	if (unlikely(offset_in_page(gpa) + len > PAGE_SIZE))
		return read_pages(vcpu, gpa, buf, len);
	slot = vcpu_slot(vcpu, gpa >> PAGE_SHIFT);
	if (unlikely(!slot))
		return -EFAULT;
	switch (len) {
	case 8:
		READ_ONE(u64);
	case 4:
		READ_ONE(u32);
	case 2:
		READ_ONE(u16);
	case 1:
		READ_ONE(u8);
	}
	return read_pages(vcpu, gpa, buf, len);
}

/*
 * After a write of keel's own: who has taken the news of it since keel_first_write() has not seen the write, and is
 * told again.  Sinks that want what was there before have it.
 */
static __always_inline void write_done(struct keel_vcpu *vcpu, struct keel_slot *slot, u64 gfn)
{
	keel_first_write(vcpu, slot, gfn);
}

static int write_pages(struct keel_vcpu *vcpu, u64 gpa, const void *buf, unsigned int len)
{
	while (len) {
		unsigned int n = min_t(unsigned int, len, PAGE_SIZE - offset_in_page(gpa));
		struct keel_slot *slot = writable_slot(vcpu, gpa >> PAGE_SHIFT);
		unsigned long left;
		int err;

		if (!slot)
			return -EFAULT;
		err = keel_first_write(vcpu, slot, gpa >> PAGE_SHIFT);
		if (err)
			return err;
		left = copy_to_user(slot_user(slot, gpa), buf, n);
		if (left < n)
			write_done(vcpu, slot, gpa >> PAGE_SHIFT);
		if (left)
			return user_gone(vcpu);
		gpa += n;
		buf += n;
		len -= n;
	}
	return 0;
}

#define WRITE_ONE(type) do {								\
	type val;									\
	int err = keel_first_write(vcpu, slot, gpa >> PAGE_SHIFT);			\
											\
	if (unlikely(err))								\
		return err;								\
	memcpy(&val, buf, sizeof(val));							\
	if (unlikely(put_user(val, (type __user *)slot_user(slot, gpa))))		\
		return user_gone(vcpu);							\
	write_done(vcpu, slot, gpa >> PAGE_SHIFT);					\
	return 0;									\
} while (0)

int keel_vcpu_write(struct keel_vcpu *vcpu, u64 gpa, const void *buf, unsigned int len)
{
	struct keel_slot *slot;

	if (unlikely(offset_in_page(gpa) + len > PAGE_SIZE))
		return write_pages(vcpu, gpa, buf, len);
	slot = writable_slot(vcpu, gpa >> PAGE_SHIFT);
	if (unlikely(!slot))
		return -EFAULT;
	switch (len) {
	case 8:
		WRITE_ONE(u64);
	case 4:
		WRITE_ONE(u32);
	case 2:
		WRITE_ONE(u16);
	case 1:
		WRITE_ONE(u8);
	}
	return write_pages(vcpu, gpa, buf, len);
}

/*
 * A locked access across cache lines stops the kernel where the host looks out for split locks: there, such an
 * operand (no sane guest has one) is compared and written without the lock.
 */
static int cmpxchg_unlocked(struct keel_vcpu *vcpu, u64 gpa, void *old, const void *new, unsigned int len)
{
	u8 now[8];
	int err;

	err = keel_vcpu_read(vcpu, gpa, now, len);
	if (err)
		return err;
	if (memcmp(now, old, len)) {
		memcpy(old, now, len);
		return 1;
	}
	return keel_vcpu_write(vcpu, gpa, new, len);
}

#define CMPXCHG_ONE(type) do {								\
	type was, val;									\
											\
	memcpy(&was, old, sizeof(was));							\
	memcpy(&val, new, sizeof(val));							\
	ret = __try_cmpxchg_user((type __user *)uaddr, &was, val, fault_##type);	\
	if (ret == 1)									\
		memcpy(old, &was, sizeof(was));						\
} while (0)

int keel_vcpu_cmpxchg(struct keel_vcpu *vcpu, u64 gpa, void *old, const void *new, unsigned int len)
{
	struct keel_slot *slot = writable_slot(vcpu, gpa >> PAGE_SHIFT);
	void __user *uaddr;
	int ret = -EFAULT, err;

	if (!slot || offset_in_page(gpa) + len > PAGE_SIZE)
		return -EFAULT;
	if (unlikely((gpa & (L1_CACHE_BYTES - 1)) + len > L1_CACHE_BYTES) &&
	    boot_cpu_has(X86_FEATURE_SPLIT_LOCK_DETECT))
		return cmpxchg_unlocked(vcpu, gpa, old, new, len);

	/* The instruction writes the operand back when it is not equal, too. */
	err = keel_first_write(vcpu, slot, gpa >> PAGE_SHIFT);
	if (err)
		return err;
	/* That the address is a user's was checked when the slot was made. */
	uaddr = slot_user(slot, gpa);
	switch (len) {
	case 8:
		CMPXCHG_ONE(u64);
		break;
	case 4:
		CMPXCHG_ONE(u32);
		break;
	case 2:
		CMPXCHG_ONE(u16);
		break;
	case 1:
		CMPXCHG_ONE(u8);
		break;
	}
	if (ret < 0)
		return user_gone(vcpu);
	write_done(vcpu, slot, gpa >> PAGE_SHIFT);
	return ret;
}
