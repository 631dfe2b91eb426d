// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel decided about speculative execution, seen to be done: docs/security.md has the table.  Which of these
 * are due depends on the CPU and on the kernel's command line, so that the caller says (MITIGATE, names of tests); a CPU
 * of the lab's counts what is done (lab/cpu-bits.h), and of code that has nothing to count the text is looked at, as
 * the kernel has patched it.
 */
#include "test.h"
#include "beside.h"
#include "snap.h"
#include <elf.h>
#include <sched.h>

#define COUNTS		0x4b4c0000U
#define MARK		0x6b65656c6c6162ULL
enum { N_SPEC_CTRL, N_PRED_CMD, N_FLUSH_CMD, N_BP_CFG, N_TSC_RATIO, N_TSX_CTRL, N_VERW = 0x10, N_FILD };
#define TSC_RATIO	0xc0000104U
#define BP_CFG		0xc001102eU
#define BP_SPEC_REDUCE	(1UL << 4)

#define TURNS		200	/* exits of a kind */

static bool due(const char *name)
{
	char list[512];

	snprintf(list, sizeof(list), " %s ", getenv("MITIGATE") ?: "");
	return strstr(list, name) && strstr(list, name)[-1] == ' ' && strstr(list, name)[strlen(name)] == ' ';
}

#define DUE(name)							\
	if (!due(name))							\
		SKIP(return, "not due on this CPU, or nobody says so (lab/mitigations)")

/* ---- counts ---- */

static int here, msrs = -1;	/* the CPU this runs on */

static u64 host_msr(u32 msr)
{
	u64 val;

	if (pread(msrs, &val, 8, msr) != 8)
		die("MSR %#x of CPU %d: %m (modprobe msr?)", msr, here);
	return val;
}

static u64 count(int what)
{
	return host_msr(COUNTS + what);
}

static void stay_on_one_cpu(void)
{
	cpu_set_t one = {};
	char path[32];

	here = sched_getcpu();
	CPU_SET(here, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		die("affinity: %m");
	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", here);
	msrs = open(path, O_RDONLY);
	if (count(0xff) != MARK)
		die("not a CPU that counts");
}

static void cpuid_guest(u64 turns)
{
	u32 r[4];

	for (;;) {
		u64 t = rdtsc();
		u64 i;

		for (i = 0; i < turns; i++)
			cpuid(0, 0, r);
		guest_sync((rdtsc() - t) / turns);
	}
}

static void port_guest(u64 arg)
{
	for (;;)
		outb(0x80, 0);
}

static void touch_guest(u64 turns)
{
	u64 i;

	for (i = 0; i < turns; i++)
		*(volatile u8 *)(HEAP_GPA + i * 4096) = 1;
	guest_done(0);
}

static void spin_guest(u64 ticks)
{
	u64 end = rdtsc() + ticks;

	while (rdtsc() < end)
		pause_cpu();
	guest_done(0);
}

#define SPEC_CTRL_UNKNOWN	(1UL << 20)	/* the emulated AMD CPU takes anything */

static void spec_guest(u64 turns)
{
	u32 r[4];
	u64 i, v;

	guest_eq(wrmsr_try(MSR_IA32_SPEC_CTRL, SPEC_CTRL_SSBD), NO_FAULT);
	for (;;) {
		for (i = 0; i < turns; i++)
			cpuid(0, 0, r);
		guest_eq(rdmsr_try(MSR_IA32_SPEC_CTRL, &v), NO_FAULT);
		guest_eq(v, SPEC_CTRL_SSBD);
		guest_sync(0);
		guest_eq(rdmsr_try(MSR_IA32_SPEC_CTRL, &v), NO_FAULT);
		guest_eq(v, SPEC_CTRL_SSBD);
		(void)wrmsr_try(MSR_IA32_SPEC_CTRL, SPEC_CTRL_SSBD | SPEC_CTRL_UNKNOWN);
		guest_sync(1);
		guest_eq(wrmsr_try(MSR_IA32_SPEC_CTRL, SPEC_CTRL_SSBD), NO_FAULT);
	}
}

FIXTURE(mitigate) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(mitigate)
{
	self->vm = NULL;
}

FIXTURE_TEARDOWN(mitigate)
{
	if (self->vm)
		vm_free(self->vm);
}

static void begin(FIXTURE_DATA(mitigate) *self, void (*guest)(u64), u64 arg)
{
	stay_on_one_cpu();
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
	vcpu_long(self->v, guest, arg);
}

/* How often something is done for TURNS exits that stay in the fast loop; the first round is not looked at. */
static u64 in_cpuid_exits(FIXTURE_DATA(mitigate) *self, int what, u64 *ticks)
{
	u64 before;

	begin(self, cpuid_guest, TURNS);
	vcpu_sync(self->v);
	before = count(what);
	if (ticks)
		*ticks = vcpu_sync(self->v);
	else
		vcpu_sync(self->v);
	return count(what) - before;
}

static u64 in_user_exits(FIXTURE_DATA(mitigate) *self, int what)
{
	u64 before;
	int i;

	begin(self, port_guest, 0);
	vcpu_expect(self->v, KVM_EXIT_IO);
	before = count(what);
	for (i = 0; i < TURNS; i++)
		vcpu_expect(self->v, KVM_EXIT_IO);
	return count(what) - before;
}

TEST_F(mitigate, ibpb_exit)
{
	DUE("ibpb_exit");
	EXPECT_LE(TURNS, in_cpuid_exits(self, N_PRED_CMD, NULL));
}

TEST_F(mitigate, ibpb_user)
{
	DUE("ibpb_user");
	EXPECT_LE(TURNS, in_user_exits(self, N_PRED_CMD));
	vm_free(self->vm);
	EXPECT_GT(TURNS / 4, in_cpuid_exits(self, N_PRED_CMD, NULL));
}

TEST_F(mitigate, ibpb_vcpu)
{
	struct vcpu *v[2];
	u64 before, same, changing;
	int i;

	DUE("ibpb_vcpu");
	begin(self, port_guest, 0);
	v[0] = self->v;
	v[1] = vcpu_new(self->vm, 1);
	vcpu_long(v[1], port_guest, 0);
	for (i = 0; i < 4; i++)
		vcpu_expect(v[i & 1], KVM_EXIT_IO);
	before = count(N_PRED_CMD);
	for (i = 0; i < TURNS; i++)
		vcpu_expect(v[0], KVM_EXIT_IO);
	same = count(N_PRED_CMD) - before;
	before = count(N_PRED_CMD);
	for (i = 0; i < TURNS; i++)
		vcpu_expect(v[i & 1], KVM_EXIT_IO);
	changing = count(N_PRED_CMD) - before;
	EXPECT_LE(same + TURNS - 4, changing);
}

TEST_F(mitigate, verw)
{
	DUE("verw");
	EXPECT_LE(TURNS, in_cpuid_exits(self, N_VERW, NULL));
}

TEST_F(mitigate, spec_ibrs)
{
	DUE("spec_ibrs");
	/* Off in the guest, which has not said that it wants it, on again in the kernel */
	EXPECT_LE(2 * TURNS, in_cpuid_exits(self, N_SPEC_CTRL, NULL));
}

TEST_F(mitigate, spec_switch)
{
	u64 before, spec, val;
	u32 id;

	DUE("spec_switch");
	begin(self, spec_guest, TURNS);
	spec = host_msr(MSR_IA32_SPEC_CTRL);
	EXPECT_EQ(0, vcpu_sync(self->v));
	vcpu_settle(self->v);
	id = snapshot(self->vm);
	/* Whatever a guest has there, its VMM is told what it may set. */
	EXPECT_EQ(1, vcpu_sync(self->v));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_SPEC_CTRL, &val));
	EXPECT_EQ(SPEC_CTRL_SSBD, val);
	vcpu_settle(self->v);
	ASSERT_EQ(0, reset_to(self->vm, id, 0, NULL));
	EXPECT_EQ(1, vcpu_sync(self->v));
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_SPEC_CTRL, val));
	before = count(N_SPEC_CTRL);
	vcpu_sync(self->v);
	EXPECT_LE(2 * TURNS, count(N_SPEC_CTRL) - before);
	EXPECT_EQ(spec, host_msr(MSR_IA32_SPEC_CTRL));
	EXPECT_NE(SPEC_CTRL_SSBD, spec);
}

TEST_F(mitigate, l1d_cond)
{
	u64 before, n;

	DUE("l1d_cond");
	EXPECT_GT(TURNS / 4, in_cpuid_exits(self, N_FLUSH_CMD, NULL));
	vm_free(self->vm);
	EXPECT_LE(TURNS, in_user_exits(self, N_FLUSH_CMD));
	vm_free(self->vm);

	/* memory that the VMM has, and the guest has not touched yet */
	begin(self, touch_guest, TURNS);
	madvise(gpa_hva(self->vm, HEAP_GPA), TURNS * 4096, MADV_NOHUGEPAGE);
	memset(gpa_hva(self->vm, HEAP_GPA), 1, TURNS * 4096);
	n = vcpu_stat(self->v, "page_faults");
	before = count(N_FLUSH_CMD);
	vcpu_done(self->v);
	n = vcpu_stat(self->v, "page_faults") - n;
	EXPECT_LE(TURNS / 16, n);	/* a fault maps that many pages at most */
	EXPECT_LE(n, count(N_FLUSH_CMD) - before);
	vm_free(self->vm);

	/* interrupts: half a second */
	begin(self, spin_guest, 0);
	vcpu_long(self->v, spin_guest, xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0) * 500UL);
	n = vcpu_stat(self->v, "irq_exits");
	before = count(N_FLUSH_CMD);
	vcpu_done(self->v);
	n = vcpu_stat(self->v, "irq_exits") - n;
	EXPECT_LE(20, n);
	EXPECT_LE(n, count(N_FLUSH_CMD) - before);
}

TEST_F(mitigate, l1d_always)
{
	DUE("l1d_always");
	EXPECT_LE(TURNS, in_cpuid_exits(self, N_FLUSH_CMD, NULL));
}

/* By reading, which takes more instructions than all else at an exit; this TSC counts them. */
TEST_F(mitigate, l1d_reading)
{
	u64 ticks;

	DUE("l1d_reading");
	in_cpuid_exits(self, N_FLUSH_CMD, &ticks);
	EXPECT_LE(3000, ticks);
}

TEST_F(mitigate, fxsave)
{
	DUE("fxsave");
	/* the kernel's own for the way to user mode, and one for each way into the guest */
	EXPECT_LE(2 * TURNS, in_user_exits(self, N_FILD));
}

TEST_F(mitigate, bp_reduce)
{
	DUE("bp_reduce");
	stay_on_one_cpu();
	EXPECT_EQ(0, host_msr(BP_CFG) & BP_SPEC_REDUCE);
	self->vm = vm_new(VM_PLAIN);
	EXPECT_EQ(BP_SPEC_REDUCE, host_msr(BP_CFG) & BP_SPEC_REDUCE);
	vm_free(self->vm);
	self->vm = NULL;
	EXPECT_EQ(0, host_msr(BP_CFG) & BP_SPEC_REDUCE);
}

static void set_host_msr(u32 msr, u64 val)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", here);
	fd = must(open(path, O_WRONLY));
	if (pwrite(fd, &val, 8, msr) != 8)
		die("MSR %#x of CPU %d: %m", msr, here);
	close(fd);
}

/* The kernel sets SEV-SNP up and takes the CPU's host save area away under a guest, which cannot be entered then */
TEST_F(mitigate, snp_area)
{
	u64 area;

	DUE("snp_area");
	begin(self, port_guest, 0);
	vcpu_expect(self->v, KVM_EXIT_IO);
	area = host_msr(MSR_VM_HSAVE_PA);
	EXPECT_NE(0, area);
	set_host_msr(MSR_VM_HSAVE_PA, 0);
	vcpu_expect(self->v, KVM_EXIT_FAIL_ENTRY);
	EXPECT_EQ(0, host_msr(MSR_VM_HSAVE_PA));
	set_host_msr(MSR_VM_HSAVE_PA, area);
	vcpu_expect(self->v, KVM_EXIT_IO);
}

/* Transactions that the kernel has turned off no guest has, also one that its VMM tells of them: nobody writes there */
TEST_F(mitigate, tsx_off)
{
	struct kvm_cpuid_entry2 *e;
	u64 off, before;
	int i;

	DUE("tsx_off");
	stay_on_one_cpu();
	off = host_msr(MSR_IA32_TSX_CTRL);
	EXPECT_EQ(TSX_CTRL_RTM_DISABLE | TSX_CTRL_CPUID_CLEAR, off);
	self->vm = vm_new(VM_PLAIN);
	e = cpuid_find(self->vm->cpuid, 7, 0);
	EXPECT_EQ(0, e->ebx & 1 << 11);
	e->ebx |= 1 << 11;
	self->v = vcpu_new(self->vm, 0);
	vcpu_long(self->v, port_guest, 0);
	before = count(N_TSX_CTRL);
	EXPECT_LE(1, before);		/* the kernel's own, at boot */
	for (i = 0; i < TURNS; i++)
		vcpu_expect(self->v, KVM_EXIT_IO);
	EXPECT_EQ(before, count(N_TSX_CTRL));
	EXPECT_EQ(off, host_msr(MSR_IA32_TSX_CTRL));
}

/* ---- beside the kernel's own module: as one finds it, the other left it ---- */

struct beside {
	struct vm *vm;
	struct vcpu *v;
};

/* A vCPU of each kind, both of which have run here */
static void begin_beside(FIXTURE_DATA(mitigate) *self, struct beside *theirs)
{
	int sys = node_open();

	if (!kvm_load() || hand_over(sys))
		die("no VM of the kernel's own module");
	close(sys);
	theirs->vm = kvm_vm_new(VM_PLAIN);
	theirs->v = vcpu_new(theirs->vm, 0);
	vcpu_long(theirs->v, port_guest, 0);
	begin(self, port_guest, 0);
	if (!state_is("mode", "shared"))
		die("virtualization is not shared");
}

static void end_beside(FIXTURE_DATA(mitigate) *self, struct beside *theirs)
{
	int sys = node_open();

	vm_free(theirs->vm);
	vm_free(self->vm);
	self->vm = NULL;
	if (xioctl(sys, KEEL_BESIDE_KVM, -1) || module_delete(vendor_module()))
		die("%s stays", vendor_module());
	close(sys);
	module_delete("kvm");
}

/* A barrier when it comes and one when it leaves, whoever was here before, beside those on the way to user mode */
TEST_F(mitigate, beside_ibpb)
{
	struct beside theirs;
	u64 alone, before;
	int i;

	DUE("beside_ibpb");
	alone = in_user_exits(self, N_PRED_CMD);
	vm_free(self->vm);
	begin_beside(self, &theirs);
	vcpu_expect(theirs.v, KVM_EXIT_IO);
	vcpu_expect(self->v, KVM_EXIT_IO);
	before = count(N_PRED_CMD);
	for (i = 0; i < TURNS; i++)
		vcpu_expect(self->v, KVM_EXIT_IO);
	EXPECT_LE(alone + 2 * TURNS - 4, count(N_PRED_CMD) - before);
	end_beside(self, &theirs);
}

/* kvm_amd writes the ratio of its guest's TSC when that is another than it has last written here */
TEST_F(mitigate, beside_ratio)
{
	struct beside theirs;
	u64 khz, ratio, before;

	DUE("beside_ratio");
	begin_beside(self, &theirs);
	khz = must(ioctl(theirs.v->fd, KVM_GET_TSC_KHZ, 0));
	must(ioctl(theirs.v->fd, KVM_SET_TSC_KHZ, khz * 2));
	must(ioctl(self->v->fd, KVM_SET_TSC_KHZ, khz / 2));
	vcpu_expect(theirs.v, KVM_EXIT_IO);
	ratio = host_msr(TSC_RATIO);
	EXPECT_LT(1UL << 32, ratio);
	before = count(N_TSC_RATIO);
	vcpu_expect(self->v, KVM_EXIT_IO);
	EXPECT_LE(2, count(N_TSC_RATIO) - before);
	EXPECT_EQ(ratio, host_msr(TSC_RATIO));
	end_beside(self, &theirs);
}

/* Nor does it look whether it is still there when keel had the CPU for itself: that leaves it as a CPU begins */
TEST_F(mitigate, ratio_left)
{
	u64 khz;

	DUE("ratio_left");
	begin(self, port_guest, 0);
	khz = must(ioctl(self->v->fd, KVM_GET_TSC_KHZ, 0));
	must(ioctl(self->v->fd, KVM_SET_TSC_KHZ, khz / 2));
	vcpu_expect(self->v, KVM_EXIT_IO);
	EXPECT_GT(1UL << 32, host_msr(TSC_RATIO));
	vm_free(self->vm);
	self->vm = NULL;
	EXPECT_EQ(1UL << 32, host_msr(TSC_RATIO));
}

/* And the bit when it first has a guest here; not again. Nor does it take it away from under keel's. */
TEST_F(mitigate, beside_reduce)
{
	struct beside theirs;
	u64 before;

	DUE("beside_reduce");
	begin_beside(self, &theirs);
	before = count(N_BP_CFG);
	vcpu_expect(self->v, KVM_EXIT_IO);
	/* There and back, and again if the host had something to do between. */
	EXPECT_LE(before + 2, count(N_BP_CFG));
	EXPECT_EQ(before & 1, count(N_BP_CFG) & 1);
	EXPECT_EQ(0, host_msr(BP_CFG) & BP_SPEC_REDUCE);
	vcpu_expect(theirs.v, KVM_EXIT_IO);
	EXPECT_EQ(BP_SPEC_REDUCE, host_msr(BP_CFG) & BP_SPEC_REDUCE);
	before = count(N_BP_CFG);
	vcpu_expect(self->v, KVM_EXIT_IO);
	EXPECT_EQ(before, count(N_BP_CFG));
	EXPECT_EQ(BP_SPEC_REDUCE, host_msr(BP_CFG) & BP_SPEC_REDUCE);
	end_beside(self, &theirs);
}

/* ---- text ---- */

static u64 symbol(const char *name, u64 *end)
{
	FILE *f = fopen("/proc/kallsyms", "r");
	char line[256], type, have[200];
	u64 at, found = 0, next = ~0UL;

	while (f && !found && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx %c %199s", &at, &type, have) == 3 && !strcmp(have, name))
			found = at;
	if (f && end) {
		rewind(f);
		while (fgets(line, sizeof(line), f))
			if (sscanf(line, "%lx %c", &at, &type) == 2 && (type == 't' || type == 'T') && at > found && at < next)
				next = at;
		*end = next;
	}
	if (f)
		fclose(f);
	return found;
}

struct text {
	u64 at;
	int n;
	u8 b[2048];
};

/* The function's instructions as they are in memory now */
static bool read_text(const char *name, struct text *t)
{
	int fd = open("/proc/kcore", O_RDONLY), i;
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	u64 end;

	t->at = symbol(name, &end);
	if (fd < 0 || !t->at || pread(fd, &eh, sizeof(eh), 0) != sizeof(eh))
		return false;
	t->n = end - t->at < sizeof(t->b) ? end - t->at : sizeof(t->b);
	for (i = 0; i < eh.e_phnum; i++) {
		if (pread(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)) != sizeof(ph))
			break;
		if (ph.p_type != PT_LOAD || t->at < ph.p_vaddr || t->at + t->n > ph.p_vaddr + ph.p_memsz)
			continue;
		i = pread(fd, t->b, t->n, ph.p_offset + t->at - ph.p_vaddr);
		close(fd);
		return i == t->n;
	}
	close(fd);
	return false;
}

/* Where these bytes are, from @from on, or -1 */
static int find(const struct text *t, int from, const char *bytes, int n)
{
	int i;

	for (i = from; i >= 0 && i + n <= t->n; i++)
		if (!memcmp(t->b + i, bytes, n))
			return i;
	return -1;
}
#define FIND(t, from, bytes)	find(t, from, bytes, sizeof(bytes) - 1)

static int find_call(const struct text *t, int from, const char *callee)
{
	u64 to = symbol(callee, NULL);
	int i, rel;

	for (i = from; to && i >= 0 && i + 5 <= t->n; i++) {
		memcpy(&rel, t->b + i + 1, 4);
		if (t->b[i] == 0xe8 && t->at + i + 5 + rel == to)
			return i;
	}
	return -1;
}

#define FILL_SLOT	"\xe8\x01\x00\x00\x00\xcc"	/* call over an int3 */
#define VMLOAD		"\x0f\x01\xda"
#define VMRUN		"\x0f\x01\xd8"
#define GS		"\x65\x48"
#define WRMSR		"\x0f\x30"

static bool on_svm(void)
{
	u32 r[4];

	cpuid(0x80000001, 0, r);
	return r[2] & 1 << 2;
}

/* Where the host's state is back after an exit: nothing per-CPU, no call and no fill comes before */
static int read_exit(struct __test_metadata *_metadata, struct text *t)
{
	int run, load;

	if (on_svm()) {
		ASSERT_TRUE(read_text("svm_vmrun", t));
		run = FIND(t, 0, VMRUN);
		ASSERT_LE(0, run);
		load = FIND(t, run, VMLOAD);
		ASSERT_LE(0, load);
		EXPECT_FALSE(FIND(t, run, FILL_SLOT) >= 0 && FIND(t, run, FILL_SLOT) < load);
		EXPECT_FALSE(FIND(t, run, GS) >= 0 && FIND(t, run, GS) < load);
		return load;
	}
	ASSERT_TRUE(read_text("vmx_vmexit", t));
	return 0;
}

static int slots(const struct text *t, int from)
{
	int n = 0;

	while ((from = FIND(t, from, FILL_SLOT)) >= 0) {
		n++;
		from++;
	}
	return n;
}

TEST_F(mitigate, fill)
{
	struct text t;

	DUE("fill");
	EXPECT_EQ(2, slots(&t, read_exit(_metadata, &t)));
}

TEST_F(mitigate, fill_one)
{
	struct text t;

	DUE("fill_one");
	EXPECT_EQ(1, slots(&t, read_exit(_metadata, &t)));
}

TEST_F(mitigate, call_depth)
{
	struct text t;
	int at;

	DUE("call_depth");
	at = FIND(&t, read_exit(_metadata, &t), FILL_SLOT);
	ASSERT_LE(0, at);
	at = FIND(&t, at, "\xff\xff\xff\xff");	/* movq $-1, %gs:... */
	ASSERT_LE(9, at);
	EXPECT_TRUE(!memcmp(t.b + at - 9, "\x65\x48\xc7\x04\x25", 5) || !memcmp(t.b + at - 8, "\x65\x48\xc7\x05", 4));
}

TEST_F(mitigate, untrain)
{
	struct text t;

	DUE("untrain");
	EXPECT_LE(0, find_call(&t, read_exit(_metadata, &t), "entry_untrain_ret"));
}

TEST_F(mitigate, untrain_alias)
{
	struct text t;

	DUE("untrain_alias");
	EXPECT_LE(0, find_call(&t, read_exit(_metadata, &t), "srso_alias_untrain_ret"));
}

TEST_F(mitigate, ibpb_fill)
{
	struct text t;
	int at;

	DUE("ibpb_fill");
	ASSERT_TRUE(read_text("keel_ibpb", &t));
	at = FIND(&t, 0, WRMSR);
	ASSERT_LE(0, at);
	EXPECT_EQ(2, slots(&t, at));
}

TEST_F(mitigate, bhb)
{
	struct text t;

	DUE("bhb");
	if (find_call(&t, read_exit(_metadata, &t), "clear_bhb_loop") >= 0)
		return;
	/* Our own, in whose loop there is a call. */
	EXPECT_LE(0, find_call(&t, read_exit(_metadata, &t), "keel_clear_history"));
	ASSERT_TRUE(read_text("keel_clear_history", &t));
	EXPECT_LE(0, find_call(&t, 0, "history_round"));
}

TEST_F(mitigate, divider)
{
	struct text t;
	int div;

	DUE("divider");
	ASSERT_TRUE(read_text("svm_vmrun", &t));
	div = FIND(&t, 0, "\xf7\xf1");
	ASSERT_LE(0, div);
	EXPECT_LT(div, FIND(&t, 0, VMRUN));
}

TEST_HARNESS_MAIN
