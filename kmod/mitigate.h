/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mitigate.h - what the kernel decided about speculative execution, applied around guests.  The choices are the
 * kernel's own: its feature bits, patched in by alternatives, and its variables.  What later kernels keep for kvm.ko
 * has small code of its own here.
 *
 * At an entry: CPU buffers are cleared (VERW), L1D is flushed where the host asks (mitigate.c).  At an exit, before
 * the first return: the return predictor is refilled or untrained, IBRS written again, branch history cleared.  When
 * another vCPU comes to a CPU: a branch prediction barrier.  SPEC_CTRL is not offered to guests: they run with the
 * host's, and see MD_CLEAR, IBPB and the immunities that are true (cpuid.c, msr.c).
 */
#ifndef KEEL_MITIGATE_H
#define KEEL_MITIGATE_H

#include <linux/version.h>
#include <asm/cpufeatures.h>

#ifndef X86_FEATURE_CLEAR_CPU_BUF
#define X86_FEATURE_CLEAR_CPU_BUF	X86_FEATURE_ALWAYS
#endif
#ifndef X86_FEATURE_CLEAR_CPU_BUF_VM
#define X86_FEATURE_CLEAR_CPU_BUF_VM	X86_FEATURE_CLEAR_CPU_BUF
#endif

#ifdef __ASSEMBLY__

#include <asm/alternative.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/percpu.h>

/* Behind the last access to the host's own data.  Leaves CF alone. */
.macro KEEL_CLEAR_CPU_BUFFERS
	ALTERNATIVE_2 "jmp .Lno_verw\@", "", X86_FEATURE_CLEAR_CPU_BUF, "", X86_FEATURE_CLEAR_CPU_BUF_VM
	verw	keel_verw_sel(%rip)
.Lno_verw\@:
.endm

/* Where the kernel runs with IBRS set by hand, an exit must write it again.  Uses RAX, RCX, RDX; GS is the host's. */
.macro KEEL_RESTORE_IBRS
	ALTERNATIVE "jmp .Lno_ibrs\@", "", X86_FEATURE_KERNEL_IBRS
	mov	$MSR_IA32_SPEC_CTRL, %ecx
	mov	PER_CPU_VAR(x86_spec_ctrl_current), %rdx
	mov	%edx, %eax
	shr	$32, %rdx
	wrmsr
.Lno_ibrs\@:
.endm

/* Returns are predicted from what the guest trained.  Uses RAX, RCX, RDX. */
.macro KEEL_UNTRAIN_RETURNS
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0)
	UNTRAIN_RET
#else
	/* The helpers are kvm.ko's: a whole barrier does what the cheaper of them do, and more. */
	ALTERNATIVE_2 "jmp .Lno_untrain\@", "", X86_FEATURE_UNRET, "", X86_FEATURE_ENTRY_IBPB
	mov	$MSR_IA32_PRED_CMD, %ecx
	mov	$1, %eax
	xor	%edx, %edx
	wrmsr
.Lno_untrain\@:
#endif
.endm

/* VMX only, which later kernels do not let keel turn on. */
.macro KEEL_CLEAR_BRANCH_HISTORY
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	CLEAR_BRANCH_HISTORY_VMEXIT
#endif
.endm

#else

#include <linux/types.h>

extern const u16 keel_verw_sel;

enum keel_l1d { KEEL_L1D_NEVER, KEEL_L1D_COND, KEEL_L1D_ALWAYS };
extern u8 keel_l1d_mode;	/* COND: when the host has run something else than this vCPU's loop meanwhile */

int keel_mitigate_setup(void);
void keel_mitigate_exit(void);
void keel_l1d_flush(void);	/* IRQs off, right before an entry */
/* VERW for data of devices, on the CPUs where that is all it is needed for. */
void keel_clear_device_data(void);
extern bool keel_device_data_leaks;
/* Preemption off: vCPU number @serial (unique in the module's life) comes to this CPU. */
void keel_predict_barrier(u64 serial);

#endif
#endif
