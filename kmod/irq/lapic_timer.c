// SPDX-License-Identifier: GPL-2.0-only
/*
 * lapic_timer.c - the timer in the local APIC: one-shot, periodic, TSC deadline (SDM volume 3, "APIC Timer").
 *
 * One high-resolution timer stands for the count.  The bus clock is 1 GHz, so a count shifted by the divider is
 * nanoseconds.  All but the callback runs in the vCPU's thread; the callback, in hard interrupt context, only
 * sets the IRR and moves the timer on.
 *
 * A deadline that is put off, which is what guests do with most of them, leaves the timer as it is: it finds out
 * when it fires.  For that deadline is written before it is asked whether the timer is queued, and read after it no
 * longer is; and the callback writes armed before it queues the timer again.
 */
#include "internal.h"

#define MODE_MASK	(APIC_LVT_TIMER_PERIODIC | APIC_LVT_TIMER_TSCDEADLINE)
/* A guest may not keep the host busy with timer interrupts: no periodic timer is faster than this. */
#define MIN_PERIOD_NS	(200 * NSEC_PER_USEC)

/* When the guest's TSC has gone on by @cycles: not earlier, if a little later. */
static ktime_t deadline_target(struct keel_lapic *apic, u64 cycles)
{
	u64 ns = keel_guest_tsc_to_ns(apic->vcpu, cycles) + 1;

	return ktime_add_safe(ktime_get(), ns_to_ktime(min_t(u64, ns, KTIME_MAX / 2)));
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
		now = keel_guest_tsc(apic->vcpu);
		if (deadline > now) {
			WRITE_ONCE(apic->armed, deadline);
			hrtimer_set_expires(timer, deadline_target(apic, deadline - now));
			return HRTIMER_RESTART;
		}
	}
	irq_apic_local(apic, APIC_LVTT);
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

void apic_timer_stop(struct keel_lapic *apic)
{
	hrtimer_cancel(&apic->timer);
}

static void timer_start(struct keel_lapic *apic, u64 ns)
{
	ktime_t target = ktime_add_safe(ktime_get(), ns_to_ktime(min_t(u64, ns, KTIME_MAX / 2)));

	WRITE_ONCE(apic->target, target);
	hrtimer_start(&apic->timer, target, HRTIMER_MODE_ABS_HARD);
}

static void set_period(struct keel_lapic *apic, u32 count)
{
	u64 period = (u64)count << apic->timer_shift;

	if (apic->timer_mode == APIC_LVT_TIMER_PERIODIC && period && period < MIN_PERIOD_NS)
		period = MIN_PERIOD_NS;
	WRITE_ONCE(apic->period, period);
}

static void set_shift(struct keel_lapic *apic, u32 tdcr)
{
	u32 code = (tdcr & 3) | (tdcr >> 1 & 4);

	apic->timer_shift = (code + 1) & 7;	/* 0: by 2 ... 6: by 128, 7: by 1 */
}

u32 apic_timer_count(struct keel_lapic *apic)
{
	s64 left;

	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE || !apic->period)
		return 0;
	left = ktime_to_ns(ktime_sub(READ_ONCE(apic->target), ktime_get()));
	if (left <= 0)
		return 0;
	return min_t(u64, left >> apic->timer_shift, U32_MAX);
}

void apic_timer_set_count(struct keel_lapic *apic, u32 count)
{
	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE)
		return;
	apic_timer_stop(apic);
	apic_set_reg(apic, APIC_TMICT, count);
	set_period(apic, count);
	if (apic->period)
		timer_start(apic, apic->period);
}

void apic_timer_set_divider(struct keel_lapic *apic, u32 tdcr)
{
	u32 left = apic_timer_count(apic);

	apic_set_reg(apic, APIC_TDCR, tdcr);
	if (left)
		apic_timer_stop(apic);
	set_shift(apic, tdcr);
	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE)
		return;
	set_period(apic, apic_reg(apic, APIC_TMICT));
	if (left)
		timer_start(apic, (u64)left << apic->timer_shift);
}

void apic_timer_set_mode(struct keel_lapic *apic, u32 lvtt)
{
	u32 old = apic->timer_mode, mode = lvtt & MODE_MASK;

	if (mode == old)
		return;
	if (mode == APIC_LVT_TIMER_TSCDEADLINE || old == APIC_LVT_TIMER_TSCDEADLINE) {
		apic_timer_stop(apic);
		apic_set_reg(apic, APIC_TMICT, 0);
		WRITE_ONCE(apic->period, 0);
		apic->deadline = 0;
	}
	WRITE_ONCE(apic->timer_mode, mode);
	set_period(apic, apic_reg(apic, APIC_TMICT));
}

static void arm_deadline(struct keel_lapic *apic)
{
	u64 now = keel_guest_tsc(apic->vcpu);

	apic_timer_stop(apic);
	if (apic->deadline > now) {
		WRITE_ONCE(apic->armed, apic->deadline);
		hrtimer_start(&apic->timer, deadline_target(apic, apic->deadline - now), HRTIMER_MODE_ABS_HARD);
	} else {
		irq_apic_local(apic, APIC_LVTT);
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

/* A write arms anew; should the old timer be firing at this moment, that is an interrupt just before it. */
void apic_timer_set_deadline(struct keel_lapic *apic, u64 tsc)
{
	if (apic->timer_mode != APIC_LVT_TIMER_TSCDEADLINE)
		return;
	WRITE_ONCE(apic->deadline, tsc);
	if (!tsc)
		apic_timer_stop(apic);
	else if (!deadline_put_off(apic, tsc))
		arm_deadline(apic);
}

u64 apic_timer_deadline(struct keel_lapic *apic)
{
	if (apic->timer_mode != APIC_LVT_TIMER_TSCDEADLINE || apic->deadline <= keel_guest_tsc(apic->vcpu))
		return 0;
	return apic->deadline;
}

void apic_timer_restore(struct keel_lapic *apic, u32 count)
{
	WRITE_ONCE(apic->timer_mode, apic_reg(apic, APIC_LVTT) & MODE_MASK);
	set_shift(apic, apic_reg(apic, APIC_TDCR));
	if (apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE) {
		WRITE_ONCE(apic->period, 0);
		if (apic->deadline)
			arm_deadline(apic);
		return;
	}
	set_period(apic, apic_reg(apic, APIC_TMICT));
	if (!apic->period)
		return;
	if (count)
		timer_start(apic, (u64)count << apic->timer_shift);
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
	set_shift(apic, 0);
}

void irq_lapic_timer_sync(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;

	if (apic && apic->timer_mode == APIC_LVT_TIMER_TSCDEADLINE && apic->deadline &&
	    hrtimer_active(&apic->timer))
		arm_deadline(apic);
}
