/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mitigate.h, mitigate_entry.S - what the kernel decided about speculative execution, applied around guests.  The
 * choices are the kernel's own: its feature bits, patched in by alternatives, and its variables.  What later kernels
 * keep for kvm.ko has small code of its own.
 *
 * At an entry: CPU buffers are cleared (VERW), L1D is flushed where the host asks (mitigate.c).  At an exit, before
 * the first return: the return predictor is refilled or untrained, IBRS written again, branch history cleared.  When
 * another vCPU comes to a CPU: a branch prediction barrier.
 *
 * A guest sees MD_CLEAR, IBPB, the immunities that are true, and SPEC_CTRL where the CPU has it (cpuid.c, msr.c).  Until
 * it first sets a bit there it runs with the host's value, which protects no less.  From then on the register is its
 * own, without exits, and each entry and exit exchanges the two values.  CPUs with a SPEC_CTRL for guests in the VMCB
 * do that by themselves.
 */
#ifndef KEEL_MITIGATE_H
#define KEEL_MITIGATE_H

/* vcpu->spec_ctrl_mode, and where the entry code finds it and the value from &vcpu->regs. */
#define KEEL_SPEC_SWITCH	1	/* exchange the values */
#define KEEL_SPEC_OPEN		2	/* the guest reaches the register itself */
#define KEEL_SPEC_CTRL		(17 * 8)
#define KEEL_SPEC_MODE		(18 * 8)

#ifndef __ASSEMBLER__
#include <linux/types.h>

extern const u16 keel_verw_sel;

enum keel_l1d { KEEL_L1D_NEVER, KEEL_L1D_COND, KEEL_L1D_ALWAYS };
extern u8 keel_l1d_mode;	/* COND: when the host has run something else than this vCPU's loop meanwhile */

int keel_mitigate_setup(void);
void keel_mitigate_exit(void);
void keel_l1d_flush(void);	/* IRQs off, right before an entry */
/* VERW for data of devices, on the CPUs where that is all it is needed for. */
void keel_clear_device_data(void);
extern bool keel_device_data_leaks;
/* Preemption off: vCPU number @serial (unique in the module's life) comes to this CPU. */
void keel_predict_barrier(u64 serial);

#endif /* __ASSEMBLER__ */
#endif
