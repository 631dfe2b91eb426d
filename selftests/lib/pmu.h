/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of performance counters share: event selects, what fake-pmu.ko tells of, the filter */
#ifndef SELFTESTS_PMU_H
#define SELFTESTS_PMU_H

#include "test.h"

#define ECHO		0xfeUL		/* fake-pmu.c */
#define USR		(1UL << 16)
#define OS		(1UL << 17)
#define EDGE		(1UL << 18)
#define INT		(1UL << 20)
#define EN		(1UL << 22)
#define INV		(1UL << 23)

static inline long fake(const char *what)
{
	char path[64];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/fake_pmu/parameters/%s", what);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

static inline void fake_set(const char *what, int val)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/fake_pmu/parameters/%s", what);
	f = fopen(path, "w");
	if (!f || fprintf(f, "%d\n", val) < 0 || fclose(f))
		must(-1);
}

/* Is anything, where perf has no counters, or the module's parameter takes them away? */
static inline bool offered(void)
{
	int fd = node_open(), r = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY);

	close(fd);
	if (r <= 0 && fake("live") >= 0)
		die("fake-pmu.ko is there, and no counters are offered");
	return r > 0;
}

static inline bool host_is_amd(void)
{
	u32 r[4];

	cpuid(0, 0, r);
	return r[1] == 0x68747541;
}

static inline int try_filter_fixed(struct vm *vm, u32 action, u32 flags, int n, const u64 *events, u32 fixed)
{
	struct kvm_pmu_event_filter *f = calloc(1, sizeof(*f) + 400 * sizeof(u64));
	int i, r;

	f->action = action;
	f->flags = flags;
	f->fixed_counter_bitmap = fixed;
	f->nevents = n;
	for (i = 0; events && i < n; i++)
		f->events[i] = events[i];
	r = xioctl(vm->fd, KVM_SET_PMU_EVENT_FILTER, f);
	free(f);
	return r;
}

static inline int try_filter(struct vm *vm, u32 action, u32 flags, int n, const u64 *events)
{
	return try_filter_fixed(vm, action, flags, n, events, 0);
}

/* An entry with a mask: of these events, the unit masks of which that much is so; or not those */
#define masked(event, mask, match, exclude)								\
	(((event) & 0xffUL) | ((event) & 0xf00UL) << 24 | (u64)(mask) << 56 | ((match) & 0xffUL) << 8 | (u64)(exclude) << 55)

static inline u64 rdpmc(u32 nr)
{
	u32 lo, hi;

	asm volatile("rdpmc" : "=a"(lo), "=d"(hi) : "c"(nr) : "memory");
	return lo | (u64)hi << 32;
}

static inline long rdpmc_try(u32 nr)
{
	return guest_try("rdpmc", "c"(nr), "a"(0), "d"(0));
}

static inline void spin(u64 ticks)
{
	u64 end = rdtsc() + ticks;

	while (rdtsc() < end)
		pause_cpu();
}

/* The TSC goes on when another thread has the CPU, a counter does not: it is given ten turns for as much as one is enough for */
#define TURNS			10
#define SPIN_WHILE(cond, ticks)	for (int turn = 0; turn < TURNS && (cond); turn++) spin(ticks)

/* A counter of cycles that runs goes with the TSC; what it has then */
static inline u64 counts_with_tsc(u32 ctr)
{
	u64 a, b = 0, t;
	int turn;

	for (turn = 0; turn < TURNS; turn++) {
		a = rdmsr(ctr);
		t = rdtsc();
		spin(20000000);
		t = rdtsc() - t;
		b = rdmsr(ctr);
		guest_assert(b - a < t + 1000000000);
		if (b - a >= 10000000)
			break;
	}
	guest_assert(turn < TURNS);
	return b;
}

#endif
