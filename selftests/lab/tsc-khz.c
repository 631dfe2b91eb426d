// SPDX-License-Identifier: GPL-2.0-only
/*
 * tsc-khz: how many thousands of times a second this machine's TSC counts, which QEMU's CPUs have for theirs (TCG).  The kernel
 * in there would measure it against timers that a busy machine serves late, and be wrong by any factor.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

struct moment {
	uint64_t tsc, ns;
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* One in which nobody else ran between the two clocks */
static struct moment look(void)
{
	struct moment m = { 0, 0 };
	uint64_t best = UINT64_MAX;
	int i;

	for (i = 0; i < 1000; i++) {
		uint64_t a = now(), tsc = __rdtsc(), b = now();

		if (b - a < best) {
			best = b - a;
			m.tsc = tsc;
			m.ns = a + (b - a) / 2;
		}
	}
	return m;
}

int main(void)
{
	struct moment a = look(), b;

	usleep(50000);
	b = look();
	printf("%.0f\n", (b.tsc - a.tsc) * 1e6 / (b.ns - a.ns));
	return 0;
}
