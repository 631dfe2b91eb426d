// SPDX-License-Identifier: GPL-2.0-only
/*
 * deliver.c - what the CPU leaves half done and the emulator does: events in real mode, where the CPU has none of it,
 * and hardware task switches, which exit whoever starts them.  SDM 3C 25.4.2, table 27-2 and 27.2.4; APM 15.14.
 *
 * Lock: vcpu->mutex; between keel_vcpu_begin() and keel_vcpu_end().
 */
#include <asm/trapnr.h>

#include "insn.h"
#include "ops.h"

#define DR7_LOCAL	0x155UL		/* L0-L3 and LE */

static void begin(struct keel_vcpu *vcpu)
{
	struct keel_insn *in = vcpu->insn;

	keel_insn_forget(vcpu);
	in->need_slow = in->halted = false;
	in->gpa = NO_GPA;
	in->cursor = in->write_pos = 0;
	keel_insn_begin(in);
}

static int undeliverable(struct keel_vcpu *vcpu, const struct keel_event *ev)
{
	u64 data[] = { ev->vector, ev->type };

	return keel_exit_internal_error(vcpu, KVM_INTERNAL_ERROR_DELIVERY_EV, ARRAY_SIZE(data), data);
}

/* The gate, TSS or stack of an event in delivery is in MMIO: there is no instruction to emulate. */
int keel_delivery_failed(struct keel_vcpu *vcpu, u64 gpa, u64 info)
{
	u64 data[] = { vcpu->ev.injected.vector, vcpu->ev.injected.type, info, gpa, vcpu->cpu };

	return keel_exit_internal_error(vcpu, KVM_INTERNAL_ERROR_DELIVERY_EV, ARRAY_SIZE(data), data);
}

static void take_registers(struct keel_vcpu *vcpu)
{
	const struct emul *e = &vcpu->insn->e;

	keel_set_rflags(vcpu, e->rflags);
	keel_set_reg(vcpu, KEEL_RIP, e->rip);
	keel_set_reg(vcpu, KEEL_RSP, vcpu->regs[KEEL_RSP]);
}

int keel_emulate_event(struct keel_vcpu *vcpu)
{
	struct keel_event ev = vcpu->ev.injected;
	struct keel_insn *in = vcpu->insn;
	struct emul *e = &in->e;
	enum emul_result r = EMUL_UNHANDLEABLE;

	begin(vcpu);
	e->rip += ev.insn_len;
	if (e->mode == EMUL_MODE_REAL)
		r = emul_real_interrupt(e, ev.vector);
	switch (r) {
	case EMUL_OK:
		vcpu->ev.injected.type = KEEL_EV_NONE;
		if (ev.type == KEEL_EV_NMI)
			keel_call(set_nmi_mask, vcpu, true);
		take_registers(vcpu);
		return in->nr_writes ? keel_insn_exit_write(vcpu) : KEEL_RESUME;	/* a stack in a device */
	case EMUL_FAULT:
		keel_raise_fault(vcpu, &e->fault);	/* which finds what was being delivered: it merges, or replaces it */
		return KEEL_RESUME;
	default:
		return undeliverable(vcpu, &ev);
	}
}

void keel_task_done(struct keel_vcpu *vcpu)
{
	const struct emul *e = &vcpu->insn->e;

	keel_debug_set_dr7(vcpu, vcpu->debug.dr7 & ~DR7_LOCAL);
	if (e->shadow & EMUL_TASK_FAULT)
		keel_raise_fault(vcpu, &e->fault);
	else if (e->shadow & EMUL_TASK_TRAP)
		keel_raise_db(vcpu, BIT(15));
	else if (unlikely(vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP))
		keel_raise_db(vcpu, DR_STEP);	/* the new task has no TF of the VMM's */
}

/*
 * What came through a gate is over with the switch, and with a fault of it: an interrupt has been acknowledged, and one
 * that is tried again would find the same gate.  Exceptions merge with the fault; NMIs are blocked from their beginning.
 */
static void gate_passed(struct keel_vcpu *vcpu, const struct keel_event *ev)
{
	vcpu->ev.injected.type = KEEL_EV_NONE;
	if (ev->type == KEEL_EV_NMI)
		keel_call(set_nmi_mask, vcpu, true);
	keel_request(KEEL_REQ_EVENT, vcpu);
}

int keel_task_switch(struct keel_vcpu *vcpu, u16 selector, enum emul_switch why, u64 next_rip)
{
	const struct keel_event ev = vcpu->ev.injected;
	struct keel_insn *in = vcpu->insn;
	struct emul *e = &in->e;
	struct emul_task task = { .selector = selector, .why = why, .rip = next_rip };

	begin(vcpu);
	/*
	 * Neither task's shadow stack would be kept, nor the new one's start checked.  No lab gets here: with CR4.CET the
	 * guest of Bochs has a triple fault where the exit is to be.
	 */
	if (e->cet & EMUL_CET_FAR)
		return keel_exit_internal_error(vcpu, KVM_INTERNAL_ERROR_EMULATION, 0, NULL);
	if (why == EMUL_SWITCH_GATE) {
		task.has_error = ev.type == KEEL_EV_EXCEPTION && ev.has_error;
		task.error = ev.error;
		task.external = next_rip == e->rip;	/* else it is by an instruction, and goes on behind it */
	}
	switch (emul_task_switch(e, &task)) {
	case EMUL_OK:
		take_registers(vcpu);
		keel_call(set_shadow, vcpu, 0);
		if (e->shadow & EMUL_SHADOW_IRET)
			keel_call(set_nmi_mask, vcpu, false);
		keel_task_done(vcpu);
		gate_passed(vcpu, &ev);
		return in->nr_writes ? keel_insn_exit_write(vcpu) : KEEL_RESUME;
	case EMUL_FAULT:
		keel_raise_fault(vcpu, &e->fault);
		gate_passed(vcpu, &ev);
		return KEEL_RESUME;
	case EMUL_RETRY:
		return KEEL_RESUME;
	default:
		return undeliverable(vcpu, &ev);
	}
}
