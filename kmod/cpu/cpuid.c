// SPDX-License-Identifier: GPL-2.0-only
/*
 * cpuid.c - which CPU the guest sees: the leaves that the VMM chose (KVM_SET_CPUID2), and what follows from them for
 * control registers, EFER and XCR0.
 *
 * Lock: a vCPU's table changes under vcpu->mutex only.
 * SDM vol. 2A "CPUID", vol. 1 13.2 (leaf 0xD); APM vol. 3 appendix E.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/kvm_para.h>
#include <asm/processor.h>
#include "features.h"
#include "ops.h"
#include "pmu.h"
#include "trace.h"

#define CPUID_MAX_ENTRIES	256	/* the ABI's limit on what a VMM may set */
#define HYPERVISOR_LEAF		0x40000000
#define APIC_BIT		BIT(X86_FEATURE_APIC & 31)

static u64 host_cr4_mask __ro_after_init;
static u64 find_host_cr4_mask(void);

void keel_cpuid_setup(void)
{
	keel_features_setup();
	host_cr4_mask = find_host_cr4_mask();
	keel_msr_setup();
}

/* ------------------------------------------------------------- the vCPU's table */

static u64 entry_key(const struct kvm_cpuid_entry2 *e)
{
	bool indexed = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

	return (u64)e->function << 32 | (indexed ? e->index : 0);
}

/* The entry for (function, index): the last whose key is not above it, if it is about that leaf. */
static const struct kvm_cpuid_entry2 *find(const struct keel_cpu_model *m, u32 function, u32 index)
{
	u64 key = (u64)function << 32 | index;
	int lo = 0, hi = m->nent;

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (entry_key(&m->entries[mid]) <= key)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || m->entries[lo - 1].function != function)
		return NULL;
	if ((m->entries[lo - 1].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) && m->entries[lo - 1].index != index)
		return NULL;
	return &m->entries[lo - 1];
}

static bool entry_is(const struct kvm_cpuid_entry2 *e, u32 function, u32 index)
{
	return e->function == function && (e->index == index || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
}

/* find(), for the guest: it asks for few leaves, over and over. */
static const struct kvm_cpuid_entry2 *find_again(struct keel_cpu_model *m, u32 function, u32 index)
{
	u8 *memo = &m->memo[(function ^ function >> 28 ^ index << 2) % ARRAY_SIZE(m->memo)];
	const struct kvm_cpuid_entry2 *e;

	if (likely(*memo && entry_is(&m->entries[*memo - 1], function, index)))
		return &m->entries[*memo - 1];
	e = find(m, function, index);
	if (e && e - m->entries < 255)
		*memo = e - m->entries + 1;
	return e;
}

static u32 set_if(u32 reg, u32 bit, bool on)
{
	return on ? reg | bit : reg & ~bit;
}

bool keel_guest_has_mwait(struct keel_vcpu *vcpu)
{
	if (keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT))
		return keel_guest_has(vcpu, X86_FEATURE_MWAIT);
	return vcpu->msrs.misc_enable & MSR_IA32_MISC_ENABLE_MWAIT;
}

/* Bits and sizes that follow the vCPU's present state rather than what the VMM set. */
static void dynamic_bits(struct keel_vcpu *vcpu, u32 function, u32 index, u32 r[4])
{
	switch (function) {
	case 1:
		r[EDX] = set_if(r[EDX], APIC_BIT, vcpu->apic_base & MSR_IA32_APICBASE_ENABLE);
		r[ECX] = set_if(r[ECX], BIT(X86_FEATURE_OSXSAVE & 31), keel_cr4(vcpu) & X86_CR4_OSXSAVE);
		r[ECX] = set_if(r[ECX], BIT(X86_FEATURE_MWAIT & 31), keel_guest_has_mwait(vcpu));
		break;
	case 7:
		if (index)
			break;
		r[ECX] = set_if(r[ECX], BIT(X86_FEATURE_OSPKE & 31), keel_cr4(vcpu) & X86_CR4_PKE);
		if (unlikely(vcpu->msrs.tsx_ctrl & TSX_CTRL_CPUID_CLEAR))
			r[EBX] &= ~(BIT(X86_FEATURE_RTM & 31) | BIT(X86_FEATURE_HLE & 31));
		break;
	case 0xd:
		if (!index)
			r[EBX] = keel_xstate_bytes(vcpu->fpu.xcr0, false);
		else if (index == 1 && (r[EAX] & (BIT(X86_FEATURE_XSAVES & 31) | BIT(X86_FEATURE_XSAVEC & 31))))
			r[EBX] = keel_xstate_bytes(vcpu->fpu.xcr0 | vcpu->fpu.xss, true);
		break;
	}
}

/* No entry of its own: is the leaf above its range, and does this vendor then show the highest basic one? */
static const struct kvm_cpuid_entry2 *out_of_range(const struct keel_cpu_model *m, u32 function, u32 index)
{
	const struct kvm_cpuid_entry2 *first;
	u32 base;

	if (m->lenient)
		return NULL;
	if (function >= HYPERVISOR_LEAF && function < HYPERVISOR_LEAF + 0x10000000)
		base = function & 0xffffff00;
	else if (function >= 0xc0000000)
		base = 0xc0000000;
	else
		base = function & 0x80000000;
	first = find(m, base, 0);
	if (first && function <= first->eax)
		return NULL;
	return find(m, m->basic_max, index);
}

/* Leaves nobody set: zero, but that past the last level topology leaves still name the level and the APIC id. */
static void no_leaf(const struct keel_cpu_model *m, u32 function, u32 index, u32 r[4])
{
	const struct kvm_cpuid_entry2 *e = function == 0xb || function == 0x1f ? find(m, function, 0) : NULL;

	r[EAX] = 0;
	r[EBX] = 0;
	r[ECX] = e ? index & 0xff : 0;
	r[EDX] = e ? e->edx : 0;
}

void keel_cpuid(struct keel_vcpu *vcpu, u32 r[4])
{
	struct keel_cpu_model *m = &vcpu->model;
	u32 function = r[EAX], index = r[ECX];
	const struct kvm_cpuid_entry2 *e = find_again(m, function, index);

	if (unlikely(!e)) {
		e = function == 0xb || function == 0x1f ? NULL : out_of_range(m, function, index);
		if (!e) {
			no_leaf(m, function, index, r);
			return;
		}
		function = e->function;
	}
	r[EAX] = e->eax;
	r[EBX] = e->ebx;
	r[ECX] = e->ecx;
	r[EDX] = e->edx;
	if (function <= 0xd)
		dynamic_bits(vcpu, function, index, r);
	else if (unlikely(function == 0x80000007 && keel_hv_hides_invariant_tsc(vcpu)))
		r[EDX] &= ~INVARIANT_TSC;
}

/* The guest's kernel has asked for faults instead of answers in user mode. */
bool keel_cpuid_faults(struct keel_vcpu *vcpu)
{
	return unlikely(vcpu->msrs.misc_features & MSR_MISC_FEATURES_ENABLES_CPUID_FAULT) && keel_cpl(vcpu);
}

static noinline void cpuid_trace(struct keel_vcpu *vcpu, u32 function, u32 index, const u32 out[4])
{
	trace_keel_cpuid(vcpu, function, index, out[EAX], out[EBX], out[ECX], out[EDX]);
}

int keel_emulate_cpuid(struct keel_vcpu *vcpu)
{
	u32 function = vcpu->regs[KEEL_RAX], index = vcpu->regs[KEEL_RCX];
	u32 out[4] = { function, 0, index, 0 };
	u64 next;
	int r = keel_next_rip(vcpu, &next);

	if (r)
		return r;
	vcpu->stat.cpuid++;
	if (keel_cpuid_faults(vcpu)) {
		keel_raise_error(vcpu, X86_TRAP_GP, 0);
		return KEEL_RESUME;
	}
	keel_cpuid(vcpu, out);
	if (trace_keel_cpuid_enabled())
		cpuid_trace(vcpu, function, index, out);
	keel_set_reg(vcpu, KEEL_RAX, out[0]);
	keel_set_reg(vcpu, KEEL_RBX, out[1]);
	keel_set_reg(vcpu, KEEL_RCX, out[2]);
	keel_set_reg(vcpu, KEEL_RDX, out[3]);
	keel_advance(vcpu, next);
	return KEEL_RESUME;
}

/* Some guests run MONITOR and MWAIT without asking CPUID: let them, unless the VMM says no. */
bool keel_mwait_is_ud(struct keel_vcpu *vcpu)
{
	return !keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS) && !keel_guest_has_mwait(vcpu);
}

int keel_emulate_mwait(struct keel_vcpu *vcpu)
{
	int r;

	if (keel_mwait_is_ud(vcpu)) {
		keel_raise(vcpu, X86_TRAP_UD);
		return KEEL_RESUME;
	}
	r = keel_skip(vcpu);
	return r < 0 ? KEEL_RESUME : r;
}

void keel_cpuid_free(struct keel_vcpu *vcpu)
{
	kvfree(vcpu->model.entries);
	vcpu->model.entries = NULL;
	vcpu->model.nent = 0;
}

/* --------------------------------------------- what follows from a guest's CPUID */

/* CR4 bits that need a feature; all other bits of the mask below are in every guest. */
static const struct cr4_row {
	u64 bit;
	unsigned int feature;
} cr4_rows[] = {
	{ X86_CR4_UMIP, X86_FEATURE_UMIP },
	{ X86_CR4_LA57, X86_FEATURE_LA57 },
	{ X86_CR4_FSGSBASE, X86_FEATURE_FSGSBASE },
	{ X86_CR4_PCIDE, X86_FEATURE_PCID },
	{ X86_CR4_OSXSAVE, X86_FEATURE_XSAVE },
	{ X86_CR4_SMEP, X86_FEATURE_SMEP },
	{ X86_CR4_SMAP, X86_FEATURE_SMAP },
	{ X86_CR4_PKE, X86_FEATURE_PKU },
	{ X86_CR4_CET, X86_FEATURE_SHSTK },
	{ X86_CR4_CET, X86_FEATURE_IBT },
	{ X86_CR4_LAM_SUP, X86_FEATURE_LAM },
};

#define CR4_EVERYWHERE	(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | \
			 X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT)

void keel_cpuid_unsaid(struct keel_vcpu *vcpu)
{
	vcpu->model.maxphyaddr = KEEL_PHYADDR_UNSAID;
	vcpu->model.cr4_reserved = KEEL_UNSAID_IS_NONE ? ~CR4_EVERYWHERE : 0;
}

static u64 find_host_cr4_mask(void)
{
	u64 mask = CR4_EVERYWHERE;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cr4_rows); i++)
		if (keel_offers(cr4_rows[i].feature))
			mask |= cr4_rows[i].bit;
	return mask;
}

u64 keel_host_cr4_mask(void)
{
	return host_cr4_mask;
}

static u64 guest_efer(struct keel_vcpu *vcpu)
{
	u64 allowed = EFER_SCE;

	if (keel_guest_has(vcpu, X86_FEATURE_LM))
		allowed |= EFER_LME | EFER_LMA;
	if (keel_guest_has(vcpu, X86_FEATURE_NX))
		allowed |= EFER_NX;
	if (keel_guest_has(vcpu, X86_FEATURE_FXSR_OPT))
		allowed |= EFER_FFXSR;
	if (keel_guest_has(vcpu, KEEL_FEATURE_AUTOIBRS))
		allowed |= EFER_AUTOIBRS;
	return allowed & keel_hw.efer_allowed;
}

/* KVM's leaves may stand behind those of another hypervisor that the guest is told of, too. */
static struct kvm_cpuid_entry2 *find_kvm_features(const struct keel_cpu_model *m)
{
	u32 base;

	for (base = HYPERVISOR_LEAF; base < HYPERVISOR_LEAF + 0x10000; base += 0x100) {
		const struct kvm_cpuid_entry2 *e = find(m, base, 0);

		if (e && !memcmp(&e->ebx, KVM_SIGNATURE, 3 * sizeof(u32)))
			return (struct kvm_cpuid_entry2 *)find(m, base | (KVM_CPUID_FEATURES & 0xff), 0);
	}
	return NULL;
}

static bool is_hyperv(const struct keel_cpu_model *m)
{
	const struct kvm_cpuid_entry2 *e = find(m, HYPERV_CPUID_INTERFACE, 0);

	return e && e->eax == HV_SIGNATURE;
}

static void derive_hyperv(struct keel_cpu_model *m)
{
	const struct kvm_cpuid_entry2 *e;

	m->is_hyperv = is_hyperv(m);
	memset(m->hv, 0, sizeof(m->hv));
	if (!m->is_hyperv)
		return;
	e = find(m, HYPERV_CPUID_FEATURES, 0);
	if (e) {
		m->hv[HV_FEAT_EAX] = e->eax;
		m->hv[HV_FEAT_EBX] = e->ebx;
		m->hv[HV_FEAT_EDX] = e->edx;
	}
	e = find(m, HYPERV_CPUID_ENLIGHTMENT_INFO, 0);
	if (e) {
		m->hv[HV_REC_EAX] = e->eax;
		m->hv[HV_REC_EBX] = e->ebx;
	}
	e = find(m, HV_DEBUGGER_LEAF + 2, 0);
	if (e)
		m->hv[HV_DEBUGGER_EAX] = e->eax;
}

static void derive(struct keel_vcpu *vcpu)
{
	struct keel_cpu_model *m = &vcpu->model;
	const struct kvm_cpuid_entry2 *e;
	u64 cr4 = CR4_EVERYWHERE;
	unsigned int i;

	memset(m->caps, 0, sizeof(m->caps));
	for (i = 0; i < keel_nr_feature_rows; i++) {
		const struct keel_feature_row *row = &keel_feature_rows[i];

		e = find(m, row->function, row->index);
		if (e)
			m->caps[row->word] = *keel_entry_reg((struct kvm_cpuid_entry2 *)e, row->reg);
	}
	e = find(m, 0, 0);
	m->basic_max = e ? e->eax : 0;
	/* "AuthenticAMD" and "HygonGenuine" */
	m->lenient = e && ((e->ebx == 0x68747541 && e->edx == 0x69746e65 && e->ecx == 0x444d4163) ||
			   (e->ebx == 0x6f677948 && e->edx == 0x6e65476e && e->ecx == 0x656e6975));
	e = find(m, 0x80000000, 0);
	if (e && e->eax >= 0x80000008)
		e = find(m, 0x80000008, 0);
	else
		e = NULL;
	m->maxphyaddr = e ? e->eax & 0xff : KEEL_PHYADDR_UNSAID;
	if (m->maxphyaddr < 32 || m->maxphyaddr > 52)
		m->maxphyaddr = m->maxphyaddr < 32 ? 32 : 52;
	e = find(m, 0xd, 0);
	m->xcr0_allowed = e ? (e->eax | (u64)e->edx << 32) & keel_supported_xcr0() : 0;
	keel_cet_derive(vcpu);
	e = find(m, 0xd, 1);
	m->xss_allowed = e && vcpu->fpu.cet.used ? (e->ecx | (u64)e->edx << 32) & keel_supported_xss() : 0;
	for (i = 0; i < ARRAY_SIZE(cr4_rows); i++)
		if (keel_guest_has(vcpu, cr4_rows[i].feature))
			cr4 |= cr4_rows[i].bit;
	e = find_kvm_features(m);
	m->pv_features = e ? e->eax : 0;
	derive_hyperv(m);
	keel_pmu_refresh(vcpu, find(m, keel_hw.pmu->leaf, 0));
	irq_lapic_new_model(vcpu);
	m->cr4_reserved = ~(cr4 & keel_host_cr4_mask());
	m->efer_reserved = ~guest_efer(vcpu);
	e = find(m, 0, 0);
	m->foreign = e && (e->ebx == keel_hw.foreign[0] || e->ebx == keel_hw.foreign[1]);
}

/* The same as far as the VMM chose it: what KVM_GET_CPUID2 gave may be set again. */
static bool same_entry(struct keel_vcpu *vcpu, struct kvm_cpuid_entry2 a, struct kvm_cpuid_entry2 b)
{
	dynamic_bits(vcpu, a.function, a.index, &a.eax);
	dynamic_bits(vcpu, b.function, b.index, &b.eax);
	return !memcmp(&a, &b, offsetof(struct kvm_cpuid_entry2, padding));
}

static bool same_table(struct keel_vcpu *vcpu, const struct kvm_cpuid_entry2 *entries, int nent)
{
	const struct keel_cpu_model *m = &vcpu->model;
	int i;

	for (i = 0; nent == m->nent && i < nent; i++)
		if (!same_entry(vcpu, entries[i], m->entries[i]))
			return false;
	return nent == m->nent;
}

/* Takes over @entries (kvmalloc'd), whatever happens. */
static int install(struct keel_vcpu *vcpu, struct kvm_cpuid_entry2 *entries, int nent)
{
	struct keel_cpu_model *m = &vcpu->model;
	struct keel_cpu_model probe = { .entries = entries, .nent = nent };
	struct kvm_cpuid_entry2 *features;
	const struct kvm_cpuid_entry2 *e;
	int i, j, err = -EINVAL;

	/* Insertion sort: stable, so of two entries for one leaf the order stays; nearly sorted as it comes. */
	for (i = 1; i < nent; i++) {
		struct kvm_cpuid_entry2 cur;

		if (likely(entry_key(&entries[i - 1]) <= entry_key(&entries[i])))
			continue;
		cur = entries[i];
		for (j = i; j && entry_key(&entries[j - 1]) > entry_key(&cur); j--)
			entries[j] = entries[j - 1];
		entries[j] = cur;
	}
	features = find_kvm_features(&probe);
	/* A vCPU whose HLT does not exit cannot be kicked out of it. */
	if (features && vcpu->vm->exits_off & KVM_X86_DISABLE_EXITS_HLT)
		features->eax &= ~BIT(KVM_FEATURE_PV_UNHALT);
	/* A running guest's CPU does not change; the same table again is harmless, and VMMs do that. */
	if (vcpu->has_run) {
		if (same_table(vcpu, entries, nent))
			err = 0;
		goto discard;
	}
	e = find(&probe, 0x80000008, 0);
	if (e) {
		u8 linear = e->eax >> 8;

		if (linear != 48 && linear != 57 && linear != 0)
			goto discard;
	}
	e = find(&probe, 0xd, 0);
	err = e ? keel_fpu_grow(vcpu, e->eax | (u64)e->edx << 32) : 0;
	if (err)
		goto discard;
	if (is_hyperv(&probe)) {
		err = keel_hv_enable(vcpu);
		if (err)
			goto discard;
	}
	kvfree(m->entries);
	m->entries = entries;
	m->nent = nent;
	memset(m->memo, 0, sizeof(m->memo));
	derive(vcpu);
	keel_request(KEEL_REQ_INTERCEPTS, vcpu);
	return 0;
discard:
	kvfree(entries);
	return err;
}

int keel_cpuid_set(struct keel_vcpu *vcpu, const struct kvm_cpuid_entry2 *entries, unsigned int n)
{
	struct kvm_cpuid_entry2 *copy;

	if (n > CPUID_MAX_ENTRIES)
		return -E2BIG;
	copy = kvmalloc_array(n, sizeof(*copy), GFP_KERNEL_ACCOUNT);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, entries, n * sizeof(*copy));
	return install(vcpu, copy, n);
}

VCPU_IOCTL(keel_set_cpuid2)
{
	struct kvm_cpuid2 __user *user = (void __user *)arg;
	struct kvm_cpuid_entry2 *entries = NULL;
	struct kvm_cpuid2 head;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nent > CPUID_MAX_ENTRIES)
		return -E2BIG;
	if (head.nent) {
		entries = kvmalloc_array(head.nent, sizeof(*entries), GFP_KERNEL_ACCOUNT);
		if (!entries)
			return -ENOMEM;
		if (copy_from_user(entries, user->entries, array_size(sizeof(*entries), head.nent))) {
			kvfree(entries);
			return -EFAULT;
		}
	}
	return install(vcpu, entries, head.nent);
}

VCPU_IOCTL(keel_set_cpuid)
{
	struct kvm_cpuid __user *user = (void __user *)arg;
	struct kvm_cpuid_entry *old = NULL;
	struct kvm_cpuid_entry2 *entries = NULL;
	struct kvm_cpuid head;
	unsigned int i;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nent > CPUID_MAX_ENTRIES)
		return -E2BIG;
	if (head.nent) {
		old = vmemdup_user(user->entries, array_size(sizeof(*old), head.nent));
		if (IS_ERR(old))
			return PTR_ERR(old);
		entries = kvcalloc(head.nent, sizeof(*entries), GFP_KERNEL_ACCOUNT);
		if (!entries) {
			kvfree(old);
			return -ENOMEM;
		}
		for (i = 0; i < head.nent; i++) {
			entries[i].function = old[i].function;
			entries[i].eax = old[i].eax;
			entries[i].ebx = old[i].ebx;
			entries[i].ecx = old[i].ecx;
			entries[i].edx = old[i].edx;
		}
		kvfree(old);
	}
	return install(vcpu, entries, head.nent);
}

long keel_copy_cpuid(struct kvm_cpuid2 __user *user, const struct kvm_cpuid_entry2 *entries, unsigned int n)
{
	struct kvm_cpuid2 head;

	if (copy_from_user(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nent < n)
		return -E2BIG;
	if (copy_to_user(user->entries, entries, n * sizeof(*entries)) || put_user(n, &user->nent))
		return -EFAULT;
	return 0;
}

VCPU_IOCTL(keel_get_cpuid2)
{
	struct keel_cpu_model *m = &vcpu->model;
	struct kvm_cpuid_entry2 *copy;
	long ret;
	int i;

	copy = kvcalloc(max(m->nent, 1), sizeof(*copy), GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	for (i = 0; i < m->nent; i++) {
		copy[i] = m->entries[i];
		dynamic_bits(vcpu, copy[i].function, copy[i].index, &copy[i].eax);
	}
	ret = keel_copy_cpuid((void __user *)arg, copy, m->nent);
	kvfree(copy);
	return ret;
}

/* What this process may not have in XCR0 is not there. */
SYS_IOCTL(keel_get_supported_cpuid)
{
	u64 xcr0 = keel_permitted_xcr0(), hidden = keel_supported_xcr0() & ~xcr0;
	struct kvm_cpuid_entry2 *copy;
	unsigned int i, n = 0;
	long ret;

	if (!hidden)
		return keel_copy_cpuid((void __user *)arg, keel_offered, keel_nr_offered);
	copy = kmalloc_array(keel_nr_offered, sizeof(*copy), GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	for (i = 0; i < keel_nr_offered; i++) {
		const struct kvm_cpuid_entry2 *e = &keel_offered[i];

		if (e->function == 0xd && e->index > 1 && hidden & BIT_ULL(e->index))
			continue;
		copy[n++] = *e;
		if (e->function == 0xd && e->index <= 1)
			keel_fill_leaf_d(&copy[n - 1], xcr0);
	}
	ret = keel_copy_cpuid((void __user *)arg, copy, n);
	kfree(copy);
	return ret;
}

/* keel emulates no instruction the host's CPU lacks: the leaves are there, and empty. */
SYS_IOCTL(keel_get_emulated_cpuid)
{
	static const struct kvm_cpuid_entry2 none[] = {
		{ .function = 0, .eax = 7 },
		{ .function = 1 },
		{ .function = 7, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX },
	};
	struct kvm_cpuid2 __user *user = (void __user *)arg;
	struct kvm_cpuid_entry2 asked;
	u32 room, i;

	if (get_user(room, &user->nent))
		return -EFAULT;
	/* What may come to mean something is kept free. */
	for (i = 0; i < min_t(u32, room, CPUID_MAX_ENTRIES); i++) {
		if (copy_from_user(&asked, &user->entries[i], sizeof(asked)))
			return -EFAULT;
		if (asked.padding[0] || asked.padding[1] || asked.padding[2])
			return -EINVAL;
	}
	return keel_copy_cpuid((void __user *)arg, none, ARRAY_SIZE(none));
}
