/* SPDX-License-Identifier: GPL-2.0-only */
/* features.h - the room's own: what of the host's CPU guests may have (features.c). */
#ifndef KEEL_CPU_FEATURES_H
#define KEEL_CPU_FEATURES_H

#include <linux/kvm.h>
#include <linux/types.h>

enum { EAX, EBX, ECX, EDX };
/* An entry has them in this order too. */
static_assert(offsetof(struct kvm_cpuid_entry2, edx) == offsetof(struct kvm_cpuid_entry2, eax) + EDX * sizeof(u32));

static inline u32 *keel_entry_reg(struct kvm_cpuid_entry2 *e, unsigned int reg)
{
	return reg == EAX ? &e->eax : reg == EBX ? &e->ebx : reg == ECX ? &e->ecx : &e->edx;
}

/* A register of CPUID that has features. */
struct keel_feature_row {
	u32 function, index;
	u8 reg;
	u8 word;		/* the kernel's number, or keel's own: words.h */
	u32 allow, always;
};

extern const struct keel_feature_row keel_feature_rows[];
extern const unsigned int keel_nr_feature_rows;

#define INVARIANT_TSC	BIT(8)		/* leaf 0x80000007 EDX */

/* What KVM_GET_SUPPORTED_CPUID says, sorted. */
#define KEEL_OFFERED_MAX	88
extern struct kvm_cpuid_entry2 keel_offered[KEEL_OFFERED_MAX];
extern unsigned int keel_nr_offered;
void keel_features_setup(void);
void keel_fill_leaf_d(struct kvm_cpuid_entry2 *e, u64 xcr0);	/* of its first two, what follows from XCR0 */

#endif
