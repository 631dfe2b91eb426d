/* SPDX-License-Identifier: GPL-2.0-only */
/* A program without a library, for the demo to post: write(1, text, size); exit(3) */
	.globl	_start
_start:
	mov	$1, %eax
	mov	$1, %edi
	lea	text(%rip), %rsi
	mov	$size, %edx
	syscall
	mov	$60, %eax
	mov	$3, %edi
	syscall
text:
	.ascii	"hello from a program\n"
	.set	size, . - text
	.section .note.GNU-stack, "", @progbits
