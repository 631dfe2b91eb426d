/* SPDX-License-Identifier: GPL-2.0-only */
#include <linux/bits.h>
#include <linux/types.h>
#define BUILD_BUG_ON_ZERO(e)	((int)(sizeof(struct { int:(-!!(e)); })))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define min_t(t, a, b)		((t)(a) < (t)(b) ? (t)(a) : (t)(b))
#define __ro_after_init
