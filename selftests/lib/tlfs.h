/* SPDX-License-Identifier: GPL-2.0-only */
/* What a guest of Microsoft's hypervisor writes and reads, from its specification (the TLFS). */
#ifndef SELFTESTS_TLFS_H
#define SELFTESTS_TLFS_H

/* MSRs */
#define MSR_OS_ID	0x40000000
#define MSR_HYPERCALL	0x40000001
#define MSR_VP_INDEX	0x40000002
#define MSR_RESET	0x40000003
#define MSR_VP_RUNTIME	0x40000010
#define MSR_TIME	0x40000020
#define MSR_TSC_PAGE	0x40000021
#define MSR_TSC_FREQ	0x40000022
#define MSR_APIC_FREQ	0x40000023
#define MSR_EOI		0x40000070
#define MSR_ICR		0x40000071
#define MSR_TPR		0x40000072
#define MSR_ASSIST	0x40000073
#define MSR_SCONTROL	0x40000080
#define MSR_SVERSION	0x40000081
#define MSR_SIEFP	0x40000082
#define MSR_SIMP	0x40000083
#define MSR_EOM		0x40000084
#define MSR_SINT0	0x40000090
#define MSR_STIMER0	0x400000b0
#define MSR_CRASH_P0	0x40000100
#define MSR_CRASH_CTL	0x40000105

#define MSR_REENLIGHTEN	0x40000106
#define MSR_EMULATION	0x40000107
#define MSR_EMUL_STATUS	0x40000108
#define MSR_INVARIANT	0x40000118

/* The synthetic debugger's */
#define MSR_DBG_CONTROL	0x400000f1
#define MSR_DBG_STATUS	0x400000f2
#define MSR_DBG_SEND	0x400000f3
#define MSR_DBG_RECV	0x400000f4
#define MSR_DBG_PENDING	0x400000f5
#define MSR_DBG_OPTIONS	0x400000ff
#define POST_DEBUG	0x69
#define RETRIEVE_DEBUG	0x6a
#define RESET_DEBUG	0x6b

#define FLUSH_SPACE	2
#define FLUSH_LIST	3
#define LONG_SPIN	8
#define SEND_IPI	0xb
#define FLUSH_SPACE_EX	0x13
#define FLUSH_LIST_EX	0x14
#define SEND_IPI_EX	0x15
#define POST_MESSAGE	0x5c
#define SIGNAL_EVENT	0x5d

#define FAST		(1UL << 16)
#define VAR(n)		((u64)(n) << 17)
#define REP(n)		((u64)(n) << 32)
#define FIRST_REP(n)	((u64)(n) << 48)

#define BAD_CODE	2
#define BAD_INPUT	3
#define BAD_ALIGNMENT	4
#define BAD_PARAMETER	5
#define DENIED		6

#define SINT_MASKED	(1UL << 16)
#define SINT_AUTO_EOI	(1UL << 17)
#define ENABLE		1UL

/* Synthetic timers; times are in units of 100 ns */
#define CONFIG(n)	(MSR_STIMER0 + 2 * (n))
#define COUNT(n)	(MSR_STIMER0 + 2 * (n) + 1)
#define PERIODIC	2UL
#define AUTO		8UL
#define DIRECT(vec)	(1UL << 12 | (u64)(vec) << 4)
#define SINT(n)		((u64)(n) << 16)
#define MS		10000UL

/* ---- pages ---- */

struct tsc_page {
	volatile u32 sequence;
	u32 reserved;
	volatile u64 scale;
	volatile long offset;
};

struct message {
	volatile u32 type;
	volatile u8 size, flags;
	u8 reserved[2];
	u64 sender;
	volatile u32 timer, pad;
	volatile u64 expired, delivered;
};

#endif
