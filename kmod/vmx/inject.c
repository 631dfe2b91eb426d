// SPDX-License-Identifier: GPL-2.0-only
/*
 * inject.c - events into the guest, and waiting until it can take one.  SDM 3C 26.6 (event injection), 24.4.2
 * (interruptibility), 27.2.4 (what was in delivery at an exit), 25.2 (windows).
 *
 * Lock: vcpu->mutex, vCPU loaded.
 */
#include "vmx.h"

static const u32 vmx_event_type[] = {
	[KEEL_EV_INTR]		= INTR_TYPE_EXT_INTR,
	[KEEL_EV_NMI]		= INTR_TYPE_NMI_INTR,
	[KEEL_EV_EXCEPTION]	= INTR_TYPE_HARD_EXCEPTION,
	[KEEL_EV_SOFT_INTR]	= INTR_TYPE_SOFT_INTR,
	[KEEL_EV_SOFT_EXC]	= INTR_TYPE_SOFT_EXCEPTION,
};

void vmx_inject(struct keel_vcpu *vcpu, const struct keel_event *ev)
{
	u32 info = ev->vector | vmx_event_type[ev->type] | INTR_INFO_VALID_MASK;

	if (ev->has_error) {
		info |= INTR_INFO_DELIVER_CODE_MASK;
		/* With more, as AMD's CPUs have it, it is refused. */
		vmcs_write(VM_ENTRY_EXCEPTION_ERROR_CODE, (u16)ev->error);
	}
	if (keel_is_soft(ev->type))
		vmcs_write(VM_ENTRY_INSTRUCTION_LEN, ev->insn_len);
	/* STI does not hold up an NMI, but an entry would refuse the two together. */
	if (ev->type == KEEL_EV_NMI)
		vmx_set_shadow(vcpu, 0);
	/* Halted, where HLT does not exit, the CPU takes interrupts and NMIs only. */
	if (unlikely(vcpu->vm->exits_off & KVM_X86_DISABLE_EXITS_HLT))
		vmcs_write(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, info);
}

void vmx_cancel_inject(struct keel_vcpu *vcpu)
{
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);
}

bool vmx_event_blocked(struct keel_vcpu *vcpu, enum keel_event_type type)
{
	u32 state = vmcs_read(GUEST_INTERRUPTIBILITY_INFO);

	if (type == KEEL_EV_NMI)
		return state & (GUEST_INTR_STATE_MOV_SS | GUEST_INTR_STATE_NMI);
	return state & (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS) || !(keel_rflags(vcpu) & X86_EFLAGS_IF);
}

void vmx_open_window(struct keel_vcpu *vcpu, enum keel_event_type type)
{
	vmx_cpu_ctl(to_vmx(vcpu), type == KEEL_EV_NMI ? CPU_BASED_NMI_WINDOW_EXITING : CPU_BASED_INTR_WINDOW_EXITING,
		    true);
}

void vmx_close_window(struct keel_vcpu *vcpu)
{
	vmx_cpu_ctl(to_vmx(vcpu), CPU_BASED_INTR_WINDOW_EXITING, false);
}

u8 vmx_get_shadow(struct keel_vcpu *vcpu)
{
	u32 state = vmcs_read(GUEST_INTERRUPTIBILITY_INFO);

	return (state & GUEST_INTR_STATE_STI ? KVM_X86_SHADOW_INT_STI : 0) |
	       (state & GUEST_INTR_STATE_MOV_SS ? KVM_X86_SHADOW_INT_MOV_SS : 0);
}

void vmx_set_shadow(struct keel_vcpu *vcpu, u8 mask)
{
	u32 old = vmcs_read(GUEST_INTERRUPTIBILITY_INFO);
	u32 state = old & ~(GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS);

	/* A step that the VMM was told of is not to come again. */
	if (unlikely(vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP))
		vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
	if (likely(!mask && state == old))
		return;
	/* One of them at a time; MOV SS blocks more. */
	if (mask & KVM_X86_SHADOW_INT_MOV_SS)
		state |= GUEST_INTR_STATE_MOV_SS;
	else if (mask & KVM_X86_SHADOW_INT_STI)
		state |= GUEST_INTR_STATE_STI;
	if (state != old)
		vmcs_write(GUEST_INTERRUPTIBILITY_INFO, state);
	if (mask)
		to_vmx(vcpu)->shadow_set = true;
}

/* Halted where HLT does not exit, with interrupts off or TF set, it would never wake, or not be entered. */
void vmx_regs_given(struct keel_vcpu *vcpu)
{
	to_vmx(vcpu)->shadow_set = true;
	if (unlikely(vcpu->vm->exits_off & KVM_X86_DISABLE_EXITS_HLT))
		vmcs_write(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
}

void vmx_set_tpr_threshold(struct keel_vcpu *vcpu, int irr_class)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u32 threshold = 0;

	/* An exit when the TPR falls below what holds the waiting interrupt back.  Above the TPR an entry is refused. */
	if (irr_class > 0 && vcpu->cr8 >= irr_class)
		threshold = irr_class;
	if (threshold != vmx->tpr_threshold) {
		vmx->tpr_threshold = threshold;
		vmcs_write(TPR_THRESHOLD, threshold);
	}
}

bool vmx_get_nmi_mask(struct keel_vcpu *vcpu)
{
	return vmcs_read(GUEST_INTERRUPTIBILITY_INFO) & GUEST_INTR_STATE_NMI;
}

void vmx_set_nmi_mask(struct keel_vcpu *vcpu, bool masked)
{
	u32 old = vmcs_read(GUEST_INTERRUPTIBILITY_INFO);
	u32 state = masked ? old | GUEST_INTR_STATE_NMI : old & ~GUEST_INTR_STATE_NMI;

	if (state != old)
		vmcs_write(GUEST_INTERRUPTIBILITY_INFO, state);
}

/* The exit interrupted the delivery of an event: it has to go in again. */
void vmx_requeue_vectoring(struct vmx_vcpu *vmx)
{
	static const u8 types[8] = {
		[INTR_TYPE_EXT_INTR >> 8]	= KEEL_EV_INTR,
		[INTR_TYPE_NMI_INTR >> 8]	= KEEL_EV_NMI,
		[INTR_TYPE_HARD_EXCEPTION >> 8]	= KEEL_EV_EXCEPTION,
		[INTR_TYPE_SOFT_INTR >> 8]	= KEEL_EV_SOFT_INTR,
		[INTR_TYPE_SOFT_EXCEPTION >> 8]	= KEEL_EV_SOFT_EXC,
		/* INT1: always exits before it is delivered, and goes in as the hardware's exception that its #DB then is. */
		[INTR_TYPE_PRIV_SW_EXCEPTION >> 8] = KEEL_EV_NONE,
	};
	struct keel_vcpu *vcpu = &vmx->vcpu;
	struct keel_event ev = {
		.type = types[(vmx->idt_info & VECTORING_INFO_TYPE_MASK) >> 8],
		.vector = vmx->idt_info & VECTORING_INFO_VECTOR_MASK,
		.has_error = vmx->idt_info & VECTORING_INFO_DELIVER_CODE_MASK,
	};

	vcpu->ev.injected.type = KEEL_EV_NONE;
	if (ev.type == KEEL_EV_NONE)
		return;
	if (ev.has_error)
		ev.error = vmcs_read(IDT_VECTORING_ERROR_CODE);
	if (ev.type == KEEL_EV_NMI)
		vmx_set_nmi_mask(vcpu, false);	/* injecting it again masks again */
	if (keel_is_soft(ev.type))
		ev.insn_len = vmcs_read(VM_EXIT_INSTRUCTION_LEN);
	keel_events_requeue(vcpu, &ev);
}
