// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus.c - who serves an address: the port, MMIO and fast-MMIO buses of a VM.
 *
 * A bus is an array of ranges sorted by first address.  It is read without a lock by vCPUs between
 * keel_vcpu_begin() and keel_vcpu_end() and changed in place under vm->slots_lock with the VM paused.
 */
#include <linux/slab.h>
#include "internal.h"

struct irq_bus_range {
	u64 first, last;
	struct irq_bus_dev *dev;
};

/* The first range that starts above @addr, or the end. */
static struct irq_bus_range *bus_above(const struct irq_bus *bus, u64 addr)
{
	unsigned int lo = 0, hi = bus->count;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (bus->ranges[mid].first <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return &bus->ranges[lo];
}

/*
 * Is there a range below *@at that holds the byte at @addr and @more behind it?  The last one.  Several may (ioeventfds
 * with different data to match).  No range is longer than bus->longest, which is less than 4 GiB, and says when to give up.
 */
static __always_inline bool bus_below(const struct irq_bus *bus, const struct irq_bus_range **at, u64 addr,
				      unsigned int more)
{
	const struct irq_bus_range *r = *at;

	while (r > bus->ranges) {
		r--;
		if (addr - r->first >= bus->longest)
			break;
		if (likely((s64)(r->last - addr) >= more)) {
			*at = r;
			return true;
		}
	}
	return false;
}

/* Each that holds it is asked in turn, from @r on.  (Arguments stand where the callers have theirs.) */
static noinline int bus_read(struct keel_vcpu *vcpu, const struct irq_bus_range *r, u64 addr, unsigned int len,
			     void *data, const struct irq_bus *bus)
{
	int ret = -EOPNOTSUPP;

	do {
		if (r->dev->ops->read)
			ret = r->dev->ops->read(r->dev, vcpu, addr, len, data);
	} while (unlikely(ret == -EOPNOTSUPP) && bus_below(bus, &r, addr, len - 1));
	return ret;
}

static noinline int bus_write(struct keel_vcpu *vcpu, const struct irq_bus_range *r, u64 addr, unsigned int len,
			      const void *data, const struct irq_bus *bus)
{
	int ret;

	do {
		ret = r->dev->ops->write(r->dev, vcpu, addr, len, data);
	} while (unlikely(ret == -EOPNOTSUPP) && bus_below(bus, &r, addr, len ? len - 1 : 0));
	return ret;
}

int irq_bus_read(struct keel_vcpu *vcpu, enum bus_id id, u64 addr, unsigned int len, void *data)
{
	const struct irq_bus *bus = &vcpu->vm->buses.bus[id];
	const struct irq_bus_range *r = bus_above(bus, addr);

	return bus_below(bus, &r, addr, len - 1) ? bus_read(vcpu, r, addr, len, data, bus) : -EOPNOTSUPP;
}

int irq_bus_write(struct keel_vcpu *vcpu, enum bus_id id, u64 addr, unsigned int len, const void *data)
{
	const struct irq_bus *bus = &vcpu->vm->buses.bus[id];
	const struct irq_bus_range *r = bus_above(bus, addr);

	return bus_below(bus, &r, addr, len - 1) ? bus_write(vcpu, r, addr, len, data, bus) : -EOPNOTSUPP;
}

/* Of any length, and with any data. */
bool irq_fast_mmio(struct keel_vcpu *vcpu, u64 gpa)
{
	const struct irq_bus *bus = &vcpu->vm->buses.bus[BUS_FAST_MMIO];
	const struct irq_bus_range *r = bus_above(bus, gpa);

	return bus_below(bus, &r, gpa, 0) && bus_write(vcpu, r, gpa, 0, NULL, bus) == 0;
}

static u64 bus_longest(const struct irq_bus *bus)
{
	u64 longest = 0;
	unsigned int i;

	for (i = 0; i < bus->count; i++)
		longest = max(longest, bus->ranges[i].last - bus->ranges[i].first + 1);
	return longest;
}

int irq_bus_add(struct keel_vm *vm, enum bus_id id, u64 addr, u64 len, struct irq_bus_dev *dev)
{
	struct irq_bus *bus = &vm->buses.bus[id];
	struct irq_bus_range *fresh = NULL, *old = NULL, *pos;
	unsigned int size = bus->size;

	lockdep_assert_held(&vm->slots_lock);
	if (!len || addr + len - 1 < addr || len > U32_MAX)
		return -EINVAL;
	pos = bus_above(bus, addr);
	if (bus->count >= IRQ_BUS_MAX_RANGES ||
	    (pos - bus->ranges >= IRQ_BUS_MAX_ALIKE && pos[-IRQ_BUS_MAX_ALIKE].first == addr))
		return -ENOSPC;
	if (bus->count == size) {
		size = size ? 2 * size : 16;
		fresh = kvcalloc(size, sizeof(*fresh), GFP_KERNEL_ACCOUNT);
		if (!fresh)
			return -ENOMEM;
	}

	keel_vm_pause(vm);
	if (fresh) {
		if (bus->count)
			memcpy(fresh, bus->ranges, bus->count * sizeof(*fresh));
		old = bus->ranges;
		bus->ranges = fresh;
		bus->size = size;
	}
	pos = bus_above(bus, addr);
	memmove(pos + 1, pos, (void *)&bus->ranges[bus->count] - (void *)pos);
	*pos = (struct irq_bus_range){ addr, addr + len - 1, dev };
	bus->count++;
	bus->longest = max(bus->longest, len);
	dev->leaving = false;
	keel_vm_resume(vm);
	kvfree(old);
	return 0;
}

/* Nobody stands still where nobody leaves. */
static void bus_sweep(struct keel_vm *vm, struct irq_bus *bus)
{
	unsigned int from, to = 0;

	while (to < bus->count && !bus->ranges[to].dev->leaving)
		to++;
	if (to == bus->count)
		return;
	keel_vm_pause(vm);
	for (from = to; from < bus->count; from++) {
		if (!bus->ranges[from].dev->leaving)
			bus->ranges[to++] = bus->ranges[from];
	}
	bus->count = to;
	bus->longest = bus_longest(bus);
	keel_vm_resume(vm);
}

void irq_buses_sweep(struct keel_vm *vm)
{
	unsigned int i;

	lockdep_assert_held(&vm->slots_lock);
	for (i = 0; i < BUS_COUNT; i++)
		bus_sweep(vm, &vm->buses.bus[i]);
}

void irq_bus_remove(struct keel_vm *vm, enum bus_id id, struct irq_bus_dev *dev)
{
	lockdep_assert_held(&vm->slots_lock);
	dev->leaving = true;
	bus_sweep(vm, &vm->buses.bus[id]);
}

void irq_buses_init(struct keel_vm *vm)
{
	INIT_LIST_HEAD(&vm->buses.ioeventfds);
	INIT_LIST_HEAD(&vm->buses.zones);
	spin_lock_init(&vm->buses.ring_lock);
}

void irq_buses_free(struct keel_vm *vm)
{
	unsigned int i;

	for (i = 0; i < BUS_COUNT; i++) {
		kvfree(vm->buses.bus[i].ranges);
		vm->buses.bus[i] = (struct irq_bus){};
	}
}
