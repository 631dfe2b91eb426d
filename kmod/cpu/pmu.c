// SPDX-License-Identifier: GPL-2.0-only
/*
 * pmu.c - performance counters.  A counter that the guest has turned on is an event of the host's perf, bound to the
 * vCPU's thread and counting in guest mode only; perf decides when it really has hardware.  Where the host's perf
 * has none to give there are no counters.  Instructions that keel emulates are not counted.
 *
 * Writes only note what is wanted: the event follows in the slow loop, where sleeping is allowed, before the guest
 * goes on (KEEL_REQ_PMU).  Locks: all but the overflow's way is the vCPU's thread's or whoever holds vcpu->mutex; the
 * filter changes while the VM is paused.
 *
 * Which registers there are is the backends' to know: struct keel_pmu_hw.
 */
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/perf_event.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include "ops.h"
#include "pmu.h"

#define FILTER_EVENTS	300

static bool pmu = true;
module_param(pmu, bool, 0444);
MODULE_PARM_DESC(pmu, "Give guests performance counters (on, if the host has any)");

struct keel_pmu_host keel_pmu_host __ro_after_init;

/* Those a guest without counters finds empty all the same: systems write them without asking CPUID. */
static const struct {
	u32 first, count;
} old_regs[] = {
	{ MSR_P6_PERFCTR0, 2 },
	{ MSR_P6_EVNTSEL0, 2 },
	{ MSR_K7_EVNTSEL0, 8 },		/* four event selects, four counts */
};

/* The number may be what a guest says, once that was checked. */
static struct keel_pmc *pmc_of(struct keel_pmu *p, unsigned int nr)
{
	u8 general = keel_pmu_host.general;

	return nr < PMU_FIXED ? &p->pmc[array_index_nospec(nr, general)] :
				&p->pmc[general + array_index_nospec(nr - PMU_FIXED, keel_pmu_host.fixed)];
}

/* ------------------------------------------------------------------ events */

/* Any context, NMI included: the rest waits until interrupts are on, which is before the guest goes on. */
static void overflow(struct perf_event *event, struct perf_sample_data *data, struct pt_regs *regs)
{
	struct keel_pmc *c = event->overflow_handler_context;
	struct keel_pmu *p = c->pmu;

	/* The event is yet to be told of a write, or of the last overflow: this one is none of the counter's. */
	if (test_bit(c->nr, &p->stale))
		return;
	set_bit(c->nr, &p->overflowed);
	irq_work_queue(&p->work);
}

static void overflow_work(struct irq_work *work)
{
	struct keel_pmu *p = container_of(work, struct keel_pmu, work);
	unsigned long which = xchg(&p->overflowed, 0);
	bool pmi = false;
	unsigned int i;

	for_each_set_bit(i, &which, BITS_PER_LONG) {
		set_bit(i, &p->status);
		pmi |= !!(keel_hw.pmu->selected(pmc_of(p, i)) & ARCH_PERFMON_EVENTSEL_INT);
		set_bit(i, &p->stale);		/* the period to the next one is another */
	}
	keel_request(KEEL_REQ_PMU, p->vcpu);
	if (pmi)
		irq_pmi(p->vcpu, keel_hw.pmu->pmi_masks);
}

/* Of an event select, what the vendor's CPUs have of it: the event without its unit mask. */
static u64 event_of(u64 select)
{
	return select & AMD64_EVENTSEL_EVENT & keel_hw.pmu->event_bits;
}

/* Is it listed, and not excluded?  Entries stand sorted: those of one event are together. */
static bool filter_lists(const struct kvm_pmu_event_filter *f, u64 select)
{
	unsigned int low = 0, high = f->nevents;
	u64 event = event_of(select);
	bool included = false;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if ((f->events[middle] & KVM_PMU_MASKED_ENTRY_EVENT_SELECT) < event)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < f->nevents && (f->events[low] & KVM_PMU_MASKED_ENTRY_EVENT_SELECT) == event; low++) {
		u64 entry = f->events[low];

		if ((select >> 8 & entry >> 56) != (entry & KVM_PMU_MASKED_ENTRY_UMASK_MATCH) >> 8)
			continue;
		if (entry & KVM_PMU_MASKED_ENTRY_EXCLUDE)
			return false;
		included = true;
	}
	return included;
}

/* General counters go by the event, fixed ones by their number. */
static bool filter_allows(const struct kvm_pmu_event_filter *f, const struct keel_pmc *c, u64 select)
{
	bool listed;

	if (!f)
		return true;
	listed = c->nr < PMU_FIXED ? filter_lists(f, select) : f->fixed_counter_bitmap & BIT(c->nr - PMU_FIXED);
	return listed == (f->action == KVM_PMU_EVENT_ALLOW);
}

#define PRIVILEGES	(ARCH_PERFMON_EVENTSEL_USR | ARCH_PERFMON_EVENTSEL_OS)

static struct perf_event *event_create(u64 select, u64 period, struct keel_pmc *c)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = select & keel_hw.pmu->event_bits & ~PRIVILEGES,
		.sample_period = period,
		.pinned = true,
		.exclude_host = true,
		.exclude_hv = true,
		.exclude_user = !(select & ARCH_PERFMON_EVENTSEL_USR),
		.exclude_kernel = !(select & ARCH_PERFMON_EVENTSEL_OS),
	};
	struct perf_event *event = perf_event_create_kernel_counter(&attr, -1, current, overflow, c);

	return IS_ERR(event) ? NULL : event;
}

static void event_release(struct keel_pmc *c)
{
	if (c->event)
		perf_event_release_kernel(c->event);
	c->event = NULL;
}

/* The event's count goes into the counter's, unless that was written since. */
static void collect(struct keel_pmc *c)
{
	u64 n = c->event ? perf_event_pause(c->event, true) : 0;

	if (!c->written)
		c->value = (c->value + n) & keel_pmc_mask(c);
	c->written = false;
}

/* Make the event what the registers say.  One that is merely stopped is kept: guests stop and start all the time. */
static void update(struct keel_pmu *p, struct keel_pmc *c)
{
	u64 select, period, mask = keel_pmc_mask(c);

	collect(c);
	clear_bit(c->nr, &p->stale);
	select = keel_hw.pmu->selected(c);
	if (!(select & PRIVILEGES) || !filter_allows(p->vcpu->vm->pmu_filter, c, select))
		return;
	if (c->event && (c->made_for ^ select) & keel_hw.pmu->event_bits)
		event_release(c);
	period = (-c->value & mask) ?: mask + 1;
	if (c->event && !perf_event_period(c->event, period)) {
		perf_event_enable(c->event);
		return;
	}
	event_release(c);
	c->made_for = select;
	c->event = event_create(select, period, c);
}

void keel_pmu_update(struct keel_vcpu *vcpu)
{
	struct keel_pmu *p = vcpu->pmu;
	unsigned long all = p->all, which = READ_ONCE(p->stale) & all;
	unsigned int i;

	/* Events belong to a thread: a vCPU run by another one takes its counters along. */
	if (!keel_thread_is(&p->thread, &vcpu->thread)) {
		for_each_set_bit(i, &all, BITS_PER_LONG) {
			collect(pmc_of(p, i));
			event_release(pmc_of(p, i));
		}
		p->thread = vcpu->thread;
		which = all;
	}
	for_each_set_bit(i, &which, BITS_PER_LONG)
		update(p, pmc_of(p, i));
}

void keel_pmu_follow(struct keel_pmu *p, u64 counters)
{
	unsigned long which = counters;
	unsigned int i;

	for_each_set_bit(i, &which, BITS_PER_LONG)
		set_bit(i, &p->stale);
	keel_request(KEEL_REQ_PMU, p->vcpu);
}

void keel_pmu_new_thread(struct keel_vcpu *vcpu)
{
	if (vcpu->pmu)
		keel_request(KEEL_REQ_PMU, vcpu);
}

/* -------------------------------------------------------------- life */

bool keel_pmu_counts(u64 config)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = config,
		.exclude_host = true,
		.disabled = true,
	};
	struct perf_event *event = perf_event_create_kernel_counter(&attr, -1, current, NULL, NULL);

	if (IS_ERR(event))
		return false;
	perf_event_release_kernel(event);
	return true;
}

void __init keel_pmu_setup(void)
{
	if (pmu)
		keel_hw.pmu->probe(&keel_pmu_host);
	pmu = keel_pmu_host.general;	/* the parameter reads as what has become of it */
}

void keel_pmu_reset(struct keel_vcpu *vcpu)
{
	struct keel_pmu *p = vcpu->pmu;
	unsigned int i;

	if (!p)
		return;
	for (i = 0; i < keel_pmu_host.general + keel_pmu_host.fixed; i++) {
		struct keel_pmc *c = &p->pmc[i];

		event_release(c);
		*c = (struct keel_pmc) {
			.pmu = p,
			.nr = i < keel_pmu_host.general ? i : i - keel_pmu_host.general + PMU_FIXED,
		};
	}
	p->status = 0;
	p->fixed_ctrl = 0;
	p->global_ctrl = p->all & GENMASK(PMU_FIXED - 1, 0);	/* SDM table 9-1 */
	keel_request(KEEL_REQ_PMU, vcpu);
}

/* What a vCPU may have is settled before the VM's first. */
int keel_pmu_init(struct keel_vcpu *vcpu)
{
	struct keel_pmu *p;

	if (!pmu || vcpu->vm->no_pmu)
		return 0;
	p = kzalloc(struct_size(p, pmc, keel_pmu_host.general + keel_pmu_host.fixed), GFP_KERNEL_ACCOUNT);
	if (!p)
		return -ENOMEM;
	p->vcpu = vcpu;
	if (keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_STUFF_FEATURE_MSRS))
		p->capabilities = keel_pmu_host.capabilities;
	init_irq_work(&p->work, overflow_work);
	vcpu->pmu = p;
	keel_pmu_reset(vcpu);
	return 0;
}

void keel_pmu_free(struct keel_vcpu *vcpu)
{
	if (!vcpu->pmu)
		return;
	keel_pmu_reset(vcpu);
	irq_work_sync(&vcpu->pmu->work);
	kfree(vcpu->pmu);
}

void keel_pmu_refresh(struct keel_vcpu *vcpu, const struct kvm_cpuid_entry2 *leaf)
{
	struct keel_pmu *p = vcpu->pmu;
	u64 had;

	if (!p)
		return;
	had = p->all;
	keel_hw.pmu->refresh(vcpu, p, leaf);
	if (had != p->all)
		keel_pmu_reset(vcpu);
}

/* -------------------------------------------------------------- registers */

/* Its counter's number in *@nr, of those there may be: @has and @all of the guest, or of the host. */
static const struct keel_pmu_reg *find(u32 msr, u8 has, u64 all, unsigned int *nr)
{
	unsigned int i, n;

	for (i = 0; i < keel_hw.pmu->nr_regs; i++) {
		const struct keel_pmu_reg *r = &keel_hw.pmu->regs[i];

		n = msr - r->first;
		if (n >= r->count * r->stride || n % r->stride || r->needs & ~has)
			continue;
		*nr = r->nr == PMU_NO_COUNTER ? r->nr : r->nr + n / r->stride;
		return *nr == PMU_NO_COUNTER || all & BIT(*nr) ? r : NULL;
	}
	return NULL;
}

/* The guest's, or NULL. */
static const struct keel_pmu_reg *find_reg(struct keel_vcpu *vcpu, u32 msr, struct keel_pmc **c)
{
	struct keel_pmu *p = vcpu->pmu;
	const struct keel_pmu_reg *r;
	unsigned int nr;

	if (!p)
		return NULL;
	r = find(msr, p->has, p->all, &nr);
	*c = r && nr != PMU_NO_COUNTER ? pmc_of(p, nr) : NULL;
	return r;
}

u32 keel_pmu_leaf(u32 function, unsigned int reg)
{
	return function == keel_hw.pmu->leaf ? keel_pmu_host.leaf[reg] : 0;
}

u64 keel_pmu_capabilities(void)
{
	return keel_pmu_host.capabilities;
}

bool keel_pmu_lists(u32 msr)
{
	unsigned int nr;
	u64 all = (BIT(keel_pmu_host.general) - 1) | (BIT(keel_pmu_host.fixed) - 1) << PMU_FIXED;

	return pmu && find(msr, keel_pmu_host.has, all, &nr);
}

int keel_pmc_get_count(struct keel_pmu *p, struct keel_pmc *c, u64 *val)
{
	u64 enabled, running, n = 0;

	if (c->event && !c->written) {
		if (p->vcpu->atomic)
			return -EAGAIN;
		n = perf_event_read_value(c->event, &enabled, &running);
	}
	*val = (c->value + n) & keel_pmc_mask(c);
	return 0;
}

int keel_pmc_get_select(struct keel_pmu *p, struct keel_pmc *c, u64 *val)
{
	*val = c->select;
	return 0;
}

bool keel_pmu_is_on(const struct keel_pmc *c)
{
	return !(c->pmu->has & PMU_HAS_GLOBAL) || READ_ONCE(c->pmu->global_ctrl) & BIT(c->nr);
}

int keel_pmu_get_global_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 *val)
{
	*val = p->global_ctrl;
	return 0;
}

int keel_pmu_set_global_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	u64 changed = p->global_ctrl ^ val;

	if (val & ~p->all)
		return 1;
	WRITE_ONCE(p->global_ctrl, val);
	if (changed)
		keel_pmu_follow(p, changed);
	return 0;
}

int keel_pmu_get_status(struct keel_pmu *p, struct keel_pmc *c, u64 *val)
{
	*val = READ_ONCE(p->status);
	return 0;
}

/* Only a VMM may write it: what it saved. */
int keel_pmu_set_status(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host)
{
	if (!host)
		return 1;
	p->status = val & p->all;
	return 0;
}

/* An overflow may come in between.  What a VMM saved is in the status itself: restored by it these do nothing. */
void keel_pmu_change_status(struct keel_pmu *p, u64 clear, u64 set)
{
	atomic_long_andnot(clear, (atomic_long_t *)&p->status);
	atomic_long_or(set & p->all, (atomic_long_t *)&p->status);
}

int keel_pmu_get_zero(struct keel_pmu *p, struct keel_pmc *c, u64 *val)
{
	*val = 0;
	return 0;
}

void keel_pmc_set_count(struct keel_pmc *c, u64 val)
{
	c->value = val & keel_pmc_mask(c);
	c->written = true;
	keel_pmu_follow(c->pmu, BIT(c->nr));
}

void keel_pmc_set_select(struct keel_pmc *c, u64 val)
{
	if (c->select == val)
		return;
	WRITE_ONCE(c->select, val);
	keel_pmu_follow(c->pmu, BIT(c->nr));
}

static bool is_old(u32 msr)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(old_regs); i++)
		if (msr - old_regs[i].first < old_regs[i].count)
			return true;
	return false;
}

/* A VMM may save and restore, as nothing, what the guest has not. */
int keel_pmu_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	struct keel_pmc *c;
	const struct keel_pmu_reg *r = find_reg(vcpu, msr, &c);

	*val = 0;
	if (r)
		return r->get(vcpu->pmu, c, val);
	/* Nothing is what a guest with PDCM is capable of then. */
	return !host && !is_old(msr) && msr != MSR_IA32_PERF_CAPABILITIES;
}

int keel_pmu_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	struct keel_pmc *c;
	const struct keel_pmu_reg *r = find_reg(vcpu, msr, &c);

	return r ? r->set(vcpu->pmu, c, val, host) : (val || !host) && !is_old(msr);
}

int keel_rdpmc(struct keel_vcpu *vcpu, u32 ecx, u64 *val)
{
	int nr = keel_hw.pmu->counter(vcpu, ecx);
	struct keel_pmu *p = vcpu->pmu;

	if (keel_backdoor_opens(EMUL_OPEN_COUNTER, ecx)) {
		*val = keel_backdoor_counter(vcpu, ecx);
		return 0;
	}
	*val = 0;
	if (nr < 0)
		return 1;
	return p && p->all & BIT(nr) ? keel_pmc_get_count(p, pmc_of(p, nr), val) : 0;
}

/* -------------------------------------------------------------- what the VMM says */

int keel_pmu_caps(void)
{
	return pmu ? KVM_PMU_CAP_DISABLE : 0;
}

long keel_pmu_enable_cap(struct keel_vm *vm, u64 arg)
{
	if (!pmu || arg & ~(u64)KVM_PMU_CAP_DISABLE || vm->nr_vcpus)
		return -EINVAL;
	vm->no_pmu = arg & KVM_PMU_CAP_DISABLE;
	return 0;
}

/* It is the VM's from here on. */
static void filter_install(struct keel_vm *vm, struct kvm_pmu_event_filter *filter)
{
	struct kvm_pmu_event_filter *old;
	struct keel_vcpu *vcpu;
	unsigned int i;

	keel_vm_pause(vm);
	old = vm->pmu_filter;
	vm->pmu_filter = filter;
	keel_for_each_vcpu(vcpu, i, vm)
		if (vcpu->pmu)
			keel_pmu_follow(vcpu->pmu, vcpu->pmu->all);
	keel_vm_resume(vm);
	kfree(old);
}

static int filter_check(const struct kvm_pmu_event_filter *in)
{
	if (in->action > KVM_PMU_EVENT_DENY || in->flags & ~KVM_PMU_EVENT_FLAG_MASKED_EVENTS)
		return -EINVAL;
	return in->nevents > FILTER_EVENTS ? -E2BIG : 0;
}

static int by_event(const void *a, const void *b)
{
	u64 ea = *(const u64 *)a & KVM_PMU_MASKED_ENTRY_EVENT_SELECT;
	u64 eb = *(const u64 *)b & KVM_PMU_MASKED_ENTRY_EVENT_SELECT;

	return ea < eb ? -1 : ea > eb;
}

/* Events and unit masks as they are become entries with a mask.  What no guest's event can be is left out of these. */
static void filter_mask(struct kvm_pmu_event_filter *f)
{
	u32 i, n = 0;

	for (i = 0; i < f->nevents; i++)
		if (f->events[i] == (event_of(f->events[i]) | (f->events[i] & ARCH_PERFMON_EVENTSEL_UMASK)))
			f->events[n++] = f->events[i] | KVM_PMU_MASKED_ENTRY_UMASK_MASK;
	f->nevents = n;
	f->flags = KVM_PMU_EVENT_FLAG_MASKED_EVENTS;
}

/* filter_check() was content; @filter is given away. */
static int filter_set(struct keel_vm *vm, struct kvm_pmu_event_filter *filter)
{
	const u64 beside = KVM_PMU_MASKED_ENTRY_UMASK_MASK | KVM_PMU_MASKED_ENTRY_UMASK_MATCH | KVM_PMU_MASKED_ENTRY_EXCLUDE;
	u32 i;

	if (!filter->flags)
		filter_mask(filter);
	for (i = 0; i < filter->nevents; i++) {
		if (filter->events[i] & ~(event_of(filter->events[i]) | beside)) {
			kfree(filter);
			return -EINVAL;
		}
	}
	sort(filter->events, filter->nevents, sizeof(filter->events[0]), by_event, NULL);
	filter_install(vm, filter);
	return 0;
}

size_t keel_pmu_filter_setup(const struct keel_vm *vm, void *buf)
{
	size_t size = vm->pmu_filter ? struct_size(vm->pmu_filter, events, vm->pmu_filter->nevents) : 0;

	if (buf)
		memcpy(buf, vm->pmu_filter, size);
	return size;
}

long keel_pmu_filter_from(struct keel_vm *vm, const void *buf, size_t size)
{
	const struct kvm_pmu_event_filter *in = buf;
	struct kvm_pmu_event_filter *filter;
	int err;

	if (size < sizeof(*in))
		return -EINVAL;
	err = filter_check(in);
	if (err)
		return err;
	if (size != struct_size(in, events, in->nevents))
		return -EINVAL;
	filter = kmemdup(in, size, GFP_KERNEL_ACCOUNT);
	return filter ? filter_set(vm, filter) : -ENOMEM;
}

VM_IOCTL(keel_set_pmu_event_filter)
{
	struct kvm_pmu_event_filter __user *user = (void __user *)arg;
	const struct kvm_pmu_event_filter *in = buf;
	struct kvm_pmu_event_filter *filter;
	int err = filter_check(in);

	if (err)
		return err;
	filter = kmalloc(struct_size(filter, events, in->nevents), GFP_KERNEL_ACCOUNT);
	if (!filter)
		return -ENOMEM;
	*filter = *in;
	if (copy_from_user(filter->events, user->events, flex_array_size(filter, events, in->nevents))) {
		kfree(filter);
		return -EFAULT;
	}
	return filter_set(vm, filter);
}
