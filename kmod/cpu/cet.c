// SPDX-License-Identifier: GPL-2.0-only
/*
 * cet.c - control-flow enforcement for guests: shadow stacks, and indirect branches that have to find an ENDBR.  SDM vol. 1
 * chapter 17, vol. 3A 4.6 and 6.12; APM vol. 2 chapter 18.
 *
 * S_CET, SSP and the table of SSPs for interrupts are the backend's: entries and exits switch them.  The other MSRs
 * nobody does: they are the guest's from keel_fpu_load() to keel_fpu_save(), where they mean nothing to the kernel, which
 * has no shadow stacks of its own, and then again what they were before.  So they come back for a task that has a shadow
 * stack whether the kernel has it in XSS, and loads it once more on the way to user mode, or knows nothing of all this.
 *
 * A guest that may have it reads and writes the MSRs, XSAVES and XRSTORS go to them, and calls and exceptions change them,
 * all without an exit: they are read back after each stay.  Others pay one look at a flag for a stay.
 *
 * What the kernel does with it is no matter here (ibt=off, nousershstk): the CPU is asked.  What is not offered with
 * shadow tables (ept=0, npt=0), for these would need pages of the kind too.
 *
 * Lock: vcpu->mutex.
 */
#include <linux/build_bug.h>
#include <asm/cpufeature.h>
#include <asm/msr.h>
#include "msr.h"
#include "ops.h"

static struct {
	u32 shstk, ibt;		/* bits of CPUID leaf 7's ECX and EDX */
} host __ro_after_init;

#define SHSTK_BITS	(CET_SHSTK_EN | CET_WRSS_EN)
#define EITHER_BIT	(CET_SHSTK_EN | CET_ENDBR_EN)

/* The first are those switched here. */
const u32 keel_cet_msrs[KEEL_NR_CET_MSRS] = {
	MSR_IA32_U_CET, MSR_IA32_PL0_SSP, MSR_IA32_PL1_SSP, MSR_IA32_PL2_SSP, MSR_IA32_PL3_SSP,
	MSR_IA32_S_CET, MSR_IA32_INT_SSP_TAB,
};

/* A CPU without shadow stacks has the first only. */
static unsigned int nr_switched(void)
{
	return host.shstk ? KEEL_CET_SWITCHED : 1;
}

void keel_cet_setup(void)
{
	u32 eax, ebx, ecx, edx;

	/*
	 * Guests' kernels switch their tasks' part of it by XSAVES, and may look at no more than the feature's own bit: where there
	 * is none of that one task would run with another's.
	 */
	if (!keel_hw.cet || cpuid_eax(0) < 7 || !keel_fpu_has_cet())
		return;
	cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
	host.shstk = ecx & BIT(X86_FEATURE_SHSTK & 31);
	host.ibt = edx & BIT(X86_FEATURE_IBT & 31);
}

u32 keel_cet_offers(unsigned int x86_feature)
{
	return x86_feature == X86_FEATURE_SHSTK ? host.shstk : host.ibt;
}

bool keel_cet_lists(u32 msr)
{
	return host.shstk || (host.ibt && (msr == MSR_IA32_U_CET || msr == MSR_IA32_S_CET));
}

static bool has(struct keel_vcpu *vcpu, unsigned int x86_feature)
{
	return keel_cet_offers(x86_feature) && keel_guest_has(vcpu, x86_feature);
}

/* For good: CR4 and XSS may have it by now, and keep it if a VMM thinks better of it. */
void keel_cet_derive(struct keel_vcpu *vcpu)
{
	vcpu->fpu.cet.used |= has(vcpu, X86_FEATURE_SHSTK) || has(vcpu, X86_FEATURE_IBT);
}

/* If there is nothing in them that is to be kept from it. */
bool keel_cet_open(struct keel_vcpu *vcpu)
{
	return vcpu->fpu.cet.used && has(vcpu, X86_FEATURE_SHSTK) == !!host.shstk &&
	       has(vcpu, X86_FEATURE_IBT) == !!host.ibt && keel_guest_has(vcpu, X86_FEATURE_LM);
}

/* ------------------------------------------------------------------ switching */

void keel_cet_load(struct keel_vcpu *vcpu)
{
	struct keel_cet *cet = &vcpu->fpu.cet;
	unsigned int i;

	for (i = 0; i < nr_switched(); i++) {
		cet->host[i] = keel_rdmsr(keel_cet_msrs[i]);
		if (cet->guest[i] != cet->host[i])
			keel_wrmsr(keel_cet_msrs[i], cet->guest[i]);
	}
	cet->loaded = true;
}

void keel_cet_save(struct keel_vcpu *vcpu)
{
	struct keel_cet *cet = &vcpu->fpu.cet;
	unsigned int i;

	cet->loaded = false;
	for (i = 0; i < nr_switched(); i++) {
		cet->guest[i] = keel_rdmsr(keel_cet_msrs[i]);
		if (cet->guest[i] != cet->host[i])
			keel_wrmsr(keel_cet_msrs[i], cet->host[i]);
	}
}

/* ------------------------------------------------------------------ the MSRs and SSP */

static int get(struct keel_vcpu *vcpu, u32 msr, u64 *val)
{
	struct keel_cet *cet = &vcpu->fpu.cet;
	unsigned int i;

	for (i = 0; i < KEEL_CET_SWITCHED; i++) {
		if (keel_cet_msrs[i] != msr)
			continue;
		*val = cet->loaded ? keel_rdmsr(msr) : cet->guest[i];
		return 0;
	}
	return keel_call(get_msr, vcpu, msr, val);
}

static int set(struct keel_vcpu *vcpu, u32 msr, u64 val)
{
	struct keel_cet *cet = &vcpu->fpu.cet;
	unsigned int i;

	for (i = 0; i < KEEL_CET_SWITCHED; i++) {
		if (keel_cet_msrs[i] != msr)
			continue;
		cet->guest[i] = val;
		if (cet->loaded)
			keel_wrmsr(msr, val);
		return 0;
	}
	return keel_call(set_msr, vcpu, msr, val);
}

static bool is_control(u32 msr)
{
	return msr == MSR_IA32_U_CET || msr == MSR_IA32_S_CET;
}

/* Does the guest have it? */
static bool exists(struct keel_vcpu *vcpu, u32 msr)
{
	if (is_control(msr))
		return has(vcpu, X86_FEATURE_SHSTK) || has(vcpu, X86_FEATURE_IBT);
	return has(vcpu, X86_FEATURE_SHSTK) && (msr != MSR_IA32_INT_SSP_TAB || keel_guest_has(vcpu, X86_FEATURE_LM));
}

static bool control_valid(struct keel_vcpu *vcpu, u64 val)
{
	if (val & CET_RESERVED || (val & SHSTK_BITS && !has(vcpu, X86_FEATURE_SHSTK)) ||
	    (val & ~(u64)SHSTK_BITS && !has(vcpu, X86_FEATURE_IBT)))
		return false;
	return (val & (CET_SUPPRESS | CET_WAIT_ENDBR)) != (CET_SUPPRESS | CET_WAIT_ENDBR);
}

static bool valid(struct keel_vcpu *vcpu, u32 msr, u64 val)
{
	/* Of the controls it is the address of the bitmap for old code. */
	if (!keel_is_canonical(is_control(msr) ? val & PAGE_MASK : val))
		return false;
	if (is_control(msr))
		return control_valid(vcpu, val);
	return msr == MSR_IA32_INT_SSP_TAB || !(val & 3);
}

/* What a guest does not have a VMM reads as zero, and may set to that. */
int keel_cet_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	*val = 0;
	return exists(vcpu, msr) ? get(vcpu, msr, val) : !host;
}

int keel_cet_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	if (!exists(vcpu, msr))
		return val || !host;
	return valid(vcpu, msr, val) ? set(vcpu, msr, val) : 1;
}

int keel_get_cet(const struct msr_access *a, u64 *val)
{
	return keel_cet_get_msr(a->vcpu, a->msr, val, a->host);
}

int keel_set_cet(const struct msr_access *a, u64 val)
{
	return keel_cet_set_msr(a->vcpu, a->msr, val, a->host);
}

/* ------------------------------------------------------------------ for the emulator */

u8 keel_cet_tracks(struct keel_vcpu *vcpu, enum emul_mode mode, int cpl)
{
	u64 user = 0, system = 0, here;
	u8 tracks = 0;

	if (mode == EMUL_MODE_REAL)
		return 0;
	(void)get(vcpu, MSR_IA32_U_CET, &user);
	(void)get(vcpu, MSR_IA32_S_CET, &system);
	if ((user | system) & EITHER_BIT)
		tracks |= EMUL_CET_FAR;
	if (mode == EMUL_MODE_VM86)
		return tracks;
	here = cpl == 3 ? user : system;
	if (here & CET_SHSTK_EN)
		tracks |= EMUL_CET_STACK;
	if (here & CET_ENDBR_EN)
		tracks |= EMUL_CET_BRANCH | (here & CET_WAIT_ENDBR ? EMUL_CET_ENDBR : 0);
	return tracks;
}
