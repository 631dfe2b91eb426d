// SPDX-License-Identifier: GPL-2.0-only
/*
 * irqchip.c - which interrupt controllers a VM has, and what else is in the list of its devices: their creation, state
 * in and out, end.
 */
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "internal.h"

void irq_vm_init(struct keel_vm *vm)
{
	mutex_init(&vm->irq.lock);
	spin_lock_init(&vm->irq.map_lock);
	spin_lock_init(&vm->irq.extint_lock);
	spin_lock_init(&vm->irq.irqfds_lock);
	xa_init_flags(&vm->irq.acks, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&vm->irq.devices);
	INIT_WORK(&vm->irq.late, irq_late_work);
	vm->irq.bus_cycle_ns = IRQ_BUS_CYCLE_NS;
	irq_buses_init(vm);
}

void irq_vm_release(struct keel_vm *vm)
{
	irq_irqfds_release(vm);
	irq_ioeventfds_release(vm);
}

static struct irq_bus_dev *range_dev(struct irq_device *dev, const struct irq_range *range)
{
	return (void *)dev + range->bus_dev;
}

void irq_device_remove(struct irq_device *dev)
{
	unsigned int i;

	for (i = 0; i < dev->nr_ranges; i++)
		irq_bus_remove(dev->vm, dev->ops->ranges[i].bus, range_dev(dev, &dev->ops->ranges[i]));
	/* vCPUs have been able to use one whose creation goes on to fail; now they are no more. */
	if (dev->ops->stop)
		dev->ops->stop(dev);
	list_del(&dev->link);
	kfree(dev);
}

int irq_device_add(struct keel_vm *vm, struct irq_device *dev, const struct irq_device_ops *ops, unsigned int nr_ranges)
{
	unsigned int i;
	int ret = 0;

	lockdep_assert_held(&vm->irq.lock);
	dev->vm = vm;
	dev->ops = ops;
	dev->nr_ranges = nr_ranges;
	list_add(&dev->link, &vm->irq.devices);
	for (i = 0; !ret && i < nr_ranges; i++)
		ret = irq_bus_add(vm, ops->ranges[i].bus, ops->ranges[i].addr, ops->ranges[i].len,
				  range_dev(dev, &ops->ranges[i]));
	if (ret)
		irq_device_remove(dev);
	return ret;
}

static void devices_stop(struct keel_vm *vm)
{
	struct irq_device *dev;

	list_for_each_entry(dev, &vm->irq.devices, link)
		if (dev->ops->stop)
			dev->ops->stop(dev);
}

/* All of them, stopped; or those that KVM_CREATE_IRQCHIP makes. */
static void devices_free(struct keel_vm *vm, bool all)
{
	struct irq_device *dev, *next;

	list_for_each_entry_safe(dev, next, &vm->irq.devices, link) {
		if (!all && !dev->ops->chips)
			continue;
		dev->ops->leave(dev);
		mutex_lock(&vm->slots_lock);
		irq_device_remove(dev);
		mutex_unlock(&vm->slots_lock);
	}
}

void irq_vm_stop(struct keel_vm *vm)
{
	devices_stop(vm);
	cancel_work_sync(&vm->irq.late);
}

void irq_vm_settle(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;
	unsigned int i;
	bool map = false;

	irq_late_wait(vm);
	/* LAPICs whose numbers have changed since: which pins that moves is in the IOAPIC. */
	keel_for_each_vcpu(vcpu, i, vm)
		map |= keel_take_request(KEEL_REQ_APIC_MAP, vcpu);
	if (map)
		irq_map_update(vm);
}

void irq_vm_still(struct keel_vm *vm)
{
	struct irq_device *dev;
	struct keel_vcpu *vcpu;
	unsigned int i;

	list_for_each_entry(dev, &vm->irq.devices, link)
		if (dev->ops->still)
			dev->ops->still(dev);
	irq_late_wait(vm);
	keel_for_each_vcpu(vcpu, i, vm)
		if (vcpu->apic)
			irq_inbox_discard(vcpu->apic);
}

bool irq_sources_set(u8 *sources, const u8 *state, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (state[i] & ~IRQ_STATE_SOURCES)
			return false;
	for (i = 0; i < n; i++)
		sources[i] = state[i] | (sources[i] & ~IRQ_STATE_SOURCES);
	return true;
}

/* vCPUs and their LAPICs are gone. */
void irq_vm_destroy(struct keel_vm *vm)
{
	devices_stop(vm);
	devices_free(vm, true);
	irq_routes_free(vm);
	irq_acks_free(vm);
	kfree(vm->irq.irqfds);
	kvfree(rcu_dereference_protected(vm->irq.apics, true));
	RCU_INIT_POINTER(vm->irq.apics, NULL);
	irq_coalesced_free(vm);
	irq_buses_free(vm);
}

VM_IOCTL(irq_create_irqchip)
{
	int ret;

	lockdep_assert_held(&vm->lock);
	if (vm->irq.mode != IRQCHIP_NONE)
		return -EEXIST;
	if (vm->nr_vcpus)
		return -EINVAL;

	mutex_lock(&vm->irq.lock);
	mutex_lock(&vm->slots_lock);
	ret = irq_pic_create(vm);
	if (!ret)
		ret = irq_ioapic_create(vm);
	mutex_unlock(&vm->slots_lock);
	if (ret) {
		devices_free(vm, false);
	} else {
		irq_first_routes(vm, true);
		smp_store_release(&vm->irq.mode, IRQCHIP_KERNEL);
	}
	mutex_unlock(&vm->irq.lock);
	return ret;
}

long irq_enable_split(struct keel_vm *vm, u64 pins)
{
	lockdep_assert_held(&vm->lock);
	if (pins > IRQ_MAX_GSI)
		return -EINVAL;
	if (vm->irq.mode != IRQCHIP_NONE || vm->nr_vcpus || vm->irq.pit)
		return -EEXIST;
	mutex_lock(&vm->irq.lock);
	irq_first_routes(vm, false);
	vm->irq.split_pins = pins;
	smp_store_release(&vm->irq.mode, IRQCHIP_SPLIT);
	mutex_unlock(&vm->irq.lock);
	return 0;
}

long irq_enable_x2apic_api(struct keel_vm *vm, u64 flags)
{
	const bool on = flags & KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST;
	const bool off = flags & KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST;

	if (flags & ~(u64)IRQ_X2APIC_API_FLAGS || (on && (off || vm->irq.mode != IRQCHIP_SPLIT)))
		return -EINVAL;
	if (flags & KVM_X2APIC_API_USE_32BIT_IDS)
		vm->irq.x2apic_32bit_ids = true;
	if (flags & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
		vm->irq.x2apic_no_bcast_quirk = true;
	if (on || off)
		vm->irq.eoi_suppress = on ? SUPPRESS_ON : SUPPRESS_OFF;
	return 0;
}

u64 irq_x2apic_api(const struct keel_vm *vm)
{
	return (vm->irq.x2apic_32bit_ids ? KVM_X2APIC_API_USE_32BIT_IDS : 0) |
	       (vm->irq.x2apic_no_bcast_quirk ? KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK : 0) |
	       (vm->irq.eoi_suppress == SUPPRESS_ON ? KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST : 0) |
	       (vm->irq.eoi_suppress == SUPPRESS_OFF ? KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST : 0);
}

/* The longest period there is must be a number of nanoseconds. */
long irq_set_bus_cycle(struct keel_vm *vm, u64 ns)
{
	u64 longest;

	lockdep_assert_held(&vm->lock);
	if (!ns || check_mul_overflow((u64)U32_MAX << IRQ_TIMER_MAX_SHIFT, ns, &longest))
		return -EINVAL;
	if (vm->irq.mode == IRQCHIP_NONE)
		return -ENXIO;
	if (vm->nr_vcpus)
		return -EINVAL;
	vm->irq.bus_cycle_ns = ns;
	return 0;
}

static struct irq_device *device_of(struct keel_vm *vm, u32 chip)
{
	struct irq_device *dev;

	list_for_each_entry(dev, &vm->irq.devices, link)
		if (chip < 32 && dev->ops->chips & BIT(chip))
			return dev;
	return NULL;
}

static long chip_state(struct keel_vm *vm, struct kvm_irqchip *chip, bool set)
{
	struct irq_device *dev;
	long ret = 0;

	if (vm->irq.mode != IRQCHIP_KERNEL)
		return -ENXIO;
	mutex_lock(&vm->irq.lock);
	dev = device_of(vm, chip->chip_id);
	if (!dev)
		ret = -EINVAL;
	else if (set)
		dev->ops->set(dev, chip->chip_id, &chip->chip);
	else
		dev->ops->get(dev, chip->chip_id, &chip->chip);
	mutex_unlock(&vm->irq.lock);
	return ret;
}

VM_IOCTL(irq_get_irqchip)
{
	return chip_state(vm, buf, false);
}

VM_IOCTL(irq_set_irqchip)
{
	struct kvm_irqchip *chip = memdup_user((void __user *)arg, sizeof(*chip));
	long ret;

	if (IS_ERR(chip))
		return PTR_ERR(chip);
	ret = chip_state(vm, chip, true);
	kfree(chip);
	return ret;
}
