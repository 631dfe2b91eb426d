// SPDX-License-Identifier: GPL-2.0-only
/*
 * Far JMP and CALL to gates and task-state segments: 16-, 32- and 64-bit call
 * gates, with a change of stacks where the target is an inner one; task gates
 * and TSSes lead to a task switch.
 *
 * No locks. SDM vol. 3 chapter 5 (call gates), vol. 2 CALL; APM vol. 2 4.7, 8.
 */
#include "internal.h"

#define TYPE_CALL16	0x4
#define TYPE_CALL32	0xc
#define TYPE_TASK	0x5
#define TYPE_TSS16	0x1
#define TYPE_TSS32	0x9

struct gate {
	u64 offset;
	u16 sel;		/* of the code */
	u16 own;		/* of the gate, without RPL */
	u8 bytes;		/* of what is pushed */
	u8 params;
	bool call;
};

/* A gate may be used by who could read it if it were data. */
static bool out_of_reach(const struct emul *e, const struct emul_desc *d)
{
	return emul_dpl(&d->seg) < e->cpl || emul_dpl(&d->seg) < (d->seg.selector & 3);
}

static enum emul_result read_gate(struct emul *e, const struct emul_desc *d, struct gate *g)
{
	enum emul_result r;
	u64 high;

	g->own = d->seg.selector & ~3;
	g->sel = d->raw >> 16;
	g->offset = (d->raw & 0xffff) | (d->raw >> 48) << 16;
	g->params = d->raw >> 32 & 31;
	if (!e->lma) {
		g->bytes = (d->seg.attr & EMUL_ATTR_TYPE) == TYPE_CALL32 ? 4 : 2;
		if (g->bytes == 2)
			g->offset &= 0xffff;
		return EMUL_OK;
	}
	r = emul_desc_high(e, d->seg.selector, &high);
	if (r)
		return r;
	g->offset |= high << 32;
	g->bytes = 8;
	g->params = 0;
	return EMUL_OK;
}

/* The code segment behind the gate, and the privilege level it will run at. */
static enum emul_result gate_code(struct emul *e, const struct gate *g, struct emul_desc *cs, u8 *cpl)
{
	const struct emul_seg *s = &cs->seg;
	enum emul_result r;
	bool conforming;

	if (!(g->sel & ~3))
		return emul_gp(e, 0);
	r = emul_desc_read(e, g->sel, cs);
	if (r)
		return r;
	conforming = s->attr & 4;
	if ((s->attr & (EMUL_ATTR_S | 8)) != (EMUL_ATTR_S | 8) || emul_dpl(s) > e->cpl ||
	    (!g->call && !conforming && emul_dpl(s) != e->cpl))
		return emul_gp(e, g->sel & ~3);
	if (e->lma && (s->attr & (EMUL_ATTR_L | EMUL_ATTR_DB)) != EMUL_ATTR_L)
		return emul_gp(e, g->sel & ~3);
	*cpl = conforming ? e->cpl : emul_dpl(s);
	return emul_code_present(e, g->sel, cs, *cpl);
}

/* The stack that the TSS has for an inner level. */
static enum emul_result inner_stack(struct emul *e, u8 cpl, struct emul_desc *ss, u64 *sp)
{
	unsigned int n, at;
	struct emul_seg tr;
	enum emul_result r;
	u16 sel = cpl;		/* long mode: none, but its RPL */

	e->ops->get_seg(e, EMUL_SEG_TR, &tr);
	n = e->lma ? 8 : tr.attr & 8 ? 4 : 2;
	at = e->lma ? 4u + cpl * 8 : n + cpl * n * 2;
	if (at + n + (e->lma ? 0 : 2) - 1 > tr.limit)
		return emul_raise(e, EMUL_VEC_TS, true, tr.selector & ~3);
	*sp = 0;
	r = e->ops->read(e, emul_system_addr(e, tr.base + at), sp, n, EMUL_ACC_SYSTEM);
	if (!r && !e->lma)
		r = e->ops->read(e, emul_system_addr(e, tr.base + at + n), &sel, 2, EMUL_ACC_SYSTEM);
	if (r)
		return r;
	r = emul_check_ss(e, sel, cpl, e->lma, ss);
	if (r == EMUL_FAULT && e->fault.vector == EMUL_VEC_GP)
		e->fault.vector = EMUL_VEC_TS;
	return r;
}

/* Push, last first; on a new stack if there is one, which is SS for that long. */
static enum emul_result push_frame(struct emul *e, const struct emul_desc *ss, u8 cpl, u64 *sp, const u64 *vals,
				   unsigned int nr, unsigned int n)
{
	u8 old_cpl = e->cpl, old_mode = e->mode;
	enum emul_result r = EMUL_OK;

	if (ss) {
		e->segs[EMUL_SEG_SS] = ss->seg;
		e->seg_valid |= 1u << EMUL_SEG_SS;
	}
	e->cpl = cpl;
	if (e->lma)
		e->mode = EMUL_MODE_LONG64;	/* where the gate leads */
	while (nr-- && !r)
		r = emul_push(e, sp, vals[nr], n);
	e->cpl = old_cpl;
	e->mode = old_mode;
	if (!ss)
		return r;
	e->seg_valid &= ~(1u << EMUL_SEG_SS);
	if (r == EMUL_FAULT && e->fault.vector == EMUL_VEC_SS)
		e->fault.error = ss->seg.selector & ~3;
	return r;
}

/* To an inner level: its stack gets the old one's address, the parameters and the way back. */
static enum emul_result call_inner(struct emul *e, const struct gate *g, const struct emul_desc *cs, u8 cpl)
{
	u64 vals[4 + 31] = { e->next_rip, emul_seg(e, EMUL_SEG_CS)->selector };
	u64 sp, old_sp = e->regs[EMUL_RSP];
	struct emul_desc ss;
	enum emul_result r;
	unsigned int k;

	r = inner_stack(e, cpl, &ss, &sp);
	if (!r)
		r = emul_check_target(e, g->offset, cs);
	for (k = 0; k < g->params && !r; k++)
		r = emul_pop(e, &old_sp, &vals[2 + k], g->bytes);
	vals[2 + k] = e->regs[EMUL_RSP];
	vals[3 + k] = emul_seg(e, EMUL_SEG_SS)->selector;
	if (!r)
		r = push_frame(e, &ss, cpl, &sp, vals, 4 + k, g->bytes);
	if (!r)
		r = emul_desc_mark(e, cs);
	if (!r)
		r = emul_desc_mark(e, &ss);
	if (r)
		return r;
	e->ops->set_seg(e, EMUL_SEG_SS, &ss.seg);
	e->regs[EMUL_RSP] = e->lma ? sp : emul_merge(e->regs[EMUL_RSP], sp, ss.seg.attr & EMUL_ATTR_DB ? 4 : 2);
	e->cpl = cpl;
	return EMUL_OK;
}

static enum emul_result call_same(struct emul *e, const struct gate *g, const struct emul_desc *cs)
{
	u64 vals[] = { e->next_rip, emul_seg(e, EMUL_SEG_CS)->selector }, sp = e->regs[EMUL_RSP];
	enum emul_result r;

	r = emul_check_target(e, g->offset, cs);
	if (!r && g->call)
		r = push_frame(e, NULL, e->cpl, &sp, vals, 2, g->bytes);
	if (!r)
		r = emul_desc_mark(e, cs);
	if (!r)
		e->regs[EMUL_RSP] = sp;
	return r;
}

static enum emul_result call_gate(struct emul *e, const struct emul_desc *d, bool call)
{
	struct gate g = { .call = call };
	struct emul_desc cs;
	enum emul_result r;
	u8 cpl;

	r = read_gate(e, d, &g);
	if (r)
		return r;
	if (out_of_reach(e, d))
		return emul_gp(e, g.own);
	if (!(d->seg.attr & EMUL_ATTR_P))
		return emul_raise(e, EMUL_VEC_NP, true, g.own);
	r = gate_code(e, &g, &cs, &cpl);
	if (!r)
		r = cpl < e->cpl ? call_inner(e, &g, &cs, cpl) : call_same(e, &g, &cs);
	if (r)
		return r;
	e->ops->set_seg(e, EMUL_SEG_CS, &cs.seg);
	e->next_rip = g.offset;
	return EMUL_OK;
}

enum emul_result emul_gate(struct emul *e, const struct emul_desc *d, bool call)
{
	enum emul_switch why = call ? EMUL_SWITCH_CALL : EMUL_SWITCH_JMP;
	u16 sel = d->seg.selector & ~3;

	switch (d->seg.attr & EMUL_ATTR_TYPE) {
	case TYPE_CALL16:
		if (e->lma)
			break;
		return call_gate(e, d, call);
	case TYPE_CALL32:
		return call_gate(e, d, call);
	case TYPE_TASK:
		if (e->lma || out_of_reach(e, d))
			break;
		if (!(d->seg.attr & EMUL_ATTR_P))
			return emul_raise(e, EMUL_VEC_NP, true, sel);
		return emul_insn_task(e, d->raw >> 16, why);
	case TYPE_TSS16:
	case TYPE_TSS32:
		if (e->lma || out_of_reach(e, d))
			break;
		return emul_insn_task(e, d->seg.selector, why);
	}
	return emul_gp(e, sel);
}
