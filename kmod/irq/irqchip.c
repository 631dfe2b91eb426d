// SPDX-License-Identifier: GPL-2.0-only
/*
 * irqchip.c - which interrupt controllers a VM has: their creation, state in and out, end.
 */
#include <linux/slab.h>
#include <linux/string.h>
#include "internal.h"

int irq_vm_init(struct keel_vm *vm)
{
	mutex_init(&vm->irq.lock);
	spin_lock_init(&vm->irq.map_lock);
	spin_lock_init(&vm->irq.irqfds_lock);
	xa_init_flags(&vm->irq.acks, XA_FLAGS_ACCOUNT);
	INIT_WORK(&vm->irq.late, irq_late_work);
	irq_buses_init(vm);
	return irq_coalesced_init(vm);
}

void irq_vm_release(struct keel_vm *vm)
{
	irq_irqfds_release(vm);
	irq_ioeventfds_release(vm);
}

void irq_vm_stop(struct keel_vm *vm)
{
	irq_pit_stop(vm);
	irq_ioapic_stop(vm);
	cancel_work_sync(&vm->irq.late);
}

/* Also after an irq_vm_init() that failed; vCPUs and their LAPICs are gone. */
void irq_vm_destroy(struct keel_vm *vm)
{
	irq_pit_destroy(vm);
	irq_ioapic_destroy(vm);
	irq_pic_destroy(vm);
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
	if (!ret)
		ret = irq_default_routes(vm);
	if (ret) {
		irq_ioapic_destroy(vm);
		irq_pic_destroy(vm);
	} else {
		smp_store_release(&vm->irq.mode, IRQCHIP_KERNEL);
	}
	mutex_unlock(&vm->irq.lock);
	return ret;
}

long irq_enable_split(struct keel_vm *vm, u64 pins)
{
	int ret;

	lockdep_assert_held(&vm->lock);
	if (pins > IRQ_MAX_GSI)
		return -EINVAL;
	if (vm->irq.mode != IRQCHIP_NONE || vm->nr_vcpus)
		return -EEXIST;
	mutex_lock(&vm->irq.lock);
	ret = irq_empty_routes(vm);
	if (!ret) {
		vm->irq.split_pins = pins;
		smp_store_release(&vm->irq.mode, IRQCHIP_SPLIT);
	}
	mutex_unlock(&vm->irq.lock);
	return ret;
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

VM_IOCTL(irq_get_irqchip)
{
	struct kvm_irqchip *chip = buf;

	if (vm->irq.mode != IRQCHIP_KERNEL)
		return -ENXIO;
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		irq_pic_get(vm, chip->chip_id, &chip->chip.pic);
		return 0;
	case KVM_IRQCHIP_IOAPIC:
		irq_ioapic_get(vm, &chip->chip.ioapic);
		return 0;
	}
	return -EINVAL;
}

static long set_irqchip(struct keel_vm *vm, const struct kvm_irqchip *chip)
{
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		irq_pic_load(vm, chip->chip_id, &chip->chip.pic);
		return 0;
	case KVM_IRQCHIP_IOAPIC:
		irq_ioapic_load(vm, &chip->chip.ioapic);
		return 0;
	}
	return -EINVAL;
}

VM_IOCTL(irq_set_irqchip)
{
	struct kvm_irqchip *chip = memdup_user((void __user *)arg, sizeof(*chip));
	long ret = -ENXIO;

	if (IS_ERR(chip))
		return PTR_ERR(chip);
	if (vm->irq.mode == IRQCHIP_KERNEL)
		ret = set_irqchip(vm, chip);
	kfree(chip);
	return ret;
}
