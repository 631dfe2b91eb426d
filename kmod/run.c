// SPDX-License-Identifier: GPL-2.0-only
/*
 * run.c - KVM_RUN (api.rst 4.10).  Two loops, one in the other.
 *
 * The fast loop holds the CPU (preemption off, guest FPU in the registers) and answers whatever needs no
 * sleep, entering again at once.  The slow loop around it does the rest with everything allowed: faults
 * that must wait for memory, halts, signals, requests that sleep.
 *
 * Lock: vcpu->mutex, held by the ioctl; the vCPU is between keel_vcpu_begin() and keel_vcpu_end() except
 * while it sleeps.
 */
#include <linux/context_tracking.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/vtime.h>
#include <asm/debugreg.h>
#include <asm/fpu/api.h>
#include "ioctl.h"
#include "cpu/mitigate.h"
#include "ops.h"
#include "trace.h"

/* ------------------------------------------------------------- fast loop */

/* Requests whose answer does not decide how to go on. */
#define RUN_ANSWER(name, call)					\
static __always_inline int name(struct keel_vcpu *vcpu)		\
{								\
	call;							\
	return KEEL_RESUME;					\
}

RUN_ANSWER(run_seen, (void)vcpu)
RUN_ANSWER(run_intercepts, keel_call(update_intercepts, vcpu))

static int run_flush_tlb(struct keel_vcpu *vcpu)
{
	if (vcpu->mmu.shadow)
		mmu_shadow_drop(vcpu);
	keel_call(flush_tlb, vcpu);
	vcpu->stat.tlb_flushes++;
	return KEEL_RESUME;
}

static int run_events(struct keel_vcpu *vcpu)
{
	irq_lapic_timer_settle(vcpu);	/* which asks for it once more */
	keel_take_request(KEEL_REQ_EVENT, vcpu);
	keel_events_deliver(vcpu);
	return KEEL_RESUME;
}

static void run_fast_requests(struct keel_vcpu *vcpu)
{
#define RUN_FAST_ANSWER(name, answer)			\
	if (keel_take_request(KEEL_REQ_##name, vcpu))	\
		(void)answer(vcpu);
	KEEL_REQUESTS(RUN_FAST_ANSWER, KEEL_RQ_NONE)
}

/*
 * The stay in the fast loop ends.  No event is taken then: who looks from outside, an exit to the VMM or a debugger, is not to
 * find an interrupt in delivery that could as well have waited.
 */
static bool run_leaving(struct keel_vcpu *vcpu)
{
	return READ_ONCE(vcpu->requests) & ~KEEL_FAST_REQS || keel_guest_mode_work_pending();
}

/* Something was asked between the injection and the entry: take the event back, it is still queued. */
static void run_abort_entry(struct keel_vcpu *vcpu)
{
	if (vcpu->ev.injected.type) {
		keel_call(cancel_inject, vcpu);
		keel_request(KEEL_REQ_EVENT, vcpu);
	}
}

static __always_inline void run_enter(struct keel_vcpu *vcpu)
{
	if (static_branch_unlikely(&keel_latency_on)) {
		keel_latency_entry(&vcpu->stat);
		keel_call(enter, vcpu);
		keel_latency_exit(&vcpu->stat);
	} else {
		keel_call(enter, vcpu);
	}
}

/* One entry.  False: something came up, the guest did not run. */
static bool run_once(struct keel_vcpu *vcpu, u32 softirqs_known)
{
	local_irq_disable();
	/* Whoever sets a request after this sees IN_GUEST and interrupts; before, we see the request. */
	smp_store_mb(vcpu->mode, KEEL_IN_GUEST);
	if (unlikely(keel_request_pending(vcpu) || keel_guest_mode_work_pending() ||
		     keel_softirqs_held(softirqs_known))) {
		WRITE_ONCE(vcpu->mode, KEEL_OUTSIDE);
		local_irq_enable();
		return false;
	}
	if (unlikely(vcpu->ev.again)) {
		/* Waits until IRQs are on, which is in the guest: it comes back with its event delivered. */
		smp_send_reschedule(smp_processor_id());
		keel_request(KEEL_REQ_EVENT, vcpu);
		vcpu->ev.again = false;
	}
	trace_keel_entry(vcpu);
	if (unlikely(vcpu->fpu.swaps))
		keel_fpu_swap_in(vcpu);
	if (unlikely(vcpu->debug.armed || hw_breakpoint_active()))
		keel_debug_swap_in(vcpu);
	context_tracking_guest_enter();
	run_enter(vcpu);
	context_tracking_guest_exit();
	if (unlikely(vcpu->debug.loaded || vcpu->debug.host_armed))
		keel_debug_swap_out(vcpu);
	if (unlikely(vcpu->fpu.swaps))
		keel_fpu_swap_out(vcpu);
	smp_store_release(&vcpu->mode, KEEL_OUTSIDE);
	vcpu->stat.exits++;
	if (static_branch_unlikely(&keel_takes_irqs))
		keel_call(take_irq, vcpu);
	local_irq_enable();
	return true;
}

/* A stay in the fast loop counts as guest time.  Where time is counted precisely an interrupt does so, too: IRQs off. */
static __always_inline void run_account_guest(bool enter)
{
	if (vtime_accounting_enabled_this_cpu()) {
		local_irq_disable();
		if (enter)
			vtime_account_guest_enter();
		else
			vtime_account_guest_exit();
		local_irq_enable();
	} else if (enter) {
		current->flags |= PF_VCPU;
	} else {
		current->flags &= ~PF_VCPU;
	}
}

static int run_fast(struct keel_vcpu *vcpu)
{
	bool vapic = vcpu->vapic;
	u32 softirqs_known;
	u64 stime;
	int next;

	if (unlikely(vapic))
		irq_vapic_enter(vcpu);
	softirqs_known = keel_fpu_begin();
	if (unlikely(!keel_hw_arrive(vcpu))) {
		kernel_fpu_end();
		if (unlikely(vapic))
			irq_vapic_leave(vcpu);
		schedule();
		return KEEL_RESUME;
	}
	keel_fpu_load(vcpu);
	keel_call(begin, vcpu);
	pagefault_disable();
	vcpu->atomic = true;
	run_account_guest(true);
	stime = current->stime;

	for (;;) {
		if (keel_request_pending(vcpu)) {
			if (!run_leaving(vcpu))
				run_fast_requests(vcpu);
			if (READ_ONCE(vcpu->requests) & ~KEEL_FAST_REQS) {
				run_abort_entry(vcpu);
				next = KEEL_RESUME;
				break;
			}
		}
		if (!run_once(vcpu, softirqs_known)) {
			run_abort_entry(vcpu);
			if (keel_guest_mode_work_pending() || keel_softirqs_held(softirqs_known)) {
				next = KEEL_RESUME;
				break;
			}
			continue;
		}
		keel_account_ticks(stime);
		if (unlikely(vapic)) {
			vapic = irq_vapic_leave(vcpu) == -EAGAIN;
			next = keel_call(exit_fast, vcpu);
			vcpu->stat.fast_exits += next == KEEL_RESUME;
			break;
		}
		next = keel_call(exit_fast, vcpu);
		if (next != KEEL_RESUME)
			break;
		vcpu->stat.fast_exits++;
		if (unlikely(vcpu->guest_irq_exit)) {
			/*
			 * The guest, not this loop, is what RCU would wait for: now is a quiet moment.  Who has to leave
			 * comes to one anyway.
			 */
			vcpu->guest_irq_exit = false;
			if (keel_guest_mode_work_pending())
				continue;
			local_irq_disable();
			keel_rcu_note_guest();
			local_irq_enable();
		}
	}

	keel_account_ticks(stime);
	run_account_guest(false);
	if (unlikely(vcpu->pv.steal) && next == KEEL_RESUME && keel_guest_mode_work_pending())
		keel_pv_preempted(vcpu);
	vcpu->atomic = false;
	pagefault_enable();
	keel_call(end, vcpu);
	keel_fpu_save(vcpu);
	keel_guest_has_run();
	kernel_fpu_end();
	if (unlikely(vapic))
		irq_vapic_leave(vcpu);
	return next;
}

/* ------------------------------------------------------------- sleeping */

/* Something that ends a HLT. */
static bool run_awake(struct keel_vcpu *vcpu)
{
	return keel_events_pending(vcpu) || READ_ONCE(vcpu->pv.unhalted);
}

/* The HLT has ended. */
static void run_go_on(struct keel_vcpu *vcpu)
{
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	WRITE_ONCE(vcpu->pv.unhalted, false);
	keel_request(KEEL_REQ_EVENT, vcpu);
}

bool keel_vcpu_runnable(struct keel_vcpu *vcpu)
{
	if (vcpu->mp_state == KVM_MP_STATE_RUNNABLE)
		return true;
	if (vcpu->mp_state != KVM_MP_STATE_HALTED)
		return READ_ONCE(vcpu->requests) & KEEL_BEFORE_SIPI_REQS;
	return READ_ONCE(vcpu->requests) & KEEL_WAKING_REQS || run_awake(vcpu);
}

/* Halted, or waiting for INIT and SIPI.  KEEL_RESUME, or -EINTR. */
static int run_sleep(struct keel_vcpu *vcpu)
{
	int err;

	/* Asleep it looks at no guest memory, not even to find out what is in service. */
	if (unlikely(vcpu->pv.eoi))
		irq_pv_eoi_settle(vcpu);
	if (vcpu->pv.steal)
		keel_pv_preempted(vcpu);
	/* Asleep, the vCPU holds nobody up: pausing the VM need not wake it. */
	keel_vcpu_end(vcpu);
	err = rcuwait_wait_event(&vcpu->wait, keel_vcpu_runnable(vcpu), TASK_INTERRUPTIBLE);
	if (keel_vcpu_begin(vcpu))
		return -EINTR;
	if (vcpu->mp_state == KVM_MP_STATE_HALTED && run_awake(vcpu)) {
		vcpu->stat.halt_wakeups++;
		run_go_on(vcpu);
	}
	return err ? -EINTR : KEEL_RESUME;
}

int keel_emulate_hlt(struct keel_vcpu *vcpu)
{
	vcpu->stat.halt_exits++;
	if (!vcpu->apic) {
		vcpu->run->exit_reason = KVM_EXIT_HLT;
		return KEEL_USER;
	}
	if (run_awake(vcpu)) {
		run_go_on(vcpu);
		return KEEL_RESUME;
	}
	vcpu->mp_state = KVM_MP_STATE_HALTED;
	/* From the fast loop: the slow one, with nothing left to do there but see the state. */
	keel_request(KEEL_REQ_HALT, vcpu);
	return KEEL_RESUME;
}

/*
 * INIT and SIPI, latched by senders (SDM 3A 8.4, APM 14.1.3, 16.4).  Both are taken in one look: a SIPI that comes
 * later asks again, and is not mistaken for one that came before its INIT.
 */
static void run_take_mp_events(struct keel_vcpu *vcpu)
{
	struct kvm_segment cs;
	unsigned long events;

	/* INIT is latched until RSM, which asks again; a SIPI finds nobody waiting. */
	if (unlikely(vcpu->smm)) {
		clear_bit(KEEL_MP_SIPI, &vcpu->mp_events);
		return;
	}
	events = xchg(&vcpu->mp_events, 0);
	if (events & BIT(KEEL_MP_INIT)) {
		keel_vcpu_reset(vcpu, true);
		vcpu->mp_state = keel_vcpu_is_bsp(vcpu) ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
	}
	/* A SIPI to a CPU that is not waiting for one is ignored. */
	if (vcpu->mp_state != KVM_MP_STATE_INIT_RECEIVED || !(events & BIT(KEEL_MP_SIPI)))
		return;
	keel_call(get_segment, vcpu, &cs, KEEL_CS);
	cs.selector = READ_ONCE(vcpu->sipi_vector) << 8;
	cs.base = (u64)cs.selector << 4;
	keel_call(set_segment, vcpu, &cs, KEEL_CS);
	keel_set_reg(vcpu, KEEL_RIP, 0);
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	if (unlikely(vcpu->smi_pending))	/* which waited for this */
		keel_request(KEEL_REQ_SMI, vcpu);
}

void keel_take_mp_events(struct keel_vcpu *vcpu)
{
	if (keel_take_request(KEEL_REQ_MP_EVENT, vcpu))
		run_take_mp_events(vcpu);
}

/* -------------------------------------------------------------- slow loop */

RUN_ANSWER(run_mp_events, run_take_mp_events(vcpu))
RUN_ANSWER(run_smi, keel_smm_take(vcpu))
RUN_ANSWER(run_apicv, irq_apicv_update(vcpu))
RUN_ANSWER(run_apic_map, irq_map_update(vcpu->vm))
RUN_ANSWER(run_steal, keel_pv_steal_update(vcpu))
RUN_ANSWER(run_pv_eoi, irq_pv_eoi_settle(vcpu))
RUN_ANSWER(run_apf, keel_apf_ready(vcpu))
RUN_ANSWER(run_pmu, keel_pmu_update(vcpu))

static int run_dead(struct keel_vcpu *vcpu)
{
	keel_request(KEEL_REQ_VM_DEAD, vcpu);	/* for good */
	return -EIO;
}

static int run_pause(struct keel_vcpu *vcpu)
{
	keel_vcpu_end(vcpu);
	return keel_vcpu_begin(vcpu) ? -EINTR : KEEL_RESUME;
}

static int run_ring_full(struct keel_vcpu *vcpu)
{
	if (!keel_ring_full(vcpu))
		return KEEL_RESUME;
	/* Until userspace has made room the guest goes nowhere. */
	keel_request(KEEL_REQ_RING_FULL, vcpu);
	vcpu->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
	return KEEL_USER;
}

static int run_mmu_reload(struct keel_vcpu *vcpu)
{
	int r = mmu_load(vcpu);

	if (!r)
		return KEEL_RESUME;
	keel_request(KEEL_REQ_MMU_RELOAD, vcpu);	/* nothing may run without */
	return r;
}

static int run_clock(struct keel_vcpu *vcpu)
{
	keel_clock_update(vcpu);
	if (vcpu->vm->hv && !vcpu->smm)
		keel_hv_clock_update(vcpu);
	return KEEL_RESUME;
}

static int run_triple_fault(struct keel_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return KEEL_USER;
}

#define RUN_ROW(name, flags, answer)	\
	[KEEL_REQ_##name] = answer,
static int (*const run_answers[])(struct keel_vcpu *vcpu) = { KEEL_REQUESTS(KEEL_RQ_NONE, RUN_ROW) };

/* Those of the slow loop; each once, in the order of the table.  One that is asked for by a later one comes next time. */
static int run_slow_requests(struct keel_vcpu *vcpu)
{
	bool waits = vcpu->mp_state != KVM_MP_STATE_RUNNABLE && vcpu->mp_state != KVM_MP_STATE_HALTED;
	unsigned long left = waits ? KEEL_BEFORE_SIPI_REQS : ~KEEL_FAST_REQS, pending;
	unsigned int req;
	int r;

	while ((pending = READ_ONCE(vcpu->requests) & left) != 0) {
		req = __ffs(pending);
		left &= ~GENMASK(req, 0);
		keel_take_request(req, vcpu);
		r = run_answers[req](vcpu);
		if (r != KEEL_RESUME)
			return r;
	}
	return KEEL_RESUME;
}

#define EMULATE_MAX	256	/* instructions, before others are looked after */

/* Instruction by instruction, events included, until the CPU can go on. */
static int run_emulated(struct keel_vcpu *vcpu)
{
	unsigned int n;
	int r;

	for (n = 0; n < EMULATE_MAX && !keel_guest_mode_work_pending(); n++) {
		if (keel_request_pending(vcpu)) {
			if (run_leaving(vcpu))
				break;
			run_fast_requests(vcpu);
			if (vcpu->ev.injected.type) {
				keel_call(cancel_inject, vcpu);
				r = keel_emulate_event(vcpu);
				if (r != KEEL_RESUME)
					return r;
				if (vcpu->ev.exception.type)	/* of the delivery: that is the next event */
					continue;
			}
			if (READ_ONCE(vcpu->requests) & ~KEEL_FAST_REQS)
				break;
		}
		r = keel_emulate(vcpu);
		if (r != KEEL_RESUME)
			return r;
		if (keel_events_pending(vcpu))
			keel_request(KEEL_REQ_EVENT, vcpu);
		else if (keel_call(can_enter, vcpu))
			break;
	}
	return KEEL_RESUME;
}

static bool run_user_window(struct keel_vcpu *vcpu)
{
	return vcpu->run->request_interrupt_window && vcpu->vm->irq.mode != IRQCHIP_KERNEL &&
	       vcpu->ev.user_vector < 0 && keel_irq_window_open(vcpu) &&
	       (!vcpu->apic || irq_extint_accepted(vcpu));
}

static int run_loop(struct keel_vcpu *vcpu)
{
	int r;

	for (;;) {
		if (keel_request_pending(vcpu)) {
			r = run_slow_requests(vcpu);
			if (r <= 0)
				return r;
		}
		if (unlikely(run_user_window(vcpu))) {
			vcpu->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
			return KEEL_USER;
		}
		if (vcpu->mp_state != KVM_MP_STATE_RUNNABLE) {
			if (vcpu->mp_state == KVM_MP_STATE_HALTED && run_awake(vcpu)) {
				run_go_on(vcpu);
				continue;
			}
			r = signal_pending(current) ? -EINTR : run_sleep(vcpu);
		} else if (unlikely(vcpu->mmu.shadow) && !keel_call(can_enter, vcpu)) {
			r = run_emulated(vcpu);
		} else {
			if (static_branch_unlikely(&keel_latency_on))
				keel_latency_want(&vcpu->stat);
			r = run_fast(vcpu);
			if (r == KEEL_SLOW)
				r = keel_call(exit_slow, vcpu);
		}
		if (r <= 0 && r != -EINTR)
			return r;
		if (r == -EINTR || keel_guest_mode_work_pending()) {
			if (likely(signal_pending(current))) {
				r = -EINTR;	/* the ioctl ends, and with it the stay in the VM */
			} else {
				keel_vcpu_end(vcpu);
				r = keel_guest_mode_work();
				if (keel_vcpu_begin(vcpu))
					r = -EINTR;
			}
			if (r) {
				vcpu->run->exit_reason = KVM_EXIT_INTR;
				vcpu->stat.signal_exits += r == -EINTR;
				return r;
			}
		}
	}
}

/* ------------------------------------------------------------------ entry */

/*
 * Registers in kvm_run (KVM_CAP_SYNC_REGS), as the ioctls of the same names take and give them.  Userspace may write
 * there at any time: what is taken is copied first.
 */
#define SYNC(b, field, get, set)	{ b, offsetof(struct kvm_run, s.regs.field), get, set }
static const struct sync_row {
	u32 bit, offset;
	VCPU_IOCTL((*get));
	VCPU_IOCTL((*set));
} sync_rows[] = {
	SYNC(KVM_SYNC_X86_REGS, regs, keel_get_regs, keel_set_regs),
	SYNC(KVM_SYNC_X86_SREGS, sregs, keel_get_sregs, keel_set_sregs),
	SYNC(KVM_SYNC_X86_EVENTS, events, keel_get_events, keel_set_events),
};

static long sync_from_run(struct keel_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	u32 dirty = READ_ONCE(run->kvm_dirty_regs);
	unsigned int i;
	long r;

	if ((READ_ONCE(run->kvm_valid_regs) | dirty) & ~KEEL_SYNC_REGS)
		return -EINVAL;
	for (i = 0; dirty && i < ARRAY_SIZE(sync_rows); i++) {
		const struct sync_row *row = &sync_rows[i];
		u64 copy[sizeof(struct kvm_sregs) / sizeof(u64)] __uninitialized;

		if (!(dirty & row->bit))
			continue;
		BUILD_BUG_ON(sizeof(copy) < sizeof(struct kvm_regs) || sizeof(copy) < sizeof(struct kvm_vcpu_events));
		BUILD_BUG_ON(sizeof(struct kvm_sync_regs) + sizeof(copy) > sizeof(run->s));
		memcpy(copy, (void *)run + row->offset, sizeof(copy));	/* a size known here is the fastest */
		r = row->set(vcpu, copy, 0);
		if (r)
			return r;
		run->kvm_dirty_regs &= ~row->bit;
	}
	return 0;
}

static void sync_to_run(struct keel_vcpu *vcpu)
{
	u32 valid = READ_ONCE(vcpu->run->kvm_valid_regs);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sync_rows); i++)
		if (valid & sync_rows[i].bit)
			sync_rows[i].get(vcpu, (void *)vcpu->run + sync_rows[i].offset, 0);
}

static void run_publish(struct keel_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	run->if_flag = !!(keel_rflags(vcpu) & X86_EFLAGS_IF);
	run->cr8 = vcpu->cr8;
	run->apic_base = vcpu->apic_base;
	run->flags = vcpu->smm ? KVM_RUN_X86_SMM : 0;
	run->ready_for_interrupt_injection = vcpu->vm->irq.mode == IRQCHIP_KERNEL ||
		(vcpu->ev.user_vector < 0 && keel_irq_window_open(vcpu) &&
		 (!vcpu->apic || irq_extint_accepted(vcpu)));
}

static long run_locked(struct keel_vcpu *vcpu)
{
	int (*complete)(struct keel_vcpu *vcpu);
	struct kvm_run *run = vcpu->run;
	int r;

	while (unlikely(vcpu->mp_state == KVM_MP_STATE_UNINITIALIZED)) {
		bool rested;

		if (keel_immediate_exit(run))
			return -EINTR;
		r = run_sleep(vcpu);
		if (unlikely(!vcpu->in_loop))
			return -EINTR;		/* killed while the VM is paused: what a reset looks at may be going away */
		keel_take_mp_events(vcpu);
		rested = keel_take_request(KEEL_REQ_REST, vcpu);
		if (signal_pending(current)) {
			run->exit_reason = KVM_EXIT_INTR;
			vcpu->stat.signal_exits++;
			return -EINTR;
		}
		/* Who reset the VM is no reason to come out: it waits again, or runs where the state has it. */
		if (!rested || vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED)
			return -EAGAIN;
	}
	if (unlikely(READ_ONCE(run->kvm_valid_regs) || READ_ONCE(run->kvm_dirty_regs))) {
		long err = sync_from_run(vcpu);

		if (err)
			return err;
	}
	if (!vcpu->apic && vcpu->cr8 != run->cr8 && keel_set_cr8(vcpu, run->cr8))
		return -EINVAL;
	if (unlikely(!vcpu->has_run)) {
		vcpu->has_run = true;
		keel_request(KEEL_REQ_MMU_RELOAD, vcpu);
		keel_request(KEEL_REQ_INTERCEPTS, vcpu);	/* memslots may have changed while it was made */
		keel_request(KEEL_REQ_EVENT, vcpu);
	}
	if (run->request_interrupt_window)
		keel_request(KEEL_REQ_EVENT, vcpu);
	complete = vcpu->complete;
	if (complete) {
		vcpu->complete = NULL;
		r = complete(vcpu);
		if (r <= 0)
			return r;
	}
	if (keel_immediate_exit(run)) {
		/*
		 * A step that ended with that instruction is told of now: the VMM may put the vCPU elsewhere before it
		 * comes again.
		 */
		if (!keel_take_request(KEEL_REQ_DEBUG, vcpu))
			return -EINTR;
		keel_debug_exit(vcpu);
		return 0;
	}
	/* Not earlier: whoever only has an instruction completed still looks at the exit it comes from. */
	run->exit_reason = KVM_EXIT_UNKNOWN;
	if (unlikely(vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP))
		keel_debug_step(vcpu);
	vcpu->stat.user_exits++;
	return run_loop(vcpu);
}

long keel_run(struct keel_vcpu *vcpu)
{
	long r;

	/* In real_blocked, or a signal that is blocked outside and deadly would kill the process at once. */
	if (vcpu->sigset_active)
		sigprocmask(SIG_SETMASK, &vcpu->sigset, &current->real_blocked);
	if (unlikely(vcpu->hv))
		keel_hv_runs(vcpu, true);
	r = run_locked(vcpu);
	if (unlikely(vcpu->hv))
		keel_hv_runs(vcpu, false);
	/* Userspace may save the LAPIC, or the page.  A thread that was killed while paused is out of the VM already. */
	if (unlikely(vcpu->pv.eoi) && vcpu->in_loop)
		irq_pv_eoi_settle(vcpu);
	run_publish(vcpu);
	if (unlikely(READ_ONCE(vcpu->run->kvm_valid_regs)))
		sync_to_run(vcpu);
	if (vcpu->sigset_active) {
		sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
		sigemptyset(&current->real_blocked);
	}
	/* Calls are made again where signals are looked for.  There is none, which puts this right as well. */
	if (unlikely(r == -ERESTARTNOHAND))
		set_thread_flag(TIF_SIGPENDING);
	return r;
}

int keel_exit_internal_error(struct keel_vcpu *vcpu, u32 suberror, int ndata, const u64 *data)
{
	struct kvm_run *run = vcpu->run;
	int i;

	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->internal.suberror = suberror;
	run->internal.ndata = ndata;
	for (i = 0; i < ndata; i++)
		run->internal.data[i] = data[i];
	return KEEL_USER;
}

int keel_exit_emulation_failure(struct keel_vcpu *vcpu, const u8 *bytes, unsigned int have)
{
	struct kvm_run *run = vcpu->run;
	unsigned int n = min(have, 15U);	/* what stands in kvm_run another thread may change */

	vcpu->stat.emulation_fail++;
	/* An unknown instruction outside the kernel is the program's fault, not the machine's. */
	if (keel_cpl(vcpu) && !vcpu->vm->exit_on_emulation_failure) {
		keel_raise(vcpu, X86_TRAP_UD);
		return KEEL_RESUME;
	}
	memset(&run->emulation_failure, 0, sizeof(run->emulation_failure));
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
	run->emulation_failure.ndata = 4;
	if (have) {
		run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
		run->emulation_failure.insn_size = n;
		memset(run->emulation_failure.insn_bytes, 0x90, 15);
		memcpy(run->emulation_failure.insn_bytes, bytes, n);
	}
	if (!vcpu->vm->exit_on_emulation_failure)
		keel_raise(vcpu, X86_TRAP_UD);
	return KEEL_USER;
}

static bool dump_failed_entry;
module_param(dump_failed_entry, bool, 0644);
MODULE_PARM_DESC(dump_failed_entry, "Log a vCPU's hardware state when the CPU refuses to enter with it (off)");

int keel_exit_fail_entry(struct keel_vcpu *vcpu, u64 reason)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	run->fail_entry.hardware_entry_failure_reason = reason;
	run->fail_entry.cpu = vcpu->cpu;
	if (dump_failed_entry) {
		pr_info_ratelimited("keel: the CPU refused the state of vCPU %u (%#llx); it follows\n", vcpu->id, reason);
		keel_call(dump, vcpu);
	}
	return KEEL_USER;
}
