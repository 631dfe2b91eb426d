// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control-flow enforcement in guests: shadow stacks and indirect branch
 * tracking of user mode, their exceptions, their MSRs and who may write what
 * there; that a guest's are neither another's nor the host's; that they survive
 * exits, a state that is moved, a snapshot and system management mode; and that
 * nothing is emulated beside them.
 */
#include "test.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "snap.h"

#define CP_VEC		21
#define NEAR_RET	1	/* error codes of #CP */
#define ENDBRANCH	3
#define CP(err)		fault(CP_VEC, err)

#define SHSTK		(1U << 7)	/* CPUID leaf 7, ECX */
#define IBT		(1U << 20)	/* and EDX */

#define TABLE_GPA	0x200000UL	/* splits the first pages of the heap */
#define SHADOW(id)	(HEAP_GPA + 0x1000UL * (1 + (id)))	/* a page a vCPU */
#define SHADOW_TOP(id)	(SHADOW(id) + 0x1000)
#define SPARE		(HEAP_GPA + 0x20000)	/* an ordinary page */
#define STACK_TOP(id)	(HEAP_GPA + 0x40000 + 0x4000UL * (1 + (id)))
#define FRESH		(HEAP_GPA + 0x600000)	/* nobody has been there */
#define PTE_SHADOW	0x65UL		/* present, user, accessed, dirty, and not writable */

FIXTURE(cet) {
	struct vm *vm;
	struct vcpu *v;
};

static u32 offers(struct vm *vm, u32 what)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 7, 0);

	return e ? (what == SHSTK ? e->ecx : e->edx) & what : 0;
}

static struct vm *new_vm(enum vm_kind kind)
{
	struct vm *vm = vm_new(kind);
	u64 *pte;
	int i;

	vm_image(vm);
	pte = vm_split_page(vm, HEAP_GPA, TABLE_GPA);
	for (i = 0; i < 4; i++)
		pte[1 + i] = SHADOW(i) | PTE_SHADOW;
	return vm;
}

FIXTURE_SETUP(cet)
{
	self->vm = new_vm(VM_IRQCHIP);
	if (!offers(self->vm, SHSTK) && !offers(self->vm, IBT))
		SKIP_FIXTURE("no control-flow enforcement for guests here");
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(cet)
{
	vm_free(self->vm);
}

#define NEED(what)							\
	if (!offers(self->vm, what))					\
		SKIP(return, "no " #what)

/* ---- guests ---- */

guest_always u64 rdssp(void)
{
	u64 v = 0;

	asm volatile("rdsspq %0" : "+r"(v));
	return v;
}

static void (*volatile user_fn)(u64 arg);
static volatile u64 user_cet;

/* What is waited for after an indirect branch stays so over the exception: it is to go on where R10 says */
static void no_endbr(struct guest_frame *f)
{
	wrmsr(MSR_IA32_U_CET, rdmsr(MSR_IA32_U_CET) & ~(u64)CET_WAIT_ENDBR);
	f->r11 = f->vec | f->err << 8;
	f->rip = f->r10;
}

/* In user mode, with I/O; segments of the kernel are gone there */
static void in_user(u64 id)
{
	write_cr4(read_cr4() | X86_CR4_CET);
	wrmsr(MSR_IA32_U_CET, user_cet);
	if (user_cet & CET_ENDBR_EN)
		guest_on(CP_VEC, no_endbr);
	if (user_cet & CET_SHSTK_EN)
		wrmsr(MSR_IA32_PL3_SSP, SHADOW_TOP(id));
	asm volatile("pushq %0\n pushq %1\n pushq $0x3002\n pushq %2\n pushq %3\n iretq"
		     :: "i"(SEL_UDATA), "r"(STACK_TOP(id) - 8), "i"(SEL_UCODE64), "r"(user_fn), "D"(id) : "memory");
	__builtin_unreachable();
}

static void start(struct vcpu *v, void (*fn)(u64 arg), u64 cet)
{
	guest_var(v->vm, user_fn) = fn;
	guest_var(v->vm, user_cet) = cet;
	vcpu_long(v, in_user, v->id);
}

#define DEPTH	6
static volatile u64 ssp_now;

/* Exits of both kinds, calls and returns in between */
static __attribute__((noinline)) u64 nest(u64 left)
{
	u64 ssp = rdssp(), sum;
	u32 r[4];

	guest_eq(*(u64 *)ssp, (u64)__builtin_return_address(0));
	cpuid(0, 0, r);
	ssp_now = ssp;
	guest_sync(left);
	guest_eq(rdssp(), ssp);
	if (!left)
		return 1;
	sum = 1 + nest(left - 1);
	guest_eq(rdssp(), ssp);
	cpuid(0, 0, r);
	guest_eq(rdssp(), ssp);
	return sum;
}

static void nesting(u64 id)
{
	u64 r;

	guest_eq(rdssp(), SHADOW_TOP(id));
	for (;;) {
		r = nest(DEPTH - 1);
		guest_eq(rdssp(), SHADOW_TOP(id));
		guest_eq(r, DEPTH);
		guest_sync(100 + r);
	}
}

/* To the bottom and back */
static void nests(struct __test_metadata *_metadata, struct vcpu *v, int from)
{
	int i;

	for (i = from; i >= 0; i--)
		EXPECT_EQ(i, vcpu_sync(v));
	EXPECT_EQ(100 + DEPTH, vcpu_sync(v));
}

TEST_F(cet, calls)
{
	NEED(SHSTK);
	start(self->v, nesting, CET_SHSTK_EN);
	nests(_metadata, self->v, DEPTH - 1);
	nests(_metadata, self->v, DEPTH - 1);
}

/* A return address that is not the one that was pushed; the second's exception is delivered on a page that faults first */
guest_always long wrong_return(void)
{
	register long r11 asm("r11");

	asm volatile("movq $-1,%%r11\n"
		     "call 3f\n"
		     "jmp 4f\n"
		     "3: leaq 4f(%%rip),%%rax\n"
		     "movq %%rax,(%%rsp)\n"
		     "1: ret\n"
		     "2: addq $8,%%rsp\n"
		     "movq $1,%%rax\n"
		     "incsspq %%rax\n"
		     "4:\n"
		     ".pushsection guest_ex,\"a\"\n.quad 1b,2b\n.popsection"
		     : "=&r"(r11) :: "rax", "memory", "cc");
	return r11;
}

static void returning_wrong(u64 id)
{
	guest_eq(wrong_return(), CP(NEAR_RET));
	guest_eq(rdssp(), SHADOW_TOP(id));
	guest_eq(wrong_return(), CP(NEAR_RET));
	guest_eq(rdssp(), SHADOW_TOP(id));
	guest_done(0);
}

TEST_F(cet, wrong_return)
{
	NEED(SHSTK);
	start(self->v, returning_wrong, CET_SHSTK_EN);
	*(u64 *)((u8 *)gpa_hva(self->vm, CPU_GPA + 0x100) + 4) = FRESH;	/* RSP0 */
	vcpu_done(self->v);
}

/* As longjmp() does */
static volatile u64 jump_to[4];		/* RSP, RIP, SSP, RBP */

static __attribute__((noinline)) void jump_from(u64 left)
{
	if (left) {
		jump_from(left - 1);
		asm volatile("" ::: "memory");
		return;
	}
	guest_sync(7);
	asm volatile("incsspq %0\n movq %3,%%rbp\n movq %1,%%rsp\n jmp *%2"
		     :: "r"((jump_to[2] - rdssp()) / 8), "r"(jump_to[0]), "r"(jump_to[1]), "r"(jump_to[3]) : "memory");
}

static __attribute__((noinline)) void jumper(void)
{
	jump_to[2] = rdssp();
	asm volatile("leaq 1f(%%rip),%%rax\n movq %%rax,8+%0\n movq %%rsp,%0\n movq %%rbp,24+%0\n"
		     "movq $9,%%rdi\n call *%1\n ud2\n 1:\n"
		     : "+m"(jump_to[0]) : "r"(jump_from)
		     : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
	guest_eq(rdssp(), jump_to[2]);
	asm volatile("" ::: "memory");
}

static void jumping(u64 id)
{
	int i;

	for (i = 0; i < 20; i++) {
		jumper();
		guest_eq(rdssp(), SHADOW_TOP(id));
	}
	guest_done(0);
}

TEST_F(cet, jump)
{
	int i;

	NEED(SHSTK);
	start(self->v, jumping, CET_SHSTK_EN);
	for (i = 0; i < 20; i++)
		EXPECT_EQ(7, vcpu_sync(self->v));
	vcpu_done(self->v);
}

/* Who may write where: error code bits are present, write, user, shadow stack */
static void writing(u64 id)
{
	u64 at = SHADOW(id) + 64;

	guest_eq(guest_try("movq %2,(%1)", "r"(at), "r"(1UL)), fault(PF_VEC, 7));
	guest_eq(guest_try("wrssq %2,(%1)", "r"(at), "r"(0x1234UL)), NO_FAULT);
	guest_eq(*(volatile u64 *)at, 0x1234);
	guest_eq(guest_try("wrssq %2,(%1)", "r"(SPARE), "r"(1UL)), fault(PF_VEC, 0x47));
	guest_eq(guest_try("wrussq %2,(%1)", "r"(at), "r"(1UL)), GP0);
	guest_done(0);
}

static void not_writing(u64 id)
{
	guest_eq(guest_try("wrssq %2,(%1)", "r"(SHADOW(id) + 64), "r"(1UL)), UD);
	guest_done(0);
}

static void kernel_writing(u64 id)
{
	u64 at = SHADOW(id) + 128;

	guest_eq(guest_try("wrussq %2,(%1)", "r"(at), "r"(1UL)), UD);
	write_cr4(read_cr4() | X86_CR4_CET);
	guest_eq(guest_try("wrussq %2,(%1)", "r"(at), "r"(0x5678UL)), NO_FAULT);
	guest_eq(*(volatile u64 *)at, 0x5678);
	guest_eq(guest_try("wrussq %2,(%1)", "r"(SPARE), "r"(1UL)), fault(PF_VEC, 0x47));
	guest_eq(guest_try("movq %2,(%1)", "r"(at), "r"(1UL)), fault(PF_VEC, 3));
	guest_done(0);
}

TEST_F(cet, writes)
{
	NEED(SHSTK);
	start(self->v, writing, CET_SHSTK_EN | CET_WRSS_EN);
	vcpu_done(self->v);
	start(self->v, not_writing, CET_SHSTK_EN);
	vcpu_done(self->v);
	vcpu_long(self->v, kernel_writing, 0);
	vcpu_done(self->v);
}

/* What is behind a label that is no ENDBR faults when a branch gets there, without notice */
#define BRANCH(how, target) ({						\
	register long r11__ asm("r11");					\
	asm volatile("movq $-1,%%r11\n"					\
		     "leaq 1f(%%rip),%%rax\n"				\
		     "leaq 2f(%%rip),%%r10\n"				\
		     how " *%%rax\n"					\
		     "ud2\n"						\
		     "1: " target "\n"					\
		     "2:\n"						\
		     : "=&r"(r11__) :: "rax", "r10", "memory", "cc");		\
	r11__; })

static void branching(u64 id)
{
	guest_eq(BRANCH("jmp", "nop"), CP(ENDBRANCH));
	guest_eq(BRANCH("jmp", "endbr64"), NO_FAULT);
	guest_eq(BRANCH("jmp", "endbr32"), CP(ENDBRANCH));
	guest_eq(BRANCH("notrack jmp", "nop"), user_cet & CET_NO_TRACK_EN ? NO_FAULT : CP(ENDBRANCH));
	/* an instruction that exits is none, either */
	guest_eq(BRANCH("jmp", "cpuid\n xorl %%ebx,%%ebx"), CP(ENDBRANCH));
	guest_done(0);
}

TEST_F(cet, branches)
{
	NEED(IBT);
	start(self->v, branching, CET_ENDBR_EN);
	vcpu_done(self->v);
	start(self->v, branching, CET_ENDBR_EN | CET_NO_TRACK_EN);
	vcpu_done(self->v);
}

/* ---- what is emulated ---- */

static void calling_device(u64 id)
{
	guest_eq(mmio_read32(HOLE_GPA), 0x1234);
	asm volatile("call *(%0)" :: "r"(HOLE_GPA) : "memory");
}

static void jumping_device(u64 id)
{
	asm volatile("jmp *(%0)" :: "r"(HOLE_GPA) : "memory");
}

static void far_device(u64 id)
{
	asm volatile("ljmp *(%0)" :: "r"(HOLE_GPA) : "memory");
}

static void refused(struct __test_metadata *_metadata, struct vcpu *v)
{
	vcpu_expect(v, KVM_EXIT_INTERNAL_ERROR);
	EXPECT_EQ(KVM_INTERNAL_ERROR_EMULATION, v->run->internal.suberror);
}

TEST_F(cet, not_emulated)
{
	struct vcpu *v = self->v;

	NEED_CAP(self->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE);
	must(vm_enable_cap(self->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1));
	if (offers(self->vm, SHSTK)) {
		start(v, calling_device, CET_SHSTK_EN);
		*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA, 4)->mmio.data = 0x1234;
		refused(_metadata, v);
		start(v, far_device, CET_SHSTK_EN);
		refused(_metadata, v);
	}
	if (offers(self->vm, IBT)) {
		start(v, jumping_device, CET_ENDBR_EN);
		refused(_metadata, v);
	}
	/* and without, it is */
	start(v, jumping_device, 0);
	vcpu_expect_mmio(v, false, HOLE_GPA, 8);
}

/* ---- MSRs ---- */

static const struct msr_case {
	u32 msr;
	u64 val;
	bool bad;
	u64 needs;		/* SHSTK, IBT */
} msr_cases[] = {
	{ MSR_IA32_U_CET, CET_SHSTK_EN | CET_WRSS_EN, false, SHSTK },
	{ MSR_IA32_U_CET, CET_ENDBR_EN | CET_LEG_IW_EN | CET_NO_TRACK_EN | CET_SUPPRESS_DISABLE, false, IBT },
	{ MSR_IA32_U_CET, CET_ENDBR_EN | CET_SUPPRESS, false, IBT },
	{ MSR_IA32_U_CET, CET_ENDBR_EN | CET_WAIT_ENDBR, false, IBT },
	{ MSR_IA32_U_CET, CET_ENDBR_EN | CET_SUPPRESS | CET_WAIT_ENDBR, true, IBT },
	{ MSR_IA32_U_CET, 1 << 6, true, 0 },
	{ MSR_IA32_U_CET, 1 << 9, true, 0 },
	{ MSR_IA32_U_CET, 0x7fff12345000, false, IBT },
	{ MSR_IA32_U_CET, 0x123456789a000000, true, IBT },
	{ MSR_IA32_U_CET, 0, false, 0 },
	{ MSR_IA32_S_CET, CET_WRSS_EN, false, SHSTK },
	{ MSR_IA32_S_CET, 1 << 7, true, 0 },
	{ MSR_IA32_S_CET, 0x8000000000000000, true, 0 },
	{ MSR_IA32_S_CET, 0, false, 0 },
	{ MSR_IA32_PL0_SSP, 0xffff800000001000, false, SHSTK },
	{ MSR_IA32_PL0_SSP, 0x8000000000001000, true, SHSTK },
	{ MSR_IA32_PL1_SSP, 0x1004, false, SHSTK },
	{ MSR_IA32_PL2_SSP, 0x1002, true, SHSTK },
	{ MSR_IA32_PL3_SSP, 0x7ffff0f8, false, SHSTK },
	{ MSR_IA32_PL3_SSP, 0x7ffff0f9, true, SHSTK },
	{ MSR_IA32_PL3_SSP, 0x01f0000000000000, true, SHSTK },
	{ MSR_IA32_INT_SSP_TAB, 0xffff800000000123, false, SHSTK },
	{ MSR_IA32_INT_SSP_TAB, 0x0100000000000000, true, SHSTK },
};

static volatile u64 told;	/* of these the guest's CPUID tells */

static void msr_guest(u64 arg)
{
	u64 was, is;
	u32 i;

	for (i = 0; i < sizeof(msr_cases) / sizeof(*msr_cases); i++) {
		const struct msr_case *c = &msr_cases[i];
		bool bad = c->bad || (told & c->needs) != c->needs;

		if (rdmsr_try(c->msr, &was) != NO_FAULT) {
			guest_eq(told & SHSTK, 0);
			guest_assert(c->msr != MSR_IA32_U_CET && c->msr != MSR_IA32_S_CET);
			guest_eq(wrmsr_try(c->msr, 0), GP0);
			continue;
		}
		if (wrmsr_try(c->msr, c->val) != (bad ? GP0 : NO_FAULT))
			guest_fail("case", i, c->msr, c->val);
		guest_eq(rdmsr(c->msr), bad ? was : c->val);
	}
	for (i = 0; i < sizeof(msr_cases) / sizeof(*msr_cases); i++)
		if (!rdmsr_try(msr_cases[i].msr, &is))
			wrmsr(msr_cases[i].msr, 0);
	guest_done(0);
}

/* Not to be asked for: that it is there has every access exit */
static int no_msr_is_open(struct vm *vm)
{
	static u8 bits[1] = { 0xff };
	struct kvm_msr_filter f = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = { .flags = KVM_MSR_FILTER_READ, .nmsrs = 8, .base = MSR_LSTAR, .bitmap = bits },
	};

	return xioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &f);
}

static void check_msrs(struct vcpu *v, u64 tells)
{
	guest_var(v->vm, told) = tells;
	vcpu_long(v, msr_guest, 0);
	vcpu_done(v);
}

TEST_F(cet, msrs)
{
	u64 all = offers(self->vm, SHSTK) | offers(self->vm, IBT);

	check_msrs(self->v, all);
	ASSERT_EQ(0, no_msr_is_open(self->vm));
	check_msrs(self->v, all);
}

/* One of the two, of a CPU that has both; and neither */
TEST_F(cet, msrs_told)
{
	struct kvm_cpuid_entry2 *leaf7 = cpuid_find(self->vm->cpuid, 7, 0);
	u32 shstk = offers(self->vm, SHSTK), ibt = offers(self->vm, IBT);
	struct kvm_sregs s;
	struct vcpu *v;
	u64 val;

	leaf7->edx &= ~IBT;
	if (shstk)
		check_msrs(vcpu_new(self->vm, 1), SHSTK);
	leaf7->edx |= ibt;
	leaf7->ecx &= ~SHSTK;
	if (ibt)
		check_msrs(vcpu_new(self->vm, 2), IBT);
	leaf7->edx &= ~IBT;
	v = vcpu_new(self->vm, 3);
	/* a VMM may put back what it has read */
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_U_CET, &val));
	EXPECT_EQ(0, val);
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_U_CET, 0));
	EXPECT_NE(1, vcpu_set_msr(v, MSR_IA32_U_CET, CET_SHSTK_EN));
	EXPECT_NE(1, vcpu_set_msr(v, MSR_IA32_PL0_SSP, 0x1000));
	vcpu_get_sregs(v, &s);
	s.cr4 |= X86_CR4_CET;
	s.cr0 |= X86_CR0_WP;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_SREGS, &s));
}

TEST_F(cet, msrs_of_vmm)
{
	u32 i;

	for (i = 0; i < sizeof(msr_cases) / sizeof(*msr_cases); i++) {
		const struct msr_case *c = &msr_cases[i];
		bool bad = c->bad || ((offers(self->vm, SHSTK) | offers(self->vm, IBT)) & c->needs) != c->needs;
		u64 was, is;

		if (vcpu_get_msr(self->v, c->msr, &was) != 1)
			continue;
		EXPECT_EQ(!bad, vcpu_set_msr(self->v, c->msr, c->val) == 1) TH_LOG("case %u", i);
		EXPECT_EQ(1, vcpu_get_msr(self->v, c->msr, &is));
		EXPECT_EQ(bad ? was : c->val, is);
	}
}

/* CR4.CET goes with CR0.WP */
static void cr_guest(u64 arg)
{
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	guest_assert(cr0 & X86_CR0_WP);
	write_cr0(cr0 & ~(u64)X86_CR0_WP);
	guest_eq(guest_try("mov %1,%%cr4", "r"(cr4 | X86_CR4_CET)), GP0);
	write_cr0(cr0);
	guest_eq(guest_try("mov %1,%%cr4", "r"(cr4 | X86_CR4_CET)), NO_FAULT);
	guest_eq(read_cr4(), cr4 | X86_CR4_CET);
	guest_eq(guest_try("mov %1,%%cr0", "r"(cr0 & ~(u64)X86_CR0_WP)), GP0);
	guest_eq(read_cr0(), cr0);
	write_cr4(cr4);
	write_cr0(cr0 & ~(u64)X86_CR0_WP);
	write_cr0(cr0);
	guest_done(0);
}

TEST_F(cet, control_registers)
{
	struct kvm_sregs s;

	vcpu_long(self->v, cr_guest, 0);
	vcpu_done(self->v);
	vcpu_get_sregs(self->v, &s);
	s.cr4 |= X86_CR4_CET;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_SREGS, &s));
	s.cr0 &= ~(u64)X86_CR0_WP;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_SREGS, &s));
}

/* XSAVES and XRSTORS have the same registers: the header, then U_CET and PL3_SSP */
static volatile u8 xsave_area[4096] __attribute__((aligned(64)));

static void xsaves_guest(u64 xss)
{
	volatile u64 *p = (void *)(xsave_area + 576), *header = (void *)(xsave_area + 512);

	guest_eq(wrmsr_try(MSR_IA32_XSS, 1UL << 63), GP0);
	guest_eq(rdmsr(MSR_IA32_XSS), 0);
	wrmsr(MSR_IA32_XSS, xss);
	guest_eq(rdmsr(MSR_IA32_XSS), xss);
	write_cr4(read_cr4() | (1 << 18));	/* OSXSAVE */
	wrmsr(MSR_IA32_U_CET, CET_SHSTK_EN);
	wrmsr(MSR_IA32_PL3_SSP, 0x12345678);
	asm volatile("xsaves64 (%0)" :: "r"(xsave_area), "a"(1 << 11), "d"(0) : "memory");
	guest_eq(header[0], 1 << 11);
	guest_eq(header[1], 1UL << 63 | 1 << 11);
	guest_eq(p[0], CET_SHSTK_EN);
	guest_eq(p[1], 0x12345678);
	p[1] = 0x87654320;
	guest_sync(1);
	asm volatile("xrstors64 (%0)" :: "r"(xsave_area), "a"(1 << 11), "d"(0) : "memory");
	guest_eq(rdmsr(MSR_IA32_PL3_SSP), 0x87654320);
	guest_sync(2);
	guest_eq(rdmsr(MSR_IA32_PL3_SSP), 0x87654320);
	wrmsr(MSR_IA32_U_CET, 0);
	guest_done(0);
}

TEST_F(cet, xsaves)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 0xd, 1);
	u64 val;

	NEED(SHSTK);
	if (!e || !(e->eax & 8))
		SKIP(return, "no XSAVES");
	ASSERT_EQ(3 << 11, e->ecx & 3 << 11);
	EXPECT_EQ(1, cpuid_find(self->vm->cpuid, 0xd, 11)->ecx & 1);
	EXPECT_EQ(16, cpuid_find(self->vm->cpuid, 0xd, 11)->eax);
	EXPECT_EQ(24, cpuid_find(self->vm->cpuid, 0xd, 12)->eax);
	vcpu_long(self->v, xsaves_guest, 3 << 11);
	EXPECT_EQ(1, vcpu_sync(self->v));
	EXPECT_EQ(2, vcpu_sync(self->v));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_PL3_SSP, &val));
	EXPECT_EQ(0x87654320, val);
	vcpu_done(self->v);
}

/* ---- events ---- */

static volatile u64 cp_error;

static void cp_handler(struct guest_frame *f)
{
	cp_error = f->err;
}

static void cp_guest(u64 arg)
{
	guest_on(CP_VEC, cp_handler);
	guest_sync(0);
	guest_eq(cp_error, 5);
	guest_done(0);
}

TEST_F(cet, injected)
{
	struct kvm_vcpu_events e;

	vcpu_long(self->v, cp_guest, 0);
	vcpu_sync(self->v);
	vcpu_settle(self->v);
	must(ioctl(self->v->fd, KVM_GET_VCPU_EVENTS, &e));
	e.exception.injected = 1;
	e.exception.nr = CP_VEC;
	e.exception.has_error_code = 1;
	e.exception.error_code = 5;
	ASSERT_EQ(0, xioctl(self->v->fd, KVM_SET_VCPU_EVENTS, &e));
	vcpu_done(self->v);
}

/* ---- whose they are ---- */

static u64 own_value(u64 id, u32 i)
{
	return i == 0 ? (id & 1 ? CET_SHSTK_EN : CET_SHSTK_EN | CET_WRSS_EN) : 0x100000 * (id + 1) + 0x1000 * i;
}

static const u32 own_msrs[] = {
	MSR_IA32_U_CET, MSR_IA32_PL0_SSP, MSR_IA32_PL1_SSP, MSR_IA32_PL2_SSP, MSR_IA32_PL3_SSP, MSR_IA32_INT_SSP_TAB,
};
#define OWN	(sizeof(own_msrs) / sizeof(*own_msrs))

static void keeping(u64 id)
{
	u32 i, n;

	for (i = 0; i < OWN; i++)
		wrmsr(own_msrs[i], own_value(id, i));
	for (n = 0; n < 20; n++) {
		for (i = 0; i < OWN; i++)
			guest_eq(rdmsr(own_msrs[i]), own_value(id, i));
		guest_sync(n);
	}
	guest_done(0);
}

/* Nothing of it is left after an INIT */
TEST_F(cet, init)
{
	u64 val;
	u32 i;

	NEED(SHSTK);
	for (i = 0; i < OWN; i++)
		EXPECT_EQ(1, vcpu_set_msr(self->v, own_msrs[i], own_value(0, i)));
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_S_CET, CET_WRSS_EN));
	vcpu_take_init(self->v);
	for (i = 0; i <= OWN; i++) {
		EXPECT_EQ(1, vcpu_get_msr(self->v, i < OWN ? own_msrs[i] : MSR_IA32_S_CET, &val));
		EXPECT_EQ(0, val) TH_LOG("register %u", i);
	}
}

/* The CPU's own, as the host has them; -1: they cannot be read */
static int host_msrs(u64 *val)
{
	int fd = open("/dev/cpu/0/msr", O_RDONLY), n = 0;

	if (fd < 0 && system("modprobe msr") == 0)
		fd = open("/dev/cpu/0/msr", O_RDONLY);
	for (n = 0; fd >= 0 && n < OWN; n++)
		if (pread(fd, &val[n], 8, own_msrs[n]) != 8)
			break;
	close(fd);
	return n == OWN ? 0 : -1;
}

TEST_F(cet, each_its_own)
{
	u64 before[OWN], after[OWN];
	struct vcpu *v[2];
	u32 i, n;
	u64 val;
	bool told_host;

	NEED(SHSTK);
	stay_on(0, 0);
	told_host = !host_msrs(before);
	for (i = 0; i < 2; i++) {
		v[i] = i ? vcpu_new(self->vm, i) : self->v;
		vcpu_long(v[i], keeping, i);
	}
	for (n = 0; n < 20; n++) {
		for (i = 0; i < 2; i++) {
			EXPECT_EQ(n, vcpu_sync(v[i]));
			EXPECT_EQ(1, vcpu_get_msr(v[i], own_msrs[4], &val));
			EXPECT_EQ(own_value(i, 4), val);
		}
		if (told_host) {
			ASSERT_EQ(0, host_msrs(after));
			EXPECT_EQ(0, memcmp(before, after, sizeof(before)));
		}
	}
	for (i = 0; i < 2; i++)
		vcpu_done(v[i]);
	if (!told_host)
		TH_LOG("the host's own were not looked at: no /dev/cpu/0/msr");
}

/* A task with a shadow stack of its own, which it never returns from: a VMM, or none */
static __attribute__((noinline)) void task_with_shadow_stack(bool vmm)
{
	struct vcpu *v = vmm ? vcpu_new(new_vm(VM_IRQCHIP), 0) : NULL;
	long r = SYS_arch_prctl;
	u64 ssp;
	int i;

	if (v)
		start(v, nesting, CET_SHSTK_EN);
	asm volatile("syscall" : "+a"(r) : "D"(0x5001), "S"(1UL) : "rcx", "r11", "memory");	/* ARCH_SHSTK_ENABLE */
	if (r)
		_exit(77);
	ssp = rdssp();
	if (!ssp)
		_exit(1);
	for (i = 0; i < 40; i++) {
		if (v)
			vcpu_sync(v);
		if (rdssp() != ssp)
			_exit(2);
		sched_yield();
	}
	_exit(0);
}

/* Two of them on one CPU */
static void two_tasks(bool vmms, int *status)
{
	pid_t pid[2];
	int i;

	stay_on(0, 0);
	for (i = 0; i < 2; i++) {
		pid[i] = fork();
		if (!pid[i])
			task_with_shadow_stack(vmms);
	}
	for (i = 0; i < 2; i++)
		waitpid(pid[i], &status[i], 0);
}

TEST_F(cet, host_task)
{
	int status[2];

	NEED(SHSTK);
	two_tasks(false, status);
	if (status[0] != 77 << 8 && (status[0] || status[1]))
		SKIP(return, "this CPU loses the shadow stacks of tasks, without any guest");
	two_tasks(true, status);
	if (WIFEXITED(status[0]) && WEXITSTATUS(status[0]) == 77)
		SKIP(return, "no shadow stacks for the host's own tasks");
	EXPECT_EQ(0, status[0]);
	EXPECT_EQ(0, status[1]);
}

/* ---- elsewhere, and again ---- */

static u64 state_ssp(const struct blob *b)
{
	const struct keel_section *s = (void *)(b->data + sizeof(struct keel_state_head));

	while ((u8 *)s < b->data + b->size) {
		if (s->id == KEEL_SECTION_FPU)
			return ((struct keel_state_fpu *)(s + 1))->ssp;
		s = (void *)(s + 1) + (s->length + 7) / 8 * 8;
	}
	return 0;
}

TEST_F(cet, moved)
{
	struct blob *b = calloc(1, sizeof(*b)), *again = calloc(1, sizeof(*again));
	struct vm *to = new_vm(VM_IRQCHIP);
	struct keel_state arg;
	struct vcpu *v;
	int i;

	NEED(SHSTK);
	v = vcpu_new(to, 0);
	start(self->v, nesting, CET_SHSTK_EN);
	for (i = DEPTH - 1; i >= 2; i--)
		EXPECT_EQ(i, vcpu_sync(self->v));
	vcpu_settle(self->v);
	if (state_get(self->vm, b, &arg))
		SKIP(return, "no KEEL_GET_STATE");
	EXPECT_EQ(guest_var(self->vm, ssp_now), state_ssp(b));
	EXPECT_EQ(SHADOW_TOP(0) - 8 * (DEPTH - 2), state_ssp(b));
	memcpy(to->mem, self->vm->mem, MEM_SIZE);
	arg = (struct keel_state){ .data = (u64)b->data, .size = b->size };
	ASSERT_EQ(0, xioctl(to->fd, KEEL_SET_STATE, &arg));
	ASSERT_EQ(0, state_get(to, again, &arg));
	EXPECT_EQ(state_ssp(b), state_ssp(again));
	nests(_metadata, v, 1);
	nests(_metadata, v, DEPTH - 1);
	nests(_metadata, self->v, 1);
	vm_free(to);
}

TEST_F(cet, reset)
{
	int i, n;
	u32 id;

	NEED(SHSTK);
	start(self->v, nesting, CET_SHSTK_EN);
	for (i = DEPTH - 1; i >= 3; i--)
		EXPECT_EQ(i, vcpu_sync(self->v));
	vcpu_settle(self->v);
	if (xioctl(self->vm->fd, KEEL_SNAPSHOT, &(struct keel_snapshot){ 0 }) == -ENOTTY)
		SKIP(return, "no KEEL_SNAPSHOT");
	id = snapshot(self->vm);
	for (n = 0; n < 5; n++) {
		for (i = 2; i >= n % 3; i--)
			EXPECT_EQ(i, vcpu_sync(self->v));
		vcpu_settle(self->v);
		ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	}
	nests(_metadata, self->v, 2);
}

TEST_F(cet, smm)
{
	static const u8 rsm[] = { 0x0f, 0xaa };
	u64 *saved;
	int i;

	NEED(SHSTK);
	NEED_CAP(self->vm, KVM_CAP_X86_SMM);
	vm_slot(self->vm, 1 << 16, 0, MEM_SIZE, self->vm->mem, 0);
	memcpy(gpa_hva(self->vm, 0x38000), rsm, sizeof(rsm));
	saved = gpa_hva(self->vm, 0x3ff18);
	start(self->v, nesting, CET_SHSTK_EN);
	for (i = DEPTH - 1; i >= 0; i--) {
		EXPECT_EQ(i, vcpu_sync(self->v));
		*saved = 0;
		must(ioctl(self->v->fd, KVM_SMI, 0));
		vcpu_settle(self->v);
	}
	EXPECT_EQ(100 + DEPTH, vcpu_sync(self->v));
	EXPECT_EQ(SHADOW_TOP(0) - 8 * DEPTH, *saved);
}

TEST_HARNESS_MAIN
