// SPDX-License-Identifier: GPL-2.0-only
/*
 * Suspends that a lab machine survives, and what a real one may find when it wakes up; the lab's only. With pm_test=core the kernel
 * goes through all of a suspend but the power-off itself. Devices of virtio's are left out of it: 9p's driver cannot resume.
 *
 *	tsc=N		the boot CPU's TSC is N then, before anybody looks; 0 leaves it
 *	taken=1		virtualization is on already, as if by somebody else; taken=0 takes that back
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <asm/msr.h>
#include <asm/processor-flags.h>

static unsigned long tsc;
module_param(tsc, ulong, 0644);

static int taken;

static void take(void *on)
{
	unsigned long bits;

	if (boot_cpu_data.x86_vendor == X86_VENDOR_AMD) {
		unsigned long long efer = native_read_msr(MSR_EFER);

		native_write_msr(MSR_EFER, (u32)(on ? efer | EFER_SVME : efer & ~EFER_SVME), efer >> 32);
		return;
	}
	asm volatile("mov %%cr4, %0" : "=r"(bits));
	bits = on ? bits | X86_CR4_VMXE : bits & ~X86_CR4_VMXE;
	asm volatile("mov %0, %%cr4" : : "r"(bits) : "memory");
}

static int set_taken(const char *val, const struct kernel_param *kp)
{
	int was = taken, err = param_set_int(val, kp);

	if (!err && was == 2 && !taken)
		smp_call_function_single(0, take, NULL, 1);
	return err;
}

static const struct kernel_param_ops taken_ops = { .set = set_taken, .get = param_get_int };
module_param_cb(taken, &taken_ops, &taken, 0644);

/* The first to ask for the time: everybody's callbacks come later. */
static int wakes_up(struct kprobe *p, struct pt_regs *regs)
{
	if (tsc)
		native_write_msr(MSR_IA32_TSC, (u32)tsc, tsc >> 32);
	if (taken) {
		take((void *)1);
		taken = 2;
	}
	return 0;
}

static struct kprobe probe = { .symbol_name = "timekeeping_resume", .pre_handler = wakes_up };

static int __init fake_init(void)
{
	struct pci_dev *dev = NULL;

	while ((dev = pci_get_device(PCI_VENDOR_ID_REDHAT_QUMRANET, PCI_ANY_ID, dev)))
		dev_pm_syscore_device(&dev->dev, true);
	return register_kprobe(&probe);
}

static void __exit fake_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(fake_init);
module_exit(fake_exit);
MODULE_DESCRIPTION("Suspends for a lab that cannot be switched off");
MODULE_LICENSE("GPL");
