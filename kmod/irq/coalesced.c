// SPDX-License-Identifier: GPL-2.0-only
/*
 * coalesced.c - KVM_REGISTER_COALESCED_MMIO: writes that userspace need not see at once wait in a ring that
 * it shares.
 *
 * The ring lies in a page userspace can write: indices are read once and bounded.  Locks: the list of zones
 * is under vm->slots_lock; ring_lock orders the vCPUs that write to the ring.
 */
#include <linux/slab.h>
#include "internal.h"

struct coalesced_zone {
	struct irq_bus_dev dev;
	struct list_head link;
	struct kvm_coalesced_mmio_zone zone;
};

static bool zone_holds(const struct coalesced_zone *z, u64 addr, u64 len)
{
	return len && addr >= z->zone.addr && addr + len >= addr &&
	       addr + len <= z->zone.addr + z->zone.size;
}

static int coalesced_write(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len,
			   const void *data)
{
	struct coalesced_zone *z = container_of(dev, struct coalesced_zone, dev);
	struct keel_buses *buses = &vcpu->vm->buses;
	struct kvm_coalesced_mmio_ring *ring = page_address(buses->ring);
	struct kvm_coalesced_mmio *entry;
	u32 last, next;
	int ret = -EOPNOTSUPP;

	if (!zone_holds(z, addr, len) || len > sizeof(entry->data))
		return -EOPNOTSUPP;

	spin_lock(&buses->ring_lock);
	last = READ_ONCE(ring->last);
	next = (last + 1) % KVM_COALESCED_MMIO_MAX;
	/* Full, or userspace wrote nonsense: it gets this write as an exit of its own. */
	if (last >= KVM_COALESCED_MMIO_MAX || next == READ_ONCE(ring->first))
		goto out;

	entry = &ring->coalesced_mmio[last];
	entry->phys_addr = addr;
	entry->len = len;
	memcpy(entry->data, data, len);
	entry->pio = z->zone.pio;
	smp_store_release(&ring->last, next);
	ret = 0;
out:
	spin_unlock(&buses->ring_lock);
	return ret;
}

static const struct irq_bus_ops coalesced_ops = { .write = coalesced_write };

static enum bus_id zone_bus(const struct kvm_coalesced_mmio_zone *zone)
{
	return zone->pio ? BUS_PIO : BUS_MMIO;
}

VM_IOCTL(irq_register_coalesced)
{
	const struct kvm_coalesced_mmio_zone *zone = buf;
	struct coalesced_zone *z;
	int ret;

	if (zone->pio > 1 || zone->addr + zone->size < zone->addr)
		return -EINVAL;
	if (!irq_coalesced_page(vm))
		return -ENOMEM;
	z = kzalloc(sizeof(*z), GFP_KERNEL_ACCOUNT);
	if (!z)
		return -ENOMEM;
	z->dev.ops = &coalesced_ops;
	z->zone = *zone;

	mutex_lock(&vm->slots_lock);
	ret = irq_bus_add(vm, zone_bus(zone), zone->addr, zone->size, &z->dev);
	if (!ret)
		list_add_tail(&z->link, &vm->buses.zones);
	mutex_unlock(&vm->slots_lock);
	if (ret)
		kfree(z);
	return ret;
}

/* Those that are leaving. */
static void zones_drop(struct keel_vm *vm)
{
	struct coalesced_zone *z, *next;

	irq_buses_sweep(vm);
	list_for_each_entry_safe(z, next, &vm->buses.zones, link) {
		if (z->dev.leaving) {
			list_del(&z->link);
			kfree(z);
		}
		cond_resched();
	}
}

VM_IOCTL(irq_unregister_coalesced)
{
	const struct kvm_coalesced_mmio_zone *zone = buf;
	struct coalesced_zone *z;

	if (zone->pio > 1)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	list_for_each_entry(z, &vm->buses.zones, link)
		z->dev.leaving = z->zone.pio == zone->pio && zone_holds(z, zone->addr, zone->size);
	zones_drop(vm);
	mutex_unlock(&vm->slots_lock);
	return 0;
}

/* There from the first that asks for it on. */
struct page *irq_coalesced_page(struct keel_vm *vm)
{
	struct page *page = READ_ONCE(vm->buses.ring), *other;

	if (page)
		return page;
	page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!page)
		return NULL;
	other = cmpxchg(&vm->buses.ring, NULL, page);
	if (!other)
		return page;
	__free_page(page);
	return other;
}

void irq_coalesced_free(struct keel_vm *vm)
{
	struct coalesced_zone *z;

	mutex_lock(&vm->slots_lock);
	list_for_each_entry(z, &vm->buses.zones, link)
		z->dev.leaving = true;
	zones_drop(vm);
	mutex_unlock(&vm->slots_lock);
	if (vm->buses.ring)
		__free_page(vm->buses.ring);
	vm->buses.ring = NULL;
}
