// SPDX-License-Identifier: GPL-2.0-only
/*
 * Segment registers and descriptors: reading and checking a descriptor, loading
 * data, stack, LDT and TSS selectors, and the instructions that only look.
 *
 * Order in a load: everything is checked, the accessed bit is set in memory,
 * then the register changes. No locks. SDM vol. 3 chapters 3 and 5; APM vol. 2
 * chapter 4.
 */
#include "internal.h"

#define DESC_ACCESSED	0x0000010000000000ull

#define TYPE_LDT	2
#define TYPE_TSS16	1
#define TYPE_TSS32	9

static void unpack(struct emul_seg *s, u16 sel, u64 raw)
{
	u32 low = raw, high = raw >> 32;

	s->selector = sel;
	s->base = (low >> 16) | (high & 0xff) << 16 | (high & 0xff000000);
	s->limit = (low & 0xffff) | (high & 0xf0000);
	s->attr = (high >> 8) & 0xf0ff;
	if (s->attr & EMUL_ATTR_G)
		s->limit = s->limit << 12 | 0xfff;
}

void emul_null_seg(struct emul_seg *s, u16 sel)
{
	s->selector = sel;
	s->base = 0;
	s->limit = 0;
	s->attr = EMUL_ATTR_UNUSABLE;
}

static bool is_code(const struct emul_seg *s)
{
	return (s->attr & (EMUL_ATTR_S | 8)) == (EMUL_ATTR_S | 8);
}

/* Is a descriptor for data wanted at max(cpl, rpl) out of reach? */
static bool dpl_denies(struct emul *e, const struct emul_seg *s, u16 sel)
{
	if (is_code(s) && (s->attr & 4))	/* conforming */
		return false;
	return emul_dpl(s) < e->cpl || emul_dpl(s) < (sel & 3);
}

/* Where a selector's descriptor of this many bytes lies; false beyond its table. */
static bool desc_address(struct emul *e, u16 sel, unsigned int bytes, u64 *addr)
{
	u32 at = sel & ~7u, limit;
	struct emul_seg ldt;
	struct emul_dt gdt;
	u64 base;

	if (sel & 4) {
		e->ops->get_seg(e, EMUL_SEG_LDTR, &ldt);
		if (ldt.attr & EMUL_ATTR_UNUSABLE || !(ldt.attr & EMUL_ATTR_P))
			return false;
		base = ldt.base;
		limit = ldt.limit;
	} else {
		e->ops->get_dt(e, EMUL_DT_GDT, &gdt);
		base = gdt.base;
		limit = gdt.limit;
	}
	*addr = emul_system_addr(e, base + at);
	return at + bytes - 1 <= limit;
}

static enum emul_result read_at(struct emul *e, u64 addr, u16 sel, struct emul_desc *d)
{
	enum emul_result r;

	d->addr = addr;
	r = e->ops->read(e, addr, &d->raw, 8, EMUL_ACC_SYSTEM);
	if (!r)
		unpack(&d->seg, sel, d->raw);
	return r;
}

/* The descriptor of a selector that is not null. */
enum emul_result emul_desc_read(struct emul *e, u16 sel, struct emul_desc *d)
{
	u64 addr;

	if (!desc_address(e, sel, 8, &addr))
		return emul_gp(e, sel & ~3);
	return read_at(e, addr, sel, d);
}

/* The second half of one that takes two entries of its table; it has no type. */
enum emul_result emul_desc_high(struct emul *e, u16 sel, u64 *high)
{
	enum emul_result r;
	u64 addr;

	if (!desc_address(e, sel, 16, &addr))
		return emul_gp(e, sel & ~3);
	r = e->ops->read(e, emul_system_addr(e, addr + 8), high, 8, EMUL_ACC_SYSTEM);
	if (r)
		return r;
	return *high >> 40 & 0x1f ? emul_gp(e, sel & ~3) : EMUL_OK;
}

/* Write a descriptor that has been read, if it is to be another. */
enum emul_result emul_desc_change(struct emul *e, const struct emul_desc *d, u64 new)
{
	if (new == d->raw)
		return EMUL_OK;
	return e->ops->replace(e, d->addr, &d->raw, &new, 8, EMUL_ACC_SYSTEM | EMUL_ACC_WRITE);
}

/* Set the accessed bit of a code or data descriptor about to be loaded. */
enum emul_result emul_desc_mark(struct emul *e, const struct emul_desc *d)
{
	return d->addr ? emul_desc_change(e, d, d->raw | DESC_ACCESSED) : EMUL_OK;
}

/* Real mode changes selector and base and leaves the rest: unreal mode lives on it. */
void emul_real_seg(struct emul *e, unsigned int seg, u16 sel)
{
	struct emul_seg s = *emul_seg(e, seg);

	s.selector = sel;
	s.base = (u32)sel << 4;
	if (seg == EMUL_SEG_CS)
		s.attr = (s.attr & ~(EMUL_ATTR_DPL | EMUL_ATTR_TYPE)) | 3 | EMUL_ATTR_P |
			 EMUL_ATTR_S;
	e->ops->set_seg(e, seg, &s);
}

void emul_vm86_seg(struct emul *e, unsigned int seg, u16 sel)
{
	struct emul_seg s = {
		.selector = sel,
		.base = (u32)sel << 4,
		.limit = 0xffff,
		.attr = EMUL_ATTR_P | EMUL_ATTR_S | EMUL_ATTR_DPL | 3,
	};

	e->ops->set_seg(e, seg, &s);
}

/*
 * Check a stack selector for use at privilege level cpl. null_ok: the stack is
 * for 64-bit code. On success d is ready for emul_desc_mark() and set_seg.
 */
enum emul_result emul_check_ss(struct emul *e, u16 sel, u8 cpl, bool null_ok,
			       struct emul_desc *d)
{
	const struct emul_seg *s = &d->seg;
	enum emul_result r;

	if (!(sel & ~3)) {
		if (!null_ok || cpl == 3 || (sel & 3) != cpl)
			return emul_gp(e, 0);
		emul_null_seg(&d->seg, sel);
		d->seg.attr |= (u32)cpl << EMUL_ATTR_DPL_SHIFT;
		d->addr = 0;
		return EMUL_OK;
	}
	r = emul_desc_read(e, sel, d);
	if (r)
		return r;
	if ((sel & 3) != cpl || (s->attr & (EMUL_ATTR_S | 0xa)) != (EMUL_ATTR_S | 2) ||
	    emul_dpl(s) != cpl)
		return emul_gp(e, sel & ~3);
	if (!(s->attr & EMUL_ATTR_P))
		return emul_raise(e, EMUL_VEC_SS, true, sel & ~3);
	d->seg.attr |= 1;
	return EMUL_OK;
}

/* DS, ES, FS, GS in protected mode. */
enum emul_result emul_check_data(struct emul *e, u16 sel, struct emul_desc *d)
{
	const struct emul_seg *s = &d->seg;
	enum emul_result r;

	if (!(sel & ~3)) {
		emul_null_seg(&d->seg, sel);
		d->addr = 0;
		return EMUL_OK;
	}
	r = emul_desc_read(e, sel, d);
	if (r)
		return r;
	if (!(s->attr & EMUL_ATTR_S) || (s->attr & 0xa) == 8 || dpl_denies(e, s, sel))
		return emul_gp(e, sel & ~3);
	if (!(s->attr & EMUL_ATTR_P))
		return emul_raise(e, EMUL_VEC_NP, true, sel & ~3);
	d->seg.attr |= 1;
	return EMUL_OK;
}

/* Load any segment register but CS. The last step of an instruction that can fail. */
enum emul_result emul_load_seg(struct emul *e, unsigned int seg, u16 sel)
{
	struct emul_desc d;
	enum emul_result r;

	if (e->mode == EMUL_MODE_REAL) {
		emul_real_seg(e, seg, sel);
		return EMUL_OK;
	}
	if (e->mode == EMUL_MODE_VM86) {
		emul_vm86_seg(e, seg, sel);
		return EMUL_OK;
	}
	if (seg == EMUL_SEG_SS)
		r = emul_check_ss(e, sel, e->cpl, emul_long(e), &d);
	else
		r = emul_check_data(e, sel, &d);
	if (!r)
		r = emul_desc_mark(e, &d);
	if (!r)
		e->ops->set_seg(e, seg, &d.seg);
	return r;
}

enum emul_result emul_op_mov_from_sreg(struct emul *e)
{
	unsigned int seg = e->insn.reg & 7;

	if (seg > EMUL_SEG_GS)
		return emul_ud(e);
	e->dst = emul_seg(e, seg)->selector;
	return EMUL_OK;
}

enum emul_result emul_op_mov_to_sreg(struct emul *e)
{
	unsigned int seg = e->insn.reg & 7;
	enum emul_result r;
	u64 sel;

	if (seg > EMUL_SEG_GS || seg == EMUL_SEG_CS)
		return emul_ud(e);
	r = emul_load_rm(e, &sel, 2, 0);
	if (!r)
		r = emul_load_seg(e, seg, sel);
	if (!r && seg == EMUL_SEG_SS)
		e->shadow = EMUL_SHADOW_SS;
	return r;
}

/* 06, 0E, 16, 1E and 0F A0, 0F A8; the POPs are one above. */
static unsigned int opcode_sreg(const struct emul *e)
{
	return (e->insn.opcode >> 3) & 7;
}

enum emul_result emul_op_push_sreg(struct emul *e)
{
	e->src = emul_seg(e, opcode_sreg(e))->selector;
	return emul_op_push(e);
}

enum emul_result emul_op_pop_sreg(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP], sel;
	unsigned int seg = opcode_sreg(e);
	enum emul_result r;

	r = emul_pop(e, &sp, &sel, e->insn.opsize);
	if (!r)
		r = emul_load_seg(e, seg, sel);
	if (r)
		return r;
	e->regs[EMUL_RSP] = sp;
	if (seg == EMUL_SEG_SS)
		e->shadow = EMUL_SHADOW_SS;
	return EMUL_OK;
}

/* LES, LDS, LSS, LFS, LGS. */
enum emul_result emul_op_lfar(struct emul *e)
{
	static const u8 seg_of[8] = {
		[2] = EMUL_SEG_SS, [4] = EMUL_SEG_FS, [5] = EMUL_SEG_GS,
	};
	unsigned int n = e->insn.opsize, seg;
	enum emul_result r;
	u64 off = 0;
	u8 buf[10];
	u16 sel;

	if (e->insn.map)
		seg = seg_of[e->insn.opcode & 7];
	else
		seg = e->insn.opcode == 0xc4 ? EMUL_SEG_ES : EMUL_SEG_DS;
	r = emul_read(e, e->insn.seg, e->ea, buf, n + 2);
	if (r)
		return r;
	memcpy(&off, buf, n);
	memcpy(&sel, buf + n, 2);
	r = emul_load_seg(e, seg, sel);
	if (r)
		return r;
	emul_set_reg(e, e->insn.reg, off, n);
	return EMUL_OK;		/* LSS needs no shadow: it loads both */
}

/* An LDT or TSS descriptor; 16 bytes in long mode. */
static enum emul_result read_system_desc(struct emul *e, u16 sel, struct emul_desc *d)
{
	enum emul_result r;
	u64 addr, high;

	if (sel & 4 || !desc_address(e, sel, e->lma ? 16 : 8, &addr))
		return emul_gp(e, sel & ~3);
	r = read_at(e, addr, sel, d);
	if (!r && e->lma)
		r = emul_desc_high(e, sel, &high);
	if (r || !e->lma)
		return r;
	d->seg.base |= high << 32;
	return emul_loadable(e, d->seg.base) ? EMUL_OK : emul_gp(e, sel & ~3);
}

enum emul_result emul_op_lldt(struct emul *e)
{
	struct emul_desc d;
	enum emul_result r;
	u64 val;
	u16 sel;

	r = emul_load_rm(e, &val, 2, 0);
	if (r)
		return r;
	sel = val;
	if (!(sel & ~3)) {
		emul_null_seg(&d.seg, sel);
		e->ops->set_seg(e, EMUL_SEG_LDTR, &d.seg);
		return EMUL_OK;
	}
	r = read_system_desc(e, sel, &d);
	if (r)
		return r;
	if ((d.seg.attr & (EMUL_ATTR_S | EMUL_ATTR_TYPE)) != TYPE_LDT)
		return emul_gp(e, sel & ~3);
	if (!(d.seg.attr & EMUL_ATTR_P))
		return emul_raise(e, EMUL_VEC_NP, true, sel & ~3);
	e->ops->set_seg(e, EMUL_SEG_LDTR, &d.seg);
	return EMUL_OK;
}

enum emul_result emul_op_ltr(struct emul *e)
{
	struct emul_desc d;
	enum emul_result r;
	u32 type;
	u64 val;
	u16 sel;

	r = emul_load_rm(e, &val, 2, 0);
	if (r)
		return r;
	sel = val;
	if (!(sel & ~3))
		return emul_gp(e, 0);
	r = read_system_desc(e, sel, &d);
	if (r)
		return r;
	type = d.seg.attr & (EMUL_ATTR_S | EMUL_ATTR_TYPE);
	if (type != TYPE_TSS32 && (type != TYPE_TSS16 || e->lma))
		return emul_gp(e, sel & ~3);
	if (!(d.seg.attr & EMUL_ATTR_P))
		return emul_raise(e, EMUL_VEC_NP, true, sel & ~3);
	r = emul_desc_change(e, &d, d.raw | EMUL_DESC_BUSY);
	if (r)
		return r;
	d.seg.attr |= 2;
	e->ops->set_seg(e, EMUL_SEG_TR, &d.seg);
	return EMUL_OK;
}

/* SGDT, SIDT, SLDT, STR and SMSW above CPL 0 fault under CR4.UMIP. */
enum emul_result emul_umip(struct emul *e)
{
	enum emul_result r;
	u64 cr4;

	if (!e->cpl)
		return EMUL_OK;
	r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	return cr4 & X86_CR4_UMIP ? emul_gp(e, 0) : EMUL_OK;
}

static enum emul_result store_selector(struct emul *e, unsigned int seg)
{
	enum emul_result r = emul_umip(e);
	struct emul_seg s;

	if (r)
		return r;
	e->ops->get_seg(e, seg, &s);
	e->dst = s.selector;
	return EMUL_OK;
}

enum emul_result emul_op_sldt(struct emul *e)
{
	return store_selector(e, EMUL_SEG_LDTR);
}

enum emul_result emul_op_str(struct emul *e)
{
	return store_selector(e, EMUL_SEG_TR);
}

static void set_zf(struct emul *e, bool on)
{
	e->new_flags &= ~(u64)X86_EFLAGS_ZF;
	if (on)
		e->new_flags |= X86_EFLAGS_ZF;
}

enum emul_result emul_op_arpl(struct emul *e)
{
	enum emul_result r;
	u64 val, rpl;

	if (!emul_protected(e))
		return emul_ud(e);
	r = emul_load_rm(e, &val, 2, 0);
	if (r)
		return r;
	rpl = e->regs[e->insn.reg] & 3;
	if ((val & 3) >= rpl) {
		set_zf(e, false);
		return EMUL_OK;
	}
	val = (val & ~3ull) | rpl;
	if (emul_is_mem(e)) {
		r = emul_write(e, e->insn.seg, e->ea, &val, 2);
		if (r)
			return r;
	} else {
		emul_set_reg(e, e->insn.rm, val, 2);
	}
	set_zf(e, true);
	return EMUL_OK;
}

/* Fetch the descriptor LAR, LSL, VERR and VERW ask about; *ok if it is within reach. */
static enum emul_result look_at(struct emul *e, struct emul_desc *d, bool *ok)
{
	enum emul_result r;
	u64 sel, addr;

	*ok = false;
	r = emul_load_rm(e, &sel, 2, 0);
	if (r || !(sel & ~3ull) || !desc_address(e, sel, 8, &addr))
		return r;
	r = read_at(e, addr, sel, d);
	if (!r)
		*ok = !dpl_denies(e, &d->seg, sel);
	return r;
}

enum emul_result emul_op_verr(struct emul *e)
{
	struct emul_desc d;
	enum emul_result r;
	bool ok;

	r = look_at(e, &d, &ok);
	if (!r)
		set_zf(e, ok && (d.seg.attr & EMUL_ATTR_S) && (d.seg.attr & 0xa) != 8);
	return r;
}

enum emul_result emul_op_verw(struct emul *e)
{
	struct emul_desc d;
	enum emul_result r;
	bool ok;

	r = look_at(e, &d, &ok);
	if (!r)
		set_zf(e, ok && (d.seg.attr & (EMUL_ATTR_S | 0xa)) == (EMUL_ATTR_S | 2));
	return r;
}

/* System types LAR and LSL accept, a bit each: legacy and long mode. */
#define LAR_TYPES	0x1a3e	/* 1-5, 9, 11, 12 */
#define LAR_TYPES_LONG	0x1a04	/* 2, 9, 11, 12 */
#define LSL_TYPES	0x0a0e	/* 1-3, 9, 11 */
#define LSL_TYPES_LONG	0x0a04	/* 2, 9, 11 */

static bool type_in(const struct emul *e, const struct emul_seg *s, u32 legacy, u32 lng)
{
	if (s->attr & EMUL_ATTR_S)
		return true;
	return ((e->lma ? lng : legacy) >> (s->attr & EMUL_ATTR_TYPE)) & 1;
}

enum emul_result emul_op_lar(struct emul *e)
{
	struct emul_desc d;
	enum emul_result r;
	bool ok;

	r = look_at(e, &d, &ok);
	if (r)
		return r;
	ok = ok && type_in(e, &d.seg, LAR_TYPES, LAR_TYPES_LONG);
	set_zf(e, ok);
	if (ok)
		emul_set_reg(e, e->insn.reg, (d.raw >> 32) & 0x00ffff00, e->insn.opsize);
	return EMUL_OK;
}

enum emul_result emul_op_lsl(struct emul *e)
{
	struct emul_desc d;
	enum emul_result r;
	bool ok;

	r = look_at(e, &d, &ok);
	if (r)
		return r;
	ok = ok && type_in(e, &d.seg, LSL_TYPES, LSL_TYPES_LONG);
	set_zf(e, ok);
	if (ok)
		emul_set_reg(e, e->insn.reg, d.seg.limit, e->insn.opsize);
	return EMUL_OK;
}
