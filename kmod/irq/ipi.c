// SPDX-License-Identifier: GPL-2.0-only
/*
 * ipi.c - which LAPICs an interrupt message is for (SDM volume 3, "Determining IPI Destination"; x2APIC: "Logical
 * Destination Mode in x2APIC Mode").
 *
 * A message looks at one table entry for a physical destination and at one per set bit for a logical one.  Only
 * where that is not possible - broadcasts, guests that renumber APICs, mixed modes - all LAPICs are asked.  A
 * table only proposes: apic_matches() decides, so a table that is being rebuilt can do no harm.
 *
 * Locks: table of LAPICs: RCU, written under irq.lock.  Logical map: map_lock, read without.
 */
#include <linux/nospec.h>
#include <linux/slab.h>
#include "internal.h"

/* LAPICs that may be asked with interrupts off; a cluster has 16. */
#define SCAN_AT_ONCE	16

struct targets {
	struct keel_vm *vm;
	const struct keel_lapic *src;
	const struct irq_msg *msg;
	struct keel_lapic *const *tab;
	u32 size, base;
	bool scan;
	unsigned long mask;	/* !scan: bits, from base, of the entries to look at */
};

static bool is_broadcast(const struct targets *t, bool target_x2)
{
	u32 dest = t->msg->dest;

	if (t->src)
		return dest == (apic_is_x2(t->src) ? U32_MAX : 0xff);
	/* Devices know 8-bit ids only unless the VMM says so: their 0xff is meant for all. */
	return dest == U32_MAX || (dest == 0xff && !(target_x2 && t->vm->irq.x2apic_no_bcast_quirk));
}

static bool matches_logical(const struct keel_lapic *apic, u32 dest, bool x2)
{
	u32 ldr;

	if (x2) {
		ldr = apic_x2_ldr(apic);
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	}
	if (dest > 0xff)
		return false;
	ldr = GET_APIC_LOGICAL_ID(apic_reg(apic, APIC_LDR));
	switch (apic_reg(apic, APIC_DFR) >> 28) {
	case 0xf:	/* flat */
		return ldr & dest;
	case 0:		/* clusters */
		return ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
	}
	return false;
}

/* An xAPIC id has 8 bits; APICs past them go by their full id before they are in x2APIC mode, too. */
static bool matches_physical(const struct keel_lapic *apic, u32 dest, bool x2)
{
	if (x2 || apic->vcpu->id > 0xff)
		return dest == apic->vcpu->id;
	return dest == GET_XAPIC_DEST_FIELD(apic_reg(apic, APIC_ID));
}

static bool apic_matches(const struct targets *t, const struct keel_lapic *apic)
{
	const struct irq_msg *msg = t->msg;
	bool x2 = apic_is_x2(apic);

	if (!apic_on(apic))
		return false;
	if (msg->shorthand)
		return msg->shorthand == APIC_DEST_ALLINC || apic != t->src;
	if (is_broadcast(t, x2))
		return true;
	if (msg->logical)
		return matches_logical(apic, msg->dest, x2);
	return matches_physical(apic, msg->dest, x2);
}

bool irq_msg_reaches(const struct keel_lapic *apic, const struct irq_msg *msg)
{
	struct targets t = { .vm = apic->vcpu->vm, .msg = msg };

	return apic_matches(&t, apic);
}

/* Most messages name one APIC, which is where its id says.  NULL: not so simple, or not there.  RCU. */
static struct keel_lapic *one_target(const struct keel_vm *vm, const struct irq_msg *msg)
{
	const struct irq_apics *all = rcu_dereference_check(vm->irq.apics, !preemptible());
	u32 dest = msg->dest;
	struct keel_lapic *apic;
	u64 base;

	if (msg->shorthand || msg->logical || dest == 0xff || !all || dest >= all->size || READ_ONCE(vm->irq.ids_moved))
		return NULL;
	apic = READ_ONCE(all->apic[array_index_nospec(dest, all->size)]);
	if (!apic)
		return NULL;
	base = READ_ONCE(apic->vcpu->apic_base);
	return base & XAPIC_ENABLE && matches_physical(apic, dest, base & X2APIC_ENABLE) ? apic : NULL;
}

static struct keel_lapic *next_target(struct targets *t)
{
	struct keel_lapic *apic;
	unsigned int bit;

	if (t->scan) {
		while (t->base < t->size) {
			apic = READ_ONCE(t->tab[t->base++]);
			if (apic && apic_matches(t, apic))
				return apic;
		}
		return NULL;
	}
	while (t->mask) {
		bit = __ffs(t->mask);
		t->mask &= t->mask - 1;
		if (bit >= t->size || t->base >= t->size - bit)
			return NULL;
		apic = READ_ONCE(t->tab[array_index_nospec(t->base + bit, t->size)]);
		if (apic && apic_matches(t, apic))
			return apic;
	}
	return NULL;
}

/* RCU. */
static bool targets_init(struct targets *t, struct keel_vm *vm, const struct keel_lapic *src,
			 const struct irq_msg *msg)
{
	const struct irq_apics *all = rcu_dereference_check(vm->irq.apics, !preemptible());
	u32 dest = msg->dest;

	if (!all)
		return false;
	*t = (struct targets){ .vm = vm, .src = src, .msg = msg, .tab = all->apic, .size = all->size };

	if (msg->shorthand || dest == 0xff || dest == U32_MAX) {
		t->scan = true;
		return true;
	}
	if (!msg->logical) {
		t->scan = READ_ONCE(vm->irq.ids_moved);
		if (!t->scan) {
			t->base = dest;
			t->mask = 1;
		}
		return true;
	}
	switch (smp_load_acquire(&vm->irq.logical)) {
	case LOGICAL_X2APIC:
		t->base = (dest >> 16) * 16;
		t->mask = dest & 0xffff;
		break;
	case LOGICAL_FLAT:
		t->tab = vm->irq.logical_map;
		t->size = 8;
		t->mask = dest <= 0xff ? dest : 0;
		break;
	case LOGICAL_CLUSTER:
		t->tab = vm->irq.logical_map;
		t->size = 64;
		t->base = (dest >> 4 & 0xf) * 4;
		t->mask = dest <= 0xff ? dest & 0xf : 0;
		break;
	default:
		t->scan = true;
	}
	return true;
}

/* One of the addressed takes it; the vector says which, so that one interrupt stays with one CPU's cache. */
static int deliver_lowest(struct targets *t, const struct irq_msg *msg)
{
	struct targets again = *t;
	struct keel_lapic *apic;
	unsigned int n = 0, pick;

	while ((apic = next_target(t)))
		n += READ_ONCE(apic->enabled);
	if (!n)
		return -1;
	pick = msg->vector % n;
	while ((apic = next_target(&again))) {
		if (READ_ONCE(apic->enabled) && pick-- == 0)
			return irq_apic_accept(apic, msg);
	}
	return -1;	/* one was switched off in between */
}

/* Apart, so that what one target takes has no more of a frame than it needs. */
static noinline int deliver_many(struct keel_vm *vm, struct keel_lapic *src, const struct irq_msg *msg)
{
	struct keel_lapic *apic;
	struct targets t;
	int ret = -1, r;

	rcu_read_lock();
	if (!targets_init(&t, vm, src, msg)) {
		/* no LAPIC yet */
	} else if (t.scan && t.size > SCAN_AT_ONCE && irqs_disabled()) {
		ret = IRQ_LATER;
	} else if (msg->lowest && (msg->mode == APIC_DM_LOWEST || msg->mode == APIC_DM_FIXED)) {
		ret = deliver_lowest(&t, msg);
	} else {
		while ((apic = next_target(&t))) {
			r = irq_apic_accept(apic, msg);
			if (r >= 0)
				ret = max(ret, 0) + r;
		}
	}
	rcu_read_unlock();
	return ret;
}

int irq_deliver(struct keel_vm *vm, struct keel_lapic *src, const struct irq_msg *msg)
{
	struct keel_lapic *apic;
	int ret = -1;

	if (msg->shorthand == APIC_DEST_SELF)
		return irq_apic_accept(src, msg);

	/* For one target this is the cheaper read side of RCU. */
	preempt_disable();
	apic = one_target(vm, msg);
	if (apic)
		ret = irq_apic_accept(apic, msg);
	preempt_enable();
	return apic ? ret : deliver_many(vm, src, msg);
}

long irq_send_ipis(struct keel_vcpu *vcpu, const u64 mask[2], unsigned int width, u32 first, u32 icr)
{
	struct irq_msg msg = {
		.mode = icr & APIC_MODE_MASK,
		.vector = icr & APIC_VECTOR_MASK,
		.level = (icr & APIC_MODE_MASK) == APIC_DM_INIT && icr & APIC_INT_LEVELTRIG,
		.assert = icr & APIC_INT_ASSERT,
	};
	const struct irq_apics *all;
	struct keel_lapic *apic;
	unsigned int i;
	long taken = 0;

	rcu_read_lock();
	all = rcu_dereference(vcpu->vm->irq.apics);
	for (i = 0; all && i < 2; i++) {
		u64 left = mask[i];

		for (; left; left &= left - 1) {
			u64 id = (u64)first + i * width + __ffs64(left);

			if (id >= all->size)
				break;
			apic = READ_ONCE(all->apic[array_index_nospec(id, all->size)]);
			if (apic && apic_on(apic) && irq_apic_accept(apic, &msg) >= 0)
				taken++;
		}
	}
	rcu_read_unlock();
	return taken;
}

/* Enter @apic into the map; false if it does not fit in with those already there. */
static bool map_logical(struct keel_lapic **map, u8 *kind, struct keel_lapic *apic)
{
	u32 ldr = GET_APIC_LOGICAL_ID(apic_reg(apic, APIC_LDR));
	u32 dfr = apic_reg(apic, APIC_DFR) >> 28;
	unsigned int bit, base;
	u8 mine;

	if (apic_is_x2(apic)) {
		mine = LOGICAL_X2APIC;
	} else {
		if (!ldr || (dfr && dfr != 0xf))
			return true;		/* no logical destination reaches it */
		mine = dfr ? LOGICAL_FLAT : LOGICAL_CLUSTER;
	}
	if (*kind != LOGICAL_SCAN && *kind != mine)
		return false;
	*kind = mine;
	if (mine == LOGICAL_X2APIC)
		return true;

	base = dfr ? 0 : (ldr >> 4) * 4;
	for (bit = 0; bit < (dfr ? 8 : 4); bit++) {
		if (!(ldr & BIT(bit)))
			continue;
		if (map[base + bit])
			return false;
		map[base + bit] = apic;
	}
	return true;
}

void irq_map_update(struct keel_vm *vm)
{
	struct keel_lapic *map[ARRAY_SIZE(vm->irq.logical_map)] = {};
	const struct irq_apics *all;
	bool fits = true, moved = false;
	u8 kind = LOGICAL_SCAN;
	u32 i;

	spin_lock(&vm->irq.map_lock);
	rcu_read_lock();
	all = rcu_dereference(vm->irq.apics);
	for (i = 0; all && i < all->size; i++) {
		struct keel_lapic *apic = READ_ONCE(all->apic[i]);

		if (!apic || !apic_on(apic))
			continue;
		if (!apic_is_x2(apic) && i <= 0xff && GET_XAPIC_DEST_FIELD(apic_reg(apic, APIC_ID)) != i)
			moved = true;
		fits = fits && map_logical(map, &kind, apic);
	}
	rcu_read_unlock();

	/* Entries that stay are left alone: others deliver through them meanwhile. */
	WRITE_ONCE(vm->irq.ids_moved, moved);
	for (i = 0; fits && i < ARRAY_SIZE(map); i++) {
		if (vm->irq.logical_map[i] != map[i])
			WRITE_ONCE(vm->irq.logical_map[i], map[i]);
	}
	smp_store_release(&vm->irq.logical, fits ? kind : LOGICAL_SCAN);
	spin_unlock(&vm->irq.map_lock);
	irq_ioapic_apics_changed(vm);
}

void irq_map_stale(struct keel_vm *vm)
{
	WRITE_ONCE(vm->irq.ids_moved, true);
	smp_store_release(&vm->irq.logical, LOGICAL_SCAN);
}

int irq_map_add(struct keel_lapic *apic)
{
	struct keel_vm *vm = apic->vcpu->vm;
	struct irq_apics *old, *new;
	u32 id = apic->vcpu->id, size;

	mutex_lock(&vm->irq.lock);
	old = rcu_dereference_protected(vm->irq.apics, lockdep_is_held(&vm->irq.lock));
	if (!old || id >= old->size) {
		size = max_t(u32, 8, roundup_pow_of_two(id + 1));
		new = kvzalloc(struct_size(new, apic, size), GFP_KERNEL_ACCOUNT);
		if (!new) {
			mutex_unlock(&vm->irq.lock);
			return -ENOMEM;
		}
		new->size = size;
		if (old)
			memcpy(new->apic, old->apic, old->size * sizeof(new->apic[0]));
		new->apic[id] = apic;
		rcu_assign_pointer(vm->irq.apics, new);
		if (old)
			kvfree_rcu(old, rcu);
	} else {
		smp_store_release(&old->apic[id], apic);
	}
	mutex_unlock(&vm->irq.lock);
	return 0;
}

void irq_map_remove(struct keel_lapic *apic)
{
	struct keel_vm *vm = apic->vcpu->vm;
	struct irq_apics *all;
	u32 i;

	mutex_lock(&vm->irq.lock);
	all = rcu_dereference_protected(vm->irq.apics, lockdep_is_held(&vm->irq.lock));
	if (all && apic->vcpu->id < all->size && all->apic[apic->vcpu->id] == apic)
		WRITE_ONCE(all->apic[apic->vcpu->id], NULL);
	spin_lock(&vm->irq.map_lock);
	for (i = 0; i < ARRAY_SIZE(vm->irq.logical_map); i++) {
		if (vm->irq.logical_map[i] == apic)
			WRITE_ONCE(vm->irq.logical_map[i], NULL);
	}
	spin_unlock(&vm->irq.map_lock);
	mutex_unlock(&vm->irq.lock);

	/* Only a vCPU whose creation failed goes while others may be sending to it. */
	if (refcount_read(&vm->refs))
		synchronize_rcu();
}
