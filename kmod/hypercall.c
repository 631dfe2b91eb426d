// SPDX-License-Identifier: GPL-2.0-only
/*
 * hypercall.c - VMCALL/VMMCALL with KVM's calling convention (Documentation/virt/kvm/x86/hypercalls.rst):
 * number in RAX, answer in RAX.
 *
 * Locks: none; the vCPU's own thread, fast loop included.
 */
#include <uapi/linux/kvm_para.h>
#include "ops.h"
#include "trace.h"

int keel_emulate_hypercall(struct keel_vcpu *vcpu)
{
	bool is64 = keel_is_64bit(vcpu);
	u64 nr = vcpu->regs[KEEL_RAX];
	long ret;
	int skip;

	if (!is64)
		nr = (u32)nr;
	if (keel_cpl(vcpu))
		ret = -KVM_EPERM;
	else if (nr == KVM_HC_VAPIC_POLL_IRQ)
		ret = 0;	/* the exit itself is all the guest wanted */
	else
		ret = -KVM_ENOSYS;
	/* RAX changes only once the instruction is known to be done: it may have to be tried again. */
	skip = keel_skip(vcpu);
	if (skip != KEEL_RESUME)
		return skip < 0 ? KEEL_RESUME : skip;
	trace_keel_hypercall(vcpu, nr, ret);
	vcpu->stat.hypercalls++;
	keel_set_reg(vcpu, KEEL_RAX, is64 ? (u64)ret : (u32)ret);
	return KEEL_RESUME;
}
