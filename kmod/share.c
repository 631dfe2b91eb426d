// SPDX-License-Identifier: GPL-2.0-only
/*
 * share.c - beside kvm.ko: may keel borrow the virtualization that it has turned on, and does it.  What makes that safe is the
 * token, a virtual machine of kvm's that userspace hands over (KEEL_BESIDE_KVM in uapi/keel.h): while there is one kvm leaves
 * virtualization on, and its modules cannot be unloaded.  Nothing of kvm's is called, and no structure of its is looked into.
 *
 * Lock: keel_hw_lock.
 */
#include <linux/capability.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kallsyms.h>
#include <linux/moduleparam.h>
#include <linux/sysfs.h>
#include "ioctl.h"
#include "ops.h"

static char *mode = "auto";
module_param(mode, charp, 0444);
MODULE_PARM_DESC(mode, "Turn virtualization on (own), borrow it from kvm.ko (shared), or the latter if it was told how (auto)");

enum share_mode { SHARE_AUTO, SHARE_OWN, SHARE_ALWAYS };
static const char *const share_modes[] = { [SHARE_AUTO] = "auto", [SHARE_OWN] = "own", [SHARE_ALWAYS] = "shared" };
static enum share_mode share_mode __ro_after_init;

static struct file *share_token;

int __init keel_share_setup(void)
{
	int m = match_string(share_modes, ARRAY_SIZE(share_modes), mode);

	if (m < 0) {
		pr_err("keel: not loaded: mode=%s is neither auto nor own nor shared\n", mode);
		return m;
	}
	share_mode = m;
	return 0;
}

bool keel_share_wanted(const char **why)
{
	if (share_mode == SHARE_ALWAYS && !share_token)
		*why = "mode=shared, and kvm's virtualization was not handed over: run \"keel share\"";
	return share_token && share_mode != SHARE_OWN;
}

/*
 * A VM of kvm's?  On older kernels its files do not say whose they are, and only kvm.ko may ask it on newer ones.  The name of
 * what answers its ioctls tells it from the files of vCPUs and devices, and from those of other modules, and kvm may be built
 * into the kernel.  The node itself, which has the same owner, would not keep anything on.
 */
static bool share_is_vm(const struct file *file)
{
	char name[KSYM_SYMBOL_LEN];

	sprint_symbol_no_offset(name, (unsigned long)file->f_op->unlocked_ioctl);
	return !strcmp(name, "kvm_vm_ioctl") || !strcmp(name, "kvm_vm_ioctl [kvm]");
}

static long share_give_back(void)
{
	struct file *file = NULL;
	long r = 0;

	if (!capable(CAP_SYS_MODULE))
		return -EPERM;
	mutex_lock(&keel_hw_lock);
	if (keel_hw_in_use() && keel_hw_shared())
		r = -EBUSY;
	else
		swap(share_token, file);
	mutex_unlock(&keel_hw_lock);
	if (file)
		fput(file);
	return r;
}

SYS_IOCTL(keel_beside_kvm)
{
	struct file *file;

	if ((int)arg == -1)
		return share_give_back();
	if (share_mode == SHARE_OWN)
		return -EOPNOTSUPP;
	file = fget((int)arg);
	if (!file)
		return -EBADF;
	if (!share_is_vm(file)) {
		fput(file);
		return -EINVAL;
	}
	mutex_lock(&keel_hw_lock);
	if (!share_token)
		swap(share_token, file);
	mutex_unlock(&keel_hw_lock);
	if (file)
		fput(file);
	return 0;
}

/* No VM is left, and the node is gone. */
void keel_share_exit(void)
{
	if (share_token)
		fput(share_token);
}

/* ------------------------------------------------------------- /sys/class/misc/keel */

static ssize_t mode_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	const char *now;

	mutex_lock(&keel_hw_lock);
	now = !keel_hw_in_use() ? "off" : keel_hw_shared() ? "shared" : "own";
	mutex_unlock(&keel_hw_lock);
	return sysfs_emit(buf, "%s\n", now);
}
static DEVICE_ATTR_RO(mode);

static ssize_t token_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", !!READ_ONCE(share_token));
}
static DEVICE_ATTR_RO(token);

static struct attribute *share_attrs[] = { &dev_attr_mode.attr, &dev_attr_token.attr, NULL };
static const struct attribute_group share_group = { .attrs = share_attrs };
const struct attribute_group *keel_share_groups[] = { &share_group, NULL };
