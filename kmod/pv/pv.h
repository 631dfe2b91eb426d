/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pv.h - what a guest that knows KVM gets of it beside a clock (Documentation/virt/kvm/x86/msr.rst, hypercalls.rst):
 * pv.c, and asynchronous page faults in apf.c.  Its end of interrupt without an exit is the LAPIC's: irq/pv_eoi.c.
 */
#ifndef KEEL_PV_H
#define KEEL_PV_H

#include <linux/types.h>

struct keel_apf;
struct keel_apf_vm;

struct keel_pv {
	bool enforce;		/* the guest has no feature that its CPUID does not show */
	bool unhalted;		/* kicked: this HLT, or the next, ends at once; set by others */
	bool migration_off;	/* MSR_KVM_MIGRATION_CONTROL, the other way round */
	bool poll_off;		/* MSR_KVM_POLL_CONTROL, the other way round */
	struct keel_thread delay_of;	/* the thread run_delay is about */
	u64 run_delay;		/* what of the thread's time waiting for a CPU the guest knows of */
	u64 steal;		/* MSR_KVM_STEAL_TIME */
	u64 eoi;		/* MSR_KVM_PV_EOI_EN */
	u64 apf_en;		/* MSR_KVM_ASYNC_PF_EN, _INT */
	u8 apf_vector;
	struct keel_apf *apf;	/* NULL: not on */
	struct keel_apf *apf_kept; /* the same, also while it is off */
};

u32 keel_pv_features(void);	/* KVM_FEATURE_* bits for KVM_GET_SUPPORTED_CPUID */
bool keel_pv_has(struct keel_vcpu *vcpu, unsigned int feature);
void keel_pv_reset(struct keel_vcpu *vcpu);	/* also before the vCPU is freed */
/* Called by msr.c: 0, or 1 for #GP.  May sleep, but for MSR_KVM_POLL_CONTROL and _ASYNC_PF_ACK. */
int keel_pv_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val);
int keel_pv_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val);

/* Between two instructions, about to leave the CPU to others: the guest is told.  Fast loop safe. */
void keel_pv_preempted(struct keel_vcpu *vcpu);
void keel_pv_steal_update(struct keel_vcpu *vcpu);	/* KEEL_REQ_STEAL; may sleep */
void keel_pv_kick(struct keel_vcpu *vcpu, u32 apic_id);
void keel_pv_yield_to(struct keel_vcpu *vcpu, u32 apic_id);	/* may sleep */
void keel_pv_yield_any(struct keel_vcpu *vcpu);			/* may sleep */

/*
 * A page of the guest's would have to be waited for.  True: a thread of ours waits, and the guest has been told, to do
 * something else meanwhile.  False: it is not in a state for that.  May sleep.
 */
bool keel_apf_start(struct keel_vcpu *vcpu, u64 gfn, unsigned long hva, bool write);
void keel_apf_ready(struct keel_vcpu *vcpu);	/* KEEL_REQ_APF: tell of a page that is there; may sleep */
int keel_apf_on(struct keel_vcpu *vcpu);	/* 0 or -ENOMEM */
void keel_apf_off(struct keel_vcpu *vcpu);
void keel_apf_free(struct keel_vcpu *vcpu);
bool keel_apf_busy(struct keel_vcpu *vcpu);	/* there is a page of which the guest will be told */
bool keel_apf_wakes_all(struct keel_vcpu *vcpu);	/* it will be told that all are there */
void keel_apf_set_wakes_all(struct keel_vcpu *vcpu, bool on);
VCPU_IOCTL(keel_pv_get_state);			/* a section of the state */
VCPU_IOCTL(keel_pv_set_state);
void keel_apf_vm_free(struct keel_vm *vm);
int keel_apf_setup(void);	/* module load / unload */
void keel_apf_exit(void);

#endif
