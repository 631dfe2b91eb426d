// SPDX-License-Identifier: GPL-2.0-only
/*
 * VMs made from a state (uapi/keel.h, KEEL_CREATE_VM_FROM): in children of fork(2), and of
 * a template's memory file.  What parents and children have in common, and what not.
 */
#define _GNU_SOURCE
#include "test.h"
#include <keel.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/userfaultfd.h>

#define PAGE	4096UL
#define AREA_GPA	(MEM_SIZE * 2)
#define AREA_PAGES	1024UL
#define AREA_SIZE	(AREA_PAGES * PAGE)
#define HUGE		(2UL << 20)

struct blob {
	u8 data[256 * 1024] __attribute__((aligned(8)));
	u64 size;
};

static struct blob blob;

static int state_get(struct vm *vm, struct blob *b, u32 flags)
{
	struct keel_state arg = { .data = (u64)b->data, .size = sizeof(b->data), .flags = flags };
	int r = xioctl(vm->fd, KEEL_GET_STATE, &arg);

	b->size = arg.size;
	return r;
}

static int create_from(int sys, const struct blob *b, u32 flags, struct keel_state *arg)
{
	*arg = (struct keel_state){ .data = (u64)b->data, .size = b->size, .flags = flags };
	return xioctl(sys, KEEL_CREATE_VM_FROM, arg);
}

static struct keel_section *first(const struct blob *b)
{
	return (void *)(b->data + sizeof(struct keel_state_head));
}

static struct keel_section *after(struct keel_section *s)
{
	return (void *)(s + 1) + (s->length + 7) / 8 * 8;
}

static struct keel_section *section(struct blob *b, u32 id, u32 vcpu)
{
	struct keel_section *s;

	for (s = first(b); (u8 *)s < b->data + b->size; s = after(s))
		if (s->id == id && s->vcpu == vcpu)
			return s;
	return NULL;
}

/* Sections that differ; of the clock's only what is no moment counts */
static int differences(const struct blob *a, const struct blob *b)
{
	struct keel_section *s, *t;
	int n = 0;

	if (a->size != b->size)
		return -1;
	for (s = first(a), t = first(b); (u8 *)s < a->data + a->size; s = after(s), t = after(t)) {
		u64 skip = s->id == KEEL_SECTION_CLOCK ? 24 : 0;

		if (memcmp(s, t, sizeof(*s)))
			return -1;
		if (memcmp((u8 *)(s + 1) + skip, (u8 *)(t + 1) + skip, s->length - skip)) {
			fprintf(stderr, "# section %u of vCPU %d\n", s->id, (int)s->vcpu);
			n++;
		}
	}
	return n;
}

/* ---- a guest that does as it is told ---- */

enum { READ, WRITE };
static volatile u64 op, base, pages, value, turns;

static void obedient_guest(u64 me)
{
	u64 i, sum;

	for (;;) {
		sum = 0;
		for (i = 0; i < pages; i++) {
			volatile u64 *p = (volatile u64 *)(base + i * PAGE);

			if (op == WRITE)
				*p = value + i;
			sum += *p;
		}
		turns++;
		guest_sync(sum);
	}
}

static u32 ask(struct vcpu *v, u64 what, u64 n, u64 val)
{
	u32 r;

	guest_var(v->vm, op) = what;
	guest_var(v->vm, base) = AREA_GPA;
	guest_var(v->vm, pages) = n;
	guest_var(v->vm, value) = val;
	r = vcpu_sync(v);
	vcpu_settle(v);
	return r;
}

static u32 sum_of(u64 n, u64 val)
{
	return n * val + n * (n - 1) / 2;
}

static struct vm *obedient_vm(enum vm_kind kind, void *area)
{
	struct vm *vm = vm_new(kind);

	vm_slot(vm, 1, AREA_GPA, AREA_SIZE, area, 0);
	vcpu_long(vcpu_new(vm, 0), obedient_guest, 0);
	ask(vm->vcpu[0], READ, 0, 0);
	return vm;
}

/* ---- fork(2), and the VM in the child ---- */

static void vcpu_reopen(struct vm *vm, struct vcpu *v)
{
	munmap(v->run, vm->run_size);
	close(v->fd);
	v->fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, v->id));
	v->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED)
		die("mmap of vCPU %d: %s", v->id, strerror(errno));
}

/* In the child: @vm is its own from here on */
static void vm_take(struct vm *vm, const struct blob *b)
{
	struct keel_state arg;
	int i, fd;

	close(vm->sys);
	vm->sys = node_open();
	fd = create_from(vm->sys, b, KEEL_WITH_MEMSLOTS, &arg);
	if (fd < 0)
		die("KEEL_CREATE_VM_FROM: %s, section %u", strerror(-fd), arg.section.id);
	close(vm->fd);
	vm->fd = fd;
	for (i = 0; i < vm->nr; i++)
		vcpu_reopen(vm, vm->vcpu[i]);
}

/* 0 in the child, which has the VM */
static pid_t vm_fork(struct vm *vm)
{
	pid_t pid;
	int r = state_get(vm, &blob, KEEL_WITH_SETUP);

	if (r)
		die("KEEL_GET_STATE: %s", strerror(-r));
	pid = must(fork());
	if (!pid)
		vm_take(vm, &blob);
	return pid;
}

/* Exit status; a signal: negative */
static int reap(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* In a child, whose expectations nobody else would hear of */
#define sure(x) do {			\
	if (!(x))			\
		die("not: %s", #x);	\
} while (0)

FIXTURE(kinds) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_VARIANT(kinds) {
	enum vm_kind kind;
};

FIXTURE_VARIANT_ADD(kinds, plain) { .kind = VM_PLAIN };
FIXTURE_VARIANT_ADD(kinds, irqchip) { .kind = VM_IRQCHIP };
FIXTURE_VARIANT_ADD(kinds, split) { .kind = VM_SPLIT };

FIXTURE_SETUP(kinds)
{
	self->vm = obedient_vm(variant->kind, mem_alloc(AREA_SIZE));
	self->v = self->vm->vcpu[0];
	ask(self->v, WRITE, AREA_PAGES, 1);
}

FIXTURE_TEARDOWN(kinds)
{
	vm_free(self->vm);
}

TEST_F(kinds, both_run)
{
	u64 was = guest_var(self->vm, turns);
	pid_t pid = vm_fork(self->vm);
	int i;

	for (i = 0; i < 20; i++) {
		sure(ask(self->v, READ, AREA_PAGES, 0) == sum_of(AREA_PAGES, 1 + (pid ? 1000 : 5000) * i));
		sure(ask(self->v, WRITE, AREA_PAGES, 1 + (pid ? 1000 : 5000) * (i + 1)) ==
		     sum_of(AREA_PAGES, 1 + (pid ? 1000 : 5000) * (i + 1)));
	}
	sure(guest_var(self->vm, turns) == was + 40);
	if (!pid)
		_exit(0);
	ASSERT_EQ(0, reap(pid));
}

/* What the child has is what the parent had, set-up and state */
TEST_F(kinds, same)
{
	static struct blob b;
	pid_t pid = vm_fork(self->vm);

	if (!pid) {
		sure(!state_get(self->vm, &b, KEEL_WITH_SETUP));
		sure(!differences(&blob, &b));
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
}

static void descend(struct vm *vm, int generation)
{
	struct vcpu *v = vm->vcpu[0];
	pid_t pid;

	if (generation == 5)
		_exit(0);
	pid = vm_fork(vm);
	if (!pid) {
		sure(ask(v, READ, AREA_PAGES, 0) == sum_of(AREA_PAGES, 1 + generation));
		sure(ask(v, WRITE, AREA_PAGES, 2 + generation) == sum_of(AREA_PAGES, 2 + generation));
		descend(vm, generation + 1);
	}
	sure(!reap(pid));
	sure(ask(v, READ, AREA_PAGES, 0) == sum_of(AREA_PAGES, 1 + generation));
	if (generation)
		_exit(0);
}

TEST_F(kinds, children_of_children)
{
	descend(self->vm, 0);
}

TEST_F(kinds, parent_dies_first)
{
	int go[2], done[2];
	pid_t pid;
	u8 c = 0;

	must(pipe(go));
	must(pipe(done));
	pid = must(fork());
	if (!pid) {
		/* One that has a VM of its own, and a child */
		struct vm *vm = obedient_vm(VM_IRQCHIP, mem_alloc(AREA_SIZE));

		ask(vm->vcpu[0], WRITE, AREA_PAGES, 7);
		if (vm_fork(vm))
			_exit(0);
		close(go[1]);
		must(read(go[0], &c, 1));		/* until the parent is gone */
		c = ask(vm->vcpu[0], READ, AREA_PAGES, 0) == sum_of(AREA_PAGES, 7) &&
		    ask(vm->vcpu[0], WRITE, AREA_PAGES, 8) == sum_of(AREA_PAGES, 8);
		must(write(done[1], &c, 1));
		_exit(0);
	}
	close(done[1]);
	EXPECT_EQ(0, reap(pid));
	must(write(go[1], &c, 1));
	ASSERT_EQ(1, read(done[0], &c, 1));
	EXPECT_EQ(1, c);
}

/* ---- what of the parent's is no use to the child ---- */

TEST_F(kinds, refused)
{
	struct vm was = *self->vm;
	struct vcpu vwas = *self->v;
	struct keel_state arg;
	struct kvm_regs regs;
	pid_t pid;

	ASSERT_EQ(0, state_get(self->vm, &blob, KEEL_WITH_SETUP));
	pid = must(fork());
	if (!pid) {
		sure(xioctl(was.fd, KVM_CHECK_EXTENSION, 0) == -EIO);
		sure(state_get(&was, &blob, KEEL_WITH_SETUP) == -EIO);
		sure(xioctl(was.fd, KVM_CREATE_VCPU, 5) == -EIO);
		sure(xioctl(vwas.fd, KVM_RUN, 0) == -EIO);
		sure(xioctl(vwas.fd, KVM_GET_REGS, &regs) == -EIO);
		sure(mmap(NULL, vwas.vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vwas.fd, 0) == MAP_FAILED && errno == EIO);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	/* A vCPU's file is given once */
	pid = vm_fork(self->vm);
	if (!pid) {
		sure(xioctl(self->vm->fd, KVM_CREATE_VCPU, 0) == -EEXIST);
		close(self->v->fd);
		sure(xioctl(self->vm->fd, KVM_CREATE_VCPU, 0) == -EEXIST);
		must(xioctl(self->vm->fd, KVM_CREATE_VCPU, 1));
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	/* In the same address space it is a VM like others */
	pid = must(fork());
	if (!pid) {
		must(create_from(node_open(), &blob, 0, &arg));
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(sum_of(AREA_PAGES, 1), ask(self->v, READ, AREA_PAGES, 0));
}

/* ---- all of the set-up ---- */

static void set_up_much(struct vm *vm)
{
	static u8 bits[2][16] = { { 0xff, 1 }, { 0xf0, 2 } };
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW, .ranges = {
		{ .flags = KVM_MSR_FILTER_READ, .nmsrs = 100, .base = 0x400, .bitmap = bits[0] },
		{ .flags = KVM_MSR_FILTER_WRITE, .nmsrs = 9, .base = 0xc0000100, .bitmap = bits[1] },
	} };
	struct { struct kvm_pmu_event_filter f; u64 e[3]; } events = {
		.f = { .action = KVM_PMU_EVENT_DENY, .nevents = 3 }, .e = { 0xc0, 0x3c, 0x412e },
	};
	struct { struct kvm_irq_routing r; struct kvm_irq_routing_entry e[3]; } routes = { .r.nr = 3, .e = {
		{ .gsi = 9, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { 0xfee01000, 0, 0x31 } },
		{ .gsi = 3, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { KVM_IRQCHIP_PIC_SLAVE, 5 } },
		{ .gsi = 3, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { KVM_IRQCHIP_IOAPIC, 17 } },
	} };
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
					 .arch.debugreg = { 0x1234, 0, 0, 0, 0, 0, 0, 1 } };
	struct kvm_enable_cap enforce = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
	u64 mce = 5 | 1 << 8;
	int ids[] = { 7, 3, 40 }, i;
	struct vcpu *v;

	must(vm_enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 50));
	must(vm_enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER));
	must(vm_enable_cap(vm, KVM_CAP_MSR_PLATFORM_INFO, 0));
	must(vm_enable_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1));
	must(vm_enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_PAUSE));
	must(vm_enable_cap(vm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS));
	must(vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE));
	must(vm_enable_cap(vm, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE));
	must(vm_enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_LAPIC_MMIO_HOLE));
	must(vm_enable_cap(vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS, 25));
	must(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 3));
	must(ioctl(vm->fd, KVM_CREATE_PIT2, &pit));
	must(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &routes));
	must(ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter));
	must(ioctl(vm->fd, KVM_SET_PMU_EVENT_FILTER, &events));
	must(ioctl(vm->fd, KVM_SET_NR_MMU_PAGES, 5000));
	for (i = 0; i < 3; i++) {
		v = vcpu_new(vm, ids[i]);
		if (i == 1) {
			must(ioctl(v->fd, KVM_X86_SETUP_MCE, &mce));
			must(ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug));
			must(ioctl(v->fd, KVM_ENABLE_CAP, &enforce));
		}
	}
}

TEST(set_up)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	static struct blob b;
	struct kvm_sregs s;
	int base_cpus;
	pid_t pid;

	set_up_much(vm);
	pid = vm_fork(vm);
	if (!pid) {
		sure(!state_get(vm, &b, KEEL_WITH_SETUP));
		sure(!differences(&blob, &b));
		/* Not only kept: it is so */
		sure(xioctl(vm->fd, KVM_CREATE_VCPU, 50) == -EINVAL);
		sure(xioctl(vm->fd, KVM_GET_NR_MMU_PAGES, 0) == 5000);
		sure(xioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) == -EEXIST);
		base_cpus = 0;
		for (int i = 0; i < 3; i++) {
			vcpu_get_sregs(vm->vcpu[i], &s);
			base_cpus += !!(s.apic_base & 0x100) << vm->vcpu[i]->id % 8;
		}
		sure(base_cpus == 1 << 3);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	vm_free(vm);
}

/* Those that a VM begins with are not told of, none at all are */
TEST(first_routes)
{
	struct vm *vm = obedient_vm(VM_IRQCHIP, mem_alloc(AREA_SIZE));
	struct kvm_irq_routing none = { 0 };
	static struct blob b;
	int i, length;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, state_get(vm, &blob, KEEL_WITH_SETUP));
		ASSERT_EQ(i, !!section(&blob, KEEL_SECTION_ROUTES, -1));
		if (i) {
			length = section(&blob, KEEL_SECTION_ROUTES, -1)->length;
			EXPECT_EQ(0, length);
		}
		pid = vm_fork(vm);
		if (!pid) {
			sure(!state_get(vm, &b, KEEL_WITH_SETUP));
			sure(!differences(&blob, &b));
			_exit(0);
		}
		ASSERT_EQ(0, reap(pid));
		must(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &none));
	}
	vm_free(vm);
}

/* ---- what there may be very many of ends with its caller ---- */

struct sections {
	struct keel_state_head head;
	struct {
		struct keel_section is;
		struct keel_setup_vcpu vcpu;
	} vcpus[256];
	struct keel_section caps_are;
	struct keel_setup_cap caps[];
};

TEST(ended_in_a_section)
{
	size_t nr = (60 << 20) / sizeof(struct keel_setup_cap), i;
	size_t size = sizeof(struct sections) + nr * sizeof(struct keel_setup_cap);
	struct sections *s = (void *)mem_alloc(size);
	struct keel_state arg = { .data = (u64)s, .size = size };
	int sys = node_open(), status;
	u64 began;
	pid_t pid;

	s->head = (struct keel_state_head){ KEEL_STATE_MAGIC, KEEL_STATE_VERSION, ARRAY_SIZE(s->vcpus) + 1 };
	for (i = 0; i < ARRAY_SIZE(s->vcpus); i++) {
		s->vcpus[i].is = (struct keel_section){ KEEL_SECTION_VCPU, i, sizeof(s->vcpus[i].vcpu), 0 };
		s->vcpus[i].vcpu.mcg_cap = 1;
	}
	s->caps_are = (struct keel_section){ KEEL_SECTION_CAPS, KEEL_SECTION_VM, nr * sizeof(s->caps[0]), 0 };
	for (i = 0; i < nr; i++)
		s->caps[i].cap = KVM_CAP_DISABLE_QUIRKS;
	pid = fork();
	if (!pid)
		_exit(ioctl(sys, KEEL_CREATE_VM_FROM, &arg) < 0 ? errno : 0);
	sleep_ms(500);
	began = now_ns();
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status)) TH_LOG("it had ended already: error %d", WEXITSTATUS(status));
	EXPECT_GE(scaled(5000000000), now_ns() - began);
	close(sys);
	munmap(s, size);
}

/* ---- errors change nothing ---- */

TEST(errors)
{
	struct vm *vm = obedient_vm(VM_IRQCHIP, mem_alloc(AREA_SIZE));
	static struct blob b;
	struct kvm_userspace_memory_region *mem;
	struct keel_setup_cap cap = { 0 };
	struct keel_section *s;
	struct keel_state arg;
	struct { struct kvm_irq_routing r; struct kvm_irq_routing_entry e[1]; } routes = { .r.nr = 1, .e = {
		{ .gsi = 3, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = 3 } },
	} };
	int free_fd, fd;

	must(vm_enable_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1));
	must(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &routes));
	ASSERT_EQ(0, state_get(vm, &blob, KEEL_WITH_SETUP));
	free_fd = must(dup(0));
	close(free_fd);

#define REFUSED(err, what, sec, fl) do {						\
	memcpy(&b, &blob, sizeof(b));							\
	what;										\
	EXPECT_EQ(err, create_from(vm->sys, &b, fl, &arg));				\
	EXPECT_EQ(sec, arg.section.id);							\
	fd = must(dup(0));								\
	EXPECT_EQ(free_fd, fd);								\
	close(fd);									\
} while (0)
#define IN(id, vcpu)	(s = section(&b, id, vcpu))
	REFUSED(-EINVAL, , 0, 1);
	REFUSED(-EINVAL, b.data[0]++, 0, 0);
	REFUSED(-EPROTO, b.data[8]++, 0, 0);
	REFUSED(-EINVAL, b.size = 8, 0, 0);
	REFUSED(-E2BIG, b.size = (64 << 20) + 1, 0, 0);
	REFUSED(-EFAULT, b.size = 60 << 20, 0, 0);
	/* No state in it, or no vCPUs */
	REFUSED(-ENODEV, (b.size = (u8 *)IN(KEEL_SECTION_CLOCK, -1) - b.data), KEEL_SECTION_CLOCK, 0);
	REFUSED(-ENODEV, (b.size = 16, b.data[12] = 0), KEEL_SECTION_CLOCK, 0);
	REFUSED(-EINVAL, b.size -= 8, KEEL_SECTION_LAPIC, 0);
	REFUSED(-EINVAL, b.data[12]++, 0, 0);
	/* By name */
	REFUSED(-EPROTO, IN(KEEL_SECTION_ROUTES, -1)->id = 4711, 4711, 0);
	REFUSED(-EPROTO, IN(KEEL_SECTION_PV, 0)->id = 4711, 4711, 0);
	REFUSED(-EINVAL, IN(KEEL_SECTION_ROUTES, -1)->length = 0xfffffff0, KEEL_SECTION_ROUTES, 0);
	REFUSED(-EINVAL, IN(KEEL_SECTION_ROUTES, -1)->length--, KEEL_SECTION_ROUTES, 0);
	REFUSED(-EINVAL, IN(KEEL_SECTION_ROUTES, -1)->reserved = 1, KEEL_SECTION_ROUTES, 0);
	REFUSED(-EINVAL, IN(KEEL_SECTION_ROUTES, -1)->vcpu = 0, KEEL_SECTION_ROUTES, 0);
	REFUSED(-EINVAL, IN(KEEL_SECTION_CPUID, 0)->vcpu = 1, KEEL_SECTION_CPUID, 0);
	REFUSED(-EINVAL, IN(KEEL_SECTION_VCPU, 0)->vcpu = 1 << 20, KEEL_SECTION_VCPU, 0);
	/* Values */
	REFUSED(-EINVAL, (IN(KEEL_SECTION_CAPS, -1), cap.cap = 4711, memcpy(s + 1, &cap, sizeof(cap))), KEEL_SECTION_CAPS, 0);
	REFUSED(-EINVAL, (IN(KEEL_SECTION_MACHINE, -1), *(u32 *)(s + 1) = 2), KEEL_SECTION_MACHINE, 0);
	REFUSED(-EINVAL, (IN(KEEL_SECTION_MACHINE, -1), *(u32 *)(s + 1) = 0), KEEL_SECTION_ROUTES, 0);
	REFUSED(-EINVAL, (IN(KEEL_SECTION_MACHINE, -1), ((struct keel_setup_vm *)(s + 1))->boot_cpu = -2), KEEL_SECTION_MACHINE, 0);
	REFUSED(-EINVAL, (IN(KEEL_SECTION_ROUTES, -1), ((struct kvm_irq_routing_entry *)(s + 1))->type = 99), KEEL_SECTION_ROUTES, 0);
	REFUSED(-EINVAL, (IN(KEEL_SECTION_VCPU, 0), ((struct keel_setup_vcpu *)(s + 1))->mcg_cap = 99), KEEL_SECTION_VCPU, 0);
	REFUSED(-EINVAL, (IN(KEEL_SECTION_SREGS, 0), ((struct kvm_sregs2 *)(s + 1))->cr4 = ~0ULL), KEEL_SECTION_SREGS, 0);
	REFUSED(-EEXIST, (IN(KEEL_SECTION_MEMSLOTS, -1), mem = (void *)(s + 1), mem[1].guest_phys_addr = 0),
		KEEL_SECTION_MEMSLOTS, KEEL_WITH_MEMSLOTS);
	REFUSED(-EINVAL, (IN(KEEL_SECTION_MEMSLOTS, -1), mem = (void *)(s + 1), mem[1].userspace_addr = ~0UL << 47),
		KEEL_SECTION_MEMSLOTS, KEEL_WITH_MEMSLOTS);
	/* KEEL_SET_STATE does not take a set-up */
	arg = (struct keel_state){ .data = (u64)blob.data, .size = blob.size };
	EXPECT_GT(0, xioctl(vm->fd, KEEL_SET_STATE, &arg));
	/* All is well without */
	fd = create_from(vm->sys, &blob, KEEL_WITH_MEMSLOTS, &arg);
	EXPECT_EQ(free_fd, fd);
	close(fd);
	fd = create_from(vm->sys, &blob, 0, &arg);
	EXPECT_EQ(free_fd, fd);
	close(fd);
	vm_free(vm);
}

/* ---- memory ---- */

/* A parent, and a child that looks once the parent has written, and writes */
static void isolated(struct __test_metadata *_metadata, void *area, bool shared)
{
	struct vm *vm = obedient_vm(VM_IRQCHIP, area);
	struct vcpu *v = vm->vcpu[0];
	int go[2], done[2];
	pid_t pid;
	u8 c = 0;

	must(pipe(go));
	must(pipe(done));
	ask(v, WRITE, AREA_PAGES, 100);
	pid = vm_fork(vm);
	if (!pid) {
		must(read(go[0], &c, 1));
		sure(ask(v, READ, AREA_PAGES, 0) == sum_of(AREA_PAGES, shared ? 200 : 100));
		ask(v, WRITE, AREA_PAGES, 300);
		must(write(done[1], &c, 1));
		must(read(go[0], &c, 1));
		_exit(0);
	}
	ASSERT_EQ(sum_of(AREA_PAGES, 200), ask(v, WRITE, AREA_PAGES, 200));
	must(write(go[1], &c, 1));
	close(done[1]);
	ASSERT_EQ(1, read(done[0], &c, 1));
	EXPECT_EQ(sum_of(AREA_PAGES, shared ? 300 : 200), ask(v, READ, AREA_PAGES, 0));
	must(write(go[1], &c, 1));
	EXPECT_EQ(0, reap(pid));
	/* Alone again */
	EXPECT_EQ(sum_of(AREA_PAGES, 400), ask(v, WRITE, AREA_PAGES, 400));
	EXPECT_EQ(sum_of(AREA_PAGES, 400), ask(v, READ, AREA_PAGES, 0));
	vm_free(vm);
}

static void *mapped(int fd, int flags)
{
	void *p = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* On a boundary of large pages, as the guest's is */
static void *aligned_area(void)
{
	u8 *p = mem_alloc(AREA_SIZE + HUGE);

	return (void *)(((u64)p + HUGE - 1) / HUGE * HUGE);
}

TEST(memory_small)
{
	void *p = mem_alloc(AREA_SIZE);

	madvise(p, AREA_SIZE, MADV_NOHUGEPAGE);
	isolated(_metadata, p, false);
}

TEST(memory_thp)
{
	void *p = aligned_area();

	madvise(p, AREA_SIZE, MADV_HUGEPAGE);
	isolated(_metadata, p, false);
}

TEST(memory_file)
{
	int fd = must(memfd_create("area", 0));

	must(ftruncate(fd, AREA_SIZE));
	isolated(_metadata, mapped(fd, MAP_PRIVATE), false);
	isolated(_metadata, mapped(fd, MAP_SHARED), true);
}

TEST(memory_hugetlb)
{
	void *p;

	file_write("/proc/sys/vm/nr_hugepages", "8\n");
	p = mapped(-1, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB);
	if (p)
		isolated(_metadata, p, false);
	else
		SKIP(return, "no huge pages");
	file_write("/proc/sys/vm/nr_hugepages", "0\n");
}

/* Who serves the parent's faults does not serve the child's: of what is there it has a copy, all else is new memory */
TEST(memory_userfaultfd)
{
	void *area = mem_alloc(AREA_SIZE);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { (u64)area, AREA_SIZE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct vm *vm;
	pid_t pid;

	if (fd < 0)
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	must(ioctl(fd, UFFDIO_API, &api));
	madvise(area, AREA_SIZE, MADV_NOHUGEPAGE);
	vm = obedient_vm(VM_IRQCHIP, area);
	ask(vm->vcpu[0], WRITE, 512, 9);
	must(ioctl(fd, UFFDIO_REGISTER, &reg));
	pid = vm_fork(vm);
	if (!pid) {
		sure(ask(vm->vcpu[0], READ, AREA_PAGES, 0) == sum_of(512, 9));
		sure(ask(vm->vcpu[0], WRITE, AREA_PAGES, 3) == sum_of(AREA_PAGES, 3));
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(sum_of(512, 9), ask(vm->vcpu[0], READ, 512, 0));
	vm_free(vm);
}

/* ---- a parent that reads pays nothing for the fork ---- */

static bool two_dimensional(void)
{
	const char *name = guest_is_amd() ? "/sys/module/keel/parameters/npt" : "/sys/module/keel/parameters/ept";
	int fd = open(name, O_RDONLY);
	char c = 'N';

	if (fd >= 0 && read(fd, &c, 1) != 1)
		c = 'N';
	close(fd);
	return c == 'Y';
}

FIXTURE(faults) {
	void *area;
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_VARIANT(faults) {
	int advice;
};

FIXTURE_VARIANT_ADD(faults, small) { .advice = MADV_NOHUGEPAGE };
FIXTURE_VARIANT_ADD(faults, thp) { .advice = MADV_HUGEPAGE };

FIXTURE_SETUP(faults)
{
	self->area = aligned_area();
	madvise(self->area, AREA_SIZE, variant->advice);
	self->vm = obedient_vm(VM_IRQCHIP, self->area);
	self->v = self->vm->vcpu[0];
	ask(self->v, WRITE, AREA_PAGES, 10);
}

FIXTURE_TEARDOWN(faults)
{
	vm_free(self->vm);
}

static u64 sum_here(const void *area)
{
	u64 i, sum = 0;

	for (i = 0; i < AREA_SIZE / 8; i++)
		sum += ((const volatile u64 *)area)[i] * (i + 1);
	return sum;
}

/* Has a copy of all memory until the pipe's end is closed; 0: it stayed what it was */
static pid_t bystander(int *pipe_end, const void *area)
{
	u64 sum = sum_here(area);
	pid_t pid;
	int p[2];
	u8 c;

	must(pipe(p));
	pid = must(fork());
	if (!pid) {
		close(p[1]);
		must(read(p[0], &c, 1));
		_exit(sum_here(area) != sum);
	}
	close(p[0]);
	*pipe_end = p[1];
	return pid;
}

TEST_F(faults, reads)
{
	u64 before;
	pid_t pid;
	int p, i;

	if (!two_dimensional())
		SKIP(return, "shadow paging forgets what it has");
	for (i = 0; i < 3; i++) {
		/* Beside, it has stack and variables, which it writes */
		pid = bystander(&p, self->area);
		ask(self->v, READ, 0, 0);
		before = vcpu_stat(self->v, "page_faults");
		ASSERT_EQ(sum_of(AREA_PAGES, 10 + i), ask(self->v, READ, AREA_PAGES, 0));
		EXPECT_GE(2, vcpu_stat(self->v, "page_faults") - before);
		/* Each page it writes is another's, and has to be copied */
		ASSERT_EQ(sum_of(AREA_PAGES, 11 + i), ask(self->v, WRITE, AREA_PAGES, 11 + i));
		close(p);
		ASSERT_EQ(0, reap(pid));
		/* And alone it writes for nothing */
		before = vcpu_stat(self->v, "page_faults");
		ask(self->v, WRITE, AREA_PAGES, 11 + i);
		EXPECT_GE(2, vcpu_stat(self->v, "page_faults") - before);
	}
}

/* With the dirty log on, which protects in the same way: writes are told as ever, and go on when it is off */
TEST_F(faults, logged)
{
	u64 bits[AREA_PAGES / 64];
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bits };
	u64 val = 1000, i;
	pid_t pid;
	int p;

	for (i = 0; i < 4; i++) {
		vm_slot(self->vm, 1, AREA_GPA, AREA_SIZE, self->area, KVM_MEM_LOG_DIRTY_PAGES);
		if (i & 2)	/* protected by the one before the other, or after */
			must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
		pid = bystander(&p, self->area);
		must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
		ask(self->v, READ, AREA_PAGES, 0);
		must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
		EXPECT_EQ(0, bits[0] | bits[5] | bits[15]);
		ask(self->v, WRITE, 128, ++val);
		must(ioctl(self->vm->fd, KVM_GET_DIRTY_LOG, &log));
		EXPECT_EQ(~0UL, bits[0]);
		EXPECT_EQ(~0UL, bits[1]);
		EXPECT_EQ(0, bits[2] | bits[5] | bits[15]);
		if (i & 1)
			vm_slot(self->vm, 1, AREA_GPA, AREA_SIZE, self->area, 0);
		ASSERT_EQ(sum_of(AREA_PAGES, ++val), ask(self->v, WRITE, AREA_PAGES, val));
		close(p);
		ASSERT_EQ(0, reap(pid));
		ASSERT_EQ(sum_of(AREA_PAGES, val), ask(self->v, READ, AREA_PAGES, 0));
	}
}

/* Pages that each run writes are put back where the kernel has them: but not what is another's by now */
TEST_F(faults, reset)
{
	struct keel_snapshot snap = { 0 };
	struct keel_reset reset = { 0 };
	pid_t pid = 0;
	int p, i;

	ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_SNAPSHOT, &snap));
	reset.id = snap.id;
	for (i = 0; i < 20; i++) {
		ask(self->v, WRITE, 50, 500 + i);
		if (i > 6)
			pid = bystander(&p, self->area);
		reset.pages = 0;
		ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_RESET, &reset));
		ASSERT_LE(50, reset.pages);
		if (i > 6 && i & 1)
			ask(self->v, WRITE, 60, 700 + i);
		if (i > 6) {
			close(p);
			ASSERT_EQ(0, reap(pid));
		}
		reset.pages = 0;
		ASSERT_EQ(0, xioctl(self->vm->fd, KEEL_RESET, &reset));
		ASSERT_EQ(sum_of(AREA_PAGES, 10), ask(self->v, READ, AREA_PAGES, 0));
	}
}

/* ---- many of one template ---- */

#define COPIES	6

TEST(template)
{
	struct vm *vm = obedient_vm(VM_IRQCHIP, mem_alloc(AREA_SIZE)), *copy[COPIES];
	int file = must(memfd_create("template", MFD_ALLOW_SEALING)), i;
	u64 was;

	ask(vm->vcpu[0], WRITE, AREA_PAGES, 77);
	was = guest_var(vm, turns);
	ASSERT_EQ(0, state_get(vm, &blob, KEEL_WITH_SETUP));
	must(ftruncate(file, MEM_SIZE + AREA_SIZE));
	ASSERT_EQ(MEM_SIZE, pwrite(file, vm->mem, MEM_SIZE, 0));
	for (i = 0; i < AREA_PAGES; i++)
		must(pwrite(file, &(u64){ 77 + i }, 8, MEM_SIZE + i * PAGE));
	must(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW));
	vm_free(vm);

	for (i = 0; i < COPIES; i++) {
		struct vm *c = copy[i] = calloc(1, sizeof(*c));
		struct vcpu *v = calloc(1, sizeof(*v));
		struct keel_state arg;

		c->sys = node_open();
		c->run_size = must(ioctl(c->sys, KVM_GET_VCPU_MMAP_SIZE, 0));
		c->fd = create_from(c->sys, &blob, 0, &arg);
		ASSERT_LT(0, c->fd);
		c->size = MEM_SIZE + AREA_SIZE;
		c->mem = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
		ASSERT_NE(MAP_FAILED, c->mem);
		vm_slot(c, 0, 0, MEM_SIZE, c->mem, 0);
		vm_slot(c, 1, AREA_GPA, AREA_SIZE, c->mem + MEM_SIZE, 0);
		v->vm = c;
		v->fd = must(ioctl(c->fd, KVM_CREATE_VCPU, 0));
		v->run = mmap(NULL, c->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
		ASSERT_NE(MAP_FAILED, v->run);
		c->vcpu[c->nr++] = v;
	}
	for (i = 0; i < COPIES; i++) {
		EXPECT_EQ(sum_of(AREA_PAGES, 77), ask(copy[i]->vcpu[0], READ, AREA_PAGES, 0));
		EXPECT_EQ(sum_of(AREA_PAGES, i), ask(copy[i]->vcpu[0], WRITE, AREA_PAGES, i));
	}
	for (i = 0; i < COPIES; i++) {
		EXPECT_EQ(sum_of(AREA_PAGES, i), ask(copy[i]->vcpu[0], READ, AREA_PAGES, 0));
		EXPECT_EQ(was + 3, guest_var(copy[i], turns));
		vm_free(copy[i]);
	}
}

/* ---- two hundred at once ---- */

#define MANY	200
#define MANY_KIB	64	/* of keel's, for each that is idle */

static long free_kib(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	char line[128];
	long kib = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemFree: %ld kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

/* Children, with a VM or without: what they take, in KiB, idle.  With one, each answers afterwards, or dies. */
static long many(struct vm *vm, bool with_vm)
{
	int i, go[2], ready[2], wrong = 0;
	struct vcpu *v = vm->vcpu[0];
	pid_t pid[MANY];
	long before, kib;
	u8 c = 0;

	must(pipe(go));
	must(pipe(ready));
	if (state_get(vm, &blob, KEEL_WITH_SETUP))
		die("KEEL_GET_STATE: %s", strerror(errno));
	sleep_ms(1000);
	before = free_kib();
	for (i = 0; i < MANY; i++) {
		pid[i] = must(fork());
		if (pid[i])
			continue;
		close(go[1]);
		if (with_vm) {
			vm_take(vm, &blob);
			vcpu_settle(v);
		}
		must(write(ready[1], &c, 1));
		must(read(go[0], &c, 1));
		if (with_vm) {
			sure(ask(v, READ, AREA_PAGES, 0) == sum_of(AREA_PAGES, 5));
			sure(ask(v, WRITE, 10, i) == sum_of(10, i));
			sure(ask(v, READ, 10, 0) == sum_of(10, i));
		}
		_exit(0);
	}
	for (i = 0; i < MANY; i++)
		must(read(ready[0], &c, 1));
	sleep_ms(1000);
	kib = before - free_kib();
	close(go[1]);
	close(go[0]);
	close(ready[0]);
	close(ready[1]);
	for (i = 0; i < MANY; i++)
		wrong += !!reap(pid[i]);
	if (wrong)
		die("%d of them were wrong", wrong);
	return kib;
}

TEST_F_TIMEOUT(faults, two_hundred, 300)
{
	long with, without, of_vm;
	int tries = 3;

	/* Free pages that a CPU keeps are not in MemFree: let it keep few */
	file_write("/proc/sys/vm/percpu_pagelist_high_fraction", "100000\n");
	ask(self->v, WRITE, AREA_PAGES, 5);
	many(self->vm, true);		/* what caches keep, they have */
	/* All of the machine's memory is looked at: others allocate, and free, as well */
	do {
		without = many(self->vm, false);
		with = many(self->vm, true);
		of_vm = (with - without) / MANY;
	} while (of_vm > MANY_KIB && --tries);
	file_write("/proc/sys/vm/percpu_pagelist_high_fraction", "0\n");
	TH_LOG("%d children: %ld KiB each, %ld KiB of it for the VM", MANY, with / MANY, of_vm);
	EXPECT_GE(MANY_KIB, of_vm);
	EXPECT_EQ(sum_of(AREA_PAGES, 5), ask(self->v, READ, AREA_PAGES, 0));
}

/* ---- in the midst of all else ---- */

static volatile int stop;

static void *changes_slots(void *arg)
{
	struct vm *vm = arg;
	void *p = mem_alloc(HUGE);

	while (!stop) {
		vm_slot(vm, 5, 0x10000000, HUGE, p, 0);
		vm_slot(vm, 5, 0x10000000, 0, p, 0);
		must(vm_enable_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1));
	}
	return NULL;
}

static void *runs(void *arg)
{
	struct vcpu *v = arg;

	while (!stop) {
		vcpu_sync(v);
		vcpu_settle(v);
		usleep(200);		/* or, with one CPU, it is never found outside KVM_RUN */
	}
	return NULL;
}

TEST_F(faults, races)
{
	struct vcpu *other = vcpu_new(self->vm, 1);
	pthread_t slots, runner;
	struct keel_state arg;
	pid_t pid;
	int i, r, sys, killed = 0;

	vcpu_long(other, obedient_guest, 1);
	guest_var(self->vm, op) = READ;
	guest_var(self->vm, base) = AREA_GPA;
	guest_var(self->vm, pages) = 20;
	ASSERT_EQ(0, pthread_create(&slots, NULL, changes_slots, self->vm));
	ASSERT_EQ(0, pthread_create(&runner, NULL, runs, other));
	for (i = 0; i < 40; i++) {
		/* Where the other vCPU is in the midst of things there is no state to be had */
		while ((r = state_get(self->vm, &blob, KEEL_WITH_SETUP)) == -EBUSY || r == -EINPROGRESS)
			usleep(100);
		ASSERT_EQ(0, r);
		pid = must(fork());
		if (!pid) {
			sys = node_open();
			for (;;) {
				r = create_from(sys, &blob, KEEL_WITH_MEMSLOTS, &arg);
				sure(r >= 0);
				close(must(ioctl(r, KVM_CREATE_VCPU, 1)));
				close(r);
			}
		}
		usleep(i * 500);
		kill(pid, SIGKILL);
		killed += reap(pid) == -SIGKILL;
	}
	EXPECT_EQ(40, killed);
	stop = 1;
	pthread_join(slots, NULL);
	pthread_join(runner, NULL);
	EXPECT_EQ(sum_of(AREA_PAGES, 10), ask(self->v, READ, AREA_PAGES, 0));
}

TEST_HARNESS_MAIN
