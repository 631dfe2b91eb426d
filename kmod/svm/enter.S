/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * enter.S - into the guest and back. APM 15.5.
 *
 * VMRUN itself switches RIP, RSP, RAX, RFLAGS, CR0, CR3, CR4, EFER, the descriptor tables and
 * CS, DS, ES, SS.  VMLOAD and VMSAVE switch the rest that belongs to a task or a CPU: FS, GS, TR, LDTR
 * with their hidden parts, KernelGsBase and the SYSCALL and SYSENTER MSRs.  Until the second VMLOAD, GS
 * is the guest's: no per-CPU access, no call, before it.
 */
#include <linux/linkage.h>
#include <asm/asm.h>
#include <asm/nospec-branch.h>
#include "../mitigate_entry.S"

/* Offsets in regs[], numbered as ModRM does */
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
	mov	%rsi, %rax
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

	KEEL_CLEAR_CPU_BUFFERS
	/* IF must be set for a host interrupt to end the guest; GIF, clear, keeps it from coming before. */
	sti
	vmload	%rax
	vmrun	%rax
	vmsave	%rax
	cli

	/* Nothing the guest left in the return predictor is to steer the returns below. */
	FILL_RETURN_BUFFER %rax, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT

	pop	%rax			/* regs */
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
	mov	%rax, %rbx

	pop	%rax			/* host_pa */
	vmload	%rax
	KEEL_SPEC_CTRL_OUT %rbx
	KEEL_UNTRAIN_RETURNS

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
SYM_FUNC_END(svm_vmrun)
