// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupt controllers in the kernel: PIC, IOAPIC, their lines and state,
 * GSI routing, MSIs; and the split irqchip, whose IOAPIC is the VMM's.
 */
#include "test.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

FIXTURE(irqchip) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(irqchip)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(irqchip)
{
	vm_free(self->vm);
}

static int irq_line(struct vm *vm, u32 irq, u32 level)
{
	struct kvm_irq_level l = { .irq = irq, .level = level };

	return xioctl(vm->fd, KVM_IRQ_LINE, &l);
}

static int irq_status(struct vm *vm, u32 irq, u32 level)
{
	struct kvm_irq_level l = { .irq = irq, .level = level };

	must(ioctl(vm->fd, KVM_IRQ_LINE_STATUS, &l));
	return l.status;
}

static int msi(struct vm *vm, u32 lo, u32 data)
{
	struct kvm_msi m = { .address_lo = lo, .data = data };

	return xioctl(vm->fd, KVM_SIGNAL_MSI, &m);
}

struct routing {
	struct kvm_irq_routing h;
	struct kvm_irq_routing_entry e[64];
};

static int set_routing(struct vm *vm, struct routing *r)
{
	return xioctl(vm->fd, KVM_SET_GSI_ROUTING, r);
}

/* ---- state ---- */

TEST_F(irqchip, state)
{
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_IOAPIC }, d;
	int i, k;

	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_IRQCHIP, &c));
	EXPECT_EQ(IOAPIC_GPA, c.chip.ioapic.base_address);
	for (i = 0; i < 24; i++) {
		EXPECT_EQ(0x10000, c.chip.ioapic.redirtbl[i].bits & 0x1ffff);
	}
	c.chip.ioapic.redirtbl[5].bits = 0x0100000000008055ULL;
	c.chip.ioapic.id = 3;
	c.chip.ioapic.ioregsel = 0x1a;
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_IRQCHIP, &c));
	d.chip_id = KVM_IRQCHIP_IOAPIC;
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_IRQCHIP, &d));
	EXPECT_EQ(c.chip.ioapic.redirtbl[5].bits,
		  d.chip.ioapic.redirtbl[5].bits);
	EXPECT_EQ(3, d.chip.ioapic.id);
	EXPECT_EQ(0x1a, d.chip.ioapic.ioregsel);

	for (i = KVM_IRQCHIP_PIC_MASTER; i <= KVM_IRQCHIP_PIC_SLAVE; i++) {
		c.chip_id = i;
		ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_IRQCHIP, &c));
		c.chip.pic.imr = 0xa5;
		c.chip.pic.irq_base = 0x30 + i * 8;
		c.chip.pic.elcr = 0x20;
		ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_IRQCHIP, &c));
		d.chip_id = i;
		ASSERT_EQ(0, xioctl(self->vm->fd, KVM_GET_IRQCHIP, &d));
		for (k = 0; k < sizeof(c.chip.pic); k++) {
			EXPECT_EQ(((u8 *)&c.chip.pic)[k],
				  ((u8 *)&d.chip.pic)[k])
				TH_LOG("byte %d of kvm_pic_state", k);
		}
	}
	c.chip_id = 3;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_GET_IRQCHIP, &c));
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_SET_IRQCHIP, &c));
}

TEST(none)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_pit_state2 p;
	struct routing r = { .h.nr = 0 };

	EXPECT_EQ(-ENXIO, irq_line(vm, 0, 1));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_GET_IRQCHIP, &c));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_SET_IRQCHIP, &c));
	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_GET_PIT2, &p));
	EXPECT_EQ(-EINVAL, msi(vm, 0xfee00000, 0x40));
	EXPECT_EQ(-EINVAL, set_routing(vm, &r));
	vm_free(vm);
}

/* ---- PIC ---- */

static void pic_setup(u8 mask)
{
	outb(0x20, 0x11);
	outb(0x21, 0x30);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, 0x38);
	outb(0xa1, 2);
	outb(0xa1, 1);
	outb(0x21, mask);
	outb(0xa1, 0);
}

static void pic_eoi_handler(struct guest_frame *f)
{
	guest_irqs[f->vec]++;
	if (f->vec >= 0x38)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

/* LINT0 as ExtINT, which is how the PIC is heard */
static void virtual_wire(void)
{
	apic_on();
	apic_write(0x350, 0x700);
}

static void pic_guest(u64 arg)
{
	virtual_wire();
	pic_setup(0);
	guest_on(0x33, pic_eoi_handler);
	guest_on(0x34, pic_eoi_handler);
	guest_on(0x3a, pic_eoi_handler);
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x33], 1);
	guest_sync(1);
	guest_eq(guest_irqs[0x3a], 1);		/* through the cascade */
	/* masked, then not */
	outb(0x21, 0x10);
	guest_eq(inb(0x21), 0x10);
	guest_sync(2);
	guest_eq(guest_irqs[0x34], 0);
	outb(0x20, 0x0a);			/* read IRR */
	guest_eq(inb(0x20) & 0x10, 0x10);
	outb(0x21, 0);
	asm volatile("nop; nop");
	guest_eq(guest_irqs[0x34], 1);
	/* its next may come before the halt */
	irq_off();
	while (guest_irqs[0x33] < 2)
		irq_halt();
	guest_done(0);
}

/* ---- two that take the PIC's interrupts ---- */

static void takes_and_stops(u64 arg)
{
	virtual_wire();
	guest_sync(0);
	apic_write(0x350, 0x10700);
	guest_sync(1);
}

static void takes_over(u64 arg)
{
	virtual_wire();
	pic_setup(0);
	guest_on(0x33, pic_eoi_handler);
	guest_sync(0);
	while (!guest_irqs[0x33])
		irq_halt();
	guest_done(0);
}

static void *until_done(void *v)
{
	vcpu_done(v);
	return NULL;
}

/* One has been told of the PIC's output, and takes it no more: the other gets it */
TEST(pic_handed_over)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *takes = vcpu_new(vm, 0), *told = vcpu_new(vm, 1);
	struct timespec limit;
	pthread_t t;

	vcpu_long(told, takes_and_stops, 0);
	EXPECT_EQ(0, vcpu_sync(told));
	vcpu_long(takes, takes_over, 0);
	EXPECT_EQ(0, vcpu_sync(takes));
	pthread_create(&t, NULL, until_done, takes);
	sleep_ms(50);
	EXPECT_EQ(0, irq_line(vm, 3, 1));
	EXPECT_EQ(0, irq_line(vm, 3, 0));
	EXPECT_EQ(1, vcpu_sync(told));
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 60;
	ASSERT_EQ(0, pthread_timedjoin_np(t, NULL, &limit));
	vm_free(vm);
}

TEST_F(irqchip, pic)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	u64 end = now_ns() + scaled(20000000000ULL);

	vcpu_long(v, pic_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, irq_line(vm, 3, 1));
	EXPECT_EQ(0, irq_line(vm, 3, 0));
	EXPECT_EQ(1, vcpu_sync(v));
	EXPECT_EQ(0, irq_line(vm, 10, 1));
	EXPECT_EQ(0, irq_line(vm, 10, 0));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, irq_line(vm, 4, 1));
	vcpu_start(v);
	/* from the halt, by another thread */
	while (guest_var(vm, guest_irqs)[0x33] < 2 && now_ns() < end) {
		sleep_ms(20);
		irq_line(vm, 3, 1);
		irq_line(vm, 3, 0);
	}
	vcpu_join(v);
}

/* ---- IOAPIC ---- */

#define IOAPIC_LOW	(1 << 13)	/* the line is active when low */
#define IOAPIC_LEVEL	(1 << 15)
#define IOAPIC_MASK	(1 << 16)

static volatile u32 stop_flag;

static void ioapic_guest(u64 arg)
{
	apic_on();
	guest_eq(ioapic_read(1) & 0xff00ff, 0x170011);
	ioapic_write(0, 5 << 24);
	guest_eq(ioapic_read(0), 5 << 24);
	guest_on(0x45, guest_count_eoi);
	ioapic_entry(5, 0x45);
	guest_eq(ioapic_read(0x1a), 0x45);
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x45], 1);
	guest_sync(1);
	guest_eq(guest_irqs[0x45], 1);		/* the line just stayed up */
	guest_sync(2);
	guest_eq(guest_irqs[0x45], 2);
	/* an edge while masked is remembered */
	ioapic_entry(5, 0x45 | IOAPIC_MASK);
	guest_sync(3);
	guest_eq(guest_irqs[0x45], 2);
	guest_done(0);
}

TEST_F(irqchip, ioapic_edge)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;

	vcpu_long(v, ioapic_guest, 0);
	vcpu_sync(v);
	EXPECT_LT(0, irq_status(vm, 5, 1));
	EXPECT_EQ(1, vcpu_sync(v));
	irq_line(vm, 5, 1);
	EXPECT_EQ(2, vcpu_sync(v));
	irq_line(vm, 5, 0);
	irq_line(vm, 5, 1);
	EXPECT_EQ(3, vcpu_sync(v));
	irq_line(vm, 5, 0);
	irq_line(vm, 5, 1);
	vcpu_done(v);
}

static void level_handler(struct guest_frame *f)
{
	guest_irqs[f->vec]++;
	guest_sync(100 + guest_irqs[f->vec]);	/* the VMM sets the line here */
	apic_eoi();
}

/* how: 1 for an x2APIC, and bits of the IOAPIC's entry */
static void ioapic_level_guest(u64 how)
{
	if (how & 1)
		x2apic_on();
	else
		apic_on();
	guest_on(0x46, level_handler);
	ioapic_entry(6, 0x46 | IOAPIC_LEVEL | (how & IOAPIC_LOW));
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x46], 3);
	guest_eq(ioapic_read(0x1c) & 0x4000, 0);	/* remote IRR */
	guest_done(0);
}

/* Asserted still at EOI, it comes again */
static void run_ioapic_level(struct __test_metadata *_metadata, struct vm *vm, struct vcpu *v, u64 how)
{
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_IOAPIC };

	vcpu_long(v, ioapic_level_guest, how);
	EXPECT_EQ(0, vcpu_sync(v));
	irq_line(vm, 6, 1);
	EXPECT_EQ(101, vcpu_sync(v));
	must(ioctl(vm->fd, KVM_GET_IRQCHIP, &c));
	EXPECT_EQ(0x4000, c.chip.ioapic.redirtbl[6].bits & 0x4000);
	EXPECT_EQ(1 << 6, c.chip.ioapic.irr & 1 << 6);
	EXPECT_EQ(102, vcpu_sync(v));
	EXPECT_EQ(103, vcpu_sync(v));
	irq_line(vm, 6, 0);
	vcpu_done(v);
}

TEST_F(irqchip, ioapic_level)
{
	run_ioapic_level(_metadata, self->vm, self->v, 0);
}

/* KVM_CAP_IOAPIC_POLARITY_IGNORED: a guest's IOAPIC calls a line active when the VMM does */
TEST_F(irqchip, ioapic_level_polarity)
{
	run_ioapic_level(_metadata, self->vm, self->v, IOAPIC_LOW);
}

/* The CPU may run the LAPIC; the EOI is still heard of */
TEST_F(irqchip, ioapic_level_x2apic)
{
	run_ioapic_level(_metadata, self->vm, self->v, 1);
}

/* IRQ_LINE_STATUS: how many took it, or that nobody has such a line */
static void status_guest(u64 arg)
{
	apic_on();
	guest_on(0x47, guest_count_eoi);
	ioapic_entry(7, 0x47);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	guest_sync(0);
	irq_on();
	guest_sync(1);
	guest_eq(guest_irqs[0x47], 1);
	guest_done(0);
}

TEST_F(irqchip, line_status)
{
	struct vcpu *v = self->v;

	vcpu_long(v, status_guest, 0);
	vcpu_sync(v);
	EXPECT_LT(0, irq_status(self->vm, 7, 1));
	irq_line(self->vm, 7, 0);
	/* still pending: KVM says taken again, coalesced would be right, too */
	EXPECT_LE(0, irq_status(self->vm, 7, 1));
	irq_line(self->vm, 7, 0);
	EXPECT_EQ(1, vcpu_sync(v));
	vcpu_done(v);
	/* nobody has that line */
	EXPECT_EQ(-1, irq_status(self->vm, 100, 1));
	EXPECT_EQ(0, irq_line(self->vm, 4095, 1));
	EXPECT_EQ(0, irq_line(self->vm, 0x7fffffff, 1));
}

/* ---- whose EOI ---- */

static void slow_handler(struct guest_frame *f)
{
	guest_sync(guest_cpu() * 10 + 1);	/* in service */
	apic_eoi();
}

static void sharing_guest(u64 arg)
{
	apic_on();
	if (!guest_cpu()) {
		guest_on(0x50, slow_handler);
		ioapic_entry(9, 0x50 | IOAPIC_LEVEL);
	}
	irq_on();
	guest_sync(guest_cpu() * 10);
	guest_sync(guest_cpu() * 10 + 2);
	guest_sync(guest_cpu() * 10 + 3);
	guest_done(0);
}

static bool remote_irr(struct vm *vm, int pin)
{
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_IOAPIC };

	must(ioctl(vm->fd, KVM_GET_IRQCHIP, &c));
	return c.chip.ioapic.redirtbl[pin].bits & 0x4000;
}

/*
 * A message with the number of another CPU's level-triggered vector: its end is not that of the level's interrupt. And an entry
 * that leads elsewhere by the time of the EOI.
 */
TEST_F(irqchip, eoi_of_another)
{
	struct vm *vm = self->vm;
	struct vcpu *v0 = self->v, *v1 = vcpu_new(vm, 1);
	struct kvm_msi msi = { .address_lo = 0xfee01000, .data = 0x50 };
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_IOAPIC };
	int ev = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);
	struct kvm_irqfd fd = { .fd = ev, .gsi = 9, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = resample };
	u64 n = 1;

	must(ioctl(vm->fd, KVM_IRQFD, &fd));
	vcpu_long(v0, sharing_guest, 0);
	vcpu_long(v1, sharing_guest, 0);
	EXPECT_EQ(0, vcpu_sync(v0));
	EXPECT_EQ(10, vcpu_sync(v1));
	EXPECT_EQ(8, write(ev, &n, 8));
	EXPECT_EQ(1, vcpu_sync(v0));		/* in service there */
	EXPECT_TRUE(remote_irr(vm, 9));
	EXPECT_EQ(1, xioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
	EXPECT_EQ(11, vcpu_sync(v1));
	EXPECT_EQ(12, vcpu_sync(v1));		/* and ended here */
	EXPECT_TRUE(remote_irr(vm, 9));
	EXPECT_EQ(-1, read(resample, &n, 8));
	EXPECT_EQ(2, vcpu_sync(v0));
	EXPECT_FALSE(remote_irr(vm, 9));
	EXPECT_EQ(8, read(resample, &n, 8));

	/* loaded with another destination while it is in service */
	n = 1;
	EXPECT_EQ(8, write(ev, &n, 8));
	EXPECT_EQ(1, vcpu_sync(v0));
	must(ioctl(vm->fd, KVM_GET_IRQCHIP, &c));
	c.chip.ioapic.redirtbl[9].fields.dest_id = 1;
	must(ioctl(vm->fd, KVM_SET_IRQCHIP, &c));
	EXPECT_EQ(3, vcpu_sync(v0));
	EXPECT_FALSE(remote_irr(vm, 9));
	close(ev);
	close(resample);
}

/*
 * A guest that serves devices in threads: the interrupt ends, masked, before the device is served.  What that raised in
 * between is asked for again when it is unmasked.
 */
#define LEVEL	(1UL << 15)
#define MASKED	(1UL << 16)

static void masks_and_ends(struct guest_frame *f)
{
	ioapic_entry(9, 0x51 | LEVEL | MASKED);
	atomic_add(&guest_irqs[f->vec], 1);
	apic_eoi();
}

static void threaded_guest(u64 arg)
{
	u32 i;

	apic_on();
	guest_on(0x51, masks_and_ends);
	irq_on();
	for (i = 0; ; i++) {
		ioapic_entry(9, 0x51 | LEVEL);
		guest_sync(guest_irqs[0x51]);
		spin_until(&guest_irqs[0x51], i + 1);
		guest_sync(0x100);
	}
}

TEST_F(irqchip, threaded)
{
	int ev = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);
	struct kvm_irqfd fd = { .fd = ev, .gsi = 9, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = resample };
	struct vm *vm = self->vm;
	u64 n, i;

	if (!vm_cap(vm, KVM_CAP_USER_MEMORY2))
		SKIP(return, "as KVM had it before 6.4");
	must(ioctl(vm->fd, KVM_IRQFD, &fd));
	vcpu_long(self->v, threaded_guest, 0);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(i, vcpu_sync(self->v));
		n = 1;
		EXPECT_EQ(8, write(ev, &n, 8));
		EXPECT_EQ(0x100, vcpu_sync(self->v));
		EXPECT_EQ(8, read(resample, &n, 8));
		/* not served yet, for all the host knows: up again */
		n = 1;
		EXPECT_EQ(8, write(ev, &n, 8));
		vcpu_settle(self->v);
		EXPECT_EQ(-1, read(resample, &n, 8));
	}
	/* asked, nobody says that it is still up; who does is heard */
	EXPECT_EQ(3, vcpu_sync(self->v));
	EXPECT_EQ(8, read(resample, &n, 8));
	n = 1;
	EXPECT_EQ(8, write(ev, &n, 8));
	EXPECT_EQ(0x100, vcpu_sync(self->v));
	close(ev);
	close(resample);
}

/* An eventfd interrupts one VM: two would take its signals from each other */
TEST_F(irqchip, eventfd_of_another)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	int ev = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);
	struct kvm_irqfd fd = { .fd = ev, .gsi = 9 }, off = { .fd = ev, .gsi = 9, .flags = KVM_IRQFD_FLAG_DEASSIGN };
	struct kvm_irqfd level = { .fd = ev, .gsi = 10, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = resample };
	u64 n = 1;

	if (!vm_cap(vm, KVM_CAP_ONE_REG))
		SKIP(return, "as KVM had it before 6.17");
	must(ioctl(self->vm->fd, KVM_IRQFD, &fd));
	EXPECT_EQ(-EBUSY, xioctl(vm->fd, KVM_IRQFD, &fd));
	EXPECT_EQ(-EBUSY, xioctl(vm->fd, KVM_IRQFD, &level));
	EXPECT_EQ(8, write(ev, &n, 8));
	EXPECT_EQ(-1, read(ev, &n, 8));		/* it took it */
	must(ioctl(self->vm->fd, KVM_IRQFD, &off));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_IRQFD, &level));
	EXPECT_EQ(-EBUSY, xioctl(self->vm->fd, KVM_IRQFD, &fd));
	vm_free(vm);
	/* with the VM its part in it ends */
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_IRQFD, &fd));
	close(ev);
	close(resample);
}

/* ---- MSI ---- */

static void msi_guest(u64 arg)
{
	apic_on();
	guest_on(0x50, guest_count_eoi);
	guest_on(0x51, guest_count_eoi);
	guest_on(NMI_VEC, guest_count);
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x50], 1);
	guest_sync(1);
	guest_eq(guest_irqs[0x51], 1);
	guest_sync(2);
	guest_eq(guest_irqs[NMI_VEC], 1);
	guest_done(0);
}

TEST_F(irqchip, msi)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	struct kvm_msi m = { .address_lo = 0xfee00000, .data = 0x50,
			     .flags = 1 << 7 };

	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_SIGNAL_MSI, &m));
	vcpu_long(v, msi_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(1, msi(vm, 0xfee00000, 0x50));
	EXPECT_EQ(1, vcpu_sync(v));
	/* logical, flat: this one; and one that is not there */
	EXPECT_EQ(0, msi(vm, 0xfee00000 | 9 << 12, 0x51) > 0);
	EXPECT_EQ(1, msi(vm, 0xfee00000 | 0xff << 12, 0x51));
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(1, msi(vm, 0xfee00000, 0x400));	/* NMI */
	vcpu_done(v);
}

/* ---- routing ---- */

TEST_F(irqchip, routing_refused)
{
	struct routing r = { .h.nr = 1 };
	int fd = self->vm->fd;

	r.e[0] = (struct kvm_irq_routing_entry) {
		.gsi = 30, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { KVM_IRQCHIP_IOAPIC, 5 } };
	EXPECT_EQ(0, set_routing(self->vm, &r));
	r.h.flags = 1;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.h.flags = 0;
	r.h.nr = 4097;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_GSI_ROUTING, &r));
	r.h.nr = 1;
	r.e[0].u.irqchip.pin = 24;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.e[0].u.irqchip.irqchip = KVM_IRQCHIP_PIC_MASTER;
	r.e[0].u.irqchip.pin = 8;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.e[0].u.irqchip.irqchip = 7;
	r.e[0].u.irqchip.pin = 0;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.e[0].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
	r.e[0].gsi = 4096;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.e[0].gsi = 4095;
	EXPECT_EQ(0, set_routing(self->vm, &r));
	r.e[0].type = 99;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.e[0].type = KVM_IRQ_ROUTING_IRQCHIP;
	r.e[0].flags = 1;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.e[0].flags = 0;
	/* a GSI twice on one chip; an MSI beside anything */
	r.h.nr = 2;
	r.e[1] = r.e[0];
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.e[1].u.irqchip.irqchip = KVM_IRQCHIP_PIC_MASTER;
	EXPECT_EQ(0, set_routing(self->vm, &r));
	r.e[1].type = KVM_IRQ_ROUTING_MSI;
	EXPECT_EQ(-EINVAL, set_routing(self->vm, &r));
	r.h.nr = 0;
	EXPECT_EQ(0, set_routing(self->vm, &r));
}

static void routing_guest(u64 arg)
{
	apic_on();
	guest_on(0x48, guest_count_eoi);
	guest_on(0x52, guest_count_eoi);
	ioapic_entry(8, 0x48);
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x48], 0);		/* GSI 8 is an MSI now */
	guest_eq(guest_irqs[0x52], 1);
	guest_sync(1);
	guest_eq(guest_irqs[0x48], 1);		/* and 40 is pin 8 */
	guest_sync(2);
	guest_eq(guest_irqs[0x48], 1);		/* none at all */
	guest_eq(guest_irqs[0x52], 1);
	guest_done(0);
}

TEST_F(irqchip, routing)
{
	struct vm *vm = self->vm;
	struct vcpu *v = self->v;
	struct routing r = { .h.nr = 2 };

	r.e[0] = (struct kvm_irq_routing_entry) {
		.gsi = 8, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = 0xfee00000, .data = 0x52 } };
	r.e[1] = (struct kvm_irq_routing_entry) {
		.gsi = 40, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { KVM_IRQCHIP_IOAPIC, 8 } };
	vcpu_long(v, routing_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, set_routing(vm, &r));
	irq_line(vm, 8, 1);
	EXPECT_EQ(1, vcpu_sync(v));
	irq_line(vm, 40, 1);
	irq_line(vm, 40, 0);
	EXPECT_EQ(2, vcpu_sync(v));
	r.h.nr = 0;
	EXPECT_EQ(0, set_routing(vm, &r));
	irq_line(vm, 8, 0);
	irq_line(vm, 8, 1);
	irq_line(vm, 40, 1);
	vcpu_done(v);
}

/* ---- KVM_INTERRUPT and friends where a LAPIC is in the kernel ---- */

TEST_F(irqchip, interrupt_ioctl)
{
	struct kvm_interrupt i = { .irq = 0x40 };

	EXPECT_EQ(-ENXIO, xioctl(self->v->fd, KVM_INTERRUPT, &i));
}

/* ---- split ---- */

static void split_guest(u64 x2)
{
	virtual_wire();
	if (x2) {
		x2apic_on();
		apic_write(0x350, 0x700);
	}
	guest_on(0x40, guest_count_eoi);
	guest_on(0x60, guest_count_eoi);
	guest_on(0x61, guest_count_eoi);
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x60], 1);
	guest_sync(1);
	guest_eq(guest_irqs[0x61], 1);
	guest_sync(2);
	guest_eq(guest_irqs[0x40], 1);		/* ExtINT, by KVM_INTERRUPT */
	/* no IOAPIC and no PIC in here: they are exits */
	guest_eq(mmio_read32(IOAPIC_GPA + 0x10), 0x5555);
	guest_eq(inb(0x21), 0x66);
	guest_done(0);
}

static void run_split(struct __test_metadata *_metadata, u64 x2)
{
	struct vm *vm = vm_new(VM_SPLIT);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_interrupt irq = { .irq = 0x40 };
	struct routing r = { .h.nr = 1 };

	EXPECT_EQ(-ENXIO, xioctl(vm->fd, KVM_GET_IRQCHIP, &c));
	r.e[0] = (struct kvm_irq_routing_entry) {
		.gsi = 3, .type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { KVM_IRQCHIP_IOAPIC, 3 } };
	EXPECT_EQ(-EINVAL, set_routing(vm, &r));
	/* GSI 3 level-triggered, vector 0x60; GSI 4 edge, vector 0x61 */
	r.h.nr = 2;
	r.e[0] = (struct kvm_irq_routing_entry) {
		.gsi = 3, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = 0xfee00000, .data = 0xc060 } };
	r.e[1] = (struct kvm_irq_routing_entry) {
		.gsi = 4, .type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = 0xfee00000, .data = 0x61 } };
	EXPECT_EQ(0, set_routing(vm, &r));
	vcpu_long(v, split_guest, x2);
	EXPECT_EQ(0, vcpu_sync(v));
	irq_line(vm, 3, 1);
	/* its EOI is the VMM's business */
	vcpu_expect(v, KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(0x60, v->run->eoi.vector);
	EXPECT_EQ(1, vcpu_sync(v));
	irq_line(vm, 4, 1);
	EXPECT_EQ(2, vcpu_sync(v));
	EXPECT_EQ(0, xioctl(v->fd, KVM_INTERRUPT, &irq));
	EXPECT_EQ(-EEXIST, xioctl(v->fd, KVM_INTERRUPT, &irq));
	*(u32 *)vcpu_expect_mmio(v, false, IOAPIC_GPA + 0x10, 4)->mmio.data =
		0x5555;
	*vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x21, 1, 1) = 0x66;
	vcpu_done(v);
	vm_free(vm);
}

TEST(split)
{
	run_split(_metadata, 0);
}

TEST(split_x2apic)
{
	run_split(_metadata, 1);
}

/*
 * A guest that does not want the VMM to hear of the ends of level interrupts is heeded if the VMM said so, and is told
 * that it can unless the VMM said that it cannot.
 */
#define SUPPRESS	0x1000		/* in SPIV */

static void suppress_guest(u64 can)
{
	apic_on();
	guest_on(0x60, guest_count_eoi);
	guest_eq(apic_read(0x30) >> 24 & 1, can);
	apic_write(0xf0, 0x1ff | SUPPRESS);
	guest_eq(apic_read(0xf0), 0x1ff | (can ? SUPPRESS : 0));
	irq_on();
	guest_sync(0);
	guest_eq(guest_irqs[0x60], 1);
	guest_done(0);
}

static void run_suppress(struct __test_metadata *_metadata, u64 flags, bool can, bool told)
{
	struct routing r = { .h.nr = 1, .e[0] = {
		.gsi = 3, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0xc060 } } };
	struct vm *vm = vm_new(VM_SPLIT);
	struct vcpu *v;

	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_X2APIC_API, flags));
	v = vcpu_new(vm, 0);
	vcpu_long(v, suppress_guest, can);
	EXPECT_EQ(0, vcpu_sync(v));
	/* of a pin of the VMM's IOAPICs: of others kvm does not tell */
	must(set_routing(vm, &r));
	EXPECT_EQ(1, msi(vm, 0xfee00000, 0xc060));
	if (told)
		vcpu_expect(v, KVM_EXIT_IOAPIC_EOI);
	vcpu_done(v);
	vm_free(vm);
}

TEST(split_suppressed)
{
	const u64 on = KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST, off = KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST;
	struct vm *vm = vm_new(VM_IRQCHIP);

	run_suppress(_metadata, 0, true, true);
	if (!(vm_cap(vm, KVM_CAP_X2APIC_API) & off)) {
		vm_free(vm);
		SKIP(return, "a VMM has no say in it");
	}
	EXPECT_EQ(0, vm_cap(vm, KVM_CAP_X2APIC_API) & on);
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X2APIC_API, on));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X2APIC_API, on | off));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_X2APIC_API, off));
	vm_free(vm);
	run_suppress(_metadata, on, true, false);
	run_suppress(_metadata, off, false, true);
}

/*
 * An interrupt for all CPUs of a large guest: who signals the eventfd, holding its lock with interrupts off, does not
 * tell each of them.  And one for one of them costs what it costs in a small guest.
 */
#define WIDE_GSIS	32
#define WIDE_VCPUS	200

/* @to: the one it is for, or 0xff */
static u64 signal_cost(struct __test_metadata *_metadata, int nr, int to)
{
	struct sched_param fifo = { .sched_priority = 1 }, other = {};
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct routing r = { .h.nr = WIDE_GSIS };
	int fd[WIDE_GSIS], vcpu[WIDE_VCPUS], i, wait;
	struct kvm_lapic_state s;
	u64 one = 1, t, best = ~0ULL;

	for (i = 0; i < nr; i++) {
		vcpu[i] = must(ioctl(vm->fd, KVM_CREATE_VCPU, i));
		must(ioctl(vcpu[i], KVM_GET_LAPIC, &s));
		*(u32 *)(s.regs + 0xf0) = 0x1ff;
		must(ioctl(vcpu[i], KVM_SET_LAPIC, &s));
	}
	for (i = 0; i < WIDE_GSIS; i++)
		r.e[i] = (struct kvm_irq_routing_entry) {
			.gsi = i, .type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { .address_lo = 0xfee00000 | to << 12, .data = 0x40 + i } };
	must(set_routing(vm, &r));
	for (i = 0; i < WIDE_GSIS; i++) {
		struct kvm_irqfd irqfd = { .fd = fd[i] = must(eventfd(0, EFD_NONBLOCK)), .gsi = i };

		must(ioctl(vm->fd, KVM_IRQFD, &irqfd));
	}
	/* also on a machine of one CPU nobody else's work is measured */
	sched_setscheduler(0, SCHED_FIFO, &fifo);
	for (i = 0; i < WIDE_GSIS; i++) {
		t = __builtin_ia32_rdtsc();
		must(write(fd[i], &one, sizeof(one)));
		t = __builtin_ia32_rdtsc() - t;
		best = t < best ? t : best;
	}
	sched_setscheduler(0, SCHED_OTHER, &other);
	/* those that it is for get each of them */
	for (i = 0; i < nr; i++) {
		u32 want = to == 0xff || to == i ? 0xffffffff : 0;

		for (wait = 0; wait < 5000; wait++) {
			must(ioctl(vcpu[i], KVM_GET_LAPIC, &s));
			if (*(u32 *)(s.regs + 0x200 + 2 * 0x10) == want)
				break;
			sleep_ms(1);
		}
		EXPECT_EQ(want, *(u32 *)(s.regs + 0x200 + 2 * 0x10));
		close(vcpu[i]);
	}
	for (i = 0; i < WIDE_GSIS; i++)
		close(fd[i]);
	vm_free(vm);
	return best;
}

TEST(for_many)
{
	u64 two = signal_cost(_metadata, 2, 0xff), all = signal_cost(_metadata, WIDE_VCPUS, 0xff);

	TH_LOG("%llu cycles for two, %llu for %u", (unsigned long long)two, (unsigned long long)all, WIDE_VCPUS);
	EXPECT_GT(4 * two, all);
}

TEST(for_one_of_many)
{
	u64 two = signal_cost(_metadata, 2, 1), many = signal_cost(_metadata, WIDE_VCPUS, WIDE_VCPUS - 1);

	TH_LOG("%llu cycles with two, %llu with %u", (unsigned long long)two, (unsigned long long)many, WIDE_VCPUS);
	EXPECT_GT(2 * two, many);
}

/* A VM ends in a time that grows as the number of eventfds that wait for the ends of its interrupts does */
static u64 end_cost(int nr)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	int *fd = calloc(nr + 1, sizeof(*fd)), i;
	u64 t;

	fd[nr] = must(eventfd(0, EFD_NONBLOCK));
	for (i = 0; i < nr; i++) {
		struct kvm_irqfd irqfd = { .fd = fd[i] = must(eventfd(0, EFD_NONBLOCK)), .gsi = 5,
					   .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = fd[nr] };

		must(ioctl(vm->fd, KVM_IRQFD, &irqfd));
	}
	t = now_ns();
	vm_free(vm);
	t = now_ns() - t;
	for (i = 0; i <= nr; i++)
		close(fd[i]);
	free(fd);
	return t;
}

TEST(end_of_many_irqfds)
{
	struct rlimit files = { 8192, 8192 };
	u64 few, many, t;
	int i;

	if (setrlimit(RLIMIT_NOFILE, &files))
		SKIP(return, "no leave to have that many files");
	/* The best of three: other things that the machine does come and go. */
	few = many = ~0ULL;
	for (i = 0; i < 3; i++) {
		t = end_cost(1000);
		few = t < few ? t : few;
		t = end_cost(4000);
		many = t < many ? t : many;
	}
	TH_LOG("%llu us with 1000, %llu with 4000", (unsigned long long)few / 1000, (unsigned long long)many / 1000);
	/* four times as many; the rest is for a machine that does other things, too */
	EXPECT_GT(4 * few + 20 * 1000000, many);
}

/* Halted with the split irqchip, too, is in the kernel */
static void split_halt_guest(u64 arg)
{
	apic_on();
	guest_on(0x60, guest_count_eoi);
	irq_halt();
	guest_eq(guest_irqs[0x60], 1);
	guest_done(0);
}

TEST(split_halt)
{
	struct vm *vm = vm_new(VM_SPLIT);
	struct vcpu *v = vcpu_new(vm, 0);
	int i;

	vcpu_long(v, split_halt_guest, 0);
	vcpu_start(v);
	for (i = 0; i < 1000 && msi(vm, 0xfee00000, 0x60) <= 0; i++)
		sleep_ms(5);
	vcpu_join(v);
	vm_free(vm);
}

TEST_HARNESS_MAIN
