/* SPDX-License-Identifier: GPL-2.0-only */
/* What a test of keel's VMs beside those of the kernel's own module wants: that module, VMs of it, and to have one handed over */
#ifndef SELFTESTS_BESIDE_H
#define SELFTESTS_BESIDE_H

#include <sys/syscall.h>
#include "guest.h"
#include "../../uapi/keel.h"

static inline const char *vendor_module(void)
{
	return guest_is_amd() ? "kvm_amd" : "kvm_intel";
}

/* In one go, as udev has it done */
static inline bool kvm_load(void)
{
	char command[64];

	snprintf(command, sizeof(command), "modprobe -q %s 2>/dev/null", vendor_module());
	return !system(command) && !access("/dev/kvm", F_OK);
}

static inline int module_delete(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

static inline bool state_is(const char *name, const char *want)
{
	char path[64], text[64] = "";
	int fd, n;

	snprintf(path, sizeof(path), "/sys/class/misc/keel/%s", name);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n - 1 : 0] = 0;
	if (strcmp(text, want))
		fprintf(stderr, "# %s is \"%s\"\n", name, text);
	return !strcmp(text, want);
}

/* A VM of kvm's; -errno */
static inline int kvm_vm(void)
{
	int sys = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm;

	if (sys < 0)
		return -errno;
	vm = xioctl(sys, KVM_CREATE_VM, 0);
	close(sys);
	return vm;
}

/* As kvm_vm(), of the library's kind */
static inline struct vm *kvm_vm_new(enum vm_kind kind)
{
	struct vm *vm;

	setenv("KEEL_DEV", "/dev/kvm", 1);
	vm = vm_new(kind);
	setenv("KEEL_DEV", KEEL_NODE, 1);
	return vm;
}

static inline int hand_over(int sys)
{
	int vm = kvm_vm(), r;

	if (vm < 0)
		return vm;
	r = xioctl(sys, KEEL_BESIDE_KVM, vm);
	close(vm);
	return r;
}

#endif
