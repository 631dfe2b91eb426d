// SPDX-License-Identifier: GPL-2.0-only
/*
 * debug.c - debug registers of the guest.
 *
 * DR0-3 are in the CPU only while an armed guest runs; DR6 and DR7 are switched by the backend.  Reads and
 * writes of debug registers are always intercepted, so what is armed is known here.
 *
 * A VMM that debugs the guest (KVM_SET_GUEST_DEBUG) has its own breakpoints in their place and takes the exceptions.
 *
 * Locks: the vCPU's own thread, or vcpu->mutex; enter and leave with IRQs off.
 * SDM vol. 3 17.2; APM vol. 2 13.1.
 */
#include <linux/bits.h>
#include <linux/percpu.h>
#include <asm/processor.h>
#include <asm/debugreg.h>
#include "ops.h"

#define DR6_INIT	0xffff0ff0ULL	/* RTM and bus lock bits read 1 where there is no such event */
#define DR6_WRITABLE	0xe00fULL
#define DR7_INIT	0x400ULL
#define DR7_WRITABLE	0xffff23ffULL
#define DR7_RTM_BIT	BIT_ULL(11)
#define DR7_ENABLES	0xffULL

static u64 make_dr6(struct keel_vcpu *vcpu, u64 val)
{
	u64 writable = DR6_WRITABLE;

	if (keel_guest_has(vcpu, X86_FEATURE_RTM))
		writable |= DR_RTM;
	if (keel_guest_has(vcpu, X86_FEATURE_BUS_LOCK_DETECT))
		writable |= DR_BUS_LOCK;
	return (val & writable) | (DR6_INIT & ~writable);
}

static u64 make_dr7(struct keel_vcpu *vcpu, u64 val)
{
	u64 writable = DR7_WRITABLE;

	if (keel_guest_has(vcpu, X86_FEATURE_RTM))
		writable |= DR7_RTM_BIT;
	return (val & writable) | DR7_INIT;
}

static bool user_has_drs(const struct keel_debug *d)
{
	return d->control & KVM_GUESTDBG_USE_HW_BP;
}

void keel_debug_set_dr7(struct keel_vcpu *vcpu, u64 dr7)
{
	struct keel_debug *d = &vcpu->debug;

	d->dr7 = dr7;
	if (user_has_drs(d))
		dr7 = d->user_dr7;
	d->armed = dr7 & DR7_ENABLES;
	keel_call(set_dr7, vcpu, dr7);
}

void keel_debug_reset(struct keel_vcpu *vcpu)
{
	struct keel_debug *d = &vcpu->debug;

	memset(d->dr, 0, sizeof(d->dr));
	d->stepping = false;
	keel_call(set_dr6, vcpu, DR6_INIT);
	keel_debug_set_dr7(vcpu, DR7_INIT);
}

/* DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE makes them nothing. */
static int real_number(struct keel_vcpu *vcpu, unsigned int nr)
{
	if (nr != 4 && nr != 5)
		return nr;
	return keel_cr4(vcpu) & X86_CR4_DE ? -1 : (int)nr + 2;
}

int keel_get_dr(struct keel_vcpu *vcpu, unsigned int nr, u64 *val)
{
	int real = real_number(vcpu, nr);

	if (real < 0 || real > 7)
		return 1;
	if (real < 4)
		*val = vcpu->debug.dr[real];
	else
		*val = real == 6 ? keel_call(get_dr6, vcpu) : vcpu->debug.dr7;
	return 0;
}

int keel_set_dr(struct keel_vcpu *vcpu, unsigned int nr, u64 val)
{
	int real = real_number(vcpu, nr);

	if (real < 0 || real > 7)
		return 1;
	if (real < 4) {
		vcpu->debug.dr[real] = val;
		return 0;
	}
	if (val >> 32)
		return 2;
	if (real == 6)
		keel_call(set_dr6, vcpu, make_dr6(vcpu, val));
	else
		keel_debug_set_dr7(vcpu, make_dr7(vcpu, val));
	return 0;
}

/* ------------------------------------------------------------------ around each entry */

static void write_dr0_3(const u64 *val)
{
	set_debugreg(val[0], 0);
	set_debugreg(val[1], 1);
	set_debugreg(val[2], 2);
	set_debugreg(val[3], 3);
}

void keel_debug_swap_in(struct keel_vcpu *vcpu)
{
	struct keel_debug *d = &vcpu->debug;

	d->host_armed = hw_breakpoint_active();
	if (d->host_armed) {
		get_debugreg(d->host_dr[0], 0);
		get_debugreg(d->host_dr[1], 1);
		get_debugreg(d->host_dr[2], 2);
		get_debugreg(d->host_dr[3], 3);
		get_debugreg(d->host_dr7, 7);
		set_debugreg(0UL, 7);
	}
	if (d->armed) {
		write_dr0_3(user_has_drs(d) ? d->user_dr : d->dr);
		d->loaded = true;
	}
}

void keel_debug_swap_out(struct keel_vcpu *vcpu)
{
	struct keel_debug *d = &vcpu->debug;

	/* The exit left DR7 disarmed; stale addresses in DR0-3 do no harm then. */
	if (d->host_armed) {
		u64 dr[4] = { d->host_dr[0], d->host_dr[1], d->host_dr[2], d->host_dr[3] };

		write_dr0_3(dr);
		set_debugreg((unsigned long)DR6_RESERVED, 6);
		set_debugreg(d->host_dr7, 7);
	}
	d->loaded = d->host_armed = false;
}

/* ------------------------------------------------------------------ the VMM debugs the guest */

bool keel_debug_takes(struct keel_vcpu *vcpu, u8 vector, u64 dr6)
{
	struct keel_debug *d = &vcpu->debug;
	u32 whose = vector == X86_TRAP_DB ? KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP : KVM_GUESTDBG_USE_SW_BP;

	if (!(d->control & whose))
		return false;
	d->exit_vector = vector;
	d->exit_dr6 = dr6;
	keel_request(KEEL_REQ_DEBUG, vcpu);
	return true;
}

int keel_emulate_bp(struct keel_vcpu *vcpu)
{
	if (!keel_debug_takes(vcpu, X86_TRAP_BP, 0))
		keel_raise_bp(vcpu);
	return KEEL_RESUME;
}

int keel_debug_exit(struct keel_vcpu *vcpu)
{
	struct keel_debug *d = &vcpu->debug;
	struct kvm_run *run = vcpu->run;

	d->stepping = false;
	run->exit_reason = KVM_EXIT_DEBUG;
	run->debug.arch = (struct kvm_debug_exit_arch) {
		.exception = d->exit_vector,
		.pc = keel_linear_rip(vcpu),
		.dr6 = d->exit_vector == X86_TRAP_DB ? d->exit_dr6 | DR6_INIT : 0,
		.dr7 = user_has_drs(d) ? d->user_dr7 : d->dr7,
	};
	return KEEL_USER;
}

/*
 * A step begins once, where the VMM left the vCPU.  What is delivered on the way (an interrupt that was in delivery
 * already, a fault) keeps TF on the guest's stack, and comes back with it: its handler is no step, however often
 * KVM_RUN returns from there.
 */
void keel_debug_step(struct keel_vcpu *vcpu)
{
	if (vcpu->debug.stepping)
		return;
	vcpu->debug.stepping = true;
	keel_set_rflags(vcpu, keel_rflags(vcpu) | X86_EFLAGS_TF);
	keel_call(set_shadow, vcpu, 0);		/* there is no stepping over one */
	keel_call(regs_given, vcpu);
}

VCPU_IOCTL(keel_set_guest_debug)
{
	const struct kvm_guest_debug *in = buf;
	struct keel_debug *d = &vcpu->debug;
	u32 inject = in->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP);

	if (in->control & ~KEEL_GUESTDBG)
		return -EINVAL;
	if (inject && (vcpu->ev.exception.type || vcpu->ev.injected.type))
		return -EBUSY;
	/* Our TF is taken away as the guest's is: the VMM's view of RFLAGS has been without it. */
	if (d->control & KVM_GUESTDBG_SINGLESTEP) {
		keel_set_rflags(vcpu, keel_rflags(vcpu) & ~(u64)X86_EFLAGS_TF);
		keel_insn_changed(vcpu, false);		/* nor does an instruction in progress bring it back */
	}
	d->control = in->control & KVM_GUESTDBG_ENABLE ? in->control & ~inject : 0;
	d->stepping = false;
	irq_apicv_check(vcpu);
	memcpy(d->user_dr, in->arch.debugreg, sizeof(d->user_dr));
	d->user_dr7 = make_dr7(vcpu, in->arch.debugreg[7]) & ~(u64)DR7_GD;
	keel_debug_set_dr7(vcpu, d->dr7);
	if (inject & KVM_GUESTDBG_INJECT_DB)
		keel_raise(vcpu, X86_TRAP_DB);
	else if (inject)
		keel_raise_bp(vcpu);
	keel_request(KEEL_REQ_INTERCEPTS, vcpu);
	keel_request(KEEL_REQ_EVENT, vcpu);
	if (READ_ONCE(vcpu->smi_pending))
		keel_request(KEEL_REQ_SMI, vcpu);	/* which it may have held back, from a vCPU that sleeps, too */
	return 0;
}

/* ------------------------------------------------------------------ ioctls */

VCPU_IOCTL(keel_get_debugregs)
{
	keel_events_settle(vcpu);
	return keel_debugregs_get_state(vcpu, buf, arg);
}

VCPU_IOCTL(keel_debugregs_get_state)
{
	struct kvm_debugregs *out = buf;

	memset(out, 0, sizeof(*out));
	memcpy(out->db, vcpu->debug.dr, sizeof(out->db));
	out->dr6 = keel_call(get_dr6, vcpu);
	out->dr7 = vcpu->debug.dr7;
	return 0;
}

VCPU_IOCTL(keel_set_debugregs)
{
	const struct kvm_debugregs *in = buf;

	if (in->flags || (in->dr6 >> 32) || (in->dr7 >> 32))
		return -EINVAL;
	memcpy(vcpu->debug.dr, in->db, sizeof(in->db));
	keel_call(set_dr6, vcpu, make_dr6(vcpu, in->dr6));
	keel_debug_set_dr7(vcpu, make_dr7(vcpu, in->dr7));
	return 0;
}
