// SPDX-License-Identifier: GPL-2.0-only
/*
 * translate.c - the guest walk on behalf of a vCPU: its registers and CPU model go in.  vCPU thread only.
 */
#include <asm/cpufeature.h>
#include "../keel.h"

static void walk_env(struct keel_vcpu *vcpu, struct mmu_walk_env *env)
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

int mmu_gva_to_gpa(struct keel_vcpu *vcpu, u64 gva, u32 access, u64 *gpa, struct emul_fault *fault)
{
	struct mmu_walk_env env;

	if (!keel_is_paging(vcpu)) {
		*gpa = (u32)gva;
		return 0;
	}
	walk_env(vcpu, &env);
	return mmu_walk(vcpu, &env, gva, access, gpa, fault);
}

bool mmu_load_pdptrs(struct keel_vcpu *vcpu, u64 cr3)
{
	struct mmu_walk_env env;
	u64 pdptrs[4];
	int ret;

	walk_env(vcpu, &env);
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
