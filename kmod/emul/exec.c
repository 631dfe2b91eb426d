// SPDX-License-Identifier: GPL-2.0-only
/*
 * Execution of a decoded instruction: load the operands its table entry names,
 * call the handler, store the destination, and only then commit flags and rip.
 *
 * A handler finds zero-extended operands in e->dst, e->src, e->src2, leaves
 * its result in e->dst and its flags in e->new_flags. A handler marked F_NOWB
 * makes its own stores, memory before registers, so that a store that fails
 * leaves the registers alone.
 *
 * No locks.
 */
#include "internal.h"

/* Offset of the memory operand within its segment. */
u64 emul_offset(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	u64 ea = i->disp;

	if (i->base < EMUL_NR_REGS) {
		ea += e->regs[i->base];
		if (i->base == EMUL_RSP && (i->flags & F_POPEA))
			ea += i->opsize;
	} else if (i->base == EMUL_REG_RIP) {
		ea += e->next_rip;
	}
	if (i->index < EMUL_NR_REGS)
		ea += e->regs[i->index] << i->scale;
	return ea & emul_mask(i->adsize);
}

/* The r/m operand's value; leaves e->linear for a store that follows. */
enum emul_result emul_load_rm(struct emul *e, u64 *val, unsigned int bytes, unsigned int access)
{
	enum emul_result r;

	if (!emul_is_mem(e)) {
		*val = emul_reg(e, e->insn.rm, bytes);
		return EMUL_OK;
	}
	r = emul_linear(e, e->insn.seg, e->ea, bytes, access, &e->linear);
	if (r)
		return r;
	*val = 0;
	return e->ops->read(e, e->linear, val, bytes, access);
}

static unsigned int src_bytes(const struct emul_insn *i)
{
	if (i->flags & F_SRC8)
		return 1;
	return i->flags & F_SRC16 ? 2 : i->opsize;
}

static enum emul_result load_src(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	unsigned int bytes = src_bytes(i);

	switch (i->src) {
	case K_RM:
	case K_MOFFS:
		return emul_load_rm(e, &e->src, bytes, 0);
	case K_REG:
		e->src = emul_reg(e, i->reg, bytes);
		break;
	case K_ACC:
		e->src = emul_reg(e, EMUL_RAX, bytes);
		break;
	case K_OPREG:
		e->src = emul_reg(e, (i->opcode & 7) | (i->rex & 1) << 3, bytes);
		break;
	case K_ONE:
		e->src = 1;
		break;
	case K_CL:
		e->src = e->regs[EMUL_RCX] & 0xff;
		break;
	case K_DX:
		e->src = e->regs[EMUL_RDX] & 0xffff;
		break;
	default:
		e->src = i->imm & emul_mask(i->opsize);
		break;
	}
	return EMUL_OK;
}

static void load_src2(struct emul *e)
{
	if (e->insn.src2 == K_CL)
		e->src2 = e->regs[EMUL_RCX] & 0xff;
	else
		e->src2 = e->insn.imm & emul_mask(e->insn.opsize);
}

static enum emul_result load_dst(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	enum emul_result r = EMUL_OK;

	switch (i->dst) {
	case K_RM:
		r = emul_load_rm(e, &e->dst, i->opsize, i->flags & F_RMW ? EMUL_ACC_WRITE : 0);
		break;
	case K_REG:
		e->dst = emul_reg(e, i->reg, i->opsize);
		break;
	case K_ACC:
		e->dst = emul_reg(e, EMUL_RAX, i->opsize);
		break;
	case K_OPREG:
		e->dst = emul_reg(e, (i->opcode & 7) | (i->rex & 1) << 3, i->opsize);
		break;
	default:
		break;
	}
	e->old = e->dst;
	return r;
}

static enum emul_result store_rm(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	unsigned int bytes = i->opsize;
	enum emul_result r;

	if (!emul_is_mem(e)) {
		emul_set_reg(e, i->rm, e->dst, bytes);
		return EMUL_OK;
	}
	if (i->flags & F_DST16MEM)
		bytes = 2;
	if (!(i->flags & F_RMW)) {
		r = emul_linear(e, i->seg, e->ea, bytes, EMUL_ACC_WRITE, &e->linear);
		if (r)
			return r;
	} else if ((i->prefix & EMUL_PFX_LOCK) || (i->flags & F_ALOCK)) {
		return e->ops->replace(e, e->linear, &e->old, &e->dst, bytes, EMUL_ACC_WRITE);
	}
	return e->ops->write(e, e->linear, &e->dst, bytes, EMUL_ACC_WRITE);
}

/* Store e->dst where the instruction says. */
enum emul_result emul_store_dst(struct emul *e)
{
	const struct emul_insn *i = &e->insn;

	switch (i->dst) {
	case K_RM:
	case K_MOFFS:
		return store_rm(e);
	case K_REG:
		emul_set_reg(e, i->reg, e->dst, i->opsize);
		break;
	case K_ACC:
		emul_set_reg(e, EMUL_RAX, e->dst, i->opsize);
		break;
	case K_OPREG:
		emul_set_reg(e, (i->opcode & 7) | (i->rex & 1) << 3, e->dst, i->opsize);
		break;
	default:
		break;
	}
	return EMUL_OK;
}

bool emul_one_access(const struct emul *e)
{
	const struct emul_insn *i = &e->insn;

	return i->exec == emul_op_mov || i->exec == emul_op_movsx;
}

unsigned int emul_plain_load(const struct emul *e)
{
	const struct emul_insn *i = &e->insn;

	return emul_one_access(e) && emul_is_mem(e) && (i->src == K_RM || i->src == K_MOFFS) ? src_bytes(i) : 0;
}

/* A bit offset in a register reaches beyond the operand: move the address there. */
static void bit_string(struct emul *e)
{
	unsigned int bytes = e->insn.opsize;
	s64 bit = emul_sext(emul_reg(e, e->insn.reg, bytes), bytes);
	unsigned int shift = bytes == 8 ? 6 : bytes == 4 ? 5 : 4;

	e->ea = (e->ea + (u64)(bit >> shift) * bytes) & emul_mask(e->insn.adsize);
}

/* The operands are there: what the instruction does, and where it goes. */
static __always_inline enum emul_result finish(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	enum emul_result r;

	r = i->exec(e);
	if (r)
		return r;

	if (i->dst && !(i->flags & (F_NOWB | F_READDST))) {
		r = emul_store_dst(e);
		if (r)
			return r;
	}
	e->rip = e->next_rip;
	e->rflags = e->new_flags;
	return EMUL_OK;
}

enum emul_result emul_exec_loaded(struct emul *e, u64 val)
{
	e->src = val;
	return finish(e);
}

enum emul_result emul_exec(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	enum emul_result r;

	if (e->cet && e->cet & (EMUL_CET_ENDBR | i->flags >> 24))
		return EMUL_UNHANDLEABLE;
	if ((i->flags & F_PRIV) && e->cpl)
		return emul_gp(e, 0);
	e->new_flags = e->rflags & ~(u64)X86_EFLAGS_RF;
	if (emul_is_mem(e)) {
		e->ea = emul_offset(e);
		if (i->flags & F_BITSTR)
			bit_string(e);
	}
	if (i->src) {
		r = load_src(e);
		if (r)
			return r;
	}
	if (i->src2)
		load_src2(e);
	if (i->flags & (F_RMW | F_READDST)) {
		r = load_dst(e);
		if (r)
			return r;
	}
	return finish(e);
}
