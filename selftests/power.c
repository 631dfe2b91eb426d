// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host's CPUs come and go, sleep, and wake up with another TSC, while guests run: they go on, their memory is as it was,
 * their clocks go forward, and their timers still fire.
 *
 * What is about suspend wants the lab's fake-sleep.ko, what is about different TSCs a kernel that knows them to be unstable and
 * a CPU whose TSC can be written (selftests/lab/check, suite power).  CYCLES=n: so many rounds of CPU hotplug.  BESIDE=1: all
 * the while a VM of the kernel's own module runs as well, whose virtualization keel borrows.
 */
#define _GNU_SOURCE
#include "test.h"
#include "beside.h"
#include "pvclock.h"

#include <sched.h>
#include <time.h>

#define SECOND		1000000000ULL
#define FAKE		"/sys/module/fake_sleep/parameters/"
#define NR		4
#define TICK_VEC	0x40
#define TICK_NS		20000000

static struct pv_time times[NR] __attribute__((aligned(64)));

/* Of each guest CPU, what it saw */
static volatile struct seen {
	u64 loops, tsc, tsc_back, ns, ns_back, ns_leap, spoiled;
	u32 ticks, stable, stopped;
} seen[NR];
static volatile u32 stop, page[NR][1024];

static void tick(struct guest_frame *f)
{
	seen[guest_cpu()].ticks++;
	apic_eoi();
}

static void guest(u64 id)
{
	volatile struct seen *s = &seen[id];
	u64 tsc, ns;
	u32 i;

	guest_on(TICK_VEC, tick);
	apic_on();
	apic_write(0x3e0, 0xb);			/* bus clock: 1 GHz */
	apic_write(0x320, 0x20000 | TICK_VEC);
	apic_write(0x380, TICK_NS);
	wrmsr(MSR_TIME, (u64)&times[id] | 1);
	s->tsc = rdtsc();
	s->ns = pv_read(&times[id]);
	irq_on();
	while (!stop) {
		for (i = 0; i < 1024; i++)
			page[id][i] = s->loops + i;
		tsc = rdtsc();
		ns = pv_read(&times[id]);
		if (tsc < s->tsc)
			s->tsc_back++;
		if (ns < s->ns && s->ns - ns > s->ns_back)
			s->ns_back = s->ns - ns;
		if (ns > s->ns && ns - s->ns > s->ns_leap)
			s->ns_leap = ns - s->ns;
		s->tsc = tsc;
		s->ns = ns;
		s->stable = times[id].flags & 1;
		if (times[id].flags & 2) {
			times[id].flags &= ~2;
			s->stopped++;
		}
		for (i = 0; i < 1024; i++)
			if (page[id][i] != (u32)s->loops + i)
				s->spoiled++;
		s->loops++;
	}
	guest_done(0);
}

FIXTURE(power) {
	struct vm *vm, *theirs;
	struct vcpu *v[NR], *their_v[1];
	int cpu[8], nr_cpus, nr;
};

static void start(struct vm *vm, struct vcpu **v, int nr);
static void end(struct vm *vm, struct vcpu **v, int nr);
static bool go_on(struct vm *vm, int nr, unsigned int ms);

FIXTURE_SETUP(power)
{
	cpu_set_t set;
	int i;

	must(sched_getaffinity(0, sizeof(set), &set));
	for (i = 0; i < 64 && self->nr_cpus < 8; i++)
		if (CPU_ISSET(i, &set))
			self->cpu[self->nr_cpus++] = i;
	if (getenv("BESIDE")) {
		int sys = node_open();

		if (!kvm_load() || hand_over(sys))
			die("no VM of the kernel's own module");
		close(sys);
		self->theirs = kvm_vm_new(VM_IRQCHIP);
		self->their_v[0] = vcpu_new(self->theirs, 0);
		start(self->theirs, self->their_v, 1);
	}
	self->vm = vm_new(VM_IRQCHIP);
	if (self->theirs && !state_is("mode", "shared"))
		die("virtualization is not shared");
	self->nr = self->nr_cpus + 1 < NR ? self->nr_cpus + 1 : NR;
	for (i = 0; i < self->nr; i++) {
		struct kvm_mp_state on = { KVM_MP_STATE_RUNNABLE };

		self->v[i] = vcpu_new(self->vm, i);
		must(ioctl(self->v[i]->fd, KVM_SET_MP_STATE, &on));
	}
}

FIXTURE_TEARDOWN(power)
{
	vm_free(self->vm);
	if (!self->theirs)
		return;
	EXPECT_TRUE(go_on(self->theirs, 1, 30000));
	end(self->theirs, self->their_v, 1);
	EXPECT_EQ(0, guest_var(self->theirs, seen)[0].spoiled);
	vm_free(self->theirs);
}

static bool cpu_online(int cpu, bool on)
{
	char file[64];

	snprintf(file, sizeof(file), "/sys/devices/system/cpu/cpu%d/online", cpu);
	return file_write(file, on ? "1" : "0");
}

static bool has_word(const char *file, const char *word)
{
	char text[4096] = "";
	int fd = open(file, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	return strstr(text, word);
}

/* All of them computed, and had their timer's interrupt, since @before */
static bool go_on(struct vm *vm, int nr, unsigned int ms)
{
	struct seen before[NR];
	int i, n;

	memcpy(before, (void *)&guest_var(vm, seen), sizeof(before));
	for (; ms; ms -= 10) {
		for (i = n = 0; i < nr; i++)
			n += guest_var(vm, seen)[i].loops > before[i].loops + 1 &&
			     guest_var(vm, seen)[i].ticks > before[i].ticks + 1;
		if (n == nr)
			return true;
		sleep_ms(10);
	}
	return false;
}

/* Threads are frozen by a signal that nobody sees, but KVM_RUN */
static void *runner(void *arg)
{
	struct vcpu *v = arg;
	int r;

	v->tid = gettid();
	while ((r = xioctl(v->fd, KVM_RUN, 0)) == -EINTR)
		;
	if (r || v->run->exit_reason != KVM_EXIT_IO)
		die("KVM_RUN: %d, %s", r, exit_name(v->run->exit_reason));
	return NULL;
}

static void start(struct vm *vm, struct vcpu **v, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		vcpu_long(v[i], guest, i);
		if (pthread_create(&v[i]->thread, NULL, runner, v[i]))
			die("pthread_create");
		while (!v[i]->tid)
			sleep_ms(1);
	}
}

static void end(struct vm *vm, struct vcpu **v, int nr)
{
	int i;

	guest_var(vm, stop) = 1;
	for (i = 0; i < nr; i++)
		vcpu_join(v[i]);
}

#define EXPECT_FORWARD(vm, nr, leap) do {							\
	int i__;										\
												\
	for (i__ = 0; i__ < (nr); i__++) {							\
		EXPECT_EQ(0, guest_var(vm, seen)[i__].tsc_back);				\
		EXPECT_EQ(0, guest_var(vm, seen)[i__].ns_back);					\
		EXPECT_GT(leap, guest_var(vm, seen)[i__].ns_leap);				\
		EXPECT_EQ(0, guest_var(vm, seen)[i__].spoiled);					\
	}											\
} while (0)

TEST_F_TIMEOUT(power, hotplug, 1200)
{
	int n, i, cycles = atoi(getenv("CYCLES") ?: "5");

	if (self->nr_cpus < 2)
		SKIP(return, "wants two CPUs");
	start(self->vm, self->v, self->nr);
	ASSERT_TRUE(go_on(self->vm, self->nr, 30000));
	for (n = 0; n < cycles; n++) {
		for (i = 0; i < self->nr_cpus; i++) {
			if (!self->cpu[i])
				continue;
			ASSERT_TRUE(cpu_online(self->cpu[i], false));
			if (n % 4 == 0)
				ASSERT_TRUE(go_on(self->vm, self->nr, 30000));
			ASSERT_TRUE(cpu_online(self->cpu[i], true));
			if (n % 4 == 1)
				ASSERT_TRUE(go_on(self->vm, self->nr, 30000));
		}
	}
	ASSERT_TRUE(go_on(self->vm, self->nr, 30000));
	end(self->vm, self->v, self->nr);
	/* A clock that is not stable is no line, and may be read a little back. */
	for (i = 0; i < self->nr; i++) {
		EXPECT_EQ(0, guest_var(self->vm, seen)[i].tsc_back);
		EXPECT_GT(SECOND, guest_var(self->vm, seen)[i].ns_back);
		EXPECT_GT(30 * SECOND, guest_var(self->vm, seen)[i].ns_leap);
		EXPECT_EQ(0, guest_var(self->vm, seen)[i].spoiled);
		EXPECT_EQ(0, guest_var(self->vm, seen)[i].stopped);
	}
}

/* To sleep and back; how long it took, as the host sees it, or 0 */
static u64 host_sleeps(void)
{
	struct timespec a, b;

	file_write("/sys/module/suspend/parameters/pm_test_delay", "1");
	file_write("/sys/power/mem_sleep", "deep");
	clock_gettime(CLOCK_BOOTTIME, &a);
	if (!file_write("/sys/power/pm_test", "core") || !file_write("/sys/power/state", "mem"))
		return 0;
	clock_gettime(CLOCK_BOOTTIME, &b);
	file_write("/sys/power/pm_test", "none");
	return (b.tv_sec - a.tv_sec) * SECOND + b.tv_nsec - a.tv_nsec;
}

static u64 vm_clock(struct vm *vm)
{
	struct kvm_clock_data c = {};

	must(ioctl(vm->fd, KVM_GET_CLOCK, &c));
	return c.clock;
}

#define NEED_SLEEP()							\
	if (access(FAKE "tsc", W_OK))					\
		SKIP(return, "no fake-sleep.ko");			\
	if (!has_word("/sys/power/mem_sleep", "deep"))			\
		SKIP(return, "the machine has no suspend to memory")

/* Twice: as it was, and with a TSC that starts again */
TEST_F_TIMEOUT(power, suspend, 600)
{
	static const char *const tsc[] = { "0", "1000000" };
	u64 before, slept;
	int i;

	NEED_SLEEP();
	start(self->vm, self->v, self->nr);
	ASSERT_TRUE(go_on(self->vm, self->nr, 30000));
	for (i = 0; i < 2; i++) {
		ASSERT_TRUE(file_write(FAKE "tsc", tsc[i]));
		before = vm_clock(self->vm);
		slept = host_sleeps();
		ASSERT_NE(0, slept);
		TH_LOG("TSC %s: the VM's clock went on by %lu ms, the host's by %lu", tsc[i],
		       (vm_clock(self->vm) - before) / 1000000, slept / 1000000);
		EXPECT_TRUE(go_on(self->vm, self->nr, 30000));
		EXPECT_LE(before, vm_clock(self->vm));
		EXPECT_GT(before + slept + 60 * SECOND, vm_clock(self->vm));
	}
	file_write(FAKE "tsc", "0");
	end(self->vm, self->v, self->nr);
	if (guest_var(self->vm, seen)[0].stable)
		EXPECT_FORWARD(self->vm, self->nr, 60 * SECOND);
	for (i = 0; i < self->nr; i++) {
		EXPECT_EQ(0, guest_var(self->vm, seen)[i].tsc_back);
		/* told each time, as a guest's watchdogs want to be */
		EXPECT_LE(2, guest_var(self->vm, seen)[i].stopped);
	}
}

/* Somebody else has virtualization when the host wakes up: the VMs are dead, and nothing worse happens */
TEST_F_TIMEOUT(power, suspend_lost, 300)
{
	int fd;

	NEED_SLEEP();
	if (self->theirs)
		SKIP(return, "the kernel's own module is the owner");
	vcpu_long(self->v[0], guest, 0);
	guest_var(self->vm, stop) = 1;
	vcpu_done(self->v[0]);
	ASSERT_TRUE(file_write(FAKE "taken", "1"));
	ASSERT_NE(0, host_sleeps());
	EXPECT_EQ(-EIO, xioctl(self->v[0]->fd, KVM_RUN, 0));
	EXPECT_EQ(-EBUSY, xioctl(self->vm->sys, KVM_CREATE_VM, 0));
	vm_free(self->vm);
	ASSERT_TRUE(file_write(FAKE "taken", "0"));
	self->vm = vm_new(VM_IRQCHIP);
	self->v[0] = vcpu_new(self->vm, 0);
	vcpu_long(self->v[0], guest, 0);
	guest_var(self->vm, stop) = 1;
	vcpu_done(self->v[0]);
	fd = xioctl(self->vm->sys, KVM_CREATE_VM, 0);
	EXPECT_LE(0, fd);
	close(fd);
}

/* CPUs' TSCs are far apart, the host's kernel knows, and a vCPU goes from one to the other */
TEST_F_TIMEOUT(power, apart, 300)
{
	u64 value, other, began, tsc, khz;
	char file[64];
	int fd, i;

	if (self->nr_cpus < 2)
		SKIP(return, "wants two CPUs");
	if (has_word("/sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc"))
		SKIP(return, "the kernel holds the TSC for stable");
	snprintf(file, sizeof(file), "/dev/cpu/%d/msr", self->cpu[1]);
	fd = open(file, O_RDWR);
	if (fd < 0 || pread(fd, &value, 8, 0x10) != 8)
		SKIP(return, "no %s", file);
	value += 1ULL << 40;
	if (pwrite(fd, &value, 8, 0x10) != 8 || pread(fd, &other, 8, 0x10) != 8 || other < value)
		SKIP(return, "the CPU's TSC cannot be written");
	khz = must(ioctl(self->v[0]->fd, KVM_GET_TSC_KHZ, 0));
	start(self->vm, self->v, 1);
	ASSERT_TRUE(go_on(self->vm, 1, 30000));
	began = now_ns();
	tsc = guest_var(self->vm, seen)[0].tsc;
	for (i = 0; i < 100; i++) {
		stay_on(self->v[0]->tid, self->cpu[i & 1]);
		sleep_ms(5);
		if (i % 10 == 0)
			EXPECT_TRUE(go_on(self->vm, 1, 30000));
	}
	tsc = guest_var(self->vm, seen)[0].tsc - tsc;
	began = (now_ns() - began) / 1000000 * khz;
	end(self->vm, self->v, 1);
	TH_LOG("%lu cycles, as the host's clock has it %lu", tsc, began);
	EXPECT_EQ(0, guest_var(self->vm, seen)[0].tsc_back);
	EXPECT_EQ(0, guest_var(self->vm, seen)[0].stable);
	EXPECT_GT(SECOND, guest_var(self->vm, seen)[0].ns_back);
	EXPECT_GT(30 * SECOND, guest_var(self->vm, seen)[0].ns_leap);
	EXPECT_LT(began / 2, tsc);
	EXPECT_GT(began * 2, tsc);
	close(fd);
}

TEST_HARNESS_MAIN
