// SPDX-License-Identifier: GPL-2.0-only
/*
 * The interface of Microsoft's hypervisor: what is offered and enforced, each
 * MSR and hypercall with its limits and errors, time, the synthetic interrupt
 * controller and its timers.
 */
#include "test.h"
#include "hv.h"

#include <poll.h>
#include <sys/eventfd.h>

#define NR	3

#define VEC		0x61
#define VEC2		0x62

FIXTURE(hv) {
	struct vm *vm;
	struct vcpu *v[NR];
	u64 apic_hz;
};

FIXTURE_SETUP(hv)
{
	int i;

	self->vm = vm_new(VM_IRQCHIP);
	if (!vm_cap(self->vm, KVM_CAP_HYPERV))
		SKIP_FIXTURE("no KVM_CAP_HYPERV");
	/* A bus that is not the usual one, where it may be another: only its frequency is looked at here. */
	self->apic_hz = vm_enable_cap(self->vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 25) ? 1000000000 : 40000000;
	for (i = 0; i < NR; i++) {
		self->v[i] = vcpu_new(self->vm, i);
		set_hv_cpuid(self->v[i]);
	}
}

FIXTURE_TEARDOWN(hv)
{
	vm_free(self->vm);
}

/* ---- what there is ---- */

static const int caps[] = {
	KVM_CAP_HYPERV, KVM_CAP_HYPERV_VAPIC, KVM_CAP_HYPERV_SPIN, KVM_CAP_HYPERV_TIME, KVM_CAP_HYPERV_SYNIC,
	KVM_CAP_HYPERV_SYNIC2, KVM_CAP_HYPERV_VP_INDEX, KVM_CAP_HYPERV_EVENTFD, KVM_CAP_HYPERV_TLBFLUSH,
	KVM_CAP_HYPERV_SEND_IPI, KVM_CAP_HYPERV_CPUID, KVM_CAP_SYS_HYPERV_CPUID, KVM_CAP_HYPERV_ENFORCE_CPUID,
};

TEST_F(hv, offered)
{
	struct cpuid_set sys = { .h.nent = 256 }, cpu = { .h.nent = 256 };
	unsigned int i;

	for (i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		EXPECT_EQ(1, vm_cap(self->vm, caps[i]));
	/* nobody runs on Hyper-V here, and there are no guests of guests */
	EXPECT_EQ(0, vm_cap(self->vm, KVM_CAP_HYPERV_DIRECT_TLBFLUSH));
	EXPECT_EQ(0, vm_cap(self->vm, KVM_CAP_HYPERV_ENLIGHTENED_VMCS));
	must(ioctl(self->vm->sys, KVM_GET_SUPPORTED_HV_CPUID, &sys));
	must(ioctl(self->v[0]->fd, KVM_GET_SUPPORTED_HV_CPUID, &cpu));
	EXPECT_EQ(0, memcmp(&sys, &cpu, sizeof(sys)));
	ASSERT_NE(NULL, cpuid_find(&sys.h, 0x40000005, 0));
	EXPECT_EQ(0x31237648, cpuid_find(&sys.h, 0x40000001, 0)->eax);
	EXPECT_EQ(0x40000082, cpuid_find(&sys.h, 0x40000000, 0)->eax);
	/* never asked to tell of long spins */
	EXPECT_EQ(-1U, cpuid_find(&sys.h, 0x40000004, 0)->ebx);
	/* QEMU's hv-apicv, and hv-tlbflush-ext, do not start without */
	EXPECT_EQ(1 << 9, cpuid_find(&sys.h, 0x40000004, 0)->eax & 1 << 9);
	EXPECT_EQ(1 << 14, cpuid_find(&sys.h, 0x40000003, 0)->edx & 1 << 14);
	sys.h.nent--;
	EXPECT_EQ(-E2BIG, xioctl(self->vm->sys, KVM_GET_SUPPORTED_HV_CPUID, &sys));
	EXPECT_EQ(-EFAULT, xioctl(self->vm->sys, KVM_GET_SUPPORTED_HV_CPUID, NULL));
}

/* Without these leaves there is nothing, but a VMM may save and restore what there is not */
static void nothing_guest(u64 arg)
{
	u64 v;

	guest_eq(rdmsr_try(MSR_OS_ID, &v), GP0);
	guest_eq(wrmsr_try(MSR_OS_ID, 1), GP0);
	guest_eq(rdmsr_try(MSR_TIME, &v), GP0);
	guest_eq(wrmsr_try(MSR_SCONTROL, 1), GP0);
	guest_done(0);
}

TEST(not_told)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct {
		struct kvm_msr_list h;
		u32 msr[512];
	} list = { .h.nmsrs = 512 };
	u32 i, n = 0;
	u64 val;

	must(ioctl(vm->sys, KVM_GET_MSR_INDEX_LIST, &list));
	for (i = 0; i < list.h.nmsrs; i++) {
		if (list.msr[i] >> 9 != 0x40000000 >> 9)
			continue;
		EXPECT_EQ(1, vcpu_get_msr(v, list.msr[i], &val));
		EXPECT_EQ(1, vcpu_set_msr(v, list.msr[i], list.msr[i] == MSR_TIME ? 0 : val));
		n++;
	}
	EXPECT_LT(40, n);
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_SINT0 + 3, &val));
	EXPECT_EQ(SINT_MASKED, val);
	vcpu_long(v, nothing_guest, 0);
	vcpu_done(v);
	vm_free(vm);
}

/* ---- MSRs ---- */

static u8 page[4096] __attribute__((aligned(4096)));

static void msrs_guest(u64 arg)
{
	u64 t, u, v, i;

	apic_on();
	/* nobody may call before he said who he is */
	wrmsr(MSR_HYPERCALL, (u64)page | ENABLE);
	guest_eq(rdmsr(MSR_HYPERCALL), 0);
	guest_eq(page[0], 0);
	wrmsr(MSR_OS_ID, 0x8100000000000001);
	guest_eq(rdmsr(MSR_OS_ID), 0x8100000000000001);
	guest_eq(wrmsr_try(MSR_HYPERCALL, HOLE_GPA | ENABLE), GP0);
	guest_eq(rdmsr(MSR_HYPERCALL), 0);
	wrmsr(MSR_HYPERCALL, (u64)page | ENABLE);
	guest_eq(rdmsr(MSR_HYPERCALL), (u64)page | ENABLE);
	guest_eq(*(volatile u32 *)page, guest_is_amd() ? 0xc3d9010f : 0xc3c1010f);
	wrmsr(MSR_OS_ID, 0);
	guest_eq(rdmsr(MSR_HYPERCALL), (u64)page);

	guest_eq(rdmsr(MSR_VP_INDEX), guest_cpu());
	guest_eq(wrmsr_try(MSR_VP_INDEX, 1), GP0);

	/* time goes on, at 10 MHz of a clock that the TSC's frequency tells of */
	guest_eq(wrmsr_try(MSR_TIME, 0), GP0);
	guest_eq(wrmsr_try(MSR_TSC_FREQ, 0), GP0);
	guest_eq(wrmsr_try(MSR_APIC_FREQ, 0), GP0);
	guest_eq(rdmsr(MSR_APIC_FREQ), arg);
	guest_eq(wrmsr_try(MSR_VP_RUNTIME, 0), GP0);
	v = rdmsr(MSR_VP_RUNTIME);
	t = rdmsr(MSR_TIME);
	u = rdtsc();
	while (rdtsc() - u < rdmsr(MSR_TSC_FREQ) / 2)
		pause_cpu();
	t = rdmsr(MSR_TIME) - t;
	u = (rdtsc() - u) / (rdmsr(MSR_TSC_FREQ) / 10000000);
	/* a quarter, and what comes between two reads on a machine with more to do: 100 ms */
	guest_assert(t <= u + u / 4 + 1000000 && u <= t + t / 4 + 1000000);
	while (rdmsr(MSR_VP_RUNTIME) <= v)
		pause_cpu();

	/* the local APIC's registers */
	wrmsr(MSR_TPR, 0x50);
	guest_eq(read_cr8(), 5);
	guest_eq(rdmsr(MSR_TPR), 0x50);
	wrmsr(MSR_TPR, 0);
	guest_on(VEC, guest_count);
	wrmsr(MSR_ICR, (u64)guest_cpu() << 56 | VEC);
	irq_on();
	spin_until(&guest_irqs[VEC], 1);
	guest_eq(apic_read(0x100 + (VEC / 32) * 0x10), 1U << VEC % 32);
	wrmsr(MSR_EOI, 0);
	guest_eq(apic_read(0x100 + (VEC / 32) * 0x10), 0);
	guest_eq(rdmsr(MSR_ICR) & 0xff, VEC);
	guest_eq(rdmsr_try(MSR_EOI, &v), GP0);

	/* the end */
	for (i = 0; i < 5; i++)
		wrmsr(MSR_CRASH_P0 + i, 0x100 + i);
	wrmsr(MSR_CRASH_CTL, 0);
	guest_eq(rdmsr(MSR_CRASH_CTL), 1UL << 63);
	wrmsr(MSR_CRASH_CTL, 1UL << 63);
	guest_eq(rdmsr(MSR_RESET), 0);
	wrmsr(MSR_RESET, 0);
	wrmsr(MSR_RESET, 1);
	guest_eq(rdmsr_try(0x40000004, &v), GP0);
	guest_eq(rdmsr_try(0x40000085, &v), GP0);
	guest_eq(rdmsr_try(0x40000109, &v), GP0);
	guest_done(0);
}

TEST_F(hv, msrs)
{
	struct vcpu *v = self->v[1];
	u64 val, i;

	EXPECT_EQ(1, vcpu_set_msr(v, MSR_CRASH_CTL, -1ULL));
	v->run->system_event.ndata = 99;
	vcpu_long(v, msrs_guest, self->apic_hz);
	vcpu_expect(v, KVM_EXIT_SYSTEM_EVENT);
	EXPECT_EQ(KVM_SYSTEM_EVENT_CRASH, v->run->system_event.type);
	EXPECT_EQ(0, v->run->system_event.ndata);	/* KVM_CAP_SYSTEM_EVENT_DATA */
	v->run->system_event.ndata = 99;
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(1, vcpu_get_msr(v, MSR_CRASH_P0 + i, &val));
		EXPECT_EQ(0x100 + i, val);
	}
	vcpu_expect(v, KVM_EXIT_SYSTEM_EVENT);
	EXPECT_EQ(KVM_SYSTEM_EVENT_RESET, v->run->system_event.type);
	EXPECT_EQ(0, v->run->system_event.ndata);
	vcpu_done(v);
	/* the VMM may number them as it likes, within limits */
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_VP_INDEX, 2));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_VP_INDEX, &val));
	EXPECT_EQ(2, val);
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_VP_INDEX, 1UL << 20));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_VP_RUNTIME, 1UL << 40));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_VP_RUNTIME, &val));
	EXPECT_LE(1UL << 40, val);
}

/* What CPUID does not show is not there, if the VMM says so */
static const struct {
	u32 msr, bit;
	bool edx;
} privileges[] = {
	{ MSR_OS_ID, 5 }, { MSR_HYPERCALL, 5 }, { MSR_VP_INDEX, 6 }, { MSR_RESET, 7 }, { MSR_VP_RUNTIME, 0 },
	{ MSR_TIME, 1 }, { MSR_TSC_PAGE, 9 }, { MSR_TSC_FREQ, 11 }, { MSR_APIC_FREQ, 11 }, { MSR_TPR, 4 },
	{ MSR_ASSIST, 4 }, { MSR_SCONTROL, 2 }, { MSR_SINT0 + 15, 2 }, { MSR_STIMER0 + 7, 3 },
	{ MSR_CRASH_P0, 10, true }, { MSR_CRASH_CTL, 10, true }, { MSR_REENLIGHTEN, 13 }, { MSR_EMULATION, 13 },
	{ MSR_INVARIANT, 15 }, { MSR_DBG_STATUS, 11, true }, { MSR_DBG_OPTIONS, 11, true },
};

static void read_guest(u64 msr)
{
	u64 v;
	long r = rdmsr_try(msr, &v);

	guest_done(r == NO_FAULT ? 0 : r == GP0 ? 1 : 2);
}

static void denied_guest(u64 arg);

TEST_F(hv, enforced)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_HYPERV_ENFORCE_CPUID, .args = { 1 } };
	unsigned int i;

	for (i = 0; i < sizeof(privileges) / sizeof(privileges[0]); i++) {
		struct cpuid_set got = { .h.nent = 256 };
		struct vcpu *v = vcpu_new(self->vm, NR + i);
		struct kvm_cpuid_entry2 *e;

		set_hv_cpuid(v);
		must(ioctl(v->fd, KVM_GET_CPUID2, &got));
		e = cpuid_find(&got.h, 0x40000003, 0);
		must(ioctl(v->fd, KVM_ENABLE_CAP, &cap));
		vcpu_long(v, read_guest, privileges[i].msr);
		EXPECT_EQ(0, vcpu_done(v));
		*(privileges[i].edx ? &e->edx : &e->eax) &= ~(1U << privileges[i].bit);
		v = vcpu_new(self->vm, 32 + i);
		must(ioctl(v->fd, KVM_SET_CPUID2, &got));
		vcpu_long(v, read_guest, privileges[i].msr);
		EXPECT_EQ(0, vcpu_done(v));
		must(ioctl(v->fd, KVM_ENABLE_CAP, &cap));
		vcpu_long(v, read_guest, privileges[i].msr);
		EXPECT_EQ(1, vcpu_done(v));
	}
}

/* ---- hypercalls ---- */

static u64 call(u64 control, u64 in, u64 out)
{
	u64 ret = -1UL;		/* KVM's number of a call, if it is one */

	if (guest_is_amd())
		asm volatile("mov %3,%%r8; vmmcall" : "+a"(ret) : "c"(control), "d"(in), "rm"(out) : "r8", "memory");
	else
		asm volatile("mov %3,%%r8; vmcall" : "+a"(ret) : "c"(control), "d"(in), "rm"(out) : "r8", "memory");
	return ret;
}

static u64 call_xmm(u64 control, u64 in, u64 out, u64 a, u64 b, u64 c, u64 d)
{
	u64 x[4] __attribute__((aligned(16))) = { a, b, c, d };

	asm volatile("movdqu %0,%%xmm0; movdqu %1,%%xmm1" :: "m"(x[0]), "m"(x[2]) : "memory");
	return call(control, in, out);
}

static u64 input[64] __attribute__((aligned(4096)));
static volatile u32 ready, phase, ipis[NR];

static u64 call_in(u64 control, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	volatile u64 *in = input;

	in[0] = a;
	in[1] = b;
	in[2] = c;
	in[3] = d;
	in[4] = e;
	return call(control, (u64)input, 0);
}

#define ALL_CPUS	1	/* flag of a flush */
#define SPARSE		0	/* formats of sets */
#define EVERYONE	1

static void say_who(void)
{
	wrmsr(MSR_OS_ID, 0x8100000000000001);
	wrmsr(MSR_HYPERCALL, (u64)page | ENABLE);
}

static void errors_guest(u64 arg)
{
	/* whoever has not said who he is calls KVM */
	guest_eq(call(0x4242, 0, 0), -1000);
	say_who();
	guest_eq(call(0x4242, 0, 0), BAD_CODE);
	guest_eq(call(0x4242 | FAST, 0, 0), BAD_CODE);
	guest_eq(call(SEND_IPI | FAST | 1UL << 27, VEC, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST | 1UL << 44, VEC, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST | 1UL << 60, VEC, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST | REP(1), VEC, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST | FIRST_REP(1), VEC, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST | VAR(1), VEC, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST, 15, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST, 0x100, 1), BAD_INPUT);
	guest_eq(call(SEND_IPI | FAST, VEC, 0), 0);
	guest_eq(call(SEND_IPI, (u64)input + 4, 0), BAD_ALIGNMENT);
	guest_eq(call(SEND_IPI, HOLE_GPA, 0), BAD_INPUT);
	guest_eq(call(FLUSH_SPACE, HOLE_GPA, 0), BAD_INPUT);
	guest_eq(call_in(FLUSH_SPACE | REP(1), 0, ALL_CPUS, 0, 0, 0), BAD_INPUT);
	guest_eq(call_in(FLUSH_SPACE | VAR(1), 0, ALL_CPUS, 0, 0, 0), BAD_INPUT);
	guest_eq(call_in(FLUSH_SPACE, 0, ALL_CPUS, 0, 0, 0), 0);
	guest_eq(call_in(FLUSH_LIST, 0, ALL_CPUS, 0, 0, 0), BAD_INPUT);
	guest_eq(call_in(FLUSH_LIST | REP(3) | FIRST_REP(1), 0, ALL_CPUS, 0, 0, 0), BAD_INPUT);
	/* how many repetitions are done is part of the answer */
	guest_eq(call_in(FLUSH_LIST | REP(3), 0, ALL_CPUS, 0, 0, 0), REP(3));
	guest_eq(call_xmm(FLUSH_LIST | FAST | REP(2), 0, ALL_CPUS, 0, 0, 0, 0), REP(2));
	guest_eq(call_in(FLUSH_SPACE_EX, 0, 0, EVERYONE, 0, 0), 0);
	guest_eq(call_in(FLUSH_SPACE_EX, 0, 0, 2, 0, 0), BAD_PARAMETER);
	guest_eq(call_in(FLUSH_SPACE_EX | VAR(1), 0, 0, SPARSE, 3, 1), BAD_INPUT);
	guest_eq(call_in(FLUSH_SPACE_EX, 0, 0, SPARSE, 1, 1), BAD_INPUT);
	guest_eq(call_in(FLUSH_SPACE_EX, 0, 0, SPARSE, 0, 0), 0);
	guest_eq(call_in(FLUSH_SPACE_EX | VAR(1), 0, 0, SPARSE, 1UL << 63, -1UL), 0);
	guest_eq(call_in(FLUSH_LIST_EX | VAR(1) | REP(1), 0, 0, SPARSE, 1, 7), REP(1));
	guest_eq(call_xmm(FLUSH_LIST_EX | FAST | VAR(1) | REP(1), 0, 0, SPARSE, 1, 7, 0), REP(1));
	/* more banks than registers hold */
	guest_eq(call_xmm(FLUSH_SPACE_EX | FAST | VAR(32), 0, 0, SPARSE, 0xffffffff, 0, 0), BAD_INPUT);
	guest_eq(call_in(SEND_IPI_EX | VAR(1), VEC, SPARSE, 3, 7, 0), BAD_INPUT);
	guest_eq(call_in(SEND_IPI_EX, 3, EVERYONE, 0, 0, 0), BAD_INPUT);
	guest_eq(call_in(SEND_IPI_EX, 3, SPARSE, 0, 0, 0), 0);
	guest_eq(call(LONG_SPIN | FAST, 1000, 0), 0);
	guest_eq(call(LONG_SPIN | FAST | REP(1), 1000, 0), BAD_INPUT);
	/* not without a SynIC */
	guest_eq(call(POST_MESSAGE, (u64)input, 0), BAD_INPUT);
	guest_eq(call(SIGNAL_EVENT | FAST, 1, 0), BAD_INPUT);
	guest_eq(call(SIGNAL_EVENT | FAST, 1UL << 24, 0), BAD_INPUT);
	guest_eq(call(SIGNAL_EVENT, (u64)input + 1, 0), BAD_ALIGNMENT);
	wrmsr(MSR_OS_ID, 0);
	guest_eq(call(0x4242, 0, 0), -1000);
	guest_done(0);
}

TEST_F(hv, hypercall_errors)
{
	vcpu_long(self->v[0], errors_guest, 0);
	vcpu_done(self->v[0]);
}

/* In user mode, there is no such instruction */
static void user_call_guest(u64 arg)
{
	say_who();
	/* SS, RSP, RFLAGS, CS, RIP */
	asm volatile("pushq %0; pushq %1; pushq $0x3002; pushq %2; pushq $1f\niretq\n1:"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000), "i"(SEL_UCODE64) : "memory");
	guest_eq(guest_is_amd() ? guest_try("vmmcall", "a"(0), "c"(FAST), "d"(0)) :
		 guest_try("vmcall", "a"(0), "c"(FAST), "d"(0)), UD);
	guest_done(0);
}

TEST_F(hv, hypercall_of_user_mode)
{
	vcpu_long(self->v[0], user_call_guest, 0);
	vcpu_done(self->v[0]);
}

static void denied_guest(u64 arg)
{
	say_who();
	guest_eq(call_in(FLUSH_SPACE, 0, ALL_CPUS, 0, 0, 0), arg & 1 ? 0 : DENIED);
	guest_eq(call_in(FLUSH_SPACE_EX, 0, 0, EVERYONE, 0, 0), arg & 1 && arg & 4 ? 0 : DENIED);
	guest_eq(call(SEND_IPI | FAST, VEC, 0), arg & 2 ? 0 : DENIED);
	guest_eq(call_in(SEND_IPI_EX, VEC, SPARSE, 0, 0, 0), arg & 2 && arg & 4 ? 0 : DENIED);
	guest_eq(call(LONG_SPIN | FAST, 1, 0), arg & 8 ? 0 : DENIED);
	guest_eq(call(POST_MESSAGE, (u64)input, 0), arg & 16 ? BAD_INPUT : DENIED);
	guest_eq(call(SIGNAL_EVENT | FAST, 1, 0), arg & 32 ? BAD_INPUT : DENIED);
	guest_done(0);
}

TEST_F(hv, hypercalls_enforced)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_HYPERV_ENFORCE_CPUID, .args = { 1 } };
	u32 arg;

	for (arg = 0; arg < 64; arg = arg * 2 + 1) {
		struct cpuid_set got = { .h.nent = 256 };
		struct vcpu *v = vcpu_new(self->vm, NR + __builtin_popcount(arg));
		struct kvm_cpuid_entry2 *e;

		set_hv_cpuid(v);
		must(ioctl(v->fd, KVM_GET_CPUID2, &got));
		e = cpuid_find(&got.h, 0x40000004, 0);
		e->eax = (arg & 1 ? 4 : 0) | (arg & 2 ? 1 << 10 : 0) | (arg & 4 ? 1 << 11 : 0);
		e->ebx = arg & 8 ? 4095 : 0;
		cpuid_find(&got.h, 0x40000003, 0)->ebx = (arg & 16 ? 16 : 0) | (arg & 32);
		must(ioctl(v->fd, KVM_SET_CPUID2, &got));
		must(ioctl(v->fd, KVM_ENABLE_CAP, &cap));
		vcpu_long(v, denied_guest, arg);
		vcpu_done(v);
	}
}

/* Without the privilege, the vector registers are not for input */
static void no_xmm_guest(u64 arg)
{
	say_who();
	guest_eq(guest_is_amd() ? guest_try("vmmcall", "c"(FLUSH_SPACE | FAST), "d"(0)) :
		 guest_try("vmcall", "c"(FLUSH_SPACE | FAST), "d"(0)), UD);
	guest_done(0);
}

/* ---- flushes and IPIs arrive ---- */

#define PAGE_A	(HEAP_GPA + 0x200000)
#define PAGE_PT	(HEAP_GPA + 0x400000)

static u64 *pte_a;
static volatile u32 seen_gen[NR];

static void watcher_guest(u64 arg)
{
	atomic_add(&ready, 1);
	while (phase != 100)
		seen_gen[guest_cpu()] = *(volatile u32 *)PAGE_A;
	guest_done(0);
}

/* Page n holds n: once the call is back nobody reads the page before any more */
static void flusher_guest(u64 arg)
{
	u32 n, a, b;

	say_who();
	spin_until(&ready, NR - 1);
	for (n = 1; n < 60; n++) {
		*pte_a = (PAGE_A + n * 4096) | 7;
		switch (n % 6) {
		case 0:
			call_in(FLUSH_SPACE, 0, ALL_CPUS, 0, 0, 0);
			break;
		case 1:
			call_in(FLUSH_LIST | REP(1), 0, 0, 6, PAGE_A, 0);
			break;
		case 2:
			call_xmm(FLUSH_SPACE | FAST, 0, 0, 6, 0, 0, 0);
			break;
		case 3:
			call_in(FLUSH_SPACE_EX | VAR(1), 0, 0, SPARSE, 1, 6);
			break;
		case 4:
			call_xmm(FLUSH_LIST_EX | FAST | VAR(1) | REP(1), 0, 0, SPARSE, 1, 6, PAGE_A);
			break;
		case 5:
			call_in(FLUSH_SPACE_EX, 0, 0, EVERYONE, 0, 0);
			break;
		}
		/* what it reads from here on; the one it has in hand may be older */
		for (a = seen_gen[1], b = seen_gen[2]; seen_gen[1] < n || seen_gen[2] < n; )
			pause_cpu();
		guest_assert(a <= n && b <= n);
	}
	phase = 100;
	guest_done(0);
}

TEST_F(hv, flush)
{
	u32 i;

	vcpu_long(self->v[0], flusher_guest, 0);
	for (i = 1; i < NR; i++)
		vcpu_long(self->v[i], watcher_guest, 0);
	guest_var(self->vm, pte_a) = (u64 *)((u8 *)vm_split_page(self->vm, PAGE_A, PAGE_PT) - self->vm->mem);
	for (i = 0; i < 60; i++)
		*(u32 *)gpa_hva(self->vm, PAGE_A + i * 4096) = i;
	for (i = 0; i < NR; i++)
		vcpu_start(self->v[i]);
	for (i = 0; i < NR; i++)
		vcpu_join(self->v[i]);
}

static void count_ipi(struct guest_frame *f)
{
	ipis[guest_cpu()]++;
	wrmsr(MSR_EOI, 0);
}

static void target_guest(u64 arg)
{
	apic_on();
	irq_on();
	atomic_add(&ready, 1);
	while (phase != 100)
		pause_cpu();
	guest_done(0);
}

static void sender_guest(u64 arg)
{
	apic_on();
	guest_on(VEC, count_ipi);
	irq_on();
	say_who();
	spin_until(&ready, NR - 1);
	guest_eq(call(SEND_IPI | FAST, VEC, 6), 0);
	spin_until(&ipis[1], 1);
	spin_until(&ipis[2], 1);
	guest_eq(call_in(SEND_IPI, VEC, 1 << 2, 0, 0, 0), 0);
	spin_until(&ipis[2], 2);
	guest_eq(call_in(SEND_IPI_EX, VEC, EVERYONE, 0, 0, 0), 0);
	spin_until(&ipis[0], 1);
	spin_until(&ipis[1], 2);
	spin_until(&ipis[2], 3);
	guest_eq(call_in(SEND_IPI_EX | VAR(1), VEC, SPARSE, 1, 2, 0), 0);
	spin_until(&ipis[1], 3);
	guest_eq(call_xmm(SEND_IPI_EX | FAST | VAR(1), VEC, SPARSE, 1, 5, 0, 0), 0);
	spin_until(&ipis[0], 2);
	spin_until(&ipis[2], 4);
	/* of what is not there nothing arrives */
	guest_eq(call_in(SEND_IPI_EX | VAR(1), VEC, SPARSE, 1UL << 40, 7, 0), 0);
	guest_eq(ipis[0] + ipis[1] + ipis[2], 2 + 3 + 4);
	phase = 100;
	guest_done(0);
}

TEST_F(hv, send_ipi)
{
	u32 i;

	vcpu_long(self->v[0], sender_guest, 0);
	guest_var(self->vm, guest_handlers)[VEC] = count_ipi;
	for (i = 1; i < NR; i++)
		vcpu_long(self->v[i], target_guest, 0);
	guest_var(self->vm, guest_handlers)[VEC] = count_ipi;
	for (i = 0; i < NR; i++)
		vcpu_start(self->v[i]);
	for (i = 0; i < NR; i++)
		vcpu_join(self->v[i]);
}

static void no_lapic_guest(u64 arg)
{
	say_who();
	guest_eq(call(SEND_IPI | FAST, VEC, 1), 3);
	guest_eq(call_in(SEND_IPI_EX, VEC, EVERYONE, 0, 0, 0), 3);
	guest_done(0);
}

/* Where the VMM has the LAPICs nothing is sent, and success is not claimed */
TEST(ipi_without_lapic)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);

	NEED_CAP(vm, KVM_CAP_HYPERV_SEND_IPI);
	set_hv_cpuid(v);
	vcpu_long(v, no_lapic_guest, 0);
	vcpu_done(v);
	vm_free(vm);
}

/* The VMM may number them as it likes: IPIs and flushes go by that */
static void renumbered_guest(u64 arg)
{
	apic_on();
	guest_on(VEC, count_ipi);
	say_who();
	spin_until(&ready, 2);
	guest_eq(call(SEND_IPI | FAST, VEC, 6), 0);
	guest_eq(call_in(SEND_IPI_EX | VAR(1), VEC, SPARSE, 1, -1UL & ~1UL, 0), 0);
	guest_eq(call_in(SEND_IPI_EX | VAR(2), VEC, SPARSE, 1 << 1 | 1 << 15, 1 << 6, 1UL << 63), 0);
	spin_until(&ipis[1], 1);
	spin_until(&ipis[2], 1);
	guest_eq(call_in(FLUSH_SPACE_EX | VAR(2), 0, 0, SPARSE, 1 << 1 | 1 << 15, 1 << 6), 0);
	guest_eq(ipis[0] + ipis[1] + ipis[2], 2);
	phase = 100;
	guest_done(0);
}

TEST_F(hv, renumbered)
{
	u32 i;

	EXPECT_EQ(1, vcpu_set_msr(self->v[1], MSR_VP_INDEX, 70));
	EXPECT_EQ(1, vcpu_set_msr(self->v[2], MSR_VP_INDEX, 1023));
	vcpu_long(self->v[0], renumbered_guest, 0);
	for (i = 1; i < NR; i++)
		vcpu_long(self->v[i], target_guest, 0);
	guest_var(self->vm, guest_handlers)[VEC] = count_ipi;
	for (i = 0; i < NR; i++)
		vcpu_start(self->v[i]);
	for (i = 0; i < NR; i++)
		vcpu_join(self->v[i]);
}

/* ---- the reference TSC ---- */

static void tsc_guest(u64 arg)
{
	struct tsc_page *p = (void *)page;
	u64 last = 0, t;
	u32 i, sequence;

	wrmsr(MSR_TSC_PAGE, (u64)page | ENABLE);
	guest_eq(rdmsr(MSR_TSC_PAGE), (u64)page | ENABLE);
	guest_sync(p->sequence);
	for (i = 0; i < 1000; i++) {
		/* either clock, in turn: one goes on where the other was */
		t = i % 2 ? rdmsr(MSR_TIME) : page_time((void *)page);
		guest_assert(t >= last);
		last = t;
	}
	sequence = p->sequence;
	guest_sync(1);
	guest_assert(p->sequence != sequence && p->sequence);
	t = page_time((void *)page);
	guest_assert(t >= 5000 * 10000000UL && t < 5100 * 10000000UL);
	guest_assert(rdmsr(MSR_TIME) >= t);
	/* kept as it is, whatever the clock does, and taken over as it is restored */
	wrmsr(MSR_REENLIGHTEN, 0x100ff);
	guest_eq(rdmsr(MSR_REENLIGHTEN), 0x100ff);
	wrmsr(MSR_EMULATION, 1);
	guest_eq(wrmsr_try(MSR_EMUL_STATUS, 1), GP0);
	sequence = p->sequence;
	for (i = 3; i < 5; i++) {
		guest_sync(i);
		t = page_time((void *)page);
		guest_eq(p->sequence, sequence);
		guest_assert(t < 5100 * 10000000UL);
		last = rdmsr(MSR_TIME);
		guest_assert(last >= t && last - t < 100 * 10000000UL);
	}
	wrmsr(MSR_EMULATION, 0);
	/* off */
	wrmsr(MSR_TSC_PAGE, 0);
	p->sequence = 0x1234;
	guest_sync(2);
	guest_eq(p->sequence, 0x1234);
	guest_assert(rdmsr(MSR_TIME) >= t);
	guest_done(0);
}

TEST_F(hv, tsc_page)
{
	struct kvm_clock_data c = { .clock = 5000 * 1000000000ULL };
	struct vcpu *v = self->v[0];

	vcpu_long(v, tsc_guest, 0);
	if (!vcpu_sync(v))
		SKIP(return, "the host does not keep time by its TSC");
	EXPECT_EQ(1, vcpu_sync(v));
	must(ioctl(self->vm->fd, KVM_SET_CLOCK, &c));
	c.clock *= 2;
	EXPECT_EQ(3, vcpu_sync(v));
	must(ioctl(self->vm->fd, KVM_SET_CLOCK, &c));
	EXPECT_EQ(4, vcpu_sync(v));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_TSC_PAGE, (u64)page | ENABLE));
	EXPECT_EQ(2, vcpu_sync(v));
	c.clock *= 2;
	must(ioctl(self->vm->fd, KVM_SET_CLOCK, &c));
	vcpu_done(v);
}

/* ---- the synthetic interrupt controller ---- */

static u8 simp[4096] __attribute__((aligned(4096))), siefp[4096] __attribute__((aligned(4096)));

static void synic_guest(u64 keeps)
{
	u64 v;

	guest_eq(rdmsr(MSR_SVERSION), 1);
	guest_eq(wrmsr_try(MSR_SVERSION, 1), GP0);
	guest_eq(rdmsr(MSR_SCONTROL), 1);
	guest_eq(rdmsr(MSR_SINT0 + 2), SINT_MASKED);
	guest_eq(wrmsr_try(MSR_SINT0 + 2, 15), GP0);
	guest_eq(wrmsr_try(MSR_SINT0 + 2, 15 | SINT_MASKED), NO_FAULT);
	guest_eq(wrmsr_try(MSR_SINT0 + 2, VEC), NO_FAULT);
	guest_eq(rdmsr(MSR_SINT0 + 2), VEC);
	simp[5] = siefp[6] = 7;
	guest_eq(wrmsr_try(MSR_SIMP, HOLE_GPA | ENABLE), keeps ? NO_FAULT : GP0);
	wrmsr(MSR_SIMP, (u64)simp | ENABLE);
	guest_eq(simp[5], keeps ? 7 : 0);
	wrmsr(MSR_SIEFP, (u64)siefp | ENABLE);
	guest_eq(siefp[6], keeps ? 7 : 0);
	wrmsr(MSR_SCONTROL, 0);
	guest_eq(rdmsr(MSR_SCONTROL), 0);
	guest_eq(rdmsr_try(MSR_EOM, &v), NO_FAULT);
	guest_done(0);
}

static void no_synic_guest(u64 arg)
{
	guest_eq(wrmsr_try(MSR_SCONTROL, 1), GP0);
	guest_eq(wrmsr_try(MSR_SINT0, VEC), GP0);
	guest_eq(wrmsr_try(MSR_STIMER0, 0), GP0);
	guest_eq(wrmsr_try(MSR_STIMER0 + 1, 0), GP0);
	guest_eq(wrmsr_try(MSR_EOM, 0), GP0);
	guest_done(0);
}

TEST_F(hv, synic_registers)
{
	struct kvm_enable_cap bad = { .cap = KVM_CAP_HYPERV_SYNIC2, .args = { 1 } };
	struct vm *plain = vm_new(VM_PLAIN);
	int i;

	EXPECT_EQ(-EINVAL, synic(vcpu_new(plain, 0), KVM_CAP_HYPERV_SYNIC2));
	vm_free(plain);
	EXPECT_EQ(-EINVAL, xioctl(self->v[0]->fd, KVM_ENABLE_CAP, &bad));
	vcpu_long(self->v[0], no_synic_guest, 0);
	vcpu_done(self->v[0]);
	for (i = 0; i < 2; i++) {
		struct vcpu *v = self->v[i];
		struct kvm_hyperv_exit *x = &v->run->hyperv;

		EXPECT_EQ(0, synic(v, i ? KVM_CAP_HYPERV_SYNIC2 : KVM_CAP_HYPERV_SYNIC));
		vcpu_long(v, synic_guest, i);
		if (i)
			vcpu_expect(v, KVM_EXIT_HYPERV);
		vcpu_expect(v, KVM_EXIT_HYPERV);
		EXPECT_EQ(KVM_EXIT_HYPERV_SYNIC, x->type);
		EXPECT_EQ(MSR_SIMP, x->u.synic.msr);
		EXPECT_EQ((u64)simp | ENABLE, x->u.synic.msg_page);
		EXPECT_EQ(1, x->u.synic.control);
		vcpu_expect(v, KVM_EXIT_HYPERV);
		EXPECT_EQ(MSR_SIEFP, x->u.synic.msr);
		EXPECT_EQ((u64)siefp | ENABLE, x->u.synic.evt_page);
		vcpu_expect(v, KVM_EXIT_HYPERV);
		EXPECT_EQ(MSR_SCONTROL, x->u.synic.msr);
		EXPECT_EQ(0, x->u.synic.control);
		vcpu_done(v);
	}
}

/* A source's interrupt, by GSI; its end, back by eventfd */
static volatile u32 in_service;

static void sint_handler(struct guest_frame *f)
{
	in_service = apic_read(0x100 + (f->vec / 32) * 0x10);
	atomic_add(&guest_irqs[f->vec], 1);
	if (f->vec == VEC)
		apic_eoi();
}

static void sint_guest(u64 arg)
{
	apic_on();
	guest_on(VEC, sint_handler);
	guest_on(VEC2, sint_handler);
	wrmsr(MSR_SINT0 + 3, VEC);
	wrmsr(MSR_SINT0 + 4, VEC2 | SINT_AUTO_EOI);
	irq_on();
	guest_sync(0);
	spin_until(&guest_irqs[VEC], 1);
	guest_eq(in_service, 1U << VEC % 32);
	guest_sync(1);
	spin_until(&guest_irqs[VEC2], 1);
	guest_eq(in_service, 0);	/* it ended when it was delivered */
	guest_sync(2);
	wrmsr(MSR_EOM, 0);
	guest_sync(3);
	/* a masked one raises nothing */
	wrmsr(MSR_SINT0 + 3, VEC | SINT_MASKED);
	guest_sync(4);
	guest_eq(guest_irqs[VEC], 1);
	guest_done(0);
}

static int route_sint(struct vm *vm, u32 vcpu, u32 sint, u32 flags)
{
	struct {
		struct kvm_irq_routing h;
		struct kvm_irq_routing_entry e[2];
	} r = {
		.h.nr = 2,
		.e[0] = { .gsi = 30, .type = KVM_IRQ_ROUTING_HV_SINT, .flags = flags, .u.hv_sint = { vcpu, sint } },
		.e[1] = { .gsi = 31, .type = KVM_IRQ_ROUTING_HV_SINT, .u.hv_sint = { 0, 4 } },
	};

	return xioctl(vm->fd, KVM_SET_GSI_ROUTING, &r);
}

static bool signaled(int fd)
{
	u64 n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) && n;
}

static int line_up(struct vm *vm, u32 gsi)
{
	struct kvm_irq_level l = { .irq = gsi, .level = 1 };

	must(ioctl(vm->fd, KVM_IRQ_LINE_STATUS, &l));
	return l.status;
}

TEST_F(hv, sint_routes)
{
	int up = eventfd(0, EFD_NONBLOCK), acked = eventfd(0, EFD_NONBLOCK);
	struct kvm_irqfd irqfd = { .fd = up, .gsi = 30, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = acked };
	struct vcpu *v = self->v[0];
	u64 one = 1;

	must(synic(v, KVM_CAP_HYPERV_SYNIC2));
	EXPECT_EQ(-EINVAL, route_sint(self->vm, 0, 16, 0));
	EXPECT_EQ(-EINVAL, route_sint(self->vm, 0, 3, 1));
	EXPECT_EQ(0, route_sint(self->vm, 0, 3, 0));
	must(ioctl(self->vm->fd, KVM_IRQFD, &irqfd));
	vcpu_long(v, sint_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	must(write(up, &one, sizeof(one)));
	EXPECT_FALSE(signaled(acked));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_TRUE(signaled(acked));
	EXPECT_EQ(1, line_up(self->vm, 31));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_FALSE(signaled(acked));
	EXPECT_EQ(3, vcpu_sync(v));
	EXPECT_TRUE(signaled(acked));
	EXPECT_EQ(4, vcpu_sync(v));
	EXPECT_EQ(-1, line_up(self->vm, 30));
	/* nor one of a vCPU that is not there, or has no SynIC */
	EXPECT_EQ(0, route_sint(self->vm, 77, 3, 0));
	EXPECT_EQ(-1, line_up(self->vm, 30));
	/* it may be called so, and is found under that name alone */
	EXPECT_EQ(0, route_sint(self->vm, 77, 4, 0));
	EXPECT_EQ(-1, line_up(self->vm, 30));
	EXPECT_EQ(1, line_up(self->vm, 31));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_VP_INDEX, 77));
	EXPECT_EQ(1, line_up(self->vm, 30));
	EXPECT_EQ(-1, line_up(self->vm, 31));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_VP_INDEX, 78));
	EXPECT_EQ(-1, line_up(self->vm, 30));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_VP_INDEX, 0));
	EXPECT_EQ(1, line_up(self->vm, 31));
	EXPECT_EQ(0, route_sint(self->vm, 1, 3, 0));
	EXPECT_EQ(-1, line_up(self->vm, 30));
	vcpu_done(v);
	close(up);
	close(acked);
}

/* ---- its timers ---- */

#define SLOT(n)		((struct message *)(simp + 256 * (n)))

static void timer_guest(u64 arg)
{
	struct message *m = SLOT(2);
	u64 t, on, before;

	apic_on();
	guest_on(VEC, guest_count_eoi);
	guest_on(VEC2, guest_count_eoi);
	wrmsr(MSR_SINT0 + 2, VEC);
	wrmsr(MSR_SIMP, (u64)simp | ENABLE);
	irq_on();

	/* once, by interrupt: not before its time, and then it is off */
	wrmsr(CONFIG(0), ENABLE | DIRECT(VEC2));
	t = rdmsr(MSR_TIME) + 20 * MS;
	wrmsr(COUNT(0), t);
	while (!guest_irqs[VEC2])
		pause_cpu();
	guest_assert(rdmsr(MSR_TIME) >= t);
	guest_eq(rdmsr(CONFIG(0)), DIRECT(VEC2));
	guest_eq(rdmsr(COUNT(0)), t);
	/* asleep; and one that is late already */
	wrmsr(CONFIG(0), AUTO | DIRECT(VEC2));
	irq_off();
	t = rdmsr(MSR_TIME) + 10 * MS;
	wrmsr(COUNT(0), t);
	on = rdmsr(CONFIG(0));
	guest_assert(on == (ENABLE | AUTO | DIRECT(VEC2)) || (on == (AUTO | DIRECT(VEC2)) && rdmsr(MSR_TIME) >= t));
	irq_halt();
	guest_eq(guest_irqs[VEC2], 2);
	wrmsr(COUNT(0), 1);
	irq_halt();
	guest_eq(guest_irqs[VEC2], 3);
	irq_on();
	/* over and over, until its count is taken away */
	wrmsr(CONFIG(1), ENABLE | PERIODIC | DIRECT(VEC2));
	before = rdmsr(MSR_TIME);
	wrmsr(COUNT(1), 2 * MS);
	spin_until(&guest_irqs[VEC2], 8);
	guest_assert(rdmsr(MSR_TIME) - before >= 10 * MS);
	/* not so fast that the host has nothing else to do */
	before = rdmsr(MSR_TIME);
	wrmsr(COUNT(1), 1);
	t = guest_irqs[VEC2];
	spin_until(&guest_irqs[VEC2], t + 20);
	guest_assert(rdmsr(MSR_TIME) - before >= 2 * MS);
	wrmsr(COUNT(1), 0);
	guest_eq(rdmsr(CONFIG(1)) & ENABLE, 0);
	/* nor does the longest period end before it begins */
	wrmsr(CONFIG(1), ENABLE | PERIODIC | DIRECT(VEC2));
	t = guest_irqs[VEC2];
	wrmsr(COUNT(1), ~0UL);
	before = rdmsr(MSR_TIME) + 20 * MS;
	while (rdmsr(MSR_TIME) < before)
		pause_cpu();
	guest_eq(guest_irqs[VEC2], t);
	wrmsr(COUNT(1), 0);

	/* by message */
	wrmsr(CONFIG(3), ENABLE | SINT(2));
	t = rdmsr(MSR_TIME) + 5 * MS;
	wrmsr(COUNT(3), t);
	spin_until(&guest_irqs[VEC], 1);
	guest_eq(m->type, 0x80000010);
	guest_eq(m->size, 24);
	guest_eq(m->timer, 3);
	guest_eq(m->expired, t);
	guest_assert(m->delivered >= t && m->delivered <= rdmsr(MSR_TIME));
	guest_eq(m->flags, 0);
	/* the next waits until this is taken, and says that it does */
	wrmsr(CONFIG(3), ENABLE | SINT(2));
	wrmsr(COUNT(3), 1);
	while (!(m->flags & 1))
		pause_cpu();
	guest_eq(guest_irqs[VEC], 1);
	guest_eq(m->expired, t);
	guest_eq(rdmsr(CONFIG(3)) & ENABLE, ENABLE);
	m->type = 0;
	wrmsr(MSR_EOM, 0);
	spin_until(&guest_irqs[VEC], 2);
	guest_eq(m->expired, 1);
	guest_eq(rdmsr(CONFIG(3)) & ENABLE, 0);
	m->type = 0;
	/* source 0 is not for timers */
	wrmsr(CONFIG(2), ENABLE);
	guest_eq(rdmsr(CONFIG(2)), 0);
	/* one that was stopped stays silent */
	before = guest_irqs[VEC2];
	t = rdmsr(MSR_TIME) + 200 * MS;
	wrmsr(COUNT(0), t);
	wrmsr(CONFIG(0), ENABLE | DIRECT(VEC2));
	wrmsr(CONFIG(0), 0);
	t += 100 * MS;
	while (rdmsr(MSR_TIME) < t)
		pause_cpu();
	guest_eq(guest_irqs[VEC2], before);
	guest_sync(0x77);
	/* what the VMM sets runs, too */
	spin_until(&guest_irqs[VEC2], before + 1);
	guest_done(0);
}

TEST_F(hv, timers)
{
	struct vcpu *v = self->v[0];
	u64 val;

	must(synic(v, KVM_CAP_HYPERV_SYNIC2));
	vcpu_long(v, timer_guest, 0);
	vcpu_expect(v, KVM_EXIT_HYPERV);
	EXPECT_EQ(0x77, vcpu_sync(v));
	EXPECT_EQ(1, vcpu_set_msr(v, CONFIG(1), ENABLE | DIRECT(VEC2)));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_TIME, &val));
	EXPECT_EQ(1, vcpu_set_msr(v, COUNT(1), val + 5 * MS));
	vcpu_done(v);
}

/* ---- messages and events ---- */

#define EXTENDED	0x8001
#define HV_FEATURES	0x40000003

static void events_guest(u64 arg)
{
	u32 r[4];

	say_who();
	guest_eq(call(POST_MESSAGE | FAST, 0x55, 0x66), REP(7) | 0x11);
	guest_eq(call(SIGNAL_EVENT | FAST, 5, 0), 0);
	guest_eq(call(SIGNAL_EVENT | FAST, 6, 0), 18);
	guest_eq(call_in(SIGNAL_EVENT, 5, 0, 0, 0, 0), 0);
	/* a flag of a connection is userspace's */
	guest_eq(call(SIGNAL_EVENT | FAST, 5 | 1UL << 32, 0), 18);
	/* and so are extended calls (kvm: since Linux 6.2), but not fast ones */
	guest_eq(call(EXTENDED + 65, 0x1000, 0x2000), 2);
	cpuid(HV_FEATURES, 0, r);
	if (r[1] >> 20 & 1) {
		guest_eq(call(EXTENDED | FAST, 0x1000, 0x2000), 5);
		guest_eq(call(EXTENDED, 0x1000, 0x2000), 7);
		guest_eq(call(EXTENDED + 64, 0x1000, 0x2000), 7);
	}
	guest_done(0);
}

TEST_F(hv, messages_and_events)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	struct kvm_hyperv_eventfd e = { .conn_id = 5, .fd = fd };
	struct kvm_hyperv_exit *x;
	struct vcpu *v = self->v[0];
	u64 n;

	must(synic(v, KVM_CAP_HYPERV_SYNIC2));
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));
	EXPECT_EQ(-EEXIST, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));
	e.conn_id = 1 << 24;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));
	e.conn_id = 7;
	e.flags = 2;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));
	e.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
	EXPECT_EQ(-ENOENT, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));
	e.flags = 0;
	e.fd = -1;
	EXPECT_EQ(-EBADF, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));

	vcpu_long(v, events_guest, 0);
	x = &v->run->hyperv;
	vcpu_expect(v, KVM_EXIT_HYPERV);
	EXPECT_EQ(KVM_EXIT_HYPERV_HCALL, x->type);
	EXPECT_EQ(POST_MESSAGE | FAST, x->u.hcall.input);
	EXPECT_EQ(0x55, x->u.hcall.params[0]);
	EXPECT_EQ(0x66, x->u.hcall.params[1]);
	x->u.hcall.result = REP(7) | 0x11;
	vcpu_expect(v, KVM_EXIT_HYPERV);
	EXPECT_EQ(sizeof(n), read(fd, &n, sizeof(n)));
	EXPECT_EQ(1, n);
	EXPECT_EQ(SIGNAL_EVENT | FAST, x->u.hcall.input);
	EXPECT_EQ(6, x->u.hcall.params[0]);
	x->u.hcall.result = 18;
	vcpu_expect(v, KVM_EXIT_HYPERV);
	EXPECT_TRUE(signaled(fd));
	EXPECT_EQ(5 | 1UL << 32, x->u.hcall.params[0]);
	x->u.hcall.result = 18;
	for (n = EXTENDED; vcpu_run(v) == KVM_EXIT_HYPERV; n += 64) {
		EXPECT_EQ(n, x->u.hcall.input);
		EXPECT_EQ(0x1000, x->u.hcall.params[0]);
		EXPECT_EQ(0x2000, x->u.hcall.params[1]);
		x->u.hcall.result = 7;
	}
	vcpu_done(v);
	e = (struct kvm_hyperv_eventfd){ .conn_id = 5, .flags = KVM_HYPERV_EVENTFD_DEASSIGN };
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));
	EXPECT_EQ(-ENOENT, xioctl(self->vm->fd, KVM_HYPERV_EVENTFD, &e));
	close(fd);
}

/* ---- the page that saves writes of EOI ---- */

static u32 assist[1024] __attribute__((aligned(4096)));
static volatile u32 saved;

static void assist_handler(struct guest_frame *f)
{
	bool was;

	asm volatile("btrl $0,%1; setc %0" : "=q"(was), "+m"(assist[0]) :: "memory", "cc");
	saved += was;
	if (!was)
		wrmsr(MSR_EOI, 0);
	atomic_add(&guest_irqs[f->vec], 1);
}

static void assist_guest(u64 arg)
{
	u32 i;

	apic_on();
	guest_on(VEC, assist_handler);
	irq_on();
	assist[0] = 0xff;
	guest_eq(wrmsr_try(MSR_ASSIST, HOLE_GPA | ENABLE), GP0);
	wrmsr(MSR_ASSIST, (u64)assist | ENABLE);
	guest_eq(rdmsr(MSR_ASSIST), (u64)assist | ENABLE);
	guest_eq(assist[0], 0);
	for (i = 0; i < 10; i++) {
		apic_icr(0, VEC);
		spin_until(&guest_irqs[VEC], i + 1);
	}
	guest_eq(saved, 10);
	wrmsr(MSR_ASSIST, 0);
	apic_icr(0, VEC);
	spin_until(&guest_irqs[VEC], 11);
	guest_eq(saved, 10);
	guest_done(0);
}

TEST_F(hv, assist_page)
{
	vcpu_long(self->v[0], assist_guest, 0);
	vcpu_done(self->v[0]);
}

TEST_F(hv, no_xmm_input)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_HYPERV_ENFORCE_CPUID, .args = { 1 } };
	struct cpuid_set got = { .h.nent = 256 };
	struct vcpu *v = self->v[0];

	must(ioctl(v->fd, KVM_GET_CPUID2, &got));
	cpuid_find(&got.h, 0x40000003, 0)->edx &= ~(1U << 4);
	must(ioctl(v->fd, KVM_SET_CPUID2, &got));
	must(ioctl(v->fd, KVM_ENABLE_CAP, &cap));
	vcpu_long(v, no_xmm_guest, 0);
	vcpu_done(v);
}

TEST_HARNESS_MAIN
