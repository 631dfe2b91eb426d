// SPDX-License-Identifier: GPL-2.0-only
/*
 * mce.c - machine checks as a guest sees them: its banks, and what the VMM puts there.
 *
 * Lock: the vCPU's own thread, or vcpu->mutex.
 * SDM vol. 3 chapter 15; APM vol. 2 chapter 9.
 */
#include <asm/mce.h>
#include "msr.h"
#include "ops.h"

#define MCE_CAP_SUPPORTED	(MCG_CTL_P | MCG_SER_P | keel_hw.mcg_caps)

int keel_get_mcg_ctl(const struct msr_access *a, u64 *val)
{
	if (!(a->vcpu->msrs.mcg_cap & MCG_CTL_P) && !a->host)
		return 1;
	*val = a->vcpu->msrs.mcg_ctl;
	return 0;
}

int keel_set_mcg_ctl(const struct msr_access *a, u64 val)
{
	if (!(a->vcpu->msrs.mcg_cap & MCG_CTL_P) && (val || !a->host))
		return 1;
	if (val && val != ~0ULL)
		return 1;
	a->vcpu->msrs.mcg_ctl = val;
	return 0;
}

static bool bank_exists(const struct msr_access *a)
{
	return (a->msr - a->row->first) / 4 < (a->vcpu->msrs.mcg_cap & MCG_BANKCNT_MASK);
}

int keel_get_mce_bank(const struct msr_access *a, u64 *val)
{
	return bank_exists(a) ? msr_get_mem(a, val) : 1;
}

int keel_set_mce_bank(const struct msr_access *a, u64 val)
{
	if (!bank_exists(a))
		return 1;
	switch ((a->msr - a->row->first) % 4) {
	case 0:		/* CTL: all or nothing, give or take the bits some Linux clears for old errata */
		if (val && (val | BIT_ULL(10) | 1) != ~0ULL)
			return 1;
		break;
	case 1:		/* STATUS: a guest only clears it; HWCR may let it write more */
		if (val && !a->host && !(a->vcpu->msrs.hwcr & BIT_ULL(18)))
			return 1;
		break;
	}
	return msr_set_mem(a, val);
}

/* Whether an error that wants no action interrupts. Without CMCI there is nothing but, for a VMM, zeroes. */
int keel_get_mce_ctl2(const struct msr_access *a, u64 *val)
{
	unsigned int bank = a->msr - a->row->first;

	if (bank >= (a->vcpu->msrs.mcg_cap & MCG_BANKCNT_MASK) || (!(a->vcpu->msrs.mcg_cap & MCG_CMCI_P) && !a->host))
		return 1;
	*val = a->vcpu->msrs.mce_ctl2[bank];
	return 0;
}

int keel_set_mce_ctl2(const struct msr_access *a, u64 val)
{
	u64 old;

	if (keel_get_mce_ctl2(a, &old) || (val && !(a->vcpu->msrs.mcg_cap & MCG_CMCI_P)) ||
	    (val & ~(MCI_CTL2_CMCI_EN | MCI_CTL2_CMCI_THRESHOLD_MASK)))
		return 1;
	a->vcpu->msrs.mce_ctl2[a->msr - a->row->first] = val;
	return 0;
}

/* Machine checks that are told to one CPU only. */
static bool has_lmce(const struct msr_access *a)
{
	return (a->host ? keel_hw.mcg_caps : a->vcpu->msrs.mcg_cap) & MCG_LMCE_P;
}

/*
 * The guest's firmware says whether its kernel may ask for them, and locks that. Where the CPU has the register so have all
 * guests, which read it without asking; a VMM without them saves zeroes.
 */
int keel_get_feat_ctl(const struct msr_access *a, u64 *val)
{
	return a->host || has_lmce(a) || keel_hw.feat_ctl ? msr_get_mem(a, val) : 1;
}

int keel_set_feat_ctl(const struct msr_access *a, u64 val)
{
	u64 old;

	if (keel_get_feat_ctl(a, &old) || (val & ~(u64)FEAT_CTL_LOCKED && !has_lmce(a)) || (val && !has_lmce(a) && !keel_hw.feat_ctl) ||
	    (!a->host && (old & FEAT_CTL_LOCKED)))
		return 1;
	return msr_set_mem(a, val);
}

int keel_get_mcg_ext_ctl(const struct msr_access *a, u64 *val)
{
	return a->host || (a->vcpu->msrs.feat_ctl & FEAT_CTL_LMCE_ENABLED) ? msr_get_mem(a, val) : 1;
}

int keel_set_mcg_ext_ctl(const struct msr_access *a, u64 val)
{
	u64 old;

	return keel_get_mcg_ext_ctl(a, &old) || (val && !has_lmce(a)) ? 1 : msr_set_mem(a, val);
}

SYS_IOCTL(keel_get_mce_cap_supported)
{
	*(u64 *)buf = MCE_CAP_SUPPORTED;
	return 0;
}

VCPU_IOCTL(keel_setup_mce)
{
	struct keel_msrs *m = &vcpu->msrs;
	u64 cap = *(u64 *)buf;
	unsigned int banks = cap & MCG_BANKCNT_MASK, i;

	if (!banks || banks > KEEL_MCE_BANKS || (cap & ~(MCE_CAP_SUPPORTED | MCG_BANKCNT_MASK | 0xff0000ULL)))
		return -EINVAL;
	m->mcg_cap = cap & keel_hw.mcg_guest;
	if (cap & MCG_CTL_P)
		m->mcg_ctl = ~0ULL;
	for (i = 0; i < banks; i++)
		m->mce[i * 4] = ~0ULL;
	memset(m->mce_ctl2, 0, sizeof(m->mce_ctl2));
	irq_lapic_cmci_setup(vcpu);
	return 0;
}

/* Uncorrected, but nobody has used what is broken: no exception (SDM volume 3, "UCR Error Classification", UCNA). */
static bool no_action_required(const struct kvm_x86_mce *in)
{
	return (in->status & (MCI_STATUS_UC | MCI_STATUS_PCC | MCI_STATUS_S | MCI_STATUS_AR)) == MCI_STATUS_UC &&
	       !in->mcg_status;
}

static void store_mce(u64 *bank, const struct kvm_x86_mce *in)
{
	bank[1] = in->status | (bank[1] & MCI_STATUS_VAL ? MCI_STATUS_OVER : 0);
	bank[2] = in->addr;
	bank[3] = in->misc;
}

VCPU_IOCTL(keel_set_mce)
{
	const struct kvm_x86_mce *in = buf;
	struct keel_msrs *m = &vcpu->msrs;
	u64 *bank;

	if (in->bank >= (m->mcg_cap & MCG_BANKCNT_MASK) || !(in->status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = &m->mce[in->bank * 4];
	if (no_action_required(in)) {
		/* The one kind that takes the place of whatever was there, and says nothing of that. */
		bank[1] = 0;
		store_mce(bank, in);
		m->mcg_status = 0;
		if ((m->mcg_cap & MCG_CMCI_P) && (m->mce_ctl2[in->bank] & MCI_CTL2_CMCI_EN))
			irq_lapic_cmci(vcpu);
		return 0;
	}
	if (!(in->status & MCI_STATUS_UC)) {
		if ((bank[1] & MCI_STATUS_VAL) && (bank[1] & MCI_STATUS_UC))
			bank[1] |= MCI_STATUS_OVER;
		else
			store_mce(bank, in);
		return 0;
	}
	/* Reporting is off: uncorrected errors are lost as on hardware. */
	if (((m->mcg_cap & MCG_CTL_P) && m->mcg_ctl != ~0ULL) || bank[0] != ~0ULL)
		return 0;
	/* A machine check inside a machine check, or with nobody to take it, shuts the CPU down. */
	if ((m->mcg_status & MCG_STATUS_MCIP) || !(keel_cr4(vcpu) & X86_CR4_MCE)) {
		keel_request(KEEL_REQ_TRIPLE_FAULT, vcpu);
		return 0;
	}
	store_mce(bank, in);
	m->mcg_status = in->mcg_status;
	keel_raise(vcpu, X86_TRAP_MC);
	return 0;
}

/* ------------------------------------------------------------------ the state (snap/state.c) */

/* Values that only the guest looks at; how many banks it finds is how the vCPU was set up. */
VCPU_IOCTL(keel_mce_get_state)
{
	const struct keel_msrs *m = &vcpu->msrs;
	struct keel_state_mce *s = buf;

	BUILD_BUG_ON(sizeof(s->bank) != sizeof(m->mce) || sizeof(s->ctl2) != sizeof(m->mce_ctl2));
	memcpy(s->bank, m->mce, sizeof(m->mce));
	memcpy(s->ctl2, m->mce_ctl2, sizeof(m->mce_ctl2));
	s->status = m->mcg_status;
	s->ctl = m->mcg_ctl;
	s->ext_ctl = m->mcg_ext_ctl;
	return 0;
}

VCPU_IOCTL(keel_mce_set_state)
{
	const struct keel_state_mce *s = buf;
	struct keel_msrs *m = &vcpu->msrs;

	memcpy(m->mce, s->bank, sizeof(m->mce));
	memcpy(m->mce_ctl2, s->ctl2, sizeof(m->mce_ctl2));
	m->mcg_status = s->status;
	m->mcg_ctl = s->ctl;
	m->mcg_ext_ctl = s->ext_ctl;
	return 0;
}
