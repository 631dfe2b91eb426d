// SPDX-License-Identifier: GPL-2.0-only
/*
 * pv.c - what a guest that knows KVM gets of it: time stolen from it, whether its vCPUs run, kicks and yields, and the
 * MSRs of these (Documentation/virt/kvm/x86/cpuid.rst, msr.rst, hypercalls.rst).
 *
 * A vCPU about to leave its CPU says so in guest memory (KVM_VCPU_PREEMPTED).  Others then leave a TLB flush there for
 * it instead of interrupting it, so the request that looks there is set first, and is answered before the guest runs
 * again. It says so only between two instructions: an instruction half done may have translated an address already.
 *
 * Locks: none; a vCPU's part belongs to its thread, but for unhalted, which anyone sets.
 */
#include <linux/sched.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>
#include <asm/kvm_para.h>
#include "ops.h"

u32 keel_pv_features(void)
{
	return BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_NOP_IO_DELAY) | BIT(KVM_FEATURE_CLOCKSOURCE2) |
	       BIT(KVM_FEATURE_ASYNC_PF) | BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_PV_UNHALT) |
	       BIT(KVM_FEATURE_PV_TLB_FLUSH) | BIT(KVM_FEATURE_PV_SEND_IPI) | BIT(KVM_FEATURE_POLL_CONTROL) |
	       BIT(KVM_FEATURE_PV_SCHED_YIELD) | BIT(KVM_FEATURE_ASYNC_PF_INT) |
	       BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT) | (sched_info_on() ? BIT(KVM_FEATURE_STEAL_TIME) : 0);
}

bool keel_pv_has(struct keel_vcpu *vcpu, unsigned int feature)
{
	return !vcpu->pv.enforce || vcpu->model.pv_features & BIT(feature);
}

/* ------------------------------------------------------------------ steal time */

static u64 steal_gpa(const struct keel_vcpu *vcpu)
{
	return vcpu->pv.steal & KVM_STEAL_VALID_BITS;
}

static u64 preempted_gpa(const struct keel_vcpu *vcpu)
{
	return steal_gpa(vcpu) + offsetof(struct kvm_steal_time, preempted);
}

void keel_pv_preempted(struct keel_vcpu *vcpu)
{
	u8 old = 0, new = KVM_VCPU_PREEMPTED;

	if (!(vcpu->pv.steal & KVM_MSR_ENABLED) || vcpu->smm)
		return;
	keel_request(KEEL_REQ_STEAL, vcpu);
	/* A page that is not at hand: the others interrupt us as ever. */
	keel_vcpu_cmpxchg(vcpu, preempted_gpa(vcpu), &old, &new, sizeof(new));
}

/* Time waited for a CPU since the last look, by the thread that runs this vCPU. */
static u64 newly_stolen(struct keel_vcpu *vcpu)
{
	struct keel_pv *pv = &vcpu->pv;
	u64 now = keel_run_delay(), stolen = 0;
	struct keel_thread thread = keel_this_thread();	/* whose delay that is; an ioctl of the VM's may come from any */

	if (keel_thread_is(&pv->delay_of, &thread) && now > pv->run_delay)
		stolen = now - pv->run_delay;
	pv->delay_of = thread;
	pv->run_delay = now;
	return stolen;
}

void keel_pv_steal_update(struct keel_vcpu *vcpu)
{
	u64 gpa = steal_gpa(vcpu), stolen;
	struct kvm_steal_time st;
	int r, tries = 8;
	u8 none = 0;

	if (!(vcpu->pv.steal & KVM_MSR_ENABLED) || vcpu->smm)
		return;
	if (keel_vcpu_read(vcpu, gpa, &st, sizeof(st))) {
		/* Others may have relied on it. */
		keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
		return;
	}
	if (st.preempted) {
		do {
			r = keel_vcpu_cmpxchg(vcpu, preempted_gpa(vcpu), &st.preempted, &none, sizeof(none));
		} while (r == 1 && --tries);	/* a guest that writes there all the time harms itself */
		if (r || st.preempted & KVM_VCPU_FLUSH_TLB)
			keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
	}
	stolen = newly_stolen(vcpu);
	if (!stolen)
		return;
	/* Odd while it changes.  Other vCPUs read it, too. */
	st.version = (st.version | 1) + 2;
	st.steal += stolen;
	if (keel_vcpu_write(vcpu, gpa + offsetof(struct kvm_steal_time, version), &st.version, sizeof(st.version)))
		return;
	smp_wmb();	/* readers on other vCPUs: version before and after content */
	keel_vcpu_write(vcpu, gpa + offsetof(struct kvm_steal_time, steal), &st.steal, sizeof(st.steal));
	smp_wmb();	/* readers on other vCPUs: version before and after content */
	st.version++;
	keel_vcpu_write(vcpu, gpa + offsetof(struct kvm_steal_time, version), &st.version, sizeof(st.version));
}

static int set_steal(struct keel_vcpu *vcpu, u64 val)
{
	if (!sched_info_on() || val & KVM_STEAL_RESERVED_MASK)
		return 1;
	vcpu->pv.steal = val;
	newly_stolen(vcpu);	/* from now on */
	if (val & KVM_MSR_ENABLED)
		keel_request(KEEL_REQ_STEAL, vcpu);
	return 0;
}

/* ------------------------------------------------------------------ kicks and yields */

void keel_pv_kick(struct keel_vcpu *vcpu, u32 apic_id)
{
	struct keel_vcpu *target = keel_vcpu_by_id(vcpu->vm, apic_id);

	if (!target)
		return;
	WRITE_ONCE(target->pv.unhalted, true);
	keel_vcpu_kick(target);
}

/* False: it does not wait for a CPU. */
static bool yield_to_vcpu(struct keel_vcpu *target)
{
	struct task_struct *task;

	/* Seen here it was in KVM_RUN a moment ago: it may be gone by now, but not its task_struct. */
	rcu_read_lock();
	task = READ_ONCE(target->preempted);
	if (task)
		get_task_struct(task);
	rcu_read_unlock();
	if (!task)
		return false;
	yield_to(task, true);
	put_task_struct(task);
	return true;
}

void keel_pv_yield_to(struct keel_vcpu *vcpu, u32 apic_id)
{
	struct keel_vcpu *target = keel_vcpu_by_id(vcpu->vm, apic_id);

	if (target && target != vcpu)
		yield_to_vcpu(target);
}

/* Somebody holds what this vCPU waits for: the next one that does not run, in turn. */
void keel_pv_yield_any(struct keel_vcpu *vcpu)
{
	unsigned int n = smp_load_acquire(&vcpu->vm->nr_vcpus), i;

	for (i = 1; i < n; i++)
		if (yield_to_vcpu(keel_vcpu_by_idx(vcpu->vm, (vcpu->idx + i) % n)))
			return;
}

/* ------------------------------------------------------------------ MSRs */

/* Not the guest's by default, enforced or not: a VMM that shows it knows what it means. */
static bool has_migration_control(struct keel_vcpu *vcpu)
{
	return vcpu->model.pv_features & BIT(KVM_FEATURE_MIGRATION_CONTROL);
}

#define APF_NEEDS	(KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)
#define APF_RESERVED	GENMASK_ULL(5, 4)
#define APF_BITS	GENMASK_ULL(5, 0)

static int set_apf(struct keel_vcpu *vcpu, u64 val)
{
	u64 probe;

	/* Not offered, as there is no nesting; but a guest that has begun elsewhere may have it on. */
	if (val & APF_RESERVED ||
	    (val & KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT && !keel_pv_has(vcpu, KVM_FEATURE_ASYNC_PF_VMEXIT)))
		return 1;
	if (!vcpu->apic)
		return val != 0;
	if ((val & APF_NEEDS) != APF_NEEDS) {
		vcpu->pv.apf_en = val;
		keel_apf_off(vcpu);
		return 0;
	}
	if (!keel_pv_has(vcpu, KVM_FEATURE_ASYNC_PF_INT) ||
	    keel_vcpu_read(vcpu, val & ~APF_BITS, &probe, sizeof(probe)) || keel_apf_on(vcpu))
		return 1;
	vcpu->pv.apf_en = val;
	return 0;
}

static int set_apf_vector(struct keel_vcpu *vcpu, u64 val)
{
	if (!vcpu->apic)
		return val != 0;
	if (val & ~(u64)KVM_ASYNC_PF_VEC_MASK)
		return 1;
	vcpu->pv.apf_vector = val;
	return 0;
}

int keel_pv_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val)
{
	switch (msr) {
	case MSR_KVM_STEAL_TIME:
		*val = vcpu->pv.steal;
		return 0;
	case MSR_KVM_PV_EOI_EN:
		*val = vcpu->pv.eoi;
		return 0;
	case MSR_KVM_POLL_CONTROL:
		*val = !vcpu->pv.poll_off;
		return 0;
	case MSR_KVM_ASYNC_PF_EN:
		*val = vcpu->pv.apf_en;
		return 0;
	case MSR_KVM_ASYNC_PF_INT:
		*val = vcpu->pv.apf_vector;
		return 0;
	case MSR_KVM_ASYNC_PF_ACK:
		*val = 0;
		return 0;
	case MSR_KVM_MIGRATION_CONTROL:
		*val = vcpu->pv.migration_off ? 0 : KVM_MIGRATION_READY;
		return !has_migration_control(vcpu);
	}
	return 1;
}

int keel_pv_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val)
{
	switch (msr) {
	case MSR_KVM_STEAL_TIME:
		return set_steal(vcpu, val);
	case MSR_KVM_PV_EOI_EN:
		return irq_pv_eoi_set(vcpu, val);
	case MSR_KVM_POLL_CONTROL:
		/* A HLT here is never polled for; the guest's word is kept for it. */
		if (val > 1)
			return 1;
		vcpu->pv.poll_off = !val;
		return 0;
	case MSR_KVM_ASYNC_PF_EN:
		return set_apf(vcpu, val);
	case MSR_KVM_ASYNC_PF_INT:
		return set_apf_vector(vcpu, val);
	case MSR_KVM_ASYNC_PF_ACK:
		if (val & 1)
			keel_request(KEEL_REQ_APF, vcpu);
		return 0;
	case MSR_KVM_MIGRATION_CONTROL:
		if (!has_migration_control(vcpu) || val & ~(u64)KVM_MIGRATION_READY)
			return 1;
		vcpu->pv.migration_off = !val;
		return 0;
	}
	return 1;
}

/* ------------------------------------------------------------------ life */

/* With INIT, too: the memory in which the guest was told things will be another kernel's, which knows nothing of it. */
void keel_pv_reset(struct keel_vcpu *vcpu)
{
	struct keel_pv *pv = &vcpu->pv;

	keel_apf_off(vcpu);
	keel_clock_reset(vcpu);
	/* What is in no page is the guest's, and outlasts an INIT. */
	*pv = (struct keel_pv){ .enforce = pv->enforce, .apf_kept = pv->apf_kept,
				.poll_off = pv->poll_off, .migration_off = pv->migration_off };
}

/* ------------------------------------------------------------------ the state (snap/state.c) */

VCPU_IOCTL(keel_pv_get_state)
{
	const struct keel_pv *pv = &vcpu->pv;
	struct keel_state_pv *s = buf;

	s->steal = pv->steal;
	s->eoi = pv->eoi;
	s->apf = pv->apf_en;
	s->apf_vector = pv->apf_vector;
	s->apf_wake_all = keel_apf_wakes_all(vcpu);
	s->poll_off = pv->poll_off;
	s->migration_off = pv->migration_off;
	s->unhalted = READ_ONCE(pv->unhalted);
	return 0;
}

/* Where the guest is told things is looked at when something is to be told, and no sooner. */
VCPU_IOCTL(keel_pv_set_state)
{
	const struct keel_state_pv *s = buf;
	struct keel_pv *pv = &vcpu->pv;
	const u8 flags = s->apf_wake_all | s->poll_off | s->migration_off | s->unhalted;

	if (flags > 1 || memchr_inv(s->reserved, 0, sizeof(s->reserved)) || s->steal & KVM_STEAL_RESERVED_MASK ||
	    (s->steal && !sched_info_on()) || !IS_ALIGNED(s->eoi & ~(u64)KVM_MSR_ENABLED, 4) || s->apf & APF_RESERVED ||
	    (s->apf && !vcpu->apic))
		return -EINVAL;
	keel_apf_off(vcpu);
	if ((s->apf & APF_NEEDS) == APF_NEEDS) {
		if (keel_apf_on(vcpu))
			return -ENOMEM;
		keel_apf_set_wakes_all(vcpu, s->apf_wake_all);
	}
	pv->apf_en = s->apf;
	pv->apf_vector = s->apf_vector;
	pv->eoi = s->eoi;
	pv->poll_off = s->poll_off;
	pv->migration_off = s->migration_off;
	WRITE_ONCE(pv->unhalted, s->unhalted);
	pv->steal = s->steal;
	newly_stolen(vcpu);
	if (s->steal & KVM_MSR_ENABLED)
		keel_request(KEEL_REQ_STEAL, vcpu);
	return 0;
}
