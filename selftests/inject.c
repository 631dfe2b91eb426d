// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events put into a guest from outside, without an irqchip in the kernel:
 * interrupts and the window for them, NMIs, exceptions; what blocks each, in
 * what order they come, and how faults on the way there add up.
 */
#include "test.h"

FIXTURE(inject) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(inject)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(inject)
{
	vm_free(self->vm);
}

static int interrupt(struct vcpu *v, u32 vec)
{
	struct kvm_interrupt i = { .irq = vec };

	return xioctl(v->fd, KVM_INTERRUPT, &i);
}

static void get_events(struct vcpu *v, struct kvm_vcpu_events *e)
{
	must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, e));
}

static void set_events(struct vcpu *v, struct kvm_vcpu_events *e)
{
	must(ioctl(v->fd, KVM_SET_VCPU_EVENTS, e));
}

static void exception(struct vcpu *v, u8 vec, bool has_err, u32 err)
{
	struct kvm_vcpu_events e;

	get_events(v, &e);
	e.exception.injected = 1;
	e.exception.nr = vec;
	e.exception.has_error_code = has_err;
	e.exception.error_code = err;
	set_events(v, &e);
}

/* ---- interrupts ---- */

static void irq_guest(u64 arg)
{
	guest_on(0x40, guest_count);
	guest_on(0x41, guest_count);
	guest_on(0xff, guest_count);
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x40], 1);
	guest_sync(1);
	guest_eq(guest_irqs[0x41], 1);
	guest_eq(guest_irqs[0xff], 0);
	guest_sync(2);
	guest_eq(guest_irqs[0xff], 1);
	guest_done(0);
}

TEST_F(inject, interrupt)
{
	struct vcpu *v = self->v;

	EXPECT_EQ(-EINVAL, interrupt(v, 256));
	EXPECT_EQ(-EINVAL, interrupt(v, -1));
	vcpu_long(v, irq_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(1, v->run->if_flag);
	EXPECT_EQ(1, v->run->ready_for_interrupt_injection);
	EXPECT_EQ(0, interrupt(v, 0x40));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, interrupt(v, 0x41));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, interrupt(v, 0xff));
	vcpu_done(v);
}

static void window_guest(u64 arg)
{
	u64 i;

	guest_on(0x40, guest_count);
	guest_sync(0);
	for (i = 0; i < 1000; i++)
		pause_cpu();
	guest_eq(guest_irqs[0x40], 0);
	/* the instruction after STI is still not interrupted */
	asm volatile("sti; incl guest_irqs; nop; nop" ::: "memory");
	guest_eq(guest_irqs[0x40], 1);
	guest_done(0);
}

/* Interrupts off: the VMM asks to be told when they are on */
TEST_F(inject, window)
{
	struct vcpu *v = self->v;

	vcpu_long(v, window_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, v->run->if_flag);
	EXPECT_EQ(0, v->run->ready_for_interrupt_injection);
	v->run->request_interrupt_window = 1;
	vcpu_expect(v, KVM_EXIT_IRQ_WINDOW_OPEN);
	EXPECT_EQ(1, v->run->if_flag);
	EXPECT_EQ(1, v->run->ready_for_interrupt_injection);
	/* one instruction later, then */
	EXPECT_EQ(1, guest_var(self->vm, guest_irqs)[0]);
	v->run->request_interrupt_window = 0;
	EXPECT_EQ(0, interrupt(v, 0x40));
	vcpu_done(v);
}

/* With the window open already the guest does not get to run first */
static void open_window_guest(u64 arg)
{
	guest_on(0x40, guest_count);
	irq_on();
	guest_sync(0);
	guest_sync(guest_irqs[0x40]);
	guest_done(0);
}

TEST_F(inject, window_already_open)
{
	struct vcpu *v = self->v;

	vcpu_long(v, open_window_guest, 0);
	vcpu_sync(v);
	v->run->request_interrupt_window = 1;
	vcpu_expect(v, KVM_EXIT_IRQ_WINDOW_OPEN);
	EXPECT_EQ(0, interrupt(v, 0x40));
	v->run->request_interrupt_window = 0;
	EXPECT_EQ(1, vcpu_sync(v));
	vcpu_done(v);
}

/* Telling the VMM takes an exit or two, not as many as fit before the scheduler steps in */
static void windows_guest(u64 n)
{
	while (n--) {
		irq_off();
		guest_sync(0);
		irq_on();
		pause_cpu();
		guest_sync(1);
	}
	guest_done(0);
}

TEST_F(inject, window_costs_few_exits)
{
	struct vcpu *v = self->v;
	const int rounds = 50;
	u64 before;
	int i;

	NEED_CAP(self->vm, KVM_CAP_BINARY_STATS_FD);
	vcpu_long(v, windows_guest, rounds);
	before = vcpu_stat(v, "exits");
	for (i = 0; i < rounds; i++) {
		EXPECT_EQ(0, vcpu_sync(v));
		v->run->request_interrupt_window = 1;
		vcpu_expect(v, KVM_EXIT_IRQ_WINDOW_OPEN);
		v->run->request_interrupt_window = 0;
		EXPECT_EQ(1, vcpu_sync(v));
	}
	vcpu_done(v);
	/* two for the syncs, one for the window; the rest is the host's interrupts */
	EXPECT_GT(rounds * 20, vcpu_stat(v, "exits") - before);
}

/* MOV SS blocks for one instruction as well */
static volatile u64 irq_rip;
static void rip_handler(struct guest_frame *f)
{
	irq_rip = f->rip;
	guest_irqs[f->vec]++;
}

static void mov_ss_guest(u64 arg)
{
	u64 after;

	guest_on(0x40, rip_handler);
	irq_on();
	guest_sync(0);
	asm volatile("mov %%ss,%%eax; sti; mov %%eax,%%ss; nop; 1: lea 1b(%%rip),%0"
		     : "=r"(after) :: "rax");
	guest_sync(1);
	guest_done(0);
}

TEST_F(inject, shadow_is_reported)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;

	/* set from outside: the interrupt has to wait one instruction */
	vcpu_long(v, mov_ss_guest, 0);
	vcpu_sync(v);
	/* let the out complete, or it would take the shadow with it */
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	v->run->immediate_exit = 0;
	get_events(v, &e);
	EXPECT_EQ(0, e.interrupt.shadow);
	e.flags |= KVM_VCPUEVENT_VALID_SHADOW;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	set_events(v, &e);
	get_events(v, &e);
	EXPECT_NE(0, e.interrupt.shadow);
	v->run->request_interrupt_window = 1;
	vcpu_expect(v, KVM_EXIT_IRQ_WINDOW_OPEN);
	get_events(v, &e);
	EXPECT_EQ(0, e.interrupt.shadow);
}

/* HLT without an irqchip in the kernel: an interrupt resumes after it */
static void halted_guest(u64 arg)
{
	guest_on(0x40, guest_count);
	irq_halt();
	guest_eq(guest_irqs[0x40], 1);
	guest_done(0);
}

TEST_F(inject, halted)
{
	vcpu_long(self->v, halted_guest, 0);
	vcpu_expect(self->v, KVM_EXIT_HLT);
	EXPECT_EQ(1, self->v->run->ready_for_interrupt_injection);
	EXPECT_EQ(0, interrupt(self->v, 0x40));
	vcpu_done(self->v);
}

/* CR8 goes through kvm_run when the LAPIC is the VMM's */
static void cr8_guest(u64 arg)
{
	guest_eq(read_cr8(), 0);
	write_cr8(5);
	guest_sync(0);
	guest_eq(read_cr8(), 7);
	write_cr8(2);
	guest_done(0);
}

TEST_F(inject, cr8)
{
	struct vcpu *v = self->v;
	struct kvm_sregs s;

	vcpu_long(v, cr8_guest, 0);
	for (;;) {
		vcpu_run(v);
		if (v->run->exit_reason != KVM_EXIT_SET_TPR)
			break;
	}
	ASSERT_EQ(KVM_EXIT_IO, v->run->exit_reason);
	EXPECT_EQ(5, v->run->cr8);
	vcpu_get_sregs(v, &s);
	EXPECT_EQ(5, s.cr8);
	v->run->cr8 = 7;
	/* lowering it is worth an exit: something may be deliverable now */
	vcpu_expect(v, KVM_EXIT_SET_TPR);
	EXPECT_EQ(2, v->run->cr8);
	vcpu_done(v);
	v->run->cr8 = 16;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_RUN, 0));
}

/* ---- NMI ---- */

static volatile u32 nmis, nmi_depth, nmi_max_depth, in_nmi;

static void nmi_handler(struct guest_frame *f)
{
	nmi_depth++;
	if (nmi_depth > nmi_max_depth)
		nmi_max_depth = nmi_depth;
	nmis++;
	if (in_nmi) {
		in_nmi = 0;
		guest_sync(100);
		/* still the first: the second waits for IRET */
		guest_eq(nmis, 1);
	}
	nmi_depth--;
}

static void nmi_guest(u64 arg)
{
	guest_on(NMI_VEC, nmi_handler);
	guest_sync(0);
	guest_eq(nmis, 1);		/* though interrupts are off */
	guest_sync(1);
	guest_eq(nmis, 2);
	guest_done(0);
}

TEST_F(inject, nmi)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;

	vcpu_long(v, nmi_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	get_events(v, &e);
	EXPECT_EQ(1, e.nmi.pending);
	EXPECT_EQ(1, vcpu_sync(v));
	get_events(v, &e);
	EXPECT_EQ(0, e.nmi.pending);
	EXPECT_EQ(0, e.nmi.masked);
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	vcpu_done(v);
}

static void nested_nmi_guest(u64 arg)
{
	guest_on(NMI_VEC, nmi_handler);
	in_nmi = 1;
	guest_sync(0);
	while (nmis < 2)
		pause_cpu();
	guest_eq(nmi_max_depth, 1);
	guest_sync(nmis);
	guest_done(0);
}

TEST_F(inject, nmi_blocked_until_iret)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;

	vcpu_long(v, nested_nmi_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	EXPECT_EQ(100, vcpu_sync(v));
	get_events(v, &e);
	EXPECT_EQ(1, e.nmi.masked);
	/* any number while blocked are one */
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	EXPECT_EQ(2, vcpu_sync(v));
	get_events(v, &e);
	EXPECT_EQ(0, e.nmi.masked);
	EXPECT_EQ(0, e.nmi.pending);
	vcpu_done(v);
}

static volatile u32 traps;

static void trap_handler(struct guest_frame *f)
{
	traps++;
	f->rflags &= ~(u64)X86_EFLAGS_TF;
}

/* Whom it comes back to is single-stepped */
static void stepping_nmi(struct guest_frame *f)
{
	if (++nmis > 1)
		return;
	guest_sync(100);
	f->rflags |= X86_EFLAGS_TF;
}

static void stepped_nmi_guest(u64 arg)
{
	guest_on(NMI_VEC, stepping_nmi);
	guest_on(DB_VEC, trap_handler);
	guest_sync(0);
	while (nmis < 2)
		pause_cpu();
	guest_eq(traps, 1);
	guest_done(0);
}

/* The one that waits for IRET does not take away the flag that comes back with it */
TEST_F(inject, nmi_returns_to_trap_flag)
{
	struct vcpu *v = self->v;

	vcpu_long(v, stepped_nmi_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	EXPECT_EQ(100, vcpu_sync(v));
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	vcpu_done(v);
}

/* Masked from outside, as after migration in the middle of a handler */
static void masked_nmi_guest(u64 arg)
{
	u64 rsp = 0;

	guest_on(NMI_VEC, nmi_handler);
	guest_sync(0);
	guest_eq(nmis, 0);
	asm volatile("mov %%rsp,%0\n"
		     "pushq %1; pushq %0; pushfq; pushq %2; pushq $1f\n"
		     "iretq\n1: nop; nop"
		     : "+r"(rsp) : "i"(SEL_DATA), "i"(SEL_CODE64) : "memory");
	guest_eq(nmis, 1);
	guest_done(0);
}

TEST_F(inject, nmi_masked_from_outside)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;

	vcpu_long(v, masked_nmi_guest, 0);
	vcpu_sync(v);
	get_events(v, &e);
	e.nmi.masked = 1;
	e.nmi.pending = 1;
	e.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
	set_events(v, &e);
	vcpu_done(v);
}

/* ---- exceptions ---- */

static volatile u64 ex_vec, ex_err, ex_rip, ex_cr2, ex_rflags;
static void ex_handler(struct guest_frame *f)
{
	ex_vec = f->vec;
	ex_err = f->err;
	ex_rip = f->rip;
	ex_cr2 = read_cr2();
	ex_rflags = f->rflags;
	guest_irqs[f->vec]++;
}

static void wide_guest(u64 arg)
{
	guest_on(GP_VEC, ex_handler);
	guest_sync(0);
	guest_eq(ex_err & 0xffff, 5);
	guest_done(0);
}

/* Intel's CPUs refuse to enter with an error code of more than 16 bits */
TEST_F(inject, ex_err_code)
{
	vcpu_long(self->v, wide_guest, 0);
	vcpu_sync(self->v);
	vcpu_settle(self->v);
	exception(self->v, GP_VEC, true, 0x10005);
	vcpu_done(self->v);
}

static void exception_guest(u64 arg)
{
	guest_on(GP_VEC, ex_handler);
	guest_on(UD_VEC, ex_handler);
	guest_on(PF_VEC, ex_handler);
	guest_sync(0);
	guest_eq(ex_vec, GP_VEC);
	guest_eq(ex_err, 0x1234);
	guest_sync(1);
	guest_eq(ex_vec, UD_VEC);
	guest_eq(ex_err, 0);
	guest_sync(2);
	guest_eq(ex_vec, PF_VEC);
	guest_eq(ex_err, 6);
	guest_eq(ex_cr2, 0xabc123);
	guest_done(0);
}

TEST_F(inject, exception)
{
	struct vcpu *v = self->v;
	struct kvm_sregs s;

	vcpu_long(v, exception_guest, 0);
	vcpu_sync(v);
	exception(v, GP_VEC, true, 0x1234);
	EXPECT_EQ(1, vcpu_sync(v));
	exception(v, UD_VEC, false, 0);
	EXPECT_EQ(2, vcpu_sync(v));
	vcpu_get_sregs(v, &s);
	s.cr2 = 0xabc123;
	vcpu_set_sregs(v, &s);
	exception(v, PF_VEC, true, 6);
	vcpu_done(v);
}

static void payload_guest(u64 arg)
{
	guest_on(PF_VEC, ex_handler);
	guest_sync(0);
	guest_eq(ex_vec, PF_VEC);
	guest_eq(ex_err, 2);
	guest_eq(ex_cr2, 0xdef000);
	guest_done(0);
}

TEST_F(inject, exception_with_payload)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;

	must(vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1));
	vcpu_long(v, payload_guest, 0);
	vcpu_sync(v);
	get_events(v, &e);
	e.exception.pending = 1;
	e.exception.nr = PF_VEC;
	e.exception.has_error_code = 1;
	e.exception.error_code = 2;
	e.exception_has_payload = 1;
	e.exception_payload = 0xdef000;
	set_events(v, &e);
	vcpu_done(v);
}

/* An exception goes first, then NMI, then the interrupt */
static volatile u32 order[3], nr_order;
static void order_handler(struct guest_frame *f)
{
	if (nr_order < 3)
		order[nr_order++] = f->vec;
}

static void order_guest(u64 arg)
{
	guest_on(UD_VEC, order_handler);
	guest_on(NMI_VEC, order_handler);
	guest_on(0x40, order_handler);
	irq_on();
	guest_sync(0);
	while (nr_order < 3)
		pause_cpu();
	guest_done(0);
}

/*
 * Handlers are entered in the order of injection; as each next event is
 * delivered on the first instruction of the handler before it, the one that
 * runs to its end first is the last.  Gates clear IF, so the interrupt is
 * after both.
 */
TEST_F(inject, priorities)
{
	struct vcpu *v = self->v;
	volatile u32 *o = guest_var(self->vm, order);

	vcpu_long(v, order_guest, 0);
	vcpu_sync(v);
	exception(v, UD_VEC, false, 0);
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	v->run->request_interrupt_window = 1;
	vcpu_expect(v, KVM_EXIT_IRQ_WINDOW_OPEN);
	v->run->request_interrupt_window = 0;
	EXPECT_EQ(0, interrupt(v, 0x40));
	vcpu_done(v);
	EXPECT_EQ(NMI_VEC, o[0]);
	EXPECT_EQ(UD_VEC, o[1]);
	EXPECT_EQ(0x40, o[2]);
}

/* ---- exceptions while delivering one ---- */

static void set_gate(int vec, bool present)
{
	u64 *idt = (u64 *)IDT_GPA;

	if (present)
		idt[2 * vec] |= 1UL << 47;
	else
		idt[2 * vec] &= ~(1UL << 47);
}

static volatile u64 df_err;
static void df_handler(struct guest_frame *f)
{
	df_err = f->err;
	guest_done(f->vec);
}

/* The error code for a bad gate; QEMU's emulator counts gates of 16 bytes */
guest_always bool is_gate_error(u64 err, int vec)
{
	return err == vec * 8 + 2 || err == vec * 16 + 2;
}

static void np_handler(struct guest_frame *f)
{
	guest_assert(is_gate_error(f->err, 0x50));
	guest_done(f->vec);
}

static void np_guest(u64 arg)
{
	guest_on(NP_VEC, np_handler);
	set_gate(0x50, false);
	asm volatile("int $0x50");
}

TEST_F(inject, gate_not_present)
{
	vcpu_long(self->v, np_guest, 0);
	EXPECT_EQ(NP_VEC, vcpu_done(self->v));
}

/* Contributory upon contributory: #DF with a zero error code */
static void double_guest(u64 arg)
{
	guest_on(DF_VEC, df_handler);
	guest_on(0x40, guest_count);
	asm volatile("int $0x40");	/* all that delivery needs is mapped */
	set_gate(GP_VEC, false);
	asm volatile("mov %w0,%%ds" :: "r"(0x1000));	/* #GP, then #NP */
}

TEST_F(inject, double_fault)
{
	vcpu_long(self->v, double_guest, 0);
	EXPECT_EQ(DF_VEC, vcpu_done(self->v));
	EXPECT_EQ(0, guest_var(self->vm, df_err));
}

static void double_injected_guest(u64 arg)
{
	guest_on(DF_VEC, df_handler);
	set_gate(GP_VEC, false);
	guest_sync(0);
}

TEST_F(inject, double_fault_from_injection)
{
	struct vcpu *v = self->v;

	NOT_ON_TCG("what follows an injected fault is not merged");
	vcpu_long(v, double_injected_guest, 0);
	vcpu_sync(v);
	exception(v, GP_VEC, true, 0);
	EXPECT_EQ(DF_VEC, vcpu_done(v));
}

/* Benign first: the second is delivered by itself */
static void benign_guest(u64 arg)
{
	guest_on(NP_VEC, df_handler);
	set_gate(UD_VEC, false);
	asm volatile("ud2");
}

TEST_F(inject, benign_then_fault)
{
	vcpu_long(self->v, benign_guest, 0);
	EXPECT_EQ(NP_VEC, vcpu_done(self->v));
	/* EXT: Intel counts an earlier exception as external to the program, AMD does not */
	EXPECT_TRUE(is_gate_error(guest_var(self->vm, df_err) & ~1UL, UD_VEC));
}

/* #PF upon #PF */
static void pf_guest(u64 arg)
{
	u64 *idt = (u64 *)IDT_GPA;

	guest_on(DF_VEC, df_handler);
	/* the handler is where nothing is mapped, on a stack that is not */
	idt[2 * PF_VEC] |= 1UL << 32;		/* IST1 */
	*(u64 *)(CPU_GPA + 0x100 + 36) = 0x7f0000000000UL;
	(void)*(volatile u32 *)0x200000000UL;
}

TEST_F(inject, page_fault_twice)
{
	vcpu_long(self->v, pf_guest, 0);
	EXPECT_EQ(DF_VEC, vcpu_done(self->v));
}

static void triple_guest(u64 arg)
{
	set_gate(GP_VEC, false);
	set_gate(DF_VEC, false);
	asm volatile("mov %w0,%%ds" :: "r"(0x1000));
}

TEST_F(inject, triple_fault)
{
	vcpu_long(self->v, triple_guest, 0);
	vcpu_expect(self->v, KVM_EXIT_SHUTDOWN);
}

static void triple_injected_guest(u64 arg)
{
	set_gate(DF_VEC, false);
	guest_sync(0);
	guest_done(0);
}

TEST_F(inject, triple_fault_from_injection)
{
	NOT_ON_TCG("what follows an injected fault is not merged");
	vcpu_long(self->v, triple_injected_guest, 0);
	vcpu_sync(self->v);
	exception(self->v, DF_VEC, true, 0);
	vcpu_expect(self->v, KVM_EXIT_SHUTDOWN);
}

TEST_F(inject, triple_fault_event)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;

	NEED_CAP(self->vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT);
	must(vm_enable_cap(self->vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1));
	vcpu_long(v, triple_injected_guest, 0);
	vcpu_sync(v);
	get_events(v, &e);
	EXPECT_TRUE(e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
	EXPECT_EQ(0, e.triple_fault.pending);
	e.triple_fault.pending = 1;
	set_events(v, &e);
	get_events(v, &e);
	EXPECT_EQ(1, e.triple_fault.pending);
	vcpu_expect(v, KVM_EXIT_SHUTDOWN);
}

/*
 * Delivery that itself exits: the IDT, the stack or the handler are in memory
 * not mapped by the host yet.  What was being delivered is not lost.
 */
static void lazy_guest(u64 arg)
{
	guest_on(0x40, guest_count);
	guest_on(UD_VEC, ex_handler);
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x40], 1);
	guest_sync(1);
	guest_eq(guest_irqs[UD_VEC], 1);
	guest_sync(2);
	/* software interrupts and #BP have no cause to be repeated */
	guest_on(BP_VEC, ex_handler);
	asm volatile("int $0x40");
	guest_eq(guest_irqs[0x40], 2);
	guest_sync(3);
	asm volatile("int3");
	guest_eq(guest_irqs[BP_VEC], 1);
	guest_done(0);
}

TEST_F(inject, delivery_that_exits)
{
	struct vcpu *v = self->v;
	struct vm *vm = self->vm;
	u8 saved[4096];
	int i;

	vcpu_long(v, lazy_guest, 0);
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(i, vcpu_sync(v));
		/* the page of the IDT goes away under the guest, and is back */
		memcpy(saved, gpa_hva(vm, IDT_GPA), 4096);
		madvise(gpa_hva(vm, IDT_GPA), 4096, MADV_DONTNEED);
		madvise(gpa_hva(vm, STACK_GPA), STACK_SIZE / 2, MADV_DONTNEED);
		memcpy(gpa_hva(vm, IDT_GPA), saved, 4096);
		if (i == 0) {
			EXPECT_EQ(0, interrupt(v, 0x40));
		}
		if (i == 1)
			exception(v, UD_VEC, false, 0);
	}
	vcpu_done(v);
}

static void skip_two(struct guest_frame *f)
{
	f->rip += 2;
	guest_irqs[f->vec]++;
}

/* Two exceptions with no exit between: that of RDMSR, injected, and the own one of INT3. Returns where that returns. */
static __attribute__((noinline)) u64 rdmsr_int3(void)
{
	u32 msr = 0x12345678, eax, edx;
	u64 rip;

	asm volatile("rdmsr; int3; 1: lea 1b(%%rip),%0" : "=r"(rip), "=a"(eax), "=d"(edx) : "c"(msr) : "memory");
	return rip;
}

static void own_int3_guest(u64 arg)
{
	guest_on(GP_VEC, skip_two);
	guest_on(BP_VEC, ex_handler);
	guest_sync(0);
	rdmsr_int3();		/* what it takes is there, but for this stack */
	((u8 *)IDT_GPA)[BP_VEC * 16 + 4] = 1;
	guest_eq(rdmsr_int3(), ex_rip);
	guest_eq(guest_irqs[GP_VEC], 2);
	guest_eq(guest_irqs[BP_VEC], 2);
	guest_done(0);
}

/* A software interrupt whose delivery exits is not taken for what was injected before it, and is over by then. */
TEST_F(inject, own_int3_that_exits)
{
	struct vcpu *v = self->v;

	vcpu_long(v, own_int3_guest, 0);
	vcpu_sync(v);
	madvise(gpa_hva(self->vm, STACK_GPA), STACK_SIZE / 2, MADV_DONTNEED);
	vcpu_done(v);
}

/* An injected event not delivered yet can be seen, and moved elsewhere */
TEST_F(inject, injected_is_visible)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;

	vcpu_long(v, irq_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, interrupt(v, 0x40));
	get_events(v, &e);
	EXPECT_EQ(1, e.interrupt.injected);
	EXPECT_EQ(0x40, e.interrupt.nr);
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	v->run->immediate_exit = 0;
	get_events(v, &e);
	EXPECT_EQ(1, e.interrupt.injected);
	EXPECT_EQ(1, vcpu_sync(v));
	get_events(v, &e);
	EXPECT_EQ(0, e.interrupt.injected);
}

/* Told of, given back, and delivered: once */
TEST_F(inject, given_back)
{
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;
	struct kvm_sregs s;

	vcpu_long(v, irq_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, interrupt(v, 0x40));
	get_events(v, &e);
	vcpu_get_sregs(v, &s);
	set_events(v, &e);
	vcpu_set_sregs(v, &s);
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(1, guest_var(self->vm, guest_irqs)[0x40]);
	/* and what is taken away does not come */
	EXPECT_EQ(0, interrupt(v, 0x40));
	get_events(v, &e);
	EXPECT_EQ(1, e.interrupt.injected);
	e.interrupt.injected = 0;
	set_events(v, &e);
	EXPECT_EQ(0, interrupt(v, 0x41));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(1, guest_var(self->vm, guest_irqs)[0x40]);
	EXPECT_EQ(0, interrupt(v, 0xff));
	vcpu_done(v);
}

/*
 * Software interrupts and exceptions that are given back, or moved to where they go on: of the instruction that RIP is
 * at, once, and what is pushed is behind it.
 */
static volatile u32 soft_count;
static volatile u64 soft_rip;

static void soft_handler(struct guest_frame *f)
{
	soft_count++;
	soft_rip = f->rip;
}

extern char soft_int[], soft_int_behind[], soft_int3[], soft_int3_behind[];

static void soft_guest(u64 three)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) idtr = { 0xfff, HOLE_GPA };

	guest_on(0x40, soft_handler);
	guest_on(BP_VEC, soft_handler);
	guest_sync(0);
	asm volatile("lidt %0" :: "m"(idtr));
	if (three)
		asm volatile("soft_int3: int3; soft_int3_behind:" ::: "memory");
	else
		asm volatile("soft_int: int $0x40; soft_int_behind:" ::: "memory");
	guest_done(0);
}

static void soft_saved(struct __test_metadata *_metadata, struct vm *vm, struct vcpu *v, u64 at, u64 behind)
{
	u8 *idt = mem_alloc(4096);
	struct kvm_vcpu_events e;
	struct kvm_regs r;

	/* There is no IDT: it cannot be delivered. */
	vcpu_sync(v);
	EXPECT_EQ(0, xioctl(v->fd, KVM_RUN, 0));
	if (v->run->exit_reason != KVM_EXIT_INTERNAL_ERROR)
		SKIP(return, "it did not stop for an IDT where there is no memory");
	vcpu_get_regs(v, &r);
	EXPECT_EQ(at, r.rip);
	get_events(v, &e);
	EXPECT_EQ(0, e.exception.injected | e.exception.pending);
	EXPECT_EQ(0, e.interrupt.injected);
	/* Where it goes on there is one. */
	memcpy(idt, gpa_hva(vm, IDT_GPA), 4096);
	vm_slot(vm, 9, HOLE_GPA, 4096, idt, 0);
	vcpu_set_regs(v, &r);
	set_events(v, &e);
	vcpu_done(v);
	EXPECT_EQ(1, guest_var(vm, soft_count));
	EXPECT_EQ(behind, guest_var(vm, soft_rip));
}

TEST_F(inject, soft_interrupt_saved)
{
	vcpu_long(self->v, soft_guest, 0);
	soft_saved(_metadata, self->vm, self->v, (u64)soft_int, (u64)soft_int_behind);
}

TEST_F(inject, soft_exception_saved)
{
	vcpu_long(self->v, soft_guest, 1);
	soft_saved(_metadata, self->vm, self->v, (u64)soft_int3, (u64)soft_int3_behind);
}

/* The VMM's own #BP and #OF are those of an instruction at RIP, also when it says where that is later */
extern char soft_given[], soft_given_behind[];

static void soft_given_guest(u64 arg)
{
	guest_on(BP_VEC, soft_handler);
	guest_on(OF_VEC, soft_handler);
	guest_sync(0);
	asm volatile("soft_given: int3; soft_given_behind:" ::: "memory");
	guest_done(0);
}

TEST_F(inject, soft_exception_given)
{
	struct vcpu *v = self->v;
	struct kvm_regs r;
	u8 vec;

	for (vec = BP_VEC; vec <= OF_VEC; vec++) {
		vcpu_long(v, soft_given_guest, 0);
		vcpu_sync(v);
		exception(v, vec, false, 0);
		/* the out is over, and the exception not delivered yet */
		v->run->immediate_exit = 1;
		EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
		v->run->immediate_exit = 0;
		vcpu_get_regs(v, &r);
		r.rip = (u64)soft_given;
		vcpu_set_regs(v, &r);
		guest_var(self->vm, soft_count) = 0;
		vcpu_done(v);
		EXPECT_EQ(1, guest_var(self->vm, soft_count));
		EXPECT_EQ((u64)soft_given_behind, guest_var(self->vm, soft_rip));
		v->run->immediate_exit = 1;
		EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
		v->run->immediate_exit = 0;
	}
}

/* Real mode: the vector table at zero */
CODE16(real_irq_code,
	"movw $(1f - real_irq_code + 0x8000),0x100; movw $0,0x102\n"
	"movw $(2f - real_irq_code + 0x8000),0x8; movw $0,0xa\n"
	"sti; hlt; mov %bl,%al; out %al,$0x10\n"
	"hlt; mov %bl,%al; out %al,$0x11; hlt\n"
	"1: mov $0x40,%bl; iret\n"
	"2: mov $0x2,%bl; iret\n");

TEST_F(inject, real_mode)
{
	struct vcpu *v = self->v;

	vcpu_real(v, real_irq_code, code_size(real_irq_code));
	vcpu_expect(v, KVM_EXIT_HLT);
	EXPECT_EQ(0, interrupt(v, 0x40));
	EXPECT_EQ(0x40, *vcpu_expect_io(v, 1, 0x10, 1, 1));
	vcpu_expect(v, KVM_EXIT_HLT);
	EXPECT_EQ(0, xioctl(v->fd, KVM_NMI, 0));
	EXPECT_EQ(2, *vcpu_expect_io(v, 1, 0x11, 1, 1));
}

/* ---- events that cannot be delivered: the fault comes instead, once ---- */

static volatile u32 stack_faults;

static void gate_stack(u32 vec, u8 ist)
{
	((volatile u8 *)IDT_GPA)[vec * 16 + 4] = ist;
}

static void stack_fault_handler(struct guest_frame *f)
{
	stack_faults++;
	guest_eq(f->err & ~8UL, 2);		/* a write of the CPU's, not the user's */
	gate_stack(0x40, 0);
	gate_stack(NMI_VEC, 0);
}

static void no_stack_guest(u64 arg)
{
	guest_on(0x40, guest_count);
	guest_on(NMI_VEC, guest_count);
	guest_on(PF_VEC, stack_fault_handler);
	gate_stack(0x40, 1);
	asm volatile("int $0x40" ::: "memory");	/* again, with a stack */
	guest_eq(stack_faults, 1);
	guest_eq(guest_irqs[0x40], 1);
	gate_stack(0x40, 1);
	guest_sync(0);
	irq_on();
	asm volatile("nop; nop" ::: "memory");
	irq_off();
	guest_eq(stack_faults, 2);		/* it was acknowledged, and is lost */
	guest_eq(guest_irqs[0x40], 1);
	gate_stack(NMI_VEC, 1);
	guest_sync(1);
	asm volatile("nop" ::: "memory");
	guest_eq(stack_faults, 3);
	guest_eq(guest_irqs[NMI_VEC], 0);
	guest_sync(2);
	asm volatile("nop" ::: "memory");
	guest_eq(guest_irqs[NMI_VEC], 1);	/* the fault's IRET has let it in */
	guest_done(0);
}

TEST_F(inject, no_stack)
{
	struct kvm_sregs s;
	struct vcpu *v = self->v;

	vcpu_long(v, no_stack_guest, 0);
	*vm_split_page(self->vm, HEAP_GPA, HEAP_GPA + 0x10000) = 0;
	vcpu_get_sregs(v, &s);
	*(u64 *)((u8 *)gpa_hva(self->vm, s.tr.base) + 36) = HEAP_GPA + 0x800;	/* IST1 */
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, interrupt(v, 0x40));
	EXPECT_EQ(1, vcpu_sync(v));
	must(ioctl(v->fd, KVM_NMI));
	EXPECT_EQ(2, vcpu_sync(v));
	must(ioctl(v->fd, KVM_NMI));
	vcpu_done(v);
}

TEST_HARNESS_MAIN
