// SPDX-License-Identifier: GPL-2.0-only
/* Task switches and call gates, with known results: all of both machine states, and each fault in its place. */
#include "emul_test.h"

#define TSS_A	0x5000u
#define TSS_B	0x5800u
#define TSS_C	0x5c00u		/* 16 bits */
#define A_SEL	0x40
#define B_SEL	0x48
#define C_SEL	0x68
#define LDT_SEL	0x50
#define GATE_SEL 0x70
#define TASK_GATE 0x78

static void gdt_raw(u16 sel, u64 raw)
{
	set_mem(0x3000 + sel, raw, 8);
}

static void busy(u16 sel, bool on)
{
	v->mem[0x3000 + sel + 5] = (v->mem[0x3000 + sel + 5] & ~2) | (on ? 2 : 0);
}

static bool is_busy(u16 sel)
{
	return v->mem[0x3000 + sel + 5] & 2;
}

static void two_tasks(u8 cpl)
{
	unsigned int k;

	env_mode(v, EMUL_MODE_PROT32, cpl);
	standard_gdt();
	env_gdt(v, A_SEL / 8, TSS_A, 0x67, EMUL_ATTR_P | 0xb);
	env_gdt(v, B_SEL / 8, TSS_B, 0x67, EMUL_ATTR_P | 0x9);
	env_gdt(v, C_SEL / 8, TSS_C, 0x2b, EMUL_ATTR_P | 0x1);
	gdt_raw(TASK_GATE, 0x0000850000000000ull | B_SEL << 16);
	v->segs[EMUL_SEG_TR] = (struct emul_seg){ .base = TSS_A, .limit = 0x67, .attr = EMUL_ATTR_P | 0xb,
						  .selector = A_SEL };
	for (k = 0; k < 8; k++) {
		v->regs[k] = 0xa0a0a000 + k;
		set_mem(TSS_B + 0x28 + k * 4, 0xb0b0b000 + k, 4);
		set_mem(TSS_C + 0x12 + k * 2, 0xc000 + k, 2);
	}
	RSP = 0x8000;
	set_mem(TSS_A + 0x1c, 0xcccccccc, 4);
	set_mem(TSS_B + 0x1c, 0x9000, 4);		/* cr3 */
	set_mem(TSS_B + 0x20, 0x4000, 4);		/* eip */
	set_mem(TSS_B + 0x24, 0x203, 4);
	set_mem(TSS_B + 0x38, 0x7000, 4);		/* esp */
	for (k = 0; k < 6; k++)
		set_mem(TSS_B + 0x48 + k * 4, 0x10, 2);
	set_mem(TSS_B + 0x4c, 0x08, 2);			/* cs */
	set_mem(TSS_B + 0x60, LDT_SEL, 2);
	set_mem(TSS_C + 0x0e, 0x4400, 2);
	set_mem(TSS_C + 0x10, 0x3002, 2);
	for (k = 0; k < 4; k++)
		set_mem(TSS_C + 0x22 + k * 2, 0x10, 2);
	set_mem(TSS_C + 0x24, 0x08, 2);
	v->cr[0] |= X86_CR0_PG;
	v->cr[3] = 0x1000;
	v->e.rflags = X86_EFLAGS_FIXED | X86_EFLAGS_CF | X86_EFLAGS_RF;
}

static enum emul_result switch_to(u16 sel, enum emul_switch why, u64 rip)
{
	struct emul_task t = { .selector = sel, .why = why, .rip = rip };

	return emul_task_switch(&v->e, &t);
}

static void check_saved(u32 eip, u32 flags)
{
	unsigned int k;

	CHECK(mem(TSS_A + 0x1c, 4) == 0xcccccccc);	/* CR3 is not saved */
	CHECK(mem(TSS_A + 0x20, 4) == eip && mem(TSS_A + 0x24, 4) == flags);
	for (k = 0; k < 8; k++)
		CHECK(mem(TSS_A + 0x28 + k * 4, 4) == (k == EMUL_RSP ? 0x8000 : 0xa0a0a000 + k));
	for (k = 0; k < 6; k++)
		CHECK(mem(TSS_A + 0x48 + k * 4, 4) == (k == EMUL_SEG_CS ? 0x08 : 0x10));
}

static void check_b(u64 flags, u32 esp)
{
	unsigned int k;

	CHECK(RIP == 0x4000 && v->e.rflags == flags && v->e.cpl == 0);
	for (k = 0; k < 8; k++)
		CHECK(v->regs[k] == (k == EMUL_RSP ? esp : 0xb0b0b000 + k));
	CHECK(v->segs[EMUL_SEG_TR].selector == B_SEL && v->segs[EMUL_SEG_TR].base == TSS_B &&
	      v->segs[EMUL_SEG_TR].attr == (EMUL_ATTR_P | 0xb));
	CHECK(v->segs[EMUL_SEG_LDTR].selector == LDT_SEL && v->segs[EMUL_SEG_LDTR].base == 0x6000);
	CHECK(v->segs[EMUL_SEG_CS].selector == 8 && v->segs[EMUL_SEG_CS].attr & 8);
	CHECK(v->segs[EMUL_SEG_FS].selector == 0x10 && v->segs[EMUL_SEG_FS].limit == 0xffffffff);
	CHECK(v->cr[0] & X86_CR0_TS && v->cr[3] == 0x9000);
	CHECK(is_busy(B_SEL));
}

void task_states(void)
{
	struct emul_task t = { .selector = B_SEL, .why = EMUL_SWITCH_GATE, .has_error = true, .error = 0x1234 };

	two_tasks(0);
	CHECK(switch_to(B_SEL, EMUL_SWITCH_JMP, 0x1007) == EMUL_OK && v->e.shadow == EMUL_TASK_NEW);
	check_saved(0x1007, 3);
	check_b(0x203, 0x7000);
	CHECK(!is_busy(A_SEL) && mem(TSS_B, 2) == 0);

	two_tasks(0);
	CHECK(switch_to(B_SEL, EMUL_SWITCH_CALL, 0x1007) == EMUL_OK);
	check_saved(0x1007, 3);
	check_b(0x203 | X86_EFLAGS_NT, 0x7000);
	CHECK(is_busy(A_SEL) && mem(TSS_B, 2) == A_SEL);

	/* what a gate brings has an error code, and RF is the one of the fault */
	two_tasks(0);
	set_mem(TSS_B + 0x64, 1, 2);
	t.rip = 0x1000;
	CHECK(emul_task_switch(&v->e, &t) == EMUL_OK && v->e.shadow == (EMUL_TASK_NEW | EMUL_TASK_TRAP));
	check_saved(0x1000, 3 | X86_EFLAGS_RF);
	check_b(0x203 | X86_EFLAGS_NT, 0x6ffc);
	CHECK(mem(0x6ffc, 4) == 0x1234 && is_busy(A_SEL));

	two_tasks(0);
	busy(B_SEL, true);
	v->e.rflags |= X86_EFLAGS_NT;
	CHECK(switch_to(B_SEL, EMUL_SWITCH_IRET, 0x1001) == EMUL_OK);
	CHECK(v->e.shadow == (EMUL_TASK_NEW | EMUL_SHADOW_IRET));
	check_saved(0x1001, 3);
	check_b(0x203, 0x7000);
	CHECK(!is_busy(A_SEL));

	/* without paging CR3 stays; virtual-8086 mode has segments of its own */
	two_tasks(0);
	v->cr[0] &= ~(u64)X86_CR0_PG;
	set_mem(TSS_B + 0x24, 0x23002, 4);
	set_mem(TSS_B + 0x4c, 0x1234, 2);
	CHECK(switch_to(B_SEL, EMUL_SWITCH_JMP, 0) == EMUL_OK && v->cr[3] == 0x1000 && v->e.cpl == 3);
	CHECK(v->segs[EMUL_SEG_CS].base == 0x12340 && v->segs[EMUL_SEG_SS].attr & EMUL_ATTR_DPL);
	CHECK(v->e.rflags == 0x23002);

	/* to user mode: SS and CS of level 3 */
	two_tasks(0);
	set_mem(TSS_B + 0x4c, 0x1b, 2);
	for (unsigned int k = 0x48; k <= 0x5c; k += 4)
		if (k != 0x4c)
			set_mem(TSS_B + k, 0x23, 2);
	CHECK(switch_to(B_SEL, EMUL_SWITCH_JMP, 0) == EMUL_OK && v->e.shadow == EMUL_TASK_NEW && v->e.cpl == 3);
	CHECK(v->segs[EMUL_SEG_SS].selector == 0x23);
}

void task_16(void)
{
	unsigned int k;

	two_tasks(0);
	CHECK(switch_to(C_SEL, EMUL_SWITCH_CALL, 0x1007) == EMUL_OK);
	check_saved(0x1007, 3);
	CHECK(RIP == 0x4400 && v->e.rflags == (0x3002 | X86_EFLAGS_NT) && mem(TSS_C, 2) == A_SEL);
	for (k = 0; k < 8; k++)
		CHECK(v->regs[k] == 0xc000 + k);
	CHECK(v->segs[EMUL_SEG_FS].attr == EMUL_ATTR_UNUSABLE && v->segs[EMUL_SEG_GS].selector == 0);
	CHECK(v->segs[EMUL_SEG_LDTR].attr & EMUL_ATTR_UNUSABLE);
	CHECK(v->cr[3] == 0x1000);
	/* and back, saved in 16 bits */
	v->e.mode = EMUL_MODE_PROT32;
	v->regs[EMUL_RBX] = 0x5555dddd;
	v->e.rflags |= X86_EFLAGS_ZF;
	set_mem(TSS_A + 0x1c, 0x1000, 4);
	CHECK(switch_to(A_SEL, EMUL_SWITCH_IRET, 0x4401) == EMUL_OK && RIP == 0x1007 && RBX == 0xa0a0a003);
	CHECK(mem(TSS_C + 0x0e, 2) == 0x4401 && mem(TSS_C + 0x10, 2) == 0x3042 && mem(TSS_C + 0x18, 2) == 0xdddd);
	CHECK(mem(TSS_C + 0x1a, 2) == 0xc004 && mem(TSS_C + 0x24, 2) == 8 && !is_busy(C_SEL));
	CHECK(mem(TSS_C + 0x2a, 2) == 0);		/* its LDT is not saved */
}

/* What instructions make of it, and what they check first */
void task_insns(void)
{
	two_tasks(0);
	CHECK(RUN(0xea, 0, 0, 0, 0, B_SEL, 0) == EMUL_OK);	/* ljmp */
	check_saved(0x1007, 3);
	check_b(0x203, 0x7000);
	two_tasks(0);
	CHECK(RUN(0x9a, 0, 0, 0, 0, TASK_GATE, 0) == EMUL_OK);	/* lcall */
	check_b(0x203 | X86_EFLAGS_NT, 0x7000);
	RIP = 0x1000;
	set_mem(TSS_A + 0x1c, 0x1000, 4);
	CHECK(RUN(0xcf) == EMUL_OK && RIP == 0x1007 && !is_busy(B_SEL) && is_busy(A_SEL));
	CHECK(mem(TSS_B + 0x20, 4) == 0x1001 && mem(TSS_B + 0x24, 4) == 0x203);
	CHECK(v->e.shadow == (EMUL_TASK_NEW | EMUL_SHADOW_IRET));

	two_tasks(3);
	FAULTS(RUN(0xea, 0, 0, 0, 0, B_SEL | 3, 0), EMUL_VEC_GP, B_SEL);
	FAULTS(RUN(0xea, 0, 0, 0, 0, TASK_GATE | 3, 0), EMUL_VEC_GP, TASK_GATE);
	gdt_raw(TASK_GATE, 0x0000e50000000000ull | B_SEL << 16);	/* the gate's privilege, not the TSS's */
	CHECK(RUN(0xea, 0, 0, 0, 0, TASK_GATE | 3, 0) == EMUL_OK);
	two_tasks(0);
	FAULTS(RUN(0xea, 0, 0, 0, 0, TASK_GATE | 3, 0), EMUL_VEC_GP, TASK_GATE);
	gdt_raw(TASK_GATE, 0x0000050000000000ull | B_SEL << 16);
	FAULTS(RUN(0xea, 0, 0, 0, 0, TASK_GATE, 0), EMUL_VEC_NP, TASK_GATE);
	FAULTS(RUN(0xea, 0, 0, 0, 0, A_SEL, 0), EMUL_VEC_GP, A_SEL);	/* busy */
	/* there are none in long mode */
	two_tasks(0);
	v->e.lma = true;
	FAULTS(RUN(0xea, 0, 0, 0, 0, B_SEL, 0), EMUL_VEC_GP, B_SEL);
	v->e.rflags |= X86_EFLAGS_NT;
	FAULTS(RUN(0xcf), EMUL_VEC_GP, 0);
}

/* Faults that find the old task as it was */
void task_early(void)
{
	static const struct {
		u16 sel;
		u8 why, vector;
		u16 error, limit;
		u8 type;	/* of B's descriptor */
	} t[] = {
		{ 0, EMUL_SWITCH_GATE, EMUL_VEC_GP, 0, 0x67, 0x89 },
		{ 0, EMUL_SWITCH_IRET, EMUL_VEC_TS, 0, 0x67, 0x89 },
		{ B_SEL | 4, EMUL_SWITCH_JMP, EMUL_VEC_GP, B_SEL | 4, 0x67, 0x89 },
		{ B_SEL | 4, EMUL_SWITCH_IRET, EMUL_VEC_TS, B_SEL | 4, 0x67, 0x8b },
		{ 0x200, EMUL_SWITCH_JMP, EMUL_VEC_GP, 0x200, 0x67, 0x89 },
		{ 0x200, EMUL_SWITCH_IRET, EMUL_VEC_TS, 0x200, 0x67, 0x89 },
		{ B_SEL, EMUL_SWITCH_CALL, EMUL_VEC_GP, B_SEL, 0x67, 0x8b },
		{ B_SEL, EMUL_SWITCH_GATE, EMUL_VEC_GP, B_SEL, 0x67, 0x0b },	/* busy before absent */
		{ B_SEL, EMUL_SWITCH_IRET, EMUL_VEC_TS, B_SEL, 0x67, 0x89 },
		{ B_SEL, EMUL_SWITCH_JMP, EMUL_VEC_NP, B_SEL, 0x20, 0x09 },	/* absent before too small */
		{ B_SEL, EMUL_SWITCH_JMP, EMUL_VEC_TS, B_SEL, 0x66, 0x89 },
		{ B_SEL, EMUL_SWITCH_JMP, EMUL_VEC_TS, B_SEL, 0x2a, 0x81 },
		{ B_SEL, EMUL_SWITCH_JMP, EMUL_VEC_GP, B_SEL, 0x67, 0x8c },
		{ LDT_SEL, EMUL_SWITCH_JMP, EMUL_VEC_GP, LDT_SEL, 0x67, 0x89 },
	};
	u64 regs[EMUL_NR_REGS];
	unsigned int k;
	u8 *copy = malloc(ENV_MEM);

	for (k = 0; copy && k < sizeof(t) / sizeof(t[0]); k++) {
		struct emul_task task = { .selector = t[k].sel, .why = t[k].why, .rip = 0x1002, .external = k & 1 };
		enum emul_result r;

		two_tasks(0);
		gdt_raw(B_SEL, (u64)t[k].type << 40 | TSS_B << 16 | t[k].limit);
		memcpy(copy, v->mem, ENV_MEM);
		memcpy(regs, v->regs, sizeof(regs));
		r = emul_task_switch(&v->e, &task);
		if (r != EMUL_FAULT || v->e.fault.vector != t[k].vector ||
		    v->e.fault.error != (u32)(t[k].error | (k & 1))) {
			printf("# row %u: result %d vector %u error %x\n", k, r, v->e.fault.vector, v->e.fault.error);
			ok = false;
		}
		CHECK(!memcmp(copy, v->mem, ENV_MEM) && !memcmp(regs, v->regs, sizeof(regs)) && RIP == 0x1000);
		CHECK(v->segs[EMUL_SEG_TR].selector == A_SEL);
	}
	free(copy);

	/* pages that cannot be written: the old TSS, the new one's link, the new one's descriptor */
	two_tasks(0);
	v->segs[EMUL_SEG_TR].base = ENV_RDONLY;
	FAULTS(switch_to(B_SEL, EMUL_SWITCH_JMP, 0), EMUL_VEC_PF, 3);
	CHECK(v->writes == 0 && v->cmpxchgs == 0);
	two_tasks(0);
	memcpy(v->mem + ENV_RDONLY, v->mem + TSS_B, 104);
	env_gdt(v, B_SEL / 8, ENV_RDONLY, 0x67, EMUL_ATTR_P | 0x9);
	FAULTS(switch_to(B_SEL, EMUL_SWITCH_CALL, 0), EMUL_VEC_PF, 3);
	CHECK(v->writes == 0 && v->cmpxchgs == 0);
	CHECK(switch_to(B_SEL, EMUL_SWITCH_JMP, 0) == EMUL_OK);		/* which writes no link */
	two_tasks(0);
	memcpy(v->mem + ENV_RDONLY, v->mem + 0x3000, 0x100);
	v->dt[EMUL_DT_GDT].base = ENV_RDONLY;
	FAULTS(switch_to(B_SEL, EMUL_SWITCH_CALL, 0), EMUL_VEC_PF, 3);
	CHECK(v->writes == 0);
	/* the new TSS is not there */
	two_tasks(0);
	env_gdt(v, B_SEL / 8, ENV_MEM - 0x60, 0x67, EMUL_ATTR_P | 0x9);
	FAULTS(switch_to(B_SEL, EMUL_SWITCH_CALL, 0), EMUL_VEC_PF, 0);
	CHECK(v->writes == 0 && v->cmpxchgs == 0);
}

/* Faults of the new task */
void task_late(void)
{
	static const struct {
		u16 at, val;
		u8 vector;
		u16 error;
		u8 cpl;		/* then */
	} t[] = {
		{ 0x60, 0x54, EMUL_VEC_TS, 0x54, 3 },		/* LDT: in the LDT */
		{ 0x60, 0x10, EMUL_VEC_TS, 0x10, 3 },		/* no LDT */
		{ 0x60, 0x300, EMUL_VEC_TS, 0x300, 3 },
		{ 0x4c, 0, EMUL_VEC_TS, 0, 3 },			/* CS: null, data, privilege, absent */
		{ 0x4c, 0x10, EMUL_VEC_TS, 0x10, 3 },
		{ 0x4c, 0x0b, EMUL_VEC_TS, 0x08, 3 },
		{ 0x4c, 0x80, EMUL_VEC_NP, 0x80, 3 },
		{ 0x4c, 0x300, EMUL_VEC_TS, 0x300, 3 },
		{ 0x50, 0, EMUL_VEC_TS, 0, 3 },			/* SS: null, code, privilege, absent */
		{ 0x50, 0x08, EMUL_VEC_TS, 0x08, 3 },
		{ 0x50, 0x13, EMUL_VEC_TS, 0x10, 3 },
		{ 0x50, 0x38, EMUL_VEC_SS, 0x38, 3 },
		{ 0x54, 0x38, EMUL_VEC_NP, 0x38, 0 },		/* DS: absent; ES: a TSS; GS: beyond */
		{ 0x48, B_SEL, EMUL_VEC_TS, B_SEL, 0 },
		{ 0x5c, 0x300, EMUL_VEC_TS, 0x300, 0 },
	};
	unsigned int k;

	for (k = 0; k < sizeof(t) / sizeof(t[0]); k++) {
		struct emul_task task = { .selector = B_SEL, .why = EMUL_SWITCH_GATE, .rip = 0x1000,
					  .has_error = true, .external = k & 1 };
		enum emul_result r;

		two_tasks(0);
		env_gdt(v, 16, 0, 0xffffffff, CODE_ATTR & ~EMUL_ATTR_P);
		set_mem(TSS_B + t[k].at, t[k].val, 2);
		r = emul_task_switch(&v->e, &task);
		if (r != EMUL_OK || v->e.shadow != (EMUL_TASK_NEW | EMUL_TASK_FAULT) ||
		    v->e.fault.vector != t[k].vector || v->e.fault.error != (u32)(t[k].error | (k & 1)) ||
		    v->e.cpl != t[k].cpl) {
			printf("# row %u: result %d vector %u error %x cpl %u\n", k, r, v->e.fault.vector,
			       v->e.fault.error, v->e.cpl);
			ok = false;
		}
		/* the rest is the new task's all the same, and no error code has been pushed */
		CHECK(RIP == 0x4000 && RSP == 0x7000 && RAX == 0xb0b0b000 && v->segs[EMUL_SEG_TR].selector == B_SEL);
		CHECK(v->segs[EMUL_SEG_CS].selector == (t[k].at == 0x4c ? t[k].val : 8));
		CHECK(v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_P);
		CHECK(v->e.cpl == (v->segs[EMUL_SEG_SS].attr & EMUL_ATTR_DPL) >> EMUL_ATTR_DPL_SHIFT);
		CHECK(is_busy(B_SEL) && v->cr[0] & X86_CR0_TS);
	}
	/* EIP beyond CS; the stack has no room for the error code */
	two_tasks(0);
	env_gdt(v, 1, 0, 0x3fff, CODE_ATTR & ~EMUL_ATTR_G);
	CHECK(switch_to(B_SEL, EMUL_SWITCH_JMP, 0) == EMUL_OK && v->e.shadow & EMUL_TASK_FAULT);
	CHECK(v->e.fault.vector == EMUL_VEC_GP && v->e.fault.error == 0);
	two_tasks(0);
	set_mem(TSS_B + 0x38, ENV_MEM + 0x1000, 4);
	{
		struct emul_task task = { .selector = B_SEL, .why = EMUL_SWITCH_GATE, .has_error = true, .external = true };

		CHECK(emul_task_switch(&v->e, &task) == EMUL_OK && v->e.shadow & EMUL_TASK_FAULT);
		CHECK(v->e.fault.vector == EMUL_VEC_PF && v->e.fault.error == 2 && RSP == ENV_MEM + 0x1000);
	}
}

static u64 call_gate(u16 sel, u32 off, u8 type, unsigned int params)
{
	return (u64)(off >> 16) << 48 | (u64)type << 40 | (u64)params << 32 | (u64)sel << 16 | (off & 0xffff);
}

static void inner_stacks(void)
{
	set_mem(TSS_A + 4, 0x7000, 4);
	set_mem(TSS_A + 8, 0x10, 2);
}

void call_gates(void)
{
	unsigned int k;

	/* the same level: pushes of the gate's size; JMP pushes nothing */
	two_tasks(0);
	gdt_raw(GATE_SEL, call_gate(0x0b, 0x12345, 0x8c, 5));
	CHECK(RUN(0x9a, 1, 2, 3, 4, GATE_SEL, 0) == EMUL_OK && RIP == 0x12345 && RSP == 0x7ff8);
	CHECK(mem(0x7ff8, 4) == 0x1007 && mem(0x7ffc, 4) == 8 && v->segs[EMUL_SEG_CS].selector == 8);
	RIP = 0x1000;
	gdt_raw(GATE_SEL, call_gate(8, 0x12345, 0x84, 0));
	CHECK(RUN(0x9a, 1, 2, 3, 4, GATE_SEL, 0) == EMUL_OK && RIP == 0x2345 && RSP == 0x7ff4);
	CHECK(mem(0x7ff4, 2) == 0x1007 && mem(0x7ff6, 2) == 8);
	RIP = 0x1000;
	CHECK(RUN(0xea, 1, 2, 3, 4, GATE_SEL, 0) == EMUL_OK && RIP == 0x2345 && RSP == 0x7ff4);

	/* to an inner one, with parameters, and back */
	two_tasks(3);
	inner_stacks();
	v->segs[EMUL_SEG_SS].selector = 0x23;
	v->segs[EMUL_SEG_CS].selector = 0x1b;
	for (k = 0; k < 3; k++)
		set_mem(0x8000 + k * 4, 0xabc0 + k, 4);
	gdt_raw(GATE_SEL, call_gate(8, 0x2000, 0xec, 3));
	CHECK(RUN(0x9a, 1, 2, 3, 4, GATE_SEL | 3, 0) == EMUL_OK && RIP == 0x2000 && v->e.cpl == 0);
	CHECK(RSP == 0x7000 - 7 * 4 && v->segs[EMUL_SEG_SS].selector == 0x10 && v->segs[EMUL_SEG_CS].selector == 8);
	CHECK(mem(0x6fe4, 4) == 0x1007 && mem(0x6fe8, 4) == 0x1b && mem(0x6fec, 4) == 0xabc0 &&
	      mem(0x6ff4, 4) == 0xabc2 && mem(0x6ff8, 4) == 0x8000 && mem(0x6ffc, 4) == 0x23);
	CHECK(RUN(0xca, 12, 0) == EMUL_OK && v->e.cpl == 3 && RSP == 0x800c && RIP == 0x1007);

	/* what is wrong with it, in order */
	two_tasks(3);
	inner_stacks();
	gdt_raw(GATE_SEL, call_gate(8, 0x2000, 0x8c, 0));
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, GATE_SEL);		/* privilege */
	gdt_raw(GATE_SEL, call_gate(0, 0x2000, 0x6c, 0));
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_NP, GATE_SEL);
	gdt_raw(GATE_SEL, call_gate(0, 0x2000, 0xec, 0));
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, 0);
	gdt_raw(GATE_SEL, call_gate(0x10, 0x2000, 0xec, 0));
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, 0x10);		/* data */
	gdt_raw(GATE_SEL, call_gate(8, 0x2000, 0xec, 0));
	FAULTS(RUN(0xea, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, 8);			/* JMP stays where it is */
	set_mem(TSS_A + 8, 0x13, 2);
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_TS, 0x10);
	set_mem(TSS_A + 8, 0x38, 2);
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_SS, 0x38);
	set_mem(TSS_A + 8, 0x68, 2);							/* 64K at 0x10000 */
	env_gdt(v, 13, 0, 0xfff, DATA_ATTR & ~EMUL_ATTR_G);
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_SS, 0x68);		/* no room */
	CHECK(v->e.cpl == 3 && v->segs[EMUL_SEG_SS].selector == 0x13 && RSP == 0x8000);
	v->segs[EMUL_SEG_TR].limit = 8;
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_TS, A_SEL);

	/* 64 bits: from compatibility mode to the kernel, whose stack has no selector */
	two_tasks(3);
	v->e.lma = true;
	set_mem(TSS_A + 4, 0x7000, 8);
	gdt_raw(GATE_SEL, call_gate(0x28, 0x2000, 0xec, 9));
	gdt_raw(GATE_SEL + 8, 0x1234);
	CHECK(RUN(0x9a, 1, 2, 3, 4, GATE_SEL | 3, 0) == EMUL_OK && RIP == 0x123400002000ull && v->e.cpl == 0);
	CHECK(RSP == 0x7000 - 32 && mem(0x6fe0, 8) == 0x1007 && mem(0x6ff0, 8) == 0x8000 && mem(0x6ff8, 8) == 0x13);
	CHECK(v->segs[EMUL_SEG_SS].attr & EMUL_ATTR_UNUSABLE && v->segs[EMUL_SEG_CS].attr & EMUL_ATTR_L);
	two_tasks(3);
	v->e.lma = true;
	gdt_raw(GATE_SEL, call_gate(0x28, 0x2000, 0xec, 0));
	gdt_raw(GATE_SEL + 8, 1ull << 40);
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, GATE_SEL);
	gdt_raw(GATE_SEL + 8, 0x8000);							/* not canonical */
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, 0);
	gdt_raw(GATE_SEL, call_gate(8, 0x2000, 0xec, 0));				/* not 64-bit code */
	gdt_raw(GATE_SEL + 8, 0);
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, 8);
	gdt_raw(GATE_SEL, call_gate(8, 0x2000, 0xe4, 0));
	FAULTS(RUN(0x9a, 0, 0, 0, 0, GATE_SEL | 3, 0), EMUL_VEC_GP, GATE_SEL);		/* nor are 16-bit gates */
}
