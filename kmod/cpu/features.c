// SPDX-License-Identifier: GPL-2.0-only
/*
 * features.c - what of the host's CPU a guest may have: the leaves keel can honestly offer on this host
 * (KVM_GET_SUPPORTED_CPUID), and the MSRs that describe it.
 *
 * Locks: none; all of it is constant after load.
 * SDM vol. 2A "CPUID", vol. 1 13.2 (leaf 0xD); APM vol. 3 appendix E.
 */
#include <linux/build_bug.h>
#include <linux/mm.h>
#include <asm/fpu/types.h>
#include <asm/kvm_para.h>
#include <asm/msr.h>
#include <asm/processor.h>
#include "features.h"
#include "ops.h"

struct kvm_cpuid_entry2 keel_offered[KEEL_OFFERED_MAX] __ro_after_init;
unsigned int keel_nr_offered __ro_after_init;

/* ------------------------------------------------- what of the host's features a guest may have */

#define AVX10_VERSION	0xff		/* leaf 0x24 EBX */
#define AVX10_KNOWN	2		/* nothing that has state is new in it */

/* A feature's bit in its word, checked to be in the word the row is about. */
#define F(w, name)	(BIT(X86_FEATURE_##name & 31) + BUILD_BUG_ON_ZERO(X86_FEATURE_##name / 32 != (w)))

#define K(w, name)	(BIT(KEEL_FEATURE_##name & 31) + BUILD_BUG_ON_ZERO(KEEL_FEATURE_##name / 32 != KEEL_WORD_##w))

/*
 * One row a feature register.  Shown is (host & kernel's own idea & allow) | always: what the kernel turned
 * off is off for guests too, and "always" is what keel makes itself, whatever the host has.  Words of keel's own are the
 * CPU's word alone, but for what needs_rows and said_rows say below.
 */
const struct keel_feature_row keel_feature_rows[] = {
#define W CPUID_1_ECX
	{ 1, 0, ECX, W,
	  F(W, XMM3) | F(W, PCLMULQDQ) | F(W, SSSE3) | F(W, FMA) | F(W, CX16) | F(W, PCID) | F(W, XMM4_1) |
	  F(W, XMM4_2) | F(W, MOVBE) | F(W, POPCNT) | F(W, AES) | F(W, XSAVE) | F(W, AVX) | F(W, F16C) | F(W, RDRAND),
	  /* TSC_DEADLINE_TIMER depends on the irqchip: KVM_CAP_TSC_DEADLINE_TIMER tells, VMMs set the bit */
	  F(W, X2APIC) | F(W, HYPERVISOR) },
#undef W
#define W CPUID_1_EDX
	{ 1, 0, EDX, W,
	  F(W, FPU) | F(W, VME) | F(W, DE) | F(W, PSE) | F(W, TSC) | F(W, MSR) | F(W, PAE) | F(W, MCE) | F(W, CX8) |
	  F(W, APIC) | F(W, SEP) | F(W, MTRR) | F(W, PGE) | F(W, MCA) | F(W, CMOV) | F(W, PAT) | F(W, PSE36) |
	  F(W, CLFLUSH) | F(W, MMX) | F(W, FXSR) | F(W, XMM) | F(W, XMM2) | F(W, SELFSNOOP),
	  F(W, APIC) | F(W, MTRR) },
#undef W
#define W CPUID_7_0_EBX
	{ 7, 0, EBX, W,
	  F(W, FSGSBASE) | F(W, BMI1) | F(W, HLE) | F(W, AVX2) | F(W, FDP_EXCPTN_ONLY) | F(W, SMEP) | F(W, BMI2) |
	  F(W, ERMS) | F(W, INVPCID) | F(W, RTM) | F(W, ZERO_FCS_FDS) | F(W, AVX512F) | F(W, AVX512DQ) |
	  F(W, RDSEED) | F(W, ADX) | F(W, SMAP) | F(W, AVX512IFMA) | F(W, CLFLUSHOPT) | F(W, CLWB) |
	  F(W, AVX512PF) | F(W, AVX512ER) | F(W, AVX512CD) | F(W, SHA_NI) | F(W, AVX512BW) | F(W, AVX512VL),
	  F(W, TSC_ADJUST) },
#undef W
#define W CPUID_7_ECX
	{ 7, 0, ECX, W,
	  F(W, AVX512VBMI) | F(W, UMIP) | F(W, PKU) | F(W, AVX512_VBMI2) | F(W, GFNI) | F(W, VAES) |
	  F(W, VPCLMULQDQ) | F(W, AVX512_VNNI) | F(W, AVX512_BITALG) | F(W, AVX512_VPOPCNTDQ) |
	  F(W, RDPID) | F(W, CLDEMOTE) | F(W, MOVDIRI) | F(W, MOVDIR64B) | F(W, WAITPKG) | F(W, BUS_LOCK_DETECT) },
#undef W
#define W CPUID_7_EDX
	{ 7, 0, EDX, W,
	  F(W, AVX512_4VNNIW) | F(W, AVX512_4FMAPS) | F(W, FSRM) | F(W, AVX512_VP2INTERSECT) | F(W, MD_CLEAR) |
	  F(W, SERIALIZE) | F(W, TSXLDTRK) | F(W, AMX_BF16) | F(W, AMX_TILE) | F(W, AMX_INT8) |
	  F(W, AVX512_FP16) | F(W, SPEC_CTRL) | F(W, INTEL_STIBP) | F(W, SPEC_CTRL_SSBD) | F(W, FLUSH_L1D),
	  F(W, ARCH_CAPABILITIES) },
#undef W
#define W CPUID_7_1_EAX
	{ 7, 1, EAX, W,
	  F(W, SHA512) | F(W, SM3) | F(W, SM4) | F(W, AVX_VNNI) | F(W, AVX512_BF16) | F(W, CMPCCXADD) | F(W, FZRM) |
	  F(W, FSRS) | F(W, FSRC) | F(W, AMX_FP16) | F(W, AVX_IFMA) | F(W, LAM) },
#undef W
	{ 7, 1, EDX, KEEL_WORD_7_1_EDX,
	  K(7_1_EDX, AVX_VNNI_INT8) | K(7_1_EDX, AVX_NE_CONVERT) | K(7_1_EDX, AMX_COMPLEX) | K(7_1_EDX, AVX_VNNI_INT16) |
	  K(7_1_EDX, PREFETCHITI) | K(7_1_EDX, AVX10) },
	{ 7, 2, EDX, KEEL_WORD_7_2_EDX,
	  K(7_2_EDX, INTEL_PSFD) | K(7_2_EDX, IPRED_CTRL) | K(7_2_EDX, RRSBA_CTRL) | K(7_2_EDX, DDPD_U) |
	  K(7_2_EDX, BHI_CTRL) | K(7_2_EDX, MCDT_NO) },
	{ 0x1e, 1, EAX, KEEL_WORD_1E_1_EAX,
	  K(1E_1_EAX, AMX_INT8_ALIAS) | K(1E_1_EAX, AMX_BF16_ALIAS) | K(1E_1_EAX, AMX_COMPLEX_ALIAS) |
	  K(1E_1_EAX, AMX_FP16_ALIAS) | K(1E_1_EAX, AMX_FP8) | K(1E_1_EAX, AMX_TF32) | K(1E_1_EAX, AMX_AVX512) |
	  K(1E_1_EAX, AMX_MOVRS) },
	{ 0x24, 0, EBX, KEEL_WORD_24_EBX,
	  /* with the version, which adjust_leaf() makes */
	  AVX10_VERSION | K(24_EBX, AVX10_128) | K(24_EBX, AVX10_256) | K(24_EBX, AVX10_512) },
#define W CPUID_D_1_EAX
	{ 0xd, 1, EAX, W, F(W, XSAVEOPT) | F(W, XSAVEC) | F(W, XGETBV1) | F(W, XSAVES) | F(W, XFD) },
#undef W
#define W CPUID_8000_0001_ECX
	{ 0x80000001, 0, ECX, W,
	  F(W, LAHF_LM) | F(W, CMP_LEGACY) | F(W, CR8_LEGACY) | F(W, ABM) | F(W, SSE4A) | F(W, MISALIGNSSE) |
	  F(W, 3DNOWPREFETCH) |
	  F(W, OSVW) | F(W, XOP) | F(W, FMA4) | F(W, TBM) | F(W, TOPOEXT) |
	  F(W, PERFCTR_CORE) },
#undef W
#define W CPUID_8000_0001_EDX
	{ 0x80000001, 0, EDX, W,
	  /* AMD repeats here what leaf 1 says; the bits are reserved with Intel and then 0 in the host's word. */
	  0x0183f3ff |
	  F(W, SYSCALL) | F(W, NX) | F(W, MMXEXT) | F(W, FXSR_OPT) | F(W, GBPAGES) | F(W, RDTSCP) | F(W, LM) |
	  F(W, 3DNOWEXT) | F(W, 3DNOW) },
#undef W
#define W CPUID_8000_0008_EBX
	{ 0x80000008, 0, EBX, W,
	  F(W, CLZERO) | F(W, XSAVEERPTR) | F(W, WBNOINVD) | F(W, AMD_IBPB) | F(W, AMD_SSB_NO) | F(W, AMD_IBRS) |
	  F(W, AMD_STIBP) | F(W, AMD_STIBP_ALWAYS_ON) | F(W, AMD_SSBD) | F(W, AMD_PSFD) | F(W, BTC_NO) |
	  F(W, AMD_IBPB_RET) },
#undef W
	{ 0x80000021, 0, EAX, KEEL_WORD_8000_0021_EAX,
	  K(8000_0021_EAX, NO_NESTED_DATA_BP) | K(8000_0021_EAX, FS_GS_BASE_NS) | K(8000_0021_EAX, LFENCE_ALWAYS) |
	  K(8000_0021_EAX, VERW_CLEAR) | K(8000_0021_EAX, NULL_SEL_CLR_BASE) | K(8000_0021_EAX, AUTOIBRS) |
	  K(8000_0021_EAX, AMD_PREFETCHI) | K(8000_0021_EAX, SBPB) | K(8000_0021_EAX, IBPB_BRTYPE) |
	  K(8000_0021_EAX, SRSO_NO) | K(8000_0021_EAX, SRSO_USER_KERNEL_NO),
	  K(8000_0021_EAX, NO_SMM_CTL_MSR) },
	{ 0x80000021, 0, ECX, KEEL_WORD_8000_0021_ECX, K(8000_0021_ECX, TSA_SQ_NO) | K(8000_0021_ECX, TSA_L1_NO) },
};

const unsigned int keel_nr_feature_rows = ARRAY_SIZE(keel_feature_rows);

/*
 * True also where CPUID does not say so: the kernel has found out or made it so (a setting, a microcode's revision), and
 * keeps that as a feature, or as a bug that the CPU has not.  VIRT_SSBD is keel's, where the CPU has what it stands for.
 */
static const struct {
	u16 feature;
	u16 said;
	bool not;		/* said */
	u16 also;		/* this, too; 0: nothing more */
	bool also_not;
} said_rows[] = {
	{ X86_FEATURE_VIRT_SSBD, X86_FEATURE_AMD_SSBD },
	/* What Intel and AMD tell of by bits of their own is one thing, and a guest may have been told by the other's. */
	{ X86_FEATURE_AMD_IBPB, X86_FEATURE_IBPB },
	{ X86_FEATURE_AMD_IBRS, X86_FEATURE_IBRS },
	{ X86_FEATURE_AMD_STIBP, X86_FEATURE_STIBP },
	{ X86_FEATURE_AMD_SSBD, X86_FEATURE_SPEC_CTRL_SSBD },
	{ X86_FEATURE_INTEL_STIBP, X86_FEATURE_STIBP },
	{ X86_FEATURE_SPEC_CTRL_SSBD, X86_FEATURE_AMD_SSBD },
	/* With which goes that a barrier is one for what returns are predicted from. */
	{ X86_FEATURE_SPEC_CTRL, X86_FEATURE_AMD_IBRS, false, X86_FEATURE_AMD_IBPB_RET },
	{ X86_FEATURE_AMD_IBPB_RET, X86_FEATURE_SPEC_CTRL, false, X86_BUG_EIBRS_PBRSB, true },
	{ KEEL_FEATURE_LFENCE_ALWAYS, X86_FEATURE_LFENCE_RDTSC },
	{ KEEL_FEATURE_NULL_SEL_CLR_BASE, X86_BUG_NULL_SEG, true },
#ifdef X86_FEATURE_VERW_CLEAR
	{ KEEL_FEATURE_VERW_CLEAR, X86_FEATURE_VERW_CLEAR },
	{ KEEL_FEATURE_TSA_SQ_NO, X86_FEATURE_TSA_SQ_NO },
	{ KEEL_FEATURE_TSA_L1_NO, X86_FEATURE_TSA_L1_NO },
#endif
#ifdef X86_FEATURE_SBPB
	{ KEEL_FEATURE_SBPB, X86_FEATURE_SBPB },
	{ KEEL_FEATURE_IBPB_BRTYPE, X86_FEATURE_IBPB_BRTYPE },
	{ KEEL_FEATURE_SRSO_NO, X86_FEATURE_SRSO_NO },
#endif
};

/*
 * Nothing without the other: the kernel takes what it knows to be built on a feature along when it turns that off
 * (clearcpuid=, noxsave), and these it does not know everywhere.  In an order in which one look is enough.
 */
static const struct {
	u16 feature, needs;
} needs_rows[] = {
	{ X86_FEATURE_AVX_VNNI, X86_FEATURE_AVX2 },
	{ X86_FEATURE_AVX_IFMA, X86_FEATURE_AVX2 },
	{ X86_FEATURE_SHA512, X86_FEATURE_AVX2 },
	{ X86_FEATURE_SM3, X86_FEATURE_AVX },
	{ X86_FEATURE_SM4, X86_FEATURE_AVX2 },
	{ KEEL_FEATURE_AVX_VNNI_INT8, X86_FEATURE_AVX2 },
	{ KEEL_FEATURE_AVX_VNNI_INT16, X86_FEATURE_AVX2 },
	{ KEEL_FEATURE_AVX_NE_CONVERT, X86_FEATURE_AVX2 },
	{ X86_FEATURE_CMPCCXADD, X86_FEATURE_LM },
	{ X86_FEATURE_AMX_INT8, X86_FEATURE_AMX_TILE },
	{ X86_FEATURE_AMX_BF16, X86_FEATURE_AMX_TILE },
	{ X86_FEATURE_AMX_FP16, X86_FEATURE_AMX_TILE },
	{ KEEL_FEATURE_AMX_COMPLEX, X86_FEATURE_AMX_TILE },
	{ KEEL_FEATURE_AVX10, X86_FEATURE_AVX2 },
	/* Bits of SPEC_CTRL, with which the kernel may have nothing to do. */
	{ KEEL_FEATURE_INTEL_PSFD, X86_FEATURE_SPEC_CTRL },
	{ KEEL_FEATURE_IPRED_CTRL, X86_FEATURE_SPEC_CTRL },
	{ KEEL_FEATURE_RRSBA_CTRL, X86_FEATURE_SPEC_CTRL },
	{ KEEL_FEATURE_DDPD_U, X86_FEATURE_SPEC_CTRL },
	{ KEEL_FEATURE_BHI_CTRL, X86_FEATURE_SPEC_CTRL },
	{ KEEL_FEATURE_SBPB, X86_FEATURE_AMD_IBPB },
};

/* Leaves shown as the host has them, apart from the registers cleared here. */
enum { KEEP_EAX = 1, KEEP_EBX = 2, KEEP_ECX = 4, KEEP_EDX = 8, KEEP_ALL = 15 };
static const struct leaf_row {
	u32 function;
	u8 keep;
	u8 indexed;		/* has sub-leaves: until EAX[4:0], the cache type, is 0 */
} leaf_rows[] = {
	{ 0x00000000, KEEP_ALL },
	{ 0x00000001, KEEP_EAX | KEEP_EBX | KEEP_ECX | KEEP_EDX },
	{ 0x00000002, KEEP_ALL },
	{ 0x00000003, 0 },
	{ 0x00000004, KEEP_ALL, 1 },
	{ 0x00000005, 0 },			/* MONITOR/MWAIT: not offered */
	{ 0x00000006, KEEP_EAX },
	{ 0x00000007, KEEP_ALL },		/* these three are made below */
	{ 0x00000008, 0 },
	{ 0x00000009, KEEP_ALL },		/* direct cache access */
	{ 0x0000000a, 0 },			/* made below */
	{ 0x0000000b, 0 },			/* topology is the VMM's to say */
	{ 0x0000000c, 0 },
	{ 0x0000000d, KEEP_ALL },
	{ 0x0000001d, KEEP_ALL },		/* tiles; these two are made below */
	{ 0x0000001e, KEEP_ALL },
	{ 0x00000024, KEEP_EBX, 1 },		/* AVX10 */
	{ 0x80000000, KEEP_EAX | KEEP_EBX | KEEP_ECX | KEEP_EDX },
	{ 0x80000001, KEEP_EAX | KEEP_ECX | KEEP_EDX },
	{ 0x80000002, KEEP_ALL },
	{ 0x80000003, KEEP_ALL },
	{ 0x80000004, KEEP_ALL },
	{ 0x80000005, KEEP_ALL },
	{ 0x80000006, KEEP_ALL },
	{ 0x80000007, KEEP_EDX },
	{ 0x80000008, KEEP_EAX | KEEP_EBX },
	{ 0x80000009, 0 },
	{ 0x8000000a, 0 },			/* no nested SVM */
	{ 0x80000019, KEEP_ALL },
	{ 0x8000001a, KEEP_EAX },
	{ 0x8000001d, KEEP_ALL, 1 },
	{ 0x8000001e, 0 },
	{ 0x8000001f, 0 },			/* no memory encryption */
	{ 0x80000020, 0 },			/* nor bandwidth of anything */
	{ 0x80000021, KEEP_EAX | KEEP_ECX },
	{ 0x80000022, KEEP_EAX | KEEP_EBX },
};

#define EXTENDED_MAX	0x80000022
#define APERF_ARAT	BIT(2)		/* leaf 6 EAX: the APIC timer never stops */

static struct kvm_cpuid_entry2 *offer(u32 function, u32 index, bool indexed)
{
	struct kvm_cpuid_entry2 *e;

	if (WARN_ON_ONCE(keel_nr_offered == KEEL_OFFERED_MAX))
		return &keel_offered[KEEL_OFFERED_MAX - 1];
	e = &keel_offered[keel_nr_offered++];
	e->function = function;
	e->index = index;
	e->flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
	if (function < 0x80000000 || function <= cpuid_eax(0x80000000))
		cpuid_count(function, index, &e->eax, &e->ebx, &e->ecx, &e->edx);
	else
		e->eax = e->ebx = e->ecx = e->edx = 0;
	return e;
}

/* boot_cpu_data.x86_capability, but for words that the kernel has not, or not everywhere. */
static u32 kernel_word(unsigned int word)
{
	return word < NCAPINTS ? boot_cpu_data.x86_capability[word] : ~0U;
}

/* What the kernel has found to be the same on all CPUs are its own words; of others each is asked. */
struct common_bits {
	u32 function, index;
	int reg;
	atomic_t bits;
};

static void and_cpu_bits(void *arg)
{
	struct common_bits *c = arg;
	u32 r[4];

	cpuid_count(c->function, c->index, &r[EAX], &r[EBX], &r[ECX], &r[EDX]);
	atomic_and(r[c->reg], &c->bits);
}

static u32 common_bits(const struct keel_feature_row *row, u32 bits)
{
	struct common_bits c = { .function = row->function, .index = row->index, .reg = row->reg, .bits = ATOMIC_INIT(bits) };

	/* One of them begins with a version, a number. */
	if (bits && row->word >= NCAPINTS && row->word != KEEL_WORD_24_EBX)
		on_each_cpu(and_cpu_bits, &c, 1);
	return atomic_read(&c.bits);
}

static u32 said_bits(unsigned int word)
{
	unsigned int i;
	u32 bits = 0;

	for (i = 0; i < ARRAY_SIZE(said_rows); i++)
		if (said_rows[i].feature / 32 == word && boot_cpu_has(said_rows[i].said) != said_rows[i].not &&
		    (!said_rows[i].also || boot_cpu_has(said_rows[i].also) != said_rows[i].also_not))
			bits |= BIT(said_rows[i].feature & 31);
	return bits;
}

static void filter_features(struct kvm_cpuid_entry2 *e)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(keel_feature_rows); i++) {
		const struct keel_feature_row *row = &keel_feature_rows[i];
		u32 *reg = keel_entry_reg(e, row->reg);

		if (row->function != e->function || row->index != e->index)
			continue;
		*reg = (common_bits(row, *reg & kernel_word(row->word) & row->allow) | said_bits(row->word)) &
		       ~keel_hw.features_off[row->word];
		*reg |= row->always;
	}
}

/*
 * The last leaf has what guests are to know of AMD's CPUs, and the kernel may know it of those that have no such leaf.
 * The host's own is empty then.
 */
static u32 extended_max(void)
{
	u32 host = cpuid_eax(0x80000000);

	if (host >= 0x8000001d && said_bits(KEEL_WORD_8000_0021_EAX))
		return EXTENDED_MAX;
	return min_t(u32, host, EXTENDED_MAX);
}

/* What is neither a host register nor a masked one. */
static void adjust_leaf(struct kvm_cpuid_entry2 *e)
{
	unsigned int i;

	switch (e->function) {
	case 1:
		e->ebx &= 0xff00;	/* CLFLUSH size; APIC id and count are the VMM's to say */
		if (keel_pmu_capabilities())
			e->ecx |= BIT(X86_FEATURE_PDCM & 31);
		break;
	case 6:
		e->eax = APERF_ARAT;
		break;
	case 0xa:
	case 0x80000022:
		for (i = EAX; i <= EDX; i++)
			*keel_entry_reg(e, i) = keel_pmu_leaf(e->function, i);
		break;
	case 0x24:
		e->ebx = (e->ebx & ~AVX10_VERSION) | min_t(u32, e->ebx & AVX10_VERSION, AVX10_KNOWN);
		break;
	case 0x80000000:
		e->eax = extended_max();
		break;
	case 0x80000001:
		if (!keel_pmu_lists(MSR_F15H_PERF_CTL))
			e->ecx &= ~BIT(X86_FEATURE_PERFCTR_CORE & 31);
		break;
	case 0x80000007:
		e->edx &= INVARIANT_TSC;
		break;
	case 0x80000008:
		/* How far the tables reach that guests run on: a CPU may have more bits than four levels translate. */
		e->eax &= 0xffff;
		if (keel_hw.two_dim)
			e->eax |= min_t(u32, e->eax & 0xff, 9 * keel_hw.root_levels + 12) << 16;
		break;
	case 0x8000001a:
		e->eax &= 7;
		break;
	}
}

/* Registers and masks of 512 bits, also where vectors are shorter. */
static bool has_avx10_state(void)
{
	return !(~keel_supported_xcr0() & XFEATURE_MASK_AVX512);
}

/* Registers of AMX, which the kernel has in use and keel switches. */
static bool has_tile_state(void)
{
	return keel_supported_xcr0() & XFEATURE_MASK_XTILE;
}

static void offer_leaf7(void)
{
	struct kvm_cpuid_entry2 *e = offer(7, 0, true), *sub;
	u32 max = min_t(u32, e->eax, 2), index, la57 = e->ecx & BIT(X86_FEATURE_LA57 & 31);

	e->eax = max;
	filter_features(e);
	/* The kernel may do without. A guest's tables are its own, and need none of ours to be as deep. */
	e->ecx |= la57;
	/* So it may without these (ibt=off, nousershstk): see cet.c. */
	e->ecx |= keel_cet_offers(X86_FEATURE_SHSTK);
	e->edx |= keel_cet_offers(X86_FEATURE_IBT);
	if (!boot_cpu_has(X86_FEATURE_OSPKE))
		e->ecx &= ~BIT(X86_FEATURE_PKU & 31);
	if (!has_tile_state())
		e->edx &= ~BIT(X86_FEATURE_AMX_TILE & 31);
	for (index = 1; index <= max; index++) {
		sub = offer(7, index, true);
		sub->ebx = 0;
		sub->ecx = 0;
		if (index == 2)
			sub->eax = 0;
		filter_features(sub);
		if (index == 1 && !has_avx10_state())
			sub->edx &= ~K(7_1_EDX, AVX10);
	}
}

void keel_fill_leaf_d(struct kvm_cpuid_entry2 *e, u64 xcr0)
{
	e->ebx = xcr0 ? keel_xstate_bytes(xcr0, e->index) : 0;
	if (e->index)
		return;
	e->eax = xcr0;
	e->ecx = e->ebx;
	e->edx = xcr0 >> 32;
}

static void offer_leaf_d(void)
{
	u64 xcr0 = keel_supported_xcr0(), xss = keel_supported_xss();
	struct kvm_cpuid_entry2 *e = offer(0xd, 0, true);
	unsigned int i;

	keel_fill_leaf_d(e, xcr0);
	if (!xcr0)
		return;
	e = offer(0xd, 1, true);
	filter_features(e);
	if (!has_tile_state())
		e->eax &= ~BIT(X86_FEATURE_XFD & 31);
	keel_fill_leaf_d(e, xcr0);
	e->ecx = xss;
	e->edx = xss >> 32;
	for (i = 2; i < 63; i++) {
		if (!((xcr0 | xss) & BIT_ULL(i)))
			continue;
		e = offer(0xd, i, true);
		/* Of XSS, not of XCR0; aligned in the compacted format; can be disabled (XFD). */
		e->ecx &= BIT(0) | BIT(1) | (has_tile_state() ? BIT(2) : 0);
		e->edx = 0;
	}
}

/* 0x1D: the one palette there is; 0x1E: what is done with tiles. */
static void offer_tiles(u32 function)
{
	struct kvm_cpuid_entry2 *e = offer(function, 0, true);

	e->eax = min_t(u32, e->eax, 1);
	if (e->eax)
		filter_features(offer(function, 1, true));
}

static void offer_hypervisor(void)
{
	struct kvm_cpuid_entry2 *e = offer(KVM_CPUID_SIGNATURE, 0, false);
	u32 sig[3];

	memcpy(sig, "KVMKVMKVM\0\0\0", sizeof(sig));
	e->eax = KVM_CPUID_FEATURES;
	e->ebx = sig[0];
	e->ecx = sig[1];
	e->edx = sig[2];
	e = offer(KVM_CPUID_FEATURES, 0, false);
	e->eax = keel_pv_features();
	e->ebx = 0;
	e->ecx = 0;
	e->edx = 0;
}

static void offer_row(const struct leaf_row *row)
{
	struct kvm_cpuid_entry2 *e;
	u32 index = 0;

	do {
		e = offer(row->function, index, row->indexed || row->function == 0xb);
		if (!(row->keep & KEEP_EAX))
			e->eax = 0;
		if (!(row->keep & KEEP_EBX))
			e->ebx = 0;
		if (!(row->keep & KEEP_ECX))
			e->ecx = 0;
		if (!(row->keep & KEEP_EDX))
			e->edx = 0;
		filter_features(e);
		adjust_leaf(e);
	} while (row->indexed && (e->eax & 0x1f) && ++index < 8);
}

static u32 offered_caps[KEEL_NR_WORDS] __ro_after_init;

bool keel_offers(unsigned int feature)
{
	return offered_caps[feature / 32] & BIT(feature & 31);
}

static struct kvm_cpuid_entry2 *offered_leaf(u32 function, u32 index)
{
	unsigned int i;

	for (i = 0; i < keel_nr_offered; i++)
		if (keel_offered[i].function == function && keel_offered[i].index == index)
			return &keel_offered[i];
	return NULL;
}

/* Features by number, and without those that lack what they are built on. */
static void settle_features(void)
{
	const struct keel_feature_row *row;
	struct kvm_cpuid_entry2 *e;
	unsigned int i;

	memset(offered_caps, 0, sizeof(offered_caps));
	for (row = keel_feature_rows; row < keel_feature_rows + ARRAY_SIZE(keel_feature_rows); row++) {
		e = offered_leaf(row->function, row->index);
		if (e)
			offered_caps[row->word] = *keel_entry_reg(e, row->reg);
	}
	for (i = 0; i < ARRAY_SIZE(needs_rows); i++)
		if (!keel_offers(needs_rows[i].needs))
			offered_caps[needs_rows[i].feature / 32] &= ~BIT(needs_rows[i].feature & 31);
	for (row = keel_feature_rows; row < keel_feature_rows + ARRAY_SIZE(keel_feature_rows); row++) {
		e = offered_leaf(row->function, row->index);
		if (e)
			*keel_entry_reg(e, row->reg) = offered_caps[row->word];
	}
}

void keel_features_setup(void)
{
	u32 basic = cpuid_eax(0), extended = extended_max(), last = 0;
	unsigned int i;

	keel_nr_offered = 0;
	keel_cet_setup();
	for (i = 0; i < ARRAY_SIZE(leaf_rows); i++) {
		u32 fn = leaf_rows[i].function;

		if (fn == 0x80000000)
			offer_hypervisor();	/* keeps the table sorted */
		if (fn > (fn < 0x80000000 ? basic : extended))
			continue;
		if (fn == 0x24 && !(offered_leaf(7, 1) && offered_leaf(7, 1)->edx & K(7_1_EDX, AVX10)))
			continue;
		if ((fn == 0x1d || fn == 0x1e) && !has_tile_state())
			continue;
		if (fn < 0x80000000)
			last = fn;
		if (fn == 7)
			offer_leaf7();
		else if (fn == 0xd)
			offer_leaf_d();
		else if (fn == 0x1d || fn == 0x1e)
			offer_tiles(fn);
		else
			offer_row(&leaf_rows[i]);
	}
	keel_offered[0].eax = last;
	settle_features();
}

/* ------------------------------------------------- MSR_IA32_ARCH_CAPABILITIES */

#define ARCH_CAPS_TRUE									\
	(ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_RSBA | ARCH_CAP_SKIP_VMENTRY_L1DFLUSH | ARCH_CAP_SSB_NO |	\
	 ARCH_CAP_MDS_NO | ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TSX_CTRL_MSR | ARCH_CAP_TAA_NO |	\
	 ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO | ARCH_CAP_FB_CLEAR |	\
	 ARCH_CAP_RRSBA | ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO | ARCH_CAP_GDS_NO | ARCH_CAP_RFDS_NO |	\
	 ARCH_CAP_RFDS_CLEAR | ARCH_CAP_ITS_NO)

/* Immunities that older microcode does not tell of. */
static const struct {
	u64 cap;
	u16 bug;
} immunities[] = {
	{ ARCH_CAP_RDCL_NO, X86_BUG_CPU_MELTDOWN },
	{ ARCH_CAP_SSB_NO, X86_BUG_SPEC_STORE_BYPASS },
	{ ARCH_CAP_MDS_NO, X86_BUG_MDS },
	{ ARCH_CAP_TAA_NO, X86_BUG_TAA },
	{ ARCH_CAP_PSCHANGE_MC_NO, X86_BUG_ITLB_MULTIHIT },
	{ ARCH_CAP_GDS_NO, X86_BUG_GDS },
	{ ARCH_CAP_RFDS_NO, X86_BUG_RFDS },
	{ ARCH_CAP_ITS_NO, X86_BUG_ITS },
};

/* Microcode mends this one, unless the kernel has told it not to. */
static bool gds_mended(u64 host)
{
	u64 val;

	return host & ARCH_CAP_GDS_CTRL && !rdmsrq_safe(MSR_IA32_MCU_OPT_CTRL, &val) && !(val & GDS_MITG_DIS);
}

u64 keel_arch_capabilities(void)
{
	u64 host = 0, caps;
	unsigned int i;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES) && rdmsrq_safe(MSR_IA32_ARCH_CAPABILITIES, &host))
		host = 0;
	caps = host & ARCH_CAPS_TRUE;
	for (i = 0; i < ARRAY_SIZE(immunities); i++)
		if (!boot_cpu_has_bug(immunities[i].bug))
			caps |= immunities[i].cap;
	if (gds_mended(host))
		caps |= ARCH_CAP_GDS_NO;
	/* keel has guests execute from small pages: no size of theirs changes. */
	if (mmu_executes_small())
		caps |= ARCH_CAP_PSCHANGE_MC_NO;
	return caps;
}
