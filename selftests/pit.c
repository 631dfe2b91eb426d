// SPDX-License-Identifier: GPL-2.0-only
/*
 * The PIT in the kernel: its registers, its ticks through the PIC, the speaker
 * port, its state from outside.
 */
#include "test.h"
#include "snap.h"

#include <sys/eventfd.h>
#include <sys/resource.h>

FIXTURE(pit) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(pit)
{
	struct kvm_pit_config c = { .flags = KVM_PIT_SPEAKER_DUMMY };

	self->vm = vm_new(VM_IRQCHIP);
	must(ioctl(self->vm->fd, KVM_CREATE_PIT2, &c));
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(pit)
{
	vm_free(self->vm);
}

TEST(not_created)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct kvm_reinject_control c = { 0 };
	struct kvm_pit_state2 p = { 0 };
	struct kvm_pit_state q = { 0 };

	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_GET_PIT2, &p));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_SET_PIT2, &p));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_GET_PIT, &q));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_SET_PIT, &q));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_REINJECT_CONTROL, &c));
	vm_free(vm);
}

#define RESAMPLERS	4096	/* as many as there may be on one GSI */
#define TRIES		200

static volatile u32 enough;

static void arming_guest(u64 arg)
{
	while (!enough) {
		outb(0x43, 0x34);
		outb(0x40, 1);
		outb(0x40, 1);
	}
	guest_done(0);
}

/* Of ports that nobody has userspace is told */
static void *arming(void *arg)
{
	struct vcpu *v = arg;

	while (!guest_var(v->vm, enough))
		if (xioctl(v->fd, KVM_RUN, 0) || v->run->exit_reason != KVM_EXIT_IO)
			die("KVM_RUN: exit %s", exit_name(v->run->exit_reason));
	return NULL;
}

/* A PIT whose creation fails at the end has been there for a while, with vCPUs that start its timer */
TEST(creation_fails)
{
	struct rlimit files = { RESAMPLERS + 100, RESAMPLERS + 100 };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_pit_config c = { 0 };
	int resample = must(eventfd(0, EFD_NONBLOCK)), *fd = mem_alloc(RESAMPLERS * sizeof(*fd)), i;
	struct kvm_irqfd off;
	pthread_t thread;

	must(setrlimit(RLIMIT_NOFILE, &files));
	for (i = 0; i < RESAMPLERS; i++) {
		struct kvm_irqfd irqfd = { .fd = fd[i] = must(eventfd(0, EFD_NONBLOCK)), .gsi = 0, .flags = KVM_IRQFD_FLAG_RESAMPLE,
					   .resamplefd = resample };

		if (ioctl(vm->fd, KVM_IRQFD, &irqfd))
			SKIP(return, "no %d that wait for one interrupt's end", RESAMPLERS);
		off = irqfd;
	}
	if (xioctl(vm->fd, KVM_CREATE_PIT2, &c) != -EBUSY)
		SKIP(return, "more than %d may wait for one interrupt's end", RESAMPLERS);
	vcpu_long(v, arming_guest, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, arming, v));
	for (i = 0; i < TRIES; i++)
		EXPECT_EQ(-EBUSY, xioctl(vm->fd, KVM_CREATE_PIT2, &c));
	off.flags = KVM_IRQFD_FLAG_DEASSIGN;
	must(ioctl(vm->fd, KVM_IRQFD, &off));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_CREATE_PIT2, &c));
	guest_var(vm, enough) = 1;
	pthread_join(thread, NULL);
	for (i = 0; i < RESAMPLERS; i++)
		close(fd[i]);
	close(resample);
	vm_free(vm);
}

TEST_F(pit, state)
{
	struct kvm_pit_state2 p, q;
	struct kvm_pit_state r;

	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_PIT2, &p));
	EXPECT_EQ(0, p.flags & KVM_PIT_FLAGS_HPET_LEGACY);
	EXPECT_EQ(0x10000, p.channels[0].count);
	p.channels[0].count = 1000;
	p.channels[0].mode = 2;
	p.channels[2].count = 5000;
	p.channels[2].gate = 1;
	p.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_PIT2, &p));
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_PIT2, &q));
	EXPECT_EQ(1000, q.channels[0].count);
	EXPECT_EQ(2, q.channels[0].mode);
	EXPECT_EQ(5000, q.channels[2].count);
	EXPECT_EQ(1, q.channels[2].gate);
	EXPECT_EQ(KVM_PIT_FLAGS_HPET_LEGACY, q.flags & KVM_PIT_FLAGS_HPET_LEGACY);
	/* the older form is a part of it */
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_PIT, &r));
	EXPECT_EQ(1000, r.channels[0].count);
	r.channels[0].count = 2000;
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_PIT, &r));
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_PIT2, &q));
	EXPECT_EQ(2000, q.channels[0].count);
	/* a count of zero is the longest */
	p.channels[0].count = 0;
	p.flags = 0;
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_PIT2, &p));
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_PIT2, &q));
	EXPECT_EQ(0x10000, q.channels[0].count);
}

static u16 read_count(int ch)
{
	u8 lo, hi;

	outb(0x43, ch << 6);		/* latch */
	lo = inb(0x40 + ch);
	hi = inb(0x40 + ch);
	return lo | hi << 8;
}

static void counter_guest(u64 arg)
{
	u16 a, b;
	u64 i;

	/* channel 0, low then high byte, rate generator */
	outb(0x43, 0x34);
	outb(0x40, 0xff);
	outb(0x40, 0xff);
	a = read_count(0);
	guest_assert(a != 0);
	for (i = 0; i < 1000000; i++) {
		b = read_count(0);
		if (b != a)
			break;
	}
	guest_assert(b != a);
	/* a latched value stays until it is read */
	outb(0x43, 0);
	for (i = 0; i < 100; i++)
		pause_cpu();
	outb(0x43, 0);
	a = inb(0x40);
	a |= inb(0x40) << 8;
	/* read back: status and count of channel 0 */
	outb(0x43, 0xe2);
	guest_eq(inb(0x40) & 0x3f, 0x34);
	/* low byte only */
	outb(0x43, 0x94);
	outb(0x42, 0x42);
	outb(0x43, 0xe8);
	guest_eq(inb(0x42) & 0x3f, 0x14);
	/* the speaker's port: gate of channel 2, and its output */
	outb(0x61, 1);
	guest_eq(inb(0x61) & 3, 1);
	outb(0x43, 0xb0);		/* mode 0 */
	outb(0x42, 0x00);
	outb(0x42, 0x01);
	for (i = 0; i < 10000000 && !(inb(0x61) & 0x20); i++)
		;
	guest_assert(inb(0x61) & 0x20);
	guest_done(0);
}

/* What IN leaves alone of RAX, and what it clears, where a device of the kernel's answers; OUT leaves all of it alone */
static void width_guest(u64 arg)
{
	u64 rax = 0x1122334455667788ULL;

	asm volatile("inb $0x42,%%al" : "+a"(rax));
	guest_eq(rax & ~0xffULL, 0x1122334455667700ULL);
	outb(0x21, 0xa5);
	outb(0xa1, 0x5a);
	asm volatile("inb $0x21,%%al" : "+a"(rax));
	guest_eq(rax, 0x11223344556677a5ULL);
	asm volatile("inw $0xa0,%%ax" : "+a"(rax));
	guest_eq(rax & ~0xffULL, 0x1122334455665a00ULL);
	rax |= 0xffff;
	asm volatile("inl $0x40,%%eax" : "+a"(rax));
	guest_eq(rax & ~0xffULL, 0);
	rax = 0x11223344556677ffULL;
	asm volatile("outb %%al,$0x21" : "+a"(rax));
	guest_eq(rax, 0x11223344556677ffULL);
	guest_done(0);
}

TEST_F(pit, widths)
{
	vcpu_long(self->v, width_guest, 0);
	vcpu_done(self->v);
}

/* None of it leaves the kernel */
TEST_F(pit, counters)
{
	vcpu_long(self->v, counter_guest, 0);
	vcpu_done(self->v);
}

static void tick_handler(struct guest_frame *f)
{
	guest_irqs[f->vec]++;
	outb(0x20, 0x20);
}

static void pic_on(void)
{
	outb(0x20, 0x11);
	outb(0x21, 0x30);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0x21, 0xfe);
	outb(0xa1, 0xff);
	apic_on();
	apic_write(0x350, 0x700);
	guest_on(0x30, tick_handler);
}

static void periodic_guest(u64 arg)
{
	u64 t;

	pic_on();
	t = rdtsc();
	outb(0x43, 0x34);
	outb(0x40, 11932 & 0xff);	/* 100 Hz */
	outb(0x40, 11932 >> 8);
	while (guest_irqs[0x30] < 10)
		irq_halt();
	guest_sync((rdtsc() - t) / 1000);
	/* off: mode 0 with no new count does not tick */
	outb(0x43, 0x30);
	guest_done(0);
}

TEST_F(pit, ticks)
{
	u64 khz = xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0), kcycles;

	vcpu_long(self->v, periodic_guest, 0);
	kcycles = vcpu_sync(self->v);
	/*
	 * Ten ticks from the start are 100 ms, or more where the machine is
	 * slow; late ones come in a bunch, but never one too many.
	 */
	EXPECT_GT(kcycles, khz * 80 / 1000);
	EXPECT_LT(kcycles, khz * 5000 / 1000);
	vcpu_done(self->v);
}

static void oneshot_guest(u64 arg)
{
	u64 i;

	pic_on();
	outb(0x43, 0x30);		/* mode 0: interrupt on terminal count */
	outb(0x40, 0x00);
	outb(0x40, 0x08);
	while (!guest_irqs[0x30])
		irq_halt();
	irq_on();
	for (i = 0; i < 200; i++)
		(void)inb(0x40);
	guest_eq(guest_irqs[0x30], 1);
	guest_done(0);
}

TEST_F(pit, one_shot)
{
	vcpu_long(self->v, oneshot_guest, 0);
	vcpu_done(self->v);
}

/* kvmtool's order, until 2024; with a vCPU there is no telling any more what controllers there will be */
TEST(before_its_controllers)
{
	struct kvm_pit_config c = { 0 };
	struct kvm_pit_state2 p;
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v;

	EXPECT_EQ(0, xioctl(vm->fd, KVM_CREATE_PIT2, &c));
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_PIT2, &c));
	must(ioctl(vm->fd, KVM_GET_PIT2, &p));
	must(ioctl(vm->fd, KVM_SET_PIT2, &p));
	must(ioctl(vm->fd, KVM_CREATE_IRQCHIP));
	v = vcpu_new(vm, 0);
	vcpu_long(v, oneshot_guest, 0);
	vcpu_done(v);
	vm_free(vm);
	vm = vm_new(VM_PLAIN);
	vcpu_new(vm, 0);
	EXPECT_EQ(-ENOENT, xioctl(vm->fd, KVM_CREATE_PIT2, &c));
	vm_free(vm);
}

static void missed_guest(u64 arg)
{
	pic_on();
	outb(0x43, 0x34);
	outb(0x40, 1193 & 0xff);
	outb(0x40, 1193 >> 8);
	guest_sync(0);			/* the VMM sleeps: ticks pile up */
	irq_on();
	while (guest_irqs[0x30] < arg)
		pause_cpu();
	guest_done(0);
}

static void other_pin_guest(u64 arg)
{
	u64 i;

	apic_on();
	guest_on(0x31, guest_count_eoi);
	outb(0x21, 0xfe);		/* to the PIC, whose output nobody takes */
	outb(0x43, 0x34);
	outb(0x40, 1193 & 0xff);
	outb(0x40, 1193 >> 8);
	guest_sync(0);			/* some ticks later */
	outb(0x21, 0xff);
	ioapic_entry(0, 0x31);
	guest_sync(1);			/* and again */
	irq_on();
	for (i = 0; !guest_irqs[0x31] && i < 100000; i++)
		pause_cpu();
	guest_sync(guest_irqs[0x31]);
	guest_done(0);
}

/* One that went where nobody looks is forgotten when another pin is tried */
TEST_F(pit, other_pin)
{
	vcpu_long(self->v, other_pin_guest, 0);
	ASSERT_EQ(0, vcpu_sync(self->v));
	sleep_ms(10);
	ASSERT_EQ(1, vcpu_sync(self->v));
	sleep_ms(10);			/* fewer than it takes to give up */
	EXPECT_LT(0, vcpu_sync(self->v));
	vcpu_done(self->v);
}

/* Ticks that could not be delivered are made up for, unless told not to */
TEST_F(pit, reinjection)
{
	struct kvm_reinject_control c = { .pit_reinject = 1 };
	static struct blob b;
	struct keel_state arg;
	const struct keel_state_pit *s;
	int r, tries = 100;
	u64 began, due;

	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_REINJECT_CONTROL, &c));
	c.pit_reinject = 0;
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_REINJECT_CONTROL, &c));
	c.pit_reinject = 1;
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_REINJECT_CONTROL, &c));
	vcpu_long(self->v, missed_guest, 300);
	vcpu_sync(self->v);
	/* All wait, however many are missed in a row: a tick that may have been lost is sent again, and they are not. */
	began = now_ns();
	sleep_ms(400);
	vcpu_settle(self->v);
	/* The timer's own interrupt may come later than this thread. */
	do {
		sleep_ms(10);
		due = (now_ns() - began) / 1000000;	/* one a millisecond */
		r = state_get(self->vm, &b, &arg);
		if (r == -ENOTTY)
			break;
		ASSERT_EQ(0, r);
		s = section_of(&b, KEEL_SECTION_PIT, -1);
	} while (s->pending < due * 97 / 100 && --tries);
	if (r != -ENOTTY)
		EXPECT_LE(due * 97 / 100, s->pending);
	vcpu_done(self->v);
}

TEST_HARNESS_MAIN
