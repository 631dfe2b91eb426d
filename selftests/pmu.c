// SPDX-License-Identifier: GPL-2.0-only
/*
 * Performance counters: registers, RDPMC, what VMMs may say about them; and, where perf has raw events that count (in the
 * lab: fake-pmu.ko, see selftests/lab/with-fake-pmu), counting, overflow and the event filter.
 */
#include "pmu.h"

#define SEL(n)		(0xc0010000 + (n))
#define CTR(n)		(0xc0010004 + (n))
#define CORE_SEL(n)	(0xc0010200 + 2 * (n))
#define CORE_CTR(n)	(0xc0010201 + 2 * (n))

#define TICKS		0x76UL
#define MASK48		0xffffffffffffUL
#define CORE_FEATURE	(1U << 23)

#define NEED_AMD() do {									\
	if (!host_is_amd() || !offered())						\
		SKIP(return, "no counters of AMD's");					\
} while (0)

#define NEED_FAKE() do {								\
	NEED_AMD();									\
	if (fake("live") < 0)								\
		SKIP(return, "no fake-pmu.ko: selftests/lab/with-fake-pmu");		\
} while (0)

static struct vcpu *vcpu_with(struct vm *vm, int id, bool core)
{
	struct vcpu *v = vcpu_bare(vm, id);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 0x80000001, 0);

	e->ecx = (e->ecx & ~CORE_FEATURE) | (core ? CORE_FEATURE : 0);
	must(ioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	return v;
}

/* ---- registers ---- */

static void storage_guest(u64 core)
{
	int i, n = core ? 6 : 4;
	u64 v;

	for (i = 0; i < 4; i++) {
		guest_eq(rdmsr(SEL(i)), 0);
		guest_eq(rdmsr(CTR(i)), 0);
		wrmsr(CTR(i), 0x1000 + i);
		wrmsr(SEL(i), TICKS | USR | INT | i << 24);
	}
	for (i = 0; i < 4; i++) {
		guest_eq(rdmsr(SEL(i)), TICKS | USR | INT | i << 24);
		guest_eq(rdmsr(CTR(i)), 0x1000 + i);
		guest_eq(rdpmc(i), 0x1000 + i);
	}
	for (i = 0; i < 6; i++) {
		guest_eq(rdmsr_try(CORE_SEL(i), &v), core ? NO_FAULT : GP0);
		guest_eq(rdmsr_try(CORE_CTR(i), &v), core ? NO_FAULT : GP0);
		guest_eq(wrmsr_try(CORE_CTR(i), 7 + i), core ? NO_FAULT : GP0);
		if (core)
			guest_eq(rdpmc(i), 7 + i);
	}
	if (core) {
		guest_eq(rdmsr(CTR(3)), 10);		/* the same counters */
		guest_eq(rdmsr(CORE_SEL(3)), TICKS | USR | INT | 3 << 24);
	}
	wrmsr(CTR(0), ~0UL);
	guest_eq(rdmsr(CTR(0)), MASK48);
	wrmsr(SEL(0), 1UL << 63 | 1UL << 21 | 1UL << 19 | TICKS);
	guest_eq(rdmsr(SEL(0)), TICKS);
	guest_eq(rdpmc_try(n), GP0);
	guest_eq(rdpmc_try(0x80000000), GP0);
	guest_eq(rdpmc_try(~0U), GP0);
	guest_done(0);
}

TEST(storage)
{
	struct vm *vm;
	int core;

	NEED_AMD();
	for (core = 0; core < 2; core++) {
		vm = vm_new(VM_IRQCHIP);
		vcpu_long(vcpu_with(vm, 0, core), storage_guest, core);
		vcpu_done(vm->vcpu[0]);
		vm_free(vm);
	}
}

TEST(save_restore)
{
	struct vm *vm;
	struct vcpu *v;
	struct {
		struct kvm_msr_list l;
		u32 room[1000];
	} list = { .l.nmsrs = 1000 };
	int i, listed = 0;
	u64 val;

	NEED_AMD();
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_with(vm, 0, true);
	must(ioctl(vm->sys, KVM_GET_MSR_INDEX_LIST, &list));
	for (i = 0; i < list.l.nmsrs; i++) {
		u32 m = list.l.indices[i];

		listed += (m >= SEL(0) && m <= CTR(3)) || (m >= CORE_SEL(0) && m <= CORE_CTR(5));
	}
	EXPECT_EQ(8 + 12, listed);
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(1, vcpu_set_msr(v, CORE_SEL(i), TICKS | OS | EN | i << 8));
		ASSERT_EQ(1, vcpu_set_msr(v, CORE_CTR(i), 0x123456789000 + i));
	}
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(1, vcpu_get_msr(v, CORE_SEL(i), &val));
		EXPECT_EQ(TICKS | OS | EN | i << 8, val);
		ASSERT_EQ(1, vcpu_get_msr(v, CORE_CTR(i), &val));
		EXPECT_EQ(0x123456789000 + i, val);
	}
	/* A VMM may save and restore all that is listed where the guest has less. */
	v = vcpu_with(vm, 1, false);
	EXPECT_EQ(1, vcpu_get_msr(v, CORE_CTR(5), &val));
	EXPECT_EQ(0, val);
	EXPECT_EQ(1, vcpu_set_msr(v, CORE_CTR(5), 0));
	EXPECT_EQ(0, vcpu_set_msr(v, CORE_CTR(5), 1));
	vm_free(vm);
}

/* In user mode RDPMC hangs on CR4.PCE, whatever the counter */
static void user_rdpmc_guest(u64 pce)
{
	write_cr4(pce ? read_cr4() | X86_CR4_PCE : read_cr4() & ~X86_CR4_PCE);
	wrmsr(CTR(3), 0x123456789);
	guest_eq(rdpmc(3), 0x123456789);
	asm volatile("pushq %0; pushq %1; pushq $0x3002; pushq %2; pushq $1f\n"
		     "iretq\n1:"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000),
		     "i"(SEL_UCODE64) : "memory");
	guest_eq(rdpmc_try(3), pce ? NO_FAULT : GP0);
	guest_eq(rdpmc_try(4), GP0);
	if (pce)
		guest_eq(rdpmc(3), 0x123456789);
	guest_done(0);
}

TEST(user_rdpmc)
{
	struct vm *vm;
	int pce;

	NEED_AMD();
	for (pce = 0; pce < 2; pce++) {
		vm = vm_new(VM_IRQCHIP);
		vcpu_long(vcpu_with(vm, 0, false), user_rdpmc_guest, pce);
		vcpu_done(vm->vcpu[0]);
		vm_free(vm);
	}
}

/* ---- what VMMs may say ---- */

TEST(filter_errors)
{
	struct vm *vm = vm_new(VM_PLAIN);
	u64 events[400] = { 0 };

	NEED_CAP(vm, KVM_CAP_PMU_EVENT_FILTER);
	EXPECT_EQ(-EINVAL, try_filter(vm, 2, 0, 0, NULL));
	EXPECT_EQ(-EINVAL, try_filter(vm, KVM_PMU_EVENT_ALLOW, 2, 0, NULL));
	EXPECT_EQ(-EINVAL, try_filter(vm, KVM_PMU_EVENT_ALLOW, 3, 0, NULL));
	EXPECT_EQ(-E2BIG, try_filter(vm, KVM_PMU_EVENT_ALLOW, 0, 301, events));
	EXPECT_EQ(-E2BIG, try_filter(vm, KVM_PMU_EVENT_ALLOW, 0, -1, NULL));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, 0, 300, events));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_DENY, 0, 0, NULL));
	EXPECT_EQ(-EFAULT, xioctl(vm->fd, KVM_SET_PMU_EVENT_FILTER, 8));
	vm_free(vm);
}

TEST(filter_bad_events)
{
	struct vm *vm = vm_new(VM_PLAIN);
	char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_pmu_event_filter *f = (void *)(pages + 4096 - sizeof(*f) - 8);

	NEED_CAP(vm, KVM_CAP_PMU_EVENT_FILTER);
	munmap(pages + 4096, 4096);
	f->nevents = 1;
	EXPECT_EQ(0, xioctl(vm->fd, KVM_SET_PMU_EVENT_FILTER, f));
	f->nevents = 2;
	EXPECT_EQ(-EFAULT, xioctl(vm->fd, KVM_SET_PMU_EVENT_FILTER, f));
	vm_free(vm);
}

/* Of an entry with a mask all bits have a meaning, or are none */
TEST(masked_errors)
{
	struct vm *vm = vm_new(VM_PLAIN);
	const u64 high = masked(0x376, 0xff, 1, false);
	u64 events[400] = { masked(0x76, 0xff, 1, true), masked(0xc0, 0, 0, false) };
	int bit;

	NEED_CAP(vm, KVM_CAP_PMU_EVENT_MASKED_EVENTS);
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, 2, events));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_DENY, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, 0, NULL));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_DENY, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, 300, events));
	EXPECT_EQ(-E2BIG, try_filter(vm, KVM_PMU_EVENT_DENY, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, 301, events));
	for (bit = 16; bit < 55; bit++) {
		if (bit == 32)
			bit = 36;
		events[1] = BIT(bit);
		EXPECT_EQ(-EINVAL, try_filter(vm, KVM_PMU_EVENT_ALLOW, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, 2, events))
			TH_LOG("bit %d", bit);
		/* without masks such an entry is merely no event */
		EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, 0, 2, events));
	}
	/* only AMD's events have numbers of more than a byte */
	EXPECT_EQ(host_is_amd() ? 0 : -EINVAL, try_filter(vm, KVM_PMU_EVENT_ALLOW, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, 1, &high));
	vm_free(vm);
}

/* No counters: what old systems touch without asking is empty and stays so, the rest is not there */
static void absent_guest(u64 amd)
{
	static const u32 old[][2] = { { 0xc1, 2 }, { 0x186, 2 }, { SEL(0), 8 } };
	static const u32 none[] = { 0xc3, 0x188, CORE_SEL(0), CORE_CTR(0), CORE_CTR(5) };
	u64 v;
	u32 i, n;

	for (i = 0; i < ARRAY_SIZE(old); i++) {
		for (n = 0; n < old[i][1]; n++) {
			guest_eq(rdmsr_try(old[i][0] + n, &v), NO_FAULT);
			guest_eq(v, 0);
			guest_eq(wrmsr_try(old[i][0] + n, EN | INT | OS | TICKS), NO_FAULT);
			guest_eq(rdmsr(old[i][0] + n), 0);
		}
	}
	for (i = 0; i < ARRAY_SIZE(none); i++) {
		guest_eq(rdmsr_try(none[i], &v), GP0);
		guest_eq(wrmsr_try(none[i], 0), GP0);
	}
	for (i = 0; i < 5; i++)
		guest_eq(rdpmc_try(i), amd && i < 4 ? NO_FAULT : GP0);
	if (amd)
		guest_eq(rdpmc(3), 0);
	guest_done(0);
}

static void no_counters(struct __test_metadata *_metadata, struct vm *vm)
{
	struct vcpu *v = vcpu_with(vm, 0, false);
	u64 val = 1;

	vcpu_long(v, absent_guest, host_is_amd());
	vcpu_done(v);
	EXPECT_EQ(1, vcpu_get_msr(v, SEL(0), &val));
	EXPECT_EQ(0, val);
	EXPECT_EQ(1, vcpu_get_msr(v, CORE_CTR(5), &val));
	EXPECT_EQ(0, val);
	EXPECT_EQ(1, vcpu_set_msr(v, CORE_CTR(5), 0));
	EXPECT_EQ(0, vcpu_set_msr(v, CORE_CTR(5), 1));
	EXPECT_EQ(1, vcpu_set_msr(v, CTR(0), 1));
	EXPECT_EQ(1, vcpu_get_msr(v, CTR(0), &val));
	EXPECT_EQ(0, val);
}

TEST(none)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 0xa, 0);

	if (offered())
		SKIP(return, "there are counters");
	EXPECT_EQ(0, vm_cap(vm, KVM_CAP_PMU_CAPABILITY));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, 0));
	EXPECT_EQ(1, vm_cap(vm, KVM_CAP_PMU_EVENT_FILTER));
	EXPECT_TRUE(!e || !(e->eax | e->ebx | e->ecx | e->edx));
	no_counters(_metadata, vm);
	vm_free(vm);
}

TEST(disabled)
{
	struct vm *vm = vm_new(VM_IRQCHIP);

	NEED_CAP(vm, KVM_CAP_PMU_CAPABILITY);
	EXPECT_EQ(KVM_PMU_CAP_DISABLE, vm_cap(vm, KVM_CAP_PMU_CAPABILITY));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, 2));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, 0));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE));
	no_counters(_metadata, vm);
	/* too late */
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, 0));
	vm_free(vm);
}

/* ---- with something that counts ---- */

static void count_guest(u64 core)
{
	int i, n = core ? 6 : 4;
	u64 a, b;

	for (i = 0; i < n; i++)
		guest_eq(rdpmc(i), 0);
	wrmsr(SEL(0), TICKS | USR | OS | EN);
	b = counts_with_tsc(CTR(0));
	guest_assert(rdpmc(0) >= b);
	/* written while it counts, stopped, written while it does not, started again */
	wrmsr(CTR(0), 1000000000000);
	a = rdmsr(CTR(0));
	guest_assert(a >= 1000000000000 && a < 1000000000000 + 100000000000);
	wrmsr(SEL(0), TICKS | USR | OS);
	a = rdmsr(CTR(0));
	spin(1000000);
	guest_eq(rdmsr(CTR(0)), a);
	wrmsr(CTR(0), 5);
	guest_eq(rdmsr(CTR(0)), 5);
	wrmsr(SEL(0), TICKS | USR | OS | EN);
	spin(1000000);
	a = rdmsr(CTR(0));
	guest_assert(a > 5 && a < 1000000000000);
	/* all at once; neither user nor kernel mode: nothing */
	for (i = 0; i < n; i++)
		wrmsr(core ? CORE_SEL(i) : SEL(i), TICKS | (i == 1 ? 0 : OS) | EN);
	SPIN_WHILE(rdpmc(n - 1) <= 100000, 1000000);
	for (i = 0; i < n; i++)
		guest_assert(i == 1 ? !rdpmc(i) : rdpmc(i) > 100000);
	for (i = 0; i < n; i++)
		wrmsr(core ? CORE_SEL(i) : SEL(i), 0);
	guest_done(0);
}

TEST(counting)
{
	struct vm *vm;
	int core;

	NEED_FAKE();
	for (core = 0; core < 2; core++) {
		vm = vm_new(VM_IRQCHIP);
		vcpu_long(vcpu_with(vm, 0, core), count_guest, core);
		vcpu_done(vm->vcpu[0]);
		vm_free(vm);
		EXPECT_EQ(0, fake("live"));
	}
}

/* The event reaches perf as it was written, modes and modifiers included */
static void echo_one(u64 select, u64 want)
{
	wrmsr(SEL(1), 0);
	wrmsr(CTR(1), 0);
	wrmsr(SEL(1), select | EN);
	guest_eq(rdmsr(CTR(1)), want);
}

static void echo_guest(u64 arg)
{
	u64 config = ECHO | 0x5500 | EDGE | INV | 0x42UL << 24 | 0xfUL << 32;

	echo_one(config | USR | OS, config);
	echo_one(config | USR, config | 1UL << 41);
	echo_one(config | OS | INT, config | 1UL << 40);
	echo_one(ECHO | OS, ECHO | 1UL << 40);
	/* an event perf does not know is storage */
	echo_one(0x11 | OS, 0);
	guest_done(0);
}

TEST(event_as_written)
{
	struct vm *vm;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	vcpu_long(vcpu_with(vm, 0, false), echo_guest, 0);
	vcpu_done(vm->vcpu[0]);
	vm_free(vm);
}

#define PMI_VEC		0x51
#define LVTPC		0x340

static void overflow_guest(u64 nmi)
{
	int vec = nmi ? NMI_VEC : PMI_VEC;

	apic_on();
	guest_on(vec, nmi ? guest_count : guest_count_eoi);
	apic_write(LVTPC, nmi ? 0x400 : PMI_VEC);
	irq_on();
	/* without INT there is none */
	wrmsr(CTR(0), -1000000UL);
	wrmsr(SEL(0), TICKS | OS | EN);
	SPIN_WHILE(rdmsr(CTR(0)) >= 1UL << 47, 20000000);
	guest_assert(rdmsr(CTR(0)) < 1UL << 47);	/* it went over */
	guest_eq(guest_irqs[vec], 0);
	wrmsr(SEL(0), 0);
	wrmsr(CTR(0), -1000000UL);
	wrmsr(SEL(0), TICKS | OS | EN | INT);
	spin_until(&guest_irqs[vec], 1);
	guest_assert(rdmsr(CTR(0)) < 1UL << 47);
	guest_eq(apic_read(LVTPC) & 0x10000, 0);
	/* once: the next is 2^48 away */
	spin(20000000);
	guest_eq(guest_irqs[vec], 1);
	/* again without stopping */
	wrmsr(CTR(0), -2000000UL);
	spin_until(&guest_irqs[vec], 2);
	/* masked */
	apic_write(LVTPC, 0x10000 | (nmi ? 0x400 : PMI_VEC));
	wrmsr(CTR(0), -1000000UL);
	spin(20000000);
	guest_eq(guest_irqs[vec], 2);
	wrmsr(SEL(0), 0);
	guest_done(0);
}

TEST(overflow)
{
	struct vm *vm;
	int nmi;

	NEED_FAKE();
	for (nmi = 0; nmi < 2; nmi++) {
		vm = vm_new(VM_IRQCHIP);
		vcpu_long(vcpu_with(vm, 0, false), overflow_guest, nmi);
		vcpu_done(vm->vcpu[0]);
		vm_free(vm);
	}
	/* without a LAPIC here there is nobody to tell */
	EXPECT_EQ(0, fake("live"));
}

static void filter_guest(u64 arg)
{
	u64 a;
	int i;

	wrmsr(SEL(2), TICKS | 0x100 | OS | EN | 0x01000000);
	for (i = 0;; i++) {
		a = rdmsr(CTR(2));
		spin(3000000);
		guest_sync(rdmsr(CTR(2)) != a);
	}
}

TEST(filter)
{
	static const u64 ours[] = { 0x1fe, 0x100000076, 0x176 }, others[] = { 0x76, 0x276, 0x1000176 };
	struct vm *vm;
	struct vcpu *v;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_with(vm, 0, false);
	vcpu_long(v, filter_guest, 0);
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_DENY, 0, 3, ours));
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_DENY, 0, 3, others));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, 0, 3, others));
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, 0, 3, ours));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, 0, 0, NULL));
	EXPECT_EQ(0, vcpu_sync(v));
	vm_free(vm);
}

/* The guest's is event 0x76, unit mask 1 */
TEST(masked_filter)
{
	static const struct {
		u64 e[3];
		bool listed;
	} cases[] = {
		{ { masked(0x76, 0xff, 1, false) }, true },
		{ { masked(0x76, 0xff, 2, false) }, false },
		{ { masked(0x76, 0xff, 0, false) }, false },
		{ { masked(0x76, 0, 0, false) }, true },
		{ { masked(0x76, 0xfe, 0, false) }, true },
		{ { masked(0x76, 0x0f, 1, false) }, true },
		{ { masked(0x76, 0, 1, false) }, false },		/* no unit mask can be that */
		{ { masked(0x176, 0, 0, false) }, false },
		{ { masked(0x77, 0, 0, false), masked(0x75, 0, 0, false) }, false },
		{ { masked(0x76, 0, 0, true) }, false },
		{ { masked(0x76, 0, 0, false), masked(0x76, 0xff, 1, true) }, false },
		{ { masked(0x76, 0xff, 1, true), masked(0x76, 0, 0, false) }, false },
		{ { masked(0x76, 0, 0, false), masked(0x76, 0xff, 2, true) }, true },
		{ { masked(0x176, 0, 0, true), masked(0x76, 0xff, 1, false), masked(0x75, 0, 0, true) }, true },
	};
	u64 many[300];
	struct vm *vm;
	struct vcpu *v;
	int i, n;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	NEED_CAP(vm, KVM_CAP_PMU_EVENT_MASKED_EVENTS);
	v = vcpu_with(vm, 0, false);
	vcpu_long(v, filter_guest, 0);
	EXPECT_EQ(1, vcpu_sync(v));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		for (n = 1; n < 3 && cases[i].e[n]; n++)
			;
		EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, n, cases[i].e));
		EXPECT_EQ(cases[i].listed, vcpu_sync(v))
			TH_LOG("case %d", i);
		EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_DENY, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, n, cases[i].e));
		EXPECT_EQ(!cases[i].listed, vcpu_sync(v))
			TH_LOG("case %d", i);
	}
	/* found among many, wherever it stands */
	for (n = 0; n < 300; n += 149) {
		for (i = 0; i < 300; i++)
			many[i] = i == n ? masked(0x76, 0xff, 1, false) : masked((i * 7919) % 4096 | 1, 0xff, i, i & 1);
		EXPECT_EQ(0, try_filter(vm, KVM_PMU_EVENT_ALLOW, KVM_PMU_EVENT_FLAG_MASKED_EVENTS, 300, many));
		EXPECT_EQ(1, vcpu_sync(v));
	}
	vm_free(vm);
}

/* Saved while it counts, restored elsewhere, it counts on from there; and in another thread */
TEST(counts_on)
{
	struct vm *vm, *to;
	struct vcpu *v, *w;
	u64 sel, ctr, again;
	int turn;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_with(vm, 0, false);
	vcpu_long(v, filter_guest, 0);
	ctr = 0;
	for (turn = 0; turn < TURNS && ctr <= 1000000; turn++) {
		EXPECT_EQ(1, vcpu_sync(v));
		ASSERT_EQ(1, vcpu_get_msr(v, CTR(2), &ctr));
	}
	ASSERT_EQ(1, vcpu_get_msr(v, SEL(2), &sel));
	EXPECT_LT(1000000, ctr);

	to = vm_new(VM_IRQCHIP);
	w = vcpu_with(to, 0, false);
	vcpu_long(w, filter_guest, 0);
	ASSERT_EQ(1, vcpu_set_msr(w, SEL(2), sel));
	ASSERT_EQ(1, vcpu_set_msr(w, CTR(2), ctr));
	again = ctr;
	for (turn = 0; turn < TURNS && again <= ctr + 1000000; turn++) {
		EXPECT_EQ(1, vcpu_sync(w));
		ASSERT_EQ(1, vcpu_get_msr(w, CTR(2), &again));
	}
	EXPECT_LT(ctr + 1000000, again);
	vm_free(vm);
	vm_free(to);
	EXPECT_EQ(0, fake("live"));
}

static void *sync_in_thread(void *arg)
{
	return (void *)(long)vcpu_sync(arg);
}

TEST(other_thread)
{
	struct vm *vm;
	struct vcpu *v;
	pthread_t t;
	void *counted;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_with(vm, 0, false);
	vcpu_long(v, filter_guest, 0);
	EXPECT_EQ(1, vcpu_sync(v));
	pthread_create(&t, NULL, sync_in_thread, v);
	pthread_join(t, &counted);
	EXPECT_EQ(1, (long)counted);
	EXPECT_EQ(1, vcpu_sync(v));
	vm_free(vm);
}

/* Many, each with its own interrupts, and torn down in the middle */
static volatile u32 go;

static void many_guest(u64 arg)
{
	u32 i;

	apic_on();
	guest_on(PMI_VEC, guest_count_eoi);
	apic_write(LVTPC, PMI_VEC);
	irq_on();
	for (i = 0; i < 20; i++) {
		u64 before;

		wrmsr(SEL(i % 4), 0);
		wrmsr(CTR(i % 4), -500000UL);
		before = rdmsr(CTR(i % 4));
		guest_eq(before, -500000UL & MASK48);
		wrmsr(SEL(i % 4), TICKS | OS | EN | INT);
		while (rdmsr(CTR(i % 4)) > 1UL << 47)
			pause_cpu();
	}
	guest_done(guest_irqs[PMI_VEC] > 0);
}

TEST(many_vcpus)
{
	struct vm *vm;
	int i;

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	for (i = 0; i < 8; i++) {
		struct kvm_mp_state run = { KVM_MP_STATE_RUNNABLE };

		vcpu_long(vcpu_with(vm, i, i % 2), many_guest, 0);
		must(ioctl(vm->vcpu[i]->fd, KVM_SET_MP_STATE, &run));
	}
	for (i = 0; i < 8; i++)
		vcpu_start(vm->vcpu[i]);
	for (i = 0; i < 8; i++)
		EXPECT_EQ(1, vcpu_join(vm->vcpu[i]));
	EXPECT_LT(0, fake("live"));
	vm_free(vm);		/* with all of them counting */
	EXPECT_EQ(0, fake("live"));
}

/* An event that only stops and starts is the same one */
static void restart_guest(u64 arg)
{
	int i;

	for (i = 0; i < 100; i++) {
		wrmsr(SEL(0), TICKS | OS | EN);
		wrmsr(CTR(0), -1000000000UL);
		wrmsr(SEL(0), TICKS | OS);
	}
	guest_done(0);
}

/* Events of the host that are to leave guests out can do so where SVM is on, and are told on each CPU */
TEST(svm_is_told)
{
	struct vm *vm;

	NEED_FAKE();
	vm = vm_new(VM_PLAIN);
	EXPECT_EQ(sysconf(_SC_NPROCESSORS_ONLN), fake("svm_cpus"));
	vm_free(vm);
	EXPECT_EQ(0, fake("svm_cpus"));
}

TEST(events_are_kept)
{
	struct vm *vm;
	long made = fake("made");

	NEED_FAKE();
	vm = vm_new(VM_IRQCHIP);
	vcpu_long(vcpu_with(vm, 0, false), restart_guest, 0);
	vcpu_done(vm->vcpu[0]);
	EXPECT_EQ(1, fake("made") - made);
	vm_free(vm);
}

/* ---- version 2: registers for all of them at once ---- */

#define ALL_STATUS	0xc0000300
#define ALL_CTL		0xc0000301
#define ALL_CLR		0xc0000302
#define ALL_SET		0xc0000303

static void all_at_once_guest(u64 nr)
{
	u64 all = (1UL << nr) - 1, n;
	int i;

	guest_eq(rdmsr(ALL_CTL), all);
	wrmsr(ALL_STATUS, 1);		/* to no effect */
	guest_eq(rdmsr(ALL_STATUS), 0);
	wrmsr(ALL_CTL, 0);
	wrmsr(CORE_CTR(0), 5);
	wrmsr(CORE_SEL(0), TICKS | USR | OS | EN);
	for (i = 0; i < 1000; i++)
		pause_cpu();
	guest_eq(rdpmc(0), 5);
	wrmsr(ALL_CTL, ~0UL);
	guest_eq(rdmsr(ALL_CTL), all);
	while (rdpmc(0) == 5)
		pause_cpu();
	wrmsr(ALL_CTL, all - 1);
	n = rdpmc(0);
	for (i = 0; i < 1000; i++)
		pause_cpu();
	guest_eq(rdpmc(0), n);
	/* it goes over */
	wrmsr(CORE_CTR(0), MASK48 - 1000);
	guest_eq(rdmsr(ALL_STATUS), 0);
	wrmsr(ALL_CTL, 1);
	while (!rdmsr(ALL_STATUS))
		pause_cpu();
	wrmsr(ALL_CTL, 0);
	guest_eq(rdmsr(ALL_STATUS), 1);
	guest_eq(rdmsr(ALL_CLR), 0);
	wrmsr(ALL_CLR, 1);
	guest_eq(rdmsr(ALL_STATUS), 0);
	wrmsr(ALL_SET, ~0UL);
	guest_eq(rdmsr(ALL_STATUS), all);
	guest_eq(rdmsr_try(CORE_CTR(nr), &n), GP0);
	guest_eq(rdpmc_try(nr), GP0);
	guest_done(0);
}

TEST(all_at_once)
{
	struct kvm_cpuid_entry2 *e;
	struct vm *vm;
	struct vcpu *v;
	u64 val;
	u32 nr;

	NEED_FAKE();
	for (nr = 5; nr <= 6; nr++) {
		vm = vm_new(VM_IRQCHIP);
		e = cpuid_find(vm->cpuid, 0x80000022, 0);
		if (!e)
			e = &vm->cpuid->entries[vm->cpuid->nent++];
		*e = (struct kvm_cpuid_entry2){ .function = 0x80000022, .eax = 1, .ebx = nr };
		v = vcpu_with(vm, 0, true);
		vcpu_long(v, all_at_once_guest, nr);
		vcpu_done(v);
		/* A VMM puts back what it saved, and clears nothing by it. */
		EXPECT_EQ(1, vcpu_set_msr(v, ALL_STATUS, 3));
		EXPECT_EQ(1, vcpu_set_msr(v, ALL_CLR, 3));
		EXPECT_EQ(1, vcpu_get_msr(v, ALL_STATUS, &val));
		EXPECT_EQ(3, val);
		vm_free(vm);
	}
	/* Not without being told */
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_with(vm, 0, true);
	EXPECT_EQ(0, vcpu_set_msr(v, ALL_CTL, 1));
	vm_free(vm);
}

TEST_HARNESS_MAIN
