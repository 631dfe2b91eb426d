// SPDX-License-Identifier: GPL-2.0-only
/*
 * VMs and vCPUs as objects: creation and its limits, the order in which their
 * files may go, other processes that hold them, death in the middle of a run.
 */
#include "test.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

CODE16(hlt_code, "1: hlt; jmp 1b");
CODE16(spin_code, "1: jmp 1b");
CODE16(out_code, "mov $0x42,%al; out %al,$0x10; hlt");

static void many_files(void)
{
	struct rlimit r = { 8192, 8192 };

	setrlimit(RLIMIT_NOFILE, &r);
}

TEST(unknown_ioctl)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	char buf[64] = { 0 };

	EXPECT_EQ(-ENOTTY, xioctl(vm->fd, _IO(KVMIO, 0xff), 0));
	EXPECT_EQ(-ENOTTY, xioctl(vm->fd, _IOW(KVMIO, 0xfe, char[64]), buf));
	EXPECT_EQ(-ENOTTY, xioctl(vm->fd, KVM_RUN, 0));
	EXPECT_EQ(-ENOTTY, xioctl(vm->fd, KVM_CREATE_VM, 0));
	EXPECT_EQ(-ENOTTY, xioctl(vm->fd, KVM_GET_API_VERSION, 0));
	EXPECT_EQ(-EINVAL, xioctl(v->fd, _IO(KVMIO, 0xff), 0));
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_CREATE_VCPU, 1));
	EXPECT_EQ(-EINVAL, xioctl(v->fd, _IO('x', 1), 0));
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_RUN, 1));
	vm_free(vm);
}

TEST(bad_pointers)
{
	static const unsigned long on_vm[] = {
		KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG,
		KVM_CLEAR_DIRTY_LOG, KVM_REGISTER_COALESCED_MMIO, KVM_IRQFD,
		KVM_IOEVENTFD, KVM_SIGNAL_MSI, KVM_IRQ_LINE,
		KVM_IRQ_LINE_STATUS, KVM_SET_GSI_ROUTING, KVM_ENABLE_CAP,
		KVM_SET_CLOCK, KVM_GET_IRQCHIP,
		KVM_SET_IRQCHIP, KVM_SET_PIT2, KVM_GET_PIT,
	};
	static const unsigned long on_vcpu[] = {
		KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS,
		KVM_GET_FPU, KVM_SET_FPU, KVM_GET_MSRS, KVM_SET_MSRS,
		KVM_SET_CPUID2, KVM_GET_CPUID2, KVM_GET_LAPIC, KVM_SET_LAPIC,
		KVM_INTERRUPT, KVM_GET_MP_STATE, KVM_SET_MP_STATE,
		KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, KVM_GET_DEBUGREGS,
		KVM_SET_DEBUGREGS, KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XCRS,
		KVM_SET_XCRS, KVM_TRANSLATE,
		KVM_GET_SREGS2, KVM_SET_SREGS2, KVM_SET_SIGNAL_MASK,
	};
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_pit_config pit = { 0 };
	int i;

	must(ioctl(vm->fd, KVM_CREATE_PIT2, &pit));
	for (i = 0; i < ARRAY_SIZE(on_vm); i++) {
		EXPECT_EQ(-EFAULT, xioctl(vm->fd, on_vm[i], 8))
			TH_LOG("ioctl %#lx", on_vm[i]);
	}
	for (i = 0; i < ARRAY_SIZE(on_vcpu); i++) {
		if ((on_vcpu[i] == KVM_GET_XCRS || on_vcpu[i] == KVM_SET_XCRS) && !vm_cap(vm, KVM_CAP_XCRS))
			continue;	/* a CPU without XSAVE */
		EXPECT_EQ(-EFAULT, xioctl(v->fd, on_vcpu[i], 8))
			TH_LOG("ioctl %#lx", on_vcpu[i]);
	}
	vm_free(vm);
}

TEST(many_vms)
{
	struct vm *vm[40];
	int i;

	many_files();
	for (i = 0; i < ARRAY_SIZE(vm); i++) {
		vm[i] = vm_new_size(VM_PLAIN, 0x20000);
		vcpu_real(vcpu_new(vm[i], 0), hlt_code, code_size(hlt_code));
	}
	for (i = 0; i < ARRAY_SIZE(vm); i++)
		vcpu_expect(vm[i]->vcpu[0], KVM_EXIT_HLT);
	for (i = 0; i < ARRAY_SIZE(vm); i += 2)
		vm_free(vm[i]);
	for (i = 1; i < ARRAY_SIZE(vm); i += 2) {
		vcpu_expect(vm[i]->vcpu[0], KVM_EXIT_HLT);
		vm_free(vm[i]);
	}
}

TEST(vcpu_ids)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	int max = vm_cap(vm, KVM_CAP_MAX_VCPU_ID);
	int fd;

	must(ioctl(vm->fd, KVM_CREATE_VCPU, 0));
	fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, 7));
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_VCPU, 0));
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_VCPU, 7));
	/* its number stays taken while the VM lives */
	close(fd);
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_VCPU, 7));
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_CREATE_VCPU, max));
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_CREATE_VCPU, -1L));
	EXPECT_LT(0, xioctl(vm->fd, KVM_CREATE_VCPU, max - 1));
	EXPECT_LT(0, xioctl(vm->fd, KVM_CREATE_VCPU, 1023));
	vm_free(vm);
}

TEST(vcpu_count)
{
	struct vm *vm = vm_new_size(VM_IRQCHIP, 0);
	int max = vm_cap(vm, KVM_CAP_MAX_VCPUS), i;

	many_files();
	for (i = 0; i < max; i++)
		if (ioctl(vm->fd, KVM_CREATE_VCPU, i) < 0)
			break;
	ASSERT_EQ(max, i);
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_CREATE_VCPU, max));
	vm_free(vm);
}

TEST(max_vcpu_id)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);

	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 100000));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 4));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 4));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 8));
	EXPECT_LT(0, xioctl(vm->fd, KVM_CREATE_VCPU, 3));
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_CREATE_VCPU, 4));
	vm_free(vm);
}

/* The boot CPU's number is one that a vCPU may have, whichever is said first (kvm: since Linux 6.10) */
TEST(boot_cpu_id)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	int max = vm_cap(vm, KVM_CAP_MAX_VCPU_ID);

	if (!xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, max + 1))
		SKIP(return, "an older kvm takes any");
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, max + 1));
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 1L << 32));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 5));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 4));
	EXPECT_EQ(0, vm_enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 6));
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 7));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 1));
	must(ioctl(vm->fd, KVM_CREATE_VCPU, 1));
	EXPECT_EQ(-EBUSY, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 7));
	vm_free(vm);
}

/* What is decided before the first vCPU, and what may be said only once */
TEST(creation_order)
{
	struct kvm_pit_config pit = { 0 };
	u64 ident = 0xfffbc000;
	struct vm *vm = vm_new_size(VM_PLAIN, 0);

	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_SET_TSS_ADDR, 0xffffe000UL));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &ident));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 2));
	must(ioctl(vm->fd, KVM_CREATE_VCPU, 0));
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &ident));
	EXPECT_EQ(-EBUSY, xioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 0));
	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	EXPECT_EQ(-EEXIST, vm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
	vm_free(vm);

	vm = vm_new_size(VM_PLAIN, 0);
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, 4097));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	EXPECT_EQ(-EEXIST, vm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, 24));
	EXPECT_EQ(0, xioctl(vm->fd, KVM_CREATE_PIT2, &pit));
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_PIT2, &pit));
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_PIT, 0));
	vm_free(vm);

	vm = vm_new_size(VM_SPLIT, 0);
	EXPECT_EQ(-EEXIST, xioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	vm_free(vm);
}

TEST(enable_cap_refusals)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_enable_cap c = { .cap = KVM_CAP_EXCEPTION_PAYLOAD,
				    .flags = 1, .args = { 1 } };

	EXPECT_EQ(-EINVAL, xioctl(vm->fd, KVM_ENABLE_CAP, &c));
	c.flags = 0;
	EXPECT_EQ(0, xioctl(vm->fd, KVM_ENABLE_CAP, &c));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, 0x12345, 0));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_USER_MEMORY, 0));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X2APIC_API, 1ULL << 40));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR,
					 1 << 20));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS,
					 1 << 20));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2,
					 1ULL << 40));
	EXPECT_EQ(-EINVAL, vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
					 1 << 8));
	c.cap = 0x12345;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_ENABLE_CAP, &c));
	vm_free(vm);
}

TEST(create_device)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	struct kvm_create_device d = { .type = 0x1234 };

	NEED_CAP(vm, KVM_CAP_DEVICE_CTRL);
	EXPECT_EQ(-EFAULT, xioctl(vm->fd, KVM_CREATE_DEVICE, 8));
	EXPECT_EQ(-ENODEV, xioctl(vm->fd, KVM_CREATE_DEVICE, &d));
	d.flags = KVM_CREATE_DEVICE_TEST;
	EXPECT_EQ(-ENODEV, xioctl(vm->fd, KVM_CREATE_DEVICE, &d));
	vm_free(vm);
}

TEST(fd_flags)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	struct vcpu *v = vcpu_new(vm, 0);
	char c;

	EXPECT_TRUE(fcntl(vm->fd, F_GETFD) & FD_CLOEXEC);
	EXPECT_TRUE(fcntl(v->fd, F_GETFD) & FD_CLOEXEC);
	EXPECT_EQ(-1, read(vm->fd, &c, 1));
	EXPECT_EQ(-1, write(v->fd, &c, 1));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_SHARED,
				   vm->fd, 0));
	vm_free(vm);
}

/* The vCPU keeps its VM: all files of it but the vCPU's may be gone */
TEST(vm_fd_first)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);

	vcpu_real(v, out_code, code_size(out_code));
	close(vm->fd);
	close(vm->sys);
	EXPECT_EQ(0x42, *vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1));
	vcpu_expect(v, KVM_EXIT_HLT);
	vcpu_free(v);
}

TEST(vcpu_fd_first)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);

	vcpu_real(v, out_code, code_size(out_code));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
	vcpu_free(v);
	v = vcpu_new(vm, 1);
	vcpu_real(v, out_code, code_size(out_code));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
	vm_free(vm);
}

/* The mapping of kvm_run holds the vCPU's pages after every file is closed */
TEST(run_page_outlives)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_run *run = v->run;
	u32 *p = (u32 *)run;
	int i;

	vcpu_real(v, out_code, code_size(out_code));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
	close(v->fd);
	close(vm->fd);
	close(vm->sys);
	EXPECT_EQ(KVM_EXIT_IO, run->exit_reason);
	for (i = 0; i < vm->run_size / 4; i++)
		p[i] = i;
	for (i = 0; i < vm->run_size / 4; i++) {
		ASSERT_EQ(i, p[i]);
	}
}

static int child_status(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	return status;
}

/* Past the end of what can be mapped is SIGBUS, not somebody's page */
TEST(run_mapping_end)
{
	struct vm *vm = vm_new_size(VM_PLAIN, 0);
	struct vcpu *v = vcpu_new(vm, 0);
	volatile char *p;
	pid_t pid;
	int status;

	p = mmap(NULL, vm->run_size + 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
		 v->fd, 0);
	if (p == MAP_FAILED)
		return;		/* refusing it outright would do */
	pid = fork();
	if (!pid) {
		(void)p[vm->run_size];
		_exit(0);
	}
	status = child_status(pid);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(SIGBUS, WTERMSIG(status));
	vm_free(vm);
}

/* A VM belongs to the address space that made it */
TEST(other_address_space)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	int status;
	pid_t pid;

	vcpu_real(v, out_code, code_size(out_code));
	pid = fork();
	if (!pid) {
		struct kvm_regs r;
		int bad = 0;

		bad |= xioctl(vm->fd, KVM_CREATE_VCPU, 1) != -EIO;
		bad |= xioctl(vm->fd, KVM_CHECK_EXTENSION, 0) != -EIO;
		bad |= xioctl(vm->fd, _IO(KVMIO, 0xff), 0) != -EIO;
		bad |= vm_try_slot(vm, 1, 1 << 30, 4096, vm->mem, 0) != -EIO;
		bad |= xioctl(v->fd, KVM_RUN, 0) != -EIO;
		bad |= xioctl(v->fd, KVM_GET_REGS, &r) != -EIO;
		/* the node it inherited is its own to use */
		bad |= xioctl(vm->sys, KVM_CREATE_VM, 0) < 0;
		_exit(bad);
	}
	status = child_status(pid);
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	/* and is as it was */
	EXPECT_EQ(0x42, *vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1));
	vm_free(vm);
}

/* A VM that somebody still holds when its process, and so its memory, is gone */
TEST(outlives_its_process)
{
	int go[2], done[2], status;
	pid_t pid;
	char c;

	must(pipe(go));
	must(pipe(done));
	pid = fork();
	if (!pid) {
		struct vm *vm = vm_new(VM_IRQCHIP);
		struct vcpu *v = vcpu_new(vm, 0);

		vcpu_real(v, out_code, code_size(out_code));
		vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
		if (!fork()) {
			bool bad;

			must(read(go[0], &c, 1));
			bad = xioctl(v->fd, KVM_RUN, 0) != -EIO;
			bad |= xioctl(vm->fd, KVM_CREATE_VCPU, 9) != -EIO;
			close(v->fd);
			close(vm->fd);
			c = bad ? 'b' : 'g';
			must(write(done[1], &c, 1));
		}
		_exit(0);
	}
	status = child_status(pid);
	ASSERT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status));
	must(write(go[1], "x", 1));
	ASSERT_EQ(1, read(done[0], &c, 1));
	EXPECT_EQ('g', c);
}

/* fork() while a vCPU has run: the child's copy of memory is its own */
TEST(fork_keeps_memory)
{
	static const u8 pattern = 0x5a;
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	pid_t pid;

	vcpu_real(v, out_code, code_size(out_code));
	vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
	pid = fork();
	if (!pid) {
		memset(vm->mem, pattern, 0x20000);
		_exit(0);
	}
	child_status(pid);
	vcpu_expect(v, KVM_EXIT_HLT);
	EXPECT_NE(pattern, vm->mem[CODE_GPA]);
	vm_free(vm);
}

static void *run_thread(void *arg)
{
	struct vcpu *v = arg;

	v->tid = 1;
	ioctl(v->fd, KVM_RUN, 0);
	return NULL;
}

/* A process with two vCPUs in a loop and one halted; how it goes is @sig */
static void busy_child(enum vm_kind kind, bool by_exit)
{
	struct vm *vm = vm_new(kind);
	pthread_t t;
	int i;

	for (i = 0; i < 3; i++) {
		struct vcpu *v = vcpu_new(vm, i);

		vcpu_real(v, spin_code, code_size(spin_code));
		if (i == 2 && kind == VM_IRQCHIP) {
			struct kvm_regs r;

			memcpy(gpa_hva(vm, CODE_GPA + 64), hlt_code,
			       code_size(hlt_code));
			vcpu_get_regs(v, &r);
			r.rip = CODE_GPA + 64;
			vcpu_set_regs(v, &r);
		}
		pthread_create(&t, NULL, run_thread, v);
		while (!v->tid)
			sleep_ms(1);
	}
	sleep_ms(50);
	if (by_exit)
		_exit(7);
	for (;;)
		pause();
}

TEST(exit_while_running)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		busy_child(VM_IRQCHIP, true);
	status = child_status(pid);
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(7, WEXITSTATUS(status));
}

TEST(kill_while_running)
{
	int status, i;
	pid_t pid;

	for (i = 0; i < 4; i++) {
		pid = fork();
		if (!pid)
			busy_child(i & 1 ? VM_IRQCHIP : VM_PLAIN, false);
		/* at any moment of its life, creation included */
		sleep_ms(20 + 150 * i);
		kill(pid, SIGKILL);
		status = child_status(pid);
		EXPECT_TRUE(WIFSIGNALED(status));
		EXPECT_EQ(SIGKILL, WTERMSIG(status));
	}
}

/*
 * Each of the two below is a race with the end of a VM: ROUNDS in the environment for
 * more of them. What they are about does not show in what userspace sees, but in the
 * kernel's log: run them on a kernel that checks its memory (slub_debug=FZP,keel_vcpu
 * is enough).
 */
static int rounds(int few)
{
	const char *s = getenv("ROUNDS");

	return s ? atoi(s) : few;
}

#define TOUCHED		512		/* pages */
#define TOUCHED_GPA	0x10000000UL

static void touch_guest(u64 arg)
{
	u64 i;

	for (i = 0; i < TOUCHED; i++)
		*(volatile u64 *)(TOUCHED_GPA + i * 4096) = i;
	guest_done(0);
}

static volatile bool unmapping, vm_gone;

static void *unmap_thread(void *mem)
{
	int i;

	for (i = 0; i < TOUCHED && !vm_gone; i++) {
		madvise((u8 *)mem + i * 4096, 4096, MADV_DONTNEED);
		unmapping = true;
	}
	return NULL;
}

/* What the host does to memory while the last files are closed finds no vCPU that is gone */
TEST(closed_while_unmapping)
{
	u8 *mem = mem_alloc(TOUCHED * 4096);
	int n, i;

	madvise(mem, TOUCHED * 4096, MADV_NOHUGEPAGE);	/* each page is one to take away */
	for (n = rounds(60); n > 0; n--) {
		struct vm *vm = vm_new(VM_IRQCHIP);
		struct vcpu *v = vcpu_new(vm, 0);
		pthread_t t;

		if (n % 1000 == 0)
			TH_LOG("%d rounds left", n);
		vm_slot(vm, 1, TOUCHED_GPA, TOUCHED * 4096, mem, 0);
		/* Many take long to make, and few are enough most of the time. */
		for (i = 1; i < (n % 8 ? 6 : MAX_VCPUS); i++)
			vcpu_bare(vm, i);
		vcpu_long(v, touch_guest, 0);
		vcpu_done(v);
		while (vm->nr)
			vcpu_free(vm->vcpu[vm->nr - 1]);
		unmapping = vm_gone = false;
		pthread_create(&t, NULL, unmap_thread, mem);
		while (!unmapping)
			;
		vm_free(vm);
		vm_gone = true;
		pthread_join(t, NULL);
	}
	munmap(mem, TOUCHED * 4096);
}

/* An interrupt is in service, and the guest may say by a bit in memory that it has ended */
static u8 ended[64] __attribute__((aligned(64)));

static void ending(struct guest_frame *f)
{
	int i;

	for (i = 0; i < 2000; i++)
		pause_cpu();
	if (!__sync_fetch_and_and((u32 *)ended, ~1U))
		apic_eoi();
}

static void ending_guest(u64 arg)
{
	apic_on();
	guest_on(0x40, ending);
	wrmsr(MSR_KVM_PV_EOI_EN, (u64)ended | 1);
	irq_on();
	for (;;)
		apic_icr(0, 0x40000 | 0x40);
}

static void paused_child(volatile int *pauses)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	u8 *mem = mem_alloc(4096);
	pthread_t t;

	vcpu_long(v, ending_guest, 0);
	pthread_create(&t, NULL, run_thread, v);
	for (;;) {
		vm_slot(vm, 1, TOUCHED_GPA, 4096, mem, 0);
		vm_slot(vm, 1, TOUCHED_GPA, 0, mem, 0);
		++*pauses;
	}
}

/* A thread that is killed while its VM is paused does not look at memory any more */
TEST(killed_while_paused)
{
	volatile int *pauses = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int n, status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, (void *)pauses);
	for (n = rounds(20); n > 0; n--) {
		if (n % 1000 == 0)
			TH_LOG("%d rounds left", n);
		*pauses = 0;
		pid = fork();
		if (!pid)
			paused_child(pauses);
		/* Anywhere in one of its pauses, once its guest has its interrupts. */
		while (*pauses < 20) {
			ASSERT_EQ(0, waitpid(pid, &status, WNOHANG));
			usleep(200);
		}
		usleep(n * 700 % 10000);
		kill(pid, SIGKILL);
		status = child_status(pid);
		ASSERT_TRUE(WIFSIGNALED(status));
		ASSERT_EQ(SIGKILL, WTERMSIG(status));
	}
	munmap((void *)pauses, 4096);
}

/* The node still makes VMs that run, after all that */
TEST(exec_while_running)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct vm *vm = vm_new(VM_IRQCHIP);
		struct vcpu *v = vcpu_new(vm, 0);
		pthread_t t;

		vcpu_real(v, spin_code, code_size(spin_code));
		pthread_create(&t, NULL, run_thread, v);
		while (!v->tid)
			sleep_ms(1);
		execl("/proc/self/exe", "vm", "--no-tests", NULL);
		_exit(1);
	}
	status = child_status(pid);
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
}

TEST(stats_fd)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_stats_header h;
	int fd;

	NEED_CAP(vm, KVM_CAP_BINARY_STATS_FD);
	fd = xioctl(vm->fd, KVM_GET_STATS_FD, NULL);
	ASSERT_LE(0, fd);
	ASSERT_EQ(sizeof(h), pread(fd, &h, sizeof(h), 0));
	EXPECT_GT(h.num_desc, 0);
	EXPECT_GE(h.desc_offset, sizeof(h));
	close(fd);
	fd = xioctl(v->fd, KVM_GET_STATS_FD, NULL);
	ASSERT_LE(0, fd);
	/* it keeps the VM, too */
	vm_free(vm);
	ASSERT_EQ(sizeof(h), pread(fd, &h, sizeof(h), 0));
	EXPECT_GT(h.num_desc, 0);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--no-tests"))
		return 0;
	return test_harness_run(argc, argv);
}
