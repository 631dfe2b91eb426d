// SPDX-License-Identifier: GPL-2.0-only
/*
 * onereg.c - a vCPU's registers one by one, by a number of 64 bits (KVM_GET_ONE_REG, KVM_SET_ONE_REG, KVM_GET_REG_LIST;
 * api.rst 4.68, 4.69, 4.84).  On x86 they are the MSRs, which the list leaves to KVM_GET_MSR_INDEX_LIST, and those that
 * have no other name.
 *
 * Locks: vcpu->mutex.
 */
#include <linux/uaccess.h>
#include "ops.h"

static bool has_ssp(struct keel_vcpu *vcpu)
{
	return keel_guest_has(vcpu, X86_FEATURE_SHSTK);
}

static int get_ssp(struct keel_vcpu *vcpu, u64 *val)
{
	return keel_cet_get_msr(vcpu, KEEL_MSR_SSP, val, true);
}

static int set_ssp(struct keel_vcpu *vcpu, u64 val)
{
	return keel_cet_set_msr(vcpu, KEEL_MSR_SSP, val, true);
}

/* Those without another name, by what stands for an MSR's number in theirs. */
static const struct own_reg {
	u32 index;
	bool (*there)(struct keel_vcpu *vcpu);	/* does the guest have it? */
	int (*get)(struct keel_vcpu *vcpu, u64 *val);
	int (*set)(struct keel_vcpu *vcpu, u64 val);
} own_regs[] = {
	{ KVM_REG_GUEST_SSP, has_ssp, get_ssp, set_ssp },
};

#define ID_BITS(id)	((id) & ~(u64)U32_MAX)	/* all but the number */

/* *own: NULL, if it is an MSR.  No MSR need there be of that number. */
static int find_reg(struct keel_vcpu *vcpu, u64 id, const struct own_reg **own)
{
	const struct own_reg *reg;

	*own = NULL;
	if (ID_BITS(id) == KVM_X86_REG_MSR(0))
		return 0;
	if (ID_BITS(id) != KVM_X86_REG_KVM(0))
		return -EINVAL;
	for (reg = own_regs; reg < own_regs + ARRAY_SIZE(own_regs); reg++)
		if (reg->index == (u32)id && reg->there(vcpu)) {
			*own = reg;
			return 0;
		}
	return -EINVAL;
}

VCPU_IOCTL(keel_get_one_reg)
{
	const struct kvm_one_reg *reg = buf;
	const struct own_reg *own;
	u64 val;

	if (find_reg(vcpu, reg->id, &own))
		return -EINVAL;
	if (own ? own->get(vcpu, &val) : keel_get_msr(vcpu, reg->id, &val, true))
		return -EINVAL;
	return put_user(val, (u64 __user *)u64_to_user_ptr(reg->addr));
}

VCPU_IOCTL(keel_set_one_reg)
{
	const struct kvm_one_reg *reg = buf;
	const struct own_reg *own;
	u64 val;

	if (find_reg(vcpu, reg->id, &own))
		return -EINVAL;
	if (get_user(val, (u64 __user *)u64_to_user_ptr(reg->addr)))
		return -EFAULT;
	if (own ? own->set(vcpu, val) : keel_vmm_set_msr(vcpu, reg->id, val))
		return -EINVAL;
	return 0;
}

VCPU_IOCTL(keel_get_reg_list)
{
	struct kvm_reg_list __user *user = (void __user *)arg;
	const struct own_reg *reg;
	u64 room, n = 0;

	if (get_user(room, &user->n))
		return -EFAULT;
	for (reg = own_regs; reg < own_regs + ARRAY_SIZE(own_regs); reg++)
		n += reg->there(vcpu);
	if (put_user(n, &user->n))
		return -EFAULT;
	if (room < n)
		return -E2BIG;
	for (reg = own_regs, n = 0; reg < own_regs + ARRAY_SIZE(own_regs); reg++)
		if (reg->there(vcpu) && put_user(KVM_X86_REG_KVM(reg->index), &user->reg[n++]))
			return -EFAULT;
	return 0;
}
