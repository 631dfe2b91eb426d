// SPDX-License-Identifier: GPL-2.0-only
/*
 * page.c - pages that the CPU is told of by their physical address: VMCBs, host save areas, permission maps. The only
 * place in this room where such an address is made, for two reasons:
 *
 * On a host that encrypts its memory (SME, APM 7.10) it carries the bit that says so, or the CPU takes what is
 * encrypted there for what it says.
 *
 * On a host that can run SEV-SNP guests, the CPU holds the VMCB and the host save area that are in use for others to
 * keep off, and CPUs with an erratum take one at a boundary of 2 MiB for all of these 2 MiB: somebody's write elsewhere
 * in there faults. No such page is taken, on no CPU.
 */
#include <linux/gfp.h>
#include <linux/mem_encrypt.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <asm/io.h>
#include "page.h"

phys_addr_t svm_pa(struct page *page)
{
	return __sme_set(page_to_phys(page));
}

struct page *svm_alloc_page(gfp_t gfp)
{
	struct page *page = alloc_page(gfp | __GFP_ZERO);

	if (!page || (page_to_phys(page) & (SZ_2M - 1)))
		return page;
	/* One of 512: two pages in a row, of which the second cannot be such a one. */
	__free_page(page);
	page = alloc_pages(gfp | __GFP_ZERO, 1);
	if (!page)
		return NULL;
	split_page(page, 1);
	__free_page(page);
	return page + 1;
}
