/* SPDX-License-Identifier: GPL-2.0-only */
/* What the chips take from here, irq_env.h has. */
