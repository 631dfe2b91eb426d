/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What takes the place of the decompressor in a bzImage whose payload is the
 * kernel as it is in memory: decompressing costs an interpreted CPU forty
 * seconds, one that is translated four, copying costs them none.
 *
 * The loader has put this at 1 MiB (a kernel that says it cannot be relocated
 * goes nowhere else) and enters at the first byte in 32-bit mode without
 * paging, %esi at the boot parameters.  DEST, ENTRY, SIZE, END, RELOCS and LISTS
 * come from the assembler's command line: where the kernel is linked to run,
 * where it wants to be entered, how much of it there is, where what it wants
 * zeroed ends, how many bytes the kernel's table of relocations takes, which is
 * between this and the kernel, and of how many lists it consists.
 *
 * Where the kernel runs is moved, as the decompressor does for KASLR, by what
 * `plain-kernel --move` has written behind the mark: its addresses by the first number,
 * its place in memory by the second, both multiples of 2 MiB.  A third tells the
 * kernel that it was done, by which it places its other regions at random, too;
 * what follows them tells plain-kernel how much room it takes.
 */
	.code32
	.globl	_start
_start:
	jmp	start
	.balign	4
mark:	.ascii	"KASL"
virtual:
	.long	0
physical:
	.long	0
done:	.long	0
	.long	END

start:	cli
	movl	%esi, %ebp
	cmpl	$0, done
	je	1f
	orb	$2, 0x211(%esi)		/* KASLR_FLAG in loadflags */
1:	movl	physical, %edx

	/* Upwards, and it may overlap: the last word first. */
	std
	movl	$(_start + HEAD + SIZE - 4), %esi
	leal	(DEST + SIZE - 4)(%edx), %edi
	movl	$(SIZE / 4), %ecx
	rep movsl
	cld
	leal	(DEST + SIZE)(%edx), %edi
	movl	$((END - DEST - SIZE) / 4), %ecx
	xorl	%eax, %eax
	rep stosl

	/*
	 * The table has the low halves of the addresses to mend, as linked: lists of those with 64 bits, of those from
	 * which the distance is taken (older kernels), and of those with 32 bits, a zero before each.
	 */
	movl	virtual, %ebx
	testl	%ebx, %ebx
	jz	tables
	addl	$0x80000000, %edx		/* less __START_KERNEL_map */
	movl	$(_start + HEAD - RELOCS + 4), %esi
1:	lodsl
	testl	%eax, %eax
	jz	2f
	addl	%ebx, (%eax,%edx)
	adcl	$0, 4(%eax,%edx)
	jmp	1b
2:
	.if	LISTS == 3
	lodsl
	testl	%eax, %eax
	jz	3f
	subl	%ebx, (%eax,%edx)
	jmp	2b
	.endif
3:	cmpl	$(_start + HEAD), %esi
	jae	tables
	lodsl
	addl	%ebx, (%eax,%edx)
	jmp	3b

	/* The first 4 GiB mapped to themselves, in pages of 2 MiB; the tables are where the payload was. */
tables:	movl	$TABLES, %edi
	movl	$(7 * 0x1000 / 4), %ecx
	xorl	%eax, %eax
	rep stosl
	movl	$(TABLES + 0x1003), TABLES
	movl	$(TABLES + 0x2003), TABLES + 0x1000
	movl	$(TABLES + 0x3003), TABLES + 0x1008
	movl	$(TABLES + 0x4003), TABLES + 0x1010
	movl	$(TABLES + 0x5003), TABLES + 0x1018
	movl	$(TABLES + 0x2000), %edi
	movl	$0x83, %eax
1:	movl	%eax, (%edi)
	addl	$8, %edi
	addl	$0x200000, %eax
	jnc	1b

	/* Five levels, which the kernel does not change any more, where the CPU has them. */
	xorl	%eax, %eax
	cpuid
	cmpl	$7, %eax
	movl	$TABLES, %edi
	jb	1f
	movl	$7, %eax
	xorl	%ecx, %ecx
	cpuid
	testl	$(1 << 16), %ecx
	jz	1f
	movl	$(TABLES + 0x6000), %edi
	movl	$(TABLES + 3), (%edi)
	movl	%cr4, %eax
	orl	$(1 << 12), %eax		/* CR4.LA57 */
	movl	%eax, %cr4

	/* Long mode: CR4.PAE, EFER.LME, CR0.PG. */
1:	lgdt	gdt_pointer
	movl	%cr4, %eax
	orl	$0x20, %eax
	movl	%eax, %cr4
	movl	%edi, %cr3
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	physical, %edi
	addl	$ENTRY, %edi
	movl	%cr0, %eax
	orl	$0x80000001, %eax
	movl	%eax, %cr0
	ljmp	$0x10, $1f

	.code64
1:	movl	$0x18, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%ebp, %esi
	movl	%edi, %eax
	jmp	*%rax

	/* The selectors the boot protocol prescribes: code 0x10, data 0x18. */
	.balign	8
gdt:	.quad	0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
