/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The emulator's whole idea of its surroundings: fixed-width integers, memcpy
 * and names of hardware bits, from the kernel or from the C library. Nothing
 * else may come in.
 */
#ifndef KEEL_EMUL_TYPES_H
#define KEEL_EMUL_TYPES_H

#include <asm/processor-flags.h>

#ifdef __KERNEL__
#include <asm/msr-index.h>
#include <linux/types.h>
#include <linux/string.h>
#include <linux/build_bug.h>
#else
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

/* The C library has no <asm/msr-index.h>. */
#define MSR_IA32_SYSENTER_CS	0x174
#define MSR_IA32_SYSENTER_ESP	0x175
#define MSR_IA32_SYSENTER_EIP	0x176
#define MSR_EFER		0xc0000080
#define MSR_STAR		0xc0000081
#define MSR_LSTAR		0xc0000082
#define MSR_CSTAR		0xc0000083
#define MSR_SYSCALL_MASK	0xc0000084
#define MSR_KERNEL_GS_BASE	0xc0000102
#define EFER_SCE		0x1
#define EFER_FFXSR		0x4000
#endif

#endif
