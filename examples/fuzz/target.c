// SPDX-License-Identifier: GPL-2.0-only
/*
 * target.c - the guest's only program: it is the init of a stock Linux kernel, and parses XML with the library expat.
 *
 * The library and this file's parse() are compiled with -fsanitize-coverage=trace-pc: the compiler calls
 * __sanitizer_cov_trace_pc() from each basic block, which counts edges in AFL's own map, there in memory that both see.
 */
#include <expat.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

void parse(const struct input *input, const char **names);
extern const int names_max;

static uint8_t unshared[MAP_SIZE];	/* of what runs before the memory is there */
static uint8_t *map = unshared;
static uint16_t before;

void __sanitizer_cov_trace_pc(void)
{
	/* Addresses are near to each other: take the bits of a product that depend on all of them. */
	uint16_t here = (uintptr_t)__builtin_return_address(0) * 0x9e3779b97f4a7c15 >> 48;

	map[(uint16_t)(here ^ before)]++;
	before = here >> 1;
}

static void crashed(int sig)
{
	guest_call(CALL_SIGNAL | sig);
}

static void catch_signals(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS };
	static uint8_t room[65536];
	stack_t stack = { .ss_sp = room, .ss_size = sizeof(room) };	/* the other one may be what overflowed */
	struct sigaction act = { .sa_handler = crashed, .sa_flags = SA_ONSTACK };
	unsigned int i;

	guest_must(!sigaltstack(&stack, NULL), "sigaltstack");
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		guest_must(!sigaction(signals[i], &act, NULL), "sigaction");
}

int main(void)
{
	static const struct input warm = { .size = 9, .data = "<a>b</a>\n" };
	const size_t page = 4096;
	uint8_t *shared, *two;
	const char **names;

	shared = guest_memory(SHARED_GPA, SHARED_SIZE);
	/* The names end where a page does, and behind that is none: who writes one too many is caught at it. */
	two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	guest_must(two != MAP_FAILED && !mprotect(two + page, page, PROT_NONE), "memory");
	names = (const char **)(two + page) - names_max;
	catch_signals();
	guest_must(!mlockall(MCL_CURRENT), "mlockall");

	parse(&warm, names);	/* what each run needs, the heap above all, is there before the snapshot */
	map = shared;
	before = 0;
	guest_call(CALL_READY);
	parse((const struct input *)(shared + MAP_SIZE), names);
	guest_call(CALL_DONE);
	guest_must(0, "the host has let it go on");
	return 1;
}
