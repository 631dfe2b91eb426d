// SPDX-License-Identifier: GPL-2.0-only
/* trace.c - the one place trace.h's events are made.  No locks. */
#include "ops.h"
#define CREATE_TRACE_POINTS
#include "trace.h"

/* As keel_inject's format says them. */
static_assert(KEEL_EV_INTR == 1 && KEEL_EV_NMI == 2 && KEEL_EV_EXCEPTION == 3 &&
	      KEEL_EV_SOFT_INTR == 4 && KEEL_EV_SOFT_EXC == 5);
