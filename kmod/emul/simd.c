// SPDX-License-Identifier: GPL-2.0-only
/*
 * SSE and AVX moves between a vector register and memory or a general register:
 * what guests use on device memory. Arithmetic is not here.
 *
 * No locks. SDM vol. 1 chapters 10 to 14 and vol. 2; APM vol. 4.
 */
#include "internal.h"

/* Are vector instructions enabled, and has this one a legal VEX form? */
static enum emul_result usable(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	u64 cr0, cr4, xcr0 = 0;
	enum emul_result r;

	if (!e->ops->read_xmm || !e->ops->write_xmm)
		return EMUL_UNHANDLEABLE;
	r = e->ops->get_cr(e, 0, &cr0);
	if (!r)
		r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	if (i->vex) {
		if (!(cr4 & X86_CR4_OSXSAVE) || i->vex_v)
			return emul_ud(e);
		if (!e->ops->get_xcr)
			return EMUL_UNHANDLEABLE;
		r = e->ops->get_xcr(e, 0, &xcr0);
		if (r)
			return r;
		if ((xcr0 & 6) != 6)
			return emul_ud(e);
	} else if ((cr0 & X86_CR0_EM) || !(cr4 & X86_CR4_OSFXSR)) {
		return emul_ud(e);
	}
	return cr0 & X86_CR0_TS ? emul_raise(e, EMUL_VEC_NM, false, 0) : EMUL_OK;
}

static unsigned int vector_bytes(const struct emul *e)
{
	return e->insn.vex && (e->insn.vex_l_pp & 4) ? 32 : 16;
}

static enum emul_result get_vec(struct emul *e, unsigned int reg, u8 *buf, unsigned int n)
{
	return e->ops->read_xmm(e, reg, buf, n);
}

static enum emul_result set_vec(struct emul *e, unsigned int reg, const u8 *buf, unsigned int n)
{
	return e->ops->write_xmm(e, reg, buf, n, e->insn.vex);
}

static enum emul_result aligned(struct emul *e, unsigned int n)
{
	enum emul_result r;
	u64 linear;

	r = emul_linear(e, e->insn.seg, e->ea, n, 0, &linear);
	if (r)
		return r;
	return linear & (n - 1) ? emul_gp(e, 0) : EMUL_OK;
}

/* Whole vector from memory or register. */
static enum emul_result load(struct emul *e, bool align)
{
	unsigned int n = vector_bytes(e);
	enum emul_result r = usable(e);
	u8 buf[32];

	if (!r && align && emul_is_mem(e))
		r = aligned(e, n);
	if (r)
		return r;
	if (emul_is_mem(e))
		r = emul_read(e, e->insn.seg, e->ea, buf, n);
	else
		r = get_vec(e, e->insn.rm, buf, n);
	return r ? r : set_vec(e, e->insn.reg, buf, n);
}

/* Whole vector to memory or register. */
static enum emul_result store(struct emul *e, bool align)
{
	unsigned int n = vector_bytes(e);
	enum emul_result r = usable(e);
	u8 buf[32];

	if (!r && align && emul_is_mem(e))
		r = aligned(e, n);
	if (!r)
		r = get_vec(e, e->insn.reg, buf, n);
	if (r)
		return r;
	if (emul_is_mem(e))
		return emul_write(e, e->insn.seg, e->ea, buf, n);
	return set_vec(e, e->insn.rm, buf, n);
}

enum emul_result emul_op_sse_load(struct emul *e)
{
	return load(e, false);
}

enum emul_result emul_op_sse_loada(struct emul *e)
{
	return load(e, true);
}

enum emul_result emul_op_sse_store(struct emul *e)
{
	return store(e, false);
}

enum emul_result emul_op_sse_storea(struct emul *e)
{
	return store(e, true);
}

/* The low n bytes from memory, the rest zero. */
static enum emul_result load_low(struct emul *e, unsigned int n)
{
	enum emul_result r = usable(e);
	u8 buf[16] = { 0 };

	if (!r)
		r = emul_read(e, e->insn.seg, e->ea, buf, n);
	return r ? r : set_vec(e, e->insn.reg, buf, 16);
}

/* n bytes at offset at of the register, to memory. */
static enum emul_result store_part(struct emul *e, unsigned int at, unsigned int n)
{
	enum emul_result r = usable(e);
	u8 buf[16];

	if (!r)
		r = get_vec(e, e->insn.reg, buf, 16);
	return r ? r : emul_write(e, e->insn.seg, e->ea, buf + at, n);
}

/* Replace n bytes at offset at of register to by the low ones of from, or of memory. */
static enum emul_result merge_part(struct emul *e, unsigned int to, unsigned int from,
				   unsigned int at, unsigned int n)
{
	enum emul_result r;
	u8 buf[16], part[16];

	if (e->insn.vex)	/* three operands */
		return EMUL_UNHANDLEABLE;
	r = usable(e);
	if (!r)
		r = get_vec(e, to, buf, 16);
	if (!r && emul_is_mem(e))
		r = emul_read(e, e->insn.seg, e->ea, part, n);
	else if (!r)
		r = get_vec(e, from, part, 16);
	if (r)
		return r;
	memcpy(buf + at, part, n);
	return set_vec(e, to, buf, 16);
}

enum emul_result emul_op_movss_load(struct emul *e)
{
	if (emul_is_mem(e))
		return load_low(e, 4);
	return merge_part(e, e->insn.reg, e->insn.rm, 0, 4);
}

enum emul_result emul_op_movss_store(struct emul *e)
{
	if (emul_is_mem(e))
		return store_part(e, 0, 4);
	return merge_part(e, e->insn.rm, e->insn.reg, 0, 4);
}

enum emul_result emul_op_movsd_load(struct emul *e)
{
	if (emul_is_mem(e))
		return load_low(e, 8);
	return merge_part(e, e->insn.reg, e->insn.rm, 0, 8);
}

enum emul_result emul_op_movsd_store(struct emul *e)
{
	if (emul_is_mem(e))
		return store_part(e, 0, 8);
	return merge_part(e, e->insn.rm, e->insn.reg, 0, 8);
}

/* MOVLPS, MOVLPD, MOVHPS, MOVHPD from memory. */
enum emul_result emul_op_movlps_load(struct emul *e)
{
	return merge_part(e, e->insn.reg, 0, 0, 8);
}

enum emul_result emul_op_movhps_load(struct emul *e)
{
	return merge_part(e, e->insn.reg, 0, 8, 8);
}

static enum emul_result scalar_vex(struct emul *e)
{
	return e->insn.vex && (e->insn.vex_l_pp & 4) ? emul_ud(e) : EMUL_OK;
}

/* MOVLPS and MOVHPS to memory. */
enum emul_result emul_op_movlps_store(struct emul *e)
{
	enum emul_result r = scalar_vex(e);

	return r ? r : store_part(e, 0, 8);
}

enum emul_result emul_op_movhps_store(struct emul *e)
{
	enum emul_result r = scalar_vex(e);

	return r ? r : store_part(e, 8, 8);
}

/* MOVD and MOVQ from r/m32 or r/m64. */
enum emul_result emul_op_movd_load(struct emul *e)
{
	unsigned int n = emul_long(e) && (e->insn.rex & 8) ? 8 : 4;
	enum emul_result r = scalar_vex(e);
	u8 buf[16] = { 0 };
	u64 val;

	if (!r)
		r = usable(e);
	if (!r)
		r = emul_load_rm(e, &val, n, 0);
	if (r)
		return r;
	memcpy(buf, &val, n);
	return set_vec(e, e->insn.reg, buf, 16);
}

/* MOVD and MOVQ to r/m32 or r/m64. */
enum emul_result emul_op_movd_store(struct emul *e)
{
	unsigned int n = emul_long(e) && (e->insn.rex & 8) ? 8 : 4;
	enum emul_result r = scalar_vex(e);
	u64 val = 0;
	u8 buf[16];

	if (!r)
		r = usable(e);
	if (!r)
		r = get_vec(e, e->insn.reg, buf, 16);
	if (r)
		return r;
	if (emul_is_mem(e))
		return emul_write(e, e->insn.seg, e->ea, buf, n);
	memcpy(&val, buf, n);
	emul_set_reg(e, e->insn.rm, val, n);
	return EMUL_OK;
}

/* The low quadword of register from to register to, the rest zero. */
static enum emul_result movq_reg(struct emul *e, unsigned int to, unsigned int from)
{
	enum emul_result r = usable(e);
	u8 buf[16];

	if (!r)
		r = get_vec(e, from, buf, 16);
	if (r)
		return r;
	memset(buf + 8, 0, 8);
	return set_vec(e, to, buf, 16);
}

enum emul_result emul_op_movq_load(struct emul *e)
{
	enum emul_result r = scalar_vex(e);

	if (r)
		return r;
	return emul_is_mem(e) ? load_low(e, 8) : movq_reg(e, e->insn.reg, e->insn.rm);
}

enum emul_result emul_op_movq_store(struct emul *e)
{
	enum emul_result r = scalar_vex(e);

	if (r)
		return r;
	return emul_is_mem(e) ? store_part(e, 0, 8) : movq_reg(e, e->insn.rm, e->insn.reg);
}
