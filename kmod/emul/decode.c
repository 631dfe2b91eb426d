// SPDX-License-Identifier: GPL-2.0-only
/*
 * Instruction decoder: prefixes, opcode, ModRM, SIB, displacement, immediates,
 * in one pass over the bytes. The same pass serves emul_decode(), which fetches
 * from the guest as it goes, and emul_insn_length(), which only measures.
 *
 * No locks. SDM vol. 2 chapter 2 and appendix A; APM vol. 3 chapter 1.
 */
#include "internal.h"

#define INSN_MAX	15
#define DEC_TOO_LONG	(-3)	/* beside EMUL_LEN_MORE and EMUL_LEN_INVALID */

/*
 * Steps take the instruction being filled and the emulator to fetch for, NULL
 * when only measuring. They return 0, a positive enum emul_result from the
 * guest fetch, or one of the negative values above.
 */

/* Get more bytes from the guest: up to the page end, the CS limit or 15. */
static int fetch_more(struct emul_insn *i, struct emul *e)
{
	unsigned int want, page;
	enum emul_result r;
	u64 linear;

	if (!e)
		return EMUL_LEN_MORE;

	if (emul_long(e)) {
		linear = e->rip + i->have;
		if (!emul_canonical(e, linear))
			return emul_gp(e, 0);
		want = INSN_MAX - i->have;
	} else {
		const struct emul_seg *cs = emul_seg(e, EMUL_SEG_CS);
		u32 ip = (u32)e->rip + i->have;

		if (ip > cs->limit || ip < (u32)e->rip)
			return emul_gp(e, 0);
		linear = (u32)(cs->base + ip);
		want = INSN_MAX - i->have;
		if (want - 1 > cs->limit - ip)
			want = cs->limit - ip + 1;
	}
	page = 4096 - (linear & 4095);
	if (want > page)
		want = page;
	page = want;
	r = e->ops->fetch(e, linear, i->bytes + i->have, &want);
	if (r)
		return r;
	if (!want || want > page)
		return EMUL_UNHANDLEABLE;
	i->have += want;
	return 0;
}

static int need_slow(struct emul_insn *i, struct emul *e, unsigned int n)
{
	int r;

	if (i->len + n > INSN_MAX)
		return DEC_TOO_LONG;
	while (i->len + n > i->have) {
		r = fetch_more(i, e);
		if (r)
			return r;
	}
	return 0;
}

/* Make n more bytes available at bytes[len]. */
static __always_inline int need(struct emul_insn *i, struct emul *e, unsigned int n)
{
	if (i->len + n <= i->have)
		return 0;
	return need_slow(i, e, n);
}

static __always_inline int get_byte(struct emul_insn *i, struct emul *e, u8 *b)
{
	int r = need(i, e, 1);

	if (!r)
		*b = i->bytes[i->len++];
	return r;
}

/* A little-endian integer of n bytes, zero-extended. */
static int get_int(struct emul_insn *i, struct emul *e, unsigned int n, u64 *v)
{
	int r = need(i, e, n);
	u64 x = 0;

	if (r)
		return r;
	memcpy(&x, i->bytes + i->len, n);
	i->len += n;
	*v = x;
	return 0;
}

static int get_sint(struct emul_insn *i, struct emul *e, unsigned int n, u64 *v)
{
	int r = get_int(i, e, n, v);

	if (!r)
		*v = emul_sext(*v, n);
	return r;
}

static void one_prefix(struct emul_insn *i, u8 b)
{
	switch (b) {
	case 0x66:
		i->prefix |= EMUL_PFX_OPSIZE;
		break;
	case 0x67:
		i->prefix |= EMUL_PFX_ADSIZE;
		break;
	case 0xf0:
		i->prefix |= EMUL_PFX_LOCK;
		break;
	case 0xf2:
		i->prefix = (i->prefix & ~EMUL_PFX_REP) | EMUL_PFX_REPNE;
		break;
	case 0xf3:
		i->prefix = (i->prefix & ~EMUL_PFX_REPNE) | EMUL_PFX_REP;
		break;
	case 0x64:
	case 0x65:
		i->seg_override = EMUL_SEG_FS + (b - 0x64);
		break;
	default:	/* 26, 2e, 36, 3e: no segments to override in 64-bit mode */
		if (i->mode != EMUL_MODE_LONG64)
			i->seg_override = (b >> 3) & 3;
		break;
	}
}

/* Prefixes and REX; leaves the first opcode byte in *opcode. */
static int get_prefixes(struct emul_insn *i, struct emul *e, u8 *opcode)
{
	int r;
	u8 b;

	for (;;) {
		r = get_byte(i, e, &b);
		if (r)
			return r;
		if (emul_map0[b].group == G_PREFIX) {
			one_prefix(i, b);
			i->rex = 0;	/* REX counts only right before the opcode */
		} else if (i->mode == EMUL_MODE_LONG64 && (b & 0xf0) == 0x40) {
			i->rex = b;
		} else {
			*opcode = b;
			return 0;
		}
	}
}

/* Operand and address sizes by mode, without and with the prefix that changes them. */
static const u8 opsize_of[][2] = {
	[EMUL_MODE_REAL] = { 2, 4 },
	[EMUL_MODE_VM86] = { 2, 4 },
	[EMUL_MODE_PROT16] = { 2, 4 },
	[EMUL_MODE_PROT32] = { 4, 2 },
	[EMUL_MODE_LONG64] = { 4, 2 },
};

static const u8 adsize_of[][2] = {
	[EMUL_MODE_REAL] = { 2, 4 },
	[EMUL_MODE_VM86] = { 2, 4 },
	[EMUL_MODE_PROT16] = { 2, 4 },
	[EMUL_MODE_PROT32] = { 4, 2 },
	[EMUL_MODE_LONG64] = { 8, 4 },
};

static void set_sizes(struct emul_insn *i)
{
	i->opsize = i->rex & 8 ? 8 : opsize_of[i->mode][!!(i->prefix & EMUL_PFX_OPSIZE)];
	i->adsize = adsize_of[i->mode][!!(i->prefix & EMUL_PFX_ADSIZE)];
}

/* Is C4, C5 or 62 here a vector prefix? Outside 64-bit mode a register ModRM makes it one. */
static int is_vex(struct emul_insn *i, struct emul *e, bool *vex)
{
	int r;

	*vex = false;
	if (i->mode == EMUL_MODE_REAL || i->mode == EMUL_MODE_VM86)
		return 0;
	r = need(i, e, 1);
	if (r)
		return r;
	*vex = i->mode == EMUL_MODE_LONG64 || i->bytes[i->len] >= 0xc0;
	return 0;
}

/* Vector prefix: opcode is C5 (two bytes), C4 (three) or 62 (four, EVEX). */
static int get_vex(struct emul_insn *i, struct emul *e, u8 first)
{
	unsigned int n = first == 0xc5 ? 1 : first == 0xc4 ? 2 : 3;
	const u8 *p;
	u8 wvlp;
	int r;

	if (i->rex || i->prefix & (EMUL_PFX_LOCK | EMUL_PFX_REP | EMUL_PFX_REPNE |
				   EMUL_PFX_OPSIZE))
		return EMUL_LEN_INVALID;
	r = need(i, e, n + 1);
	if (r)
		return r;
	p = i->bytes + i->len;
	i->evex_at = i->len;
	i->len += n + 1;
	i->opcode = p[n];
	i->vex = first == 0x62 ? 2 : 1;
	i->map = n == 1 ? 1 : first == 0x62 ? p[0] & 7 : p[0] & 0x1f;
	if (i->map < 1 || i->map > 3)
		return i->vex == 2 && (i->map == 5 || i->map == 6) ? 0 : EMUL_LEN_INVALID;

	wvlp = n == 1 ? p[0] : p[1];
	i->rex = 0x40 | ((p[0] & 0x80) ? 0 : 4);
	if (n > 1) {
		i->rex |= (p[0] & 0x40 ? 0 : 2) | (p[0] & 0x20 ? 0 : 1);
		i->rex |= wvlp & 0x80 ? 8 : 0;
	}
	if (i->mode != EMUL_MODE_LONG64)
		i->rex &= 0x48;
	i->vex_v = ~(wvlp >> 3) & 15;
	i->vex_l_pp = wvlp & 7;
	i->evex = 0;
	if (i->vex == 2) {
		/* One bit is always set, one always clear, and a 17th register is 64-bit mode's. */
		if (p[0] & 8 || !(wvlp & 4) || (!(p[2] & 8) && i->mode != EMUL_MODE_LONG64))
			return EMUL_LEN_INVALID;
		i->vex_l_pp &= 3;
		i->evex = p[2];
		i->vex_v |= p[2] & 8 ? 0 : 16;
	}
	return 0;
}

/* 16-bit addressing: base and index by modrm.rm. */
static const u8 base16[8] = {
	EMUL_RBX, EMUL_RBX, EMUL_RBP, EMUL_RBP, EMUL_RSI, EMUL_RDI, EMUL_RBP, EMUL_RBX,
};

static const u8 index16[8] = {
	EMUL_RSI, EMUL_RDI, EMUL_RSI, EMUL_RDI,
	EMUL_NO_REG, EMUL_NO_REG, EMUL_NO_REG, EMUL_NO_REG,
};

static int get_sib(struct emul_insn *i, struct emul *e)
{
	u8 sib;
	int r;

	r = get_byte(i, e, &sib);
	if (r)
		return r;
	i->scale = sib >> 6;
	i->index = ((sib >> 3) & 7) | (i->rex & 2) << 2;
	if (i->index == EMUL_RSP)
		i->index = EMUL_NO_REG;
	i->base = (sib & 7) | (i->rex & 1) << 3;
	if ((sib & 7) == 5 && !i->mod)
		i->base = EMUL_NO_REG;
	return 0;
}

/* The address form of a memory operand; ModRM is in place. */
static int get_address(struct emul_insn *i, struct emul *e)
{
	unsigned int dispsize = i->mod == 1 ? 1 : 0;
	u8 low = i->modrm & 7;
	u64 disp;
	int r;

	if (i->adsize == 2) {
		i->base = base16[low];
		i->index = index16[low];
		if (i->mod == 2)
			dispsize = 2;
		if (low == 6 && !i->mod) {
			i->base = EMUL_NO_REG;
			dispsize = 2;
		}
	} else {
		if (i->mod == 2)
			dispsize = 4;
		i->base = i->rm;
		if (low == 4) {
			r = get_sib(i, e);
			if (r)
				return r;
			if (i->base == EMUL_NO_REG)
				dispsize = 4;
		} else if (low == 5 && !i->mod) {
			i->base = i->mode == EMUL_MODE_LONG64 ? EMUL_REG_RIP : EMUL_NO_REG;
			dispsize = 4;
		}
	}
	if (i->base == EMUL_RBP || i->base == EMUL_RSP)
		i->seg = EMUL_SEG_SS;
	if (dispsize) {
		r = get_sint(i, e, dispsize, &disp);
		if (r)
			return r;
		i->disp = disp;
	}
	return 0;
}

static __always_inline int get_modrm(struct emul_insn *i, struct emul *e)
{
	int r;

	r = need(i, e, 1);
	if (r)
		return r;
	i->modrm = i->bytes[i->len++];
	i->mod = i->modrm >> 6;
	i->reg = ((i->modrm >> 3) & 7) | (i->rex & 4) << 1;
	i->rm = (i->modrm & 7) | (i->rex & 1) << 3;
	return 0;
}

/* The immediate an operand of this kind has in the instruction, if any. */
static int get_operand_imm(struct emul_insn *i, struct emul *e, u8 kind)
{
	int r;

	switch (kind) {
	case K_IMM:
		return get_sint(i, e, i->opsize == 8 ? 4 : i->opsize, &i->imm);
	case K_IMMV:
		return get_int(i, e, i->opsize, &i->imm);
	case K_IMM8:
		return get_int(i, e, 1, &i->imm);
	case K_IMM8S:
		return get_sint(i, e, 1, &i->imm);
	case K_IMM16:
		return get_int(i, e, 2, &i->imm);
	case K_MOFFS:
		i->mod = 0;
		r = get_int(i, e, i->adsize, &i->imm);
		i->disp = i->imm;
		return r;
	case K_FAR:
		r = get_int(i, e, i->opsize, &i->imm);
		return r ? r : get_int(i, e, 2, &i->imm2);
	case K_ENTER:
		r = get_int(i, e, 2, &i->imm);
		return r ? r : get_int(i, e, 1, &i->imm2);
	default:
		return 0;
	}
}

static unsigned int mandatory_prefix(const struct emul_insn *i)
{
	if (i->vex)
		return i->vex_l_pp & 3;
	if (i->prefix & EMUL_PFX_REP)
		return 2;
	if (i->prefix & EMUL_PFX_REPNE)
		return 3;
	return i->prefix & EMUL_PFX_OPSIZE ? 1 : 0;
}

/* Vector instructions the tables do not list: their length is still known. */
static int vector_unknown(struct emul_insn *i, struct emul *e)
{
	u8 op = i->opcode;
	u64 imm;
	int r;

	i->exec = emul_op_unknown;
	i->flags = F_VEX;
	i->dst = K_NONE;
	i->src = K_NONE;
	i->src2 = K_NONE;
	if (i->map == 1 && op == 0x77 && i->vex == 1)
		return 0;
	r = get_modrm(i, e);
	if (!r && i->mod != 3)
		r = get_address(i, e);
	if (r)
		return r;
	if (i->map == 3 || (i->map == 1 && ((op >= 0x70 && op <= 0x73) || op == 0xc2 ||
					    (op >= 0xc4 && op <= 0xc6))))
		return get_int(i, e, 1, &imm);
	return 0;
}

/* Opcode bytes, through the maps; *op is the table entry. */
static int get_opcode(struct emul_insn *i, struct emul *e, const struct emul_opcode **op)
{
	bool vex = false;
	u8 b;
	int r;

	r = get_prefixes(i, e, &b);
	if (r)
		return r;
	if (b == 0xc4 || b == 0xc5 || b == 0x62) {
		r = is_vex(i, e, &vex);
		if (r)
			return r;
	}
	if (vex) {
		r = get_vex(i, e, b);
		i->opsize = i->rex & 8 && i->mode == EMUL_MODE_LONG64 ? 8 : 4;
		i->adsize = adsize_of[i->mode][!!(i->prefix & EMUL_PFX_ADSIZE)];
		*op = i->map == 1 ? &emul_map1[i->opcode] : i->map == 2 ? &emul_map2[i->opcode] :
		      i->map == 3 ? &emul_map3[i->opcode] : NULL;
		return r;
	}

	set_sizes(i);
	i->opcode = b;
	*op = &emul_map0[b];
	if (b != 0x0f)
		return 0;
	r = get_byte(i, e, &b);
	if (r)
		return r;
	i->map = 1;
	*op = &emul_map1[b];
	if (b == 0x38 || b == 0x3a) {
		i->map = b == 0x38 ? 2 : 3;
		r = get_byte(i, e, &b);
		if (r)
			return r;
		*op = i->map == 2 ? &emul_map2[b] : &emul_map3[b];
	}
	i->opcode = b;
	return 0;
}

/* Follow the groups below a table entry, gathering operand kinds and flags. */
static int resolve(struct emul_insn *i, struct emul *e, const struct emul_opcode *op)
{
	bool have_modrm = false;
	u32 flags = 0;
	int r;

	i->dst = op->dst;
	i->src = op->src;
	i->src2 = op->src2;
	for (;;) {
		flags |= op->flags;
		if ((op->flags & F_MODRM) && !have_modrm) {
			r = get_modrm(i, e);
			if (r)
				return r;
			have_modrm = true;
		}
		switch (op->group) {
		case G_NONE:
			/* Of how it may be encoded, the last entry has the last word. */
			i->flags = (flags & ~(F_VEX | F_EVEX)) | op->flags;
			i->exec = op->exec;
			return 0;
		case G_REG:
			op = &op->next[(i->modrm >> 3) & 7];
			break;
		case G_RM:
			op = &op->next[i->modrm & 7];
			break;
		case G_MOD:
			op = &op->next[i->mod == 3];
			break;
		case G_PFX:
			op = &op->next[mandatory_prefix(i)];
			break;
		default:
			return EMUL_LEN_INVALID;
		}
		if (op->dst)
			i->dst = op->dst;
		if (op->src)
			i->src = op->src;
		if (op->src2)
			i->src2 = op->src2;
	}
}

/* EVEX has a fifth bit for vector registers. */
static void evex_regs(struct emul_insn *i)
{
	if (i->mode != EMUL_MODE_LONG64) {
		i->vex_v &= 7;
		return;
	}
	/* P0 is behind the prefixes and 62. */
	i->reg |= i->bytes[i->evex_at] & 0x10 ? 0 : 16;
	if (i->mod == 3)
		i->rm |= (i->rex & 2) << 3;
}

static bool vex_ok(const struct emul_insn *i, const struct emul_opcode *op)
{
	return op && (op->flags & (i->vex == 2 ? F_EVEX : F_VEX));
}

/* An entry below that has no such form may still be an instruction of another extension. */
static void vex_form(struct emul_insn *i)
{
	if (!(i->flags & (i->vex == 2 ? F_EVEX : F_VEX))) {
		i->exec = emul_op_unknown;
		i->flags = F_MODRM;
		i->dst = K_NONE;
		if (i->src < K_MOFFS)
			i->src = K_NONE;
	}
	if (i->vex == 2)
		evex_regs(i);
}

static void insn_init(struct emul_insn *i, enum emul_mode mode)
{
	i->mode = mode;

	i->len = 0;
	i->prefix = 0;
	i->rex = 0;
	i->seg = EMUL_SEG_DS;
	i->seg_override = EMUL_NO_REG;
	i->map = 0;
	i->modrm = 0;
	i->mod = 3;
	i->reg = 0;
	i->rm = 0;
	i->base = EMUL_NO_REG;
	i->index = EMUL_NO_REG;
	i->scale = 0;
	i->vex = 0;
	i->vex_v = 0;
	i->vex_l_pp = 0;
	i->disp = 0;
	i->imm = 0;
	i->imm2 = 0;
}

static int decode(struct emul_insn *i, struct emul *e)
{
	const struct emul_opcode *op;
	int r;

	r = get_opcode(i, e, &op);
	if (r)
		return r;
	if (i->vex && !vex_ok(i, op))
		return vector_unknown(i, e);
	r = resolve(i, e, op);
	if (r)
		return r;
	if (i->vex)
		vex_form(i);

	if ((i->flags & F_BYTE) || ((i->flags & F_W) && !(i->opcode & 1)))
		i->opsize = 1;
	if (i->mode == EMUL_MODE_LONG64) {
		if (i->flags & F_NO64)
			return EMUL_LEN_INVALID;
		if ((i->flags & F_F64) || ((i->flags & F_D64) && i->opsize == 4))
			i->opsize = 8;
	} else if (i->flags & F_ONLY64) {
		return EMUL_LEN_INVALID;
	}

	if (i->flags & F_REGONLY) {
		i->mod = 3;
	} else if ((i->flags & F_MODRM) && i->mod != 3) {
		r = get_address(i, e);
		if (r)
			return r;
	}
	if (i->src >= K_MOFFS || i->src2 >= K_MOFFS || i->dst >= K_MOFFS) {
		r = get_operand_imm(i, e, i->src);
		if (!r)
			r = get_operand_imm(i, e, i->src2);
		if (!r)
			r = get_operand_imm(i, e, i->dst);
		if (r)
			return r;
	}
	if (i->seg_override != EMUL_NO_REG)
		i->seg = i->seg_override;

	if (!i->exec)
		return EMUL_LEN_INVALID;
	if (i->mod == 3 && (i->dst == K_M || i->src == K_M || i->src2 == K_M))
		return EMUL_LEN_INVALID;
	return 0;
}

/*
 * Loops over a device come back to the same instruction: if e->insn is the one whose first 8 bytes are @bytes, there
 * is nothing to decode.
 */
static bool decoded_before(const struct emul *e, u64 bytes)
{
	const struct emul_insn *i = &e->insn;
	u64 then;

	if (!e->insn_valid || e->insn_rip != e->rip || i->mode != e->mode || i->len > sizeof(then))
		return false;
	memcpy(&then, i->bytes, sizeof(then));
	return !((then ^ bytes) & emul_mask(i->len));
}

/* In 64-bit mode the first bytes come at once: no segment limit can cut them off. */
static enum emul_result fetch_first(struct emul *e, u64 bytes[2], unsigned int *have)
{
	unsigned int page = 4096 - (e->rip & 4095);

	if (!emul_canonical(e, e->rip))
		return emul_gp(e, 0);
	*have = page < INSN_MAX ? page : INSN_MAX;
	return e->ops->fetch(e, e->rip, bytes, have);
}

static bool moves_cr0(const struct emul_insn *i)
{
	return !i->reg && (i->exec == emul_op_mov_to_cr || i->exec == emul_op_mov_from_cr);
}

enum emul_result emul_decode(struct emul *e)
{
	struct emul_insn *i = &e->insn;
	unsigned int have = 0;
	u64 bytes[2] = {};
	int r;

	e->seg_valid = 0;
	e->shadow = 0;
	if (emul_long(e)) {
		r = fetch_first(e, bytes, &have);
		if (r) {
			e->insn_valid = false;
			i->have = 0;	/* for who reports what could not be run */
			return r;
		}
		if (have >= i->len && decoded_before(e, bytes[0])) {
			e->next_rip = e->rip + i->len;
			return EMUL_OK;
		}
		memcpy(i->bytes, bytes, sizeof(i->bytes));
	}
	e->insn_valid = false;
	i->have = have;
	insn_init(i, e->mode);
	r = decode(i, e);
	if (r > 0)
		return r;
	if (r == DEC_TOO_LONG)
		return emul_gp(e, 0);
	if (r < 0)
		return emul_ud(e);

	if ((i->prefix & EMUL_PFX_LOCK) && e->lock_cr8 && moves_cr0(i))
		i->reg = 8;
	else if ((i->prefix & EMUL_PFX_LOCK) && (!(i->flags & F_LOCKABLE) || i->mod == 3))
		return i->exec == emul_op_unknown ? EMUL_UNHANDLEABLE : emul_ud(e);
	if ((i->flags & F_PROT) && !emul_protected(e))
		return emul_ud(e);
	e->next_rip = e->rip + i->len;
	if (!emul_long(e))
		e->next_rip = (u32)e->next_rip;
	e->insn_rip = e->rip;
	e->insn_valid = true;
	return EMUL_OK;
}

/*
 * The instructions that are intercepted most, without prefixes: 0F with the
 * system opcodes below, and HLT. They measure alike in all modes; 0 for others.
 */
static int length_of_common(const u8 *bytes, unsigned int n)
{
	if (n >= 1 && bytes[0] == 0xf4)			/* hlt */
		return 1;
	if (n < 3 || bytes[0] != 0x0f)
		return 0;
	switch (bytes[1]) {
	case 0x30: case 0x31: case 0x32:		/* wrmsr, rdtsc, rdmsr */
	case 0x08: case 0x09: case 0xa2:		/* invd, wbinvd, cpuid */
		return 2;
	case 0x01:
		return bytes[2] == 0xc1 || bytes[2] == 0xd9 ? 3 : 0;	/* vmcall, vmmcall */
	}
	return 0;
}

int emul_insn_length(const u8 *bytes, unsigned int n, enum emul_mode mode)
{
	struct emul_insn insn;
	int r = length_of_common(bytes, n);

	if (r)
		return r;
	insn.have = n > INSN_MAX ? INSN_MAX : n;
	memcpy(insn.bytes, bytes, insn.have);
	insn_init(&insn, mode);
	r = decode(&insn, NULL);
	if (r == EMUL_LEN_MORE)
		return EMUL_LEN_MORE;
	return r ? EMUL_LEN_INVALID : insn.len;
}
