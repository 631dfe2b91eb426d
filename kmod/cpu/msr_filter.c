// SPDX-License-Identifier: GPL-2.0-only
/*
 * msr_filter.c - which MSRs a guest may read and write, by what its VMM said (KVM_X86_SET_MSR_FILTER, api.rst 4.97).
 *
 * Lock: the filter changes while the VM is paused.
 */
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "ops.h"

/* May the guest do so, by what the VMM said?  The x2APIC's registers are always the APIC's to judge. */
bool keel_msr_filter_allows(struct keel_vcpu *vcpu, u32 msr, u32 access)
{
	const struct kvm_msr_filter *filter = vcpu->vm->msr_filter;
	unsigned int i;

	if (msr - 0x800 < 0x100)
		return true;
	for (i = 0; i < ARRAY_SIZE(filter->ranges); i++) {
		const struct kvm_msr_filter_range *r = &filter->ranges[i];
		u32 n = msr - r->base;

		if (n < r->nmsrs && (r->flags & access))
			return r->bitmap[array_index_nospec(n, r->nmsrs) / 8] & BIT(n % 8);
	}
	return !(filter->flags & KVM_MSR_FILTER_DEFAULT_DENY);
}

void keel_msr_filter_free(struct kvm_msr_filter *filter)
{
	unsigned int i;

	for (i = 0; filter && i < ARRAY_SIZE(filter->ranges); i++)
		kfree(filter->ranges[i].bitmap);
	kfree(filter);
}

/* The bitmap, the user's or the kernel's, is copied; an empty range is none. */
static int filter_copy_range(struct kvm_msr_filter_range *to, const struct kvm_msr_filter_range *from, bool user)
{
	size_t bytes = DIV_ROUND_UP_ULL(from->nmsrs, 8);
	u8 *bitmap;

	if (!from->nmsrs)
		return 0;
	if (!from->flags || from->flags & ~(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE) ||
	    bytes > KVM_MSR_FILTER_MAX_BITMAP_SIZE)
		return -EINVAL;
	bitmap = kmalloc(bytes, GFP_KERNEL_ACCOUNT);
	if (!bitmap)
		return -ENOMEM;
	if (!user) {
		memcpy(bitmap, from->bitmap, bytes);
	} else if (copy_from_user(bitmap, (const void __user *)(unsigned long)from->bitmap, bytes)) {
		kfree(bitmap);
		return -EFAULT;
	}
	*to = *from;
	to->bitmap = bitmap;
	return 1;
}

static long filter_set(struct keel_vm *vm, const struct kvm_msr_filter *in, bool user)
{
	struct kvm_msr_filter *filter, *old;
	unsigned int i, used = 0;
	int r = 0;

	if (in->flags & ~KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	filter = kzalloc(sizeof(*filter), GFP_KERNEL_ACCOUNT);
	if (!filter)
		return -ENOMEM;
	filter->flags = in->flags;
	for (i = 0; r >= 0 && i < ARRAY_SIZE(filter->ranges); i++) {
		r = filter_copy_range(&filter->ranges[i], &in->ranges[i], user);
		used += r > 0;
	}
	/* Nothing but a default would be no filter; as a denial it is a mistake. */
	if (r >= 0 && !used && filter->flags)
		r = -EINVAL;
	if (r < 0 || !used) {
		keel_msr_filter_free(filter);
		filter = NULL;
	}
	if (r < 0)
		return r;
	keel_vm_pause(vm);
	old = vm->msr_filter;
	vm->msr_filter = filter;
	keel_request_all(vm, KEEL_REQ_INTERCEPTS, false);
	keel_vm_resume(vm);
	keel_msr_filter_free(old);
	return 0;
}

VM_IOCTL(keel_set_msr_filter)
{
	return filter_set(vm, buf, true);
}

/* ------------------------------------------------------------- in the set-up */

size_t keel_msr_filter_setup(const struct keel_vm *vm, void *buf)
{
	const struct kvm_msr_filter *filter = vm->msr_filter;
	struct keel_setup_msr_filter *s = buf;
	size_t size = sizeof(*s);
	unsigned int i;

	BUILD_BUG_ON(ARRAY_SIZE(s->range) != ARRAY_SIZE(filter->ranges));
	if (!filter)
		return 0;
	if (s)
		s->flags = filter->flags;
	for (i = 0; i < ARRAY_SIZE(filter->ranges); i++) {
		const struct kvm_msr_filter_range *r = &filter->ranges[i];
		size_t bytes = DIV_ROUND_UP_ULL(r->nmsrs, 8);

		if (s) {
			s->range[i].flags = r->flags;
			s->range[i].nmsrs = r->nmsrs;
			s->range[i].base = r->base;
			memcpy(buf + size, r->bitmap, bytes);
		}
		size += bytes;
	}
	return size;
}

long keel_msr_filter_from(struct keel_vm *vm, const void *buf, size_t size)
{
	const struct keel_setup_msr_filter *s = buf;
	struct kvm_msr_filter filter = {};
	size_t at = sizeof(*s);
	unsigned int i;

	if (size < at || s->reserved)
		return -EINVAL;
	filter.flags = s->flags;
	for (i = 0; i < ARRAY_SIZE(filter.ranges); i++) {
		size_t bytes = DIV_ROUND_UP_ULL(s->range[i].nmsrs, 8);

		if (bytes > size - at || s->range[i].reserved)
			return -EINVAL;
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = s->range[i].flags, .nmsrs = s->range[i].nmsrs, .base = s->range[i].base,
			.bitmap = (u8 *)buf + at,
		};
		at += bytes;
	}
	return at == size ? filter_set(vm, &filter, false) : -EINVAL;
}
