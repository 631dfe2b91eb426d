// SPDX-License-Identifier: GPL-2.0-only
/*
 * The node itself: system ioctls, what they offer, and how they refuse.
 */
#include "test.h"

FIXTURE(node) {
	int fd;
};

FIXTURE_SETUP(node)
{
	self->fd = node_open();
}

FIXTURE_TEARDOWN(node)
{
	close(self->fd);
}

TEST_F(node, api_version)
{
	EXPECT_EQ(12, xioctl(self->fd, KVM_GET_API_VERSION, 0));
	EXPECT_EQ(-EINVAL, xioctl(self->fd, KVM_GET_API_VERSION, 1));
}

TEST_F(node, mmap_size)
{
	int size = xioctl(self->fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	EXPECT_EQ(-EINVAL, xioctl(self->fd, KVM_GET_VCPU_MMAP_SIZE, 1));
	EXPECT_GE(size, (int)sizeof(struct kvm_run));
	EXPECT_EQ(0, size % 4096);
	/* kvm_run, the PIO page, and the coalesced ring where it is said to be */
	EXPECT_GE(size, 4096 * (1 + xioctl(self->fd, KVM_CHECK_EXTENSION,
					   KVM_CAP_COALESCED_MMIO)));
}

TEST_F(node, unknown_ioctl)
{
	char buf[4096] = { 0 };

	EXPECT_EQ(-EINVAL, xioctl(self->fd, _IO(KVMIO, 0xff), 0));
	EXPECT_EQ(-EINVAL, xioctl(self->fd, _IOWR(KVMIO, 0xfe, char[64]),
				   buf));
	/* of another object */
	EXPECT_EQ(-EINVAL, xioctl(self->fd, KVM_RUN, 0));
	EXPECT_EQ(-EINVAL, xioctl(self->fd, KVM_CREATE_IRQCHIP, 0));
	EXPECT_EQ(-EINVAL, xioctl(self->fd, _IO('x', 1), 0));
	/* the number of a known one, with another size of argument */
	EXPECT_EQ(-EINVAL, xioctl(self->fd, _IO(KVMIO, 0x05), buf));
}

TEST_F(node, no_read_write_mmap)
{
	char c;

	EXPECT_EQ(-1, read(self->fd, &c, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->fd, &c, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_SHARED,
				   self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
}

TEST_F(node, extensions)
{
	static const int yes[] = {
		KVM_CAP_IRQCHIP, KVM_CAP_HLT, KVM_CAP_USER_MEMORY,
		KVM_CAP_SET_TSS_ADDR, KVM_CAP_EXT_CPUID, KVM_CAP_CLOCKSOURCE,
		KVM_CAP_NOP_IO_DELAY, KVM_CAP_MP_STATE, KVM_CAP_SYNC_MMU,
		KVM_CAP_DESTROY_MEMORY_REGION_WORKS, KVM_CAP_USER_NMI,
		KVM_CAP_REINJECT_CONTROL, KVM_CAP_IRQ_ROUTING,
		KVM_CAP_IRQ_INJECT_STATUS, KVM_CAP_IRQFD, KVM_CAP_PIT2,
		KVM_CAP_PIT_STATE2, KVM_CAP_IOEVENTFD, KVM_CAP_VCPU_EVENTS,
		KVM_CAP_DEBUGREGS, KVM_CAP_JOIN_MEMORY_REGIONS_WORKS,
		KVM_CAP_ADJUST_CLOCK, KVM_CAP_INTERNAL_ERROR_DATA,
		KVM_CAP_SET_IDENTITY_MAP_ADDR,
		KVM_CAP_GET_TSC_KHZ, KVM_CAP_ENABLE_CAP, KVM_CAP_XSAVE,
		KVM_CAP_TSC_DEADLINE_TIMER, KVM_CAP_SIGNAL_MSI,
		KVM_CAP_IRQFD_RESAMPLE, KVM_CAP_READONLY_MEM,
		KVM_CAP_KVMCLOCK_CTRL,
		KVM_CAP_IOEVENTFD_NO_LENGTH, KVM_CAP_CHECK_EXTENSION_VM,
		KVM_CAP_IOEVENTFD_ANY_LENGTH, KVM_CAP_SPLIT_IRQCHIP,
		KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_COALESCED_MMIO,
		KVM_CAP_COALESCED_PIO, KVM_CAP_X2APIC_API, KVM_CAP_MCE,
		KVM_CAP_GET_MSR_FEATURES, KVM_CAP_SREGS2,
		KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_VCPU_ATTRIBUTES,
		KVM_CAP_NR_MEMSLOTS, KVM_CAP_NR_VCPUS, KVM_CAP_MAX_VCPUS,
		KVM_CAP_MAX_VCPU_ID, KVM_CAP_SYS_ATTRIBUTES,
		KVM_CAP_SYSTEM_EVENT_DATA, KVM_CAP_IOAPIC_POLARITY_IGNORED,
		KVM_CAP_X86_ROBUST_SINGLESTEP,
	};
	struct vm *vm = vm_new(VM_PLAIN);
	int i;

	for (i = 0; i < ARRAY_SIZE(yes); i++) {
		int r = xioctl(self->fd, KVM_CHECK_EXTENSION, yes[i]);

		EXPECT_GT(r, 0)
			TH_LOG("extension %d", yes[i]);
		/* One flag is for VMs whose irqchip is split, and for who asks of none. */
		if (yes[i] == KVM_CAP_X2APIC_API)
			r &= ~KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST;
		EXPECT_EQ(r, xioctl(vm->fd, KVM_CHECK_EXTENSION, yes[i]))
			TH_LOG("extension %d", yes[i]);
	}
	EXPECT_EQ(0, xioctl(self->fd, KVM_CHECK_EXTENSION, 0x12345));
	EXPECT_EQ(0, xioctl(self->fd, KVM_CHECK_EXTENSION, -1L));
	/* of other architectures */
	EXPECT_EQ(0, xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_PPC_HTM));
	EXPECT_EQ(0, xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_S390_PSW));

	EXPECT_EQ(32764, xioctl(self->fd, KVM_CHECK_EXTENSION,
				KVM_CAP_NR_MEMSLOTS));
	EXPECT_EQ(1024, xioctl(self->fd, KVM_CHECK_EXTENSION,
			       KVM_CAP_MAX_VCPUS));
	EXPECT_GE(xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID),
		  1024);
	EXPECT_EQ(4096, xioctl(self->fd, KVM_CHECK_EXTENSION,
			       KVM_CAP_IRQ_ROUTING));
	vm_free(vm);
}

TEST_F(node, create_vm_types)
{
	int types = xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES) ?: 1, i, fd;

	EXPECT_TRUE(types & 1);
	for (i = 0; i < 40; i++) {
		fd = xioctl(self->fd, KVM_CREATE_VM, i);
		if (i >= 31 || !(types & 1 << i)) {
			EXPECT_EQ(-EINVAL, fd);
			continue;
		}
		ASSERT_LE(0, fd);
		/* a VM answers as the node does */
		EXPECT_EQ(xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES),
			  xioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES));
		close(fd);
	}
	EXPECT_EQ(-EINVAL, xioctl(self->fd, KVM_CREATE_VM, 1UL << 32));
	EXPECT_EQ(-EINVAL, xioctl(self->fd, KVM_CREATE_VM, -1L));
}

static struct kvm_cpuid2 *cpuid_room(int nent)
{
	struct kvm_cpuid2 *c;

	c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
	c->nent = nent;
	return c;
}

TEST_F(node, supported_cpuid)
{
	struct kvm_cpuid2 *c = cpuid_room(256), *small;
	struct kvm_cpuid_entry2 *e;
	u32 n;

	ASSERT_EQ(0, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, c));
	n = c->nent;
	EXPECT_GT(n, 5);
	EXPECT_LE(n, 256);

	e = cpuid_find(c, 0, 0);
	ASSERT_NE(NULL, e);
	EXPECT_GE(e->eax, 1);
	e = cpuid_find(c, 1, 0);
	ASSERT_NE(NULL, e);
	EXPECT_TRUE(e->edx & 1 << 0);		/* FPU */
	EXPECT_TRUE(e->edx & 1 << 5);		/* MSR */
	EXPECT_TRUE(e->edx & 1 << 9);		/* APIC */
	EXPECT_TRUE(e->ecx & 1 << 21);		/* x2APIC: always emulated */
	EXPECT_FALSE(e->ecx & 1 << 3);		/* MONITOR */
	EXPECT_FALSE(e->ecx & 1 << 24);	/* TSC deadline: only with an irqchip, by its capability */
	e = cpuid_find(c, 0x80000001, 0);
	ASSERT_NE(NULL, e);
	EXPECT_TRUE(e->edx & 1 << 29);		/* LM */
	e = cpuid_find(c, KVM_CPUID_SIGNATURE, 0);
	ASSERT_NE(NULL, e);
	EXPECT_EQ(0x4b4d564b, e->ebx);		/* KVMKVMKVM */
	EXPECT_EQ(0x564b4d56, e->ecx);
	EXPECT_EQ(0x0000004d, e->edx);
	e = cpuid_find(c, KVM_CPUID_FEATURES, 0);
	ASSERT_NE(NULL, e);
	EXPECT_TRUE(e->eax & 1 << KVM_FEATURE_CLOCKSOURCE);
	EXPECT_TRUE(e->eax & 1 << KVM_FEATURE_CLOCKSOURCE2);

	/* room for exactly as many, for one fewer, for one, for none */
	small = cpuid_room(n);
	EXPECT_EQ(0, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, small));
	EXPECT_EQ(n, small->nent);
	small->nent = n - 1;
	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, small));
	small->nent = 1;
	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, small));
	small->nent = 0;
	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, small));
	/* more room than needed is said to hold what was written */
	small->nent = 100000;
	EXPECT_EQ(0, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, small));
	EXPECT_EQ(n, small->nent);

	EXPECT_EQ(-EFAULT, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, 8));
}

TEST_F(node, emulated_cpuid)
{
	struct kvm_cpuid2 *c = cpuid_room(256);

	if (!xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_EXT_EMUL_CPUID))
		SKIP(return, "no KVM_CAP_EXT_EMUL_CPUID");
	ASSERT_EQ(0, xioctl(self->fd, KVM_GET_EMULATED_CPUID, c));
	EXPECT_GT(c->nent, 0);
	c->nent = 0;
	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_EMULATED_CPUID, c));
}

static struct kvm_msr_list *msr_list(int n)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + 4 * n);

	l->nmsrs = n;
	return l;
}

static bool has_msr(struct kvm_msr_list *l, u32 msr)
{
	u32 i;

	for (i = 0; i < l->nmsrs; i++)
		if (l->indices[i] == msr)
			return true;
	return false;
}

TEST_F(node, msr_index_list)
{
	static const u32 want[] = {
		MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP,
		MSR_IA32_SYSENTER_EIP, MSR_STAR, MSR_CSTAR, MSR_KERNEL_GS_BASE,
		MSR_SYSCALL_MASK, MSR_LSTAR, MSR_IA32_TSC, MSR_IA32_CR_PAT,
		MSR_TSC_AUX, MSR_IA32_TSC_DEADLINE, MSR_IA32_MISC_ENABLE,
		MSR_IA32_MCG_STATUS, MSR_IA32_TSC_ADJUST,
		0x11, 0x12, 0x4b564d00, 0x4b564d01,	/* kvmclock */
	};
	struct kvm_msr_list *l = msr_list(0), *big;
	struct vm *vm;
	struct vcpu *v;
	u32 n, i;

	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_MSR_INDEX_LIST, l));
	n = l->nmsrs;
	ASSERT_GT(n, ARRAY_SIZE(want));
	big = msr_list(n);
	big->nmsrs = n - 1;
	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_MSR_INDEX_LIST, big));
	EXPECT_EQ(n, big->nmsrs);
	EXPECT_EQ(0, xioctl(self->fd, KVM_GET_MSR_INDEX_LIST, big));
	EXPECT_EQ(n, big->nmsrs);
	for (i = 0; i < ARRAY_SIZE(want); i++) {
		EXPECT_TRUE(has_msr(big, want[i]))
			TH_LOG("MSR %#x is not listed", want[i]);
	}
	EXPECT_EQ(-EFAULT, xioctl(self->fd, KVM_GET_MSR_INDEX_LIST, 8));

	/* and each can be read and written back on a vCPU */
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_new(vm, 0);
	for (i = 0; i < n; i++) {
		u64 val;

		EXPECT_EQ(1, vcpu_get_msr(v, big->indices[i], &val))
			TH_LOG("read of MSR %#x", big->indices[i]);
		EXPECT_EQ(1, vcpu_set_msr(v, big->indices[i], val))
			TH_LOG("write of MSR %#x: %#llx", big->indices[i],
			       (unsigned long long)val);
	}
	vm_free(vm);
}

TEST_F(node, feature_msrs)
{
	struct kvm_msr_list *l = msr_list(0), *big;
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e[2];
	} m = { .h.nmsrs = 1 };
	u32 n, i;

	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_MSR_FEATURE_INDEX_LIST, l));
	n = l->nmsrs;
	ASSERT_GT(n, 0);
	big = msr_list(n);
	EXPECT_EQ(0, xioctl(self->fd, KVM_GET_MSR_FEATURE_INDEX_LIST, big));
	for (i = 0; i < n; i++) {
		m.e[0].index = big->indices[i];
		EXPECT_EQ(1, xioctl(self->fd, KVM_GET_MSRS, &m))
			TH_LOG("feature MSR %#x", big->indices[i]);
	}
	/* one that is not a feature ends the list early */
	m.h.nmsrs = 2;
	m.e[0].index = big->indices[0];
	m.e[1].index = 0x12345678;
	EXPECT_EQ(1, xioctl(self->fd, KVM_GET_MSRS, &m));
	m.h.nmsrs = 1;
	m.e[0].index = 0x12345678;
	EXPECT_EQ(0, xioctl(self->fd, KVM_GET_MSRS, &m));
	m.h.nmsrs = 0;
	EXPECT_EQ(0, xioctl(self->fd, KVM_GET_MSRS, &m));
	m.h.nmsrs = 100000;
	EXPECT_EQ(-E2BIG, xioctl(self->fd, KVM_GET_MSRS, &m));
	EXPECT_EQ(-EFAULT, xioctl(self->fd, KVM_GET_MSRS, 8));
}

TEST_F(node, mce_capabilities)
{
	u64 cap = 0;

	ASSERT_EQ(0, xioctl(self->fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap));
	EXPECT_TRUE(cap & 1ULL << 8);		/* MCG_CTL_P */
	EXPECT_TRUE(cap & 1ULL << 24);		/* MCG_SER_P */
	EXPECT_EQ(32, xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_MCE));
	EXPECT_EQ(-EFAULT, xioctl(self->fd, KVM_X86_GET_MCE_CAP_SUPPORTED, 8));
}

TEST_F(node, system_attributes)
{
	struct kvm_cpuid2 *c = cpuid_room(256);
	struct kvm_cpuid_entry2 *e;
	u64 val = 0;
	struct kvm_device_attr a = {
		.group = 0,
		.attr = KVM_X86_XCOMP_GUEST_SUPP,
		.addr = (uintptr_t)&val,
	};

	if (!xioctl(self->fd, KVM_CHECK_EXTENSION, KVM_CAP_SYS_ATTRIBUTES))
		SKIP(return, "no KVM_CAP_SYS_ATTRIBUTES");
	EXPECT_EQ(0, xioctl(self->fd, KVM_HAS_DEVICE_ATTR, &a));
	EXPECT_EQ(0, xioctl(self->fd, KVM_GET_DEVICE_ATTR, &a));
	/* what CPUID says a guest may have in XCR0, and tiles, which it says only to who has asked; none without XSAVE */
	ASSERT_EQ(0, xioctl(self->fd, KVM_GET_SUPPORTED_CPUID, c));
	e = cpuid_find(c, 0xd, 0);
	if (e && e->eax) {
		u64 shown = e->eax | (u64)e->edx << 32, tiles = 3 << 17;

		EXPECT_EQ(shown | tiles, val | tiles);
		EXPECT_EQ(0, shown & ~val);
	}
	a.addr = 8;
	EXPECT_EQ(-EFAULT, xioctl(self->fd, KVM_GET_DEVICE_ATTR, &a));
	EXPECT_EQ(0, xioctl(self->fd, KVM_HAS_DEVICE_ATTR, &a));
	EXPECT_EQ(-EFAULT, xioctl(self->fd, KVM_HAS_DEVICE_ATTR, 8));
	/* nothing there can be set */
	EXPECT_EQ(-EINVAL, xioctl(self->fd, KVM_SET_DEVICE_ATTR, &a));
	a.attr = 99;
	EXPECT_EQ(-ENXIO, xioctl(self->fd, KVM_HAS_DEVICE_ATTR, &a));
	EXPECT_EQ(-ENXIO, xioctl(self->fd, KVM_GET_DEVICE_ATTR, &a));
	a.attr = 0;
	a.group = 1;
	EXPECT_EQ(-ENXIO, xioctl(self->fd, KVM_HAS_DEVICE_ATTR, &a));
}

/* What CHECK_EXTENSION denies must be refused; what it grants must be there */
TEST_F(node, extension_truth)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct kvm_xsave *x = mem_alloc(16384);
	struct kvm_xcrs xc;
	struct vcpu *v = vcpu_new(vm, 0);
	int size;

	EXPECT_EQ(!vm_cap(vm, KVM_CAP_XCRS),
		  xioctl(v->fd, KVM_GET_XCRS, &xc) < 0);
	size = vm_cap(vm, KVM_CAP_XSAVE2);
	if (size) {
		EXPECT_GE(size, 4096);
		EXPECT_EQ(0, xioctl(v->fd, KVM_GET_XSAVE2, x));
	}
	if (!vm_cap(vm, KVM_CAP_NESTED_STATE)) {
		EXPECT_GT(0, xioctl(v->fd, KVM_GET_NESTED_STATE, x));
	}
	if (!vm_cap(vm, KVM_CAP_X86_SMM)) {
		EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SMI, 0));
	}
	vm_free(vm);
}

TEST_HARNESS_MAIN
