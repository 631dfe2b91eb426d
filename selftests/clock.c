// SPDX-License-Identifier: GPL-2.0-only
/*
 * Time: the TSC and its offset, the paravirtual clock in guest memory, the wall
 * clock, the VM's clock from outside.
 */
#include "test.h"
#include "pvclock.h"

#include <sched.h>
#include <time.h>

FIXTURE(clock) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(clock)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(clock)
{
	vm_free(self->vm);
}

#define SECOND	1000000000ULL

/* ---- the VM's clock ---- */

TEST_F(clock, set_and_get)
{
	struct kvm_clock_data c = { .clock = 1000 * SECOND }, d, e;

	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_CLOCK, &d));
	EXPECT_LT(d.clock, 100 * SECOND);	/* it starts with the VM */
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_CLOCK, &c));
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_CLOCK, &d));
	EXPECT_GE(d.clock, 1000 * SECOND);
	EXPECT_LT(d.clock, 1060 * SECOND);
	sleep_ms(100);
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_CLOCK, &e));
	EXPECT_GE(e.clock, d.clock + SECOND / 20);
	/* what was got can be set */
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_SET_CLOCK, &e));
	c.flags = 1 << 10;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_SET_CLOCK, &c));
	EXPECT_EQ(0, d.flags & ~vm_cap(self->vm, KVM_CAP_ADJUST_CLOCK));
}

/* Given when it was read, the time in between is added */
TEST_F(clock, set_with_realtime)
{
	struct kvm_clock_data c = { .clock = 1000 * SECOND,
				    .flags = KVM_CLOCK_REALTIME }, d;
	struct timespec ts;

	if (!(vm_cap(self->vm, KVM_CAP_ADJUST_CLOCK) & KVM_CLOCK_REALTIME))
		SKIP(return, "no KVM_CLOCK_REALTIME");
	clock_gettime(CLOCK_REALTIME, &ts);
	c.realtime = (ts.tv_sec - 500) * SECOND + ts.tv_nsec;
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_CLOCK, &c));
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_CLOCK, &d));
	EXPECT_GE(d.clock, 1499 * SECOND);
	EXPECT_LT(d.clock, 1600 * SECOND);
}

/* ---- the guest's clock ---- */

struct pv_wall {
	u32 version, sec, nsec;
};

static struct pv_time times[2] __attribute__((aligned(64)));
static struct pv_wall wall __attribute__((aligned(64)));

#define MSR_WALL	0x4b564d00
#define MSR_WALL_OLD	0x11
#define MSR_TIME_OLD	0x12

static volatile u64 seen_ns, seen_flags;

static void page_guest(u64 msr)
{
	u64 last = 0, now;
	u32 i, version;

	wrmsr(msr, (u64)&times[0] | 1);
	if (msr == MSR_TIME)
		guest_eq(rdmsr(msr), (u64)&times[0] | 1);
	guest_assert(times[0].version != 0);
	guest_eq(times[0].version & 1, 0);
	guest_assert(times[0].mul != 0);
	for (i = 0; i < 10000; i++) {
		now = pv_read(&times[0]);
		guest_assert(now >= last);
		last = now;
	}
	seen_ns = pv_read(&times[0]);
	seen_flags = times[0].flags;
	guest_sync(0);
	/* set from outside meanwhile: a new version */
	version = times[0].version;
	guest_sync(1);
	now = pv_read(&times[0]);
	guest_assert(now >= 5000 * SECOND);
	guest_assert(now < 5100 * SECOND);
	guest_assert(times[0].version != version);
	/* off */
	wrmsr(msr, 0);
	times[0].version = 0x1234;
	times[0].system_time = 0;
	guest_sync(2);
	guest_eq(times[0].version, 0x1234);
	guest_eq(times[0].system_time, 0);
	guest_done(0);
}

static void run_page(struct __test_metadata *_metadata, struct vm *vm,
		     struct vcpu *v, u64 msr)
{
	struct kvm_clock_data c;
	u64 seen;

	vcpu_long(v, page_guest, msr);
	vcpu_sync(v);
	must(ioctl(vm->fd, KVM_GET_CLOCK, &c));
	seen = guest_var(vm, seen_ns);
	/* it is the VM's clock, as seen a moment ago */
	EXPECT_LE(seen, c.clock + SECOND);
	EXPECT_GE(seen + 60 * SECOND, c.clock);
	EXPECT_EQ(1, vcpu_sync(v));
	memset(&c, 0, sizeof(c));
	c.clock = 5000 * SECOND;
	must(ioctl(vm->fd, KVM_SET_CLOCK, &c));
	EXPECT_EQ(2, vcpu_sync(v));
	vcpu_done(v);
}

TEST_F(clock, page)
{
	run_page(_metadata, self->vm, self->v, MSR_TIME);
}

TEST_F(clock, page_old_msr)
{
	run_page(_metadata, self->vm, self->v, MSR_TIME_OLD);
}

/* Where the host does not trust its TSC the page is not left to it for long, wherever the vCPU is */
static void keeps_up_guest(u64 arg)
{
	wrmsr(MSR_TIME, (u64)&times[0] | 1);
	for (;;)
		guest_sync(times[0].version);
}

TEST_F(clock, page_keeps_up)
{
	struct kvm_clock_data c;
	cpu_set_t all, one;
	u32 version;
	int i;

	must(ioctl(self->vm->fd, KVM_GET_CLOCK, &c));
	if (c.flags & KVM_CLOCK_HOST_TSC)
		SKIP(return, "the host keeps time by its TSC");
	must(sched_getaffinity(0, sizeof(all), &all));
	CPU_ZERO(&one);
	for (i = 0; !CPU_ISSET(i, &all); i++)
		;
	CPU_SET(i, &one);
	must(sched_setaffinity(0, sizeof(one), &one));
	vcpu_long(self->v, keeps_up_guest, 0);
	version = vcpu_sync(self->v);
	EXPECT_EQ(version, vcpu_sync(self->v));
	for (i = 0; i < 60 && version == vcpu_sync(self->v); i++)
		sleep_ms(500);
	EXPECT_NE(version, vcpu_sync(self->v));
	must(sched_setaffinity(0, sizeof(all), &all));
}

/* A frequency that fits: what the page says passes about as time does */
static void rate_guest(u64 arg)
{
	wrmsr(MSR_TIME, (u64)&times[0] | 1);
	for (;;) {
		seen_ns = pv_read(&times[0]);
		guest_sync(0);
	}
}

TEST_F(clock, rate)
{
	u64 a, b, t;

	vcpu_long(self->v, rate_guest, 0);
	vcpu_sync(self->v);
	t = now_ns();
	a = guest_var(self->vm, seen_ns);
	sleep_ms(500);
	vcpu_sync(self->v);
	t = now_ns() - t;
	b = guest_var(self->vm, seen_ns) - a;
	EXPECT_GT(b, t / 2);
	EXPECT_LT(b, t * 2);
}

/* Where the host says the TSC is one clock, no vCPU is behind another */
static volatile u64 max_seen;
static volatile u32 backwards, unstable, turns;

static void monotonic_guest(u64 id)
{
	u64 now, before;
	u32 i;

	wrmsr(MSR_TIME, (u64)&times[id] | 1);
	atomic_add(&turns, 1);
	spin_until(&turns, 2);
	for (i = 0; i < 5000; i++) {
		before = max_seen;
		now = pv_read(&times[id]);
		if (!(times[id].flags & 1))
			unstable = 1;
		if (now < before)
			backwards = 1;
		while (now > before) {
			u64 old = __sync_val_compare_and_swap(&max_seen,
							      before, now);

			if (old == before)
				break;
			before = old;
		}
	}
	guest_done(0);
}

TEST_F(clock, monotonic_across)
{
	struct vcpu *v[2] = { self->v, vcpu_new(self->vm, 1) };
	int i;

	for (i = 0; i < 2; i++)
		vcpu_long(v[i], monotonic_guest, i);
	for (i = 0; i < 2; i++)
		vcpu_start(v[i]);
	for (i = 0; i < 2; i++)
		vcpu_join(v[i]);
	if (guest_var(self->vm, unstable))
		SKIP(return, "the host's TSC is not stable");
	EXPECT_EQ(0, guest_var(self->vm, backwards));
}

static void wall_guest(u64 msr)
{
	wrmsr(MSR_TIME, (u64)&times[0] | 1);
	wrmsr(msr, (u64)&wall);
	guest_eq(wall.version & 1, 0);
	guest_assert(wall.version != 0);
	seen_ns = pv_read(&times[0]);
	guest_done(0);
}

static void run_wall(struct __test_metadata *_metadata, struct vm *vm,
		     struct vcpu *v, u64 msr)
{
	struct timespec ts;
	u64 w, host;

	vcpu_long(v, wall_guest, msr);
	vcpu_done(v);
	clock_gettime(CLOCK_REALTIME, &ts);
	host = ts.tv_sec * SECOND + ts.tv_nsec;
	/* wall clock at boot, plus the time since */
	w = guest_var(vm, wall).sec * SECOND + guest_var(vm, wall).nsec +
	    guest_var(vm, seen_ns);
	EXPECT_LT(w, host + 5 * SECOND);
	EXPECT_GT(w + 60 * SECOND, host);
}

TEST_F(clock, wall)
{
	run_wall(_metadata, self->vm, self->v, MSR_WALL);
}

TEST_F(clock, wall_old_msr)
{
	run_wall(_metadata, self->vm, self->v, MSR_WALL_OLD);
}

/*
 * The wall clock, when nothing has worked out the VM's clock since it was set:
 * the instant it is read at must not be before that of the working out.
 */
static void wall_only_guest(u64 arg)
{
	for (;;) {
		wrmsr(MSR_WALL, (u64)&wall);
		guest_sync(0);
	}
}

TEST_F(clock, wall_after_set)
{
	struct kvm_clock_data c = { .clock = 1000 * SECOND };
	struct timespec ts;
	u64 w, host;
	int i;

	vcpu_long(self->v, wall_only_guest, 0);
	for (i = 0; i < 100; i++) {
		must(ioctl(self->vm->fd, KVM_SET_CLOCK, &c));
		vcpu_sync(self->v);
		clock_gettime(CLOCK_REALTIME, &ts);
		host = ts.tv_sec * SECOND + ts.tv_nsec;
		w = guest_var(self->vm, wall).sec * SECOND + guest_var(self->vm, wall).nsec + 1000 * SECOND;
		ASSERT_LT(w, host + 5 * SECOND);
		ASSERT_GT(w + 60 * SECOND, host);
	}
}

static void stopped_guest(u64 arg)
{
	wrmsr(MSR_TIME, (u64)&times[0] | 1);
	guest_sync(times[0].flags & 2);
	guest_sync(times[0].flags & 2);
	guest_done(0);
}

/*
 * A VMM that resets its machine sets the TSCs back: the page is then of a time that this TSC has seen.  For what is not Linux
 * what lies before its TSC's zero is far in the future.
 */
static void set_back_guest(u64 arg)
{
	wrmsr(MSR_TIME, (u64)&times[0] | 1);
	guest_sync(0);
	wrmsr(MSR_TIME, 0);
	wrmsr(MSR_TIME, (u64)&times[0] | 1);
	guest_assert(times[0].tsc_timestamp <= rdtsc());
	guest_sync(pv_read(&times[0]) / 1000000);
}

TEST_F(clock, tsc_set_back)
{
	struct kvm_clock_data before, after;
	u64 guest;

	vcpu_long(self->v, set_back_guest, 0);
	EXPECT_EQ(0, vcpu_sync(self->v));
	sleep_ms(1500);		/* what is a second apart is no step */
	must(ioctl(self->vm->fd, KVM_GET_CLOCK, &before));
	ASSERT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_TSC, 1));
	guest = vcpu_sync(self->v);
	must(ioctl(self->vm->fd, KVM_GET_CLOCK, &after));
	EXPECT_LE(before.clock / 1000000, guest);
	EXPECT_GE(after.clock / 1000000, guest);
}

TEST_F(clock, guest_stopped)
{
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_KVMCLOCK_CTRL, 0));
	vcpu_long(self->v, stopped_guest, 0);
	EXPECT_EQ(0, vcpu_sync(self->v));
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_KVMCLOCK_CTRL, 0));
	EXPECT_EQ(2, vcpu_sync(self->v));
	vcpu_done(self->v);
}

static void no_feature_guest(u64 arg)
{
	guest_eq(wrmsr_try(MSR_TIME, (u64)&times[0] | 1), GP0);
	guest_eq(wrmsr_try(MSR_WALL, (u64)&wall), GP0);
	guest_done(0);
}

/* A feature not in CPUID is not there, when the VMM wants it enforced */
TEST_F(clock, feature_enforced)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid,
						KVM_CPUID_FEATURES, 0);
	struct kvm_enable_cap c = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
				    .args = { 1 } };
	struct vcpu *v;

	NEED_CAP(self->vm, KVM_CAP_ENFORCE_PV_FEATURE_CPUID);
	e->eax = 0;
	v = vcpu_new(self->vm, 1);
	EXPECT_EQ(0, xioctl(v->fd, KVM_ENABLE_CAP, &c));
	vcpu_long(v, no_feature_guest, 0);
	vcpu_done(v);
}

/* The page's address is the guest's to get wrong */
static void bad_page_guest(u64 arg)
{
	wrmsr(MSR_TIME, 0xd0000000UL | 1);
	guest_sync(0);
	wrmsr(MSR_TIME, 0xfffffffffffff000UL | 1);
	guest_sync(1);
	wrmsr(MSR_TIME, (MEM_SIZE - 8) | 1);
	guest_sync(2);
	wrmsr(MSR_WALL, 0xd0000000UL);
	guest_sync(3);
	wrmsr(MSR_TIME, (u64)&times[0] | 1);
	guest_assert(times[0].version != 0);
	guest_done(0);
}

TEST_F(clock, bad_page)
{
	int i;

	vcpu_long(self->v, bad_page_guest, 0);
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(i, vcpu_sync(self->v));
	}
	vcpu_done(self->v);
}

/* ---- TSC ---- */

static void tsc_guest(u64 arg)
{
	u64 a = rdtsc(), b;
	u32 i, aux;

	for (i = 0; i < 1000; i++) {
		u32 r[4];

		cpuid(0, 0, r);			/* over exits */
		b = rdtsc();
		guest_assert(b > a);
		a = b;
	}
	/* written, it goes on from there */
	wrmsr(MSR_IA32_TSC, 1UL << 52);
	a = rdtsc();
	guest_assert(a >= 1UL << 52);
	guest_assert(a < (1UL << 52) + (1UL << 40));
	guest_assert(rdmsr(MSR_IA32_TSC) >= a);
	/* and the difference is in TSC_ADJUST */
	guest_assert(rdmsr(MSR_IA32_TSC_ADJUST) != 0);
	wrmsr(MSR_IA32_TSC_ADJUST, 0);
	b = rdtsc();
	guest_assert(b < 1UL << 51);
	wrmsr(MSR_IA32_TSC_ADJUST, 1UL << 45);
	guest_eq(rdmsr(MSR_IA32_TSC_ADJUST), 1UL << 45);
	guest_assert(rdtsc() >= b + (1UL << 45));
	wrmsr(MSR_TSC_AUX, 0x1234);
	asm volatile("rdtscp" : "=c"(aux) :: "rax", "rdx");
	guest_eq(aux, 0x1234);
	guest_done(0);
}

TEST_F(clock, tsc)
{
	vcpu_long(self->v, tsc_guest, 0);
	vcpu_done(self->v);
}

static void tsc_value_guest(u64 arg)
{
	for (;;) {
		seen_ns = rdtsc();
		guest_sync(0);
	}
}

TEST_F(clock, tsc_offset)
{
	u64 off, off2, old, new;
	struct kvm_device_attr a = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)&off,
	};
	int fd = self->v->fd;

	NEED_CAP(self->vm, KVM_CAP_VCPU_ATTRIBUTES);
	EXPECT_EQ(0, xioctl(fd, KVM_HAS_DEVICE_ATTR, &a));
	EXPECT_EQ(0, xioctl(fd, KVM_GET_DEVICE_ATTR, &a));
	vcpu_long(self->v, tsc_value_guest, 0);
	vcpu_sync(self->v);
	old = guest_var(self->vm, seen_ns);
	off += 1ULL << 50;
	EXPECT_EQ(0, xioctl(fd, KVM_SET_DEVICE_ATTR, &a));
	vcpu_sync(self->v);
	new = guest_var(self->vm, seen_ns);
	EXPECT_GE(new + (1ULL << 36), old + (1ULL << 50));
	EXPECT_LT(new, old + (1ULL << 50) + (1ULL << 40));
	a.addr = (uintptr_t)&off2;
	EXPECT_EQ(0, xioctl(fd, KVM_GET_DEVICE_ATTR, &a));
	/* a host without a stable TSC corrects it now and then */
	EXPECT_LT(off - off2 + (1ULL << 36), 1ULL << 37);

	a.addr = 8;
	EXPECT_EQ(-EFAULT, xioctl(fd, KVM_GET_DEVICE_ATTR, &a));
	EXPECT_EQ(-EFAULT, xioctl(fd, KVM_SET_DEVICE_ATTR, &a));
	a.attr = 99;
	EXPECT_EQ(-ENXIO, xioctl(fd, KVM_HAS_DEVICE_ATTR, &a));
	EXPECT_EQ(-ENXIO, xioctl(fd, KVM_GET_DEVICE_ATTR, &a));
	a.attr = 0;
	a.group = 99;
	EXPECT_EQ(-ENXIO, xioctl(fd, KVM_HAS_DEVICE_ATTR, &a));
}

/* Writing their TSCs, threads overtake each other */
static u32 tsc_writes;

static void *writes_tsc(void *arg)
{
	struct vcpu *v = arg;
	u32 i;

	for (i = 0; i < tsc_writes; i++)
		vcpu_set_msr(v, MSR_IA32_TSC, 1 << 20);
	return NULL;
}

TEST_F(clock, tsc_written_by_many)
{
	u64 a, b, khz = xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0);
	struct vcpu *v = vcpu_new(self->vm, 1);
	pthread_t t;

	tsc_writes = 20000;
	must(pthread_create(&t, NULL, writes_tsc, v));
	writes_tsc(self->v);
	pthread_join(t, NULL);
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_TSC, &a));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_TSC, &b));
	EXPECT_LT(b, a + khz * 60000);
	EXPECT_LT(a, b + khz * 60000);
}

/* vCPUs made together have one TSC, give or take the making */
TEST_F(clock, tsc_in_step)
{
	u64 a, b, khz = xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0);
	struct vcpu *v = vcpu_new(self->vm, 1);

	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_TSC, &a));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_TSC, &b));
	EXPECT_LT(b, a + khz * 5000);
	EXPECT_LT(a, b + khz * 5000);
}

/* The first TSC that a VMM writes is what it says, however young the VM; what it writes near that means the same */
TEST_F(clock, tsc_of_a_young_guest)
{
	u64 a, b, khz = xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0), ms;
	struct vcpu *v;
	int i;

	if (!vm_cap(self->vm, KVM_CAP_ONE_REG))
		SKIP(return, "as KVM had it before 6.8");
	for (i = 0, ms = 500; i < 8 && ms >= 300; i++) {	/* a busy host may take its time between the two */
		struct vm *vm = vm_new(VM_PLAIN);
		struct vcpu *w;

		v = vcpu_new(vm, 0);
		sleep_ms(400);
		EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_TSC, 5));
		EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_TSC, &a));
		ms = a / khz;
		w = vcpu_new(vm, 1);
		EXPECT_EQ(1, vcpu_set_msr(w, MSR_IA32_TSC, 5));
		EXPECT_EQ(1, vcpu_get_msr(w, MSR_IA32_TSC, &b));
		if (ms < 300 && b / khz < 900)
			EXPECT_LE(a, b + khz);	/* a host of different TSCs knows it no better */
		vm_free(vm);
	}
	EXPECT_GT(300, ms);
}

/* ---- one line, whoever is asked, and nothing that breaks it ---- */

#define TEN_MINUTES	(600 * SECOND)
#define MSR_HV_TSC_PAGE	0x40000021

static struct {
	u32 sequence, reserved;
	u64 scale;
	long offset;
} hv_page __attribute__((aligned(4096)));
static volatile u64 seen_tsc;

static void line_guest(u64 id)
{
	wrmsr(MSR_TIME, (u64)&times[id] | 1);
	for (;;) {
		seen_tsc = rdtsc();
		seen_ns = pv_read(&times[id]);
		guest_sync(times[id].flags & 1);
	}
}

static u64 tsc_offset(struct vcpu *v)
{
	u64 off;
	struct kvm_device_attr a = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&off };

	must(ioctl(v->fd, KVM_GET_DEVICE_ATTR, &a));
	return off;
}

static struct pv_time page_of(struct vm *vm, int id)
{
	return *(struct pv_time *)&guest_var(vm, times)[id];
}

/* The VM's clock, less what the page says of that instant; for a guest whose TSC is not scaled */
static long apart(struct vcpu *v)
{
	struct pv_time page = page_of(v->vm, v->id);
	struct kvm_clock_data c;

	must(ioctl(v->vm->fd, KVM_GET_CLOCK, &c));
	if (!(c.flags & KVM_CLOCK_HOST_TSC))
		die("no TSC with the clock");
	return c.clock - pv_at(&page, c.host_tsc + tsc_offset(v));
}

FIXTURE(line) {
	struct vm *vm;
	struct vcpu *v;
	u32 khz;		/* the host's */
	u32 guest_khz;		/* what the guest's TSC really has */
	bool scaled;
	const char *lacks;
};

#define NEED_LINE()							\
	if (self->lacks)						\
		SKIP(return, "%s", self->lacks)

/* Of the host's frequency, in millionths: the first three are within the tolerance, and the CPU's rate stays */
FIXTURE_VARIANT(line) { int ppm; };
FIXTURE_VARIANT_ADD(line, as_host) { 0 };
FIXTURE_VARIANT_ADD(line, faster) { 100 };
FIXTURE_VARIANT_ADD(line, slower) { -200 };
FIXTURE_VARIANT_ADD(line, scaled_up) { 371234 };
FIXTURE_VARIANT_ADD(line, scaled_down) { -654321 };

static u32 asked(u32 khz, int ppm)
{
	return khz + (long)khz * ppm / 1000000;
}

FIXTURE_SETUP(line)
{
	struct kvm_clock_data c;

	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
	self->scaled = variant->ppm > 250 || variant->ppm < -250;
	must(ioctl(self->vm->fd, KVM_GET_CLOCK, &c));
	if (!(c.flags & KVM_CLOCK_HOST_TSC))
		self->lacks = "the host does not keep time by its TSC";
	else if (!vm_cap(self->vm, KVM_CAP_VCPU_ATTRIBUTES))
		self->lacks = "no KVM_CAP_VCPU_ATTRIBUTES";
	else if (self->scaled && !vm_cap(self->vm, KVM_CAP_TSC_CONTROL))
		self->lacks = "no KVM_CAP_TSC_CONTROL";
	if (self->lacks)
		return;
	self->khz = must(ioctl(self->v->fd, KVM_GET_TSC_KHZ, 0));
	self->guest_khz = self->scaled ? asked(self->khz, variant->ppm) : self->khz;
	must(ioctl(self->v->fd, KVM_SET_TSC_KHZ, asked(self->khz, variant->ppm)));
	must(vcpu_set_msr(self->v, MSR_IA32_TSC, 1UL << 40));
	vcpu_long(self->v, line_guest, 0);
	vcpu_sync(self->v);
}

FIXTURE_TEARDOWN(line)
{
	vm_free(self->vm);
}

/* How far the page is off when the guest's TSC says that ten minutes are over: an eighth of a microsecond is its grain */
TEST_F(line, rate)
{
	struct pv_time page = page_of(self->vm, 0);
	long off;

	NEED_LINE();
	off = pv_at(&page, page.tsc_timestamp + self->guest_khz * 600000UL) - page.system_time - TEN_MINUTES;
	/* A ratio of 32 bits has a grain, too. */
	EXPECT_GE(self->scaled ? 500 : 300, labs(off));
	TH_LOG("asked for %d ppm: %ld ns off in ten minutes", variant->ppm, off);
}

/* The page, KVM_GET_CLOCK and Hyper-V's page, also after KVM_SET_CLOCK; CLOCK_SECONDS=n: once so far apart */
TEST_F_TIMEOUT(line, one, 900)
{
	int longest = atoi(getenv("CLOCK_SECONDS") ?: "1"), seconds, i;
	struct kvm_clock_data c = { .clock = 1000000 * SECOND }, now;
	struct timespec a, b;
	struct pv_time page;
	u64 hv, tsc;

	NEED_LINE();
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_HV_TSC_PAGE, (u64)&hv_page | 1));
	EXPECT_EQ(1, vcpu_sync(self->v));
	ASSERT_NE(0, guest_var(self->vm, hv_page).sequence);
	for (i = 0; i < 2; i++) {
		seconds = i || variant->ppm != 100 ? 1 : longest;
		clock_gettime(CLOCK_MONOTONIC_RAW, &a);
		must(ioctl(self->vm->fd, KVM_GET_CLOCK, &now));
		page = page_of(self->vm, 0);
		tsc = page.tsc_timestamp + self->guest_khz * 600000UL;
		hv = ((unsigned __int128)tsc * guest_var(self->vm, hv_page).scale >> 64) +
		     guest_var(self->vm, hv_page).offset;
		EXPECT_GE(1, labs((long)(hv - pv_at(&page, tsc) / 100)));
		if (!self->scaled)
			EXPECT_EQ(0, apart(self->v));
		sleep(seconds);
		if (!self->scaled)
			EXPECT_EQ(0, apart(self->v));
		tsc = now.clock;
		must(ioctl(self->vm->fd, KVM_GET_CLOCK, &now));
		clock_gettime(CLOCK_MONOTONIC_RAW, &b);
		TH_LOG("after %d s the page and the VM's clock are %ld ns apart; the host counts %ld ns more", seconds,
		       self->scaled ? 0 : apart(self->v),
		       (long)((b.tv_sec - a.tv_sec) * SECOND + b.tv_nsec - a.tv_nsec - (now.clock - tsc)));
		must(ioctl(self->vm->fd, KVM_SET_CLOCK, &c));
		EXPECT_EQ(1, vcpu_sync(self->v));
		EXPECT_LE(c.clock, guest_var(self->vm, seen_ns));
	}
}

/* Whatever has the page written again, it says what it said before */
TEST_F(line, goes_on)
{
	int step, off = 0;

	NEED_LINE();
	for (step = 0; step < 8; step++) {
		struct pv_time old = page_of(self->vm, 0), new;
		u64 was = guest_var(self->vm, seen_ns), t, tsc, moved = tsc_offset(self->v);

		sleep_ms(150);
		switch (step % 4) {
		case 0:		/* hotplug, in step, be its rate what the VMM has asked for on the others or not yet */
			vcpu_new(self->vm, 1 + step);
			off += self->scaled;	/* until then there is no one line */
			break;
		case 1:
			must(ioctl(self->vm->vcpu[self->vm->nr - 1]->fd, KVM_SET_TSC_KHZ, asked(self->khz, variant->ppm)));
			must(vcpu_set_msr(self->vm->vcpu[self->vm->nr - 1], MSR_IA32_TSC, 0));
			off = 0;
			break;
		case 2:
			must(ioctl(self->v->fd, KVM_SET_TSC_KHZ, asked(self->khz, variant->ppm)));
			break;
		case 3:		/* what a VMM does that stops for a while */
			must(ioctl(self->v->fd, KVM_KVMCLOCK_CTRL, 0));
			break;
		}
		EXPECT_EQ(!off, vcpu_sync(self->v));
		new = page_of(self->vm, 0);
		tsc = guest_var(self->vm, seen_tsc);
		t = pv_at(&old, tsc);
		EXPECT_LE(was, guest_var(self->vm, seen_ns));
		EXPECT_EQ(0, tsc_offset(self->v) - moved);
		/* Between lines it is the host's clock, and the pages are of several moments. */
		if (!self->scaled) {
			EXPECT_EQ(0, (long)(pv_at(&new, tsc) - t));
			EXPECT_EQ(0, apart(self->v));
		}
	}
}

/* A TSC that goes elsewhere takes the line along */
TEST_F(line, moved_tsc)
{
	struct pv_time old = page_of(self->vm, 0), new;
	u64 off, tsc;
	struct kvm_device_attr a = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&off };

	NEED_LINE();
	sleep_ms(150);
	off = tsc_offset(self->v) + (1UL << 40);
	must(ioctl(self->v->fd, KVM_SET_DEVICE_ATTR, &a));
	EXPECT_EQ(1, vcpu_sync(self->v));
	new = page_of(self->vm, 0);
	tsc = guest_var(self->vm, seen_tsc);
	EXPECT_EQ(0, (long)(pv_at(&new, tsc) - pv_at(&old, tsc - (1UL << 40))));
}

/* A vCPU that is plugged in where the others were given a rate and a TSC is in step once it was given that, too */
TEST_F(line, hotplug_in_step)
{
	struct vcpu *v = self->v, *new;
	u32 khz = asked(self->khz, variant->ppm);

	NEED_LINE();
	must(vcpu_set_msr(v, MSR_IA32_TSC, 1UL << 50));
	new = vcpu_new(self->vm, 1);
	must(ioctl(new->fd, KVM_SET_TSC_KHZ, khz));
	must(vcpu_set_msr(new, MSR_IA32_TSC, 0));
	EXPECT_EQ(tsc_offset(v), tsc_offset(new));
	EXPECT_EQ(1, vcpu_sync(v));
}

/* After INIT the page is another kernel's memory */
CODE16(init_code, "mov $0x5e4,%dx; 1: mov $7,%eax; out %eax,%dx; jmp 1b\n");

static void sends_init(u64 arg)
{
	apic_on();
	apic_icr(1, 0x4500);
	apic_icr(1, 0x4600 | CODE_GPA >> 12);
	guest_done(0);
}

TEST_F(clock, off_with_init)
{
	struct vm *vm = self->vm;
	struct vcpu *v = vcpu_new(vm, 1);
	struct kvm_mp_state on = { KVM_MP_STATE_RUNNABLE };
	struct kvm_clock_data c = { .clock = 1000 * SECOND };
	u8 *page = (u8 *)&guest_var(vm, times)[1];
	u64 val;
	int i;

	must(ioctl(v->fd, KVM_SET_MP_STATE, &on));
	vcpu_long(v, line_guest, 1);
	vcpu_sync(v);
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_TIME, &val));
	EXPECT_EQ((u64)&times[1] | 1, val);
	memcpy(gpa_hva(vm, CODE_GPA), init_code, code_size(init_code));
	vcpu_long(self->v, sends_init, 0);
	vcpu_done(self->v);
	memset(page, 0x5a, sizeof(times[1]));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(7, vcpu_sync(v));
		must(ioctl(vm->fd, KVM_SET_CLOCK, &c));
	}
	for (i = 0; i < sizeof(times[1]); i++)
		EXPECT_EQ(0x5a, page[i]);
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_TIME, &val));
	EXPECT_EQ(0, val);
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_KVMCLOCK_CTRL, 0));
}

/* The guest's notion of the time it did not get to run */
struct steal {
	volatile u64 steal;
	volatile u32 version;
	u32 flags;
	u8 preempted, pad[47];
} __attribute__((aligned(64)));
static struct steal steal;

#define MSR_STEAL	0x4b564d03

static void steal_guest(u64 arg)
{
	u32 i, v;

	guest_eq(wrmsr_try(MSR_STEAL, (u64)&steal | 2), GP0);
	wrmsr(MSR_STEAL, (u64)&steal | 1);
	guest_eq(rdmsr(MSR_STEAL), (u64)&steal | 1);
	guest_sync(0);
	v = steal.version;
	guest_eq(v & 1, 0);
	for (i = 0; i < 100; i++)
		guest_sync(0);
	guest_eq(steal.version & 1, 0);
	wrmsr(MSR_STEAL, 0);
	guest_done(1);
}

TEST_F(clock, steal_time)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid,
						KVM_CPUID_FEATURES, 0);

	if (!(e->eax & 1 << KVM_FEATURE_STEAL_TIME))
		SKIP(return, "no steal time");
	vcpu_long(self->v, steal_guest, 0);
	do {
		vcpu_run(self->v);
	} while (self->v->run->exit_reason == KVM_EXIT_IO &&
		 self->v->run->io.port == PORT_SYNC);
	ASSERT_EQ(KVM_EXIT_IO, self->v->run->exit_reason);
	EXPECT_EQ(PORT_DONE, self->v->run->io.port);
}

TEST_HARNESS_MAIN
