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
#include <keel.h>

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
	u32 snapshot[2];
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

	memset(p->mem, 0, 0x2000);
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

/* ---- snapshots ---- */

static long state(struct place *p, unsigned long cmd)
{
	static u8 data[65536] __attribute__((aligned(8)));
	static u64 size;
	struct keel_state s = { .data = (u64)data, .size = cmd == KEEL_GET_STATE ? sizeof(data) : size };
	long ret = ioctl(p->vm, cmd, &s);

	if (!ret)
		size = s.size;
	return ret;
}

static long get_state(struct place *p)
{
	return state(p, KEEL_GET_STATE);
}

static long set_state(struct place *p)
{
	return state(p, KEEL_SET_STATE);
}

/* With how the VM is set up, and another VM made of it, that has the same memory */
static long create_from(struct place *p)
{
	static u8 data[65536] __attribute__((aligned(8)));
	struct keel_state s = { .data = (u64)data, .size = sizeof(data), .flags = KEEL_WITH_SETUP };
	long ret = ioctl(p->vm, KEEL_GET_STATE, &s);
	int vm;

	if (ret)
		return ret;
	s.flags = KEEL_WITH_MEMSLOTS;
	vm = ioctl(p->sys, KEEL_CREATE_VM_FROM, &s);
	if (vm < 0)
		return vm;
	ret = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (ret >= 0)
		close(ret);
	close(vm);
	return ret < 0 ? ret : 0;
}

static long snapshot(struct place *p, int n)
{
	struct keel_snapshot s = { 0 };
	long ret = ioctl(p->vm, KEEL_SNAPSHOT, &s);

	p->snapshot[n] = s.id;
	return ret;
}

static long first_snapshot(struct place *p)
{
	return snapshot(p, 0);
}

static long second_snapshot(struct place *p)
{
	return snapshot(p, 1);
}

/* What a run writes is undone, with what allocations fail on the way */
static long reset(struct place *p, int n)
{
	struct keel_reset r = { .id = p->snapshot[n] };
	long ret = ioctl(p->vm, KEEL_RESET, &r);

	if (!ret && *(u16 *)((u8 *)p->mem + 0x1000) != (n ? 0x1111 : 0))
		die("a reset has left memory as it was");
	return ret;
}

static long first_reset(struct place *p)
{
	return reset(p, 0);
}

static long second_reset(struct place *p)
{
	return reset(p, 1);
}

/* Up to the OUT, and that is over as well */
static long run_and_complete(struct place *p)
{
	struct kvm_run *run;
	long ret = ioctl(p->vcpu, KVM_RUN, 0);
	int err = errno;

	run = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (run == MAP_FAILED)
		return -1;
	run->immediate_exit = 1;
	if (!ret && ioctl(p->vcpu, KVM_RUN, 0) && errno != EINTR)
		ret = -1;
	else
		errno = err;
	run->immediate_exit = 0;
	munmap(run, 4096);
	return ret;
}

static long guest_writes(struct place *p, u16 val)
{
	u8 code[] = { 0xc7, 0x06, 0x00, 0x10, val, val >> 8, 0xe6, 0x80, 0xf4 };	/* mov %val,0x1000; out; hlt */
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs s;

	/* The VMM's own write, to a page that is not looked at */
	memcpy(p->mem, code, sizeof(code));
	if (ioctl(p->vcpu, KVM_GET_SREGS, &s))
		return -1;
	s.cs.base = s.cs.selector = 0;
	if (ioctl(p->vcpu, KVM_SET_SREGS, &s) || ioctl(p->vcpu, KVM_SET_REGS, &regs))
		return -1;
	return run_and_complete(p);
}

static long first_write(struct place *p)
{
	return guest_writes(p, 0x1111);
}

static long second_write(struct place *p)
{
	return guest_writes(p, 0x2222);
}

static long mark_dirty(struct place *p)
{
	struct keel_range r = { .gpa = 0x100000, .size = 0x40000 };

	return ioctl(p->vm, KEEL_MARK_DIRTY, &r);
}

static long drop(struct place *p)
{
	return ioctl(p->vm, KEEL_DROP, p->snapshot[1]);
}

static long pre_fault(struct place *p)
{
	struct kvm_pre_fault_memory f = { .gpa = 0, .size = 0x200000 };

	return ioctl(p->vcpu, KVM_PRE_FAULT_MEMORY, &f);
}

static long working_set(struct place *p)
{
	struct keel_gpa_range ranges[16];
	struct keel_working_set ws = { .size = 0x200000, .ranges = (u64)ranges, .room = 16 };
	long ret = ioctl(p->vm, KEEL_WORKING_SET, &ws);

	return ret && errno == EOPNOTSUPP ? 0 : ret;
}

struct step {
	const char *name;
	long (*call)(struct place *p);
};

static const struct step steps[] = {
	{ "KVM_CREATE_VM", create_vm }, { "KVM_CREATE_IRQCHIP", create_irqchip }, { "KVM_CREATE_PIT2", create_pit },
	{ "KVM_SET_USER_MEMORY_REGION", add_slot }, { "KVM_CREATE_VCPU", create_vcpu }, { "KVM_SET_CPUID2", set_cpuid },
	{ "KVM_HYPERV_EVENTFD", add_hyperv_event }, { "KVM_ENABLE_CAP", enable_synic },
	{ "KVM_SET_GSI_ROUTING", set_routing }, { "KVM_IRQFD", add_irqfd }, { "KVM_IOEVENTFD", add_ioeventfd },
	{ "KVM_RUN", run },
};

#define NR_STEPS	(sizeof(steps) / sizeof(steps[0]))

static const struct step snap_steps[] = {
	{ "KVM_CREATE_VM", create_vm }, { "KVM_CREATE_IRQCHIP", create_irqchip }, { "KVM_CREATE_PIT2", create_pit },
	{ "KVM_SET_USER_MEMORY_REGION", add_slot }, { "KVM_CREATE_VCPU", create_vcpu }, { "KVM_SET_CPUID2", set_cpuid },
	{ "KVM_HYPERV_EVENTFD", add_hyperv_event }, { "KVM_ENABLE_CAP", enable_synic },
	{ "KEEL_GET_STATE", get_state }, { "KEEL_SET_STATE", set_state }, { "KEEL_CREATE_VM_FROM", create_from },
	{ "KEEL_SNAPSHOT", first_snapshot },
	{ "KVM_RUN, a page to be kept", first_write }, { "KEEL_SNAPSHOT again", second_snapshot },
	{ "KVM_RUN, once more", second_write }, { "KEEL_MARK_DIRTY", mark_dirty }, { "KEEL_RESET", second_reset },
	{ "KEEL_RESET to the parent", first_reset }, { "KEEL_RESET to the child", second_reset },
	{ "KVM_RUN, a third time", second_write }, { "KEEL_DROP", drop }, { "KEEL_RESET to what is left", first_reset },
	{ "KVM_PRE_FAULT_MEMORY", pre_fault }, { "KEEL_WORKING_SET", working_set },
};

static void undo(struct place *p)
{
	if (p->vcpu >= 0)
		close(p->vcpu);
	if (p->vm >= 0)
		close(p->vm);
	p->vm = p->vcpu = -1;
}

static void fail_each(struct __test_metadata *_metadata, const struct step *steps, unsigned int nr, unsigned int from)
{
	struct place p = { .vm = -1, .vcpu = -1 };
	unsigned int step, n, i, failed;
	long ret;
	int err;

	p.sys = node_open();
	p.event = must(eventfd(0, 0));
	p.mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p.cpuid = calloc(1, sizeof(*p.cpuid) + 100 * sizeof(p.cpuid->entries[0]));
	p.cpuid->nent = 100;
	must(ioctl(p.sys, KVM_GET_SUPPORTED_CPUID, p.cpuid));

	for (step = from; step < nr; step++) {
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

TEST(each_allocation)
{
	if (!injection_works())
		SKIP(return, "this kernel injects no allocation failures");
	fail_each(_metadata, steps, NR_STEPS, 0);
}

TEST(snapshots)
{
	if (!injection_works())
		SKIP(return, "this kernel injects no allocation failures");
	fail_each(_metadata, snap_steps, sizeof(snap_steps) / sizeof(snap_steps[0]), 6);
}

TEST_HARNESS_MAIN
