// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory slots: what is refused, move, delete and read-only, slots that go
 * while vCPUs use them, very many slots; dirty logging in both its forms.
 */
#include <sys/wait.h>
#include "test.h"

#define SLOT_GPA	0x10000000UL
#define MEM2		(2UL << 20)

FIXTURE(slot) {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem;		/* MEM2 bytes for the test's slots */
};

FIXTURE_SETUP(slot)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	self->mem = mem_alloc(MEM2);
}

FIXTURE_TEARDOWN(slot)
{
	vm_free(self->vm);
	munmap(self->mem, MEM2);
}

TEST_F(slot, refusals)
{
	struct vm *vm = self->vm;
	u8 *m = self->mem;
	u64 top = (u64)-4096;

	/* alignment, of each */
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA + 1, 4096, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 4095, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 4096, m + 8, 0));
	/* ranges */
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, top, 8192, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, top, 4096, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 4096,
				       (void *)0xffff800000000000UL, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 1ULL << 47,
				       (void *)0x7fffffff0000UL, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, 1ULL << 52, 4096, m, 0));
	/* flags, slot numbers, address spaces */
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 4096, m, 1 << 5));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, vm_cap(vm, KVM_CAP_NR_MEMSLOTS) + 3,
				       SLOT_GPA, 4096, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 0xffff, SLOT_GPA, 4096, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 7 << 16, SLOT_GPA, 4096, m, 0));
	/* nothing there to delete */
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 0, m, 0));
	EXPECT_EQ(0, vm_try_slot(vm, vm_cap(vm, KVM_CAP_NR_MEMSLOTS) - 1,
				 SLOT_GPA, 4096, m, 0));
}

/* What KVM_RUN says of memory that is not there; where it has nothing to say, it is an older KVM's */
#define EXPECT_FAULT(v, at) do {							\
	struct vcpu *ef = v;								\
	struct kvm_run_memory_fault *f = kvm_run_memory_fault(ef->run);			\
											\
	memset(f, 0xff, sizeof(*f));							\
	EXPECT_EQ(-EFAULT, xioctl(ef->fd, KVM_RUN, 0));					\
	if (faults_are_told(ef->vm)) {							\
		EXPECT_EQ(KVM_EXIT_MEMORY_FAULT, ef->run->exit_reason);			\
		EXPECT_EQ(at, f->gpa);							\
		EXPECT_EQ(4096, f->size);						\
		EXPECT_EQ(0, f->flags);							\
	}										\
} while (0)

/* KVM's own offers it for memory that is private to guests, and tells nothing of the other */
static bool faults_are_told(struct vm *vm)
{
	return vm_cap(vm, KVM_CAP_MEMORY_FAULT_INFO) && fd_stat(vm->fd, "memslot_stood_ns") != NO_STAT;
}

TEST_F(slot, overlap)
{
	struct vm *vm = self->vm;
	u8 *m = self->mem;

	vm_slot(vm, 1, SLOT_GPA, 0x4000, m, 0);
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, 2, SLOT_GPA, 0x4000, m, 0));
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, 2, SLOT_GPA + 0x1000, 0x1000, m, 0));
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, 2, SLOT_GPA - 0x1000, 0x2000, m, 0));
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, 2, SLOT_GPA + 0x3000, 0x2000, m, 0));
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, 2, SLOT_GPA - 0x1000, 0x6000, m, 0));
	EXPECT_EQ(0, vm_try_slot(vm, 2, SLOT_GPA - 0x1000, 0x1000, m, 0));
	EXPECT_EQ(0, vm_try_slot(vm, 3, SLOT_GPA + 0x4000, 0x1000, m, 0));
	/* a move onto another is refused and changes nothing */
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, 3, SLOT_GPA, 0x1000, m, 0));
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, 4, SLOT_GPA + 0x4000, 0x1000, m, 0));
	/* a move over its own old place is none */
	EXPECT_EQ(0, vm_try_slot(vm, 3, SLOT_GPA + 0x5000, 0x1000, m, 0));
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA + 0x1000, 0x4000, m, 0));
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA, 0, m, 0));
	EXPECT_EQ(0, vm_try_slot(vm, 4, SLOT_GPA, 0x4000, m, 0));
}

TEST_F(slot, changes)
{
	struct vm *vm = self->vm;
	u8 *m = self->mem;

	vm_slot(vm, 1, SLOT_GPA, 0x4000, m, 0);
	/* the same again is fine; another size, memory or kind is not */
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA, 0x4000, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 0x2000, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 0x8000, m, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 0x4000, m + 4096, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 0x4000, m,
				       KVM_MEM_READONLY));
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA, 0x4000, m,
				 KVM_MEM_LOG_DIRTY_PAGES));
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA, 0x4000, m, 0));
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA, 0, NULL, 0));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 0, NULL, 0));
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA, 0x2000, m, KVM_MEM_READONLY));
}

static int try_slot2(struct vm *vm, u64 gpa, u64 size, void *hva, u32 flags)
{
	struct kvm_userspace_memory_region2 r;

	/* What is a flag's alone is not looked at without it */
	memset(&r, 0xa5, sizeof(r));
	r.slot = 1;
	r.flags = flags;
	r.guest_phys_addr = gpa;
	r.memory_size = size;
	r.userspace_addr = (uintptr_t)hva;
	return xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &r);
}

static void longer_guest(u64 arg)
{
	volatile u32 *a = (u32 *)SLOT_GPA;

	guest_eq(a[0], 0x1234);
	a[1024] = 0x5678;
	guest_done(0);
}

/* The longer form: the same slots, refused for the same */
TEST_F(slot, longer_form)
{
	struct vm *vm = self->vm;
	u8 *m = self->mem;

	if (!vm_cap(vm, KVM_CAP_USER_MEMORY2)) {
		EXPECT_EQ(-ENOTTY, try_slot2(vm, SLOT_GPA, 0x2000, m, 0));
		SKIP(return, "no KVM_CAP_USER_MEMORY2");
	}
	EXPECT_EQ(vm_cap(vm, KVM_CAP_USER_MEMORY2), xioctl(vm->sys, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY2));
	EXPECT_EQ(-EFAULT, xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, (void *)8));
	EXPECT_EQ(-EINVAL, try_slot2(vm, SLOT_GPA + 1, 4096, m, 0));
	EXPECT_EQ(-EINVAL, try_slot2(vm, SLOT_GPA, 4095, m, 0));
	EXPECT_EQ(-EINVAL, try_slot2(vm, SLOT_GPA, 4096, m + 8, 0));
	EXPECT_EQ(-EINVAL, try_slot2(vm, SLOT_GPA, 4096, m, 1 << 5));
	EXPECT_EQ(-EINVAL, try_slot2(vm, SLOT_GPA, 0, m, 0));
	EXPECT_EQ(-EEXIST, try_slot2(vm, 0, 4096, m, 0));
	if (!vm_cap(vm, KVM_CAP_GUEST_MEMFD))
		EXPECT_EQ(-EINVAL, try_slot2(vm, SLOT_GPA, 4096, m, KVM_MEM_GUEST_MEMFD));
	EXPECT_EQ(-EINVAL, vm_try_slot(vm, 1, SLOT_GPA, 4096, m, KVM_MEM_GUEST_MEMFD));

	*(u32 *)m = 0x1234;
	EXPECT_EQ(0, try_slot2(vm, SLOT_GPA, 0x2000, m, 0));
	vcpu_long(self->v, longer_guest, 0);
	vcpu_done(self->v);
	EXPECT_EQ(0x5678, *(u32 *)(m + 4096));
	/* what one made the other changes */
	EXPECT_EQ(-EINVAL, try_slot2(vm, SLOT_GPA, 0x2000, m, KVM_MEM_READONLY));
	EXPECT_EQ(0, vm_try_slot(vm, 1, SLOT_GPA, 0x2000, m, KVM_MEM_LOG_DIRTY_PAGES));
	EXPECT_EQ(0, try_slot2(vm, SLOT_GPA + 0x10000, 0x2000, m, KVM_MEM_LOG_DIRTY_PAGES));
	EXPECT_EQ(0, vm_try_slot(vm, 1, 0, 0, NULL, 0));
	EXPECT_EQ(-EINVAL, try_slot2(vm, 0, 0, NULL, 0));
}

static void near_guest(u64 arg)
{
	volatile u32 *p = (u32 *)SLOT_GPA;
	u32 i, sum = 0;

	for (i = 0; i < 64; i++)
		sum += p[i * 1024];
	guest_sync(sum);
	sum = p[(1UL << 24) / 4];
	guest_sync(sum);
	for (i = 0; i < 64; i++)
		sum += p[i * 1024];
	guest_done(0);
}

static u64 faults_of(struct vcpu *v)
{
	u64 n = fd_stat(v->fd, "pf_fixed");	/* KVM's name */

	return n == NO_STAT ? vcpu_stat(v, "page_faults") : n;
}

/* Of a slot that goes nothing is left; what is mapped of others may stay, and does where the VMM wants it */
TEST_F(slot, others_stay)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	u64 faults;

	if (!(vm_cap(vm, KVM_CAP_DISABLE_QUIRKS2) & KVM_X86_QUIRK_SLOT_ZAP_ALL))
		SKIP(return, "no KVM_X86_QUIRK_SLOT_ZAP_ALL");
	if (shadow_paging())
		SKIP(return, "shadow paging, which forgets all at a flush");
	must(vm_enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_SLOT_ZAP_ALL));
	vm_slot(vm, 1, SLOT_GPA, MEM2 / 2, self->mem, 0);
	vm_slot(vm, 2, SLOT_GPA + (1UL << 24), MEM2 / 2, self->mem + MEM2 / 2, 0);
	*(u32 *)(self->mem + MEM2 / 2) = 77;
	vcpu_long(v, near_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(77, vcpu_sync(v));
	vm_slot(vm, 2, 0, 0, NULL, 0);
	faults = faults_of(v);
	vcpu_done(v);
	EXPECT_GE(8, faults_of(v) - faults);
}

static void touch_guest(u64 arg)
{
	volatile u32 *a = (u32 *)SLOT_GPA;
	volatile u32 *b = (u32 *)(SLOT_GPA + 0x100000);

	guest_eq(*a, 0x11111111);
	*a = 0x22222222;
	guest_sync(0);
	/* moved to b */
	guest_eq(*b, 0x22222222);
	*b = 0x33333333;
	guest_sync(1);
	guest_eq(*a, 0xcafe);		/* MMIO now */
	*a = 0xbeef;
	/* back at a, other memory */
	guest_sync(2);
	guest_eq(*a, 0x44444444);
	guest_eq(*b, 0xffff);
	guest_done(0);
}

TEST_F(slot, move_and_replace)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	u32 *m = (u32 *)self->mem;
	struct kvm_run *run;

	m[0] = 0x11111111;
	m[0x10000 / 4] = 0x44444444;
	vm_slot(vm, 1, SLOT_GPA, 0x10000, m, 0);
	vcpu_long(v, touch_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0x22222222, m[0]);
	vm_slot(vm, 1, SLOT_GPA + 0x100000, 0x10000, m, 0);
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0x33333333, m[0]);
	run = vcpu_expect_mmio(v, false, SLOT_GPA, 4);
	*(u32 *)run->mmio.data = 0xcafe;
	run = vcpu_expect_mmio(v, true, SLOT_GPA, 4);
	EXPECT_EQ(0xbeef, *(u32 *)run->mmio.data);
	EXPECT_EQ(2, vcpu_sync(v));
	vm_slot(vm, 1, 0, 0, NULL, 0);
	vm_slot(vm, 1, SLOT_GPA, 0x10000, (u8 *)m + 0x10000, 0);
	run = vcpu_expect_mmio(v, false, SLOT_GPA + 0x100000, 4);
	*(u32 *)run->mmio.data = 0xffff;
	vcpu_done(v);
	EXPECT_EQ(0x33333333, m[0]);
}

static void readonly_guest(u64 arg)
{
	volatile u32 *a = (u32 *)SLOT_GPA;

	guest_eq(a[0], 0x11111111);
	a[0] = 0x22222222;
	guest_eq(a[0], 0x11111111);
	/* a read and write in one instruction */
	asm volatile("addl $1,(%0)" :: "r"(a) : "memory");
	guest_eq(a[0], 0x11111111);
	/* code in it runs */
	((void (*)(void))(SLOT_GPA + 0x1000))();
	guest_done(0);
}

TEST_F(slot, readonly)
{
	struct vcpu *v = self->v;
	struct kvm_run *run;
	u32 *m = (u32 *)self->mem;

	m[0] = 0x11111111;
	self->mem[0x1000] = 0xc3;	/* ret */
	vm_slot(self->vm, 1, SLOT_GPA, 0x2000, m, KVM_MEM_READONLY);
	vcpu_long(v, readonly_guest, 0);
	run = vcpu_expect_mmio(v, true, SLOT_GPA, 4);
	EXPECT_EQ(0x22222222, *(u32 *)run->mmio.data);
	run = vcpu_expect_mmio(v, true, SLOT_GPA, 4);
	EXPECT_EQ(0x11111112, *(u32 *)run->mmio.data);
	vcpu_done(v);
	EXPECT_EQ(0x11111111, m[0]);
}

static void read_write_guest(u64 arg)
{
	volatile u32 *a = (u32 *)SLOT_GPA;

	guest_sync(a[0]);
	a[0] = 1;
	guest_done(0);
}

/* A slot whose memory the process itself may not touch */
TEST_F(slot, protected_memory)
{
	struct vcpu *v = self->v;

	self->mem[0] = 77;
	vm_slot(self->vm, 1, SLOT_GPA, 0x1000, self->mem, 0);
	vcpu_long(v, read_write_guest, 0);
	mprotect(self->mem, 0x1000, PROT_READ);
	EXPECT_EQ(77, vcpu_sync(v));
	EXPECT_FAULT(v, SLOT_GPA);
	EXPECT_FAULT(v, SLOT_GPA);
	/* it goes on where it was when the memory is there again */
	mprotect(self->mem, 0x1000, PROT_READ | PROT_WRITE);
	vcpu_done(v);
	EXPECT_EQ(1, self->mem[0]);

	vcpu_long(v, read_write_guest, 0);
	mprotect(self->mem, 0x1000, PROT_NONE);
	EXPECT_FAULT(v, SLOT_GPA);
	mprotect(self->mem, 0x1000, PROT_READ | PROT_WRITE);
	EXPECT_EQ(1, vcpu_sync(v));
	vcpu_done(v);
}

static void unmapped_guest(u64 arg)
{
	guest_sync(*(volatile u32 *)(SLOT_GPA + arg));
	guest_done(0);
}

TEST_F(slot, unmapped_memory)
{
	struct vcpu *v = self->v;
	void *p = mem_alloc(0x2000);

	vm_slot(self->vm, 1, SLOT_GPA, 0x2000, p, 0);
	munmap(p, 0x2000);
	vcpu_long(v, unmapped_guest, 0x1234);
	EXPECT_FAULT(v, SLOT_GPA + 0x1000);
	ASSERT_EQ(p, mmap(p, 0x2000, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			  MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	*(u32 *)(p + 0x1234) = 5;
	EXPECT_EQ(5, vcpu_sync(v));
	vcpu_done(v);
}

static volatile u32 stop_writing, rounds;

static void writer_guest(u64 arg)
{
	volatile u64 *p = (u64 *)SLOT_GPA;
	int i;

	while (!stop_writing) {
		for (i = 0; i < 8; i++)
			p[i * 512] = rounds + 1;
		rounds++;
	}
	guest_done(0);
}

struct writer {
	struct vcpu *v;
	volatile u32 mmio;	/* writes that came as exits */
};

static void *writer_thread(void *arg)
{
	struct writer *w = arg;
	struct vcpu *v = w->v;

	for (;;) {
		/* EFAULT: a slot is there, its memory is not */
		while (ioctl(v->fd, KVM_RUN, 0))
			if (errno != EFAULT)
				die("KVM_RUN: %s", strerror(errno));
		switch (v->run->exit_reason) {
		case KVM_EXIT_MMIO:
			if (v->run->mmio.phys_addr - SLOT_GPA >= 0x8000)
				die("MMIO at %#llx", v->run->mmio.phys_addr);
			w->mmio++;
			break;
		case KVM_EXIT_IO:
			if (v->run->io.port == PORT_DONE)
				return NULL;
			/* fallthrough */
		default:
			die("exit %s", exit_name(v->run->exit_reason));
		}
	}
}

/*
 * Delete a slot under a vCPU that writes to it: the moment the ioctl is back
 * nothing writes that memory, and the guest's stores come as MMIO.
 */
TEST_F_TIMEOUT(slot, delete_while_used, 120)
{
	struct vm *vm = self->vm;
	struct writer w = { .v = self->v };
	pthread_t t;
	int round, i;

	vm_slot(vm, 1, SLOT_GPA, 0x8000, self->mem, 0);
	vcpu_long(self->v, writer_guest, 0);
	pthread_create(&t, NULL, writer_thread, &w);
	for (round = 0; round < 10; round++) {
		u32 r = guest_var(vm, rounds), m;

		ASSERT_TRUE(wait_for(&guest_var(vm, rounds), r + 3, 20000));
		EXPECT_NE(0, *(volatile u64 *)self->mem);
		vm_slot(vm, 1, 0, 0, NULL, 0);
		memset(self->mem, 0, 0x8000);
		m = w.mmio;
		ASSERT_TRUE(wait_for(&w.mmio, m + 3, 20000));
		for (i = 0; i < 0x8000; i++) {
			ASSERT_EQ(0, self->mem[i]);
		}
		vm_slot(vm, 1, SLOT_GPA, 0x8000, self->mem, 0);
	}
	guest_var(vm, stop_writing) = 1;
	pthread_join(t, NULL);
}

/* The memory of a deleted slot may go at once */
TEST_F_TIMEOUT(slot, delete_and_unmap, 120)
{
	struct vm *vm = self->vm;
	struct writer w = { .v = self->v };
	pthread_t t;
	int round;

	vcpu_long(self->v, writer_guest, 0);
	pthread_create(&t, NULL, writer_thread, &w);
	for (round = 0; round < 20; round++) {
		void *p = mem_alloc(0x8000);
		u32 r = guest_var(vm, rounds);

		vm_slot(vm, 1, SLOT_GPA, 0x8000, p, 0);
		ASSERT_TRUE(wait_for(&guest_var(vm, rounds), r + 2, 20000));
		if (round & 1)
			munmap(p, 0x8000);	/* before: the notifier's job */
		vm_slot(vm, 1, 0, 0, NULL, 0);
		if (!(round & 1))
			munmap(p, 0x8000);
	}
	guest_var(vm, stop_writing) = 1;
	pthread_join(t, NULL);
}

static void many_guest(u64 n)
{
	u64 i, sum = 0;

	for (i = 0; i < n; i++)
		sum += *(volatile u32 *)(SLOT_GPA + i * 0x2000);
	guest_sync(sum);
	guest_done(0);
}

/*
 * Every slot there can be, with a hole after each.  Where a change takes a
 * grace period (not on keel) that is minutes, and a sample has to do.
 */
TEST_F_TIMEOUT(slot, all_of_them, 280)
{
	struct vm *vm = self->vm;
	u32 n = vm_cap(vm, KVM_CAP_NR_MEMSLOTS), i;
	u64 sum = 0, start = now_ns();
	u32 *m;

	for (i = 1; i < n; i++) {
		if (i == 100 && now_ns() - start > 100 * 2000000ULL) {
			n = 1000;
			TH_LOG("slots are slow here: %u of them", n);
		}
		m = (u32 *)(self->mem + i % 512 * 4096);
		m[0] = i % 512;
		vm_slot(vm, i, SLOT_GPA + (i - 1) * 0x2000UL, 0x1000, m, 0);
	}
	EXPECT_EQ(-EEXIST, vm_try_slot(vm, n - 1, SLOT_GPA, 0x1000,
				       self->mem + (n - 1) % 512 * 4096, 0));
	for (i = 1; i <= 256; i++)
		sum += i % 512;
	vcpu_long(self->v, many_guest, 256);
	EXPECT_EQ(sum, vcpu_sync(self->v));
	vcpu_done(self->v);
	/* the last of them is as reachable */
	*(u32 *)(self->mem + (n - 1) % 512 * 4096) = 0x1234567;
	vcpu_long(self->v, unmapped_guest, 0);
	vm_slot(vm, 1, 0, 0, NULL, 0);
	vm_slot(vm, n - 1, 0, 0, NULL, 0);
	vm_slot(vm, n - 1, SLOT_GPA, 0x1000,
		self->mem + (n - 1) % 512 * 4096, 0);
	EXPECT_EQ(0x1234567, vcpu_sync(self->v));
}

/* ---- dirty logging ---- */

static int get_log(struct vm *vm, u32 slot, u64 *bitmap)
{
	struct kvm_dirty_log l = { .slot = slot, .dirty_bitmap = bitmap };

	return xioctl(vm->fd, KVM_GET_DIRTY_LOG, &l);
}

static int clear_log(struct vm *vm, u32 slot, u64 first, u32 n, u64 *bitmap)
{
	struct kvm_clear_dirty_log l = {
		.slot = slot, .first_page = first, .num_pages = n,
		.dirty_bitmap = bitmap,
	};

	return xioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &l);
}

#define PAGES	(MEM2 / 4096)

static void dirty_guest(u64 arg)
{
	volatile u8 *p = (u8 *)SLOT_GPA;
	u64 i;

	/* read all, which the log may or may not take for dirtying */
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
	/* the same page again: still one bit */
	p[3 * 4096] = 3;
	p[4 * 4096] = 3;
	guest_sync(3);
	/* across a boundary */
	*(volatile u32 *)(p + 10 * 4096 - 2) = 0x12345678;
	guest_sync(4);
	for (i = 0; i < PAGES; i++)
		p[i * 4096] = 4;
	guest_sync(5);
	guest_done(0);
}

static int count_bits(u64 *b)
{
	int i, n = 0;

	for (i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountll(b[i]);
	return n;
}

static bool bit(u64 *b, int i)
{
	return b[i / 64] >> (i % 64) & 1;
}

FIXTURE(dirty) {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem;
};

FIXTURE_VARIANT(dirty) {
	bool huge;		/* memory that starts out as one large page */
};

FIXTURE_VARIANT_ADD(dirty, small) { .huge = false };
FIXTURE_VARIANT_ADD(dirty, huge) { .huge = true };

FIXTURE_SETUP(dirty)
{
	u8 *p = mem_alloc(2 * MEM2);

	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	self->mem = (u8 *)(((u64)p + MEM2 - 1) & ~(MEM2 - 1));
	madvise(self->mem, MEM2, variant->huge ? MADV_HUGEPAGE :
		MADV_NOHUGEPAGE);
	memset(self->mem, 0x11, MEM2);
}

FIXTURE_TEARDOWN(dirty)
{
	vm_free(self->vm);
}

TEST_F(dirty, log)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	u64 b[PAGES / 64];

	EXPECT_EQ(-ENOENT, get_log(vm, 1, b));
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, 0);
	EXPECT_EQ(-ENOENT, get_log(vm, 1, b));
	EXPECT_EQ(-ENOENT, get_log(vm, 0, b));
	EXPECT_EQ(-EINVAL, get_log(vm, 0xffff, b));
	EXPECT_EQ(-EINVAL, get_log(vm, 7 << 16, b));
	vcpu_long(v, dirty_guest, 0);
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	EXPECT_EQ(-EFAULT, get_log(vm, 1, (u64 *)8));
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(0, count_bits(b));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(4, count_bits(b));
	EXPECT_TRUE(bit(b, 3) && bit(b, 63) && bit(b, 64) && bit(b, 511));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(1, count_bits(b));
	EXPECT_TRUE(bit(b, 3));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(0, count_bits(b));
	EXPECT_EQ(3, vcpu_sync(v));
	EXPECT_EQ(4, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(4, count_bits(b));
	EXPECT_TRUE(bit(b, 3) && bit(b, 4) && bit(b, 9) && bit(b, 10));
	EXPECT_EQ(5, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(PAGES, count_bits(b));
	/* off and on again starts with nothing */
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, 0);
	EXPECT_EQ(-ENOENT, get_log(vm, 1, b));
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(0, count_bits(b));
	vcpu_done(v);
}

/* As a program of 32 bits calls it, from such memory */
static int ioctl32(int fd, unsigned int cmd, void *arg)
{
	long ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(54L), "b"((long)fd), "c"((long)cmd), "d"(arg) :
		     "memory", "r8", "r9", "r10", "r11");
	return ret;
}

static bool takes_32_bits(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		ioctl32(-1, 0, NULL);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status);
}

/* Such a program sets half of what is there for a pointer */
TEST_F(dirty, of_32_bits)
{
	struct {
		struct kvm_dirty_log log;
		struct kvm_clear_dirty_log clear;
		u64 b[PAGES / 64];
	} *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	u64 half = 0xdeadbeefUL << 32 | (u64)m->b;
	struct vm *vm = self->vm;

	if (!takes_32_bits())
		SKIP(return, "a kernel without system calls of 32 bits");
	vcpu_long(self->v, dirty_guest, 0);
	must(vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1));
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	EXPECT_EQ(0, vcpu_sync(self->v));
	EXPECT_EQ(1, vcpu_sync(self->v));
	m->log = (struct kvm_dirty_log){ .slot = 1, .dirty_bitmap = (void *)half };
	EXPECT_EQ(0, ioctl32(vm->fd, KVM_GET_DIRTY_LOG, &m->log));
	EXPECT_EQ(4, count_bits(m->b));
	m->clear = (struct kvm_clear_dirty_log){ .slot = 1, .num_pages = PAGES, .dirty_bitmap = (void *)half };
	EXPECT_EQ(0, ioctl32(vm->fd, KVM_CLEAR_DIRTY_LOG, &m->clear));
	EXPECT_EQ(0, ioctl32(vm->fd, KVM_GET_DIRTY_LOG, &m->log));
	EXPECT_EQ(0, count_bits(m->b));
	munmap(m, sizeof(*m));
}

TEST_F(dirty, manual)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	u64 b[PAGES / 64], one[PAGES / 64] = { 0 };

	ASSERT_EQ(0, vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				   KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE));
	EXPECT_EQ(-ENOENT, clear_log(vm, 1, 0, PAGES, b));
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_long(v, dirty_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v));
	memset(b, 0xff, sizeof(b));
	EXPECT_EQ(0, clear_log(vm, 1, 0, PAGES, b));
	EXPECT_EQ(1, vcpu_sync(v));
	/* reading does not clear */
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(4, count_bits(b));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(4, count_bits(b));
	/* ranges: multiples of 64 pages, but for the end */
	EXPECT_EQ(-EINVAL, clear_log(vm, 1, 1, 64, b));
	EXPECT_EQ(-EINVAL, clear_log(vm, 1, 0, 63, b));
	EXPECT_EQ(-EINVAL, clear_log(vm, 1, 0, PAGES + 64, b));
	EXPECT_EQ(-EINVAL, clear_log(vm, 1, PAGES + 64, 64, b));
	EXPECT_EQ(-EINVAL, clear_log(vm, 0xffff, 0, 64, b));
	EXPECT_EQ(-EFAULT, clear_log(vm, 1, 0, 64, (u64 *)8));
	/* the first 64 pages, one bit of them */
	one[0] = 1 << 3;
	EXPECT_EQ(0, clear_log(vm, 1, 0, 64, one));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(3, count_bits(b));
	EXPECT_FALSE(bit(b, 3));
	/* cleared is watched again; what was not cleared just stays */
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(4, count_bits(b));
	EXPECT_TRUE(bit(b, 3));
	EXPECT_EQ(0, clear_log(vm, 1, 0, PAGES, b));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(0, count_bits(b));
	EXPECT_EQ(3, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(2, count_bits(b));
}

/* All pages count as dirty to begin with, if that was asked for */
TEST_F(dirty, initially_set)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	u64 b[PAGES / 64];

	if (!(vm_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) &
	      KVM_DIRTY_LOG_INITIALLY_SET))
		SKIP(return, "no KVM_DIRTY_LOG_INITIALLY_SET");
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
					 KVM_DIRTY_LOG_INITIALLY_SET));
	ASSERT_EQ(0, vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				   KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
				   KVM_DIRTY_LOG_INITIALLY_SET));
	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_long(v, dirty_guest, 0);
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(PAGES, count_bits(b));
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(0, clear_log(vm, 1, 0, PAGES, b));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, get_log(vm, 1, b));
	EXPECT_EQ(4, count_bits(b));
}

static volatile u32 dirty_rounds[2];

static void dirtying_guest(u64 me)
{
	volatile u64 *p = (u64 *)SLOT_GPA;
	u64 i, seed = me + 1, n;

	for (n = 0; n < 40; n++) {
		for (i = 0; i < 50; i++) {
			seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
			/* each vCPU has its own word of the page */
			p[(seed >> 33) % PAGES * 512 + me]++;
		}
		dirty_rounds[me] = n + 1;
	}
	guest_done(0);
}

/*
 * What migration rests on: copies made of pages the log names, while two vCPUs
 * write, end up equal to the memory once they stop.
 */
TEST_F_TIMEOUT(dirty, copies_converge, 120)
{
	struct vm *vm = self->vm;
	struct vcpu *v[2] = { self->v, vcpu_new(vm, 1) };
	u8 *copy = mem_alloc(MEM2);
	u64 b[PAGES / 64];
	int i, n = 0;
	bool last;

	vm_slot(vm, 1, SLOT_GPA, MEM2, self->mem, KVM_MEM_LOG_DIRTY_PAGES);
	memcpy(copy, self->mem, MEM2);
	for (i = 0; i < 2; i++) {
		vcpu_long(v[i], dirtying_guest, i);
		vcpu_start(v[i]);
	}
	do {
		last = guest_var(vm, dirty_rounds)[0] == 40 &&
		       guest_var(vm, dirty_rounds)[1] == 40;
		ASSERT_EQ(0, get_log(vm, 1, b));
		for (i = 0; i < PAGES; i++)
			if (bit(b, i)) {
				memcpy(copy + i * 4096UL, self->mem + i * 4096UL,
				       4096);
				n++;
			}
	} while (!last);
	for (i = 0; i < 2; i++)
		vcpu_join(v[i]);
	EXPECT_EQ(0, memcmp(copy, self->mem, MEM2));
	EXPECT_GT(n, 0);
}

TEST_HARNESS_MAIN
