// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmcb.c - a vCPU's VMCB: made, reset, read and written. APM appendix B (layout), 15.9 (intercepts).
 *
 * Lock: vcpu->mutex.
 */
#include <linux/slab.h>
#include <asm/msr.h>

#include "svm.h"
#include "cpu/mitigate.h"

static_assert(sizeof(struct vmcb_control_area) == 0x400);
static_assert(offsetof(struct vmcb_save_area, s_cet) == 0x1e0);
static_assert(offsetof(struct vmcb_save_area, rax) == 0x1f8);
static_assert(offsetof(struct vmcb_save_area, g_pat) == 0x268);
static_assert(offsetof(struct svm_vcpu, vcpu) == 0);

/*
 * What always exits.  Not here, on purpose, because the guest may do it alone under nested paging:
 * CR3 and CR0 reads and writes that change only TS and MP, CR2, INVLPG, INVPCID, RDTSC, RDTSCP, PUSHF,
 * POPF, INT n, descriptor-table loads and stores, PAUSE, #PF, #GP, #NM, and IRET, CR8 and virtual
 * interrupts unless something waits for them.  HLT, MONITOR, MWAIT and #UD are the VMM's choice.
 */
static const u8 svm_always[] = {
	INTERCEPT_SELECTIVE_CR0,	/* PG, PE, CD, NW: mode changes */
	INTERCEPT_CR4_WRITE,		/* reserved bits follow the guest's CPUID */
	INTERCEPT_INTR, INTERCEPT_NMI, INTERCEPT_SMI, INTERCEPT_INIT,
	INTERCEPT_CPUID, INTERCEPT_IOIO_PROT, INTERCEPT_MSR_PROT,
	INTERCEPT_RDPMC, INTERCEPT_RSM, INTERCEPT_INVD, INTERCEPT_WBINVD, INTERCEPT_TASK_SWITCH,
	INTERCEPT_SHUTDOWN, INTERCEPT_XSETBV, INTERCEPT_RDPRU,
	INTERCEPT_INVLPGA, INTERCEPT_VMRUN, INTERCEPT_VMMCALL, INTERCEPT_VMLOAD, INTERCEPT_VMSAVE,
	INTERCEPT_STGI, INTERCEPT_CLGI, INTERCEPT_SKINIT,
	INTERCEPT_EXCEPTION_OFFSET + X86_TRAP_DB,	/* a guest can hold the CPU for ever */
	INTERCEPT_EXCEPTION_OFFSET + X86_TRAP_AC,	/* in delivering either of these to itself */
	INTERCEPT_EXCEPTION_OFFSET + X86_TRAP_MC,	/* a real one is the host's */
};

/* And with shadow paging what decides how the guest's addresses are translated. */
static const u8 svm_shadow[] = {
	INTERCEPT_CR0_READ, INTERCEPT_CR0_WRITE, INTERCEPT_CR3_READ, INTERCEPT_CR3_WRITE, INTERCEPT_CR4_READ,
	INTERCEPT_INVLPG, INTERCEPT_EXCEPTION_OFFSET + X86_TRAP_PF,
};

int svm_vm_init(struct keel_vm *vm)
{
	return 0;
}

void svm_vm_destroy(struct keel_vm *vm)
{
}

int svm_vcpu_init(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct page *page = svm_alloc_page(GFP_KERNEL_ACCOUNT);

	if (!page)
		return -ENOMEM;
	svm->vmcb = page_address(page);
	svm->vmcb_pa = svm_pa(page);
	svm->asid_cpu = -1;
	svm->tsc_ratio = SVM_TSC_RATIO_DEFAULT;
	return 0;
}

void svm_vcpu_destroy(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	if (svm->vmcb)
		free_page((unsigned long)svm->vmcb);
}

/* Generic code has put the architectural registers to their reset values before and through us. */
void svm_vcpu_reset(struct keel_vcpu *vcpu, bool init)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_control_area *c = &svm->vmcb->control;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(svm_always); i++)
		svm_intercept(svm, svm_always[i], true);
	svm->vmcb->save.dr6 = DR6_RESERVED;	/* the guest's never is in the CPU */
	/* MOV DR is rare enough to be emulated; DR0-3 need then no switching unless DR7 arms one. */
	for (i = 0; i < 8; i++) {
		svm_intercept(svm, INTERCEPT_DR0_READ + i, true);
		svm_intercept(svm, INTERCEPT_DR0_WRITE + i, true);
	}
	/* AMD's microcode has other numbers for its revisions than generic code starts with. */
	if (!init && keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_STUFF_FEATURE_MSRS))
		vcpu->msrs.ucode_rev = 0x01000065;
	c->iopm_base_pa = svm_iopm_pa;
	c->int_ctl = V_INTR_MASKING_MASK;
	c->keel_nested_ctl = keel_hw.two_dim ? KEEL_SVM_ENABLE_NP : 0;
	for (i = 0; !keel_hw.two_dim && i < ARRAY_SIZE(svm_shadow); i++)
		svm_intercept(svm, svm_shadow[i], true);
	if (!keel_hw.two_dim && boot_cpu_has(X86_FEATURE_INVPCID))
		svm_intercept(svm, INTERCEPT_INVPCID, true);
	c->event_inj = 0;
	c->int_state = 0;
	svm->vmcb->save.g_pat = vcpu->msrs.pat;
	svm->vmcb->save.s_cet = svm->vmcb->save.ssp = svm->vmcb->save.isst_addr = 0;
	svm->tpr_class = 0;
	svm->irq_window = false;
	svm->nmi_masked = svm->iret_started = svm->step = false;
	svm->in_shadow = svm->shadow_lost = false;
	svm->asid_generation = 0;
	svm->clean = 0;
	svm_update_intercepts(vcpu);
}

void svm_update_intercepts(struct keel_vcpu *vcpu)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	u32 off = vcpu->vm->exits_off;

	/* Without an in-kernel APIC the VMM must see the TPR fall. */
	if (!vcpu->apic)
		svm_intercept(svm, INTERCEPT_CR8_WRITE, true);
	svm_intercept(svm, INTERCEPT_HLT, !(off & KVM_X86_DISABLE_EXITS_HLT));
	svm_intercept(svm, INTERCEPT_MONITOR, !(off & KVM_X86_DISABLE_EXITS_MWAIT));
	svm_intercept(svm, INTERCEPT_MWAIT, !(off & KVM_X86_DISABLE_EXITS_MWAIT));
	svm_intercept(svm, INTERCEPT_EXCEPTION_OFFSET + X86_TRAP_UD, keel_wants_ud(vcpu));
	svm_intercept(svm, INTERCEPT_EXCEPTION_OFFSET + X86_TRAP_GP, keel_vmware_backdoor);
	svm_intercept(svm, INTERCEPT_EXCEPTION_OFFSET + X86_TRAP_BP, vcpu->debug.control & KVM_GUESTDBG_USE_SW_BP);
	svm->vmcb->control.msrpm_base_pa = svm_msrpm_pa[keel_msr_map(vcpu)];
	svm_touch(svm, CLEAN_PERM);
}

/* ------------------------------------------------------------- registers */

void svm_cache_reg(struct keel_vcpu *vcpu, unsigned int reg)
{
	struct vmcb_save_area *s = &to_svm(vcpu)->vmcb->save;

	/* The emulator's first question; and a switch is a chain of comparisons. */
	if (reg == KEEL_RSP) {
		vcpu->regs[KEEL_RSP] = s->rsp;
		vcpu->avail |= BIT(KEEL_RSP);
		return;
	}
	switch (reg) {
	case KEEL_RIP:
		vcpu->regs[KEEL_RIP] = s->rip;
		break;
	case KEEL_LAZY_RFLAGS:
		vcpu->rflags = s->rflags;
		if (unlikely(to_svm(vcpu)->step) && !to_svm(vcpu)->step_tf)
			vcpu->rflags &= ~X86_EFLAGS_TF;
		break;
	case KEEL_LAZY_CR0:
		/* TS and MP are the guest's own; what is intercepted is in the cached copy. */
		vcpu->cr0 = (vcpu->cr0 & ~SVM_CR0_SELECTIVE_MASK) | (s->cr0 & SVM_CR0_SELECTIVE_MASK);
		break;
	case KEEL_LAZY_CR3:
		vcpu->cr3 = s->cr3;
		break;
	case KEEL_LAZY_CR4:
		break;		/* writes are intercepted: the cached copy is right */
	case KEEL_LAZY_PDPTRS:
		/* Read from memory by every nested walk; marks it cached if it can be read. */
		(void)mmu_load_pdptrs(vcpu, keel_cr3(vcpu));
		return;
	}
	vcpu->avail |= BIT(reg);
}

static struct vmcb_seg *svm_seg(struct keel_vcpu *vcpu, unsigned int seg)
{
#define AT(name)	offsetof(struct vmcb_save_area, name)
	static const u8 places[] = {
		[KEEL_ES] = AT(es), [KEEL_CS] = AT(cs), [KEEL_SS] = AT(ss), [KEEL_DS] = AT(ds), [KEEL_FS] = AT(fs),
		[KEEL_GS] = AT(gs), [KEEL_TR] = AT(tr), [KEEL_LDTR] = AT(ldtr),
	};

	return (void *)&to_svm(vcpu)->vmcb->save + places[seg];
}

/* The VMCB packs the descriptor's attributes: type, S, DPL, P in 0..7, AVL, L, D/B, G in 8..11. */
void svm_get_segment(struct keel_vcpu *vcpu, struct kvm_segment *s, unsigned int seg)
{
	const struct vmcb_seg *v = svm_seg(vcpu, seg);
	u16 a = v->attrib;

	memset(s, 0, sizeof(*s));
	s->base = v->base;
	s->limit = v->limit;
	s->selector = v->selector;
	s->type = a & SVM_SELECTOR_TYPE_MASK;
	s->s = (a >> SVM_SELECTOR_S_SHIFT) & 1;
	s->dpl = (a >> SVM_SELECTOR_DPL_SHIFT) & 3;
	s->present = (a >> SVM_SELECTOR_P_SHIFT) & 1;
	s->avl = (a >> SVM_SELECTOR_AVL_SHIFT) & 1;
	s->l = (a >> SVM_SELECTOR_L_SHIFT) & 1;
	s->db = (a >> SVM_SELECTOR_DB_SHIFT) & 1;
	s->g = s->limit > 0xfffff;	/* the CPU need not keep G; the limit is in bytes */
	s->unusable = !s->present;

	switch (seg) {
	case KEEL_TR:
		s->type |= 2;		/* a loaded task register is always busy */
		break;
	case KEEL_SS:
		if (s->unusable)
			s->db = 0;
		s->dpl = svm_cpl(vcpu);	/* the CPU keeps CPL apart from SS.DPL */
		break;
	case KEEL_DS: case KEEL_ES: case KEEL_FS: case KEEL_GS:
		if (!s->unusable)
			s->type |= 1;	/* a loaded data segment was accessed */
		break;
	}
}

void svm_set_segment(struct keel_vcpu *vcpu, const struct kvm_segment *s, unsigned int seg)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	struct vmcb_seg *v = svm_seg(vcpu, seg);

	v->base = s->base;
	v->limit = s->limit;
	v->selector = s->selector;
	v->attrib = s->type & SVM_SELECTOR_TYPE_MASK;
	v->attrib |= (s->s & 1) << SVM_SELECTOR_S_SHIFT;
	v->attrib |= (s->dpl & 3) << SVM_SELECTOR_DPL_SHIFT;
	v->attrib |= (s->present && !s->unusable) << SVM_SELECTOR_P_SHIFT;
	v->attrib |= (s->avl & 1) << SVM_SELECTOR_AVL_SHIFT;
	v->attrib |= (s->l & 1) << SVM_SELECTOR_L_SHIFT;
	v->attrib |= (s->db & 1) << SVM_SELECTOR_DB_SHIFT;
	v->attrib |= (s->g & 1) << SVM_SELECTOR_G_SHIFT;
	if (seg == KEEL_SS)
		svm->vmcb->save.cpl = s->dpl & 3;
	svm_touch(svm, CLEAN_SEG);
}

u64 svm_seg_base(struct keel_vcpu *vcpu, unsigned int seg)
{
	return svm_seg(vcpu, seg)->base;
}

u32 svm_cs_mode(struct keel_vcpu *vcpu)
{
	/* The VMCB leaves out the four bits of a descriptor that are the limit's. */
	static_assert(SVM_SELECTOR_DB_MASK << 4 == EMUL_ATTR_DB && SVM_SELECTOR_L_MASK << 4 == EMUL_ATTR_L);
	return to_svm(vcpu)->vmcb->save.cs.attrib << 4 & (EMUL_ATTR_DB | EMUL_ATTR_L);
}

int svm_cpl(struct keel_vcpu *vcpu)
{
	return to_svm(vcpu)->vmcb->save.cpl;
}

void svm_get_dt(struct keel_vcpu *vcpu, struct kvm_dtable *dt, bool idt)
{
	struct vmcb_save_area *s = &to_svm(vcpu)->vmcb->save;

	memset(dt, 0, sizeof(*dt));
	dt->base = idt ? s->idtr.base : s->gdtr.base;
	dt->limit = idt ? s->idtr.limit : s->gdtr.limit;
}

void svm_set_dt(struct keel_vcpu *vcpu, const struct kvm_dtable *dt, bool idt)
{
	struct vmcb_save_area *s = &to_svm(vcpu)->vmcb->save;
	struct vmcb_seg *v = idt ? &s->idtr : &s->gdtr;

	v->base = dt->base;
	v->limit = dt->limit;
	svm_touch(to_svm(vcpu), CLEAN_DT);
}

static void svm_shadow_crs(struct keel_vcpu *vcpu)
{
	struct vmcb_save_area *s = &to_svm(vcpu)->vmcb->save;
	struct mmu_shadow_crs crs = mmu_shadow_crs(vcpu);

	s->cr0 = crs.cr0;
	s->cr4 = crs.cr4;
	s->efer = crs.efer | EFER_SVME;
	svm_touch(to_svm(vcpu), CLEAN_CR);
}

void svm_set_cr0(struct keel_vcpu *vcpu, u64 val)
{
	struct svm_vcpu *svm = to_svm(vcpu);
	u64 hidden;

	vcpu->cr0 = val;
	vcpu->avail |= BIT(KEEL_LAZY_CR0);
	if (!keel_hw.two_dim) {
		svm_shadow_crs(vcpu);
		return;
	}
	/*
	 * CD and NW would make all of the guest's memory uncached for as long as its firmware forgets to
	 * clear them; the memory is coherent anyway, so the hardware does not see them, and the guest reads CR0 from us:
	 * unless the VMM wants it otherwise.
	 */
	hidden = keel_has_quirk(vcpu->vm, KVM_X86_QUIRK_CD_NW_CLEARED) ? val & (X86_CR0_CD | X86_CR0_NW) : 0;
	svm->vmcb->save.cr0 = (val & ~hidden) | X86_CR0_ET;
	svm_intercept(svm, INTERCEPT_CR0_READ, hidden);
	svm_intercept(svm, INTERCEPT_CR0_WRITE, hidden);
	svm_touch(svm, CLEAN_CR);
}

void svm_set_cr3(struct keel_vcpu *vcpu, u64 val)
{
	vcpu->cr3 = val;
	vcpu->avail |= BIT(KEEL_LAZY_CR3);
	if (!keel_hw.two_dim)
		return;
	to_svm(vcpu)->vmcb->save.cr3 = val;
	svm_touch(to_svm(vcpu), CLEAN_CR);
}

void svm_set_cr4(struct keel_vcpu *vcpu, u64 val)
{
	vcpu->cr4 = val;
	vcpu->avail |= BIT(KEEL_LAZY_CR4);
	if (!keel_hw.two_dim) {
		svm_shadow_crs(vcpu);
		return;
	}
	/* A #MC belongs to the host: it must be taken even if the guest left MCE clear. */
	to_svm(vcpu)->vmcb->save.cr4 = val | X86_CR4_MCE;
	svm_touch(to_svm(vcpu), CLEAN_CR);
}

void svm_set_efer(struct keel_vcpu *vcpu, u64 val)
{
	vcpu->efer = val;
	if (!keel_hw.two_dim) {
		svm_shadow_crs(vcpu);
		return;
	}
	to_svm(vcpu)->vmcb->save.efer = val | EFER_SVME;	/* VMRUN refuses a guest without it */
	svm_touch(to_svm(vcpu), CLEAN_CR);
}

u64 svm_get_dr6(struct keel_vcpu *vcpu)
{
	return to_svm(vcpu)->dr6;
}

void svm_set_dr6(struct keel_vcpu *vcpu, u64 val)
{
	to_svm(vcpu)->dr6 = val;
}

/* Nothing is kept beside them that could refuse an entry: behind a HLT that does not exit RIP is the next instruction's. */
void svm_regs_given(struct keel_vcpu *vcpu)
{
}

void svm_set_dr7(struct keel_vcpu *vcpu, u64 val)
{
	/* MOV DR exits, and its emulation looks at GD.  A CPU that looks first would clear it where nobody reads it. */
	to_svm(vcpu)->vmcb->save.dr7 = val & ~(u64)DR7_GD;
	svm_touch(to_svm(vcpu), CLEAN_DR);
}

/* ------------------------------------------------------------------ MSRs */

/* MSRs that are fields of the save area. */
#define SAVED(f, c)	{ offsetof(struct vmcb_save_area, f), c }
/* The index at which the search for an MSR begins: those of two ranges are right there. */
#define FIRST(msr) \
	((msr) - MSR_STAR < 4U ? 3 + (msr) - MSR_STAR : (msr) - MSR_FS_BASE < 3U ? 7 + (msr) - MSR_FS_BASE : 0)
static const struct svm_saved_msr {
	u32 msr;
	struct { u16 offset; u16 clean; } at;
} svm_saved_msrs[] = {
	{ MSR_IA32_SYSENTER_CS, SAVED(sysenter_cs, 0) },
	{ MSR_IA32_SYSENTER_ESP, SAVED(sysenter_esp, 0) },
	{ MSR_IA32_SYSENTER_EIP, SAVED(sysenter_eip, 0) },
	[FIRST(MSR_STAR)] = { MSR_STAR, SAVED(star, 0) },
	[FIRST(MSR_LSTAR)] = { MSR_LSTAR, SAVED(lstar, 0) },
	[FIRST(MSR_CSTAR)] = { MSR_CSTAR, SAVED(cstar, 0) },
	[FIRST(MSR_SYSCALL_MASK)] = { MSR_SYSCALL_MASK, SAVED(sfmask, 0) },
	[FIRST(MSR_FS_BASE)] = { MSR_FS_BASE, SAVED(fs.base, 0) },
	[FIRST(MSR_GS_BASE)] = { MSR_GS_BASE, SAVED(gs.base, 0) },
	[FIRST(MSR_KERNEL_GS_BASE)] = { MSR_KERNEL_GS_BASE, SAVED(kernel_gs_base, 0) },
	{ MSR_IA32_CR_PAT, SAVED(g_pat, CLEAN_NPT) },
	/* Their clean bit is never set.  What asks for these is told before where there are none. */
	{ MSR_IA32_S_CET, SAVED(s_cet, 0) },
	{ MSR_IA32_INT_SSP_TAB, SAVED(isst_addr, 0) },
	{ KEEL_MSR_SSP, SAVED(ssp, 0) },
	{ MSR_IA32_SPEC_CTRL, SAVED(spec_ctrl, 0) },	/* some CPUs, APM 15.36.3 */
};

static u64 *svm_msr_field(struct svm_vcpu *svm, u32 msr, u16 *clean)
{
	unsigned int i;

	if (msr == MSR_IA32_SPEC_CTRL && !boot_cpu_has(X86_FEATURE_V_SPEC_CTRL))
		return NULL;
	for (i = FIRST(msr); i < ARRAY_SIZE(svm_saved_msrs); i++) {
		if (svm_saved_msrs[i].msr != msr)
			continue;
		*clean = svm_saved_msrs[i].at.clean;
		return (void *)&svm->vmcb->save + svm_saved_msrs[i].at.offset;
	}
	return NULL;
}

int svm_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val)
{
	u16 clean;
	u64 *field = svm_msr_field(to_svm(vcpu), msr, &clean);

	if (!field)
		return 1;
	*val = *field;
	/* Of these AMD's CPUs have the lower half, and code for Intel's wants more: see keel_emulate_ud(). */
	if (msr == MSR_IA32_SYSENTER_ESP || msr == MSR_IA32_SYSENTER_EIP)
		*val = (u32)*val |
		       (vcpu->model.foreign ? (u64)to_svm(vcpu)->sysenter_high[msr - MSR_IA32_SYSENTER_ESP] << 32 : 0);
	return 0;
}

int svm_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val)
{
	u16 clean;
	u64 *field = svm_msr_field(to_svm(vcpu), msr, &clean);

	if (!field)
		return 1;
	if (msr == MSR_IA32_SYSENTER_ESP || msr == MSR_IA32_SYSENTER_EIP)
		to_svm(vcpu)->sysenter_high[msr - MSR_IA32_SYSENTER_ESP] = val >> 32;
	*field = val;
	svm_touch(to_svm(vcpu), clean);
	return 0;
}

/* ---------------------------------------------------------------- paging */

void svm_load_root(struct keel_vcpu *vcpu, u64 root_pa)
{
	if (keel_hw.two_dim)
		to_svm(vcpu)->vmcb->control.nested_cr3 = root_pa;
	else
		to_svm(vcpu)->vmcb->save.cr3 = root_pa;
	svm_touch(to_svm(vcpu), CLEAN_NPT | CLEAN_CR);
	svm_flush_tlb(vcpu);
}

void svm_flush_tlb(struct keel_vcpu *vcpu)
{
	/* A new ASID has nothing cached; the old one's entries die with its generation. */
	to_svm(vcpu)->asid_generation = 0;
}

void svm_set_tsc(struct keel_vcpu *vcpu, u64 offset, u64 ratio)
{
	struct svm_vcpu *svm = to_svm(vcpu);

	svm->vmcb->control.tsc_offset = offset;
	svm->tsc_ratio = ratio;
	svm_touch(svm, CLEAN_INTERCEPTS);
}

void svm_dump(struct keel_vcpu *vcpu)
{
	struct vmcb_control_area *c = &to_svm(vcpu)->vmcb->control;
	struct vmcb_save_area *s = &to_svm(vcpu)->vmcb->save;

	pr_info_ratelimited("keel: vCPU %u: exit %#x info %#llx %#llx intr %#x inject %#x int_ctl %#x state %#x\n",
			    vcpu->id, svm_exit_code(c), c->exit_info_1, c->exit_info_2, c->exit_int_info,
			    c->event_inj, c->int_ctl, c->int_state);
	pr_info_ratelimited("keel: vCPU %u: rip %#llx rsp %#llx rflags %#llx cr0 %#llx cr3 %#llx cr4 %#llx efer %#llx cpl %u\n",
			    vcpu->id, s->rip, s->rsp, s->rflags, s->cr0, s->cr3, s->cr4, s->efer, s->cpl);
	pr_info_ratelimited("keel: vCPU %u: cs %#x base %#llx limit %#x attr %#x ss %#x attr %#x tr %#x attr %#x\n",
			    vcpu->id, s->cs.selector, s->cs.base, s->cs.limit, s->cs.attrib, s->ss.selector,
			    s->ss.attrib, s->tr.selector, s->tr.attrib);
}
