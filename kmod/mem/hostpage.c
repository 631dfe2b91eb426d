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
#include <asm/e820/api.h>
#include <asm/memtype.h>
#include "ops.h"
#include "mem/hostpage.h"
#include "mmu/pte.h"

/* The last entry of the user's tables for an address; flags 0: there is none. */
struct mmu_user_entry {
	unsigned long pfn, flags;
	unsigned int level;
};

/*
 * With IRQs off the tables are not freed.  What is read holds only as long as the notifier's sequence stands still,
 * so nothing of it is used outside its lock.
 */
static void mmu_user_look(struct mm_struct *mm, unsigned long hva, struct mmu_user_entry *u)
{
	unsigned long flags;
	pgd_t pgd;
	p4d_t p4d;
	pud_t pud;
	pmd_t pmd;
	pte_t pte;

	u->flags = 0;
	u->level = 1;
	local_irq_save(flags);
	pgd = READ_ONCE(*pgd_offset(mm, hva));
	if (pgd_none(pgd))
		goto out;
	p4d = READ_ONCE(*p4d_offset(&pgd, hva));
	if (p4d_none(p4d) || !p4d_present(p4d))
		goto out;
	pud = READ_ONCE(*pud_offset(&p4d, hva));
	if (pud_none(pud) || !pud_present(pud))
		goto out;
	if (pud_leaf(pud)) {
		u->level = 3;
		u->flags = pud_flags(pud);
		u->pfn = pud_pfn(pud) + ((hva & ~PUD_MASK) >> PAGE_SHIFT);
		goto out;
	}
	pmd = READ_ONCE(*pmd_offset(&pud, hva));
	if (pmd_none(pmd) || !pmd_present(pmd))
		goto out;
	if (pmd_leaf(pmd)) {
		u->level = 2;
		u->flags = pmd_flags(pmd);
		u->pfn = pmd_pfn(pmd) + ((hva & ~PMD_MASK) >> PAGE_SHIFT);
		goto out;
	}
	pte = READ_ONCE(*pte_offset_kernel(&pmd, hva));
	u->flags = pte_flags(pte);
	u->pfn = pte_pfn(pte);
out:
	local_irq_restore(flags);
}

/* Entries that stand for more, or for less, than a page of memory the user may use as it is. */
#ifdef _PAGE_DEVMAP
#define MMU_USER_ODD	(_PAGE_SPECIAL | _PAGE_DEVMAP)
#else
#define MMU_USER_ODD	_PAGE_SPECIAL
#endif

/*
 * What the user's entry says of the page goes for the guest's, too, so that nothing is cached there in two ways.  Linux
 * has write-back where neither of the two bits is set.
 */
static u64 mmu_user_memory(unsigned long flags)
{
	const struct mmu_format *fmt = keel_hw.mmu_fmt;

	return (flags & (_PAGE_PWT | _PAGE_PCD) ? fmt->device : fmt->ram) | (flags & sme_me_mask);
}

/* Without sleeping: only if the user's tables have it already. */
int mmu_find_fast(struct mm_struct *mm, struct mmu_map *map)
{
	struct mmu_user_entry u;

	mmu_user_look(mm, map->hva, &u);
	if (~u.flags & (_PAGE_PRESENT | _PAGE_USER) || u.flags & MMU_USER_ODD)
		return -EAGAIN;
	/* Writable at once if the user's is saves the second fault; what is to be copied on write is not written here. */
	map->writable = u.flags & _PAGE_RW && !(map->slot->flags & KVM_MEM_READONLY);
	if (map->access & MMU_ACC_WRITE && !map->writable)
		return -EAGAIN;
	map->pfn = u.pfn;
	map->memory = mmu_user_memory(u.flags);
	map->user = true;
	map->level = u.level;
	return 0;
}

/* Memory without struct pages, or whose pages may not be referenced: a device's. */
static int mmu_find_pfnmap(struct mm_struct *mm, struct mmu_map *map)
{
	bool write = map->access & MMU_ACC_WRITE, writable, faulted = false, unlocked;
	struct vm_area_struct *vma;
	unsigned long pfn;
	pgprot_t prot;
	int err;

	mmap_read_lock(mm);
	for (;;) {
		vma = vma_lookup(mm, map->hva);
		if (!vma || !(vma->vm_flags & (VM_IO | VM_PFNMAP)) ||
		    !(vma->vm_flags & (write ? VM_WRITE : VM_READ))) {
			err = -EFAULT;
			break;
		}
		err = keel_follow_pfn(vma, map->hva, &pfn, &prot, &writable);
		if (!err && write && !writable)
			err = -EFAULT;
		if (!err || faulted)
			break;
		/* The lock may be let go in there: look everything up again. */
		err = fixup_user_fault(mm, map->hva, write ? FAULT_FLAG_WRITE : 0, &unlocked);
		if (err)
			break;
		faulted = true;
	}
	mmap_read_unlock(mm);
	if (err)
		return err == -EINVAL ? -EFAULT : err;
	map->pfn = pfn;
	/*
	 * Of devices that are ISA's, and of all where its PAT is off, Linux leaves the type to the MTRRs, and its entry says
	 * write-back.  Tables for guests do not ask those, and what is written to a device is not to stay in a cache.
	 */
	if ((is_ISA_range(PFN_PHYS(pfn), PFN_PHYS(pfn)) || !pat_enabled()) && !page_is_ram(pfn))
		prot = __pgprot(pgprot_val(prot) | _PAGE_PCD);
	map->memory = mmu_user_memory(pgprot_val(prot));
	map->level = 1;
	map->writable = writable && !(map->slot->flags & KVM_MEM_READONLY);
	return 0;
}

int mmu_touch(struct mm_struct *mm, unsigned long hva, bool write, bool wait)
{
	unsigned int flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE | FAULT_FLAG_INTERRUPTIBLE;
	struct vm_area_struct *vma;
	vm_fault_t fault;

	if (write)
		flags |= FAULT_FLAG_WRITE;
	if (!wait)
		flags |= FAULT_FLAG_RETRY_NOWAIT;
	for (;;) {
		mmap_read_lock(mm);
		vma = vma_lookup(mm, hva);
		if (!vma || !(vma->vm_flags & (write ? VM_WRITE : VM_READ)) || vma->vm_flags & (VM_IO | VM_PFNMAP))
			fault = VM_FAULT_SIGSEGV;
		else
			fault = handle_mm_fault(vma, hva, flags, NULL);
		/* The lock is let go for this, and for a wait. */
		if (fault & VM_FAULT_COMPLETED)
			return 0;
		if (!(fault & VM_FAULT_RETRY) || !wait) {
			mmap_read_unlock(mm);
			return fault & VM_FAULT_RETRY ? -EAGAIN : fault & VM_FAULT_ERROR ? -EFAULT : 0;
		}
		if (signal_pending(current))
			return -EINTR;
		flags |= FAULT_FLAG_TRIED;
	}
}

int mmu_find_slow(struct keel_vcpu *vcpu, struct mmu_map *map)
{
	bool write = map->access & MMU_ACC_WRITE;
	struct keel_vm *vm = vcpu->vm;
	struct mmu_user_entry u;
	long n = -EAGAIN;

	/* A plain fault and a look at the user's tables is a third of get_user_pages(), which knows more. */
	if (vcpu->pv.apf && !vcpu->smm) {
		n = mmu_touch(vm->mm, map->hva, write, false);
		if (n == -EAGAIN && keel_apf_start(vcpu, map->gfn, map->hva, write))
			return n;
	}
	if (n == -EAGAIN)
		n = mmu_touch(vm->mm, map->hva, write, true);
	if (n == -EINTR)
		return n;
	if (!n && !mmu_find_fast(vm->mm, map))
		return 0;
	n = get_user_pages_unlocked(map->hva, 1, &map->held,
				    FOLL_HWPOISON | FOLL_INTERRUPTIBLE | (write ? FOLL_WRITE : 0));
	if (n == 1) {
		mmu_user_look(vm->mm, map->hva, &u);
		map->pfn = page_to_pfn(map->held);
		/* Where it has gone again already the notifier has said so, and nothing is mapped. */
		map->memory = mmu_user_memory(u.flags);
		map->user = true;
		map->writable = write;
		map->level = u.flags & _PAGE_PRESENT ? u.level : 1;
		return 0;
	}
	map->held = NULL;
	if (n == -EHWPOISON || n == -EINTR || n == -ERESTARTSYS || n == -ENOMEM)
		return n == -ERESTARTSYS ? -EINTR : n;
	return mmu_find_pfnmap(vm->mm, map);
}

/*
 * The guest's tables have a dirty bit the host will not look at: a page that can be written is dirty.  For its age
 * the host asks the notifier.  With the lock held, for which the user's mapping, and so the page, stays.
 */
void mmu_mark_written(const struct mmu_map *map)
{
	struct folio *folio;

	if (!map->user || !map->writable)
		return;
	folio = page_folio(pfn_to_page(map->pfn));
	if (!folio_test_reserved(folio) && !folio_test_dirty(folio))
		folio_set_dirty(folio);
}
