// SPDX-License-Identifier: GPL-2.0-only
/*
 * ack.c - who is to hear that the guest has handled an interrupt: the PIT, which counts ticks, and resampling irqfds,
 * which look at their device's line again.  One object a GSI, in a table; what it costs to ask whether anybody wants
 * to know of a GSI does not depend on how many do, or of how many others.
 *
 * Locks: those who join have irq.lock, which also guards making the object; the list changes under irqfds_lock, and is
 * read under RCU.  An object stays until the VM goes: there are as many as a routing table may have GSIs, at most.
 */
#include <linux/slab.h>
#include "internal.h"

struct irq_ack {
	u32 gsi;
	unsigned int nr;		/* that wait: changed under irqfds_lock, read by anyone */
	unsigned int lines;		/* of these hold the line up */
	struct list_head ackers;
};

/* An eventfd each, to be signalled when the guest ends its interrupt. */
#define ACKERS_MOST	4096

static struct irq_ack *find_or_make(struct keel_vm *vm, u32 gsi)
{
	struct irq_ack *ack = xa_load(&vm->irq.acks, gsi);
	int err;

	lockdep_assert_held(&vm->irq.lock);
	if (ack)
		return ack;
	ack = kzalloc(sizeof(*ack), GFP_KERNEL_ACCOUNT);
	if (!ack)
		return ERR_PTR(-ENOMEM);
	ack->gsi = gsi;
	INIT_LIST_HEAD(&ack->ackers);
	err = xa_err(xa_store(&vm->irq.acks, gsi, ack, GFP_KERNEL_ACCOUNT));
	if (!err)
		return ack;
	kfree(ack);
	return ERR_PTR(err);
}

int irq_ack_join(struct keel_vm *vm, u32 gsi, struct irq_acker *acker)
{
	struct irq_ack *ack;
	bool first;

	if (gsi >= IRQ_MAX_GSI)		/* no route leads there: it will wait in vain */
		return 0;
	ack = find_or_make(vm, gsi);
	if (IS_ERR(ack))
		return PTR_ERR(ack);
	if (ack->nr >= ACKERS_MOST)
		return -EBUSY;
	spin_lock_irq(&vm->irq.irqfds_lock);
	acker->ack = ack;
	list_add_tail_rcu(&acker->link, &ack->ackers);
	if (acker->holds_line) {
		WRITE_ONCE(ack->lines, ack->lines + 1);
		WRITE_ONCE(vm->irq.nr_resample, vm->irq.nr_resample + 1);
	}
	first = !ack->nr;
	WRITE_ONCE(ack->nr, ack->nr + 1);
	spin_unlock_irq(&vm->irq.irqfds_lock);
	if (first)
		irq_ioapic_rescan(vm);
	return 0;
}

void irq_ack_leave(struct keel_vm *vm, struct irq_acker *acker)
{
	struct irq_ack *ack = acker->ack;

	if (!ack)
		return;
	spin_lock_irq(&vm->irq.irqfds_lock);
	list_del_rcu(&acker->link);
	WRITE_ONCE(ack->nr, ack->nr - 1);
	if (acker->holds_line) {
		WRITE_ONCE(ack->lines, ack->lines - 1);
		WRITE_ONCE(vm->irq.nr_resample, vm->irq.nr_resample - 1);
		/* Under the lock: who joins next may raise it. */
		if (!ack->lines)
			irq_set_gsi(vm, SOURCE_RESAMPLE, ack->gsi, false);
	}
	spin_unlock_irq(&vm->irq.irqfds_lock);
	if (!READ_ONCE(ack->nr))
		irq_ioapic_rescan(vm);
}

bool irq_ack_wanted(struct keel_vm *vm, u32 gsi)
{
	struct irq_ack *ack = xa_load(&vm->irq.acks, gsi);

	return ack && READ_ONCE(ack->nr);
}

void irq_ack_tell(struct keel_vm *vm, u32 gsi)
{
	struct irq_ack *ack = xa_load(&vm->irq.acks, gsi);
	struct irq_acker *acker;

	if (!ack)
		return;
	/* Once for all: who still has cause raises it again. */
	if (READ_ONCE(ack->lines))
		irq_set_gsi(vm, SOURCE_RESAMPLE, gsi, false);
	rcu_read_lock();
	list_for_each_entry_rcu(acker, &ack->ackers, link)
		acker->acked(acker);
	rcu_read_unlock();
}

/* Nobody is left who could tell or join. */
void irq_acks_free(struct keel_vm *vm)
{
	struct irq_ack *ack;
	unsigned long gsi;

	xa_for_each(&vm->irq.acks, gsi, ack)
		kfree(ack);
	xa_destroy(&vm->irq.acks);
}
