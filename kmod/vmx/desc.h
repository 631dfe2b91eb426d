/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * desc.h - system descriptors of 64-bit mode (TSS, LDT).  SDM 3A 7.2.3.  Kernel-free: a unit test looks at the base's
 * bits, of which no lab machine's addresses have all.
 */
#ifndef KEEL_VMX_DESC_H
#define KEEL_VMX_DESC_H

#include "emul/emul.h"

/* The base is in four pieces: bits 39..16 and 63..56 of the first word, the low half of the second. */
static inline u64 vmx_desc_base(const u64 desc[2])
{
	return (desc[0] >> 16 & 0xffffff) | desc[0] >> 56 << 24 | desc[1] << 32;
}

#endif
