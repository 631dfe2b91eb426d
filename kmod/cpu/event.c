// SPDX-License-Identifier: GPL-2.0-only
/*
 * event.c - exceptions, NMIs and interrupts on their way into the guest: queue, priority, merging of
 * faults into #DF and shutdown.  Vendor-neutral: a backend is handed one event and told nothing else.
 * SDM 3A 6.7 (NMI), 6.9 (priority), table 6-5 (double faults); APM 8.5, 8.2.9.
 *
 * Lock: vcpu->mutex, but for nmi_queued, which any context increments.
 */
#include <asm/trapnr.h>

#include "ops.h"
#include "trace.h"

enum exc_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum exc_class exc_class(u8 vector)
{
	switch (vector) {
	case X86_TRAP_PF:
		return PAGE_FAULT;
	case X86_TRAP_DE: case X86_TRAP_TS: case X86_TRAP_NP: case X86_TRAP_SS: case X86_TRAP_GP: case X86_TRAP_CP:
		return CONTRIBUTORY;
	default:
		return BENIGN;
	}
}

/*
 * A second exception while the first is being delivered.  Two contributory ones, or one of them or a page
 * fault after a page fault, are a double fault; one after a double fault ends it all; else the second is
 * delivered and the first happens again by itself.
 */
static void exception_merge(struct keel_vcpu *vcpu, struct keel_event *first, const struct keel_event *second)
{
	enum exc_class c1 = exc_class(first->vector), c2 = exc_class(second->vector);

	if (first->vector == X86_TRAP_DF) {
		if (c2 == BENIGN) {
			*first = *second;
			return;
		}
		first->type = KEEL_EV_NONE;
		keel_request(KEEL_REQ_TRIPLE_FAULT, vcpu);
	} else if ((c1 == CONTRIBUTORY && c2 == CONTRIBUTORY) || (c1 == PAGE_FAULT && c2 != BENIGN)) {
		*first = (struct keel_event){ .type = KEEL_EV_EXCEPTION, .vector = X86_TRAP_DF, .has_error = true };
	} else {
		*first = *second;
	}
}

static void exception_raise(struct keel_vcpu *vcpu, const struct keel_event *ev)
{
	struct keel_events *q = &vcpu->ev;
	bool of_exception = q->injected.type == KEEL_EV_EXCEPTION || q->injected.type == KEEL_EV_SOFT_EXC;

	keel_request(KEEL_REQ_EVENT, vcpu);
	/*
	 * A fault of the delivery of another event, which comes instead: INTn is at RIP again; an interrupt has been acknowledged
	 * and is lost; NMIs are blocked from their beginning.  Traps and machine checks, which anybody may raise, wait.
	 */
	if (q->injected.type && !of_exception && ev->vector != X86_TRAP_DB && ev->vector != X86_TRAP_MC) {
		if (q->injected.type == KEEL_EV_NMI)
			keel_call(set_nmi_mask, vcpu, true);
		q->injected.type = KEEL_EV_NONE;
	}
	if (q->exception.type) {
		exception_merge(vcpu, &q->exception, ev);
		return;
	}
	q->exception = *ev;
	if (of_exception) {
		struct keel_event merged = q->injected;

		q->injected.type = KEEL_EV_NONE;
		exception_merge(vcpu, &merged, ev);
		q->exception = merged;
	}
}

void keel_raise(struct keel_vcpu *vcpu, u8 vector)
{
	exception_raise(vcpu, &(struct keel_event){ .type = KEEL_EV_EXCEPTION, .vector = vector });
}

void keel_raise_error(struct keel_vcpu *vcpu, u8 vector, u32 error)
{
	exception_raise(vcpu, &(struct keel_event){ .type = KEEL_EV_EXCEPTION, .vector = vector,
						     .has_error = true, .error = error });
}

void keel_raise_pf(struct keel_vcpu *vcpu, u64 addr, u32 error)
{
	exception_raise(vcpu, &(struct keel_event){ .type = KEEL_EV_EXCEPTION, .vector = X86_TRAP_PF,
						     .has_error = true, .error = error,
						     .has_payload = true, .payload = addr });
}

void keel_raise_db(struct keel_vcpu *vcpu, u64 dr6_bits)
{
	if (unlikely(vcpu->debug.control) && keel_debug_takes(vcpu, X86_TRAP_DB, dr6_bits))
		return;
	exception_raise(vcpu, &(struct keel_event){ .type = KEEL_EV_EXCEPTION, .vector = X86_TRAP_DB,
						     .has_payload = true, .payload = dr6_bits });
}

void keel_raise_bp(struct keel_vcpu *vcpu)
{
	vcpu->ev.injected = (struct keel_event){ .type = KEEL_EV_SOFT_EXC, .vector = X86_TRAP_BP, .insn_len = 1 };
	keel_request(KEEL_REQ_EVENT, vcpu);
}

void keel_raise_fault(struct keel_vcpu *vcpu, const struct emul_fault *f)
{
	if (f->vector == X86_TRAP_PF)
		keel_raise_pf(vcpu, f->cr2, f->error);
	else if (f->has_error)
		keel_raise_error(vcpu, f->vector, f->error);
	else
		keel_raise(vcpu, f->vector);
}

void keel_queue_nmi(struct keel_vcpu *vcpu)
{
	atomic_inc(&vcpu->ev.nmi_queued);
	keel_request(KEEL_REQ_EVENT, vcpu);
	keel_vcpu_kick(vcpu);
}

void keel_events_requeue(struct keel_vcpu *vcpu, const struct keel_event *ev)
{
	vcpu->ev.injected = *ev;
	vcpu->ev.injected.has_payload = false;	/* it was written when the event was first injected */
	keel_request(KEEL_REQ_EVENT, vcpu);
}

/* The CPU holds one NMI while another is handled; more are lost. */
static void nmis_collect(struct keel_vcpu *vcpu)
{
	struct keel_events *q = &vcpu->ev;
	unsigned int limit;

	if (likely(!atomic_read(&q->nmi_queued)))
		return;
	limit = keel_call(get_nmi_mask, vcpu) || q->injected.type == KEEL_EV_NMI ? 1 : 2;
	q->nmi_pending = min(q->nmi_pending + atomic_xchg(&q->nmi_queued, 0), limit);
}

/* What comes with an exception is written when it is certain to be delivered, not before. */
static void payload_write(struct keel_vcpu *vcpu, struct keel_event *ev)
{
	if (!ev->has_payload)
		return;
	ev->has_payload = false;
	if (ev->vector == X86_TRAP_PF) {
		vcpu->cr2 = ev->payload;
	} else if (ev->vector == X86_TRAP_DB) {
		u64 dr6 = keel_call(get_dr6, vcpu);

		/* B0-B3 tell of this one only; BS, BT, BD stay until the guest clears them. */
		dr6 &= ~(u64)DR_TRAP_BITS;
		dr6 |= DR6_RESERVED | ev->payload;
		/* These are told by their being clear. */
		keel_call(set_dr6, vcpu, dr6 & ~(ev->payload & (DR_BUS_LOCK | DR_RTM)));
		keel_debug_set_dr7(vcpu, vcpu->debug.dr7 & ~(u64)DR7_GD);
	}
}

/* A VMM that does not know payloads finds them where they end up: in registers it may read before the events. */
void keel_events_settle(struct keel_vcpu *vcpu)
{
	if (unlikely(vcpu->ev.exception.type) && !(vcpu->vm->event_flags & KVM_VCPUEVENT_VALID_PAYLOAD))
		payload_write(vcpu, &vcpu->ev.exception);
}

static void exception_inject(struct keel_vcpu *vcpu)
{
	struct keel_events *q = &vcpu->ev;
	struct keel_event *ev = &q->exception;

	payload_write(vcpu, ev);
	/* Faults restart the instruction, with RF so that its breakpoint does not hit again. */
	if (ev->vector != X86_TRAP_DB && ev->vector != X86_TRAP_BP && ev->vector != X86_TRAP_OF &&
	    ev->vector != X86_TRAP_DF && ev->vector != X86_TRAP_MC)
		keel_set_rflags(vcpu, keel_rflags(vcpu) | X86_EFLAGS_RF);
	q->injected = *ev;
	ev->type = KEEL_EV_NONE;
	vcpu->stat.injected_exceptions++;
}

static int next_irq(struct keel_vcpu *vcpu)
{
	return vcpu->apic ? irq_pending(vcpu) : vcpu->ev.user_vector;
}

static int take_irq(struct keel_vcpu *vcpu)
{
	int vector;

	if (vcpu->apic)
		return irq_ack(vcpu);
	vector = vcpu->ev.user_vector;
	vcpu->ev.user_vector = -1;
	return vector;
}

void keel_events_deliver(struct keel_vcpu *vcpu)
{
	struct keel_events *q = &vcpu->ev;
	bool irq = next_irq(vcpu) >= 0;

	nmis_collect(vcpu);
	/* An SMI goes before all but what is in delivery or raised already, and needs the slow loop. */
	if (unlikely(vcpu->smi_pending) && keel_smi_due(vcpu) && !q->injected.type && !q->exception.type) {
		keel_request(KEEL_REQ_SMI, vcpu);
		return;
	}
	if (q->injected.type) {
		/* in delivery before: it goes first */
	} else if (q->exception.type) {
		exception_inject(vcpu);
	} else if (unlikely(vcpu->debug.control & KVM_GUESTDBG_BLOCKIRQ)) {
		return;		/* they wait until the VMM changes that, which looks here again */
	} else if (q->nmi_pending && !keel_call(event_blocked, vcpu, KEEL_EV_NMI)) {
		q->nmi_pending--;
		q->injected = (struct keel_event){ .type = KEEL_EV_NMI, .vector = X86_TRAP_NMI };
		vcpu->stat.injected_nmis++;
	} else if (irq && !keel_call(event_blocked, vcpu, KEEL_EV_INTR)) {
		int vector = take_irq(vcpu);

		if (vector >= 0) {
			q->injected = (struct keel_event){ .type = KEEL_EV_INTR, .vector = vector };
			vcpu->stat.injected_irqs++;
		}
		irq = next_irq(vcpu) >= 0;
	}
	if (q->injected.type) {
		/* Real mode has no error codes, though a VMM may have set one. */
		if (unlikely(q->injected.has_error) && !keel_is_protected(vcpu))
			q->injected.has_error = false;
		trace_keel_inject(vcpu, &q->injected);
		keel_call(inject, vcpu, &q->injected);
	}

	/* What still waits gets a window; the one for interrupts also serves a VMM that asked for it. */
	q->again = q->injected.type &&
		   (q->exception.type || (q->nmi_pending && !keel_call(get_nmi_mask, vcpu)) ||
		    (unlikely(vcpu->smi_pending) && keel_smi_due(vcpu)));
	if (q->nmi_pending && !q->again)
		keel_call(open_window, vcpu, KEEL_EV_NMI);
	if (irq || (vcpu->run->request_interrupt_window && vcpu->vm->irq.mode != IRQCHIP_KERNEL &&
		    irq_extint_accepted(vcpu)))
		keel_call(open_window, vcpu, KEEL_EV_INTR);
	else
		keel_call(close_window, vcpu);
	keel_call(set_tpr_threshold, vcpu, vcpu->apic ? irq_pending_class(vcpu) : -1);
}

bool keel_events_pending(struct keel_vcpu *vcpu)
{
	struct keel_events *q = &vcpu->ev;

	if (q->exception.type || q->injected.type)
		return true;
	if ((q->nmi_pending || atomic_read(&q->nmi_queued)) && !keel_call(get_nmi_mask, vcpu))
		return true;
	return (keel_rflags(vcpu) & X86_EFLAGS_IF) && (vcpu->apic ? irq_wakes(vcpu) : vcpu->ev.user_vector >= 0);
}

bool keel_irq_window_open(struct keel_vcpu *vcpu)
{
	return !vcpu->ev.injected.type && !vcpu->ev.exception.type &&
	       !keel_call(event_blocked, vcpu, KEEL_EV_INTR);
}

int keel_irq_window_exit(struct keel_vcpu *vcpu)
{
	keel_call(close_window, vcpu);
	vcpu->stat.irq_windows++;
	keel_request(KEEL_REQ_EVENT, vcpu);
	/* A VMM that waits for it is told by the slow loop; the fast one would only open the window again. */
	return READ_ONCE(vcpu->run->request_interrupt_window) && vcpu->vm->irq.mode != IRQCHIP_KERNEL ?
		KEEL_SLOW : KEEL_RESUME;
}

/* ------------------------------------------------------------------ ioctls */

VCPU_IOCTL(keel_ioctl_interrupt)
{
	struct kvm_interrupt *i = buf;

	if (i->irq > 255)
		return -EINVAL;
	if (vcpu->vm->irq.mode == IRQCHIP_KERNEL)
		return -ENXIO;
	if (vcpu->ev.user_vector >= 0 || (!vcpu->apic && vcpu->ev.injected.type == KEEL_EV_INTR))
		return -EEXIST;
	vcpu->ev.user_vector = i->irq;
	keel_request(KEEL_REQ_EVENT, vcpu);
	return 0;
}

/*
 * Without an in-kernel LAPIC one interrupt at most is on its way, in one of two places.  What was in delivery waits for its
 * turn again where one that was never begun does, so it need not be told which it is.
 */
static void set_user_irq(struct keel_vcpu *vcpu, int vector)
{
	struct keel_events *q = &vcpu->ev;

	if (!vcpu->apic) {
		q->user_vector = vector;
		if (q->injected.type == KEEL_EV_INTR)
			q->injected.type = KEEL_EV_NONE;
	} else if (vector >= 0 && (!q->injected.type || q->injected.type == KEEL_EV_INTR)) {
		q->injected = (struct keel_event){ .type = KEEL_EV_INTR, .vector = vector };
	}
}

void keel_set_user_irq(struct keel_vcpu *vcpu, int vector)
{
	set_user_irq(vcpu, vector);
	keel_request(KEEL_REQ_EVENT, vcpu);
}

VCPU_IOCTL(keel_ioctl_nmi)
{
	keel_queue_nmi(vcpu);
	return 0;
}

static noinline void events_get_exception(struct keel_vcpu *vcpu, struct kvm_vcpu_events *e, struct keel_event *exc)
{
	bool payload_cap = vcpu->vm->event_flags & KVM_VCPUEVENT_VALID_PAYLOAD;
	bool in_delivery = exc == &vcpu->ev.injected;

	if (exc->type != KEEL_EV_EXCEPTION)
		return;
	e->exception.injected = in_delivery || !payload_cap;
	e->exception.pending = !in_delivery && payload_cap;
	e->exception.nr = exc->vector;
	e->exception.has_error_code = exc->has_error;
	e->exception.error_code = exc->error;
	e->exception_has_payload = exc->has_payload;
	e->exception_payload = exc->payload;
}

/*
 * Software interrupts and exceptions are not told of, for the VMM could not give their length back: RIP is at the
 * instruction, which is executed again.
 */
VCPU_IOCTL(keel_get_events)
{
	struct kvm_vcpu_events *e = buf;
	struct keel_events *q = &vcpu->ev;
	unsigned int i;

	nmis_collect(vcpu);
	keel_events_settle(vcpu);
	/* What memset() is at this size, a string instruction, takes longer to begin. */
#pragma GCC unroll 8
	for (i = 0; i < sizeof(*e) / sizeof(u64); i++)
		((u64 *)buf)[i] = 0;
	if (q->injected.type == KEEL_EV_EXCEPTION)
		events_get_exception(vcpu, e, &q->injected);
	else if (q->exception.type)
		events_get_exception(vcpu, e, &q->exception);
	if (q->injected.type == KEEL_EV_INTR) {
		e->interrupt.injected = 1;
		e->interrupt.nr = q->injected.vector;
	} else if (!vcpu->apic && q->user_vector >= 0) {
		e->interrupt.injected = 1;
		e->interrupt.nr = q->user_vector;
	}
	e->interrupt.shadow = keel_call(get_shadow, vcpu);
	e->nmi.injected = q->injected.type == KEEL_EV_NMI;
	e->nmi.pending = q->nmi_pending;
	e->nmi.masked = keel_call(get_nmi_mask, vcpu);
	e->sipi_vector = vcpu->sipi_vector;
	e->smi.smm = vcpu->smm;
	e->smi.pending = READ_ONCE(vcpu->smi_pending);
	e->smi.smm_inside_nmi = vcpu->smm_in_nmi;
	e->smi.latched_init = vcpu->apic && test_bit(KEEL_MP_INIT, &vcpu->mp_events);
	e->flags = vcpu->vm->event_flags & ~KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		e->triple_fault.pending = test_bit(KEEL_REQ_TRIPLE_FAULT, &vcpu->requests);
	return 0;
}

static void events_set_smi(struct keel_vcpu *vcpu, const struct kvm_vcpu_events *e)
{
	keel_smm_change(vcpu, e->smi.smm);
	vcpu->smm_in_nmi = e->smi.smm && e->smi.smm_inside_nmi;
	WRITE_ONCE(vcpu->smi_pending, e->smi.pending);
	if (e->smi.pending)
		keel_request(KEEL_REQ_SMI, vcpu);
	if (!vcpu->apic)
		return;
	if (e->smi.latched_init) {
		set_bit(KEEL_MP_INIT, &vcpu->mp_events);
		keel_request(KEEL_REQ_MP_EVENT, vcpu);
	} else {
		clear_bit(KEEL_MP_INIT, &vcpu->mp_events);
	}
}

VCPU_IOCTL(keel_set_events)
{
	const struct kvm_vcpu_events *e = buf;
	struct keel_events *q = &vcpu->ev;
	bool payload = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD;
	bool pending = payload && e->exception.pending;
	bool injected = e->exception.injected;

	if (e->flags & ~vcpu->vm->event_flags)
		return -EINVAL;
	if ((injected || pending) && (e->exception.nr > 31 || e->exception.nr == X86_TRAP_NMI))
		return -EINVAL;
	/* INIT waits for the end of system management mode. */
	if ((e->flags & KVM_VCPUEVENT_VALID_SMM) && (e->smi.smm || e->smi.pending) &&
	    vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return -EINVAL;

	q->exception.type = q->injected.type = KEEL_EV_NONE;
	if (injected || pending) {
		struct keel_event ev = {
			.type = KEEL_EV_EXCEPTION, .vector = e->exception.nr,
			.has_error = e->exception.has_error_code, .error = e->exception.error_code,
		};

		/* As KVM has it: of INT3 or INTO at RIP, so what is pushed is behind that. */
		if (ev.vector == X86_TRAP_BP || ev.vector == X86_TRAP_OF) {
			ev.type = KEEL_EV_SOFT_EXC;
			ev.insn_len = 1;
		}
		if (pending) {
			ev.has_payload = e->exception_has_payload;
			ev.payload = e->exception_payload;
			q->exception = ev;
		} else {
			q->injected = ev;
		}
	}
	if (e->interrupt.injected && e->interrupt.soft && !injected)
		q->injected = (struct keel_event){
			.type = KEEL_EV_SOFT_INTR, .vector = e->interrupt.nr, .insn_len = 2 };
	else
		set_user_irq(vcpu, e->interrupt.injected && !e->interrupt.soft ? e->interrupt.nr : -1);
	if (e->flags & KVM_VCPUEVENT_VALID_SHADOW)
		keel_call(set_shadow, vcpu, e->interrupt.shadow);
	keel_call(regs_given, vcpu);
	if (e->nmi.injected && !q->injected.type)
		q->injected = (struct keel_event){ .type = KEEL_EV_NMI, .vector = X86_TRAP_NMI };
	if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
		q->nmi_pending = min_t(unsigned int, e->nmi.pending, 2);
		atomic_set(&q->nmi_queued, 0);
	}
	keel_call(set_nmi_mask, vcpu, e->nmi.masked);
	if (e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR)
		vcpu->sipi_vector = e->sipi_vector;
	if (e->flags & KVM_VCPUEVENT_VALID_SMM)
		events_set_smi(vcpu, e);
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) {
		if (e->triple_fault.pending)
			keel_request(KEEL_REQ_TRIPLE_FAULT, vcpu);
		else
			clear_bit(KEEL_REQ_TRIPLE_FAULT, &vcpu->requests);
	}
	keel_request(KEEL_REQ_EVENT, vcpu);
	return 0;
}

/* ------------------------------------------------------------------ the state (snap/state.c) */

static void event_to_state(struct keel_state_event *s, const struct keel_event *ev)
{
	if (ev->type == KEEL_EV_NONE)		/* what is left of one that is over is nothing */
		return;
	s->type = ev->type;
	s->vector = ev->vector;
	s->insn_len = ev->insn_len;
	s->has_error = ev->has_error;
	s->error = ev->error;
	s->has_payload = ev->has_payload;
	s->payload = ev->payload;
}

static bool state_event_valid(const struct keel_state_event *s, bool raised)
{
	bool exception = s->type == KEEL_EV_EXCEPTION || s->type == KEEL_EV_SOFT_EXC;

	if (s->type > KEEL_EV_SOFT_EXC || s->has_error > 1 || s->has_payload > 1 || s->insn_len > 15)
		return false;
	if (s->type == KEEL_EV_NMI && s->vector != X86_TRAP_NMI)
		return false;
	if (exception && (s->vector > 31 || s->vector == X86_TRAP_NMI))
		return false;
	return s->type == KEEL_EV_NONE || exception || !raised;
}

static void event_from_state(struct keel_event *ev, const struct keel_state_event *s)
{
	*ev = (struct keel_event){
		.type = s->type, .vector = s->vector, .insn_len = s->insn_len, .has_error = s->has_error,
		.error = s->error, .has_payload = s->has_payload, .payload = s->payload,
	};
}

#define PENDING(b, r)	{ KEEL_PENDING_##b, KEEL_REQ_##r }
static const struct { u8 bit, req; } pending_exits[] = {
	PENDING(SHUTDOWN, TRIPLE_FAULT), PENDING(DEBUG, DEBUG), PENDING(EOI, IOAPIC_EOI),
};

static u16 traps_known(void)
{
	return keel_offers(X86_FEATURE_BUS_LOCK_DETECT) ? KEEL_TRAPS : KEEL_TRAPS & ~(u16)DR_BUS_LOCK;
}

VCPU_IOCTL(keel_events_get_state)
{
	struct keel_state_events *s = buf;
	struct keel_events *q = &vcpu->ev;
	unsigned int i;
	u64 traps;

	nmis_collect(vcpu);
	event_to_state(&s->exception, &q->exception);
	event_to_state(&s->injected, &q->injected);
	s->mp_state = vcpu->mp_state;
	s->mp_events = READ_ONCE(vcpu->mp_events);
	s->user_vector = q->user_vector;
	s->nmi_pending = q->nmi_pending;
	s->nmi_masked = keel_call(get_nmi_mask, vcpu);
	s->shadow = keel_call(get_shadow, vcpu);
	if (!keel_call(get_msr, vcpu, KEEL_MSR_TRAPS, &traps))
		s->traps = traps & traps_known();
	s->smm = vcpu->smm;
	s->smm_in_nmi = vcpu->smm_in_nmi;
	s->smi_pending = READ_ONCE(vcpu->smi_pending);
	s->sipi_vector = vcpu->sipi_vector;
	for (i = 0; i < ARRAY_SIZE(pending_exits); i++)
		if (test_bit(pending_exits[i].req, &vcpu->requests))
			s->pending |= pending_exits[i].bit;
	if (s->pending & KEEL_PENDING_DEBUG) {
		s->debug_vector = vcpu->debug.exit_vector;
		s->debug_dr6 = vcpu->debug.exit_dr6;
	}
	return 0;
}

static bool state_events_valid(struct keel_vcpu *vcpu, const struct keel_state_events *s)
{
	const u8 flags = s->nmi_masked | s->smm | s->smm_in_nmi | s->smi_pending;
	u64 traps;

	if (!state_event_valid(&s->exception, true) || !state_event_valid(&s->injected, false))
		return false;
	if (s->user_vector < -1 || s->user_vector > 255 || s->nmi_pending > 2 || flags > 1 ||
	    s->reserved || s->shadow & ~(KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS) || s->mp_events & ~3U)
		return false;
	if (s->traps && (s->traps & ~traps_known() || keel_call(get_msr, vcpu, KEEL_MSR_TRAPS, &traps)))
		return false;
	if (s->pending & ~(KEEL_PENDING_SHUTDOWN | KEEL_PENDING_DEBUG | (vcpu->apic ? KEEL_PENDING_EOI : 0)))
		return false;
	if (s->mp_state == KVM_MP_STATE_RUNNABLE && !s->mp_events)
		return true;
	return vcpu->apic && (s->mp_state == KVM_MP_STATE_RUNNABLE || s->mp_state == KVM_MP_STATE_UNINITIALIZED ||
			      s->mp_state == KVM_MP_STATE_INIT_RECEIVED || s->mp_state == KVM_MP_STATE_HALTED);
}

VCPU_IOCTL(keel_events_set_state)
{
	const struct keel_state_events *s = buf;
	struct keel_events *q = &vcpu->ev;
	unsigned int i;

	if (!state_events_valid(vcpu, s))
		return -EINVAL;
	if (vcpu->smm != s->smm)
		keel_smm_set(vcpu, s->smm);
	vcpu->smm_in_nmi = s->smm_in_nmi;
	WRITE_ONCE(vcpu->smi_pending, s->smi_pending);
	event_from_state(&q->exception, &s->exception);
	event_from_state(&q->injected, &s->injected);
	q->nmi_pending = s->nmi_pending;
	atomic_set(&q->nmi_queued, 0);
	q->again = false;
	q->user_vector = s->user_vector;
	keel_call(set_nmi_mask, vcpu, s->nmi_masked);
	keel_call(set_shadow, vcpu, s->shadow);
	(void)keel_call(set_msr, vcpu, KEEL_MSR_TRAPS, s->traps);
	vcpu->mp_state = s->mp_state;
	xchg(&vcpu->mp_events, s->mp_events);	/* which others set bits of */
	vcpu->sipi_vector = s->sipi_vector;
	vcpu->debug.exit_vector = s->debug_vector;
	vcpu->debug.exit_dr6 = s->debug_dr6;
	for (i = 0; i < ARRAY_SIZE(pending_exits); i++) {
		if (s->pending & pending_exits[i].bit)
			keel_request(pending_exits[i].req, vcpu);
		else
			clear_bit(pending_exits[i].req, &vcpu->requests);
	}
	if (s->mp_events)
		keel_request(KEEL_REQ_MP_EVENT, vcpu);
	if (s->smi_pending)
		keel_request(KEEL_REQ_SMI, vcpu);
	keel_request(KEEL_REQ_EVENT, vcpu);
	return 0;
}
