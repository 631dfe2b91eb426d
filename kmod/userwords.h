/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * userwords.h - userspace's memory, word by word.  A copy of any size takes longer to begin than what is small takes this way.
 */
#ifndef KEEL_USERWORDS_H
#define KEEL_USERWORDS_H

#include <linux/uaccess.h>

#define COPY_AT_ONCE	8

static __always_inline bool keel_words_from_user(u64 *to, const u64 __user *from, unsigned int n)
{
	unsigned int i;

	if (!user_read_access_begin(from, n * sizeof(u64)))
		return false;
	for (; n >= COPY_AT_ONCE; n -= COPY_AT_ONCE, to += COPY_AT_ONCE, from += COPY_AT_ONCE) {
#pragma GCC unroll 8
		for (i = 0; i < COPY_AT_ONCE; i++)
			unsafe_get_user(to[i], &from[i], fault);
	}
	for (; n > 0; n--)
		unsafe_get_user(*to++, from++, fault);
	user_read_access_end();
	return true;
fault:
	user_read_access_end();
	return false;
}

static __always_inline bool keel_words_to_user(u64 __user *to, const u64 *from, unsigned int n)
{
	unsigned int i;

	if (!user_write_access_begin(to, n * sizeof(u64)))
		return false;
	for (; n >= COPY_AT_ONCE; n -= COPY_AT_ONCE, to += COPY_AT_ONCE, from += COPY_AT_ONCE) {
#pragma GCC unroll 8
		for (i = 0; i < COPY_AT_ONCE; i++)
			unsafe_put_user(from[i], &to[i], fault);
	}
	for (; n > 0; n--)
		unsafe_put_user(*from++, to++, fault);
	user_write_access_end();
	return true;
fault:
	user_write_access_end();
	return false;
}

#undef COPY_AT_ONCE

#endif
