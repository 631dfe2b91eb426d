// SPDX-License-Identifier: GPL-2.0-only
/*
 * pit.c - the 8254 interval timer: three counters, the first wired to GSI 0, and the part of port 0x61 that
 * belongs to it (8254 data sheet).
 *
 * Counts are never kept running: they follow from the time a count was loaded.  Only counter 0 has a timer
 * behind it, for its interrupt.  BCD counting is noted and reported but counts are binary, as software that
 * uses it is not known.
 *
 * A guest that misses ticks would lose time, so by default ticks that come before the last was acknowledged
 * wait, and one goes in with each acknowledgement (KVM_REINJECT_CONTROL).
 *
 * pit->lock, raw and with IRQs off, guards all.  The timer is started and cancelled under it, so the callback,
 * which takes it too, checks whether it is still wanted.  Interrupts are raised without it.
 */
#include <linux/math64.h>
#include <linux/slab.h>
#include <linux/timex.h>
#include <linux/uaccess.h>
#include "internal.h"

/* ticks = ns * TICK_MULT >> TICK_SHIFT */
#define TICK_SHIFT	41
#define TICK_MULT	((u32)(((u64)PIT_TICK_RATE << TICK_SHIFT) / NSEC_PER_SEC))

/* As with the LAPIC's timer: a bound on the interrupts a guest can make the host take. */
#define MIN_PERIOD_NS	(200 * NSEC_PER_USEC)
#define MAX_PENDING	65535
/* An acknowledgement is lost if the LAPIC is reset or off: after so many ticks the one that waits for it goes in again. */
#define STUCK_TICKS	64

enum pit_access { ACCESS_LSB = 1, ACCESS_MSB, ACCESS_BOTH, ACCESS_SECOND /* of both: the high byte is next */ };

struct irq_pit {
	struct irq_device device;
	struct irq_bus_dev dev, speaker;
	struct irq_acker acker;
	raw_spinlock_t lock;
	struct kvm_pit_channel_state ch[3];
	u32 flags;

	struct hrtimer timer;
	u64 period;		/* ns; 0: counter 0 shoots once */
	bool armed;
	bool stopped;		/* the VM is going */
	bool reinject;
	bool irq_acked;		/* the last tick was acknowledged */
	u32 pending;		/* ticks that wait for that */
	u32 unanswered;		/* times the timer fired since one went in that was not */
};

/* ------------------------------------------------------------- counting */
static u64 ticks(const struct kvm_pit_channel_state *ch)
{
	s64 ns = ktime_get_ns() - ch->count_load_time;

	return ns > 0 ? mul_u64_u32_shr(ns, TICK_MULT, TICK_SHIFT) : 0;
}

static u32 ticks_in_period(u64 t, u32 count)
{
	if (count == 0x10000)
		return t & 0xffff;
	return t >> 32 ? t % count : (u32)t % count;
}

static u16 counter(const struct kvm_pit_channel_state *ch)
{
	u64 t = ticks(ch);

	switch (ch->mode) {
	case 2:
		return ch->count - ticks_in_period(t, ch->count);
	case 3:		/* counts by two, twice a period */
		return ch->count - ticks_in_period(2 * t, ch->count);
	default:
		return ch->count - t;
	}
}

static bool output(const struct kvm_pit_channel_state *ch)
{
	u64 t = ticks(ch);

	switch (ch->mode) {
	case 2:
		return ticks_in_period(t, ch->count) != ch->count - 1;
	case 3:
		return ticks_in_period(t, ch->count) < (ch->count + 1) / 2;
	case 4:
	case 5:
		return t != ch->count;
	default:
		return t >= ch->count;
	}
}

/* ------------------------------------------------------------- counter 0's interrupt */
static void tick(struct irq_pit *pit)
{
	unsigned long flags;
	int ret;

	ret = irq_set_gsi(pit->device.vm, SOURCE_PIT, 0, true);
	irq_set_gsi(pit->device.vm, SOURCE_PIT, 0, false);
	if (ret >= 0)
		return;
	/* Masked: nobody will acknowledge it, and nobody misses it. */
	raw_spin_lock_irqsave(&pit->lock, flags);
	pit->irq_acked = true;
	pit->pending = 0;
	raw_spin_unlock_irqrestore(&pit->lock, flags);
}

static enum hrtimer_restart timer_fires(struct hrtimer *timer)
{
	struct irq_pit *pit = container_of(timer, struct irq_pit, timer);
	enum hrtimer_restart restart = HRTIMER_NORESTART;
	bool inject = false;
	unsigned long flags;
	u64 n = 1;

	raw_spin_lock_irqsave(&pit->lock, flags);
	if (pit->armed && !hrtimer_is_queued(timer)) {
		if (pit->period) {
			n = hrtimer_forward_now(timer, ns_to_ktime(pit->period));
			restart = HRTIMER_RESTART;
		} else {
			pit->armed = false;
		}
		inject = true;
		if (pit->reinject) {
			pit->pending = min_t(u64, pit->pending + n, MAX_PENDING);
			inject = pit->irq_acked;
			if (inject) {
				pit->pending--;
				pit->irq_acked = false;
				pit->unanswered = 0;
			} else if (++pit->unanswered >= STUCK_TICKS) {
				pit->unanswered = 0;
				inject = true;
			}
		}
	}
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	if (inject)
		tick(pit);
	return restart;
}

static void pit_acked(struct irq_acker *acker)
{
	struct irq_pit *pit = container_of(acker, struct irq_pit, acker);
	unsigned long flags;
	bool inject = false;

	raw_spin_lock_irqsave(&pit->lock, flags);
	pit->unanswered = 0;
	if (pit->reinject && pit->pending) {
		pit->pending--;
		inject = true;
	} else {
		pit->irq_acked = true;
	}
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	if (inject)
		tick(pit);
}

static void reset_reinject(struct irq_pit *pit)
{
	pit->pending = 0;
	pit->unanswered = 0;
	pit->irq_acked = true;
}

/*
 * The pin that it has been routed to is unmasked: a tick that has gone to another, which nobody looks at, is not waited for
 * any more (Linux looks for one that works, pin after pin).
 */
void irq_pit_unmasked(struct keel_vm *vm)
{
	struct irq_pit *pit = READ_ONCE(vm->irq.pit);
	unsigned long flags;

	if (!pit)
		return;
	raw_spin_lock_irqsave(&pit->lock, flags);
	if (pit->reinject)
		reset_reinject(pit);
	raw_spin_unlock_irqrestore(&pit->lock, flags);
}

static void timer_disarm(struct irq_pit *pit)
{
	pit->armed = false;
	hrtimer_try_to_cancel(&pit->timer);	/* if the callback runs, it sees armed */
}

static void timer_arm(struct irq_pit *pit)
{
	const struct kvm_pit_channel_state *ch = &pit->ch[0];
	u64 ns = div_u64((u64)ch->count * NSEC_PER_SEC, PIT_TICK_RATE);

	timer_disarm(pit);
	reset_reinject(pit);
	if (pit->stopped || (pit->flags & KVM_PIT_FLAGS_HPET_LEGACY))
		return;
	switch (ch->mode) {
	case 0:
	case 4:
		pit->period = 0;
		break;
	case 2:
	case 3:
		ns = max_t(u64, ns, MIN_PERIOD_NS);
		pit->period = ns;
		break;
	default:	/* 1 and 5 wait for a gate that is never pulled */
		return;
	}
	pit->armed = true;
	hrtimer_start(&pit->timer, ktime_add_ns(ktime_get(), ns), HRTIMER_MODE_ABS_HARD);
}

static void load_count(struct irq_pit *pit, unsigned int c, u32 count)
{
	pit->ch[c].count = count ?: 0x10000;
	pit->ch[c].count_load_time = ktime_get_ns();
	if (c == 0)
		timer_arm(pit);
}

/* ------------------------------------------------------------- registers */
static void latch_count(struct kvm_pit_channel_state *ch)
{
	if (ch->count_latched)
		return;
	ch->latched_count = counter(ch);
	ch->count_latched = ch->rw_mode;
}

static void latch_status(struct kvm_pit_channel_state *ch)
{
	if (ch->status_latched)
		return;
	ch->status = output(ch) << 7 | ch->rw_mode << 4 | ch->mode << 1 | ch->bcd;
	ch->status_latched = 1;
}

static void control_write(struct irq_pit *pit, u8 val)
{
	unsigned int c = val >> 6, i;
	struct kvm_pit_channel_state *ch = &pit->ch[c];

	if (c == 3) {		/* read-back command */
		for (i = 0; i < 3; i++) {
			if (!(val & BIT(i + 1)))
				continue;
			if (!(val & 0x20))
				latch_count(&pit->ch[i]);
			if (!(val & 0x10))
				latch_status(&pit->ch[i]);
		}
		return;
	}
	if (!(val & 0x30)) {
		latch_count(ch);
		return;
	}
	ch->rw_mode = val >> 4 & 3;
	ch->read_state = ch->rw_mode;
	ch->write_state = ch->rw_mode;
	ch->count_latched = 0;
	ch->mode = val >> 1 & 7;
	if (ch->mode > 5)
		ch->mode -= 4;
	ch->bcd = val & 1;
	if (c == 0)
		timer_disarm(pit);	/* a new mode waits for its count */
}

static void count_write(struct irq_pit *pit, unsigned int c, u8 val)
{
	struct kvm_pit_channel_state *ch = &pit->ch[c];

	switch (ch->write_state) {
	case ACCESS_LSB:
		load_count(pit, c, val);
		break;
	case ACCESS_MSB:
		load_count(pit, c, val << 8);
		break;
	case ACCESS_BOTH:
		ch->write_latch = val;
		ch->write_state = ACCESS_SECOND;
		break;
	case ACCESS_SECOND:
		ch->write_state = ACCESS_BOTH;
		load_count(pit, c, ch->write_latch | val << 8);
		break;
	}
}

static u8 count_read(struct kvm_pit_channel_state *ch)
{
	u16 count;
	bool high;

	if (ch->status_latched) {
		ch->status_latched = 0;
		return ch->status;
	}
	if (ch->count_latched) {
		count = ch->latched_count;
		if (ch->count_latched == ACCESS_BOTH) {
			ch->count_latched = ACCESS_MSB;
			return count;
		}
		high = ch->count_latched == ACCESS_MSB;
		ch->count_latched = 0;
		return high ? count >> 8 : count;
	}
	count = counter(ch);
	switch (ch->read_state) {
	case ACCESS_MSB:
		return count >> 8;
	case ACCESS_BOTH:
		ch->read_state = ACCESS_SECOND;
		return count;
	case ACCESS_SECOND:
		ch->read_state = ACCESS_BOTH;
		return count >> 8;
	default:
		return count;
	}
}

static int pit_read(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, void *data)
{
	struct irq_pit *pit = container_of(dev, struct irq_pit, dev);
	unsigned int c = addr & 3;
	unsigned long flags;
	u8 val = 0;

	if (c < 3) {
		raw_spin_lock_irqsave(&pit->lock, flags);
		val = count_read(&pit->ch[c]);
		raw_spin_unlock_irqrestore(&pit->lock, flags);
	}
	if (len > 1)
		memset(data, 0, len);
	*(u8 *)data = val;
	return 0;
}

static int pit_write(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, const void *data)
{
	struct irq_pit *pit = container_of(dev, struct irq_pit, dev);
	u8 val = *(const u8 *)data;
	unsigned long flags;

	raw_spin_lock_irqsave(&pit->lock, flags);
	if ((addr & 3) == 3)
		control_write(pit, val);
	else
		count_write(pit, addr & 3, val);
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return 0;
}

static const struct irq_bus_ops pit_ops = { .read = pit_read, .write = pit_write };

/* Port 0x61: bit 0 gate of counter 2, 1 speaker data, 4 refresh clock (toggles), 5 output of counter 2. */
static int speaker_read(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, void *data)
{
	struct irq_pit *pit = container_of(dev, struct irq_pit, speaker);
	unsigned long flags;
	u8 val;

	raw_spin_lock_irqsave(&pit->lock, flags);
	val = pit->ch[2].gate | output(&pit->ch[2]) << 5 | (ktime_get_ns() >> 14 & 1) << 4;
	if (pit->flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON)
		val |= 2;
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	memset(data, 0, len);
	*(u8 *)data = val;
	return 0;
}

static int speaker_write(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len,
			 const void *data)
{
	struct irq_pit *pit = container_of(dev, struct irq_pit, speaker);
	struct kvm_pit_channel_state *ch = &pit->ch[2];
	u8 val = *(const u8 *)data;
	unsigned long flags;

	raw_spin_lock_irqsave(&pit->lock, flags);
	/* A rising gate starts all but the modes that only pause on it. */
	if (!ch->gate && (val & 1) && ch->mode != 0 && ch->mode != 4)
		ch->count_load_time = ktime_get_ns();
	ch->gate = val & 1;
	if (val & 2)
		pit->flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	else
		pit->flags &= ~KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return 0;
}

static const struct irq_bus_ops speaker_ops = { .read = speaker_read, .write = speaker_write };

/* ------------------------------------------------------------- life, state */
static void pit_stop(struct irq_device *device)
{
	struct irq_pit *pit = container_of(device, struct irq_pit, device);
	unsigned long flags;

	raw_spin_lock_irqsave(&pit->lock, flags);
	pit->stopped = true;
	pit->armed = false;
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	hrtimer_cancel(&pit->timer);
}

static void pit_still(struct irq_device *device)
{
	struct irq_pit *pit = container_of(device, struct irq_pit, device);
	unsigned long flags;

	raw_spin_lock_irqsave(&pit->lock, flags);
	timer_disarm(pit);
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	hrtimer_cancel(&pit->timer);
}

static void pit_leave(struct irq_device *device)
{
	irq_ack_leave(device->vm, &container_of(device, struct irq_pit, device)->acker);
	device->vm->irq.pit = NULL;
}

static const struct irq_range pit_ranges[] = {
	IRQ_RANGE(irq_pit, dev, BUS_PIO, 0x40, 4),
	IRQ_RANGE(irq_pit, speaker, BUS_PIO, 0x61, 1),	/* last: not every VMM wants it */
};

static const struct irq_device_ops pit_device = {
	.ranges	= pit_ranges,
	.stop	= pit_stop,
	.still	= pit_still,
	.leave	= pit_leave,
};

static long pit_create(struct keel_vm *vm, u32 flags)
{
	struct irq_pit *pit;
	unsigned int c;
	long ret;

	/* kvmtool made it before the controllers that it interrupts, until 2024: KVM let it, until 6.12. */
	if (vm->irq.mode != IRQCHIP_KERNEL && (vm->irq.mode != IRQCHIP_NONE || vm->nr_vcpus))
		return -ENOENT;
	if (vm->irq.pit)
		return -EEXIST;
	pit = kzalloc(sizeof(*pit), GFP_KERNEL_ACCOUNT);
	if (!pit)
		return -ENOMEM;
	pit->dev.ops = &pit_ops;
	pit->speaker.ops = &speaker_ops;
	pit->reinject = true;
	raw_spin_lock_init(&pit->lock);
	hrtimer_setup(&pit->timer, timer_fires, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	reset_reinject(pit);
	for (c = 0; c < 3; c++) {
		pit->ch[c].mode = 0xff;		/* counter 0 runs only once it was programmed */
		pit->ch[c].gate = c != 2;
		load_count(pit, c, 0);
	}

	pit->acker.acked = pit_acked;
	ret = irq_device_add(vm, &pit->device, &pit_device, ARRAY_SIZE(pit_ranges) - !(flags & KVM_PIT_SPEAKER_DUMMY));
	if (ret)
		return ret;
	ret = irq_ack_join(vm, 0, &pit->acker);
	if (ret)
		irq_device_remove(&pit->device);
	else
		smp_store_release(&vm->irq.pit, pit);
	return ret;
}

VM_IOCTL(irq_create_pit2)
{
	const struct kvm_pit_config *config = buf;
	long ret;

	mutex_lock(&vm->irq.lock);
	mutex_lock(&vm->slots_lock);
	ret = pit_create(vm, config->flags);
	mutex_unlock(&vm->slots_lock);
	mutex_unlock(&vm->irq.lock);
	return ret;
}

bool irq_pit_config(struct keel_vm *vm, struct kvm_pit_config *config)
{
	const struct irq_pit *pit = vm->irq.pit;

	if (!pit)
		return false;
	*config = (struct kvm_pit_config){
		.flags = pit->device.nr_ranges == ARRAY_SIZE(pit_ranges) ? KVM_PIT_SPEAKER_DUMMY : 0,
	};
	return true;
}

VM_IOCTL(irq_create_pit)
{
	struct kvm_pit_config config = { .flags = KVM_PIT_SPEAKER_DUMMY };

	return irq_create_pit2(vm, &config, 0);
}

/* What userspace gives need not be what it once got. */
static void channel_from_user(struct kvm_pit_channel_state *ch, const struct kvm_pit_channel_state *from)
{
	*ch = *from;
	if (!ch->count || ch->count > 0x10000)
		ch->count = 0x10000;
	ch->count_latched &= 3;
	ch->status_latched &= 1;
	ch->read_state = min_t(u8, ch->read_state, ACCESS_SECOND);
	ch->write_state = min_t(u8, ch->write_state, ACCESS_SECOND);
	ch->rw_mode &= 3;
	ch->bcd &= 1;
	ch->gate &= 1;
}

VM_IOCTL(irq_get_pit2)
{
	struct kvm_pit_state2 *s = buf;
	struct irq_pit *pit = vm->irq.pit;
	unsigned long flags;

	if (!pit)
		return -ENXIO;
	memset(s, 0, sizeof(*s));
	raw_spin_lock_irqsave(&pit->lock, flags);
	memcpy(s->channels, pit->ch, sizeof(s->channels));
	s->flags = pit->flags;
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return 0;
}

VM_IOCTL(irq_get_pit)
{
	struct kvm_pit_state *s = buf;
	struct kvm_pit_state2 s2;
	long ret = irq_get_pit2(vm, &s2, 0);

	if (!ret)
		memcpy(s->channels, s2.channels, sizeof(s->channels));
	return ret;
}

static long pit_load(struct keel_vm *vm, const struct kvm_pit_channel_state *from, const u32 *new_flags)
{
	struct irq_pit *pit = vm->irq.pit;
	s64 now = ktime_get_ns();
	unsigned long flags;
	unsigned int c;

	if (!pit)
		return -ENXIO;
	raw_spin_lock_irqsave(&pit->lock, flags);
	if (new_flags)
		pit->flags = *new_flags;
	for (c = 0; c < 3; c++) {
		channel_from_user(&pit->ch[c], &from[c]);
		/* The old interface says when a count was loaded in no clock of ours, nor does one from another host. */
		if (c == 0 || !new_flags || from[c].count_load_time > now)
			load_count(pit, c, pit->ch[c].count);
	}
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return 0;
}

VM_IOCTL(irq_set_pit)
{
	struct kvm_pit_state s;

	if (copy_from_user(&s, (void __user *)arg, sizeof(s)))
		return -EFAULT;
	return pit_load(vm, s.channels, NULL);
}

VM_IOCTL(irq_set_pit2)
{
	const struct kvm_pit_state2 *s = buf;
	u32 flags = s->flags & (KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON);

	return pit_load(vm, s->channels, &flags);
}

/* vm->lock is held and no vCPU runs: nobody starts the timer. */
void irq_pit_hold(struct keel_vm *vm)
{
	if (!vm->irq.pit)
		return;
	hrtimer_cancel(&vm->irq.pit->timer);
	irq_late_wait(vm);	/* for its last tick, if that has many to look for */
}

void irq_pit_go(struct keel_vm *vm)
{
	struct irq_pit *pit = vm->irq.pit;
	unsigned long flags;

	if (!pit)
		return;
	raw_spin_lock_irqsave(&pit->lock, flags);
	if (pit->armed)
		hrtimer_start(&pit->timer, hrtimer_get_expires(&pit->timer), HRTIMER_MODE_ABS_HARD);
	raw_spin_unlock_irqrestore(&pit->lock, flags);
}

/* The points in time at which counts were loaded are the VM's own. */
VM_IOCTL(irq_pit_get_state)
{
	u64 mono = keel_clock_mono(vm);
	struct keel_state_pit *s = buf;
	struct irq_pit *pit = vm->irq.pit;
	unsigned long flags;
	unsigned int c;

	raw_spin_lock_irqsave(&pit->lock, flags);
	memcpy(s->state.channels, pit->ch, sizeof(s->state.channels));
	for (c = 0; c < 3; c++)
		s->state.channels[c].count_load_time -= mono;
	s->state.flags = pit->flags;
	s->armed = pit->armed;
	if (pit->armed)
		s->expires = ktime_to_ns(hrtimer_get_expires(&pit->timer)) - mono;
	s->period = pit->period;
	s->pending = pit->pending;
	s->acked = pit->irq_acked;
	s->reinject = pit->reinject;
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return 0;
}

VM_IOCTL(irq_pit_set_state)
{
	u64 mono = keel_clock_mono(vm);
	const struct keel_state_pit *s = buf;
	struct irq_pit *pit = vm->irq.pit;
	unsigned long flags;
	unsigned int c;

	if (s->armed > 1 || s->acked > 1 || s->reinject > 1 || s->reserved || s->pending > MAX_PENDING ||
	    (s->period && s->period < MIN_PERIOD_NS) || s->period > NSEC_PER_SEC ||
	    s->state.flags & ~(KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON))
		return -EINVAL;
	raw_spin_lock_irqsave(&pit->lock, flags);
	pit->flags = s->state.flags;
	for (c = 0; c < 3; c++) {
		channel_from_user(&pit->ch[c], &s->state.channels[c]);
		pit->ch[c].count_load_time += mono;
	}
	pit->period = s->period;
	pit->pending = s->pending;
	pit->unanswered = 0;
	pit->irq_acked = s->acked;
	pit->reinject = s->reinject;
	if (s->armed && !pit->stopped) {
		pit->armed = true;
		hrtimer_set_expires(&pit->timer, keel_clock_expires(vm, s->expires));	/* irq_pit_go() */
	}
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return 0;
}

VM_IOCTL(irq_reinject_control)
{
	struct kvm_reinject_control control;
	struct irq_pit *pit = vm->irq.pit;
	unsigned long flags;

	if (copy_from_user(&control, (void __user *)arg, sizeof(control)))
		return -EFAULT;
	if (!pit)
		return -ENXIO;
	raw_spin_lock_irqsave(&pit->lock, flags);
	pit->reinject = control.pit_reinject;
	reset_reinject(pit);
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return 0;
}
