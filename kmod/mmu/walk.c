// SPDX-License-Identifier: GPL-2.0-only
/*
 * walk.c - a linear address through the guest's own page tables, as the CPU would: AMD APM volume 2 chapter 5,
 * Intel SDM 3A chapter 4.  Four table formats, one walk: what differs stands in a table.
 *
 * Needs no kernel and takes no locks.  Guest memory changes under our hands, so each entry is read once and
 * accessed and dirty bits are set by compare-and-exchange against what was read; if that fails the walk starts over.
 */
#ifdef __KERNEL__
#include <linux/errno.h>
#else
#include <errno.h>
#endif
#include "walk.h"

/* Bits of an entry that have the same place in all formats. */
#define PTE_P		0x01ull
#define PTE_W		0x02ull
#define PTE_U		0x04ull
#define PTE_A		0x20ull
#define PTE_D		0x40ull
#define PTE_PS		0x80ull
#define PTE_NX		(1ull << 63)
#define PTE_PKEY(e)	((e) >> 59 & 15)

/* Error code of a page fault. */
#define PF_P		0x01u
#define PF_W		0x02u
#define PF_U		0x04u
#define PF_RSVD		0x08u
#define PF_I		0x10u
#define PF_PK		0x20u

#define EFER_NXE	0x800ull
#define EFER_LONG	0x400ull	/* LMA */

#define BITS(hi, lo)	((~0ull >> (63 - (hi))) & ~0ull << (lo))
#define ADDR_MASK	BITS(51, 12)

struct walk_format {
	u8 levels;
	u8 index_bits;
	u8 entry_size;
	u8 cr3_shift;		/* alignment of the top table */
	u8 linear_bits;
	u8 no_rights;		/* level whose entries carry no rights and no accessed bit, 0: none */
	u8 large;		/* bit per level: PS makes a leaf there */
	u64 bad_any;		/* reserved at each level */
	u64 bad[MMU_MAX_LEVELS + 1];	/* reserved at that level */
	u64 bad_large[MMU_MAX_LEVELS + 1];	/* reserved in a large leaf of that level */
};

enum { FMT_32, FMT_PAE, FMT_LA48, FMT_LA57 };

static const struct walk_format formats[] = {
	[FMT_32] = {
		.levels = 2, .index_bits = 10, .entry_size = 4, .cr3_shift = 12, .linear_bits = 32,
		.large = 1 << 2,	/* with CR4.PSE */
		.bad_large = { [2] = BITS(21, 21) },
	},
	[FMT_PAE] = {
		.levels = 3, .index_bits = 9, .entry_size = 8, .cr3_shift = 5, .linear_bits = 32,
		.no_rights = 3,
		.large = 1 << 2,
		.bad_any = BITS(62, 52),
		/* Accessed is reserved too, but a CPU that walks for itself may have set it (QEMU's does). */
		.bad = { [3] = BITS(2, 1) | BITS(8, 6) | PTE_NX },
		.bad_large = { [2] = BITS(20, 13) },
	},
	[FMT_LA48] = {
		.levels = 4, .index_bits = 9, .entry_size = 8, .cr3_shift = 12, .linear_bits = 48,
		.large = 1 << 2 | 1 << 3,
		.bad = { [4] = PTE_PS },
		.bad_large = { [2] = BITS(20, 13), [3] = BITS(29, 13) },
	},
	[FMT_LA57] = {
		.levels = 5, .index_bits = 9, .entry_size = 8, .cr3_shift = 12, .linear_bits = 57,
		.large = 1 << 2 | 1 << 3,
		.bad = { [4] = PTE_PS, [5] = PTE_PS },
		.bad_large = { [2] = BITS(20, 13), [3] = BITS(29, 13) },
	},
};

/* Where a walk has been. */
struct walk {
	const struct walk_format *fmt;
	u64 entry[MMU_MAX_LEVELS + 1];
	u64 addr[MMU_MAX_LEVELS + 1];
	unsigned int level;		/* of the leaf */
	u64 rights;			/* PTE_W and PTE_U that hold at all levels, PTE_NX that holds at one */
};

static const struct walk_format *walk_format(const struct mmu_walk_env *env)
{
	if (!(env->cr4 & X86_CR4_PAE))
		return &formats[FMT_32];
	if (!(env->efer & EFER_LONG))
		return &formats[FMT_PAE];
	return &formats[env->cr4 & X86_CR4_LA57 ? FMT_LA57 : FMT_LA48];
}

static u64 above_maxphyaddr(const struct mmu_walk_env *env)
{
	return ADDR_MASK & ~0ull << env->maxphyaddr;
}

/* Large pages of the oldest format keep address bits 39..32 in bits 20..13. */
static u64 pse36_bad(const struct mmu_walk_env *env)
{
	unsigned int high = env->maxphyaddr > 32 ? env->maxphyaddr - 32 : 0;

	return high < 8 ? BITS(20, 13 + high) : 0;
}

static u64 reserved_bits(const struct walk_format *fmt, const struct mmu_walk_env *env, unsigned int level, bool leaf)
{
	u64 bad = fmt->bad_any | fmt->bad[level];

	if (fmt->entry_size == 8) {
		bad |= above_maxphyaddr(env);
		if (!(env->efer & EFER_NXE))
			bad |= PTE_NX;
		if (level == 3 && !env->gbpages)
			bad |= PTE_PS;
	}
	if (leaf && level > 1) {
		bad |= fmt->bad_large[level];
		if (fmt->entry_size == 4)
			bad |= pse36_bad(env);
	}
	return bad;
}

static bool is_leaf(const struct walk_format *fmt, const struct mmu_walk_env *env, unsigned int level, u64 entry)
{
	if (level == 1)
		return true;
	if (!(entry & PTE_PS) || !(fmt->large >> level & 1))
		return false;
	return fmt->entry_size == 8 || env->cr4 & X86_CR4_PSE;
}

enum { WALK_OK, WALK_NOT_PRESENT, WALK_RESERVED };

/* Down to the leaf, without asking for rights.  One of the above, or -EAGAIN. */
static int walk_down(struct keel_vcpu *vcpu, const struct mmu_walk_env *env, u64 gva, struct walk *w)
{
	const struct walk_format *fmt = w->fmt;
	u64 table = env->cr3 & ADDR_MASK & ~above_maxphyaddr(env);
	u64 rights = PTE_W | PTE_U;
	unsigned int level;

	if (fmt->linear_bits == 32)
		table = env->cr3 & BITS(31, fmt->cr3_shift);
	for (level = fmt->levels; ; level--) {
		unsigned int shift = 12 + (level - 1) * fmt->index_bits;
		u64 index = gva >> shift & BITS(fmt->index_bits - 1, 0);
		u64 entry = 0;
		int err = 0;
		bool leaf;

		w->addr[level] = table + index * fmt->entry_size;
		if (level == fmt->no_rights && env->pdptrs)
			entry = env->pdptrs[index];
		else
			err = keel_vcpu_read(vcpu, w->addr[level], &entry, fmt->entry_size);
		if (err == -EAGAIN)
			return err;
		if (err || !(entry & PTE_P))	/* a table where there is no memory maps nothing */
			return WALK_NOT_PRESENT;
		w->entry[level] = entry;
		leaf = is_leaf(fmt, env, level, entry);
		if (entry & reserved_bits(fmt, env, level, leaf))
			return WALK_RESERVED;
		if (level != fmt->no_rights)
			rights = (rights & (entry | PTE_NX)) | (entry & PTE_NX);
		if (leaf)
			break;
		table = entry & ADDR_MASK;
	}
	w->level = level;
	w->rights = rights;
	return WALK_OK;
}

/* Error code for an access that the rights on the way do not allow; 0 if they do. */
static u32 rights_fault(const struct mmu_walk_env *env, const struct walk *w, u32 access)
{
	bool user = access & MMU_ACC_USER, write = access & MMU_ACC_WRITE, fetch = access & MMU_ACC_FETCH;
	bool wp = env->cr0 & X86_CR0_WP;
	bool denied = false;
	u32 err = 0;

	if (write && !(w->rights & PTE_W) && (user || wp))
		denied = true;
	if (fetch && w->rights & PTE_NX)
		denied = true;
	if (user) {
		denied |= !(w->rights & PTE_U);
	} else if (w->rights & PTE_U) {
		if (fetch)
			denied |= !!(env->cr4 & X86_CR4_SMEP);
		else if (env->cr4 & X86_CR4_SMAP)
			denied |= access & MMU_ACC_SYSTEM || !env->ac;
	}
	if (w->rights & PTE_U && !fetch && env->cr4 & X86_CR4_PKE && env->efer & EFER_LONG) {
		u32 key = env->pkru >> 2 * PTE_PKEY(w->entry[w->level]);

		if (key & 1 || (key & 2 && write && (user || wp)))
			err = PF_PK;
	}
	return denied || err ? err | PF_P : 0;
}

/* The CPU's accessed and dirty bits.  0; 1: an entry has changed, walk again; -EAGAIN. */
static int set_accessed_dirty(struct keel_vcpu *vcpu, struct walk *w, bool write)
{
	unsigned int level;

	for (level = w->fmt->levels; level >= w->level; level--) {
		u64 old = w->entry[level], new = old;
		int err;

		if (level != w->fmt->no_rights)
			new |= PTE_A;
		if (level == w->level && write)
			new |= PTE_D;
		if (new == old)
			continue;
		err = keel_vcpu_cmpxchg(vcpu, w->addr[level], &old, &new, w->fmt->entry_size);
		/* Tables in read-only memory: the CPU's write is lost there too. */
		if (err == 1 || err == -EAGAIN)
			return err;
		w->entry[level] = new;
	}
	return 0;
}

static void tell_path(const struct mmu_walk_env *env, const struct walk *w, struct mmu_path *path)
{
	unsigned int level;

	path->leaf_bits = 12 + (w->level - 1) * w->fmt->index_bits;
	path->writable = w->rights & PTE_W;
	path->user = w->rights & PTE_U;
	path->nx = w->rights & PTE_NX;
	path->dirty = w->entry[w->level] & PTE_D;
	path->pkey = PTE_PKEY(w->entry[w->level]);
	path->levels = 0;
	if (w->fmt->entry_size != 8 || (w->fmt->no_rights && env->pdptrs))
		return;
	for (level = w->level; level <= w->fmt->levels; level++) {
		path->addr[path->levels] = w->addr[level];
		path->entry[path->levels++] = w->entry[level];
	}
}

static u64 leaf_address(const struct walk *w, u64 gva)
{
	unsigned int shift = 12 + (w->level - 1) * w->fmt->index_bits;
	u64 entry = w->entry[w->level];
	u64 offset = BITS(shift - 1, 0);
	u64 base = entry & ADDR_MASK & ~offset;

	if (w->fmt->entry_size == 4 && w->level == 2)
		base |= (entry >> 13 & 0xff) << 32;
	return base | (gva & offset);
}

static int walk_fault(const struct mmu_walk_env *env, u64 gva, u32 access, u32 err, struct emul_fault *fault)
{
	if (access & MMU_ACC_WRITE)
		err |= PF_W;
	if (access & MMU_ACC_USER)
		err |= PF_U;
	if (access & MMU_ACC_FETCH &&
	    ((env->cr4 & X86_CR4_PAE && env->efer & EFER_NXE) || env->cr4 & X86_CR4_SMEP))
		err |= PF_I;
	*fault = (struct emul_fault) {
		.vector = EMUL_VEC_PF, .has_error = true, .error = err, .cr2 = gva,
	};
	return 1;
}

int mmu_walk(struct keel_vcpu *vcpu, const struct mmu_walk_env *env, u64 gva, u32 access, u64 *gpa,
	     struct emul_fault *fault, struct mmu_path *path)
{
	struct walk w;
	u32 err;
	int ret;

	if (!(env->cr0 & X86_CR0_PG)) {
		*gpa = gva;
		if (path)
			*path = (struct mmu_path) {
				.leaf_bits = 30, .writable = true, .user = true, .dirty = true,
			};
		return 0;
	}
	w.fmt = walk_format(env);
	if (w.fmt->linear_bits == 32)
		gva = (u32)gva;
	do {
		ret = walk_down(vcpu, env, gva, &w);
		if (ret < 0)
			return ret;
		if (ret == WALK_NOT_PRESENT)
			return walk_fault(env, gva, access, 0, fault);
		if (ret == WALK_RESERVED)
			return walk_fault(env, gva, access, PF_P | PF_RSVD, fault);
		err = access & MMU_ACC_ANY ? 0 : rights_fault(env, &w, access);
		if (err)
			return walk_fault(env, gva, access, err, fault);
		ret = access & MMU_ACC_NOAD ? 0 : set_accessed_dirty(vcpu, &w, access & MMU_ACC_WRITE);
	} while (ret > 0);
	*gpa = leaf_address(&w, gva);
	if (path)
		tell_path(env, &w, path);
	return ret;
}

int mmu_walk_pdptrs(struct keel_vcpu *vcpu, const struct mmu_walk_env *env, u64 pdptrs[4])
{
	const struct walk_format *fmt = &formats[FMT_PAE];
	/* NX is reserved here whatever EFER says: bad[] has it. */
	u64 bad = reserved_bits(fmt, env, 3, false);
	int err, i;

	err = keel_vcpu_read(vcpu, env->cr3 & BITS(31, fmt->cr3_shift), pdptrs, 4 * sizeof(u64));
	if (err)
		return err;
	for (i = 0; i < 4; i++)
		if (pdptrs[i] & PTE_P && pdptrs[i] & bad)
			return 0;
	return 1;
}
