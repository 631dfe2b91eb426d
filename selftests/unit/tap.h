/* SPDX-License-Identifier: GPL-2.0-only */
/* A unit test's report: TAP on standard output, failure in the exit status. */
#ifndef KEEL_UNIT_TAP_H
#define KEEL_UNIT_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

static unsigned int tap_number, tap_failed;

static inline void tap_plan(unsigned int tests)
{
	printf("1..%u\n", tests);
}

static inline void tap_line(const char *state, const char *fmt, va_list ap)
{
	printf("%s %u - ", state, ++tap_number);
	vprintf(fmt, ap);
	printf("\n");
	fflush(stdout);
}

__attribute__((format(printf, 2, 3)))
static inline void tap_result(bool ok, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tap_line(ok ? "ok" : "not ok", fmt, ap);
	va_end(ap);
	tap_failed += !ok;
}

/* The plan at the end, for a test that does not know its number before. */
static inline void tap_plan_done(void)
{
	tap_plan(tap_number);
}

static inline void tap_skip(const char *why)
{
	printf("ok %u - # SKIP %s\n", ++tap_number, why);
	fflush(stdout);
}

static inline int tap_exit(void)
{
	return tap_failed ? 1 : 0;
}

#endif
