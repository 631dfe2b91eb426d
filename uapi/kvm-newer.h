/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * kvm-newer.h - what <linux/kvm.h> and <asm/kvm.h> of Linux 7.2 have and those of 6.1 lack, as far as keel speaks it: for the
 * module, which is built with the headers of any of these kernels, and for its tests.  Documentation/virt/kvm/api.rst has
 * the meaning.
 */
#ifndef KVM_NEWER_H
#define KVM_NEWER_H

#include <linux/kvm.h>

#ifndef KVM_CAP_PMU_EVENT_MASKED_EVENTS			/* 6.3 */
#define KVM_CAP_PMU_EVENT_MASKED_EVENTS		226
#define KVM_PMU_EVENT_FLAG_MASKED_EVENTS	1
#define KVM_PMU_MASKED_ENTRY_EVENT_SELECT	(0xffULL | 0xfULL << 32)
#define KVM_PMU_MASKED_ENTRY_UMASK_MASK		(0xffULL << 56)
#define KVM_PMU_MASKED_ENTRY_UMASK_MATCH	(0xffULL << 8)
#define KVM_PMU_MASKED_ENTRY_EXCLUDE		(1ULL << 55)
#endif

#ifndef KVM_CAP_USER_MEMORY2				/* 6.8 */
#define KVM_CAP_USER_MEMORY2		231
#define KVM_SET_USER_MEMORY_REGION2	_IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#define KVM_MEM_GUEST_MEMFD		(1UL << 2)

struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};
#endif

#ifndef KVM_CAP_MEMORY_FAULT_INFO			/* 6.8 */
#define KVM_CAP_MEMORY_FAULT_INFO	232
#define KVM_EXIT_MEMORY_FAULT		39
#endif

/* kvm_run's memory_fault, which has no name in older headers: it begins where the others of the union do. */
struct kvm_run_memory_fault {
	__u64 flags;
	__u64 gpa;
	__u64 size;
};

static inline struct kvm_run_memory_fault *kvm_run_memory_fault(struct kvm_run *run)
{
	return (struct kvm_run_memory_fault *)run->padding;
}

#ifndef KVM_CAP_GUEST_MEMFD				/* 6.8 */
#define KVM_CAP_GUEST_MEMFD		234
#endif

#ifndef KVM_CAP_VM_TYPES				/* 6.8 */
#define KVM_CAP_VM_TYPES		235
#endif
#ifndef KVM_X86_DEFAULT_VM
#define KVM_X86_DEFAULT_VM		0
#endif

#ifndef KVM_CAP_PRE_FAULT_MEMORY			/* 6.11 */
#define KVM_CAP_PRE_FAULT_MEMORY	236
#define KVM_PRE_FAULT_MEMORY		_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)

struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};
#endif

#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS			/* 6.11 */
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS	237
#endif

#ifndef KVM_CAP_X86_GUEST_MODE				/* 6.11 */
#define KVM_CAP_X86_GUEST_MODE		238
#endif

#ifndef KVM_X86_QUIRK_SLOT_ZAP_ALL			/* 6.12 */
#define KVM_X86_QUIRK_SLOT_ZAP_ALL	(1 << 7)
#endif
#ifndef KVM_X86_QUIRK_STUFF_FEATURE_MSRS		/* 6.14 */
#define KVM_X86_QUIRK_STUFF_FEATURE_MSRS	(1 << 8)
#endif

#ifndef KVM_X86_DISABLE_EXITS_APERFMPERF		/* 6.17 */
#define KVM_X86_DISABLE_EXITS_APERFMPERF	(1 << 4)
#endif

#ifndef KVM_X86_REG_TYPE_MSR				/* 6.18 */
#define KVM_X86_REG_TYPE_MSR		2
#define KVM_X86_REG_TYPE_KVM		3
#define KVM_REG_GUEST_SSP		0
#define KVM_X86_REG_MSR(index)		\
	(KVM_REG_X86 | KVM_REG_SIZE_U64 | (__u64)KVM_X86_REG_TYPE_MSR << 32 | (index))
#define KVM_X86_REG_KVM(index)		\
	(KVM_REG_X86 | KVM_REG_SIZE_U64 | (__u64)KVM_X86_REG_TYPE_KVM << 32 | (index))
#endif

#ifndef KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST	/* 7.0 */
#define KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST	(1ULL << 2)
#define KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST	(1ULL << 3)
#endif

#endif
