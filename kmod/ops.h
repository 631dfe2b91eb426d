/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ops.h - what a backend (a room like svm/ or vmx/) writes.  Generic code reaches it only through
 * keel_call(op, ...), a static call, and never asks which backend it is.
 *
 * "IRQs off" and "preemption off" say how the operation is called; everything else may sleep.
 */
#ifndef KEEL_OPS_H
#define KEEL_OPS_H

#include <linux/jump_label.h>
#include <linux/static_call.h>
#include <asm/asm.h>
#include "keel.h"

/* A CPU that runs LAPICs in x2APIC mode by itself, on the page of their registers: irq/apicv.c.  vCPU loaded. */
struct keel_lapic_hw {
	void (*run)(struct keel_vcpu *vcpu, bool on);
	void (*set_requested)(struct keel_vcpu *vcpu, int vector);	/* the highest in the IRR, -1: none */
	void (*set_in_service)(struct keel_vcpu *vcpu, int vector);	/* the highest in the ISR, -1: none */
	void (*set_watched)(struct keel_vcpu *vcpu, const unsigned long vectors[]);	/* EOIs that exit, a bit each */
};

/* What the backend can do, filled by setup(). */
struct keel_hw_caps {
	const char *name;		/* for log lines and stats */
	size_t vcpu_size, vm_size;	/* of the backend's structs, which embed ours at offset 0 */
	const char *(*exit_name)(unsigned int slot);	/* for stats; NULL: unused slot */
	unsigned int nr_exits;
	const struct kvm_nested_state *nested_none;	/* of a vCPU that has no guests, in this vendor's format */
	u64 efer_allowed;		/* EFER bits the hardware can run with */
	bool two_dim;			/* two-dimensional paging */
	bool pdptrs;			/* with it the CPU has the four top entries of a PAE guest in registers */
	bool long_wants_tss;		/* long mode does not begin with a 16-bit one: #GP (SDM 2A, MOV to control registers) */
	unsigned int max_page_level;	/* 1: 4K, 2: 2M, 3: 1G in two-dimensional tables */
	unsigned int root_levels;	/* of the two-dimensional table */
	const struct mmu_format *mmu_fmt;	/* its entries: mmu/pte.h */
	unsigned int dirty_log_size;	/* pages written that the CPU lists by itself until an exit; 0: it does not */
	const struct keel_lapic_hw *lapic;	/* NULL: no help with LAPICs */
	bool takes_irqs;		/* an exit may take the host's interrupt along: take_irq */
	/*
	 * Vendors (CPUID leaf 0, EBX) whose CPUs have fast system calls in long mode, 0F and from the first of these opcodes to
	 * the last, that are #UD here.
	 */
	u32 foreign[2];
	u8 foreign_calls[2];
	u64 mcg_caps;			/* MCG_CAP bits that only this vendor's CPUs have */
	u64 mcg_guest;			/* those that a guest can find there: a VMM may ask for others, as with KVM, in vain */
	bool feat_ctl;			/* its CPUs all have FEAT_CTL */
	bool cet;			/* S_CET, SSP and the table of SSPs are switched with the guest, where the CPU has them */
	bool xfd;			/* #NM exits, to keel_fpu_nm(), while the guest has some state disabled (fpu.xfd) */
	const struct keel_pmu_hw *pmu;	/* performance counters as this vendor has them: pmu.h */
	bool tsc_scaling;
	u64 max_tsc_ratio;
	u8 tsc_frac_bits;
	u32 features_off[KEEL_NR_WORDS];	/* features of the host that a guest cannot have here */
};

/* name, return type, parameters, (contract) */
#define KEEL_OPS(OP)									\
	/* Physical CPU, IRQs off.  NULL, or why not, in a clause for the log.  Not shared: turn it on, if it is off.	\
	 * Shared: kvm.ko has it on, or that is why not; nothing is turned on here, nor off by the second.  */	\
	OP(cpu_enable, const char *, (bool shared))					\
	OP(cpu_disable, void, (bool shared))						\
	/* The kernel is dying, maybe in an NMI: off, whatever state keel's data are in.  Never if shared. */	\
	OP(cpu_emergency, void, (void))							\
	/* Objects. vm_init/vcpu_init may allocate; destroy undoes also a failed init. */	\
	OP(vm_init, int, (struct keel_vm *))						\
	OP(vm_destroy, void, (struct keel_vm *))					\
	OP(vcpu_init, int, (struct keel_vcpu *))					\
	OP(vcpu_destroy, void, (struct keel_vcpu *))					\
	OP(vcpu_reset, void, (struct keel_vcpu *, bool init))				\
	/* Preemption off: this vCPU will run on this CPU; it leaves it, which is told only where it is shared. */	\
	OP(load, void, (struct keel_vcpu *, int cpu))					\
	OP(put, void, (struct keel_vcpu *))						\
	/* Preemption off, once per stay in the fast loop: save host state not switched per entry. */ \
	OP(begin, void, (struct keel_vcpu *))						\
	OP(end, void, (struct keel_vcpu *))						\
	/* IRQs off: write dirty registers back; then enter and come back from the guest. */	\
	OP(enter, void, (struct keel_vcpu *))						\
	/* IRQs off, after each exit, if takes_irqs: the interrupt it took is handled as if it came now.	\
	 * IRQs may be on then. */							\
	OP(take_irq, void, (struct keel_vcpu *))					\
	/* After an exit, IRQs on: requeue what was in delivery, then answer it.  The fast handler	\
	 * runs in the fast loop and may say KEEL_SLOW; the slow one may sleep. */	\
	OP(exit_fast, int, (struct keel_vcpu *))					\
	OP(exit_slow, int, (struct keel_vcpu *))					\
	/* Registers: load the cached copy of one lazy register (bit in vcpu->avail is set after). */ \
	OP(cache_reg, void, (struct keel_vcpu *, unsigned int reg))			\
	OP(get_segment, void, (struct keel_vcpu *, struct kvm_segment *, unsigned int seg))	\
	OP(set_segment, void, (struct keel_vcpu *, const struct kvm_segment *, unsigned int seg)) \
	OP(seg_base, u64, (struct keel_vcpu *, unsigned int seg))			\
	/* EMUL_ATTR_DB and EMUL_ATTR_L of the code segment */				\
	OP(cs_mode, u32, (struct keel_vcpu *))						\
	OP(cpl, int, (struct keel_vcpu *))						\
	OP(get_dt, void, (struct keel_vcpu *, struct kvm_dtable *, bool idt))		\
	OP(set_dt, void, (struct keel_vcpu *, const struct kvm_dtable *, bool idt))	\
	/* Values were checked by the caller; the backend adjusts what the hardware sees. */	\
	OP(set_cr0, void, (struct keel_vcpu *, u64))					\
	OP(set_cr3, void, (struct keel_vcpu *, u64))					\
	OP(set_cr4, void, (struct keel_vcpu *, u64))					\
	OP(set_efer, void, (struct keel_vcpu *, u64))					\
	OP(get_dr6, u64, (struct keel_vcpu *))						\
	OP(set_dr6, void, (struct keel_vcpu *, u64))					\
	OP(set_dr7, void, (struct keel_vcpu *, u64))					\
	/* MSRs only the backend can reach; 0, or 1 for "not mine / bad value" (#GP). */	\
	OP(get_msr, int, (struct keel_vcpu *, u32 msr, u64 *val))			\
	OP(set_msr, int, (struct keel_vcpu *, u32 msr, u64 val))			\
	/* Guest's CPUID or debug settings changed: rebuild intercepts and MSR permissions. */	\
	OP(update_intercepts, void, (struct keel_vcpu *))				\
	/* Events. event_blocked answers for INTR and NMI. inject hands one to the next entry. */	\
	OP(inject, void, (struct keel_vcpu *, const struct keel_event *))		\
	OP(cancel_inject, void, (struct keel_vcpu *))					\
	OP(event_blocked, bool, (struct keel_vcpu *, enum keel_event_type))		\
	OP(open_window, void, (struct keel_vcpu *, enum keel_event_type))		\
	OP(close_window, void, (struct keel_vcpu *))					\
	OP(get_shadow, u8, (struct keel_vcpu *))	/* KVM_X86_SHADOW_INT_* */	\
	OP(set_shadow, void, (struct keel_vcpu *, u8))					\
	/* The VMM gave the vCPU other registers: what the CPU keeps beside them (halted, shadows, traps) has to fit. */ \
	OP(regs_given, void, (struct keel_vcpu *))					\
	OP(set_tpr_threshold, void, (struct keel_vcpu *, int irr_class)) /* highest pending class, -1 none */ \
	OP(get_nmi_mask, bool, (struct keel_vcpu *))					\
	OP(set_nmi_mask, void, (struct keel_vcpu *, bool))				\
	/* Any context: something was posted in the inbox, ON is set.  Its thread is to look, or the CPU does. */ \
	OP(notify, void, (struct keel_vcpu *))						\
	/* Paging. */									\
	OP(load_root, void, (struct keel_vcpu *, u64 root_pa))				\
	OP(flush_tlb, void, (struct keel_vcpu *))	/* all of this guest, before the next entry */ \
	/* Shadow paging: is the guest in a mode, and in a state of it, that the CPU runs it in?  Else it is emulated. */ \
	OP(can_enter, bool, (struct keel_vcpu *))					\
	OP(set_tsc, void, (struct keel_vcpu *, u64 offset, u64 ratio))			\
	/* Next RIP of the intercepted instruction if the CPU gave it, else 0. */	\
	OP(next_rip, u64, (struct keel_vcpu *))						\
	OP(hypercall_insn, void, (u8 insn[3]))						\
	OP(dump, void, (struct keel_vcpu *))

#define KEEL_OP_MEMBER(name, ret, args)	ret (*name) args;
struct keel_ops {
	struct keel_hw_caps caps;
	/* At load: fill caps, or say why not in *why (one clause) with an errno. */
	int (*setup)(struct keel_ops *ops, const char **why);
	void (*unsetup)(void);
	KEEL_OPS(KEEL_OP_MEMBER)
};

#define KEEL_OP_DECLARE(name, ret, args) DECLARE_STATIC_CALL(keel_op_##name, *(((struct keel_ops *)0)->name));
KEEL_OPS(KEEL_OP_DECLARE)
#define keel_call(name, ...) static_call(keel_op_##name)(__VA_ARGS__)

/* Where RIP goes behind the intercepted instruction: 0, or what the handler is to return instead. */
static __always_inline int keel_next_rip(struct keel_vcpu *vcpu, u64 *next)
{
	int r;

	*next = keel_call(next_rip, vcpu);
	if (likely(*next))
		return 0;
	r = keel_measure_insn(vcpu);
	*next = vcpu->next_rip;
	return r;
}

extern struct keel_hw_caps keel_hw;	/* of the backend in use; constant after load */
DECLARE_STATIC_KEY_FALSE(keel_takes_irqs);	/* as the capability says */

/*
 * The CPUs' virtualization is kvm.ko's, whose guests run on them as well: what keel finds there it leaves there.  It changes
 * only when there is no VM.
 */
DECLARE_STATIC_KEY_FALSE(keel_shared);
static __always_inline bool keel_hw_shared(void)
{
	return static_branch_unlikely(&keel_shared);
}

/*
 * hw.c.  Preemption off.  Shared: before a guest is entered, at the start of each stay in the fast loop, and behind put.
 * Between the two vcpu->arrived says that the CPU may have been in this guest since load.  False: this CPU is about to
 * go offline, and no guest may be entered here any more; the scheduler will move the thread.
 */
bool __keel_hw_arrive(struct keel_vcpu *vcpu);
static __always_inline bool keel_hw_arrive(struct keel_vcpu *vcpu)
{
	return !keel_hw_shared() || __keel_hw_arrive(vcpu);
}

void keel_hw_leave(struct keel_vcpu *vcpu);

extern struct keel_ops svm_ops, vmx_ops;

/* In an asm goto: a fault of the instruction at @from goes to that C label. */
#define KEEL_EXTABLE_GOTO(from, label)	_ASM_EXTABLE(from, (%l[label]))
/* The same of one that reads the user's memory, which may be broken. */
#define KEEL_EXTABLE_USER_GOTO(from, label)	_ASM_EXTABLE_UA(from, (%l[label]))

void keel_machine_check(void);	/* hw.c: for enter() when one ended the guest */

#endif
