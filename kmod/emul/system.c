// SPDX-License-Identifier: GPL-2.0-only
/*
 * System instructions: control, debug and model-specific registers, descriptor
 * table registers, time stamps, caches, and what needs the vCPU as a whole.
 * Here are the checks that belong to the instruction; the ops judge values.
 *
 * No locks. SDM vol. 3 chapter 2, vol. 2; APM vol. 3 chapter 4.
 */
#include "internal.h"

/* Control and debug registers move whole registers, whatever the prefixes say. */
static unsigned int full_size(const struct emul *e)
{
	return emul_long(e) ? 8 : 4;
}

static bool cr_exists(unsigned int nr)
{
	return nr < 9 && ((0x11d >> nr) & 1);	/* 0, 2, 3, 4, 8 */
}

enum emul_result emul_op_mov_from_cr(struct emul *e)
{
	enum emul_result r;
	u64 val;

	if (!cr_exists(e->insn.reg))
		return emul_ud(e);
	if (e->cpl)
		return emul_gp(e, 0);
	r = e->ops->get_cr(e, e->insn.reg, &val);
	if (!r)
		emul_set_reg(e, e->insn.rm, val, full_size(e));
	return r;
}

enum emul_result emul_op_mov_to_cr(struct emul *e)
{
	if (!cr_exists(e->insn.reg))
		return emul_ud(e);
	if (e->cpl)
		return emul_gp(e, 0);
	return e->ops->set_cr(e, e->insn.reg, emul_reg(e, e->insn.rm, full_size(e)));
}

enum emul_result emul_op_mov_from_dr(struct emul *e)
{
	enum emul_result r;
	u64 val;

	if (e->insn.reg > 7)
		return emul_ud(e);
	if (e->cpl)
		return emul_gp(e, 0);
	r = e->ops->get_dr(e, e->insn.reg, &val);
	if (!r)
		emul_set_reg(e, e->insn.rm, val, full_size(e));
	return r;
}

enum emul_result emul_op_mov_to_dr(struct emul *e)
{
	if (e->insn.reg > 7)
		return emul_ud(e);
	if (e->cpl)
		return emul_gp(e, 0);
	return e->ops->set_dr(e, e->insn.reg, emul_reg(e, e->insn.rm, full_size(e)));
}

enum emul_result emul_op_clts(struct emul *e)
{
	enum emul_result r;
	u64 cr0;

	r = e->ops->get_cr(e, 0, &cr0);
	return r ? r : e->ops->set_cr(e, 0, cr0 & ~(u64)X86_CR0_TS);
}

/* Loads PE, MP, EM and TS; cannot clear PE. */
enum emul_result emul_op_lmsw(struct emul *e)
{
	u64 may = X86_CR0_MP | X86_CR0_EM | X86_CR0_TS, cr0, val;
	enum emul_result r;

	r = emul_load_rm(e, &val, 2, 0);
	if (!r)
		r = e->ops->get_cr(e, 0, &cr0);
	if (r)
		return r;
	cr0 = (cr0 & ~may) | (val & (may | X86_CR0_PE));
	return e->ops->set_cr(e, 0, cr0);
}

enum emul_result emul_op_smsw(struct emul *e)
{
	enum emul_result r = emul_umip(e);

	return r ? r : e->ops->get_cr(e, 0, &e->dst);
}

static enum emul_result store_table(struct emul *e, enum emul_table t)
{
	enum emul_result r = emul_umip(e);
	struct emul_dt dt;
	u8 buf[10];

	if (r)
		return r;
	e->ops->get_dt(e, t, &dt);
	memcpy(buf, &dt.limit, 2);
	memcpy(buf + 2, &dt.base, 8);
	return emul_write(e, e->insn.seg, e->ea, buf, 2 + full_size(e));
}

enum emul_result emul_op_sgdt(struct emul *e)
{
	return store_table(e, EMUL_DT_GDT);
}

enum emul_result emul_op_sidt(struct emul *e)
{
	return store_table(e, EMUL_DT_IDT);
}

static enum emul_result load_table(struct emul *e, enum emul_table t)
{
	struct emul_dt dt = { 0 };
	enum emul_result r;
	u8 buf[10];

	r = emul_read(e, e->insn.seg, e->ea, buf, 2 + full_size(e));
	if (r)
		return r;
	memcpy(&dt.limit, buf, 2);
	memcpy(&dt.base, buf + 2, full_size(e));
	if (emul_long(e) && !emul_loadable(e, dt.base))
		return emul_gp(e, 0);
	if (!emul_long(e) && e->insn.opsize == 2)
		dt.base &= 0xffffff;
	e->ops->set_dt(e, t, &dt);
	return EMUL_OK;
}

enum emul_result emul_op_lgdt(struct emul *e)
{
	return load_table(e, EMUL_DT_GDT);
}

enum emul_result emul_op_lidt(struct emul *e)
{
	return load_table(e, EMUL_DT_IDT);
}

/* The address is not accessed: no limit, no canonical fault. */
enum emul_result emul_op_invlpg(struct emul *e)
{
	u64 linear = e->ea;

	if (!emul_long(e))
		linear = (u32)(linear + emul_seg(e, e->insn.seg)->base);
	else if (e->insn.seg >= EMUL_SEG_FS)
		linear += emul_seg(e, e->insn.seg)->base;
	if (emul_long(e) && !emul_canonical(e, linear))
		return EMUL_OK;
	return e->ops->invlpg(e, linear);
}

enum emul_result emul_op_invpcid(struct emul *e)
{
	u64 type = e->regs[e->insn.reg], desc[2], cr4;
	enum emul_result r;

	if (!emul_long(e))
		type = (u32)type;
	if (type > 3)
		return emul_gp(e, 0);
	r = emul_read(e, e->insn.seg, e->ea, desc, sizeof(desc));
	if (r)
		return r;
	r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	if (desc[0] >> 12 || (type < 2 && desc[0] && !(cr4 & X86_CR4_PCIDE)) ||
	    (type == 0 && !emul_loadable(e, desc[1])))
		return emul_gp(e, 0);
	return e->ops->invpcid(e, type, desc[0], desc[1]);
}

static void set_edx_eax(struct emul *e, u64 val)
{
	e->regs[EMUL_RAX] = (u32)val;
	e->regs[EMUL_RDX] = val >> 32;
}

static u64 get_edx_eax(const struct emul *e)
{
	return (u32)e->regs[EMUL_RAX] | e->regs[EMUL_RDX] << 32;
}

enum emul_result emul_op_rdmsr(struct emul *e)
{
	enum emul_result r;
	u64 val;

	r = e->ops->rdmsr(e, e->regs[EMUL_RCX], &val);
	if (!r)
		set_edx_eax(e, val);
	return r;
}

enum emul_result emul_op_wrmsr(struct emul *e)
{
	return e->ops->wrmsr(e, e->regs[EMUL_RCX], get_edx_eax(e));
}

enum emul_result emul_op_cpuid(struct emul *e)
{
	u32 v[4] = { e->regs[EMUL_RAX], 0, e->regs[EMUL_RCX], 0 };
	enum emul_result r;

	r = e->ops->cpuid(e, v);
	if (r)
		return r;
	e->regs[EMUL_RAX] = v[0];
	e->regs[EMUL_RBX] = v[1];
	e->regs[EMUL_RCX] = v[2];
	e->regs[EMUL_RDX] = v[3];
	return EMUL_OK;
}

/* RDTSC and RDPMC above CPL 0 hang on a CR4 bit being clear or set. */
static enum emul_result cr4_allows(struct emul *e, u64 bit, bool set)
{
	enum emul_result r;
	u64 cr4;

	if (!e->cpl)
		return EMUL_OK;
	r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	return !(cr4 & bit) == !set ? EMUL_OK : emul_gp(e, 0);
}

enum emul_result emul_op_rdtsc(struct emul *e)
{
	enum emul_result r = cr4_allows(e, X86_CR4_TSD, false);
	u64 tsc;

	if (!r)
		r = e->ops->rdtsc(e, &tsc, NULL);
	if (!r)
		set_edx_eax(e, tsc);
	return r;
}

enum emul_result emul_op_rdtscp(struct emul *e)
{
	enum emul_result r = cr4_allows(e, X86_CR4_TSD, false);
	u64 tsc;
	u32 aux;

	if (!r)
		r = e->ops->rdtsc(e, &tsc, &aux);
	if (r)
		return r;
	set_edx_eax(e, tsc);
	e->regs[EMUL_RCX] = aux;
	return EMUL_OK;
}

enum emul_result emul_op_rdpmc(struct emul *e)
{
	enum emul_result r = cr4_allows(e, X86_CR4_PCE, true);
	u64 val;

	if (!r || emul_is_open(e, EMUL_OPEN_COUNTER, e->regs[EMUL_RCX]))
		r = e->ops->rdpmc(e, e->regs[EMUL_RCX], &val);
	if (!r)
		set_edx_eax(e, val);
	return r;
}

enum emul_result emul_op_hlt(struct emul *e)
{
	return e->ops->sysop(e, EMUL_SYS_HLT);
}

enum emul_result emul_op_wbinvd(struct emul *e)
{
	return e->ops->sysop(e, EMUL_SYS_WBINVD);
}

enum emul_result emul_op_invd(struct emul *e)
{
	return e->ops->sysop(e, EMUL_SYS_INVD);
}

enum emul_result emul_op_rsm(struct emul *e)
{
	return e->ops->sysop(e, EMUL_SYS_RSM);
}

enum emul_result emul_op_monitor(struct emul *e)
{
	return e->cpl ? emul_ud(e) : e->ops->sysop(e, EMUL_SYS_MONITOR);
}

enum emul_result emul_op_mwait(struct emul *e)
{
	return e->cpl ? emul_ud(e) : e->ops->sysop(e, EMUL_SYS_MWAIT);
}

enum emul_result emul_op_pause(struct emul *e)
{
	return e->ops->sysop(e, EMUL_SYS_PAUSE);
}

enum emul_result emul_op_hypercall(struct emul *e)
{
	return e->ops->sysop(e, EMUL_SYS_HYPERCALL);
}

/* XGETBV and XSETBV take no mandatory prefix, and need CR4.OSXSAVE. */
static enum emul_result xcr_enabled(struct emul *e)
{
	enum emul_result r;
	u64 cr4;

	if (e->insn.prefix & (EMUL_PFX_OPSIZE | EMUL_PFX_REP | EMUL_PFX_REPNE))
		return emul_ud(e);
	r = e->ops->get_cr(e, 4, &cr4);
	if (r)
		return r;
	return cr4 & X86_CR4_OSXSAVE ? EMUL_OK : emul_ud(e);
}

enum emul_result emul_op_xgetbv(struct emul *e)
{
	enum emul_result r = xcr_enabled(e);
	u64 val;

	if (r)
		return r;
	if (!e->ops->get_xcr)
		return EMUL_UNHANDLEABLE;
	r = e->ops->get_xcr(e, e->regs[EMUL_RCX], &val);
	if (!r)
		set_edx_eax(e, val);
	return r;
}

enum emul_result emul_op_xsetbv(struct emul *e)
{
	enum emul_result r = xcr_enabled(e);

	if (r)
		return r;
	if (e->cpl)
		return emul_gp(e, 0);
	if (!e->ops->set_xcr)
		return EMUL_UNHANDLEABLE;
	return e->ops->set_xcr(e, e->regs[EMUL_RCX], get_edx_eax(e));
}

enum emul_result emul_op_swapgs(struct emul *e)
{
	struct emul_seg gs = *emul_seg(e, EMUL_SEG_GS);
	enum emul_result r;
	u64 base;

	r = e->ops->get_msr(e, MSR_KERNEL_GS_BASE, &base);
	if (!r)
		r = e->ops->set_msr(e, MSR_KERNEL_GS_BASE, gs.base);
	if (r)
		return r;
	gs.base = base;
	e->ops->set_seg(e, EMUL_SEG_GS, &gs);
	return EMUL_OK;
}
