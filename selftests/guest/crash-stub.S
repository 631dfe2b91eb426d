/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crash-test has Bochs start after the crash, for which a whole kernel would take minutes: an image with the header that kexec
 * looks for (Documentation/arch/x86/boot.rst), and in 64-bit mode a few instructions, which say that they run, on the second
 * serial port, and turn the machine off. The dead kernel has written CR4 before that, which VMX would not have let it.
 */
	.code64
	.globl	_start
_start:
	.org	0x1f1
	.byte	1			/* sectors of the real-mode part, beside this one */
	.org	0x1fe
	.word	0xaa55
	.byte	0xeb, 0x6a		/* ...which ends at 0x26c */
	.ascii	"HdrS"
	.word	0x20f			/* version */
	.org	0x211
	.byte	1			/* loaded high */
	.org	0x22c
	.long	0x7fffffff
	.long	0x200000		/* alignment */
	.byte	1, 21			/* relocatable */
	.word	3			/* a 64-bit entry; above 4G, too */
	.long	0x7ff
	.org	0x258
	.quad	0x1000000
	.long	0x100000
	.org	0x400 + 0x200		/* the 64-bit entry */
	lea	said(%rip), %rsi
1:	mov	$0x2fd, %edx
2:	in	(%dx), %al
	test	$0x20, %al
	jz	2b
	lodsb
	test	%al, %al
	jz	3f
	mov	$0x2f8, %edx
	out	%al, (%dx)
	jmp	1b
3:	lea	off(%rip), %rsi
	mov	$0x8900, %edx
	mov	$8, %ecx
	rep outsb
4:	hlt
	jmp	4b
said:	.asciz	"ok - crash: what comes next runs\n"
off:	.ascii	"Shutdown"
	.org	0x1000
