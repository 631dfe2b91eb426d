// SPDX-License-Identifier: GPL-2.0-only
/*
 * smm.c - system management mode: an SMI, from its arrival to RSM.  APM volume 2 chapter 10 (and table 10-1, the save
 * area of a CPU with long mode), SDM 3C chapter 31 (table 31-1, the save area of one without).
 *
 * In that mode a vCPU looks into the second address space.  The way in is taken in the slow loop, between two
 * instructions with nothing in delivery; the way out is RSM, which the emulator executes.  What the save area holds is
 * the guest's to change: all of it is checked as registers from userspace are.
 *
 * Lock: vcpu->mutex, but for smi_pending, which any thread sets.
 */
#include "ops.h"

#define SAVE_AREA	0xfe00		/* of SMBASE; its offsets here are those from SMBASE + 0x8000, less this */
#define SAVE_SIZE	0x200
#define ENTRY_POINT	0x8000
#define DR7_RESET	0x400

/* The flags there are, but for the one that is always set: RSM ignores the rest. */
#define FLAGS	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | X86_EFLAGS_SF | X86_EFLAGS_TF |	\
		 X86_EFLAGS_IF | X86_EFLAGS_DF | X86_EFLAGS_OF | X86_EFLAGS_IOPL | X86_EFLAGS_NT | X86_EFLAGS_RF |	\
		 X86_EFLAGS_VM | X86_EFLAGS_AC | X86_EFLAGS_VIF | X86_EFLAGS_VIP | X86_EFLAGS_ID)

#define OFF64(o)	((o) - 0xfe00)
#define OFF32(o)	((o) - 0x7e00)

/* Where a register is in the area, and in struct kvm_regs or kvm_sregs.  An area's field may be narrower. */
struct save_field {
	u16 at;
	u8 size;
	bool sregs;
	u16 reg;
};

#define REG(a, n, r)	{ a, n, false, offsetof(struct kvm_regs, r) }
#define SREG(a, n, r)	{ a, n, true, offsetof(struct kvm_sregs, r) }

/* Attributes are the middle bytes of a descriptor. */
struct save_seg {
	u16 selector, attr, limit, base;
	u16 reg;		/* in struct kvm_sregs */
};

static const struct save_field fields64[] = {
	REG(OFF64(0xfff8), 8, rax), REG(OFF64(0xfff0), 8, rcx), REG(OFF64(0xffe8), 8, rdx), REG(OFF64(0xffe0), 8, rbx),
	REG(OFF64(0xffd8), 8, rsp), REG(OFF64(0xffd0), 8, rbp), REG(OFF64(0xffc8), 8, rsi), REG(OFF64(0xffc0), 8, rdi),
	REG(OFF64(0xffb8), 8, r8), REG(OFF64(0xffb0), 8, r9), REG(OFF64(0xffa8), 8, r10), REG(OFF64(0xffa0), 8, r11),
	REG(OFF64(0xff98), 8, r12), REG(OFF64(0xff90), 8, r13), REG(OFF64(0xff88), 8, r14), REG(OFF64(0xff80), 8, r15),
	REG(OFF64(0xff78), 8, rip), REG(OFF64(0xff70), 8, rflags),
	SREG(OFF64(0xff58), 8, cr0), SREG(OFF64(0xff50), 8, cr3), SREG(OFF64(0xff48), 8, cr4),
	SREG(OFF64(0xfed0), 8, efer),
	SREG(OFF64(0xfe64), 2, gdt.limit), SREG(OFF64(0xfe68), 8, gdt.base),
	SREG(OFF64(0xfe84), 2, idt.limit), SREG(OFF64(0xfe88), 8, idt.base),
};

#define SEG64(o, r)	{ OFF64(o), OFF64((o) + 2), OFF64((o) + 4), OFF64((o) + 8), offsetof(struct kvm_sregs, r) }
static const struct save_seg segs64[] = {
	SEG64(0xfe00, es), SEG64(0xfe10, cs), SEG64(0xfe20, ss), SEG64(0xfe30, ds), SEG64(0xfe40, fs), SEG64(0xfe50, gs),
	SEG64(0xfe70, ldt), SEG64(0xfe90, tr),
};

/* CR4, the hidden parts of segments and the descriptor tables have no documented place: they are in its reserved part. */
static const struct save_field fields32[] = {
	SREG(OFF32(0x7ffc), 4, cr0), SREG(OFF32(0x7ff8), 4, cr3), REG(OFF32(0x7ff4), 4, rflags), REG(OFF32(0x7ff0), 4, rip),
	REG(OFF32(0x7fec), 4, rdi), REG(OFF32(0x7fe8), 4, rsi), REG(OFF32(0x7fe4), 4, rbp), REG(OFF32(0x7fe0), 4, rsp),
	REG(OFF32(0x7fdc), 4, rbx), REG(OFF32(0x7fd8), 4, rdx), REG(OFF32(0x7fd4), 4, rcx), REG(OFF32(0x7fd0), 4, rax),
	SREG(OFF32(0x7f9c), 4, cr4),
	SREG(OFF32(0x7f98), 2, gdt.limit), SREG(OFF32(0x7f94), 4, gdt.base),
	SREG(OFF32(0x7f90), 2, idt.limit), SREG(OFF32(0x7f8c), 4, idt.base),
};

#define SEG32(o, n, r)	{ OFF32(o), OFF32(0x7f10 + 12 * (n)), OFF32(0x7f14 + 12 * (n)), OFF32(0x7f18 + 12 * (n)),	\
			  offsetof(struct kvm_sregs, r) }
static const struct save_seg segs32[] = {
	SEG32(0x7fa8, 0, es), SEG32(0x7fac, 1, cs), SEG32(0x7fb0, 2, ss), SEG32(0x7fb4, 3, ds), SEG32(0x7fb8, 4, fs),
	SEG32(0x7fbc, 5, gs), SEG32(0x7fc0, 6, ldt), SEG32(0x7fc4, 7, tr),
};

static const struct save_layout {
	const struct save_field *fields;
	const struct save_seg *segs;
	unsigned int nr_fields;
	u8 addr;			/* bytes of a segment's base, DR6 and DR7 */
	u16 dr6, dr7, smbase, revision;
	u16 halted;			/* auto-HALT restart: the SMI ended a HLT, and RSM is to go back to it */
	u16 shadow;			/* ours, reserved: KVM_X86_SHADOW_INT_* of the instruction interrupted at */
	u16 ssp;			/* shadow stack pointer; reserved without long mode */
	u32 revision_id;		/* bit 17: SMBASE can be changed */
} layouts[] = {
	{
		.fields = fields32, .segs = segs32, .nr_fields = ARRAY_SIZE(fields32), .addr = 4,
		.dr6 = OFF32(0x7fcc), .dr7 = OFF32(0x7fc8), .smbase = OFF32(0x7ef8), .revision = OFF32(0x7efc),
		.halted = OFF32(0x7f02), .shadow = OFF32(0x7f04), .ssp = OFF32(0x7ee8), .revision_id = 0x20000,
	}, {
		.fields = fields64, .segs = segs64, .nr_fields = ARRAY_SIZE(fields64), .addr = 8,
		.dr6 = OFF64(0xff68), .dr7 = OFF64(0xff60), .smbase = OFF64(0xff00), .revision = OFF64(0xfefc),
		.halted = OFF64(0xfec9), .shadow = OFF64(0xfecb), .ssp = OFF64(0xff18), .revision_id = 0x20064,
	},
};
static_assert(ARRAY_SIZE(segs32) == ARRAY_SIZE(segs64));

static const struct save_layout *layout_of(struct keel_vcpu *vcpu)
{
	return &layouts[keel_guest_has(vcpu, X86_FEATURE_LM)];
}

static void put(u8 *area, u16 at, u64 val, u8 size)
{
	memcpy(area + at, &val, size);
}

static u64 get(const u8 *area, u16 at, u8 size)
{
	u64 val = 0;

	memcpy(&val, area + at, size);
	return val;
}

static void put_segs(u8 *area, const struct save_layout *l, struct kvm_sregs *s)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(segs64); i++) {
		const struct save_seg *at = &l->segs[i];
		const struct kvm_segment *seg = (void *)s + at->reg;

		put(area, at->selector, seg->selector, 2);
		put(area, at->attr, seg->type | seg->s << 4 | seg->dpl << 5 | (seg->present && !seg->unusable) << 7 |
		    seg->avl << 12 | seg->l << 13 | seg->db << 14 | seg->g << 15, 2);
		put(area, at->limit, seg->limit, 4);
		put(area, at->base, seg->base, l->addr);
	}
}

static void get_segs(const u8 *area, const struct save_layout *l, struct kvm_sregs *s)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(segs64); i++) {
		const struct save_seg *at = &l->segs[i];
		u16 attr = get(area, at->attr, 2);

		*(struct kvm_segment *)((void *)s + at->reg) = (struct kvm_segment) {
			.selector = get(area, at->selector, 2), .limit = get(area, at->limit, 4),
			.base = get(area, at->base, l->addr), .type = attr & 15, .s = attr >> 4 & 1,
			.dpl = attr >> 5 & 3, .present = attr >> 7 & 1, .unusable = !(attr >> 7 & 1),
			.avl = attr >> 12 & 1, .l = attr >> 13 & 1, .db = attr >> 14 & 1, .g = attr >> 15,
		};
	}
}

/* @r and @s into the area, or out of it. */
static void copy_fields(u8 *area, const struct save_layout *l, struct kvm_regs *r, struct kvm_sregs *s, bool save)
{
	unsigned int i;

	for (i = 0; i < l->nr_fields; i++) {
		const struct save_field *f = &l->fields[i];
		void *reg = (f->sregs ? (void *)s : (void *)r) + f->reg;

		memcpy(save ? area + f->at : reg, save ? reg : area + f->at, f->size);
	}
}

/* ------------------------------------------------------------------ in */

void keel_smm_set(struct keel_vcpu *vcpu, bool on)
{
	if (vcpu->smm == on)
		return;
	vcpu->smm = on;
	vcpu->smm_in_nmi = false;
	mmu_space_changed(vcpu);
	keel_request(KEEL_REQ_INTERCEPTS, vcpu);
	if (on)
		return;
	/* What was held back while it was on. */
	if (vcpu->mp_events)
		keel_request(KEEL_REQ_MP_EVENT, vcpu);
	if (vcpu->smi_pending)
		keel_request(KEEL_REQ_SMI, vcpu);
	if (vcpu->pv.steal)
		keel_request(KEEL_REQ_STEAL, vcpu);
	if (vcpu->pv.apf)
		keel_request(KEEL_REQ_APF, vcpu);
	if (vcpu->hv)
		keel_request(KEEL_REQ_HV, vcpu);
}

void keel_smm_change(struct keel_vcpu *vcpu, bool on)
{
	if (vcpu->smm && !on)
		keel_request(KEEL_REQ_CLOCK, vcpu);
	keel_smm_set(vcpu, on);
}

static void save_state(struct keel_vcpu *vcpu, bool halted)
{
	const struct save_layout *l = layout_of(vcpu);
	struct kvm_sregs s = {};
	struct kvm_regs r = {};
	u8 area[SAVE_SIZE] = {};
	u64 ssp;

	keel_get_regs(vcpu, &r, 0);
	keel_take_sregs(vcpu, &s);
	copy_fields(area, l, &r, &s, true);
	put_segs(area, l, &s);
	put(area, l->dr6, keel_call(get_dr6, vcpu), l->addr);
	put(area, l->dr7, vcpu->debug.dr7, l->addr);
	put(area, l->smbase, vcpu->smbase, 4);
	put(area, l->revision, l->revision_id, 4);
	put(area, l->halted, halted, 1);
	put(area, l->shadow, keel_call(get_shadow, vcpu), 1);
	if (!keel_cet_get_msr(vcpu, KEEL_MSR_SSP, &ssp, true))
		put(area, l->ssp, ssp, l->addr);
	/* Without memory there it is lost, as on any machine; RSM will find that out. */
	(void)keel_vcpu_write(vcpu, vcpu->smbase + SAVE_AREA, area, sizeof(area));
}

static void smm_enter(struct keel_vcpu *vcpu)
{
	struct kvm_segment seg = { .limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .g = 1 };
	bool halted = vcpu->mp_state == KVM_MP_STATE_HALTED, in_nmi = keel_call(get_nmi_mask, vcpu);
	unsigned int i;

	if (unlikely(vcpu->pv.eoi))
		irq_pv_eoi_settle(vcpu);	/* the offer is in memory that is seen from here */
	keel_smm_set(vcpu, true);
	save_state(vcpu, halted);
	vcpu->smm_in_nmi = in_nmi;
	vcpu->msrs.smi_count++;
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	keel_insn_changed(vcpu, true);

	keel_call(set_nmi_mask, vcpu, true);
	keel_call(set_shadow, vcpu, 0);
	keel_set_rflags(vcpu, X86_EFLAGS_FIXED);
	keel_set_reg(vcpu, KEEL_RIP, ENTRY_POINT);
	keel_call(set_cr0, vcpu, keel_cr0(vcpu) & ~(u64)(X86_CR0_PE | X86_CR0_EM | X86_CR0_TS | X86_CR0_PG));
	keel_call(set_cr4, vcpu, 0);
	if (keel_guest_has(vcpu, X86_FEATURE_LM))
		keel_call(set_efer, vcpu, 0);
	keel_debug_set_dr7(vcpu, DR7_RESET);
	for (i = KEEL_ES; i <= KEEL_GS; i++)
		if (i != KEEL_CS)
			keel_call(set_segment, vcpu, &seg, i);
	seg.selector = vcpu->smbase >> 4;
	seg.base = vcpu->smbase;
	keel_call(set_segment, vcpu, &seg, KEEL_CS);
	(void)keel_cet_set_msr(vcpu, KEEL_MSR_SSP, 0, true);
	keel_request(KEEL_REQ_EVENT, vcpu);
}

bool keel_smi_due(struct keel_vcpu *vcpu)
{
	return READ_ONCE(vcpu->smi_pending) && !vcpu->smm && !(vcpu->debug.control & KVM_GUESTDBG_BLOCKIRQ) &&
	       (vcpu->mp_state == KVM_MP_STATE_RUNNABLE || vcpu->mp_state == KVM_MP_STATE_HALTED);
}

void keel_smm_take(struct keel_vcpu *vcpu)
{
	if (!keel_smi_due(vcpu))
		return;
	/* A step that has ended is told of first, where it ended. */
	if (unlikely(READ_ONCE(vcpu->requests) & BIT(KEEL_REQ_DEBUG))) {
		keel_request(KEEL_REQ_SMI, vcpu);
		return;
	}
	/* What was begun is delivered first, and events are looked at again after it. */
	if (vcpu->ev.injected.type || vcpu->ev.exception.type) {
		keel_request(KEEL_REQ_EVENT, vcpu);
		return;
	}
	WRITE_ONCE(vcpu->smi_pending, false);
	smm_enter(vcpu);
}

void keel_queue_smi(struct keel_vcpu *vcpu)
{
	WRITE_ONCE(vcpu->smi_pending, true);
	keel_request(KEEL_REQ_SMI, vcpu);
	keel_vcpu_kick(vcpu);
}

VCPU_IOCTL(keel_ioctl_smi)
{
	keel_queue_smi(vcpu);
	return 0;
}

/* ----------------------------------------------------------------- out */

void keel_smm_rsm(struct keel_vcpu *vcpu)
{
	const struct save_layout *l = layout_of(vcpu);
	bool in_nmi = vcpu->smm_in_nmi;
	struct kvm_sregs s = {};
	struct kvm_regs r = {};
	u8 area[SAVE_SIZE];
	u64 dr6, dr7;

	if (keel_vcpu_read(vcpu, vcpu->smbase + SAVE_AREA, area, sizeof(area)))
		goto shutdown;
	/* What the area does not hold stays. */
	keel_take_sregs(vcpu, &s);
	copy_fields(area, l, &r, &s, false);
	get_segs(area, l, &s);
	dr6 = get(area, l->dr6, l->addr);
	dr7 = get(area, l->dr7, l->addr);
	if (dr6 >> 32 || dr7 >> 32 || s.efer & vcpu->model.efer_reserved ||
	    (s.cr4 & X86_CR4_PCIDE && !(s.efer & EFER_LMA)))
		goto shutdown;
	r.rflags &= FLAGS;
	/* PDPTRs are read, and tables walked, where the guest will be. */
	keel_smm_change(vcpu, false);
	if (keel_put_sregs(vcpu, &s) ||
	    (vcpu->fpu.cet.used && keel_cet_set_msr(vcpu, KEEL_MSR_SSP, get(area, l->ssp, l->addr), true))) {
		keel_smm_set(vcpu, true);
		goto shutdown;
	}
	keel_put_regs(vcpu, &r);
	(void)keel_set_dr(vcpu, 6, dr6);
	(void)keel_set_dr(vcpu, 7, dr7);
	vcpu->smbase = get(area, l->smbase, 4);
	keel_call(set_nmi_mask, vcpu, in_nmi);
	keel_call(set_shadow, vcpu, get(area, l->shadow, 1) & (KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS));
	if (get(area, l->halted, 1) & 1 && vcpu->apic) {
		vcpu->mp_state = KVM_MP_STATE_HALTED;
		keel_request(KEEL_REQ_HALT, vcpu);
	}
	return;
shutdown:
	keel_request(KEEL_REQ_TRIPLE_FAULT, vcpu);
}
