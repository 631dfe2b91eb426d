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

static int complete_hypercall(struct keel_vcpu *vcpu)
{
	u64 ret = READ_ONCE(vcpu->run->hypercall.ret);
	int skip = keel_skip(vcpu);

	if (skip == KEEL_RESUME)
		keel_set_reg(vcpu, KEEL_RAX, keel_is_64bit(vcpu) ? ret : (u32)ret);
	return skip < 0 ? KEEL_RESUME : skip;
}

/* Pages become private or shared, or another attribute of theirs changes: userspace's business alone. */
static long map_gpa_range(struct keel_vcpu *vcpu, bool is64)
{
	u64 mask = is64 ? ~0ULL : U32_MAX, gpa = vcpu->regs[KEEL_RBX] & mask, pages = vcpu->regs[KEEL_RCX] & mask;
	struct kvm_run *run = vcpu->run;

	if (offset_in_page(gpa) || !pages || (gpa >> PAGE_SHIFT) + pages <= gpa >> PAGE_SHIFT)
		return -KVM_EINVAL;
	memset(&run->hypercall, 0, sizeof(run->hypercall));
	run->exit_reason = KVM_EXIT_HYPERCALL;
	run->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
	run->hypercall.args[0] = gpa;
	run->hypercall.args[1] = pages;
	run->hypercall.args[2] = vcpu->regs[KEEL_RDX] & mask;
	run->hypercall.longmode = is64;
	vcpu->complete = complete_hypercall;
	return 0;
}

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
	else if (nr == KVM_HC_MAP_GPA_RANGE && READ_ONCE(vcpu->vm->exit_hypercalls) & BIT(KVM_HC_MAP_GPA_RANGE))
		ret = map_gpa_range(vcpu, is64);
	else
		ret = -KVM_ENOSYS;
	if (vcpu->complete)
		return KEEL_USER;
	/* RAX changes only once the instruction is known to be done: it may have to be tried again. */
	skip = keel_skip(vcpu);
	if (skip != KEEL_RESUME)
		return skip < 0 ? KEEL_RESUME : skip;
	trace_keel_hypercall(vcpu, nr, ret);
	vcpu->stat.hypercalls++;
	keel_set_reg(vcpu, KEEL_RAX, is64 ? (u64)ret : (u32)ret);
	return KEEL_RESUME;
}
