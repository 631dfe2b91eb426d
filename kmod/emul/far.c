// SPDX-License-Identifier: GPL-2.0-only
/*
 * Far control transfer: JMP, CALL, RET far, IRET, software interrupts, and the
 * fast system calls. Gates are in gate.c, task switches in task.c.
 *
 * Each handler reads and checks everything, makes its memory writes, then sets
 * segment registers, which cannot fail. No locks. SDM vol. 3 chapters 5 and 6,
 * vol. 2 for SYSCALL and its kin; APM vol. 2 chapters 4, 6 and 8.
 */
#include "internal.h"

/* Flags an IRET may bring back at any privilege, beside IF and IOPL. */
#define IRET_FLAGS	(ARITH_FLAGS | X86_EFLAGS_TF | X86_EFLAGS_DF | X86_EFLAGS_NT | \
			 X86_EFLAGS_AC | X86_EFLAGS_ID | X86_EFLAGS_RF)

#define FLAT_CODE64	0xa09bu
#define FLAT_CODE32	0xc09bu
#define FLAT_DATA	0xc093u

/* The descriptor a far transfer names. */
static enum emul_result read_target(struct emul *e, u16 sel, struct emul_desc *d)
{
	return sel & ~3 ? emul_desc_read(e, sel, d) : emul_gp(e, 0);
}

/* Is it good for a new CS? All but privilege and presence. */
static enum emul_result check_code(struct emul *e, u16 sel, const struct emul_seg *s)
{
	if ((s->attr & (EMUL_ATTR_S | 8)) != (EMUL_ATTR_S | 8))
		return emul_gp(e, sel & ~3);
	if (e->lma && (s->attr & EMUL_ATTR_L) && (s->attr & EMUL_ATTR_DB))
		return emul_gp(e, sel & ~3);
	return EMUL_OK;
}

enum emul_result emul_code_present(struct emul *e, u16 sel, struct emul_desc *d, u8 cpl)
{
	if (!(d->seg.attr & EMUL_ATTR_P))
		return emul_raise(e, EMUL_VEC_NP, true, sel & ~3);
	d->seg.selector = (sel & ~3) | cpl;
	d->seg.attr |= 1;
	return EMUL_OK;
}

/* CS for JMP and CALL: the privilege level stays. */
static enum emul_result check_cs_jump(struct emul *e, u16 sel, struct emul_desc *d)
{
	enum emul_result r = check_code(e, sel, &d->seg);

	if (r)
		return r;
	if (d->seg.attr & 4 ? emul_dpl(&d->seg) > e->cpl :
	    (sel & 3) > e->cpl || emul_dpl(&d->seg) != e->cpl)
		return emul_gp(e, sel & ~3);
	return emul_code_present(e, sel, d, e->cpl);
}

/* CS for RET, IRET and a new task: the privilege level becomes the selector's, @cpl or an outer one. */
enum emul_result emul_check_cs_return(struct emul *e, u16 sel, u8 cpl, struct emul_desc *d)
{
	unsigned int rpl = sel & 3;
	enum emul_result r = read_target(e, sel, d);

	if (!r)
		r = check_code(e, sel, &d->seg);
	if (r)
		return r;
	if (rpl < cpl || (d->seg.attr & 4 ? emul_dpl(&d->seg) > rpl : emul_dpl(&d->seg) != rpl))
		return emul_gp(e, sel & ~3);
	return emul_code_present(e, sel, d, rpl);
}

static bool is_long_code(const struct emul *e, const struct emul_desc *cs)
{
	return e->lma && (cs->seg.attr & EMUL_ATTR_L);
}

enum emul_result emul_check_target(struct emul *e, u64 target, const struct emul_desc *cs)
{
	if (is_long_code(e, cs) ? !emul_canonical(e, target) : target > cs->seg.limit)
		return emul_gp(e, 0);
	return EMUL_OK;
}

static void set_real_cs(struct emul *e, u16 sel)
{
	if (e->mode == EMUL_MODE_REAL)
		emul_real_seg(e, EMUL_SEG_CS, sel);
	else
		emul_vm86_seg(e, EMUL_SEG_CS, sel);
}

/* Far JMP or CALL to sel:off, of the instruction's operand size. */
static enum emul_result far_to(struct emul *e, u16 sel, u64 off, bool call)
{
	u64 sp = e->regs[EMUL_RSP], from = e->next_rip;
	bool prot = emul_protected(e);
	unsigned int n = e->insn.opsize;
	struct emul_desc cs;
	enum emul_result r;

	off &= emul_mask(n);
	if (prot) {
		r = read_target(e, sel, &cs);
		if (!r && !(cs.seg.attr & EMUL_ATTR_S))
			return emul_gate(e, &cs, call);
		if (!r)
			r = check_cs_jump(e, sel, &cs);
		if (!r)
			r = emul_check_target(e, off, &cs);
	} else {
		r = off > emul_seg(e, EMUL_SEG_CS)->limit ? emul_gp(e, 0) : EMUL_OK;
	}
	if (!r && call) {
		r = emul_push(e, &sp, emul_seg(e, EMUL_SEG_CS)->selector, n);
		if (!r)
			r = emul_push(e, &sp, from, n);
	}
	if (!r && prot)
		r = emul_desc_mark(e, &cs);
	if (r)
		return r;

	if (prot)
		e->ops->set_seg(e, EMUL_SEG_CS, &cs.seg);
	else
		set_real_cs(e, sel);
	e->regs[EMUL_RSP] = sp;
	e->next_rip = off;
	return EMUL_OK;
}

enum emul_result emul_op_jmp_far(struct emul *e)
{
	return far_to(e, e->insn.imm2, e->insn.imm, false);
}

enum emul_result emul_op_call_far(struct emul *e)
{
	return far_to(e, e->insn.imm2, e->insn.imm, true);
}

static enum emul_result far_mem(struct emul *e, bool call)
{
	unsigned int n = e->insn.opsize;
	enum emul_result r;
	u64 off = 0;
	u8 buf[10];
	u16 sel;

	r = emul_read(e, e->insn.seg, e->ea, buf, n + 2);
	if (r)
		return r;
	memcpy(&off, buf, n);
	memcpy(&sel, buf + n, 2);
	return far_to(e, sel, off, call);
}

enum emul_result emul_op_jmp_far_mem(struct emul *e)
{
	return far_mem(e, false);
}

enum emul_result emul_op_call_far_mem(struct emul *e)
{
	return far_mem(e, true);
}

/* Data segments the outer level may not use are emptied. */
static void drop_inner_segs(struct emul *e)
{
	static const u8 data[] = { EMUL_SEG_ES, EMUL_SEG_DS, EMUL_SEG_FS, EMUL_SEG_GS };
	unsigned int k;

	for (k = 0; k < sizeof(data); k++) {
		struct emul_seg s = *emul_seg(e, data[k]);

		if (s.attr & EMUL_ATTR_UNUSABLE || emul_dpl(&s) >= e->cpl || (s.attr & 0xc) == 0xc)
			continue;
		s.selector = 0;
		s.attr = EMUL_ATTR_UNUSABLE;
		s.base = 0;
		s.limit = 0;
		e->ops->set_seg(e, data[k], &s);
	}
}

/* Width of a stack pointer under a new SS and CS. */
static unsigned int new_sp_bytes(const struct emul *e, const struct emul_desc *cs,
				 const struct emul_desc *ss)
{
	if (is_long_code(e, cs))
		return 8;
	return ss->seg.attr & EMUL_ATTR_DB ? 4 : 2;
}

/*
 * The common end of a protected-mode RET far and IRET. *sp is past the frame;
 * pops an outer stack from it if the privilege level changes or always (IRET in
 * 64-bit mode). extra: bytes RET releases on either stack.
 */
static enum emul_result return_to(struct emul *e, u64 sp, u16 sel, u64 off, u64 extra,
				  bool always)
{
	unsigned int n = e->insn.opsize;
	u64 new_sp = sp, ss_sel = 0;
	struct emul_desc cs, ss;
	bool stack;
	enum emul_result r;

	r = emul_check_cs_return(e, sel, e->cpl, &cs);
	if (r)
		return r;
	stack = always || (sel & 3) > e->cpl;
	if (stack) {
		sp = emul_sp_add(e, sp, extra);
		r = emul_pop(e, &sp, &new_sp, n);
		if (!r)
			r = emul_pop(e, &sp, &ss_sel, n);
		if (!r)
			r = emul_check_ss(e, ss_sel, sel & 3, is_long_code(e, &cs), &ss);
	}
	if (!r)
		r = emul_check_target(e, off, &cs);
	if (!r)
		r = emul_desc_mark(e, &cs);
	if (!r && stack)
		r = emul_desc_mark(e, &ss);
	if (r)
		return r;

	if (stack) {
		unsigned int bytes = new_sp_bytes(e, &cs, &ss);
		bool outer = (sel & 3) > e->cpl;

		e->ops->set_seg(e, EMUL_SEG_SS, &ss.seg);
		e->cpl = sel & 3;
		e->regs[EMUL_RSP] = emul_merge(e->regs[EMUL_RSP], new_sp + extra, bytes);
		if (outer)
			drop_inner_segs(e);
	} else {
		e->regs[EMUL_RSP] = emul_sp_add(e, sp, extra);
	}
	e->ops->set_seg(e, EMUL_SEG_CS, &cs.seg);
	e->next_rip = off;
	return EMUL_OK;
}

enum emul_result emul_op_ret_far(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP], off, sel;
	enum emul_result r;

	r = emul_pop(e, &sp, &off, e->insn.opsize);
	if (!r)
		r = emul_pop(e, &sp, &sel, e->insn.opsize);
	if (r)
		return r;
	if (emul_protected(e))
		return return_to(e, sp, sel, off, e->insn.imm, false);

	if (off > emul_seg(e, EMUL_SEG_CS)->limit)
		return emul_gp(e, 0);
	e->regs[EMUL_RSP] = emul_sp_add(e, sp, e->insn.imm);
	set_real_cs(e, sel);
	e->next_rip = off;
	return EMUL_OK;
}

static u64 iret_flags(struct emul *e, u64 val)
{
	u64 may = IRET_FLAGS;

	if (e->cpl <= emul_iopl(e))
		may |= X86_EFLAGS_IF;
	if (!e->cpl)
		may |= X86_EFLAGS_IOPL;
	if (!e->cpl && emul_protected(e))
		may |= X86_EFLAGS_VIF | X86_EFLAGS_VIP;
	may &= emul_mask(e->insn.opsize);
	return (e->new_flags & ~may) | (val & may);
}

static enum emul_result iret_real(struct emul *e, u64 sp, u16 sel, u64 off, u64 flags)
{
	if (off > emul_seg(e, EMUL_SEG_CS)->limit)
		return emul_gp(e, 0);
	e->new_flags = iret_flags(e, flags);
	e->regs[EMUL_RSP] = sp;
	set_real_cs(e, sel);
	e->next_rip = off;
	return EMUL_OK;
}

/* To virtual-8086 mode: the frame goes on with ESP, SS, ES, DS, FS, GS. */
static enum emul_result iret_vm86(struct emul *e, u64 sp, u16 sel, u64 off, u64 flags)
{
	static const u8 seg[] = { EMUL_SEG_SS, EMUL_SEG_ES, EMUL_SEG_DS, EMUL_SEG_FS,
				  EMUL_SEG_GS };
	u64 may = IRET_FLAGS | X86_EFLAGS_IF | X86_EFLAGS_IOPL | X86_EFLAGS_VM |
		  X86_EFLAGS_VIF | X86_EFLAGS_VIP;
	enum emul_result r;
	unsigned int k;
	u64 val[6];

	for (k = 0; k < 6; k++) {
		r = emul_pop(e, &sp, &val[k], 4);
		if (r)
			return r;
	}
	if (off > 0xffff)
		return emul_gp(e, 0);
	emul_vm86_seg(e, EMUL_SEG_CS, sel);
	for (k = 0; k < 5; k++)
		emul_vm86_seg(e, seg[k], val[k + 1]);
	e->regs[EMUL_RSP] = (u32)val[0];
	e->new_flags = (e->new_flags & ~may) | (flags & may);
	e->cpl = 3;
	e->next_rip = off;
	return EMUL_OK;
}

/* Back to the task that this one was called by, of which its TSS has the selector. */
static enum emul_result iret_task(struct emul *e)
{
	struct emul_seg tr;
	enum emul_result r;
	u16 link;

	if (e->lma)
		return emul_gp(e, 0);
	e->ops->get_seg(e, EMUL_SEG_TR, &tr);
	r = e->ops->read(e, emul_system_addr(e, tr.base), &link, sizeof(link), EMUL_ACC_SYSTEM);
	return r ? r : emul_insn_task(e, link, EMUL_SWITCH_IRET);
}

enum emul_result emul_op_iret(struct emul *e)
{
	u64 sp = e->regs[EMUL_RSP], off, sel, flags;
	unsigned int n = e->insn.opsize;
	enum emul_result r;

	if (e->mode == EMUL_MODE_VM86 && emul_iopl(e) != 3) {
		r = e->ops->get_cr(e, 4, &flags);
		if (r)
			return r;
		return flags & X86_CR4_VME ? EMUL_UNHANDLEABLE : emul_gp(e, 0);
	}
	if (emul_protected(e) && (e->rflags & X86_EFLAGS_NT))
		return iret_task(e);

	r = emul_pop(e, &sp, &off, n);
	if (!r)
		r = emul_pop(e, &sp, &sel, n);
	if (!r)
		r = emul_pop(e, &sp, &flags, n);
	if (r)
		return r;

	if (!emul_protected(e)) {
		r = iret_real(e, sp, sel, off, flags);
	} else if (n == 4 && (flags & X86_EFLAGS_VM) && !e->cpl && !e->lma) {
		r = iret_vm86(e, sp, sel, off, flags);
	} else {
		flags = iret_flags(e, flags);	/* by the CPL before the return */
		r = return_to(e, sp, sel, off, 0, emul_long(e));
		if (!r)
			e->new_flags = flags;
	}
	if (!r)
		e->shadow = EMUL_SHADOW_IRET;
	return r;
}

/* Real mode: through the interrupt vector table. */
static enum emul_result real_int(struct emul *e, u8 vector)
{
	u64 sp = e->regs[EMUL_RSP];
	struct emul_dt idt;
	enum emul_result r;
	u16 entry[2];

	e->ops->get_dt(e, EMUL_DT_IDT, &idt);
	if (vector * 4u + 3 > idt.limit)
		return emul_gp(e, vector * 8 + 2);
	r = e->ops->read(e, emul_system_addr(e, idt.base + vector * 4u), entry, 4,
			 EMUL_ACC_SYSTEM);
	if (!r && entry[0] > emul_seg(e, EMUL_SEG_CS)->limit)
		r = emul_gp(e, 0);
	if (!r)
		r = emul_push(e, &sp, e->rflags, 2);
	if (!r)
		r = emul_push(e, &sp, emul_seg(e, EMUL_SEG_CS)->selector, 2);
	if (!r)
		r = emul_push(e, &sp, e->next_rip, 2);
	if (r)
		return r;
	e->regs[EMUL_RSP] = sp;
	e->new_flags &= ~(u64)(X86_EFLAGS_IF | X86_EFLAGS_TF | X86_EFLAGS_AC);
	emul_real_seg(e, EMUL_SEG_CS, entry[1]);
	e->next_rip = entry[0];
	return EMUL_OK;
}

enum emul_result emul_real_interrupt(struct emul *e, u8 vector)
{
	enum emul_result r;

	e->seg_valid = 0;
	e->shadow = 0;
	e->insn_valid = false;	/* of the instruction before, the ops must see no prefix */
	e->insn.prefix = 0;
	e->next_rip = e->rip;
	e->new_flags = e->rflags & ~(u64)X86_EFLAGS_RF;
	r = real_int(e, vector);
	if (r)
		return r;
	e->rip = e->next_rip;
	e->rflags = e->new_flags;
	return EMUL_OK;
}

static enum emul_result software_int(struct emul *e, u8 vector, enum emul_swint kind)
{
	if (e->mode == EMUL_MODE_REAL) {
		e->shadow = EMUL_SHADOW_INT;
		return real_int(e, vector);
	}
	if (!e->ops->soft_int)
		return EMUL_UNHANDLEABLE;
	return e->ops->soft_int(e, vector, kind);
}

enum emul_result emul_op_int(struct emul *e)
{
	enum emul_result r;
	u64 cr4;

	if (e->mode == EMUL_MODE_VM86) {
		r = e->ops->get_cr(e, 4, &cr4);
		if (r)
			return r;
		if (cr4 & X86_CR4_VME)	/* the redirection bitmap decides */
			return EMUL_UNHANDLEABLE;
		if (emul_iopl(e) != 3)
			return emul_gp(e, 0);
	}
	return software_int(e, e->insn.imm, EMUL_SWINT_INT);
}

enum emul_result emul_op_int3(struct emul *e)
{
	return software_int(e, EMUL_VEC_BP, EMUL_SWINT_INT3);
}

enum emul_result emul_op_icebp(struct emul *e)
{
	return software_int(e, EMUL_VEC_DB, EMUL_SWINT_ICEBP);
}

enum emul_result emul_op_into(struct emul *e)
{
	if (!(e->rflags & X86_EFLAGS_OF))
		return EMUL_OK;
	return software_int(e, EMUL_VEC_OF, EMUL_SWINT_INT);
}

/* The flat segments the fast system calls load without a descriptor. */
static void set_flat(struct emul *e, unsigned int seg, u16 sel, u32 attr, u8 cpl)
{
	struct emul_seg s = {
		.selector = sel,
		.base = 0,
		.limit = 0xffffffff,
		.attr = attr | (u32)cpl << EMUL_ATTR_DPL_SHIFT,
	};

	e->ops->set_seg(e, seg, &s);
}

/*
 * Fast system calls.  Which there are in long mode depends on the vendor: SYSCALL in 32-bit code is AMD's, SYSENTER and SYSEXIT
 * are Intel's.
 */
static enum emul_result syscall_enabled(struct emul *e)
{
	enum emul_result r;
	u64 efer;

	if (!emul_long(e) && !(e->lma && e->foreign))
		return EMUL_UNHANDLEABLE;
	r = e->ops->get_msr(e, MSR_EFER, &efer);
	if (r)
		return r;
	return efer & EFER_SCE ? EMUL_OK : emul_ud(e);
}

enum emul_result emul_op_syscall(struct emul *e)
{
	u64 star, entry, mask;
	enum emul_result r;
	u16 sel;

	r = syscall_enabled(e);
	if (!r)
		r = e->ops->get_msr(e, MSR_STAR, &star);
	if (!r)
		r = e->ops->get_msr(e, emul_long(e) ? MSR_LSTAR : MSR_CSTAR, &entry);
	if (!r)
		r = e->ops->get_msr(e, MSR_SYSCALL_MASK, &mask);
	if (r)
		return r;
	sel = (star >> 32) & 0xfffc;
	set_flat(e, EMUL_SEG_CS, sel, FLAT_CODE64, 0);
	set_flat(e, EMUL_SEG_SS, sel + 8, FLAT_DATA, 0);
	e->cpl = 0;
	e->regs[EMUL_RCX] = e->next_rip;
	e->regs[EMUL_R11] = e->new_flags;
	e->new_flags = (e->new_flags & ~(u64)(u32)mask) | X86_EFLAGS_FIXED;
	if (!(e->new_flags & X86_EFLAGS_TF))
		e->shadow = EMUL_SHADOW_INT;
	e->next_rip = entry;
	return EMUL_OK;
}

enum emul_result emul_op_sysret(struct emul *e)
{
	bool wide = e->insn.opsize == 8;
	u64 star, target, may = 0x3c7fd7;
	enum emul_result r;
	u16 sel;

	r = emul_long(e) ? syscall_enabled(e) : EMUL_UNHANDLEABLE;
	if (r)
		return r;
	target = e->regs[EMUL_RCX];
	if (e->cpl || (wide && !emul_canonical(e, target)))
		return emul_gp(e, 0);
	r = e->ops->get_msr(e, MSR_STAR, &star);
	if (r)
		return r;
	sel = (star >> 48) | 3;
	if (wide)
		set_flat(e, EMUL_SEG_CS, sel + 16, FLAT_CODE64, 3);
	else
		set_flat(e, EMUL_SEG_CS, sel, FLAT_CODE32, 3);
	set_flat(e, EMUL_SEG_SS, sel + 8, FLAT_DATA, 3);
	e->cpl = 3;
	e->new_flags = (e->regs[EMUL_R11] & may) | X86_EFLAGS_FIXED;
	e->next_rip = wide ? target : (u32)target;
	return EMUL_OK;
}

enum emul_result emul_op_sysenter(struct emul *e)
{
	u64 cs, esp, eip;
	enum emul_result r;

	if (!emul_protected(e) && e->mode != EMUL_MODE_VM86)
		return emul_gp(e, 0);
	if (e->lma && !e->foreign)
		return EMUL_UNHANDLEABLE;
	r = e->ops->get_msr(e, MSR_IA32_SYSENTER_CS, &cs);
	if (!r)
		r = e->ops->get_msr(e, MSR_IA32_SYSENTER_ESP, &esp);
	if (!r)
		r = e->ops->get_msr(e, MSR_IA32_SYSENTER_EIP, &eip);
	if (r)
		return r;
	if (!(cs & 0xfffc))
		return emul_gp(e, 0);
	set_flat(e, EMUL_SEG_CS, cs & 0xfffc, e->lma ? FLAT_CODE64 : FLAT_CODE32, 0);
	set_flat(e, EMUL_SEG_SS, (cs & 0xfffc) + 8, FLAT_DATA, 0);
	e->cpl = 0;
	e->regs[EMUL_RSP] = e->lma ? esp : (u32)esp;
	e->new_flags &= ~(u64)(X86_EFLAGS_VM | X86_EFLAGS_IF);
	e->next_rip = e->lma ? eip : (u32)eip;
	return EMUL_OK;
}

enum emul_result emul_op_sysexit(struct emul *e)
{
	bool wide = e->insn.opsize == 8;
	enum emul_result r;
	u16 sel;
	u64 cs;

	if (e->mode == EMUL_MODE_REAL || e->cpl)
		return emul_gp(e, 0);
	if (e->lma && !e->foreign)
		return EMUL_UNHANDLEABLE;
	r = e->ops->get_msr(e, MSR_IA32_SYSENTER_CS, &cs);
	if (r)
		return r;
	if (!(cs & 0xfffc))
		return emul_gp(e, 0);
	if (wide && !(emul_canonical(e, e->regs[EMUL_RCX]) && emul_canonical(e, e->regs[EMUL_RDX])))
		return emul_gp(e, 0);
	sel = ((cs & 0xfffc) | 3) + (wide ? 32 : 16);
	set_flat(e, EMUL_SEG_CS, sel, wide ? FLAT_CODE64 : FLAT_CODE32, 3);
	set_flat(e, EMUL_SEG_SS, sel + 8, FLAT_DATA, 3);
	e->cpl = 3;
	e->regs[EMUL_RSP] = wide ? e->regs[EMUL_RCX] : (u32)e->regs[EMUL_RCX];
	e->next_rip = wide ? e->regs[EMUL_RDX] : (u32)e->regs[EMUL_RDX];
	return EMUL_OK;
}
