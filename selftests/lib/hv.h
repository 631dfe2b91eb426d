/* SPDX-License-Identifier: GPL-2.0-only */
/* Guests that are told of Microsoft's hypervisor, and what these have in common */
#ifndef SELFTESTS_HV_H
#define SELFTESTS_HV_H

#include "guest.h"
#include "tlfs.h"

struct cpuid_set {
	struct kvm_cpuid2 h;
	struct kvm_cpuid_entry2 e[256];
};

/* KVM's leaves away, these in their place */
static inline void set_hv_cpuid(struct vcpu *v)
{
	struct cpuid_set hv = { .h.nent = 256 }, all = {};
	u32 i;

	must(ioctl(v->vm->sys, KVM_GET_SUPPORTED_HV_CPUID, &hv));
	for (i = 0; i < v->vm->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 e = v->vm->cpuid->entries[i];

		if (e.function >> 8 == 0x400000)
			continue;
		if (e.function == 1)
			e.ebx = (e.ebx & 0xffffff) | v->id << 24;
		all.e[all.h.nent++] = e;
	}
	memcpy(&all.e[all.h.nent], hv.e, hv.h.nent * sizeof(hv.e[0]));
	all.h.nent += hv.h.nent;
	must(ioctl(v->fd, KVM_SET_CPUID2, &all));
}

static inline int synic(struct vcpu *v, u32 cap)
{
	struct kvm_enable_cap c = { .cap = cap };

	return xioctl(v->fd, KVM_ENABLE_CAP, &c);
}

/* By the page of the reference TSC */
static inline u64 page_time(const struct tsc_page *p)
{
	u32 sequence;
	u64 t;

	do {
		sequence = p->sequence;
		asm volatile("" ::: "memory");
		t = (u64)((unsigned __int128)rdtsc() * p->scale >> 64) + p->offset;
		asm volatile("" ::: "memory");
	} while (sequence != p->sequence);
	return t;
}

#endif
