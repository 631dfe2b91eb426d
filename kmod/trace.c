// SPDX-License-Identifier: GPL-2.0-only
/* trace.c - the one place trace.h's events are made.  No locks. */
#include "ops.h"
#define CREATE_TRACE_POINTS
#include "trace.h"
