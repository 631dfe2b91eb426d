// SPDX-License-Identifier: GPL-2.0-only
/*
 * backdoor.c - what programs in guests of VMware's find whatever their privileges: two ports, which are the VMM's to
 * answer, and three counters of time.  With the module's parameter alone: it takes an exit for each #GP of all guests.
 *
 * The CPU refuses these instructions where IOPL, the TSS or CR4.PCE say so; that #GP exits, and if it was one of them the
 * emulator carries it out, which asks keel_backdoor_opens() before it would refuse.
 */
#include <linux/module.h>
#include <linux/timekeeping.h>
#include <asm/tsc.h>
#include "ops.h"
#include "insn.h"

bool keel_vmware_backdoor __ro_after_init;
module_param_named(vmware_backdoor, keel_vmware_backdoor, bool, 0444);
MODULE_PARM_DESC(vmware_backdoor, "Let all programs in guests use VMware's two ports and three counters (off)");

/* VMware's numbers: commands and streams of data; the host's TSC, its time since it was started, the guest's. */
#define PORTS		0x5658
#define NR_PORTS	2
#define COUNTERS	0x10000

enum { HOST_TSC, REAL_TIME, APPARENT_TIME, NR_COUNTERS };

bool keel_backdoor_opens(enum emul_open what, u32 number)
{
	if (likely(!keel_vmware_backdoor))
		return false;
	return what == EMUL_OPEN_PORT ? number - PORTS < NR_PORTS : number - COUNTERS < NR_COUNTERS;
}

u64 keel_backdoor_counter(struct keel_vcpu *vcpu, u32 number)
{
	switch (number - COUNTERS) {
	case HOST_TSC:
		return rdtsc();
	case REAL_TIME:
		return ktime_get_boottime_ns();
	default:
		return keel_clock_ns(vcpu->vm);
	}
}

/* Of what was decoded: does it name one of them?  (No port of theirs can be an immediate.) */
static bool names_one(struct keel_vcpu *vcpu, const struct emul_insn *insn)
{
	switch (insn->map << 8 | insn->opcode) {
	case 0x6c ... 0x6f:		/* INS, OUTS */
	case 0xec ... 0xef:		/* IN, OUT */
		return keel_backdoor_opens(EMUL_OPEN_PORT, (u16)keel_reg(vcpu, KEEL_RDX));
	case 0x133:			/* RDPMC */
		return keel_backdoor_opens(EMUL_OPEN_COUNTER, keel_reg(vcpu, KEEL_RCX));
	}
	return false;
}

int keel_emulate_gp(struct keel_vcpu *vcpu, u32 error)
{
	struct keel_insn *in = vcpu->insn;

	/* These have no error code; nor is it an instruction's if something was being delivered. */
	if (!error && !vcpu->ev.injected.type) {
		if (vcpu->atomic)
			return KEEL_SLOW;
		keel_insn_forget(vcpu);
		in->gpa = NO_GPA;
		keel_insn_begin(in);
		if (emul_decode(&in->e) == EMUL_OK && names_one(vcpu, &in->e.insn))
			return keel_emulate(vcpu);
	}
	keel_raise_error(vcpu, X86_TRAP_GP, error);
	return KEEL_RESUME;
}
