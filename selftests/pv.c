// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a guest that knows KVM gets of it: stolen time and who runs, end of
 * interrupt without an exit, IPIs to many, kicks, yields, and the VMM's say in
 * all of it. Asynchronous page faults are in apf.c.
 */
#define _GNU_SOURCE
#include "test.h"

#include <sched.h>
#include <time.h>

#define NR	3

FIXTURE(pv) {
	struct vm *vm;
	struct vcpu *v[NR];
};

FIXTURE_SETUP(pv)
{
	int i;

	self->vm = vm_new(VM_IRQCHIP);
	for (i = 0; i < NR; i++)
		self->v[i] = vcpu_new(self->vm, i);
}

FIXTURE_TEARDOWN(pv)
{
	vm_free(self->vm);
}

#define FEATURES	0x40000001
#define ENOSYS_		(-1000L)
#define VEC		0x41
#define LOW_VEC		0x35

static u64 hypercall4(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	u64 ret;

	if (guest_is_amd())
		asm volatile("vmmcall" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	else
		asm volatile("vmcall" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}

static u32 offered(struct vm *vm)
{
	return cpuid_find(vm->cpuid, FEATURES, 0)->eax;
}

/* ---- what there is, and its limits ---- */

TEST_F(pv, offered)
{
	u32 always = BIT(KVM_FEATURE_ASYNC_PF) | BIT(KVM_FEATURE_ASYNC_PF_INT) | BIT(KVM_FEATURE_PV_EOI) |
		     BIT(KVM_FEATURE_PV_UNHALT) | BIT(KVM_FEATURE_PV_TLB_FLUSH) | BIT(KVM_FEATURE_PV_SEND_IPI) |
		     BIT(KVM_FEATURE_POLL_CONTROL) | BIT(KVM_FEATURE_PV_SCHED_YIELD);
	struct {
		struct kvm_msr_list h;
		u32 msr[512];
	} list = { .h.nmsrs = 512 };
	u32 found = 0, i;

	EXPECT_EQ(always, offered(self->vm) & always);
	EXPECT_EQ(0, offered(self->vm) & (BIT(KVM_FEATURE_MIGRATION_CONTROL) | BIT(KVM_FEATURE_HC_MAP_GPA_RANGE)));
	EXPECT_EQ(1, vm_cap(self->vm, KVM_CAP_ASYNC_PF));
	EXPECT_EQ(1, vm_cap(self->vm, KVM_CAP_ASYNC_PF_INT));
	EXPECT_EQ(1, vm_cap(self->vm, KVM_CAP_ENFORCE_PV_FEATURE_CPUID));
	EXPECT_EQ(vm_cap(self->vm, KVM_CAP_STEAL_TIME), !!(offered(self->vm) & BIT(KVM_FEATURE_STEAL_TIME)));
	/* all that a VMM has to save */
	must(ioctl(self->vm->sys, KVM_GET_MSR_INDEX_LIST, &list));
	for (i = 0; i < list.h.nmsrs; i++)
		if (list.msr[i] >= MSR_KVM_ASYNC_PF_EN && list.msr[i] <= MSR_KVM_ASYNC_PF_ACK)
			found |= BIT(list.msr[i] - MSR_KVM_ASYNC_PF_EN);
	EXPECT_EQ(0x3f, found);
}

static u64 area[8] __attribute__((aligned(64)));

static void limits_guest(u64 arg)
{
	u64 v;

	guest_eq(rdmsr(MSR_KVM_STEAL_TIME), 0);
	guest_eq(wrmsr_try(MSR_KVM_STEAL_TIME, (u64)area | 3), GP0);
	guest_eq(wrmsr_try(MSR_KVM_STEAL_TIME, (u64)area | 0x21), GP0);
	guest_eq(wrmsr_try(MSR_KVM_STEAL_TIME, (u64)area | 1), NO_FAULT);
	guest_eq(rdmsr(MSR_KVM_STEAL_TIME), (u64)area | 1);
	guest_eq(wrmsr_try(MSR_KVM_STEAL_TIME, 0), NO_FAULT);

	guest_eq(wrmsr_try(MSR_KVM_PV_EOI_EN, (u64)area | 3), GP0);
	guest_eq(wrmsr_try(MSR_KVM_PV_EOI_EN, HOLE_GPA | 1), GP0);
	guest_eq(rdmsr(MSR_KVM_PV_EOI_EN), 0);
	guest_eq(wrmsr_try(MSR_KVM_PV_EOI_EN, (u64)area + 4 + 1), NO_FAULT);
	guest_eq(rdmsr(MSR_KVM_PV_EOI_EN), (u64)area + 4 + 1);
	guest_eq(wrmsr_try(MSR_KVM_PV_EOI_EN, 0), NO_FAULT);

	guest_eq(rdmsr(MSR_KVM_POLL_CONTROL), 1);
	guest_eq(wrmsr_try(MSR_KVM_POLL_CONTROL, 2), GP0);
	guest_eq(wrmsr_try(MSR_KVM_POLL_CONTROL, 0), NO_FAULT);
	guest_eq(rdmsr(MSR_KVM_POLL_CONTROL), 0);

	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_INT, 0x100), GP0);
	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_INT, 0xf2), NO_FAULT);
	guest_eq(rdmsr(MSR_KVM_ASYNC_PF_INT), 0xf2);
	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_EN, (u64)area | 0x19), GP0);
	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_EN, (u64)area | 0x29), GP0);
	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_EN, HOLE_GPA | 9), GP0);
	guest_eq(rdmsr(MSR_KVM_ASYNC_PF_EN), 0);
	/* without interrupts it may be said, and is nothing */
	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_EN, (u64)area | 1), NO_FAULT);
	guest_eq(rdmsr(MSR_KVM_ASYNC_PF_EN), (u64)area | 1);
	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_EN, 0), NO_FAULT);
	guest_eq(wrmsr_try(MSR_KVM_ASYNC_PF_ACK, 1), NO_FAULT);
	guest_eq(rdmsr_try(MSR_KVM_MIGRATION_CONTROL, &v), arg ? NO_FAULT : GP0);
	guest_eq(wrmsr_try(MSR_KVM_MIGRATION_CONTROL, 0), arg ? NO_FAULT : GP0);
	guest_eq(wrmsr_try(MSR_KVM_MIGRATION_CONTROL, 2), GP0);
	guest_eq(rdmsr_try(0x4b564d09, &v), GP0);
	guest_done(v);
}

TEST_F(pv, msr_limits)
{
	u64 val;

	vcpu_long(self->v[0], limits_guest, 0);
	vcpu_done(self->v[0]);
	/* the VMM may show the guest that it cares about this */
	cpuid_find(self->vm->cpuid, FEATURES, 0)->eax |= BIT(KVM_FEATURE_MIGRATION_CONTROL);
	must(ioctl(self->v[1]->fd, KVM_SET_CPUID2, self->vm->cpuid));
	EXPECT_EQ(1, vcpu_get_msr(self->v[1], MSR_KVM_MIGRATION_CONTROL, &val));
	EXPECT_EQ(1, val);	/* nothing stands against it */
	vcpu_long(self->v[1], limits_guest, 1);
	vcpu_done(self->v[1]);
	EXPECT_EQ(1, vcpu_get_msr(self->v[1], MSR_KVM_MIGRATION_CONTROL, &val));
	EXPECT_EQ(0, val);
}

/* Without a LAPIC here, what ends in an interrupt can only be off; there are no offers of an end to one, either */
TEST(no_lapic)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);

	EXPECT_EQ(1, vcpu_set_msr(v, MSR_KVM_PV_EOI_EN, 0));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_KVM_PV_EOI_EN, 0x1001));
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_KVM_PV_EOI_EN, 0x1003));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_KVM_ASYNC_PF_EN, 0));
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_KVM_ASYNC_PF_EN, 0x1009));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_KVM_ASYNC_PF_INT, 0));
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_KVM_ASYNC_PF_INT, 0xf2));
	vm_free(vm);
}

static const u32 pv_msrs[] = {
	MSR_KVM_WALL_CLOCK, MSR_KVM_SYSTEM_TIME, MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_ASYNC_PF_EN,
	MSR_KVM_STEAL_TIME, MSR_KVM_PV_EOI_EN, MSR_KVM_POLL_CONTROL, MSR_KVM_ASYNC_PF_INT, MSR_KVM_ASYNC_PF_ACK,
};
#define NR_MSRS	(sizeof(pv_msrs) / sizeof(pv_msrs[0]))

static void enforce_guest(u64 has)
{
	u32 i;
	u64 v;

	for (i = 0; i < NR_MSRS; i++) {
		guest_eq(rdmsr_try(pv_msrs[i], &v), has ? NO_FAULT : GP0);
		guest_eq(wrmsr_try(pv_msrs[i], 0), has ? NO_FAULT : GP0);
	}
	guest_eq(hypercall4(KVM_HC_KICK_CPU, 0, 77, 0, 0), has ? 0 : ENOSYS_);
	guest_eq(hypercall4(KVM_HC_SCHED_YIELD, 77, 0, 0, 0), has ? 0 : ENOSYS_);
	guest_eq(hypercall4(KVM_HC_SEND_IPI, 1, 0, 77, VEC), has ? 0 : ENOSYS_);
	guest_eq(hypercall4(KVM_HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), 0);
	guest_done(0);
}

TEST_F(pv, enforced)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
	struct vcpu *v = self->v[0];
	u64 val;

	NEED_CAP(self->vm, KVM_CAP_STEAL_TIME);
	/* hidden is not enough ... */
	cpuid_find(self->vm->cpuid, FEATURES, 0)->eax = 0;
	must(ioctl(v->fd, KVM_SET_CPUID2, self->vm->cpuid));
	vcpu_long(v, enforce_guest, 1);
	vcpu_done(v);
	/* ... unless enforced, which a VMM may also end again */
	must(ioctl(v->fd, KVM_ENABLE_CAP, &cap));
	vcpu_long(v, enforce_guest, 0);
	vcpu_done(v);
	EXPECT_EQ(0, vcpu_get_msr(v, MSR_KVM_STEAL_TIME, &val));
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_KVM_STEAL_TIME, 0));
	cap.args[0] = 0;
	must(ioctl(v->fd, KVM_ENABLE_CAP, &cap));
	vcpu_long(v, enforce_guest, 1);
	vcpu_done(v);
	cap.flags = 1;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_ENABLE_CAP, &cap));
	/* what is shown is there */
	cpuid_find(self->vm->cpuid, FEATURES, 0)->eax = -1U;
	must(ioctl(self->v[1]->fd, KVM_SET_CPUID2, self->vm->cpuid));
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
	must(ioctl(self->v[1]->fd, KVM_ENABLE_CAP, &cap));
	vcpu_long(self->v[1], enforce_guest, 1);
	vcpu_done(self->v[1]);
}

/* A vCPU whose HLT stays in the guest is not woken by a kick */
TEST(no_unhalt_without_hlt_exits)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct {
		struct kvm_cpuid2 h;
		struct kvm_cpuid_entry2 e[256];
	} got = { .h.nent = 256 };

	NEED_CAP(vm, KVM_CAP_X86_DISABLE_EXITS);
	must(vm_enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT));
	must(ioctl(vcpu_new(vm, 0)->fd, KVM_GET_CPUID2, &got));
	EXPECT_EQ(offered(vm) & ~BIT(KVM_FEATURE_PV_UNHALT), cpuid_find(&got.h, FEATURES, 0)->eax);
	vm_free(vm);
}

/* ---- stolen time, and who runs ---- */

static struct kvm_steal_time st[NR] __attribute__((aligned(64)));
static volatile u32 phase, stop;

static volatile u8 *preempted(int cpu)
{
	return &st[cpu].preempted;
}

static u64 stolen(void)
{
	volatile struct kvm_steal_time *t = &st[0];

	return t->steal;
}

static void steal_guest(u64 arg)
{
	wrmsr(MSR_KVM_STEAL_TIME, (u64)&st[0] | 1);
	guest_assert(st[0].steal < 10000000000ULL);	/* what came before is not counted */
	while (stolen() < 20000000)
		pause_cpu();
	guest_eq(st[0].version & 1, 0);
	guest_assert(st[0].version != 0);
	guest_eq(st[0].flags, 0);
	guest_eq(*preempted(0), 0);
	wrmsr(MSR_KVM_STEAL_TIME, 0);
	guest_done(0);
}

static void *burn(void *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((long)cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
	while (!stop)
		asm volatile("" ::: "memory");
	return NULL;
}

/* Let this thread, and those it starts, share one CPU with another that never sleeps */
static pthread_t share_cpu(void)
{
	cpu_set_t set;
	pthread_t t;
	long cpu;

	must(sched_getaffinity(0, sizeof(set), &set));
	for (cpu = 0; !CPU_ISSET(cpu, &set); cpu++)
		;
	stay_on(0, cpu);
	stop = 0;
	if (pthread_create(&t, NULL, burn, (void *)cpu))
		die("pthread_create");
	return t;
}

TEST_F(pv, steal_time)
{
	pthread_t burner;

	NEED_CAP(self->vm, KVM_CAP_STEAL_TIME);
	burner = share_cpu();
	vcpu_long(self->v[0], steal_guest, 0);
	vcpu_done(self->v[0]);
	stop = 1;
	pthread_join(burner, NULL);
	/* nothing more is written there */
	EXPECT_EQ(0, guest_var(self->vm, st[0]).preempted);
}

/* Another thread's waiting is not this vCPU's */
static void steal_more_guest(u64 arg)
{
	wrmsr(MSR_KVM_STEAL_TIME, (u64)&st[0] | 1);
	guest_sync(0);
	guest_sync(1);
	guest_assert(st[0].steal < 10000000000000ULL);
	guest_done(0);
}

static void *run_to_sync(void *arg)
{
	return (void *)(long)vcpu_sync(arg);
}

TEST_F(pv, steal_time_of_another_thread)
{
	void *ret;
	pthread_t t;

	NEED_CAP(self->vm, KVM_CAP_STEAL_TIME);
	vcpu_long(self->v[0], steal_more_guest, 0);
	EXPECT_EQ(0, vcpu_sync(self->v[0]));
	must(pthread_create(&t, NULL, run_to_sync, self->v[0]));
	pthread_join(t, &ret);
	EXPECT_EQ(1, (long)ret);
	vcpu_done(self->v[0]);
}

/* One that is preempted says so, and finds what others leave there */
static void runs_guest(u64 arg)
{
	wrmsr(MSR_KVM_STEAL_TIME, (u64)&st[0] | 1);
	phase = 1;
	while (phase != 2)
		pause_cpu();
	guest_done(0);
}

TEST_F(pv, preempted)
{
	volatile u8 *p = (u8 *)&guest_var(self->vm, st[0]).preempted;
	u64 end = now_ns() + scaled(60000000000ULL), flushes;
	pthread_t burner;

	NEED_CAP(self->vm, KVM_CAP_STEAL_TIME);
	burner = share_cpu();
	vcpu_long(self->v[0], runs_guest, 0);
	guest_var(self->vm, phase) = 0;
	vcpu_start(self->v[0]);
	if (!wait_for(&guest_var(self->vm, phase), 1, 30000))
		die("the guest does not start");
	/* Left there as another vCPU would, in a moment in which it does not run; again if it was back too soon. */
	flushes = vcpu_stat(self->v[0], "tlb_flushes");
	while (!__sync_bool_compare_and_swap(p, KVM_VCPU_PREEMPTED, KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB) &&
	       now_ns() < end)
		;
	EXPECT_LT(now_ns(), end);
	while (*p == (KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB) && now_ns() < end)
		sched_yield();
	EXPECT_LT(now_ns(), end);
	while (vcpu_stat(self->v[0], "tlb_flushes") == flushes && now_ns() < end)
		sched_yield();
	EXPECT_LT(now_ns(), end);
	guest_var(self->vm, phase) = 2;
	vcpu_join(self->v[0]);
	stop = 1;
	pthread_join(burner, NULL);
}

/* One that sleeps is to flush before it goes on */
#define PAGE_A	(HEAP_GPA + 0x200000)
#define PAGE_B	(HEAP_GPA + 0x201000)
#define PAGE_PT	(HEAP_GPA + 0x400000)

static u64 *pte_a;
static volatile u32 flushed_asleep;

static void sleeper_guest(u64 arg)
{
	apic_on();
	guest_on(VEC, guest_count_eoi);
	wrmsr(MSR_KVM_STEAL_TIME, (u64)&st[0] | 1);
	guest_eq(*(volatile u32 *)PAGE_A, 0xa);
	phase = 1;
	while (!guest_irqs[VEC])
		irq_halt();
	guest_eq(*preempted(0), 0);
	guest_eq(*(volatile u32 *)PAGE_A, 0xb);
	guest_done(0);
}

static void flusher_guest(u64 arg)
{
	apic_on();
	spin_until(&phase, 1);
	while (*preempted(0) != KVM_VCPU_PREEMPTED)
		pause_cpu();
	*pte_a = PAGE_B | 7;
	/* it may not have been the halt yet */
	while (!__sync_bool_compare_and_swap(preempted(0), KVM_VCPU_PREEMPTED, KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB))
		pause_cpu();
	apic_icr(0, VEC);
	guest_done(0);
}

TEST_F(pv, flush_of_a_sleeper)
{
	NEED_CAP(self->vm, KVM_CAP_STEAL_TIME);
	vcpu_long(self->v[0], sleeper_guest, 0);
	vcpu_long(self->v[1], flusher_guest, 0);
	guest_var(self->vm, phase) = 0;
	guest_var(self->vm, pte_a) = (u64 *)((u8 *)vm_split_page(self->vm, PAGE_A, PAGE_PT) - self->vm->mem);
	*(u32 *)gpa_hva(self->vm, PAGE_A) = 0xa;
	*(u32 *)gpa_hva(self->vm, PAGE_B) = 0xb;
	vcpu_start(self->v[0]);
	vcpu_start(self->v[1]);
	vcpu_join(self->v[1]);
	vcpu_join(self->v[0]);
}

/* Who is kicked is found as fast if ids are far apart */
#define MANY	400
#define FAR	2000

static volatile u64 near_cost, far_cost;

static u64 kick_cost(u32 id)
{
	u64 t, best = ~0ULL;
	int i;

	for (i = 0; i < 200; i++) {
		t = rdtsc();
		hypercall4(KVM_HC_KICK_CPU, 0, id, 0, 0);
		t = rdtsc() - t;
		best = t < best ? t : best;
	}
	return best;
}

static void far_kicker_guest(u64 arg)
{
	near_cost = kick_cost(1);
	far_cost = kick_cost(FAR + MANY - 1);
	guest_done(0);
}

TEST_F(pv, kick_far_id)
{
	u64 near, far;
	int i, fd[MANY];

	if (on_tcg())
		SKIP(return, "QEMU's emulator: an exit takes much longer than the search");
	for (i = 0; i < MANY; i++)
		fd[i] = must(ioctl(self->vm->fd, KVM_CREATE_VCPU, FAR + i));
	EXPECT_EQ(-EEXIST, xioctl(self->vm->fd, KVM_CREATE_VCPU, FAR + 7));
	vcpu_long(self->v[0], far_kicker_guest, 0);
	vcpu_done(self->v[0]);
	near = guest_var(self->vm, near_cost);
	far = guest_var(self->vm, far_cost);
	TH_LOG("%llu cycles to the next one, %llu to the farthest", (unsigned long long)near, (unsigned long long)far);
	EXPECT_GT(2 * near, far);
	for (i = 0; i < MANY; i++)
		close(fd[i]);
}

/* ---- end of interrupt ---- */

static volatile u32 eoi_word __attribute__((aligned(4)));
static volatile u32 offers, taken, low_seen;
static volatile u32 eoi_mode;

static bool take_offer(void)
{
	bool was;

	asm volatile("btrl $0,%1; setc %0" : "=q"(was), "+m"(eoi_word) :: "memory", "cc");
	return was;
}

static void eoi_handler(struct guest_frame *f)
{
	atomic_add(&guest_irqs[f->vec], 1);
	if (eoi_word & 1)
		offers++;
	switch (eoi_mode) {
	case 1:		/* an exit to userspace takes the offer back */
		guest_sync(eoi_word);
		guest_eq(eoi_word, 0);
		break;
	case 2:		/* and so does another interrupt that waits */
		apic_icr(0, LOW_VEC);
		guest_eq(eoi_word, 0);
		guest_eq(guest_irqs[LOW_VEC], low_seen);
		break;
	case 3:		/* the register works all the same */
		apic_eoi();
		return;
	case 4:		/* what is in service is seen rightly */
		guest_eq(apic_read(0x100 + (VEC / 32) * 0x10), BIT(VEC % 32));
		break;
	}
	if (take_offer())
		taken++;
	else
		apic_eoi();
}

#define ROUNDS	50

static void self_ipis(u32 mode)
{
	u32 i, before;

	eoi_mode = mode;
	for (i = 0; i < ROUNDS; i++) {
		before = guest_irqs[VEC];
		apic_icr(0, VEC);
		spin_until(&guest_irqs[VEC], before + 1);
		if (mode != 2)
			continue;
		spin_until(&guest_irqs[LOW_VEC], low_seen + 1);
		low_seen = guest_irqs[LOW_VEC];
	}
	eoi_mode = 0;
}

/* Where the page is not at hand at that moment there is no offer: the host's memory management may look at it just then. */
#define FEW	5

static void eoi_guest(u64 x2)
{
	u32 before;

	if (x2)
		x2apic_on();
	else
		apic_on();
	guest_on(VEC, eoi_handler);
	guest_on(LOW_VEC, guest_count_eoi);
	irq_on();
	self_ipis(0);
	guest_eq(offers, 0);
	wrmsr(MSR_KVM_PV_EOI_EN, (u64)&eoi_word | 1);
	self_ipis(0);
	guest_assert(offers <= ROUNDS);
	guest_assert(taken <= offers && taken >= ROUNDS - FEW);
	/* the last one, ended without a word, is out of service for all who ask */
	guest_eq(apic_read(0x100 + (VEC / 32) * 0x10), 0);
	guest_eq(apic_read(0xa0), 0);
	/* and its own and lower ones get through, also out of a HLT */
	self_ipis(0);
	apic_icr(0, LOW_VEC);
	spin_until(&guest_irqs[LOW_VEC], 1);
	low_seen = 1;
	guest_assert(taken >= 2 * (ROUNDS - FEW) && taken <= 2 * ROUNDS);
	before = taken;
	self_ipis(2);
	guest_eq(taken, before);
	self_ipis(3);
	guest_eq(eoi_word, 0);
	self_ipis(4);
	taken = 0;
	eoi_mode = 1;
	apic_icr(0, VEC);
	eoi_mode = 0;
	guest_eq(taken, 0);
	/* asleep behind an end without a word */
	irq_off();
	apic_icr(0, VEC);
	irq_halt();
	guest_eq(taken, 1);
	guest_sync(0x51);
	irq_halt();
	guest_eq(guest_irqs[LOW_VEC], low_seen + 1);
	wrmsr(MSR_KVM_PV_EOI_EN, 0);
	offers = 0;
	irq_on();
	self_ipis(0);
	guest_eq(offers, 0);
	guest_done(0);
}

static void send_msi(struct vm *vm, u8 vector)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = vector };

	must(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
}

static void run_eoi(struct __test_metadata *_metadata, struct vm *vm, struct vcpu *v, u64 x2)
{
	struct kvm_lapic_state s;

	vcpu_long(v, eoi_guest, x2);
	/* in the handler: the offer was there, and is not any more */
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, guest_var(vm, eoi_word));
	must(ioctl(v->fd, KVM_GET_LAPIC, &s));
	EXPECT_EQ(BIT(VEC % 32), *(u32 *)(s.regs + 0x100 + (VEC / 32) * 0x10));
	EXPECT_EQ(0x51, vcpu_sync(v));
	send_msi(vm, LOW_VEC);
	vcpu_done(v);
}

TEST_F(pv, eoi_xapic)
{
	run_eoi(_metadata, self->vm, self->v[0], 0);
}

TEST_F(pv, eoi_x2apic)
{
	if (lapics_by_cpu())
		SKIP(return, "the CPU runs the LAPIC: an EOI does not exit anyway");
	run_eoi(_metadata, self->vm, self->v[0], 1);
}

/*
 * The page with the offer is gone when the next interrupt comes: what has ended is the one that was offered, and that
 * is known before the next one is in service.
 */
#define EOI_PAGE	HEAP_GPA
#define HIGH_VEC	0x61

static volatile u32 ended, high_seen, low_in_service, high_in_service;

static void ending_handler(struct guest_frame *f)
{
	volatile u32 *word = (u32 *)EOI_PAGE;
	bool was;

	asm volatile("btrl $0,%1; setc %0" : "=q"(was), "+m"(*word) :: "memory", "cc");
	guest_assert(was);
	irq_on();
	ended = 1;
	spin_until(&high_seen, 1);
	irq_off();
}

static void high_handler(struct guest_frame *f)
{
	low_in_service = apic_read(0x100 + (VEC / 32) * 0x10);
	high_in_service = apic_read(0x100 + (HIGH_VEC / 32) * 0x10);
	*(volatile u32 *)EOI_PAGE = 0;
	apic_eoi();
	high_seen = 1;
}

static void ending_guest(u64 arg)
{
	apic_on();
	guest_on(VEC, ending_handler);
	guest_on(HIGH_VEC, high_handler);
	*(volatile u32 *)EOI_PAGE = 0;		/* so that it is there to be written to */
	wrmsr(MSR_KVM_PV_EOI_EN, EOI_PAGE | 1);
	irq_on();
	apic_icr(0, VEC);
	spin_until(&high_seen, 1);
	guest_eq(low_in_service, 0);
	guest_eq(high_in_service, BIT(HIGH_VEC % 32));
	guest_eq(apic_read(0x100 + (VEC / 32) * 0x10), 0);
	guest_eq(apic_read(0x100 + (HIGH_VEC / 32) * 0x10), 0);
	guest_done(0);
}

TEST_F(pv, eoi_page_away)
{
	struct vcpu *v = self->v[0];

	vcpu_long(v, ending_guest, 0);
	vcpu_start(v);
	ASSERT_TRUE(wait_for(&guest_var(self->vm, ended), 1, 10000));
	must(madvise(gpa_hva(self->vm, EOI_PAGE), 4096, MADV_DONTNEED));
	send_msi(self->vm, HIGH_VEC);
	vcpu_join(v);
}

/* A level-triggered interrupt's end is the IOAPIC's to know */
static void level_handler(struct guest_frame *f)
{
	atomic_add(&guest_irqs[f->vec], 1);
	offers += eoi_word & 1;
	guest_sync(guest_irqs[f->vec]);
	apic_eoi();
}

static void level_guest(u64 arg)
{
	apic_on();
	guest_on(VEC, level_handler);
	wrmsr(MSR_KVM_PV_EOI_EN, (u64)&eoi_word | 1);
	ioapic_entry(20, VEC | 1 << 15);
	guest_sync(0);
	irq_on();
	spin_until(&guest_irqs[VEC], 2);
	guest_eq(offers, 0);
	guest_done(0);
}

TEST_F(pv, eoi_of_level_is_written)
{
	struct kvm_irq_level l = { .irq = 20, .level = 1 };

	vcpu_long(self->v[0], level_guest, 0);
	EXPECT_EQ(0, vcpu_sync(self->v[0]));
	must(ioctl(self->vm->fd, KVM_IRQ_LINE, &l));
	EXPECT_EQ(1, vcpu_sync(self->v[0]));
	/* still up: it comes again after its end */
	EXPECT_EQ(2, vcpu_sync(self->v[0]));
	l.level = 0;
	must(ioctl(self->vm->fd, KVM_IRQ_LINE, &l));
	vcpu_done(self->v[0]);
}

/* ---- IPIs to many ---- */

static volatile u32 ready, ipi_at[NR], nmi_at[NR];

static void ipi_handler(struct guest_frame *f)
{
	ipi_at[guest_cpu()]++;
	apic_eoi();
}

static void nmi_handler(struct guest_frame *f)
{
	nmi_at[guest_cpu()]++;
}

static void ipi_target(u64 arg)
{
	x2apic_on();
	irq_on();
	atomic_add(&ready, 1);
	while (!phase)
		pause_cpu();
	guest_done(0);
}

#define SEND(low, high, min, icr)	((long)hypercall4(KVM_HC_SEND_IPI, low, high, min, icr))

static void ipi_guest(u64 arg)
{
	guest_on(VEC, ipi_handler);
	guest_on(NMI_VEC, nmi_handler);
	x2apic_on();
	irq_on();
	/* not all CPUs of the machine are needed for this */
	spin_until(&ready, NR - 1);
	guest_eq(SEND(6, 0, 0, VEC), 2);
	spin_until(&ipi_at[1], 1);
	spin_until(&ipi_at[2], 1);
	guest_eq(ipi_at[0], 0);
	/* itself, and by the other half of the mask; nobody there is nobody counted */
	guest_eq(SEND(1, 0, 0, VEC), 1);
	spin_until(&ipi_at[0], 1);
	guest_eq(SEND(2, 0, 1, VEC), 1);
	spin_until(&ipi_at[2], 2);
	guest_eq(SEND(0xf0, -1UL, 0, VEC), 0);
	guest_eq(SEND(-1UL, -1UL, 0xfffffff0, VEC), 0);
	guest_eq(SEND(4, 0, 0, 0x400), 1);
	spin_until(&nmi_at[2], 1);
	/* physical destinations only, and no shorthand */
	guest_eq(SEND(6, 0, 0, VEC | 0x800), -EINVAL);
	guest_eq(SEND(6, 0, 0, VEC | 0x40000), -EINVAL);
	guest_eq(SEND(6, 0, 0, VEC | 0xc0000), -EINVAL);
	guest_eq(ipi_at[1], 1);
	phase = 1;
	guest_done(0);
}

TEST_F(pv, send_ipi)
{
	int i;

	vcpu_long(self->v[0], ipi_guest, 0);
	for (i = 1; i < NR; i++) {
		vcpu_long(self->v[i], ipi_target, 0);
		/* the tables of handlers are there before they are needed */
		guest_var(self->vm, guest_handlers)[VEC] = ipi_handler;
		guest_var(self->vm, guest_handlers)[NMI_VEC] = nmi_handler;
	}
	for (i = 0; i < NR; i++)
		vcpu_start(self->v[i]);
	for (i = 0; i < NR; i++)
		vcpu_join(self->v[i]);
}

/* ---- kicks and yields ---- */

static void kicked_guest(u64 arg)
{
	irq_off();
	halt();
	phase = 2;
	guest_done(0);
}

static void kicker_guest(u64 arg)
{
	guest_eq(hypercall4(KVM_HC_KICK_CPU, 0, 77, 0, 0), 0);
	guest_eq(hypercall4(KVM_HC_KICK_CPU, 0, 1, 0, 0), 0);
	guest_done(0);
}

TEST_F(pv, kick)
{
	struct kvm_mp_state s;

	/* asleep, with interrupts off */
	vcpu_long(self->v[1], kicked_guest, 0);
	vcpu_long(self->v[0], kicker_guest, 0);
	vcpu_start(self->v[1]);
	wait_until_halted(self->v[1]);
	sleep_ms(20);
	EXPECT_NE(2, guest_var(self->vm, phase));
	vcpu_done(self->v[0]);
	vcpu_join(self->v[1]);
	EXPECT_EQ(2, guest_var(self->vm, phase));
	/* before it halts */
	vcpu_long(self->v[0], kicker_guest, 0);
	vcpu_done(self->v[0]);
	vcpu_long(self->v[1], kicked_guest, 0);
	vcpu_done(self->v[1]);
	/* and for whoever asks, one that was kicked is awake */
	s.mp_state = KVM_MP_STATE_HALTED;
	must(ioctl(self->v[1]->fd, KVM_SET_MP_STATE, &s));
	must(ioctl(self->v[1]->fd, KVM_GET_MP_STATE, &s));
	EXPECT_EQ(KVM_MP_STATE_HALTED, s.mp_state);
	vcpu_long(self->v[0], kicker_guest, 0);
	vcpu_done(self->v[0]);
	must(ioctl(self->v[1]->fd, KVM_GET_MP_STATE, &s));
	EXPECT_EQ(KVM_MP_STATE_RUNNABLE, s.mp_state);
}

static void yield_guest(u64 arg)
{
	u32 i;

	for (i = 0; i < 1000; i++)
		guest_eq(hypercall4(KVM_HC_SCHED_YIELD, 1, 0, 0, 0), 0);
	guest_eq(hypercall4(KVM_HC_SCHED_YIELD, 0, 0, 0, 0), 0);
	guest_eq(hypercall4(KVM_HC_SCHED_YIELD, 77, 0, 0, 0), 0);
	phase = 2;
	guest_done(0);
}

/* To one that waits for the CPU this one has; it comes and goes meanwhile */
TEST_F(pv, yield)
{
	pthread_t burner = share_cpu();

	vcpu_long(self->v[0], yield_guest, 0);
	vcpu_long(self->v[1], runs_guest, 0);
	guest_var(self->vm, phase) = 0;
	vcpu_start(self->v[1]);
	vcpu_start(self->v[0]);
	vcpu_join(self->v[0]);
	vcpu_join(self->v[1]);
	stop = 1;
	pthread_join(burner, NULL);
	EXPECT_LT(0, vcpu_stat(self->v[0], "hypercalls"));
}

/* ---- two clocks at once ---- */

static struct kvm_clock_pairing pairing[2];
static volatile u64 told_sec;

static void pairing_guest(u64 arg)
{
	u64 before = rdtsc();
	long r;

	guest_eq(hypercall4(KVM_HC_CLOCK_PAIRING, (u64)&pairing[0], 1, 0, 0), -95L);
	r = hypercall4(KVM_HC_CLOCK_PAIRING, (u64)&pairing[0], KVM_CLOCK_PAIRING_WALLCLOCK, 0, 0);
	if (r == -95)
		guest_done(1);
	guest_eq(r, 0);
	guest_eq(hypercall4(KVM_HC_CLOCK_PAIRING, HOLE_GPA, KVM_CLOCK_PAIRING_WALLCLOCK, 0, 0), -14L);
	guest_eq(hypercall4(KVM_HC_CLOCK_PAIRING, (u64)&pairing[1], KVM_CLOCK_PAIRING_WALLCLOCK, 0, 0), 0);
	guest_assert(pairing[0].tsc >= before && pairing[0].tsc < pairing[1].tsc && pairing[1].tsc <= rdtsc());
	guest_assert(pairing[0].sec < pairing[1].sec ||
		     (pairing[0].sec == pairing[1].sec && pairing[0].nsec < pairing[1].nsec));
	guest_assert(pairing[0].nsec < 1000000000);
	guest_eq(pairing[0].flags, 0);
	told_sec = pairing[0].sec;
	guest_done(0);
}

TEST_F(pv, clock_pairing)
{
	struct timespec before, after;

	clock_gettime(CLOCK_REALTIME, &before);		/* time(2) is as old as the last tick */
	vcpu_long(self->v[0], pairing_guest, 0);
	if (vcpu_done(self->v[0]))
		SKIP(return, "the host does not keep time by its TSC");
	clock_gettime(CLOCK_REALTIME, &after);
	EXPECT_LE(before.tv_sec, guest_var(self->vm, told_sec));
	EXPECT_GE(after.tv_sec, guest_var(self->vm, told_sec));
}

TEST_HARNESS_MAIN
