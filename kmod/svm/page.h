/* SPDX-License-Identifier: GPL-2.0-only */
/* page.h - pages that the CPU is told of by their physical address: page.c. */
#ifndef KEEL_SVM_PAGE_H
#define KEEL_SVM_PAGE_H

#include <linux/gfp.h>
#include <linux/types.h>

/* For the CPU: of the first byte of @page. */
phys_addr_t svm_pa(struct page *page);
/* A zeroed page for a VMCB or a host save area; __free_page() takes it back. */
struct page *svm_alloc_page(gfp_t gfp);

#endif
