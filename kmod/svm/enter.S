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
#define RCX	(1 * 8)
#define RDX	(2 * 8)
#define RBX	(3 * 8)
#define RBP	(5 * 8)
#define RSI	(6 * 8)
#define RDI	(7 * 8)
#define R8	(8 * 8)
#define R9	(9 * 8)
#define R10	(10 * 8)
#define R11	(11 * 8)
#define R12	(12 * 8)
#define R13	(13 * 8)
#define R14	(14 * 8)
#define R15	(15 * 8)

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
	mov	RCX(%rdi), %rcx
	mov	RDX(%rdi), %rdx
	mov	RBX(%rdi), %rbx
	mov	RBP(%rdi), %rbp
	mov	RSI(%rdi), %rsi
	mov	R8(%rdi), %r8
	mov	R9(%rdi), %r9
	mov	R10(%rdi), %r10
	mov	R11(%rdi), %r11
	mov	R12(%rdi), %r12
	mov	R13(%rdi), %r13
	mov	R14(%rdi), %r14
	mov	R15(%rdi), %r15
	mov	RDI(%rdi), %rdi

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
	mov	%rcx, RCX(%rax)
	mov	%rdx, RDX(%rax)
	mov	%rbx, RBX(%rax)
	mov	%rbp, RBP(%rax)
	mov	%rsi, RSI(%rax)
	mov	%rdi, RDI(%rax)
	mov	%r8, R8(%rax)
	mov	%r9, R9(%rax)
	mov	%r10, R10(%rax)
	mov	%r11, R11(%rax)
	mov	%r12, R12(%rax)
	mov	%r13, R13(%rax)
	mov	%r14, R14(%rax)
	mov	%r15, R15(%rax)
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
