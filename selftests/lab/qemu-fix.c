// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into the QEMU 7.2 that is L1, for six errors of its TCG that end, or hold up,
 * L1 or a guest, whichever module runs it, and for one without which nobody
 * sees a machine check of a guest's.
 *
 * CMPXCHG8B and CMPXCHG16B take the flags in the form that was current when the
 * translated block began. Where that was "as they are in EFLAGS" and a compare
 * has come since, its operand is taken for flags, with DF, NT and all reserved
 * bits, until the next instruction sets flags. An interrupt or exit just then
 * saves them so and brings them back, and the kernel, whose allocator uses these
 * instructions, clears memory downwards. Of flags computed only the six that are
 * computed are let through; that five of them may be wrong harms nobody.
 *
 * VMRUN with an interrupt to inject delivers it and leaves its vector where
 * exceptions wait. When something wants the CPU's thread to leave its loop just
 * then, it is delivered again, before the first instruction of the handler.
 *
 * A #VMEXIT loads the host's CR0 while CR4 is the guest's. With EFER.LME, and a
 * guest without CR4.PAE, no long mode is entered, and the host goes on without.
 *
 * A block is translated from bytes that another CPU may be changing, and only
 * then is their page watched for changes. A block with what was there in between,
 * the breakpoint of a kernel that patches itself, is then executed for ever. So
 * the bytes are looked at again once the page is watched. A store whose thread
 * found the page not watched and lost its host CPU before making it comes later
 * still: where a block of a kernel's has a breakpoint, all other threads leave their
 * blocks once before its bytes are looked at (lab/patching is L1 doing that all the time).
 *
 * FLDENV and its like, on any CPU, clear a flag of CPU 0's without a lock (IGNNE,
 * which nobody sets), in the word that says whether it is in a guest and how:
 * what CPU 0 just wrote there is lost. They leave it alone.
 *
 * VMRUN with an interrupt to inject as soon as the guest can take it says so without a lock
 * in the word in which other threads say that they interrupt the CPU: what one just wrote there
 * is lost, a one-shot timer or an IPI until the next one comes. The others have no lock either
 * and may take back what VMRUN wrote; its next exit is for what they wrote, and it writes again.
 *
 * A machine check (monitor: mce) goes to the guest that runs, whether it is
 * intercepted or not.
 *
 * On request (cpu-bits.h) its CPUs get CPUID bits and MSRs of our choice.
 *
 * A QEMU that has no such call is left alone, and says so.
 */
#define _GNU_SOURCE
#include "cpu-bits.h"

#define ARITHMETIC	0x8d5	/* CF, PF, AF, ZF, SF, OF */
#define CR4_PAE		0x20

static uint32_t (*compute)(uint64_t dst, uint64_t src1, uint64_t src2, int op);

static uint32_t compute_flags(uint64_t dst, uint64_t src1, uint64_t src2, int op)
{
	return compute(dst, src1, src2, op) & ARITHMETIC;
}

/* Where what is called has no name: the first call in @from */
static unsigned char *callee(unsigned char *from)
{
	int32_t rel;
	int i;

	for (i = 0; from && i < 64; i++) {
		if (from[i] != 0xe8 || from[i + 5] != 0xc3)	/* call; ret */
			continue;
		memcpy(&rel, from + i + 1, 4);
		return from + i + 5 + rel;
	}
	return NULL;
}

static void (*deliver)(void *cpu, int vector, int soft, int error, uint64_t next, int hard);
static uint32_t exception_at;	/* in a CPU's state: the exception that waits, or -1 */

static void deliver_once(void *cpu, int vector, int soft, int error, uint64_t next, int hard)
{
	deliver(cpu, vector, soft, error, next, hard);
	*(int32_t *)((char *)cpu + exception_at) = -1;
}

static void (*update_cr0)(void *env, uint32_t val), (*update_cr4)(void *env, uint32_t val);

static void update_cr0_with_pae(void *env, uint32_t val)
{
	update_cr4(env, CR4_PAE);	/* the host's comes next */
	update_cr0(env, val);
}

static void *(*translate)(void *cpu, uint64_t pc, uint64_t cs_base, uint32_t flags, int cflags);
static uint64_t (*code_page)(void *env, uint64_t addr, void **host);
static void (*forget_block)(void *block, uint64_t page);

/* From where a block begins to the end of its page, as it was before that was translated */
static __thread struct {
	const unsigned char *at;
	size_t n;
	unsigned char was[4096];
} seen;

static uint64_t code_page_seen(void *env, uint64_t addr, void **host)
{
	uint64_t page = code_page(env, addr, host);

	seen.at = *host;
	seen.n = 4096 - (addr & 4095);
	if (seen.at)
		memcpy(seen.was, seen.at, seen.n);
	return page;
}

static void (*leave_blocks)(void *cpu), (*enter_blocks)(void *cpu), (*others_leave)(void), (*others_go_on)(void);
static void (*look_again)(void *cpu);

#define COUNT	0x1ff	/* of cflags: so many instructions, for once, which would be forgotten */
#define INT3	0xcc
#define CPL	3

/* @block begins with what it was translated for (with or without pc), cflags, a word of tracers, and the size of its code */
static bool has_breakpoint(const char *block, uint64_t cs_base, uint32_t flags)
{
	uint16_t size;

	if (memcmp(block, &cs_base, 8) || memcmp(block + 8, &flags, 4)) {
		block += 8;
		if (memcmp(block, &cs_base, 8) || memcmp(block + 8, &flags, 4))
			return false;
	}
	memcpy(&size, block + 20, 2);
	return memchr(seen.was, INT3, size < seen.n ? size : seen.n);
}

static void *translate_unchanged(void *cpu, uint64_t pc, uint64_t cs_base, uint32_t flags, int cflags)
{
	static __thread uint64_t settled;	/* the block at this address waited for the others' stores */
	void *block;
	int i;

	for (i = 0; i < 100; i++) {
		block = translate(cpu, pc, cs_base, flags, cflags);
		if (!seen.at)
			break;
		if (!memcmp(seen.was, seen.at, seen.n)) {
			if (settled == pc || (flags & CPL) || (cflags & COUNT) || !has_breakpoint(block, cs_base, flags))
				break;
			forget_block(block, -1);
			leave_blocks(cpu);
			others_leave();
			others_go_on();
			enter_blocks(cpu);
			settled = pc;
			/* All blocks may have been thrown away meanwhile, the one that led here, too. */
			look_again(cpu);
		}
		forget_block(block, -1);
	}
	settled = 0;
	return block;
}

#define EXIT_MC		0x52

static void (*check_intercept)(void *env, uint32_t exit, uint64_t param, uintptr_t from);
static void (*hard_irq)(void *env, int vector, int hard);

static void machine_check(void *env, int vector, int hard)
{
	check_intercept(env, EXIT_MC, 0, 0);	/* no return if it is */
	hard_irq(env, vector, hard);
}

/* In VMRUN: orl $CPU_INTERRUPT_VIRQ, interrupt_request(REG) */
static void lock_virq(unsigned char *vmrun)
{
	unsigned char *p, *start;
	int32_t rel;

	for (p = vmrun; vmrun && p < vmrun + 2 * LONG; p++)
		if (p[0] == 0x81 && (p[1] & 0xf8) == 0x88 && (p[1] & 7) != 4 && (p[-1] & 0xf0) != 0x40 && !memcmp(p + 6, "\0\1\0\0", 4))
			break;
	if (!vmrun || p == vmrun + 2 * LONG || (!code && !(code = page_near(p)))) {
		fprintf(stderr, "not the emulator that was expected: VMRUN may lose interrupts\n");
		return;
	}
	start = code;
	emit("\xf0", 1);
	emit(p, 10);
	emit("\xe9", 1);
	rel = p + 10 - (code + 4);
	emit(&rel, 4);
	rel = start - (p + 5);
	overwrite(p + 1, &rel, 4);
	overwrite(p, "\xe9", 1);
}

/* movl $-1, exception(%rdi) */
static bool find_exception(const unsigned char *none)
{
	int i;

	for (i = 0; none && i < 32; i++)
		if (!memcmp(none + i, "\xc7\x87", 2) && !memcmp(none + i + 6, "\xff\xff\xff\xff", 4)) {
			memcpy(&exception_at, none + i + 2, 4);
			return true;
		}
	return false;
}

/* ---- cpu-bits.h. Of a CPU's state what comes first is used: sixteen registers, five words more, two halves, flags */

enum { RAX, RCX, RDX };
#define HFLAGS(env)	(((uint32_t *)(env))[44])
#define GUEST		(1 << 21)

static void (*check_intercept)(void *env, uint32_t type, uint64_t param, uintptr_t from);

/* The first thing that RDMSR does is to see whether a guest may; what is ours is done then, and the rest left out. */
__attribute__((used)) static bool rdmsr_done(uint64_t *env, uint32_t type, uint64_t param, uintptr_t from)
{
	uint64_t val;

	check_intercept(env, type, param, from);
	if (!bits_rdmsr(env, env[RCX], &val))
		return false;
	env[RAX] = (uint32_t)val;
	env[RDX] = val >> 32;
	return true;
}

void rdmsr_check(void);
asm("rdmsr_check:\n"
    "	sub	$8, %rsp\n"
    "	call	rdmsr_done\n"
    "	add	$8, %rsp\n"
    "	test	%al, %al\n"
    "	jnz	1f\n"
    "	ret\n"
    "1:	add	$8, %rsp\n"
    "	pop	%rbx\n"
    "	ret\n");

static void wrmsr_check(uint64_t *env, uint32_t type, uint64_t param, uintptr_t from)
{
	check_intercept(env, type, param, from);
	bits_wrmsr(env, env[RCX], (uint32_t)env[RAX] | env[RDX] << 32, !(HFLAGS(env) & GUEST));
}

static void (*real_cpuid)(void *env, uint32_t leaf, uint32_t sub, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d);

static void cpuid_with_bits(void *env, uint32_t leaf, uint32_t sub, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
	real_cpuid(env, leaf, sub, a, b, c, d);
	bits_cpuid(leaf, sub, a, b, c, d);
}

static void count_verw(void *env)
{
	if (!(HFLAGS(env) & GUEST))
		bits_count(env, VERW);
}

static void count_fild(void *env)
{
	if (!(HFLAGS(env) & GUEST))
		bits_count(env, FILD);
}

/* Helpers of the translator have no symbols, but a table of functions and names. */
struct helper {
	const char *name;
	unsigned char *fn;
};

static void look_for_helper(void **p, void *arg)
{
	struct helper *h = arg;
	uintptr_t fn = (uintptr_t)p[0], name = (uintptr_t)p[1];
	uintptr_t low = (uintptr_t)check_intercept - (64 << 20), high = low + (128 << 20);

	/* Is it a pointer into the program? */
	if (h->fn || fn < low || fn > high || name < low || name > high)
		return;
	if (msync((void *)(name & ~4095UL), 4096, MS_ASYNC) || msync((void *)(fn & ~4095UL), 4096, MS_ASYNC))
		return;
	if (!strcmp((char *)name, h->name))
		h->fn = (unsigned char *)fn;
}

static unsigned char *find_helper(const char *name)
{
	struct helper h = { name };

	each_pointer(look_for_helper, &h);
	return h.fn;
}

/* In a function that begins by saving four registers: @count comes first, with its first argument. */
static void before(unsigned char *fn, void (*count)(void *env))
{
	static const unsigned char start[] = "\x41\x56\x41\x55\x41\x54\x55";	/* push %r14, %r13, %r12, %rbp */
	unsigned char *page, *from;
	void *next = fn ? fn + 7 : NULL;
	int32_t rel;

	if (!fn || memcmp(fn, start, 7) || (!code && !(code = page_near(fn)))) {
		fprintf(stderr, "not the emulator that was expected: something is not counted\n");
		return;
	}
	from = code;
	emit("\x57\x56\x48\x83\xec\x08\x48\xb8", 8);		/* push %rdi, %rsi; sub $8, %rsp; movabs */
	emit(&count, 8);
	emit("\xff\xd0\x48\x83\xc4\x08\x5e\x5f", 8);		/* call *%rax; and back */
	emit(start, 7);
	emit("\x48\xb8", 2);
	emit(&next, 8);
	emit("\xff\xe0", 2);
	rel = from - (fn + 5);
	page = (unsigned char *)((uintptr_t)fn & ~4095UL);
	mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
	*fn = 0xe9;
	memcpy(fn + 1, &rel, 4);
	mprotect(page, 8192, PROT_READ | PROT_EXEC);
}

static void add_bits(void)
{
	unsigned char *rdmsr, *wrmsr;

	check_intercept = dlsym(RTLD_DEFAULT, "cpu_svm_check_intercept_param");
	real_cpuid = dlsym(RTLD_DEFAULT, "cpu_x86_cpuid");
	rdmsr = find_helper("rdmsr");
	wrmsr = find_helper("wrmsr");
	if (!rdmsr || !wrmsr || *rdmsr != 0x53) {	/* push %rbx, which is all that is to be undone */
		fprintf(stderr, "not the emulator that was expected: no bits for its CPUs\n");
		exit(1);
	}
	redirect(rdmsr, (void *)check_intercept, "", 0, rdmsr_check);
	redirect(wrmsr, (void *)check_intercept, "", 0, wrmsr_check);
	redirect(find_helper("cpuid"), (void *)real_cpuid, "", 0, cpuid_with_bits);
	before(find_helper("verw"), count_verw);
	before(find_helper("fildl_ST0"), count_fild);
}

__attribute__((constructor)) static void fix(void)
{
	unsigned char *flags = dlsym(RTLD_DEFAULT, "cpu_cc_compute_all"), *clear_ignne;

	/* What starts it, or something it starts */
	if (!flags)
		return;
	compute = (void *)callee(flags);
	redirect(flags, (void *)compute, "", 0, compute_flags);

	deliver = dlsym(RTLD_DEFAULT, "do_interrupt_all");
	if (find_exception(dlsym(RTLD_DEFAULT, "cpu_loop_exit_noexc")))
		redirect(dlsym(RTLD_DEFAULT, "do_interrupt_x86_hardirq"), (void *)deliver, "", 0, deliver_once);
	else
		fprintf(stderr, "not the emulator that was expected: injected interrupts are left as they are\n");

	/* The first call there; the others' vectors are not machine checks'. */
	check_intercept = dlsym(RTLD_DEFAULT, "cpu_svm_check_intercept_param");
	hard_irq = dlsym(RTLD_DEFAULT, "do_interrupt_x86_hardirq");
	if (check_intercept)
		redirect_if(dlsym(RTLD_DEFAULT, "x86_cpu_exec_interrupt"), (void *)hard_irq, "\xbe\x12\0\0\0", 5,
			    machine_check);

	translate = dlsym(RTLD_DEFAULT, "tb_gen_code");
	code_page = dlsym(RTLD_DEFAULT, "get_page_addr_code_hostp");
	forget_block = dlsym(RTLD_DEFAULT, "tb_phys_invalidate");
	leave_blocks = dlsym(RTLD_DEFAULT, "cpu_exec_end");
	enter_blocks = dlsym(RTLD_DEFAULT, "cpu_exec_start");
	others_leave = dlsym(RTLD_DEFAULT, "start_exclusive");
	others_go_on = dlsym(RTLD_DEFAULT, "end_exclusive");
	look_again = dlsym(RTLD_DEFAULT, "cpu_loop_exit");
	if (forget_block && leave_blocks && enter_blocks && others_leave && others_go_on && look_again &&
	    redirect((void *)translate, (void *)code_page, "", 0, code_page_seen))
		redirect(dlsym(RTLD_DEFAULT, "cpu_exec"), (void *)translate, "", 0, translate_unchanged);

	clear_ignne = dlsym(RTLD_DEFAULT, "cpu_clear_ignne");
	if (clear_ignne)
		overwrite(clear_ignne, "\xc3", 1);	/* ret */

	update_cr0 = dlsym(RTLD_DEFAULT, "cpu_x86_update_cr0");
	update_cr4 = dlsym(RTLD_DEFAULT, "cpu_x86_update_cr4");
	redirect(dlsym(RTLD_DEFAULT, "do_vmexit"), (void *)update_cr0, "", 0, update_cr0_with_pae);

	lock_virq(find_helper("vmrun"));

	if (bits_read())
		add_bits();
}
