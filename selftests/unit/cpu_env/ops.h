/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ops.h - as much of the kernel and of the module as cpu/features.c wants, for a test that includes it: a host whose CPUID,
 * MSRs and bugs the test sets.
 */
#ifndef KEEL_CPU_ENV_H
#define KEEL_CPU_ENV_H

#include <string.h>
#include <asm/cpufeatures.h>
#include "../../../kmod/cpu/words.h"

#define WARN_ON_ONCE(x)		(x)

struct cpuinfo {
	u32 x86_capability[NCAPINTS + NBUGINTS];
};
extern struct cpuinfo boot_cpu_data;

static inline bool boot_cpu_has(unsigned int bit)
{
	return boot_cpu_data.x86_capability[bit / 32] >> (bit & 31) & 1;
}
#define boot_cpu_has_bug	boot_cpu_has

/* One CPU is all of them. */
typedef struct { u32 counter; } atomic_t;
#define ATOMIC_INIT(v)			{ v }
#define atomic_read(v)			((v)->counter)
#define atomic_and(bits, v)		((v)->counter &= (bits))
#define on_each_cpu(fn, arg, wait)	(fn)(arg)

void cpuid_count(u32 function, u32 index, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx);
static inline u32 cpuid_eax(u32 function)
{
	u32 eax, ebx, ecx, edx;

	cpuid_count(function, 0, &eax, &ebx, &ecx, &edx);
	return eax;
}
int rdmsrq_safe(u32 msr, u64 *val);

struct keel_hw_caps {
	bool two_dim;
	unsigned int root_levels;
	u32 features_off[KEEL_NR_WORDS];
};
extern struct keel_hw_caps keel_hw;

u64 keel_pmu_capabilities(void);
u32 keel_pmu_leaf(u32 function, unsigned int reg);
bool keel_pmu_lists(u32 msr);
u64 keel_supported_xcr0(void), keel_supported_xss(void);
void keel_cet_setup(void);
u32 keel_cet_offers(unsigned int x86_feature);
u32 keel_xstate_bytes(u64 features, bool compacted);
u32 keel_pv_features(void);
bool mmu_executes_small(void);
bool keel_offers(unsigned int feature);
u64 keel_arch_capabilities(void);

#endif
