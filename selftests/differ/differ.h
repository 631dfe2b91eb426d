/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The differ: what a scenario sees of a module is a list of facts, each with a name; the same scenario is played to
 * the kernel's own
 * module and to keel, and the lists are compared.
 */
#ifndef SELFTESTS_DIFFER_H
#define SELFTESTS_DIFFER_H

#include "../lib/guest.h"
#include <asm/msr-index.h>

struct scenario {
	const char *name;
	void (*play)(const struct scenario *s);
	const void *what;
	bool played;
};

#define MAX_SCENARIOS	512

void add_scenario(const char *name, void (*play)(const struct scenario *s), const void *what);
void add_system(void);		/* system.c */
void add_guests(void);		/* guests.c */
void add_insns(void);		/* insns.c */
void add_bits(void);		/* bits.c */

/* Strings that live as long as the program: the lists keep pointers */
void at(const char *where, u32 step);
/* The same, of what follows from the step before: once it goes another way on the two, they are compared no further. */
void at_step(const char *where, u32 step);
void put(const char *what, u64 index, u64 val);
void put_bytes(const char *what, const void *p, size_t size);	/* in words of eight bytes */

/* What there is to see of a vCPU: after each exit, and at the end */
void put_run(struct vcpu *v);
void put_vcpu(struct vcpu *v);
void note_vcpu(struct vcpu *v);		/* from here on, */
void put_changes(struct vcpu *v);	/* what has changed since it was last looked at */
void put_all(struct vcpu *v);
bool msr_tells_time(u32 msr);
int run_for(struct vcpu *v, unsigned int ms, int turns);	/* KVM_RUN, ended after @ms; so often at most, as this machine may have stood */
u64 hash(const void *p, size_t size);

/* Which differences are meant, and why.  The pattern is one of fnmatch() for "scenario/where/step what index". */
enum { AMD = 1, INTEL = 2, BOTH = 3 };

struct meant {
	const char *pattern;
	u8 vendors;
	u16 from, before;	/* kernels on which it is so: 0x601 is 6.1; 0: all */
	const char *why;
	u64 bits;		/* in no others; 0: whatever they are, or one of the two has none */
};

extern const struct meant meant[];
extern const unsigned int nr_meant;

#endif
