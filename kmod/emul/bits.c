// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shifts, rotates, bit tests and scans.
 *
 * No locks. SDM vol. 2, APM vol. 3: the instructions' own pages.
 */
#include "internal.h"

static void set_cf_of(struct emul *e, bool cf, bool of)
{
	e->new_flags &= ~(u64)(X86_EFLAGS_CF | X86_EFLAGS_OF);
	e->new_flags |= (cf ? X86_EFLAGS_CF : 0) | (of ? X86_EFLAGS_OF : 0);
}

static void set_szp(struct emul *e, u64 v)
{
	unsigned int n = e->insn.opsize;

	e->new_flags &= ~(u64)(X86_EFLAGS_SF | X86_EFLAGS_ZF | X86_EFLAGS_PF | X86_EFLAGS_AF);
	v &= emul_mask(n);
	if (!v)
		e->new_flags |= X86_EFLAGS_ZF;
	if (v & emul_sign(n))
		e->new_flags |= X86_EFLAGS_SF;
	if ((0x9669 >> ((v ^ (v >> 4)) & 15)) & 1)
		e->new_flags |= X86_EFLAGS_PF;
}

static unsigned int shift_count(const struct emul *e, u64 count)
{
	return count & (e->insn.opsize == 8 ? 63 : 31);
}

static bool top(u64 v, unsigned int bytes)
{
	return v & emul_sign(bytes);
}

enum emul_result emul_op_rol(struct emul *e)
{
	unsigned int n = e->insn.opsize, bits = n * 8, c = shift_count(e, e->src);
	u64 v = e->dst;

	if (!c)
		return EMUL_OK;
	c %= bits;
	if (c)
		v = ((v << c) | (v >> (bits - c))) & emul_mask(n);
	set_cf_of(e, v & 1, (v & 1) ^ top(v, n));
	e->dst = v;
	return EMUL_OK;
}

enum emul_result emul_op_ror(struct emul *e)
{
	unsigned int n = e->insn.opsize, bits = n * 8, c = shift_count(e, e->src);
	u64 v = e->dst;

	if (!c)
		return EMUL_OK;
	c %= bits;
	if (c)
		v = ((v >> c) | (v << (bits - c))) & emul_mask(n);
	set_cf_of(e, top(v, n), top(v, n) ^ top(v << 1, n));
	e->dst = v;
	return EMUL_OK;
}

/* Through carry: a ring of bits + 1, turned one bit at a time. */
enum emul_result emul_op_rcl(struct emul *e)
{
	unsigned int n = e->insn.opsize, c = shift_count(e, e->src);
	bool cf = e->rflags & X86_EFLAGS_CF, out;
	u64 v = e->dst;

	if (!c)
		return EMUL_OK;
	for (c %= n * 8 + 1; c; c--) {
		out = top(v, n);
		v = ((v << 1) | cf) & emul_mask(n);
		cf = out;
	}
	set_cf_of(e, cf, cf ^ top(v, n));
	e->dst = v;
	return EMUL_OK;
}

enum emul_result emul_op_rcr(struct emul *e)
{
	unsigned int n = e->insn.opsize, c = shift_count(e, e->src);
	bool cf = e->rflags & X86_EFLAGS_CF, out;
	u64 v = e->dst;

	if (!c)
		return EMUL_OK;
	for (c %= n * 8 + 1; c; c--) {
		out = v & 1;
		v = (v >> 1) | (cf ? emul_sign(n) : 0);
		cf = out;
	}
	set_cf_of(e, cf, top(v, n) ^ top(v << 1, n));
	e->dst = v;
	return EMUL_OK;
}

enum emul_result emul_op_shl(struct emul *e)
{
	unsigned int n = e->insn.opsize, bits = n * 8, c = shift_count(e, e->src);
	u64 v = e->dst;
	bool cf;

	if (!c)
		return EMUL_OK;
	cf = c <= bits && ((v >> (bits - c)) & 1);
	v = (v << c) & emul_mask(n);
	set_szp(e, v);
	set_cf_of(e, cf, cf ^ top(v, n));
	e->dst = v;
	return EMUL_OK;
}

enum emul_result emul_op_shr(struct emul *e)
{
	unsigned int n = e->insn.opsize, c = shift_count(e, e->src);
	u64 v = e->dst;

	if (!c)
		return EMUL_OK;
	e->dst = v >> c;
	set_szp(e, e->dst);
	set_cf_of(e, (v >> (c - 1)) & 1, top(v, n));
	return EMUL_OK;
}

enum emul_result emul_op_sar(struct emul *e)
{
	unsigned int n = e->insn.opsize, c = shift_count(e, e->src);
	s64 v = emul_sext(e->dst, n);

	if (!c)
		return EMUL_OK;
	e->dst = (u64)(v >> c) & emul_mask(n);
	set_szp(e, e->dst);
	set_cf_of(e, (v >> (c - 1)) & 1, false);
	return EMUL_OK;
}

/*
 * Double shifts. A 16-bit operand shifted by more than 16 is undefined; the
 * bits then come from the source again, as on most processors.
 */
enum emul_result emul_op_shld(struct emul *e)
{
	unsigned int n = e->insn.opsize, bits = n * 8, c = shift_count(e, e->src2);
	u64 v = e->dst, s = e->src, r;
	bool cf;

	if (!c)
		return EMUL_OK;
	if (c > bits) {
		v = s;
		s = e->dst;
		c -= bits;
	}
	cf = (v >> (bits - c)) & 1;
	r = c == bits ? s : ((v << c) | (s >> (bits - c))) & emul_mask(n);
	set_szp(e, r);
	set_cf_of(e, cf, top(r, n) ^ top(e->dst, n));
	e->dst = r;
	return EMUL_OK;
}

enum emul_result emul_op_shrd(struct emul *e)
{
	unsigned int n = e->insn.opsize, bits = n * 8, c = shift_count(e, e->src2);
	u64 v = e->dst, s = e->src, r;
	bool cf;

	if (!c)
		return EMUL_OK;
	if (c > bits) {
		v = s;
		s = e->dst;
		c -= bits;
	}
	cf = (v >> (c - 1)) & 1;
	r = c == bits ? s : ((v >> c) | (s << (bits - c))) & emul_mask(n);
	set_szp(e, r);
	set_cf_of(e, cf, top(r, n) ^ top(e->dst, n));
	e->dst = r;
	return EMUL_OK;
}

/* The bit src selects in dst goes to CF; returns its mask. */
static u64 test_bit_cf(struct emul *e)
{
	u64 bit = 1ull << (e->src & (e->insn.opsize * 8 - 1));

	e->new_flags &= ~(u64)X86_EFLAGS_CF;
	if (e->dst & bit)
		e->new_flags |= X86_EFLAGS_CF;
	return bit;
}

enum emul_result emul_op_bt(struct emul *e)
{
	test_bit_cf(e);
	return EMUL_OK;
}

enum emul_result emul_op_bts(struct emul *e)
{
	e->dst |= test_bit_cf(e);
	return EMUL_OK;
}

enum emul_result emul_op_btr(struct emul *e)
{
	e->dst &= ~test_bit_cf(e);
	return EMUL_OK;
}

enum emul_result emul_op_btc(struct emul *e)
{
	e->dst ^= test_bit_cf(e);
	return EMUL_OK;
}

/* BSF and BSR leave the destination alone when no bit is set. */
static enum emul_result bit_scan(struct emul *e, unsigned int pos)
{
	e->new_flags &= ~(u64)X86_EFLAGS_ZF;
	if (!e->src) {
		e->new_flags |= X86_EFLAGS_ZF;
		return EMUL_OK;
	}
	emul_set_reg(e, e->insn.reg, pos, e->insn.opsize);
	return EMUL_OK;
}

enum emul_result emul_op_bsf(struct emul *e)
{
	return bit_scan(e, e->src ? __builtin_ctzll(e->src) : 0);
}

enum emul_result emul_op_bsr(struct emul *e)
{
	return bit_scan(e, e->src ? 63 - __builtin_clzll(e->src) : 0);
}

static enum emul_result count_zeroes(struct emul *e, unsigned int count)
{
	e->new_flags &= ~(u64)(X86_EFLAGS_CF | X86_EFLAGS_ZF);
	if (!e->src)
		e->new_flags |= X86_EFLAGS_CF;
	if (!count)
		e->new_flags |= X86_EFLAGS_ZF;
	emul_set_reg(e, e->insn.reg, count, e->insn.opsize);
	return EMUL_OK;
}

/* CPUs that lack TZCNT or LZCNT execute BSF or BSR for the same bytes. */
enum emul_result emul_op_tzcnt(struct emul *e)
{
	if (!e->ops->cpu_has(e, EMUL_CPU_TZCNT))
		return emul_op_bsf(e);
	return count_zeroes(e, e->src ? __builtin_ctzll(e->src) : e->insn.opsize * 8);
}

enum emul_result emul_op_lzcnt(struct emul *e)
{
	unsigned int bits = e->insn.opsize * 8;

	if (!e->ops->cpu_has(e, EMUL_CPU_LZCNT))
		return emul_op_bsr(e);
	return count_zeroes(e, e->src ? __builtin_clzll(e->src) - (64 - bits) : bits);
}

enum emul_result emul_op_popcnt(struct emul *e)
{
	u64 v = e->src;
	unsigned int count = 0;

	for (; v; v &= v - 1)
		count++;
	e->new_flags &= ~(u64)ARITH_FLAGS;
	if (!count)
		e->new_flags |= X86_EFLAGS_ZF;
	e->dst = count;
	return EMUL_OK;
}

static u64 swap_bytes(u64 v, unsigned int bytes)
{
	return __builtin_bswap64(v) >> (64 - bytes * 8);
}

/* With a 16-bit operand the result is undefined; processors give zero. */
enum emul_result emul_op_bswap(struct emul *e)
{
	e->dst = e->insn.opsize == 2 ? 0 : swap_bytes(e->dst, e->insn.opsize);
	return EMUL_OK;
}

enum emul_result emul_op_movbe(struct emul *e)
{
	e->dst = swap_bytes(e->src, e->insn.opsize);
	return EMUL_OK;
}
