// SPDX-License-Identifier: GPL-2.0-only
/*
 * A program under a shadow stack of its own in a guest (Documentation/arch/x86/shstk.rst): calls, signals whose handlers return,
 * jumps out of deep calls, and a return address that somebody has changed, which is the end of that process.  It goes on until
 * there is a line or an end of input, and says twice a second how far it is.  Where there are no shadow stacks it says so.
 */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARCH_SHSTK_ENABLE	0x5001
#define ARCH_SHSTK_SHSTK	1
#define SEGV_CPERR		10	/* a control protection fault */

static volatile sig_atomic_t signals;
static uint64_t began;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

static void count(int sig)
{
	(void)sig;
	signals++;
}

/* With a signal at the bottom */
static __attribute__((noinline)) int deep(int n)
{
	int below;

	if (!n) {
		raise(SIGUSR1);
		return 0;
	}
	below = deep(n - 1);
	__asm__ volatile("" ::: "memory");
	return below + 1;
}

static __attribute__((noinline)) void out_of(void **to, int n)
{
	if (!n)
		__builtin_longjmp(to, 1);
	out_of(to, n - 1);
	__asm__ volatile("" ::: "memory");
}

static __attribute__((noinline)) int jumps(void)
{
	void *back[5];

	if (__builtin_setjmp(back))
		return 1;
	out_of(back, 20);
	return 0;
}

static void elsewhere(void)
{
	_exit(1);
}

static __attribute__((noinline)) void returns_elsewhere(void)
{
	void **frame = __builtin_frame_address(0);

	*(void *volatile *)(frame + 1) = (void *)elsewhere;
}

static void caught(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	_exit(info->si_code == SEGV_CPERR ? 0 : 2);
}

/* True: the CPU has caught it */
static int changed_return(void)
{
	struct sigaction act = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO };
	int status;
	pid_t pid = fork();

	if (!pid) {
		sigaction(SIGSEGV, &act, NULL);
		returns_elsewhere();
		_exit(3);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

static void work(void)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };
	unsigned long rounds = 0, wrong = 0;
	uint64_t said = 0;

	signal(SIGUSR1, count);
	do {
		int before = signals;

		wrong += deep(30) != 30;
		wrong += signals != before + 1;
		wrong += !jumps();
		if (rounds % 64 == 0)
			wrong += !changed_return();
		wrong += !__builtin_ia32_rdsspq();
		rounds++;
		if (now_ms() - said >= 500) {
			said = now_ms();
			printf("shstk at %llu ms: %lu rounds, %lu wrong\n", (unsigned long long)(said - began), rounds, wrong);
		}
	} while (poll(&in, 1, 0) == 0);
	printf("shstk %s: %lu rounds, %lu wrong\n", wrong ? "FAILED" : "ok", rounds, wrong);
}

int main(void)
{
	long r = SYS_arch_prctl;

	setvbuf(stdout, NULL, _IOLBF, 0);
	began = now_ms();
	/* What is called from here on returns under it, and this function never does. */
	__asm__ volatile("syscall" : "+a"(r) : "D"(ARCH_SHSTK_ENABLE), "S"(ARCH_SHSTK_SHSTK) : "rcx", "r11", "memory");
	if (r) {
		printf("shstk at 0 ms: none\nshstk at 0 ms: none\nshstk none: %s\n", strerror(-r));
		_exit(1);
	}
	work();
	_exit(0);
}
