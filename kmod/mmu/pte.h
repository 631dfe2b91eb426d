/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pte.h - entries of the two-dimensional tables.  All formats have 512 entries of 64 bits in a table, the address
 * in bits 51..12 and 9 bits of guest address a level; the rest a struct mmu_format says, and keel_hw.mmu_fmt is the
 * one in use.
 */
#ifndef KEEL_MMU_PTE_H
#define KEEL_MMU_PTE_H

#include <linux/mem_encrypt.h>
#include <linux/types.h>
#include <asm/page.h>
#include "compat.h"

#define MMU_PTES		512
#define MMU_ADDR_MASK		GENMASK_ULL(51, 12)

struct mmu_format {
	u64 present;	/* the CPU uses an entry that has one of these */
	u64 table;	/* what an entry that points to a table has */
	u64 large;	/* what a leaf above level 1 has */
	/* Rights of a leaf; and those of these bits that take a right where they are set. */
	u64 read, write, exec, inverted;
	/* The type of the memory behind it: write-back whatever the guest says; or a device's, uncached but for WC of the guest's. */
	u64 ram, device;
	u64 accessed;	/* set by the CPU, if it has such bits; by us on mapping */
	u64 dirty;
	/* A level-1 leaf without it makes its next write known: write, or dirty if the CPU logs it. */
	u64 logged;
	/*
	 * Ours: the user may write the page, so write needs no look at the host's tables.  In an entry that points to a table,
	 * and lacks write: the host has taken that from all below it, where the bit says what was before.
	 */
	u64 host_write;
};

/*
 * Of the CPU's addresses, which is what guests are told.  The kernel's own number is less where some bits say how memory is
 * encrypted (SME, MKTME): in a guest's addresses they are bits like others.
 */
static inline unsigned int mmu_phys_bits(void)
{
	return cpuid_eax(0x80000000) >= 0x80000008 ? cpuid_eax(0x80000008) & 0xff : boot_cpu_data.x86_phys_bits;
}

static inline unsigned int mmu_shift(unsigned int level)	/* of gfn */
{
	return 9 * (level - 1);
}

static inline u64 mmu_level_pages(unsigned int level)
{
	return 1ULL << mmu_shift(level);
}

static inline unsigned int mmu_index(u64 gfn, unsigned int level)
{
	return gfn >> mmu_shift(level) & (MMU_PTES - 1);
}

static inline bool mmu_is_leaf(const struct mmu_format *fmt, u64 pte, unsigned int level)
{
	return pte & fmt->present && (level == 1 || pte & fmt->large);
}

static inline bool mmu_is_table(const struct mmu_format *fmt, u64 pte, unsigned int level)
{
	return pte & fmt->present && level > 1 && !(pte & fmt->large);
}

static inline u64 mmu_rights(const struct mmu_format *fmt, u64 pte)
{
	return (pte ^ fmt->inverted) & (fmt->read | fmt->write | fmt->exec);
}

/* The entry with these rights, too. */
static inline u64 mmu_grant(const struct mmu_format *fmt, u64 pte, u64 rights)
{
	return ((pte ^ fmt->inverted) | rights) ^ fmt->inverted;
}

/* The entry with no more than these rights. */
static inline u64 mmu_withhold(const struct mmu_format *fmt, u64 pte, u64 held)
{
	return ((pte ^ fmt->inverted) & ~((fmt->read | fmt->write | fmt->exec) & ~held)) ^ fmt->inverted;
}

/* What an entry says about the page itself: its type, and whether the host has it encrypted. */
static inline u64 mmu_pte_memory(const struct mmu_format *fmt, u64 pte)
{
	return pte & (fmt->ram | fmt->device | sme_me_mask);
}

static inline bool mmu_is_device(const struct mmu_format *fmt, u64 pte)
{
	return (pte & (fmt->ram | fmt->device)) == fmt->device;
}

/* Host physical address in an entry; without the bit by which an encrypting host marks its memory. */
static inline u64 mmu_pte_addr(u64 pte)
{
	return __sme_clr(pte) & MMU_ADDR_MASK;
}

static inline u64 *mmu_pte_table(u64 pte)
{
	return __va(mmu_pte_addr(pte));
}

static inline u64 mmu_table_pte(const struct mmu_format *fmt, const u64 *table)
{
	return __sme_set(__pa(table)) | fmt->table;
}

#endif
