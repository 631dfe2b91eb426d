// SPDX-License-Identifier: GPL-2.0-only
/*
 * debug.c - debug registers of the guest.
 *
 * DR0-3 are in the CPU only while an armed guest runs; DR6 and DR7 are switched by the backend.  Reads and
 * writes of debug registers are always intercepted, so what is armed is known here.
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
#define DR6_RTM_BIT	BIT_ULL(16)
#define DR7_INIT	0x400ULL
#define DR7_WRITABLE	0xffff23ffULL
#define DR7_RTM_BIT	BIT_ULL(11)
#define DR7_ENABLES	0xffULL

static u64 make_dr6(struct keel_vcpu *vcpu, u64 val)
{
	u64 writable = DR6_WRITABLE;

	if (keel_guest_has(vcpu, X86_FEATURE_RTM))
		writable |= DR6_RTM_BIT;
	return (val & writable) | (DR6_INIT & ~writable);
}

static u64 make_dr7(struct keel_vcpu *vcpu, u64 val)
{
	u64 writable = DR7_WRITABLE;

	if (keel_guest_has(vcpu, X86_FEATURE_RTM))
		writable |= DR7_RTM_BIT;
	return (val & writable) | DR7_INIT;
}

void keel_debug_set_dr7(struct keel_vcpu *vcpu, u64 dr7)
{
	vcpu->debug.dr7 = dr7;
	vcpu->debug.armed = dr7 & DR7_ENABLES;
	keel_call(set_dr7, vcpu, dr7);
}

void keel_debug_reset(struct keel_vcpu *vcpu)
{
	struct keel_debug *d = &vcpu->debug;

	memset(d->dr, 0, sizeof(d->dr));
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
		write_dr0_3(d->dr);
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

/* ------------------------------------------------------------------ ioctls */

VCPU_IOCTL(keel_get_debugregs)
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
