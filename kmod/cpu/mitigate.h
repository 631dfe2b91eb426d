/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mitigate.h, mitigate_entry.S - what the kernel decided about speculative execution, applied around guests.  The
 * choices are the kernel's own: its feature bits, patched in by alternatives, and its variables.  What later kernels
 * keep for kvm.ko has small code of its own.
 *
 * At an entry: CPU buffers are cleared (VERW), L1D is flushed where the host asks (mitigate.c), the divider gets
 * numbers of no secret.  At an exit, before the first return: the return predictor is refilled or untrained, IBRS
 * written again, branch history cleared.  When another vCPU comes to a CPU: a branch prediction barrier; before a CPU
 * that was in a guest goes back to user mode: the kernel's own.  docs/security.md has it flag by flag.
 *
 * A guest sees MD_CLEAR, IBPB, the immunities that are true, and SPEC_CTRL where the CPU has it (cpuid.c, msr.c).  Until
 * it first sets a bit there it runs with the host's value, which protects no less (where the kernel has IBRS on by hand, for
 * itself and not for user mode, with zero: it is what makes such a CPU slow).  From then on the register is its own,
 * without exits, and each entry and exit exchanges the two values.  CPUs with a SPEC_CTRL for guests in the VMCB
 * do that by themselves.
 */
#ifndef KEEL_MITIGATE_H
#define KEEL_MITIGATE_H

/* vcpu->spec_ctrl_mode, and where the entry code finds it and the value from &vcpu->regs. */
#define KEEL_SPEC_LOAD		1	/* an entry loads the guest's value */
#define KEEL_SPEC_OPEN		2	/* the guest reaches the register itself */
#define KEEL_SPEC_KEEP		4	/* and an exit keeps what it left there */
#define KEEL_SPEC_CTRL		(17 * 8)
#define KEEL_SPEC_MODE		(18 * 8)

#ifndef __ASSEMBLER__
#include <linux/jump_label.h>
#include <linux/percpu.h>
#include <linux/types.h>
#include <asm/cpufeature.h>
#include <asm/nospec-branch.h>

extern const u16 keel_verw_sel;

enum keel_l1d { KEEL_L1D_NEVER, KEEL_L1D_COND, KEEL_L1D_ALWAYS };

int keel_mitigate_setup(void);
void keel_mitigate_exit(void);
/* Virtualization is on, or about to be off, on this CPU, and keel's alone. */
void keel_mitigate_cpu(bool on);
/*
 * Beside kvm.ko, preemption off: vCPU number @serial will run on this CPU; it has, and leaves.  kvm thinks that nobody else
 * trains the predictions that its guest finds when that is entered again, nor the next one of keel's those of kvm's.
 */
void keel_mitigate_arrive(u64 serial);
void keel_mitigate_leave(void);

/*
 * What is flushed before entries on CPUs of which few are left: L1D, and VERW for data of devices where that is all it is
 * needed for.  IRQs off, right before an entry.
 */
DECLARE_STATIC_KEY_FALSE(keel_entry_flushes);
void __keel_entry_flush(void);
static __always_inline void keel_entry_flush(void)
{
	if (static_branch_unlikely(&keel_entry_flushes))
		__keel_entry_flush();
}

/*
 * The host has run, or is about to run, more on this CPU than what an exit always runs: anybody's data may be in L1D.
 * Page faults and the emulator say so, which walk page tables of the host's, and every new stay in the fast loop.
 * Interrupts are known to the kernel.
 */
DECLARE_PER_CPU(bool, keel_l1d_filled);
static __always_inline void keel_l1d_note(void)
{
	if (static_branch_unlikely(&keel_entry_flushes))
		this_cpu_write(keel_l1d_filled, true);
}

/* Preemption off, on the CPU that was in a guest: user mode there is not to be steered by what the guest trained. */
static __always_inline void keel_guest_has_run(void)
{
#ifdef X86_FEATURE_IBPB_EXIT_TO_USER
	if (cpu_feature_enabled(X86_FEATURE_IBPB_EXIT_TO_USER))
		this_cpu_write(x86_ibpb_exit_to_user, true);
#endif
}

asmlinkage void keel_ibpb(void);
/* Preemption off: vCPU number @serial (unique in the module's life) comes to this CPU. */
DECLARE_PER_CPU(u64, keel_last_serial);
void __keel_predict_barrier(u64 serial);
static __always_inline void keel_predict_barrier(u64 serial)
{
	if (unlikely(__this_cpu_read(keel_last_serial) != serial))
		__keel_predict_barrier(serial);
}

#endif /* __ASSEMBLER__ */
#endif
