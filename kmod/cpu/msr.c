// SPDX-License-Identifier: GPL-2.0-only
/*
 * msr.c - model specific registers: one table says which exist, who holds them and who may touch them.  What
 * is not in the table does not exist, and #GPs.
 *
 * Locks: a vCPU's MSRs belong to its own thread or whoever holds vcpu->mutex; the VM's filter changes while it is
 * paused.  keel_get_msr() never sleeps; keel_set_msr() does only for rows without M_FAST.
 * SDM vol. 4, vol. 3 11.11 (MTRR), 11.12 (PAT), APM vol. 2 appendix A.
 */
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/fpu/types.h>
#include <asm/kvm_para.h>
#include <asm/mce.h>
#include <asm/processor.h>
#include "mitigate.h"
#include "msr.h"
#include "ops.h"
#include "userwords.h"

/* ------------------------------------------------------------------ accessors that fit many rows */

/* Values that say what this CPU is: the VMM chooses, the guest reads. */
static int set_host_only(const struct msr_access *a, u64 val)
{
	return a->host ? msr_set_mem(a, val) : 1;
}

static int set_host_or_ignore(const struct msr_access *a, u64 val)
{
	return a->host ? msr_set_mem(a, val) : 0;
}

static int get_zero(const struct msr_access *a, u64 *val)
{
	*val = 0;
	return 0;
}

/* What hardware would say of clocks that no guest has. */
static int get_constant(const struct msr_access *a, u64 *val)
{
	*val = a->row->valid;
	return 0;
}

static int set_ignore(const struct msr_access *a, u64 val)
{
	return 0;
}

static int get_none(const struct msr_access *a, u64 *val)
{
	return 1;
}

static int set_none(const struct msr_access *a, u64 val)
{
	return 1;
}

static int get_backend(const struct msr_access *a, u64 *val)
{
	return keel_call(get_msr, a->vcpu, a->msr, val);
}

static int set_backend(const struct msr_access *a, u64 val)
{
	if (val & ~a->row->valid)
		return 1;
	return keel_call(set_msr, a->vcpu, a->msr, val);
}

static int set_canonical(const struct msr_access *a, u64 val)
{
	if (!keel_is_canonical(val))
		return 1;
	return keel_call(set_msr, a->vcpu, a->msr, val);
}

static int get_clock(const struct msr_access *a, u64 *val)
{
	return keel_clock_get_msr(a->vcpu, a->msr, val);
}

static int set_clock(const struct msr_access *a, u64 val)
{
	return keel_clock_set_msr(a->vcpu, a->msr, val, a->host);
}

static int set_tsc_adjust(const struct msr_access *a, u64 val)
{
	keel_clock_set_tsc_adjust(a->vcpu, val, a->host);
	return 0;
}

static int get_pv(const struct msr_access *a, u64 *val)
{
	return keel_pv_get_msr(a->vcpu, a->msr, val);
}

static int get_hv(const struct msr_access *a, u64 *val)
{
	return keel_hv_get_msr(a->vcpu, a->msr, val, a->host);
}

static int set_hv(const struct msr_access *a, u64 val)
{
	return keel_hv_set_msr(a->vcpu, a->msr, val, a->host);
}

static int get_pmu(const struct msr_access *a, u64 *val)
{
	return keel_pmu_get_msr(a->vcpu, a->msr, val, a->host);
}

static int set_pmu(const struct msr_access *a, u64 val)
{
	return keel_pmu_set_msr(a->vcpu, a->msr, val, a->host);
}

static int set_pv(const struct msr_access *a, u64 val)
{
	return keel_pv_set_msr(a->vcpu, a->msr, val);
}

/* ------------------------------------------------------------------ APIC */

static int get_apic_base(const struct msr_access *a, u64 *val)
{
	*val = a->vcpu->apic_base;
	return 0;
}

static int set_apic_base(const struct msr_access *a, u64 val)
{
	return irq_apic_base_set(a->vcpu, val, a->host);
}

static int get_deadline(const struct msr_access *a, u64 *val)
{
	*val = 0;
	return a->vcpu->apic ? irq_lapic_get_msr(a->vcpu, a->msr, val, a->host) : !a->host;
}

static int set_deadline(const struct msr_access *a, u64 val)
{
	return a->vcpu->apic ? irq_lapic_set_msr(a->vcpu, a->msr, val, a->host) : !a->host;
}

static int get_x2apic(const struct msr_access *a, u64 *val)
{
	return a->vcpu->apic ? irq_lapic_get_msr(a->vcpu, a->msr, val, a->host) : 1;
}

static int set_x2apic(const struct msr_access *a, u64 val)
{
	return a->vcpu->apic ? irq_lapic_set_msr(a->vcpu, a->msr, val, a->host) : 1;
}

/* ------------------------------------------------------------------ CPU control */

static int get_efer(const struct msr_access *a, u64 *val)
{
	*val = a->vcpu->efer;
	return 0;
}

static int set_efer(const struct msr_access *a, u64 val)
{
	return keel_set_efer(a->vcpu, val, a->host);
}

static bool memory_type_valid(u8 type)
{
	return type < 8 && (BIT(type) & 0x73);	/* UC, WC, WT, WP, WB */
}

static int set_pat(const struct msr_access *a, u64 val)
{
	unsigned int i;

	for (i = 0; i < 64; i += 8)
		if (!memory_type_valid(val >> i) && (u8)(val >> i) != 7)
			return 1;
	a->vcpu->msrs.pat = val;
	/* A backend whose second dimension honours the guest's PAT holds a copy; the others say 1. */
	(void)keel_call(set_msr, a->vcpu, a->msr, val);
	return 0;
}

/* Two instructions read it. */
static bool has_tsc_aux(const struct msr_access *a)
{
	return a->host || keel_guest_has(a->vcpu, X86_FEATURE_RDTSCP) || keel_guest_has(a->vcpu, X86_FEATURE_RDPID);
}

static int get_tsc_aux(const struct msr_access *a, u64 *val)
{
	return has_tsc_aux(a) ? msr_get_mem(a, val) : 1;
}

static int set_tsc_aux(const struct msr_access *a, u64 val)
{
	if (!has_tsc_aux(a) || (val >> 32 && !a->vcpu->model.lenient))
		return 1;
	keel_fpu_set_tsc_aux(a->vcpu, (u32)val);
	return 0;
}

static int get_platform_info(const struct msr_access *a, u64 *val)
{
	return !a->host && a->vcpu->vm->no_platform_info ? 1 : msr_get_mem(a, val);
}

/* CPUID faulting cannot be taken from a guest that has turned it on. */
static int set_platform_info(const struct msr_access *a, u64 val)
{
	if (!(val & MSR_PLATFORM_INFO_CPUID_FAULT) && a->vcpu->msrs.misc_features)
		return 1;
	return set_host_only(a, val);
}

static int set_misc_features(const struct msr_access *a, u64 val)
{
	return val && !(a->vcpu->msrs.platform_info & MSR_PLATFORM_INFO_CPUID_FAULT) ? 1 : msr_set_mem(a, val);
}

/*
 * Whether the guest's CPUID shows MWAIT follows from it, where the VMM wants that.  What there is of a debug store and of
 * performance monitoring is read-only to guests: to change the one is an error, to change the other is to no effect.
 */
#define MISC_ENABLE_NO_DS	(MSR_IA32_MISC_ENABLE_BTS_UNAVAIL | MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL)

static int set_misc_enable(const struct msr_access *a, u64 val)
{
	u64 old = a->vcpu->msrs.misc_enable, changed = val ^ old;

	if (!a->host) {
		if (changed & MISC_ENABLE_NO_DS)
			return 1;
		val ^= changed & MSR_IA32_MISC_ENABLE_EMON;
	}
	if ((changed & MSR_IA32_MISC_ENABLE_MWAIT) && !keel_guest_has(a->vcpu, X86_FEATURE_XMM3) &&
	    !keel_has_quirk(a->vcpu->vm, KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT))
		return 1;
	return msr_set_mem(a, val);
}

static int get_xss(const struct msr_access *a, u64 *val)
{
	*val = a->vcpu->fpu.xss;
	return 0;
}

static int set_xss(const struct msr_access *a, u64 val)
{
	return keel_set_xss(a->vcpu, val);
}

/* MSR_IA32_XFD, and behind it MSR_IA32_XFD_ERR. */
static int get_xfd(const struct msr_access *a, u64 *val)
{
	*val = a->msr == MSR_IA32_XFD ? a->vcpu->fpu.xfd : a->vcpu->fpu.xfd_err;
	return 0;
}

static int set_xfd(const struct msr_access *a, u64 val)
{
	if (val & ~(a->vcpu->model.xcr0_allowed & XFEATURE_MASK_XTILE_DATA))
		return 1;
	if (a->msr == MSR_IA32_XFD)
		keel_fpu_set_xfd(a->vcpu, val);
	else
		a->vcpu->fpu.xfd_err = val;
	return 0;
}

static int get_smbase(const struct msr_access *a, u64 *val)
{
	*val = a->vcpu->smbase;
	return !a->host && !a->vcpu->smm;
}

static int set_smbase(const struct msr_access *a, u64 val)
{
	if (!a->host || val >> 32)
		return 1;
	a->vcpu->smbase = val;
	return 0;
}

/* Write-only: a barrier for indirect branch prediction, a whole one or a selective one. */
static int set_pred_cmd(const struct msr_access *a, u64 val)
{
	u64 allowed = 0;

	if (a->host || keel_guest_has(a->vcpu, X86_FEATURE_AMD_IBPB) || keel_guest_has(a->vcpu, X86_FEATURE_SPEC_CTRL))
		allowed |= PRED_CMD_IBPB;
	if (a->host || keel_guest_has(a->vcpu, KEEL_FEATURE_SBPB))
		allowed |= PRED_CMD_SBPB;
	if (!allowed || val & ~allowed || (val & PRED_CMD_SBPB && !keel_offers(KEEL_FEATURE_SBPB)))
		return 1;
	if (val && boot_cpu_has(X86_FEATURE_IBPB))
		wrmsrq(MSR_IA32_PRED_CMD, val);
	return 0;
}

/* Write-only, too. */
static int set_flush_cmd(const struct msr_access *a, u64 val)
{
	if (val & ~(u64)L1D_FLUSH)
		return 1;
	if (val)
		wrmsrq(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
	return 0;
}

/*
 * SPEC_CTRL, bit by bit what the guest was told it has and the CPU does have; bits of the CPU's alone the guest finds
 * once the register is its own.  SDM vol. 4 table 2-2; APM vol. 2 3.2.9.
 */
static const struct {
	u64 bits;
	u16 features[2];	/* either, as Intel and AMD tell of it */
} spec_ctrl_bits[] = {
	{ SPEC_CTRL_IBRS, { X86_FEATURE_SPEC_CTRL, X86_FEATURE_AMD_IBRS } },
	{ SPEC_CTRL_STIBP, { X86_FEATURE_INTEL_STIBP, X86_FEATURE_AMD_STIBP } },
	{ SPEC_CTRL_SSBD, { X86_FEATURE_SPEC_CTRL_SSBD, X86_FEATURE_AMD_SSBD } },
	{ BIT_ULL(3) | BIT_ULL(4), { KEEL_FEATURE_IPRED_CTRL, KEEL_FEATURE_IPRED_CTRL } },
	{ BIT_ULL(5) | SPEC_CTRL_RRSBA_DIS_S, { KEEL_FEATURE_RRSBA_CTRL, KEEL_FEATURE_RRSBA_CTRL } },
	{ BIT_ULL(7), { KEEL_FEATURE_INTEL_PSFD, X86_FEATURE_AMD_PSFD } },
	{ BIT_ULL(8), { KEEL_FEATURE_DDPD_U, KEEL_FEATURE_DDPD_U } },
	{ SPEC_CTRL_BHI_DIS_S, { KEEL_FEATURE_BHI_CTRL, KEEL_FEATURE_BHI_CTRL } },
};

static bool may_have(const struct msr_access *a, unsigned int feature)
{
	return keel_offers(feature) && (a->host || keel_guest_has(a->vcpu, feature));
}

static u64 spec_ctrl_allowed(const struct msr_access *a)
{
	u64 allowed = 0;
	unsigned int i, f;

	if (!boot_cpu_has(X86_FEATURE_MSR_SPEC_CTRL))
		return 0;
	for (i = 0; i < ARRAY_SIZE(spec_ctrl_bits); i++) {
		for (f = 0; f < 2; f++) {
			u16 feature = spec_ctrl_bits[i].features[f];

			if (may_have(a, feature))
				allowed |= spec_ctrl_bits[i].bits;
		}
	}
	return allowed;
}

static u64 spec_ctrl(struct keel_vcpu *vcpu)
{
	u64 val;

	return keel_call(get_msr, vcpu, MSR_IA32_SPEC_CTRL, &val) ? vcpu->spec_ctrl : val;
}

static void write_spec_ctrl(struct keel_vcpu *vcpu, u64 val)
{
	u32 mode = KEEL_SPEC_OPEN;

	if (keel_call(set_msr, vcpu, MSR_IA32_SPEC_CTRL, val)) {
		vcpu->spec_ctrl = val;
		mode |= KEEL_SPEC_LOAD | KEEL_SPEC_KEEP;
	}
	if (val && !(vcpu->spec_ctrl_mode & KEEL_SPEC_OPEN)) {
		vcpu->spec_ctrl_mode = mode;
		keel_request(KEEL_REQ_INTERCEPTS, vcpu);
	}
}

static int get_spec_ctrl(const struct msr_access *a, u64 *val)
{
	u64 allowed = spec_ctrl_allowed(a);

	if (!a->host && !allowed)
		return 1;
	/* What is its own may have bits that keel does not know.  VMMs are told what they may set again. */
	*val = spec_ctrl(a->vcpu) & (a->host ? allowed : ~0ULL);
	return 0;
}

static int set_spec_ctrl(const struct msr_access *a, u64 val)
{
	u64 allowed = spec_ctrl_allowed(a);

	if ((!a->host && !allowed) || val & ~allowed)
		return 1;
	write_spec_ctrl(a->vcpu, val);
	return 0;
}

/* AMD's for guests alone: the bit of SPEC_CTRL, by another name. */
static int get_virt_spec_ctrl(const struct msr_access *a, u64 *val)
{
	*val = spec_ctrl(a->vcpu) & SPEC_CTRL_SSBD;
	return 0;
}

static int set_virt_spec_ctrl(const struct msr_access *a, u64 val)
{
	if (val & ~(u64)SPEC_CTRL_SSBD)
		return 1;
	write_spec_ctrl(a->vcpu, (spec_ctrl(a->vcpu) & ~(u64)SPEC_CTRL_SSBD) | val);
	return 0;
}

/* Transactions: whether there are, and whether CPUID says so.  By the VMM's word there is such a register, or not. */
static int get_tsx_ctrl(const struct msr_access *a, u64 *val)
{
	return a->host || a->vcpu->msrs.arch_capabilities & ARCH_CAP_TSX_CTRL_MSR ? msr_get_mem(a, val) : 1;
}

/* In memory, and the backend has a copy. */
static int set_both(const struct msr_access *a, u64 val)
{
	int r = msr_set_mem(a, val);

	if (!r)
		(void)keel_call(set_msr, a->vcpu, a->msr, val);
	return r;
}

static int set_tsx_ctrl(const struct msr_access *a, u64 val)
{
	u64 old;

	return get_tsx_ctrl(a, &old) ?: set_both(a, val);
}

/* Branch records are not kept, and a step is an instruction: what asks for either does not stick, as on a CPU that has none on. */
static int set_debugctl(const struct msr_access *a, u64 val)
{
	u64 kept = (may_have(a, X86_FEATURE_BUS_LOCK_DETECT) ? DEBUGCTLMSR_BUS_LOCK_DETECT : 0) |
		   (may_have(a, X86_FEATURE_RTM) ? DEBUGCTLMSR_RTM_DEBUG : 0);

	if (val & ~(u64)(DEBUGCTLMSR_LBR | DEBUGCTLMSR_BTF | kept))
		return 1;
	a->vcpu->msrs.debugctl = val & kept;
	(void)keel_call(set_msr, a->vcpu, a->msr, val & kept);
	return 0;
}

/* ------------------------------------------------------------------ features of the host */

/* Bits that are the CPU's own business are written to no effect: what is wrong with its TLB and caches, and IGNNE. */
#define HWCR_IGNORED	0x148ULL

static int set_hwcr(const struct msr_access *a, u64 val)
{
	return msr_set_mem(a, val & ~HWCR_IGNORED);
}

static u64 host_ucode_rev(void)
{
	u64 rev = 0;

	return rdmsrq_safe(MSR_IA32_UCODE_REV, &rev) ? 0 : rev;
}

/* The one thing guests look for: is LFENCE serializing already? */
static u64 host_de_cfg(void)
{
	u64 val = 0;

	if (boot_cpu_has(X86_FEATURE_LFENCE_RDTSC) && !rdmsrq_safe(MSR_AMD64_DE_CFG, &val))
		return val & MSR_AMD64_DE_CFG_LFENCE_SERIALIZE;
	return 0;
}

static u64 platform_info(void)
{
	return MSR_PLATFORM_INFO_CPUID_FAULT;
}

static const struct feature_msr {
	u32 msr;
	u64 (*value)(void);
} feature_msrs[] = {
	{ MSR_IA32_UCODE_REV, host_ucode_rev },
	{ MSR_IA32_ARCH_CAPABILITIES, keel_arch_capabilities },
	{ MSR_AMD64_DE_CFG, host_de_cfg },
	{ MSR_IA32_PERF_CAPABILITIES, keel_pmu_capabilities },
	{ MSR_PLATFORM_INFO, platform_info },
};

/* ------------------------------------------------------------------ MTRR */

#define MTRR_DEF_VALID	(0xff | BIT(10) | BIT(11))
#define MTRR_MASK_VALID	BIT(11)
#define MTRR_CAP_WC	BIT(10)
#define MTRR_CAP_FIX	BIT(8)

static int get_mtrr_cap(const struct msr_access *a, u64 *val)
{
	*val = KEEL_VAR_MTRRS | MTRR_CAP_FIX | MTRR_CAP_WC;
	return 0;
}

static int set_mtrr_def(const struct msr_access *a, u64 val)
{
	if ((val & ~(u64)MTRR_DEF_VALID) || !memory_type_valid(val))
		return 1;
	a->vcpu->msrs.mtrr_def = val;
	return 0;
}

static int set_mtrr_fix(const struct msr_access *a, u64 val)
{
	unsigned int i;

	for (i = 0; i < 64; i += 8)
		if (!memory_type_valid(val >> i))
			return 1;
	*msr_mem(a) = val;
	return 0;
}

static int set_mtrr_var(const struct msr_access *a, u64 val)
{
	u64 reserved = ~GENMASK_ULL(a->vcpu->model.maxphyaddr - 1, 12);

	if ((a->msr - a->row->first) & 1) {	/* mask */
		reserved &= ~(u64)MTRR_MASK_VALID;
	} else {				/* base */
		reserved &= ~0xffULL;
		if (!memory_type_valid(val))
			return 1;
	}
	if (val & reserved)
		return 1;
	*msr_mem(a) = val;
	return 0;
}

/* ------------------------------------------------------------------ the table */

#define ONE(msr, f, getter, setter)		RANGE(msr, 1, f, getter, setter)
#define RANGE(msr, n, f, getter, setter)	{ .first = msr, .count = n, .flags = f, .get = getter, .set = setter }
#define MEM(msr, f, field, bits)							\
	{ .first = msr, .count = 1, .flags = (f) | M_FAST, .get = msr_get_mem, .set = msr_set_mem,	\
	  .offset = offsetof(struct keel_vcpu, msrs.field), .valid = bits }
#define BACKEND(msr, f, bits)								\
	{ .first = msr, .count = 1, .flags = (f) | M_FAST | M_LIST, .get = get_backend,	\
	  .set = set_backend, .valid = bits }
#define CANONICAL(msr)									\
	{ .first = msr, .count = 1, .flags = M_FAST | M_LIST, .get = get_backend, .set = set_canonical }
#define PV(msr, f, name, by)								\
	{ .first = msr, .count = 1, .flags = (f) | M_PV | M_APART, .feature = KVM_FEATURE_##name,		\
	  .get = get_##by, .set = set_##by }
#define CONSTANT(msr, value)								\
	{ .first = msr, .count = 1, .flags = M_FAST, .get = get_constant, .set = set_none, .valid = value }
/* As it is, and forgets writes. */
#define FIXED(msr, value)								\
	{ .first = msr, .count = 1, .flags = M_FAST, .get = get_constant, .set = set_ignore, .valid = value }
/* Eleven, with gaps between their numbers. */
#define MTRR_FIX(msr, n, index)								\
	{ .first = msr, .count = n, .flags = M_FAST | M_LIST, .get = msr_get_mem, .set = set_mtrr_fix,	\
	  .offset = offsetof(struct keel_vcpu, msrs.mtrr_fix[index]) }
/* Reads as zero and forgets writes: guests poke these without asking CPUID first. */
#define NOTHING(msr, n)		RANGE(msr, n, M_FAST, get_zero, set_ignore)

static const struct msr_row msr_rows[] = {
	ONE(MSR_IA32_P5_MC_ADDR, M_FAST, get_zero, set_none),
	ONE(MSR_IA32_P5_MC_TYPE, M_FAST, get_zero, set_none),
	ONE(MSR_IA32_TSC, M_FAST | M_LIST | M_APART, get_clock, set_clock),
	PV(MSR_KVM_WALL_CLOCK, M_LIST, CLOCKSOURCE, clock),
	PV(MSR_KVM_SYSTEM_TIME, M_LIST, CLOCKSOURCE, clock),
	ONE(MSR_IA32_PLATFORM_ID, M_FAST, get_zero, set_none),
	ONE(MSR_IA32_APICBASE, M_LIST | M_APART, get_apic_base, set_apic_base),
	ONE(MSR_IA32_EBL_CR_POWERON, M_FAST, get_zero, set_ignore),
	/* A bus of 100 MHz: of the Pentium 4, of Core, and its ratio in what reports performance. */
	CONSTANT(MSR_EBC_FREQUENCY_ID, 1 << 24),
	CONSTANT(MSR_FSB_FREQ, 3),
	{ .first = MSR_SMI_COUNT, .count = 1, .flags = M_LIST | M_FAST, .get = msr_get_mem, .set = set_host_only,
	  .offset = offsetof(struct keel_vcpu, msrs.smi_count), .valid = ~0ULL },
	{ .first = MSR_IA32_TSC_ADJUST, .count = 1, .flags = M_FAST | M_LIST | M_NEEDS,
	  .feature = X86_FEATURE_TSC_ADJUST, .get = get_clock, .set = set_tsc_adjust },
	ONE(MSR_IA32_SPEC_CTRL, M_FAST | M_LIST | M_UNTOLD, get_spec_ctrl, set_spec_ctrl),
	ONE(MSR_IA32_PRED_CMD, M_FAST, get_none, set_pred_cmd),
	{ .first = MSR_IA32_FLUSH_CMD, .count = 1, .flags = M_FAST | M_NEEDS | M_OFFERED, .get = get_none,
	  .set = set_flush_cmd, .feature = X86_FEATURE_FLUSH_L1D },
	ONE(MSR_IA32_UCODE_WRITE, M_FAST, get_none, set_ignore),
	/* Guests write zero before they ask for it, as Intel's manual tells them to. */
	{ .first = MSR_IA32_UCODE_REV, .count = 1, .flags = M_FAST | M_LIST | M_FEATURE, .get = msr_get_mem,
	  .set = set_host_or_ignore, .offset = offsetof(struct keel_vcpu, msrs.ucode_rev), .valid = ~0ULL },
	ONE(MSR_IA32_SMBASE, M_LIST, get_smbase, set_smbase),
	{ .first = MSR_IA32_UMWAIT_CONTROL, .count = 1, .flags = M_FAST | M_LIST | M_NEEDS | M_OFFERED,
	  .feature = X86_FEATURE_WAITPKG, .get = msr_get_mem, .set = set_both,
	  .offset = offsetof(struct keel_vcpu, msrs.umwait_control),
	  .valid = MSR_IA32_UMWAIT_CONTROL_TIME_MASK | MSR_IA32_UMWAIT_CONTROL_C02_DISABLE },
	RANGE(MSR_P6_PERFCTR0, 8, M_FAST | M_LIST | M_PMU, get_pmu, set_pmu),
	{ .first = MSR_PLATFORM_INFO, .count = 1, .flags = M_LIST | M_FEATURE, .get = get_platform_info,
	  .set = set_platform_info, .offset = offsetof(struct keel_vcpu, msrs.platform_info), .valid = ~0ULL },
	ONE(MSR_MTRRcap, M_FAST, get_mtrr_cap, set_none),
	{ .first = MSR_IA32_ARCH_CAPABILITIES, .count = 1, .flags = M_LIST | M_FEATURE | M_NEEDS, .get = msr_get_mem,
	  .set = set_host_only, .feature = X86_FEATURE_ARCH_CAPABILITIES, .valid = ~0ULL,
	  .offset = offsetof(struct keel_vcpu, msrs.arch_capabilities) },
	{ .first = MSR_IA32_TSX_CTRL, .count = 1, .flags = M_FAST | M_LIST | M_TSX, .get = get_tsx_ctrl, .set = set_tsx_ctrl,
	  .offset = offsetof(struct keel_vcpu, msrs.tsx_ctrl), .valid = TSX_CTRL_RTM_DISABLE | TSX_CTRL_CPUID_CLEAR },
	ONE(MSR_IA32_BBL_CR_CTL, M_FAST, get_zero, set_ignore),
	FIXED(MSR_IA32_BBL_CR_CTL3, 0xbe702111),	/* an L2 cache that is on: what old systems look for */
	{ .first = MSR_MISC_FEATURES_ENABLES, .count = 1, .flags = M_LIST, .get = msr_get_mem,
	  .set = set_misc_features, .offset = offsetof(struct keel_vcpu, msrs.misc_features),
	  .valid = MSR_MISC_FEATURES_ENABLES_CPUID_FAULT },
	BACKEND(MSR_IA32_SYSENTER_CS, 0, ~0ULL),
	CANONICAL(MSR_IA32_SYSENTER_ESP),
	CANONICAL(MSR_IA32_SYSENTER_EIP),
	{ .first = MSR_IA32_MCG_CAP, .count = 1, .flags = M_FAST, .get = msr_get_mem, .set = set_none,
	  .offset = offsetof(struct keel_vcpu, msrs.mcg_cap) },
	{ .first = MSR_IA32_FEAT_CTL, .count = 1, .flags = M_FAST | M_LIST, .get = keel_get_feat_ctl, .set = keel_set_feat_ctl,
	  .offset = offsetof(struct keel_vcpu, msrs.feat_ctl), .valid = FEAT_CTL_LOCKED | FEAT_CTL_LMCE_ENABLED },
	{ .first = MSR_IA32_MCG_EXT_CTL, .count = 1, .flags = M_FAST | M_LIST | M_APART, .get = keel_get_mcg_ext_ctl,
	  .set = keel_set_mcg_ext_ctl, .offset = offsetof(struct keel_vcpu, msrs.mcg_ext_ctl), .valid = MCG_EXT_CTL_LMCE_EN },
	MEM(MSR_IA32_MCG_STATUS, M_LIST | M_APART, mcg_status,
	    MCG_STATUS_RIPV | MCG_STATUS_EIPV | MCG_STATUS_MCIP | MCG_STATUS_LMCES),
	ONE(MSR_IA32_MCG_CTL, M_LIST | M_FAST | M_APART, keel_get_mcg_ctl, keel_set_mcg_ctl),
	RANGE(MSR_P6_EVNTSEL0, 8, M_FAST | M_LIST | M_PMU, get_pmu, set_pmu),
	/* XNU divides by the ratio in bits 44:40. */
	CONSTANT(MSR_IA32_PERF_STATUS, 4ULL << 40 | 1000),
	ONE(MSR_IA32_PERF_CTL, M_FAST, get_zero, set_ignore),
	{ .first = MSR_IA32_MISC_ENABLE, .count = 1, .flags = M_FAST | M_LIST, .get = msr_get_mem,
	  .set = set_misc_enable, .offset = offsetof(struct keel_vcpu, msrs.misc_enable), .valid = ~0ULL },
	{ .first = MSR_IA32_DEBUGCTLMSR, .count = 1, .flags = M_FAST | M_LIST, .get = msr_get_mem, .set = set_debugctl,
	  .offset = offsetof(struct keel_vcpu, msrs.debugctl) },
	{ .first = MSR_IA32_XFD, .count = 2, .flags = M_FAST | M_LIST | M_IF_OFFERED | M_NEEDS, .feature = X86_FEATURE_XFD,
	  .get = get_xfd, .set = set_xfd },
	MEM(MSR_IA32_POWER_CTL, M_LIST, power_ctl, ~0ULL),
	RANGE(MSR_IA32_LASTBRANCHFROMIP, 4, M_FAST, get_zero, set_none),
	{ .first = 0x200, .count = KEEL_VAR_MTRRS * 2, .flags = M_FAST | M_LIST, .get = msr_get_mem, .set = set_mtrr_var,
	  .offset = offsetof(struct keel_vcpu, msrs.mtrr_var) },
	MTRR_FIX(MSR_MTRRfix64K_00000, 1, 0),
	MTRR_FIX(MSR_MTRRfix16K_80000, 2, 1),
	MTRR_FIX(MSR_MTRRfix4K_C0000, 8, 3),
	{ .first = MSR_IA32_CR_PAT, .count = 1, .flags = M_FAST | M_LIST, .get = msr_get_mem, .set = set_pat,
	  .offset = offsetof(struct keel_vcpu, msrs.pat) },
	{ .first = MSR_MTRRdefType, .count = 1, .flags = M_FAST | M_LIST, .get = msr_get_mem, .set = set_mtrr_def,
	  .offset = offsetof(struct keel_vcpu, msrs.mtrr_def) },
	RANGE(MSR_CORE_PERF_FIXED_CTR0, 3, M_FAST | M_LIST | M_PMU, get_pmu, set_pmu),
	{ .first = MSR_IA32_PERF_CAPABILITIES, .count = 1, .flags = M_FAST | M_LIST | M_FEATURE | M_PMU | M_NEEDS,
	  .feature = X86_FEATURE_PDCM, .get = get_pmu, .set = set_pmu },
	RANGE(MSR_CORE_PERF_FIXED_CTR_CTRL, 4, M_FAST | M_LIST | M_PMU, get_pmu, set_pmu),
	{ .first = MSR_IA32_MC0_CTL, .count = KEEL_MCE_BANKS * 4, .flags = M_FAST, .get = keel_get_mce_bank,
	  .set = keel_set_mce_bank, .offset = offsetof(struct keel_vcpu, msrs.mce), .valid = ~0ULL },
	RANGE(MSR_IA32_MC0_CTL2, KEEL_MCE_BANKS, M_FAST, keel_get_mce_ctl2, keel_set_mce_ctl2),
	RANGE(MSR_IA32_PMC0, 8, M_FAST | M_PMU, get_pmu, set_pmu),
	ONE(MSR_IA32_U_CET, M_FAST | M_LIST | M_CET, keel_get_cet, keel_set_cet),
	ONE(MSR_IA32_S_CET, M_FAST | M_LIST | M_CET, keel_get_cet, keel_set_cet),
	RANGE(MSR_IA32_PL0_SSP, 5, M_FAST | M_LIST | M_CET, keel_get_cet, keel_set_cet),
	ONE(MSR_RAPL_POWER_UNIT, M_FAST, get_zero, set_none),
	ONE(MSR_PKG_ENERGY_STATUS, M_FAST, get_zero, set_none),
	ONE(MSR_DRAM_ENERGY_STATUS, M_FAST, get_zero, set_none),
	ONE(MSR_PP0_ENERGY_STATUS, M_FAST, get_zero, set_none),
	ONE(MSR_PP1_ENERGY_STATUS, M_FAST, get_zero, set_none),
	ONE(MSR_IA32_TSC_DEADLINE, M_FAST | M_LIST | M_APART, get_deadline, set_deadline),
	RANGE(0x800, 0x100, M_FAST, get_x2apic, set_x2apic),
	/* Not fast: it would have to be loaded for the next entry. */
	{ .first = MSR_IA32_XSS, .count = 1, .flags = M_LIST | M_NEEDS, .feature = X86_FEATURE_XSAVES,
	  .get = get_xss, .set = set_xss },
	RANGE(HV_X64_MSR_GUEST_OS_ID, 2, M_LIST | M_APART, get_hv, set_hv),	/* in this order */
	RANGE(HV_X64_MSR_VP_INDEX, 2, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	ONE(HV_X64_MSR_VP_RUNTIME, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	RANGE(HV_X64_MSR_TIME_REF_COUNT, 4, M_LIST | M_APART, get_hv, set_hv),
	RANGE(HV_X64_MSR_EOI, 3, M_FAST, get_hv, set_hv),
	ONE(HV_X64_MSR_VP_ASSIST_PAGE, M_LIST | M_APART, get_hv, set_hv),
	RANGE(HV_X64_MSR_SCONTROL, 4, M_LIST | M_APART, get_hv, set_hv),
	ONE(HV_X64_MSR_EOM, M_FAST, get_hv, set_hv),
	RANGE(HV_X64_MSR_SINT0, HV_SYNIC_SINT_COUNT, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	RANGE(HV_X64_MSR_STIMER0_CONFIG, 2 * HV_SYNIC_STIMER_COUNT, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	RANGE(HV_X64_MSR_CRASH_P0, HV_X64_MSR_CRASH_PARAMS + 1, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	RANGE(HV_X64_MSR_REENLIGHTENMENT_CONTROL, 3, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	ONE(HV_X64_MSR_TSC_INVARIANT_CONTROL, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	RANGE(HV_X64_MSR_DEBUGGER_CONTROL, 5, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	ONE(HV_X64_MSR_DEBUGGER_OPTIONS, M_LIST | M_APART | M_FAST, get_hv, set_hv),
	PV(MSR_KVM_WALL_CLOCK_NEW, M_LIST, CLOCKSOURCE2, clock),
	PV(MSR_KVM_SYSTEM_TIME_NEW, M_LIST, CLOCKSOURCE2, clock),
	/* The vector stands before what turns it on: that is the order a VMM restores them in. */
	PV(MSR_KVM_ASYNC_PF_INT, M_LIST, ASYNC_PF_INT, pv),
	PV(MSR_KVM_ASYNC_PF_EN, M_LIST, ASYNC_PF, pv),
	PV(MSR_KVM_ASYNC_PF_ACK, M_LIST | M_FAST, ASYNC_PF_INT, pv),
	PV(MSR_KVM_STEAL_TIME, M_LIST, STEAL_TIME, pv),
	PV(MSR_KVM_PV_EOI_EN, M_LIST, PV_EOI, pv),
	PV(MSR_KVM_POLL_CONTROL, M_LIST | M_FAST, POLL_CONTROL, pv),
	PV(MSR_KVM_MIGRATION_CONTROL, M_FAST, MIGRATION_CONTROL, pv),
	ONE(MSR_EFER, M_LIST | M_APART, get_efer, set_efer),
	BACKEND(MSR_STAR, 0, ~0ULL),
	CANONICAL(MSR_LSTAR),
	CANONICAL(MSR_CSTAR),
	BACKEND(MSR_SYSCALL_MASK, 0, 0xffffffff),
	CANONICAL(MSR_FS_BASE),
	CANONICAL(MSR_GS_BASE),
	CANONICAL(MSR_KERNEL_GS_BASE),
	{ .first = MSR_TSC_AUX, .count = 1, .flags = M_FAST | M_LIST, .get = get_tsc_aux, .set = set_tsc_aux,
	  .offset = offsetof(struct keel_vcpu, msrs.tsc_aux) },
	RANGE(MSR_AMD64_PERF_CNTR_GLOBAL_STATUS, 4, M_FAST | M_LIST | M_PMU, get_pmu, set_pmu),
	RANGE(MSR_K7_EVNTSEL0, 8, M_FAST | M_LIST | M_PMU, get_pmu, set_pmu),
	RANGE(MSR_F15H_PERF_CTL, 12, M_FAST | M_LIST | M_PMU, get_pmu, set_pmu),
	NOTHING(MSR_AMD64_SYSCFG, 1),
	/* TscFreqSel and McStatusWrEn are kept. */
	{ .first = MSR_K7_HWCR, .count = 1, .flags = M_FAST | M_LIST, .get = msr_get_mem, .set = set_hwcr,
	  .offset = offsetof(struct keel_vcpu, msrs.hwcr), .valid = BIT_ULL(18) | BIT_ULL(24) },
	FIXED(MSR_K7_CLK_CTL, 0x20000000),	/* as that CPU's guide wants it set */
	NOTHING(MSR_AMD64_NB_CFG, 1),
	NOTHING(MSR_AMD64_PATCH_LOADER, 1),
	NOTHING(MSR_K8_INT_PENDING_MSG, 1),
	NOTHING(MSR_FAM10H_MMIO_CONF_BASE, 1),
	NOTHING(MSR_K8_TSEG_ADDR, 2),
	{ .first = MSR_AMD64_OSVW_ID_LENGTH, .count = 1, .flags = M_LIST | M_NEEDS, .feature = X86_FEATURE_OSVW,
	  .get = msr_get_mem, .set = set_host_only, .valid = ~0ULL,
	  .offset = offsetof(struct keel_vcpu, msrs.osvw_length) },
	{ .first = MSR_AMD64_OSVW_STATUS, .count = 1, .flags = M_LIST | M_NEEDS, .feature = X86_FEATURE_OSVW,
	  .get = msr_get_mem, .set = set_host_only, .valid = ~0ULL,
	  .offset = offsetof(struct keel_vcpu, msrs.osvw_status) },
	NOTHING(MSR_VM_HSAVE_PA, 1),
	{ .first = MSR_AMD64_VIRT_SPEC_CTRL, .count = 1, .flags = M_FAST | M_LIST | M_APART | M_NEEDS | M_OFFERED,
	  .feature = X86_FEATURE_VIRT_SSBD, .get = get_virt_spec_ctrl, .set = set_virt_spec_ctrl },
	NOTHING(MSR_AMD64_DC_CFG, 1),
	NOTHING(MSR_AMD64_TW_CFG, 1),
	{ .first = MSR_AMD64_DE_CFG, .count = 1, .flags = M_LIST | M_FEATURE, .get = msr_get_mem, .set = msr_set_mem,
	  .offset = offsetof(struct keel_vcpu, msrs.de_cfg), .valid = MSR_AMD64_DE_CFG_LFENCE_SERIALIZE },
	NOTHING(MSR_AMD64_BU_CFG2, 1),
	NOTHING(MSR_F15H_IC_CFG, 1),
	NOTHING(MSR_F15H_EX_CFG, 1),
};

/*
 * MSR number to row in one step: a few windows of the number space, a byte for each number (row + 1, 0: none).
 * Filled at load.
 */
static u8 window_low[0xe00], window_hv[0x120], window_kvm[0x10], window_c000[0x310], window_c001[0x1100];
static const struct msr_window {
	u32 first, count;
	u8 *row;
} windows[] = {
	{ 0, ARRAY_SIZE(window_low), window_low },
	{ 0xc0000000, ARRAY_SIZE(window_c000), window_c000 },
	{ 0xc0010000, ARRAY_SIZE(window_c001), window_c001 },
	{ MSR_KVM_WALL_CLOCK_NEW, ARRAY_SIZE(window_kvm), window_kvm },
	{ HV_X64_MSR_GUEST_OS_ID, ARRAY_SIZE(window_hv), window_hv },
};

/*
 * The row of *@msr.  What a CPU that guesses does with a number out of range stays in the table, and so does all that rows
 * index by the number.
 */
static __always_inline const struct msr_row *find(u32 *msr)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(windows); i++) {
		u32 n = *msr - windows[i].first;

		if (n >= windows[i].count)
			continue;
		n = array_index_nospec(n, windows[i].count);
		*msr = windows[i].first + n;
		return windows[i].row[n] ? &msr_rows[windows[i].row[n] - 1] : NULL;
	}
	return NULL;
}

/* Is there such a register on this host, for whomever? */
static bool row_exists(const struct msr_row *row)
{
	if (row->flags & M_TSX)
		return keel_arch_capabilities() & ARCH_CAP_TSX_CTRL_MSR;
	if (row->flags & M_CET)
		return keel_cet_lists(row->first);
	return !(row->flags & M_OFFERED) || keel_offers(row->feature);
}

/* The MSRs of a vCPU's state, at most, in the order of the rows. */
#define STATE_MSRS_MAX	256

static bool in_state(const struct msr_row *row, u32 msr);
static struct state_msr {
	u32 msr;
	u32 at;			/* in struct keel_vcpu, if no more is to be known of it; else 0 */
	const struct msr_row *row;
} state_msrs[STATE_MSRS_MAX] __ro_after_init;
static unsigned int nr_in_state __ro_after_init;

void keel_msr_setup(void)
{
	unsigned int r, w, i;

	BUILD_BUG_ON(ARRAY_SIZE(msr_rows) > 255);
	for (r = 0; r < ARRAY_SIZE(msr_rows); r++) {
		const struct msr_row *row = &msr_rows[r];

		if (!row_exists(row))
			continue;
		for (w = 0; w < ARRAY_SIZE(windows); w++)
			if (row->first - windows[w].first < windows[w].count)
				break;
		if (WARN_ON(hweight16(row->flags & (M_HOST | M_NEEDS | M_PV)) > 1 || w == ARRAY_SIZE(windows) ||
			    row->first - windows[w].first + row->count > windows[w].count))
			continue;
		for (i = 0; i < row->count; i++) {
			windows[w].row[row->first - windows[w].first + i] = r + 1;
			if (in_state(row, row->first + i) && !WARN_ON(nr_in_state == STATE_MSRS_MAX))
				state_msrs[nr_in_state++] = (struct state_msr){
					row->first + i, row->get == msr_get_mem ? row->offset + i * sizeof(u64) : 0, row
				};
		}
	}
}

const struct keel_open_msr keel_open_msrs[KEEL_NR_OPEN_MSRS] = {
	{ MSR_CORE_C1_RES, KEEL_MSRS_CSTATES },
	{ MSR_CORE_C3_RESIDENCY, KEEL_MSRS_CSTATES },
	{ MSR_CORE_C6_RESIDENCY, KEEL_MSRS_CSTATES },
	{ MSR_CORE_C7_RESIDENCY, KEEL_MSRS_CSTATES },
	{ MSR_IA32_MPERF, KEEL_MSRS_APERFMPERF },
	{ MSR_IA32_APERF, KEEL_MSRS_APERFMPERF },
};

static unsigned int open_sets(struct keel_vcpu *vcpu)
{
	return (vcpu->spec_ctrl_mode & KEEL_SPEC_OPEN ? KEEL_MSRS_SPEC_CTRL : 0) |
	       (keel_cet_open(vcpu) ? KEEL_MSRS_CET : 0) |
	       (vcpu->vm->exits_off & KVM_X86_DISABLE_EXITS_CSTATE ? KEEL_MSRS_CSTATES : 0) |
	       (vcpu->vm->exits_off & KVM_X86_DISABLE_EXITS_APERFMPERF ? KEEL_MSRS_APERFMPERF : 0);
}

unsigned int keel_msr_map(struct keel_vcpu *vcpu)
{
	return vcpu->vm->msr_filter ? KEEL_MSRS_NONE : open_sets(vcpu);
}

/* An MSR without a row.  It may be the CPU's, and open if there was no filter to be asked before. */
static noinline int get_of_cpu(const struct msr_access *a, u64 *val)
{
	unsigned int i;

	for (i = 0; !a->host && a->vcpu->vm->msr_filter && i < KEEL_NR_OPEN_MSRS; i++)
		if (a->msr == keel_open_msrs[i].msr && open_sets(a->vcpu) & keel_open_msrs[i].set)
			return !!rdmsrq_safe(a->msr, val);
	return 1;
}

/* The three exclude each other. */
static __always_inline bool may_access(const struct msr_access *a)
{
	u16 condition = a->row->flags & (M_HOST | M_NEEDS | M_PV);

	if (likely(!condition))
		return true;
	if (condition == M_PV)
		return keel_pv_has(a->vcpu, a->row->feature);
	return a->host || (condition == M_NEEDS && keel_guest_has(a->vcpu, a->row->feature));
}

static __always_inline int get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	struct msr_access a = { .vcpu = vcpu, .msr = msr, .host = host };

	a.row = find(&a.msr);
	if (unlikely(!a.row))
		return get_of_cpu(&a, val);
	return may_access(&a) ? a.row->get(&a, val) : 1;
}

int keel_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	return get_msr(vcpu, msr, val, host);
}

int keel_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	struct msr_access a = { .vcpu = vcpu, .msr = msr, .host = host };

	a.row = find(&a.msr);
	return a.row && may_access(&a) ? a.row->set(&a, val) : 1;
}

static noinline u32 why_refused(u32 msr, int r)
{
	if (r == -EAGAIN)
		return KEEL_MSR_SLOW;
	return find(&msr) ? KVM_MSR_EXIT_REASON_INVAL : KVM_MSR_EXIT_REASON_UNKNOWN;
}

u32 keel_guest_rdmsr(struct keel_vcpu *vcpu, u32 msr, u64 *val)
{
	int r;

	if (unlikely(vcpu->vm->msr_filter) && !keel_msr_filter_allows(vcpu, msr, KVM_MSR_FILTER_READ))
		return KVM_MSR_EXIT_REASON_FILTER;
	r = get_msr(vcpu, msr, val, false);
	return r ? why_refused(msr, r) : 0;
}

u32 keel_guest_wrmsr(struct keel_vcpu *vcpu, u32 msr, u64 val)
{
	struct msr_access a = { .vcpu = vcpu, .msr = msr, .host = false };

	a.row = find(&a.msr);
	/* No row is #GP, which needs no sleep either. */
	if (likely(a.row) && vcpu->atomic && !(a.row->flags & M_FAST))
		return KEEL_MSR_SLOW;
	if (unlikely(vcpu->vm->msr_filter) && !keel_msr_filter_allows(vcpu, msr, KVM_MSR_FILTER_WRITE))
		return KVM_MSR_EXIT_REASON_FILTER;
	if (likely(a.row && may_access(&a) && !a.row->set(&a, val)))
		return 0;
	return why_refused(msr, 1);
}

static u64 host_osvw(u32 msr)
{
	u64 val;

	return rdmsrq_safe(msr, &val) ? 0 : val;
}

/* Values at power-on; INIT keeps all of them but what an INIT does to DEBUGCTL. */
void keel_msrs_reset(struct keel_vcpu *vcpu, bool init)
{
	struct keel_msrs *m = &vcpu->msrs;
	u64 val;

	m->debugctl = 0;
	if (init)
		return;
	memset(m, 0, sizeof(*m));
	m->pat = 0x0007040600070406ULL;		/* SDM table 11-12 */
	(void)keel_call(set_msr, vcpu, MSR_IA32_CR_PAT, m->pat);
	/* Fast strings, which CPUs have on after a reset, are the VMM's to turn on, as KVM has it. */
	m->misc_enable = MISC_ENABLE_NO_DS;
	if (keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_STUFF_FEATURE_MSRS)) {	/* else they are the VMM's to choose */
		m->platform_info = platform_info();
		m->arch_capabilities = keel_arch_capabilities();
		m->ucode_rev = 0x0000000100000000ULL;	/* a revision: some guests take 0 for "no microcode loaded" */
	}
	/* Of the host's errata those that concern its guests: not 400 and 415, which are of what keel emulates. */
	if (boot_cpu_has(X86_FEATURE_OSVW)) {
		m->osvw_length = max(host_osvw(MSR_AMD64_OSVW_ID_LENGTH), 3ULL);
		m->osvw_status = host_osvw(MSR_AMD64_OSVW_STATUS) & ~(BIT_ULL(1) | BIT_ULL(2));
	}
	m->mcg_cap = KEEL_MCE_BANKS;
	vcpu->spec_ctrl = 0;
	if (boot_cpu_has(X86_FEATURE_KERNEL_IBRS) && keel_call(get_msr, vcpu, MSR_IA32_SPEC_CTRL, &val))
		vcpu->spec_ctrl_mode |= KEEL_SPEC_LOAD;
	vcpu->smbase = 0x30000;
	keel_pmu_reset(vcpu);
}

/* ------------------------------------------------------------------ ioctls */

#define MSRS_PER_IOCTL	256
#define WORDS		(sizeof(struct kvm_msr_entry) / sizeof(u64))

static bool listed(const struct msr_row *row, u32 msr, u16 flag)
{
	return (row->flags & flag) && find(&msr) && (!(row->flags & M_PMU) || keel_pmu_lists(msr)) &&
	       (!(row->flags & M_IF_OFFERED) || keel_offers(row->feature));
}

static long copy_list(unsigned long arg, u16 flag)
{
	struct kvm_msr_list __user *user = (void __user *)arg;
	u32 room, n = 0, msr;
	const struct msr_row *row;

	if (get_user(room, &user->nmsrs))
		return -EFAULT;
	for (row = msr_rows; row < msr_rows + ARRAY_SIZE(msr_rows); row++)
		for (msr = row->first; msr < row->first + row->count; msr++)
			n += listed(row, msr, flag);
	if (put_user(n, &user->nmsrs))
		return -EFAULT;
	if (room < n)
		return -E2BIG;
	for (row = msr_rows, n = 0; row < msr_rows + ARRAY_SIZE(msr_rows); row++)
		for (msr = row->first; msr < row->first + row->count; msr++)
			if (listed(row, msr, flag) && put_user(msr, &user->indices[n++]))
				return -EFAULT;
	return 0;
}

SYS_IOCTL(keel_get_msr_index_list)
{
	return copy_list(arg, M_LIST);
}

SYS_IOCTL(keel_get_msr_feature_index_list)
{
	return copy_list(arg, M_FEATURE);
}

static int feature_msr(struct keel_vcpu *vcpu, struct kvm_msr_entry *e)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(feature_msrs); i++) {
		if (feature_msrs[i].msr != e->index)
			continue;
		e->data = feature_msrs[i].value();
		return 0;
	}
	return 1;
}

static int vcpu_get_one(struct keel_vcpu *vcpu, struct kvm_msr_entry *e)
{
	return keel_get_msr(vcpu, e->index, &e->data, true);
}

/*
 * What CPU it is does not change once it has run, but for the microcode's revision: another value is an error, the same one is
 * what VMMs write again.
 */
static noinline bool feature_stays(const struct msr_access *a, u64 val)
{
	u64 is;

	return !a->vcpu->has_run || a->msr == MSR_IA32_UCODE_REV || a->row->get(a, &is) || is == val;
}

int keel_vmm_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val)
{
	struct msr_access a = { .vcpu = vcpu, .msr = msr, .host = true };

	a.row = find(&a.msr);
	if (!a.row || !may_access(&a))
		return 1;
	return a.row->flags & M_FEATURE && !feature_stays(&a, val) ? 1 : a.row->set(&a, val);
}

static int vcpu_set_one(struct keel_vcpu *vcpu, struct kvm_msr_entry *e)
{
	return keel_vmm_set_msr(vcpu, e->index, e->data);
}

typedef int (*msr_entry_fn)(struct keel_vcpu *vcpu, struct kvm_msr_entry *e);

/* Up to the first that fails; answers how many were done. */
static long msrs_apply(struct keel_vcpu *vcpu, unsigned long arg, msr_entry_fn one, bool write_back)
{
	struct kvm_msrs __user *user = (void __user *)arg;
	struct kvm_msr_entry few[16] __uninitialized, *entries = few;
	long done;
	u64 head;
	u32 n;

	/* With what is behind the number: all of it is there, or none. */
	if (get_user(head, (u64 __user *)user))
		return -EFAULT;
	n = head;
	if (n >= MSRS_PER_IOCTL)
		return -E2BIG;
	if (!n)
		return 0;
	if (n > ARRAY_SIZE(few)) {
		entries = memdup_user(user->entries, array_size(sizeof(*entries), n));
		if (IS_ERR(entries))
			return PTR_ERR(entries);
	} else if (!keel_words_from_user((u64 *)few, (u64 __user *)user->entries, n * WORDS)) {
		return -EFAULT;
	}
	for (done = 0; done < n; done++)
		if (one(vcpu, &entries[done]))
			break;
	if (write_back && !keel_words_to_user((u64 __user *)user->entries, (u64 *)entries, done * WORDS))
		done = -EFAULT;
	if (entries != few)
		kfree(entries);
	return done;
}

SYS_IOCTL(keel_get_system_msrs)
{
	return msrs_apply(NULL, arg, feature_msr, true);
}

VCPU_IOCTL(keel_get_msrs)
{
	return msrs_apply(vcpu, arg, vcpu_get_one, true);
}

VCPU_IOCTL(keel_set_msrs)
{
	return msrs_apply(vcpu, arg, vcpu_set_one, false);
}

/* ------------------------------------------------------------------ the state (snap/state.c) */

static bool in_state(const struct msr_row *row, u32 msr)
{
	return listed(row, msr, M_LIST) && !(row->flags & M_APART);
}

size_t keel_msrs_state_size(const struct keel_vcpu *vcpu)
{
	return nr_in_state * sizeof(struct kvm_msr_entry);
}

/* As the VMM sees it; most are in memory. */
static __always_inline int state_get(struct keel_vcpu *vcpu, const struct state_msr *s, u64 *val)
{
	struct msr_access a = { .vcpu = vcpu, .row = s->row, .msr = s->msr, .host = true };

	if (unlikely(!s->at))
		return s->row->get(&a, val);
	*val = *(u64 *)((char *)vcpu + s->at);
	return 0;
}

VCPU_IOCTL(keel_msrs_get_state)
{
	struct kvm_msr_entry *e = buf;
	const struct state_msr *s;

	for (s = state_msrs; s < state_msrs + nr_in_state; s++) {
		u64 val;

		if (!state_get(vcpu, s, &val))
			*e++ = (struct kvm_msr_entry){ .index = s->msr, .data = val };
	}
	return (void *)e - buf;
}

/* Mostly the next, or one of those behind it. */
static const struct state_msr *state_find(const struct state_msr *last, u32 msr)
{
	const struct state_msr *s;

	for (s = last; s < state_msrs + nr_in_state; s++)
		if (s->msr == msr)
			return s;
	for (s = state_msrs; s < last; s++)
		if (s->msr == msr)
			return s;
	return NULL;
}

/* How many are refused; what is there already need not be set, nor could all of it be, by a VMM. */
static long set_msrs(struct keel_vcpu *vcpu, const struct kvm_msr_entry *e, const struct kvm_msr_entry *end)
{
	const struct state_msr *s = state_msrs;
	long refused = 0;
	u64 now;

	for (; e < end; e++, s++) {
		if (unlikely(s == state_msrs + nr_in_state || s->msr != e->index))
			s = state_find(s, e->index);
		if (!s || e->reserved || state_get(vcpu, s, &now))
			return -EINVAL;
		if ((now != e->data || s->row->flags & M_UNTOLD) && keel_set_msr(vcpu, e->index, e->data, true))
			refused++;
	}
	return refused;
}

/* What one may be can depend on another, in either order: so again, as long as it takes some along. */
VCPU_IOCTL(keel_msrs_set_state)
{
	long before, refused = LONG_MAX;

	do {
		before = refused;
		refused = set_msrs(vcpu, buf, buf + arg);
	} while (refused > 0 && refused < before);
	return refused ? -EINVAL : 0;
}
