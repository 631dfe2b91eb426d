// SPDX-License-Identifier: GPL-2.0-only
/*
 * vapic.c - the VAPIC page (KVM_SET_VAPIC_ADDR, api.rst 4.37): a word of guest memory in which a patched
 * 32-bit guest finds what it needs to write its TPR without an exit, and leaves the TPR it wrote.
 *
 * Byte 0 is the TPR, byte 1 the class in service, byte 3 the highest requested vector.  The word is brought
 * up to date outside the fast loop, which a vCPU with such a page leaves at each exit: guests that use it are rare, and
 * rather slow anyway.  It is looked at before what the guest has exited for, which may write the TPR as well; after that
 * only if the page is away just then.
 *
 * Lock: vcpu->mutex.
 */
#include "internal.h"

VCPU_IOCTL(irq_set_vapic_addr)
{
	struct kvm_vapic_addr *va = buf;
	u8 probe;

	if (!vcpu->apic)
		return -EINVAL;
	if (va->vapic_addr && keel_vcpu_read(vcpu, va->vapic_addr, &probe, 1))
		return -EINVAL;
	irq_vapic_set(vcpu, va->vapic_addr);
	irq_apicv_check(vcpu);
	return 0;
}

void irq_vapic_set(struct keel_vcpu *vcpu, u64 addr)
{
	vcpu->apic->vapic_addr = addr;
	vcpu->vapic = addr;
}

void irq_vapic_enter(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;
	int irr;
	u32 word = apic_reg(apic, APIC_TASKPRI) & 0xff;

	apic_timer_settle(apic);
	irq_inbox_look(apic);
	irr = irq_highest_irr(apic);
	if (apic->isr_top >= 0)
		word |= (apic->isr_top & 0xf0) << 8;
	if (irr >= 0)
		word |= (u32)irr << 24;
	/* A page the VMM took away since is the guest's loss. */
	keel_vcpu_write(vcpu, apic->vapic_addr, &word, sizeof(word));
}

int irq_vapic_leave(struct keel_vcpu *vcpu)
{
	u8 tpr;
	int err = keel_vcpu_read(vcpu, vcpu->apic->vapic_addr, &tpr, 1);

	if (!err)
		irq_lapic_set_tpr(vcpu, tpr);
	return err;
}
