// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arithmetic and logic: results and every defined flag computed in C. Flags a
 * manual leaves undefined are given the value most processors give.
 *
 * No locks. SDM vol. 2, APM vol. 3: the instructions' own pages.
 */
#include "internal.h"

/* SF, ZF and PF of a result. */
static u64 flags_szp(u64 v, unsigned int bytes)
{
	u64 f = 0;

	v &= emul_mask(bytes);
	if (!v)
		f |= X86_EFLAGS_ZF;
	if (v & emul_sign(bytes))
		f |= X86_EFLAGS_SF;
	/* 0x9669 has bit n set where n has an even number of ones. */
	if ((0x9669 >> ((v ^ (v >> 4)) & 15)) & 1)
		f |= X86_EFLAGS_PF;
	return f;
}

static void set_flags(struct emul *e, u64 which, u64 val)
{
	e->new_flags = (e->new_flags & ~which) | val;
}

static enum emul_result do_add(struct emul *e, u64 b, u64 carry, u64 which)
{
	unsigned int n = e->insn.opsize;
	u64 a = e->dst, r = a + b + carry;
	u64 out = (a & b) | ((a | b) & ~r);
	u64 f = flags_szp(r, n);

	if (out & emul_sign(n))
		f |= X86_EFLAGS_CF;
	if ((a ^ r) & (b ^ r) & emul_sign(n))
		f |= X86_EFLAGS_OF;
	f |= (a ^ b ^ r) & X86_EFLAGS_AF;
	set_flags(e, which, f & which);
	e->dst = r & emul_mask(n);
	return EMUL_OK;
}

static enum emul_result do_sub(struct emul *e, u64 a, u64 b, u64 borrow, u64 which)
{
	unsigned int n = e->insn.opsize;
	u64 r = a - b - borrow;
	u64 out = (~a & b) | ((~a | b) & r);
	u64 f = flags_szp(r, n);

	if (out & emul_sign(n))
		f |= X86_EFLAGS_CF;
	if ((a ^ b) & (a ^ r) & emul_sign(n))
		f |= X86_EFLAGS_OF;
	f |= (a ^ b ^ r) & X86_EFLAGS_AF;
	set_flags(e, which, f & which);
	e->dst = r & emul_mask(n);
	return EMUL_OK;
}

static enum emul_result do_logic(struct emul *e, u64 r)
{
	set_flags(e, ARITH_FLAGS, flags_szp(r, e->insn.opsize));
	e->dst = r;
	return EMUL_OK;
}

enum emul_result emul_op_add(struct emul *e)
{
	return do_add(e, e->src, 0, ARITH_FLAGS);
}

enum emul_result emul_op_adc(struct emul *e)
{
	return do_add(e, e->src, e->rflags & X86_EFLAGS_CF, ARITH_FLAGS);
}

enum emul_result emul_op_sub(struct emul *e)
{
	return do_sub(e, e->dst, e->src, 0, ARITH_FLAGS);
}

enum emul_result emul_op_sbb(struct emul *e)
{
	return do_sub(e, e->dst, e->src, e->rflags & X86_EFLAGS_CF, ARITH_FLAGS);
}

enum emul_result emul_op_cmp(struct emul *e)
{
	return do_sub(e, e->dst, e->src, 0, ARITH_FLAGS);
}

enum emul_result emul_op_or(struct emul *e)
{
	return do_logic(e, e->dst | e->src);
}

enum emul_result emul_op_and(struct emul *e)
{
	return do_logic(e, e->dst & e->src);
}

enum emul_result emul_op_xor(struct emul *e)
{
	return do_logic(e, e->dst ^ e->src);
}

enum emul_result emul_op_test(struct emul *e)
{
	return do_logic(e, e->dst & e->src);
}

enum emul_result emul_op_inc(struct emul *e)
{
	return do_add(e, 1, 0, ARITH_FLAGS & ~X86_EFLAGS_CF);
}

enum emul_result emul_op_dec(struct emul *e)
{
	return do_sub(e, e->dst, 1, 0, ARITH_FLAGS & ~X86_EFLAGS_CF);
}

enum emul_result emul_op_neg(struct emul *e)
{
	return do_sub(e, 0, e->dst, 0, ARITH_FLAGS);
}

enum emul_result emul_op_not(struct emul *e)
{
	e->dst = ~e->dst;
	return EMUL_OK;
}

/* Full product in high:low, cut to the operand size. */
static void multiply(u64 a, u64 b, unsigned int n, bool is_signed, u64 *low, u64 *high)
{
	unsigned __int128 p;

	if (is_signed)
		p = (unsigned __int128)((__int128)(s64)emul_sext(a, n) * (s64)emul_sext(b, n));
	else
		p = (unsigned __int128)a * b;
	*low = (u64)p & emul_mask(n);
	*high = (u64)(p >> (n * 8)) & emul_mask(n);
}

/* Store a double-width result: AX, or rDX:rAX. */
static void set_wide(struct emul *e, u64 low, u64 high)
{
	unsigned int n = e->insn.opsize;

	if (n == 1) {
		emul_set_reg(e, EMUL_RAX, high << 8 | low, 2);
		return;
	}
	emul_set_reg(e, EMUL_RAX, low, n);
	emul_set_reg(e, EMUL_RDX, high, n);
}

static void mul_flags(struct emul *e, u64 low, bool overflow)
{
	u64 f = flags_szp(low, e->insn.opsize);

	if (overflow)
		f |= X86_EFLAGS_CF | X86_EFLAGS_OF;
	set_flags(e, ARITH_FLAGS, f);
}

enum emul_result emul_op_mul(struct emul *e)
{
	u64 low, high;

	multiply(emul_reg(e, EMUL_RAX, e->insn.opsize), e->src, e->insn.opsize, false,
		 &low, &high);
	mul_flags(e, low, high);
	set_wide(e, low, high);
	return EMUL_OK;
}

static bool imul_overflows(u64 low, u64 high, unsigned int n)
{
	return high != (low & emul_sign(n) ? emul_mask(n) : 0);
}

enum emul_result emul_op_imul1(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	u64 low, high;

	multiply(emul_reg(e, EMUL_RAX, n), e->src, n, true, &low, &high);
	mul_flags(e, low, imul_overflows(low, high, n));
	set_wide(e, low, high);
	return EMUL_OK;
}

/* Two and three operands: the factor beside src is an immediate or dst. */
enum emul_result emul_op_imul(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	u64 low, high;

	multiply(e->src, e->insn.src2 ? e->src2 : e->dst, n, true, &low, &high);
	mul_flags(e, low, imul_overflows(low, high, n));
	e->dst = low;
	return EMUL_OK;
}

/*
 * Divide high:low by d, both of n bytes. False if the quotient does not fit.
 * By shift and subtract: kernels have no 128-bit division to call.
 */
static bool divide(u64 high, u64 low, u64 d, unsigned int n, u64 *quot, u64 *rem)
{
	unsigned int k;
	u64 q = 0;

	if (!d || high >= d)
		return false;
	if (!high) {
		*quot = low / d;
		*rem = low % d;
		return true;
	}
	for (k = n * 8; k--;) {
		bool carry = high & emul_sign(n);

		high = ((high << 1) | ((low >> k) & 1)) & emul_mask(n);
		q <<= 1;
		if (carry || high >= d) {
			high = (high - d) & emul_mask(n);
			q |= 1;
		}
	}
	*quot = q;
	*rem = high;
	return true;
}

static enum emul_result divide_error(struct emul *e)
{
	return emul_raise(e, EMUL_VEC_DE, false, 0);
}

static void get_wide(struct emul *e, u64 *low, u64 *high)
{
	unsigned int n = e->insn.opsize;

	if (n == 1) {
		*low = e->regs[EMUL_RAX] & 0xff;
		*high = (e->regs[EMUL_RAX] >> 8) & 0xff;
		return;
	}
	*low = emul_reg(e, EMUL_RAX, n);
	*high = emul_reg(e, EMUL_RDX, n);
}

enum emul_result emul_op_div(struct emul *e)
{
	u64 low, high, q, rem;

	get_wide(e, &low, &high);
	if (!divide(high, low, e->src, e->insn.opsize, &q, &rem))
		return divide_error(e);
	set_wide(e, q, rem);
	return EMUL_OK;
}

enum emul_result emul_op_idiv(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	u64 mask = emul_mask(n), sign = emul_sign(n);
	u64 low, high, q, rem, d = e->src;
	bool neg_n, neg_d;

	get_wide(e, &low, &high);
	neg_n = high & sign;
	neg_d = d & sign;
	if (neg_n) {	/* negate high:low */
		low = -low & mask;
		high = (~high + !low) & mask;
	}
	if (neg_d)
		d = -d & mask;
	if (!divide(high, low, d, n, &q, &rem))
		return divide_error(e);
	if (neg_n != neg_d ? q > sign : q >= sign)
		return divide_error(e);
	set_wide(e, (neg_n != neg_d ? -q : q) & mask, (neg_n ? -rem : rem) & mask);
	return EMUL_OK;
}

/* CBW, CWDE, CDQE. */
enum emul_result emul_op_cbw(struct emul *e)
{
	unsigned int n = e->insn.opsize;

	emul_set_reg(e, EMUL_RAX, emul_sext(e->regs[EMUL_RAX], n / 2), n);
	return EMUL_OK;
}

/* CWD, CDQ, CQO. */
enum emul_result emul_op_cwd(struct emul *e)
{
	unsigned int n = e->insn.opsize;

	emul_set_reg(e, EMUL_RDX, e->regs[EMUL_RAX] & emul_sign(n) ? ~0ull : 0, n);
	return EMUL_OK;
}

/* DAA and DAS: adjust AL by 6 and 60, up or down. */
static enum emul_result decimal_adjust(struct emul *e, bool sub)
{
	u8 al = e->regs[EMUL_RAX], old = al;
	bool cf = e->rflags & X86_EFLAGS_CF, af = e->rflags & X86_EFLAGS_AF;
	bool high = old > 0x99 || cf, low = (old & 15) > 9 || af;
	u64 f;

	if (low) {
		cf = cf || (sub ? al < 6 : al > 0xf9);
		al += sub ? -6 : 6;
	}
	if (high)
		al += sub ? -0x60 : 0x60;
	f = flags_szp(al, 1);
	f |= low ? X86_EFLAGS_AF : 0;
	f |= high || (sub && low && cf) ? X86_EFLAGS_CF : 0;
	set_flags(e, ARITH_FLAGS, f);
	emul_set_reg(e, EMUL_RAX, al, 1);
	return EMUL_OK;
}

enum emul_result emul_op_daa(struct emul *e)
{
	return decimal_adjust(e, false);
}

enum emul_result emul_op_das(struct emul *e)
{
	return decimal_adjust(e, true);
}

/* AAA and AAS. */
static enum emul_result ascii_adjust(struct emul *e, bool sub)
{
	u16 ax = e->regs[EMUL_RAX];
	u64 f = 0;

	if ((ax & 15) > 9 || (e->rflags & X86_EFLAGS_AF)) {
		ax += sub ? -0x106 : 0x106;
		f = X86_EFLAGS_AF | X86_EFLAGS_CF;
	}
	ax &= 0xff0f;
	set_flags(e, ARITH_FLAGS, f | flags_szp(ax & 0xff, 1));
	emul_set_reg(e, EMUL_RAX, ax, 2);
	return EMUL_OK;
}

enum emul_result emul_op_aaa(struct emul *e)
{
	return ascii_adjust(e, false);
}

enum emul_result emul_op_aas(struct emul *e)
{
	return ascii_adjust(e, true);
}

enum emul_result emul_op_aam(struct emul *e)
{
	u8 al = e->regs[EMUL_RAX], base = e->src;

	if (!base)
		return divide_error(e);
	emul_set_reg(e, EMUL_RAX, (al / base) << 8 | al % base, 2);
	set_flags(e, ARITH_FLAGS, flags_szp(al % base, 1));
	return EMUL_OK;
}

enum emul_result emul_op_aad(struct emul *e)
{
	u8 al = e->regs[EMUL_RAX], ah = e->regs[EMUL_RAX] >> 8;

	al += ah * (u8)e->src;
	emul_set_reg(e, EMUL_RAX, al, 2);
	set_flags(e, ARITH_FLAGS, flags_szp(al, 1));
	return EMUL_OK;
}
