/* SPDX-License-Identifier: GPL-2.0-only */
/* What is taken from here, ops.h has, or nobody. */
