/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stats.h - counters.  One list names them; debugfs (keel/stats: all vCPUs that live or ever lived) and
 * KVM_GET_STATS_FD print from it.  Plain increments by the vCPU's own thread; readers may see them a little late.
 */
#ifndef KEEL_STATS_H
#define KEEL_STATS_H

#define KEEL_VCPU_STATS(S)							\
	S(exits) S(fast_exits) S(user_exits) S(irq_exits) S(halt_exits) S(halt_wakeups)	\
	S(pio) S(pio_user) S(mmio) S(mmio_user) S(page_faults) S(page_faults_fast)	\
	S(emulated) S(emulation_fail) S(cpuid) S(msr_reads) S(msr_writes) S(hypercalls)	\
	S(injected_irqs) S(injected_nmis) S(injected_exceptions) S(irq_windows)	\
	S(tlb_flushes) S(kicks) S(signal_exits) S(preemptions)

#define KEEL_VM_STATS(S)							\
	S(pages_4k) S(pages_2m) S(pages_1g) S(table_pages) S(notifier_invalidations)	\
	S(remote_tlb_flushes) S(memslot_changes) S(irqfd_signals) S(ioeventfd_signals)

#define KEEL_STAT_MEMBER(name) u64 name;
struct keel_vcpu_stats {
	KEEL_VCPU_STATS(KEEL_STAT_MEMBER)
	u64 *by_exit;		/* keel_hw.nr_exits counters: the backend counts its exit slots here */
};

struct keel_vm_stats {
	KEEL_VM_STATS(KEEL_STAT_MEMBER)
};

int keel_stats_init(void);	/* module load, after the backend's setup: debugfs */
void keel_stats_exit(void);
int keel_stats_vcpu_init(struct keel_vcpu *vcpu);	/* fold frees what it allocates */
void keel_stats_fold_vcpu(struct keel_vcpu *vcpu);	/* at destruction: into the module's totals */
void keel_stats_fold_vm(struct keel_vm *vm);
VM_IOCTL(keel_vm_stats_fd);	/* KVM_GET_STATS_FD */
VCPU_IOCTL(keel_vcpu_stats_fd);

#endif
