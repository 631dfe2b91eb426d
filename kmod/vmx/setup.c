// SPDX-License-Identifier: GPL-2.0-only
/*
 * setup.c - is VMX there and can it do what keel needs, turning it on and off on a CPU, and which VMCSs a CPU may
 * have cached.  SDM 3C 23.6-23.8 (VMXON), 24.2 and 24.11 (VMCS regions), 28.3 (EPT and VPID), 3D appendix A
 * (capability MSRs).
 *
 * Locks: cpu_enable/disable run with IRQs off on their CPU.  The per-CPU list and the current VMCS are only touched
 * on their CPU with IRQs off; a VMCS cached elsewhere is cleared there, by IPI.
 */
#include <linux/bitmap.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <asm/mce.h>
#include <asm/msr.h>
#include <asm/special_insns.h>
#include <asm/tlbflush.h>
#include "vmx.h"

static bool pml = true;
module_param(pml, bool, 0444);
MODULE_PARM_DESC(pml, "Let the CPU log the pages it writes, where VMX can (on)");

static bool apicv = true;
module_param(apicv, bool, 0444);
MODULE_PARM_DESC(apicv, "Let the CPU run guests' LAPICs in x2APIC mode, where VMX can (on)");

static bool posted = true;
module_param(posted, bool, 0444);
MODULE_PARM_DESC(posted, "Have interrupts for LAPICs that the CPU runs delivered without an exit, where VMX can (on)");

struct vmx_features vmx_has __ro_after_init;
u8 *vmx_msr_bitmap[2][KEEL_NR_MSR_MAPS];

static bool ept = true;
module_param(ept, bool, 0444);
MODULE_PARM_DESC(ept, "Use EPT and unrestricted guest where the CPU has both (on)");

static bool ept_ad = true;
module_param(ept_ad, bool, 0444);
MODULE_PARM_DESC(ept_ad, "Use EPT's accessed and dirty bits where the CPU has them (on)");

/*
 * EPT's format, SDM 28.3.2; memory types, 28.3.7.2: "ignore PAT" makes ordinary memory of the host's write-back whatever
 * the guest's PAT says.  Type 0, without it, is uncached, but for a guest that says WC.
 */
static struct mmu_format ept_format __ro_after_init = {
	.present	= VMX_EPT_RWX_MASK,
	.table		= VMX_EPT_RWX_MASK,
	.large		= BIT_ULL(7),
	.read		= VMX_EPT_READABLE_MASK,
	.write		= VMX_EPT_WRITABLE_MASK,
	.exec		= VMX_EPT_EXECUTABLE_MASK,
	.ram		= VMX_EPTP_MT_WB << VMX_EPT_MT_EPTE_SHIFT | VMX_EPT_IPAT_BIT,
	.device		= 0,
	.logged		= VMX_EPT_WRITABLE_MASK,
	.host_write	= BIT_ULL(11),
};

DEFINE_PER_CPU(struct vmx_cpu, vmx_cpu);

void vmx_write_failed(unsigned long field, u64 val)
{
	WARN_ONCE(!keel_rebooting, "keel: VMWRITE of %#llx to %#lx failed, instruction error %llu\n", val, field,
		  vmcs_read_here(VM_INSTRUCTION_ERROR));
}

/* ------------------------------------------------------------- VMCSs and CPUs */

static void vmclear(struct page *vmcs)
{
	u64 pa = page_to_phys(vmcs);
	bool failed;

	asm volatile("1: vmclear %1\n2:\n" _ASM_EXTABLE(1b, 2b) : "=@ccna" (failed) : "m" (pa) : "memory");
	WARN_ONCE(failed && !keel_rebooting, "keel: VMCLEAR failed\n");
}

void vmx_ptrld(u64 pa)
{
	bool failed;

	asm volatile("1: vmptrld %1\n2:\n" _ASM_EXTABLE(1b, 2b) : "=@ccna" (failed) : "m" (pa) : "memory");
	WARN_ONCE(failed && !keel_rebooting, "keel: VMPTRLD failed\n");
}

void vmx_clear_here(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);

	vmclear(vmx->vmcs);
	if (vc->current_vmcs == vmx)
		vc->current_vmcs = NULL;
	/* Before another has that address. */
	if (vc->mine == page_to_phys(vmx->vmcs))
		vc->mine = VMX_NO_VMCS;
	list_del_init(&vmx->loaded);
	vmx->launched = false;
	/* Whoever sees it clear may load it elsewhere. */
	smp_store_release(&vmx->vmcs_cpu, -1);
}

/* On the CPU that has it, IRQs off. */
static void vmcs_forget_here(void *arg)
{
	struct vmx_vcpu *vmx = arg;

	if (vmx->vmcs_cpu == smp_processor_id())	/* else the CPU was turned off meanwhile, which cleared it */
		vmx_clear_here(vmx);
}

void vmx_vmcs_forget(struct vmx_vcpu *vmx)
{
	int cpu = READ_ONCE(vmx->vmcs_cpu);

	if (cpu >= 0)
		smp_call_function_single(cpu, vmcs_forget_here, vmx, 1);
}

void vmx_make_current(struct vmx_vcpu *vmx, u64 found)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);
	int cpu = smp_processor_id();
	u64 pa = page_to_phys(vmx->vmcs);

	if (smp_load_acquire(&vmx->vmcs_cpu) != cpu) {
		list_add(&vmx->loaded, &vc->loaded);
		/* Never used on a CPU before, it has to be cleared once as well. */
		vmclear(vmx->vmcs);
		vmx->vmcs_cpu = cpu;
		found = VMX_NO_VMCS;
	}
	if (found != pa)
		vmx_ptrld(pa);
}

void vmx_vmcs_load(struct vmx_vcpu *vmx, int cpu)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);
	unsigned long flags;

	if (keel_hw_shared()) {
		vmx_shared_load(vmx, cpu);
		return;
	}
	if (vmx->vmcs_cpu != cpu)
		vmx_vmcs_forget(vmx);
	local_irq_save(flags);
	vc->current_vmcs = vmx;
	vmx_make_current(vmx, VMX_NO_VMCS);
	local_irq_restore(flags);
}

static const char *vmx_on(struct vmx_cpu *vc)
{
	u64 pa = page_to_phys(vc->vmxon);

	if (__read_cr4() & X86_CR4_VMXE)
		return "VMX is on: by kvm_intel, beside which keel runs VMs if told to (keel share), or VirtualBox?";
	if (!KEEL_MAY_SET_CR4)
		return "this kernel lets only kvm_intel turn VMX on: load it, and tell keel to run VMs beside it (keel share)";
	keel_cr4_set(X86_CR4_VMXE);
	keel_perf_vmx(true);
	/* #GP where firmware has locked it off, on this CPU alone. */
	asm goto("1: vmxon %0\n\tjna %l[failed]\n" KEEL_EXTABLE_GOTO(1b, failed)
		 : : "m" (pa) : "cc", "memory" : failed);
	return NULL;
failed:
	keel_perf_vmx(false);
	keel_cr4_clear(X86_CR4_VMXE);
	return "VMXON failed: firmware has locked VMX off on a CPU";
}

static bool vmx_differs(void);

const char *vmx_cpu_enable(bool shared)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);
	const char *why;

	if (vmx_differs())
		return "this CPU's VMX differs from that of the CPU which keel was loaded on";
	why = shared ? vmx_borrow() : vmx_on(vc);
	if (why)
		return why;
	INIT_LIST_HEAD(&vc->loaded);
	vc->current_vmcs = NULL;
	vc->mine = VMX_NO_VMCS;
	vc->enabled = true;
	return NULL;
}

static void vmx_off(void)
{
	asm volatile("1: vmxoff\n2:\n" _ASM_EXTABLE(1b, 2b) : : : "cc", "memory");
	keel_cr4_clear(X86_CR4_VMXE);
}

/* The list can be gone through at any time: whoever is added or deleted is so with one pointer. */
void vmx_cpu_emergency(void)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);
	struct vmx_vcpu *vmx;

	if (!(__read_cr4() & X86_CR4_VMXE))
		return;
	/* What the CPU still has of them it must not write when the memory is another kernel's. */
	if (vc->enabled)
		list_for_each_entry(vmx, &vc->loaded, loaded)
			vmclear(vmx->vmcs);
	vmx_off();
}

void vmx_cpu_disable(bool shared)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpu);
	struct vmx_vcpu *vmx, *next;

	if (!vc->enabled)
		return;
	list_for_each_entry_safe(vmx, next, &vc->loaded, loaded)
		vmx_clear_here(vmx);
	vc->enabled = false;
	if (shared)
		return;
	vmx_off();
	keel_perf_vmx(false);
}

/* Without a VPID entries and exits flush by themselves. */
static void flush_vpid(u16 vpid)
{
	struct { u64 vpid, linear; } desc = { vpid, 0 };
	unsigned long type = VMX_VPID_EXTENT_SINGLE_CONTEXT;
	bool failed;

	if (!vpid)
		return;
	asm volatile("1: invvpid %1, %2\n2:\n" _ASM_EXTABLE(1b, 2b)
		     : "=@ccna" (failed) : "m" (desc), "r" (type) : "memory");
	WARN_ONCE(failed && !keel_rebooting, "keel: INVVPID failed\n");
}

/*
 * What this guest has cached on this CPU, of its page tables and of the second dimension, goes.  The second
 * dimension's mappings carry its root, and so do those combined from both: no other invalidation is ever needed.
 */
void vmx_flush_context(struct vmx_vcpu *vmx)
{
	struct { u64 eptp, zero; } desc = { vmx->eptp, 0 };
	unsigned long type = vmx_has.invept_single ? VMX_EPT_EXTENT_CONTEXT : VMX_EPT_EXTENT_GLOBAL;
	bool failed;

	if (!keel_hw.two_dim) {
		flush_vpid(vmx->vpid);
		return;
	}
	asm volatile("1: invept %1, %2\n2:\n" _ASM_EXTABLE(1b, 2b)
		     : "=@ccna" (failed) : "m" (desc), "r" (type) : "memory");
	WARN_ONCE(failed && !keel_rebooting, "keel: INVEPT failed\n");
}

/* ------------------------------------------------------------- VPIDs */

static DECLARE_BITMAP(vpids, VMX_NR_VPIDS);
static DEFINE_SPINLOCK(vpid_lock);

u16 vmx_vpid_alloc(void)
{
	unsigned long vpid;

	if (!(vmx_has.cpu2_ctl & SECONDARY_EXEC_ENABLE_VPID))
		return 0;
	/* kvm has VPIDs of the same numbers.  Without EPT's root, which is one VM's, they alone tell guests apart. */
	if (keel_hw_shared() && !keel_hw.two_dim)
		return 0;
	spin_lock(&vpid_lock);
	vpid = find_next_zero_bit(vpids, VMX_NR_VPIDS, 1);	/* 0 is the host's */
	if (vpid < VMX_NR_VPIDS)
		__set_bit(vpid, vpids);
	else
		vpid = 0;
	spin_unlock(&vpid_lock);
	return vpid;
}

void vmx_vpid_free(u16 vpid)
{
	if (!vpid)
		return;
	spin_lock(&vpid_lock);
	__clear_bit(vpid, vpids);
	spin_unlock(&vpid_lock);
}

/* ------------------------------------------------------------- capabilities */

#define VMX_TWO_DIM	(SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_UNRESTRICTED_GUEST)

#define SHADOW_EXITS	(CPU_BASED_CR3_LOAD_EXITING | CPU_BASED_CR3_STORE_EXITING | CPU_BASED_INVLPG_EXITING)

/* Turned on and off at run time: windows; CR8 for a guest whose APIC is not ours. */
#define RUN_TIME_EXITS	(CPU_BASED_INTR_WINDOW_EXITING | CPU_BASED_NMI_WINDOW_EXITING | CPU_BASED_CR8_LOAD_EXITING | \
			 CPU_BASED_CR8_STORE_EXITING)

/*
 * One row a control word: the MSR that says what may and must be set, what keel cannot do without, what it likes, and what
 * else it may turn on.
 */
enum { ROW_PIN, ROW_CPU, ROW_CPU2, ROW_EXIT, ROW_ENTRY };
static const struct {
	u32 msr;
	const char *name;
	u32 need, want, later;
	u32 *to;
} control_rows[] = {
	[ROW_PIN] = { MSR_IA32_VMX_TRUE_PINBASED_CTLS, "pin-based controls",
	  PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING | PIN_BASED_VIRTUAL_NMIS,
	  PIN_BASED_POSTED_INTR, 0, &vmx_has.pin_ctl },
	/*
	 * Not here, on purpose, because the guest may do it alone under EPT: CR3, INVLPG, RDTSC, PAUSE, and CR8
	 * unless a waiting interrupt depends on it.
	 */
	[ROW_CPU] = { MSR_IA32_VMX_TRUE_PROCBASED_CTLS, "processor-based controls",
	  CPU_BASED_USE_TSC_OFFSETTING | CPU_BASED_HLT_EXITING | CPU_BASED_MWAIT_EXITING | CPU_BASED_RDPMC_EXITING |
	  CPU_BASED_TPR_SHADOW | CPU_BASED_MOV_DR_EXITING | CPU_BASED_UNCOND_IO_EXITING | CPU_BASED_USE_MSR_BITMAPS |
	  CPU_BASED_MONITOR_EXITING | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS, 0, RUN_TIME_EXITS | SHADOW_EXITS,
	  &vmx_has.cpu_ctl },
	[ROW_CPU2] = { MSR_IA32_VMX_PROCBASED_CTLS2, "secondary controls", 0,
	  VMX_TWO_DIM | SECONDARY_EXEC_ENABLE_VPID | SECONDARY_EXEC_ENABLE_RDTSCP | SECONDARY_EXEC_ENABLE_INVPCID |
	  SECONDARY_EXEC_WBINVD_EXITING | SECONDARY_EXEC_XSAVES | SECONDARY_EXEC_TSC_SCALING |
	  SECONDARY_EXEC_ENABLE_PML | SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE | SECONDARY_EXEC_ENCLS_EXITING | VMX_APICV,
	  0, &vmx_has.cpu2_ctl },
	[ROW_EXIT] = { MSR_IA32_VMX_TRUE_EXIT_CTLS, "exit controls",
	  VM_EXIT_HOST_ADDR_SPACE_SIZE | VM_EXIT_LOAD_IA32_EFER, VM_EXIT_ACK_INTR_ON_EXIT | VM_EXIT_LOAD_IA32_PAT,
	  VM_EXIT_LOAD_CET_STATE | VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL, &vmx_has.exit_ctl },
	[ROW_ENTRY] = { MSR_IA32_VMX_TRUE_ENTRY_CTLS, "entry controls",
	  VM_ENTRY_LOAD_DEBUG_CONTROLS | VM_ENTRY_LOAD_IA32_EFER, VM_ENTRY_LOAD_IA32_PAT,
	  VM_ENTRY_LOAD_CET_STATE | VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL, &vmx_has.entry_ctl },
};

#define BASIC_ANY_ERROR_CODE	BIT_ULL(56)	/* of MSR_IA32_VMX_BASIC: exceptions go in with or without one, whichever they are */

/* Of MSR_IA32_VMX_EPT_VPID_CAP, what is looked at. */
#define VPID_CAPS	(VMX_VPID_INVVPID_BIT | VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT)
#define EPT_CAPS	(VMX_EPT_PAGE_WALK_4_BIT | VMX_EPT_PAGE_WALK_5_BIT | VMX_EPTP_WB_BIT | VMX_EPT_2MB_PAGE_BIT | \
			 VMX_EPT_1GB_PAGE_BIT | VMX_EPT_AD_BIT | VMX_EPT_INVEPT_BIT | VMX_EPT_EXTENT_CONTEXT_BIT | \
			 VMX_EPT_EXTENT_GLOBAL_BIT)

/* On the CPU that keel was loaded on. */
static struct {
	u64 basic, control[ARRAY_SIZE(control_rows)], ept_vpid;
} found __ro_after_init;

static u32 may_be(unsigned int row)
{
	return found.control[row] >> 32;
}

static u64 ept_vpid_caps(void)
{
	u64 cap;

	rdmsrq(MSR_IA32_VMX_EPT_VPID_CAP, cap);
	return cap & (EPT_CAPS | (u64)VPID_CAPS << 32);
}

/*
 * CPUs of two kinds in one machine, or with different microcode, may differ in what keel goes by.  Such a one is refused
 * here, with a reason, lest it refuse a VMCS in the middle of a guest's life.  (No machine of the lab's has two kinds.)
 */
static bool vmx_differs(void)
{
	unsigned int i;
	u64 val;

	rdmsrq(MSR_IA32_VMX_BASIC, val);
	if (val != found.basic)
		return true;
	for (i = 0; i < ARRAY_SIZE(control_rows); i++) {
		u32 used = control_rows[i].need | control_rows[i].want | control_rows[i].later;

		rdmsrq(control_rows[i].msr, val);
		if ((val ^ found.control[i]) & (U32_MAX | (u64)used << 32))
			return true;
	}
	rdmsrq(MSR_IA32_VMX_CR4_FIXED0, val);
	return val != vmx_has.cr4_fixed0 || (found.ept_vpid && ept_vpid_caps() != found.ept_vpid);
}

/* The controls may be there where the CPU's own registers are not: hypervisors below us, parts of which it is fused off. */
static bool cpu_has_cet(void)
{
	return boot_cpu_data.cpuid_level >= 7 &&
	       (cpuid_ecx(7) & BIT(X86_FEATURE_SHSTK & 31) || cpuid_edx(7) & BIT(X86_FEATURE_IBT & 31));
}

static const char *read_controls(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(control_rows); i++) {
		rdmsrq(control_rows[i].msr, found.control[i]);
		if (control_rows[i].need & ~may_be(i))
			return control_rows[i].name;
		*control_rows[i].to = control_rows[i].need | (control_rows[i].want & may_be(i)) | (u32)found.control[i];
	}
	if (vmx_has.cpu2_ctl & (SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_ENABLE_VPID))
		found.ept_vpid = ept_vpid_caps();
	if (RUN_TIME_EXITS & ~may_be(ROW_CPU))
		return "interrupt, NMI windows or CR8 exits";
	/* #CP has an error code, which an entry refuses where it goes by the exceptions that had one before. */
	vmx_has.cet = may_be(ROW_ENTRY) & VM_ENTRY_LOAD_CET_STATE && may_be(ROW_EXIT) & VM_EXIT_LOAD_CET_STATE &&
		      found.basic & BASIC_ANY_ERROR_CODE && cpu_has_cet();
	vmx_has.global_ctrl = may_be(ROW_ENTRY) & VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL &&
			      may_be(ROW_EXIT) & VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL;
	return NULL;
}

/*
 * Of devices' memory the guest's PAT decides with EPT's type.  Tables of ours, in place of the guest's, mean by the host's
 * what they say.
 */
static void use_pat(bool two_dim)
{
	if (two_dim && vmx_has.entry_ctl & VM_ENTRY_LOAD_IA32_PAT && vmx_has.exit_ctl & VM_EXIT_LOAD_IA32_PAT)
		return;
	vmx_has.entry_ctl &= ~VM_ENTRY_LOAD_IA32_PAT;
	vmx_has.exit_ctl &= ~VM_EXIT_LOAD_IA32_PAT;
}

/* Without EPT, or without real mode in it, the guest's page tables are shadowed and its real mode is emulated. */
static void use_shadow(struct keel_hw_caps *caps)
{
	vmx_has.cpu2_ctl &= ~(VMX_TWO_DIM | SECONDARY_EXEC_ENABLE_PML);
	vmx_has.cpu_ctl |= SHADOW_EXITS;
	caps->root_levels = 4;
	caps->max_page_level = 2;
	/* Nobody but us walks these tables: whether the CPU has such a bit does not matter. */
	ept_format.accessed = VMX_EPT_ACCESS_BIT;
	/* A VPID is of use if what is cached under it can be flushed: without one, entries and exits do that. */
	if (VPID_CAPS & ~(found.ept_vpid >> 32))
		vmx_has.cpu2_ctl &= ~SECONDARY_EXEC_ENABLE_VPID;
}

static const char *read_ept(struct keel_hw_caps *caps)
{
	u64 cap = found.ept_vpid;

	caps->max_page_level = cap & VMX_EPT_1GB_PAGE_BIT ? 3 : cap & VMX_EPT_2MB_PAGE_BIT ? 2 : 1;
	caps->root_levels = cap & VMX_EPT_PAGE_WALK_5_BIT && mmu_phys_bits() > 48 ? 5 : 4;
	if (!(cap & VMX_EPT_PAGE_WALK_4_BIT) || !(cap & VMX_EPTP_WB_BIT))
		return "EPT with four levels in write-back memory";
	if (!(cap & VMX_EPT_INVEPT_BIT) || !(cap & (VMX_EPT_EXTENT_CONTEXT_BIT | VMX_EPT_EXTENT_GLOBAL_BIT)))
		return "INVEPT";
	vmx_has.invept_single = cap & VMX_EPT_EXTENT_CONTEXT_BIT;
	vmx_has.ept_ad = ept_ad && cap & VMX_EPT_AD_BIT;
	if (vmx_has.ept_ad) {
		ept_format.accessed = VMX_EPT_ACCESS_BIT;
		ept_format.dirty = VMX_EPT_DIRTY_BIT;
	}
	vmx_has.pml = pml && vmx_has.ept_ad && vmx_has.cpu2_ctl & SECONDARY_EXEC_ENABLE_PML;
	vmx_has.cpu2_ctl &= ~SECONDARY_EXEC_ENABLE_PML;		/* see vmx_update_pml() */
	if (vmx_has.pml) {
		ept_format.logged = VMX_EPT_DIRTY_BIT;
		caps->dirty_log_size = VMX_PML_ENTRIES;
	}
	return NULL;
}

static const char *vmx_missing(struct keel_hw_caps *caps, int *err)
{
	static char text[96];
	const char *what;

	*err = -ENODEV;
	if (!(cpuid_ecx(1) & BIT(X86_FEATURE_VMX & 31)))
		return "this CPU has no VMX";
	*err = -EOPNOTSUPP;
	/* The kernel reads the feature-control MSR at boot and forgets the feature where firmware has locked it off. */
	if (!boot_cpu_has(X86_FEATURE_VMX))
		return "VMX is disabled in firmware; enable it in the BIOS setup";
	/* There are no gates for INT to go through, and the kernel's way for NMIs that end a guest is kvm.ko's alone. */
	if (keel_has_fred())
		return "this kernel uses FRED, where only kvm.ko can hand on NMIs; boot with fred=off";
	rdmsrq(MSR_IA32_VMX_BASIC, found.basic);
	if (!(found.basic & BIT_ULL(55)) || vmx_basic_vmcs_size(found.basic) > PAGE_SIZE ||
	    (found.basic >> 50 & 15) != 6)
		return "this CPU's VMX is of the first generation, which keel does not know";
	vmx_has.revision = vmx_basic_vmcs_revision_id(found.basic);
	what = read_controls();
	caps->two_dim = !what && ept && !(VMX_TWO_DIM & ~vmx_has.cpu2_ctl) && !(vmx_has.cpu_ctl & SHADOW_EXITS) &&
			!read_ept(caps);
	caps->pdptrs = caps->two_dim;
	caps->long_wants_tss = true;
	if (!caps->two_dim)
		vmx_has.kept = BIT(KEEL_LAZY_CR0) | BIT(KEEL_LAZY_CR3) | BIT(KEEL_LAZY_CR4);
	/* Without, pages of shadow stacks would have to be so in our tables, too, and real mode is emulated. */
	vmx_has.cet &= caps->two_dim;
	caps->cet = vmx_has.cet;
	if (!what && !caps->two_dim)
		use_shadow(caps);
	use_pat(caps->two_dim);
	if (!what)
		return NULL;
	snprintf(text, sizeof(text), "this CPU's VMX lacks something that keel needs: %s", what);
	return text;
}

static void vmx_free(void)
{
	unsigned int i;
	int cpu;

	for_each_possible_cpu(cpu) {
		struct vmx_cpu *vc = per_cpu_ptr(&vmx_cpu, cpu);

		if (vc->vmxon)
			__free_page(vc->vmxon);
		vc->vmxon = NULL;
	}
	for (i = 0; i < 2 * KEEL_NR_MSR_MAPS; i++) {
		u8 **bitmap = &vmx_msr_bitmap[i / KEEL_NR_MSR_MAPS][i % KEEL_NR_MSR_MAPS];

		free_page((unsigned long)*bitmap);
		*bitmap = NULL;
	}
}

/* MSRs the guest reads and writes without an exit: fields of the VMCS, and the one that SWAPGS changes anyway. */
static const u32 direct_msrs[] = {
	MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE,
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
};

/* SDM 24.6.9: a bit an MSR, set for an exit; reads of 0 and of 0xc0000000 on, then writes of the same. */
static void open_msr(u8 *bitmap, u32 msr, bool write)
{
	u8 *half = bitmap + (msr & 0xc0000000 ? 1024 : 0) + (write ? 2048 : 0);

	__clear_bit(msr & 0x1fff, (unsigned long *)half);
}

static void fill_msr_bitmap(u8 *bitmap, unsigned int map, bool x2apic)
{
	unsigned int write, m;

	memset(bitmap, 0xff, PAGE_SIZE);
	for (write = 0; write < 2; write++) {
		for (m = 0; map != KEEL_MSRS_NONE && m < ARRAY_SIZE(direct_msrs); m++)
			open_msr(bitmap, direct_msrs[m], write);
		if (map & KEEL_MSRS_SPEC_CTRL)
			open_msr(bitmap, MSR_IA32_SPEC_CTRL, write);
		for (m = 0; !write && m < KEEL_NR_OPEN_MSRS; m++)
			if (map & keel_open_msrs[m].set)
				open_msr(bitmap, keel_open_msrs[m].msr, write);
		for (m = 0; map & KEEL_MSRS_CET && m < KEEL_NR_CET_MSRS; m++)
			open_msr(bitmap, keel_cet_msrs[m], write);
		/* No filter of a VMM's is asked about these. */
		for (m = APIC_BASE_MSR; x2apic && m < APIC_BASE_MSR + 0x100; m++)
			if (irq_x2apic_by_cpu(m, write))
				open_msr(bitmap, m, write);
	}
}

static int make_msr_bitmaps(void)
{
	unsigned int x2apic, map;

	for (x2apic = 0; x2apic <= vmx_has.apicv; x2apic++) {
		for (map = 0; map < KEEL_NR_MSR_MAPS; map++) {
			u8 *bitmap;

			if (map & KEEL_MSRS_CET && !vmx_has.cet)
				continue;
			bitmap = (u8 *)__get_free_page(GFP_KERNEL);
			vmx_msr_bitmap[x2apic][map] = bitmap;
			if (!bitmap)
				return -ENOMEM;
			fill_msr_bitmap(bitmap, map, x2apic);
		}
	}
	return 0;
}

static int vmx_alloc(void)
{
	int cpu;

	if (make_msr_bitmaps())
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		struct vmx_cpu *vc = per_cpu_ptr(&vmx_cpu, cpu);

		vc->vmxon = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!vc->vmxon)
			return -ENOMEM;
		*(u32 *)page_address(vc->vmxon) = vmx_has.revision;
	}
	return 0;
}

/* Instructions that VMX lets a guest have one by one. */
static const struct {
	u32 ctl;
	u16 feature;
} guest_insns[] = {
	{ SECONDARY_EXEC_ENABLE_RDTSCP, X86_FEATURE_RDTSCP },
	{ SECONDARY_EXEC_ENABLE_RDTSCP, X86_FEATURE_RDPID },
	{ SECONDARY_EXEC_ENABLE_INVPCID, X86_FEATURE_INVPCID },
	{ SECONDARY_EXEC_XSAVES, X86_FEATURE_XSAVES },
	{ SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE, X86_FEATURE_WAITPKG },
};

static int vmx_setup(struct keel_ops *ops, const char **why)
{
	struct keel_hw_caps *caps = &ops->caps;
	unsigned int i;
	int err;

	*why = vmx_missing(caps, &err);
	if (*why)
		return err;

	caps->vcpu_size = sizeof(struct vmx_vcpu);
	caps->exit_name = vmx_exit_name;
	caps->nr_exits = VMX_EXIT_SLOTS;
	caps->efer_allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	caps->mmu_fmt = &ept_format;
	caps->mcg_caps = MCG_CMCI_P | MCG_LMCE_P;
	caps->mcg_guest = ~0ULL;
	caps->foreign[0] = 0x68747541;		/* "Auth", AMD: SYSCALL in 32-bit code */
	caps->foreign[1] = 0x6f677948;		/* "Hygo" */
	caps->foreign_calls[0] = caps->foreign_calls[1] = 0x05;
	caps->feat_ctl = true;
	caps->xfd = true;
	caps->tsc_scaling = vmx_has.cpu2_ctl & SECONDARY_EXEC_TSC_SCALING;
	caps->max_tsc_ratio = ~0ULL;
	caps->tsc_frac_bits = 48;
	for (i = 0; i < ARRAY_SIZE(guest_insns); i++)
		if (!(vmx_has.cpu2_ctl & guest_insns[i].ctl))
			caps->features_off[guest_insns[i].feature / 32] |= BIT(guest_insns[i].feature & 31);
	/* What an emulated guest is to be interrupted by is not the CPU's to deliver. */
	vmx_has.apicv = apicv && caps->two_dim && !(VMX_APICV & ~vmx_has.cpu2_ctl);
	vmx_has.cpu2_ctl &= ~VMX_APICV;
	apicv = vmx_has.apicv;
	caps->lapic = vmx_has.apicv ? &vmx_lapic_hw : NULL;
	/* The two belong together; on with a guest's LAPIC. */
	vmx_has.posted = posted && KEEL_POSTED_VECTOR && vmx_has.apicv && vmx_has.pin_ctl & PIN_BASED_POSTED_INTR &&
			 vmx_has.exit_ctl & VM_EXIT_ACK_INTR_ON_EXIT;
	vmx_has.pin_ctl &= ~PIN_BASED_POSTED_INTR;
	vmx_has.exit_ctl &= ~VM_EXIT_ACK_INTR_ON_EXIT;
	posted = caps->takes_irqs = vmx_has.posted;
	rdmsrq(MSR_IA32_VMX_CR4_FIXED0, vmx_has.cr4_fixed0);
	if (!vmx_host_setup()) {
		*why = "this CPU never comes back from a guest of kvm.ko's";
		return -EBUSY;
	}
	vmx_perf_setup();

	err = vmx_alloc();
	if (err) {
		vmx_free();
		*why = "out of memory";
	}
	return err;
}

static const struct kvm_nested_state vmx_nested_none = {
	.format = KVM_STATE_NESTED_FORMAT_VMX, .size = sizeof(vmx_nested_none),
	.hdr.vmx = { .vmxon_pa = ~0ULL, .vmcs12_pa = ~0ULL },
};

struct keel_ops vmx_ops = {
	.caps.name		= "VMX",
	.caps.pmu		= &vmx_pmu_hw,
	.caps.nested_none	= &vmx_nested_none,
	.setup			= vmx_setup,
	.unsetup		= vmx_free,
	.cpu_enable		= vmx_cpu_enable,
	.cpu_disable		= vmx_cpu_disable,
	.cpu_emergency		= vmx_cpu_emergency,
	.vm_init		= vmx_vm_init,
	.vm_destroy		= vmx_vm_destroy,
	.vcpu_init		= vmx_vcpu_init,
	.vcpu_destroy		= vmx_vcpu_destroy,
	.vcpu_reset		= vmx_vcpu_reset,
	.load			= vmx_load,
	.put			= vmx_put,
	.begin			= vmx_begin,
	.end			= vmx_end,
	.enter			= vmx_enter,
	.take_irq		= vmx_take_irq,
	.exit_fast		= vmx_exit_fast,
	.exit_slow		= vmx_exit_slow,
	.cache_reg		= vmx_cache_reg,
	.get_segment		= vmx_get_segment,
	.set_segment		= vmx_set_segment,
	.seg_base		= vmx_seg_base,
	.cs_mode		= vmx_cs_mode,
	.cpl			= vmx_cpl,
	.get_dt			= vmx_get_dt,
	.set_dt			= vmx_set_dt,
	.set_cr0		= vmx_set_cr0,
	.set_cr3		= vmx_set_cr3,
	.set_cr4		= vmx_set_cr4,
	.set_efer		= vmx_set_efer,
	.regs_given		= vmx_regs_given,
	.get_dr6		= vmx_get_dr6,
	.set_dr6		= vmx_set_dr6,
	.set_dr7		= vmx_set_dr7,
	.get_msr		= vmx_get_msr,
	.set_msr		= vmx_set_msr,
	.update_intercepts	= vmx_update_intercepts,
	.inject			= vmx_inject,
	.cancel_inject		= vmx_cancel_inject,
	.event_blocked		= vmx_event_blocked,
	.open_window		= vmx_open_window,
	.close_window		= vmx_close_window,
	.get_shadow		= vmx_get_shadow,
	.set_shadow		= vmx_set_shadow,
	.set_tpr_threshold	= vmx_set_tpr_threshold,
	.get_nmi_mask		= vmx_get_nmi_mask,
	.set_nmi_mask		= vmx_set_nmi_mask,
	.notify			= vmx_notify,
	.load_root		= vmx_load_root,
	.flush_tlb		= vmx_flush_tlb,
	.can_enter		= vmx_can_enter,
	.set_tsc		= vmx_set_tsc,
	.next_rip		= vmx_next_rip,
	.hypercall_insn		= vmx_hypercall_insn,
	.dump			= vmx_dump,
};
