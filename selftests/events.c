// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events without a return to userspace: irqfd in, ioeventfd out, and the ring of
 * coalesced MMIO and PIO.
 */
#include "test.h"

#include <sys/eventfd.h>
#include <linux/kvm.h>

FIXTURE(events) {
	struct vm *vm;
	struct vcpu *v;
	int fd;
};

FIXTURE_SETUP(events)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
	self->fd = eventfd(0, EFD_NONBLOCK);
}

FIXTURE_TEARDOWN(events)
{
	vm_free(self->vm);
	close(self->fd);
}

/* How often it was signalled since the last time */
static u64 count(int fd)
{
	u64 n = 0;

	return read(fd, &n, 8) == 8 ? n : 0;
}

static void signal_fd(int fd)
{
	u64 one = 1;

	must(write(fd, &one, 8));
}

static int irqfd(struct vm *vm, int fd, u32 gsi, u32 flags, int resample)
{
	struct kvm_irqfd i = { .fd = fd, .gsi = gsi, .flags = flags,
			       .resamplefd = resample };

	return xioctl(vm->fd, KVM_IRQFD, &i);
}

/* ---- irqfd ---- */

TEST_F(events, irqfd_refused)
{
	struct vm *vm = self->vm, *plain = vm_new(VM_PLAIN);
	struct vm *split = vm_new(VM_SPLIT);
	int other = eventfd(0, 0), third = eventfd(0, 0), file = open("/dev/null", O_RDONLY);

	EXPECT_EQ(-EBADF, irqfd(vm, -1, 5, 0, 0));
	EXPECT_EQ(-EINVAL, irqfd(vm, file, 5, 0, 0));
	EXPECT_EQ(-EINVAL, irqfd(vm, self->fd, 5, 1 << 5, 0));
	EXPECT_EQ(0, irqfd(vm, self->fd, 5, 0, 0));
	EXPECT_EQ(-EBUSY, irqfd(vm, self->fd, 5, 0, 0));
	EXPECT_EQ(-EBUSY, irqfd(vm, self->fd, 6, 0, 0));
	EXPECT_EQ(0, irqfd(vm, other, 5, 0, 0));
	/* one that is not assigned can be taken away all the same */
	EXPECT_EQ(0, irqfd(vm, self->fd, 9, KVM_IRQFD_FLAG_DEASSIGN, 0));
	EXPECT_EQ(0, irqfd(vm, self->fd, 5, KVM_IRQFD_FLAG_DEASSIGN, 0));
	EXPECT_EQ(0, irqfd(vm, self->fd, 6, 0, 0));
	EXPECT_EQ(-EBADF, irqfd(vm, -1, 5, KVM_IRQFD_FLAG_DEASSIGN, 0));
	EXPECT_EQ(-EBADF, irqfd(vm, other, 7, KVM_IRQFD_FLAG_RESAMPLE, -1));
	EXPECT_EQ(-EINVAL, irqfd(plain, self->fd, 5, 0, 0));
	EXPECT_EQ(0, irqfd(split, third, 5, 0, 0));
	EXPECT_EQ(-EINVAL, irqfd(split, other, 5, KVM_IRQFD_FLAG_RESAMPLE,
				 self->fd));
	vm_free(plain);
	vm_free(split);
	close(other);
	close(third);
	close(file);
}

static void irqfd_guest(u64 arg)
{
	u32 i;

	apic_on();
	guest_on(0x45, guest_count_eoi);
	guest_on(0x52, guest_count_eoi);
	ioapic_entry(5, 0x45);
	for (i = 1; i <= 3; i++) {
		guest_sync(i);
		while (guest_irqs[0x45] + guest_irqs[0x52] < i)
			irq_halt();
	}
	guest_eq(guest_irqs[0x45], 2);
	guest_eq(guest_irqs[0x52], 1);
	guest_done(0);
}

static void route_msi(struct vm *vm, u32 gsi, u32 vec)
{
	struct {
		struct kvm_irq_routing h;
		struct kvm_irq_routing_entry e[2];
	} r = { .h.nr = 2 };

	r.e[0] = (struct kvm_irq_routing_entry) {
		.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = 0xfee00000, .data = vec } };
	r.e[1] = (struct kvm_irq_routing_entry) {
		.gsi = 5, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { KVM_IRQCHIP_IOAPIC, 5 } };
	must(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &r));
}

TEST_F(events, irqfd)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	int msifd = eventfd(0, EFD_NONBLOCK), early = eventfd(1, EFD_NONBLOCK);

	vcpu_long(v, irqfd_guest, 0);
	EXPECT_EQ(0, irqfd(vm, self->fd, 5, 0, 0));
	EXPECT_EQ(1, vcpu_sync(v));
	signal_fd(self->fd);
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, count(self->fd));		/* it was taken */
	/* by way of a route made after it */
	EXPECT_EQ(0, irqfd(vm, msifd, 70, 0, 0));
	route_msi(vm, 70, 0x52);
	signal_fd(msifd);
	EXPECT_EQ(3, vcpu_sync(v));
	/* one that was signalled before it was assigned */
	EXPECT_EQ(0, irqfd(vm, early, 5, 0, 0));
	vcpu_done(v);
	/* not assigned any more, it does nothing */
	EXPECT_EQ(0, irqfd(vm, self->fd, 5, KVM_IRQFD_FLAG_DEASSIGN, 0));
	signal_fd(self->fd);
	EXPECT_EQ(1, count(self->fd));
	close(msifd);
	close(early);
}

static volatile u32 ready;

static void irqfd_many_guest(u64 n)
{
	apic_on();
	guest_on(0x52, guest_count_eoi);
	ready = 1;
	while (guest_irqs[0x52] < n)
		irq_halt();
	guest_done(0);
}

/* Halted and woken many times: none may be lost */
TEST_F(events, irqfd_wakes)
{
	struct vm *vm = self->vm;
	u32 i;

	route_msi(vm, 70, 0x52);
	EXPECT_EQ(0, irqfd(vm, self->fd, 70, 0, 0));
	vcpu_long(self->v, irqfd_many_guest, 500);
	vcpu_start(self->v);
	ASSERT_TRUE(wait_for(&guest_var(vm, ready), 1, 20000));
	for (i = 1; i <= 500; i++) {
		signal_fd(self->fd);
		ASSERT_TRUE(wait_for(&guest_var(vm, guest_irqs)[0x52], i,
				     20000));
	}
	vcpu_join(self->v);
}

/* A closed eventfd takes its irqfd with it; a VM takes all of its */
TEST_F(events, irqfd_lifetime)
{
	int i;

	for (i = 0; i < 20; i++) {
		int fd = eventfd(0, 0);

		EXPECT_EQ(0, irqfd(self->vm, fd, 5, 0, 0));
		close(fd);
	}
	EXPECT_EQ(0, irqfd(self->vm, self->fd, 5, 0, 0));
	vm_free(self->vm);
	signal_fd(self->fd);
	EXPECT_EQ(1, count(self->fd));
	self->vm = vm_new(VM_IRQCHIP);
}

static void resample_guest(u64 arg)
{
	apic_on();
	guest_on(0x46, guest_count_eoi);
	ioapic_entry(6, 0x46 | 1 << 15);
	guest_sync(0);
	irq_on();
	guest_sync(1);
	guest_eq(guest_irqs[0x46], 1);
	guest_sync(2);
	guest_eq(guest_irqs[0x46], 2);
	guest_done(0);
}

/* Level-triggered: the line goes down with the EOI, and the VMM hears of it */
TEST_F(events, irqfd_resample)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	int resample = eventfd(0, EFD_NONBLOCK);

	vcpu_long(v, resample_guest, 0);
	EXPECT_EQ(0, irqfd(vm, self->fd, 6, KVM_IRQFD_FLAG_RESAMPLE, resample));
	EXPECT_EQ(0, vcpu_sync(v));
	signal_fd(self->fd);
	EXPECT_EQ(0, count(resample));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(1, count(resample));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, count(resample));
	signal_fd(self->fd);
	vcpu_done(v);
	EXPECT_EQ(1, count(resample));
	EXPECT_EQ(0, irqfd(vm, self->fd, 6, KVM_IRQFD_FLAG_DEASSIGN, 0));
	close(resample);
}

/* All of a GSI hear of it, none of another; one that goes leaves the others what they have */
TEST_F(events, irqfd_resample_many)
{
	int fd[4], resample[4], i;
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;

	vcpu_long(v, resample_guest, 0);
	for (i = 0; i < 4; i++) {
		fd[i] = eventfd(0, EFD_NONBLOCK);
		resample[i] = eventfd(0, EFD_NONBLOCK);
		EXPECT_EQ(0, irqfd(vm, fd[i], i < 3 ? 6 : 7, KVM_IRQFD_FLAG_RESAMPLE, resample[i]));
		EXPECT_EQ(-EBUSY, irqfd(vm, fd[i], 8, KVM_IRQFD_FLAG_RESAMPLE, resample[i]));
	}
	EXPECT_EQ(0, vcpu_sync(v));
	signal_fd(fd[0]);
	/* while the line is up */
	EXPECT_EQ(0, irqfd(vm, fd[1], 6, KVM_IRQFD_FLAG_DEASSIGN, 0));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(1, count(resample[0]));
	EXPECT_EQ(0, count(resample[1]));
	EXPECT_EQ(1, count(resample[2]));
	EXPECT_EQ(0, count(resample[3]));
	EXPECT_EQ(2, vcpu_sync(v));
	/* closed is gone, too, and by then a line that nobody holds is down */
	signal_fd(fd[2]);
	close(fd[2]);
	EXPECT_EQ(0, irqfd(vm, fd[0], 6, KVM_IRQFD_FLAG_DEASSIGN, 0));
	vcpu_done(v);
	EXPECT_EQ(0, count(resample[0]));
	for (i = 0; i < 4; i++) {
		if (i != 2)
			close(fd[i]);
		close(resample[i]);
	}
}

/* ---- ioeventfd ---- */

static int ioevent(struct vm *vm, int fd, u64 addr, u32 len, u32 flags,
		   u64 match)
{
	struct kvm_ioeventfd i = { .fd = fd, .addr = addr, .len = len,
				   .flags = flags, .datamatch = match };

	return xioctl(vm->fd, KVM_IOEVENTFD, &i);
}

#define PIO	KVM_IOEVENTFD_FLAG_PIO
#define MATCH	KVM_IOEVENTFD_FLAG_DATAMATCH
#define DEL	KVM_IOEVENTFD_FLAG_DEASSIGN

TEST_F(events, ioeventfd_refused)
{
	struct vm *vm = self->vm;
	int fd = self->fd;

	EXPECT_EQ(-EBADF, ioevent(vm, -1, 0x100, 1, PIO, 0));
	EXPECT_EQ(-EINVAL, ioevent(vm, fd, 0x100, 3, PIO, 0));
	EXPECT_EQ(-EINVAL, ioevent(vm, fd, 0x100, 16, PIO, 0));
	EXPECT_EQ(-EINVAL, ioevent(vm, fd, 0x100, 1, PIO | 1 << 10, 0));
	EXPECT_EQ(-EINVAL, ioevent(vm, fd, 0x100, 0, PIO | MATCH, 0));
	EXPECT_EQ(-EINVAL, ioevent(vm, fd, (u64)-1, 4, 0, 0));
	EXPECT_EQ(-ENOENT, ioevent(vm, fd, 0x100, 1, PIO | DEL, 0));

	EXPECT_EQ(0, ioevent(vm, fd, 0x100, 2, PIO | MATCH, 5));
	EXPECT_EQ(-EEXIST, ioevent(vm, fd, 0x100, 2, PIO | MATCH, 5));
	EXPECT_EQ(-EEXIST, ioevent(vm, fd, 0x100, 2, PIO, 0));
	EXPECT_EQ(0, ioevent(vm, fd, 0x100, 2, PIO | MATCH, 6));
	EXPECT_EQ(0, ioevent(vm, fd, 0x100, 2, MATCH, 5));	/* the other bus */
	/* taken away is only what was given */
	EXPECT_EQ(-ENOENT, ioevent(vm, fd, 0x100, 2, PIO | DEL, 0));
	EXPECT_EQ(-ENOENT, ioevent(vm, fd, 0x100, 1, PIO | MATCH | DEL, 5));
	EXPECT_EQ(-ENOENT, ioevent(vm, fd, 0x100, 2, PIO | MATCH | DEL, 7));
	EXPECT_EQ(0, ioevent(vm, fd, 0x100, 2, PIO | MATCH | DEL, 5));
	EXPECT_EQ(-ENOENT, ioevent(vm, fd, 0x100, 2, PIO | MATCH | DEL, 5));
	EXPECT_EQ(0, ioevent(vm, fd, 0x100, 2, PIO | MATCH | DEL, 6));
	EXPECT_EQ(0, ioevent(vm, fd, 0x100, 2, PIO, 0));
}

static void pio_guest(u64 arg)
{
	outw(0x200, 1);			/* any value */
	outw(0x200, 2);
	outw(0x300, 7);			/* that value */
	outw(0x300, 8);			/* another */
	outb(0x200, 1);			/* another width */
	outl(0x400, 3);			/* any width */
	outw(0x400, 3);
	outb(0x400, 3);
	(void)inw(0x200);		/* a read */
	outw(0x201, 1);			/* beside it */
	guest_done(0);
}

TEST_F(events, ioeventfd_pio)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	int match = eventfd(0, EFD_NONBLOCK), any = eventfd(0, EFD_NONBLOCK);

	vcpu_long(v, pio_guest, 0);
	EXPECT_EQ(0, ioevent(vm, self->fd, 0x200, 2, PIO, 0));
	EXPECT_EQ(0, ioevent(vm, match, 0x300, 2, PIO | MATCH, 7));
	EXPECT_EQ(0, ioevent(vm, any, 0x400, 0, PIO, 0));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x300, 2, 1);
	EXPECT_EQ(2, count(self->fd));
	EXPECT_EQ(1, count(match));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x200, 1, 1);
	*(u16 *)vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x200, 2, 1) = 0;
	EXPECT_EQ(3, count(any));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x201, 2, 1);
	vcpu_done(v);
	EXPECT_EQ(0, count(self->fd));
	EXPECT_EQ(0, count(match));
	close(match);
	close(any);
}

static void mmio_guest(u64 arg)
{
	u64 m = HOLE_GPA;

	mmio_write32(m, 1);
	asm volatile("movq %0,(%1)" :: "r"(0x1122334455667788UL), "r"(m + 8)
		     : "memory");
	asm volatile("movq %0,(%1)" :: "r"(0x1122334455667789UL), "r"(m + 8)
		     : "memory");
	asm volatile("movb %b0,(%1)" :: "q"(1UL), "r"(m + 0x1000) : "memory");
	asm volatile("movw %w0,(%1)" :: "r"(1UL), "r"(m + 0x1000) : "memory");
	(void)mmio_read32(m);
	guest_sync(0);
	mmio_write32(m, 1);		/* taken away */
	guest_done(0);
}

TEST_F(events, ioeventfd_mmio)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	int match = eventfd(0, EFD_NONBLOCK), any = eventfd(0, EFD_NONBLOCK);

	vcpu_long(v, mmio_guest, 0);
	EXPECT_EQ(0, ioevent(vm, self->fd, HOLE_GPA, 4, 0, 0));
	EXPECT_EQ(0, ioevent(vm, match, HOLE_GPA + 8, 8, MATCH,
			     0x1122334455667788UL));
	EXPECT_EQ(0, ioevent(vm, any, HOLE_GPA + 0x1000, 0, 0, 0));
	vcpu_expect_mmio(v, true, HOLE_GPA + 8, 8);
	EXPECT_EQ(1, count(self->fd));
	EXPECT_EQ(1, count(match));
	vcpu_expect_mmio(v, false, HOLE_GPA, 4);
	EXPECT_EQ(2, count(any));
	vcpu_sync(v);
	EXPECT_EQ(0, ioevent(vm, self->fd, HOLE_GPA, 4, DEL, 0));
	EXPECT_EQ(0, ioevent(vm, any, HOLE_GPA + 0x1000, 0, DEL, 0));
	vcpu_expect_mmio(v, true, HOLE_GPA, 4);
	vcpu_done(v);
	EXPECT_EQ(0, count(self->fd));
	close(match);
	close(any);
}

/* As many as a bus takes */
TEST_F(events, ioeventfd_many)
{
	int i, ret = 0;

	for (i = 0; i < 1100 && !ret; i++)
		ret = ioevent(self->vm, self->fd, i * 4, 4, PIO, 0);
	EXPECT_GE(i, 900);
	if (ret) {
		EXPECT_EQ(-ENOSPC, ret);
	}
	for (i = 0; i < 900; i++) {
		ASSERT_EQ(0, ioevent(self->vm, self->fd, i * 4, 4, PIO | DEL,
				     0));
	}
}

static u64 us_to_close(int doorbells, bool mmio)
{
	int best = 0, i, n, fd = eventfd(0, 0);
	struct timespec a, b;

	for (n = 0; n < 3; n++) {
		struct vm *vm = vm_new(VM_PLAIN);
		int us;

		for (i = 0; i < doorbells; i++)
			must(ioevent(vm, fd, mmio ? HOLE_GPA + i * 8 : i * 4, mmio ? 0 : 4, mmio ? 0 : PIO, 0));
		clock_gettime(CLOCK_MONOTONIC, &a);
		vm_free(vm);
		clock_gettime(CLOCK_MONOTONIC, &b);
		us = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
		best = n && best < us ? best : us;
	}
	close(fd);
	return best;
}

/* What a VMM has made is taken away in a time that grows as it does, no faster */
TEST(doorbells_closed)
{
	int mmio;

	for (mmio = 0; mmio < 2; mmio++) {
		u64 few = us_to_close(1000, mmio), many = us_to_close(8000, mmio);

		TH_LOG("%lu us with 1000, %lu us with 8000", few, many);
		EXPECT_LT(many, 24 * few + 20000);
	}
}

/* ---- coalesced MMIO and PIO ---- */

static int coalesce(struct vm *vm, u64 addr, u32 size, u32 pio, bool add)
{
	struct kvm_coalesced_mmio_zone z = { .addr = addr, .size = size,
					     .pio = pio };

	return add ? xioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &z) :
		     xioctl(vm->fd, KVM_UNREGISTER_COALESCED_MMIO, &z);
}

static struct kvm_coalesced_mmio_ring *ring_of(struct vcpu *v)
{
	return (void *)v->run +
	       4096 * vm_cap(v->vm, KVM_CAP_COALESCED_MMIO);
}

static void coalesced_guest(u64 arg)
{
	u32 i;

	mmio_write32(HOLE_GPA, 0x11);
	asm volatile("movb %b0,(%1)" :: "q"(0x22UL), "r"(HOLE_GPA + 0xfff)
		     : "memory");
	outb(0x500, 0x33);
	outl(0x501, 0x44);
	mmio_write32(HOLE_GPA + 0x1000, 0x55);	/* past the zone */
	(void)mmio_read32(HOLE_GPA);
	guest_sync(0);
	for (i = 0; i < 10000; i++)
		mmio_write32(HOLE_GPA + 4, i);
	guest_done(0);
}

TEST_F(events, coalesced)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	struct kvm_coalesced_mmio_ring *r = ring_of(v);
	u32 max = (4096 - sizeof(*r)) / sizeof(r->coalesced_mmio[0]), n;

	EXPECT_EQ(-EINVAL, coalesce(vm, HOLE_GPA, 0x1000, 2, true));
	EXPECT_EQ(0, coalesce(vm, HOLE_GPA, 0x1000, 0, true));
	EXPECT_EQ(0, coalesce(vm, 0x500, 8, 1, true));
	vcpu_long(v, coalesced_guest, 0);
	vcpu_expect_mmio(v, true, HOLE_GPA + 0x1000, 4);
	EXPECT_EQ(0, r->first);
	ASSERT_EQ(4, r->last);
	EXPECT_EQ(HOLE_GPA, r->coalesced_mmio[0].phys_addr);
	EXPECT_EQ(4, r->coalesced_mmio[0].len);
	EXPECT_EQ(0x11, r->coalesced_mmio[0].data[0]);
	EXPECT_EQ(0, r->coalesced_mmio[0].pio);
	EXPECT_EQ(HOLE_GPA + 0xfff, r->coalesced_mmio[1].phys_addr);
	EXPECT_EQ(1, r->coalesced_mmio[1].len);
	EXPECT_EQ(0x500, r->coalesced_mmio[2].phys_addr);
	EXPECT_EQ(1, r->coalesced_mmio[2].pio);
	EXPECT_EQ(0x33, r->coalesced_mmio[2].data[0]);
	EXPECT_EQ(4, r->coalesced_mmio[3].len);
	vcpu_expect_mmio(v, false, HOLE_GPA, 4);
	r->first = r->last;
	EXPECT_EQ(0, vcpu_sync(v));
	/* a full ring is an exit like any, and loses nothing */
	for (n = 0; n < 10000;) {
		vcpu_run(v);
		while (r->first != r->last) {
			ASSERT_EQ(n, *(u32 *)r->coalesced_mmio[r->first].data);
			n++;
			r->first = (r->first + 1) % max;
		}
		if (v->run->exit_reason == KVM_EXIT_IO)
			break;
		ASSERT_EQ(KVM_EXIT_MMIO, v->run->exit_reason);
		ASSERT_EQ(n, *(u32 *)v->run->mmio.data);
		n++;
	}
	EXPECT_EQ(10000, n);
}

static void coalesced_off_guest(u64 arg)
{
	mmio_write32(HOLE_GPA, 1);
	guest_sync(0);
	mmio_write32(HOLE_GPA, 2);
	outb(0x500, 1);
	guest_sync(1);
	outb(0x500, 2);
	guest_done(0);
}

TEST_F(events, coalesced_off)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	struct kvm_coalesced_mmio_ring *r = ring_of(v);

	EXPECT_EQ(0, coalesce(vm, HOLE_GPA, 0x1000, 0, true));
	EXPECT_EQ(0, coalesce(vm, 0x500, 8, 1, true));
	vcpu_long(v, coalesced_off_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(1, r->last);
	EXPECT_EQ(0, coalesce(vm, HOLE_GPA, 0x1000, 0, false));
	/* none there is no error */
	EXPECT_EQ(0, coalesce(vm, HOLE_GPA, 0x1000, 0, false));
	EXPECT_EQ(-EINVAL, coalesce(vm, HOLE_GPA, 0x1000, 2, false));
	vcpu_expect_mmio(v, true, HOLE_GPA, 4);
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(2, r->last);
	EXPECT_EQ(0, coalesce(vm, 0x500, 8, 1, false));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x500, 1, 1);
	vcpu_done(v);
}

static void hostile_ring_guest(u64 arg)
{
	u32 i;

	for (i = 0; i < 8; i++)
		mmio_write32(HOLE_GPA, i);
	guest_done(0);
}

/* Its indices are in memory the process can write: nonsense there hurts nobody */
TEST_F(events, coalesced_bad_indices)
{
	static const u32 bad[] = { 0xffffffff, 0x80000000, 4096, 170, 171, 1 };
	struct vcpu *v = self->v;
	struct kvm_coalesced_mmio_ring *r = ring_of(v);
	int i;

	EXPECT_EQ(0, coalesce(self->vm, HOLE_GPA, 0x1000, 0, true));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		vcpu_long(v, hostile_ring_guest, 0);
		r->first = bad[i];
		r->last = bad[ARRAY_SIZE(bad) - 1 - i];
		do {
			vcpu_run(v);
		} while (v->run->exit_reason == KVM_EXIT_MMIO);
		EXPECT_EQ(KVM_EXIT_IO, v->run->exit_reason);
		/* let the out be completed before the next start */
		v->run->immediate_exit = 1;
		EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
		v->run->immediate_exit = 0;
	}
}

TEST_HARNESS_MAIN
