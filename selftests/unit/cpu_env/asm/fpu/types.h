/* SPDX-License-Identifier: GPL-2.0-only */
/* SDM volume 1, 13.1 */
#define XFEATURE_MASK_AVX512	0xe0
#define XFEATURE_MASK_XTILE	0x60000
