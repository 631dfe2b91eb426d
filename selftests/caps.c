// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a VMM turns on or off with KVM_ENABLE_CAP: old habits of the ABI, exits it
 * does without, hypercalls and failures it answers itself.
 */
#include "test.h"

FIXTURE(caps) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(caps)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(caps)
{
	vm_free(self->vm);
}

/* ---- quirks ---- */

#define MWAIT_BIT	(1U << 3)

static void mwait_guest(u64 want)
{
	u32 r[4];

	cpuid(1, 0, r);
	guest_eq(!!(r[2] & MWAIT_BIT), want == 2);
	want = want == 1 ? UD : NO_FAULT;
	guest_eq(guest_try("monitor", "a"(0x1000), "c"(0), "d"(0)), want);
	guest_eq(guest_try("mwait", "a"(0), "c"(0)), want);
	guest_done(0);
}

static void run_mwait(struct vcpu *v, u64 want)
{
	vcpu_long(v, mwait_guest, want);
	vcpu_done(v);
}

TEST_F(caps, quirks_mwait)
{
	int quirks = vm_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2);
	struct vcpu *v = self->v;

	NEED_CAP(self->vm, KVM_CAP_DISABLE_QUIRKS2);
	EXPECT_EQ(-EINVAL, vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2, quirks | 1UL << 30));
	/* a guest without MWAIT may run it all the same */
	run_mwait(v, 0);
	EXPECT_EQ(0, vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS));
	run_mwait(v, 1);
	/* its MISC_ENABLE says whether it has it */
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MISC_ENABLE, MSR_IA32_MISC_ENABLE_MWAIT));
	run_mwait(v, 1);
	EXPECT_EQ(0, vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS |
				   KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT));
	run_mwait(v, 2);
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MISC_ENABLE, 0));
	run_mwait(v, 1);
}

static const u32 feature_msrs[] = {
	MSR_IA32_UCODE_REV, MSR_PLATFORM_INFO, MSR_IA32_ARCH_CAPABILITIES, MSR_IA32_PERF_CAPABILITIES,
};

/* What a CPU can is the VMM's to say: without the habit it has said nothing yet */
TEST_F(caps, quirks_feature_msrs)
{
	int quirks = vm_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2), i;
	struct vm *vm;
	struct vcpu *v;
	u64 val;

	if (!(quirks & KVM_X86_QUIRK_STUFF_FEATURE_MSRS))
		SKIP(return, "no KVM_X86_QUIRK_STUFF_FEATURE_MSRS");
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_UCODE_REV, &val));
	EXPECT_NE(0, val);
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_PLATFORM_INFO, &val));
	EXPECT_EQ(MSR_PLATFORM_INFO_CPUID_FAULT, val);
	vm = vm_new(VM_IRQCHIP);
	must(vm_enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_STUFF_FEATURE_MSRS));
	v = vcpu_new(vm, 0);
	for (i = 0; i < ARRAY_SIZE(feature_msrs); i++) {
		val = 0;
		vcpu_get_msr(v, feature_msrs[i], &val);		/* what there is not is nothing as well */
		EXPECT_EQ(0, val)
			TH_LOG("MSR %#x", feature_msrs[i]);
	}
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_PLATFORM_INFO, MSR_PLATFORM_INFO_CPUID_FAULT));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_PLATFORM_INFO, &val));
	EXPECT_EQ(MSR_PLATFORM_INFO_CPUID_FAULT, val);
	vm_free(vm);
}

static void uncached_guest(u64 arg)
{
	write_cr0(read_cr0() | X86_CR0_CD);
	guest_eq(!!(read_cr0() & X86_CR0_CD), 1);
	write_cr0(read_cr0() | X86_CR0_NW);
	guest_eq(read_cr0() & (X86_CR0_CD | X86_CR0_NW), X86_CR0_CD | X86_CR0_NW);
	guest_sync(0);
	write_cr0(read_cr0() & ~(X86_CR0_CD | X86_CR0_NW));
	guest_eq(read_cr0() & (X86_CR0_CD | X86_CR0_NW), 0);
	guest_done(0);
}

/* The guest sees what it has written, whatever the CPU makes of it; and what is off stays off */
TEST_F(caps, quirks_cd_nw)
{
	struct kvm_sregs s;
	int i;

	if (!(vm_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2) & KVM_X86_QUIRK_CD_NW_CLEARED))
		SKIP(return, "no KVM_X86_QUIRK_CD_NW_CLEARED");
	for (i = 0; i < 3; i++) {
		vcpu_long(self->v, uncached_guest, 0);
		vcpu_sync(self->v);
		vcpu_get_sregs(self->v, &s);
		EXPECT_EQ(X86_CR0_CD | X86_CR0_NW, s.cr0 & (X86_CR0_CD | X86_CR0_NW));
		vcpu_done(self->v);
		must(vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2, i ? 0 : KVM_X86_QUIRK_CD_NW_CLEARED));
	}
}

/* The LAPIC's page, while nobody answers there */
static void hole_guest(u64 arg)
{
	wrmsr(MSR_IA32_APICBASE, LAPIC_GPA | 0x900 | APICBASE_X2APIC);
	guest_eq(mmio_read32(LAPIC_GPA + 0x30), 0xffffffff);
	mmio_write32(LAPIC_GPA + 0x80, 0);
	guest_sync(0);
	guest_eq(mmio_read32(LAPIC_GPA + 0x30), 0x1234);
	guest_done(0);
}

TEST_F(caps, quirks_lapic)
{
	struct kvm_lapic_state s;
	struct vcpu *v;
	u32 id = 1, lvt0;

	NEED_CAP(self->vm, KVM_CAP_DISABLE_QUIRKS2);
	vcpu_long(self->v, hole_guest, 0);
	vcpu_sync(self->v);
	must(vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_LAPIC_MMIO_HOLE));
	*(u32 *)vcpu_expect_mmio(self->v, false, LAPIC_GPA + 0x30, 4)->mmio.data = 0x1234;
	vcpu_done(self->v);

	/* the first vCPU's LINT0 is open to the PIC, without that quirk it is masked */
	must(ioctl(self->v->fd, KVM_GET_LAPIC, &s));
	memcpy(&lvt0, s.regs + 0x350, 4);
	EXPECT_EQ(0x700, lvt0);
	vm_free(self->vm);
	self->vm = vm_new(VM_IRQCHIP);
	must(vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS, KVM_X86_QUIRK_LINT0_REENABLED));
	must(ioctl(self->vm->fd, KVM_SET_BOOT_CPU_ID, id));
	v = vcpu_new(self->vm, id);
	must(ioctl(v->fd, KVM_GET_LAPIC, &s));
	memcpy(&lvt0, s.regs + 0x350, 4);
	EXPECT_EQ(0x10000, lvt0);
}

/* ---- exits that are not wanted ---- */

static void halt_guest(u64 arg)
{
	guest_on(0x40, guest_count_eoi);
	apic_on();
	apic_write(0x3e0, 0);		/* divide by 2 */
	apic_write(0x320, 0x40);
	guest_sync(0);
	while (!guest_irqs[0x40]) {
		apic_write(0x380, 100000);
		irq_halt();
	}
	guest_done(0);
}

TEST_F(caps, halt_without_exit)
{
	u64 before;

	NEED_CAP(self->vm, KVM_CAP_X86_DISABLE_EXITS);
	EXPECT_EQ(-EINVAL, vm_enable_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS, 1UL << 20));
	/* too late for this one */
	EXPECT_EQ(-EINVAL, vm_enable_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT));
	vm_free(self->vm);
	self->vm = vm_new(VM_IRQCHIP);
	must(vm_enable_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS,
			   KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE));
	self->v = vcpu_new(self->vm, 0);
	vcpu_long(self->v, halt_guest, 0);
	vcpu_sync(self->v);
	before = vcpu_stat(self->v, "halt_exits");
	vcpu_done(self->v);
	EXPECT_EQ(before, vcpu_stat(self->v, "halt_exits"));
}

static void cstate_guest(u64 arg)
{
	u64 v;

	guest_sync(guest_is_amd());
	rdmsr_try(MSR_CORE_C3_RESIDENCY, &v);
	guest_done(0);
}

/* Whether its CPU has such a register or not, it is the CPU that answers; only Intel's have such registers. */
TEST_F(caps, cstates_without_exit)
{
	int off, amd;

	NEED_CAP(self->vm, KVM_CAP_X86_DISABLE_EXITS);
	EXPECT_EQ(KVM_X86_DISABLE_EXITS_CSTATE,
		  vm_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS) & KVM_X86_DISABLE_EXITS_CSTATE);
	for (off = 0; off < 2; off++) {
		vm_free(self->vm);
		self->vm = vm_new(VM_IRQCHIP);
		must(vm_enable_cap(self->vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN));
		if (off)
			must(vm_enable_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_CSTATE));
		self->v = vcpu_new(self->vm, 0);
		vcpu_long(self->v, cstate_guest, 0);
		amd = vcpu_sync(self->v);
		EXPECT_EQ(amd || !off ? KVM_EXIT_X86_RDMSR : KVM_EXIT_IO, vcpu_run(self->v));
	}
}

static void perf_guest(u64 offered)
{
	u64 v;
	u32 i;

	for (i = MSR_IA32_MPERF; i <= MSR_IA32_APERF; i++) {
		guest_eq(rdmsr_try(i, &v), offered ? NO_FAULT : GP0);
		guest_eq(wrmsr_try(i, 0), GP0);
	}
	for (i = 0; offered; i++) {
		v = rdmsr(MSR_IA32_MPERF + (i & 1));
		guest_sync(v);
		guest_sync(v >> 32);
	}
	guest_done(0);
}

static u64 host_msr(u32 msr)
{
	int fd = open("/dev/cpu/0/msr", O_RDONLY);
	u64 v;

	if (fd < 0 || pread(fd, &v, sizeof(v), msr) != sizeof(v))
		v = ~0ULL;
	close(fd);
	return v;
}

static u64 guest_reads(struct vcpu *v)
{
	u64 low = vcpu_sync(v);

	return low | (u64)vcpu_sync(v) << 32;
}

/* MPERF and APERF are the CPU's, to be read; and nothing unless the VMM asks for it, who has none of them itself */
TEST_F(caps, aperfmperf_without_exit)
{
	static u8 none[1];
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW, .ranges = {
		{ .flags = KVM_MSR_FILTER_READ, .nmsrs = 1, .base = MSR_IA32_PLATFORM_ID, .bitmap = none },
	} };
	u64 before, val, after, exits;
	bool unseen = false;
	int i;

	vcpu_long(self->v, perf_guest, 0);
	vcpu_done(self->v);
	vm_free(self->vm);
	self->vm = vm_new(VM_IRQCHIP);
	if (!(vm_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS) & KVM_X86_DISABLE_EXITS_APERFMPERF)) {
		EXPECT_EQ(-EINVAL, vm_enable_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_APERFMPERF));
		SKIP(return, "no APERF and MPERF to be had");
	}
	EXPECT_EQ(0, vm_enable_cap(self->vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_APERFMPERF));
	if (system("modprobe msr") || host_msr(MSR_IA32_MPERF) == ~0ULL)
		SKIP(return, "the host's cannot be read");
	stay_on(0, 0);
	self->v = vcpu_new(self->vm, 0);
	EXPECT_EQ(0, vcpu_get_msr(self->v, MSR_IA32_APERF, &val));
	vcpu_long(self->v, perf_guest, 1);
	for (i = 0; i < 100; i++) {
		/* Where each access is put to the VMM's filter, which allows this one, it is no less there. */
		if (i == 50)
			must(ioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &filter));
		before = host_msr(MSR_IA32_MPERF + (i & 1));
		exits = vcpu_stat(self->v, "exits");
		val = guest_reads(self->v);
		/* What tells of it are two exits, and a timer's interrupt may have been another. */
		unseen |= i < 50 && vcpu_stat(self->v, "exits") - exits == 2;
		after = host_msr(MSR_IA32_MPERF + (i & 1));
		EXPECT_LE(before, val);
		EXPECT_LE(val, after);
	}
	EXPECT_TRUE(unseen);
}

/* ---- hypercalls ---- */

static void map_guest(u64 offered)
{
	if (!offered) {
		guest_eq(hypercall(KVM_HC_MAP_GPA_RANGE, 0x1000, 1), -1000);
		guest_done(0);
	}
	guest_eq(hypercall(KVM_HC_MAP_GPA_RANGE, 0x1000, 5), 0x77);
	guest_eq(hypercall(KVM_HC_MAP_GPA_RANGE, 0x1001, 1), -EINVAL);
	guest_eq(hypercall(KVM_HC_MAP_GPA_RANGE, 0x1000, 0), -EINVAL);
	guest_eq(hypercall(KVM_HC_MAP_GPA_RANGE, 0x1000, -1UL), -EINVAL);
	guest_done(0);
}

TEST_F(caps, hypercall_to_user)
{
	struct kvm_run *run = self->v->run;

	NEED_CAP(self->vm, KVM_CAP_EXIT_HYPERCALL);
	EXPECT_EQ(1 << KVM_HC_MAP_GPA_RANGE, vm_cap(self->vm, KVM_CAP_EXIT_HYPERCALL));
	vcpu_long(self->v, map_guest, 0);
	vcpu_done(self->v);
	EXPECT_EQ(-EINVAL, vm_enable_cap(self->vm, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_VAPIC_POLL_IRQ));
	must(vm_enable_cap(self->vm, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE));
	vcpu_long(self->v, map_guest, 1);
	vcpu_expect(self->v, KVM_EXIT_HYPERCALL);
	EXPECT_EQ(KVM_HC_MAP_GPA_RANGE, run->hypercall.nr);
	EXPECT_EQ(0x1000, run->hypercall.args[0]);
	EXPECT_EQ(5, run->hypercall.args[1]);
	EXPECT_EQ(0, run->hypercall.args[2]);
	EXPECT_EQ(1, run->hypercall.longmode);	/* of the flags, as they are called now, the only one */
	EXPECT_EQ(0, run->hypercall.pad);
	EXPECT_EQ(0, run->hypercall.ret);	/* until the VMM says otherwise */
	run->hypercall.ret = 0x77;
	vcpu_done(self->v);
}

/* ---- failures of emulation ---- */

static void user_aes_guest(u64 arg)
{
	/* in ring 3: SS, RSP, RFLAGS, CS, RIP */
	asm volatile("pushq %0; pushq %1; pushq $0x3002; pushq %2; pushq $1f\n"
		     "iretq\n1: aesenc (%3),%%xmm0"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000),
		     "i"(SEL_UCODE64), "r"(HOLE_GPA) : "memory");
	guest_done(0);
}

TEST_F(caps, emulation_failure_of_user_code)
{
	struct kvm_vcpu_events e;
	struct kvm_regs r;
	struct vcpu *v = self->v;

	NEED_CAP(self->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE);
	must(vm_enable_cap(self->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1));
	vcpu_long(v, user_aes_guest, 0);
	vcpu_expect(v, KVM_EXIT_INTERNAL_ERROR);
	EXPECT_EQ(KVM_INTERNAL_ERROR_EMULATION, v->run->emulation_failure.suberror);
	must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
	EXPECT_EQ(0, e.exception.injected);
	EXPECT_EQ(0, e.exception.pending);
	vcpu_get_regs(v, &r);
	r.rip += 5;
	vcpu_set_regs(v, &r);
	vcpu_done(v);
}

/* A CPU without XSAVE (or L1 with noxsave) has no such registers. */
TEST_F(caps, xcrs)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value = 1 };
	int has = vm_cap(self->vm, KVM_CAP_XCRS);

	EXPECT_EQ(!!(cpuid_find(self->vm->cpuid, 1, 0)->ecx & 1 << 26), has);
	EXPECT_EQ(has ? 0 : -EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
}

/* ---- MSRs about the platform ---- */

static void platform_guest(u64 arg)
{
	u64 val;

	guest_eq(rdmsr_try(MSR_PLATFORM_INFO, &val), arg ? NO_FAULT : GP0);
	guest_eq(wrmsr_try(MSR_PLATFORM_INFO, 0), GP0);
	guest_eq(wrmsr_try(MSR_IA32_POWER_CTL, 0x1234), NO_FAULT);
	guest_eq(rdmsr(MSR_IA32_POWER_CTL), 0x1234);
	guest_done(0);
}

TEST_F(caps, platform_info)
{
	NEED_CAP(self->vm, KVM_CAP_MSR_PLATFORM_INFO);
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_PLATFORM_INFO, MSR_PLATFORM_INFO_CPUID_FAULT | 0xff00));
	vcpu_long(self->v, platform_guest, 1);
	vcpu_done(self->v);
	must(vm_enable_cap(self->vm, KVM_CAP_MSR_PLATFORM_INFO, 0));
	vcpu_long(self->v, platform_guest, 0);
	vcpu_done(self->v);
}

static void cpuid_fault_guest(u64 arg)
{
	guest_eq(wrmsr_try(MSR_MISC_FEATURES_ENABLES, 2), GP0);
	wrmsr(MSR_MISC_FEATURES_ENABLES, MSR_MISC_FEATURES_ENABLES_CPUID_FAULT);
	guest_eq(guest_try("cpuid", "a"(0), "b"(0), "c"(0), "d"(0)), NO_FAULT);
	asm volatile("pushq %0; pushq %1; pushq $0x3002; pushq %2; pushq $1f\n"
		     "iretq\n1:"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000),
		     "i"(SEL_UCODE64) : "memory");
	guest_eq(guest_try("cpuid", "a"(0), "b"(0), "c"(0), "d"(0)), GP0);
	guest_done(0);
}

TEST_F(caps, cpuid_faults)
{
	u64 val;

	vcpu_long(self->v, cpuid_fault_guest, 0);
	vcpu_done(self->v);
	/* what the guest uses is not taken away */
	EXPECT_EQ(0, vcpu_set_msr(self->v, MSR_PLATFORM_INFO, 0));
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_MISC_FEATURES_ENABLES, 0));
	EXPECT_EQ(0, vcpu_set_msr(self->v, MSR_MISC_FEATURES_ENABLES, 2));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_MISC_FEATURES_ENABLES, &val));
	EXPECT_EQ(0, val);
}

/* ---- registers set between an exit and its answer ---- */

static void answer_guest(u64 arg)
{
	u64 cx = 3;
	u8 *di = (u8 *)HEAP_GPA;

	guest_eq(inb(0x80), 0x5a);
	guest_eq(mmio_read32(HOLE_GPA), 0x11223344);
	asm volatile("rep insb" : "+D"(di), "+c"(cx) : "d"(0x81) : "memory");
	guest_eq(cx, 0);
	guest_eq(*(u8 *)HEAP_GPA, 0x33);
	guest_sync(inb(0x82));
	guest_done(0);
}

static void set_again(struct vcpu *v)
{
	struct kvm_sregs s;
	struct kvm_regs r;

	vcpu_get_regs(v, &r);
	vcpu_get_sregs(v, &s);
	vcpu_set_sregs(v, &s);
	vcpu_set_regs(v, &r);
}

TEST_F(caps, answers_after_set_regs)
{
	struct vcpu *v = self->v;
	struct kvm_regs r;
	u8 *p;

	vcpu_long(v, answer_guest, 0);
	*vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x80, 1, 1) = 0x5a;
	set_again(v);
	*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA, 4)->mmio.data = 0x11223344;
	set_again(v);
	p = vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x81, 1, 3);
	memset(p, 0x33, 3);
	/* fewer are wanted now than were asked for */
	vcpu_get_regs(v, &r);
	r.rcx = 1;
	vcpu_set_regs(v, &r);
	/* elsewhere the answer is nobody's */
	p = vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x82, 1, 1);
	*p = 9;
	vcpu_long(v, answer_guest, 0);
	*vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x80, 1, 1) = 0x5a;
	vcpu_expect_mmio(v, false, HOLE_GPA, 4);
}

TEST_HARNESS_MAIN
