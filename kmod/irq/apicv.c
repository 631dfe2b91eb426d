// SPDX-License-Identifier: GPL-2.0-only
/*
 * apicv.c - a LAPIC in x2APIC mode that the CPU runs by itself, on our register page (SDM volume 3C, "APIC
 * Virtualization and Virtual Interrupts"): it delivers what is in the IRR when priorities allow, and does EOI, TPR,
 * self-IPIs and reads without an exit.  What is left here is to tell it what has arrived, and to hear of those ends of
 * interrupts that others wait for.
 *
 * While a guest runs its page is the CPU's, and what arrives stays in the inbox.  Of lapic.c's copies (isr_top, ppr,
 * irr_words) none holds then; irq_apicv_update() makes them anew when the CPU's help ends.  It does where software has
 * a say in each delivery or end: with a SynIC, the VAPIC page, or interrupts held back by a debugger.
 *
 * Lock: none; the vCPU's thread.
 */
#include "ops.h"
#include "internal.h"

/* Asked when @vector arrives, and when it was told: perhaps in vain. */
void irq_apicv_watch(struct keel_lapic *apic, u8 vector)
{
	bool watch = !irq_ends_unnoticed(apic, vector);

	if (!apic->by_cpu || test_bit(vector, apic->watched) == watch)
		return;
	__change_bit(vector, apic->watched);
	apic->watched_stale = true;
}

static void tell_watched(struct keel_lapic *apic)
{
	apic->watched_stale = false;
	keel_hw.lapic->set_watched(apic->vcpu, apic->watched);
}

void irq_apicv_sync(struct keel_lapic *apic)
{
	if (irq_inbox_full(apic)) {
		apic_timer_settle(apic);
		irq_inbox_fold(apic);
	}
	if (unlikely(apic->watched_stale))
		tell_watched(apic);
	keel_hw.lapic->set_requested(apic->vcpu, irq_highest(apic, APIC_IRR));
}

/* Would the CPU deliver something now?  Asked of a vCPU that sleeps. */
bool irq_apicv_pending(struct keel_lapic *apic)
{
	apic_timer_settle(apic);
	irq_inbox_look(apic);
	/* The PPR is kept by the CPU, too. */
	return irq_highest(apic, APIC_IRR) >> 4 > (int)(apic_reg(apic, APIC_PROCPRI) >> 4);
}

static bool wanted(const struct keel_lapic *apic)
{
	const struct keel_vcpu *vcpu = apic->vcpu;

	return apic->enabled && apic_is_x2(apic) && !vcpu->hv && !apic->vapic_addr &&
	       !(vcpu->debug.control & KVM_GUESTDBG_BLOCKIRQ);
}

void irq_apicv_check(struct keel_vcpu *vcpu)
{
	if (keel_hw.lapic && vcpu->apic)
		keel_request(KEEL_REQ_APICV, vcpu);
}

void irq_apicv_update(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;
	bool was = apic->by_cpu, on = wanted(apic);
	unsigned int vector;

	irq_pv_eoi_settle(vcpu);
	apic->by_cpu = on;
	irq_inbox_fold(apic);
	irq_rebuild_copies(apic);
	keel_request(KEEL_REQ_EVENT, vcpu);
	if (on) {
		for (vector = 16; vector < 256; vector++)
			if (test_bit(vector & 31, apic_vec_word(apic, APIC_IRR, vector)) ||
			    test_bit(vector & 31, apic_vec_word(apic, APIC_ISR, vector)))
				irq_apicv_watch(apic, vector);
		keel_hw.lapic->run(vcpu, true);
		keel_hw.lapic->set_in_service(vcpu, apic->isr_top);
		tell_watched(apic);
	} else if (was) {
		keel_hw.lapic->run(vcpu, false);
	}
}
