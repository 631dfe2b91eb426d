// SPDX-License-Identifier: GPL-2.0-only
/*
 * The differ: what a module says of itself, and its answers to ioctls with arguments right and wrong, on each kind of
 * file.
 */
#define _GNU_SOURCE
#include "differ.h"

static void play_extensions(const struct scenario *s)
{
	struct vm *vm = vm_new(VM_PLAIN), *split = vm_new(VM_SPLIT);
	struct vcpu *v = vcpu_new(vm, 0);
	u32 cap;

	for (cap = 0; cap < 300; cap++) {
		at("system", cap);
		put("ret", 0, xioctl(vm->sys, KVM_CHECK_EXTENSION, cap));
		at("vm", cap);
		put("ret", 0, xioctl(vm->fd, KVM_CHECK_EXTENSION, cap));
		at("split", cap);
		put("ret", 0, xioctl(split->fd, KVM_CHECK_EXTENSION, cap));
	}
	at("vcpu", 0);
	put("ret", 0, xioctl(v->fd, KVM_CHECK_EXTENSION, 0));
	at("huge", 0);
	put("ret", 0, xioctl(vm->sys, KVM_CHECK_EXTENSION, ~0UL));
}

/* ---- CPUID ---- */

static void cpuid_list(const char *where, int fd, unsigned long req)
{
	unsigned int max = 256, i;
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + max * sizeof(c->entries[0]));
	int r;

	at(where, 0);
	put("few", 0, xioctl(fd, req, c));
	put("few nent", 0, c->nent);
	c->nent = 3;
	put("few", 3, xioctl(fd, req, c));
	put("few nent", 3, c->nent);
	c->nent = 100000;
	put("many", 0, xioctl(fd, req, c));
	c->nent = max;
	r = xioctl(fd, req, c);
	put("ret", 0, r);
	put("nent", 0, c->nent);
	/* An empty leaf 0 that is not the first is none */
	for (i = 1; i < c->nent && c->entries[i].function; i++)
		;
	if (i < c->nent)
		c->nent = i;
	for (i = 0; !r && i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];
		u64 leaf = (u64)e->function << 16 | e->index;

		/* the APIC id of the CPU that asked */
		put("eax", leaf, e->eax);
		put("ebx", leaf, e->function == 1 ? e->ebx & 0xffffff : e->ebx);
		put("ecx", leaf, e->ecx);
		put("edx", leaf, e->function == 0xb || e->function == 0x1f ? 0 : e->edx);
		put("flags", leaf, e->flags);
	}
	for (i = 0; !r && i < c->nent; i++)
		put("order", i, (u64)c->entries[i].function << 16 | c->entries[i].index);
	free(c);
}

static void play_cpuid(const struct scenario *s)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_bare(vm, 0);

	cpuid_list("supported", vm->sys, KVM_GET_SUPPORTED_CPUID);
	cpuid_list("emulated", vm->sys, KVM_GET_EMULATED_CPUID);
	cpuid_list("hyperv", vm->sys, KVM_GET_SUPPORTED_HV_CPUID);
	cpuid_list("hyperv of vcpu", v->fd, KVM_GET_SUPPORTED_HV_CPUID);
	cpuid_list("none set", v->fd, KVM_GET_CPUID2);
	must(ioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	cpuid_list("as supported", v->fd, KVM_GET_CPUID2);
	put("again", 0, xioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	vm->cpuid->nent = 0;
	put("empty", 0, xioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
	vm->cpuid->nent = 257;
	put("too many", 0, xioctl(v->fd, KVM_SET_CPUID2, vm->cpuid));
}

/* ---- MSRs ---- */

static void msr_list(const char *where, int fd, unsigned long req, bool values)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + 1000 * sizeof(u32));
	unsigned int i;

	at(where, 0);
	put("few", 0, xioctl(fd, req, l));
	l->nmsrs = 1000;
	put("ret", 0, xioctl(fd, req, l));
	for (i = 0; i < l->nmsrs; i++) {
		struct {
			struct kvm_msrs h;
			struct kvm_msr_entry e;
		} m = { .h.nmsrs = 1, .e.index = l->indices[i] };

		put("there", l->indices[i], 1);
		if (!values)
			continue;
		put("get", l->indices[i], xioctl(fd, KVM_GET_MSRS, &m));
		put("value", l->indices[i], m.e.data);
	}
	free(l);
}

static void play_msr_lists(const struct scenario *s)
{
	int sys = node_open();

	msr_list("vcpu", sys, KVM_GET_MSR_INDEX_LIST, false);
	msr_list("features", sys, KVM_GET_MSR_FEATURE_INDEX_LIST, true);
}

static const struct {
	u32 first, nr;
} msr_ranges[] = {
	{ 0, 0x600 }, { 0x680, 0x40 }, { 0x6c0, 0x20 }, { 0x6e0, 1 }, { 0x800, 0x40 }, { 0xc80, 4 }, { 0xd90, 0x20 },
	{ 0x1c4, 2 },
	{ 0x40000000, 0x120 }, { 0x4b564d00, 16 }, { 0xc0000080, 16 }, { 0xc00000e0, 16 }, { 0xc0000100, 8 },
	{ 0xc0000300, 4 },
	{ 0xc0010000, 0x140 }, { 0xc0010200, 16 }, { 0xc0011000, 0x60 },
};

/* Each MSR there may be, asked for and set by the VMM */
static void play_msrs(const struct scenario *s)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	unsigned int i, n;

	for (i = 0; i < sizeof(msr_ranges) / sizeof(msr_ranges[0]); i++) {
		for (n = 0; n < msr_ranges[i].nr; n++) {
			u32 msr = msr_ranges[i].first + n;
			u64 val = 0, after = 0;

			at("get", 0);
			put("ret", msr, vcpu_get_msr(v, msr, &val));
			if (!msr_tells_time(msr))
				put("value", msr, val);
			if (msr == MSR_IA32_TSC || msr == 0x40000003)	/* the latter: reset me */
				continue;
			at("set", 0);
			put("same", msr, vcpu_set_msr(v, msr, val));
			put("zero", msr, vcpu_set_msr(v, msr, 0));
			put("ones", msr, vcpu_set_msr(v, msr, ~0ULL));
			vcpu_get_msr(v, msr, &after);
			if (!msr_tells_time(msr))
				put("after", msr, after);
			vcpu_set_msr(v, msr, val);
		}
	}
}

/* ---- ioctls, with arguments right and wrong ---- */

/* Newer than the headers, with the sizes of their arguments */
#ifndef KVM_SET_USER_MEMORY_REGION2
#define KVM_SET_USER_MEMORY_REGION2	_IOC(_IOC_WRITE, KVMIO, 0x49, 160)
#endif
#ifndef KVM_SET_MEMORY_ATTRIBUTES
#define KVM_SET_MEMORY_ATTRIBUTES	_IOC(_IOC_WRITE, KVMIO, 0xd2, 32)
#endif
#ifndef KVM_CREATE_GUEST_MEMFD
#define KVM_CREATE_GUEST_MEMFD		_IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd4, 64)
#endif
#define NO_SUCH_IOCTL			_IO(KVMIO, 0xff)
#define NOT_OF_KVM			_IO('x', 0x10)

#define FD	1		/* answers with a file */
#define TIME	2		/* what it answers changes with time */

struct call {
	const char *name;
	unsigned long cmd;
	u32 flags;
};

#define CALL(cmd)		{ #cmd, cmd, 0 }
#define CALL_(cmd, flags)	{ #cmd, cmd, flags }

static const struct call sys_calls[] = {
	CALL(KVM_GET_API_VERSION), CALL_(KVM_CREATE_VM, FD), CALL(KVM_CHECK_EXTENSION), CALL(KVM_GET_VCPU_MMAP_SIZE),
	CALL(KVM_GET_SUPPORTED_CPUID), CALL(KVM_GET_EMULATED_CPUID), CALL(KVM_GET_SUPPORTED_HV_CPUID),
	CALL(KVM_GET_MSR_INDEX_LIST), CALL(KVM_GET_MSR_FEATURE_INDEX_LIST), CALL(KVM_GET_MSRS),
	CALL(KVM_HAS_DEVICE_ATTR),
	CALL(KVM_GET_DEVICE_ATTR), CALL(KVM_SET_DEVICE_ATTR), CALL(KVM_X86_GET_MCE_CAP_SUPPORTED), CALL(NO_SUCH_IOCTL),
	CALL(NOT_OF_KVM), CALL(KVM_SET_MSRS),
};

static const struct call vm_calls[] = {
	CALL(KVM_CHECK_EXTENSION), CALL_(KVM_CREATE_VCPU, FD), CALL(KVM_SET_USER_MEMORY_REGION),
	CALL(KVM_SET_USER_MEMORY_REGION2),
	CALL(KVM_SET_NR_MMU_PAGES), CALL(KVM_GET_NR_MMU_PAGES), CALL(KVM_GET_DIRTY_LOG), CALL(KVM_CLEAR_DIRTY_LOG),
	CALL(KVM_RESET_DIRTY_RINGS), CALL(KVM_SET_TSS_ADDR), CALL(KVM_SET_IDENTITY_MAP_ADDR), CALL(KVM_SET_BOOT_CPU_ID),
	CALL(KVM_ENABLE_CAP), CALL(KVM_CREATE_IRQCHIP), CALL(KVM_CREATE_PIT), CALL(KVM_CREATE_PIT2),
	CALL_(KVM_GET_PIT, TIME),
	CALL(KVM_SET_PIT), CALL_(KVM_GET_PIT2, TIME), CALL(KVM_SET_PIT2), CALL(KVM_REINJECT_CONTROL),
	CALL(KVM_GET_IRQCHIP),
	CALL(KVM_SET_IRQCHIP), CALL(KVM_IRQ_LINE), CALL(KVM_IRQ_LINE_STATUS), CALL(KVM_SET_GSI_ROUTING),
	CALL(KVM_SIGNAL_MSI),
	CALL(KVM_IRQFD), CALL(KVM_IOEVENTFD), CALL(KVM_REGISTER_COALESCED_MMIO), CALL(KVM_UNREGISTER_COALESCED_MMIO),
	CALL_(KVM_GET_CLOCK, TIME), CALL(KVM_SET_CLOCK), CALL(KVM_SET_TSC_KHZ), CALL(KVM_GET_TSC_KHZ),
	CALL(KVM_X86_SET_MSR_FILTER), CALL(KVM_SET_PMU_EVENT_FILTER), CALL(KVM_HYPERV_EVENTFD),
	CALL_(KVM_GET_STATS_FD, FD),
	CALL(KVM_CREATE_DEVICE), CALL(KVM_SET_MEMORY_ATTRIBUTES), CALL_(KVM_CREATE_GUEST_MEMFD, FD),
	CALL(KVM_MEMORY_ENCRYPT_OP),
	CALL(KVM_MEMORY_ENCRYPT_REG_REGION), CALL(KVM_MEMORY_ENCRYPT_UNREG_REGION), CALL(KVM_XEN_HVM_CONFIG),
	CALL(KVM_XEN_HVM_GET_ATTR), CALL(KVM_XEN_HVM_SET_ATTR), CALL(KVM_XEN_HVM_EVTCHN_SEND),
	CALL(KVM_SET_MEMORY_REGION),
	CALL(KVM_HAS_DEVICE_ATTR), CALL(KVM_GET_DEVICE_ATTR), CALL(KVM_SET_DEVICE_ATTR), CALL(NO_SUCH_IOCTL),
	CALL(NOT_OF_KVM),
};

static const struct call vcpu_calls[] = {
	CALL(KVM_GET_REGS), CALL(KVM_SET_REGS), CALL(KVM_GET_SREGS), CALL(KVM_SET_SREGS), CALL(KVM_GET_SREGS2),
	CALL(KVM_SET_SREGS2), CALL(KVM_GET_FPU), CALL(KVM_SET_FPU), CALL(KVM_GET_XSAVE), CALL(KVM_GET_XSAVE2),
	CALL(KVM_SET_XSAVE),
	CALL(KVM_GET_XCRS), CALL(KVM_SET_XCRS), CALL(KVM_GET_DEBUGREGS), CALL(KVM_SET_DEBUGREGS),
	CALL(KVM_SET_GUEST_DEBUG),
	CALL(KVM_GET_VCPU_EVENTS), CALL(KVM_SET_VCPU_EVENTS), CALL(KVM_INTERRUPT), CALL(KVM_NMI), CALL(KVM_SMI),
	CALL(KVM_GET_MP_STATE), CALL(KVM_SET_MP_STATE), CALL(KVM_GET_LAPIC), CALL(KVM_SET_LAPIC),
	CALL(KVM_SET_VAPIC_ADDR),
	CALL(KVM_SET_CPUID), CALL(KVM_SET_CPUID2), CALL(KVM_GET_CPUID2), CALL(KVM_GET_MSRS), CALL(KVM_SET_MSRS),
	CALL(KVM_X86_SETUP_MCE), CALL(KVM_X86_SET_MCE), CALL(KVM_SET_TSC_KHZ), CALL(KVM_GET_TSC_KHZ),
	CALL(KVM_KVMCLOCK_CTRL),
	CALL(KVM_HAS_DEVICE_ATTR), CALL(KVM_GET_DEVICE_ATTR), CALL(KVM_SET_DEVICE_ATTR), CALL(KVM_TRANSLATE),
	CALL(KVM_GET_SUPPORTED_HV_CPUID), CALL(KVM_SET_SIGNAL_MASK), CALL(KVM_ENABLE_CAP), CALL_(KVM_GET_STATS_FD, FD),
	CALL(KVM_GET_NESTED_STATE), CALL(KVM_SET_NESTED_STATE), CALL(KVM_XEN_VCPU_GET_ATTR),
	CALL(KVM_XEN_VCPU_SET_ATTR),
	CALL(KVM_TPR_ACCESS_REPORTING), CALL(KVM_GET_ONE_REG), CALL(KVM_SET_ONE_REG), CALL(KVM_PRE_FAULT_MEMORY),
	CALL(KVM_CHECK_EXTENSION), CALL(NO_SUCH_IOCTL), CALL(NOT_OF_KVM),
};

static u8 *argument;		/* 64 KiB, and behind them nothing */
#define ARG_SIZE	0x10000
#define ARG_AT		0x10000000	/* always there: some ioctls take the pointer for a number */

static void have_argument(void)
{
	argument = mmap((void *)ARG_AT, ARG_SIZE + 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (argument != (u8 *)ARG_AT)
		die("no memory at %#x", ARG_AT);
	must(mprotect(argument + ARG_SIZE, 4096, PROT_NONE));
}

static int called(int fd, const struct call *c, unsigned long cmd, unsigned long arg)
{
	int r = xioctl(fd, cmd, arg);

	if (!(c->flags & FD) || r < 0)
		return r;
	close(r);
	return 0;
}

static int call(int fd, const struct call *c, u32 nr, const char *what, unsigned long cmd, unsigned long arg)
{
	int r = called(fd, c, cmd, arg);

	at(c->name, nr);
	put(what, 0, r);
	return r;
}

/* One ioctl on one file, which is as new */
static void call_with_all(int fd, const struct call *c, u32 nr)
{
	unsigned int size = _IOC_SIZE(c->cmd) ?: 64, i;
	unsigned long arg = (unsigned long)argument;
	int r;

	call(fd, c, nr, "NULL", c->cmd, 0);
	call(fd, c, nr, "1", c->cmd, 1);
	call(fd, c, nr, "2", c->cmd, 2);
	call(fd, c, nr, "-1", c->cmd, -1);
	call(fd, c, nr, "a page", c->cmd, 0x1000);
	call(fd, c, nr, "4 GiB", c->cmd, 1UL << 32);
	memset(argument, 0, ARG_SIZE);
	r = call(fd, c, nr, "zeros", c->cmd, arg);
	if (r >= 0 && !(c->flags & TIME))
		for (i = 0; i < size; i += 8)
			if (*(u64 *)(argument + i))
				put("answer", i, *(u64 *)(argument + i));
	memset(argument, 0xff, ARG_SIZE);
	call(fd, c, nr, "ones", c->cmd, arg);
	for (i = 0; i < size && i < 64; i += 4) {
		memset(argument, 0, ARG_SIZE);
		*(u32 *)(argument + i) = 1;
		put("one at", i, called(fd, c, c->cmd, arg));
		*(u32 *)(argument + i) = -1;
		put("-1 at", i, called(fd, c, c->cmd, arg));
	}
	/* All but its last byte is there */
	memset(argument, 0, ARG_SIZE);
	call(fd, c, nr, "cut", c->cmd, arg + ARG_SIZE - size + 1);
	/* Another size, another direction */
	call(fd, c, nr, "larger", c->cmd + (8UL << _IOC_SIZESHIFT), arg);
	call(fd, c, nr, "turned", c->cmd ^ 3UL << _IOC_DIRSHIFT, arg);
}

struct calls {
	const struct call *calls;
	unsigned int nr;
	enum vm_kind kind;
	enum { ON_SYS, ON_VM, ON_VCPU } on;
};

static void play_calls(const struct scenario *s)
{
	const struct calls *c = s->what;
	unsigned int i;

	have_argument();
	for (i = 0; i < c->nr; i++) {
		struct vm *vm = vm_new_size(c->kind, 0);
		struct vcpu *v = c->on == ON_VCPU ? vcpu_new(vm, 0) : NULL;

		call_with_all(c->on == ON_SYS ? vm->sys : c->on == ON_VM ? vm->fd : v->fd, &c->calls[i], 0);
		vm_free(vm);
	}
}

/* Each ioctl on the files that it is not for */
static void misplace(const struct call *c, unsigned int nr, int fd, u32 step)
{
	while (nr--) {
		memset(argument, 0, ARG_SIZE);
		call(fd, &c[nr], step, "misplaced", c[nr].cmd, (unsigned long)argument);
	}
}

#define NR(a)	(sizeof(a) / sizeof((a)[0]))

static void play_misplaced(const struct scenario *s)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	struct vcpu *v = vcpu_new(vm, 0);

	have_argument();
	misplace(vm_calls, NR(vm_calls), vm->sys, ON_SYS);
	misplace(vcpu_calls, NR(vcpu_calls), vm->sys, ON_SYS);
	misplace(sys_calls, NR(sys_calls), vm->fd, ON_VM);
	misplace(vcpu_calls, NR(vcpu_calls), vm->fd, ON_VM);
	misplace(sys_calls, NR(sys_calls), v->fd, ON_VCPU);
	misplace(vm_calls, NR(vm_calls), v->fd, ON_VCPU);
	at("KVM_RUN", 0);
	put("system", 0, xioctl(vm->sys, KVM_RUN, 0));
	put("vm", 0, xioctl(vm->fd, KVM_RUN, 0));
	put("argument", 0, xioctl(v->fd, KVM_RUN, 1));
}

/* ---- KVM_ENABLE_CAP ---- */

static unsigned int enabled;	/* how many, since it was last said that there is none */

static void enable(int fd, u32 cap, const char *what, u64 flags, u64 index, u64 arg)
{
	struct kvm_enable_cap c = { .cap = cap, .flags = flags, .args = { arg } };

	int r = xioctl(fd, KVM_ENABLE_CAP, &c);

	at(what, cap);
	put("ret", index, r);
	enabled += r >= 0;
}

static void play_enable(const struct scenario *s)
{
	const struct calls *c = s->what;
	u32 cap, bit;

	struct vm *vm = NULL;
	struct vcpu *v = NULL;

	for (cap = 0; cap < 260; cap++) {
		int fd;

		/* Another one only where this one is no longer as new */
		if (!vm || enabled) {
			if (vm)
				vm_free(vm);
			vm = vm_new_size(c->kind, 0);
			v = c->on == ON_VCPU ? vcpu_new(vm, 0) : NULL;
		}
		enabled = 0;
		fd = v ? v->fd : vm->fd;
		enable(fd, cap, "flags", 1, 0, 0);
		enable(fd, cap, "zero", 0, 0, 0);
		for (bit = 0; bit < 64; bit++)
			enable(fd, cap, "bit", 0, bit, 1ULL << bit);
		enable(fd, cap, "ones", 0, 0, ~0ULL);
		enable(fd, cap, "again zero", 0, 0, 0);
		if (!v && enabled) {
			vcpu_bare(vm, 0);
			enable(fd, cap, "with vcpu", 0, 0, 1);
		}
	}
}

static const struct calls calls[] = {
	{ sys_calls, NR(sys_calls), VM_PLAIN, ON_SYS },
	{ vm_calls, NR(vm_calls), VM_PLAIN, ON_VM },
	{ vm_calls, NR(vm_calls), VM_IRQCHIP, ON_VM },
	{ vcpu_calls, NR(vcpu_calls), VM_PLAIN, ON_VCPU },
	{ vcpu_calls, NR(vcpu_calls), VM_IRQCHIP, ON_VCPU },
};

void add_system(void)
{
	static const char *const names[] = {
		"calls-system", "calls-vm", "calls-vm-irqchip", "calls-vcpu", "calls-vcpu-irqchip",
	};
	unsigned int i;

	add_scenario("extensions", play_extensions, NULL);
	add_scenario("cpuid", play_cpuid, NULL);
	add_scenario("msr-lists", play_msr_lists, NULL);
	add_scenario("msrs", play_msrs, NULL);
	for (i = 0; i < NR(calls); i++)
		add_scenario(names[i], play_calls, &calls[i]);
	add_scenario("misplaced", play_misplaced, NULL);
	add_scenario("enable-vm", play_enable, &calls[1]);
	add_scenario("enable-vm-irqchip", play_enable, &calls[2]);
	add_scenario("enable-vcpu", play_enable, &calls[3]);
}
