// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPU modes and what paging makes of an address: real mode (and big real mode),
 * 16 and 32-bit protected mode, PAE, long mode with its large pages, rings,
 * protection bits, accessed and dirty bits, TLB flushes.
 */
#include "test.h"

FIXTURE(modes) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(modes)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(modes)
{
	vm_free(self->vm);
}

/* ---- real mode ---- */

CODE16(real_code,
	"mov $0x1000,%ax; mov %ax,%ds; movw $0x1234,0x20\n"
	"mov %ds,%ax; mov %ax,%es; mov %es:0x20,%ax; out %ax,$0x10\n"
	/* an interrupt, its vector set by hand */
	"xor %ax,%ax; mov %ax,%ds; movw $(1f - real_code + 0x8000),0x84\n"
	"mov %ax,0x86; mov $7,%bx; int $0x21; mov %bx,%ax; out %ax,$0x11\n"
	/* the stack, a far call, loop */
	"push $0x55; pop %ax; out %al,$0x12\n"
	"lcall $0x800,$(2f - real_code); out %al,$0x13\n"
	"mov $5,%cx; xor %ax,%ax; 3: inc %ax; loop 3b; out %al,$0x14\n"
	"hlt\n"
	"1: add $1,%bx; iret\n"
	"2: mov %cs,%ax; mov %ah,%al; lret\n");

TEST_F(modes, real)
{
	struct vcpu *v = self->v;

	vcpu_real(v, real_code, code_size(real_code));
	EXPECT_EQ(0x1234, *(u16 *)vcpu_expect_io(v, 1, 0x10, 2, 1));
	EXPECT_EQ(0x1234, *(u16 *)gpa_hva(self->vm, 0x10020));
	EXPECT_EQ(8, *(u16 *)vcpu_expect_io(v, 1, 0x11, 2, 1));
	EXPECT_EQ(0x55, *vcpu_expect_io(v, 1, 0x12, 1, 1));
	EXPECT_EQ(8, *vcpu_expect_io(v, 1, 0x13, 1, 1));
	EXPECT_EQ(5, *vcpu_expect_io(v, 1, 0x14, 1, 1));
	vcpu_expect(v, KVM_EXIT_HLT);
}

/* From the reset vector, as firmware does: a ROM below 4 GiB */
TEST_F(modes, reset_vector)
{
	static const u8 jump[] = { 0xea, 0x00, 0x80, 0x00, 0x00 };
	u8 *rom = mem_alloc(0x10000);

	memcpy(rom + 0xfff0, jump, sizeof(jump));	/* ljmp 0:0x8000 */
	memcpy(gpa_hva(self->vm, CODE_GPA), real_code, code_size(real_code));
	vm_slot(self->vm, 1, 0xffff0000, 0x10000, rom, KVM_MEM_READONLY);
	EXPECT_EQ(0x1234, *(u16 *)vcpu_expect_io(self->v, 1, 0x10, 2, 1));
}

CODE16(real_trap_code,
	"movw $(1f - real_trap_code + 0x8000),0x18; movw $0,0x1a\n"	/* #UD */
	"movw $(2f - real_trap_code + 0x8000),0x00; movw $0,0x02\n"	/* #DE */
	"movw $(3f - real_trap_code + 0x8000),0x34; movw $0,0x36\n"	/* #GP */
	"ud2\n"
	"1: add $6,%sp; mov $1,%al; out %al,$0x10\n"
	"xor %bx,%bx; div %bx\n"
	"2: add $6,%sp; mov $2,%al; out %al,$0x10\n"
	"mov $0xffff,%bx; mov (%bx),%eax\n"	/* over the limit */
	"3: add $6,%sp; mov $3,%al; out %al,$0x10; hlt\n");

TEST_F(modes, real_exceptions)
{
	int i;

	vcpu_real(self->v, real_trap_code, code_size(real_trap_code));
	for (i = 1; i <= 3; i++) {
		EXPECT_EQ(i, *vcpu_expect_io(self->v, 1, 0x10, 1, 1));
	}
	vcpu_expect(self->v, KVM_EXIT_HLT);
}

/* To protected mode and back, keeping a 4 GiB DS: "unreal" */
CODE16(unreal_code,
	"cli; lgdtl (4f - unreal_code + 0x8000)\n"
	"mov %cr0,%eax; or $1,%al; mov %eax,%cr0; jmp 1f\n"
	"1: mov $8,%bx; mov %bx,%ds; and $0xfe,%al; mov %eax,%cr0\n"
	"xor %bx,%bx; mov %bx,%ds\n"
	"mov $0x900000,%esi; movl $0xabcd1234,(%esi); mov (%esi),%eax\n"
	"out %eax,$0x10; hlt\n"
	".balign 8\n"
	"3: .quad 0, 0x00cf92000000ffff\n"
	"4: .word 15; .long 3b - unreal_code + 0x8000\n");

TEST_F(modes, big_real)
{
	vcpu_real(self->v, unreal_code, code_size(unreal_code));
	EXPECT_EQ(0xabcd1234, *(u32 *)vcpu_expect_io(self->v, 1, 0x10, 4, 1));
	EXPECT_EQ(0xabcd1234, *(u32 *)gpa_hva(self->vm, 0x900000));
}

/* ---- all the way up by itself: real, protected, PAE, long ---- */

CODE16(up_code,
	"cli; lgdtl (9f - up_code + 0x8000)\n"
	"mov %cr0,%eax; or $1,%al; mov %eax,%cr0\n"
	"ljmpl $8,$(1f - up_code + 0x8000)\n"
	".code32\n"
	"1: mov $0x10,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss\n"
	"mov $0x7000,%esp; mov $0x11111111,%eax; out %eax,$0x10\n"
	/* PAE first, in legacy mode: PDPT at 0x70000 */
	"mov $0x70000,%eax; mov %eax,%cr3\n"
	"mov %cr4,%eax; or $0x20,%eax; mov %eax,%cr4\n"
	"mov %cr0,%eax; or $0x80000000,%eax; mov %eax,%cr0; jmp 2f\n"
	"2: mov 0xa00000,%eax; out %eax,$0x11\n"
	"mov %cr0,%eax; and $0x7fffffff,%eax; mov %eax,%cr0\n"
	/* long mode: compatibility, then 64-bit */
	"mov $0x10000,%eax; mov %eax,%cr3\n"
	"mov $0xc0000080,%ecx; rdmsr; or $0x100,%eax; wrmsr\n"
	"mov %cr0,%eax; or $0x80000000,%eax; mov %eax,%cr0; jmp 3f\n"
	"3: rdmsr; out %eax,$0x12\n"
	"ljmp $0x18,$(4f - up_code + 0x8000)\n"
	".code64\n"
	"4: mov $0x123456789abcdef0,%rax; shr $32,%rax; out %eax,$0x13\n"
	/* and down again */
	"lea 8f(%rip),%rbx; ljmp *(%rbx)\n"
	".code32\n"
	"5: mov %cr0,%eax; and $0x7fffffff,%eax; mov %eax,%cr0; jmp 6f\n"
	"6: mov $0xc0000080,%ecx; rdmsr; and $0xfffffeff,%eax; wrmsr\n"
	"mov %cr4,%eax; and $0xffffffdf,%eax; mov %eax,%cr4\n"
	"ljmp $0x20,$(7f - up_code + 0x8000)\n"
	".code16\n"
	"7: mov %cr0,%eax; and $0xfe,%al; mov %eax,%cr0\n"
	"ljmp $0,$(10f - up_code + 0x8000)\n"
	"10: xor %ax,%ax; mov %ax,%ss; mov %ax,%ds; mov $0x6000,%sp\n"
	"mov $0x44,%al; out %al,$0x14; hlt\n"
	".balign 8\n"
	"8: .long 5b - up_code + 0x8000; .word 8\n"
	".balign 8\n"
	"11: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
	".quad 0x00af9b000000ffff, 0x00009b000000ffff\n"
	"9: .word 39; .long 11b - up_code + 0x8000\n");

TEST_F(modes, up_and_down)
{
	struct vcpu *v = self->v;
	u64 *pdpt = gpa_hva(self->vm, 0x70000);
	u64 *pd = gpa_hva(self->vm, 0x71000);

	vm_image(self->vm);
	pdpt[0] = 0x71000 | 1;
	pd[0] = 0x83;
	pd[5] = 0xc00000 | 0x83;
	*(u32 *)gpa_hva(self->vm, 0xc00000) = 0x22222222;
	vcpu_real(v, up_code, code_size(up_code));
	EXPECT_EQ(0x11111111, *(u32 *)vcpu_expect_io(v, 1, 0x10, 4, 1));
	EXPECT_EQ(0x22222222, *(u32 *)vcpu_expect_io(v, 1, 0x11, 4, 1));
	EXPECT_EQ(0x500, *(u32 *)vcpu_expect_io(v, 1, 0x12, 4, 1));
	EXPECT_EQ(0x12345678, *(u32 *)vcpu_expect_io(v, 1, 0x13, 4, 1));
	EXPECT_EQ(0x44, *vcpu_expect_io(v, 1, 0x14, 1, 1));
	vcpu_expect(v, KVM_EXIT_HLT);
}

CODE32(prot_code,
	"mov $0x900000,%edi; mov $0x5a5a5a5a,%eax; mov %eax,(%edi)\n"
	"mov (%edi),%ebx; mov %ebx,%eax; mov $0x10,%edx; out %eax,(%dx)\n"
	/* a device, in 32-bit code and with 16-bit operands */
	"mov $0xd0000000,%edi; mov %eax,(%edi); mov %ax,4(%edi)\n"
	"mov 8(%edi),%eax; out %eax,(%dx); hlt\n");

TEST_F(modes, protected_mode)
{
	struct vcpu *v = self->v;

	vcpu_prot(v, prot_code, code_size(prot_code));
	EXPECT_EQ(0x5a5a5a5a, *(u32 *)vcpu_expect_io(v, 1, 0x10, 4, 1));
	vcpu_expect_mmio(v, true, HOLE_GPA, 4);
	vcpu_expect_mmio(v, true, HOLE_GPA + 4, 2);
	*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA + 8, 4)->mmio.data = 77;
	EXPECT_EQ(77, *(u32 *)vcpu_expect_io(v, 1, 0x10, 4, 1));
	vcpu_expect(v, KVM_EXIT_HLT);
}

/* 32-bit paging without PAE, with a 4 MiB page and a 4 KiB one */
CODE32(paged_code,
	"mov 0x2000000,%eax; mov $0x10,%edx; out %eax,(%dx)\n"
	"movl $0x77,0x2000004\n"
	"mov 0x403000,%eax; out %eax,(%dx)\n"
	"movl $0x88,0xd0000000\n"
	"hlt\n");

TEST_F(modes, paging_32)
{
	u32 *pd = gpa_hva(self->vm, 0x70000), *pt = gpa_hva(self->vm, 0x71000);
	struct vcpu *v = self->v;
	struct kvm_sregs s;

	pd[0] = 0x83;
	pd[8] = 0x800000 | 0x83;		/* 0x2000000 */
	pd[1] = 0x71000 | 3;
	pd[0xd0000000 >> 22] = 0xd0000083;
	pt[3] = 0x905000 | 3;			/* 0x403000 */
	*(u32 *)gpa_hva(self->vm, 0x800000) = 0x1234;
	*(u32 *)gpa_hva(self->vm, 0x905000) = 0x5678;
	vcpu_prot(v, paged_code, code_size(paged_code));
	vcpu_get_sregs(v, &s);
	s.cr3 = 0x70000;
	s.cr4 |= X86_CR4_PSE;
	s.cr0 |= X86_CR0_PG;
	vcpu_set_sregs(v, &s);
	EXPECT_EQ(0x1234, *(u32 *)vcpu_expect_io(v, 1, 0x10, 4, 1));
	EXPECT_EQ(0x5678, *(u32 *)vcpu_expect_io(v, 1, 0x10, 4, 1));
	EXPECT_EQ(0x77, *(u32 *)gpa_hva(self->vm, 0x800004));
	vcpu_expect_mmio(v, true, HOLE_GPA, 4);
	vcpu_expect(v, KVM_EXIT_HLT);
	/* accessed and dirty, where they were */
	EXPECT_EQ(0xe3, pd[8] & 0xff);
	EXPECT_EQ(0x23, pt[3] & 0xff);
}

/* A load from a device, of which another thread makes a store before it is emulated: that page is the guest's to read only */
CODE32(patched_code,
	"mov $0xd0000010,%edi; mov $0x77,%eax\n"
	"mov (%edi),%eax; hlt\n");

TEST_F(modes, patched_load)
{
	u32 *pd = gpa_hva(self->vm, 0x70000);
	struct vcpu *v = self->v;
	struct kvm_sregs s;
	struct kvm_regs r;

	pd[0] = 0x83;
	pd[0xd0000000 >> 22] = 0xd0000081;
	vcpu_prot(v, patched_code, code_size(patched_code));
	vcpu_get_sregs(v, &s);
	s.cr3 = 0x70000;
	s.cr4 |= X86_CR4_PSE;
	s.cr0 |= X86_CR0_PG | X86_CR0_WP;
	s.idt.limit = 0;
	vcpu_set_sregs(v, &s);
	*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA + 16, 4)->mmio.data = 1;
	vcpu_get_regs(v, &r);
	EXPECT_EQ(0x8b, *(u8 *)gpa_hva(self->vm, r.rip));
	*(u8 *)gpa_hva(self->vm, r.rip) = 0x89;
	vcpu_set_regs(v, &r);		/* else what was decoded goes on */
	vcpu_expect(v, KVM_EXIT_SHUTDOWN);
}

/* A CPU that has a PAE guest's four top entries in registers goes by them until CR3 is loaded; so does what emulates for it */
CODE32(pdptr_code,
	"movl $0,0x70000; movl $0,0x70004; movl $0,0x70018\n"
	"movl $0x99,0xd0000000\n"
	"mov 0xd0000008,%eax; mov $0x10,%edx; out %eax,(%dx)\n"
	"hlt\n");

TEST_F(modes, pae_registers)
{
	u64 *pdpt = gpa_hva(self->vm, 0x70000), *pd = gpa_hva(self->vm, 0x71000);
	int fd = open("/sys/module/keel/parameters/ept", O_RDONLY);
	struct vcpu *v = self->v;
	struct kvm_sregs s;
	char c = 0;

	if (guest_is_amd())
		SKIP(return, "the CPU reads them from memory");
	if (fd >= 0 && read(fd, &c, 1) == 1 && c == 'N')
		SKIP(return, "without EPT the entries are read again where they are");
	pdpt[0] = 0x71000 | 1;
	pdpt[3] = 0x72000 | 1;
	pd[0] = 0x83;
	pd[512 + (HOLE_GPA >> 21 & 511)] = HOLE_GPA | 0x83;
	vcpu_prot(v, pdptr_code, code_size(pdptr_code));
	vcpu_get_sregs(v, &s);
	s.cr3 = 0x70000;
	s.cr4 |= X86_CR4_PAE;
	s.cr0 |= X86_CR0_PG;
	vcpu_set_sregs(v, &s);
	EXPECT_EQ(0x99, *(u32 *)vcpu_expect_mmio(v, true, HOLE_GPA, 4)->mmio.data);
	*(u32 *)vcpu_expect_mmio(v, false, HOLE_GPA + 8, 4)->mmio.data = 78;
	EXPECT_EQ(78, *(u32 *)vcpu_expect_io(v, 1, 0x10, 4, 1));
	vcpu_expect(v, KVM_EXIT_HLT);
	EXPECT_EQ(0, pdpt[0]);
}

/* ---- long mode paging ---- */

#define G4K	(HEAP_GPA + 0x200000)	/* a 2 MiB page in 4 KiB ones */
#define PT4K	0x70000UL

static volatile u64 *pte_of(u64 gva)
{
	return (u64 *)PT4K + (gva >> 12 & 511);
}

static void paging_guest(u64 arg)
{
	volatile u32 *p = (u32 *)G4K;

	/* not present */
	*pte_of(G4K + 0x1000) = 0;
	invlpg(G4K + 0x1000);
	guest_eq(guest_try("movl (%1),%%ecx", "r"(G4K + 0x1000), "c"(0)),
		 fault(PF_VEC, 0));
	guest_eq(read_cr2(), G4K + 0x1000);
	guest_eq(guest_try("movl %%eax,(%1)", "r"(G4K + 0x1ffc)),
		 fault(PF_VEC, 2));
	guest_eq(read_cr2(), G4K + 0x1ffc);
	/* it crosses into it */
	guest_eq(guest_try("movl %%eax,(%1)", "r"(G4K + 0xffe)),
		 fault(PF_VEC, 2));
	guest_eq(read_cr2(), G4K + 0x1000);
	/* read-only, and CR0.WP off */
	*pte_of(G4K + 0x2000) = (G4K + 0x2000) | 1;
	invlpg(G4K + 0x2000);
	guest_eq(guest_try("movl (%1),%%ecx", "r"(G4K + 0x2000), "c"(0)),
		 NO_FAULT);
	guest_eq(guest_try("movl %%eax,(%1)", "r"(G4K + 0x2000)),
		 fault(PF_VEC, 3));
	write_cr0(read_cr0() & ~X86_CR0_WP);
	guest_eq(guest_try("movl %%eax,(%1)", "r"(G4K + 0x2000)), NO_FAULT);
	write_cr0(read_cr0() | X86_CR0_WP);
	guest_eq(guest_try("movl %%eax,(%1)", "r"(G4K + 0x2000)),
		 fault(PF_VEC, 3));
	/* no execution */
	*pte_of(G4K + 0x3000) = (G4K + 0x3000) | 3 | 1UL << 63;
	*(volatile u8 *)(G4K + 0x3000) = 0xc3;
	invlpg(G4K + 0x3000);
	guest_on(PF_VEC, NULL);
	/* a reserved bit */
	*pte_of(G4K + 0x4000) = (G4K + 0x4000) | 3 | 1UL << 51;
	invlpg(G4K + 0x4000);
	guest_eq(guest_try("movl (%1),%%ecx", "r"(G4K + 0x4000), "c"(0)) | 0x100,
		 fault(PF_VEC, 9));	/* QEMU's MMU forgets the P bit here */
	/* remapped: the new page after INVLPG, after CR3 too */
	p[0x5000 / 4] = 5;
	p[0x6000 / 4] = 6;
	*pte_of(G4K + 0x5000) = (G4K + 0x6000) | 3;
	invlpg(G4K + 0x5000);
	guest_eq(p[0x5000 / 4], 6);
	*pte_of(G4K + 0x5000) = (G4K + 0x5000) | 3;
	write_cr3(read_cr3());
	guest_eq(p[0x5000 / 4], 5);
	/* accessed and dirty */
	*pte_of(G4K + 0x7000) = (G4K + 0x7000) | 3;
	invlpg(G4K + 0x7000);
	(void)p[0x7000 / 4];
	guest_eq(*pte_of(G4K + 0x7000) & 0x60, 0x20);
	p[0x7000 / 4] = 1;
	guest_eq(*pte_of(G4K + 0x7000) & 0x60, 0x60);
	guest_done(0);
}

TEST_F(modes, paging_64)
{
	vcpu_long(self->v, paging_guest, 0);
	vm_split_page(self->vm, G4K, PT4K);
	vcpu_done(self->v);
}

/*
 * What an instruction that is emulated reaches follows the tables as they are, each time: no TLB is to be flushed
 * for that, and none may be missing when the guest flushes its own.
 */
static volatile u64 remap_error;

static void remap_handler(struct guest_frame *f)
{
	remap_error = f->err;
	f->rip += 2;	/* the access below */
}

static u32 remap_read(u64 gva)
{
	u32 val = ~0u;

	asm volatile("movl (%%rdx),%%eax" : "+a"(val) : "d"(gva) : "memory");	/* two bytes long */
	return val;
}

static void remap_write(u64 gva, u32 val)
{
	asm volatile("movl %%eax,(%%rdx)" :: "a"(val), "d"(gva) : "memory");
}

static void remap_guest(u64 arg)
{
	u64 va = G4K + 0x8000;
	int i;

	guest_on(PF_VEC, remap_handler);
	for (i = 0; i < 4; i++) {
		*pte_of(va) = (HOLE_GPA + i % 3 * 0x1000) | 3;
		invlpg(va);
		guest_eq(remap_read(va), 0x100 + i);
		guest_eq(remap_read(va + 4), 0x200 + i);
		remap_write(va, 0x300 + i);
		guest_eq(*pte_of(va) & 0x60, 0x60);
	}
	guest_eq(remap_error, 0);
	/* dirty bits come back when they are taken away */
	*pte_of(va) &= ~0x60UL;
	invlpg(va);
	remap_read(va);
	guest_eq(*pte_of(va) & 0x60, 0x20);
	remap_write(va, 0);
	guest_eq(*pte_of(va) & 0x60, 0x60);
	/* and rights go */
	*pte_of(va) &= ~2UL;
	invlpg(va);
	remap_write(va, 0);
	guest_eq(remap_error, 3);
	*pte_of(va) &= ~1UL;
	invlpg(va);
	remap_read(va);
	guest_eq(remap_error, 0);
	guest_done(0);
}

TEST_F(modes, remapped_device)
{
	struct vcpu *v = self->v;
	struct kvm_run *run;
	int i;

	vcpu_long(v, remap_guest, 0);
	vm_split_page(self->vm, G4K, PT4K);
	for (i = 0; i < 4; i++) {
		u64 gpa = HOLE_GPA + i % 3 * 0x1000;

		run = vcpu_expect_mmio(v, false, gpa, 4);
		*(u32 *)run->mmio.data = 0x100 + i;
		run = vcpu_expect_mmio(v, false, gpa + 4, 4);
		*(u32 *)run->mmio.data = 0x200 + i;
		run = vcpu_expect_mmio(v, true, gpa, 4);
		EXPECT_EQ(0x300 + i, *(u32 *)run->mmio.data);
	}
	vcpu_expect_mmio(v, false, HOLE_GPA, 4);
	vcpu_expect_mmio(v, true, HOLE_GPA, 4);
	vcpu_done(v);
}

/*
 * Contexts: what one knows another need not, and CR3 can be loaded without
 * forgetting.  What a TLB may keep it need not keep either, so that here is
 * only what it may not.
 */
#define SECOND		0x75000UL	/* a second root, and its own tables for the first GiB */

static long invpcid(u64 type, u64 pcid, u64 linear)
{
	struct { u64 pcid, linear; } d = { pcid, linear };

	return guest_try("invpcid (%1),%2", "r"(&d), "r"(type));
}

static void pcid_guest(u64 arg)
{
	volatile u32 *p = (u32 *)(G4K + 0xa000);
	volatile u64 *pte = pte_of((u64)p);
	u64 first = PT_GPA | 1, other = SECOND | 2, keep = 1UL << 63, i;
	bool have = arg;

	guest_eq(guest_try("mov %1,%%cr3", "r"(keep | PT_GPA)), GP0);
	write_cr4(read_cr4() | X86_CR4_PCIDE);
	guest_eq(read_cr3(), PT_GPA);
	write_cr3(first);
	/* the second has the same in its first entry, but for what is changed there below */
	for (i = 0; i < 512; i++)
		((u64 *)SECOND)[i] = ((u64 *)PT_GPA)[i];
	*(volatile u32 *)(G4K + 0xb000) = 0xb;
	*(volatile u32 *)(G4K + 0xc000) = 0xc;
	*pte = (G4K + 0xb000) | 3;
	invlpg((u64)p);
	guest_eq(*p, 0xb);
	write_cr3(other | keep);
	guest_eq(read_cr3(), other);
	guest_eq(*p, 0xb);
	/* changed while here, seen there after its context was flushed from here */
	*pte = (G4K + 0xc000) | 3;
	invlpg((u64)p);
	guest_eq(*p, 0xc);
	if (have)
		guest_eq(invpcid(1, 1, 0), NO_FAULT);
	write_cr3(have ? first | keep : first);
	guest_eq(*p, 0xc);
	if (have) {
		for (i = 0; i < 4; i++) {
			*pte = (G4K + (i & 1 ? 0xc000 : 0xb000)) | 3;
			guest_eq(invpcid(i, 1, (u64)p), NO_FAULT);
			guest_eq(*p, i & 1 ? 0xc : 0xb);
		}
		guest_eq(invpcid(4, 0, 0), GP0);
		guest_eq(invpcid(0, 4096, 0), GP0);
		guest_eq(invpcid(0, 1, 1UL << 62), GP0);
		guest_eq(invpcid(2, 1, 1UL << 62), NO_FAULT);
	}
	write_cr3(PT_GPA);
	write_cr4(read_cr4() & ~(u64)X86_CR4_PCIDE);
	if (have) {
		guest_eq(invpcid(0, 1, 0), GP0);
		guest_eq(invpcid(0, 0, 0), NO_FAULT);
	}
	/* contexts begin with none in use */
	write_cr3(PT_GPA | 8);
	guest_eq(guest_try("mov %1,%%cr4", "r"(read_cr4() | X86_CR4_PCIDE)), GP0);
	guest_done(0);
}

TEST_F(modes, contexts)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 1, 0), *e7 = cpuid_find(self->vm->cpuid, 7, 0);

	if (!e || !(e->ecx & 1 << 17))
		SKIP(return, "no PCID");
	vcpu_long(self->v, pcid_guest, e7 && e7->ebx & 1 << 10);
	vm_split_page(self->vm, G4K, PT4K);
	vcpu_done(self->v);
}

/* Five levels: addresses of 57 bits, for the CPU, the emulator and KVM_TRANSLATE */
#define PML5		((volatile u64 *)0x74000)
#define ABOVE(n)	((u64)(n) << 48)

static void la57_guest(u64 arg)
{
	volatile u32 *low = (u32 *)HEAP_GPA, *alias = (u32 *)(ABOVE(1) + HEAP_GPA),
		     *high = (u32 *)(ABOVE(0xffff) + HEAP_GPA);

	guest_assert(read_cr4() & X86_CR4_LA57);
	*low = 0x1234;
	guest_eq(guest_try("cmpl $0,(%1)", "r"(alias)), fault(PF_VEC, 0));
	PML5[1] = PT_GPA | 7;
	PML5[511] = PT_GPA | 7;
	guest_eq(*alias, 0x1234);
	*alias = 0x5678;
	guest_eq(*low, 0x5678);
	guest_eq(*high, 0x5678);
	guest_eq(PML5[1] & 0x20, 0x20);
	/* its device, too */
	*(volatile u32 *)(ABOVE(1) + HOLE_GPA) = 0x77;
	guest_eq(*(volatile u32 *)(ABOVE(0xffff) + HOLE_GPA + 8), 0x88);
	/* no such address */
	guest_eq(guest_try("cmpl $0,(%1)", "r"(1UL << 56)), GP0);
	guest_eq(guest_try("lidt (%1)", "r"(1UL << 56)), GP0);
	PML5[1] = PT_GPA | 5;
	invlpg((u64)alias);
	guest_eq(guest_try("movl %%eax,(%1)", "r"(alias)), fault(PF_VEC, 3));
	PML5[1] = 0;
	write_cr3(read_cr3());
	guest_eq(guest_try("cmpl $0,(%1)", "r"(alias)), fault(PF_VEC, 0));
	guest_eq(*low, 0x5678);
	/* one level less is not to be had without leaving long mode */
	guest_eq(guest_try("mov %1,%%cr4", "r"(read_cr4() & ~X86_CR4_LA57)), GP0);
	PML5[1] = PT_GPA | 7;
	guest_done(0);
}

TEST_F(modes, paging_la57)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 7, 0);
	struct kvm_translation tr = { .linear_address = ABOVE(1) + HEAP_GPA + 0x123 };
	struct vcpu *v = self->v;
	struct kvm_sregs s;
	struct kvm_run *run;

	if (!e || !(e->ecx & 1 << 16))
		SKIP(return, "the host has no five-level paging");
	vcpu_long(v, la57_guest, 0);
	*(u64 *)gpa_hva(self->vm, (u64)PML5) = PT_GPA | 7;
	vcpu_get_sregs(v, &s);
	s.cr4 |= X86_CR4_LA57;
	s.cr3 = (u64)PML5;
	vcpu_set_sregs(v, &s);
	run = vcpu_expect_mmio(v, true, HOLE_GPA, 4);
	EXPECT_EQ(0x77, *(u32 *)run->mmio.data);
	run = vcpu_expect_mmio(v, false, HOLE_GPA + 8, 4);
	*(u32 *)run->mmio.data = 0x88;
	vcpu_done(v);
	EXPECT_EQ(0, xioctl(v->fd, KVM_TRANSLATE, &tr));
	EXPECT_TRUE(tr.valid);
	EXPECT_EQ(HEAP_GPA + 0x123, tr.physical_address);
}

/* Protection keys, of which each page has one of sixteen, keep also the supervisor from pages of the user. */
static void pkey_guest(u64 arg)
{
	volatile u32 *p = (u32 *)(G4K + 0x9000);
	u32 pkru;

	write_cr4(read_cr4() | X86_CR4_PKE);
	*p = 0x99;
	*pte_of((u64)p) = ((u64)p | 7) | 5UL << 59;
	invlpg((u64)p);
	for (pkru = 0; pkru < 4; pkru++) {
		long rd = pkru & 1 ? fault(PF_VEC, 0x21) : NO_FAULT, wr = pkru ? fault(PF_VEC, 0x23) : NO_FAULT;

		asm volatile("wrpkru" :: "a"(pkru << 10), "c"(0), "d"(0));
		guest_eq(guest_try("cmpl $0,(%1)", "r"(p)), rd);
		guest_eq(guest_try("movl %2,(%1)", "r"(p), "r"(pkru)), wr);
		/* of another key it says nothing */
		asm volatile("wrpkru" :: "a"(0xffffffff & ~(0xc00 | 3)), "c"(0), "d"(0));
		guest_eq(guest_try("cmpl $0,(%1)", "r"(p)), NO_FAULT);
	}
	/* of the supervisor's writes it says something only with CR0.WP */
	asm volatile("wrpkru" :: "a"(0x800), "c"(0), "d"(0));
	write_cr0(read_cr0() & ~(u64)X86_CR0_WP);
	guest_eq(guest_try("movl %2,(%1)", "r"(p), "r"(0x55)), NO_FAULT);
	guest_eq(*p, 0x55);
	write_cr0(read_cr0() | X86_CR0_WP);
	guest_eq(guest_try("movl %2,(%1)", "r"(p), "r"(0x56)), fault(PF_VEC, 0x23));
	/* nor of pages of the supervisor, nor anything once it is off */
	asm volatile("wrpkru" :: "a"(0xc00), "c"(0), "d"(0));
	*pte_of((u64)p) &= ~4UL;
	invlpg((u64)p);
	guest_eq(guest_try("movl %2,(%1)", "r"(p), "r"(1)), NO_FAULT);
	*pte_of((u64)p) |= 4;
	write_cr4(read_cr4() & ~(u64)X86_CR4_PKE);
	guest_eq(guest_try("movl %2,(%1)", "r"(p), "r"(2)), NO_FAULT);
	guest_done(0);
}

TEST_F(modes, protection_keys)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 7, 0);

	if (!e || !(e->ecx & 1 << 3))
		SKIP(return, "no protection keys");
	vcpu_long(self->v, pkey_guest, 0);
	vm_split_page(self->vm, G4K, PT4K);
	vcpu_done(self->v);
}

static volatile u64 nx_error, nx_addr;

static void nx_handler(struct guest_frame *f)
{
	nx_error = f->err;
	nx_addr = f->rip;
	f->rip = *(u64 *)f->rsp;	/* return from the call */
	f->rsp += 8;
}

static void nx_guest(u64 arg)
{
	*(volatile u8 *)(G4K + 0x3000) = 0xc3;
	*pte_of(G4K + 0x3000) |= 1UL << 63;
	invlpg(G4K + 0x3000);
	guest_on(PF_VEC, nx_handler);
	((void (*)(void))(G4K + 0x3000))();
	guest_eq(nx_error, 0x11);
	guest_eq(nx_addr, G4K + 0x3000);
	*pte_of(G4K + 0x3000) &= ~(1UL << 63);
	invlpg(G4K + 0x3000);
	nx_error = 0;
	((void (*)(void))(G4K + 0x3000))();
	guest_eq(nx_error, 0);
	guest_done(0);
}

TEST_F(modes, no_execute)
{
	vcpu_long(self->v, nx_guest, 0);
	vm_split_page(self->vm, G4K, PT4K);
	vcpu_done(self->v);
}

static void huge_guest(u64 arg)
{
	/* 512 GiB and up: the same memory, by a 1 GiB page */
	u64 *pml4 = (u64 *)PT_GPA, *pdpt = (u64 *)0x72000;

	*(volatile u32 *)(HEAP_GPA + 0x123000) = 0x4242;
	pdpt[0] = 0x87;
	pml4[1] = 0x72000 | 7;
	write_cr3(read_cr3());
	guest_eq(*(volatile u32 *)((1UL << 39) + HEAP_GPA + 0x123000), 0x4242);
	guest_done(0);
}

TEST_F(modes, page_1g)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 0x80000001, 0);

	if (!(e->edx & 1 << 26))
		SKIP(return, "no 1 GiB pages");
	vcpu_long(self->v, huge_guest, 0);
	vcpu_done(self->v);
}

/* ---- rings ---- */

static volatile u64 user_done;

static void user_code(void)
{
	guest_eq(guest_try("hlt"), GP0);
	guest_eq(guest_try("mov %%cr0,%%rax", "a"(0)), GP0);
	guest_eq(guest_try("rdmsr", "a"(0), "c"(MSR_EFER), "d"(0)), GP0);
	guest_eq(guest_try("wbinvd"), GP0);
	guest_eq(guest_try("invlpg (%1)", "r"(0)), GP0);
	guest_eq(guest_try("lgdt (%1)", "r"(HEAP_GPA)), GP0);
	/* a supervisor's page */
	guest_eq(guest_try("movl (%1),%%ecx", "r"(G4K), "c"(0)),
		 fault(PF_VEC, 5));
	guest_eq(guest_try("movl %%eax,(%1)", "r"(G4K)), fault(PF_VEC, 7));
	/* an interrupt switches to the stack in the TSS, and back */
	asm volatile("int $0x40" ::: "memory");
	user_done = 1;
	guest_done(7);
}

static void ring_handler(struct guest_frame *f)
{
	guest_eq(f->cs, SEL_UCODE64);
	guest_eq(f->ss, SEL_UDATA);
	guest_eq(f->rsp > HEAP_GPA, 1);
	guest_eq((u64)f < STACK_GPA + STACK_SIZE, 1);
}

static void ring_guest(u64 arg)
{
	guest_on(0x40, ring_handler);
	*pte_of(G4K) &= ~4UL;
	invlpg(G4K);
	asm volatile("pushq %0; pushq %1; pushq $0x3002; pushq %2; pushq %3\n"
		     "iretq"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000 - 8),
		     "i"(SEL_UCODE64), "r"(user_code) : "memory");
}

TEST_F(modes, rings)
{
	vcpu_long(self->v, ring_guest, 0);
	vm_split_page(self->vm, G4K, PT4K);
	EXPECT_EQ(7, vcpu_done(self->v));
}

/* SYSCALL and SYSRET */
static volatile u64 sc_rcx, sc_r11;

asm(".text\n"
    "sc_entry:\n"
    "mov %rcx,sc_rcx\n"
    "mov %r11,sc_r11\n"
    "sysretq\n");
extern char sc_entry[];

static void sc_user(void)
{
	u64 here;

	asm volatile("lea 1f(%%rip),%0; syscall; 1:"
		     : "=&r"(here) :: "rcx", "r11", "memory");
	guest_eq(sc_rcx, here);
	guest_eq(sc_r11 & 0x3000, 0x3000);
	guest_done(9);
}

static void sc_guest(u64 arg)
{
	wrmsr(MSR_LSTAR, (u64)sc_entry);
	/* kernel CS 0x08 (SS 0x10); user SS 0x20+3, CS 0x28+3 */
	wrmsr(MSR_STAR, 0x0018000800000000UL);
	wrmsr(MSR_SYSCALL_MASK, 0);
	asm volatile("pushq %0; pushq %1; pushq $0x3002; pushq %2; pushq %3\n"
		     "iretq"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000 - 8),
		     "i"(SEL_UCODE64), "r"(sc_user) : "memory");
}

TEST_F(modes, syscall)
{
	vcpu_long(self->v, sc_guest, 0);
	EXPECT_EQ(9, vcpu_done(self->v));
}

/* ---- control registers and segments ---- */

static void cr_guest(u64 arg)
{
	u16 sel;

	guest_eq(guest_try("mov %1,%%cr0", "r"(read_cr0() & ~1UL)), GP0);
	guest_eq(guest_try("mov %1,%%cr0",
			   "r"((read_cr0() | X86_CR0_NW) & ~X86_CR0_CD)), GP0);
	guest_eq(guest_try("mov %1,%%cr4", "r"(read_cr4() & ~X86_CR4_PAE)),
		 GP0);
	guest_eq(guest_try("mov %1,%%cr4", "r"(read_cr4() | 1UL << 31)), GP0);
	guest_eq(guest_try("mov %1,%%cr8", "r"(16UL)), GP0);
	write_cr8(9);
	guest_eq(read_cr8(), 9);
	write_cr8(0);
	write_cr2(0x123456789000UL);
	guest_eq(read_cr2(), 0x123456789000UL);
	write_cr0(read_cr0() | X86_CR0_TS);
	guest_assert(read_cr0() & X86_CR0_TS);
	guest_eq(guest_try("movups %%xmm0,(%1)", "r"(HEAP_GPA)), (long)NM_VEC);
	asm volatile("clts");
	guest_assert(!(read_cr0() & X86_CR0_TS));
	guest_eq(guest_try("movups %%xmm0,(%1)", "r"(HEAP_GPA)), NO_FAULT);
	asm volatile("smsw %0" : "=r"(sel));
	guest_eq(sel, read_cr0() & 0xffff);

	/* selectors: beyond the limit, not present, loaded and read back */
	guest_eq(guest_try("mov %w1,%%ds", "r"(0x1000)), fault(GP_VEC, 0x1000));
	guest_eq(guest_try("mov %w1,%%ss", "r"(0)), NO_FAULT);
	guest_eq(guest_try("mov %w1,%%ss", "r"(SEL_CODE64)),
		 fault(GP_VEC, SEL_CODE64));
	guest_eq(guest_try("mov %w1,%%ss", "r"(SEL_DATA)), NO_FAULT);
	asm volatile("mov %w0,%%es" :: "r"(SEL_DATA));
	asm volatile("mov %%es,%0" : "=r"(sel));
	guest_eq(sel, SEL_DATA);
	asm volatile("str %0" : "=r"(sel));
	guest_eq(sel, SEL_TSS);
	guest_done(0);
}

TEST_F(modes, control_registers)
{
	vcpu_long(self->v, cr_guest, 0);
	vcpu_expect(self->v, KVM_EXIT_SET_TPR);
	vcpu_done(self->v);
}

TEST_HARNESS_MAIN
