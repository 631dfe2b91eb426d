// SPDX-License-Identifier: GPL-2.0-only
/*
 * A VM taken and put back (uapi/keel.h): its state, which is the same bit for bit
 * when it is got again, and what the guest sees of that.
 */
#include "test.h"
#include "snap.h"

#include <sys/time.h>

/* ---- a guest with two vCPUs and all that ticks ---- */

#define PIT_IRQ	0x52
#define ROOM	128		/* pages at HEAP_GPA that are written */

static volatile u64 seeds[2], turns[2];
static volatile u32 x2apic, quiet;

static u64 next(u64 *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 33;
}

static void __attribute__((target("sse2"))) touch_fpu(u64 v)
{
	asm volatile("movq %0,%%xmm3; fldpi; fstp %%st(0)" :: "r"(v));
}

static void busy_guest(u64 me)
{
	u64 seed = me + 1, i;

	write_cr4(read_cr4() | X86_CR4_OSFXSR);
	guest_on(TICK, guest_count_eoi);
	guest_on(IPI, guest_count_eoi);
	guest_on(PIT_IRQ, guest_count_eoi);
	if (x2apic)
		x2apic_on();
	else
		apic_on();
	if (!quiet) {
		apic_write(0x3e0, 0xb);			/* by one */
		apic_write(0x320, TICK | 0x20000);	/* periodic */
		apic_write(0x380, 50000000);
	}
	if (!quiet && !me) {
		ioapic_entry(0, PIT_IRQ);
		outb(0x43, 0x34);
		outb(0x40, 0x00);
		outb(0x40, 0x00);
	}
	wrmsr(0xc0000102, 0x1234500000 + me);	/* KERNEL_GS_BASE */
	irq_on();
	for (;;) {
		for (i = 0; i < 40; i++) {
			u64 page = next(&seed) % ROOM;

			*(volatile u64 *)(HEAP_GPA + page * PAGE + 8 * (next(&seed) % 512)) = seed;
		}
		touch_fpu(seed);
		seeds[me] = seed;
		turns[me]++;
		if (turns[me] % 3 == 0)
			apic_icr(!me, IPI);
		guest_sync(turns[me]);
	}
}

FIXTURE(busy) {
	struct vm *vm;
	struct vcpu *v[2];
	struct blob *a, *b, *c;
	struct keel_state arg;
};

FIXTURE_VARIANT(busy) {
	u32 x2apic;
};

FIXTURE_VARIANT_ADD(busy, xapic) { };
FIXTURE_VARIANT_ADD(busy, x2apic) { .x2apic = 1 };

FIXTURE_SETUP(busy)
{
	struct kvm_pit_config pit = { 0 };
	int i;

	self->vm = vm_new(VM_IRQCHIP);
	must(ioctl(self->vm->fd, KVM_CREATE_PIT2, &pit));
	for (i = 0; i < 2; i++) {
		self->v[i] = vcpu_new(self->vm, i);
		vcpu_long(self->v[i], busy_guest, i);
	}
	guest_var(self->vm, x2apic) = variant->x2apic;
	self->a = calloc(1, sizeof(*self->a));
	self->b = calloc(1, sizeof(*self->b));
	self->c = calloc(1, sizeof(*self->c));
}

FIXTURE_TEARDOWN(busy)
{
	vm_free(self->vm);
}

/* The state is @want.  Timers go on: what has come to its time since it was set is no fault, but it does not each time */
static const char *set_again(struct vm *vm, const struct blob *want, struct blob *is)
{
	const char *differs = "";
	struct keel_state arg;
	int i;

	for (i = 0; i < 500; i++) {		/* a busy machine may take longer than a timer, now and then */
		if (state_set(vm, want, 0, &arg) || state_get(vm, is, &arg))
			return strerror(errno);
		differs = difference(want, is);
		if (!*differs)
			break;
	}
	return differs;
}

static void run_turns(struct vcpu *v[2], int n)
{
	int i;

	for (i = 0; i < n; i++) {
		vcpu_sync(v[i & 1]);
		vcpu_settle(v[i & 1]);
	}
}

#define SOON	10000000UL	/* ns */

/* Is a timer so near to its time that it comes to it each time before somebody looks? */
static bool ticks_soon(struct blob *b)
{
	const struct keel_state_clock *clock = section_of(b, KEEL_SECTION_CLOCK, -1);
	const struct keel_state_pit *pit = section_of(b, KEEL_SECTION_PIT, -1);
	int i;

	if (pit->armed && pit->expires - clock->mono_ns < SOON)
		return true;
	for (i = 0; i < 2; i++) {
		const struct keel_state_lapic *l = section_of(b, KEEL_SECTION_LAPIC, i);

		if (l->due || (l->expires && l->expires - clock->mono_ns < SOON))
			return true;
	}
	return false;
}

/* After at least @n turns */
static void state_after(struct vm *vm, struct vcpu *v[2], int n, struct blob *b)
{
	struct keel_state arg;

	do {
		run_turns(v, n);
		if (state_get(vm, b, &arg))
			die("KEEL_GET_STATE: %s", strerror(errno));
	} while (ticks_soon(b));
}

TEST_F(busy, same_again)
{
	int round;

	for (round = 0; round < 6; round++) {
		state_after(self->vm, self->v, 5, self->a);
		state_after(self->vm, self->v, 4 + round, self->b);
		EXPECT_STRNE("", difference(self->a, self->b));
		ASSERT_STREQ("", set_again(self->vm, self->a, self->c));
		/* And from another one back to the second */
		ASSERT_STREQ("", set_again(self->vm, self->b, self->c));
	}
	/* All that ticks still does */
	for (round = 0; round < 100 && !guest_var(self->vm, guest_irqs[PIT_IRQ]); round++) {
		run_turns(self->v, 20);
		sleep_ms(10);
	}
	EXPECT_NE(0, guest_var(self->vm, guest_irqs[TICK]));
	EXPECT_NE(0, guest_var(self->vm, guest_irqs[IPI]));
	EXPECT_NE(0, guest_var(self->vm, guest_irqs[PIT_IRQ]));
}

/* A look changes nothing; another one finds the same but for what time does */
TEST_F(busy, look)
{
	const char *differs = "never looked";
	int i;

	/* A timer may come in between */
	for (i = 0; *differs && i < 500; i++) {
		state_after(self->vm, self->v, 5, self->a);
		ASSERT_EQ(0, state_get(self->vm, self->b, &self->arg));
		differs = difference(self->a, self->b);
	}
	ASSERT_STREQ("", differs);
	ASSERT_EQ(0, state_set(self->vm, self->a, KEEL_TIME_GOES_ON, &self->arg));
	run_turns(self->v, 2);
}

/* Another VM set up the same goes on with it */
TEST_F(busy, elsewhere)
{
	struct kvm_pit_config pit = { 0 };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v[2];
	int i;

	must(ioctl(vm->fd, KVM_CREATE_PIT2, &pit));
	for (i = 0; i < 2; i++)
		v[i] = vcpu_new(vm, i);
	state_after(self->vm, self->v, 6, self->a);
	memcpy(vm->mem, self->vm->mem, MEM_SIZE);
	ASSERT_STREQ("", set_again(vm, self->a, self->b));
	run_turns(v, 10);
	EXPECT_EQ(guest_var(vm, turns[0]), guest_var(self->vm, turns[0]) + 5);
	vm_free(vm);
}

TEST_F(busy, errors)
{
	struct keel_state *arg = &self->arg;
	struct keel_state_events *e;
	struct keel_state_pit *pit;
	struct keel_section *s;
	u64 was;

	stay_on(0, 0);
	guest_var(self->vm, quiet) = 1;
	run_turns(self->v, 5);
	ASSERT_EQ(0, state_get(self->vm, self->a, arg));

	arg->size = 100;
	EXPECT_EQ(-E2BIG, xioctl(self->vm->fd, KEEL_GET_STATE, arg));
	EXPECT_EQ(self->a->size, arg->size);
	arg->data = 8;
	EXPECT_EQ(-EFAULT, xioctl(self->vm->fd, KEEL_GET_STATE, arg));
	arg->flags = KEEL_TIME_GOES_ON;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_GET_STATE, arg));
	EXPECT_EQ(-EINVAL, state_set(self->vm, self->a, 2, arg));

	run_turns(self->v, 3);
	ASSERT_EQ(0, state_get(self->vm, self->b, arg));
#define REFUSED(err, what, sec, cpu) do {						\
	memcpy(self->c, self->a, sizeof(*self->a));					\
	what;										\
	EXPECT_EQ(err, state_set(self->vm, self->c, 0, arg));				\
	EXPECT_EQ(sec, arg->section.id);						\
	EXPECT_EQ(cpu, (int)arg->section.vcpu);						\
	ASSERT_EQ(0, state_get(self->vm, self->c, arg));				\
	EXPECT_STREQ("", difference(self->b, self->c));					\
} while (0)
#define IN(id, vcpu)	section_of(self->c, id, vcpu)
	REFUSED(-EINVAL, self->c->data[0]++, 0, 0);
	REFUSED(-EPROTO, self->c->data[8]++, 0, 0);
	REFUSED(-EINVAL, self->c->size = 8, 0, 0);
	REFUSED(-ENODEV, self->c->size = 16, KEEL_SECTION_CLOCK, -1);
	REFUSED(-EINVAL, self->c->size -= 8, KEEL_SECTION_LAPIC, 1);
	REFUSED(-EINVAL, self->c->data[12]++, 0, 0);
	REFUSED(-EPROTO, (s = IN(KEEL_SECTION_PV, 1), s[-1].id = 4711), 4711, 1);
	REFUSED(-ENODEV, (s = IN(KEEL_SECTION_PV, 1), s[-1].vcpu = 7), KEEL_SECTION_PV, 7);
	REFUSED(-ENODEV, (s = IN(KEEL_SECTION_PV, 1), s[-1].id = KEEL_SECTION_MCE), KEEL_SECTION_MCE, 1);
	REFUSED(-EINVAL, (s = IN(KEEL_SECTION_PV, 0), s[-1].length = 0xfffffff0), KEEL_SECTION_PV, 0);
	REFUSED(-EINVAL, (s = IN(KEEL_SECTION_MSRS, 0), s[-1].length += 16), KEEL_SECTION_MSRS, 0);
	/* Values, after others were set already */
	REFUSED(-EINVAL, ((struct kvm_sregs2 *)IN(KEEL_SECTION_SREGS, 1))->cr4 = ~0ULL, KEEL_SECTION_SREGS, 1);
	REFUSED(-EINVAL, ((struct kvm_msr_entry *)IN(KEEL_SECTION_MSRS, 1))->index = 0x10, KEEL_SECTION_MSRS, 1);
	REFUSED(-EINVAL, (e = IN(KEEL_SECTION_EVENTS, 1), e->injected.type = 9), KEEL_SECTION_EVENTS, 1);
	REFUSED(-EINVAL, (e = IN(KEEL_SECTION_EVENTS, 1), e->mp_state = 77), KEEL_SECTION_EVENTS, 1);
	REFUSED(-EINVAL, (pit = IN(KEEL_SECTION_PIT, -1), pit->period = 1), KEEL_SECTION_PIT, -1);
	/* a TSC that is faster than any that can be asked for */
	REFUSED(-EINVAL, ((struct keel_state_clock *)IN(KEEL_SECTION_CLOCK, -1))->line_ratio = ~1ULL, KEEL_SECTION_CLOCK, -1);
	REFUSED(-EINVAL, *(u64 *)(IN(KEEL_SECTION_FPU, 0) + sizeof(struct keel_state_fpu) + 520) = 1, KEEL_SECTION_FPU, 0);
	was = guest_var(self->vm, turns[0]);
	run_turns(self->v, 2);
	EXPECT_LT(was, guest_var(self->vm, turns[0]));
}

/* ---- the TSC: as if no time had gone by, or all of it ---- */

static void tsc_guest(u64 me)
{
	static volatile u64 tsc;

	for (;;) {
		tsc = rdtsc();
		guest_sync(0);
		guest_sync(tsc);
		guest_sync(tsc >> 32);
	}
}

static u64 guest_tsc(struct vcpu *v)
{
	u64 low;

	vcpu_sync(v);
	low = vcpu_sync(v);
	low |= (u64)vcpu_sync(v) << 32;
	vcpu_settle(v);
	return low;
}

TEST(time_moves)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct blob *b = calloc(1, sizeof(*b));
	u64 first, then, back, khz;
	struct keel_state arg;
	int flag;

	vcpu_long(v, tsc_guest, 0);
	guest_tsc(v);
	khz = must(ioctl(v->fd, KVM_GET_TSC_KHZ, 0));
	for (flag = 0; flag < 2; flag++) {
		first = guest_tsc(v);
		ASSERT_EQ(0, state_get(vm, b, &arg));
		sleep_ms(2000);
		then = guest_tsc(v);
		EXPECT_LT(first + khz * 1900, then);
		ASSERT_EQ(0, state_set(vm, b, flag ? KEEL_TIME_GOES_ON : 0, &arg));
		back = guest_tsc(v);
		if (flag) {
			EXPECT_LT(then, back);
		} else {
			EXPECT_LT(first, back);
			EXPECT_LT(back, then);
		}
	}
	vm_free(vm);
}

TEST(info)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct keel_info a = { .reserved[3] = 1 }, b;

	ASSERT_EQ(0, xioctl(vm->sys, KEEL_GET_INFO, &a));
	ASSERT_EQ(0, xioctl(vm->fd, KEEL_GET_INFO, &b));
	EXPECT_EQ(0, memcmp(&a, &b, sizeof(a)));
	EXPECT_EQ(0, a.reserved[3]);
	EXPECT_EQ(KEEL_FEATURE_STATE, a.features & KEEL_FEATURE_STATE);
	EXPECT_EQ(KEEL_STATE_VERSION, a.state_version);
	vm_free(vm);
}

/* A vCPU's thread is in KVM_RUN, halted */
TEST(busy_vcpu)
{
	struct kvm_msi msi = { .address_lo = 0xfee01000, .data = IPI };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v[2] = { vcpu_new(vm, 0), vcpu_new(vm, 1) };
	struct blob *b = calloc(1, sizeof(*b));
	struct keel_state arg;
	pthread_t t;
	int i;

	vcpu_long(v[0], halting_guest, 0);
	vcpu_long(v[1], halting_guest, 1);
	pthread_create(&t, NULL, runs, v[1]);
	for (i = 0; i < 10000 && !vcpu_stat(v[1], "halt_exits"); i++)
		sleep_ms(1);
	EXPECT_EQ(-EBUSY, state_get(vm, b, &arg));
	EXPECT_EQ(1, arg.section.vcpu);
	must(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
	pthread_join(t, NULL);
	vcpu_settle(v[1]);
	EXPECT_EQ(0, state_get(vm, b, &arg));
	vm_free(vm);
}

/* One is in the midst of an exit */
static void reading_guest(u64 me)
{
	guest_eq(mmio_read32(HOLE_GPA), 0x1234);
	guest_sync(1);
}

TEST(unfinished)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	struct blob *b = calloc(1, sizeof(*b)), *back = calloc(1, sizeof(*b));
	struct keel_snapshot snap = { 0 };
	struct keel_state arg;
	int i;

	vcpu_long(v, reading_guest, 0);
	ASSERT_EQ(0, state_get(vm, back, &arg));
	for (i = 0; i < 2; i++) {
		*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA, 4)->mmio.data = 0x1234;
		EXPECT_EQ(-EINPROGRESS, state_get(vm, b, &arg));
		EXPECT_EQ(0, arg.section.vcpu);
		EXPECT_EQ(-EINPROGRESS, xioctl(vm->fd, KEEL_SNAPSHOT, &snap));
		vcpu_settle(v);
		ASSERT_EQ(0, state_get(vm, b, &arg));
		EXPECT_EQ(1, vcpu_sync(v));
		vcpu_settle(v);
		ASSERT_EQ(0, state_set(vm, b, 0, &arg));
		EXPECT_EQ(1, vcpu_sync(v));
		vcpu_settle(v);
		ASSERT_EQ(0, state_set(vm, back, 0, &arg));
	}
	/* But a reset throws it away */
	must(ioctl(vm->fd, KEEL_SNAPSHOT, &snap));
	for (i = 0; i < 3; i++) {
		struct keel_reset r = { .id = snap.id, .flags = KEEL_RESET_MEMORY };

		*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA, 4)->mmio.data = 0x1234;
		EXPECT_EQ(-EINPROGRESS, xioctl(vm->fd, KEEL_RESET, &r));
		r.flags = 0;
		ASSERT_EQ(0, xioctl(vm->fd, KEEL_RESET, &r));
	}
	*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA, 4)->mmio.data = 0x1234;
	EXPECT_EQ(1, vcpu_sync(v));
	vm_free(vm);
}

/* ------------------------------------------------------------------ snapshots */

static int resets(void)
{
	const char *n = getenv("RESETS");

	return n ? atoi(n) : 150;
}

static void *one_turn(void *arg)
{
	vcpu_sync(arg);
	vcpu_settle(arg);
	return NULL;
}

/* Memory and state are the same after each reset, whatever two vCPUs at once did between */
TEST_F_TIMEOUT(busy, resets, 3600)
{
	struct vm *vm = self->vm;
	u64 want, heap, pages, all = 0;
	const char *differs;
	int i, tries, n = resets();
	pthread_t t[2];
	u32 id;

	do {
		run_turns(self->v, 6);
		id = snapshot(vm);
		EXPECT_LT(0, id);
		ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
		ASSERT_EQ(0, state_get(vm, self->a, &self->arg));
		if (!ticks_soon(self->a))
			break;
		ASSERT_EQ(0, xioctl(vm->fd, KEEL_DROP, id));
	} while (true);
	want = hash(vm->mem, MEM_SIZE);
	heap = hash(vm->mem + HEAP_GPA, ROOM * PAGE);
	for (i = 0; i < n; i++) {
		if (i % 8) {
			run_turns(self->v, 1 + i % 5);
		} else {
			pthread_create(&t[0], NULL, one_turn, self->v[0]);
			pthread_create(&t[1], NULL, one_turn, self->v[1]);
			pthread_join(t[0], NULL);
			pthread_join(t[1], NULL);
		}
		ASSERT_EQ(0, reset_to(vm, id, 0, &pages));
		all += pages;
		/* All of it takes the emulated machine longer than the rest */
		if (i % 8 == 0 || i == n - 1) {
			ASSERT_EQ(want, hash(vm->mem, MEM_SIZE)) TH_LOG("after %d resets", i);
		}
		ASSERT_EQ(heap, hash(vm->mem + HEAP_GPA, ROOM * PAGE)) TH_LOG("after %d resets", i);
		for (tries = 0; tries < 500; tries++) {
			ASSERT_EQ(0, state_get(vm, self->b, &self->arg));
			differs = difference(self->a, self->b);
			if (!*differs)
				break;
			ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
		}
		ASSERT_STREQ("", differs);
	}
	EXPECT_LE(n * 20, all);
	EXPECT_NE(0, fd_stat(vm->fd, "snapshot_pages"));
	EXPECT_EQ(0, xioctl(vm->fd, KEEL_DROP, id));
	EXPECT_EQ(0, fd_stat(vm->fd, "snapshot_pages"));
	EXPECT_EQ(-ENOENT, reset_to(vm, id, 0, NULL));
	run_turns(self->v, 6);
}

/* ---- what is in memory, without a guest's clock ---- */

#define PAGES	256
#define BASE	0x40000000UL

struct order {
	u64 page, value;
};

static volatile struct order orders[64];
static volatile u32 nr_orders;

/* Writes what it is told, and reads back the sum of all */
static void obedient_guest(u64 me)
{
	u32 i;

	for (;;) {
		for (i = 0; i < nr_orders; i++)
			*(volatile u64 *)(BASE + orders[i].page * PAGE + 8 * (orders[i].value % 512)) = orders[i].value;
		guest_sync(0);
	}
}

FIXTURE(tree) {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem;
	u64 seed;
};

FIXTURE_VARIANT(tree) {
	bool huge;
	u32 flags;
	u32 ring;
};

FIXTURE_VARIANT_ADD(tree, small) { };
FIXTURE_VARIANT_ADD(tree, huge) { .huge = true };
FIXTURE_VARIANT_ADD(tree, logged) { .flags = KVM_MEM_LOG_DIRTY_PAGES };
FIXTURE_VARIANT_ADD(tree, ring) { .flags = KVM_MEM_LOG_DIRTY_PAGES, .ring = 1 };

FIXTURE_SETUP(tree)
{
	u8 *p = mem_alloc(2 * PAGES * PAGE + 0x200000);

	self->vm = vm_new(VM_PLAIN);
	if (variant->ring)
		must(vm_enable_cap(self->vm, KVM_CAP_DIRTY_LOG_RING, 16 * 4096));
	self->v = vcpu_new(self->vm, 0);
	vcpu_long(self->v, obedient_guest, 0);
	p = (u8 *)(((u64)p + 0x1fffff) & ~0x1fffffUL);
	madvise(p, 0x200000, variant->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(p, 1, PAGES * PAGE);
	self->mem = p;
	vm_slot(self->vm, 1, BASE, PAGES * PAGE, p, variant->flags);
	self->seed = 77;
}

FIXTURE_TEARDOWN(tree)
{
	vm_free(self->vm);
}

static void write_some(FIXTURE_DATA(tree) *self, u32 n)
{
	struct vm *vm = self->vm;
	u32 i;

	for (i = 0; i < n; i++) {
		guest_var(vm, orders[i].page) = next(&self->seed) % PAGES;
		guest_var(vm, orders[i].value) = next(&self->seed);
	}
	guest_var(vm, nr_orders) = n;
	vcpu_sync(self->v);
	vcpu_settle(self->v);
}

/* All pages that differ are in the log; taken out of it by this */
static bool all_logged(struct vm *vm, const u8 *mem, const u8 *was)
{
	u64 bits[PAGES / 64];
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bits };
	int i;

	must(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	for (i = 0; i < PAGES; i++)
		if (memcmp(mem + i * PAGE, was + i * PAGE, PAGE) && !(bits[i / 64] >> (i % 64) & 1))
			return false;
	return true;
}

/* What the VMM harvests of the ring, likewise */
static bool all_in_ring(struct vcpu *v, struct kvm_dirty_gfn *ring, u32 *at, const u8 *mem, const u8 *was)
{
	u64 bits[PAGES / 64] = { 0 };
	int i;

	for (; ring[*at % 4096].flags & KVM_DIRTY_GFN_F_DIRTY; ++*at) {
		if (ring[*at % 4096].slot == 1)
			bits[ring[*at % 4096].offset / 64] |= 1UL << ring[*at % 4096].offset % 64;
		ring[*at % 4096].flags = KVM_DIRTY_GFN_F_RESET;
	}
	must(ioctl(v->vm->fd, KVM_RESET_DIRTY_RINGS, 0));
	for (i = 0; i < PAGES; i++)
		if (memcmp(mem + i * PAGE, was + i * PAGE, PAGE) && !(bits[i / 64] >> (i % 64) & 1))
			return false;
	return true;
}

#define NODES	24

/* Any walk in a tree that grows and shrinks finds each as it was, and the dirty log knows of all that changed */
TEST_F_TIMEOUT(tree, walk, 400)
{
	struct node {
		u32 id;
		int parent, children;
		u64 hash;
	} node[NODES] = { 0 };
	struct kvm_dirty_gfn *ring = NULL;
	u8 *was = malloc(PAGES * PAGE);
	int i, at = -1, to, rounds = 200;
	u32 ring_at = 0;
	u64 pages;

	if (variant->ring) {
		ring = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, self->v->fd, KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);
		ASSERT_NE(MAP_FAILED, ring);
	}
	memcpy(was, self->mem, PAGES * PAGE);
	for (i = 0; i < rounds; i++) {
		write_some(self, next(&self->seed) % 24);
		to = next(&self->seed) % NODES;
		if (at < 0 || !node[to].id) {
			node[to] = (struct node){ .id = snapshot(self->vm), .parent = at, .hash = hash(self->mem, PAGES * PAGE) };
			if (at >= 0)
				node[at].children++;
			at = to;
		} else if (next(&self->seed) % 4 == 0 && !node[to].children && node[to].parent >= 0) {
			u64 before = hash(self->mem, PAGES * PAGE);

			ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_DROP, node[to].id));
			ASSERT_EQ(before, hash(self->mem, PAGES * PAGE));
			node[node[to].parent].children--;
			if (at == to)
				at = node[to].parent;
			node[to].id = 0;
		} else {
			if (node[to].children) {
				EXPECT_EQ(-ENOTEMPTY, xioctl(self->vm->fd, KEEL_DROP, node[to].id));
			}
			/* Often, so that pages get hot */
			if (next(&self->seed) % 2)
				to = at;
			ASSERT_EQ(0, reset_to(self->vm, node[to].id, KEEL_RESET_MEMORY, &pages));
			ASSERT_EQ(node[to].hash, hash(self->mem, PAGES * PAGE)) TH_LOG("round %d", i);
			at = to;
		}
		if (variant->ring) {
			ASSERT_TRUE(all_in_ring(self->v, ring, &ring_at, self->mem, was));
		} else if (variant->flags) {
			ASSERT_TRUE(all_logged(self->vm, self->mem, was));
		}
		memcpy(was, self->mem, PAGES * PAGE);
	}
	free(was);
}

/* Pages that each run writes cost no exit any more, and are put back all the same */
TEST_F(tree, hot)
{
	struct keel_info info;
	u64 want, faults = 0, pages, value = 3, i, first = 0, second = 0, last = 0;
	u32 id;

	must(ioctl(self->vm->fd, KEEL_GET_INFO, &info));
	id = snapshot(self->vm);
	want = hash(self->mem, PAGES * PAGE);
	for (i = 0; i < 24; i++) {
		u32 n;

		/* All 32 now and then; fewer for a while, and others */
		guest_var(self->vm, nr_orders) = 32;
		for (n = 0; n < 32; n++) {
			guest_var(self->vm, orders[n].page) = i < 16 ? 3 * n : 100 + n;
			guest_var(self->vm, orders[n].value) = value++;
		}
		faults = vcpu_stat(self->v, "page_faults");
		vcpu_sync(self->v);
		vcpu_settle(self->v);
		faults = vcpu_stat(self->v, "page_faults") - faults;
		if (i == 0)
			first = faults;
		if (i == 1)
			second = faults;
		if (i == 14)
			last = faults;
		ASSERT_NE(want, hash(self->mem, PAGES * PAGE));
		ASSERT_EQ(0, reset_to(self->vm, id, 0, &pages));
		EXPECT_LE(32, pages);
		ASSERT_EQ(want, hash(self->mem, PAGES * PAGE)) TH_LOG("run %lu", (unsigned long)i);
	}
	EXPECT_LE(32, first);
	if (info.features & KEEL_FEATURE_WORKING_SET && !variant->flags) {
		EXPECT_GT(8, second);
		EXPECT_GT(8, last);
	} else {
		EXPECT_LE(32, second);
		EXPECT_LE(32, last);
	}
}

/* One that is not written any more is not looked at for long: its next write is an exit again */
TEST_F(tree, cold)
{
	u64 want, faults = 0, pages = 0, i;
	u32 id;

	id = snapshot(self->vm);
	want = hash(self->mem, PAGES * PAGE);
	for (i = 0; i < 16; i++) {
		guest_var(self->vm, nr_orders) = i == 0 || i == 15;
		guest_var(self->vm, orders[0].page) = 7;
		guest_var(self->vm, orders[0].value) = 99 + i;
		faults = vcpu_stat(self->v, "page_faults");
		vcpu_sync(self->v);
		vcpu_settle(self->v);
		faults = vcpu_stat(self->v, "page_faults") - faults;
		ASSERT_EQ(0, reset_to(self->vm, id, 0, &pages));
		ASSERT_EQ(want, hash(self->mem, PAGES * PAGE)) TH_LOG("run %lu", (unsigned long)i);
	}
	EXPECT_LE(1, faults);
	EXPECT_LE(1, pages);
}

/* What a child has otherwise is what was written, not what was looked at */
TEST_F(tree, delta_of_hot)
{
	u32 parent, child;
	u64 pages = 0;

	parent = snapshot(self->vm);
	write_some(self, 24);
	ASSERT_EQ(0, reset_to(self->vm, parent, KEEL_RESET_MEMORY, NULL));
	child = snapshot(self->vm);
	ASSERT_EQ(0, reset_to(self->vm, parent, KEEL_RESET_MEMORY, &pages));
	if (!variant->flags) {
		EXPECT_GT(16, pages);
	}
	write_some(self, 24);
	ASSERT_EQ(0, reset_to(self->vm, child, KEEL_RESET_MEMORY, NULL));
	EXPECT_EQ(1, self->mem[0]);
}

/* A page that is not there any more in the host's tables has been written, for all that is known */
TEST_F(tree, hot_and_gone)
{
	u64 want, i;
	u32 id;

	id = snapshot(self->vm);
	want = hash(self->mem, PAGES * PAGE);
	for (i = 0; i < 12; i++) {
		guest_var(self->vm, nr_orders) = 1;
		guest_var(self->vm, orders[0].page) = 5;
		guest_var(self->vm, orders[0].value) = i;
		vcpu_sync(self->v);
		vcpu_settle(self->v);
		if (i >= 8) {
			/* Out of keel's tables, with what the CPU noted there */
			must(mprotect(self->mem, PAGES * PAGE, PROT_READ));
			must(mprotect(self->mem, PAGES * PAGE, PROT_READ | PROT_WRITE));
		}
		ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
		ASSERT_EQ(want, hash(self->mem, PAGES * PAGE)) TH_LOG("run %lu", (unsigned long)i);
	}
}

static int mark(struct vm *vm, u64 gpa, u64 size)
{
	struct keel_range r = { .gpa = gpa, .size = size };

	return xioctl(vm->fd, KEEL_MARK_DIRTY, &r);
}

/* The VMM's own writes: undone if it said so before, kept if after */
TEST_F(tree, marked)
{
	struct keel_range bad = { .gpa = BASE, .size = 1, .flags = 1 };
	u32 id;

	EXPECT_EQ(0, mark(self->vm, BASE, PAGES * PAGE));	/* for nobody */
	id = snapshot(self->vm);
	EXPECT_EQ(0, mark(self->vm, BASE + 10, 2 * PAGE));
	self->mem[0] = self->mem[2 * PAGE] = self->mem[3 * PAGE] = 9;
	EXPECT_EQ(0, mark(self->vm, BASE + 3 * PAGE, 1));
	ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	EXPECT_EQ(1, self->mem[0]);
	EXPECT_EQ(1, self->mem[2 * PAGE]);
	EXPECT_EQ(9, self->mem[3 * PAGE]);
	EXPECT_EQ(0, mark(self->vm, BASE, 0));
	EXPECT_EQ(-ENOENT, mark(self->vm, BASE, (PAGES + 1) * PAGE));
	EXPECT_EQ(-ENOENT, mark(self->vm, ~0UL, 1));
	EXPECT_EQ(-EINVAL, mark(self->vm, ~0UL, 2));
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_MARK_DIRTY, &bad));
	bad = (struct keel_range){ .gpa = BASE, .size = 1, .space = 2 };
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_MARK_DIRTY, &bad));
}

static void idle_guest(u64 arg)
{
	for (;;)
		guest_sync(0);
}

/*
 * What nobody has touched is zeroes, which the host may have a large page of: who writes there before the guest is
 * undone, too
 */
TEST(untouched)
{
	u64 size = 4UL << 20, gpa = 4 * MEM_SIZE;
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	u8 *mem = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u32 id;

	ASSERT_NE(MAP_FAILED, mem);
	mem = (u8 *)(((u64)mem + size - 1) & -size);
	madvise(mem, size, MADV_HUGEPAGE);
	vm_slot(vm, 1, gpa, size, mem, 0);
	vcpu_long(v, idle_guest, 0);
	vcpu_sync(v);
	vcpu_settle(v);
	ASSERT_EQ(1, vcpu_set_msr(v, MSR_KVM_SYSTEM_TIME_NEW, (gpa + size / 2) | 1));
	id = snapshot(vm);
	EXPECT_EQ(0, mark(vm, gpa + 5 * PAGE, 1));
	mem[5 * PAGE] = 9;
	vcpu_sync(v);		/* the clock's page */
	vcpu_settle(v);
	EXPECT_NE(0, *(u32 *)(mem + size / 2));
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(0, mem[5 * PAGE]);
	EXPECT_EQ(0, *(u32 *)(mem + size / 2));
	vm_free(vm);
}

/* Memslots stay as they are */
TEST_F(tree, slots)
{
	void *more = mem_alloc(PAGE);
	u32 id = snapshot(self->vm);

	EXPECT_EQ(-EBUSY, vm_try_slot(self->vm, 2, 2 * BASE, PAGE, more, 0));
	EXPECT_EQ(-EBUSY, vm_try_slot(self->vm, 1, BASE, 0, self->mem, 0));
	EXPECT_EQ(-EBUSY, vm_try_slot(self->vm, 1, 2 * BASE, PAGES * PAGE, self->mem, variant->flags));
	EXPECT_EQ(0, vm_try_slot(self->vm, 1, BASE, PAGES * PAGE, self->mem, KVM_MEM_LOG_DIRTY_PAGES));
	EXPECT_EQ(0, vm_try_slot(self->vm, 1, BASE, PAGES * PAGE, self->mem, 0));
	write_some(self, 20);
	EXPECT_EQ(0, reset_to(self->vm, id, 0, NULL));
	EXPECT_EQ(1, self->mem[8]);
	EXPECT_EQ(0, xioctl(self->vm->fd, KEEL_DROP, id));
	EXPECT_EQ(0, vm_try_slot(self->vm, 2, 2 * BASE, PAGE, more, 0));
	EXPECT_EQ(0, vm_try_slot(self->vm, 1, BASE, 0, self->mem, 0));
}

/* Memory that stands in two places */
TEST_F(tree, aliased)
{
	u64 want, i;
	u32 id;

	vm_slot(self->vm, 2, BASE + 0x10000000, PAGES * PAGE, self->mem, 0);
	id = snapshot(self->vm);
	want = hash(self->mem, PAGES * PAGE);
	for (i = 0; i < 12; i++) {
		u32 n;

		for (n = 0; n < 16; n++) {
			guest_var(self->vm, orders[n].page) = n / 2 + (n % 2 ? 0x10000 : 0);
			guest_var(self->vm, orders[n].value) = 17 * i + n;
		}
		guest_var(self->vm, nr_orders) = 16;
		vcpu_sync(self->v);
		vcpu_settle(self->v);
		ASSERT_NE(want, hash(self->mem, PAGES * PAGE));
		ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
		ASSERT_EQ(want, hash(self->mem, PAGES * PAGE)) TH_LOG("run %lu", (unsigned long)i);
	}
}

TEST_F(tree, limits)
{
	struct keel_snapshot s = { 0 };
	struct keel_reset r = { 0 };
	struct keel_info info;
	u32 i, id[300];
	void *told;

	must(ioctl(self->vm->fd, KEEL_GET_INFO, &info));
	ASSERT_LE(256, info.max_snapshots);
	ASSERT_LE(64, info.max_depth);
	EXPECT_EQ(-ENOENT, reset_to(self->vm, 1, 0, NULL));
	EXPECT_EQ(-ENOENT, xioctl(self->vm->fd, KEEL_DROP, 1));
	s.flags = 1;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_SNAPSHOT, &s));
	/* Where its number cannot be told there is none: slots still change */
	told = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT_EQ(-EFAULT, xioctl(self->vm->fd, KEEL_SNAPSHOT, told));
	EXPECT_EQ(0, vm_try_slot(self->vm, 9, 1UL << 33, PAGE, mem_alloc(PAGE), 0));
	for (i = 0; i < info.max_depth; i++)
		id[i] = snapshot(self->vm);
	s.flags = 0;
	EXPECT_EQ(-E2BIG, xioctl(self->vm->fd, KEEL_SNAPSHOT, &s));
	ASSERT_EQ(0, reset_to(self->vm, id[0], 0, NULL));
	for (; i < info.max_snapshots; i++) {
		id[i] = snapshot(self->vm);
		ASSERT_EQ(0, reset_to(self->vm, id[0], 0, NULL));
	}
	EXPECT_EQ(-E2BIG, xioctl(self->vm->fd, KEEL_SNAPSHOT, &s));
	r.id = id[3];
	r.flags = 4;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_RESET, &r));
	r.flags = 0;
	r.reserved[1] = 1;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_RESET, &r));
	EXPECT_EQ(0, reset_to(self->vm, id[63], 0, NULL));
	EXPECT_EQ(-ENOTEMPTY, xioctl(self->vm->fd, KEEL_DROP, id[3]));
	EXPECT_EQ(-ENOENT, xioctl(self->vm->fd, KEEL_DROP, id[3] | 1UL << 32));
	EXPECT_EQ(0, xioctl(self->vm->fd, KEEL_DROP, id[100]));
	EXPECT_EQ(-ENOENT, xioctl(self->vm->fd, KEEL_DROP, id[100]));
	ASSERT_EQ(0, reset_to(self->vm, id[63], 0, NULL));
	EXPECT_EQ(-E2BIG, xioctl(self->vm->fd, KEEL_SNAPSHOT, &s));	/* as deep as it gets */
}

/* A VM set up otherwise is not what the snapshot is of */
TEST(another_vcpu)
{
	struct vm *vm = vm_new(VM_PLAIN);
	u32 id;

	vcpu_new(vm, 0);
	id = snapshot(vm);
	vcpu_new(vm, 1);
	EXPECT_EQ(-ENODEV, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(0, reset_to(vm, id, KEEL_RESET_MEMORY, NULL));
	vm_free(vm);
}

/* ---- what one MSR may be depends on another: whichever comes first ---- */

TEST(msrs_in_any_order)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	static struct blob without, with, is;
	struct keel_state arg;
	u32 id;

	stay_on(0, 0);
	/* That CPUID faults cannot be taken away from a guest in which it does */
	ASSERT_EQ(1, vcpu_set_msr(v, MSR_PLATFORM_INFO, 0));
	ASSERT_EQ(0, state_get(vm, &without, &arg));
	id = snapshot(vm);
	ASSERT_EQ(1, vcpu_set_msr(v, MSR_PLATFORM_INFO, MSR_PLATFORM_INFO_CPUID_FAULT));
	ASSERT_EQ(1, vcpu_set_msr(v, MSR_MISC_FEATURES_ENABLES, MSR_MISC_FEATURES_ENABLES_CPUID_FAULT));
	ASSERT_EQ(0, vcpu_set_msr(v, MSR_PLATFORM_INFO, 0));
	ASSERT_EQ(0, state_get(vm, &with, &arg));
	ASSERT_EQ(0, state_set(vm, &without, 0, &arg)) TH_LOG("section %u", arg.section.id);
	ASSERT_EQ(0, state_get(vm, &is, &arg));
	EXPECT_STREQ("", difference(&without, &is));
	ASSERT_EQ(0, state_set(vm, &with, 0, &arg)) TH_LOG("section %u", arg.section.id);
	ASSERT_EQ(0, state_get(vm, &is, &arg));
	EXPECT_STREQ("", difference(&with, &is));
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	ASSERT_EQ(0, state_get(vm, &is, &arg));
	EXPECT_STREQ("", difference(&without, &is));
	vm_free(vm);
}

/* ---- a step is the guest's own, though one for keel was asked for when the guest was left ---- */

static volatile u32 steps;

static void step_handler(struct guest_frame *f)
{
	steps++;
	f->rflags &= ~(u64)X86_EFLAGS_TF;
}

static void stepped_guest(u64 arg)
{
	guest_on(1, step_handler);
	guest_on(2, step_handler);
	guest_sync(0);
	asm volatile("nop; nop; nop" ::: "memory");
	guest_sync(steps);
}

TEST(step_of_another_state)
{
	struct {
		struct kvm_signal_mask h;
		u64 set;
	} __attribute__((packed)) none_blocked = { .h.len = 8 };
	static const struct timespec at_once;
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_vcpu_events e;
	struct kvm_regs r;
	sigset_t set, old;
	u32 id;

	vcpu_long(v, stepped_guest, 0);
	ASSERT_EQ(0, vcpu_sync(v));
	vcpu_settle(v);
	must(ioctl(v->fd, KVM_GET_REGS, &r));
	r.rflags |= X86_EFLAGS_TF;
	must(ioctl(v->fd, KVM_SET_REGS, &r));
	id = snapshot(vm);
	/* An NMI has to wait for the next instruction, to which it does not come: there is a signal */
	r.rflags &= ~(u64)X86_EFLAGS_TF;
	must(ioctl(v->fd, KVM_SET_REGS, &r));
	must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
	e.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	e.nmi.pending = 1;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	must(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	must(ioctl(v->fd, KVM_SET_SIGNAL_MASK, &none_blocked));
	raise(SIGUSR1);
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	EXPECT_EQ(SIGUSR1, sigtimedwait(&set, NULL, &at_once));
	must(ioctl(v->fd, KVM_SET_SIGNAL_MASK, NULL));
	sigprocmask(SIG_SETMASK, &old, NULL);
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(1, vcpu_sync(v));
	vm_free(vm);
}

/* ---- rings have to have room for the pages of logged slots, and no others ---- */

#define MANY	1280UL			/* more than the ring has room for, which is the least that VMX takes */

TEST(rings_of_another_slot)
{
	u8 *mem = mem_alloc(MANY * PAGE), *logged = mem_alloc(PAGE);
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v;
	u64 want;
	u32 id, i, n;

	must(vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, 4 * 4096));
	v = vcpu_new(vm, 0);
	vcpu_long(v, obedient_guest, 0);
	madvise(mem, MANY * PAGE, MADV_NOHUGEPAGE);
	memset(mem, 1, MANY * PAGE);
	vm_slot(vm, 1, BASE, MANY * PAGE, mem, 0);
	vm_slot(vm, 2, BASE + 2 * MANY * PAGE, PAGE, logged, 0);
	want = hash(mem, MANY * PAGE);
	id = snapshot(vm);
	guest_var(vm, nr_orders) = 64;
	for (i = 0; i < MANY; i += 64) {
		for (n = 0; n < 64; n++) {
			guest_var(vm, orders[n].page) = i + n;
			guest_var(vm, orders[n].value) = 3;
		}
		vcpu_sync(v);
		vcpu_settle(v);
	}
	ASSERT_EQ(0, reset_to(vm, id, KEEL_RESET_MEMORY, NULL));
	vm_slot(vm, 2, BASE + 2 * MANY * PAGE, PAGE, logged, KVM_MEM_LOG_DIRTY_PAGES);
	ASSERT_EQ(0, reset_to(vm, id, KEEL_RESET_MEMORY, NULL));
	EXPECT_EQ(want, hash(mem, MANY * PAGE));
	vm_free(vm);
}

/*
 * ---- asleep in a HLT that does not exit, it was not when the state was taken ----
 *
 * VMX says at an exit that the CPU was asleep, and makes no entry to sleep with an interrupt shadow.  The lab's emulator says
 * that it is awake, so that nothing is seen there if that is forgotten.
 */

static volatile u32 awake;

static void sleepy_guest(u64 arg)
{
	guest_sync(0);
	while (!awake)
		asm volatile("sti; hlt; cli");
	guest_sync(1);
}

static void nothing(int sig)
{
}

TEST(asleep)
{
	struct itimerval soon = { .it_value.tv_usec = 200000, .it_interval.tv_usec = 200000 }, never = { };
	struct sigaction act = { .sa_handler = nothing };
	struct vm *vm = vm_new(VM_PLAIN);
	struct kvm_vcpu_events e;
	struct vcpu *v;
	u32 id;

	if (vm_enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT)) {
		vm_free(vm);
		SKIP(return, "HLT exits on this machine");
	}
	v = vcpu_new(vm, 0);
	vcpu_long(v, sleepy_guest, 0);
	ASSERT_EQ(0, vcpu_sync(v));
	vcpu_settle(v);
	/* With an interrupt shadow no entry is made to sleep. */
	must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
	e.flags |= KVM_VCPUEVENT_VALID_SHADOW;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	must(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e));
	id = snapshot(vm);
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	setitimer(ITIMER_REAL, &never, NULL);
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	guest_var(vm, awake) = 1;
	EXPECT_EQ(1, vcpu_sync(v));
	vm_free(vm);
}

/* ---- a #DB that the CPU owes the guest belongs to the state: no more, no less ---- */

static u64 trap_dr6;

static void trap_handler(struct guest_frame *f)
{
	steps++;
	asm volatile("mov %%dr6, %0" : "=r"(trap_dr6));
	asm volatile("mov %0, %%dr6" :: "r"(0xffff0ff0UL));
}

static void trapped_guest(u64 arg)
{
	guest_on(1, trap_handler);
	guest_sync(0);
	asm volatile("nop; nop; nop" ::: "memory");
	guest_sync(steps);
}

TEST(traps)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	static struct blob without, with;
	struct keel_state_events *e;
	struct keel_state arg;
	u32 id;

	stay_on(0, 0);
	vcpu_long(v, trapped_guest, 0);
	ASSERT_EQ(0, vcpu_sync(v));
	vcpu_settle(v);
	id = snapshot(vm);
	ASSERT_EQ(0, state_get(vm, &without, &arg));
	e = section_of(&without, KEEL_SECTION_EVENTS, 0);
	EXPECT_EQ(0, e->traps);
	memcpy(&with, &without, sizeof(with));
	e = section_of(&with, KEEL_SECTION_EVENTS, 0);
	e->traps = 1 << 13;
	EXPECT_EQ(-EINVAL, state_set(vm, &with, 0, &arg));
	e->traps = 1 << 12 | 1;
	if (state_set(vm, &with, 0, &arg)) {
		EXPECT_EQ(KEEL_SECTION_EVENTS, arg.section.id);
		vm_free(vm);
		SKIP(return, "this CPU tells nothing of traps");
	}
	ASSERT_EQ(0, state_get(vm, &without, &arg));
	EXPECT_STREQ("", difference(&with, &without));
	/* What is owed is not owed any more to the guest that was reset. */
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	ASSERT_EQ(0, vcpu_sync(v));
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	ASSERT_EQ(0, state_set(vm, &with, 0, &arg));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(1, guest_var(vm, trap_dr6) & 0xf);
	vm_free(vm);
}

TEST_HARNESS_MAIN
