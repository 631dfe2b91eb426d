// SPDX-License-Identifier: GPL-2.0-only
/*
 * What programs in VMware's guests find, without IOPL, the TSS and CR4.PCE: two ports and three counters.  With the module's
 * parameter (of kvm: enable_vmware_backdoor) they are there, without it they are not.
 */
#include <time.h>
#include "pmu.h"

#define PORT		0x5658
#define MAGIC		0x564d5868
#define NR_TRIES	7

/* Reports of a program without IOPL */
#define REPORT_GPA	HOLE_GPA

static bool parameter(void)
{
	char path[100], val = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/%s", strstr(node_path(), "kvm") ? "kvm/parameters/enable_vmware_backdoor" :
										 "keel/parameters/vmware_backdoor");
	f = fopen(path, "r");
	if (f && fread(&val, 1, 1, f) != 1)
		val = 0;
	if (f)
		fclose(f);
	return val == 'Y' || val == '1';
}

/* Ring 3, IOPL 0, no I/O bitmap; what follows may only report by memory that is not there */
guest_always void leave_kernel(void)
{
	asm volatile("pushq %0; pushq %1; pushq $0x2; pushq %2; pushq $1f\n"
		     "iretq\n1:"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000), "i"(SEL_UCODE64) : "memory");
}

guest_always void report(u32 v)
{
	mmio_write32(REPORT_GPA, v);
}

static void refused_guest(u64 arg)
{
	write_cr4(read_cr4() & ~X86_CR4_PCE);
	leave_kernel();
	report(guest_try("inl %%dx,%%eax", "a"(MAGIC), "d"(PORT)));
	report(guest_try("outb %%al,%%dx", "a"(0), "d"(PORT + 1)));
	report(guest_try("rep insb", "c"(4), "D"(HEAP_GPA), "d"(PORT + 1)));
	report(guest_try("rdpmc", "c"(0x10000), "a"(0), "d"(0)));
	report(guest_try("rdpmc", "c"(0x10002), "a"(0), "d"(0)));
}

/* What is always refused, and as the CPU does it */
static void others_guest(u64 arg)
{
	write_cr4(read_cr4() & ~X86_CR4_PCE);
	leave_kernel();
	report(guest_try("inl %%dx,%%eax", "a"(MAGIC), "d"(PORT - 1)));
	report(guest_try("inl %%dx,%%eax", "a"(MAGIC), "d"(PORT + 2)));
	report(guest_try("inb $0x58,%%al", "a"(MAGIC), "d"(PORT)));
	report(guest_try("rdpmc", "c"(0x10003), "a"(0), "d"(0)));
	report(guest_try("hlt", "a"(MAGIC), "d"(PORT)));
	report(guest_try("movl %%eax,%%ds", "a"(SEL_TSS), "d"(PORT)));
	report(guest_try("int $0x20", "a"(MAGIC), "d"(PORT)));
}

static long next_report(struct vcpu *v)
{
	return *(int *)vcpu_expect_mmio(v, true, REPORT_GPA, 4)->mmio.data;
}

TEST(others)
{
	static const long want[NR_TRIES] = {
		GP0, GP0, GP0, GP0, GP0, fault(GP_VEC, SEL_TSS), fault(GP_VEC, 0x20 << 3 | 2),
	};
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	long got;
	int i;

	vcpu_long(v, others_guest, 0);
	((u8 *)gpa_hva(vm, IDT_GPA))[0x20 * 16 + 5] &= ~0x60;	/* not for users */
	for (i = 0; i < NR_TRIES - 1; i++)
		EXPECT_EQ(want[i], next_report(v))
			TH_LOG("try %d", i);
	got = next_report(v);
	if (got != fault(GP_VEC, 0x20 << 4 | 2))	/* QEMU's CPU, which counts in bytes */
		EXPECT_EQ(want[i], got);
	vm_free(vm);
}

TEST(refused)
{
	struct vm *vm;
	struct vcpu *v;
	int i;

	if (parameter())
		SKIP(return, "the parameter is on");
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_new(vm, 0);
	vcpu_long(v, refused_guest, 0);
	for (i = 0; i < 5; i++)
		EXPECT_EQ(GP0, next_report(v))
			TH_LOG("try %d", i);
	vm_free(vm);
}

static void ports_guest(u64 arg)
{
	u32 eax, n = 5;
	void *to = (void *)HEAP_GPA;

	leave_kernel();
	asm volatile("inl %%dx,%%eax" : "=a"(eax) : "a"(MAGIC), "d"(PORT) : "memory");
	report(eax);
	asm volatile("outw %%ax,%%dx" :: "a"(0x1234), "d"(PORT + 1) : "memory");
	asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"(PORT + 1) : "memory");
	report(*(u32 *)HEAP_GPA);
	report(n);
}

TEST(ports)
{
	struct vm *vm;
	struct vcpu *v;
	u8 *data;
	int left;

	if (!parameter())
		SKIP(return, "the parameter is off");
	vm = vm_new(VM_IRQCHIP);
	v = vcpu_new(vm, 0);
	vcpu_long(v, ports_guest, 0);
	*(u32 *)vcpu_expect_io(v, KVM_EXIT_IO_IN, PORT, 4, 1) = 0x87654321;
	EXPECT_EQ((int)0x87654321, next_report(v));
	data = vcpu_expect_io(v, KVM_EXIT_IO_OUT, PORT + 1, 2, 1);
	EXPECT_EQ(0x1234, *(u16 *)data);
	for (left = 5; left > 0; left -= v->run->io.count) {
		vcpu_expect(v, KVM_EXIT_IO);
		ASSERT_EQ(PORT + 1, v->run->io.port);
		ASSERT_LE(v->run->io.count, left);
		memset((u8 *)v->run + v->run->io.data_offset, 0x5a, v->run->io.count);
	}
	EXPECT_EQ(0x5a5a5a5a, next_report(v));
	EXPECT_EQ(0, next_report(v));
	vm_free(vm);
}

static void counters_guest(u64 arg)
{
	int i;
	u64 v;

	write_cr4(read_cr4() & ~X86_CR4_PCE);
	leave_kernel();
	for (i = 0;; i = (i + 1) % 3) {
		v = rdpmc(0x10000 + i);
		report(v);
		report(v >> 32);
	}
}

static u64 host_counter(struct vm *vm, int i)
{
	struct kvm_clock_data clock = { 0 };
	struct timespec t;

	switch (i) {
	case 0:
		return rdtsc();
	case 1:
		clock_gettime(CLOCK_BOOTTIME, &t);
		return t.tv_sec * 1000000000UL + t.tv_nsec;
	default:
		must(ioctl(vm->fd, KVM_GET_CLOCK, &clock));
		return clock.clock;
	}
}

TEST(counters)
{
	struct vm *vm;
	struct vcpu *v;
	u64 before, val, after;
	int i;

	if (!parameter())
		SKIP(return, "the parameter is off");
	vm = vm_new(VM_IRQCHIP);
	if (strstr(node_path(), "kvm") && !offered())
		SKIP(return, "kvm without a PMU has none");
	v = vcpu_new(vm, 0);
	must(vcpu_set_msr(v, MSR_IA32_TSC, 0));		/* not the guest's */
	stay_on(0, 0);
	vcpu_long(v, counters_guest, 0);
	for (i = 0; i < 9; i++) {
		/* Time that is slewed and raw time go apart by less than that. */
		before = host_counter(vm, i % 3) - 1000000;
		val = (u32)next_report(v);
		val |= (u64)(u32)next_report(v) << 32;
		after = host_counter(vm, i % 3) + 1000000;
		EXPECT_LE(before, val)
			TH_LOG("counter %d", i % 3);
		EXPECT_LE(val, after)
			TH_LOG("counter %d", i % 3);
	}
	vm_free(vm);
}

TEST_HARNESS_MAIN
