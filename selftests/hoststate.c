// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a thread finds after KVM_RUN of its own state in the CPU: segment registers with selectors of the LDT, with what
 * belongs to them, and the LDT, which another thread may change while the guest runs.
 */
#include "test.h"

#include <sched.h>
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <sys/syscall.h>

FIXTURE(hoststate) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(hoststate)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(hoststate)
{
	vm_free(self->vm);
}

#define LDT_SEL(n)	((n) << 3 | 7)
enum { DS, ES, FS, GS };

/* For run_segments(), which has no thread-local storage while it runs.  All addresses are below 4 GiB. */
struct segments {
	u16 before[4], after[4];	/* loaded before and after KVM_RUN if the first is not 0 */
	u16 found[4];			/* selectors after KVM_RUN */
	u16 unused[4];
	u32 word[4];			/* at offset 0 of each segment */
	u64 fs_base, fd;
	long result;
	u64 stack_pointer;		/* 32-bit code may lose half of it */
};
struct segments seg;
long run_segments(void);

/* The bases of DS and ES count in 32-bit code only. */
asm(".pushsection .text\n"
    "words32: .code32\n"
    "	mov	%ds:0, %eax\n"
    "	mov	%es:0, %ebx\n"
    "	mov	%fs:0, %ecx\n"
    "	mov	%gs:0, %edx\n"
    "	ljmp	$0x33, $words_read\n"
    "	.code64\n"
    "to_words32: .long words32\n"
    "	.word	0x23\n"
    "run_segments:\n"
    "	push	%rbx\n"
    "	mov	%rsp, seg+72\n"
    "	cmpw	$0, seg\n"
    "	je	1f\n"
    "	mov	seg, %ds\n"
    "	mov	seg+2, %es\n"
    "	mov	seg+4, %fs\n"
    "	mov	seg+6, %gs\n"
    "1:	mov	$16, %eax\n"		/* ioctl(seg.fd, KVM_RUN, 0) */
    "	mov	seg+56, %rdi\n"
    "	mov	$0xae80, %esi\n"
    "	xor	%edx, %edx\n"
    "	syscall\n"
    "	mov	%rax, seg+64\n"
    "	mov	%ds, seg+16\n"
    "	mov	%es, seg+18\n"
    "	mov	%fs, seg+20\n"
    "	mov	%gs, seg+22\n"
    "	cmpw	$0, seg+8\n"
    "	je	1f\n"
    "	mov	seg+8, %ds\n"
    "	mov	seg+10, %es\n"
    "	mov	seg+12, %fs\n"
    "	mov	seg+14, %gs\n"
    "1:	ljmp	*to_words32\n"	/* not a call: QEMU pushes in the kernel's name, which SMAP forbids */
    "words_read:\n"
    "	mov	%eax, seg+32\n"
    "	mov	%ebx, seg+36\n"
    "	mov	%ecx, seg+40\n"
    "	mov	%edx, seg+44\n"
    "	xor	%eax, %eax\n"
    "	mov	%eax, %ds\n"
    "	mov	%eax, %es\n"
    "	mov	%eax, %fs\n"
    "	mov	%eax, %gs\n"
    "	mov	$158, %eax\n"		/* arch_prctl(ARCH_SET_FS, seg.fs_base) */
    "	mov	$0x1002, %edi\n"
    "	mov	seg+48, %rsi\n"
    "	syscall\n"
    "	mov	seg+64, %rax\n"
    "	mov	seg+72, %rsp\n"
    "	pop	%rbx\n"
    "	ret\n"
    ".popsection\n");
_Static_assert(offsetof(struct segments, word) == 32 && offsetof(struct segments, fs_base) == 48 &&
	       offsetof(struct segments, result) == 64 && offsetof(struct segments, stack_pointer) == 72, "offsets");

static bool have_ldt(void)
{
	struct user_desc d;

	return syscall(SYS_modify_ldt, 0, &d, sizeof(d)) >= 0;
}

static int ldt_write(unsigned int entry, volatile u32 *base)
{
	struct user_desc d = {
		.entry_number = entry, .base_addr = (uintptr_t)base, .limit = 3, .seg_32bit = 1, .useable = 1,
	};

	return syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)) ? -errno : 0;
}

static long run(struct vcpu *v)
{
	seg.fd = v->fd;
	syscall(SYS_arch_prctl, ARCH_GET_FS, &seg.fs_base);
	return run_segments();
}

static volatile u32 words[4] = { 0x11110000, 0x22220001, 0x33330002, 0x44440003 };

static void exits_guest(u64 arg)
{
	u32 i, n;

	for (i = 0;; i++) {
		for (n = 0; n < 100; n++)
			asm volatile("cpuid" : : "a" (0), "c" (0) : "ebx", "edx", "memory");
		guest_sync(i);
	}
}

TEST_F(hoststate, ldt_selectors)
{
	struct vcpu *v = self->v;
	unsigned int i, round;

	if (!have_ldt())
		SKIP(return, "this kernel has no LDT for processes");
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, ldt_write(i, &words[i]));
	vcpu_long(v, exits_guest, 0);
	/* Each in another register, and the same in all. */
	for (round = 0; round < 20; round++) {
		for (i = 0; i < 4; i++)
			seg.before[i] = LDT_SEL(round & 4 ? round & 3 : (round + i) & 3);
		ASSERT_EQ(0, run(v));
		EXPECT_EQ(KVM_EXIT_IO, v->run->exit_reason);
		for (i = 0; i < 4; i++) {
			EXPECT_EQ(seg.before[i], seg.found[i]);
			EXPECT_EQ(words[seg.before[i] >> 3], seg.word[i]);
		}
	}
}

static volatile u32 begun, go;

static void waiting_guest(u64 arg)
{
	u32 i;

	for (i = 1;; i++) {
		begun = i;
		while (go != i)
			asm volatile("pause");
		guest_sync(i);
	}
}

#define ROUNDS	50

struct other {
	struct vm *vm;
	volatile int err;
};

/* Gives the process another LDT while the guest runs: the first, then one after the other in the place of the last. */
static void *other_thread(void *arg)
{
	struct other *o = arg;
	u32 i, n;

	for (i = 1; i <= ROUNDS && !o->err; i++) {
		if (!wait_for(&guest_var(o->vm, begun), i, 10000))
			o->err = -ETIME;
		for (n = 0; n < 4 && !o->err; n++)
			o->err = ldt_write(n, &words[(n + i) & 3]);
		guest_var(o->vm, go) = i;
	}
	return NULL;
}

TEST_F(hoststate, ldt_of_another_thread)
{
	struct vcpu *v = self->v;
	struct other o = { .vm = self->vm };
	unsigned int i, n;
	pthread_t t;
	cpu_set_t set;

	sched_getaffinity(0, sizeof(set), &set);
	if (CPU_COUNT(&set) < 2)
		SKIP(return, "one CPU: the other thread does not run while a guest does");
	if (!have_ldt())
		SKIP(return, "this kernel has no LDT for processes");
	vcpu_long(v, waiting_guest, 0);
	ASSERT_EQ(0, pthread_create(&t, NULL, other_thread, &o));
	for (i = 1; i <= ROUNDS && !o.err; i++) {
		for (n = 0; n < 4; n++)
			seg.after[n] = LDT_SEL(n);
		ASSERT_EQ(0, run(v));
		EXPECT_EQ(KVM_EXIT_IO, v->run->exit_reason);
		for (n = 0; n < 4; n++)
			EXPECT_EQ(words[(n + i) & 3], seg.word[n]);
	}
	pthread_join(t, NULL);
	EXPECT_EQ(0, o.err);
}

/* ---- the host's TSC_AUX, which says where it runs, is nothing for a guest that is told of no TSC_AUX, and executes RDTSCP ---- */

static volatile u64 aux_seen;

static void aux_undefined(struct guest_frame *f)
{
	f->rip += 3;
}

static void aux_guest(u64 arg)
{
	u32 aux = 0;

	guest_on(6, aux_undefined);
	asm volatile("rdtscp" : "+c"(aux) :: "rax", "rdx");
	aux_seen = aux;
	guest_done(0);
}

TEST_F(hoststate, tsc_aux)
{
	struct kvm_cpuid_entry2 *e;
	cpu_set_t set;
	u32 aux;

	e = cpuid_find(self->vm->cpuid, 0x80000001, 0);
	if (!e || !(e->edx & 1 << 27))
		SKIP(return, "the CPU has no RDTSCP");
	/* On the first CPU of the first node it is 0. */
	CPU_ZERO(&set);
	CPU_SET(1, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		SKIP(return, "one CPU");
	asm volatile("rdtscp" : "=c"(aux) :: "rax", "rdx");
	ASSERT_NE(0, aux);
	e->edx &= ~(1U << 27);
	cpuid_find(self->vm->cpuid, 7, 0)->ecx &= ~(1U << 22);
	must(ioctl(self->v->fd, KVM_SET_CPUID2, self->vm->cpuid));
	vcpu_long(self->v, aux_guest, 0);
	vcpu_done(self->v);
	EXPECT_EQ(0, guest_var(self->vm, aux_seen));
}

/* ---- ports that the thread may use: their bitmap is behind the TSS, whose limit a VMX exit cuts down ---- */

#define PORT	0x80		/* sys/io.h has names that guests have, too */

static void use_port(void)
{
	asm volatile("outb %%al, $0x80" : : "a" (0));	/* PORT; a signal, if it may not */
}

TEST_F(hoststate, ports)
{
	int i;

	if (syscall(SYS_ioperm, PORT, 1, 1))
		SKIP(return, "this kernel gives no ports to processes");
	use_port();
	vcpu_long(self->v, exits_guest, 0);
	for (i = 0; i < 12; i++) {
		/* it has the port, is given it after a run without, and gives it back after one with it */
		bool has = i % 4 != 2;

		ASSERT_EQ(0, syscall(SYS_ioperm, PORT, 1, has));
		EXPECT_EQ(i, vcpu_sync(self->v));
		if (has)
			use_port();
	}
	/* others come and go meanwhile */
	for (; i < 24; i++) {
		pid_t pid = must(fork());

		if (!pid) {
			use_port();
			_exit(0);
		}
		EXPECT_EQ(i, vcpu_sync(self->v));
		use_port();
		waitpid(pid, &pid, 0);
		EXPECT_EQ(0, pid);
	}
}

/* ---- what the CPU makes of memory ---- */

#define MSR_PAT		0x277
#define PAT_ALL_UC	0

static void pat_guest(u64 arg)
{
	wrmsr(MSR_PAT, PAT_ALL_UC);
	guest_eq(rdmsr(MSR_PAT), PAT_ALL_UC);
	guest_done(0);
}

/* A guest's types are not the host's. */
TEST_F(hoststate, pat)
{
	u64 before, after;
	cpu_set_t set;
	int fd;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	must(sched_setaffinity(0, sizeof(set), &set));
	system("modprobe -q msr");
	fd = open("/dev/cpu/0/msr", O_RDONLY);
	if (fd < 0)
		SKIP(return, "no /dev/cpu/0/msr");
	ASSERT_EQ(8, pread(fd, &before, 8, MSR_PAT));
	vcpu_long(self->v, pat_guest, 0);
	vcpu_done(self->v);
	ASSERT_EQ(8, pread(fd, &after, 8, MSR_PAT));
	EXPECT_EQ(before, after);
	EXPECT_NE(PAT_ALL_UC, after);
	close(fd);
}

/* ---- what the guest has in DR6 is not found there by the host (the lab's CPU brings its own back; real ones do not) ---- */

static void dr6_guest(u64 arg)
{
	asm volatile("mov %0, %%db6" :: "r"(0xffff4ff0UL));
	for (;;)
		guest_sync(0);
}

static volatile u32 watched_word;

/* Runs under ptrace, on one CPU: between a KVM_RUN and the watchpoint nothing else touches DR6 there */
static void traced_vmm(void)
{
	struct vm *vm = vm_new(VM_PLAIN);
	struct vcpu *v = vcpu_new(vm, 0);
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	vcpu_long(v, dr6_guest, 0);
	vcpu_sync(v);
	vcpu_sync(v);
	raise(SIGSTOP);
	watched_word = 1;
	_exit(0);
}

#define USER_DR(n)	(void *)(offsetof(struct user, u_debugreg) + (n) * 8)

TEST(dr6_of_guest)
{
	pid_t pid = fork();
	int status;
	long dr6;

	if (!pid)
		traced_vmm();
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	ASSERT_EQ(0, ptrace(PTRACE_POKEUSER, pid, USER_DR(0), &watched_word));
	ASSERT_EQ(0, ptrace(PTRACE_POKEUSER, pid, USER_DR(7), 1 | 0xdUL << 16));
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	if (WIFSTOPPED(status)) {
		EXPECT_EQ(SIGTRAP, WSTOPSIG(status));
		dr6 = ptrace(PTRACE_PEEKUSER, pid, USER_DR(6), NULL);
		EXPECT_EQ(1, dr6 & 0xf);
		EXPECT_EQ(0, dr6 & 0x4000);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
}

TEST_HARNESS_MAIN
