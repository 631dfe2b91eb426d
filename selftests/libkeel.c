// SPDX-License-Identifier: GPL-2.0-only
/*
 * libkeel, which is the ioctls of uapi/keel.h as functions: what they answer, and that they pass on what they were given.
 */
#include "test.h"
#include <libkeel.h>

#define UNTOUCHED	4711	/* errno, which the library leaves alone */

static void counting_guest(u64 me)
{
	volatile u64 *page = (void *)HEAP_GPA;

	for (;;)
		guest_sync(++*page);
}

FIXTURE(libkeel) {
	struct vm *vm;
	struct vcpu *v;
	volatile u64 *page;	/* the guest's */
};

FIXTURE_SETUP(libkeel)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
	vcpu_long(self->v, counting_guest, 0);
	self->page = (void *)(self->vm->mem + HEAP_GPA);
	errno = UNTOUCHED;
}

FIXTURE_TEARDOWN(libkeel)
{
	EXPECT_EQ(UNTOUCHED, errno);
	vm_free(self->vm);
}

static u64 turn(struct vcpu *v)
{
	u64 n = vcpu_sync(v);

	vcpu_settle(v);
	errno = UNTOUCHED;
	return n;
}

TEST_F(libkeel, open_and_info)
{
	struct keel_info info, direct, was = { .features = 1, .reserved[2] = 3 };
	int node = keel_open(getenv("KEEL_DEV")), null = keel_open("/dev/null");

	ASSERT_LE(0, node);
	ASSERT_LE(0, null);
	EXPECT_EQ(FD_CLOEXEC, fcntl(node, F_GETFD));
	EXPECT_EQ(-ENOENT, keel_open("/dev/no-such-node"));
	EXPECT_EQ(KVM_API_VERSION, ioctl(node, KVM_GET_API_VERSION, 0));
	ASSERT_EQ(0, keel_info(node, &info));
	ASSERT_EQ(0, ioctl(self->vm->fd, KEEL_GET_INFO, &direct));
	EXPECT_EQ(0, memcmp(&info, &direct, sizeof(info)));
	info = was;
	EXPECT_EQ(-ENOTTY, keel_info(null, &info));
	EXPECT_EQ(0, memcmp(&info, &was, sizeof(info)));
	EXPECT_EQ(-EBADF, keel_info(-1, &info));
	EXPECT_EQ(-EBADF, keel_beside(node, -2));
	EXPECT_EQ(-EINVAL, keel_beside(node, null));
	close(node);
	close(null);
}

TEST_F(libkeel, state)
{
	struct keel_section bad;
	size_t size = 1, larger;
	void *state = NULL, *more;
	u32 *head;
	u64 n;
	int i;

	n = turn(self->v);
	ASSERT_EQ(0, keel_get_state(self->vm->fd, 0, &state, &size, &bad));
	EXPECT_EQ(0, bad.id);
	EXPECT_EQ(KEEL_STATE_MAGIC, *(u64 *)state);
	/* With so many vCPUs it is more than the library thinks at first */
	for (i = 1; i < 16; i++)
		vcpu_new(self->vm, i);
	errno = UNTOUCHED;
	ASSERT_EQ(0, keel_get_state(self->vm->fd, 0, &more, &larger, NULL));
	EXPECT_LT(32768, larger);
	EXPECT_LT(size, larger);
	/* That of a VM with one is not this one's now */
	EXPECT_EQ(-ENODEV, keel_set_state(self->vm->fd, state, size, 0, &bad));
	EXPECT_NE(0, bad.id);
	free(state);

	/* The guest has gone on, but for its memory, and goes back */
	EXPECT_EQ(n + 1, turn(self->v));
	ASSERT_EQ(0, keel_set_state(self->vm->fd, more, larger, KEEL_TIME_GOES_ON, &bad));
	EXPECT_EQ(n + 2, turn(self->v));
	EXPECT_EQ(-EINVAL, keel_set_state(self->vm->fd, more, larger, 1U << 31, NULL));
	EXPECT_EQ(-EFAULT, keel_set_state(self->vm->fd, NULL, larger, 0, NULL));
	head = more;
	head[2]++;		/* the version */
	EXPECT_EQ(-EPROTO, keel_set_state(self->vm->fd, more, larger, 0, NULL));
	free(more);

	state = self;
	size = UNTOUCHED;
	EXPECT_EQ(-EBADF, keel_get_state(-1, 0, &state, &size, NULL));
	EXPECT_EQ((void *)self, state);
	EXPECT_EQ(UNTOUCHED, size);
}

TEST_F(libkeel, snapshot)
{
	u32 first = 0, second = 0, none = UNTOUCHED;
	u64 pages = UNTOUCHED, n;

	n = turn(self->v);
	EXPECT_EQ(-EINVAL, keel_snapshot(self->vm->fd, 1U << 31, &none));
	EXPECT_EQ(UNTOUCHED, none);
	ASSERT_EQ(0, keel_snapshot(self->vm->fd, 0, &first));
	EXPECT_LT(0, first);
	turn(self->v);
	ASSERT_EQ(0, keel_snapshot(self->vm->fd, 0, &second));
	EXPECT_NE(first, second);
	turn(self->v);
	turn(self->v);
	EXPECT_EQ(n + 3, *self->page);
	ASSERT_EQ(0, keel_reset(self->vm->fd, second, 0, &pages));
	EXPECT_LE(1, pages);
	EXPECT_GT(UNTOUCHED, pages);
	EXPECT_EQ(n + 1, *self->page);
	EXPECT_EQ(n + 2, turn(self->v));

	/* What the VMM writes, it tells, or it stays */
	EXPECT_EQ(0, keel_mark_dirty(self->vm->fd, HEAP_GPA + 4096, 8192, 0));
	self->page[512] = 1;
	self->page[1024] = 2;
	self->page[1536] = 3;
	ASSERT_EQ(0, keel_reset(self->vm->fd, first, KEEL_RESET_MEMORY, NULL));
	EXPECT_EQ(n, *self->page);
	EXPECT_EQ(0, self->page[512]);
	EXPECT_EQ(0, self->page[1024]);
	EXPECT_EQ(3, self->page[1536]);
	EXPECT_EQ(-ENOENT, keel_mark_dirty(self->vm->fd, HOLE_GPA, 4096, 0));
	EXPECT_EQ(-EINVAL, keel_mark_dirty(self->vm->fd, HEAP_GPA, 4096, 77));

	pages = UNTOUCHED;
	EXPECT_EQ(-ENOTEMPTY, keel_drop(self->vm->fd, first));
	EXPECT_EQ(0, keel_drop(self->vm->fd, second));
	EXPECT_EQ(-ENOENT, keel_reset(self->vm->fd, second, 0, &pages));
	EXPECT_EQ(UNTOUCHED, pages);
	EXPECT_EQ(-EINVAL, keel_reset(self->vm->fd, first, 1U << 31, &pages));
	EXPECT_EQ(0, keel_drop(self->vm->fd, first));
	EXPECT_EQ(-ENOENT, keel_drop(self->vm->fd, first));
}

TEST_F(libkeel, reset_and_run)
{
	u32 id = 0, was;
	u64 pages = UNTOUCHED, n;

	n = turn(self->v);
	ASSERT_EQ(0, keel_snapshot(self->vm->fd, 0, &id));
	was = id;
	turn(self->v);
	EXPECT_EQ(-EINVAL, keel_reset_run(self->v->fd, &id, 1U << 31, &pages));
	EXPECT_EQ(was, id);
	EXPECT_EQ(UNTOUCHED, pages);
	ASSERT_EQ(0, keel_reset_run(self->v->fd, &id, 0, &pages));
	EXPECT_EQ(0, id);
	EXPECT_LE(1, pages);
	EXPECT_GT(UNTOUCHED, pages);
	EXPECT_EQ(n + 1, *self->page);
	/* And KVM_RUN alone */
	vcpu_settle(self->v);
	errno = UNTOUCHED;
	ASSERT_EQ(0, keel_reset_run(self->v->fd, &id, 0, &pages));
	EXPECT_EQ(n + 2, *self->page);
	vcpu_settle(self->v);
	errno = UNTOUCHED;

	EXPECT_EQ(-ENOENT, keel_allow_reset(self->vm->fd, was + 1, 0));
	EXPECT_EQ(-EINVAL, keel_allow_reset(self->vm->fd, was, 1U << 31));
	EXPECT_EQ(0, keel_allow_reset(self->vm->fd, was, 0));
	EXPECT_EQ(0, keel_allow_reset(self->vm->fd, 0, 0));
}

TEST_F(libkeel, made_of_a_state)
{
	struct keel_section bad;
	int node = keel_open(getenv("KEEL_DEV")), vm, vcpu;
	struct kvm_regs regs, theirs;
	void *state;
	size_t size;

	turn(self->v);
	ASSERT_EQ(0, keel_get_state(self->vm->fd, KEEL_WITH_SETUP, &state, &size, &bad));
	EXPECT_EQ(-EINVAL, keel_create_vm_from(node, state, size, 1U << 31, NULL));
	EXPECT_EQ(-EINVAL, keel_create_vm_from(node, state, 8, 0, NULL));
	vm = keel_create_vm_from(node, state, size, KEEL_WITH_MEMSLOTS, &bad);
	ASSERT_LE(0, vm);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	ASSERT_LE(0, vcpu);
	must(ioctl(self->v->fd, KVM_GET_REGS, &regs));
	must(ioctl(vcpu, KVM_GET_REGS, &theirs));
	EXPECT_EQ(0, memcmp(&regs, &theirs, sizeof(regs)));
	free(state);
	close(vcpu);
	close(vm);
	close(node);
}

TEST_F(libkeel, working_set)
{
	u64 gpa = HEAP_GPA, size = 8 * 4096;
	struct keel_gpa_range range = {};
	struct keel_info info;
	int r;

	turn(self->v);
	ASSERT_EQ(0, keel_info(self->vm->fd, &info));
	r = keel_working_set(self->vm->fd, &gpa, &size, 0, 0, &range, 1);
	if (!(info.features & KEEL_FEATURE_ACCESSED)) {
		EXPECT_EQ(-EOPNOTSUPP, r);
		EXPECT_EQ(HEAP_GPA, gpa);
		EXPECT_EQ(8 * 4096, size);
		return;
	}
	ASSERT_EQ(1, r);
	EXPECT_GE(HEAP_GPA, range.gpa);
	EXPECT_LT(HEAP_GPA, range.gpa + range.size);
	gpa++;
	EXPECT_EQ(-EINVAL, keel_working_set(self->vm->fd, &gpa, &size, 0, 0, &range, 1));
}

TEST_HARNESS_MAIN
