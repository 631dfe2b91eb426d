// SPDX-License-Identifier: GPL-2.0-only
/*
 * irqfd.c - KVM_IRQFD: a signalled eventfd is an interrupt.
 *
 * The eventfd calls irqfd_wakeup() with its own lock held and IRQs off; everything below irq_set_gsi() is fit
 * for that, so the interrupt goes in right there and no thread is woken.
 *
 * Who takes an irqfd off the VM's list under irqfds_lock ends it: KVM_IRQFD with DEASSIGN, the end of the VM,
 * or the other side closing the eventfd.  The last comes in the wake-up, so the rest is left to a work item.
 * One that waits for acknowledgements (ack.c) is freed a grace period after it has left, which nobody waits for.
 */
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/hash.h>
#include <linux/poll.h>
#include <linux/wait_bit.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include "internal.h"

struct irqfd {
	struct keel_vm *vm;
	struct hlist_node link;
	struct eventfd_ctx *ctx;
	struct eventfd_ctx *resample;	/* NULL: edge-triggered */
	u32 gsi;
	wait_queue_entry_t wait;
	wait_queue_head_t *wqh;
	poll_table pt;
	struct work_struct shutdown;
	struct irq_acker acker;		/* if it resamples */
	struct rcu_work free;
	struct irqfd *next;		/* freed together with this one */
};

struct workqueue_struct *irq_wq;

#define HASH_BITS	8	/* a VMM may have thousands, and they are looked for with IRQs off */

static struct hlist_head *irqfd_bucket(struct keel_vm *vm, struct eventfd_ctx *ctx)
{
	return &vm->irq.irqfds[hash_ptr(ctx, HASH_BITS)];
}

/* irqfds_lock held. */
static struct irqfd *irqfd_find(struct keel_vm *vm, struct eventfd_ctx *ctx)
{
	struct irqfd *p;

	hlist_for_each_entry(p, irqfd_bucket(vm, ctx), link)
		if (p->ctx == ctx)
			return p;
	return NULL;
}

/* The guest is done with it, and the line has been let go: userspace raises it again if it still has cause. */
static void irqfd_acked(struct irq_acker *acker)
{
	keel_eventfd_signal(container_of(acker, struct irqfd, acker)->resample);
}

static void irqfd_free(struct work_struct *work)
{
	struct irqfd *p = container_of(to_rcu_work(work), struct irqfd, free), *next;

	for (; p; p = next) {
		next = p->next;
		eventfd_ctx_put(p->resample);
		eventfd_ctx_put(p->ctx);
		kfree(p);
		cond_resched();
	}
}

/* @p is off the list, so this runs once.  True: it is still looked at under RCU, and the caller sees to irqfd_free(). */
static bool irqfd_leave(struct irqfd *p)
{
	u64 count;

	eventfd_ctx_remove_wait_queue(p->ctx, &p->wait, &count);
	if (p->resample) {
		irq_ack_leave(p->vm, &p->acker);
		return true;
	}
	eventfd_ctx_put(p->ctx);
	kfree(p);
	return false;
}

/* May sleep. */
static void irqfd_end(struct irqfd *p)
{
	if (irqfd_leave(p))
		queue_rcu_work(irq_wq, &p->free);
}

static void irqfd_shutdown(struct work_struct *work)
{
	struct irqfd *p = container_of(work, struct irqfd, shutdown);
	atomic_t *ending = &p->vm->irq.irqfds_ending;

	irqfd_end(p);
	/* The VM, which waits for this, may be gone right after it. */
	if (atomic_dec_and_test(ending))
		wake_up_var(ending);
}

static void irqfd_inject(struct irqfd *p)
{
	struct keel_vm *vm = p->vm;

	keel_count_shared(&vm->stat.irqfd_signals, 1);
	if (p->resample) {
		irq_set_gsi(vm, SOURCE_RESAMPLE, p->gsi, true);
	} else {
		irq_set_gsi(vm, SOURCE_USER, p->gsi, true);
		irq_set_gsi(vm, SOURCE_USER, p->gsi, false);
	}
}

static int irqfd_wakeup(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct irqfd *p = container_of(wait, struct irqfd, wait);
	__poll_t flags = key_to_poll(key);
	unsigned long irqflags;
	int taken = 0;
	u64 count;

	if (flags & EPOLLIN) {
		eventfd_ctx_do_read(p->ctx, &count);
		irqfd_inject(p);
		taken = 1;
	}
	if (flags & EPOLLHUP) {
		spin_lock_irqsave(&p->vm->irq.irqfds_lock, irqflags);
		if (!hlist_unhashed(&p->link)) {
			hlist_del_init(&p->link);
			atomic_inc(&p->vm->irq.irqfds_ending);
			queue_work(irq_wq, &p->shutdown);
		}
		spin_unlock_irqrestore(&p->vm->irq.irqfds_lock, irqflags);
	}
	return taken;
}

/*
 * Before others who wait for the eventfd, who are woken only if there is something left for them; and alone, for of two VMs
 * that it interrupts the second would find nothing.
 */
static void irqfd_enqueue(struct file *file, wait_queue_head_t *wqh, poll_table *pt)
{
	struct irqfd *p = container_of(pt, struct irqfd, pt);
	wait_queue_entry_t *other;
	unsigned long flags;

	p->wait.flags = WQ_FLAG_PRIORITY | WQ_FLAG_EXCLUSIVE;
	spin_lock_irqsave(&wqh->lock, flags);
	list_for_each_entry(other, &wqh->head, entry) {
		if (!(other->flags & WQ_FLAG_PRIORITY))
			break;
		if (other->func == irqfd_wakeup)
			goto out;
	}
	p->wqh = wqh;
	list_add(&p->wait.entry, &wqh->head);
out:
	spin_unlock_irqrestore(&wqh->lock, flags);
}

/* A signal that came before we listened. */
static void irqfd_take_pending(struct irqfd *p)
{
	unsigned long flags;
	u64 count = 0;

	spin_lock_irqsave(&p->wqh->lock, flags);
	eventfd_ctx_do_read(p->ctx, &count);
	if (count)
		irqfd_inject(p);
	spin_unlock_irqrestore(&p->wqh->lock, flags);
}

static void irqfd_list_add(struct irqfd *p)
{
	spin_lock_irq(&p->vm->irq.irqfds_lock);
	hlist_add_head(&p->link, irqfd_bucket(p->vm, p->ctx));
	spin_unlock_irq(&p->vm->irq.irqfds_lock);
}

static int irqfd_assign(struct keel_vm *vm, const struct kvm_irqfd *args)
{
	bool resample = args->flags & KVM_IRQFD_FLAG_RESAMPLE;
	struct eventfd_ctx *rctx = NULL;
	struct irqfd *p;
	struct file *file;
	int ret;

	if (vm->irq.mode == IRQCHIP_NONE || (resample && vm->irq.mode != IRQCHIP_KERNEL))
		return -EINVAL;
	if (!vm->irq.irqfds)
		vm->irq.irqfds = kcalloc(1 << HASH_BITS, sizeof(*vm->irq.irqfds), GFP_KERNEL_ACCOUNT);
	p = kzalloc(sizeof(*p), GFP_KERNEL_ACCOUNT);
	if (!p || !vm->irq.irqfds) {
		kfree(p);
		return -ENOMEM;
	}
	p->vm = vm;
	p->gsi = args->gsi;
	INIT_WORK(&p->shutdown, irqfd_shutdown);
	INIT_RCU_WORK(&p->free, irqfd_free);
	init_waitqueue_func_entry(&p->wait, irqfd_wakeup);
	init_poll_funcptr(&p->pt, irqfd_enqueue);

	file = fget(args->fd);
	if (!file) {
		kfree(p);
		return -EBADF;
	}
	p->ctx = eventfd_ctx_fileget(file);
	if (IS_ERR(p->ctx)) {
		ret = PTR_ERR(p->ctx);
		goto fail_file;
	}
	if (resample) {
		rctx = eventfd_ctx_fdget(args->resamplefd);
		if (IS_ERR(rctx)) {
			ret = PTR_ERR(rctx);
			goto fail_ctx;
		}
		p->resample = rctx;
		p->acker = (struct irq_acker){ .acked = irqfd_acked, .holds_line = true };
		ret = irq_ack_join(vm, p->gsi, &p->acker);
		if (ret)
			goto fail_rctx;
	}

	/* In the queue first, where it is seen whether nobody else reads this eventfd's count. */
	vfs_poll(file, &p->pt);
	if (!p->wqh) {
		ret = -EBUSY;
		goto fail_ack;
	}
	/* The reference to the file keeps HUP away; DEASSIGN is kept away by irq.lock. */
	irqfd_list_add(p);
	irqfd_take_pending(p);
	fput(file);
	return 0;

fail_ack:
	if (resample) {
		irq_ack_leave(vm, &p->acker);
		queue_rcu_work(irq_wq, &p->free);
		fput(file);
		return ret;
	}
fail_rctx:
	if (rctx)
		eventfd_ctx_put(rctx);
fail_ctx:
	eventfd_ctx_put(p->ctx);
fail_file:
	fput(file);
	kfree(p);
	return ret;
}

static int irqfd_deassign(struct keel_vm *vm, const struct kvm_irqfd *args)
{
	struct eventfd_ctx *ctx = eventfd_ctx_fdget(args->fd);
	struct irqfd *p = NULL;

	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	if (vm->irq.irqfds) {
		spin_lock_irq(&vm->irq.irqfds_lock);
		p = irqfd_find(vm, ctx);
		if (p && p->gsi == args->gsi)
			hlist_del_init(&p->link);
		else
			p = NULL;
		spin_unlock_irq(&vm->irq.irqfds_lock);
	}
	if (p)
		irqfd_end(p);
	eventfd_ctx_put(ctx);
	return 0;
}

VM_IOCTL(irq_irqfd)
{
	const struct kvm_irqfd *args = buf;
	int ret;

	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	mutex_lock(&vm->irq.lock);
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		ret = irqfd_deassign(vm, args);
	else
		ret = irqfd_assign(vm, args);
	mutex_unlock(&vm->irq.lock);
	return ret;
}

void irq_irqfds_release(struct keel_vm *vm)
{
	struct irqfd *p, *left = NULL;
	unsigned int i;

	for (i = 0; vm->irq.irqfds && i < 1 << HASH_BITS; ) {
		spin_lock_irq(&vm->irq.irqfds_lock);
		p = hlist_entry_safe(vm->irq.irqfds[i].first, struct irqfd, link);
		if (p)
			hlist_del_init(&p->link);
		spin_unlock_irq(&vm->irq.irqfds_lock);
		if (!p) {
			i++;
		} else if (irqfd_leave(p)) {
			p->next = left;
			left = p;
		}
		cond_resched();
	}
	if (left)
		queue_rcu_work(irq_wq, &left->free);	/* and the others with it */
	/* Those whose eventfd was closed are on their way out by work items that know the VM. */
	wait_var_event(&vm->irq.irqfds_ending, !atomic_read(&vm->irq.irqfds_ending));
}

int irq_room_init(void)
{
	irq_wq = alloc_workqueue("keel-irq", WQ_UNBOUND, 0);
	if (irq_wq && !irq_routes_init())
		return 0;
	irq_routes_exit();
	if (irq_wq)
		destroy_workqueue(irq_wq);
	return -ENOMEM;
}

void irq_room_exit(void)
{
	rcu_barrier();		/* queues the last irqfd_free() */
	destroy_workqueue(irq_wq);
	irq_routes_exit();
}
