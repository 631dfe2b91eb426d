// SPDX-License-Identifier: GPL-2.0-only
/*
 * Emulator tests with known results: what random user-mode instructions cannot
 * reach. Real mode, segmentation and far transfers, privilege, faults, vector
 * moves; emul_io.c has device memory and ports.
 */
#include <stdlib.h>

#include "emul_test.h"
#include "emul/internal.h"
#include "tap.h"

struct env *v;
bool ok;

void standard_gdt(void)
{
	env_gdt(v, 1, 0, 0xffffffff, CODE_ATTR);
	env_gdt(v, 2, 0, 0xffffffff, DATA_ATTR);
	env_gdt(v, 3, 0, 0xffffffff, CODE_ATTR | DPL(3));
	env_gdt(v, 4, 0, 0xffffffff, DATA_ATTR | DPL(3));
	env_gdt(v, 5, 0, 0xffffffff, CODE64_ATTR);
	env_gdt(v, 6, 0, 0xffffffff, CODE64_ATTR | DPL(3));
	env_gdt(v, 7, 0, 0xffffffff, DATA_ATTR & ~EMUL_ATTR_P);
	env_gdt(v, 8, 0x5000, 0xfff, EMUL_ATTR_P | 9);		/* TSS */
	env_gdt(v, 10, 0x6000, 0xff, EMUL_ATTR_P | 2);		/* LDT */
	env_gdt(v, 12, 0x1234, 0, EMUL_ATTR_P | 0xc);		/* call gate */
	env_gdt(v, 13, 0x10000, 0xffff, DATA_ATTR & ~EMUL_ATTR_G);
}

static void real_segments(void)
{
	env_init(v);
	RAX = 0x2000;
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK);	/* mov %ax, %ds */
	CHECK(v->segs[EMUL_SEG_DS].base == 0x20000 && v->segs[EMUL_SEG_DS].limit == 0xffff);
	RBX = 0x10;
	RSI = 0x20;
	set_mem(0x20035, 0xbeef, 2);
	CHECK(RUN(0x8b, 0x48, 0x05) == EMUL_OK && RCX == 0xbeef);	/* mov 5(%bx,%si), %cx */
	/* bp means ss; offsets wrap at 64K */
	RBP = 0xfff0;
	set_mem(0x0010, 0x77, 1);
	CHECK(RUN(0x8a, 0x56, 0x20) == EMUL_OK && (RDX & 0xff) == 0x77); /* mov 32(%bp), %dl */
	/* a word at ffff is beyond the limit: #GP, #SS with ss, no error code */
	RBX = 0xffff;
	FAULTS_BARE(RUN(0x8b, 0x07), EMUL_VEC_GP);
	FAULTS_BARE(RUN(0x36, 0x8b, 0x07), EMUL_VEC_SS);
	/* unreal mode: the limit survives a load */
	v->segs[EMUL_SEG_DS].limit = 0xffffffff;
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK && v->segs[EMUL_SEG_DS].limit == 0xffffffff);
	v->segs[EMUL_SEG_DS].base = 0;
	v->e.regs[EMUL_RSI] = 0x34567;
	v->mem[0x34567] = 0x99;
	CHECK(RUN(0x67, 0x8a, 0x06) == EMUL_OK && (RAX & 0xff) == 0x99);
	/* lds */
	set_mem(0x400, 0x12345678, 4);
	CHECK(RUN(0xc5, 0x1e, 0x00, 0x04) == EMUL_OK && (RBX & 0xffff) == 0x5678);
	CHECK(v->segs[EMUL_SEG_DS].selector == 0x1234);
	FAULTS_BARE(RUN(0x8e, 0xc8), EMUL_VEC_UD);	/* mov %ax, %cs */
	CHECK(RUN(0x8e, 0xd0) == EMUL_OK && v->e.shadow == EMUL_SHADOW_SS);
}

static void real_far(void)
{
	env_init(v);
	v->segs[EMUL_SEG_SS].base = 0x9000;
	RSP = 0x8000;
	CHECK(RUN(0x9a, 0x34, 0x12, 0x00, 0x10) == EMUL_OK);	/* lcall $0x1000,$0x1234 */
	CHECK(RIP == 0x1234 && v->segs[EMUL_SEG_CS].base == 0x10000 && RSP == 0x7ffc);
	CHECK(mem(0x10ffc, 4) == 0x1005);
	CHECK(RUN(0xca, 0x04, 0x00) == EMUL_OK);		/* lret $4 */
	CHECK(RIP == 0x1005 && v->segs[EMUL_SEG_CS].base == 0 && RSP == 0x8004);

	RSP = 0x8000;
	set_mem(0x10 * 4, 0xf0000123, 4);
	v->segs[EMUL_SEG_SS].base = 0;
	v->e.rflags = X86_EFLAGS_FIXED | X86_EFLAGS_IF | X86_EFLAGS_CF | X86_EFLAGS_TF;
	CHECK(RUN(0xcd, 0x10) == EMUL_OK);			/* int $0x10 */
	CHECK(RIP == 0x123 && v->segs[EMUL_SEG_CS].selector == 0xf000 && RSP == 0x7ffa);
	CHECK(mem(0x7ffa, 2) == 0x1007 && mem(0x7ffc, 2) == 0 && mem(0x7ffe, 2) == 0x303);
	CHECK(v->e.rflags == (X86_EFLAGS_FIXED | X86_EFLAGS_CF));
	v->segs[EMUL_SEG_CS].base = 0;
	CHECK(RUN(0xcf) == EMUL_OK && RIP == 0x1007 && RSP == 0x8000);	/* iret */
	CHECK(v->e.rflags == 0x303 && v->e.shadow == EMUL_SHADOW_IRET);

	set_mem(0x500, 0x20000777, 4);
	CHECK(RUN(0xff, 0x2e, 0x00, 0x05) == EMUL_OK && RIP == 0x777);	/* ljmp *0x500 */
	CHECK(v->segs[EMUL_SEG_CS].base == 0x20000);

	/* the vector lies beyond the table */
	env_init(v);
	v->dt[EMUL_DT_IDT].limit = 0x3f;
	FAULTS_BARE(RUN(0xcd, 0x10), EMUL_VEC_GP);
	/* protected mode's instructions do not exist */
	FAULTS_BARE(RUN(0x0f, 0x00, 0xd8), EMUL_VEC_UD);	/* ltr */
	FAULTS_BARE(RUN(0x63, 0xc0), EMUL_VEC_UD);		/* arpl */
	FAULTS_BARE(RUN(0xc5, 0xf8, 0x10, 0x07), EMUL_VEC_UD);	/* vmovups */
}

static void real_stack(void)
{
	unsigned int k;

	env_init(v);
	for (k = 0; k < 8; k++)
		v->e.regs[k] = 0x1111 * (k + 1);
	RSP = 0xabcd0008;
	CHECK(RUN(0x60) == EMUL_OK && RSP == 0xabcdfff8);	/* pusha, sp wraps */
	CHECK(mem(6, 2) == 0x1111 && mem(0, 2) == 0x4444 && mem(0xfffe, 2) == 8);
	for (k = 0; k < 8; k++)
		if (k != EMUL_RSP)
			v->e.regs[k] = 0;
	CHECK(RUN(0x61) == EMUL_OK && RSP == 0xabcd0008);	/* popa */
	CHECK(RAX == 0x1111 && RDI == 0x8888 && RBP == 0x6666);
	RSP = 1;
	FAULTS_BARE(RUN(0x50), EMUL_VEC_SS);			/* push at ffff */
	CHECK(RSP == 1);
	RSP = 0x100;
	CHECK(RUN(0x66, 0x68, 0x78, 0x56, 0x34, 0x12) == EMUL_OK);	/* pushl */
	CHECK(RSP == 0xfc && mem(0xfc, 4) == 0x12345678);
	CHECK(RUN(0x5c) == EMUL_OK && RSP == 0x5678);		/* pop %sp */
	/* ip beyond the limit */
	v->segs[EMUL_SEG_CS].limit = 0xfff;
	FAULTS_BARE(env_run(v), EMUL_VEC_GP);
}

/* The usual way out of real mode. */
static void mode_switch(void)
{
	env_init(v);
	standard_gdt();
	set_mem(0x800, 0xff, 2);
	set_mem(0x802, 0xff003000, 4);
	CHECK(RUN(0x0f, 0x01, 0x16, 0x00, 0x08) == EMUL_OK);	/* lgdt 0x800 */
	CHECK(v->dt[EMUL_DT_GDT].base == 0x3000 && v->dt[EMUL_DT_GDT].limit == 0xff);
	CHECK(RUN(0x66, 0x0f, 0x01, 0x16, 0x00, 0x08) == EMUL_OK);	/* lgdtl */
	CHECK(v->dt[EMUL_DT_GDT].base == 0xff003000);
	v->dt[EMUL_DT_GDT].base = 0x3000;
	CHECK(RUN(0x0f, 0x20, 0xc0) == EMUL_OK && RAX == 0x10);	/* mov %cr0, %eax */
	RAX |= 1;
	CHECK(RUN(0x0f, 0x22, 0xc0) == EMUL_OK && v->cr[0] == 0x11);
	v->e.mode = emul_mode(v->cr[0], false, v->e.rflags, v->segs[EMUL_SEG_CS].attr);
	CHECK(v->e.mode == EMUL_MODE_PROT16);
	CHECK(RUN(0x66, 0xea, 0x00, 0x20, 0x00, 0x00, 0x08, 0x00) == EMUL_OK);
	CHECK(RIP == 0x2000 && v->segs[EMUL_SEG_CS].selector == 8 &&
	      v->segs[EMUL_SEG_CS].limit == 0xffffffff);
	CHECK(v->mem[0x3000 + 8 + 5] & 1);	/* accessed */
	v->e.mode = emul_mode(v->cr[0], false, v->e.rflags, v->segs[EMUL_SEG_CS].attr);
	CHECK(v->e.mode == EMUL_MODE_PROT32);
	RAX = 0x10;
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK && v->segs[EMUL_SEG_DS].limit == 0xffffffff);
	CHECK(RUN(0x8e, 0xd0) == EMUL_OK && v->e.shadow == EMUL_SHADOW_SS);
}

static void seg_faults(void)
{
	env_mode(v, EMUL_MODE_PROT32, 0);
	standard_gdt();
	RAX = 0x38;
	FAULTS(RUN(0x8e, 0xd8), EMUL_VEC_NP, 0x38);	/* ds, not present */
	RAX = 0x40;
	FAULTS(RUN(0x8e, 0xd8), EMUL_VEC_GP, 0x40);	/* a TSS */
	RAX = 0x100;
	FAULTS(RUN(0x8e, 0xd8), EMUL_VEC_GP, 0x100);	/* beyond the table */
	RAX = 0x14;
	FAULTS(RUN(0x8e, 0xd8), EMUL_VEC_GP, 0x14);	/* no LDT */
	RAX = 0;
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK && (v->segs[EMUL_SEG_DS].attr & EMUL_ATTR_UNUSABLE));
	FAULTS(RUN(0x8a, 0x00), EMUL_VEC_GP, 0);	/* and through it */
	FAULTS(RUN(0x8e, 0xd0), EMUL_VEC_GP, 0);	/* ss null */
	RAX = 0x38;
	FAULTS(RUN(0x8e, 0xd0), EMUL_VEC_SS, 0x38);	/* ss not present */
	RAX = 0x20;
	FAULTS(RUN(0x8e, 0xd0), EMUL_VEC_GP, 0x20);	/* ss of another privilege */
	RAX = 0x08;
	FAULTS(RUN(0x8e, 0xd0), EMUL_VEC_GP, 0x08);	/* ss code */
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK);		/* ds code, readable */
	FAULTS(RUN(0xc6, 0x05, 0, 0, 0, 0, 1), EMUL_VEC_GP, 0);	/* but not writable */

	env_mode(v, EMUL_MODE_PROT32, 3);
	standard_gdt();
	RAX = 0x10;
	FAULTS(RUN(0x8e, 0xd8), EMUL_VEC_GP, 0x10);	/* dpl 0 from cpl 3 */
	RAX = 0x23;
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK);

	/* expand-down: above the limit only */
	env_mode(v, EMUL_MODE_PROT32, 0);
	v->segs[EMUL_SEG_DS].attr |= 4;
	v->segs[EMUL_SEG_DS].limit = 0xfff;
	RBX = 0x1000;
	CHECK(RUN(0x8a, 0x03) == EMUL_OK);
	RBX = 0xfff;
	FAULTS(RUN(0x8a, 0x03), EMUL_VEC_GP, 0);

	/* the limit, byte-exact */
	env_mode(v, EMUL_MODE_PROT32, 0);
	v->segs[EMUL_SEG_DS].limit = 0x10003;
	RBX = 0x10000;
	CHECK(RUN(0x8b, 0x03) == EMUL_OK);
	RBX = 0x10001;
	FAULTS(RUN(0x8b, 0x03), EMUL_VEC_GP, 0);
}

static void prot_far(void)
{
	env_mode(v, EMUL_MODE_PROT32, 0);
	standard_gdt();
	CHECK(RUN(0x9a, 0x00, 0x40, 0x00, 0x00, 0x08, 0x00) == EMUL_OK);	/* lcall */
	CHECK(RIP == 0x4000 && RSP == 0x7ff8 && mem(0x7ff8, 4) == 0x1007 && mem(0x7ffc, 4) == 8);
	CHECK(RUN(0xcb) == EMUL_OK && RIP == 0x1007 && RSP == 0x8000);	/* lret */
	FAULTS(RUN(0xea, 0, 0, 0, 0, 0x10, 0), EMUL_VEC_GP, 0x10);	/* to data */
	FAULTS(RUN(0xea, 0, 0, 0, 0, 0x1b, 0), EMUL_VEC_GP, 0x18);	/* to dpl 3 */
	FAULTS(RUN(0xea, 0, 0, 0, 0, 0, 0), EMUL_VEC_GP, 0);
	CHECK(RIP == 0x1007 && RSP == 0x8000);

	/* lret to an outer ring: stack switched, inner data segments dropped */
	set_mem(0x8000, 0x4000, 4);
	set_mem(0x8004, 0x1b, 4);
	set_mem(0x8010, 0x9000, 4);
	set_mem(0x8014, 0x23, 4);
	v->segs[EMUL_SEG_ES].attr |= DPL(3);
	CHECK(RUN(0xca, 0x08, 0x00) == EMUL_OK);
	CHECK(v->e.cpl == 3 && RIP == 0x4000 && RSP == 0x9008);
	CHECK(v->segs[EMUL_SEG_CS].selector == 0x1b && v->segs[EMUL_SEG_SS].selector == 0x23);
	CHECK(v->segs[EMUL_SEG_DS].attr == EMUL_ATTR_UNUSABLE);
	CHECK(v->segs[EMUL_SEG_ES].attr != EMUL_ATTR_UNUSABLE);
	/* and not inward */
	RSP = 0x8000;
	set_mem(0x8004, 0x08, 4);
	FAULTS(RUN(0xcb), EMUL_VEC_GP, 0x08);
	CHECK(v->e.cpl == 3 && RSP == 0x8000);
}

static void prot_iret(void)
{
	env_mode(v, EMUL_MODE_PROT32, 0);
	standard_gdt();
	set_mem(0x8000, 0x4000, 4);
	set_mem(0x8004, 0x08, 4);
	set_mem(0x8008, 0x10202, 4);
	CHECK(RUN(0xcf) == EMUL_OK && RIP == 0x4000 && RSP == 0x800c && v->e.cpl == 0);
	CHECK(v->e.rflags == 0x10202);		/* RF comes back */
	/* to user */
	RIP = 0x1000;
	RSP = 0x8000;
	set_mem(0x8004, 0x1b, 4);
	set_mem(0x800c, 0x9000, 4);
	set_mem(0x8010, 0x23, 4);
	CHECK(RUN(0xcf) == EMUL_OK && v->e.cpl == 3 && RSP == 0x9000);
	/* user cannot touch IF and IOPL */
	RIP = 0x1000;
	RSP = 0x8000;
	set_mem(0x8008, 0x3002, 4);
	v->e.rflags = 0x202;
	CHECK(RUN(0xcf) == EMUL_OK && v->e.rflags == 0x202);

	/* to virtual-8086 mode */
	env_mode(v, EMUL_MODE_PROT32, 0);
	set_mem(0x8000, 0x100, 4);
	set_mem(0x8004, 0x1234, 4);
	set_mem(0x8008, 0x23202, 4);
	set_mem(0x800c, 0xfffe, 4);
	set_mem(0x8010, 0x2000, 4);
	set_mem(0x8014, 0x3000, 4);
	set_mem(0x8018, 0x4000, 4);
	CHECK(RUN(0xcf) == EMUL_OK && v->e.cpl == 3 && RSP == 0xfffe && RIP == 0x100);
	CHECK(v->e.rflags == 0x23202 && v->segs[EMUL_SEG_CS].base == 0x12340);
	CHECK(v->segs[EMUL_SEG_SS].base == 0x20000 && v->segs[EMUL_SEG_DS].base == 0x40000);
}

static void long_iret(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	standard_gdt();
	set_mem(0x8000, 0x4000, 8);
	set_mem(0x8008, 0x28, 8);
	set_mem(0x8010, 0x202, 8);
	set_mem(0x8018, 0x7fff12345678, 8);
	set_mem(0x8020, 0, 8);			/* null SS is good for CPL 0 */
	CHECK(RUN(0x48, 0xcf) == EMUL_OK && RSP == 0x7fff12345678 && RIP == 0x4000);
	RIP = 0x1000;
	RSP = 0x8000;
	set_mem(0x8008, 0x33, 8);
	set_mem(0x8020, 0x23, 8);
	CHECK(RUN(0x48, 0xcf) == EMUL_OK && v->e.cpl == 3);
	CHECK(v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_L);

	env_mode(v, EMUL_MODE_LONG64, 0);
	standard_gdt();
	set_mem(0x8000, 0x800000000000, 8);	/* not canonical */
	set_mem(0x8008, 0x28, 8);
	FAULTS(RUN(0x48, 0xcf), EMUL_VEC_GP, 0);
	/* to compatibility mode */
	set_mem(0x8000, 0x12345678, 8);
	set_mem(0x8008, 0x1b, 8);
	set_mem(0x8018, 0x99995678, 8);
	set_mem(0x8020, 0x23, 8);
	CHECK(RUN(0x48, 0xcf) == EMUL_OK && RIP == 0x12345678 && RSP == 0x99995678);
	CHECK(v->e.cpl == 3 && !(v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_L));
}

static void privilege(void)
{
	static const struct { u8 n, b[6]; } gp[] = {
		{ 1, { 0xf4 } }, { 1, { 0xfa } }, { 1, { 0xfb } },
		{ 3, { 0x0f, 0x01, 0x10 } }, { 3, { 0x0f, 0x01, 0x18 } },
		{ 3, { 0x0f, 0x01, 0x38 } }, { 3, { 0x0f, 0x01, 0xf0 } },
		{ 3, { 0x0f, 0x20, 0xc0 } }, { 3, { 0x0f, 0x22, 0xc0 } },
		{ 3, { 0x0f, 0x21, 0xc0 } }, { 3, { 0x0f, 0x23, 0xf8 } },
		{ 2, { 0x0f, 0x06 } }, { 2, { 0x0f, 0x08 } }, { 2, { 0x0f, 0x09 } },
		{ 2, { 0x0f, 0x30 } }, { 2, { 0x0f, 0x32 } },
		{ 3, { 0x0f, 0x00, 0xd0 } }, { 3, { 0x0f, 0x00, 0xd8 } },
		{ 3, { 0x0f, 0x01, 0xd1 } }, { 2, { 0x0f, 0x33 } }, { 2, { 0x0f, 0x07 } },
		{ 3, { 0x0f, 0x01, 0xf8 } },
	};
	unsigned int k;

	for (k = 0; k < sizeof(gp) / sizeof(gp[0]); k++) {
		env_mode(v, EMUL_MODE_LONG64, 3);
		env_code(v, gp[k].b, gp[k].n);
		FAULTS(env_run(v), EMUL_VEC_GP, 0);
		CHECK(v->last_sysop == -1 && RIP == 0x1000);
	}
	env_mode(v, EMUL_MODE_LONG64, 3);
	FAULTS_BARE(RUN(0x0f, 0x20, 0xc8), EMUL_VEC_UD);	/* cr1 does not exist */
	FAULTS_BARE(RUN(0x0f, 0x01, 0xc8), EMUL_VEC_UD);	/* monitor */
	CHECK(RUN(0x0f, 0x31) == EMUL_OK);			/* rdtsc */
	CHECK(RUN(0x0f, 0xaa) == EMUL_OK && v->last_sysop == EMUL_SYS_RSM);	/* at any privilege level */
	v->cr[4] |= X86_CR4_TSD | X86_CR4_UMIP;
	FAULTS(RUN(0x0f, 0x31), EMUL_VEC_GP, 0);
	FAULTS(RUN(0x0f, 0x01, 0x00), EMUL_VEC_GP, 0);		/* sgdt */
	FAULTS(RUN(0x0f, 0x01, 0xe0), EMUL_VEC_GP, 0);		/* smsw */
	FAULTS(RUN(0x0f, 0x00, 0xc0), EMUL_VEC_GP, 0);		/* sldt */

	/* popf: IF and IOPL stay */
	env_mode(v, EMUL_MODE_LONG64, 3);
	v->e.rflags = 0x202;
	set_mem(0x8000, 0x3c47, 8);
	CHECK(RUN(0x9d) == EMUL_OK && v->e.rflags == 0xe47);

	/* virtual-8086 */
	env_init(v);
	v->e.mode = EMUL_MODE_VM86;
	v->e.cpl = 3;
	v->e.rflags = 0x20002;
	FAULTS(RUN(0x9c), EMUL_VEC_GP, 0);
	FAULTS(RUN(0xcd, 0x21), EMUL_VEC_GP, 0);
	FAULTS(RUN(0xfa), EMUL_VEC_GP, 0);
	FAULTS(RUN(0xcf), EMUL_VEC_GP, 0);
	FAULTS(RUN(0xf4), EMUL_VEC_GP, 0);
	v->e.rflags |= X86_EFLAGS_IOPL;
	CHECK(RUN(0x9c) == EMUL_OK && mem(0x7ffe, 2) == 0x3002);
	CHECK(RUN(0xfb) == EMUL_OK && v->e.shadow == EMUL_SHADOW_STI);
	CHECK(RUN(0xfb) == EMUL_OK && v->e.shadow == 0);
}

static void invalid(void)
{
	static const struct { u8 n, b[16]; } ud[] = {
		{ 3, { 0xf0, 0x89, 0x07 } },		/* lock mov */
		{ 3, { 0xf0, 0x01, 0xc0 } },		/* lock add to register */
		{ 3, { 0xf0, 0x39, 0x07 } },		/* lock cmp */
		{ 3, { 0xf0, 0x03, 0x07 } },		/* lock add from memory */
		{ 1, { 0x06 } }, { 1, { 0x60 } }, { 1, { 0xce } }, { 1, { 0x27 } },
		{ 1, { 0xea } }, { 1, { 0x9a } }, { 1, { 0xd4 } },
		{ 2, { 0x0f, 0x0b } }, { 2, { 0x0f, 0xff } }, { 2, { 0x0f, 0xb9 } },
		{ 2, { 0x8d, 0xc0 } },			/* lea register */
		{ 2, { 0xff, 0xe8 } },			/* ljmp register */
		{ 2, { 0xff, 0x38 } }, { 2, { 0xfe, 0x10 } }, { 2, { 0x8f, 0x48 } },
		{ 3, { 0x0f, 0xba, 0x00 } },
		{ 3, { 0x0f, 0x01, 0xd2 } },
		{ 2, { 0x8e, 0xc8 } }, { 2, { 0x8e, 0xf0 } }, { 2, { 0x8c, 0xf8 } },
	};
	unsigned int k;
	u8 b[16];

	for (k = 0; k < sizeof(ud) / sizeof(ud[0]); k++) {
		env_mode(v, EMUL_MODE_LONG64, 0);
		RDI = RAX = 0x10000;
		env_code(v, ud[k].b, sizeof(ud[k].b));
		FAULTS_BARE(env_run(v), EMUL_VEC_UD);
	}
	/* fifteen bytes are an instruction, sixteen are #GP */
	env_mode(v, EMUL_MODE_LONG64, 0);
	memset(b, 0x66, sizeof(b));
	b[14] = 0x90;
	env_code(v, b, 16);
	CHECK(env_run(v) == EMUL_OK && RIP == 0x100f);
	RIP = 0x1000;
	b[14] = 0x66;
	b[15] = 0x90;
	env_code(v, b, 16);
	FAULTS(env_run(v), EMUL_VEC_GP, 0);
}

static void canonical(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	RBX = RBP = 0x800000000000;
	FAULTS(RUN(0x8b, 0x03), EMUL_VEC_GP, 0);
	FAULTS(RUN(0x8b, 0x45, 0x00), EMUL_VEC_SS, 0);
	RBX = 0x7ffffffffffd;
	FAULTS(RUN(0x8b, 0x03), EMUL_VEC_GP, 0);
	RSP = 0x800000000000;
	FAULTS(RUN(0x58), EMUL_VEC_SS, 0);
	RBX = 0x800000000000;
	FAULTS(RUN(0xff, 0xe3), EMUL_VEC_GP, 0);
	v->e.la57 = true;
	CHECK(RUN(0xff, 0xe3) == EMUL_OK && RIP == 0x800000000000);
	/* fs and gs have bases; ds has none */
	env_mode(v, EMUL_MODE_LONG64, 0);
	v->segs[EMUL_SEG_GS].base = 0x10000;
	v->segs[EMUL_SEG_DS].base = 0x20000;
	RBX = 0x234;
	v->mem[0x10234] = 0x42;
	CHECK(RUN(0x65, 0x8a, 0x03) == EMUL_OK && (RAX & 0xff) == 0x42);
	v->mem[0x234] = 0x43;
	CHECK(RUN(0x3e, 0x8a, 0x03) == EMUL_OK && (RAX & 0xff) == 0x43);
	/* rip-relative counts from the end, immediates included */
	RIP = 0x1000;
	CHECK(RUN(0xc7, 0x05, 0xf6, 0xff, 0x00, 0x00, 1, 2, 3, 4) == EMUL_OK);
	CHECK(mem(0x11000, 4) == 0x04030201);
}

/* Linear address masking: which bits count follows from bit 63 and the control registers; what is masked must be canonical. */
static void masked(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	v->mem[0x234] = 0x43;
	RBX = 0x2bcd000000000234;
	FAULTS(RUN(0x8a, 0x03), EMUL_VEC_GP, 0);
	emul_set_lam(&v->e, 1ull << 62, 0);
	CHECK(RUN(0x8a, 0x03) == EMUL_OK && (RAX & 0xff) == 0x43);
	RBX = 0x2bcd800000000234;		/* bit 47 */
	FAULTS(RUN(0x8a, 0x03), EMUL_VEC_GP, 0);
	RBX = 0xabcd000000000234;		/* a supervisor's */
	FAULTS(RUN(0x8a, 0x03), EMUL_VEC_GP, 0);
	/* both: the narrower one counts */
	emul_set_lam(&v->e, 3ull << 61, 0);
	RBX = 0x5400000000000234;
	CHECK(RUN(0x8a, 0x03) == EMUL_OK && (RAX & 0xff) == 0x43);
	RBX = 0x2bcd000000000234;
	FAULTS(RUN(0x8a, 0x03), EMUL_VEC_GP, 0);
	/* not where control goes */
	RBX = 0x5400000000000234;
	FAULTS(RUN(0xff, 0xe3), EMUL_VEC_GP, 0);
	emul_set_lam(&v->e, 0, 1ull << 28);
	FAULTS(RUN(0x8a, 0x03), EMUL_VEC_GP, 0);
	CHECK(emul_untag(&v->e, 0x8123ffffffff0000) == 0xffffffffffff0000);
	CHECK(emul_untag(&v->e, 0x8123700000000000) == 0x8000700000000000);
	v->e.la57 = true;
	emul_set_lam(&v->e, 0, 1ull << 28);
	CHECK(emul_untag(&v->e, 0x8123ffffffff0000) == 0xff23ffffffff0000);
}

static void fetch_pages(void)
{
	env_mode(v, EMUL_MODE_LONG64, 3);
	RIP = ENV_MEM - 2;
	v->mem[ENV_MEM - 2] = 0xeb;		/* jmp, the last two bytes mapped */
	v->mem[ENV_MEM - 1] = 0x10;
	CHECK(env_run(v) == EMUL_OK && RIP == ENV_MEM + 0x10);
	RIP = ENV_MEM - 2;
	v->mem[ENV_MEM - 2] = 0xe9;
	FAULTS(env_run(v), EMUL_VEC_PF, 0x14);
	CHECK(v->e.fault.cr2 == ENV_MEM && RIP == ENV_MEM - 2);
	/* one fetch for an instruction inside a page */
	RIP = 0x1000;
	v->fetches = 0;
	CHECK(RUN(0x90) == EMUL_OK && v->fetches == 1);
	RIP = 0x1fff;
	CHECK(RUN(0xb8, 1, 0, 0, 0) == EMUL_OK && RAX == 1 && RIP == 0x2004);
}

static void syscalls(void)
{
	env_mode(v, EMUL_MODE_LONG64, 3);
	v->star = 0x0023000800000000;
	v->lstar = 0xffffffff81000000;
	v->mask = 0x47700;
	v->e.rflags = 0x202;
	CHECK(RUN(0x0f, 0x05) == EMUL_OK && v->e.cpl == 0 && RIP == 0xffffffff81000000);
	CHECK(RCX == 0x1002 && v->e.regs[EMUL_R11] == 0x202 && v->e.rflags == 2);
	CHECK(v->segs[EMUL_SEG_CS].selector == 8 && v->segs[EMUL_SEG_SS].selector == 16);
	RIP = 0x1000;
	CHECK(RUN(0x48, 0x0f, 0x07) == EMUL_OK && v->e.cpl == 3 && RIP == 0x1002);
	CHECK(v->segs[EMUL_SEG_CS].selector == 0x33 && v->segs[EMUL_SEG_SS].selector == 0x2b);
	CHECK(v->e.rflags == 0x202);
	/* from 32-bit code, as on AMD's CPUs */
	env_mode(v, EMUL_MODE_PROT32, 3);
	v->e.lma = v->e.foreign = true;
	v->star = 0x0023000800000000;
	v->cstar = 0xffffffff82000000;
	v->mask = 0x47700;
	RIP = 0x1000;
	v->e.rflags = 0x202;
	CHECK(RUN(0x0f, 0x05) == EMUL_OK && v->e.cpl == 0 && RIP == 0xffffffff82000000);
	CHECK(RCX == 0x1002 && v->e.regs[EMUL_R11] == 0x202 && v->e.rflags == 2 && v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_L);
	env_mode(v, EMUL_MODE_PROT32, 0);
	v->e.lma = v->e.foreign = true;
	CHECK(RUN(0x0f, 0x07) == EMUL_UNHANDLEABLE);
	env_mode(v, EMUL_MODE_LONG64, 3);
	v->efer = 0;
	FAULTS_BARE(RUN(0x0f, 0x05), EMUL_VEC_UD);

	env_mode(v, EMUL_MODE_LONG64, 0);
	v->segs[EMUL_SEG_GS].base = 0x1111;
	v->gsbase = 0x2222;
	CHECK(RUN(0x0f, 0x01, 0xf8) == EMUL_OK);
	CHECK(v->segs[EMUL_SEG_GS].base == 0x2222 && v->gsbase == 0x1111);

	env_mode(v, EMUL_MODE_PROT32, 3);
	FAULTS(RUN(0x0f, 0x34), EMUL_VEC_GP, 0);
	v->sysenter[0] = 8;
	v->sysenter[1] = 0x7000;
	v->sysenter[2] = 0x4444;
	CHECK(RUN(0x0f, 0x34) == EMUL_OK && RIP == 0x4444 && RSP == 0x7000 && v->e.cpl == 0);
	RDX = 0x1000;
	RCX = 0x9000;
	CHECK(RUN(0x0f, 0x35) == EMUL_OK && RIP == 0x1000 && RSP == 0x9000 && v->e.cpl == 3);
	CHECK(v->segs[EMUL_SEG_CS].selector == 0x1b && v->segs[EMUL_SEG_SS].selector == 0x23);
	/* in long mode, as on Intel's */
	v->e.lma = v->e.foreign = true;
	v->sysenter[1] = 0xffffc90000001000;
	v->sysenter[2] = 0xffffffff83000000;
	CHECK(RUN(0x0f, 0x34) == EMUL_OK && RIP == 0xffffffff83000000 && RSP == 0xffffc90000001000 && v->e.cpl == 0);
	CHECK(v->segs[EMUL_SEG_CS].selector == 8 && v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_L);
	env_mode(v, EMUL_MODE_LONG64, 0);
	v->e.foreign = true;
	v->sysenter[0] = 8;
	RDX = 0x2000;
	RCX = 0x9000;
	CHECK(RUN(0x0f, 0x35) == EMUL_OK && RIP == 0x2000 && RSP == 0x9000 && v->e.cpl == 3);
	CHECK(v->segs[EMUL_SEG_CS].selector == 0x1b && !(v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_L));
	env_mode(v, EMUL_MODE_LONG64, 0);
	v->e.foreign = true;
	v->sysenter[0] = 8;
	RDX = 0x2000;
	RCX = 0x7fff12345678;
	CHECK(RUN(0x48, 0x0f, 0x35) == EMUL_OK && RIP == 0x2000 && RSP == 0x7fff12345678 && v->e.cpl == 3);
	CHECK(v->segs[EMUL_SEG_CS].selector == 0x2b && v->segs[EMUL_SEG_SS].selector == 0x33);
	env_mode(v, EMUL_MODE_LONG64, 0);
	v->sysenter[0] = 8;
	RDX = 1ull << 63;
	CHECK(RUN(0x48, 0x0f, 0x35) == EMUL_UNHANDLEABLE && RUN(0x0f, 0x34) == EMUL_UNHANDLEABLE);
	v->e.foreign = true;
	FAULTS(RUN(0x48, 0x0f, 0x35), EMUL_VEC_GP, 0);
	env_mode(v, EMUL_MODE_PROT32, 3);
	v->e.lma = true;
	CHECK(RUN(0x0f, 0x05) == EMUL_UNHANDLEABLE);
}

static void vectors(void)
{
	unsigned int k;

	env_mode(v, EMUL_MODE_LONG64, 0);
	for (k = 0; k < 32; k++)
		v->vec[1][k] = 0x80 + k;
	RDI = ENV_MMIO + 0x40;
	CHECK(RUN(0x0f, 0x11, 0x0f) == EMUL_OK);	/* movups %xmm1, (%rdi) */
	CHECK(!memcmp(v->mmio + 0x40, v->vec[1], 16) && mmio(0x50, 1) != 0x90);
	CHECK(RUN(0xc5, 0xfe, 0x7f, 0x0f) == EMUL_OK);	/* vmovdqu %ymm1, (%rdi) */
	CHECK(!memcmp(v->mmio + 0x40, v->vec[1], 32));
	CHECK(RUN(0xc5, 0xfe, 0x6f, 0x17) == EMUL_OK);	/* vmovdqu (%rdi), %ymm2 */
	CHECK(!memcmp(v->vec[2], v->vec[1], 32));
	CHECK(RUN(0xf3, 0x0f, 0x6f, 0x57, 0x10) == EMUL_OK);	/* movdqu 16(%rdi), %xmm2 */
	CHECK(!memcmp(v->vec[2], v->vec[1] + 16, 16) && !memcmp(v->vec[2] + 16, v->vec[1] + 16, 16));
	CHECK(RUN(0xc5, 0xf8, 0x10, 0x17) == EMUL_OK);	/* vmovups: clears the upper half */
	CHECK(v->vec[2][16] == 0 && v->vec[2][31] == 0);
	RDI++;
	FAULTS(RUN(0x0f, 0x28, 0x0f), EMUL_VEC_GP, 0);	/* movaps, misaligned */
	FAULTS(RUN(0x66, 0x0f, 0xe7, 0x0f), EMUL_VEC_GP, 0);
	RAX = 0x1122334455667788;
	CHECK(RUN(0x66, 0x48, 0x0f, 0x6e, 0xd8) == EMUL_OK);	/* movq %rax, %xmm3 */
	CHECK(!memcmp(v->vec[3], &v->e.regs[EMUL_RAX], 8) && v->vec[3][8] == 0);
	v->cr[0] |= X86_CR0_TS;
	FAULTS_BARE(RUN(0x0f, 0x10, 0x0f), EMUL_VEC_NM);
	v->cr[0] = X86_CR0_PE | X86_CR0_EM;
	FAULTS_BARE(RUN(0x0f, 0x10, 0x0f), EMUL_VEC_UD);
	v->cr[0] = X86_CR0_PE;
	v->xcr0 = 7;
	CHECK(RUN(0xc5, 0xf8, 0x10, 0x17) == EMUL_OK);
	FAULTS_BARE(RUN(0x62, 0xf1, 0x7c, 0x48, 0x10, 0x07), EMUL_VEC_UD);	/* EVEX, without its state */
	v->xcr0 = 3;
	FAULTS_BARE(RUN(0xc5, 0xf8, 0x10, 0x17), EMUL_VEC_UD);
	CHECK(RUN(0x0f, 0x58, 0xc1) == EMUL_UNHANDLEABLE);	/* addps */
}

static void vectors_512(void)
{
	unsigned int k;

	env_mode(v, EMUL_MODE_LONG64, 0);
	for (k = 0; k < 64; k++)
		v->vec[17][k] = 0x80 + k;
	RDI = ENV_MMIO + 0x40;
	CHECK(RUN(0x62, 0xe1, 0xfe, 0x48, 0x7f, 0x4f, 0x01) == EMUL_OK);	/* vmovdqu64 %zmm17, 64(%rdi) */
	CHECK(!memcmp(v->mmio + 0x80, v->vec[17], 64));
	CHECK(RUN(0x62, 0x61, 0xfe, 0x48, 0x6f, 0x7f, 0x01) == EMUL_OK);	/* vmovdqu64 64(%rdi), %zmm31 */
	CHECK(!memcmp(v->vec[31], v->vec[17], 64));
	/* bytes that are masked out are not touched, in a device least of all */
	memset(v->mmio, 0, sizeof(v->mmio));
	v->kmask[3] = 0xf0;
	v->wrote = false;
	CHECK(RUN(0x62, 0xe1, 0x7f, 0x4b, 0x7f, 0x0f) == EMUL_OK);		/* vmovdqu8 %zmm17, (%rdi){%k3} */
	CHECK(mmio(0x40, 8) == 0x8786858400000000 && mmio(0x48, 8) == 0);
	RDI = ENV_MEM - 32;
	memset(v->vec[5], 0xee, 64);
	v->kmask[1] = 0xff;
	FAULTS(RUN(0x62, 0xf1, 0x7e, 0x48, 0x6f, 0x2f), EMUL_VEC_PF, 0);	/* vmovdqu32 (%rdi), %zmm5 */
	set_mem(ENV_MEM - 8, 0x1122334455667788, 8);
	CHECK(RUN(0x62, 0xf1, 0x7e, 0x49, 0x6f, 0x2f) == EMUL_OK);		/* the same {%k1}: half of it */
	CHECK(!memcmp(v->vec[5] + 24, v->mem + ENV_MEM - 8, 8) && v->vec[5][32] == 0xee);
	CHECK(RUN(0x62, 0xf1, 0x7e, 0xc9, 0x6f, 0x2f) == EMUL_OK && v->vec[5][32] == 0);	/* {z} */
	FAULTS_BARE(RUN(0x62, 0xf1, 0x7e, 0xc9, 0x7f, 0x2f), EMUL_VEC_UD);	/* not with a store */
	/* a store of which one part would fault writes none */
	RDI = ENV_RDONLY - 32;
	set_mem(RDI, 0, 8);
	v->kmask[1] = 0x101;
	FAULTS(RUN(0x62, 0xf1, 0x7e, 0x49, 0x7f, 0x2f), EMUL_VEC_PF, 3);
	CHECK(mem(RDI, 8) == 0);
	v->xcr0 = 7;
	FAULTS_BARE(RUN(0x62, 0xf1, 0x7e, 0x48, 0x6f, 0x2f), EMUL_VEC_UD);
}

/* What not every host has, and what takes more than one access to a device */
static void vectors_more(void)
{
	unsigned int k;

	env_mode(v, EMUL_MODE_LONG64, 0);
	for (k = 0; k < 64; k++)
		v->mem[0x10000 + k] = k + 1;
	RSI = 0x10000;
	RAX = 0x12040;
	CHECK(RUN(0x66, 0x0f, 0x38, 0xf8, 0x06) == EMUL_OK);	/* movdir64b (%rsi), %rax */
	CHECK(!memcmp(v->mem + 0x12040, v->mem + 0x10000, 64));
	RAX = 0x12044;
	FAULTS(RUN(0x66, 0x0f, 0x38, 0xf8, 0x06), EMUL_VEC_GP, 0);
	RAX = 0x1122334455667788;
	CHECK(RUN(0x48, 0x0f, 0x38, 0xf9, 0x06) == EMUL_OK && mem(0x10000, 8) == RAX);	/* movdiri */
	CHECK(RUN(0xf3, 0x0f, 0xc7, 0xf8) == EMUL_OK && RAX == 77);	/* rdpid %rax */
	RDI = ENV_MMIO + 0x40;
	v->fx.sw = 0;
	v->fx.tw = 1;
	memcpy(v->fx.st[0], "\0\0\0\0\0\0\0\xc0\x01\x40", 10);	/* 6 */
	CHECK(RUN(0xdf, 0x3f) == EMUL_OK && mmio(0x40, 8) == 6 && v->fx.tw == 0);	/* fistpll */
	CHECK((v->fx.sw & 0x3800) == 0x0800);
	FAULTS_BARE((v->fx.sw |= 0x80, RUN(0xdf, 0x3f)), EMUL_VEC_MF);
	v->fx.sw = 0;
	CHECK(RUN(0x0f, 0x7f, 0x07) == EMUL_OK && v->fx.tw == 0xff);	/* movq %mm0, (%rdi) */
	RDI = 0x10000;
	v->fx.mxcsr = 0x1fa0;
	CHECK(RUN(0x0f, 0xae, 0x07) == EMUL_OK && mem(0x10018, 4) == 0x1fa0);	/* fxsave */
	set_mem(0x10018, 0x1f80, 4);
	CHECK(RUN(0x0f, 0xae, 0x0f) == EMUL_OK && v->fx.mxcsr == 0x1f80);	/* fxrstor */
	set_mem(0x10018, 0x80000000, 4);
	FAULTS(RUN(0x0f, 0xae, 0x0f), EMUL_VEC_GP, 0);
	RDI = 0x10008;
	FAULTS(RUN(0x0f, 0xae, 0x07), EMUL_VEC_GP, 0);
}

static void locked(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	RDI = 0x10000;
	set_mem(0x10000, 41, 8);
	CHECK(RUN(0xf0, 0x48, 0xff, 0x07) == EMUL_OK && mem(0x10000, 8) == 42);
	CHECK(v->cmpxchgs == 1 && v->writes == 0);
	CHECK(RUN(0x48, 0xff, 0x07) == EMUL_OK && v->writes == 1 && v->cmpxchgs == 1);
	v->steal = true;
	CODE(0xf0, 0x48, 0xff, 0x07);
	CHECK(env_step(v) == EMUL_RETRY);
	v->steal = false;
	/* xchg with memory is locked without saying so */
	v->cmpxchgs = 0;
	RAX = 7;
	CHECK(RUN(0x48, 0x87, 0x07) == EMUL_OK && v->cmpxchgs == 1 && mem(0x10000, 8) == 7);
	/* cmpxchg8b and 16b */
	set_mem(0x10010, 0x1111111122222222, 8);
	set_mem(0x10018, 0x3333333344444444, 8);
	RDI = 0x10010;
	RAX = 0x1111111122222222;
	RDX = 0x3333333344444444;
	RBX = 5;
	RCX = 6;
	CHECK(RUN(0xf0, 0x48, 0x0f, 0xc7, 0x0f) == EMUL_OK);
	CHECK(mem(0x10010, 8) == 5 && mem(0x10018, 8) == 6 && (v->e.rflags & X86_EFLAGS_ZF));
	CHECK(RUN(0xf0, 0x48, 0x0f, 0xc7, 0x0f) == EMUL_OK);
	CHECK(RAX == 5 && RDX == 6 && !(v->e.rflags & X86_EFLAGS_ZF));
	RDI = 0x10018;
	FAULTS(RUN(0xf0, 0x48, 0x0f, 0xc7, 0x0f), EMUL_VEC_GP, 0);
	RDI = ENV_RDONLY;
	FAULTS(RUN(0xff, 0x07), EMUL_VEC_PF, 3);	/* read for write */
}

static void tables(void)
{
	env_mode(v, EMUL_MODE_PROT32, 0);
	standard_gdt();
	RAX = 0x40;
	CHECK(RUN(0x0f, 0x00, 0xd8) == EMUL_OK);	/* ltr */
	CHECK(v->segs[EMUL_SEG_TR].base == 0x5000 && (v->mem[0x3000 + 0x40 + 5] & 0xf) == 0xb);
	FAULTS(RUN(0x0f, 0x00, 0xd8), EMUL_VEC_GP, 0x40);	/* busy now */
	RBX = ~0ull;
	CHECK(RUN(0x0f, 0x00, 0xcb) == EMUL_OK && RBX == 0x40);	/* str */
	RAX = 0x50;
	CHECK(RUN(0x0f, 0x00, 0xd0) == EMUL_OK);	/* lldt */
	CHECK(v->segs[EMUL_SEG_LDTR].base == 0x6000);
	memcpy(v->mem + 0x6008, v->mem + 0x3010, 8);
	RAX = 0x0c;
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK && v->segs[EMUL_SEG_DS].selector == 0x0c);
	RAX = 0x10;
	CHECK(RUN(0x0f, 0x03, 0xd8) == EMUL_OK && RBX == 0xffffffff);	/* lsl */
	CHECK(RUN(0x0f, 0x02, 0xd8) == EMUL_OK && (RBX & 0xff00) == 0x9200);	/* lar */
	CHECK(v->e.rflags & X86_EFLAGS_ZF);
	RAX = 0x1000;
	CHECK(RUN(0x0f, 0x03, 0xd8) == EMUL_OK && !(v->e.rflags & X86_EFLAGS_ZF));
	RAX = 0x10;
	CHECK(RUN(0x0f, 0x00, 0xe8) == EMUL_OK && (v->e.rflags & X86_EFLAGS_ZF)); /* verw */
	RAX = 0x08;
	CHECK(RUN(0x0f, 0x00, 0xe8) == EMUL_OK && !(v->e.rflags & X86_EFLAGS_ZF));
	CHECK(RUN(0x0f, 0x00, 0xe0) == EMUL_OK && (v->e.rflags & X86_EFLAGS_ZF)); /* verr */

	/* 16 bytes in long mode */
	env_mode(v, EMUL_MODE_LONG64, 0);
	standard_gdt();
	set_mem(0x3048, 0xffff8880, 8);
	RAX = 0x40;
	CHECK(RUN(0x0f, 0x00, 0xd8) == EMUL_OK);
	CHECK(v->segs[EMUL_SEG_TR].base == 0xffff888000005000);
	RBX = 0x10000;
	CHECK(RUN(0x0f, 0x01, 0x03) == EMUL_OK && mem(0x10000, 2) == 0xff &&
	      mem(0x10002, 8) == 0x3000);	/* sgdt */
	set_mem(0x10002, 0x800000000000, 8);
	FAULTS(RUN(0x0f, 0x01, 0x1b), EMUL_VEC_GP, 0);	/* lidt, not canonical */
}

static void system_insns(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	RAX = 0xffffffff00000005;
	RCX = 1;
	CHECK(RUN(0x0f, 0xa2) == EMUL_OK && RAX == 6 && RBX == 0xb0b && RCX == 3 && RDX == 0xd0d);
	RCX = MSR_LSTAR;
	RAX = 0x9abcdef0;
	RDX = 0x12345678;
	CHECK(RUN(0x0f, 0x30) == EMUL_OK && v->lstar == 0x123456789abcdef0);
	RAX = RDX = ~0ull;
	CHECK(RUN(0x0f, 0x32) == EMUL_OK && RAX == 0x9abcdef0 && RDX == 0x12345678);
	RCX = 0x12345;
	FAULTS(RUN(0x0f, 0x32), EMUL_VEC_GP, 0);
	CHECK(RUN(0x0f, 0x01, 0xf9) == EMUL_OK && RCX == 77 && RAX == 0x89abcdef);
	CHECK(RUN(0xf4) == EMUL_OK && v->last_sysop == EMUL_SYS_HLT);
	CHECK(RUN(0x0f, 0x09) == EMUL_OK && v->last_sysop == EMUL_SYS_WBINVD);
	CHECK(RUN(0xf3, 0x90) == EMUL_OK && v->last_sysop == EMUL_SYS_PAUSE);
	CHECK(RUN(0x0f, 0x01, 0xd9) == EMUL_OK && v->last_sysop == EMUL_SYS_HYPERCALL);
	RDI = 0x1234;
	CHECK(RUN(0x0f, 0x01, 0x3f) == EMUL_OK && v->last_invlpg == 0x1234);
	RDI = 0x1000;
	RAX = 0;
	set_mem(0x1000, 0x123, 8);
	set_mem(0x1008, 0x5678, 8);
	FAULTS(RUN(0x66, 0x0f, 0x38, 0x82, 0x07), EMUL_VEC_GP, 0);	/* invpcid: a context, without CR4.PCIDE */
	v->cr[4] |= X86_CR4_PCIDE;
	CHECK(RUN(0x66, 0x0f, 0x38, 0x82, 0x07) == EMUL_OK && v->last_invpcid == 0x123 && v->last_invlpg == 0x5678);
	set_mem(0x1008, 1ull << 60, 8);
	FAULTS(RUN(0x66, 0x0f, 0x38, 0x82, 0x07), EMUL_VEC_GP, 0);
	RAX = 1;
	CHECK(RUN(0x66, 0x0f, 0x38, 0x82, 0x07) == EMUL_OK && v->last_invpcid == 0x10123);
	set_mem(0x1000, 0x1000, 8);
	FAULTS(RUN(0x66, 0x0f, 0x38, 0x82, 0x07), EMUL_VEC_GP, 0);
	RAX = 4;
	set_mem(0x1000, 0, 8);
	FAULTS(RUN(0x66, 0x0f, 0x38, 0x82, 0x07), EMUL_VEC_GP, 0);
	CHECK(RUN(0x66, 0x0f, 0x38, 0x82, 0xc0) == EMUL_FAULT && v->e.fault.vector == EMUL_VEC_UD);
	CHECK(RUN(0x0f, 0x38, 0x82, 0x07) == EMUL_FAULT && v->e.fault.vector == EMUL_VEC_UD);
	v->cr[4] &= ~(u64)X86_CR4_PCIDE;
	RAX = 0x1122334455667788;
	CHECK(RUN(0x44, 0x0f, 0x22, 0xc0) == EMUL_OK && v->cr[8] == RAX);	/* cr8 */
	CHECK(RUN(0x0f, 0x23, 0xf8) == EMUL_OK && v->dr[7] == RAX);
	v->cr[0] = 0x80000019;
	CHECK(RUN(0x0f, 0x06) == EMUL_OK && v->cr[0] == 0x80000011);	/* clts */
	RAX = 0x6;
	CHECK(RUN(0x0f, 0x01, 0xf0) == EMUL_OK && v->cr[0] == 0x80000017);	/* lmsw keeps PE */
	CHECK(RUN(0x0f, 0x01, 0xe0) == EMUL_OK && RAX == 0x80000017);	/* smsw %eax */
	RCX = 0;
	RAX = 7;
	RDX = 0;
	CHECK(RUN(0x0f, 0x01, 0xd1) == EMUL_OK && v->xcr0 == 7);
	CHECK(RUN(0x0f, 0x01, 0xd0) == EMUL_OK && RAX == 7);
	CHECK(RUN(0xcd, 0x80) == EMUL_OK && v->last_int == 0x80 &&
	      v->last_int_kind == EMUL_SWINT_INT);
	CHECK(RUN(0xf1) == EMUL_OK && v->last_int_kind == EMUL_SWINT_ICEBP);
	FAULTS_BARE(RUN(0xdf, 0xe0), EMUL_VEC_NM);
	v->cr[0] = 0x80000011;
	RDI = 0x10000;
	CHECK(RUN(0xd9, 0x3f) == EMUL_OK && mem(0x10000, 2) == 0x37f);	/* fnstcw */
	CHECK(RUN(0xdf, 0xe0) == EMUL_OK && (RAX & 0xffff) == 0x3800);	/* fnstsw %ax */
	CHECK(RUN(0x0f, 0xaa) == EMUL_OK && v->last_sysop == EMUL_SYS_RSM);	/* rsm */
}

static void frames(void)
{
	env_mode(v, EMUL_MODE_PROT32, 0);
	RBP = 0x9010;
	set_mem(0x900c, 0xaaaa, 4);
	CHECK(RUN(0xc8, 0x20, 0x00, 0x02) == EMUL_OK);	/* enter $32, $2 */
	CHECK(mem(0x7ffc, 4) == 0x9010 && mem(0x7ff8, 4) == 0xaaaa && mem(0x7ff4, 4) == 0x7ffc);
	CHECK(RBP == 0x7ffc && RSP == 0x7fd4);
	CHECK(RUN(0xc9) == EMUL_OK && RBP == 0x9010 && RSP == 0x8000);
	/* a fault in the middle leaves the registers alone */
	RSP = 0x10;
	v->segs[EMUL_SEG_SS].attr |= 4;
	v->segs[EMUL_SEG_SS].limit = 7;
	FAULTS(RUN(0x60), EMUL_VEC_SS, 0);
	CHECK(RSP == 0x10);
	/* bound */
	env_mode(v, EMUL_MODE_PROT32, 0);
	RBX = 0x10000;
	set_mem(0x10000, (u32)-5, 4);
	set_mem(0x10004, 5, 4);
	RAX = (u32)-5;
	CHECK(RUN(0x62, 0x03) == EMUL_OK);
	RAX = 6;
	FAULTS_BARE(RUN(0x62, 0x03), EMUL_VEC_BR);
	/* aam by zero */
	FAULTS_BARE(RUN(0xd4, 0x00), EMUL_VEC_DE);
}

static void sreg_forms(void)
{
	env_init(v);
	v->segs[EMUL_SEG_ES].selector = 0x1234;
	CHECK(RUN(0x06) == EMUL_OK && RSP == 0x7ffe && mem(0x7ffe, 2) == 0x1234);	/* push %es */
	CHECK(RUN(0x0f, 0xa1) == EMUL_OK && v->segs[EMUL_SEG_FS].base == 0x12340);	/* pop %fs */
	CHECK(RSP == 0x8000);
	set_mem(0x8000, 0x0900, 2);
	CHECK(RUN(0x17) == EMUL_OK && v->segs[EMUL_SEG_SS].base == 0x9000);	/* pop %ss */
	CHECK(v->e.shadow == EMUL_SHADOW_SS && RSP == 0x8002);
	RAX = ~0ull;
	CHECK(RUN(0x8c, 0xc0) == EMUL_OK && RAX == 0xffffffffffff1234);	/* mov %es, %ax */
	CHECK(RUN(0x66, 0x8c, 0xc0) == EMUL_OK && RAX == 0x1234);
	RBX = 0x500;
	set_mem(0x500, ~0ull, 8);
	CHECK(RUN(0x66, 0x8c, 0x07) == EMUL_OK && mem(0x500, 8) == 0xffffffffffff1234);
	set_mem(0x600, 0x2000111122223333, 8);
	CHECK(RUN(0x66, 0x0f, 0xb2, 0x26, 0x00, 0x06) == EMUL_OK);	/* lss 0x600, %esp */
	CHECK(RSP == 0x22223333 && v->segs[EMUL_SEG_SS].selector == 0x1111);
	CHECK(v->e.shadow == 0);

	env_init(v);
	v->e.mode = EMUL_MODE_VM86;
	v->e.cpl = 3;
	v->e.rflags = 0x23002;
	RAX = 0x3000;
	CHECK(RUN(0x8e, 0xd8) == EMUL_OK && v->segs[EMUL_SEG_DS].base == 0x30000);
	CHECK((v->segs[EMUL_SEG_DS].attr & EMUL_ATTR_DPL) == EMUL_ATTR_DPL);
	CHECK(RUN(0xea, 0x10, 0x00, 0x00, 0x02) == EMUL_OK && RIP == 0x10);
	CHECK(v->segs[EMUL_SEG_CS].base == 0x2000);
	CHECK(RUN(0xcd, 0x21) == EMUL_OK && v->last_int == 0x21);
	v->cr[4] = X86_CR4_VME;
	CHECK(RUN(0xcd, 0x21) == EMUL_UNHANDLEABLE);
}

static void odd_ends(void)
{
	env_init(v);
	v->e.rflags |= X86_EFLAGS_IF | X86_EFLAGS_OF;
	CHECK(RUN(0xfa) == EMUL_OK && !(v->e.rflags & X86_EFLAGS_IF));
	set_mem(0x8000, 0x7202, 2);
	CHECK(RUN(0x9d) == EMUL_OK && v->e.rflags == 0x7202);	/* real mode may set IOPL */
	set_mem(3 * 4, 0x03000333, 4);
	set_mem(4 * 4, 0x04000444, 4);
	CHECK(RUN(0xcc) == EMUL_OK && RIP == 0x333 && v->segs[EMUL_SEG_CS].base == 0x3000);
	CHECK(RUN(0xce) == EMUL_OK && RIP == 0x334);		/* into, OF clear */
	v->e.rflags |= X86_EFLAGS_OF;
	CHECK(RUN(0xce) == EMUL_OK && RIP == 0x444);
	v->segs[EMUL_SEG_CS].base = 0;
	set_mem(0x500, 0x00550066, 4);
	CHECK(RUN(0xff, 0x1e, 0x00, 0x05) == EMUL_OK && RIP == 0x66);	/* lcall *0x500 */
	CHECK(v->segs[EMUL_SEG_CS].selector == 0x55);

	env_mode(v, EMUL_MODE_PROT32, 0);
	v->dt[EMUL_DT_IDT].base = 0xabcd;
	RBX = 0x10000;
	CHECK(RUN(0x0f, 0x01, 0x0b) == EMUL_OK && mem(0x10000, 6) == 0xabcd03ff);
	v->dr[6] = 0xffff0ff0;
	CHECK(RUN(0x0f, 0x21, 0xf0) == EMUL_OK && RAX == 0xffff0ff0);
	v->segs[EMUL_SEG_DS].base = 0x100;
	CHECK(RUN(0x0f, 0x01, 0x3b) == EMUL_OK && v->last_invlpg == 0x10100);
	v->segs[EMUL_SEG_DS].base = 0;
	v->cr[4] |= X86_CR4_PCE;
	v->e.cpl = 3;
	v->e.rflags |= X86_EFLAGS_IOPL;
	RCX = 2;
	CHECK(RUN(0x0f, 0x33) == EMUL_OK && RAX == 2 && RDX == 1);
	RDI = 0x10000;
	RDX = 0x60;
	CHECK(RUN(0x6c) == EMUL_OK && RDI == 0x10001 && RCX == 2 && v->pio_reads == 1);
	RSI = 0x10000;
	CHECK(RUN(0x66, 0x6f) == EMUL_OK && RSI == 0x10002 && v->pio_logged == 2);
	v->cr[0] |= X86_CR0_TS | X86_CR0_MP;
	FAULTS_BARE(RUN(0x9b), EMUL_VEC_NM);
	v->cr[0] = X86_CR0_PE;
	CHECK(RUN(0x9b) == EMUL_OK && RUN(0xdb, 0xe3) == EMUL_OK);

	env_mode(v, EMUL_MODE_LONG64, 0);
	v->star = 0x0023000800000000;
	RCX = 0xffffffff00004000;
	v->e.regs[EMUL_R11] = 0x202;
	CHECK(RUN(0x0f, 0x07) == EMUL_OK && RIP == 0x4000);	/* sysretl */
	CHECK(v->segs[EMUL_SEG_CS].selector == 0x23 &&
	      !(v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_L));
	v->e.cpl = 0;
	RCX = 0x800000000000;
	FAULTS(RUN(0x48, 0x0f, 0x07), EMUL_VEC_GP, 0);
	RAX = 0x88;
	CHECK(RUN(0xf3, 0x0f, 0xbc, 0xd8) == EMUL_OK && RBX == 3);	/* tzcnt */
	v->e.rflags |= X86_EFLAGS_CF;
	RBX = 0;
	v->lacks_tzcnt = true;
	CHECK(RUN(0xf3, 0x0f, 0xbc, 0xd8) == EMUL_OK && RBX == 3 && !(v->e.rflags & X86_EFLAGS_ZF));	/* bsf */
	CHECK(RUN(0xf3, 0x0f, 0xbd, 0xd8) == EMUL_OK && RBX == 24);	/* lzcnt */
	CHECK(RUN(0xf3, 0x0f, 0xb8, 0xd8) == EMUL_OK && RBX == 2);	/* popcnt */
}

struct length {
	enum emul_mode mode;
	int len;
	u8 b[15];
};

#define R EMUL_MODE_REAL
#define P EMUL_MODE_PROT32
#define L EMUL_MODE_LONG64

/* What hardware may intercept, bare and with prefixes. */
static const struct length lengths[] = {
	{ L, 2, { 0x0f, 0xa2 } }, { L, 3, { 0x66, 0x0f, 0xa2 } },	/* cpuid */
	{ L, 4, { 0xf3, 0x48, 0x0f, 0xa2 } }, { R, 2, { 0x0f, 0xa2 } },
	{ L, 1, { 0xf4 } }, { R, 2, { 0x66, 0xf4 } },			/* hlt */
	{ L, 2, { 0x0f, 0x32 } }, { L, 2, { 0x0f, 0x30 } },		/* rdmsr, wrmsr */
	{ L, 3, { 0x0f, 0x01, 0xd9 } }, { L, 3, { 0x0f, 0x01, 0xc1 } },	/* vmmcall, vmcall */
	{ L, 2, { 0xe4, 0x60 } }, { L, 1, { 0xec } }, { L, 2, { 0x66, 0xed } },
	{ L, 2, { 0xe7, 0x80 } }, { L, 1, { 0xee } }, { L, 2, { 0xf3, 0x6e } },
	{ L, 3, { 0x66, 0xf3, 0x6d } }, { L, 3, { 0x67, 0xf3, 0x6c } },
	{ L, 3, { 0x0f, 0x01, 0x38 } }, { L, 4, { 0x0f, 0x01, 0x7d, 0x00 } },	/* invlpg */
	{ L, 8, { 0x0f, 0x01, 0x3c, 0x25, 0, 0, 0, 0 } },
	{ L, 5, { 0x41, 0x0f, 0x01, 0x3c, 0x24 } }, { R, 5, { 0x0f, 0x01, 0x3e, 0, 0 } },
	{ P, 7, { 0x0f, 0x01, 0x3d, 0, 0, 0, 0 } },
	{ L, 3, { 0x0f, 0x20, 0xc0 } }, { L, 4, { 0x44, 0x0f, 0x22, 0xc0 } },	/* mov cr */
	{ L, 4, { 0xf0, 0x0f, 0x22, 0xc0 } }, { L, 3, { 0x0f, 0x22, 0x04 } },	/* mod ignored */
	{ L, 3, { 0x0f, 0x21, 0xf8 } }, { L, 3, { 0x0f, 0x23, 0x84 } },		/* mov dr */
	{ L, 2, { 0x0f, 0x31 } }, { L, 3, { 0x0f, 0x01, 0xf9 } },	/* rdtsc, rdtscp */
	{ L, 2, { 0x0f, 0x33 } }, { L, 2, { 0x0f, 0x09 } }, { L, 3, { 0xf3, 0x0f, 0x09 } },
	{ L, 2, { 0x0f, 0x08 } }, { L, 3, { 0x0f, 0x01, 0xc8 } }, { L, 3, { 0x0f, 0x01, 0xc9 } },
	{ L, 3, { 0x0f, 0x01, 0xfa } }, { L, 3, { 0x0f, 0x01, 0xfb } },	/* monitorx, mwaitx */
	{ L, 2, { 0xf3, 0x90 } }, { L, 3, { 0x0f, 0x01, 0xd1 } },	/* pause, xsetbv */
	{ L, 3, { 0x0f, 0x01, 0xd8 } }, { L, 3, { 0x0f, 0x01, 0xda } },	/* vmrun, vmload */
	{ L, 3, { 0x0f, 0x01, 0xdb } }, { L, 3, { 0x0f, 0x01, 0xdc } },	/* vmsave, stgi */
	{ L, 3, { 0x0f, 0x01, 0xdd } }, { L, 3, { 0x0f, 0x01, 0xde } },	/* clgi, skinit */
	{ L, 3, { 0x0f, 0x01, 0xdf } }, { L, 3, { 0x0f, 0x01, 0xfd } },	/* invlpga, rdpru */
	{ L, 3, { 0x0f, 0x01, 0xc2 } }, { L, 3, { 0x0f, 0x01, 0xc4 } },	/* vmlaunch, vmxoff */
	{ L, 3, { 0x0f, 0xc7, 0x30 } }, { L, 4, { 0x66, 0x0f, 0xc7, 0x30 } },	/* vmptrld, vmclear */
	{ L, 4, { 0xf3, 0x0f, 0xc7, 0x30 } }, { L, 3, { 0x0f, 0xc7, 0x38 } },	/* vmxon, vmptrst */
	{ L, 3, { 0x0f, 0x78, 0xc1 } }, { L, 4, { 0x0f, 0x79, 0x48, 0x08 } },	/* vmread, vmwrite */
	{ L, 5, { 0x66, 0x0f, 0x38, 0x80, 0x00 } },			/* invept */
	{ L, 5, { 0x66, 0x0f, 0x38, 0x82, 0x07 } },			/* invpcid */
	{ L, 3, { 0x0f, 0x01, 0x10 } }, { L, 3, { 0x0f, 0x01, 0x08 } },	/* lgdt, sidt */
	{ L, 3, { 0x0f, 0x00, 0xd8 } }, { L, 3, { 0x0f, 0x00, 0xc0 } },	/* ltr, sldt */
	{ L, 3, { 0x0f, 0x01, 0xf0 } }, { L, 2, { 0x0f, 0x06 } },	/* lmsw, clts */
	{ L, 2, { 0xcd, 0x80 } }, { L, 1, { 0xcc } }, { L, 1, { 0xf1 } },
	{ L, 1, { 0xcf } }, { L, 2, { 0x48, 0xcf } }, { L, 1, { 0x9c } }, { L, 1, { 0x9d } },
	{ L, 2, { 0x0f, 0xaa } }, { L, 2, { 0x0f, 0x05 } }, { L, 2, { 0x0f, 0x37 } },
	{ L, 3, { 0x0f, 0xc7, 0xf0 } }, { L, 3, { 0x0f, 0xc7, 0xf8 } },	/* rdrand, rdseed */
	{ L, 4, { 0xf3, 0x0f, 0xc7, 0xf8 } },				/* rdpid */
	{ L, 3, { 0x0f, 0xae, 0xf0 } }, { L, 5, { 0x0f, 0xae, 0x74, 0x24, 0x10 } },
	{ P, 7, { 0xea, 1, 2, 3, 4, 5, 6 } }, { R, 5, { 0xea, 1, 2, 3, 4 } },
	{ L, 10, { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8 } },
	{ L, 9, { 0xa1, 1, 2, 3, 4, 5, 6, 7, 8 } }, { L, 6, { 0x67, 0xa1, 1, 2, 3, 4 } },
	{ L, 4, { 0xc8, 1, 2, 3 } }, { L, 4, { 0xc5, 0xf8, 0x10, 0x07 } },
	{ L, 3, { 0xc5, 0xf8, 0x77 } }, { L, 6, { 0xc4, 0xe3, 0x79, 0x16, 0xc0, 0x01 } },
	{ L, 7, { 0x62, 0xf1, 0x7c, 0x48, 0x10, 0x47, 0x01 } },
	{ P, 2, { 0xc5, 0x07 } }, { P, 4, { 0xc5, 0xf8, 0x10, 0x07 } },
	{ R, 3, { 0xc5, 0x46, 0x01 } },
	{ P, 6, { 0x62, 0xf1, 0x7c, 0x48, 0x10, 0xc7 } },
	{ P, EMUL_LEN_INVALID, { 0x62, 0xf1, 0x7c, 0x40, 0x10, 0xc7 } },	/* V' */
	{ L, EMUL_LEN_INVALID, { 0x06 } }, { L, EMUL_LEN_INVALID, { 0x0f, 0x0b } },
	{ L, EMUL_LEN_INVALID, { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
				 0x66, 0x66, 0x66, 0x66, 0x66 } },
};

#undef R
#undef P
#undef L

static void insn_length(void)
{
	unsigned int k, n;
	int len;

	for (k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
		const struct length *l = &lengths[k];

		len = emul_insn_length(l->b, 15, l->mode);
		if (len != l->len) {
			printf("# entry %u (%02x %02x %02x): length %d, not %d\n", k, l->b[0],
			       l->b[1], l->b[2], len, l->len);
			ok = false;
		}
		/* with fewer bytes it asks for more */
		for (n = 0; l->len > 0 && n < (unsigned int)l->len; n++)
			CHECK(emul_insn_length(l->b, n, l->mode) == EMUL_LEN_MORE);
		if (l->len > 0)
			CHECK(emul_insn_length(l->b, l->len, l->mode) == l->len);
	}
}

/* Each is refused with what it would have to do beside, before anything is read or written, and with nothing else. */
static void flow(void)
{
	static const struct {
		u8 cet, b[3];
	} insns[] = {
		{ EMUL_CET_STACK, { 0xc3 } },				/* ret */
		{ EMUL_CET_STACK, { 0xc2, 0x08, 0x00 } },
		{ EMUL_CET_STACK | EMUL_CET_BRANCH, { 0xff, 0x17 } },	/* call *(%rdi) */
		{ EMUL_CET_BRANCH, { 0xff, 0x27 } },			/* jmp *(%rdi) */
		{ EMUL_CET_FAR, { 0xff, 0x1f } },			/* lcall *(%rdi) */
		{ EMUL_CET_FAR, { 0xff, 0x2f } },			/* ljmp *(%rdi) */
		{ EMUL_CET_FAR, { 0xcb } },				/* lret */
		{ EMUL_CET_FAR, { 0xca, 0x08, 0x00 } },
		{ EMUL_CET_FAR, { 0xcf } },				/* iret */
		{ EMUL_CET_FAR, { 0x48, 0xcf } },
		{ EMUL_CET_FAR, { 0x0f, 0x05 } },			/* syscall */
		{ EMUL_CET_FAR, { 0x0f, 0x07 } },
		{ 0, { 0x8b, 0x07 } },					/* mov (%rdi), %eax */
		{ 0, { 0xeb, 0x00 } },					/* jmp */
		{ 0, { 0x50 } },					/* push */
	};
	unsigned int k, cet;

	for (k = 0; k < sizeof(insns) / sizeof(insns[0]); k++)
		for (cet = 0; cet < 16; cet++) {
			bool refused = cet & (insns[k].cet | EMUL_CET_ENDBR);
			enum emul_result r;

			env_mode(v, EMUL_MODE_LONG64, 0);
			v->e.cet = cet;
			RDI = refused ? ENV_MMIO : 0x8000;
			RSP = 0x7000;
			env_code(v, insns[k].b, sizeof(insns[k].b));
			r = env_run(v);
			if ((r == EMUL_UNHANDLEABLE) == refused && !v->exits)
				continue;
			printf("# %02x %02x with %x: %d, %u exits\n", insns[k].b[0], insns[k].b[1], cet, r, v->exits);
			ok = false;
		}
	env_mode(v, EMUL_MODE_LONG64, 0);
	v->e.cet = EMUL_CET_STACK | EMUL_CET_BRANCH | EMUL_CET_FAR;
	RSP = 0x7000;
	CHECK(RUN(0xe8, 0, 0, 0, 0) == EMUL_UNHANDLEABLE);	/* call */
	CHECK(RUN(0xe9, 0, 0, 0, 0) == EMUL_OK);
	v->e.mode = EMUL_MODE_PROT32;
	CHECK(RUN(0x0f, 0x34) == EMUL_UNHANDLEABLE);		/* sysenter */
	CHECK(RUN(0x0f, 0x35) == EMUL_UNHANDLEABLE);
	CHECK(RUN(0x9a, 0, 0, 0, 0, 8, 0) == EMUL_UNHANDLEABLE);	/* lcall $8, $0 */
	CHECK(RUN(0xea, 0, 0, 0, 0, 8, 0) == EMUL_UNHANDLEABLE);
	v->e.mode = EMUL_MODE_LONG64;
	v->e.cet = 0;
	CHECK(RUN(0xe8, 0, 0, 0, 0) == EMUL_OK);
}

static const struct {
	const char *name;
	void (*fn)(void);
} tests[] = {
#define T(fn)	{ #fn, fn }
	T(mmio_read), T(mmio_write), T(same_again), T(mmio_rmw), T(mmio_two_reads), T(rep_mmio), T(rep_rounds),
	T(pio), T(rep_pio), T(io_permission), T(real_segments), T(real_far), T(real_stack),
	T(mode_switch), T(seg_faults), T(prot_far), T(prot_iret), T(long_iret), T(privilege),
	T(invalid), T(canonical), T(masked), T(fetch_pages), T(syscalls), T(vectors), T(vectors_512), T(vectors_more), T(locked), T(tables),
	T(system_insns), T(frames), T(sreg_forms),
	T(odd_ends), T(insn_length), T(task_states), T(task_16), T(task_insns), T(task_early), T(task_late), T(call_gates),
	T(flow),
#undef T
};

int main(void)
{
	unsigned int k, n = sizeof(tests) / sizeof(tests[0]);

	v = malloc(sizeof(*v));
	if (!v)
		return 1;
	tap_plan(n);
	for (k = 0; k < n; k++) {
		ok = true;
		tests[k].fn();
		tap_result(ok, "emul: %s", tests[k].name);
	}
	free(v);
	return tap_exit();
}
