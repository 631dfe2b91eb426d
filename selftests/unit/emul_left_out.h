/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For emul_diff: instructions that are not compared, since a user may not run them, CPUs differ about them, or this one does not
 * have them.
 */
#ifndef EMUL_LEFT_OUT_H
#define EMUL_LEFT_OUT_H

static bool have_xsave, have_ymm, have_zmm;
static bool old_pointers;	/* FXSAVE may leave x87's pointers in memory as they were */

/* What may be emulated here but not run as a user instruction, or not compared. */
static bool excluded(const struct emul_insn *i)
{
#define X(name) emul_op_##name
	static enum emul_result (*const list[])(struct emul *e) = {
		X(in), X(out), X(ins), X(outs), X(int), X(int3), X(into), X(icebp), X(iret),
		X(jmp_far), X(call_far), X(jmp_far_mem), X(call_far_mem), X(ret_far),
		X(mov_to_sreg), X(mov_from_sreg), X(pop_sreg), X(push_sreg), X(lfar), X(sldt),
		X(str), X(smsw), X(sgdt), X(sidt), X(lar), X(lsl), X(verr), X(verw),
		X(syscall), X(sysenter), X(sysret), X(sysexit), X(rdtsc), X(rdtscp), X(rdpmc),
		X(cpuid), X(xgetbv), X(monitor), X(mwait), X(hypercall), X(rdpid), X(unknown),
	};
#undef X
	unsigned int k;

	for (k = 0; k < sizeof(list) / sizeof(list[0]); k++)
		if (i->exec == list[k])
			return true;
	/* A REP prefix here is reserved, and some processors let it choose the condition. */
	if (i->exec == emul_op_loop && (i->prefix & (EMUL_PFX_REP | EMUL_PFX_REPNE)))
		return true;
	/* XCHG with R8, and to some PAUSE. */
	if (!i->vex && !i->map && i->opcode == 0x90 && (i->prefix & EMUL_PFX_REP) && (i->rex & 1))
		return true;
	/* Processors differ about an operand size prefix on a near branch. */
	if (i->mode == EMUL_MODE_LONG64 && (i->flags & F_F64) &&
	    (i->prefix & EMUL_PFX_OPSIZE))
		return true;
	if (i->exec == emul_op_fxsave && old_pointers)
		return true;
	return i->opsize == 2 && i->exec == emul_op_bswap;
}

/*
 * What not every x86-64 processor has, of the instructions that are emulated. Without it
 * they are #UD, or others: F3 BC is BSF without TZCNT.
 */
#define IS(name) (i->exec == emul_op_##name)
#define OP(m, op) (i->map == (m) && i->opcode == (op))
#define NEEDS(name, cond) \
	static bool needs_##name(const struct emul_insn *i) { return cond; }
NEEDS(clflushopt, OP(1, 0xae) && IS(clflush) && (i->reg & 7) == 7 && i->prefix & EMUL_PFX_OPSIZE)
NEEDS(clwb, OP(1, 0xae) && IS(clflush) && (i->reg & 7) == 6)
NEEDS(cx16, IS(cmpxchg8b) && i->opsize == 8)
NEEDS(lahf_lm, (IS(lahf) || IS(sahf)) && i->mode == EMUL_MODE_LONG64)
NEEDS(prefetchw, OP(1, 0x0d))
NEEDS(popcnt, IS(popcnt))
NEEDS(lzcnt, IS(lzcnt))
NEEDS(tzcnt, IS(tzcnt))
NEEDS(movbe, IS(movbe))
NEEDS(sse3, OP(1, 0xf0) && !i->vex)	/* LDDQU */
NEEDS(sse4_1, OP(2, 0x2a) && !i->vex)	/* MOVNTDQA */
NEEDS(fisttp, IS(fist) && (i->reg & 7) == 1)
NEEDS(pextr, (IS(pextr) || IS(pinsr)) && i->map == 3 && !i->vex)
NEEDS(crc32, IS(crc32))
NEEDS(bmi1, IS(andn) || IS(bls) || IS(bextr))
NEEDS(bmi2, IS(bzhi) || IS(pdep) || IS(pext) || IS(shiftx) || IS(rorx) || IS(mulx))
NEEDS(adx, IS(adcx) || IS(adox))
NEEDS(movdiri, OP(2, 0xf9))
NEEDS(movdir64b, IS(movdir64b))
NEEDS(avx, i->vex && !OP(2, 0xf2) && !OP(2, 0xf3) && !OP(2, 0xf5) && !OP(2, 0xf6) && !OP(2, 0xf7) && !OP(3, 0xf0))
NEEDS(avx2, i->vex && (OP(2, 0x2a) || (IS(vmaskmov) && i->opcode & 0x80) || OP(3, 0x39) ||
		       (IS(broadcast) && (i->opcode & 0x40 || i->mod == 3))))
NEEDS(avx512f, i->vex == 2)
NEEDS(avx512vl, i->vex == 2)
NEEDS(avx512bw, i->vex == 2)
NEEDS(avx512dq, i->vex == 2)
NEEDS(xsave, IS(xsetbv))		/* of a user it is a #GP, and a #UD where there is none */
NEEDS(invpcid, IS(invpcid))		/* the same */
#undef NEEDS
#undef OP
#undef IS

enum { EAX, EBX, ECX, EDX };

static struct feature {
	const char *name;
	bool (*needed)(const struct emul_insn *i);
	u32 leaf;
	unsigned int reg, bit;
	bool absent;
	unsigned long left_out;
} features[] = {
#define FEATURE(name, leaf, reg, bit) { #name, needs_##name, leaf, reg, bit }
	FEATURE(clflushopt, 7, EBX, 23),
	FEATURE(clwb, 7, EBX, 24),
	FEATURE(cx16, 1, ECX, 13),
	FEATURE(lahf_lm, 0x80000001, ECX, 0),
	FEATURE(prefetchw, 0x80000001, ECX, 8),
	FEATURE(popcnt, 1, ECX, 23),
	FEATURE(lzcnt, 0x80000001, ECX, 5),
	FEATURE(tzcnt, 7, EBX, 3),
	FEATURE(movbe, 1, ECX, 22),
	FEATURE(sse3, 1, ECX, 0),
	FEATURE(sse4_1, 1, ECX, 19),
	FEATURE(avx, 1, ECX, 28),
	FEATURE(avx2, 7, EBX, 5),
	FEATURE(avx512f, 7, EBX, 16),
	FEATURE(avx512vl, 7, EBX, 31),
	FEATURE(avx512bw, 7, EBX, 30),
	FEATURE(avx512dq, 7, EBX, 17),
	FEATURE(fisttp, 1, ECX, 0),
	FEATURE(pextr, 1, ECX, 19),
	FEATURE(crc32, 1, ECX, 20),
	FEATURE(bmi1, 7, EBX, 3),
	FEATURE(bmi2, 7, EBX, 8),
	FEATURE(adx, 7, EBX, 19),
	FEATURE(movdiri, 7, ECX, 27),
	FEATURE(movdir64b, 7, ECX, 28),
	FEATURE(xsave, 1, ECX, 27),	/* and the system uses it */
	FEATURE(invpcid, 7, EBX, 10),
#undef FEATURE
};
#define FOR_FEATURES(f) for (f = features; f < features + sizeof(features) / sizeof(*f); f++)

static bool in_list(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (; list; list = strchr(list, ',')) {
		list += *list == ',';
		if (!strncmp(list, name, n) && (!list[n] || list[n] == ','))
			return true;
	}
	return false;
}

static void look_for_features(const char *without)
{
	bool all = in_list(without, "all");
	struct feature *f;
	u32 r[4];

	FOR_FEATURES(f) {
		if (!__get_cpuid_count(f->leaf, 0, &r[EAX], &r[EBX], &r[ECX], &r[EDX]))
			r[f->reg] = 0;
		f->absent = !(r[f->reg] >> f->bit & 1) || all || in_list(without, f->name);
		f->left_out = 0;
		/* Nor has it what is in XCR0 with it. */
		if (f->needed == needs_avx && f->absent)
			have_ymm = have_zmm = false;
		if (f->needed == needs_avx512f && f->absent)
			have_zmm = false;
	}
}

static bool left_out(const struct emul_insn *i)
{
	struct feature *f;
	bool out = false;

	FOR_FEATURES(f) {
		if (f->absent && f->needed(i)) {
			f->left_out++;
			out = true;
		}
	}
	return out;
}

static unsigned long say_left_out(void)
{
	unsigned long sum = 0;
	struct feature *f;

	FOR_FEATURES(f) {
		if (f->absent)
			printf("# left out: %lu cases that need %s\n", f->left_out, f->name);
		sum += f->left_out;
	}
	return sum;
}

#endif
