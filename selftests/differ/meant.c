// SPDX-License-Identifier: GPL-2.0-only
/*
 * The differ: the differences that are meant, and why.  A row of several causes is several rows, so that one that goes is noticed.
 */
#include "differ.h"

#define NESTED		"no nested virtualization"
#define NO_XEN		"no Xen interface"
#define NO_ENCRYPTION	"no memory encryption"
#define NEWER		"newer than this kernel's KVM"
#define HALT_POLL	"halts are not polled: there is nothing to limit"

const struct meant meant[] = {
	/* capabilities */
	{ "extensions/*/6 *", BOTH, 0, 0, "KVM_CAP_VAPIC: no VMM is asked to patch a guest" },
	{ "extensions/*/47 *", BOTH, 0, 0, "KVM_CAP_PCI_SEGMENT: of ioctls that are gone" },
	{ "extensions/*/129 *", BOTH, 0, 0x700, NEWER },
	{ "extensions/*/157 *", BOTH, 0, 0, NESTED },
	{ "extensions/*/163 *", INTEL, 0, 0, NESTED },
	{ "extensions/*/182 *", BOTH, 0, 0, HALT_POLL },
	{ "extensions/*/184 *", BOTH, 0, 0, "KVM_CAP_LAST_CPU: an internal error does not name its CPU" },
	{ "extensions/*/196 *", BOTH, 0, 0, "KVM_CAP_SGX_ATTRIBUTE: no SGX in guests" },
	{ "extensions/*/197 *", BOTH, 0, 0, NO_ENCRYPTION },
	{ "extensions/*/206 *", BOTH, 0, 0, NO_ENCRYPTION },
	{ "extensions/*/220 *", BOTH, 0, 0, "KVM_CAP_VM_DISABLE_NX_HUGE_PAGES: it is a parameter, for all" },
	{ "extensions/*/236 *", BOTH, 0, 0x60b, NEWER },
	{ "enable-*/bit/129 ret[[]0x[23]]", BOTH, 0, 0x700, NEWER },
	{ "enable-*/*/182 *", BOTH, 0, 0, HALT_POLL },
	{ "enable-vcpu/*/163 *", BOTH, 0, 0, NESTED },

	/* ioctls */
	{ "calls-vcpu*/KVM_GET_NESTED_STATE/*", BOTH, 0, 0, NESTED },
	{ "calls-vcpu*/KVM_SET_NESTED_STATE/*", BOTH, 0, 0, NESTED },
	{ "calls-vm*/KVM_XEN_*", BOTH, 0, 0, NO_XEN },
	{ "calls-vcpu*/KVM_XEN_*", BOTH, 0, 0, NO_XEN },
	{ "calls-vcpu*/KVM_TPR_ACCESS_REPORTING/*", BOTH, 0, 0, "no VMM is asked to patch a guest" },
	{ "calls-vm/KVM_CREATE_PIT*", BOTH, 0, 0x700, "a PIT wants the controllers that it interrupts" },
	{ "calls-vcpu*/KVM_GET_FPU/* answer[[]0x198]", BOTH, 0, 0, "KVM leaves MXCSR out" },
	{ "misplaced/KVM_SET_TSC_KHZ/*", BOTH, 0, 0, "no TSC faster than the CPU's by leaps at exits" },

	/* MSRs */
	{ "msr-lists/features/0 *[[]0x48?]", INTEL, 0, 0, NESTED },
	{ "msr-lists/features/0 *[[]0x49[01]]", INTEL, 0, 0, NESTED },
	{ "msrs/get/0 *[[]0x48?]", INTEL, 0, 0, NESTED },
	{ "msrs/get/0 *[[]0x49[01]]", INTEL, 0, 0, NESTED },
	{ "msrs/get/0 *[[]0x8[cdef]]", INTEL, 0, 0, "no SGX in guests" },
	{ "msrs/get/0 *[[]0xc0000104]", AMD, 0, 0, NESTED },
	{ "msrs/get/0 *[[]0xc0010114]", AMD, 0, 0, NESTED },
	{ "msrs/get/0 value[[]0x1a0]", BOTH, 0, 0, "fast strings are on, as after a CPU's reset" },
};

const unsigned int nr_meant = sizeof(meant) / sizeof(meant[0]);
