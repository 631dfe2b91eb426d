// SPDX-License-Identifier: GPL-2.0-only
/*
 * selftest.c - keel selftest: does it work on this CPU?  Tiny guests made by the ioctls themselves, a few instructions
 * each, and what each of them must have done.  The selftests in the source tree look far closer; these need no source.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/kvm.h>
#include "tool.h"

#define MEMORY		0x200000UL
#define CODE_AT		0x1000UL
#define DATA_AT		0x8000UL	/* what guests write, for us to read */
#define TABLES_AT	0x10000UL
#define STACK_AT	0x7000UL
#define HOLE_AT		0x300000UL	/* no memory there */
#define PORT		0x5e0

/* Guest code: bits, name, instructions */
#define CODE(bits, name, body)							\
	asm(".pushsection .rodata\n.code" #bits "\n" #name ":\n" body "\n" #name "_end:\n.code64\n.popsection\n");	\
	extern const u8 name[], name##_end[]

/* Real mode: adds, stores, reports, halts */
CODE(16, code_real, "mov $19, %ax; add $23, %ax; mov %ax, 0x8000; mov $0x5e0, %dx; out %ax, %dx; hlt");
/* Flat 32-bit mode: a store where there is no memory, then a load from there */
CODE(32, code_mmio, "movl $0x600df00d, 0x300000; movl 0x300004, %eax; mov $0x5e0, %dx; outl %eax, %dx; hlt");
/* 64-bit mode: who is this CPU? */
CODE(64, code_long, "xor %eax, %eax; xor %ecx, %ecx; cpuid; mov %ebx, 0x8000; mov %edx, 0x8004; mov %ecx, 0x8008;"
		    "mov $0x123456789abcdef, %rax; movq %rax, %xmm0; movq %xmm0, 0x8010; mov $0x5e0, %dx; out %eax, %dx; hlt");
/* 64-bit mode: as many CPUIDs as RBX says */
CODE(64, code_exits, "mov %rbx, %rsi; 1: xor %eax, %eax; xor %ecx, %ecx; cpuid; dec %rsi; jnz 1b; mov $0x5e0, %dx;"
		     "out %eax, %dx; hlt");
/* Real mode: sleep until the interrupt, whose handler (at 0x1100) writes 1 */
CODE(16, code_sleep, "xor %ax, %ax; sti; hlt; mov $0x5e0, %dx; mov 0x8000, %ax; out %ax, %dx; hlt");
CODE(16, code_handler, "movw $0x5a5a, 0x8000; iret");
/* 64-bit mode: one byte into each of RBX pages from RDI on */
CODE(64, code_touch, "1: movb $1, (%rdi); add $0x1000, %rdi; dec %rbx; jnz 1b; mov $0x5e0, %dx; out %eax, %dx; hlt");

static int node = -1, map_size;
static unsigned int passed, failed;
static char why[256];

struct guest {
	int vm, vcpu;
	u8 *mem;
	struct kvm_run *run;
};

/* A test's reason to fail, or NULL */
#define FAIL(...)	(snprintf(why, sizeof(why), __VA_ARGS__), why)

static const char *guest_new(struct guest *g, bool irqchip)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY };
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[256];
	} *cpuid;
	int err;

	g->vcpu = -1;
	g->run = MAP_FAILED;
	g->mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	g->vm = ioctl(node, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		return errno == EBUSY ? "another hypervisor has the hardware (keel status)" : FAIL("KVM_CREATE_VM: %s", strerror(errno));
	if (irqchip && ioctl(g->vm, KVM_CREATE_IRQCHIP, 0))
		return FAIL("KVM_CREATE_IRQCHIP: %s", strerror(errno));
	region.userspace_addr = (uintptr_t)g->mem;
	if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region))
		return FAIL("KVM_SET_USER_MEMORY_REGION: %s", strerror(errno));
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	if (g->vcpu < 0)
		return FAIL("KVM_CREATE_VCPU: %s", strerror(errno));
	cpuid = need(calloc(1, sizeof(*cpuid)));
	cpuid->head.nent = ARRAY_SIZE(cpuid->entry);
	err = ioctl(node, KVM_GET_SUPPORTED_CPUID, cpuid) || ioctl(g->vcpu, KVM_SET_CPUID2, cpuid);
	free(cpuid);
	if (err)
		return FAIL("CPUID: %s", strerror(errno));
	g->run = mmap(NULL, map_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	return g->run == MAP_FAILED ? FAIL("no kvm_run: %s", strerror(errno)) : NULL;
}

static void guest_free(struct guest *g)
{
	if (g->run != MAP_FAILED)
		munmap(g->run, map_size);
	if (g->vcpu >= 0)
		close(g->vcpu);
	if (g->vm >= 0)
		close(g->vm);
	munmap(g->mem, MEMORY);
}

static void flat(struct kvm_segment *s, bool code, bool real, bool wide)
{
	memset(s, 0, sizeof(*s));
	s->limit = real ? 0xffff : 0xffffffff;
	s->type = code ? 11 : 3;
	s->present = s->s = 1;
	s->selector = real ? 0 : code ? 8 : 16;
	s->g = !real;
	s->l = wide && code;
	s->db = !real && !s->l;
}

/* @bits: 16, 32 or 64; 64 with page tables that map the first 4 MiB one to one */
static const char *guest_code(struct guest *g, int bits, const u8 *code, const u8 *end, u64 rbx, u64 rdi)
{
	struct kvm_regs regs = { .rip = CODE_AT, .rsp = STACK_AT, .rflags = 2, .rbx = rbx, .rdi = rdi };
	u64 *table = (u64 *)(g->mem + TABLES_AT);
	struct kvm_sregs s;

	memcpy(g->mem + CODE_AT, code, end - code);
	if (ioctl(g->vcpu, KVM_GET_SREGS, &s))
		return FAIL("KVM_GET_SREGS: %s", strerror(errno));
	flat(&s.cs, true, bits == 16, bits == 64);
	flat(&s.ds, false, bits == 16, bits == 64);
	s.es = s.fs = s.gs = s.ss = s.ds;
	s.cr0 |= bits > 16;
	if (bits == 64) {
		table[0] = (TABLES_AT + 0x1000) | 3;
		table[512] = (TABLES_AT + 0x2000) | 3;
		table[1024] = 0 | 0x83;
		table[1025] = 0x200000 | 0x83;
		s.cr3 = TABLES_AT;
		s.cr4 |= 1 << 5 | 1 << 9;		/* PAE, OSFXSR */
		s.efer |= 1 << 8 | 1 << 10;		/* LME, LMA */
		s.cr0 |= 1u << 31 | 1 << 1;		/* PG, MP */
	}
	if (ioctl(g->vcpu, KVM_SET_SREGS, &s))
		return FAIL("KVM_SET_SREGS: %s", strerror(errno));
	return ioctl(g->vcpu, KVM_SET_REGS, &regs) ? FAIL("KVM_SET_REGS: %s", strerror(errno)) : NULL;
}

static const char *guest_run(struct guest *g, u32 want)
{
	static const char *const names[] = {
		[KVM_EXIT_IO] = "I/O", [KVM_EXIT_MMIO] = "MMIO", [KVM_EXIT_HLT] = "halt", [KVM_EXIT_SHUTDOWN] = "shutdown",
		[KVM_EXIT_FAIL_ENTRY] = "refused entry", [KVM_EXIT_INTERNAL_ERROR] = "internal error",
	};
	u32 got;

	if (ioctl(g->vcpu, KVM_RUN, 0))
		return FAIL("KVM_RUN: %s", errno == EINTR ? "took too long" : strerror(errno));
	got = g->run->exit_reason;
	if (got == want)
		return NULL;
	return FAIL("the guest ended with exit %u%s%s%s, expected was %s", got, got < ARRAY_SIZE(names) && names[got] ? " (" : "",
		    got < ARRAY_SIZE(names) && names[got] ? names[got] : "", got < ARRAY_SIZE(names) && names[got] ? ")" : "",
		    names[want]);
}

/* To the OUT at the end of the guest's code: what it put out */
static const char *guest_result(struct guest *g, u32 *value)
{
	const char *e = guest_run(g, KVM_EXIT_IO);

	if (e)
		return e;
	if (g->run->io.port != PORT || g->run->io.direction != KVM_EXIT_IO_OUT)
		return FAIL("I/O at port %#x", g->run->io.port);
	*value = 0;
	memcpy(value, (u8 *)g->run + g->run->io.data_offset, g->run->io.size);
	return NULL;
}

/* ---------------------------------------------------------------- tests */

static const char *test_abi(struct guest *g)
{
	int version = ioctl(node, KVM_GET_API_VERSION, 0);

	(void)g;
	return version == KVM_API_VERSION ? NULL : FAIL("API version %d", version);
}

static const char *test_real(struct guest *g)
{
	const char *e = guest_code(g, 16, code_real, code_real_end, 0, 0);
	u32 value;

	e = e ?: guest_result(g, &value);
	if (e)
		return e;
	if (value != 42 || *(u16 *)(g->mem + DATA_AT) != 42)
		return FAIL("19 + 23 is %u, and %u in memory", value, *(u16 *)(g->mem + DATA_AT));
	return guest_run(g, KVM_EXIT_HLT);
}

static const char *test_mmio(struct guest *g)
{
	const char *e = guest_code(g, 32, code_mmio, code_mmio_end, 0, 0);
	u32 value;

	e = e ?: guest_run(g, KVM_EXIT_MMIO);
	if (e)
		return e;
	if (!g->run->mmio.is_write || g->run->mmio.phys_addr != HOLE_AT || *(u32 *)g->run->mmio.data != 0x600df00d)
		return FAIL("another access: address %#llx", g->run->mmio.phys_addr);
	e = guest_run(g, KVM_EXIT_MMIO);
	if (e)
		return e;
	if (g->run->mmio.is_write || g->run->mmio.phys_addr != HOLE_AT + 4)
		return FAIL("another access: address %#llx", g->run->mmio.phys_addr);
	*(u32 *)g->run->mmio.data = 0xcafe;
	e = guest_result(g, &value);
	return e ?: value == 0xcafe ? NULL : FAIL("the guest read %#x", value);
}

static const char *test_long(struct guest *g)
{
	const char *e = guest_code(g, 64, code_long, code_long_end, 0, 0);
	unsigned int a, b = 0, c = 0, d = 0;
	u32 value, *said = (u32 *)(g->mem + DATA_AT);

	e = e ?: guest_result(g, &value);
	if (e)
		return e;
	__get_cpuid(0, &a, &b, &c, &d);
	if (said[0] != b || said[1] != d || said[2] != c)
		return FAIL("the guest's CPU says it is another vendor's: \"%.12s\"", (char *)said);
	if (*(u64 *)(said + 4) != 0x123456789abcdef)
		return FAIL("SSE registers do not work");
	return NULL;
}

static const char *test_sleep(struct guest *g)
{
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct kvm_irqchip pic = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	const char *e = guest_code(g, 16, code_sleep, code_sleep_end, 0, 0);
	u32 value;

	if (e)
		return e;
	/* The PIC as firmware sets it up: vectors from 8 on; and real mode's vector 12 is our handler. */
	if (ioctl(g->vm, KVM_GET_IRQCHIP, &pic))
		return FAIL("KVM_GET_IRQCHIP: %s", strerror(errno));
	memset(&pic.chip.pic, 0, sizeof(pic.chip.pic));
	pic.chip.pic.irq_base = 8;
	pic.chip.pic.auto_eoi = 1;
	pic.chip.pic.elcr_mask = 0xf8;
	if (ioctl(g->vm, KVM_SET_IRQCHIP, &pic))
		return FAIL("KVM_SET_IRQCHIP: %s", strerror(errno));
	memcpy(g->mem + 0x1100, code_handler, code_handler_end - code_handler);
	*(u32 *)(g->mem + 12 * 4) = 0x1100;
	if (ioctl(g->vm, KVM_IRQ_LINE, &line))
		return FAIL("KVM_IRQ_LINE: %s", strerror(errno));
	e = guest_result(g, &value);
	return e ?: value == 0x5a5a ? NULL : FAIL("the interrupt's handler did not run");
}

#define TOUCHED		16

static const char *test_dirty(struct guest *g)
{
	struct kvm_userspace_memory_region region = {
		.memory_size = MEMORY, .userspace_addr = (uintptr_t)g->mem, .flags = KVM_MEM_LOG_DIRTY_PAGES,
	};
	u64 bitmap[MEMORY / 4096 / 64] = { 0 }, want = ((1ull << TOUCHED) - 1);
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
	const char *e = guest_code(g, 64, code_touch, code_touch_end, TOUCHED, 0x100000);
	u32 value;

	if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region))
		return FAIL("KVM_SET_USER_MEMORY_REGION: %s", strerror(errno));
	e = e ?: guest_result(g, &value);
	if (e)
		return e;
	if (ioctl(g->vm, KVM_GET_DIRTY_LOG, &log))
		return FAIL("KVM_GET_DIRTY_LOG: %s", strerror(errno));
	return bitmap[0x100000 / 4096 / 64] == want ? NULL :
		FAIL("the log of written pages is %#llx", (unsigned long long)bitmap[0x100000 / 4096 / 64]);
}

#define EXITS	20000

static char speed[64];

static const char *test_exits(struct guest *g)
{
	const char *e = guest_code(g, 64, code_exits, code_exits_end, EXITS, 0);
	u64 began = now_ns();
	u32 value;

	e = e ?: guest_result(g, &value);
	snprintf(speed, sizeof(speed), "%llu ns each", (unsigned long long)(now_ns() - began) / EXITS);
	return e;
}

static const struct {
	const char *what;
	const char *(*run)(struct guest *g);
	bool irqchip;
} tests[] = {
	{ "the node speaks KVM's ABI", test_abi, false },
	{ "a guest in real mode: arithmetic, memory, port I/O, HLT", test_real, false },
	{ "memory-mapped I/O: a store and a load go to userspace", test_mmio, false },
	{ "64-bit mode: paging, CPUID, SSE", test_long, false },
	{ "an interrupt by the in-kernel controller wakes a halted vCPU", test_sleep, true },
	{ "the log of written pages", test_dirty, false },
	{ "20000 exits", test_exits, false },
};

/* ---------------------------------------------------------------- */

static void nothing(int sig)
{
	(void)sig;
}

static void result(bool ok, const char *what, const char *more)
{
	printf("%s  %s%s%s\n", ok ? "ok    " : "FAILED", what, more && more[0] ? ": " : "", more && more[0] ? more : "");
	ok ? passed++ : failed++;
}

static void run_tests(void)
{
	struct sigaction act = { .sa_handler = nothing };
	unsigned int i;

	sigaction(SIGALRM, &act, NULL);
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		struct guest g;
		const char *e = guest_new(&g, tests[i].irqchip);

		alarm(60);		/* a guest that hangs leaves KVM_RUN by it */
		e = e ?: tests[i].run(&g);
		alarm(0);
		guest_free(&g);
		result(!e, tests[i].what, e ?: tests[i].run == test_exits ? speed : NULL);
	}
}

int cmd_selftest(int argc, char **argv)
{
	char *load[] = { "load", NULL };
	const char *refuses;
	bool loaded_it = false;
	struct host h;
	int err;

	(void)argv;
	if (argc > 1)
		return usage_of("selftest");
	host_read(&h);
	refuses = host_refuses(&h);
	if (!module_loaded("keel")) {
		result(!refuses, "this CPU and its firmware", refuses ?: h.model);
		if (refuses)
			return EXIT_NO_HARDWARE;
		err = cmd_load(1, load);
		if (err)
			return err;
		loaded_it = true;
	}
	node = open(NODE, O_RDWR | O_CLOEXEC);
	if (node < 0)
		return node_error(errno);
	result(true, "the module is loaded", NULL);
	map_size = ioctl(node, KVM_GET_VCPU_MMAP_SIZE, 0);
	run_tests();
	close(node);
	printf("%u work, %u do not\n", passed, failed);
	if (loaded_it) {
		load[0] = "unload";
		cmd_unload(1, load);
	}
	return failed ? EXIT_FAILED : EXIT_OK;
}
