// SPDX-License-Identifier: GPL-2.0-only
/*
 * window.c - beside kvm.ko: whose VMCS is current on a CPU.  SDM 3C 24.1 and 24.11 (active, current, launched VMCSs).
 *
 * kvm remembers per CPU which VMCS it made current last, makes it current no second time, and forgets it where it clears
 * it.  It is right as long as at any moment at which its code can run the VMCS that it remembers, if any, is the current
 * one.  keel cannot see what it remembers, but what is current says enough (docs/internals.md goes through the cases):
 *
 * Free: nothing is current, or what keel left so.  kvm then remembers nothing, so keel makes its own current and leaves it
 * so; if kvm comes it makes its own current.  For that it has to be scheduled: who comes back from having been preempted,
 * or comes with an ioctl, looks again.
 *
 * Window: another's is current.  keel's is so only in windows, with IRQs off, at whose end the one that was found is made
 * current again.  That address is good for this window alone: the interrupt with which kvm clears a VMCS may come right
 * after it.  Fields that are often read or written are held in memory between windows.
 *
 * Locks: none, in a window none may be waited for.  Interrupts and NMIs open no window.
 */
#include <linux/smp.h>
#include <asm/hypervisor.h>
#include <asm/mshyperv.h>
#include "vmx.h"

/*
 * The VMCS reached on this CPU may be another's, or become so: whoever is not in the fast loop may be preempted at any
 * time, and in it the vCPU may have to use windows.  Never looked at when virtualization is keel's own.
 */
DEFINE_PER_CPU(bool, vmx_guarded) = true;

/* Fields worth holding, those that are looked for most first.  What an exit leaves, then what the next entry takes. */
static const u16 held_fields[VMX_HELD] = {
	[VMX_HELD_QUALIFICATION]	= EXIT_QUALIFICATION,
	[VMX_HELD_INSN_LEN]		= VM_EXIT_INSTRUCTION_LEN,
	[VMX_HELD_SHADOW]		= GUEST_INTERRUPTIBILITY_INFO,
	[VMX_HELD_GPA]			= GUEST_PHYSICAL_ADDRESS,
	[VMX_HELD_INTR_INFO]		= VM_EXIT_INTR_INFO,
	GUEST_CS_AR_BYTES, GUEST_SS_AR_BYTES, GUEST_INTR_STATUS, VM_EXIT_INTR_ERROR_CODE, IDT_VECTORING_ERROR_CODE,
	VM_ENTRY_INTR_INFO_FIELD, VM_ENTRY_EXCEPTION_ERROR_CODE, VM_ENTRY_INSTRUCTION_LEN, CPU_BASED_VM_EXEC_CONTROL,
	TPR_THRESHOLD, GUEST_PENDING_DBG_EXCEPTIONS,
};

static int held_slot(unsigned long field)
{
	unsigned int i;

	for (i = 0; i < VMX_HELD; i++)
		if (held_fields[i] == field)
			return i;
	return -1;
}

static u64 vmptrst(void)
{
	u64 pa = VMX_NO_VMCS;

	asm volatile("1: vmptrst %0\n2:\n" _ASM_EXTABLE(1b, 2b) : "+m" (pa) : : "cc");
	return pa;
}

/* IRQs off.  Behind an entry or a moment at which others may have looked, what was read before counts no more. */
static void write_held(struct vmx_vcpu *vmx)
{
	unsigned long dirty = vmx->held.dirty;
	unsigned int i;

	for_each_set_bit(i, &dirty, VMX_HELD)
		vmcs_write_here(held_fields[i], vmx->held.val[i]);
	vmx->held.dirty = vmx->held.valid = 0;
}

/* It is current, and may stay so. */
static void stay_current(struct vmx_cpu *vc, struct vmx_vcpu *vmx)
{
	vmx->window = false;
	vc->mine = page_to_phys(vmx->vmcs);
	write_held(vmx);
}

void vmx_shared_load(struct vmx_vcpu *vmx, int cpu)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);
	unsigned long flags;
	u64 found;

	if (vmx->vmcs_cpu != cpu)
		vmx_vmcs_forget(vmx);
	local_irq_save(flags);
	vc->user = vmx;
	found = vmptrst();
	/* A CPU that is about to go offline is left with nothing on it. */
	if ((found == VMX_NO_VMCS || found == vc->mine) && vc->enabled) {
		vmx_make_current(vmx, found);
		stay_current(vc, vmx);
	} else {
		vmx->window = true;
	}
	local_irq_restore(flags);
}

/* IRQs off, on the CPU that the vCPU is loaded on: its VMCS is current until window_close(). */
static void window_open(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);

	this_cpu_write(vmx_guarded, false);
	if (!vmx->window)
		return;
	vc->found = vmptrst();
	vmx_make_current(vmx, vc->found);
	/* kvm has cleared its own meanwhile, and remembers none. */
	if (unlikely(vc->found == VMX_NO_VMCS && vc->enabled))
		stay_current(vc, vmx);
}

static void window_close(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);

	this_cpu_write(vmx_guarded, true);
	if (!vmx->window)
		return;
	if (unlikely(!vc->enabled))
		vmx_clear_here(vmx);
	if (likely(vc->found != VMX_NO_VMCS))
		vmx_ptrld(vc->found);
}

u64 vmx_guarded_read(unsigned long field)
{
	int slot = held_slot(field);
	struct vmx_vcpu *vmx;
	unsigned long flags;
	u64 val;

	local_irq_save(flags);
	vmx = this_cpu_read(vmx_cpu.user);
	if (slot >= 0 && vmx->held.valid & BIT(slot)) {
		val = vmx->held.val[slot];
	} else {
		window_open(vmx);
		val = vmcs_read_here(field);
		window_close(vmx);
		if (slot >= 0 && vmx->window) {
			vmx->held.val[slot] = val;
			vmx->held.valid |= BIT(slot);
		}
	}
	local_irq_restore(flags);
	return val;
}

void vmx_guarded_write(unsigned long field, u64 val)
{
	int slot = held_slot(field);
	struct vmx_vcpu *vmx;
	unsigned long flags;

	local_irq_save(flags);
	vmx = this_cpu_read(vmx_cpu.user);
	if (slot >= 0 && vmx->window) {
		vmx->held.val[slot] = val;
		vmx->held.valid |= BIT(slot);
		vmx->held.dirty |= BIT(slot);
	} else {
		window_open(vmx);
		vmcs_write_here(field, val);
		window_close(vmx);
	}
	local_irq_restore(flags);
}

void __vmx_block_begin(unsigned long *flags)
{
	struct vmx_vcpu *vmx;

	local_irq_save(*flags);
	vmx = this_cpu_read(vmx_cpu.user);
	window_open(vmx);
	write_held(vmx);
}

void __vmx_block_end(unsigned long flags)
{
	window_close(this_cpu_read(vmx_cpu.user));
	local_irq_restore(flags);
}

/* For a vCPU that uses windows: one from before the entry to behind the exit. */
void vmx_window_enter(struct vmx_vcpu *vmx)
{
	if (!this_cpu_read(vmx_guarded))
		return;
	window_open(vmx);
	write_held(vmx);
}

/* What nearly every handler asks for, and the handlers of certain exits. */
void vmx_window_exit(struct vmx_vcpu *vmx)
{
	struct vmx_held *held = &vmx->held;
	struct keel_vcpu *vcpu = &vmx->vcpu;
	unsigned int more = VMX_HELD;

	vcpu->regs[KEEL_RIP] = vmcs_read_here(GUEST_RIP);
	vcpu->rflags = vmcs_read_here(GUEST_RFLAGS);
	vcpu->avail |= BIT(KEEL_RIP) | BIT(KEEL_LAZY_RFLAGS);
	held->val[VMX_HELD_QUALIFICATION] = vmcs_read_here(EXIT_QUALIFICATION);
	held->val[VMX_HELD_INSN_LEN] = vmcs_read_here(VM_EXIT_INSTRUCTION_LEN);
	held->val[VMX_HELD_SHADOW] = vmcs_read_here(GUEST_INTERRUPTIBILITY_INFO);
	held->valid = BIT(VMX_HELD_QUALIFICATION) | BIT(VMX_HELD_INSN_LEN) | BIT(VMX_HELD_SHADOW);
	if (vmx->reason == EXIT_REASON_EPT_VIOLATION)
		more = VMX_HELD_GPA;
	else if (vmx->reason == EXIT_REASON_EXTERNAL_INTERRUPT && vmx->posting)
		more = VMX_HELD_INTR_INFO;
	if (more < VMX_HELD) {
		held->val[more] = vmcs_read_here(held_fields[more]);
		held->valid |= BIT(more);
	}
	window_close(vmx);
}

/* Beneath Hyper-V, does kvm.ko use that hypervisor's kind of VMCS instead of the CPU's? */
static bool hyperv_vmcs(void)
{
#if IS_ENABLED(CONFIG_HYPERV)
	return hypervisor_is_type(X86_HYPER_MS_HYPERV) && ms_hyperv.hints & HV_X64_ENLIGHTENED_VMCS_RECOMMENDED;
#else
	return false;
#endif
}

/* IRQs off.  NULL, or why this CPU's VMX cannot be borrowed. */
const char *vmx_borrow(void)
{
	u64 pa;

	if (!(__read_cr4() & X86_CR4_VMXE))
		return "kvm.ko has not turned VMX on";
	/* It has no VMCS in the CPU then. */
	if (hyperv_vmcs())
		return "kvm.ko uses Hyper-V's VMCSs, beside which the CPU's own cannot be used";
	asm goto("1: vmptrst (%0)\n" KEEL_EXTABLE_GOTO(1b, off) : : "r" (&pa) : "cc", "memory" : off);
	return NULL;
off:
	return "CR4.VMXE is set, but VMX is off: it is not kvm.ko's";
}
