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
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>
#include "../mitigate_entry.S"

/* Offsets in regs[], numbered as ModRM does */
#define G_RAX	(0 * 8)
#define G_RCX	(1 * 8)
#define G_RDX	(2 * 8)
#define G_RBX	(3 * 8)
#define G_RBP	(5 * 8)
#define G_RSI	(6 * 8)
#define G_RDI	(7 * 8)
#define G_R8	(8 * 8)
#define G_R9	(9 * 8)
#define G_R10	(10 * 8)
#define G_R11	(11 * 8)
#define G_R12	(12 * 8)
#define G_R13	(13 * 8)
#define G_R14	(14 * 8)
#define G_R15	(15 * 8)

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
	mov	G_RCX(%rdi), %rcx
	mov	G_RDX(%rdi), %rdx
	mov	G_RBX(%rdi), %rbx
	mov	G_RBP(%rdi), %rbp
	mov	G_RSI(%rdi), %rsi
	mov	G_R8(%rdi), %r8
	mov	G_R9(%rdi), %r9
	mov	G_R10(%rdi), %r10
	mov	G_R11(%rdi), %r11
	mov	G_R12(%rdi), %r12
	mov	G_R13(%rdi), %r13
	mov	G_R14(%rdi), %r14
	mov	G_R15(%rdi), %r15
	mov	G_RDI(%rdi), %rdi

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
	mov	%rcx, G_RCX(%rax)
	mov	%rdx, G_RDX(%rax)
	mov	%rbx, G_RBX(%rax)
	mov	%rbp, G_RBP(%rax)
	mov	%rsi, G_RSI(%rax)
	mov	%rdi, G_RDI(%rax)
	mov	%r8, G_R8(%rax)
	mov	%r9, G_R9(%rax)
	mov	%r10, G_R10(%rax)
	mov	%r11, G_R11(%rax)
	mov	%r12, G_R12(%rax)
	mov	%r13, G_R13(%rax)
	mov	%r14, G_R14(%rax)
	mov	%r15, G_R15(%rax)
	pop	%rdi

	/* Nothing the guest left in the return predictor is to steer the returns below. */
	FILL_RETURN_BUFFER %rcx, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE
	xor	%ebx, %ebx
.Lout:
	KEEL_SPEC_CTRL_OUT %rdi
	KEEL_CLEAR_BRANCH_HISTORY
	mov	%ebx, %eax
	/* The guest chose what is in these; the C code below may speculate with them. */
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	xor	%r10d, %r10d
	xor	%r11d, %r11d

	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	RET
SYM_FUNC_END(vmx_vmenter)
