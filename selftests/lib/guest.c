// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest side of the selftests' library; see guest.h.  Nothing here may call
 * libc: it is executed in the guest.
 */
#include "guest.h"
#include <asm/msr-index.h>

guest_handler guest_handlers[256];
volatile u32 guest_irqs[256];

struct ex_entry {
	u64 insn, fixup;
};

extern const struct ex_entry __start_guest_ex[], __stop_guest_ex[];

void guest_fail(const char *what, int line, u64 a, u64 b)
{
	volatile struct guest_failure f = { what, line, a, b };

	for (;;)
		outl(PORT_FAIL, (u32)(uintptr_t)&f);
}

void guest_count(struct guest_frame *f)
{
	atomic_add(&guest_irqs[f->vec], 1);
}

void guest_count_eoi(struct guest_frame *f)
{
	atomic_add(&guest_irqs[f->vec], 1);
	apic_eoi();
}

__attribute__((used)) void guest_trap(struct guest_frame *f)
{
	const struct ex_entry *e;

	if (guest_handlers[f->vec]) {
		guest_handlers[f->vec](f);
		return;
	}
	for (e = __start_guest_ex; e < __stop_guest_ex; e++) {
		if (e->insn != f->rip)
			continue;
		f->r11 = f->vec | f->err << 8;
		f->rip = e->fixup;
		return;
	}
	for (;;)
		outl(PORT_TRAP, (u32)(uintptr_t)f);
}

/* One 16-byte entry a vector; those without an error code push a zero */
asm(".text\n"
    ".balign 16\n"
    ".globl guest_stubs\n"
    "guest_stubs:\n"
    ".set vec, 0\n"
    ".rept 256\n"
    ".balign 16\n"
    ".if !(vec == 8 || (vec >= 10 && vec <= 14) || vec == 17 || vec == 21)\n"
    "push $0\n"
    ".endif\n"
    "push $vec\n"
    "jmp guest_stub_common\n"
    ".set vec, vec + 1\n"
    ".endr\n"
    "guest_stub_common:\n"
    "push %rax\npush %rcx\npush %rdx\npush %rbx\npush %rbp\npush %rsi\n"
    "push %rdi\npush %r8\npush %r9\npush %r10\npush %r11\npush %r12\n"
    "push %r13\npush %r14\npush %r15\n"
    "mov %rsp,%rdi\n"
    "mov %rsp,%rbp\n"
    "and $-16,%rsp\n"
    "cld\n"
    "call guest_trap\n"
    "mov %rbp,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %r11\npop %r10\npop %r9\n"
    "pop %r8\npop %rdi\npop %rsi\npop %rbp\npop %rbx\npop %rdx\npop %rcx\n"
    "pop %rax\n"
    "add $16,%rsp\n"
    "iretq\n");

long rdmsr_try(u32 msr, u64 *v)
{
	register long r11 asm("r11");
	u32 lo = 0, hi = 0;

	asm volatile("movq $-1,%%r11\n1: rdmsr\n2:\n"
		     ".pushsection guest_ex,\"a\"\n.quad 1b,2b\n.popsection"
		     : "=&r"(r11), "+a"(lo), "+d"(hi) : "c"(msr) : "memory");
	*v = lo | (u64)hi << 32;
	return r11;
}

long wrmsr_try(u32 msr, u64 v)
{
	return guest_try("wrmsr", "a"((u32)v), "d"((u32)(v >> 32)), "c"(msr));
}

bool guest_is_amd(void)
{
	u32 r[4];

	cpuid(0, 0, r);
	return r[1] == 0x68747541;	/* "Auth" */
}

u64 hypercall(u64 nr, u64 a, u64 b)
{
	u64 ret;

	if (guest_is_amd())
		asm volatile("vmmcall" : "=a"(ret)
			     : "a"(nr), "b"(a), "c"(b), "d"(0), "S"(0)
			     : "memory");
	else
		asm volatile("vmcall" : "=a"(ret)
			     : "a"(nr), "b"(a), "c"(b), "d"(0), "S"(0)
			     : "memory");
	return ret;
}

static bool in_x2apic(void)
{
	return rdmsr(MSR_IA32_APICBASE) & APICBASE_X2APIC;
}

u32 apic_read(u32 reg)
{
	if (in_x2apic())
		return rdmsr(0x800 + (reg >> 4));
	return mmio_read32(LAPIC_GPA + reg);
}

void apic_write(u32 reg, u32 v)
{
	if (in_x2apic())
		wrmsr(0x800 + (reg >> 4), v);
	else
		mmio_write32(LAPIC_GPA + reg, v);
}

void apic_on(void)
{
	apic_write(0xf0, 0x1ff);
	apic_write(0x350, 0x10000);
}

void x2apic_on(void)
{
	wrmsr(MSR_IA32_APICBASE, rdmsr(MSR_IA32_APICBASE) | APICBASE_X2APIC);
	apic_on();
}

void apic_icr(u32 dest, u32 low)
{
	if (in_x2apic()) {
		wrmsr(0x830, (u64)dest << 32 | low);
		return;
	}
	apic_write(0x310, dest << 24);
	apic_write(0x300, low);
}

u32 ioapic_read(u32 reg)
{
	mmio_write32(IOAPIC_GPA, reg);
	return mmio_read32(IOAPIC_GPA + 0x10);
}

void ioapic_write(u32 reg, u32 v)
{
	mmio_write32(IOAPIC_GPA, reg);
	mmio_write32(IOAPIC_GPA + 0x10, v);
}

void ioapic_entry(int pin, u64 e)
{
	ioapic_write(0x11 + 2 * pin, e >> 32);
	ioapic_write(0x10 + 2 * pin, e);
}
