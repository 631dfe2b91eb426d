// SPDX-License-Identifier: GPL-2.0-only
/*
 * inject.c - events into the guest, and waiting until it can take one. APM 15.20 (event injection),
 * 15.21 (virtual interrupts), 15.7 (what was in delivery at an exit).
 *
 * This generation of SVM does not track NMI blocking.  An NMI handler ends with IRET, so IRET is
 * intercepted while NMIs are masked.  The exit comes before the IRET runs; the mask falls when a later
 * exit finds RIP elsewhere.  When another NMI is already waiting, or one waits for a MOV SS shadow to
 * end, a single step (TF) gives that later exit at once; also for an interrupt, see svm_keep_shadow().
 *
 * Lock: vcpu->mutex.
 */
#include "svm.h"

static const u32 svm_evt_type[] = {
	[KEEL_EV_INTR]		= SVM_EVTINJ_TYPE_INTR,
	[KEEL_EV_NMI]		= SVM_EVTINJ_TYPE_NMI,
	[KEEL_EV_EXCEPTION]	= SVM_EVTINJ_TYPE_EXEPT,
	[KEEL_EV_SOFT_INTR]	= SVM_EVTINJ_TYPE_SOFT,
	[KEEL_EV_SOFT_EXC]	= SVM_EVTINJ_TYPE_EXEPT,
};

void svm_inject(struct keel_vcpu *vcpu, const struct keel_event *ev)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_control_area *c = &svm->vmcb->control;

	/* INTn, INT3 and INTO push the RIP behind their instruction.  With NRIPS the CPU takes it from the field, else it pushes RIP. */
	if (keel_is_soft(ev->type)) {
		if (svm_has.nrips)
			c->next_rip = keel_reg(vcpu, KEEL_RIP) + ev->insn_len;
		else
			keel_set_reg(vcpu, KEEL_RIP, keel_reg(vcpu, KEEL_RIP) + ev->insn_len);
		svm->inject_rip = keel_reg(vcpu, KEEL_RIP);
	}
	c->event_inj = ev->vector | svm_evt_type[ev->type] | SVM_EVTINJ_VALID;
	if (ev->has_error) {
		c->event_inj |= SVM_EVTINJ_VALID_ERR;
		c->event_inj_err = ev->error;
	}
	if (ev->type == KEEL_EV_NMI)
		svm_set_nmi_mask(vcpu, true);
}

/* It was not delivered: RIP is at its instruction again. */
static void svm_uninject_rip(struct keel_vcpu *vcpu, const struct keel_event *ev)
{
	if (keel_is_soft(ev->type) && !svm_has.nrips)
		keel_set_reg(vcpu, KEEL_RIP, keel_reg(vcpu, KEEL_RIP) - ev->insn_len);
}

void svm_cancel_inject(struct keel_vcpu *vcpu)
{
	struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;

	if (c->event_inj & SVM_EVTINJ_VALID)
		svm_uninject_rip(vcpu, &vcpu->ev.injected);
	c->event_inj = 0;
}

bool svm_event_blocked(struct keel_vcpu *vcpu, enum keel_event_type type)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	bool shadow = svm_in_shadow(&svm->vmcb->control);

	if (type == KEEL_EV_NMI)
		return shadow || svm->nmi_masked;
	return shadow || !(keel_rflags(vcpu) & X86_EFLAGS_IF);
}

static void svm_single_step(struct svm_vcpu *svm)
{
	struct keel_vcpu *vcpu = &svm->vcpu;
	u64 rflags = keel_rflags(vcpu);

	if (svm->step)
		return;
	svm->step = true;
	keel_set_rflags(vcpu, rflags);	/* written back with TF while step is set */
}

void svm_open_window(struct keel_vcpu *vcpu, enum keel_event_type type)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_control_area *c = &svm->vmcb->control;

	if (type == KEEL_EV_NMI) {
		if (!svm->nmi_masked || svm->iret_started)
			svm_single_step(svm);
		return;		/* else the IRET intercept is on already */
	}
	if (svm->shadow_lost) {
		svm_close_window(vcpu);
		svm_single_step(svm);
		return;
	}
	if (svm->irq_window)
		return;
	/* A virtual interrupt of the highest class exits as soon as the guest could take a real one. */
	svm->irq_window = true;
	svm_intercept(svm, INTERCEPT_VINTR, true);
	c->int_vector = 0;
	c->int_ctl |= V_IRQ_MASK | V_IGN_TPR_MASK | V_INTR_PRIO_MASK;
	svm_touch(svm, CLEAN_INTR);
}

void svm_close_window(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (!svm->irq_window)
		return;
	svm->irq_window = false;
	svm_intercept(svm, INTERCEPT_VINTR, false);
	svm->vmcb->control.int_ctl &= ~V_IRQ_INJECTION_BITS_MASK;
	svm_touch(svm, CLEAN_INTR);
}

u8 svm_get_shadow(struct keel_vcpu *vcpu)
{
	/* The CPU has one bit for both kinds. */
	return svm_in_shadow(&to_svm(vcpu)->vmcb->control) ? KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS : 0;
}

void svm_set_shadow(struct keel_vcpu *vcpu, u8 mask)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_control_area *c = &svm->vmcb->control;

	svm->in_shadow = mask;
	svm->shadow_lost = false;
	if (mask) {
		c->int_state |= SVM_INTERRUPT_SHADOW_MASK;
		svm->shadow_rip = keel_reg(vcpu, KEEL_RIP);
	} else {
		c->int_state &= ~SVM_INTERRUPT_SHADOW_MASK;
	}
}

/*
 * At each exit.  VMRUN is to resume the shadow the last exit told of (APM 15.21.5); QEMU's emulation does not,
 * and delivers what waits before the instruction the shadow protects: a HLT behind STI then sleeps with nothing
 * to wake it.  So a shadow stays until RIP has moved on, and once it was lost a single step waits for its end, for
 * a window would open at once.  (A CPU that keeps its shadows comes here only with an instruction that jumps to
 * itself, and the step ends that too.)
 */
void svm_keep_shadow(struct svm_vcpu *svm)
{
	struct vmcb_control_area *c = &svm->vmcb->control;
	u64 rip = keel_reg(&svm->vcpu, KEEL_RIP);
	bool stepped = svm->step && svm_exit_code(c) == SVM_EXIT_EXCP_BASE + X86_TRAP_DB;

	if (svm_in_shadow(c)) {
		svm->in_shadow = true;
		svm->shadow_lost = false;
		svm->shadow_rip = rip;
	} else if (rip == svm->shadow_rip && !stepped) {
		c->int_state |= SVM_INTERRUPT_SHADOW_MASK;
		svm->shadow_lost = true;
	} else {
		svm->in_shadow = svm->shadow_lost = false;
	}
}

void svm_set_tpr_threshold(struct keel_vcpu *vcpu, int irr_class)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	/*
	 * The guest writes its TPR freely unless that could let a waiting interrupt through, or hold back the one whose
	 * window is open: that one looks at no TPR.  (QEMU's emulator aborts on a direct write beside a window.)
	 */
	svm_intercept(svm, INTERCEPT_CR8_WRITE,
		      !vcpu->apic || svm->irq_window || (irr_class >= 0 && vcpu->cr8 >= irr_class));
}

bool svm_get_nmi_mask(struct keel_vcpu *vcpu)
{
	return to_svm(vcpu)->nmi_masked;
}

void svm_set_nmi_mask(struct keel_vcpu *vcpu, bool masked)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	svm->nmi_masked = masked;
	svm->iret_started = false;
	svm_intercept(svm, INTERCEPT_IRET, masked);
}

/* IRET exit: it runs now; NMIs come back once it is done. */
void svm_iret_seen(struct svm_vcpu *svm)
{
	svm_intercept(svm, INTERCEPT_IRET, false);
	svm->iret_started = true;
	svm->iret_rip = keel_reg(&svm->vcpu, KEEL_RIP);
	keel_request(KEEL_REQ_EVENT, &svm->vcpu);
}

/* Any exit ends the step, for an event or an emulated instruction would find our TF; what still waits asks again. */
void svm_step_end(struct svm_vcpu *svm)
{
	u64 rflags = svm->vmcb->save.rflags;

	svm->step = false;
	if (!svm->step_popped)
		rflags = svm->step_tf ? rflags | X86_EFLAGS_TF : rflags & ~(u64)X86_EFLAGS_TF;
	svm->step_popped = false;
	keel_set_rflags(&svm->vcpu, rflags);
	keel_request(KEEL_REQ_EVENT, &svm->vcpu);
}

/* A #DB exit, for the reasons @dr6: was it our step?  Then the guest's flags are put right, and what is left is the guest's. */
u64 svm_step_done(struct svm_vcpu *svm, u64 dr6)
{
	if (!svm->step)
		return dr6;
	if (!svm->step_tf)
		dr6 &= ~(u64)DR_STEP;
	svm_step_end(svm);
	return dr6;
}

/*
 * Is the software interrupt in delivery the one we injected?  Or the guest has gone on since and come to its own.  (To the
 * same instruction again, just behind one that was emulated: that cannot be told.)
 */
static bool svm_injected(struct svm_vcpu *svm, const struct keel_event *ev, u8 vector, enum keel_event_type type)
{
	return ev->type == type && ev->vector == vector && keel_reg(&svm->vcpu, KEEL_RIP) == svm->inject_rip;
}

/* What was in delivery. */
enum keel_event_type svm_vectoring_type(u32 info)
{
	u8 vector = info & SVM_EXITINTINFO_VEC_MASK;

	switch (info & SVM_EXITINTINFO_TYPE_MASK) {
	case SVM_EXITINTINFO_TYPE_INTR:
		return KEEL_EV_INTR;
	case SVM_EXITINTINFO_TYPE_NMI:
		return KEEL_EV_NMI;
	case SVM_EXITINTINFO_TYPE_EXEPT:
		return vector == X86_TRAP_BP || vector == X86_TRAP_OF ? KEEL_EV_SOFT_EXC : KEEL_EV_EXCEPTION;
	case SVM_EXITINTINFO_TYPE_SOFT:
		return KEEL_EV_SOFT_INTR;
	default:
		return KEEL_EV_NONE;
	}
}

/*
 * The exit interrupted the delivery of an event: it has to go in again, unless its instruction will, which those of
 * the guest's own INTn, INT3 and INTO do: RIP is still at them.
 */
void svm_requeue_vectoring(struct svm_vcpu *svm)
{
	const struct vmcb_control_area *c = &svm->vmcb->control;
	struct keel_vcpu *vcpu = &svm->vcpu;
	struct keel_event prev = vcpu->ev.injected;
	struct keel_event ev = {
		.type = svm_vectoring_type(c->exit_int_info),
		.vector = c->exit_int_info & SVM_EXITINTINFO_VEC_MASK,
		.has_error = c->exit_int_info & SVM_EXITINTINFO_VALID_ERR,
		.error = c->exit_int_info_err,
	};

	vcpu->ev.injected.type = KEEL_EV_NONE;
	if (ev.type == KEEL_EV_NONE)
		return;
	if (ev.type == KEEL_EV_NMI)
		svm_set_nmi_mask(vcpu, false);	/* injecting it again masks again */
	if (keel_is_soft(ev.type)) {
		if (!svm_injected(svm, &prev, ev.vector, ev.type))
			return;
		ev = prev;
		svm_uninject_rip(vcpu, &ev);
	}
	keel_events_requeue(vcpu, &ev);
}
