// SPDX-License-Identifier: GPL-2.0-only
/*
 * apicv.c - the CPU runs the LAPIC (irq/apicv.c): SDM 3C 29.1-29.5 (virtual-APIC page, x2APIC mode, virtual-interrupt
 * delivery), 24.4.2 (guest interrupt status), 24.6.8 (EOI-exit bitmap), 29.6 (posted interrupts).
 *
 * Posted interrupts: while a guest runs, an interrupt of its CPU with one certain vector is none for the host.  The CPU
 * takes what is in the LAPIC's inbox and goes on.  There are no vectors for modules; the one used is the kernel's for
 * kvm.ko.  Beside that either's may meet the other's guest, which finds nothing in its inbox.  If it comes when no guest runs, the kernel's handler counts it (as "PIN" in
 * /proc/interrupts); its sender had set ON before it looked whether one does, and each entry looks at ON.
 *
 * A CPU that is to do so has to take all interrupts that end the guest off the interrupt controller as well
 * ("acknowledge interrupt on exit"): those are handed on by INT.
 *
 * Lock: vcpu->mutex, vCPU loaded; vmx_notify() is called by anyone.
 */
#include <asm/apic.h>
#include <asm/nospec-branch.h>
#include "vmx.h"

/* With the guest's LAPIC off or the CPU's help taken away it is an ordinary vCPU, reached by kicks. */
static void vmx_post(struct vmx_vcpu *vmx, bool on)
{
	WRITE_ONCE(vmx->posting, on);
	vmcs_write(PIN_BASED_VM_EXEC_CONTROL, vmx_has.pin_ctl | (on ? PIN_BASED_POSTED_INTR : 0));
	vmx_exit_ctl(vmx, VM_EXIT_ACK_INTR_ON_EXIT, on);
	if (on)
		vmx->before_entry |= VMX_NOTIFY;
	else
		vmx->before_entry &= ~VMX_NOTIFY;
}

static void vmx_apicv_run(struct keel_vcpu *vcpu, bool on)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	if (vmx->apicv_on == on)
		return;
	vmx->apicv_on = on;
	vmx_write_cpu2(vmx);
	if (vmx_has.posted)
		vmx_post(vmx, on);
	vmx_update_intercepts(vcpu);
	vmx_set_tpr_threshold(vcpu, -1);
}

/* Low byte: the highest vector requested; high byte: in service.  No vector is 0. */
static void vmx_write_status(unsigned int shift, int vector)
{
	u16 old = vmcs_read(GUEST_INTR_STATUS);
	u16 new = (old & ~(0xff << shift)) | max(vector, 0) << shift;

	if (new != old)
		vmcs_write(GUEST_INTR_STATUS, new);
}

static void vmx_set_requested(struct keel_vcpu *vcpu, int vector)
{
	vmx_write_status(0, vector);
}

static void vmx_set_in_service(struct keel_vcpu *vcpu, int vector)
{
	vmx_write_status(8, vector);
}

static void vmx_set_watched(struct keel_vcpu *vcpu, const unsigned long vectors[])
{
	vmcs_write(EOI_EXIT_BITMAP0, vectors[0]);
	vmcs_write(EOI_EXIT_BITMAP1, vectors[1]);
	vmcs_write(EOI_EXIT_BITMAP2, vectors[2]);
	vmcs_write(EOI_EXIT_BITMAP3, vectors[3]);
}

const struct keel_lapic_hw vmx_lapic_hw = {
	.run		= vmx_apicv_run,
	.set_requested	= vmx_set_requested,
	.set_in_service	= vmx_set_in_service,
	.set_watched	= vmx_set_watched,
};

void vmx_posted_init(struct vmx_vcpu *vmx)
{
	vmx->inbox = irq_lapic_inbox(&vmx->vcpu);
	if (!vmx_has.posted || !vmx->inbox)
		return;
	vmcs_write(POSTED_INTR_NV, KEEL_POSTED_VECTOR);
	vmcs_write(POSTED_INTR_DESC_ADDR, __pa(vmx->inbox));
}

/* Setting ON was a full barrier; mode is read first: in the guest it is in now, the other has its value of now. */
void vmx_notify(struct keel_vcpu *vcpu)
{
	int me, cpu;

	if (READ_ONCE(vcpu->mode) != KEEL_IN_GUEST || !READ_ONCE(to_vmx(vcpu)->posting)) {
		keel_vcpu_notify(vcpu);
		return;
	}
	me = get_cpu();
	cpu = READ_ONCE(vcpu->cpu);
	if (cpu >= 0 && cpu != me && cpu_online(cpu))
		apic->send_IPI(cpu, KEEL_POSTED_VECTOR);
	put_cpu();
}

/* IRQs off, and the mode is IN_GUEST.  What was said too early is said again, and waits until the guest is there. */
void vmx_notify_again(struct vmx_vcpu *vmx)
{
	if (READ_ONCE(vmx->inbox->control) & BIT(INBOX_ON))
		apic->send_IPI_self(KEEL_POSTED_VECTOR);
}

void vmx_take_irq(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	void *code;
	u32 info;

	if (vmx->reason != EXIT_REASON_EXTERNAL_INTERRUPT || !vmx->posting)
		return;
	info = vmcs_read(VM_EXIT_INTR_INFO);
	if (!(info & INTR_INFO_VALID_MASK) || WARN_ON_ONCE((info & INTR_INFO_VECTOR_MASK) < FIRST_EXTERNAL_VECTOR))
		return;
	code = vmx_int + ((info & INTR_INFO_VECTOR_MASK) - FIRST_EXTERNAL_VECTOR) * VMX_INT_SIZE;
	asm volatile(CALL_NOSPEC : ASM_CALL_CONSTRAINT : THUNK_TARGET(code) : "memory");
}

/* Both exits come after the instruction. */
int vmx_eoi_exit(struct keel_vcpu *vcpu)
{
	irq_apicv_ended(vcpu, vmcs_read(EXIT_QUALIFICATION));
	return KEEL_RESUME;
}

int vmx_apic_write_exit(struct keel_vcpu *vcpu)
{
	irq_apicv_written(vcpu, vmcs_read(EXIT_QUALIFICATION) & 0xff0);
	return KEEL_RESUME;
}
