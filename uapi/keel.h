/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * keel.h - what /dev/keel offers beside KVM's ABI.
 *
 * The ABI of the node itself is KVM's: <linux/kvm.h> and <asm/kvm.h> of the system, API version 12.  Each
 * addition stands here with its sizes, units, errors and the source section it comes from.
 */
#ifndef _UAPI_KEEL_H
#define _UAPI_KEEL_H

#include <linux/ioctl.h>

#define KEEL_NODE	"/dev/keel"	/* character device, dynamic minor: see /proc/misc */

#define KEEL_IOC	0xbb		/* not KVM's 0xae */

/*
 * On the node.  The argument is a file descriptor of a virtual machine of the kernel's own KVM, as KVM_CREATE_VM on /dev/kvm
 * answers: the token.  keel never looks into it, and it needs no vCPU and no memory.  While keel holds the file kvm.ko keeps
 * the CPUs' virtualization on and cannot be unloaded, and keel's VMs run beside kvm's: from the next VM of keel's that is the
 * first, that is from a moment at which it has none.  keel needs one token, holds the first one, and answers 0 for others,
 * which it does not keep.  The token outlives whoever gave it.  It goes back with -1 for an argument, or when keel is unloaded.
 * All or nothing; returns 0, or:
 *	EBADF		no open file
 *	EINVAL		not such a virtual machine: another file, or one of keel's
 *	EOPNOTSUPP	the module was loaded with mode=own
 * and for -1:
 *	EPERM		without CAP_SYS_MODULE: others may be about to start a VM
 *	EBUSY		keel has VMs that run by it
 */
#define KEEL_BESIDE_KVM	_IO(KEEL_IOC, 0x00)

#endif
