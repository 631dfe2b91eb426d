// SPDX-License-Identifier: GPL-2.0-only
/*
 * exit.c - one entry and what to do about the exit.  SDM 3C 25.1 (what exits), 27.2 (exit information), appendix C
 * (exit reasons), 26.7 and 26.8 (entries that fail).
 *
 * A row of the table has a fast handler, which runs in the fast loop (preemption off, no sleeping, guest FPU
 * loaded), and a slow one.  A fast handler that cannot finish says KEEL_SLOW and has changed nothing.  A row
 * without a fast handler goes to the slow one; without either, the exit should not have happened.
 */
#include <linux/kprobes.h>
#include <asm/special_insns.h>
#include "vmx.h"
#include "cpu/mitigate.h"
#include "trace.h"

/* ---------------------------------------------------------- entry */

/*
 * With TF set and an interrupt shadow, the single step is pending, and without TF it is not: entries are refused
 * where the three disagree (26.3.1.5).  The CPU keeps them in step, emulation and userspace may not.
 */
static noinline void vmx_fix_shadow(struct vmx_vcpu *vmx)
{
	u32 state = vmcs_read(GUEST_INTERRUPTIBILITY_INFO);
	u64 rflags = keel_rflags(&vmx->vcpu), pending;

	vmx->shadow_set = false;
	if (state & GUEST_INTR_STATE_STI && !(rflags & X86_EFLAGS_IF)) {
		state &= ~GUEST_INTR_STATE_STI;
		vmcs_write(GUEST_INTERRUPTIBILITY_INFO, state);
	}
	if (!(state & (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS)))
		return;
	pending = vmcs_read(GUEST_PENDING_DBG_EXCEPTIONS) & ~(u64)DR_STEP;
	vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, rflags & X86_EFLAGS_TF ? pending | DR_STEP : pending);
}

static void vmx_flush_regs(struct vmx_vcpu *vmx)
{
	struct keel_vcpu *vcpu = &vmx->vcpu;
	u32 dirty = vcpu->dirty;

	if (dirty & BIT(KEEL_RIP))
		vmcs_write_here(GUEST_RIP, vcpu->regs[KEEL_RIP]);
	if (dirty & BIT(KEEL_RSP))
		vmcs_write_here(GUEST_RSP, vcpu->regs[KEEL_RSP]);
	if (dirty & BIT(KEEL_LAZY_RFLAGS))
		vmcs_write_here(GUEST_RFLAGS, vcpu->rflags);
	if (unlikely(dirty & BIT(KEEL_LAZY_PDPTRS)) && keel_hw.two_dim) {
		vmcs_write_here(GUEST_PDPTR0, vcpu->pdptrs[0]);
		vmcs_write_here(GUEST_PDPTR1, vcpu->pdptrs[1]);
		vmcs_write_here(GUEST_PDPTR2, vcpu->pdptrs[2]);
		vmcs_write_here(GUEST_PDPTR3, vcpu->pdptrs[3]);
	}
	if (unlikely(vmx->shadow_set))
		vmx_fix_shadow(vmx);
	vcpu->dirty = 0;
}

/* An entry is refused where the TPR is below already. */
static void vmx_fix_threshold(struct vmx_vcpu *vmx)
{
	if (likely(vmx->tpr_threshold <= vmx->vcpu.cr8))
		return;
	vmx->tpr_threshold = vmx->vcpu.cr8;
	vmcs_write_here(TPR_THRESHOLD, vmx->tpr_threshold);
}

static void vmx_save_tpr(struct vmx_vcpu *vmx)
{
	u8 class;

	if (!vmx->vapic)
		return;
	class = vmx->vapic[APIC_TASKPRI] >> 4;
	if (unlikely(class != vmx->vcpu.cr8))
		irq_lapic_tpr_written(&vmx->vcpu, class);
}

static void vmx_host_refresh(struct vmx_vcpu *vmx)
{
	unsigned long cr3 = __read_cr3(), cr4 = __read_cr4();

	if (unlikely(cr3 != vmx->host_cr3)) {
		vmx->host_cr3 = cr3;
		vmcs_write_here(HOST_CR3, cr3);
	}
	if (unlikely(cr4 != vmx->host_cr4)) {
		vmx->host_cr4 = cr4;
		vmcs_write_here(HOST_CR4, cr4);
	}
}

static noinline void vmx_before_entry(struct vmx_vcpu *vmx)
{
	if (vmx->window)
		vmx_window_enter(vmx);
	if (vmx->before_entry & VMX_LOAD_TSC) {
		vmx->before_entry &= ~VMX_LOAD_TSC;
		vmcs_write(TSC_OFFSET, vmx->tsc_offset);
		if (keel_hw.tsc_scaling)
			vmcs_write(TSC_MULTIPLIER, vmx->tsc_ratio);
	}
	/*
	 * It takes a moment until it has written its last record: too long for the exchange that the entry makes.  (The exit
	 * turns it on again; after an entry that the CPU refuses, which ends the VM, perf does when it next looks.)
	 */
	if (vmx->before_entry & VMX_STOP_PEBS)
		wrmsrq(MSR_IA32_PEBS_ENABLE, 0);
	if (vmx->before_entry & VMX_NOTIFY)
		vmx_notify_again(vmx);
	if (vmx->before_entry & VMX_UMWAIT) {
		vmx->host_umwait = keel_rdmsr(MSR_IA32_UMWAIT_CONTROL);
		keel_wrmsr(MSR_IA32_UMWAIT_CONTROL, vmx->vcpu.msrs.umwait_control);
	}
}

/* From the page's end to its start (SDM 28.3.6); the index is that of the next entry, behind the last one -1. */
static void vmx_drain_pml(struct vmx_vcpu *vmx)
{
	struct keel_vcpu *vcpu = &vmx->vcpu;
	s16 index = vmcs_read_here(GUEST_PML_INDEX), i;

	if (likely(index == VMX_PML_ENTRIES - 1))
		return;
	for (i = VMX_PML_ENTRIES - 1; i > index; i--) {
		u64 gfn = vmx->pml[i] >> PAGE_SHIFT;
		struct keel_slot *slot = keel_vcpu_slot(vcpu, gfn);

		/* After the fact: a slot whose sinks have to know before has no pages that are listed here. */
		if (slot)
			keel_first_write(vcpu, slot, gfn);
	}
	vmcs_write_here(GUEST_PML_INDEX, VMX_PML_ENTRIES - 1);
}

/* With IRQs off: who waited for this exit finds it done. */
static noinline void vmx_after_exit(struct vmx_vcpu *vmx)
{
	if (vmx->after_exit & VMX_DEBUGCTL)
		keel_wrmsr(MSR_IA32_DEBUGCTLMSR, vmx->host_debugctl);
	if (vmx->after_exit & VMX_UMWAIT_BACK)
		keel_wrmsr(MSR_IA32_UMWAIT_CONTROL, vmx->host_umwait);
	if (vmx->after_exit & VMX_DRAIN_PML)
		vmx_drain_pml(vmx);
	if (vmx->window)
		vmx_window_exit(vmx);
}

/*
 * NMIs and machine checks are the host's, and are taken before interrupts are let in again; and before anything that
 * might be traced, whose end would let in another NMI.
 */
static noinline notrace void vmx_exception_exit(struct vmx_vcpu *vmx)
{
	if (vmx->reason != EXIT_REASON_EXCEPTION_NMI) {
		/*
		 * The entry failed because of the guest's state, and the VMCS is still to be launched (SDM 26.8); or a
		 * machine check has broken it off (26.9).
		 */
		vmx->insn_error = 0;
		if ((u16)vmx->reason == EXIT_REASON_MCE_DURING_VMENTRY)
			keel_machine_check();
		return;
	}
	vmx->launched = true;
	vmx->intr_info = vmcs_read_here(VM_EXIT_INTR_INFO);
	switch (vmx->intr_info & INTR_INFO_INTR_TYPE_MASK) {
	case INTR_TYPE_NMI_INTR:
		keel_l1d_note();
		asm volatile("int $2");
		break;
	case INTR_TYPE_HARD_EXCEPTION:
		if ((vmx->intr_info & INTR_INFO_VECTOR_MASK) == X86_TRAP_MC)
			keel_machine_check();
		break;
	}
}
NOKPROBE_SYMBOL(vmx_exception_exit);

void vmx_enter(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	if (static_branch_unlikely(&vmx_perf_used) && unlikely(vmx_perf_stale(vmx)))
		vmx_perf_exchange(vmx);
	if (unlikely(vmx->work & VMX_ENTRY_WORK))
		vmx_before_entry(vmx);
	/* Now this vCPU's VMCS is current in any case. */
	vmx_flush_regs(vmx);
	vmx_fix_threshold(vmx);
	vmx_host_refresh(vmx);
	if (unlikely(vmx->flush)) {
		vmx->flush = false;
		vmx_flush_context(vmx);
	}
	keel_entry_flush();
	if (native_read_cr2() != vcpu->cr2)
		native_write_cr2(vcpu->cr2);

	if (unlikely(vmx_vmenter(vcpu->regs, vmx->launched))) {
		vmx->insn_error = vmcs_read_here(VM_INSTRUCTION_ERROR);
		vmx->reason = VMX_EXIT_REASONS_FAILED_VMENTRY;
		vmx->idt_info = 0;
		if (vmx->work & VMX_EXIT_WORK)
			vmx_after_exit(vmx);
		return;
	}
	vcpu->cr2 = native_read_cr2();
	vcpu->avail = vmx_has.kept;
	/*
	 * Between the number and the sign are notes, of which a CPU makes one that nobody asked for: the guest was in an
	 * enclave (24.9.1; a VMM may map its own for it).
	 */
	vmx->reason = vmcs_read_here(VM_EXIT_REASON) & (VMX_EXIT_REASONS_FAILED_VMENTRY | U16_MAX);
	vmx->idt_info = vmcs_read_here(IDT_VECTORING_INFO_FIELD);
	/* EXIT_REASON_EXCEPTION_NMI, which is 0, or with the sign: a failed entry. */
	if (likely((s32)vmx->reason > 0))
		vmx->launched = true;
	else
		vmx_exception_exit(vmx);
	vmx_save_tpr(vmx);
	if (unlikely(vmx->work & VMX_EXIT_WORK))
		vmx_after_exit(vmx);
}
NOKPROBE_SYMBOL(vmx_enter);

/* ---------------------------------------------------------- handlers */

/* An exit nobody asked for. */
static int vmx_unexpected(struct keel_vcpu *vcpu)
{
	u64 data[] = { to_vmx(vcpu)->reason, vcpu->cpu };

	return keel_exit_internal_error(vcpu, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
					ARRAY_SIZE(data), data);
}

static int vmx_resume(struct keel_vcpu *vcpu)
{
	return KEEL_RESUME;
}

static int vmx_irq(struct keel_vcpu *vcpu)
{
	vcpu->guest_irq_exit = true;
	vcpu->stat.irq_exits++;
	return KEEL_RESUME;
}

/* An IRET that unblocked NMIs and then faulted or exited has not been done: they are blocked again (27.2.3). */
static void vmx_iret_undone(struct vmx_vcpu *vmx, bool unblocked)
{
	if (unlikely(unblocked) && !(vmx->idt_info & VECTORING_INFO_VALID_MASK))
		vmx_set_nmi_mask(&vmx->vcpu, true);
}

/* One that the guest's own alignment check cannot be the reason of is the host's, which watches for split locks. */
static int vmx_ac(struct keel_vcpu *vcpu)
{
	u64 resets = vcpu->vm->stat.resets, rip;
	struct kvm_run *run = vcpu->run;
	bool again;

	if (likely(vmx_cpl(vcpu) == 3 && keel_cr0(vcpu) & X86_CR0_AM && keel_rflags(vcpu) & X86_EFLAGS_AC)) {
		keel_raise_error(vcpu, X86_TRAP_AC, vmcs_read(VM_EXIT_INTR_ERROR_CODE));
		return KEEL_RESUME;
	}
	if (vcpu->atomic)
		return KEEL_SLOW;
	/* It waits its turn among all threads that do the same: nobody is to wait for this one meanwhile. */
	rip = keel_linear_rip(vcpu);
	keel_vcpu_end(vcpu);
	again = keel_guest_split_lock(rip);
	if (keel_vcpu_begin(vcpu))
		return -EINTR;
	if (again || vcpu->vm->stat.resets != resets)
		return KEEL_RESUME;		/* the guest does it again, or never did */
	run->exit_reason = KVM_EXIT_EXCEPTION;
	run->ex.exception = X86_TRAP_AC;
	run->ex.error_code = 0;
	return KEEL_USER;
}

static int vmx_exception(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u32 info = vmx->intr_info;
	u8 vector = info & INTR_INFO_VECTOR_MASK;

	if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_NMI_INTR) {
		vcpu->stat.irq_exits++;
		return KEEL_RESUME;
	}
	vmx_iret_undone(vmx, info & INTR_INFO_UNBLOCK_NMI);
	switch (vector) {
	case X86_TRAP_DB:
		/* INT1 is told of before it is done, and handlers, who take it for a trap, return behind it. */
		if (unlikely((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_PRIV_SW_EXCEPTION)) {
			keel_set_reg(vcpu, KEEL_RIP, vmx_next_rip(vcpu));
			vmx_set_shadow(vcpu, 0);
		}
		/* Unlike DR6, the qualification tells of this one alone. */
		vmx->shadow_set = true;
		keel_raise_db(vcpu, vmcs_read(EXIT_QUALIFICATION) & (DR_TRAP_BITS | DR_BUS_LOCK | BIT(13) | DR_STEP | DR_RTM));
		return KEEL_RESUME;
	case X86_TRAP_AC:
		return vmx_ac(vcpu);
	case X86_TRAP_MC:
		return KEEL_RESUME;
	case X86_TRAP_BP:
		return keel_emulate_bp(vcpu);
	case X86_TRAP_UD:
		return keel_emulate_ud(vcpu);
	case X86_TRAP_GP:
		return keel_emulate_gp(vcpu, info & INTR_INFO_DELIVER_CODE_MASK ? vmcs_read(VM_EXIT_INTR_ERROR_CODE) : 0);
	case X86_TRAP_NM:
		return keel_fpu_nm(vcpu);
	case X86_TRAP_PF:
		return keel_shadow_fault(vcpu, vmcs_read(EXIT_QUALIFICATION), vmcs_read(VM_EXIT_INTR_ERROR_CODE));
	default:
		return vcpu->atomic ? KEEL_SLOW : vmx_unexpected(vcpu);
	}
}

static int vmx_nmi_window(struct keel_vcpu *vcpu)
{
	vmx_cpu_ctl(to_vmx(vcpu), CPU_BASED_NMI_WINDOW_EXITING, false);
	keel_request(KEEL_REQ_EVENT, vcpu);
	return KEEL_RESUME;
}

static int vmx_ud(struct keel_vcpu *vcpu)
{
	keel_raise(vcpu, X86_TRAP_UD);
	return KEEL_RESUME;
}

static int vmx_hlt(struct keel_vcpu *vcpu)
{
	keel_advance(vcpu, vmx_next_rip(vcpu));
	return keel_emulate_hlt(vcpu);
}

/* Table 27-5: size less one in 2..0, direction in 3, string in 4, port in 31..16. */
static int vmx_io(struct keel_vcpu *vcpu)
{
	u32 q = vmcs_read(EXIT_QUALIFICATION);

	if (q & BIT(4))
		return keel_emulate(vcpu);
	return keel_pio(vcpu, q >> 16, (q & 7) + 1, q & BIT(3), vmx_next_rip(vcpu));
}

/* Instructions without an effect here: on caches that are coherent anyway. */
static int vmx_nothing(struct keel_vcpu *vcpu)
{
	keel_advance(vcpu, vmx_next_rip(vcpu));
	return KEEL_RESUME;
}

static int vmx_triple_fault(struct keel_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return KEEL_USER;
}

/* Table 27-2: the TSS's selector, and who asked for it; an event in delivery, or an instruction to step over. */
static int vmx_task_switch(struct keel_vcpu *vcpu)
{
	const struct keel_event *ev = &vcpu->ev.injected;
	u32 q = vmcs_read(EXIT_QUALIFICATION);
	enum emul_switch why = q >> 30;
	u64 next = why == EMUL_SWITCH_GATE ? keel_reg(vcpu, KEEL_RIP) : vmx_next_rip(vcpu);

	if (why == EMUL_SWITCH_GATE && keel_is_soft(ev->type))
		next = (u32)(next + ev->insn_len);
	return keel_task_switch(vcpu, q, why, next);
}

/* Table 27-7. */
static int vmx_ept_violation(struct keel_vcpu *vcpu)
{
	u64 q = vmcs_read(EXIT_QUALIFICATION);
	u32 access = 0;

	if (q & EPT_VIOLATION_ACC_WRITE)
		access |= MMU_ACC_WRITE;
	if (q & EPT_VIOLATION_ACC_INSTR)
		access |= MMU_ACC_FETCH;
	if (q & EPT_VIOLATION_RWX_MASK)
		access |= MMU_ACC_PRESENT;
	if (!(~q & (EPT_VIOLATION_GVA_IS_VALID | EPT_VIOLATION_GVA_TRANSLATED)))
		access |= MMU_ACC_FINAL;
	vmx_iret_undone(to_vmx(vcpu), q & INTR_INFO_UNBLOCK_NMI);
	return keel_page_fault(vcpu, vmcs_read(GUEST_PHYSICAL_ADDRESS), access, q);
}

/* vmx_drain_pml() has made room. */
static int vmx_pml_full(struct keel_vcpu *vcpu)
{
	vmx_iret_undone(to_vmx(vcpu), vmcs_read(EXIT_QUALIFICATION) & INTR_INFO_UNBLOCK_NMI);
	return KEEL_RESUME;
}

/* ---------------------------------------------------------- dispatch */

typedef int (*vmx_handler)(struct keel_vcpu *vcpu);

static const struct vmx_exit {
	vmx_handler fast, slow;
	const char *name;
} vmx_exits[VMX_EXIT_SLOTS] = {
#define BOTH(h)		.fast = h, .slow = h
#define ONLY_SLOW(h)	.slow = h
#define R(reason)			\
	[EXIT_REASON_##reason]
	R(EXCEPTION_NMI)	= { BOTH(vmx_exception), "exception_nmi" },
	R(EXTERNAL_INTERRUPT)	= { BOTH(vmx_irq), "interrupt" },
	R(TRIPLE_FAULT)		= { ONLY_SLOW(vmx_triple_fault), "triple_fault" },
	R(INIT_SIGNAL)		= { BOTH(vmx_resume), "init" },
	R(INTERRUPT_WINDOW)	= { .fast = keel_irq_window_exit, .slow = vmx_resume, "irq_window" },
	R(NMI_WINDOW)		= { BOTH(vmx_nmi_window), "nmi_window" },
	R(TASK_SWITCH)		= { ONLY_SLOW(vmx_task_switch), "task_switch" },
	R(CPUID)		= { BOTH(keel_emulate_cpuid), "cpuid" },
	R(HLT)			= { BOTH(vmx_hlt), "hlt" },
	R(INVD)			= { BOTH(vmx_nothing), "invd" },
	R(RDPMC)		= { BOTH(keel_emulate), "rdpmc" },
	R(VMCALL)		= { BOTH(keel_emulate_hypercall), "hypercall" },
	R(VMCLEAR)		= { BOTH(vmx_ud), "vmclear" },
	R(VMLAUNCH)		= { BOTH(vmx_ud), "vmlaunch" },
	R(VMPTRLD)		= { BOTH(vmx_ud), "vmptrld" },
	R(VMPTRST)		= { BOTH(vmx_ud), "vmptrst" },
	R(VMREAD)		= { BOTH(vmx_ud), "vmread" },
	R(VMRESUME)		= { BOTH(vmx_ud), "vmresume" },
	R(VMWRITE)		= { BOTH(vmx_ud), "vmwrite" },
	R(VMOFF)		= { BOTH(vmx_ud), "vmxoff" },
	R(VMON)			= { BOTH(vmx_ud), "vmxon" },
	R(INVLPG)		= { BOTH(keel_emulate), "invlpg" },
	R(INVPCID)		= { BOTH(keel_emulate), "invpcid" },
	R(CR_ACCESS)		= { BOTH(keel_emulate_cr), "cr_access" },
	R(DR_ACCESS)		= { ONLY_SLOW(keel_emulate), "dr_access" },
	R(IO_INSTRUCTION)	= { BOTH(vmx_io), "io" },
	R(MSR_READ)		= { BOTH(keel_emulate_rdmsr), "rdmsr" },
	R(MSR_WRITE)		= { BOTH(keel_emulate_wrmsr), "wrmsr" },
	R(MWAIT_INSTRUCTION)	= { BOTH(keel_emulate_mwait), "mwait" },
	R(MONITOR_INSTRUCTION)	= { BOTH(keel_emulate_mwait), "monitor" },
	R(TPR_BELOW_THRESHOLD)	= { BOTH(vmx_resume), "tpr_below" },	/* vmx_save_tpr() has seen to it */
	R(EOI_INDUCED)		= { BOTH(vmx_eoi_exit), "eoi" },
	R(APIC_WRITE)		= { BOTH(vmx_apic_write_exit), "apic_write" },
	R(EPT_VIOLATION)	= { BOTH(vmx_ept_violation), "page_fault" },
	R(INVEPT)		= { BOTH(vmx_ud), "invept" },
	R(INVVPID)		= { BOTH(vmx_ud), "invvpid" },
	R(WBINVD)		= { BOTH(vmx_nothing), "wbinvd" },
	R(XSETBV)		= { ONLY_SLOW(keel_emulate_xsetbv), "xsetbv" },
	R(VMFUNC)		= { BOTH(vmx_ud), "vmfunc" },
	R(PML_FULL)		= { BOTH(vmx_pml_full), "pml_full" },
	R(ENCLS)		= { BOTH(vmx_ud), "encls" },
	/* What TDX has; CPUs with it exit whatever the controls say, and older headers have no names for these. */
	[76]			= { BOTH(vmx_ud), "seamcall" },
	[77]			= { BOTH(vmx_ud), "tdcall" },
	/* So do those with RDMSR and WRMSRNS of a number in the instruction, of which no guest is told. */
	[84]			= { BOTH(vmx_ud), "rdmsr_imm" },
	[85]			= { BOTH(vmx_ud), "wrmsrns_imm" },
};

const char *vmx_exit_name(unsigned int slot)
{
	return slot < VMX_EXIT_SLOTS ? vmx_exits[slot].name : NULL;
}

static unsigned int vmx_slot(const struct vmx_vcpu *vmx)
{
	return min_t(u32, (u16)vmx->reason, VMX_EXIT_SLOTS - 1);
}

/* Out of line: its arguments would all be at hand for it at every exit. */
static noinline void vmx_trace_exit(struct vmx_vcpu *vmx, unsigned int slot)
{
	trace_keel_exit(&vmx->vcpu, slot, vmx_exits[slot].name, vmx->reason, vmx->idt_info);
}

static __always_inline void vmx_note_exit(struct vmx_vcpu *vmx, unsigned int slot)
{
	if (trace_keel_exit_enabled())
		vmx_trace_exit(vmx, slot);
	keel_count_exit(&vmx->vcpu.stat, slot);
}

int vmx_exit_fast(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	unsigned int slot = vmx->reason;

	/* No row's; a failed entry's is none. */
	if (unlikely(slot >= VMX_EXIT_SLOTS)) {
		slot = vmx_slot(vmx);
		if (vmx->reason & VMX_EXIT_REASONS_FAILED_VMENTRY) {
			vmx_note_exit(vmx, slot);
			return KEEL_SLOW;	/* nothing was delivered, nothing has changed */
		}
	}
	vmx_note_exit(vmx, slot);
	if (unlikely(vmx->idt_info & VECTORING_INFO_VALID_MASK))
		vmx_requeue_vectoring(vmx);
	else
		vcpu->ev.injected.type = KEEL_EV_NONE;
	return likely(vmx_exits[slot].fast) ? vmx_exits[slot].fast(vcpu) : KEEL_SLOW;
}

int vmx_exit_slow(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	unsigned int slot = vmx_slot(vmx);

	if (unlikely(vmx->reason & VMX_EXIT_REASONS_FAILED_VMENTRY))
		return keel_exit_fail_entry(vcpu, vmx->insn_error ?: vmx->reason);
	return vmx_exits[slot].slow ? vmx_exits[slot].slow(vcpu) : vmx_unexpected(vcpu);
}

static noinline u64 vmx_rip_wraps(struct keel_vcpu *vcpu, u64 next)
{
	return keel_is_64bit(vcpu) ? next : (u32)next;
}

static noinline u64 vmx_next_rip_guarded(struct keel_vcpu *vcpu)
{
	u64 rip = keel_reg(vcpu, KEEL_RIP), next = rip + vmcs_read(VM_EXIT_INSTRUCTION_LEN);

	return likely(!((next ^ rip) >> 32)) ? next : vmx_rip_wraps(vcpu, next);
}

static bool is_soft_exception(u32 info)
{
	u32 type = info & INTR_INFO_INTR_TYPE_MASK;

	return type == INTR_TYPE_SOFT_EXCEPTION || type == INTR_TYPE_PRIV_SW_EXCEPTION;
}

/*
 * RIP behind the instruction that exited.  The length means nothing at other exits (27.2.5).  Whoever asks is about to
 * step over it, for which RFLAGS are looked at as well.
 */
u64 vmx_next_rip(struct keel_vcpu *vcpu)
{
	u32 reason = to_vmx(vcpu)->reason, avail = vcpu->avail;
	u64 next;

	if (unlikely(reason == EXIT_REASON_EPT_VIOLATION || reason == EXIT_REASON_EPT_MISCONFIG ||
		     (reason == EXIT_REASON_EXCEPTION_NMI && !is_soft_exception(to_vmx(vcpu)->intr_info))))
		return 0;
	if (vmx_is_guarded())
		return vmx_next_rip_guarded(vcpu);
	if (likely(!(avail & BIT(KEEL_RIP))))
		vcpu->regs[KEEL_RIP] = vmcs_read_here(GUEST_RIP);
	if (likely(!(avail & BIT(KEEL_LAZY_RFLAGS))))
		vcpu->rflags = vmcs_read_here(GUEST_RFLAGS);
	vcpu->avail = avail | BIT(KEEL_RIP) | BIT(KEEL_LAZY_RFLAGS);
	next = vcpu->regs[KEEL_RIP] + vmcs_read_here(VM_EXIT_INSTRUCTION_LEN);
	if (unlikely((next ^ vcpu->regs[KEEL_RIP]) >> 32))
		return vmx_rip_wraps(vcpu, next);
	return next;
}

void vmx_hypercall_insn(u8 insn[3])
{
	static const u8 vmcall[3] = { 0x0f, 0x01, 0xc1 };

	memcpy(insn, vmcall, 3);
}
