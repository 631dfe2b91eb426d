// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest's memory under stress, checking itself. Every thread owns a part of one big mapping and goes over it in a
 * scrambled order: each page must hold, in every word, what this thread wrote there last, and is then written anew.
 * Beside that a thread maps, fills, forks over, protects and unmaps scratch pages, so that page tables change and other
 * CPUs must drop their TLB entries. A page that comes back wrong (lost, stale, swapped for another) is reported.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096UL
#define WORDS	(PAGE / sizeof(uint64_t))

struct worker {
	pthread_t thread;
	unsigned char *base;
	unsigned long pages;
	uint32_t *round;		/* of each page: what was written there last */
	unsigned long checked, wrong;
	uint64_t seed;
};

static volatile int stop;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

static void fill(struct worker *w, unsigned long page)
{
	uint64_t *p = (uint64_t *)(w->base + page * PAGE);
	uint64_t v = mix(w->seed ^ page << 32 ^ ++w->round[page]);

	for (unsigned long i = 0; i < WORDS; i++)
		p[i] = v + i * 0x9e3779b97f4a7c15ULL;
}

static void check(struct worker *w, unsigned long page)
{
	uint64_t *p = (uint64_t *)(w->base + page * PAGE);
	uint64_t v = mix(w->seed ^ page << 32 ^ w->round[page]);

	for (unsigned long i = 0; i < WORDS; i++)
		if (p[i] != v + i * 0x9e3779b97f4a7c15ULL) {
			if (w->wrong++ < 5)
				printf("memcheck: page %lu word %lu is %016llx, written %016llx in round %u\n", page, i,
				       (unsigned long long)p[i],
				       (unsigned long long)(v + i * 0x9e3779b97f4a7c15ULL), w->round[page]);
			break;
		}
	w->checked++;
}

/* Page tables that change: mapped, shared with a child by copy-on-write, protected, gone. */
static void churn(struct worker *w)
{
	unsigned long n = 16;
	uint64_t *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int status = -1;
	pid_t pid;

	if (p == MAP_FAILED)
		return;
	for (unsigned long i = 0; i < n; i++)
		p[i * WORDS] = w->seed + i;
	pid = fork();
	if (!pid) {
		for (unsigned long i = 0; i < n; i++)
			if (p[i * WORDS]-- != w->seed + i)
				_exit(1);
		_exit(0);
	}
	mprotect(p, n * PAGE, PROT_READ);
	if (pid > 0 && (waitpid(pid, &status, 0) != pid || status))
		w->wrong++;
	for (unsigned long i = 0; i < n; i++)
		if (p[i * WORDS] != w->seed + i)
			w->wrong++;
	munmap(p, n * PAGE);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned long n;

	for (n = 0; n < w->pages && !stop; n++)
		fill(w, n);
	w->pages = n;
	while (n && !stop) {
		uint64_t step = mix(w->seed + w->checked) | 1;

		/* An odd step over a power of two would visit each; here some are visited twice, which is as good. */
		for (unsigned long i = 0; i < w->pages && !stop; i++) {
			unsigned long page = (i * step) % w->pages;

			check(w, page);
			fill(w, page);
			if (!(i & 1023))
				churn(w);
		}
	}
	for (unsigned long i = 0; i < w->pages; i++)
		check(w, i);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long secs = 10, mb = 64, threads = 1, checked = 0, wrong = 0, pages;
	struct worker *w;
	int c;

	while ((c = getopt(argc, argv, "t:m:n:")) != -1) {
		if (c == 't')
			secs = strtoul(optarg, NULL, 0);
		else if (c == 'm')
			mb = strtoul(optarg, NULL, 0);
		else if (c == 'n')
			threads = strtoul(optarg, NULL, 0);
		else
			return 2;
	}
	if (!threads || !mb)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	pages = mb * 256 / threads;
	w = calloc(threads, sizeof(*w));
	for (unsigned long i = 0; w && i < threads; i++) {
		w[i].base = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		w[i].round = calloc(pages, sizeof(uint32_t));
		w[i].pages = pages;
		w[i].seed = mix(time(NULL) + i * 7919);
		if (w[i].base == MAP_FAILED || !w[i].round || pthread_create(&w[i].thread, NULL, work, &w[i])) {
			puts("memcheck: cannot start");
			return 2;
		}
	}
	sleep(secs);
	stop = 1;
	for (unsigned long i = 0; i < threads; i++) {
		pthread_join(w[i].thread, NULL);
		checked += w[i].checked;
		wrong += w[i].wrong;
	}
	printf("memcheck %s: %lu pages checked, %lu wrong\n", wrong || checked < pages ? "FAILED" : "ok", checked, wrong);
	return wrong || checked < pages;
}
