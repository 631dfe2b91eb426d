// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the tables say that translate a guest's memory for the CPU: who may
 * execute a page of which size, and of what type the memory is.  Emulators do
 * without caches and do not mind, so the entries themselves are looked at, as
 * the trace event keel_map tells them.
 */
#define _GNU_SOURCE
#include "test.h"

#include <linux/io_uring.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define GPA	0x40000000UL
#define LARGE	0x200000UL
#define NR	4

#define INSTANCE	"/sys/kernel/tracing/instances/tables"
#define MOST		4096

/* One entry written */
struct entry {
	bool shadow;
	u64 addr, pte;
	unsigned int level;
};

FIXTURE(tables) {
	struct vm *vm;
	struct vcpu *v;
	struct entry *e;
	int nr;
	bool amd, shadow;
};

/* A word of a file, or "" */
static const char *word(const char *path)
{
	static char text[64];
	FILE *f = fopen(path, "r");

	text[0] = 0;
	if (f && fscanf(f, "%63s", text) != 1)
		text[0] = 0;
	if (f)
		fclose(f);
	return text;
}

static bool contains(const char *path, const char *what)
{
	static char text[65536];
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	if (f)
		fclose(f);
	text[n] = 0;
	return strstr(text, what);
}

/* false: there is no such event */
static bool trace_on(void)
{
	mkdir(INSTANCE, 0755);
	return file_write(INSTANCE "/trace", "") && file_write(INSTANCE "/events/keel/keel_map/enable", "1");
}

FIXTURE_SETUP(tables)
{
	self->amd = guest_is_amd();
	self->shadow = shadow_paging();
	self->e = calloc(MOST, sizeof(*self->e));
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(tables)
{
	file_write(INSTANCE "/events/keel/keel_map/enable", "0");
	rmdir(INSTANCE);
	vm_free(self->vm);
	free(self->e);
}

/* What was written since, of [from, to) */
static void trace_read(FIXTURE_DATA(tables) *self, u64 from, u64 to)
{
	FILE *f = fopen(INSTANCE "/trace", "r");
	char line[512];

	while (f && fgets(line, sizeof(line), f) && self->nr < MOST) {
		char *p = strstr(line, "keel_map:"), kind[4];
		struct entry *e = &self->e[self->nr];

		if (!p || sscanf(p, "keel_map: vcpu %*u %3s 0x%lx level %u entry 0x%lx", kind, &e->addr, &e->level,
				 &e->pte) != 4)
			continue;
		e->shadow = !strcmp(kind, "gva");
		if (e->addr >= from && e->addr < to)
			self->nr++;
	}
	if (f)
		fclose(f);
}

/* SDM 28.3.2 and APM 5.4: of EPT, or of page tables, which NPT is as well */
static bool is_ept(const FIXTURE_DATA(tables) *self, const struct entry *e)
{
	return !self->amd && !e->shadow;
}

static bool executable(const FIXTURE_DATA(tables) *self, const struct entry *e)
{
	return is_ept(self, e) ? e->pte & 4 : !(e->pte >> 63);
}

enum { WB, UC, OTHER };

static int type(const FIXTURE_DATA(tables) *self, const struct entry *e)
{
	unsigned int bits;

	if (is_ept(self, e)) {
		bits = e->pte >> 3 & 15;		/* type, "ignore PAT" */
		return bits == (6 | 8) ? WB : bits == 0 ? UC : OTHER;
	}
	bits = e->pte >> 3 & 3;				/* PWT, PCD */
	return bits == 0 ? WB : bits == 2 ? UC : OTHER;	/* UC-: but for WC of the guest's or of an MTRR */
}

/* -------------------------------------------------- large pages that are executed */

/* As large a page as the host has */
static u8 *huge_alloc(size_t size)
{
	u8 *p = mem_alloc(size + LARGE);

	p = (u8 *)(((u64)p + LARGE - 1) & ~(LARGE - 1));
	madvise(p, size, MADV_HUGEPAGE);
	return p;
}

static void execute_guest(u64 arg)
{
	u32 i, round;

	/* as data first, then as code, and both of it again */
	for (i = 0; i < NR; i++)
		*(volatile u32 *)(GPA + i * LARGE + 0x1000) = i;
	guest_sync(0);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < NR; i++) {
			u32 (*fn)(void) = (void *)(GPA + i * LARGE + 0x3000 * i);

			guest_eq(fn(), 100 + i);
			*(volatile u32 *)(GPA + i * LARGE + 0x1000) = i;
			guest_eq(fn(), 100 + i);
		}
	}
	guest_sync(1);
	/* written while writes are logged, first after a fetch */
	for (i = 0; i < NR; i++) {
		u32 (*fn)(void) = (void *)(GPA + i * LARGE + 0x3000 * i);

		guest_eq(fn(), 100 + i);
		*(volatile u32 *)(GPA + i * LARGE + 0x5000) = i;
	}
	guest_done(0);
}

static void execute_memory(u8 *mem)
{
	int i;

	memset(mem, 0, NR * LARGE);
	for (i = 0; i < NR; i++) {
		static const u8 code[] = { 0xb8, 100, 0, 0, 0, 0xc3 };	/* mov $100 + i, %eax; ret */
		u8 *p = mem + i * LARGE + 0x3000 * i;

		memcpy(p, code, sizeof(code));
		p[1] += i;
	}
}

/* Must large pages be kept from being executed?  As mmu/tdp.c says it decides that. */
static bool nx_large(void)
{
	const char *given = word("/sys/module/keel/parameters/nx_large");

	if (strcmp(given, "auto"))
		return given[0] == 'y' || given[0] == 'Y' || given[0] == '1' || !strcmp(given, "on");
	return contains("/proc/cpuinfo", "itlb_multihit") &&
	       contains("/sys/devices/system/cpu/vulnerabilities/itlb_multihit", "KVM") &&
	       !contains("/proc/cmdline", "mitigations=off");
}

TEST_F(tables, execute_from_large_pages)
{
	u8 *mem = huge_alloc(NR * LARGE);
	int fd = self->vm->fd, i, small = 0, large = 0;
	struct vcpu *v = self->v;
	u64 had, have, faults, bitmap[NR * LARGE / 4096 / 64];
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bitmap };
	bool nx = nx_large();

	if (fd_stat(fd, "pages_2m") == NO_STAT || !trace_on())
		SKIP(return, "this hypervisor does not tell what it maps");
	execute_memory(mem);
	vm_slot(self->vm, 1, GPA, NR * LARGE, mem, 0);
	had = fd_stat(fd, "pages_2m");
	vcpu_long(v, execute_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	have = fd_stat(fd, "pages_2m");
	if (have < had + NR)
		SKIP(return, "the host has no large pages here");
	had = fd_stat(fd, "pages_4k");
	faults = vcpu_stat(v, "page_faults");
	EXPECT_EQ(1, vcpu_sync(v));
	/* small for good at the first fetch; not at all where that need not be */
	TH_LOG("large pages are %sexecutable", nx ? "not " : "");
	EXPECT_GE(have - (nx ? NR : 0), fd_stat(fd, "pages_2m"));
	EXPECT_LE(had + (nx ? NR * 511 : 0), fd_stat(fd, "pages_4k"));
	EXPECT_GE(faults + 64, vcpu_stat(v, "page_faults"));

	vm_slot(self->vm, 1, GPA, NR * LARGE, mem, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_done(v);
	must(ioctl(fd, KVM_GET_DIRTY_LOG, &log));
	for (i = 0; i < NR; i++)
		EXPECT_TRUE(bitmap[i * 512 / 64] & 1 << 5);

	trace_read(self, GPA, GPA + NR * LARGE);
	for (i = 0; i < self->nr; i++) {
		const struct entry *e = &self->e[i];

		EXPECT_EQ(WB, type(self, e));
		large += e->level > 1;
		small += e->level == 1 && executable(self, e);
		/* not both: a large page, and executable */
		EXPECT_EQ(!nx || e->level == 1, executable(self, e));
	}
	EXPECT_LE(NR, large);
	EXPECT_LE(NR, small);
}

/*
 * The same where writes are logged while the page is still large: each page that
 * the first fetch makes of it tells of its own first write.
 */
static void split_guest(u64 arg)
{
	u32 (*fn)(void) = (void *)GPA;

	*(volatile u32 *)(GPA + 0x1000) = 1;
	guest_sync(0);
	guest_eq(fn(), 100);
	*(volatile u32 *)(GPA + 0x6000) = 2;
	guest_done(0);
}

TEST_F(tables, split_while_logged)
{
	u8 *mem = huge_alloc(NR * LARGE);
	u64 bitmap[NR * LARGE / 4096 / 64];
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bitmap };

	execute_memory(mem);
	vm_slot(self->vm, 1, GPA, NR * LARGE, mem, 0);
	vcpu_long(self->v, split_guest, 0);
	EXPECT_EQ(0, vcpu_sync(self->v));
	vm_slot(self->vm, 1, GPA, NR * LARGE, mem, KVM_MEM_LOG_DIRTY_PAGES);
	must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
	vcpu_done(self->v);
	must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
	EXPECT_EQ(1 << 6, bitmap[0]);
}

/* -------------------------------------------------- memory that is none, and memory that is */

static void read_guest(u64 count)
{
	volatile u32 *p = (u32 *)GPA;
	u32 i, sum = 0;

	for (i = 0; i < count; i++)
		sum += p[i * 1024];
	guest_done(sum & 0xff);
}

static void write_guest(u64 count)
{
	volatile u32 *p = (u32 *)GPA;
	u32 i;

	for (i = 0; i < count; i++)
		p[i * 1024] = p[i * 1024];
	guest_done(0);
}

/* All entries for the page at GPA are of that type, and there is one; with shadow paging also the CPU's */
#define expect_type(self, want) do {					\
	int i__, n__ = 0, shadow__ = 0;					\
									\
	trace_read(self, GPA, GPA + 0x1000);				\
	for (i__ = 0; i__ < self->nr; i__++) {				\
		EXPECT_EQ(want, type(self, &self->e[i__]))		\
			TH_LOG("entry %lx", self->e[i__].pte);		\
		n__ += !self->e[i__].shadow;				\
		shadow__ += self->e[i__].shadow;			\
	}								\
	EXPECT_LE(1, n__);						\
	if (self->shadow)						\
		EXPECT_LE(1, shadow__);					\
} while (0)

/* The video memory of old, which each PC has and no struct page describes */
static u8 *device_map(void)
{
	int fd = open("/dev/mem", O_RDWR);
	u8 *p;

	if (fd < 0)
		return NULL;
	p = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xa0000);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

TEST_F(tables, device)
{
	u8 *p = device_map();

	if (!p)
		SKIP(return, "no device memory through /dev/mem: %s", strerror(errno));
	if (!trace_on())
		SKIP(return, "this hypervisor does not tell what it maps");
	vm_slot(self->vm, 1, GPA, 0x10000, p, 0);
	vcpu_long(self->v, read_guest, 16);
	vcpu_done(self->v);
	expect_type(self, UC);
}

/* What a write finds there, mapped for reading before, is of the same type */
TEST_F(tables, device_written)
{
	u8 *p = device_map();

	if (!p)
		SKIP(return, "no device memory through /dev/mem: %s", strerror(errno));
	if (!trace_on())
		SKIP(return, "this hypervisor does not tell what it maps");
	vm_slot(self->vm, 1, GPA, 0x10000, p, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_long(self->v, write_guest, 16);
	vcpu_done(self->v);
	expect_type(self, UC);
}

/* RAM, but mapped as a device's memory would be: this kernel's io_uring may do so (up to 6.9) */
TEST_F(tables, memory_without_references)
{
	struct io_uring_params params = {};
	int fd = syscall(SYS_io_uring_setup, 64, &params);
	u8 *p;

	if (fd < 0)
		SKIP(return, "no io_uring: %s", strerror(errno));
	if (!trace_on())
		SKIP(return, "this hypervisor does not tell what it maps");
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
	ASSERT_NE(MAP_FAILED, p);
	*(u32 *)p = 77;
	vm_slot(self->vm, 1, GPA, 4096, p, 0);
	vcpu_long(self->v, read_guest, 1);
	EXPECT_EQ(77, vcpu_done(self->v));
	expect_type(self, WB);
	close(fd);
}

TEST_F(tables, ordinary)
{
	if (!trace_on())
		SKIP(return, "this hypervisor does not tell what it maps");
	vm_slot(self->vm, 1, GPA, 0x10000, mem_alloc(0x10000), 0);
	vcpu_long(self->v, write_guest, 16);
	vcpu_done(self->v);
	expect_type(self, WB);
}

TEST_HARNESS_MAIN
