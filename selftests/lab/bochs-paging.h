/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For bochs-fix.c: two errors in what Bochs 3.0 has of paging and 2.7 has not.
 *
 * CPUs with shadow stacks do not set the dirty bit of a page that may not be written
 * (SDM 3A 4.8): a kernel's write to one, CR0.WP clear, panics the emulator.
 *
 * Protection keys (4.6.2) are about pages of the user, whoever has access to them, and not
 * about others. Bochs lets the supervisor read what nobody may, and keeps it from
 * writing to its own pages. It looks at keys again where the TLB has a page, which takes that
 * for granted: here they are looked at in the walk alone, and what changes them flushes
 * the TLB. Whether a page is the user's is asked of its last entry only; keys of the
 * supervisor (PKS) are left out.
 */
#ifndef LAB_BOCHS_PAGING_H
#define LAB_BOCHS_PAGING_H

#define ENTRY_WRITE	2
#define ENTRY_USER	4

static void (*set_dirty_pae)(void *cpu, uint64_t *addr, uint64_t *entry, uint32_t *type, unsigned int top, unsigned int leaf,
			     unsigned int write);
static void (*set_dirty)(void *cpu, uint64_t *addr, uint32_t *entry, uint32_t *type, unsigned int leaf, unsigned int write);

static void set_dirty_pae_if_writable(void *cpu, uint64_t *addr, uint64_t *entry, uint32_t *type, unsigned int top,
				      unsigned int leaf, unsigned int write)
{
	set_dirty_pae(cpu, addr, entry, type, top, leaf, write && entry[leaf] & ENTRY_WRITE);
}

static void set_dirty_if_writable(void *cpu, uint64_t *addr, uint32_t *entry, uint32_t *type, unsigned int leaf,
				  unsigned int write)
{
	set_dirty(cpu, addr, entry, type, leaf, write && entry[leaf] & ENTRY_WRITE);
}

/* The CPU's state, in this build of it */
#define CR0		0x2a4
#define  CR0_WP		(1 << 16)
#define CR4		0x2b8
#define  CR4_PKE	(1 << 22)
#define PKRU		0x2ec
#define PKRS		0x2f0
#define KEYS_IN_TLB	0x2f4	/* for each key what the TLB may be used for, to read and to write */
#define  KEYS_SIZE	(2 * 16 * sizeof(uint32_t))

#define FIELD(cpu, offset)	(*(uint32_t *)((char *)(cpu) + (offset)))

#define KEY_NO_ACCESS	1
#define KEY_NO_WRITE	2
#define KEY_FAULT	0x21	/* the error code's bits, that of protection among them */

static void (*page_fault)(void *cpu, unsigned int error, uint64_t laddr, unsigned int user, unsigned int rw);
static void (*flush_tlb)(void *cpu);

/* @rw: not an instruction fetch; what is returned is the key for the TLB. */
static uint32_t check_keys(void *cpu, uint64_t laddr, uint64_t entry, unsigned int user, unsigned int rw)
{
	uint32_t rights = FIELD(cpu, PKRU) >> 2 * (entry >> 59 & 15);

	if (FIELD(cpu, CR4) & CR4_PKE && entry & ENTRY_USER &&
	    (rights & KEY_NO_ACCESS || (rights & KEY_NO_WRITE && rw & 1 && (user || FIELD(cpu, CR0) & CR0_WP))))
		page_fault(cpu, KEY_FAULT, laddr, user, rw);
	return 0;
}

static void set_keys(void *cpu, uint32_t pkru, uint32_t pkrs)
{
	FIELD(cpu, PKRU) = pkru;
	FIELD(cpu, PKRS) = pkrs;
	memset(&FIELD(cpu, KEYS_IN_TLB), 0xff, KEYS_SIZE);
	flush_tlb(cpu);
}

static void mend_keys(unsigned char *walk)
{
	unsigned char *set = dlsym(RTLD_DEFAULT, INSIDE "9set_PKeysEjj");
	unsigned char *check = dlsym(RTLD_DEFAULT, INSIDE "12handle_pkeysEmmjj");
	unsigned char jump[] = "\x48\xb8........\xff\xe0";	/* movabs $set_keys, %rax; jmp *%rax */
	void *to = set_keys;
	int32_t rel;

	page_fault = dlsym(RTLD_DEFAULT, INSIDE "10page_faultEjmjj");
	flush_tlb = dlsym(RTLD_DEFAULT, INSIDE "9TLB_flushEv");
	/* All of it but its beginning is a function of its own, which is what the walk calls: jmp */
	if (!set || !check || check[10] != 0xe9 || !page_fault || !flush_tlb ||
	    !memmem(set, 96, "\x48\x8d\x87\xf4\x02\x00\x00", 7) ||	/* lea keys_in_tlb(%rdi), %rax */
	    !memmem(set, 96, "\x89\xb7\xec\x02\x00\x00", 6)) {	/* mov %esi, pkru(%rdi) */
		fprintf(stderr, "not the emulator that was expected: protection keys are left as they are\n");
		return;
	}
	memcpy(&rel, check + 11, 4);
	if (!redirect(walk, check + 15 + rel, "", 0, check_keys))
		return;
	memcpy(jump + 2, &to, 8);
	overwrite(set, jump, sizeof(jump) - 1);
}

static void mend_paging(void)
{
	unsigned char *walk = dlsym(RTLD_DEFAULT, INSIDE "26translate_linear_long_modeEmRjS0_jj");

	set_dirty_pae = dlsym(RTLD_DEFAULT, INSIDE "23update_access_dirty_PAEEPmS0_Pjjjj");
	set_dirty = dlsym(RTLD_DEFAULT, INSIDE "19update_access_dirtyEPmPjS1_jj");
	redirect(walk, (void *)set_dirty_pae, "", 0, set_dirty_pae_if_writable);
	redirect(dlsym(RTLD_DEFAULT, INSIDE "20translate_linear_PAEEmRjjj"), (void *)set_dirty_pae, "", 0, set_dirty_pae_if_writable);
	redirect(dlsym(RTLD_DEFAULT, INSIDE "23translate_linear_legacyEmRjjj"), (void *)set_dirty, "", 0, set_dirty_if_writable);
	mend_keys(walk);
}

#endif
