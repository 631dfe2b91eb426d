/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * enter.S - into the guest and back. SDM 3C 26 (VM entries), 27.5 (loading host state), 30 (VM instructions).
 *
 * VM entry and exit switch RIP, RSP, RFLAGS, CR0, CR3, CR4, EFER and the segment and descriptor-table registers.
 * CR2 and the other general registers are switched here and in vmx_enter(); what else is the host's and not in
 * the VMCS, in host.c.
 */
#include <linux/linkage.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/ibt.h>
#include <asm/irq_vectors.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>
#include "cpu/enter_regs.S"
#include "cpu/mitigate_entry.S"

#define FIELD_HOST_RSP	0x6c14

.section .noinstr.text, "ax"

/* int vmx_vmenter(u64 *regs, bool launched) */
SYM_FUNC_START(vmx_vmenter)
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdi			/* regs */

	mov	$FIELD_HOST_RSP, %eax
1:	vmwrite	%rsp, %rax

	KEEL_SPEC_CTRL_IN %rdi
	KEEL_CLEAR_CPU_BUFFERS
	/* In CF, which nothing below touches. */
	bt	$0, %esi
	mov	G_RAX(%rdi), %rax
	KEEL_LOAD_GUEST_REGS

	/* The exit comes with the stack as it is here. */
	UNWIND_HINT_SAVE
	jnc	.Llaunch
2:	vmresume
	jmp	.Lrefused
.Llaunch:
3:	vmlaunch
.Lrefused:
	/* Also when VMX is off, see vmx.h. */
	_ASM_EXTABLE(1b, .Lrefused)
	_ASM_EXTABLE(2b, .Lrefused)
	_ASM_EXTABLE(3b, .Lrefused)
	pop	%rdi
	mov	$1, %ebx
	jmp	.Lout

/* HOST_RIP */
SYM_INNER_LABEL(vmx_vmexit, SYM_L_GLOBAL)
	UNWIND_HINT_RESTORE
	ENDBR
	push	%rax
	mov	8(%rsp), %rax		/* regs */
	pop	G_RAX(%rax)
	KEEL_SAVE_GUEST_REGS
	pop	%rdi

	/* Nothing the guest left in the return predictor is to steer the returns below. */
	FILL_RETURN_BUFFER %rcx, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE
	xor	%ebx, %ebx
.Lout:
	KEEL_SPEC_CTRL_OUT %rdi
	KEEL_CLEAR_BRANCH_HISTORY
	mov	%ebx, %eax
	KEEL_CLEAR_GUEST_REGS

	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	RET
SYM_FUNC_END(vmx_vmenter)

/* A call from the middle of a function, which has its own in all registers: RAX and RDX are the arguments, RAX the answer. */
.macro CALL_SAVED name, target, answers
SYM_FUNC_START(\name)
	push	%rdi
	push	%rsi
	push	%rdx
	push	%rcx
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	.if	!\answers
	push	%rax
	.endif
	mov	%rax, %rdi
	mov	%rdx, %rsi
	call	\target
	.if	!\answers
	pop	%rax
	.endif
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rcx
	pop	%rdx
	pop	%rsi
	pop	%rdi
	RET
SYM_FUNC_END(\name)
.endm

.text
CALL_SAVED vmx_guarded_read_saved, vmx_guarded_read, 1
CALL_SAVED vmx_guarded_write_saved, vmx_guarded_write, 0

/*
 * Interrupts that an exit took off the interrupt controller: what the CPU would have done with them had they come with
 * IRQs on, and with these on: what the kernel has put off to the end of an interrupt it does only for who has them on
 * (from 7.1 on that is its timer's next time).  STI's shadow keeps others out until INT; an NMI may end it, and one
 * comes first, which does no harm.  IRQs are on afterwards.
 */
.text
	.balign	16
SYM_CODE_START(vmx_int)
	vector = FIRST_EXTERNAL_VECTOR
	.rept	NR_VECTORS - FIRST_EXTERNAL_VECTOR
	.balign	16
	UNWIND_HINT_FUNC
	ENDBR
	sti
	int	$vector
	RET
	vector = vector + 1
	.endr
SYM_CODE_END(vmx_int)
