// SPDX-License-Identifier: GPL-2.0-only
/*
 * Keeps the static key of preemption notifiers on for as long as L1 lives, so that its scheduler's code is not patched
 * each time a first VM comes and a last one goes. QEMU 7.2's multi-threaded TCG can lose such a patch: one CPU goes on
 * executing the breakpoint that stood there in between, for ever. Only the lab needs this.
 */
#include <linux/module.h>
#include <linux/preempt.h>

static int __init pin_init(void)
{
	preempt_notifier_inc();
	return 0;
}

module_init(pin_init);
MODULE_DESCRIPTION("Preemption notifiers always on, for a lab under TCG");
MODULE_LICENSE("GPL");
