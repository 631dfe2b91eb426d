// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the host has to do on a CPU while a guest computes there, or has its exits answered without ever leaving the kernel:
 * packets that interrupts bring to that CPU, and threads that want it, do not wait until the guest is done.
 */
#define _GNU_SOURCE
#include "test.h"

#include <arpa/inet.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define PACKETS		200
#define LIMIT_MS	4000	/* a packet held until something else ends the guest's turn waits for some ms; else microseconds */
#define RPS		"/sys/class/net/lo/queues/rx-0/rps_cpus"

static volatile u32 running, stop;

static void spin(u64 arg)
{
	running = 1;
	while (!stop)
		;
	guest_done(0);
}

static void spin_exits(u64 arg)
{
	u32 r[4];

	running = 1;
	while (!stop)
		cpuid(0, 0, r);
	guest_done(0);
}

FIXTURE(softirq) {
	struct vm *vm;
	struct vcpu *v;
	int here, there;	/* CPUs: the test's and the guest's */
};

FIXTURE_VARIANT(softirq) {
	void (*guest)(u64 arg);
};

FIXTURE_VARIANT_ADD(softirq, computes) { .guest = spin };
FIXTURE_VARIANT_ADD(softirq, exits) { .guest = spin_exits };

static bool write_rps(u32 mask)
{
	char text[16];
	int fd = open(RPS, O_WRONLY), len = snprintf(text, sizeof(text), "%x", mask);
	bool ok = fd >= 0 && write(fd, text, len) == len;

	if (fd >= 0)
		close(fd);
	return ok;
}

FIXTURE_SETUP(softirq)
{
	cpu_set_t set;
	int cpu;

	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
	self->here = self->there = -1;
	must(sched_getaffinity(0, sizeof(set), &set));
	for (cpu = 0; cpu < 31; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		if (self->here < 0)
			self->here = cpu;
		else
			self->there = cpu;
	}
}

FIXTURE_TEARDOWN(softirq)
{
	vm_free(self->vm);
}

static void start(struct vcpu *v, void (*guest)(u64 arg), int cpu)
{
	vcpu_long(v, guest, 0);
	guest_var(v->vm, running) = guest_var(v->vm, stop) = 0;
	vcpu_start(v);
	while (!v->tid)
		sleep_ms(1);
	stay_on(v->tid, cpu);
	while (!guest_var(v->vm, running))
		sleep_ms(1);
}

static void end(struct vcpu *v)
{
	guest_var(v->vm, stop) = 1;
	vcpu_join(v);
}

/* How long PACKETS packets take, one after the other, each handed to the host's network code on the guest's CPU */
static u64 send_packets(int *lost)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval tv = { .tv_sec = 2 };
	int in = must(socket(AF_INET, SOCK_DGRAM, 0)), out = must(socket(AF_INET, SOCK_DGRAM, 0)), i;
	socklen_t len = sizeof(to);
	u64 began;
	char c = 0;

	must(bind(in, (void *)&to, sizeof(to)));
	must(getsockname(in, (void *)&to, &len));
	must(setsockopt(in, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	began = now_ns();
	for (*lost = i = 0; i < PACKETS && *lost < 3; i++) {
		must(sendto(out, &c, 1, 0, (void *)&to, sizeof(to)));
		if (recv(in, &c, 1, 0) != 1)
			++*lost;
	}
	close(in);
	close(out);
	return (now_ns() - began) / 1000000;
}

TEST_F(softirq, packets)
{
	int lost, round;
	u64 ms;

	if (self->there < 0)
		SKIP(return, "wants two CPUs");
	stay_on(0, self->here);
	if (!write_rps(1 << self->there))
		SKIP(return, "no " RPS);
	start(self->v, variant->guest, self->there);
	/* This machine may have waited for its own CPUs, here and below. */
	for (round = 0; round < 3; round++) {
		ms = send_packets(&lost);
		TH_LOG("%d packets took %lu ms, %d were lost", PACKETS, ms, lost);
		if (!lost && ms < LIMIT_MS)
			break;
	}
	end(self->v);
	write_rps(0);
	EXPECT_EQ(0, lost);
	EXPECT_LT(ms, LIMIT_MS);
}

#define NAPS	500

static int long_naps;

/*
 * Who is not let in before the tick after the next has slept for 4 to 8 ms, mostly; else for much less than one, where
 * the machine itself is not kept from running.
 */
static void *nap(void *arg)
{
	int i;

	long_naps = 0;
	for (i = 0; i < NAPS; i++) {
		u64 began = now_ns();

		usleep(200);
		long_naps += now_ns() - began > 2000000;
	}
	return NULL;
}

TEST_F(softirq, threads)
{
	pthread_t thread;
	int round;

	if (self->there < 0)
		SKIP(return, "wants two CPUs");
	stay_on(0, self->here);
	start(self->v, variant->guest, self->there);
	for (round = 0; round < 3; round++) {
		stay_on(0, self->there);
		pthread_create(&thread, NULL, nap, NULL);
		stay_on(0, self->here);
		pthread_join(thread, NULL);
		TH_LOG("%d of %d naps were long", long_naps, NAPS);
		if (long_naps < NAPS / 2)
			break;
	}
	end(self->v);
	EXPECT_LT(long_naps, NAPS / 2);
}

/* In ticks, of a thread: field @n of its statistics (proc(5), from 1) */
static unsigned long thread_stat(int tid, int n)
{
	char path[64], text[1024], *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = fopen(path, "r");
	if (!f || !fgets(text, sizeof(text), f))
		die("no %s", path);
	fclose(f);
	/* Behind the name, which is the second. */
	for (p = strrchr(text, ')') + 1, n -= 2; n > 1; n--)
		p = strchr(p + 1, ' ');
	return strtoul(p, NULL, 10);
}

/* And a guest's time is the guest's, not the kernel's */
TEST_F(softirq, time)
{
	unsigned long guest, user, system;

	stay_on(0, self->here);
	start(self->v, variant->guest, self->there < 0 ? self->here : self->there);
	sleep_ms(2000);
	guest = thread_stat(self->v->tid, 43);
	user = thread_stat(self->v->tid, 14);
	system = thread_stat(self->v->tid, 15);
	end(self->v);
	TH_LOG("%lu ticks of the guest's, %lu of the kernel's", guest, system);
	EXPECT_LE(guest, user + user / 20 + 1);		/* the guest's are counted by ticks, the user's by nanoseconds */
	EXPECT_LT(0, guest);
	EXPECT_LT(system, guest);
}

TEST_HARNESS_MAIN
