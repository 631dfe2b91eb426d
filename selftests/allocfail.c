// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each ioctl on the way to a running VM, with each of its allocations failing
 * in turn: it says ENOMEM or does without, and the next try succeeds.
 *
 * For a kernel that can be told to (CONFIG_FAULT_INJECTION, FAILSLAB,
 * FAIL_PAGE_ALLOC); what is left behind its KASAN and the module's unloading
 * find.
 */
#include "test.h"

#include <sys/eventfd.h>
#include <sys/mman.h>

#define MEM	0x200000UL

static int fail_nth = -1;

static void knob(const char *dir, const char *name, const char *val)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", dir, name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return;
	if (write(fd, val, strlen(val)) < 0)
		printf("# %s: %s\n", path, strerror(errno));
	close(fd);
}

static bool injection_works(void)
{
	const char *dirs[] = { "failslab", "fail_page_alloc" };
	int i;

	for (i = 0; i < 2; i++) {
		knob(dirs[i], "verbose", "0");
		knob(dirs[i], "ignore-gfp-wait", "N");
		knob(dirs[i], "ignore-gfp-highmem", "N");
		knob(dirs[i], "min-order", "0");
	}
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	return fail_nth >= 0;
}

static void arm(unsigned int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	must(pwrite(fail_nth, text, strlen(text), 0));
}

/* Has the allocation that was to fail been reached? */
static bool disarm(void)
{
	char text[16] = "";

	must(pread(fail_nth, text, sizeof(text) - 1, 0));
	arm(0);
	return atoi(text) == 0;
}

struct place {
	int sys, vm, vcpu;
	struct kvm_cpuid2 *cpuid;
	void *mem;
	int event;
};

static long create_vm(struct place *p)
{
	p->vm = ioctl(p->sys, KVM_CREATE_VM, 0);
	return p->vm;
}

static long create_irqchip(struct place *p)
{
	return ioctl(p->vm, KVM_CREATE_IRQCHIP, 0);
}

static long create_pit(struct place *p)
{
	struct kvm_pit_config pit = { 0 };

	return ioctl(p->vm, KVM_CREATE_PIT2, &pit);
}

static long add_slot(struct place *p)
{
	struct kvm_userspace_memory_region r = {
		.memory_size = MEM, .userspace_addr = (u64)p->mem, .flags = KVM_MEM_LOG_DIRTY_PAGES,
	};

	return ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &r);
}

static long create_vcpu(struct place *p)
{
	p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
	return p->vcpu;
}

static long set_cpuid(struct place *p)
{
	return ioctl(p->vcpu, KVM_SET_CPUID2, p->cpuid);
}

static long enable_synic(struct place *p)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_HYPERV_SYNIC2 };

	return ioctl(p->vcpu, KVM_ENABLE_CAP, &cap);
}

static long add_hyperv_event(struct place *p)
{
	struct kvm_hyperv_eventfd e = { .conn_id = 77, .fd = p->event };

	return ioctl(p->vm, KVM_HYPERV_EVENTFD, &e);
}

static long set_routing(struct place *p)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[2];
	} r = { .head.nr = 2, .e = { { .gsi = 30, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { KVM_IRQCHIP_IOAPIC, 5 } },
				     { .gsi = 31, .type = KVM_IRQ_ROUTING_MSI } } };

	return ioctl(p->vm, KVM_SET_GSI_ROUTING, &r);
}

static long add_irqfd(struct place *p)
{
	struct kvm_irqfd i = { .fd = p->event, .gsi = 30 };

	return ioctl(p->vm, KVM_IRQFD, &i);
}

static long add_ioeventfd(struct place *p)
{
	struct kvm_ioeventfd i = { .fd = p->event, .addr = 0x500, .len = 2, .flags = KVM_IOEVENTFD_FLAG_PIO };

	return ioctl(p->vm, KVM_IOEVENTFD, &i);
}

/* One instruction: out to a port */
static long run(struct place *p)
{
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs s;

	memcpy(p->mem, "\xe6\x80\xf4", 3);
	if (ioctl(p->vcpu, KVM_GET_SREGS, &s))
		return -1;
	s.cs.base = s.cs.selector = 0;
	if (ioctl(p->vcpu, KVM_SET_SREGS, &s) || ioctl(p->vcpu, KVM_SET_REGS, &regs))
		return -1;
	return ioctl(p->vcpu, KVM_RUN, 0);
}

static const struct {
	const char *name;
	long (*call)(struct place *p);
} steps[] = {
	{ "KVM_CREATE_VM", create_vm }, { "KVM_CREATE_IRQCHIP", create_irqchip }, { "KVM_CREATE_PIT2", create_pit },
	{ "KVM_SET_USER_MEMORY_REGION", add_slot }, { "KVM_CREATE_VCPU", create_vcpu }, { "KVM_SET_CPUID2", set_cpuid },
	{ "KVM_HYPERV_EVENTFD", add_hyperv_event }, { "KVM_ENABLE_CAP", enable_synic },
	{ "KVM_SET_GSI_ROUTING", set_routing }, { "KVM_IRQFD", add_irqfd }, { "KVM_IOEVENTFD", add_ioeventfd },
	{ "KVM_RUN", run },
};

#define NR_STEPS	(sizeof(steps) / sizeof(steps[0]))

static void undo(struct place *p)
{
	if (p->vcpu >= 0)
		close(p->vcpu);
	if (p->vm >= 0)
		close(p->vm);
	p->vm = p->vcpu = -1;
}

TEST(each_allocation)
{
	struct place p = { .vm = -1, .vcpu = -1 };
	unsigned int step, n, i, failed;
	long ret;
	int err;

	if (!injection_works())
		SKIP(return, "this kernel injects no allocation failures");
	p.sys = node_open();
	p.event = must(eventfd(0, 0));
	p.mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p.cpuid = calloc(1, sizeof(*p.cpuid) + 100 * sizeof(p.cpuid->entries[0]));
	p.cpuid->nent = 100;
	must(ioctl(p.sys, KVM_GET_SUPPORTED_CPUID, p.cpuid));

	for (step = 0; step < NR_STEPS; step++) {
		failed = 0;
		for (n = 1; ; n++) {
			for (i = 0; i < step; i++)
				ASSERT_LE(0, steps[i].call(&p));
			arm(n);
			ret = steps[step].call(&p);
			err = errno;
			if (!disarm()) {
				EXPECT_LE(0, ret);
				undo(&p);
				break;
			}
			if (ret < 0) {
				failed++;
				EXPECT_EQ(ENOMEM, err) {
					TH_LOG("%s, allocation %u: %s", steps[step].name, n, strerror(err));
				}
				/* Nothing of it stayed: it can be done now. */
				ret = steps[step].call(&p);
				EXPECT_LE(0, ret) {
					TH_LOG("%s after allocation %u failed: %s", steps[step].name, n,
					       strerror(errno));
				}
			}
			undo(&p);
			ASSERT_GT(2000, n);
		}
		printf("# %s: %u allocations, %u of them needed\n", steps[step].name, n - 1, failed);
	}
	munmap(p.mem, MEM);
	free(p.cpuid);
	close(p.event);
	close(p.sys);
}

TEST_HARNESS_MAIN
