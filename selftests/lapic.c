// SPDX-License-Identifier: GPL-2.0-only
/*
 * The local APIC as the guest sees it: registers in xAPIC and x2APIC mode, its
 * timer in all its modes, priorities, EOI, self-IPIs, errors.
 */
#include "test.h"

#include <sys/mount.h>

FIXTURE(lapic) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_VARIANT(lapic) {
	bool x2apic;
};

FIXTURE_VARIANT_ADD(lapic, xapic) { .x2apic = false };
FIXTURE_VARIANT_ADD(lapic, x2apic) { .x2apic = true };

FIXTURE_SETUP(lapic)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(lapic)
{
	vm_free(self->vm);
}

#define LVR	0x30
#define TPR	0x80
#define PPR	0xa0
#define ISR	0x100
#define IRR	0x200
#define ESR	0x280
#define LVTT	0x320
#define TMICT	0x380
#define TMCCT	0x390
#define TDCR	0x3e0

#define PERIODIC	(1 << 17)
#define DEADLINE	(2 << 17)
#define SELF		0x40000		/* ICR shorthand */

static void on(u64 x2)
{
	if (x2)
		x2apic_on();
	else
		apic_on();
}

/* Run @fn in the variant's mode; the mode is bit 0 of its argument */
#define RUN(fn) do {							\
	vcpu_long(self->v, fn, variant->x2apic);			\
	vcpu_done(self->v);						\
} while (0)

/* ---- off by its own register: what has come already is held, and delivered ---- */

static void off_guest(u64 x2)
{
	on(x2);
	guest_on(0x61, guest_count_eoi);
	apic_icr(0, SELF | 0x61);
	apic_write(0xf0, 0xff);
	irq_halt();		/* with interrupts on, and back */
	guest_eq(guest_irqs[0x61], 1);
	apic_icr(0, SELF | 0x61);
	irq_on();
	asm volatile("nop; nop; cli");
	guest_eq(guest_irqs[0x61], 1);
	guest_done(0);
}

TEST_F(lapic, off_with_one_waiting)
{
	RUN(off_guest);
}

/* ---- registers ---- */

static void register_guest(u64 x2)
{
	int i;

	on(x2);
	guest_eq(apic_read(0x20), 0);
	guest_eq(apic_read(0x30) & 0xff, 0x14);
	guest_eq(apic_read(0xf0), 0x1ff);
	apic_write(TPR, 0x50);		/* the low half is CR8's to forget */
	guest_eq(apic_read(TPR), 0x50);
	guest_eq(apic_read(PPR), 0x50);
	guest_eq(read_cr8(), 5);
	write_cr8(3);
	guest_eq(apic_read(TPR), 0x30);
	write_cr8(0);
	/* LVT: what can be written, and masked while off */
	apic_write(LVTT, 0x10040);
	guest_eq(apic_read(LVTT), 0x10040);
	apic_write(0x350, 0x0041);
	apic_write(0x360, 0x400);
	guest_eq(apic_read(0x360), 0x400);
	apic_write(0xf0, 0xff);
	guest_eq(apic_read(0x350) & 0x10000, 0x10000);
	apic_write(0xf0, 0x1ff);
	apic_write(0x350, 0x10700);
	for (i = 0; i < 8; i++) {
		guest_eq(apic_read(ISR + i * 16), 0);
		guest_eq(apic_read(IRR + i * 16), 0);
	}
	apic_write(TDCR, 0xb);
	guest_eq(apic_read(TDCR), 0xb);
	apic_write(TDCR, 0x3);
	guest_eq(apic_read(TDCR), 0x3);
	if (!x2) {
		apic_write(0xd0, 0x02000000);
		guest_eq(apic_read(0xd0), 0x02000000);
		apic_write(0xe0, 0x0fffffff);
		guest_eq(apic_read(0xe0), 0x0fffffff);
		apic_write(0xe0, 0xffffffff);
	} else {
		guest_eq(apic_read(0xd0), 1);		/* set by hardware */
		guest_eq(wrmsr_try(0x80d, 2), GP0);
		guest_eq(wrmsr_try(0x802, 1), GP0);
		guest_eq(wrmsr_try(0x810, 0), GP0);
		guest_eq(wrmsr_try(0x83f, 0x100), GP0);
		guest_eq(wrmsr_try(0x828, 1), GP0);
		/* reserved bits of the ICR: nothing is sent */
		for (i = 13; i < 32; i++)
			if (i == 13 || i == 16 || i == 17 || i >= 20)
				guest_eq(wrmsr_try(0x830, SELF | 0x40 | 1UL << i), GP0);
		for (i = 0; i < 8; i++)
			guest_eq(apic_read(IRR + i * 16), 0);
	}
	guest_done(0);
}

TEST_F(lapic, registers)
{
	RUN(register_guest);
}

static void modes_guest(u64 x2)
{
	u64 base = rdmsr(MSR_IA32_APICBASE), v;

	guest_eq(base, LAPIC_GPA | 0x900);
	/* no MSRs in xAPIC mode */
	guest_eq(rdmsr_try(0x802, &v), GP0);
	guest_eq(wrmsr_try(0x80b, 0), GP0);
	/* x2APIC without enable is no mode; nor is reserved anything */
	guest_eq(wrmsr_try(MSR_IA32_APICBASE, LAPIC_GPA | 0x500), GP0);
	guest_eq(wrmsr_try(MSR_IA32_APICBASE, base | 1), GP0);
	guest_eq(wrmsr_try(MSR_IA32_APICBASE, base | 1UL << 60), GP0);
	wrmsr(MSR_IA32_APICBASE, base | APICBASE_X2APIC);
	guest_eq(rdmsr(MSR_IA32_APICBASE), LAPIC_GPA | 0xd00);
	guest_eq(rdmsr_try(0x802, &v), NO_FAULT);
	/* not straight back */
	guest_eq(wrmsr_try(MSR_IA32_APICBASE, base), GP0);
	/* by way of off */
	guest_eq(wrmsr_try(MSR_IA32_APICBASE, LAPIC_GPA | 0x100), NO_FAULT);
	guest_eq(rdmsr_try(0x802, &v), GP0);
	guest_eq(wrmsr_try(MSR_IA32_APICBASE, base), NO_FAULT);
	guest_eq(mmio_read32(LAPIC_GPA + 0xf0) & 0x1ff, 0xff);
	guest_done(0);
}

TEST_F(lapic, modes)
{
	RUN(modes_guest);
}

static void cpuid_guest(u64 x2)
{
	u32 r[4];

	cpuid(1, 0, r);
	guest_assert(r[3] & 1 << 9);
	wrmsr(MSR_IA32_APICBASE, LAPIC_GPA | 0x100);
	cpuid(1, 0, r);
	guest_assert(!(r[3] & 1 << 9));		/* off, it is not in CPUID */
	wrmsr(MSR_IA32_APICBASE, LAPIC_GPA | 0x900);
	cpuid(1, 0, r);
	guest_assert(r[3] & 1 << 9);
	guest_done(0);
}

TEST_F(lapic, cpuid_follows)
{
	RUN(cpuid_guest);
}

/* ---- timer ---- */

static volatile u64 last_tsc;
static void tick(struct guest_frame *f)
{
	guest_irqs[f->vec]++;
	last_tsc = rdtsc();
	apic_eoi();
}

static void oneshot_guest(u64 x2)
{
	u64 i;

	on(x2);
	guest_on(0x40, tick);
	apic_write(TDCR, 0xb);			/* by one */
	apic_write(LVTT, 0x40);
	apic_write(TMICT, 1000000);		/* 1 ms: the bus is 1 GHz */
	guest_eq(apic_read(TMICT), 1000000);
	guest_assert(apic_read(TMCCT) <= 1000000);
	while (!guest_irqs[0x40])
		irq_halt();
	guest_eq(apic_read(TMCCT), 0);
	irq_on();
	for (i = 0; i < 1000; i++)
		(void)apic_read(TMCCT);
	guest_eq(guest_irqs[0x40], 1);
	irq_off();
	/* masked, it counts and stays silent */
	apic_write(LVTT, 0x10040);
	apic_write(TMICT, 100000);
	while (apic_read(TMCCT))
		;
	irq_on();
	guest_eq(guest_irqs[0x40], 1);
	irq_off();
	/* stopped by a count of zero */
	apic_write(LVTT, 0x40);
	apic_write(TMICT, 0x7fffffff);
	guest_assert(apic_read(TMCCT) > 0);
	apic_write(TMICT, 0);
	guest_eq(apic_read(TMCCT), 0);
	/* and it comes to zero where no interrupt is to come of it, with the APIC switched off in software */
	apic_write(0xf0, 0xff);
	apic_write(TMICT, 100000);
	while (apic_read(TMCCT))
		;
	guest_done(0);
}

TEST_F(lapic, one_shot)
{
	RUN(oneshot_guest);
}

static void periodic_guest(u64 x2)
{
	u64 t;

	on(x2);
	guest_on(0x41, tick);
	apic_write(TDCR, 3);			/* by 16 */
	apic_write(LVTT, PERIODIC | 0x41);
	t = rdtsc();
	apic_write(TMICT, 625000);		/* 10 ms */
	while (guest_irqs[0x41] < 10)
		irq_halt();
	guest_sync((last_tsc - t) / 1000);
	apic_write(TMICT, 0);
	guest_done(0);
}

TEST_F(lapic, periodic)
{
	u64 khz = xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0), kcycles;

	vcpu_long(self->v, periodic_guest, variant->x2apic);
	kcycles = vcpu_sync(self->v);
	EXPECT_GT(kcycles, khz * 80 / 1000);
	EXPECT_LT(kcycles, khz * 5000 / 1000);
	vcpu_done(self->v);
}

static void deadline_guest(u64 x2)
{
	u64 when;
	bool late;
	u32 r[4];
	int i;

	cpuid(1, 0, r);
	guest_assert(r[2] & 1 << 24);
	on(x2);
	guest_on(0x42, tick);
	apic_write(LVTT, 0x42);
	/* in the other modes the MSR reads as zero */
	wrmsr(MSR_IA32_TSC_DEADLINE, rdtsc() + 1000000000);
	guest_eq(rdmsr(MSR_IA32_TSC_DEADLINE), 0);
	apic_write(LVTT, DEADLINE | 0x42);
	asm volatile("mfence");
	when = rdtsc() + 2000000;
	wrmsr(MSR_IA32_TSC_DEADLINE, when);
	while (!guest_irqs[0x42])
		irq_halt();
	guest_assert(last_tsc >= when);
	guest_eq(rdmsr(MSR_IA32_TSC_DEADLINE), 0);
	/* passed already: at once */
	wrmsr(MSR_IA32_TSC_DEADLINE, 1);
	irq_on();
	while (guest_irqs[0x42] < 2)
		pause_cpu();
	irq_off();
	/* far, read back, taken away */
	when = rdtsc() + (1UL << 40);
	wrmsr(MSR_IA32_TSC_DEADLINE, when);
	guest_eq(rdmsr(MSR_IA32_TSC_DEADLINE), when);
	guest_eq(apic_read(TMCCT), 0);
	wrmsr(MSR_IA32_TSC_DEADLINE, 0);
	guest_eq(rdmsr(MSR_IA32_TSC_DEADLINE), 0);
	/* put off again and again, then not so far: once, and no sooner than the last one says */
	for (i = 0; i < 60; i++) {
		u32 seen;
		int j;

		when = rdtsc() + 100000 + i * 20000;
		for (j = 0; j < 40; j++)
			wrmsr(MSR_IA32_TSC_DEADLINE, when + j * 20000UL);
		if (i % 3)
			when += 1000000 / (i % 3);
		else
			when += 39 * 20000UL;
		wrmsr(MSR_IA32_TSC_DEADLINE, when);
		/* an earlier one may have come meanwhile: they were near */
		irq_on();
		pause_cpu();
		irq_off();
		seen = guest_irqs[0x42];
		if (rdmsr(MSR_IA32_TSC_DEADLINE) != when)
			continue;
		while (guest_irqs[0x42] == seen)
			irq_halt();
		guest_assert(last_tsc >= when);
	}
	/* put off and then taken away: nothing comes of it when the first would have been due */
	for (i = 0; i < 2000; i++) {
		u32 seen;

		when = rdtsc() + 150000;
		wrmsr(MSR_IA32_TSC_DEADLINE, when);
		wrmsr(MSR_IA32_TSC_DEADLINE, when + (1UL << 40));
		irq_on();
		pause_cpu();
		irq_off();
		seen = guest_irqs[0x42];
		while (rdtsc() < when - 60000 + i % 500 * 150)
			pause_cpu();
		wrmsr(MSR_IA32_TSC_DEADLINE, 0);
		irq_on();
		while (rdtsc() < when + 20000)
			pause_cpu();
		irq_off();
		guest_eq(guest_irqs[0x42], seen);
	}
	guest_irqs[0x42] = 2;
	/* TMICT means nothing here */
	apic_write(TMICT, 1000);
	guest_eq(apic_read(TMICT), 0);
	/* another mode disarms it, unless all the time passed before that: then once more */
	irq_on();
	do {
		apic_write(LVTT, DEADLINE | 0x42);
		asm volatile("mfence");
		guest_irqs[0x42] = 2;
		when = rdtsc() + 3000000;
		wrmsr(MSR_IA32_TSC_DEADLINE, when);
		apic_write(LVTT, 0x42);
		late = rdtsc() >= when;
		while (rdtsc() < when + 3000000)
			pause_cpu();
	} while (late);
	guest_eq(guest_irqs[0x42], 2);
	guest_done(0);
}

/* It is the VMM that offers it */
static struct vcpu *deadline_vcpu(struct vm *vm)
{
	cpuid_find(vm->cpuid, 1, 0)->ecx |= 1 << 24;
	return vcpu_new(vm, 1);
}

TEST_F(lapic, tsc_deadline)
{
	struct vcpu *v;

	NEED_CAP(self->vm, KVM_CAP_TSC_DEADLINE_TIMER);
	v = deadline_vcpu(self->vm);
	vcpu_long(v, deadline_guest, variant->x2apic);
	vcpu_done(v);
}

/* A deadline that is further away than nanoseconds can be counted */
static void far_guest(u64 x2)
{
	u32 r[4];
	int i;

	on(x2);
	apic_write(LVTT, DEADLINE | 0x40);
	wrmsr(MSR_IA32_TSC_DEADLINE, ~0UL);
	guest_assert(rdmsr(MSR_IA32_TSC_DEADLINE) == ~0UL);
	/* the host is not kept busy by it: hundreds of its ticks, not all the interrupts that fit */
	guest_sync(0);
	for (i = 0; i < 200; i++)
		cpuid(0, 0, r);
	guest_sync(1);
	wrmsr(MSR_IA32_TSC_DEADLINE, 1UL << 63);
	wrmsr(MSR_IA32_TSC_DEADLINE, 0);
	guest_done(0);
}

TEST_F(lapic, far_deadline)
{
	struct vcpu *v;
	u64 irqs;

	NEED_CAP(self->vm, KVM_CAP_TSC_DEADLINE_TIMER);
	v = deadline_vcpu(self->vm);
	vcpu_long(v, far_guest, variant->x2apic);
	/* the slower the guest's TSC, the further, where it can be made slow */
	if (vm_cap(self->vm, KVM_CAP_TSC_CONTROL))
		EXPECT_EQ(0, xioctl(v->fd, KVM_SET_TSC_KHZ, 1000UL));
	EXPECT_EQ(0, vcpu_sync(v));
	irqs = vcpu_stat(v, "irq_exits");
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_GT(100, vcpu_stat(v, "irq_exits") - irqs);
	vcpu_done(v);
}

/* The timer's state is part of what moves */
static void moved_timer_guest(u64 x2)
{
	on(x2);
	guest_on(0x43, tick);
	apic_write(TDCR, 0xb);
	apic_write(LVTT, PERIODIC | 0x43);
	apic_write(TMICT, 5000000);
	guest_sync(0);
	while (guest_irqs[0x43] < 3)
		irq_halt();
	guest_done(0);
}

TEST_F(lapic, timer_from_outside)
{
	struct kvm_lapic_state s;

	vcpu_long(self->v, moved_timer_guest, variant->x2apic);
	vcpu_sync(self->v);
	must(ioctl(self->v->fd, KVM_GET_LAPIC, &s));
	EXPECT_EQ(5000000, *(u32 *)(s.regs + TMICT));
	EXPECT_EQ(PERIODIC | 0x43, *(u32 *)(s.regs + LVTT));
	must(ioctl(self->v->fd, KVM_SET_LAPIC, &s));
	vcpu_done(self->v);
}

/*
 * What QEMU loads has neither version nor count.  A one-shot timer that ran must end, a periodic one has a whole period
 * before it, and one that was never set stays so.
 */
static void untold_count_guest(u64 x2)
{
	on(x2);
	guest_on(0x43, tick);
	apic_write(TDCR, 0xb);
	apic_write(LVTT, 0x43);
	guest_sync(0);
	guest_eq(apic_read(TMCCT), 0);
	irq_on();
	asm volatile("nop");
	irq_off();
	guest_eq(guest_irqs[0x43], 0);
	apic_write(TMICT, ~0U);
	guest_sync(1);
	irq_on();
	while (!guest_irqs[0x43])
		pause_cpu();
	irq_off();
	guest_eq(guest_irqs[0x43], 1);
	guest_eq(apic_read(TMCCT), 0);
	apic_write(LVTT, PERIODIC | 0x43);
	apic_write(TMICT, ~0U);
	guest_sync(2);
	guest_assert(apic_read(TMCCT) > 1000000000);
	guest_done(0);
}

TEST_F(lapic, timer_untold)
{
	struct kvm_lapic_state s;
	int i;

	vcpu_long(self->v, untold_count_guest, variant->x2apic);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(i, vcpu_sync(self->v));
		must(ioctl(self->v->fd, KVM_GET_LAPIC, &s));
		EXPECT_NE(0, *(u32 *)(s.regs + LVR));
		*(u32 *)(s.regs + LVR) = *(u32 *)(s.regs + TMCCT) = 0;
		must(ioctl(self->v->fd, KVM_SET_LAPIC, &s));
		must(ioctl(self->v->fd, KVM_GET_LAPIC, &s));
		EXPECT_NE(0, *(u32 *)(s.regs + LVR));
	}
	vcpu_done(self->v);
}

/*
 * Saved and loaded at any distance from its time, each tick comes exactly once:
 * whichever of the LAPIC and the MSR is read first, and whichever is loaded first.
 */
#define SAVES	1000

static u64 save_spread;		/* cycles from the deadline, to both sides, where it is saved */
static u64 save_khz;
static volatile u64 saved_due;

static void saved_deadline_guest(u64 x2)
{
	u64 when, i;

	on(x2);
	guest_on(0x44, tick);
	apic_write(LVTT, DEADLINE | 0x44);
	asm volatile("mfence");
	for (i = 0; i < SAVES; i++) {
		guest_irqs[0x44] = 0;
		when = rdtsc() + 2 * save_spread;
		saved_due = when;
		wrmsr(MSR_IA32_TSC_DEADLINE, when);
		guest_sync(i);
		irq_on();
		while (rdtsc() < when + save_spread || !guest_irqs[0x44])
			pause_cpu();
		irq_off();
		guest_eq(guest_irqs[0x44], 1);
		guest_assert(last_tsc >= when);
		guest_eq(rdmsr(MSR_IA32_TSC_DEADLINE), 0);
	}
	guest_done(0);
}

static void saved_count_guest(u64 x2)
{
	u64 ns = save_spread * 1000000 / save_khz, i, t;

	on(x2);
	guest_on(0x44, tick);
	apic_write(TDCR, 0xb);
	apic_write(LVTT, 0x44);
	for (i = 0; i < SAVES; i++) {
		guest_irqs[0x44] = 0;
		saved_due = rdtsc() + 2 * save_spread;
		apic_write(TMICT, 2 * ns);
		guest_sync(i);
		irq_on();
		for (t = rdtsc(); rdtsc() < t + save_spread || !guest_irqs[0x44]; )
			pause_cpu();
		irq_off();
		guest_eq(guest_irqs[0x44], 1);
		guest_eq(apic_read(TMCCT), 0);
	}
	guest_done(0);
}

/* A period's end, which is not to wait for the next one's */
#define PERIODS	100

static void saved_period_guest(u64 x2)
{
	u64 ns = save_spread * 1000000 / save_khz, i;

	on(x2);
	guest_on(0x44, tick);
	apic_write(TDCR, 0xb);
	apic_write(LVTT, PERIODIC | 0x44);
	for (i = 0; i < PERIODS; i++) {
		guest_irqs[0x44] = 0;
		apic_write(TMICT, PERIODS * ns);
		saved_due = rdtsc() + PERIODS * save_spread;	/* by then it is over */
		guest_sync(i);
		irq_on();
		while (!guest_irqs[0x44])
			pause_cpu();
		irq_off();
		apic_write(TMICT, 0);
	}
	guest_done(0);
}

static void save_and_load(struct vcpu *v, const struct kvm_lapic_state *blank, int n)
{
	struct kvm_lapic_state s;
	u64 deadline = 0, spread = guest_var(v->vm, save_spread), now;
	int i;

	for (i = 0; i < n; i++) {
		vcpu_sync(v);
		do
			must(vcpu_get_msr(v, MSR_IA32_TSC, &now));
		while (now < guest_var(v->vm, saved_due) - spread + 2 * spread * i / n);
		if (i & 1) {
			must(ioctl(v->fd, KVM_GET_LAPIC, &s));
			must(vcpu_get_msr(v, MSR_IA32_TSC_DEADLINE, &deadline));
		} else {
			must(vcpu_get_msr(v, MSR_IA32_TSC_DEADLINE, &deadline));
			must(ioctl(v->fd, KVM_GET_LAPIC, &s));
		}
		/* of a period that is over there is the interrupt, or a count that is as good as over; not the next one's */
		if (*(u32 *)(s.regs + LVTT) & PERIODIC && now >= guest_var(v->vm, saved_due) &&
		    !(*(u32 *)(s.regs + IRR + 0x20) & 1 << 4) && *(u32 *)(s.regs + TMCCT) != 1)
			die("%u of %u left", *(u32 *)(s.regs + TMCCT), *(u32 *)(s.regs + TMICT));
		/* what a new vCPU has, and not even the mode */
		must(ioctl(v->fd, KVM_SET_LAPIC, blank));
		must(vcpu_set_msr(v, MSR_IA32_TSC_DEADLINE, 0));
		if (i & 2) {
			must(vcpu_set_msr(v, MSR_IA32_TSC_DEADLINE, deadline));
			must(ioctl(v->fd, KVM_SET_LAPIC, &s));
		} else {
			must(ioctl(v->fd, KVM_SET_LAPIC, &s));
			must(vcpu_set_msr(v, MSR_IA32_TSC_DEADLINE, deadline));
		}
	}
	vcpu_done(v);
}

static void test_saves(struct vm *vm, void (*guest)(u64), int n, bool x2apic)
{
	struct kvm_lapic_state blank;
	struct vcpu *v = deadline_vcpu(vm);

	vcpu_long(v, guest, x2apic);
	/* 50 us, or as long as a few ioctls take where a microsecond is a hundred instructions */
	guest_var(vm, save_khz) = xioctl(v->fd, KVM_GET_TSC_KHZ, 0);
	guest_var(vm, save_spread) = guest_var(vm, save_khz) / 20 + 20000;
	must(ioctl(v->fd, KVM_GET_LAPIC, &blank));
	save_and_load(v, &blank, n);
}

TEST_F(lapic, deadline_saved)
{
	NEED_CAP(self->vm, KVM_CAP_TSC_DEADLINE_TIMER);
	test_saves(self->vm, saved_deadline_guest, SAVES, variant->x2apic);
}

TEST_F(lapic, count_saved)
{
	test_saves(self->vm, saved_count_guest, SAVES, variant->x2apic);
}

TEST_F(lapic, period_saved)
{
	test_saves(self->vm, saved_period_guest, PERIODS, variant->x2apic);
}

/* ---- priorities ---- */

static volatile u32 order[8], nr_order;
static void order_handler(struct guest_frame *f)
{
	order[nr_order++] = f->vec;
	if (f->vec == 0x60) {
		/* nested: higher priority class yes, the same no */
		apic_icr(0, SELF | 0x65);
		apic_icr(0, SELF | 0x72);
		irq_on();
		asm volatile("nop; nop");
		irq_off();
		guest_eq(order[nr_order - 1], 0x72);
		guest_eq(apic_read(PPR), 0x60);
		guest_eq(apic_read(ISR + 0x30), 1);
	}
	apic_eoi();
}

static void priority_guest(u64 x2)
{
	int i;

	on(x2);
	for (i = 0x30; i < 0x80; i++)
		guest_on(i, order_handler);
	/* all at once with interrupts off: the highest first */
	apic_icr(0, SELF | 0x31);
	apic_icr(0, SELF | 0x52);
	apic_icr(0, SELF | 0x41);
	guest_eq(apic_read(IRR + 0x20), 1 << 1 | 1 << 18 | 0);
	guest_eq(apic_read(IRR + 0x10), 1 << 17);
	irq_on();
	asm volatile("nop; nop");
	irq_off();
	guest_eq(nr_order, 3);
	guest_eq(order[0], 0x52);
	guest_eq(order[1], 0x41);
	guest_eq(order[2], 0x31);
	/* twice the same before it is taken is once */
	nr_order = 0;
	apic_icr(0, SELF | 0x31);
	apic_icr(0, SELF | 0x31);
	irq_on();
	asm volatile("nop; nop");
	irq_off();
	guest_eq(nr_order, 1);
	/* while one is in service */
	nr_order = 0;
	apic_icr(0, SELF | 0x60);
	irq_on();
	asm volatile("nop; nop");
	irq_off();
	guest_eq(nr_order, 3);
	guest_eq(order[0], 0x60);
	guest_eq(order[1], 0x72);
	guest_eq(order[2], 0x65);
	/* the task's priority holds it back */
	nr_order = 0;
	apic_write(TPR, 0x50);
	apic_icr(0, SELF | 0x5f);
	irq_on();
	asm volatile("nop; nop");
	guest_eq(nr_order, 0);
	write_cr8(4);
	asm volatile("nop; nop");
	guest_eq(nr_order, 1);
	write_cr8(0);
	/* an EOI with nothing in service is nothing */
	apic_eoi();
	guest_done(0);
}

TEST_F(lapic, priorities)
{
	vcpu_long(self->v, priority_guest, variant->x2apic);
	vcpu_done(self->v);
}

static void self_ipi_guest(u64 x2)
{
	u32 i;

	on(x2);
	guest_on(0x70, guest_count_eoi);
	irq_on();
	for (i = 1; i <= 100; i++) {
		apic_icr(0, SELF | 0x70);
		asm volatile("nop");
		guest_eq(guest_irqs[0x70], i);
	}
	/* by its number, and by broadcast with itself */
	apic_icr(0, 0x70);
	asm volatile("nop");
	guest_eq(guest_irqs[0x70], 101);
	apic_icr(0, 0x80000 | 0x70);
	asm volatile("nop");
	guest_eq(guest_irqs[0x70], 102);
	/* all but itself: nobody */
	apic_icr(0, 0xc0000 | 0x70);
	asm volatile("nop");
	guest_eq(guest_irqs[0x70], 102);
	guest_eq(apic_read(0x300) & 1 << 12, 0);
	if (x2) {
		wrmsr(0x83f, 0x70);
		asm volatile("nop");
		guest_eq(guest_irqs[0x70], 103);
	}
	guest_done(0);
}

TEST_F(lapic, self_ipi)
{
	RUN(self_ipi_guest);
}

/* Halted with a pending interrupt that its priority forbids, it sleeps on */
static void tpr_halt_guest(u64 x2)
{
	on(x2);
	guest_on(0x40, guest_count_eoi);
	guest_on(0x90, tick);
	apic_write(TPR, 0x80);
	apic_icr(0, SELF | 0x40);
	apic_write(TDCR, 0xb);
	apic_write(LVTT, 0x90);
	apic_write(TMICT, 5000000);
	irq_halt();
	guest_eq(guest_irqs[0x90], 1);
	guest_eq(guest_irqs[0x40], 0);
	apic_write(TPR, 0);
	irq_on();
	asm volatile("nop");
	guest_eq(guest_irqs[0x40], 1);
	guest_done(0);
}

TEST_F(lapic, halt_below_priority)
{
	RUN(tpr_halt_guest);
}

/* STI; HLT: the interrupt pending before does not get lost between them */
static void sti_hlt_guest(u64 x2)
{
	u32 i;

	on(x2);
	guest_on(0x40, guest_count_eoi);
	for (i = 1; i <= 200; i++) {
		apic_icr(0, SELF | 0x40);
		irq_halt();
		guest_eq(guest_irqs[0x40], i);
	}
	guest_done(0);
}

TEST_F(lapic, sti_halt)
{
	RUN(sti_hlt_guest);
}

/* The instruction behind STI faults on memory it is the first to touch, an exit in the shadow: the shadow lasts */
static volatile u32 shadow_saw;

static void shadow_irq(struct guest_frame *f)
{
	shadow_saw = *(volatile u32 *)HEAP_GPA;
	apic_eoi();
}

static void sti_fault_guest(u64 x2)
{
	on(x2);
	guest_on(0x40, shadow_irq);
	shadow_saw = 100;
	apic_icr(0, SELF | 0x40);
	asm volatile("sti; incl %0; cli" : "+m"(*(u32 *)HEAP_GPA) : : "memory");
	guest_eq(shadow_saw, 1);
	guest_done(0);
}

TEST_F(lapic, sti_fault)
{
	RUN(sti_fault_guest);
}

/*
 * In x2APIC mode the CPU may do it all by itself: delivery, priorities, EOI,
 * self-IPI and reads, none of which exits then.
 */
#define ROUNDS	1000

static void by_cpu_handler(struct guest_frame *f)
{
	/* this one is in service, and nothing that is requested is above it */
	guest_eq(rdmsr(0x80a), f->vec & 0xf0);
	guest_eq(rdmsr(0x810 + f->vec / 32) >> f->vec % 32 & 1, 1);
	guest_eq(rdmsr(0x820 + f->vec / 32) >> f->vec % 32 & 1, 0);
	atomic_add(&guest_irqs[f->vec], 1);
	wrmsr(0x80b, 0);
}

static void by_cpu_guest(u64 arg)
{
	u64 cr8;
	u32 i;

	x2apic_on();
	guest_on(0x70, by_cpu_handler);
	guest_on(0x80, by_cpu_handler);
	irq_on();
	guest_sync(0);
	for (i = 1; i <= ROUNDS; i++) {
		wrmsr(0x83f, 0x70);
		guest_eq(guest_irqs[0x70], i);
		/* held back by the TPR, which then lets the higher one through */
		wrmsr(0x808, 0x85);
		wrmsr(0x83f, 0x70);
		wrmsr(0x83f, 0x80);
		guest_eq(guest_irqs[0x70], i);
		guest_eq(guest_irqs[0x80], i - 1);
		guest_eq(rdmsr(0x808), 0x85);
		wrmsr(0x808, 0x72);
		asm volatile("mov %%cr8, %0" : "=r"(cr8));
		guest_eq(cr8, 7);
		guest_eq(guest_irqs[0x80], i);
		guest_eq(guest_irqs[0x70], i);
		/* and back to where this round began */
		wrmsr(0x808, 0);
		guest_eq(guest_irqs[0x70], i + 1);
		atomic_add(&guest_irqs[0x70], -1);
	}
	guest_sync(1);
	/* an illegal vector goes nowhere, and is an error */
	wrmsr(0x83f, 5);
	wrmsr(0x828, 0);
	guest_assert(rdmsr(0x828) & 0x60);
	/* what the VMM puts into the IRR is delivered */
	irq_off();
	guest_sync(2);
	guest_eq(rdmsr(0x820 + 0x80 / 32) & 1, 1);
	irq_on();
	guest_eq(guest_irqs[0x80], ROUNDS + 1);
	/* or lets through, of a vCPU that is halted, by lowering its TPR */
	wrmsr(0x808, 0x85);
	wrmsr(0x83f, 0x70);
	guest_sync(3);
	guest_eq(guest_irqs[0x70], ROUNDS + 1);
	/* so is what waits while the APIC is off for a moment, and the CPU's help with it */
	irq_off();
	wrmsr(0x83f, 0x70);
	wrmsr(0x80f, 0xff);
	wrmsr(0x80f, 0x1ff);
	irq_on();
	guest_eq(guest_irqs[0x70], ROUNDS + 2);
	guest_done(0);
}

TEST(run_by_the_cpu)
{
	struct kvm_mp_state halted = { .mp_state = KVM_MP_STATE_HALTED };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_lapic_state s;
	struct kvm_sregs sregs;
	u64 exits;

	vcpu_long(v, by_cpu_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	exits = fd_stat(v->fd, "exits");
	EXPECT_EQ(1, vcpu_sync(v));
	exits = fd_stat(v->fd, "exits") - exits;
	/* the host's interrupts exit, and nothing else; else each of more than ten steps does */
	if (lapics_by_cpu()) {
		EXPECT_GT(ROUNDS, exits);
	} else {
		EXPECT_LT(10 * ROUNDS, exits);
	}
	EXPECT_EQ(2, vcpu_sync(v));
	must(ioctl(v->fd, KVM_GET_LAPIC, &s));
	*(u32 *)(s.regs + IRR + 0x80 / 32 * 0x10) |= 1;
	must(ioctl(v->fd, KVM_SET_LAPIC, &s));
	EXPECT_EQ(3, vcpu_sync(v));
	must(ioctl(v->fd, KVM_SET_MP_STATE, &halted));
	vcpu_get_sregs(v, &sregs);
	sregs.cr8 = 0;
	vcpu_set_sregs(v, &sregs);
	vcpu_done(v);
	vm_free(vm);
}

/*
 * What a guest can do as often as it likes, here taking the CPU's help away from its LAPIC and getting it back, is paid
 * by itself: the host waits for no grace period, and hastens none.
 */
#define PROBES	"/sys/kernel/tracing/kprobe_events"
#define PROBED	"/sys/kernel/tracing/events/lapic/enable"
#define HITS	"/sys/kernel/tracing/kprobe_profile"
#define SWITCHES	500

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static u64 hits(void)
{
	unsigned long n, missed, sum = 0;
	FILE *f = fopen(HITS, "r");
	char name[64];

	while (f && fscanf(f, "%63s %lu %lu", name, &n, &missed) == 3)
		sum += n + missed;
	if (f)
		fclose(f);
	return sum;
}

static void switching_guest(u64 arg)
{
	int i;

	x2apic_on();
	for (i = 0; i < SWITCHES; i++) {
		wrmsr(0x80f, 0xff);
		wrmsr(0x80f, 0x1ff);
	}
	guest_done(0);
}

TEST(no_grace_period)
{
	struct vm *vm;
	struct vcpu *v;
	u64 n;

	if (!lapics_by_cpu())
		SKIP(return, "the CPU does not run LAPICs");
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	if (!put(PROBES, "p:lapic/waited synchronize_rcu\n") ||
	    !put(PROBES, "p:lapic/hastened synchronize_rcu_expedited\n") || !put(PROBED, "1"))
		SKIP(return, "no kprobes in tracefs");
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_new(vm, 0);
	vcpu_long(v, switching_guest, 0);
	n = hits();
	vcpu_done(v);
	/* others on this machine may have had cause to */
	EXPECT_GT(SWITCHES / 10, hits() - n);
	put(PROBED, "0");
	put(PROBES, "-:lapic/waited\n");
	put(PROBES, "-:lapic/hastened\n");
	vm_free(vm);
}

/* Every form of access to the page that a guest may use on it */
static void mmio_forms_guest(u64 x2)
{
	volatile u32 *tpr = (u32 *)(LAPIC_GPA + TPR);
	u32 v = 0;

	apic_on();
	*tpr = 0x10;
	asm volatile("addl $0x10,%0" : "+m"(*tpr));
	guest_eq(*tpr, 0x20);
	asm volatile("orl $0x40,%0" : "+m"(*tpr));
	guest_eq(*tpr, 0x60);
	v = 0x30;
	asm volatile("xchgl %0,%1" : "+r"(v), "+m"(*tpr));
	guest_eq(v, 0x60);
	guest_eq(*tpr, 0x30);
	asm volatile("movl $0x50,%0" : "=m"(*tpr));
	guest_eq(*tpr, 0x50);
	asm volatile("pushq %1; popq %q0" : "=r"(v) : "m"(*tpr));
	guest_eq(v, 0x50);
	guest_done(0);
}

TEST(mmio_forms)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);

	vcpu_long(v, mmio_forms_guest, 0);
	vcpu_done(v);
	vm_free(vm);
}

/* Moved elsewhere, it is elsewhere */
static void relocated_guest(u64 arg)
{
	wrmsr(MSR_IA32_APICBASE, 0xd0100000 | 0x900);
	mmio_write32(0xd0100000 + TPR, 0x30);
	guest_eq(mmio_read32(0xd0100000 + TPR), 0x30);
	guest_eq(mmio_read32(LAPIC_GPA + TPR), 0x77);	/* an exit, now */
	guest_done(0);
}

TEST(relocated)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);

	vcpu_long(v, relocated_guest, 0);
	*(u32 *)vcpu_expect_mmio(v, false, LAPIC_GPA + TPR, 4)->mmio.data =
		0x77;
	vcpu_done(v);
	vm_free(vm);
}

/* The TPR in guest memory, exchanged at entries and exits */
static void vapic_guest(u64 arg)
{
	volatile u8 *tpr = (u8 *)HEAP_GPA;

	guest_eq(*tpr, 0);
	*tpr = 0x50;
	outb(0x80, 0);
	guest_eq(read_cr8(), 5);
	*tpr = 0;
	outb(0x80, 0);
	guest_eq(read_cr8(), 0);
	*tpr = 0x50;
	apic_write(TPR, 0x30);		/* not by the page, and later */
	guest_eq(*tpr << 8 | read_cr8(), 0x3003);
	guest_done(0);
}

TEST(vapic_addr)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_vapic_addr a = { .vapic_addr = HEAP_GPA };

	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_SET_VAPIC_ADDR, 8));
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_VAPIC_ADDR, &a));
	vcpu_long(v, vapic_guest, 0);
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x80, 1, 1);
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x80, 1, 1);
	vcpu_done(v);
	vm_free(vm);
}

/* ---- how fast the timer counts ---- */

#define CYCLE_NS	100000UL

static void clock_guest(u64 divider)
{
	apic_on();
	apic_write(TDCR, divider == 1 ? 0xb : 3);
	apic_write(LVTT, 0x10040);
	apic_write(TMICT, 1000000);
	for (;;)
		guest_sync(apic_read(TMCCT));
}

static void slow_guest(u64 arg)
{
	apic_on();
	guest_on(0x40, guest_count_eoi);
	apic_write(TDCR, 0xb);
	apic_write(LVTT, 0x40);
	guest_sync(0);
	apic_write(TMICT, 200);
	while (!guest_irqs[0x40])
		irq_halt();
	guest_done(0);
}

TEST(bus_clock)
{
	struct kvm_lapic_state s;
	struct vm *vm = vm_new(VM_PLAIN), *to;
	int kind, divider;
	u64 count, from, till;
	struct vcpu *v;

	NEED_CAP(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS);
	EXPECT_EQ(1, vm_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 0));
	EXPECT_EQ(-ENXIO, vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 1));
	vm_free(vm);
	for (kind = VM_IRQCHIP; kind <= VM_SPLIT; kind++) {
		divider = kind == VM_IRQCHIP ? 1 : 16;
		vm = vm_new(kind);
		/* the largest that the largest count and divider can be multiplied with */
		EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, ~0UL / (~0U * 128UL) + 1));
		EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, ~0UL / (~0U * 128UL)));
		EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, ~0UL));
		EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, CYCLE_NS));
		EXPECT_EQ(CYCLE_NS, vm_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS));
		EXPECT_EQ(1, xioctl(vm->sys, KVM_CHECK_EXTENSION, KVM_CAP_X86_APIC_BUS_CYCLES_NS));
		v = vcpu_new(vm, 0);
		EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 1));
		vcpu_long(v, clock_guest, divider);
		from = now_ns();
		count = vcpu_sync(v);
		EXPECT_LE((1000000 - count) * CYCLE_NS * divider, now_ns() - from + CYCLE_NS * divider);
		/* between two looks at it no more goes by than did, and no less */
		from = now_ns();
		count = vcpu_sync(v);
		till = now_ns();
		sleep_ms(200);
		EXPECT_LE((now_ns() - till) / (CYCLE_NS * divider), count - vcpu_sync(v) + 1);
		count -= vcpu_sync(v);
		EXPECT_LE(count * CYCLE_NS * divider, now_ns() - from + CYCLE_NS * divider);
		/* and it goes on elsewhere */
		must(ioctl(v->fd, KVM_GET_LAPIC, &s));
		memcpy(&s.regs[TMCCT], &(u32){ 400000 }, 4);
		to = vm_new(kind);
		EXPECT_EQ(0, vm_enable_cap(to, KVM_CAP_X86_APIC_BUS_CYCLES_NS, CYCLE_NS));
		v = vcpu_new(to, 0);
		from = now_ns();
		must(ioctl(v->fd, KVM_SET_LAPIC, &s));
		must(ioctl(v->fd, KVM_GET_LAPIC, &s));
		memcpy(&count, &s.regs[TMCCT], 4);
		count &= ~0U;
		EXPECT_LE(count, 400000);
		EXPECT_LE((400000 - count) * CYCLE_NS * divider, now_ns() - from + CYCLE_NS * divider);
		/* what it counts down to comes not before its time */
		vcpu_long(v, slow_guest, 0);
		vcpu_sync(v);
		from = now_ns();
		vcpu_done(v);
		EXPECT_LE(200 * CYCLE_NS, now_ns() - from);
		vm_free(vm);
		vm_free(to);
	}
}

TEST_HARNESS_MAIN
