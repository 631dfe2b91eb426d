// SPDX-License-Identifier: GPL-2.0-only
/*
 * setup.c - is SVM there, turning it on and off on a CPU, and the address space ids of a CPU; and what becomes of these when
 * the CPU is kvm_amd's as well.
 * APM 15.4 (enabling), 15.16 (ASIDs, TLB control), 15.30 (host save area), 15.10/15.11 (permission maps).
 *
 * Locks: cpu_enable/disable run with IRQs off on their CPU; the per-CPU data is only used there with
 * preemption off.
 */
#include <linux/cpufeature.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <asm/debugreg.h>
#include <asm/msr.h>
#include "svm.h"

struct svm_features svm_has __ro_after_init;
phys_addr_t svm_iopm_pa __ro_after_init;
static struct page *svm_iopm;
phys_addr_t svm_msrpm_pa[KEEL_NR_MSR_MAPS] __ro_after_init;
static unsigned long *svm_msrpm[KEEL_NR_MSR_MAPS];
#define IOPM_SIZE	(3 * PAGE_SIZE)
#define IOPM_ORDER	2	/* the fourth page stays empty, as the page table of a guest that has nothing */

/*
 * APM 15.25.5: x86-64's own format; nested walks are user accesses to the nested tables, so all entries carry U/S.
 * 15.25.8: these go through the host's PAT, where Linux has UC- for PCD alone, and what comes out meets the guest's.
 * There is no telling the CPU not to look at that one: ordinary memory is what the guest says, and coherent all the same.
 */
static struct mmu_format npt_format __ro_after_init = {
	.present	= _PAGE_PRESENT,
	.table		= _PAGE_PRESENT | _PAGE_USER | _PAGE_RW | _PAGE_ACCESSED,
	.large		= _PAGE_PSE,
	.read		= _PAGE_PRESENT | _PAGE_USER,
	.write		= _PAGE_RW,
	.exec		= _PAGE_NX,
	.inverted	= _PAGE_NX,
	.ram		= 0,
	.device		= _PAGE_PCD,
	.accessed	= _PAGE_ACCESSED,
	.dirty		= _PAGE_DIRTY,
	.logged		= _PAGE_RW,
	.host_write	= _PAGE_SOFTW1,
};

DEFINE_STATIC_KEY_FALSE(svm_may_lose_area);
DEFINE_PER_CPU(struct svm_cpu, svm_cpu);

DEFINE_PER_CPU(phys_addr_t, svm_host_pa);

/* The next entry here begins a new generation, with a full flush. IRQs or preemption off. */
void svm_restart_asids(void)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);

	sc->asid_generation++;
	sc->asid_next = svm_has.nr_asids;
}

/*
 * Beside kvm_amd, which hands out all ids there are and flushes when they have gone round: none is ever certainly free. So keel
 * takes one, the highest, for all of its vCPUs, has it flushed before the first entry after each load, of what kvm's guest
 * may have under it, and again when it leaves, of its own. That takes a VMRUN, of this VMCB: a guest without a
 * single page, which exits with a page fault on its first instruction.
 */
static u32 svm_shared_asid(void)
{
	return svm_has.nr_asids - 1;
}

static u32 svm_flush_one(void)
{
	return boot_cpu_has(X86_FEATURE_FLUSHBYASID) ? TLB_CONTROL_FLUSH_ASID : TLB_CONTROL_FLUSH_ALL_ASID;
}

static void svm_make_flusher(struct page *page)
{
	struct vmcb *vmcb = page_address(page);
	struct vmcb_control_area *c = &vmcb->control;
	struct vmcb_save_area *s = &vmcb->save;

	clear_page(vmcb);
	c->intercepts[INTERCEPT_EXCEPTION] = ~0U;
	c->intercepts[INTERCEPT_INTR / 32] |= BIT(INTERCEPT_INTR % 32) | BIT(INTERCEPT_NMI % 32) | BIT(INTERCEPT_SMI % 32) |
					      BIT(INTERCEPT_INIT % 32) | BIT(INTERCEPT_SHUTDOWN % 32);
	c->intercepts[INTERCEPT_VMRUN / 32] |= BIT(INTERCEPT_VMRUN % 32);
	c->iopm_base_pa = svm_iopm_pa;
	c->msrpm_base_pa = svm_msrpm_pa[KEEL_MSRS_NONE];
	c->asid = svm_shared_asid();
	c->tlb_ctl = svm_flush_one();
	c->int_ctl = V_INTR_MASKING_MASK;
	s->cs.attrib = SVM_SELECTOR_P_MASK | SVM_SELECTOR_S_MASK | SVM_SELECTOR_L_MASK | SVM_SELECTOR_CODE_MASK |
		       SVM_SELECTOR_READ_MASK;
	s->efer = EFER_SVME | EFER_LME | EFER_LMA;
	s->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_PG;
	s->cr3 = svm_iopm_pa + IOPM_SIZE;
	s->cr4 = X86_CR4_PAE | X86_CR4_MCE;
	s->rflags = X86_EFLAGS_FIXED;
	s->dr6 = DR6_RESERVED;
	s->dr7 = BIT(10);		/* always one */
}

static const char *svm_cpu_borrow(struct svm_cpu *sc, u64 efer)
{
	u64 hsave;

	if (!(efer & EFER_SVME))
		return "kvm_amd's VM was handed over, but EFER.SVME is clear";
	rdmsrq(MSR_VM_HSAVE_PA, hsave);
	if (!hsave)
		return "kvm_amd has no host save area (MSR_VM_HSAVE_PA is 0)";
	svm_make_flusher(sc->hsave);
	sc->tsc_ratio = sc->tsc_found = 0;
	svm_restart_asids();	/* a generation that is not a vCPU's "none" */
	return NULL;
}

const char *svm_cpu_enable(bool shared)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);
	u64 efer;

	rdmsrq(MSR_EFER, efer);
	if (shared)
		return svm_cpu_borrow(sc, efer);
	if (efer & EFER_SVME)
		return "SVM is on already: run \"keel share\" for VMs beside kvm_amd's, or unload who else has it (VirtualBox?)";
	/* #GP where firmware has locked it off, on this CPU alone. */
	if (wrmsrq_safe(MSR_EFER, efer | EFER_SVME))
		return "firmware has locked SVM off on a CPU";
	wrmsrq(MSR_VM_HSAVE_PA, svm_pa(sc->hsave));
	sc->tsc_ratio = 0;	/* unknown: the first vCPU writes it */
	/* Another hypervisor's translations may still be tagged with these ids. */
	svm_restart_asids();
	sc->enabled = true;
	keel_perf_svm(true);
	return NULL;
}

void svm_cpu_emergency(void)
{
	u64 efer;

	rdmsrq(MSR_EFER, efer);
	if (!(efer & EFER_SVME))
		return;
	/* With GIF clear an INIT or NMI would wait for ever once SVME is off. */
	asm volatile("1: stgi\n2:\n" _ASM_EXTABLE(1b, 2b) : : : "memory");
	wrmsrq(MSR_EFER, efer & ~EFER_SVME);
}

/* Borrowed, it was left as it was found whenever a vCPU left. */
void svm_cpu_disable(bool shared)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);

	if (shared || !sc->enabled)
		return;
	sc->enabled = false;
	/* kvm_amd, which may be loaded, knows what it has written to each CPU, and does not write that again. */
	if (sc->tsc_ratio && sc->tsc_ratio != SVM_TSC_RATIO_DEFAULT) {
		sc->tsc_ratio = SVM_TSC_RATIO_DEFAULT;
		wrmsrq(MSR_AMD64_TSC_RATIO, sc->tsc_ratio);
	}
	wrmsrq(MSR_VM_HSAVE_PA, 0);
	svm_cpu_emergency();
	keel_perf_svm(false);
}

/*
 * Before an entry that cannot keep its id.  Moved to another CPU, or the generation went by, or the guest asked for a flush
 * (generation 0): take the next one, under which nothing is cached yet.  Ids used up: start a new generation and have VMRUN
 * flush all of them.  Beside kvm_amd both are a flush of the one id.
 */
void svm_assign_asid(struct svm_vcpu *svm)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);
	struct vmcb_control_area *c = &svm->vmcb->control;
	int cpu = smp_processor_id();

	if (keel_hw_shared()) {
		svm->asid = svm_shared_asid();
		c->tlb_ctl = svm_flush_one();
	} else {
		if (sc->asid_next >= svm_has.nr_asids) {
			sc->asid_generation++;
			sc->asid_next = 1;	/* 0 is the host's */
			c->tlb_ctl = TLB_CONTROL_FLUSH_ALL_ASID;
		}
		svm->asid = sc->asid_next++;
	}
	if (svm->asid_cpu != cpu)
		svm->clean = 0;		/* the clean bits speak of one CPU's cache */
	svm->asid_cpu = cpu;
	svm->asid_generation = sc->asid_generation;
	c->asid = svm->asid;
	svm_touch(svm, CLEAN_ASID);
}

/* Preemption off.  The ratio is the guest's alone: the host's RDTSC does not look at it. */
void svm_load_tsc_ratio(struct svm_vcpu *svm)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);

	if (!svm_has.tsc_scale || sc->tsc_ratio == svm->tsc_ratio)
		return;
	if (keel_hw_shared() && !sc->tsc_found)
		rdmsrq(MSR_AMD64_TSC_RATIO, sc->tsc_found);
	sc->tsc_ratio = svm->tsc_ratio;
	wrmsrq(MSR_AMD64_TSC_RATIO, svm->tsc_ratio);
}

static bool npt = true;
module_param(npt, bool, 0444);
MODULE_PARM_DESC(npt, "Use nested paging where the CPU has it (on)");

/* MSRs the guest reads and writes without an exit: all are switched by VMLOAD and VMSAVE. */
static const u32 direct_msrs[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE,
	MSR_IA32_SYSENTER_CS,
};

/* APM 15.11: three ranges of 8,192 MSRs, two bits each, read then write. */
#define MSRPM_ORDER	1

static void msrpm_open(unsigned long *map, u32 msr, bool write)
{
	static const u32 bases[] = { 0, 0xc0000000, 0xc0010000 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bases); i++) {
		u32 n = msr - bases[i];

		if (n >= 8192)
			continue;
		__clear_bit((i * 8192 + n) * 2, map);
		if (write)
			__clear_bit((i * 8192 + n) * 2 + 1, map);
	}
}

static const char *svm_missing(int *err)
{
	u64 vm_cr;

	*err = -ENODEV;
	if (cpuid_eax(0x80000000) < SVM_CPUID_FUNC || !(cpuid_ecx(0x80000001) & BIT(X86_FEATURE_SVM & 31)))
		return "this CPU has no SVM";
	*err = -EOPNOTSUPP;
	/* Kernels from 6.7 on look there themselves, and forget the feature. */
	if (!boot_cpu_has(X86_FEATURE_SVM) ||
	    (rdmsrq_safe(MSR_VM_CR, &vm_cr) == 0 && (vm_cr & SVM_VM_CR_SVM_DIS_MASK)))
		return "SVM is disabled in firmware; enable it in the BIOS setup";
	/* Which a CR3 of 32 bits cannot say of the page it points to. */
	if (!npt && sme_me_mask)
		return "npt=0 does not go with encrypted memory (SME)";
	return NULL;
}

static void svm_free_cpus(void)
{
	unsigned int i;
	int cpu;

	for_each_possible_cpu(cpu) {
		struct svm_cpu *sc = per_cpu_ptr(&svm_cpu, cpu);

		if (sc->hsave)
			__free_page(sc->hsave);
		if (sc->host)
			__free_page(sc->host);
		sc->hsave = sc->host = NULL;
	}
	if (svm_iopm)
		__free_pages(svm_iopm, IOPM_ORDER);
	svm_iopm = NULL;
	for (i = 0; i < ARRAY_SIZE(svm_msrpm); i++) {
		free_pages((unsigned long)svm_msrpm[i], MSRPM_ORDER);
		svm_msrpm[i] = NULL;
	}
}

static int svm_alloc_cpus(void)
{
	unsigned int i, m;
	int cpu;

	svm_iopm = alloc_pages(GFP_KERNEL | __GFP_ZERO, IOPM_ORDER);
	if (!svm_iopm)
		return -ENOMEM;
	memset(page_address(svm_iopm), 0xff, IOPM_SIZE);	/* every port exits */
	svm_iopm_pa = svm_pa(svm_iopm);
	for (i = 0; i < ARRAY_SIZE(svm_msrpm); i++) {
		if (i & KEEL_MSRS_CET && !svm_has.cet)
			continue;
		svm_msrpm[i] = (unsigned long *)__get_free_pages(GFP_KERNEL, MSRPM_ORDER);
		if (!svm_msrpm[i])
			return -ENOMEM;
		memset(svm_msrpm[i], 0xff, PAGE_SIZE << MSRPM_ORDER);
		for (m = 0; i != KEEL_MSRS_NONE && m < ARRAY_SIZE(direct_msrs); m++)
			msrpm_open(svm_msrpm[i], direct_msrs[m], true);
		svm_msrpm_pa[i] = svm_pa(virt_to_page(svm_msrpm[i]));
		if (i & KEEL_MSRS_SPEC_CTRL)
			msrpm_open(svm_msrpm[i], MSR_IA32_SPEC_CTRL, true);
		/* No CPU of AMD's has what tells of C-states. */
		for (m = 0; m < KEEL_NR_OPEN_MSRS; m++)
			if (i & keel_open_msrs[m].set & KEEL_MSRS_APERFMPERF)
				msrpm_open(svm_msrpm[i], keel_open_msrs[m].msr, false);
		for (m = 0; i & KEEL_MSRS_CET && m < KEEL_NR_CET_MSRS; m++)
			msrpm_open(svm_msrpm[i], keel_cet_msrs[m], true);
	}
	for_each_possible_cpu(cpu) {
		struct svm_cpu *sc = per_cpu_ptr(&svm_cpu, cpu);

		sc->hsave = svm_alloc_page(GFP_KERNEL);
		sc->host = svm_alloc_page(GFP_KERNEL);
		if (sc->host)
			per_cpu(svm_host_pa, cpu) = svm_pa(sc->host);
		if (!sc->hsave || !sc->host)
			return -ENOMEM;
	}
	return 0;
}

/* What SVM has no way to give: a control for it, DEBUGCTL of its own, CR3 with bits that are no address. */
static const u16 not_for_guests[] = { X86_FEATURE_WAITPKG, X86_FEATURE_BUS_LOCK_DETECT, X86_FEATURE_LAM };

int svm_setup(struct keel_ops *ops, const char **why)
{
	struct keel_hw_caps *caps = &ops->caps;
	u32 eax, ebx, ecx, edx;
	unsigned int i;
	int err;

	*why = svm_missing(&err);
	if (*why)
		return err;

	cpuid(SVM_CPUID_FUNC, &eax, &ebx, &ecx, &edx);
	svm_has.nr_asids = ebx;
	svm_has.nrips = boot_cpu_has(X86_FEATURE_NRIPS);
	svm_has.tsc_scale = boot_cpu_has(X86_FEATURE_TSCRATEMSR);
	if (cpuid_eax(0x80000000) >= 0x8000001f && cpuid_eax(0x8000001f) & SVM_CPU_HAS_SNP)
		static_branch_enable(&svm_may_lose_area);
	if (svm_has.nr_asids < 2) {
		*why = "SVM offers no address space ids to guests";
		return -EOPNOTSUPP;
	}

	caps->vcpu_size = sizeof(struct svm_vcpu);
	caps->foreign[0] = 0x756e6547;		/* "Genu", Intel: SYSENTER and SYSEXIT */
	caps->foreign[1] = 0x746e6543;		/* "Cent" */
	caps->foreign_calls[0] = 0x34;
	caps->foreign_calls[1] = 0x35;
	caps->mcg_guest = MCG_BANKCNT_MASK | MCG_CTL_P;	/* the rest is reserved (APM volume 2, 9.3.2) */
	caps->exit_name = svm_exit_name;
	caps->nr_exits = SVM_EXIT_SLOTS;
	caps->efer_allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	if (boot_cpu_has(X86_FEATURE_FXSR_OPT))
		caps->efer_allowed |= EFER_FFXSR;
	if (cpuid_eax(0x80000000) >= 0x80000021 && cpuid_eax(0x80000021) & BIT(KEEL_FEATURE_AUTOIBRS & 31))
		caps->efer_allowed |= EFER_AUTOIBRS;
	for (i = 0; i < ARRAY_SIZE(not_for_guests); i++)
		caps->features_off[not_for_guests[i] / 32] |= BIT(not_for_guests[i] & 31);
	/*
	 * Family 10h, erratum 383: a guest that changes the size of a page it uses can bring about a machine check that the
	 * host does not survive.  Of keel's own tables the CPU sees no such change without a flush.
	 */
	caps->two_dim = npt && boot_cpu_has(X86_FEATURE_NPT) && !boot_cpu_has_bug(X86_BUG_AMD_TLB_MMATCH);
	svm_has.kept = BIT(KEEL_LAZY_CR4) | BIT(KEEL_RIP) | BIT(KEEL_LAZY_RFLAGS);
	if (!caps->two_dim)
		svm_has.kept |= BIT(KEEL_LAZY_CR0) | BIT(KEEL_LAZY_CR3);
	/* The VMCB has S_CET, SSP and ISST_ADDR where the CPU has shadow stacks.  Without nested paging our tables would need theirs. */
	svm_has.cet = caps->two_dim && cpuid_eax(0) >= 7 && cpuid_ecx(7) & BIT(X86_FEATURE_SHSTK & 31);
	caps->cet = svm_has.cet;
	caps->mmu_fmt = &npt_format;
	if (!boot_cpu_has(X86_FEATURE_NX))	/* the bit is reserved then, and all may be executed */
		npt_format.exec = npt_format.inverted = 0;
	caps->max_page_level = boot_cpu_has(X86_FEATURE_GBPAGES) ? 3 : 2;
	/* The nested walk uses the host's own paging mode. */
	caps->root_levels = pgtable_l5_enabled() ? 5 : 4;
	caps->tsc_scaling = svm_has.tsc_scale;
	caps->max_tsc_ratio = SVM_TSC_RATIO_MAX;
	caps->tsc_frac_bits = 32;

	err = svm_alloc_cpus();
	if (err) {
		svm_free_cpus();
		*why = "out of memory";
	}
	return err;
}

void svm_unsetup(void)
{
	svm_free_cpus();
}

static void svm_load(struct keel_vcpu *vcpu, int cpu)
{
	/* The ASID is looked at on each entry; nothing else is tied to the CPU between entries. */
	if (keel_hw_shared())
		svm_flush_tlb(vcpu);
}

/*
 * Preemption off.  GIF keeps everything away, but for what a machine check has to say.  No guest's state is loaded but by VMRUN
 * itself, and the host's comes back with the exit, except for DS and ES of a task with an LDT, and DR7.  A reboot turns SVM
 * off under it, which has flushed everything.
 */
static void svm_flush_and_leave(struct svm_cpu *sc)
{
	struct vmcb *vmcb = page_address(sc->hsave);
	unsigned long flags, dr7 = 0;
	u16 ds = 0, es = 0;

	local_irq_save(flags);
	if (unlikely(svm_lost_area())) {
		local_irq_restore(flags);
		return;
	}
	if (unlikely(hw_breakpoint_active()))
		get_debugreg(dr7, 7);
	if (unlikely(keel_has_ldt())) {
		savesegment(ds, ds);
		savesegment(es, es);
		loadsegment(ds, 0);
		loadsegment(es, 0);
	}
	vmcb->control.clean = 0;
	asm volatile("1: clgi\n\tvmrun %%rax\n\tstgi\n2:\n" _ASM_EXTABLE(1b, 2b)
		     : : "a" (svm_pa(sc->hsave)) : "memory", "cc");
	if (ds)
		loadsegment(ds, ds);
	if (es)
		loadsegment(es, es);
	if (unlikely(dr7))
		set_debugreg(dr7, 7);
	if (unlikely(svm_exit_code(&vmcb->control) == SVM_EXIT_EXCP_BASE + X86_TRAP_MC)) {
		context_tracking_guest_enter();
		keel_machine_check();
		context_tracking_guest_exit();
	}
	WARN_ONCE(svm_exit_code(&vmcb->control) == (u32)SVM_EXIT_ERR && !keel_rebooting, "keel: VMRUN refused to flush\n");
	local_irq_restore(flags);
}

/* SVM has real mode with paging on, just for this. */
static bool svm_can_enter(struct keel_vcpu *vcpu)
{
	return true;
}

static void svm_put(struct keel_vcpu *vcpu)
{
	struct svm_cpu *sc;

	if (!vcpu->arrived)
		return;
	sc = this_cpu_ptr(&svm_cpu);
	svm_flush_and_leave(sc);
	/* kvm_amd knows what it has written, and does not look. */
	if (sc->tsc_found && sc->tsc_found != sc->tsc_ratio)
		wrmsrq(MSR_AMD64_TSC_RATIO, sc->tsc_found);
	sc->tsc_ratio = sc->tsc_found = 0;
}

static const struct kvm_nested_state svm_nested_none = {
	.flags = KVM_STATE_NESTED_GIF_SET, .format = KVM_STATE_NESTED_FORMAT_SVM, .size = sizeof(svm_nested_none),
};

struct keel_ops svm_ops = {
	.caps.name		= "SVM",
	.caps.pmu		= &svm_pmu_hw,
	.caps.nested_none	= &svm_nested_none,
	.setup			= svm_setup,
	.unsetup		= svm_unsetup,
	.cpu_enable		= svm_cpu_enable,
	.cpu_disable		= svm_cpu_disable,
	.cpu_emergency		= svm_cpu_emergency,
	.vm_init		= svm_vm_init,
	.vm_destroy		= svm_vm_destroy,
	.vcpu_init		= svm_vcpu_init,
	.vcpu_destroy		= svm_vcpu_destroy,
	.vcpu_reset		= svm_vcpu_reset,
	.load			= svm_load,
	.put			= svm_put,
	.begin			= svm_begin,
	.end			= svm_end,
	.enter			= svm_enter,
	.exit_fast		= svm_exit_fast,
	.exit_slow		= svm_exit_slow,
	.cache_reg		= svm_cache_reg,
	.get_segment		= svm_get_segment,
	.set_segment		= svm_set_segment,
	.seg_base		= svm_seg_base,
	.cs_mode		= svm_cs_mode,
	.cpl			= svm_cpl,
	.get_dt			= svm_get_dt,
	.set_dt			= svm_set_dt,
	.set_cr0		= svm_set_cr0,
	.set_cr3		= svm_set_cr3,
	.set_cr4		= svm_set_cr4,
	.set_efer		= svm_set_efer,
	.regs_given		= svm_regs_given,
	.get_dr6		= svm_get_dr6,
	.set_dr6		= svm_set_dr6,
	.set_dr7		= svm_set_dr7,
	.get_msr		= svm_get_msr,
	.set_msr		= svm_set_msr,
	.update_intercepts	= svm_update_intercepts,
	.inject			= svm_inject,
	.cancel_inject		= svm_cancel_inject,
	.event_blocked		= svm_event_blocked,
	.open_window		= svm_open_window,
	.close_window		= svm_close_window,
	.get_shadow		= svm_get_shadow,
	.set_shadow		= svm_set_shadow,
	.set_tpr_threshold	= svm_set_tpr_threshold,
	.get_nmi_mask		= svm_get_nmi_mask,
	.set_nmi_mask		= svm_set_nmi_mask,
	.notify			= keel_vcpu_notify,
	.load_root		= svm_load_root,
	.flush_tlb		= svm_flush_tlb,
	.can_enter		= svm_can_enter,
	.set_tsc		= svm_set_tsc,
	.next_rip		= svm_next_rip,
	.hypercall_insn		= svm_hypercall_insn,
	.dump			= svm_dump,
};
