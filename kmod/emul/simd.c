// SPDX-License-Identifier: GPL-2.0-only
/*
 * SSE, AVX and AVX-512 moves between a vector register and memory or a general
 * register: what guests use on device memory. Arithmetic is not here.
 *
 * A masked move touches the elements it is told to and no others, one access for
 * each run of them.
 *
 * No locks. SDM vol. 1 chapters 10 to 15 and vol. 2; APM vol. 4.
 */
#include "internal.h"

#define XCR0_AVX	0x06u
#define XCR0_AVX512	0xe6u

#define EVEX_Z		0x80u
#define EVEX_B		0x10u
#define EVEX_AAA	0x07u

static enum emul_result enabled(struct emul *e)
{
	const struct emul_insn *i = &e->insn;
	u64 need = i->vex == 2 ? XCR0_AVX512 : XCR0_AVX, cr0, cr4, xcr0 = 0;
	enum emul_result r;

	if (!e->ops->read_vec || !e->ops->write_vec)
		return EMUL_UNHANDLEABLE;
	r = e->ops->get_cr(e, 0, &cr0);
	if (!r)
		r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	if (i->vex) {
		if (!(cr4 & X86_CR4_OSXSAVE))
			return emul_ud(e);
		if (!e->ops->get_xcr)
			return EMUL_UNHANDLEABLE;
		r = e->ops->get_xcr(e, 0, &xcr0);
		if (r)
			return r;
		if ((xcr0 & need) != need)
			return emul_ud(e);
	} else if ((cr0 & X86_CR0_EM) || !(cr4 & X86_CR4_OSFXSR)) {
		return emul_ud(e);
	}
	return cr0 & X86_CR0_TS ? emul_raise(e, EMUL_VEC_NM, false, 0) : EMUL_OK;
}

static bool masked(const struct emul *e)
{
	return e->insn.vex == 2 && e->insn.evex & EVEX_AAA;
}

/* Has this move a legal form? What fields it has no use for must say so. */
static enum emul_result usable(struct emul *e, bool three, bool may_mask)
{
	const struct emul_insn *i = &e->insn;

	if (i->vex && !three && i->vex_v)
		return emul_ud(e);
	if (i->vex == 2 && (i->evex & EVEX_B || (i->evex & EVEX_Z && !masked(e)) || (masked(e) && !may_mask)))
		return emul_ud(e);
	return enabled(e);
}

enum emul_result emul_vec_usable(struct emul *e)
{
	if (e->insn.vex && e->insn.vex_l_pp & 4)
		return emul_ud(e);
	return usable(e, false, false);
}

/* 0 is no length. */
static unsigned int vector_bytes(const struct emul *e)
{
	if (e->insn.vex == 2) {
		unsigned int ll = e->insn.evex >> 5 & 3;

		return ll < 3 ? 16u << ll : 0;
	}
	return e->insn.vex && (e->insn.vex_l_pp & 4) ? 32 : 16;
}

static bool wide(const struct emul *e)
{
	return e->insn.rex & 8;
}

static enum emul_result get_vec(struct emul *e, unsigned int reg, u8 *buf, unsigned int n)
{
	return e->ops->read_vec(e, reg, buf, n);
}

static enum emul_result set_vec(struct emul *e, unsigned int reg, const u8 *buf, unsigned int n)
{
	return e->ops->write_vec(e, reg, buf, n, e->insn.vex);
}

/* The register that a three-operand form takes the rest from. */
static unsigned int base_reg(const struct emul *e, unsigned int reg)
{
	if (!e->insn.vex)
		return reg;
	return emul_long(e) ? e->insn.vex_v : e->insn.vex_v & 7;
}

/* EVEX counts a short displacement in units of what the instruction moves at most. */
static void scale_disp(struct emul *e, unsigned int unit)
{
	if (e->insn.vex == 2 && e->insn.mod == 1)
		e->ea = (e->ea + (u64)e->insn.disp * (unit - 1)) & emul_mask(e->insn.adsize);
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

/* ------------------------------------------------------- elements and masks */

static u64 all_of(unsigned int n, unsigned int elem)
{
	unsigned int count = n / elem;

	return count == 64 ? ~0ull : (1ull << count) - 1;
}

static enum emul_result opmask(struct emul *e, unsigned int n, unsigned int elem, u64 *mask)
{
	*mask = ~0ull;
	if (masked(e)) {
		enum emul_result r;

		if (!e->ops->read_kmask)
			return EMUL_UNHANDLEABLE;
		r = e->ops->read_kmask(e, e->insn.evex & EVEX_AAA, mask);
		if (r)
			return r;
	}
	*mask &= all_of(n, elem);
	return EMUL_OK;
}

enum run_what { RUN_READ, RUN_PROBE, RUN_WRITE };

static enum emul_result one_run(struct emul *e, u8 *buf, unsigned int at, unsigned int n, enum run_what what)
{
	u64 ea = (e->ea + at) & emul_mask(e->insn.adsize), linear;
	unsigned int acc = what == RUN_READ ? 0 : EMUL_ACC_WRITE;
	enum emul_result r;

	r = emul_linear(e, e->insn.seg, ea, n, acc, &linear);
	if (r)
		return r;
	switch (what) {
	case RUN_READ:
		return e->ops->read(e, linear, buf + at, n, 0);
	case RUN_PROBE:
		return e->ops->probe(e, linear, n, acc);
	default:
		return e->ops->write(e, linear, buf + at, n, acc);
	}
}

/* Each run of elements that are wanted. */
static enum emul_result runs(struct emul *e, u8 *buf, unsigned int n, unsigned int elem, u64 mask, enum run_what what)
{
	unsigned int count = n / elem, first, k = 0;
	enum emul_result r = EMUL_OK;

	while (k < count && !r) {
		if (!(mask >> k & 1)) {
			k++;
			continue;
		}
		for (first = k; k < count && mask >> k & 1; k++)
			;
		r = one_run(e, buf, first * elem, (k - first) * elem, what);
	}
	return r;
}

static enum emul_result read_elems(struct emul *e, u8 *buf, unsigned int n, unsigned int elem, u64 mask)
{
	return runs(e, buf, n, elem, mask, RUN_READ);
}

/* A fault of any leaves all as they were. */
static enum emul_result write_elems(struct emul *e, u8 *buf, unsigned int n, unsigned int elem, u64 mask)
{
	enum emul_result r = EMUL_OK;

	if (mask != all_of(n, elem))
		r = runs(e, buf, n, elem, mask, RUN_PROBE);
	return r ? r : runs(e, buf, n, elem, mask, RUN_WRITE);
}

/* Elements that are not wanted: zero, or as they were in register reg. */
static enum emul_result fill_rest(struct emul *e, unsigned int reg, u8 *buf, unsigned int n, unsigned int elem,
				  u64 mask)
{
	u8 old[EMUL_MAX_VEC] = { 0 };
	enum emul_result r = EMUL_OK;
	unsigned int k;

	if (mask == all_of(n, elem))
		return EMUL_OK;
	if (!(e->insn.evex & EVEX_Z))
		r = get_vec(e, reg, old, n < 16 ? 16 : n);
	for (k = 0; k < n / elem; k++)
		if (!(mask >> k & 1))
			memcpy(buf + k * elem, old + k * elem, elem);
	return r;
}

/* Bits from the elements' signs. */
static u64 sign_mask(const u8 *buf, unsigned int n, unsigned int elem)
{
	u64 mask = 0;
	unsigned int k;

	for (k = 0; k < n / elem; k++)
		mask |= (u64)(buf[k * elem + elem - 1] >> 7) << k;
	return mask;
}

/* -------------------------------------------------------------- whole moves */

/* Size of elements, where EVEX masks them; 0: no such instruction. W has to agree with it. */
static unsigned int elem_bytes(const struct emul *e)
{
	unsigned int pp = e->insn.vex_l_pp & 3;

	if (e->insn.vex != 2)
		return 16;
	if (e->insn.map == 2 || e->insn.opcode == 0xe7)		/* streams: 66.W0 */
		return pp == 1 && !wide(e) ? 4 : 0;
	if ((e->insn.opcode & ~0x10) == 0x6f)			/* integers */
		return pp == 3 ? wide(e) ? 2 : 1 : pp ? wide(e) ? 8 : 4 : 0;
	return (pp == 1) != wide(e) || pp > 1 ? 0 : pp == 1 ? 8 : 4;
}

static bool streams(const struct emul *e)
{
	return e->insn.map == 2 || e->insn.opcode == 0xe7 || e->insn.opcode == 0x2b;
}

static enum emul_result whole_form(struct emul *e, unsigned int n, unsigned int elem)
{
	if (!n || !elem)
		return emul_ud(e);
	return usable(e, false, !streams(e));
}

/* Whole vector from memory or register. */
static enum emul_result load(struct emul *e, bool align)
{
	unsigned int n = vector_bytes(e), elem = elem_bytes(e);
	u8 buf[EMUL_MAX_VEC];
	enum emul_result r;
	u64 mask;

	r = whole_form(e, n, elem);
	if (r)
		return r;
	scale_disp(e, n);
	r = opmask(e, n, elem, &mask);
	if (!r && align && emul_is_mem(e) && mask)
		r = aligned(e, n);
	if (r)
		return r;
	if (emul_is_mem(e))
		r = read_elems(e, buf, n, elem, mask);
	else
		r = get_vec(e, e->insn.rm, buf, n);
	if (!r)
		r = fill_rest(e, e->insn.reg, buf, n, elem, mask);
	return r ? r : set_vec(e, e->insn.reg, buf, n);
}

/* Whole vector to memory or register. */
static enum emul_result store(struct emul *e, bool align)
{
	unsigned int n = vector_bytes(e), elem = elem_bytes(e);
	u8 buf[EMUL_MAX_VEC];
	enum emul_result r;
	u64 mask;

	r = whole_form(e, n, elem);
	if (!r && emul_is_mem(e) && e->insn.vex == 2 && e->insn.evex & EVEX_Z)
		r = emul_ud(e);
	if (r)
		return r;
	scale_disp(e, n);
	r = opmask(e, n, elem, &mask);
	if (!r && align && emul_is_mem(e) && mask)
		r = aligned(e, n);
	if (!r)
		r = get_vec(e, e->insn.reg, buf, n);
	if (r)
		return r;
	if (emul_is_mem(e))
		return write_elems(e, buf, n, elem, mask);
	r = fill_rest(e, e->insn.rm, buf, n, elem, mask);
	return r ? r : set_vec(e, e->insn.rm, buf, n);
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

/* VMOVDQU8 and 16, which only EVEX has */
enum emul_result emul_op_evex_load(struct emul *e)
{
	return e->insn.vex == 2 ? load(e, false) : emul_ud(e);
}

enum emul_result emul_op_evex_store(struct emul *e)
{
	return e->insn.vex == 2 ? store(e, false) : emul_ud(e);
}

/* ------------------------------------------------------------ parts of them */

/* The low n bytes from memory, the rest zero. */
static enum emul_result load_low(struct emul *e, unsigned int n, bool may_mask)
{
	enum emul_result r = usable(e, false, may_mask);
	u8 buf[16] = { 0 };
	u64 mask = 1;

	scale_disp(e, n);
	if (!r && may_mask)
		r = opmask(e, n, n, &mask);
	if (!r)
		r = read_elems(e, buf, n, n, mask);
	if (!r && may_mask)
		r = fill_rest(e, e->insn.reg, buf, n, n, mask);
	return r ? r : set_vec(e, e->insn.reg, buf, 16);
}

/* n bytes at offset at of the register, to memory. */
static enum emul_result store_part(struct emul *e, unsigned int at, unsigned int n, bool may_mask)
{
	enum emul_result r = usable(e, false, may_mask);
	u8 buf[16];
	u64 mask = 1;

	if (!r && may_mask && e->insn.vex == 2 && e->insn.evex & EVEX_Z)
		r = emul_ud(e);
	scale_disp(e, n);
	if (!r && may_mask)
		r = opmask(e, n, n, &mask);
	if (!r)
		r = get_vec(e, e->insn.reg, buf, 16);
	return r ? r : write_elems(e, buf + at, n, n, mask);
}

/* Replace n bytes at offset at of base by the low ones of from, or of memory, and put it in to. */
static enum emul_result merge_part(struct emul *e, unsigned int to, unsigned int from, unsigned int at, unsigned int n,
				   bool may_mask)
{
	u8 buf[16], part[16], old[16];
	enum emul_result r;
	u64 mask = 1;

	r = usable(e, true, may_mask);
	scale_disp(e, n);
	if (!r && may_mask)
		r = opmask(e, n, n, &mask);
	if (!r)
		r = get_vec(e, base_reg(e, to), buf, 16);
	if (!r && emul_is_mem(e))
		r = emul_read(e, e->insn.seg, e->ea, part, n);
	else if (!r)
		r = get_vec(e, from, part, 16);
	if (!r && !(mask & 1))
		r = get_vec(e, to, old, 16);
	if (r)
		return r;
	if (mask & 1)
		memcpy(buf + at, part, n);
	else if (e->insn.evex & EVEX_Z)
		memset(buf + at, 0, n);
	else
		memcpy(buf + at, old + at, n);
	return set_vec(e, to, buf, 16);
}

/* Scalars do not look at the length, but there are no more than three. */
static enum emul_result scalar_form(struct emul *e, unsigned int n)
{
	return e->insn.vex == 2 && (wide(e) != (n == 8) || !vector_bytes(e)) ? emul_ud(e) : EMUL_OK;
}

static enum emul_result scalar_load(struct emul *e, unsigned int n)
{
	enum emul_result r = scalar_form(e, n);

	if (r)
		return r;
	if (emul_is_mem(e))
		return load_low(e, n, true);
	return merge_part(e, e->insn.reg, e->insn.rm, 0, n, true);
}

static enum emul_result scalar_store(struct emul *e, unsigned int n)
{
	enum emul_result r = scalar_form(e, n);

	if (r)
		return r;
	if (emul_is_mem(e))
		return store_part(e, 0, n, true);
	return merge_part(e, e->insn.rm, e->insn.reg, 0, n, true);
}

enum emul_result emul_op_movss_load(struct emul *e)
{
	return scalar_load(e, 4);
}

enum emul_result emul_op_movss_store(struct emul *e)
{
	return scalar_store(e, 4);
}

enum emul_result emul_op_movsd_load(struct emul *e)
{
	return scalar_load(e, 8);
}

enum emul_result emul_op_movsd_store(struct emul *e)
{
	return scalar_store(e, 8);
}

/* 16 bytes and no other length, and for EVEX the W that says how wide elements are */
static enum emul_result short_form(struct emul *e, bool w)
{
	if (e->insn.vex && (vector_bytes(e) != 16 || (e->insn.vex == 2 && wide(e) != w)))
		return emul_ud(e);
	return EMUL_OK;
}

static bool double_form(const struct emul *e)
{
	return (e->insn.vex_l_pp & 3) == 1;
}

/* MOVLPS, MOVLPD, MOVHPS, MOVHPD from memory. */
enum emul_result emul_op_movlps_load(struct emul *e)
{
	enum emul_result r = short_form(e, double_form(e));

	return r ? r : merge_part(e, e->insn.reg, 0, 0, 8, false);
}

enum emul_result emul_op_movhps_load(struct emul *e)
{
	enum emul_result r = short_form(e, double_form(e));

	return r ? r : merge_part(e, e->insn.reg, 0, 8, 8, false);
}

/* MOVLPS and MOVHPS to memory. */
enum emul_result emul_op_movlps_store(struct emul *e)
{
	enum emul_result r = short_form(e, double_form(e));

	return r ? r : store_part(e, 0, 8, false);
}

enum emul_result emul_op_movhps_store(struct emul *e)
{
	enum emul_result r = short_form(e, double_form(e));

	return r ? r : store_part(e, 8, 8, false);
}

static unsigned int gpr_bytes(const struct emul *e)
{
	return emul_long(e) && wide(e) ? 8 : 4;
}

/* From r/m, where a general register has no fifth bit */
static enum emul_result load_gpr(struct emul *e, u64 *val, unsigned int n)
{
	scale_disp(e, n);
	if (emul_is_mem(e))
		return emul_read_val(e, e->insn.seg, e->ea, val, n);
	*val = e->regs[e->insn.rm & 15];
	return EMUL_OK;
}

/* MOVD and MOVQ from r/m32 or r/m64. */
enum emul_result emul_op_movd_load(struct emul *e)
{
	unsigned int n = gpr_bytes(e);
	enum emul_result r = short_form(e, wide(e));
	u8 buf[16] = { 0 };
	u64 val;

	if (!r)
		r = usable(e, false, false);
	if (!r)
		r = load_gpr(e, &val, n);
	if (r)
		return r;
	memcpy(buf, &val, n);
	return set_vec(e, e->insn.reg, buf, 16);
}

/* The low bytes of val to r/m; a general register is 32 or 64 bits wide. */
static enum emul_result store_gpr(struct emul *e, u64 val, unsigned int n)
{
	scale_disp(e, n);
	if (emul_is_mem(e))
		return emul_write(e, e->insn.seg, e->ea, &val, n);
	emul_set_reg(e, e->insn.rm & 15, val & emul_mask(n), n == 8 ? 8 : 4);
	return EMUL_OK;
}

/* MOVD and MOVQ to r/m32 or r/m64. */
enum emul_result emul_op_movd_store(struct emul *e)
{
	enum emul_result r = short_form(e, wide(e));
	u64 val[2];

	if (!r)
		r = usable(e, false, false);
	if (!r)
		r = get_vec(e, e->insn.reg, (u8 *)val, 16);
	return r ? r : store_gpr(e, val[0], gpr_bytes(e));
}

/* The low quadword of register from to register to, the rest zero. */
static enum emul_result movq_reg(struct emul *e, unsigned int to, unsigned int from)
{
	enum emul_result r = usable(e, false, false);
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
	enum emul_result r = short_form(e, true);

	if (r)
		return r;
	return emul_is_mem(e) ? load_low(e, 8, false) : movq_reg(e, e->insn.reg, e->insn.rm);
}

enum emul_result emul_op_movq_store(struct emul *e)
{
	enum emul_result r = short_form(e, true);

	if (r)
		return r;
	return emul_is_mem(e) ? store_part(e, 0, 8, false) : movq_reg(e, e->insn.rm, e->insn.reg);
}

/* A quadword there is in 64-bit mode only. */
static enum emul_result element_form(struct emul *e)
{
	if (e->insn.map == 3 && (e->insn.opcode == 0x16 || e->insn.opcode == 0x22) && wide(e) && !emul_long(e))
		return emul_ud(e);
	return short_form(e, wide(e));
}

/* PEXTRB, PEXTRW, PEXTRD and Q, EXTRACTPS: 0F 3A 14 to 17 */
enum emul_result emul_op_pextr(struct emul *e)
{
	static const u8 bytes[4] = { 1, 2, 4, 4 };
	unsigned int n = bytes[e->insn.opcode & 3];
	enum emul_result r = element_form(e);
	u64 val = 0;
	u8 buf[16];

	if (e->insn.opcode == 0x16)
		n = gpr_bytes(e);
	if (!r)
		r = usable(e, false, false);
	if (!r)
		r = get_vec(e, e->insn.reg, buf, 16);
	if (r)
		return r;
	memcpy(&val, buf + (e->insn.imm & (16 / n - 1)) * n, n);
	return store_gpr(e, val, n);
}

/* PINSRB, PINSRD and Q: 0F 3A 20, 22; PINSRW: 0F C4 */
enum emul_result emul_op_pinsr(struct emul *e)
{
	unsigned int n = e->insn.map == 1 ? 2 : e->insn.opcode == 0x20 ? 1 : gpr_bytes(e);
	enum emul_result r = element_form(e);
	u8 buf[16];
	u64 val;

	if (!r)
		r = usable(e, true, false);
	if (!r)
		r = load_gpr(e, &val, n);
	if (!r)
		r = get_vec(e, base_reg(e, e->insn.reg), buf, 16);
	if (r)
		return r;
	memcpy(buf + (e->insn.imm & (16 / n - 1)) * n, &val, n);
	return set_vec(e, e->insn.reg, buf, 16);
}

/* ---------------------------------------------------------------- broadcasts */

/*
 * What is repeated, by opcode: unit bytes of memory, masked in elements of elem, or with W of wide_elem (0: there
 * is none). VEX and EVEX differ in what they have.
 */
static const struct broadcast {
	u8 opcode, unit, elem, wide_elem;
	bool vex, evex, from_reg;
	u8 least;		/* shortest vector */
} broadcasts[] = {
	{ 0x18, 4, 4, 0, true, true, true, 16 },	/* VBROADCASTSS */
	{ 0x19, 8, 4, 8, true, true, true, 32 },	/* SD; F32X2 */
	{ 0x1a, 16, 4, 8, true, true, false, 32 },	/* F128; F32X4, F64X2 */
	{ 0x1b, 32, 4, 8, false, true, false, 64 },	/* F32X8, F64X4 */
	{ 0x58, 4, 4, 0, true, true, true, 16 },	/* VPBROADCASTD */
	{ 0x59, 8, 4, 8, true, true, true, 16 },	/* Q; I32X2 */
	{ 0x5a, 16, 4, 8, true, true, false, 32 },	/* I128; I32X4, I64X2 */
	{ 0x5b, 32, 4, 8, false, true, false, 64 },	/* I32X8, I64X4 */
	{ 0x78, 1, 1, 0, true, true, true, 16 },	/* B */
	{ 0x79, 2, 2, 0, true, true, true, 16 },	/* W */
};

static enum emul_result broadcast_form(struct emul *e, const struct broadcast *b, unsigned int n)
{
	if (!e->insn.vex || n < b->least || (!emul_is_mem(e) && !b->from_reg))
		return emul_ud(e);
	if (e->insn.vex == 1 ? !b->vex || wide(e) : !b->evex || (wide(e) && !b->wide_elem))
		return emul_ud(e);
	return usable(e, false, true);
}

enum emul_result emul_op_broadcast(struct emul *e)
{
	unsigned int n = vector_bytes(e), elem, k;
	const struct broadcast *b = broadcasts;
	u8 buf[EMUL_MAX_VEC], part[EMUL_MAX_VEC];
	enum emul_result r;
	u64 mask;

	while (b->opcode != e->insn.opcode)
		b++;
	elem = e->insn.vex == 2 && wide(e) ? b->wide_elem : b->elem;
	r = broadcast_form(e, b, n);
	scale_disp(e, b->unit);
	if (!r)
		r = opmask(e, n, elem, &mask);
	/* What nobody wants is not read; of a tuple only what somebody does. */
	if (!r && !emul_is_mem(e)) {
		r = get_vec(e, e->insn.rm, part, 16);
	} else if (!r) {
		u64 wanted = 0;

		for (k = 0; k < n / b->unit; k++)
			wanted |= mask >> (k * (b->unit / elem));
		wanted &= all_of(b->unit, elem);
		memset(part, 0, sizeof(part));
		r = read_elems(e, part, b->unit, elem, wanted);
	}
	if (r)
		return r;
	for (k = 0; k < n / b->unit; k++)
		memcpy(buf + k * b->unit, part, b->unit);
	r = fill_rest(e, e->insn.reg, buf, n, elem, mask);
	return r ? r : set_vec(e, e->insn.reg, buf, n);
}

/* -------------------------------------------------------------- masked moves */

/* MASKMOVDQU and MASKMOVQ: to DS:rDI, the bytes that the mask has a sign for; the others fault as well */
enum emul_result emul_maskmov(struct emul *e, u8 *val, const u8 *mask, unsigned int n)
{
	enum emul_result r;

	e->ea = e->regs[EMUL_RDI] & emul_mask(e->insn.adsize);
	r = one_run(e, val, 0, n, RUN_PROBE);
	return r ? r : write_elems(e, val, n, 1, sign_mask(mask, n, 1));
}

enum emul_result emul_op_maskmovdqu(struct emul *e)
{
	enum emul_result r = emul_vec_usable(e);
	u8 val[16], mask[16];

	if (!r)
		r = get_vec(e, e->insn.reg, val, 16);
	if (!r)
		r = get_vec(e, e->insn.rm, mask, 16);
	return r ? r : emul_maskmov(e, val, mask, 16);
}

/* VMASKMOVPS and PD (0F 38 2C to 2F: W must be 0), VPMASKMOVD and Q (8C, 8E) */
enum emul_result emul_op_vmaskmov(struct emul *e)
{
	bool integer = e->insn.opcode & 0x80, to_mem = e->insn.opcode & 2;
	unsigned int n = vector_bytes(e), elem = (integer ? wide(e) : e->insn.opcode & 1) ? 8 : 4;
	u8 sel[EMUL_MAX_VEC], buf[EMUL_MAX_VEC] = { 0 };
	enum emul_result r;
	u64 mask;

	if (e->insn.vex != 1 || (!integer && wide(e)))
		return emul_ud(e);
	r = usable(e, true, false);
	if (!r)
		r = get_vec(e, base_reg(e, 0), sel, n);
	if (r)
		return r;
	mask = sign_mask(sel, n, elem);
	if (to_mem) {
		r = get_vec(e, e->insn.reg, buf, n);
		return r ? r : write_elems(e, buf, n, elem, mask);
	}
	r = read_elems(e, buf, n, elem, mask);
	return r ? r : set_vec(e, e->insn.reg, buf, n);
}

/* VEXTRACTF128, VEXTRACTI128 (VEX, W0, 32 bytes) and EVEX's 32X4, 64X2, 32X8, 64X4: 0F 3A 19, 1B, 39, 3B */
enum emul_result emul_op_vextract(struct emul *e)
{
	unsigned int n = vector_bytes(e), part = e->insn.opcode & 2 ? 32 : 16, elem = wide(e) ? 8 : 4;
	u8 buf[EMUL_MAX_VEC], *from;
	enum emul_result r;
	u64 mask;

	if (!e->insn.vex || n <= part || (e->insn.vex == 1 && (part == 32 || wide(e))))
		return emul_ud(e);
	if (emul_is_mem(e) && e->insn.vex == 2 && e->insn.evex & EVEX_Z)
		return emul_ud(e);
	r = usable(e, false, true);
	scale_disp(e, part);
	if (!r)
		r = opmask(e, part, elem, &mask);
	if (!r)
		r = get_vec(e, e->insn.reg, buf, n);
	if (r)
		return r;
	from = buf + (e->insn.imm & (n / part - 1)) * part;
	/* What is masked out is not written, but faults all the same. */
	if (emul_is_mem(e))
		r = one_run(e, from, 0, part, RUN_PROBE);
	if (r)
		return r;
	if (emul_is_mem(e))
		return write_elems(e, from, part, elem, mask);
	r = fill_rest(e, e->insn.rm, from, part, elem, mask);
	return r ? r : set_vec(e, e->insn.rm, from, part);
}

/* 64 bytes to an aligned place in ES, whose address is in a register */
enum emul_result emul_op_movdir64b(struct emul *e)
{
	u64 to = e->regs[e->insn.reg] & emul_mask(e->insn.adsize), linear;
	enum emul_result r;
	u8 buf[64];

	r = emul_linear(e, EMUL_SEG_ES, to, 64, EMUL_ACC_WRITE, &linear);
	if (!r && linear & 63)
		r = emul_gp(e, 0);
	if (!r)
		r = emul_read(e, e->insn.seg, e->ea, buf, 64);
	return r ? r : e->ops->write(e, linear, buf, 64, EMUL_ACC_WRITE);
}
