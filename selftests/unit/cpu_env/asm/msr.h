/* SPDX-License-Identifier: GPL-2.0-only */
#include <linux/bits.h>
#include MSR_INDEX_H
