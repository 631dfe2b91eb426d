/* SPDX-License-Identifier: GPL-2.0-only */
/* internal.h - what the files of the Hyper-V room share.  Locks: hyperv.h. */
#ifndef KEEL_HYPERV_INTERNAL_H
#define KEEL_HYPERV_INTERNAL_H

#include <linux/hrtimer.h>
#include <linux/xarray.h>
#include "ops.h"

/* The debugger's MSRs, as they are numbered, and its options, which stand apart. */
enum { DEBUGGER_CONTROL, DEBUGGER_STATUS, DEBUGGER_SEND, DEBUGGER_RECV, DEBUGGER_PENDING, DEBUGGER_OPTIONS, DEBUGGER_MSRS };
#define DEBUGGER_BY_CALLS	BIT(2)	/* option: what goes to and fro does so by hypercalls */

struct keel_hv {
	struct mutex lock;
	bool used;			/* a vCPU has a part of its own */
	u64 guest_os_id;
	u64 hypercall;			/* page of the call's instruction */
	u64 tsc_page;
	u32 tsc_sequence;
	seqcount_mutex_t tsc_seq;	/* of the next three, for hv_time() */
	bool tsc_written;		/* the page says what these two do: */
	u64 tsc_scale;
	s64 tsc_offset;
	bool tsc_restored;		/* the page is a VMM's to restore: its content is older than this VM */
	u64 reenlightenment[3];		/* control, and that of emulation of the TSC: control, status */
	u64 crash[HV_X64_MSR_CRASH_PARAMS], crash_ctl;
	u64 invariant_tsc;		/* 1: the guest wants to see that its TSC is */
	u64 debugger[DEBUGGER_MSRS];
	struct xarray moved;		/* vCPUs by vp_index, where that is not their own number; places stay */
	struct xarray events;		/* eventfd_ctx by connection id; used under its own lock */
};

struct hv_stimer {
	struct hrtimer timer;
	struct keel_hv_vcpu *hv;
	union hv_stimer_config config;
	u64 count;
	u64 expires;			/* 0: not started */
	bool msg_waits;			/* its message found the slot taken */
};

struct keel_hv_vcpu {
	struct keel_vcpu *vcpu;
	bool enforce;			/* privileges are what CPUID says */
	u32 vp_index;
	u64 assist;
	u64 runtime;			/* VP_RUNTIME: what its threads took in KVM_RUN, 100 ns, */
	u64 counted;			/* up to this time of the thread's that is there, ns, */
	bool counts;			/* if one is */
	u8 due;				/* exits to userspace, KEEL_HYPERV_* */
	struct keel_state_hyperv_exit exit;	/* what that of the SynIC says */

	bool synic;
	bool keep_pages;		/* the guest's pages are not cleared when it gives them */
	u64 control, version, siefp, simp;
	u64 sint[HV_SYNIC_SINT_COUNT];
	struct hv_stimer stimer[HV_SYNIC_STIMER_COUNT];
	unsigned long pending;		/* bit per stimer to be looked at */
	unsigned long stands;		/* likewise, that ran when a state was taken, and is to run on */
};

static inline bool hv_has(const struct keel_hv_vcpu *hv, enum keel_hv_word word, u32 bits)
{
	return !hv->enforce || (hv->vcpu->model.hv[word] & bits) == bits;
}

/* The guest may be debugged by it.  That has to be told, whatever else need not be. */
static inline bool hv_has_debugger(const struct keel_hv_vcpu *hv)
{
	return hv->vcpu->model.hv[HV_DEBUGGER_EAX] & HV_ALLOW_KERNEL_DEBUGGING;
}

void hv_exit_due(struct keel_hv_vcpu *hv, u8 which);	/* KEEL_HYPERV_* */
u64 hv_time(struct keel_vcpu *vcpu);	/* the reference counter: 100 ns */
struct keel_vcpu *hv_vcpu_by_vp(struct keel_vm *vm, u32 vp_index);

/* synic.c: as a row of hyperv.c's table wants them; @n: which of its MSRs */
#define HV_GET(fn)	int fn(struct keel_hv_vcpu *hv, unsigned int n, u64 *val, bool host)
#define HV_SET(fn)	int fn(struct keel_hv_vcpu *hv, unsigned int n, u64 val, bool host)
HV_GET(hv_get_synic);
HV_SET(hv_set_synic);
HV_GET(hv_get_sint);
HV_SET(hv_set_sint);
HV_GET(hv_get_stimer);
HV_SET(hv_set_stimer);
void hv_synic_init(struct keel_hv_vcpu *hv);
void hv_synic_get_state(const struct keel_hv_vcpu *hv, struct keel_state_synic *s);
int hv_synic_set_state(struct keel_hv_vcpu *hv, const struct keel_state_synic *s);	/* 0, -EINVAL */
void hv_stimers_stop(struct keel_hv_vcpu *hv);
void hv_stimers_process(struct keel_hv_vcpu *hv);	/* may sleep */

#endif
