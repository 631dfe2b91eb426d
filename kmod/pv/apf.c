// SPDX-License-Identifier: GPL-2.0-only
/*
 * apf.c - asynchronous page faults (Documentation/virt/kvm/x86/msr.rst, MSR_KVM_ASYNC_PF_EN): where the vCPU's thread
 * would have to wait for a page, a worker does.  The guest gets a #PF with a token in CR2, and lets another of its
 * tasks run; an interrupt with the same token tells it that the page is there.
 *
 * A worker may have to wait for as long as whoever serves the user's fault likes, so nothing waits for a worker: what
 * it needs it holds references to, the module among them, and the vCPU may be gone when it is done.  Nor does a page wait
 * for another's worker: there are never more pages than workers run at once, and a VM has its part of them.  Beyond that
 * the vCPU's thread waits itself, as without all this.
 *
 * Lock: apf->lock, below all others in keel.h, for the pages and for the way to the vCPU.
 */
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <asm/kvm_para.h>
#include "ops.h"
#include "mem/hostpage.h"

#define APF_MAX_PAGES	64	/* of one vCPU, those waited for and those it has not been told of */
#define APF_MAX_VM	128	/* waited for, of one VM */
#define APF_MAX_ALL	512	/* and of all: so many workers may run at once, even all on one CPU */
#define APF_TOKEN_ALL	(~0U)	/* wakes everyone: of those who waited before, none will be told */

/* Of a VM, and of its pages that are waited for. */
struct keel_apf_vm {
	struct kref ref;
	atomic_t awaited;
};

struct keel_apf {
	struct kref ref;
	spinlock_t lock;
	struct keel_vcpu *vcpu;		/* NULL: there is none any more */
	struct list_head awaited, there;
	unsigned int count;
	u32 last_token;
	bool wake_all;			/* the vCPU's own */
};

struct apf_page {
	struct work_struct work;
	struct list_head node;
	struct keel_apf *apf;
	struct keel_apf_vm *vm;
	struct mm_struct *mm;
	u64 gfn;
	unsigned long hva;
	u32 token;
	bool write;
	bool forgotten;			/* the guest does not want to be told of it any more */
};

static struct workqueue_struct *apf_workers;
static atomic_t apf_awaited;

static void apf_release(struct kref *ref)
{
	kfree(container_of(ref, struct keel_apf, ref));
}

static void apf_vm_release(struct kref *ref)
{
	kfree(container_of(ref, struct keel_apf_vm, ref));
}

/* May there be one more worker for this VM? */
static bool worker_get(struct keel_apf_vm *vm)
{
	if (!atomic_add_unless(&vm->awaited, 1, APF_MAX_VM))
		return false;
	if (!atomic_add_unless(&apf_awaited, 1, APF_MAX_ALL)) {
		atomic_dec(&vm->awaited);
		return false;
	}
	kref_get(&vm->ref);
	return true;
}

static void worker_put(struct keel_apf_vm *vm)
{
	atomic_dec(&apf_awaited);
	atomic_dec(&vm->awaited);
	kref_put(&vm->ref, apf_vm_release);
}

static void apf_work(struct work_struct *work)
{
	struct apf_page *page = container_of(work, struct apf_page, work);
	struct keel_apf_vm *vm = page->vm;
	struct mm_struct *mm = page->mm;
	struct keel_apf *apf = page->apf;

	if (mmget_not_zero(mm)) {
		/* Whatever comes of it, the guest tries again, and then it is the vCPU's to deal with. */
		mem_touch(mm, page->hva, page->write, MEM_WAIT);
		mmput(mm);
	}
	mmdrop(mm);
	worker_put(vm);

	spin_lock(&apf->lock);
	list_del(&page->node);
	if (apf->vcpu && !page->forgotten) {
		list_add_tail(&page->node, &apf->there);
		keel_request(KEEL_REQ_APF, apf->vcpu);
		keel_vcpu_kick(apf->vcpu);
		page = NULL;
	} else {
		apf->count--;
	}
	spin_unlock(&apf->lock);
	kfree(page);
	kref_put(&apf->ref, apf_release);
	module_put(THIS_MODULE);	/* keel_apf_exit() waits for the rest */
}

static u64 apf_gpa(const struct keel_vcpu *vcpu)
{
	return vcpu->pv.apf_en & ~GENMASK_ULL(5, 0);
}

/* Could the guest take a #PF that is not its own, between two instructions, and run something else? */
static bool may_tell(struct keel_vcpu *vcpu)
{
	if (vcpu->smm || vcpu->ev.exception.type || vcpu->ev.injected.type || keel_call(event_blocked, vcpu, KEEL_EV_INTR))
		return false;
	return vcpu->pv.apf_en & KVM_ASYNC_PF_SEND_ALWAYS || keel_cpl(vcpu);
}

static bool awaited_already(struct keel_apf *apf, u64 gfn)
{
	struct apf_page *page;

	lockdep_assert_held(&apf->lock);
	list_for_each_entry(page, &apf->awaited, node)
		if (page->gfn == gfn && !page->forgotten)
			return true;
	return false;
}

/* The word in the guest's memory that tells this #PF from others: false if it is not free, or not there. */
static bool mark_not_present(struct keel_vcpu *vcpu)
{
	u64 gpa = apf_gpa(vcpu) + offsetof(struct kvm_vcpu_pv_apf_data, flags);
	u32 flags;

	if (keel_vcpu_read(vcpu, gpa, &flags, sizeof(flags)) || flags)
		return false;
	flags = KVM_PV_REASON_PAGE_NOT_PRESENT;
	return !keel_vcpu_write(vcpu, gpa, &flags, sizeof(flags));
}

bool keel_apf_start(struct keel_vcpu *vcpu, u64 gfn, unsigned long hva, bool write)
{
	struct keel_apf *apf = vcpu->pv.apf;
	struct keel_apf_vm *vm = vcpu->vm->apf;
	struct apf_page *page;
	bool start;

	if (!may_tell(vcpu))
		return false;
	page = kzalloc(sizeof(*page), GFP_KERNEL_ACCOUNT);
	if (!page)
		return false;
	spin_lock(&apf->lock);
	start = apf->count < APF_MAX_PAGES && !awaited_already(apf, gfn);
	spin_unlock(&apf->lock);
	if (!start || !worker_get(vm)) {
		kfree(page);
		return false;
	}
	if (!mark_not_present(vcpu)) {
		worker_put(vm);
		kfree(page);
		return false;
	}
	INIT_WORK(&page->work, apf_work);
	page->apf = apf;
	page->vm = vm;
	page->mm = vcpu->vm->mm;
	page->gfn = gfn;
	page->hva = hva;
	page->write = write;
	/* Neither 0, which is a free slot, nor APF_TOKEN_ALL; the id tells vCPUs' apart. */
	apf->last_token = apf->last_token % (U32_MAX / KEEL_MAX_VCPU_ID - 1) + 1;
	page->token = apf->last_token * KEEL_MAX_VCPU_ID + vcpu->id;
	mmgrab(page->mm);
	kref_get(&apf->ref);
	spin_lock(&apf->lock);
	list_add_tail(&page->node, &apf->awaited);
	apf->count++;
	spin_unlock(&apf->lock);
	__module_get(THIS_MODULE);
	keel_raise_pf(vcpu, page->token, 0);
	vcpu->stat.async_faults++;
	queue_work(apf_workers, &page->work);
	return true;
}

/* The next token to tell; the page's part in it ends here. */
static bool next_token(struct keel_apf *apf, u32 *token)
{
	struct apf_page *page;

	if (apf->wake_all) {
		apf->wake_all = false;
		*token = APF_TOKEN_ALL;
		return true;
	}
	spin_lock(&apf->lock);
	page = list_first_entry_or_null(&apf->there, struct apf_page, node);
	if (page) {
		list_del(&page->node);
		apf->count--;
	}
	spin_unlock(&apf->lock);
	if (page)
		*token = page->token;
	kfree(page);
	return page;
}

/* One at a time: the guest asks for the next by MSR_KVM_ASYNC_PF_ACK, once the slot is free again. */
void keel_apf_ready(struct keel_vcpu *vcpu)
{
	u64 gpa = apf_gpa(vcpu) + offsetof(struct kvm_vcpu_pv_apf_data, token);
	struct keel_apf *apf = vcpu->pv.apf;
	u32 token;

	if (!apf || vcpu->smm || keel_vcpu_read(vcpu, gpa, &token, sizeof(token)) || token)
		return;
	if (!irq_takes_fixed(vcpu) || !next_token(apf, &token) || keel_vcpu_write(vcpu, gpa, &token, sizeof(token)))
		return;
	irq_deliver_fixed(vcpu, vcpu->pv.apf_vector);
}

static bool vm_init(struct keel_vm *vm)
{
	struct keel_apf_vm *apf;

	if (READ_ONCE(vm->apf))
		return true;
	apf = kzalloc(sizeof(*apf), GFP_KERNEL_ACCOUNT);
	if (!apf)
		return false;
	kref_init(&apf->ref);
	if (cmpxchg(&vm->apf, NULL, apf))
		kfree(apf);
	return true;
}

void keel_apf_vm_free(struct keel_vm *vm)
{
	if (vm->apf)
		kref_put(&vm->apf->ref, apf_vm_release);
	vm->apf = NULL;
}

int keel_apf_on(struct keel_vcpu *vcpu)
{
	struct keel_apf *apf = vcpu->pv.apf_kept;

	if (!vm_init(vcpu->vm))
		return -ENOMEM;
	if (!apf) {
		apf = kzalloc(sizeof(*apf), GFP_KERNEL_ACCOUNT);
		if (!apf)
			return -ENOMEM;
		kref_init(&apf->ref);
		spin_lock_init(&apf->lock);
		INIT_LIST_HEAD(&apf->awaited);
		INIT_LIST_HEAD(&apf->there);
		apf->vcpu = vcpu;
		vcpu->pv.apf_kept = apf;
	}
	vcpu->pv.apf = apf;
	/* Tasks may wait for what was begun before this, or on another host. */
	apf->wake_all = true;
	keel_request(KEEL_REQ_APF, vcpu);
	return 0;
}

/* Pages that are waited for still count: a guest that turns this off and on has no more workers than another. */
void keel_apf_off(struct keel_vcpu *vcpu)
{
	struct keel_apf *apf = vcpu->pv.apf;
	struct apf_page *page, *next;

	if (!apf)
		return;
	vcpu->pv.apf = NULL;
	spin_lock(&apf->lock);
	list_for_each_entry(page, &apf->awaited, node)
		page->forgotten = true;
	list_for_each_entry_safe(page, next, &apf->there, node) {
		list_del(&page->node);
		apf->count--;
		kfree(page);
	}
	spin_unlock(&apf->lock);
}

bool keel_apf_busy(struct keel_vcpu *vcpu)
{
	struct keel_apf *apf = vcpu->pv.apf;
	struct apf_page *page;
	bool busy;

	if (!apf)
		return false;
	spin_lock(&apf->lock);
	busy = !list_empty(&apf->there);
	list_for_each_entry(page, &apf->awaited, node)
		busy |= !page->forgotten;
	spin_unlock(&apf->lock);
	return busy;
}

bool keel_apf_wakes_all(struct keel_vcpu *vcpu)
{
	return vcpu->pv.apf && vcpu->pv.apf->wake_all;
}

void keel_apf_set_wakes_all(struct keel_vcpu *vcpu, bool on)
{
	vcpu->pv.apf->wake_all = on;
}

void keel_apf_free(struct keel_vcpu *vcpu)
{
	struct keel_apf *apf = vcpu->pv.apf_kept;

	if (!apf)
		return;
	keel_apf_off(vcpu);
	vcpu->pv.apf_kept = NULL;
	spin_lock(&apf->lock);
	apf->vcpu = NULL;
	spin_unlock(&apf->lock);
	kref_put(&apf->ref, apf_release);
}

int keel_apf_setup(void)
{
	apf_workers = alloc_workqueue("keel_apf", WQ_PERCPU, APF_MAX_ALL);
	return apf_workers ? 0 : -ENOMEM;
}

void keel_apf_exit(void)
{
	destroy_workqueue(apf_workers);
}
