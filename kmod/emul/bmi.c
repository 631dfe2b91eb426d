// SPDX-License-Identifier: GPL-2.0-only
/*
 * Later additions to the general-purpose instructions: BMI1 and BMI2, ADX,
 * CRC32, RDPID. They are tried as the others are: the CPU that exited has them,
 * or it would have raised #UD.
 *
 * No locks. SDM vol. 2, APM vol. 3: the instructions' own pages.
 */
#include "internal.h"

static u64 v_reg(const struct emul *e)
{
	return e->regs[emul_long(e) ? e->insn.vex_v & 15 : e->insn.vex_v & 7] & emul_mask(e->insn.opsize);
}

static void set_v_reg(struct emul *e, u64 val)
{
	emul_set_reg(e, emul_long(e) ? e->insn.vex_v & 15 : e->insn.vex_v & 7, val, e->insn.opsize);
}

/* The operand in r/m of an instruction that is VEX encoded, of 128 bits, which says nothing here. */
static enum emul_result vex_src(struct emul *e)
{
	if (e->insn.vex != 1 || e->insn.vex_l_pp & 4)
		return emul_ud(e);
	return emul_load_rm(e, &e->src, e->insn.opsize, 0);
}

static unsigned int op_bits(const struct emul *e)
{
	return e->insn.opsize * 8;
}

static void set_result(struct emul *e, u64 val, bool carry)
{
	e->new_flags &= ~(u64)(X86_EFLAGS_CF | X86_EFLAGS_ZF | X86_EFLAGS_SF | X86_EFLAGS_OF);
	if (carry)
		e->new_flags |= X86_EFLAGS_CF;
	if (!val)
		e->new_flags |= X86_EFLAGS_ZF;
	if (val & emul_sign(e->insn.opsize))
		e->new_flags |= X86_EFLAGS_SF;
	e->dst = val;
}

enum emul_result emul_op_andn(struct emul *e)
{
	enum emul_result r = vex_src(e);

	if (!r)
		set_result(e, ~v_reg(e) & e->src, false);
	return r;
}

/* BLSR, BLSMSK and BLSI: the destination is VEX.vvvv. */
enum emul_result emul_op_bls(struct emul *e)
{
	unsigned int which = e->insn.reg & 7;
	enum emul_result r;
	u64 val, less;

	if (which < 1 || which > 3)
		return emul_ud(e);
	r = vex_src(e);
	if (r)
		return r;
	val = e->src;
	less = (val - 1) & emul_mask(e->insn.opsize);
	switch (which) {
	case 1:
		set_result(e, val & less, !val);
		break;
	case 2:
		set_result(e, val ^ less, !val);
		break;
	default:
		set_result(e, val & ~less, val);
		break;
	}
	set_v_reg(e, e->dst);
	return EMUL_OK;
}

enum emul_result emul_op_bextr(struct emul *e)
{
	u64 val, control = v_reg(e);
	unsigned int start = control & 0xff, len = control >> 8 & 0xff;
	enum emul_result r = vex_src(e);

	if (r)
		return r;
	val = start < op_bits(e) ? e->src >> start : 0;
	if (len < op_bits(e))
		val &= (1ull << len) - 1;
	set_result(e, val, false);
	return EMUL_OK;
}

enum emul_result emul_op_bzhi(struct emul *e)
{
	unsigned int n = v_reg(e) & 0xff;
	enum emul_result r = vex_src(e);
	u64 val = e->src;

	if (r)
		return r;
	if (n < op_bits(e))
		val &= (1ull << n) - 1;
	set_result(e, val, n > op_bits(e) - 1);
	return EMUL_OK;
}

/* PEXT gathers the bits of vvvv that the mask in r/m selects, PDEP puts its low ones there. */
static u64 gather(u64 val, u64 mask, bool spread)
{
	u64 out = 0, bit = 1;

	for (; mask; mask &= mask - 1, bit <<= 1) {
		u64 lowest = mask & -mask;

		if (val & (spread ? bit : lowest))
			out |= spread ? lowest : bit;
	}
	return out;
}

enum emul_result emul_op_pdep(struct emul *e)
{
	enum emul_result r = vex_src(e);

	if (!r)
		e->dst = gather(v_reg(e), e->src, true);
	return r;
}

enum emul_result emul_op_pext(struct emul *e)
{
	enum emul_result r = vex_src(e);

	if (!r)
		e->dst = gather(v_reg(e), e->src, false);
	return r;
}

/* SHLX, SARX, SHRX: by pp */
enum emul_result emul_op_shiftx(struct emul *e)
{
	unsigned int count = v_reg(e) & (op_bits(e) - 1), n = e->insn.opsize;
	enum emul_result r = vex_src(e);

	if (r)
		return r;
	switch (e->insn.vex_l_pp & 3) {
	case 1:
		e->dst = e->src << count;
		break;
	case 2:
		e->dst = (u64)((s64)emul_sext(e->src, n) >> count);
		break;
	default:
		e->dst = e->src >> count;
		break;
	}
	e->dst &= emul_mask(n);
	return EMUL_OK;
}

enum emul_result emul_op_rorx(struct emul *e)
{
	unsigned int count = e->insn.imm & (op_bits(e) - 1);
	enum emul_result r = e->insn.vex_v ? emul_ud(e) : vex_src(e);

	if (r)
		return r;
	e->dst = e->src;
	if (count)
		e->dst = (e->src >> count | e->src << (op_bits(e) - count)) & emul_mask(e->insn.opsize);
	return EMUL_OK;
}

/* The high half goes to modrm.reg, and wins if both are one register. */
enum emul_result emul_op_mulx(struct emul *e)
{
	unsigned int n = e->insn.opsize;
	u64 a = e->regs[EMUL_RDX] & emul_mask(n);
	enum emul_result r = vex_src(e);
	unsigned __int128 p;

	if (r)
		return r;
	p = (unsigned __int128)a * e->src;
	set_v_reg(e, (u64)p & emul_mask(n));
	e->dst = (u64)(p >> op_bits(e)) & emul_mask(n);
	return EMUL_OK;
}

/* ADCX and ADOX, with a carry of their own each; a prefix tells which, not how wide. */
static enum emul_result add_carry(struct emul *e, u64 flag)
{
	unsigned int n = emul_long(e) && e->insn.rex & 8 ? 8 : 4;
	bool carry = e->rflags & flag;
	enum emul_result r;
	u64 val, a, sum;

	r = emul_load_rm(e, &val, n, 0);
	if (r)
		return r;
	a = emul_reg(e, e->insn.reg, n);
	sum = (a + val + carry) & emul_mask(n);
	e->new_flags &= ~flag;
	if (sum < a || (sum == a && val))
		e->new_flags |= flag;
	emul_set_reg(e, e->insn.reg, sum, n);
	return EMUL_OK;
}

enum emul_result emul_op_adcx(struct emul *e)
{
	return add_carry(e, X86_EFLAGS_CF);
}

enum emul_result emul_op_adox(struct emul *e)
{
	return add_carry(e, X86_EFLAGS_OF);
}

#define CRC32C	0x82f63b78u	/* the polynomial, its bits in reverse */

/* F0: of a byte, F1: of an operand; the destination is as wide as REX.W says. */
enum emul_result emul_op_crc32(struct emul *e)
{
	unsigned int n = e->insn.opcode & 1 ? e->insn.opsize : 1, k;
	enum emul_result r;
	u32 crc = e->regs[e->insn.reg];
	u64 val;

	r = emul_load_rm(e, &val, n, 0);
	if (r)
		return r;
	for (; n; n--, val >>= 8) {
		crc ^= val & 0xff;
		for (k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C : 0);
	}
	emul_set_reg(e, e->insn.reg, crc, 8);
	return EMUL_OK;
}

enum emul_result emul_op_rdpid(struct emul *e)
{
	enum emul_result r;
	u64 tsc;
	u32 aux;

	r = e->ops->rdtsc(e, &tsc, &aux);
	if (!r)
		emul_set_reg(e, e->insn.rm, aux, emul_long(e) ? 8 : 4);
	return r;
}
