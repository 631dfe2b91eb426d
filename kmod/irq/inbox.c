// SPDX-License-Identifier: GPL-2.0-only
/*
 * inbox.c - between those who send an interrupt and the IRR, which is the vCPU's thread's, or the CPU's while it runs
 * the LAPIC (SDM volume 3C, "Posted-Interrupt Processing", whose descriptor an inbox begins with).
 *
 * A sender leaves its vector in posted[], and tells the vCPU if ON was not set yet.  The vCPU's thread clears ON and
 * then moves what is posted to the IRR, and so may a CPU that knows of the inbox, without anybody's help.  What it has
 * no idea of waits in told[], which only the thread empties: interrupts that came as a level, and those of whose end
 * somebody has to hear.  They say so in the TMR, and to a CPU that does EOIs by itself, before the guest gets them.
 *
 * It is the same inbox whoever runs the LAPIC: senders need not know, nor be waited for when that changes.
 *
 * Lock: none.  A vector stays in the inbox until it is in the IRR, so that one which comes meanwhile knows that it is
 * merged.
 */
#include "internal.h"

int irq_inbox_tell(struct keel_lapic *apic, u8 vector, bool level)
{
	struct irq_inbox *in = &apic->inbox;
	bool merged;

	if (level)
		set_bit(vector, in->levels);
	else
		clear_bit(vector, in->levels);
	if (test_and_set_bit(vector, in->told))
		return 0;
	merged = test_bit(vector & 31, apic_vec_word(apic, APIC_IRR, vector));
	/* ON would not do: a CPU that clears it does not look here. */
	set_bit(INBOX_TOLD, &in->news);
	keel_vcpu_notify(apic->vcpu);
	return !merged;
}

static __always_inline void fold_word(struct keel_lapic *apic, unsigned int i, unsigned long *from,
				      unsigned long vectors, unsigned long levels)
{
	irq_into_irr(apic, 2 * i, vectors, levels);
	irq_into_irr(apic, 2 * i + 1, vectors >> 32, levels >> 32);
	atomic_long_andnot(vectors, (atomic_long_t *)&from[i]);
}

static noinline void fold_told(struct keel_lapic *apic)
{
	struct irq_inbox *in = &apic->inbox;
	unsigned int i, bit;

	clear_bit(INBOX_TOLD, &in->news);
	smp_mb__after_atomic();
	for (i = 0; i < ARRAY_SIZE(in->told); i++) {
		unsigned long new = READ_ONCE(in->told[i]);

		if (!new)
			continue;
		fold_word(apic, i, in->told, new, READ_ONCE(in->levels[i]) & new);
		for_each_set_bit(bit, &new, BITS_PER_LONG)
			irq_apicv_watch(apic, i * BITS_PER_LONG + bit);
	}
}

static __always_inline void fold_posted(struct keel_lapic *apic, unsigned int i)
{
	unsigned long new = READ_ONCE(apic->inbox.posted[i]);

	if (new)
		fold_word(apic, i, apic->inbox.posted, new, 0);
}

void irq_inbox_fold(struct keel_lapic *apic)
{
	struct irq_inbox *in = &apic->inbox;

	clear_bit(INBOX_ON, (unsigned long *)&in->control);
	smp_mb__after_atomic();		/* who finds it set has its vector seen below */
	fold_posted(apic, 0);
	fold_posted(apic, 1);
	fold_posted(apic, 2);
	fold_posted(apic, 3);
	if (unlikely(test_bit(INBOX_TOLD, &in->news)))
		fold_told(apic);
}

/* But for the timer, which has its own way of being stopped. */
void irq_inbox_discard(struct keel_lapic *apic)
{
	struct irq_inbox *in = &apic->inbox;

	clear_bit(INBOX_ON, (unsigned long *)&in->control);
	clear_bit(INBOX_TOLD, &in->news);
	smp_mb__after_atomic();
	bitmap_zero(in->posted, 256);
	bitmap_zero(in->told, 256);
}
