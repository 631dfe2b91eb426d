/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hyperv.h - the interface of Microsoft's hypervisor, for guests that expect it (Hypervisor Top-Level Functional
 * Specification, TLFS): hyperv.c has CPUID, MSRs and time, hypercall.c the calls, synic.c messages, their interrupts
 * and the timers that send them.
 *
 * A vCPU has a part of its own once its CPUID says "Hv#1" or the VMM uses one of these features, and its VM has one
 * then.
 *
 * Locks: hv->lock, a mutex below slots_lock, for what the VM's vCPUs share.  A vCPU's part belongs to its thread, but
 * for sint, which senders read, and pending, which timers set.
 */
#ifndef KEEL_HYPERV_H
#define KEEL_HYPERV_H

#include <linux/types.h>

struct keel_hv;
struct keel_hv_vcpu;

#define HV_SIGNATURE	0x31237648	/* "Hv#1", in EAX of leaf 1 */

/* Of leaves 3, 4 and 0x82, in the guest's CPUID: privileges, recommendations, and what the synthetic debugger may. */
enum keel_hv_word { HV_FEAT_EAX, HV_FEAT_EBX, HV_FEAT_EDX, HV_REC_EAX, HV_REC_EBX, HV_DEBUGGER_EAX, HV_WORDS };
/* Of the debugger, which no header of the kernel's has: control, status, pages to send, to receive, pending; options. */
#define HV_X64_MSR_DEBUGGER_CONTROL	0x400000f1
#define HV_X64_MSR_DEBUGGER_OPTIONS	0x400000ff
#define HV_DEBUGGER_LEAF		0x40000080	/* this and two more: which there are, the interface, what it may */
#define HV_ALLOW_KERNEL_DEBUGGING	BIT(1)		/* EAX of the last */

int keel_hv_enable(struct keel_vcpu *vcpu);		/* 0 or -ENOMEM; the vCPU's thread */
void keel_hv_vcpu_reset(struct keel_vcpu *vcpu);
void keel_hv_vcpu_free(struct keel_vcpu *vcpu);
void keel_hv_free(struct keel_vm *vm);
/* Called by msr.c: 0, or 1 for #GP.  May sleep, but for those msr.c calls fast. */
int keel_hv_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host);
int keel_hv_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host);
SYS_IOCTL(keel_get_supported_hv_cpuid);
VCPU_IOCTL(keel_vcpu_get_supported_hv_cpuid);
VM_IOCTL(keel_hv_eventfd);				/* KVM_HYPERV_EVENTFD */
long keel_hv_enable_synic(struct keel_vcpu *vcpu, bool keep_pages);
long keel_hv_enforce_cpuid(struct keel_vcpu *vcpu, bool on);

/* For states of a VM (uapi/keel.h), which is stopped; and how a vCPU is set up for this: KEEL_SETUP_HYPERV*. */
bool keel_hv_in_use(struct keel_vm *vm);
VM_IOCTL(keel_hv_get_state);
VM_IOCTL(keel_hv_set_state);
size_t keel_hv_vcpu_state_size(const struct keel_vcpu *vcpu);
VCPU_IOCTL(keel_hv_vcpu_get_state);
VCPU_IOCTL(keel_hv_vcpu_set_state);
u32 keel_hv_setup(const struct keel_vcpu *vcpu);
long keel_hv_from_setup(struct keel_vcpu *vcpu, u32 setup);

bool keel_hv_hides_invariant_tsc(struct keel_vcpu *vcpu);	/* in CPUID, until the guest has said that it knows of it */
bool keel_hv_takes_hypercalls(struct keel_vcpu *vcpu);
int keel_hv_hypercall(struct keel_vcpu *vcpu);		/* exit handler; fast loop safe */
void keel_hv_runs(struct keel_vcpu *vcpu, bool on);	/* KVM_RUN begins, ends; where vcpu->hv */
int keel_hv_request(struct keel_vcpu *vcpu);		/* KEEL_REQ_HV: timers, exits to userspace; may sleep */
void keel_hv_clock_update(struct keel_vcpu *vcpu);	/* KEEL_REQ_CLOCK, where vm->hv; may sleep */

/* For the LAPIC, of a vCPU with such a part: */
bool keel_hv_auto_eoi(struct keel_vcpu *vcpu, u8 vector);	/* it ends when it is delivered */
bool keel_hv_is_sint(struct keel_vcpu *vcpu, u8 vector);	/* somebody wants to know when it ends */
void keel_hv_eoi(struct keel_vcpu *vcpu, u8 vector);
/* From a GSI: as irq_set_gsi().  Any context. */
int keel_hv_set_sint(struct keel_vm *vm, u32 vp_index, u32 sint);

#endif
