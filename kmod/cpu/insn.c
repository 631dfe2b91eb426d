// SPDX-License-Identifier: GPL-2.0-only
/*
 * insn.c - between an exit and what it asks for: ports, memory-mapped I/O, MSRs; the emulator's view of a vCPU.
 *
 * MMIO or port reads that only userspace can answer end the emulation with nothing changed.  The answer is
 * kept, and the instruction runs again from its start: every device read it makes finds its answer in the
 * replay list, in order.  (A plain load has nothing else to do, and ends with it.)  Writes for userspace are recorded
 * and go out when the instruction is done.
 *
 * Lock: vcpu->mutex; between keel_vcpu_begin() and keel_vcpu_end().
 */
#include <linux/slab.h>

#include <asm/trapnr.h>
#include "insn.h"
#include "mitigate.h"
#include "ops.h"
#include "trace.h"

static struct keel_insn *to_insn(struct emul *e)
{
	return container_of(e, struct keel_insn, e);
}

static int emulate(struct keel_vcpu *vcpu, bool decoded);

/* ------------------------------------------------------------ guest memory */

static u32 mmu_access(struct emul *e, unsigned int access)
{
	u32 acc = 0;

	if (access & EMUL_ACC_WRITE)
		acc |= MMU_ACC_WRITE;
	if (access & EMUL_ACC_SYSTEM)
		acc |= MMU_ACC_SYSTEM;
	else if (e->cpl == 3)
		acc |= MMU_ACC_USER;
	return acc;
}

static enum emul_result need_slow(struct keel_insn *in)
{
	in->need_slow = true;
	return EMUL_UNHANDLEABLE;
}

static enum emul_result translate(struct emul *e, u64 linear, unsigned int access, u64 *gpa)
{
	struct keel_insn *in = to_insn(e);
	int r = mmu_gva_to_gpa(in->vcpu, linear, mmu_access(e, access), gpa, &e->fault);

	if (r == 1)
		return EMUL_FAULT;
	return r == -EAGAIN ? need_slow(in) : EMUL_OK;
}

static struct insn_io *insn_write(struct keel_insn *in, unsigned int nr)
{
	return &in->io[INSN_IO_MAX - 1 - nr];
}

/* Most devices are elsewhere, which is seen without a call. */
static __always_inline bool lapic_mmio(struct keel_vcpu *vcpu, u64 gpa, unsigned int len, void *data, bool write)
{
	return vcpu->apic && !((gpa ^ vcpu->apic_base) >> PAGE_SHIFT) && irq_lapic_mmio(vcpu, gpa, len, data, write);
}

/* As here: most VMs have none. */
static __always_inline bool fast_mmio(struct keel_vcpu *vcpu, u64 gpa)
{
	return vcpu->vm->buses.bus[BUS_FAST_MMIO].count && irq_fast_mmio(vcpu, gpa);
}

/* A device read of up to 8 bytes: replayed, answered in the kernel, or asked of userspace. */
static enum emul_result device_read(struct keel_insn *in, u64 gpa, void *buf, unsigned int len)
{
	struct keel_vcpu *vcpu = in->vcpu;
	struct insn_io *io = &in->io[in->cursor];

	if (in->cursor < in->nr_replay) {
		if (io->addr == gpa && io->len == len) {
			memcpy(buf, io->data, len);
			in->cursor++;
			return EMUL_OK;
		}
		in->nr_replay = in->cursor;	/* the instruction, or its registers, were changed meanwhile */
	}
	if (in->nr_replay == INSN_IO_MAX)
		return EMUL_UNHANDLEABLE;
	/* Those go out first, and this comes again; where one instruction writes before it reads (ENTER) it cannot. */
	if (in->nr_writes)
		return emul_repeats(&in->e) ? EMUL_USER : EMUL_UNHANDLEABLE;
	io->addr = gpa;
	io->len = len;
	memset(io->data, 0, sizeof(io->data));
	vcpu->stat.mmio++;
	if (lapic_mmio(vcpu, gpa, len, io->data, false) ||
	    !irq_bus_read(vcpu, BUS_MMIO, gpa, len, io->data)) {
		trace_keel_mmio(vcpu, gpa, len, false, io->data);
		memcpy(buf, io->data, len);
		in->nr_replay++;
		in->cursor++;
		return EMUL_OK;
	}
	in->want_read = true;
	return EMUL_USER;
}

static enum emul_result device_write(struct keel_insn *in, u64 gpa, const void *buf, unsigned int len)
{
	struct keel_vcpu *vcpu = in->vcpu;
	struct insn_io *io;

	if (in->nr_replay + in->nr_writes == INSN_IO_MAX)
		return EMUL_UNHANDLEABLE;
	io = insn_write(in, in->nr_writes);
	vcpu->stat.mmio++;
	memset(io->data, 0, sizeof(io->data));
	memcpy(io->data, buf, len);
	trace_keel_mmio(vcpu, gpa, len, true, io->data);
	if (lapic_mmio(vcpu, gpa, len, io->data, true) ||
	    !irq_bus_write(vcpu, BUS_MMIO, gpa, len, io->data))
		return EMUL_OK;
	io->addr = gpa;
	io->len = len;
	in->nr_writes++;
	return EMUL_OK;
}

static enum emul_result device_access(struct keel_insn *in, u64 gpa, void *buf, unsigned int bytes, bool write)
{
	enum emul_result r = EMUL_OK;

	while (bytes && r == EMUL_OK) {
		unsigned int n = min(bytes, 8U);

		r = write ? device_write(in, gpa, buf, n) : device_read(in, gpa, buf, n);
		gpa += n;
		buf += n;
		bytes -= n;
	}
	return r;
}

/*
 * Is this the access the exit was for?  Then the CPU has found that there is no memory, and where: not again.  Another
 * thread may have put a store in the place of a load, and the guest may not write wherever it may read.
 */
static bool access_of_exit(struct keel_insn *in, u64 linear, unsigned int bytes, bool write)
{
	return in->gpa != NO_GPA && in->gpa_write == write && emul_one_access(&in->e) &&
	       offset_in_page(linear) == offset_in_page(in->gpa) && offset_in_page(linear) + bytes <= PAGE_SIZE;
}

static enum emul_result op_read(struct emul *e, u64 linear, void *buf, unsigned int bytes, unsigned int access)
{
	struct keel_insn *in = to_insn(e);

	if (access_of_exit(in, linear, bytes, false))
		return device_access(in, in->gpa, buf, bytes, false);
	while (bytes) {
		unsigned int n = min_t(unsigned int, bytes, PAGE_SIZE - offset_in_page(linear));
		enum emul_result r;
		u64 gpa;
		int err;

		r = translate(e, linear, access, &gpa);
		if (r != EMUL_OK)
			return r;
		err = keel_vcpu_read(in->vcpu, gpa, buf, n);
		if (err == -EAGAIN)
			return need_slow(in);
		if (err) {
			r = device_access(in, gpa, buf, n, false);
			if (r != EMUL_OK)
				return r;
		}
		linear += n;
		buf += n;
		bytes -= n;
	}
	return EMUL_OK;
}

static enum emul_result op_write(struct emul *e, u64 linear, const void *buf, unsigned int bytes,
				 unsigned int access)
{
	struct keel_insn *in = to_insn(e);
	u64 gpa[2];
	unsigned int first = min_t(unsigned int, bytes, PAGE_SIZE - offset_in_page(linear));
	unsigned int i, len[2] = { first, bytes - first };

	if (access_of_exit(in, linear, bytes, true))
		return device_access(in, in->gpa, (void *)buf, bytes, true);
	/* One iteration of a string instruction at a time goes to userspace. */
	if (in->nr_writes && emul_repeats(e))
		return EMUL_USER;
	for (i = 0; i < 2 && len[i]; i++) {
		enum emul_result r = translate(e, linear + i * first, access | EMUL_ACC_WRITE, &gpa[i]);

		if (r != EMUL_OK)
			return r;
	}
	for (i = 0; i < 2 && len[i]; i++) {
		int err = keel_vcpu_write(in->vcpu, gpa[i], buf, len[i]);

		if (err == -EAGAIN)
			return need_slow(in);
		if (err) {
			enum emul_result r;

			if (len[i] > EMUL_MAX_ACCESS)
				return EMUL_UNHANDLEABLE;
			r = device_access(in, gpa[i], (void *)buf, len[i], true);
			if (r != EMUL_OK)
				return r;
		}
		buf += len[i];
	}
	return EMUL_OK;
}

static enum emul_result op_probe(struct emul *e, u64 linear, unsigned int bytes, unsigned int access)
{
	struct keel_insn *in = to_insn(e);
	u64 last = linear + bytes - 1, gpa;

	/* The last page may be the last of all. */
	for (;; linear = (linear | ~PAGE_MASK) + 1) {
		enum emul_result r = translate(e, linear, access, &gpa);

		if (r != EMUL_OK)
			return r;
		if (bytes > EMUL_MAX_ACCESS) {
			struct keel_slot *slot = keel_vcpu_slot(in->vcpu, gpa >> PAGE_SHIFT);

			if (!slot || (slot->flags & KVM_MEM_READONLY))
				return EMUL_UNHANDLEABLE;
		}
		if (!((linear ^ last) & PAGE_MASK))
			return EMUL_OK;
	}
}

static enum emul_result op_replace(struct emul *e, u64 linear, const void *old, const void *new,
				   unsigned int bytes, unsigned int access)
{
	struct keel_insn *in = to_insn(e);
	u8 expect[16];
	u64 gpa;
	enum emul_result r = translate(e, linear, access | EMUL_ACC_WRITE, &gpa);
	int err;

	if (r != EMUL_OK)
		return r;
	/* A split lock, or 16 bytes: not atomic here, nor on a bus that guests can rely on. */
	if (bytes > 8 || offset_in_page(linear) + bytes > PAGE_SIZE)
		return op_write(e, linear, new, bytes, access);
	memcpy(expect, old, bytes);
	err = keel_vcpu_cmpxchg(in->vcpu, gpa, expect, new, bytes);
	if (err == 1)
		return EMUL_RETRY;
	if (err == -EAGAIN)
		return need_slow(in);
	return err ? device_access(in, gpa, (void *)new, bytes, true) : EMUL_OK;
}

static enum emul_result op_fetch(struct emul *e, u64 linear, void *buf, unsigned int *bytes)
{
	struct keel_insn *in = to_insn(e);
	/* Most instructions fit in the first read; who needs more asks again. */
	unsigned int n = min_t(unsigned int, min(*bytes, 8U), PAGE_SIZE - offset_in_page(linear));
	u64 gpa;
	int err;

	err = mmu_gva_to_gpa(in->vcpu, linear, mmu_access(e, 0) | MMU_ACC_FETCH, &gpa, &e->fault);
	if (err == 1)
		return EMUL_FAULT;
	if (!err)
		err = keel_vcpu_read(in->vcpu, gpa, buf, n);
	if (err == -EAGAIN)
		return need_slow(in);
	if (err)
		return EMUL_UNHANDLEABLE;	/* code in MMIO */
	*bytes = n;
	return EMUL_OK;
}

/* ------------------------------------------------------------------- ports */

static bool kernel_pio(struct keel_vcpu *vcpu, u16 port, unsigned int size, void *data, bool in)
{
	return in ? !irq_bus_read(vcpu, BUS_PIO, port, size, data) :
		    !irq_bus_write(vcpu, BUS_PIO, port, size, data);
}

static void user_pio(struct keel_vcpu *vcpu, u16 port, unsigned int size, unsigned int count, bool in)
{
	struct kvm_run *run = vcpu->run;

	vcpu->stat.pio_user++;
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
	run->io.size = size;
	run->io.port = port;
	run->io.count = count;
	run->io.data_offset = KVM_PIO_PAGE_OFFSET * PAGE_SIZE;
}

static enum emul_result op_pio_in(struct emul *e, u16 port, unsigned int size, void *data, unsigned int *count)
{
	struct keel_insn *in = to_insn(e);

	if (in->pio_state == PIO_IN_READY) {
		*count = min(*count, in->pio_count);
		memcpy(data, in->vcpu->pio_data, *count * size);
		in->pio_state = PIO_NONE;
		return EMUL_OK;
	}
	if (in->pio_state != PIO_NONE || in->nr_writes)
		return EMUL_USER;
	in->vcpu->stat.pio++;
	if (kernel_pio(in->vcpu, port, size, data, true)) {
		*count = 1;
		trace_keel_pio(in->vcpu, port, size, 1, false);
		return EMUL_OK;
	}
	in->pio_state = PIO_IN_WANTED;
	in->port = port;
	in->pio_size = size;
	in->pio_count = min_t(unsigned int, *count, PAGE_SIZE / size);
	return EMUL_USER;
}

static enum emul_result op_pio_out(struct emul *e, u16 port, unsigned int size, const void *data)
{
	struct keel_insn *in = to_insn(e);

	if (in->pio_state != PIO_NONE)
		return EMUL_USER;
	in->vcpu->stat.pio++;
	if (kernel_pio(in->vcpu, port, size, (void *)data, false)) {
		trace_keel_pio(in->vcpu, port, size, 1, true);
		return EMUL_OK;
	}
	in->pio_state = PIO_OUT_WANTED;
	in->port = port;
	in->pio_size = size;
	memcpy(in->vcpu->pio_data, data, size);
	return EMUL_OK;
}

/* --------------------------------------------------------------- registers */

static void op_get_seg(struct emul *e, unsigned int seg, struct emul_seg *s)
{
	struct kvm_segment k;

	keel_call(get_segment, to_insn(e)->vcpu, &k, seg);
	s->base = k.base;
	s->limit = k.limit;
	s->selector = k.selector;
	s->attr = k.type | k.s << 4 | k.dpl << 5 | k.present << 7 | k.avl << 12 | k.l << 13 | k.db << 14 |
		  k.g << 15 | (k.unusable ? EMUL_ATTR_UNUSABLE : 0);
}

static void op_set_seg(struct emul *e, unsigned int seg, const struct emul_seg *s)
{
	struct kvm_segment k = {
		.base = s->base, .limit = s->limit, .selector = s->selector,
		.type = s->attr & EMUL_ATTR_TYPE, .s = !!(s->attr & EMUL_ATTR_S),
		.dpl = (s->attr & EMUL_ATTR_DPL) >> EMUL_ATTR_DPL_SHIFT,
		.present = !!(s->attr & EMUL_ATTR_P), .avl = !!(s->attr & EMUL_ATTR_AVL),
		.l = !!(s->attr & EMUL_ATTR_L), .db = !!(s->attr & EMUL_ATTR_DB),
		.g = !!(s->attr & EMUL_ATTR_G), .unusable = !!(s->attr & EMUL_ATTR_UNUSABLE),
	};

	keel_call(set_segment, to_insn(e)->vcpu, &k, seg);
}

static void op_get_dt(struct emul *e, enum emul_table t, struct emul_dt *dt)
{
	struct kvm_dtable k;

	keel_call(get_dt, to_insn(e)->vcpu, &k, t == EMUL_DT_IDT);
	dt->base = k.base;
	dt->limit = k.limit;
}

static void op_set_dt(struct emul *e, enum emul_table t, const struct emul_dt *dt)
{
	struct kvm_dtable k = { .base = dt->base, .limit = dt->limit };

	keel_call(set_dt, to_insn(e)->vcpu, &k, t == EMUL_DT_IDT);
}

static enum emul_result gp_fault(struct emul *e)
{
	e->fault = (struct emul_fault){ .vector = X86_TRAP_GP, .has_error = true };
	return EMUL_FAULT;
}

static enum emul_result ud_fault(struct emul *e)
{
	e->fault = (struct emul_fault){ .vector = X86_TRAP_UD };
	return EMUL_FAULT;
}

static int complete_msr(struct keel_vcpu *vcpu)
{
	struct keel_insn *in = vcpu->insn;
	const struct kvm_run *run = vcpu->run;

	if (!in->want_msr)
		return KEEL_RESUME;
	in->want_msr = false;
	if (READ_ONCE(run->msr.error)) {
		keel_raise_error(vcpu, X86_TRAP_GP, 0);
		return KEEL_RESUME;
	}
	if (in->msr_read)
		keel_write_edx_eax(vcpu, READ_ONCE(run->msr.data));
	keel_advance(vcpu, in->e.next_rip);
	return KEEL_RESUME;
}

/* An access that fails because of @why: does userspace want to know?  Then kvm_run says it. */
static bool msr_to_user(struct keel_vcpu *vcpu, u32 why, u32 exit, u32 msr, u64 val)
{
	struct keel_insn *in = vcpu->insn;
	struct kvm_run *run = vcpu->run;

	if (!(READ_ONCE(vcpu->vm->msr_exits) & why))
		return false;
	in->want_msr = true;
	in->msr_read = exit == KVM_EXIT_X86_RDMSR;
	memset(&run->msr, 0, sizeof(run->msr));
	run->exit_reason = exit;
	run->msr.reason = why;
	run->msr.index = msr;
	run->msr.data = val;
	vcpu->complete = complete_msr;
	return true;
}

static u64 get_cr2(struct keel_vcpu *vcpu)
{
	return vcpu->cr2;
}

static u64 get_cr8(struct keel_vcpu *vcpu)
{
	return vcpu->cr8;
}

static int set_cr2(struct keel_vcpu *vcpu, u64 val)
{
	vcpu->cr2 = val;
	return 0;
}

static const struct {
	u64 (*get)(struct keel_vcpu *vcpu);
	int (*set)(struct keel_vcpu *vcpu, u64 val);
} insn_crs[] = {
	[0] = { keel_cr0, keel_set_cr0 },
	[2] = { get_cr2, set_cr2 },
	[3] = { keel_cr3, keel_set_cr3 },
	[4] = { keel_cr4, keel_set_cr4 },
	[8] = { get_cr8, keel_set_cr8 },
};

static enum emul_result op_get_cr(struct emul *e, unsigned int nr, u64 *val)
{
	if (nr >= ARRAY_SIZE(insn_crs) || !insn_crs[nr].get)
		return ud_fault(e);
	*val = insn_crs[nr].get(to_insn(e)->vcpu);
	return EMUL_OK;
}

static enum emul_result op_set_cr(struct emul *e, unsigned int nr, u64 val)
{
	struct keel_insn *in = to_insn(e);

	if (nr >= ARRAY_SIZE(insn_crs) || !insn_crs[nr].set)
		return ud_fault(e);
	/* CR3 and CR0 may read the guest's page directory pointers, which may have to be fetched. */
	if (in->vcpu->atomic && nr != 8 && !(nr == 3 && e->lma))
		return need_slow(in);
	return insn_crs[nr].set(in->vcpu, val) ? gp_fault(e) : EMUL_OK;
}

/* General detect: MOV DR faults while DR7.GD is set, but for a register that is not there. */
static enum emul_result op_get_dr(struct emul *e, unsigned int nr, u64 *val)
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;

	if (keel_get_dr(vcpu, nr, val))
		return ud_fault(e);
	if (!(vcpu->debug.dr7 & DR7_GD))
		return EMUL_OK;
	keel_raise_db(vcpu, BIT(13));
	return EMUL_RETRY;
}

static enum emul_result op_set_dr(struct emul *e, unsigned int nr, u64 val)
{
	u64 was;
	enum emul_result r = op_get_dr(e, nr, &was);

	return r == EMUL_OK && keel_set_dr(to_insn(e)->vcpu, nr, val) ? gp_fault(e) : r;
}

static enum emul_result op_get_msr(struct emul *e, u32 msr, u64 *val)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);
	return keel_get_msr(in->vcpu, msr, val, false) ? gp_fault(e) : EMUL_OK;
}

static enum emul_result op_set_msr(struct emul *e, u32 msr, u64 val)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);
	return keel_set_msr(in->vcpu, msr, val, false) ? gp_fault(e) : EMUL_OK;
}

static enum emul_result msr_result(struct emul *e, u32 why, u32 exit, u32 msr, u64 val)
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;

	if (!why)
		return EMUL_OK;
	return msr_to_user(vcpu, why, exit, msr, val) ? EMUL_USER : gp_fault(e);
}

static enum emul_result op_rdmsr(struct emul *e, u32 msr, u64 *val)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);
	return msr_result(e, keel_guest_rdmsr(in->vcpu, msr, val), KVM_EXIT_X86_RDMSR, msr, 0);
}

static enum emul_result op_wrmsr(struct emul *e, u32 msr, u64 val)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);
	return msr_result(e, keel_guest_wrmsr(in->vcpu, msr, val), KVM_EXIT_X86_WRMSR, msr, val);
}

static enum emul_result op_get_xcr(struct emul *e, u32 nr, u64 *val)
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;

	if (nr)
		return gp_fault(e);
	*val = vcpu->fpu.xcr0;
	return EMUL_OK;
}

static enum emul_result op_set_xcr(struct emul *e, u32 nr, u64 val)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);	/* it is in the CPU now */
	return nr || keel_set_xcr0(in->vcpu, val) ? gp_fault(e) : EMUL_OK;
}

static enum emul_result op_cpuid(struct emul *e, u32 r[4])
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;

	if (keel_cpuid_faults(vcpu))
		return gp_fault(e);
	keel_cpuid(vcpu, r);
	return EMUL_OK;
}

static enum emul_result op_rdtsc(struct emul *e, u64 *tsc, u32 *aux)
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;

	*tsc = keel_guest_tsc(vcpu);
	if (aux)
		*aux = vcpu->msrs.tsc_aux;
	return EMUL_OK;
}

static enum emul_result op_rdpmc(struct emul *e, u32 counter, u64 *val)
{
	int r = keel_rdpmc(to_insn(e)->vcpu, counter, val);

	return !r ? EMUL_OK : r < 0 ? need_slow(to_insn(e)) : gp_fault(e);
}

static bool op_is_open(struct emul *e, enum emul_open what, u32 number)
{
	return keel_backdoor_opens(what, number);
}

static enum emul_result op_invlpg(struct emul *e, u64 linear)
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;

	if (vcpu->mmu.shadow)
		mmu_shadow_invlpg(vcpu, linear);
	else
		keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
	return EMUL_OK;
}

static enum emul_result op_invpcid(struct emul *e, unsigned int type, u16 pcid, u64 linear)
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;
	u16 current_pcid = keel_cr4(vcpu) & X86_CR4_PCIDE ? keel_cr3(vcpu) & 0xfff : 0;

	if (!keel_guest_has(vcpu, X86_FEATURE_INVPCID))
		return ud_fault(e);
	/* Of another context shadow paging remembers nothing. */
	if (type || !vcpu->mmu.shadow)
		keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
	else if (pcid == current_pcid)
		mmu_shadow_invlpg(vcpu, linear);
	return EMUL_OK;
}

static enum emul_result op_sysop(struct emul *e, enum emul_sysop what)
{
	struct keel_insn *in = to_insn(e);

	switch (what) {
	case EMUL_SYS_HLT:
		in->halted = true;
		return EMUL_OK;
	case EMUL_SYS_RSM:
		if (!in->vcpu->smm)
			return ud_fault(e);
		if (in->vcpu->atomic)
			return need_slow(in);
		keel_smm_rsm(in->vcpu);
		return EMUL_RETRY;	/* where it was interrupted, not behind RSM */
	case EMUL_SYS_MONITOR: case EMUL_SYS_MWAIT:
		if (keel_mwait_is_ud(in->vcpu))
			return ud_fault(e);
		fallthrough;
	case EMUL_SYS_WBINVD: case EMUL_SYS_INVD: case EMUL_SYS_PAUSE:
		return EMUL_OK;		/* memory is coherent for guests, and a wait may end at once */
	default:
		return EMUL_UNHANDLEABLE;
	}
}

static enum emul_result op_soft_int(struct emul *e, u8 vector, enum emul_swint kind)
{
	struct keel_vcpu *vcpu = to_insn(e)->vcpu;

	/* INT1 asks no gate's privilege: that is an exception of the hardware's. */
	if (kind == EMUL_SWINT_ICEBP) {
		keel_raise_db(vcpu, 0);
		return EMUL_OK;
	}
	vcpu->ev.injected = (struct keel_event){
		.type = kind == EMUL_SWINT_INT ? KEEL_EV_SOFT_INTR : KEEL_EV_SOFT_EXC,
		.vector = vector,
		.insn_len = e->next_rip - e->rip,
	};
	keel_call(set_shadow, vcpu, 0);
	keel_set_rflags(vcpu, keel_rflags(vcpu) & ~(u64)X86_EFLAGS_RF);
	keel_request(KEEL_REQ_EVENT, vcpu);
	return EMUL_RETRY;	/* it is over once it is delivered */
}

static bool op_cpu_has(struct emul *e, enum emul_cpu what)
{
	return what == EMUL_CPU_TZCNT ? boot_cpu_has(X86_FEATURE_BMI1) : boot_cpu_has(X86_FEATURE_ABM);
}

static enum emul_result op_read_vec(struct emul *e, unsigned int reg, void *buf, unsigned int bytes)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);	/* the registers are in the CPU now */
	keel_fpu_read_vec(in->vcpu, reg, buf, bytes);
	return EMUL_OK;
}

static enum emul_result op_write_vec(struct emul *e, unsigned int reg, const void *buf, unsigned int bytes,
				     bool zero_upper)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);
	keel_fpu_write_vec(in->vcpu, reg, buf, bytes, zero_upper);
	return EMUL_OK;
}

static enum emul_result op_read_kmask(struct emul *e, unsigned int reg, u64 *mask)
{
	struct keel_insn *in = to_insn(e);

	if (in->vcpu->atomic)
		return need_slow(in);
	*mask = keel_fpu_read_kmask(in->vcpu, reg);
	return EMUL_OK;
}

static enum emul_result op_fxstate(struct emul *e, struct emul_fx **fx)
{
	struct keel_insn *in = to_insn(e);

	BUILD_BUG_ON(sizeof(struct emul_fx) != sizeof(struct fxregs_state));
	if (in->vcpu->atomic)
		return need_slow(in);
	*fx = keel_fpu_legacy(in->vcpu);
	return EMUL_OK;
}

static const struct emul_ops insn_ops = {
	.read = op_read, .write = op_write, .probe = op_probe, .replace = op_replace, .fetch = op_fetch,
	.pio_in = op_pio_in, .pio_out = op_pio_out,
	.get_seg = op_get_seg, .set_seg = op_set_seg, .get_dt = op_get_dt, .set_dt = op_set_dt,
	.get_cr = op_get_cr, .set_cr = op_set_cr, .get_dr = op_get_dr, .set_dr = op_set_dr,
	.get_msr = op_get_msr, .set_msr = op_set_msr, .rdmsr = op_rdmsr, .wrmsr = op_wrmsr,
	.get_xcr = op_get_xcr, .set_xcr = op_set_xcr, .cpuid = op_cpuid, .rdtsc = op_rdtsc, .rdpmc = op_rdpmc,
	.invlpg = op_invlpg, .invpcid = op_invpcid, .sysop = op_sysop, .soft_int = op_soft_int,
	.cpu_has = op_cpu_has, .read_vec = op_read_vec, .write_vec = op_write_vec, .read_kmask = op_read_kmask,
	.fxstate = op_fxstate, .is_open = op_is_open,
};

/* -------------------------------------------------------------- the run */

int keel_insn_init(struct keel_vcpu *vcpu)
{
	vcpu->insn = kzalloc(sizeof(*vcpu->insn), GFP_KERNEL_ACCOUNT);
	if (!vcpu->insn)
		return -ENOMEM;
	vcpu->insn->vcpu = vcpu;
	vcpu->insn->e.ops = &insn_ops;
	vcpu->insn->e.lock_cr8 = boot_cpu_has(X86_FEATURE_CR8_LEGACY);
	vcpu->insn->e.regs = vcpu->regs;
	vcpu->insn->e.cpu_la57 = keel_offers(X86_FEATURE_LA57);
	return 0;
}

void keel_insn_free(struct keel_vcpu *vcpu)
{
	kfree(vcpu->insn);
}

void keel_insn_forget(struct keel_vcpu *vcpu)
{
	struct keel_insn *in = vcpu->insn;

	in->nr_replay = in->nr_writes = 0;
	in->want_read = in->want_msr = false;
	in->pio_state = PIO_NONE;
	vcpu->complete = NULL;
}

/* VMMs may set registers between an exit and its answer, which still counts; but operands may be others then. */
void keel_insn_changed(struct keel_vcpu *vcpu, bool moved)
{
	vcpu->insn->changed = true;
	if (moved)
		keel_insn_forget(vcpu);
}

void keel_insn_begin(struct keel_insn *in)
{
	struct keel_vcpu *vcpu = in->vcpu;
	struct emul *e = &in->e;
	u64 cr4 = keel_cr4(vcpu);

	in->rsp = keel_reg(vcpu, KEEL_RSP);
	e->rip = keel_reg(vcpu, KEEL_RIP);
	e->rflags = keel_rflags(vcpu);
	e->cpl = keel_cpl(vcpu);
	e->lma = keel_is_long_mode(vcpu);
	e->la57 = cr4 & X86_CR4_LA57;
	e->foreign = vcpu->model.foreign;
	if (unlikely(keel_guest_has(vcpu, X86_FEATURE_LAM)))
		emul_set_lam(e, keel_cr3(vcpu), cr4);
	e->mode = emul_mode(keel_cr0(vcpu), e->lma, e->rflags, keel_call(cs_mode, vcpu));
	e->cet = unlikely(cr4 & X86_CR4_CET) ? keel_cet_tracks(vcpu, e->mode, e->cpl) : 0;
}

static void store_state(struct keel_insn *in, u64 old_rip)
{
	struct keel_vcpu *vcpu = in->vcpu;
	struct emul *e = &in->e;
	u64 old_flags = keel_rflags(vcpu);

	if (vcpu->regs[KEEL_RSP] != in->rsp)
		vcpu->dirty |= BIT(KEEL_RSP);
	keel_set_reg(vcpu, KEEL_RIP, e->rip);
	if (e->rip == old_rip && emul_repeats(e)) {
		/* Between two iterations: nothing has ended yet, and no breakpoint is hit again; but each is a step. */
		keel_set_rflags(vcpu, e->rflags | X86_EFLAGS_RF);
		if (old_flags & X86_EFLAGS_TF)
			keel_raise_db(vcpu, DR_STEP);
		return;
	}
	keel_set_rflags(vcpu, e->rflags);	/* RF is what IRET or a new task brought, else clear */
	keel_call(set_shadow, vcpu, e->shadow & EMUL_SHADOW_SS ? KVM_X86_SHADOW_INT_MOV_SS :
				    e->shadow & EMUL_SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0);
	/* An interrupt that waits has a window open already: IF and the shadow need no second look. */
	if (unlikely(e->shadow & (EMUL_SHADOW_IRET | EMUL_TASK_NEW))) {
		if (e->shadow & EMUL_SHADOW_IRET) {
			keel_call(set_nmi_mask, vcpu, false);
			keel_request(KEEL_REQ_EVENT, vcpu);
		}
		if (e->shadow & EMUL_TASK_NEW) {
			keel_task_done(vcpu);
			return;		/* TF was the old one's */
		}
	}
	if ((old_flags & X86_EFLAGS_TF) && !(e->shadow & (EMUL_SHADOW_SS | EMUL_SHADOW_INT)))
		keel_raise_db(vcpu, DR_STEP);
}

static int complete_mmio_write(struct keel_vcpu *vcpu);

int keel_insn_exit_write(struct keel_vcpu *vcpu)
{
	struct keel_insn *in = vcpu->insn;
	struct insn_io *io = insn_write(in, in->write_pos++);
	struct kvm_run *run = vcpu->run;

	vcpu->stat.mmio_user++;
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = io->addr;
	run->mmio.len = io->len;
	run->mmio.is_write = 1;
	memcpy(run->mmio.data, io->data, sizeof(io->data));
	vcpu->complete = in->write_pos < in->nr_writes ? complete_mmio_write : NULL;
	if (!vcpu->complete)
		in->nr_writes = 0;
	return KEEL_USER;
}

static int complete_mmio_write(struct keel_vcpu *vcpu)
{
	return keel_insn_exit_write(vcpu);
}

static int complete_mmio_read(struct keel_vcpu *vcpu)
{
	struct keel_insn *in = vcpu->insn;
	struct insn_io *io = &in->io[in->nr_replay];

	if (!in->want_read)
		return KEEL_RESUME;	/* forgotten: new registers were set */
	in->want_read = false;
	memcpy(io->data, vcpu->run->mmio.data, io->len);
	in->nr_replay++;
	return emulate(vcpu, true);
}

static int complete_pio_in(struct keel_vcpu *vcpu)
{
	if (vcpu->insn->pio_state != PIO_IN_WANTED)
		return KEEL_RESUME;
	vcpu->insn->pio_state = PIO_IN_READY;
	return emulate(vcpu, true);
}

static int exit_to_user(struct keel_vcpu *vcpu)
{
	struct keel_insn *in = vcpu->insn;
	struct kvm_run *run = vcpu->run;

	if (in->pio_state == PIO_IN_WANTED) {
		user_pio(vcpu, in->port, in->pio_size, in->pio_count, true);
		vcpu->complete = complete_pio_in;
		return KEEL_USER;
	}
	if (in->want_msr)
		return KEEL_USER;	/* kvm_run is filled */
	if (in->want_read) {
		struct insn_io *io = &in->io[in->nr_replay];

		vcpu->stat.mmio_user++;
		run->exit_reason = KVM_EXIT_MMIO;
		run->mmio.phys_addr = io->addr;
		run->mmio.len = io->len;
		run->mmio.is_write = 0;
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		vcpu->complete = complete_mmio_read;
		return KEEL_USER;
	}
	return KEEL_RESUME;
}

/* Its reads so far are answered, and the last one is all that it waited for. */
static enum emul_result exec_answered(struct keel_insn *in)
{
	const struct insn_io *io = in->io;

	if (in->nr_replay == 1 && io->len == emul_plain_load(&in->e))
		return emul_exec_loaded(&in->e, get_unaligned_le64(io->data));
	return emul_exec(&in->e);
}

/* @decoded: e->insn is the instruction at RIP, and the registers are those it was decoded with. */
static int emulate(struct keel_vcpu *vcpu, bool decoded)
{
	struct keel_insn *in = vcpu->insn;
	struct emul *e = &in->e;
	enum emul_result r = EMUL_OK;
	u64 rip;

	keel_l1d_note();
	in->cursor = 0;
	in->need_slow = in->halted = false;
	in->nr_writes = in->write_pos = 0;
	if (!decoded || in->changed) {
		in->changed = false;
		keel_insn_begin(in);
		r = emul_decode(e);
		decoded = false;
	}
	rip = e->rip;
	if (r == EMUL_OK)
		r = decoded ? exec_answered(in) : emul_exec(e);
	if (in->need_slow && r != EMUL_OK)
		return KEEL_SLOW;
	if (r == EMUL_USER)
		return exit_to_user(vcpu);

	/* Finished one way or the other: what was read for it is used up. */
	in->nr_replay = 0;
	in->want_read = false;
	if (in->pio_state != PIO_OUT_WANTED)
		in->pio_state = PIO_NONE;
	switch (r) {
	case EMUL_OK:
		break;
	case EMUL_FAULT:
		keel_raise_fault(vcpu, &e->fault);
		return KEEL_RESUME;
	case EMUL_RETRY:
		return KEEL_RESUME;
	default:
		return keel_exit_emulation_failure(vcpu, e->insn.bytes, e->insn.have);
	}
	store_state(in, rip);
	vcpu->stat.emulated++;
	if (in->pio_state == PIO_OUT_WANTED) {
		in->pio_state = PIO_NONE;
		user_pio(vcpu, in->port, in->pio_size, 1, false);
		return KEEL_USER;
	}
	if (in->nr_writes)
		return keel_insn_exit_write(vcpu);
	return in->halted ? keel_emulate_hlt(vcpu) : KEEL_RESUME;
}

int keel_emulate(struct keel_vcpu *vcpu)
{
	vcpu->insn->gpa = NO_GPA;
	return emulate(vcpu, false);
}

/* A MOV to or from a control register.  A TPR that falls is to be known to a VMM that has the interrupt controllers. */
int keel_emulate_cr(struct keel_vcpu *vcpu)
{
	u64 before = vcpu->cr8;
	int r = keel_emulate(vcpu);

	if (r != KEEL_RESUME || vcpu->apic || vcpu->cr8 >= before)
		return r;
	vcpu->run->exit_reason = KVM_EXIT_SET_TPR;
	return KEEL_USER;
}

/* @r: what the MMU said of the fault. */
static int page_fault_done(struct keel_vcpu *vcpu, int r, u64 gpa, u32 access, u64 info)
{
	keel_l1d_note();
	if (r == MMU_FIXED || r == MMU_AGAIN)
		return KEEL_RESUME;
	if (r < 0)
		return r;
	if (r == MMU_SLOW)
		return KEEL_SLOW;
	if (unlikely(vcpu->ev.injected.type))
		return keel_delivery_failed(vcpu, gpa, info);
	if ((access & MMU_ACC_WRITE) && fast_mmio(vcpu, gpa)) {
		/* The doorbell has been rung; ringing it again after KEEL_SLOW would be harmless. */
		r = keel_skip(vcpu);
		return r < 0 ? KEEL_RESUME : r;
	}
	vcpu->insn->gpa = access & MMU_ACC_FINAL ? gpa : NO_GPA;
	vcpu->insn->gpa_write = access & MMU_ACC_WRITE;
	return emulate(vcpu, false);
}

int keel_page_fault(struct keel_vcpu *vcpu, u64 gpa, u32 access, u64 info)
{
	vcpu->stat.page_faults++;
	trace_keel_page_fault(vcpu, gpa, info);
	return page_fault_done(vcpu, mmu_fault(vcpu, gpa, access), gpa, access, info);
}

int keel_shadow_fault(struct keel_vcpu *vcpu, u64 gva, u32 error)
{
	struct emul_fault fault;
	u32 access = 0;
	u64 gpa = 0;
	int r;

	vcpu->stat.page_faults++;
	trace_keel_page_fault(vcpu, gva, error);
	r = mmu_shadow_fault(vcpu, gva, error, &gpa, &access, &fault);
	if (r == MMU_GUEST) {
		keel_raise_fault(vcpu, &fault);
		return KEEL_RESUME;
	}
	return page_fault_done(vcpu, r, gpa, access, error);
}

/* -------------------------------------------- exits that need no emulator */

static int complete_fast_in(struct keel_vcpu *vcpu)
{
	struct keel_insn *in = vcpu->insn;
	u64 rax = vcpu->regs[KEEL_RAX];
	u32 mask;

	if (in->pio_state != PIO_IN_WANTED)
		return KEEL_RESUME;
	in->pio_state = PIO_NONE;
	mask = U32_MAX >> (32 - 8 * in->pio_size);
	if (in->pio_size == 4)
		rax = 0;	/* a 32-bit result clears the upper half */
	rax = (rax & ~(u64)mask) | (get_unaligned_le32(vcpu->pio_data) & mask);
	keel_set_reg(vcpu, KEEL_RAX, rax);
	keel_advance(vcpu, in->e.next_rip);
	return KEEL_RESUME;
}

/* Not if the VMM has put RIP elsewhere, as keel_insn_changed() is told. */
static int complete_fast_out(struct keel_vcpu *vcpu)
{
	keel_advance(vcpu, vcpu->insn->e.next_rip);
	return KEEL_RESUME;
}

#define PORT_7E	0x7e		/* where RIP has always been behind: VMMs lean on it */

int keel_pio(struct keel_vcpu *vcpu, u16 port, unsigned int size, bool in, u64 next_rip)
{
	struct keel_insn *insn = vcpu->insn;
	u64 *rax = &vcpu->regs[KEEL_RAX];

	vcpu->stat.pio++;
	trace_keel_pio(vcpu, port, size, 1, !in);
	if (in) {
		/* A device that answers writes as many bytes as it was asked for. */
		if (kernel_pio(vcpu, port, size, rax, true)) {
			if (size == 4)
				*rax = (u32)*rax;
			keel_advance(vcpu, next_rip);
			return KEEL_RESUME;
		}
		insn->pio_state = PIO_IN_WANTED;
		insn->pio_size = size;
		insn->e.next_rip = next_rip;
		user_pio(vcpu, port, size, 1, true);
		vcpu->complete = complete_fast_in;
		return KEEL_USER;
	}
	if (kernel_pio(vcpu, port, size, rax, false)) {
		keel_advance(vcpu, next_rip);
		return KEEL_RESUME;
	}
	put_unaligned_le32(*rax, vcpu->pio_data);	/* as many bytes as any port takes */
	user_pio(vcpu, port, size, 1, false);
	/* A VMM finds RIP at the instruction, which is over when it has seen to it. */
	if (unlikely(port == PORT_7E) && keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_OUT_7E_INC_RIP)) {
		keel_advance(vcpu, next_rip);
		return KEEL_USER;
	}
	insn->e.next_rip = next_rip;
	vcpu->complete = complete_fast_out;
	return KEEL_USER;
}

static int msr_failed(struct keel_vcpu *vcpu, u32 why, u32 exit, u64 val, u64 next)
{
	if (why == KEEL_MSR_SLOW) {
		if (exit == KVM_EXIT_X86_RDMSR)		/* it comes again */
			vcpu->stat.msr_reads--;
		else
			vcpu->stat.msr_writes--;
		return KEEL_SLOW;
	}
	trace_keel_msr(vcpu, vcpu->regs[KEEL_RCX], val, exit == KVM_EXIT_X86_WRMSR, why);
	if (!msr_to_user(vcpu, why, exit, vcpu->regs[KEEL_RCX], val)) {
		keel_raise_error(vcpu, X86_TRAP_GP, 0);
		return KEEL_RESUME;
	}
	vcpu->insn->e.next_rip = next;
	return KEEL_USER;
}

int keel_emulate_rdmsr(struct keel_vcpu *vcpu)
{
	u32 msr = vcpu->regs[KEEL_RCX], why;
	u64 next, val = 0;
	int r = keel_next_rip(vcpu, &next);

	if (r)
		return r;
	vcpu->stat.msr_reads++;
	why = keel_guest_rdmsr(vcpu, msr, &val);
	if (unlikely(why))
		return msr_failed(vcpu, why, KVM_EXIT_X86_RDMSR, 0, next);
	trace_keel_msr(vcpu, msr, val, false, 0);
	keel_write_edx_eax(vcpu, val);
	keel_advance(vcpu, next);
	return KEEL_RESUME;
}

int keel_emulate_wrmsr(struct keel_vcpu *vcpu)
{
	u32 msr = vcpu->regs[KEEL_RCX], why;
	u64 next, val = keel_read_edx_eax(vcpu);
	int r = keel_next_rip(vcpu, &next);

	if (r)
		return r;
	vcpu->stat.msr_writes++;
	why = keel_guest_wrmsr(vcpu, msr, val);
	if (unlikely(why))
		return msr_failed(vcpu, why, KVM_EXIT_X86_WRMSR, val, next);
	trace_keel_msr(vcpu, msr, val, true, 0);
	keel_advance(vcpu, next);
	return KEEL_RESUME;
}

bool keel_wants_ud(struct keel_vcpu *vcpu)
{
	return vcpu->smm || vcpu->model.foreign || keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_FIX_HYPERCALL_INSN);
}

/*
 * A guest that was made on, or for, the other vendor's CPU: its hypercall instruction is replaced by the one that works
 * here, and runs again; its fast system calls are emulated, as is RSM.  All else was no instruction.
 */
int keel_emulate_ud(struct keel_vcpu *vcpu)
{
	static const u8 forms[][3] = { { 0x0f, 0x01, 0xc1 }, { 0x0f, 0x01, 0xd9 } };
	struct keel_insn *in = vcpu->insn;
	struct emul *e = &in->e;
	enum emul_result r;
	u8 right[3];

	if (vcpu->atomic)
		return KEEL_SLOW;
	keel_insn_forget(vcpu);
	in->gpa = NO_GPA;
	keel_insn_begin(in);
	if (emul_decode(e) != EMUL_OK)
		goto ud;
	/* In system management mode RSM is an instruction, which the CPU does not know: it is not in that mode. */
	if (unlikely(vcpu->smm) && e->insn.map == 1 && e->insn.opcode == 0xaa)
		return keel_emulate(vcpu);
	/* A fast system call that this vendor's CPUs have not in long mode, if the guest's have it. */
	if (unlikely(vcpu->model.foreign) && e->lma && e->insn.map == 1 &&
	    e->insn.opcode >= keel_hw.foreign_calls[0] && e->insn.opcode <= keel_hw.foreign_calls[1])
		return keel_emulate(vcpu);
	if (!keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_FIX_HYPERCALL_INSN) ||
	    (memcmp(e->insn.bytes, forms[0], sizeof(right)) && memcmp(e->insn.bytes, forms[1], sizeof(right))))
		goto ud;
	keel_call(hypercall_insn, right);
	r = op_write(e, keel_linear_rip(vcpu), right, sizeof(right), 0);
	if (r == EMUL_OK && !in->nr_writes)
		return KEEL_RESUME;
	in->nr_writes = 0;		/* read-only memory */
	if (r == EMUL_FAULT) {
		keel_raise_fault(vcpu, &e->fault);
		return KEEL_RESUME;
	}
ud:
	keel_raise(vcpu, X86_TRAP_UD);
	return KEEL_RESUME;
}
