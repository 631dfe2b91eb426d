// SPDX-License-Identifier: GPL-2.0-only
/*
 * mitigate.c - the parts of mitigate.h that are C: the L1 data cache flush, and the branch prediction barrier between
 * vCPUs.  Documentation/admin-guide/hw-vuln: l1tf.rst, processor_mmio_stale_data.rst, spectre.rst.
 *
 * Locks: none; per-CPU data with preemption off.
 */
#include <linux/cpu.h>
#include <linux/gfp.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/string.h>
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
DEFINE_STATIC_KEY_FALSE(keel_entry_flushes);
DEFINE_PER_CPU(bool, keel_l1d_filled);
static enum keel_l1d l1d_mode __ro_after_init;

/* Newer kernels tell kvm_intel alone what l1tf= was; whoever loads keel may have looked there. */
static char *l1d_choice = "auto";
module_param_named(l1d_flush, l1d_choice, charp, 0444);
MODULE_PARM_DESC(l1d_flush, "Flush the L1D before entries: never, cond, always, or as the kernel says (auto)");
static const char *const l1d_choices[] = {
	[KEEL_L1D_NEVER] = "never", [KEEL_L1D_COND] = "cond", [KEEL_L1D_ALWAYS] = "always",
};

static bool device_data_leaks __ro_after_init;

/* For CPUs whose microcode has no command to flush L1D: reading this replaces all of it (32 KB, twice for good measure). */
#define L1D_ORDER	4
static unsigned long l1d_pages;

DEFINE_PER_CPU(u64, keel_last_serial);

static u64 arch_capabilities(void)
{
	u64 val = 0;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrq(MSR_IA32_ARCH_CAPABILITIES, val);
	return val;
}

int __init keel_mitigate_setup(void)
{
	int flush = match_string(l1d_choices, ARRAY_SIZE(l1d_choices), l1d_choice);

	if (flush < 0 && strcmp(l1d_choice, "auto")) {
		pr_err("keel: not loaded: l1d_flush=%s is neither never nor cond nor always nor auto\n", l1d_choice);
		return -EINVAL;
	}
	device_data_leaks = keel_mmio_stale_choice() && !boot_cpu_has(X86_FEATURE_CLEAR_CPU_BUF);
	if (boot_cpu_has_bug(X86_BUG_L1TF) && !(arch_capabilities() & ARCH_CAP_SKIP_VMENTRY_L1DFLUSH))
		l1d_mode = flush < 0 ? keel_l1tf_choice() : flush;
	if (l1d_mode != KEEL_L1D_NEVER && !boot_cpu_has(X86_FEATURE_FLUSH_L1D)) {
		l1d_pages = __get_free_pages(GFP_KERNEL | __GFP_ZERO, L1D_ORDER);
		if (!l1d_pages)
			return -ENOMEM;
	}
	if (l1d_mode != KEEL_L1D_NEVER || device_data_leaks)
		static_branch_enable(&keel_entry_flushes);
	return 0;
}

void keel_mitigate_exit(void)
{
	free_pages(l1d_pages, L1D_ORDER);
}

/*
 * Zen 5 has a setting that keeps a guest's predictions from the host, which costs everybody, so while there are guests.  Answers
 * whether it was the other way before.
 */
static bool reduce_speculation(bool on)
{
#ifdef X86_FEATURE_SRSO_BP_SPEC_REDUCE
	u64 bit = BIT_ULL(MSR_ZEN4_BP_CFG_BP_SPEC_REDUCE_BIT), val;

	if (!cpu_feature_enabled(X86_FEATURE_SRSO_BP_SPEC_REDUCE) || rdmsrq_safe(MSR_ZEN4_BP_CFG, &val))
		return false;
	if (!!(val & bit) == on)
		return false;
	return !wrmsrq_safe(MSR_ZEN4_BP_CFG, val ^ bit);
#else
	return false;
#endif
}

void keel_mitigate_cpu(bool on)
{
	reduce_speculation(on);
}

/* kvm knows whether it has set it, and does not look. */
static DEFINE_PER_CPU(bool, reduced);

void keel_mitigate_arrive(u64 serial)
{
	__keel_predict_barrier(serial);
	__this_cpu_write(reduced, reduce_speculation(true));
}

void keel_mitigate_leave(void)
{
	if (__this_cpu_read(reduced))
		reduce_speculation(false);
	if (keel_wants_ibpb())
		keel_ibpb();
}

static void l1d_flush(void)
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

void __keel_entry_flush(void)
{
	if (l1d_mode == KEEL_L1D_ALWAYS ||
	    (l1d_mode == KEEL_L1D_COND && (__this_cpu_read(keel_l1d_filled) || keel_irq_filled_l1d()))) {
		__this_cpu_write(keel_l1d_filled, false);
		keel_irq_forget_l1d();
		l1d_flush();
	}
	if (device_data_leaks)
		asm volatile("verw %0" : : "m" (keel_verw_sel) : "cc");
}

void __keel_predict_barrier(u64 serial)
{
	__this_cpu_write(keel_last_serial, serial);
	if (keel_wants_ibpb())
		keel_ibpb();
}
