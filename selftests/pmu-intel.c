// SPDX-License-Identifier: GPL-2.0-only
/*
 * Intel's architectural performance counters: CPUID leaf 0xA, registers, RDPMC, and, where perf has raw events that count (in
 * the lab: fake-pmu.ko, see selftests/lab/with-fake-pmu), counting, overflow and the event filter.
 */
#include "pmu.h"

#define CTR(n)		(0xc1 + (n))
#define SEL(n)		(0x186 + (n))
#define WIDE(n)		(0x4c1 + (n))
#define FIXED(n)	(0x309 + (n))
#define FIXED_CTRL	0x38d
#define STATUS		0x38e
#define GLOBAL		0x38f
#define OVF_CTRL	0x390
#define CAPABILITIES	0x345
#define FULL_WIDTH	(1UL << 13)

#define CYCLES		0x3cUL
#define PIN		(1UL << 19)
#define ALL		(0xfUL | 7UL << 32)
#define RDPMC_FIXED	(1U << 30)
#define PDCM		(1U << 15)

#define NEED_INTEL() do {								\
	if (host_is_amd() || !offered())						\
		SKIP(return, "no counters of Intel's");					\
} while (0)

#define NEED_FAKE() do {								\
	NEED_INTEL();									\
	if (fake("live") < 0)								\
		SKIP(return, "no fake-pmu.ko: selftests/lab/with-fake-pmu");		\
} while (0)

/* @version of the leaf, 0: as offered */
static struct vcpu *vcpu_with(struct vm *vm, int id, u32 version, bool pdcm)
{
	struct vcpu *v = vcpu_bare(vm, id);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 0xa, 0);

	if (version)
		e->eax = (e->eax & ~0xff) | version;
	e = cpuid_find(vm->cpuid, 1, 0);
	e->ecx = (e->ecx & ~PDCM) | (pdcm ? PDCM : 0);
	must(ioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	return v;
}

static bool listed(struct vm *vm, u32 msr)
{
	struct {
		struct kvm_msr_list l;
		u32 room[1000];
	} list = { .l.nmsrs = 1000 };
	int i;

	must(ioctl(vm->sys, KVM_GET_MSR_INDEX_LIST, &list));
	for (i = 0; i < list.l.nmsrs; i++)
		if (list.l.indices[i] == msr)
			return true;
	return false;
}

TEST(leaf_a)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 0xa, 0);
	u32 general, fixed, i;

	NEED_INTEL();
	ASSERT_TRUE(e != NULL);
	EXPECT_LE(1, e->eax & 0xff);
	EXPECT_GE(2, e->eax & 0xff);
	general = e->eax >> 8 & 0xff;
	fixed = e->edx & 0x1f;
	if (fake("live") >= 0) {
		EXPECT_EQ(2 | 4 << 8 | 48 << 16 | 7 << 24, e->eax);
		EXPECT_EQ(0, e->ebx);
		EXPECT_EQ(0, e->ecx);
		EXPECT_EQ(3 | 48 << 5 | 1 << 15, e->edx);
	}
	EXPECT_TRUE(cpuid_find(vm->cpuid, 1, 0)->ecx & PDCM);
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(i < general, listed(vm, CTR(i)));
		EXPECT_EQ(i < general, listed(vm, SEL(i)));
	}
	for (i = 0; i < 3; i++)
		EXPECT_EQ(i < fixed, listed(vm, FIXED(i)));
	for (i = FIXED_CTRL; i <= OVF_CTRL; i++)
		EXPECT_TRUE(listed(vm, i));
	EXPECT_TRUE(listed(vm, CAPABILITIES));
	EXPECT_FALSE(listed(vm, 0xc0010000));
	vm_free(vm);
}

/* ---- registers ---- */

static void storage_guest(u64 pdcm)
{
	u64 v;
	u32 i;

	guest_eq(rdmsr(GLOBAL), 0xf);			/* as at power-on */
	guest_eq(rdmsr(FIXED_CTRL), 0);
	guest_eq(rdmsr(STATUS), 0);
	wrmsr(GLOBAL, 0);
	for (i = 0; i < 4; i++) {
		guest_eq(rdmsr(SEL(i)), 0);
		guest_eq(rdmsr(CTR(i)), 0);
		wrmsr(SEL(i), CYCLES | USR | INT | EN | i << 24);
		wrmsr(CTR(i), 0x1000 + i);
	}
	for (i = 0; i < 3; i++)
		wrmsr(FIXED(i), 0x123456789000 + i);
	for (i = 0; i < 4; i++) {
		guest_eq(rdmsr(SEL(i)), CYCLES | USR | INT | EN | i << 24);
		guest_eq(rdmsr(CTR(i)), 0x1000 + i);
		guest_eq(rdpmc(i), 0x1000 + i);
	}
	for (i = 0; i < 3; i++) {
		guest_eq(rdmsr(FIXED(i)), 0x123456789000 + i);
		guest_eq(rdpmc(RDPMC_FIXED | i), 0x123456789000 + i);
	}
	/* 32 bits and their sign; the other name takes all there are */
	wrmsr(CTR(0), 0x5580000000);
	guest_eq(rdmsr(CTR(0)), 0xffff80000000);
	wrmsr(CTR(0), 0x557fffffff);
	guest_eq(rdmsr(CTR(0)), 0x7fffffff);
	guest_eq(rdmsr_try(WIDE(0), &v), pdcm ? NO_FAULT : GP0);
	guest_eq(wrmsr_try(WIDE(0), 0x923456789abc), pdcm ? NO_FAULT : GP0);
	if (pdcm) {
		guest_eq(rdmsr(CTR(0)), 0x923456789abc);
		guest_eq(wrmsr_try(WIDE(0), 1UL << 48), GP0);
		guest_eq(rdmsr(WIDE(0)), 0x923456789abc);
	}
	guest_eq(rdmsr_try(CAPABILITIES, &v), pdcm ? NO_FAULT : GP0);
	guest_eq(v, pdcm ? FULL_WIDTH : 0);
	guest_eq(wrmsr_try(CAPABILITIES, 0), GP0);
	/* reserved bits, registers and counters */
	guest_eq(wrmsr_try(SEL(0), 1UL << 21), GP0);
	guest_eq(wrmsr_try(SEL(0), 1UL << 32), GP0);
	guest_eq(wrmsr_try(FIXED_CTRL, 4), GP0);
	guest_eq(wrmsr_try(FIXED_CTRL, 0x1000), GP0);
	guest_eq(wrmsr_try(FIXED_CTRL, 0xbbb), NO_FAULT);
	guest_eq(rdmsr(FIXED_CTRL), 0xbbb);
	guest_eq(wrmsr_try(GLOBAL, 0x10), GP0);
	guest_eq(wrmsr_try(GLOBAL, 1UL << 35), GP0);
	guest_eq(wrmsr_try(STATUS, 0), GP0);
	guest_eq(rdmsr(OVF_CTRL), 0);
	guest_eq(wrmsr_try(OVF_CTRL, 0x10), GP0);
	guest_eq(wrmsr_try(OVF_CTRL, ALL | 3UL << 62), NO_FAULT);
	guest_eq(rdmsr_try(CTR(4), &v), GP0);
	guest_eq(rdmsr_try(SEL(4), &v), GP0);
	guest_eq(wrmsr_try(WIDE(4), 0), GP0);
	guest_eq(rdpmc_try(4), GP0);
	guest_eq(rdpmc_try(RDPMC_FIXED | 3), GP0);
	guest_eq(rdpmc_try(1U << 31), GP0);
	guest_eq(rdpmc_try(~0U), GP0);
	/* AMD's: empty, as without any */
	wrmsr(0xc0010000, EN);
	guest_eq(rdmsr(0xc0010000), 0);
	guest_eq(rdmsr_try(0xc0010200, &v), GP0);
	guest_done(0);
}

TEST(storage)
{
	struct vm *vm;
	int pdcm;

	NEED_FAKE();
	for (pdcm = 0; pdcm < 2; pdcm++) {
		vm = vm_new(VM_IRQCHIP);
		vcpu_long(vcpu_with(vm, 0, 0, pdcm), storage_guest, pdcm);
		vcpu_done(vm->vcpu[0]);
		vm_free(vm);
	}
}

/* No PMU in a VM that could have one: PDCM stands for a register, which says so */
static void without_guest(u64 pdcm)
{
	u64 v;
	u32 i;

	guest_eq(rdmsr_try(CAPABILITIES, &v), pdcm ? NO_FAULT : GP0);
	guest_eq(v, 0);
	guest_eq(wrmsr_try(CAPABILITIES, 0), GP0);
	for (i = FIXED_CTRL; i <= OVF_CTRL; i++)
		guest_eq(rdmsr_try(i, &v), GP0);
	guest_eq(rdmsr_try(FIXED(0), &v), GP0);
	guest_eq(rdmsr_try(WIDE(0), &v), GP0);
	guest_eq(rdpmc_try(0), GP0);
	guest_eq(rdpmc_try(RDPMC_FIXED), GP0);
	guest_done(0);
}

TEST(without)
{
	struct vm *vm;
	struct vcpu *v;
	u64 val;
	int pdcm;

	if (host_is_amd())
		SKIP(return, "an AMD CPU");
	for (pdcm = 0; pdcm < 2; pdcm++) {
		vm = vm_new(VM_IRQCHIP);
		if (offered())
			EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE));
		v = vcpu_with(vm, 0, 0, pdcm);
		vcpu_long(v, without_guest, pdcm);
		vcpu_done(v);
		EXPECT_EQ(1, vcpu_get_msr(v, FIXED(2), &val));
		EXPECT_EQ(0, val);
		EXPECT_EQ(1, vcpu_set_msr(v, GLOBAL, 0));
		EXPECT_EQ(0, vcpu_set_msr(v, GLOBAL, 1));
		vm_free(vm);
	}
}

/* Version 1: general counters, and nothing that turns them on or off all at once */
static void old_guest(u64 arg)
{
	u64 v;
	u32 i;

	for (i = FIXED_CTRL; i <= OVF_CTRL; i++)
		guest_eq(rdmsr_try(i, &v), GP0);
	guest_eq(rdmsr_try(FIXED(0), &v), GP0);
	guest_eq(rdpmc_try(RDPMC_FIXED), GP0);
	wrmsr(SEL(3), CYCLES | OS | EN);
	SPIN_WHILE(rdpmc(3) <= 100000, 1000000);
	guest_assert(rdpmc(3) > 100000);
	guest_done(0);
}

TEST(version_1)
{
	struct vm *vm;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	vcpu_long(vcpu_with(vm, 0, 1, false), old_guest, 0);
	vcpu_done(vm->vcpu[0]);
	vm_free(vm);
}

TEST(save_restore)
{
	struct vm *vm;
	struct vcpu *v;
	u64 val;
	int i;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_with(vm, 0, 0, true);
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(1, vcpu_set_msr(v, SEL(i), CYCLES | OS | EN | i << 8));
		ASSERT_EQ(1, vcpu_set_msr(v, CTR(i), 0x923456789000 + i));	/* not of 32 bits */
		ASSERT_EQ(1, vcpu_get_msr(v, CTR(i), &val));
		EXPECT_EQ(0x923456789000 + i, val);
	}
	ASSERT_EQ(1, vcpu_set_msr(v, FIXED(2), 0x123456789abc));
	ASSERT_EQ(1, vcpu_get_msr(v, FIXED(2), &val));
	EXPECT_EQ(0x123456789abc, val);
	ASSERT_EQ(1, vcpu_set_msr(v, FIXED_CTRL, 0xb0a));
	ASSERT_EQ(1, vcpu_get_msr(v, FIXED_CTRL, &val));
	EXPECT_EQ(0xb0a, val);
	ASSERT_EQ(1, vcpu_set_msr(v, STATUS, 1UL << 34 | 2));
	ASSERT_EQ(1, vcpu_set_msr(v, OVF_CTRL, 2));		/* that is an act, and the guest's */
	ASSERT_EQ(1, vcpu_get_msr(v, STATUS, &val));
	EXPECT_EQ(1UL << 34 | 2, val);
	ASSERT_EQ(1, vcpu_set_msr(v, GLOBAL, ALL));
	ASSERT_EQ(1, vcpu_get_msr(v, GLOBAL, &val));
	EXPECT_EQ(ALL, val);
	EXPECT_EQ(0, vcpu_set_msr(v, GLOBAL, ALL + 1));
	ASSERT_EQ(1, vcpu_get_msr(v, CAPABILITIES, &val));
	EXPECT_EQ(FULL_WIDTH, val);
	EXPECT_EQ(0, vcpu_set_msr(v, CAPABILITIES, FULL_WIDTH | 1));
	EXPECT_EQ(1, vcpu_set_msr(v, CAPABILITIES, 0));
	EXPECT_EQ(0, vcpu_set_msr(v, WIDE(0), 1));
	vm_free(vm);
}

/* ---- with something that counts ---- */

static void count_guest(u64 arg)
{
	u64 a, b;
	int i;

	wrmsr(SEL(0), CYCLES | USR | OS | EN);
	b = counts_with_tsc(CTR(0));
	guest_assert(rdpmc(0) >= b);
	/* stopped and started by the register that is for all */
	wrmsr(GLOBAL, 0);
	a = rdmsr(CTR(0));
	spin(1000000);
	guest_eq(rdmsr(CTR(0)), a);
	wrmsr(GLOBAL, 1);
	SPIN_WHILE(rdmsr(CTR(0)) <= a + 100000, 1000000);
	guest_assert(rdmsr(CTR(0)) > a + 100000);
	wrmsr(SEL(0), 0);
	/* fixed ones: off by GLOBAL_CTRL, by their own field, on by both */
	wrmsr(FIXED_CTRL, 0x203);
	spin(1000000);
	guest_eq(rdmsr(FIXED(0)), 0);
	wrmsr(GLOBAL, ALL);
	SPIN_WHILE((rdpmc(RDPMC_FIXED) <= 100000 || rdmsr(FIXED(2)) <= 100000), 1000000);
	guest_assert(rdpmc(RDPMC_FIXED) > 100000);
	guest_eq(rdmsr(FIXED(1)), 0);
	guest_assert(rdmsr(FIXED(2)) > 100000);
	/* all there are */
	wrmsr(FIXED_CTRL, 0x111);
	for (i = 0; i < 4; i++) {
		wrmsr(CTR(i), 0);
		wrmsr(SEL(i), CYCLES | (i == 1 ? 0 : OS) | EN);
	}
	SPIN_WHILE(rdpmc(3) <= 100000, 1000000);
	for (i = 0; i < 4; i++)
		guest_assert(i == 1 ? !rdpmc(i) : rdpmc(i) > 100000);
	for (i = 0; i < 3; i++)
		guest_assert(rdpmc(RDPMC_FIXED | i) > 100000);
	guest_done(0);
}

TEST(counting)
{
	struct vm *vm;
	long switched;

	NEED_FAKE();
	switched = fake("switched");
	vm = vm_new(VM_IRQCHIP);
	vcpu_long(vcpu_with(vm, 0, 0, true), count_guest, 0);
	vcpu_done(vm->vcpu[0]);
	/* perf was asked what GLOBAL_CTRL is to be in the guest whenever that could have changed */
	EXPECT_LT(switched + 10, fake("switched"));
	EXPECT_EQ(0, fake("blind"));
	vm_free(vm);
	EXPECT_EQ(0, fake("live"));
}

static void idle_guest(u64 arg)
{
	u32 r[4];
	int i;

	for (i = 0; i < 100; i++)
		cpuid(0, 0, r);
	guest_done(0);
}

/* Perf has nothing new to say while nothing but the guest's exits happen */
TEST(asked_when_it_matters)
{
	struct vm *vm;
	long switched;

	NEED_FAKE();
	switched = fake("switched");
	vm = vm_new(VM_IRQCHIP);
	vcpu_long(vcpu_with(vm, 0, 0, true), idle_guest, 0);
	vcpu_done(vm->vcpu[0]);
	EXPECT_LT(switched, fake("switched"));
	EXPECT_GT(switched + 100, fake("switched"));
	vm_free(vm);
}

/* What the host's perf uses is kept out of guests, also of those that count nothing, or may not */
static void exchange_guest(u64 gs)
{
	int i;

	for (i = 0; i < 100; i++) {
		if (gs)
			guest_eq(rdmsr(0xc0000102), gs);
		spin(100000);
	}
	guest_done(0);
}

TEST(exchange)
{
	struct vm *vm;
	struct vcpu *v;
	long writes;
	u64 val;
	int pmu;

	NEED_FAKE();
	for (pmu = 0; pmu < 2; pmu++) {
		vm = vm_new(VM_IRQCHIP);
		if (!pmu)
			EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE));
		v = vcpu_with(vm, 0, 0, true);
		/* PEBS stands still before an entry; where the CPU sees to that by itself nobody touches it */
		fake_set("exchange", 1);
		writes = fake("pebs_writes");
		vcpu_long(v, exchange_guest, 0);
		vcpu_done(v);
		EXPECT_LT(writes, fake("pebs_writes"));
		fake_set("exchange", 2);
		writes = fake("pebs_writes");
		vcpu_long(v, exchange_guest, 0);
		vcpu_done(v);
		EXPECT_EQ(writes, fake("pebs_writes"));
		/* what is exchanged is seen by guest and host */
		fake_set("exchange", 3);
		vcpu_long(v, exchange_guest, 0x1234000);
		vcpu_done(v);
		ASSERT_EQ(1, vcpu_get_msr(v, 0xc0000102, &val));
		EXPECT_EQ(0xabcd000, val);
		/* and no more when it is the same again */
		fake_set("exchange", 0);
		ASSERT_EQ(1, vcpu_set_msr(v, 0xc0000102, 0x777000));
		vcpu_long(v, exchange_guest, 0x777000);
		vcpu_done(v);
		vm_free(vm);
	}
	EXPECT_EQ(0, fake("blind"));
}

/* Processor Trace hears of VMX, on each CPU, for as long as there is a VM */
TEST(vmx_is_told)
{
	struct vm *vm;

	NEED_FAKE();
	vm = vm_new(VM_PLAIN);
	EXPECT_EQ(sysconf(_SC_NPROCESSORS_ONLN), fake("vmx_cpus"));
	vm_free(vm);
	EXPECT_EQ(0, fake("vmx_cpus"));
}

static void one_event_guest(u64 arg)
{
	u64 config = ECHO | 0x5500 | EDGE | INV | 0x42UL << 24;

	wrmsr(SEL(1), config | USR | PIN | EN);
	guest_eq(rdmsr(SEL(1)), config | USR | PIN | EN);
	guest_eq(rdmsr(CTR(1)), config | 1UL << 41);
	wrmsr(SEL(1), 0);
	guest_sync(0);
	wrmsr(GLOBAL, ALL);
	wrmsr(FIXED_CTRL, 0x001);
	guest_sync(0);
	wrmsr(FIXED_CTRL, 0x030);
	guest_sync(0);
	wrmsr(FIXED_CTRL, 0x200);
	guest_sync(0);
	/* one that CPUID denies */
	wrmsr(SEL(1), 0xc0 | OS | EN);
	guest_eq(rdmsr(CTR(1)), config | 1UL << 41);
	spin(1000000);
	guest_eq(rdmsr(CTR(1)), config | 1UL << 41);
	guest_done(0);
}

/* What perf gets to hear: the event as it was written, and of fixed counters the one they are fixed to */
TEST(events)
{
	struct vm *vm;
	struct vcpu *v;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	cpuid_find(vm->cpuid, 0xa, 0)->ebx |= 2;	/* no instructions retired */
	v = vcpu_with(vm, 0, 0, false);
	vcpu_long(v, one_event_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(ECHO | 0x5500 | EDGE | INV | 0x42UL << 24, fake("last"));
	vcpu_sync(v);
	EXPECT_EQ(0xc0, fake("last"));
	vcpu_sync(v);
	EXPECT_EQ(0x3c, fake("last"));
	vcpu_sync(v);
	EXPECT_EQ(0x300, fake("last"));
	vcpu_done(v);
	vm_free(vm);
}

#define PMI_VEC		0x51
#define LVTPC		0x340
#define MASKED		0x10000

static void overflow_guest(u64 fixed)
{
	u32 ctr = fixed ? FIXED(1) : CTR(0);
	u64 bit = fixed ? 1UL << 33 : 1;
	int i;

	apic_on();
	guest_on(PMI_VEC, guest_count_eoi);
	apic_write(LVTPC, PMI_VEC);
	irq_on();
	wrmsr(GLOBAL, ALL);
	/* it is told of in the status also without an interrupt */
	wrmsr(ctr, fixed ? -1000000UL & 0xffffffffffff : -1000000UL);
	fixed ? wrmsr(FIXED_CTRL, 0x010) : wrmsr(SEL(0), CYCLES | OS | EN);
	while (!(rdmsr(STATUS) & bit))
		pause_cpu();
	guest_eq(rdmsr(STATUS), bit);
	guest_assert(rdmsr(ctr) < 1UL << 47);
	guest_eq(guest_irqs[PMI_VEC], 0);
	wrmsr(OVF_CTRL, bit);
	guest_eq(rdmsr(STATUS), 0);
	fixed ? wrmsr(FIXED_CTRL, 0x090) : wrmsr(SEL(0), CYCLES | OS | INT | EN);
	for (i = 1; i < 4; i++) {
		wrmsr(ctr, fixed ? -1000000UL & 0xffffffffffff : -1000000UL);
		spin_until(&guest_irqs[PMI_VEC], i);
		guest_eq(rdmsr(STATUS), bit);
		guest_eq(apic_read(LVTPC), PMI_VEC | MASKED);
		wrmsr(OVF_CTRL, bit);
		apic_write(LVTPC, PMI_VEC);
	}
	/* masked */
	apic_write(LVTPC, PMI_VEC | MASKED);
	wrmsr(ctr, fixed ? -1000000UL & 0xffffffffffff : -1000000UL);
	while (!(rdmsr(STATUS) & bit))
		pause_cpu();
	guest_eq(guest_irqs[PMI_VEC], 3);
	guest_done(0);
}

TEST(overflow)
{
	struct vm *vm;
	int fixed;

	NEED_FAKE();
	for (fixed = 0; fixed < 2; fixed++) {
		vm = vm_new(VM_IRQCHIP);
		vcpu_long(vcpu_with(vm, 0, 0, false), overflow_guest, fixed);
		vcpu_done(vm->vcpu[0]);
		vm_free(vm);
	}
	EXPECT_EQ(0, fake("live"));
}

/* Bit 0: the general counter counts, bit 1: the fixed one */
static void filter_guest(u64 arg)
{
	u64 a, b;

	wrmsr(GLOBAL, ALL);
	wrmsr(SEL(2), CYCLES | 0x100 | OS | EN | 0x01000000);
	wrmsr(FIXED_CTRL, 0x010);
	for (;;) {
		a = rdmsr(CTR(2));
		b = rdmsr(FIXED(1));
		spin(3000000);
		guest_sync((rdmsr(CTR(2)) != a) | (rdmsr(FIXED(1)) != b) << 1);
	}
}

TEST(filter)
{
	static const u64 ours[] = { 0x1fe, 0x13c }, others[] = { 0x3c, 0x23c, 0x100013c };
	struct vm *vm;
	struct vcpu *v;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_with(vm, 0, 0, false);
	vcpu_long(v, filter_guest, 0);
	EXPECT_EQ(3, vcpu_sync(v));
	EXPECT_EQ(0, try_filter_fixed(vm, KVM_PMU_EVENT_DENY, 0, 2, ours, 0));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, try_filter_fixed(vm, KVM_PMU_EVENT_DENY, 0, 3, others, 2));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, try_filter_fixed(vm, KVM_PMU_EVENT_ALLOW, 0, 2, ours, 5));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, try_filter_fixed(vm, KVM_PMU_EVENT_ALLOW, 0, 3, others, 2));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, try_filter_fixed(vm, KVM_PMU_EVENT_DENY, 0, 0, NULL, 0));
	EXPECT_EQ(3, vcpu_sync(v));
	vm_free(vm);
	EXPECT_EQ(0, fake("live"));
}

TEST_HARNESS_MAIN
