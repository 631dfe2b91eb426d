// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hardware task switches, outside long mode: the old task's registers go to its
 * TSS, the new one's come from there.
 *
 * Up to the commit point all faults are the old task's and find it as it was:
 * everything is read, checked and probed before the first write, and the writes
 * may be made again. From there on faults are the new task's, with its selectors
 * loaded and, until they are found good, nothing behind them.
 *
 * No locks. SDM vol. 3 chapter 8 (task management), table 8-1 (order of checks);
 * APM vol. 2 chapter 12.
 */
#include "internal.h"

#define TSS16_BYTES	44
#define TSS32_BYTES	104

/* Where things are: 32-bit TSS, 16-bit TSS. What is saved goes from EIP to the last selector. */
static const struct layout {
	u8 bytes;	/* smallest limit plus one */
	u8 reg;		/* size of EIP, EFLAGS and general registers, which follow each other */
	u8 seg;		/* distance of selectors */
	u8 nr_segs;
	u8 eip, segs, ldt;
} layouts[2] = {
	{ TSS16_BYTES, 2, 2, 4, 0x0e, 0x22, 0x2a },
	{ TSS32_BYTES, 4, 4, 6, 0x20, 0x48, 0x60 },
};

#define TSS_CR3		0x1c
#define TSS_TRAP	0x64

#define SAVED_REGS	(2 + 8)	/* EIP, EFLAGS, general registers */
#define TASK_FLAGS	(ARITH_FLAGS | X86_EFLAGS_TF | X86_EFLAGS_IF | X86_EFLAGS_DF | X86_EFLAGS_IOPL | \
			 X86_EFLAGS_NT | X86_EFLAGS_RF | X86_EFLAGS_VM | X86_EFLAGS_AC | X86_EFLAGS_VIF | \
			 X86_EFLAGS_VIP | X86_EFLAGS_ID)

/* Another CPU may be writing a descriptor at the same time, a few times. */
#define TRIES		8

struct switching {
	const struct emul_task *task;
	const struct layout *old_lay, *new_lay;
	struct emul_seg old;	/* TR */
	struct emul_desc new;
	u8 image[TSS32_BYTES];	/* of the new TSS */
};

/* The last byte that is saved of a task. */
static unsigned int saved_end(const struct layout *lay)
{
	return lay->segs + (lay->nr_segs - 1) * lay->seg + 1;
}

static bool is_tss(const struct emul_seg *s, bool busy)
{
	return (s->attr & (EMUL_ATTR_S | 0x7)) == (busy ? 3 : 1);
}

static const struct layout *layout_of(const struct emul_seg *s)
{
	return &layouts[s->attr >> 3 & 1];
}

static u32 image_int(const struct switching *t, unsigned int at, unsigned int bytes)
{
	u32 val = 0;

	memcpy(&val, t->image + at, bytes);
	return val;
}

static u32 image_reg(const struct switching *t, unsigned int nr)
{
	return image_int(t, t->new_lay->eip + nr * t->new_lay->reg, t->new_lay->reg);
}

static u16 image_seg(const struct switching *t, unsigned int seg)
{
	if (seg >= t->new_lay->nr_segs)
		return 0;	/* a 16-bit TSS has no FS and GS */
	return image_int(t, t->new_lay->segs + seg * t->new_lay->seg, 2);
}

/* The TSS's descriptor. A back link that is wrong is the old TSS's fault, else the selector is. */
static enum emul_result find_tss(struct emul *e, struct switching *t)
{
	bool iret = t->task->why == EMUL_SWITCH_IRET;
	u16 sel = t->task->selector;
	u8 wrong = iret ? EMUL_VEC_TS : EMUL_VEC_GP;
	enum emul_result r;

	if (!(sel & ~3) || sel & 4)
		return emul_raise(e, wrong, true, sel & ~3);
	r = emul_desc_read(e, sel, &t->new);
	if (r == EMUL_FAULT && e->fault.vector == EMUL_VEC_GP)
		e->fault.vector = wrong;
	if (r)
		return r;
	if (!is_tss(&t->new.seg, iret))
		return emul_raise(e, wrong, true, sel & ~3);
	if (!(t->new.seg.attr & EMUL_ATTR_P))
		return emul_raise(e, EMUL_VEC_NP, true, sel & ~3);
	t->new_lay = layout_of(&t->new.seg);
	if (t->new.seg.limit < t->new_lay->bytes - 1u)
		return emul_raise(e, EMUL_VEC_TS, true, sel & ~3);
	return EMUL_OK;
}

static enum emul_result read_image(struct emul *e, struct switching *t)
{
	enum emul_result r = EMUL_OK;
	unsigned int at, n;

	for (at = 0; at < t->new_lay->bytes && !r; at += n) {
		n = t->new_lay->bytes - at;
		if (n > EMUL_MAX_ACCESS)
			n = EMUL_MAX_ACCESS;
		r = e->ops->read(e, emul_system_addr(e, t->new.seg.base + at), t->image + at, n, EMUL_ACC_SYSTEM);
	}
	return r;
}

/* What will be written: it must not fail halfway. */
static enum emul_result probe_writes(struct emul *e, const struct switching *t)
{
	unsigned int first = t->old_lay->eip, last = saved_end(t->old_lay);
	const unsigned int acc = EMUL_ACC_SYSTEM | EMUL_ACC_WRITE;
	enum emul_result r;
	u64 cr0;

	/* CR0 as it is: nothing is begun where its change, later, would have to wait. */
	r = e->ops->get_cr(e, 0, &cr0);
	if (!r)
		r = e->ops->set_cr(e, 0, cr0);
	if (!r)
		r = e->ops->probe(e, emul_system_addr(e, t->old.base + first), 2, acc);
	if (!r)
		r = e->ops->probe(e, emul_system_addr(e, t->old.base + last - 1), 2, acc);
	if (!r && t->task->why != EMUL_SWITCH_IRET)
		r = e->ops->probe(e, t->new.addr, 8, acc);
	if (!r && (t->task->why == EMUL_SWITCH_CALL || t->task->why == EMUL_SWITCH_GATE))
		r = e->ops->probe(e, emul_system_addr(e, t->new.seg.base), 2, acc);
	return r;
}

/* Its descriptor may be gone from the table: the CPU does not look at what TR holds a copy of. */
static enum emul_result old_not_busy(struct emul *e, const struct switching *t)
{
	struct emul_desc d;
	enum emul_result r = emul_desc_read(e, t->old.selector, &d);

	if (r == EMUL_FAULT && e->fault.vector == EMUL_VEC_GP)
		return EMUL_OK;
	return r ? r : emul_desc_change(e, &d, d.raw & ~EMUL_DESC_BUSY);
}

static enum emul_result save_old(struct emul *e, const struct switching *t)
{
	const struct layout *lay = t->old_lay;
	u64 at = t->old.base + lay->eip;
	u32 vals[SAVED_REGS], flags = e->rflags;
	enum emul_result r = EMUL_OK;
	unsigned int k;

	if (t->task->why != EMUL_SWITCH_GATE)
		flags &= ~X86_EFLAGS_RF;
	if (t->task->why == EMUL_SWITCH_IRET)
		flags &= ~X86_EFLAGS_NT;
	vals[0] = t->task->rip;
	vals[1] = flags;
	for (k = 0; k < 8; k++)
		vals[2 + k] = e->regs[k];
	for (k = 0; k < SAVED_REGS && !r; k++, at += lay->reg)
		r = e->ops->write(e, emul_system_addr(e, at), &vals[k], lay->reg, EMUL_ACC_SYSTEM);
	for (k = 0; k < lay->nr_segs && !r; k++) {
		at = t->old.base + lay->segs + k * lay->seg;
		r = e->ops->write(e, emul_system_addr(e, at), &emul_seg(e, k)->selector, 2, EMUL_ACC_SYSTEM);
	}
	return r;
}

/* All that is written; TR and the new TSS are one then. */
static enum emul_result leave_old(struct emul *e, struct switching *t)
{
	u8 why = t->task->why;
	enum emul_result r = EMUL_OK;

	if (why == EMUL_SWITCH_JMP || why == EMUL_SWITCH_IRET)
		r = old_not_busy(e, t);
	if (!r)
		r = save_old(e, t);
	if (!r && (why == EMUL_SWITCH_CALL || why == EMUL_SWITCH_GATE))
		r = e->ops->write(e, emul_system_addr(e, t->new.seg.base), &t->old.selector, 2, EMUL_ACC_SYSTEM);
	if (!r && why != EMUL_SWITCH_IRET)
		r = emul_desc_change(e, &t->new, t->new.raw | EMUL_DESC_BUSY);
	return r;
}

/*
 * Selectors first, empty: what is loaded of them until the first fault is what its handler finds. CS cannot be empty,
 * but a conforming one runs at the level of SS: the outermost, so that nobody counts on the stack. Those of a virtual-8086
 * task need no descriptor.
 */
static void empty_segs(struct emul *e, const struct switching *t)
{
	struct emul_seg s, cs = *emul_seg(e, EMUL_SEG_CS);
	unsigned int k;

	for (k = 0; k <= EMUL_SEG_GS; k++) {
		if (e->new_flags & X86_EFLAGS_VM) {
			emul_vm86_seg(e, k, image_seg(t, k));
			continue;
		}
		emul_null_seg(&s, image_seg(t, k));
		if (k == EMUL_SEG_SS)
			s.attr |= EMUL_ATTR_DPL;
		if (k != EMUL_SEG_CS)
			e->ops->set_seg(e, k, &s);
	}
	cs.selector = image_seg(t, EMUL_SEG_CS);
	cs.attr = (cs.attr & ~EMUL_ATTR_DPL) | 0xf | EMUL_ATTR_S | EMUL_ATTR_P |
		  (u32)(cs.selector & 3) << EMUL_ATTR_DPL_SHIFT;
	if (!(e->new_flags & X86_EFLAGS_VM))
		e->ops->set_seg(e, EMUL_SEG_CS, &cs);
	emul_null_seg(&s, image_int(t, t->new_lay->ldt, 2));
	e->ops->set_seg(e, EMUL_SEG_LDTR, &s);
	e->cpl = 3;
}

static enum emul_result load_ldt(struct emul *e, const struct switching *t)
{
	u16 sel = image_int(t, t->new_lay->ldt, 2);
	struct emul_desc d;
	enum emul_result r;

	if (!(sel & ~3))
		return EMUL_OK;
	if (sel & 4)
		return emul_raise(e, EMUL_VEC_TS, true, sel & ~3);
	r = emul_desc_read(e, sel, &d);
	if (r)
		return r;
	if ((d.seg.attr & (EMUL_ATTR_S | EMUL_ATTR_TYPE | EMUL_ATTR_P)) != (EMUL_ATTR_P | 2))
		return emul_raise(e, EMUL_VEC_TS, true, sel & ~3);
	e->ops->set_seg(e, EMUL_SEG_LDTR, &d.seg);
	return EMUL_OK;
}

/* One segment register, with the accessed bit. */
static enum emul_result load_one(struct emul *e, unsigned int seg, u16 sel, u8 cpl)
{
	enum emul_result r = EMUL_RETRY;
	struct emul_desc d;
	unsigned int k;

	for (k = 0; k < TRIES && r == EMUL_RETRY; k++) {
		if (seg == EMUL_SEG_CS)
			r = emul_check_cs_return(e, sel, 0, &d);
		else if (seg == EMUL_SEG_SS)
			r = emul_check_ss(e, sel, cpl, false, &d);
		else
			r = emul_check_data(e, sel, &d);
		if (!r)
			r = emul_desc_mark(e, &d);
	}
	if (!r)
		e->ops->set_seg(e, seg, &d.seg);
	return r;
}

static enum emul_result load_segs(struct emul *e, const struct switching *t)
{
	static const u8 data[] = { EMUL_SEG_DS, EMUL_SEG_ES, EMUL_SEG_FS, EMUL_SEG_GS };
	u8 cpl = image_seg(t, EMUL_SEG_CS) & 3;
	struct emul_seg outer, cs;
	enum emul_result r;
	unsigned int k;

	if (e->new_flags & X86_EFLAGS_VM)
		return EMUL_OK;
	/* The two that say what the privilege is change together. */
	e->ops->get_seg(e, EMUL_SEG_CS, &outer);
	r = load_one(e, EMUL_SEG_CS, image_seg(t, EMUL_SEG_CS), cpl);
	if (r)
		return r;
	e->ops->get_seg(e, EMUL_SEG_CS, &cs);
	e->ops->set_seg(e, EMUL_SEG_CS, &outer);
	r = load_one(e, EMUL_SEG_SS, image_seg(t, EMUL_SEG_SS), cpl);
	if (r)
		return r;
	e->ops->set_seg(e, EMUL_SEG_CS, &cs);
	e->cpl = cpl;
	for (k = 0; k < sizeof(data) && !r; k++)
		r = load_one(e, data[k], image_seg(t, data[k]), cpl);
	return r;
}

/* The error code of an exception that came through a gate, on the new stack. */
static enum emul_result push_error(struct emul *e, const struct switching *t, u64 *sp)
{
	e->seg_valid = 0;
	e->mode = e->new_flags & X86_EFLAGS_VM ? EMUL_MODE_VM86 :
		  emul_seg(e, EMUL_SEG_CS)->attr & EMUL_ATTR_DB ? EMUL_MODE_PROT32 : EMUL_MODE_PROT16;
	return t->task->has_error ? emul_push(e, sp, t->task->error, t->new_lay->reg) : EMUL_OK;
}

/* Past the commit point: hidden parts of registers, stack, first instruction. */
static enum emul_result enter_new(struct emul *e, const struct switching *t, u64 *sp)
{
	bool wide = t->new_lay == &layouts[1];
	enum emul_result r;
	u64 cr0;

	r = e->ops->get_cr(e, 0, &cr0);
	if (!r)
		r = e->ops->set_cr(e, 0, cr0 | X86_CR0_TS);
	if (r)
		return r;
	if (wide && (cr0 & X86_CR0_PG)) {
		r = e->ops->set_cr(e, 3, image_int(t, TSS_CR3, 4));
		if (r == EMUL_FAULT)
			emul_raise(e, EMUL_VEC_TS, true, 0);
	}
	if (!r)
		r = load_ldt(e, t);
	if (!r)
		r = load_segs(e, t);
	if (r) {
		/* Whatever is wrong with a selector is wrong with the TSS it comes from. */
		if (r == EMUL_FAULT && e->fault.vector == EMUL_VEC_GP)
			e->fault.vector = EMUL_VEC_TS;
		return r;
	}
	r = push_error(e, t, sp);
	if (!r && e->next_rip > emul_seg(e, EMUL_SEG_CS)->limit)
		r = emul_gp(e, 0);
	return r;
}

/* Commit: nothing leads back. */
static enum emul_result load_new(struct emul *e, struct switching *t)
{
	u8 old_cpl = e->cpl, old_mode = e->mode;
	enum emul_result r;
	unsigned int k;
	u64 sp;

	t->new.seg.attr |= 2;
	e->ops->set_seg(e, EMUL_SEG_TR, &t->new.seg);
	e->next_rip = image_reg(t, 0);
	e->new_flags = (image_reg(t, 1) & TASK_FLAGS) | X86_EFLAGS_FIXED;
	empty_segs(e, t);
	if (t->task->why == EMUL_SWITCH_CALL || t->task->why == EMUL_SWITCH_GATE)
		e->new_flags |= X86_EFLAGS_NT;
	sp = image_reg(t, 2 + EMUL_RSP);

	r = enter_new(e, t, &sp);
	e->mode = old_mode;
	if (r && r != EMUL_FAULT) {
		e->cpl = old_cpl;
		return EMUL_UNHANDLEABLE;	/* descriptors in a device */
	}
	for (k = 0; k < 8; k++)
		e->regs[k] = k == EMUL_RSP ? sp : image_reg(t, 2 + k);
	e->shadow = EMUL_TASK_NEW;
	if (t->task->why == EMUL_SWITCH_IRET)
		e->shadow |= EMUL_SHADOW_IRET;
	if (r)
		e->shadow |= EMUL_TASK_FAULT;
	else if (t->new_lay == &layouts[1] && t->image[TSS_TRAP] & 1)
		e->shadow |= EMUL_TASK_TRAP;
	return EMUL_OK;
}

static void mark_external(struct emul *e)
{
	if (e->fault.has_error && e->fault.vector != EMUL_VEC_PF)
		e->fault.error |= 1;
}

static enum emul_result switch_task(struct emul *e, const struct emul_task *task)
{
	struct switching t = { .task = task };
	enum emul_result r;

	e->ops->get_seg(e, EMUL_SEG_TR, &t.old);
	t.old_lay = layout_of(&t.old);
	r = find_tss(e, &t);
	if (!r && t.old.limit < saved_end(t.old_lay))
		r = emul_raise(e, EMUL_VEC_TS, true, t.old.selector & ~3);
	if (!r)
		r = read_image(e, &t);
	if (!r)
		r = probe_writes(e, &t);
	if (!r)
		r = leave_old(e, &t);
	if (!r)
		r = load_new(e, &t);
	if (task->external && (r == EMUL_FAULT || (!r && e->shadow & EMUL_TASK_FAULT)))
		mark_external(e);
	return r;
}

enum emul_result emul_insn_task(struct emul *e, u16 sel, enum emul_switch why)
{
	struct emul_task task = { .selector = sel, .why = why, .rip = e->next_rip };

	return switch_task(e, &task);
}

enum emul_result emul_task_switch(struct emul *e, const struct emul_task *task)
{
	enum emul_result r;

	e->seg_valid = 0;
	e->shadow = 0;
	e->insn_valid = false;	/* of the instruction before, the ops must see no prefix */
	e->insn.prefix = 0;
	if (e->lma || e->mode == EMUL_MODE_REAL)
		return EMUL_UNHANDLEABLE;
	r = switch_task(e, task);
	if (r)
		return r;
	e->rip = e->next_rip;
	e->rflags = e->new_flags;
	return EMUL_OK;
}
