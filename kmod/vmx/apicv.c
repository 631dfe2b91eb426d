// SPDX-License-Identifier: GPL-2.0-only
/*
 * apicv.c - the CPU runs the LAPIC (irq/apicv.c): SDM 3C 29.1-29.5 (virtual-APIC page, x2APIC mode, virtual-interrupt
 * delivery), 24.4.2 (guest interrupt status), 24.6.8 (EOI-exit bitmap).
 *
 * Lock: vcpu->mutex, vCPU loaded.
 */
#include "vmx.h"

static void vmx_apicv_run(struct keel_vcpu *vcpu, bool on)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	if (vmx->apicv_on == on)
		return;
	vmx->apicv_on = on;
	vmx_write_cpu2(vmx);
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
