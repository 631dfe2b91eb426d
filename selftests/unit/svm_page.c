// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages whose physical addresses AMD's CPUs are given: none at a boundary of 2 MiB, and the address with the bit of
 * an encrypting host. No emulated CPU has SME or SEV-SNP, so this is where it is seen.
 */
#include "svm_env.h"
#include "svm/page.h"
#include "tap.h"

#define PAGES	2048

struct page env_mem[PAGES];
u64 env_sme_mask;

static unsigned int next, fail_order = ~0u;

struct page *alloc_pages(gfp_t gfp, unsigned int order)
{
	unsigned int n = 1u << order, i;
	struct page *p = &env_mem[next];

	if (order == fail_order)
		return NULL;
	/* Pages in a row begin at a multiple of their number. */
	if (next % n || next + n > PAGES)
		return NULL;
	for (i = 0; i < n; i++) {
		if (p[i].taken)
			return NULL;
		p[i] = (struct page){ .zeroed = gfp & __GFP_ZERO, .taken = true, .compound = order };
	}
	return p;
}

void split_page(struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 0; i < 1u << order; i++)
		page[i].compound = false;
}

static bool freed_badly;

void __free_page(struct page *page)
{
	freed_badly |= !page->taken || page->compound;
	page->taken = false;
}

static unsigned int taken(void)
{
	unsigned int i, n = 0;

	for (i = 0; i < PAGES; i++)
		n += env_mem[i].taken;
	return n;
}

int main(void)
{
	bool aligned = false, zeroed = true, alone = true, empty = true;
	struct page *page;

	for (next = 0; next < PAGES; next += 2) {
		page = svm_alloc_page(0);
		if (!page) {
			alone = false;
			break;
		}
		aligned |= page_to_phys(page) % SZ_2M == 0;
		zeroed &= page->zeroed;
		alone &= taken() == 1 && !page->compound;
		__free_page(page);
		empty &= !taken();
	}
	tap_result(!aligned, "no page at a boundary of 2 MiB");
	tap_result(zeroed, "each is zeroed");
	tap_result(alone && empty && !freed_badly, "one page is taken, and can be given back");

	next = 512;
	fail_order = 1;
	page = svm_alloc_page(0);
	tap_result(!page && !taken(), "no memory for another: none, and nothing is kept");
	fail_order = 0;
	page = svm_alloc_page(0);
	tap_result(!page && !taken(), "no memory at all");

	tap_result(svm_pa(&env_mem[5]) == 0x5000, "without encryption an address is an address");
	env_sme_mask = 1ull << 47;
	tap_result(svm_pa(&env_mem[5]) == (0x5000 | 1ull << 47), "with it, it has the bit");
	tap_plan_done();
	return tap_exit();
}
