/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mitigate_entry.S - macros for the backends' enter.S, which include it; see mitigate.h.
 */
#include <linux/version.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/percpu.h>
#include "mitigate.h"

#ifndef X86_FEATURE_CLEAR_CPU_BUF
#define X86_FEATURE_CLEAR_CPU_BUF	X86_FEATURE_ALWAYS
#endif
#ifndef X86_FEATURE_CLEAR_CPU_BUF_VM
#define X86_FEATURE_CLEAR_CPU_BUF_VM	X86_FEATURE_CLEAR_CPU_BUF
#endif

/* Behind the last access to the host's own data.  Leaves CF alone. */
.macro KEEL_CLEAR_CPU_BUFFERS
	ALTERNATIVE_2 "jmp .Lno_verw\@", "", X86_FEATURE_CLEAR_CPU_BUF, "", X86_FEATURE_CLEAR_CPU_BUF_VM
	verw	keel_verw_sel(%rip)
.Lno_verw\@:
.endm

/* The guest's SPEC_CTRL for the host's.  @regs: register with &vcpu->regs.  Uses RAX, RCX, RDX; GS is the host's. */
.macro KEEL_SPEC_CTRL_IN regs
	testb	$KEEL_SPEC_LOAD, KEEL_SPEC_MODE(\regs)
	jz	.Lspec_in\@
	mov	KEEL_SPEC_CTRL(\regs), %rax
	cmp	%rax, PER_CPU_VAR(x86_spec_ctrl_current)
	je	.Lspec_in\@
	mov	$MSR_IA32_SPEC_CTRL, %ecx
	xor	%edx, %edx
.Lspec_wrmsr\@:
	wrmsr
.Lspec_in\@:
	/* CPUs may be of two kinds, and this one not take a bit that the guest has set on another: then it has the host's. */
	_ASM_EXTABLE(.Lspec_wrmsr\@, .Lspec_in\@)
.endm

/*
 * The host's for the guest's, which is kept; and where the kernel runs with IBRS set by hand, an exit must write it
 * again in any case.  The host does not run ahead of that by speculation.  As above.
 */
.macro KEEL_SPEC_CTRL_OUT regs
	ALTERNATIVE "jmp .Lspec_out\@", "", X86_FEATURE_MSR_SPEC_CTRL
	testb	$KEEL_SPEC_KEEP, KEEL_SPEC_MODE(\regs)
	jz	.Lspec_ibrs\@
	mov	$MSR_IA32_SPEC_CTRL, %ecx
	rdmsr
	mov	%eax, KEEL_SPEC_CTRL(\regs)
	cmp	%eax, PER_CPU_VAR(x86_spec_ctrl_current)
	jne	.Lspec_write\@
.Lspec_ibrs\@:
	ALTERNATIVE "jmp .Lspec_fence\@", "", X86_FEATURE_KERNEL_IBRS
.Lspec_write\@:
	mov	$MSR_IA32_SPEC_CTRL, %ecx
	mov	PER_CPU_VAR(x86_spec_ctrl_current), %eax
	xor	%edx, %edx
	wrmsr
.Lspec_fence\@:
	lfence
.Lspec_out\@:
.endm

/* Returns are predicted from what the guest trained.  Uses RAX, RCX, RDX. */
.macro KEEL_UNTRAIN_RETURNS
	CALL_UNTRAIN_RET
	ALTERNATIVE_2 "", "call keel_ibpb", X86_FEATURE_ENTRY_IBPB, "call keel_ibpb", X86_FEATURE_IBPB_ON_VMEXIT
.endm

/* Zen 1 shows the last quotient to whoever divides by zero.  Uses RAX, RCX, RDX. */
.macro KEEL_CLEAR_DIVIDER
	ALTERNATIVE "", __stringify(xor %eax, %eax; xor %edx, %edx; mov $1, %ecx; div %ecx), X86_BUG_DIV0
.endm

/* VMX only.  What later kernels do is kvm.ko's alone; ours is in mitigate_barrier.S.  Uses RCX. */
.macro KEEL_CLEAR_BRANCH_HISTORY
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	CLEAR_BRANCH_HISTORY_VMEXIT
#else
	ALTERNATIVE "", "call keel_clear_history", X86_FEATURE_CLEAR_BHB_VMEXIT
#endif
.endm
