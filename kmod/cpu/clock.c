// SPDX-License-Identifier: GPL-2.0-only
/*
 * clock.c - the guest's TSC, and kvmclock (Documentation/virt/kvm/x86/msr.rst: MSR_KVM_SYSTEM_TIME_NEW).
 *
 * Guest TSC = host TSC * ratio + offset.  kvmclock begins as the host's raw monotonic time, sleep included, + offset.  While
 * the host keeps time by its TSC and all vCPUs' TSCs agree, all clock pages show one line through one (TSC, ns) pair, the
 * master pair, and say so with the stable bit; whoever else asks for the time gets it by the same line.  It goes on through the
 * same pair for as long as it can.  Where one line ends and another begins the new one starts where the old one was.
 *
 * What follows which rate:
 *	guest TSC		the host's TSC, ratio times as fast: what the CPU does, exactly
 *	kvmclock, stable	the guest's TSC
 *	kvmclock, not stable	the host's raw time; between two writes of a page, the guest's TSC
 *	Hyper-V's reference	kvmclock, stable
 *	LAPIC deadlines		the guest's TSC
 * A vCPU's tsc_khz is what its VMM asked for, and is followed by nothing: within the tolerance the CPU's rate is another.
 *
 * "Host TSC" in here goes on where a suspend made the CPU's start again.  Where CPUs' TSCs differ a vCPU that comes to another
 * CPU gets another offset, so that its TSC follows the host's time and never goes back; the stable bit is not set then.
 *
 * Locks: vm->clock.lock for the VM's part; a vCPU's part belongs to its thread or the holder of vcpu->mutex.
 * SDM vol. 3 17.17; APM vol. 2 13.2.4.
 */
#include <linux/clocksource.h>
#include <linux/irq_work.h>
#include <linux/list.h>
#include <linux/math64.h>
#include <linux/pvclock_gtod.h>
#include <linux/suspend.h>
#include <linux/timekeeper_internal.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <asm/kvm_para.h>
#include <asm/pvclock-abi.h>
#include <asm/tsc.h>
#include "ops.h"

#define TSC_TOLERANCE_PPM	250
#define CLOCK_ENABLED		1ULL
#define CLOCK_FLAGS		(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

/* ------------------------------------------------------------------ the host's time */

#define HOST_USES_TSC	BIT(0)	/* its clocksource is the TSC */
#define HOST_UNSTABLE	BIT(1)
static unsigned int host_state;		/* READ_ONCE/WRITE_ONCE */
static unsigned int host_khz;		/* tsc_khz when it was looked at last: the kernel measures again after boot */

bool keel_tsc_wary __read_mostly;

/* Both change in keel_clock_resume() only, and the epoch also where a CPU's TSC may have started again. */
static u64 tsc_lost;		/* what suspends took away from the host's TSC */
static u32 tsc_epoch;
static u64 tsc_suspended;	/* when the host was suspended, by the CPU */

/* The last moment at which CPUs' TSCs were one, as far as is known. */
static struct {
	u64 tsc, ns;
} tsc_anchor;

static u64 host_tsc(void)
{
	return rdtsc() + READ_ONCE(tsc_lost);
}

/* The VM's clocks have to be worked out again. */
static void clock_invalidate(struct keel_vm *vm)
{
	bool anyone;

	spin_lock(&vm->clock.lock);
	vm->clock.valid = false;
	anyone = vm->clock.enabled;
	spin_unlock(&vm->clock.lock);
	if (anyone)
		keel_request_all(vm, KEEL_REQ_CLOCK, false);
}

static void clock_invalidate_all(void)
{
	struct keel_vm *vm;

	mutex_lock(&keel_hw_lock);
	list_for_each_entry(vm, &keel_vms, list)
		clock_invalidate(vm);
	mutex_unlock(&keel_hw_lock);
}

static DEFINE_MUTEX(tsc_anchor_lock);

/* CPUs' TSCs differ, and there is a moment known at which they did not.  The kernel's word is first. */
static bool tscs_differ(void)
{
	return check_tsc_unstable() && smp_load_acquire(&tsc_anchor.ns);
}

/*
 * Two clocks are read one after the other with interrupts off.  A hypervisor below, or an SMI, may come between all the same:
 * then the TSC, read before and behind, is far ahead.  Was this the shortest time for it so far, and is another look worth it:
 * was it longer than 1/32 ms, and less than half of what it was before?  (There are hosts whose clock takes that long.)
 */
static bool shortest(u64 took, u64 *best, bool *again)
{
	u64 was = *best;

	*again = unlikely(took > tsc_khz >> 5) && took < was / 2;
	if (took >= was)
		return false;
	*best = took;
	return true;
}

/* The raw clock, and this CPU's TSC at that moment */
static u64 raw_and_tsc(u64 *tsc)
{
	u64 before, raw, after, ns = 0, best = U64_MAX;
	unsigned long flags;
	bool again;

	local_irq_save(flags);
	do {
		before = rdtsc_ordered();	/* not before, or behind, its place */
		raw = ktime_to_ns(ktime_get_raw());
		after = rdtsc_ordered();
		if (shortest(after - before, &best, &again)) {
			ns = raw;
			*tsc = after;
		}
	} while (again);
	*tsc += READ_ONCE(tsc_lost);
	local_irq_restore(flags);
	return ns;
}

static void set_anchor(void *unused)
{
	u64 ns = raw_and_tsc(&tsc_anchor.tsc);

	smp_store_release(&tsc_anchor.ns, ns);
}

static void host_clock_changed(struct work_struct *work)
{
	mutex_lock(&tsc_anchor_lock);
	if (check_tsc_unstable() && !tsc_anchor.ns) {
		set_anchor(NULL);
		WRITE_ONCE(keel_tsc_wary, true);
	}
	mutex_unlock(&tsc_anchor_lock);
	clock_invalidate_all();
}

static DECLARE_WORK(host_clock_work, host_clock_changed);

/*
 * Where there is no line the pages run away from the host's time, for the TSC's rate is what the kernel has measured: they are
 * written anew from time to time, for as long as there are any.
 */
#define NO_LINE_AGAIN	(10 * HZ)

static void no_line_again(struct work_struct *work)
{
	struct keel_vm *vm;

	mutex_lock(&keel_hw_lock);
	list_for_each_entry(vm, &keel_vms, list)
		if (!READ_ONCE(vm->clock.stable))
			clock_invalidate(vm);
	mutex_unlock(&keel_hw_lock);
}

static DECLARE_DELAYED_WORK(no_line_work, no_line_again);

/* To queue work takes locks of the scheduler's, under which somebody may be waiting for the timekeeper's. */
static void host_clock_irq(struct irq_work *work)
{
	schedule_work(&host_clock_work);
}

static DEFINE_IRQ_WORK(host_clock_irq_work, host_clock_irq);

/* Called with the timekeeper's locks held, at every tick. */
static int timekeeper_updated(struct notifier_block *nb, unsigned long was_set, void *priv)
{
	const struct timekeeper *tk = priv;
	unsigned int state = check_tsc_unstable() ? HOST_UNSTABLE : 0;

	if (tk->tkr_mono.clock->vdso_clock_mode == VDSO_CLOCKMODE_TSC)
		state |= HOST_USES_TSC;
	if (state != READ_ONCE(host_state) || tsc_khz != host_khz) {
		WRITE_ONCE(host_state, state);
		host_khz = tsc_khz;
		irq_work_queue(&host_clock_irq_work);
	}
	return 0;
}

static struct notifier_block timekeeper_nb = { .notifier_call = timekeeper_updated };

/* A CPU that joins may be the first whose TSC differs: the others' is what tells how far it has come. */
void keel_clock_cpu_online(void)
{
	if (!check_tsc_unstable())
		return;
	mutex_lock(&tsc_anchor_lock);
	if (!tsc_anchor.ns) {
		smp_call_function_single(cpumask_first(cpu_active_mask), set_anchor, NULL, 1);
		WRITE_ONCE(keel_tsc_wary, true);
	}
	mutex_unlock(&tsc_anchor_lock);
	WRITE_ONCE(tsc_epoch, tsc_epoch + 1);
}

/*
 * Around suspends.  The TSC may go on or start again; what it lacks is added, so that guests' go on.  It is not known here yet
 * how long the host slept.  vCPUs notice when they are loaded, before they run.
 */
void keel_clock_suspend(void)
{
	tsc_suspended = rdtsc();
}

static void guests_stood(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	keel_for_each_vcpu(vcpu, i, vm)
		if (READ_ONCE(vcpu->clock.time_msr) & CLOCK_ENABLED)
			WRITE_ONCE(vcpu->clock.stopped, true);
}

void keel_clock_resume(void)
{
	struct keel_vm *vm;
	u64 now = rdtsc();

	if ((s64)(now - tsc_suspended) < 0)
		WRITE_ONCE(tsc_lost, tsc_lost + tsc_suspended - now);
	WRITE_ONCE(tsc_epoch, tsc_epoch + 1);
	WRITE_ONCE(keel_tsc_wary, true);
	/* Before threads go on: what they were told of on the way to sleep may have been used up.  As in hw_resume(). */
	list_for_each_entry(vm, &keel_vms, list)
		guests_stood(vm);
}

/*
 * Guests are told that they stood, or their watchdogs would think that a task had run all the while: before, where nothing is
 * suspended but threads, and after that, when the host knows how long it was.
 */
static int host_sleeps_or_wakes(struct notifier_block *nb, unsigned long action, void *data)
{
	struct keel_vm *vm;

	if (action != PM_SUSPEND_PREPARE && action != PM_HIBERNATION_PREPARE && action != PM_POST_SUSPEND &&
	    action != PM_POST_HIBERNATION)
		return NOTIFY_DONE;
	mutex_lock(&keel_hw_lock);
	list_for_each_entry(vm, &keel_vms, list) {
		guests_stood(vm);
		clock_invalidate(vm);
	}
	mutex_unlock(&keel_hw_lock);
	return NOTIFY_DONE;
}

static struct notifier_block host_sleeps_nb = { .notifier_call = host_sleeps_or_wakes };

void keel_clock_setup(void)
{
	if (check_tsc_unstable()) {
		set_anchor(NULL);
		WRITE_ONCE(keel_tsc_wary, true);
	}
	pvclock_gtod_register_notifier(&timekeeper_nb);
	register_pm_notifier(&host_sleeps_nb);
}

void keel_clock_exit(void)
{
	unregister_pm_notifier(&host_sleeps_nb);
	pvclock_gtod_unregister_notifier(&timekeeper_nb);
	irq_work_sync(&host_clock_irq_work);
	cancel_work_sync(&host_clock_work);
	cancel_delayed_work_sync(&no_line_work);
}

struct host_time {
	u64 tsc;
	u64 ns;			/* raw, time asleep included */
	u64 real;
	bool exact;		/* tsc and ns are from the same instant */
};

static struct host_time host_now(void)
{
	s64 asleep = ktime_to_ns(ktime_mono_to_any(0, TK_OFFS_BOOT));
	struct keel_time snap;
	struct host_time now;
	u64 before, tsc, best = U64_MAX;
	bool exact, again = false;
	unsigned long flags;

	local_irq_save(flags);
	do {
		before = rdtsc_ordered();
		keel_time_snapshot(&snap);
		exact = READ_ONCE(host_state) & HOST_USES_TSC;
		tsc = exact ? snap.cycles : rdtsc_ordered();
		if (exact || shortest(tsc - before, &best, &again)) {
			now.tsc = tsc;
			now.ns = ktime_to_ns(snap.raw);
			now.real = ktime_to_ns(snap.real);
			now.exact = exact;
		}
	} while (!exact && again);
	now.tsc += READ_ONCE(tsc_lost);
	local_irq_restore(flags);
	now.ns += asleep;
	return now;
}

/* ------------------------------------------------------------------ the guest's TSC */

static u64 scale(u64 ratio, u64 tsc)
{
	return ratio ? mul_u64_u64_shr(tsc, ratio, keel_hw.tsc_frac_bits) : tsc;
}

u64 keel_guest_tsc_at(struct keel_vcpu *vcpu, u64 host_tsc)
{
	return scale(vcpu->clock.ratio, host_tsc) + vcpu->clock.tsc_offset;
}

u64 keel_guest_tsc(struct keel_vcpu *vcpu)
{
	u64 tsc;

	preempt_disable();	/* the offset may be for this CPU alone */
	tsc = keel_guest_tsc_at(vcpu, host_tsc());
	preempt_enable();
	return tsc;
}

/* With CPUs' TSCs different this one's may not be what the offset is for. */
u64 keel_guest_tsc_timer(struct keel_vcpu *vcpu, u64 expected)
{
	return READ_ONCE(keel_tsc_wary) && check_tsc_unstable() ? expected : keel_guest_tsc(vcpu);
}

/* A result of more than 64 bits is a divide error to the kernel's own function, and as much as there is here. */
static u64 mul_div(u64 a, u32 mul, u32 div)
{
	return mul_u64_u64_shr(a, mul, 64) < div ? mul_u64_u32_div(a, mul, div) : U64_MAX;
}

/* The one place where a multiplier is made: for a TSC that is @ratio times as fast as the host's. */
static struct keel_rate rate_of(u64 ratio)
{
	const u64 one = BIT(20);	/* hertz have a fraction, for ratios do */
	struct keel_rate r = {};
	u64 hz = scale(ratio, tsc_khz * 1000ULL * one);

	for (; hz > 2 * NSEC_PER_SEC * one; r.shift--)
		hz >>= 1;
	for (; hz <= NSEC_PER_SEC * one; r.shift++)
		hz <<= 1;
	r.mult = mul_u64_u64_div_u64((u64)NSEC_PER_SEC << 32, one, hz);
	return r;
}

/* As guests compute it, but for what has more than 64 bits. */
static u64 cycles_to_ns(struct keel_rate r, u64 cycles)
{
	if (r.shift > 0 && cycles >> (64 - r.shift))
		return U64_MAX;
	return mul_u64_u32_shr(r.shift < 0 ? cycles >> -r.shift : cycles << r.shift, r.mult, 32);
}

u64 keel_guest_tsc_to_ns(struct keel_vcpu *vcpu, u64 cycles)
{
	return cycles_to_ns(vcpu->clock.rate, cycles);
}

/* By how much the guest's TSC goes on in that time. */
static u64 ns_to_cycles(const struct keel_vcpu_clock *c, u64 ns)
{
	return scale(c->ratio, mul_div(ns, tsc_khz, 1000000));
}

static void tell_tsc(struct keel_vcpu *vcpu)
{
	struct keel_vcpu_clock *c = &vcpu->clock;

	keel_call(set_tsc, vcpu, c->tsc_offset + scale(c->ratio, READ_ONCE(tsc_lost)), c->ratio ?: 1ULL << keel_hw.tsc_frac_bits);
}

static void load_tsc(struct keel_vcpu *vcpu)
{
	tell_tsc(vcpu);
	if (vcpu->apic)
		irq_lapic_timer_sync(vcpu);
}

/* The line that the guest's TSC is to follow from CPU to CPU begins here.  Preemption off. */
static void set_base(struct keel_vcpu *vcpu)
{
	struct keel_vcpu_clock *c = &vcpu->clock;
	u64 tsc;

	c->base_ns = 0;
	if (!READ_ONCE(keel_tsc_wary) || !tscs_differ())
		return;
	c->base_ns = raw_and_tsc(&tsc);
	c->base_tsc = c->left_tsc = keel_guest_tsc_at(vcpu, tsc);
	c->left_cpu = smp_processor_id();
}

void keel_clock_put_wary(struct keel_vcpu *vcpu)
{
	struct keel_vcpu_clock *c = &vcpu->clock;

	if (!tscs_differ())
		return;
	c->left_tsc = keel_guest_tsc(vcpu);
	c->left_cpu = smp_processor_id();
}

/* To this CPU from another, whose TSC was something else. */
static void move_tsc(struct keel_vcpu *vcpu)
{
	struct keel_vcpu_clock *c = &vcpu->clock;
	u64 now, tsc, ns = raw_and_tsc(&now);

	if (!c->base_ns) {
		c->base_tsc = keel_guest_tsc_at(vcpu, tsc_anchor.tsc);
		c->base_ns = tsc_anchor.ns;
	}
	tsc = c->base_tsc + ns_to_cycles(c, ns - c->base_ns);
	if (c->left_cpu >= 0 && (s64)(tsc - c->left_tsc) < 0)
		tsc = c->left_tsc;
	WRITE_ONCE(c->tsc_offset, tsc - scale(c->ratio, now));
	tell_tsc(vcpu);
}

/* The thread may be in the midst of its timer: that, and a page made on another of such CPUs, are seen to before it runs. */
void keel_clock_load_wary(struct keel_vcpu *vcpu, int cpu)
{
	struct keel_vcpu_clock *c = &vcpu->clock;
	u32 epoch = READ_ONCE(tsc_epoch);
	bool differ = tscs_differ(), moved = differ && c->left_cpu != cpu;

	if (!moved && c->epoch == epoch)
		return;
	if (differ)
		move_tsc(vcpu);
	else
		tell_tsc(vcpu);
	c->epoch = epoch;
	keel_request(KEEL_REQ_CLOCK, vcpu);
}

/* Preemption off: where CPUs' TSCs differ an offset is for one of them. */
static void set_offset(struct keel_vcpu *vcpu, u64 offset)
{
	lockdep_assert_preemption_disabled();
	if (offset == vcpu->clock.tsc_offset)
		return;
	WRITE_ONCE(vcpu->clock.tsc_offset, offset);
	set_base(vcpu);
	load_tsc(vcpu);
	clock_invalidate(vcpu->vm);
}

static void move_offset(struct keel_vcpu *vcpu, u64 diff)
{
	preempt_disable();
	set_offset(vcpu, vcpu->clock.tsc_offset + diff);
	preempt_enable();
}

/* What is written from now on is in step with this, or not. */
static void set_mark(struct keel_clock *vc, const struct keel_vcpu_clock *c, const struct host_time *now, u64 offset, u8 by)
{
	lockdep_assert_held(&vc->lock);
	vc->written = max(vc->written, by);
	vc->last_tsc = scale(c->ratio, now->tsc) + offset;
	vc->last_ns = now->ns;
	vc->last_offset = offset;
	vc->last_ratio = c->ratio;
}

/*
 * The VMM writes a TSC.  VMMs set one vCPU after the other to "the same" value, so a write near what the last
 * one has become by now, or of 0 (the reset value), means: in step with the others.  The first that a VMM writes is near
 * nothing: with what vCPUs are made it has nothing to do, in a guest that is restored young.  In step it can only be at
 * their rate; a vCPU that is @made among others of another rate is about to be given it, and leaves the mark to them.
 */
static void write_tsc_in_step(struct keel_vcpu *vcpu, u64 val, bool made)
{
	struct keel_clock *vc = &vcpu->vm->clock;
	struct keel_vcpu_clock *c = &vcpu->clock;
	struct host_time now;
	bool same_rate;
	u64 offset;

	preempt_disable();	/* for set_offset() */
	spin_lock(&vc->lock);
	now = host_now();	/* not before what another vCPU has left here */
	offset = val - scale(c->ratio, now.tsc);
	same_rate = vc->written && vc->last_ratio == c->ratio;
	if (same_rate) {
		bool unstable = check_tsc_unstable();
		u64 expected = unstable ? vc->last_tsc + ns_to_cycles(c, now.ns - vc->last_ns) :
					  scale(c->ratio, now.tsc) + vc->last_offset;
		u64 second = ns_to_cycles(c, NSEC_PER_SEC);

		if (!val || (vc->written == KEEL_TSC_BY_VMM && val < expected + second && val + second > expected))
			offset = unstable ? expected - scale(c->ratio, now.tsc) : vc->last_offset;
	}
	if (same_rate || !vc->written || !made)
		set_mark(vc, c, &now, offset, made ? KEEL_TSC_MADE : KEEL_TSC_BY_VMM);
	spin_unlock(&vc->lock);
	set_offset(vcpu, offset);
	preempt_enable();
}

/* Not one of those below: what they need would cost more than this does. */
void keel_clock_set_tsc_adjust(struct keel_vcpu *vcpu, u64 val, bool host)
{
	u64 diff = val - vcpu->msrs.tsc_adjust;

	if (!diff)
		return;
	vcpu->msrs.tsc_adjust = val;
	if (!host)	/* the VMM restores the TSC itself apart from this */
		move_offset(vcpu, diff);
}

/* 0: such a guest's TSC is the host's. */
static int ratio_for(u32 khz, u64 *ratio)
{
	u64 tolerance = (u64)tsc_khz * TSC_TOLERANCE_PPM / 1000000;

	*ratio = 0;
	if (khz >= tsc_khz - tolerance && khz <= tsc_khz + tolerance)
		return 0;
	if (!keel_hw.tsc_scaling)
		return -EINVAL;
	*ratio = mul_div(1ULL << keel_hw.tsc_frac_bits, khz, tsc_khz);
	return *ratio && *ratio < keel_hw.max_tsc_ratio ? 0 : -EINVAL;
}

static int set_khz(struct keel_vcpu *vcpu, u32 khz)
{
	struct keel_vcpu_clock *c = &vcpu->clock;
	u64 ratio;

	if (ratio_for(khz, &ratio))
		return -EINVAL;
	c->ratio = ratio;
	c->rate = rate_of(ratio);
	c->tsc_khz = khz;
	preempt_disable();
	set_base(vcpu);
	load_tsc(vcpu);
	preempt_enable();
	clock_invalidate(vcpu->vm);
	return 0;
}

/* ------------------------------------------------------------------ the master pair */

/* All vCPUs' TSCs are one, @ratio times as fast as the host's and @offset ahead of it. */
static bool tscs_agree(struct keel_vm *vm, u64 *ratio, u64 *offset)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	*ratio = *offset = 0;
	keel_for_each_vcpu(vcpu, i, vm) {
		if (!i) {
			*ratio = READ_ONCE(vcpu->clock.ratio);
			*offset = READ_ONCE(vcpu->clock.tsc_offset);
		}
		if (READ_ONCE(vcpu->clock.tsc_offset) != *offset || READ_ONCE(vcpu->clock.ratio) != *ratio)
			return false;
	}
	return true;
}

/*
 * The guest's TSC was zero since the line began: a VMM that resets a machine sets it back.  Guests that take what is before
 * their TSC's zero for what is in its future would see a clock that stands, or leaps.
 */
static bool line_too_old(const struct keel_clock *vc, const struct host_time *now, u64 offset)
{
	u64 tsc = scale(vc->ratio, now->tsc);

	return tsc + offset < tsc - scale(vc->ratio, vc->master_tsc);
}

/* Where the line is at a TSC of the host's, as guests compute it. */
static u64 line_at(const struct keel_clock *vc, u64 tsc)
{
	/* CPUs' TSCs may be a little apart: this one may be behind. */
	if ((s64)(tsc - vc->master_tsc) < 0)
		return vc->master_ns;
	return vc->master_ns + cycles_to_ns(vc->rate, scale(vc->ratio, tsc) - scale(vc->ratio, vc->master_tsc));
}

/* Hereafter it is the host's time and an offset, or a line that begins with it.  clock.lock held. */
static void end_line(struct keel_clock *vc, const struct host_time *now)
{
	u64 raw = now->ns + vc->offset, line, drift = NSEC_PER_SEC;

	if (!vc->stable)
		return;
	vc->stable = false;
	line = line_at(vc, now->tsc);
	/*
	 * The host's raw time has a multiplier of its own, so the two drift apart: the clock is where guests have seen it.
	 * But not what a sleeping host's TSC missed, nor what one adds that has gone wrong, which is more than they
	 * drift: a millionth at most, for the multipliers have 22 bits at least.
	 */
	if (line > vc->master_ns)
		drift = max(drift, (line - vc->master_ns) >> 20);
	if (vc->epoch != READ_ONCE(tsc_epoch) ? line > raw : line - raw + drift < 2 * drift)
		vc->offset += line - raw;
}

static void begin_line(struct keel_clock *vc, const struct host_time *now, u64 ratio)
{
	vc->stable = true;
	vc->master_tsc = now->tsc;
	vc->master_ns = now->ns + vc->offset;
	vc->ratio = ratio;
	vc->rate = rate_of(ratio);
}

/* Works the VM's clock out again if something changed.  clock.lock held. */
static void refresh(struct keel_vm *vm)
{
	struct keel_clock *vc = &vm->clock;
	u32 epoch = READ_ONCE(tsc_epoch);
	struct keel_rate rate;
	struct host_time now;
	u64 ratio, offset;
	bool stable;

	lockdep_assert_held(&vc->lock);
	if (vc->valid && vc->epoch == epoch)
		return;
	now = host_now();
	stable = tscs_agree(vm, &ratio, &offset) && now.exact && !check_tsc_unstable();
	rate = rate_of(ratio);
	if (!stable || vc->epoch != epoch || vc->rate.mult != rate.mult || vc->rate.shift != rate.shift || vc->ratio != ratio ||
	    line_too_old(vc, &now, offset))
		end_line(vc, &now);
	vc->epoch = epoch;
	if (stable && !vc->stable)
		begin_line(vc, &now, ratio);
	vc->valid = true;
}

/* kvmclock at @now. */
static u64 clock_at(const struct keel_clock *vc, const struct host_time *now)
{
	return vc->stable ? line_at(vc, now->tsc) : now->ns + vc->offset;
}

u64 keel_clock_ns(struct keel_vm *vm)
{
	struct host_time now;
	u64 ns;

	spin_lock(&vm->clock.lock);
	refresh(vm);
	now = host_now();
	ns = clock_at(&vm->clock, &now);
	spin_unlock(&vm->clock.lock);
	return ns;
}

bool keel_clock_line(struct keel_vcpu *vcpu, u64 *tsc, u64 *ns, struct keel_rate *rate)
{
	struct keel_clock *vc = &vcpu->vm->clock;
	bool stable;

	spin_lock(&vc->lock);
	refresh(vcpu->vm);
	stable = vc->stable;
	*tsc = keel_guest_tsc_at(vcpu, vc->master_tsc);
	*ns = vc->master_ns;
	*rate = vc->rate;
	spin_unlock(&vc->lock);
	return stable;
}

/* ------------------------------------------------------------------ clock pages */

static int write_page(struct keel_vcpu *vcpu, u64 gpa, struct pvclock_vcpu_time_info *page)
{
	int err;

	/* Odd while it changes.  Other vCPUs may read it too: the guest's vDSO does. */
	page->version |= 1;
	err = keel_vcpu_write(vcpu, gpa, &page->version, sizeof(page->version));
	if (err)
		return err;
	smp_wmb();	/* readers on other vCPUs: version before and after content */
	err = keel_vcpu_write(vcpu, gpa, page, sizeof(*page));
	if (err)
		return err;
	smp_wmb();	/* readers on other vCPUs: version before and after content */
	page->version++;
	return keel_vcpu_write(vcpu, gpa, &page->version, sizeof(page->version));
}

void keel_clock_update(struct keel_vcpu *vcpu)
{
	struct keel_clock *vc = &vcpu->vm->clock;
	struct keel_vcpu_clock *c = &vcpu->clock;
	struct pvclock_vcpu_time_info page;
	u64 gpa = c->time_msr & ~CLOCK_ENABLED, tsc, ns;
	u8 flags = 0;

	c->rate = rate_of(c->ratio);
	irq_lapic_timer_sync(vcpu);	/* a vCPU that moved may be on another TSC */
	/* In SMM its address is another page's, the firmware's perhaps: keel_smm_change() asks again (and so in pv/). */
	if (!(c->time_msr & CLOCK_ENABLED) || vcpu->smm)
		return;
	/* A page that is not there is the guest's fault and nobody else's. */
	if (keel_vcpu_read(vcpu, gpa, &page, sizeof(page)))
		return;
	spin_lock(&vc->lock);
	refresh(vcpu->vm);
	if (vc->stable) {
		tsc = vc->master_tsc;
		ns = vc->master_ns;
		flags = PVCLOCK_TSC_STABLE_BIT;
	} else {
		struct host_time now = host_now();

		tsc = now.tsc;
		ns = now.ns + vc->offset;
		schedule_delayed_work(&no_line_work, NO_LINE_AGAIN);
	}
	spin_unlock(&vc->lock);
	page.tsc_timestamp = keel_guest_tsc_at(vcpu, tsc);
	page.system_time = ns;
	page.tsc_to_system_mul = c->rate.mult;
	page.tsc_shift = c->rate.shift;
	/* The guest clears "stopped" once it took note. */
	page.flags = flags | (page.flags & PVCLOCK_GUEST_STOPPED);
	/* Whoever sets it asks for an update after that. */
	if (READ_ONCE(c->stopped)) {
		page.flags |= PVCLOCK_GUEST_STOPPED;
		WRITE_ONCE(c->stopped, false);
	}
	write_page(vcpu, gpa, &page);
}

/* Wall-clock time when kvmclock was zero. */
static void write_wall_clock(struct keel_vcpu *vcpu, u64 gpa)
{
	struct keel_clock *vc = &vcpu->vm->clock;
	struct pvclock_wall_clock wall;
	struct host_time now;
	u64 boot;

	if (keel_vcpu_read(vcpu, gpa, &wall.version, sizeof(wall.version)))
		return;
	spin_lock(&vc->lock);
	refresh(vcpu->vm);
	now = host_now();
	boot = now.real - clock_at(vc, &now);
	spin_unlock(&vc->lock);
	wall.sec = div_u64_rem(boot, NSEC_PER_SEC, &wall.nsec);
	wall.version |= 1;
	if (keel_vcpu_write(vcpu, gpa, &wall, sizeof(wall)))
		return;
	smp_wmb();	/* readers on other vCPUs: version before and after content */
	wall.version++;
	keel_vcpu_write(vcpu, gpa, &wall.version, sizeof(wall.version));
}

void keel_clock_watch(struct keel_vm *vm, bool on)
{
	spin_lock(&vm->clock.lock);
	vm->clock.enabled += on ? 1 : -1;
	spin_unlock(&vm->clock.lock);
}

int keel_clock_pair(struct keel_vcpu *vcpu, u64 gpa)
{
	struct kvm_clock_pairing pair = {};
	struct host_time now = host_now();
	u32 nsec;

	if (!now.exact)
		return -EOPNOTSUPP;
	pair.sec = div_u64_rem(now.real, NSEC_PER_SEC, &nsec);
	pair.nsec = nsec;
	pair.tsc = keel_guest_tsc_at(vcpu, now.tsc);
	return keel_vcpu_write(vcpu, gpa, &pair, sizeof(pair));
}

static void put_clock_page(struct keel_vcpu *vcpu, u64 val)
{
	bool was = vcpu->clock.time_msr & CLOCK_ENABLED, is = val & CLOCK_ENABLED;

	vcpu->clock.time_msr = val;
	if (was != is)
		keel_clock_watch(vcpu->vm, is);
}

static void set_clock_page(struct keel_vcpu *vcpu, u64 val)
{
	put_clock_page(vcpu, val);
	if (val & CLOCK_ENABLED)
		keel_request(KEEL_REQ_CLOCK, vcpu);
}

/* ------------------------------------------------------------------ MSRs */

int keel_clock_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val)
{
	switch (msr) {
	case MSR_IA32_TSC:
		*val = keel_guest_tsc(vcpu);
		return 0;
	case MSR_IA32_TSC_ADJUST:
		*val = vcpu->msrs.tsc_adjust;
		return 0;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		*val = vcpu->clock.time_msr;
		return 0;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		*val = READ_ONCE(vcpu->vm->clock.wall_msr);
		return 0;
	}
	return 1;
}

int keel_clock_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	u64 diff;

	switch (msr) {
	case MSR_IA32_TSC:
		if (host) {
			write_tsc_in_step(vcpu, val, false);
			return 0;
		}
		/* The guest's own write moves TSC_ADJUST along, SDM vol. 3 17.17.3. */
		diff = val - keel_guest_tsc(vcpu);
		vcpu->msrs.tsc_adjust += diff;
		move_offset(vcpu, diff);
		return 0;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		set_clock_page(vcpu, val);
		return 0;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		WRITE_ONCE(vcpu->vm->clock.wall_msr, val);
		/* The VMM restores what the guest once wrote; the page then has its content already. */
		if (!host && val)
			write_wall_clock(vcpu, val);
		return 0;
	}
	return 1;
}

/* ------------------------------------------------------------------ life */

void keel_clock_vm_init(struct keel_vm *vm)
{
	struct host_time now = host_now();

	spin_lock_init(&vm->clock.lock);
	vm->clock.offset = -(s64)now.ns;
	vm->clock.axis = (struct keel_axis){ .tsc = now.tsc, .ns = now.ns, .mono = ktime_get() };
	vm->clock.default_khz = tsc_khz;
}

void keel_clock_vcpu_init(struct keel_vcpu *vcpu)
{
	struct keel_vcpu_clock *c = &vcpu->clock;

	if (set_khz(vcpu, READ_ONCE(vcpu->vm->clock.default_khz)))
		set_khz(vcpu, tsc_khz);
	c->tsc_offset = 0;
	c->left_cpu = -1;
	c->epoch = READ_ONCE(tsc_epoch);
	write_tsc_in_step(vcpu, 0, true);
	load_tsc(vcpu);
}

void keel_clock_vcpu_joins(struct keel_vcpu *vcpu)
{
	clock_invalidate(vcpu->vm);
}

void keel_clock_reset(struct keel_vcpu *vcpu)
{
	set_clock_page(vcpu, 0);
	vcpu->clock.stopped = false;
}

/* ------------------------------------------------------------------ ioctls */

int keel_clock_flags(void)
{
	return CLOCK_FLAGS;
}

VM_IOCTL(keel_get_clock)
{
	struct keel_clock *vc = &vm->clock;
	struct kvm_clock_data *out = buf;
	struct host_time now;

	memset(out, 0, sizeof(*out));
	spin_lock(&vc->lock);
	refresh(vm);
	now = host_now();
	out->clock = clock_at(vc, &now);
	if (now.exact) {
		out->flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
		out->realtime = now.real;
		out->host_tsc = now.tsc - READ_ONCE(tsc_lost);
		if (vc->stable)
			out->flags |= KVM_CLOCK_TSC_STABLE;
	}
	spin_unlock(&vc->lock);
	return 0;
}

VM_IOCTL(keel_set_clock)
{
	struct keel_clock *vc = &vm->clock;
	const struct kvm_clock_data *in = buf;
	struct host_time now;
	u64 clock = in->clock;

	if (in->flags & ~CLOCK_FLAGS)
		return -EINVAL;
	spin_lock(&vc->lock);
	refresh(vm);
	now = host_now();
	/* The time the VM was on its way counts; a wall clock that went back does not. */
	if ((in->flags & KVM_CLOCK_REALTIME) && now.real > in->realtime)
		clock += now.real - in->realtime;
	vc->offset = clock - now.ns;
	/* From that instant, not from when somebody looks. */
	if (vc->stable && now.exact)
		begin_line(vc, &now, vc->ratio);
	else
		vc->stable = false;
	spin_unlock(&vc->lock);
	clock_invalidate(vm);
	return 0;
}

VM_IOCTL(keel_vm_set_tsc_khz)
{
	u32 khz = arg ?: tsc_khz;
	u64 ratio;

	if (arg > U32_MAX || vm->nr_vcpus)
		return -EINVAL;
	if (ratio_for(khz, &ratio))
		return -EINVAL;
	WRITE_ONCE(vm->clock.default_khz, khz);
	return 0;
}

VM_IOCTL(keel_vm_get_tsc_khz)
{
	return READ_ONCE(vm->clock.default_khz);
}

VCPU_IOCTL(keel_set_tsc_khz)
{
	if (arg > U32_MAX)
		return -EINVAL;
	return set_khz(vcpu, arg ?: tsc_khz);
}

VCPU_IOCTL(keel_get_tsc_khz)
{
	return vcpu->clock.tsc_khz;
}

VCPU_IOCTL(keel_kvmclock_ctrl)
{
	if (!(vcpu->clock.time_msr & CLOCK_ENABLED))
		return -EINVAL;
	vcpu->clock.stopped = true;
	keel_request(KEEL_REQ_CLOCK, vcpu);
	return 0;
}

/* ------------------------------------------------------------------ the state (snap/state.c) */

/*
 * All that is a point in time is told on the VM's own axes.  A state that is set moves them, so that the points are where
 * they were as seen from now; what is relative to one says the same before and after.
 */
void keel_clock_now(struct keel_vm *vm, struct keel_state_clock *s)
{
	struct host_time now = host_now();

	s->tsc = now.tsc - vm->clock.axis.tsc;
	s->raw_ns = now.ns - vm->clock.axis.ns;
	s->mono_ns = ktime_get() - vm->clock.axis.mono;
}

u64 keel_clock_mono(struct keel_vm *vm)
{
	return vm->clock.axis.mono;
}

/* Of a timer that is started then; whatever a VMM says, the kernel can reckon with it. */
ktime_t keel_clock_expires(struct keel_vm *vm, u64 ns)
{
	return clamp_t(s64, ns + vm->clock.axis.mono, 0, KTIME_MAX / 2);
}

VM_IOCTL(keel_clock_get_state)
{
	struct keel_clock *vc = &vm->clock;
	struct keel_state_clock *s = buf;

	spin_lock(&vc->lock);
	keel_clock_now(vm, s);
	s->offset = vc->offset + vc->axis.ns;
	s->stable = vc->stable;
	if (vc->stable) {
		s->line_tsc = vc->master_tsc - vc->axis.tsc;
		s->line_ns = vc->master_ns;
		s->line_ratio = vc->ratio;
		s->mult = vc->rate.mult;
		s->shift = vc->rate.shift;
	}
	s->wall_msr = vc->wall_msr;
	s->written = vc->written;
	if (vc->written) {
		s->written_tsc = vc->last_tsc;
		s->written_ns = vc->last_ns - vc->axis.ns;
		s->written_offset = vc->last_offset + scale(vc->last_ratio, vc->axis.tsc);
		s->written_ratio = vc->last_ratio;
	}
	spin_unlock(&vc->lock);
	return 0;
}

/* A rate that a multiplier can be made for: one that could be asked for. */
static bool ratio_valid(u64 ratio)
{
	u64 khz = scale(ratio, tsc_khz);

	return !ratio || (keel_hw.tsc_scaling && ratio < keel_hw.max_tsc_ratio && khz && khz <= U32_MAX);
}

VM_IOCTL(keel_clock_set_state)
{
	struct keel_clock *vc = &vm->clock;
	const struct keel_state_clock *s = buf;
	struct keel_vcpu *vcpu;
	struct host_time now;
	struct keel_rate rate;
	unsigned int i;

	if (s->stable > 1 || s->written > KEEL_TSC_BY_VMM || s->reserved || !ratio_valid(s->line_ratio))
		return -EINVAL;
	rate = rate_of(s->line_ratio);
	/* What is due from here on is what the vCPUs' states say, and what this host's clock makes of it. */
	keel_for_each_vcpu(vcpu, i, vm)
		clear_bit(KEEL_REQ_CLOCK, &vcpu->requests);
	spin_lock(&vc->lock);
	now = host_now();
	vc->axis = (struct keel_axis){ .tsc = now.tsc - s->tsc, .ns = now.ns - s->raw_ns,
				       .mono = ktime_get() - s->mono_ns, .moment = s->tsc };
	vc->offset = s->offset - vc->axis.ns;
	vc->epoch = READ_ONCE(tsc_epoch);
	vc->stable = s->stable;
	vc->master_tsc = s->line_tsc + vc->axis.tsc;
	vc->master_ns = s->line_ns;
	vc->ratio = s->line_ratio;
	vc->rate = rate;
	WRITE_ONCE(vc->wall_msr, s->wall_msr);
	vc->written = s->written;
	vc->last_tsc = s->written_tsc;
	vc->last_ns = s->written_ns + vc->axis.ns;
	vc->last_offset = s->written_offset - scale(s->written_ratio, vc->axis.tsc);
	vc->last_ratio = s->written_ratio;
	/* The pages in guest memory are of the same age, and say the same, but on a host whose clock is another. */
	vc->pages_old = !s->stable || !now.exact || check_tsc_unstable() || rate.mult != s->mult || rate.shift != s->shift;
	vc->valid = false;
	spin_unlock(&vc->lock);
	return 0;
}

VCPU_IOCTL(keel_tsc_get_state)
{
	const struct keel_vcpu_clock *c = &vcpu->clock;
	struct keel_state_tsc *s = buf;

	s->offset = c->tsc_offset + scale(c->ratio, vcpu->vm->clock.axis.tsc);
	s->ratio = c->ratio;
	s->time_msr = c->time_msr;
	s->khz = c->tsc_khz;
	s->stopped = READ_ONCE(c->stopped);
	/* Without a line they are due in any case, wherever this is set. */
	s->page_due = vcpu->vm->clock.stable && test_bit(KEEL_REQ_CLOCK, &vcpu->requests);
	return 0;
}

/* The VM's clock is set already. */
VCPU_IOCTL(keel_tsc_set_state)
{
	const struct keel_axis *axis = &vcpu->vm->clock.axis;
	struct keel_vcpu_clock *c = &vcpu->clock;
	const struct keel_state_tsc *s = buf;
	u64 ratio = c->ratio;

	if (s->stopped > 1 || s->page_due > 1 || s->reserved[0] || s->reserved[1] ||
	    (s->khz != c->tsc_khz && ratio_for(s->khz, &ratio)))
		return -EINVAL;
	preempt_disable();
	if (ratio != c->ratio)
		c->rate = rate_of(ratio);
	c->ratio = ratio;
	c->tsc_khz = s->khz;
	/* On a host with another TSC: what the guest's was at that moment is what it is now. */
	WRITE_ONCE(c->tsc_offset, scale(s->ratio, axis->moment) - scale(ratio, axis->moment) +
				  s->offset - scale(ratio, axis->tsc));
	set_base(vcpu);
	tell_tsc(vcpu);
	preempt_enable();
	c->stopped = s->stopped;
	put_clock_page(vcpu, s->time_msr);
	if (s->page_due || (s->time_msr & CLOCK_ENABLED && vcpu->vm->clock.pages_old))
		keel_request(KEEL_REQ_CLOCK, vcpu);
	return 0;
}

/* ------------------------------------------------------------------ device attributes */

static bool is_tsc_offset(const struct kvm_device_attr *attr)
{
	return attr->group == KVM_VCPU_TSC_CTRL && attr->attr == KVM_VCPU_TSC_OFFSET;
}

VCPU_IOCTL(keel_vcpu_has_attr)
{
	return is_tsc_offset(buf) ? 0 : -ENXIO;
}

VCPU_IOCTL(keel_vcpu_get_attr)
{
	const struct kvm_device_attr *attr = buf;

	if (!is_tsc_offset(attr))
		return -ENXIO;
	return put_user(vcpu->clock.tsc_offset + scale(vcpu->clock.ratio, READ_ONCE(tsc_lost)),
			(u64 __user *)(unsigned long)attr->addr);
}

VCPU_IOCTL(keel_vcpu_set_attr)
{
	const struct kvm_device_attr *attr = buf;
	struct keel_clock *vc = &vcpu->vm->clock;
	struct host_time now;
	u64 offset;

	if (!is_tsc_offset(attr))
		return -ENXIO;
	if (get_user(offset, (u64 __user *)(unsigned long)attr->addr))
		return -EFAULT;
	offset -= scale(vcpu->clock.ratio, READ_ONCE(tsc_lost));
	preempt_disable();
	spin_lock(&vc->lock);
	now = host_now();
	set_mark(vc, &vcpu->clock, &now, offset, KEEL_TSC_BY_VMM);
	spin_unlock(&vc->lock);
	set_offset(vcpu, offset);
	preempt_enable();
	return 0;
}
