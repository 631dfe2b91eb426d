// SPDX-License-Identifier: GPL-2.0-only
/*
 * setup.c - how a VM is set up, as sections before those of its state, and VMs made of both (KEEL_CREATE_VM_FROM,
 * uapi/keel.h): in a child of fork(2), or of a template's file.
 *
 * One table: a row a section, with what writes it and what does as it says.  The latter are, or share, the KVM ioctls that
 * had set the first VM up, with their checks; so a made-up set-up gets whoever gives it no more than those do.  What comes
 * is looked at in the order in which it stands, and what fails takes the new VM with it: nobody has seen it yet.
 *
 * Lock: vm->lock; to write, the VM is stopped and slots_lock held.
 */
#include <linux/file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "ioctl.h"
#include "ops.h"
#include "internal.h"

#define NOT_THERE	(-1L)
#define IMAGE_MAX	(64UL << 20)	/* of the most vCPUs and memslots that a VM can have */

/* Between two of what there may be very many of, each a call by itself: others run, and a deadly signal ends it. */
static long one_of_many(void)
{
	cond_resched();
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/* ------------------------------------------------------------- the VM's */

static long caps_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	return keel_vm_caps(vm, buf, false) * sizeof(struct keel_setup_cap) ?: NOT_THERE;
}

static long late_caps_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	return keel_vm_caps(vm, buf, true) * sizeof(struct keel_setup_cap) ?: NOT_THERE;
}

static long caps_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	const struct keel_setup_cap *cap = buf, *end = buf + size;
	long err = 0;

	for (; !err && cap < end; cap++) {
		err = cap->reserved ? -EINVAL : keel_vm_enable_cap(vm, cap->cap, cap->arg);
		if (!err)
			err = one_of_many();
	}
	return err;
}

static long vm_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	struct keel_setup_vm *s = buf;
	struct kvm_pit_config pit;

	if (!s)
		return sizeof(*s);
	s->irqchip = vm->irq.mode == IRQCHIP_KERNEL;
	s->boot_cpu = vm->bsp_id;
	s->tsc_khz = READ_ONCE(vm->clock.default_khz);
	s->mmu_pages = READ_ONCE(vm->mmu.table_limit);
	if (irq_pit_config(vm, &pit)) {
		s->pit = 1;
		s->pit_flags = pit.flags;
	}
	return sizeof(*s);
}

static long vm_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	const struct keel_setup_vm *s = buf;
	struct kvm_pit_config pit = { .flags = s->pit_flags };
	long err;

	/* All of this is of a VM without vCPUs. */
	if (s->irqchip > 1 || s->pit > 1 || vm->nr_vcpus)
		return -EINVAL;
	err = keel_set_boot_cpu_id(vm, NULL, s->boot_cpu);
	if (!err && s->irqchip)
		err = irq_create_irqchip(vm, NULL, 0);
	if (!err && s->pit)
		err = irq_create_pit2(vm, &pit, 0);
	/* The host's own needs no scaling, and a host that is slower may have none. */
	if (!err && s->tsc_khz != vm->clock.default_khz)
		err = keel_vm_set_tsc_khz(vm, NULL, s->tsc_khz);
	if (!err && s->mmu_pages)
		err = mmu_set_nr_pages(vm, NULL, s->mmu_pages);
	return err;
}

static long routes_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	return vm->irq.mode == IRQCHIP_NONE || irq_routes_are_new(vm) ?
		NOT_THERE : irq_routes_get(vm, buf) * sizeof(struct kvm_irq_routing_entry);
}

static long routes_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	return irq_routes_set(vm, buf, size / sizeof(struct kvm_irq_routing_entry));
}

static long msr_filter_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	return keel_msr_filter_setup(vm, buf) ?: NOT_THERE;
}

static long msr_filter_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	return keel_msr_filter_from(vm, buf, size);
}

static long pmu_filter_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	return keel_pmu_filter_setup(vm, buf) ?: NOT_THERE;
}

static long pmu_filter_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	return keel_pmu_filter_from(vm, buf, size);
}

static long memslots_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	return keel_memslots_list(vm, buf) * sizeof(struct kvm_userspace_memory_region) ?: NOT_THERE;
}

static long memslots_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	const struct kvm_userspace_memory_region *mem = buf, *end = buf + size;
	long err = 0;

	for (; !err && mem < end; mem++) {
		err = keel_set_memory_region(vm, (void *)mem, 0);
		if (!err)
			err = one_of_many();
	}
	return err;
}

/* ------------------------------------------------------------- a vCPU's */

static long vcpu_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	struct keel_setup_vcpu *s = buf;

	if (!s)
		return sizeof(*s);
	s->mcg_cap = vcpu->msrs.mcg_cap;
	s->enforce_pv = vcpu->pv.enforce;
	s->hyperv = keel_hv_setup(vcpu);
	s->debug.control = vcpu->debug.control;
	if (s->debug.control) {
		memcpy(s->debug.arch.debugreg, vcpu->debug.user_dr, sizeof(vcpu->debug.user_dr));
		s->debug.arch.debugreg[7] = vcpu->debug.user_dr7;
	}
	return sizeof(*s);
}

static long vcpu_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	const struct keel_setup_vcpu *s = buf;
	u64 mcg_cap = s->mcg_cap;
	long err;

	if (s->enforce_pv > 1 || s->debug.control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP))
		return -EINVAL;
	vcpu->pv.enforce = s->enforce_pv;
	err = keel_hv_from_setup(vcpu, s->hyperv);
	if (!err && mcg_cap != vcpu->msrs.mcg_cap)
		err = keel_setup_mce(vcpu, &mcg_cap, 0);
	if (!err && s->debug.control)
		err = keel_set_guest_debug(vcpu, (void *)&s->debug, 0);
	return err;
}

static long cpuid_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf)
{
	size_t size = vcpu->model.nent * sizeof(struct kvm_cpuid_entry2);

	if (buf)
		memcpy(buf, vcpu->model.entries, size);
	return size ?: NOT_THERE;
}

static long cpuid_set(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size)
{
	return keel_cpuid_set(vcpu, buf, size / sizeof(struct kvm_cpuid_entry2));
}

/* ------------------------------------------------------------- the table */

#define OF_VCPU		BIT(0)
#define MAKES_VCPU	BIT(1)
#define ANY_NUMBER	BIT(2)	/* of those */

/* Readers answer how large it is, or NOT_THERE; and write that much, unless it is to NULL. */
static const struct row {
	u32 id;
	u32 flags;
	size_t size;		/* 0: the writer looks itself */
	long (*get)(struct keel_vm *vm, struct keel_vcpu *vcpu, void *buf);
	long (*set)(struct keel_vm *vm, struct keel_vcpu *vcpu, const void *buf, size_t size);
} rows[] = {
	{ KEEL_SECTION_CAPS, ANY_NUMBER, sizeof(struct keel_setup_cap), caps_get, caps_set },
	{ KEEL_SECTION_MACHINE, 0, sizeof(struct keel_setup_vm), vm_get, vm_set },
	{ KEEL_SECTION_LATE_CAPS, ANY_NUMBER, sizeof(struct keel_setup_cap), late_caps_get, caps_set },
	{ KEEL_SECTION_ROUTES, ANY_NUMBER, sizeof(struct kvm_irq_routing_entry), routes_get, routes_set },
	{ KEEL_SECTION_MSR_FILTER, 0, 0, msr_filter_get, msr_filter_set },
	{ KEEL_SECTION_PMU_FILTER, 0, 0, pmu_filter_get, pmu_filter_set },
	{ KEEL_SECTION_MEMSLOTS, ANY_NUMBER, sizeof(struct kvm_userspace_memory_region), memslots_get, memslots_set },
	{ KEEL_SECTION_VCPU, OF_VCPU | MAKES_VCPU, sizeof(struct keel_setup_vcpu), vcpu_get, vcpu_set },
	{ KEEL_SECTION_CPUID, OF_VCPU | ANY_NUMBER, sizeof(struct kvm_cpuid_entry2), cpuid_get, cpuid_set },
};

/* All of the VM's, or of @vcpu's, to @at; NULL: only how large they are together. */
static size_t sections_get(struct keel_vm *vm, struct keel_vcpu *vcpu, void *at, u32 *sections)
{
	const struct row *row;
	size_t bytes = 0;

	for (row = rows; row < rows + ARRAY_SIZE(rows); row++) {
		struct keel_section *section = at + bytes;
		long size;

		if (!(row->flags & OF_VCPU) != !vcpu)
			continue;
		size = row->get(vm, vcpu, NULL);
		if (size == NOT_THERE)
			continue;
		if (at) {
			*section = (struct keel_section){
				.id = row->id, .vcpu = vcpu ? vcpu->id : KEEL_SECTION_VM, .length = size,
			};
			row->get(vm, vcpu, section + 1);
			++*sections;
		}
		bytes += snap_section_bytes(size);
	}
	return bytes;
}

static size_t all_sections_get(struct keel_vm *vm, void *at, u32 *sections)
{
	size_t bytes = sections_get(vm, NULL, at, sections);
	struct keel_vcpu *vcpu;
	unsigned int i;

	keel_for_each_vcpu(vcpu, i, vm)
		bytes += sections_get(vm, vcpu, at ? at + bytes : NULL, sections);
	return bytes;
}

size_t snap_setup_size(struct keel_vm *vm)
{
	return all_sections_get(vm, NULL, NULL);
}

void *snap_setup_get(struct keel_vm *vm, void *at, u32 *sections)
{
	return at + all_sections_get(vm, at, sections);
}

/* ------------------------------------------------------------- a VM made of that */

static const struct row *row_of(u32 id)
{
	const struct row *row;

	for (row = rows; row < rows + ARRAY_SIZE(rows); row++)
		if (row->id == id)
			return row;
	return NULL;
}

static long section_set(struct keel_vm *vm, const struct row *row, const struct keel_section *s)
{
	struct keel_vcpu *vcpu;
	long err;

	if (s->reserved || (row->size && (row->flags & ANY_NUMBER ? s->length % row->size : s->length != row->size)))
		return -EINVAL;
	if (!(row->flags & OF_VCPU))
		return s->vcpu == KEEL_SECTION_VM ? row->set(vm, NULL, s + 1, s->length) : -EINVAL;
	vcpu = row->flags & MAKES_VCPU ? keel_vcpu_add(vm, s->vcpu) : keel_vcpu_by_id(vm, s->vcpu);
	if (IS_ERR_OR_NULL(vcpu))
		return vcpu ? PTR_ERR(vcpu) : -EINVAL;
	keel_vcpu_load(vcpu);
	err = row->set(vm, vcpu, s + 1, s->length);
	keel_vcpu_put(vcpu);
	return err;
}

/* The VM is new, and nobody else's; vm->lock held.  What is left behind the set-up is made a state of its own. */
static long vm_build(struct keel_vm *vm, struct snap_state *image, u32 flags, struct keel_section *bad)
{
	struct keel_state_head *head = image->data;
	const struct row *row;
	long err;

	if (head->magic != KEEL_STATE_MAGIC)
		return -EINVAL;
	if (head->version != KEEL_STATE_VERSION)
		return -EPROTO;
	for (;;) {
		struct keel_section *s = (void *)(head + 1);
		struct keel_state_head next;
		size_t bytes;

		if (!head->sections || image->size < sizeof(*head) + sizeof(*s))
			break;
		row = row_of(s->id);
		if (!row)
			break;
		*bad = *s;
		bytes = snap_section_bytes(s->length);
		if (bytes > image->size - sizeof(*head))
			return -EINVAL;
		if (row->id != KEEL_SECTION_MEMSLOTS || flags & KEEL_WITH_MEMSLOTS)
			err = section_set(vm, row, s);
		else
			err = 0;
		if (err)
			return err;
		next = *head;
		next.sections--;
		head = (void *)head + bytes;
		*head = next;
		image->data = head;
		image->size -= bytes;
		err = one_of_many();
		if (err)
			return err;
	}
	*bad = (struct keel_section){};
	err = snap_state_fits(vm, image, bad);
	if (!err)
		err = snap_state_apply(vm, image, false, bad);
	return err;
}

static long create_from(struct snap_state image, u32 flags, struct keel_section *bad)
{
	int fd = get_unused_fd_flags(O_CLOEXEC);
	struct keel_vm *vm;
	struct file *file;
	long err;

	if (fd < 0)
		return fd;
	file = keel_vm_file();
	err = PTR_ERR_OR_ZERO(file);
	if (!err) {
		vm = file->private_data;
		mutex_lock(&vm->lock);
		err = vm_build(vm, &image, flags, bad);
		mutex_unlock(&vm->lock);
		if (err)
			fput(file);
	}
	if (err) {
		put_unused_fd(fd);
		return err;
	}
	fd_install(fd, file);
	return fd;
}

SYS_IOCTL(keel_create_vm_from)
{
	struct keel_state __user *user = (void __user *)arg;
	struct snap_state image;
	struct keel_state a;
	long ret;

	if (copy_from_user(&a, user, sizeof(a)))
		return -EFAULT;
	if (a.flags & ~KEEL_WITH_MEMSLOTS || a.reserved || a.size < sizeof(struct keel_state_head))
		return -EINVAL;
	if (a.size > IMAGE_MAX)
		return -E2BIG;
	image.size = a.size;
	image.data = kvmalloc(a.size, GFP_KERNEL_ACCOUNT);
	if (!image.data)
		return -ENOMEM;
	memset(&a.section, 0, sizeof(a.section));
	ret = -EFAULT;
	if (!copy_from_user(image.data, (void __user *)(unsigned long)a.data, a.size))
		ret = create_from(image, a.flags, &a.section);
	snap_state_free(&image);
	if (ret < 0 && copy_to_user(&user->section, &a.section, sizeof(a.section)))
		ret = -EFAULT;
	return ret;
}
