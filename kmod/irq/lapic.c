// SPDX-License-Identifier: GPL-2.0-only
/*
 * lapic.c - the local APIC: registers, priorities, delivery into the IRR, EOI; xAPIC page and x2APIC MSRs (SDM
 * volume 3, "Advanced Programmable Interrupt Controller").
 *
 * Everything but irq_apic_accept() and irq_apic_local() runs in the vCPU's thread, or while it is not running.
 * Those two run anywhere, as the timer's callback does, and touch the inbox and esr, with atomics.
 *
 * irr_words keeps the search for the highest request short: bit n says that word n of the IRR may hold one.
 */
#include <linux/slab.h>
#include <asm/kvm_para.h>
#include <asm/mce.h>
#include <asm/msr-index.h>
#include "internal.h"
#include "ops.h"

#define LVT_CMCI	6	/* not beside the others, and not every guest has it */
#define LVT_COUNT	7
#define LVT_REG(n)	((n) == LVT_CMCI ? APIC_LVTCMCI : APIC_LVTT + 0x10 * (n))
#define LVT_INDEX(reg)	((reg) == APIC_LVTCMCI ? LVT_CMCI : ((reg) - APIC_LVTT) / 0x10)

#define LVT_BITS	(APIC_VECTOR_MASK | APIC_LVT_MASKED)

static const u32 lvt_bits[LVT_COUNT] = {
	[LVT_INDEX(APIC_LVTT)]	  = LVT_BITS | APIC_LVT_TIMER_PERIODIC,	/* and TSC deadline by CPUID */
	[LVT_INDEX(APIC_LVTTHMR)] = LVT_BITS | APIC_MODE_MASK,
	[LVT_INDEX(APIC_LVTPC)]	  = LVT_BITS | APIC_MODE_MASK,
	[LVT_INDEX(APIC_LVT0)]	  = LVT_BITS | APIC_MODE_MASK | APIC_INPUT_POLARITY | APIC_LVT_LEVEL_TRIGGER,
	[LVT_INDEX(APIC_LVT1)]	  = LVT_BITS | APIC_MODE_MASK | APIC_INPUT_POLARITY | APIC_LVT_LEVEL_TRIGGER,
	[LVT_INDEX(APIC_LVTERR)]  = LVT_BITS,
	[LVT_CMCI]		  = LVT_BITS | APIC_MODE_MASK,
};

/* Registers that exist, a bit each. */
#define R(reg)		BIT_ULL((reg) >> 4)
#define R8(reg)		(0xffULL << ((reg) >> 4))
#define COMMON_RW	(R(APIC_TASKPRI) | R(APIC_SPIV) | R(APIC_ESR) | R(APIC_ICR) | R(APIC_LVTT) |	\
			 R(APIC_LVTTHMR) | R(APIC_LVTPC) | R(APIC_LVT0) | R(APIC_LVT1) |		\
			 R(APIC_LVTERR) | R(APIC_TMICT) | R(APIC_TDCR))
#define COMMON_RO	(R(APIC_ID) | R(APIC_LVR) | R(APIC_PROCPRI) | R(APIC_LDR) | R8(APIC_ISR) |	\
			 R8(APIC_TMR) | R8(APIC_IRR) | R(APIC_TMCCT))

static const u64 readable[2] = {	/* xAPIC, x2APIC */
	COMMON_RW | COMMON_RO | R(APIC_DFR) | R(APIC_ICR2) | R(APIC_ARBPRI),
	COMMON_RW | COMMON_RO,
};

static const u64 writable[2] = {
	COMMON_RW | R(APIC_EOI) | R(APIC_ID) | R(APIC_LDR) | R(APIC_DFR) | R(APIC_ICR2),
	COMMON_RW | R(APIC_EOI) | R(APIC_SELF_IPI),
};

/* SDM figure 10-28.  Where xAPIC mode has the delivery status anything may be written. */
#define X2APIC_ICR_RESERVED	(GENMASK_ULL(31, 20) | GENMASK_ULL(17, 16) | BIT(13))

static unsigned int nr_lvts(const struct keel_lapic *apic)
{
	return apic->vcpu->msrs.mcg_cap & MCG_CMCI_P ? LVT_COUNT : LVT_CMCI;
}

/* Is @reg one of @regs, or the one that depends? */
static __always_inline bool reg_exists(const struct keel_lapic *apic, u64 regs, unsigned int reg)
{
	return (regs & R(reg)) || (reg == APIC_LVTCMCI && nr_lvts(apic) > LVT_CMCI);
}

/* ------------------------------------------------------------- into the APIC, from anywhere */
static void apic_error(struct keel_lapic *apic, u32 error)
{
	/* Once until the guest looks: also what ends it if the error vector itself is illegal. */
	if (!test_and_set_bit(ilog2(error), &apic->esr))
		irq_apic_local(apic, APIC_LVTERR);
}

static __always_inline int accept_vector(struct keel_lapic *apic, u8 vector, bool level)
{
	struct irq_inbox *in = &apic->inbox;
	bool merged;

	if (!READ_ONCE(apic->enabled))
		return -1;
	if (vector < 16) {
		apic_error(apic, APIC_ESR_RECVILL);
		return -1;
	}
	if (unlikely(level || test_bit(vector & 31, apic_vec_word(apic, APIC_TMR, vector)) ||
		     test_bit(vector, apic->vcpu->vm->irq.wants_eoi)))
		return irq_inbox_tell(apic, vector, level);
	if (test_and_set_bit(vector, in->posted))
		return 0;	/* coalesced; who set it also tells the vCPU */
	merged = test_bit(vector & 31, apic_vec_word(apic, APIC_IRR, vector));
	if (!test_and_set_bit(INBOX_ON, (unsigned long *)&in->control))
		keel_call(notify, apic->vcpu);
	return !merged;
}

/* From itself, in the vCPU's thread: there is nobody to tell, and nothing to wait in the inbox for. */
static void accept_own(struct keel_lapic *apic, u8 vector)
{
	if (!apic->enabled)
		return;
	if (vector < 16) {
		apic_error(apic, APIC_ESR_RECVILL);
		return;
	}
	irq_into_irr(apic, vector >> 5, BIT(vector & 31), 0);
	if (unlikely(apic->by_cpu))
		irq_apicv_watch(apic, vector);
	keel_request(KEEL_REQ_EVENT, apic->vcpu);
}

void irq_apic_timer(struct keel_lapic *apic)
{
	u32 lvt = apic_reg(apic, APIC_LVTT);

	if (!(lvt & APIC_LVT_MASKED))
		accept_own(apic, lvt & APIC_VECTOR_MASK);
}

int irq_apic_accept(struct keel_lapic *apic, const struct irq_msg *msg)
{
	struct keel_vcpu *vcpu = apic->vcpu;

	if (likely(msg->mode <= APIC_DM_LOWEST))	/* or fixed, which is 0 */
		return accept_vector(apic, msg->vector, msg->level);
	switch (msg->mode) {
	case APIC_DM_NMI:
		keel_queue_nmi(vcpu);
		return 1;
	case APIC_DM_SMI:
		keel_queue_smi(vcpu);
		return 1;
	case APIC_DM_INIT:
		/* The level de-assert that older software sends after it only set arbitration ids. */
		if (msg->level && !msg->assert)
			return 1;
		clear_bit(KEEL_MP_SIPI, &vcpu->mp_events);
		set_bit(KEEL_MP_INIT, &vcpu->mp_events);
		break;
	case APIC_DM_STARTUP:
		WRITE_ONCE(vcpu->sipi_vector, msg->vector);
		smp_mb__before_atomic();	/* the vector before the bit */
		set_bit(KEEL_MP_SIPI, &vcpu->mp_events);
		break;
	default:
		/*
		 * ExtINT: the PIC's output goes to the vCPUs whose LINT0 takes it, not through messages.  The
		 * rest is reserved.
		 */
		return -1;
	}
	keel_request(KEEL_REQ_MP_EVENT, vcpu);
	keel_vcpu_kick(vcpu);
	return 1;
}

void irq_apic_local(struct keel_lapic *apic, unsigned int lvt)
{
	u32 val = apic_reg(apic, lvt);
	struct irq_msg msg = { .mode = val & APIC_MODE_MASK, .vector = val & APIC_VECTOR_MASK, .assert = true };

	if (!(val & APIC_LVT_MASKED) &&
	    (msg.mode == APIC_DM_FIXED || msg.mode == APIC_DM_NMI || msg.mode == APIC_DM_SMI))
		irq_apic_accept(apic, &msg);
}

/* @mask: until the guest takes the bit away (SDM 10.5.1; AMD leaves the entry as it is). */
void irq_pmi(struct keel_vcpu *vcpu, bool mask)
{
	struct keel_lapic *apic = vcpu->apic;

	if (!apic)
		return;
	irq_apic_local(apic, APIC_LVTPC);
	if (mask)
		apic_set_reg(apic, APIC_LVTPC, apic_reg(apic, APIC_LVTPC) | APIC_LVT_MASKED);
}

/* ------------------------------------------------------------- priorities */
/* Highest bit of a 256-bit register at or below word @word; -1 none. */
static int highest_vector(struct keel_lapic *apic, unsigned int base, int word)
{
	u32 val;

	for (; word >= 0; word--) {
		val = apic_reg(apic, base + word * 0x10);
		if (val)
			return word * 32 + __fls(val);
	}
	return -1;
}

int irq_highest(struct keel_lapic *apic, unsigned int base)
{
	return highest_vector(apic, base, 7);
}

int irq_highest_irr(struct keel_lapic *apic)
{
	while (apic->irr_words) {
		unsigned int word = __fls(apic->irr_words);
		u32 val = apic_reg(apic, APIC_IRR + word * 0x10);

		if (val)
			return word * 32 + __fls(val);
		apic->irr_words &= ~BIT(word);
	}
	return -1;
}

static void update_ppr(struct keel_lapic *apic)
{
	u8 tpr = apic_reg(apic, APIC_TASKPRI), old = apic->ppr;
	u8 isr = apic->isr_top < 0 ? 0 : apic->isr_top & 0xf0;
	u8 ppr = (tpr & 0xf0) >= isr ? tpr : isr;

	if (ppr == old)
		return;
	apic->ppr = ppr;
	apic_set_reg(apic, APIC_PROCPRI, ppr);
	if (ppr < old && apic->irr_words)
		keel_request(KEEL_REQ_EVENT, apic->vcpu);
}

static __always_inline int apic_pending(struct keel_lapic *apic)
{
	int vector;

	if (irq_inbox_full(apic)) {
		apic_timer_settle(apic);
		irq_inbox_fold(apic);
	}
	if (!apic->irr_words || !apic_on(apic))		/* off by its own register it keeps what it has */
		return -1;
	if (unlikely(apic->eoi_offer)) {
		irq_pv_eoi_settle(apic->vcpu);
		/* What is in service is known when it could be settled. */
		if (apic->eoi_offer)
			return -1;
	}
	vector = irq_highest_irr(apic);
	return vector >= 0 && (vector & 0xf0) > (apic->ppr & 0xf0) ? vector : -1;
}

static bool extint_pending(struct keel_vcpu *vcpu)
{
	if (!vcpu->apic->extint)
		return false;
	if (vcpu->vm->irq.mode == IRQCHIP_KERNEL)
		return READ_ONCE(vcpu->vm->irq.pic_raised);
	return vcpu->ev.user_vector >= 0;
}

int irq_pending(struct keel_vcpu *vcpu)
{
	int vector = -1;

	if (!vcpu->apic)
		return vcpu->ev.user_vector;
	/* Also if the PIC goes first: the inbox is emptied whenever it was asked to be, for nobody asks twice. */
	if (vcpu->apic->by_cpu)
		irq_apicv_sync(vcpu->apic);
	else
		vector = apic_pending(vcpu->apic);
	if (unlikely(extint_pending(vcpu)))
		return max(vcpu->ev.user_vector, 0);	/* the PIC tells its vector only when asked in irq_ack() */
	return vector;
}

bool irq_wakes(struct keel_vcpu *vcpu)
{
	if (extint_pending(vcpu))
		return true;
	return vcpu->apic->by_cpu ? irq_apicv_pending(vcpu->apic) : apic_pending(vcpu->apic) >= 0;
}

static int take_user_vector(struct keel_vcpu *vcpu)
{
	int vector = vcpu->ev.user_vector;

	vcpu->ev.user_vector = -1;
	return vector;
}

bool irq_ends_unnoticed(struct keel_lapic *apic, u8 vector)
{
	return !test_bit(vector & 31, apic_vec_word(apic, APIC_TMR, vector)) &&
	       !(apic->vcpu->hv && keel_hv_is_sint(apic->vcpu, vector)) &&
	       !test_bit(vector, apic->vcpu->vm->irq.wants_eoi);
}

int irq_ack(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;
	int vector;

	if (!apic)
		return take_user_vector(vcpu);
	if (extint_pending(vcpu)) {
		if (vcpu->vm->irq.mode == IRQCHIP_KERNEL)
			return irq_pic_ack(vcpu->vm);
		return take_user_vector(vcpu);
	}
	/* The PIC's was there a moment ago.  Of a LAPIC that the CPU runs nobody else takes anything. */
	if (apic->by_cpu)
		return -1;
	vector = apic_pending(apic);
	if (vector < 0)
		return -1;
	__clear_bit(vector & 31, apic_vec_word(apic, APIC_IRR, vector));
	if (unlikely(vcpu->hv) && keel_hv_auto_eoi(vcpu, vector))
		return vector;	/* never in service: its end is told by EOM alone */
	__set_bit(vector & 31, apic_vec_word(apic, APIC_ISR, vector));
	apic->isr_top = vector;		/* above all in service, or the PPR would have held it back */
	update_ppr(apic);
	if (unlikely(vcpu->pv.eoi & KVM_MSR_ENABLED) && irq_highest_irr(apic) < 0 && irq_ends_unnoticed(apic, vector))
		irq_pv_eoi_offer(apic);
	return vector;
}

int irq_pending_class(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;

	if (!apic || !apic->irr_words || !apic_on(apic) || apic->by_cpu)
		return -1;
	return irq_highest_irr(apic) >> 4;	/* -1 stays -1 */
}

bool irq_takes_fixed(struct keel_vcpu *vcpu)
{
	return READ_ONCE(vcpu->apic->enabled);
}

void irq_deliver_fixed(struct keel_vcpu *vcpu, u8 vector)
{
	accept_vector(vcpu->apic, vector, false);
}

bool irq_extint_accepted(struct keel_vcpu *vcpu)
{
	return !vcpu->apic || READ_ONCE(vcpu->apic->extint);
}

/* The class, which is what CR8 shows, has its copy in the vCPU. */
static void set_tpr(struct keel_lapic *apic, u32 val)
{
	apic_set_reg(apic, APIC_TASKPRI, val & APIC_TPRI_MASK);
	apic->vcpu->cr8 = val >> 4 & 0xf;
	if (apic->by_cpu)
		irq_rebuild_copies(apic);	/* the page has changed behind them */
	else
		update_ppr(apic);
}

void irq_lapic_set_tpr(struct keel_vcpu *vcpu, u8 tpr)
{
	set_tpr(vcpu->apic, tpr);
}

struct irq_inbox *irq_lapic_inbox(struct keel_vcpu *vcpu)
{
	return vcpu->apic ? &vcpu->apic->inbox : NULL;
}

void irq_lapic_tpr_written(struct keel_vcpu *vcpu, u64 cr8)
{
	vcpu->cr8 = cr8;
	if (!vcpu->apic->by_cpu)
		update_ppr(vcpu->apic);
}

u8 *irq_lapic_page(struct keel_vcpu *vcpu)
{
	return vcpu->apic ? vcpu->apic->regs : NULL;
}

/* Where a guest in xAPIC mode wants to be found: the map of all is made anew before it goes on, at its expense. */
static void apic_move(struct keel_lapic *apic, u32 reg, u32 val)
{
	apic_set_reg(apic, reg, val);
	irq_map_stale(apic->vcpu->vm);
	keel_request(KEEL_REQ_APIC_MAP, apic->vcpu);
}

/* Who is told of the PIC's output is known to the PIC without a look at all of them, which it might have to take with IRQs off. */
static void extint_changed(struct keel_vcpu *vcpu, bool takes)
{
	struct keel_irq *irq = &vcpu->vm->irq;
	struct keel_vcpu *now, *next = NULL, *other;
	unsigned int i;

	spin_lock(&irq->extint_lock);
	now = keel_vcpu_by_idx(vcpu->vm, irq->extint_taker);
	if (takes && (!now || !irq_extint_accepted(now))) {
		WRITE_ONCE(irq->extint_taker, vcpu->idx);
	} else if (!takes && now == vcpu) {
		keel_for_each_vcpu(other, i, vcpu->vm) {
			if (other == vcpu || !irq_extint_accepted(other))
				continue;
			WRITE_ONCE(irq->extint_taker, i);
			next = other;
			break;
		}
	}
	spin_unlock(&irq->extint_lock);
	/* What was told to the one that takes it no more */
	smp_mb();
	if (next && READ_ONCE(irq->pic_raised)) {
		keel_request(KEEL_REQ_EVENT, next);
		keel_vcpu_kick(next);
	}
}

/* What follows from APIC base, SPIV and LVT0. */
static void update_enabled(struct keel_lapic *apic)
{
	u32 lvt0 = apic_reg(apic, APIC_LVT0);
	bool was = apic->enabled, extint;

	WRITE_ONCE(apic->enabled, apic_on(apic) && (apic_reg(apic, APIC_SPIV) & APIC_SPIV_APIC_ENABLED));
	extint = !apic_on(apic) || (!(lvt0 & APIC_LVT_MASKED) && (lvt0 & APIC_MODE_MASK) == APIC_DM_EXTINT);
	if (extint != apic->extint) {
		WRITE_ONCE(apic->extint, extint);
		extint_changed(apic->vcpu, extint);
	}
	keel_request(KEEL_REQ_EVENT, apic->vcpu);
	/* What it could not be told of meanwhile */
	if (!was && apic->enabled && apic->vcpu->pv.apf)
		keel_request(KEEL_REQ_APF, apic->vcpu);
	irq_apicv_check(apic->vcpu);
}

/* ------------------------------------------------------------- what a guest does to it */
/* @vector is no longer in service: those who wait for that. */
static __always_inline void ended(struct keel_lapic *apic, u8 vector)
{
	struct keel_vm *vm = apic->vcpu->vm;
	bool level;

	if (unlikely(apic->vcpu->hv))
		keel_hv_eoi(apic->vcpu, vector);
	level = test_bit(vector & 31, apic_vec_word(apic, APIC_TMR, vector));
	if (vm->irq.mode == IRQCHIP_KERNEL) {
		if (level || test_bit(vector, vm->irq.wants_eoi))
			irq_ioapic_eoi(apic, vector, level);
	} else if (level && !(vm->irq.eoi_suppress == SUPPRESS_ON &&
			      apic_reg(apic, APIC_SPIV) & APIC_SPIV_DIRECTED_EOI)) {
		apic->eoi_vector = vector;
		keel_request(KEEL_REQ_IOAPIC_EOI, apic->vcpu);
	}
}

static __always_inline void apic_eoi(struct keel_lapic *apic)
{
	int vector = apic->isr_top;

	if (vector < 0)
		return;
	__clear_bit(vector & 31, apic_vec_word(apic, APIC_ISR, vector));
	apic->isr_top = highest_vector(apic, APIC_ISR, vector >> 5);
	update_ppr(apic);
	ended(apic, vector);
}

void irq_apicv_ended(struct keel_vcpu *vcpu, u8 vector)
{
	ended(vcpu->apic, vector);
	/* Whoever waited for it may not any more. */
	irq_apicv_watch(vcpu->apic, vector);
	if (unlikely(vcpu->apic->watched_stale))
		keel_request(KEEL_REQ_EVENT, vcpu);
}

void irq_apic_eoi(struct keel_lapic *apic)
{
	apic_eoi(apic);
}

static void apic_send(struct keel_lapic *apic, u32 icr, u32 dest)
{
	struct irq_msg msg = {
		.dest = dest,
		.mode = icr & APIC_MODE_MASK,
		.shorthand = icr & APIC_DEST_ALLBUT,
		.vector = icr & APIC_VECTOR_MASK,
		.logical = icr & APIC_DEST_LOGICAL,
		.assert = true,
	};

	if (msg.mode == APIC_DM_INIT) {		/* alone has a level */
		msg.level = icr & APIC_INT_LEVELTRIG;
		msg.assert = icr & APIC_INT_ASSERT;
	} else if (msg.mode <= APIC_DM_LOWEST) {
		msg.lowest = msg.mode == APIC_DM_LOWEST;
		if (msg.vector < 16) {
			apic_error(apic, APIC_ESR_SENDILL);
			return;
		}
	}
	if (msg.shorthand == APIC_DEST_SELF && likely(msg.mode <= APIC_DM_LOWEST))
		accept_own(apic, msg.vector);
	else
		irq_deliver(apic->vcpu->vm, apic, &msg);
}

static void write_spiv(struct keel_lapic *apic, u32 val)
{
	u32 bits = APIC_VECTOR_MASK | APIC_SPIV_APIC_ENABLED | APIC_SPIV_FOCUS_DISABLED;
	unsigned int i;

	if (apic_reg(apic, APIC_LVR) & APIC_LVR_DIRECTED_EOI)
		bits |= APIC_SPIV_DIRECTED_EOI;
	apic_set_reg(apic, APIC_SPIV, val & bits);
	if (!(val & APIC_SPIV_APIC_ENABLED)) {
		apic_timer_settle(apic);
		for (i = 0; i < nr_lvts(apic); i++)
			apic_set_reg(apic, LVT_REG(i), apic_reg(apic, LVT_REG(i)) | APIC_LVT_MASKED);
	}
	update_enabled(apic);
}

static void write_lvt(struct keel_lapic *apic, unsigned int reg, u32 val)
{
	u32 bits = lvt_bits[LVT_INDEX(reg)];

	if (reg == APIC_LVTT && keel_guest_has(apic->vcpu, X86_FEATURE_TSC_DEADLINE_TIMER))
		bits |= APIC_LVT_TIMER_TSCDEADLINE;
	val &= bits;
	if (!(apic_reg(apic, APIC_SPIV) & APIC_SPIV_APIC_ENABLED))
		val |= APIC_LVT_MASKED;
	if (reg == APIC_LVTT)
		apic_timer_settle(apic);	/* by the old entry */
	apic_set_reg(apic, reg, val);
	if (reg == APIC_LVTT)
		apic_timer_set_mode(apic, val);
	else if (reg == APIC_LVT0)
		update_enabled(apic);
}

/* @reg exists and is writable. */
static void write_reg(struct keel_lapic *apic, unsigned int reg, u32 val)
{
	switch (reg) {
	case APIC_EOI:
		if (likely(!apic->eoi_offer) || !irq_pv_eoi_written(apic))
			apic_eoi(apic);
		break;
	case APIC_TASKPRI:
		set_tpr(apic, val);
		break;
	case APIC_ICR:
		apic_set_reg(apic, APIC_ICR, val & ~APIC_ICR_BUSY);
		apic_send(apic, val, GET_XAPIC_DEST_FIELD(apic_reg(apic, APIC_ICR2)));
		break;
	case APIC_ICR2:
		apic_set_reg(apic, APIC_ICR2, val & APIC_LDR_MASK);	/* the same eight bits */
		break;
	case APIC_TMICT:
		apic_timer_set_count(apic, val);
		break;
	case APIC_TDCR:
		apic_timer_set_divider(apic, val & 0xb);
		break;
	case APIC_SPIV:
		write_spiv(apic, val);
		break;
	case APIC_ESR:
		apic_set_reg(apic, APIC_ESR, xchg(&apic->esr, 0));
		break;
	case APIC_ID:
	case APIC_LDR:
		apic_move(apic, reg, val & APIC_LDR_MASK);
		break;
	case APIC_DFR:
		apic_move(apic, APIC_DFR, val | APIC_DFR_CLUSTER);
		break;
	case APIC_SELF_IPI:
		apic_send(apic, APIC_DEST_SELF | (val & APIC_VECTOR_MASK), 0);
		break;
	default:
		write_lvt(apic, reg, val);
	}
}

static u32 read_reg(struct keel_lapic *apic, unsigned int reg)
{
	if (reg < APIC_PROCPRI)
		return apic_reg(apic, reg);
	if (reg == APIC_TMCCT) {
		apic_timer_settle(apic);	/* also where nobody would take the interrupt */
		return apic_timer_count(apic);
	}
	/* Only these tell what is in service. */
	if (unlikely(apic->eoi_offer) && (reg == APIC_PROCPRI || (reg >= APIC_ISR && reg < APIC_TMR)))
		irq_pv_eoi_settle(apic->vcpu);
	if (reg - APIC_TMR < APIC_ESR - APIC_TMR)	/* the TMR and the IRR */
		irq_inbox_look(apic);
	return apic_reg(apic, reg);
}

bool irq_lapic_mmio(struct keel_vcpu *vcpu, u64 gpa, unsigned int len, void *data, bool write)
{
	struct keel_lapic *apic = vcpu->apic;
	unsigned int off = gpa & ~PAGE_MASK, reg = off & 0x3f0;
	u32 val;

	if (!apic_on(apic) || apic_is_x2(apic)) {
		/* Nobody's registers now; the ABI's old habit is that the page stays taken. */
		if (!keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_LAPIC_MMIO_HOLE))
			return false;
		if (!write)
			memset(data, 0xff, len);
		return true;
	}

	if (write) {
		/* Narrow or unaligned accesses are undefined: they change nothing. */
		if (len != 4 || (off & 0xf))
			return true;
		memcpy(&val, data, sizeof(val));
		if (off == reg && reg_exists(apic, writable[0], reg))
			write_reg(apic, reg, val);
		else
			apic_error(apic, APIC_ESR_ILLREGA);
		return true;
	}

	*(u64 *)data = 0;
	if ((off & 0xf) > 3)
		return true;
	if (off >= 0x400 || !reg_exists(apic, readable[0], reg)) {
		apic_error(apic, APIC_ESR_ILLREGA);
		return true;
	}
	val = read_reg(apic, reg) >> (off & 3) * 8;
	memcpy(data, &val, min_t(unsigned int, len, sizeof(val)));
	return true;
}

static int x2apic_read(struct keel_lapic *apic, u32 msr, u64 *val)
{
	unsigned int reg = (msr - APIC_BASE_MSR) << 4;

	if (!apic_is_x2(apic) || reg >= 0x400 || !reg_exists(apic, readable[1], reg))
		return 1;
	*val = read_reg(apic, reg);
	if (reg == APIC_ICR)
		*val |= (u64)apic_reg(apic, APIC_ICR2) << 32;
	return 0;
}

static int x2apic_write(struct keel_lapic *apic, u32 msr, u64 val)
{
	unsigned int reg = (msr - APIC_BASE_MSR) << 4;

	if (!apic_is_x2(apic))
		return 1;
	if (reg == APIC_ICR) {
		if (val & X2APIC_ICR_RESERVED)
			return 1;
		apic_set_reg(apic, APIC_ICR2, val >> 32);
		apic_set_reg(apic, APIC_ICR, (u32)val & ~APIC_ICR_BUSY);
		apic_send(apic, val, val >> 32);
		return 0;
	}
	if (reg >= 0x400 || !reg_exists(apic, writable[1], reg) || val >> 32)
		return 1;
	if ((reg == APIC_EOI || reg == APIC_ESR) && val)
		return 1;
	if ((reg == APIC_TASKPRI || reg == APIC_SELF_IPI) && (val & ~0xffULL))
		return 1;
	write_reg(apic, reg, val);
	return 0;
}

int irq_lapic_read(struct keel_vcpu *vcpu, unsigned int reg, u64 *val)
{
	struct keel_lapic *apic = vcpu->apic;

	if (!apic || !apic_on(apic) || !reg_exists(apic, readable[0], reg))
		return 1;
	*val = read_reg(apic, reg);
	if (reg == APIC_ICR)
		*val |= (u64)apic_reg(apic, APIC_ICR2) << 32;
	return 0;
}

int irq_lapic_write(struct keel_vcpu *vcpu, unsigned int reg, u64 val)
{
	struct keel_lapic *apic = vcpu->apic;

	if (!apic || !apic_on(apic))
		return 1;
	if (reg == APIC_ICR && apic_is_x2(apic))
		return x2apic_write(apic, APIC_BASE_MSR + (APIC_ICR >> 4), val);
	if (reg == APIC_ICR)
		write_reg(apic, APIC_ICR2, val >> 32);
	write_reg(apic, reg, val);
	return 0;
}

bool irq_x2apic_by_cpu(u32 msr, bool write)
{
	unsigned int reg = (msr - APIC_BASE_MSR) << 4;

	if (reg >= 0x400)
		return false;
	if (write)
		return reg == APIC_TASKPRI || reg == APIC_EOI || reg == APIC_SELF_IPI;
	/* The one is computed, the other of two halves that are not side by side. */
	return readable[1] & R(reg) && reg != APIC_TMCCT && reg != APIC_ICR;
}

/* An illegal vector, of which the CPU makes nothing. */
void irq_apicv_written(struct keel_vcpu *vcpu, unsigned int reg)
{
	if (reg == APIC_SELF_IPI)
		write_reg(vcpu->apic, reg, apic_reg(vcpu->apic, reg));
}

int irq_lapic_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host)
{
	struct keel_lapic *apic = vcpu->apic;

	if (msr == MSR_IA32_APICBASE) {
		*val = vcpu->apic_base;
		return 0;
	}
	if (msr == MSR_IA32_TSC_DEADLINE) {
		if (apic && !host)
			apic_timer_settle(apic);
		*val = apic ? apic_timer_deadline(apic) : 0;
		return 0;
	}
	return apic ? x2apic_read(apic, msr, val) : 1;
}

int irq_lapic_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host)
{
	struct keel_lapic *apic = vcpu->apic;

	if (msr == MSR_IA32_APICBASE)
		return irq_apic_base_set(vcpu, val, host);
	if (msr == MSR_IA32_TSC_DEADLINE) {
		if (apic && host)
			apic_timer_load_deadline(apic, val);
		else if (apic)
			apic_timer_set_deadline(apic, val);
		return 0;
	}
	return apic ? x2apic_write(apic, msr, val) : 1;
}

/* ------------------------------------------------------------- modes, reset, state */
static void set_x2_ids(struct keel_lapic *apic)
{
	apic_set_reg(apic, APIC_ID, apic->vcpu->id);
	apic_set_reg(apic, APIC_LDR, apic_x2_ldr(apic));
}

static void set_xapic_id(struct keel_lapic *apic)
{
	apic_set_reg(apic, APIC_ID, apic->vcpu->id << 24);
}

int irq_apic_base_set(struct keel_vcpu *vcpu, u64 val, bool host)
{
	const u64 both = XAPIC_ENABLE | X2APIC_ENABLE;
	u64 allowed = GENMASK_ULL(vcpu->model.maxphyaddr - 1, PAGE_SHIFT) | MSR_IA32_APICBASE_BSP | XAPIC_ENABLE;
	struct keel_lapic *apic = vcpu->apic;
	u64 old = vcpu->apic_base;

	if (keel_guest_has(vcpu, X86_FEATURE_X2APIC))
		allowed |= X2APIC_ENABLE;
	if ((val & ~allowed) || (val & both) == X2APIC_ENABLE)
		return 1;
	/* A guest gets into x2APIC mode from xAPIC mode only, and out of it only by switching the APIC off. */
	if (!host && (((old & both) == both && (val & both) == XAPIC_ENABLE) ||
		      (!(old & XAPIC_ENABLE) && (val & both) == both)))
		return 1;

	WRITE_ONCE(vcpu->apic_base, val);
	if (!apic || !((old ^ val) & both))
		return 0;
	if ((val & both) == both)
		set_x2_ids(apic);
	else if ((val & XAPIC_ENABLE))
		set_xapic_id(apic);
	update_enabled(apic);
	irq_map_update(vcpu->vm);
	return 0;
}

static void set_version(struct keel_lapic *apic)
{
	const struct keel_irq *irq = &apic->vcpu->vm->irq;
	bool directed = irq->mode == IRQCHIP_SPLIT && irq->eoi_suppress != SUPPRESS_OFF &&
			keel_guest_has(apic->vcpu, X86_FEATURE_X2APIC);

	apic_set_reg(apic, APIC_LVR, 0x14 | (nr_lvts(apic) - 1) << 16 | (directed ? APIC_LVR_DIRECTED_EOI : 0));
}

void irq_lapic_new_model(struct keel_vcpu *vcpu)
{
	if (vcpu->apic)
		set_version(vcpu->apic);
}

void irq_lapic_cmci_setup(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;

	if (!apic)
		return;
	apic_set_reg(apic, APIC_LVTCMCI, nr_lvts(apic) > LVT_CMCI ? APIC_LVT_MASKED : 0);
	set_version(apic);
}

void irq_lapic_cmci(struct keel_vcpu *vcpu)
{
	if (vcpu->apic)
		irq_apic_local(vcpu->apic, APIC_LVTCMCI);
}

void irq_lapic_reset(struct keel_vcpu *vcpu, bool init)
{
	struct keel_lapic *apic = vcpu->apic;
	unsigned int i;

	if (!init)
		WRITE_ONCE(vcpu->apic_base, APIC_DEFAULT_PHYS_BASE | XAPIC_ENABLE |
			   (keel_vcpu_is_bsp(vcpu) ? MSR_IA32_APICBASE_BSP : 0));
	if (!apic)
		return;

	/* Senders first: what is thrown away below is to be the last. */
	WRITE_ONCE(apic->enabled, false);
	apic_timer_reset(apic);
	/* INIT keeps the id, and there is no moment without: the SIPI behind it is addressed to it. */
	memset(apic->regs, 0, APIC_ID);
	memset(apic->regs + APIC_LVR, 0, sizeof(struct kvm_lapic_state) - APIC_LVR);
	irq_inbox_discard(apic);
	apic->irr_words = 0;
	apic->esr = 0;
	apic->isr_top = -1;
	apic->ppr = 0;
	apic->eoi_offer = EOI_NONE;

	if (apic_is_x2(apic))
		set_x2_ids(apic);
	else if (!init)
		set_xapic_id(apic);
	set_version(apic);
	apic_set_reg(apic, APIC_DFR, APIC_DFR_FLAT);
	apic_set_reg(apic, APIC_SPIV, 0xff);
	for (i = 0; i < nr_lvts(apic); i++)
		apic_set_reg(apic, LVT_REG(i), APIC_LVT_MASKED);
	/* The ABI's old habit: firmware that never programs LINT0 gets the PIC's interrupts anyhow. */
	if (keel_vcpu_is_bsp(vcpu) && keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_LINT0_REENABLED))
		apic_set_reg(apic, APIC_LVT0, APIC_DM_EXTINT);
	update_enabled(apic);
	irq_map_update(vcpu->vm);
}

int irq_lapic_create(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = kzalloc(sizeof(*apic), GFP_KERNEL_ACCOUNT);
	int ret = -ENOMEM;

	/* The inbox wants to be aligned, as allocations of more than 192 bytes are on all kernels. */
	BUILD_BUG_ON(sizeof(*apic) <= 192);
	if (!apic)
		return -ENOMEM;
	apic->regs = (u8 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!apic->regs)
		goto fail;
	apic->vcpu = vcpu;
	apic->isr_top = -1;
	apic_timer_init(apic);
	ret = irq_map_add(apic);
	if (ret)
		goto fail;
	vcpu->apic = apic;
	return 0;
fail:
	free_page((unsigned long)apic->regs);
	kfree(apic);
	return ret;
}

void irq_lapic_destroy(struct keel_vcpu *vcpu)
{
	struct keel_lapic *apic = vcpu->apic;

	if (!apic)
		return;
	irq_map_remove(apic);
	apic_timer_stop(apic);
	vcpu->apic = NULL;
	free_page((unsigned long)apic->regs);
	kfree(apic);
}

VCPU_IOCTL(irq_get_lapic)
{
	struct keel_lapic *apic = vcpu->apic;
	struct kvm_lapic_state *s = buf;

	if (!apic)
		return -EINVAL;
	/* The timer, which has a register of its own to be read in, is none of these. */
	irq_inbox_look(apic);
	memcpy(s->regs, apic->regs, sizeof(s->regs));
	*(u32 *)(s->regs + APIC_TMCCT) = apic_timer_count(apic);
	if (apic_is_x2(apic) && !vcpu->vm->irq.x2apic_32bit_ids)
		*(u32 *)(s->regs + APIC_ID) = vcpu->id << 24;
	return 0;
}

void irq_rebuild_copies(struct keel_lapic *apic)
{
	unsigned int word;

	apic->irr_words = 0;
	for (word = 0; word < 8; word++)
		if (apic_reg(apic, APIC_IRR + word * 0x10))
			apic->irr_words |= BIT(word);
	apic->isr_top = highest_vector(apic, APIC_ISR, 7);
	update_ppr(apic);
	apic_set_reg(apic, APIC_PROCPRI, apic->ppr);
}

/* All but the timer, which is stopped, and what is on its way. */
static void load_regs(struct keel_lapic *apic, const struct kvm_lapic_state *s)
{
	unsigned int i;

	apic_timer_stop(apic);
	memcpy(apic->regs, s->regs, sizeof(s->regs));
	set_version(apic);
	if (apic_is_x2(apic))
		set_x2_ids(apic);
	set_tpr(apic, apic_reg(apic, APIC_TASKPRI));
	for (i = 0; i < nr_lvts(apic); i++)
		apic_set_reg(apic, LVT_REG(i), apic_reg(apic, LVT_REG(i)) &
			     (lvt_bits[i] | (i ? 0 : APIC_LVT_TIMER_TSCDEADLINE)));
	apic_set_reg(apic, APIC_TDCR, apic_reg(apic, APIC_TDCR) & 0xb);
	apic_set_reg(apic, APIC_TMCCT, 0);
	apic->esr = 0;
	irq_rebuild_copies(apic);
	update_enabled(apic);
}

VCPU_IOCTL(irq_set_lapic)
{
	struct keel_lapic *apic = vcpu->apic;
	const struct kvm_lapic_state *s = buf;
	u32 id, count;

	if (!apic)
		return -EINVAL;
	id = *(u32 *)(s->regs + APIC_ID);
	if (apic_is_x2(apic) && vcpu->vm->irq.x2apic_32bit_ids && id != vcpu->id)
		return -EINVAL;
	count = *(u32 *)(s->regs + APIC_TMCCT);
	/*
	 * Without a version these are not the registers that KVM_GET_LAPIC gave, but what a VMM knows of them: QEMU leaves
	 * the count out.  A one-shot timer that ends at once, as in KVM, does no harm; one that never ends does.
	 */
	if (!*(u32 *)(s->regs + APIC_LVR) && !(*(u32 *)(s->regs + APIC_LVTT) & APIC_LVT_TIMER_PERIODIC))
		count = max(count, 1U);
	irq_inbox_discard(apic);
	load_regs(apic, s);
	apic_timer_restore(apic, count);
	irq_map_update(vcpu->vm);
	keel_vcpu_kick(vcpu);
	return 0;
}

/* ------------------------------------------------------------- the state (snap/state.c) */

VCPU_IOCTL(irq_lapic_get_state)
{
	struct keel_lapic *apic = vcpu->apic;
	struct keel_state_lapic *s = buf;

	irq_inbox_look(apic);
	memcpy(s->state.regs, apic->regs, sizeof(s->state.regs));
	*(u32 *)(s->state.regs + APIC_TMCCT) = 0;
	apic_timer_get_state(apic, s);
	s->vapic_addr = apic->vapic_addr;
	s->esr = READ_ONCE(apic->esr);
	s->eoi_vector = apic->eoi_vector;
	return 0;
}

/* What the map of LAPICs is made of: mode, by the APIC base, is set before. */
static u64 map_key(const u8 *regs)
{
	return *(u32 *)(regs + APIC_ID) ^ (u64)*(u32 *)(regs + APIC_LDR) << 32 ^ (u64)*(u32 *)(regs + APIC_DFR) << 16;
}

/* The IDs of one in x2APIC mode are not the state's to choose; nor is anything offered, see keel_run(). */
VCPU_IOCTL(irq_lapic_set_state)
{
	struct keel_lapic *apic = vcpu->apic;
	const struct keel_state_lapic *s = buf;
	u64 key = map_key(apic->regs);

	if (s->due > 1 || s->esr & ~0xffU || memchr_inv(s->reserved, 0, sizeof(s->reserved)))
		return -EINVAL;
	load_regs(apic, &s->state);
	apic->eoi_offer = EOI_NONE;
	irq_vapic_set(vcpu, s->vapic_addr);
	apic->esr = s->esr;
	apic->eoi_vector = s->eoi_vector;
	apic_timer_set_state(apic, s);
	if (map_key(apic->regs) != key)
		irq_map_update(vcpu->vm);
	return 0;
}

int irq_ioapic_eoi_exit(struct keel_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
	vcpu->run->eoi.vector = vcpu->apic->eoi_vector;
	return KEEL_USER;
}
