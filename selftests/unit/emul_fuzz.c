// SPDX-License-Identifier: GPL-2.0-only
/*
 * The emulator under hostile input: instruction bytes, register state and every
 * answer of the operations come from the fuzzer. The sanitizers watch memory
 * and arithmetic; the checks here watch the interface's promises:
 *
 *  - anything but EMUL_OK leaves registers as they were;
 *  - accesses are of the sizes promised, batches stay in a page;
 *  - the work done in one call is bounded;
 *  - memory is not read again once it has been written (MMIO replay needs it);
 *  - decoder and length decoder agree.
 *
 * Built with -DLIBFUZZER it is a libFuzzer program; otherwise it makes random
 * input for some seconds: emul_fuzz [seconds [seed]].
 */
#include <stdlib.h>
#include <time.h>

#include "../../kmod/emul/internal.h"
#include "tap.h"

struct input {
	const u8 *p;
	size_t left;
};

static struct input in;
static struct emul e;
static struct emul_fx fx, fx_before;
static bool fx_given;
static unsigned int ops_made;
static bool written;	/* a guest memory write was made in this instruction */

#define MUST(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort(); \
		} \
	} while (0)

static void take(void *buf, size_t n)
{
	size_t have = n < in.left ? n : in.left;

	memcpy(buf, in.p, have);
	memset((u8 *)buf + have, 0, n - have);
	in.p += have;
	in.left -= have;
}

static u8 take8(void)
{
	u8 b;

	take(&b, 1);
	return b;
}

static u64 take64(void)
{
	u64 v;

	take(&v, 8);
	return v;
}

/* Mostly success, so that instructions get somewhere. */
static enum emul_result answer(void)
{
	u8 b = take8();

	MUST(++ops_made < 4 * EMUL_MAX_REP + 64);
	if (b < 0xf0)
		return EMUL_OK;
	if (b < 0xf8) {
		e.fault.vector = b & 31;
		e.fault.has_error = b & 1;
		return EMUL_FAULT;
	}
	return b < 0xfa ? EMUL_RETRY : b < 0xfd ? EMUL_USER : EMUL_UNHANDLEABLE;
}

static void check_size(u64 addr, unsigned int n)
{
	MUST(n > 0 && n <= EMUL_MAX_BATCH);
	if (n > EMUL_MAX_ACCESS)
		MUST((addr & 4095) + n <= 4096);
	if (e.mode != EMUL_MODE_LONG64 && !e.lma)
		MUST(addr + n - 1 <= 0x1ffffffffull);
}

static enum emul_result f_read(struct emul *em, u64 addr, void *buf, unsigned int n,
			       unsigned int acc)
{
	check_size(addr, n);
	/* ENTER copies frame pointers, and a repeated instruction starts anew. */
	if (!(acc & EMUL_ACC_SYSTEM))
		MUST(!written || em->insn.exec == emul_op_enter ||
		     (em->insn.prefix & (EMUL_PFX_REP | EMUL_PFX_REPNE)));
	take(buf, n);
	return answer();
}

static enum emul_result f_write(struct emul *em, u64 addr, const void *buf, unsigned int n,
				unsigned int acc)
{
	u8 copy[EMUL_MAX_BATCH];

	check_size(addr, n);
	memcpy(copy, buf, n);	/* all of it must be there */
	asm volatile("" : : "r"(copy) : "memory");
	written = true;
	return answer();
}

static enum emul_result f_probe(struct emul *em, u64 addr, unsigned int n, unsigned int acc)
{
	check_size(addr, n);
	return answer();
}

static enum emul_result f_cmpxchg(struct emul *em, u64 addr, const void *old, const void *new,
				  unsigned int n, unsigned int acc)
{
	MUST(n == 1 || n == 2 || n == 4 || n == 8 || n == 16);
	if (!(acc & EMUL_ACC_SYSTEM))
		written = true;
	return answer();
}

static enum emul_result f_fetch(struct emul *em, u64 addr, void *buf, unsigned int *n)
{
	u8 less = take8();

	MUST(*n > 0 && *n <= 15 && (addr & 4095) + *n <= 4096);
	if (less < 64)
		*n = 1 + less % *n;
	take(buf, *n);
	return answer();
}

static enum emul_result f_pio_in(struct emul *em, u16 port, unsigned int size, void *data,
				 unsigned int *count)
{
	MUST((size == 1 || size == 2 || size == 4) && *count && *count * size <= EMUL_MAX_BATCH);
	take(data, size * *count);
	if (take8() & 1)
		*count = take8();	/* even more than allowed, or none */
	return answer();
}

static enum emul_result f_pio_out(struct emul *em, u16 port, unsigned int size,
				  const void *data)
{
	MUST(size == 1 || size == 2 || size == 4);
	return answer();
}

static void f_get_seg(struct emul *em, unsigned int seg, struct emul_seg *s)
{
	u8 b = take8();

	MUST(seg < EMUL_NR_SEGS);
	s->selector = b;
	s->base = b & 1 ? 0 : take64();
	s->limit = b & 2 ? 0xffffffff : take64();
	s->attr = b & 4 ? EMUL_ATTR_P | EMUL_ATTR_S | 3 | (b & 8 ? EMUL_ATTR_DB : 0) |
			  (seg == EMUL_SEG_CS ? 8 : 0) : take64() & 0x1f0ff;
}

static void f_set_seg(struct emul *em, unsigned int seg, const struct emul_seg *s)
{
	MUST(seg < EMUL_NR_SEGS && !(s->attr & ~0x1f0ffu));
}

static void f_get_dt(struct emul *em, enum emul_table t, struct emul_dt *dt)
{
	dt->base = take64();
	dt->limit = take64();
}

static void f_set_dt(struct emul *em, enum emul_table t, const struct emul_dt *dt)
{
}

static enum emul_result f_get(struct emul *em, u32 nr, u64 *val)
{
	*val = take64();
	return answer();
}

static enum emul_result f_set(struct emul *em, u32 nr, u64 val)
{
	return answer();
}

static enum emul_result f_cpuid(struct emul *em, u32 r[4])
{
	take(r, 16);
	return answer();
}

static enum emul_result f_rdtsc(struct emul *em, u64 *tsc, u32 *aux)
{
	*tsc = take64();
	if (aux)
		*aux = take64();
	return answer();
}

static enum emul_result f_invlpg(struct emul *em, u64 linear)
{
	return answer();
}

static enum emul_result f_invpcid(struct emul *em, unsigned int type, u16 pcid, u64 linear)
{
	MUST(type < 4 && pcid < 4096);
	return answer();
}

static enum emul_result f_sysop(struct emul *em, enum emul_sysop what)
{
	return answer();
}

static enum emul_result f_soft_int(struct emul *em, u8 vector, enum emul_swint kind)
{
	return answer();
}

static bool f_cpu_has(struct emul *em, enum emul_cpu what)
{
	return take8() & 1;
}

static enum emul_result f_read_vec(struct emul *em, unsigned int reg, void *buf, unsigned int n)
{
	MUST(reg < 32 && (n == 16 || n == 32 || n == 64));
	take(buf, n);
	return answer();
}

static enum emul_result f_write_vec(struct emul *em, unsigned int reg, const void *buf,
				    unsigned int n, bool zero_upper)
{
	u8 copy[64];

	MUST(reg < 32 && (n == 16 || n == 32 || n == 64));
	memcpy(copy, buf, n);
	asm volatile("" : : "r"(copy) : "memory");
	return answer();
}

static enum emul_result f_read_kmask(struct emul *em, unsigned int reg, u64 *mask)
{
	MUST(reg > 0 && reg < 8);
	*mask = take64();
	return answer();
}

/* Any state, also ones that no FXRSTOR takes */
static enum emul_result f_fxstate(struct emul *em, struct emul_fx **to)
{
	take(&fx, sizeof(fx));
	fx_before = fx;
	fx_given = true;
	*to = &fx;
	return answer();
}

static const struct emul_ops fuzz_ops = {
	.read = f_read, .write = f_write, .probe = f_probe, .replace = f_cmpxchg,
	.fetch = f_fetch, .pio_in = f_pio_in, .pio_out = f_pio_out,
	.get_seg = f_get_seg, .set_seg = f_set_seg, .get_dt = f_get_dt, .set_dt = f_set_dt,
	.get_cr = f_get, .set_cr = f_set, .get_dr = f_get, .set_dr = f_set,
	.get_msr = f_get, .set_msr = f_set, .rdmsr = f_get, .wrmsr = f_set, .get_xcr = f_get, .set_xcr = f_set,
	.cpuid = f_cpuid, .rdtsc = f_rdtsc, .rdpmc = f_get, .invlpg = f_invlpg,
	.invpcid = f_invpcid, .sysop = f_sysop, .soft_int = f_soft_int,
	.read_vec = f_read_vec, .write_vec = f_write_vec, .read_kmask = f_read_kmask, .fxstate = f_fxstate,
	.cpu_has = f_cpu_has,
};

static const struct emul_ops fuzz_ops_required = {
	.read = f_read, .write = f_write, .probe = f_probe, .replace = f_cmpxchg,
	.fetch = f_fetch, .pio_in = f_pio_in, .pio_out = f_pio_out,
	.get_seg = f_get_seg, .set_seg = f_set_seg, .get_dt = f_get_dt, .set_dt = f_set_dt,
	.get_cr = f_get, .set_cr = f_set, .get_dr = f_get, .set_dr = f_set,
	.get_msr = f_get, .set_msr = f_set, .rdmsr = f_get, .wrmsr = f_set, .cpuid = f_cpuid, .rdtsc = f_rdtsc,
	.rdpmc = f_get, .invlpg = f_invlpg, .invpcid = f_invpcid, .sysop = f_sysop, .cpu_has = f_cpu_has,
};

static unsigned long long executed;
static u64 gprs[EMUL_NR_REGS];

static enum emul_result decode_and_exec(void)
{
	enum emul_result r = emul_decode(&e);

	if (r == EMUL_OK) {
		MUST(e.insn.len > 0 && e.insn.len <= 15 && e.insn.len <= e.insn.have);
		MUST(emul_insn_length(e.insn.bytes, e.insn.have, e.mode) == e.insn.len);
		r = emul_exec(&e);
		executed++;
	} else if (r == EMUL_FAULT && e.fault.vector == EMUL_VEC_UD && !e.insn.prefix) {
		MUST(emul_insn_length(e.insn.bytes, e.insn.have, e.mode) <= 15);
	}
	return r;
}

static enum emul_result switch_task(void)
{
	struct emul_task task = { .selector = take8(), .why = take8() & 3, .rip = take64() };

	task.has_error = task.why == EMUL_SWITCH_GATE && take8() & 1;
	task.external = task.why == EMUL_SWITCH_GATE && take8() & 1;
	task.error = take64();
	executed++;
	return emul_task_switch(&e, &task);
}

/* An instruction, or what else the emulator is asked to do */
static void one_thing(void)
{
	u64 regs[EMUL_NR_REGS], rip, rflags;
	enum emul_result r;
	u8 cpl = e.cpl;

	memcpy(regs, gprs, sizeof(regs));
	rip = e.rip;
	rflags = e.rflags;
	ops_made = 0;
	written = fx_given = false;

	r = take8() < 8 ? switch_task() : decode_and_exec();
	if (r == EMUL_OK) {
		MUST(e.cpl <= 3);
		return;
	}
	MUST(r <= EMUL_UNHANDLEABLE);
	MUST(!memcmp(regs, gprs, sizeof(regs)));
	MUST(!fx_given || !memcmp(&fx, &fx_before, sizeof(fx)));
	MUST(e.rip == rip && e.rflags == rflags && e.cpl == cpl);
	if (r == EMUL_FAULT)
		MUST(e.fault.vector < 32);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	unsigned int k;
	u8 b;

	in.p = data;
	in.left = size;
	b = take8();
	e.regs = gprs;
	e.ops = b & 0x80 ? &fuzz_ops_required : &fuzz_ops;
	e.mode = (b & 7) % 5;
	e.cpl = e.mode == EMUL_MODE_REAL ? 0 : e.mode == EMUL_MODE_VM86 ? 3 : (b >> 3) & 3;
	e.lma = e.mode == EMUL_MODE_LONG64 || ((b & 0x20) && e.mode >= EMUL_MODE_PROT16);
	e.la57 = b & 0x40;
	e.cet = take8() & 15;
	b = take8();
	for (k = 0; k < EMUL_NR_REGS; k++)
		gprs[k] = b & (1u << (k & 7)) ? take64() : take8();
	e.rip = take8() < 128 ? take64() : 0x1000;
	e.rflags = (take64() & 0x3f7fd7) | X86_EFLAGS_FIXED;
	for (k = 0; k < 4 && in.left; k++)
		one_thing();
	return 0;
}

#ifndef LIBFUZZER

static u64 rng;

static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * 0x2545f4914f6cdd1dull;
}

int main(int argc, char **argv)
{
	unsigned int seconds = argc > 1 ? strtoul(argv[1], NULL, 0) : 2;
	unsigned long long runs = 0;
	time_t end = time(NULL) + seconds;
	unsigned int k, n;
	u64 buf[256];

	rng = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL) | 1;
	tap_plan(1);
	printf("# seed %llu\n", (unsigned long long)rng);
	fflush(stdout);
	do {
		for (k = 0; k < 4096; k++, runs++) {
			n = 64 + (rnd() >> 40) % (sizeof(buf) - 64);
			for (unsigned int j = 0; j < sizeof(buf) / 8; j++)
				buf[j] = rnd();
			LLVMFuzzerTestOneInput((u8 *)buf, n);
		}
	} while (time(NULL) < end);
	tap_result(executed > runs / 10, "emul: %llu random inputs, %llu instructions executed",
		   runs, executed);
	return tap_exit();
}

#endif
