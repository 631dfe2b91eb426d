// SPDX-License-Identifier: GPL-2.0-only
/*
 * Debugging: the guest's own (TF, DR0 to DR7, INT3) and its VMM's through
 * KVM_SET_GUEST_DEBUG, which must not show in the guest.
 */
#include "test.h"

FIXTURE(debug) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(debug)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(debug)
{
	vm_free(self->vm);
}

#define DR_FUNC(n)							\
guest_always u64 read_dr##n(void)					\
{									\
	u64 v;								\
									\
	asm volatile("mov %%db" #n ",%0" : "=r"(v) :: "memory");	\
	return v;							\
}									\
guest_always void write_dr##n(u64 v)					\
{									\
	asm volatile("mov %0,%%db" #n :: "r"(v) : "memory");		\
}
DR_FUNC(0) DR_FUNC(1) DR_FUNC(2) DR_FUNC(3) DR_FUNC(6) DR_FUNC(7)

static volatile u32 nr_db;
static volatile u64 db_rip[16], db_dr6;

static void db_handler(struct guest_frame *f)
{
	if (nr_db < 16)
		db_rip[nr_db] = f->rip;
	nr_db++;
	db_dr6 = read_dr6();
	write_dr6(0xffff0ff0);
	f->rflags |= X86_EFLAGS_RF;
}

static void dr_guest(u64 arg)
{
	guest_eq(read_dr6(), 0xffff0ff0);
	guest_eq(read_dr7(), 0x400);
	write_dr0(0x1000);
	write_dr1(0x2000);
	write_dr2(0xffff800000001000UL);
	write_dr3(0x4000);
	guest_eq(read_dr0(), 0x1000);
	guest_eq(read_dr1(), 0x2000);
	guest_eq(read_dr2(), 0xffff800000001000UL);
	guest_eq(read_dr3(), 0x4000);
	guest_sync(0);
	guest_eq(read_dr0(), 0x1111);
	guest_eq(guest_try("mov %1,%%db7", "r"(1UL << 32)), GP0);
	guest_eq(guest_try("mov %1,%%db6", "r"(1UL << 32)), GP0);
	guest_done(0);
}

TEST_F(debug, registers)
{
	struct kvm_debugregs d;

	vcpu_long(self->v, dr_guest, 0);
	vcpu_sync(self->v);
	must(ioctl(self->v->fd, KVM_GET_DEBUGREGS, &d));
	EXPECT_EQ(0x1000, d.db[0]);
	EXPECT_EQ(0xffff800000001000UL, d.db[2]);
	d.db[0] = 0x1111;
	must(ioctl(self->v->fd, KVM_SET_DEBUGREGS, &d));
	vcpu_done(self->v);
}

/* TF: a trap after each instruction, exits among them or not */
static void tf_guest(u64 arg)
{
	u64 start, a;

	guest_on(DB_VEC, db_handler);
	asm volatile("lea 1f(%%rip),%0\n"
		     "pushfq; orq $0x100,(%%rsp); popfq\n"
		     "1: nop; nop; mov %%rsp,%1\n"
		     "pushfq; andq $~0x100,(%%rsp); popfq; nop"
		     : "=&r"(start), "=&r"(a) :: "memory", "cc");
	guest_eq(nr_db, 6);
	guest_eq(db_dr6 & 0x4000, 0x4000);
	guest_eq(db_rip[0], start + 1);
	guest_eq(db_rip[1], start + 2);
	guest_eq(db_rip[2], start + 5);
	guest_done(0);
}

TEST_F(debug, trap_flag)
{
	vcpu_long(self->v, tf_guest, 0);
	vcpu_done(self->v);
}

/* The trap comes after an instruction that is emulated, all the same */
static void tf_exit_guest(u64 arg)
{
	u64 start;
	u32 a = 0, b, c = 0, d;

	guest_on(DB_VEC, db_handler);
	asm volatile("lea 1f(%%rip),%0\n"
		     "pushfq; orq $0x100,(%%rsp); popfq\n"
		     "1: cpuid; nop\n"
		     "pushfq; andq $~0x100,(%%rsp); popfq; nop"
		     : "=&r"(start), "+a"(a), "=b"(b), "+c"(c), "=d"(d)
		     :: "memory", "cc");
	guest_eq(db_rip[0], start + 2);
	guest_eq(db_rip[1], start + 3);
	guest_eq(nr_db, 5);
	nr_db = 0;
	asm volatile("lea 1f(%%rip),%0\n"
		     "pushfq; orq $0x100,(%%rsp); popfq\n"
		     "1: outl %%eax,%%dx; nop\n"
		     "pushfq; andq $~0x100,(%%rsp); popfq; nop"
		     : "=&r"(start) : "a"(5), "d"(PORT_SYNC) : "memory", "cc");
	guest_eq(db_rip[0], start + 1);
	guest_eq(nr_db, 5);
	guest_done(0);
}

TEST_F(debug, trap_flag_over_exits)
{
	vcpu_long(self->v, tf_exit_guest, 0);
	EXPECT_EQ(5, vcpu_sync(self->v));
	vcpu_done(self->v);
}

/* Of a repeated instruction each iteration is a step, and all but the last leave RF for its breakpoint */
#define STEP_REP(insn, to, in) ({								\
	u64 start__, to__ = to, count__ = 5;							\
	u32 i__;										\
												\
	nr_db = 0;										\
	asm volatile("lea 1f(%%rip),%0\n"							\
		     "pushfq; orq $0x100,(%%rsp); popfq\n"					\
		     "1: rep " insn "; nop\n"							\
		     "pushfq; andq $~0x100,(%%rsp); popfq; nop"					\
		     : "=&r"(start__), "+D"(to__), "+c"(count__) : in : "memory", "cc");	\
	guest_eq(nr_db, 9);									\
	for (i__ = 0; i__ < 4; i__++)								\
		guest_eq(db_rip[i__], start__);							\
	guest_eq(db_rip[4], start__ + 2); })

static void tf_rep_guest(u64 arg)
{
	u32 i;

	guest_on(DB_VEC, db_handler);
	STEP_REP("stosb", HOLE_GPA, "a"(0x5a));
	STEP_REP("insb", HEAP_GPA, "d"(0x700));
	for (i = 0; i < 5; i++)
		guest_eq(((u8 *)HEAP_GPA)[i], 10 + i);
	guest_done(0);
}

TEST_F(debug, trap_flag_in_rep)
{
	u8 i;

	vcpu_long(self->v, tf_rep_guest, 0);
	for (i = 0; i < 5; i++)
		EXPECT_EQ(0x5a, vcpu_expect_mmio(self->v, true, HOLE_GPA + i, 1)->mmio.data[0]);
	for (i = 0; i < 5; i++)
		*(u8 *)vcpu_expect_io(self->v, KVM_EXIT_IO_IN, 0x700, 1, 1) = 10 + i;
	vcpu_done(self->v);
}

static volatile u32 watched_pair[2] __attribute__((aligned(8)));
#define watched watched_pair[0]

static void hw_guest(u64 arg)
{
	u64 rip;

	guest_on(DB_VEC, db_handler);
	/* data write, four bytes */
	write_dr0((u64)&watched);
	write_dr7(0x400 | 2 | 1UL << 16 | 3UL << 18);
	watched = 1;
	asm volatile("nop");
	guest_eq(nr_db, 1);
	guest_eq(db_dr6 & 0xf, 1);
	/* not the neighbour */
	watched_pair[1] = 0;
	guest_eq(nr_db, 1);
	/* execution, in DR1 */
	asm volatile("lea 1f(%%rip),%0; jmp 2f; 1: nop; ret; 2:" : "=r"(rip));
	write_dr0(0);
	write_dr1(rip);
	write_dr7(0x400 | 8);
	asm volatile("call *%0" :: "r"(rip) : "memory");
	guest_eq(nr_db, 2);
	guest_eq(db_dr6 & 0xf, 2);
	guest_eq(db_rip[1], rip);
	write_dr7(0x400);
	asm volatile("call *%0" :: "r"(rip) : "memory");
	guest_eq(nr_db, 2);
	guest_done(0);
}

TEST_F(debug, hardware_breakpoints)
{
	/* only a MOV to DR7 that the guest runs itself would */
	NOT_ON_TCG("VMRUN does not arm breakpoints");
	vcpu_long(self->v, hw_guest, 0);
	vcpu_done(self->v);
}

static void gd_handler(struct guest_frame *f)
{
	nr_db++;
	db_dr6 = read_dr6();		/* GD is off in here */
	f->rip += 3;			/* mov to or from db0 */
}

static void gd_guest(u64 arg)
{
	guest_on(DB_VEC, gd_handler);
	write_dr7(0x400 | 1 << 13);
	asm volatile("mov %%db0,%%rax" ::: "rax");
	guest_eq(nr_db, 1);
	guest_eq(db_dr6 & 0x2000, 0x2000);
	guest_eq(read_dr7() & 0x2000, 0);
	guest_done(0);
}

TEST_F(debug, general_detect)
{
	NOT_ON_TCG("DR7.GD does nothing");
	vcpu_long(self->v, gd_guest, 0);
	vcpu_done(self->v);
}

static void bp_guest(u64 arg)
{
	u64 rip;

	guest_on(BP_VEC, db_handler);
	asm volatile("int3; 1: lea 1b(%%rip),%0" : "=r"(rip));
	guest_eq(nr_db, 1);
	guest_eq(db_rip[0], rip);
	guest_done(0);
}

TEST_F(debug, breakpoint_of_guest)
{
	vcpu_long(self->v, bp_guest, 0);
	vcpu_done(self->v);
}

/* INT1, a trap that no descriptor's privilege is asked for */
static void int1_guest(u64 arg)
{
	u64 rip;

	guest_on(DB_VEC, db_handler);
	write_dr6(0xffff0ff0);
	asm volatile(".byte 0xf1; 1: lea 1b(%%rip),%0" : "=r"(rip));
	guest_eq(nr_db, 1);
	guest_eq(db_rip[0], rip);
	guest_eq(db_dr6 & 0xe00f, 0);
	/* and of two, two */
	asm volatile(".byte 0xf1, 0xf1; 1: lea 1b(%%rip),%0" : "=r"(rip));
	guest_eq(nr_db, 3);
	guest_eq(db_rip[1], rip - 1);
	guest_eq(db_rip[2], rip);
	/* in the shadow of STI */
	asm volatile("sti; .byte 0xf1; 1: cli; lea 1b(%%rip),%0" : "=r"(rip));
	guest_eq(nr_db, 4);
	guest_eq(db_rip[3], rip);
	guest_done(0);
}

TEST_F(debug, int1)
{
	NOT_ON_TCG("does not know INT1");
	vcpu_long(self->v, int1_guest, 0);
	vcpu_done(self->v);
}

/* ---- from outside ---- */

static void set_debug(struct vcpu *v, struct kvm_guest_debug *d)
{
	must(ioctl(v->fd, KVM_SET_GUEST_DEBUG, d));
}

static void int3_guest(u64 arg)
{
	asm volatile("int3");
	guest_done(0);
}

TEST_F(debug, software_breakpoint)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP,
	};
	struct vcpu *v = self->v;
	struct kvm_regs r;
	u64 at;

	NOT_ON_TCG("INT3 does not take the intercept of #BP");
	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG);
	vcpu_long(v, int3_guest, 0);
	set_debug(v, &d);
	vcpu_expect(v, KVM_EXIT_DEBUG);
	EXPECT_EQ(BP_VEC, v->run->debug.arch.exception);
	at = v->run->debug.arch.pc;
	vcpu_get_regs(v, &r);
	EXPECT_EQ(at, r.rip);
	EXPECT_EQ(0xcc, *(u8 *)at);
	/* not ours after all: give it to the guest */
	d.control |= KVM_GUESTDBG_INJECT_BP;
	guest_var(self->vm, guest_handlers)[BP_VEC] = guest_count;
	set_debug(v, &d);
	d.control = 0;
	set_debug(v, &d);
	vcpu_done(v);
	EXPECT_EQ(1, guest_var(self->vm, guest_irqs)[BP_VEC]);
}

static void int1_outside_guest(u64 arg)
{
	guest_on(DB_VEC, db_handler);
	asm volatile(".byte 0xf1; int1_behind: nop");
	guest_eq(nr_db, 1);
	guest_eq(db_rip[0], arg);
	guest_done(0);
}
extern char int1_behind[];

/* A VMM that takes #DBs gets this one, too; what it gives to the guest then comes once */
TEST_F(debug, int1_from_outside)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, .arch.debugreg = { [7] = 0x400 },
	};
	struct vcpu *v = self->v;
	struct kvm_regs r;

	NOT_ON_TCG("does not know INT1");
	if (guest_is_amd())
		SKIP(return, "the intercept of #DB does not take it on SVM");
	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG);
	vcpu_long(v, int1_outside_guest, (u64)int1_behind);
	set_debug(v, &d);
	vcpu_expect(v, KVM_EXIT_DEBUG);
	EXPECT_EQ(DB_VEC, v->run->debug.arch.exception);
	EXPECT_EQ(0, v->run->debug.arch.dr6 & 0xe00f);
	EXPECT_EQ((u64)int1_behind, v->run->debug.arch.pc);
	vcpu_get_regs(v, &r);
	EXPECT_EQ((u64)int1_behind, r.rip);
	d.control |= KVM_GUESTDBG_INJECT_DB;
	set_debug(v, &d);
	d.control = 0;
	set_debug(v, &d);
	vcpu_done(v);
}

extern char bp_given[];
static void given_bp_guest(u64 arg)
{
	guest_sync(0);
	asm volatile("bp_given: int3" ::: "memory");
	guest_done(0);
}

static volatile u64 bp_rip;

static void bp_handler(struct guest_frame *f)
{
	bp_rip = f->rip;
	guest_irqs[f->vec]++;
}

/* One that no exit told of: of the INT3 that RIP is at by then, whenever the VMM put it there */
TEST_F(debug, given_breakpoint)
{
	struct kvm_guest_debug d = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP };
	struct vcpu *v = self->v;
	struct kvm_regs r;

	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG);
	vcpu_long(v, given_bp_guest, 0);
	guest_var(self->vm, guest_handlers)[BP_VEC] = bp_handler;
	vcpu_sync(v);
	vcpu_get_regs(v, &r);
	set_debug(v, &d);
	r.rip = (u64)bp_given;
	vcpu_set_regs(v, &r);
	vcpu_get_regs(v, &r);
	EXPECT_EQ((u64)bp_given, r.rip);
	d.control = 0;
	set_debug(v, &d);
	vcpu_done(v);
	EXPECT_EQ(1, guest_var(self->vm, guest_irqs)[BP_VEC]);
	EXPECT_EQ((u64)bp_given + 1, guest_var(self->vm, bp_rip));
}

static void step_guest(u64 arg)
{
	u32 a = 0, b, c = 0, d;

	asm volatile("step_start: nop; nop\n"
		     "cpuid\n"
		     "inc %%eax; dec %%eax\n"
		     "step_end: nop"
		     : "+a"(a), "=b"(b), "+c"(c), "=d"(d) :: "memory");
	guest_done(0);
}
extern char step_start[], step_end[];

TEST_F(debug, single_step)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
	};
	struct vcpu *v = self->v;
	struct kvm_regs r;
	u64 last = 0;
	int i, n = 0;

	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG);
	/* Once before, so that all of it is mapped: Bochs takes a step for done that exits with an EPT violation. */
	vcpu_long(v, step_guest, 0);
	vcpu_done(v);
	vcpu_long(v, step_guest, 0);
	set_debug(v, &d);
	for (i = 0; i < 100; i++) {
		vcpu_expect(v, KVM_EXIT_DEBUG);
		EXPECT_EQ(DB_VEC, v->run->debug.arch.exception);
		EXPECT_TRUE(v->run->debug.arch.dr6 & 0x4000);
		vcpu_get_regs(v, &r);
		EXPECT_EQ(v->run->debug.arch.pc, r.rip);
		EXPECT_EQ(0, r.rflags & X86_EFLAGS_TF);
		ASSERT_NE(last, r.rip);
		last = r.rip;
		/* flags written back without TF do not end it: KVM_CAP_X86_ROBUST_SINGLESTEP */
		if (i % 2) {
			set_debug(v, &d);
			vcpu_set_regs(v, &r);
		}
		if (r.rip > (u64)step_start && r.rip <= (u64)step_end)
			n++;
		if (r.rip == (u64)step_end)
			break;
	}
	EXPECT_EQ(5, n);	/* two NOPs, CPUID, INC, DEC */
	d.control = 0;
	set_debug(v, &d);
	vcpu_done(v);
}

static void asking_handler(struct guest_frame *f)
{
	guest_sync(f->vec);	/* KVM_RUN ends in the middle of it */
	guest_irqs[f->vec]++;
}

static void handled_guest(u64 arg)
{
	asm volatile("handled_start: nop; handled_end: nop; cli" ::: "memory");
	guest_done(0);
}
extern char handled_start[], handled_end[];

/* An interrupt that is in delivery goes first; its handler is no step, whatever ends KVM_RUN in it. */
TEST_F(debug, step_over_handler)
{
	struct kvm_guest_debug d = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP }, off = { };
	struct kvm_vcpu_events e;
	struct vcpu *v = self->v;
	struct kvm_regs r;
	int round;

	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG);
	/* Twice, as above. */
	for (round = 0; round < 2; round++) {
		vcpu_long(v, handled_guest, 0);
		guest_var(self->vm, guest_handlers)[0x55] = asking_handler;
		guest_var(self->vm, guest_irqs)[0x55] = 0;
		vcpu_get_regs(v, &r);
		r.rip = (u64)handled_start;
		r.rflags |= X86_EFLAGS_IF;
		vcpu_set_regs(v, &r);
		if (round)
			set_debug(v, &d);
		must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
		e.interrupt.injected = 1;
		e.interrupt.nr = 0x55;
		must(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e));
		EXPECT_EQ(0x55, vcpu_sync(v));
		/* VMMs that look at registers give them back. */
		vcpu_get_regs(v, &r);
		vcpu_set_regs(v, &r);
		if (round) {
			vcpu_expect(v, KVM_EXIT_DEBUG);
			EXPECT_EQ((u64)handled_end, v->run->debug.arch.pc);
			EXPECT_EQ(1, guest_var(self->vm, guest_irqs)[0x55]);
			/* As does the next step, from there. */
			vcpu_expect(v, KVM_EXIT_DEBUG);
			EXPECT_EQ((u64)handled_end + 1, v->run->debug.arch.pc);
			set_debug(v, &off);
		}
		vcpu_done(v);
		EXPECT_EQ(1, guest_var(self->vm, guest_irqs)[0x55]);
	}
}

static void blocked_guest(u64 arg)
{
	apic_on();
	guest_on(0x55, guest_count_eoi);
	apic_icr(0, 0x40000 | 0x55);
	guest_sync(0);
	asm volatile("sti; nop\nblocked_start: nop; nop\nblocked_end: nop" ::: "memory");
	guest_eq(guest_irqs[0x55], 1);
	guest_done(0);
}
extern char blocked_start[], blocked_end[];

/* An interrupt that waits does not come between the steps of a VMM that asked for that, but afterwards */
TEST_F(debug, interrupts_blocked)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ,
	}, off = { };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	int i, n, round;
	u64 pc = 0;

	NEED_CAP(vm, KVM_CAP_SET_GUEST_DEBUG2);
	/* Twice, as above. */
	for (round = 0; round < 2; round++) {
		vcpu_long(v, blocked_guest, 0);
		guest_var(vm, guest_irqs)[0x55] = 0;
		EXPECT_EQ(0, vcpu_sync(v));
		if (round)
			set_debug(v, &d);
		for (i = n = 0; round && i < 100 && pc != (u64)blocked_end; i++) {
			vcpu_expect(v, KVM_EXIT_DEBUG);
			pc = v->run->debug.arch.pc;
			n += pc > (u64)blocked_start && pc <= (u64)blocked_end;
		}
		EXPECT_EQ(round * 2, n);
		EXPECT_EQ(0, guest_var(vm, guest_irqs)[0x55]);
		if (round)
			set_debug(v, &off);
		vcpu_done(v);
		EXPECT_EQ(1, guest_var(vm, guest_irqs)[0x55]);
	}
	vm_free(vm);
}

static void self_ipi_guest(u64 arg)
{
	x2apic_on();
	guest_on(0x55, guest_count_eoi);
	irq_on();
	guest_sync(0);
	asm volatile("wrmsr; self_ipi_end: nop; nop" :: "a"(0x55), "d"(0), "c"(0x83f) : "memory");
	guest_done(0);
}
extern char self_ipi_end[];

/* One that comes with the instruction stepped over waits where it is, and has not left the LAPIC when its VMM looks */
TEST_F(debug, interrupt_not_begun)
{
	struct kvm_guest_debug d = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP }, off = { };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_vcpu_events e;
	struct kvm_lapic_state l;
	int i, round;

	NEED_CAP(vm, KVM_CAP_SET_GUEST_DEBUG);
	/* Twice, as above. */
	for (round = 0; round < 2; round++) {
		vcpu_long(v, self_ipi_guest, 0);
		guest_var(vm, guest_irqs)[0x55] = 0;
		EXPECT_EQ(0, vcpu_sync(v));
		if (round) {
			set_debug(v, &d);
			for (i = 0; i < 100 && v->run->debug.arch.pc != (u64)self_ipi_end; i++)
				vcpu_expect(v, KVM_EXIT_DEBUG);
			EXPECT_EQ((u64)self_ipi_end, v->run->debug.arch.pc);
			must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
			EXPECT_EQ(0, e.interrupt.injected);
			must(ioctl(v->fd, KVM_GET_LAPIC, &l));
			EXPECT_EQ(0, *(u32 *)&l.regs[0x120]);		/* in service */
			EXPECT_EQ(1 << (0x55 % 32), *(u32 *)&l.regs[0x220]);	/* requested */
			EXPECT_EQ(0, guest_var(vm, guest_irqs)[0x55]);
			set_debug(v, &off);
		}
		vcpu_done(v);
		EXPECT_EQ(1, guest_var(vm, guest_irqs)[0x55]);
	}
	vm_free(vm);
}

static void hw_outside_guest(u64 arg)
{
	guest_eq(read_dr7(), 0x400);
	asm volatile("hw_here: nop; nop");
	guest_eq(read_dr0(), 0);
	guest_eq(read_dr7(), 0x400);
	watched = 3;
	asm volatile("nop; hw_after: nop");
	guest_done(0);
}
extern char hw_here[], hw_after[];

/* The VMM's hardware breakpoints take the guest's place, unseen */
TEST_F(debug, hardware_breakpoint_from_outside)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
		.arch.debugreg = { [0] = (u64)hw_here, [7] = 0x402 },
	};
	struct vcpu *v = self->v;
	struct kvm_debugregs g;

	NOT_ON_TCG("VMRUN does not arm breakpoints");
	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG);
	vcpu_long(v, hw_outside_guest, 0);
	set_debug(v, &d);
	vcpu_expect(v, KVM_EXIT_DEBUG);
	EXPECT_EQ((u64)hw_here, v->run->debug.arch.pc);
	EXPECT_EQ(1, v->run->debug.arch.dr6 & 0xf);
	must(ioctl(v->fd, KVM_GET_DEBUGREGS, &g));
	EXPECT_EQ(0, g.db[0]);
	EXPECT_EQ(0x400, g.dr7);
	/* a watchpoint, now */
	d.arch.debugreg[0] = 0;
	d.arch.debugreg[1] = (u64)&watched;
	d.arch.debugreg[7] = 0x408 | 0xdUL << 20;
	set_debug(v, &d);
	vcpu_expect(v, KVM_EXIT_DEBUG);
	EXPECT_EQ(2, v->run->debug.arch.dr6 & 0xf);
	EXPECT_LE((u64)hw_here, v->run->debug.arch.pc);
	EXPECT_GE((u64)hw_after, v->run->debug.arch.pc);
	d.control = 0;
	set_debug(v, &d);
	vcpu_done(v);
}

TEST_F(debug, injection_while_pending)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB,
	};
	struct vcpu *v = self->v;

	NEED_CAP(self->vm, KVM_CAP_SET_GUEST_DEBUG);
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_SET_GUEST_DEBUG, 8));
	vcpu_long(v, bp_guest, 0);
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_GUEST_DEBUG, &d));
	EXPECT_EQ(-EBUSY, xioctl(v->fd, KVM_SET_GUEST_DEBUG, &d));
}

TEST_HARNESS_MAIN
