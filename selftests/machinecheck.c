// SPDX-License-Identifier: GPL-2.0-only
/*
 * A machine check of the host's while a guest runs: its thread pays for it, with SIGBUS, and the host lives.
 *
 * The lab's emulator makes one when its monitor is told to ($LAB_MONITOR): uncorrected, and no return to where it happened.
 * Told that it was the kernel which was interrupted, Linux on an AMD machine does nothing about this kind; it is marked as
 * deferred, since any other ends a kernel whose CPU, as here, has no recovery (SUCCOR).
 */
#include "test.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

/* VAL, UC, EN, deferred; MCG_STATUS: EIPV, MCIP */
#define MC	"mce %d 2 0xb000100000000000 6 0 0\n"
#define TRIES	10	/* it may come when the guest has just been left: nothing happens then */

static bool have_monitor(void)
{
	char line[256] = "";
	FILE *f = fopen("/proc/cpuinfo", "r");

	while (fgets(line, sizeof(line), f) && strncmp(line, "vendor_id", 9))
		;
	fclose(f);
	/* To a kernel built without what handles them each is the end. */
	return getenv("LAB_MONITOR") && strstr(line, "AuthenticAMD") && !access("/sys/devices/system/machinecheck", F_OK);
}

static void machine_check(int cpu)
{
	const char *to = getenv("LAB_MONITOR");
	char tmp[256];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", to);
	f = fopen(tmp, "w");
	if (!f)
		die("%s: %s", tmp, strerror(errno));
	fprintf(f, MC, cpu);
	fclose(f);
	must(rename(tmp, to));
	/* The emulator's side takes it away; a busy machine lets it wait. */
	while (!access(to, F_OK))
		sleep_ms(20);
	sleep_ms(1500);
}

static int last_cpu(void)
{
	cpu_set_t set;
	int cpu = CPU_SETSIZE - 1;

	sched_getaffinity(0, sizeof(set), &set);
	while (!CPU_ISSET(cpu, &set))
		cpu--;
	return cpu;
}

static volatile u32 turns;

static void spinning_guest(u64 arg)
{
	for (;;)
		turns++;
}

static struct vcpu *spinning_vcpu(void)
{
	struct vcpu *v = vcpu_new(vm_new(VM_PLAIN), 0);

	vcpu_long(v, spinning_guest, 0);
	return v;
}

TEST(kills_the_vmm)
{
	int cpu = last_cpu(), try, status, ready[2];
	pid_t pid;
	char c;

	if (!have_monitor())
		SKIP(return, "no emulator that makes machine checks");
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		struct vcpu *v = spinning_vcpu();

		stay_on(0, cpu);
		must(write(ready[1], "", 1));
		ioctl(v->fd, KVM_RUN, 0);
		_exit(1);
	}
	ASSERT_EQ(1, read(ready[0], &c, 1));
	for (try = 0; try < TRIES; try++) {
		sleep_ms(200);
		machine_check(cpu);
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
	}
	if (try == TRIES) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(SIGBUS, WTERMSIG(status));
}

static volatile int caught;

static void on_sigbus(int sig)
{
	caught++;
}

struct asker {
	int cpu;
	pthread_t vcpu;
};

static void *ask(void *arg)
{
	struct asker *a = arg;
	int try;

	for (try = 0; try < TRIES && !caught; try++) {
		sleep_ms(200);
		machine_check(a->cpu);
	}
	if (!caught)
		pthread_kill(a->vcpu, SIGALRM);
	return NULL;
}

static void on_sigalrm(int sig)
{
}

/* Who catches the signal goes on, and so does the guest. */
TEST(vmm_that_catches_it)
{
	struct asker a = { last_cpu(), pthread_self() };
	struct sigaction bus = { .sa_handler = on_sigbus }, alrm = { .sa_handler = on_sigalrm };
	struct vcpu *v;
	pthread_t t;
	u32 was;

	if (!have_monitor())
		SKIP(return, "no emulator that makes machine checks");
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGALRM, &alrm, NULL);
	v = spinning_vcpu();
	ASSERT_EQ(0, pthread_create(&t, NULL, ask, &a));
	stay_on(0, a.cpu);
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	EXPECT_EQ(1, caught);
	pthread_join(t, NULL);
	was = guest_var(v->vm, turns);
	EXPECT_NE(0, was);
	/* Until a signal that has nothing to do with it. */
	ualarm(100000, 100000);		/* and again, if it comes before KVM_RUN */
	do {
		EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	} while (guest_var(v->vm, turns) == was);
	ualarm(0, 0);
	EXPECT_LT(was, guest_var(v->vm, turns));
	vm_free(v->vm);
}

TEST_HARNESS_MAIN
