// SPDX-License-Identifier: GPL-2.0-only
/*
 * pv_eoi.c - end of interrupt without an exit (Documentation/virt/kvm/x86/msr.rst: MSR_KVM_PV_EOI_EN).
 *
 * With an interrupt of which nobody but the guest has to know that it ended, while no other waits, a bit in guest
 * memory is set: an offer, which the guest takes by clearing the bit instead of writing the EOI register.  Whoever
 * needs to know what is in service settles the offer first: taken, it was an EOI; else it is taken back, and the guest
 * will write.
 *
 * In the fast loop the guest's page may not be at hand.  Then no interrupt is delivered until the offer is settled in
 * the slow loop, before the guest goes on (KEEL_REQ_PV_EOI): the next one would be mistaken for what ended, or offered
 * as well.
 *
 * Lock: none; the vCPU's thread.
 */
#include <asm/kvm_para.h>
#include "internal.h"

static u64 gpa(const struct keel_lapic *apic)
{
	return apic->vcpu->pv.eoi & ~(u64)KVM_MSR_ENABLED;
}

void irq_pv_eoi_offer(struct keel_lapic *apic)
{
	u8 set = KVM_PV_EOI_MASK;

	if (!apic->vcpu->smm && !keel_vcpu_write(apic->vcpu, gpa(apic), &set, sizeof(set)))
		apic->eoi_offer = EOI_OFFERED;
}

void irq_pv_eoi_settle(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;
	u8 val = KVM_PV_EOI_MASK, clear = 0;
	bool written;
	int err;

	if (!apic || apic->eoi_offer == EOI_NONE)
		return;
	err = keel_vcpu_read(vcpu, gpa(apic), &val, sizeof(val));
	if (!err && val & KVM_PV_EOI_MASK)
		err = keel_vcpu_write(vcpu, gpa(apic), &clear, sizeof(clear));
	if (err == -EAGAIN) {
		keel_request(KEEL_REQ_PV_EOI, vcpu);
		return;
	}
	/* A page that went away takes the offer with it.  What waited for this is looked at again. */
	written = apic->eoi_offer == EOI_WRITTEN;
	apic->eoi_offer = EOI_NONE;
	if (apic->irr_words)
		keel_request(KEEL_REQ_EVENT, vcpu);
	if (!err && !(val & KVM_PV_EOI_MASK)) {
		vcpu->stat.pv_eois++;
		irq_apic_eoi(apic);
	}
	if (written)
		irq_apic_eoi(apic);
}

/*
 * The guest writes the EOI register nevertheless: what it left of an offer before it does is settled.  Where that has to
 * wait so has this, or it would end what was offered in place of what is under it.  Does it?
 */
bool irq_pv_eoi_written(struct keel_lapic *apic)
{
	irq_pv_eoi_settle(apic->vcpu);
	if (!apic->eoi_offer)
		return false;
	apic->eoi_offer = EOI_WRITTEN;
	return true;
}

/* Without a LAPIC here the guest may say it as well: nothing is ever offered. */
int irq_pv_eoi_set(struct keel_vcpu *vcpu, u64 val)
{
	u8 probe;

	if (!IS_ALIGNED(val & ~(u64)KVM_MSR_ENABLED, 4))
		return 1;
	if (val & KVM_MSR_ENABLED && keel_vcpu_read(vcpu, val & ~(u64)KVM_MSR_ENABLED, &probe, sizeof(probe)))
		return 1;
	irq_pv_eoi_settle(vcpu);
	vcpu->pv.eoi = val;
	return 0;
}
