// SPDX-License-Identifier: GPL-2.0-only
/*
 * host.c - the host's side of a VMX switch: what an exit loads from the VMCS's host area, and what it leaves
 * behind that has to be put right.  SDM 3C 24.5 (host-state area), 27.5 (loading host state).
 *
 * Three rhythms: constant for the life of the VMCS; when the vCPU moves to another CPU; and once per stay in the
 * fast loop (begin to end), during which the task does not return to user mode.  Only CR3 and CR4 are looked at
 * before each entry, in exit.c: an IPI may change them.
 *
 * Locks: none, preemption is off or the vCPU is loaded by its own thread.
 */
#include <linux/delay.h>
#include <asm/desc.h>
#include <asm/fsgsbase.h>
#include <asm/msr.h>
#include <asm/segment.h>
#include "vmx.h"
#include "desc.h"
#include "cpu/mitigate.h"

/* MSRs an exit does not switch.  The first three are the kernel's constants while a guest's own are loaded... */
static const u32 switched_msrs[] = { MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE };
static u64 host_syscall[3] __ro_after_init;
/* ...and the last, the task's GS base in user mode, changes at any time by SWAPGS. */
#define KERNEL_GS	3
static_assert(ARRAY_SIZE(switched_msrs) == ARRAY_SIZE(((struct vmx_vcpu *)0)->msr_guest));

static u64 host_efer __ro_after_init;

/* The kernel decides it at boot (tsx=), and has no use for it itself. */
static u64 host_tsx_ctrl __ro_after_init;
static bool has_tsx_ctrl __ro_after_init;

/*
 * kvm leaves its guest's in the CPU until this CPU goes back to user mode, which it has been asked to tell, and knows by
 * memory which they are: then what is found counts.
 */
static const u64 *found_syscall(struct vmx_vcpu *vmx)
{
	unsigned int i;

	if (!keel_hw_shared() || !keel_user_return_awaited())
		return host_syscall;
	for (i = 0; i < ARRAY_SIZE(host_syscall); i++)
		vmx->found_syscall[i] = keel_rdmsr(switched_msrs[i]);
	return vmx->found_syscall;
}

int vmx_switched_msr(u32 msr)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(switched_msrs); i++)
		if (switched_msrs[i] == msr)
			return i;
	return -1;
}

/* False: this CPU has had a guest's of kvm's all the while. */
bool vmx_host_setup(void)
{
	unsigned int i, tries;
	bool theirs = true;

	for (tries = 0; theirs && tries < 1000; tries++) {
		preempt_disable();
		theirs = keel_user_return_awaited();
		for (i = 0; !theirs && i < ARRAY_SIZE(host_syscall); i++)
			rdmsrq(switched_msrs[i], host_syscall[i]);
		preempt_enable();
		/* Whoever runs meanwhile goes back to user mode. */
		if (theirs)
			usleep_range(500, 1000);
	}
	rdmsrq(MSR_EFER, host_efer);
	has_tsx_ctrl = keel_arch_capabilities() & ARCH_CAP_TSX_CTRL_MSR &&
		       !rdmsrq_safe(MSR_IA32_TSX_CTRL, &host_tsx_ctrl);
	return !theirs;
}

/*
 * A guest that is not told of transactions has none; nor has one that is, where the kernel has turned them off: then it
 * guards nothing against what they leak.  What CPUID says of them is keel's to say, and stays as the host has it in the
 * CPU.  From the next stay in the fast loop on, or in this one.
 */
void vmx_update_tsx_ctrl(struct vmx_vcpu *vmx)
{
	u64 val = host_tsx_ctrl & TSX_CTRL_CPUID_CLEAR;

	if (!has_tsx_ctrl)
		return;
	if (vmx->vcpu.msrs.tsx_ctrl & TSX_CTRL_RTM_DISABLE || !keel_guest_has(&vmx->vcpu, X86_FEATURE_RTM) ||
	    !keel_offers(X86_FEATURE_RTM))
		val |= TSX_CTRL_RTM_DISABLE;
	if (vmx->vcpu.atomic && val != vmx->tsx_ctrl)
		keel_wrmsr(MSR_IA32_TSX_CTRL, val);
	vmx->tsx_ctrl = val;
}

static void begin_tsx_ctrl(struct vmx_vcpu *vmx)
{
	/* As found_syscall(). */
	vmx->host_tsx_ctrl = keel_hw_shared() && keel_user_return_awaited() ? keel_rdmsr(MSR_IA32_TSX_CTRL) : host_tsx_ctrl;
	if (vmx->tsx_ctrl != vmx->host_tsx_ctrl)
		keel_wrmsr(MSR_IA32_TSX_CTRL, vmx->tsx_ctrl);
}

/* The host's may change at any time, by an interrupt: it is looked at before each entry, where the two differ. */
void vmx_swap_umwait(struct vmx_vcpu *vmx)
{
	if (vmx->cpu2_ctl & SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE &&
	    keel_rdmsr(MSR_IA32_UMWAIT_CONTROL) != vmx->vcpu.msrs.umwait_control) {
		vmx->before_entry |= VMX_UMWAIT;
		vmx->after_exit |= VMX_UMWAIT_BACK;
	} else {
		vmx->before_entry &= ~VMX_UMWAIT;
		vmx->after_exit &= ~VMX_UMWAIT_BACK;
	}
}

void vmx_host_constant(void)
{
	struct desc_ptr idt;
	u64 val;

	vmcs_write(HOST_CR0, read_cr0());
	vmcs_write(HOST_CS_SELECTOR, __KERNEL_CS);
	vmcs_write(HOST_SS_SELECTOR, __KERNEL_DS);
	/* The task's own are put back when it leaves the fast loop; in the kernel they mean nothing. */
	vmcs_write(HOST_DS_SELECTOR, 0);
	vmcs_write(HOST_ES_SELECTOR, 0);
	vmcs_write(HOST_FS_SELECTOR, 0);
	vmcs_write(HOST_GS_SELECTOR, 0);
	vmcs_write(HOST_FS_BASE, 0);	/* which the vCPU takes it for */
	vmcs_write(HOST_TR_SELECTOR, GDT_ENTRY_TSS * 8);
	store_idt(&idt);
	vmcs_write(HOST_IDTR_BASE, idt.address);
	vmcs_write(HOST_RIP, (unsigned long)vmx_vmexit);
	rdmsrq(MSR_IA32_SYSENTER_CS, val);
	vmcs_write(HOST_IA32_SYSENTER_CS, (u32)val);
	rdmsrq(MSR_IA32_SYSENTER_EIP, val);
	vmcs_write(HOST_IA32_SYSENTER_EIP, val);
	vmcs_write(HOST_IA32_EFER, host_efer);
	if (vmx_has.exit_ctl & VM_EXIT_LOAD_IA32_PAT) {
		rdmsrq(MSR_IA32_CR_PAT, val);
		vmcs_write(HOST_IA32_PAT, val);
	}
	if (keel_hw.cet) {
		/* The kernel's branch tracking; it has no shadow stacks of its own. */
		rdmsrq(MSR_IA32_S_CET, val);
		vmcs_write(HOST_S_CET, val);
		vmcs_write(HOST_SSP, 0);
		vmcs_write(HOST_INTR_SSP_TABLE, 0);
	}
}

/* Preemption off: the CPU this vCPU is on from now. */
void vmx_host_cpu(struct vmx_vcpu *vmx)
{
	unsigned long flags = 0;
	bool block = vmx_block_begin(&flags);
	const u64 *tss;
	u64 val;

	native_store_gdt(&vmx->host_gdt);
	tss = (const void *)(vmx->host_gdt.address + GDT_ENTRY_TSS * 8);
	vmcs_write(HOST_GDTR_BASE, vmx->host_gdt.address);
	vmcs_write(HOST_TR_BASE, vmx_desc_base(tss));
	rdmsrq(MSR_GS_BASE, val);
	vmcs_write(HOST_GS_BASE, val);
	rdmsrq(MSR_IA32_SYSENTER_ESP, val);
	vmcs_write(HOST_IA32_SYSENTER_ESP, val);
	vmx_block_end(block, flags);
}

static unsigned long task_fs_base(void)
{
	u64 base;

	if (static_cpu_has(X86_FEATURE_FSGSBASE))
		return rdfsbase();
	rdmsrq(MSR_FS_BASE, base);
	return base;
}

/*
 * An exit makes DEBUGCTL 0.  What counts in user mode only is put back when this stay ends, the rest, which is perf's, at
 * once: its interrupts change bits of what they find.
 */
#define DEBUGCTL_USER	(DEBUGCTLMSR_BTF | DEBUGCTLMSR_BUS_LOCK_DETECT)

void vmx_host_debugctl(struct vmx_vcpu *vmx)
{
	u64 freeze;

	vmx->host_debugctl = keel_rdmsr(MSR_IA32_DEBUGCTLMSR) | (vmx->host_debugctl & DEBUGCTL_USER);
	/*
	 * Counters stand while firmware runs: also if its interrupt comes in the guest, which it does not leave by an
	 * exit.
	 */
	freeze = vmx->host_debugctl & DEBUGCTLMSR_FREEZE_IN_SMM;
	if (unlikely(freeze != vmx->freeze_in_smm)) {
		vmx->freeze_in_smm = freeze;
		vmcs_write(GUEST_IA32_DEBUGCTL, vmx->vcpu.msrs.debugctl | freeze);
	}
	if (vmx->host_debugctl & ~(u64)DEBUGCTL_USER)
		vmx->after_exit |= VMX_DEBUGCTL;
	else
		vmx->after_exit &= ~VMX_DEBUGCTL;
}

/* Those of @switched_msrs that mean something to the kernel. */
static __always_inline void switch_syscall(const u64 *from, const u64 *to)
{
	unsigned int i;

#pragma GCC unroll 3
	for (i = 0; i < ARRAY_SIZE(host_syscall); i++)
		if (from[i] != to[i])
			keel_wrmsr(switched_msrs[i], to[i]);
}

/*
 * The LDT, since selectors may be of it; selectors; then bases, which loading a selector changes: that of user mode's GS
 * is the caller's to put back, if it is another than the guest's.
 */
static noinline void end_selectors(struct vmx_vcpu *vmx)
{
	if (keel_has_ldt())
		keel_load_ldt();
	if (vmx->host_ds)
		loadsegment(ds, vmx->host_ds);
	if (vmx->host_es)
		loadsegment(es, vmx->host_es);
	if (vmx->host_fs) {
		loadsegment(fs, vmx->host_fs);
		keel_wrmsr(MSR_FS_BASE, vmx->host_fs_base);
	}
	if (vmx->host_gs) {
		load_gs_index(vmx->host_gs);
		keel_wrmsr(MSR_KERNEL_GS_BASE, vmx->host_kernel_gs);
	}
}

void vmx_begin(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	unsigned long base = task_fs_base();

	/* From here to the end of this stay nobody else's VMCS becomes current. */
	if (keel_hw_shared())
		this_cpu_write(vmx_guarded, vmx->window);
	keel_l1d_note();
	asm volatile("mov %%ds, %0\n\tmov %%es, %1\n\tmov %%fs, %2\n\tmov %%gs, %3"
		     : "=m" (vmx->host_ds), "=m" (vmx->host_es), "=m" (vmx->host_fs), "=m" (vmx->host_gs));
	if (base != vmx->host_fs_base) {
		vmx->host_fs_base = base;
		vmcs_write(HOST_FS_BASE, base);
	}
	vmx->host_debugctl = 0;
	vmx_host_debugctl(vmx);
	vmx->irqs_taken = VMX_ASK_PERF;
	if (has_tsx_ctrl)
		begin_tsx_ctrl(vmx);
	if (unlikely(vmx->cpu2_ctl & SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE))
		vmx_swap_umwait(vmx);

	/* Without SYSCALL nothing looks at its MSRs: RDMSR and WRMSR of them exit. */
	vmx->syscall_loaded = vcpu->efer & EFER_SCE;
	vmx->host_syscall = found_syscall(vmx);
	if (vmx->syscall_loaded)
		switch_syscall(vmx->host_syscall, vmx->msr_guest);
	vmx->host_kernel_gs = keel_rdmsr(MSR_KERNEL_GS_BASE);
	if (vmx->msr_guest[KERNEL_GS] != vmx->host_kernel_gs)
		keel_wrmsr(MSR_KERNEL_GS_BASE, vmx->msr_guest[KERNEL_GS]);
}

void vmx_end(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	if (vmx->syscall_loaded)
		switch_syscall(vmx->msr_guest, vmx->host_syscall);
	if (has_tsx_ctrl && vmx->tsx_ctrl != vmx->host_tsx_ctrl)
		keel_wrmsr(MSR_IA32_TSX_CTRL, vmx->host_tsx_ctrl);
	vmx->msr_guest[KERNEL_GS] = keel_rdmsr(MSR_KERNEL_GS_BASE);

	if (unlikely(keel_has_ldt() || vmx->host_selectors))
		end_selectors(vmx);
	if (vmx->msr_guest[KERNEL_GS] != vmx->host_kernel_gs)
		keel_wrmsr(MSR_KERNEL_GS_BASE, vmx->host_kernel_gs);
	if (unlikely(vmx->host_debugctl & DEBUGCTL_USER))
		keel_wrmsr(MSR_IA32_DEBUGCTLMSR,
			   keel_rdmsr(MSR_IA32_DEBUGCTLMSR) | (vmx->host_debugctl & DEBUGCTL_USER));
	/* An exit makes the GDT's limit 64K and the TSS's 0x67, which may be known to be so. */
	native_load_gdt(&vmx->host_gdt);
	if (!this_cpu_read(__tss_limit_invalid))
		invalidate_tss_limit();
	if (keel_hw_shared())
		this_cpu_write(vmx_guarded, true);
}
