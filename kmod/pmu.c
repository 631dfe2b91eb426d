// SPDX-License-Identifier: GPL-2.0-only
/*
 * pmu.c - performance counters.  A counter that the guest has turned on is an event of the host's perf, bound to the
 * vCPU's thread and counting in guest mode only; perf decides when it really has hardware.  Where the host's perf
 * has no such events the registers are plain storage.  Instructions that keel emulates are not counted.
 *
 * Writes only note what is wanted: the event follows in the slow loop, where sleeping is allowed, before the guest
 * goes on (KEEL_REQ_PMU).  Locks: all but the overflow's way is the vCPU's thread's or whoever holds vcpu->mutex; the
 * filter changes while the VM is paused.
 *
 * APM vol. 2 13.2 "Performance Monitoring Counters".
 */
#include <linux/module.h>
#include <linux/perf_event.h>
#include <linux/slab.h>
#include <asm/perf_event.h>
#include "ops.h"

#define PMC_MASK	GENMASK_ULL(47, 0)
#define EVENT_BITS	(AMD64_RAW_EVENT_MASK | ARCH_PERFMON_EVENTSEL_USR | ARCH_PERFMON_EVENTSEL_OS)
#define SELECT_BITS	(EVENT_BITS | ARCH_PERFMON_EVENTSEL_INT | ARCH_PERFMON_EVENTSEL_ENABLE)
#define FILTER_BITS	(AMD64_EVENTSEL_EVENT | ARCH_PERFMON_EVENTSEL_UMASK)
#define FILTER_EVENTS	300

static bool pmu = true;
module_param(pmu, bool, 0444);
MODULE_PARM_DESC(pmu, "Give guests performance counters (on)");

/* One register range: counter i's event select at first + i * stride, its count at first + count_at + i * stride. */
static const struct pmu_range {
	u32 first;
	u8 nr, stride, count_at;
	u8 needs;		/* the guest has at least so many counters */
} ranges[] = {
	{ MSR_K7_EVNTSEL0, PMU_LEGACY_COUNTERS, 1, PMU_LEGACY_COUNTERS, PMU_LEGACY_COUNTERS },
	{ MSR_F15H_PERF_CTL, PMU_CORE_COUNTERS, 2, 1, PMU_CORE_COUNTERS },
};

bool keel_pmu_on(void)
{
	return pmu;
}

/* ------------------------------------------------------------------ events */

/* Any context, NMI included: the rest waits until interrupts are on, which is before the guest goes on. */
static void overflow(struct perf_event *event, struct perf_sample_data *data, struct pt_regs *regs)
{
	struct keel_pmc *c = event->overflow_handler_context;
	struct keel_pmu *p = container_of(c - c->nr, struct keel_pmu, pmc[0]);

	/* The event is yet to be told of a write, or of the last overflow: this one is none of the counter's. */
	if (test_bit(c->nr, &p->stale))
		return;
	set_bit(c->nr, &p->overflowed);
	irq_work_queue(&p->work);
}

static void overflow_work(struct irq_work *work)
{
	struct keel_pmu *p = container_of(work, struct keel_pmu, work);
	struct keel_vcpu *vcpu = container_of(p, struct keel_vcpu, pmu);
	unsigned long which = xchg(&p->overflowed, 0);
	bool pmi = false;
	unsigned int i;

	for_each_set_bit(i, &which, PMU_CORE_COUNTERS) {
		pmi |= !!(READ_ONCE(p->pmc[i].select) & ARCH_PERFMON_EVENTSEL_INT);
		set_bit(i, &p->stale);		/* the period to the next one is another */
	}
	keel_request(KEEL_REQ_PMU, vcpu);
	if (pmi)
		irq_pmi(vcpu);
}

static bool filter_allows(const struct kvm_pmu_event_filter *f, u64 select)
{
	unsigned int i;

	for (i = 0; f && i < f->nevents; i++)
		if (f->events[i] == (select & FILTER_BITS))
			return f->action == KVM_PMU_EVENT_ALLOW;
	return !f || f->action == KVM_PMU_EVENT_DENY;
}

static struct perf_event *event_create(u64 select, u64 period, struct keel_pmc *c)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = select & AMD64_RAW_EVENT_MASK,
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
		c->value = (c->value + n) & PMC_MASK;
	c->written = false;
}

/* Make the event what the register says.  One that is merely stopped is kept: guests stop and start all the time. */
static void update(struct keel_vcpu *vcpu, struct keel_pmc *c)
{
	u64 select = c->select, period;
	/* Where the host's events are Intel's, the guest's numbers would mean something else. */
	bool on = (select & ARCH_PERFMON_EVENTSEL_ENABLE) && !boot_cpu_has(X86_FEATURE_ARCH_PERFMON) &&
		  (select & (ARCH_PERFMON_EVENTSEL_USR | ARCH_PERFMON_EVENTSEL_OS)) &&
		  filter_allows(vcpu->vm->pmu_filter, select);

	collect(c);
	clear_bit(c->nr, &vcpu->pmu.stale);
	if (c->event && (c->made_for ^ select) & EVENT_BITS)
		event_release(c);
	if (!on)
		return;
	period = (-c->value & PMC_MASK) ?: PMC_MASK + 1;
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
	struct keel_pmu *p = &vcpu->pmu;
	unsigned long which = READ_ONCE(p->stale);
	unsigned int i;

	/* Events belong to a thread: a vCPU run by another one takes its counters along. */
	if (p->thread != vcpu->thread) {
		for (i = 0; i < p->nr; i++) {
			collect(&p->pmc[i]);
			event_release(&p->pmc[i]);
		}
		p->thread = vcpu->thread;
		which = GENMASK(PMU_CORE_COUNTERS - 1, 0);
	}
	for_each_set_bit(i, &which, p->nr)
		update(vcpu, &p->pmc[i]);
}

/* Every counter is to be looked at before the guest goes on. */
static void all_stale(struct keel_vcpu *vcpu)
{
	vcpu->pmu.stale = GENMASK(PMU_CORE_COUNTERS - 1, 0);
	keel_request(KEEL_REQ_PMU, vcpu);
}

void keel_pmu_new_thread(struct keel_vcpu *vcpu)
{
	if (vcpu->pmu.nr)
		keel_request(KEEL_REQ_PMU, vcpu);
}

/* -------------------------------------------------------------- life */

void keel_pmu_reset(struct keel_vcpu *vcpu)
{
	struct keel_pmu *p = &vcpu->pmu;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(p->pmc); i++) {
		event_release(&p->pmc[i]);
		p->pmc[i] = (struct keel_pmc) { .nr = i };
	}
}

void keel_pmu_init(struct keel_vcpu *vcpu)
{
	init_irq_work(&vcpu->pmu.work, overflow_work);
	keel_pmu_reset(vcpu);
}

void keel_pmu_free(struct keel_vcpu *vcpu)
{
	keel_pmu_reset(vcpu);
	irq_work_sync(&vcpu->pmu.work);
}

/* The guest's CPUID, which names the vendor, decides; the host's decides only whether anything is counted. */
void keel_pmu_refresh(struct keel_vcpu *vcpu)
{
	struct keel_pmu *p = &vcpu->pmu;
	unsigned int nr = 0;

	if (pmu && !vcpu->vm->no_pmu && vcpu->model.amd)
		nr = keel_guest_has(vcpu, X86_FEATURE_PERFCTR_CORE) ? PMU_CORE_COUNTERS : PMU_LEGACY_COUNTERS;
	if (nr != p->nr)
		keel_pmu_reset(vcpu);
	p->nr = nr;
}

/* Does the host's perf take events as guests name them, and count them by the registers this feature is about? */
bool keel_pmu_has_core(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = 0x76,		/* cycles */
		.exclude_host = true,
		.disabled = true,
	};
	struct perf_event *event;

	if (!pmu || !boot_cpu_has(X86_FEATURE_PERFCTR_CORE))
		return false;
	event = perf_event_create_kernel_counter(&attr, -1, current, NULL, NULL);
	if (IS_ERR(event))
		return false;
	perf_event_release_kernel(event);
	return true;
}

/* -------------------------------------------------------------- registers */

static struct keel_pmc *find(struct keel_vcpu *vcpu, u32 msr, bool *count)
{
	unsigned int i, n;

	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		const struct pmu_range *r = &ranges[i];

		if (vcpu->pmu.nr < r->needs)
			continue;
		for (n = 0; n < r->nr; n++) {
			*count = msr == r->first + n * r->stride + r->count_at;
			if (*count || msr == r->first + n * r->stride)
				return &vcpu->pmu.pmc[n];
		}
	}
	return NULL;
}

static int read_count(struct keel_vcpu *vcpu, struct keel_pmc *c, u64 *val)
{
	u64 enabled, running, n = 0;

	if (c->event && !c->written) {
		if (vcpu->atomic)
			return -EAGAIN;
		n = perf_event_read_value(c->event, &enabled, &running);
	}
	*val = (c->value + n) & PMC_MASK;
	return 0;
}

/* A guest without counters finds the oldest ones' registers empty all the same, as it always did, and no others. */
static bool empty(u32 msr, bool host)
{
	return host || msr - MSR_K7_EVNTSEL0 < 2 * PMU_LEGACY_COUNTERS;
}

int keel_pmu_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	bool count;
	struct keel_pmc *c = find(vcpu, msr, &count);

	*val = 0;
	if (!c)
		return !empty(msr, host);
	if (count)
		return read_count(vcpu, c, val);
	*val = c->select;
	return 0;
}

int keel_pmu_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	bool count;
	struct keel_pmc *c = find(vcpu, msr, &count);

	if (!c)
		return val || !empty(msr, host);
	if (!count && c->select == (val & SELECT_BITS))
		return 0;
	if (count) {
		c->value = val & PMC_MASK;
		c->written = true;
	} else {
		WRITE_ONCE(c->select, val & SELECT_BITS);	/* reserved bits do not stick */
	}
	set_bit(c->nr, &vcpu->pmu.stale);
	keel_request(KEEL_REQ_PMU, vcpu);
	return 0;
}

int keel_rdpmc(struct keel_vcpu *vcpu, u32 nr, u64 *val)
{
	return nr < vcpu->pmu.nr ? read_count(vcpu, &vcpu->pmu.pmc[nr], val) : 1;
}

/* -------------------------------------------------------------- what the VMM says */

int keel_pmu_caps(void)
{
	return pmu ? KVM_PMU_CAP_DISABLE : 0;
}

long keel_pmu_enable_cap(struct keel_vm *vm, u64 arg)
{
	if (arg & ~(u64)keel_pmu_caps() || !pmu || vm->nr_vcpus)
		return -EINVAL;
	vm->no_pmu = arg & KVM_PMU_CAP_DISABLE;
	return 0;
}

VM_IOCTL(keel_set_pmu_event_filter)
{
	struct kvm_pmu_event_filter __user *user = (void __user *)arg;
	const struct kvm_pmu_event_filter *in = buf;
	struct kvm_pmu_event_filter *filter, *old;
	struct keel_vcpu *vcpu;
	unsigned int i;

	if (in->action > KVM_PMU_EVENT_DENY || in->flags)
		return -EINVAL;
	if (in->nevents > FILTER_EVENTS)
		return -E2BIG;
	filter = kmalloc(struct_size(filter, events, in->nevents), GFP_KERNEL_ACCOUNT);
	if (!filter)
		return -ENOMEM;
	*filter = *in;
	if (copy_from_user(filter->events, user->events, flex_array_size(filter, events, in->nevents))) {
		kfree(filter);
		return -EFAULT;
	}
	keel_vm_pause(vm);
	old = vm->pmu_filter;
	vm->pmu_filter = filter;
	keel_for_each_vcpu(vcpu, i, vm)
		all_stale(vcpu);
	keel_vm_resume(vm);
	kfree(old);
	return 0;
}
