// SPDX-License-Identifier: GPL-2.0-only
/*
 * Differential test of the emulator against the processor it runs on: random
 * user-mode instructions in 64-, 32- and 16-bit code are emulated on a copy of
 * memory and single-stepped for real, then registers, flags, vector registers,
 * memory and the fault, if any, are compared. Flags the manuals leave undefined
 * are masked.
 *
 *	emul_diff [cases [seed]]
 *
 * What the processor does not have is left out, and how much that was is said.
 * EMUL_DIFF_WITHOUT=clwb,avx (or all) leaves that out as well.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <unistd.h>
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>

#include "../../kmod/emul/internal.h"
#include "tap.h"
#include "emul_left_out.h"

#define DATA		0x10000000ul
#define DATA_SIZE	0x4000ul
#define CODE		0x20000000ul
#define SAFE_END	0x7fff0000ul	/* nothing else is mapped below */
#define MAX_STEPS	64

#define CODE16_SEL	0x07	/* LDT entry 0 */
#define DATA16_SEL	0x0f	/* LDT entry 1 */
#define CODE32_SEL	0x23
#define FLAT_SEL	0x2b

/* Vector registers in the parts XSAVE has them in; the lowest 16 bytes of the first 16 are in fx */
struct state {
	u64 regs[16], rip, rflags;
	struct emul_fx fx;
	u8 ymm[16][16], zmm[16][32], high[16][64];
	u64 k[8];
};

static u8 *const data = (u8 *)DATA;
static u8 *const code = (u8 *)CODE;
static u8 before[DATA_SIZE], shadow[DATA_SIZE];
static u64 gs_base, fs_base;
static u32 mxcsr_mask;
static bool la57;	/* addresses have 57 bits */
static u32 zmm_at, high_at, mask_at;	/* in the standard format of XSAVE */

/* Test case. */
static struct state start, host, emulated;
static struct emul e;
static enum emul_mode mode;
static unsigned int case_sel;
static bool unsure;	/* touched memory whose state on the host is not known */

static u64 rng;

static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * 0x2545f4914f6cdd1dull;
}

static unsigned int below(unsigned int n)
{
	return (rnd() >> 33) % n;
}

/* The emulator's surroundings. */

static enum emul_result page_fault(u64 addr)
{
	if (addr >= SAFE_END && addr < 1ull << (la57 ? 56 : 47))
		unsure = true;
	if (addr < SAFE_END && addr >= CODE && addr < CODE + 4096)
		unsure = true;
	emul_raise(&e, EMUL_VEC_PF, true, 0);
	e.fault.cr2 = addr;
	return EMUL_FAULT;
}

static enum emul_result check(u64 addr, unsigned int n)
{
	if (addr >= DATA && addr < DATA + DATA_SIZE && addr + n <= DATA + DATA_SIZE)
		return EMUL_OK;
	if (addr < DATA || addr >= DATA + DATA_SIZE)
		return page_fault(addr);
	return page_fault(DATA + DATA_SIZE);
}

static enum emul_result t_read(struct emul *em, u64 addr, void *buf, unsigned int n,
			       unsigned int acc)
{
	enum emul_result r = check(addr, n);

	(void)em;
	(void)acc;
	if (!r)
		memcpy(buf, shadow + (addr - DATA), n);
	return r;
}

static enum emul_result t_write(struct emul *em, u64 addr, const void *buf, unsigned int n,
				unsigned int acc)
{
	enum emul_result r = check(addr, n);

	(void)em;
	(void)acc;
	if (!r)
		memcpy(shadow + (addr - DATA), buf, n);
	return r;
}

static enum emul_result t_probe(struct emul *em, u64 addr, unsigned int n, unsigned int acc)
{
	(void)em;
	(void)acc;
	return check(addr, n);
}

static enum emul_result t_cmpxchg(struct emul *em, u64 addr, const void *old, const void *new,
				  unsigned int n, unsigned int acc)
{
	enum emul_result r = check(addr, n);

	(void)em;
	(void)acc;
	if (r)
		return r;
	if (memcmp(shadow + (addr - DATA), old, n))
		return EMUL_RETRY;
	memcpy(shadow + (addr - DATA), new, n);
	return EMUL_OK;
}

static enum emul_result t_fetch(struct emul *em, u64 addr, void *buf, unsigned int *n)
{
	(void)em;
	if (addr < CODE || addr + *n > CODE + 4096)
		return page_fault(addr);
	memcpy(buf, (void *)addr, *n);
	return EMUL_OK;
}

static void t_get_seg(struct emul *em, unsigned int seg, struct emul_seg *s)
{
	memset(s, 0, sizeof(*s));
	s->limit = 0xffffffff;
	s->attr = EMUL_ATTR_P | EMUL_ATTR_S | EMUL_ATTR_DPL | EMUL_ATTR_G | EMUL_ATTR_DB | 3;
	if (seg == EMUL_SEG_FS || seg == EMUL_SEG_GS) {
		s->base = seg == EMUL_SEG_FS ? fs_base : gs_base;
		if (em->mode != EMUL_MODE_LONG64)
			s->attr = EMUL_ATTR_UNUSABLE;
	} else if (seg == EMUL_SEG_CS) {
		s->attr |= 8;
	} else if (em->mode == EMUL_MODE_PROT16 && seg != EMUL_SEG_SS) {
		s->base = DATA;
		s->limit = DATA_SIZE - 1;
	}
}

static enum emul_result t_get_cr(struct emul *em, unsigned int nr, u64 *val)
{
	(void)em;
	*val = nr == 0 ? X86_CR0_PE | X86_CR0_PG | X86_CR0_MP | X86_CR0_NE :
	       nr == 4 ? X86_CR4_OSFXSR | X86_CR4_OSXSAVE | X86_CR4_PAE : 0;
	return EMUL_OK;
}

static enum emul_result t_get_xcr(struct emul *em, u32 nr, u64 *val)
{
	(void)em;
	(void)nr;
	*val = have_zmm ? 0xe7 : have_ymm ? 7 : 3;
	return EMUL_OK;
}

static enum emul_result t_sysop(struct emul *em, enum emul_sysop what)
{
	(void)em;
	return what == EMUL_SYS_PAUSE ? EMUL_OK : EMUL_UNHANDLEABLE;
}

static u8 *vec_part(struct state *st, unsigned int reg, unsigned int at)
{
	if (reg > 15)
		return st->high[reg - 16] + at;
	return at < 16 ? st->fx.xmm[reg] : at < 32 ? st->ymm[reg] : st->zmm[reg] + at - 32;
}

static enum emul_result t_read_vec(struct emul *em, unsigned int reg, void *buf, unsigned int n)
{
	unsigned int at;

	(void)em;
	for (at = 0; at < n; at += 16)
		memcpy((u8 *)buf + at, vec_part(&emulated, reg, at), 16);
	return EMUL_OK;
}

static enum emul_result t_write_vec(struct emul *em, unsigned int reg, const void *buf,
				    unsigned int n, bool zero_upper)
{
	unsigned int at;

	(void)em;
	for (at = 0; at < (zero_upper ? 64 : n); at += 16) {
		if (at < n)
			memcpy(vec_part(&emulated, reg, at), (const u8 *)buf + at, 16);
		else
			memset(vec_part(&emulated, reg, at), 0, 16);
	}
	return EMUL_OK;
}

static enum emul_result t_read_kmask(struct emul *em, unsigned int reg, u64 *mask)
{
	(void)em;
	*mask = emulated.k[reg];
	return EMUL_OK;
}

static enum emul_result t_fxstate(struct emul *em, struct emul_fx **fx)
{
	(void)em;
	*fx = &emulated.fx;
	return EMUL_OK;
}

static enum emul_result t_get_msr(struct emul *em, u32 msr, u64 *val)
{
	(void)em;
	(void)msr;
	*val = 0;
	return EMUL_OK;
}

static bool t_cpu_has(struct emul *em, enum emul_cpu what);

static const struct emul_ops test_ops = {
	.read = t_read, .write = t_write, .probe = t_probe, .replace = t_cmpxchg,
	.fetch = t_fetch, .get_seg = t_get_seg, .get_cr = t_get_cr, .get_xcr = t_get_xcr,
	.sysop = t_sysop, .read_vec = t_read_vec, .write_vec = t_write_vec, .read_kmask = t_read_kmask,
	.fxstate = t_fxstate, .get_msr = t_get_msr, .cpu_has = t_cpu_has,
};

static bool t_cpu_has(struct emul *em, enum emul_cpu what)
{
	struct feature *f;

	(void)em;
	FOR_FEATURES(f)
		if (f->needed == (what == EMUL_CPU_TZCNT ? needs_tzcnt : needs_lzcnt))
			return !f->absent;
	return false;
}

/* Flags left undefined by the instruction; sets *skip if its result is, too. */
static u64 undefined_flags(const struct emul *em, u64 count, bool *skip)
{
	const u64 CF = X86_EFLAGS_CF, PF = X86_EFLAGS_PF, AF = X86_EFLAGS_AF,
		  ZF = X86_EFLAGS_ZF, SF = X86_EFLAGS_SF, OF = X86_EFLAGS_OF;
	enum emul_result (*op)(struct emul *e) = em->insn.exec;
	unsigned int bits = em->insn.opsize * 8;
	u64 f = 0;

	count &= bits == 64 ? 63 : 31;
#define IS(name) (op == emul_op_##name)
	if (IS(and) || IS(or) || IS(xor) || IS(test))
		return AF;
	if (IS(mul) || IS(imul) || IS(imul1))
		return SF | ZF | AF | PF;
	if (IS(div) || IS(idiv))
		return ARITH_FLAGS;
	if (IS(bsf) || IS(bsr)) {
		/* Nothing found: some clear the upper half of a register whose lower half they leave. */
		*skip = em->insn.opsize == 4 && em->rflags & ZF;
		return CF | OF | SF | AF | PF;
	}
	if (IS(tzcnt) || IS(lzcnt))
		return OF | SF | AF | PF;
	/* A denormal that is to be reported: it has been loaded then, or has not. */
	if (IS(fld))
		*skip = emulated.fx.sw & ~emulated.fx.cw & 2;
	if (IS(andn) || IS(bls) || IS(bzhi))
		return AF | PF;
	if (IS(bextr))
		return AF | SF | PF;
	if (IS(bt) || IS(bts) || IS(btr) || IS(btc))
		return OF | SF | AF | PF;
	if (IS(aam) || IS(aad))
		return OF | AF | CF;
	if (IS(aaa) || IS(aas))
		return OF | SF | ZF | PF;
	if (IS(daa) || IS(das))
		return OF;
	if (IS(rol) || IS(ror) || IS(rcl) || IS(rcr))
		return count == 1 ? 0 : OF;
	if (IS(shl) || IS(shr) || IS(sar) || IS(shld) || IS(shrd)) {
		f = count ? AF : 0;
		if (count != 1)
			f |= OF;
		if (count > bits) {
			f |= CF;
			if (IS(shld) || IS(shrd))
				*skip = true;
		}
		return f;
	}
#undef IS
	return 0;
}

/* The host side: a trap enters and leaves the instruction. */

static gregset_t saved;
static volatile int phase;	/* 0: enter, 1: stepping */
static int host_sig;
static bool rep_string;
static unsigned int steps;

static const int greg_of[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static u64 *xstate_bv(fpregset_t fp)
{
	return (u64 *)((u8 *)fp + 512);
}

/* A component of the state, and where it is in the standard format of XSAVE */
static const struct part {
	unsigned int bit;
	size_t offset, bytes;
	const u32 *at;
} parts[] = {
#define PART(bit, member, at) { bit, offsetof(struct state, member), sizeof(start.member), at }
	PART(2, ymm, NULL),	/* behind the header */
	PART(5, k, &mask_at),
	PART(6, zmm, &zmm_at),
	PART(7, high, &high_at),
#undef PART
};

static bool have_part(const struct part *p)
{
	return p->bit == 2 ? have_ymm : have_zmm;
}

static struct emul_fx saved_fx;

static void put_state(fpregset_t fp, const struct state *st)
{
	const struct part *p;
	u32 mask = ((struct emul_fx *)fp)->mxcsr_mask;

	memcpy(&saved_fx, fp, 416);
	memcpy(fp, &st->fx, 416);	/* the kernel keeps its own behind that */
	((struct emul_fx *)fp)->mxcsr_mask = mask;
	if (!have_xsave)
		return;
	*xstate_bv(fp) |= have_zmm ? 0xe7 : have_ymm ? 7 : 3;
	for (p = parts; p < parts + sizeof(parts) / sizeof(*parts); p++)
		if (have_part(p))
			memcpy((u8 *)fp + (p->at ? *p->at : 576), (const u8 *)st + p->offset, p->bytes);
}

/* What the image leaves out is in its initial state. */
static void get_state(fpregset_t fp, struct state *st)
{
	u64 bv = have_xsave ? *xstate_bv(fp) : 3;
	const struct part *p;

	memcpy(&st->fx, fp, 416);
	if (!(bv & 1)) {
		u32 mxcsr = st->fx.mxcsr;

		memset(&st->fx, 0, offsetof(struct emul_fx, xmm));
		st->fx.cw = 0x37f;
		st->fx.mxcsr = mxcsr;
	}
	if (!(bv & 2))
		memset(st->fx.xmm, 0, sizeof(st->fx.xmm));
	for (p = parts; p < parts + sizeof(parts) / sizeof(*parts); p++) {
		u8 *to = (u8 *)st + p->offset;

		if (have_part(p) && bv >> p->bit & 1)
			memcpy(to, (u8 *)fp + (p->at ? *p->at : 576), p->bytes);
		else
			memset(to, 0, p->bytes);
	}
	memcpy(fp, &saved_fx, offsetof(struct emul_fx, xmm));
	if (have_xsave)
		*xstate_bv(fp) |= 3;
}

static void enter_case(ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	fpregset_t fp = uc->uc_mcontext.fpregs;
	unsigned int k;

	memcpy(saved, g, sizeof(saved));
	for (k = 0; k < 16; k++)
		g[greg_of[k]] = start.regs[k];
	g[REG_RIP] = start.rip;
	g[REG_EFL] = start.rflags;
	if (case_sel)
		g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | case_sel;
	put_state(fp, &start);
	steps = 0;
	phase = 1;
}

static void leave_case(int sig, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	fpregset_t fp = uc->uc_mcontext.fpregs;
	unsigned int k;

	host_sig = sig;
	for (k = 0; k < 16; k++)
		host.regs[k] = g[greg_of[k]];
	host.rip = g[REG_RIP];
	host.rflags = g[REG_EFL];
	get_state(fp, &host);
	memcpy(g, saved, sizeof(saved));
	phase = 0;
}

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)si;
	/* A POPF may have left NT, AC and ID set, and sigreturn keeps them. */
	asm volatile("pushfq; andl $~0x244000, (%%rsp); popfq" : : : "cc", "memory");
	if (!phase) {
		if (sig != SIGTRAP) {
			signal(sig, SIG_DFL);
			return;
		}
		enter_case(uc);
		return;
	}
	if (sig == SIGTRAP && rep_string && ++steps < MAX_STEPS &&
	    (u64)uc->uc_mcontext.gregs[REG_RIP] == start.rip)
		return;		/* TF is still set: the next iteration */
	leave_case(sig, uc);
}

static void run_host(void)
{
	asm volatile("int3" : : :
		     "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
		     "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
		     "xmm15");
}

static bool set_ldt(void)
{
	struct user_desc d = {
		.entry_number = 0, .base_addr = 0, .limit = 0xfffff, .seg_32bit = 0,
		.contents = 2, .limit_in_pages = 1, .useable = 1,
	};

	if (syscall(SYS_modify_ldt, 1, &d, sizeof(d)))
		return false;
	d = (struct user_desc){
		.entry_number = 1, .base_addr = DATA, .limit = DATA_SIZE - 1, .seg_32bit = 0,
		.contents = 0, .useable = 1,
	};
	return !syscall(SYS_modify_ldt, 1, &d, sizeof(d));
}

/* Is that a code segment that user mode may run? Hosts may do without all but the one for 64 bits. */
static bool have_code_seg(u16 sel)
{
	u32 rights = 0;
	u8 ok;

	asm volatile("lar %2, %0; setz %1" : "+r"(rights), "=q"(ok) : "r"((u32)sel) : "cc");
	return ok && (rights & 0x9800) == 0x9800;
}

static void set_data_segs(u16 sel)
{
	asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"((u32)sel));
}

static void setup(void)
{
	static u8 stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction sa = { .sa_sigaction = on_signal };
	static struct emul_fx image __attribute__((aligned(16)));
	static const int sigs[] = { SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS };
	u32 a, b, c, d;
	unsigned int k;
	void *far;

	if (mmap(data, DATA_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != data ||
	    mmap(code, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != code) {
		printf("1..0 # SKIP cannot map the test pages\n");
		exit(0);
	}
	__cpuid(1, a, b, c, d);
	have_xsave = c & (1u << 27);
	if (have_xsave && (c & (1u << 28))) {
		asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
		have_ymm = (a & 6) == 6;
		have_zmm = (a & 0xe6) == 0xe6;
	}
	/* The kernel gives such an address to who asks for one, if there is any. */
	far = mmap((void *)(1ul << 48), 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	la57 = far != MAP_FAILED && (u64)far >> 47;
	/* AMD's, before they had XSAVEERPTR */
	__cpuid(0, a, b, c, d);
	old_pointers = c == signature_AMD_ecx && (!__get_cpuid(0x80000008, &a, &b, &c, &d) || !(b & 4));
	__builtin_ia32_fxsave64(&image);
	mxcsr_mask = image.mxcsr_mask;
	__cpuid_count(0xd, 5, a, mask_at, c, d);
	__cpuid_count(0xd, 6, a, zmm_at, c, d);
	__cpuid_count(0xd, 7, a, high_at, c, d);
	gs_base = DATA + 0x1000;
	if (syscall(SYS_arch_prctl, ARCH_SET_GS, gs_base))
		gs_base = SAFE_END;	/* then GS cases are skipped as unsure */
	if (syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_base))
		fs_base = SAFE_END;

	sigaltstack(&ss, NULL);
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigfillset(&sa.sa_mask);
	for (k = 0; k < sizeof(sigs) / sizeof(sigs[0]); k++)
		sigaction(sigs[k], &sa, NULL);
}

/* Case generation. */

static u64 interesting(void)
{
	static const u64 v[] = {
		0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 0x7f, 0x80, 0xff, 0x7fff,
		0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
		0x8000000000000000, 0xffffffffffffffff, 0xfffffffffffffffe, 0x99, 0x9a,
	};

	switch (below(4)) {
	case 0:
		return rnd();
	case 1:
		return below(64);
	default:
		return v[below(sizeof(v) / sizeof(v[0]))];
	}
}

/* Some CPUs go to no program whose RSP is not canonical. */
static bool canonical_rsp;

static u64 pointer(void)
{
	return DATA + 0x1000 + (below(4) ? below(0x200) * 16 : below(0x2000));
}

static unsigned int put_prefixes(u8 *p)
{
	static const u8 pfx[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x65, 0x26 };
	unsigned int n = 0, k = below(8) ? below(3) : below(5);

	while (k--)
		p[n++] = pfx[below(below(3) ? 4 : sizeof(pfx))];
	return n;
}

static u8 one_of(const u8 *list, unsigned int n)
{
	return list[below(n)];
}
#define ONE_OF(list) one_of(list, sizeof(list))

/* VEX or EVEX, with opcodes of each map that are known. */
static unsigned int put_vector(u8 *p)
{
	static const u8 op1[] = {
		0x10, 0x11, 0x12, 0x13, 0x16, 0x17, 0x28, 0x29, 0x2b, 0x6e, 0x6f, 0x7e, 0x7f, 0xd6, 0xe7, 0xae,
		0xc4, 0xf0, 0xf7,
	};
	static const u8 op2[] = {
		0x18, 0x19, 0x1a, 0x1b, 0x2a, 0x2c, 0x2d, 0x2e, 0x2f, 0x58, 0x59, 0x5a, 0x5b, 0x78, 0x79, 0x8c,
		0x8e, 0xf2, 0xf3, 0xf5, 0xf6, 0xf7,
	};
	static const u8 op3[] = { 0x14, 0x15, 0x16, 0x17, 0x19, 0x1b, 0x20, 0x22, 0x39, 0x3b, 0xf0 };
	unsigned int n = 0, map = below(2) ? 1 : 2 + below(2);
	u8 unused = below(4) ? 0x78 : 0;	/* vvvv */

	if (have_zmm && below(2)) {
		p[n++] = 0x62;
		p[n++] = map | (rnd() & 0xf0);
		p[n++] = 4 | unused | (rnd() & 0x83);
		p[n++] = (below(4) ? 8 : 0) | (below(2) ? rnd() & 0x60 : rnd() & 0xe7);
	} else if (map == 1 && below(2)) {
		p[n++] = 0xc5;
		p[n++] = unused | (rnd() & 0x87);
	} else {
		p[n++] = 0xc4;
		p[n++] = map | (rnd() & 0xe0);
		p[n++] = (map == 2 && below(2) ? rnd() & 0x78 : unused) | (rnd() & 0x87);
	}
	p[n++] = map == 1 ? ONE_OF(op1) : map == 2 ? ONE_OF(op2) : ONE_OF(op3);
	return n;
}

static unsigned int put_opcode(u8 *p)
{
	static const u8 op2[] = { 0xf0, 0xf1, 0xf6, 0xf8, 0xf9, 0x2a };
	static const u8 op3[] = { 0x14, 0x15, 0x16, 0x17, 0x20, 0x22 };
	unsigned int n = 0, kind = below(20);

	if (have_ymm && kind < 4)
		return put_vector(p);
	if (mode == EMUL_MODE_LONG64 && below(2))
		p[n++] = 0x40 | below(16);
	if (kind < 10) {
		p[n++] = rnd() >> 20;
	} else if (kind < 12) {
		static const u8 x87[] = { 0xd9, 0xdb, 0xdd, 0xdf };

		p[n++] = ONE_OF(x87);
	} else if (kind < 18) {
		p[n++] = 0x0f;
		p[n++] = rnd() >> 20;
	} else {
		p[n++] = 0x0f;
		p[n++] = kind == 18 ? 0x38 : 0x3a;
		p[n++] = kind == 18 ? ONE_OF(op2) : ONE_OF(op3);
	}
	return n;
}

/* A value whose conversions are near some edge */
static void float_80(u8 *st)
{
	static const u16 exps[] = {
		0, 1, 0x3fff, 0x3ffe, 0x3ffd, 0x3fff + 15, 0x3fff + 31, 0x3fff + 62, 0x3fff + 63, 0x3fff + 64, 0x7fff, 0x7ffe,
		0x3fff + 127, 0x3fff + 128, 0x3fff - 126, 0x3fff - 127, 0x3fff - 149, 0x3fff - 150,
		0x3fff + 1023, 0x3fff + 1024, 0x3fff - 1022, 0x3fff - 1023, 0x3fff - 1074, 0x3fff - 1075,
	};
	u64 mant = below(2) ? rnd() : below(2) ? ~0ull << below(64) : interesting();
	u16 se = below(3) ? exps[below(sizeof(exps) / sizeof(*exps))] + below(3) - 1 : 0x3fff + below(70) - 4;

	if (below(8))
		mant |= 1ull << 63;
	se = (se & 0x7fff) | (rnd() & 0x8000);
	memcpy(st, &mant, 8);
	memcpy(st + 8, &se, 2);
}

static void fill(void *to, size_t n)
{
	u64 *p = to;

	for (; n >= 8; n -= 8)
		*p++ = rnd();
}

static void make_fpu(void)
{
	struct emul_fx *fx = &start.fx;
	unsigned int k;

	memset(fx, 0, sizeof(*fx));
	fx->cw = below(2) ? 0x37f : 0x40 | (rnd() & 0xf3f);
	fx->sw = rnd() & 0x7f00;			/* C0 to C3, TOP */
	fx->sw |= rnd() & (below(16) ? fx->cw & 0x3f : 0x3f);
	if (fx->sw & ~fx->cw & 0x3f)
		fx->sw |= 0x8080;
	fx->tw = below(2) ? 0 : rnd();
	fx->mxcsr = 0x1f80 | (rnd() & 0x603f);
	fx->mxcsr_mask = mxcsr_mask;
	for (k = 0; k < 8; k++)
		float_80(fx->st[k]);
	fill(fx->xmm, sizeof(fx->xmm));
	memset(start.ymm, 0, sizeof(start) - offsetof(struct state, ymm));
	if (have_ymm)
		fill(start.ymm, sizeof(start.ymm));
	if (have_zmm) {
		fill(start.zmm, sizeof(start.zmm));
		fill(start.high, sizeof(start.high));
		fill(start.k, sizeof(start.k));
	}
}

static void make_case(void)
{
	unsigned int k, n;

	n = put_prefixes(code);
	n += put_opcode(code + n);
	code[n++] = rnd() >> 20;	/* ModRM, or what comes in its place */
	for (k = n; k < 32; k++)
		code[k] = rnd() >> 30;
	if (below(4)) {		/* keep displacements in reach */
		k = n + below(2);
		code[k + 1] &= 0xf;
		code[k + 2] = 0;
		code[k + 3] = 0;
	}

	for (k = 0; k < 16; k++) {
		start.regs[k] = below(2) ? pointer() : interesting();
		if (mode != EMUL_MODE_LONG64)
			start.regs[k] = k < 8 ? (u32)start.regs[k] : 0;
		if (mode == EMUL_MODE_PROT16 && k < 8 && below(4))
			start.regs[k] = (start.regs[k] & ~0xffffull & ~DATA) | below(0x2000);
	}
	if (below(8))
		start.regs[EMUL_RSP] = DATA + 0x2000 + below(64) * 8;
	if (canonical_rsp && mode == EMUL_MODE_LONG64)
		start.regs[EMUL_RSP] = (s64)(start.regs[EMUL_RSP] << (la57 ? 7 : 16)) >> (la57 ? 7 : 16);
	if (below(4))
		start.regs[EMUL_RCX] = below(24);
	start.rip = CODE;
	start.rflags = X86_EFLAGS_FIXED | X86_EFLAGS_IF | X86_EFLAGS_TF |
		       (rnd() & (ARITH_FLAGS | (below(2) ? 0 : X86_EFLAGS_DF)));
	make_fpu();
}

/* Emulate until the instruction is done or stops. */
static enum emul_result emulate(void)
{
	enum emul_result r;
	unsigned int k;

	e.ops = &test_ops;
	emulated = start;
	e.regs = emulated.regs;
	e.rip = start.rip;
	e.rflags = start.rflags;
	e.cpl = 3;
	e.mode = mode;
	e.lma = true;
	e.la57 = la57;
	unsure = false;
	rep_string = false;
	for (k = 0; k <= MAX_STEPS; k++) {	/* stepped, an iteration each */
		r = emul_decode(&e);
		if (r)
			break;
		if (excluded(&e.insn) || left_out(&e.insn))
			return EMUL_UNHANDLEABLE;
		if (e.insn.exec == emul_op_movs || e.insn.exec == emul_op_cmps ||
		    e.insn.exec == emul_op_stos || e.insn.exec == emul_op_lods ||
		    e.insn.exec == emul_op_scas) {
			rep_string = e.insn.prefix & (EMUL_PFX_REP | EMUL_PFX_REPNE);
			if (rep_string && (start.regs[EMUL_RCX] & emul_mask(e.insn.adsize)) >=
					  MAX_STEPS)
				return EMUL_UNHANDLEABLE;
		}
		r = emul_exec(&e);
		if (r || e.rip != start.rip || !rep_string)
			break;
	}
	emulated.rip = e.rip;
	emulated.rflags = e.rflags;
	return r;
}

static const char *const mode_name[] = { "real", "vm86", "16-bit", "32-bit", "64-bit" };

static void report(enum emul_result r, const char *what, u64 mask)
{
	unsigned int k;

	fprintf(stderr, "# %s, %s:", what, mode_name[mode]);
	for (k = 0; k < 15; k++)
		fprintf(stderr, " %02x", code[k]);
	fprintf(stderr, "\n#  emulator: result %d vector %d len %d, host signal %d, flag mask %llx\n",
		r, e.fault.vector, e.insn.len, host_sig, (unsigned long long)mask);
#define LINE(name, a, b, c) \
	do { \
		if ((b) != (c)) \
			fprintf(stderr, "#  %s%d: start %llx host %llx emulator %llx\n", name, k, \
				(unsigned long long)(a), (unsigned long long)(b), \
				(unsigned long long)(c)); \
	} while (0)
	for (k = 0; k < 16; k++)
		LINE("reg", start.regs[k], host.regs[k], emulated.regs[k]);
	k = 0;
	LINE("rip", start.rip, host.rip, emulated.rip);
	LINE("rflags", start.rflags, host.rflags, emulated.rflags);
	for (k = 0; k < DATA_SIZE; k++)
		LINE("mem", before[k], data[k], shadow[k]);
	for (k = 0; k < sizeof(start); k++)
		if (k >= offsetof(struct state, fx))
			LINE("state", ((u8 *)&start)[k], ((u8 *)&host)[k], ((u8 *)&emulated)[k]);
	for (k = 0; k < 16; k++)
		fprintf(stderr, "#  r%d=%llx", k, (unsigned long long)start.regs[k]);
	fprintf(stderr, "\n");
}

static int expected_signal(enum emul_result r)
{
	if (r == EMUL_OK)
		return SIGTRAP;
	switch (e.fault.vector) {
	case EMUL_VEC_DE:
	case EMUL_VEC_MF:
		return SIGFPE;
	case EMUL_VEC_UD:
		return SIGILL;
	default:
		return SIGSEGV;
	}
}

static bool is_mmx(const struct emul_insn *i)
{
	return i->exec == emul_op_mmx_load || i->exec == emul_op_mmx_store || i->exec == emul_op_mmx_from_rm ||
	       i->exec == emul_op_mmx_to_rm || i->exec == emul_op_mmx_maskmov;
}

/*
 * CPUs differ in what comes first: a store of x87's that is not made, for an invalid operation that is unmasked and shows
 * at the next instruction, may find that its memory cannot be had, or not look at it.
 */
static bool store_not_made(void)
{
	const struct emul_insn *i = &e.insn;

	return (i->exec == emul_op_fist || i->exec == emul_op_fst || i->exec == emul_op_fstp80) &&
	       e.fault.vector != EMUL_VEC_MF && host_sig == SIGTRAP && host.fx.sw & ~host.fx.cw & 0x3f;
}

/* CPUs differ in whether bytes that MASKMOV's mask leaves out may fault. */
static bool left_out_by_mask(void)
{
	const struct emul_insn *i = &e.insn;
	bool mmx = i->exec == emul_op_mmx_maskmov;
	const u8 *mask = mmx ? start.fx.st[(i->rm - (start.fx.sw >> 11)) & 7] : start.fx.xmm[i->rm];
	unsigned int k;

	if ((!mmx && i->exec != emul_op_maskmovdqu) || e.fault.vector != EMUL_VEC_PF || host_sig != SIGTRAP)
		return false;
	for (k = 0; k < (mmx ? 8 : 16); k++)
		if (!(mask[k] & 0x80))
			return true;
	return false;
}

/* And in whether an indirect call with nowhere to go to has written its return address. */
static void call_not_made(void)
{
	u64 at = (start.regs[EMUL_RSP] - 8) - DATA;

	if (e.insn.exec == emul_op_call_ind && at <= DATA_SIZE - 8)
		memcpy(data + at, shadow + at, 8);
}

/*
 * A repeated instruction that faults, or is not even done once: some have cut its registers to its address size.  After a fault
 * flags may be those from before it.
 */
static void rep_not_made(enum emul_result r)
{
	static const u8 used[] = { EMUL_RCX, EMUL_RSI, EMUL_RDI };
	unsigned int k;

	for (k = 0; k < 3 && e.insn.adsize == 4; k++)
		if (host.regs[used[k]] == (u32)emulated.regs[used[k]])
			host.regs[used[k]] = emulated.regs[used[k]];
	if (r == EMUL_FAULT && !((host.rflags ^ start.rflags) & ARITH_FLAGS))
		host.rflags = (host.rflags & ~ARITH_FLAGS) | (emulated.rflags & ARITH_FLAGS);
}

/* Returns what differs, or NULL. */
static const char *compare(enum emul_result r, u64 mask)
{
	const u64 flags = ARITH_FLAGS | X86_EFLAGS_DF | X86_EFLAGS_NT | X86_EFLAGS_AC |
			  X86_EFLAGS_ID | X86_EFLAGS_IF | X86_EFLAGS_IOPL;
	int want = expected_signal(r);

	if (r == EMUL_FAULT && (store_not_made() || left_out_by_mask()))
		return NULL;
	if (r == EMUL_FAULT && mode == EMUL_MODE_LONG64)
		call_not_made();
	if (rep_string && (r == EMUL_FAULT || !(u32)start.regs[EMUL_RCX]))
		rep_not_made(r);
	if (host_sig != want && !(want == SIGSEGV && host_sig == SIGBUS))
		return "signal";
	if (memcmp(host.regs, emulated.regs, (mode == EMUL_MODE_LONG64 ? 16 : 8) * 8))
		return "registers";
	if (host.rip != emulated.rip)
		return "rip";
	if ((host.rflags ^ emulated.rflags) & flags & ~mask)
		return "flags";
	/* Pointers to instructions and operands: processors differ in when. */
	host.fx.op = emulated.fx.op;
	host.fx.ip = emulated.fx.ip;
	host.fx.dp = emulated.fx.dp;
	host.fx.mxcsr_mask = emulated.fx.mxcsr_mask;
	/* Some are in MMX's state before they find that there is a fault. */
	if (r != EMUL_OK && is_mmx(&e.insn))
		memcpy(&host.fx, &emulated.fx, offsetof(struct emul_fx, xmm));
	if (memcmp(&host.fx, &emulated.fx, offsetof(struct emul_fx, rest)) ||
	    memcmp(host.ymm, emulated.ymm, sizeof(host) - offsetof(struct state, ymm)))
		return "FPU and vector registers";
	if (memcmp(data, shadow, DATA_SIZE))
		return "memory";
	return NULL;
}

static u64 shift_operand(void)
{
	if (e.insn.src == K_CL || e.insn.src2 == K_CL)
		return start.regs[EMUL_RCX] & 0xff;
	return e.insn.src == K_ONE ? 1 : e.insn.imm & 0xff;
}

/* An instruction with both: no manual says which of the two counts. */
static bool has_f2_and_f3(void)
{
	static const u8 pfx[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65 };
	unsigned int k, seen = 0;

	for (k = 0; k < 15 && memchr(pfx, code[k], sizeof(pfx)); k++)
		seen |= code[k] == 0xf2 ? 1 : code[k] == 0xf3 ? 2 : 0;
	return seen == 3;
}

/* One case: 1 compared and equal, 0 not comparable, -1 different. */
static int one_case(void)
{
	const char *what;
	enum emul_result r;
	bool skip = false;
	u64 mask = 0;

	make_case();
	r = emulate();
	if (has_f2_and_f3())
		goto restore;
	if ((r != EMUL_OK && r != EMUL_FAULT) || unsure)
		goto restore;
	/* What is #UD here may be an instruction of another extension there. */
	if (r == EMUL_FAULT && e.fault.vector == EMUL_VEC_UD)
		goto restore;
	if (r == EMUL_OK) {
		mask = undefined_flags(&e, shift_operand(), &skip);
		if (skip)
			goto restore;
	}
	run_host();
	what = compare(r, mask);
	if (what)
		report(r, what, mask);
	memcpy(data, before, DATA_SIZE);
	memcpy(shadow, before, DATA_SIZE);
	return what ? -1 : 1;
restore:
	memcpy(shadow, before, DATA_SIZE);
	return 0;
}

/* Where NOP does not come to its end. */
static bool needs_canonical_rsp(void)
{
	memset(code, 0x90, 16);
	start.rip = CODE;
	start.rflags = X86_EFLAGS_FIXED | X86_EFLAGS_IF | X86_EFLAGS_TF;
	start.regs[EMUL_RSP] = 1ull << 63;
	make_fpu();
	run_host();
	return host_sig != SIGTRAP;
}

static void run_mode(enum emul_mode m, unsigned int sel, unsigned long cases)
{
	unsigned long k, compared = 0, bad = 0;
	int r;

	mode = m;
	case_sel = sel;
	if (sel && !have_code_seg(sel)) {
		tap_skip(m == EMUL_MODE_PROT32 ? "32-bit: this host has no such code segment" :
			 "16-bit: this host has no such code segment");
		return;
	}
	if (m == EMUL_MODE_PROT32)
		set_data_segs(FLAT_SEL);
	else if (m == EMUL_MODE_PROT16)
		set_data_segs(DATA16_SEL);
	for (k = 0; k < cases && bad < 20; k++) {
		r = one_case();
		compared += r != 0;
		bad += r < 0;
	}
	tap_result(!bad && compared > cases / 20, "%s: %lu cases, %lu compared, %lu differ",
		   mode_name[m], k, compared, bad);
}

/* As on a processor that has nothing but what all have. */
static void run_without(unsigned long cases)
{
	look_for_features("all");
	run_mode(EMUL_MODE_LONG64, 0, cases);
	tap_result(say_left_out() > 0, "something was left out");
}

int main(int argc, char **argv)
{
	unsigned long cases = 600000;
	unsigned int k;

	if (argc > 1)
		cases = strtoul(argv[1], NULL, 0);
	rng = argc > 2 ? strtoull(argv[2], NULL, 0) : 0x9e3779b97f4a7c15ull;
	setup();
	look_for_features(getenv("EMUL_DIFF_WITHOUT"));
	for (k = 0; k < DATA_SIZE; k++)
		before[k] = rnd() >> 24;
	/* What may be loaded as MXCSR, where an image of FXSAVE would have it. */
	for (k = 8; k < DATA_SIZE; k += below(2) ? 16 : 32)
		before[k + 2] = before[k + 3] = 0;
	memcpy(data, before, DATA_SIZE);
	memcpy(shadow, before, DATA_SIZE);

	tap_plan(5);
	canonical_rsp = needs_canonical_rsp();
	if (canonical_rsp)
		printf("# this CPU goes to no program whose RSP is not canonical: without\n");
	run_mode(EMUL_MODE_LONG64, 0, cases);
	run_mode(EMUL_MODE_PROT32, CODE32_SEL, cases / 2);
	if (set_ldt())
		run_mode(EMUL_MODE_PROT16, CODE16_SEL, cases / 2);
	else
		tap_skip("16-bit: no modify_ldt");
	say_left_out();
	set_data_segs(FLAT_SEL);
	run_without(cases / 6);
	return tap_exit();
}
