// SPDX-License-Identifier: GPL-2.0-only
/*
 * share.c - keel share: where the kernel's own kvm module has the CPU's virtualization, keel may use it as long as it holds a
 * VM of kvm's, an empty one, which is made and handed over here: keel.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/kvm.h>
#include "../uapi/keel.h"
#include "tool.h"

static int beside_kvm(int vm)
{
	int fd = open(NODE, O_RDWR | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = ioctl(fd, KEEL_BESIDE_KVM, vm) ? -errno : 0;
	close(fd);
	return err;
}

int share_hand_over(void)
{
	int fd = open(KVM_NODE, O_RDWR | O_CLOEXEC), vm, err;

	if (fd < 0)
		return -errno;
	vm = ioctl(fd, KVM_CREATE_VM, 0);
	err = -errno;
	close(fd);
	if (vm < 0)
		return err;
	err = beside_kvm(vm);
	close(vm);
	return err;
}

int share_error(int err)
{
	switch (-err) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return complain(EXIT_FAILED, "there is no " KVM_NODE " that could be shared with: is kvm_amd or kvm_intel loaded?");
	case EACCES:
	case EPERM:
		return complain(EXIT_NO_PERMISSION, "to share takes access to " KVM_NODE ", and to " NODE);
	case EOPNOTSUPP:
		return complain(EXIT_BUSY, "the module was loaded with mode=own, and shares with nobody");
	case EINVAL:
		return complain(EXIT_FAILED, KVM_NODE " is not the kernel's own kvm");
	case EBUSY:
		return complain(EXIT_BUSY, "kvm cannot make a VM: somebody else has the CPU's virtualization");
	default:
		return complain(EXIT_FAILED, "not shared: %s", strerror(-err));
	}
}

int cmd_share(int argc, char **argv)
{
	bool off = argc == 2 && !strcmp(argv[1], "--off");
	int err;

	if (argc > 1 && !off)
		return usage_of("share");
	if (access(NODE, R_OK | W_OK))
		return node_error(errno);
	err = off ? beside_kvm(-1) : share_hand_over();
	if (!err) {
		printf(off ? "keel shares no more\n" : "keel shares the CPU's virtualization with kvm\n");
		return EXIT_OK;
	}
	if (!off)
		return share_error(err);
	if (err == -EPERM)
		return complain(EXIT_NO_PERMISSION, "to end it takes root");
	if (err == -EBUSY)
		return complain(EXIT_BUSY, "keel has VMs that need it");
	return complain(EXIT_FAILED, "%s", strerror(-err));
}
