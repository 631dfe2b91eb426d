// SPDX-License-Identifier: GPL-2.0-only
/*
 * setup.c - is SVM there, turning it on and off on a CPU, and the address space ids of a CPU.
 * APM 15.4 (enabling), 15.16 (ASIDs, TLB control), 15.30 (host save area), 15.10/15.11 (permission maps).
 *
 * Locks: cpu_enable/disable run with IRQs off on their CPU; the per-CPU data is only used there with
 * preemption off.
 */
#include <linux/cpufeature.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <asm/msr.h>
#include "svm.h"

struct svm_features svm_has __ro_after_init;
phys_addr_t svm_iopm_pa __ro_after_init;
static struct page *svm_iopm;
phys_addr_t svm_msrpm_pa[KEEL_NR_MSR_MAPS] __ro_after_init;
static unsigned long *svm_msrpm[KEEL_NR_MSR_MAPS];
#define IOPM_ORDER	2	/* 12 KiB are used: three pages of four */

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

struct svm_cpu {
	struct page *hsave;	/* the CPU's own host save area, MSR_VM_HSAVE_PA */
	struct page *host;	/* VMSAVE's picture of the host, for the VMLOAD after an exit */
	u64 asid_generation;	/* starts at 1; 0 is a vCPU's "none" */
	u32 asid_next;
	u64 tsc_ratio;		/* in MSR_AMD64_TSC_RATIO */
	bool enabled;		/* EFER.SVME was set by us */
};
static DEFINE_PER_CPU(struct svm_cpu, svm_cpu);

DEFINE_PER_CPU(phys_addr_t, svm_host_pa);

/* The next entry here begins a new generation, with a full flush. IRQs or preemption off. */
void svm_restart_asids(void)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);

	sc->asid_generation++;
	sc->asid_next = svm_has.nr_asids;
}

int svm_cpu_enable(void)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);
	u64 efer;

	rdmsrq(MSR_EFER, efer);
	if (efer & EFER_SVME)
		return -EBUSY;
	wrmsrq(MSR_EFER, efer | EFER_SVME);
	wrmsrq(MSR_VM_HSAVE_PA, svm_pa(sc->hsave));
	sc->tsc_ratio = 0;	/* unknown: the first vCPU writes it */
	/* Another hypervisor's translations may still be tagged with these ids. */
	svm_restart_asids();
	sc->enabled = true;
	keel_perf_svm(true);
	return 0;
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

void svm_cpu_disable(void)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);

	if (!sc->enabled)
		return;
	sc->enabled = false;
	wrmsrq(MSR_VM_HSAVE_PA, 0);
	svm_cpu_emergency();
	keel_perf_svm(false);
}

/*
 * Before an entry.  Four cases: same CPU, same generation: keep the id.  Moved to another CPU, or the
 * generation went by, or the guest asked for a flush (generation 0): take the next id, under which
 * nothing is cached yet.  Ids used up: start a new generation and have VMRUN flush all of them.
 */
void svm_assign_asid(struct svm_vcpu *svm)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);
	struct vmcb_control_area *c = &svm->vmcb->control;
	int cpu = smp_processor_id();

	c->tlb_ctl = TLB_CONTROL_DO_NOTHING;
	if (likely(svm->asid_cpu == cpu && svm->asid_generation == sc->asid_generation))
		return;
	if (sc->asid_next >= svm_has.nr_asids) {
		sc->asid_generation++;
		sc->asid_next = 1;	/* 0 is the host's */
		c->tlb_ctl = TLB_CONTROL_FLUSH_ALL_ASID;
	}
	if (svm->asid_cpu != cpu)
		svm->clean = 0;		/* the clean bits speak of one CPU's cache */
	svm->asid_cpu = cpu;
	svm->asid_generation = sc->asid_generation;
	svm->asid = sc->asid_next++;
	c->asid = svm->asid;
	svm_touch(svm, CLEAN_ASID);
}

/* Preemption off.  The ratio is the guest's alone: the host's RDTSC does not look at it. */
void svm_load_tsc_ratio(struct svm_vcpu *svm)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpu);

	if (!svm_has.tsc_scale || sc->tsc_ratio == svm->tsc_ratio)
		return;
	sc->tsc_ratio = svm->tsc_ratio;
	wrmsrq(MSR_AMD64_TSC_RATIO, svm->tsc_ratio);
}

static bool npt = true;
module_param(npt, bool, 0444);
MODULE_PARM_DESC(npt, "Use nested paging where the CPU has it (on)");

/* MSRs the guest reads and writes without an exit: all are switched by VMLOAD and VMSAVE. */
static const u32 direct_msrs[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE,
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
};

/* APM 15.11: three ranges of 8,192 MSRs, two bits each, read then write. */
#define MSRPM_ORDER	1

static void msrpm_open(unsigned long *map, u32 msr)
{
	static const u32 bases[] = { 0, 0xc0000000, 0xc0010000 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bases); i++) {
		u32 n = msr - bases[i];

		if (n >= 8192)
			continue;
		__clear_bit((i * 8192 + n) * 2, map);
		__clear_bit((i * 8192 + n) * 2 + 1, map);
	}
}

static const char *svm_missing(void)
{
	u64 vm_cr;

	if (!boot_cpu_has(X86_FEATURE_SVM))
		return "this CPU has no SVM";
	if (rdmsrq_safe(MSR_VM_CR, &vm_cr) == 0 && (vm_cr & SVM_VM_CR_SVM_DIS_MASK))
		return "SVM is disabled in firmware; enable it in the BIOS setup";
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

	svm_iopm = alloc_pages(GFP_KERNEL, IOPM_ORDER);
	if (!svm_iopm)
		return -ENOMEM;
	memset(page_address(svm_iopm), 0xff, PAGE_SIZE << IOPM_ORDER);	/* every port exits */
	svm_iopm_pa = svm_pa(svm_iopm);
	for (i = 0; i < ARRAY_SIZE(svm_msrpm); i++) {
		svm_msrpm[i] = (unsigned long *)__get_free_pages(GFP_KERNEL, MSRPM_ORDER);
		if (!svm_msrpm[i])
			return -ENOMEM;
		memset(svm_msrpm[i], 0xff, PAGE_SIZE << MSRPM_ORDER);
		for (m = 0; i != KEEL_MSRS_NONE && m < ARRAY_SIZE(direct_msrs); m++)
			msrpm_open(svm_msrpm[i], direct_msrs[m]);
		svm_msrpm_pa[i] = svm_pa(virt_to_page(svm_msrpm[i]));
		if (i & KEEL_MSRS_SPEC_CTRL)
			msrpm_open(svm_msrpm[i], MSR_IA32_SPEC_CTRL);
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

int svm_setup(struct keel_ops *ops, const char **why)
{
	struct keel_hw_caps *caps = &ops->caps;
	u32 eax, ebx, ecx, edx;
	int err;

	*why = svm_missing();
	if (*why)
		return boot_cpu_has(X86_FEATURE_SVM) ? -EOPNOTSUPP : -ENODEV;

	cpuid(SVM_CPUID_FUNC, &eax, &ebx, &ecx, &edx);
	svm_has.nr_asids = ebx;
	svm_has.nrips = boot_cpu_has(X86_FEATURE_NRIPS);
	svm_has.tsc_scale = boot_cpu_has(X86_FEATURE_TSCRATEMSR);
	if (svm_has.nr_asids < 2) {
		*why = "SVM offers no address space ids to guests";
		return -EOPNOTSUPP;
	}

	caps->vcpu_size = sizeof(struct svm_vcpu);
	caps->exit_name = svm_exit_name;
	caps->nr_exits = SVM_EXIT_SLOTS;
	caps->efer_allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	if (boot_cpu_has(X86_FEATURE_FXSR_OPT))
		caps->efer_allowed |= EFER_FFXSR;
	caps->two_dim = npt && boot_cpu_has(X86_FEATURE_NPT);
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
}

/* SVM has real mode with paging on, just for this. */
static bool svm_can_enter(struct keel_vcpu *vcpu)
{
	return true;
}

static void svm_put(struct keel_vcpu *vcpu)
{
}

struct keel_ops svm_ops = {
	.caps.name		= "SVM",
	.caps.pmu		= &svm_pmu_hw,
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
