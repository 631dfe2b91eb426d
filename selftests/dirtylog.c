// SPDX-License-Identifier: GPL-2.0-only
/*
 * Logging of writes that begins and ends while vCPUs write: what is written once
 * it has begun is in the log, what is not written is not; others' memory does not
 * notice, large pages come back, and however much there is mapped, vCPUs stand
 * still for no longer.  (In the log for what was written: memslot, dirtyring.)
 */
#define _GNU_SOURCE
#include "test.h"

#include <sched.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define GPA		0x40000000UL
#define LARGE		0x200000UL
#define PAGE		4096UL
#define SIZE		(4 * LARGE)
#define WORDS(bytes)	((bytes) / PAGE / 64)

/* At an address that is the guest's below 1 GiB, as large pages want it */
static u8 *memory(size_t size, bool huge)
{
	u8 *p = mem_alloc(size + LARGE);

	p = (u8 *)(((u64)p + LARGE - 1) & ~(LARGE - 1));
	madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(p, 0, size);
	return p;
}

static int get_log(struct vm *vm, u64 *bitmap)
{
	struct kvm_dirty_log l = { .slot = 1, .dirty_bitmap = bitmap };

	return xioctl(vm->fd, KVM_GET_DIRTY_LOG, &l);
}

static bool bit(const u64 *b, u64 i)
{
	return b[i / 64] >> (i % 64) & 1;
}

FIXTURE(log) {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem;
	u64 b[WORDS(SIZE)];
};

FIXTURE_VARIANT(log) {
	bool huge;
	u64 edge;		/* so much less at each end: a slot that holds no table's pages there */
};

FIXTURE_VARIANT_ADD(log, small) { };
FIXTURE_VARIANT_ADD(log, small_edges) { .edge = 3 * PAGE };
FIXTURE_VARIANT_ADD(log, huge) { .huge = true };
FIXTURE_VARIANT_ADD(log, huge_edges) { .huge = true, .edge = 3 * PAGE };

FIXTURE_SETUP(log)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	self->mem = memory(SIZE, variant->huge);
}

FIXTURE_TEARDOWN(log)
{
	vm_free(self->vm);
}

#define slot(flags)									\
	vm_slot(self->vm, 1, GPA + variant->edge, SIZE - 2 * variant->edge, self->mem + variant->edge, flags)

/* ---- exactly what is written ---- */

static volatile u64 epoch, progress[2];

/* Each vCPU has its word of a page; pages with an odd number are only read */
static void writing_guest(u64 me)
{
	u64 first = (GPA + 3 * PAGE) / PAGE, n = SIZE / PAGE - 6, seed = me + 1, sum = 0, now;

	while ((now = epoch)) {
		u64 page;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		page = first + (seed >> 33) % n;
		if (page & 1)
			sum += *(volatile u64 *)(page * PAGE);
		else
			((volatile u64 *)(page * PAGE))[me] = now;
		progress[me]++;
	}
	guest_done(sum & 1);
}

/* Pages that have it, and must be in the log that is read next */
static u32 written(u8 *mem, u64 pages, u64 now, u64 *set)
{
	u32 n = 0;
	u64 i;

	memset(set, 0, (pages + 63) / 64 * 8);
	for (i = 0; i < pages; i++) {
		volatile u64 *p = (u64 *)(mem + i * PAGE);

		if (p[0] != now && p[1] != now)
			continue;
		set[i / 64] |= 1UL << (i % 64);
		n++;
	}
	return n;
}

TEST_F_TIMEOUT(log, exact, 200)
{
	u64 pages = (SIZE - 2 * variant->edge) / PAGE, set[WORDS(SIZE)], now = 1, i;
	struct vm *vm = self->vm;
	struct vcpu *v[2] = { self->v, vcpu_new(vm, 1) };
	u8 *mem = self->mem + variant->edge;
	u32 round, look, all = 0;

	slot(0);
	for (i = 0; i < 2; i++)
		vcpu_long(v[i], writing_guest, i);
	guest_var(vm, epoch) = now;
	for (i = 0; i < 2; i++)
		vcpu_start(v[i]);
	for (round = 0; round < 25; round++) {
		/* some is mapped, and written, while nobody wants to know */
		for (i = 0; i < 2; i++) {
			u64 p = guest_var(vm, progress)[i];

			while (guest_var(vm, progress)[i] < p + 300)
				sched_yield();
		}
		slot(KVM_MEM_LOG_DIRTY_PAGES);
		for (look = 0; look < 4; look++) {
			u64 p = guest_var(vm, progress)[look & 1];

			guest_var(vm, epoch) = ++now;
			while (guest_var(vm, progress)[look & 1] < p + (look ? 20 : 200))
				sched_yield();
			all += written(mem, pages, now, set);
			ASSERT_EQ(0, get_log(vm, self->b));
			for (i = 0; i < pages; i++) {
				ASSERT_TRUE(bit(self->b, i) || !bit(set, i))
					TH_LOG("round %u, look %u: page %lu was written and is not in the log", round,
					       look, i);
				ASSERT_FALSE(bit(self->b, i) && (GPA / PAGE + variant->edge / PAGE + i) & 1)
					TH_LOG("round %u, look %u: page %lu is in the log, and nobody wrote it",
					       round, look, i);
			}
		}
		slot(0);
	}
	guest_var(vm, epoch) = 0;
	for (i = 0; i < 2; i++)
		vcpu_join(v[i]);
	EXPECT_LT(100, all);
}

/* ---- what it costs others, and afterwards ---- */

static void rounds_guest(u64 pages)
{
	u64 i, n;

	for (n = 0; ; n++) {
		for (i = 3; i < pages - 3; i++)
			*(volatile u64 *)(GPA + i * PAGE) = n;
		guest_sync(n);
	}
}

/* Faults of a round of writes */
static u64 faults(struct vcpu *v)
{
	u64 n = vcpu_stat(v, "page_faults");

	vcpu_sync(v);
	return vcpu_stat(v, "page_faults") - n;
}

/* When it ends small pages can be written as they are, and where there were large ones there are again */
TEST_F(log, ends)
{
	u64 pages = SIZE / PAGE, had, i;
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;

	if (fd_stat(vm->fd, "pages_2m") == NO_STAT)
		SKIP(return, "this hypervisor does not tell what it maps");
	vcpu_long(v, rounds_guest, pages);
	slot(0);
	faults(v);
	had = fd_stat(vm->fd, "pages_2m");
	for (i = 0; i < 3; i++) {
		slot(KVM_MEM_LOG_DIRTY_PAGES);
		/* at least one in each table that is all the slot's; the host may take a page or two meanwhile */
		EXPECT_LE(variant->edge ? 2 : 4, faults(v));
		slot(0);
		EXPECT_GE(variant->huge ? 1024 : 20, faults(v));
		EXPECT_EQ(had, fd_stat(vm->fd, "pages_2m"));
	}
	if (variant->huge && !had)
		SKIP(return, "the host has no large pages here");
}

static volatile u64 walk_from, walk_pages;

static void walk_guest(u64 arg)
{
	u64 n, i;

	for (n = 0; ; n++) {
		for (i = 0; i < walk_pages; i++)
			*(volatile u64 *)(walk_from + i * PAGE) = n;
		guest_sync(n);
	}
}

/* Another slot, in the same tables, is not touched by it */
TEST(neighbour)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	u8 *mem = memory(SIZE, false);

	if (fd_stat(vm->fd, "pages_2m") == NO_STAT)
		SKIP(return, "this hypervisor does not tell what it maps");
	if (shadow_paging())
		SKIP(return, "shadow paging, which forgets all at a flush");
	vm_slot(vm, 1, GPA, LARGE + LARGE / 2, mem, 0);
	vm_slot(vm, 2, GPA + LARGE + LARGE / 2, SIZE - LARGE - LARGE / 2, mem + LARGE + LARGE / 2, 0);
	vcpu_long(v, walk_guest, 0);
	guest_var(vm, walk_from) = GPA;
	guest_var(vm, walk_pages) = SIZE / PAGE;
	faults(v);
	guest_var(vm, walk_from) = GPA + LARGE + LARGE / 2;
	guest_var(vm, walk_pages) = (SIZE - LARGE - LARGE / 2) / PAGE;
	vm_slot(vm, 1, GPA, LARGE + LARGE / 2, mem, KVM_MEM_LOG_DIRTY_PAGES);
	EXPECT_GE(20, faults(v));
	vm_slot(vm, 1, 0, 0, NULL, 0);
	EXPECT_GE(20, faults(v));
	vm_free(vm);
}

/* ---- while the log is being read ---- */

#define COUNTED		(16 * PAGE)	/* less than a table covers */

static volatile u32 enough;

static void counting_guest(u64 arg)
{
	while (!enough)
		++*(volatile u64 *)GPA;
	guest_done(0);
}

static void *counting(void *arg)
{
	vcpu_done(arg);
	return NULL;
}

struct log_read {
	struct vm *vm;
	u64 *bitmap;
	int answer;
};

static void *reading_log(void *arg)
{
	struct log_read *r = arg;

	r->answer = get_log(r->vm, r->bitmap);
	return NULL;
}

/* A counter that goes on under a child of this process */
static bool runs_in_child(const volatile u64 *counter)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		u64 first = *counter, i;

		for (i = 0; i < 1000000 && *counter == first; i++)
			;
		_exit(i < 1000000);
	}
	must(pid);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		die("a child that did not end");
	return WEXITSTATUS(status);
}

/*
 * The log has closed a page, and flushes when it is through, which waits for the place where it writes; meanwhile fork(2) means
 * the guest to ask before it writes to what the child sees, too.  Emulated CPUs forget their TLB with each exit, and so do not
 * show it where that goes wrong.
 */
TEST(fork_beside_the_log)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK), i;
	u8 *mem = mem_alloc(COUNTED);
	pthread_t guest;

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	must(ioctl(uffd, UFFDIO_API, &api));
	memset(mem, 0, COUNTED);
	vm_slot(vm, 1, GPA, COUNTED, mem, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_long(v, counting_guest, 0);
	ASSERT_EQ(0, pthread_create(&guest, NULL, counting, v));
	for (i = 0; i < 20; i++) {
		u8 *bitmap = mem_alloc(PAGE);
		struct uffdio_register reg = { .range = { (u64)bitmap, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
		struct uffdio_zeropage zero = { .range = { (u64)bitmap, PAGE } };
		struct log_read log = { vm, (u64 *)bitmap };
		u64 was = *(volatile u64 *)mem;
		struct uffd_msg msg;
		pthread_t reader;

		must(ioctl(uffd, UFFDIO_REGISTER, &reg));
		while (*(volatile u64 *)mem == was)
			sleep_ms(1);
		ASSERT_EQ(0, pthread_create(&reader, NULL, reading_log, &log));
		while (read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			sched_yield();
		EXPECT_FALSE(runs_in_child((volatile u64 *)mem));
		must(ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
		pthread_join(reader, NULL);
		EXPECT_EQ(0, log.answer);
		munmap(bitmap, PAGE);
	}
	guest_var(vm, enough) = 1;
	pthread_join(guest, NULL);
	close(uffd);
	vm_free(vm);
}

/* ---- how long vCPUs stand ---- */

#define LITTLE	(8UL << 20)
#define MUCH	(256UL << 20)
#define REACH	(1UL << 30)	/* of a guest: what is beyond is mapped for it (KVM_PRE_FAULT_MEMORY) */

/* Small pages, any number of them with few behind */
static u8 *alias(size_t size)
{
	int fd = memfd_create("alias", 0);
	u8 *p = mem_alloc(size);
	size_t at;

	must(fd);
	must(ftruncate(fd, LARGE));
	for (at = 0; at < size; at += LARGE)
		if (mmap(p + at, LARGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) != p + at)
			die("mmap: %s", strerror(errno));
	close(fd);
	return p;
}

enum { ON, OFF, MOVE, DELETE, CHANGES };
static const char *const change_name[CHANGES] = { "logging on", "off", "a move", "deletion" };

static void map_all(struct vcpu *v, size_t size)
{
	struct kvm_pre_fault_memory beyond = { .gpa = GPA + REACH, .size = size > REACH ? size - REACH : 0 };

	vcpu_sync(v);
	while (beyond.size)
		if (ioctl(v->fd, KVM_PRE_FAULT_MEMORY, &beyond) && errno != EINTR && errno != EAGAIN)
			die("KVM_PRE_FAULT_MEMORY at %#llx: %s", beyond.gpa, strerror(errno));
}

static u64 stood(struct vm *vm, u64 gpa, size_t size, u8 *mem, u32 flags)
{
	u64 ns = fd_stat(vm->fd, "memslot_stood_ns");

	vm_slot(vm, 1, gpa, size, mem, flags);
	return fd_stat(vm->fd, "memslot_stood_ns") - ns;
}

/* The shortest of some times: a busy host adds to each */
static void measure(struct vm *vm, struct vcpu *v, size_t size, u64 *best)
{
	u8 *mem = alias(size);
	u64 ns[CHANGES];
	int i, round;

	memset(best, 0xff, CHANGES * sizeof(*best));
	guest_var(vm, walk_from) = GPA;
	guest_var(vm, walk_pages) = (size < REACH ? size : REACH) / PAGE;
	for (round = 0; round < 2; round++) {
		vm_slot(vm, 1, GPA, size, mem, 0);
		map_all(v, size);
		if (fd_stat(vm->fd, "pages_4k") < size / PAGE)
			die("not all is mapped");
		for (i = 0; i < 5; i++) {
			ns[ON] = stood(vm, GPA, size, mem, KVM_MEM_LOG_DIRTY_PAGES);
			ns[OFF] = stood(vm, GPA, size, mem, 0);
			best[ON] = ns[ON] < best[ON] ? ns[ON] : best[ON];
			best[OFF] = ns[OFF] < best[OFF] ? ns[OFF] : best[OFF];
		}
		i = round ? DELETE : MOVE;
		ns[i] = stood(vm, round ? 0 : GPA + size, round ? 0 : size, mem, 0);
		best[i] = ns[i];
		if (!round)
			vm_slot(vm, 1, 0, 0, NULL, 0);
	}
	munmap(mem, size);
}

/* 32 times as much, and more: a step for each page of it would be five times the millisecond that is a busy host's */
#define BOUND(little)	(4 * (little) + 1000000)

static bool longer(const u64 *little, const u64 *much)
{
	int i;

	for (i = 0; i < CHANGES; i++)
		if (much[i] > BOUND(little[i]))
			return true;
	return false;
}

FIXTURE(time) {
	struct vm *vm;
};

FIXTURE_SETUP(time)
{
	self->vm = vm_new(VM_PLAIN);
}

FIXTURE_TEARDOWN(time)
{
	vm_free(self->vm);
}

/* STANDING_MIB: with so much mapped instead, as `make stress` has it */
TEST_F_TIMEOUT(time, standing, 3000)
{
	struct vm *vm = self->vm;
	struct vcpu *v = vcpu_new(vm, 0);
	u64 little[CHANGES], much[CHANGES], again[CHANGES];
	const char *mib = getenv("STANDING_MIB");
	size_t size = mib ? strtoul(mib, NULL, 0) << 20 : MUCH;
	int i, tries;

	if (fd_stat(vm->fd, "memslot_stood_ns") == NO_STAT)
		SKIP(return, "this hypervisor does not tell how long vCPUs stand");
	vcpu_long(v, walk_guest, 0);
	measure(vm, v, LITTLE, little);
	measure(vm, v, size, much);
	/* Of a move and an end one time is all that there is to each round. */
	for (tries = 0; tries < 3 && longer(little, much); tries++) {
		measure(vm, v, size, again);
		for (i = 0; i < CHANGES; i++)
			much[i] = again[i] < much[i] ? again[i] : much[i];
	}
	for (i = 0; i < CHANGES; i++) {
		TH_LOG("%s: %lu ns with %lu MiB mapped, %lu ns with %lu MiB", change_name[i], little[i], LITTLE >> 20,
		       much[i], size >> 20);
		EXPECT_GE(BOUND(little[i]), much[i]);
	}
}

TEST_HARNESS_MAIN
