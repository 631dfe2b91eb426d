// SPDX-License-Identifier: GPL-2.0-only
/*
 * translate.c - the guest walk on behalf of a vCPU: its registers and CPU model go in.  vCPU thread only.
 *
 * An exit for MMIO takes two walks, for the instruction and for its operand, and the next one is mostly the same
 * again.  So a walk is remembered with the registers it depended on and the entries it went through; if all of them
 * are still what they were, so is its result.  That is exact where a TLB would not be: a guest's change of its
 * tables needs no flush to be seen.
 */
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include "ops.h"

void mmu_walk_env(struct keel_vcpu *vcpu, struct mmu_walk_env *env)
{
	env->cr0 = keel_cr0(vcpu);
	env->cr3 = keel_cr3(vcpu);
	env->cr4 = keel_cr4(vcpu);
	env->efer = vcpu->efer;
	env->maxphyaddr = vcpu->model.maxphyaddr;
	/* With two-dimensional paging the CPU walks for itself and goes by what it can do, not by what CPUID says. */
	env->gbpages = boot_cpu_has(X86_FEATURE_GBPAGES);
	env->ac = env->cr4 & X86_CR4_SMAP && keel_rflags(vcpu) & X86_EFLAGS_AC;
	env->pkru = vcpu->fpu.pkru;
}

static struct mmu_memo *memo_slot(struct keel_vcpu *vcpu, u64 gva, u32 access)
{
	unsigned int half = MMU_MEMOS / 2;

	return &vcpu->mmu.memo[(gva >> PAGE_SHIFT) % half + (access & MMU_ACC_FETCH ? half : 0)];
}

static __always_inline bool memo_holds(struct keel_vcpu *vcpu, const struct mmu_memo *m,
				       const struct mmu_walk_env *env, u64 gva, u32 access)
{
	const struct mmu_walk_env *was = &m->env;
	u64 __user *const *at = m->at;
	const u64 *entry = m->entry;
	unsigned int left;
	u64 diff, now;

	diff = (gva & PAGE_MASK) ^ m->page;
	diff |= access ^ m->access;
	diff |= vcpu->vm->slots.generation ^ m->slots_gen;
	diff |= env->cr0 ^ was->cr0;
	diff |= env->cr3 ^ was->cr3;
	diff |= env->cr4 ^ was->cr4;
	diff |= env->efer ^ was->efer;
	diff |= (env->pkru ^ was->pkru) | (env->maxphyaddr ^ was->maxphyaddr) | (env->ac ^ was->ac);
	if (diff || !m->levels)
		return false;

	/* Addresses of slots, which were checked when the slots were made. */
	if (!user_read_access_begin(m->at[0], sizeof(now)))
		return false;
	/* By pointers: the check of an index would be a call, which is not for this place. */
	for (left = m->levels; left; left--) {
		unsafe_get_user(now, *at++, gone);
		diff |= now ^ *entry++;
	}
	user_read_access_end();
	return !diff;
gone:
	user_read_access_end();
	return false;
}

/* A CPU that has them in registers goes by those, whatever is in memory by now. */
static const u64 *walk_pdptrs(struct keel_vcpu *vcpu, const struct mmu_walk_env *env)
{
	if (!keel_hw.pdptrs || !(env->cr4 & X86_CR4_PAE) || env->efer & EFER_LMA)
		return NULL;
	if (!(vcpu->avail & BIT(KEEL_LAZY_PDPTRS)))
		keel_cache_reg(vcpu, KEEL_LAZY_PDPTRS);
	return vcpu->pdptrs;
}

static noinline int walk_and_note(struct keel_vcpu *vcpu, struct mmu_memo *m, u64 gva, u32 access, u64 *gpa,
				  struct emul_fault *fault)
{
	struct mmu_walk_env env;
	struct mmu_path path;
	unsigned int i;
	int ret;

	mmu_walk_env(vcpu, &env);
	env.pdptrs = walk_pdptrs(vcpu, &env);
	ret = mmu_walk(vcpu, &env, gva, access, gpa, fault, &path);
	if (ret)
		return ret;
	m->levels = 0;
	for (i = 0; i < path.levels; i++) {
		struct keel_slot *slot = keel_vcpu_slot(vcpu, path.addr[i] >> PAGE_SHIFT);

		if (!slot)
			return 0;
		m->at[i] = (u64 __user *)(keel_slot_hva(slot, path.addr[i] >> PAGE_SHIFT) +
					  offset_in_page(path.addr[i]));
		m->entry[i] = path.entry[i];
	}
	m->env = env;
	m->page = gva & PAGE_MASK;
	m->gpa = *gpa & PAGE_MASK;
	m->access = access;
	m->slots_gen = vcpu->vm->slots.generation;
	m->levels = path.levels;
	return 0;
}

int mmu_gva_to_gpa(struct keel_vcpu *vcpu, u64 gva, u32 access, u64 *gpa, struct emul_fault *fault)
{
	struct mmu_memo *m = memo_slot(vcpu, gva, access);
	struct mmu_walk_env env;

	if (!keel_is_paging(vcpu)) {
		*gpa = (u32)gva;
		return 0;
	}
	mmu_walk_env(vcpu, &env);
	if (likely(memo_holds(vcpu, m, &env, gva, access))) {
		*gpa = m->gpa | offset_in_page(gva);
		return 0;
	}
	return walk_and_note(vcpu, m, gva, access, gpa, fault);
}

bool mmu_load_pdptrs(struct keel_vcpu *vcpu, u64 cr3)
{
	struct mmu_walk_env env;
	u64 pdptrs[4];
	int ret;

	mmu_walk_env(vcpu, &env);
	env.cr3 = cr3;
	ret = mmu_walk_pdptrs(vcpu, &env, pdptrs);
	if (ret == 1) {
		memcpy(vcpu->pdptrs, pdptrs, sizeof(pdptrs));
		vcpu->avail |= BIT(KEEL_LAZY_PDPTRS);
		vcpu->dirty |= BIT(KEEL_LAZY_PDPTRS);
	}
	return ret == 1;
}

VCPU_IOCTL(mmu_translate)
{
	struct kvm_translation *tr = buf;
	struct emul_fault fault;
	u64 gpa;
	int ret;

	ret = mmu_gva_to_gpa(vcpu, tr->linear_address, MMU_ACC_ANY | MMU_ACC_NOAD, &gpa, &fault);
	if (ret < 0)
		return ret;
	tr->valid = !ret;
	tr->physical_address = ret ? ~0ULL : gpa;
	tr->writeable = 1;
	tr->usermode = 0;
	return 0;
}
