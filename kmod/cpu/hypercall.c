// SPDX-License-Identifier: GPL-2.0-only
/*
 * hypercall.c - VMCALL/VMMCALL with KVM's calling convention (Documentation/virt/kvm/x86/hypercalls.rst):
 * number in RAX, answer in RAX.
 *
 * Locks: none; the vCPU's own thread, fast loop included.
 */
#include <linux/nospec.h>
#include <uapi/linux/kvm_para.h>
#include <asm/apicdef.h>
#include <asm/kvm_para.h>
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

/*
 * What a hypercall does: its answer in *ret and KEEL_RESUME, KEEL_SLOW to be called again where it may sleep, KEEL_USER
 * for userspace to answer.  @a: the arguments.
 */
#define HYPERCALL(fn)	int fn(struct keel_vcpu *vcpu, const u64 a[4], bool is64, long *ret)

/* Pages become private or shared, or another attribute of theirs changes: userspace's business alone. */
static HYPERCALL(map_gpa_range)
{
	u64 gpa = a[0], pages = a[1];
	struct kvm_run *run = vcpu->run;

	if (!(READ_ONCE(vcpu->vm->exit_hypercalls) & BIT(KVM_HC_MAP_GPA_RANGE))) {
		*ret = -KVM_ENOSYS;
		return KEEL_RESUME;
	}
	if (offset_in_page(gpa) || !pages || (gpa >> PAGE_SHIFT) + pages <= gpa >> PAGE_SHIFT) {
		*ret = -KVM_EINVAL;
		return KEEL_RESUME;
	}
	memset(&run->hypercall, 0, sizeof(run->hypercall));
	run->exit_reason = KVM_EXIT_HYPERCALL;
	run->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
	run->hypercall.args[0] = gpa;
	run->hypercall.args[1] = pages;
	run->hypercall.args[2] = a[2];
	keel_hypercall_mode(run, is64);
	vcpu->complete = complete_hypercall;
	return KEEL_USER;
}

static HYPERCALL(kick_cpu)
{
	keel_pv_kick(vcpu, a[1]);
	return KEEL_RESUME;
}

static HYPERCALL(clock_pairing)
{
	int err = a[1] == KVM_CLOCK_PAIRING_WALLCLOCK ? keel_clock_pair(vcpu, a[0]) : -EOPNOTSUPP;

	if (err == -EAGAIN)
		return KEEL_SLOW;
	*ret = err == -EOPNOTSUPP ? -KVM_EOPNOTSUPP : err ? -KVM_EFAULT : 0;
	return KEEL_RESUME;
}

static HYPERCALL(send_ipi)
{
	u64 mask[2] = { a[0], a[1] };

	if (!vcpu->apic)
		*ret = -KVM_EOPNOTSUPP;
	else if (a[3] & (APIC_DEST_LOGICAL | APIC_DEST_ALLBUT))
		*ret = -KVM_EINVAL;
	else
		*ret = irq_send_ipis(vcpu, mask, is64 ? 64 : 32, a[2], a[3]);
	return KEEL_RESUME;
}

static HYPERCALL(sched_yield)
{
	if (vcpu->atomic)
		return KEEL_SLOW;
	keel_pv_yield_to(vcpu, a[0]);
	return KEEL_RESUME;
}

#define ALWAYS	31	/* no feature's bit */
static const struct hypercall_row {
	HYPERCALL((*call));
	u8 feature;		/* KVM_FEATURE_*, or ALWAYS */
} hypercalls[] = {
	[KVM_HC_KICK_CPU]	= { kick_cpu, KVM_FEATURE_PV_UNHALT },
	[KVM_HC_CLOCK_PAIRING]	= { clock_pairing, ALWAYS },
	[KVM_HC_SEND_IPI]	= { send_ipi, KVM_FEATURE_PV_SEND_IPI },
	[KVM_HC_SCHED_YIELD]	= { sched_yield, KVM_FEATURE_PV_SCHED_YIELD },
	[KVM_HC_MAP_GPA_RANGE]	= { map_gpa_range, ALWAYS },
};

static int hypercall(struct keel_vcpu *vcpu, u64 nr, bool is64, long *ret)
{
	u64 mask = is64 ? ~0ULL : U32_MAX;
	u64 a[4] = {
		vcpu->regs[KEEL_RBX] & mask, vcpu->regs[KEEL_RCX] & mask,
		vcpu->regs[KEEL_RDX] & mask, vcpu->regs[KEEL_RSI] & mask,
	};
	const struct hypercall_row *row;

	*ret = -KVM_ENOSYS;
	if (nr >= ARRAY_SIZE(hypercalls))
		return KEEL_RESUME;
	row = &hypercalls[array_index_nospec(nr, ARRAY_SIZE(hypercalls))];
	if (!row->call || (row->feature != ALWAYS && !keel_pv_has(vcpu, row->feature)))
		return KEEL_RESUME;
	*ret = 0;
	return row->call(vcpu, a, is64, ret);
}

int keel_emulate_hypercall(struct keel_vcpu *vcpu)
{
	bool is64 = keel_is_64bit(vcpu), reset;
	u64 nr = vcpu->regs[KEEL_RAX], next;
	long ret = 0;
	int r;

	if (!is64)
		nr = (u32)nr;
	/*
	 * Who may ask for a reset asks for it in the same way on Hyper-V: in 64-bit mode RAX is no argument of its
	 * calls, in 32-bit mode EAX is half of one, where none has this number.
	 */
	reset = unlikely(nr == KEEL_HC_RESET) && keel_reset_allowed(vcpu->vm);
	if (unlikely(vcpu->vm->hv) && keel_hv_takes_hypercalls(vcpu) && !reset)
		return keel_hv_hypercall(vcpu);
	/* First, for the instruction may have to be tried again: what it does is done once. */
	r = keel_next_rip(vcpu, &next);
	if (r)
		return r;
	if (keel_cpl(vcpu)) {
		ret = -KVM_EPERM;
	} else if (unlikely(reset)) {
		/* Nothing follows: registers and what else is the vCPU's are those of the snapshot. */
		return vcpu->atomic ? KEEL_SLOW : keel_guest_reset(vcpu);
	} else if (nr != KVM_HC_VAPIC_POLL_IRQ) {	/* of which the exit itself is all the guest wanted */
		r = hypercall(vcpu, nr, is64, &ret);
		if (r != KEEL_RESUME)
			return r;
	}
	trace_keel_hypercall(vcpu, nr, ret);
	vcpu->stat.hypercalls++;
	keel_set_reg(vcpu, KEEL_RAX, is64 ? (u64)ret : (u32)ret);
	keel_advance(vcpu, next);
	return KEEL_RESUME;
}
