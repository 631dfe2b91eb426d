// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest of Microsoft's hypervisor, with its reference page, a source of interrupts that waits for a message to be
 * taken, and timers that run: taken, put back (uapi/keel.h), and made again from its state.
 */
#include "test.h"
#include "hv.h"
#include "snap.h"
#include <pthread.h>

#define TICKS	0x61		/* vectors: of a timer that is periodic, */
#define ALARM	0x62		/* of one that is not, */
#define MESSAGE	0x63		/* and of the source */
#define OS_ID	0x8100000000000001

static struct {
	u8 call[PAGE], clock[PAGE], messages[PAGE], events[PAGE];
} pages __attribute__((aligned(4096)));
static volatile u64 alarm_at, taken_at;

#define SLOT	((struct message *)(pages.messages + 256 * 2))
#define CLOCK	((struct tsc_page *)pages.clock)

#define PERIOD		(100 * MS)
#define SLEPT		(4000 * MS)
#define NO_PAGE		1	/* for the clock: it is the VM's */

static void set_up(u64 how)
{
	apic_on();
	guest_on(TICKS, guest_count_eoi);
	guest_on(ALARM, guest_count_eoi);
	guest_on(MESSAGE, guest_count_eoi);
	wrmsr(MSR_OS_ID, OS_ID);
	wrmsr(MSR_HYPERCALL, (u64)pages.call | ENABLE);
	if (how != NO_PAGE)
		wrmsr(MSR_TSC_PAGE, (u64)pages.clock | ENABLE);
	wrmsr(MSR_CRASH_P0 + 3, 0x333);
	wrmsr(MSR_REENLIGHTEN, 0x100ff);
	wrmsr(MSR_SINT0 + 2, MESSAGE);
	wrmsr(MSR_SIMP, (u64)pages.messages | ENABLE);
	wrmsr(MSR_SIEFP, (u64)pages.events | ENABLE);
	wrmsr(MSR_SCONTROL, 1);
	irq_on();
	/* the second message of this timer waits until the first is taken */
	wrmsr(CONFIG(3), ENABLE | SINT(2));
	wrmsr(COUNT(3), 1);
	spin_until(&guest_irqs[MESSAGE], 1);
	wrmsr(CONFIG(3), ENABLE | SINT(2));
	wrmsr(COUNT(3), 2);
	while (!(SLOT->flags & 1))
		pause_cpu();
	irq_off();
	wrmsr(CONFIG(1), ENABLE | PERIODIC | DIRECT(TICKS));
	wrmsr(COUNT(1), PERIOD);
	wrmsr(CONFIG(0), AUTO | DIRECT(ALARM));
	alarm_at = rdmsr(MSR_TIME) + PERIOD;
	wrmsr(COUNT(0), alarm_at);
	/* of no source, started by its count: it will not be heard of */
	wrmsr(CONFIG(2), AUTO);
	wrmsr(COUNT(2), ~0UL);
	taken_at = rdmsr(MSR_TIME);
}

/* From where the state is taken: all of that goes on */
static void go_on(u64 how_late)
{
	u64 t = 0, last = taken_at, i;

	/* one clock, whichever it is read from */
	for (i = 0; i < 100; i++) {
		t = i % 2 && CLOCK->sequence ? page_time(CLOCK) : rdmsr(MSR_TIME);
		guest_assert(t >= last);
		last = t;
	}
	/* and back where it was */
	guest_assert(how_late || t < taken_at + SLEPT);
	guest_eq(rdmsr(MSR_OS_ID), OS_ID);
	guest_eq(rdmsr(MSR_HYPERCALL), (u64)pages.call | ENABLE);
	guest_eq(rdmsr(MSR_CRASH_P0 + 3), 0x333);
	guest_eq(rdmsr(MSR_REENLIGHTEN), 0x100ff);
	guest_eq(rdmsr(MSR_VP_INDEX), 7);
	guest_eq(rdmsr(MSR_SINT0 + 2), MESSAGE);
	guest_eq(rdmsr(MSR_SINT0 + 3), SINT_MASKED);
	guest_eq(rdmsr(CONFIG(3)), ENABLE | SINT(2));
	guest_eq(rdmsr(COUNT(0)), alarm_at);
	irq_on();
	while (!guest_irqs[ALARM] || guest_irqs[TICKS] < 2)
		pause_cpu();
	guest_assert(rdmsr(MSR_TIME) >= alarm_at);
	guest_eq(guest_irqs[ALARM], 1);
	guest_eq(rdmsr(CONFIG(0)), AUTO | DIRECT(ALARM));
	guest_eq(guest_irqs[MESSAGE], 1);
	guest_eq(SLOT->expired, 1);
	SLOT->type = 0;
	wrmsr(MSR_EOM, 0);
	spin_until(&guest_irqs[MESSAGE], 2);
	guest_eq(SLOT->expired, 2);
	irq_off();
}

static volatile u64 late;

static void timed_guest(u64 how)
{
	set_up(how);
	guest_sync(1);
	go_on(late);
	/* another machine than it was */
	wrmsr(CONFIG(1), 0);
	wrmsr(CONFIG(2), ENABLE | PERIODIC | DIRECT(ALARM));
	wrmsr(COUNT(2), 5 * MS);
	wrmsr(MSR_SINT0 + 2, SINT_MASKED);
	wrmsr(MSR_SINT0 + 3, ALARM);
	wrmsr(MSR_CRASH_P0 + 3, 0);
	wrmsr(MSR_REENLIGHTEN, 0);
	wrmsr(MSR_OS_ID, 0);
	wrmsr(MSR_TSC_PAGE, 0);
	wrmsr(MSR_ASSIST, (u64)pages.events | ENABLE);
	wrmsr(MSR_SIMP, 0);
	guest_sync(2);
}

/* What is told to the VMM of pages is not looked at */
static u32 sync_after_exits(struct vcpu *v)
{
	u32 reason, val;

	do
		reason = vcpu_run(v);
	while (reason == KVM_EXIT_HYPERV);
	if (reason != KVM_EXIT_IO)
		die("exit reason %u", reason);
	val = *(u32 *)((u8 *)v->run + v->run->io.data_offset);
	vcpu_settle(v);
	return val;
}

FIXTURE(hvstate) {
	struct vm *vm;
	struct vcpu *v;
};

/* Two vCPUs: the second has been given the interface, and no controller */
FIXTURE_SETUP(hvstate)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
	set_hv_cpuid(self->v);
	set_hv_cpuid(vcpu_new(self->vm, 1));
	must(synic(self->v, KVM_CAP_HYPERV_SYNIC2));
	ASSERT_EQ(1, vcpu_set_msr(self->v, MSR_VP_INDEX, 7));
}

FIXTURE_TEARDOWN(hvstate)
{
	vm_free(self->vm);
}

static struct keel_section *section(struct blob *b, u32 id, u32 vcpu)
{
	struct keel_section *s = (void *)(b->data + sizeof(struct keel_state_head));

	while ((u8 *)s < b->data + b->size && (s->id != id || s->vcpu != vcpu))
		s = (void *)(s + 1) + (s->length + 7) / 8 * 8;
	return (u8 *)s < b->data + b->size ? s : NULL;
}

/* Timers that were put back stand until the vCPU runs: nothing comes due between a reset and the look */
static void reset_over_and_over(struct __test_metadata *_metadata, struct vm *vm, u64 how)
{
	struct blob *want = calloc(1, sizeof(*want)), *is = calloc(1, sizeof(*is));
	struct vcpu *v = vm->vcpu[0];
	struct keel_state arg;
	u64 memory;
	u32 id;
	int i;

	stay_on(0, 0);
	vcpu_long(v, timed_guest, how);
	ASSERT_EQ(1, sync_after_exits(v));
	id = snapshot(vm);
	usleep(SLEPT / 10);
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	ASSERT_EQ(0, state_get(vm, want, &arg));
	memory = hash(vm->mem, MEM_SIZE);
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(2, sync_after_exits(v));
		ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
		ASSERT_EQ(0, state_get(vm, is, &arg));
		ASSERT_STREQ("", difference(want, is)) TH_LOG("after %d resets", i + 1);
		ASSERT_EQ(memory, hash(vm->mem, MEM_SIZE)) TH_LOG("after %d resets", i + 1);
	}
	/* and where time went on the timers are late, and fire */
	ASSERT_EQ(2, sync_after_exits(v));
	ASSERT_EQ(0, reset_to(vm, id, KEEL_TIME_GOES_ON, NULL));
	guest_var(vm, late) = 1;
	EXPECT_EQ(2, sync_after_exits(v));
}

TEST_F_TIMEOUT(hvstate, reset, 300)
{
	reset_over_and_over(_metadata, self->vm, 0);
}

TEST_F_TIMEOUT(hvstate, reset_without_page, 300)
{
	reset_over_and_over(_metadata, self->vm, NO_PAGE);
}

/* ---- a page that was given, and that nothing has been written to yet ---- */

static void looking_guest(u64 arg)
{
	guest_sync(0);
	guest_sync(CLOCK->sequence);
}

TEST_F(hvstate, page_due)
{
	struct vm *vm = self->vm;
	u32 id, first;

	vcpu_long(self->v, looking_guest, 0);
	ASSERT_EQ(0, vcpu_sync(self->v));
	vcpu_settle(self->v);
	ASSERT_EQ(1, vcpu_set_msr(self->v, MSR_TSC_PAGE, (u64)pages.clock | ENABLE));
	id = snapshot(vm);
	first = vcpu_sync(self->v);
	if (!first)
		SKIP(return, "the host does not keep time by its TSC");
	vcpu_settle(self->v);
	ASSERT_EQ(0, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(0, guest_var(vm, pages.clock[0]));
	EXPECT_NE(0, vcpu_sync(self->v));
}

/* ---- asked for by the guest ---- */

static void asking_guest(u64 arg)
{
	u64 t;

	wrmsr(MSR_OS_ID, OS_ID);
	guest_sync(0);
	t = rdmsr(MSR_VP_RUNTIME);
	while (rdmsr(MSR_VP_RUNTIME) <= t)
		pause_cpu();
	guest_sync(hypercall(KEEL_HC_RESET, 0, 0));
}

static void *forbid_after_three(void *arg)
{
	struct keel_allow_reset a = { 0 };
	struct vm *vm = arg;

	while (fd_stat(vm->fd, "resets") < 3)
		usleep(1000);
	must(ioctl(vm->fd, KEEL_ALLOW_RESET, &a));
	return NULL;
}

TEST_F_TIMEOUT(hvstate, asks, 120)
{
	struct keel_allow_reset a = { 0 };
	pthread_t t;

	vcpu_long(self->v, asking_guest, 0);
	ASSERT_EQ(0, vcpu_sync(self->v));
	vcpu_settle(self->v);
	a.id = snapshot(self->vm);
	must(ioctl(self->vm->fd, KEEL_ALLOW_RESET, &a));
	pthread_create(&t, NULL, forbid_after_three, self->vm);
	/* Then it is a call of Hyper-V's, which has none of that number */
	EXPECT_EQ(BAD_CODE, vcpu_sync(self->v));
	pthread_join(t, NULL);
	EXPECT_LE(3, fd_stat(self->vm->fd, "resets"));
}

TEST_F(hvstate, made_from)
{
	struct keel_state arg = { 0 };
	struct vm *vm = self->vm;
	static struct blob b;
	int i, fd;

	vcpu_long(self->v, timed_guest, 0);
	ASSERT_EQ(1, sync_after_exits(self->v));
	arg = (struct keel_state){ .data = (u64)b.data, .size = sizeof(b.data), .flags = KEEL_WITH_SETUP };
	ASSERT_EQ(0, xioctl(vm->fd, KEEL_GET_STATE, &arg));
	b.size = arg.size;
	arg.flags = KEEL_WITH_MEMSLOTS;
	fd = xioctl(vm->sys, KEEL_CREATE_VM_FROM, &arg);
	ASSERT_LE(0, fd) TH_LOG("section %u", arg.section.id);
	/* the first one, with all it had, is gone: the other is in its place, with its memory */
	close(vm->fd);
	vm->fd = fd;
	for (i = 0; i < vm->nr; i++) {
		struct vcpu *v = vm->vcpu[i];

		munmap(v->run, vm->run_size);
		close(v->fd);
		v->fd = must(ioctl(fd, KVM_CREATE_VCPU, v->id));
		v->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
		ASSERT_NE(MAP_FAILED, v->run);
	}
	EXPECT_EQ(2, sync_after_exits(self->v));
}

static void crashing_guest(u64 arg)
{
	guest_sync(1);
	guest_done(0);
}

/* Source 4 of the vCPU that is called so, by GSI: 1, or -1 for none that takes it */
static int sint_of(struct vm *vm, u32 vp_index)
{
	struct {
		struct kvm_irq_routing h;
		struct kvm_irq_routing_entry e;
	} r = { .h.nr = 1, .e = { .gsi = 30, .type = KVM_IRQ_ROUTING_HV_SINT, .u.hv_sint = { vp_index, 4 } } };
	struct kvm_irq_level l = { .irq = 30, .level = 1 };

	must(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &r));
	must(ioctl(vm->fd, KVM_IRQ_LINE_STATUS, &l));
	return l.status;
}

/* What is no state of this VM is refused, by name, and nothing has changed; what it says is due happens */
TEST_F(hvstate, values)
{
	struct blob *b = calloc(1, sizeof(*b)), *is = calloc(1, sizeof(*is));
	struct keel_state_hyperv *s;
	struct keel_state_hyperv_vcpu *v0, *v1;
	struct keel_state arg;

	stay_on(0, 0);
	vcpu_long(self->v, crashing_guest, 0);
	EXPECT_EQ(1, vcpu_sync(self->v));
	vcpu_settle(self->v);
	ASSERT_EQ(0, state_get(self->vm, b, &arg));
	ASSERT_NE(NULL, section(b, KEEL_SECTION_HYPERV, KEEL_SECTION_VM));
	ASSERT_NE(NULL, section(b, KEEL_SECTION_HYPERV_VCPU, 1));
	s = (void *)(section(b, KEEL_SECTION_HYPERV, KEEL_SECTION_VM) + 1);
	v0 = (void *)(section(b, KEEL_SECTION_HYPERV_VCPU, 0) + 1);
	v1 = (void *)(section(b, KEEL_SECTION_HYPERV_VCPU, 1) + 1);
	EXPECT_EQ(7, v0->vp_index);
	EXPECT_EQ(1, v1->vp_index);
#define REFUSED(field, val, which, whose) do {							\
	__typeof__(field) was = field;								\
												\
	field = val;										\
	arg = (struct keel_state){ .data = (u64)b->data, .size = b->size };			\
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_SET_STATE, &arg)) TH_LOG(#field);		\
	EXPECT_EQ(which, arg.section.id) TH_LOG(#field);					\
	EXPECT_EQ((u32)(whose), arg.section.vcpu) TH_LOG(#field);				\
	field = was;										\
	ASSERT_EQ(0, state_get(self->vm, is, &arg));						\
	EXPECT_STREQ("", difference(b, is)) TH_LOG(#field);					\
} while (0)
	REFUSED(s->tsc_written, 1, KEEL_SECTION_HYPERV, KEEL_SECTION_VM);	/* on no page */
	REFUSED(s->tsc_restored, 2, KEEL_SECTION_HYPERV, KEEL_SECTION_VM);
	REFUSED(s->crash_ctl, 1, KEEL_SECTION_HYPERV, KEEL_SECTION_VM);
	REFUSED(s->reserved[1], 1, KEEL_SECTION_HYPERV, KEEL_SECTION_VM);
	REFUSED(v0->due, 32, KEEL_SECTION_HYPERV_VCPU, 0);
	REFUSED(v0->vp_index, 1U << 20, KEEL_SECTION_HYPERV_VCPU, 0);
	REFUSED(v0->exit.msr, 1, KEEL_SECTION_HYPERV_VCPU, 0);			/* of no exit */
	REFUSED(v0->reserved[2], 1, KEEL_SECTION_HYPERV_VCPU, 0);
	REFUSED(v0->synic.pending, 0x10, KEEL_SECTION_HYPERV_VCPU, 0);
	REFUSED(v0->synic.waits, 0x80, KEEL_SECTION_HYPERV_VCPU, 0);
	REFUSED(v0->synic.reserved[5], 1, KEEL_SECTION_HYPERV_VCPU, 0);
	REFUSED(v0->synic.timer[2].expires, 5, KEEL_SECTION_HYPERV_VCPU, 0);	/* not at its count */
	/* what came before the one that is refused is undone */
	v0->vp_index = 9;
	v0->synic.sint[4] = TICKS;
	arg = (struct keel_state){ .data = (u64)b->data, .size = b->size };
	v1->synic.simp = ENABLE;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KEEL_SET_STATE, &arg));
	EXPECT_EQ(-1, sint_of(self->vm, 9));
	v0->vp_index = 7;
	v0->synic.sint[4] = SINT_MASKED;
	v1->synic.simp = 0;
	ASSERT_EQ(0, state_get(self->vm, is, &arg));
	EXPECT_STREQ("", difference(b, is));
	REFUSED(v1->synic.sint[4], TICKS, KEEL_SECTION_HYPERV_VCPU, 1);		/* of no controller */
	REFUSED(v1->synic.simp, ENABLE, KEEL_SECTION_HYPERV_VCPU, 1);
	v0->due = KEEL_HYPERV_CRASH | KEEL_HYPERV_EXIT;
	v0->exit.msr = MSR_SIMP;
	v0->exit.msg_page = 0x5001;
	/* each by the other's */
	v0->vp_index = 1;
	v1->vp_index = 7;
	v0->synic.sint[4] = TICKS;
	arg = (struct keel_state){ .data = (u64)b->data, .size = b->size };
	ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_SET_STATE, &arg));
	ASSERT_EQ(0, state_get(self->vm, is, &arg));
	EXPECT_STREQ("", difference(b, is));
	EXPECT_EQ(1, sint_of(self->vm, 1));
	EXPECT_EQ(-1, sint_of(self->vm, 7));		/* has no controller */
	EXPECT_EQ(-1, sint_of(self->vm, 0));
	vcpu_expect(self->v, KVM_EXIT_HYPERV);
	EXPECT_EQ(KVM_EXIT_HYPERV_SYNIC, self->v->run->hyperv.type);
	EXPECT_EQ(MSR_SIMP, self->v->run->hyperv.u.synic.msr);
	EXPECT_EQ(0x5001, self->v->run->hyperv.u.synic.msg_page);
	vcpu_expect(self->v, KVM_EXIT_SYSTEM_EVENT);
	EXPECT_EQ(KVM_SYSTEM_EVENT_CRASH, self->v->run->system_event.type);
	vcpu_done(self->v);
}

/* ---- the synthetic debugger, whose packets are the VMM's to carry; and an invariant TSC ---- */

static long debug_call(u64 control, u64 in)
{
	u64 r;

	asm volatile("mov %3, %%r8\n\tcall *%1" : "=a"(r) : "r"(pages.call), "c"(control), "r"(in + PAGE), "d"(in)
		     : "memory", "r8", "r9", "r10", "r11");
	return r;
}

static u32 told_invariant(void)
{
	u32 a = 0x80000007, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return d >> 8 & 1;
}

static void debugged_guest(u64 arg)
{
	u64 v;

	guest_eq(told_invariant(), 0);
	guest_eq(wrmsr_try(MSR_INVARIANT, 2), GP0);
	wrmsr(MSR_INVARIANT, 1);
	guest_eq(told_invariant(), 1);
	guest_eq(wrmsr_try(MSR_INVARIANT, 0), GP0);
	guest_eq(rdmsr(MSR_INVARIANT), 1);

	wrmsr(MSR_OS_ID, OS_ID);
	wrmsr(MSR_HYPERCALL, (u64)pages.call | 1);
	if (!arg) {
		guest_eq(rdmsr_try(MSR_DBG_STATUS, &v), GP0);
		guest_eq(debug_call(RESET_DEBUG, 0), BAD_CODE);
		guest_done(0);
	}
	wrmsr(MSR_DBG_SEND, 0x1000);
	wrmsr(MSR_DBG_RECV, 0x2000);
	wrmsr(MSR_DBG_PENDING, 0x3000);
	wrmsr(MSR_DBG_CONTROL, 0x10001);
	guest_eq(rdmsr(MSR_DBG_STATUS), 0x1234);
	guest_eq(rdmsr(MSR_DBG_CONTROL), 0x10001);
	guest_eq(debug_call(RESET_DEBUG, 0), 8);	/* not by calls */
	wrmsr(MSR_DBG_OPTIONS, 4);
	guest_eq(debug_call(POST_DEBUG, (u64)pages.events), 77);
	guest_eq(debug_call(RETRIEVE_DEBUG | FAST, 0), 5);
	wrmsr(MSR_DBG_STATUS, 0);
	guest_eq(rdmsr(MSR_DBG_STATUS), 0);
	guest_sync(1);
	guest_eq(rdmsr(MSR_DBG_SEND), 0x1000);
	guest_done(0);
}

static void set_debugger(struct vcpu *v, bool debugger)
{
	struct cpuid_set c = { .h.nent = 256 };
	struct kvm_cpuid_entry2 *e;

	set_hv_cpuid(v);
	must(ioctl(v->fd, KVM_GET_CPUID2, &c));
	e = cpuid_find(&c.h, 0x80000007, 0);
	if (!e) {
		e = &c.e[c.h.nent++];
		e->function = 0x80000007;
	}
	e->edx |= 1 << 8;
	cpuid_find(&c.h, 0x40000082, 0)->eax = debugger ? 2 : 0;
	must(ioctl(v->fd, KVM_SET_CPUID2, &c));
}

TEST(debugger)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_hyperv_exit *exit;
	u32 id;
	u64 val;

	set_debugger(v, true);
	exit = &v->run->hyperv;
	vcpu_long(v, debugged_guest, 1);
	vcpu_expect(v, KVM_EXIT_HYPERV);
	ASSERT_EQ(KVM_EXIT_HYPERV_SYNDBG, exit->type);
	EXPECT_EQ(MSR_DBG_PENDING, exit->u.syndbg.msr);
	EXPECT_EQ(0x1000, exit->u.syndbg.send_page);
	EXPECT_EQ(0x2000, exit->u.syndbg.recv_page);
	EXPECT_EQ(0x3000, exit->u.syndbg.pending_page);
	vcpu_expect(v, KVM_EXIT_HYPERV);
	ASSERT_EQ(KVM_EXIT_HYPERV_SYNDBG, exit->type);
	EXPECT_EQ(MSR_DBG_CONTROL, exit->u.syndbg.msr);
	EXPECT_EQ(0x10001, exit->u.syndbg.control);
	exit->u.syndbg.status = 0x1234;
	vcpu_expect(v, KVM_EXIT_HYPERV);
	ASSERT_EQ(KVM_EXIT_HYPERV_HCALL, exit->type);
	EXPECT_EQ(POST_DEBUG, exit->u.hcall.input);
	exit->u.hcall.result = 77;
	EXPECT_EQ(1, vcpu_sync(v));
	/* It is of the state. */
	vcpu_settle(v);
	id = snapshot(vm);
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_DBG_SEND, 0));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_INVARIANT, 0));
	EXPECT_EQ(0, reset_to(vm, id, 0, NULL));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_INVARIANT, &val));
	EXPECT_EQ(1, val);
	vcpu_done(v);
	vm_free(vm);

	vm = vm_new(VM_PLAIN);
	v = vcpu_new(vm, 0);
	set_debugger(v, false);
	vcpu_long(v, debugged_guest, 0);
	vcpu_done(v);
	vm_free(vm);
}

TEST_HARNESS_MAIN
