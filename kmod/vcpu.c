// SPDX-License-Identifier: GPL-2.0-only
/*
 * vcpu.c - a virtual CPU: life, fd, ioctls (api.rst 4, "vcpu ioctl"), and how others reach it: requests,
 * kicks, and pausing a whole VM.
 *
 * Lock: vcpu->mutex for every ioctl whose row says LOCK_VCPU.  A vCPU is "loaded" on a physical CPU while
 * its thread runs such an ioctl; the scheduler's notifiers unload and load it as the thread comes and goes.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "ioctl.h"
#include "cpu/mitigate.h"
#include "ops.h"
#include "userwords.h"

struct kmem_cache *keel_vcpu_cache;
static atomic64_t vcpu_serial = ATOMIC64_INIT(0);

/* ------------------------------------------------- loaded on a CPU or not */

static __always_inline void vcpu_load_on(struct keel_vcpu *vcpu, int cpu)
{
	WRITE_ONCE(vcpu->cpu, cpu);
	if (!keel_hw_shared())
		keel_predict_barrier(vcpu->serial);
	keel_call(load, vcpu, cpu);
	keel_clock_load(vcpu, cpu);
	if (vcpu->pv.steal)
		keel_request(KEEL_REQ_STEAL, vcpu);
}

static __always_inline void vcpu_leave_cpu(struct keel_vcpu *vcpu)
{
	keel_clock_put(vcpu);
	if (keel_hw_shared()) {
		keel_call(put, vcpu);
		keel_hw_leave(vcpu);
	}
}

static void vcpu_sched_in(struct preempt_notifier *pn, int cpu)
{
	struct keel_vcpu *vcpu = container_of(pn, struct keel_vcpu, pn);

	WRITE_ONCE(vcpu->preempted, NULL);
	vcpu_load_on(vcpu, cpu);
}

static void vcpu_sched_out(struct preempt_notifier *pn, struct task_struct *next)
{
	struct keel_vcpu *vcpu = container_of(pn, struct keel_vcpu, pn);

	if (task_is_running(current))	/* else it sleeps by its own will */
		WRITE_ONCE(vcpu->preempted, current);
	vcpu->stat.preemptions++;
	vcpu_leave_cpu(vcpu);
}

static struct preempt_ops vcpu_preempt_ops = {
	.sched_in = vcpu_sched_in,
	.sched_out = vcpu_sched_out,
};

static __always_inline void vcpu_load(struct keel_vcpu *vcpu)
{
	int cpu = get_cpu();

	preempt_notifier_register(&vcpu->pn);
	vcpu_load_on(vcpu, cpu);
	put_cpu();
}

static __always_inline void vcpu_put(struct keel_vcpu *vcpu)
{
	preempt_disable();
	vcpu_leave_cpu(vcpu);
	preempt_notifier_unregister(&vcpu->pn);
	WRITE_ONCE(vcpu->cpu, -1);
	preempt_enable();
}

void keel_vcpu_load(struct keel_vcpu *vcpu)
{
	vcpu_load(vcpu);
}

void keel_vcpu_put(struct keel_vcpu *vcpu)
{
	vcpu_put(vcpu);
}

/* -------------------------------------------------------- kicks and pauses */

void keel_vcpu_kick(struct keel_vcpu *vcpu)
{
	int me, cpu;

	smp_mb();	/* the caller's request before the looks at wait and mode; the vCPU does it the other way round */
	if (rcuwait_active(&vcpu->wait) && rcuwait_wake_up(&vcpu->wait))
		return;
	me = get_cpu();
	cpu = READ_ONCE(vcpu->cpu);
	if (READ_ONCE(vcpu->mode) == KEEL_IN_GUEST && cpu >= 0 && cpu != me && cpu_online(cpu))
		smp_send_reschedule(cpu);
	put_cpu();
}

void keel_vcpu_notify(struct keel_vcpu *vcpu)
{
	keel_request(KEEL_REQ_EVENT, vcpu);
	keel_vcpu_kick(vcpu);
}

static void vcpu_ack_ipi(void *unused)
{
}

static DEFINE_PER_CPU(struct cpumask, kick_mask);

/* Ask, and say in @mask where it has to be interrupted for it: preemption is off. */
static void vcpu_ask(struct keel_vcpu *vcpu, enum keel_request req, struct cpumask *mask)
{
	int cpu;

	keel_request(req, vcpu);
	smp_mb__after_atomic();
	cpu = READ_ONCE(vcpu->cpu);
	if (READ_ONCE(vcpu->mode) == KEEL_IN_GUEST && cpu >= 0 && cpu != smp_processor_id())
		__cpumask_set_cpu(cpu, mask);
}

static void vcpus_interrupt(const struct cpumask *mask, bool wait)
{
	if (!cpumask_empty(mask))
		smp_call_function_many(mask, vcpu_ack_ipi, NULL, wait);
}

static struct cpumask *kick_mask_get(void)
{
	struct cpumask *mask;

	preempt_disable();
	mask = this_cpu_ptr(&kick_mask);
	cpumask_clear(mask);
	return mask;
}

void keel_request_all(struct keel_vm *vm, enum keel_request req, bool wait)
{
	keel_request_some(vm, req, NULL, wait);
}

void keel_request_some(struct keel_vm *vm, enum keel_request req, const unsigned long *which, bool wait)
{
	struct cpumask *mask = kick_mask_get();
	struct keel_vcpu *vcpu;
	unsigned int i;

	keel_for_each_vcpu(vcpu, i, vm) {
		if (which && !test_bit(i, which))
			continue;
		/* One that is freed already; what poisons freed memory makes it show. */
		if (WARN_ON_ONCE(vcpu->vm != vm))
			break;
		vcpu_ask(vcpu, req, mask);
		if (BIT(req) & KEEL_WAKING_REQS)
			rcuwait_wake_up(&vcpu->wait);
	}
	vcpus_interrupt(mask, wait);
	preempt_enable();
}

/*
 * Pausing.  What it costs is to depend on the vCPUs that are in the run loop, not on those that sleep or whose threads are
 * in userspace, of which there may be a thousand.  So there is a list of those that may be inside.  Who comes in puts itself
 * on it, and stays on it when it goes out, which costs nothing; a pause takes those off that it finds outside.  Those it
 * finds inside it counts and asks to come out.  Each that does takes itself out of the count, and the last one wakes the
 * pausers.  Who wants to come in meanwhile waits elsewhere, for the end of all pauses.
 */

/* Off the list, if it is outside and not just coming in. */
static bool vcpu_unlist(struct keel_vcpu *vcpu)
{
	if (smp_load_acquire(&vcpu->in_loop))
		return false;
	WRITE_ONCE(vcpu->listed, false);
	smp_mb();		/* with the barrier in keel_vcpu_begin(): it sees that, or we see it come */
	if (smp_load_acquire(&vcpu->in_loop)) {
		WRITE_ONCE(vcpu->listed, true);
		return false;
	}
	vcpu->flushes = vcpu->vm->flushes;
	list_del(&vcpu->active);
	return true;
}

static void vcpu_list(struct keel_vcpu *vcpu)
{
	struct keel_vm *vm = vcpu->vm;

	spin_lock(&vm->pause_lock);
	if (!vcpu->listed) {
		list_add(&vcpu->active, &vm->active);
		WRITE_ONCE(vcpu->listed, true);
		if (vcpu->flushes != vm->flushes)
			keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
	}
	spin_unlock(&vm->pause_lock);
}

static void pause_begin(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu, *next;

	atomic_inc(&vm->pause);
	smp_mb__after_atomic();		/* with the barrier in keel_vcpu_begin() */
	spin_lock(&vm->pause_lock);
	list_for_each_entry_safe(vcpu, next, &vm->active, active) {
		if (vcpu_unlist(vcpu) || vcpu->awaited)
			continue;
		vcpu->awaited = true;
		WRITE_ONCE(vm->nr_awaited, vm->nr_awaited + 1);
		keel_request(KEEL_REQ_PAUSE, vcpu);
		keel_vcpu_kick(vcpu);
	}
	spin_unlock(&vm->pause_lock);
}

static bool pause_done(struct keel_vm *vm)
{
	return !smp_load_acquire(&vm->nr_awaited);
}

void keel_vm_pause(struct keel_vm *vm)
{
	pause_begin(vm);
	wait_event(vm->pausers, pause_done(vm));
}

void keel_vm_resume(struct keel_vm *vm)
{
	if (atomic_dec_and_test(&vm->pause) && waitqueue_active(&vm->paused))
		wake_up_all(&vm->paused);
}

/* Who is not out by now need not come out.  There is no other pause: that takes one of the locks that are held. */
static void pause_give_up(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	spin_lock(&vm->pause_lock);
	keel_for_each_vcpu(vcpu, i, vm)
		vcpu->awaited = false;
	WRITE_ONCE(vm->nr_awaited, 0);
	spin_unlock(&vm->pause_lock);
	keel_vm_resume(vm);
}

/* There is a pause, and this vCPU is out. */
static noinline void vcpu_came_out(struct keel_vcpu *vcpu)
{
	struct keel_vm *vm = vcpu->vm;
	bool last = false;

	spin_lock(&vm->pause_lock);
	if (vcpu->awaited) {
		vcpu->awaited = false;
		last = vm->nr_awaited == 1;
		smp_store_release(&vm->nr_awaited, vm->nr_awaited - 1);
	}
	spin_unlock(&vm->pause_lock);
	if (last || READ_ONCE(vm->want_rest))
		wake_up_all(&vm->pausers);
}

void keel_vcpu_end(struct keel_vcpu *vcpu)
{
	(void)xchg(&vcpu->in_loop, false);	/* a full barrier, on either side */
	if (unlikely(atomic_read(&vcpu->vm->pause)))
		vcpu_came_out(vcpu);
}

/*
 * Resting.  A vCPU's thread that is in KVM_RUN, but out of the loop, gives the vCPU's state out of its hands for whoever stops
 * the VM, and takes it back inside the loop, where there is no pause.
 */
static void vcpu_rests(struct keel_vcpu *vcpu)
{
	vcpu_put(vcpu);
	smp_store_release(&vcpu->resting, true);	/* with keel_vm_stop_all() */
	wake_up_all(&vcpu->vm->pausers);
}

static bool vcpu_should_rest(struct keel_vcpu *vcpu)
{
	return READ_ONCE(vcpu->vm->want_rest) && vcpu->owned && !vcpu->resting;
}

static noinline int vcpu_begin_slow(struct keel_vcpu *vcpu)
{
	struct keel_vm *vm = vcpu->vm;

	for (;;) {
		if (!READ_ONCE(vcpu->listed))
			vcpu_list(vcpu);
		if (!atomic_read(&vm->pause))
			break;
		keel_vcpu_end(vcpu);
		if (vcpu_should_rest(vcpu))
			vcpu_rests(vcpu);
		/* Whose state may be in other hands has none to return with: it waits for the end of pauses, whatever its signals. */
		if (vcpu->resting)
			wait_event(vm->paused, !atomic_read(&vm->pause));
		else if (wait_event_killable(vm->paused, !atomic_read(&vm->pause) || vcpu_should_rest(vcpu)))
			return -EINTR;
		smp_store_mb(vcpu->in_loop, true);
	}
	if (unlikely(vcpu->resting)) {
		WRITE_ONCE(vcpu->resting, false);
		vcpu_load(vcpu);
	}
	return 0;
}

void keel_vcpu_rest(struct keel_vcpu *vcpu)
{
	keel_vcpu_end(vcpu);
	vcpu_rests(vcpu);
}

void keel_vcpu_rested(struct keel_vcpu *vcpu)
{
	smp_store_mb(vcpu->in_loop, true);
	vcpu_begin_slow(vcpu);		/* cannot fail: it rests */
}

int keel_vcpu_begin(struct keel_vcpu *vcpu)
{
	smp_store_mb(vcpu->in_loop, true);	/* with the barriers in keel_vm_pause() and vcpu_unlist() */
	if (likely(READ_ONCE(vcpu->listed) && !atomic_read(&vcpu->vm->pause)))
		return 0;
	return vcpu_begin_slow(vcpu);
}

/*
 * Stopping.  With the VM paused a vCPU may still be in the midst of KVM_RUN: asleep, or at a place where it lets a pause
 * happen.  One that is not has nothing of its state anywhere but here, and nobody else gets at it until the VM goes on.
 */
struct keel_vcpu *keel_vm_stop(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	lockdep_assert_held(&vm->lock);
	keel_vm_pause(vm);
	keel_for_each_vcpu(vcpu, i, vm) {
		if (!smp_load_acquire(&vcpu->owned))
			continue;
		keel_vm_resume(vm);
		return vcpu;
	}
	return NULL;
}

static bool vcpus_rest(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	keel_for_each_vcpu(vcpu, i, vm)
		if (smp_load_acquire(&vcpu->owned) && !smp_load_acquire(&vcpu->resting))
			return false;
	return true;
}

int keel_vm_stop_all(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;
	unsigned int i;
	int err;

	lockdep_assert_held(&vm->lock);
	lockdep_assert_held(&vm->slots_lock);
	pause_begin(vm);
	/* One may wait for its memory for as long as a VMM likes. */
	if (wait_event_interruptible(vm->pausers, pause_done(vm))) {
		pause_give_up(vm);
		return -EINTR;
	}
	WRITE_ONCE(vm->want_rest, true);
	/* Those that sleep come out of it for that, and those that wait for the end of another pause. */
	keel_for_each_vcpu(vcpu, i, vm) {
		if (!smp_load_acquire(&vcpu->owned) || smp_load_acquire(&vcpu->resting))
			continue;
		keel_request(KEEL_REQ_REST, vcpu);
		keel_vcpu_kick(vcpu);
	}
	wake_up_all(&vm->paused);
	err = wait_event_interruptible(vm->pausers, vcpus_rest(vm)) ? -EINTR : 0;
	WRITE_ONCE(vm->want_rest, false);
	if (err)
		keel_vm_resume(vm);
	return err;
}

/* Those that are not on the list see to it when they come back to it. */
void keel_flush_tlbs(struct keel_vm *vm)
{
	struct cpumask *mask = kick_mask_get();
	struct keel_vcpu *vcpu;

	spin_lock(&vm->pause_lock);
	vm->flushes++;
	list_for_each_entry(vcpu, &vm->active, active)
		vcpu_ask(vcpu, KEEL_REQ_TLB_FLUSH, mask);
	spin_unlock(&vm->pause_lock);
	vcpus_interrupt(mask, true);
	preempt_enable();
}

/* ------------------------------------------------------------------- reset */

bool keel_vcpu_is_bsp(struct keel_vcpu *vcpu)
{
	return vcpu->id == vcpu->vm->bsp_id;
}

/* Intel SDM 3A table 9-1, APM 14.1.3: power-up and INIT differ in what they leave alone. */
void keel_vcpu_reset(struct keel_vcpu *vcpu, bool init)
{
	struct kvm_segment seg = { .limit = 0xffff, .type = 3, .present = 1, .s = 1 };
	struct kvm_dtable dt = { .limit = 0xffff };
	u32 model[4] = { 1 }, kept = 0;
	unsigned int i;

	if (init)
		kept = keel_cr0(vcpu) & (X86_CR0_CD | X86_CR0_NW);
	else
		kept = X86_CR0_CD | X86_CR0_NW;

	memset(&vcpu->ev, 0, sizeof(vcpu->ev));
	vcpu->ev.user_vector = -1;
	keel_msrs_reset(vcpu, init);
	keel_fpu_reset(vcpu, init);
	if (!init) {
		vcpu->mp_events = 0;
		vcpu->smi_pending = false;
	}
	keel_smm_change(vcpu, false);
	keel_debug_reset(vcpu);
	keel_insn_forget(vcpu);
	keel_pv_reset(vcpu);
	keel_hv_vcpu_reset(vcpu);
	irq_lapic_reset(vcpu, init);
	keel_call(vcpu_reset, vcpu, init);

	memset(vcpu->regs, 0, sizeof(vcpu->regs));
	vcpu->avail = vcpu->dirty = BIT(KEEL_RIP) | BIT(KEEL_RSP);
	keel_cpuid(vcpu, model);
	vcpu->regs[KEEL_RDX] = model[0] ?: 0x600;	/* family, model, stepping */
	keel_set_rflags(vcpu, X86_EFLAGS_FIXED);
	keel_set_reg(vcpu, KEEL_RIP, 0xfff0);
	vcpu->cr2 = 0;
	vcpu->cr8 = 0;

	for (i = KEEL_ES; i <= KEEL_GS; i++)
		if (i != KEEL_CS)
			keel_call(set_segment, vcpu, &seg, i);
	seg.type = 11;
	seg.selector = 0xf000;
	seg.base = 0xffff0000;
	keel_call(set_segment, vcpu, &seg, KEEL_CS);
	seg = (struct kvm_segment) { .limit = 0xffff, .type = 11, .present = 1 };
	keel_call(set_segment, vcpu, &seg, KEEL_TR);
	seg.type = 2;
	keel_call(set_segment, vcpu, &seg, KEEL_LDTR);
	keel_call(set_dt, vcpu, &dt, false);
	keel_call(set_dt, vcpu, &dt, true);

	keel_call(set_cr4, vcpu, 0);
	keel_call(set_cr3, vcpu, 0);
	keel_call(set_efer, vcpu, 0);
	keel_call(set_cr0, vcpu, X86_CR0_ET | kept);
	keel_request(KEEL_REQ_EVENT, vcpu);
	keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
}

/* ------------------------------------------------------------------ ioctls */

static VCPU_IOCTL(vcpu_get_mp_state)
{
	struct kvm_mp_state *mp = buf;

	/* What arrived before the question is part of the answer. */
	keel_take_mp_events(vcpu);
	mp->mp_state = vcpu->mp_state;
	if (vcpu->mp_state == KVM_MP_STATE_HALTED && READ_ONCE(vcpu->pv.unhalted))
		mp->mp_state = KVM_MP_STATE_RUNNABLE;
	return 0;
}

static VCPU_IOCTL(vcpu_set_mp_state)
{
	struct kvm_mp_state *mp = buf;

	switch (mp->mp_state) {
	case KVM_MP_STATE_RUNNABLE:
		break;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_HALTED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		if (!vcpu->apic)
			return -EINVAL;	/* without an APIC here such a state is the VMM's to keep */
		break;
	default:
		return -EINVAL;
	}
	/* INIT waits for the end of system management mode. */
	if ((vcpu->smm || vcpu->smi_pending) &&
	    (mp->mp_state == KVM_MP_STATE_INIT_RECEIVED || mp->mp_state == KVM_MP_STATE_SIPI_RECEIVED))
		return -EINVAL;
	/* SIPI_RECEIVED is INIT_RECEIVED with the SIPI already latched. */
	if (mp->mp_state == KVM_MP_STATE_SIPI_RECEIVED) {
		vcpu->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		set_bit(KEEL_MP_SIPI, &vcpu->mp_events);
		keel_request(KEEL_REQ_MP_EVENT, vcpu);
	} else {
		vcpu->mp_state = mp->mp_state;
	}
	keel_request(KEEL_REQ_EVENT, vcpu);
	return 0;
}

static VCPU_IOCTL(vcpu_set_signal_mask)
{
	struct kvm_signal_mask __user *umask = (void __user *)arg;
	struct kvm_signal_mask head;
	sigset_t set;

	if (!arg) {
		vcpu->sigset_active = false;
		return 0;
	}
	if (copy_from_user(&head, umask, sizeof(head)))
		return -EFAULT;
	if (head.len != sizeof(set))
		return -EINVAL;
	if (copy_from_user(&set, umask->sigset, sizeof(set)))
		return -EFAULT;
	sigdelsetmask(&set, sigmask(SIGKILL) | sigmask(SIGSTOP));
	vcpu->sigset = set;
	vcpu->sigset_active = true;
	return 0;
}

static long vcpu_cap_enforce_pv(struct keel_vcpu *vcpu, u64 arg)
{
	vcpu->pv.enforce = arg;
	return 0;
}

static long vcpu_cap_synic(struct keel_vcpu *vcpu, u64 arg)
{
	return keel_hv_enable_synic(vcpu, false);
}

static long vcpu_cap_synic2(struct keel_vcpu *vcpu, u64 arg)
{
	return arg ? -EINVAL : keel_hv_enable_synic(vcpu, true);
}

static long vcpu_cap_enforce_hv(struct keel_vcpu *vcpu, u64 arg)
{
	return keel_hv_enforce_cpuid(vcpu, arg);
}

static const struct vcpu_cap {
	u32 cap;
	long (*enable)(struct keel_vcpu *vcpu, u64 arg);
} vcpu_caps[] = {
	{ KVM_CAP_HYPERV_SYNIC, vcpu_cap_synic },
	{ KVM_CAP_HYPERV_SYNIC2, vcpu_cap_synic2 },
	{ KVM_CAP_ENFORCE_PV_FEATURE_CPUID, vcpu_cap_enforce_pv },
	{ KVM_CAP_HYPERV_ENFORCE_CPUID, vcpu_cap_enforce_hv },
};

static VCPU_IOCTL(vcpu_enable_cap)
{
	const struct kvm_enable_cap *cap = buf;
	unsigned int i;

	for (i = 0; !cap->flags && i < ARRAY_SIZE(vcpu_caps); i++)
		if (vcpu_caps[i].cap == cap->cap)
			return vcpu_caps[i].enable(vcpu, cap->args[0]);
	return -EINVAL;
}

static VCPU_IOCTL(vcpu_run)
{
	struct keel_thread thread = keel_this_thread();

	if (arg)
		return -EINVAL;
	if (unlikely(!keel_thread_is(&vcpu->thread, &thread))) {
		vcpu->thread.start = thread.start;
		WRITE_ONCE(vcpu->thread.nr, thread.nr);
		keel_pmu_new_thread(vcpu);
	}
	return keel_run(vcpu);
}

static const struct keel_ioctl vcpu_ioctls[] = {
	VCPU_ENTRY(KVM_RUN, LOCK_VCPU, vcpu_run),
	VCPU_ENTRY(KVM_GET_REGS, LOCK_VCPU | ARG_FILLED, keel_get_regs),
	VCPU_ENTRY(KVM_SET_REGS, LOCK_VCPU, keel_set_regs),
	VCPU_ENTRY(KVM_GET_SREGS, LOCK_VCPU | ARG_FILLED, keel_get_sregs),
	VCPU_ENTRY(KVM_SET_SREGS, LOCK_VCPU, keel_set_sregs),
	VCPU_ENTRY(KVM_GET_SREGS2, LOCK_VCPU | ARG_FILLED, keel_get_sregs2),
	VCPU_ENTRY(KVM_SET_SREGS2, LOCK_VCPU, keel_set_sregs2),
	VCPU_ENTRY(KVM_GET_FPU, LOCK_VCPU | ARG_FILLED, keel_get_fpu),
	VCPU_ENTRY(KVM_SET_FPU, LOCK_VCPU, keel_set_fpu),
	VCPU_ENTRY(KVM_GET_XSAVE, LOCK_VCPU | ARG_RAW, keel_get_xsave),
	VCPU_ENTRY(KVM_GET_XSAVE2, LOCK_VCPU | ARG_RAW, keel_get_xsave2),
	VCPU_ENTRY(KVM_SET_XSAVE, LOCK_VCPU | ARG_RAW, keel_set_xsave),
	VCPU_ENTRY(KVM_GET_XCRS, LOCK_VCPU, keel_get_xcrs),
	VCPU_ENTRY(KVM_SET_XCRS, LOCK_VCPU, keel_set_xcrs),
	VCPU_ENTRY(KVM_GET_DEBUGREGS, LOCK_VCPU, keel_get_debugregs),
	VCPU_ENTRY(KVM_SET_DEBUGREGS, LOCK_VCPU, keel_set_debugregs),
	VCPU_ENTRY(KVM_SET_GUEST_DEBUG, LOCK_VCPU, keel_set_guest_debug),
	VCPU_ENTRY(KVM_GET_VCPU_EVENTS, LOCK_VCPU | ARG_FILLED, keel_get_events),
	VCPU_ENTRY(KVM_SET_VCPU_EVENTS, LOCK_VCPU, keel_set_events),
	VCPU_ENTRY(KVM_INTERRUPT, LOCK_VCPU, keel_ioctl_interrupt),
	VCPU_ENTRY(KVM_NMI, LOCK_VCPU, keel_ioctl_nmi),
	VCPU_ENTRY(KVM_SMI, LOCK_VCPU, keel_ioctl_smi),
	VCPU_ENTRY(KVM_GET_MP_STATE, LOCK_VCPU, vcpu_get_mp_state),
	VCPU_ENTRY(KVM_SET_MP_STATE, LOCK_VCPU, vcpu_set_mp_state),
	VCPU_ENTRY(KVM_GET_LAPIC, LOCK_VCPU | ARG_FILLED, irq_get_lapic),
	VCPU_ENTRY(KVM_SET_LAPIC, LOCK_VCPU, irq_set_lapic),
	VCPU_ENTRY(KVM_SET_VAPIC_ADDR, LOCK_VCPU, irq_set_vapic_addr),
	VCPU_ENTRY(KVM_SET_CPUID, LOCK_VCPU | ARG_RAW, keel_set_cpuid),
	VCPU_ENTRY(KVM_SET_CPUID2, LOCK_VCPU | ARG_RAW, keel_set_cpuid2),
	VCPU_ENTRY(KVM_GET_CPUID2, LOCK_VCPU | ARG_RAW, keel_get_cpuid2),
	VCPU_ENTRY(KVM_GET_MSRS, LOCK_VCPU | ARG_RAW, keel_get_msrs),
	VCPU_ENTRY(KVM_SET_MSRS, LOCK_VCPU | ARG_RAW, keel_set_msrs),
	VCPU_ENTRY(KVM_GET_NESTED_STATE, LOCK_VCPU | ARG_RAW, keel_get_nested_state),
	VCPU_ENTRY(KVM_SET_NESTED_STATE, LOCK_VCPU, keel_set_nested_state),
	VCPU_ENTRY(KVM_GET_ONE_REG, LOCK_VCPU, keel_get_one_reg),
	VCPU_ENTRY(KVM_SET_ONE_REG, LOCK_VCPU, keel_set_one_reg),
	VCPU_ENTRY(KVM_GET_REG_LIST, LOCK_VCPU | ARG_RAW, keel_get_reg_list),
	VCPU_ENTRY(KVM_X86_SETUP_MCE, LOCK_VCPU, keel_setup_mce),
	VCPU_ENTRY(KVM_X86_SET_MCE, LOCK_VCPU, keel_set_mce),
	VCPU_ENTRY(KVM_SET_TSC_KHZ, LOCK_VCPU, keel_set_tsc_khz),
	VCPU_ENTRY(KVM_GET_TSC_KHZ, LOCK_VCPU, keel_get_tsc_khz),
	VCPU_ENTRY(KVM_KVMCLOCK_CTRL, LOCK_VCPU, keel_kvmclock_ctrl),
	VCPU_ENTRY(KVM_HAS_DEVICE_ATTR, LOCK_VCPU, keel_vcpu_has_attr),
	VCPU_ENTRY(KVM_GET_DEVICE_ATTR, LOCK_VCPU, keel_vcpu_get_attr),
	VCPU_ENTRY(KVM_SET_DEVICE_ATTR, LOCK_VCPU, keel_vcpu_set_attr),
	VCPU_ENTRY(KVM_PRE_FAULT_MEMORY, LOCK_VCPU, mmu_pre_fault),
	VCPU_ENTRY(KVM_TRANSLATE, LOCK_VCPU, mmu_translate),
	VCPU_ENTRY(KVM_GET_SUPPORTED_HV_CPUID, LOCK_VCPU | ARG_RAW, keel_vcpu_get_supported_hv_cpuid),
	VCPU_ENTRY(KVM_SET_SIGNAL_MASK, LOCK_VCPU | ARG_RAW, vcpu_set_signal_mask),
	VCPU_ENTRY(KVM_ENABLE_CAP, LOCK_VCPU, vcpu_enable_cap),
	VCPU_ENTRY(KVM_GET_STATS_FD, LOCK_NONE, keel_vcpu_stats_fd),
	VCPU_ENTRY(KEEL_RESET_RUN, LOCK_RESET_VCPU | ARG_RAW, vcpu_run),
};

KEEL_IOCTLS(keel_vcpu_ioctls, vcpu_ioctls);

static noinline long vcpu_call_words(const struct keel_ioctl *row, struct keel_vcpu *vcpu, unsigned long arg)
{
	u64 buf[KEEL_ARG_WORDS] __uninitialized;
	u64 __user *user = (u64 __user *)arg;
	long ret;

	if (row->cmd & IOC_IN) {
		if (!keel_words_from_user(buf, user, row->words))
			return -EFAULT;
	} else if (!(row->flags & ARG_FILLED)) {
		memset(buf, 0, row->words * sizeof(u64));	/* what a handler leaves alone must not leak the stack */
	}
	ret = row->vcpu(vcpu, buf, arg);
	if (ret >= 0 && (row->cmd & IOC_OUT) && !keel_words_to_user(user, buf, row->words))
		ret = -EFAULT;
	return ret;
}

static __always_inline long vcpu_call(const struct keel_ioctl *row, struct keel_vcpu *vcpu, unsigned long arg)
{
	if (keel_ioctl_is_raw(row))
		return row->vcpu(vcpu, NULL, arg);
	return row->words ? vcpu_call_words(row, vcpu, arg) : keel_ioctl_copied(row, vcpu, arg);
}

static long vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct keel_vcpu *vcpu = file->private_data;
	const struct keel_ioctl *row;
	long ret;

	if (vcpu->vm->mm != current->mm || READ_ONCE(vcpu->vm->dead))
		return -EIO;
	row = keel_ioctl_find(&keel_vcpu_ioctls, cmd);
	if (!row)
		return -EINVAL;
	if (unlikely(row->lock != LOCK_VCPU)) {
		if (row->lock != LOCK_RESET_VCPU)
			return vcpu_call(row, vcpu, arg);
		ret = keel_reset_first(vcpu->vm, arg);
		if (ret)
			return ret;
		arg = 0;
	}

	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	ret = keel_vcpu_begin(vcpu);
	if (!ret) {
		WRITE_ONCE(vcpu->owned, true);
		vcpu_load(vcpu);
		ret = vcpu_call(row, vcpu, arg);
		vcpu_put(vcpu);
		smp_store_release(&vcpu->owned, false);
		keel_vcpu_end(vcpu);
	}
	mutex_unlock(&vcpu->mutex);
	return ret;
}

/* ---------------------------------------------------------------- fd, mmap */

static vm_fault_t vcpu_fault(struct vm_fault *vmf)
{
	struct keel_vcpu *vcpu = vmf->vma->vm_file->private_data;
	struct page *page = NULL;

	if (vmf->pgoff == 0)
		page = virt_to_page(vcpu->run);
	else if (vmf->pgoff == KVM_PIO_PAGE_OFFSET)
		page = virt_to_page(vcpu->pio_data);
	else if (vmf->pgoff == KVM_COALESCED_MMIO_PAGE_OFFSET)
		page = irq_coalesced_page(vcpu->vm);
	else if (vmf->pgoff >= KVM_DIRTY_LOG_PAGE_OFFSET)
		page = keel_ring_page(vcpu, vmf->pgoff - KVM_DIRTY_LOG_PAGE_OFFSET);
	if (!page)
		return VM_FAULT_SIGBUS;
	get_page(page);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct vcpu_vm_ops = {
	.fault = vcpu_fault,
};

static int vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct keel_vcpu *vcpu = file->private_data;
	unsigned long behind = vma->vm_pgoff + vma_pages(vma);

	/* To another process, a child of the VMM's, the file is of no use: nor is what ioctls would not do written here. */
	if (vcpu->vm->mm != current->mm)
		return -EIO;
	if (vma->vm_pgoff >= KVM_DIRTY_LOG_PAGE_OFFSET) {
		/* What is written back is for the kernel to see. */
		if (behind > KVM_DIRTY_LOG_PAGE_OFFSET + keel_ring_pages(vcpu->vm) ||
		    vma->vm_flags & VM_EXEC || !(vma->vm_flags & VM_SHARED))
			return -EINVAL;
	} else if (behind > KEEL_VCPU_MMAP_PAGES) {
		return -EINVAL;
	}
	vma->vm_ops = &vcpu_vm_ops;
	return 0;
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	struct keel_vcpu *vcpu = file->private_data;

	keel_vm_put(vcpu->vm);
	return 0;
}

static const struct file_operations vcpu_fops = {
	.owner = THIS_MODULE,
	.release = vcpu_release,
	.unlocked_ioctl = vcpu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = vcpu_mmap,
	.llseek = noop_llseek,
};

/* Also undoes a vCPU that was only half made. */
void keel_vcpu_free(struct keel_vcpu *vcpu)
{
	spin_lock(&vcpu->vm->pause_lock);
	if (vcpu->listed)
		list_del(&vcpu->active);
	spin_unlock(&vcpu->vm->pause_lock);
	keel_stats_fold_vcpu(vcpu);
	keel_clock_reset(vcpu);
	keel_apf_free(vcpu);
	keel_pmu_free(vcpu);
	keel_hv_vcpu_free(vcpu);
	irq_lapic_destroy(vcpu);
	mmu_vcpu_destroy(vcpu);
	keel_ring_free(vcpu);
	keel_call(vcpu_destroy, vcpu);
	keel_fpu_free(vcpu);
	keel_insn_free(vcpu);
	keel_cpuid_free(vcpu);
	free_page((unsigned long)vcpu->pio_data);
	free_page((unsigned long)vcpu->run);
	kmem_cache_free(keel_vcpu_cache, vcpu);
}

static int vcpu_init(struct keel_vcpu *vcpu)
{
	int err;

	vcpu->run = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	vcpu->pio_data = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vcpu->run || !vcpu->pio_data)
		return -ENOMEM;
	err = keel_stats_vcpu_init(vcpu);
	if (!err)
		err = keel_ring_init(vcpu);
	if (!err)
		err = keel_insn_init(vcpu);
	if (!err)
		err = keel_fpu_init(vcpu);
	if (!err)
		err = keel_call(vcpu_init, vcpu);
	if (!err && vcpu->vm->irq.mode != IRQCHIP_NONE)
		err = irq_lapic_create(vcpu);
	return err;
}

static void vcpu_discard(struct keel_vcpu *vcpu)
{
	struct keel_vm *vm = vcpu->vm;

	xa_release(&vm->vcpus, vcpu->idx);
	if (vcpu->id != vcpu->idx)
		xa_release(&vm->vcpus_by_id, vcpu->id);
	keel_vcpu_free(vcpu);
}

/* vm->lock is held.  Nobody finds it yet. */
static struct keel_vcpu *vcpu_make(struct keel_vm *vm, u32 id)
{
	struct keel_vcpu *vcpu;
	int err;

	lockdep_assert_held(&vm->lock);
	if (id >= (vm->max_vcpu_id ?: KEEL_MAX_VCPU_ID) || vm->nr_vcpus >= KEEL_MAX_VCPUS)
		return ERR_PTR(-EINVAL);
	if (keel_vcpu_by_id(vm, id))
		return ERR_PTR(-EEXIST);
	vcpu = kmem_cache_zalloc(keel_vcpu_cache, GFP_KERNEL_ACCOUNT);
	if (!vcpu)
		return ERR_PTR(-ENOMEM);
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->idx = vm->nr_vcpus;
	vcpu->cpu = -1;
	vcpu->serial = atomic64_inc_return(&vcpu_serial);
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	keel_cpuid_unsaid(vcpu);
	mutex_init(&vcpu->mutex);
	rcuwait_init(&vcpu->wait);
	preempt_notifier_init(&vcpu->pn, &vcpu_preempt_ops);
	err = keel_pmu_init(vcpu);
	if (!err)
		err = mmu_vcpu_init(vcpu);
	if (!err)
		err = vcpu_init(vcpu);
	if (err)
		goto free;

	vcpu_load(vcpu);
	keel_vcpu_reset(vcpu, false);
	vcpu_put(vcpu);
	if (vm->irq.mode != IRQCHIP_NONE && !keel_vcpu_is_bsp(vcpu))
		vcpu->mp_state = KVM_MP_STATE_UNINITIALIZED;

	err = xa_reserve(&vm->vcpus, vcpu->idx, GFP_KERNEL_ACCOUNT);
	if (!err && id != vcpu->idx)
		err = xa_reserve(&vm->vcpus_by_id, id, GFP_KERNEL_ACCOUNT);
	if (err) {
		vcpu_discard(vcpu);
		return ERR_PTR(err);
	}
	keel_clock_vcpu_init(vcpu);
	return vcpu;
free:
	keel_vcpu_free(vcpu);
	return ERR_PTR(err);
}

/* Its places are reserved: nothing can fail. */
static void vcpu_publish(struct keel_vcpu *vcpu)
{
	struct keel_vm *vm = vcpu->vm;

	xa_store(&vm->vcpus, vcpu->idx, vcpu, GFP_KERNEL_ACCOUNT);
	if (vcpu->id != vcpu->idx)
		xa_store(&vm->vcpus_by_id, vcpu->id, vcpu, GFP_KERNEL_ACCOUNT);
	smp_store_release(&vm->nr_vcpus, vcpu->idx + 1);
	keel_clock_vcpu_joins(vcpu);
}

struct keel_vcpu *keel_vcpu_add(struct keel_vm *vm, u32 id)
{
	struct keel_vcpu *vcpu = vcpu_make(vm, id);

	if (!IS_ERR(vcpu))
		vcpu_publish(vcpu);
	return vcpu;
}

/* vm->lock is held.  It is there already, and has no file, if the VM was made from a state. */
long keel_create_vcpu(struct keel_vm *vm, u32 id)
{
	struct keel_vcpu *there = keel_vcpu_by_id(vm, id), *vcpu = there;
	struct file *file;
	int fd, err;

	if (there && there->opened)
		return -EEXIST;
	if (!there)
		vcpu = vcpu_make(vm, id);
	if (IS_ERR(vcpu))
		return PTR_ERR(vcpu);
	err = get_unused_fd_flags(O_CLOEXEC);
	if (err < 0)
		goto discard;
	fd = err;
	/* The file's release drops it: taken before the fd can be seen. */
	keel_vm_get(vm);
	file = anon_inode_getfile("keel-vcpu", &vcpu_fops, vcpu, O_RDWR);
	if (IS_ERR(file)) {
		err = PTR_ERR(file);
		goto no_file;
	}
	vcpu->opened = true;
	if (!there)
		vcpu_publish(vcpu);
	fd_install(fd, file);
	return fd;
no_file:
	put_unused_fd(fd);
	keel_vm_put(vm);
discard:
	if (!there)
		vcpu_discard(vcpu);
	return err;
}
