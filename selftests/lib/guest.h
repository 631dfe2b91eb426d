/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What guest code of the selftests may use: reports to the host, traps, the
 * local APIC, MSRs.  It runs in the guest, in long mode, out of the guest's copy
 * of the test program.
 */
#ifndef SELFTESTS_GUEST_H
#define SELFTESTS_GUEST_H

#include "vmm.h"
#include <asm/processor-flags.h>

#define guest_always static inline __attribute__((always_inline))

guest_always void outb(u16 port, u8 v)
{
	asm volatile("outb %0,%1" :: "a"(v), "Nd"(port) : "memory");
}

guest_always void outw(u16 port, u16 v)
{
	asm volatile("outw %0,%1" :: "a"(v), "Nd"(port) : "memory");
}

guest_always void outl(u16 port, u32 v)
{
	asm volatile("outl %0,%1" :: "a"(v), "Nd"(port) : "memory");
}

guest_always u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1,%0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

guest_always u16 inw(u16 port)
{
	u16 v;

	asm volatile("inw %1,%0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

guest_always u32 inl(u16 port)
{
	u32 v;

	asm volatile("inl %1,%0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

/* Reports */
struct guest_failure {
	const char *what;
	int line;
	u64 a, b;
};

guest_always void guest_sync(u32 v)
{
	outl(PORT_SYNC, v);
}

guest_always void guest_done(u32 v)
{
	for (;;)
		outl(PORT_DONE, v);
}

void guest_fail(const char *what, int line, u64 a, u64 b);

#define guest_assert(x) do {						\
	if (!(x))							\
		guest_fail(#x, __LINE__, 0, 0);				\
} while (0)

#define guest_eq(a, b) do {						\
	u64 a__ = (u64)(a), b__ = (u64)(b);				\
	if (a__ != b__)							\
		guest_fail(#a " == " #b, __LINE__, a__, b__);		\
} while (0)

/* Traps */
struct guest_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8;
	u64 rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vec, err;
	u64 rip, cs, rflags, rsp, ss;
};

typedef void (*guest_handler)(struct guest_frame *f);
extern guest_handler guest_handlers[256];
extern volatile u32 guest_irqs[256];	/* of vectors taken by guest_count() */

/* A handler that counts; the second also writes EOI to the local APIC */
void guest_count(struct guest_frame *f);
void guest_count_eoi(struct guest_frame *f);
guest_always void guest_on(int vec, guest_handler h)
{
	guest_handlers[vec] = h;
	asm volatile("" ::: "memory");
}

/*
 * Run one instruction with the given inputs (%1 and up): -1, or the vector it faulted with
 * and its error code shifted left by eight.
 */
#define guest_try(insn, ...) ({						\
	register long r11__ asm("r11");					\
	asm volatile("movq $-1,%%r11\n1: " insn "\n2:\n"		\
		     ".pushsection guest_ex,\"a\"\n"			\
		     ".quad 1b,2b\n.popsection"				\
		     : "=&r"(r11__) : __VA_ARGS__ : "memory", "cc");	\
	(long)r11__; })
#define fault(vec, err)	((long)(vec) | (long)(err) << 8)

#define NO_FAULT	-1L
#define DE_VEC	0
#define DB_VEC	1
#define NMI_VEC	2
#define BP_VEC	3
#define OF_VEC	4
#define UD_VEC	6
#define NM_VEC	7
#define DF_VEC	8
#define TS_VEC	10
#define NP_VEC	11
#define SS_VEC	12
#define GP_VEC	13
#define PF_VEC	14
#define MF_VEC	16
#define AC_VEC	17
#define MC_VEC	18

#define GP0	((long)GP_VEC)
#define UD	((long)UD_VEC)

/* This vCPU's number */
guest_always u32 guest_cpu(void)
{
	u32 v;

	asm volatile("movl %%gs:0,%0" : "=r"(v));
	return v;
}

guest_always u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) :: "memory");
	return lo | (u64)hi << 32;
}

guest_always u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return lo | (u64)hi << 32;
}

guest_always void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" :: "a"((u32)v), "d"((u32)(v >> 32)), "c"(msr)
		     : "memory");
}

long rdmsr_try(u32 msr, u64 *v);
long wrmsr_try(u32 msr, u64 v);

guest_always void cpuid(u32 fn, u32 index, u32 r[4])
{
	asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
		     : "a"(fn), "c"(index) : "memory");
}

#define GUEST_CR(n)							\
guest_always u64 read_cr##n(void)					\
{									\
	u64 v;								\
									\
	asm volatile("mov %%cr" #n ",%0" : "=r"(v) :: "memory");	\
	return v;							\
}									\
guest_always void write_cr##n(u64 v)					\
{									\
	asm volatile("mov %0,%%cr" #n :: "r"(v) : "memory");		\
}
GUEST_CR(0) GUEST_CR(2) GUEST_CR(3) GUEST_CR(4) GUEST_CR(8)

guest_always void irq_on(void)
{
	asm volatile("sti; nop" ::: "memory");
}

guest_always void irq_off(void)
{
	asm volatile("cli" ::: "memory");
}

/* Halt with interrupts on from the halt onward, off again after it */
guest_always void irq_halt(void)
{
	asm volatile("sti; hlt; cli" ::: "memory");
}

guest_always void halt(void)
{
	asm volatile("hlt" ::: "memory");
}

guest_always void pause_cpu(void)
{
	asm volatile("pause" ::: "memory");
}

guest_always void invlpg(u64 gva)
{
	asm volatile("invlpg (%0)" :: "r"(gva) : "memory");
}

guest_always u32 mmio_read32(u64 gpa)
{
	u32 v;

	asm volatile("movl (%1),%0" : "=r"(v) : "r"(gpa) : "memory");
	return v;
}

guest_always void mmio_write32(u64 gpa, u32 v)
{
	asm volatile("movl %0,(%1)" :: "r"(v), "r"(gpa) : "memory");
}

guest_always u32 atomic_add(volatile u32 *p, u32 v)
{
	return __sync_add_and_fetch(p, v);
}

/* A hypercall in the form the CPU's vendor has */
u64 hypercall(u64 nr, u64 a, u64 b);
bool guest_is_amd(void);

#define APICBASE_X2APIC	(1UL << 10)

/* Local APIC: MMIO until x2apic_on(), MSRs after it (on that vCPU) */
/* Software enable, spurious vector 0xff; the PIC is not heard */
void apic_on(void);
void x2apic_on(void);		/* the same, in x2APIC mode */
u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 v);
void apic_icr(u32 dest, u32 low);
guest_always void apic_eoi(void)
{
	apic_write(0xb0, 0);
}

u32 ioapic_read(u32 reg);
void ioapic_write(u32 reg, u32 v);
void ioapic_entry(int pin, u64 e);

/* Spin until *p is at least v; the host's time limit ends it otherwise */
guest_always void spin_until(volatile u32 *p, u32 v)
{
	while (*p < v)
		pause_cpu();
}

#endif
