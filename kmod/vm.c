// SPDX-License-Identifier: GPL-2.0-only
/*
 * vm.c - a virtual machine: life, fd, ioctls (api.rst 4, "vm ioctl").
 *
 * Life: the VM fd and each vCPU fd hold a reference.  Closing the VM fd detaches what others could still
 * poke (irqfds, timers); the last reference unmaps and frees, except for the object itself, which goes
 * when the memory manager has let go of its notifier, without anyone waiting.
 *
 * Locks: vm->lock for configuration; the table names it per ioctl.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "ioctl.h"
#include "ops.h"

static atomic_t vm_count = ATOMIC_INIT(0);	/* objects not yet freed, those waiting for the notifier too */
static DECLARE_WAIT_QUEUE_HEAD(vm_gone);
static struct kmem_cache *vm_cache;

void keel_vm_get(struct keel_vm *vm)
{
	refcount_inc(&vm->refs);
}

void keel_vm_free(struct keel_vm *vm)
{
	mmdrop(vm->mm);
	kmem_cache_free(vm_cache, vm);
	if (atomic_dec_and_test(&vm_count))
		wake_up_all(&vm_gone);
}

void keel_vms_wait(void)
{
	wait_event(vm_gone, !atomic_read(&vm_count));
	/* The last waker ran with bottom halves off: once they have all been on again it has left our code. */
	synchronize_rcu();
}

void keel_vm_put(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	if (!refcount_dec_and_test(&vm->refs))
		return;
	irq_vm_stop(vm);
	keel_hw_unlist(vm);
	/* Until mmu_vm_put() the host announces what it does to memory: with no tables left nobody is to be flushed. */
	mmu_vm_release(vm);
	keel_for_each_vcpu(vcpu, i, vm)
		keel_vcpu_free(vcpu);
	xa_destroy(&vm->vcpus);
	xa_destroy(&vm->vcpus_by_id);
	irq_vm_destroy(vm);
	keel_snaps_free(vm);
	keel_stats_fold_vm(vm);
	keel_hw_put(vm);
	keel_call(vm_destroy, vm);
	keel_memslots_free(vm);
	keel_msr_filter_free(vm->msr_filter);
	kfree(vm->pmu_filter);
	free_page((unsigned long)vm->spare_page);
	keel_hv_free(vm);
	keel_apf_vm_free(vm);
	mmu_vm_put(vm);		/* keel_vm_free() follows, now or later */
}

void keel_vm_kill(struct keel_vm *vm)
{
	WRITE_ONCE(vm->dead, true);
	keel_request_all(vm, KEEL_REQ_VM_DEAD, false);
}

struct keel_vcpu *keel_vcpu_by_idx(struct keel_vm *vm, unsigned int idx)
{
	return xa_load(&vm->vcpus, idx);
}

struct keel_vcpu *keel_vcpu_by_id(struct keel_vm *vm, u32 id)
{
	struct keel_vcpu *vcpu = keel_vcpu_by_idx(vm, id);

	if (vcpu && vcpu->id == id)	/* nearly always: VMMs number them in order */
		return vcpu;
	return xa_load(&vm->vcpus_by_id, id);
}

/* ------------------------------------------------------------- ioctls */

static VM_IOCTL(vm_check_extension)
{
	long r = keel_check_extension(arg);

	if (arg == KVM_CAP_X2APIC_API && vm->irq.mode != IRQCHIP_SPLIT)
		r &= ~(long)KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST;
	if (arg == KVM_CAP_X86_APIC_BUS_CYCLES_NS)
		r = vm->irq.bus_cycle_ns;
	return r;
}

static VM_IOCTL(vm_create_vcpu)
{
	return arg > INT_MAX ? -EINVAL : keel_create_vcpu(vm, arg);
}

VM_IOCTL(keel_set_boot_cpu_id)
{
	if (vm->nr_vcpus)
		return -EBUSY;
	if (arg > (vm->max_vcpu_id ?: KEEL_MAX_VCPU_ID))
		return -EINVAL;
	vm->bsp_id = arg;
	return 0;
}

/*
 * Both addresses are pages some CPUs need inside the guest to run real mode; keel's do not, so there is
 * nothing to place.  What KVM refuses is refused.
 */
static VM_IOCTL(vm_set_tss_addr)
{
	return arg > (unsigned int)(-3 * PAGE_SIZE) ? -EINVAL : 0;
}

static VM_IOCTL(vm_set_identity_map)
{
	return vm->nr_vcpus ? -EINVAL : 0;
}

/* Ids are below it; once, before there is any vCPU. */
static long vm_cap_max_vcpu_id(struct keel_vm *vm, u64 arg)
{
	if (arg < vm->bsp_id)
		return -EINVAL;
	if (vm->max_vcpu_id && arg == vm->max_vcpu_id)
		return 0;
	if (!arg || arg > KEEL_MAX_VCPU_ID || vm->nr_vcpus || vm->max_vcpu_id)
		return -EINVAL;
	vm->max_vcpu_id = arg;
	return 0;
}

static void vm_set_event_flag(struct keel_vm *vm, u32 flag, bool on)
{
	vm->event_flags = on ? vm->event_flags | flag : vm->event_flags & ~flag;
}

static long vm_cap_exception_payload(struct keel_vm *vm, u64 arg)
{
	vm_set_event_flag(vm, KVM_VCPUEVENT_VALID_PAYLOAD, arg);
	return 0;
}

static long vm_cap_triple_fault_event(struct keel_vm *vm, u64 arg)
{
	vm_set_event_flag(vm, KVM_VCPUEVENT_VALID_TRIPLE_FAULT, arg);
	return 0;
}

static long vm_cap_user_space_msr(struct keel_vm *vm, u64 arg)
{
	if (arg & ~(u64)(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER))
		return -EINVAL;
	WRITE_ONCE(vm->msr_exits, arg);
	return 0;
}

/* The older form takes any bits; those that mean nothing here are dropped.  What is off stays off. */
static long vm_cap_disable_quirks(struct keel_vm *vm, u64 arg)
{
	WRITE_ONCE(vm->quirks_off, vm->quirks_off | (arg & KEEL_QUIRKS));
	keel_request_all(vm, KEEL_REQ_INTERCEPTS, false);
	return 0;
}

static long vm_cap_disable_quirks2(struct keel_vm *vm, u64 arg)
{
	return arg & ~(u64)KEEL_QUIRKS ? -EINVAL : vm_cap_disable_quirks(vm, arg);
}

static long vm_cap_disable_exits(struct keel_vm *vm, u64 arg)
{
	if (arg & ~(u64)keel_check_extension(KVM_CAP_X86_DISABLE_EXITS) || vm->nr_vcpus)
		return -EINVAL;
	vm->exits_off |= arg;
	return 0;
}

static long vm_cap_platform_info(struct keel_vm *vm, u64 arg)
{
	WRITE_ONCE(vm->no_platform_info, !arg);
	return 0;
}

static long vm_cap_exit_hypercall(struct keel_vm *vm, u64 arg)
{
	if (arg & ~(u64)KEEL_EXIT_HYPERCALLS)
		return -EINVAL;
	WRITE_ONCE(vm->exit_hypercalls, arg);
	return 0;
}

static long vm_cap_exit_on_emulation_failure(struct keel_vm *vm, u64 arg)
{
	if (arg & ~1ULL)
		return -EINVAL;
	WRITE_ONCE(vm->exit_on_emulation_failure, arg);
	return 0;
}

/* Was it enabled, with what argument?  In the VM's set-up, if it makes a difference. */
#define VM_CAP_WAS(name, differs, value)				\
static bool vm_cap_was_##name(const struct keel_vm *vm, u64 *arg)	\
{									\
	*arg = value;							\
	return differs;							\
}
VM_CAP_WAS(split, vm->irq.mode == IRQCHIP_SPLIT, vm->irq.split_pins)
VM_CAP_WAS(max_vcpu_id, *arg, vm->max_vcpu_id)
VM_CAP_WAS(x2apic_api, *arg, irq_x2apic_api(vm))
VM_CAP_WAS(exits, *arg, vm->exits_off)
VM_CAP_WAS(platform_info, vm->no_platform_info, 0)
VM_CAP_WAS(exception_payload, *arg, !!(vm->event_flags & KVM_VCPUEVENT_VALID_PAYLOAD))
VM_CAP_WAS(dirty_log, *arg, vm->slots.dirty_log_caps)
VM_CAP_WAS(msr_exits, *arg, vm->msr_exits)
VM_CAP_WAS(dirty_ring, *arg, vm->slots.ring_entries * sizeof(struct kvm_dirty_gfn))
VM_CAP_WAS(hypercalls, *arg, vm->exit_hypercalls)
VM_CAP_WAS(emulation_failure, *arg, vm->exit_on_emulation_failure)
VM_CAP_WAS(quirks, *arg, vm->quirks_off)
VM_CAP_WAS(triple_fault, *arg, !!(vm->event_flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT))
VM_CAP_WAS(pmu, vm->no_pmu, KVM_PMU_CAP_DISABLE)
VM_CAP_WAS(bus_cycle, *arg != IRQ_BUS_CYCLE_NS, vm->irq.bus_cycle_ns)

static const struct vm_cap {
	u32 cap;
	long (*enable)(struct keel_vm *vm, u64 arg);	/* vm->lock is held */
	bool (*was)(const struct keel_vm *vm, u64 *arg);	/* NULL: another row tells */
	bool late;		/* only when there are interrupt controllers */
} vm_caps[] = {
	{ KVM_CAP_DISABLE_QUIRKS, vm_cap_disable_quirks },
	{ KVM_CAP_SPLIT_IRQCHIP, irq_enable_split, vm_cap_was_split },
	{ KVM_CAP_MAX_VCPU_ID, vm_cap_max_vcpu_id, vm_cap_was_max_vcpu_id },
	{ KVM_CAP_X2APIC_API, irq_enable_x2apic_api, vm_cap_was_x2apic_api },
	{ KVM_CAP_X86_DISABLE_EXITS, vm_cap_disable_exits, vm_cap_was_exits },
	{ KVM_CAP_MSR_PLATFORM_INFO, vm_cap_platform_info, vm_cap_was_platform_info },
	{ KVM_CAP_EXCEPTION_PAYLOAD, vm_cap_exception_payload, vm_cap_was_exception_payload },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, keel_enable_dirty_log_caps, vm_cap_was_dirty_log },
	{ KVM_CAP_X86_USER_SPACE_MSR, vm_cap_user_space_msr, vm_cap_was_msr_exits },
	{ KVM_CAP_DIRTY_LOG_RING, keel_enable_dirty_ring, vm_cap_was_dirty_ring },
	{ KVM_CAP_EXIT_HYPERCALL, vm_cap_exit_hypercall, vm_cap_was_hypercalls },
	{ KVM_CAP_EXIT_ON_EMULATION_FAILURE, vm_cap_exit_on_emulation_failure, vm_cap_was_emulation_failure },
	{ KVM_CAP_DISABLE_QUIRKS2, vm_cap_disable_quirks2, vm_cap_was_quirks },
	{ KVM_CAP_X86_TRIPLE_FAULT_EVENT, vm_cap_triple_fault_event, vm_cap_was_triple_fault },
	{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, keel_enable_dirty_ring },
	{ KVM_CAP_PMU_CAPABILITY, keel_pmu_enable_cap, vm_cap_was_pmu },
	{ KVM_CAP_X86_APIC_BUS_CYCLES_NS, irq_set_bus_cycle, vm_cap_was_bus_cycle, true },
};

long keel_vm_enable_cap(struct keel_vm *vm, u32 cap, u64 arg)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vm_caps); i++)
		if (vm_caps[i].cap == cap)
			return vm_caps[i].enable(vm, arg);
	return -EINVAL;
}

unsigned int keel_vm_caps(const struct keel_vm *vm, struct keel_setup_cap *caps, bool late)
{
	unsigned int i, n = 0;
	u64 arg;

	for (i = 0; i < ARRAY_SIZE(vm_caps); i++) {
		if (vm_caps[i].late != late || !vm_caps[i].was || !vm_caps[i].was(vm, &arg))
			continue;
		if (caps)
			caps[n] = (struct keel_setup_cap){ .cap = vm_caps[i].cap, .arg = arg };
		n++;
	}
	return n;
}

static VM_IOCTL(vm_enable_cap)
{
	const struct kvm_enable_cap *cap = buf;

	return cap->flags ? -EINVAL : keel_vm_enable_cap(vm, cap->cap, cap->args[0]);
}

/* There is no device of those that are made so: the controllers of a PC have ioctls of their own. */
static VM_IOCTL(vm_create_device)
{
	return -ENODEV;
}

static const struct keel_ioctl vm_ioctls[] = {
	VM_ENTRY(KVM_CHECK_EXTENSION, LOCK_NONE, vm_check_extension),
	VM_ENTRY(KVM_CREATE_VCPU, LOCK_VM, vm_create_vcpu),
	VM_ENTRY(KVM_SET_USER_MEMORY_REGION, LOCK_NONE, keel_set_memory_region),
	VM_ENTRY(KVM_SET_USER_MEMORY_REGION2, LOCK_NONE, keel_set_memory_region),
	VM_ENTRY(KVM_SET_NR_MMU_PAGES, LOCK_NONE, mmu_set_nr_pages),
	VM_ENTRY(KVM_GET_NR_MMU_PAGES, LOCK_NONE, mmu_get_nr_pages),
	VM_ENTRY(KVM_GET_DIRTY_LOG, LOCK_NONE, keel_get_dirty_log),
	VM_ENTRY(KVM_CLEAR_DIRTY_LOG, LOCK_NONE, keel_clear_dirty_log),
	VM_ENTRY(KVM_RESET_DIRTY_RINGS, LOCK_NONE, keel_reset_dirty_rings),
	VM_ENTRY(KVM_SET_TSS_ADDR, LOCK_NONE, vm_set_tss_addr),
	VM_ENTRY(KVM_SET_IDENTITY_MAP_ADDR, LOCK_VM, vm_set_identity_map),
	VM_ENTRY(KVM_SET_BOOT_CPU_ID, LOCK_VM, keel_set_boot_cpu_id),
	VM_ENTRY(KVM_ENABLE_CAP, LOCK_VM, vm_enable_cap),
	VM_ENTRY(KVM_CREATE_IRQCHIP, LOCK_VM, irq_create_irqchip),
	VM_ENTRY(KVM_CREATE_PIT, LOCK_VM, irq_create_pit),
	VM_ENTRY(KVM_CREATE_PIT2, LOCK_VM, irq_create_pit2),
	VM_ENTRY(KVM_GET_PIT, LOCK_VM, irq_get_pit),
	VM_ENTRY(KVM_SET_PIT, LOCK_VM | ARG_RAW, irq_set_pit),
	VM_ENTRY(KVM_GET_PIT2, LOCK_VM, irq_get_pit2),
	VM_ENTRY(KVM_SET_PIT2, LOCK_VM, irq_set_pit2),
	VM_ENTRY(KVM_REINJECT_CONTROL, LOCK_VM | ARG_RAW, irq_reinject_control),
	VM_ENTRY(KVM_GET_IRQCHIP, LOCK_VM, irq_get_irqchip),
	VM_ENTRY(KVM_SET_IRQCHIP, LOCK_VM | ARG_RAW, irq_set_irqchip),
	VM_ENTRY(KVM_IRQ_LINE, LOCK_NONE, irq_line),
	VM_ENTRY(KVM_IRQ_LINE_STATUS, LOCK_NONE, irq_line_status),
	VM_ENTRY(KVM_SET_GSI_ROUTING, LOCK_VM | ARG_RAW, irq_set_routing),
	VM_ENTRY(KVM_SIGNAL_MSI, LOCK_NONE, irq_signal_msi),
	VM_ENTRY(KVM_IRQFD, LOCK_NONE, irq_irqfd),
	VM_ENTRY(KVM_IOEVENTFD, LOCK_NONE, irq_ioeventfd),
	VM_ENTRY(KVM_REGISTER_COALESCED_MMIO, LOCK_NONE, irq_register_coalesced),
	VM_ENTRY(KVM_UNREGISTER_COALESCED_MMIO, LOCK_NONE, irq_unregister_coalesced),
	VM_ENTRY(KVM_GET_CLOCK, LOCK_NONE, keel_get_clock),
	VM_ENTRY(KVM_SET_CLOCK, LOCK_NONE, keel_set_clock),
	VM_ENTRY(KVM_SET_TSC_KHZ, LOCK_VM, keel_vm_set_tsc_khz),
	VM_ENTRY(KVM_GET_TSC_KHZ, LOCK_VM, keel_vm_get_tsc_khz),
	VM_ENTRY(KVM_X86_SET_MSR_FILTER, LOCK_VM, keel_set_msr_filter),
	VM_ENTRY(KVM_SET_PMU_EVENT_FILTER, LOCK_VM, keel_set_pmu_event_filter),
	VM_ENTRY(KVM_CREATE_DEVICE, LOCK_NONE, vm_create_device),
	VM_ENTRY(KVM_HYPERV_EVENTFD, LOCK_NONE, keel_hv_eventfd),
	VM_ENTRY(KVM_GET_STATS_FD, LOCK_NONE, keel_vm_stats_fd),
	VM_ENTRY(KEEL_GET_INFO, LOCK_NONE, keel_get_info),
	VM_ENTRY(KEEL_GET_STATE, LOCK_VM | ARG_RAW, keel_get_state),
	VM_ENTRY(KEEL_SET_STATE, LOCK_VM | ARG_RAW, keel_set_state),
	VM_ENTRY(KEEL_SNAPSHOT, LOCK_VM, keel_snapshot),
	VM_ENTRY(KEEL_RESET, LOCK_VM, keel_reset),
	VM_ENTRY(KEEL_DROP, LOCK_VM, keel_drop),
	VM_ENTRY(KEEL_ALLOW_RESET, LOCK_VM, keel_allow_reset),
	VM_ENTRY(KEEL_WORKING_SET, LOCK_NONE, mmu_working_set),
	VM_ENTRY(KEEL_MARK_DIRTY, LOCK_NONE, keel_mark_dirty),
};

static KEEL_IOCTLS(vm_table, vm_ioctls);

static long vm_call(const struct keel_ioctl *row, struct keel_vm *vm, unsigned long arg)
{
	return keel_ioctl_is_raw(row) ? row->vm(vm, NULL, arg) : keel_ioctl_copied(row, vm, arg);
}

static long vm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct keel_vm *vm = file->private_data;
	const struct keel_ioctl *row;
	long ret;

	if (vm->mm != current->mm || READ_ONCE(vm->dead))
		return -EIO;
	row = keel_ioctl_find(&vm_table, cmd);
	if (!row)
		return -ENOTTY;
	if (row->lock != LOCK_VM)
		return vm_call(row, vm, arg);
	mutex_lock(&vm->lock);
	ret = vm_call(row, vm, arg);
	mutex_unlock(&vm->lock);
	return ret;
}

static int vm_release(struct inode *inode, struct file *file)
{
	struct keel_vm *vm = file->private_data;

	irq_vm_release(vm);
	keel_vm_put(vm);
	return 0;
}

static const struct file_operations vm_fops = {
	.owner = THIS_MODULE,
	.release = vm_release,
	.unlocked_ioctl = vm_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct keel_vm *vm_alloc(void)
{
	struct keel_vm *vm = kmem_cache_zalloc(vm_cache, GFP_KERNEL_ACCOUNT);

	if (!vm)
		return NULL;
	atomic_inc(&vm_count);
	vm->mm = current->mm;
	mmgrab(vm->mm);
	vm->owner = task_tgid_nr(current);
	refcount_set(&vm->refs, 1);
	mutex_init(&vm->lock);
	mutex_init(&vm->slots_lock);
	spin_lock_init(&vm->pause_lock);
	INIT_LIST_HEAD(&vm->active);
	init_waitqueue_head(&vm->pausers);
	init_waitqueue_head(&vm->paused);
	xa_init_flags(&vm->vcpus, XA_FLAGS_ACCOUNT);
	xa_init_flags(&vm->vcpus_by_id, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&vm->list);
	vm->event_flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW |
			  KVM_VCPUEVENT_VALID_SMM;
	keel_memslots_init(vm);
	keel_clock_vm_init(vm);
	return vm;
}

struct file *keel_vm_file(void)
{
	struct keel_vm *vm;
	struct file *file;
	int err;

	vm = vm_alloc();
	if (!vm)
		return ERR_PTR(-ENOMEM);
	err = keel_hw_get(vm);
	if (err)
		goto no_hw;
	err = keel_call(vm_init, vm);
	if (err)
		goto no_backend;
	irq_vm_init(vm);
	err = mmu_vm_init(vm);
	if (err)
		goto no_mmu;

	/* From here on the file owns the VM. */
	file = anon_inode_getfile("keel-vm", &vm_fops, vm, O_RDWR);
	if (IS_ERR(file)) {
		irq_vm_release(vm);
		keel_vm_put(vm);
	}
	return file;
no_mmu:
	irq_vm_release(vm);
	irq_vm_destroy(vm);
	keel_call(vm_destroy, vm);
no_backend:
	keel_hw_put(vm);
no_hw:
	keel_vm_free(vm);
	return ERR_PTR(err);
}

long keel_create_vm(unsigned long type)
{
	struct file *file;
	int fd;

	if (type != KVM_X86_DEFAULT_VM)
		return -EINVAL;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	file = keel_vm_file();
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	fd_install(fd, file);
	return fd;
}

int __init keel_objects_init(void)
{
	keel_ioctls_index(&vm_table);
	keel_ioctls_index(&keel_vcpu_ioctls);
	vm_cache = kmem_cache_create("keel_vm", max(keel_hw.vm_size, sizeof(struct keel_vm)), 0, SLAB_ACCOUNT, NULL);
	if (!vm_cache)
		return -ENOMEM;
	keel_vcpu_cache = kmem_cache_create("keel_vcpu", keel_hw.vcpu_size, 64, SLAB_ACCOUNT, NULL);
	if (keel_vcpu_cache)
		return 0;
	kmem_cache_destroy(vm_cache);
	return -ENOMEM;
}

void keel_objects_exit(void)
{
	kmem_cache_destroy(keel_vcpu_cache);
	kmem_cache_destroy(vm_cache);
}
