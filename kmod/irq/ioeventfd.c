// SPDX-License-Identifier: GPL-2.0-only
/*
 * ioeventfd.c - KVM_IOEVENTFD: a guest's write to an address signals an eventfd and needs no exit to userspace.
 *
 * Locks: the list and the buses are changed under vm->slots_lock.
 */
#include <linux/eventfd.h>
#include <linux/slab.h>
#include "internal.h"

struct ioeventfd {
	struct irq_bus_dev dev;
	struct list_head link;
	struct eventfd_ctx *ctx;
	u64 addr;
	u64 datamatch;
	u8 len;			/* 0: any */
	bool wildcard;		/* any data */
	enum bus_id bus;
};

static u64 load_le(const void *data, unsigned int len)
{
	switch (len) {
	case 1: return *(const u8 *)data;
	case 2: return get_unaligned_le16(data);
	case 4: return get_unaligned_le32(data);
	default: return get_unaligned_le64(data);
	}
}

static int ioeventfd_write(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len,
			   const void *data)
{
	struct ioeventfd *p = container_of(dev, struct ioeventfd, dev);

	if (addr != p->addr)
		return -EOPNOTSUPP;
	if (p->len) {
		if (len != p->len)
			return -EOPNOTSUPP;
		if (!p->wildcard && load_le(data, len) != p->datamatch)
			return -EOPNOTSUPP;
	}
	keel_count_shared(&vcpu->vm->stat.ioeventfd_signals, 1);
	keel_eventfd_signal(p->ctx);
	return 0;
}

static const struct irq_bus_ops ioeventfd_ops = { .write = ioeventfd_write };

static bool ioeventfd_collides(struct keel_vm *vm, const struct ioeventfd *p)
{
	const struct ioeventfd *q;

	list_for_each_entry(q, &vm->buses.ioeventfds, link) {
		if (q->bus != p->bus || q->addr != p->addr)
			continue;
		if (!q->len || !p->len)
			return true;
		if (q->len == p->len && (q->wildcard || p->wildcard || q->datamatch == p->datamatch))
			return true;
	}
	return false;
}

/* No bus has it any more. */
static void ioeventfd_free(struct ioeventfd *p)
{
	list_del(&p->link);
	eventfd_ctx_put(p->ctx);
	kfree(p);
}

static int ioeventfd_assign(struct keel_vm *vm, const struct kvm_ioeventfd *args, enum bus_id bus)
{
	struct ioeventfd *p = kzalloc(sizeof(*p), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!p)
		return -ENOMEM;
	p->ctx = eventfd_ctx_fdget(args->fd);
	if (IS_ERR(p->ctx)) {
		ret = PTR_ERR(p->ctx);
		kfree(p);
		return ret;
	}
	p->dev.ops = &ioeventfd_ops;
	p->addr = args->addr;
	p->len = args->len;
	p->bus = bus;
	p->wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	p->datamatch = args->datamatch;

	mutex_lock(&vm->slots_lock);
	ret = -EEXIST;
	if (ioeventfd_collides(vm, p))
		goto fail;
	/* A write of any length up to eight bytes has to find it. */
	ret = irq_bus_add(vm, bus, p->addr, p->len ?: min_t(u64, 8, ~p->addr + 1 ?: 8), &p->dev);
	if (ret)
		goto fail;
	if (!p->len && bus == BUS_MMIO) {
		ret = irq_bus_add(vm, BUS_FAST_MMIO, p->addr, 1, &p->dev);
		if (ret) {
			irq_bus_remove(vm, bus, &p->dev);
			goto fail;
		}
	}
	list_add_tail(&p->link, &vm->buses.ioeventfds);
	mutex_unlock(&vm->slots_lock);
	return 0;

fail:
	mutex_unlock(&vm->slots_lock);
	eventfd_ctx_put(p->ctx);
	kfree(p);
	return ret;
}

static int ioeventfd_deassign(struct keel_vm *vm, const struct kvm_ioeventfd *args, enum bus_id bus)
{
	bool wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	struct eventfd_ctx *ctx = eventfd_ctx_fdget(args->fd);
	struct ioeventfd *p;
	int ret = -ENOENT;

	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	mutex_lock(&vm->slots_lock);
	list_for_each_entry(p, &vm->buses.ioeventfds, link) {
		if (p->bus != bus || p->ctx != ctx || p->addr != args->addr || p->len != args->len ||
		    p->wildcard != wildcard || (!wildcard && p->datamatch != args->datamatch))
			continue;
		p->dev.leaving = true;
		irq_buses_sweep(vm);
		ioeventfd_free(p);
		ret = 0;
		break;
	}
	mutex_unlock(&vm->slots_lock);
	eventfd_ctx_put(ctx);
	return ret;
}

VM_IOCTL(irq_ioeventfd)
{
	const struct kvm_ioeventfd *args = buf;
	const u32 known = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN;
	enum bus_id bus = args->flags & KVM_IOEVENTFD_FLAG_PIO ? BUS_PIO : BUS_MMIO;

	if (args->flags & ~known)
		return -EINVAL;
	if (args->len > 8 || (args->len & (args->len - 1)))
		return -EINVAL;
	if (args->addr + args->len < args->addr)
		return -EINVAL;
	if (!args->len && (args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH))
		return -EINVAL;
	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		return ioeventfd_deassign(vm, args, bus);
	return ioeventfd_assign(vm, args, bus);
}

void irq_ioeventfds_release(struct keel_vm *vm)
{
	struct ioeventfd *p, *next;

	mutex_lock(&vm->slots_lock);
	list_for_each_entry(p, &vm->buses.ioeventfds, link)
		p->dev.leaving = true;
	irq_buses_sweep(vm);
	list_for_each_entry_safe(p, next, &vm->buses.ioeventfds, link) {
		ioeventfd_free(p);
		cond_resched();
	}
	mutex_unlock(&vm->slots_lock);
}
