// SPDX-License-Identifier: GPL-2.0-only
/*
 * main.c - load and unload, /dev/keel, and the ioctls of that node ("system ioctls", api.rst 4.1 ff.).
 *
 * Locks: none; the node has no state of its own.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <asm/kvm_para.h>
#include "ops.h"
#include "ioctl.h"
#include "cpu/mitigate.h"

#if !KEEL_MAY_SET_CR4
#pragma message("this kernel keeps CR4.VMXE to kvm.ko: on Intel keel.ko will run VMs beside kvm_intel only")
#endif

/* KVM_CHECK_EXTENSION: what is not in the table is not there, and answers 0. */
static const struct keel_cap {
	u32 cap;
	int value;
} keel_caps[] = {
	{ KVM_CAP_IRQCHIP, 1 },
	{ KVM_CAP_HLT, 1 },
	{ KVM_CAP_USER_MEMORY, 1 },
	{ KVM_CAP_USER_MEMORY2, 1 },
	{ KVM_CAP_MEMORY_FAULT_INFO, 1 },
	{ KVM_CAP_VM_TYPES, BIT(KVM_X86_DEFAULT_VM) },
	{ KVM_CAP_ONE_REG, 1 },
	{ KVM_CAP_NESTED_STATE, sizeof(struct kvm_nested_state) },
	{ KVM_CAP_SET_TSS_ADDR, 1 },
	{ KVM_CAP_EXT_CPUID, 1 },
	{ KVM_CAP_EXT_EMUL_CPUID, 1 },
	{ KVM_CAP_CLOCKSOURCE, 1 },
	{ KVM_CAP_MMU_SHADOW_CACHE_CONTROL, 1 },
	{ KVM_CAP_NR_MEMSLOTS, KEEL_MAX_MEMSLOTS },
	{ KVM_CAP_PIT, 1 },
	{ KVM_CAP_NOP_IO_DELAY, 1 },
	{ KVM_CAP_MP_STATE, 1 },
	{ KVM_CAP_COALESCED_MMIO, KVM_COALESCED_MMIO_PAGE_OFFSET },
	{ KVM_CAP_SYNC_MMU, 1 },
	{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1 },
	{ KVM_CAP_USER_NMI, 1 },
	{ KVM_CAP_IRQ_ROUTING, 4096 },
	{ KVM_CAP_IRQ_INJECT_STATUS, 1 },
	{ KVM_CAP_IRQFD, 1 },
	{ KVM_CAP_IRQFD_RESAMPLE, 1 },
	{ KVM_CAP_PIT2, 1 },
	{ KVM_CAP_PIT_STATE2, 1 },
	{ KVM_CAP_REINJECT_CONTROL, 1 },
	{ KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1 },
	{ KVM_CAP_MCE, KEEL_MCE_BANKS },
	{ KVM_CAP_IOEVENTFD, 1 },
	{ KVM_CAP_IOEVENTFD_NO_LENGTH, 1 },
	{ KVM_CAP_IOEVENTFD_ANY_LENGTH, 1 },
	{ KVM_CAP_SET_IDENTITY_MAP_ADDR, 1 },
	{ KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC },
	{ KVM_CAP_INTERNAL_ERROR_DATA, 1 },
	{ KVM_CAP_VCPU_EVENTS, 1 },
	{ KVM_CAP_DEBUGREGS, 1 },
	{ KVM_CAP_ENABLE_CAP, 1 },
	{ KVM_CAP_ENABLE_CAP_VM, 1 },
	{ KVM_CAP_XSAVE, 1 },
	{ KVM_CAP_GET_TSC_KHZ, 1 },
	{ KVM_CAP_TSC_DEADLINE_TIMER, 1 },
	{ KVM_CAP_MAX_VCPUS, KEEL_MAX_VCPUS },
	{ KVM_CAP_MAX_VCPU_ID, KEEL_MAX_VCPU_ID },
	{ KVM_CAP_KVMCLOCK_CTRL, 1 },
	{ KVM_CAP_HYPERV, 1 },
	{ KVM_CAP_HYPERV_VAPIC, 1 },
	{ KVM_CAP_HYPERV_SPIN, 1 },
	{ KVM_CAP_HYPERV_TIME, 1 },
	{ KVM_CAP_HYPERV_SYNIC, 1 },
	{ KVM_CAP_HYPERV_SYNIC2, 1 },
	{ KVM_CAP_HYPERV_VP_INDEX, 1 },
	{ KVM_CAP_HYPERV_EVENTFD, 1 },
	{ KVM_CAP_HYPERV_TLBFLUSH, 1 },
	{ KVM_CAP_HYPERV_SEND_IPI, 1 },
	{ KVM_CAP_HYPERV_CPUID, 1 },
	{ KVM_CAP_SYS_HYPERV_CPUID, 1 },
	{ KVM_CAP_HYPERV_ENFORCE_CPUID, 1 },
	{ KVM_CAP_ASYNC_PF, 1 },
	{ KVM_CAP_ASYNC_PF_INT, 1 },
	{ KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1 },
	{ KVM_CAP_READONLY_MEM, 1 },
	{ KVM_CAP_SIGNAL_MSI, 1 },
	{ KVM_CAP_CHECK_EXTENSION_VM, 1 },
	{ KVM_CAP_SPLIT_IRQCHIP, 1 },
	{ KVM_CAP_X2APIC_API, IRQ_X2APIC_API_FLAGS },
	{ KVM_CAP_IMMEDIATE_EXIT, 1 },
	{ KVM_CAP_GET_MSR_FEATURES, 1 },
	{ KVM_CAP_COALESCED_PIO, 1 },
	{ KVM_CAP_EXCEPTION_PAYLOAD, 1 },
	{ KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1 },
	{ KVM_CAP_X86_USER_SPACE_MSR, 1 },
	{ KVM_CAP_X86_MSR_FILTER, 1 },
	{ KVM_CAP_DISABLE_QUIRKS, 1 },
	{ KVM_CAP_DISABLE_QUIRKS2, KEEL_QUIRKS },
	{ KVM_CAP_SET_GUEST_DEBUG, 1 },
	{ KVM_CAP_SET_GUEST_DEBUG2, KEEL_GUESTDBG },
	{ KVM_CAP_SYNC_REGS, KEEL_SYNC_REGS },
	{ KVM_CAP_MSR_PLATFORM_INFO, 1 },
	{ KVM_CAP_EXIT_HYPERCALL, KEEL_EXIT_HYPERCALLS },
	{ KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1 },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET },
	{ KVM_CAP_DIRTY_LOG_RING, KEEL_DIRTY_RING_MAX * sizeof(struct kvm_dirty_gfn) },
	{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KEEL_DIRTY_RING_MAX * sizeof(struct kvm_dirty_gfn) },
	{ KVM_CAP_SREGS2, 1 },
	{ KVM_CAP_BINARY_STATS_FD, 1 },
	{ KVM_CAP_SET_BOOT_CPU_ID, 1 },
	{ KVM_CAP_VCPU_ATTRIBUTES, 1 },
	{ KVM_CAP_SYS_ATTRIBUTES, 1 },
	{ KVM_CAP_SYSTEM_EVENT_DATA, 1 },
	{ KVM_CAP_IOAPIC_POLARITY_IGNORED, 1 },
	{ KVM_CAP_X86_ROBUST_SINGLESTEP, 1 },
	{ KVM_CAP_X86_SMM, 1 },
	{ KVM_CAP_MULTI_ADDRESS_SPACE, KEEL_SPACES },
	{ KVM_CAP_PMU_EVENT_FILTER, 1 },
	{ KVM_CAP_PMU_EVENT_MASKED_EVENTS, 1 },
	{ KVM_CAP_X86_APIC_BUS_CYCLES_NS, IRQ_BUS_CYCLE_NS },
};

int keel_check_extension(unsigned long cap)
{
	unsigned int i;

	switch (cap) {
	case KVM_CAP_NR_VCPUS:
		return min_t(unsigned int, num_online_cpus(), KEEL_MAX_VCPUS);
	case KVM_CAP_XSAVE2:
		return keel_xsave_size();
	case KVM_CAP_XCRS:
		return !!boot_cpu_has(X86_FEATURE_XSAVE);
	case KVM_CAP_X86_DISABLE_EXITS:
		/* PAUSE never exits.  A wait in the guest must not stop the host's timer. */
		return KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE |
		       (boot_cpu_has(X86_FEATURE_APERFMPERF) ? KVM_X86_DISABLE_EXITS_APERFMPERF : 0) |
		       (boot_cpu_has(X86_FEATURE_MWAIT) && boot_cpu_has(X86_FEATURE_ARAT) &&
			!boot_cpu_has_bug(X86_BUG_MONITOR) ? KVM_X86_DISABLE_EXITS_MWAIT : 0);
	case KVM_CAP_STEAL_TIME:
		return !!(keel_pv_features() & BIT(KVM_FEATURE_STEAL_TIME));
	case KVM_CAP_PMU_CAPABILITY:
		return keel_pmu_caps();
	case KVM_CAP_PRE_FAULT_MEMORY:
		return keel_hw.two_dim;
	case KVM_CAP_TSC_CONTROL:
	case KVM_CAP_VM_TSC_CONTROL:
		return keel_hw.tsc_scaling;
	}
	for (i = 0; i < ARRAY_SIZE(keel_caps); i++)
		if (keel_caps[i].cap == cap)
			return keel_caps[i].value;
	return 0;
}

static SYS_IOCTL(sys_api_version)
{
	return arg ? -EINVAL : KVM_API_VERSION;
}

static SYS_IOCTL(sys_create_vm)
{
	return keel_create_vm(arg);
}

static SYS_IOCTL(sys_check_extension)
{
	return keel_check_extension(arg);
}

static SYS_IOCTL(sys_mmap_size)
{
	return arg ? -EINVAL : KEEL_VCPU_MMAP_PAGES * PAGE_SIZE;
}

static SYS_IOCTL(sys_get_info)
{
	return keel_get_info(NULL, buf, arg);
}

static const struct keel_ioctl sys_ioctls[] = {
	SYS_ENTRY(KVM_GET_API_VERSION, LOCK_NONE, sys_api_version),
	SYS_ENTRY(KVM_CREATE_VM, LOCK_NONE, sys_create_vm),
	SYS_ENTRY(KVM_CHECK_EXTENSION, LOCK_NONE, sys_check_extension),
	SYS_ENTRY(KVM_GET_VCPU_MMAP_SIZE, LOCK_NONE, sys_mmap_size),
	SYS_ENTRY(KVM_GET_SUPPORTED_CPUID, LOCK_NONE | ARG_RAW, keel_get_supported_cpuid),
	SYS_ENTRY(KVM_GET_EMULATED_CPUID, LOCK_NONE | ARG_RAW, keel_get_emulated_cpuid),
	SYS_ENTRY(KVM_GET_SUPPORTED_HV_CPUID, LOCK_NONE | ARG_RAW, keel_get_supported_hv_cpuid),
	SYS_ENTRY(KVM_GET_MSR_INDEX_LIST, LOCK_NONE | ARG_RAW, keel_get_msr_index_list),
	SYS_ENTRY(KVM_GET_MSR_FEATURE_INDEX_LIST, LOCK_NONE | ARG_RAW, keel_get_msr_feature_index_list),
	SYS_ENTRY(KVM_GET_MSRS, LOCK_NONE | ARG_RAW, keel_get_system_msrs),
	SYS_ENTRY(KVM_HAS_DEVICE_ATTR, LOCK_NONE, keel_sys_has_attr),
	SYS_ENTRY(KVM_GET_DEVICE_ATTR, LOCK_NONE, keel_sys_get_attr),
	SYS_ENTRY(KVM_X86_GET_MCE_CAP_SUPPORTED, LOCK_NONE, keel_get_mce_cap_supported),
	SYS_ENTRY(KEEL_BESIDE_KVM, LOCK_NONE | ARG_RAW, keel_beside_kvm),
	SYS_ENTRY(KEEL_GET_INFO, LOCK_NONE, sys_get_info),
	SYS_ENTRY(KEEL_CREATE_VM_FROM, LOCK_NONE | ARG_RAW, keel_create_vm_from),
};

static KEEL_IOCTLS(sys_table, sys_ioctls);

void __init keel_ioctls_index(struct keel_ioctls *t)
{
	const struct keel_ioctl *row;
	unsigned int nr;

	for (nr = 0; nr < ARRAY_SIZE(t->first); nr++)
		t->first[nr] = t->rows;
	for (row = t->end; row-- > t->rows; )
		t->first[_IOC_NR(row->cmd)] = row;
}

const struct keel_ioctl *keel_ioctl_next(const struct keel_ioctls *t, const struct keel_ioctl *row, unsigned int cmd)
{
	while (++row < t->end)
		if (row->cmd == cmd)
			return row;
	return NULL;
}

#define KEEL_ARG_ON_STACK	1024	/* the largest that is not a page */

/* Bring the argument into the kernel, call, bring the answer back. */
long keel_ioctl_copied(const struct keel_ioctl *row, void *object, unsigned long arg)
{
	u64 small[KEEL_ARG_ON_STACK / sizeof(u64)] __uninitialized;
	unsigned int size = _IOC_SIZE(row->cmd), dir = _IOC_DIR(row->cmd);
	void __user *uarg = (void __user *)arg;
	void *buf = small;
	long ret;

	if (size > sizeof(small)) {
		buf = kzalloc(size, GFP_KERNEL_ACCOUNT);
		if (!buf)
			return -ENOMEM;
	} else if (!(dir & _IOC_WRITE) && !(row->flags & ARG_FILLED)) {
		memset(buf, 0, size);	/* what a handler leaves alone must not leak the stack */
	}
	ret = -EFAULT;
	if ((dir & _IOC_WRITE) && copy_from_user(buf, uarg, size))
		goto out;
	ret = row->call(row, object, buf, arg);
	if (ret >= 0 && (dir & _IOC_READ) && copy_to_user(uarg, buf, size))
		ret = -EFAULT;
out:
	if (buf != small)
		kfree(buf);
	return ret;
}

static long keel_dev_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	const struct keel_ioctl *row = keel_ioctl_find(&sys_table, cmd);

	if (!row)
		return -EINVAL;
	return keel_ioctl_is_raw(row) ? row->sys(NULL, arg) : keel_ioctl_copied(row, NULL, arg);
}

static const struct file_operations keel_dev_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = keel_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static int minor = MISC_DYNAMIC_MINOR;
module_param(minor, int, 0444);
MODULE_PARM_DESC(minor, "Minor number of the node, 128 to 254; 232 for who makes /dev/kvm by number (255: any)");

static struct miscdevice keel_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "keel",
	.fops = &keel_dev_fops,
	.mode = 0600,
	.groups = keel_share_groups,
};

static int __init keel_module_init(void)
{
	int err;

	/* Between those that are given out. */
	if (minor < 128 || minor > MISC_DYNAMIC_MINOR) {
		pr_err("keel: not loaded: minor=%d is not from 128 to 255\n", minor);
		return -EINVAL;
	}
	err = keel_hw_init();
	if (err)
		return err;
	err = keel_mitigate_setup();
	if (err)
		goto hw;
	err = keel_fpu_setup();
	if (err)
		goto mitigate;
	keel_pmu_setup();
	keel_cpuid_setup();
	keel_ioctls_index(&sys_table);
	err = keel_objects_init();
	if (err)
		goto mitigate;
	err = mmu_init();
	if (err)
		goto objects;
	err = keel_apf_setup();
	if (err)
		goto mmu;
	err = irq_room_init();
	if (err)
		goto apf;
	err = keel_snaps_init();
	if (err)
		goto irq;
	err = keel_stats_init();
	if (err)
		goto snaps;
	keel_clock_setup();
	preempt_notifier_inc();
	keel_dev.minor = minor;
	err = misc_register(&keel_dev);
	if (err) {
		if (err == -EBUSY)
			pr_err("keel: not loaded: another device has minor=%d\n", minor);
		goto stats;
	}
	pr_info("keel: %s, %s paging with pages up to %s; VMMs find it at /dev/keel\n", keel_hw.name,
		keel_hw.two_dim ? "nested" : "shadow", keel_hw.max_page_level == 3 ? "1G" : "2M");
	return 0;
stats:
	preempt_notifier_dec();
	keel_clock_exit();
	keel_stats_exit();
snaps:
	keel_snaps_exit();
irq:
	irq_room_exit();
apf:
	keel_apf_exit();
mmu:
	mmu_exit();
objects:
	keel_objects_exit();
mitigate:
	keel_mitigate_exit();
hw:
	keel_hw_exit();
	return err;
}

static void __exit keel_module_exit(void)
{
	misc_deregister(&keel_dev);
	/* The last VM's memory may still wait for the memory manager to let go of its notifier. */
	keel_vms_wait();
	preempt_notifier_dec();
	keel_clock_exit();
	keel_stats_exit();
	keel_snaps_exit();
	irq_room_exit();
	keel_apf_exit();
	mmu_exit();
	keel_objects_exit();
	keel_mitigate_exit();
	keel_hw_exit();
}

module_init(keel_module_init);
module_exit(keel_module_exit);
MODULE_DESCRIPTION("keel: hypervisor that speaks KVM's ioctl ABI");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
