// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each kind of exit costs, and each step of making a VM.
 *
 *   bench-exits [NODE [GROUP...]]
 *
 * Prints "name<TAB>cost" lines, of all groups or of those named (the table at the end).  The unit is the TSC's: in an emulator told to
 * make one instruction one tick (QEMU: -icount shift=0,sleep=off -smp 1), that
 * is instructions, the same in each run.  A guest loops N times over one
 * instruction, its VMM reads the TSC around KVM_RUN, and the cost of a loop
 * over a NOP is taken off.
 */
#include "../lib/beside.h"
#include <keel.h>

#include <limits.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#define N	1000
#define PORT_END	0xf0
#define FRESH_GPA	0x2000000UL
#define MSR_APIC_BASE	0x1b
#define MSR_TSC_ADJ	0x3b
#define MSR_DEADLINE	0x6e0

/* Long mode, as guests are most of the time; ESI counts, the body may use all but ESI and RSP */
#define LOOP(name, setup, body)						\
	CODE(64, name, "mov $0xd0000000,%edi\n" setup "\nmov $1000,%esi\n" \
		       "1: " body "\ndec %esi; jnz 1b; out %al,$0xf0")

LOOP(nop_loop, "", "nop");
LOOP(cpuid_loop, "", "xor %eax,%eax; xor %ecx,%ecx; cpuid");
LOOP(cpuid_nop_loop, "", "xor %eax,%eax; xor %ecx,%ecx; nop");
LOOP(vmmcall_loop, "", "mov $1,%eax; vmmcall");
LOOP(vmcall_loop, "", "mov $1,%eax; vmcall");
LOOP(hypercall_nop_loop, "", "mov $1,%eax; nop");
LOOP(pit_loop, "", "in $0x40,%al");
LOOP(pio_out_loop, "", "out %al,$0x10");
LOOP(pio_in_loop, "", "in $0x10,%al");
LOOP(ioeventfd_pio_loop, "", "out %al,$0x11");
LOOP(mmio_write_loop, "", "mov %eax,(%rdi)");
LOOP(mmio_read_loop, "", "mov (%rdi),%eax");
LOOP(ioeventfd_mmio_loop, "mov $0xd0001000,%edi", "mov %eax,(%rdi)");
LOOP(lapic_read_loop, "mov $0xfee00020,%edi", "mov (%rdi),%eax");
LOOP(lapic_write_loop, "mov $0xfee00080,%edi; xor %eax,%eax",
     "mov %eax,(%rdi)");
LOOP(ioapic_read_loop, "mov $0xfec00010,%edi", "mov (%rdi),%eax");
LOOP(rdmsr_loop, "mov $0x1b,%ecx", "rdmsr");
LOOP(wrmsr_loop, "mov $0x3b,%ecx; xor %eax,%eax; xor %edx,%edx", "wrmsr");
LOOP(deadline_loop, "mov $0x6e0,%ecx; mov $-1,%eax; mov $0xfffffff,%edx",
     "wrmsr");
LOOP(touch_loop, "mov $0x2000000,%edi", "movb $1,(%rdi); add $0x1000,%edi");
LOOP(touch_nop_loop, "mov $0x8000,%edi", "mov %al,%bl; add $0x1000,%edi");
LOOP(wbinvd_loop, "", "wbinvd");

static void report(const char *name, long cost)
{
	printf("%s\t%ld\n", name, cost);
	fflush(stdout);
}

static int compare(const void *a, const void *b)
{
	u64 x = *(u64 *)a, y = *(u64 *)b;

	return x < y ? -1 : x > y;
}

static u64 median(u64 *cost, int n)
{
	qsort(cost, n, sizeof(u64), compare);
	return cost[n / 2];
}

/* A VM with a vCPU about to run @code */
static struct vcpu *loop_vcpu(struct vm *vm, const u8 *code, size_t size)
{
	struct vcpu *v = vm->nr ? vm->vcpu[0] : vcpu_new(vm, 0);

	memcpy(gpa_hva(vm, CODE_GPA), code, size);
	vcpu_long(v, (void (*)(u64))CODE_GPA, 0);
	return v;
}

/* Run to the out that ends a loop; what exits before it is not looked at */
static u64 run_loop(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	u64 start = rdtsc();

	for (;;) {
		if (ioctl(v->fd, KVM_RUN, 0))
			die("KVM_RUN: %s", strerror(errno));
		if (run->exit_reason == KVM_EXIT_IO &&
		    run->io.port == PORT_END)
			return rdtsc() - start;
		if (run->exit_reason != KVM_EXIT_IO &&
		    run->exit_reason != KVM_EXIT_MMIO)
			die("exit %s", exit_name(run->exit_reason));
	}
}

static u64 time_code(struct vm *vm, const u8 *code, size_t size, bool warm)
{
	struct vcpu *v = loop_vcpu(vm, code, size);
	u64 best = run_loop(v), cost;
	int i;

	if (!warm)
		return best;
	/* The host has other things to do now and then: the best of a few counts. */
	for (i = 0; i < 4; i++) {
		loop_vcpu(vm, code, size);
		cost = run_loop(v);
		if (cost < best)
			best = cost;
	}
	return best;
}

#define TIME(vm, code)	time_code(vm, code, code_size(code), true)
#define COST(vm, code, base)						\
	report(#code, ((long)TIME(vm, code##_loop) -			\
		       (long)TIME(vm, base##_loop)) / N)

static void simple_exits(void)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct kvm_pit_config pit = { 0 };
	struct kvm_ioeventfd io = { .len = 1, .addr = 0x11,
				    .flags = KVM_IOEVENTFD_FLAG_PIO };
	u32 r[4];

	must(ioctl(vm->fd, KVM_CREATE_PIT2, &pit));
	io.fd = eventfd(0, EFD_NONBLOCK);
	must(ioctl(vm->fd, KVM_IOEVENTFD, &io));
	io.flags = 0;
	io.addr = HOLE_GPA + 0x1000;
	io.len = 4;
	must(ioctl(vm->fd, KVM_IOEVENTFD, &io));

	COST(vm, cpuid, cpuid_nop);
	cpuid(0, 0, r);
	report("hypercall", ((long)(r[1] == 0x756e6547 ?	/* "Genu" */
				    TIME(vm, vmcall_loop) :
				    TIME(vm, vmmcall_loop)) -
			     (long)TIME(vm, hypercall_nop_loop)) / N);
	COST(vm, rdmsr, nop);
	COST(vm, wrmsr, nop);
	COST(vm, pit, nop);
	COST(vm, lapic_read, nop);
	COST(vm, lapic_write, nop);
	COST(vm, ioapic_read, nop);
	COST(vm, ioeventfd_pio, nop);
	COST(vm, ioeventfd_mmio, nop);
	COST(vm, pio_out, nop);
	COST(vm, pio_in, nop);
	COST(vm, mmio_write, nop);
	COST(vm, mmio_read, nop);
	COST(vm, wbinvd, nop);
	vm_free(vm);
}

static void deadline_arm(void)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 1, 0);
	struct kvm_lapic_state s;
	struct vcpu *v;

	e->ecx |= 1 << 24;
	v = vcpu_new(vm, 0);
	must(ioctl(v->fd, KVM_GET_LAPIC, &s));
	*(u32 *)(s.regs + 0xf0) = 0x1ff;
	*(u32 *)(s.regs + 0x320) = 2 << 17 | 0x40;
	must(ioctl(v->fd, KVM_SET_LAPIC, &s));
	report("tsc_deadline_arm", ((long)TIME(vm, deadline_loop) -
				    (long)TIME(vm, nop_loop)) / N);
	vm_free(vm);
}

static void first_touch(const char *name, bool populated, bool huge)
{
	struct vm *vm = vm_new(VM_PLAIN);
	size_t size = N * 4096UL + (4UL << 20);
	u8 *p = mem_alloc(size);
	long base;

	p = (u8 *)(((u64)p + (2UL << 20) - 1) & ~((2UL << 20) - 1));
	size = N * 4096UL;
	madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (populated)
		memset(p, 1, size);
	vm_slot(vm, 1, FRESH_GPA, size, p, 0);
	base = TIME(vm, touch_nop_loop);
	report(name, ((long)time_code(vm, touch_loop, code_size(touch_loop),
				      false) - base) / N);
	/* and each touch of one that is there already */
	if (!populated)
		report("touch_again", ((long)time_code(vm, touch_loop,
				       code_size(touch_loop), false) -
				       base) / N);
	vm_free(vm);
}

/* The same with no guest: what the host's own fault, and the clearing of the page, cost anybody */
static void own_touch(void)
{
	volatile u8 *p = mem_alloc(N * 4096UL);
	u64 start;
	u32 i;

	madvise((void *)p, N * 4096UL, MADV_NOHUGEPAGE);
	start = rdtsc();
	for (i = 0; i < N; i++)
		p[i * 4096UL] = 1;
	report("own_touch", (rdtsc() - start) / N);
}

/* A page written between two looks at the log, with what the look itself costs */
static void dirty_round(void)
{
	struct vm *vm = vm_new(VM_PLAIN);
	size_t size = N * 4096UL;
	u8 *p = mem_alloc(size), bits[N / 8 + 8];
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bits };
	u64 best = ~0UL, start, cost;
	struct vcpu *v;
	long base;
	int i;

	madvise(p, size, MADV_NOHUGEPAGE);
	memset(p, 1, size);
	vm_slot(vm, 1, FRESH_GPA, size, p, KVM_MEM_LOG_DIRTY_PAGES);
	base = TIME(vm, touch_nop_loop);
	for (i = 0; i < 5; i++) {
		v = loop_vcpu(vm, touch_loop, code_size(touch_loop));
		start = rdtsc();
		run_loop(v);
		must(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
		cost = rdtsc() - start;
		if (i && cost < best)
			best = cost;
	}
	report("dirty_round_page", ((long)best - base) / N);
	vm_free(vm);
}

/* ---- interrupts: guests in long mode that report by themselves ---- */

static volatile u64 spent;

static void eoi_handler(struct guest_frame *f)
{
	guest_irqs[f->vec]++;
	wrmsr(0x80b, 0);
}

static void self_ipi_guest(u64 arg)
{
	u64 t;
	int i;

	x2apic_on();
	guest_on(0x40, eoi_handler);
	irq_on();
	for (i = 0; i < 10; i++)
		wrmsr(0x83f, 0x40);
	t = rdtsc();
	for (i = 0; i < N; i++)
		wrmsr(0x83f, 0x40);
	spent = rdtsc() - t;
	guest_done(0);
}

/* ICR write to a vCPU that is not running: what sending costs */
static void send_ipi_guest(u64 arg)
{
	u64 t;
	int i;

	x2apic_on();
	t = rdtsc();
	for (i = 0; i < N; i++)
		wrmsr(0x830, 1UL << 32 | 0x40);
	spent = rdtsc() - t;
	guest_done(0);
}

static void other_guest(u64 arg)
{
	x2apic_on();
	guest_done(0);
}

/* A deadline that has passed: armed, fired, taken, finished */
static void timer_now_guest(u64 arg)
{
	u64 t;
	u32 i;

	x2apic_on();
	guest_on(0x40, eoi_handler);
	wrmsr(0x832, 2 << 17 | 0x40);
	irq_on();
	for (i = 1; i <= 10; i++) {
		wrmsr(MSR_DEADLINE, 1);
		while (guest_irqs[0x40] < i)
			pause_cpu();
	}
	t = rdtsc();
	for (; i <= N + 10; i++) {
		wrmsr(MSR_DEADLINE, 1);
		while (guest_irqs[0x40] < i)
			pause_cpu();
	}
	spent = rdtsc() - t;
	guest_done(0);
}

/* From a deadline to its handler, out of a halt, and out of a busy loop */
static volatile u64 fired;

static void stamp_handler(struct guest_frame *f)
{
	fired = rdtsc();
	guest_irqs[f->vec]++;
	wrmsr(0x80b, 0);
}

static void timer_late_guest(u64 halted)
{
	u64 when, sum = 0;
	u32 i;

	x2apic_on();
	guest_on(0x40, stamp_handler);
	wrmsr(0x832, 2 << 17 | 0x40);
	for (i = 1; i <= 210; i++) {
		when = rdtsc() + 100000;
		wrmsr(MSR_DEADLINE, when);
		if (halted) {
			irq_halt();
		} else {
			irq_on();
			while (guest_irqs[0x40] < i)
				;
			irq_off();
		}
		if (i > 10)
			sum += fired - when;
	}
	spent = sum / 200;
	guest_done(0);
}

static u64 run_guest(void (*fn)(u64), u64 arg)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 1, 0);
	struct vcpu *v, *w;
	u64 ret;

	e->ecx |= 1 << 24;
	v = vcpu_new(vm, 0);
	w = vcpu_new(vm, 1);
	vcpu_long(w, other_guest, 0);
	vcpu_done(w);
	vcpu_long(v, fn, arg);
	vcpu_done(v);
	ret = guest_var(vm, spent);
	vm_free(vm);
	return ret;
}

/* Two vCPUs that wake each other from their halts */
static volatile u32 ball;

static void ball_guest(u64 id)
{
	x2apic_on();
	guest_on(0x40, eoi_handler);
	while (ball < N) {
		if (ball % 2 == id) {
			ball++;
			wrmsr(0x830, (u64)!id << 32 | 0x40);
		} else {
			irq_halt();
		}
	}
	guest_done(0);
}

static void ping_pong(void)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v[2];
	u64 t;
	int i;

	for (i = 0; i < 2; i++) {
		v[i] = vcpu_new(vm, i);
		vcpu_long(v[i], ball_guest, i);
	}
	/* the one that has to wait first, so that it is in its halt */
	vcpu_start(v[1]);
	sleep_ms(50);
	t = rdtsc();
	vcpu_start(v[0]);
	for (i = 0; i < 2; i++)
		vcpu_join(v[i]);
	report("ipi_wakes_halted", (rdtsc() - t) / N);
	vm_free(vm);
}

/* ---- ioctls ---- */

#define EACH(name, n, expr) do {					\
	u64 t__;							\
	int i__;							\
									\
	must(expr);							\
	t__ = rdtsc();							\
	for (i__ = 0; i__ < (n); i__++)					\
		must(expr);						\
	report(name, (rdtsc() - t__) / (n));				\
} while (0)

/* A VMM's calls for a vCPU's state, as one does that resets or looks at its guest over and over */
static void state_ioctls(void)
{
	static u8 xsave[4096];
	struct { struct kvm_msrs head; struct kvm_msr_entry e[8]; } msrs = { .head.nmsrs = 8 };
	static const u32 index[] = { MSR_APIC_BASE, 0x174, 0x175, 0x176, 0x277, 0xc0000081, 0xc0000082, 0xc0000102 };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_vcpu_events ev;
	struct kvm_lapic_state lapic;
	struct kvm_sregs s;
	struct kvm_regs r;
	struct kvm_fpu fpu;
	u32 i;

	for (i = 0; i < 8; i++)
		msrs.e[i].index = index[i];
	/* the least that a call costs */
	EACH("ioctl_api_version", N, ioctl(vm->sys, KVM_GET_API_VERSION, 0));
	EACH("ioctl_get_regs", N, ioctl(v->fd, KVM_GET_REGS, &r));
	EACH("ioctl_set_regs", N, ioctl(v->fd, KVM_SET_REGS, &r));
	EACH("ioctl_get_sregs", N, ioctl(v->fd, KVM_GET_SREGS, &s));
	EACH("ioctl_set_sregs", N, ioctl(v->fd, KVM_SET_SREGS, &s));
	EACH("ioctl_get_8_msrs", N, ioctl(v->fd, KVM_GET_MSRS, &msrs));
	EACH("ioctl_set_8_msrs", N, ioctl(v->fd, KVM_SET_MSRS, &msrs));
	EACH("ioctl_get_fpu", N, ioctl(v->fd, KVM_GET_FPU, &fpu));
	EACH("ioctl_set_fpu", N, ioctl(v->fd, KVM_SET_FPU, &fpu));
	EACH("ioctl_get_xsave", N, ioctl(v->fd, KVM_GET_XSAVE, xsave));
	EACH("ioctl_set_xsave", N, ioctl(v->fd, KVM_SET_XSAVE, xsave));
	EACH("ioctl_get_events", N, ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev));
	EACH("ioctl_set_events", N, ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev));
	EACH("ioctl_get_lapic", N, ioctl(v->fd, KVM_GET_LAPIC, &lapic));
	EACH("ioctl_set_lapic", N, ioctl(v->fd, KVM_SET_LAPIC, &lapic));
	vm_free(vm);
}

/*
 * A VM put back to where it was: by keel, or by the VMM as well as KVM lets it, which is a dirty ring, a copy of memory,
 * and all the ioctls that set what a guest may have changed.
 */
#define RESET_PAGES	1000
#define RESET_MEM	(N * 4096UL)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static struct reset_bench {
	struct vm *vm;
	struct vcpu *v;
	u8 *mem, *copy;
	u32 id;				/* keel's snapshot; 0: there is none to be had */
	struct kvm_dirty_gfn *ring;
	u32 at;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_lapic_state lapic;
	struct kvm_irqchip chip[3];
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
	struct { struct kvm_msrs head; struct kvm_msr_entry e[250]; } msrs;
	u8 xsave[4096];
} rb;

#define RING_PAGES	16
#define RING_SIZE	(RING_PAGES * 4096 / sizeof(struct kvm_dirty_gfn))

static void vmm_takes_msrs(void)
{
	struct { struct kvm_msr_list head; u32 index[500]; } list = { .head.nmsrs = 500 };
	u32 i, n = 0;
	u64 val;

	must(ioctl(rb.vm->sys, KVM_GET_MSR_INDEX_LIST, &list));
	for (i = 0; i < list.head.nmsrs && n < 250; i++) {
		/* What is of no feature of this guest's cannot be set, and need not be */
		if (vcpu_get_msr(rb.v, list.index[i], &val) != 1 || vcpu_set_msr(rb.v, list.index[i], val) != 1)
			continue;
		rb.msrs.e[n++] = (struct kvm_msr_entry){ .index = list.index[i], .data = val };
	}
	rb.msrs.head.nmsrs = n;
}

/* In the order in which they are set */
static const struct { unsigned long get, set; void *state; } vcpu_parts[] = {
	{ KVM_GET_SREGS, KVM_SET_SREGS, &rb.sregs }, { KVM_GET_REGS, KVM_SET_REGS, &rb.regs },
	{ KVM_GET_XSAVE, KVM_SET_XSAVE, rb.xsave }, { KVM_GET_XCRS, KVM_SET_XCRS, &rb.xcrs },
	{ KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, &rb.debug }, { KVM_GET_LAPIC, KVM_SET_LAPIC, &rb.lapic },
	{ KVM_GET_MSRS, KVM_SET_MSRS, &rb.msrs }, { KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, &rb.events },
	{ KVM_GET_MP_STATE, KVM_SET_MP_STATE, &rb.mp },
}, vm_parts[] = {
	{ KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, &rb.chip[0] }, { KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, &rb.chip[1] },
	{ KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, &rb.chip[2] }, { KVM_GET_PIT2, KVM_SET_PIT2, &rb.pit },
	{ KVM_GET_CLOCK, KVM_SET_CLOCK, &rb.clock },
};

static void vmm_takes(void)
{
	int i;

	memcpy(rb.copy, rb.mem, RESET_MEM);
	vmm_takes_msrs();
	for (i = 0; i < ARRAY_SIZE(vcpu_parts); i++)
		must(ioctl(rb.v->fd, vcpu_parts[i].get, vcpu_parts[i].state));
	for (i = 0; i < 3; i++)
		rb.chip[i].chip_id = i;
	for (i = 0; i < ARRAY_SIZE(vm_parts); i++)
		must(ioctl(rb.vm->fd, vm_parts[i].get, vm_parts[i].state));
	rb.clock.flags = 0;
}

static void vmm_resets(void)
{
	struct kvm_dirty_gfn *e;
	int i;

	for (; e = &rb.ring[rb.at % RING_SIZE], __atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY; rb.at++) {
		if (e->slot == 1)
			memcpy(rb.mem + e->offset * 4096, rb.copy + e->offset * 4096, 4096);
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	must(ioctl(rb.vm->fd, KVM_RESET_DIRTY_RINGS, 0));
	for (i = 0; i < ARRAY_SIZE(vcpu_parts); i++)
		must(ioctl(rb.v->fd, vcpu_parts[i].set, vcpu_parts[i].state));
	for (i = 0; i < ARRAY_SIZE(vm_parts); i++)
		must(ioctl(rb.vm->fd, vm_parts[i].set, vm_parts[i].state));
}

static void reset_take(void)
{
	struct keel_snapshot s = { 0 };

	if (!ioctl(rb.vm->fd, KEEL_SNAPSHOT, &s))
		rb.id = s.id;
	else
		vmm_takes();
}

static void reset_do(void)
{
	struct keel_reset r = { .id = rb.id };

	if (rb.id)
		must(ioctl(rb.vm->fd, KEEL_RESET, &r));
	else
		vmm_resets();
}

/* A run of the guest that writes RESET_PAGES pages, and the reset; less the same with a guest that writes none */
static u64 reset_run(void)
{
	u64 start = rdtsc();

	run_loop(rb.v);
	reset_do();
	return rdtsc() - start;
}

static void resets_of(const char *name, size_t size)
{
	struct keel_info info;
	struct kvm_pit_config pit = { 0 };
	u64 best = ~0UL, none = ~0UL, cost;
	bool keel;
	char row[64];
	u64 start;
	int i;

	rb.vm = vm_new(VM_IRQCHIP);
	keel = !ioctl(rb.vm->sys, KEEL_GET_INFO, &info);
	must(ioctl(rb.vm->fd, KVM_CREATE_PIT2, &pit));
	if (!keel)
		must(vm_enable_cap(rb.vm, KVM_CAP_DIRTY_LOG_RING, RING_PAGES * 4096));
	rb.mem = mem_alloc(size);
	rb.copy = mem_alloc(RESET_MEM);
	madvise(rb.mem, size, MADV_NOHUGEPAGE);
	memset(rb.mem, 1, RESET_MEM);
	memset(rb.copy, 1, RESET_MEM);
	vm_slot(rb.vm, 1, FRESH_GPA, size, rb.mem, keel ? 0 : KVM_MEM_LOG_DIRTY_PAGES);
	rb.v = loop_vcpu(rb.vm, touch_loop, code_size(touch_loop));
	run_loop(rb.v);
	loop_vcpu(rb.vm, touch_loop, code_size(touch_loop));
	if (!keel) {
		rb.ring = mmap(NULL, RING_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rb.v->fd,
			       KVM_DIRTY_LOG_PAGE_OFFSET * 4096);
		if (rb.ring == MAP_FAILED)
			die("no ring");
	}
	rb.id = 0;
	rb.at = 0;
	start = rdtsc();
	reset_take();
	snprintf(row, sizeof(row), "%s_take", name);
	report(row, rdtsc() - start);
	reset_do();
	for (i = 0; i < 8; i++) {
		start = rdtsc();
		reset_do();
		cost = rdtsc() - start;
		if (cost < none)
			none = cost;
	}
	snprintf(row, sizeof(row), "%s_fixed", name);
	report(row, none);
	snprintf(row, sizeof(row), "%s_page_first", name);
	cost = reset_run();
	report(row, (cost - none) / RESET_PAGES);
	snprintf(row, sizeof(row), "%s_page_second", name);
	cost = reset_run();
	report(row, (cost - none) / RESET_PAGES);
	for (i = 0; i < 8; i++) {
		cost = reset_run();
		if (cost < best)
			best = cost;
	}
	snprintf(row, sizeof(row), "%s_page_each_run", name);
	report(row, (best - none) / RESET_PAGES);
	vm_free(rb.vm);
	munmap(rb.mem, size);
	munmap(rb.copy, RESET_MEM);
}

static void resets(void)
{
	resets_of("reset_64m", 64UL << 20);
	resets_of("reset_512m", 512UL << 20);
}

/* ---- fork(2) of a VMM with a VM of a GiB, and the VM in its child ---- */

#define FORK_MEM	(1UL << 30)		/* where there is so much */
#define FORKS		9

/* 1000 steps of a MiB */
LOOP(stride_loop, "mov $0x2000000,%edi", "movb $1,(%rdi); add $0x100000,%edi");
CODE16(end_code, "out %al,$0xf0");

enum { FORK_STATE, FORK_FORK, FORK_CREATE, FORK_VCPU, FORK_FIRST_RUN, FORK_ALONE, NR_FORK };

/* What the parent pays, and what its child; which then is gone */
static void fork_once(struct vm *vm, u64 *cost, struct keel_state *state)
{
	struct keel_state arg = *state;
	struct vcpu *v;
	u64 t = rdtsc();
	pid_t pid;

	if (cost) {
		must(ioctl(vm->fd, KEEL_GET_STATE, &arg));
		cost[FORK_STATE] = rdtsc() - t;
	}
	t = rdtsc();
	pid = must(fork());
	if (pid) {
		u64 spent = rdtsc() - t;

		waitpid(pid, NULL, 0);
		if (cost)
			cost[FORK_FORK] = spent;
		else
			state->flags = spent;
		return;
	}
	if (!cost)
		_exit(0);
	v = vm->vcpu[0];
	vm->sys = node_open();
	arg.flags = KEEL_WITH_MEMSLOTS;
	t = rdtsc();
	vm->fd = must(ioctl(vm->sys, KEEL_CREATE_VM_FROM, &arg));
	cost[FORK_CREATE] = rdtsc() - t;
	t = rdtsc();
	v->fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, 0));
	cost[FORK_VCPU] = rdtsc() - t;
	v->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	t = rdtsc();
	run_loop(v);
	cost[FORK_FIRST_RUN] = rdtsc() - t;
	_exit(0);
}

static void forks(void)
{
	static const char *name[] = { "fork_get_state", "fork_fork", "fork_create_vm_from", "fork_vcpu_fd", "fork_first_run" };
	u64 (*cost)[NR_FORK] = mmap(NULL, FORKS * sizeof(*cost), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	static u8 data[65536] __attribute__((aligned(8)));
	struct keel_state state = { .data = (u64)data, .size = sizeof(data), .flags = KEEL_WITH_SETUP };
	struct keel_info info = { 0 };
	struct vm *vm = vm_new(VM_IRQCHIP);
	u64 one[FORKS];
	size_t size = FORK_MEM;
	u8 *all, *mem;
	int i, s;

	if (ioctl(vm->sys, KEEL_GET_INFO, &info) || !(info.features & KEEL_FEATURE_CREATE_FROM)) {
		vm_free(vm);
		return;
	}
	while (size * 2 > sysconf(_SC_AVPHYS_PAGES) * 4096UL)
		size /= 2;
	report("fork_memory_mib", size >> 20);
	all = mem_alloc(FORK_MEM + (2 << 20));
	mem = all + (-(u64)all & ((2 << 20) - 1));
	madvise(mem, size, MADV_HUGEPAGE);
	memset(mem, 1, size);
	for (i = 0; i < FORK_MEM; i += size)	/* over and over */
		vm_slot(vm, 1 + i / size, FRESH_GPA + i, size, mem, 0);
	run_loop(loop_vcpu(vm, stride_loop, code_size(stride_loop)));
	loop_vcpu(vm, end_code, code_size(end_code));
	for (i = 0; i < FORKS; i++)
		fork_once(vm, cost[i], &state);
	for (s = 0; s < FORK_ALONE; s++) {
		for (i = 0; i < FORKS; i++)
			one[i] = cost[i][s];
		report(name[s], median(one, FORKS));
	}
	/* The same memory without a VM: what of fork(2) is not keel's */
	vm_free(vm);
	for (i = 0; i < FORKS; i++) {
		fork_once(NULL, NULL, &state);
		one[i] = state.flags;
	}
	report("fork_without_vm", median(one, FORKS));
	munmap(all, FORK_MEM + (2 << 20));
}

/* KVM_RUN that does not get far: told to come back at once, and with all of the state in kvm_run, both ways */
static void short_runs(void)
{
	u32 all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = loop_vcpu(vm, pio_out_loop, code_size(pio_out_loop));
	struct kvm_run *run = v->run;
	int ret;

	run->immediate_exit = 1;
	EACH("run_immediate_exit", N, (ret = ioctl(v->fd, KVM_RUN, 0), ret == -1 && errno == EINTR ? 0 : -1));
	run->immediate_exit = 0;
	run->kvm_valid_regs = all;
	must(ioctl(v->fd, KVM_RUN, 0));
	EACH("run_pio_out_sync_regs", N / 2, (run->kvm_dirty_regs = all, ioctl(v->fd, KVM_RUN, 0)));
	vm_free(vm);
}

/* A guest that counts the instructions it has: what is left is the timer's and KVM_RUN's */
CODE(64, count_loop, "1: inc %rax; jmp 1b");

static void timer_ends_run(void)
{
	struct itimerval soon = { .it_value.tv_usec = 200 };
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = loop_vcpu(vm, count_loop, code_size(count_loop));
	u64 t, best = ~0UL, before;
	struct kvm_regs r;
	int i;

	for (i = 0; i < 50; i++) {
		vcpu_get_regs(v, &r);
		before = r.rax;
		t = rdtsc();
		setitimer(ITIMER_REAL, &soon, NULL);
		if (!ioctl(v->fd, KVM_RUN, 0) || errno != EINTR)
			die("KVM_RUN: exit %s, %s", exit_name(v->run->exit_reason), strerror(errno));
		t = rdtsc() - t;
		vcpu_get_regs(v, &r);
		t -= 2 * (r.rax - before);
		if (t < best)
			best = t;
	}
	report("run_ended_by_timer", best);
	vm_free(vm);
}

static void vm_ioctls(void)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct kvm_irq_level l = { .irq = 5 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x40 };
	struct kvm_irqfd ifd = { .gsi = 5 };
	u64 one = 1;

	vcpu_new(vm, 0);
	EACH("ioctl_irq_line", N, ioctl(vm->fd, KVM_IRQ_LINE, &l));
	EACH("ioctl_signal_msi", N, ioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
	ifd.fd = eventfd(0, EFD_NONBLOCK);
	must(ioctl(vm->fd, KVM_IRQFD, &ifd));
	EACH("irqfd_signal", N, write(ifd.fd, &one, 8));
	vm_free(vm);
}

/* ---- a VM of many vCPUs that are halted, and one that is not ---- */

#define ROUNDS	40

CODE(64, spin_loop, "1: pause; jmp 1b");

static volatile u32 sleepers;

static void *sleeper_thread(void *arg)
{
	int fd = (long)arg;

	__atomic_add_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
	ioctl(fd, KVM_RUN, 0);
	die("KVM_RUN of a halted vCPU: %s", strerror(errno));
}

static void *spinner_thread(void *arg)
{
	struct vcpu *v = arg;

	ioctl(v->fd, KVM_RUN, 0);
	die("KVM_RUN of one that spins: %s", strerror(errno));
}

/*
 * Memslots come and go: @n halted vCPUs, which have nothing to do with it, are to cost nothing.  On one CPU the vCPU that
 * spins has lost it to us, and so left the guest; what else it may cost to have it come out of there is not in this.
 */
static void memslots_beside(int n)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = loop_vcpu(vm, spin_loop, code_size(spin_loop));
	struct kvm_mp_state halted = { .mp_state = KVM_MP_STATE_HALTED };
	u8 *other = mem_alloc(1 << 20);
	u64 cost[ROUNDS];
	pthread_attr_t attr;
	char name[40];
	pthread_t t;
	int i, fd;

	must(-pthread_attr_init(&attr));
	must(-pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN));
	for (i = 1; i <= n; i++) {
		fd = ioctl(vm->fd, KVM_CREATE_VCPU, i);
		must(fd);
		must(ioctl(fd, KVM_SET_MP_STATE, &halted));
		must(-pthread_create(&t, &attr, sleeper_thread, (void *)(long)fd));
	}
	while (sleepers < i - 1)
		sleep_ms(10);
	sleep_ms(100);
	must(-pthread_create(&t, NULL, spinner_thread, v));
	sleep_ms(100);
	for (i = 0; i < ROUNDS; i++) {
		u64 start = rdtsc();

		vm_slot(vm, 1, 1UL << 24, 1 << 20, other, 0);
		vm_slot(vm, 1, 0, 0, NULL, 0);
		cost[i] = rdtsc() - start;
	}
	snprintf(name, sizeof(name), "memslots_beside_%d_halted", n);
	report(name, median(cost, ROUNDS));
}

/* The threads of each go with the process they are in. */
static void many_halted(void)
{
	static const int counts[] = { 16, 256, 1022 };
	struct rlimit files = { 2048, 2048 };
	unsigned int i;
	int status;

	must(setrlimit(RLIMIT_NOFILE, &files));
	for (i = 0; i < 3; i++) {
		pid_t pid = must(fork());

		if (!pid) {
			memslots_beside(counts[i]);
			_exit(0);
		}
		must(waitpid(pid, &status, 0));
		if (status)
			die("status %x", status);
	}
}

/* ---- making and unmaking a VM ---- */

#define VMS	21

enum { CREATE_VM, IRQCHIP, SLOT, VCPU, FIRST_RUN, SLOT_ADD, SLOT_DEL,
       DESTROY, NR_STEPS };
static const char *const step_name[NR_STEPS] = {
	[CREATE_VM] = "create_vm", [IRQCHIP] = "create_irqchip",
	[SLOT] = "memslot_first", [VCPU] = "create_vcpu",
	[FIRST_RUN] = "first_run", [SLOT_ADD] = "memslot_add",
	[SLOT_DEL] = "memslot_delete", [DESTROY] = "destroy_vm",
};

static void vm_steps(void)
{
	static u64 cost[NR_STEPS][VMS];
	int sys = node_open(), size, i, s;

	size = must(ioctl(sys, KVM_GET_VCPU_MMAP_SIZE, 0));
	for (i = 0; i < VMS; i++) {
		struct vm vm = { .size = 0x20000 };
		struct vcpu v = { .vm = &vm };
		u8 *other = mem_alloc(1 << 20);
		u64 t;

		vm.mem = mem_alloc(vm.size);
		memcpy(vm.mem + CODE_GPA, end_code, code_size(end_code));
#define STEP(n, expr)	(t = rdtsc(), expr, cost[n][i] = rdtsc() - t)
		STEP(CREATE_VM, vm.fd = must(ioctl(sys, KVM_CREATE_VM, 0)));
		STEP(IRQCHIP, must(ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0)));
		STEP(SLOT, vm_slot(&vm, 0, 0, vm.size, vm.mem, 0));
		STEP(VCPU, v.fd = must(ioctl(vm.fd, KVM_CREATE_VCPU, 0)));
		v.run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			     v.fd, 0);
		vcpu_real(&v, end_code, code_size(end_code));
		STEP(FIRST_RUN, run_loop(&v));
		STEP(SLOT_ADD, vm_slot(&vm, 1, 1 << 24, 1 << 20, other, 0));
		STEP(SLOT_DEL, vm_slot(&vm, 1, 0, 0, NULL, 0));
		munmap(v.run, size);
		STEP(DESTROY, (close(v.fd), close(vm.fd)));
		munmap(vm.mem, vm.size);
		munmap(other, 1 << 20);
	}
	for (s = 0; s < NR_STEPS; s++) {
		report(step_name[s], median(cost[s], VMS));
	}
	close(sys);
}

static long mem_free(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	char line[128];
	long kib = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemFree: %ld kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

#define IDLE_VMS	400

/* Kernel memory, in bytes, of a VM with one vCPU and interrupt controllers: made, and after it has run */
static void idle_memory(void)
{
	struct { int vm, vcpu; } v[IDLE_VMS];
	void *page = mem_alloc(0x1000);
	struct kvm_userspace_memory_region r = { .guest_phys_addr = 0xfffff000, .memory_size = 0x1000,
						 .userspace_addr = (u64)page };
	int sys = node_open(), i;
	long before, made, ran;

	/* Free pages that a CPU keeps are not in MemFree: let it keep few. */
	if (system("echo 100000 > /proc/sys/vm/percpu_pagelist_high_fraction"))
		return;
	memset((char *)page + 0xff0, 0xf4, 16);		/* hlt at the reset vector */
	before = mem_free();
	for (i = 0; i < IDLE_VMS; i++) {
		v[i].vm = must(ioctl(sys, KVM_CREATE_VM, 0));
		must(ioctl(v[i].vm, KVM_CREATE_IRQCHIP, 0));
		v[i].vcpu = must(ioctl(v[i].vm, KVM_CREATE_VCPU, 0));
	}
	made = mem_free();
	report("idle_vm_bytes", (before - made) * 1024 / IDLE_VMS);
	for (i = 0; i < IDLE_VMS; i++) {
		struct kvm_regs regs;
		struct kvm_run *run = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, v[i].vcpu, 0);

		must(ioctl(v[i].vm, KVM_SET_USER_MEMORY_REGION, &r));
		must(ioctl(v[i].vcpu, KVM_GET_REGS, &regs));
		ualarm(20000, 0);	/* it halts, and is called back from there */
		if (!ioctl(v[i].vcpu, KVM_RUN, 0) || errno != EINTR)
			die("KVM_RUN: exit %s, %s", exit_name(run->exit_reason), strerror(errno));
		munmap(run, 0x1000);
	}
	ran = mem_free();
	report("idle_vm_bytes_after_run", (before - ran) * 1024 / IDLE_VMS);
	for (i = 0; i < IDLE_VMS; i++) {
		close(v[i].vcpu);
		close(v[i].vm);
	}
	close(sys);
	sleep(3);		/* some is freed a grace period later */
	report("idle_vm_bytes_freed", (mem_free() - ran) * 1024 / IDLE_VMS);
	if (system("echo 0 > /proc/sys/vm/percpu_pagelist_high_fraction"))	/* as it was by itself */
		die("percpu_pagelist_high_fraction stays");
}

static void woken(int sig)
{
}

static void touches(void)
{
	first_touch("first_touch", false, false);
	own_touch();
	first_touch("first_touch_populated", true, false);
	first_touch("first_touch_huge", true, true);
	dirty_round();
}

static void interrupts(void)
{
	report("self_ipi", run_guest(self_ipi_guest, 0) / N);
	report("ipi_send_idle", run_guest(send_ipi_guest, 0) / N);
	report("timer_arm_and_fire", run_guest(timer_now_guest, 0) / N);
	report("timer_late_busy", run_guest(timer_late_guest, 0));
	report("timer_late_halted", run_guest(timer_late_guest, 1));
	ping_pong();
}

static void runs(void)
{
	short_runs();
	timer_ends_run();
}

static void beside_rows(struct vm *vm, const char *when)
{
	char name[64];

#define BESIDE(code, base) do {						\
	snprintf(name, sizeof(name), #code "_%s", when);		\
	report(name, ((long)TIME(vm, code##_loop) - (long)TIME(vm, base##_loop)) / N);	\
} while (0)
	BESIDE(cpuid, cpuid_nop);
	BESIDE(rdmsr, nop);
	BESIDE(pio_out, nop);
	BESIDE(mmio_read, nop);
	BESIDE(lapic_read, nop);
}

/* The CPU's virtualization borrowed from the kernel's module, first with nothing of its in the CPU, then with a vCPU of its */
static void beside(void)
{
	struct vm *vm, *theirs;
	int sys;

	if (strcmp(node_path(), KEEL_NODE) || !kvm_load())
		return;
	sys = node_open();
	must(hand_over(sys));
	vm = vm_new(VM_IRQCHIP);
	theirs = kvm_vm_new(VM_PLAIN);
	beside_rows(vm, "beside_kvm");
	run_loop(loop_vcpu(theirs, nop_loop, code_size(nop_loop)));
	beside_rows(vm, "after_kvm");
	vm_free(theirs);
	vm_free(vm);
	must(ioctl(sys, KEEL_BESIDE_KVM, -1));
	close(sys);
	module_delete(vendor_module());
	module_delete("kvm");
}

static const struct {
	const char *name;
	void (*measure)(void);
} groups[] = {
	{ "memory", idle_memory }, { "exits", simple_exits }, { "deadline", deadline_arm }, { "touches", touches },
	{ "interrupts", interrupts }, { "state", state_ioctls }, { "runs", runs }, { "ioctls", vm_ioctls },
	{ "steps", vm_steps }, { "resets", resets }, { "forks", forks }, { "halted", many_halted }, { "beside", beside },
};

#define NR_GROUPS	(sizeof(groups) / sizeof(groups[0]))

int main(int argc, char **argv)
{
	struct sigaction wake = { .sa_handler = woken };
	unsigned int g;
	int i;

	if (argc > 1)
		setenv("KEEL_DEV", argv[1], 1);
	sigaction(SIGALRM, &wake, NULL);
	for (i = 2; i < argc; i++) {
		for (g = 0; g < NR_GROUPS && strcmp(argv[i], groups[g].name); g++)
			;
		if (g == NR_GROUPS)
			die("no group %s", argv[i]);
	}
	for (g = 0; g < NR_GROUPS; g++) {
		for (i = 2; i < argc && strcmp(argv[i], groups[g].name); i++)
			;
		if (argc <= 2 || i < argc)
			groups[g].measure();
	}
	return 0;
}
