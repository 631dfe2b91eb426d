// SPDX-License-Identifier: GPL-2.0-only
/*
 * pmu.c - AMD's performance counters: four, or six with PERFCTR_CORE, of which the first four go by two names, or as many as
 * CPUID says with version 2, which has registers for all of them at once (on no lab's CPU).
 * APM vol. 2 13.2 "Performance Monitoring Counters".
 */
#include "svm.h"
#include "cpu/pmu.h"

#define LEGACY_COUNTERS	4
#define CORE_COUNTERS	6	/* no CPU so far has more of them */
#define VERSION_2	BIT(0)	/* EAX of leaf 0x80000022; EBX: how many */
#define CYCLES		0x76	/* an event that every family has */

#define EVENT_BITS	((AMD64_RAW_EVENT_MASK & ~ARCH_PERFMON_EVENTSEL_PIN_CONTROL) |	\
			 ARCH_PERFMON_EVENTSEL_USR | ARCH_PERFMON_EVENTSEL_OS)
#define SELECT_BITS	(EVENT_BITS | ARCH_PERFMON_EVENTSEL_INT | ARCH_PERFMON_EVENTSEL_ENABLE)

static int set_count(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	keel_pmc_set_count(c, val);
	return 0;
}

static int set_select(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	keel_pmc_set_select(c, val & SELECT_BITS);	/* reserved bits do not stick */
	return 0;
}

/* Reserved bits do not stick. */
static int set_global_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	return keel_pmu_set_global_ctrl(p, c, val & p->all, host);
}

/* A guest only reads it; AMD's CPUs ignore what is written there. */
static int set_status(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	return host ? keel_pmu_set_status(p, c, val, true) : 0;
}

static int clear_status(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	if (!host)
		keel_pmu_change_status(p, val, 0);
	return 0;
}

static int add_status(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	if (!host)
		keel_pmu_change_status(p, 0, val);
	return 0;
}

#define ONE(msr, get, set)	{ msr, 1, 1, PMU_NO_COUNTER, PMU_HAS_GLOBAL, get, set }

static const struct keel_pmu_reg regs[] = {
	ONE(MSR_AMD64_PERF_CNTR_GLOBAL_STATUS, keel_pmu_get_status, set_status),
	ONE(MSR_AMD64_PERF_CNTR_GLOBAL_CTL, keel_pmu_get_global_ctrl, set_global_ctrl),
	ONE(MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_CLR, keel_pmu_get_zero, clear_status),
	ONE(MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_CLR + 1, keel_pmu_get_zero, add_status),	/* _SET */
	{ MSR_K7_EVNTSEL0, LEGACY_COUNTERS, 1, 0, 0, keel_pmc_get_select, set_select },
	{ MSR_K7_PERFCTR0, LEGACY_COUNTERS, 1, 0, 0, keel_pmc_get_count, set_count },
	{ MSR_F15H_PERF_CTL, CORE_COUNTERS, 2, 0, PMU_HAS_CORE, keel_pmc_get_select, set_select },
	{ MSR_F15H_PERF_CTR, CORE_COUNTERS, 2, 0, PMU_HAS_CORE, keel_pmc_get_count, set_count },
};

static void probe(struct keel_pmu_host *host)
{
	if (!keel_pmu_counts(CYCLES))
		return;
	host->general = LEGACY_COUNTERS;
	host->general_bits = 48;
	if (boot_cpu_has(X86_FEATURE_PERFCTR_CORE)) {
		host->general = CORE_COUNTERS;
		host->has = PMU_HAS_CORE;
		if (boot_cpu_has(X86_FEATURE_PERFMON_V2)) {
			host->has |= PMU_HAS_GLOBAL;
			host->leaf[0] = VERSION_2;
			host->leaf[1] = CORE_COUNTERS;
		}
	}
}

static void refresh(struct keel_vcpu *vcpu, struct keel_pmu *p, const struct kvm_cpuid_entry2 *leaf)
{
	bool core = keel_guest_has(vcpu, X86_FEATURE_PERFCTR_CORE), all_at_once = leaf && leaf->eax & VERSION_2;
	u32 nr = core ? CORE_COUNTERS : LEGACY_COUNTERS;

	p->has = keel_pmu_host.has & ((core ? PMU_HAS_CORE : 0) | (core && all_at_once ? PMU_HAS_GLOBAL : 0));
	if (p->has & PMU_HAS_GLOBAL)
		nr = min_t(u32, leaf->ebx & 0xf, nr);
	p->all = BIT(min_t(u32, nr, keel_pmu_host.general)) - 1;
	p->general_mask = GENMASK_ULL(keel_pmu_host.general_bits - 1, 0);
}

static u64 selected(const struct keel_pmc *c)
{
	u64 select = READ_ONCE(c->select);

	return select & ARCH_PERFMON_EVENTSEL_ENABLE && keel_pmu_is_on(c) ? select : 0;
}

/* Every AMD CPU has the instruction, with the counters that its CPUID tells of. */
static int counter(struct keel_vcpu *vcpu, u32 ecx)
{
	u32 nr = keel_guest_has(vcpu, X86_FEATURE_PERFCTR_CORE) ? CORE_COUNTERS : LEGACY_COUNTERS;

	if (vcpu->pmu && vcpu->pmu->has & PMU_HAS_GLOBAL)
		nr = hweight64(vcpu->pmu->all);
	return ecx < nr ? ecx : -1;
}

const struct keel_pmu_hw svm_pmu_hw = {
	.leaf = 0x80000022,
	.regs = regs,
	.nr_regs = ARRAY_SIZE(regs),
	.event_bits = EVENT_BITS,
	.probe = probe,
	.refresh = refresh,
	.selected = selected,
	.counter = counter,
};
