// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asynchronous page faults: a guest that asks for it does something else
 * while the host fetches a page, of which here userfaultfd has the say.
 */
#define _GNU_SOURCE
#include "test.h"

#include <linux/userfaultfd.h>
#include <sys/syscall.h>

#define UFFD_GPA	(MEM_SIZE * 2)
#define UFFD_PAGES	4
#define PAGE		4096UL
#define APF_VEC		0xf2
#define TOLD_MAX	8

#define HUNGRY		4		/* vCPUs, each of which may have 64 pages awaited */
static struct {
	struct kvm_vcpu_pv_apf_data data;
	volatile u64 resume;
} __attribute__((aligned(64))) apfs[HUNGRY];
#define apf		apfs[guest_cpu()].data
#define resume_at	apfs[guest_cpu()].resume
static volatile u32 phase, not_present, page_ready;
static volatile u32 told[TOLD_MAX], there[TOLD_MAX];

static void apf_fault(struct guest_frame *f)
{
	if (!(apf.flags & KVM_PV_REASON_PAGE_NOT_PRESENT))
		guest_fail("a fault of its own", __LINE__, f->rip, read_cr2());
	guest_eq(f->err, 0);
	told[not_present % TOLD_MAX] = read_cr2();
	not_present++;
	apf.flags = 0;
	f->rip = resume_at;	/* that is: another task */
}

static void apf_ready(struct guest_frame *f)
{
	there[page_ready % TOLD_MAX] = apf.token;
	page_ready++;
	apf.token = 0;
	wrmsr(MSR_KVM_ASYNC_PF_ACK, 1);
	apic_eoi();
}

/* Read a page; false: it takes a while */
static bool touch(u64 gva, u32 *val)
{
	u32 v = 0, done = 0;

	asm volatile("lea 1f(%%rip),%%rax; mov %%rax,%2\n"
		     "mov (%3),%0; movl $1,%1\n1:"
		     : "+&r"(v), "+&r"(done), "=m"(resume_at) : "r"(gva) : "rax", "memory");
	*val = v;
	return done;
}

static void apf_on(u64 bits)
{
	apic_on();
	guest_on(PF_VEC, apf_fault);
	guest_on(APF_VEC, apf_ready);
	wrmsr(MSR_KVM_ASYNC_PF_INT, APF_VEC);
	wrmsr(MSR_KVM_ASYNC_PF_EN, (u64)&apf | bits);
}

static void apf_guest(u64 arg)
{
	u32 v, i;

	apf_on(KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT | KVM_ASYNC_PF_SEND_ALWAYS);
	irq_on();
	/* whoever waited before is woken */
	spin_until(&page_ready, 1);
	guest_eq(there[0], ~0U);
	for (i = 0; i < 2; i++) {
		guest_assert(!touch(UFFD_GPA + i * PAGE, &v));
		guest_eq(not_present, i + 1);
	}
	guest_assert(told[0] != told[1] && told[0] && told[1]);
	guest_eq(page_ready, 1);
	guest_sync(2);		/* both pages come, while this vCPU is not running */
	while (page_ready < 3)
		irq_halt();
	irq_on();
	guest_assert((there[1] == told[0] && there[2] == told[1]) || (there[1] == told[1] && there[2] == told[0]));
	guest_assert(touch(UFFD_GPA, &v));
	guest_eq(v, 0x1111);
	guest_assert(touch(UFFD_GPA + PAGE, &v));
	guest_eq(v, 0x1111);
	guest_eq(not_present, 2);
	/* while it does something else */
	guest_assert(!touch(UFFD_GPA + 2 * PAGE, &v));
	phase = 3;
	spin_until(&page_ready, 4);
	guest_eq(there[3], told[2]);
	guest_assert(touch(UFFD_GPA + 2 * PAGE, &v));
	guest_done(v);
}

struct uffd {
	int fd;
	u8 *mem;
	u32 asked;		/* pages somebody waits for: workers come in any order */
};

static bool uffd_open(struct uffd *u, struct vm *vm)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	u->fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (u->fd < 0)
		return false;
	must(ioctl(u->fd, UFFDIO_API, &api));
	u->mem = mem_alloc(UFFD_PAGES * PAGE);
	u->asked = 0;
	reg.range.start = (u64)u->mem;
	reg.range.len = UFFD_PAGES * PAGE;
	must(ioctl(u->fd, UFFDIO_REGISTER, &reg));
	vm_slot(vm, 1, UFFD_GPA, UFFD_PAGES * PAGE, u->mem, 0);
	return true;
}

/* Wait for somebody to want page @i, and give it */
static void uffd_serve(struct uffd *u, int i)
{
	static u32 from[PAGE / 4] __attribute__((aligned(4096))) = { 0x1111 };
	struct uffdio_copy copy = { .dst = (u64)u->mem + i * PAGE, .src = (u64)from, .len = PAGE };
	u64 end = now_ns() + scaled(30000000000ULL);
	struct uffd_msg msg;

	while (!(u->asked & 1U << i)) {
		if (read(u->fd, &msg, sizeof(msg)) == sizeof(msg))
			u->asked |= 1U << (msg.arg.pagefault.address - (u64)u->mem) / PAGE;
		else if (now_ns() > end)
			die("nobody asks for page %d", i);
		else
			sleep_ms(1);
	}
	must(ioctl(u->fd, UFFDIO_COPY, &copy));
}

#define NEED_UFFD(u, vm)						\
	if (!uffd_open(u, vm))						\
		SKIP(return, "no userfaultfd")

static void run_served(struct __test_metadata *_metadata, struct vm *vm, struct vcpu *v, struct uffd *u)
{
	vcpu_long(v, apf_guest, 0);
	guest_var(vm, phase) = 0;
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(2, vcpu_stat(v, "async_faults"));
	uffd_serve(u, 0);
	uffd_serve(u, 1);
	vcpu_start(v);
	if (!wait_for(&guest_var(vm, phase), 3, 30000))
		die("the guest waits for something");
	EXPECT_EQ(3, guest_var(vm, page_ready));
	uffd_serve(u, 2);
	EXPECT_EQ(0x1111, vcpu_join(v));
}

TEST(async_page_fault)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct uffd u;

	NEED_UFFD(&u, vm);
	run_served(_metadata, vm, vcpu_new(vm, 0), &u);
	vm_free(vm);
	close(u.fd);
}

/* In a state in which the guest cannot take it, it waits as ever */
static void no_apf_guest(u64 arg)
{
	u32 v;

	apf_on(arg & 0xf);
	if (arg & 0x10)
		irq_on();
	phase = 1;
	guest_assert(touch(UFFD_GPA + 3 * PAGE, &v));
	guest_eq(not_present, 0);
	guest_done(v);
}

#define APF_INT	(KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)

static const u64 unfit[] = {
	0x10 | APF_INT,						/* the kernel is not to be told */
	APF_INT | KVM_ASYNC_PF_SEND_ALWAYS,			/* interrupts are off */
	0x10 | KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_SEND_ALWAYS,	/* no interrupts of this kind */
	0x10,							/* all off */
	0x10 | KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT,		/* of a guest that has begun where guests have guests */
};

TEST(no_async_page_fault)
{
	unsigned int i;

	for (i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++) {
		struct vm *vm = vm_new(VM_IRQCHIP);
		struct vcpu *v = vcpu_new(vm, 0);
		struct uffd u;

		NEED_UFFD(&u, vm);
		vcpu_long(v, no_apf_guest, unfit[i]);
		vcpu_start(v);
		uffd_serve(&u, 3);
		EXPECT_EQ(0x1111, vcpu_join(v));
		EXPECT_EQ(0, vcpu_stat(v, "async_faults"));
		vm_free(vm);
		close(u.fd);
	}
}

/* A worker still waits when its vCPU, or the guest's interest, is gone */
static void outstanding_guest(u64 arg)
{
	u32 v;

	apf_on(APF_INT | KVM_ASYNC_PF_SEND_ALWAYS);
	irq_on();
	spin_until(&page_ready, 1);
	guest_assert(!touch(UFFD_GPA, &v));
	guest_assert(!touch(UFFD_GPA + PAGE, &v));
	/* the same page again is waited for by the vCPU itself, which another test has; not told is none of these */
	wrmsr(MSR_KVM_ASYNC_PF_EN, 0);
	guest_sync(1);
	guest_eq(page_ready, 1);
	wrmsr(MSR_KVM_ASYNC_PF_EN, (u64)&apf | APF_INT | KVM_ASYNC_PF_SEND_ALWAYS);
	spin_until(&page_ready, 2);
	guest_eq(there[1], ~0U);
	guest_assert(!touch(UFFD_GPA + 2 * PAGE, &v));
	guest_done(0);
}

TEST(async_page_faults_outstanding)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct uffd u;

	NEED_UFFD(&u, vm);
	vcpu_long(v, outstanding_guest, 0);
	EXPECT_EQ(1, vcpu_sync(v));
	uffd_serve(&u, 0);
	sleep_ms(50);
	vcpu_done(v);
	vm_free(vm);
	/* nobody has answered these two; whoever waits is let go */
	close(u.fd);
	sleep_ms(50);
}

/* Turned off and on it is no way to more workers than a vCPU may have: at some point it waits itself */
static void again_and_again_guest(u64 arg)
{
	u32 v, n;

	apf_on(APF_INT | KVM_ASYNC_PF_SEND_ALWAYS);
	irq_on();
	for (n = 0; n < 200 && !touch(UFFD_GPA, &v); n++) {
		wrmsr(MSR_KVM_ASYNC_PF_EN, 0);
		wrmsr(MSR_KVM_ASYNC_PF_EN, (u64)&apf | APF_INT | KVM_ASYNC_PF_SEND_ALWAYS);
	}
	guest_done(n);
}

TEST(async_page_faults_are_bounded)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct uffd u;
	u64 n;
	int i;

	NEED_UFFD(&u, vm);
	vcpu_long(v, again_and_again_guest, 0);
	vcpu_start(v);
	for (i = 0; i < 1000 && vcpu_stat(v, "async_faults") < 64; i++)
		sleep_ms(10);
	sleep_ms(100);
	n = vcpu_stat(v, "async_faults");
	uffd_serve(&u, 0);
	EXPECT_EQ(n, vcpu_join(v));
	EXPECT_EQ(64, n);
	vm_free(vm);
	close(u.fd);
}

static u64 async_faults(struct vm *vm)
{
	u64 n = 0;
	int i;

	for (i = 0; i < vm->nr; i++)
		n += vcpu_stat(vm->vcpu[i], "async_faults");
	return n;
}

/* A VM for which nobody serves what it waits for, and as much of that as it may have, is no other VM's trouble */
TEST(async_page_faults_of_others)
{
	struct vm *hungry = vm_new(VM_IRQCHIP), *vm = vm_new(VM_IRQCHIP);
	struct uffd none, u;
	u64 n = 0, last;
	int i;

	NEED_UFFD(&none, hungry);
	NEED_UFFD(&u, vm);
	for (i = 0; i < HUNGRY; i++) {
		struct kvm_mp_state on = { KVM_MP_STATE_RUNNABLE };
		struct vcpu *v = vcpu_new(hungry, i);

		must(ioctl(v->fd, KVM_SET_MP_STATE, &on));
		vcpu_long(v, again_and_again_guest, 0);
		vcpu_start(v);
	}
	do {
		last = n;
		sleep_ms(500);
		n = async_faults(hungry);
	} while (!n || n > last);
	TH_LOG("%lu faults of one VM are waited for by workers", n);
	run_served(_metadata, vm, vcpu_new(vm, 0), &u);
	EXPECT_EQ(n, async_faults(hungry));
	uffd_serve(&none, 0);
	for (i = 0; i < HUNGRY; i++)
		vcpu_join(hungry->vcpu[i]);
	vm_free(vm);
	vm_free(hungry);
	close(u.fd);
	close(none.fd);
}

TEST_HARNESS_MAIN
