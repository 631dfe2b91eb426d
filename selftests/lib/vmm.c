// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tiny VMM the selftests share; see vmm.h.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>

extern char __executable_start[], _end[];
extern char guest_stubs[];

void vmm_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("# ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	fflush(stderr);
	_exit(1);
}

const char *node_path(void)
{
	const char *p = getenv("KEEL_DEV");

	return p ? p : "/dev/keel";
}

int node_open(void)
{
	int fd = open(node_path(), O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", node_path(), strerror(errno));
	return fd;
}

bool on_tcg(void)
{
	u32 r[4];

	cpuid(0x40000000, 0, r);
	return r[1] == 0x54474354 && r[2] == 0x43544743;	/* TCGTCGTC.. */
}

u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

void sleep_ms(unsigned int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

u64 scaled(u64 limit)
{
	const char *scale = getenv("KEEL_TIME_SCALE");
	unsigned int times = scale ? atoi(scale) : 0;

	return times > 3 ? limit * times / 3 : limit;
}

/* Wait until *p is at least @val */
bool wait_for(volatile u32 *p, u32 val, unsigned int ms)
{
	u64 end = now_ns() + scaled(ms * 1000000ULL);

	while (*p < val) {
		if (now_ns() > end)
			return false;
		nanosleep(&(struct timespec){ 0, 500000 }, NULL);	/* more often leaves a slow CPU no time */
	}
	return true;
}

void *mem_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap of %zu bytes: %s", size, strerror(errno));
	return p;
}

int vm_try_slot(struct vm *vm, u32 slot, u64 gpa, u64 size, void *hva,
		u32 flags)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return xioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
}

void vm_slot(struct vm *vm, u32 slot, u64 gpa, u64 size, void *hva, u32 flags)
{
	int ret = vm_try_slot(vm, slot, gpa, size, hva, flags);

	if (ret)
		die("slot %u at %#llx, %#llx bytes: %s", slot,
		    (unsigned long long)gpa, (unsigned long long)size,
		    strerror(-ret));
}

int vm_cap(struct vm *vm, int cap)
{
	return must(ioctl(vm->fd, KVM_CHECK_EXTENSION, cap));
}

int vm_enable_cap(struct vm *vm, u32 cap, u64 arg0)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg0 } };

	return xioctl(vm->fd, KVM_ENABLE_CAP, &c);
}

struct kvm_cpuid2 *cpuid_supported(int sys)
{
	int nent = 256;
	struct kvm_cpuid2 *c;

	c = calloc(1, sizeof(*c) + nent * sizeof(c->entries[0]));
	c->nent = nent;
	must(ioctl(sys, KVM_GET_SUPPORTED_CPUID, c));
	return c;
}

struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *c, u32 fn, u32 index)
{
	struct kvm_cpuid_entry2 *e;

	for (e = c->entries; e < c->entries + c->nent; e++)
		if (e->function == fn &&
		    (e->index == index ||
		     !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return e;
	return NULL;
}

struct vm *vm_new_size(enum vm_kind kind, size_t size)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	vm->sys = node_open();
	vm->run_size = must(ioctl(vm->sys, KVM_GET_VCPU_MMAP_SIZE, 0));
	vm->cpuid = cpuid_supported(vm->sys);
	vm->fd = must(ioctl(vm->sys, KVM_CREATE_VM, 0));
	/* Intel wants both before real mode works; elsewhere they do nothing */
	must(ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000UL));
	if (kind == VM_IRQCHIP)
		must(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	else if (kind == VM_SPLIT && vm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, 24))
		die("KVM_CAP_SPLIT_IRQCHIP");
	vm->size = size;
	if (size) {
		vm->mem = mem_alloc(size);
		vm_slot(vm, 0, 0, size, vm->mem, 0);
	}
	return vm;
}

struct vm *vm_new(enum vm_kind kind)
{
	return vm_new_size(kind, MEM_SIZE);
}

void vm_free(struct vm *vm)
{
	while (vm->nr)
		vcpu_free(vm->vcpu[vm->nr - 1]);
	close(vm->fd);
	close(vm->sys);
	if (vm->size)
		munmap(vm->mem, vm->size);
	free(vm->cpuid);
	free(vm);
}

/* The program, the page tables and the IDT: what long mode needs */
void vm_image(struct vm *vm)
{
	u64 *pt = gpa_hva(vm, PT_GPA), *idt = gpa_hva(vm, IDT_GPA);
	u64 i;

	if (vm->image)
		return;
	vm->image = true;
	if ((u64)_end > HEAP_GPA || vm->size < HEAP_GPA)
		die("the program does not fit in the guest's memory");
	memcpy(gpa_hva(vm, (u64)__executable_start), __executable_start,
	       _end - __executable_start);

	pt[0] = (PT_GPA + 0x1000) | 7;
	for (i = 0; i < 4; i++)
		pt[512 + i] = (PT_GPA + 0x2000 + i * 0x1000) | 7;
	for (i = 0; i < 2048; i++)
		pt[1024 + i] = i << 21 | 0x87;

	for (i = 0; i < 256; i++) {
		u64 h = (u64)guest_stubs + i * 16;

		/* DPL 3, so that user-mode code may use int too */
		idt[2 * i] = (h & 0xffff) | SEL_CODE64 << 16 | 0xee00ULL << 32 |
			     (h >> 16 & 0xffff) << 48;
		idt[2 * i + 1] = h >> 32;
	}
}

u64 *vm_split_page(struct vm *vm, u64 gva, u64 pt)
{
	u64 *pd = gpa_hva(vm, PT_GPA + 0x2000), *t = gpa_hva(vm, pt);
	int i;

	for (i = 0; i < 512; i++)
		t[i] = ((gva & ~0x1fffffULL) + i * 4096) | 7;
	pd[gva >> 21] = pt | 7;
	return t + (gva >> 12 & 511);
}

struct vcpu *vcpu_bare(struct vm *vm, int id)
{
	struct vcpu *v = calloc(1, sizeof(*v));

	if (vm->nr == MAX_VCPUS)
		die("too many vCPUs");
	v->vm = vm;
	v->id = id;
	v->fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, id));
	v->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		      v->fd, 0);
	if (v->run == MAP_FAILED)
		die("mmap of vCPU %d: %s", id, strerror(errno));
	vm->vcpu[vm->nr++] = v;
	return v;
}

struct vcpu *vcpu_new(struct vm *vm, int id)
{
	struct vcpu *v = vcpu_bare(vm, id);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 1, 0);
	u32 i;

	if (e)
		e->ebx = (e->ebx & 0xffffff) | id << 24;
	for (i = 0; i < vm->cpuid->nent; i++)
		if (vm->cpuid->entries[i].function == 0xb)
			vm->cpuid->entries[i].edx = id;
	must(ioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	return v;
}

void vcpu_free(struct vcpu *v)
{
	struct vm *vm = v->vm;
	int i;

	munmap(v->run, vm->run_size);
	close(v->fd);
	for (i = 0; vm->vcpu[i] != v; i++)
		;
	vm->vcpu[i] = vm->vcpu[--vm->nr];
	free(v);
}

void vcpu_get_regs(struct vcpu *v, struct kvm_regs *r)
{
	must(ioctl(v->fd, KVM_GET_REGS, r));
}

void vcpu_set_regs(struct vcpu *v, const struct kvm_regs *r)
{
	must(ioctl(v->fd, KVM_SET_REGS, r));
}

void vcpu_get_sregs(struct vcpu *v, struct kvm_sregs *s)
{
	must(ioctl(v->fd, KVM_GET_SREGS, s));
}

void vcpu_set_sregs(struct vcpu *v, const struct kvm_sregs *s)
{
	must(ioctl(v->fd, KVM_SET_SREGS, s));
}

int vcpu_get_msr(struct vcpu *v, u32 msr, u64 *val)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} m = { .h.nmsrs = 1, .e.index = msr };
	int ret = xioctl(v->fd, KVM_GET_MSRS, &m);

	*val = m.e.data;
	return ret;
}

int vcpu_set_msr(struct vcpu *v, u32 msr, u64 val)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} m = { .h.nmsrs = 1, .e = { .index = msr, .data = val } };

	return xioctl(v->fd, KVM_SET_MSRS, &m);
}

static struct kvm_segment flat_segment(u16 sel, u8 type, bool code)
{
	struct kvm_segment s = {
		.limit = 0xffffffff,
		.selector = sel,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.dpl = sel & 3,
		.db = !code,
		.l = code,
	};

	return s;
}

/* Beside the boot CPU all wait for a start-up IPI, if a LAPIC is to bring it */
static void vcpu_runnable(struct vcpu *v)
{
	struct kvm_mp_state s;

	must(ioctl(v->fd, KVM_GET_MP_STATE, &s));
	if (s.mp_state != KVM_MP_STATE_UNINITIALIZED)
		return;
	s.mp_state = KVM_MP_STATE_RUNNABLE;
	must(ioctl(v->fd, KVM_SET_MP_STATE, &s));
}

/* @v in 64-bit mode, about to call fn(arg) on its own stack */
void vcpu_long(struct vcpu *v, void (*fn)(u64 arg), u64 arg)
{
	struct kvm_regs r = {
		.rip = (u64)fn,
		.rdi = arg,
		.rflags = 2,
		.rsp = STACK_GPA + (v->id + 1) * STACK_SIZE - 8,
	};
	u64 page = CPU_GPA + v->id * 0x1000UL;
	u64 *gdt, *tss;
	struct kvm_sregs s;

	if (v->id >= MAX_VCPUS)
		die("vCPU %d has no stack", v->id);
	vm_image(v->vm);
	gdt = gpa_hva(v->vm, page);
	tss = gpa_hva(v->vm, page + 0x100);
	gdt[1] = 0x00af9b000000ffffULL;
	gdt[2] = 0x00cf93000000ffffULL;
	gdt[3] = 0x00cf9b000000ffffULL;
	gdt[4] = 0x00cff3000000ffffULL;
	gdt[5] = 0x00affb000000ffffULL;
	gdt[6] = 0x0000890000000067ULL | (page + 0x100) << 16;
	gdt[7] = 0;
	*(u64 *)((u8 *)tss + 4) = r.rsp - STACK_SIZE / 2 + 8;	/* RSP0 */
	*(u64 *)((u8 *)tss + 36) = r.rsp - 3 * STACK_SIZE / 4 + 8; /* IST1 */
	*(u16 *)((u8 *)tss + 102) = 0x68;	/* the I/O bitmap, behind the end: no port is allowed */
	*(u32 *)gpa_hva(v->vm, page + 0x200) = v->id;
	*(u64 *)gpa_hva(v->vm, r.rsp) = 0;

	vcpu_get_sregs(v, &s);
	s.cs = flat_segment(SEL_CODE64, 0xb, true);
	s.ds = s.es = s.fs = s.gs = s.ss = flat_segment(SEL_DATA, 3, false);
	s.gs.base = page + 0x200;
	s.tr = (struct kvm_segment) {
		.base = page + 0x100, .limit = 0x67, .selector = SEL_TSS,
		.type = 0xb, .present = 1,
	};
	s.ldt = (struct kvm_segment) { .unusable = 1, .type = 2 };
	s.gdt.base = page;
	s.gdt.limit = 0x3f;
	s.idt.base = IDT_GPA;
	s.idt.limit = 0xfff;
	s.cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |
		X86_CR0_PG;
	s.cr3 = PT_GPA;
	s.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	s.efer = 1 | 1 << 8 | 1 << 10 | 1 << 11;	/* SCE LME LMA NXE */
	vcpu_set_sregs(v, &s);
	vcpu_set_regs(v, &r);
	vcpu_runnable(v);
}

static void vcpu_flat(struct vcpu *v, const void *code, size_t size)
{
	struct kvm_regs r = { .rip = CODE_GPA, .rflags = 2, .rsp = 0x7000 };

	memcpy(gpa_hva(v->vm, CODE_GPA), code, size);
	vcpu_set_regs(v, &r);
	vcpu_runnable(v);
}

void vcpu_real(struct vcpu *v, const void *code, size_t size)
{
	struct kvm_sregs s;

	vcpu_get_sregs(v, &s);
	s.cs.base = s.ds.base = s.es.base = s.ss.base = 0;
	s.cs.selector = s.ds.selector = s.es.selector = s.ss.selector = 0;
	vcpu_set_sregs(v, &s);
	vcpu_flat(v, code, size);
}

void vcpu_prot(struct vcpu *v, const void *code, size_t size)
{
	struct kvm_sregs s;

	vcpu_get_sregs(v, &s);
	s.cs = flat_segment(SEL_CODE32, 0xb, false);
	s.ds = s.es = s.fs = s.gs = s.ss = flat_segment(SEL_DATA, 3, false);
	s.cr0 |= X86_CR0_PE;
	vcpu_set_sregs(v, &s);
	vcpu_flat(v, code, size);
}

static bool intel_does(const char *parameter)
{
	FILE *f = fopen(parameter, "r");
	bool on = f && fgetc(f) == 'Y' && __builtin_cpu_is("intel");

	if (f)
		fclose(f);
	return on;
}

bool lapics_by_cpu(void)
{
	return intel_does("/sys/module/keel/parameters/apicv");
}

bool file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

bool interrupts_posted(void)
{
	return intel_does("/sys/module/keel/parameters/posted");
}

static bool parameter_off(const char *name)
{
	char path[64], c = 0;
	int fd;

	snprintf(path, sizeof(path), "/sys/module/keel/parameters/%s", name);
	fd = open(path, O_RDONLY);
	if (fd >= 0 && read(fd, &c, 1) != 1)
		c = 0;
	close(fd);
	return c == 'N';
}

bool shadow_paging(void)
{
	return parameter_off(guest_is_amd() ? "npt" : "ept");
}

u64 fd_stat(int of, const char *name)
{
	struct kvm_stats_header h;
	int fd = must(ioctl(of, KVM_GET_STATS_FD, NULL));
	u32 i;

	must(pread(fd, &h, sizeof(h), 0));
	for (i = 0; i < h.num_desc; i++) {
		char buf[sizeof(struct kvm_stats_desc) + 256] = {};
		struct kvm_stats_desc *d = (void *)buf;
		size_t size = sizeof(*d) + h.name_size;
		u64 val;

		if (size >= sizeof(buf))
			die("long names in statistics");
		must(pread(fd, d, size, h.desc_offset + i * size));
		if (strcmp((char *)(d + 1), name))
			continue;
		must(pread(fd, &val, sizeof(val), h.data_offset + d->offset));
		close(fd);
		return val;
	}
	close(fd);
	return NO_STAT;
}

u64 vcpu_stat(struct vcpu *v, const char *name)
{
	u64 val = fd_stat(v->fd, name);

	if (val == NO_STAT)
		die("no statistic %s", name);
	return val;
}

const char *exit_name(u32 reason)
{
	static const char *const name[] = {
		[KVM_EXIT_UNKNOWN] = "UNKNOWN",
		[KVM_EXIT_EXCEPTION] = "EXCEPTION",
		[KVM_EXIT_IO] = "IO",
		[KVM_EXIT_HYPERCALL] = "HYPERCALL",
		[KVM_EXIT_DEBUG] = "DEBUG",
		[KVM_EXIT_HLT] = "HLT",
		[KVM_EXIT_MMIO] = "MMIO",
		[KVM_EXIT_IRQ_WINDOW_OPEN] = "IRQ_WINDOW_OPEN",
		[KVM_EXIT_SHUTDOWN] = "SHUTDOWN",
		[KVM_EXIT_FAIL_ENTRY] = "FAIL_ENTRY",
		[KVM_EXIT_INTR] = "INTR",
		[KVM_EXIT_SET_TPR] = "SET_TPR",
		[KVM_EXIT_TPR_ACCESS] = "TPR_ACCESS",
		[KVM_EXIT_NMI] = "NMI",
		[KVM_EXIT_INTERNAL_ERROR] = "INTERNAL_ERROR",
		[KVM_EXIT_SYSTEM_EVENT] = "SYSTEM_EVENT",
		[KVM_EXIT_IOAPIC_EOI] = "IOAPIC_EOI",
		[KVM_EXIT_DIRTY_RING_FULL] = "DIRTY_RING_FULL",
		[KVM_EXIT_X86_RDMSR] = "X86_RDMSR",
		[KVM_EXIT_X86_WRMSR] = "X86_WRMSR",
	};

	if (reason < sizeof(name) / sizeof(name[0]) && name[reason])
		return name[reason];
	return "?";
}

static const char *guest_string(struct vm *vm, const char *gva)
{
	return (u64)gva < vm->size ? gpa_hva(vm, (u64)gva) : "?";
}

static void report_failure(struct vcpu *v, u32 at)
{
	struct guest_failure *f = gpa_hva(v->vm, at);

	vmm_die("vCPU %d, line %d: guest_assert(%s): %#llx, %#llx", v->id,
		f->line, guest_string(v->vm, f->what),
		(unsigned long long)f->a, (unsigned long long)f->b);
}

static void report_trap(struct vcpu *v, u32 at)
{
	struct guest_frame *f = gpa_hva(v->vm, at);
	struct kvm_sregs s;

	vcpu_get_sregs(v, &s);
	vmm_die("vCPU %d: trap %llu, error %#llx at %#llx, cr2 %#llx, rsp %#llx",
		v->id, (unsigned long long)f->vec, (unsigned long long)f->err,
		(unsigned long long)f->rip, (unsigned long long)s.cr2,
		(unsigned long long)f->rsp);
}

static u32 io_value(struct kvm_run *run)
{
	return *(u32 *)((u8 *)run + run->io.data_offset);
}

static bool is_out(struct kvm_run *run, u16 port)
{
	return run->exit_reason == KVM_EXIT_IO && run->io.port == port &&
	       run->io.direction == KVM_EXIT_IO_OUT && run->io.size == 4;
}

u32 vcpu_run(struct vcpu *v)
{
	/* EAGAIN: a vCPU that waited for its start-up IPI has it now */
	while (ioctl(v->fd, KVM_RUN, 0))
		if (errno != EAGAIN)
			die("KVM_RUN of vCPU %d: %s", v->id, strerror(errno));
	if (is_out(v->run, PORT_FAIL))
		report_failure(v, io_value(v->run));
	if (is_out(v->run, PORT_TRAP))
		report_trap(v, io_value(v->run));
	return v->run->exit_reason;
}

static void unexpected(struct vcpu *v, const char *wanted)
	__attribute__((noreturn));
static void unexpected(struct vcpu *v, const char *wanted)
{
	struct kvm_run *run = v->run;
	struct kvm_regs r;

	vcpu_get_regs(v, &r);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		vmm_die("vCPU %d at %#llx: %s expected, got IO %s port %#x size %u count %u",
			v->id, (unsigned long long)r.rip, wanted,
			run->io.direction ? "out" : "in", run->io.port,
			run->io.size, run->io.count);
	case KVM_EXIT_MMIO:
		vmm_die("vCPU %d at %#llx: %s expected, got MMIO %s %#llx len %u",
			v->id, (unsigned long long)r.rip, wanted,
			run->mmio.is_write ? "write" : "read",
			(unsigned long long)run->mmio.phys_addr, run->mmio.len);
	case KVM_EXIT_INTERNAL_ERROR:
		vmm_die("vCPU %d at %#llx: %s expected, got INTERNAL_ERROR %u",
			v->id, (unsigned long long)r.rip, wanted,
			run->internal.suberror);
	default:
		vmm_die("vCPU %d at %#llx: %s expected, got %s (%u)", v->id,
			(unsigned long long)r.rip, wanted,
			exit_name(run->exit_reason), run->exit_reason);
	}
}

u64 vcpu_done(struct vcpu *v)
{
	vcpu_run(v);
	if (!is_out(v->run, PORT_DONE))
		unexpected(v, "guest_done()");
	return io_value(v->run);
}

u32 vcpu_sync(struct vcpu *v)
{
	vcpu_run(v);
	if (!is_out(v->run, PORT_SYNC))
		unexpected(v, "guest_sync()");
	return io_value(v->run);
}

void vcpu_expect(struct vcpu *v, u32 reason)
{
	if (vcpu_run(v) != reason)
		unexpected(v, exit_name(reason));
}

u8 *vcpu_expect_io(struct vcpu *v, int dir, u16 port, int size, u32 count)
{
	struct kvm_run *run = v->run;
	char what[64];

	vcpu_run(v);
	if (run->exit_reason != KVM_EXIT_IO || run->io.direction != dir ||
	    run->io.port != port || run->io.size != size ||
	    run->io.count != count) {
		snprintf(what, sizeof(what), "IO %s port %#x size %d count %u",
			 dir ? "out" : "in", port, size, count);
		unexpected(v, what);
	}
	return (u8 *)run + run->io.data_offset;
}

struct kvm_run *vcpu_expect_mmio(struct vcpu *v, bool write, u64 gpa, int len)
{
	struct kvm_run *run = v->run;
	char what[64];

	vcpu_run(v);
	if (run->exit_reason != KVM_EXIT_MMIO || run->mmio.is_write != write ||
	    run->mmio.phys_addr != gpa || (int)run->mmio.len != len) {
		snprintf(what, sizeof(what), "MMIO %s %#llx len %d",
			 write ? "write" : "read", (unsigned long long)gpa, len);
		unexpected(v, what);
	}
	return run;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;

	v->tid = syscall(SYS_gettid);
	v->result = vcpu_done(v);
	return NULL;
}

void vcpu_start(struct vcpu *v)
{
	if (pthread_create(&v->thread, NULL, vcpu_main, v))
		die("pthread_create");
	while (!v->tid)
		sleep_ms(1);
}

u64 vcpu_join(struct vcpu *v)
{
	pthread_join(v->thread, NULL);
	v->tid = 0;
	return v->result;
}

void vcpu_settle(struct vcpu *v)
{
	v->run->immediate_exit = 1;
	if (!ioctl(v->fd, KVM_RUN, 0) || errno != EINTR)
		die("an exit is not completed");
	v->run->immediate_exit = 0;
}

void vcpu_take_init(struct vcpu *v)
{
	struct kvm_msi m = { .address_lo = 0xfee00000 | (u32)v->id << 12, .data = 5 << 8 };
	struct kvm_mp_state mp;

	must(ioctl(v->vm->fd, KVM_SIGNAL_MSI, &m));
	must(ioctl(v->fd, KVM_GET_MP_STATE, &mp));	/* what has arrived is part of the answer */
}

void wait_until_halted(struct vcpu *v)
{
	u64 end = now_ns() + scaled(30000000000ULL);

	while (vcpu_stat(v, "halt_exits") == 0) {
		if (now_ns() > end)
			die("it does not halt");
		sleep_ms(1);
	}
}

void stay_on(int tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(sched_setaffinity(tid, sizeof(set), &set));
}
