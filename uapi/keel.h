/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * keel.h - what /dev/keel offers beside KVM's ABI.
 *
 * The ABI of the node itself is KVM's: <linux/kvm.h> and <asm/kvm.h> of the system, API version 12.  Each
 * addition stands here with its sizes, units, errors and the source section it comes from.
 */
#ifndef _UAPI_KEEL_H
#define _UAPI_KEEL_H

#define KEEL_NODE	"/dev/keel"	/* character device, dynamic minor: see /proc/misc */

#endif
