// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into the QEMU 7.2 that is L1, for three errors of its TCG that end
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
 * A machine check (monitor: mce) goes to the guest that runs, whether it is
 * intercepted or not.
 *
 * A QEMU that has no such call is left alone, and says so.
 */
#define _GNU_SOURCE
#include "patch.h"

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

#define EXIT_MC		0x52

static void (*check_intercept)(void *env, uint32_t exit, uint64_t param, uintptr_t from);
static void (*hard_irq)(void *env, int vector, int hard);

static void machine_check(void *env, int vector, int hard)
{
	check_intercept(env, EXIT_MC, 0, 0);	/* no return if it is */
	hard_irq(env, vector, hard);
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

__attribute__((constructor)) static void fix(void)
{
	unsigned char *flags = dlsym(RTLD_DEFAULT, "cpu_cc_compute_all");

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

	update_cr0 = dlsym(RTLD_DEFAULT, "cpu_x86_update_cr0");
	update_cr4 = dlsym(RTLD_DEFAULT, "cpu_x86_update_cr4");
	redirect(dlsym(RTLD_DEFAULT, "do_vmexit"), (void *)update_cr0, "", 0, update_cr0_with_pae);
}
