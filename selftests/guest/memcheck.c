// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest's memory under stress, checking itself. Every thread owns a part of one big mapping and goes over it in a
 * scrambled order: each page must hold, in every word, what this thread wrote there last, and is then written anew.
 * Beside that a thread maps, fills, forks over, protects and unmaps scratch pages, so that page tables change and other
 * CPUs must drop their TLB entries. A page that comes back wrong (lost, stale, swapped for another) is reported.
 * Where there are tiles (AMX) each thread keeps two, which are to be what it loaded last, too.
 * Every page is also a look at the clock, which must not go back from what any thread saw of it, nor (with -j MS) leap.
 * Without -t it goes on until there is a line or an end of input, and says twice a second how far it is.
 * With -s it does nothing, for ever, at an address that it tells: one instruction nobody else executes, and room behind it.
 */
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
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
	uint8_t tile[2][1024];		/* what is in tiles 0 and 7 */
	unsigned long tiles_seen;
};

static volatile int stop;
static uint64_t last_seen;	/* of the clock, by any thread */
static uint64_t worst_leap;
static unsigned long went_back;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* Some thread looks every few microseconds: a gap is when none ran, or the clock's own doing. */
static void look_at_clock(void)
{
	uint64_t before = __atomic_load_n(&last_seen, __ATOMIC_ACQUIRE), t = now(), w;

	if (t < before) {
		if (__atomic_fetch_add(&went_back, 1, __ATOMIC_RELAXED) < 5)
			printf("memcheck: the clock went back %llu ns\n", (unsigned long long)(before - t));
		return;
	}
	w = __atomic_load_n(&worst_leap, __ATOMIC_RELAXED);
	while (before && t - before > w &&
	       !__atomic_compare_exchange_n(&worst_leap, &w, t - before, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	while (t > before &&
	       !__atomic_compare_exchange_n(&last_seen, &before, t, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

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

/* Linux gives them to those who ask (arch/x86/xstate.rst) */
#define ARCH_REQ_XCOMP_PERM	0x1023
#define XFEATURE_XTILEDATA	18

static int tiles;

static void tiles_ask(void)
{
	tiles = !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

__attribute__((target("amx-tile"))) static void tiles_load(struct worker *w)
{
	for (unsigned long i = 0; i < sizeof(w->tile); i += 8) {
		uint64_t v = mix(w->seed ^ w->tiles_seen << 16 ^ i);

		memcpy((uint8_t *)w->tile + i, &v, 8);
	}
	_tile_loadd(0, w->tile[0], 64);
	_tile_loadd(7, w->tile[1], 64);
}

__attribute__((target("amx-tile"))) static void tiles_begin(struct worker *w)
{
	static const struct {
		uint8_t palette, start_row, reserved[14];
		uint16_t row_bytes[16];
		uint8_t rows[16];
	} __attribute__((packed, aligned(64))) shape = {
		.palette = 1, .row_bytes = { 64, [7] = 64 }, .rows = { 16, [7] = 16 },
	};

	_tile_loadconfig(&shape);
	tiles_load(w);
}

__attribute__((target("amx-tile"))) static void tiles_check(struct worker *w)
{
	uint8_t is[2][1024];

	_tile_stored(0, is[0], 64);
	_tile_stored(7, is[1], 64);
	w->tiles_seen++;
	if (memcmp(is, w->tile, sizeof(is)) && w->wrong++ < 5)
		puts("memcheck: a tile is not what was loaded");
	tiles_load(w);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned long n;

	for (n = 0; n < w->pages && !stop; n++)
		fill(w, n);
	w->pages = n;
	if (tiles)
		tiles_begin(w);
	while (n && !stop) {
		uint64_t step = mix(w->seed + w->checked) | 1;

		/* An odd step over a power of two would visit each; here some are visited twice, which is as good. */
		for (unsigned long i = 0; i < w->pages && !stop; i++) {
			unsigned long page = (i * step) % w->pages;

			check(w, page);
			fill(w, page);
			look_at_clock();
			if (tiles && !(i & 15))
				tiles_check(w);
			if (!(i & 1023))
				churn(w);
		}
	}
	for (unsigned long i = 0; i < w->pages; i++)
		check(w, i);
	return NULL;
}

static unsigned long all_checked(const struct worker *w, unsigned long threads)
{
	unsigned long n = 0;

	while (threads--)
		n += *(volatile const unsigned long *)&w[threads].checked;
	return n;
}

static void tell_progress(struct worker *w, unsigned long threads, uint64_t began)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	unsigned long checked, wrong;

	while (!poll(&input, 1, 500)) {
		checked = wrong = 0;
		for (unsigned long i = 0; i < threads; i++) {
			checked += w[i].checked;
			wrong += w[i].wrong;
		}
		printf("memcheck at %llu ms: %lu pages checked, %lu wrong\n",
		       (unsigned long long)(now() - began) / 1000000, checked, wrong);
	}
}

asm(".balign 64\n"
    "spin: jmp spin\n"
    ".skip 62, 0x90");
void spin(void);

int main(int argc, char **argv)
{
	unsigned long secs = 0, mb = 64, threads = 1, leap_ms = 0, checked = 0, wrong = 0, seen = 0, pages;
	uint64_t began = now();
	struct worker *w;
	int c, failed;

	while ((c = getopt(argc, argv, "t:m:n:j:s")) != -1) {
		if (c == 's') {
			printf("guest: symbol spin %016lx\n", (unsigned long)spin);
			fflush(stdout);
			spin();
		}
		if (c == 't')
			secs = strtoul(optarg, NULL, 0);
		else if (c == 'm')
			mb = strtoul(optarg, NULL, 0);
		else if (c == 'n')
			threads = strtoul(optarg, NULL, 0);
		else if (c == 'j')
			leap_ms = strtoul(optarg, NULL, 0);
		else
			return 2;
	}
	if (!threads || !mb)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	tiles_ask();
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
	if (secs)
		sleep(secs);
	else
		tell_progress(w, threads, began);
	/* On a busy host that may not have been enough to see each page once. */
	while (all_checked(w, threads) < pages && now() - began < 10ULL * secs * 1000000000)
		sleep(1);
	stop = 1;
	for (unsigned long i = 0; i < threads; i++) {
		pthread_join(w[i].thread, NULL);
		checked += w[i].checked;
		wrong += w[i].wrong;
		seen += w[i].tiles_seen;
	}
	if (tiles)
		printf("memcheck: tiles looked at %lu times\n", seen);
	worst_leap /= 1000000;
	failed = wrong || checked < pages || went_back || (leap_ms && worst_leap > leap_ms);
	printf("memcheck %s: %lu pages checked, %lu wrong; in %llu ms the clock leapt by %llu ms, went back %lu times\n",
	       failed ? "FAILED" : "ok", checked, wrong, (unsigned long long)(now() - began) / 1000000,
	       (unsigned long long)worst_leap, went_back);
	return failed;
}
