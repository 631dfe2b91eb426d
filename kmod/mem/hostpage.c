// SPDX-License-Identifier: GPL-2.0-only
/*
 * hostpage.c - what the host has behind a guest's page: its frame, how large the user's mapping of it is, what the user
 * may do to it, and what type of memory it is.
 *
 * Found mostly by a look at the user's own page tables, without a lock and without a reference: what is found holds
 * until the notifier's sequence moves (mmu/notifier.c), which the caller reads before and compares after, with mmu.lock
 * held.  What is not there is brought in as by the user's own access, which may sleep.
 */
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <asm/e820/api.h>
#include <asm/memtype.h>
#include "ops.h"
#include "mem/hostpage.h"
#include "mmu/pte.h"

/*
 * Where the user's tables end for @hva: a 4K entry (*level 1), or with NULL what *e holds: an entry that maps more, or
 * none.  IRQs off, so that the tables are not freed.  What is read holds only as long as the notifier's sequence stands
 * still, so nothing of it is used outside its lock.
 */
static __always_inline const pte_t *user_walk(struct mm_struct *mm, unsigned long hva, struct mem_entry *e,
					      unsigned int *level)
{
	pgd_t pgd;
	p4d_t p4d;
	pud_t pud;
	pmd_t pmd;

	e->flags = 0;
	*level = 1;
	pgd = READ_ONCE(*pgd_offset(mm, hva));
	if (pgd_none(pgd))
		return NULL;
	p4d = READ_ONCE(*p4d_offset(&pgd, hva));
	if (p4d_none(p4d) || !p4d_present(p4d))
		return NULL;
	pud = READ_ONCE(*pud_offset(&p4d, hva));
	if (pud_none(pud) || !pud_present(pud))
		return NULL;
	if (pud_leaf(pud)) {
		*level = 3;
		e->flags = pud_flags(pud);
		e->pfn = pud_pfn(pud) + ((hva & ~PUD_MASK) >> PAGE_SHIFT);
		return NULL;
	}
	pmd = READ_ONCE(*pmd_offset(&pud, hva));
	if (pmd_none(pmd) || !pmd_present(pmd))
		return NULL;
	if (pmd_leaf(pmd)) {
		*level = 2;
		e->flags = pmd_flags(pmd);
		e->pfn = pmd_pfn(pmd) + ((hva & ~PMD_MASK) >> PAGE_SHIFT);
		return NULL;
	}
	return pte_offset_kernel(&pmd, hva);
}

static __always_inline void user_read(const pte_t *ptep, struct mem_entry *e)
{
	pte_t pte = READ_ONCE(*ptep);

	e->flags = pte_flags(pte);
	e->pfn = pte_pfn(pte);
}

static void user_look(struct mm_struct *mm, unsigned long hva, struct mem_entry *e, unsigned int *level)
{
	unsigned long flags;
	const pte_t *ptep;

	local_irq_save(flags);
	ptep = user_walk(mm, hva, e, level);
	if (ptep)
		user_read(ptep, e);
	local_irq_restore(flags);
}

/* Pages that the kernel has other things to ask about before they are used. */
#ifdef _PAGE_DEVMAP
#define USER_ODD	_PAGE_DEVMAP
#else
#define USER_ODD	0
#endif

/*
 * What the user's entry says of the page goes for the guest's, too, so that nothing is cached there in two ways.  Linux
 * has write-back where neither of the two bits is set.
 */
static u64 user_memory(const struct mem_entry *e)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;
	unsigned long flags = e->flags;

	/*
	 * Of devices that are ISA's, and of all where its PAT is off, Linux leaves the type to the MTRRs, and its entry says
	 * write-back.  Tables for guests do not ask those, and what is written to a device is not to stay in a cache.
	 */
	if (flags & _PAGE_SPECIAL && (is_ISA_range(PFN_PHYS(e->pfn), PFN_PHYS(e->pfn)) || !pat_enabled()) &&
	    !page_is_ram(e->pfn))
		flags |= _PAGE_PCD;
	return (flags & (_PAGE_PWT | _PAGE_PCD) ? fmt->device : fmt->ram) | (flags & sme_me_mask);
}

/*
 * Linux marks what a driver mapped, where there is no page of memory to be looked at; but also its pages of zeroes,
 * and in small pages a file's that is in memory which persists.
 */
bool mem_is_device(const struct mem_entry *e)
{
	return (e->flags & (_PAGE_PRESENT | _PAGE_SPECIAL | USER_ODD)) == (_PAGE_PRESENT | _PAGE_SPECIAL) &&
	       !page_is_ram(e->pfn);
}

int mem_find_fast(struct mm_struct *mm, struct mem_page *page)
{
	struct mem_entry e;

	user_look(mm, page->hva, &e, &page->level);
	if (~e.flags & (_PAGE_PRESENT | _PAGE_USER) || e.flags & USER_ODD)
		return -EAGAIN;
	/* Writable at once if the user's is saves the second fault; what is to be copied on write is not written here. */
	page->writable = e.flags & _PAGE_RW && !(page->slot->flags & KVM_MEM_READONLY);
	if (page->access & MMU_ACC_WRITE && !page->writable)
		return -EAGAIN;
	page->pfn = e.pfn;
	page->memory = user_memory(&e);
	/* The page of zeroes, and what has no struct page or none to be looked at: a device's memory. */
	page->user = !(e.flags & _PAGE_SPECIAL);
	return 0;
}

void mem_look(struct mm_struct *mm, unsigned long hva, struct mem_entry *e, unsigned int n)
{
	unsigned int level, i;
	unsigned long flags;
	const pte_t *ptep;

	local_irq_save(flags);
	ptep = user_walk(mm, hva, e, &level);
	for (i = 0; ptep && i < n; i++)
		user_read(&ptep[i], &e[i]);
	local_irq_restore(flags);
	for (i = 1; !ptep && i < n; i++)
		e[i] = (struct mem_entry) { .pfn = e->pfn + i, .flags = e->flags };
}

/*
 * Writable only if the user's entry says that the page was written: then it need not be told that it may be from here
 * on.  Of one that is clean the guest's first write comes here, and is the page's.
 */
bool mem_use_near(struct mem_page *page, const struct mem_entry *e)
{
	if (~e->flags & (_PAGE_PRESENT | _PAGE_USER) || e->flags & USER_ODD)
		return false;
	page->memory = user_memory(e);
	page->writable = e->flags & _PAGE_RW && e->flags & (_PAGE_DIRTY | _PAGE_SPECIAL) &&
			 !(page->slot->flags & KVM_MEM_READONLY);
	return true;
}

int mem_touch(struct mm_struct *mm, unsigned long hva, bool write, enum mem_wait wait)
{
	unsigned int flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE | FAULT_FLAG_INTERRUPTIBLE;
	struct vm_area_struct *vma;
	vm_fault_t fault;

	if (write)
		flags |= FAULT_FLAG_WRITE;
	if (wait != MEM_WAIT)
		flags |= FAULT_FLAG_RETRY_NOWAIT;
	for (;;) {
		mmap_read_lock(mm);
		vma = vma_lookup(mm, hva);
		if (!vma || !(vma->vm_flags & (write ? VM_WRITE : VM_READ)))
			fault = VM_FAULT_SIGSEGV;
		else if (wait == MEM_NO_FILE && vma->vm_file && vma->vm_file->f_mapping->a_ops->read_folio)
			fault = VM_FAULT_SIGBUS;
		else
			fault = handle_mm_fault(vma, hva, flags, NULL);
		/* The lock is let go for this, and for a wait. */
		if (fault & VM_FAULT_COMPLETED)
			return 0;
		if (!(fault & VM_FAULT_RETRY) || wait != MEM_WAIT) {
			mmap_read_unlock(mm);
			return fault & VM_FAULT_RETRY ? -EAGAIN : fault & VM_FAULT_ERROR ? -EFAULT : 0;
		}
		if (signal_pending(current))
			return -EINTR;
		flags |= FAULT_FLAG_TRIED;
	}
}

int mem_find_slow(struct mm_struct *mm, struct mem_page *page)
{
	bool write = page->access & MMU_ACC_WRITE;
	struct mem_entry e;
	long n;

	/* A plain fault and a look at the user's tables is a third of get_user_pages(), which knows more. */
	n = mem_touch(mm, page->hva, write, MEM_WAIT);
	if (n == -EINTR)
		return n;
	if (!n && !mem_find_fast(mm, page))
		return 0;
	n = get_user_pages_unlocked(page->hva, 1, &page->held,
				    FOLL_HWPOISON | FOLL_INTERRUPTIBLE | (write ? FOLL_WRITE : 0));
	if (n == 1) {
		user_look(mm, page->hva, &e, &page->level);
		page->pfn = page_to_pfn(page->held);
		/* Where it has gone again already the notifier has said so, and nothing is mapped. */
		page->memory = user_memory(&e);
		page->user = true;
		page->writable = write;
		return 0;
	}
	page->held = NULL;
	if (n == -EHWPOISON || n == -EINTR || n == -ENOMEM)
		return n;
	return n == -ERESTARTSYS ? -EINTR : -EFAULT;
}

/*
 * The guest's tables have a dirty bit the host will not look at: a page that can be written is dirty.  For its age
 * the host asks the notifier.  With the lock held, for which the user's mapping, and so the page, stays.
 */
void mem_mark_written(const struct mem_page *page)
{
	struct folio *folio;

	if (!page->user || !page->writable)
		return;
	folio = page_folio(pfn_to_page(page->pfn));
	if (!folio_test_reserved(folio) && !folio_test_dirty(folio))
		folio_set_dirty(folio);
}

unsigned int mem_host_level(struct mm_struct *mm, unsigned long hva)
{
	struct mem_entry e;
	unsigned int level;

	user_look(mm, hva, &e, &level);
	return e.flags & _PAGE_PRESENT ? level : 0;
}

bool mem_user_page_is(unsigned long hva, const void *data)
{
	u8 now[256];
	size_t at;

	for (at = 0; at < PAGE_SIZE; at += sizeof(now))
		if (copy_from_user(now, (void __user *)hva + at, sizeof(now)) || memcmp(now, data + at, sizeof(now)))
			return false;
	return true;
}
