// SPDX-License-Identifier: GPL-2.0-only
/*
 * The differ: what there is to see of a vCPU.
 */
#define _GNU_SOURCE
#include "differ.h"

#include <signal.h>
#include <time.h>

#define LAPIC_CURRENT_COUNT	0x390

static void on_signal(int sig)
{
}

static void interrupt_in(unsigned int ms)
{
	const char *scale = getenv("KEEL_TIME_SCALE");
	unsigned int by = scale && atoi(scale) > 1 ? atoi(scale) : 1;
	struct itimerspec t = { .it_value = { by * ms / 1000, by * ms % 1000 * 1000000L } };
	struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct sigaction a = { .sa_handler = on_signal };
	static timer_t timer;
	static bool made;

	if (!made) {
		sigaction(SIGUSR1, &a, NULL);
		must(timer_create(CLOCK_MONOTONIC, &e, &timer));
		made = true;
	}
	t.it_interval = t.it_value;	/* a first one may come before KVM_RUN */
	must(timer_settime(timer, 0, &t, NULL));
}

int run_for(struct vcpu *v, unsigned int ms, int turns)
{
	int r;

	do {
		interrupt_in(ms);
		r = xioctl(v->fd, KVM_RUN, 0);
		interrupt_in(0);
	} while (r == -EINTR && --turns);
	return r;
}

u64 hash(const void *p, size_t size)
{
	const u8 *b = p;
	u64 h = 0xcbf29ce484222325ULL;

	while (size--)
		h = (h ^ *b++) * 0x100000001b3ULL;
	return h;
}

#define PUT(s, field)	put(#s "." #field, 0, (s)->field)

void put_run(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	unsigned int i;

	PUT(run, ready_for_interrupt_injection);
	PUT(run, if_flag);
	PUT(run, flags);
	PUT(run, cr8);
	PUT(run, apic_base);
	PUT(run, request_interrupt_window);
	PUT(run, kvm_valid_regs);
	PUT(run, kvm_dirty_regs);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		PUT(run, io.direction);
		PUT(run, io.size);
		PUT(run, io.port);
		PUT(run, io.count);
		PUT(run, io.data_offset);
		if (run->io.direction == KVM_EXIT_IO_OUT && run->io.size * run->io.count <= 4096)
			put("run->io data", 0, hash((u8 *)run + run->io.data_offset, run->io.size * run->io.count));
		break;
	case KVM_EXIT_MMIO:
		PUT(run, mmio.phys_addr);
		PUT(run, mmio.len);
		PUT(run, mmio.is_write);
		if (run->mmio.is_write)
			put("run->mmio.data", 0, *(u64 *)run->mmio.data & (run->mmio.len >= 8 ? ~0ULL :
				(1ULL << run->mmio.len * 8) - 1));
		break;
	case KVM_EXIT_HYPERCALL:
		PUT(run, hypercall.nr);
		for (i = 0; i < 6; i++)
			put("run->hypercall.args", i, run->hypercall.args[i]);
		PUT(run, hypercall.ret);
		PUT(run, hypercall.longmode);
		break;
	case KVM_EXIT_DEBUG:
		PUT(run, debug.arch.exception);
		PUT(run, debug.arch.pc);
		PUT(run, debug.arch.dr6);
		PUT(run, debug.arch.dr7);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		PUT(run, fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		PUT(run, internal.suberror);
		PUT(run, internal.ndata);
		if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata) {
			PUT(run, emulation_failure.flags);
			PUT(run, emulation_failure.insn_size);
			put_bytes("run->emulation_failure.insn_bytes", run->emulation_failure.insn_bytes, 15);
		}
		for (i = 0; i < run->internal.ndata && i < 16; i++)
			put("run->internal.data", i, run->internal.data[i]);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		PUT(run, msr.error);
		PUT(run, msr.reason);
		PUT(run, msr.index);
		if (run->exit_reason == KVM_EXIT_X86_WRMSR)
			PUT(run, msr.data);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		PUT(run, system_event.type);
		PUT(run, system_event.ndata);
		break;
	case KVM_EXIT_IOAPIC_EOI:
		PUT(run, eoi.vector);
		break;
	}
	if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
		put_bytes("sync regs", &run->s.regs.regs, sizeof(run->s.regs.regs));
	if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
		put_bytes("sync sregs", &run->s.regs.sregs, sizeof(run->s.regs.sregs));
	if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS)
		put_bytes("sync events", &run->s.regs.events, sizeof(run->s.regs.events));
}

/* Registers and events: always the same ones, in the same order, so that each has a place among what was seen before */
#define NR_SEEN		160

static struct {
	u64 val[NR_SEEN];
	unsigned int nth;
	bool all, none;
} seen;

static void see(const char *what, u64 index, u64 val)
{
	if (seen.nth == NR_SEEN)
		die("too many registers");
	if (!seen.none && (seen.all || seen.val[seen.nth] != val))
		put(what, index, val);
	seen.val[seen.nth++] = val;
}

#define SEE(s, field)	see(#s "." #field, 0, (s)->field)

static void see_segment(const char *what, const struct kvm_segment *s)
{
	see(what, 0, s->base);
	see(what, 1, s->limit);
	see(what, 2, s->selector);
	see(what, 3,
		s->type | s->present << 4 | s->dpl << 5 | s->db << 8 | s->s << 9 | s->l << 10 | s->g << 11 |
		s->avl << 12 |
	    s->unusable << 16);
}

static void see_vcpu(struct vcpu *v)
{
	struct kvm_regs regs, *r = &regs;
	struct kvm_sregs sregs, *s = &sregs;
	struct kvm_vcpu_events events, *e = &events;
	struct kvm_mp_state mp;
	unsigned int i;

	seen.nth = 0;
	vcpu_get_regs(v, r);
	SEE(r, rip); SEE(r, rflags); SEE(r, rax); SEE(r, rbx); SEE(r, rcx); SEE(r, rdx); SEE(r, rsi); SEE(r, rdi);
	SEE(r, rsp); SEE(r, rbp); SEE(r, r8); SEE(r, r9); SEE(r, r10); SEE(r, r11); SEE(r, r12); SEE(r, r13);
	SEE(r, r14);
	SEE(r, r15);
	vcpu_get_sregs(v, s);
	see_segment("cs", &s->cs);
	see_segment("ds", &s->ds);
	see_segment("es", &s->es);
	see_segment("fs", &s->fs);
	see_segment("gs", &s->gs);
	see_segment("ss", &s->ss);
	see_segment("tr", &s->tr);
	see_segment("ldt", &s->ldt);
	see("gdt", 0, s->gdt.base);
	see("gdt", 1, s->gdt.limit);
	see("idt", 0, s->idt.base);
	see("idt", 1, s->idt.limit);
	SEE(s, cr0); SEE(s, cr2); SEE(s, cr3); SEE(s, cr4); SEE(s, cr8); SEE(s, efer); SEE(s, apic_base);
	for (i = 0; i < 4; i++)
		see("interrupt_bitmap", i, s->interrupt_bitmap[i]);
	must(ioctl(v->fd, KVM_GET_VCPU_EVENTS, e));
	/* What they were when there were any says nothing. */
	if (!e->exception.injected && !e->exception.pending)
		memset(&e->exception, 0, sizeof(e->exception));
	if (!e->interrupt.injected)
		e->interrupt.nr = e->interrupt.soft = 0;
	for (i = 0; i < sizeof(*e) / 8; i++)
		see("events", i * 8, ((u64 *)e)[i]);
	must(ioctl(v->fd, KVM_GET_MP_STATE, &mp));
	see("mp_state", 0, mp.mp_state);
}

void put_vcpu(struct vcpu *v)
{
	seen.all = true;
	see_vcpu(v);
	seen.all = false;
}

void put_changes(struct vcpu *v)
{
	see_vcpu(v);
}

void note_vcpu(struct vcpu *v)
{
	seen.none = true;
	see_vcpu(v);
	seen.none = false;
}

bool msr_tells_time(u32 msr)
{
	/* Hyper-V's reference count and runtime */
	return msr == MSR_IA32_TSC || msr == 0x40000020 || msr == 0x40000010;
}

/* Those that the kernel's module lists */
static void put_msrs(struct vcpu *v)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + 1000 * sizeof(u32));
	int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC));
	unsigned int i;

	l->nmsrs = 1000;
	must(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, l));
	close(kvm);
	for (i = 0; i < l->nmsrs; i++) {
		u64 val = 0;
		int r = vcpu_get_msr(v, l->indices[i], &val);

		if (r != 1)
			put("msr ret", l->indices[i], r);
		else if (!msr_tells_time(l->indices[i]))
			put("msr", l->indices[i], val);
	}
	free(l);
}

void put_all(struct vcpu *v)
{
	struct kvm_debugregs d;
	struct kvm_xcrs x;
	struct kvm_fpu f;
	struct kvm_lapic_state l;
	struct kvm_sregs2 s2;
	u32 *xsave = mem_alloc(4096);
	int r;

	must(ioctl(v->fd, KVM_GET_DEBUGREGS, &d));
	put_bytes("debugregs", &d, sizeof(d));
	r = xioctl(v->fd, KVM_GET_XCRS, &x);
	put("KVM_GET_XCRS", 0, r);
	if (!r) {
		put("nr_xcrs", 0, x.nr_xcrs);
		put("xcr0", 0, x.xcrs[0].value);
	}
	must(ioctl(v->fd, KVM_GET_FPU, &f));
	put_bytes("fpu", &f, sizeof(f));
	r = xioctl(v->fd, KVM_GET_XSAVE, xsave);
	put("KVM_GET_XSAVE", 0, r);
	put_bytes("xsave", xsave, 4096);
	r = xioctl(v->fd, KVM_GET_SREGS2, &s2);
	put("KVM_GET_SREGS2", 0, r);
	if (!r) {
		put("sregs2.flags", 0, s2.flags);
		put_bytes("sregs2.pdptrs", s2.pdptrs, sizeof(s2.pdptrs));
	}
	r = xioctl(v->fd, KVM_GET_LAPIC, &l);
	put("KVM_GET_LAPIC", 0, r);
	if (!r) {
		memset(l.regs + LAPIC_CURRENT_COUNT, 0, 4);
		put_bytes("lapic", &l, sizeof(l));
	}
	put_msrs(v);
	munmap(xsave, 4096);
}
