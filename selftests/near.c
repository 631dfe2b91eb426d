// SPDX-License-Identifier: GPL-2.0-only
/*
 * With a page that a guest touches those beside it are mapped, if the process
 * has them: fewer faults, and nothing else that could be told.  No right is
 * given that the process does not have, no page of another slot or from beyond
 * a table of the process is reached, no page counts as written or used that was not.
 */
#define _GNU_SOURCE
#include "test.h"

#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define GPA	0x40000000UL
#define MEM2	0x200000UL
#define PAGES	512
#define BATCH	16

FIXTURE(near) {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem;		/* 2 MiB in small pages: each says in its first word which it is */
};

/* What others are told of a page comes after it was written: so the compiler, too, must have it */
static volatile u32 *page(u8 *mem, u32 i)
{
	return (u32 *)(mem + i * 4096UL);
}

FIXTURE_SETUP(near)
{
	u8 *p = mem_alloc(3 * MEM2);
	u32 i;

	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	self->mem = (u8 *)(((u64)p + MEM2 - 1) & ~(MEM2 - 1));
	madvise(p, 3 * MEM2, MADV_NOHUGEPAGE);
	for (i = 0; i < PAGES; i++)
		*page(self->mem, i) = 1000 + i;
}

FIXTURE_TEARDOWN(near)
{
	vm_free(self->vm);
}

/* Are pages mapped that nobody has touched?  Not where the CPU keeps no accessed bits; shadow tables have a fault for each. */
static bool by_batches(void)
{
	static const char *const names[] = { "npt", "ept", "ept_ad" };
	int i = guest_is_amd() ? 0 : 1, end = guest_is_amd() ? 1 : 3;

	for (; i < end; i++) {
		char path[64], c = 0;
		int fd;

		snprintf(path, sizeof(path), "/sys/module/keel/parameters/%s", names[i]);
		fd = open(path, O_RDONLY);
		if (fd < 0 || read(fd, &c, 1) != 1 || c != 'Y') {
			close(fd);
			return false;
		}
		close(fd);
	}
	return true;
}

/* What the guest is to do with each page, and what it read there */
enum { LEAVE, READ, WRITE };
static volatile u8 todo[PAGES];
static volatile u32 seen[PAGES];

static void guest(u64 arg)
{
	volatile u32 *p = (u32 *)GPA;
	u32 i;

	for (;;) {
		for (i = 0; i < PAGES; i++) {
			if (todo[i] == READ)
				seen[i] = p[i * 1024UL];
			else if (todo[i] == WRITE)
				p[i * 1024UL] = 5000 + i;
		}
		guest_sync(0);
	}
}

/* Touch pages [from, to): how many faults that took */
static u64 touch(FIXTURE_DATA(near) *self, u32 from, u32 to, int kind)
{
	u64 faults = vcpu_stat(self->v, "page_faults");
	u32 i;

	for (i = 0; i < PAGES; i++)
		guest_var(self->vm, todo)[i] = i >= from && i < to ? kind : LEAVE;
	vcpu_sync(self->v);
	return vcpu_stat(self->v, "page_faults") - faults;
}

/* The guest's own pages are there before anything is counted */
static void start(FIXTURE_DATA(near) *self, u8 *mem, size_t size, u32 flags)
{
	vm_slot(self->vm, 1, GPA, size, mem, flags);
	vcpu_long(self->v, guest, 0);
	touch(self, 0, 0, LEAVE);
}

TEST_F(near, in_order)
{
	bool batches = by_batches();
	u64 faults;
	u32 i;

	start(self, self->mem, MEM2, 0);
	faults = touch(self, 0, PAGES, READ);
	TH_LOG("%llu faults for %u pages", (unsigned long long)faults, PAGES);
	EXPECT_GE(batches ? PAGES / BATCH + 4 : PAGES + 4, faults);
	EXPECT_LE(PAGES / BATCH, faults);
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(1000 + i, guest_var(self->vm, seen)[i]);
	/* what was written by the process may be written by the guest: that takes no more */
	faults = touch(self, 0, PAGES, WRITE);
	if (batches)
		EXPECT_EQ(0, faults);
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(5000 + i, *page(self->mem, i));
}

/* User and guest address are not alike below the size of a table, and the memory behind the table's end is another's */
TEST_F(near, across_tables_of_the_process)
{
	u8 *mem = self->mem + MEM2 - 5 * 4096;
	u32 i;

	munmap(self->mem + MEM2, 0x8000);
	ASSERT_EQ(self->mem + MEM2, mmap(self->mem + MEM2, 0x8000, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	for (i = 0; i < 8; i++)
		*page(self->mem + MEM2, i) = 9000 + i;
	start(self, mem, 0xd000, 0);
	touch(self, 2, 3, READ);
	touch(self, 0, 13, READ);
	for (i = 0; i < 13; i++)
		EXPECT_EQ(i < 5 ? 1000 + PAGES - 5 + i : 9000 + i - 5, guest_var(self->vm, seen)[i]);
	touch(self, 0, 13, WRITE);
	for (i = 0; i < 13; i++)
		EXPECT_EQ(5000 + i, *page(mem, i));
}

/* Slots that begin and end within the 16 pages: three of them, and nothing between the last two */
TEST_F(near, ends_of_slots)
{
	struct kvm_run *run = self->v->run;
	u32 i;

	vm_slot(self->vm, 2, GPA + 5 * 4096, 3 * 4096, self->mem + 100 * 4096, 0);
	vm_slot(self->vm, 3, GPA + 9 * 4096, 7 * 4096, self->mem + 200 * 4096, 0);
	start(self, self->mem, 5 * 4096, 0);
	touch(self, 6, 7, READ);
	touch(self, 0, 8, READ);
	touch(self, 10, 16, READ);
	touch(self, 9, 10, READ);
	for (i = 0; i < 16; i++) {
		if (i == 8)
			continue;
		EXPECT_EQ(1000 + i + (i < 5 ? 0 : i < 8 ? 95 : 191), guest_var(self->vm, seen)[i])
			TH_LOG("page %u", i);
	}
	/* no memory there */
	guest_var(self->vm, todo)[9] = LEAVE;
	guest_var(self->vm, todo)[8] = WRITE;
	run = vcpu_expect_mmio(self->v, true, GPA + 8 * 4096, 4);
	EXPECT_EQ(5008, *(u32 *)run->mmio.data);
	EXPECT_EQ(1008, *page(self->mem, 8));
	EXPECT_EQ(1103, *page(self->mem, 103));
	vcpu_sync(self->v);
}

/* After fork() the pages are the child's too, until they are written: a copy, for whoever writes */
TEST_F(near, copied_on_write)
{
	int go[2], status;
	char c = 0;
	pid_t pid;
	u32 i;

	ASSERT_EQ(0, pipe(go));
	pid = fork();
	if (!pid) {
		close(go[1]);
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		for (i = 0; i < PAGES; i++)
			if (*page(self->mem, i) != 1000 + i)
				_exit(2);
		_exit(0);
	}
	start(self, self->mem, MEM2, 0);
	touch(self, 0, 1, READ);
	touch(self, 1, 40, WRITE);
	touch(self, 0, PAGES, READ);
	touch(self, 0, PAGES, WRITE);
	ASSERT_EQ(1, write(go[1], &c, 1));
	waitpid(pid, &status, 0);
	EXPECT_EQ(0, status) TH_LOG("the guest wrote to the child's memory");
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(5000 + i, *page(self->mem, i));
}

/* Pages the process may only read, or not at all, between others */
TEST_F(near, rights)
{
	u32 i;

	mprotect((void *)page(self->mem, 3), 4096, PROT_READ);
	mprotect((void *)page(self->mem, 6), 4096, PROT_NONE);
	start(self, self->mem, MEM2, 0);
	touch(self, 0, 6, READ);
	touch(self, 7, 16, READ);
	for (i = 0; i < 16; i++)
		if (i != 6)
			EXPECT_EQ(1000 + i, guest_var(self->vm, seen)[i]);
	guest_var(self->vm, todo)[7] = LEAVE;
	for (i = 0; i < PAGES; i++)
		guest_var(self->vm, todo)[i] = i == 3 ? WRITE : LEAVE;
	EXPECT_EQ(-EFAULT, xioctl(self->v->fd, KVM_RUN, 0));
	EXPECT_EQ(1003, *page(self->mem, 3));
	guest_var(self->vm, todo)[3] = LEAVE;
	mprotect((void *)page(self->mem, 3), 4096, PROT_READ | PROT_WRITE);
	vcpu_sync(self->v);
	EXPECT_EQ(5003, *page(self->mem, 3));
	guest_var(self->vm, todo)[6] = READ;
	EXPECT_EQ(-EFAULT, xioctl(self->v->fd, KVM_RUN, 0));
	mprotect((void *)page(self->mem, 6), 4096, PROT_READ | PROT_WRITE);
	vcpu_sync(self->v);
	EXPECT_EQ(1006, guest_var(self->vm, seen)[6]);
}

/* The log names what was written, no more and no less */
static void logged(struct __test_metadata *_metadata, FIXTURE_DATA(near) *self, u32 from, u32 to)
{
	u64 bits[PAGES / 64];
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bits };
	u32 i;

	must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(i >= from && i < to, bits[i / 64] >> i % 64 & 1)
			TH_LOG("page %u", i);
	}
}

TEST_F(near, dirty_log)
{
	start(self, self->mem, MEM2, KVM_MEM_LOG_DIRTY_PAGES);
	touch(self, 5, 6, WRITE);		/* maps fifteen others */
	logged(_metadata, self, 5, 6);
	touch(self, 0, 4, WRITE);
	logged(_metadata, self, 0, 4);
	touch(self, 40, 41, READ);
	logged(_metadata, self, 0, 0);
	touch(self, 32, 48, READ);
	logged(_metadata, self, 0, 0);
	touch(self, 41, 43, WRITE);
	logged(_metadata, self, 41, 43);
	touch(self, 41, 44, WRITE);
	logged(_metadata, self, 41, 44);
	touch(self, 0, PAGES, WRITE);
	logged(_metadata, self, 0, PAGES);
}

/* The same where logging begins when pages are mapped already that nobody has touched */
TEST_F(near, logged_later)
{
	start(self, self->mem, MEM2, 0);
	touch(self, 5, 6, WRITE);
	vm_slot(self->vm, 1, GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	touch(self, 0, 16, READ);
	logged(_metadata, self, 0, 0);
	touch(self, 6, 9, WRITE);
	logged(_metadata, self, 6, 9);
}

/* A page of a file that was read, not written, is clean, and stays so while the guest does not write to it: /proc tells */
TEST_F(near, clean_pages_of_a_file)
{
	volatile u32 sum = 0;
	u8 *mem;
	u32 i;
	int fd;

	fd = memfd_create("near", 0);
	ASSERT_EQ(0, ftruncate(fd, MEM2));
	mem = mmap(NULL, 2 * MEM2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mem = (u8 *)(((u64)mem + MEM2 - 1) & ~(MEM2 - 1));
	for (i = 0; i < 64; i++)
		must(pwrite(fd, &i, 4, i * 4096L));
	ASSERT_EQ(mem, mmap(mem, MEM2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0));
	madvise(mem, MEM2, MADV_NOHUGEPAGE);
	for (i = 0; i < 64; i++)
		sum += *page(mem, i);
	start(self, mem, MEM2, 0);
	touch(self, 0, 64, READ);
	for (i = 0; i < 64; i++)
		EXPECT_EQ(i, guest_var(self->vm, seen)[i]);
	touch(self, 0, 64, WRITE);
	for (i = 0; i < 64; i++)
		EXPECT_EQ(5000 + i, *page(mem, i));
	/* through the file, too */
	EXPECT_EQ(4, pread(fd, (void *)&sum, 4, 63 * 4096L));
	EXPECT_EQ(5063, sum);
	close(fd);
}

/* The entries themselves: what nobody has touched has not been accessed */
#define TRACE	"/sys/kernel/tracing/instances/near"

TEST_F(near, age)
{
	u64 accessed = guest_is_amd() ? 1 << 5 : 1 << 8;
	u32 level, young = 0, old = 0;
	unsigned long addr, pte;
	char line[512];
	FILE *f;

	if (!by_batches())
		SKIP(return, "a page for each fault");
	mkdir(TRACE, 0755);
	if (!file_write(TRACE "/trace", "") || !file_write(TRACE "/events/keel/keel_map/enable", "1"))
		SKIP(return, "this hypervisor does not tell what it maps");
	start(self, self->mem, MEM2, 0);
	touch(self, 20, 21, READ);
	f = fopen(TRACE "/trace", "r");
	while (f && fgets(line, sizeof(line), f)) {
		char *p = strstr(line, "keel_map: vcpu");

		if (!p || sscanf(p, "keel_map: vcpu %*u %*s 0x%lx level %u entry 0x%lx", &addr, &level, &pte) != 3 ||
		    addr < GPA || addr >= GPA + MEM2)
			continue;
		EXPECT_TRUE(addr >= GPA + 16 * 4096 && addr < GPA + 32 * 4096);
		EXPECT_EQ(addr == GPA + 20 * 4096, !!(pte & accessed));
		young += !!(pte & accessed);
		old += !(pte & accessed);
	}
	if (f)
		fclose(f);
	file_write(TRACE "/events/keel/keel_map/enable", "0");
	rmdir(TRACE);
	EXPECT_EQ(1, young);
	EXPECT_EQ(15, old);
}

/* A device's memory is in the process's tables from mmap() on: one fault a page will do, of which the slow loop takes a second */
TEST_F(near, device)
{
	int fd = open("/dev/mem", O_RDWR);
	u64 faults;
	u8 *p;

	p = fd < 0 ? MAP_FAILED : mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xa0000);
	if (p == MAP_FAILED)
		SKIP(return, "no device memory through /dev/mem: %s", strerror(errno));
	close(fd);
	start(self, p, 0x10000, 0);
	touch(self, 0, 1, READ);		/* its tables */
	faults = touch(self, 0, 16, READ);
	TH_LOG("%llu faults", (unsigned long long)faults);
	EXPECT_GE(15, faults);
}

/*
 * The process throws pages away and makes new ones, which say how many times it has, while the guest reads them in
 * order.  None may be older than what was complete before it was read; zero is one that is not made yet.
 */
static volatile u32 made, quit, rounds;

static void reader(u64 arg)
{
	volatile u32 *p = (u32 *)GPA;
	u32 i, least, got;

	while (!quit) {
		for (i = 0; i < PAGES; i++) {
			least = made;
			got = p[i * 1024UL];
			if (got && got < least)
				guest_fail("a page that was thrown away", __LINE__, got, least);
		}
		rounds++;
	}
	guest_done(0);
}

TEST_F_TIMEOUT(near, thrown_away_meanwhile, 120)
{
	u64 end = now_ns() + 2000000000UL;
	u32 i, n;

	memset(self->mem, 0, MEM2);
	vm_slot(self->vm, 1, GPA, MEM2, self->mem, 0);
	vcpu_long(self->v, reader, 0);
	vcpu_start(self->v);
	if (!wait_for(&guest_var(self->vm, rounds), 1, 60000))
		die("the guest does not get on");
	for (n = 1; now_ns() < end || n < 20; n++) {
		u32 first = n * 7 % 32 * 16, count = n % 3 ? 13 : PAGES - first;

		/* a stretch in the middle of the windows, or all there is behind it */
		madvise((void *)page(self->mem, first), count * 4096UL, MADV_DONTNEED);
		for (i = 0; i < PAGES; i++)
			*page(self->mem, i) = n;
		guest_var(self->vm, made) = n;
	}
	TH_LOG("%u times, %u rounds of the guest's", n, guest_var(self->vm, rounds));
	guest_var(self->vm, quit) = 1;
	vcpu_join(self->v);
}

/*
 * A slot comes into being while the process throws away the memory that it shows: what the guest finds there in the
 * midst of that is not there any more when it is over.
 */
#define BIG	(8UL << 20)

static u8 *big;
static volatile u32 turn, turned;

static void *thrower(void *arg)
{
	u32 n = 0;

	while (turn != ~0U) {
		if (turn == n) {
			sched_yield();
			continue;
		}
		n = turn;
		madvise(big, BIG, MADV_DONTNEED);
		*page(big, BIG / 4096 - 1) = n;
		turned = n;
	}
	return NULL;
}

static void last_page(u64 arg)
{
	for (;;)
		guest_sync(*(volatile u32 *)(GPA + BIG - 4096));
}

TEST_F_TIMEOUT(near, slot_made_meanwhile, 200)
{
	u32 n, i, early = 0;
	pthread_t t;

	big = mem_alloc(BIG);
	madvise(big, BIG, MADV_NOHUGEPAGE);
	vcpu_long(self->v, last_page, 0);
	pthread_create(&t, NULL, thrower, NULL);
	for (n = 1; n <= 60; n++) {
		for (i = 0; i < BIG / 4096; i++)
			*page(big, i) = ~0U;
		turn = n;
		for (i = 0; i < n * 37 % 60 * 100; i++)
			asm volatile("pause");
		vm_slot(self->vm, 1, GPA, BIG, big, 0);
		early += vcpu_sync(self->v) == ~0U;
		while (turned != n)
			sched_yield();
		EXPECT_EQ(n, vcpu_sync(self->v));
		vm_slot(self->vm, 1, GPA, 0, NULL, 0);
	}
	turn = ~0U;
	pthread_join(t, NULL);
	TH_LOG("the guest was there before the end %u times of 60", early);
}

TEST_HARNESS_MAIN
