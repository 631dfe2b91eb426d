/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * enter.S - into the guest and back. APM 15.5.
 *
 * VMRUN itself switches RIP, RSP, RAX, RFLAGS, CR0, CR3, CR4, EFER, the descriptor tables and
 * CS, DS, ES, SS.  VMLOAD and VMSAVE switch the rest that belongs to a task or a CPU: FS, GS, TR, LDTR
 * with their hidden parts, KernelGsBase and the SYSCALL and SYSENTER MSRs.  Until the second VMLOAD, GS
 * is the guest's: no per-CPU access, no call, no return before it, nor a macro of the kernel's that may have one.
 */
#include <linux/linkage.h>
#include <asm/asm.h>
#include <asm/nospec-branch.h>
#include "cpu/enter_regs.S"
#include "cpu/mitigate_entry.S"

.section .noinstr.text, "ax"

/* void svm_vmrun(u64 *regs, u64 vmcb_pa, u64 host_pa) */
SYM_FUNC_START(svm_vmrun)
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdx			/* host_pa */
	push	%rdi			/* regs */

	KEEL_SPEC_CTRL_IN %rdi
	KEEL_CLEAR_DIVIDER
	mov	%rsi, %rax
	KEEL_LOAD_GUEST_REGS

	KEEL_CLEAR_CPU_BUFFERS
	/* IF must be set for a host interrupt to end the guest; GIF, clear, keeps it from coming before. */
	sti
	vmload	%rax
	vmrun	%rax
	vmsave	%rax
	cli

	pop	%rax			/* regs */
	KEEL_SAVE_GUEST_REGS
	mov	%rax, %rbx

	pop	%rax			/* host_pa */
	vmload	%rax
	/*
	 * Nothing the guest left in the return predictor is to steer the returns below.  Not before VMLOAD: with call
	 * depth tracking built in, the fill writes the depth to per-CPU data.
	 */
	FILL_RETURN_BUFFER %rax, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT
	KEEL_SPEC_CTRL_OUT %rbx
	KEEL_UNTRAIN_RETURNS

	KEEL_CLEAR_GUEST_REGS

	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	RET
SYM_FUNC_END(svm_vmrun)
