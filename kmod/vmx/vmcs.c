// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmcs.c - a vCPU's VMCS: made, reset, read and written.  SDM 3C chapter 24 (layout), 26.3.1 (checks on guest
 * state, which is why some values are put straight on the way in).
 *
 * Lock: vcpu->mutex, vCPU loaded: its VMCS is the current one.
 */
#include <linux/gfp.h>
#include <linux/slab.h>
#include <asm/msr.h>
#include "vmx.h"
#include "cpu/mitigate.h"

static_assert(offsetof(struct vmx_vcpu, vcpu) == 0);

/* Bits a guest flips without an exit: nothing in keel depends on them but through the lazy copy. */
#define CR0_OWNED	(X86_CR0_TS | X86_CR0_MP | X86_CR0_EM | X86_CR0_AM | X86_CR0_WP)
#define CR4_OWNED	(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PGE | X86_CR4_OSFXSR | \
			 X86_CR4_OSXMMEXCPT | X86_CR4_FSGSBASE)

/* Exceptions that always exit: a guest can hold the CPU for ever in delivering the first two; #MC is the host's. */
#define EXCEPTIONS	(BIT(X86_TRAP_DB) | BIT(X86_TRAP_AC) | BIT(X86_TRAP_MC))

int vmx_vm_init(struct keel_vm *vm)
{
	return 0;
}

void vmx_vm_destroy(struct keel_vm *vm)
{
}

int vmx_vcpu_init(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vmx->vmcs_cpu = vmx->last_cpu = -1;
	INIT_LIST_HEAD(&vmx->loaded);
	vmx->vmcs = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (vmx_has.pml)
		vmx->pml = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vmx->vmcs || (vmx_has.pml && !vmx->pml))
		return -ENOMEM;
	*(u32 *)page_address(vmx->vmcs) = vmx_has.revision;
	vmx->vpid = vmx_vpid_alloc();
	vmx->tsc_ratio = 1ULL << keel_hw.tsc_frac_bits;
	return vmx_perf_init(vmx);
}

void vmx_vcpu_destroy(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	if (vmx->vmcs) {
		vmx_vmcs_forget(vmx);
		__free_page(vmx->vmcs);
	}
	free_page((unsigned long)vmx->pml);
	kfree(vmx->area);
	vmx_vpid_free(vmx->vpid);
}

/* What stays as it is for the vCPU's life. */
static void vmcs_constant(struct vmx_vcpu *vmx)
{
	u32 cpu2 = vmx_has.cpu2_ctl;

	if (!vmx->vpid)
		cpu2 &= ~SECONDARY_EXEC_ENABLE_VPID;
	else
		vmcs_write(VIRTUAL_PROCESSOR_ID, vmx->vpid);
	if (vmx->pml) {
		vmcs_write(PML_ADDRESS, __pa(vmx->pml));
		vmcs_write(GUEST_PML_INDEX, VMX_PML_ENTRIES - 1);
	}
	vmx->cpu_ctl = vmx_has.cpu_ctl;
	vmx->cpu2_ctl = cpu2;
	vmx->entry_ctl = vmx_has.entry_ctl;
	vmcs_write(PIN_BASED_VM_EXEC_CONTROL, vmx_has.pin_ctl);
	vmcs_write(CPU_BASED_VM_EXEC_CONTROL, vmx->cpu_ctl);
	vmcs_write(SECONDARY_VM_EXEC_CONTROL, cpu2);
	vmx->exit_ctl = vmx_has.exit_ctl;
	vmcs_write(VM_EXIT_CONTROLS, vmx->exit_ctl);
	vmcs_write(VM_ENTRY_CONTROLS, vmx->entry_ctl);
	vmcs_write(PAGE_FAULT_ERROR_CODE_MASK, 0);	/* so bit 14 of the bitmap says whether a #PF exits */
	vmcs_write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
	vmcs_write(CR3_TARGET_COUNT, 0);
	vmcs_write(VM_EXIT_MSR_STORE_COUNT, 0);
	vmcs_write(VM_EXIT_MSR_LOAD_COUNT, 0);
	vmcs_write(VM_ENTRY_MSR_LOAD_COUNT, 0);
	vmx->area_used = 0;
	vmx->vapic = irq_lapic_page(&vmx->vcpu);
	if (vmx->vapic)
		vmcs_write(VIRTUAL_APIC_PAGE_ADDR, __pa(vmx->vapic));
	vmx_posted_init(vmx);
	vmcs_write(VMCS_LINK_POINTER, ~0ULL);
	if (cpu2 & SECONDARY_EXEC_ENCLS_EXITING)
		vmcs_write(ENCLS_EXITING_BITMAP, ~0ULL);	/* SGX is not for guests: #UD */
	if (cpu2 & SECONDARY_EXEC_XSAVES)
		vmcs_write(XSS_EXIT_BITMAP, 0);
	vmcs_write(CR0_GUEST_HOST_MASK, keel_hw.two_dim ? ~CR0_OWNED : ~0UL);
	vmx_host_constant();
}

/* Generic code has put the architectural registers to their reset values before and through us. */
void vmx_vcpu_reset(struct keel_vcpu *vcpu, bool init)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	unsigned long flags = 0;
	bool block = vmx_block_begin(&flags);

	if (!init) {
		vmcs_constant(vmx);
		memset(vmx->msr_guest, 0, sizeof(vmx->msr_guest));
		vmcs_write(GUEST_SYSENTER_CS, 0);
		vmcs_write(GUEST_SYSENTER_ESP, 0);
		vmcs_write(GUEST_SYSENTER_EIP, 0);
	}
	if (keel_hw.cet) {
		vmcs_write(GUEST_S_CET, 0);
		vmcs_write(GUEST_SSP, 0);
		vmcs_write(GUEST_INTR_SSP_TABLE, 0);
	}
	vmcs_write(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
	vmcs_write(GUEST_INTERRUPTIBILITY_INFO, 0);
	vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
	vmcs_write(GUEST_IA32_DEBUGCTL, vmx->freeze_in_smm);
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);
	vmx_cpu_ctl(vmx, CPU_BASED_INTR_WINDOW_EXITING | CPU_BASED_NMI_WINDOW_EXITING, false);
	vmx->tpr_threshold = 0;
	vmcs_write(TPR_THRESHOLD, 0);
	vmx->flush = true;
	vmx->before_entry |= VMX_LOAD_TSC;
	vmx_update_intercepts(vcpu);
	vmx_block_end(block, flags);
}

void vmx_write_cpu2(struct vmx_vcpu *vmx)
{
	vmcs_write(SECONDARY_VM_EXEC_CONTROL, vmx->cpu2_ctl | (vmx->pml_on ? SECONDARY_EXEC_ENABLE_PML : 0) |
		   (vmx->apicv_on ? VMX_APICV : 0));
}

/* TPAUSE, UMONITOR and UMWAIT are #UD in a guest that is not told of them. */
static void vmx_update_waits(struct vmx_vcpu *vmx)
{
	u32 bit = SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE & vmx_has.cpu2_ctl;
	u32 ctl = (vmx->cpu2_ctl & ~bit) | (keel_guest_has(&vmx->vcpu, X86_FEATURE_WAITPKG) ? bit : 0);

	if (ctl == vmx->cpu2_ctl)
		return;
	vmx->cpu2_ctl = ctl;
	vmx_write_cpu2(vmx);
	vmx_swap_umwait(vmx);
}

/* Pages written are listed while the VM has a slot that wants to know. */
static void vmx_update_pml(struct vmx_vcpu *vmx)
{
	bool on = vmx->pml && vmx->vcpu.vm->slots.logged;

	if (on == vmx->pml_on)
		return;
	vmx->pml_on = on;
	if (on)
		vmx->after_exit |= VMX_DRAIN_PML;
	else
		vmx->after_exit &= ~VMX_DRAIN_PML;
	vmx_write_cpu2(vmx);
}

void vmx_update_intercepts(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	u32 off = vcpu->vm->exits_off;
	unsigned long flags = 0;
	bool block = vmx_block_begin(&flags);
	u64 cr4 = keel_cr4(vcpu);	/* while the old mask tells where it is */

	vmx->cr4_owned = keel_hw.two_dim ? CR4_OWNED & ~keel_cr4_reserved(vcpu) : 0;
	vmcs_write(CR4_GUEST_HOST_MASK, ~vmx->cr4_owned);
	vmx_set_cr4(vcpu, cr4);
	vmcs_write(EXCEPTION_BITMAP, EXCEPTIONS | (keel_hw.two_dim ? 0 : BIT(X86_TRAP_PF)) |
		   (keel_vmware_backdoor ? BIT(X86_TRAP_GP) : 0) |
		   (vcpu->debug.control & KVM_GUESTDBG_USE_SW_BP ? BIT(X86_TRAP_BP) : 0) |
		   (vcpu->fpu.xfd ? BIT(X86_TRAP_NM) : 0) |
		   (keel_wants_ud(vcpu) ? BIT(X86_TRAP_UD) : 0));
	/* Halted, where HLT does not exit, it is not any more. */
	if (unlikely(vcpu->smm) && off & KVM_X86_DISABLE_EXITS_HLT)
		vmcs_write(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
	vmx_cpu_ctl(vmx, CPU_BASED_HLT_EXITING, !(off & KVM_X86_DISABLE_EXITS_HLT));
	vmx_cpu_ctl(vmx, CPU_BASED_MWAIT_EXITING | CPU_BASED_MONITOR_EXITING, !(off & KVM_X86_DISABLE_EXITS_MWAIT));
	vmcs_write(MSR_BITMAP, __pa(vmx_msr_bitmap[vmx->apicv_on][keel_msr_map(vcpu)]));
	/* Without an in-kernel APIC the VMM must see the TPR fall. */
	vmx_cpu_ctl(vmx, CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING, !vmx->vapic);
	vmx_cpu_ctl(vmx, CPU_BASED_TPR_SHADOW, vmx->vapic);
	vmx_update_waits(vmx);
	vmx_update_tsx_ctrl(vmx);
	vmx_update_pml(vmx);
	vmx_entry_ctl(vmx, VM_ENTRY_LOAD_CET_STATE, vcpu->fpu.cet.used);
	vmx_exit_ctl(vmx, VM_EXIT_LOAD_CET_STATE, vcpu->fpu.cet.used);
	vmx_block_end(block, flags);
}

static noinline void vmcs_load(struct vmx_vcpu *vmx, int cpu)
{
	bool moved = vmx->last_cpu != cpu;

	vmx_vmcs_load(vmx, cpu);
	if (!moved)
		return;
	vmx->last_cpu = cpu;
	/* What this CPU has cached of the guest, if it was here before, nobody has kept up to date. */
	vmx->flush = true;
	vmx_host_cpu(vmx);
}

/* Most of the time the same vCPU comes back, and its VMCS is still current: it was nowhere else. */
void vmx_load(struct keel_vcpu *vcpu, int cpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	if (keel_hw_shared() || unlikely(this_cpu_read(vmx_cpu.current_vmcs) != vmx))
		vmcs_load(vmx, cpu);
}

/* The VMCS stays current until another takes its place. */
void vmx_put(struct keel_vcpu *vcpu)
{
}

/* ------------------------------------------------------------- registers */

/* Registers that are one field each and stand as they are. */
#define PLAIN(reg, f, field)		\
	[reg] = { offsetof(struct keel_vcpu, f), field }
static const struct {
	u16 offset, field;
} plain_regs[] = {
	PLAIN(KEEL_RSP, regs[KEEL_RSP], GUEST_RSP),
	PLAIN(KEEL_RIP, regs[KEEL_RIP], GUEST_RIP),
	PLAIN(KEEL_LAZY_RFLAGS, rflags, GUEST_RFLAGS),
	PLAIN(KEEL_LAZY_CR3, cr3, GUEST_CR3),
};

void vmx_cache_reg(struct keel_vcpu *vcpu, unsigned int reg)
{
	u64 owned;

	if (reg == KEEL_LAZY_PDPTRS && !keel_hw.two_dim) {
		(void)mmu_load_pdptrs(vcpu, keel_cr3(vcpu));	/* marks them cached if they can be read */
		return;
	}
	vcpu->avail |= BIT(reg);
	if (reg < ARRAY_SIZE(plain_regs) && plain_regs[reg].field) {
		*(u64 *)((char *)vcpu + plain_regs[reg].offset) = vmcs_read(plain_regs[reg].field);
		return;
	}
	switch (reg) {
	case KEEL_LAZY_CR0:
		vcpu->cr0 = (vcpu->cr0 & ~CR0_OWNED) | (vmcs_read(GUEST_CR0) & CR0_OWNED);
		break;
	case KEEL_LAZY_CR4:
		owned = to_vmx(vcpu)->cr4_owned;
		vcpu->cr4 = (vcpu->cr4 & ~owned) | (vmcs_read(GUEST_CR4) & owned);
		break;
	case KEEL_LAZY_PDPTRS:
		vcpu->pdptrs[0] = vmcs_read(GUEST_PDPTR0);
		vcpu->pdptrs[1] = vmcs_read(GUEST_PDPTR1);
		vcpu->pdptrs[2] = vmcs_read(GUEST_PDPTR2);
		vcpu->pdptrs[3] = vmcs_read(GUEST_PDPTR3);
		break;
	}
}

/* The VMCS has ES, CS, SS, DS, FS, GS, LDTR, TR at steps of two from the first field of a kind. */
static unsigned int seg_step(unsigned int seg)
{
	return 2 * (seg == KEEL_TR ? 7 : seg == KEEL_LDTR ? 6 : seg);
}

void vmx_get_segment(struct keel_vcpu *vcpu, struct kvm_segment *s, unsigned int seg)
{
	unsigned int step = seg_step(seg);
	u32 ar = vmcs_read(GUEST_ES_AR_BYTES + step);

	memset(s, 0, sizeof(*s));
	s->base = vmcs_read(GUEST_ES_BASE + step);
	s->limit = vmcs_read(GUEST_ES_LIMIT + step);
	s->selector = vmcs_read(GUEST_ES_SELECTOR + step);
	s->type = ar & VMX_AR_TYPE_MASK;
	s->s = !!(ar & VMX_AR_S_MASK);
	s->dpl = VMX_AR_DPL(ar);
	s->unusable = !!(ar & VMX_AR_UNUSABLE_MASK);
	s->present = !s->unusable;
	s->avl = ar >> 12 & 1;
	s->l = !!(ar & VMX_AR_L_MASK);
	s->db = !!(ar & VMX_AR_DB_MASK);
	s->g = !!(ar & VMX_AR_G_MASK);
}

void vmx_set_segment(struct keel_vcpu *vcpu, const struct kvm_segment *s, unsigned int seg)
{
	unsigned int step = seg_step(seg);
	bool usable = s->present && !s->unusable;
	u32 ar = (s->type & VMX_AR_TYPE_MASK) | (s->s & 1) << 4 | (s->dpl & 3) << VMX_AR_DPL_SHIFT | (s->avl & 1) << 12 |
		 (s->l & 1) << 13 | (s->db & 1) << 14;

	if (usable) {
		ar |= VMX_AR_P_MASK;
		/* A loaded code or data segment was accessed, a loaded task register is busy. */
		if (seg == KEEL_TR)
			ar |= 2;
		else if (seg != KEEL_LDTR)
			ar |= VMX_AR_TYPE_ACCESSES_MASK;
		/* G has to go with the limit. */
		if ((s->limit & 0xfff) == 0xfff && (s->g || s->limit >> 20))
			ar |= VMX_AR_G_MASK;
	} else {
		ar |= VMX_AR_UNUSABLE_MASK;
	}
	vmcs_write(GUEST_ES_BASE + step, s->base);
	vmcs_write(GUEST_ES_LIMIT + step, s->limit);
	vmcs_write(GUEST_ES_SELECTOR + step, s->selector);
	vmcs_write(GUEST_ES_AR_BYTES + step, ar);
}

u64 vmx_seg_base(struct keel_vcpu *vcpu, unsigned int seg)
{
	return vmcs_read(GUEST_ES_BASE + seg_step(seg));
}

u32 vmx_cs_mode(struct keel_vcpu *vcpu)
{
	static_assert(VMX_AR_DB_MASK == EMUL_ATTR_DB && VMX_AR_L_MASK == EMUL_ATTR_L);
	return vmcs_read(GUEST_CS_AR_BYTES) & (EMUL_ATTR_DB | EMUL_ATTR_L);
}

int vmx_cpl(struct keel_vcpu *vcpu)
{
	return VMX_AR_DPL(vmcs_read(GUEST_SS_AR_BYTES));	/* the CPU keeps it there, whatever SS is */
}

void vmx_get_dt(struct keel_vcpu *vcpu, struct kvm_dtable *dt, bool idt)
{
	memset(dt, 0, sizeof(*dt));
	dt->base = vmcs_read(idt ? GUEST_IDTR_BASE : GUEST_GDTR_BASE);
	dt->limit = vmcs_read(idt ? GUEST_IDTR_LIMIT : GUEST_GDTR_LIMIT);
}

void vmx_set_dt(struct keel_vcpu *vcpu, const struct kvm_dtable *dt, bool idt)
{
	vmcs_write(idt ? GUEST_IDTR_BASE : GUEST_GDTR_BASE, dt->base);
	vmcs_write(idt ? GUEST_IDTR_LIMIT : GUEST_GDTR_LIMIT, dt->limit);
}

/* Without unrestricted guest PE is always on: what a guest does without it is emulated. */
static void vmx_shadow_crs(struct keel_vcpu *vcpu)
{
	struct mmu_shadow_crs crs = mmu_shadow_crs(vcpu);

	vmcs_write(GUEST_CR0, crs.cr0 | X86_CR0_PE | X86_CR0_NE);
	vmcs_write(GUEST_CR4, crs.cr4 | vmx_has.cr4_fixed0);
	vmcs_write(GUEST_IA32_EFER, crs.efer);
}

static bool valid_attr(u32 ar, u32 limit)
{
	if (!(ar & VMX_AR_P_MASK) || ar & VMX_AR_RESERVD_MASK)
		return false;
	return !(ar & VMX_AR_G_MASK ? ~limit & 0xfff : limit >> 20);
}

static bool valid_segment(unsigned int seg, u16 ss_sel, u32 ss_ar)
{
	unsigned int step = seg_step(seg), type, dpl, rpl;
	u16 sel = vmcs_read(GUEST_ES_SELECTOR + step);
	u32 ar = vmcs_read(GUEST_ES_AR_BYTES + step);

	type = ar & VMX_AR_TYPE_MASK;
	dpl = VMX_AR_DPL(ar);
	rpl = sel & 3;
	if (seg != KEEL_CS && seg != KEEL_TR && ar & VMX_AR_UNUSABLE_MASK)
		return seg != KEEL_SS || rpl == (vmcs_read(GUEST_CS_SELECTOR) & 3);
	if (ar & VMX_AR_UNUSABLE_MASK || !valid_attr(ar, vmcs_read(GUEST_ES_LIMIT + step)))
		return false;
	switch (seg) {
	case KEEL_CS:
		if (!(ar & VMX_AR_S_MASK) || (type & 9) != 9 || rpl != (ss_sel & 3))
			return false;
		return type & 4 ? dpl <= VMX_AR_DPL(ss_ar) : dpl == VMX_AR_DPL(ss_ar);
	case KEEL_SS:
		return ar & VMX_AR_S_MASK && (type == 3 || type == 7) && dpl == rpl;
	case KEEL_TR:
		return !(ar & VMX_AR_S_MASK) && (type == 3 || type == 11) && !(sel & 4);
	case KEEL_LDTR:
		return !(ar & VMX_AR_S_MASK) && type == 2 && !(sel & 4);
	default:
		return ar & VMX_AR_S_MASK && type & 1 && (type & 10) != 8 && (type > 11 || dpl >= rpl);
	}
}

/* SDM 26.3.1.2, for what guests bring about between modes.  Virtual-8086 mode of a guest comes with what it needs. */
bool vmx_can_enter(struct keel_vcpu *vcpu)
{
	u16 ss_sel = vmcs_read(GUEST_SS_SELECTOR);
	u32 ss_ar = vmcs_read(GUEST_SS_AR_BYTES);
	unsigned int seg;

	if (!(vcpu->cr0 & X86_CR0_PE))
		return false;
	if (keel_rflags(vcpu) & X86_EFLAGS_VM)
		return true;
	for (seg = KEEL_ES; seg <= KEEL_LDTR; seg++)
		if (!valid_segment(seg, ss_sel, ss_ar))
			return false;
	return true;
}

void vmx_set_cr0(struct keel_vcpu *vcpu, u64 val)
{
	/* An entry leaves CD and NW of the CPU alone; NE must be on, so x87 errors are #MF whatever the guest asked. */
	vmcs_write(CR0_READ_SHADOW, val);
	vcpu->cr0 = val;
	vcpu->avail |= BIT(KEEL_LAZY_CR0);
	if (keel_hw.two_dim)
		vmcs_write(GUEST_CR0, (val & ~(u64)(X86_CR0_CD | X86_CR0_NW)) | X86_CR0_NE);
	else
		vmx_shadow_crs(vcpu);
}

void vmx_set_cr3(struct keel_vcpu *vcpu, u64 val)
{
	if (keel_hw.two_dim)
		vmcs_write(GUEST_CR3, val);
	vcpu->cr3 = val;
	vcpu->avail |= BIT(KEEL_LAZY_CR3);
}

void vmx_set_cr4(struct keel_vcpu *vcpu, u64 val)
{
	/* A #MC belongs to the host: it must be taken even if the guest left MCE clear. */
	vmcs_write(CR4_READ_SHADOW, val);
	vcpu->cr4 = val;
	vcpu->avail |= BIT(KEEL_LAZY_CR4);
	if (keel_hw.two_dim)
		vmcs_write(GUEST_CR4, val | vmx_has.cr4_fixed0 | X86_CR4_MCE);
	else
		vmx_shadow_crs(vcpu);
}

void vmx_set_efer(struct keel_vcpu *vcpu, u64 val)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vcpu->efer = val;
	if (keel_hw.two_dim)
		vmcs_write(GUEST_IA32_EFER, val);
	else
		vmx_shadow_crs(vcpu);
	vmx_entry_ctl(vmx, VM_ENTRY_IA32E_MODE, val & EFER_LMA);
}

u64 vmx_get_dr6(struct keel_vcpu *vcpu)
{
	return to_vmx(vcpu)->dr6;
}

void vmx_set_dr6(struct keel_vcpu *vcpu, u64 val)
{
	to_vmx(vcpu)->dr6 = val;
}

void vmx_set_dr7(struct keel_vcpu *vcpu, u64 val)
{
	vmcs_write(GUEST_DR7, val);
}

/* ------------------------------------------------------------- MSRs */

/* MSRs that are fields of the guest-state area. */
static const struct {
	u32 msr, field;
} vmcs_msrs[] = {
	{ MSR_IA32_SYSENTER_CS, GUEST_SYSENTER_CS },
	{ MSR_IA32_SYSENTER_ESP, GUEST_SYSENTER_ESP },
	{ MSR_IA32_SYSENTER_EIP, GUEST_SYSENTER_EIP },
	{ MSR_FS_BASE, GUEST_FS_BASE },
	{ MSR_GS_BASE, GUEST_GS_BASE },
	{ MSR_IA32_CR_PAT, GUEST_IA32_PAT },
	/* What asks for these is told before where there are none. */
	{ MSR_IA32_S_CET, GUEST_S_CET },
	{ MSR_IA32_INT_SSP_TAB, GUEST_INTR_SSP_TABLE },
	{ KEEL_MSR_SSP, GUEST_SSP },
	{ KEEL_MSR_TRAPS, GUEST_PENDING_DBG_EXCEPTIONS },
};

static u32 msr_field(u32 msr)
{
	unsigned int i;

	if (msr == MSR_IA32_CR_PAT && !(vmx_has.entry_ctl & VM_ENTRY_LOAD_IA32_PAT))
		return 0;
	for (i = 0; i < ARRAY_SIZE(vmcs_msrs); i++)
		if (vmcs_msrs[i].msr == msr)
			return vmcs_msrs[i].field;
	return 0;
}

int vmx_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	int i = vmx_switched_msr(msr);

	if (msr == MSR_KERNEL_GS_BASE && vcpu->atomic)
		rdmsrq(msr, *val);	/* the guest's is in the CPU now, and SWAPGS changes it */
	else if (i >= 0)
		*val = vmx->msr_guest[i];
	else if (msr == MSR_CSTAR)
		*val = vmx->cstar;
	else if (msr_field(msr))
		*val = vmcs_read(msr_field(msr));
	else
		return 1;
	return 0;
}

int vmx_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	int i = vmx_switched_msr(msr);

	if (i >= 0) {
		vmx->msr_guest[i] = val;
		/* The guest's are in the CPU now. */
		if (vcpu->atomic && (vmx->syscall_loaded || msr == MSR_KERNEL_GS_BASE))
			wrmsrq(msr, val);
	} else if (msr == MSR_CSTAR) {
		vmx->cstar = val;	/* kept, for keel_emulate_ud(): SYSCALL is #UD outside 64-bit mode */
	} else if (msr == MSR_IA32_UMWAIT_CONTROL) {
		if (vcpu->atomic)
			vmx_swap_umwait(vmx);
	} else if (msr == KEEL_MSR_TRAPS) {
		vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, val);
		/* Whose state it gets was not in a HLT that does not exit. */
		vmcs_write(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
	} else if (msr == MSR_IA32_TSX_CTRL) {
		vmx_update_tsx_ctrl(vmx);
	} else if (msr == MSR_IA32_DEBUGCTLMSR) {
		vmcs_write(GUEST_IA32_DEBUGCTL, val | vmx->freeze_in_smm);
	} else if (msr_field(msr)) {
		vmcs_write(msr_field(msr), val);
	} else {
		return 1;
	}
	return 0;
}

/* ------------------------------------------------------------- paging, TSC */

void vmx_load_root(struct keel_vcpu *vcpu, u64 root_pa)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vmx->flush = true;
	if (!keel_hw.two_dim) {
		/* Pointers of the guest's are the CPU's to mask. */
		vmcs_write(GUEST_CR3, root_pa | (vcpu->cr3 & KEEL_CR3_LAM));
		return;
	}
	vmx->eptp = root_pa | VMX_EPTP_MT_WB | (keel_hw.root_levels == 5 ? VMX_EPTP_PWL_5 : VMX_EPTP_PWL_4) |
		    (vmx_has.ept_ad ? VMX_EPTP_AD_ENABLE_BIT : 0);
	vmcs_write(EPT_POINTER, vmx->eptp);
}

void vmx_flush_tlb(struct keel_vcpu *vcpu)
{
	to_vmx(vcpu)->flush = true;
}

/* Also called for a vCPU that is not loaded yet. */
void vmx_set_tsc(struct keel_vcpu *vcpu, u64 offset, u64 ratio)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);

	vmx->tsc_offset = offset;
	vmx->tsc_ratio = ratio;
	vmx->before_entry |= VMX_LOAD_TSC;
}

void vmx_dump(struct keel_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = to_vmx(vcpu);
	unsigned int seg;

	pr_info_ratelimited("keel: vCPU %u: exit %#x error %u qualification %#llx vectoring %#x inject %#llx interruptibility %#llx\n",
			    vcpu->id, vmx->reason, vmx->insn_error, vmcs_read(EXIT_QUALIFICATION), vmx->idt_info,
			    vmcs_read(VM_ENTRY_INTR_INFO_FIELD), vmcs_read(GUEST_INTERRUPTIBILITY_INFO));
	pr_info_ratelimited("keel: vCPU %u: rip %#llx rsp %#llx rflags %#llx cr0 %#llx cr3 %#llx cr4 %#llx efer %#llx dr7 %#llx\n",
			    vcpu->id, vmcs_read(GUEST_RIP), vmcs_read(GUEST_RSP), vmcs_read(GUEST_RFLAGS),
			    vmcs_read(GUEST_CR0), vmcs_read(GUEST_CR3), vmcs_read(GUEST_CR4),
			    vmcs_read(GUEST_IA32_EFER), vmcs_read(GUEST_DR7));
	pr_info_ratelimited("keel: vCPU %u: controls: pin %#llx cpu %#llx %#llx exit %#llx entry %#llx tpr threshold %#llx\n",
			    vcpu->id, vmcs_read(PIN_BASED_VM_EXEC_CONTROL), vmcs_read(CPU_BASED_VM_EXEC_CONTROL),
			    vmcs_read(SECONDARY_VM_EXEC_CONTROL), vmcs_read(VM_EXIT_CONTROLS),
			    vmcs_read(VM_ENTRY_CONTROLS), vmcs_read(TPR_THRESHOLD));
	for (seg = KEEL_ES; seg <= KEEL_LDTR; seg++)
		pr_info_ratelimited("keel: vCPU %u: segment %u: %#llx base %#llx limit %#llx access %#llx\n",
				    vcpu->id, seg, vmcs_read(GUEST_ES_SELECTOR + seg_step(seg)),
				    vmcs_read(GUEST_ES_BASE + seg_step(seg)), vmcs_read(GUEST_ES_LIMIT + seg_step(seg)),
				    vmcs_read(GUEST_ES_AR_BYTES + seg_step(seg)));
}
