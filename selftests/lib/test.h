/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a selftest program includes: the kernel's harness, with the time a slow
 * emulated machine may need, and the VMM library.
 */
#ifndef SELFTESTS_TEST_H
#define SELFTESTS_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE		/* as the harness does */
#endif
#include <stdlib.h>
#include <unistd.h>

unsigned long scaled(unsigned long limit);

/* The harness's limit for a test. */
static inline unsigned int scaled_alarm(unsigned int seconds)
{
	return alarm(scaled(seconds));
}

#define alarm scaled_alarm
#include "kselftest_harness.h"
#undef alarm
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 90		/* seconds */

#include <asm/msr-index.h>
#include "guest.h"

/* In a FIXTURE_SETUP, from where the harness goes on with the test whatever SKIP() said: end with what it knows a skip by */
#define SKIP_FIXTURE(fmt, ...)	SKIP(_exit(255), fmt, ##__VA_ARGS__)

/* Skip a test where an extension is not offered */
#define NEED_CAP(vm, cap)						\
	if (!vm_cap(vm, cap))						\
		SKIP(return, "no " #cap)

/*
 * Skip what QEMU's emulator of SVM is known not to do; real CPUs and other
 * emulators are asked.
 */
#define NOT_ON_TCG(what)						\
	if (on_tcg())							\
		SKIP(return, "QEMU's emulator: %s", what)

#endif
