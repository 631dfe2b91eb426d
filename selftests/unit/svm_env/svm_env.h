/* SPDX-License-Identifier: GPL-2.0-only */
/* svm_env.h - the kernel's page allocator, as far as svm/page.c sees it: the test says where the next page lies. */
#ifndef KEEL_SVM_ENV_H
#define KEEL_SVM_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint64_t phys_addr_t;
typedef unsigned int gfp_t;

#define __GFP_ZERO	1u
#define SZ_2M		0x200000ul

struct page {
	bool zeroed, taken, compound;
};

/* Where the encryption bit is, 0: no encryption.  As the kernel's, a constant from boot on. */
extern u64 env_sme_mask;
#define __sme_set(pa)	((pa) | env_sme_mask)

extern struct page env_mem[];
#define page_to_phys(p)	((phys_addr_t)((p) - env_mem) << 12)

struct page *alloc_pages(gfp_t gfp, unsigned int order);
#define alloc_page(gfp)	alloc_pages(gfp, 0)
void __free_page(struct page *page);
void split_page(struct page *page, unsigned int order);

#endif
