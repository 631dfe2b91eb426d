// SPDX-License-Identifier: GPL-2.0-only
/*
 * exit.c - one entry and what to do about the exit. APM 15.5, 15.6, 15.9, appendix C (exit codes).
 *
 * A row of the table has a fast handler, which runs in the fast loop (preemption off, no sleeping, guest
 * FPU loaded), and a slow one.  A fast handler that cannot finish says KEEL_SLOW and has changed nothing.
 * A row without a fast handler goes to the slow one; without either, the exit should not have happened.
 */

#include "svm.h"
#include <asm/segment.h>
#include <asm/trap_pf.h>
#include "trace.h"

/*
 * An exit loads DS and ES by their selectors, from the GDT: what a task has there of its LDT is taken out.  FS and GS come
 * back with all that belongs to them, and so does the LDT's register, which another thread may have given a new LDT
 * meanwhile: the one that comes back may not be there any more.
 */
static void svm_begin_ldt(struct svm_vcpu *svm)
{
	savesegment(ds, svm->host_ds);
	savesegment(es, svm->host_es);
	loadsegment(ds, 0);
	loadsegment(es, 0);
}

static noinline void svm_end_ldt(struct svm_vcpu *svm)
{
	keel_load_ldt();
	if (svm->host_ds)
		loadsegment(ds, svm->host_ds);
	if (svm->host_es)
		loadsegment(es, svm->host_es);
	svm->host_ds = svm->host_es = 0;
}

#define DEBUGCTL_FELT	((u64)(DEBUGCTLMSR_BTF | DEBUGCTLMSR_BUS_LOCK_DETECT))

/* perf changes its own bits in interrupts. */
static noinline void change_debugctl(u64 clear, u64 set)
{
	unsigned long flags;

	local_irq_save(flags);
	keel_wrmsr(MSR_IA32_DEBUGCTLMSR, (keel_rdmsr(MSR_IA32_DEBUGCTLMSR) & ~clear) | set);
	local_irq_restore(flags);
}

void svm_begin(struct keel_vcpu *vcpu)
{
	u64 debugctl;

	if (unlikely(keel_has_ldt()))
		svm_begin_ldt(to_svm(vcpu));
	/* FS, GS, LDTR and KernelGsBase are the task's: the picture is taken for each stay in the loop. */
	asm volatile("1: vmsave %0\n2:\n" _ASM_EXTABLE(1b, 2b) : : "a" (svm_host_save_pa()) : "memory");
	svm_load_tsc_ratio(to_svm(vcpu));
	/*
	 * The guest would run with the host's DEBUGCTL, as LBR virtualization is not used here: with bus locks trapped, or
	 * steps from branch to branch, which it has not asked for and which are #DBs to it.  The rest is perf's, and stays.
	 */
	debugctl = keel_rdmsr(MSR_IA32_DEBUGCTLMSR) & DEBUGCTL_FELT;
	to_svm(vcpu)->host_debugctl = debugctl;
	if (unlikely(debugctl))
		change_debugctl(debugctl, 0);
}

void svm_end(struct keel_vcpu *vcpu)
{
	if (unlikely(keel_has_ldt()))
		svm_end_ldt(to_svm(vcpu));
	if (unlikely(to_svm(vcpu)->host_debugctl))
		change_debugctl(0, to_svm(vcpu)->host_debugctl);
}

static void svm_flush_regs(struct svm_vcpu *svm)
{
	struct vmcb_save_area *s = &svm->vmcb->save;
	struct keel_vcpu *vcpu = &svm->vcpu;
	u32 dirty = vcpu->dirty;

	if (dirty & BIT(KEEL_RIP))
		s->rip = vcpu->regs[KEEL_RIP];
	if (dirty & BIT(KEEL_RSP))
		s->rsp = vcpu->regs[KEEL_RSP];
	if (dirty & BIT(KEEL_LAZY_RFLAGS)) {
		/* Of these flags: others may have been set since the step was asked for. */
		svm->step_tf = vcpu->rflags & X86_EFLAGS_TF;
		s->rflags = vcpu->rflags | (svm->step ? X86_EFLAGS_TF : 0);
	}
	vcpu->dirty = 0;
}

static noinstr void svm_not_entered(struct vmcb_control_area *c)
{
	c->exit_code = SVM_EXIT_ERR;
	/* What was to be delivered has been by nobody. */
	c->exit_int_info = c->event_inj;
	c->exit_int_info_err = c->event_inj_err;
}

/*
 * IRQs off.  From CLGI to STGI nothing at all may interrupt.  A reboot turns SVM off under whoever is still in here: CLGI
 * raises #UD then, which is an entry refused.  Once it is through, SVM stays on until STGI.
 */
static noinstr void svm_switch(struct svm_vcpu *svm, phys_addr_t host_pa)
{
	asm goto("1: clgi\n" KEEL_EXTABLE_GOTO(1b, off) : : : "memory" : off);
	svm_vmrun(svm->vcpu.regs, svm->vmcb_pa, host_pa);
	asm volatile("stgi" : : : "memory");
	return;
off:
	svm_not_entered(&svm->vmcb->control);
}

void svm_enter(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_control_area *c = &svm->vmcb->control;
	struct vmcb_save_area *s = &svm->vmcb->save;
	u8 tpr = vcpu->cr8;

	svm_flush_regs(svm);
	s->rax = vcpu->regs[KEEL_RAX];
	if (s->cr2 != vcpu->cr2) {
		s->cr2 = vcpu->cr2;
		svm_touch(svm, CLEAN_CR2);
	}
	if (tpr != svm->tpr_class) {
		svm->tpr_class = tpr;
		c->int_ctl = (c->int_ctl & ~V_TPR_MASK) | tpr;
		svm_touch(svm, CLEAN_INTR);
	}
	c->tlb_ctl = TLB_CONTROL_DO_NOTHING;
	if (unlikely(!svm_keeps_asid(svm)))
		svm_assign_asid(svm);
	c->clean = svm->clean;

	if (unlikely(svm_lost_area()))
		svm_not_entered(c);
	else
		svm_switch(svm, svm_host_save_pa());

	/* Before interrupts: whoever polls the banks would find it first. */
	if (unlikely(svm_exit_code(c) == SVM_EXIT_EXCP_BASE + X86_TRAP_MC))
		keel_machine_check();
	svm->clean = CLEAN_ALL;
	vcpu->regs[KEEL_RAX] = s->rax;
	vcpu->cr2 = s->cr2;
	vcpu->regs[KEEL_RIP] = s->rip;
	vcpu->rflags = s->rflags;
	vcpu->avail = svm_has.kept;
	if (unlikely(svm->step))
		vcpu->avail &= ~BIT(KEEL_LAZY_RFLAGS);	/* TF may be ours */
	c->event_inj = 0;
	tpr = c->int_ctl & V_TPR_MASK;
	if (unlikely(tpr != svm->tpr_class)) {
		svm->tpr_class = tpr;
		if (vcpu->apic)
			irq_lapic_set_tpr(vcpu, tpr << 4);
		else
			vcpu->cr8 = tpr;
	}
}

/* ------------------------------------------------------------ handlers */

static int svm_resume(struct keel_vcpu *vcpu)
{
	return KEEL_RESUME;
}

static int svm_irq(struct keel_vcpu *vcpu)
{
	vcpu->guest_irq_exit = true;
	vcpu->stat.irq_exits++;
	return KEEL_RESUME;
}

static int svm_iret(struct keel_vcpu *vcpu)
{
	svm_iret_seen(to_svm(vcpu));
	return KEEL_RESUME;
}

static int svm_ud(struct keel_vcpu *vcpu)
{
	keel_raise(vcpu, X86_TRAP_UD);
	return KEEL_RESUME;
}

static int svm_db(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	u64 found = svm->vmcb->save.dr6 & (DR_TRAP_BITS | BIT(13) | DR_STEP | BIT(15)), left;

	/*
	 * The CPU entered with nothing in DR6, so what is there now is the cause of this one alone.  It stays in the CPU,
	 * where the host's own debug exceptions would find it.
	 */
	svm->vmcb->save.dr6 = DR6_RESERVED;
	svm_touch(svm, CLEAN_DR);
	set_debugreg((unsigned long)DR6_RESERVED, 6);
	left = svm_step_done(svm, found);
	/* RIP is where it is to be, behind an INT1, too, which has no cause of its own: a trap (APM 15.12.2). */
	if (left || left == found)
		keel_raise_db(vcpu, left);
	return KEEL_RESUME;
}

static int svm_ac(struct keel_vcpu *vcpu)
{
	keel_raise_error(vcpu, X86_TRAP_AC, to_svm(vcpu)->vmcb->control.exit_info_1);
	return KEEL_RESUME;
}

static int svm_gp(struct keel_vcpu *vcpu)
{
	return keel_emulate_gp(vcpu, to_svm(vcpu)->vmcb->control.exit_info_1);
}

static int svm_hlt(struct keel_vcpu *vcpu)
{
	u64 next;
	int r = keel_next_rip(vcpu, &next);

	if (r)
		return r;
	keel_advance(vcpu, next);
	return keel_emulate_hlt(vcpu);
}

static int svm_io(struct keel_vcpu *vcpu)
{
	struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;
	u32 info = c->exit_info_1;

	if (info & SVM_IOIO_STR_MASK)
		return keel_emulate(vcpu);
	return keel_pio(vcpu, info >> 16, (info & SVM_IOIO_SIZE_MASK) >> SVM_IOIO_SIZE_SHIFT,
			info & SVM_IOIO_TYPE_MASK, c->exit_info_2);
}

static int svm_msr(struct keel_vcpu *vcpu)
{
	return to_svm(vcpu)->vmcb->control.exit_info_1 ? keel_emulate_wrmsr(vcpu) :
							 keel_emulate_rdmsr(vcpu);
}

/* Instructions without an effect here: on caches that are coherent anyway. */
static int svm_nothing(struct keel_vcpu *vcpu)
{
	int r = keel_skip(vcpu);

	return r < 0 ? KEEL_RESUME : r;
}

/* EXITINFO1 is the TSS's selector; 2 says who asked for it, if no event did (APM 15.14.1). */
static int svm_task_switch(struct keel_vcpu *vcpu)
{
	const struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;
	const struct keel_event *ev = &vcpu->ev.injected;
	u64 info = c->exit_info_2, next = keel_reg(vcpu, KEEL_RIP);
	enum emul_switch why = info & BIT_ULL(SVM_EXITINFOSHIFT_TS_REASON_IRET) ? EMUL_SWITCH_IRET :
			       info & BIT_ULL(SVM_EXITINFOSHIFT_TS_REASON_JMP) ? EMUL_SWITCH_JMP :
			       c->exit_int_info & SVM_EXITINTINFO_VALID ? EMUL_SWITCH_GATE : EMUL_SWITCH_CALL;

	if (info & BIT_ULL(48))		/* RFLAGS.RF, as it is to be saved */
		keel_set_rflags(vcpu, keel_rflags(vcpu) | X86_EFLAGS_RF);
	if (keel_is_soft(ev->type)) {
		next = (u32)(next + ev->insn_len);
	} else if (why != EMUL_SWITCH_GATE || keel_is_soft(svm_vectoring_type(c->exit_int_info))) {
		/* No intercept of an instruction's: where the next one is, the CPU does not say. */
		int r = keel_measure_insn(vcpu);

		if (r)
			return r;
		next = vcpu->next_rip;
	}
	return keel_task_switch(vcpu, c->exit_info_1, why, next);
}

static int svm_shutdown(struct keel_vcpu *vcpu)
{
	/* The VMCB's registers are undefined now (APM 15.14.3): userspace sees reset values. */
	keel_vcpu_reset(vcpu, true);
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return KEEL_USER;
}

static int svm_npf(struct keel_vcpu *vcpu)
{
	struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;
	u64 info = c->exit_info_1;
	u32 access = 0;

	/* A shadow stack's page has to be writable for those who read it, too. */
	if (info & (X86_PF_WRITE | SVM_NPF_SHSTK))
		access |= MMU_ACC_WRITE;
	if (info & X86_PF_INSTR)
		access |= MMU_ACC_FETCH;
	if (info & X86_PF_PROT)
		access |= MMU_ACC_PRESENT;
	if (info & SVM_NPF_FINAL)
		access |= MMU_ACC_FINAL;
	return keel_page_fault(vcpu, c->exit_info_2, access, info);
}

static int svm_pf(struct keel_vcpu *vcpu)
{
	struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;

	return keel_shadow_fault(vcpu, c->exit_info_2, c->exit_info_1);
}

/*
 * For the fast loop, still on the CPU that refused: it may not have done the flush this entry asked for, nor have taken over what
 * had changed.
 */
static int svm_refused(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_control_area *c = &svm->vmcb->control;

	if (svm_exit_code(c) != (u32)SVM_EXIT_ERR)
		return KEEL_SLOW;
	svm->clean = 0;
	if (c->tlb_ctl != TLB_CONTROL_DO_NOTHING)
		svm_restart_asids();
	if (svm_lost_area())
		pr_warn_ratelimited("keel: no entry: SEV-SNP has been set up, for kvm_amd; load that, then \"keel share\"\n");
	return KEEL_SLOW;
}

/* ---------------------------------------------------------- dispatch */

typedef int (*svm_handler)(struct keel_vcpu *vcpu);

#define SLOT_NPF	(SVM_EXIT_SLOTS - 1)
#define SLOT_NONE	(SLOT_NPF - 1)		/* no exit has this code: its row is for what no other has one for */

static const struct svm_exit {
	svm_handler fast, slow;
	const char *name;
} svm_exits[SVM_EXIT_SLOTS] = {
#define BOTH(h)		.fast = h, .slow = h
#define ONLY_SLOW(h)	.slow = h
#define EXCP(v)		(SVM_EXIT_EXCP_BASE + (v))
	[SVM_EXIT_READ_CR0]	= { ONLY_SLOW(keel_emulate), "read_cr0" },
	[SVM_EXIT_WRITE_CR0]	= { ONLY_SLOW(keel_emulate), "write_cr0" },
	[SVM_EXIT_READ_CR3]	= { BOTH(keel_emulate), "read_cr3" },
	[SVM_EXIT_WRITE_CR3]	= { BOTH(keel_emulate), "write_cr3" },
	[SVM_EXIT_READ_CR4]	= { BOTH(keel_emulate), "read_cr4" },
	[SVM_EXIT_CR0_SEL_WRITE] = { ONLY_SLOW(keel_emulate), "cr0_sel_write" },
	[SVM_EXIT_WRITE_CR4]	= { ONLY_SLOW(keel_emulate), "write_cr4" },
	[SVM_EXIT_WRITE_CR8]	= { BOTH(keel_emulate_cr), "write_cr8" },
	[SVM_EXIT_READ_DR0 ... SVM_EXIT_READ_DR7] = { ONLY_SLOW(keel_emulate), "read_dr" },
	[SVM_EXIT_WRITE_DR0 ... SVM_EXIT_WRITE_DR7] = { ONLY_SLOW(keel_emulate), "write_dr" },
	[EXCP(X86_TRAP_DB)]	= { BOTH(svm_db), "excp_db" },
	[EXCP(X86_TRAP_BP)]	= { BOTH(keel_emulate_bp), "excp_bp" },
	[EXCP(X86_TRAP_UD)]	= { ONLY_SLOW(keel_emulate_ud), "excp_ud" },
	[EXCP(X86_TRAP_GP)]	= { BOTH(svm_gp), "excp_gp" },
	[EXCP(X86_TRAP_PF)]	= { BOTH(svm_pf), "excp_pf" },
	[EXCP(X86_TRAP_AC)]	= { BOTH(svm_ac), "excp_ac" },
	[EXCP(X86_TRAP_MC)]	= { BOTH(svm_resume), "excp_mc" },	/* svm_enter() has seen to it */
	[SVM_EXIT_INTR]		= { BOTH(svm_irq), "interrupt" },
	[SVM_EXIT_NMI]		= { BOTH(svm_irq), "nmi" },
	[SVM_EXIT_SMI]		= { BOTH(svm_irq), "smi" },
	[SVM_EXIT_INIT]		= { BOTH(svm_resume), "init" },
	[SVM_EXIT_VINTR]	= { .fast = keel_irq_window_exit, .slow = svm_resume, "irq_window" },
	[SVM_EXIT_RDPMC]	= { BOTH(keel_emulate), "rdpmc" },
	[SVM_EXIT_CPUID]	= { BOTH(keel_emulate_cpuid), "cpuid" },
	[SVM_EXIT_RSM]		= { ONLY_SLOW(keel_emulate), "rsm" },
	[SVM_EXIT_IRET]		= { BOTH(svm_iret), "iret" },
	[SVM_EXIT_INVD]		= { BOTH(svm_nothing), "invd" },
	[SVM_EXIT_HLT]		= { BOTH(svm_hlt), "hlt" },
	[SVM_EXIT_INVLPG]	= { BOTH(keel_emulate), "invlpg" },
	[SVM_EXIT_INVLPGA]	= { BOTH(svm_ud), "invlpga" },
	[SVM_EXIT_IOIO]		= { BOTH(svm_io), "io" },
	[SVM_EXIT_MSR]		= { BOTH(svm_msr), "msr" },
	[SVM_EXIT_TASK_SWITCH]	= { ONLY_SLOW(svm_task_switch), "task_switch" },
	[SVM_EXIT_SHUTDOWN]	= { ONLY_SLOW(svm_shutdown), "shutdown" },
	[SVM_EXIT_VMRUN]	= { BOTH(svm_ud), "vmrun" },
	[SVM_EXIT_VMMCALL]	= { BOTH(keel_emulate_hypercall), "hypercall" },
	[SVM_EXIT_VMLOAD]	= { BOTH(svm_ud), "vmload" },
	[SVM_EXIT_VMSAVE]	= { BOTH(svm_ud), "vmsave" },
	[SVM_EXIT_STGI]		= { BOTH(svm_ud), "stgi" },
	[SVM_EXIT_CLGI]		= { BOTH(svm_ud), "clgi" },
	[SVM_EXIT_SKINIT]	= { BOTH(svm_ud), "skinit" },
	[SVM_EXIT_WBINVD]	= { BOTH(svm_nothing), "wbinvd" },
	[SVM_EXIT_MONITOR]	= { BOTH(keel_emulate_mwait), "monitor" },
	[SVM_EXIT_MWAIT]	= { BOTH(keel_emulate_mwait), "mwait" },
	[SVM_EXIT_XSETBV]	= { ONLY_SLOW(keel_emulate_xsetbv), "xsetbv" },
	[SVM_EXIT_RDPRU]	= { BOTH(svm_ud), "rdpru" },
	[SVM_EXIT_INVPCID]	= { BOTH(keel_emulate), "invpcid" },
	[SLOT_NONE]		= { .fast = svm_refused },
	[SLOT_NPF]		= { BOTH(svm_npf), "page_fault" },
};

const char *svm_exit_name(unsigned int slot)
{
	return slot < SVM_EXIT_SLOTS ? svm_exits[slot].name : NULL;
}

static unsigned int svm_exit_slot(const struct vmcb_control_area *c)
{
	if (svm_exit_code(c) == SVM_EXIT_NPF)
		return SLOT_NPF;
	return min_t(u32, svm_exit_code(c), SLOT_NONE);
}

/* VMRUN refused the guest's state, or an exit nobody asked for. */
static int svm_unexpected(struct keel_vcpu *vcpu)
{
	struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;
	u64 data[] = { svm_exit_code(c), vcpu->cpu };

	if (svm_exit_code(c) == (u32)SVM_EXIT_ERR) {
		/* A CPU that loaded nothing may save nothing here (QEMU's does): the host would lose its interrupts. */
		c->int_ctl |= V_INTR_MASKING_MASK;
		svm_touch(to_svm(vcpu), CLEAN_INTR);
		keel_request(KEEL_REQ_EVENT, vcpu);	/* and the guest its window */
		return keel_exit_fail_entry(vcpu, svm_exit_code(c));
	}
	return keel_exit_internal_error(vcpu, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
					ARRAY_SIZE(data), data);
}

/* Out of line: its arguments would all be at hand for it at every exit. */
static noinline void svm_trace_exit(struct svm_vcpu *svm, unsigned int slot)
{
	struct vmcb_control_area *c = &svm->vmcb->control;

	trace_keel_exit(&svm->vcpu, slot, svm_exits[slot].name, c->exit_info_1, c->exit_info_2);
}

static noinline void svm_watch(struct svm_vcpu *svm)
{
	struct vmcb_control_area *c = &svm->vmcb->control;
	struct keel_vcpu *vcpu = &svm->vcpu;
	bool returned = svm->iret_started && keel_reg(vcpu, KEEL_RIP) != svm->iret_rip;

	if (svm_in_shadow(c) | svm->in_shadow)
		svm_keep_shadow(svm);
	svm->step_popped = returned && svm->step;
	if (svm->step && svm_exit_code(c) != SVM_EXIT_EXCP_BASE + X86_TRAP_DB)
		svm_step_end(svm);
	if (returned) {
		svm_set_nmi_mask(vcpu, false);
		keel_request(KEEL_REQ_EVENT, vcpu);
	}
}

int svm_exit_fast(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_control_area *c = &svm->vmcb->control;
	unsigned int slot = svm_exit_slot(c);

	if (trace_keel_exit_enabled())
		svm_trace_exit(svm, slot);
	keel_count_exit(&vcpu->stat, slot);
	if (unlikely(svm_in_shadow(c) || svm->watched))
		svm_watch(svm);
	if (unlikely(c->exit_int_info & SVM_EXITINTINFO_VALID))
		svm_requeue_vectoring(svm);
	else
		vcpu->ev.injected.type = KEEL_EV_NONE;
	return likely(svm_exits[slot].fast) ? svm_exits[slot].fast(vcpu) : KEEL_SLOW;
}

int svm_exit_slow(struct keel_vcpu *vcpu)
{
	unsigned int slot = svm_exit_slot(&to_svm(vcpu)->vmcb->control);

	return svm_exits[slot].slow ? svm_exits[slot].slow(vcpu) : svm_unexpected(vcpu);
}

/*
 * RIP behind the intercepted instruction.  NRIPS saves it for instruction intercepts only; after an
 * exception or a nested page fault the field means nothing, and callers do not ask.
 */
u64 svm_next_rip(struct keel_vcpu *vcpu)
{
	struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;

	return svm_has.nrips && svm_exit_code(c) < SVM_EXIT_NPF && svm_exit_code(c) >= SVM_EXIT_CPUID ? c->next_rip : 0;
}

void svm_hypercall_insn(u8 insn[3])
{
	static const u8 vmmcall[3] = { 0x0f, 0x01, 0xd9 };

	memcpy(insn, vmmcall, 3);
}
