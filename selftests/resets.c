// SPDX-License-Identifier: GPL-2.0-only
/*
 * Resets without the VMM's doing each by itself: in one call with the next run, and asked for by the guest.  And one
 * VM reset over and over: two vCPUs that write pages at random, take timer
 * interrupts and send each other IPIs, at the same time; after each reset memory
 * and state are the same, bit for bit, but for the moment at which the state was
 * taken (uapi/keel.h, struct keel_state_clock).
 *
 * RESETS in the environment: how many (1000).
 */
#include "test.h"
#include "snap.h"

#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#define ROOM	96		/* pages at HEAP_GPA that are written */

static volatile u64 rounds[2];

static u64 next(u64 *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 33;
}

/* What it does depends on the host's time and on the other one: no two runs write the same */
static void restless_guest(u64 me)
{
	u64 seed, i;

	guest_on(TICK, guest_count_eoi);
	guest_on(IPI, guest_count_eoi);
	apic_on();
	apic_write(0x3e0, 0xb);			/* by one */
	apic_write(0x320, TICK | 0x20000);	/* periodic, and not soon: the snapshot is to be before the first */
	apic_write(0x380, 1000000000);
	guest_sync(0);
	irq_on();
	apic_write(0x380, 200000 + 1000 * me);
	for (seed = rdtsc() + me; ; rounds[me]++) {
		u64 n = 4 + next(&seed) % 24;

		for (i = 0; i < n; i++)
			*(volatile u64 *)(HEAP_GPA + next(&seed) % ROOM * PAGE + 8 * (next(&seed) % 512)) = seed;
		apic_icr(!me, IPI);
		if (next(&seed) % 4 == 0)
			guest_sync(1);
	}
}

static void *one_turn(void *v)
{
	vcpu_sync(v);
	vcpu_settle(v);
	return NULL;
}

FIXTURE(resets) {
	struct vm *vm;
};

FIXTURE_SETUP(resets)
{
	self->vm = vm_new(VM_IRQCHIP);
}

FIXTURE_TEARDOWN(resets)
{
	vm_free(self->vm);
}

TEST_F_TIMEOUT(resets, same_each_time, 86400)
{
	const char *env = getenv("RESETS"), *differs;
	struct blob *want = calloc(1, sizeof(*want)), *is = calloc(1, sizeof(*is));
	unsigned long n = env ? strtoul(env, NULL, 0) : 1000, i, pages = 0, ticks = 0, ipis = 0;
	u64 memory, heap, some;
	struct vm *vm = self->vm;
	struct keel_state arg;
	u32 id;
	struct vcpu *v[2];
	pthread_t t[2];
	int k, tries;

	for (k = 0; k < 2; k++) {
		v[k] = vcpu_new(vm, k);
		vcpu_long(v[k], restless_guest, k);
		memset(gpa_hva(vm, HEAP_GPA), 1, ROOM * PAGE);
	}
	for (k = 0; k < 2; k++) {
		struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };

		must(ioctl(v[k]->fd, KVM_SET_MP_STATE, &mp));
		one_turn(v[k]);
	}
	id = snapshot(vm);
	ASSERT_EQ(0, state_get(vm, want, &arg));
	memory = hash(vm->mem, MEM_SIZE);
	heap = hash(vm->mem + HEAP_GPA, ROOM * PAGE);
	for (i = 0; i < n; i++) {
		for (k = 0; k < 2; k++)
			pthread_create(&t[k], NULL, one_turn, v[k]);
		for (k = 0; k < 2; k++)
			pthread_join(t[k], NULL);
		ticks += guest_var(vm, guest_irqs[TICK]);
		ipis += guest_var(vm, guest_irqs[IPI]);
		/* A thread that had to wait for a CPU may find the timer due before it looks */
		for (tries = 0, differs = "never"; *differs && tries < 100; tries++) {
			ASSERT_EQ(0, reset_to(vm, id, 0, &some));
			pages += some;
			ASSERT_EQ(0, state_get(vm, is, &arg));
			differs = difference(want, is);
		}
		ASSERT_STREQ("", differs) TH_LOG("after %lu resets", i + 1);
		ASSERT_EQ(heap, hash(vm->mem + HEAP_GPA, ROOM * PAGE)) TH_LOG("after %lu resets", i + 1);
		/* All of it takes an emulated machine longer than the rest */
		if (i % 64 == 63 || i == n - 1) {
			ASSERT_EQ(memory, hash(vm->mem, MEM_SIZE)) TH_LOG("after %lu resets", i + 1);
		}
	}
	printf("# %lu resets, %lu pages, %lu ticks, %lu IPIs\n", n, pages, ticks, ipis);
	EXPECT_LE(n * 10, pages);
	EXPECT_NE(0, ticks);
	EXPECT_NE(0, ipis);
}

/* ---- a clock's page that was given, and that nothing has been written to yet ---- */

static volatile u32 clock_page[1024] __attribute__((aligned(4096)));

static void looking_guest(u64 arg)
{
	guest_sync(0);
	guest_sync(clock_page[0]);
}

TEST_F(resets, page_due)
{
	struct vcpu *v = vcpu_new(self->vm, 0);
	u32 id;

	vcpu_long(v, looking_guest, 0);
	ASSERT_EQ(0, vcpu_sync(v));
	vcpu_settle(v);
	ASSERT_EQ(1, vcpu_set_msr(v, MSR_KVM_SYSTEM_TIME_NEW, (u64)clock_page | 1));
	id = snapshot(self->vm);
	ASSERT_NE(0, vcpu_sync(v));
	vcpu_settle(v);
	ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	EXPECT_EQ(0, guest_var(self->vm, clock_page[0]));
	EXPECT_NE(0, vcpu_sync(v));
}

/* ---- a tick that is due when the VM is reset finds the LAPIC as it was, not as the run has left it ---- */

static volatile u32 ends;

static void timer_guest(u64 arg)
{
	apic_on();
	guest_on(TICK, guest_count_eoi);
	ioapic_entry(0, TICK);
	outb(0x43, 0x30);		/* counter 0, once, at its end */
	outb(0x40, 0xff);
	outb(0x40, 0xff);
	guest_sync(0);
	if (ends) {
		apic_write(0xf0, 0xff);
		guest_sync(1);
	}
	irq_on();
	while (!guest_irqs[TICK])
		pause_cpu();
	guest_done(0);
}

TEST_F(resets, tick_due)
{
	struct kvm_pit_config pit = { 0 };
	struct vcpu *v;
	u32 id;

	must(ioctl(self->vm->fd, KVM_CREATE_PIT2, &pit));
	v = vcpu_new(self->vm, 0);
	vcpu_long(v, timer_guest, 0);
	ASSERT_EQ(0, vcpu_sync(v));
	vcpu_settle(v);
	id = snapshot(self->vm);
	guest_var(self->vm, ends) = 1;
	ASSERT_EQ(1, vcpu_sync(v));
	sleep_ms(100);			/* 55 are enough */
	vcpu_settle(v);
	ASSERT_EQ(0, reset_to(self->vm, id, KEEL_TIME_GOES_ON, NULL));
	guest_var(self->vm, ends) = 0;
	vcpu_done(v);
}

/* ---- a line that was raised since, by who waits for the end of its interrupt, is up still ---- */

static void line_guest(u64 pin)
{
	apic_on();
	guest_on(IPI, guest_count_eoi);
	ioapic_entry(pin, IPI | 1 << 15);	/* by level */
	guest_sync(0);
	irq_on();
	while (!guest_irqs[IPI])
		pause_cpu();
	guest_done(0);
}

TEST_F(resets, line_up)
{
	int ev = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);
	struct kvm_irqfd fd = { .fd = ev, .gsi = 9, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = resample };
	struct vcpu *v = vcpu_new(self->vm, 0);
	u64 n = 1;
	u32 id;

	must(ioctl(self->vm->fd, KVM_IRQFD, &fd));
	vcpu_long(v, line_guest, 9);
	ASSERT_EQ(0, vcpu_sync(v));
	vcpu_settle(v);
	id = snapshot(self->vm);
	ASSERT_EQ(8, write(ev, &n, 8));
	ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	vcpu_done(v);
	EXPECT_EQ(8, read(resample, &n, 8));
	close(ev);
	close(resample);
}

/* ---- a clock that was set, of which the page does not know yet ---- */

#define HOUR_NS		3600000000000

static void clock_reading_guest(u64 arg)
{
	volatile u64 *system_time = (volatile u64 *)&clock_page[4];

	for (;;)
		guest_sync(*system_time / HOUR_NS);
}

TEST_F(resets, clock_due)
{
	struct vcpu *v = vcpu_new(self->vm, 0);
	struct kvm_clock_data clock = { .clock = HOUR_NS + HOUR_NS / 2 };
	static struct blob want, is;
	struct keel_state arg;
	u32 id;

	stay_on(0, 0);
	vcpu_long(v, clock_reading_guest, 0);
	ASSERT_EQ(1, vcpu_set_msr(v, MSR_KVM_SYSTEM_TIME_NEW, (u64)clock_page | 1));
	ASSERT_EQ(0, vcpu_sync(v));
	vcpu_settle(v);
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_CLOCK, &clock));
	id = snapshot(self->vm);
	EXPECT_EQ(1, vcpu_sync(v));
	vcpu_settle(v);
	ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	EXPECT_EQ(1, vcpu_sync(v));
	vcpu_settle(v);
	/* Nor is what was due of the state that goes */
	id = snapshot(self->vm);
	ASSERT_EQ(0, state_get(self->vm, &want, &arg));
	ASSERT_EQ(0, xioctl(self->vm->fd, KVM_SET_CLOCK, &clock));
	ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	ASSERT_EQ(0, state_get(self->vm, &is, &arg));
	EXPECT_STREQ("", difference(&want, &is));
}

/* ---- a reset and the next run in one call ---- */

static volatile u64 rounds_done;

static void counting_guest(u64 me)
{
	for (;;) {
		u32 i;

		for (i = 0; i < 8; i++)
			*(volatile u64 *)(HEAP_GPA + i * PAGE) += 1;
		rounds_done++;
		guest_sync(rounds_done);
	}
}

static void out_is(struct vcpu *v, u16 port)
{
	if (v->run->exit_reason != KVM_EXIT_IO || v->run->io.port != port)
		die("exit %s", exit_name(v->run->exit_reason));
}

TEST(reset_and_run)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0), *other = vcpu_new(vm, 1);
	struct kvm_msi msi = { .address_lo = 0xfee01000, .data = IPI };
	struct keel_reset r = { 0 };
	pthread_t t;
	u64 before;
	u32 id, i;

	vcpu_long(v, counting_guest, 0);
	vcpu_long(other, halting_guest, 1);
	EXPECT_EQ(0, xioctl(v->fd, KEEL_RESET_RUN, &r));	/* there is nothing to reset to, nor is it asked for */
	out_is(v, PORT_SYNC);
	r.id = 1;
	EXPECT_EQ(-ENOENT, xioctl(v->fd, KEEL_RESET_RUN, &r));
	vcpu_settle(v);
	id = snapshot(vm);
	before = guest_var(vm, rounds_done);
	for (i = 0; i < 10; i++) {
		vcpu_sync(v);
		vcpu_sync(v);
		r = (struct keel_reset){ .id = id };
		ASSERT_EQ(0, xioctl(v->fd, KEEL_RESET_RUN, &r));
		out_is(v, PORT_SYNC);
		EXPECT_EQ(0, r.id);
		EXPECT_LE(9, r.pages);
		EXPECT_EQ(before + 1, guest_var(vm, rounds_done));
		/* Without one it goes on */
		ASSERT_EQ(0, xioctl(v->fd, KEEL_RESET_RUN, &r));
		EXPECT_EQ(before + 2, guest_var(vm, rounds_done));
	}
	/* Errors of the one, and of the other */
	vcpu_sync(v);
	r = (struct keel_reset){ .id = id, .flags = 8 };
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KEEL_RESET_RUN, &r));
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KEEL_RESET_RUN, (void *)8));
	EXPECT_EQ(id, r.id);
	EXPECT_EQ(before + 3, guest_var(vm, rounds_done));
	r.flags = 0;
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KEEL_RESET_RUN, &r));
	EXPECT_EQ(0, r.id);
	EXPECT_EQ(before, guest_var(vm, rounds_done));
	v->run->immediate_exit = 0;
	EXPECT_EQ(0, xioctl(v->fd, KEEL_RESET_RUN, &r));
	EXPECT_EQ(before + 1, guest_var(vm, rounds_done));
	vcpu_settle(v);
	/* Somebody else runs */
	pthread_create(&t, NULL, runs, other);
	for (i = 0; i < 10000 && !vcpu_stat(other, "halt_exits"); i++)
		sleep_ms(1);
	r = (struct keel_reset){ .id = id };
	EXPECT_EQ(-EBUSY, xioctl(v->fd, KEEL_RESET_RUN, &r));
	EXPECT_EQ(id, r.id);
	EXPECT_EQ(before + 1, guest_var(vm, rounds_done));
	must(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
	pthread_join(t, NULL);
	vm_free(vm);
}

/* ---- a reset that the guest asks for ---- */

#define PORT_INPUT	0x700
#define ASKS		200

static volatile u64 shadow[2];
static volatile u32 stop;

/* What it does with an input shows in memory until it asks; from there on it is at the input again */
static void asking_guest(u64 me)
{
	u32 i, input;

	apic_on();
	guest_sync(0);
	input = inl(PORT_INPUT);
	for (i = 0; i < 8; i++) {
		volatile u64 *p = (u64 *)(HEAP_GPA + i * PAGE);

		guest_eq(*p, 1);
		*p = input;
	}
	if (input % 2)
		apic_icr(1, IPI);
	if (input >= ASKS)
		guest_done(hypercall(KEEL_HC_RESET, 0, 0));
	hypercall(KEEL_HC_RESET, 0, 0);
	guest_fail("reset by hypercall", __LINE__, input, 0);
}

/* What it has in a register and what it has in memory go back together */
static void counts_along(u64 *count)
{
	guest_eq(shadow[1], *count);
	++*count;
	shadow[1] = *count;
}

static void spinning_guest(u64 me)
{
	u64 count = 0;

	guest_sync(0);
	while (!stop)
		counts_along(&count);
	guest_done(0);
}

static void sleeping_guest(u64 me)
{
	u64 count = 0;

	apic_on();
	guest_on(IPI, guest_count_eoi);
	guest_sync(0);
	while (!stop) {
		irq_halt();
		counts_along(&count);
	}
	guest_done(0);
}

static void also_asking_guest(u64 me)
{
	u64 count = 0;

	guest_sync(0);
	while (!stop) {
		counts_along(&count);
		if (count == 50)
			hypercall(KEEL_HC_RESET, 0, 0);
	}
	guest_done(0);
}

static void storing_guest(u64 me)
{
	u64 count = 0;

	guest_sync(0);
	while (!stop) {
		counts_along(&count);
		mmio_write32(HOLE_GPA, count);
		mmio_read32(HOLE_GPA + 8);
	}
	guest_done(0);
}

FIXTURE(ask) {
	struct vm *vm;
	struct vcpu *v[2];
	u32 id;
};

FIXTURE_VARIANT(ask) {
	void (*other)(u64 me);
};

FIXTURE_VARIANT_ADD(ask, alone) { };
FIXTURE_VARIANT_ADD(ask, spinning) { spinning_guest };
FIXTURE_VARIANT_ADD(ask, sleeping) { sleeping_guest };
FIXTURE_VARIANT_ADD(ask, also_asking) { also_asking_guest };
FIXTURE_VARIANT_ADD(ask, storing) { storing_guest };

FIXTURE_SETUP(ask)
{
	int i;

	self->vm = vm_new(VM_IRQCHIP);
	for (i = 0; i < (variant->other ? 2 : 1); i++) {
		self->v[i] = vcpu_new(self->vm, i);
		vcpu_long(self->v[i], i ? variant->other : asking_guest, i);
	}
	for (i = 0; i < 8; i++)
		*(u64 *)gpa_hva(self->vm, HEAP_GPA + i * PAGE) = 1;
	for (i = 0; i < (variant->other ? 2 : 1); i++) {
		vcpu_sync(self->v[i]);
		vcpu_settle(self->v[i]);
	}
	self->id = snapshot(self->vm);
}

FIXTURE_TEARDOWN(ask)
{
	vm_free(self->vm);
}

static int allow(struct vm *vm, u32 id, u32 flags)
{
	struct keel_allow_reset a = { .id = id, .flags = flags };

	return xioctl(vm->fd, KEEL_ALLOW_RESET, &a);
}

/* KVM_RUN until it is done, whatever it stores where there is nothing */
static void *runs_on(void *arg)
{
	struct vcpu *v = arg;

	do
		vcpu_run(v);
	while (v->run->exit_reason == KVM_EXIT_MMIO);
	out_is(v, PORT_DONE);
	return NULL;
}

static void input_is(struct vcpu *v, u32 val)
{
	*(u32 *)vcpu_expect_io(v, KVM_EXIT_IO_IN, PORT_INPUT, 4, 1) = val;
}

TEST_F_TIMEOUT(ask, asks, 300)
{
	struct kvm_msi msi = { .address_lo = 0xfee01000, .data = IPI };
	u64 *heap = gpa_hva(self->vm, HEAP_GPA), resets;
	pthread_t t;
	u32 i, n;

	ASSERT_EQ(0, allow(self->vm, self->id, KEEL_TIME_GOES_ON));
	if (variant->other)
		pthread_create(&t, NULL, runs_on, self->v[1]);
	for (i = 0; i < ASKS; i++) {
		input_is(self->v[0], i + 2 > ASKS - 1 ? 2 : i + 2);
		for (n = 0; n < 8; n++)
			ASSERT_EQ(1, heap[n * PAGE / 8]) TH_LOG("before input %u", i);
	}
	input_is(self->v[0], ASKS);
	resets = fd_stat(self->vm->fd, "resets");
	EXPECT_LE(ASKS, resets);
	if (variant->other != also_asking_guest) {
		EXPECT_EQ(ASKS, resets);
	}
	/* Not any more */
	EXPECT_EQ(0, allow(self->vm, 0, 0));
	/* The other may have asked before that, and it is at the input once more */
	while (vcpu_run(self->v[0]) == KVM_EXIT_IO && self->v[0]->run->io.port == PORT_INPUT)
		*(u32 *)((u8 *)self->v[0]->run + self->v[0]->run->io.data_offset) = ASKS;
	out_is(self->v[0], PORT_DONE);
	EXPECT_EQ((u32)-KVM_ENOSYS, *(u32 *)((u8 *)self->v[0]->run + self->v[0]->run->io.data_offset));
	if (variant->other) {
		guest_var(self->vm, stop) = 1;
		must(ioctl(self->vm->fd, KVM_SIGNAL_MSI, &msi));
		pthread_join(t, NULL);
	}
}

TEST_F(ask, not_allowed)
{
	struct keel_allow_reset a = { .id = self->id, .reserved[1] = 1 };

	if (variant->other)
		SKIP(return, "no more to see with two");
	EXPECT_EQ(-ENOENT, allow(self->vm, self->id + 1, 0));
	EXPECT_EQ(-EINVAL, allow(self->vm, self->id, KEEL_RESET_MEMORY));
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_ALLOW_RESET, &a));
	input_is(self->v[0], ASKS);
	EXPECT_EQ((u32)-KVM_ENOSYS, vcpu_done(self->v[0]));
	/* A snapshot that is gone takes it along */
	ASSERT_EQ(0, reset_to(self->vm, self->id, 0, NULL));
	ASSERT_EQ(0, allow(self->vm, self->id, 0));
	ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_DROP, self->id));
	input_is(self->v[0], ASKS);
	EXPECT_EQ((u32)-KVM_ENOSYS, vcpu_done(self->v[0]));
	EXPECT_EQ(0, allow(self->vm, 0, 0));
}

/* ---- beside one that waits for memory that nobody gives ---- */

#define MISSING_GPA	(MEM_SIZE * 2)

static void missing_guest(u64 me)
{
	guest_sync(0);
	guest_sync(*(volatile u32 *)MISSING_GPA);
}

static void missing_written_guest(u64 me)
{
	guest_sync(0);
	*(volatile u32 *)MISSING_GPA = 5;
	guest_sync(*(volatile u32 *)MISSING_GPA - 5);
}

/* The emulator writes, when it has what it read */
static void missing_copied_guest(u64 me)
{
	u64 from = HOLE_GPA, to = MISSING_GPA;

	guest_sync(0);
	asm volatile("movsb" : "+S"(from), "+D"(to) :: "memory");
	guest_sync(0);
}

FIXTURE(missing) {
	struct vm *vm;
	struct vcpu *v[2];
	struct uffdio_zeropage zero;
	pthread_t asks, waits;
	int fd;
};

FIXTURE_VARIANT(missing) {
	void (*guest)(u64 me);
	bool in_loop;		/* where it is waited for others wait, too */
};

FIXTURE_VARIANT_ADD(missing, read) { missing_guest };
FIXTURE_VARIANT_ADD(missing, written) { missing_written_guest };
FIXTURE_VARIANT_ADD(missing, copied) { missing_copied_guest, true };

static void *goes_on(void *arg)
{
	struct vcpu *v = arg;

	vcpu_run(v);
	return NULL;
}

static void *runs_once(void *arg)
{
	struct vcpu *v = arg;

	return (void *)(long)(ioctl(v->fd, KVM_RUN, 0) ? errno : 0);
}

static void nothing(int sig)
{
}

FIXTURE_SETUP(missing)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING, .range.len = PAGE };
	struct sigaction act = { .sa_handler = nothing };
	struct uffd_msg msg;
	int i;

	sigaction(SIGUSR1, &act, NULL);
	self->vm = vm_new(VM_IRQCHIP);
	self->fd = syscall(__NR_userfaultfd, O_CLOEXEC);
	if (self->fd < 0)
		SKIP_FIXTURE("no userfaultfd");
	must(ioctl(self->fd, UFFDIO_API, &api));
	reg.range.start = (u64)mem_alloc(PAGE);
	self->zero = (struct uffdio_zeropage){ .range = reg.range };
	must(ioctl(self->fd, UFFDIO_REGISTER, &reg));
	vm_slot(self->vm, 1, MISSING_GPA, PAGE, (void *)reg.range.start, 0);
	for (i = 0; i < 2; i++) {
		self->v[i] = vcpu_new(self->vm, i);
		vcpu_long(self->v[i], i ? variant->guest : asking_guest, i);
	}
	for (i = 0; i < 8; i++)
		*(u64 *)gpa_hva(self->vm, HEAP_GPA + i * PAGE) = 1;
	for (i = 0; i < 2; i++) {
		vcpu_sync(self->v[i]);
		vcpu_settle(self->v[i]);
	}
	ASSERT_EQ(0, allow(self->vm, snapshot(self->vm), 0));
	input_is(self->v[0], 2);
	if (variant->in_loop)
		vcpu_expect_mmio(self->v[1], false, HOLE_GPA, 1);
	pthread_create(&self->waits, NULL, goes_on, self->v[1]);
	ASSERT_EQ((int)sizeof(msg), read(self->fd, &msg, sizeof(msg)));
	sleep_ms(100);
}

FIXTURE_TEARDOWN(missing)
{
	vm_free(self->vm);
	if (self->fd >= 0)
		close(self->fd);
}

/* A reset that another asks for goes on without it, or ends with a signal */
TEST_F(missing, reset)
{
	struct kvm_ioeventfd event = { .addr = 0x880, .len = 1, .fd = must(eventfd(0, 0)), .flags = KVM_IOEVENTFD_FLAG_PIO };
	void *err;

	if (!variant->in_loop) {
		/* nor does what changes the VM wait for it */
		EXPECT_EQ(0, xioctl(self->vm->fd, KVM_IOEVENTFD, &event));
		EXPECT_EQ(0, (long)runs_once(self->v[0]));
	} else {
		pthread_create(&self->asks, NULL, runs_once, self->v[0]);
		sleep_ms(500);		/* for a guest to get there, while files of its VM are locked */
		do
			pthread_kill(self->asks, SIGUSR1);
		while (sleep_ms(10), pthread_tryjoin_np(self->asks, &err));
		EXPECT_EQ(EINTR, (long)err);
	}
	must(ioctl(self->fd, UFFDIO_ZEROPAGE, &self->zero));
	pthread_join(self->waits, NULL);
	out_is(self->v[1], PORT_SYNC);
	EXPECT_EQ(0, *(u32 *)((u8 *)self->v[1]->run + self->v[1]->run->io.data_offset));
	if (variant->in_loop) {
		vcpu_settle(self->v[1]);
		EXPECT_EQ(KVM_EXIT_IO, vcpu_run(self->v[0]));
	}
	out_is(self->v[0], PORT_INPUT);
	EXPECT_EQ(1, fd_stat(self->vm->fd, "resets"));
	close(event.fd);
}

/* ---- what has no place in it ---- */

static void writes_there(u64 gpa)
{
	guest_sync(*(volatile u64 *)gpa);
	*(volatile u64 *)gpa = 2;
	guest_done(0);
}

/* A page that the user may not write, and a guest has tried to, is as it was: no reason to end the VM */
TEST(unwritable_page)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	u64 *mem = mem_alloc(PAGE), gpa = 0x20000000;
	u32 id;

	mem[0] = 7;
	vm_slot(vm, 1, gpa, PAGE, mem, 0);
	mprotect(mem, PAGE, PROT_READ);
	vcpu_long(v, writes_there, gpa);
	EXPECT_EQ(7, vcpu_sync(v));
	vcpu_settle(v);
	id = snapshot(vm);
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_RUN, 0));
	EXPECT_EQ(0, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(-EFAULT, xioctl(v->fd, KVM_RUN, 0));
	mprotect(mem, PAGE, PROT_READ | PROT_WRITE);
	vcpu_done(v);
	EXPECT_EQ(0, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(7, mem[0]);
	vm_free(vm);
}

static void tpr_guest(u64 arg)
{
	guest_sync(0);
	asm volatile("mov %0, %%cr8" :: "r"(5UL));
	guest_sync(1);
	guest_done(read_cr8());
}

/* Without a LAPIC in the kernel the TPR stands in kvm_run, too, from where KVM_RUN takes it */
TEST(tpr_of_kvm_run)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_sregs s;
	u32 id;

	vcpu_long(v, tpr_guest, 0);
	vcpu_sync(v);
	vcpu_settle(v);
	id = snapshot(vm);
	EXPECT_EQ(1, vcpu_sync(v));
	vcpu_settle(v);
	EXPECT_EQ(5, v->run->cr8);
	EXPECT_EQ(0, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(0, v->run->cr8);
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	v->run->immediate_exit = 0;
	vcpu_get_sregs(v, &s);
	EXPECT_EQ(0, s.cr8);
	vm_free(vm);
}

/* A state that is set says nothing back, so where it is asked for may be read-only */
TEST(argument_that_cannot_be_written)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	static struct blob b;
	struct keel_state *arg = mem_alloc(PAGE);

	vcpu_long(v, tpr_guest, 0);
	ASSERT_EQ(0, state_get(vm, &b, arg));
	*arg = (struct keel_state){ .data = (u64)b.data, .size = b.size };
	mprotect(arg, PAGE, PROT_READ);
	EXPECT_EQ(0, xioctl(vm->fd, KEEL_SET_STATE, arg));
	EXPECT_EQ(-EFAULT, xioctl(vm->fd, KEEL_GET_STATE, arg));
	munmap(arg, PAGE);
	vm_free(vm);
}

static void ignores(int sig)
{
}

static void *waits_for_startup(void *arg)
{
	struct vcpu *v = arg;

	return (void *)(long)xioctl(v->fd, KVM_RUN, 0);
}

/* A vCPU that waits to be started does not come back because another one has the VM reset */
TEST(before_startup)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0), *waits = vcpu_new(vm, 1);
	struct sigaction act = { .sa_handler = ignores };
	struct timespec soon;
	pthread_t t;
	void *ret;
	u32 id;
	int i;

	sigaction(SIGUSR1, &act, NULL);
	vcpu_long(v, asking_guest, 0);
	for (i = 0; i < 8; i++)
		*(u64 *)gpa_hva(vm, HEAP_GPA + i * PAGE) = 1;
	vcpu_sync(v);
	vcpu_settle(v);
	id = snapshot(vm);
	pthread_create(&t, NULL, waits_for_startup, waits);
	sleep_ms(50);
	ASSERT_EQ(0, allow(vm, id, 0));
	for (i = 0; i < 20; i++)
		input_is(v, 2);
	EXPECT_LE(19, fd_stat(vm->fd, "resets"));
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_nsec += 50000000;
	soon.tv_sec += soon.tv_nsec / 1000000000;
	soon.tv_nsec %= 1000000000;
	EXPECT_EQ(ETIMEDOUT, pthread_timedjoin_np(t, &ret, &soon));
	do
		pthread_kill(t, SIGUSR1);
	while (sleep_ms(10), pthread_tryjoin_np(t, &ret));
	EXPECT_EQ(-EINTR, (long)ret);
	vm_free(vm);
}

/* A VM set up otherwise since: KVM_RUN says so, and the guest has yet to ask */
TEST_F(ask, cannot_be)
{
	if (variant->other)
		SKIP(return, "no more to see with two");
	ASSERT_EQ(0, allow(self->vm, self->id, 0));
	vcpu_new(self->vm, 1);
	input_is(self->v[0], ASKS);
	EXPECT_EQ(-ENODEV, xioctl(self->v[0]->fd, KVM_RUN, 0));
	EXPECT_EQ(-ENODEV, xioctl(self->v[0]->fd, KVM_RUN, 0));
	EXPECT_EQ(ASKS, *(u64 *)gpa_hva(self->vm, HEAP_GPA));
	EXPECT_EQ(0, allow(self->vm, 0, 0));
	EXPECT_EQ((u32)-KVM_ENOSYS, vcpu_done(self->v[0]));
}

TEST_HARNESS_MAIN
