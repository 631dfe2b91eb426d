// SPDX-License-Identifier: GPL-2.0-only
/*
 * pmu.c - Intel's architectural performance counters, versions 1 and 2: what CPUID leaf 0xA tells of.
 *
 * On these CPUs perf stops counters that are the guest's alone while the host runs, and the host's alone while a guest
 * does, by GLOBAL_CTRL; and PEBS, whose records would be written through the guest's page tables.  So where the two differ
 * entries and exits exchange them, whoever it is that counts: vmx_perf_exchange().
 *
 * SDM vol. 3 18.2 "Architectural Performance Monitoring", 24.7.2 and 24.8.2 (MSR areas); RDPMC in vol. 2.
 */
#include <linux/slab.h>
#include "vmx.h"
#include "cpu/pmu.h"

#define MAX_GENERAL	8
#define BITS_MIN	32	/* there are none with less, which would overflow all the time */
#define VERSION		2
#define LEAF_A_NO_ANYTHREAD	BIT(15)		/* EDX */
#define CAP_FULL_WIDTH		BIT(13)		/* of PERF_CAPABILITIES: counters have a second name, wider to write */
#define RDPMC_FIXED		BIT(30)
/* Only to be cleared: overflow of a buffer, and that the state has changed otherwise.  Neither ever happens here. */
#define STATUS_NEVER_SET	(MSR_CORE_PERF_GLOBAL_OVF_CTRL_OVF_BUF | MSR_CORE_PERF_GLOBAL_OVF_CTRL_COND_CHGD)

/* Pins are not the guest's to drive: that bit is kept, and goes no further. */
#define EVENT_BITS	((X86_RAW_EVENT_MASK & ~ARCH_PERFMON_EVENTSEL_PIN_CONTROL) |	\
			 ARCH_PERFMON_EVENTSEL_USR | ARCH_PERFMON_EVENTSEL_OS)
#define SELECT_BITS	(EVENT_BITS | ARCH_PERFMON_EVENTSEL_PIN_CONTROL | ARCH_PERFMON_EVENTSEL_INT |	\
			 ARCH_PERFMON_EVENTSEL_ENABLE)

/* Of each fixed counter in FIXED_CTR_CTRL. */
#define FIXED_BITS	4
#define FIXED_OS	BIT(0)
#define FIXED_USR	BIT(1)
#define FIXED_INT	BIT(3)

/* Event and unit mask, in the order of leaf 0xA's bits for what is not there (SDM table 18-1). */
static const u16 arch_events[] = {
	0x003c,		/* core cycles */
	0x00c0,		/* instructions retired */
	0x013c,		/* reference cycles */
	0x4f2e,		/* last level cache: references */
	0x412e,		/* and misses */
	0x00c4,		/* branches retired */
	0x00c5,		/* and mispredicted */
};

/* The events of fixed counters, as perf wants to hear of them: instructions, core cycles, reference cycles. */
static const u16 fixed_events[] = { 0x00c0, 0x003c, 0x0300 };

/* ------------------------------------------------------------- registers */

/* The old name takes 32 bits and their sign. */
static int set_count(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	keel_pmc_set_count(c, host ? val : (s64)(s32)val);
	return 0;
}

static int set_wide(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	if (val & ~keel_pmc_mask(c))
		return 1;
	keel_pmc_set_count(c, val);
	return 0;
}

static int set_select(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	if (val & ~(u64)SELECT_BITS)
		return 1;
	keel_pmc_set_select(c, val);
	return 0;
}

static u64 fixed_field(u64 ctrl, unsigned int nr)
{
	return ctrl >> (nr - PMU_FIXED) * FIXED_BITS & GENMASK(FIXED_BITS - 1, 0);
}

static int get_fixed_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 *val)
{
	*val = p->fixed_ctrl;
	return 0;
}

static int set_fixed_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	unsigned long fixed = p->all & GENMASK(63, PMU_FIXED);
	u64 valid = 0, changed = 0;
	unsigned int i;

	for_each_set_bit(i, &fixed, BITS_PER_LONG) {
		valid |= (u64)(FIXED_OS | FIXED_USR | FIXED_INT) << (i - PMU_FIXED) * FIXED_BITS;
		if (fixed_field(p->fixed_ctrl ^ val, i))
			changed |= BIT(i);
	}
	if (val & ~valid)
		return 1;
	WRITE_ONCE(p->fixed_ctrl, val);
	if (changed)
		keel_pmu_follow(p, changed);
	return 0;
}

static int set_ovf_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	if (val & ~(p->all | STATUS_NEVER_SET))
		return 1;
	if (!host)
		keel_pmu_change_status(p, val, 0);
	return 0;
}

static void see_capabilities(struct keel_pmu *p)
{
	p->has &= ~(PMU_HAS_CAPS | PMU_HAS_WIDE);
	if (keel_guest_has(p->vcpu, X86_FEATURE_PDCM))
		p->has |= PMU_HAS_CAPS | (p->capabilities & CAP_FULL_WIDTH ? PMU_HAS_WIDE : 0);
}

static int get_capabilities(struct keel_pmu *p, struct keel_pmc *c, u64 *val)
{
	*val = p->capabilities;
	return 0;
}

static int set_capabilities(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	if (!host || val & ~keel_pmu_host.capabilities)
		return 1;
	p->capabilities = val;
	see_capabilities(p);
	return 0;
}

#define ONE(msr, needs, get, set)	{ msr, 1, 1, PMU_NO_COUNTER, needs, get, set }
static const struct keel_pmu_reg regs[] = {
	{ MSR_ARCH_PERFMON_PERFCTR0, MAX_GENERAL, 1, 0, 0, keel_pmc_get_count, set_count },
	{ MSR_ARCH_PERFMON_EVENTSEL0, MAX_GENERAL, 1, 0, 0, keel_pmc_get_select, set_select },
	{ MSR_IA32_PMC0, MAX_GENERAL, 1, 0, PMU_HAS_WIDE, keel_pmc_get_count, set_wide },
	{ MSR_CORE_PERF_FIXED_CTR0, ARRAY_SIZE(fixed_events), 1, PMU_FIXED, PMU_HAS_GLOBAL, keel_pmc_get_count, set_wide },
	ONE(MSR_CORE_PERF_FIXED_CTR_CTRL, PMU_HAS_GLOBAL, get_fixed_ctrl, set_fixed_ctrl),
	ONE(MSR_CORE_PERF_GLOBAL_STATUS, PMU_HAS_GLOBAL, keel_pmu_get_status, keel_pmu_set_status),
	ONE(MSR_CORE_PERF_GLOBAL_CTRL, PMU_HAS_GLOBAL, keel_pmu_get_global_ctrl, keel_pmu_set_global_ctrl),
	ONE(MSR_CORE_PERF_GLOBAL_OVF_CTRL, PMU_HAS_GLOBAL, keel_pmu_get_zero, set_ovf_ctrl),
	ONE(MSR_IA32_PERF_CAPABILITIES, PMU_HAS_CAPS, get_capabilities, set_capabilities),
};

/* ------------------------------------------------------------- what there is */

static void probe(struct keel_pmu_host *host)
{
	struct x86_pmu_capability cap = { 0 };

	/* The answer is for all CPUs, which those of two kinds have not in common. */
	if (!boot_cpu_has(X86_FEATURE_HYBRID_CPU))
		keel_perf_capability(&cap);
	if (!cap.version)
		return;
	host->general = min(cap.num_counters_gp, MAX_GENERAL);
	host->general_bits = cap.bit_width_gp;
	host->has = PMU_HAS_CAPS | PMU_HAS_WIDE;
	host->capabilities = CAP_FULL_WIDTH;	/* that is for keel to do, not for the CPU */
	if (cap.version >= 2) {
		host->fixed = min_t(int, cap.num_counters_fixed, ARRAY_SIZE(fixed_events));
		host->fixed_bits = cap.bit_width_fixed;
		host->has |= PMU_HAS_GLOBAL;
	}
	host->leaf[0] = min(cap.version, VERSION) | host->general << 8 | host->general_bits << 16 |
			  cap.events_mask_len << 24;
	host->leaf[1] = cap.events_mask;
	host->leaf[3] = host->fixed | host->fixed_bits << 5 | LEAF_A_NO_ANYTHREAD;
}

static void refresh(struct keel_vcpu *vcpu, struct keel_pmu *p, const struct kvm_cpuid_entry2 *leaf_a)
{
	union cpuid10_eax eax = { .full = leaf_a ? leaf_a->eax : 0 };
	union cpuid10_edx edx = { .full = leaf_a ? leaf_a->edx : 0 };
	unsigned int general = 0, fixed = 0, events, bits;

	p->has = 0;
	bits = min_t(u32, eax.split.bit_width, keel_pmu_host.general_bits);
	p->general_mask = BIT_ULL(bits) - 1;
	if (eax.split.version_id && bits >= BITS_MIN)
		general = min_t(u32, eax.split.num_counters, keel_pmu_host.general);
	bits = min_t(u32, edx.split.bit_width_fixed, keel_pmu_host.fixed_bits);
	p->fixed_mask = BIT_ULL(bits) - 1;
	if (eax.split.version_id > 1 && keel_pmu_host.has & PMU_HAS_GLOBAL) {
		p->has = PMU_HAS_GLOBAL;
		if (bits >= BITS_MIN)
			fixed = min_t(u32, edx.split.num_counters_fixed, keel_pmu_host.fixed);
	}
	p->all = (BIT(general) - 1) | (BIT(fixed) - 1) << PMU_FIXED;
	/* What the leaf is too short to tell of is not there either. */
	events = min_t(u32, eax.split.mask_length, ARRAY_SIZE(arch_events));
	p->events_off = (leaf_a ? leaf_a->ebx : 0) | ~(u32)(BIT(events) - 1);
	see_capabilities(p);
}

static bool event_off(const struct keel_pmu *p, u64 select)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(arch_events); i++)
		if ((select & (ARCH_PERFMON_EVENTSEL_EVENT | ARCH_PERFMON_EVENTSEL_UMASK)) == arch_events[i])
			return p->events_off & BIT(i);
	return false;
}

static u64 selected(const struct keel_pmc *c)
{
	const struct keel_pmu *p = c->pmu;
	u64 select, field;

	if (!keel_pmu_is_on(c))
		return 0;
	if (c->nr < PMU_FIXED) {
		select = READ_ONCE(c->select);
		return select & ARCH_PERFMON_EVENTSEL_ENABLE && !event_off(p, select) ? select : 0;
	}
	field = fixed_field(READ_ONCE(p->fixed_ctrl), c->nr);
	select = fixed_events[c->nr - PMU_FIXED] | ARCH_PERFMON_EVENTSEL_ENABLE;
	select |= field & FIXED_OS ? ARCH_PERFMON_EVENTSEL_OS : 0;
	select |= field & FIXED_USR ? ARCH_PERFMON_EVENTSEL_USR : 0;
	select |= field & FIXED_INT ? ARCH_PERFMON_EVENTSEL_INT : 0;
	return select;
}

static int counter(struct keel_vcpu *vcpu, u32 ecx)
{
	u32 nr = ecx & ~RDPMC_FIXED;

	if (nr >= PMU_FIXED || !vcpu->pmu)
		return -1;
	nr += ecx & RDPMC_FIXED ? PMU_FIXED : 0;
	return vcpu->pmu->all & BIT(nr) ? nr : -1;
}

/* ------------------------------------------------------------- entries */

DEFINE_STATIC_KEY_FALSE(vmx_perf_used);

/* Before version 2 perf lists event selects, of which there are few; then it is PEBS_ENABLE, and GLOBAL_CTRL on some CPUs. */
#define AREA_MSRS	8
struct vmx_msr_area {
	struct vmx_msr_entry guest[AREA_MSRS], host[AREA_MSRS];
};

/*
 * Models whose exits may load anything into GLOBAL_CTRL where the control says so: errata AAK155, AAP115, AAT100, BC86 with
 * AAY89 and BD102, BA97.
 */
static const u8 global_ctrl_errata[] = { 0x1a, 0x1e, 0x25, 0x2c, 0x2e };

/* Of PEBS_ENABLE, the bits that stand for the counters at the same place in GLOBAL_CTRL (SDM vol. 3B 20.6.2.4, 20.9). */
static u64 pebs_counters __read_mostly = GENMASK_ULL(31, 0);

/*
 * Counters that architectural PEBS writes down, which is without PEBS_ENABLE: each has a bit of its own for that (SDM vol. 2A,
 * CPUID leaves 7.1 and 23H).  What perf has of those in use is not told, so all of them stand still in guests.
 */
#define ARCH_PERFMON_EXT	BIT(8)		/* leaf 7.1 EAX: there is leaf 23H */
#define ARCH_PEBS_LEAVES	(BIT(4) | BIT(5))	/* leaf 23H.0 EAX */
static u64 arch_pebs __read_mostly;

static u64 arch_pebs_counters(void)
{
	u32 eax, ebx, ecx, edx;

	if (boot_cpu_data.cpuid_level < 0x23 || !cpuid_eax(7))
		return 0;
	cpuid_count(7, 1, &eax, &ebx, &ecx, &edx);
	if (!(eax & ARCH_PERFMON_EXT))
		return 0;
	cpuid_count(0x23, 0, &eax, &ebx, &ecx, &edx);
	if ((eax & ARCH_PEBS_LEAVES) != ARCH_PEBS_LEAVES)
		return 0;
	cpuid_count(0x23, 5, &eax, &ebx, &ecx, &edx);
	return eax | (u64)ecx << 32;		/* general ones, fixed ones, where GLOBAL_CTRL has them */
}

static bool cpu_has_pebs(void)
{
	union cpuid10_eax eax = { .full = boot_cpu_data.cpuid_level >= 10 ? cpuid_eax(10) : 0 };
	u64 val;

	arch_pebs = arch_pebs_counters();
	if (arch_pebs)
		return !rdmsrq_safe(MSR_CORE_PERF_GLOBAL_CTRL, &val);
	return boot_cpu_has(X86_FEATURE_PEBS) && eax.split.version_id > 1 &&
	       !rdmsrq_safe(MSR_IA32_PEBS_ENABLE, &val) && !rdmsrq_safe(MSR_CORE_PERF_GLOBAL_CTRL, &val);
}

/*
 * Where perf tells only kvm.ko: PEBS is stopped, and with it the counters whose overflow it would write down, for as an
 * interrupt nobody would expect it.  The others go on, also those that are to leave guests out.
 */
static struct perf_guest_switch_msr *pebs_msrs(int *n)
{
	static DEFINE_PER_CPU(struct perf_guest_switch_msr, msrs[2]);
	struct perf_guest_switch_msr *m = this_cpu_ptr(msrs);
	u64 pebs, ctrl;

	if (arch_pebs) {
		ctrl = keel_rdmsr(MSR_CORE_PERF_GLOBAL_CTRL);
		if (likely(!(ctrl & arch_pebs)))
			return NULL;
		m[0] = (struct perf_guest_switch_msr){
			.msr = MSR_CORE_PERF_GLOBAL_CTRL, .host = ctrl, .guest = ctrl & ~arch_pebs,
		};
		*n = 1;
		return m;
	}
	pebs = keel_rdmsr(MSR_IA32_PEBS_ENABLE);
	if (likely(!pebs))
		return NULL;
	ctrl = keel_rdmsr(MSR_CORE_PERF_GLOBAL_CTRL);
	m[0] = (struct perf_guest_switch_msr){ .msr = MSR_IA32_PEBS_ENABLE, .host = pebs };
	m[1] = (struct perf_guest_switch_msr){
		.msr = MSR_CORE_PERF_GLOBAL_CTRL, .host = ctrl, .guest = ctrl & ~(pebs & pebs_counters),
	};
	*n = ARRAY_SIZE(msrs);
	return m;
}

/* IRQs off. */
static struct perf_guest_switch_msr *guest_msrs(int *n)
{
	return KEEL_PERF_TELLS ? keel_perf_guest_msrs(n) : pebs_msrs(n);
}

void vmx_perf_setup(void)
{
	struct perf_guest_switch_msr *msrs;
	unsigned int i;
	u64 caps;
	int n = 0;

	for (i = 0; i < ARRAY_SIZE(global_ctrl_errata); i++)
		if (boot_cpu_data.x86 == 6 && boot_cpu_data.x86_model == global_ctrl_errata[i])
			vmx_has.global_ctrl = false;
	local_irq_disable();
	msrs = keel_perf_guest_msrs(&n);
	local_irq_enable();
	if (KEEL_PERF_TELLS ? msrs && n : cpu_has_pebs())
		static_branch_enable(&vmx_perf_used);
	/* The others are the fixed counters', or say of the general ones what to measure. */
	if (boot_cpu_has(X86_FEATURE_PDCM) && !rdmsrq_safe(MSR_IA32_PERF_CAPABILITIES, &caps) && caps & PERF_CAP_PEBS_BASELINE)
		pebs_counters = ~0ULL;
}

int vmx_perf_init(struct vmx_vcpu *vmx)
{
	if (!static_key_enabled(&vmx_perf_used))
		return 0;
	vmx->area = kzalloc(sizeof(*vmx->area), GFP_KERNEL_ACCOUNT);
	return vmx->area ? 0 : -ENOMEM;
}

static void load_global_ctrl(struct vmx_vcpu *vmx, bool on)
{
	vmx_entry_ctl(vmx, VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL, on);
	vmx_exit_ctl(vmx, VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL, on);
}

static void load_area(struct vmx_vcpu *vmx, unsigned int used)
{
	if (used == vmx->area_used)
		return;
	vmx->area_used = used;
	vmcs_write(VM_ENTRY_MSR_LOAD_ADDR, __pa(vmx->area->guest));
	vmcs_write(VM_EXIT_MSR_LOAD_ADDR, __pa(vmx->area->host));
	vmcs_write(VM_ENTRY_MSR_LOAD_COUNT, used);
	vmcs_write(VM_EXIT_MSR_LOAD_COUNT, used);
}

/*
 * To ask perf costs as much as the rest of an entry, and its answer is the same until this CPU has been interrupted, or has
 * run something else.
 */
void vmx_perf_exchange(struct vmx_vcpu *vmx)
{
	bool global_ctrl = false, pebs = false, isolated = false;
	struct vmx_msr_area *area = vmx->area;
	struct perf_guest_switch_msr *msrs;
	unsigned int used = 0;
	int n = 0, i;

	if (vmx->window)
		vmx_window_enter(vmx);
	vmx_host_debugctl(vmx);
	vmx->irqs_taken = keel_irqs_taken();
	msrs = guest_msrs(&n);
	for (i = 0; msrs && i < n; i++) {
		const struct perf_guest_switch_msr *m = &msrs[i];

		/* Where PEBS goes and what it writes, of guests that have it; there GLOBAL_CTRL stops it, too. */
		isolated |= m->msr == MSR_IA32_DS_AREA;
		if (m->host == m->guest || m->msr == MSR_IA32_DS_AREA || m->msr == MSR_PEBS_DATA_CFG ||
		    (isolated && m->msr == MSR_IA32_PEBS_ENABLE))
			continue;
		if (m->msr == MSR_CORE_PERF_GLOBAL_CTRL && vmx_has.global_ctrl) {
			global_ctrl = true;
			vmcs_write(GUEST_IA32_PERF_GLOBAL_CTRL, m->guest);
			vmcs_write(HOST_IA32_PERF_GLOBAL_CTRL, m->host);
		} else if (used < AREA_MSRS) {
			pebs |= m->msr == MSR_IA32_PEBS_ENABLE;
			area->guest[used] = (struct vmx_msr_entry){ .index = m->msr, .value = m->guest };
			area->host[used++] = (struct vmx_msr_entry){ .index = m->msr, .value = m->host };
		}
	}
	load_global_ctrl(vmx, global_ctrl);
	load_area(vmx, used);
	vmx->before_entry = pebs ? vmx->before_entry | VMX_STOP_PEBS : vmx->before_entry & ~VMX_STOP_PEBS;
}

const struct keel_pmu_hw vmx_pmu_hw = {
	.leaf = 0xa,
	.regs = regs,
	.nr_regs = ARRAY_SIZE(regs),
	.event_bits = EVENT_BITS,
	.pmi_masks = true,
	.probe = probe,
	.refresh = refresh,
	.selected = selected,
	.counter = counter,
};
