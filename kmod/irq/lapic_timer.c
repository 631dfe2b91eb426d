// SPDX-License-Identifier: GPL-2.0-only
/*
 * lapic_timer.c - the timer in the local APIC: one-shot, periodic, TSC deadline (SDM volume 3, "APIC Timer").
 *
 * One high-resolution timer stands for the count.  A tick of it is a number of nanoseconds: that of the bus clock's
 * cycle, one unless the VMM says another, times the divider.  All but the callback runs in the vCPU's thread; the
 * callback, in hard interrupt context, only notes that the timer is due and moves it on.
 *
 * That it was due becomes an interrupt, and the deadline or the count zero, in one step of KVM_RUN: apic_timer_take().
 * So a VMM that reads the timer and the IRR one after the other, in whatever order, finds the tick in exactly one of
 * them, however near to its time it looks; and so does whoever loads what it read.
 *
 * A deadline that is put off, which is what guests do with most of them, leaves the timer as it is: it finds out
 * when it fires.  For that deadline is written before it is asked whether the timer is queued, and read after it no
 * longer is; and the callback writes armed before it queues the timer again.
 */
#include <linux/math64.h>
#include "internal.h"

#define MODE_MASK	(APIC_LVT_TIMER_PERIODIC | APIC_LVT_TIMER_TSCDEADLINE)
/* A guest may not keep the host busy with timer interrupts: no periodic timer is faster than this. */
#define MIN_PERIOD_NS	(200 * NSEC_PER_USEC)
/* And the callback, which may find that it came too early, does not come again at once. */
#define MIN_AHEAD_NS	NSEC_PER_USEC

/* In @ns from now, or in a century or so. */
static ktime_t target_in(u64 ns)
{
	return ktime_add_safe(ktime_get(), ns_to_ktime(min_t(u64, ns, KTIME_MAX / 2)));
}

/* When the guest's TSC has gone on by @cycles: not earlier, if a little later. */
static ktime_t deadline_target(struct keel_lapic *apic, u64 cycles)
{
	return target_in(clamp_t(u64, keel_guest_tsc_to_ns(apic->vcpu, cycles), MIN_AHEAD_NS, KTIME_MAX / 2) + 1);
}

/* In any context.  Masked, nobody needs to be woken for it. */
static void set_due(struct keel_lapic *apic)
{
	set_bit(INBOX_TIMER, &apic->inbox.news);
	keel_request(KEEL_REQ_EVENT, apic->vcpu);
	if (!(apic_reg(apic, APIC_LVTT) & APIC_LVT_MASKED))
		keel_vcpu_kick(apic->vcpu);
}

void apic_timer_take(struct keel_lapic *apic)
{
	clear_bit(INBOX_TIMER, &apic->inbox.news);
	smp_mb__after_atomic();		/* a period that ends from here on is the next tick */
	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE)
		WRITE_ONCE(apic->deadline, 0);
	else if (apic->timer_mode == APIC_LVT_TIMER_ONESHOT)
		WRITE_ONCE(apic->target, 0);
	irq_apic_timer(apic);
}

static enum hrtimer_restart timer_fires(struct hrtimer *timer)
{
	struct keel_lapic *apic = container_of(timer, struct keel_lapic, timer);
	u64 period = READ_ONCE(apic->period);

	if (READ_ONCE(apic->timer_mode) == APIC_LVT_TIMER_TSCDEADLINE) {
		u64 deadline, now;

		smp_mb();	/* with deadline_put_off() */
		deadline = READ_ONCE(apic->deadline);
		if (!deadline)		/* put off, and then taken away */
			return HRTIMER_NORESTART;
		now = keel_guest_tsc_timer(apic->vcpu, READ_ONCE(apic->armed));
		if (deadline > now) {
			WRITE_ONCE(apic->armed, deadline);
			hrtimer_set_expires(timer, deadline_target(apic, deadline - now));
			return HRTIMER_RESTART;
		}
	}
	set_due(apic);
	if (READ_ONCE(apic->timer_mode) != APIC_LVT_TIMER_PERIODIC || !period)
		return HRTIMER_NORESTART;
	hrtimer_forward_now(timer, ns_to_ktime(period));
	WRITE_ONCE(apic->target, hrtimer_get_expires(timer));
	return HRTIMER_RESTART;
}

void apic_timer_init(struct keel_lapic *apic)
{
	hrtimer_setup(&apic->timer, timer_fires, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
}

/* What was due and has not been taken is forgotten, too. */
void apic_timer_stop(struct keel_lapic *apic)
{
	hrtimer_cancel(&apic->timer);
	clear_bit(INBOX_TIMER, &apic->inbox.news);
}

/* The guest changes its timer: what was due before that is an interrupt. */
static void timer_change(struct keel_lapic *apic)
{
	hrtimer_cancel(&apic->timer);
	apic_timer_settle(apic);
}

static void timer_start(struct keel_lapic *apic, u64 ns)
{
	ktime_t target = target_in(ns);

	WRITE_ONCE(apic->target, target);
	hrtimer_start(&apic->timer, target, HRTIMER_MODE_ABS_HARD);
}

static void set_period(struct keel_lapic *apic, u32 count)
{
	u64 period = min_t(u64, count * apic->tick_ns, KTIME_MAX / 2);

	if (apic->timer_mode == APIC_LVT_TIMER_PERIODIC && period && period < MIN_PERIOD_NS)
		period = MIN_PERIOD_NS;
	WRITE_ONCE(apic->period, period);
}

static void set_tick(struct keel_lapic *apic, u32 tdcr)
{
	u32 code = (tdcr & 3) | (tdcr >> 1 & 4);

	/* 0: by 2 ... 6: by 128, 7: by 1 */
	apic->tick_ns = apic->vcpu->vm->irq.bus_cycle_ns << ((code + 1) & IRQ_TIMER_MAX_SHIFT);
}

u32 apic_timer_count(struct keel_lapic *apic)
{
	ktime_t target = READ_ONCE(apic->target);
	s64 left;

	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE || !apic->period)
		return 0;
	if (!target)	/* one-shot, and taken */
		return 0;
	/* Of the period that is over, not of the one that has begun: the callback sets the bit before it moves the target. */
	smp_rmb();
	if (test_bit(INBOX_TIMER, &apic->inbox.news))
		return 1;
	left = ktime_to_ns(ktime_sub(target, ktime_get()));
	/* Zero is for what has become an interrupt. */
	return clamp_t(s64, div64_s64(left, apic->tick_ns), 1, U32_MAX);
}

void apic_timer_set_count(struct keel_lapic *apic, u32 count)
{
	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE)
		return;
	timer_change(apic);
	apic_set_reg(apic, APIC_TMICT, count);
	set_period(apic, count);
	if (apic->period)
		timer_start(apic, apic->period);
}

void apic_timer_set_divider(struct keel_lapic *apic, u32 tdcr)
{
	u32 left = 0;

	if (apic->timer_mode != APIC_LVT_TIMER_TSCDEADLINE) {
		timer_change(apic);
		left = apic_timer_count(apic);
	}
	apic_set_reg(apic, APIC_TDCR, tdcr);
	set_tick(apic, tdcr);
	set_period(apic, apic_reg(apic, APIC_TMICT));
	if (left)
		timer_start(apic, left * apic->tick_ns);
}

void apic_timer_set_mode(struct keel_lapic *apic, u32 lvtt)
{
	u32 old = apic->timer_mode, mode = lvtt & MODE_MASK, left;

	if (mode == old)
		return;
	if (mode == APIC_LVT_TIMER_TSCDEADLINE || old == APIC_LVT_TIMER_TSCDEADLINE) {
		apic_timer_stop(apic);
		apic_set_reg(apic, APIC_TMICT, 0);
		WRITE_ONCE(apic->period, 0);
		apic->deadline = 0;
		WRITE_ONCE(apic->timer_mode, mode);
		return;
	}
	/* What runs goes on, and is of the old mode until then. */
	timer_change(apic);
	left = apic_timer_count(apic);
	WRITE_ONCE(apic->timer_mode, mode);
	set_period(apic, apic_reg(apic, APIC_TMICT));
	if (left)
		timer_start(apic, left * apic->tick_ns);
}

/* The timer is stopped.  In another mode a deadline is what a VMM loaded before the mode. */
static void arm_deadline(struct keel_lapic *apic)
{
	u64 now = keel_guest_tsc(apic->vcpu);

	if (apic->timer_mode != APIC_LVT_TIMER_TSCDEADLINE || !apic->deadline)
		return;
	if (apic->deadline > now) {
		WRITE_ONCE(apic->armed, apic->deadline);
		hrtimer_start(&apic->timer, deadline_target(apic, apic->deadline - now), HRTIMER_MODE_ABS_HARD);
	} else {
		set_due(apic);
	}
}

/* Will the timer that runs see the new deadline in time? */
static bool deadline_put_off(struct keel_lapic *apic, u64 deadline)
{
	smp_mb();	/* with timer_fires() */
	if (!hrtimer_is_queued(&apic->timer))
		return false;
	smp_rmb();	/* armed is at least as new as what was queued */
	return deadline >= READ_ONCE(apic->armed);
}

void apic_timer_set_deadline(struct keel_lapic *apic, u64 tsc)
{
	if (apic->timer_mode != APIC_LVT_TIMER_TSCDEADLINE)
		return;
	apic_timer_settle(apic);
	WRITE_ONCE(apic->deadline, tsc);
	if (tsc && deadline_put_off(apic, tsc))
		return;
	hrtimer_cancel(&apic->timer);
	/* It fired meanwhile: an interrupt just before the write, or the new one's, which is then the same again. */
	if (test_and_clear_bit(INBOX_TIMER, &apic->inbox.news))
		irq_apic_timer(apic);
	arm_deadline(apic);
}

void apic_timer_load_deadline(struct keel_lapic *apic, u64 tsc)
{
	bool armed = apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE;

	if (armed)
		apic_timer_stop(apic);
	WRITE_ONCE(apic->deadline, tsc);
	if (armed)
		arm_deadline(apic);
}

u64 apic_timer_deadline(struct keel_lapic *apic)
{
	return apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE ? apic->deadline : 0;
}

void apic_timer_restore(struct keel_lapic *apic, u32 count)
{
	WRITE_ONCE(apic->timer_mode, apic_reg(apic, APIC_LVTT) & MODE_MASK);
	set_tick(apic, apic_reg(apic, APIC_TDCR));
	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE) {
		WRITE_ONCE(apic->period, 0);
		arm_deadline(apic);
		return;
	}
	set_period(apic, apic_reg(apic, APIC_TMICT));
	if (!apic->period)
		return;
	if (count)
		timer_start(apic, count * apic->tick_ns);
	else if (apic->timer_mode == APIC_LVT_TIMER_PERIODIC)
		timer_start(apic, apic->period);
	else
		WRITE_ONCE(apic->target, 0);	/* one-shot, fired already */
}

void apic_timer_reset(struct keel_lapic *apic)
{
	apic_timer_stop(apic);
	WRITE_ONCE(apic->timer_mode, APIC_LVT_TIMER_ONESHOT);
	WRITE_ONCE(apic->period, 0);
	apic->deadline = 0;
	set_tick(apic, 0);
}

void irq_lapic_timer_settle(struct keel_vcpu *vcpu)
{
	if (vcpu->apic)
		apic_timer_settle(vcpu->apic);
}

void irq_lapic_timer_sync(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;

	if (!apic || apic->timer_mode != APIC_LVT_TIMER_TSCDEADLINE || !apic->deadline)
		return;
	/* Whatever it was before, by the new clock it may be due, or not yet. */
	apic_timer_stop(apic);
	arm_deadline(apic);
}

/* ------------------------------------------------------------- the state (snap/state.c) */

/* As long as it runs: one-shot, it has not been taken. */
void apic_timer_get_state(struct keel_lapic *apic, struct keel_state_lapic *s)
{
	ktime_t target = READ_ONCE(apic->target);

	/* A tick that comes between is in both, rather than in neither. */
	smp_rmb();
	s->due = test_bit(INBOX_TIMER, &apic->inbox.news);
	s->deadline = apic->deadline;
	if (apic->period && target)
		s->expires = target - keel_clock_mono(apic->vcpu->vm);
}

/* Stopped before, and its registers are loaded.  What is due has no timer to wait for, but the next period's. */
void apic_timer_set_state(struct keel_lapic *apic, const struct keel_state_lapic *s)
{
	WRITE_ONCE(apic->timer_mode, apic_reg(apic, APIC_LVTT) & MODE_MASK);
	set_tick(apic, apic_reg(apic, APIC_TDCR));
	WRITE_ONCE(apic->deadline, s->deadline);
	WRITE_ONCE(apic->target, 0);
	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE)
		WRITE_ONCE(apic->period, 0);
	else
		set_period(apic, apic_reg(apic, APIC_TMICT));
	if (apic->period && s->expires)
		WRITE_ONCE(apic->target, keel_clock_expires(apic->vcpu->vm, s->expires));
	if (s->due)
		set_due(apic);
	else if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE)
		arm_deadline(apic);
	if (apic->target && (!s->due || apic->timer_mode == APIC_LVT_TIMER_PERIODIC))
		hrtimer_start(&apic->timer, apic->target, HRTIMER_MODE_ABS_HARD);
}
