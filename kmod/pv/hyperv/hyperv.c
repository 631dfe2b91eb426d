// SPDX-License-Identifier: GPL-2.0-only
/*
 * hyperv.c - what a guest finds that looks for Microsoft's hypervisor: CPUID leaves, MSRs, time (TLFS 2, 7, 12,
 * appendix).
 */
#include <linux/cpu.h>
#include <linux/eventfd.h>
#include <linux/math64.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/kvm_para.h>
#include "internal.h"

#define HV_MAX_LEAF	(HV_DEBUGGER_LEAF + 2)
#define HV_NAME		.ebx = 0x756e694c, .ecx = 0x656b2078, .edx = 0x20206c65	/* "Linux keel  " */
#define HV_DEBUGGER_INTERFACE	0x31235356	/* "VS#1" */
#define HV_BUILD	0x3839		/* of the version that had all of what is offered */
#define HV_MAJOR_MINOR	0x000a0000
#define NEVER_NOTIFY	U32_MAX		/* of long spins */

/* ------------------------------------------------------------------ life */

static struct keel_hv *hv_vm(struct keel_vm *vm)
{
	struct keel_hv *hv = READ_ONCE(vm->hv), *other;

	if (hv)
		return hv;
	hv = kzalloc(sizeof(*hv), GFP_KERNEL_ACCOUNT);
	if (!hv)
		return NULL;
	mutex_init(&hv->lock);
	seqcount_mutex_init(&hv->tsc_seq, &hv->lock);
	xa_init_flags(&hv->moved, XA_FLAGS_ACCOUNT);
	xa_init_flags(&hv->events, XA_FLAGS_ACCOUNT);
	other = cmpxchg(&vm->hv, NULL, hv);
	if (!other)
		return hv;
	kfree(hv);
	return other;
}

int keel_hv_enable(struct keel_vcpu *vcpu)
{
	struct keel_hv_vcpu *hv;

	if (vcpu->hv)
		return 0;
	if (!hv_vm(vcpu->vm))
		return -ENOMEM;
	hv = kzalloc(sizeof(*hv), GFP_KERNEL_ACCOUNT);
	if (!hv)
		return -ENOMEM;
	hv->vcpu = vcpu;
	hv->vp_index = vcpu->idx;
	hv_synic_init(hv);
	smp_store_release(&vcpu->hv, hv);
	WRITE_ONCE(vcpu->vm->hv->used, true);
	irq_apicv_check(vcpu);
	return 0;
}

void keel_hv_vcpu_reset(struct keel_vcpu *vcpu)
{
	/* The rest outlasts an INIT; a VMM resets it with the machine, through the MSRs. */
	if (vcpu->hv)
		vcpu->hv->assist = 0;		/* and so does the LAPIC forget it */
}

void keel_hv_vcpu_free(struct keel_vcpu *vcpu)
{
	if (vcpu->hv)
		hv_stimers_stop(vcpu->hv);
	kfree(vcpu->hv);
	vcpu->hv = NULL;
}

void keel_hv_free(struct keel_vm *vm)
{
	struct eventfd_ctx *ctx;
	unsigned long id;

	if (!vm->hv)
		return;
	xa_for_each(&vm->hv->events, id, ctx)
		eventfd_ctx_put(ctx);
	xa_destroy(&vm->hv->events);
	xa_destroy(&vm->hv->moved);
	kfree(vm->hv);
	vm->hv = NULL;
}

struct keel_vcpu *hv_vcpu_by_vp(struct keel_vm *vm, u32 vp_index)
{
	struct keel_vcpu *vcpu = keel_vcpu_by_idx(vm, vp_index);
	struct keel_hv *hv = READ_ONCE(vm->hv);

	if (vcpu && vcpu->hv && READ_ONCE(vcpu->hv->vp_index) == vp_index)
		return vcpu;
	return hv ? xa_load(&hv->moved, vp_index) : NULL;
}

/* ------------------------------------------------------------------ time */

u64 hv_time(struct keel_vcpu *vcpu)
{
	struct keel_hv *hv = vcpu->vm->hv;
	unsigned int seq;
	bool written;
	u64 ns;

	/* Who reads both, the page and this, shall not see two clocks. */
	do {
		seq = read_seqcount_begin(&hv->tsc_seq);
		written = hv->tsc_written;
		ns = mul_u64_u64_shr(keel_guest_tsc(vcpu), hv->tsc_scale, 64) + hv->tsc_offset;
	} while (read_seqcount_retry(&hv->tsc_seq, seq));
	if (written)
		return ns;
	return div_u64(keel_clock_ns(vcpu->vm), 100);
}

/* 2^64 times the units of 100 ns in a cycle; 0: that has more than 64 bits. */
static u64 tsc_scale(struct keel_rate rate)
{
	u64 mult = (u64)rate.mult << 32;

	if (rate.shift > 6)
		return 0;
	return rate.shift < 0 ? div_u64(mult >> -rate.shift, 100) : mul_u64_u64_div_u64(mult, BIT(rate.shift), 100);
}

/* By what hv_time() goes from here on.  hv->lock held. */
static void set_reference(struct keel_hv *hv, bool written, u64 scale, s64 offset)
{
	write_seqcount_begin(&hv->tsc_seq);
	hv->tsc_written = written;
	hv->tsc_scale = scale;
	hv->tsc_offset = offset;
	write_seqcount_end(&hv->tsc_seq);
}

/* Sequence 0 says: not valid, ask the MSR. */
static void write_tsc_page(struct keel_vcpu *vcpu, struct keel_hv *hv, u32 sequence)
{
	u64 gpa = hv->tsc_page & PAGE_MASK;
	struct ms_hyperv_tsc_page page = { .tsc_scale = hv->tsc_scale, .tsc_offset = hv->tsc_offset };
	size_t behind = offsetof(struct ms_hyperv_tsc_page, tsc_scale);
	u32 none = 0;

	if (keel_vcpu_write(vcpu, gpa, &none, sizeof(none)) || !sequence)
		return;
	smp_wmb();	/* readers on other vCPUs: not valid before it changes */
	if (keel_vcpu_write(vcpu, gpa + behind, (void *)&page + behind, sizeof(page) - behind))
		return;
	smp_wmb();	/* readers on other vCPUs: valid once it has changed */
	keel_vcpu_write(vcpu, gpa, &sequence, sizeof(sequence));
}

enum { REENLIGHTENMENT, EMULATION_CONTROL, EMULATION_STATUS };

/*
 * A guest that has the TSC emulated, which here it always is if need be, wants to go on by the page as it is, also on
 * another host: what it says there is the time.
 */
static bool keeps_tsc_page(struct keel_vcpu *vcpu, struct keel_hv *hv)
{
	struct ms_hyperv_tsc_page page;

	if (!(hv->reenlightenment[EMULATION_CONTROL] & 1))
		return false;
	if (hv->tsc_written)
		return true;
	if (!hv->tsc_restored || keel_vcpu_read(vcpu, hv->tsc_page & PAGE_MASK, &page, sizeof(page)) ||
	    !page.tsc_sequence)
		return false;
	hv->tsc_sequence = page.tsc_sequence;
	set_reference(hv, true, page.tsc_scale, page.tsc_offset);
	return true;
}

void keel_hv_clock_update(struct keel_vcpu *vcpu)
{
	struct keel_hv *hv = vcpu->vm->hv;
	u64 tsc, ns, scale = 0;
	struct keel_rate rate;
	s64 offset;

	mutex_lock(&hv->lock);
	if (!(hv->tsc_page & HV_X64_MSR_TSC_REFERENCE_ENABLE) || keeps_tsc_page(vcpu, hv))
		goto out;
	if (keel_clock_line(vcpu, &tsc, &ns, &rate))
		scale = tsc_scale(rate);
	if (!scale) {
		set_reference(hv, false, 0, 0);
		write_tsc_page(vcpu, hv, 0);
		goto out;
	}
	offset = div_u64(ns, 100) - mul_u64_u64_shr(tsc, scale, 64);
	/* All vCPUs come here after a change, and find the same. */
	if (hv->tsc_written && hv->tsc_scale == scale && hv->tsc_offset == offset)
		goto out;
	set_reference(hv, false, scale, offset);
	hv->tsc_sequence = hv->tsc_sequence % (U32_MAX - 1) + 1;	/* neither 0 nor the highest */
	write_tsc_page(vcpu, hv, hv->tsc_sequence);
	set_reference(hv, true, scale, offset);
out:
	mutex_unlock(&hv->lock);
}

static HV_SET(set_tsc_page)
{
	struct keel_hv *vm = hv->vcpu->vm->hv;
	bool was, is = val & HV_X64_MSR_TSC_REFERENCE_ENABLE;

	mutex_lock(&vm->lock);
	was = vm->tsc_page & HV_X64_MSR_TSC_REFERENCE_ENABLE;
	vm->tsc_page = val;
	vm->tsc_restored = host;
	set_reference(vm, false, 0, 0);
	if (was != is)
		keel_clock_watch(hv->vcpu->vm, is);
	mutex_unlock(&vm->lock);
	keel_request(KEEL_REQ_CLOCK, hv->vcpu);
	return 0;
}

static HV_GET(get_tsc_page)
{
	*val = hv->vcpu->vm->hv->tsc_page;
	return 0;
}

static HV_GET(get_reenlightenment)
{
	*val = hv->vcpu->vm->hv->reenlightenment[n];
	return 0;
}

static HV_SET(set_reenlightenment)
{
	/* That emulation is under way is not the guest's to say. */
	if (n == EMULATION_STATUS && val && !host)
		return 1;
	WRITE_ONCE(hv->vcpu->vm->hv->reenlightenment[n], val);
	return 0;
}

static HV_GET(get_time)
{
	*val = hv_time(hv->vcpu);
	return 0;
}

/* Of the APIC, of the TSC. */
static u64 frequency(struct keel_vcpu *vcpu, unsigned int n)
{
	return n ? div64_u64(NSEC_PER_SEC, vcpu->vm->irq.bus_cycle_ns) : vcpu->clock.tsc_khz * 1000ULL;
}

static HV_GET(get_frequency)
{
	*val = frequency(hv->vcpu, n);
	return 0;
}

/* The vCPU's thread: what it took is counted, and goes on to be, or not. */
static void count_runtime(struct keel_hv_vcpu *hv, bool goes_on)
{
	u64 now = current->se.sum_exec_runtime;
	u32 rest = 0;

	if (hv->counts)
		hv->runtime += div_u64_rem(now - hv->counted, 100, &rest);
	hv->counted = now - rest;
	hv->counts = goes_on;
}

void keel_hv_runs(struct keel_vcpu *vcpu, bool on)
{
	count_runtime(vcpu->hv, on);
}

static HV_GET(get_runtime)
{
	if (!host)
		count_runtime(hv, true);
	*val = hv->runtime;
	return 0;
}

static HV_SET(set_runtime)
{
	if (!host)
		return 1;
	hv->runtime = val;
	return 0;
}

/* ------------------------------------------------------------------ the other MSRs */

static HV_SET(set_read_only)
{
	return !host;	/* a VMM restores what it was given */
}

static HV_GET(get_zero)
{
	*val = 0;
	return 0;
}

static HV_GET(get_os_id)
{
	*val = hv->vcpu->vm->hv->guest_os_id;
	return 0;
}

static HV_SET(set_os_id)
{
	struct keel_hv *vm = hv->vcpu->vm->hv;

	mutex_lock(&vm->lock);
	WRITE_ONCE(vm->guest_os_id, val);
	if (!val)
		vm->hypercall &= ~(u64)HV_X64_MSR_HYPERCALL_ENABLE;
	mutex_unlock(&vm->lock);
	return 0;
}

static HV_GET(get_hypercall)
{
	*val = hv->vcpu->vm->hv->hypercall;
	return 0;
}

/* The call, and a return from it, where the guest wants to have them. */
static int write_hypercall_page(struct keel_vcpu *vcpu, u64 gpa)
{
	u8 code[4];

	keel_call(hypercall_insn, code);
	code[3] = 0xc3;
	return keel_vcpu_write(vcpu, gpa, code, sizeof(code));
}

static HV_SET(set_hypercall)
{
	struct keel_hv *vm = hv->vcpu->vm->hv;
	int err = 0;

	mutex_lock(&vm->lock);
	/* Nobody can call who has not said who he is. */
	if (vm->guest_os_id || host) {
		if (vm->guest_os_id && val & HV_X64_MSR_HYPERCALL_ENABLE)
			err = write_hypercall_page(hv->vcpu, val & HV_X64_MSR_HYPERCALL_PAGE_ADDRESS_MASK);
		if (!err)
			vm->hypercall = val;
	}
	mutex_unlock(&vm->lock);
	return !!err;
}

static HV_GET(get_vp_index)
{
	*val = hv->vp_index;
	return 0;
}

/* 0, -EINVAL, -ENOMEM; never that for a number that was in use before: a reset takes no memory for it. */
static int rename_vp(struct keel_hv_vcpu *hv, u64 val)
{
	struct xarray *moved = &hv->vcpu->vm->hv->moved;

	if (val >= KEEL_MAX_VCPUS)
		return -EINVAL;
	if (val != hv->vcpu->idx && xa_err(xa_store(moved, val, hv->vcpu, GFP_KERNEL_ACCOUNT)))
		return -ENOMEM;
	/* Another one may have come to be called as this one was. */
	if (hv->vp_index != val)
		xa_cmpxchg(moved, hv->vp_index, hv->vcpu, XA_ZERO_ENTRY, GFP_KERNEL_ACCOUNT);
	WRITE_ONCE(hv->vp_index, val);
	return 0;
}

static HV_SET(set_vp_index)
{
	return !host || rename_vp(hv, val);
}

static HV_SET(set_reset)
{
	if (val == 1 && !host)
		hv_exit_due(hv, KEEL_HYPERV_RESET);
	return 0;
}

static HV_GET(get_crash)
{
	*val = hv->vcpu->vm->hv->crash[n];
	return 0;
}

static HV_SET(set_crash)
{
	WRITE_ONCE(hv->vcpu->vm->hv->crash[n], val);
	return 0;
}

static HV_GET(get_crash_ctl)
{
	*val = hv->vcpu->vm->hv->crash_ctl;
	return 0;
}

/* The VMM says that it wants to know; the guest, that it is lost. */
static HV_SET(set_crash_ctl)
{
	if (host)
		WRITE_ONCE(hv->vcpu->vm->hv->crash_ctl, val & HV_CRASH_CTL_CRASH_NOTIFY);
	else if (val & HV_CRASH_CTL_CRASH_NOTIFY)
		hv_exit_due(hv, KEEL_HYPERV_CRASH);
	return 0;
}

static HV_GET(get_invariant_tsc)
{
	*val = hv->vcpu->vm->hv->invariant_tsc;
	return 0;
}

/* A guest that has said once that it knows of it cannot take that back. */
static HV_SET(set_invariant_tsc)
{
	u64 *now = &hv->vcpu->vm->hv->invariant_tsc;

	if (val > 1 || (!host && !val && READ_ONCE(*now)))
		return 1;
	WRITE_ONCE(*now, val);
	return 0;
}

bool keel_hv_hides_invariant_tsc(struct keel_vcpu *vcpu)
{
	return vcpu->model.hv[HV_FEAT_EAX] & HV_ACCESS_TSC_INVARIANT && !READ_ONCE(vcpu->vm->hv->invariant_tsc);
}

/* A debugger's packets are the VMM's to carry: it is told of what the guest asks for, and where its pages are. */
static HV_GET(get_debugger)
{
	*val = READ_ONCE(hv->vcpu->vm->hv->debugger[n]);
	return !host && !hv_has_debugger(hv);
}

static HV_SET(set_debugger)
{
	if (!host && !hv_has_debugger(hv))
		return 1;
	WRITE_ONCE(hv->vcpu->vm->hv->debugger[n], val);
	if (!host && n == DEBUGGER_CONTROL)
		hv_exit_due(hv, KEEL_HYPERV_DEBUGGER_CONTROL);
	if (!host && n == DEBUGGER_PENDING)
		hv_exit_due(hv, KEEL_HYPERV_DEBUGGER_PENDING);
	return 0;
}

static HV_GET(get_debugger_options)
{
	return get_debugger(hv, DEBUGGER_OPTIONS, val, host);
}

static HV_SET(set_debugger_options)
{
	return set_debugger(hv, DEBUGGER_OPTIONS, val, host);
}

/* EOI, ICR, TPR */
static const u16 apic_regs[] = { APIC_EOI, APIC_ICR, APIC_TASKPRI };

static HV_GET(get_apic)
{
	return irq_lapic_read(hv->vcpu, apic_regs[n], val);
}

static HV_SET(set_apic)
{
	return irq_lapic_write(hv->vcpu, apic_regs[n], val);
}

static HV_GET(get_assist)
{
	*val = hv->assist;
	return 0;
}

/* Of the page one bit is used: an end of interrupt that needs no exit, as irq/pv_eoi.c has it. */
static HV_SET(set_assist)
{
	u64 gpa = val & HV_X64_MSR_VP_ASSIST_PAGE_ADDRESS_MASK;
	u32 none = 0;

	if (val & HV_X64_MSR_VP_ASSIST_PAGE_ENABLE) {
		if (!hv->vcpu->apic || keel_vcpu_write(hv->vcpu, gpa, &none, sizeof(none)) ||
		    irq_pv_eoi_set(hv->vcpu, gpa | KVM_MSR_ENABLED))
			return 1;
	} else {
		irq_pv_eoi_set(hv->vcpu, 0);
	}
	hv->assist = val;
	return 0;
}

static const struct hv_msr {
	u32 first, count;
	enum keel_hv_word word;		/* of CPUID, that says with these bits that the guest has it */
	u32 bits;
	HV_GET((*get));
	HV_SET((*set));
} hv_msrs[] = {
#define MSRS(msr, n, where, what, getter, setter)	{ HV_X64_MSR_##msr, n, HV_FEAT_##where, what, getter, setter }
	MSRS(GUEST_OS_ID, 1, EAX, HV_MSR_HYPERCALL_AVAILABLE, get_os_id, set_os_id),
	MSRS(HYPERCALL, 1, EAX, HV_MSR_HYPERCALL_AVAILABLE, get_hypercall, set_hypercall),
	MSRS(VP_INDEX, 1, EAX, HV_MSR_VP_INDEX_AVAILABLE, get_vp_index, set_vp_index),
	MSRS(RESET, 1, EAX, HV_MSR_RESET_AVAILABLE, get_zero, set_reset),
	MSRS(VP_RUNTIME, 1, EAX, HV_MSR_VP_RUNTIME_AVAILABLE, get_runtime, set_runtime),
	MSRS(TIME_REF_COUNT, 1, EAX, HV_MSR_TIME_REF_COUNT_AVAILABLE, get_time, set_read_only),
	MSRS(REFERENCE_TSC, 1, EAX, HV_MSR_REFERENCE_TSC_AVAILABLE, get_tsc_page, set_tsc_page),
	MSRS(TSC_FREQUENCY, 2, EAX, HV_ACCESS_FREQUENCY_MSRS, get_frequency, set_read_only),
	MSRS(EOI, 3, EAX, HV_MSR_APIC_ACCESS_AVAILABLE, get_apic, set_apic),
	MSRS(VP_ASSIST_PAGE, 1, EAX, HV_MSR_APIC_ACCESS_AVAILABLE, get_assist, set_assist),
	MSRS(SCONTROL, 5, EAX, HV_MSR_SYNIC_AVAILABLE, hv_get_synic, hv_set_synic),
	MSRS(SINT0, HV_SYNIC_SINT_COUNT, EAX, HV_MSR_SYNIC_AVAILABLE, hv_get_sint, hv_set_sint),
	MSRS(STIMER0_CONFIG, 2 * HV_SYNIC_STIMER_COUNT, EAX, HV_MSR_SYNTIMER_AVAILABLE, hv_get_stimer, hv_set_stimer),
	MSRS(CRASH_P0, HV_X64_MSR_CRASH_PARAMS, EDX, HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE, get_crash, set_crash),
	MSRS(CRASH_CTL, 1, EDX, HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE, get_crash_ctl, set_crash_ctl),
	MSRS(REENLIGHTENMENT_CONTROL, 3, EAX, HV_ACCESS_REENLIGHTENMENT, get_reenlightenment, set_reenlightenment),
	MSRS(TSC_INVARIANT_CONTROL, 1, EAX, HV_ACCESS_TSC_INVARIANT, get_invariant_tsc, set_invariant_tsc),
	MSRS(DEBUGGER_CONTROL, 5, EDX, HV_FEATURE_DEBUG_MSRS_AVAILABLE, get_debugger, set_debugger),
	MSRS(DEBUGGER_OPTIONS, 1, EDX, HV_FEATURE_DEBUG_MSRS_AVAILABLE, get_debugger_options, set_debugger_options),
};

/* NULL: none, or not this guest's. */
static const struct hv_msr *find_msr(struct keel_vcpu *vcpu, u32 msr, bool host)
{
	unsigned int i;

	if (!host && (!vcpu->hv || !vcpu->model.is_hyperv))
		return NULL;
	for (i = 0; i < ARRAY_SIZE(hv_msrs); i++) {
		const struct hv_msr *row = &hv_msrs[i];

		if (msr - row->first < row->count)
			return host || hv_has(vcpu->hv, row->word, row->bits) ? row : NULL;
	}
	return NULL;
}

/* Which of the row's, also when the CPU only guesses that the row is the right one: it is an index then. */
static unsigned int nth_msr(const struct hv_msr *row, u32 msr)
{
	return array_index_nospec(msr - row->first, row->count);
}

/* What a vCPU that has no such part would have in it, for a VMM that saves all MSRs there are. */
static u64 untouched(struct keel_vcpu *vcpu, const struct hv_msr *row, unsigned int n)
{
	if (row->first == HV_X64_MSR_TSC_FREQUENCY)
		return frequency(vcpu, n);
	if (row->first == HV_X64_MSR_VP_INDEX)
		return vcpu->idx;
	if (row->first == HV_X64_MSR_SINT0)
		return HV_SYNIC_SINT_MASKED;
	return 0;
}

int keel_hv_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	const struct hv_msr *row = find_msr(vcpu, msr, host);

	if (!row)
		return 1;
	if (!vcpu->hv) {
		*val = untouched(vcpu, row, nth_msr(row, msr));
		return 0;
	}
	return row->get(vcpu->hv, nth_msr(row, msr), val, host);
}

int keel_hv_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	const struct hv_msr *row = find_msr(vcpu, msr, host);

	if (!row)
		return 1;
	if (!vcpu->hv) {
		if (val == untouched(vcpu, row, nth_msr(row, msr)))
			return 0;
		if (keel_hv_enable(vcpu))
			return 1;
	}
	return row->set(vcpu->hv, nth_msr(row, msr), val, host);
}

/* ------------------------------------------------------------------ states */

#define HYPERV_EXITS	(KEEL_HYPERV_EXIT | KEEL_HYPERV_RESET | KEEL_HYPERV_CRASH | KEEL_HYPERV_DEBUGGER_CONTROL | \
			 KEEL_HYPERV_DEBUGGER_PENDING)

/* Without a vCPU that has it nothing of the VM's can have been touched. */
bool keel_hv_in_use(struct keel_vm *vm)
{
	return vm->hv && READ_ONCE(vm->hv->used);
}

VM_IOCTL(keel_hv_get_state)
{
	const struct keel_hv *hv = vm->hv;
	struct keel_state_hyperv *s = buf;

	s->guest_os_id = hv->guest_os_id;
	s->hypercall = hv->hypercall;
	s->reference_tsc = hv->tsc_page;
	memcpy(s->reenlightenment, hv->reenlightenment, sizeof(s->reenlightenment));
	memcpy(s->crash, hv->crash, sizeof(s->crash));
	s->crash_ctl = hv->crash_ctl;
	s->invariant_tsc = hv->invariant_tsc;
	memcpy(s->debugger, hv->debugger, sizeof(s->debugger));
	s->tsc_scale = hv->tsc_scale;
	s->tsc_offset = hv->tsc_offset;
	s->tsc_sequence = hv->tsc_sequence;
	s->tsc_written = hv->tsc_written;
	s->tsc_restored = hv->tsc_restored;
	return 0;
}

/*
 * The guest's pages are as old as this is, and are not written; where its clock became another one the reference page
 * will be.
 */
VM_IOCTL(keel_hv_set_state)
{
	const struct keel_state_hyperv *s = buf;
	struct keel_hv *hv = vm->hv;
	bool was, is = s->reference_tsc & HV_X64_MSR_TSC_REFERENCE_ENABLE;

	BUILD_BUG_ON(sizeof(s->crash) != sizeof(hv->crash));
	BUILD_BUG_ON(sizeof(s->reenlightenment) != sizeof(hv->reenlightenment));
	BUILD_BUG_ON(sizeof(s->debugger) != sizeof(hv->debugger));
	if (s->tsc_written > is || s->invariant_tsc > 1 || s->tsc_restored > 1 || s->crash_ctl & ~HV_CRASH_CTL_CRASH_NOTIFY ||
	    memchr_inv(s->reserved, 0, sizeof(s->reserved)))
		return -EINVAL;
	mutex_lock(&hv->lock);
	was = hv->tsc_page & HV_X64_MSR_TSC_REFERENCE_ENABLE;
	WRITE_ONCE(hv->guest_os_id, s->guest_os_id);
	hv->hypercall = s->hypercall;
	hv->tsc_page = s->reference_tsc;
	hv->tsc_sequence = s->tsc_sequence;
	hv->tsc_restored = s->tsc_restored;
	set_reference(hv, s->tsc_written, s->tsc_scale, s->tsc_offset);
	memcpy(hv->reenlightenment, s->reenlightenment, sizeof(hv->reenlightenment));
	memcpy(hv->crash, s->crash, sizeof(hv->crash));
	hv->crash_ctl = s->crash_ctl;
	hv->invariant_tsc = s->invariant_tsc;
	memcpy(hv->debugger, s->debugger, sizeof(hv->debugger));
	if (was != is)
		keel_clock_watch(vm, is);
	mutex_unlock(&hv->lock);
	/* If it has not been written yet, and there is a line, a vCPU's state has that it is due. */
	if (is && vm->clock.pages_old)
		keel_request_all(vm, KEEL_REQ_CLOCK, false);
	return 0;
}

size_t keel_hv_vcpu_state_size(const struct keel_vcpu *vcpu)
{
	return vcpu->hv ? sizeof(struct keel_state_hyperv_vcpu) : 0;
}

VCPU_IOCTL(keel_hv_vcpu_get_state)
{
	const struct keel_hv_vcpu *hv = vcpu->hv;
	struct keel_state_hyperv_vcpu *s = buf;

	if (!hv)
		return 0;
	s->assist = hv->assist;
	s->runtime = hv->runtime;
	s->vp_index = hv->vp_index;
	s->due = hv->due;
	if (hv->due & KEEL_HYPERV_EXIT)
		s->exit = hv->exit;
	hv_synic_get_state(hv, &s->synic);
	return 0;
}

/* What the assist page does is in the section of paravirtualization. */
VCPU_IOCTL(keel_hv_vcpu_set_state)
{
	const struct keel_state_hyperv_vcpu *s = buf;
	struct keel_hv_vcpu *hv = vcpu->hv;
	int err;

	if (!hv)
		return 0;
	if (s->due & ~HYPERV_EXITS || s->exit.reserved ||
	    (!(s->due & KEEL_HYPERV_EXIT) && memchr_inv(&s->exit, 0, sizeof(s->exit))) ||
	    memchr_inv(s->reserved, 0, sizeof(s->reserved)))
		return -EINVAL;
	err = hv_synic_set_state(hv, &s->synic) ?: rename_vp(hv, s->vp_index);
	if (err)
		return err;
	hv->assist = s->assist;
	hv->runtime = s->runtime;
	hv->counts = false;	/* a thread that is in KVM_RUN meanwhile begins anew when the guest looks */
	hv->exit = s->exit;
	hv->due = s->due;
	if (s->due)
		keel_request(KEEL_REQ_HV, vcpu);
	return 0;
}

u32 keel_hv_setup(const struct keel_vcpu *vcpu)
{
	const struct keel_hv_vcpu *hv = vcpu->hv;

	return !hv ? 0 : KEEL_SETUP_HYPERV | (hv->enforce ? KEEL_SETUP_HYPERV_ENFORCED : 0) |
			 (hv->synic ? KEEL_SETUP_SYNIC : 0) | (hv->keep_pages ? KEEL_SETUP_SYNIC2 : 0);
}

long keel_hv_from_setup(struct keel_vcpu *vcpu, u32 setup)
{
	long err = 0;

	if (setup & ~(KEEL_SETUP_HYPERV | KEEL_SETUP_HYPERV_ENFORCED | KEEL_SETUP_SYNIC | KEEL_SETUP_SYNIC2) ||
	    (setup && !(setup & KEEL_SETUP_HYPERV)) || (setup & KEEL_SETUP_SYNIC2 && !(setup & KEEL_SETUP_SYNIC)))
		return -EINVAL;
	if (setup)
		err = keel_hv_enforce_cpuid(vcpu, setup & KEEL_SETUP_HYPERV_ENFORCED);
	if (!err && setup & KEEL_SETUP_SYNIC)
		err = keel_hv_enable_synic(vcpu, setup & KEEL_SETUP_SYNIC2);
	return err;
}

/* ------------------------------------------------------------------ exits to userspace */

void hv_exit_due(struct keel_hv_vcpu *hv, u8 which)
{
	hv->due |= which;
	keel_request(KEEL_REQ_HV, hv->vcpu);
}

static void tell_synic(struct keel_hv_vcpu *hv, u32 unused)
{
	struct kvm_hyperv_exit *exit = &hv->vcpu->run->hyperv;

	hv->vcpu->run->exit_reason = KVM_EXIT_HYPERV;
	memset(exit, 0, sizeof(*exit));
	exit->type = KVM_EXIT_HYPERV_SYNIC;
	exit->u.synic.msr = hv->exit.msr;
	exit->u.synic.control = hv->exit.control;
	exit->u.synic.evt_page = hv->exit.evt_page;
	exit->u.synic.msg_page = hv->exit.msg_page;
}

/* What the guest wanted of its debugger has come to this: it reads it from the MSR. */
static int complete_debugger(struct keel_vcpu *vcpu)
{
	WRITE_ONCE(vcpu->vm->hv->debugger[DEBUGGER_STATUS], READ_ONCE(vcpu->run->hyperv.u.syndbg.status));
	return KEEL_RESUME;
}

static void tell_debugger(struct keel_hv_vcpu *hv, u32 msr)
{
	const u64 *debugger = hv->vcpu->vm->hv->debugger;
	struct kvm_hyperv_exit *exit = &hv->vcpu->run->hyperv;

	hv->vcpu->run->exit_reason = KVM_EXIT_HYPERV;
	memset(exit, 0, sizeof(*exit));
	exit->type = KVM_EXIT_HYPERV_SYNDBG;
	exit->u.syndbg.msr = msr;
	exit->u.syndbg.control = READ_ONCE(debugger[DEBUGGER_CONTROL]);
	exit->u.syndbg.status = READ_ONCE(debugger[DEBUGGER_STATUS]);
	exit->u.syndbg.send_page = READ_ONCE(debugger[DEBUGGER_SEND]);
	exit->u.syndbg.recv_page = READ_ONCE(debugger[DEBUGGER_RECV]);
	exit->u.syndbg.pending_page = READ_ONCE(debugger[DEBUGGER_PENDING]);
	if (msr == HV_X64_MSR_DEBUGGER_CONTROL)
		hv->vcpu->complete = complete_debugger;
}

static void tell_event(struct keel_hv_vcpu *hv, u32 type)
{
	struct kvm_run *run = hv->vcpu->run;

	run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	run->system_event.type = type;
	run->system_event.ndata = 0;
}

/* One at a time, in this order. */
static const struct {
	u8 due;
	void (*tell)(struct keel_hv_vcpu *hv, u32 what);
	u32 what;
} exits[] = {
	{ KEEL_HYPERV_EXIT, tell_synic },
	{ KEEL_HYPERV_DEBUGGER_PENDING, tell_debugger, HV_X64_MSR_DEBUGGER_CONTROL + DEBUGGER_PENDING },
	{ KEEL_HYPERV_DEBUGGER_CONTROL, tell_debugger, HV_X64_MSR_DEBUGGER_CONTROL },
	{ KEEL_HYPERV_CRASH, tell_event, KVM_SYSTEM_EVENT_CRASH },
	{ KEEL_HYPERV_RESET, tell_event, KVM_SYSTEM_EVENT_RESET },
};

int keel_hv_request(struct keel_vcpu *vcpu)
{
	struct keel_hv_vcpu *hv = vcpu->hv;
	unsigned int i;

	if (READ_ONCE(hv->pending) | hv->stands)
		hv_stimers_process(hv);
	for (i = 0; i < ARRAY_SIZE(exits); i++) {
		if (!(hv->due & exits[i].due))
			continue;
		hv->due &= ~exits[i].due;
		exits[i].tell(hv, exits[i].what);
		if (hv->due)
			keel_request(KEEL_REQ_HV, vcpu);
		return KEEL_USER;
	}
	return KEEL_RESUME;
}

/* ------------------------------------------------------------------ CPUID, capabilities */

static long supported(unsigned long arg, bool direct_timers)
{
	struct kvm_cpuid_entry2 e[] = {
		{ .function = HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS, .eax = HV_MAX_LEAF, HV_NAME },
		{ .function = HYPERV_CPUID_INTERFACE, .eax = HV_SIGNATURE },
		{ .function = HYPERV_CPUID_VERSION, .eax = HV_BUILD, .ebx = HV_MAJOR_MINOR },
		{ .function = HYPERV_CPUID_FEATURES,
		  .eax = HV_MSR_VP_RUNTIME_AVAILABLE | HV_MSR_TIME_REF_COUNT_AVAILABLE | HV_MSR_SYNIC_AVAILABLE |
			 HV_MSR_SYNTIMER_AVAILABLE | HV_MSR_APIC_ACCESS_AVAILABLE | HV_MSR_HYPERCALL_AVAILABLE |
			 HV_MSR_VP_INDEX_AVAILABLE | HV_MSR_RESET_AVAILABLE | HV_MSR_REFERENCE_TSC_AVAILABLE |
			 HV_ACCESS_FREQUENCY_MSRS | HV_ACCESS_REENLIGHTENMENT | HV_ACCESS_TSC_INVARIANT,
		  .ebx = HV_POST_MESSAGES | HV_SIGNAL_EVENTS | HV_DEBUGGING | HV_ENABLE_EXTENDED_HYPERCALLS,
		  .edx = HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE | HV_FEATURE_EXT_GVA_RANGES_FLUSH | HV_FEATURE_FREQUENCY_MSRS_AVAILABLE |
			 HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE | HV_FEATURE_DEBUG_MSRS_AVAILABLE |
			 (direct_timers ? HV_STIMER_DIRECT_MODE_AVAILABLE : 0) },
		{ .function = HYPERV_CPUID_ENLIGHTMENT_INFO,
		  .eax = HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED | HV_X64_APIC_ACCESS_RECOMMENDED |
			 HV_X64_RELAXED_TIMING_RECOMMENDED | HV_X64_CLUSTER_IPI_RECOMMENDED |
			 HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED | HV_DEPRECATING_AEOI_RECOMMENDED |
			 (cpu_smt_possible() ? 0 : HV_X64_NO_NONARCH_CORESHARING),
		  .ebx = NEVER_NOTIFY },
		{ .function = HYPERV_CPUID_IMPLEMENT_LIMITS, .eax = KEEL_MAX_VCPUS, .ebx = 64 /* logical CPUs */ },
		{ .function = HV_DEBUGGER_LEAF, .eax = HV_MAX_LEAF, HV_NAME },
		{ .function = HV_DEBUGGER_LEAF + 1, .eax = HV_DEBUGGER_INTERFACE },
		{ .function = HV_DEBUGGER_LEAF + 2, .eax = HV_ALLOW_KERNEL_DEBUGGING },
	};

	return keel_copy_cpuid((void __user *)arg, e, ARRAY_SIZE(e));
}

SYS_IOCTL(keel_get_supported_hv_cpuid)
{
	return supported(arg, true);
}

VCPU_IOCTL(keel_vcpu_get_supported_hv_cpuid)
{
	return supported(arg, vcpu->apic);
}

long keel_hv_enforce_cpuid(struct keel_vcpu *vcpu, bool on)
{
	int err = keel_hv_enable(vcpu);

	if (!err)
		vcpu->hv->enforce = on;
	return err;
}

VM_IOCTL(keel_hv_eventfd)
{
	const struct kvm_hyperv_eventfd *args = buf;
	struct eventfd_ctx *ctx;
	struct keel_hv *hv;
	int err;

	if (args->flags & ~KVM_HYPERV_EVENTFD_DEASSIGN || args->conn_id & ~KVM_HYPERV_CONN_ID_MASK)
		return -EINVAL;
	hv = hv_vm(vm);
	if (!hv)
		return -ENOMEM;
	if (args->flags & KVM_HYPERV_EVENTFD_DEASSIGN) {
		ctx = xa_erase(&hv->events, args->conn_id);
		if (!ctx)
			return -ENOENT;
		eventfd_ctx_put(ctx);
		return 0;
	}
	ctx = eventfd_ctx_fdget(args->fd);
	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	err = xa_insert(&hv->events, args->conn_id, ctx, GFP_KERNEL_ACCOUNT);
	if (err)
		eventfd_ctx_put(ctx);
	return err == -EBUSY ? -EEXIST : err;
}
