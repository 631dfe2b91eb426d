// SPDX-License-Identifier: GPL-2.0-only
/*
 * Several vCPUs: start-up by INIT and SIPI, IPIs of every kind between them,
 * broadcast and logical destinations, all of it in xAPIC and x2APIC mode.
 */
#include "test.h"

#define NR	4

FIXTURE(smp) {
	struct vm *vm;
	struct vcpu *v[NR];
};

FIXTURE_VARIANT(smp) {
	bool x2apic;
};

FIXTURE_VARIANT_ADD(smp, xapic) { .x2apic = false };
FIXTURE_VARIANT_ADD(smp, x2apic) { .x2apic = true };

FIXTURE_SETUP(smp)
{
	int i;

	self->vm = vm_new(VM_IRQCHIP);
	for (i = 0; i < NR; i++)
		self->v[i] = vcpu_new(self->vm, i);
}

FIXTURE_TEARDOWN(smp)
{
	vm_free(self->vm);
}

#define FIXED	0
#define LOWEST	0x100
#define NMI	0x400
#define INIT	0x500
#define SIPI	0x600
#define LOGICAL	0x800
#define ASSERT_	0x4000
#define LEVEL	0x8000
#define SELF	0x40000
#define ALL	0x80000
#define OTHERS	0xc0000

static volatile u32 x2, up, stop, per_cpu[NR], per_cpu_nmi[NR];

static void enable(void)
{
	if (x2)
		x2apic_on();
	else
		apic_on();
}

static void ipi_handler(struct guest_frame *f)
{
	per_cpu[guest_cpu()]++;
	apic_eoi();
}

static void nmi_handler(struct guest_frame *f)
{
	per_cpu_nmi[guest_cpu()]++;
}

/* ---- start-up ---- */

#define TRAMPOLINE	0x9000

CODE16(trampoline,
	"cli; xor %ax,%ax; mov %ax,%ds\n"
	"lgdtl (1f - trampoline + 0x9000)\n"
	"mov $0x620,%eax; mov %eax,%cr4\n"
	"mov $0x10000,%eax; mov %eax,%cr3\n"
	"mov $0xc0000080,%ecx; rdmsr; or $0x900,%eax; wrmsr\n"
	"mov $0x80010033,%eax; mov %eax,%cr0\n"
	"ljmpl $8,$(3f - trampoline + 0x9000)\n"
	".code64\n"
	"3: mov $0x10,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss\n"
	"lidt 2f(%rip)\n"
	"mov $1,%eax; cpuid; shr $24,%ebx\n"
	"lea 1(%rbx),%rsp; shl $14,%rsp; add $0x0ffff8,%rsp\n"
	"mov %ebx,%eax; shl $12,%eax; add $0x20200,%eax; mov %ebx,(%rax)\n"
	"xor %edx,%edx; mov $0xc0000101,%ecx; wrmsr\n"
	"mov %ebx,%edi; mov $ap_main,%eax; call *%rax\n"
	".balign 8\n"
	"4: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
	"1: .word 23; .long 4b - trampoline + 0x9000\n"
	"2: .word 4095; .quad 0x16000\n");

static volatile u32 started[NR];

__attribute__((used)) static void ap_main(u64 id)
{
	enable();
	started[id]++;
	atomic_add(&up, 1);
	irq_on();
	while (!stop)
		pause_cpu();
	guest_done(id);
}

static void boot_guest(u64 arg)
{
	u32 i;

	enable();
	for (i = 1; i < NR; i++) {
		apic_icr(i, INIT | ASSERT_ | LEVEL);
		apic_icr(i, SIPI | TRAMPOLINE >> 12);
		/* the second, as the manual wants it, is not heard any more */
		apic_icr(i, SIPI | TRAMPOLINE >> 12);
		spin_until(&up, i);
		guest_eq(started[i], 1);
	}
	guest_sync(up);
	/* INIT takes one out of its loop, and the SIPI starts it anew */
	apic_icr(2, INIT | ASSERT_ | LEVEL);
	apic_icr(2, SIPI | TRAMPOLINE >> 12);
	spin_until(&up, NR);
	guest_eq(started[2], 2);
	stop = 1;
	guest_done(0);
}

TEST_F(smp, init_sipi)
{
	struct kvm_mp_state s;
	int i;

	vcpu_long(self->v[0], boot_guest, 0);
	guest_var(self->vm, x2) = variant->x2apic;
	memcpy(gpa_hva(self->vm, TRAMPOLINE), trampoline,
	       code_size(trampoline));
	for (i = 1; i < NR; i++) {
		must(ioctl(self->v[i]->fd, KVM_GET_MP_STATE, &s));
		EXPECT_EQ(KVM_MP_STATE_UNINITIALIZED, s.mp_state);
		vcpu_start(self->v[i]);
	}
	EXPECT_EQ(NR - 1, vcpu_sync(self->v[0]));
	vcpu_done(self->v[0]);
	for (i = 1; i < NR; i++) {
		EXPECT_EQ(i, vcpu_join(self->v[i]));
	}
}

/* A SIPI is heard however soon it comes behind its INIT */
#define COUNTER		(TRAMPOLINE + 0x800)
#define LAST		0xa000

CODE16(count_me, "mov $0x980,%ax; mov %ax,%ds; lock incl 0; 1: hlt; jmp 1b");
CODE16(end_me, "xor %eax,%eax; mov $0x5e0,%dx; 1: out %eax,%dx; jmp 1b");

static void restart_guest(u64 rounds)
{
	volatile u32 *count = (volatile u32 *)COUNTER;
	u32 i, spins;

	enable();
	for (i = 0; i < rounds; i++) {
		apic_icr(1, INIT | ASSERT_ | LEVEL);
		apic_icr(1, SIPI | TRAMPOLINE >> 12);
		for (spins = 0; *count == i && spins < 100000000; spins++)
			pause_cpu();
		guest_eq(*count, i + 1);
	}
	apic_icr(1, INIT | ASSERT_ | LEVEL);
	apic_icr(1, SIPI | LAST >> 12);
	guest_done(0);
}

TEST_F_TIMEOUT(smp, restarted_often, 120)
{
	vcpu_long(self->v[0], restart_guest, 1500);
	guest_var(self->vm, x2) = variant->x2apic;
	memcpy(gpa_hva(self->vm, TRAMPOLINE), count_me, code_size(count_me));
	memcpy(gpa_hva(self->vm, LAST), end_me, code_size(end_me));
	vcpu_start(self->v[1]);
	vcpu_done(self->v[0]);
	vcpu_join(self->v[1]);
}

/* What INIT leaves of a vCPU, and the SIPI makes of it */
static void init_one_guest(u64 arg)
{
	enable();
	apic_icr(1, INIT | ASSERT_ | LEVEL);
	guest_sync(0);
	apic_icr(1, SIPI | 0x9a);
	guest_done(0);
}

TEST_F(smp, init_state)
{
	struct vcpu *v = self->v[1];
	struct kvm_mp_state s;
	struct kvm_sregs sr;
	struct kvm_regs r;
	u64 val;

	vcpu_long(self->v[0], init_one_guest, 0);
	vcpu_long(v, init_one_guest, 0);
	vcpu_set_msr(v, MSR_LSTAR, 0x1234);
	guest_var(self->vm, x2) = variant->x2apic;
	vcpu_sync(self->v[0]);
	must(ioctl(v->fd, KVM_GET_MP_STATE, &s));
	EXPECT_EQ(KVM_MP_STATE_INIT_RECEIVED, s.mp_state);
	vcpu_get_sregs(v, &sr);
	EXPECT_EQ(0, sr.efer);
	EXPECT_EQ(0, sr.cr4);
	EXPECT_EQ(0, sr.cr0 & 0x80000001);
	EXPECT_EQ(0xf000, sr.cs.selector);
	/* MSRs stay */
	vcpu_get_msr(v, MSR_LSTAR, &val);
	EXPECT_EQ(0x1234, val);
	vcpu_done(self->v[0]);
	must(ioctl(v->fd, KVM_GET_MP_STATE, &s));
	EXPECT_EQ(KVM_MP_STATE_RUNNABLE, s.mp_state);
	vcpu_get_sregs(v, &sr);
	vcpu_get_regs(v, &r);
	EXPECT_EQ(0x9a00, sr.cs.selector);
	EXPECT_EQ(0x9a000, sr.cs.base);
	EXPECT_EQ(0, r.rip);
}

/* ---- IPIs ---- */

static void peer_guest(u64 id)
{
	guest_on(0x40, ipi_handler);
	guest_on(NMI_VEC, nmi_handler);
	enable();
	/* logical: a bit each, in the flat model */
	if (!x2) {
		apic_write(0xe0, 0xffffffff);
		apic_write(0xd0, 1u << (24 + id));
	}
	atomic_add(&up, 1);
	/* half of them sleep, half spin */
	if (id & 1) {
		while (!stop)
			irq_halt();
	} else {
		irq_on();
		while (!stop)
			pause_cpu();
		irq_off();
	}
	guest_done(id);
}

/* Whom an IPI reached: wait for those in @mask, then see nobody else was */
static void expect_ipi(u32 mask, volatile u32 *counts)
{
	static volatile u32 want[2][NR];
	volatile u32 *w = want[counts == per_cpu_nmi];
	u64 until = rdtsc() + 100000;
	int i;

	for (i = 0; i < NR; i++) {
		w[i] += mask >> i & 1;
		spin_until(&counts[i], w[i]);
	}
	while (rdtsc() < until)
		pause_cpu();
	for (i = 0; i < NR; i++)
		guest_eq(counts[i], w[i]);
}

static void ipi_guest(u64 arg)
{
	int i;

	guest_on(0x40, ipi_handler);
	guest_on(NMI_VEC, nmi_handler);
	enable();
	if (!x2) {
		apic_write(0xe0, 0xffffffff);
		apic_write(0xd0, 1u << 24);
	}
	spin_until(&up, NR - 1);
	irq_on();
	for (i = 0; i < NR; i++) {
		apic_icr(i, FIXED | 0x40);
		expect_ipi(1 << i, per_cpu);
	}
	apic_icr(0, OTHERS | 0x40);
	expect_ipi(0xe, per_cpu);
	apic_icr(0, ALL | 0x40);
	expect_ipi(0xf, per_cpu);
	apic_icr(0, SELF | 0x40);
	expect_ipi(1, per_cpu);
	/* physical broadcast */
	apic_icr(x2 ? 0xffffffff : 0xff, 0x40);
	expect_ipi(0xf, per_cpu);
	/* logical sets of vCPUs */
	for (i = 1; i < 16; i++) {
		apic_icr(i, LOGICAL | 0x40);
		expect_ipi(i, per_cpu);
	}
	/* nobody has that number */
	apic_icr(77, 0x40);
	expect_ipi(0, per_cpu);
	/* NMIs */
	apic_icr(1, NMI);
	expect_ipi(2, per_cpu_nmi);
	apic_icr(2, NMI);
	expect_ipi(4, per_cpu_nmi);
	apic_icr(0, OTHERS | NMI);
	expect_ipi(0xe, per_cpu_nmi);
	stop = 1;
	apic_icr(0, OTHERS | 0x40);
	guest_done(0);
}

TEST_F(smp, ipi)
{
	int i;

	for (i = 0; i < NR; i++)
		vcpu_long(self->v[i], i ? peer_guest : ipi_guest, i);
	guest_var(self->vm, x2) = variant->x2apic;
	for (i = 1; i < NR; i++)
		vcpu_start(self->v[i]);
	vcpu_done(self->v[0]);
	for (i = 1; i < NR; i++)
		vcpu_join(self->v[i]);
}

/* Lowest priority: one of them, whichever */
static void lowest_guest(u64 arg)
{
	u32 i, n, sum;

	guest_on(0x40, ipi_handler);
	enable();
	spin_until(&up, NR - 1);
	for (n = 1; n <= 20; n++) {
		apic_icr(0xe, LOWEST | LOGICAL | 0x40);
		do {
			for (i = sum = 0; i < NR; i++)
				sum += per_cpu[i];
		} while (sum < n);
		guest_eq(sum, n);
	}
	guest_eq(per_cpu[0], 0);
	stop = 1;
	apic_icr(0, OTHERS | 0x40);
	guest_done(0);
}

TEST_F(smp, lowest_priority)
{
	int i;

	for (i = 0; i < NR; i++)
		vcpu_long(self->v[i], i ? peer_guest : lowest_guest, i);
	guest_var(self->vm, x2) = variant->x2apic;
	for (i = 1; i < NR; i++)
		vcpu_start(self->v[i]);
	vcpu_done(self->v[0]);
	for (i = 1; i < NR; i++)
		vcpu_join(self->v[i]);
}

/* A ball in play: each wakes the next from its halt; one lost ends the game */
#define ROUNDS	300
static volatile u32 ball;

static void ball_handler(struct guest_frame *f)
{
	apic_eoi();
}

static void pass_guest(u64 id)
{
	guest_on(0x40, ball_handler);
	enable();
	atomic_add(&up, 1);
	while (ball < ROUNDS) {
		if (ball % 2 == id) {
			ball++;
			apic_icr(!id, 0x40);
		} else {
			irq_halt();
		}
	}
	guest_done(0);
}

TEST_F(smp, halt_and_wake)
{
	int i;

	for (i = 0; i < 2; i++)
		vcpu_long(self->v[i], pass_guest, i);
	guest_var(self->vm, x2) = variant->x2apic;
	for (i = 0; i < 2; i++)
		vcpu_start(self->v[i]);
	for (i = 0; i < 2; i++)
		vcpu_join(self->v[i]);
	EXPECT_EQ(ROUNDS, guest_var(self->vm, ball));
}

/* Everyone to everyone, at once */
static volatile u32 storm_done;

static void storm_handler(struct guest_frame *f)
{
	per_cpu[guest_cpu()]++;
	apic_eoi();
}

static void storm_guest(u64 id)
{
	u32 i;

	guest_on(0x40, storm_handler);
	enable();
	atomic_add(&up, 1);
	spin_until(&up, NR);
	irq_on();
	for (i = 0; i < 100; i++) {
		apic_icr(0, OTHERS | 0x40);
		if (i % 16 == id)
			(void)apic_read(0x20);
	}
	atomic_add(&storm_done, 1);
	spin_until(&storm_done, NR);
	/* the last ones of the others may still be on their way */
	for (i = 0; i < 1000; i++)
		pause_cpu();
	guest_assert(per_cpu[id] > 0);
	guest_done(0);
}

TEST_F(smp, storm)
{
	int i;

	for (i = 0; i < NR; i++)
		vcpu_long(self->v[i], storm_guest, i);
	guest_var(self->vm, x2) = variant->x2apic;
	for (i = 0; i < NR; i++)
		vcpu_start(self->v[i]);
	for (i = 0; i < NR; i++)
		vcpu_join(self->v[i]);
}

/*
 * Interrupts for a vCPU that runs, one after the other: each arrives.  Where the CPU takes them by itself they end no
 * guest; those of the host do.
 */
#define POSTS	3000

static volatile u32 post_ready;

static void posted_guest(u64 id)
{
	u32 i;

	guest_on(0x40, ipi_handler);
	enable();
	if (id == 1) {
		irq_on();
		post_ready = 1;
		while (per_cpu[1] < POSTS)
			pause_cpu();
		guest_done(0);
	}
	guest_sync(0);
	for (i = 1; i <= POSTS; i++) {
		apic_icr(1, 0x40);
		while (per_cpu[1] < i)
			pause_cpu();
	}
	guest_done(0);
}

TEST_F(smp, to_one_that_runs)
{
	u64 exits;
	int i;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU: it is not running when one is sent");
	for (i = 0; i < 2; i++)
		vcpu_long(self->v[i], posted_guest, i);
	guest_var(self->vm, x2) = variant->x2apic;
	vcpu_start(self->v[1]);
	ASSERT_TRUE(wait_for(&guest_var(self->vm, post_ready), 1, 10000));
	vcpu_sync(self->v[0]);
	exits = vcpu_stat(self->v[1], "irq_exits");
	vcpu_done(self->v[0]);
	vcpu_join(self->v[1]);
	exits = vcpu_stat(self->v[1], "irq_exits") - exits;
	EXPECT_EQ(POSTS, guest_var(self->vm, per_cpu)[1]);
	TH_LOG("%llu exits by interrupts of the host for %u of the guest", (unsigned long long)exits, POSTS);
	if (!variant->x2apic || !interrupts_posted())
		SKIP(return, "an interrupt is an exit here");
	EXPECT_GT(POSTS / 2, exits);
}

/* Atomic instructions are atomic between vCPUs */
static volatile u32 shared_count;

static void atomic_guest(u64 id)
{
	u32 i;

	atomic_add(&up, 1);
	spin_until(&up, 2);
	for (i = 0; i < 20000; i++)
		atomic_add(&shared_count, 1);
	guest_done(0);
}

TEST(atomics)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v[2] = { vcpu_new(vm, 0), vcpu_new(vm, 1) };
	int i;

	for (i = 0; i < 2; i++)
		vcpu_long(v[i], atomic_guest, i);
	for (i = 0; i < 2; i++)
		vcpu_start(v[i]);
	for (i = 0; i < 2; i++)
		vcpu_join(v[i]);
	EXPECT_EQ(40000, guest_var(vm, shared_count));
	vm_free(vm);
}

/* A vCPU is made while others run, and takes part */
static void late_guest(u64 id)
{
	enable();
	guest_on(0x40, guest_count_eoi);
	up = 1;
	irq_on();
	while (!guest_irqs[0x40])
		pause_cpu();
	guest_done(0);
}

static void late_peer_guest(u64 id)
{
	enable();
	apic_icr(0, 0x40);
	guest_done(0);
}

TEST(created_while_running)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0), *w;

	vcpu_long(v, late_guest, 0);
	vcpu_start(v);
	ASSERT_TRUE(wait_for(&guest_var(vm, up), 1, 20000));
	w = vcpu_new(vm, 5);
	vcpu_long(w, late_peer_guest, 5);
	vcpu_done(w);
	vcpu_join(v);
	vm_free(vm);
}

/* ---- pauses of the whole VM, as a memslot or a filter changes ---- */

static void halted_guest(u64 id)
{
	enable();
	guest_on(0x40, ipi_handler);
	atomic_add(&up, 1);
	irq_halt();
	guest_done(id);
}

static void spinning_guest(u64 id)
{
	enable();
	atomic_add(&up, 1);
	while (!stop)
		pause_cpu();
	apic_icr(0, OTHERS | 0x40);
	guest_done(id);
}

/* How often has it gone to sleep by itself? */
static long times_slept(const struct vcpu *v)
{
	char path[64], line[128];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", v->tid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

/* Whoever sleeps holds up no pause, and is not woken for it */
TEST(sleepers_sleep_on)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	u8 *mem = mem_alloc(1 << 20);
	struct vcpu *v[NR];
	long before[NR];
	int i;

	/* One that has lost its only CPU to us is not in the guest any more, and holds up no pause either */
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU");
	for (i = 0; i < NR; i++) {
		v[i] = vcpu_new(vm, i);
		vcpu_long(v[i], i ? halted_guest : spinning_guest, i);
	}
	for (i = 0; i < NR; i++)
		vcpu_start(v[i]);
	ASSERT_TRUE(wait_for(&guest_var(vm, up), NR, 20000));
	for (i = 1; i < NR; i++) {
		wait_until_halted(v[i]);
		do {		/* it is about to be asleep */
			before[i] = times_slept(v[i]);
			sleep_ms(100);
		} while (times_slept(v[i]) != before[i]);
	}
	for (i = 0; i < 50; i++) {
		vm_slot(vm, 1, 0x10000000, 1 << 20, mem, 0);
		vm_slot(vm, 1, 0, 0, NULL, 0);
	}
	for (i = 1; i < NR; i++)
		EXPECT_EQ(before[i], times_slept(v[i]));
	guest_var(vm, stop) = 1;
	for (i = 0; i < NR; i++)
		vcpu_join(v[i]);
	vm_free(vm);
}

static void busy_guest(u64 id)
{
	enable();
	guest_on(0x40, ipi_handler);
	atomic_add(&up, 1);
	while (!stop) {
		if (id & 1) {
			apic_icr(id, 0x40);
			irq_halt();
		} else {
			guest_sync(id);
		}
	}
	guest_done(id);
}

static void *filter_thread(void *arg)
{
	struct kvm_msr_filter all = {};
	struct vm *vm = arg;
	int i;

	for (i = 0; i < 300; i++)
		must(ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &all));
	return NULL;
}

static void *sync_thread(void *arg)
{
	struct vcpu *v = arg;

	for (;;) {
		if (ioctl(v->fd, KVM_RUN, 0))
			die("KVM_RUN: %s", strerror(errno));
		if (v->run->exit_reason != KVM_EXIT_IO)
			die("exit %s", exit_name(v->run->exit_reason));
		if (v->run->io.port == PORT_DONE)
			return NULL;
		if (v->run->io.port != PORT_SYNC)
			die("port %x", v->run->io.port);
	}
}

/* Two threads pause the VM, at times at once, while its vCPUs come and go: all get through */
TEST(paused_by_two)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	u8 *mem = mem_alloc(1 << 20);
	pthread_t filter, t[NR];
	struct vcpu *v[NR];
	int i;

	for (i = 0; i < NR; i++) {
		v[i] = vcpu_new(vm, i);
		vcpu_long(v[i], busy_guest, i);
	}
	for (i = 0; i < NR; i++)
		pthread_create(&t[i], NULL, sync_thread, v[i]);
	ASSERT_TRUE(wait_for(&guest_var(vm, up), NR, 20000));
	pthread_create(&filter, NULL, filter_thread, vm);
	for (i = 0; i < 300; i++) {
		vm_slot(vm, 1, 0x10000000, 1 << 20, mem, 0);
		vm_slot(vm, 1, 0, 0, NULL, 0);
	}
	pthread_join(filter, NULL);
	guest_var(vm, stop) = 1;
	for (i = 0; i < NR; i++)
		pthread_join(t[i], NULL);
	vm_free(vm);
}

TEST_HARNESS_MAIN
