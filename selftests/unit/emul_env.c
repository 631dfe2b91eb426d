// SPDX-License-Identifier: GPL-2.0-only
/* The test machine behind the emulator's operations; see emul_env.h. */
#include "emul_env.h"

#define ENV(em)	((struct env *)(em))	/* struct emul is its first member */

_Static_assert(offsetof(struct env, e) == 0, "ENV() relies on it");

static enum emul_result fault(struct emul *em, u8 vector, bool has_error, u32 error, u64 cr2)
{
	em->fault.vector = vector;
	em->fault.has_error = has_error;
	em->fault.error = error;
	em->fault.cr2 = cr2;
	return EMUL_FAULT;
}

static bool is_mmio(u64 addr, unsigned int n)
{
	return addr >= ENV_MMIO && addr + n <= ENV_MMIO + 4096;
}

static enum emul_result translate(struct emul *em, u64 addr, unsigned int n, unsigned int acc)
{
	u32 error = (acc & EMUL_ACC_WRITE ? 2 : 0) |
		    (em->cpl == 3 && !(acc & EMUL_ACC_SYSTEM) ? 4 : 0);
	u64 last = addr + n - 1;

	if (is_mmio(addr, n))
		return EMUL_OK;
	if (addr >= ENV_MEM)
		return fault(em, EMUL_VEC_PF, true, error, addr);
	if (last >= ENV_MEM)
		return fault(em, EMUL_VEC_PF, true, error, ENV_MEM);
	if ((acc & EMUL_ACC_WRITE) && last >= ENV_RDONLY)
		return fault(em, EMUL_VEC_PF, true, error | 1,
			     addr > ENV_RDONLY ? addr : ENV_RDONLY);
	return EMUL_OK;
}

/* Ask userspace, or take its answer. */
static enum emul_result from_user(struct env *v, void *buf, unsigned int n, bool pio, u64 addr)
{
	if (v->replay_at + n <= v->replay_have) {
		memcpy(buf, v->replay + v->replay_at, n);
		v->replay_at += n;
		return EMUL_OK;
	}
	if (!v->wrote) {
		v->pending = true;
		v->pending_pio = pio;
		v->pending_addr = addr;
		v->pending_bytes = n;
	}
	return EMUL_USER;
}

static enum emul_result v_read(struct emul *em, u64 addr, void *buf, unsigned int n,
			       unsigned int acc)
{
	struct env *v = ENV(em);
	enum emul_result r = translate(em, addr, n, acc);

	v->reads++;
	if (r)
		return r;
	if (is_mmio(addr, n))
		return n > EMUL_MAX_ACCESS ? EMUL_UNHANDLEABLE :
		       from_user(v, buf, n, false, addr);
	memcpy(buf, v->mem + addr, n);
	return EMUL_OK;
}

static enum emul_result v_write(struct emul *em, u64 addr, const void *buf, unsigned int n,
				unsigned int acc)
{
	struct env *v = ENV(em);
	enum emul_result r = translate(em, addr, n, acc | EMUL_ACC_WRITE);

	v->writes++;
	if (r)
		return r;
	if (is_mmio(addr, n)) {
		if (v->wrote)
			return EMUL_USER;
		v->wrote = true;
		memcpy(v->mmio + (addr - ENV_MMIO), buf, n);
		return EMUL_OK;
	}
	memcpy(v->mem + addr, buf, n);
	return EMUL_OK;
}

static enum emul_result v_probe(struct emul *em, u64 addr, unsigned int n, unsigned int acc)
{
	if (n > EMUL_MAX_ACCESS && is_mmio(addr, n))
		return EMUL_UNHANDLEABLE;
	return translate(em, addr, n, acc);
}

static enum emul_result v_cmpxchg(struct emul *em, u64 addr, const void *old, const void *new,
				  unsigned int n, unsigned int acc)
{
	struct env *v = ENV(em);
	enum emul_result r = translate(em, addr, n, acc | EMUL_ACC_WRITE);

	v->cmpxchgs++;
	if (r)
		return r;
	if (is_mmio(addr, n))
		return v_write(em, addr, new, n, acc);
	if (v->steal)
		v->mem[addr]++;
	if (memcmp(v->mem + addr, old, n))
		return EMUL_RETRY;
	memcpy(v->mem + addr, new, n);
	return EMUL_OK;
}

static enum emul_result v_fetch(struct emul *em, u64 addr, void *buf, unsigned int *n)
{
	struct env *v = ENV(em);

	v->fetches++;
	if (addr >= ENV_MEM || addr + *n > ENV_MEM)
		return fault(em, EMUL_VEC_PF, true, 0x10 | (em->cpl == 3 ? 4 : 0), addr);
	memcpy(buf, v->mem + addr, *n);
	return EMUL_OK;
}

static enum emul_result v_pio_in(struct emul *em, u16 port, unsigned int size, void *data,
				 unsigned int *count)
{
	struct env *v = ENV(em);
	enum emul_result r;

	if (*count > v->pio_max)
		*count = v->pio_max;
	if (*count * size > sizeof(v->replay))
		*count = sizeof(v->replay) / size;
	r = from_user(v, data, size * *count, true, port);
	if (!r)
		v->pio_reads += *count;
	return r;
}

static enum emul_result v_pio_out(struct emul *em, u16 port, unsigned int size,
				  const void *data)
{
	struct env *v = ENV(em);

	(void)port;
	if (v->pio_logged + size <= sizeof(v->pio_log)) {
		memcpy(v->pio_log + v->pio_logged, data, size);
		v->pio_logged += size;
	}
	return EMUL_OK;
}

static void v_get_seg(struct emul *em, unsigned int seg, struct emul_seg *s)
{
	ENV(em)->get_segs++;
	*s = ENV(em)->segs[seg];
}

static void v_set_seg(struct emul *em, unsigned int seg, const struct emul_seg *s)
{
	ENV(em)->segs[seg] = *s;
}

static void v_get_dt(struct emul *em, enum emul_table t, struct emul_dt *dt)
{
	*dt = ENV(em)->dt[t];
}

static void v_set_dt(struct emul *em, enum emul_table t, const struct emul_dt *dt)
{
	ENV(em)->dt[t] = *dt;
}

static enum emul_result v_get_cr(struct emul *em, unsigned int nr, u64 *val)
{
	*val = ENV(em)->cr[nr];
	return EMUL_OK;
}

static enum emul_result v_set_cr(struct emul *em, unsigned int nr, u64 val)
{
	if (nr == 4 && (val & (1ull << 63)))
		return fault(em, EMUL_VEC_GP, true, 0, 0);
	ENV(em)->cr[nr] = val;
	return EMUL_OK;
}

static enum emul_result v_get_dr(struct emul *em, unsigned int nr, u64 *val)
{
	*val = ENV(em)->dr[nr];
	return EMUL_OK;
}

static enum emul_result v_set_dr(struct emul *em, unsigned int nr, u64 val)
{
	ENV(em)->dr[nr] = val;
	return EMUL_OK;
}

static u64 *msr(struct env *v, u32 nr)
{
	switch (nr) {
	case MSR_EFER:
		return &v->efer;
	case MSR_STAR:
		return &v->star;
	case MSR_LSTAR:
		return &v->lstar;
	case MSR_CSTAR:
		return &v->cstar;
	case MSR_SYSCALL_MASK:
		return &v->mask;
	case MSR_KERNEL_GS_BASE:
		return &v->gsbase;
	case MSR_IA32_SYSENTER_CS:
	case MSR_IA32_SYSENTER_ESP:
	case MSR_IA32_SYSENTER_EIP:
		return &v->sysenter[nr - MSR_IA32_SYSENTER_CS];
	default:
		return NULL;
	}
}

static enum emul_result v_get_msr(struct emul *em, u32 nr, u64 *val)
{
	u64 *m = msr(ENV(em), nr);

	if (!m)
		return fault(em, EMUL_VEC_GP, true, 0, 0);
	*val = *m;
	return EMUL_OK;
}

static enum emul_result v_set_msr(struct emul *em, u32 nr, u64 val)
{
	u64 *m = msr(ENV(em), nr);

	if (!m)
		return fault(em, EMUL_VEC_GP, true, 0, 0);
	*m = val;
	return EMUL_OK;
}

static enum emul_result v_get_xcr(struct emul *em, u32 nr, u64 *val)
{
	if (nr)
		return fault(em, EMUL_VEC_GP, true, 0, 0);
	*val = ENV(em)->xcr0;
	return EMUL_OK;
}

static enum emul_result v_set_xcr(struct emul *em, u32 nr, u64 val)
{
	if (nr || !(val & 1))
		return fault(em, EMUL_VEC_GP, true, 0, 0);
	ENV(em)->xcr0 = val;
	return EMUL_OK;
}

static enum emul_result v_cpuid(struct emul *em, u32 r[4])
{
	u32 leaf = r[0], sub = r[2];

	(void)em;
	r[0] = leaf + 1;
	r[1] = 0xb0b;
	r[2] = sub + 2;
	r[3] = 0xd0d;
	return EMUL_OK;
}

static enum emul_result v_rdtsc(struct emul *em, u64 *tsc, u32 *aux)
{
	(void)em;
	*tsc = 0x123456789abcdefull;
	if (aux)
		*aux = 77;
	return EMUL_OK;
}

static enum emul_result v_rdpmc(struct emul *em, u32 counter, u64 *val)
{
	(void)em;
	*val = 0x100000000ull + counter;
	return EMUL_OK;
}

static bool v_is_open(struct emul *em, enum emul_open what, u32 number)
{
	return ENV(em)->has_open && (what == EMUL_OPEN_PORT ? number == 0x5658 : number == 0x10000);
}

static enum emul_result v_invlpg(struct emul *em, u64 linear)
{
	ENV(em)->last_invlpg = linear;
	return EMUL_OK;
}

static enum emul_result v_invpcid(struct emul *em, unsigned int type, u16 pcid, u64 linear)
{
	ENV(em)->last_invpcid = type << 16 | pcid;
	ENV(em)->last_invlpg = linear;
	return EMUL_OK;
}

static enum emul_result v_sysop(struct emul *em, enum emul_sysop what)
{
	ENV(em)->last_sysop = what;
	return EMUL_OK;
}

static enum emul_result v_soft_int(struct emul *em, u8 vector, enum emul_swint kind)
{
	ENV(em)->last_int = vector;
	ENV(em)->last_int_kind = kind;
	return EMUL_OK;
}

static bool v_cpu_has(struct emul *em, enum emul_cpu what)
{
	return what != EMUL_CPU_TZCNT || !ENV(em)->lacks_tzcnt;
}

static enum emul_result v_read_vec(struct emul *em, unsigned int reg, void *buf, unsigned int n)
{
	memcpy(buf, ENV(em)->vec[reg], n);
	return EMUL_OK;
}

static enum emul_result v_write_vec(struct emul *em, unsigned int reg, const void *buf,
				    unsigned int n, bool zero_upper)
{
	memcpy(ENV(em)->vec[reg], buf, n);
	if (zero_upper)
		memset(ENV(em)->vec[reg] + n, 0, 64 - n);
	return EMUL_OK;
}

static enum emul_result v_read_kmask(struct emul *em, unsigned int reg, u64 *mask)
{
	*mask = ENV(em)->kmask[reg];
	return EMUL_OK;
}

static enum emul_result v_fxstate(struct emul *em, struct emul_fx **fx)
{
	*fx = &ENV(em)->fx;
	return EMUL_OK;
}

static const struct emul_ops env_ops = {
	.read = v_read, .write = v_write, .probe = v_probe, .replace = v_cmpxchg,
	.fetch = v_fetch, .pio_in = v_pio_in, .pio_out = v_pio_out,
	.get_seg = v_get_seg, .set_seg = v_set_seg, .get_dt = v_get_dt, .set_dt = v_set_dt,
	.get_cr = v_get_cr, .set_cr = v_set_cr, .get_dr = v_get_dr, .set_dr = v_set_dr,
	.get_msr = v_get_msr, .set_msr = v_set_msr, .rdmsr = v_get_msr, .wrmsr = v_set_msr, .get_xcr = v_get_xcr,
	.set_xcr = v_set_xcr, .cpuid = v_cpuid, .rdtsc = v_rdtsc, .rdpmc = v_rdpmc,
	.invlpg = v_invlpg, .invpcid = v_invpcid, .sysop = v_sysop, .soft_int = v_soft_int,
	.cpu_has = v_cpu_has, .read_vec = v_read_vec, .write_vec = v_write_vec,
	.read_kmask = v_read_kmask, .fxstate = v_fxstate, .is_open = v_is_open,
};

void env_init(struct env *v)
{
	unsigned int k;

	memset(v, 0, sizeof(*v));
	v->e.ops = &env_ops;
	v->e.mode = EMUL_MODE_REAL;
	v->e.rip = 0x1000;
	v->e.rflags = X86_EFLAGS_FIXED;
	v->e.regs = v->regs;
	v->regs[EMUL_RSP] = 0x8000;
	for (k = 0; k < EMUL_NR_SEGS; k++) {
		v->segs[k].limit = 0xffff;
		v->segs[k].attr = EMUL_ATTR_P | EMUL_ATTR_S | 3;
	}
	v->segs[EMUL_SEG_TR].attr = EMUL_ATTR_P | 0xb;
	v->segs[EMUL_SEG_LDTR].attr = EMUL_ATTR_UNUSABLE;
	v->dt[EMUL_DT_IDT].limit = 0x3ff;
	v->xcr0 = 0xe7;
	v->fx.cw = 0x37f;
	v->fx.sw = 0x3800;
	v->fx.mxcsr = 0x1f80;
	v->cr[0] = 0x10;
	v->pio_max = ~0u;
	v->last_sysop = v->last_int = -1;
	for (k = 0; k < sizeof(v->mmio); k++)
		v->mmio[k] = k * 7 + 1;
}

void env_gdt(struct env *v, unsigned int index, u32 base, u32 limit, u32 attr)
{
	u64 d;

	if (attr & EMUL_ATTR_G)
		limit >>= 12;
	d = (u64)(base & 0xff000000) << 32 | (u64)(attr & 0xf0ff) << 40 |
	    (u64)(limit & 0xf0000) << 32 | (u64)(base & 0xffffff) << 16 | (limit & 0xffff);
	memcpy(v->mem + 0x3000 + index * 8, &d, 8);
}

void env_mode(struct env *v, enum emul_mode mode, u8 cpl)
{
	u32 dpl = (u32)cpl << EMUL_ATTR_DPL_SHIFT;
	unsigned int k;

	env_init(v);
	v->e.mode = mode;
	v->e.cpl = cpl;
	v->e.lma = mode == EMUL_MODE_LONG64;
	v->cr[0] |= X86_CR0_PE;
	v->cr[4] = X86_CR4_OSFXSR | X86_CR4_OSXSAVE;
	v->efer = EFER_SCE;
	for (k = 0; k <= EMUL_SEG_GS; k++) {
		v->segs[k].limit = 0xffffffff;
		v->segs[k].attr = EMUL_ATTR_P | EMUL_ATTR_S | EMUL_ATTR_G | dpl | 3;
		if (mode != EMUL_MODE_PROT16)
			v->segs[k].attr |= EMUL_ATTR_DB;
		v->segs[k].selector = 0x10 | cpl;
	}
	v->segs[EMUL_SEG_CS].attr |= 8;
	v->segs[EMUL_SEG_CS].selector = 8 | cpl;
	if (mode == EMUL_MODE_LONG64)
		v->segs[EMUL_SEG_CS].attr ^= EMUL_ATTR_DB | EMUL_ATTR_L;
	v->dt[EMUL_DT_GDT].base = 0x3000;
	v->dt[EMUL_DT_GDT].limit = 0xff;
}

void env_code(struct env *v, const void *bytes, unsigned int n)
{
	u64 at = v->e.rip;

	if (v->e.mode != EMUL_MODE_LONG64)
		at += v->segs[EMUL_SEG_CS].base;
	memcpy(v->mem + at, bytes, n);
}

enum emul_result env_step(struct env *v)
{
	enum emul_result r;
	u64 val = 0;

	v->replay_at = 0;
	v->pending = false;
	v->wrote = false;
	/* As keel does: the second half of a load begins with what it waited for. */
	if (v->replay_have && v->replay_have == emul_plain_load(&v->e)) {
		memcpy(&val, v->replay, v->replay_have);
		r = emul_exec_loaded(&v->e, val);
	} else {
		r = emul_decode(&v->e);
		if (!r)
			r = emul_exec(&v->e);
	}
	if (r != EMUL_USER)
		v->replay_have = 0;
	return r;
}

/* Answer the recorded request: device memory's bytes, or a counting port. */
static void serve(struct env *v)
{
	static u8 port_data;
	unsigned int k;

	v->exits++;
	for (k = 0; k < v->pending_bytes; k++) {
		if (v->pending_pio)
			v->replay[v->replay_have] = port_data++;
		else
			v->replay[v->replay_have] = v->mmio[v->pending_addr - ENV_MMIO + k];
		v->replay_have++;
	}
}

enum emul_result env_run(struct env *v)
{
	u64 rip = v->e.rip;
	enum emul_result r;
	unsigned int k;

	for (k = 0; k < 100000; k++) {
		r = env_step(v);
		if (r == EMUL_USER) {
			if (!v->pending)
				return r;
			serve(v);
			continue;
		}
		if (r == EMUL_OK && v->wrote)
			v->exits++;
		if (r != EMUL_OK || v->e.rip != rip)
			return r;
	}
	return EMUL_UNHANDLEABLE;
}
