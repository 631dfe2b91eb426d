/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For what is preloaded into an emulator: a CPU with bits its models do not have (run --cpu-bits, CPU_BITS in the
 * environment), so that L1's kernel takes it for one that needs this or that mitigation, and counts of what is done about
 * it.  Nothing speculates here; who does what when can be seen.
 *
 * CPU_BITS is words, all numbers hexadecimal:
 *	LEAF.SUB:REG+BITS, LEAF.SUB:REG-BITS	CPUID has these bits, or not; REG is a, b, c or d
 *	MSR=VALUE				an MSR that is there, with this value
 * The MSRs below are there as well: they keep what is written to them.
 *
 * L1 reads the counts as MSRs of its CPU: COUNTS + n, how often the host, not a guest, wrote MSR n of the list below, then
 * those of instructions; COUNTS + 0xff is MARK.
 */
#ifndef LAB_CPU_BITS_H
#define LAB_CPU_BITS_H

#include <link.h>
#include "patch.h"

#define COUNTS		0x4b4c0000u
#define MARK		0x6b65656c6c6162ULL

enum { SPEC_CTRL, PRED_CMD, FLUSH_CMD, BP_CFG, TSC_RATIO, TSX_CTRL, FIXED_MSRS, MAX_MSRS = 10 };
enum { VERW = 0x10, FILD, COUNTERS };

static struct {
	uint32_t msr;
	uint64_t reserved;	/* bits that may not be written */
	uint64_t start;
} kept[MAX_MSRS] = {
	{ 0x48, ~0x407UL }, { 0x49, ~0x81UL }, { 0x10b, ~1UL }, { 0xc001102e },
	{ 0xc0000104, ~0UL << 40, 1UL << 32 }, { 0x122, ~3UL },
};
static int nr_kept = FIXED_MSRS;

static struct {
	uint32_t leaf, sub, set, clear;
	int reg;
} leaves[16];
static int nr_leaves;

static struct cpu {
	void *cpu;
	uint64_t val[MAX_MSRS], count[COUNTERS];
} cpus[16];

static struct cpu *find_cpu(void *cpu)
{
	int i, j;

	for (i = 0; i < 15; i++) {
		void *have = __atomic_load_n(&cpus[i].cpu, __ATOMIC_ACQUIRE);

		if (!have && __atomic_compare_exchange_n(&cpus[i].cpu, &have, cpu, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			for (j = 0; j < nr_kept; j++)
				cpus[i].val[j] = kept[j].start;
			have = cpu;
		}
		if (have == cpu)
			return &cpus[i];
	}
	return &cpus[15];
}

static int find_msr(uint32_t msr)
{
	int i;

	for (i = 0; i < nr_kept; i++)
		if (kept[i].msr == msr)
			return i;
	return -1;
}

static bool bits_rdmsr(void *cpu, uint32_t msr, uint64_t *val)
{
	struct cpu *c = find_cpu(cpu);
	int i = find_msr(msr);

	if (i >= 0)
		*val = c->val[i];
	else if (msr - COUNTS < COUNTERS)
		*val = c->count[msr - COUNTS];
	else if (msr - COUNTS == 0xff)
		*val = MARK;
	else
		return false;
	return true;
}

/* @host: count it.  1: done, 0: not such a value, -1: not such an MSR */
static int bits_wrmsr(void *cpu, uint32_t msr, uint64_t val, bool host)
{
	struct cpu *c = find_cpu(cpu);
	int i = find_msr(msr);

	if (i < 0)
		return -1;
	if (val & kept[i].reserved)
		return 0;
	c->count[i] += host;
	if (i < FIXED_MSRS)	/* the others are constant: the microcode's revision is written before it is read */
		c->val[i] = val;
	return 1;
}

static void bits_count(void *cpu, int what)
{
	find_cpu(cpu)->count[what]++;
}

static void bits_cpuid(uint32_t leaf, uint32_t sub, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
	uint32_t *r[] = { a, b, c, d };
	int i;

	for (i = 0; i < nr_leaves; i++)
		if (leaves[i].leaf == leaf && leaves[i].sub == sub)
			*r[leaves[i].reg] = (*r[leaves[i].reg] & ~leaves[i].clear) | leaves[i].set;
}

/* Is anything wanted at all? */
static bool bits_read(void)
{
	char *words = getenv("CPU_BITS"), *word, *save;

	words = words ? strdup(words) : NULL;
	for (word = words ? strtok_r(words, " ", &save) : NULL; word; word = strtok_r(NULL, " ", &save)) {
		uint32_t leaf, sub, bits;
		unsigned long val;
		char reg, sign;

		if (sscanf(word, "%x.%x:%c%c%x", &leaf, &sub, &reg, &sign, &bits) == 5 && nr_leaves < 16 && reg >= 'a' && reg <= 'd') {
			leaves[nr_leaves].leaf = leaf;
			leaves[nr_leaves].sub = sub;
			leaves[nr_leaves].reg = reg - 'a';
			*(sign == '+' ? &leaves[nr_leaves].set : &leaves[nr_leaves].clear) = bits;
			nr_leaves++;
		} else if (sscanf(word, "%x=%lx", &leaf, &val) == 2 && nr_kept < MAX_MSRS) {
			kept[nr_kept].msr = leaf;
			kept[nr_kept].reserved = ~0UL;
			kept[nr_kept++].start = val;
		} else {
			fprintf(stderr, "CPU_BITS: %s is no such word\n", word);
			exit(1);
		}
	}
	free(words);
	return words;
}

/* ---- pointers in the emulator's own data */

struct each {
	void (*fn)(void **p, void *arg);
	void *arg;
};

static int each_pointer_of(struct dl_phdr_info *info, size_t size, void *data)
{
	struct each *e = data;
	int i;

	(void)size;
	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + ph->p_vaddr, end = at + ph->p_filesz;

		if (ph->p_type == PT_LOAD && !(ph->p_flags & PF_X) && (ph->p_flags & PF_W))
			for (at = (at + 7) & ~7UL; at + 16 <= end; at += 8)
				e->fn((void **)at, e->arg);
	}
	return 1;	/* the program itself comes first, and is all */
}

static void each_pointer(void (*fn)(void **p, void *arg), void *arg)
{
	struct each e = { fn, arg };

	dl_iterate_phdr(each_pointer_of, &e);
}

#endif
