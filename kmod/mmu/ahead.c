// SPDX-License-Identifier: GPL-2.0-only
/*
 * ahead.c - pages mapped before the guest touches them (KVM_PRE_FAULT_MEMORY: Linux 6.11, api.rst 4.143), and which ones it
 * touches (KEEL_WORKING_SET: uapi/keel.h), so that the next run, or the next clone, has them there.
 *
 * What is mapped ahead is not marked accessed: whoever asks for the pages in use is told of those that the CPU marked.  Locks:
 * mmu.lock held for read, for pieces of bounded size.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "ops.h"
#include "pte.h"
#include "tdp.h"

/* Where what maps @gfn ends; 0: nothing does. */
static u64 mapped_until(struct keel_vm *vm, const struct mmu_view *view, u64 gfn)
{
	unsigned int level;
	u64 *ptep, behind = 0;

	if (gfn > mmu_max_gfn())	/* the tables have no place for it, but for its lower bits */
		return 0;
	read_lock(&vm->mmu.lock);
	ptep = mmu_lookup(view, gfn, &level);
	if (ptep && mmu_is_leaf(keel_hw.mmu_fmt, READ_ONCE(*ptep), level))
		behind = round_down(gfn, mmu_level_pages(level)) + mmu_level_pages(level);
	read_unlock(&vm->mmu.lock);
	return behind;
}

/* A fault leaves some to be tried again, where the host is at work. */
static int map_ahead(struct keel_vcpu *vcpu, u64 gfn)
{
	int r = mmu_fault(vcpu, gfn << PAGE_SHIFT, MMU_ACC_AHEAD);

	return r == MMU_MMIO ? -ENOENT : min(r, 0);
}

/* A pause waits for those in the loop: not for all of this. */
static int let_pause(struct keel_vcpu *vcpu)
{
	if (likely(!atomic_read(&vcpu->vm->pause)))
		return 0;
	keel_vcpu_end(vcpu);
	return keel_vcpu_begin(vcpu) ? -EINTR : 0;
}

VCPU_IOCTL(mmu_pre_fault)
{
	struct kvm_pre_fault_memory *range = buf;
	u64 gfn = range->gpa >> PAGE_SHIFT, first = gfn, end, behind;
	int err = 0;

	if (range->flags || !PAGE_ALIGNED(range->gpa) || !PAGE_ALIGNED(range->size) || range->gpa + range->size <= range->gpa)
		return -EINVAL;
	if (!keel_hw.two_dim)
		return -EOPNOTSUPP;
	end = gfn + (range->size >> PAGE_SHIFT);
	while (!err && gfn < end) {
		if (!vcpu->mmu.view->root)
			err = mmu_load(vcpu);
		if (err)
			break;
		behind = mapped_until(vcpu->vm, vcpu->mmu.view, gfn);
		if (behind)
			gfn = min(behind, end);
		else
			err = map_ahead(vcpu, gfn);
		if (!err && gfn < end)
			err = signal_pending(current) ? -EINTR : let_pause(vcpu);
		cond_resched();
	}
	range->size -= (gfn - first) << PAGE_SHIFT;
	range->gpa += (gfn - first) << PAGE_SHIFT;
	return gfn > first ? 0 : err;
}

/* -------------------------------------------------------------- what is in use */

bool mmu_tells_accessed(void)
{
	return keel_hw.two_dim && keel_hw.mmu_fmt->accessed;
}

#define WS_RANGES	128	/* in a piece, for which as many entries are looked at as one table has, at most */

struct ws_piece {
	struct keel_gpa_range range[WS_RANGES];
	unsigned int n;
	u64 gfn;		/* where it ends */
};

static void ws_add(struct ws_piece *piece, u64 gfn, u64 pages)
{
	struct keel_gpa_range *last = piece->n ? &piece->range[piece->n - 1] : NULL;

	if (last && last->gpa + last->size == gfn << PAGE_SHIFT)
		last->size += pages << PAGE_SHIFT;
	else
		piece->range[piece->n++] = (struct keel_gpa_range){ gfn << PAGE_SHIFT, pages << PAGE_SHIFT };
}

/* Of [gfn, end), as much as there is room for. */
static void ws_look(struct keel_vm *vm, unsigned int space, u64 gfn, u64 end, unsigned int room, struct ws_piece *piece)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	const struct mmu_view *view = &vm->mmu.view[space];
	unsigned int steps;

	piece->n = 0;
	read_lock(&vm->mmu.lock);
	for (steps = 0; gfn < end && steps < MMU_PTES; steps++) {
		unsigned int level;
		u64 *ptep = mmu_lookup(view, gfn, &level), pte, behind;

		if (!ptep) {
			gfn = end;
			break;
		}
		pte = READ_ONCE(*ptep);
		behind = min(round_down(gfn, mmu_level_pages(level)) + mmu_level_pages(level), end);
		if (mmu_is_leaf(fmt, pte, level) && pte & fmt->accessed) {
			if (piece->n == room && piece->range[room - 1].gpa + piece->range[room - 1].size != gfn << PAGE_SHIFT)
				break;
			ws_add(piece, gfn, behind - gfn);
		}
		gfn = behind;
	}
	read_unlock(&vm->mmu.lock);
	piece->gfn = gfn;
}

/* They are told of: from here on they are looked at anew. */
static bool ws_take(struct keel_vm *vm, unsigned int space, const struct ws_piece *piece)
{
	bool found = false;
	unsigned int i;

	read_lock(&vm->mmu.lock);
	for (i = 0; i < piece->n; i++) {
		u64 gfn = piece->range[i].gpa >> PAGE_SHIFT;

		found |= mmu_age_range(&vm->mmu.view[space], gfn, gfn + (piece->range[i].size >> PAGE_SHIFT), true);
	}
	read_unlock(&vm->mmu.lock);
	return found;
}

static int ws_pieces(struct keel_vm *vm, struct keel_working_set *ws, struct ws_piece *piece, bool *flush)
{
	struct keel_gpa_range __user *user = (void __user *)(unsigned long)ws->ranges;
	u64 gfn = ws->gpa >> PAGE_SHIFT, end = gfn + (ws->size >> PAGE_SHIFT);
	bool list = ws->room;

	while (gfn < end && (!list || ws->count < ws->room)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ws_look(vm, ws->space, gfn, min(end, mmu_max_gfn() + 1), list ? min(ws->room - ws->count, WS_RANGES) : WS_RANGES,
			piece);
		/* What was listed already is told; who asks for the rest with no room for it is told then. */
		if (list && copy_to_user(user + ws->count, piece->range, piece->n * sizeof(piece->range[0])))
			return ws->count ? 0 : -EFAULT;
		if (!(ws->flags & KEEL_WORKING_SET_KEEP))
			*flush |= ws_take(vm, ws->space, piece);
		if (list)
			ws->count += piece->n;
		gfn = piece->gfn > mmu_max_gfn() ? end : piece->gfn;
		ws->gpa = gfn << PAGE_SHIFT;
		ws->size = (end - gfn) << PAGE_SHIFT;
		cond_resched();
	}
	return 0;
}

VM_IOCTL(mmu_working_set)
{
	struct keel_working_set *ws = buf;
	struct ws_piece *piece;
	bool flush = false;
	int err;

	if (ws->flags & ~KEEL_WORKING_SET_KEEP || ws->reserved || ws->space >= KEEL_SPACES || ws->count ||
	    !PAGE_ALIGNED(ws->gpa) || !PAGE_ALIGNED(ws->size) || ws->gpa + ws->size < ws->gpa)
		return -EINVAL;
	if (!mmu_tells_accessed())
		return -EOPNOTSUPP;
	piece = kmalloc(sizeof(*piece), GFP_KERNEL_ACCOUNT);
	if (!piece)
		return -ENOMEM;
	ws->space = array_index_nospec(ws->space, KEEL_SPACES);
	err = ws_pieces(vm, ws, piece, &flush);
	/* Else what TLBs know is used without being marked. */
	if (flush)
		keel_flush_tlbs(vm);
	kfree(piece);
	return err;
}
