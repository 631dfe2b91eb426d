// SPDX-License-Identifier: GPL-2.0-only
/*
 * mitigate.c - the parts of mitigate.h that are C: the L1 data cache flush, and the branch prediction barrier between
 * vCPUs.  Documentation/admin-guide/hw-vuln: l1tf.rst, processor_mmio_stale_data.rst, spectre.rst.
 *
 * Locks: none; per-CPU data with preemption off.
 */
#include <linux/cpu.h>
#include <linux/gfp.h>
#include <linux/percpu.h>
#include <asm/bugs.h>
#include <asm/cpufeature.h>
#include <asm/msr.h>
#include <asm/processor.h>
#include <asm/segment.h>
#include "compat.h"
#include "keel.h"
#include "mitigate.h"

static_assert(offsetof(struct keel_vcpu, spec_ctrl) - offsetof(struct keel_vcpu, regs) == KEEL_SPEC_CTRL);
static_assert(offsetof(struct keel_vcpu, spec_ctrl_mode) - offsetof(struct keel_vcpu, regs) == KEEL_SPEC_MODE);

const u16 keel_verw_sel = __KERNEL_DS;
u8 keel_l1d_mode __ro_after_init;
bool keel_device_data_leaks __ro_after_init;

/* For CPUs whose microcode has no command to flush L1D: reading this replaces all of it (32 KB, twice for good measure). */
#define L1D_ORDER	4
static unsigned long l1d_pages;

static DEFINE_PER_CPU(u64, last_serial);

static u64 arch_capabilities(void)
{
	u64 val = 0;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrq(MSR_IA32_ARCH_CAPABILITIES, val);
	return val;
}

int __init keel_mitigate_setup(void)
{
	if (boot_cpu_has_bug(X86_BUG_MMIO_STALE_DATA) && !cpu_mitigations_off())
		keel_device_data_leaks = !boot_cpu_has(X86_FEATURE_CLEAR_CPU_BUF);
	if (!boot_cpu_has_bug(X86_BUG_L1TF) || arch_capabilities() & ARCH_CAP_SKIP_VMENTRY_L1DFLUSH)
		return 0;
	keel_l1d_mode = keel_l1tf_choice();
	if (keel_l1d_mode == KEEL_L1D_NEVER || boot_cpu_has(X86_FEATURE_FLUSH_L1D))
		return 0;
	l1d_pages = __get_free_pages(GFP_KERNEL | __GFP_ZERO, L1D_ORDER);
	return l1d_pages ? 0 : -ENOMEM;
}

void keel_mitigate_exit(void)
{
	free_pages(l1d_pages, L1D_ORDER);
}

void keel_l1d_flush(void)
{
	unsigned long at;

	if (boot_cpu_has(X86_FEATURE_FLUSH_L1D)) {
		wrmsrq(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
		return;
	}
	/* First the TLB entries, then the lines. */
	for (at = l1d_pages; at < l1d_pages + (PAGE_SIZE << L1D_ORDER); at += PAGE_SIZE)
		(void)READ_ONCE(*(u8 *)at);
	for (at = l1d_pages; at < l1d_pages + (PAGE_SIZE << L1D_ORDER); at += 64)
		(void)READ_ONCE(*(u8 *)at);
	rmb();
}

void keel_clear_device_data(void)
{
	asm volatile("verw %0" : : "m" (keel_verw_sel) : "cc");
}

void keel_predict_barrier(u64 serial)
{
	if (likely(__this_cpu_read(last_serial) == serial))
		return;
	__this_cpu_write(last_serial, serial);
	if (keel_wants_ibpb())
		wrmsrq(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
}
