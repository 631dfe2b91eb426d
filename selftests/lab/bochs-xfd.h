/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For bochs-fix.c: Bochs 3.0's sapphire_rapids has AMX but not extended feature disable (SDM vol. 1, 13.14), without which
 * Linux does without AMX. On request (BOCHS_XFD) it has, for the one component that can be disabled, TILEDATA:
 *
 * - its bits in CPUID, and the two MSRs;
 * - #NM, with IA32_XFD_ERR, for instructions that need the tiles, and for XRSTOR that would load them, while they are
 *   disabled; LDTILECFG, STTILECFG, TILERELEASE and XRSTOR of their initial state do not need them;
 * - instructions of the XSAVE family leave disabled tiles out, as if they were in their initial state. (XSAVE, of
 *   all, would write that state, too; here it leaves alone what is in memory.)
 *
 * And four errors are mended: where XRSTORS leaves a component out, it looks for those behind it where they are not; whether tiles are in use is told the wrong way round, so that XSAVE would say so of
 * those that are not; XSAVE and XRSTOR move the first eight rows of each tile only; and what XSAVE and STTILECFG store as a
 * tile's rows is its columns, and the other way round.
 */
#ifndef LAB_BOCHS_XFD_H
#define LAB_BOCHS_XFD_H

#define MSR_XFD		0x1c4
#define MSR_XFD_ERR	0x1c5
#define XTILEDATA	18
#define NM		7

/* The CPU's state, in this build of it */
#define AMX		0x8eb0	/* pointer to the tiles' */
#define  TILES_IN_USE	0x2080

struct method {
	void *fn;
	uintptr_t adjust;
};

/* A row of Bochs's table of state components */
struct component {
	uint32_t bytes, offset;
	struct method in_use, save, restore, init;
};

static struct xfd {
	void *cpu;
	uint64_t xfd, err;
} xfds[16];

static void (*raise_exception)(void *cpu, unsigned int vector, uint16_t error);
static void (*xfd_cpuid)(void *cpuid, uint32_t function, uint32_t sub, uint32_t *leaf);
static int (*xfd_other_rdmsr)(void *cpu, uint32_t msr, uint64_t *val);
static int (*xfd_other_wrmsr)(void *cpu, uint32_t msr, uint64_t val);
static void (*xfd_init)(void *cpu);
static void (*save_tiles)(void *cpu, void *insn, uint64_t addr);
static void (*restore_tiles)(void *cpu, void *insn, uint64_t addr);

/* CPUs take turns in one thread. */
static struct xfd *xfd_of(void *cpu)
{
	struct xfd *x = xfds;

	while (x->cpu && x->cpu != cpu && x < xfds + 15)
		x++;
	x->cpu = cpu;
	return x;
}

static void need_tiles(void *cpu)
{
	struct xfd *x = xfd_of(cpu);

	if (!(x->xfd & 1 << XTILEDATA))
		return;
	x->err = 1 << XTILEDATA;
	raise_exception(cpu, NM, 0);	/* does not return */
}

static void tile_insn(void *cpu, void *insn, void (*real)(void *cpu, void *insn))
{
	need_tiles(cpu);
	real(cpu, insn);
}

static bool tiles_in_use(void *cpu)
{
	char *amx = *(char **)((char *)cpu + AMX);

	return !(xfd_of(cpu)->xfd & 1 << XTILEDATA) && *(uint32_t *)(amx + TILES_IN_USE);
}

static void save_enabled_tiles(void *cpu, void *insn, uint64_t addr)
{
	if (!(xfd_of(cpu)->xfd & 1 << XTILEDATA))
		save_tiles(cpu, insn, addr);
}

static void restore_enabled_tiles(void *cpu, void *insn, uint64_t addr)
{
	need_tiles(cpu);
	restore_tiles(cpu, insn, addr);
}

/* Bochs fills its table here, for each CPU anew. */
static void init_components(void *cpu)
{
	struct component *c = (struct component *)dlsym(RTLD_DEFAULT, "xsave_restore") + XTILEDATA;

	xfd_init(cpu);
	if (!c->bytes)
		return;
	save_tiles = c->save.fn;
	restore_tiles = c->restore.fn;
	c->in_use.fn = tiles_in_use;
	c->save.fn = save_enabled_tiles;
	c->restore.fn = restore_enabled_tiles;
}

static void cpuid_with_xfd(void *cpuid, uint32_t function, uint32_t sub, uint32_t *leaf)
{
	xfd_cpuid(cpuid, function, sub, leaf);
	/* The emulator dies of an SMI where page tables have five levels. */
	if (function == 7 && sub == 0)
		leaf[2] &= ~(1 << 16);
	if (function == 0xd && sub == 1)
		leaf[0] |= 1 << 4;
	if (function == 0xd && sub == XTILEDATA && leaf[0])
		leaf[2] |= 1 << 2;
}

static int rdmsr_with_xfd(void *cpu, uint32_t msr, uint64_t *val)
{
	if (msr != MSR_XFD && msr != MSR_XFD_ERR)
		return xfd_other_rdmsr(cpu, msr, val);
	*val = msr == MSR_XFD ? xfd_of(cpu)->xfd : xfd_of(cpu)->err;
	return 1;
}

static int wrmsr_with_xfd(void *cpu, uint32_t msr, uint64_t val)
{
	if (msr != MSR_XFD && msr != MSR_XFD_ERR)
		return xfd_other_wrmsr(cpu, msr, val);
	if (val & ~(1UL << XTILEDATA))
		return 0;
	*(msr == MSR_XFD ? &xfd_of(cpu)->xfd : &xfd_of(cpu)->err) = val;
	return 1;
}

/* In the table of instructions: @name's goes through tile_insn(). False: there is none. */
static bool gate_insn(const char *name)
{
	struct exchange x = { 0 };
	char symbol[80];
	void *gate = tile_insn;

	snprintf(symbol, sizeof(symbol), INSIDE "%zu%sEP15bxInstruction_c", strlen(name), name);
	x.old = dlsym(RTLD_DEFAULT, symbol);
	if (!x.old || (!code && !(code = page_near(x.old))))
		return false;
	x.new = code;
	emit("\x48\xba", 2);		/* movabs $real, %rdx */
	emit(&x.old, 8);
	emit("\x48\xb8", 2);		/* movabs $tile_insn, %rax */
	emit(&gate, 8);
	emit("\xff\xe0", 2);		/* jmp *%rax */
	each_pointer(exchange, &x);
	return x.n;
}

/* In the first instructions of @symbol, @n bytes */
static bool exchange_bytes(const char *symbol, const char *old, const char *new, size_t n)
{
	unsigned char *fn = dlsym(RTLD_DEFAULT, symbol), *p = fn ? memmem(fn, 2 * LONG, old, n) : NULL;

	if (p)
		overwrite(p, new, n);
	return p;
}

static bool mend_tiles(void)
{
	static const char config[] = INSIDE "19xsave_tilecfg_stateEP15bxInstruction_cm";
	static const char save[] = INSIDE "20xsave_tiledata_stateEP15bxInstruction_cm";
	static const char restore[] = INSIDE "21xrstor_tiledata_stateEP15bxInstruction_cm";
	static const char xrstor[] = INSIDE "6XRSTOREP15bxInstruction_c";

	/* In a loop, mov [0], %ecx; mov %cx, to columns; mov [4], %ecx; mov %cl, to rows: with 4 and 0 */
	return exchange_bytes(config, "\x8b\x0c\xc2\x66\x41\x89\x4c\x42\x0e\x8b\x4c\xc2\x04\x41\x88\x0c\x01",
			      "\x8b\x4c\xc2\x04\x66\x41\x89\x4c\x42\x0e\x8b\x0c\xc2\x41\x88\x0c\x01", 17) &&
	       /* the end of the first tile, 0x80 + 0x400; a tile's beginning from its end; the end behind the last */
	       exchange_bytes(save, "\x41\xbc\x80\x02\0\0", "\x41\xbc\x80\x04\0\0", 6) &&
	       exchange_bytes(save, "\x49\x8d\x9c\x24\0\xfe\xff\xff", "\x49\x8d\x9c\x24\0\xfc\xff\xff", 8) &&
	       exchange_bytes(save, "\x49\x81\xfc\x80\x22\0\0", "\x49\x81\xfc\x80\x24\0\0", 7) &&
	       exchange_bytes(restore, "\x41\xbd\x80\x02\0\0", "\x41\xbd\x80\x04\0\0", 6) &&
	       exchange_bytes(restore, "\x49\x8d\x9c\x24\0\xfe\xff\xff", "\x49\x8d\x9c\x24\0\xfc\xff\xff", 8) &&
	       /* test %r14d, %r12d; je to the next: to where this one's size is added first, if there is room for it */
	       exchange_bytes(xrstor, "\x45\x85\xf4\x74\xe0\x41\x8b\x0f", "\x45\x85\xf4\x74\xd3\x41\x8b\x0f", 8);
}

static void add_xfd(void)
{
	static const char *const insns[] = {
		"TILEZERO_Tnnn", "TILELOADD_TnnnMdq", "TILESTORED_MdqTnnn", "TILEMOVROW_VdqTrm", "TCVTROWD2PS_VpsTrm",
		"TCVTROWPS2PHH_VphTrm", "TCVTROWPS2PHL_VphTrm", "TCVTROWPS2BF16H_VphTrm", "TCVTROWPS2BF16L_VphTrm",
		"TDPBSSD_TnnnTrmTreg", "TDPBSUD_TnnnTrmTreg", "TDPBUSD_TnnnTrmTreg", "TDPBUUD_TnnnTrmTreg",
		"TDPBF16PS_TnnnTrmTreg", "TDPFP16PS_TnnnTrmTreg", "TCMMIMFP16PS_TnnnTrmTreg", "TCMMRLFP16PS_TnnnTrmTreg",
	};
	static const char cpuid_method[] = "_ZNK17sapphire_rapids_t14get_cpuid_leafEjjP16cpuid_function_t";
	struct exchange leaf = { xfd_cpuid = dlsym(RTLD_DEFAULT, cpuid_method), cpuid_with_xfd };
	bool all = mend_tiles();
	size_t i;

	raise_exception = dlsym(RTLD_DEFAULT, INSIDE "9exceptionEjt");
	xfd_init = dlsym(RTLD_DEFAULT, INSIDE "18xsave_xrestor_initEv");
	xfd_other_rdmsr = dlsym(RTLD_DEFAULT, INSIDE "20handle_unknown_rdmsrEjPm");
	xfd_other_wrmsr = dlsym(RTLD_DEFAULT, INSIDE "20handle_unknown_wrmsrEjm");
	code = NULL;
	all &= redirect(dlsym(RTLD_DEFAULT, INSIDE "5rdmsrEjPm"), (void *)xfd_other_rdmsr, "", 0, rdmsr_with_xfd);
	all &= redirect(dlsym(RTLD_DEFAULT, INSIDE "5wrmsrEjm"), (void *)xfd_other_wrmsr, "", 0, wrmsr_with_xfd);
	all &= redirect(dlsym(RTLD_DEFAULT, INSIDE "10initializeEv"), (void *)xfd_init, "", 0, init_components);
	for (i = 0; i < sizeof(insns) / sizeof(insns[0]); i++)
		all &= gate_insn(insns[i]);
	each_pointer(exchange, &leaf);
	if (!all || !leaf.n || !raise_exception) {
		fprintf(stderr, "not the emulator that was expected: no XFD for its CPU\n");
		exit(1);
	}
}

#endif
