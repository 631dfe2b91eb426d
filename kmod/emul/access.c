// SPDX-License-Identifier: GPL-2.0-only
/*
 * From segment and offset to a checked linear address and the memory behind
 * it; the stack; where control may go; which ports may be touched.
 *
 * No locks. SDM vol. 3 chapter 5 (limit and type checks), vol. 1 chapter 19
 * (I/O permission bitmap); APM vol. 2 chapter 4.
 */
#include "internal.h"

/* A segment register, asked for at most once an instruction. */
const struct emul_seg *emul_seg(struct emul *e, unsigned int seg)
{
	struct emul_seg *s = &e->segs[seg];

	if (!(e->seg_valid & (1u << seg))) {
		e->ops->get_seg(e, seg, s);
		e->seg_valid |= 1u << seg;
	}
	return s;
}

static enum emul_result seg_fault(struct emul *e, unsigned int seg)
{
	return emul_raise(e, seg == EMUL_SEG_SS ? EMUL_VEC_SS : EMUL_VEC_GP, true, 0);
}

static bool seg_access_ok(const struct emul_seg *s, bool write)
{
	if (s->attr & EMUL_ATTR_UNUSABLE || !(s->attr & EMUL_ATTR_P))
		return false;
	if (s->attr & 8)	/* code */
		return !write && (s->attr & 2);
	return !write || (s->attr & 2);
}

static bool seg_limit_ok(const struct emul_seg *s, u32 ea, unsigned int bytes)
{
	u32 last = ea + bytes - 1;
	u32 top;

	if (last < ea)
		return false;
	if ((s->attr & (EMUL_ATTR_S | 0xc)) == (EMUL_ATTR_S | 0x4)) {
		/* Expand-down data: valid above the limit. */
		top = s->attr & EMUL_ATTR_DB ? 0xffffffff : 0xffff;
		return ea > s->limit && last <= top;
	}
	return last <= s->limit;
}

static enum emul_result linear_segmented(struct emul *e, unsigned int seg, u64 ea,
					 unsigned int bytes, bool write, u64 *linear)
{
	const struct emul_seg *s = emul_seg(e, seg);

	if (emul_protected(e) && !seg_access_ok(s, write))
		return seg_fault(e, seg);
	if (!seg_limit_ok(s, ea, bytes))
		return seg_fault(e, seg);
	*linear = (u32)(s->base + ea);
	if (*linear + bytes - 1 > 0xffffffffull)
		return EMUL_UNHANDLEABLE;	/* wraps at 4G, models differ */
	return EMUL_OK;
}

/* ea is already cut to the address size. */
enum emul_result emul_linear(struct emul *e, unsigned int seg, u64 ea, unsigned int bytes,
			     unsigned int access, u64 *linear)
{
	u64 addr;

	if (!emul_long(e))
		return linear_segmented(e, seg, ea, bytes, access & EMUL_ACC_WRITE, linear);

	addr = ea;
	if (seg >= EMUL_SEG_FS)
		addr += emul_seg(e, seg)->base;
	addr = emul_untag(e, addr);
	if (!emul_canonical(e, addr) || !emul_canonical(e, addr + bytes - 1))
		return seg_fault(e, seg);
	*linear = addr;
	return EMUL_OK;
}

enum emul_result emul_read(struct emul *e, unsigned int seg, u64 ea, void *buf,
			   unsigned int bytes)
{
	enum emul_result r;
	u64 linear;

	r = emul_linear(e, seg, ea, bytes, 0, &linear);
	return r ? r : e->ops->read(e, linear, buf, bytes, 0);
}

enum emul_result emul_write(struct emul *e, unsigned int seg, u64 ea, const void *buf,
			    unsigned int bytes)
{
	enum emul_result r;
	u64 linear;

	r = emul_linear(e, seg, ea, bytes, EMUL_ACC_WRITE, &linear);
	return r ? r : e->ops->write(e, linear, buf, bytes, EMUL_ACC_WRITE);
}

enum emul_result emul_read_val(struct emul *e, unsigned int seg, u64 ea, u64 *val,
			       unsigned int bytes)
{
	*val = 0;
	return emul_read(e, seg, ea, val, bytes);
}

/* Width of the stack pointer: SS.B, or 64 bits. */
unsigned int emul_sp_bytes(struct emul *e)
{
	if (emul_long(e))
		return 8;
	return emul_seg(e, EMUL_SEG_SS)->attr & EMUL_ATTR_DB ? 4 : 2;
}

u64 emul_sp_add(struct emul *e, u64 sp, s64 delta)
{
	return emul_merge(sp, sp + delta, emul_sp_bytes(e));
}

/*
 * Push below *sp and move it. The caller commits *sp to RSP when nothing more
 * can fail.
 */
enum emul_result emul_push(struct emul *e, u64 *sp, u64 val, unsigned int bytes)
{
	u64 to = emul_sp_add(e, *sp, -(s64)bytes);
	enum emul_result r;

	r = emul_write(e, EMUL_SEG_SS, to & emul_mask(emul_sp_bytes(e)), &val, bytes);
	if (!r)
		*sp = to;
	return r;
}

enum emul_result emul_pop(struct emul *e, u64 *sp, u64 *val, unsigned int bytes)
{
	enum emul_result r;

	r = emul_read_val(e, EMUL_SEG_SS, *sp & emul_mask(emul_sp_bytes(e)), val, bytes);
	if (!r)
		*sp = emul_sp_add(e, *sp, bytes);
	return r;
}

/* A near transfer: target cut to the operand size, checked, put in next_rip. */
enum emul_result emul_jump(struct emul *e, u64 target, unsigned int bytes)
{
	target &= emul_mask(bytes);
	if (emul_long(e)) {
		if (!emul_canonical(e, target))
			return emul_gp(e, 0);
	} else if (target > emul_seg(e, EMUL_SEG_CS)->limit) {
		return emul_gp(e, 0);
	}
	e->next_rip = target;
	return EMUL_OK;
}

/* IOPL, and above it the bitmap in the TSS. */
enum emul_result emul_io_allowed(struct emul *e, u16 port, unsigned int size)
{
	struct emul_seg tr;
	enum emul_result r;
	u16 map, bits;
	u32 at;

	if (e->mode != EMUL_MODE_VM86 && e->cpl <= emul_iopl(e))
		return EMUL_OK;
	if (e->mode == EMUL_MODE_REAL || emul_is_open(e, EMUL_OPEN_PORT, port))
		return EMUL_OK;

	e->ops->get_seg(e, EMUL_SEG_TR, &tr);
	if (tr.attr & EMUL_ATTR_UNUSABLE || !(tr.attr & EMUL_ATTR_P) || tr.limit < 103 ||
	    (tr.attr & 0xd) != 0x9)
		return emul_gp(e, 0);
	r = e->ops->read(e, emul_system_addr(e, tr.base + 102), &map, 2, EMUL_ACC_SYSTEM);
	if (r)
		return r;
	at = map + port / 8;
	if (at + 1 > tr.limit)
		return emul_gp(e, 0);
	r = e->ops->read(e, emul_system_addr(e, tr.base + at), &bits, 2, EMUL_ACC_SYSTEM);
	if (r)
		return r;
	if ((bits >> (port & 7)) & ((1u << size) - 1))
		return emul_gp(e, 0);
	return EMUL_OK;
}
