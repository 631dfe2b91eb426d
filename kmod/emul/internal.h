/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the emulator's files share: operand kinds and flags of the opcode
 * tables, register, memory and fault helpers, and the handlers' names.
 */
#ifndef KEEL_EMUL_INTERNAL_H
#define KEEL_EMUL_INTERNAL_H

#include "emul.h"

/* Operand kinds: where the common code loads src, src2, dst from, and stores dst to. */
enum emul_kind {
	K_NONE,
	K_RM,		/* modrm.rm, register or memory */
	K_REG,		/* modrm.reg */
	K_ACC,		/* rAX */
	K_OPREG,	/* low bits of the opcode */
	K_SREG,		/* modrm.reg as a segment register */
	K_M,		/* modrm.rm must be memory; address only, handler does the access */
	K_ONE,
	K_CL,
	K_DX,
	/* From here on the kind has bytes of its own after ModRM. */
	K_MOFFS,	/* memory at an absolute offset */
	K_IMM,		/* up to 32 bits, sign-extended */
	K_IMMV,		/* as wide as the operand */
	K_IMM8,		/* zero-extended */
	K_IMM8S,	/* sign-extended */
	K_IMM16,
	K_FAR,		/* offset in imm, selector in imm2 */
	K_ENTER,	/* imm16 in imm, imm8 in imm2 */
};

/* How an opcode table entry continues. */
enum emul_group {
	G_NONE,
	G_REG,		/* 8 entries, by modrm.reg */
	G_RM,		/* 8 entries, by modrm.rm */
	G_MOD,		/* 2 entries: memory, register */
	G_PFX,		/* 4 entries: no prefix, 66, F3, F2 */
	G_PREFIX,	/* a legacy prefix byte */
};

#define F_MODRM		0x00000001u
#define F_BYTE		0x00000002u	/* operand size is one byte */
#define F_D64		0x00000004u	/* 64-bit mode: operands are 64 bits by default */
#define F_F64		0x00000008u	/* 64-bit mode: operands are 64 bits */
#define F_LOCKABLE		0x00000010u	/* LOCK allowed with memory destination */
#define F_RMW		0x00000020u	/* load dst before the handler */
#define F_NOWB		0x00000040u	/* handler stores the result, if any */
#define F_PRIV		0x00000080u	/* CPL 0 */
#define F_NO64		0x00000100u
#define F_ONLY64	0x00000200u
#define F_PROT		0x00000400u	/* #UD in real and virtual-8086 mode */
#define F_SRC8		0x00000800u	/* src is narrower than the operand size */
#define F_SRC16		0x00001000u
#define F_REGONLY	0x00002000u	/* modrm.mod is ignored: CR and DR moves */
#define F_BITSTR	0x00004000u	/* memory bit string: src moves the address */
#define F_ALOCK		0x00008000u	/* always locked: XCHG with memory */
#define F_POPEA		0x00010000u	/* rSP in the address is taken after the pop */
#define F_VEX		0x00020000u	/* may be VEX encoded */
#define F_READDST	0x00040000u	/* dst is loaded, never written: CMP, TEST, BT */
#define F_DST16MEM	0x00080000u	/* destination in memory is 16 bits: SLDT, MOV from sreg */
#define F_EVEX		0x00200000u	/* may be EVEX encoded */
#define F_W		0x00100000u	/* operand size is one byte if the opcode is even */
#define F_CET(what)	((u32)EMUL_CET_##what << 24)	/* transfers control in a way that is not emulated with that on */

struct emul_opcode {
	u8 dst, src, src2, group;
	u32 flags;
	union {
		enum emul_result (*exec)(struct emul *e);
		const struct emul_opcode *next;
	};
};

extern const struct emul_opcode emul_map0[256], emul_map1[256], emul_map2[256], emul_map3[256];

#define ARITH_FLAGS	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | \
			 X86_EFLAGS_SF | X86_EFLAGS_OF)

/* Faults: record and say so. */
static inline enum emul_result emul_raise(struct emul *e, u8 vector, bool has_error, u32 error)
{
	e->fault.vector = vector;
	e->fault.has_error = has_error && e->mode != EMUL_MODE_REAL;
	e->fault.error = error;
	e->fault.cr2 = 0;
	return EMUL_FAULT;
}

static inline enum emul_result emul_gp(struct emul *e, u32 error)
{
	return emul_raise(e, EMUL_VEC_GP, true, error);
}

static inline enum emul_result emul_ud(struct emul *e)
{
	return emul_raise(e, EMUL_VEC_UD, false, 0);
}

/* Mode questions. */
static inline bool emul_long(const struct emul *e)
{
	return e->mode == EMUL_MODE_LONG64;
}

static inline bool emul_protected(const struct emul *e)
{
	return e->mode >= EMUL_MODE_PROT16;
}

static inline unsigned int emul_iopl(const struct emul *e)
{
	return (e->rflags & X86_EFLAGS_IOPL) >> X86_EFLAGS_IOPL_BIT;
}

static inline bool emul_sign_extended(u64 addr, bool la57)
{
	unsigned int shift = la57 ? 64 - 57 : 64 - 48;

	return (u64)((s64)(addr << shift) >> shift) == addr;
}

static inline bool emul_canonical(const struct emul *e, u64 addr)
{
	return emul_sign_extended(addr, e->la57);
}

/* What is loaded into a register of the CPU's, and not used yet, may be as wide as the CPU has it. */
static inline bool emul_loadable(const struct emul *e, u64 addr)
{
	return emul_sign_extended(addr, e->cpu_la57);
}

/*
 * The address that a pointer of a program's in 64-bit mode means, with linear address masking: the bits between the last that
 * counts and bit 63, which tells whose it is, are as that last one (SDM vol. 1, "Linear-Address Masking").  Not for code, nor
 * for what the CPU addresses itself.
 */
static inline u64 emul_untag(const struct emul *e, u64 addr)
{
	u64 top = 1ull << 63;
	unsigned int last;

	if (!e->lam)
		return addr;
	last = addr & top ? e->lam >> 8 : e->lam & 0xff;
	if (!last)
		return addr;
	return ((u64)((s64)(addr << (63 - last)) >> (63 - last)) & ~top) | (addr & top);
}

static inline unsigned int emul_dpl(const struct emul_seg *s)
{
	return (s->attr & EMUL_ATTR_DPL) >> EMUL_ATTR_DPL_SHIFT;
}

/* Addresses the CPU makes itself, for tables and TSS, wrap as its mode says. */
static inline u64 emul_system_addr(const struct emul *e, u64 addr)
{
	return e->lma ? addr : (u32)addr;
}

/* Integers of 1, 2, 4 or 8 bytes kept zero-extended in 64 bits. */
static inline u64 emul_mask(unsigned int bytes)
{
	return ~0ull >> (64 - bytes * 8);
}

static inline u64 emul_sext(u64 v, unsigned int bytes)
{
	unsigned int shift = 64 - bytes * 8;

	return (u64)((s64)(v << shift) >> shift);
}

static inline u64 emul_sign(unsigned int bytes)
{
	return 1ull << (bytes * 8 - 1);
}

/* Replace the low bytes of a register as the CPU does. */
static inline u64 emul_merge(u64 old, u64 v, unsigned int bytes)
{
	if (bytes >= 4)
		return v & emul_mask(bytes);
	return (old & ~emul_mask(bytes)) | (v & emul_mask(bytes));
}

static inline u64 emul_reg(const struct emul *e, unsigned int n, unsigned int bytes)
{
	if (bytes == 1 && n >= 4 && n < 8 && !e->insn.rex)
		return (e->regs[n - 4] >> 8) & 0xff;
	return e->regs[n] & emul_mask(bytes);
}

static inline void emul_set_reg(struct emul *e, unsigned int n, u64 v, unsigned int bytes)
{
	if (bytes == 1 && n >= 4 && n < 8 && !e->insn.rex)
		e->regs[n - 4] = (e->regs[n - 4] & ~0xff00ull) | (v & 0xff) << 8;
	else
		e->regs[n] = emul_merge(e->regs[n], v, bytes);
}

static inline bool emul_is_mem(const struct emul *e)
{
	return e->insn.mod != 3;
}

/* access.c: segments, memory, stack, control transfer */
const struct emul_seg *emul_seg(struct emul *e, unsigned int seg);
enum emul_result emul_linear(struct emul *e, unsigned int seg, u64 ea, unsigned int bytes,
			     unsigned int access, u64 *linear);
enum emul_result emul_read(struct emul *e, unsigned int seg, u64 ea, void *buf,
			   unsigned int bytes);
enum emul_result emul_write(struct emul *e, unsigned int seg, u64 ea, const void *buf,
			    unsigned int bytes);
enum emul_result emul_read_val(struct emul *e, unsigned int seg, u64 ea, u64 *val,
			       unsigned int bytes);
unsigned int emul_sp_bytes(struct emul *e);
enum emul_result emul_push(struct emul *e, u64 *sp, u64 val, unsigned int bytes);
enum emul_result emul_pop(struct emul *e, u64 *sp, u64 *val, unsigned int bytes);
u64 emul_sp_add(struct emul *e, u64 sp, s64 delta);
enum emul_result emul_jump(struct emul *e, u64 target, unsigned int bytes);
enum emul_result emul_io_allowed(struct emul *e, u16 port, unsigned int size);

static inline bool emul_is_open(struct emul *e, enum emul_open what, u32 number)
{
	return e->ops->is_open && e->ops->is_open(e, what, number);
}

/* exec.c: operands */
u64 emul_offset(struct emul *e);
enum emul_result emul_load_rm(struct emul *e, u64 *val, unsigned int bytes, unsigned int access);
enum emul_result emul_store_dst(struct emul *e);

/* segment.c: descriptors */
struct emul_desc {
	struct emul_seg seg;
	u64 addr;	/* linear address in its table; 0 for a null selector */
	u64 raw;
};

#define EMUL_DESC_BUSY	0x0000020000000000ull	/* of a TSS, as raw has it */

enum emul_result emul_desc_read(struct emul *e, u16 sel, struct emul_desc *d);
enum emul_result emul_desc_high(struct emul *e, u16 sel, u64 *high);
enum emul_result emul_desc_change(struct emul *e, const struct emul_desc *d, u64 new);
enum emul_result emul_desc_mark(struct emul *e, const struct emul_desc *d);
void emul_null_seg(struct emul_seg *s, u16 sel);
enum emul_result emul_check_data(struct emul *e, u16 sel, struct emul_desc *d);
enum emul_result emul_load_seg(struct emul *e, unsigned int seg, u16 sel);
enum emul_result emul_check_ss(struct emul *e, u16 sel, u8 cpl, bool null_ok,
			       struct emul_desc *d);
void emul_real_seg(struct emul *e, unsigned int seg, u16 sel);
void emul_vm86_seg(struct emul *e, unsigned int seg, u16 sel);
enum emul_result emul_umip(struct emul *e);

/* task.c: within an instruction, whose length is known */
enum emul_result emul_insn_task(struct emul *e, u16 sel, enum emul_switch why);

/* far.c */
enum emul_result emul_check_cs_return(struct emul *e, u16 sel, u8 cpl, struct emul_desc *d);
enum emul_result emul_code_present(struct emul *e, u16 sel, struct emul_desc *d, u8 cpl);
enum emul_result emul_check_target(struct emul *e, u64 target, const struct emul_desc *cs);

/* gate.c: a far JMP or CALL to what is no segment */
enum emul_result emul_gate(struct emul *e, const struct emul_desc *d, bool call);

/* The handlers the tables name, by the file they are in. */
typedef enum emul_result emul_handler(struct emul *e);

/* alu.c */
emul_handler emul_op_add, emul_op_or, emul_op_adc, emul_op_sbb, emul_op_and, emul_op_sub,
	     emul_op_xor, emul_op_cmp, emul_op_test, emul_op_inc, emul_op_dec, emul_op_neg,
	     emul_op_not, emul_op_mul, emul_op_imul1, emul_op_imul, emul_op_div, emul_op_idiv,
	     emul_op_cbw, emul_op_cwd, emul_op_daa, emul_op_das, emul_op_aaa, emul_op_aas,
	     emul_op_aam, emul_op_aad;

/* bits.c */
emul_handler emul_op_rol, emul_op_ror, emul_op_rcl, emul_op_rcr, emul_op_shl, emul_op_shr,
	     emul_op_sar, emul_op_shld, emul_op_shrd, emul_op_bt, emul_op_bts, emul_op_btr,
	     emul_op_btc, emul_op_bsf, emul_op_bsr, emul_op_tzcnt, emul_op_lzcnt, emul_op_popcnt,
	     emul_op_bswap, emul_op_movbe;

/* move.c */
emul_handler emul_op_mov, emul_op_movsx, emul_op_movsxd, emul_op_xchg_acc, emul_op_lea,
	     emul_op_xchg, emul_op_xadd, emul_op_cmpxchg, emul_op_cmpxchg8b, emul_op_cmov,
	     emul_op_setcc, emul_op_push, emul_op_pop, emul_op_pusha, emul_op_popa, emul_op_pushf,
	     emul_op_popf, emul_op_enter, emul_op_leave, emul_op_xlat, emul_op_lahf, emul_op_sahf,
	     emul_op_clc, emul_op_stc, emul_op_cmc, emul_op_cld, emul_op_std, emul_op_cli,
	     emul_op_sti, emul_op_salc, emul_op_jcc, emul_op_jcxz, emul_op_loop, emul_op_jmp,
	     emul_op_call, emul_op_ret, emul_op_jmp_ind, emul_op_call_ind, emul_op_nop,
	     emul_op_bound, emul_op_clflush, emul_op_movnti;

/* string.c */
emul_handler emul_op_movs, emul_op_cmps, emul_op_stos, emul_op_lods, emul_op_scas, emul_op_ins,
	     emul_op_outs, emul_op_in, emul_op_out;

/* segment.c */
emul_handler emul_op_mov_from_sreg, emul_op_mov_to_sreg, emul_op_push_sreg, emul_op_pop_sreg,
	     emul_op_lfar, emul_op_lldt, emul_op_ltr, emul_op_sldt, emul_op_str, emul_op_arpl,
	     emul_op_verr, emul_op_verw, emul_op_lar, emul_op_lsl;

/* far.c */
emul_handler emul_op_jmp_far, emul_op_call_far, emul_op_jmp_far_mem, emul_op_call_far_mem,
	     emul_op_ret_far, emul_op_iret, emul_op_int, emul_op_int3, emul_op_into,
	     emul_op_icebp, emul_op_syscall, emul_op_sysret, emul_op_sysenter, emul_op_sysexit;

/* system.c */
emul_handler emul_op_mov_from_cr, emul_op_mov_to_cr, emul_op_mov_from_dr, emul_op_mov_to_dr,
	     emul_op_clts, emul_op_lmsw, emul_op_smsw, emul_op_sgdt, emul_op_sidt, emul_op_lgdt,
	     emul_op_lidt, emul_op_invlpg, emul_op_invpcid, emul_op_rdmsr, emul_op_wrmsr, emul_op_cpuid,
	     emul_op_rdtsc, emul_op_rdtscp, emul_op_rdpmc, emul_op_hlt, emul_op_rsm, emul_op_wbinvd,
	     emul_op_invd, emul_op_monitor, emul_op_mwait, emul_op_pause, emul_op_xgetbv,
	     emul_op_xsetbv, emul_op_hypercall, emul_op_swapgs, emul_op_fwait;

/* simd.c */
emul_handler emul_op_sse_load, emul_op_sse_store, emul_op_sse_loada, emul_op_sse_storea,
	     emul_op_evex_load, emul_op_evex_store,
	     emul_op_movd_load, emul_op_movd_store, emul_op_movq_load, emul_op_movq_store,
	     emul_op_movss_load, emul_op_movss_store, emul_op_movsd_load, emul_op_movsd_store,
	     emul_op_movlps_load, emul_op_movlps_store, emul_op_movhps_load, emul_op_movhps_store,
	     emul_op_pextr, emul_op_pinsr, emul_op_broadcast, emul_op_maskmovdqu, emul_op_vmaskmov,
	     emul_op_vextract, emul_op_movdir64b, emul_op_unknown;
enum emul_result emul_vec_usable(struct emul *e);
enum emul_result emul_maskmov(struct emul *e, u8 *val, const u8 *mask, unsigned int n);

/* x87.c */
emul_handler emul_op_fild, emul_op_fld, emul_op_fld80, emul_op_fist, emul_op_fst, emul_op_fstp80,
	     emul_op_fldcw, emul_op_fnstcw, emul_op_fnstsw, emul_op_fninit,
	     emul_op_mmx_load, emul_op_mmx_store, emul_op_mmx_from_rm, emul_op_mmx_to_rm,
	     emul_op_mmx_maskmov, emul_op_fxsave, emul_op_fxrstor, emul_op_stmxcsr, emul_op_ldmxcsr;

/* bmi.c */
emul_handler emul_op_andn, emul_op_bls, emul_op_bextr, emul_op_bzhi, emul_op_pdep, emul_op_pext,
	     emul_op_shiftx, emul_op_rorx, emul_op_mulx, emul_op_adcx, emul_op_adox, emul_op_crc32,
	     emul_op_rdpid;

#endif
