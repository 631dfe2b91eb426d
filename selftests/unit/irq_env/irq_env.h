/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * irq_env.h - as much of the kernel and of the interrupt room as the PIC and the PIT want, for a test that
 * includes their sources: one VM, one vCPU, a clock that the test moves.
 */
#ifndef KEEL_IRQ_ENV_H
#define KEEL_IRQ_ENV_H

/* Takes the place of the room's own header. */
#define KEEL_IRQ_INTERNAL_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <linux/kvm.h>
#include "../../../uapi/keel.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef s64 ktime_t;

#define __user
#define __releases(x)
#define BIT(n)			(1UL << (n))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define READ_ONCE(x)		(x)
#define WRITE_ONCE(x, v)	((x) = (v))
#define smp_store_release(p, v)	(*(p) = (v))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define min_t(t, a, b)		((t)(a) < (t)(b) ? (t)(a) : (t)(b))
#define max_t(t, a, b)		((t)(a) > (t)(b) ? (t)(a) : (t)(b))
#define GFP_KERNEL_ACCOUNT	0
#define kzalloc(n, gfp)		calloc(1, n)
#define kfree			free
#define __ffs			__builtin_ctzl
#define for_each_set_bit(i, p, n) \
	for (i = 0; i < (n); i++)  \
		if (*(p) & BIT(i))

static inline u8 ror8(u8 v, unsigned int n)
{
	return v >> (n & 7) | v << (-n & 7);
}

/* Locks: only that they are taken and given back in turn. */
typedef struct { int held; } raw_spinlock_t;
struct mutex { int held; };

#define raw_spin_lock_init(l)			((l)->held = 0)
#define raw_spin_lock_irqsave(l, f)		(assert(!(l)->held), (l)->held = 1, (void)(f = 0))
#define raw_spin_unlock_irqrestore(l, f)	(assert((l)->held), (l)->held = 0, (void)(f))
#define mutex_lock(l)				(assert(!(l)->held), (l)->held = 1)
#define mutex_unlock(l)				(assert((l)->held), (l)->held = 0)

/* Time */
#define NSEC_PER_SEC		1000000000ULL
#define NSEC_PER_USEC		1000ULL
#define PIT_TICK_RATE		1193182ULL
#define CLOCK_MONOTONIC		1
#define HRTIMER_MODE_ABS_HARD	0
#define ns_to_ktime(ns)		((ktime_t)(ns))
#define ktime_add_ns(t, ns)	((t) + (s64)(ns))
#define div_u64(a, b)		((a) / (b))
#define mul_u64_u32_shr(a, m, s) ((u64)((unsigned __int128)(u64)(a) * (m) >> (s)))

static s64 env_now = 1000;

static inline s64 ktime_get(void)
{
	return env_now;
}

static inline u64 ktime_get_ns(void)
{
	return env_now;
}

enum hrtimer_restart { HRTIMER_NORESTART, HRTIMER_RESTART };

struct hrtimer {
	enum hrtimer_restart (*fn)(struct hrtimer *timer);
	s64 expires;
	bool queued;
};

static struct hrtimer *env_timer;	/* the one there is */

#define hrtimer_setup(t, f, clock, mode)	((t)->fn = (f), env_timer = (t))
#define hrtimer_start(t, when, mode)		((t)->expires = (when), (t)->queued = true)
#define hrtimer_try_to_cancel(t)		((t)->queued = false)
#define hrtimer_cancel(t)			((t)->queued = false)
#define hrtimer_is_queued(t)			((t)->queued)
#define hrtimer_get_expires(t)			((t)->expires)
#define hrtimer_set_expires(t, when)		((t)->expires = (when))
#define ktime_to_ns(t)				(t)

static inline u64 hrtimer_forward_now(struct hrtimer *t, s64 period)
{
	u64 n = 0;

	for (; t->expires <= env_now; n++)
		t->expires += period;
	return n;
}

/* Move the clock; the timer fires when it has to. */
static inline void env_pass(s64 ns)
{
	s64 until = env_now + ns;

	while (env_timer && env_timer->queued && env_timer->expires <= until) {
		env_now = env_timer->expires;
		env_timer->queued = false;
		if (env_timer->fn(env_timer) == HRTIMER_RESTART)
			env_timer->queued = true;
	}
	env_now = until;
}

/* The room */
enum bus_id { BUS_PIO };
enum irq_mode { IRQCHIP_NONE, IRQCHIP_SPLIT, IRQCHIP_KERNEL };
enum irq_chip { CHIP_PIC };
enum irq_source { SOURCE_USER, SOURCE_RESAMPLE, SOURCE_PIT };
enum { KEEL_REQ_EVENT };
#define IRQ_PIC_PINS	16

struct keel_vm {
	struct {
		enum irq_mode mode;
		struct mutex lock;
		struct irq_pic *pic;
		struct irq_pit *pit;
		bool pic_raised;
		unsigned int extint_taker, nr_resample;
	} irq;
	unsigned int nr_vcpus;
	struct mutex slots_lock;
};

struct keel_vcpu {
	struct keel_vm *vm;
};

struct irq_bus_dev;

struct irq_bus_ops {
	int (*read)(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, void *data);
	int (*write)(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, const void *data);
};

struct irq_bus_dev {
	const struct irq_bus_ops *ops;
};

/* A VM's own clock, which its state is told in, is the host's. */
#define keel_clock_mono(vm)		((void)(vm), 0)
#define keel_clock_expires(vm, ns)	((void)(vm), (ns))
#define IRQ_STATE_SOURCES		(BIT(SOURCE_USER) | BIT(SOURCE_PIT))
#define irq_sources_set(to, from, n)	((void)memcpy(to, from, n), true)

#define VM_IOCTL(fn)	long fn(struct keel_vm *vm, void *buf, unsigned long arg)

static struct keel_vm env_vm = { .irq.mode = IRQCHIP_KERNEL };
static struct keel_vcpu env_vcpu = { .vm = &env_vm };
static struct irq_bus_dev *env_ports[0x500];
static unsigned int env_kicks, env_acks[IRQ_PIC_PINS];

#define keel_for_each_vcpu(v, i, vm)	for (i = 0; i < 1 && ((v) = &env_vcpu); i++)
#define keel_vcpu_by_idx(vm, i)		((void)(vm), (i) ? NULL : &env_vcpu)
#define atomic_read(v)			(*(v))
#define smp_mb()			((void)0)
#define irq_extint_accepted(v)		true
#define keel_request(req, v)		((void)(v))
#define keel_vcpu_kick(v)		(env_kicks++)

static inline unsigned long copy_from_user(void *to, const void *from, size_t n)
{
	memcpy(to, from, n);
	return 0;
}

static inline int irq_bus_add(struct keel_vm *vm, enum bus_id bus, u64 addr, u64 len, struct irq_bus_dev *dev)
{
	while (len--)
		env_ports[addr + len] = dev;
	return 0;
}

static inline void irq_bus_remove(struct keel_vm *vm, enum bus_id bus, struct irq_bus_dev *dev)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(env_ports); i++)
		if (env_ports[i] == dev)
			env_ports[i] = NULL;
}

static inline u8 inb(u16 port)
{
	u8 val = 0xee;

	env_ports[port]->ops->read(env_ports[port], &env_vcpu, port, 1, &val);
	return val;
}

static inline void outb(u16 port, u8 val)
{
	env_ports[port]->ops->write(env_ports[port], &env_vcpu, port, 1, &val);
}

/* Devices */
struct irq_device;

struct irq_range {
	enum bus_id bus;
	u16 bus_dev;
	u32 addr, len;
};

#define IRQ_RANGE(type, member, b, a, n) \
	{ .bus = b, .bus_dev = offsetof(struct type, member), .addr = a, .len = n }

struct irq_device_ops {
	const struct irq_range *ranges;
	u32 chips;
	void (*get)(struct irq_device *dev, unsigned int chip, void *state);
	void (*set)(struct irq_device *dev, unsigned int chip, const void *state);
	void (*stop)(struct irq_device *dev);
	void (*still)(struct irq_device *dev);
	void (*leave)(struct irq_device *dev);
};

struct irq_device {
	const struct irq_device_ops *ops;
	unsigned int nr_ranges;
	struct keel_vm *vm;
};

static struct irq_device *env_devices[2];

static inline void irq_device_remove(struct irq_device *dev)
{
	for (unsigned int i = 0; i < dev->nr_ranges; i++)
		irq_bus_remove(dev->vm, BUS_PIO, (void *)((char *)dev + dev->ops->ranges[i].bus_dev));
	env_devices[env_devices[0] != dev] = NULL;
	free(dev);
}

static inline int irq_device_add(struct keel_vm *vm, struct irq_device *dev, const struct irq_device_ops *ops, unsigned int n)
{
	*dev = (struct irq_device) { .ops = ops, .nr_ranges = n, .vm = vm };
	env_devices[!!env_devices[0]] = dev;
	for (unsigned int i = 0; i < n; i++)
		irq_bus_add(vm, BUS_PIO, ops->ranges[i].addr, ops->ranges[i].len, (void *)((char *)dev + ops->ranges[i].bus_dev));
	return 0;
}

static inline void env_devices_end(void)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct irq_device *dev = env_devices[i];

		if (!dev)
			continue;
		if (dev->ops->stop)
			dev->ops->stop(dev);
		dev->ops->leave(dev);
		irq_device_remove(dev);
	}
}

int irq_pic_create(struct keel_vm *vm);
int irq_pic_set(struct keel_vm *vm, unsigned int pin, enum irq_source source, bool level);
int irq_pic_ack(struct keel_vm *vm);
VM_IOCTL(irq_create_pit2);
VM_IOCTL(irq_get_pit2);

/* GSI 0 is the PIC's pin 0, as there is no IOAPIC. */
static inline int irq_set_gsi(struct keel_vm *vm, enum irq_source source, u32 gsi, bool level)
{
	return irq_pic_set(vm, gsi, source, level);
}

struct irq_acker {
	void (*acked)(struct irq_acker *acker);
};

static struct irq_acker *env_acker;	/* of GSI 0 */

static inline int irq_ack_join(struct keel_vm *vm, u32 gsi, struct irq_acker *acker)
{
	assert(gsi == 0 && !env_acker);
	env_acker = acker;
	return 0;
}

static inline void irq_ack_leave(struct keel_vm *vm, struct irq_acker *acker)
{
	assert(env_acker == acker);
	env_acker = NULL;
}

static inline void irq_acked(struct keel_vm *vm, enum irq_chip chip, unsigned int pin)
{
	env_acks[pin]++;
	if (pin == 0 && env_acker)
		env_acker->acked(env_acker);
}

/* Nothing is late here. */
static inline void irq_late_wait(struct keel_vm *vm)
{
}

void irq_pit_unmasked(struct keel_vm *vm);

static inline void irq_unmasked(struct keel_vm *vm, enum irq_chip chip, unsigned int pin)
{
	if (pin == 0)
		irq_pit_unmasked(vm);
}

#endif
