/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * insn.h - an instruction's emulation in progress: for insn.c, and deliver.c, which has the emulator do what is none.
 */
#ifndef KEEL_CPU_INSN_H
#define KEEL_CPU_INSN_H

#include "emul/emul.h"

/* Accesses to devices of one instruction, up to 8 bytes each, of which either way is an FXRSTOR's or FXSAVE's across two pages. */
#define INSN_IO_MAX	72

struct insn_io {
	u64 addr;
	u8 len;
	u8 data[8];
};

struct keel_insn {
	struct emul e;
	struct keel_vcpu *vcpu;
	u64 rsp;			/* before the instruction */
	u64 gpa;			/* where the exit says its memory operand is, or NO_GPA */
	bool gpa_write;			/* and that it was to be written */
	struct insn_io io[INSN_IO_MAX];	/* reads from its start, writes from its end */
	unsigned int nr_replay, cursor;
	unsigned int nr_writes, write_pos;
	bool want_read;			/* io[nr_replay] was asked of userspace */
	bool need_slow;			/* stopped because the fast loop must not sleep */
	bool halted;
	bool changed;			/* the registers are not those it was decoded with */
	bool want_msr, msr_read;	/* userspace is asked what becomes of an access to an MSR */
	int pio_state;			/* enum: none, asked, answered, out */
	u16 port;
	u8 pio_size;
	unsigned int pio_count;
};

#define NO_GPA	(~0ULL)

enum { PIO_NONE, PIO_IN_WANTED, PIO_IN_READY, PIO_OUT_WANTED };

/* Registers into the emulator; its answers are none yet. */
void keel_insn_begin(struct keel_insn *in);
int keel_insn_exit_write(struct keel_vcpu *vcpu);	/* KVM_EXIT_MMIO for the next recorded write */
void keel_task_done(struct keel_vcpu *vcpu);		/* e->shadow has EMUL_TASK_NEW */

#endif
