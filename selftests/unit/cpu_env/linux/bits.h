/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef KEEL_CPU_ENV_BITS_H
#define KEEL_CPU_ENV_BITS_H
#define BIT(n)			(1UL << (n))
#define BIT_ULL(n)		(1ULL << (n))
#define GENMASK(h, l)		(~0UL >> (63 - (h)) & ~0UL << (l))
#define GENMASK_ULL(h, l)	GENMASK(h, l)
#endif
