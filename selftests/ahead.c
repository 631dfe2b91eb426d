// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages mapped before the guest touches them (KVM_PRE_FAULT_MEMORY), and the list
 * of those it does (KEEL_WORKING_SET, uapi/keel.h).
 */
#include "test.h"
#include <keel.h>

#define PAGE	4096UL
#define BASE	0x40000000UL
#define PAGES	65536UL		/* of which some are touched */
#define SOME	2000

static volatile u32 offsets[SOME], nr_offsets, writes;

/* Touches what it is told */
static void touching_guest(u64 me)
{
	for (;;) {
		u64 sum = 0;
		u32 i;

		for (i = 0; i < nr_offsets; i++) {
			volatile u64 *p = (u64 *)(BASE + offsets[i] * PAGE);

			if (writes)
				*p = i;
			else
				sum += *p;
		}
		guest_sync(sum);
	}
}

FIXTURE(ahead) {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem;
};

FIXTURE_SETUP(ahead)
{
	self->mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	madvise(self->mem, PAGES * PAGE, MADV_NOHUGEPAGE);
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	vcpu_long(self->v, touching_guest, 0);
	vm_slot(self->vm, 1, BASE, PAGES * PAGE, self->mem, 0);
}

FIXTURE_TEARDOWN(ahead)
{
	vm_free(self->vm);
	munmap(self->mem, PAGES * PAGE);
}

static int pre_fault(struct vcpu *v, u64 gpa, u64 size, struct kvm_pre_fault_memory *p)
{
	*p = (struct kvm_pre_fault_memory){ .gpa = gpa, .size = size };
	return xioctl(v->fd, KVM_PRE_FAULT_MEMORY, p);
}

/* Page faults of a run */
static u64 faults(struct vcpu *v)
{
	u64 before = vcpu_stat(v, "page_faults");

	vcpu_sync(v);
	vcpu_settle(v);
	return vcpu_stat(v, "page_faults") - before;
}

/* Every @step pages, none next to another */
static void touch(struct vm *vm, u32 n, u32 first, u32 step, bool write)
{
	u32 i;

	for (i = 0; i < n; i++)
		guest_var(vm, offsets[i]) = first + i * step;
	guest_var(vm, nr_offsets) = n;
	guest_var(vm, writes) = write;
}

TEST_F(ahead, pre_fault)
{
	struct kvm_pre_fault_memory p;
	u64 all;

	if (!vm_cap(self->vm, KVM_CAP_PRE_FAULT_MEMORY)) {
		EXPECT_EQ(-EOPNOTSUPP, pre_fault(self->v, BASE, PAGE, &p));
		return;
	}
	/* Before the vCPU has run; the rest is its first run's own */
	touch(self->vm, 0, 0, 0, false);
	EXPECT_EQ(0, pre_fault(self->v, BASE, 256 * PAGE, &p));
	EXPECT_EQ(BASE + 256 * PAGE, p.gpa);
	EXPECT_EQ(0, p.size);
	faults(self->v);
	touch(self->vm, 256, 0, 1, false);
	EXPECT_GE(2, faults(self->v));		/* the list of what to touch is in memory that was not asked for */
	all = fd_stat(self->vm->fd, "pages_4k");
	EXPECT_EQ(0, pre_fault(self->v, BASE, 256 * PAGE, &p));		/* once more is no more */
	EXPECT_EQ(all, fd_stat(self->vm->fd, "pages_4k"));
	/* Those behind it were not asked for */
	touch(self->vm, 20, 4096, 40, false);
	EXPECT_LE(20, faults(self->v));
	/* A private page is not copied for that: it is as it was when somebody else reads it */
	self->mem[300 * PAGE] = 7;
	EXPECT_EQ(0, pre_fault(self->v, BASE + 300 * PAGE, PAGE, &p));
	EXPECT_EQ(7, self->mem[300 * PAGE]);
	touch(self->vm, 1, 300, 1, true);
	EXPECT_GE(1, faults(self->v));
	EXPECT_EQ(0, self->mem[300 * PAGE]);
}

TEST_F(ahead, pre_fault_errors)
{
	struct kvm_pre_fault_memory p;

	if (!vm_cap(self->vm, KVM_CAP_PRE_FAULT_MEMORY))
		SKIP(return, "not with shadow paging");
	EXPECT_EQ(-EINVAL, pre_fault(self->v, BASE + 1, PAGE, &p));
	EXPECT_EQ(-EINVAL, pre_fault(self->v, BASE, PAGE + 1, &p));
	EXPECT_EQ(-EINVAL, pre_fault(self->v, BASE, 0, &p));
	EXPECT_EQ(-EINVAL, pre_fault(self->v, -PAGE, 2 * PAGE, &p));
	EXPECT_EQ(-EINVAL, pre_fault(self->v, -PAGE, PAGE, &p));
	p = (struct kvm_pre_fault_memory){ .gpa = BASE, .size = PAGE, .flags = 1 };
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_PRE_FAULT_MEMORY, &p));
	EXPECT_EQ(-EFAULT, xioctl(self->v->fd, KVM_PRE_FAULT_MEMORY, (void *)8));
	EXPECT_EQ(-ENOENT, pre_fault(self->v, HOLE_GPA, PAGE, &p));
	EXPECT_EQ(-ENOENT, pre_fault(self->v, 1UL << 60, PAGE, &p));
	/* Nor is there memory whose address has the same lower bits as some that is mapped */
	EXPECT_EQ(0, pre_fault(self->v, BASE, PAGE, &p));
	EXPECT_EQ(-ENOENT, pre_fault(self->v, BASE + (1UL << 57), PAGE, &p));
	/* Up to where the memory ends, and then that it does */
	EXPECT_EQ(0, pre_fault(self->v, BASE + (PAGES - 3) * PAGE, 8 * PAGE, &p));
	EXPECT_EQ(BASE + PAGES * PAGE, p.gpa);
	EXPECT_EQ(5 * PAGE, p.size);
	EXPECT_EQ(-ENOENT, xioctl(self->v->fd, KVM_PRE_FAULT_MEMORY, &p));
	EXPECT_EQ(BASE + PAGES * PAGE, p.gpa);
	EXPECT_EQ(5 * PAGE, p.size);
	/* The user's memory is gone */
	munmap(self->mem + 1000 * PAGE, PAGE);
	EXPECT_EQ(0, pre_fault(self->v, BASE + 999 * PAGE, 2 * PAGE, &p));
	EXPECT_EQ(PAGE, p.size);
	EXPECT_EQ(-EFAULT, xioctl(self->v->fd, KVM_PRE_FAULT_MEMORY, &p));
}

static bool tells_accessed(struct vm *vm)
{
	struct keel_info info;

	must(ioctl(vm->fd, KEEL_GET_INFO, &info));
	return info.features & KEEL_FEATURE_ACCESSED;
}

#define NEED_ACCESSED()								\
	if (!tells_accessed(self->vm))						\
		SKIP(return, "the CPU does not mark what it accesses")

static int working_set(struct vm *vm, u64 size, struct keel_gpa_range *r, u32 room, u32 flags, struct keel_working_set *ws)
{
	*ws = (struct keel_working_set){ .gpa = BASE, .size = size, .ranges = (u64)r, .room = room, .flags = flags };
	return xioctl(vm->fd, KEEL_WORKING_SET, ws);
}

TEST_F(ahead, working_set)
{
	struct keel_working_set ws;
	struct keel_gpa_range r[64];
	u32 i;

	NEED_ACCESSED();
	touch(self->vm, 20, 100, 50, false);
	faults(self->v);
	ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, r, 64, KEEL_WORKING_SET_KEEP, &ws));
	ASSERT_EQ(20, ws.count);
	EXPECT_EQ(0, ws.size);
	/* In pieces it is the same */
	ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, r, 7, 0, &ws));
	ASSERT_EQ(7, ws.count);
	EXPECT_LT(BASE + r[6].size, ws.gpa);
	EXPECT_EQ(BASE + PAGES * PAGE, ws.gpa + ws.size);
	ws.ranges = (u64)(r + 7);
	ws.room = 57;
	ws.count = 0;
	ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_WORKING_SET, &ws));
	ASSERT_EQ(13, ws.count);
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(BASE + (100 + 50 * i) * PAGE, r[i].gpa);
		EXPECT_EQ(PAGE, r[i].size);
	}
	/* What was listed is not again, until it is accessed: in ranges, those next to each other are one */
	ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, r, 64, 0, &ws));
	EXPECT_EQ(0, ws.count);
	touch(self->vm, 20, 105, 1, true);
	faults(self->v);
	ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, r, 64, 0, &ws));
	ASSERT_EQ(1, ws.count);
	EXPECT_EQ(BASE + 105 * PAGE, r[0].gpa);
	EXPECT_EQ(20 * PAGE, r[0].size);
	/* Armed: what was before is not listed; nor is what was mapped and not touched */
	faults(self->v);
	ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, NULL, 0, 0, &ws));
	EXPECT_EQ(0, ws.size);
	touch(self->vm, 1, 7, 1, false);
	faults(self->v);
	ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, r, 64, 0, &ws));
	ASSERT_EQ(1, ws.count);
	EXPECT_EQ(BASE + 7 * PAGE, r[0].gpa);
	/* Not written is not listed */
	faults(self->v);
	EXPECT_EQ(-EFAULT, working_set(self->vm, PAGES * PAGE, (void *)8, 64, 0, &ws));
	ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, r, 64, 0, &ws));
	EXPECT_EQ(1, ws.count);
	/* All there could be */
	ws = (struct keel_working_set){ .size = -PAGE, .ranges = (u64)r, .room = 64 };
	ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_WORKING_SET, &ws));
	EXPECT_EQ(0, ws.size);
	EXPECT_NE(0, ws.count);		/* the guest's own code and tables */
}

TEST_F(ahead, working_set_errors)
{
	struct keel_working_set good = { .gpa = BASE, .size = PAGE, .room = 1 }, ws;
	struct keel_gpa_range r;

	good.ranges = (u64)&r;
	ws = good;
	if (!tells_accessed(self->vm)) {
		EXPECT_EQ(-EOPNOTSUPP, xioctl(self->vm->fd, KEEL_WORKING_SET, &ws));
		return;
	}
	EXPECT_EQ(0, xioctl(self->vm->fd, KEEL_WORKING_SET, &ws));
#define REFUSED(what) do {							\
	ws = good;								\
	what;									\
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_WORKING_SET, &ws));	\
} while (0)
	REFUSED(ws.gpa++);
	REFUSED(ws.size++);
	REFUSED(ws.gpa = ws.size = -PAGE);
	REFUSED(ws.space = 2);
	REFUSED(ws.flags = 2);
	REFUSED(ws.count = 1);
	REFUSED(ws.reserved = 1);
}

/* What a run used, mapped before the next one of another VM: which faults an eighth as often as once a page, at most */
TEST_F(ahead, of_another)
{
	static struct keel_gpa_range r[SOME + 100];
	struct kvm_pre_fault_memory p;
	struct keel_working_set ws;
	struct vm *vm;
	struct vcpu *v;
	u64 first, then;
	int write;
	u32 i;

	NEED_ACCESSED();
	for (i = 0; i < SOME; i++)
		self->mem[(5 + 32 * i) * PAGE] = 1;
	for (write = 0; write < 2; write++) {
		ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, NULL, 0, 0, &ws));
		touch(self->vm, SOME, 5, 32, write);
		first = faults(self->v);
		ASSERT_EQ(0, working_set(self->vm, PAGES * PAGE, r, SOME + 100, 0, &ws));
		EXPECT_LE(SOME, ws.count);

		vm = vm_new(VM_PLAIN);
		v = vcpu_new(vm, 0);
		vcpu_long(v, touching_guest, 0);
		vm_slot(vm, 1, BASE, PAGES * PAGE, self->mem, 0);
		touch(vm, 0, 0, 0, write);
		faults(v);
		for (i = 0; i < ws.count; i++)
			ASSERT_EQ(0, pre_fault(v, r[i].gpa, r[i].size, &p));
		touch(vm, SOME, 5, 32, write);
		then = faults(v);
		printf("# %s: %lu faults, and %lu of one that has the pages mapped ahead\n", write ? "writes" : "reads", first, then);
		EXPECT_LE(write ? 0 : SOME, first);
		EXPECT_GE(SOME / 8, then);
		vm_free(vm);
	}
}

TEST_HARNESS_MAIN
