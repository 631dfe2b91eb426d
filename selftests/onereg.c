// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registers one by one (KVM_GET_ONE_REG and its like): the MSRs, and those that
 * have no other name.
 */
#include "test.h"

FIXTURE(onereg) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(onereg)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
	if (!vm_cap(self->vm, KVM_CAP_ONE_REG))
		SKIP_FIXTURE("no KVM_CAP_ONE_REG");
}

FIXTURE_TEARDOWN(onereg)
{
	vm_free(self->vm);
}

static int get_reg(struct vcpu *v, u64 id, u64 *val)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)val };

	return xioctl(v->fd, KVM_GET_ONE_REG, &reg);
}

static int set_reg(struct vcpu *v, u64 id, u64 val)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&val };

	return xioctl(v->fd, KVM_SET_ONE_REG, &reg);
}

TEST_F(onereg, msrs)
{
	struct vcpu *v = self->v;
	u64 val;

	EXPECT_EQ(1, xioctl(self->vm->sys, KVM_CHECK_EXTENSION, KVM_CAP_ONE_REG));
	EXPECT_EQ(0, set_reg(v, KVM_X86_REG_MSR(MSR_LSTAR), 0xffffffff81000000ULL));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_LSTAR, &val));
	EXPECT_EQ(0xffffffff81000000ULL, val);
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_STAR, 0x0023001000000000ULL));
	EXPECT_EQ(0, get_reg(v, KVM_X86_REG_MSR(MSR_STAR), &val));
	EXPECT_EQ(0x0023001000000000ULL, val);
	/* a value that it cannot have changes nothing */
	EXPECT_EQ(-EINVAL, set_reg(v, KVM_X86_REG_MSR(MSR_LSTAR), 0x1234567812345678ULL));
	EXPECT_EQ(0, get_reg(v, KVM_X86_REG_MSR(MSR_LSTAR), &val));
	EXPECT_EQ(0xffffffff81000000ULL, val);
}

/* Each that is listed can be had in both ways, or in none */
TEST_F(onereg, all_msrs)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + 4096);
	u64 one, other;
	u32 i;

	l->nmsrs = 1024;
	must(ioctl(self->vm->sys, KVM_GET_MSR_INDEX_LIST, l));
	for (i = 0; i < l->nmsrs; i++) {
		u32 msr = l->indices[i];
		int n = vcpu_get_msr(self->v, msr, &one);

		EXPECT_EQ(n == 1 ? 0 : -EINVAL, get_reg(self->v, KVM_X86_REG_MSR(msr), &other))
			TH_LOG("MSR %#x", msr);
		/* but for those that tell the time */
		if (n == 1 && one != other)
			EXPECT_LT(one, other)
				TH_LOG("MSR %#x", msr);
	}
	free(l);
}

TEST_F(onereg, refusals)
{
	u64 star = KVM_X86_REG_MSR(MSR_STAR), val = 0x55, i;
	struct vcpu *v = self->v;
	struct kvm_one_reg reg = { .id = star, .addr = 8 };
	const u64 bad[] = {
		(star & ~KVM_REG_ARCH_MASK) | KVM_REG_ARM64,
		star & ~KVM_REG_ARCH_MASK,
		(star & ~KVM_REG_SIZE_MASK) | KVM_REG_SIZE_U32,
		(star & ~KVM_REG_SIZE_MASK) | KVM_REG_SIZE_U128,
		star | 1ULL << 40,			/* reserved */
		star | 1ULL << 47,
		star | 1ULL << 48,
		star | 1ULL << 51,
		star - (1ULL << 32),			/* no such type */
		star - (2ULL << 32),
		star + (2ULL << 32),
		KVM_X86_REG_MSR(0x12345678),
		KVM_X86_REG_KVM(1),
		KVM_X86_REG_KVM(0x12345678),
	};

	EXPECT_EQ(0, set_reg(v, star, 0x0023001000000000ULL));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, get_reg(v, bad[i], &val))
			TH_LOG("%#lx", bad[i]);
		EXPECT_EQ(0x55, val);
		EXPECT_EQ(-EINVAL, set_reg(v, bad[i], 0))
			TH_LOG("%#lx", bad[i]);
		/* its number is looked at before its address */
		reg.id = bad[i];
		if (bad[i] != KVM_X86_REG_MSR(0x12345678))
			EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_ONE_REG, &reg));
	}
	reg.id = star;
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_GET_ONE_REG, &reg));
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_SET_ONE_REG, &reg));
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_GET_ONE_REG, (void *)8));
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_SET_ONE_REG, (void *)8));
	EXPECT_EQ(0, get_reg(v, star, &val));
	EXPECT_EQ(0x0023001000000000ULL, val);
}

/* The list has those that are no MSRs: so far the shadow stack's pointer, of guests that have shadow stacks */
TEST_F(onereg, list)
{
	struct {
		struct kvm_reg_list l;
		u64 reg[4];
	} list = { .reg = { 1, 2, 3, 4 } };
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 7, 0);
	u64 n = e && e->ecx & 1 << 7, ssp = KVM_X86_REG_KVM(KVM_REG_GUEST_SSP), val = 0x55;
	struct vcpu *bare = vcpu_bare(self->vm, 1);

	EXPECT_EQ(n ? -E2BIG : 0, xioctl(self->v->fd, KVM_GET_REG_LIST, &list));
	EXPECT_EQ(n, list.l.n);
	EXPECT_EQ(1, list.reg[0]);
	list.l.n = 4;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_GET_REG_LIST, &list));
	EXPECT_EQ(n, list.l.n);
	EXPECT_EQ(n ? ssp : 1, list.reg[0]);
	EXPECT_EQ(2, list.reg[1]);
	EXPECT_EQ(-EFAULT, xioctl(self->v->fd, KVM_GET_REG_LIST, (void *)8));
	EXPECT_EQ(n ? 0 : -EINVAL, set_reg(self->v, ssp, 0x1000));
	EXPECT_EQ(n ? 0 : -EINVAL, get_reg(self->v, ssp, &val));
	EXPECT_EQ(n ? 0x1000 : 0x55, val);
	/* a vCPU that was given no CPUID has none */
	list.l.n = 4;
	EXPECT_EQ(0, xioctl(bare->fd, KVM_GET_REG_LIST, &list));
	EXPECT_EQ(0, list.l.n);
	EXPECT_EQ(-EINVAL, get_reg(bare, ssp, &val));
	EXPECT_EQ(-EINVAL, set_reg(bare, ssp, 0x1000));
}

TEST_HARNESS_MAIN
