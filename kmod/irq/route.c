// SPDX-License-Identifier: GPL-2.0-only
/*
 * route.c - from a GSI to the pins and messages behind it; MSIs.
 *
 * The routing table never changes once published: a new one takes its place, the old one goes with kfree_rcu().
 * Writers hold irq.lock.  SDM volume 3, "Message Signalled Interrupts" has the message format.
 */
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/uaccess.h>
#include "internal.h"

struct irq_route {
	u32 gsi;
	enum { ROUTE_PIC, ROUTE_IOAPIC, ROUTE_MSI, ROUTE_SINT } type;
	union {
		u32 pin;
		struct {
			u32 vp_index, nr;
		} sint;
		struct {
			u32 address_lo, address_hi, data;
		} msi;
	};
};

struct irq_routes {
	struct rcu_head rcu;
	u32 nr_gsis;
	u32 nr;
	u32 nr_sints;
	bool shared;					/* what VMs begin with */
	u32 *sints;					/* those routes, by sint_key(); behind start[] */
	s16 pin_gsi[CHIP_COUNT][IRQ_IOAPIC_PINS];	/* -1: no GSI leads there */
	u32 *start;					/* nr_gsis + 1 indices into route[] */
	struct irq_route route[];			/* by GSI; start[] lies behind it */
};

/* ------------------------------------------------------------- delivery */
static int set_msi(struct keel_vm *vm, u32 lo, u32 hi, u32 data)
{
	struct irq_msg msg = {
		.dest = lo >> 12 & 0xff,
		.logical = lo & BIT(2),
		.lowest = lo & BIT(3),		/* redirection hint */
		.vector = data,
		.mode = data & APIC_MODE_MASK,
		.level = data & BIT(15),
		.assert = true,
	};

	if (vm->irq.x2apic_32bit_ids)
		msg.dest |= hi & 0xffffff00;
	if (msg.mode == APIC_DM_LOWEST)
		msg.lowest = true;
	return irq_deliver(vm, NULL, &msg) ?: 1;	/* merged with an earlier one is delivered, too */
}

void irq_late_queue(struct keel_vm *vm)
{
	WRITE_ONCE(vm->irq.has_late, true);
	queue_work(irq_wq, &vm->irq.late);
}

/* To ask whether it is queued takes long, beside all else that a reset does, and most VMs never have it. */
void irq_late_wait(struct keel_vm *vm)
{
	if (READ_ONCE(vm->irq.has_late))
		flush_work(&vm->irq.late);
}

static int route_msi(struct keel_vm *vm, const struct irq_route *e)
{
	int ret = set_msi(vm, e->msi.address_lo, e->msi.address_hi, e->msi.data);

	if (likely(ret != IRQ_LATER))
		return ret;
	set_bit(e->gsi, vm->irq.late_gsis);
	irq_late_queue(vm);
	return 1;
}

int irq_set_gsi(struct keel_vm *vm, enum irq_source source, u32 gsi, bool level)
{
	const struct irq_routes *t;
	int ret = -1, r;
	u32 i;

	rcu_read_lock();
	t = rcu_dereference(vm->irq.routes);
	if (t && gsi < t->nr_gsis) {
		gsi = array_index_nospec(gsi, t->nr_gsis);
		for (i = t->start[gsi]; i < t->start[gsi + 1]; i++) {
			const struct irq_route *e = &t->route[i];

			if (e->type == ROUTE_MSI)
				r = level ? route_msi(vm, e) : -1;
			else if (e->type == ROUTE_SINT)
				r = level ? keel_hv_set_sint(vm, e->sint.vp_index, e->sint.nr) : -1;
			else if (e->type == ROUTE_PIC)
				r = irq_pic_set(vm, e->pin, source, level);
			else
				r = irq_ioapic_set(vm, e->pin, source, level);
			if (r >= 0)
				ret = max(ret, 0) + r;
		}
	}
	rcu_read_unlock();
	return ret;
}

/* A message has its GSI for itself. */
static void send_late(struct keel_vm *vm, u32 gsi)
{
	const struct irq_routes *t;

	rcu_read_lock();
	t = rcu_dereference(vm->irq.routes);
	if (t && gsi < t->nr_gsis && t->start[gsi] < t->start[gsi + 1] && t->route[t->start[gsi]].type == ROUTE_MSI)
		route_msi(vm, &t->route[t->start[gsi]]);
	rcu_read_unlock();
}

void irq_late_work(struct work_struct *work)
{
	struct keel_vm *vm = container_of(work, struct keel_vm, irq.late);
	unsigned int pin;
	u32 gsi;

	for_each_set_bit(gsi, vm->irq.late_gsis, IRQ_MAX_GSI) {
		if (test_and_clear_bit(gsi, vm->irq.late_gsis))
			send_late(vm, gsi);
		cond_resched();
	}
	for_each_set_bit(pin, &vm->irq.late_pins, IRQ_IOAPIC_PINS) {
		if (test_and_clear_bit(pin, &vm->irq.late_pins))
			irq_ioapic_send_late(vm, pin);
		cond_resched();
	}
}

u32 irq_ioapic_pins_acked(struct keel_vm *vm)
{
	const struct irq_routes *t;
	unsigned int pin;
	u32 pins = 0;

	/* Of most VMs nobody waits for any. */
	if (xa_empty(&vm->irq.acks))
		return 0;
	rcu_read_lock();
	t = rcu_dereference(vm->irq.routes);
	for (pin = 0; t && pin < IRQ_IOAPIC_PINS; pin++) {
		int gsi = t->pin_gsi[CHIP_IOAPIC][pin];

		if (gsi >= 0 && irq_ack_wanted(vm, gsi))
			pins |= BIT(pin);
	}
	rcu_read_unlock();
	return pins;
}

void irq_acked(struct keel_vm *vm, enum irq_chip chip, unsigned int pin)
{
	const struct irq_routes *t;
	int gsi;

	rcu_read_lock();
	t = rcu_dereference(vm->irq.routes);
	gsi = t ? t->pin_gsi[chip][pin] : -1;
	if (gsi >= 0)
		irq_ack_tell(vm, gsi);
	rcu_read_unlock();
}

void irq_unmasked(struct keel_vm *vm, enum irq_chip chip, unsigned int pin)
{
	const struct irq_routes *t;
	bool pit;

	rcu_read_lock();
	t = rcu_dereference(vm->irq.routes);
	pit = t && t->pin_gsi[chip][pin] == 0;
	rcu_read_unlock();
	if (pit)
		irq_pit_unmasked(vm);
}

static u64 sint_key(u32 vp_index, u32 nr)
{
	return (u64)vp_index << 32 | nr;
}

/* Where in sints[] those with @key or a higher one begin. */
static u32 first_sint(const struct irq_routes *t, u64 key)
{
	u32 from = 0, to = t->nr_sints;

	while (from < to) {
		u32 mid = (from + to) / 2;
		const struct irq_route *e = &t->route[t->sints[mid]];

		if (sint_key(e->sint.vp_index, e->sint.nr) < key)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

void irq_sint_acked(struct keel_vm *vm, u32 vp_index, u32 sint)
{
	const u64 key = sint_key(vp_index, sint);
	const struct irq_routes *t;
	u32 i;

	rcu_read_lock();
	t = rcu_dereference(vm->irq.routes);
	for (i = t ? first_sint(t, key) : 0; t && i < t->nr_sints; i++) {
		const struct irq_route *e = &t->route[t->sints[i]];

		if (sint_key(e->sint.vp_index, e->sint.nr) != key)
			break;
		irq_ack_tell(vm, e->gsi);
	}
	rcu_read_unlock();
}

/* ------------------------------------------------------------- the table */
static int route_from_user(struct keel_vm *vm, struct irq_route *e, const struct kvm_irq_routing_entry *u)
{
	if (u->gsi >= IRQ_MAX_GSI)
		return -EINVAL;
	e->gsi = u->gsi;
	switch (u->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		if (u->flags || vm->irq.mode != IRQCHIP_KERNEL)
			return -EINVAL;
		e->pin = u->u.irqchip.pin;
		e->type = u->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC ? ROUTE_IOAPIC : ROUTE_PIC;
		switch (u->u.irqchip.irqchip) {
		case KVM_IRQCHIP_PIC_MASTER:
			return e->pin < 8 ? 0 : -EINVAL;
		case KVM_IRQCHIP_PIC_SLAVE:
			if (e->pin >= 8)
				return -EINVAL;
			e->pin += 8;
			return 0;
		case KVM_IRQCHIP_IOAPIC:
			return e->pin < IRQ_IOAPIC_PINS ? 0 : -EINVAL;
		}
		return -EINVAL;
	case KVM_IRQ_ROUTING_MSI:
		/* A device id is for interrupt controllers that tell devices apart; here it says nothing. */
		if (u->flags & ~KVM_MSI_VALID_DEVID)
			return -EINVAL;
		if (vm->irq.x2apic_32bit_ids && (u->u.msi.address_hi & 0xff))
			return -EINVAL;
		e->type = ROUTE_MSI;
		e->msi.address_lo = u->u.msi.address_lo;
		e->msi.address_hi = u->u.msi.address_hi;
		e->msi.data = u->u.msi.data;
		return 0;
	case KVM_IRQ_ROUTING_HV_SINT:
		if (u->flags || u->u.hv_sint.sint >= HV_SYNIC_SINT_COUNT)
			return -EINVAL;
		e->type = ROUTE_SINT;
		e->sint.vp_index = u->u.hv_sint.vcpu;
		e->sint.nr = u->u.hv_sint.sint;
		return 0;
	}
	return -EINVAL;
}

/* The routes of one GSI lie side by side: each chip at most once (master and slave are two), a message alone. */
static int check_gsi(const struct irq_routes *t, u32 gsi)
{
	u32 i, seen = 0, chip;

	for (i = t->start[gsi]; i < t->start[gsi + 1]; i++) {
		const struct irq_route *e = &t->route[i];

		if (e->type == ROUTE_MSI || e->type == ROUTE_SINT)
			chip = 0xff;
		else if (e->type == ROUTE_IOAPIC)
			chip = BIT(2);
		else
			chip = BIT(e->pin / 8);
		if (seen & chip)
			return -EINVAL;
		seen |= chip;
	}
	return 0;
}

static int compare_sints(const void *a, const void *b, const void *routes)
{
	const struct irq_route *r = routes, *x = &r[*(u32 *)a], *y = &r[*(u32 *)b];
	u64 kx = sint_key(x->sint.vp_index, x->sint.nr), ky = sint_key(y->sint.vp_index, y->sint.nr);

	return kx < ky ? -1 : kx > ky;
}

/* Counting sort by GSI, stable, from the list as userspace gave it. */
static struct irq_routes *routes_build(const struct irq_route *in, u32 nr)
{
	u32 nr_gsis = 0, i, g;
	struct irq_routes *t;
	size_t size;

	for (i = 0; i < nr; i++)
		nr_gsis = max(nr_gsis, in[i].gsi + 1);
	size = struct_size(t, route, nr);
	t = kvzalloc(size + (nr_gsis + 2 + nr) * sizeof(u32), GFP_KERNEL_ACCOUNT);
	if (!t)
		return ERR_PTR(-ENOMEM);
	t->start = (void *)t + size;
	t->sints = t->start + nr_gsis + 2;
	t->nr = nr;
	t->nr_gsis = nr_gsis;
	memset(t->pin_gsi, -1, sizeof(t->pin_gsi));

	/* start[g + 1] is where the next entry of g goes; when all are placed it is where g ends. */
	for (i = 0; i < nr; i++)
		t->start[in[i].gsi + 2]++;
	for (g = 1; g <= nr_gsis; g++)
		t->start[g + 1] += t->start[g];
	for (i = 0; i < nr; i++) {
		t->route[t->start[in[i].gsi + 1]++] = in[i];
		if (in[i].type == ROUTE_PIC)
			t->pin_gsi[CHIP_PIC][in[i].pin] = in[i].gsi;
		else if (in[i].type == ROUTE_IOAPIC)
			t->pin_gsi[CHIP_IOAPIC][in[i].pin] = in[i].gsi;
	}
	for (i = 0; i < nr; i++)
		if (t->route[i].type == ROUTE_SINT)
			t->sints[t->nr_sints++] = i;
	sort_r(t->sints, t->nr_sints, sizeof(*t->sints), compare_sints, NULL, t->route);
	for (g = 0; g < nr_gsis; g++) {
		if (check_gsi(t, g)) {
			kvfree(t);
			return ERR_PTR(-EINVAL);
		}
	}
	return t;
}

static void routes_publish(struct keel_vm *vm, struct irq_routes *t)
{
	struct irq_routes *old;

	lockdep_assert_held(&vm->irq.lock);
	old = rcu_replace_pointer(vm->irq.routes, t, lockdep_is_held(&vm->irq.lock));
	if (old && !old->shared)
		kvfree_rcu(old, rcu);
	irq_ioapic_rescan(vm);
}

/* Only ioctls that hold vm->lock exchange it. */
static const struct irq_routes *current_routes(struct keel_vm *vm)
{
	return rcu_dereference_protected(vm->irq.routes, lockdep_is_held(&vm->lock));
}

/* Those of a VM that is made of another are, most often, the ones that it began with. */
static bool routes_are(struct keel_vm *vm, const struct irq_route *list, u32 nr)
{
	const struct irq_routes *t = current_routes(vm);

	return t && t->nr == nr && !memcmp(t->route, list, nr * sizeof(*list));
}

int irq_routes_set(struct keel_vm *vm, const struct kvm_irq_routing_entry *entries, u32 nr)
{
	struct irq_routes *t = NULL;
	struct irq_route *list;
	int ret = 0;
	u32 i;

	if (vm->irq.mode == IRQCHIP_NONE || nr > IRQ_MAX_GSI)
		return -EINVAL;
	list = kvcalloc(nr + 1, sizeof(*list), GFP_KERNEL_ACCOUNT);
	if (!list)
		return -ENOMEM;
	for (i = 0; !ret && i < nr; i++)
		ret = route_from_user(vm, &list[i], &entries[i]);
	if (!ret && !routes_are(vm, list, nr)) {
		t = routes_build(list, nr);
		ret = PTR_ERR_OR_ZERO(t);
	}
	if (!ret && t) {
		mutex_lock(&vm->irq.lock);
		routes_publish(vm, t);
		mutex_unlock(&vm->irq.lock);
	}
	kvfree(list);
	return ret;
}

VM_IOCTL(irq_set_routing)
{
	const struct kvm_irq_routing __user *uarg = (void __user *)arg;
	struct kvm_irq_routing_entry *entries = NULL;
	struct kvm_irq_routing head;
	int ret;

	if (copy_from_user(&head, uarg, sizeof(head)))
		return -EFAULT;
	if (vm->irq.mode == IRQCHIP_NONE || head.nr > IRQ_MAX_GSI || head.flags)
		return -EINVAL;
	if (head.nr) {
		entries = vmemdup_user(uarg->entries, array_size(sizeof(*entries), head.nr));
		if (IS_ERR(entries))
			return PTR_ERR(entries);
	}
	ret = irq_routes_set(vm, entries, head.nr);
	kvfree(entries);
	return ret;
}

static struct kvm_irq_routing_entry route_to_user(const struct irq_route *e)
{
	struct kvm_irq_routing_entry u = { .gsi = e->gsi };

	switch (e->type) {
	case ROUTE_PIC:
		u.type = KVM_IRQ_ROUTING_IRQCHIP;
		u.u.irqchip.irqchip = e->pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
		u.u.irqchip.pin = e->pin % 8;
		break;
	case ROUTE_IOAPIC:
		u.type = KVM_IRQ_ROUTING_IRQCHIP;
		u.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		u.u.irqchip.pin = e->pin;
		break;
	case ROUTE_MSI:
		u.type = KVM_IRQ_ROUTING_MSI;
		u.u.msi.address_lo = e->msi.address_lo;
		u.u.msi.address_hi = e->msi.address_hi;
		u.u.msi.data = e->msi.data;
		break;
	case ROUTE_SINT:
		u.type = KVM_IRQ_ROUTING_HV_SINT;
		u.u.hv_sint.vcpu = e->sint.vp_index;
		u.u.hv_sint.sint = e->sint.nr;
		break;
	}
	return u;
}

bool irq_routes_are_new(struct keel_vm *vm)
{
	const struct irq_routes *t = current_routes(vm);

	return t && t->shared;
}

u32 irq_routes_get(struct keel_vm *vm, struct kvm_irq_routing_entry *entries)
{
	const struct irq_routes *t = current_routes(vm);
	u32 i;

	for (i = 0; t && entries && i < t->nr; i++)
		entries[i] = route_to_user(&t->route[i]);
	return t ? t->nr : 0;
}

/*
 * As on a PC before any VMM says otherwise: GSIs 0 to 15 reach both controllers, the rest the IOAPIC.  Where those are the
 * VMM's, none.  The same tables for all VMs.
 */
static struct irq_routes *of_pc, *of_none;

static struct irq_routes *shared_build(const struct irq_route *list, u32 nr)
{
	struct irq_routes *t = routes_build(list, nr);

	if (IS_ERR(t))
		return NULL;
	t->shared = true;
	return t;
}

int irq_routes_init(void)
{
	struct irq_route list[IRQ_PIC_PINS + IRQ_IOAPIC_PINS] = {};
	u32 n = 0, gsi;

	for (gsi = 0; gsi < IRQ_IOAPIC_PINS; gsi++) {
		if (gsi < IRQ_PIC_PINS)
			list[n++] = (struct irq_route){ .gsi = gsi, .type = ROUTE_PIC, .pin = gsi };
		list[n++] = (struct irq_route){ .gsi = gsi, .type = ROUTE_IOAPIC, .pin = gsi };
	}
	of_pc = shared_build(list, n);
	of_none = shared_build(NULL, 0);
	return of_pc && of_none ? 0 : -ENOMEM;
}

void irq_routes_exit(void)
{
	kvfree(of_pc);
	kvfree(of_none);
}

void irq_first_routes(struct keel_vm *vm, bool pc)
{
	routes_publish(vm, pc ? of_pc : of_none);
}

void irq_routes_free(struct keel_vm *vm)
{
	struct irq_routes *t = rcu_dereference_protected(vm->irq.routes, true);

	if (t && !t->shared)
		kvfree(t);
	RCU_INIT_POINTER(vm->irq.routes, NULL);
}

/* ------------------------------------------------------------- lines and messages from userspace */
VM_IOCTL(irq_line_status)
{
	struct kvm_irq_level *line = buf;

	if (vm->irq.mode == IRQCHIP_NONE)
		return -ENXIO;
	line->status = irq_set_gsi(vm, SOURCE_USER, line->irq, line->level);
	return 0;
}

VM_IOCTL(irq_line)
{
	return irq_line_status(vm, buf, arg);
}

VM_IOCTL(irq_signal_msi)
{
	const struct kvm_msi *msi = buf;
	int ret;

	if (vm->irq.mode == IRQCHIP_NONE || (msi->flags & ~KVM_MSI_VALID_DEVID))
		return -EINVAL;
	if (vm->irq.x2apic_32bit_ids && (msi->address_hi & 0xff))
		return -EINVAL;
	rcu_read_lock();
	ret = set_msi(vm, msi->address_lo, msi->address_hi, msi->data);
	rcu_read_unlock();
	/* Refused by a LAPIC that the guest has switched off is no error of the VMM's (api.rst 4.70). */
	return max(ret, 0);
}
