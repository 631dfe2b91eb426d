// SPDX-License-Identifier: GPL-2.0-only
/*
 * shadow.c - paging for a CPU without two-dimensional tables: a TLB made of page tables.
 *
 * The CPU walks tables of ours that lead from the guest's linear addresses right to the host's pages.  They are filled
 * by page faults and hold what a TLB may hold: a translation found by the guest's tables (walk.c) and the physical map
 * (tdp.c, which nobody but us walks then), until the guest does what makes a TLB forget it.  So nothing watches the
 * guest's tables.  A fault on an entry that says less than the guest's tables by now fills it anew, one that says
 * more is the guest's to flush, and whatever takes a page from the physical map flushes TLBs, of which this is one.
 *
 * Tables belong to a vCPU and are touched by its thread only.  There are at most SHADOW_PAGES; when they are used up,
 * all is forgotten.  mmu.lock is held for read from the look at the physical map until the entry is written: who
 * changes the map holds it for write and flushes after.
 *
 * Formats: long mode's own, with 4 or 5 levels; PAE for everything else, also for a guest with paging off.  AMD APM
 * volume 2 chapter 5, Intel SDM 3A chapter 4.
 */
#include <linux/slab.h>
#include <asm/cpufeature.h>
#include <asm/trap_pf.h>
#include "ops.h"
#include "trace.h"
#include "pte.h"
#include "tdp.h"

#define SHADOW_PAGES	512

#define S_P		_PAGE_PRESENT
#define S_TABLE		(_PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_ACCESSED)
#define S_LEAF		(_PAGE_PRESENT | _PAGE_ACCESSED | _PAGE_DIRTY)
#define S_RIGHTS	(_PAGE_RW | _PAGE_USER)
#define S_LARGE		_PAGE_PSE
#define S_SMALL		_PAGE_SOFTW1	/* ours, in a table's entry: below it are pieces of one page of the guest's */

struct mmu_shadow {
	u64 *root;		/* below 4 GB, which is as far as PAE's CR3 reaches */
	unsigned int levels;	/* of tables in use: 3 PAE, 4, 5 */
	unsigned int nr_pages, nr_used;
	u64 *page[SHADOW_PAGES];	/* the first nr_used are in the tree, the others free and in any state */
};

static unsigned int shadow_levels(struct keel_vcpu *vcpu)
{
	if (!keel_is_paging(vcpu) || !keel_is_long_mode(vcpu))
		return 3;
	return keel_cr4(vcpu) & X86_CR4_LA57 ? 5 : 4;
}

void mmu_shadow_drop(struct keel_vcpu *vcpu)
{
	struct mmu_shadow *s = vcpu->mmu.shadow;

	clear_page(s->root);
	s->nr_used = 0;
	s->levels = shadow_levels(vcpu);
	keel_call(load_root, vcpu, __sme_set(__pa(s->root)));
}

static u64 *shadow_take(struct mmu_shadow *s)
{
	u64 *table = s->page[s->nr_used++];	/* was reserved */

	clear_page(table);
	return table;
}

#define FILL_PAGES	(MMU_MAX_LEVELS - 1)

/* Room for the tables of one fill.  0, -EAGAIN: not without sleeping, -ENOMEM. */
static int shadow_reserve(struct keel_vcpu *vcpu)
{
	struct mmu_shadow *s = vcpu->mmu.shadow;

	if (s->nr_pages - s->nr_used >= FILL_PAGES)
		return 0;
	if (s->nr_pages < SHADOW_PAGES) {
		if (vcpu->atomic)
			return -EAGAIN;
		while (s->nr_pages < SHADOW_PAGES && s->nr_pages - s->nr_used < 4 * FILL_PAGES) {
			u64 *page = mmu_table_page(vcpu->vm);

			if (!page)
				break;
			mmu_account(page, 1);
			s->page[s->nr_pages++] = page;
		}
		if (s->nr_pages - s->nr_used >= FILL_PAGES)
			return 0;
	}
	if (s->nr_pages < FILL_PAGES)
		return -ENOMEM;
	mmu_shadow_drop(vcpu);
	keel_call(flush_tlb, vcpu);
	return 0;
}

static u64 *shadow_entry(u64 *table, u64 gva, unsigned int level)
{
	return &table[gva >> (PAGE_SHIFT + 9 * (level - 1)) & (MMU_PTES - 1)];
}

/* A page directory pointer of PAE has no rights, and no accessed bit. */
static u64 shadow_table_pte(const struct mmu_shadow *s, unsigned int level, const u64 *table)
{
	return __sme_set(__pa(table)) | (s->levels == 3 && level == 3 ? S_P : S_TABLE);
}

/* Write the entry of @level, a piece of a page of the guest's of 2^@leaf_bits bytes, or all of it. */
static void shadow_set(struct keel_vcpu *vcpu, u64 gva, unsigned int level, u64 pte, unsigned int leaf_bits)
{
	struct mmu_shadow *s = vcpu->mmu.shadow;
	u64 *table = s->root, *entry;
	bool flush = false;
	unsigned int l;

	for (l = s->levels; ; l--) {
		entry = shadow_entry(table, gva, l);
		if (l == level)
			break;
		if (!(*entry & S_P) || (l == 2 && *entry & S_LARGE)) {
			flush |= *entry & S_P;
			table = shadow_take(s);
			*entry = shadow_table_pte(s, l, table);
			/* PAE's root is four registers: the CPU may know it as it was when CR3 was loaded. */
			if (s->levels == 3 && l == 3)
				keel_call(load_root, vcpu, __sme_set(__pa(s->root)));
		} else {
			table = __va(mmu_pte_addr(*entry));
		}
		if (leaf_bits >= PAGE_SHIFT + 9 * (l - 1))
			*entry |= S_SMALL;
	}
	/* More rights for the same page need no flush: the fault was one. */
	flush |= *entry & S_P && (*entry & ~pte & (S_RIGHTS | S_LARGE) || (*entry ^ pte) & ~(u64)(S_RIGHTS | S_LARGE));
	*entry = pte;
	trace_keel_map(vcpu, gva & PAGE_MASK, level, pte, true);
	if (flush)
		keel_call(flush_tlb, vcpu);
}

/* Level 1 or 2: both, the guest's page and the host's, must be that large. */
static unsigned int shadow_level(const struct mmu_path *path, unsigned int tdp_level)
{
	return path->leaf_bits >= PMD_SHIFT && tdp_level >= 2 ? 2 : 1;
}

static u64 shadow_leaf(struct keel_vcpu *vcpu, const struct mmu_path *path, u64 gpa, u64 map, unsigned int map_level,
		       unsigned int level)
{
	u64 offset = gpa & ((PAGE_SIZE << 9 * (map_level - 1)) - 1);
	u64 pte = (mmu_pte_addr(map) + offset) & ~((PAGE_SIZE << 9 * (level - 1)) - 1);
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	u64 rights = mmu_rights(fmt, map);

	pte |= S_LEAF | (map & sme_me_mask);
	/* The guest's PAT is not the CPU's here: UC-, and what MTRRs make of that. */
	if (mmu_is_device(fmt, map))
		pte |= _PAGE_PCD;
	/* The first write shall come here, to set the guest's dirty bit, or the host's. */
	if (path->writable && path->dirty && rights & fmt->write)
		pte |= _PAGE_RW;
	if (path->user)
		pte |= _PAGE_USER;
	if ((path->nx || !(rights & fmt->exec)) && boot_cpu_has(X86_FEATURE_NX))
		pte |= _PAGE_NX;
	if (level > 1)
		pte |= S_LARGE;
	if (keel_is_long_mode(vcpu))
		pte |= (u64)path->pkey << 59;
	return pte;
}

/* Fill from the physical map.  MMU_FIXED; MMU_MMIO: the map has nothing that allows the access; *present: but has something. */
static int shadow_fill(struct keel_vcpu *vcpu, u64 gva, u64 gpa, u32 access, const struct mmu_path *path, bool *present)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	unsigned int map_level, level;
	u64 *ptep, entry, map, held;
	int r = MMU_MMIO;

	*present = false;
	/* Our tables do not reach as far as the guest's may: no slot does. */
	if (gpa >> PAGE_SHIFT > mmu_max_gfn())
		return MMU_MMIO;
	read_lock(&vcpu->vm->mmu.lock);
	ptep = mmu_lookup_held(vcpu->mmu.view, gpa >> PAGE_SHIFT, &map_level, &held);
	entry = ptep ? READ_ONCE(*ptep) : 0;
	if (mmu_is_leaf(fmt, entry, map_level)) {
		*present = true;
		map = mmu_withhold(fmt, entry, held);
		if (!(mmu_rights_needed(fmt, access) & ~mmu_rights(fmt, map))) {
			level = shadow_level(path, map_level);
			shadow_set(vcpu, gva, level, shadow_leaf(vcpu, path, gpa, map, map_level, level),
				   path->leaf_bits);
			r = MMU_FIXED;
			/* The host asks how long ago the page was used; dropping all this is how it asks anew. */
			if (!(entry & fmt->accessed))
				cmpxchg64(ptep, entry, entry | fmt->accessed);
		}
	}
	read_unlock(&vcpu->vm->mmu.lock);
	return r;
}

int mmu_shadow_fault(struct keel_vcpu *vcpu, u64 gva, u32 error, u64 *gpa, u32 *access, struct emul_fault *fault)
{
	struct mmu_walk_env env;
	struct mmu_path path;
	unsigned int tries;
	bool present;
	u32 want = 0;
	int r;

	if (error & X86_PF_WRITE)
		want |= MMU_ACC_WRITE;
	if (error & X86_PF_INSTR)
		want |= MMU_ACC_FETCH;
	if (error & X86_PF_USER)
		want |= MMU_ACC_USER;
	else if (keel_cpl(vcpu) == 3)
		want |= MMU_ACC_SYSTEM;
	r = shadow_reserve(vcpu);
	if (r)
		return r == -EAGAIN ? MMU_SLOW : r;

	mmu_walk_env(vcpu, &env);
	env.pdptrs = NULL;
	if (vcpu->mmu.shadow->levels == 3)
		gva = (u32)gva;
	r = mmu_walk(vcpu, &env, gva, want, gpa, fault, &path);
	if (r)
		return r == 1 ? MMU_GUEST : r == -EAGAIN ? MMU_SLOW : r;
	/*
	 * CR0.WP clear lets a supervisor write what is read-only, or may not be written by its protection key.  The
	 * CPU always runs with WP, and no entry says "for writes of the supervisor, but still a user's page": the
	 * instruction is emulated.
	 */
	*access = want;
	if (want & MMU_ACC_WRITE && (!path.writable || error & X86_PF_PK))
		return MMU_MMIO;
	*access |= MMU_ACC_FINAL;
	/* The host may take the page away as soon as it is mapped: then the guest faults once more. */
	for (tries = 0; tries < 4; tries++) {
		r = shadow_fill(vcpu, gva, *gpa, want, &path, &present);
		if (r == MMU_FIXED)
			break;
		r = mmu_fault(vcpu, *gpa, (want & (MMU_ACC_WRITE | MMU_ACC_FETCH)) | (present ? MMU_ACC_PRESENT : 0));
		if (r != MMU_FIXED)
			return r;
	}
	return MMU_FIXED;
}

void mmu_shadow_invlpg(struct keel_vcpu *vcpu, u64 gva)
{
	struct mmu_shadow *s = vcpu->mmu.shadow;
	u64 *table = s->root, *entry;
	unsigned int level;

	for (level = s->levels; ; level--) {
		entry = shadow_entry(table, gva, level);
		if (!(*entry & S_P))
			break;
		/* Tables that go because of one of the guest's large pages are used again after the next drop. */
		if (level == 1 || *entry & (S_LARGE | S_SMALL)) {
			*entry = 0;
			break;
		}
		table = __va(mmu_pte_addr(*entry));
	}
	/* The 4 MB pages of the oldest format are two entries here. */
	if (level == 2 && s->levels == 3 && !(keel_cr4(vcpu) & X86_CR4_PAE))
		*shadow_entry(table, gva ^ PMD_SIZE, 2) = 0;
	keel_call(flush_tlb, vcpu);
}

/*
 * The CPU always translates, and what the guest reads of these registers is our copy.  Without paging of the guest's
 * own there are no users to keep out.
 */
struct mmu_shadow_crs mmu_shadow_crs(struct keel_vcpu *vcpu)
{
	struct mmu_shadow_crs crs = {
		.cr0 = (vcpu->cr0 & ~(u64)(X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET | X86_CR0_PG | X86_CR0_WP,
		/* A #MC belongs to the host: it must be taken even if the guest left MCE clear. */
		.cr4 = (vcpu->cr4 | X86_CR4_MCE | X86_CR4_PAE) & ~(u64)X86_CR4_PCIDE,
		.efer = vcpu->efer & ~(u64)EFER_LME,
	};

	if (!(vcpu->cr0 & X86_CR0_PG))
		crs.cr4 &= ~(u64)(X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE);
	if (vcpu->efer & EFER_LMA)
		crs.efer |= EFER_LME;
	else
		crs.cr4 &= ~(u64)X86_CR4_LA57;
	if (boot_cpu_has(X86_FEATURE_NX))
		crs.efer |= EFER_NX;
	return crs;
}

int mmu_shadow_init(struct keel_vcpu *vcpu)
{
	struct mmu_shadow *s = kvzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);

	if (!s)
		return -ENOMEM;
	s->levels = 3;
	s->root = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT | GFP_DMA32);
	if (!s->root) {
		kvfree(s);
		return -ENOMEM;
	}
	mmu_account(s->root, 1);
	vcpu->mmu.shadow = s;
	keel_request(KEEL_REQ_TLB_FLUSH, vcpu);	/* loads the root */
	return 0;
}

void mmu_shadow_destroy(struct keel_vcpu *vcpu)
{
	struct mmu_shadow *s = vcpu->mmu.shadow;

	if (!s)
		return;
	while (s->nr_pages) {
		mmu_account(s->page[--s->nr_pages], -1);
		free_page((unsigned long)s->page[s->nr_pages]);
	}
	mmu_account(s->root, -1);
	free_page((unsigned long)s->root);
	kvfree(s);
	vcpu->mmu.shadow = NULL;
}
