// SPDX-License-Identifier: GPL-2.0-only
/*
 * String instructions and port I/O.
 *
 * A repeated instruction runs up to EMUL_MAX_REP iterations a call. Each one
 * commits rCX, rSI, rDI and flags before the next starts; rip stays until the
 * last. What goes wrong in the first iteration is the instruction's result;
 * later on it only ends the round, and comes back as the first of the next.
 *
 * No locks. SDM vol. 2: REP, MOVS ... OUTS; vol. 1 chapter 19 for I/O.
 */
#include "internal.h"

static u64 offset_in(const struct emul *e, unsigned int reg)
{
	return e->regs[reg] & emul_mask(e->insn.adsize);
}

/* Step an index register over count elements of size bytes. */
static void advance(struct emul *e, unsigned int reg, unsigned int count, unsigned int size)
{
	u64 by = (u64)count * size;

	if (e->rflags & X86_EFLAGS_DF)
		by = -by;
	e->regs[reg] = emul_merge(e->regs[reg], e->regs[reg] + by, e->insn.adsize);
}

static bool repeated(const struct emul *e)
{
	return e->insn.prefix & (EMUL_PFX_REP | EMUL_PFX_REPNE);
}

/* INS and OUTS; MOVS and CMPS; STOS, LODS and SCAS.  On others the prefix means nothing, or something else. */
bool emul_repeats(const struct emul *e)
{
	u8 op = e->insn.opcode;

	return repeated(e) && !e->insn.map && !e->insn.vex &&
	       ((op >= 0x6c && op <= 0x6f) || (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf));
}

static void count_down(struct emul *e, unsigned int by)
{
	e->regs[EMUL_RCX] = emul_merge(e->regs[EMUL_RCX], e->regs[EMUL_RCX] - by,
				       e->insn.adsize);
}

/*
 * Run step under the REP prefix. compare: CMPS and SCAS, which also stop when
 * ZF no longer is what REPE or REPNE asks for.
 */
static enum emul_result repeat(struct emul *e, enum emul_result (*step)(struct emul *e),
			       bool compare)
{
	unsigned int k, max = e->rflags & X86_EFLAGS_TF ? 1 : EMUL_MAX_REP;	/* each is a step of its own */
	bool want_zf = e->insn.prefix & EMUL_PFX_REP;
	enum emul_result r;

	if (!repeated(e))
		return step(e);
	for (k = 0; k < max; k++) {
		if (!offset_in(e, EMUL_RCX))
			return EMUL_OK;
		r = step(e);
		if (r) {
			if (!k)
				return r;
			break;
		}
		count_down(e, 1);
		if (compare && !!(e->new_flags & X86_EFLAGS_ZF) != want_zf)
			return EMUL_OK;
	}
	if (offset_in(e, EMUL_RCX))
		e->next_rip = e->rip;
	return EMUL_OK;
}

static enum emul_result movs_step(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	enum emul_result r;
	u64 val;

	r = emul_read_val(e, e->insn.seg, offset_in(e, EMUL_RSI), &val, n);
	if (!r)
		r = emul_write(e, EMUL_SEG_ES, offset_in(e, EMUL_RDI), &val, n);
	if (r)
		return r;
	advance(e, EMUL_RSI, 1, n);
	advance(e, EMUL_RDI, 1, n);
	return EMUL_OK;
}

static enum emul_result cmps_step(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	enum emul_result r;

	r = emul_read_val(e, e->insn.seg, offset_in(e, EMUL_RSI), &e->dst, n);
	if (!r)
		r = emul_read_val(e, EMUL_SEG_ES, offset_in(e, EMUL_RDI), &e->src, n);
	if (r)
		return r;
	emul_op_cmp(e);
	advance(e, EMUL_RSI, 1, n);
	advance(e, EMUL_RDI, 1, n);
	return EMUL_OK;
}

static enum emul_result scas_step(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	enum emul_result r;

	r = emul_read_val(e, EMUL_SEG_ES, offset_in(e, EMUL_RDI), &e->src, n);
	if (r)
		return r;
	e->dst = emul_reg(e, EMUL_RAX, n);
	emul_op_cmp(e);
	advance(e, EMUL_RDI, 1, n);
	return EMUL_OK;
}

static enum emul_result stos_step(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	enum emul_result r;

	r = emul_write(e, EMUL_SEG_ES, offset_in(e, EMUL_RDI), &e->regs[EMUL_RAX], n);
	if (!r)
		advance(e, EMUL_RDI, 1, n);
	return r;
}

static enum emul_result lods_step(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	enum emul_result r;
	u64 val;

	r = emul_read_val(e, e->insn.seg, offset_in(e, EMUL_RSI), &val, n);
	if (r)
		return r;
	emul_set_reg(e, EMUL_RAX, val, n);
	advance(e, EMUL_RSI, 1, n);
	return EMUL_OK;
}

enum emul_result emul_op_movs(struct emul *e)
{
	return repeat(e, movs_step, false);
}

enum emul_result emul_op_cmps(struct emul *e)
{
	return repeat(e, cmps_step, true);
}

enum emul_result emul_op_scas(struct emul *e)
{
	return repeat(e, scas_step, true);
}

enum emul_result emul_op_stos(struct emul *e)
{
	return repeat(e, stos_step, false);
}

enum emul_result emul_op_lods(struct emul *e)
{
	return repeat(e, lods_step, false);
}

static unsigned int io_bytes(const struct emul *e)
{
	return e->insn.opsize > 4 ? 4 : e->insn.opsize;
}

enum emul_result emul_op_in(struct emul *e)
{
	unsigned int n = io_bytes(e), count = 1;
	enum emul_result r;

	r = emul_io_allowed(e, e->src, n);
	if (r)
		return r;
	e->dst = 0;
	return e->ops->pio_in(e, e->src, n, &e->dst, &count);
}

enum emul_result emul_op_out(struct emul *e)
{
	unsigned int n = io_bytes(e);
	enum emul_result r;

	r = emul_io_allowed(e, e->src, n);
	if (r)
		return r;
	return e->ops->pio_out(e, e->src, n, &e->regs[EMUL_RAX]);
}

/*
 * How many elements INS may move at once, and where to: a batch goes
 * upward, stays in one page, does not wrap, passes the segment checks whole, and nobody steps.
 */
static enum emul_result batch_size(struct emul *e, unsigned int n, unsigned int *count, u64 *linear)
{
	u64 off = offset_in(e, EMUL_RDI), left = 1, room;
	enum emul_result r;

	r = emul_linear(e, EMUL_SEG_ES, off, n, EMUL_ACC_WRITE, linear);
	if (r)
		return r;
	*count = 1;
	if (repeated(e))
		left = offset_in(e, EMUL_RCX);
	room = 4096 - (*linear & 4095);
	if (room > EMUL_MAX_BATCH)
		room = EMUL_MAX_BATCH;
	room /= n;
	if (left > room)
		left = room;
	if (left <= 1 || (e->rflags & (X86_EFLAGS_DF | X86_EFLAGS_TF)) ||
	    emul_mask(e->insn.adsize) - off < left * n)
		return EMUL_OK;
	r = emul_linear(e, EMUL_SEG_ES, off, left * n, EMUL_ACC_WRITE, linear);
	if (r)	/* the limit is in between: one at a time */
		return emul_linear(e, EMUL_SEG_ES, off, n, EMUL_ACC_WRITE, linear);
	*count = left;
	return EMUL_OK;
}

static void batch_done(struct emul *e, unsigned int reg, unsigned int n, unsigned int count)
{
	advance(e, reg, count, n);
	if (!repeated(e))
		return;
	count_down(e, count);
	if (offset_in(e, EMUL_RCX))
		e->next_rip = e->rip;
}

enum emul_result emul_op_ins(struct emul *e)
{
	unsigned int n = io_bytes(e), count, asked;
	enum emul_result r;
	u64 linear;

	if (repeated(e) && !offset_in(e, EMUL_RCX))
		return EMUL_OK;
	r = emul_io_allowed(e, e->src, n);
	if (!r)
		r = batch_size(e, n, &count, &linear);
	if (r)
		return r;
	/* A read from a port cannot be taken back: be sure of the store first. */
	r = e->ops->probe(e, linear, n * count, EMUL_ACC_WRITE);
	if (r == EMUL_UNHANDLEABLE && n * count > EMUL_MAX_ACCESS) {
		count = 1;
		r = e->ops->probe(e, linear, n, EMUL_ACC_WRITE);
	}
	if (r)
		return r;
	asked = count;
	r = e->ops->pio_in(e, e->src, n, e->batch, &count);
	if (r)
		return r;
	if (!count || count > asked)
		return EMUL_UNHANDLEABLE;
	r = e->ops->write(e, linear, e->batch, n * count, EMUL_ACC_WRITE);
	if (!r)
		batch_done(e, EMUL_RDI, n, count);
	return r;
}

enum emul_result emul_op_outs(struct emul *e)
{
	unsigned int n = io_bytes(e);
	enum emul_result r;
	u64 val;

	if (repeated(e) && !offset_in(e, EMUL_RCX))
		return EMUL_OK;
	r = emul_io_allowed(e, e->src, n);
	if (!r)
		r = emul_read_val(e, e->insn.seg, offset_in(e, EMUL_RSI), &val, n);
	if (!r)
		r = e->ops->pio_out(e, e->src, n, &val);
	if (!r)
		batch_done(e, EMUL_RSI, n, 1);
	return r;
}
