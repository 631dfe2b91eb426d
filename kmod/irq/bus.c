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

/* Index of the first range that starts above @addr. */
static unsigned int bus_above(const struct irq_bus *bus, u64 addr)
{
	unsigned int lo = 0, hi = bus->count;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (bus->ranges[mid].first <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/*
 * Several ranges may hold the address (ioeventfds with different data to match), so each that holds the whole
 * access is asked in turn.  No range is longer than bus->longest, which says when to give up.
 */
static __always_inline int bus_access(struct keel_vcpu *vcpu, enum bus_id id, u64 addr, unsigned int len,
				      void *data, bool write)
{
	const struct irq_bus *bus = &vcpu->vm->buses.bus[id];
	unsigned int i = bus_above(bus, addr);
	u64 last = addr + (len ? len - 1 : 0);
	int ret;

	while (i-- > 0) {
		const struct irq_bus_range *r = &bus->ranges[i];

		if (addr - r->first >= bus->longest)
			break;
		if (last > r->last || last < addr)
			continue;
		if (write)
			ret = r->dev->ops->write(r->dev, vcpu, addr, len, data);
		else if (r->dev->ops->read)
			ret = r->dev->ops->read(r->dev, vcpu, addr, len, data);
		else
			continue;
		if (ret != -EOPNOTSUPP)
			return ret;
	}
	return -EOPNOTSUPP;
}

int irq_bus_read(struct keel_vcpu *vcpu, enum bus_id bus, u64 addr, unsigned int len, void *data)
{
	return bus_access(vcpu, bus, addr, len, data, false);
}

int irq_bus_write(struct keel_vcpu *vcpu, enum bus_id bus, u64 addr, unsigned int len, const void *data)
{
	return bus_access(vcpu, bus, addr, len, (void *)data, true);
}

bool irq_fast_mmio(struct keel_vcpu *vcpu, u64 gpa)
{
	return bus_access(vcpu, BUS_FAST_MMIO, gpa, 0, NULL, true) == 0;
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
	struct irq_bus_range *fresh = NULL, *old = NULL;
	unsigned int pos, size = bus->size;

	lockdep_assert_held(&vm->slots_lock);
	if (!len || addr + len - 1 < addr || len > U32_MAX)
		return -EINVAL;
	if (bus->count >= IRQ_BUS_MAX_RANGES)
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
	memmove(&bus->ranges[pos + 1], &bus->ranges[pos], (bus->count - pos) * sizeof(*fresh));
	bus->ranges[pos] = (struct irq_bus_range){ addr, addr + len - 1, dev };
	bus->count++;
	bus->longest = max(bus->longest, len);
	keel_vm_resume(vm);
	kvfree(old);
	return 0;
}

void irq_bus_remove(struct keel_vm *vm, enum bus_id id, struct irq_bus_dev *dev)
{
	struct irq_bus *bus = &vm->buses.bus[id];
	unsigned int from, to = 0;

	lockdep_assert_held(&vm->slots_lock);
	keel_vm_pause(vm);
	for (from = 0; from < bus->count; from++) {
		if (bus->ranges[from].dev != dev)
			bus->ranges[to++] = bus->ranges[from];
	}
	bus->count = to;
	bus->longest = bus_longest(bus);
	keel_vm_resume(vm);
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
