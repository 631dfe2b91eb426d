// SPDX-License-Identifier: GPL-2.0-only
/*
 * features.c - features that come with a register or an instruction of their own: a guest that is told of one has it, with its
 * rules, and one that is not has not.  Which the host has decides what there is to see; the rest is looked at as well.
 */
#define _GNU_SOURCE
#include "lib/test.h"
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#ifndef MSR_IA32_UMWAIT_CONTROL
#define MSR_IA32_UMWAIT_CONTROL	0xe1
#endif
#define MSR_SMM_CTL		0xc0010116
#define CR3_LAM_U57		(1UL << 61)
#define CR3_LAM_U48		(1UL << 62)
#define CR4_LAM_SUP		(1UL << 28)
#define DEBUGCTL_BUS_LOCK	4
#define DEBUGCTL_RTM_DEBUG	0x8000

FIXTURE(features) {
	struct vm *vm;
	struct vcpu *v;
	int msrs;		/* of the host's first CPU, where this test stays */
};

FIXTURE_SETUP(features)
{
	cpu_set_t one = {};

	CPU_SET(0, &one);
	must(sched_setaffinity(0, sizeof(one), &one));
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
	self->msrs = open("/dev/cpu/0/msr", O_RDONLY);
}

FIXTURE_TEARDOWN(features)
{
	close(self->msrs);
	vm_free(self->vm);
}

static u32 *word(struct vm *vm, u32 function, u32 index, int reg)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, function, index);

	return e ? &e->eax + reg : NULL;
}

enum { EAX, EBX, ECX, EDX };

static bool offered(struct vm *vm, u32 function, u32 index, int reg, int bit)
{
	u32 *w = word(vm, function, index, reg);

	return w && *w >> bit & 1;
}

/* Another vCPU, which is not told. */
static struct vcpu *untold(struct vm *vm, u32 function, u32 index, int reg, int bit)
{
	u32 *w = word(vm, function, index, reg);

	if (w)
		*w &= ~(1u << bit);
	return vcpu_new(vm, vm->nr);
}

static bool listed(struct vm *vm, u32 msr)
{
	struct {
		struct kvm_msr_list head;
		u32 index[1024];
	} list = { .head.nmsrs = 1024 };
	unsigned int i;

	must(ioctl(vm->sys, KVM_GET_MSR_INDEX_LIST, &list));
	for (i = 0; i < list.head.nmsrs; i++)
		if (list.index[i] == msr)
			return true;
	return false;
}

static bool on_keel(void)
{
	return !!strstr(node_path(), "keel");
}

TEST_F(features, leaves)
{
	u32 *max = word(self->vm, 7, 0, EAX), i, *ext = word(self->vm, 0x80000000, 0, EAX);

	if (!max)
		SKIP(return, "no leaf 7");
	for (i = 0; i <= *max; i++)
		EXPECT_NE(NULL, cpuid_find(self->vm->cpuid, 7, i));
	EXPECT_EQ(NULL, cpuid_find(self->vm->cpuid, 7, *max + 1));
	if (*ext < 0x80000021)
		SKIP(return, "no leaf 0x80000021");
	EXPECT_NE(NULL, cpuid_find(self->vm->cpuid, 0x80000021, 0));
}

/* ---- WAITPKG ---- */

/* Each with a point in time that has passed: no wait is long. */
#define TRY_TPAUSE()	guest_try(".byte 0x66,0x0f,0xae,0xf1", "a"(0), "d"(0), "c"(0))
#define TRY_UMONITOR()	guest_try(".byte 0xf3,0x0f,0xae,0xf1", "c"(HEAP_GPA))
#define TRY_UMWAIT()	guest_try(".byte 0xf2,0x0f,0xae,0xf1", "a"(0), "d"(0), "c"(0))

static void waits_guest(u64 arg)
{
	u64 v = 1;
	int i;

	guest_eq(rdmsr_try(MSR_IA32_UMWAIT_CONTROL, &v), NO_FAULT);
	guest_eq(v, 0);
	guest_eq(wrmsr_try(MSR_IA32_UMWAIT_CONTROL, 2), GP0);
	guest_eq(wrmsr_try(MSR_IA32_UMWAIT_CONTROL, 1UL << 32), GP0);
	for (i = 0; i < 10; i++) {
		guest_eq(wrmsr_try(MSR_IA32_UMWAIT_CONTROL, 4000 + i * 4 + (i & 1)), NO_FAULT);
		outb(0x80, 0);
		guest_eq(rdmsr_try(MSR_IA32_UMWAIT_CONTROL, &v), NO_FAULT);
		guest_eq(v, 4000 + i * 4 + (i & 1));
		guest_eq(TRY_TPAUSE(), NO_FAULT);
		guest_eq(TRY_UMONITOR(), NO_FAULT);
		guest_eq(TRY_UMWAIT(), NO_FAULT);
	}
	guest_done(0);
}

static void no_waits_guest(u64 refused)
{
	u64 v;

	if (refused) {
		guest_eq(TRY_TPAUSE(), UD);
		guest_eq(TRY_UMONITOR(), UD);
		guest_eq(TRY_UMWAIT(), UD);
	}
	guest_eq(rdmsr_try(MSR_IA32_UMWAIT_CONTROL, &v), GP0);
	guest_eq(wrmsr_try(MSR_IA32_UMWAIT_CONTROL, 0), GP0);
	guest_done(0);
}

/* QEMU takes it for an MFENCE. */
static bool tpause_is_refused(void)
{
	pid_t pid = must(fork());
	int status;

	if (!pid) {
		asm volatile(".byte 0x66,0x0f,0xae,0xf1" : : "a"(0), "d"(0), "c"(0));
		_exit(0);
	}
	must(waitpid(pid, &status, 0));
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGILL;
}

TEST_F(features, waitpkg)
{
	bool has = offered(self->vm, 7, 0, ECX, 5);
	u64 host = 0, now = 0, val;
	struct vcpu *v = self->v;
	int i;

	EXPECT_EQ(has, listed(self->vm, MSR_IA32_UMWAIT_CONTROL));
	if (has) {
		if (self->msrs >= 0)
			EXPECT_EQ(8, pread(self->msrs, &host, 8, MSR_IA32_UMWAIT_CONTROL));
		vcpu_long(v, waits_guest, 0);
		for (i = 0; i < 10; i++) {
			vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x80, 1, 1);
			EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_UMWAIT_CONTROL, &val));
			EXPECT_EQ(4000 + i * 4 + (i & 1), val);
			if (self->msrs >= 0)
				EXPECT_EQ(8, pread(self->msrs, &now, 8, MSR_IA32_UMWAIT_CONTROL));
			EXPECT_EQ(host, now);
		}
		vcpu_done(v);
		EXPECT_EQ(0, vcpu_set_msr(v, MSR_IA32_UMWAIT_CONTROL, 2));
		EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_UMWAIT_CONTROL, 0x1f4));
	} else {
		EXPECT_EQ(0, vcpu_set_msr(v, MSR_IA32_UMWAIT_CONTROL, 0));
	}
	v = untold(self->vm, 7, 0, ECX, 5);
	vcpu_long(v, no_waits_guest, has || tpause_is_refused());
	vcpu_done(v);
	if (!has)
		SKIP(return, "no WAITPKG here, and no guest has it");
}

/* ---- linear address masking ---- */

guest_always u64 get_cr3(void)
{
	u64 v;

	asm volatile("mov %%cr3,%0" : "=r"(v));
	return v;
}

guest_always u64 get_cr4(void)
{
	u64 v;

	asm volatile("mov %%cr4,%0" : "=r"(v));
	return v;
}

#define TRY_CR3(val)	guest_try("mov %1,%%cr3", "r"(val))
#define TRY_CR4(val)	guest_try("mov %1,%%cr4", "r"(val))
#define UPPER		0xffff800000000000UL
/* As the two widths leave them: bits 62 to 48, and 62 to 57 */
#define TAG48(addr)	((u64)(addr) ^ 0x2bcdUL << 48)
#define TAG57(addr)	((u64)(addr) ^ 0x2aUL << 57)

guest_always long try_read(u64 addr, u64 *val)
{
	register u64 at asm("rcx") = addr;
	register long r asm("r11");

	*val = 0;
	asm volatile("movq $-1,%%r11\n1: movzbl (%%rcx),%%eax\nmovq %%rax,%1\n2:\n"
		     ".pushsection guest_ex,\"a\"\n.quad 1b,2b\n.popsection"
		     : "=&r"(r), "=m"(*val) : "r"(at) : "rax", "memory");
	return r;
}

static void lam_guest(u64 arg)
{
	u64 cr3 = get_cr3(), *pml4 = (u64 *)PT_GPA, v;

	*(volatile u8 *)HEAP_GPA = 0x5a;
	pml4[256] = pml4[0];
	guest_eq(TRY_CR3(cr3), NO_FAULT);
	guest_eq(try_read(TAG48(HEAP_GPA), &v), GP0);
	guest_eq(try_read(TAG48(UPPER + HEAP_GPA), &v), GP0);

	guest_eq(TRY_CR3(cr3 | CR3_LAM_U48), NO_FAULT);
	guest_eq(get_cr3(), cr3 | CR3_LAM_U48);
	guest_eq(try_read(TAG48(HEAP_GPA), &v), NO_FAULT);
	guest_eq(v, 0x5a);
	guest_eq(try_read(TAG48(HOLE_GPA), &v), NO_FAULT);	/* by the emulator */
	guest_eq(v, 0x11);
	guest_eq(try_read(TAG48(UPPER + HEAP_GPA), &v), GP0);

	/* The narrower one, with which the other does not count */
	guest_eq(TRY_CR3(cr3 | CR3_LAM_U48 | CR3_LAM_U57), NO_FAULT);
	guest_eq(try_read(TAG57(HEAP_GPA), &v), NO_FAULT);
	guest_eq(v, 0x5a);
	guest_eq(try_read(TAG57(HOLE_GPA), &v), NO_FAULT);
	guest_eq(v, 0x22);
	guest_eq(try_read(TAG48(HEAP_GPA), &v), GP0);
	guest_eq(TRY_CR3(cr3), NO_FAULT);
	guest_eq(try_read(TAG57(HEAP_GPA), &v), GP0);

	guest_eq(TRY_CR4(get_cr4() | CR4_LAM_SUP), NO_FAULT);
	guest_eq(get_cr4() & CR4_LAM_SUP, CR4_LAM_SUP);
	guest_eq(try_read(TAG48(UPPER + HEAP_GPA), &v), NO_FAULT);
	guest_eq(v, 0x5a);
	guest_eq(try_read(TAG48(UPPER + HOLE_GPA), &v), NO_FAULT);
	guest_eq(v, 0x33);
	guest_eq(try_read(TAG48(HEAP_GPA), &v), GP0);
	guest_sync(0);
	/* Registers got and set in between */
	guest_eq(try_read(TAG48(UPPER + HEAP_GPA), &v), NO_FAULT);
	guest_eq(TRY_CR4(get_cr4() & ~CR4_LAM_SUP), NO_FAULT);
	guest_eq(try_read(TAG48(UPPER + HEAP_GPA), &v), GP0);
	guest_done(0);
}

static void no_lam_guest(u64 arg)
{
	guest_eq(TRY_CR4(get_cr4() | CR4_LAM_SUP), GP0);
	guest_done(0);
}

TEST_F(features, lam)
{
	bool has = offered(self->vm, 7, 1, EAX, 26);
	struct vcpu *v = self->v;
	struct kvm_sregs s;
	int i;

	if (has) {
		vcpu_long(v, lam_guest, 0);
		for (i = 1; i <= 3; i++) {
			struct kvm_run *run = vcpu_expect_mmio(v, false, HOLE_GPA, 1);

			run->mmio.data[0] = i * 0x11;
		}
		vcpu_sync(v);
		vcpu_get_sregs(v, &s);
		EXPECT_NE(0, s.cr4 & CR4_LAM_SUP);
		s.cr3 |= CR3_LAM_U57;
		EXPECT_EQ(0, xioctl(v->fd, KVM_SET_SREGS, &s));
		vcpu_get_sregs(v, &s);
		EXPECT_NE(0, s.cr3 & CR3_LAM_U57);
		s.cr3 &= ~CR3_LAM_U57;
		EXPECT_EQ(0, xioctl(v->fd, KVM_SET_SREGS, &s));
		vcpu_done(v);
	}
	v = untold(self->vm, 7, 1, EAX, 26);
	vcpu_long(v, no_lam_guest, 0);
	vcpu_get_sregs(v, &s);
	s.cr3 |= CR3_LAM_U48;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_SREGS, &s));
	vcpu_done(v);
	if (!has)
		SKIP(return, "no LAM here, and no guest has it");
}

/* ---- what is about speculation ---- */

static void flush_guest(u64 has)
{
	u64 v;

	guest_eq(rdmsr_try(0x10b, &v), GP0);
	guest_eq(wrmsr_try(0x10b, 2), GP0);
	guest_eq(wrmsr_try(0x10b, 1), has ? NO_FAULT : GP0);
	guest_done(0);
}

TEST_F(features, flush_l1d)
{
	bool has = offered(self->vm, 7, 0, EDX, 28);
	struct vcpu *v = self->v;

	if (!has && !on_keel())
		SKIP(return, "no FLUSH_L1D");
	vcpu_long(v, flush_guest, has);
	vcpu_done(v);
	v = untold(self->vm, 7, 0, EDX, 28);
	vcpu_long(v, flush_guest, 0);
	vcpu_done(v);
}

static void tsx_guest(u64 arg)
{
	u32 r[4];
	u64 v;

	guest_eq(rdmsr_try(MSR_IA32_TSX_CTRL, &v), NO_FAULT);
	guest_eq(wrmsr_try(MSR_IA32_TSX_CTRL, 4), GP0);
	guest_eq(wrmsr_try(MSR_IA32_TSX_CTRL, 1), NO_FAULT);
	outb(0x80, 0);
	guest_eq(rdmsr(MSR_IA32_TSX_CTRL), 1);
	guest_eq(wrmsr_try(MSR_IA32_TSX_CTRL, 3), NO_FAULT);
	cpuid(7, 0, r);
	guest_eq(r[1] & (1 << 4 | 1 << 11), 0);
	guest_eq(wrmsr_try(MSR_IA32_TSX_CTRL, 0), NO_FAULT);
	guest_done(0);
}

static void no_tsx_guest(u64 arg)
{
	u64 v;

	guest_eq(rdmsr_try(MSR_IA32_TSX_CTRL, &v), GP0);
	guest_eq(wrmsr_try(MSR_IA32_TSX_CTRL, 0), GP0);
	guest_done(0);
}

TEST_F(features, arch_capabilities)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head.nmsrs = 1, .e.index = MSR_IA32_ARCH_CAPABILITIES };
	u64 val = 0, host = 0, now = 0, before = 0;
	struct vcpu *v = self->v;
	bool tsx;

	ASSERT_EQ(1, xioctl(self->vm->sys, KVM_GET_MSRS, &m));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_ARCH_CAPABILITIES, &val));
	EXPECT_EQ(m.e.data, val);
	/* What needs a register or an instruction of the CPU's is there only where the CPU says so.  It may have no such MSR. */
	if (self->msrs >= 0) {
		if (pread(self->msrs, &host, 8, MSR_IA32_ARCH_CAPABILITIES) != 8)
			host = 0;
		EXPECT_EQ(0, val & ~host & (ARCH_CAP_IBRS_ALL | ARCH_CAP_TSX_CTRL_MSR | ARCH_CAP_FB_CLEAR |
					    ARCH_CAP_PBRSB_NO | 1 << 28));
		EXPECT_EQ(0, host & ~val & (ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_MDS_NO |
					    ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO));
	}
	tsx = val & ARCH_CAP_TSX_CTRL_MSR;
	if (on_keel())
		EXPECT_EQ(tsx, listed(self->vm, MSR_IA32_TSX_CTRL));
	if (tsx) {
		pread(self->msrs, &before, 8, MSR_IA32_TSX_CTRL);
		vcpu_long(v, tsx_guest, 0);
		vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x80, 1, 1);
		EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_TSX_CTRL, &now));
		EXPECT_EQ(1, now);
		now = before;
		pread(self->msrs, &now, 8, MSR_IA32_TSX_CTRL);
		EXPECT_EQ(before, now);
		vcpu_done(v);
	}
	v = vcpu_new(self->vm, 1);
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_ARCH_CAPABILITIES, val & ~(u64)ARCH_CAP_TSX_CTRL_MSR));
	vcpu_long(v, no_tsx_guest, 0);
	vcpu_done(v);
}

static void autoibrs_guest(u64 has)
{
	guest_eq(wrmsr_try(MSR_EFER, rdmsr(MSR_EFER) | 1 << 21), has ? NO_FAULT : GP0);
	if (has)
		guest_eq(rdmsr(MSR_EFER) >> 21 & 1, 1);
	guest_done(0);
}

TEST_F(features, automatic_ibrs)
{
	struct vcpu *v = self->v;

	vcpu_long(v, autoibrs_guest, offered(self->vm, 0x80000021, 0, EAX, 8));
	vcpu_done(v);
	v = untold(self->vm, 0x80000021, 0, EAX, 8);
	vcpu_long(v, autoibrs_guest, 0);
	vcpu_done(v);
}

static void virt_ssbd_guest(u64 has)
{
	u64 v = 0;

	if (!has) {
		guest_eq(rdmsr_try(0xc001011f, &v), GP0);
		guest_done(0);
	}
	guest_eq(rdmsr_try(0xc001011f, &v), NO_FAULT);
	guest_eq(v, 0);
	guest_eq(wrmsr_try(0xc001011f, 1), GP0);
	guest_eq(wrmsr_try(0xc001011f, 4), NO_FAULT);
	guest_eq(rdmsr(0xc001011f), 4);
	guest_eq(wrmsr_try(0xc001011f, 0), NO_FAULT);
	guest_eq(rdmsr(0xc001011f), 0);
	guest_done(0);
}

TEST_F(features, virt_ssbd)
{
	vcpu_long(self->v, virt_ssbd_guest, offered(self->vm, 0x80000008, 0, EBX, 25));
	vcpu_done(self->v);
}

/* ---- others ---- */

static void bus_lock_guest(u64 has)
{
	u64 dr6;

	guest_eq(wrmsr_try(MSR_IA32_DEBUGCTLMSR, DEBUGCTL_BUS_LOCK), has ? NO_FAULT : GP0);
	guest_eq(rdmsr(MSR_IA32_DEBUGCTLMSR), has ? DEBUGCTL_BUS_LOCK : 0);
	/* A bit that is clear tells; without, it is always set */
	asm volatile("mov %0,%%dr6" :: "r"(0UL));
	asm volatile("mov %%dr6,%0" : "=r"(dr6));
	guest_eq(dr6 >> 11 & 1, !has);
	guest_done(0);
}

static void rtm_debug_guest(u64 has)
{
	guest_eq(wrmsr_try(MSR_IA32_DEBUGCTLMSR, DEBUGCTL_RTM_DEBUG), has ? NO_FAULT : GP0);
	guest_eq(rdmsr(MSR_IA32_DEBUGCTLMSR), has ? DEBUGCTL_RTM_DEBUG : 0);
	guest_done(0);
}

TEST_F(features, transactions_debugged)
{
	vcpu_long(self->v, rtm_debug_guest, offered(self->vm, 7, 0, EBX, 11));
	vcpu_done(self->v);
}

TEST_F(features, bus_lock_detect)
{
	bool has = offered(self->vm, 7, 0, ECX, 24);
	struct vcpu *v = self->v;
	u64 val;

	if (!has && !on_keel())
		SKIP(return, "no BUS_LOCK_DETECT");
	vcpu_long(v, bus_lock_guest, has);
	vcpu_done(v);
	/* INIT has it off again, in the CPU and for whoever asks */
	vcpu_take_init(v);
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_DEBUGCTLMSR, &val));
	EXPECT_EQ(0, val);
	v = untold(self->vm, 7, 0, ECX, 24);
	vcpu_long(v, bus_lock_guest, 0);
	vcpu_done(v);
}

/* Addresses in MSRs are as long as the CPU knows them: they stay over an INIT and an SMI, which clear CR4.LA57 */
TEST_F(features, long_addresses)
{
	static const u32 msrs[] = { MSR_KERNEL_GS_BASE, MSR_LSTAR, MSR_CSTAR };
	bool has = offered(self->vm, 7, 0, ECX, 16);
	const u64 kernel = 0xff11000000000000;	/* where Linux has its memory with five levels */
	struct kvm_sregs s;
	unsigned int i;
	u64 val;

	if (!on_keel())
		SKIP(return, "kvm's module goes by the mode before 6.13");
	vcpu_get_sregs(self->v, &s);
	ASSERT_EQ(0, s.cr4 & X86_CR4_LA57);
	for (i = 0; i < sizeof(msrs) / sizeof(*msrs); i++) {
		EXPECT_EQ(has, vcpu_set_msr(self->v, msrs[i], kernel) == 1);
		EXPECT_EQ(1, vcpu_get_msr(self->v, msrs[i], &val));
		EXPECT_EQ(has ? kernel : 0, val);
		EXPECT_NE(1, vcpu_set_msr(self->v, msrs[i], 1UL << 56));
	}
	if (!has)
		SKIP(return, "all addresses have 48 bits here");
}

static void without_guest(u64 arg)
{
	u64 v;

	guest_eq(guest_try(".byte 0x0f,0x01,0xcf", "a"(0), "b"(HEAP_GPA), "c"(HEAP_GPA)), UD);	/* ENCLS */
	if (arg)
		guest_eq(rdmsr_try(MSR_SMM_CTL, &v), GP0);
	guest_done(0);
}

TEST_F(features, without)
{
	vcpu_long(self->v, without_guest, offered(self->vm, 0x80000021, 0, EAX, 9));
	vcpu_done(self->v);
}

TEST_HARNESS_MAIN
