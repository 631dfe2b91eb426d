/* SPDX-License-Identifier: GPL-2.0-only */
/* msr.h - the room's own: what a row of the table of MSRs (msr.c) is, and accessors that are elsewhere. */
#ifndef KEEL_CPU_MSR_H
#define KEEL_CPU_MSR_H

#include "keel.h"

#define M_FAST		BIT(0)	/* may be written without sleeping */
#define M_LIST		BIT(1)	/* a VMM must save it: KVM_GET_MSR_INDEX_LIST */
#define M_FEATURE	BIT(2)	/* describes the host: KVM_GET_MSR_FEATURE_INDEX_LIST */
#define M_HOST		BIT(3)	/* not the guest's at all */
#define M_NEEDS		BIT(4)	/* not the guest's without CPUID feature .feature */
#define M_PV		BIT(5)	/* needs KVM_FEATURE_* .feature where the VMM enforces them */
#define M_PMU		BIT(6)	/* listed where guests may have this performance counter's */
#define M_OFFERED	BIT(8)	/* does not exist, for the VMM either, where keel offers nobody .feature */
#define M_APART		BIT(7)	/* of the state, but of another section than the MSRs' */
#define M_CET		BIT(9)	/* does not exist, for the VMM either, where no guest may have what it is about */
#define M_TSX		BIT(10)	/* does not exist, for the VMM either, where the host's CPU has no TSX_CTRL */
#define M_IF_OFFERED	BIT(11)	/* listed where keel offers .feature */
#define M_UNTOLD	BIT(12)	/* may have more than a VMM is told: a state sets it whatever it reads as */

struct msr_access {
	struct keel_vcpu *vcpu;
	const struct msr_row *row;
	u32 msr;
	bool host;		/* the VMM's access: guest CPUID does not matter */
};

struct msr_row {
	u32 first, count;
	u16 flags;
	u16 feature;
	u16 offset;		/* of the value in struct keel_vcpu, for the _mem accessors */
	u64 valid;		/* bits that may be set, for set_mem */
	int (*get)(const struct msr_access *a, u64 *val);
	int (*set)(const struct msr_access *a, u64 val);
};

static inline u64 *msr_mem(const struct msr_access *a)
{
	return (u64 *)((char *)a->vcpu + a->row->offset) + (a->msr - a->row->first);
}

static inline int msr_get_mem(const struct msr_access *a, u64 *val)
{
	*val = *msr_mem(a);
	return 0;
}

static inline int msr_set_mem(const struct msr_access *a, u64 val)
{
	if (val & ~a->row->valid)
		return 1;
	*msr_mem(a) = val;
	return 0;
}

/* mce.c */
typedef int keel_msr_getter(const struct msr_access *a, u64 *val);
typedef int keel_msr_setter(const struct msr_access *a, u64 val);
keel_msr_getter keel_get_mcg_ctl, keel_get_mce_bank, keel_get_mce_ctl2, keel_get_feat_ctl, keel_get_mcg_ext_ctl;
keel_msr_setter keel_set_mcg_ctl, keel_set_mce_bank, keel_set_mce_ctl2, keel_set_feat_ctl, keel_set_mcg_ext_ctl;
/* cet.c */
keel_msr_getter keel_get_cet;
keel_msr_setter keel_set_cet;

#endif
