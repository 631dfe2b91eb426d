// SPDX-License-Identifier: GPL-2.0-only
/*
 * The opcode tables. An entry names where the operands are, what the decoder
 * must know, and the handler; a group entry names the table that goes on by
 * ModRM or prefix, and whatever the entries on the way say adds up. An empty
 * entry is an invalid opcode. UNKNOWN ones are instructions that exist and have
 * a known length but are not emulated.
 *
 * No locks. SDM vol. 2 appendix A; APM vol. 3 appendix A.
 */
#include "internal.h"

#define M	F_MODRM
#define B	F_BYTE
#define W	F_W

#define INSN(d, s, f, fn) \
	{ .dst = K_##d, .src = K_##s, .flags = (f), .exec = emul_op_##fn }
#define INSN3(d, s, s2, f, fn) \
	{ .dst = K_##d, .src = K_##s, .src2 = K_##s2, .flags = (f), .exec = emul_op_##fn }
#define OP(f, fn)	{ .flags = (f), .exec = emul_op_##fn }
#define MEM(f, fn)	{ .src = K_M, .flags = (f) | M, .exec = emul_op_##fn }
#define GROUP(how, f, t)	{ .group = G_##how, .flags = (f), .next = (t) }
#define GROUP_OF(d, s, how, f, t) \
	{ .dst = K_##d, .src = K_##s, .group = G_##how, .flags = (f), .next = (t) }
#define PREFIX		{ .group = G_PREFIX }
#define UNKNOWN		{ .exec = emul_op_unknown }
#define UNKNOWN_M	{ .flags = M, .exec = emul_op_unknown }
#define UNKNOWN_MI	{ .src = K_IMM8, .flags = M, .exec = emul_op_unknown }

#define LOCKED		(F_RMW | F_LOCKABLE)

/* 80..83 */
static const struct emul_opcode group1[8] = {
	OP(LOCKED, add), OP(LOCKED, or), OP(LOCKED, adc), OP(LOCKED, sbb),
	OP(LOCKED, and), OP(LOCKED, sub), OP(LOCKED, xor), OP(F_READDST, cmp),
};

/* 8F */
static const struct emul_opcode group1a[8] = {
	INSN(RM, NONE, F_D64 | F_NOWB | F_POPEA, pop),
};

/* C0, C1, D0..D3 */
static const struct emul_opcode group2[8] = {
	OP(F_RMW, rol), OP(F_RMW, ror), OP(F_RMW, rcl), OP(F_RMW, rcr),
	OP(F_RMW, shl), OP(F_RMW, shr), OP(F_RMW, shl), OP(F_RMW, sar),
};

/* F6, F7 */
static const struct emul_opcode group3[8] = {
	INSN(RM, IMM, F_READDST, test),
	INSN(RM, IMM, F_READDST, test),
	INSN(RM, NONE, LOCKED, not),
	INSN(RM, NONE, LOCKED, neg),
	INSN(NONE, RM, 0, mul),
	INSN(NONE, RM, 0, imul1),
	INSN(NONE, RM, 0, div),
	INSN(NONE, RM, 0, idiv),
};

/* FE */
static const struct emul_opcode group4[8] = {
	INSN(RM, NONE, LOCKED, inc),
	INSN(RM, NONE, LOCKED, dec),
};

/* FF */
static const struct emul_opcode group5[8] = {
	INSN(RM, NONE, LOCKED, inc),
	INSN(RM, NONE, LOCKED, dec),
	INSN(NONE, RM, F_F64 | F_CET(STACK) | F_CET(BRANCH), call_ind),
	INSN(NONE, M, F_CET(FAR), call_far_mem),
	INSN(NONE, RM, F_F64 | F_CET(BRANCH), jmp_ind),
	INSN(NONE, M, F_CET(FAR), jmp_far_mem),
	INSN(NONE, RM, F_D64, push),
};

/* C6, C7 */
static const struct emul_opcode group11[8] = {
	INSN(RM, IMM, 0, mov),
};

/* 0F 00 */
static const struct emul_opcode group6[8] = {
	INSN(RM, NONE, F_DST16MEM, sldt),
	INSN(RM, NONE, F_DST16MEM, str),
	OP(F_PRIV, lldt),
	OP(F_PRIV, ltr),
	OP(0, verr),
	OP(0, verw),
};

/* 0F 01, memory forms */
static const struct emul_opcode group7_mem[8] = {
	OP(0, sgdt),
	OP(0, sidt),
	OP(F_PRIV, lgdt),
	OP(F_PRIV, lidt),
	INSN(RM, NONE, F_DST16MEM, smsw),
	UNKNOWN,
	OP(F_PRIV, lmsw),
	OP(F_PRIV, invlpg),
};

/* 0F 01 C0..C7: VMCALL and other VMX; D9 is VMMCALL */
static const struct emul_opcode group7_vmx[8] = {
	UNKNOWN, OP(0, hypercall), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode group7_monitor[8] = {
	OP(0, monitor), OP(0, mwait), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode group7_xcr[8] = {
	OP(0, xgetbv), OP(0, xsetbv), {}, {}, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode group7_svm[8] = {
	UNKNOWN, OP(0, hypercall), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode group7_pku[8] = {
	UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode group7_misc[8] = {
	OP(F_PRIV | F_ONLY64, swapgs), OP(0, rdtscp), UNKNOWN, UNKNOWN,
	UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode group7_reg[8] = {
	GROUP(RM, 0, group7_vmx),
	GROUP(RM, 0, group7_monitor),
	GROUP(RM, 0, group7_xcr),
	GROUP(RM, 0, group7_svm),
	INSN(RM, NONE, F_DST16MEM, smsw),
	GROUP(RM, 0, group7_pku),
	OP(F_PRIV, lmsw),
	GROUP(RM, 0, group7_misc),
};

static const struct emul_opcode group7[2] = {
	GROUP(REG, 0, group7_mem),
	GROUP(REG, 0, group7_reg),
};

/* 0F BA */
static const struct emul_opcode group8[8] = {
	[4] = OP(F_READDST, bt),
	OP(LOCKED, bts), OP(LOCKED, btr), OP(LOCKED, btc),
};

/* 0F C7 */
static const struct emul_opcode group9_mem[8] = {
	{},
	INSN(M, NONE, F_LOCKABLE | F_NOWB, cmpxchg8b),
	{},
	UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode rdseed[4] = { UNKNOWN, UNKNOWN, OP(0, rdpid), UNKNOWN };

static const struct emul_opcode group9_reg[8] = {
	[6] = UNKNOWN, GROUP(PFX, 0, rdseed),
};

static const struct emul_opcode group9[2] = {
	GROUP(REG, 0, group9_mem),
	GROUP(REG, 0, group9_reg),
};

/* 0F AE */
static const struct emul_opcode clflush[4] = { OP(0, clflush), OP(0, clflush), {}, {} };
static const struct emul_opcode clwb[4] = { UNKNOWN, OP(0, clflush), UNKNOWN, {} };
static const struct emul_opcode lfence[4] = { OP(0, nop), {}, UNKNOWN, {} };
static const struct emul_opcode mfence[4] = { OP(0, nop), UNKNOWN, UNKNOWN, UNKNOWN };
static const struct emul_opcode sfence[4] = { OP(0, nop), {}, {}, {} };

static const struct emul_opcode fxsave[4] = { OP(0, fxsave), {}, {}, {} };
static const struct emul_opcode fxrstor[4] = { OP(0, fxrstor), {}, {}, {} };
static const struct emul_opcode ldmxcsr[4] = { OP(F_VEX, ldmxcsr), {}, {}, {} };
static const struct emul_opcode stmxcsr[4] = { OP(F_VEX, stmxcsr), {}, {}, {} };

static const struct emul_opcode group15_mem[8] = {
	GROUP(PFX, 0, fxsave), GROUP(PFX, 0, fxrstor), GROUP(PFX, 0, ldmxcsr), GROUP(PFX, 0, stmxcsr),
	UNKNOWN, UNKNOWN,
	GROUP(PFX, 0, clwb),
	GROUP(PFX, 0, clflush),
};

static const struct emul_opcode group15_reg[8] = {
	UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, {},
	GROUP(PFX, 0, lfence),
	GROUP(PFX, 0, mfence),
	GROUP(PFX, 0, sfence),
};

static const struct emul_opcode group15[2] = {
	GROUP(REG, 0, group15_mem),
	GROUP(REG, 0, group15_reg),
};

/* x87: loads and stores of all but decimals and environments. */
static const struct emul_opcode all_unknown[8] = { [0 ... 7] = UNKNOWN };

static const struct emul_opcode x87_d9_mem[8] = {
	OP(0, fld), {}, OP(0, fst), OP(0, fst), UNKNOWN, OP(0, fldcw), UNKNOWN, OP(0, fnstcw),
};

static const struct emul_opcode x87_d9[2] = {
	GROUP(REG, 0, x87_d9_mem),
	GROUP(REG, 0, all_unknown),
};

static const struct emul_opcode x87_db_mem[8] = {
	OP(0, fild), OP(0, fist), OP(0, fist), OP(0, fist), {}, OP(0, fld80), {}, OP(0, fstp80),
};

static const struct emul_opcode x87_db_e0[8] = {
	UNKNOWN, UNKNOWN, UNKNOWN, OP(0, fninit), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode x87_db_reg[8] = {
	UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, GROUP(RM, 0, x87_db_e0), UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode x87_db[2] = {
	GROUP(REG, 0, x87_db_mem),
	GROUP(REG, 0, x87_db_reg),
};

static const struct emul_opcode x87_dd_mem[8] = {
	OP(0, fld), OP(0, fist), OP(0, fst), OP(0, fst), UNKNOWN, {}, UNKNOWN, OP(0, fnstsw),
};

static const struct emul_opcode x87_dd[2] = {
	GROUP(REG, 0, x87_dd_mem),
	GROUP(REG, 0, all_unknown),
};

static const struct emul_opcode x87_df_mem[8] = {
	OP(0, fild), OP(0, fist), OP(0, fist), OP(0, fist), UNKNOWN, OP(0, fild), UNKNOWN, OP(0, fist),
};

static const struct emul_opcode x87_df_e0[8] = {
	OP(0, fnstsw), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode x87_df_reg[8] = {
	UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, GROUP(RM, 0, x87_df_e0), UNKNOWN, UNKNOWN, UNKNOWN,
};

static const struct emul_opcode x87_df[2] = {
	GROUP(REG, 0, x87_df_mem),
	GROUP(REG, 0, x87_df_reg),
};

const struct emul_opcode emul_map0[256] = {
	[0x00 ... 0x01] = INSN(RM, REG, M | W | LOCKED, add),
	[0x02 ... 0x03] = INSN(REG, RM, M | W | F_RMW, add),
	[0x04 ... 0x05] = INSN(ACC, IMM, W | F_RMW, add),
	[0x06] = OP(F_NO64, push_sreg),
	[0x07] = OP(F_NO64, pop_sreg),
	[0x08 ... 0x09] = INSN(RM, REG, M | W | LOCKED, or),
	[0x0a ... 0x0b] = INSN(REG, RM, M | W | F_RMW, or),
	[0x0c ... 0x0d] = INSN(ACC, IMM, W | F_RMW, or),
	[0x0e] = OP(F_NO64, push_sreg),
	[0x10 ... 0x11] = INSN(RM, REG, M | W | LOCKED, adc),
	[0x12 ... 0x13] = INSN(REG, RM, M | W | F_RMW, adc),
	[0x14 ... 0x15] = INSN(ACC, IMM, W | F_RMW, adc),
	[0x16] = OP(F_NO64, push_sreg),
	[0x17] = OP(F_NO64, pop_sreg),
	[0x18 ... 0x19] = INSN(RM, REG, M | W | LOCKED, sbb),
	[0x1a ... 0x1b] = INSN(REG, RM, M | W | F_RMW, sbb),
	[0x1c ... 0x1d] = INSN(ACC, IMM, W | F_RMW, sbb),
	[0x1e] = OP(F_NO64, push_sreg),
	[0x1f] = OP(F_NO64, pop_sreg),
	[0x20 ... 0x21] = INSN(RM, REG, M | W | LOCKED, and),
	[0x22 ... 0x23] = INSN(REG, RM, M | W | F_RMW, and),
	[0x24 ... 0x25] = INSN(ACC, IMM, W | F_RMW, and),
	[0x26] = PREFIX,
	[0x27] = OP(F_NO64, daa),
	[0x28 ... 0x29] = INSN(RM, REG, M | W | LOCKED, sub),
	[0x2a ... 0x2b] = INSN(REG, RM, M | W | F_RMW, sub),
	[0x2c ... 0x2d] = INSN(ACC, IMM, W | F_RMW, sub),
	[0x2e] = PREFIX,
	[0x2f] = OP(F_NO64, das),
	[0x30 ... 0x31] = INSN(RM, REG, M | W | LOCKED, xor),
	[0x32 ... 0x33] = INSN(REG, RM, M | W | F_RMW, xor),
	[0x34 ... 0x35] = INSN(ACC, IMM, W | F_RMW, xor),
	[0x36] = PREFIX,
	[0x37] = OP(F_NO64, aaa),
	[0x38 ... 0x39] = INSN(RM, REG, M | W | F_READDST, cmp),
	[0x3a ... 0x3b] = INSN(REG, RM, M | W | F_READDST, cmp),
	[0x3c ... 0x3d] = INSN(ACC, IMM, W | F_READDST, cmp),
	[0x3e] = PREFIX,
	[0x3f] = OP(F_NO64, aas),
	[0x40 ... 0x47] = INSN(OPREG, NONE, F_NO64 | F_RMW, inc),
	[0x48 ... 0x4f] = INSN(OPREG, NONE, F_NO64 | F_RMW, dec),
	[0x50 ... 0x57] = INSN(NONE, OPREG, F_D64, push),
	[0x58 ... 0x5f] = INSN(OPREG, NONE, F_D64 | F_NOWB, pop),
	[0x60] = OP(F_NO64, pusha),
	[0x61] = OP(F_NO64, popa),
	[0x62] = MEM(F_NO64, bound),
	[0x63] = OP(M, movsxd),
	[0x64 ... 0x67] = PREFIX,
	[0x68] = INSN(NONE, IMM, F_D64, push),
	[0x69] = INSN3(REG, RM, IMM, M, imul),
	[0x6a] = INSN(NONE, IMM8S, F_D64, push),
	[0x6b] = INSN3(REG, RM, IMM8S, M, imul),
	[0x6c ... 0x6d] = INSN(NONE, DX, W, ins),
	[0x6e ... 0x6f] = INSN(NONE, DX, W, outs),
	[0x70 ... 0x7f] = INSN(NONE, IMM8S, F_F64, jcc),
	[0x80 ... 0x81] = GROUP_OF(RM, IMM, REG, M | W, group1),
	[0x82] = GROUP_OF(RM, IMM, REG, M | B | F_NO64, group1),
	[0x83] = GROUP_OF(RM, IMM8S, REG, M, group1),
	[0x84 ... 0x85] = INSN(RM, REG, M | W | F_READDST, test),
	[0x86 ... 0x87] = INSN(RM, REG, M | W | LOCKED | F_ALOCK | F_NOWB, xchg),
	[0x88 ... 0x89] = INSN(RM, REG, M | W, mov),
	[0x8a ... 0x8b] = INSN(REG, RM, M | W, mov),
	[0x8c] = INSN(RM, NONE, M | F_DST16MEM, mov_from_sreg),
	[0x8d] = INSN(REG, M, M, lea),
	[0x8e] = OP(M, mov_to_sreg),
	[0x8f] = GROUP(REG, M, group1a),
	[0x90 ... 0x97] = INSN(OPREG, ACC, F_RMW | F_NOWB, xchg_acc),
	[0x98] = OP(0, cbw),
	[0x99] = OP(0, cwd),
	[0x9a] = INSN(NONE, FAR, F_NO64 | F_CET(FAR), call_far),
	[0x9b] = OP(0, fwait),
	[0x9c] = OP(F_D64, pushf),
	[0x9d] = OP(F_D64, popf),
	[0x9e] = OP(0, sahf),
	[0x9f] = OP(0, lahf),
	[0xa0 ... 0xa1] = INSN(ACC, MOFFS, W, mov),
	[0xa2 ... 0xa3] = INSN(MOFFS, ACC, W, mov),
	[0xa4 ... 0xa5] = INSN(NONE, NONE, W, movs),
	[0xa6 ... 0xa7] = INSN(NONE, NONE, W, cmps),
	[0xa8 ... 0xa9] = INSN(ACC, IMM, W | F_READDST, test),
	[0xaa ... 0xab] = INSN(NONE, NONE, W, stos),
	[0xac ... 0xad] = INSN(NONE, NONE, W, lods),
	[0xae ... 0xaf] = INSN(NONE, NONE, W, scas),
	[0xb0 ... 0xb7] = INSN(OPREG, IMM, B, mov),
	[0xb8 ... 0xbf] = INSN(OPREG, IMMV, 0, mov),
	[0xc0 ... 0xc1] = GROUP_OF(RM, IMM8, REG, M | W, group2),
	[0xc2] = INSN(NONE, IMM16, F_F64 | F_CET(STACK), ret),
	[0xc3] = OP(F_F64 | F_CET(STACK), ret),
	[0xc4] = MEM(F_NO64, lfar),
	[0xc5] = MEM(F_NO64, lfar),
	[0xc6 ... 0xc7] = GROUP(REG, M | W, group11),
	[0xc8] = INSN(NONE, ENTER, F_D64, enter),
	[0xc9] = OP(F_D64, leave),
	[0xca] = INSN(NONE, IMM16, F_CET(FAR), ret_far),
	[0xcb] = OP(F_CET(FAR), ret_far),
	[0xcc] = OP(0, int3),
	[0xcd] = INSN(NONE, IMM8, 0, int),
	[0xce] = OP(F_NO64, into),
	[0xcf] = OP(F_CET(FAR), iret),
	[0xd0 ... 0xd1] = GROUP_OF(RM, ONE, REG, M | W, group2),
	[0xd2 ... 0xd3] = GROUP_OF(RM, CL, REG, M | W, group2),
	[0xd4] = INSN(NONE, IMM8, F_NO64, aam),
	[0xd5] = INSN(NONE, IMM8, F_NO64, aad),
	[0xd6] = INSN(ACC, NONE, B | F_NO64, salc),
	[0xd7] = INSN(ACC, NONE, B, xlat),
	[0xd8] = UNKNOWN_M,
	[0xd9] = GROUP(MOD, M, x87_d9),
	[0xda] = UNKNOWN_M,
	[0xdb] = GROUP(MOD, M, x87_db),
	[0xdc] = UNKNOWN_M,
	[0xdd] = GROUP(MOD, M, x87_dd),
	[0xde] = UNKNOWN_M,
	[0xdf] = GROUP(MOD, M, x87_df),
	[0xe0 ... 0xe2] = INSN(NONE, IMM8S, F_F64, loop),
	[0xe3] = INSN(NONE, IMM8S, F_F64, jcxz),
	[0xe4 ... 0xe5] = INSN(ACC, IMM8, W, in),
	[0xe6 ... 0xe7] = INSN(NONE, IMM8, W, out),
	[0xe8] = INSN(NONE, IMM, F_F64 | F_CET(STACK), call),
	[0xe9] = INSN(NONE, IMM, F_F64, jmp),
	[0xea] = INSN(NONE, FAR, F_NO64 | F_CET(FAR), jmp_far),
	[0xeb] = INSN(NONE, IMM8S, F_F64, jmp),
	[0xec ... 0xed] = INSN(ACC, DX, W, in),
	[0xee ... 0xef] = INSN(NONE, DX, W, out),
	[0xf0] = PREFIX,
	[0xf1] = OP(0, icebp),
	[0xf2] = PREFIX,
	[0xf3] = PREFIX,
	[0xf4] = OP(F_PRIV, hlt),
	[0xf5] = OP(0, cmc),
	[0xf6 ... 0xf7] = GROUP(REG, M | W, group3),
	[0xf8] = OP(0, clc),
	[0xf9] = OP(0, stc),
	[0xfa] = OP(0, cli),
	[0xfb] = OP(0, sti),
	[0xfc] = OP(0, cld),
	[0xfd] = OP(0, std),
	[0xfe] = GROUP(REG, M | B, group4),
	[0xff] = GROUP(REG, M, group5),
};

/* Vector moves, by mandatory prefix: none, 66, F3, F2. V may be VEX or EVEX encoded. */
#define V	(F_VEX | F_EVEX)

static const struct emul_opcode mov_10[4] = {
	OP(V, sse_load), OP(V, sse_load), OP(V, movss_load), OP(V, movsd_load),
};

static const struct emul_opcode mov_11[4] = {
	OP(V, sse_store), OP(V, sse_store), OP(V, movss_store), OP(V, movsd_store),
};

static const struct emul_opcode load_low_mod[2] = { OP(V, movlps_load), UNKNOWN };
static const struct emul_opcode load_high_mod[2] = { OP(V, movhps_load), UNKNOWN };

static const struct emul_opcode mov_12[4] = {
	GROUP(MOD, 0, load_low_mod), MEM(V, movlps_load), UNKNOWN, UNKNOWN,
};

static const struct emul_opcode mov_16[4] = {
	GROUP(MOD, 0, load_high_mod), MEM(V, movhps_load), UNKNOWN, {},
};

static const struct emul_opcode mov_13[4] = {
	MEM(V, movlps_store), MEM(V, movlps_store), {}, {},
};

static const struct emul_opcode mov_17[4] = {
	MEM(V, movhps_store), MEM(V, movhps_store), {}, {},
};

static const struct emul_opcode mov_28[4] = {
	OP(V, sse_loada), OP(V, sse_loada), {}, {},
};

static const struct emul_opcode mov_29[4] = {
	OP(V, sse_storea), OP(V, sse_storea), {}, {},
};

static const struct emul_opcode mov_2b[4] = {
	MEM(V, sse_storea), MEM(V, sse_storea), MEM(0, unknown), MEM(0, unknown),
};

static const struct emul_opcode mov_6e[4] = { OP(0, mmx_from_rm), OP(V, movd_load), {}, {} };
static const struct emul_opcode mov_6f[4] = {
	OP(0, mmx_load), OP(V, sse_loada), OP(V, sse_load), OP(V, evex_load),
};

static const struct emul_opcode mov_7e[4] = {
	OP(0, mmx_to_rm), OP(V, movd_store), OP(V, movq_load), {},
};

static const struct emul_opcode mov_7f[4] = {
	OP(0, mmx_store), OP(V, sse_storea), OP(V, sse_store), OP(V, evex_store),
};

static const struct emul_opcode mov_d6[4] = { {}, OP(V, movq_store), UNKNOWN, UNKNOWN };
static const struct emul_opcode mov_e7[4] = {
	MEM(0, mmx_store), MEM(V, sse_storea), UNKNOWN, UNKNOWN,
};

static const struct emul_opcode mov_f0[4] = { {}, {}, {}, MEM(F_VEX, sse_load) };

static const struct emul_opcode maskmov_none[2] = { UNKNOWN, OP(0, mmx_maskmov) };
static const struct emul_opcode maskmov_66[2] = { UNKNOWN, OP(F_VEX, maskmovdqu) };
static const struct emul_opcode mov_f7[4] = {
	GROUP(MOD, 0, maskmov_none), GROUP(MOD, 0, maskmov_66), {}, {},
};

static const struct emul_opcode pinsrw[4] = {
	INSN(NONE, IMM8, 0, unknown), INSN(NONE, IMM8, V, pinsr), INSN(NONE, IMM8, 0, unknown),
	INSN(NONE, IMM8, 0, unknown),
};

#undef V

static const struct emul_opcode movnti[4] = { MEM(0, movnti), {}, {}, {} };

/* VMREAD, and with a prefix EXTRQ and INSERTQ, which have two immediate bytes. */
static const struct emul_opcode vmread[4] = {
	UNKNOWN, INSN(NONE, IMM16, 0, unknown), UNKNOWN, INSN(NONE, IMM16, 0, unknown),
};

#define BSF	INSN(NONE, RM, M, bsf)
#define BSR	INSN(NONE, RM, M, bsr)
static const struct emul_opcode scan_b8[4] = { {}, {}, INSN(REG, RM, M, popcnt), {} };
static const struct emul_opcode scan_bc[4] = { BSF, BSF, INSN(NONE, RM, M, tzcnt), BSF };
static const struct emul_opcode scan_bd[4] = { BSR, BSR, INSN(NONE, RM, M, lzcnt), BSR };

const struct emul_opcode emul_map1[256] = {
	[0x00] = GROUP(REG, M | F_PROT, group6),
	[0x01] = GROUP(MOD, M, group7),
	[0x02] = OP(M | F_PROT, lar),
	[0x03] = OP(M | F_PROT, lsl),
	[0x05] = OP(F_CET(FAR), syscall),
	[0x06] = OP(F_PRIV, clts),
	[0x07] = OP(F_CET(FAR), sysret),
	[0x08] = OP(F_PRIV, invd),
	[0x09] = OP(F_PRIV, wbinvd),
	[0x0d] = MEM(0, nop),
	[0x0e] = UNKNOWN,
	[0x0f] = UNKNOWN_MI,
	[0x10] = GROUP(PFX, M | F_VEX | F_EVEX, mov_10),
	[0x11] = GROUP(PFX, M | F_VEX | F_EVEX, mov_11),
	[0x12] = GROUP(PFX, M | F_VEX | F_EVEX, mov_12),
	[0x13] = GROUP(PFX, M | F_VEX | F_EVEX, mov_13),
	[0x14 ... 0x15] = UNKNOWN_M,
	[0x16] = GROUP(PFX, M | F_VEX | F_EVEX, mov_16),
	[0x17] = GROUP(PFX, M | F_VEX | F_EVEX, mov_17),
	[0x18 ... 0x1f] = OP(M, nop),
	[0x20] = OP(M | F_REGONLY, mov_from_cr),
	[0x21] = OP(M | F_REGONLY, mov_from_dr),
	[0x22] = OP(M | F_REGONLY, mov_to_cr),
	[0x23] = OP(M | F_REGONLY, mov_to_dr),
	[0x28] = GROUP(PFX, M | F_VEX | F_EVEX, mov_28),
	[0x29] = GROUP(PFX, M | F_VEX | F_EVEX, mov_29),
	[0x2a] = UNKNOWN_M,
	[0x2b] = GROUP(PFX, M | F_VEX | F_EVEX, mov_2b),
	[0x2c ... 0x2f] = UNKNOWN_M,
	[0x30] = OP(F_PRIV, wrmsr),
	[0x31] = OP(0, rdtsc),
	[0x32] = OP(F_PRIV, rdmsr),
	[0x33] = OP(0, rdpmc),
	[0x34] = OP(F_CET(FAR), sysenter),
	[0x35] = OP(F_CET(FAR), sysexit),
	[0x37] = UNKNOWN,
	[0x40 ... 0x4f] = INSN(REG, RM, M | F_RMW, cmov),
	[0x50 ... 0x6d] = UNKNOWN_M,
	[0x6e] = GROUP(PFX, M | F_VEX | F_EVEX, mov_6e),
	[0x6f] = GROUP(PFX, M | F_VEX | F_EVEX, mov_6f),
	[0x70 ... 0x73] = UNKNOWN_MI,
	[0x74 ... 0x76] = UNKNOWN_M,
	[0x77] = UNKNOWN,
	[0x78] = GROUP(PFX, M, vmread),
	[0x79 ... 0x7d] = UNKNOWN_M,
	[0x7e] = GROUP(PFX, M | F_VEX | F_EVEX, mov_7e),
	[0x7f] = GROUP(PFX, M | F_VEX | F_EVEX, mov_7f),
	[0x80 ... 0x8f] = INSN(NONE, IMM, F_F64, jcc),
	[0x90 ... 0x9f] = INSN(RM, NONE, M | B, setcc),
	[0xa0] = OP(F_D64, push_sreg),
	[0xa1] = OP(F_D64, pop_sreg),
	[0xa2] = OP(0, cpuid),
	[0xa3] = INSN(RM, REG, M | F_READDST | F_BITSTR, bt),
	[0xa4] = INSN3(RM, REG, IMM8, M | F_RMW, shld),
	[0xa5] = INSN3(RM, REG, CL, M | F_RMW, shld),
	[0xa8] = OP(F_D64, push_sreg),
	[0xa9] = OP(F_D64, pop_sreg),
	[0xaa] = OP(0, rsm),
	[0xab] = INSN(RM, REG, M | LOCKED | F_BITSTR, bts),
	[0xac] = INSN3(RM, REG, IMM8, M | F_RMW, shrd),
	[0xad] = INSN3(RM, REG, CL, M | F_RMW, shrd),
	[0xae] = GROUP(MOD, M | F_VEX, group15),
	[0xaf] = INSN(REG, RM, M | F_RMW, imul),
	[0xb0 ... 0xb1] = INSN(RM, REG, M | W | LOCKED | F_NOWB, cmpxchg),
	[0xb2] = MEM(0, lfar),
	[0xb3] = INSN(RM, REG, M | LOCKED | F_BITSTR, btr),
	[0xb4 ... 0xb5] = MEM(0, lfar),
	[0xb6] = INSN(REG, RM, M | F_SRC8, mov),
	[0xb7] = INSN(REG, RM, M | F_SRC16, mov),
	[0xb8] = GROUP(PFX, M, scan_b8),
	[0xba] = GROUP_OF(RM, IMM8, REG, M, group8),
	[0xbb] = INSN(RM, REG, M | LOCKED | F_BITSTR, btc),
	[0xbc] = GROUP(PFX, M, scan_bc),
	[0xbd] = GROUP(PFX, M, scan_bd),
	[0xbe] = INSN(REG, RM, M | F_SRC8, movsx),
	[0xbf] = INSN(REG, RM, M | F_SRC16, movsx),
	[0xc0 ... 0xc1] = INSN(RM, REG, M | W | LOCKED | F_NOWB, xadd),
	[0xc2] = UNKNOWN_MI,
	[0xc3] = GROUP(PFX, M, movnti),
	[0xc4] = GROUP(PFX, M | F_VEX | F_EVEX, pinsrw),
	[0xc5 ... 0xc6] = UNKNOWN_MI,
	[0xc7] = GROUP(MOD, M, group9),
	[0xc8 ... 0xcf] = INSN(OPREG, NONE, F_RMW, bswap),
	[0xd0 ... 0xd5] = UNKNOWN_M,
	[0xd6] = GROUP(PFX, M | F_VEX | F_EVEX, mov_d6),
	[0xd7 ... 0xe6] = UNKNOWN_M,
	[0xe7] = GROUP(PFX, M | F_VEX | F_EVEX, mov_e7),
	[0xe8 ... 0xef] = UNKNOWN_M,
	[0xf0] = GROUP(PFX, M | F_VEX, mov_f0),
	[0xf1 ... 0xf6] = UNKNOWN_M,
	[0xf7] = GROUP(PFX, M | F_VEX, mov_f7),
	[0xf8 ... 0xfe] = UNKNOWN_M,
};

#define V	(F_VEX | F_EVEX)

static const struct emul_opcode movntdqa[4] = { {}, MEM(V, sse_loada), {}, {} };

#define MOVBE_LOAD	INSN3(REG, RM, M, 0, movbe)
#define MOVBE_STORE	INSN3(RM, REG, M, 0, movbe)
#define CRC32		OP(0, crc32)
static const struct emul_opcode movbe_f0[4] = { MOVBE_LOAD, MOVBE_LOAD, {}, CRC32 };
static const struct emul_opcode movbe_f1[4] = { MOVBE_STORE, MOVBE_STORE, {}, CRC32 };

static const struct emul_opcode invpcid[4] = { {}, MEM(F_PRIV, invpcid), {}, {} };

/* With 66 only */
static const struct emul_opcode broadcast[4] = { UNKNOWN, OP(V, broadcast), UNKNOWN, UNKNOWN };
static const struct emul_opcode vmaskmov[4] = { UNKNOWN, MEM(F_VEX, vmaskmov), UNKNOWN, UNKNOWN };

/* VEX encoded but ADCX, ADOX, WRSS, WRUSS and direct stores; handlers look which it is */
static const struct emul_opcode bmi_f2[4] = { INSN(REG, NONE, F_VEX, andn), UNKNOWN, UNKNOWN, UNKNOWN };
static const struct emul_opcode bmi_f3[4] = { OP(F_VEX, bls), UNKNOWN, UNKNOWN, UNKNOWN };
static const struct emul_opcode bmi_f5[4] = {
	INSN(REG, NONE, F_VEX, bzhi), UNKNOWN, INSN(REG, NONE, F_VEX, pext), INSN(REG, NONE, F_VEX, pdep),
};

static const struct emul_opcode bmi_f6[4] = {
	UNKNOWN, OP(0, adcx), OP(0, adox), INSN(REG, NONE, F_VEX, mulx),
};

static const struct emul_opcode bmi_f7[4] = {
	INSN(REG, NONE, F_VEX, bextr), INSN(REG, NONE, F_VEX, shiftx), INSN(REG, NONE, F_VEX, shiftx),
	INSN(REG, NONE, F_VEX, shiftx),
};

static const struct emul_opcode direct_f8[4] = { UNKNOWN, MEM(0, movdir64b), UNKNOWN, UNKNOWN };
static const struct emul_opcode direct_f9[4] = { MEM(0, movnti), UNKNOWN, UNKNOWN, UNKNOWN };

const struct emul_opcode emul_map2[256] = {
	[0x00 ... 0x17] = UNKNOWN_M,
	[0x18 ... 0x1b] = GROUP(PFX, M | V, broadcast),
	[0x1c ... 0x29] = UNKNOWN_M,
	[0x2a] = GROUP(PFX, M | V, movntdqa),
	[0x2b] = UNKNOWN_M,
	[0x2c ... 0x2f] = GROUP(PFX, M | F_VEX, vmaskmov),
	[0x30 ... 0x57] = UNKNOWN_M,
	[0x58 ... 0x5b] = GROUP(PFX, M | V, broadcast),
	[0x5c ... 0x77] = UNKNOWN_M,
	[0x78 ... 0x79] = GROUP(PFX, M | V, broadcast),
	[0x7a ... 0x81] = UNKNOWN_M,
	[0x82] = GROUP(PFX, M, invpcid),
	[0x83 ... 0x8b] = UNKNOWN_M,
	[0x8c] = GROUP(PFX, M | F_VEX, vmaskmov),
	[0x8d] = UNKNOWN_M,
	[0x8e] = GROUP(PFX, M | F_VEX, vmaskmov),
	[0x8f ... 0xef] = UNKNOWN_M,
	[0xf0] = GROUP(PFX, M, movbe_f0),
	[0xf1] = GROUP(PFX, M, movbe_f1),
	[0xf2] = GROUP(PFX, M | F_VEX, bmi_f2),
	[0xf3] = GROUP(PFX, M | F_VEX, bmi_f3),
	[0xf4] = UNKNOWN_M,
	[0xf5] = GROUP(PFX, M | F_VEX, bmi_f5),
	[0xf6] = GROUP(PFX, M | F_VEX, bmi_f6),
	[0xf7] = GROUP(PFX, M | F_VEX, bmi_f7),
	[0xf8] = GROUP(PFX, M, direct_f8),
	[0xf9] = GROUP(PFX, M, direct_f9),
	[0xfa ... 0xff] = UNKNOWN_M,
};

static const struct emul_opcode pextr[4] = { UNKNOWN, OP(V, pextr), UNKNOWN, UNKNOWN };
static const struct emul_opcode pinsr[4] = { UNKNOWN, OP(V, pinsr), UNKNOWN, UNKNOWN };
static const struct emul_opcode vextract[4] = { UNKNOWN, OP(V, vextract), UNKNOWN, UNKNOWN };
static const struct emul_opcode rorx[4] = { UNKNOWN, UNKNOWN, UNKNOWN, INSN(REG, IMM8, F_VEX, rorx) };

#define GROUP_MI(f, t)	{ .src = K_IMM8, .group = G_PFX, .flags = M | (f), .next = (t) }

const struct emul_opcode emul_map3[256] = {
	[0x00 ... 0x13] = UNKNOWN_MI,
	[0x14 ... 0x17] = GROUP_MI(V, pextr),
	[0x18] = UNKNOWN_MI,
	[0x19] = GROUP_MI(V, vextract),
	[0x1a] = UNKNOWN_MI,
	[0x1b] = GROUP_MI(V, vextract),
	[0x1c ... 0x1f] = UNKNOWN_MI,
	[0x20] = GROUP_MI(V, pinsr),
	[0x21] = UNKNOWN_MI,
	[0x22] = GROUP_MI(V, pinsr),
	[0x23 ... 0x38] = UNKNOWN_MI,
	[0x39] = GROUP_MI(V, vextract),
	[0x3a] = UNKNOWN_MI,
	[0x3b] = GROUP_MI(V, vextract),
	[0x3c ... 0xef] = UNKNOWN_MI,
	[0xf0] = GROUP_MI(F_VEX, rorx),
	[0xf1 ... 0xff] = UNKNOWN_MI,
};
