// SPDX-License-Identifier: GPL-2.0-only
/*
 * cpu_models.c - does a host that is just what one of QEMU's named CPU models says offer guests all of that model?  Then
 * QEMU starts it with "enforce".  What keel keeps from guests stands in the list below, and in docs/hosts.md with the reason.
 */
#include <linux/build_bug.h>
#include <stdio.h>
#include <stdlib.h>
#include "../../kmod/cpu/features.c"
#include "tap.h"

struct cpuinfo boot_cpu_data;
struct keel_hw_caps keel_hw;

#define MAX_WORDS	32
struct model_word {
	u32 function, index;
	u8 reg;
};

struct model {
	const char *name, *vendor;
	u64 arch_capabilities;
	u32 bits[MAX_WORDS];
};

#include "cpu_models.h"

#define NR_WORDS	ARRAY_SIZE(model_words)
static_assert(NR_WORDS <= MAX_WORDS);

/* What a model asks of QEMU, but QEMU not of KVM; or what a capability grants (TSC_DEADLINE). */
static const struct held {
	u32 function, index;
	u8 reg;
	u32 bits;
	const char *name;	/* in docs/hosts.md; NULL: see above */
} held[] = {
	{ 1, 0, ECX, BIT(3) | BIT(24), NULL },			/* MONITOR, which QEMU leaves out with KVM */
	{ 1, 0, EDX, BIT(22), NULL },				/* ACPI, */
	{ 0x80000001, 0, ECX, BIT(2), NULL },			/* and SVM likewise */
	{ 0x80000007, 0, EBX, BIT(0) | BIT(1), NULL },		/* QEMU asks the host itself */
	{ 7, 0, EBX, BIT(14), "mpx" },
	{ 0xd, 0, EAX, BIT(3) | BIT(4), "mpx" },
	{ 7, 0, EDX, BIT(30), "core-capability" },
	{ 0xc0000001, 0, EDX, ~0U, "xstore" },
	{ 7, 1, EAX, BIT(17) | BIT(18) | BIT(19), "fred" },
	{ 7, 1, EAX, BIT(31), "movrs" },
	{ 7, 1, EDX, BIT(21), "apxf" },
	{ 0x29, 0, EBX, ~0U, "apxf" },
	{ 0xd, 0, EAX, BIT(19), "apxf" },
	{ 0x24, 1, ECX, ~0U, "avx10.2" },
};

static const struct model *host;

static u32 host_word(u32 function, u32 index, u8 reg)
{
	unsigned int i;

	for (i = 0; i < NR_WORDS; i++)
		if (model_words[i].function == function && model_words[i].index == index && model_words[i].reg == reg)
			return host->bits[i];
	return 0;
}

static bool is_amd(void)
{
	return !strcmp(host->vendor, "AuthenticAMD") || !strcmp(host->vendor, "HygonGenuine");
}

void cpuid_count(u32 function, u32 index, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx)
{
	*eax = host_word(function, index, EAX);
	*ebx = host_word(function, index, EBX);
	*ecx = host_word(function, index, ECX);
	*edx = host_word(function, index, EDX);
	if (!function)
		*eax = 0x29;
	if (function == 0x80000000)
		*eax = is_amd() ? 0x80000022 : 0x80000008;
	if (function == 7 && !index)
		*eax = 2;
	if (function == 0x24 && !index)
		*ebx |= 1;
	if ((function == 0x1d || function == 0x1e) && !index)
		*eax = 1;
}

int rdmsrq_safe(u32 msr, u64 *val)
{
	if (msr != MSR_IA32_ARCH_CAPABILITIES)
		return 1;
	*val = host->arch_capabilities;
	return 0;
}

u64 keel_pmu_capabilities(void)
{
	return 1;
}

u32 keel_pmu_leaf(u32 function, unsigned int reg)
{
	return function == 0x80000022 && reg == EAX;
}

bool keel_pmu_lists(u32 msr)
{
	return true;
}

/* As cpu/fpu.c has it of a host that has them all in use.  (What QEMU says of leaf 0xd follows from what its emulation can do.) */
u64 keel_supported_xcr0(void)
{
	if (!boot_cpu_has(X86_FEATURE_XSAVE))
		return 0;
	return 0x2e7 | (boot_cpu_has(X86_FEATURE_AMX_TILE) && boot_cpu_has(X86_FEATURE_XFD) ? XFEATURE_MASK_XTILE : 0);
}

u64 keel_supported_xss(void)
{
	return host_word(0xd, 1, ECX) & (BIT(11) | BIT(12));
}

void keel_cet_setup(void)
{
}

u32 keel_cet_offers(unsigned int x86_feature)
{
	return host_word(7, 0, x86_feature == X86_FEATURE_SHSTK ? ECX : EDX) & BIT(x86_feature & 31);
}

u32 keel_xstate_bytes(u64 features, bool compacted)
{
	return 576;
}

u32 keel_pv_features(void)
{
	return 0;
}

bool mmu_executes_small(void)
{
	return false;
}

static void host_off(unsigned int feature)
{
	keel_hw.features_off[feature / 32] |= BIT(feature & 31);
}

/* A kernel that has all in use that the CPU has, and knows no good of it but what the CPU says. */
static void host_is(const struct model *m)
{
	const struct keel_feature_row *row;

	host = m;
	memset(&keel_hw, 0, sizeof(keel_hw));
	memset(&boot_cpu_data, 0, sizeof(boot_cpu_data));
	memset(boot_cpu_data.x86_capability + NCAPINTS, 0xff, NBUGINTS * sizeof(u32));
	for (row = keel_feature_rows; row < keel_feature_rows + keel_nr_feature_rows; row++)
		if (row->word < NCAPINTS)
			boot_cpu_data.x86_capability[row->word] = host_word(row->function, row->index, row->reg);
	boot_cpu_data.x86_capability[X86_FEATURE_OSPKE / 32] |= BIT(X86_FEATURE_OSPKE & 31);
	/* As svm/setup.c. */
	if (is_amd()) {
		host_off(X86_FEATURE_WAITPKG);
		host_off(X86_FEATURE_BUS_LOCK_DETECT);
		host_off(X86_FEATURE_LAM);
	}
	keel_features_setup();
}

/* As a VMM finds it. */
static u32 offered(const struct model_word *w)
{
	struct kvm_cpuid_entry2 *e = offered_leaf(w->function, w->index);

	return e ? *keel_entry_reg(e, w->reg) : 0;
}

static u32 held_back(const struct model_word *w)
{
	const struct held *h;
	u32 bits = 0;

	for (h = held; h < held + ARRAY_SIZE(held); h++)
		if (h->function == w->function && h->index == w->index && h->reg == w->reg)
			bits |= h->bits;
	return bits;
}

static void test_model(const struct model *m)
{
	u64 caps;
	unsigned int i;
	bool ok = true;

	host_is(m);
	for (i = 0; i < NR_WORDS; i++) {
		const struct model_word *w = &model_words[i];
		u32 lacks = m->bits[i] & ~offered(w), unsaid = lacks & ~held_back(w);

		/* QEMU adds what leaf 1 has, where AMD's has it twice. */
		if (w->function == 0x80000001 && w->reg == EDX)
			unsaid &= ~0x0183f3ffU;
		if (!unsaid)
			continue;
		printf("# %s: leaf %#x.%u register %u lacks %#x\n", m->name, w->function, w->index, w->reg, unsaid);
		ok = false;
	}
	boot_cpu_data.x86_capability[X86_FEATURE_ARCH_CAPABILITIES / 32] |= BIT(X86_FEATURE_ARCH_CAPABILITIES & 31);
	caps = m->arch_capabilities & ~keel_arch_capabilities();
	if (caps)
		printf("# %s: IA32_ARCH_CAPABILITIES lacks %#llx\n", m->name, (unsigned long long)caps);
	tap_result(ok && !caps, "%s", m->name);
}

/* A CPU without AVX, and a kernel that has turned it off. */
static void test_off(const char *name)
{
	unsigned int i;

	for (i = 0; strcmp(models[i].name, name); i++)
		;
	host_is(&models[i]);
	tap_result(keel_offers(X86_FEATURE_AVX_IFMA) && keel_offers(KEEL_FEATURE_AVX_VNNI_INT8), "%s has AVX-IFMA, AVX-VNNI-INT8",
		   name);
	boot_cpu_data.x86_capability[X86_FEATURE_AVX2 / 32] &= ~BIT(X86_FEATURE_AVX2 & 31);
	keel_features_setup();
	tap_result(!keel_offers(X86_FEATURE_AVX_IFMA) && !keel_offers(KEEL_FEATURE_AVX_VNNI_INT8) &&
		   !(offered_leaf(7, 1)->edx & BIT(4)) && offered_leaf(7, 1)->eax, "without AVX2 nothing that is built on it");
	boot_cpu_data.x86_capability[X86_FEATURE_SPEC_CTRL / 32] &= ~BIT(X86_FEATURE_SPEC_CTRL & 31);
	keel_features_setup();
	tap_result(!offered_leaf(7, 2)->edx || !(offered_leaf(7, 2)->edx & 0x1f), "without SPEC_CTRL none of its bits");
}

/* Tiles, and a kernel that has not their state in use. */
static void test_tiles(const char *name)
{
	unsigned int i;

	for (i = 0; strcmp(models[i].name, name); i++)
		;
	host_is(&models[i]);
	tap_result(keel_offers(X86_FEATURE_AMX_INT8) && keel_offers(KEEL_FEATURE_AMX_COMPLEX) && offered_leaf(0x1d, 1) &&
		   offered_leaf(0x1e, 1) && keel_offered[0].eax >= 0x1e, "%s has tiles", name);
	boot_cpu_data.x86_capability[X86_FEATURE_XFD / 32] &= ~BIT(X86_FEATURE_XFD & 31);
	keel_features_setup();
	tap_result(!keel_offers(X86_FEATURE_AMX_TILE) && !keel_offers(X86_FEATURE_AMX_INT8) &&
		   !keel_offers(X86_FEATURE_AMX_FP16) && !keel_offers(KEEL_FEATURE_AMX_COMPLEX) && !offered_leaf(0x1d, 0) &&
		   !offered_leaf(0x1e, 0), "none of it where the kernel has not their state in use");
}

/* What the kernel says and CPUID does not: an AMD CPU that has no such leaf. */
static void test_said(const char *name)
{
	unsigned int i;
	u32 eax;

	for (i = 0; strcmp(models[i].name, name); i++)
		;
	host_is(&models[i]);
	eax = offered_leaf(0x80000021, 0)->eax;
	boot_cpu_data.x86_capability[X86_FEATURE_LFENCE_RDTSC / 32] |= BIT(X86_FEATURE_LFENCE_RDTSC & 31);
	boot_cpu_data.x86_capability[X86_BUG_NULL_SEG / 32] &= ~BIT(X86_BUG_NULL_SEG & 31);
	keel_features_setup();
	tap_result(!(eax & 0x44) && (offered_leaf(0x80000021, 0)->eax & 0x44) == 0x44,
		   "LFENCE is serializing and null selectors clear bases, if the kernel says so");
}

static void test_docs(void)
{
	static char text[1 << 16], word[64];
	FILE *f = fopen("../../docs/hosts.md", "r");
	unsigned int i;
	bool ok = true;

	if (f)
		text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	for (i = 0; i < ARRAY_SIZE(held); i++) {
		if (!held[i].name)
			continue;
		snprintf(word, sizeof(word), "`%s`", held[i].name);
		if (strstr(text, word))
			continue;
		printf("# docs/hosts.md does not say why %s is withheld\n", held[i].name);
		ok = false;
	}
	tap_result(ok, "docs/hosts.md has what is withheld");
}

int main(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(models); i++)
		test_model(&models[i]);
	test_off("SierraForest-v1");
	test_tiles("DiamondRapids-v1");
	test_said("EPYC-v1");
	test_docs();
	tap_plan_done();
	return tap_exit();
}
