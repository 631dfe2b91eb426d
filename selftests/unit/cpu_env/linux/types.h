/* SPDX-License-Identifier: GPL-2.0-only */
/* linux/types.h - the kernel's types, beside userspace's own header of that name. */
#ifndef KEEL_CPU_ENV_TYPES_H
#define KEEL_CPU_ENV_TYPES_H
#include_next <linux/types.h>
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
#endif
