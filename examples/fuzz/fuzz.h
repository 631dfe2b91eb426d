/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz.h - what the target, in the guest, and the fuzzer's end, on the host, agree on.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include "guest.h"

/* At SHARED_GPA: AFL's coverage map itself, and then the input. */
#define MAP_SIZE	65536
#define INPUT_GPA	(SHARED_GPA + MAP_SIZE)
#define INPUT_MAX	(1 << 20)

struct input {
	uint32_t size;
	uint8_t data[INPUT_MAX];
};

#define SHARED_SIZE	((MAP_SIZE + sizeof(struct input) + 4095) & ~4095UL)

/* Calls of the target's */
#define CALL_READY	1	/* the next it does is parse the input */
#define CALL_DONE	2	/* it has */
#define CALL_SIGNAL	0x100	/* and a signal's number: it crashed */

#endif
