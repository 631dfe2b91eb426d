/* SPDX-License-Identifier: GPL-2.0-only */
/* The paravirtual clock's page (Documentation/virt/kvm/x86/msr.rst), and how guests compute the time by it */
#ifndef SELFTESTS_PVCLOCK_H
#define SELFTESTS_PVCLOCK_H

#include "guest.h"

#define MSR_TIME	0x4b564d01

struct pv_time {
	volatile u32 version;
	u32 pad0;
	volatile u64 tsc_timestamp, system_time;
	volatile u32 mul;
	volatile signed char shift;
	volatile u8 flags;
	u8 pad[2];
} __attribute__((packed, aligned(4)));

/* What a page says of that TSC of the guest's */
guest_always u64 pv_at(const struct pv_time *t, u64 tsc)
{
	u64 delta = tsc - t->tsc_timestamp;

	delta = t->shift < 0 ? delta >> -t->shift : delta << t->shift;
	return t->system_time + (u64)((unsigned __int128)delta * t->mul >> 32);
}

guest_always u64 pv_read(struct pv_time *t)
{
	u32 version;
	u64 ns;

	do {
		version = t->version;
		asm volatile("" ::: "memory");
		ns = pv_at(t, rdtsc());
		asm volatile("" ::: "memory");
	} while ((version & 1) || version != t->version);
	return ns;
}

#endif
