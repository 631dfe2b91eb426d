// SPDX-License-Identifier: GPL-2.0-only
/*
 * keel's VMs beside those of the kernel's own kvm module, on the same CPUs at the same time: how that is allowed and refused,
 * and that neither kind finds anything of the other's.  As root, and what was loaded of kvm is unloaded at the end.
 *
 * What is left on a CPU as it was found, or is kept from the other kind, and the test that fails where it is not:
 *
 *	the current VMCS (VMX)				together, preempted
 *	STAR, LSTAR, SYSCALL_MASK (VMX), TSC_AUX (both)	preempted
 *	translations under the shared ASID (SVM)	all_asids, on a CPU that looks at them (the lab's ryzen)
 *	TSC_RATIO (SVM)					mitigate: beside_ratio
 *	BP_SPEC_REDUCE (SVM)				mitigate: beside_reduce
 *	branch predictions				mitigate: beside_ibpb
 *	CPUs that go offline, suspend			power with BESIDE=1
 *	a crash, kexec					guest/crash-test beside-crash, beside-kexec
 *	VPIDs without EPT (VMX)				none
 *
 * BESIDE_SECONDS=n: so long does each test of guests run (3).
 */
#define _GNU_SOURCE
#include "test.h"
#include "beside.h"
#include "pvclock.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>

FIXTURE(beside) {
	int sys;
	cpu_set_t cpus;
};

FIXTURE_SETUP(beside)
{
	if (strcmp(node_path(), KEEL_NODE) || !kvm_load())
		SKIP_FIXTURE("wants keel, and a kvm module to be loaded");
	self->sys = node_open();
	must(sched_getaffinity(0, sizeof(self->cpus), &self->cpus));
}

FIXTURE_TEARDOWN(beside)
{
	sched_setaffinity(0, sizeof(self->cpus), &self->cpus);
	EXPECT_EQ(0, xioctl(self->sys, KEEL_BESIDE_KVM, -1));
	close(self->sys);
	EXPECT_EQ(0, module_delete(vendor_module()));
	module_delete("kvm");
}

static bool kernel_at_least(unsigned int major, unsigned int minor)
{
	struct utsname name;
	unsigned int a, b;

	uname(&name);
	return sscanf(name.release, "%u.%u", &a, &b) == 2 && (a > major || (a == major && b >= minor));
}

static void nothing(u64 arg)
{
	guest_done(arg);
}

static u64 runs(struct vm *vm)
{
	struct vcpu *v = vcpu_new(vm, 0);

	vcpu_long(v, nothing, 42);
	return vcpu_done(v);
}

/* ------------------------------------------------------------- guests of both kinds */

#define NR		2			/* of each kind */
#define PAGES		16
#define ALIAS_GVA	0xa00000UL		/* for each guest another page of its own */
#define ALIAS_PT	0xc00000UL

static volatile u32 stop;
static volatile u64 rounds;
static volatile u32 has_tsc_aux;
static volatile u32 stays;			/* does not go to userspace by itself */
static volatile u64 pages[PAGES][512];
static struct pv_time times __attribute__((aligned(64)));

/* Values that are canonical, and another for each guest */
static const u32 msrs[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE, MSR_IA32_SYSENTER_CS,
	MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP, MSR_FS_BASE, MSR_TSC_AUX,
};
#define NR_MSRS	(sizeof(msrs) / sizeof(msrs[0]))
#define TSC_AUX	(NR_MSRS - 1)

/* RDMSR of those of SYSCALL, and of TSC_AUX, is answered by modules from memory: what is in the CPU shows where SYSCALL lands, and RDTSCP */
#define LANDINGS	4
extern const char landings[];
asm(".pushsection .text\n .balign 16\n landings:\n"
    ".irp n, 0, 1, 2, 3\n .balign 16\n mov $\\n, %eax\n jmp *%rcx\n .endr\n"
    ".popsection\n");

static u64 land(void)
{
	u64 where;

	asm volatile("syscall" : "=a"(where) : : "rcx", "r11", "memory", "cc");
	return where;
}

static u32 tsc_aux(void)
{
	u32 aux;

	asm volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
	return aux;
}

static u64 landing(u64 id, u64 turn)
{
	return (id + turn) % LANDINGS;
}

static u64 msr_value(unsigned int i, u64 id, u64 turn)
{
	u64 v = (id << 12 | turn) * 0x11 + i;

	switch (msrs[i]) {
	case MSR_STAR:
		return v << 48 | (u64)SEL_CODE64 << 32;
	case MSR_LSTAR:
		return (u64)landings + 16 * landing(id, turn);
	case MSR_SYSCALL_MASK:
		return v & 0x40000;
	case MSR_IA32_SYSENTER_CS:
		return v & 0xffff;	/* a selector: some CPUs have no more of it */
	default:
		return v & 0x7fffff;
	}
}

static bool msr_there(unsigned int i)
{
	return msrs[i] != MSR_TSC_AUX || has_tsc_aux;
}

/* Values in all registers over a few instructions, some of which exit */
static void check_registers(u64 seed)
{
	u64 bad, in[2] = { seed * 3, seed * 5 }, out[2];

	asm volatile("push %%rbp\n"
		     "movups (%[in]),%%xmm7\n"
		     "mov %%rcx,%%r8\n lea 1(%%r8),%%r9\n lea 2(%%r8),%%r10\n lea 3(%%r8),%%r11\n lea 4(%%r8),%%r12\n"
		     "lea 5(%%r8),%%r13\n lea 6(%%r8),%%r14\n lea 7(%%r8),%%r15\n lea 8(%%r8),%%rbp\n"
		     "mov $40,%%ecx\n 1: pause\n nop\n loop 1b\n"
		     "xor %%eax,%%eax\n xor %%ecx,%%ecx\n cpuid\n"
		     "mov $40,%%ecx\n 1: pause\n nop\n loop 1b\n"
		     "movups %%xmm7,(%[out])\n"
		     "lea 8(%%r8),%%rax\n sub %%rbp,%%rax\n pop %%rbp\n"
		     "lea 1(%%r8),%%rcx\n sub %%r9,%%rcx\n or %%rcx,%%rax\n"
		     "lea 2(%%r8),%%rcx\n sub %%r10,%%rcx\n or %%rcx,%%rax\n"
		     "lea 3(%%r8),%%rcx\n sub %%r11,%%rcx\n or %%rcx,%%rax\n"
		     "lea 4(%%r8),%%rcx\n sub %%r12,%%rcx\n or %%rcx,%%rax\n"
		     "lea 5(%%r8),%%rcx\n sub %%r13,%%rcx\n or %%rcx,%%rax\n"
		     "lea 6(%%r8),%%rcx\n sub %%r14,%%rcx\n or %%rcx,%%rax\n"
		     "lea 7(%%r8),%%rcx\n sub %%r15,%%rcx\n or %%rcx,%%rax\n"
		     "mov %%r8,%%rcx\n"
		     : "=&a"(bad), "+c"(seed)
		     : [in] "S"(in), [out] "D"(out)
		     : "rbx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
	guest_eq(0, bad);
	guest_eq(in[0], out[0]);
	guest_eq(in[1], out[1]);
}

static void guest(u64 id)
{
	u64 tsc = rdtsc(), ns, last_ns, turn, seed = id << 32, now;
	u32 i, n, aux;

	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_TIME, (u64)&times | 1);
	last_ns = pv_read(&times);
	while (!stop) {
		turn = rounds & 0x7f;
		for (i = 0; i < NR_MSRS; i++)
			if (msr_there(i))
				wrmsr(msrs[i], msr_value(i, id, turn));
		aux = msr_value(TSC_AUX, id, turn);
		for (i = 0; i < PAGES; i++)
			for (n = 0; n < 512; n += 61)
				pages[i][n] = seed + i * 512 + n;
		write_cr2(seed);
		for (n = 0; n < 20; n++) {
			check_registers(seed + n);
			guest_eq(landing(id, turn), land());
			if (has_tsc_aux)
				guest_eq(aux, tsc_aux());
		}
		/* To userspace and back: another thread's turn */
		if (!stays)
			guest_sync(0);
		check_registers(seed + n);
		guest_eq(seed, read_cr2());
		for (i = 0; i < PAGES; i++)
			for (n = 0; n < 512; n += 61)
				guest_eq(seed + i * 512 + n, pages[i][n]);
		guest_eq(id, *(volatile u64 *)ALIAS_GVA);
		for (i = 0; i < NR_MSRS; i++)
			if (msr_there(i))
				guest_eq(msr_value(i, id, turn), rdmsr(msrs[i]));
		now = rdtsc();
		guest_assert(now > tsc);
		tsc = now;
		ns = pv_read(&times);
		/* Else it is the guest's to see that CPUs' clocks agree */
		guest_assert(ns >= last_ns || !(times.flags & 1));
		last_ns = ns;
		rounds++;
		seed++;
	}
	guest_done(0);
}

/* The guest sees its own page, and no other guest's, at the same address under the same kind of tables */
static void make_alias(struct vm *vm, u64 id)
{
	*vm_split_page(vm, ALIAS_GVA, ALIAS_PT) = (HEAP_GPA + id * 0x1000) | 7;
	*(volatile u64 *)gpa_hva(vm, HEAP_GPA + id * 0x1000) = id;
}

static void *runner(void *arg)
{
	struct vcpu *v = arg;
	unsigned int n = 0;

	v->tid = gettid();
	for (;;) {
		if (vcpu_run(v) != KVM_EXIT_IO)
			die("exit %s", exit_name(v->run->exit_reason));
		if (v->run->io.port == PORT_DONE)
			return NULL;
		/* Mostly it is preempted, so that the next one finds the CPU as the kernel's module leaves it between two entries */
		if (++n % 32 == 0)
			sched_yield();
	}
}

static struct vcpu *start(struct vm *vm, u64 id, int cpu)
{
	struct vcpu *v = vcpu_new(vm, 0);
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 0x80000001, 0);

	vcpu_long(v, guest, id);
	make_alias(vm, id);
	guest_var(vm, has_tsc_aux) = e && e->edx & 1 << 27;
	if (pthread_create(&v->thread, NULL, runner, v))
		die("pthread_create");
	while (!v->tid)
		sleep_ms(1);
	stay_on(v->tid, cpu);
	return v;
}

static u64 end(struct vcpu *v)
{
	u64 n;

	guest_var(v->vm, stop) = 1;
	pthread_join(v->thread, NULL);
	n = guest_var(v->vm, rounds);
	vm_free(v->vm);
	return n;
}

static unsigned int seconds(void)
{
	return atoi(getenv("BESIDE_SECONDS") ?: "3");
}

/* So long, and until each has done that much */
static void go_on(struct vcpu **v, int nr, u64 least)
{
	int i;

	sleep_ms(1000 * seconds());
	for (i = 0; i < nr; i++)
		while (guest_var(v[i]->vm, rounds) <= least)
			sleep_ms(10);
}

/* All on one CPU, that is in the other kind's guest most of the time that it is not in one's own */
TEST_F_TIMEOUT(beside, together, 900)
{
	struct vcpu *v[2 * NR];
	u64 n, least = ~0ULL;
	int i;

	ASSERT_EQ(0, hand_over(self->sys));
	for (i = 0; i < 2 * NR; i++)
		v[i] = start(i & 1 ? kvm_vm_new(VM_IRQCHIP) : vm_new(VM_IRQCHIP), i + 1, 0);
	EXPECT_TRUE(state_is("mode", "shared"));
	go_on(v, 2 * NR, 10);
	for (i = 0; i < 2 * NR; i++) {
		n = end(v[i]);
		least = n < least ? n : least;
	}
	TH_LOG("%lu rounds", least);
	EXPECT_LT(10, least);
}

/*
 * One of each kind, neither of which goes to userspace: until then kvm leaves its guest's MSRs in the CPU, knows by memory which they
 * are, and when that vCPU comes back writes none of them.
 */
TEST_F_TIMEOUT(beside, preempted, 900)
{
	struct vcpu *v[2];
	u64 n[2];
	int i;

	ASSERT_EQ(0, hand_over(self->sys));
	for (i = 0; i < 2; i++) {
		struct vm *vm = i ? kvm_vm_new(VM_IRQCHIP) : vm_new(VM_IRQCHIP);

		vm_image(vm);
		guest_var(vm, stays) = 1;
		v[i] = start(vm, i + 1, 0);
	}
	go_on(v, 2, 10);
	for (i = 0; i < 2; i++) {
		n[i] = end(v[i]);
		EXPECT_LT(10, n[i]);
	}
	TH_LOG("%lu and %lu rounds", n[0], n[1]);
}

/*
 * kvm_amd gives each of its vCPUs another ASID, until there are no more: so many that they have all of them, on a CPU that has
 * few. One of them shares its ASID with keel's vCPUs then.  (One of the lab's CPUs stops when it finds translations of another
 * guest under an ASID.)
 */
TEST_F_TIMEOUT(beside, all_asids, 900)
{
	struct vcpu *v[16];
	u32 r[4], i, nr;

	cpuid(0x8000000a, 0, r);
	nr = r[1];
	if (!guest_is_amd() || nr > sizeof(v) / sizeof(v[0]))
		SKIP(return, "no ASIDs, or too many");
	ASSERT_EQ(0, hand_over(self->sys));
	/* The first is the host's */
	for (i = 0; i < nr; i++)
		v[i] = start(i ? kvm_vm_new(VM_IRQCHIP) : vm_new(VM_IRQCHIP), i, 0);
	go_on(v, nr, 3);
	for (i = 0; i < nr; i++)
		EXPECT_LT(3, end(v[i]));
}

/* kvm's VMs come and go, and one of its vCPUs from CPU to CPU */
TEST_F_TIMEOUT(beside, churn, 900)
{
	u64 until = now_ns() + seconds() * 1000000000ULL;
	int cpu = 0, nr = CPU_COUNT(&self->cpus), made = 0;
	struct vcpu *own, *theirs;
	struct vm *vm;

	ASSERT_EQ(0, hand_over(self->sys));
	own = start(vm_new(VM_IRQCHIP), 1, 0);
	theirs = start(kvm_vm_new(VM_IRQCHIP), 2, 0);
	while (now_ns() < until || guest_var(own->vm, rounds) <= 10 || guest_var(theirs->vm, rounds) <= 10) {
		stay_on(0, made % nr);
		vm = kvm_vm_new(VM_IRQCHIP);
		EXPECT_EQ(42, runs(vm));
		vm_free(vm);
		made++;
		cpu = (cpu + 1) % nr;
		stay_on(theirs->tid, cpu);
	}
	TH_LOG("%d VMs", made);
	EXPECT_LT(10, end(theirs));
	EXPECT_LT(10, end(own));
}

/* ------------------------------------------------------------- handing it over */
/* After the others, which are to find CPUs that keel has never had alone */

static int as_nobody(int sys)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (setuid(65534))
			_exit(255);
		_exit(-xioctl(sys, KEEL_BESIDE_KVM, -1));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		die("fork");
	return -WEXITSTATUS(status);
}

TEST_F(beside, token)
{
	int vm = kvm_vm(), kvm = open("/dev/kvm", O_RDWR), other = eventfd(0, 0), vcpu;
	struct vm *own;

	ASSERT_LE(0, vm);
	ASSERT_LE(0, kvm);
	vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0));
	EXPECT_EQ(-EBADF, xioctl(self->sys, KEEL_BESIDE_KVM, 999));
	EXPECT_EQ(-EBADF, xioctl(self->sys, KEEL_BESIDE_KVM, -2));
	EXPECT_EQ(-EINVAL, xioctl(self->sys, KEEL_BESIDE_KVM, other));
	EXPECT_EQ(-EINVAL, xioctl(self->sys, KEEL_BESIDE_KVM, kvm));
	EXPECT_EQ(-EINVAL, xioctl(self->sys, KEEL_BESIDE_KVM, vcpu));
	EXPECT_EQ(-EINVAL, xioctl(self->sys, KEEL_BESIDE_KVM, self->sys));
	EXPECT_EQ(0, xioctl(self->sys, KEEL_BESIDE_KVM, -1));
	EXPECT_TRUE(state_is("token", "0"));
	EXPECT_EQ(0, xioctl(self->sys, KEEL_BESIDE_KVM, vm));
	EXPECT_EQ(0, xioctl(self->sys, KEEL_BESIDE_KVM, vm));
	EXPECT_EQ(0, hand_over(self->sys));
	EXPECT_TRUE(state_is("token", "1"));
	EXPECT_TRUE(state_is("mode", "off"));
	EXPECT_EQ(-EPERM, as_nobody(self->sys));
	/* Its maker has nothing to do with it any more */
	close(vcpu);
	close(vm);
	close(kvm);
	close(other);
	EXPECT_EQ(-EWOULDBLOCK, module_delete(vendor_module()));

	own = vm_new(VM_PLAIN);
	EXPECT_TRUE(state_is("mode", "shared"));
	EXPECT_EQ(-EINVAL, xioctl(self->sys, KEEL_BESIDE_KVM, own->fd));
	EXPECT_EQ(42, runs(own));
	EXPECT_EQ(-EBUSY, xioctl(self->sys, KEEL_BESIDE_KVM, -1));
	EXPECT_EQ(-EWOULDBLOCK, module_delete(vendor_module()));
	vm_free(own);
	EXPECT_TRUE(state_is("mode", "off"));
	EXPECT_TRUE(state_is("token", "1"));
	EXPECT_EQ(0, xioctl(self->sys, KEEL_BESIDE_KVM, -1));
	EXPECT_TRUE(state_is("token", "0"));
}

/* kvm has the CPUs, and nobody has said how to share them: refused, until somebody does */
TEST_F(beside, taken)
{
	struct vm *own, *theirs = kvm_vm_new(VM_PLAIN);

	EXPECT_EQ(-EBUSY, xioctl(self->sys, KVM_CREATE_VM, 0));
	EXPECT_TRUE(state_is("mode", "off"));
	EXPECT_EQ(0, hand_over(self->sys));
	own = vm_new(VM_IRQCHIP);
	EXPECT_TRUE(state_is("mode", "shared"));
	EXPECT_EQ(42, runs(own));
	EXPECT_EQ(42, runs(theirs));
	vm_free(theirs);
	vm_free(own);
}

/* What the kernel's log has behind what @fd has read of it */
static bool log_says(int fd, const char *what)
{
	char line[8192];
	ssize_t n;

	while ((n = read(fd, line, sizeof(line) - 1)) > 0) {
		line[n] = 0;
		if (strstr(line, what))
			return true;
	}
	return false;
}

/* A CPU on which the owner has not done what it should have: no VM, and the log says why; then it has */
TEST_F(beside, not_on)
{
	static const struct {
		u32 msr;
		u64 clear;
		const char *says;
	} cases[] = {
		{ MSR_VM_HSAVE_PA, ~0UL, "keel: no VM: kvm_amd has no host save area" },
		{ MSR_EFER, 1UL << 12, "keel: no VM: kvm_amd's VM was handed over, but EFER.SVME is clear" },
	};
	int i, msr, log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK), vm;
	u64 val, less;

	if (!guest_is_amd() || system("modprobe -q msr") || (msr = open("/dev/cpu/0/msr", O_RDWR)) < 0)
		SKIP(return, "SVM's MSRs, and the module msr, are not here");
	lseek(log, 0, SEEK_END);
	EXPECT_EQ(0, hand_over(self->sys));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(8, pread(msr, &val, 8, cases[i].msr));
		less = val & ~cases[i].clear;
		ASSERT_EQ(8, pwrite(msr, &less, 8, cases[i].msr));
		EXPECT_EQ(-EBUSY, xioctl(self->sys, KVM_CREATE_VM, 0));
		ASSERT_EQ(8, pwrite(msr, &val, 8, cases[i].msr));
		EXPECT_TRUE(log_says(log, cases[i].says));
		vm = xioctl(self->sys, KVM_CREATE_VM, 0);
		EXPECT_LE(0, vm);
		close(vm);
	}
	close(msr);
	close(log);
}

/* From one mode to the other, with nothing left behind, over and over */
TEST_F(beside, modes)
{
	struct vm *own, *theirs;
	int i;

	if (!guest_is_amd() && kernel_at_least(6, 19))
		SKIP(return, "this kernel lets only its own module turn VMX on");
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(0, hand_over(self->sys));
		own = vm_new(VM_PLAIN);
		EXPECT_TRUE(state_is("mode", "shared"));
		EXPECT_EQ(42, runs(own));
		vm_free(own);
		EXPECT_EQ(0, xioctl(self->sys, KEEL_BESIDE_KVM, -1));
		ASSERT_EQ(0, module_delete(vendor_module()));

		own = vm_new(VM_PLAIN);
		EXPECT_TRUE(state_is("mode", "own"));
		EXPECT_EQ(42, runs(own));
		vm_free(own);
		ASSERT_TRUE(kvm_load());
		theirs = kvm_vm_new(VM_PLAIN);
		EXPECT_EQ(42, runs(theirs));
		vm_free(theirs);
	}
}

TEST_HARNESS_MAIN
