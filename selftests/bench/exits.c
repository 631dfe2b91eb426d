// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each kind of exit costs, and each step of making a VM.
 *
 *   bench-exits [NODE]
 *
 * Prints "name<TAB>cost" lines.  The unit is the TSC's: in an emulator told to
 * make one instruction one tick (QEMU: -icount shift=0,sleep=off -smp 1), that
 * is instructions, the same in each run.  A guest loops N times over one
 * instruction, its VMM reads the TSC around KVM_RUN, and the cost of a loop
 * over a NOP is taken off.
 */
#include "../lib/guest.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

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

static void ioctls(void)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_irq_level l = { .irq = 5 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x40 };
	struct kvm_irqfd ifd = { .gsi = 5 };
	struct kvm_sregs s;
	struct kvm_regs r;
	u64 one = 1;
	int ret;

	EACH("ioctl_get_regs", N, ioctl(v->fd, KVM_GET_REGS, &r));
	EACH("ioctl_get_sregs", N, ioctl(v->fd, KVM_GET_SREGS, &s));
	EACH("ioctl_set_sregs", N, ioctl(v->fd, KVM_SET_SREGS, &s));
	v->run->immediate_exit = 1;
	EACH("run_immediate_exit", N, (ret = ioctl(v->fd, KVM_RUN, 0),
				       ret == -1 && errno == EINTR ? 0 : -1));
	EACH("ioctl_irq_line", N, ioctl(vm->fd, KVM_IRQ_LINE, &l));
	EACH("ioctl_signal_msi", N, ioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
	ifd.fd = eventfd(0, EFD_NONBLOCK);
	must(ioctl(vm->fd, KVM_IRQFD, &ifd));
	EACH("irqfd_signal", N, write(ifd.fd, &one, 8));
	vm_free(vm);
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

static int compare(const void *a, const void *b)
{
	u64 x = *(u64 *)a, y = *(u64 *)b;

	return x < y ? -1 : x > y;
}

CODE16(end_code, "out %al,$0xf0");

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
		qsort(cost[s], VMS, sizeof(u64), compare);
		report(step_name[s], cost[s][VMS / 2]);
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

int main(int argc, char **argv)
{
	struct sigaction wake = { .sa_handler = woken };

	if (argc > 1)
		setenv("KEEL_DEV", argv[1], 1);
	sigaction(SIGALRM, &wake, NULL);
	idle_memory();
	simple_exits();
	deadline_arm();
	first_touch("first_touch", false, false);
	own_touch();
	first_touch("first_touch_populated", true, false);
	first_touch("first_touch_huge", true, true);
	dirty_round();
	report("self_ipi", run_guest(self_ipi_guest, 0) / N);
	report("ipi_send_idle", run_guest(send_ipi_guest, 0) / N);
	report("timer_arm_and_fire", run_guest(timer_now_guest, 0) / N);
	report("timer_late_busy", run_guest(timer_late_guest, 0));
	report("timer_late_halted", run_guest(timer_late_guest, 1));
	ping_pong();
	ioctls();
	vm_steps();
	return 0;
}
