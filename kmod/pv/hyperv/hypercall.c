// SPDX-License-Identifier: GPL-2.0-only
/*
 * hypercall.c - calls by the convention of Microsoft's hypervisor (TLFS 3): control word, input and output address in
 * registers; or, for fast ones, the input itself, in two registers and six vector registers.
 */
#include <linux/bitmap.h>
#include <linux/eventfd.h>
#include <linux/nospec.h>
#include "internal.h"
#include "trace.h"

#define FAST_REGS	2
#define FAST_QUADS	(FAST_REGS + 2 * HV_HYPERCALL_MAX_XMM_REGISTERS)

struct hv_call {
	struct keel_hv_vcpu *hv;
	u64 control, in_gpa, out_gpa;
	u16 code, var, reps, first_rep;
	bool fast;
	bool have_xmm;
	u64 in[FAST_QUADS];		/* of a fast one */
};

/* What a call answers: a status, or one of these. */
enum { CALL_SLOW = -1, CALL_USER = -2, CALL_UD = -3 };

/* Quad words of the input, from @first on.  0, or what the call answers. */
static int read_input(struct hv_call *c, unsigned int first, u64 *to, unsigned int n)
{
	struct keel_vcpu *vcpu = c->hv->vcpu;
	unsigned int i;
	int err;

	if (!c->fast) {
		if (c->in_gpa & 7)
			return HV_STATUS_INVALID_ALIGNMENT;
		err = keel_vcpu_read(vcpu, c->in_gpa + first * sizeof(u64), to, n * sizeof(u64));
		return err == -EAGAIN ? CALL_SLOW : err ? HV_STATUS_INVALID_HYPERCALL_INPUT : 0;
	}
	if (first + n > FAST_QUADS)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (first + n > FAST_REGS && !c->have_xmm) {
		if (!hv_has(c->hv, HV_FEAT_EDX, HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE))
			return CALL_UD;
		if (vcpu->atomic)	/* the guest's are in the registers */
			return CALL_SLOW;
		for (i = 0; i < HV_HYPERCALL_MAX_XMM_REGISTERS; i++)
			keel_fpu_read_vec(vcpu, i, &c->in[FAST_REGS + 2 * i], 16);
		c->have_xmm = true;
	}
	memcpy(to, &c->in[first], n * sizeof(u64));
	return 0;
}

/* ------------------------------------------------------------------ sets of virtual processors */

#define BANKS		(KEEL_MAX_VCPUS / 64)	/* that there can be somebody in */
#define MAX_BANKS	64			/* that can be named */

struct vp_set {
	bool all;
	u64 bank[BANKS];
};

static bool in_set(const struct vp_set *set, const struct keel_vcpu *vcpu)
{
	u32 vp;

	if (set->all)
		return true;
	if (!vcpu->hv)
		return false;
	vp = READ_ONCE(vcpu->hv->vp_index);	/* below KEEL_MAX_VCPUS */
	return set->bank[vp / 64] & BIT_ULL(vp % 64);
}

/* A set in the sparse format, at quad word @at of the input: format, which banks, and those. */
static int read_sparse_set(struct hv_call *c, unsigned int at, struct vp_set *set)
{
	u64 head[2], banks[MAX_BANKS], valid;
	unsigned int i;
	int r = read_input(c, at, head, 2);

	if (r)
		return r;
	if (head[0] > HV_GENERIC_SET_ALL)
		return HV_STATUS_INVALID_PARAMETER;
	set->all = head[0] == HV_GENERIC_SET_ALL;
	valid = head[1];
	if (set->all)
		return 0;
	if (c->var != hweight64(valid))		/* at most MAX_BANKS */
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (!valid)
		return 0;
	r = read_input(c, at + 2, banks, c->var);
	if (r)
		return r;
	for (i = 0; valid && __ffs64(valid) < BANKS; valid &= valid - 1, i++)
		set->bank[array_index_nospec(__ffs64(valid), BANKS)] = banks[i];
	return 0;
}

/* ------------------------------------------------------------------ the calls */

/* Address spaces and addresses are not told apart: each CPU forgets all it knows. */
static int flush(struct hv_call *c, u64 flags, struct vp_set *set)
{
	DECLARE_BITMAP(which, KEEL_MAX_VCPUS) = {};
	struct keel_vm *vm = c->hv->vcpu->vm;
	struct keel_vcpu *vcpu;
	unsigned int i;

	if (flags & HV_FLUSH_ALL_PROCESSORS)
		set->all = true;
	keel_for_each_vcpu(vcpu, i, vm)
		if (in_set(set, vcpu))
			__set_bit(i, which);
	keel_request_some(vm, KEEL_REQ_TLB_FLUSH, which, true);
	return HV_STATUS_SUCCESS;
}

static int call_flush(struct hv_call *c)
{
	struct vp_set set = {};
	u64 in[3];		/* address space, flags, processors */
	int r = read_input(c, 0, in, 3);

	if (r)
		return r;
	/* Windows Server 2012 means all by none. */
	set.all = !in[2];
	set.bank[0] = in[2];
	return flush(c, in[1], &set);
}

static int call_flush_ex(struct hv_call *c)
{
	struct vp_set set = {};
	u64 in[2];
	int r = read_input(c, 0, in, 2);

	if (!r)
		r = read_sparse_set(c, 2, &set);
	return r ?: flush(c, in[1], &set);
}

static int send(struct hv_call *c, u64 vector, struct vp_set *set)
{
	struct keel_vcpu *vcpu;
	unsigned int i;

	/* Without LAPICs here there is nobody to send it to.  The upper half: a trust level, of which there is one, and zeros. */
	if (c->hv->vcpu->vm->irq.mode == IRQCHIP_NONE || vector < HV_IPI_LOW_VECTOR || vector > HV_IPI_HIGH_VECTOR)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	keel_for_each_vcpu(vcpu, i, c->hv->vcpu->vm)
		if (vcpu->apic && in_set(set, vcpu))
			irq_deliver_fixed(vcpu, vector);
	return HV_STATUS_SUCCESS;
}

static int call_send_ipi(struct hv_call *c)
{
	struct vp_set set = {};
	u64 in[2];
	int r = read_input(c, 0, in, 2);

	if (r)
		return r;
	set.bank[0] = in[1];
	return send(c, in[0], &set);
}

static int call_send_ipi_ex(struct hv_call *c)
{
	struct vp_set set = {};
	u64 in;
	int r = read_input(c, 0, &in, 1);

	if (!r)
		r = read_sparse_set(c, 1, &set);
	/* To nobody it may be any vector. */
	if (!r && !set.all && !c->var && c->hv->vcpu->vm->irq.mode != IRQCHIP_NONE)
		return HV_STATUS_SUCCESS;
	return r ?: send(c, in, &set);
}

static int call_long_spin(struct hv_call *c)
{
	u32 retries = c->hv->vcpu->model.hv[HV_REC_EBX];

	if (c->hv->enforce && (!retries || retries == U32_MAX))
		return HV_STATUS_ACCESS_DENIED;
	if (c->hv->vcpu->atomic)
		return CALL_SLOW;
	keel_pv_yield_any(c->hv->vcpu);
	return HV_STATUS_SUCCESS;
}

static int complete_call(struct keel_vcpu *vcpu);

static int to_user(struct hv_call *c)
{
	struct kvm_run *run = c->hv->vcpu->run;

	if (c->hv->vcpu->atomic)
		return CALL_SLOW;
	memset(&run->hyperv, 0, sizeof(run->hyperv));
	run->exit_reason = KVM_EXIT_HYPERV;
	run->hyperv.type = KVM_EXIT_HYPERV_HCALL;
	run->hyperv.u.hcall.input = c->control;
	run->hyperv.u.hcall.params[0] = c->in_gpa;
	run->hyperv.u.hcall.params[1] = c->out_gpa;
	c->hv->vcpu->complete = complete_call;
	return CALL_USER;
}

/* Messages are userspace's. */
static int call_post_message(struct hv_call *c)
{
	return c->hv->synic ? to_user(c) : HV_STATUS_INVALID_HYPERCALL_INPUT;
}

/* And so are all of these, of which the first asks which there are. */
static int call_extended(struct hv_call *c)
{
	return c->fast ? HV_STATUS_INVALID_PARAMETER : to_user(c);
}

/* An event is an eventfd's, or userspace's: connection in bits 23 to 0, a flag's number in 47 to 32. */
static int call_signal_event(struct hv_call *c)
{
	struct xarray *events = &c->hv->vcpu->vm->hv->events;
	struct eventfd_ctx *ctx;
	u64 param;
	int r = read_input(c, 0, &param, 1);

	if (r)
		return r == HV_STATUS_INVALID_HYPERCALL_INPUT ? HV_STATUS_INVALID_ALIGNMENT : r;
	c->in_gpa = param;	/* as userspace gets it */
	if (param & GENMASK_ULL(47, 32))
		return call_post_message(c);
	if (param & ~(u64)KVM_HYPERV_CONN_ID_MASK)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	xa_lock(events);
	ctx = xa_load(events, param);
	if (ctx)
		keel_eventfd_signal(ctx);
	xa_unlock(events);
	return ctx ? HV_STATUS_SUCCESS : call_post_message(c);
}

/* What the debugger has to say, or is to be told, or that it is to begin anew: by the VMM. */
static int call_debugger(struct hv_call *c)
{
	if (c->fast && c->code != HVCALL_RESET_DEBUG_SESSION)
		return HV_STATUS_INVALID_PARAMETER;
	if (!(READ_ONCE(c->hv->vcpu->vm->hv->debugger[DEBUGGER_OPTIONS]) & DEBUGGER_BY_CALLS))
		return HV_STATUS_OPERATION_DENIED;
	return to_user(c);
}

static const struct call_row {
	u16 code;
	bool rep, var;			/* takes repetitions / a header of variable size */
	enum keel_hv_word word;		/* CPUID that allows it */
	u32 bits;
	int (*run)(struct hv_call *c);
	bool (*exists)(const struct keel_hv_vcpu *hv);	/* NULL: for all */
} calls[] = {
#define FLUSH	HV_REC_EAX, HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED
#define IPI	HV_REC_EAX, HV_X64_CLUSTER_IPI_RECOMMENDED
#define EX	HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED
	{ HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE, false, false, FLUSH, call_flush },
	{ HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST, true, false, FLUSH, call_flush },
	{ HVCALL_NOTIFY_LONG_SPIN_WAIT, false, false, HV_REC_EAX, 0, call_long_spin },
	{ HVCALL_SEND_IPI, false, false, IPI, call_send_ipi },
	{ HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX, false, true, FLUSH | EX, call_flush_ex },
	{ HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX, true, true, FLUSH | EX, call_flush_ex },
	{ HVCALL_SEND_IPI_EX, false, true, IPI | EX, call_send_ipi_ex },
	{ HVCALL_POST_MESSAGE, false, false, HV_FEAT_EBX, HV_POST_MESSAGES, call_post_message },
	{ HVCALL_SIGNAL_EVENT, false, false, HV_FEAT_EBX, HV_SIGNAL_EVENTS, call_signal_event },
	{ HVCALL_POST_DEBUG_DATA, false, false, HV_FEAT_EBX, HV_DEBUGGING, call_debugger, hv_has_debugger },
	{ HVCALL_RETRIEVE_DEBUG_DATA, false, false, HV_FEAT_EBX, HV_DEBUGGING, call_debugger, hv_has_debugger },
	{ HVCALL_RESET_DEBUG_SESSION, false, false, HV_FEAT_EBX, HV_DEBUGGING, call_debugger, hv_has_debugger },
	{ HV_EXT_CALL_QUERY_CAPABILITIES, false, false, HV_FEAT_EBX, HV_ENABLE_EXTENDED_HYPERCALLS, call_extended },
};

/* ------------------------------------------------------------------ convention */

static int run_call(struct hv_call *c)
{
	/* The first extended one, and one for each bit of its answer. */
	u16 code = (u16)(c->code - HV_EXT_CALL_QUERY_CAPABILITIES) <= 64 ? HV_EXT_CALL_QUERY_CAPABILITIES : c->code;
	const struct call_row *row;

	for (row = calls; row < calls + ARRAY_SIZE(calls) && row->code != code; row++)
		;
	if (row == calls + ARRAY_SIZE(calls) || (row->exists && !row->exists(c->hv)))
		return HV_STATUS_INVALID_HYPERCALL_CODE;
	if (!hv_has(c->hv, row->word, row->bits))
		return HV_STATUS_ACCESS_DENIED;
	if (c->control & HV_HYPERCALL_RSVD_MASK || (c->var && !row->var) ||
	    (row->rep ? !c->reps || c->first_rep : c->reps || c->first_rep))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	return row->run(c);
}

static u64 pair(struct keel_vcpu *vcpu, unsigned int high, unsigned int low)
{
	return vcpu->regs[high] << 32 | (u32)vcpu->regs[low];
}

static void read_registers(struct keel_vcpu *vcpu, struct hv_call *c)
{
	if (keel_is_64bit(vcpu)) {
		c->control = vcpu->regs[KEEL_RCX];
		c->in_gpa = vcpu->regs[KEEL_RDX];
		c->out_gpa = vcpu->regs[KEEL_R8];
	} else {
		c->control = pair(vcpu, KEEL_RDX, KEEL_RAX);
		c->in_gpa = pair(vcpu, KEEL_RBX, KEEL_RCX);
		c->out_gpa = pair(vcpu, KEEL_RDI, KEEL_RSI);
	}
	c->hv = vcpu->hv;
	c->code = c->control;
	c->fast = c->control & HV_HYPERCALL_FAST_BIT;
	c->var = (c->control & HV_HYPERCALL_VARHEAD_MASK) >> HV_HYPERCALL_VARHEAD_OFFSET;
	c->reps = (c->control & HV_HYPERCALL_REP_COMP_MASK) >> HV_HYPERCALL_REP_COMP_OFFSET;
	c->first_rep = (c->control & HV_HYPERCALL_REP_START_MASK) >> HV_HYPERCALL_REP_START_OFFSET;
	c->in[0] = c->in_gpa;
	c->in[1] = c->out_gpa;
}

static void write_result(struct keel_vcpu *vcpu, u64 result)
{
	if (keel_is_64bit(vcpu)) {
		keel_set_reg(vcpu, KEEL_RAX, result);
	} else {
		keel_set_reg(vcpu, KEEL_RAX, (u32)result);
		keel_set_reg(vcpu, KEEL_RDX, result >> 32);
	}
}

static int complete_call(struct keel_vcpu *vcpu)
{
	u64 result = READ_ONCE(vcpu->run->hyperv.u.hcall.result);
	int skip = keel_skip(vcpu);

	if (skip == KEEL_RESUME)
		write_result(vcpu, result);
	return skip < 0 ? KEEL_RESUME : skip;
}

bool keel_hv_takes_hypercalls(struct keel_vcpu *vcpu)
{
	return vcpu->hv && vcpu->model.is_hyperv && READ_ONCE(vcpu->vm->hv->guest_os_id);
}

int keel_hv_hypercall(struct keel_vcpu *vcpu)
{
	struct hv_call c = {};
	u64 next;
	int r;

	/* First, for the instruction may have to be tried again: what it does is done once. */
	r = keel_next_rip(vcpu, &next);
	if (r)
		return r;
	if (keel_cpl(vcpu) || !keel_is_protected(vcpu)) {
		keel_raise(vcpu, X86_TRAP_UD);
		return KEEL_RESUME;
	}
	read_registers(vcpu, &c);
	r = run_call(&c);
	switch (r) {
	case CALL_SLOW:
		return KEEL_SLOW;
	case CALL_USER:
		return KEEL_USER;
	case CALL_UD:
		keel_raise(vcpu, X86_TRAP_UD);
		return KEEL_RESUME;
	}
	trace_keel_hypercall(vcpu, c.code, r);
	vcpu->stat.hypercalls++;
	write_result(vcpu, r ? r : (u64)c.reps << HV_HYPERCALL_REP_COMP_OFFSET);
	keel_advance(vcpu, next);
	return KEEL_RESUME;
}
