// SPDX-License-Identifier: GPL-2.0-only
/*
 * The differ: instructions that end in an exit, each played by itself in 64-bit mode: its exits, registers and memory
 * behind it.  A
 * scenario plays all of a table in one VM; registers and memory start the same for each.
 */
#include "differ.h"

#define MMIO		0xd0000100UL	/* rbx */
#define MMIO_EDGE	0xd0000ffdUL	/* rbp: wide accesses cross a page */
#define MMIO_2		0xd0000200UL	/* rdi */
#define DATA		HEAP_GPA	/* rsi */
#define DATA_EDGE	(HEAP_GPA + 0xffd)	/* r8 */
#define MEM_TO_MMIO	(DATA + 0x200000 - 5)	/* r9: memory, and MMIO behind it: see play_insns() */
#define STUCK		300	/* milliseconds */
#define ZERO		0		/* r15 */

struct insn {
	const char *name;
	const u8 *code, *end;
};

/* Text, bytes and a row for each instruction */
asm(".macro insn table, text\n"
    ".pushsection insn_text,\"a\"\n 7: \\text\n 8: .popsection\n"
    ".pushsection insn_name,\"a\"\n 9: .asciz \"\\text\"\n .popsection\n"
    ".pushsection insn_\\table,\"a\"\n .quad 9b, 7b, 8b\n .popsection\n"
    ".endm\n");

#define TABLE(name)	extern const struct insn __start_insn_##name[], __stop_insn_##name[]
TABLE(pio);
TABLE(mmio);
TABLE(system);

asm("insn pio, \"out %al,$0x10\"\n insn pio, \"out %ax,$0x10\"\n insn pio, \"out %eax,$0x10\"\n"
    "insn pio, \"out %al,(%dx)\"\n insn pio, \"out %ax,(%dx)\"\n insn pio, \"out %eax,(%dx)\"\n"
    "insn pio, \"out %al,$0x7e\"\n insn pio, \"out %ax,$0x7e\"\n insn pio, \"out %al,$0xff\"\n"
    "insn pio, \"in $0x10,%al\"\n insn pio, \"in $0x10,%ax\"\n insn pio, \"in $0x10,%eax\"\n"
    "insn pio, \"in (%dx),%al\"\n insn pio, \"in (%dx),%ax\"\n insn pio, \"in (%dx),%eax\"\n"
    "insn pio, \"in $0x7e,%al\"\n"
    "insn pio, \"outsb\"\n insn pio, \"outsw\"\n insn pio, \"outsl\"\n insn pio, \"insb\"\n insn pio, \"insw\"\n"
    "insn pio, \"insl\"\n"
    "insn pio, \"rep outsb\"\n insn pio, \"rep outsw\"\n insn pio, \"rep outsl\"\n"
    "insn pio, \"rep insb\"\n insn pio, \"rep insw\"\n insn pio, \"rep insl\"\n"
    "insn pio, \"mov %r8,%rsi; rep outsb\"\n insn pio, \"mov %r8,%rsi; rep outsw\"\n"
    "insn pio, \"mov %r8,%rsi; rep outsl\"\n"
    "insn pio, \"mov %rsi,%rdi; rep insb\"\n insn pio, \"mov %r8,%rdi; rep insb\"\n"
    "insn pio, \"mov %r8,%rdi; rep insw\"\n"
    "insn pio, \"mov %r8,%rdi; rep insl\"\n insn pio, \"mov %r8,%rdi; mov $40,%ecx; rep insl\"\n"
    "insn pio, \"mov %rsi,%rdi; mov $1500,%ecx; rep insb\"\n insn pio, \"mov %rsi,%rdi; mov $1500,%ecx; rep insw\"\n"
    "insn pio, \"mov %r8,%rdi; mov $1500,%ecx; rep insl\"\n insn pio, \"mov %r8,%rdi; std; rep insw\"\n"
    "insn pio, \"std; mov %r8,%rdi; mov $700,%ecx; rep insl\"\n"
    "insn pio, \"mov %r8,%rsi; std; rep outsw\"\n insn pio, \"mov $0,%ecx; rep outsb\"\n"
    "insn pio, \"mov $0,%ecx; rep insb\"\n"
    "insn pio, \"mov $17,%ecx; rep outsb\"\n insn pio, \"mov %rbx,%rsi; outsl\"\n insn pio, \"mov %rbx,%rdi; insl\"\n"
    "insn pio, \"mov %rbx,%rsi; rep outsb\"\n insn pio, \"mov %rbx,%rdi; rep insb\"\n"
    "insn pio, \"mov %r8,%rdi; insl\"\n"
    "insn pio, \"addr32 rep outsb\"\n insn pio, \"mov %rsi,%rdi; addr32 rep insb\"\n"
    "insn pio, \"mov %r9,%rdi; rep insl\"\n"
    "insn pio, \"mov %r9,%rsi; rep outsl\"\n insn pio, \"mov $0x20,%dx; out %al,(%dx)\"\n"
    "insn pio, \"mov $0xffff,%dx; out %eax,(%dx)\"\n"
    "insn pio, \"mov $0xfffe,%dx; in (%dx),%eax\"\n insn pio, \"data16 rep outsb\"\n insn pio, \"rex.w outsl\"\n");

asm("insn mmio, \"movb %al,(%rbx)\"\n insn mmio, \"movw %ax,(%rbx)\"\n insn mmio, \"movl %eax,(%rbx)\"\n"
    "insn mmio, \"movq %rax,(%rbx)\"\n"
    "insn mmio, \"movb (%rbx),%al\"\n insn mmio, \"movw (%rbx),%ax\"\n insn mmio, \"movl (%rbx),%eax\"\n"
    "insn mmio, \"movq (%rbx),%rax\"\n"
    "insn mmio, \"movb %ah,(%rbx)\"\n insn mmio, \"movb (%rbx),%ah\"\n insn mmio, \"movb $0x5a,(%rbx)\"\n"
    "insn mmio, \"movw $0x5a5b,(%rbx)\"\n"
    "insn mmio, \"movl $0x5a5b5c5d,(%rbx)\"\n insn mmio, \"movq $-2,(%rbx)\"\n"
    "insn mmio, \"movw %ax,(%rbp)\"\n insn mmio, \"movl %eax,(%rbp)\"\n insn mmio, \"movq %rax,(%rbp)\"\n"
    "insn mmio, \"movw (%rbp),%ax\"\n"
    "insn mmio, \"movl (%rbp),%eax\"\n insn mmio, \"movq (%rbp),%rax\"\n insn mmio, \"movl %eax,2(%rbp)\"\n"
    "insn mmio, \"movq 2(%rbp),%rax\"\n"
    "insn mmio, \"movl 1(%rbx),%eax\"\n insn mmio, \"movq %rax,3(%rbx)\"\n"
    "insn mmio, \"movabs %al,0xd0000100\"\n insn mmio, \"movabs %rax,0xd0000100\"\n"
    "insn mmio, \"movabs 0xd0000100,%eax\"\n"
    "insn mmio, \"movzbl (%rbx),%eax\"\n insn mmio, \"movzwl (%rbx),%eax\"\n insn mmio, \"movsbq (%rbx),%rax\"\n"
    "insn mmio, \"movslq (%rbx),%rax\"\n"
    "insn mmio, \"xchg %al,(%rbx)\"\n insn mmio, \"xchg %eax,(%rbx)\"\n insn mmio, \"xchg %rax,(%rbx)\"\n"
    "insn mmio, \"xchg %rax,(%rbp)\"\n"
    "insn mmio, \"addl %eax,(%rbx)\"\n insn mmio, \"addl $1,(%rbx)\"\n insn mmio, \"addq (%rbx),%rax\"\n"
    "insn mmio, \"lock addl $1,(%rbx)\"\n"
    "insn mmio, \"lock addq $1,(%rbp)\"\n insn mmio, \"orb $1,(%rbx)\"\n insn mmio, \"andw $0xff,(%rbx)\"\n"
    "insn mmio, \"xorl %eax,(%rbx)\"\n"
    "insn mmio, \"subl $1,(%rbp)\"\n insn mmio, \"adcl $1,(%rbx)\"\n insn mmio, \"sbbl $1,(%rbx)\"\n"
    "insn mmio, \"cmpl $1,(%rbx)\"\n insn mmio, \"cmpl %eax,(%rbx)\"\n insn mmio, \"cmpq (%rbx),%rax\"\n"
    "insn mmio, \"testl %eax,(%rbx)\"\n"
    "insn mmio, \"testb $1,(%rbx)\"\n insn mmio, \"incl (%rbx)\"\n insn mmio, \"decq (%rbx)\"\n"
    "insn mmio, \"notl (%rbx)\"\n insn mmio, \"negl (%rbx)\"\n"
    "insn mmio, \"lock incl (%rbx)\"\n insn mmio, \"shll $3,(%rbx)\"\n insn mmio, \"sarl %cl,(%rbx)\"\n"
    "insn mmio, \"roll (%rbx)\"\n"
    "insn mmio, \"shld $3,%eax,(%rbx)\"\n insn mmio, \"btl $3,(%rbx)\"\n insn mmio, \"btsl $3,(%rbx)\"\n"
    "insn mmio, \"lock btsl $3,(%rbx)\"\n"
    "insn mmio, \"btcl %ecx,(%rbx)\"\n insn mmio, \"bsfl (%rbx),%eax\"\n insn mmio, \"bsrq (%rbx),%rax\"\n"
    "insn mmio, \"cmpxchgl %ecx,(%rbx)\"\n insn mmio, \"lock cmpxchgq %rcx,(%rbx)\"\n insn mmio, \"cmpxchg8b (%rbx)\"\n"
    "insn mmio, \"lock cmpxchg8b (%rbx)\"\n insn mmio, \"xaddl %eax,(%rbx)\"\n insn mmio, \"lock xaddl %eax,(%rbx)\"\n"
    "insn mmio, \"imull (%rbx),%eax\"\n insn mmio, \"imull $3,(%rbx),%eax\"\n insn mmio, \"mull (%rbx)\"\n"
    "insn mmio, \"divl (%rbx)\"\n"
    "insn mmio, \"cmovzl (%rbx),%eax\"\n insn mmio, \"cmovnzl (%rbx),%eax\"\n insn mmio, \"setz (%rbx)\"\n"
    "insn mmio, \"movnti %eax,(%rbx)\"\n"
    "insn mmio, \"movbe (%rbx),%eax\"\n insn mmio, \"movbe %rax,(%rbx)\"\n"
    "insn mmio, \"bswap %eax; movl %eax,(%rbx)\"\n"
    "insn mmio, \"pushq (%rbx)\"\n insn mmio, \"popq (%rbx)\"\n insn mmio, \"mov %rbx,%rsp; push %rax\"\n"
    "insn mmio, \"mov %rbx,%rsp; pop %rax\"\n"
    "insn mmio, \"mov %rbx,%rsp; pushfq\"\n insn mmio, \"call *(%rbx)\"\n insn mmio, \"jmp *(%rbx)\"\n"
    "insn mmio, \"mov %rbx,%rsp; call 1f; 1:\"\n"
    "insn mmio, \"mov %rbx,%rsp; ret\"\n insn mmio, \"enter $8,$0\"\n insn mmio, \"leave\"\n"
    "insn mmio, \"movsb\"\n insn mmio, \"movsw\"\n insn mmio, \"movsl\"\n insn mmio, \"movsq\"\n"
    "insn mmio, \"rep movsb\"\n insn mmio, \"rep movsl\"\n"
    "insn mmio, \"rep movsq\"\n insn mmio, \"xchg %rsi,%rdi; movsb\"\n insn mmio, \"xchg %rsi,%rdi; movsq\"\n"
    "insn mmio, \"xchg %rsi,%rdi; rep movsl\"\n"
    "insn mmio, \"mov %rbx,%rsi; movsl\"\n insn mmio, \"mov %rbx,%rsi; rep movsl\"\n"
    "insn mmio, \"mov %rbx,%rsi; mov $40,%ecx; rep movsq\"\n"
    "insn mmio, \"mov %rbp,%rdi; rep movsl\"\n insn mmio, \"mov %rbp,%rdi; std; rep movsl\"\n"
    "insn mmio, \"stosb\"\n insn mmio, \"stosl\"\n insn mmio, \"rep stosb\"\n insn mmio, \"rep stosq\"\n"
    "insn mmio, \"mov $40,%ecx; rep stosl\"\n"
    "insn mmio, \"mov %rbx,%rsi; lodsl\"\n insn mmio, \"mov %rbx,%rsi; rep lodsl\"\n insn mmio, \"scasb\"\n"
    "insn mmio, \"repne scasb\"\n"
    "insn mmio, \"cmpsb\"\n insn mmio, \"repe cmpsb\"\n insn mmio, \"repe cmpsl\"\n insn mmio, \"xlat\"\n"
    "insn mmio, \"movups %xmm0,(%rbx)\"\n insn mmio, \"movups (%rbx),%xmm0\"\n insn mmio, \"movaps %xmm0,(%rbx)\"\n"
    "insn mmio, \"movaps (%rbx),%xmm0\"\n"
    "insn mmio, \"movdqa %xmm1,(%rbx)\"\n insn mmio, \"movdqu (%rbx),%xmm1\"\n insn mmio, \"movdqu %xmm1,(%rbp)\"\n"
    "insn mmio, \"movntdq %xmm0,(%rbx)\"\n"
    "insn mmio, \"movq %xmm0,(%rbx)\"\n insn mmio, \"movq (%rbx),%xmm0\"\n insn mmio, \"movd (%rbx),%mm0\"\n"
    "insn mmio, \"movq %mm0,(%rbx)\"\n"
    "insn mmio, \"movaps %xmm0,(%rbp)\"\n insn mmio, \"movq (%r9),%rax\"\n insn mmio, \"movq %rax,(%r9)\"\n"
    "insn mmio, \"addq %rax,(%r9)\"\n"
    "insn mmio, \"movups %xmm0,(%r9)\"\n insn mmio, \"lock addq $1,(%r9)\"\n insn mmio, \"xchg %rax,(%r9)\"\n"
    "insn mmio, \"prefetcht0 (%rbx)\"\n insn mmio, \"clflush (%rbx)\"\n insn mmio, \"lea (%rbx),%rax\"\n"
    "insn mmio, \"nopl (%rbx)\"\n"
    "insn mmio, \"lgdt (%rbx)\"\n insn mmio, \"sidt (%rbx)\"\n insn mmio, \"smsw (%rbx)\"\n"
    "insn mmio, \"str (%rbx)\"\n insn mmio, \"mov %ds,(%rbx)\"\n"
    "insn mmio, \"mov (%rbx),%ds\"\n insn mmio, \"fnstcw (%rbx)\"\n insn mmio, \"fldcw (%rbx)\"\n"
    "insn mmio, \"fnstsw (%rbx)\"\n"
    "insn mmio, \"ljmpl *(%rbx)\"\n insn mmio, \"jmp *%rbx\"\n insn mmio, \"movl %fs:0xd0000100,%eax\"\n"
    "insn mmio, \"mov %rbx,%rsp; iretq\"\n insn mmio, \"mov %rbx,%rsp; int3\"\n"
    "insn mmio, \"mov $0xd0000100,%eax; mov %rax,%cr3\"\n");

asm("insn system, \"hlt\"\n insn system, \"sti; hlt\"\n insn system, \"cpuid\"\n insn system, \"mov $0,%eax; cpuid\"\n"
    "insn system, \"mov $0x40000000,%eax; cpuid\"\n insn system, \"mov $0x40000001,%eax; mov $0,%ecx; cpuid\"\n"
    "insn system, \"mov $0x80000000,%eax; cpuid\"\n insn system, \"mov $0x80000008,%eax; cpuid\"\n"
    "insn system, \"mov $7,%eax; mov $0,%ecx; cpuid\"\n insn system, \"mov $0xd,%eax; mov $0,%ecx; cpuid\"\n"
    "insn system, \"mov $0xd,%eax; mov $1,%ecx; cpuid\"\n insn system, \"mov $0x5000,%eax; cpuid\"\n"
    "insn system, \"mov $0x80001000,%eax; cpuid\"\n insn system, \"mov $0x40000100,%eax; cpuid\"\n"
    "insn system, \"vmcall\"\n insn system, \"vmmcall\"\n insn system, \"mov $1,%eax; vmcall\"\n"
    "insn system, \"mov $5,%eax; vmcall\"\n"
    "insn system, \"mov $12,%eax; vmcall\"\n insn system, \"mov $12,%eax; vmmcall\"\n"
    "insn system, \"mov $11,%eax; vmcall\"\n"
    "insn system, \"ud2\"\n insn system, \"int3\"\n insn system, \".byte 0xf1\"\n insn system, \"int $0x80\"\n"
    "insn system, \"int $13\"\n insn system, \".byte 0x0f, 0xff\"\n"
    "insn system, \"wbinvd\"\n insn system, \"invd\"\n insn system, \".byte 0xf3; wbinvd\"\n"
    "insn system, \"monitor\"\n insn system, \"mwait\"\n insn system, \"pause\"\n"
    "insn system, \"rdpmc\"\n insn system, \"mov $0x40000000,%ecx; rdpmc\"\n insn system, \"xgetbv\"\n"
    "insn system, \"mov $0,%ecx; xgetbv\"\n"
    "insn system, \"xsetbv\"\n insn system, \"mov $0,%ecx; mov $1,%eax; mov $0,%edx; xsetbv\"\n"
    "insn system, \"mov $1,%ecx; xgetbv\"\n insn system, \"mov $0,%ecx; mov $0x80000000,%edx; xsetbv\"\n"
    "insn system, \"invlpg (%rbx)\"\n insn system, \"mov $0,%eax; invpcid (%rsi),%rax\"\n"
    "insn system, \"mov $2,%eax; invpcid (%rsi),%rax\"\n"
    "insn system, \"clts\"\n insn system, \"smsw %eax\"\n insn system, \"lmsw %ax\"\n insn system, \"sgdt (%rsi)\"\n"
    "insn system, \"sidt (%rsi)\"\n"
    "insn system, \"str %eax\"\n insn system, \"sldt %eax\"\n insn system, \"mov $0,%eax; lldt %ax\"\n"
    "insn system, \"mov $0x30,%eax; ltr %ax\"\n"
    "insn system, \"mov %cr0,%rax\"\n insn system, \"mov %cr2,%rax\"\n insn system, \"mov %cr3,%rax\"\n"
    "insn system, \"mov %cr4,%rax\"\n"
    "insn system, \"mov %cr8,%rax\"\n insn system, \"mov $5,%eax; mov %rax,%cr8\"\n"
    "insn system, \"mov $5,%eax; mov %rax,%cr8; mov $2,%eax; mov %rax,%cr8\"\n"
    "insn system, \"mov $16,%eax; mov %rax,%cr8\"\n insn system, \"mov %rax,%cr0\"\n insn system, \"mov %rax,%cr4\"\n"
    "insn system, \"mov %rax,%cr3\"\n"
    "insn system, \"mov %cr0,%rax; xor $8,%eax; mov %rax,%cr0\"\n"
    "insn system, \"mov %cr0,%rax; or $0x60000000,%eax; mov %rax,%cr0\"\n"
    "insn system, \"mov %cr0,%rax; or $0x20000000,%eax; mov %rax,%cr0\"\n"
    "insn system, \"mov %cr0,%rax; and $0xfffeffff,%eax; mov %rax,%cr0\"\n"
    "insn system, \"mov %cr4,%rax; xor $0x10000,%eax; mov %rax,%cr4\"\n"
    "insn system, \"mov %cr4,%rax; xor $0x40000,%eax; mov %rax,%cr4\"\n"
    "insn system, \"mov %cr4,%rax; or $0x2000,%eax; mov %rax,%cr4\"\n"
    "insn system, \"mov %cr4,%rax; or $0x800,%eax; mov %rax,%cr4\"\n"
    "insn system, \"mov %cr4,%rax; or $0x20000,%eax; mov %rax,%cr4\"\n"
    "insn system, \"mov %cr4,%rax; or $0x100,%eax; mov %rax,%cr4\"\n"
    "insn system, \"mov %dr0,%rax\"\n insn system, \"mov %dr6,%rax\"\n insn system, \"mov %dr7,%rax\"\n"
    "insn system, \"mov %rax,%dr0\"\n"
    "insn system, \"mov %dr4,%rax\"\n insn system, \"mov %rax,%dr7\"\n"
    "insn system, \"mov $0x2000,%eax; mov %rax,%dr7; mov %dr0,%rax\"\n"
    "insn system, \"mov $0xffffffff,%eax; mov %rax,%dr6; mov %dr6,%rax\"\n"
    "insn system, \"mov $0x402,%eax; mov %rax,%dr7; mov %dr7,%rax\"\n"
    "insn system, \"vmxon (%rsi)\"\n insn system, \"vmxoff\"\n insn system, \"vmlaunch\"\n"
    "insn system, \"vmptrld (%rsi)\"\n insn system, \"vmread %rax,%rcx\"\n"
    "insn system, \"vmclear (%rsi)\"\n insn system, \".byte 0x66,0x0f,0x38,0x80,0x06\"\n"
    "insn system, \".byte 0x66,0x0f,0x38,0x81,0x06\"\n"
    "insn system, \"vmrun\"\n insn system, \"vmload\"\n insn system, \"vmsave\"\n insn system, \"stgi\"\n"
    "insn system, \"clgi\"\n insn system, \"skinit\"\n"
    "insn system, \"invlpga\"\n insn system, \"getsec\"\n insn system, \"rsm\"\n"
    "insn system, \".byte 0x0f,0x01,0xcf\"\n insn system, \".byte 0x0f,0x01,0xd4\"\n"
    "insn system, \"rdtscp; mov $0,%eax; mov $0,%edx\"\n"
    "insn system, \"mov $0,%eax; mov $0,%edx; .byte 0xf3,0x0f,0xc7,0xf8; mov $0,%eax\"\n"
    "insn system, \"syscall\"\n insn system, \"sysretl\"\n insn system, \"sysenter\"\n"
    "insn system, \"mov $0,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x1b,%ecx; rdmsr\"\n insn system, \"mov $0x174,%ecx; wrmsr\"\n"
    "insn system, \"mov $0xc0000080,%ecx; rdmsr\"\n"
    "insn system, \"mov $0xc0000080,%ecx; wrmsr\"\n insn system, \"mov $0x12345,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x12345,%ecx; wrmsr\"\n"
    "insn system, \"mov $0x8b,%ecx; rdmsr\"\n insn system, \"mov $0x8b,%ecx; wrmsr\"\n"
    "insn system, \"mov $0x79,%ecx; wrmsr\"\n insn system, \"mov $0xc0010020,%ecx; wrmsr\"\n"
    "insn system, \"mov $0x277,%ecx; rdmsr\"\n insn system, \"mov $0x277,%ecx; wrmsr\"\n"
    "insn system, \"mov $0xfe,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x1d9,%ecx; rdmsr\"\n insn system, \"mov $0x1d9,%ecx; wrmsr\"\n"
    "insn system, \"mov $0x122,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x48,%ecx; rdmsr\"\n insn system, \"mov $0x49,%ecx; mov $1,%eax; mov $0,%edx; wrmsr\"\n"
    "insn system, \"mov $0x3a,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x3a,%ecx; wrmsr\"\n insn system, \"mov $0xce,%ecx; rdmsr\"\n"
    "insn system, \"mov $0xc0010015,%ecx; rdmsr\"\n"
    "insn system, \"mov $0xc0010015,%ecx; wrmsr\"\n insn system, \"mov $0xc001001f,%ecx; rdmsr\"\n"
    "insn system, \"mov $0xc0010114,%ecx; rdmsr\"\n"
    "insn system, \"mov $0xc0010117,%ecx; rdmsr\"\n insn system, \"mov $0xc0011029,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x38f,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x186,%ecx; rdmsr\"\n insn system, \"mov $0xc1,%ecx; rdmsr\"\n"
    "insn system, \"mov $0xc0010000,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x40000000,%ecx; rdmsr\"\n insn system, \"mov $0x4b564d00,%ecx; rdmsr\"\n"
    "insn system, \"mov $0x802,%ecx; rdmsr\"\n"
    "insn system, \"swapgs\"\n insn system, \"wrfsbase %rax\"\n insn system, \"xsaves (%rsi)\"\n"
    "insn system, \"rdrand %eax; mov $0,%eax\"\n"
    "insn system, \"wrpkru\"\n insn system, \"serialize\"\n insn system, \"ptwrite %eax\"\n"
    "insn system, \"umonitor %eax\"\n insn system, \"encls\"\n insn system, \"pconfig\"\n"
    "insn system, \"movq (%r15),%rax; movq %rax,-8(%r15)\"\n insn system, \"jmp *%r14\"\n"
    "insn system, \"mov %r14,(%r14)\"\n insn system, \"mov %r14,%rsp; push %rax\"\n"
    "insn system, \"pushfq; orq $0x100,(%rsp); popfq; nop\"\n"
    "insn system, \"pushfq; orq $0x100,(%rsp); popfq; cpuid; nop\"\n"
    "insn system, \"pushfq; orq $0x100,(%rsp); popfq; out %al,$0x10; nop\"\n"
    "insn system, \"pushfq; orq $0x100,(%rsp); popfq; mov (%rbx),%eax; nop\"\n"
    "insn system, \"pushfq; orq $0x100,(%rsp); popfq; mov %eax,(%rbx); nop\"\n");

struct play {
	const struct insn *first, *last;
	void (*prepare)(struct vcpu *v), (*each)(struct vcpu *v);	/* once; before each of them */
	bool settle;		/* each exit is completed, and looked at again, before the guest goes on */
};

static void fill(u8 *p, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++)
		p[i] = i * 7 + 3;
}

/* What a device would answer: other bytes each time */
static void answer(struct vcpu *v, u32 n)
{
	struct kvm_run *run = v->run;
	u32 i;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		for (i = 0; run->io.direction == KVM_EXIT_IO_IN && i < run->io.size * run->io.count && i < 4096; i++)
			((u8 *)run)[run->io.data_offset + i] = i + n + 0x40;
		break;
	case KVM_EXIT_MMIO:
		for (i = 0; !run->mmio.is_write && i < 8; i++)
			run->mmio.data[i] = i + n + 0x30;
		break;
	case KVM_EXIT_X86_RDMSR:
		run->msr.data = 0x123456789abcdef0ULL + n;
		break;
	case KVM_EXIT_HYPERCALL:
		run->hypercall.ret = 0x77 + n;
		break;
	}
}

static bool goes_on(u32 reason)
{
	return reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO || reason == KVM_EXIT_X86_RDMSR ||
		reason == KVM_EXIT_X86_WRMSR ||
	       reason == KVM_EXIT_HYPERCALL || reason == KVM_EXIT_SET_TPR || reason == KVM_EXIT_DEBUG;
}

static void play_one(struct vcpu *v, const struct insn *in, const struct play *p)
{
	static struct kvm_sregs sregs;
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rflags = 2, .rsp = STACK_GPA + STACK_SIZE - 8,
		.rax = 0x1122334455667788ULL, .rbx = MMIO, .rcx = 3, .rdx = 0x1234, .rsi = DATA, .rdi = MMIO_2,
			.rbp = MMIO_EDGE,
		.r8 = DATA_EDGE, .r9 = MEM_TO_MMIO, .r10 = 10, .r11 = 11, .r12 = 12, .r13 = 13, .r14 = 1ULL << 62,
			.r15 = ZERO,
	};
	u8 *code = gpa_hva(v->vm, CODE_GPA);
	struct kvm_debugregs debug = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };
	struct kvm_vcpu_events ev = { .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW };
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value = 1 };
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };
	u32 n;
	int r;

	if (!sregs.cr0)
		vcpu_get_sregs(v, &sregs);
	memset(code, 0x90, 64);
	code[63] = 0xf4;
	memcpy(code, in->code, in->end - in->code);
	code[in->end - in->code] = 0xf4;	/* hlt */
	fill(gpa_hva(v->vm, DATA), 0x4000);
	fill(gpa_hva(v->vm, DATA + 0x200000 - 0x1000), 0x1000);
	fill(gpa_hva(v->vm, STACK_GPA), STACK_SIZE);
	must(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev));
	vcpu_set_sregs(v, &sregs);
	must(ioctl(v->fd, KVM_SET_DEBUGREGS, &debug));
	ioctl(v->fd, KVM_SET_XCRS, &x);
	fill((u8 *)fpu.fpr, sizeof(fpu.fpr));
	fill((u8 *)fpu.xmm, sizeof(fpu.xmm));
	must(ioctl(v->fd, KVM_SET_FPU, &fpu));
	vcpu_set_msr(v, MSR_SYSCALL_MASK, 0);
	vcpu_set_msr(v, MSR_LSTAR, CODE_GPA + 63);
	vcpu_set_regs(v, &regs);
	if (p->each)
		p->each(v);
	if (in == p->first) {
		at("before", 0);
		put_vcpu(v);
	} else {
		note_vcpu(v);
	}
	for (n = 1; n <= 20; n++) {
		at_step(in->name, 2 * n);
		r = run_for(v, STUCK, 2);
		put("KVM_RUN", 0, r);
		put("run.exit_reason", 0, v->run->exit_reason);
		if (r == -EINTR)
			break;
		put_run(v);
		put_changes(v);
		if (v->run->exit_reason == KVM_EXIT_IO && v->run->io.port == PORT_TRAP) {
			const struct guest_frame *f = gpa_hva(v->vm, *(u32 *)((u8 *)v->run + v->run->io.data_offset));

			put_bytes("frame", f, sizeof(*f));
			break;
		}
		if (!goes_on(v->run->exit_reason))
			break;
		answer(v, n);
		if (p->each && v->run->exit_reason == KVM_EXIT_DEBUG)
			p->each(v);	/* as debuggers do for each step */
		if (!p->settle)
			continue;
		v->run->immediate_exit = 1;
		at_step(in->name, 2 * n + 1);
		put("KVM_RUN", 0, xioctl(v->fd, KVM_RUN, 0));
		put("run.exit_reason", 0, v->run->exit_reason);
		put_run(v);
		put_changes(v);
		v->run->immediate_exit = 0;
		if (p->each && v->run->exit_reason == KVM_EXIT_DEBUG)
			p->each(v);
		if (goes_on(v->run->exit_reason))
			answer(v, n + 1);
	}
	at_step(in->name, 100);
	if (r == -EINTR)
		return;		/* anywhere: there are instructions that kvm begins again for ever */
	put("memory", 0, hash(gpa_hva(v->vm, DATA), 0x4000));
	put("stack", 0, hash(gpa_hva(v->vm, STACK_GPA), STACK_SIZE));
	put("edge", 0, hash(gpa_hva(v->vm, DATA + 0x200000 - 0x1000), 0x1000));
	/* What it has left to be completed is not the next one's */
	v->run->immediate_exit = 1;
	ioctl(v->fd, KVM_RUN, 0);
	v->run->immediate_exit = 0;
}

static void nothing(u64 arg)
{
}

static void play_insns(const struct scenario *s)
{
	const struct play *p = s->what;
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v;
	const struct insn *in;
	u64 *pd = gpa_hva(vm, PT_GPA + 0x2000);

	v = vcpu_new(vm, 0);
	vcpu_long(v, nothing, 0);
	/* Behind the data's two megabytes: MMIO */
	pd[(DATA + 0x200000) >> 21] = 0xd0000000UL | 0x87;
	if (p->prepare)
		p->prepare(v);
	for (in = p->first; in < p->last; in++)
		play_one(v, in, p);
}

static void single_step(struct vcpu *v)
{
	struct kvm_guest_debug d = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };

	must(ioctl(v->fd, KVM_SET_GUEST_DEBUG, &d));
}

static void breakpoints(struct vcpu *v)
{
	struct kvm_guest_debug d = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP,
		.arch.debugreg = { CODE_GPA, DATA, 0, 0, 0, 0, 0, 0x000f0405 },
	};

	must(ioctl(v->fd, KVM_SET_GUEST_DEBUG, &d));
}

static void all_to_user(struct vcpu *v)
{
	static const u64 none[8];
	struct kvm_msr_filter f = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = { .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, .base = 0x174, .nmsrs = 64,
			.bitmap = (u8 *)none },
	};

	vm_enable_cap(v->vm, KVM_CAP_X86_USER_SPACE_MSR, 7);
	vm_enable_cap(v->vm, KVM_CAP_EXIT_HYPERCALL, 1 << 12);
	vm_enable_cap(v->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	put("filter", 0, xioctl(v->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
}

static void no_quirks(struct vcpu *v)
{
	put("quirks", 0, vm_enable_cap(v->vm, KVM_CAP_DISABLE_QUIRKS2, vm_cap(v->vm, KVM_CAP_DISABLE_QUIRKS2)));
}

static void synced(struct vcpu *v)
{
	v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
}

void add_insns(void)
{
#define ALL(t)	__start_insn_##t, __stop_insn_##t
	static const struct play plays[] = {
		{ ALL(pio) }, { ALL(pio), .settle = true }, { ALL(pio), .each = single_step, .settle = true },
		{ ALL(pio), synced }, { ALL(pio), no_quirks },
		{ ALL(mmio) }, { ALL(mmio), .settle = true }, { ALL(mmio), .each = single_step },
		{ ALL(mmio), .each = breakpoints },
		{ ALL(system) }, { ALL(system), .settle = true }, { ALL(system), .each = single_step },
		{ ALL(system), .each = breakpoints },
		{ ALL(system), all_to_user, .settle = true }, { ALL(system), no_quirks },
	};
	static const char *const names[] = {
		"pio", "pio-settled", "pio-stepped", "pio-synced", "pio-without-quirks",
		"mmio", "mmio-settled", "mmio-stepped", "mmio-breakpoints",
		"insns", "insns-settled", "insns-stepped", "insns-breakpoints",
		"insns-to-user", "insns-without-quirks",
	};
	unsigned int i;

	for (i = 0; i < sizeof(plays) / sizeof(plays[0]); i++)
		add_scenario(names[i], play_insns, &plays[i]);
}
