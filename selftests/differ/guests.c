// SPDX-License-Identifier: GPL-2.0-only
/*
 * The differ: VMMs and guests that do something together, each a function: what KVM_RUN says and leaves when it is
 * called early, told to
 * come back, interrupted; events from the VMM; registers that are set while an exit waits for its answer.
 */
#define _GNU_SOURCE
#include "differ.h"

#include <sys/eventfd.h>

/* A guest may never come back by itself: from an empty memory, for one */
#define STUCK	300	/* milliseconds */
static unsigned int limit = STUCK;

/* The next run is interrupted */
static void soon(void)
{
	limit = 100;
}

static void run(struct vcpu *v, const char *where, u32 step)
{
	int r;

	r = run_for(v, limit, limit == STUCK && !v->run->immediate_exit ? 2 : 1);
	limit = STUCK;
	at_step(where, step);
	put("KVM_RUN", 0, r);
	put("run.exit_reason", 0, v->run->exit_reason);
	if (r == -EINTR && !v->run->immediate_exit)
		return;		/* it may be anywhere */
	put_run(v);
	put_vcpu(v);
}

static void run_at_once(struct vcpu *v, const char *where, u32 step)
{
	v->run->immediate_exit = 1;
	run(v, where, step);
	v->run->immediate_exit = 0;
}

static void move(struct vcpu *v, int by)
{
	struct kvm_regs r;

	vcpu_get_regs(v, &r);
	r.rip += by;
	vcpu_set_regs(v, &r);
}

/* ---- a vCPU as it is made ---- */

static void play_fresh(const struct scenario *s)
{
	enum vm_kind kind;

	for (kind = VM_PLAIN; kind <= VM_SPLIT; kind++) {
		struct vm *vm = vm_new(kind);
		struct vcpu *v = vcpu_bare(vm, 0);

		at("bare", kind);
		put_vcpu(v);
		put_all(v);
		v = vcpu_new(vm, 1);
		at("with CPUID", kind);
		put_vcpu(v);
		put_all(v);
		/* One that waits for its start-up IPI, and is told to come back at once */
		run_at_once(v, "second at once", kind);
		run_at_once(vm->vcpu[0], "first at once", kind);
		run(vm->vcpu[0], "reset vector", kind);
		vm_free(vm);
	}
}

/* No memory, or none at the reset vector */
static void play_no_memory(const struct scenario *s)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	struct vcpu *v = vcpu_new(vm, 0);

	run(v, "none", 1);
	run(v, "none", 2);
}

/* ---- RIP and registers while a port or a device waits ---- */

CODE32(outs, "movb $0x55,%al\n outb %al,$0x10\n outw %ax,$0x12\n movw $0x14,%dx\n outl %eax,(%dx)\n outb %al,$0x7e\n"
       " nop\n nop\n nop\n hlt\n");
CODE32(ins, "inb $0x10,%al\n inw $0x12,%ax\n movw $0x14,%dx\n inl (%dx),%eax\n nop\n nop\n nop\n hlt\n");
CODE32(stores, "movl $0x12345678,%eax\n movl %eax,0xd0000000\n movl %eax,0xd0000ffe\n nop\n nop\n nop\n nop\n nop\n"
       " nop\n hlt\n");
CODE32(loads, "movl 0xd0000000,%eax\n movl 0xd0000ffe,%ebx\n nop\n nop\n nop\n nop\n nop\n nop\n hlt\n");
CODE32(string_out, "movl $0x8000,%esi\n movl $5,%ecx\n movw $0x10,%dx\n rep outsb\n nop\n nop\n hlt\n");
CODE32(string_in, "movl $0x9000,%edi\n movl $5,%ecx\n movw $0x10,%dx\n rep insb\n nop\n nop\n hlt\n");
CODE32(msrs, "movl $0x12345,%ecx\n rdmsr\n wrmsr\n nop\n nop\n hlt\n");

struct code {
	const u8 *code, *end;
};
#define OF(name)	{ name, name##_end }
static const struct code waiting[] = { OF(outs), OF(ins), OF(stores), OF(loads), OF(string_out), OF(string_in),
	OF(msrs) };
static const char *const waiting_names[] = { "outs", "ins", "stores", "loads", "rep outs", "rep ins", "msrs" };
#define NR_WAITING	(sizeof(waiting) / sizeof(waiting[0]))

static void play_one(unsigned int i, const char *name, void (*meddle)(struct vcpu *v, u32 step))
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	u32 step;

	vm_enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR, 7);
	vcpu_prot(v, waiting[i].code, waiting[i].end - waiting[i].code);
	for (step = 1; step < 12; step++) {
		run(v, waiting_names[i], step);
		if (v->run->exit_reason == KVM_EXIT_INTR || v->run->exit_reason == KVM_EXIT_HLT ||
			v->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ||
		    v->run->exit_reason == KVM_EXIT_SHUTDOWN)
			break;
		memset((u8 *)v->run + v->run->io.data_offset % 0x2000, 0x60 + step,
			v->run->exit_reason == KVM_EXIT_IO ? 4 : 0);
		if (v->run->exit_reason == KVM_EXIT_MMIO && !v->run->mmio.is_write)
			memset(v->run->mmio.data, 0x30 + step, 8);
		if (v->run->exit_reason == KVM_EXIT_X86_RDMSR)
			v->run->msr.data = step;
		meddle(v, step);
	}
	vm_free(vm);
}

static void leave(struct vcpu *v, u32 step)
{
}

/* To where the next two bytes are a jump to themselves */
static void put_rip_elsewhere(struct vcpu *v, u32 step)
{
	struct kvm_regs r;

	memcpy(gpa_hva(v->vm, 0x6000), "\xeb\xfe", 2);
	vcpu_get_regs(v, &r);
	r.rip = 0x6000;
	vcpu_set_regs(v, &r);
	soon();
}

static void put_rip_same(struct vcpu *v, u32 step)
{
	move(v, 0);
}

static void other_operands(struct vcpu *v, u32 step)
{
	struct kvm_regs r;

	vcpu_get_regs(v, &r);
	r.rcx = 2;
	r.rax = 0xabcd;
	r.rdi = 0xa000;
	vcpu_set_regs(v, &r);
}

static void sregs_same(struct vcpu *v, u32 step)
{
	struct kvm_sregs s;

	vcpu_get_sregs(v, &s);
	vcpu_set_sregs(v, &s);
}

static void events_same(struct vcpu *v, u32 step)
{
	struct kvm_vcpu_events e;

	must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e));
	must(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e));
}

static void twice_at_once(struct vcpu *v, u32 step)
{
	run_at_once(v, "at once", step);
	run_at_once(v, "at once again", step);
}

static void fail_msr(struct vcpu *v, u32 step)
{
	v->run->msr.error = v->run->exit_reason == KVM_EXIT_X86_RDMSR || v->run->exit_reason == KVM_EXIT_X86_WRMSR;
}

static void sync_same(struct vcpu *v, u32 step)
{
	v->run->kvm_valid_regs = 7;
	v->run->kvm_dirty_regs = step > 1 ? 1 : 0;
}

static void interrupt(struct vcpu *v, u32 step)
{
	struct kvm_interrupt irq = { .irq = 0x20 + step };

	put("KVM_INTERRUPT", 0, xioctl(v->fd, KVM_INTERRUPT, &irq));
}

static void play_waiting(const struct scenario *s)
{
	unsigned int i;

	for (i = 0; i < NR_WAITING; i++)
		play_one(i, s->name, s->what);
}

/* ---- what the VMM asks of KVM_RUN ---- */

CODE16(spin16, "1: jmp 1b\n");
CODE16(sti_spin16, "sti\n 1: jmp 1b\n");
CODE16(sti_hlt16, "sti\n hlt\n nop\n cli\n hlt\n");
CODE16(window16, "nop\n outb %al,$0x10\n sti\n nop\n outb %al,$0x11\n nop\n cli\n outb %al,$0x12\n hlt\n");

static struct vcpu *real(enum vm_kind kind, const u8 *code, size_t size)
{
	struct vm *vm = vm_new(kind);
	struct vcpu *v = vcpu_new(vm, 0);

	/* Each vector: say its number, and return */
	vcpu_real(v, code, size);
	memset(gpa_hva(vm, 0x1000), 0xcf, 0x100);	/* iret */
	for (u32 i = 0; i < 256; i++)
		((u32 *)vm->mem)[i] = 0x1000;
	return v;
}

static void play_told(const struct scenario *s)
{
	enum vm_kind kind;

	for (kind = VM_PLAIN; kind <= VM_SPLIT; kind++) {
		struct vcpu *v = real(kind, spin16, code_size(spin16));

		run_at_once(v, "at once", kind);
		soon();
		run(v, "signal", kind);
		v = real(kind, sti_spin16, code_size(sti_spin16));
		soon();
		run(v, "signal, interrupts on", kind);
		v->run->request_interrupt_window = 1;
		if (kind == VM_IRQCHIP)
			soon();
		run(v, "window", kind);
		run_at_once(v, "window at once", kind);
		v->run->request_interrupt_window = 0;
		v = real(kind, sti_hlt16, code_size(sti_hlt16));
		soon();
		run(v, "hlt", kind);
		soon();
		run(v, "hlt again", kind);
		v->run->cr8 = 5;
		run_at_once(v, "cr8", kind);
		v->run->cr8 = 16;
		run_at_once(v, "bad cr8", kind);
		v->run->cr8 = 0;
		run_at_once(v, "cr8 back", kind);
	}
}

static void play_window(const struct scenario *s)
{
	struct vcpu *v = real(VM_PLAIN, window16, code_size(window16));
	struct kvm_interrupt irq = { .irq = 0x30 };
	u32 step;

	v->run->request_interrupt_window = 1;
	for (step = 1; step < 10; step++) {
		run(v, "window", step);
		if (v->run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN && step < 6)
			put("KVM_INTERRUPT", 0, xioctl(v->fd, KVM_INTERRUPT, &irq));
		if (v->run->exit_reason == KVM_EXIT_HLT)
			break;
	}
}

/* ---- SYNC_REGS ---- */

CODE16(out_twice16, "outb %al,$0x10\n incw %bx\n outb %al,$0x10\n hlt\n");

static void play_sync(const struct scenario *s)
{
	struct vcpu *v = real(VM_PLAIN, out_twice16, code_size(out_twice16));
	u32 bit;

	for (bit = 0; bit < 32; bit++) {
		v->run->kvm_valid_regs = 1U << bit;
		run_at_once(v, "valid", bit);
		v->run->kvm_valid_regs = 0;
		if (bit > 2) {
			v->run->kvm_dirty_regs = 1U << bit;
			run_at_once(v, "dirty", bit);
			v->run->kvm_dirty_regs = 0;
		}
	}
	v->run->kvm_valid_regs = 7;
	run(v, "out", 0);
	v->run->s.regs.regs.rbx = 0x1234;
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	run(v, "regs", 0);
	v->run->s.regs.sregs.cr4 = 1ULL << 40;
	v->run->kvm_dirty_regs = KVM_SYNC_X86_SREGS;
	run(v, "bad sregs", 0);
	v->run->s.regs.sregs.cr4 = 0;
	v->run->s.regs.events.flags = 1U << 31;
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS;
	v->run->s.regs.regs.rbx = 0x4321;
	run(v, "bad events", 0);
	v->run->s.regs.events.flags = 0;
	v->run->kvm_dirty_regs = 0;
	run(v, "on", 0);
	/* the address space that is asked for, where that is not said, is what was there */
	v->run->kvm_valid_regs = 0;
	run_at_once(v, "off", 0);
}

/* ---- events ---- */

CODE16(nops16, "nop\n nop\n outb %al,$0x10\n nop\n nop\n outb %al,$0x11\n nop\n hlt\n nop\n hlt\n");

static void play_events(const struct scenario *s)
{
	enum vm_kind kind;

	for (kind = VM_PLAIN; kind <= VM_SPLIT; kind++) {
		struct vcpu *v = real(kind, nops16, code_size(nops16));
		struct kvm_interrupt irq = { .irq = 0x21 };
		struct kvm_regs r;

		/* as in SMM: newer KVM ends VMs whose SMRAM is no memory */
		vm_slot(v->vm, 1 << 16, 0, MEM_SIZE, v->vm->mem, 0);
		at("ioctls", kind);
		irq.irq = 256;
		put("KVM_INTERRUPT of 256", 0, xioctl(v->fd, KVM_INTERRUPT, &irq));
		irq.irq = -1;
		put("KVM_INTERRUPT of -1", 0, xioctl(v->fd, KVM_INTERRUPT, &irq));
		irq.irq = 0x21;
		put("KVM_INTERRUPT", 0, xioctl(v->fd, KVM_INTERRUPT, &irq));
		put("KVM_INTERRUPT again", 0, xioctl(v->fd, KVM_INTERRUPT, &irq));
		put_vcpu(v);
		run(v, "masked", kind);
		vcpu_get_regs(v, &r);
		r.rflags |= 0x200;
		vcpu_set_regs(v, &r);
		run_at_once(v, "unmasked at once", kind);
		run(v, "unmasked", kind);
		put("KVM_NMI", 0, xioctl(v->fd, KVM_NMI, 0));
		put("KVM_NMI again", 0, xioctl(v->fd, KVM_NMI, 0));
		put_vcpu(v);
		run(v, "nmi", kind);
		put("KVM_SMI", 0, xioctl(v->fd, KVM_SMI, 0));
		put_vcpu(v);
		*(u16 *)gpa_hva(v->vm, 0x38000) = 0xaa0f;	/* rsm */
		run(v, "smi", kind);
		put_all(v);
	}
}

/* Exceptions that the VMM injects, in states where the guest has nothing for them */
static void play_injected(const struct scenario *s)
{
	u32 nr;

	for (nr = 0; nr < 22; nr++) {
		struct vcpu *v = real(VM_PLAIN, nops16, code_size(nops16));
		struct kvm_vcpu_events e = { .exception = { .injected = 1, .nr = nr, .has_error_code = nr & 1,
			.error_code = nr } };

		at("set", nr);
		put("KVM_SET_VCPU_EVENTS", 0, xioctl(v->fd, KVM_SET_VCPU_EVENTS, &e));
		put_vcpu(v);
		run_at_once(v, "at once", nr);
		run(v, "run", nr);
		vm_free(v->vm);
	}
}

/* ---- ends ---- */

CODE32(triple, "lidt 0x8100\n int3\n hlt\n");
CODE32(no_stack, "movl $0xd0000000,%esp\n pushl %eax\n popl %eax\n call 1f\n 1: hlt\n");
CODE32(into_hole, "movl $0xd0000000,%eax\n jmp *%eax\n");
CODE32(fpu_mmio, "fldl 0xd0000000\n hlt\n");
CODE32(task, "ljmp $0x33,$0\n hlt\n");
CODE32(idt_mmio, "lidt 0x8100\n int3\n hlt\n");
CODE32(cr0_bad, "movl $0x80000000,%eax\n movl %eax,%cr0\n hlt\n");

static void end_one(const char *name, const u8 *code, size_t size, u32 idt)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	u32 step;

	vcpu_prot(v, code, size);
	*(u16 *)gpa_hva(vm, 0x8100) = idt ? 0x7ff : 0;
	*(u32 *)gpa_hva(vm, 0x8102) = idt;
	for (step = 1; step <= 4; step++)
		run(v, name, step);
	at(name, 5);
	put_all(v);
	vm_free(vm);
}

static void play_ends(const struct scenario *s)
{
	end_one("triple fault", triple, code_size(triple), 0);
	end_one("stack in mmio", no_stack, code_size(no_stack), 0);
	end_one("code in mmio", into_hole, code_size(into_hole), 0);
	end_one("fpu of mmio", fpu_mmio, code_size(fpu_mmio), 0);
	end_one("no task", task, code_size(task), 0);
	end_one("idt in mmio", idt_mmio, code_size(idt_mmio), 0xd0000000);
	end_one("paging without protection", cr0_bad, code_size(cr0_bad), 0);
}

/* ---- rings and eventfds ---- */

CODE32(coalesced, "movl $0x11,%eax\n movl %eax,0xd0000000\n movb %al,0xd0000004\n movl %eax,0xd0000ffe\n"
       " movl 0xd0000000,%eax\n"
       " outb %al,$0x40\n outl %eax,$0x42\n movl %eax,0xd0002000\n movw %ax,0xd0002000\n outb %al,$0x60\n hlt\n");

static void play_coalesced(const struct scenario *s)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_coalesced_mmio_zone z = { .addr = 0xd0000000, .size = 0x1000 }, p = { .addr = 0x40, .size = 4,
		.pio = 1 };
	int fd = eventfd(0, EFD_CLOEXEC);
	struct kvm_ioeventfd e = { .addr = 0xd0002000, .len = 4, .fd = fd }, pe = { .addr = 0x60, .len = 1, .fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH, .datamatch = 0x11 };
	struct kvm_coalesced_mmio_ring *ring = (void *)v->run + 4096 * must(ioctl(vm->sys, KVM_CHECK_EXTENSION,
		KVM_CAP_COALESCED_MMIO));
	u32 step, i;

	at("set", 0);
	put("zone", 0, xioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &z));
	put("again", 0, xioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &z));
	put("ports", 0, xioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &p));
	put("eventfd", 0, xioctl(vm->fd, KVM_IOEVENTFD, &e));
	put("eventfd again", 0, xioctl(vm->fd, KVM_IOEVENTFD, &e));
	put("of port", 0, xioctl(vm->fd, KVM_IOEVENTFD, &pe));
	vcpu_prot(v, coalesced, code_size(coalesced));
	for (step = 1; step < 12; step++) {
		u64 n = 0;

		run(v, "run", step);
		put("first", 0, ring->first);
		put("last", 0, ring->last);
		for (i = ring->first; i != ring->last && i < 100; i++) {
			put("addr", i, ring->coalesced_mmio[i].phys_addr);
			put("len", i, ring->coalesced_mmio[i].len);
			put("pio", i, ring->coalesced_mmio[i].pio);
			put("data", i, hash(ring->coalesced_mmio[i].data, ring->coalesced_mmio[i].len));
		}
		if (step == 11 && read(fd, &n, 8) == 8)
			put("eventfd", 0, n);
		if (v->run->exit_reason == KVM_EXIT_HLT)
			break;
	}
	at("end", 0);
	put("gone", 0, xioctl(vm->fd, KVM_UNREGISTER_COALESCED_MMIO, &z));
	put("gone again", 0, xioctl(vm->fd, KVM_UNREGISTER_COALESCED_MMIO, &z));
	e.flags = pe.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	e.flags = KVM_IOEVENTFD_FLAG_DEASSIGN;
	put("eventfd gone", 0, xioctl(vm->fd, KVM_IOEVENTFD, &e));
	put("eventfd gone again", 0, xioctl(vm->fd, KVM_IOEVENTFD, &e));
}

/* ---- memslots ---- */

static void slot(struct vm *vm, u32 nr, u64 gpa, u64 size, u64 hva, u32 flags)
{
	struct kvm_userspace_memory_region r = { nr, flags, gpa, size, hva };
	static u32 step;

	at("slot", step++);
	put("ret", 0, xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r));
}

static void play_slots(const struct scenario *s)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	u64 hva = (u64)mem_alloc(0x400000);
	u64 *bitmap = mem_alloc(0x4000);
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bitmap };
	u32 i;

	slot(vm, 0, 0, 0x100000, hva, 0);
	slot(vm, 0, 0, 0x100000, hva, 0);
	slot(vm, 0, 0, 0x200000, hva, 0);
	slot(vm, 0, 0, 0x100000, hva + 0x1000, 0);
	slot(vm, 0, 0, 0x100000, hva, KVM_MEM_READONLY);
	slot(vm, 0, 0, 0x100000, hva, KVM_MEM_LOG_DIRTY_PAGES);
	slot(vm, 0, 0x1000, 0x100000, hva, 0);
	slot(vm, 1, 0x80000, 0x100000, hva, 0);
	slot(vm, 1, 0x200000, 0x100000, hva, 0);
	slot(vm, 0, 0x201000, 0x100000, hva, 0);
	slot(vm, 2, 0x300001, 0x1000, hva, 0);
	slot(vm, 2, 0x400000, 0x1001, hva, 0);
	slot(vm, 2, 0x400000, 0x1000, hva + 1, 0);
	slot(vm, 2, 0x400000, 0x1000, 1ULL << 63, 0);
	slot(vm, 2, 0x400000, 0x1000, (1ULL << 47) - 0x1000, 0);
	slot(vm, 2, 0x400000, 0x1000, 0x7fffffffe000, 0);
	slot(vm, 2, ~0xfffULL, 0x1000, hva, 0);
	slot(vm, 2, ~0xfffULL, 0x2000, hva, 0);
	slot(vm, 2, 1ULL << 52, 0x1000, hva, 0);
	slot(vm, 2, 1ULL << 45, 0x1000, hva, 0);
	slot(vm, 2, 0, 0, 0, 0);
	slot(vm, 2, 0, 0, 0, 0);
	slot(vm, 3, 0x500000, 0, hva, 0);
	for (i = 0; i < 32; i++)
		slot(vm, 4, 0x600000, 0x1000, hva, 1U << i);
	slot(vm, 0x7fff, 0x700000, 0x1000, hva, 0);
	slot(vm, 0x7ffe, 0x700000, 0x1000, hva, 0);
	slot(vm, 0x10000, 0x800000, 0x1000, hva, 0);
	slot(vm, 0x10005, 0x800000, 0x1000, hva, 0);
	slot(vm, 0x20000, 0x800000, 0x1000, hva, 0);
	slot(vm, 509, 0x900000, 1ULL << 44, hva, 0);
	at("log", 0);
	put("not logged", 0, xioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	log.slot = 100;
	put("no slot", 0, xioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	log.slot = 0x30000;
	put("no space", 0, xioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	slot(vm, 1, 0x200000, 0x100000, hva, KVM_MEM_LOG_DIRTY_PAGES);
	log.slot = 1;
	put("logged", 0, xioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	log.dirty_bitmap = (void *)1;
	put("nowhere", 0, xioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
}

/* ---- interrupt controllers ---- */

static void play_irqs(const struct scenario *s)
{
	enum vm_kind kind;

	for (kind = VM_PLAIN; kind <= VM_SPLIT; kind++) {
		struct vm *vm = vm_new(kind);
		struct vcpu *v = vcpu_new(vm, 0);
		struct kvm_irq_routing *routing = calloc(1,
			sizeof(*routing) + 4 * sizeof(struct kvm_irq_routing_entry));
		struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x41 };
		int fd = eventfd(0, EFD_CLOEXEC);
		u32 i;

		for (i = 0; i < 30; i++) {
			struct kvm_irq_level l = { .irq = i, .level = 1 };

			at("line", i);
			put("KVM_IRQ_LINE", kind, xioctl(vm->fd, KVM_IRQ_LINE, &l));
			put("KVM_IRQ_LINE_STATUS", kind, xioctl(vm->fd, KVM_IRQ_LINE_STATUS, &l));
			put("status", kind, l.status);
			l.level = 0;
			put("low", kind, xioctl(vm->fd, KVM_IRQ_LINE_STATUS, &l));
			put("low status", kind, l.status);
		}
		at("msi", kind);
		put("KVM_SIGNAL_MSI", 0, xioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
		for (i = 0; i < 32; i++) {
			msi.flags = 1U << i;
			put("flags", i, xioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
		}
		msi.flags = 0;
		msi.address_lo = 0xfee03000;
		put("nobody", 0, xioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
		msi.address_lo = 0;
		put("no address", 0, xioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
		msi.address_lo = 0xfee00000;
		for (i = 0; i < 48; i += 3) {
			msi.data = i;
			put("data", i, xioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
		}
		for (i = 0; i < 8; i++) {
			msi.data = 0x50 | i << 8;
			put("mode", i, xioctl(vm->fd, KVM_SIGNAL_MSI, &msi));
		}
		at("routing", kind);
		for (i = 0; i < 8; i++) {
			routing->nr = 1;
			routing->entries[0] = (struct kvm_irq_routing_entry){ .gsi = 5, .type = i };
			put("type", i, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
		}
		for (i = 0; i < 8; i++) {
			routing->entries[0] = (struct kvm_irq_routing_entry){ .gsi = 5, .type = KVM_IRQ_ROUTING_IRQCHIP,
				.u.irqchip = { .irqchip = i, .pin = 7 } };
			put("chip", i, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
			routing->entries[0].u.irqchip.pin = 8;
			put("chip, pin 8", i, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
			routing->entries[0].u.irqchip.pin = 24;
			put("chip, pin 24", i, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
		}
		routing->entries[0] = (struct kvm_irq_routing_entry){ .gsi = 4096, .type = KVM_IRQ_ROUTING_MSI };
		put("gsi", 0, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
		routing->entries[0] = (struct kvm_irq_routing_entry){ .gsi = 5, .type = KVM_IRQ_ROUTING_MSI };
		for (i = 0; i < 32; i++) {
			routing->entries[0].flags = 1U << i;
			put("entry flags", i, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
			routing->entries[0].flags = 0;
			routing->flags = 1U << i;
			put("routing flags", i, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
			routing->flags = 0;
		}
		routing->nr = 2;
		routing->entries[1] = routing->entries[0];
		put("twice", 0, xioctl(vm->fd, KVM_SET_GSI_ROUTING, routing));
		for (i = 0; i < 32; i++) {
			struct kvm_irqfd f = { .fd = fd, .gsi = 5, .flags = 1U << i };

			at("irqfd", kind);
			put("flags", i, xioctl(vm->fd, KVM_IRQFD, &f));
		}
		for (i = 0; i < 3; i++) {
			struct kvm_irqfd f = { .fd = i == 1 ? 0 : i == 2 ? 1000 : fd, .gsi = i ? 6 : 5000 };

			put("irqfd", i, xioctl(vm->fd, KVM_IRQFD, &f));
		}
		at("devices", kind);
		put("KVM_CREATE_IRQCHIP", 0, xioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
		put("KVM_CREATE_PIT2", 0, xioctl(vm->fd, KVM_CREATE_PIT2, &(struct kvm_pit_config){}));
		put("KVM_CREATE_PIT2 again", 0, xioctl(vm->fd, KVM_CREATE_PIT2, &(struct kvm_pit_config){}));
		put("split", 0, vm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
		put("boot cpu", 0, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 0));
		put("tss", 0, xioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000));
		put("vcpu again", 0, xioctl(vm->fd, KVM_CREATE_VCPU, 0));
		put("vcpu of id", 0, xioctl(vm->fd, KVM_CREATE_VCPU, 100000));
		put_vcpu(v);
		put_all(v);
	}
}

void add_guests(void)
{
	static const struct {
		const char *name;
		void (*meddle)(struct vcpu *v, u32 step);
	} meddling[] = {
		{ "left", leave }, { "rip-moved", put_rip_elsewhere }, { "regs-set", put_rip_same },
		{ "operands-set", other_operands },
		{ "sregs-set", sregs_same }, { "events-set", events_same }, { "settled-twice", twice_at_once },
		{ "msr-fails", fail_msr },
		{ "synced", sync_same }, { "interrupted", interrupt },
	};
	unsigned int i;

	add_scenario("fresh", play_fresh, NULL);
	add_scenario("no-memory", play_no_memory, NULL);
	for (i = 0; i < sizeof(meddling) / sizeof(meddling[0]); i++)
		add_scenario(meddling[i].name, play_waiting, meddling[i].meddle);
	add_scenario("told", play_told, NULL);
	add_scenario("window", play_window, NULL);
	add_scenario("sync", play_sync, NULL);
	add_scenario("events", play_events, NULL);
	add_scenario("injected", play_injected, NULL);
	add_scenario("ends", play_ends, NULL);
	add_scenario("coalesced", play_coalesced, NULL);
	add_scenario("slots", play_slots, NULL);
	add_scenario("irqs", play_irqs, NULL);
}
