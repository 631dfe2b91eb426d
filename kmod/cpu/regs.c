// SPDX-License-Identifier: GPL-2.0-only
/*
 * regs.c - registers: control registers with their rules, stepping over an instruction, and the ioctls
 * that get and set them.  SDM 3A 2.5 (control registers), 9.8.5 (entering IA-32e mode); APM 3.1, 14.6.
 *
 * Lock: vcpu->mutex.
 */

#include <linux/uaccess.h>
#include <asm/trapnr.h>
#include "ops.h"

void keel_cache_reg(struct keel_vcpu *vcpu, unsigned int reg)
{
	keel_call(cache_reg, vcpu, reg);
}

bool keel_is_64bit(struct keel_vcpu *vcpu)
{
	return keel_is_long_mode(vcpu) && keel_call(cs_mode, vcpu) & EMUL_ATTR_L;
}

int keel_cpl(struct keel_vcpu *vcpu)
{
	return keel_call(cpl, vcpu);
}

u64 keel_linear_rip(struct keel_vcpu *vcpu)
{
	if (keel_is_64bit(vcpu))
		return keel_reg(vcpu, KEEL_RIP);
	return (u32)(keel_call(seg_base, vcpu, KEEL_CS) + keel_reg(vcpu, KEEL_RIP));
}

bool keel_is_canonical(u64 addr)
{
	unsigned int bits = keel_offers(X86_FEATURE_LA57) ? 57 : 48;

	return (u64)((s64)(addr << (64 - bits)) >> (64 - bits)) == addr;
}

/* ------------------------------------------------------- control registers */

#define CR0_KNOWN	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | \
			 X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

/* The paging mode, or a rule of it, changed: what was translated before means something else now. */
static void paging_changed(struct keel_vcpu *vcpu)
{
	keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
}

int keel_set_cr0(struct keel_vcpu *vcpu, u64 val)
{
	u64 old = keel_cr0(vcpu);
	struct kvm_segment tr;

	val |= X86_CR0_ET;
	if (val >> 32)
		return 1;
	val &= CR0_KNOWN;		/* reserved low bits are ignored, as on hardware */
	if ((val & X86_CR0_NW) && !(val & X86_CR0_CD))
		return 1;
	if ((val & X86_CR0_PG) && !(val & X86_CR0_PE))
		return 1;
	if (!(val & X86_CR0_PG) && (keel_cr4(vcpu) & X86_CR4_PCIDE))
		return 1;
	if (!(val & X86_CR0_WP) && (keel_cr4(vcpu) & X86_CR4_CET))
		return 1;
	if ((val & X86_CR0_PG) && !(old & X86_CR0_PG)) {
		if (vcpu->efer & EFER_LME) {
			if (!(keel_cr4(vcpu) & X86_CR4_PAE) || keel_call(cs_mode, vcpu) & EMUL_ATTR_L)
				return 1;
			keel_call(get_segment, vcpu, &tr, KEEL_TR);
			if (keel_hw.long_wants_tss && (tr.type == 1 || tr.type == 3))
				return 1;
			keel_call(set_efer, vcpu, vcpu->efer | EFER_LMA);
		} else if ((keel_cr4(vcpu) & X86_CR4_PAE) && !mmu_load_pdptrs(vcpu, keel_cr3(vcpu))) {
			return 1;
		}
	}
	if (!(val & X86_CR0_PG) && (old & X86_CR0_PG) && (vcpu->efer & EFER_LMA)) {
		if (keel_is_64bit(vcpu))
			return 1;
		keel_call(set_efer, vcpu, vcpu->efer & ~(u64)EFER_LMA);
	}
	keel_call(set_cr0, vcpu, val);
	if ((val ^ old) & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
		paging_changed(vcpu);
	return 0;
}

/* What CR3 cannot have in long mode. */
static u64 cr3_reserved(struct keel_vcpu *vcpu)
{
	u64 bits = ~0ULL << vcpu->model.maxphyaddr;

	if (keel_offers(X86_FEATURE_LAM) && keel_guest_has(vcpu, X86_FEATURE_LAM))
		bits &= ~(u64)KEEL_CR3_LAM;
	return bits;
}

int keel_set_cr3(struct keel_vcpu *vcpu, u64 val)
{
	bool noflush = false;

	if (keel_cr4(vcpu) & X86_CR4_PCIDE) {
		noflush = val & BIT_ULL(63);
		val &= ~BIT_ULL(63);
	}
	if (keel_is_long_mode(vcpu)) {
		if (val & cr3_reserved(vcpu))
			return 1;
	} else {
		val = (u32)val;
		if (keel_is_paging(vcpu) && (keel_cr4(vcpu) & X86_CR4_PAE) && !mmu_load_pdptrs(vcpu, val))
			return 1;
	}
	keel_call(set_cr3, vcpu, val);
	/* Shadow paging keeps nothing of the contexts that are not in use. */
	if (!noflush || vcpu->mmu.shadow)
		paging_changed(vcpu);
	return 0;
}

u64 keel_cr4_reserved(struct keel_vcpu *vcpu)
{
	return vcpu->model.cr4_reserved | ~keel_host_cr4_mask();
}

int keel_set_cr4(struct keel_vcpu *vcpu, u64 val)
{
	u64 old = keel_cr4(vcpu), flips = val ^ old;

	if (val & keel_cr4_reserved(vcpu))
		return 1;
	if ((val & X86_CR4_CET) && !(keel_cr0(vcpu) & X86_CR0_WP))
		return 1;
	if (keel_is_long_mode(vcpu)) {
		if (!(val & X86_CR4_PAE) || (flips & X86_CR4_LA57))
			return 1;
	}
	if ((flips & val & X86_CR4_PCIDE) && (!keel_is_long_mode(vcpu) || (keel_cr3(vcpu) & 0xfff)))
		return 1;
	if (!keel_is_long_mode(vcpu) && keel_is_paging(vcpu) && (val & X86_CR4_PAE) &&
	    (flips & (X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_SMEP)) &&
	    !mmu_load_pdptrs(vcpu, keel_cr3(vcpu)))
		return 1;
	keel_call(set_cr4, vcpu, val);
	if (flips & (X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PKE |
		     X86_CR4_PCIDE | X86_CR4_LA57))
		paging_changed(vcpu);
	return 0;
}

int keel_set_cr8(struct keel_vcpu *vcpu, u64 val)
{
	if (val & ~0xfULL)
		return 1;
	if (vcpu->apic)
		irq_lapic_set_tpr(vcpu, val << 4);
	else
		vcpu->cr8 = val;
	return 0;
}

int keel_set_efer(struct keel_vcpu *vcpu, u64 val, bool host)
{
	u64 old = vcpu->efer;

	if (val & ~keel_hw.efer_allowed)
		return 1;
	if (!host) {
		if (val & vcpu->model.efer_reserved)
			return 1;
		if (keel_is_paging(vcpu) && ((val ^ old) & EFER_LME))
			return 1;
	}
	/* That is CR0's to say, for a VMM, too, but with all of them at once. */
	val = (val & ~(u64)EFER_LMA) | (old & EFER_LMA);
	keel_call(set_efer, vcpu, val);
	if ((val ^ old) & EFER_NX)
		paging_changed(vcpu);
	return 0;
}

/* ------------------------------------------------ over the next instruction */

static enum emul_mode insn_mode(struct keel_vcpu *vcpu)
{
	return emul_mode(keel_cr0(vcpu), keel_is_long_mode(vcpu), keel_rflags(vcpu), keel_call(cs_mode, vcpu));
}

#define INSN_MAX	15
#define INSN_FIRST	8	/* one aligned-size read; nearly all intercepted instructions are shorter */

/* @n bytes of code at @linear, not across a page.  0, -EAGAIN, or -EFAULT: the fault is raised if @raise. */
static int fetch_code(struct keel_vcpu *vcpu, u64 linear, u8 *buf, unsigned int n, bool raise)
{
	u32 access = MMU_ACC_FETCH | (keel_cpl(vcpu) == 3 ? MMU_ACC_USER : 0);
	struct emul_fault fault;
	u64 gpa;
	int r;

	r = mmu_gva_to_gpa(vcpu, linear, access, &gpa, &fault);
	if (!r) {
		r = keel_vcpu_read(vcpu, gpa, buf, n);
		if (r == -EFAULT)	/* code in MMIO space */
			fault = (struct emul_fault){ .vector = X86_TRAP_GP, .has_error = true };
	}
	if (!r || r == -EAGAIN)
		return r;
	if (raise)
		keel_raise_fault(vcpu, &fault);
	return -EFAULT;
}

int keel_insn_len(struct keel_vcpu *vcpu)
{
	u64 linear = keel_linear_rip(vcpu);
	enum emul_mode mode = insn_mode(vcpu);
	unsigned int have = 0, want = INSN_FIRST;
	u8 buf[INSN_MAX + 1];
	int r, len;

	for (;;) {
		unsigned int n = min_t(unsigned int, want - have, PAGE_SIZE - offset_in_page(linear + have));

		r = fetch_code(vcpu, linear + have, buf + have, n, !have);
		if (r)
			return r;
		have += n;
		len = emul_insn_length(buf, have, mode);
		if (len > 0)
			return len;
		/* Another vCPU changed the code since the exit: run it again as it is now. */
		if (len != EMUL_LEN_MORE || have == INSN_MAX)
			return -EFAULT;
		if (have >= INSN_FIRST)
			want = INSN_MAX;
	}
}

static noinline void advance_flags(struct keel_vcpu *vcpu, u64 next_rip)
{
	u64 rflags = keel_rflags(vcpu);

	keel_set_reg(vcpu, KEEL_RIP, next_rip);
	keel_call(set_shadow, vcpu, 0);
	if (rflags & (X86_EFLAGS_TF | X86_EFLAGS_RF)) {
		keel_set_rflags(vcpu, rflags & ~(u64)X86_EFLAGS_RF);
		if (rflags & X86_EFLAGS_TF)
			keel_raise_db(vcpu, DR_STEP);
	}
}

void keel_advance(struct keel_vcpu *vcpu, u64 next_rip)
{
	if (unlikely(!(vcpu->avail & BIT(KEEL_LAZY_RFLAGS)) || vcpu->rflags & (X86_EFLAGS_TF | X86_EFLAGS_RF))) {
		advance_flags(vcpu, next_rip);
		return;
	}
	keel_set_reg(vcpu, KEEL_RIP, next_rip);
	keel_call(set_shadow, vcpu, 0);
}

int keel_measure_insn(struct keel_vcpu *vcpu)
{
	int len = keel_insn_len(vcpu);

	if (len == -EAGAIN)
		return KEEL_SLOW;
	if (len < 0)
		return KEEL_RESUME;
	vcpu->next_rip = keel_reg(vcpu, KEEL_RIP) + len;
	if (!keel_is_64bit(vcpu))
		vcpu->next_rip = (u32)vcpu->next_rip;
	return 0;
}

int keel_skip(struct keel_vcpu *vcpu)
{
	u64 next;
	int r = keel_next_rip(vcpu, &next);

	if (r)
		return r == KEEL_SLOW ? KEEL_SLOW : -1;
	keel_advance(vcpu, next);
	return KEEL_RESUME;
}

/* ------------------------------------------------------------------ ioctls */

/* As kvm_regs has them. */
#define UAPI_REGS(R)										\
	R(rax, RAX) R(rbx, RBX) R(rcx, RCX) R(rdx, RDX) R(rsi, RSI) R(rdi, RDI) R(rsp, RSP) R(rbp, RBP)	\
	R(r8, R8) R(r9, R9) R(r10, R10) R(r11, R11) R(r12, R12) R(r13, R13) R(r14, R14) R(r15, R15) R(rip, RIP)

VCPU_IOCTL(keel_get_regs)
{
	struct kvm_regs *r = buf;

#define REG_GET(field, reg)	r->field = keel_reg(vcpu, KEEL_##reg);
	UAPI_REGS(REG_GET)
	r->rflags = keel_rflags(vcpu);
	if (vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP)
		r->rflags &= ~(u64)X86_EFLAGS_TF;	/* ours */
	return 0;
}

void keel_put_regs(struct keel_vcpu *vcpu, const struct kvm_regs *r)
{
	keel_insn_changed(vcpu, r->rip != keel_reg(vcpu, KEEL_RIP));
#define REG_PUT(field, reg)	keel_set_reg(vcpu, KEEL_##reg, r->field);
	UAPI_REGS(REG_PUT)
	keel_set_rflags(vcpu, r->rflags);
	keel_call(regs_given, vcpu);
	/* New registers: an exception raised for the old ones has no place any more. */
	vcpu->ev.exception.type = KEEL_EV_NONE;
	keel_request(KEEL_REQ_EVENT, vcpu);
}

VCPU_IOCTL(keel_set_regs)
{
	const struct kvm_regs *r = buf;
	u64 ours = 0;

	if (r->rip != keel_reg(vcpu, KEEL_RIP))
		vcpu->debug.stepping = false;
	else if (unlikely(vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP))
		ours = keel_rflags(vcpu) & X86_EFLAGS_TF;	/* which was not shown */
	keel_put_regs(vcpu, r);
	if (unlikely(ours))
		keel_set_rflags(vcpu, r->rflags | ours);
	return 0;
}

static const struct { u16 offset; u8 seg; } sregs_segs[] = {
	{ offsetof(struct kvm_sregs, cs), KEEL_CS }, { offsetof(struct kvm_sregs, ds), KEEL_DS },
	{ offsetof(struct kvm_sregs, es), KEEL_ES }, { offsetof(struct kvm_sregs, fs), KEEL_FS },
	{ offsetof(struct kvm_sregs, gs), KEEL_GS }, { offsetof(struct kvm_sregs, ss), KEEL_SS },
	{ offsetof(struct kvm_sregs, tr), KEEL_TR }, { offsetof(struct kvm_sregs, ldt), KEEL_LDTR },
};
/* sregs2 begins as sregs does; the code below serves both. */
#define SAME_PLACE(f) static_assert(offsetof(struct kvm_sregs, f) == offsetof(struct kvm_sregs2, f))
SAME_PLACE(cs); SAME_PLACE(ldt); SAME_PLACE(gdt); SAME_PLACE(idt); SAME_PLACE(cr0); SAME_PLACE(apic_base);

void keel_take_sregs(struct keel_vcpu *vcpu, struct kvm_sregs *s)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sregs_segs); i++)
		keel_call(get_segment, vcpu, (void *)s + sregs_segs[i].offset, sregs_segs[i].seg);
	keel_call(get_dt, vcpu, &s->idt, true);
	keel_call(get_dt, vcpu, &s->gdt, false);
	s->cr0 = keel_cr0(vcpu);
	s->cr2 = vcpu->cr2;
	s->cr3 = keel_cr3(vcpu);
	s->cr4 = keel_cr4(vcpu);
	s->cr8 = vcpu->cr8;
	s->efer = vcpu->efer;
	s->apic_base = vcpu->apic_base;
}

VCPU_IOCTL(keel_get_sregs)
{
	struct kvm_sregs *s = buf;
	const struct keel_event *ev = &vcpu->ev.injected;

	memset(s, 0, sizeof(*s));
	keel_events_settle(vcpu);
	keel_take_sregs(vcpu, s);
	if (ev->type == KEEL_EV_INTR)
		set_bit(ev->vector, (unsigned long *)s->interrupt_bitmap);
	else if (!vcpu->apic && vcpu->ev.user_vector >= 0)
		set_bit(vcpu->ev.user_vector, (unsigned long *)s->interrupt_bitmap);
	return 0;
}

static bool sregs_valid(struct keel_vcpu *vcpu, const struct kvm_sregs *s)
{
	if (s->cr4 & keel_cr4_reserved(vcpu))
		return false;
	if ((s->cr0 >> 32) || ((s->cr0 & X86_CR0_NW) && !(s->cr0 & X86_CR0_CD)) ||
	    ((s->cr0 & X86_CR0_PG) && !(s->cr0 & X86_CR0_PE)))
		return false;
	if ((s->cr4 & X86_CR4_CET) && !(s->cr0 & X86_CR0_WP))
		return false;
	if (s->efer & ~keel_hw.efer_allowed)
		return false;
	if ((s->efer & EFER_LME) && (s->cr0 & X86_CR0_PG)) {
		/* Paging with LME is long mode, and that needs PAE and shows in LMA. */
		if (!(s->cr4 & X86_CR4_PAE) || !(s->efer & EFER_LMA))
			return false;
		if (s->cr3 & cr3_reserved(vcpu))
			return false;
	} else if ((s->efer & EFER_LMA) || s->cs.l) {
		return false;
	}
	return true;
}

static bool is_pae_paging(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(efer & EFER_LMA);
}

/* All but what a PAE guest's page directory pointers are. */
static int put_sregs(struct keel_vcpu *vcpu, const struct kvm_sregs *s)
{
	unsigned int i;
	u64 cr0;

	if (!sregs_valid(vcpu, s))
		return -EINVAL;
	if (irq_apic_base_set(vcpu, s->apic_base, true))
		return -EINVAL;
	keel_insn_changed(vcpu, keel_call(seg_base, vcpu, KEEL_CS) != s->cs.base);
	keel_call(set_dt, vcpu, &s->idt, true);
	keel_call(set_dt, vcpu, &s->gdt, false);
	keel_call(regs_given, vcpu);
	vcpu->cr2 = s->cr2;
	keel_set_cr8(vcpu, s->cr8 & 0xf);
	/* All at once: the checks between them were made on the whole. */
	keel_call(set_efer, vcpu, s->efer);
	cr0 = (s->cr0 & CR0_KNOWN) | X86_CR0_ET;
	keel_call(set_cr0, vcpu, cr0);
	keel_call(set_cr4, vcpu, s->cr4);
	keel_call(set_cr3, vcpu, s->cr3);
	for (i = 0; i < ARRAY_SIZE(sregs_segs); i++)
		keel_call(set_segment, vcpu, (const void *)s + sregs_segs[i].offset, sregs_segs[i].seg);
	/* A VMM that resets the boot CPU by registers alone means it to run. */
	if (keel_vcpu_is_bsp(vcpu) && keel_reg(vcpu, KEEL_RIP) == 0xfff0 && s->cs.selector == 0xf000 &&
	    !(cr0 & X86_CR0_PE))
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	paging_changed(vcpu);
	keel_request(KEEL_REQ_EVENT, vcpu);
	return 0;
}

int keel_put_sregs(struct keel_vcpu *vcpu, const struct kvm_sregs *s)
{
	int err = put_sregs(vcpu, s);

	/* Where they cannot be read the guest faults later; it may not have its memory yet. */
	if (!err && is_pae_paging(s->cr0, s->cr4, s->efer))
		(void)mmu_load_pdptrs(vcpu, s->cr3);
	return err;
}

VCPU_IOCTL(keel_set_sregs)
{
	struct kvm_sregs *s = buf;
	unsigned int vector;
	int err = keel_put_sregs(vcpu, s);

	if (err)
		return err;
	vector = find_first_bit((unsigned long *)s->interrupt_bitmap, 256);
	if (vector < 256)
		keel_set_user_irq(vcpu, vector);
	return 0;
}

static void take_sregs2(struct keel_vcpu *vcpu, struct kvm_sregs2 *s, bool pdptrs)
{
	memset(s, 0, sizeof(*s));
	keel_take_sregs(vcpu, (struct kvm_sregs *)s);
	if (!pdptrs || !is_pae_paging(s->cr0, s->cr4, s->efer))
		return;
	if (!(vcpu->avail & BIT(KEEL_LAZY_PDPTRS)))
		keel_cache_reg(vcpu, KEEL_LAZY_PDPTRS);
	if (vcpu->avail & BIT(KEEL_LAZY_PDPTRS)) {
		memcpy(s->pdptrs, vcpu->pdptrs, sizeof(s->pdptrs));
		s->flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
	}
}

VCPU_IOCTL(keel_get_sregs2)
{
	keel_events_settle(vcpu);
	take_sregs2(vcpu, buf, true);
	return 0;
}

/* The vCPU is none that may look at guest memory now, here and below.  Where they are not in registers they are no state. */
VCPU_IOCTL(keel_sregs_get_state)
{
	take_sregs2(vcpu, buf, keel_hw.pdptrs);
	return 0;
}

static int put_sregs2(struct keel_vcpu *vcpu, const struct kvm_sregs2 *s,
		      int (*put)(struct keel_vcpu *vcpu, const struct kvm_sregs *s))
{
	bool given = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	int err;

	if (s->flags & ~(u64)KVM_SREGS2_FLAGS_PDPTRS_VALID)
		return -EINVAL;
	if (given && !is_pae_paging(s->cr0, s->cr4, s->efer))
		return -EINVAL;
	err = put(vcpu, (const struct kvm_sregs *)s);
	if (!err && given) {
		/* Not what is in memory now, perhaps.  A CPU that walks from memory each time never knows. */
		memcpy(vcpu->pdptrs, s->pdptrs, sizeof(s->pdptrs));
		vcpu->avail |= BIT(KEEL_LAZY_PDPTRS);
		vcpu->dirty |= BIT(KEEL_LAZY_PDPTRS);
	}
	return err;
}

VCPU_IOCTL(keel_set_sregs2)
{
	return put_sregs2(vcpu, buf, keel_put_sregs);
}

/* The state has what would be read from guest memory; where the CPU reads that for each walk, so does who asks. */
VCPU_IOCTL(keel_sregs_set_state)
{
	const struct kvm_sregs2 *s = buf;

	if (keel_hw.pdptrs && is_pae_paging(s->cr0, s->cr4, s->efer) && !(s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID))
		return -EINVAL;
	if (!keel_hw.pdptrs)
		vcpu->avail &= ~BIT(KEEL_LAZY_PDPTRS);
	return put_sregs2(vcpu, buf, put_sregs);
}

/*
 * Guests have no guests, and what there is to save of that is that there is none: of KVM's structure the head.  VMMs
 * that save a VM ask without looking for KVM_CAP_NESTED_STATE, and what kvm.ko said of a guest without guests may
 * come here.
 */
VCPU_IOCTL(keel_get_nested_state)
{
	const struct kvm_nested_state *none = keel_hw.nested_none;
	struct kvm_nested_state __user *user = (void __user *)arg;
	u32 size;

	if (get_user(size, &user->size))
		return -EFAULT;
	if (size < sizeof(*none))
		return put_user((u32)sizeof(*none), &user->size) ? -EFAULT : -E2BIG;
	return copy_to_user(user, none, sizeof(*none)) ? -EFAULT : 0;
}

VCPU_IOCTL(keel_set_nested_state)
{
	const struct kvm_nested_state *none = keel_hw.nested_none;
	const struct kvm_nested_state *s = buf;

	return s->size < sizeof(*s) || s->flags != none->flags || s->format != none->format ||
	       memcmp(&s->hdr, &none->hdr, sizeof(s->hdr)) ? -EINVAL : 0;
}
