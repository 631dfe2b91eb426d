// SPDX-License-Identifier: GPL-2.0-only
/*
 * System management mode: SMIs and what holds them back, RSM, the save area,
 * and the address space that is seen in that mode only.
 */
#include "test.h"

#include <asm/kvm_para.h>

#define SMRAM_GPA	0x30000UL	/* other memory in the two spaces */
#define SMRAM_SIZE	0x10000UL
#define COUNT_GPA	0x60000UL	/* the same in both */
#define SPACE1(slot)	(1 << 16 | (slot))
#define SAVE64_CR0	0xff58
#define HELLO		0x1234

/* Clobbers what it can, and is back by RSM. */
CODE16(handler,
	"movl $0x1234,%eax\n movl $0xdead,%ebx\n movl $0xdead,%esi\n movl $0xdead,%esp\n"
	"addr32 incl 0x60000\n movw $0x5e4,%dx\n outl %eax,%dx\n rsm\n");
/* Moves SMBASE to 0x50000: the field of the save area with long mode. */
CODE16(mover, "addr32 movl $0x50000,0x3ff00\n rsm\n");
CODE16(moved, "movl $0x5678,%eax\n movw $0x5e4,%dx\n outl %eax,%dx\n rsm\n");
/* From the second time on a HLT is over. */
CODE16(waker, "addr32 incl 0x60000\n addr32 cmpl $2,0x60000\n jne 1f\n addr32 movb $0,0x3fec9\n 1: rsm\n");
CODE16(msr_reader, "movl $0x9e,%ecx\n rdmsr\n movw $0x5e4,%dx\n outl %eax,%dx\n rsm\n");
CODE32(spin32, "movw $0x5e4,%dx\n movl $7,%eax\n 1: outl %eax,%dx\n jmp 1b\n");
CODE16(spin16, "movw $0x5e4,%dx\n movl $7,%eax\n 1: outl %eax,%dx\n jmp 1b\n");

FIXTURE(smm) {
	struct vm *vm;
	struct vcpu *v;
	u8 *smram;
};

static void smm_code(u8 *smram, const u8 *code, size_t size)
{
	memcpy(smram + 0x8000, code, size);
}

FIXTURE_SETUP(smm)
{
	self->vm = vm_new(VM_IRQCHIP);
	if (!vm_cap(self->vm, KVM_CAP_X86_SMM))
		SKIP_FIXTURE("no KVM_CAP_X86_SMM");
	self->smram = mem_alloc(SMRAM_SIZE);
	vm_slot(self->vm, SPACE1(0), 0, SMRAM_GPA, self->vm->mem, 0);
	vm_slot(self->vm, SPACE1(1), SMRAM_GPA, SMRAM_SIZE, self->smram, 0);
	vm_slot(self->vm, SPACE1(2), SMRAM_GPA + SMRAM_SIZE, MEM_SIZE - SMRAM_GPA - SMRAM_SIZE,
		self->vm->mem + SMRAM_GPA + SMRAM_SIZE, 0);
	smm_code(self->smram, handler, code_size(handler));
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(smm)
{
	vm_free(self->vm);
}

static void smi(struct vcpu *v)
{
	must(ioctl(v->fd, KVM_SMI, 0));
}

static struct kvm_vcpu_events events(struct vcpu *v)
{
	struct kvm_vcpu_events e;

	must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
	return e;
}

static void msi(struct vm *vm, u32 data)
{
	struct kvm_msi m = { .address_lo = 0xfee00000, .data = data };

	must(ioctl(vm->fd, KVM_SIGNAL_MSI, &m));
}

/* The guest is in a loop around one OUT: it comes by there with the registers it had. */
static void round_trip(struct __test_metadata *_metadata, struct vcpu *v)
{
	struct kvm_sregs s0, s1, s2;
	struct kvm_debugregs d0, d1;
	struct kvm_regs r0, r1, r2;
	struct kvm_vcpu_events e;
	unsigned int i;

	EXPECT_EQ(7, vcpu_sync(v));
	EXPECT_EQ(0, v->run->flags & KVM_RUN_X86_SMM);
	vcpu_get_regs(v, &r0);
	vcpu_get_sregs(v, &s0);
	must(ioctl(v->fd, KVM_GET_DEBUGREGS, &d0));
	for (i = 0; i < 3; i++) {
		smi(v);
		EXPECT_EQ(1, events(v).smi.pending);
		EXPECT_EQ(HELLO, vcpu_sync(v));
		EXPECT_EQ(KVM_RUN_X86_SMM, v->run->flags & KVM_RUN_X86_SMM);
		vcpu_get_regs(v, &r1);
		vcpu_get_sregs(v, &s1);
		EXPECT_EQ(0x8000, r1.rip & ~0xffUL);
		EXPECT_EQ(2, r1.rflags & ~0x8d5UL);
		EXPECT_EQ(SMRAM_GPA, s1.cs.base);
		EXPECT_EQ(SMRAM_GPA >> 4, s1.cs.selector);
		EXPECT_EQ(0xffffffff, s1.cs.limit);
		EXPECT_EQ(0, s1.ds.base);
		EXPECT_EQ(0, s1.ss.selector);
		EXPECT_EQ(0xffffffff, s1.ss.limit);
		EXPECT_EQ(0, s1.cr0 & (X86_CR0_PE | X86_CR0_PG | X86_CR0_EM | X86_CR0_TS));
		EXPECT_EQ(0, s1.cr4);
		EXPECT_EQ(0, s1.efer);
		e = events(v);
		EXPECT_EQ(1, e.smi.smm);
		EXPECT_EQ(0, e.smi.pending);
		EXPECT_EQ(1, e.nmi.masked);
		must(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e));

		EXPECT_EQ(7, vcpu_sync(v));
		EXPECT_EQ(0, v->run->flags & KVM_RUN_X86_SMM);
		vcpu_get_regs(v, &r2);
		vcpu_get_sregs(v, &s2);
		must(ioctl(v->fd, KVM_GET_DEBUGREGS, &d1));
		EXPECT_EQ(0, memcmp(&r0, &r2, sizeof(r0)));
		EXPECT_EQ(0, memcmp(&s0, &s2, sizeof(s0)));
		EXPECT_EQ(0, memcmp(&d0, &d1, sizeof(d0)));
		e = events(v);
		EXPECT_EQ(0, e.smi.smm);
		EXPECT_EQ(0, e.nmi.masked);
		EXPECT_EQ(i + 1, *(u32 *)gpa_hva(v->vm, COUNT_GPA));
	}
}

static void spin64(u64 arg)
{
	asm volatile("movl $7,%%eax\n movw $0x5e4,%%dx\n movq $0x123456789abcdef,%%r8\n movq %%r8,%%r15\n"
		     "movq $-3,%%r11\n 1: outl %%eax,%%dx\n jmp 1b" ::: "memory");
}

TEST_F(smm, long_mode)
{
	vcpu_long(self->v, spin64, 0);
	round_trip(_metadata, self->v);
}

TEST_F(smm, protected_mode)
{
	vcpu_prot(self->v, spin32, code_size(spin32));
	round_trip(_metadata, self->v);
}

TEST_F(smm, real_mode)
{
	vcpu_real(self->v, spin16, code_size(spin16));
	round_trip(_metadata, self->v);
}

/* A CPU without long mode has the older save area. */
TEST_F(smm, no_long_mode)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 0x80000001, 0);

	e->edx &= ~(1U << 29);
	must(ioctl(self->v->fd, KVM_SET_CPUID2, self->vm->cpuid));
	vcpu_prot(self->v, spin32, code_size(spin32));
	round_trip(_metadata, self->v);
	EXPECT_EQ(0x20000, *(u32 *)(self->smram + 0xfefc));
	EXPECT_EQ(SMRAM_GPA, *(u32 *)(self->smram + 0xfef8));
	EXPECT_EQ(7, *(u32 *)(self->smram + 0xffd0));
}

TEST_F(smm, relocation)
{
	u64 base;

	smm_code(self->smram, mover, code_size(mover));
	memcpy(gpa_hva(self->vm, 0x58000), moved, code_size(moved));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_SMBASE, &base));
	EXPECT_EQ(SMRAM_GPA, base);
	vcpu_long(self->v, spin64, 0);
	EXPECT_EQ(7, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(7, vcpu_sync(self->v));
	EXPECT_EQ(0x20064, *(u32 *)(self->smram + 0xfefc));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_SMBASE, &base));
	EXPECT_EQ(0x50000, base);
	smi(self->v);
	EXPECT_EQ(0x5678, vcpu_sync(self->v));
	EXPECT_EQ(7, vcpu_sync(self->v));
}

static void spaces_guest(u64 arg)
{
	volatile u32 *other = (void *)(SMRAM_GPA + 0x100);

	guest_eq(*other, 0x11111111);
	guest_sync(1);
	guest_eq(*other, 0x11111111);
	*other = 0x33333333;
	guest_done(0);
}

CODE16(space_handler, "addr32 movl 0x30100,%eax\n addr32 movl $0x44444444,0x30100\n movw $0x5e4,%dx\n"
		      "outl %eax,%dx\n rsm\n");

TEST_F(smm, address_spaces)
{
	u32 *mine = gpa_hva(self->vm, SMRAM_GPA + 0x100), *its = (u32 *)(self->smram + 0x100);

	EXPECT_EQ(2, vm_cap(self->vm, KVM_CAP_MULTI_ADDRESS_SPACE));
	smm_code(self->smram, space_handler, code_size(space_handler));
	*mine = 0x11111111;
	*its = 0x22222222;
	vcpu_long(self->v, spaces_guest, 0);
	EXPECT_EQ(1, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(0x22222222, vcpu_sync(self->v));
	EXPECT_EQ(0x44444444, *its);
	vcpu_done(self->v);
	EXPECT_EQ(0x33333333, *mine);
	EXPECT_EQ(0x44444444, *its);
}

/* A slot of one space is written, and logged, for itself. */
TEST_F(smm, dirty_log)
{
	u64 bits[2] = {}, mine[64] = {};
	struct kvm_dirty_log log = { .slot = SPACE1(1), .dirty_bitmap = bits };

	vm_slot(self->vm, SPACE1(1), SMRAM_GPA, SMRAM_SIZE, self->smram, KVM_MEM_LOG_DIRTY_PAGES);
	vm_slot(self->vm, 0, 0, MEM_SIZE, self->vm->mem, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_long(self->v, spin64, 0);
	EXPECT_EQ(7, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
	EXPECT_EQ(1UL << 15, bits[0]);		/* the save area */
	log = (struct kvm_dirty_log) { .slot = 0, .dirty_bitmap = mine };
	must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
	EXPECT_EQ(0, mine[0] >> (SMRAM_GPA >> 12) & 0xffff);
}

/* Pages that the guest has given the host are where it gave them: not in memory that only this mode sees. */
TEST_F(smm, pages_outside)
{
	u8 *page = gpa_hva(self->vm, SMRAM_GPA + 0x1000), *inside = self->smram + 0x1000;
	unsigned int i;

	vcpu_long(self->v, spin64, 0);
	ASSERT_EQ(1, vcpu_set_msr(self->v, MSR_KVM_SYSTEM_TIME_NEW, (SMRAM_GPA + 0x1000) | 1));
	vcpu_set_msr(self->v, MSR_KVM_STEAL_TIME, (SMRAM_GPA + 0x2000) | 1);	/* where the host counts it */
	EXPECT_EQ(7, vcpu_sync(self->v));
	EXPECT_NE(0, *(u32 *)page);
	memset(page, 0, 64);
	memset(inside, 0, 0x2000);
	smi(self->v);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	EXPECT_EQ(0, page[29]);
	must(ioctl(self->v->fd, KVM_KVMCLOCK_CTRL));
	EXPECT_EQ(7, vcpu_sync(self->v));
	EXPECT_EQ(2, page[29] & 2);		/* PVCLOCK_GUEST_STOPPED */
	for (i = 0; i < 0x2000 && !inside[i]; i++)
		;
	EXPECT_EQ(0x2000, i);
}

TEST_F(smm, pending_in_smm)
{
	vcpu_long(self->v, spin64, 0);
	EXPECT_EQ(7, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	smi(self->v);
	smi(self->v);		/* one is remembered */
	EXPECT_EQ(1, events(self->v).smi.pending);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	EXPECT_EQ(0, events(self->v).smi.pending);
	EXPECT_EQ(2, *(u32 *)gpa_hva(self->vm, COUNT_GPA));
	EXPECT_EQ(7, vcpu_sync(self->v));
	EXPECT_EQ(7, vcpu_sync(self->v));
}

static void step(struct vcpu *v, u32 control)
{
	struct kvm_guest_debug d = { .control = control };

	must(ioctl(v->fd, KVM_SET_GUEST_DEBUG, &d));
}

#define STEP	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP)

/* An SMI comes after the step that it came in, and not between those of a VMM that wants no interrupts there */
TEST_F(smm, stepped)
{
	struct vcpu *v = self->v;
	struct kvm_regs r;
	u64 out;

	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG2);
	vcpu_long(v, spin64, 0);
	EXPECT_EQ(7, vcpu_sync(v));
	step(v, STEP);
	vcpu_expect(v, KVM_EXIT_DEBUG);		/* JMP */
	EXPECT_EQ(7, vcpu_sync(v));
	smi(v);
	vcpu_expect(v, KVM_EXIT_DEBUG);
	EXPECT_EQ(0, v->run->flags & KVM_RUN_X86_SMM);
	vcpu_get_regs(v, &r);
	out = r.rip - 1;		/* of one byte */
	EXPECT_EQ(0xef, *(u8 *)gpa_hva(self->vm, out));
	EXPECT_EQ(1, events(v).smi.pending);
	step(v, STEP | KVM_GUESTDBG_BLOCKIRQ);
	vcpu_expect(v, KVM_EXIT_DEBUG);
	EXPECT_EQ(out, v->run->debug.arch.pc);
	EXPECT_EQ(1, events(v).smi.pending);
	EXPECT_EQ(0, *(u32 *)gpa_hva(self->vm, COUNT_GPA));
	step(v, 0);
	EXPECT_EQ(HELLO, vcpu_sync(v));
	EXPECT_EQ(1, *(u32 *)gpa_hva(self->vm, COUNT_GPA));
	EXPECT_EQ(7, vcpu_sync(v));
}

static volatile u32 went_on;

static void halt_guest(u64 arg)
{
	asm volatile("cli; hlt");
	went_on = 1;
	guest_done(0);
}

/* By MSI; RSM goes back to HLT unless the handler says that it is over. */
TEST_F(smm, halted)
{
	volatile u32 *count = gpa_hva(self->vm, COUNT_GPA);

	smm_code(self->smram, waker, code_size(waker));
	vcpu_long(self->v, halt_guest, 0);
	vcpu_start(self->v);
	wait_until_halted(self->v);
	EXPECT_EQ(0, *count);
	msi(self->vm, 0x200);
	EXPECT_TRUE(wait_for(count, 1, 5000));
	sleep_ms(50);
	EXPECT_EQ(0, guest_var(self->vm, went_on));
	msi(self->vm, 0x200);
	EXPECT_EQ(0, vcpu_join(self->v));
	EXPECT_EQ(2, *count);
}

static void icr_guest(u64 arg)
{
	*(volatile u32 *)(LAPIC_GPA + 0x310) = 0;
	*(volatile u32 *)(LAPIC_GPA + 0x300) = 0x200;
	guest_sync(1);
	guest_done(0);
}

TEST_F(smm, by_icr)
{
	vcpu_long(self->v, icr_guest, 0);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	EXPECT_EQ(1, vcpu_sync(self->v));
	vcpu_done(self->v);
}

TEST_F(smm, init_latched)
{
	struct kvm_vcpu_events e;
	struct kvm_mp_state mp;
	struct kvm_regs r;

	vcpu_long(self->v, spin64, 0);
	EXPECT_EQ(7, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	msi(self->vm, 0x500);
	must(ioctl(self->v->fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(KVM_MP_STATE_RUNNABLE, mp.mp_state);
	e = events(self->v);
	EXPECT_EQ(1, e.smi.latched_init);
	e.smi.latched_init = 0;
	must(ioctl(self->v->fd, KVM_SET_VCPU_EVENTS, &e));
	EXPECT_EQ(7, vcpu_sync(self->v));

	smi(self->v);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	msi(self->vm, 0x500);
	/* RSM, then INIT: the reset vector is in no memory. */
	(void)xioctl(self->v->fd, KVM_RUN, 0);
	vcpu_get_regs(self->v, &r);
	EXPECT_EQ(0xfff0, r.rip);
	e = events(self->v);
	EXPECT_EQ(0, e.smi.latched_init);
	EXPECT_EQ(0, e.smi.smm);
}

static void nmi_guest(u64 arg)
{
	guest_on(NMI_VEC, guest_count);
	guest_sync(1);
	guest_eq(guest_irqs[NMI_VEC], 1);
	guest_done(0);
}

TEST_F(smm, nmi_blocked)
{
	vcpu_long(self->v, nmi_guest, 0);
	EXPECT_EQ(1, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	must(ioctl(self->v->fd, KVM_NMI, 0));
	EXPECT_EQ(0, guest_var(self->vm, guest_irqs)[NMI_VEC]);
	vcpu_done(self->v);
}

static void outside_guest(u64 arg)
{
	u64 v;

	guest_eq(guest_try("rsm", "i"(0)), UD);
	guest_eq(rdmsr_try(MSR_IA32_SMBASE, &v), GP0);
	guest_eq(wrmsr_try(MSR_IA32_SMBASE, 0x30000), GP0);
	guest_sync(1);
	guest_eq(guest_try("rsm", "i"(0)), UD);
	guest_done(0);
}

TEST_F(smm, outside)
{
	smm_code(self->smram, msr_reader, code_size(msr_reader));
	vcpu_long(self->v, outside_guest, 0);
	EXPECT_EQ(1, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(SMRAM_GPA, vcpu_sync(self->v));
	vcpu_done(self->v);
}

TEST_F(smm, bad_state)
{
	vcpu_long(self->v, spin64, 0);
	EXPECT_EQ(7, vcpu_sync(self->v));
	smi(self->v);
	EXPECT_EQ(HELLO, vcpu_sync(self->v));
	*(u32 *)(self->smram + SAVE64_CR0) &= ~X86_CR0_PE;
	vcpu_expect(self->v, KVM_EXIT_SHUTDOWN);
}

TEST_F(smm, refused)
{
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_INIT_RECEIVED };
	u64 bits[64];
	struct kvm_dirty_log log = { .slot = 2 << 16, .dirty_bitmap = bits };

	EXPECT_EQ(-EINVAL, vm_try_slot(self->vm, 2 << 16, 0, 0x1000, self->smram, 0));
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
	log.slot = SPACE1(7);
	EXPECT_EQ(-ENOENT, xioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
	EXPECT_EQ(-EEXIST, vm_try_slot(self->vm, SPACE1(7), SMRAM_GPA, 0x1000, self->smram, 0));
	smi(self->v);
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_MP_STATE, &mp));
}

TEST_HARNESS_MAIN
