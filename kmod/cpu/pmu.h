/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pmu.h - between pmu.c, which has counters counted by the host's perf, and the backends, which know the registers that
 * their vendor's CPUs have for it.
 */
#ifndef KEEL_PMU_H
#define KEEL_PMU_H

#include <linux/bits.h>
#include <linux/irq_work.h>
#include <linux/types.h>
#include <asm/perf_event.h>

/* A counter's number is its bit in words that have one for each: general ones come first, fixed ones from here on. */
#define PMU_FIXED	32
#define PMU_NO_COUNTER	0xff

struct keel_pmc {
	struct keel_pmu *pmu;
	u64 select;			/* a general counter's event, as the guest reads it */
	u64 value;			/* the count, less what the event has since it was last paused ... */
	bool written;			/* ... or without it, until the event has been told */
	u8 nr;
	struct perf_event *event;	/* NULL: nothing counts, or never did */
	u64 made_for;			/* what selected() said when it was made */
};

/* Of a vCPU that may have counters at all; which ones is its CPUID's to say. */
struct keel_pmu {
	struct keel_vcpu *vcpu;
	u64 all;			/* bit per counter the guest has */
	u64 general_mask, fixed_mask;	/* bits of a count */
	u8 has;				/* PMU_HAS_* */
	struct keel_thread thread;	/* whose the events are */
	unsigned long stale;		/* counters whose event is to follow */
	unsigned long overflowed;	/* since the work below last ran */
	struct irq_work work;
	u64 global_ctrl;		/* bit per counter that counts, with PMU_HAS_GLOBAL */
	unsigned long status;		/* bit per counter that went over */
	/* Intel's */
	u32 events_off;			/* architectural events that CPUID denies */
	u64 fixed_ctrl, capabilities;
	struct keel_pmc pmc[];		/* as many as the host gives: general ones, fixed ones */
};

/* What a range of registers wants of the guest's CPUID. */
#define PMU_HAS_CORE	BIT(0)		/* AMD's PERFCTR_CORE */
#define PMU_HAS_GLOBAL	BIT(1)		/* version 2: registers for all at once; Intel's has fixed counters, too */
#define PMU_HAS_WIDE	BIT(2)		/* Intel's second name of the general counters */
#define PMU_HAS_CAPS	BIT(3)		/* Intel's PERF_CAPABILITIES */

struct keel_pmu_reg {
	u32 first;
	u8 count, stride;
	u8 nr;				/* of the first one's counter; PMU_NO_COUNTER: they are no counters' */
	u8 needs;			/* PMU_HAS_* */
	/* 0, or 1: #GP.  get may say -EAGAIN, in the fast loop. */
	int (*get)(struct keel_pmu *p, struct keel_pmc *c, u64 *val);
	int (*set)(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host);
};

/* What a guest can be given on this host; all zero: nothing. */
struct keel_pmu_host {
	u8 general, fixed;		/* counters */
	u8 general_bits, fixed_bits;
	u8 has;				/* PMU_HAS_* */
	u64 capabilities;		/* MSR_IA32_PERF_CAPABILITIES */
	u32 leaf[4];			/* of CPUID, to offer: EAX to EDX */
};

/* Counters as the backend's vendor makes them. */
struct keel_pmu_hw {
	const struct keel_pmu_reg *regs;
	unsigned int nr_regs;
	u64 event_bits;			/* of an event select: what perf takes */
	bool pmi_masks;			/* the interrupt masks the LAPIC's entry */
	u32 leaf;			/* of CPUID, that tells of them */
	/* At load; may sleep. */
	void (*probe)(struct keel_pmu_host *host);
	/* What the guest's CPUID gives it: all, general_mask, fixed_mask, has.  @leaf: the guest's, or NULL. */
	void (*refresh)(struct keel_vcpu *vcpu, struct keel_pmu *p, const struct kvm_cpuid_entry2 *leaf);
	/* What is to be counted now, as an event select; 0: nothing.  Any context. */
	u64 (*selected)(const struct keel_pmc *c);
	/* Number of the counter RDPMC means, -1: #GP.  The vCPU may have no keel_pmu: then it reads as zero. */
	int (*counter)(struct keel_vcpu *vcpu, u32 ecx);
};

extern struct keel_pmu_host keel_pmu_host;	/* constant after load */

bool keel_pmu_counts(u64 config);	/* does the host's perf take this raw event for a guest?  May sleep */
/* For tables of registers. */
int keel_pmc_get_count(struct keel_pmu *p, struct keel_pmc *c, u64 *val);
int keel_pmc_get_select(struct keel_pmu *p, struct keel_pmc *c, u64 *val);
void keel_pmc_set_count(struct keel_pmc *c, u64 val);
void keel_pmc_set_select(struct keel_pmc *c, u64 val);
/* Of all at once: which count; which went over, for VMMs to restore.  set: 1 for a counter that is not there. */
int keel_pmu_get_global_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 *val);
int keel_pmu_set_global_ctrl(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host);
int keel_pmu_get_status(struct keel_pmu *p, struct keel_pmc *c, u64 *val);
int keel_pmu_set_status(struct keel_pmu *p, struct keel_pmc *c, u64 val, bool host);
void keel_pmu_change_status(struct keel_pmu *p, u64 clear, u64 set);
int keel_pmu_get_zero(struct keel_pmu *p, struct keel_pmc *c, u64 *val);
bool keel_pmu_is_on(const struct keel_pmc *c);	/* as far as that goes */
void keel_pmu_follow(struct keel_pmu *p, u64 counters);	/* their events, before the guest goes on */

static inline u64 keel_pmc_mask(const struct keel_pmc *c)
{
	return c->nr < PMU_FIXED ? c->pmu->general_mask : c->pmu->fixed_mask;
}

#endif
