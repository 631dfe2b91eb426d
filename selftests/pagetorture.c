// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page tables under torture: several vCPUs change live tables at random, flush
 * as the manuals ask and no more, and compare what each access does - data,
 * fault, error code, accessed and dirty bits - with a walk by hand.
 *
 * Each has a region whose tables are its own, and all share one: there a lock
 * goes round, and who has it flushes the one page it looks at.
 *
 * TORTURE=N in the environment: accesses of each vCPU.
 */
#include <cpuid.h>
#include "test.h"

#define NR		3
#define REGION		0x40000000UL		/* 2 MiB each, in the second GiB */
#define SHARED		NR
#define PAGES		64			/* used of a region */
#define FRAMES		64
#define PD		((volatile u64 *)(PT_GPA + 0x3000))	/* of the second GiB */
#define TABLE(r, which)	(HEAP_GPA + (r) * 0x2000UL + (which) * 0x1000UL)
#define FRAME(f)	(HEAP_GPA + 0x100000UL + (f) * 0x1000UL)
#define LARGE		(HEAP_GPA + 0x400000UL)		/* a 2 MiB page to map whole */
#define SIGN(gpa)	(0x5eed000000000000UL | (gpa))

#define P		1UL
#define W		2UL
#define U		4UL
#define A		0x20UL
#define D		0x40UL
#define PS		0x80UL
#define NX		(1UL << 63)
#define ADDR		0x000ffffffffff000UL

enum { READ, WRITE, FETCH };

static volatile struct {
	u64 err, addr;
	u32 faults;
} pf[NR];
static volatile u32 lock, have_smap, have_smep, have_cet;

static void pf_handler(struct guest_frame *f)
{
	u32 id = guest_cpu();
	u64 cr2;

	asm volatile("mov %%cr2,%0" : "=r"(cr2));
	pf[id].err = f->err;
	pf[id].addr = cr2;
	pf[id].faults++;
	if (f->rip == cr2) {		/* the call below: back to behind it */
		f->rip = *(u64 *)f->rsp;
		f->rsp += 8;
	} else {
		f->rip += 3;		/* both moves below */
	}
}

guest_always u64 rnd(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

guest_always void flush_all(void)
{
	u64 v;

	asm volatile("mov %%cr3,%0; mov %0,%%cr3" : "=r"(v) :: "memory");
}

guest_always void set_wp(bool on)
{
	u64 v;

	asm volatile("mov %%cr0,%0" : "=r"(v));
	v = on ? v | X86_CR0_WP : v & ~X86_CR0_WP;
	asm volatile("mov %0,%%cr0" :: "r"(v) : "memory");
}

/* One access, with everything about it checked; ac: EFLAGS.AC, which SMAP looks at */
static void touch(u32 id, u32 region, u64 page, int kind, bool wp, bool ac, u64 value)
{
	u64 va = REGION + region * 0x200000UL + page * 4096 + 64 + 8 * id, gpa = 0, err = 0;
	volatile u64 *leaf, *pde = &PD[region];
	u64 rights = *pde, before, after, got = 0;
	u32 faults = pf[id].faults;
	bool fault = false;

	leaf = pde;
	if (*pde & P && !(*pde & PS)) {
		leaf = (u64 *)(*pde & ADDR) + page;
		rights = (rights & *leaf & (P | W | U)) | ((rights | *leaf) & NX);
	}
	before = *leaf;
	if (!(rights & P)) {
		fault = true;
	} else {
		gpa = leaf == pde ? (*pde & ~0x1fffffUL & ADDR) + page * 4096 : *leaf & ADDR;
		if (kind == WRITE && !(rights & W) && wp)
			fault = true;
		if (kind == FETCH && (rights & NX || (rights & U && have_smep)))
			fault = true;
		if (kind != FETCH && rights & U && have_smap && !ac)
			fault = true;
		err = fault;
	}
	if (kind == WRITE)
		err |= 2;
	if (kind == FETCH)
		err |= 16;
	if (kind == FETCH)
		va = (va & ~4095UL) + 0x800;

	if (ac && have_smap)
		asm volatile("stac" ::: "memory");
	if (kind == READ)
		asm volatile("mov (%%rdx),%%rax" : "=a"(got) : "d"(va), "0"(0UL) : "memory");
	else if (kind == WRITE)
		asm volatile("mov %%rax,(%%rdx)" :: "a"(value), "d"(va) : "memory");
	else
		asm volatile("call *%%rdx" :: "d"(va) : "memory");
	if (ac && have_smap)
		asm volatile("clac" ::: "memory");

	after = *leaf;
	guest_eq(pf[id].faults - faults, fault);
	if (fault) {
		guest_eq(pf[id].err, err);
		guest_eq(pf[id].addr, va);
		guest_eq(after & D, before & D);
		return;
	}
	guest_eq(after & A, A);
	/* A CPU with shadow stacks does not set it where W is clear; who walks the tables in its place may. */
	if (kind != WRITE || before & W || !have_cet)
		guest_eq(after & D, kind == WRITE ? D : before & D);
	guest_eq(after & ~(A | D), before & ~(A | D));
	guest_eq(*pde & A, A);
	if (kind == WRITE)
		guest_eq(*(volatile u64 *)(gpa + (va & 4095)), value);
	guest_eq(*(volatile u64 *)gpa, SIGN(gpa));	/* by the identity map: it is that frame */
	if (kind == READ)
		guest_eq(got, *(volatile u64 *)(gpa + (va & 4095)));
}

static u64 random_rights(u64 *s)
{
	u64 r = rnd(s);

	return (r & 7 ? P : 0) | (r & 8 ? W : 0) | (r & 0x30 ? 0 : U) | (r & 0xc0 ? 0 : NX);
}

static void edit_pte(u64 *s, u32 region, u64 page)
{
	volatile u64 *pte = (u64 *)TABLE(region, rnd(s) & 1) + page;
	u64 old = *pte, va = REGION + region * 0x200000UL + page * 4096;

	*pte = FRAME(rnd(s) % FRAMES) | random_rights(s);
	/* What was not present no TLB may have kept. */
	if (old & P) {
		if (rnd(s) % 16)
			invlpg(va);
		else
			flush_all();
	}
}

static void edit_pde(u64 *s, u32 region)
{
	u64 r = rnd(s);

	if (r % 8 == 0)
		PD[region] = 0;
	else if (r % 8 < 3)
		PD[region] = LARGE | PS | P | (r & 0x100 ? W : 0) | (r & 0x600 ? 0 : U) | (r & 0x1800 ? 0 : NX);
	else
		PD[region] = TABLE(region, r >> 8 & 1) | P | (r & 0x200 ? W : 0) | (r & 0xc00 ? U : 0);
	flush_all();
}

static void torture_guest(u64 count)
{
	u32 id = guest_cpu();
	u64 s = 88172645463325252UL + id * 7919, page, n;
	bool wp = true;

	guest_on(PF_VEC, pf_handler);
	for (n = 0; n < count; ) {
		u64 r = rnd(&s);

		page = r >> 8 & (PAGES - 1);
		switch (r & 31) {
		case 0 ... 7:
			edit_pte(&s, id, page);
			break;
		case 8:
			edit_pde(&s, id);
			break;
		case 9:
			wp = !wp;
			set_wp(wp);
			break;
		case 10 ... 12:
			while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
				pause_cpu();
			if (r & 0x10000)
				edit_pte(&s, SHARED, page);
			invlpg(REGION + SHARED * 0x200000UL + page * 4096);
			touch(id, SHARED, page, r >> 17 & 1 ? WRITE : READ, wp, r >> 18 & 1, r | 1);
			__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
			n++;
			break;
		default:
			touch(id, id, page, (r >> 16) % 5 < 2 ? READ : (r >> 16) % 5 < 4 ? WRITE : FETCH,
			       wp, r >> 20 & 1, r | 1);
			n++;
			break;
		}
	}
	guest_done(0);
}

FIXTURE(pages) {
	struct vm *vm;
};

FIXTURE_SETUP(pages)
{
	self->vm = vm_new(VM_IRQCHIP);
}

FIXTURE_TEARDOWN(pages)
{
	vm_free(self->vm);
}

TEST_F_TIMEOUT(pages, torture, 20000)
{
	const char *given = getenv("TORTURE");
	u64 count = given ? strtoul(given, NULL, 0) : 20000, gpa;
	struct kvm_cpuid_entry2 *e;
	struct vcpu *v[NR];
	struct kvm_sregs sregs;
	u32 r[4];
	u64 *pt;
	int i, k;

	for (i = 0; i < NR; i++) {
		v[i] = vcpu_new(self->vm, i);
		vcpu_long(v[i], torture_guest, count);
	}
	/* The map of everything else is the supervisor's alone. */
	pt = gpa_hva(self->vm, PT_GPA + 0x2000);
	for (i = 0; i < 4 * 512; i++)
		pt[i] &= ~U;
	for (i = 0; i <= SHARED; i++) {
		pt[512 + i] = TABLE(i, 0) | P | W | U;
		for (k = 0; k < PAGES; k++) {
			((u64 *)gpa_hva(self->vm, TABLE(i, 0)))[k] = FRAME(k) | P | W;
			((u64 *)gpa_hva(self->vm, TABLE(i, 1)))[k] = FRAME(PAGES - 1 - k) | P;
		}
	}
	for (i = 0; i < FRAMES + 512; i++) {
		gpa = i < FRAMES ? FRAME(i) : LARGE + (i - FRAMES) * 0x1000UL;
		*(u64 *)gpa_hva(self->vm, gpa) = SIGN(gpa);
		*(u8 *)gpa_hva(self->vm, gpa + 0x800) = 0xc3;	/* ret */
	}
	e = cpuid_find(self->vm->cpuid, 7, 0);
	guest_var(self->vm, have_cet) = __get_cpuid_count(7, 0, &r[0], &r[1], &r[2], &r[3]) && (r[2] & 1 << 7 || r[3] & 1 << 20);
	guest_var(self->vm, have_smep) = e && e->ebx & 1 << 7;
	guest_var(self->vm, have_smap) = e && e->ebx & 1 << 20;
	for (i = 0; i < NR; i++) {
		vcpu_get_sregs(v[i], &sregs);
		if (e && e->ebx & 1 << 7)
			sregs.cr4 |= X86_CR4_SMEP;
		if (e && e->ebx & 1 << 20)
			sregs.cr4 |= X86_CR4_SMAP;
		vcpu_set_sregs(v[i], &sregs);
	}
	for (i = 0; i < NR; i++)
		vcpu_start(v[i]);
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, vcpu_join(v[i]));
}

TEST_HARNESS_MAIN
