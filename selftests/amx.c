// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMX: tiles, for which the state of the FPU is larger than a page; a process has to ask for them. And extended feature
 * disable (XFD), with which a kernel learns who needs them.
 *
 * What the guest does with tiles is two instructions: their configuration and all eight of them are loaded and stored.
 */
#include "test.h"
#include "snap.h"

#include <asm/prctl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef ARCH_REQ_XCOMP_PERM
#define ARCH_REQ_XCOMP_PERM		0x1023
#endif
#ifndef ARCH_REQ_XCOMP_GUEST_PERM
#define ARCH_REQ_XCOMP_GUEST_PERM	0x1025
#endif
#ifndef MSR_IA32_XFD
#define MSR_IA32_XFD		0x1c4
#define MSR_IA32_XFD_ERR	0x1c5
#endif

#define XTILECFG	17
#define XTILEDATA	18
#define CFG_BIT		(1UL << XTILECFG)
#define DATA_BIT	(1UL << XTILEDATA)
#define TILE_BITS	(CFG_BIT | DATA_BIT)
#define XCR0_TILES	(3 | TILE_BITS)
#define XSTATE_BV	(512 / 8)
#define CR4_OSXSAVE	(1UL << 18)

#define NM	((long)NM_VEC)

/* Palette 1: eight tiles of 16 rows of 64 bytes */
#define TILE	1024
#define TILES	(8 * TILE)
static u8 config[64] __attribute__((aligned(64))) = {
	[0] = 1,
	[16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
	[48] = 16, 16, 16, 16, 16, 16, 16, 16,
};
static u8 tiles[2][TILES] __attribute__((aligned(64)));

static long ask(long option)
{
	return syscall(SYS_arch_prctl, option, XTILEDATA) ? -errno : 0;
}

static bool is_keel(struct vm *vm)
{
	struct keel_info info;

	return !ioctl(vm->fd, KEEL_GET_INFO, &info);
}

/* ---- what guests and the test itself do with tiles ---- */

#define EACH_TILE(op)	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)
#define LOAD_TILE(n)	"tileloadd " #n "*1024(%0,%1,1),%%tmm" #n "\n"
#define STORE_TILE(n)	"tilestored %%tmm" #n "," #n "*1024(%0,%1,1)\n"

guest_always void configure(void)
{
	asm volatile("ldtilecfg %0" :: "m"(config));
}

guest_always void load(const u8 *b)
{
	asm volatile(EACH_TILE(LOAD_TILE) :: "r"(b), "r"(64L) : "memory");
}

guest_always void store(u8 *b)
{
	asm volatile(EACH_TILE(STORE_TILE) :: "r"(b), "r"(64L) : "memory");
}

#define PATTERN(seed, i)	(((seed) * 0x1001UL + (i)) * 0x9e3779b97f4a7c15UL)

static void fill(u8 *b, u32 seed)
{
	u32 i;

	for (i = 0; i < TILES / 8; i++)
		((u64 *)b)[i] = PATTERN(seed, i);
}

/* Where @b is not what fill(@seed) gave: or -1 */
static long differ(const u8 *b, u32 seed)
{
	u32 i;

	for (i = 0; i < TILES / 8; i++)
		if (((const u64 *)b)[i] != PATTERN(seed, i))
			return i * 8;
	return -1;
}

static void xsetbv(u64 v)
{
	asm volatile("xsetbv" :: "a"((u32)v), "d"((u32)(v >> 32)), "c"(0));
}

/* Of the tiles, what is in use */
static u64 in_use(void)
{
	u32 lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
	return (lo | (u64)hi << 32) & TILE_BITS;
}

static void tiles_on(void)
{
	write_cr4(read_cr4() | CR4_OSXSAVE);
	xsetbv(XCR0_TILES);
}

/* ---- who may have them ---- */

static void no_tiles_guest(u64 arg)
{
	guest_eq(rdmsr_try(MSR_IA32_XFD, &(u64){ 0 }), GP0);
	guest_eq(wrmsr_try(MSR_IA32_XFD, 0), GP0);
	guest_eq(rdmsr_try(MSR_IA32_XFD_ERR, &(u64){ 0 }), GP0);
	write_cr4(read_cr4() | CR4_OSXSAVE);
	guest_eq(guest_try("xsetbv", "a"((u32)XCR0_TILES), "d"(0), "c"(0)), GP0);
	guest_eq(guest_try("ldtilecfg %1", "m"(config)), UD);
	guest_done(0);
}

static u64 listed(struct vm *vm, u32 msr)
{
	struct kvm_msr_list *l = mem_alloc(4096 * 4);
	u32 i;

	l->nmsrs = 4000;
	must(ioctl(vm->sys, KVM_GET_MSR_INDEX_LIST, l));
	for (i = 0; i < l->nmsrs; i++)
		if (l->indices[i] == msr)
			return 1;
	return 0;
}

/* On all CPUs: those without tiles are as those whose process has not asked. */
TEST(not_asked)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct kvm_cpuid_entry2 *d = cpuid_find(vm->cpuid, 0xd, 0);
	struct kvm_xsave *x = mem_alloc(16384);
	struct vcpu *v;
	u64 val = 1;

	NEED_CAP(vm, KVM_CAP_XSAVE);
	if (!d || !(d->eax & 2))
		SKIP(return, "no XSAVE");
	/* Before Linux 6.4 kvm.ko shows their configuration. */
	if (is_keel(vm)) {
		EXPECT_EQ(0, d->eax & CFG_BIT);
		EXPECT_EQ(NULL, cpuid_find(vm->cpuid, 0xd, XTILECFG));
	}
	EXPECT_EQ(0, d->eax & DATA_BIT);
	EXPECT_LE(d->ebx, 4096);
	EXPECT_EQ(4096, vm_cap(vm, KVM_CAP_XSAVE2));
	EXPECT_EQ(NULL, cpuid_find(vm->cpuid, 0xd, XTILEDATA));

	d->eax |= DATA_BIT;
	v = vcpu_bare(vm, 0);
	EXPECT_EQ(-EPERM, xioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	d->eax &= ~DATA_BIT;
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_XSAVE, x));
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_XSAVE2, x));
	((u64 *)x)[XSTATE_BV] |= DATA_BIT;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_XSAVE, x));
	/* The VMM's access needs no CPUID; but there is nothing to disable. */
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_XFD, &val));
	EXPECT_EQ(0, val);
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_XFD, 0));
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_IA32_XFD, DATA_BIT));
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_IA32_XFD_ERR, DATA_BIT));
	vcpu_free(v);
	/* A guest that is told of none of it, on a CPU that may have it */
	if (cpuid_find(vm->cpuid, 0xd, 1))
		cpuid_find(vm->cpuid, 0xd, 1)->eax &= ~(1 << 4);
	v = vcpu_new(vm, 1);
	vcpu_long(v, no_tiles_guest, 0);
	vcpu_done(v);
	vm_free(vm);
}

FIXTURE(amx) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(amx)
{
	long err = ask(ARCH_REQ_XCOMP_GUEST_PERM);
	struct kvm_cpuid_entry2 *d;

	if (err)
		SKIP_FIXTURE("no tiles for guests on this CPU: %s", strerror(-err));
	self->vm = vm_new(VM_PLAIN);
	d = cpuid_find(self->vm->cpuid, 0xd, 0);
	if (!d || !(d->eax & DATA_BIT))
		SKIP_FIXTURE("no tiles for guests of this module");
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(amx)
{
	vm_free(self->vm);
}

TEST_F(amx, offered)
{
	struct kvm_cpuid_entry2 *d = cpuid_find(self->vm->cpuid, 0xd, 0), *e;
	u64 supported = 0;
	struct kvm_device_attr a = { .attr = KVM_X86_XCOMP_GUEST_SUPP, .addr = (u64)&supported };

	EXPECT_EQ(TILE_BITS, d->eax & TILE_BITS);
	must(ioctl(self->vm->sys, KVM_GET_DEVICE_ATTR, &a));
	EXPECT_EQ(TILE_BITS, supported & TILE_BITS);
	EXPECT_EQ(d->ecx, vm_cap(self->vm, KVM_CAP_XSAVE2));
	EXPECT_LT(4096, d->ecx);
	e = cpuid_find(self->vm->cpuid, 0xd, 1);
	ASSERT_NE(NULL, e);
	EXPECT_EQ(1 << 4, e->eax & 1 << 4);
	e = cpuid_find(self->vm->cpuid, 0xd, XTILECFG);
	ASSERT_NE(NULL, e);
	EXPECT_EQ(64, e->eax);
	e = cpuid_find(self->vm->cpuid, 0xd, XTILEDATA);
	ASSERT_NE(NULL, e);
	EXPECT_EQ(TILES, e->eax);
	EXPECT_EQ(d->ecx, e->eax + e->ebx);
	EXPECT_EQ(4, e->ecx & 5);
	EXPECT_EQ(1 << 24, cpuid_find(self->vm->cpuid, 7, 0)->edx & 1 << 24);
	EXPECT_LE(0x1e, cpuid_find(self->vm->cpuid, 0, 0)->eax);
	e = cpuid_find(self->vm->cpuid, 0x1d, 1);
	ASSERT_NE(NULL, e);
	EXPECT_EQ(TILES, e->eax & 0xffff);
	EXPECT_EQ(TILE, e->eax >> 16);
	e = cpuid_find(self->vm->cpuid, 0x1e, 0);
	ASSERT_NE(NULL, e);
	EXPECT_NE(0, e->ebx);
	EXPECT_EQ(1, listed(self->vm, MSR_IA32_XFD));
	EXPECT_EQ(1, listed(self->vm, MSR_IA32_XFD_ERR));
}

static void xcr0_guest(u64 arg)
{
	u32 r[4];

	guest_eq(guest_try("ldtilecfg %1", "m"(config)), UD);
	write_cr4(read_cr4() | CR4_OSXSAVE);
	guest_eq(guest_try("ldtilecfg %1", "m"(config)), UD);
	guest_eq(guest_try("xsetbv", "a"((u32)(3 | CFG_BIT)), "d"(0), "c"(0)), GP0);
	guest_eq(guest_try("xsetbv", "a"((u32)(3 | DATA_BIT)), "d"(0), "c"(0)), GP0);
	cpuid(0xd, 0, r);
	guest_eq(r[1], 576);
	guest_eq(guest_try("xsetbv", "a"((u32)XCR0_TILES), "d"(0), "c"(0)), NO_FAULT);
	cpuid(0xd, 0, r);
	guest_eq(r[1], r[2]);
	guest_eq(in_use(), 0);
	guest_eq(guest_try("ldtilecfg %1", "m"(config)), NO_FAULT);
	guest_eq(in_use(), CFG_BIT);
	guest_done(0);
}

TEST_F(amx, xcr0)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value = 3 | CFG_BIT };

	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
	x.xcrs[0].value = 3 | DATA_BIT;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
	vcpu_long(self->v, xcr0_guest, 0);
	vcpu_done(self->v);
	must(ioctl(self->v->fd, KVM_GET_XCRS, &x));
	EXPECT_EQ(XCR0_TILES, x.xcrs[0].value);
}

/* ---- whose they are ---- */

static volatile u32 rounds;	/* goes to guests with the image */

static void keep_guest(u64 seed)
{
	u8 *b = tiles[seed & 1];
	u32 i, r[4];

	tiles_on();
	fill(b, seed);
	configure();
	load(b);
	for (i = 0; i < rounds; i++) {
		guest_sync(i);				/* to userspace */
		cpuid(0, 0, r);				/* in the kernel */
		(void)*(volatile u32 *)(HEAP_GPA + (i & 255) * 4096 + seed * 0x100000);
		store(b);
		guest_eq(differ(b, seed), (u64)-1);
		b[i % TILES]++;
	}
	guest_done(0);
}

#define ROUNDS	20

TEST_F(amx, kept_over_exits)
{
	struct vcpu *v[2] = { self->v, vcpu_new(self->vm, 1) };
	u32 i, k;

	rounds = ROUNDS;
	ASSERT_EQ(0, ask(ARCH_REQ_XCOMP_PERM));
	for (k = 0; k < 2; k++)
		vcpu_long(v[k], keep_guest, k + 2);
	configure();
	for (i = 0; i < ROUNDS; i++) {
		fill(tiles[0], i + 7);
		load(tiles[0]);
		for (k = 0; k < 2; k++) {
			EXPECT_EQ(i, vcpu_sync(v[k]));
		}
		store(tiles[1]);
		ASSERT_EQ(-1, differ(tiles[1], i + 7));
	}
	asm volatile("tilerelease");
	for (k = 0; k < 2; k++)
		vcpu_done(v[k]);
	EXPECT_EQ(0, in_use());
}

/*
 * A task with tiles of its own, and two vCPUs, on one CPU, until it has switched between them as often as AMX_SWITCHES
 * says: each looks at its tiles whenever it has been away.
 */
static volatile bool all_done;
static u64 wanted;

static u64 switches(void)
{
	struct rusage u;

	must(getrusage(RUSAGE_SELF, &u));
	return u.ru_nvcsw + u.ru_nivcsw;
}

static void *host_task(void *bad)
{
	static u8 b[2][TILES] __attribute__((aligned(64)));
	u32 seed;

	stay_on(0, 0);
	configure();
	for (seed = 100; !all_done; seed++) {
		fill(b[0], seed);
		load(b[0]);
		sched_yield();
		store(b[1]);
		if (differ(b[1], seed) >= 0)
			*(bool *)bad = true;
	}
	asm volatile("tilerelease");
	return NULL;
}

struct turns {
	struct vcpu *v;
	u32 n;
	bool bad;
};

static void *take_turns(void *arg)
{
	struct turns *t = arg;

	stay_on(0, 0);
	do {
		t->bad |= vcpu_sync(t->v) != t->n;
		sched_yield();
	} while (++t->n % 16 || switches() < wanted);
	return NULL;
}

TEST_F_TIMEOUT(amx, switches, 7000)
{
	struct turns t[2] = { { .v = self->v }, { .v = vcpu_new(self->vm, 1) } };
	u64 n = getenv("AMX_SWITCHES") ? atol(getenv("AMX_SWITCHES")) : 5000;
	pthread_t thread[2], host;
	bool bad = false;
	u32 k;

	rounds = -1;
	ASSERT_EQ(0, ask(ARCH_REQ_XCOMP_PERM));
	wanted = switches() + n;
	ASSERT_EQ(0, pthread_create(&host, NULL, host_task, &bad));
	for (k = 0; k < 2; k++) {
		vcpu_long(t[k].v, keep_guest, k + 2);
		ASSERT_EQ(0, pthread_create(&thread[k], NULL, take_turns, &t[k]));
	}
	for (k = 0; k < 2; k++) {
		pthread_join(thread[k], NULL);
		EXPECT_FALSE(t[k].bad);
	}
	all_done = true;
	pthread_join(host, NULL);
	EXPECT_FALSE(bad);
	TH_LOG("%lu switches, in which the vCPUs looked at their tiles %u and %u times", switches() - wanted + n, t[0].n,
	       t[1].n);
}

/* XFD of this thread, which has not asked for tiles, is the kernel's: guests leave it alone */
static void use_tiles(void)
{
	configure();
	asm volatile("tilezero %%tmm0" ::);
	_exit(0);
}

static int killed_by(void)
{
	int status;

	if (!fork())
		use_tiles();
	must(wait(&status));
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST_F(amx, hosts_xfd)
{
	int status;

	rounds = 2;
	EXPECT_EQ(SIGILL, killed_by());
	vcpu_long(self->v, keep_guest, 1);
	vcpu_sync(self->v);
	EXPECT_EQ(SIGILL, killed_by());
	/* this thread itself, with nothing in between; the guest had no tiles disabled */
	if (!fork()) {
		struct vcpu *v;

		vm_free(self->vm);
		self->vm = vm_new(VM_PLAIN);
		v = vcpu_new(self->vm, 0);
		vcpu_long(v, keep_guest, 1);
		vcpu_sync(v);
		use_tiles();
	}
	must(wait(&status));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
}

/* ---- XFD ---- */

static long try_tile(void)
{
	return guest_try("tilezero %%tmm1", "a"(0));
}

static void xfd_guest(u64 keel)
{
	u8 *b = tiles[0];
	u32 r[4];

	guest_eq(rdmsr(MSR_IA32_XFD), 0);
	guest_eq(wrmsr_try(MSR_IA32_XFD, CFG_BIT), GP0);
	guest_eq(wrmsr_try(MSR_IA32_XFD, 1UL << 63), GP0);
	guest_eq(wrmsr_try(MSR_IA32_XFD_ERR, CFG_BIT), GP0);
	tiles_on();
	fill(b, 5);
	configure();
	load(b);
	wrmsr(MSR_IA32_XFD, DATA_BIT);
	guest_eq(rdmsr(MSR_IA32_XFD), DATA_BIT);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), 0);
	guest_eq(try_tile(), NM);
	guest_sync(1);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), DATA_BIT);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), 0);
	/* it is about CR0.TS */
	write_cr0(read_cr0() | X86_CR0_TS);
	guest_eq(guest_try("movaps %%xmm0,%%xmm0", "a"(0)), NM);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), 0);
	write_cr0(read_cr0() & ~X86_CR0_TS);
	cpuid(0, 0, r);
	/* disabled they are not lost: kvm.ko's would be, with its exits */
	guest_sync(2);
	wrmsr(MSR_IA32_XFD, 0);
	if (keel) {
		store(b);
		guest_eq(differ(b, 5), (u64)-1);
	}
	wrmsr(MSR_IA32_XFD, DATA_BIT);
	guest_eq(try_tile(), NM);
	guest_sync(3);
	/* both are what the VMM has made of them */
	guest_eq(rdmsr(MSR_IA32_XFD), 0);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), 0);
	guest_eq(try_tile(), NO_FAULT);
	guest_sync(4);
	guest_eq(try_tile(), NM);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), DATA_BIT);
	guest_done(0);
}

TEST_F(amx, xfd)
{
	u64 val;

	vcpu_long(self->v, xfd_guest, is_keel(self->vm));
	EXPECT_EQ(1, vcpu_sync(self->v));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_XFD, &val));
	EXPECT_EQ(DATA_BIT, val);
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_XFD_ERR, &val));
	EXPECT_EQ(DATA_BIT, val);
	EXPECT_EQ(2, vcpu_sync(self->v));
	EXPECT_EQ(3, vcpu_sync(self->v));
	EXPECT_EQ(0, vcpu_set_msr(self->v, MSR_IA32_XFD, CFG_BIT));
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_XFD, 0));
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_XFD_ERR, 0));
	EXPECT_EQ(4, vcpu_sync(self->v));
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_XFD, DATA_BIT));
	vcpu_done(self->v);
}

/* ---- seen and set from outside ---- */

static void outside_guest(u64 arg)
{
	u8 *b = tiles[0];

	tiles_on();
	guest_eq(in_use(), 0);
	guest_sync(0);
	guest_eq(in_use(), 0);
	fill(b, 3);
	configure();
	load(b);
	guest_sync(1);
	store(b);
	guest_eq(differ(b, 9), (u64)-1);
	guest_sync(2);
	guest_eq(in_use() & CFG_BIT, 0);
	guest_done(0);
}

static void take_over_guest(u64 arg)
{
	u8 *b = tiles[1];

	write_cr4(read_cr4() | CR4_OSXSAVE);
	store(b);
	guest_eq(differ(b, 9), (u64)-1);
	guest_done(0);
}

/* The last bytes before a page that is not there: exactly as much as there may be */
static u8 *image_room(struct vm *vm)
{
	int bytes = vm_cap(vm, KVM_CAP_XSAVE2), pages = (bytes + 4095) / 4096;
	u8 *p = mmap(NULL, (pages + 1) * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(mprotect(p + pages * 4096, 4096, PROT_NONE));
	return p + pages * 4096 - bytes;
}

TEST_F(amx, outside)
{
	u8 *x = image_room(self->vm), *data = x + cpuid_find(self->vm->cpuid, 0xd, XTILEDATA)->ebx;
	u8 *cfg = x + cpuid_find(self->vm->cpuid, 0xd, XTILECFG)->ebx;
	struct kvm_xcrs xcrs;
	struct vcpu *other;
	u64 *bv = (u64 *)x + XSTATE_BV;

	vcpu_long(self->v, outside_guest, 0);
	vcpu_sync(self->v);
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_GET_XSAVE, mem_alloc(16384)));
	must(ioctl(self->v->fd, KVM_GET_XSAVE2, x));
	EXPECT_EQ(0, *bv & TILE_BITS);
	EXPECT_EQ(0, cfg[0]);
	must(ioctl(self->v->fd, KVM_SET_XSAVE, x));
	vcpu_sync(self->v);
	must(ioctl(self->v->fd, KVM_GET_XSAVE2, x));
	EXPECT_EQ(TILE_BITS, *bv & TILE_BITS);
	EXPECT_EQ(0, memcmp(cfg, config, 64));
	EXPECT_EQ(-1, differ(data, 3));
	EXPECT_EQ(-EFAULT, xioctl(self->v->fd, KVM_SET_XSAVE, x + 64));
	EXPECT_EQ(-EFAULT, xioctl(self->v->fd, KVM_GET_XSAVE2, x + 64));
	must(ioctl(self->v->fd, KVM_GET_XSAVE2, x));
	fill(data, 9);
	must(ioctl(self->v->fd, KVM_SET_XSAVE, x));
	vcpu_sync(self->v);

	/* Another CPU goes on with it. */
	must(ioctl(self->v->fd, KVM_GET_XSAVE2, x));
	EXPECT_EQ(-1, differ(data, 9));
	must(ioctl(self->v->fd, KVM_GET_XCRS, &xcrs));
	other = vcpu_new(self->vm, 1);
	vcpu_long(other, take_over_guest, 0);
	must(ioctl(other->fd, KVM_SET_XCRS, &xcrs));
	must(ioctl(other->fd, KVM_SET_XSAVE, x));
	vcpu_done(other);

	/* What is not in the header is as after power-on, whatever is in its place. */
	*bv &= ~TILE_BITS;
	must(ioctl(self->v->fd, KVM_SET_XSAVE, x));
	must(ioctl(self->v->fd, KVM_GET_XSAVE2, x));
	EXPECT_EQ(0, *bv & TILE_BITS);
	EXPECT_EQ(0, data[0] | data[TILES - 1]);
	/* What XRSTOR faults at never gets there. */
	bv[1] = 1UL << 63;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	bv[1] = 0;
	bv[7] = 1;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	bv[7] = 0;
	*bv |= 1UL << 19;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	*bv &= ~(1UL << 19);
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	vcpu_done(self->v);
}

/* ---- configurations that are none ---- */

static void says_guest(u64 arg)
{
	tiles_on();
	for (;;)
		guest_sync(in_use() / CFG_BIT);
}

static const struct {
	u8 at, val;
	bool valid;
} changes[] = {
	{ 1, 3, true },			/* where a load goes on */
	{ 16, 4, true }, { 48, 1, true },
	{ 0, 0 }, { 0, 2 }, { 0, 255 },	/* the initial state, palettes that there are not */
	{ 2, 1 }, { 15, 1 }, { 47, 1 }, { 63, 1 },
	{ 16, 65 }, { 17, 1 }, { 48, 17 },	/* too large */
	{ 16, 0 }, { 48, 0 },		/* one, but not the other */
	{ 32, 64 }, { 56, 16 },		/* a ninth */
};

/* LDTILECFG would fault. They are taken, and the guest has the initial state; who loads it comes to no harm. */
TEST_F(amx, not_a_configuration)
{
	u32 i, cfg_at = cpuid_find(self->vm->cpuid, 0xd, XTILECFG)->ebx;
	u8 *x = image_room(self->vm);

	vcpu_long(self->v, says_guest, 0);
	EXPECT_EQ(0, vcpu_sync(self->v));
	must(ioctl(self->v->fd, KVM_GET_XSAVE2, x));
	for (i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		memcpy(x + cfg_at, config, 64);
		x[cfg_at + changes[i].at] = changes[i].val;
		((u64 *)x)[XSTATE_BV] |= TILE_BITS;
		EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XSAVE, x));
		EXPECT_EQ(changes[i].valid, vcpu_sync(self->v) & 1) {
			TH_LOG("byte %u is %u", changes[i].at, changes[i].val);
		}
	}
	memset(x + cfg_at, 0xff, 64);
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	EXPECT_EQ(0, vcpu_sync(self->v) & 1);
}

/* ---- from one VM to another ---- */

static void move_guest(u64 arg)
{
	u8 *b = tiles[0];

	tiles_on();
	wrmsr(MSR_IA32_XFD, DATA_BIT);
	guest_eq(try_tile(), NM);
	wrmsr(MSR_IA32_XFD, 0);
	fill(b, 6);
	configure();
	load(b);
	guest_sync(0);
	guest_eq(in_use(), TILE_BITS);
	store(b);
	guest_eq(differ(b, 6), (u64)-1);
	guest_eq(rdmsr(MSR_IA32_XFD), 0);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), DATA_BIT);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	wrmsr(MSR_IA32_XFD, DATA_BIT);
	guest_sync(1);
	guest_eq(rdmsr(MSR_IA32_XFD), DATA_BIT);
	guest_eq(try_tile(), NM);
	guest_done(0);
}

/* As a VMM does it that saves a machine, or migrates one */
static void vcpu_move(struct vcpu *from, struct vcpu *to)
{
	u8 *x = image_room(from->vm);
	struct kvm_msr_list *l = mem_alloc(4096 * 4);
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_regs regs;
	u64 val;
	u32 i;

	vcpu_settle(from);
	memcpy(to->vm->mem, from->vm->mem, to->vm->size);
	vcpu_get_regs(from, &regs);
	vcpu_set_regs(to, &regs);
	vcpu_get_sregs(from, &sregs);
	vcpu_set_sregs(to, &sregs);
	must(ioctl(from->fd, KVM_GET_XCRS, &xcrs));
	must(ioctl(to->fd, KVM_SET_XCRS, &xcrs));
	must(ioctl(from->fd, KVM_GET_XSAVE2, x));
	must(ioctl(to->fd, KVM_SET_XSAVE, x));
	must(ioctl(from->fd, KVM_GET_DEBUGREGS, &debug));
	must(ioctl(to->fd, KVM_SET_DEBUGREGS, &debug));
	must(ioctl(from->fd, KVM_GET_VCPU_EVENTS, &events));
	must(ioctl(to->fd, KVM_SET_VCPU_EVENTS, &events));
	l->nmsrs = 4000;
	must(ioctl(from->vm->sys, KVM_GET_MSR_INDEX_LIST, l));
	for (i = 0; i < l->nmsrs; i++)
		if (vcpu_get_msr(from, l->indices[i], &val) == 1)
			vcpu_set_msr(to, l->indices[i], val);
}

TEST_F(amx, moved)
{
	struct vcpu *v = self->v;
	u32 i;

	vcpu_long(v, move_guest, 0);
	for (i = 0; i < 2; i++) {
		struct vcpu *next = vcpu_new(vm_new(VM_PLAIN), 0);

		EXPECT_EQ(i, vcpu_sync(v));
		vcpu_move(v, next);
		v = next;
	}
	/* those left behind are still what they were */
	EXPECT_EQ(1, vcpu_sync(self->v));
	vcpu_done(v);
	vcpu_done(self->v);
}

/* A vCPU that is not told of them is as small as ever */
TEST_F(amx, beside_small)
{
	struct kvm_cpuid_entry2 *d = cpuid_find(self->vm->cpuid, 0xd, 0);
	u8 *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vcpu *v;

	must(mprotect(page + 4096, 4096, PROT_NONE));
	d->eax &= ~TILE_BITS;
	cpuid_find(self->vm->cpuid, 0xd, 1)->eax &= ~(1 << 4);
	rounds = 2;
	vcpu_long(self->v, keep_guest, 1);
	vcpu_sync(self->v);
	v = vcpu_new(self->vm, 1);
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_XSAVE, page));
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_XSAVE2, page));
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_XSAVE, page));
	vcpu_long(v, no_tiles_guest, 0);
	vcpu_done(v);
	vcpu_sync(self->v);
	vcpu_done(self->v);
}

/* ---- keel's states and snapshots ---- */

static void state_guest(u64 arg)
{
	u8 *b = tiles[0];

	tiles_on();
	fill(b, 4);
	configure();
	load(b);
	wrmsr(MSR_IA32_XFD, DATA_BIT);
	guest_eq(try_tile(), NM);
	guest_sync(0);
	guest_eq(rdmsr(MSR_IA32_XFD), DATA_BIT);
	guest_eq(rdmsr(MSR_IA32_XFD_ERR), DATA_BIT);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	wrmsr(MSR_IA32_XFD, 0);
	store(b);
	guest_eq(differ(b, 4), (u64)-1);
	guest_eq(try_tile(), NO_FAULT);
	asm volatile("tilerelease");
	guest_sync(1);
	guest_done(0);
}

static struct keel_section *fpu_of(struct blob *b, int vcpu)
{
	struct keel_section *s = (void *)(b->data + sizeof(struct keel_state_head));

	while ((u8 *)s < b->data + b->size && (s->id != KEEL_SECTION_FPU || s->vcpu != vcpu))
		s = (void *)(s + 1) + (s->length + 7) / 8 * 8;
	return s;
}

TEST_F(amx, states)
{
	static struct blob a, b;
	struct keel_state arg;
	struct vcpu *small;
	u32 id, i;
	u8 *fpu;
	int fd;

	if (!is_keel(self->vm))
		SKIP(return, "of keel alone");
	/* beside one of the other size */
	cpuid_find(self->vm->cpuid, 0xd, 0)->eax &= ~TILE_BITS;
	small = vcpu_new(self->vm, 1);
	EXPECT_EQ(0, xioctl(small->fd, KVM_GET_XSAVE, mem_alloc(16384)));
	vcpu_long(self->v, state_guest, 0);
	vcpu_sync(self->v);
	vcpu_settle(self->v);
	ASSERT_EQ(0, state_get(self->vm, &a, &arg));
	EXPECT_LT(TILES, fpu_of(&a, 0)->length);
	EXPECT_GT(4096, fpu_of(&a, 1)->length);
	id = snapshot(self->vm);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(1, vcpu_sync(self->v));
		vcpu_settle(self->v);
		ASSERT_EQ(0, state_get(self->vm, &b, &arg));
		EXPECT_NE(0, strlen(difference(&a, &b)));
		if (i & 1) {
			arg = (struct keel_state){ .data = (u64)a.data, .size = a.size };
			ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_SET_STATE, &arg));
		} else {
			ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
		}
		ASSERT_EQ(0, state_get(self->vm, &b, &arg));
		EXPECT_STREQ("", difference(&a, &b));
	}
	EXPECT_EQ(1, vcpu_sync(self->v));
	EXPECT_EQ(0, vcpu_done(self->v));

	/* A configuration that is none, in a section of it */
	vcpu_settle(self->v);
	b = a;
	fpu = (u8 *)(fpu_of(&b, 0) + 1) + sizeof(struct keel_state_fpu);
	memset(fpu + cpuid_find(self->vm->cpuid, 0xd, XTILECFG)->ebx, 0xff, 64);
	arg = (struct keel_state){ .data = (u64)b.data, .size = b.size };
	EXPECT_EQ(0, xioctl(self->vm->fd, KEEL_SET_STATE, &arg));
	ASSERT_EQ(0, state_get(self->vm, &b, &arg));
	EXPECT_EQ(0, ((u64 *)fpu)[XSTATE_BV] & TILE_BITS);

	/* A VM made of it has them, too */
	ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	arg = (struct keel_state){ .data = (u64)b.data, .size = sizeof(b.data), .flags = KEEL_WITH_SETUP };
	ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_GET_STATE, &arg));
	b.size = arg.size;
	arg = (struct keel_state){ .data = (u64)b.data, .size = b.size };
	fd = xioctl(self->vm->sys, KEEL_CREATE_VM_FROM, &arg);
	ASSERT_LE(0, fd);
	arg = (struct keel_state){ .data = (u64)b.data, .size = sizeof(b.data) };
	ASSERT_EQ(0, xioctl(fd, KEEL_GET_STATE, &arg));
	b.size = arg.size;
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, memcmp(fpu_of(&a, i), fpu_of(&b, i), sizeof(struct keel_section) + fpu_of(&a, i)->length));
	close(fd);
}

TEST_HARNESS_MAIN
