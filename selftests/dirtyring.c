// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty rings: what is refused, what is listed and when again, a full ring,
 * several vCPUs, a VMM that scribbles over its ring; and the CPU's own log of
 * pages written, where it has one.
 */
#define _GNU_SOURCE
#include <sched.h>
#include "test.h"

#define SLOT_GPA	0x10000000UL
#define MEM2		(2UL << 20)
#define PAGES		(MEM2 / 4096)
#define MAX_BYTES	(65536 * sizeof(struct kvm_dirty_gfn))

struct ring {
	struct kvm_dirty_gfn *e;
	size_t bytes;
	u32 size, next;
};

/* The smallest ring there can be: the CPU's own log needs room in it too */
static u32 smallest_ring(struct vm *vm)
{
	u32 bytes = 4096;

	while (vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, bytes)) {
		bytes *= 2;
		if (bytes > MAX_BYTES)
			die("no size of dirty ring is taken");
	}
	return bytes;
}

static void ring_map(struct ring *r, struct vcpu *v, size_t bytes)
{
	r->e = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd,
		    KVM_DIRTY_LOG_PAGE_OFFSET * 4096UL);
	if (r->e == MAP_FAILED)
		die("mmap of the dirty ring: %s", strerror(errno));
	r->bytes = bytes;
	r->size = bytes / sizeof(*r->e);
	r->next = 0;
}

/* Take the next entry; not yet given back */
static bool ring_take(struct ring *r, u32 *slot, u64 *offset)
{
	struct kvm_dirty_gfn *e = &r->e[r->next % r->size];

	if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
		return false;
	*slot = e->slot;
	*offset = e->offset;
	__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	r->next++;
	return true;
}

/* Take all there are, count those of @slot by page, forget the others: how many of @slot */
static u32 ring_harvest(struct ring *r, u32 slot, u32 *times)
{
	u32 n = 0, id;
	u64 off;

	while (ring_take(r, &id, &off)) {
		if (id != slot)
			continue;
		if (off >= PAGES)
			die("page %#llx listed", (unsigned long long)off);
		times[off]++;
		n++;
	}
	return n;
}

static int reset_rings(struct vm *vm)
{
	return xioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0);
}

static u8 *slot_memory(void)
{
	u8 *p = mem_alloc(MEM2);

	memset(p, 0, MEM2);
	return p;
}

TEST(enabling)
{
	struct vm *vm = vm_new(VM_PLAIN);
	static const u32 caps[] = {
		KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
	};
	int i;

	EXPECT_EQ(-EINVAL, reset_rings(vm));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(MAX_BYTES, vm_cap(vm, caps[i]));
		EXPECT_EQ(-EINVAL, vm_enable_cap(vm, caps[i], 0));
		EXPECT_EQ(-EINVAL, vm_enable_cap(vm, caps[i], 2048));
		EXPECT_EQ(-EINVAL, vm_enable_cap(vm, caps[i], 65536 + 4096));
		EXPECT_EQ(-E2BIG, vm_enable_cap(vm, caps[i], 2 * MAX_BYTES));
	}
	EXPECT_EQ(-EINVAL, reset_rings(vm));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 65536));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, 65536));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, 131072));
	EXPECT_EQ(0, reset_rings(vm));
	vcpu_new(vm, 0);
	EXPECT_EQ(0, reset_rings(vm));
	vm_free(vm);

	/* not once there are vCPUs */
	vm = vm_new(VM_PLAIN);
	vcpu_new(vm, 0);
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, 65536));
	EXPECT_EQ(-EINVAL, reset_rings(vm));
	vm_free(vm);

	/* the largest */
	vm = vm_new(VM_PLAIN);
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, MAX_BYTES));
	vcpu_new(vm, 0);
	vm_free(vm);
}

static void *map_at(struct vcpu *v, u32 page, u32 pages, int prot, int flags)
{
	return mmap(NULL, pages * 4096UL, prot, flags, v->fd, page * 4096UL);
}

TEST(mapping)
{
	const int rw = PROT_READ | PROT_WRITE, at = KVM_DIRTY_LOG_PAGE_OFFSET;
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	u32 *p, pages, i;

	EXPECT_EQ(MAP_FAILED, map_at(v, at, 1, rw, MAP_SHARED));
	vm_free(vm);

	vm = vm_new(VM_PLAIN);
	pages = smallest_ring(vm) / 4096;
	v = vcpu_new(vm, 0);
	EXPECT_EQ(MAP_FAILED, map_at(v, at, pages, rw, MAP_PRIVATE));
	EXPECT_EQ(MAP_FAILED, map_at(v, at, pages, PROT_READ | PROT_EXEC,
				     MAP_SHARED));
	EXPECT_EQ(MAP_FAILED, map_at(v, at, pages + 1, rw, MAP_SHARED));
	EXPECT_EQ(MAP_FAILED, map_at(v, at + pages, 1, rw, MAP_SHARED));
	EXPECT_EQ(MAP_FAILED, map_at(v, at - 1, pages, rw, MAP_SHARED));
	p = map_at(v, at + pages - 1, 1, rw, MAP_SHARED);
	ASSERT_NE(MAP_FAILED, p);
	for (i = 0; i < 1024; i++) {
		ASSERT_EQ(0, p[i]);
	}
	/* it stays when all else is gone */
	p[1023] = 5;
	vm_free(vm);
	EXPECT_EQ(5, p[1023]);
	munmap(p, 4096);
}

FIXTURE(ring) {
	struct vm *vm;
	struct vcpu *v;
	struct ring r;
	u8 *mem;		/* of slot 1, which is logged */
	u32 times[PAGES];
};

FIXTURE_SETUP(ring)
{
	u32 bytes;

	self->vm = vm_new(VM_PLAIN);
	bytes = smallest_ring(self->vm);
	self->v = vcpu_new(self->vm, 0);
	ring_map(&self->r, self->v, bytes);
	self->mem = slot_memory();
	vm_slot(self->vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
}

FIXTURE_TEARDOWN(ring)
{
	vm_free(self->vm);
	munmap(self->r.e, self->r.bytes);
	munmap(self->mem, MEM2);
}

#define harvest() ({							\
	memset(self->times, 0, sizeof(self->times));			\
	ring_harvest(&self->r, 1, self->times); })

static void writes_guest(u64 arg)
{
	volatile u8 *p = (u8 *)SLOT_GPA;
	u64 i;

	for (i = 0; i < PAGES; i++)
		(void)p[i * 4096];
	guest_sync(0);
	p[3 * 4096] = 1;
	p[64 * 4096 - 1] = 1;
	p[64 * 4096] = 1;
	p[511 * 4096 + 4095] = 1;
	guest_sync(1);
	p[3 * 4096] = 2;
	guest_sync(2);
	p[3 * 4096] = 3;
	p[4 * 4096] = 3;
	guest_sync(3);
	p[64 * 4096] = 3;
	guest_sync(4);
	*(volatile u32 *)(p + 10 * 4096 - 2) = 0x12345678;
	guest_sync(5);
	guest_done(0);
}

TEST_F(ring, writes)
{
	static const u16 order[] = { 3, 63, 64, 511 };
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	struct kvm_dirty_log l = { .slot = 1, .dirty_bitmap = self->times };
	struct kvm_clear_dirty_log c = {
		.slot = 1, .num_pages = 64, .dirty_bitmap = self->times,
	};
	u64 off;
	u32 i, slot;

	/* the bitmaps are out of service */
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_GET_DIRTY_LOG, &l));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &c));

	vcpu_long(v, writes_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, harvest());
	EXPECT_EQ(0, reset_rings(vm));
	EXPECT_EQ(1, vcpu_sync(v));
	/* in the order in which they were written, and nothing else */
	for (i = 0; i < 4; i++) {
		ASSERT_TRUE(ring_take(&self->r, &slot, &off));
		EXPECT_EQ(1, slot);
		EXPECT_EQ(order[i], off);
	}
	EXPECT_FALSE(ring_take(&self->r, &slot, &off));
	/* harvested, but not watched again */
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, harvest());
	EXPECT_EQ(4, reset_rings(vm));
	EXPECT_EQ(0, reset_rings(vm));
	EXPECT_EQ(0, self->r.e[0].flags | self->r.e[3].flags);
	EXPECT_EQ(3, vcpu_sync(v));
	EXPECT_EQ(2, harvest());
	EXPECT_TRUE(self->times[3] == 1 && self->times[4] == 1);
	/* what is not given back does not keep others from being listed */
	EXPECT_EQ(4, vcpu_sync(v));
	EXPECT_EQ(1, harvest());
	EXPECT_EQ(1, self->times[64]);
	EXPECT_EQ(3, reset_rings(vm));
	/* across a boundary */
	EXPECT_EQ(5, vcpu_sync(v));
	EXPECT_EQ(2, harvest());
	EXPECT_TRUE(self->times[9] == 1 && self->times[10] == 1);
	/* only what was harvested is counted, and only up to the first that was not */
	self->r.e[(self->r.next - 2) % self->r.size].flags = KVM_DIRTY_GFN_F_DIRTY;
	EXPECT_EQ(0, reset_rings(vm));
	self->r.e[(self->r.next - 2) % self->r.size].flags = 3;
	EXPECT_EQ(2, reset_rings(vm));
	vcpu_done(v);
}

static void again_guest(u64 arg)
{
	volatile u8 *p = (u8 *)SLOT_GPA;
	u32 i;

	for (i = 0; ; i++) {
		p[0] = i;
		p[5 * 4096] = i;
		guest_sync(i);
	}
}

/* Logging goes off and on; a page that could be written before is seen at once */
TEST_F(ring, off_and_on)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;

	vcpu_long(v, again_guest, 0);
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, harvest());
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(2, harvest());
	EXPECT_EQ(2, reset_rings(vm));
	EXPECT_EQ(2, vcpu_sync(v));
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, 0);
	EXPECT_EQ(3, vcpu_sync(v));
	EXPECT_EQ(2, harvest());	/* of before */
	EXPECT_EQ(2, reset_rings(vm));
	EXPECT_EQ(4, vcpu_sync(v));
	EXPECT_EQ(0, harvest());
	/* entries of a slot that is gone */
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	EXPECT_EQ(5, vcpu_sync(v));
	vm_slot(vm, 1, 0, 0, NULL, 0);
	EXPECT_EQ(2, harvest());
	EXPECT_EQ(2, reset_rings(vm));
}

/* The bitmaps' "all is dirty to begin with" means nothing here: before the ring was chosen, and after */
TEST(initially_set)
{
	u64 flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
	u32 times[PAGES] = {};
	struct vcpu *v;
	struct vm *vm;
	struct ring r;
	u8 *mem = slot_memory();
	int early;

	for (early = 0; early < 2; early++) {
		vm = vm_new(VM_PLAIN);
		if (early) {
			ASSERT_EQ(0, vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags));
			vm_slot(vm, 1, SLOT_GPA, MEM2, mem, KVM_MEM_LOG_DIRTY_PAGES);
		}
		ASSERT_EQ(0, vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, 65536));
		v = vcpu_new(vm, 0);
		ring_map(&r, v, 65536);
		vcpu_long(v, again_guest, 0);
		if (!early) {
			ASSERT_EQ(0, vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags));
			vm_slot(vm, 1, SLOT_GPA, MEM2, mem, 0);
			EXPECT_EQ(0, vcpu_sync(v));
			vm_slot(vm, 1, SLOT_GPA, MEM2, mem, KVM_MEM_LOG_DIRTY_PAGES);
		}
		vcpu_sync(v);
		EXPECT_EQ(2, ring_harvest(&r, 1, times));
		EXPECT_EQ(2, reset_rings(vm));
		vcpu_sync(v);
		EXPECT_EQ(2, ring_harvest(&r, 1, times));
		munmap(r.e, r.bytes);
		vm_free(vm);
	}
	EXPECT_EQ(4, times[0]);
	EXPECT_EQ(4, times[5]);
	munmap(mem, MEM2);
}

#define INS_PORT	0x99
#define KVMCLOCK_MSR	0x4b564d01

static void keel_writes_guest(u64 arg)
{
	void *to = (void *)(SLOT_GPA + 7 * 4096 - 4), *from = (void *)HOLE_GPA;
	u64 n = 2;

	guest_sync(0);
	/* from a device into memory, over the end of a page */
	asm volatile("rep insl" : "+D"(to), "+c"(n) : "d"(INS_PORT) : "memory");
	guest_sync(1);
	to = (void *)(SLOT_GPA + 100 * 4096);
	asm volatile("movsl" : "+D"(to), "+S"(from) :: "memory");
	guest_sync(2);
	to = (void *)(SLOT_GPA + 100 * 4096);
	from = (void *)HOLE_GPA;
	asm volatile("movsl" : "+D"(to), "+S"(from) :: "memory");
	guest_sync(3);
	wrmsr(KVMCLOCK_MSR, (SLOT_GPA + 200 * 4096) | 1);
	guest_sync(4);
	guest_done(0);
}

/* What keel writes for the guest: emulated stores, bits in the guest's page tables, its clock page */
TEST_F(ring, emulated)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	struct kvm_run *run = v->run;
	u32 slot, tables = 0, mine = 0, i;
	u64 off, *pte;

	vcpu_long(v, keel_writes_guest, 0);
	pte = vm_split_page(vm, SLOT_GPA, HEAP_GPA);
	vm_slot(vm, 0, 0, MEM_SIZE, vm->mem, KVM_MEM_LOG_DIRTY_PAGES);
	EXPECT_EQ(0, vcpu_sync(v));
	harvest();
	reset_rings(vm);

	/* both at once, or one by one */
	for (i = 0; i < 2; i += run->io.count) {
		vcpu_expect(v, KVM_EXIT_IO);
		ASSERT_EQ(INS_PORT, run->io.port);
		memset((u8 *)run + run->io.data_offset, 0x11, 8);
	}
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0x1111111111111111, *(u64 *)(self->mem + 7 * 4096 - 4));
	EXPECT_EQ(0x60, pte[6] & 0x60);
	EXPECT_EQ(0x60, pte[7] & 0x60);
	while (ring_take(&self->r, &slot, &off)) {
		if (slot == 0 && off == HEAP_GPA / 4096)
			tables++;
		if (slot == 1) {
			EXPECT_TRUE(off == 6 || off == 7);
			mine++;
		}
	}
	EXPECT_EQ(1, tables);
	EXPECT_EQ(2, mine);
	vm_slot(vm, 0, 0, MEM_SIZE, vm->mem, 0);
	reset_rings(vm);

	/* a store of the emulator's, once and, given back, again */
	for (i = 0; i < 2; i++) {
		run = vcpu_expect_mmio(v, false, HOLE_GPA, 4);
		*(u32 *)run->mmio.data = 0x3333 + i;
		EXPECT_EQ(2 + i, vcpu_sync(v));
		EXPECT_EQ(0x3333 + i, *(u32 *)(self->mem + 100 * 4096));
		EXPECT_EQ(1, harvest());
		EXPECT_EQ(1, self->times[100]);
		EXPECT_EQ(1, reset_rings(vm));
	}
	EXPECT_EQ(4, vcpu_sync(v));
	EXPECT_EQ(1, harvest());
	EXPECT_EQ(1, self->times[200]);
	vcpu_done(v);
}

static void all_pages_guest(u64 times)
{
	volatile u64 *p = (u64 *)SLOT_GPA;
	u64 i;

	while (times--)
		for (i = 0; i < PAGES; i++)
			p[i * 512]++;
	guest_done(0);
}

TEST_F(ring, full)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	u32 exits = 0, n, used, i;

	vcpu_long(v, all_pages_guest, 1);
	memset(self->times, 0, sizeof(self->times));
	while (vcpu_run(v) == KVM_EXIT_DIRTY_RING_FULL) {
		struct kvm_regs a, b;

		exits++;
		/* it stays full until entries are given back; harvesting is not enough */
		vcpu_get_regs(v, &a);
		ASSERT_EQ(KVM_EXIT_DIRTY_RING_FULL, vcpu_run(v));
		used = self->r.next;
		n = ring_harvest(&self->r, 1, self->times);
		used = self->r.next - used;
		ASSERT_EQ(KVM_EXIT_DIRTY_RING_FULL, vcpu_run(v));
		vcpu_get_regs(v, &b);
		ASSERT_EQ(a.rip, b.rip);
		/* some room was left for what could have come */
		EXPECT_GT(n, self->r.size / 4);
		EXPECT_LT(used, self->r.size);
		ASSERT_EQ(used, reset_rings(vm));
	}
	EXPECT_EQ(KVM_EXIT_IO, v->run->exit_reason);
	EXPECT_GE(exits, 1);
	ring_harvest(&self->r, 1, self->times);
	for (i = n = 0; i < PAGES; i++) {
		n += self->times[i];
		ASSERT_GE(self->times[i], 1);
		ASSERT_EQ(1, *(u64 *)(self->mem + i * 4096));
	}
	/* the store that filled the ring comes again, and its page may */
	EXPECT_LE(n, PAGES + exits);
}

/* To the first or the last of the CPUs there are for us: two threads that shall not share one */
static void pin(bool last)
{
	cpu_set_t all, one;
	int i;

	CPU_ZERO(&one);
	must(sched_getaffinity(0, sizeof(all), &all));
	for (i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		if (!last)
			break;
	}
	must(sched_setaffinity(0, sizeof(one), &one));
}

static void *sync_thread(void *v)
{
	pin(true);
	vcpu_sync(v);
	return NULL;
}

/* Without sleeping: what is waited for is looked at before the vCPU leaves the guest for another reason */
static bool spin_for(volatile u32 *p, u32 val)
{
	u64 end = now_ns() + scaled(20 * 1000000000ULL);

	while ((int)(*p - val) < 0)
		if (now_ns() > end)
			return false;
	return true;
}

static volatile u32 stop;

static void busy_guest(u64 arg)
{
	volatile u32 *p = (u32 *)SLOT_GPA;

	for (;;) {
		while (!stop)
			p[0]++;
		guest_sync(0);
	}
}

/* Once the reset is done no vCPU, though it never left the guest, writes the page unseen */
TEST_F(ring, watched_again)
{
	struct vm *vm = self->vm;
	volatile u32 *p = (u32 *)self->mem;
	pthread_t t;
	u32 i, seen;

	vcpu_long(self->v, busy_guest, 0);
	for (i = 0; i < 20; i++) {
		guest_var(vm, stop) = 0;
		seen = *p;
		pthread_create(&t, NULL, sync_thread, self->v);
		ASSERT_TRUE(spin_for(p, seen + 1));
		harvest();
		ASSERT_LE(0, reset_rings(vm));
		seen = *p;
		ASSERT_TRUE(spin_for(p, seen + 1));
		guest_var(vm, stop) = 1;
		pthread_join(t, NULL);
		ASSERT_GE(harvest(), 1);
		ASSERT_LE(1, reset_rings(vm));
	}
}

static void two_guest(u64 me)
{
	volatile u64 *p = (u64 *)SLOT_GPA;
	u64 i;

	for (i = 0; i < 40; i++)
		p[(10 + 2 * i + me) * 512] = i;
	p[200 * 512 + me] = 1;
	guest_done(0);
}

TEST_F(ring, two_vcpus)
{
	struct vm *vm = self->vm;
	struct vcpu *v[2] = { self->v, vcpu_new(vm, 1) };
	u32 times[2][PAGES] = {}, i, id;
	struct ring r[2] = { self->r };

	ring_map(&r[1], v[1], r[0].bytes);
	for (i = 0; i < 2; i++) {
		vcpu_long(v[i], two_guest, i);
		vcpu_start(v[i]);
	}
	for (i = 0; i < 2; i++)
		vcpu_join(v[i]);
	for (i = 0; i < 2; i++)
		EXPECT_GE(ring_harvest(&r[i], 1, times[i]), 40);
	/* each page in the ring of its writer, and not in the other's */
	for (i = 0; i < 80; i++) {
		id = i & 1;
		EXPECT_EQ(1, times[id][10 + i]);
		EXPECT_EQ(0, times[!id][10 + i]);
	}
	EXPECT_GE(times[0][200] + times[1][200], 1);
	EXPECT_GE(reset_rings(vm), 81);
	munmap(r[1].e, r[1].bytes);
}

static void dirtying_guest(u64 me)
{
	volatile u64 *p = (u64 *)SLOT_GPA;
	u64 i, seed = me + 1;

	for (i = 0; i < 3000; i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		p[(seed >> 33) % PAGES * 512 + me]++;
	}
	guest_done(0);
}

static volatile u32 finished;

static void *patient_thread(void *arg)
{
	struct vcpu *v = arg;

	while (vcpu_run(v) == KVM_EXIT_DIRTY_RING_FULL)
		sched_yield();
	if (v->run->exit_reason != KVM_EXIT_IO || v->run->io.port != PORT_DONE)
		die("exit %s", exit_name(v->run->exit_reason));
	__sync_fetch_and_add(&finished, 1);
	return NULL;
}

/* What migration rests on: copies of the pages listed, made after the reset, are in the end all equal */
TEST_F_TIMEOUT(ring, copies_converge, 120)
{
	struct vm *vm = self->vm;
	struct vcpu *v[2] = { self->v, vcpu_new(vm, 1) };
	struct ring r[2] = { self->r };
	u8 *copy = mem_alloc(MEM2);
	pthread_t t[2];
	u32 i, n = 0;
	bool last;

	memcpy(copy, self->mem, MEM2);
	ring_map(&r[1], v[1], r[0].bytes);
	for (i = 0; i < 2; i++) {
		vcpu_long(v[i], dirtying_guest, i);
		pthread_create(&t[i], NULL, patient_thread, v[i]);
	}
	do {
		last = finished == 2;
		memset(self->times, 0, sizeof(self->times));
		for (i = 0; i < 2; i++)
			ring_harvest(&r[i], 1, self->times);
		ASSERT_LE(0, reset_rings(vm));
		for (i = 0; i < PAGES; i++)
			if (self->times[i]) {
				memcpy(copy + i * 4096UL, self->mem + i * 4096UL, 4096);
				n++;
			}
	} while (!last);
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	EXPECT_EQ(0, memcmp(copy, self->mem, MEM2));
	EXPECT_GT(n, 0);
	munmap(r[1].e, r[1].bytes);
}

/* Entries that name what is not there, or what was never listed */
TEST_F(ring, forged)
{
	static const struct { u32 slot; u64 offset; } bad[] = {
		{ 0, 0 }, { 1, PAGES }, { 1, PAGES + 64 }, { 1, ~0ULL },
		{ 1, 1ULL << 32 }, { 1, 1ULL << 63 }, { 2, 0 }, { 0xffff, 0 },
		{ 1 << 16 | 1, 0 }, { ~0U, ~0ULL },
	};
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	struct kvm_dirty_gfn *e = self->r.e;
	u32 i, n;

	/* nothing was written: there is nothing to give back, whatever the ring says */
	for (i = 0; i < self->r.size; i++)
		e[i] = (struct kvm_dirty_gfn) { .flags = ~0U, .slot = 1, .offset = i };
	EXPECT_EQ(0, reset_rings(vm));

	/* nor more than was written */
	vcpu_long(v, writes_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(3, e[0].offset);
	EXPECT_EQ(KVM_DIRTY_GFN_F_DIRTY, e[3].flags);
	for (i = 0; i < self->r.size; i++)
		e[i].flags = KVM_DIRTY_GFN_F_RESET;
	EXPECT_EQ(4, reset_rings(vm));
	self->r.next = 4;
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(1, harvest());
	EXPECT_EQ(1, self->times[3]);
	EXPECT_EQ(1, reset_rings(vm));

	/* more entries than there are bad ones */
	vcpu_long(v, two_guest, 0);
	vcpu_done(v);
	n = self->r.next;
	for (i = 0; i < 40; i++) {
		struct kvm_dirty_gfn *g = &e[(n + i) % self->r.size];

		EXPECT_EQ(KVM_DIRTY_GFN_F_DIRTY, g->flags);
		g->slot = bad[i % ARRAY_SIZE(bad)].slot;
		g->offset = bad[i % ARRAY_SIZE(bad)].offset;
		g->flags = KVM_DIRTY_GFN_F_RESET;
	}
	EXPECT_EQ(40, reset_rings(vm));
	self->r.next += 40;
	/* pages whose entries were spoilt are lost, to this VMM alone; others are not */
	EXPECT_EQ(1, harvest());
	EXPECT_EQ(1, self->times[200]);
	EXPECT_EQ(1, reset_rings(vm));
	vcpu_long(v, two_guest, 1);
	vcpu_done(v);
	EXPECT_EQ(41, harvest());
	for (i = 0; i < 40; i++)
		EXPECT_EQ(1, self->times[11 + 2 * i]);
}

struct scribbler {
	struct ring *r;
	volatile bool stop;
};

static void *scribble_thread(void *arg)
{
	struct scribbler *s = arg;
	u64 seed = 1;

	while (!s->stop) {
		u32 i;

		for (i = 0; i < s->r->size; i++) {
			volatile struct kvm_dirty_gfn *e = &s->r->e[i];

			seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
			e->offset = seed >> 60 ? seed >> 33 & 1023 : seed;
			e->slot = seed >> 59 & 1 ? seed >> 40 & 3 : seed >> 20;
			e->flags = seed >> 50;
		}
		sched_yield();
	}
	return NULL;
}

/* The ring is written to all the time while the guest runs and while it is reset */
TEST_F_TIMEOUT(ring, scribbled, 120)
{
	struct vm *vm = self->vm;
	struct scribbler s = { .r = &self->r };
	pthread_t t, t2;
	u32 i;

	vcpu_long(self->v, all_pages_guest, 20);
	pthread_create(&t, NULL, scribble_thread, &s);
	pthread_create(&t2, NULL, patient_thread, self->v);
	for (i = 0; i < 300; i++) {
		int n = reset_rings(vm);

		ASSERT_GE(n, 0);
		ASSERT_LE(n, self->r.size);
		/* slots come and go under it */
		if (i % 10 == 9)
			vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem,
				i % 20 == 9 ? 0 : KVM_MEM_LOG_DIRTY_PAGES);
		sched_yield();
	}
	s.stop = true;
	pthread_join(t, NULL);
	/* the guest comes out of a full ring */
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, 0);
	for (i = 0; i < self->r.size; i++)
		self->r.e[i].flags = KVM_DIRTY_GFN_F_RESET;
	ASSERT_LE(0, reset_rings(vm));
	pthread_join(t2, NULL);
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ(20, *(u64 *)(self->mem + i * 4096));
}

/* ---- the CPU's own log ---- */

#define PML_PARAM	"/sys/module/keel/parameters/pml"

/* Or there is no such parameter */
static bool param_on(const char *path)
{
	FILE *f = fopen(path, "r");
	bool on = !f || fgetc(f) == 'Y';

	if (f)
		fclose(f);
	return on;
}

/* Has the CPU one, and may keel use it? -1: this is not keel */
static int cpu_logs(void)
{
	FILE *f = fopen(PML_PARAM, "r");
	bool on, has = false;
	char line[4096];

	if (!f || strcmp(node_path(), "/dev/keel"))
		return -1;
	on = fgetc(f) == 'Y';
	fclose(f);
	/* It is a log of the second dimension, and of what is marked dirty there. */
	on &= param_on("/sys/module/keel/parameters/ept") && param_on("/sys/module/keel/parameters/ept_ad");
	f = fopen("/proc/cpuinfo", "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "vmx flags", 9))
			has |= strstr(line, " pml") != NULL;
	if (f)
		fclose(f);
	return on && has;
}

/* How often such a log was full, of all vCPUs there were */
static u64 logs_full(void)
{
	FILE *f = fopen("/sys/kernel/debug/keel/stats", "r");
	unsigned long n = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "exit_pml_full_%*u %lu", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

#define MEM8		(4 * MEM2)	/* what is written of it is no multiple of the CPU's log */
#define PAGES8		(MEM8 / 4096)

static volatile u32 guest_wrote;

/* Two pages of three, and then again some of them */
static void sparse_guest(u64 spin)
{
	volatile u8 *p = (u8 *)SLOT_GPA;
	u64 i;

	for (i = 0; i < PAGES8; i++)
		(void)p[i * 4096];
	guest_wrote = 0;	/* its page is there as well: no fault brings the vCPU out later */
	guest_sync(0);
	for (i = 0; i < PAGES8; i++)
		if (i % 3)
			p[i * 4096]++;
	guest_wrote = 1;
	while (spin && guest_wrote < 2)
		pause_cpu();
	guest_sync(1);
	for (i = 0; i < PAGES8; i += 5)
		p[i * 4096]++;
	guest_sync(2);
	guest_done(0);
}

FIXTURE(cpu_log) {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem;
	u64 b[PAGES8 / 64];
};

FIXTURE_VARIANT(cpu_log) {
	bool huge;
};

FIXTURE_VARIANT_ADD(cpu_log, small) { .huge = false };
FIXTURE_VARIANT_ADD(cpu_log, huge) { .huge = true };

FIXTURE_SETUP(cpu_log)
{
	u8 *p = mem_alloc(MEM8 + MEM2);

	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	self->mem = (u8 *)(((u64)p + MEM2 - 1) & ~(MEM2 - 1));
	madvise(self->mem, MEM8, variant->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(self->mem, 0, MEM8);
}

FIXTURE_TEARDOWN(cpu_log)
{
	vm_free(self->vm);
}

static int get_log(struct vm *vm, u64 *bitmap)
{
	struct kvm_dirty_log l = { .slot = 1, .dirty_bitmap = bitmap };

	return xioctl(vm->fd, KVM_GET_DIRTY_LOG, &l);
}

static bool bit(const u64 *b, u32 i)
{
	return b[i / 64] >> (i % 64) & 1;
}

/* However the CPU tells, the log has what was written; where it lists that itself, without a fault each */
TEST_F(cpu_log, bitmap)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	int logs = cpu_logs();
	u64 faults = 0, full;
	u32 i;

	/* mapped before, as large pages if it can be, so that logging has something to take back */
	vm_slot(vm, 1, SLOT_GPA, MEM8, self->mem, 0);
	vcpu_long(v, sparse_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(1, vcpu_sync(v));
	vm_slot(vm, 1, SLOT_GPA, MEM8, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	ASSERT_EQ(0, get_log(vm, self->b));
	EXPECT_EQ(2, vcpu_sync(v));
	ASSERT_EQ(0, get_log(vm, self->b));
	for (i = 0; i < PAGES8; i++)
		ASSERT_EQ(i % 5 == 0, bit(self->b, i));

	vcpu_long(v, sparse_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	ASSERT_EQ(0, get_log(vm, self->b));
	for (i = 0; i < PAGES8; i++)
		ASSERT_EQ(0, bit(self->b, i));
	full = logs_full();
	if (logs >= 0)
		faults = vcpu_stat(v, "page_faults");
	EXPECT_EQ(1, vcpu_sync(v));
	if (logs >= 0)
		faults = vcpu_stat(v, "page_faults") - faults;
	ASSERT_EQ(0, get_log(vm, self->b));
	for (i = 0; i < PAGES8; i++)
		ASSERT_EQ(i % 3 != 0, bit(self->b, i));
	/* The host may take a page or two meanwhile */
	if (logs == 1) {
		EXPECT_LE(faults, 20);
		EXPECT_GT(logs_full(), full);
	} else if (logs == 0) {
		EXPECT_GE(faults, PAGES8 * 2 / 3);
	}
	EXPECT_EQ(2, vcpu_sync(v));
	ASSERT_EQ(0, get_log(vm, self->b));
	for (i = 0; i < PAGES8; i++)
		ASSERT_EQ(i % 5 == 0, bit(self->b, i));
}

/* What a running vCPU has written is in the log although it did not leave the guest since */
TEST_F(cpu_log, running)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	pthread_t t;
	u32 i;

	vm_slot(vm, 1, SLOT_GPA, MEM8, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_long(v, sparse_guest, 1);
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, self->b));
	pthread_create(&t, NULL, sync_thread, v);
	pin(false);
	ASSERT_TRUE(spin_for(&guest_var(vm, guest_wrote), 1));
	EXPECT_EQ(0, get_log(vm, self->b));
	guest_var(vm, guest_wrote) = 2;
	pthread_join(t, NULL);
	for (i = 0; i < PAGES8; i++)
		ASSERT_EQ(i % 3 != 0, bit(self->b, i));
	EXPECT_EQ(0, get_log(vm, self->b));
	for (i = 0; i < PAGES8; i++)
		ASSERT_EQ(0, bit(self->b, i));
}

TEST_HARNESS_MAIN
