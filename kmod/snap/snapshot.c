// SPDX-License-Identifier: GPL-2.0-only
/*
 * snapshot.c - snapshots of a VM (KEEL_SNAPSHOT, KEEL_RESET, KEEL_DROP, KEEL_MARK_DIRTY: uapi/keel.h).
 *
 * A snapshot is a state (state.c) and a store: pages as they were when it was taken, by the user's address, for one page may
 * stand in several places of the guest.  The current snapshot's store gets each page before its first write, by the same hook
 * as the dirty log (keel_first_write, mem/dirty.c).  Taking one costs what it takes to make the first write to any page
 * known, which mmu/protect.c does from above.
 *
 * What is in a store stays there when the page is put back, so it is copied once for all resets.  Such pages are listed as
 * they are written (dirty); a reset goes through that list and puts them back.  Where the CPU notes writes in its entries
 * a page is left writable then: it is hot, and the next resets look there, which costs much less than the exit of a first
 * write.  Each time that it was written pays for some looks in vain; after those its next write is made known again.  Where
 * nothing tells, because the entry is not there any more, it counts as written.
 *
 * They are a tree.  A child has the list of pages in which it differs from its parent (delta), each of which is in the
 * parent's store; and in its own once the VM has left it.  So from one snapshot to another the way is up, putting back the
 * deltas from the parents' stores and keeping in the children's what is not there yet, and then down.
 *
 * Locks: vm->lock for the tree; the current one changes with slots_lock held and the VM stopped, so a vCPU in the run loop,
 * or whoever has slots_lock, may look at it.  A store's xarray has its own, for several may keep pages at once: whose copy
 * comes first is the page's, and nobody may write before there is one.
 */
#include <linux/llist.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include "ops.h"
#include "mem/hostpage.h"
#include "mmu/pte.h"
#include "internal.h"

#define MAX_SNAPSHOTS	256
#define MAX_DEPTH	64
#define HEAT_MAX	4	/* resets that put a page back, as far as they are counted */
#define COLD_AFTER	2	/* for each of those, resets in a row that did not need to */
#define LOCKED_PAGES	64	/* with mmu.lock held, or a store's */

#define GFP_KEEP	(GFP_KERNEL_ACCOUNT | __GFP_NOWARN)
#define GFP_KEEP_NOW	(GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN)

enum { PAGE_DIRTY, PAGE_HOT };		/* bits of flags: listed as written since the last reset; left writable */

struct snap_page {
	struct llist_node node;		/* PAGE_DIRTY */
	struct list_head hot;		/* PAGE_HOT */
	void *data;
	unsigned long hva;
	unsigned long flags;
	u8 heat, cold;
};

struct snapshot {
	u32 id;
	unsigned int depth, children;
	bool broken;			/* something was written and not kept */
	struct snapshot *parent;
	struct xarray pages;		/* struct snap_page by page number of the user's address */
	atomic_long_t nr_pages;
	struct llist_head dirty;
	struct list_head hot;
	unsigned long *delta;		/* page numbers */
	unsigned long nr_delta;
	struct snap_state state;
	struct rcu_head rcu;		/* who shows the tree comes without a lock */
};

struct keel_snaps {
	struct xarray by_id;
	unsigned int count;
	u32 last_id;
	struct snapshot *current_one;	/* NULL: there is none */
	bool aliased;			/* some memory stands in two slots */
	u32 guests;			/* the snapshot that guests may ask for; 0: none */
	u32 guests_flags;
};

static struct kmem_cache *page_cache;

static void count_pages(struct keel_vm *vm, struct snapshot *snap, long n)
{
	atomic_long_add(n, &snap->nr_pages);
	atomic64_add(n, (atomic64_t *)&vm->stat.snapshot_pages);
}

/* ------------------------------------------------------------- stores */

static struct snap_page *page_alloc(gfp_t gfp)
{
	struct snap_page *page = kmem_cache_zalloc(page_cache, gfp);

	if (!page)
		return NULL;
	page->data = (void *)__get_free_page(gfp);
	if (page->data)
		return page;
	kmem_cache_free(page_cache, page);
	return NULL;
}

static void page_free(struct snap_page *page)
{
	free_page((unsigned long)page->data);
	kmem_cache_free(page_cache, page);
}

/* Written, or about to be: nobody may write before it is listed. */
static void page_listed(struct snapshot *snap, struct snap_page *page)
{
	if (!test_bit(PAGE_DIRTY, &page->flags) && !test_and_set_bit(PAGE_DIRTY, &page->flags))
		llist_add(&page->node, &snap->dirty);
}

/* A page, in words, which all CPUs are fast at. */
#define COPY_PAGE(to, from, extable, fault)							\
	asm goto("mov %0,%%rdi\n\tmov %1,%%rsi\n\tmov %2,%%ecx\n"				\
		 "1:\trep movsq\n"								\
		 extable									\
		 : : "r" (to), "r" (from), "i" (PAGE_SIZE / 8) : "rdi", "rsi", "rcx", "memory" : fault)

/* To where the kernel has the guest's page; some it does not have (memfd_secret). */
static bool page_copied(void *to, const void *from)
{
	COPY_PAGE(to, from, KEEL_EXTABLE_GOTO(1b, fault), fault);
	return true;
fault:
	return false;
}

/* Page faults are disabled.  False: it is not at hand. */
static bool page_from_user(void *to, const void __user *from)
{
	if (!user_access_begin(from, PAGE_SIZE))
		return false;
	COPY_PAGE(to, from, KEEL_EXTABLE_USER_GOTO(1b, fault), fault);
	user_access_end();
	return true;
fault:
	user_access_end();
	return false;
}

/*
 * How long a page that is not at hand is waited for: not at all; as a guest's fault waits, until there is a signal; or as
 * a write of the kernel's, which follows and would wait for it.
 */
enum patience { KEEP_NOW, KEEP_FAULT, KEEP_WAIT };

/* 0, 1: a device's; -EFAULT, -EINTR.  What the user's tables do not have may be a device's, and is not to be read by chance. */
static int page_read(struct keel_vm *vm, struct snap_page *page, bool present, enum patience patience)
{
	struct mem_entry e;
	bool read = false;
	int err;

	if (present) {
		pagefault_disable();
		read = page_from_user(page->data, (void __user *)page->hva);
		pagefault_enable();
	}
	if (read || patience == KEEP_NOW)
		return read ? 0 : -EFAULT;
	err = mem_touch(vm->mm, page->hva, false, MEM_WAIT);
	if (err == -EINTR && patience == KEEP_WAIT)
		err = 0;
	/* What it is is known from here on. */
	mem_look(vm->mm, page->hva, &e, 1);
	if (!err && mem_is_device(&e))
		return 1;
	if (!err && copy_from_user(page->data, (void __user *)page->hva, PAGE_SIZE))
		err = -EFAULT;
	return err;
}

/* Into the store as it is now, if nobody was faster.  0, 1: not to be kept; -ENOMEM, -EFAULT, -EINTR. */
static int page_keep(struct keel_vm *vm, struct snapshot *snap, unsigned long hva, enum patience patience,
		     struct snap_page **kept)
{
	gfp_t gfp = patience == KEEP_NOW ? GFP_KEEP_NOW : GFP_KEEP;
	XA_STATE(xas, &snap->pages, hva >> PAGE_SHIFT);
	struct snap_page *page;
	struct mem_entry e;
	int err;

	mem_look(vm->mm, hva, &e, 1);
	if (mem_is_device(&e))
		return 1;
	page = page_alloc(gfp);
	if (!page)
		return -ENOMEM;
	page->hva = hva;
	err = page_read(vm, page, e.flags & _PAGE_PRESENT, patience);
	if (!err && patience != KEEP_NOW)
		err = xa_reserve(&snap->pages, xas.xa_index, gfp);
	if (err)
		goto free;
	xas_lock(&xas);
	*kept = xas_load(&xas);
	/* What was reserved is no page. */
	if (!*kept || xa_is_zero(*kept)) {
		xas_store(&xas, page);
		err = xas_error(&xas);
		*kept = err ? NULL : page;
	}
	xas_unlock(&xas);
	if (*kept != page)
		goto free;
	count_pages(vm, snap, 1);
	return 0;
free:
	page_free(page);
	return err;
}

static int keep(struct keel_vm *vm, struct snapshot *snap, unsigned long hva, enum patience patience)
{
	struct snap_page *page = xa_load(&snap->pages, hva >> PAGE_SHIFT);
	int err = 0;

	if (unlikely(!page))
		err = page_keep(vm, snap, hva, patience, &page);
	if (!err)
		page_listed(snap, page);
	return min(err, 0);
}

int keel_keep(struct keel_vm *vm, struct keel_slot *slot, u64 gfn, bool may_sleep)
{
	struct snapshot *snap = vm->snaps->current_one, *s;
	int err = keep(vm, snap, keel_slot_hva(slot, gfn), may_sleep ? KEEP_WAIT : KEEP_NOW);

	if (likely(!err))
		return 0;
	if (!may_sleep)
		return -EAGAIN;
	/* Where the user has no memory nothing is written, either. */
	if (err != -ENOMEM)
		return err;
	for (s = snap; s; s = s->parent)
		WRITE_ONCE(s->broken, true);
	return 0;
}

int keel_keep_fault(struct keel_vm *vm, struct keel_slot *slot, u64 gfn)
{
	return keep(vm, vm->snaps->current_one, keel_slot_hva(slot, gfn), KEEP_FAULT);
}

/* Emptied piece by piece: xa_destroy() has IRQs off for as long as what is left takes, and here that may be millions. */
static void snapshot_free(struct keel_vm *vm, struct snapshot *snap)
{
	XA_STATE(xas, &snap->pages, 0);
	unsigned int held = 0;
	struct snap_page *page;
	long n = 0;

	xas_lock(&xas);
	xas_for_each(&xas, page, ULONG_MAX) {
		xas_store(&xas, NULL);
		if (!xa_is_zero(page)) {	/* else a place that was only reserved */
			page_free(page);
			n++;
		}
		if (++held % LOCKED_PAGES)
			continue;
		/* From the same place on: xas_pause() would reckon with a node that may have gone with its last page. */
		xas_reset(&xas);
		xas_unlock(&xas);
		cond_resched();
		xas_lock(&xas);
	}
	xas_unlock(&xas);
	count_pages(vm, snap, -n);
	xa_destroy(&snap->pages);
	kvfree(snap->delta);
	snap_state_free(&snap->state);
	kfree_rcu(snap, rcu);
}

bool keel_has_snapshot(struct keel_vm *vm)
{
	return vm->snaps && vm->snaps->current_one;
}

void keel_snaps_free(struct keel_vm *vm)
{
	struct snapshot *snap;
	unsigned long id;

	if (!vm->snaps)
		return;
	xa_for_each(&vm->snaps->by_id, id, snap)
		snapshot_free(vm, snap);
	xa_destroy(&vm->snaps->by_id);
	kfree(vm->snaps);
	vm->snaps = NULL;
}

/* ------------------------------------------------------------- where a page stands in the guest */

/* Slots whose memory is another's, too: by address, each is compared with what came before. */
static bool slots_aliased(struct keel_vm *vm)
{
	struct interval_tree_node *node = interval_tree_iter_first(&vm->slots.by_hva, 0, ULONG_MAX);
	unsigned long behind = 0;

	for (; node; node = interval_tree_iter_next(node, 0, ULONG_MAX)) {
		if (node->start < behind)
			return true;
		behind = node->last + 1;
	}
	return false;
}

static u64 gfn_of(const struct keel_slot *slot, unsigned long hva)
{
	return slot->base_gfn + ((hva - slot->hva) >> PAGE_SHIFT);
}

/* ------------------------------------------------------------- back to the current one */

/* The dirty log hears of it. */
static void tell_restored(struct keel_vm *vm, unsigned long hva)
{
	struct interval_tree_node *node;

	if (likely(!vm->slots.logged))
		return;
	keel_for_each_slot_at(node, vm, hva, hva + 1) {
		struct keel_slot *slot = container_of(node, struct keel_slot, hva_node);

		if (slot->dirty)
			keel_log_restored(vm, slot, gfn_of(slot, hva));
	}
}

static int page_restore(struct keel_vm *vm, const struct snap_page *page)
{
	if (copy_to_user((void __user *)page->hva, page->data, PAGE_SIZE))
		return mem_user_page_is(page->hva, page->data) ? 0 : -EFAULT;	/* kept, since a guest tried to write it */
	tell_restored(vm, page->hva);
	return 0;
}

/* Pages to be put back, and the way the lock is held meanwhile. */
struct undo {
	struct keel_vm *vm;
	struct snapshot *snap;
	struct mmu_near near;
	struct llist_node *left;	/* of those listed, the ones that the user's mapping has to be asked for */
	struct keel_slot *slot;		/* of the last */
	unsigned long count;
	unsigned int held;
	bool flush;
	bool hot;			/* pages may be left writable */
};

static void undo_breathe(struct undo *u)
{
	if (++u->held % LOCKED_PAGES == 0 && cond_resched_rwlock_write(&u->vm->mmu.lock))
		u->near = (struct mmu_near){};
}

/* Its next write is made known, wherever it stands: in as many slots as there are, perhaps. */
static void undo_protect(struct undo *u, const struct snap_page *page)
{
	struct interval_tree_node *node;

	if (likely(!u->vm->snaps->aliased)) {
		u->flush |= mmu_protect_pages(u->vm, u->slot, gfn_of(u->slot, page->hva), 1);
		return;
	}
	keel_for_each_slot_at(node, u->vm, page->hva, page->hva + 1) {
		struct keel_slot *slot = container_of(node, struct keel_slot, hva_node);

		u->flush |= mmu_protect_pages(u->vm, slot, gfn_of(slot, page->hva), 1);
		undo_breathe(u);
	}
}

/* Where writes are logged each has to come here. */
static bool may_be_hot(const struct undo *u, const struct keel_slot *slot)
{
	return u->hot && !slot->dirty;
}

static void cool(struct snap_page *page)
{
	clear_bit(PAGE_HOT, &page->flags);
	list_del(&page->hot);
	page->heat = page->cold = 0;
}

/* Nothing is to be put back. */
static void undo_unwritten(struct undo *u, struct snap_page *page)
{
	if (may_be_hot(u, u->slot) && ++page->cold < page->heat * COLD_AFTER)
		return;
	undo_protect(u, page);
	cool(page);
}

/* Its next write is the first again, or shows in its entry.  Where it is, for the kernel; NULL: nobody knows. */
static void *undo_take(struct undo *u, struct snap_page *page, unsigned int how)
{
	bool hot = test_bit(PAGE_HOT, &page->flags), leave = may_be_hot(u, u->slot);
	void *at = NULL;

	if (likely(!u->vm->snaps->aliased))
		at = mmu_take_page(u->vm, u->slot, gfn_of(u->slot, page->hva), how | (leave ? MMU_TAKE_LEAVE : 0),
				   &u->near);
	if (at == MMU_NOT_WRITTEN)
		return at;
	if (at) {
		u->flush = true;
	} else {
		undo_protect(u, page);
		leave = false;
	}
	page->cold = 0;
	page->heat += page->heat < HEAT_MAX;
	if (leave && !hot) {
		set_bit(PAGE_HOT, &page->flags);
		list_add(&page->hot, &u->snap->hot);
	} else if (hot && !leave) {
		cool(page);
	}
	return at;
}

/* Back to what it was. */
static void undo_page(struct undo *u, struct snap_page *page, unsigned int how)
{
	void *at;

	u->slot = keel_slot_of_hva(&u->vm->slots, page->hva, u->slot);
	at = undo_take(u, page, how);
	if (at == MMU_NOT_WRITTEN) {
		undo_unwritten(u, page);
	} else {
		u->count++;
		if (at && page_copied(at, page->data)) {
			tell_restored(u->vm, page->hva);
		} else {
			page->node.next = u->left;
			u->left = &page->node;
		}
	}
}

static void undo_locked(struct undo *u)
{
	struct snap_page *page, *more;

	write_lock(&u->vm->mmu.lock);
	/* The hot ones, before others get hot.  One that is listed, too, has its turn there. */
	list_for_each_entry_safe(page, more, &u->snap->hot, hot) {
		if (!test_bit(PAGE_DIRTY, &page->flags))
			undo_page(u, page, MMU_TAKE_WRITTEN);
		undo_breathe(u);
	}
	llist_for_each_entry_safe(page, more, llist_del_all(&u->snap->dirty), node) {
		clear_bit(PAGE_DIRTY, &page->flags);
		undo_page(u, page, 0);
		undo_breathe(u);
	}
	write_unlock(&u->vm->mmu.lock);
	if (u->flush)
		keel_flush_tlbs(u->vm);
}

static int undo(struct keel_vm *vm, struct snapshot *snap, bool stays, u64 *pages)
{
	struct undo u = {
		.vm = vm, .snap = snap,
		/* One that is left for another is none for whose pages anything is to be noted. */
		.hot = stays && keel_hw.two_dim && keel_hw.mmu_fmt->dirty && !vm->snaps->aliased,
	};
	struct snap_page *page;
	int err = 0;

	undo_locked(&u);
	llist_for_each_entry(page, u.left, node) {
		err = page_restore(vm, page);
		if (err)
			break;
		cond_resched();
	}
	*pages += u.count;
	return err;
}

/* ------------------------------------------------------------- from one to another */

/* Memory is what it was at @snap; on the way up what nobody has kept is kept there.  @spare has enough. */
static int step_up(struct keel_vm *vm, struct snapshot *snap, struct list_head *spare, u64 *pages)
{
	unsigned long i;

	for (i = 0; i < snap->nr_delta; i++) {
		unsigned long index = snap->delta[i];
		const struct snap_page *was = xa_load(&snap->parent->pages, index);
		struct snap_page *page;
		int err;

		if (!xa_load(&snap->pages, index)) {
			page = list_first_entry(spare, struct snap_page, hot);
			list_del(&page->hot);
			page->hva = index << PAGE_SHIFT;
			if (copy_from_user(page->data, (void __user *)page->hva, PAGE_SIZE)) {
				page_free(page);
				return -EFAULT;
			}
			/* Reserved, so it cannot fail. */
			xa_store(&snap->pages, index, page, GFP_KEEP);
			count_pages(vm, snap, 1);
		}
		err = page_restore(vm, was);
		if (err)
			return err;
		cond_resched();
	}
	*pages += snap->nr_delta;
	return 0;
}

static int step_down(struct keel_vm *vm, struct snapshot *snap, u64 *pages)
{
	unsigned long i;
	int err = 0;

	for (i = 0; !err && i < snap->nr_delta; i++) {
		err = page_restore(vm, xa_load(&snap->pages, snap->delta[i]));
		cond_resched();
	}
	*pages += snap->nr_delta;
	return err;
}

static struct snapshot *common_ancestor(struct snapshot *a, struct snapshot *b)
{
	while (a != b) {
		if (a->depth >= b->depth)
			a = a->parent;
		else
			b = b->parent;
		if (!a || !b)
			return NULL;
	}
	return a;
}

/* What step_up() will need. */
static int spare_for(struct snapshot *snap, struct list_head *spare)
{
	unsigned long i;

	for (i = 0; i < snap->nr_delta; i++) {
		struct snap_page *page;

		if (xa_load(&snap->pages, snap->delta[i]))
			continue;
		page = page_alloc(GFP_KEEP);
		if (!page)
			return -ENOMEM;
		list_add(&page->hot, spare);
		if (xa_reserve(&snap->pages, snap->delta[i], GFP_KEEP))
			return -ENOMEM;
		cond_resched();
	}
	return 0;
}

static int path_intact(struct snapshot *from, struct snapshot *to, struct snapshot *above)
{
	struct snapshot *s;
	bool broken = above->broken;

	for (s = from; s != above; s = s->parent)
		broken |= s->broken;
	for (s = to; s != above; s = s->parent)
		broken |= s->broken;
	return broken ? -ENODATA : 0;
}

/* There may be millions. */
static void breathe(unsigned long n)
{
	if (n % 1024 == 0)
		cond_resched();
}

/* Ring entries that pages take which are put back; of slots that are the same memory as if all were. */
struct entries {
	struct keel_vm *vm;
	struct keel_slot *slot;
	unsigned long n, seen;
};

static void entries_add(struct entries *e, unsigned long hva)
{
	e->slot = keel_slot_of_hva(&e->vm->slots, hva, e->slot);
	if (e->vm->snaps->aliased)
		e->n += e->vm->slots.logged;
	else if (e->slot && e->slot->dirty)
		e->n++;
	breathe(++e->seen);
}

/* Pages that will be written; which is known but for what hot ones tell. */
static bool rings_have_room(struct keel_vm *vm, struct snapshot *from, struct snapshot *to, struct snapshot *above)
{
	struct snapshot *const ways[] = { from, to };
	struct entries e = { .vm = vm };
	struct snap_page *page;
	struct snapshot *s;
	unsigned long i, way;

	if (!vm->slots.ring_entries || !vm->slots.logged)
		return true;
	llist_for_each_entry(page, READ_ONCE(from->dirty.first), node)
		entries_add(&e, page->hva);
	list_for_each_entry(page, &from->hot, hot)
		entries_add(&e, page->hva);
	for (way = 0; way < ARRAY_SIZE(ways); way++)
		for (s = ways[way]; s != above; s = s->parent)
			for (i = 0; i < s->nr_delta; i++)
				entries_add(&e, s->delta[i] << PAGE_SHIFT);
	return e.n <= keel_rings_room(vm);
}

/* All that can fail with nothing changed. */
static int way_prepare(struct keel_vm *vm, struct snapshot *from, struct snapshot *to, struct snapshot *above,
		       struct list_head *spare)
{
	struct snapshot *s;
	int err = path_intact(from, to, above);

	if (!err && !rings_have_room(vm, from, to, above))
		err = -ENOSPC;
	for (s = from; !err && s != above; s = s->parent)
		err = spare_for(s, spare);
	return err;
}

static int way_go(struct keel_vm *vm, struct snapshot *from, struct snapshot *to, struct snapshot *above,
		  struct list_head *spare, u64 *pages)
{
	struct snapshot *down[MAX_DEPTH], *s;
	unsigned int n = 0;
	int err;

	err = undo(vm, from, from == to, pages);
	for (s = from; !err && s != above; s = s->parent)
		err = step_up(vm, s, spare, pages);
	for (s = to; s != above; s = s->parent)
		down[n++] = s;
	while (!err && n)
		err = step_down(vm, down[--n], pages);
	return err;
}

static int memory_reset(struct keel_vm *vm, struct snapshot *to, u64 *pages)
{
	struct snapshot *from = vm->snaps->current_one, *above = common_ancestor(from, to);
	struct snap_page *page, *next;
	LIST_HEAD(spare);
	int err;

	err = way_prepare(vm, from, to, above, &spare);
	if (!err) {
		err = way_go(vm, from, to, above, &spare, pages);
		vm->snaps->current_one = to;
		if (err) {
			keel_vm_kill(vm);
			err = -EIO;
		}
	}
	list_for_each_entry_safe(page, next, &spare, hot)
		page_free(page);
	return err;
}

/* ------------------------------------------------------------- ioctls */

/* Begin or end to keep what is in slots.  slots_lock held, the VM stopped. */
static void slots_keep(struct keel_vm *vm, bool on)
{
	struct keel_slot *slot;
	unsigned long id;

	xa_for_each(&vm->slots.by_id, id, slot)
		keel_slot_keep(slot, on);
}

/* The next write to each page is the first again.  A few entries for each slot, however large it is. */
static void slots_protect(struct keel_vm *vm)
{
	struct keel_slot *slot;
	unsigned long id;

	xa_for_each(&vm->slots.by_id, id, slot) {
		mmu_protect_slot(vm, slot);
		cond_resched();
	}
}

/* Of the hot pages those that were written are listed; and none is hot any more, nor is its next write known. */
static void list_hot(struct keel_vm *vm, struct snapshot *snap)
{
	struct keel_slot *slot = NULL;
	struct snap_page *page, *next;
	struct mmu_near near = {};
	unsigned int n = 0;

	write_lock(&vm->mmu.lock);
	list_for_each_entry_safe(page, next, &snap->hot, hot) {
		slot = keel_slot_of_hva(&vm->slots, page->hva, slot);
		if (mmu_page_written(vm, slot, gfn_of(slot, page->hva), &near))
			page_listed(snap, page);
		cool(page);
		if (++n % LOCKED_PAGES == 0 && cond_resched_rwlock_write(&vm->mmu.lock))
			near = (struct mmu_near){};
	}
	write_unlock(&vm->mmu.lock);
}

/* What was written since @snap, and is going to be what a child of it has otherwise.  Then all are to be protected. */
static int take_delta(struct keel_vm *vm, struct snapshot *snap, struct snapshot *child)
{
	struct snap_page *page;
	struct llist_node *first = READ_ONCE(snap->dirty.first);
	unsigned long n = 0, seen = 0;

	llist_for_each_entry(page, first, node)
		breathe(++n);
	list_for_each_entry(page, &snap->hot, hot) {
		n += !test_bit(PAGE_DIRTY, &page->flags);
		breathe(++seen);
	}
	if (!n)
		return 0;
	child->delta = kvmalloc_array(n, sizeof(*child->delta), GFP_KEEP);
	if (!child->delta)
		return -ENOMEM;
	list_hot(vm, snap);
	llist_for_each_entry(page, llist_del_all(&snap->dirty), node) {
		clear_bit(PAGE_DIRTY, &page->flags);
		child->delta[child->nr_delta++] = page->hva >> PAGE_SHIFT;
		breathe(child->nr_delta);
	}
	return 0;
}

static struct snapshot *snapshot_alloc(struct keel_snaps *snaps)
{
	struct snapshot *snap;

	/* No number is used again: another snapshot may still have it. */
	if (snaps->count >= MAX_SNAPSHOTS || (snaps->current_one && snaps->current_one->depth + 1 >= MAX_DEPTH) ||
	    snaps->last_id == U32_MAX)
		return ERR_PTR(-E2BIG);
	snap = kzalloc(sizeof(*snap), GFP_KERNEL_ACCOUNT);
	if (!snap)
		return ERR_PTR(-ENOMEM);
	xa_init_flags(&snap->pages, XA_FLAGS_ACCOUNT);
	init_llist_head(&snap->dirty);
	INIT_LIST_HEAD(&snap->hot);
	snap->parent = snaps->current_one;
	snap->depth = snap->parent ? snap->parent->depth + 1 : 0;
	snap->id = snaps->last_id + 1;
	if (xa_reserve(&snaps->by_id, snap->id, GFP_KERNEL_ACCOUNT)) {
		kfree(snap);
		return ERR_PTR(-ENOMEM);
	}
	return snap;
}

/* Stopped, slots_lock held. */
static int snapshot_take(struct keel_vm *vm, struct snapshot *snap)
{
	struct keel_snaps *snaps = vm->snaps;
	struct keel_section bad;
	int err;

	err = snap_state_get(vm, &snap->state, &bad);
	if (!err && snap->parent)
		err = take_delta(vm, snap->parent, snap);
	if (err)
		return err;
	if (!snap->parent) {
		snaps->aliased = slots_aliased(vm);
		slots_keep(vm, true);
	} else {
		snap->parent->children++;
	}
	snaps->current_one = snap;
	slots_protect(vm);
	xa_store(&snaps->by_id, snap->id, snap, GFP_KERNEL_ACCOUNT);	/* reserved: cannot fail */
	snaps->last_id = snap->id;
	snaps->count++;
	return 0;
}

static int snaps_make(struct keel_vm *vm)
{
	struct keel_snaps *snaps;

	if (vm->snaps)
		return 0;
	snaps = kzalloc(sizeof(*snaps), GFP_KERNEL_ACCOUNT);
	if (!snaps)
		return -ENOMEM;
	xa_init_flags(&snaps->by_id, XA_FLAGS_ACCOUNT);
	mutex_lock(&vm->slots_lock);		/* for keel_has_snapshot() */
	smp_store_release(&vm->snaps, snaps);	/* and for keel_snaps_show() */
	mutex_unlock(&vm->slots_lock);
	return 0;
}

static struct snapshot *snapshot_find(struct keel_vm *vm, u32 id)
{
	return vm->snaps ? xa_load(&vm->snaps->by_id, id) : NULL;
}

VM_IOCTL(keel_snapshot)
{
	struct keel_snapshot __user *user = (void __user *)arg;
	struct keel_snapshot *s = buf;
	struct keel_section bad = {};
	struct snapshot *snap;
	int err;

	if (s->flags || memchr_inv(s->reserved, 0, sizeof(s->reserved)))
		return -EINVAL;
	err = snaps_make(vm);
	if (err)
		return err;
	snap = snapshot_alloc(vm->snaps);
	if (IS_ERR(snap))
		return PTR_ERR(snap);
	/* Where it could not be told afterwards there is to be none. */
	err = put_user(snap->id, &user->id);
	mutex_lock(&vm->slots_lock);
	if (!err)
		err = snap_stop(vm, false, &bad);
	if (!err) {
		err = snapshot_take(vm, snap);
		keel_vm_resume(vm);
	}
	mutex_unlock(&vm->slots_lock);
	if (err) {
		(void)put_user(s->id, &user->id);
		xa_release(&vm->snaps->by_id, snap->id);
		snapshot_free(vm, snap);
		return err;
	}
	s->id = snap->id;
	return 0;
}

/* Stopped, slots_lock held. */
static int reset_to(struct keel_vm *vm, struct snapshot *snap, struct keel_reset *r)
{
	bool state = !(r->flags & KEEL_RESET_MEMORY);
	u64 start = ktime_get_ns();
	struct keel_section bad;
	int err;

	if (state && snap_state_fits(vm, &snap->state, &bad))
		return -ENODEV;
	err = memory_reset(vm, snap, &r->pages);
	if (!err && state && snap_state_apply(vm, &snap->state, r->flags & KEEL_TIME_GOES_ON, &bad)) {
		/* It was this VM's: only a vCPU's CPUID can have changed what it may be set to. */
		keel_vm_kill(vm);
		err = -EIO;
	}
	if (err)
		return err;
	vm->stat.resets++;
	vm->stat.reset_pages += r->pages;
	vm->stat.reset_bytes += (r->pages << PAGE_SHIFT) + (state ? snap->state.size : 0);
	vm->stat.reset_ns += ktime_get_ns() - start;
	return 0;
}

VM_IOCTL(keel_reset)
{
	struct keel_reset *r = buf;
	struct keel_section bad = {};
	struct snapshot *snap;
	int err;

	if (r->flags & ~(KEEL_TIME_GOES_ON | KEEL_RESET_MEMORY) || r->pages || memchr_inv(r->reserved, 0, sizeof(r->reserved)))
		return -EINVAL;
	snap = snapshot_find(vm, r->id);
	if (!snap)
		return -ENOENT;
	mutex_lock(&vm->slots_lock);
	err = snap_stop(vm, !(r->flags & KEEL_RESET_MEMORY), &bad);
	if (!err) {
		err = reset_to(vm, snap, r);
		keel_vm_resume(vm);
	}
	mutex_unlock(&vm->slots_lock);
	return err;
}

long keel_reset_first(struct keel_vm *vm, unsigned long uarg)
{
	struct keel_reset __user *user = (void __user *)uarg;
	struct keel_reset r;
	long err;

	if (copy_from_user(&r, user, sizeof(r)))
		return -EFAULT;
	if (!r.id)
		return 0;
	mutex_lock(&vm->lock);
	err = keel_reset(vm, &r, 0);
	mutex_unlock(&vm->lock);
	if (err)
		return err;
	/* What KVM_RUN says from here on is its own. */
	r.id = 0;
	return copy_to_user(user, &r, sizeof(r)) ? -EFAULT : 0;
}

/* ------------------------------------------------------------- asked for by the guest */

VM_IOCTL(keel_allow_reset)
{
	const struct keel_allow_reset *a = buf;

	if (a->flags & ~KEEL_TIME_GOES_ON || memchr_inv(a->reserved, 0, sizeof(a->reserved)))
		return -EINVAL;
	if (a->id && !snapshot_find(vm, a->id))
		return -ENOENT;
	if (!vm->snaps)
		return 0;
	vm->snaps->guests_flags = a->flags;
	WRITE_ONCE(vm->snaps->guests, a->id);
	return 0;
}

bool keel_reset_allowed(struct keel_vm *vm)
{
	struct keel_snaps *snaps = READ_ONCE(vm->snaps);

	return snaps && READ_ONCE(snaps->guests);
}

/* vm->lock held. */
static int guest_reset(struct keel_vm *vm)
{
	struct keel_reset r = { .id = vm->snaps->guests, .flags = vm->snaps->guests_flags };
	struct snapshot *snap = snapshot_find(vm, r.id);
	int err;

	/* Not allowed any more: the guest asks again, and hears of it. */
	if (!snap)
		return 0;
	mutex_lock(&vm->slots_lock);
	err = snap_stop_all(vm);
	if (!err) {
		err = reset_to(vm, snap, &r);
		keel_vm_resume(vm);
	}
	mutex_unlock(&vm->slots_lock);
	return err;
}

int keel_guest_reset(struct keel_vcpu *vcpu)
{
	struct keel_vm *vm = vcpu->vm;
	u64 resets = vm->stat.resets;		/* there are none while this thread is in the loop */
	int err;

	/* Out of the loop, and its vCPU at rest, it is what others that ask for the same may wait for. */
	keel_vcpu_rest(vcpu);
	err = mutex_lock_killable(&vm->lock);
	if (!err) {
		/* If another vCPU's came first this one has not asked yet. */
		if (vm->stat.resets == resets)
			err = guest_reset(vm);
		mutex_unlock(&vm->lock);
	}
	keel_vcpu_rested(vcpu);
	return err ?: KEEL_RESUME;
}

/*
 * What the current one has kept is its parent's, which is the current one then.  What differs between the two is written
 * as the parent sees it.
 */
static int merge_up(struct snapshot *snap)
{
	struct snapshot *parent = snap->parent;
	struct snap_page *page, *next;
	struct llist_node *first = READ_ONCE(snap->dirty.first);
	unsigned long i, n = 0;

	/* Reserved, a place is as good as empty. */
	llist_for_each_entry(page, first, node) {
		if (!xa_load(&parent->pages, page->hva >> PAGE_SHIFT) &&
		    xa_reserve(&parent->pages, page->hva >> PAGE_SHIFT, GFP_KEEP))
			return -ENOMEM;
		breathe(++n);
	}
	list_for_each_entry(page, &snap->hot, hot) {
		if (!xa_load(&parent->pages, page->hva >> PAGE_SHIFT) &&
		    xa_reserve(&parent->pages, page->hva >> PAGE_SHIFT, GFP_KEEP))
			return -ENOMEM;
		breathe(++n);
	}
	list_for_each_entry_safe(page, next, &snap->hot, hot) {
		page_listed(snap, page);
		cool(page);
		breathe(++n);
	}
	for (i = 0; i < snap->nr_delta; i++) {
		page_listed(parent, xa_load(&parent->pages, snap->delta[i]));
		breathe(i);
	}
	for (first = llist_del_all(&snap->dirty); first; ) {
		unsigned long index;
		struct snap_page *is;

		page = llist_entry(first, struct snap_page, node);
		first = first->next;
		index = page->hva >> PAGE_SHIFT;
		is = xa_load(&parent->pages, index);
		if (!is) {
			xa_erase(&snap->pages, index);
			clear_bit(PAGE_DIRTY, &page->flags);
			xa_store(&parent->pages, index, page, GFP_KEEP);
			atomic_long_dec(&snap->nr_pages);
			atomic_long_inc(&parent->nr_pages);
			is = page;
		}
		page_listed(parent, is);
		breathe(++n);
	}
	parent->broken |= snap->broken;
	return 0;
}

/* Slots_lock held, the VM stopped. */
static int drop_current(struct keel_vm *vm, struct snapshot *snap)
{
	int err = snap->parent ? merge_up(snap) : 0;

	if (err)
		return err;
	vm->snaps->current_one = snap->parent;
	if (!snap->parent)
		slots_keep(vm, false);
	return 0;
}

/* Nobody needs to know of first writes any more, but for the dirty log.  Slots_lock held. */
static void slots_unprotect(struct keel_vm *vm)
{
	struct keel_slot *slot;
	unsigned long id;

	xa_for_each(&vm->slots.by_id, id, slot)
		if (!slot->dirty)
			mmu_unprotect_slot(vm, slot);
}

VM_IOCTL(keel_drop)
{
	struct snapshot *snap = arg > U32_MAX ? NULL : snapshot_find(vm, arg);
	struct keel_section bad = {};
	bool is_current;
	int err = 0;

	if (!snap)
		return -ENOENT;
	if (snap->children)
		return -ENOTEMPTY;
	is_current = vm->snaps->current_one == snap;
	mutex_lock(&vm->slots_lock);
	if (is_current) {
		err = snap_stop(vm, false, &bad);
		if (!err) {
			err = drop_current(vm, snap);
			keel_vm_resume(vm);
		}
		if (!err && !snap->parent)
			slots_unprotect(vm);
	}
	mutex_unlock(&vm->slots_lock);
	if (err)
		return err;
	if (vm->snaps->guests == snap->id)
		WRITE_ONCE(vm->snaps->guests, 0);
	if (snap->parent)
		snap->parent->children--;
	xa_erase(&vm->snaps->by_id, snap->id);
	vm->snaps->count--;
	snapshot_free(vm, snap);
	return 0;
}

/* slots_lock held. */
static long mark_pages(struct keel_vm *vm, unsigned int space, u64 gfn, u64 end)
{
	struct keel_slot *slot = NULL;
	int err;

	for (; gfn < end; gfn++) {
		if (!slot || gfn - slot->base_gfn >= slot->npages)
			slot = keel_slot_find(vm, space, gfn);
		if (!slot)
			return -ENOENT;
		err = keep(vm, vm->snaps->current_one, keel_slot_hva(slot, gfn), KEEP_WAIT);
		if (err)
			return err;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

VM_IOCTL(keel_mark_dirty)
{
	const struct keel_range *range = buf;
	u64 last = range->gpa + range->size - 1;
	long err = 0;

	if (range->flags || range->space >= KEEL_SPACES || (range->size && last < range->gpa))
		return -EINVAL;
	if (!range->size)
		return 0;
	mutex_lock(&vm->slots_lock);
	if (keel_has_snapshot(vm))
		err = mark_pages(vm, array_index_nospec(range->space, KEEL_SPACES), range->gpa >> PAGE_SHIFT,
				 (last >> PAGE_SHIFT) + 1);
	mutex_unlock(&vm->slots_lock);
	return err;
}

VM_IOCTL(keel_get_info)
{
	struct keel_info *info = buf;

	info->features = KEEL_FEATURE_STATE | KEEL_FEATURE_SNAPSHOT | KEEL_FEATURE_RESET_RUN | KEEL_FEATURE_ALLOW_RESET |
			 KEEL_FEATURE_CREATE_FROM;
	if (keel_hw.two_dim && keel_hw.mmu_fmt->dirty)
		info->features |= KEEL_FEATURE_WORKING_SET;
	if (mmu_tells_accessed())
		info->features |= KEEL_FEATURE_ACCESSED;
	info->state_version = KEEL_STATE_VERSION;
	info->max_snapshots = MAX_SNAPSHOTS;
	info->max_depth = MAX_DEPTH;
	return 0;
}

/* ------------------------------------------------------------- to be seen */

/*
 * No lock: whoever resets a VM has them for as long as its memory takes to be there.  The VM, and so its tree, stays as long as
 * keel_hw_lock is held, each snapshot for a grace period, and so do those above it, which go later.
 */
void keel_snaps_show(struct seq_file *m, struct keel_vm *vm)
{
	struct keel_snaps *snaps = READ_ONCE(vm->snaps);
	const struct snapshot *snap, *current_one;
	unsigned long id;

	if (!snaps)
		return;
	rcu_read_lock();
	current_one = READ_ONCE(snaps->current_one);
	xa_for_each(&snaps->by_id, id, snap)
		seq_printf(m, "snapshot %u parent %u children %u pages %ld delta %lu state %zu%s%s\n", snap->id,
			   snap->parent ? snap->parent->id : 0, READ_ONCE(snap->children),
			   atomic_long_read(&snap->nr_pages), snap->nr_delta, snap->state.size,
			   snap == current_one ? " current" : "", READ_ONCE(snap->broken) ? " broken" : "");
	rcu_read_unlock();
}

int keel_snaps_init(void)
{
	page_cache = kmem_cache_create("keel_snap_page", sizeof(struct snap_page), 0, SLAB_ACCOUNT, NULL);
	return page_cache ? 0 : -ENOMEM;
}

void keel_snaps_exit(void)
{
	kmem_cache_destroy(page_cache);
}
