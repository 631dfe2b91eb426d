// SPDX-License-Identifier: GPL-2.0-only
/*
 * x87 and MMX between registers and memory: loads, stores, control word, the
 * whole state. Conversions are made here, bit by bit, with the exceptions they
 * raise; arithmetic is not here.
 *
 * A store is made in memory before the state changes. Instruction and operand
 * pointers are kept where an exception will be reported, as newer CPUs do.
 *
 * No locks. SDM vol. 1 chapters 8 and 9, vol. 2; APM vol. 5.
 */
#include "internal.h"

#define SW_IE	0x01u
#define SW_DE	0x02u
#define SW_OE	0x08u
#define SW_UE	0x10u
#define SW_PE	0x20u
#define SW_SF	0x40u
#define SW_ES	0x80u
#define SW_C1	0x200u
#define SW_B	0x8000u
#define SW_TOP	0x3800u

#define RC_NEAREST	0
#define RC_DOWN		1
#define RC_UP		2
#define RC_ZERO		3

#define EXT_BIAS	0x3fff
#define EXT_EXP		0x7fff
#define EXT_SIGN	0x8000
#define EXT_J		0x8000000000000000ull	/* the integer bit */
#define EXT_QUIET	0x4000000000000000ull

struct ext {
	u64 mant;
	u16 se;		/* sign and exponent */
};

/* A memory format: bits of exponent and fraction */
struct format {
	u8 bytes, exp, frac;
};

static const struct format single = { 4, 8, 23 }, twice = { 8, 11, 52 };
static const struct ext indefinite = { EXT_J | EXT_QUIET, EXT_SIGN | EXT_EXP };

static enum emul_result state(struct emul *e, struct emul_fx **fx)
{
	return e->ops->fxstate ? e->ops->fxstate(e, fx) : EMUL_UNHANDLEABLE;
}

static enum emul_result no_device(struct emul *e)
{
	enum emul_result r;
	u64 cr0;

	r = e->ops->get_cr(e, 0, &cr0);
	if (r)
		return r;
	return cr0 & (X86_CR0_EM | X86_CR0_TS) ? emul_raise(e, EMUL_VEC_NM, false, 0) : EMUL_OK;
}

/* The exception of an instruction before, if one waits. */
static enum emul_result reported(struct emul *e, const struct emul_fx *fx)
{
	return fx->sw & SW_ES ? emul_raise(e, EMUL_VEC_MF, false, 0) : EMUL_OK;
}

/* Enabled, and nothing waits to be reported. */
static enum emul_result ready(struct emul *e, struct emul_fx **fx)
{
	enum emul_result r = no_device(e);

	if (!r)
		r = state(e, fx);
	return r ? r : reported(e, *fx);
}

/* Nothing but the wait; whether the unit is another task's counts only with MP. */
enum emul_result emul_op_fwait(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r;
	u64 cr0;

	r = e->ops->get_cr(e, 0, &cr0);
	if (r)
		return r;
	if (!(~cr0 & (X86_CR0_MP | X86_CR0_TS)))
		return emul_raise(e, EMUL_VEC_NM, false, 0);
	r = state(e, &fx);
	return r ? r : reported(e, fx);
}

static unsigned int top(const struct emul_fx *fx)
{
	return fx->sw >> 11 & 7;
}

/* Physical register of ST(i): tags are by these, contents by i. */
static unsigned int phys(const struct emul_fx *fx, unsigned int i)
{
	return (top(fx) + i) & 7;
}

static void turn(struct emul_fx *fx, int by)
{
	u8 old[8][16];
	unsigned int i;

	memcpy(old, fx->st, sizeof(old));
	for (i = 0; i < 8; i++)
		memcpy(fx->st[i], old[(i + by) & 7], 16);
	fx->sw = (fx->sw & ~SW_TOP) | ((top(fx) + by) & 7) << 11;
}

static struct ext get_st0(const struct emul_fx *fx)
{
	struct ext x;

	memcpy(&x.mant, fx->st[0], 8);
	memcpy(&x.se, fx->st[0] + 8, 2);
	return x;
}

static void set_st0(struct emul_fx *fx, struct ext x)
{
	memcpy(fx->st[0], &x.mant, 8);
	memcpy(fx->st[0] + 8, &x.se, 2);
	fx->tw |= 1u << phys(fx, 0);
}

static bool unmasked(const struct emul_fx *fx, unsigned int flags)
{
	return flags & ~fx->cw & 0x3f;
}

/* What an instruction found; ones it may not go on with are @flags & ~masks. */
static void note(struct emul *e, struct emul_fx *fx, unsigned int flags)
{
	fx->sw = (fx->sw & ~SW_C1) | flags;
	if (!unmasked(fx, flags))
		return;
	fx->sw |= SW_ES | SW_B;
	fx->ip = e->rip;
	fx->dp = e->ea;
	fx->op = (e->insn.opcode & 7) << 8 | e->insn.modrm;
}

static enum emul_result push(struct emul *e, struct emul_fx *fx, struct ext x, unsigned int flags)
{
	if (fx->tw >> phys(fx, 7) & 1) {
		flags = SW_IE | SW_SF | SW_C1;
		x = indefinite;
	}
	note(e, fx, flags);
	if (unmasked(fx, flags))
		return EMUL_OK;
	turn(fx, -1);
	set_st0(fx, x);
	return EMUL_OK;
}

static void pop(struct emul_fx *fx)
{
	fx->tw &= ~(1u << phys(fx, 0));
	turn(fx, 1);
}

/* ------------------------------------------------------------- conversions */

static struct ext from_int(u64 val, unsigned int bytes)
{
	struct ext x = { 0, 0 };
	unsigned int shift;

	val = emul_sext(val, bytes);
	if (!val)
		return x;
	if (val & emul_sign(8)) {
		x.se = EXT_SIGN;
		val = -val;
	}
	shift = __builtin_clzll(val);
	x.mant = val << shift;
	x.se |= EXT_BIAS + 63 - shift;
	return x;
}

static struct ext from_float(u64 val, const struct format *f, unsigned int *flags)
{
	u64 frac = val << (64 - f->frac) >> 1;
	unsigned int exp = val >> f->frac & ((1u << f->exp) - 1), shift;
	unsigned int bias = (1u << (f->exp - 1)) - 1;
	struct ext x = { EXT_J | frac, val >> (f->bytes * 8 - 1) ? EXT_SIGN : 0 };

	*flags = 0;
	if (exp == (1u << f->exp) - 1) {
		x.se |= EXT_EXP;
		if (frac && !(frac & EXT_QUIET)) {
			*flags = SW_IE;
			x.mant |= EXT_QUIET;
		}
	} else if (exp) {
		x.se |= EXT_BIAS - bias + exp;
	} else if (frac) {
		*flags = SW_DE;
		shift = __builtin_clzll(frac);
		x.mant = frac << shift;
		x.se |= EXT_BIAS - bias + 1 - shift;
	} else {
		x.mant = 0;
	}
	return x;
}

/* Shift right, the lowest bit is "or more". */
static u64 shift_sticky(u64 val, unsigned int n)
{
	if (!n)
		return val;
	if (n > 63)
		return val != 0;
	return val >> n | (val << (64 - n) ? 1 : 0);
}

/* Without its lowest n bits (up to 63), rounded: adds a unit of what stays or not. */
static u64 round_off(u64 val, unsigned int n, unsigned int rc, bool neg, unsigned int *flags)
{
	u64 rest = val & ((1ull << n) - 1), half = n ? 1ull << (n - 1) : 0, kept = val >> n;
	bool up;

	if (!rest)
		return kept;
	*flags |= SW_PE;
	switch (rc) {
	case RC_NEAREST:
		up = rest > half || (rest == half && kept & 1);
		break;
	case RC_ZERO:
		up = false;
		break;
	default:
		up = (rc == RC_UP) != neg;
		break;
	}
	if (up)
		*flags |= SW_C1;
	return kept + up;
}

/* Exponent and integer bit contradict each other: no number since the 387. */
static bool unsupported(struct ext x)
{
	return x.se & EXT_EXP && !(x.mant & EXT_J);
}

static u64 to_int(struct ext x, unsigned int bytes, unsigned int rc, unsigned int *flags)
{
	bool neg = x.se & EXT_SIGN;
	int exp = (x.se & EXT_EXP) - EXT_BIAS;
	u64 val, limit = emul_sign(bytes) - !neg;

	if (unsupported(x) || exp >= (int)bytes * 8) {
		*flags = SW_IE;
		return emul_sign(bytes);
	}
	/* The lowest two bits of three stand for all below one. */
	if (exp < -1)
		val = round_off(x.mant ? 1 : 0, 2, rc, neg, flags);
	else if (exp == -1)
		val = round_off(shift_sticky(x.mant, 62), 2, rc, neg, flags);
	else if (exp == 63)
		val = x.mant;
	else
		val = round_off(x.mant, 63 - exp, rc, neg, flags);
	if (val > limit) {
		*flags = SW_IE;
		return emul_sign(bytes);
	}
	return (neg ? -val : val) & emul_mask(bytes);
}

static u64 assemble(const struct format *f, bool neg, u64 exp, u64 frac)
{
	return (neg ? emul_sign(f->bytes) : 0) | exp << f->frac | (frac & ((1ull << f->frac) - 1));
}

static u64 overflow(const struct format *f, bool neg, unsigned int rc, unsigned int *flags)
{
	u64 max = (1u << f->exp) - 1;
	bool infinite = rc == RC_NEAREST || (rc == RC_UP && !neg) || (rc == RC_DOWN && neg);

	*flags = SW_OE | SW_PE | (infinite ? SW_C1 : 0);
	return infinite ? assemble(f, neg, max, 0) : assemble(f, neg, max - 1, ~0ull);
}

/* Smaller than the smallest normal number: an exception if that loses anything, or if anyone wants to know. */
static u64 tiny(const struct format *f, struct ext x, int exp, unsigned int rc, bool wanted, unsigned int *flags)
{
	int shift = 63 - f->frac + 1 - exp;
	bool neg = x.se & EXT_SIGN;
	unsigned int found = 0;
	u64 val;

	/* Where hardly anything is left three bits will do. */
	if (shift > 62)
		val = round_off(shift_sticky(x.mant, shift - 2), 2, rc, neg, &found);
	else
		val = round_off(x.mant, shift, rc, neg, &found);
	if (found || wanted)
		found |= SW_UE;
	*flags |= found;
	return (neg ? emul_sign(f->bytes) : 0) | val;	/* which may be the smallest normal one */
}

static u64 to_float(struct ext x, const struct format *f, unsigned int rc, unsigned int masks, unsigned int *flags)
{
	int max = (1 << f->exp) - 1, bias = max >> 1, exp = (x.se & EXT_EXP) - EXT_BIAS + bias;
	bool neg = x.se & EXT_SIGN;
	unsigned int found = 0;
	u64 val;

	if (unsupported(x)) {
		*flags = SW_IE;
		return assemble(f, true, max, 1ull << (f->frac - 1));
	}
	if ((x.se & EXT_EXP) == EXT_EXP) {
		if (x.mant << 1 && !(x.mant & EXT_QUIET))
			*flags = SW_IE;
		val = x.mant << 1 >> (64 - f->frac);
		if (x.mant << 1)
			val |= 1ull << (f->frac - 1);
		return assemble(f, neg, max, val);
	}
	if (!x.mant)
		return assemble(f, neg, 0, 0);
	if (!(x.se & EXT_EXP))
		exp++;
	val = round_off(x.mant, 63 - f->frac, rc, neg, &found);
	if (val >> (f->frac + 1))
		exp++;
	if (exp >= max)
		return overflow(f, neg, rc, flags);
	/* As rounded, with all the exponent it wants */
	if (exp < 1 || !(x.mant & EXT_J)) {
		exp = (x.se & EXT_EXP ? (x.se & EXT_EXP) : 1) - EXT_BIAS + bias;
		return tiny(f, x, exp, rc, !(masks & SW_UE), flags);
	}
	*flags |= found;
	return assemble(f, neg, exp, val);
}

/* ------------------------------------------------------------ instructions */

/* Which operand opcode and ModRM say: of 2 to 8 bytes. */
static enum emul_result load_mem(struct emul *e, u64 *val, unsigned int bytes)
{
	return emul_read_val(e, e->insn.seg, e->ea, val, bytes);
}

static unsigned int int_bytes(const struct emul *e)
{
	if (e->insn.opcode == 0xdb)
		return 4;
	return e->insn.opcode == 0xdd || e->insn.reg & 4 ? 8 : 2;
}

enum emul_result emul_op_fild(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = ready(e, &fx);
	u64 val;

	if (!r)
		r = load_mem(e, &val, int_bytes(e));
	return r ? r : push(e, fx, from_int(val, int_bytes(e)), 0);
}

enum emul_result emul_op_fld(struct emul *e)
{
	const struct format *f = e->insn.opcode == 0xd9 ? &single : &twice;
	struct emul_fx *fx;
	enum emul_result r = ready(e, &fx);
	unsigned int flags;
	struct ext x;
	u64 val;

	if (!r)
		r = load_mem(e, &val, f->bytes);
	if (r)
		return r;
	x = from_float(val, f, &flags);
	return push(e, fx, x, flags);
}

enum emul_result emul_op_fld80(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = ready(e, &fx);
	struct ext x;
	u8 buf[10];

	if (!r)
		r = emul_read(e, e->insn.seg, e->ea, buf, sizeof(buf));
	if (r)
		return r;
	memcpy(&x.mant, buf, 8);
	memcpy(&x.se, buf + 8, 2);
	return push(e, fx, x, 0);
}

/* Store what was made of ST(0), unless it is not to be, and pop. */
static enum emul_result store(struct emul *e, struct emul_fx *fx, const void *val, unsigned int bytes,
			      unsigned int flags, bool last)
{
	enum emul_result r = EMUL_OK;
	u64 linear;

	if (unmasked(fx, flags & ~SW_PE)) {
		/* The address is looked at all the same. */
		r = emul_linear(e, e->insn.seg, e->ea, bytes, EMUL_ACC_WRITE, &linear);
		if (!r)
			r = e->ops->probe(e, linear, bytes, EMUL_ACC_WRITE);
		if (r)
			return r;
		if (flags & (SW_OE | SW_UE))
			flags &= ~(SW_PE | SW_C1);
		note(e, fx, flags);
		return EMUL_OK;
	}
	r = emul_write(e, e->insn.seg, e->ea, val, bytes);
	if (r)
		return r;
	note(e, fx, flags);
	if (last)
		pop(fx);
	return EMUL_OK;
}

static bool empty(const struct emul_fx *fx)
{
	return !(fx->tw >> phys(fx, 0) & 1);
}

static unsigned int rounding(const struct emul_fx *fx)
{
	return fx->cw >> 10 & 3;
}

/* FIST, FISTP, FISTTP */
enum emul_result emul_op_fist(struct emul *e)
{
	unsigned int n, flags = 0;
	struct emul_fx *fx;
	enum emul_result r = ready(e, &fx);
	bool truncate = (e->insn.reg & 7) == 1;
	u64 val;

	if (r)
		return r;
	n = int_bytes(e);
	if (empty(fx)) {
		flags = SW_IE | SW_SF;
		val = emul_sign(n);
	} else {
		val = to_int(get_st0(fx), n, truncate ? RC_ZERO : rounding(fx), &flags);
	}
	return store(e, fx, &val, n, flags, (e->insn.reg & 7) != 2);
}

/* FST, FSTP */
enum emul_result emul_op_fst(struct emul *e)
{
	const struct format *f = e->insn.opcode == 0xd9 ? &single : &twice;
	unsigned int flags = 0;
	struct emul_fx *fx;
	enum emul_result r = ready(e, &fx);
	u64 val;

	if (r)
		return r;
	if (empty(fx)) {
		flags = SW_IE | SW_SF;
		val = assemble(f, true, (1u << f->exp) - 1, 1ull << (f->frac - 1));
	} else {
		val = to_float(get_st0(fx), f, rounding(fx), fx->cw, &flags);
	}
	return store(e, fx, &val, f->bytes, flags, (e->insn.reg & 7) == 3);
}

enum emul_result emul_op_fstp80(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = ready(e, &fx);
	struct ext x = indefinite;
	unsigned int flags = 0;
	u8 buf[10];

	if (r)
		return r;
	if (empty(fx))
		flags = SW_IE | SW_SF;
	else
		x = get_st0(fx);
	memcpy(buf, &x.mant, 8);
	memcpy(buf + 8, &x.se, 2);
	return store(e, fx, buf, sizeof(buf), flags, true);
}

/* A control word that unmasks what has happened makes it wait. */
enum emul_result emul_op_fldcw(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = ready(e, &fx);
	u64 val;

	if (!r)
		r = load_mem(e, &val, 2);
	if (r)
		return r;
	fx->cw = (val & 0x1f7f) | 0x40;
	if (unmasked(fx, fx->sw))
		fx->sw |= SW_ES | SW_B;
	return EMUL_OK;
}

enum emul_result emul_op_fnstcw(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = no_device(e);

	if (!r)
		r = state(e, &fx);
	return r ? r : emul_write(e, e->insn.seg, e->ea, &fx->cw, 2);
}

/* DD /7 to memory, DF E0 to AX. */
enum emul_result emul_op_fnstsw(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = no_device(e);

	if (!r)
		r = state(e, &fx);
	if (r)
		return r;
	if (emul_is_mem(e))
		return emul_write(e, e->insn.seg, e->ea, &fx->sw, 2);
	emul_set_reg(e, EMUL_RAX, fx->sw, 2);
	return EMUL_OK;
}

/* Control, status, tags and pointers; the registers' contents stay where they are, which TOP is not. */
enum emul_result emul_op_fninit(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = no_device(e);

	if (!r)
		r = state(e, &fx);
	if (r)
		return r;
	turn(fx, -(int)top(fx));
	fx->cw = 0x37f;
	fx->sw = 0;
	fx->tw = 0;
	fx->op = 0;
	fx->ip = 0;
	fx->dp = 0;
	return EMUL_OK;
}

/* --------------------------------------------------------------------- MMX */

static enum emul_result mmx_ready(struct emul *e, struct emul_fx **fx)
{
	enum emul_result r;
	u64 cr0;

	r = e->ops->get_cr(e, 0, &cr0);
	if (r)
		return r;
	return cr0 & X86_CR0_EM ? emul_ud(e) : ready(e, fx);
}

/* All registers are in use then, and numbered as they are. */
static u8 *mmx_reg(struct emul_fx *fx, unsigned int reg)
{
	turn(fx, -(int)top(fx));
	fx->tw = 0xff;
	return fx->st[reg & 7];
}

static u64 mmx_look(const struct emul_fx *fx, unsigned int reg)
{
	u64 val;

	memcpy(&val, fx->st[(reg - top(fx)) & 7], 8);
	return val;
}

static void mmx_set(struct emul_fx *fx, unsigned int reg, u64 val)
{
	u8 *st = mmx_reg(fx, reg);

	memcpy(st, &val, 8);
	memset(st + 8, 0xff, 2);
}

/* MOVQ mm, mm/m64 */
enum emul_result emul_op_mmx_load(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = mmx_ready(e, &fx);
	u64 val;

	if (!r && emul_is_mem(e))
		r = load_mem(e, &val, 8);
	else if (!r)
		val = mmx_look(fx, e->insn.rm);
	if (!r)
		mmx_set(fx, e->insn.reg, val);
	return r;
}

/* MOVQ mm/m64, mm and MOVNTQ */
enum emul_result emul_op_mmx_store(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = mmx_ready(e, &fx);
	u64 val;

	if (r)
		return r;
	val = mmx_look(fx, e->insn.reg);
	if (!emul_is_mem(e)) {
		mmx_set(fx, e->insn.rm, val);
		return EMUL_OK;
	}
	r = emul_write(e, e->insn.seg, e->ea, &val, 8);
	if (!r)
		mmx_reg(fx, 0);
	return r;
}

static unsigned int gpr_bytes(const struct emul *e)
{
	return emul_long(e) && e->insn.rex & 8 ? 8 : 4;
}

/* MOVD and MOVQ between mm and r/m */
enum emul_result emul_op_mmx_from_rm(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = mmx_ready(e, &fx);
	u64 val;

	if (!r)
		r = emul_load_rm(e, &val, gpr_bytes(e), 0);
	if (!r)
		mmx_set(fx, e->insn.reg, val);
	return r;
}

enum emul_result emul_op_mmx_to_rm(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = mmx_ready(e, &fx);
	u64 val;

	if (r)
		return r;
	val = mmx_look(fx, e->insn.reg);
	if (emul_is_mem(e))
		r = emul_write(e, e->insn.seg, e->ea, &val, gpr_bytes(e));
	else
		emul_set_reg(e, e->insn.rm, val, gpr_bytes(e));
	if (!r)
		mmx_reg(fx, 0);
	return r;
}

/* MASKMOVQ */
enum emul_result emul_op_mmx_maskmov(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = mmx_ready(e, &fx);
	u64 val, mask;

	if (r)
		return r;
	val = mmx_look(fx, e->insn.reg);
	mask = mmx_look(fx, e->insn.rm);
	r = emul_maskmov(e, (u8 *)&val, (u8 *)&mask, 8);
	if (!r)
		mmx_reg(fx, 0);
	return r;
}

/* ------------------------------------------------------- the state as a whole */

#define FX_BYTES	512
#define FX_USED		416	/* the rest is the program's */
#define FX_XMM		160
#define FX_XMM_SHORT	(FX_XMM + 128)	/* outside 64-bit mode there are eight */

/* How much of the image there is; FFXSR lets a kernel leave the vector registers out. */
static enum emul_result fx_extent(struct emul *e, unsigned int *bytes)
{
	enum emul_result r;
	u64 efer;

	*bytes = emul_long(e) ? FX_USED : FX_XMM_SHORT;
	if (!emul_long(e) || e->cpl)
		return EMUL_OK;
	r = e->ops->get_msr(e, MSR_EFER, &efer);
	if (!r && efer & EFER_FFXSR)
		*bytes = FX_XMM;
	return r;
}

static enum emul_result fx_begin(struct emul *e, struct emul_fx **fx, unsigned int *bytes, unsigned int access)
{
	enum emul_result r = no_device(e);
	u64 linear;

	if (!r)
		r = state(e, fx);
	if (!r)
		r = emul_linear(e, e->insn.seg, e->ea, FX_BYTES, access, &linear);
	if (r)
		return r;
	if (linear & 15)
		return emul_gp(e, 0);
	e->linear = linear;
	return fx_extent(e, bytes);
}

/* In pieces an operation can take. */
static enum emul_result fx_move(struct emul *e, u8 *image, unsigned int bytes, bool write)
{
	enum emul_result r = EMUL_OK;
	unsigned int at, n;

	if (write) {
		r = e->ops->probe(e, e->linear, 1, EMUL_ACC_WRITE);
		if (!r)
			r = e->ops->probe(e, e->linear + FX_BYTES - 1, 1, EMUL_ACC_WRITE);
	}
	for (at = 0; at < bytes && !r; at += n) {
		n = bytes - at < 32 ? bytes - at : 32;
		r = write ? e->ops->write(e, e->linear + at, image + at, n, EMUL_ACC_WRITE) :
			    e->ops->read(e, e->linear + at, image + at, n, 0);
	}
	return r;
}

/* With selectors of pointers, which no longer are, unless REX.W asks for all 64 bits. */
static void pointers_short(u64 *p)
{
	*p = (u32)*p;
}

enum emul_result emul_op_fxsave(struct emul *e)
{
	struct emul_fx *fx, image;
	unsigned int bytes;
	enum emul_result r = fx_begin(e, &fx, &bytes, EMUL_ACC_WRITE);

	if (r)
		return r;
	image = *fx;
	if (!image.mxcsr_mask)
		image.mxcsr_mask = 0xffbf;
	if (!(emul_long(e) && e->insn.rex & 8)) {
		pointers_short(&image.ip);
		pointers_short(&image.dp);
	}
	return fx_move(e, (u8 *)&image, bytes, true);
}

enum emul_result emul_op_fxrstor(struct emul *e)
{
	struct emul_fx *fx, image;
	unsigned int bytes, i;
	enum emul_result r = fx_begin(e, &fx, &bytes, 0);
	u32 mask;

	if (r)
		return r;
	image = *fx;
	mask = fx->mxcsr_mask ? fx->mxcsr_mask : 0xffbf;
	r = fx_move(e, (u8 *)&image, bytes, false);
	if (r)
		return r;
	if (image.mxcsr & ~mask)
		return emul_gp(e, 0);
	image.mxcsr_mask = fx->mxcsr_mask;
	if (!(emul_long(e) && e->insn.rex & 8)) {
		pointers_short(&image.ip);
		pointers_short(&image.dp);
	}
	for (i = 0; i < 8; i++)
		memset(image.st[i] + 10, 0, 6);
	image.reserved = 0;
	image.cw = (image.cw & 0x1f7f) | 0x40;
	image.op &= 0x7ff;
	image.sw &= ~(SW_ES | SW_B);
	if (unmasked(&image, image.sw))
		image.sw |= SW_ES | SW_B;
	*fx = image;
	return EMUL_OK;
}

enum emul_result emul_op_stmxcsr(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = emul_vec_usable(e);

	if (!r)
		r = state(e, &fx);
	return r ? r : emul_write(e, e->insn.seg, e->ea, &fx->mxcsr, 4);
}

enum emul_result emul_op_ldmxcsr(struct emul *e)
{
	struct emul_fx *fx;
	enum emul_result r = emul_vec_usable(e);
	u64 val;

	if (!r)
		r = state(e, &fx);
	if (!r)
		r = load_mem(e, &val, 4);
	if (r)
		return r;
	if (val & ~(u64)(fx->mxcsr_mask ? fx->mxcsr_mask : 0xffbf))
		return emul_gp(e, 0);
	fx->mxcsr = val;
	return EMUL_OK;
}
