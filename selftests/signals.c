// SPDX-License-Identifier: GPL-2.0-only
/*
 * How a running vCPU is got out of KVM_RUN: immediate_exit, signals and the mask
 * for them, in the guest, in a halt, before the start-up IPI.
 */
#include "test.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

static volatile u32 handled;

static void on_signal(int sig)
{
	__sync_add_and_fetch(&handled, 1);
}

static void install(int sig)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(sig, &sa, NULL);
}

FIXTURE(signals) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(signals)
{
	install(SIGUSR1);
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(signals)
{
	vm_free(self->vm);
}

static void count_guest(u64 arg)
{
	guest_sync(0);
	guest_sync(1);
	guest_done(0);
}

TEST_F(signals, immediate_exit)
{
	struct vcpu *v = self->v;
	struct kvm_regs a, b;

	vcpu_long(v, count_guest, 0);
	vcpu_get_regs(v, &a);
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	vcpu_get_regs(v, &b);
	EXPECT_EQ(0, memcmp(&a, &b, sizeof(a)));
	/* it stays set until it is cleared */
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	v->run->immediate_exit = 0;
	EXPECT_EQ(0, vcpu_sync(v));
	/* what the last exit was about is completed first */
	vcpu_get_regs(v, &a);
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	v->run->immediate_exit = 0;
	/* and still told of */
	EXPECT_EQ(KVM_EXIT_IO, v->run->exit_reason);
	EXPECT_EQ(PORT_SYNC, v->run->io.port);
	EXPECT_EQ(1, vcpu_sync(v));
	vcpu_done(v);
}

static void in_guest(u64 arg)
{
	u16 v = inw(0x123);

	guest_sync(v);
	guest_done(0);
}

/* An input's value is taken although the guest then does not run */
TEST_F(signals, immediate_exit_completes_input)
{
	struct vcpu *v = self->v;
	struct kvm_regs r;
	u8 *p;

	vcpu_long(v, in_guest, 0);
	p = vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x123, 2, 1);
	*(u16 *)p = 0x4321;
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	v->run->immediate_exit = 0;
	vcpu_get_regs(v, &r);
	EXPECT_EQ(0x4321, r.rax & 0xffff);
	EXPECT_EQ(0x4321, vcpu_sync(v));
	vcpu_done(v);
}

/* ---- another thread's signal ---- */

struct runner {
	struct vcpu *v;
	volatile int tid;
	volatile int err;
	volatile u32 returned;
};

static void *run_once(void *arg)
{
	struct runner *r = arg;

	r->tid = syscall(SYS_gettid);
	r->err = ioctl(r->v->fd, KVM_RUN, 0) ? errno : 0;
	r->returned = 1;
	return NULL;
}

static void kick(struct runner *r)
{
	syscall(SYS_tgkill, getpid(), r->tid, SIGUSR1);
}

static pthread_t run_begin(struct runner *r)
{
	pthread_t t;

	r->tid = 0;
	r->returned = 0;
	pthread_create(&t, NULL, run_once, r);
	while (!r->tid)
		sched_yield();
	return t;
}

static void kick_back(struct runner *r, pthread_t t)
{
	if (r->returned)
		die("returned by itself: %s, exit %s", strerror(r->err),
		    exit_name(r->v->run->exit_reason));
	/* More than once: its thread may not have had a CPU yet, and the first come before KVM_RUN. */
	do {
		kick(r);
		sleep_ms(10);
	} while (!r->returned);
	pthread_join(t, NULL);
}

/* Run once in a thread; kick it when it has had time to get where it goes */
static void run_and_kick(struct runner *r, unsigned int ms)
{
	pthread_t t = run_begin(r);

	sleep_ms(ms);
	kick_back(r, t);
}

static volatile u32 loops, quit;

static void loop_guest(u64 arg)
{
	u64 sum = 0, i;

	while (!quit) {
		for (i = 0; i < 1000; i++)
			sum += i;
		guest_eq(sum, 499500);
		sum = 0;
		loops++;
	}
	guest_done(0);
}

TEST_F(signals, kick_in_guest)
{
	struct runner r = { .v = self->v };
	pthread_t t;
	int i;

	vcpu_long(self->v, loop_guest, 0);
	for (i = 0; i < 10; i++) {
		u32 before = guest_var(self->vm, loops);

		t = run_begin(&r);
		ASSERT_TRUE(wait_for(&guest_var(self->vm, loops), before + 1, 20000));
		kick(&r);
		pthread_join(t, NULL);
		EXPECT_EQ(EINTR, r.err);
		EXPECT_EQ(KVM_EXIT_INTR, self->v->run->exit_reason);
		EXPECT_GT(guest_var(self->vm, loops), before);
	}
	EXPECT_EQ(10, handled);
	guest_var(self->vm, quit) = 1;
	vcpu_done(self->v);
}

static void halt_guest(u64 arg)
{
	asm volatile("cli; hlt");
	guest_done(0);
}

TEST_F(signals, kick_in_halt)
{
	struct runner r = { .v = self->v };
	struct kvm_mp_state s;
	pthread_t t;

	vcpu_long(self->v, halt_guest, 0);
	t = run_begin(&r);
	wait_until_halted(self->v);
	kick_back(&r, t);
	EXPECT_EQ(EINTR, r.err);
	must(ioctl(self->v->fd, KVM_GET_MP_STATE, &s));
	EXPECT_EQ(KVM_MP_STATE_HALTED, s.mp_state);
	/* and it halts on */
	run_and_kick(&r, 50);
	EXPECT_EQ(EINTR, r.err);
	/* until it is told otherwise */
	s.mp_state = KVM_MP_STATE_RUNNABLE;
	must(ioctl(self->v->fd, KVM_SET_MP_STATE, &s));
	vcpu_done(self->v);
}

TEST_F(signals, kick_before_startup)
{
	struct vcpu *v = vcpu_new(self->vm, 1);
	struct runner r = { .v = v };

	run_and_kick(&r, 50);
	EXPECT_EQ(EINTR, r.err);
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
}

/* What is asked of a VM is nothing to a vCPU that waits for INIT: it does not come back for it */
TEST_F(signals, others_before_startup)
{
	struct kvm_msi smi = { .address_lo = 0xfee01000, .data = 0x200 };
	struct vcpu *v = vcpu_new(self->vm, 1);
	struct runner r = { .v = v };
	struct kvm_clock_data clock = {};
	u8 *mem = mem_alloc(4096);
	pthread_t t;
	int i;

	pthread_create(&t, NULL, run_once, &r);
	while (!r.tid)
		sched_yield();
	for (i = 0; i < 300; i++) {
		vm_slot(self->vm, 1, 0x10000000, 4096, mem, i & 1 ? KVM_MEM_LOG_DIRTY_PAGES : 0);
		clock.clock = 1000000000UL * i;
		must(ioctl(self->vm->fd, KVM_SET_CLOCK, &clock));
		must(ioctl(self->vm->fd, KVM_SIGNAL_MSI, &smi));
		if (i % 100 == 0)
			vcpu_new(self->vm, 2 + i / 100);
		vm_slot(self->vm, 1, 0x10000000, 0, mem, 0);
		EXPECT_FALSE(r.returned);
		if (r.returned)
			break;
	}
	while (!r.returned) {
		kick(&r);
		sleep_ms(10);
	}
	pthread_join(t, NULL);
	EXPECT_EQ(EINTR, r.err);
}

CODE16(sleeps16, "sti; 1: hlt; jmp 1b\n");
CODE16(asleep16, "mov $7,%al; out %al,$0x10; hlt\n");

/* Asleep in a HLT that does not exit, it is given other registers, as by a reset of the machine: it goes on from there */
TEST(halted_and_moved)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct runner r = {};
	struct kvm_regs regs;

	install(SIGUSR1);
	if (vm_enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT)) {
		vm_free(vm);
		SKIP(return, "HLT exits on this machine");
	}
	r.v = vcpu_new(vm, 0);
	vcpu_real(r.v, sleeps16, code_size(sleeps16));
	run_and_kick(&r, 50);
	EXPECT_EQ(EINTR, r.err);
	memcpy(gpa_hva(vm, CODE_GPA + 0x100), asleep16, code_size(asleep16));
	vcpu_get_regs(r.v, &regs);
	regs.rip = CODE_GPA + 0x100;
	regs.rflags = 2;
	vcpu_set_regs(r.v, &regs);
	vcpu_expect_io(r.v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
	vm_free(vm);
}

/* A great many kicks cost the guest nothing but time */
TEST_F(signals, many_kicks)
{
	struct vcpu *v = self->v;
	struct itimerval it = { { 0, 2000 }, { 0, 2000 } };
	u32 n = 0;

	install(SIGALRM);
	vcpu_long(v, loop_guest, 0);
	setitimer(ITIMER_REAL, &it, NULL);
	while (n < 200) {
		int ret = xioctl(v->fd, KVM_RUN, 0);

		ASSERT_EQ(-EINTR, ret);
		n++;
	}
	it.it_interval.tv_usec = it.it_value.tv_usec = 0;
	setitimer(ITIMER_REAL, &it, NULL);
	EXPECT_GT(guest_var(self->vm, loops), 0);
	guest_var(self->vm, quit) = 1;
	vcpu_done(v);
}

/* ---- the mask ---- */

static int set_mask(struct vcpu *v, u64 mask, u32 len)
{
	struct {
		struct kvm_signal_mask h;
		u64 set;
	} __attribute__((packed)) m = { .h.len = len, .set = mask };

	return xioctl(v->fd, KVM_SET_SIGNAL_MASK, &m);
}

#define SIGBIT(s)	(1ULL << ((s) - 1))

TEST_F(signals, mask)
{
	struct vcpu *v = self->v;
	sigset_t set, old;

	EXPECT_EQ(-EINVAL, set_mask(v, 0, 4));
	EXPECT_EQ(-EINVAL, set_mask(v, 0, 16));
	vcpu_long(v, count_guest, 0);
	/* blocked here, let through there: pending, it ends the run at once */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	EXPECT_EQ(0, set_mask(v, 0, 8));
	raise(SIGUSR1);
	EXPECT_EQ(0, handled);
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	EXPECT_EQ(KVM_EXIT_INTR, v->run->exit_reason);
	/* it was only looked at: it is blocked and pending as before */
	EXPECT_EQ(0, handled);
	sigpending(&set);
	EXPECT_TRUE(sigismember(&set, SIGUSR1));
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	/* blocked in both: the guest runs */
	EXPECT_EQ(0, set_mask(v, SIGBIT(SIGUSR1), 8));
	EXPECT_EQ(0, vcpu_sync(v));
	/* no mask: the thread's own, which blocks it too */
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_SIGNAL_MASK, NULL));
	EXPECT_EQ(1, vcpu_sync(v));
	sigprocmask(SIG_SETMASK, &old, NULL);
	EXPECT_EQ(1, handled);
}

/* ---- two threads on one vCPU ---- */

static void *get_regs_thread(void *arg)
{
	struct runner *r = arg;
	struct kvm_regs regs;

	r->tid = 1;
	vcpu_get_regs(r->v, &regs);
	r->returned = 1;
	return NULL;
}

/* An ioctl on a running vCPU waits for it */
TEST_F(signals, ioctl_waits)
{
	struct runner r = { .v = self->v }, g = { .v = self->v };
	pthread_t t, u;
	u32 before;

	vcpu_long(self->v, loop_guest, 0);
	pthread_create(&t, NULL, run_once, &r);
	ASSERT_TRUE(wait_for(&guest_var(self->vm, loops), 1, 20000));
	pthread_create(&u, NULL, get_regs_thread, &g);
	while (!g.tid)
		sched_yield();
	before = guest_var(self->vm, loops);
	ASSERT_TRUE(wait_for(&guest_var(self->vm, loops), before + 3, 20000));
	EXPECT_EQ(0, g.returned);
	kick(&r);
	pthread_join(t, NULL);
	pthread_join(u, NULL);
	EXPECT_EQ(1, g.returned);
}

/* One thread after another may run it */
TEST_F(signals, thread_changes)
{
	struct runner r = { .v = self->v };
	int i;

	vcpu_long(self->v, loop_guest, 0);
	for (i = 0; i < 5; i++) {
		run_and_kick(&r, 20);
		EXPECT_EQ(EINTR, r.err);
	}
	guest_var(self->vm, quit) = 1;
	vcpu_done(self->v);
}

/* A deadly signal that only the run lets through ends the run, and not the process */
static volatile int kicked;

static void *kick_deadly(void *thread)
{
	while (!kicked) {
		sleep_ms(20);
		pthread_kill(*(pthread_t *)thread, SIGUSR2);
	}
	return NULL;
}

TEST_F(signals, deadly)
{
	pthread_t me = pthread_self(), other;
	struct vcpu *v = self->v;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	EXPECT_EQ(0, set_mask(v, 0, 8));
	vcpu_long(v, loop_guest, 0);
	ASSERT_EQ(0, pthread_create(&other, NULL, kick_deadly, &me));
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	kicked = 1;
	pthread_join(other, NULL);
	EXPECT_EQ(0, sigwait(&set, &sig));
	EXPECT_EQ(SIGUSR2, sig);
}

TEST_HARNESS_MAIN
