// SPDX-License-Identifier: GPL-2.0-only
/*
 * Data movement, the stack, flag instructions and near control transfer.
 *
 * No locks. SDM vol. 2, APM vol. 3: the instructions' own pages.
 */
#include "internal.h"

#define POPF_FLAGS	(ARITH_FLAGS | X86_EFLAGS_TF | X86_EFLAGS_DF | X86_EFLAGS_NT | \
			 X86_EFLAGS_AC | X86_EFLAGS_ID)

enum emul_result emul_op_nop(struct emul *e)
{
	return EMUL_OK;
}

enum emul_result emul_op_unknown(struct emul *e)
{
	return EMUL_UNHANDLEABLE;
}

/* CLFLUSH, CLFLUSHOPT, CLWB: a read as far as faults go; the cache is the host's. */
enum emul_result emul_op_clflush(struct emul *e)
{
	enum emul_result r;
	u64 linear;

	r = emul_linear(e, e->insn.seg, e->ea, 1, 0, &linear);
	return r ? r : e->ops->probe(e, linear, 1, 0);
}

enum emul_result emul_op_movnti(struct emul *e)
{
	unsigned int n = e->insn.rex & 8 ? 8 : 4;

	return emul_write(e, e->insn.seg, e->ea, &e->regs[e->insn.reg], n);
}

enum emul_result emul_op_mov(struct emul *e)
{
	e->dst = e->src;
	return EMUL_OK;
}

enum emul_result emul_op_movsx(struct emul *e)
{
	e->dst = emul_sext(e->src, e->insn.flags & F_SRC8 ? 1 : 2);
	return EMUL_OK;
}

/* 63: MOVSXD in 64-bit mode, ARPL elsewhere. */
enum emul_result emul_op_movsxd(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	enum emul_result r;
	u64 val;

	if (!emul_long(e))
		return emul_op_arpl(e);
	if (n > 4)
		n = 4;
	r = emul_load_rm(e, &val, n, 0);
	if (r)
		return r;
	emul_set_reg(e, e->insn.reg, emul_sext(val, n), e->insn.opsize);
	return EMUL_OK;
}

enum emul_result emul_op_lea(struct emul *e)
{
	e->dst = e->ea;
	return EMUL_OK;
}

enum emul_result emul_op_xchg(struct emul *e)
{
	enum emul_result r;

	e->dst = e->src;
	r = emul_store_dst(e);
	if (!r)
		emul_set_reg(e, e->insn.reg, e->old, e->insn.opsize);
	return r;
}

/* 90..97. 90 itself without REX.B is NOP, with F3 PAUSE. */
enum emul_result emul_op_xchg_acc(struct emul *e)
{
	if (e->insn.opcode == 0x90 && !(e->insn.rex & 1))
		return e->insn.prefix & EMUL_PFX_REP ? emul_op_pause(e) : EMUL_OK;
	e->dst = e->src;
	emul_store_dst(e);
	emul_set_reg(e, EMUL_RAX, e->old, e->insn.opsize);
	return EMUL_OK;
}

enum emul_result emul_op_xadd(struct emul *e)
{
	enum emul_result r = EMUL_OK;

	emul_op_add(e);
	if (emul_is_mem(e))
		r = emul_store_dst(e);
	if (r)
		return r;
	emul_set_reg(e, e->insn.reg, e->old, e->insn.opsize);
	if (!emul_is_mem(e))
		emul_store_dst(e);
	return EMUL_OK;
}

enum emul_result emul_op_cmpxchg(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	u64 new = e->src;
	enum emul_result r;
	bool equal;

	e->dst = emul_reg(e, EMUL_RAX, n);
	e->src = e->old;
	equal = e->dst == e->src;
	emul_op_cmp(e);

	/* Memory is written in any case, with what it held if they differ. */
	e->dst = equal ? new : e->old;
	if (equal || emul_is_mem(e)) {
		r = emul_store_dst(e);
		if (r)
			return r;
	}
	if (!equal)
		emul_set_reg(e, EMUL_RAX, e->old, n);
	return EMUL_OK;
}

/* CMPXCHG8B, and CMPXCHG16B with REX.W. */
enum emul_result emul_op_cmpxchg8b(struct emul *e)
{
	unsigned int half = e->insn.rex & 8 ? 8 : 4, n = half * 2;
	u8 old[16], new[16], want[16];
	enum emul_result r;
	u64 val;
	bool equal;

	r = emul_linear(e, e->insn.seg, e->ea, n, EMUL_ACC_WRITE, &e->linear);
	if (r)
		return r;
	if (n == 16 && (e->linear & 15))
		return emul_gp(e, 0);
	r = e->ops->read(e, e->linear, old, n, EMUL_ACC_WRITE);
	if (r)
		return r;

	memcpy(want, &e->regs[EMUL_RAX], half);
	memcpy(want + half, &e->regs[EMUL_RDX], half);
	equal = !memcmp(old, want, n);
	memcpy(new, old, n);
	if (equal) {
		memcpy(new, &e->regs[EMUL_RBX], half);
		memcpy(new + half, &e->regs[EMUL_RCX], half);
	}
	if (e->insn.prefix & EMUL_PFX_LOCK)
		r = e->ops->replace(e, e->linear, old, new, n, EMUL_ACC_WRITE);
	else
		r = e->ops->write(e, e->linear, new, n, EMUL_ACC_WRITE);
	if (r)
		return r;

	e->new_flags &= ~(u64)X86_EFLAGS_ZF;
	if (equal) {
		e->new_flags |= X86_EFLAGS_ZF;
		return EMUL_OK;
	}
	val = 0;
	memcpy(&val, old, half);
	emul_set_reg(e, EMUL_RAX, val, half);
	memcpy(&val, old + half, half);
	emul_set_reg(e, EMUL_RDX, val, half);
	return EMUL_OK;
}

/* Condition codes as Jcc, SETcc and CMOVcc encode them. */
static bool condition(const struct emul *e)
{
	u64 f = e->rflags;
	bool sf_of = !(f & X86_EFLAGS_SF) != !(f & X86_EFLAGS_OF);
	bool c;

	switch ((e->insn.opcode >> 1) & 7) {
	case 0:
		c = f & X86_EFLAGS_OF;
		break;
	case 1:
		c = f & X86_EFLAGS_CF;
		break;
	case 2:
		c = f & X86_EFLAGS_ZF;
		break;
	case 3:
		c = f & (X86_EFLAGS_CF | X86_EFLAGS_ZF);
		break;
	case 4:
		c = f & X86_EFLAGS_SF;
		break;
	case 5:
		c = f & X86_EFLAGS_PF;
		break;
	case 6:
		c = sf_of;
		break;
	default:
		c = sf_of || (f & X86_EFLAGS_ZF);
		break;
	}
	return c != (e->insn.opcode & 1);
}

enum emul_result emul_op_cmov(struct emul *e)
{
	if (condition(e))
		e->dst = e->src;
	return EMUL_OK;
}

enum emul_result emul_op_setcc(struct emul *e)
{
	e->dst = condition(e);
	return EMUL_OK;
}

enum emul_result emul_op_push(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP];
	enum emul_result r;

	r = emul_push(e, &sp, e->src, e->insn.opsize);
	if (!r)
		e->regs[EMUL_RSP] = sp;
	return r;
}

enum emul_result emul_op_pop(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP];
	enum emul_result r;

	r = emul_pop(e, &sp, &e->dst, e->insn.opsize);
	if (r)
		return r;
	if (emul_is_mem(e)) {
		r = emul_store_dst(e);
		if (r)
			return r;
		e->regs[EMUL_RSP] = sp;
		return EMUL_OK;
	}
	e->regs[EMUL_RSP] = sp;
	return emul_store_dst(e);
}

enum emul_result emul_op_pusha(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP];
	enum emul_result r;
	unsigned int k;

	for (k = 0; k < 8; k++) {
		r = emul_push(e, &sp, e->regs[k], e->insn.opsize);
		if (r)
			return r;
	}
	e->regs[EMUL_RSP] = sp;
	return EMUL_OK;
}

enum emul_result emul_op_popa(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP], val[8];
	enum emul_result r;
	unsigned int k;

	for (k = 8; k--;) {
		r = emul_pop(e, &sp, &val[k], e->insn.opsize);
		if (r)
			return r;
	}
	for (k = 0; k < 8; k++) {
		if (k != EMUL_RSP)
			e->regs[k] = emul_merge(e->regs[k], val[k], e->insn.opsize);
	}
	e->regs[EMUL_RSP] = sp;
	return EMUL_OK;
}

/* PUSHF and POPF in virtual-8086 mode need IOPL 3, unless VME takes over. */
static enum emul_result vm86_flags(struct emul *e)
{
	enum emul_result r;
	u64 cr4;

	if (e->mode != EMUL_MODE_VM86 || emul_iopl(e) == 3)
		return EMUL_OK;
	r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	return cr4 & X86_CR4_VME ? EMUL_UNHANDLEABLE : emul_gp(e, 0);
}

enum emul_result emul_op_pushf(struct emul *e)
{
	enum emul_result r;

	r = vm86_flags(e);
	if (r)
		return r;
	e->src = e->rflags & ~(u64)(X86_EFLAGS_VM | X86_EFLAGS_RF);
	return emul_op_push(e);
}

enum emul_result emul_op_popf(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP], may = POPF_FLAGS, val;
	enum emul_result r;

	r = vm86_flags(e);
	if (r)
		return r;
	r = emul_pop(e, &sp, &val, e->insn.opsize);
	if (r)
		return r;
	if (e->cpl <= emul_iopl(e))
		may |= X86_EFLAGS_IF;
	if (!e->cpl)
		may |= X86_EFLAGS_IOPL;
	may &= emul_mask(e->insn.opsize);
	e->new_flags = (e->new_flags & ~may) | (val & may);
	e->regs[EMUL_RSP] = sp;
	return EMUL_OK;
}

enum emul_result emul_op_enter(struct emul *e)
{
	unsigned int n = e->insn.opsize, level = e->insn.imm2 & 31, k;
	u64 sp = e->regs[EMUL_RSP], bp = e->regs[EMUL_RBP], frame, val, linear;
	u64 mask = emul_mask(emul_sp_bytes(e));
	enum emul_result r;

	r = emul_push(e, &sp, bp, n);
	if (r)
		return r;
	frame = sp;
	for (k = 1; k < level; k++) {
		bp = emul_sp_add(e, bp, -(s64)n);
		r = emul_read_val(e, EMUL_SEG_SS, bp & mask, &val, n);
		if (!r)
			r = emul_push(e, &sp, val, n);
		if (r)
			return r;
	}
	if (level) {
		r = emul_push(e, &sp, frame, n);
		if (r)
			return r;
	}
	sp = emul_sp_add(e, sp, -(s64)e->insn.imm);
	r = emul_linear(e, EMUL_SEG_SS, sp & mask, n, EMUL_ACC_WRITE, &linear);
	if (!r)
		r = e->ops->probe(e, linear, n, EMUL_ACC_WRITE);
	if (r)
		return r;
	e->regs[EMUL_RSP] = sp;
	e->regs[EMUL_RBP] = emul_merge(e->regs[EMUL_RBP], frame, n);
	return EMUL_OK;
}

enum emul_result emul_op_leave(struct emul *e)
{
	u64 sp = emul_merge(e->regs[EMUL_RSP], e->regs[EMUL_RBP], emul_sp_bytes(e)), val;
	enum emul_result r;

	r = emul_pop(e, &sp, &val, e->insn.opsize);
	if (r)
		return r;
	e->regs[EMUL_RSP] = sp;
	e->regs[EMUL_RBP] = emul_merge(e->regs[EMUL_RBP], val, e->insn.opsize);
	return EMUL_OK;
}

enum emul_result emul_op_xlat(struct emul *e)
{
	u64 ea = e->regs[EMUL_RBX] + (e->regs[EMUL_RAX] & 0xff);

	return emul_read_val(e, e->insn.seg, ea & emul_mask(e->insn.adsize), &e->dst, 1);
}

enum emul_result emul_op_lahf(struct emul *e)
{
	u64 ah = (e->rflags & ARITH_FLAGS & 0xff) | X86_EFLAGS_FIXED;

	e->regs[EMUL_RAX] = (e->regs[EMUL_RAX] & ~0xff00ull) | ah << 8;
	return EMUL_OK;
}

enum emul_result emul_op_sahf(struct emul *e)
{
	u64 may = ARITH_FLAGS & 0xff;

	e->new_flags = (e->new_flags & ~may) | ((e->regs[EMUL_RAX] >> 8) & may);
	return EMUL_OK;
}

enum emul_result emul_op_clc(struct emul *e)
{
	e->new_flags &= ~(u64)X86_EFLAGS_CF;
	return EMUL_OK;
}

enum emul_result emul_op_stc(struct emul *e)
{
	e->new_flags |= X86_EFLAGS_CF;
	return EMUL_OK;
}

enum emul_result emul_op_cmc(struct emul *e)
{
	e->new_flags ^= X86_EFLAGS_CF;
	return EMUL_OK;
}

enum emul_result emul_op_cld(struct emul *e)
{
	e->new_flags &= ~(u64)X86_EFLAGS_DF;
	return EMUL_OK;
}

enum emul_result emul_op_std(struct emul *e)
{
	e->new_flags |= X86_EFLAGS_DF;
	return EMUL_OK;
}

/* CLI and STI: IOPL decides; virtual interrupt flags are not modelled. */
static enum emul_result may_set_if(struct emul *e)
{
	u64 cr4, virt = e->mode == EMUL_MODE_VM86 ? X86_CR4_VME : X86_CR4_PVI;
	enum emul_result r;

	if (e->cpl <= emul_iopl(e))
		return EMUL_OK;
	r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	return e->cpl == 3 && (cr4 & virt) ? EMUL_UNHANDLEABLE : emul_gp(e, 0);
}

enum emul_result emul_op_cli(struct emul *e)
{
	enum emul_result r = may_set_if(e);

	if (!r)
		e->new_flags &= ~(u64)X86_EFLAGS_IF;
	return r;
}

enum emul_result emul_op_sti(struct emul *e)
{
	enum emul_result r = may_set_if(e);

	if (r)
		return r;
	if (!(e->rflags & X86_EFLAGS_IF))
		e->shadow = EMUL_SHADOW_STI;
	e->new_flags |= X86_EFLAGS_IF;
	return EMUL_OK;
}

enum emul_result emul_op_salc(struct emul *e)
{
	e->dst = e->rflags & X86_EFLAGS_CF ? 0xff : 0;
	return EMUL_OK;
}

/* Relative targets: src is the displacement, next_rip still the next instruction. */
static enum emul_result branch(struct emul *e)
{
	return emul_jump(e, e->next_rip + e->src, e->insn.opsize);
}

enum emul_result emul_op_jmp(struct emul *e)
{
	return branch(e);
}

enum emul_result emul_op_jcc(struct emul *e)
{
	return condition(e) ? branch(e) : EMUL_OK;
}

enum emul_result emul_op_jcxz(struct emul *e)
{
	return emul_reg(e, EMUL_RCX, e->insn.adsize) ? EMUL_OK : branch(e);
}

/* LOOPNE (E0), LOOPE (E1), LOOP (E2). */
enum emul_result emul_op_loop(struct emul *e)
{
	unsigned int n = e->insn.adsize;
	u64 count = (emul_reg(e, EMUL_RCX, n) - 1) & emul_mask(n);
	bool zf = e->rflags & X86_EFLAGS_ZF;
	enum emul_result r = EMUL_OK;

	if (count && (e->insn.opcode == 0xe2 || zf == (e->insn.opcode & 1)))
		r = branch(e);
	if (!r)
		e->regs[EMUL_RCX] = emul_merge(e->regs[EMUL_RCX], count, n);
	return r;
}

static enum emul_result call_to(struct emul *e, u64 target)
{
	u64 sp = e->regs[EMUL_RSP], from = e->next_rip;
	enum emul_result r;

	r = emul_jump(e, target, e->insn.opsize);
	if (!r)
		r = emul_push(e, &sp, from, e->insn.opsize);
	if (!r)
		e->regs[EMUL_RSP] = sp;
	return r;
}

enum emul_result emul_op_call(struct emul *e)
{
	return call_to(e, e->next_rip + e->src);
}

enum emul_result emul_op_call_ind(struct emul *e)
{
	return call_to(e, e->src);
}

enum emul_result emul_op_jmp_ind(struct emul *e)
{
	return emul_jump(e, e->src, e->insn.opsize);
}

enum emul_result emul_op_ret(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP], target;
	enum emul_result r;

	r = emul_pop(e, &sp, &target, e->insn.opsize);
	if (!r)
		r = emul_jump(e, target, e->insn.opsize);
	if (!r)
		e->regs[EMUL_RSP] = emul_sp_add(e, sp, e->insn.imm);
	return r;
}

enum emul_result emul_op_bound(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	s64 index = emul_sext(emul_reg(e, e->insn.reg, n), n), low, high;
	u8 buf[8];
	u64 val = 0;
	enum emul_result r;

	r = emul_read(e, e->insn.seg, e->ea, buf, 2 * n);
	if (r)
		return r;
	memcpy(&val, buf, n);
	low = emul_sext(val, n);
	memcpy(&val, buf + n, n);
	high = emul_sext(val, n);
	if (index < low || index > high)
		return emul_raise(e, EMUL_VEC_BR, false, 0);
	return EMUL_OK;
}
