// SPDX-License-Identifier: GPL-2.0-only
/*
 * For the matrix: modules loaded after this one find a kernel that uses FRED. Nothing else in the kernel does; there is no
 * way back.
 */
#include <linux/module.h>
#include <asm/cpufeature.h>

static int __init fake_fred_init(void)
{
	set_cpu_cap(&boot_cpu_data, X86_FEATURE_FRED);
	return 0;
}
module_init(fake_fred_init);

MODULE_DESCRIPTION("Pretends that the kernel uses FRED");
MODULE_LICENSE("GPL");
