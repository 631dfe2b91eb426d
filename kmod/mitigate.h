/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mitigate.h, mitigate_entry.S - what the kernel decided about speculative execution, applied around guests.  The
 * choices are the kernel's own: its feature bits, patched in by alternatives, and its variables.  What later kernels
 * keep for kvm.ko has small code of its own.
 *
 * At an entry: CPU buffers are cleared (VERW), L1D is flushed where the host asks (mitigate.c).  At an exit, before
 * the first return: the return predictor is refilled or untrained, IBRS written again, branch history cleared.  When
 * another vCPU comes to a CPU: a branch prediction barrier.  SPEC_CTRL is not offered to guests: they run with the
 * host's, and see MD_CLEAR, IBPB and the immunities that are true (cpuid.c, msr.c).
 */
#ifndef KEEL_MITIGATE_H
#define KEEL_MITIGATE_H

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

#endif
