// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest memory is the process's memory: whatever the host does to it (discards,
 * protects, moves, copies on write, shares), the guest sees that memory and no
 * other, at any moment, with vCPUs running.
 */
#define _GNU_SOURCE
#include "test.h"

#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define GPA	0x10000000UL
#define PAGES	512
#define BYTES	(PAGES * 4096UL)

FIXTURE(guestmem) {
	struct vm *vm;
	struct vcpu *v[2];
	u8 *mem;
};

FIXTURE_SETUP(guestmem)
{
	u8 *p = mem_alloc(2 * BYTES);
	int i;

	self->vm = vm_new(VM_PLAIN);
	self->mem = (u8 *)(((u64)p + BYTES - 1) & ~(BYTES - 1));
	for (i = 0; i < 2; i++)
		self->v[i] = vcpu_new(self->vm, i);
}

FIXTURE_TEARDOWN(guestmem)
{
	vm_free(self->vm);
}

/*
 * Each vCPU owns one word of every page and counts in it.  What it reads back
 * is what it wrote last, or zero where the host has thrown the page away.
 */
static volatile u32 quit, rounds[2], zeroes;

static void writer(u64 id)
{
	static u32 last[2][PAGES];
	volatile u32 *p = (u32 *)GPA;
	u32 n = 0, i, v;

	while (!quit) {
		n++;
		for (i = 0; i < PAGES; i++) {
			v = p[i * 1024 + id];
			if (v != last[id][i]) {
				guest_eq(v, 0);
				zeroes++;
			}
			p[i * 1024 + id] = n;
			last[id][i] = n;
		}
		rounds[id] = n;
	}
	/* a final pattern, for the host to look at */
	for (i = 0; i < PAGES; i++)
		p[i * 1024 + id] = 0xabc00000 + i;
	guest_done(0);
}

static volatile u32 gone;	/* KVM_RUN found no memory: EFAULT */

/* Run to the end; where the memory is gone for now, try again */
static void *patient_thread(void *arg)
{
	struct vcpu *v = arg;

	for (;;) {
		if (!ioctl(v->fd, KVM_RUN, 0)) {
			if (v->run->exit_reason == KVM_EXIT_IO &&
			    v->run->io.port == PORT_DONE)
				return NULL;
			if (v->run->exit_reason == KVM_EXIT_IO &&
			    v->run->io.port == PORT_FAIL)
				die("vCPU %d: a page is not what it was",
				    v->id);
			if (v->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
				die("vCPU %d: internal error %u: %llx %llx %llx %llx",
				    v->id, v->run->internal.suberror,
				    v->run->internal.data[0],
				    v->run->internal.data[1],
				    v->run->internal.data[2],
				    v->run->internal.data[3]);
			die("vCPU %d: exit %s", v->id,
			    exit_name(v->run->exit_reason));
		}
		if (errno != EFAULT)
			die("KVM_RUN: %s", strerror(errno));
		gone++;
		sched_yield();
	}
}

static void start(struct vm *vm, struct vcpu **v, pthread_t *t)
{
	int i;

	for (i = 0; i < 2; i++) {
		vcpu_long(v[i], writer, i);
		pthread_create(&t[i], NULL, patient_thread, v[i]);
	}
	for (i = 0; i < 2; i++)
		if (!wait_for(&guest_var(vm, rounds)[i], 1, 30000))
			die("the guest does not get on");
}

/* Both vCPUs did another whole round; the one they are in may have passed the page already */
static void progress(struct vm *vm)
{
	u32 r[2] = { guest_var(vm, rounds)[0], guest_var(vm, rounds)[1] };
	int i;

	for (i = 0; i < 2; i++)
		if (!wait_for(&guest_var(vm, rounds)[i], r[i] + 2, 30000))
			die("the guest does not get on");
}

static void finish(struct vm *vm, u8 *mem, pthread_t *t)
{
	int i;

	guest_var(vm, quit) = 1;
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < PAGES; i++)
		if (((u32 *)mem)[i * 1024] != 0xabc00000 + i ||
		    ((u32 *)mem)[i * 1024 + 1] != 0xabc00000 + i)
			die("page %d: what the guest wrote is not there", i);
}

TEST_F(guestmem, discarded)
{
	pthread_t t[2];
	u32 seed = 1, i;

	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 100; i++) {
		seed = seed * 1664525 + 1013904223;
		madvise(self->mem + (seed >> 8) % PAGES * 4096,
			(seed >> 4) % 16 * 4096 + 4096, MADV_DONTNEED);
		if (i % 10 == 0)
			progress(self->vm);
	}
	finish(self->vm, self->mem, t);
	EXPECT_GT(guest_var(self->vm, zeroes), 0);
}

TEST_F(guestmem, discarded_huge)
{
	pthread_t t[2];
	int i;

	madvise(self->mem, BYTES, MADV_HUGEPAGE);
	memset(self->mem, 0, BYTES);
	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 6; i++) {
		/* a part, which splits it; all, which brings a new one */
		madvise(self->mem + 64 * 4096, 4096, MADV_DONTNEED);
		progress(self->vm);
		madvise(self->mem, BYTES, MADV_DONTNEED);
		progress(self->vm);
	}
	finish(self->vm, self->mem, t);
}

TEST_F(guestmem, protected)
{
	pthread_t t[2];
	u32 a, b, i;

	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 20; i++) {
		/* what is read-only for the process stays as it is */
		mprotect(self->mem + 100 * 4096, 4096, PROT_READ);
		a = *(volatile u32 *)(self->mem + 100 * 4096);
		sleep_ms(2);
		b = *(volatile u32 *)(self->mem + 100 * 4096);
		EXPECT_EQ(a, b);
		mprotect(self->mem + 100 * 4096, 4096, PROT_READ | PROT_WRITE);
		progress(self->vm);
		mprotect(self->mem, BYTES, PROT_NONE);
		sleep_ms(1);
		mprotect(self->mem, BYTES, PROT_READ | PROT_WRITE);
		progress(self->vm);
	}
	finish(self->vm, self->mem, t);
	EXPECT_EQ(0, guest_var(self->vm, zeroes));
}

TEST_F(guestmem, moved_away_and_back)
{
	u8 *away = mem_alloc(BYTES), *p;
	pthread_t t[2];
	int i;

	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 20; i++) {
		u32 sum = 0, sum2 = 0, k;

		p = mremap(self->mem, BYTES, BYTES,
			   MREMAP_MAYMOVE | MREMAP_FIXED, away);
		ASSERT_EQ(away, p);
		/* nobody writes it there */
		for (k = 0; k < BYTES / 4; k += 512)
			sum += ((volatile u32 *)p)[k];
		sleep_ms(2);
		for (k = 0; k < BYTES / 4; k += 512)
			sum2 += ((volatile u32 *)p)[k];
		EXPECT_EQ(sum, sum2);
		p = mremap(away, BYTES, BYTES,
			   MREMAP_MAYMOVE | MREMAP_FIXED, self->mem);
		ASSERT_EQ(self->mem, p);
		progress(self->vm);
	}
	finish(self->vm, self->mem, t);
	EXPECT_EQ(0, guest_var(self->vm, zeroes));
}

/* fork(): the child has the memory as it was, the guest goes on in ours */
TEST_F_TIMEOUT(guestmem, copied_on_write, 120)
{
	pthread_t t[2];
	int i, status;

	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 8; i++) {
		pid_t pid = fork();

		if (!pid) {
			u32 sum = 0, sum2 = 0, k;

			for (k = 0; k < BYTES / 4; k += 512)
				sum += ((volatile u32 *)self->mem)[k];
			sleep_ms(20);
			for (k = 0; k < BYTES / 4; k += 512)
				sum2 += ((volatile u32 *)self->mem)[k];
			_exit(sum != sum2);
		}
		progress(self->vm);
		waitpid(pid, &status, 0);
		EXPECT_TRUE(WIFEXITED(status));
		EXPECT_EQ(0, WEXITSTATUS(status));
	}
	finish(self->vm, self->mem, t);
	EXPECT_EQ(0, guest_var(self->vm, zeroes));
}

/* A file in memory, holes punched in it, and seen through two mappings */
TEST_F(guestmem, shared_file)
{
	int fd = syscall(SYS_memfd_create, "guest", 0), i;
	pthread_t t[2];
	u8 *a, *b;

	must(ftruncate(fd, BYTES));
	a = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	vm_slot(self->vm, 1, GPA, BYTES, a, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 20; i++) {
		/* 3: keep the size, punch a hole */
		must(fallocate(fd, 3, i * 16 * 4096, 16 * 4096));
		progress(self->vm);
		EXPECT_NE(0, ((volatile u32 *)b)[i * 16 * 1024]);
	}
	finish(self->vm, b, t);
	close(fd);
}

/* Truncated: SIGBUS to a process, EFAULT to its vCPU */
static void touch_guest(u64 gpa)
{
	*(volatile u32 *)gpa = 1;
	guest_sync(0);
	*(volatile u32 *)gpa = 2;
	guest_done(0);
}

TEST_F(guestmem, truncated_file)
{
	int fd = syscall(SYS_memfd_create, "guest", 0);
	struct vcpu *v = self->v[0];
	u8 *a;

	must(ftruncate(fd, BYTES));
	a = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	vm_slot(self->vm, 1, GPA, BYTES, a, 0);
	vcpu_long(v, touch_guest, GPA + 0x10000);
	vcpu_sync(v);
	must(ftruncate(fd, 0));
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_RUN, 0));
	must(ftruncate(fd, BYTES));
	vcpu_done(v);
	EXPECT_EQ(2, *(u32 *)(a + 0x10000));
	close(fd);
}

/* Memory never written is the zero page, until somebody does */
static void zero_guest(u64 arg)
{
	volatile u32 *p = (u32 *)GPA;

	guest_eq(p[0], 0);
	guest_eq(p[1024], 0);
	guest_sync(0);
	guest_eq(p[0], 77);		/* written by the host meanwhile */
	guest_eq(p[1024], 0);
	p[1024] = 88;
	guest_eq(p[1024], 88);
	guest_eq(p[2048], 0);		/* the zero page is still zero */
	guest_done(0);
}

TEST_F(guestmem, zero_page)
{
	u8 *other = mem_alloc(4096);

	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	vcpu_long(self->v[0], zero_guest, 0);
	vcpu_sync(self->v[0]);
	*(u32 *)self->mem = 77;
	vcpu_done(self->v[0]);
	EXPECT_EQ(88, *(u32 *)(self->mem + 4096));
	EXPECT_EQ(0, *(u32 *)other);
	EXPECT_EQ(0, *(u32 *)(self->mem + 3 * 4096));
}

/* A private mapping of a file: the guest's writes are not the file's */
static void private_guest(u64 arg)
{
	volatile u32 *p = (u32 *)GPA;

	guest_eq(*p, 0x11111111);
	*p = 0x22222222;
	guest_done(0);
}

TEST_F(guestmem, private_file)
{
	int fd = syscall(SYS_memfd_create, "guest", 0);
	u32 v = 0x11111111;
	u8 *a;

	must(ftruncate(fd, 4096));
	must(pwrite(fd, &v, 4, 0));
	a = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	vm_slot(self->vm, 1, GPA, 4096, a, 0);
	vcpu_long(self->v[0], private_guest, 0);
	vcpu_done(self->v[0]);
	must(pread(fd, &v, 4, 0));
	EXPECT_EQ(0x11111111, v);
	EXPECT_EQ(0x22222222, *(u32 *)a);
	close(fd);
}

/* One memory at two places of the guest */
static void alias_guest(u64 arg)
{
	volatile u32 *a = (u32 *)GPA, *b = (u32 *)(GPA + BYTES);
	u32 i;

	for (i = 0; i < PAGES; i++) {
		a[i * 1024] = i;
		guest_eq(b[i * 1024], i);
		b[i * 1024] = ~i;
		guest_eq(a[i * 1024], ~i);
	}
	guest_sync(0);
	guest_eq(a[0], 0);
	guest_eq(b[0], 0);
	guest_done(0);
}

TEST_F(guestmem, alias)
{
	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	vm_slot(self->vm, 2, GPA + BYTES, BYTES, self->mem, 0);
	vcpu_long(self->v[0], alias_guest, 0);
	vcpu_sync(self->v[0]);
	madvise(self->mem, BYTES, MADV_DONTNEED);
	vcpu_done(self->v[0]);
}

/* A slot whose start does not agree with its memory's on large pages */
static void fill_guest(u64 arg)
{
	volatile u64 *p = (u64 *)(GPA + 0x5000);
	u64 i;

	for (i = 0; i < BYTES / 8; i += 64)
		p[i] = i;
	guest_done(0);
}

TEST_F(guestmem, misaligned_huge)
{
	u64 i;

	madvise(self->mem, BYTES, MADV_HUGEPAGE);
	memset(self->mem, 0, BYTES);
	vm_slot(self->vm, 1, GPA + 0x5000, BYTES, self->mem, 0);
	vcpu_long(self->v[0], fill_guest, 0);
	vcpu_done(self->v[0]);
	for (i = 0; i < BYTES / 8; i += 64) {
		ASSERT_EQ(i, ((u64 *)self->mem)[i]);
	}
}

TEST_F(guestmem, hugetlb)
{
	u64 i;
	u8 *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED) {
		FILE *f = fopen("/proc/sys/vm/nr_hugepages", "w");

		if (f) {
			fputs("4", f);
			fclose(f);
		}
		p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	}
	if (p == MAP_FAILED)
		SKIP(return, "no huge pages to be had");
	vm_slot(self->vm, 1, GPA + 0x5000, BYTES, p, 0);
	vcpu_long(self->v[0], fill_guest, 0);
	vcpu_done(self->v[0]);
	for (i = 0; i < BYTES / 8; i += 64) {
		ASSERT_EQ(i, ((u64 *)p)[i]);
	}
	vm_slot(self->vm, 1, 0, 0, NULL, 0);
	munmap(p, BYTES);
}

/* The guest moves its page tables about while the host takes them away */
static void tables_guest(u64 arg)
{
	volatile u64 *pte = (u64 *)0x70000;
	u64 base = HEAP_GPA + 0x200000;
	u32 i;

	for (i = 0; !quit; i++) {
		u64 n = i % 256;

		pte[n] = (base + (511 - n) * 4096) | 3;
		invlpg(base + n * 4096);
		*(volatile u64 *)(base + n * 4096) = i;
		/* seen under its other address */
		guest_eq(*(volatile u64 *)(base + (511 - n) * 4096), i);
		rounds[0]++;
		if (i % 64 == 0)
			write_cr3(read_cr3());
	}
	guest_done(0);
}

TEST_F(guestmem, page_tables_of_guest)
{
	struct vm *vm = self->vm;
	u64 base = HEAP_GPA + 0x200000;
	pthread_t t;
	u32 i;

	vcpu_long(self->v[0], tables_guest, 0);
	vm_split_page(vm, base, 0x70000);
	pthread_create(&t, NULL, patient_thread, self->v[0]);
	for (i = 0; i < 50; i++) {
		u32 r = guest_var(vm, rounds)[0];

		/* unmapped from the guest, not emptied: a COW copy is made */
		mprotect(vm->mem + 0x70000, 4096, PROT_READ);
		mprotect(vm->mem + 0x70000, 4096, PROT_READ | PROT_WRITE);
		mprotect(vm->mem + base, 1 << 21, PROT_READ | PROT_WRITE);
		ASSERT_TRUE(wait_for(&guest_var(vm, rounds)[0], r + 10, 30000));
	}
	guest_var(vm, quit) = 1;
	pthread_join(t, NULL);
}

/*
 * userfaultfd: a page that is missing is another thread's to bring, a write to
 * a protected one its to allow, and the vCPU waits for it in KVM_RUN.
 */
struct faults {
	int fd;
	u8 *mem;
	volatile u32 missing, protected;
};

static void *serve_faults(void *arg)
{
	struct faults *f = arg;
	static u32 page[1024] __attribute__((aligned(4096)));
	struct uffd_msg m;

	while (read(f->fd, &m, sizeof(m)) == sizeof(m)) {
		u64 at = m.arg.pagefault.address & ~4095ULL;
		struct uffdio_copy c = { .dst = at, .src = (u64)page, .len = 4096 };
		struct uffdio_writeprotect w = { .range = { at, 4096 } };

		if (m.event != UFFD_EVENT_PAGEFAULT)
			die("userfaultfd: event %u", m.event);
		if (m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
			f->protected++;
			must(ioctl(f->fd, UFFDIO_WRITEPROTECT, &w));
			continue;
		}
		/* so that it is seen to be ours, not one of zeroes */
		page[2] = 0xfeed0000 + (at - (u64)f->mem) / 4096;
		/* both vCPUs may have asked for it; counted before they go on */
		f->missing++;
		if (ioctl(f->fd, UFFDIO_COPY, &c) && errno != EEXIST && errno != EAGAIN)
			die("UFFDIO_COPY: %s", strerror(errno));
	}
	return NULL;
}

static bool userfault(struct faults *f, u8 *mem, u64 features, u64 mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register r = { .range = { (u64)mem, BYTES }, .mode = mode };
	pthread_t t;

	f->mem = mem;
	f->fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (f->fd < 0 || ioctl(f->fd, UFFDIO_API, &api) ||
	    ioctl(f->fd, UFFDIO_REGISTER, &r))
		return false;
	pthread_create(&t, NULL, serve_faults, f);
	return true;
}

TEST_F(guestmem, userfault_missing)
{
	struct faults f = {};
	pthread_t t[2];
	u32 i, k;

	madvise(self->mem, BYTES, MADV_NOHUGEPAGE);
	if (!userfault(&f, self->mem, 0, UFFDIO_REGISTER_MODE_MISSING))
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 20; i++) {
		u32 before = f.missing;

		for (k = 0; k < PAGES; k += 16)
			madvise(self->mem + ((k + i) % PAGES) * 4096, 4096,
				MADV_DONTNEED);
		progress(self->vm);
		EXPECT_GE(f.missing, before + PAGES / 16);
	}
	finish(self->vm, self->mem, t);
	EXPECT_EQ(0, gone);
	for (k = 0; k < PAGES; k++) {
		ASSERT_EQ(0xfeed0000 + k, ((u32 *)self->mem)[k * 1024 + 2]);
	}
}

TEST_F(guestmem, userfault_write_protected)
{
	struct faults f = {};
	pthread_t t[2];
	u32 i, k;

	madvise(self->mem, BYTES, MADV_NOHUGEPAGE);
	memset(self->mem, 0, BYTES);
	if (!userfault(&f, self->mem, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
		       UFFDIO_REGISTER_MODE_WP))
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 10; i++) {
		struct uffdio_writeprotect w = {
			.range = { (u64)self->mem, BYTES },
			.mode = UFFDIO_WRITEPROTECT_MODE_WP,
		};
		u32 before = f.protected;

		must(ioctl(f.fd, UFFDIO_WRITEPROTECT, &w));
		progress(self->vm);
		/* each page's first write was asked for */
		EXPECT_GE(f.protected, before + PAGES);
	}
	finish(self->vm, self->mem, t);
	EXPECT_EQ(0, gone);
	EXPECT_EQ(0, guest_var(self->vm, zeroes));
	for (k = 0; k < PAGES; k++) {
		ASSERT_EQ(0, ((u32 *)self->mem)[k * 1024 + 2]);
	}
}

/*
 * Who waits for a page that nobody brings can be interrupted, and waits anew.
 * kvm.ko learnt that later.
 */
static void on_signal(int sig)
{
}

static void *interrupted_thread(void *arg)
{
	struct vcpu *v = arg;

	v->tid = gettid();
	v->result = ioctl(v->fd, KVM_RUN, 0) ? errno : 0;
	v->tid = 0;
	return NULL;
}

static void reader(u64 arg)
{
	guest_done(*(volatile u32 *)(GPA + 8));
}

TEST_F(guestmem, userfault_interrupted)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register r = { .range = { (u64)self->mem, BYTES }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_copy c = { .dst = (u64)self->mem, .len = 4096 };
	struct sigaction sa = { .sa_handler = on_signal };
	struct vcpu *v = self->v[0];
	static u32 page[1024];
	struct uffd_msg m;
	pthread_t t;
	int fd, i, k;

	madvise(self->mem, BYTES, MADV_NOHUGEPAGE);
	fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &r))
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	vcpu_long(v, reader, 0);
	sigaction(SIGUSR1, &sa, NULL);
	for (i = 0; i < 3; i++) {
		v->tid = 0;
		pthread_create(&t, NULL, interrupted_thread, v);
		ASSERT_EQ(sizeof(m), read(fd, &m, sizeof(m)));
		pthread_kill(t, SIGUSR1);
		for (k = 0; k < 500 && v->tid; k++)
			sleep_ms(10);
		if (v->tid) {		/* let it go, whoever it is */
			must(ioctl(fd, UFFDIO_COPY, &c));
			pthread_join(t, NULL);
			if (fd_stat(self->vm->fd, "table_pages") == NO_STAT)
				SKIP(return, "this hypervisor waits on");
		}
		ASSERT_EQ(0, v->tid);
		pthread_join(t, NULL);
		EXPECT_EQ(EINTR, v->result);
		EXPECT_EQ(KVM_EXIT_INTR, v->run->exit_reason);
	}
	page[2] = 0xfeed;
	c.src = (u64)page;
	must(ioctl(fd, UFFDIO_COPY, &c));
	EXPECT_EQ(0xfeed, vcpu_done(v));
	close(fd);
}

/* What a file of /sys or /proc says, and saying it */
static long sys_get(const char *path)
{
	FILE *f = fopen(path, "r");
	long v = -1;

	if (f) {
		if (fscanf(f, "%ld", &v) != 1)
			v = -1;
		fclose(f);
	}
	return v;
}

static bool sys_set(const char *path, const char *fmt, ...)
{
	int fd = open(path, O_WRONLY);
	va_list ap;
	bool ok;

	if (fd < 0)
		return false;
	va_start(ap, fmt);
	ok = vdprintf(fd, fmt, ap) > 0;
	va_end(ap);
	close(fd);
	return ok;
}

static long vmstat(const char *name)
{
	FILE *f = fopen("/proc/vmstat", "r");
	char word[64];
	long n = -1, v;

	while (f && fscanf(f, "%63s %ld", word, &v) == 2)
		if (!strcmp(word, name))
			n = v;
	if (f)
		fclose(f);
	return n;
}

/*
 * Tables to map memory with can be taken away at any time.  One page every
 * 2 MiB: each has a table of its own.
 */
#define SPARSE		256
#define SPARSE_GPA	0x40000000UL
#define SPARSE_STEP	0x200000UL

static void sparse_guest(u64 id)
{
	static u32 last[2][SPARSE];
	u32 n = 0, i;

	while (!quit) {
		n++;
		for (i = 0; i < SPARSE; i++) {
			volatile u32 *p = (u32 *)(SPARSE_GPA + i * SPARSE_STEP) + id;

			guest_eq(*p, last[id][i]);
			*p = last[id][i] = n << 16 | i;
		}
		rounds[id] = n;
	}
	guest_done(0);
}

static void sparse_start(struct vm *vm, struct vcpu **v, pthread_t *t)
{
	u8 *mem = mem_alloc(SPARSE * SPARSE_STEP);
	int i;

	madvise(mem, SPARSE * SPARSE_STEP, MADV_NOHUGEPAGE);
	vm_slot(vm, 1, SPARSE_GPA, SPARSE * SPARSE_STEP, mem, 0);
	for (i = 0; i < 2; i++) {
		vcpu_long(v[i], sparse_guest, i);
		pthread_create(&t[i], NULL, patient_thread, v[i]);
	}
	progress(vm);
}

static void sparse_finish(struct vm *vm, pthread_t *t)
{
	int i;

	guest_var(vm, quit) = 1;
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

TEST_F_TIMEOUT(guestmem, tables_given_back, 100)
{
	int fd = self->vm->fd, i;
	u64 faults;
	pthread_t t[2];

	if (fd_stat(fd, "table_pages") == NO_STAT)
		SKIP(return, "this hypervisor does not count its tables");
	sparse_start(self->vm, self->v, t);
	EXPECT_LT(SPARSE, fd_stat(fd, "table_pages"));
	faults = vcpu_stat(self->v[0], "page_faults");
	/* the guest makes them again at once */
	for (i = 0; i < 40; i++) {
		if (!sys_set("/proc/sys/vm/drop_caches", "2\n"))
			SKIP(return, "drop_caches: %s", strerror(errno));
		progress(self->vm);
	}
	sparse_finish(self->vm, t);
	EXPECT_LT(faults + SPARSE / 2, vcpu_stat(self->v[0], "page_faults"));
	/* now it does not */
	for (i = 0; i < 40 && fd_stat(fd, "table_pages") > 16; i++)
		sys_set("/proc/sys/vm/drop_caches", "2\n");
	EXPECT_GE(16, fd_stat(fd, "table_pages"));
}

TEST_F_TIMEOUT(guestmem, tables_limited, 100)
{
	int fd = self->vm->fd, i;
	u64 most = 0, now;
	pthread_t t[2];

	NEED_CAP(self->vm, KVM_CAP_MMU_SHADOW_CACHE_CONTROL);
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_NR_MMU_PAGES, 63UL));
	EXPECT_EQ(0, xioctl(fd, KVM_SET_NR_MMU_PAGES, 64UL));
	EXPECT_EQ(64, xioctl(fd, KVM_GET_NR_MMU_PAGES, 0UL));
	sparse_start(self->vm, self->v, t);
	for (i = 0; i < 20; i++) {
		now = fd_stat(fd, "table_pages");
		most = now > most ? now : most;
		sleep_ms(10);
	}
	/* room for all of them, and then no more */
	EXPECT_EQ(0, xioctl(fd, KVM_SET_NR_MMU_PAGES, 1000UL));
	progress(self->vm);
	if (most != NO_STAT) {
		/* Each takes four at once after a look, and once more when the other has yet to free what it took away. */
		EXPECT_GE(64 + 12, most);
		EXPECT_LT(SPARSE, fd_stat(fd, "table_pages"));
	}
	sparse_finish(self->vm, t);
	EXPECT_EQ(0, xioctl(fd, KVM_SET_NR_MMU_PAGES, 64UL));
	if (most != NO_STAT)
		EXPECT_GE(64, fd_stat(fd, "table_pages"));
}

/*
 * One page of memory in a thousand places: there is a table for each.  They are the VMM's: its cgroup has them, and where
 * that has no room for one more the VM's own are given back, and nobody is killed.
 */
#define PLACES	1024
#define CGROUP	"/sys/fs/cgroup/"

static void places_guest(u64 rounds)
{
	u32 i, n;

	for (n = 1; n <= rounds; n++) {
		*(volatile u32 *)SPARSE_GPA = n;
		for (i = 0; i < PLACES; i++)
			guest_eq(*(volatile u32 *)(SPARSE_GPA + i * SPARSE_STEP), n);
	}
	guest_done(0);
}

static void places_start(struct vm *vm, struct vcpu *v, u64 rounds)
{
	u8 *mem = mem_alloc(0x1000);
	u32 i;

	mem[0] = 1;
	for (i = 0; i < PLACES; i++)
		vm_slot(vm, 1 + i, SPARSE_GPA + i * SPARSE_STEP, 0x1000, mem, 0);
	vcpu_long(v, places_guest, rounds);
}

TEST_F(guestmem, tables_are_told_of)
{
	long before = vmstat("nr_sec_page_table_pages"), after;

	if (before < 0)
		SKIP(return, "this kernel does not tell of such tables");
	places_start(self->vm, self->v[0], 1);
	vcpu_done(self->v[0]);
	/* each CPU keeps some that it has not told yet */
	after = vmstat("nr_sec_page_table_pages");
	EXPECT_LE(before + PLACES / 2, after);
	vcpu_free(self->v[0]);
	vcpu_free(self->v[1]);
	vm_free(self->vm);
	EXPECT_GE(before + PLACES / 4, vmstat("nr_sec_page_table_pages"));
	self->vm = vm_new(VM_PLAIN);
}

TEST_F_TIMEOUT(guestmem, tables_in_a_full_cgroup, 100)
{
	sys_set(CGROUP "cgroup.subtree_control", "+memory");
	mkdir(CGROUP "full", 0755);
	places_start(self->vm, self->v[0], 3);
	if (!sys_set(CGROUP "full/memory.max", "%d", 2 << 20) || !sys_set(CGROUP "full/cgroup.procs", "%d", getpid()))
		SKIP(return, "no memory cgroup: %s", strerror(errno));
	vcpu_done(self->v[0]);
	sys_set(CGROUP "full/memory.max", "max");
	if (fd_stat(self->vm->fd, "table_pages") != NO_STAT)
		EXPECT_GT(PLACES, fd_stat(self->vm->fd, "table_pages"));
	sys_set(CGROUP "cgroup.procs", "%d", getpid());
	rmdir(CGROUP "full");
}

/*
 * The host learns which pages a guest uses: short of memory it takes others
 * first.  These are the first that were touched, and would be the first to go.
 */
#define HOT	256

static void hot_guest(u64 pages)
{
	volatile u32 *p = (u32 *)SPARSE_GPA;
	u32 i;

	for (i = 0; i < pages; i++)
		p[i * 1024] = i;
	while (!quit) {
		for (i = 0; i < HOT; i++)
			guest_eq(p[i * 1024], i);
		/* what is in a TLB sets no accessed bit */
		write_cr3(read_cr3());
		rounds[0]++;
	}
	for (i = 0; i < pages; i++)
		guest_eq(p[i * 1024], i);
	guest_done(0);
}

TEST_F_TIMEOUT(guestmem, used_pages_stay, 200)
{
	const u32 pages = 24 << 8;
	unsigned char *in = malloc(pages);
	bool limited = false;
	u32 cold = 0, i;
	long back = 0;
	pthread_t t;
	u8 *mem;

	if (system("grep -q zram /proc/swaps || { modprobe zram num_devices=1 && echo 256M > /sys/block/zram0/disksize &&"
		   " mkswap /dev/zram0 && swapon /dev/zram0; } > /dev/null 2>&1"))
		SKIP(return, "no zram to swap to");
	sys_set(CGROUP "cgroup.subtree_control", "+memory");
	mkdir(CGROUP "hot", 0755);
	if (!sys_set(CGROUP "hot/cgroup.procs", "%d", getpid()))
		SKIP(return, "no memory cgroup: %s", strerror(errno));
	mem = mem_alloc(pages * 4096);
	madvise(mem, pages * 4096, MADV_NOHUGEPAGE);
	vm_slot(self->vm, 1, SPARSE_GPA, pages * 4096, mem, 0);
	vcpu_long(self->v[0], hot_guest, pages);
	pthread_create(&t, NULL, patient_thread, self->v[0]);
	ASSERT_TRUE(wait_for(&guest_var(self->vm, rounds)[0], 10, 30000));
	/*
	 * In steps, so that the guest can say in between what it uses.  In the
	 * first the host may look at a page twice before the guest has run.
	 */
	for (i = 0; i < 12; i++) {
		u32 r = guest_var(self->vm, rounds)[0];

		limited = sys_set(CGROUP "hot/memory.reclaim", "256K");
		ASSERT_TRUE(wait_for(&guest_var(self->vm, rounds)[0], r + 3, 30000));
		if (!i)
			back = vmstat("pswpin");
	}
	back = vmstat("pswpin") - back;
	must(mincore(mem, pages * 4096, in));
	for (i = HOT; i < pages; i++)
		cold += in[i] & 1;
	guest_var(self->vm, quit) = 1;
	pthread_join(t, NULL);
	sys_set(CGROUP "cgroup.procs", "%d", getpid());
	rmdir(CGROUP "hot");
	free(in);
	if (!limited && cold == pages - HOT)
		SKIP(return, "this kernel cannot be asked to reclaim");
	/* those in use would have come back at once */
	TH_LOG("%u of %u others are there, %ld pages had to come back", cold, pages - HOT, back);
	EXPECT_LT(cold, (pages - HOT) * 7 / 8);
	EXPECT_GT(HOT / 4, back);
}

/*
 * Pages that are all alike, but the one that is being written: what the host
 * has merged must come apart again, for this page alone.
 */
#define ALIKE	0x5a5a1234

static void merged_guest(u64 id)
{
	volatile u32 *p = (u32 *)GPA;
	u32 i, n = id * 100;

	while (!quit) {
		/* each its half to write, all to read; what the other one changes is beside */
		u32 mine = n++ % (PAGES / 2) + id * (PAGES / 2);

		p[mine * 1024 + id] = n;
		for (i = 0; i < PAGES; i++) {
			guest_eq(p[i * 1024 + id], i == mine ? n : ALIKE);
			guest_eq(p[i * 1024 + 512], ALIKE);
		}
		p[mine * 1024 + id] = ALIKE;
		rounds[id]++;
	}
	guest_done(0);
}

#define KSM	"/sys/kernel/mm/ksm/"

TEST_F_TIMEOUT(guestmem, merged, 120)
{
	long run = sys_get(KSM "run"), scan = sys_get(KSM "pages_to_scan"),
	     ms = sys_get(KSM "sleep_millisecs"), shared, most = 0;
	u64 enough = now_ns() + 30000000000ULL;	/* on a busy machine the six rounds take minutes */
	pthread_t t[2];
	u32 i, k;

	if (run < 0 || madvise(self->mem, BYTES, MADV_MERGEABLE))
		SKIP(return, "no KSM");
	madvise(self->mem, BYTES, MADV_NOHUGEPAGE);
	for (i = 0; i < BYTES / 4; i++)
		((u32 *)self->mem)[i] = ALIKE;
	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	for (i = 0; i < 2; i++) {
		vcpu_long(self->v[i], merged_guest, i);
		pthread_create(&t[i], NULL, patient_thread, self->v[i]);
	}
	sys_set(KSM "pages_to_scan", "1000");
	sys_set(KSM "sleep_millisecs", "1");
	for (i = 0; i < 6; i++) {
		/* merged, and every other time all taken apart by the host */
		sys_set(KSM "run", "1");
		for (k = 0; k < 200; k++) {
			shared = sys_get(KSM "pages_sharing");
			most = shared > most ? shared : most;
			if (shared > PAGES / 2)
				break;
			sleep_ms(50);
		}
		progress(self->vm);
		if (i % 2)
			sys_set(KSM "run", "2");
		progress(self->vm);
		if (i % 2 && now_ns() > enough)
			break;
	}
	guest_var(self->vm, quit) = 1;
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	sys_set(KSM "run", "%ld", run);
	sys_set(KSM "pages_to_scan", "%ld", scan);
	sys_set(KSM "sleep_millisecs", "%ld", ms);
	for (i = 0; i < BYTES / 4; i++) {
		ASSERT_EQ(ALIKE, ((u32 *)self->mem)[i]);
	}
	EXPECT_GT(most, PAGES / 2);
}

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* Small pages made a huge one, and a huge one small ones, under the guest */
TEST_F(guestmem, collapsed_and_split)
{
	u32 i, k, collapsed = 0;
	pthread_t t[2];
	int err = 0;

	madvise(self->mem, BYTES, MADV_NOHUGEPAGE);
	memset(self->mem, 0, BYTES);
	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	madvise(self->mem, BYTES, MADV_HUGEPAGE);
	for (i = 0; i < 10; i++) {
		/* not while somebody holds a page */
		for (k = 0; k < 20; k++) {
			err = madvise(self->mem, BYTES, MADV_COLLAPSE) ? errno : 0;
			if (err != EAGAIN && err != EBUSY)
				break;
			sleep_ms(5);
		}
		collapsed += !err;
		if (err == EINVAL)
			break;
		progress(self->vm);
		/* where that is not to be had, a piece of another protection does half of it */
		if (!sys_set("/sys/kernel/debug/split_huge_pages", "%d,0x%lx,0x%lx",
			     getpid(), (u64)self->mem, (u64)self->mem + BYTES)) {
			mprotect(self->mem + 8 * 4096, 4096, PROT_READ);
			mprotect(self->mem + 8 * 4096, 4096, PROT_READ | PROT_WRITE);
		}
		progress(self->vm);
	}
	finish(self->vm, self->mem, t);
	EXPECT_EQ(0, guest_var(self->vm, zeroes));
	if (!collapsed && err == EINVAL)
		SKIP(return, "no MADV_COLLAPSE");
	EXPECT_GT(collapsed, 0);
}

/* Pages that move in the host's memory */
TEST_F(guestmem, compacted)
{
	pthread_t t[2];
	u32 i;

	vm_slot(self->vm, 1, GPA, BYTES, self->mem, 0);
	start(self->vm, self->v, t);
	for (i = 0; i < 5; i++) {
		if (!sys_set("/proc/sys/vm/compact_memory", "1"))
			break;
		progress(self->vm);
	}
	finish(self->vm, self->mem, t);
	EXPECT_EQ(0, guest_var(self->vm, zeroes));
	if (i < 5)
		SKIP(return, "no compaction");
}

TEST_HARNESS_MAIN
