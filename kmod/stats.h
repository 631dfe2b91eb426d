/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stats.h - counters.  One list names them; debugfs (keel/stats: all vCPUs that live or ever lived; keel/vms: each that
 * lives) and KVM_GET_STATS_FD print from it.  Plain increments by the vCPU's own thread, and
 * keel_count_shared() of what several count; readers may see them a little late.
 *
 * How long exits take is measured only while somebody wants to know: while debugfs keel/latency is open.
 */
#ifndef KEEL_STATS_H
#define KEEL_STATS_H

#include <linux/jump_label.h>

#define KEEL_VCPU_STATS(S)							\
	S(exits) S(fast_exits) S(user_exits) S(irq_exits) S(halt_exits) S(halt_wakeups)	\
	S(pio) S(pio_user) S(mmio) S(mmio_user) S(page_faults)					\
	S(emulated) S(emulation_fail) S(cpuid) S(msr_reads) S(msr_writes) S(hypercalls)	\
	S(injected_irqs) S(injected_nmis) S(injected_exceptions) S(irq_windows)	\
	S(tlb_flushes) S(kicks) S(signal_exits) S(preemptions) S(async_faults) S(pv_eois)

#define KEEL_VM_STATS(S)							\
	S(pages_4k) S(pages_2m) S(pages_1g) S(table_pages) S(snapshot_pages) S(notifier_invalidations)	\
	S(remote_tlb_flushes) S(memslot_changes) S(memslot_stood_ns)	\
	S(irqfd_signals) S(ioeventfd_signals) S(resets) S(reset_pages) S(reset_bytes) S(reset_ns)

/* Exits of one kind, by the time from the exit until the guest is entered again. */
#define KEEL_LATENCY_BUCKETS	32

struct keel_latency {
	u64 ns;					/* of all of them together */
	u32 count[KEEL_LATENCY_BUCKETS];	/* [n]: less than 2^n ns, and no less than half of that */
};

#define KEEL_STAT_MEMBER(name) u64 name;
struct keel_vcpu_stats {
	KEEL_VCPU_STATS(KEEL_STAT_MEMBER)
	u64 *by_exit;		/* keel_hw.nr_exits counters: the backend counts its exit slots here */
	struct keel_latency *latency;	/* the same for times; NULL until they are wanted */
	u32 exit_slot;		/* of the last exit */
	u32 exit_period;	/* of measuring, in which exit_at was taken */
	u64 exit_at;		/* when the last exit was, if it is being measured; 0: it is not */
};

struct keel_vm_stats {
	KEEL_VM_STATS(KEEL_STAT_MEMBER)
};

/* One of the VM's that several count at the same time. */
static inline void keel_count_shared(u64 *stat, long n)
{
	atomic64_add(n, (atomic64_t *)stat);
}

DECLARE_STATIC_KEY_FALSE(keel_latency_on);
void keel_latency_want(struct keel_vcpu_stats *stat);
void keel_latency_entry(struct keel_vcpu_stats *stat);
void keel_latency_exit(struct keel_vcpu_stats *stat);

/* The backend knows which exit it was. */
static __always_inline void keel_count_exit(struct keel_vcpu_stats *stat, unsigned int slot)
{
	stat->exit_slot = slot;
	stat->by_exit[slot]++;
}

int keel_stats_init(void);	/* module load, after the backend's setup: debugfs */
void keel_stats_exit(void);
int keel_stats_vcpu_init(struct keel_vcpu *vcpu);	/* fold frees what it allocates */
void keel_stats_fold_vcpu(struct keel_vcpu *vcpu);	/* at destruction: into the module's totals */
void keel_stats_fold_vm(struct keel_vm *vm);
VM_IOCTL(keel_vm_stats_fd);	/* KVM_GET_STATS_FD */
VCPU_IOCTL(keel_vcpu_stats_fd);

#endif
