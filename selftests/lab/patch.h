/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For what is preloaded into an emulator to mend it: one call in one of its
 * functions is sent through a few instructions of our own.
 */
#ifndef LAB_PATCH_H
#define LAB_PATCH_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define REACH	0x40000000L	/* of a call, on the safe side */
#define LONG	2048		/* as far as a function is searched */

static unsigned char *code;	/* the next of our own instructions */

/* A page that calls in what is at @to can reach */
static void *page_near(unsigned char *to)
{
	long off;

	for (off = 1L << 20; off < REACH; off += 1L << 20) {
		void *hint = (void *)(((uintptr_t)to & ~4095UL) - off);
		void *p = mmap(hint, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			       -1, 0);

		if (p != MAP_FAILED)
			return p;
	}
	return NULL;
}

static void emit(const void *bytes, size_t n)
{
	memcpy(code, bytes, n);
	code += n;
}

static void overwrite(unsigned char *p, const void *bytes, size_t n)
{
	unsigned char *at = (unsigned char *)((uintptr_t)p & ~4095UL);

	mprotect(at, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
	memcpy(p, bytes, n);
	mprotect(at, 8192, PROT_READ | PROT_EXEC);
}

/* The call of @to in the function @from, with the instruction @arg among the last before it */
static unsigned char *find_call(unsigned char *from, unsigned char *to, const void *arg, size_t n)
{
	unsigned char *p;
	int32_t rel;

	for (p = from; from && to && p < from + LONG; p++) {
		memcpy(&rel, p + 1, 4);
		if ((*p == 0xe8 || *p == 0xe9) && p + 5 + rel == to &&	/* call, or jmp at a function's end */
		    (!n || (p - from >= 16 && memmem(p - 16, 16, arg, n))))
			break;
	}
	return p;
}

/* In the function @from, the call @p of @to: runs @first, with the call's arguments, and goes on to @next */
static bool redirect_call(unsigned char *p, unsigned char *from, unsigned char *to, const void *first, size_t n, void *next)
{
	unsigned char *start;
	int32_t rel;

	if (!from || !to || p == from + LONG || (!code && !(code = page_near(p)))) {
		fprintf(stderr, "not the emulator that was expected: something is left as it is\n");
		return false;
	}
	start = code;
	emit(first, n);
	emit("\x48\xb8", 2);		/* movabs $next, %rax */
	emit(&next, 8);
	emit("\xff\xe0", 2);		/* jmp *%rax */
	rel = start - (p + 5);
	overwrite(p + 1, &rel, 4);
	return true;
}

static inline bool redirect(unsigned char *from, unsigned char *to, const void *first, size_t n, void *next)
{
	return redirect_call(find_call(from, to, NULL, 0), from, to, first, n, next);
}

/* Only the call with that instruction before it */
static inline void redirect_if(unsigned char *from, unsigned char *to, const void *arg, size_t n, void *next)
{
	redirect_call(find_call(from, to, arg, n), from, to, "", 0, next);
}

/* In a class's table of methods */
static inline void replace_method(void **table, void *old, void *new)
{
	int i;

	for (i = 0; table && i < 16; i++) {
		if (table[i] != old)
			continue;
		mprotect((void *)((uintptr_t)&table[i] & ~4095UL), 4096, PROT_READ | PROT_WRITE);
		table[i] = new;
		mprotect((void *)((uintptr_t)&table[i] & ~4095UL), 4096, PROT_READ);
	}
}

#endif
