/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hostpage.h - what the host has behind a guest's page.
 */
#ifndef KEEL_HOSTPAGE_H
#define KEEL_HOSTPAGE_H

#include "keel.h"

/* A page of the guest's that is accessed, and what the host has behind it. */
struct mem_page {
	struct keel_slot *slot;
	u64 gfn;
	unsigned long hva;
	u32 access;
	u64 pfn;
	u64 memory;		/* mmu_pte_memory() of its entry */
	bool user;		/* an ordinary page of the user's, with a struct page that tells of it */
	struct page *held;	/* with a reference to be put; NULL: the notifier alone stands for it */
	bool writable;		/* the user may write it, and so may the guest */
	unsigned int level;	/* the largest the user's own mapping allows */
};

/* The entry of the user's tables that stands for a page: its flags, 0 if there is none. */
struct mem_entry {
	unsigned long pfn, flags;
};

/* Find @page->hva's.  Without sleeping: -EAGAIN if the user's tables do not have it for that access. */
int mem_find_fast(struct mm_struct *mm, struct mem_page *page);
/* As the user's own access would.  0 or -errno. */
int mem_find_slow(struct mm_struct *mm, struct mem_page *page);
/*
 * What the user's tables have for @n pages from @hva on, which one table of theirs maps.  mmu.lock held, and no
 * invalidation runs there: so it stands until the lock is let go.
 */
void mem_look(struct mm_struct *mm, unsigned long hva, struct mem_entry *e, unsigned int n);
/* Is it memory of a device's, where reading has effects, and whose content is not the guest's? */
bool mem_is_device(const struct mem_entry *e);
/* @page, of a slot, gets what goes for such a page if nobody has asked for it: false if it is none to be mapped. */
bool mem_use_near(struct mem_page *page, const struct mem_entry *e);
/* How large is what the user's tables have at @hva; 0: nothing. */
unsigned int mem_host_level(struct mm_struct *mm, unsigned long hva);
/* It has been mapped.  mmu.lock held. */
void mem_mark_written(const struct mem_page *page);

enum mem_wait { MEM_WAIT, MEM_NOW, MEM_NO_FILE };
/*
 * Take the fault the user of @mm would at @hva.  0; -EFAULT; -EINTR, since a signal ends the wait for a page.  MEM_NOW: -EAGAIN
 * if there would be one; but a page that is read from a file may be waited for nevertheless, and with mmap_lock held.
 * MEM_NO_FILE: such are -EFAULT.
 */
int mem_touch(struct mm_struct *mm, unsigned long hva, bool write, enum mem_wait wait);
/* Does the current user's page at @hva read as @data?  May sleep. */
bool mem_user_page_is(unsigned long hva, const void *data);

#endif
