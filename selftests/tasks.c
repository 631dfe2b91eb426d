// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hardware task switches, which leave the guest for whoever virtualizes it: JMP,
 * CALL and IRET between 32- and 16-bit tasks, task gates for INT n, #DF and NMI,
 * the debug trap bit, faults on both sides of the commit point. QEMU's emulated
 * CPU knows no such intercept and does all but the trap bit by itself.
 */
#include "test.h"
#include <asm/processor-flags.h>

#define GDT		0x60000UL
#define IDT		0x64000UL
#define TSS_A		0x61000UL
#define TSS_B		0x62000UL
#define TSS_C		0x63000UL	/* 16 bits */
#define PD_A		0x70000UL
#define PD_B		0x71000UL

#define CODE_SEL	0x08
#define DATA_SEL	0x10
#define A_SEL		0x18
#define B_SEL		0x20
#define C_SEL		0x28
#define GATE_SEL	0x30
#define CODE16_SEL	0x38
#define ABSENT_SEL	0x40

struct tss32 {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 gpr[8];		/* as numbered in ModRM */
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
};

struct tss16 {
	u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
	u16 gpr[8];
	u16 es, cs, ss, ds, ldt;
};

FIXTURE(tasks) {
	struct vm *vm;
	struct vcpu *v;
	u64 *gdt, *idt;
	struct tss32 *a, *b;
	struct tss16 *c;
};

static u64 descriptor(u32 base, u32 limit, u32 attr)
{
	return (u64)(base >> 24) << 56 | (u64)(attr >> 12) << 52 | (u64)(limit >> 16 & 15) << 48 |
	       (u64)(attr & 0xff) << 40 | (u64)(base & 0xffffff) << 16 | (limit & 0xffff);
}

static u64 gate(u16 sel, u32 offset, u8 type)
{
	return (u64)(offset >> 16) << 48 | (u64)type << 40 | (u64)sel << 16 | (offset & 0xffff);
}

FIXTURE_SETUP(tasks)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	self->gdt = gpa_hva(self->vm, GDT);
	self->idt = gpa_hva(self->vm, IDT);
	self->a = gpa_hva(self->vm, TSS_A);
	self->b = gpa_hva(self->vm, TSS_B);
	self->c = gpa_hva(self->vm, TSS_C);
}

FIXTURE_TEARDOWN(tasks)
{
	vm_free(self->vm);
}

/* Task A runs the code at its start; B and C begin where the code's second and third word say */
static void start(FIXTURE_DATA(tasks) *self, const u8 *code, size_t size)
{
	const u32 *entries = (const u32 *)(code + 4);
	struct kvm_sregs s;
	struct kvm_regs r;

	self->gdt[CODE_SEL / 8] = descriptor(0, 0xfffff, 0xc09b);
	self->gdt[DATA_SEL / 8] = descriptor(0, 0xfffff, 0xc093);
	self->gdt[A_SEL / 8] = descriptor(TSS_A, 103, 0x8b);
	self->gdt[B_SEL / 8] = descriptor(TSS_B, 103, 0x89);
	self->gdt[C_SEL / 8] = descriptor(TSS_C, 43, 0x81);
	self->gdt[GATE_SEL / 8] = gate(B_SEL, 0, 0x85);
	self->gdt[CODE16_SEL / 8] = descriptor(0, 0xffff, 0x9b);
	self->gdt[ABSENT_SEL / 8] = descriptor(0, 0xfffff, 0xc013);

	self->a->cr3 = PD_A;		/* which is not saved */
	*self->b = (struct tss32){
		.esp0 = 0x67000, .ss0 = DATA_SEL, .cr3 = PD_B, .eip = entries[0], .eflags = 2,
		.gpr = { 0xb0, 0xb1, 0xb2, 0xb3, 0x68000, 0xb5, 0xb6, 0xb7 },
		.es = DATA_SEL, .cs = CODE_SEL, .ss = DATA_SEL, .ds = DATA_SEL, .fs = DATA_SEL, .iomap = 104,
	};
	*self->c = (struct tss16){
		.ip = entries[1], .flags = 2, .gpr = { 0xc0, 0xc1, 0xc2, 0xc3, 0x6000 },
		.es = DATA_SEL, .cs = CODE16_SEL, .ss = DATA_SEL, .ds = DATA_SEL,
	};

	vcpu_prot(self->v, code, size);
	vcpu_get_sregs(self->v, &s);
	s.gdt.base = GDT;
	s.gdt.limit = 0x47;
	s.idt.base = IDT;
	s.idt.limit = 0x7ff;
	s.tr.base = TSS_A;
	s.tr.limit = 103;
	s.tr.selector = A_SEL;
	s.tr.type = 0xb;
	s.tr.present = 1;
	s.tr.unusable = 0;
	s.cs.selector = CODE_SEL;
	s.ds.selector = s.es.selector = s.ss.selector = DATA_SEL;
	/* B sees other memory at 32 MiB */
	((u32 *)gpa_hva(self->vm, PD_A))[0] = ((u32 *)gpa_hva(self->vm, PD_B))[0] = 0x83;
	((u32 *)gpa_hva(self->vm, PD_A))[8] = 0x800083;
	((u32 *)gpa_hva(self->vm, PD_B))[8] = 0xc00083;
	*(u32 *)gpa_hva(self->vm, 0x800000) = 0xaaaa;
	*(u32 *)gpa_hva(self->vm, 0xc00000) = 0xbbbb;
	s.cr3 = PD_A;
	s.cr4 |= X86_CR4_PSE;
	s.cr0 = (s.cr0 | X86_CR0_PG) & ~(u64)X86_CR0_TS;
	vcpu_set_sregs(self->v, &s);
	vcpu_get_regs(self->v, &r);
	r.rsp = 0x69000;
	r.rbx = 0x12345678;
	vcpu_set_regs(self->v, &r);
}

#define START(code) start(self, code, code_size(code))
#define BUSY(sel) (self->gdt[(sel) / 8] >> 41 & 1)

static u32 report(struct vcpu *v, u16 port)
{
	return *(u32 *)vcpu_expect_io(v, 1, port, 4, 1);
}

#define HEAD(name, b, c)	"jmp 1f; .byte 0, 0; .long " b " - " #name " + 0x8000, " c " - " #name " + 0x8000; 1:\n"
#define OUT(port)		"out %eax,$" #port "\n"

CODE32(jmp_code, HEAD(jmp_code, "2f", "3f")
	"stc; ljmp $0x20,$0\n"
	"9: mov 0x2000000,%eax; " OUT(0x13) "mov %cr0,%eax; " OUT(0x14)
	"ljmp $0x28,$0; mov %ebx,%eax; " OUT(0x16) "hlt\n"
	"2: " OUT(0x10) "mov 0x2000000,%eax; " OUT(0x11) "str %eax; " OUT(0x12) "ljmp $0x18,$0\n"
	".code16\n3: movzwl %bx,%eax; " OUT(0x15) "ljmp $0x18,$0\n");

TEST_F(tasks, jmp)
{
	struct vcpu *v = self->v;
	struct kvm_sregs s;

	START(jmp_code);
	EXPECT_EQ(0xb0, report(v, 0x10));
	/* A, as it was left */
	EXPECT_EQ(0x12345678, self->a->gpr[3]);
	EXPECT_EQ(0x69000, self->a->gpr[4]);
	EXPECT_EQ(3, self->a->eflags);
	EXPECT_EQ(DATA_SEL, self->a->ss);
	EXPECT_EQ(CODE_SEL, self->a->cs);
	EXPECT_EQ(0, self->b->link);
	EXPECT_EQ(0, BUSY(A_SEL));
	EXPECT_EQ(1, BUSY(B_SEL));
	EXPECT_EQ(0xbbbb, report(v, 0x11));
	EXPECT_EQ(B_SEL, report(v, 0x12));
	EXPECT_EQ(0xaaaa, report(v, 0x13));
	EXPECT_EQ(X86_CR0_TS, report(v, 0x14) & X86_CR0_TS);
	EXPECT_EQ(1, BUSY(A_SEL));
	EXPECT_EQ(0, BUSY(B_SEL));
	/* to 16 bits and back */
	EXPECT_EQ(0xc3, report(v, 0x15));
	vcpu_get_sregs(v, &s);
	EXPECT_EQ(C_SEL, s.tr.selector);
	EXPECT_EQ(0, s.fs.selector);
	EXPECT_EQ(PD_A, s.cr3);
	EXPECT_EQ(0x12345678, report(v, 0x16));
	EXPECT_EQ(0xc3, self->c->gpr[3]);
	vcpu_expect(v, KVM_EXIT_HLT);
}

CODE32(call_code, HEAD(call_code, "2f", "2f")
	"lcall $0x20,$0; mov $0xa1,%eax; " OUT(0x11)
	"lcall $0x30,$0; pushf; pop %eax; " OUT(0x13) "int $0x40; mov %ebx,%eax; " OUT(0x15)
	"mov $7,%ecx; int3; mov %ecx,%eax; " OUT(0x17) "hlt\n"
	"2: pushf; pop %eax; " OUT(0x10) "iret; jmp 2b\n");

TEST_F(tasks, call_and_iret)
{
	struct vcpu *v = self->v;
	u32 old;

	START(call_code);
	self->idt[0x40] = gate(B_SEL, 0, 0x85);
	self->idt[3] = gate(B_SEL, 0, 0x85);
	EXPECT_EQ(X86_EFLAGS_NT, report(v, 0x10) & X86_EFLAGS_NT);
	EXPECT_EQ(A_SEL, self->b->link);
	EXPECT_EQ(1, BUSY(A_SEL));
	EXPECT_EQ(1, BUSY(B_SEL));
	EXPECT_EQ(0xa1, report(v, 0x11));
	EXPECT_EQ(0, BUSY(B_SEL));
	EXPECT_EQ(0, self->b->eflags & X86_EFLAGS_NT);
	/* through a gate of the GDT */
	EXPECT_EQ(X86_EFLAGS_NT, report(v, 0x10) & X86_EFLAGS_NT);
	EXPECT_EQ(0, report(v, 0x13) & X86_EFLAGS_NT);
	/* and of the IDT: INT n, which goes on behind itself; INT3 */
	old = self->a->eip;
	report(v, 0x10);
	EXPECT_NE(old, self->a->eip);
	EXPECT_EQ(0x12345678, report(v, 0x15));
	report(v, 0x10);
	EXPECT_EQ(7, report(v, 0x17));
	vcpu_expect(v, KVM_EXIT_HLT);
}

/*
 * What a 32-bit kernel has its double-fault handler for: it reads in the old TSS where it happened.  B's stack is touched before:
 * QEMU's CPU, which makes the switch, cannot begin again after an exit for a page of it.
 */
CODE32(df_code, HEAD(df_code, "2f", "2f")
	"mov $0x59,%esi; mov %eax,0x67ff0; mov %eax,0x4000000\n"
	"2: pop %eax; " OUT(0x10) "mov 0x62000,%eax; " OUT(0x11) "mov 0x61020,%eax; " OUT(0x12)
	"mov 0x61040,%eax; " OUT(0x13) "hlt\n");

TEST_F(tasks, double_fault)
{
	struct vcpu *v = self->v;
	u32 eip;

	START(df_code);
	self->idt[14] = gate(CODE_SEL, 0x8000, 0x0e);	/* not present */
	self->idt[8] = gate(B_SEL, 0, 0x85);
	self->b->eflags |= X86_EFLAGS_CF;
	EXPECT_EQ(0, report(v, 0x10));			/* the error code */
	EXPECT_EQ(A_SEL, report(v, 0x11) & 0xffff);
	eip = report(v, 0x12);
	EXPECT_EQ(0xa3, *(u8 *)gpa_hva(self->vm, eip));	/* the MOV */
	EXPECT_EQ(0x59, report(v, 0x13));
	vcpu_expect(v, KVM_EXIT_HLT);
}

CODE32(nmi_code, HEAD(nmi_code, "2f", "2f")
	"1: mov $1,%eax; " OUT(0x10) "jmp 1b\n"
	"2: mov $2,%eax; " OUT(0x11) "mov $3,%eax; " OUT(0x12) "iret; jmp 2b\n");

TEST_F(tasks, nmi)
{
	struct vcpu *v = self->v;
	struct kvm_vcpu_events ev;
	int i;

	START(nmi_code);
	self->idt[2] = gate(B_SEL, 0, 0x85);
	EXPECT_EQ(1, report(v, 0x10));
	for (i = 0; i < 3; i++) {
		must(ioctl(v->fd, KVM_NMI));
		EXPECT_EQ(2, report(v, 0x11));
		must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev));
		EXPECT_EQ(1, ev.nmi.masked);
		EXPECT_EQ(A_SEL, self->b->link);
		EXPECT_EQ(3, report(v, 0x12));
		EXPECT_EQ(1, report(v, 0x10));		/* it has returned */
	}
	/*
	 * A second one, while the first is handled, waits for its end.  QEMU's CPU switches tasks without an exit, and with
	 * the step in which keel waits: it ends up in B's TSS.
	 */
	if (on_tcg())
		return;
	must(ioctl(v->fd, KVM_NMI));
	EXPECT_EQ(2, report(v, 0x11));
	must(ioctl(v->fd, KVM_NMI));
	EXPECT_EQ(3, report(v, 0x12));
	EXPECT_EQ(2, report(v, 0x11));
}

/* Handlers report the error code, the selector that ran and who was interrupted */
CODE32(fault_code, HEAD(fault_code, "3f", "3f")
	"ljmp $0x20,$0; hlt\n"
	"2: mov %cs,%eax; pop %eax; " OUT(0x10) "str %eax; " OUT(0x11) "mov 4(%esp),%eax; " OUT(0x12) "hlt\n"
	"3: " OUT(0x13) "hlt\n");

static void faults_at(FIXTURE_DATA(tasks) *self, u8 vector)
{
	/* the handler is the code's second piece */
	START(fault_code);
	self->idt[vector] = gate(CODE_SEL, CODE_GPA + 12 + 8, 0x8e);
}

TEST_F(tasks, faults)
{
	struct vcpu *v = self->v;

	/* of the old task: B is busy */
	faults_at(self, 13);
	self->gdt[B_SEL / 8] |= 1ULL << 41;
	EXPECT_EQ(B_SEL, report(v, 0x10));
	EXPECT_EQ(A_SEL, report(v, 0x11));
	vcpu_run(v);

	/* its TSS too small */
	faults_at(self, 10);
	self->gdt[B_SEL / 8] = descriptor(TSS_B, 102, 0x89);
	EXPECT_EQ(B_SEL, report(v, 0x10));
	EXPECT_EQ(A_SEL, report(v, 0x11));
	EXPECT_EQ(1, BUSY(A_SEL));
	vcpu_run(v);

	/* of the new one: its data segment is absent, its code segment is data */
	faults_at(self, 11);
	self->b->fs = ABSENT_SEL;
	EXPECT_EQ(ABSENT_SEL, report(v, 0x10));
	EXPECT_EQ(B_SEL, report(v, 0x11));
	EXPECT_EQ(CODE_SEL, report(v, 0x12));
	vcpu_run(v);

	faults_at(self, 10);
	self->b->cs = self->b->ss = DATA_SEL | 3;	/* whose privilege makes the handler's stack B's inner one */
	EXPECT_EQ(DATA_SEL, report(v, 0x10));
	EXPECT_EQ(B_SEL, report(v, 0x11));
	EXPECT_EQ(1, BUSY(B_SEL));
	vcpu_run(v);
}

CODE32(trap_code, HEAD(trap_code, "3f", "3f")
	"ljmp $0x20,$0; hlt\n"
	"2: mov %dr6,%eax; " OUT(0x10) "mov (%esp),%eax; " OUT(0x11) "mov %dr7,%eax; " OUT(0x12) "iret\n"
	"3: " OUT(0x13) "hlt\n");

TEST_F(tasks, debug_trap)
{
	struct kvm_debugregs d = {};
	struct vcpu *v = self->v;

	if (on_tcg())
		SKIP(return, "QEMU's CPU switches tasks by itself, and knows no trap bit");
	START(trap_code);
	self->b->trap = 1;
	self->idt[1] = gate(CODE_SEL, CODE_GPA + 12 + 8, 0x8e);
	d.dr6 = 0xffff0ff0;
	d.dr7 = 0x402;			/* a global breakpoint stays, a local one goes */
	d.dr7 |= 0x4;
	d.db[0] = d.db[1] = 0xdead000;
	must(ioctl(v->fd, KVM_SET_DEBUGREGS, &d));
	EXPECT_EQ(0x8000, report(v, 0x10) & 0xe00f);
	EXPECT_EQ(self->b->eip, report(v, 0x11));
	EXPECT_EQ(0x402, report(v, 0x12));
	report(v, 0x13);
	vcpu_expect(v, KVM_EXIT_HLT);
}

TEST_HARNESS_MAIN
