/* SPDX-License-Identifier: GPL-2.0-only */
/* vmx.h - Intel VMX: what the files of this room share. SDM volume 3C, chapters 24 to 29. */
#ifndef KEEL_VMX_H
#define KEEL_VMX_H

#include <asm/asm.h>
#include <asm/desc_defs.h>
#include <asm/io.h>
#include <asm/trapnr.h>
#include <asm/vmx.h>
#include "mmu/pte.h"
#include "ops.h"

/* Fields that are held in memory while the VMCS is not current: window.c.  Those with a name are read at each exit, or many. */
enum { VMX_HELD_QUALIFICATION, VMX_HELD_INSN_LEN, VMX_HELD_SHADOW, VMX_HELD_GPA, VMX_HELD_INTR_INFO, VMX_HELD = 16 };
struct vmx_held {
	u64 val[VMX_HELD];
	u16 valid, dirty;		/* bit for each */
};

struct vmx_vcpu {
	struct keel_vcpu vcpu;		/* first: the backend's object is the generic one */
	struct page *vmcs;
	struct list_head loaded;	/* on the list of VMCSs its CPU may have cached */
	int vmcs_cpu;			/* that CPU; -1: in memory only, clear */
	int last_cpu;			/* it was loaded on last, -1: none */
	bool launched;
	bool flush;			/* this guest's translations must go before the next entry */
	union {				/* all that is to be done besides, so that one look tells that there is nothing */
		struct {
			u8 before_entry;	/* VMX_LOAD_TSC and so on */
			bool window;		/* another's VMCS is current, ours in windows only: window.c */
			u8 after_exit;		/* VMX_DRAIN_PML and so on */
		};
		u32 work;
	};
	bool shadow_set;		/* an interrupt shadow was made by us: see vmx_flush_regs() */
	u16 vpid;			/* 0: none left, every entry and exit flushes */
	u64 eptp;
	u64 *pml;			/* page-modification log: here the CPU lists what it writes, NULL: it cannot */
	bool pml_on;
	u8 *vapic;			/* virtual-APIC page: the LAPIC's registers, of which CR8 is one; NULL: no LAPIC here */
	bool apicv_on;			/* the CPU runs the LAPIC */
	bool posting;			/* and takes what is posted while the guest runs; read by senders */
	struct irq_inbox *inbox;
	struct vmx_held held;

	/* Copies of what the VMCS holds, so that it is written only when it changes. */
	u32 cpu_ctl;			/* CPU_BASED_VM_EXEC_CONTROL */
	u32 cpu2_ctl;			/* SECONDARY_VM_EXEC_CONTROL, but for pml_on and apicv_on */
	u32 entry_ctl, exit_ctl;
	u32 tpr_threshold;
	u64 cr0_owned, cr4_owned;	/* bits the guest changes without an exit */
	u64 dr6;			/* MOV DR and #DB exit: the guest's never is in the CPU */
	u64 tsc_offset, tsc_ratio;
	u64 cstar;
	unsigned long host_cr3, host_cr4, host_fs_base;

	/* The last exit. */
	u32 reason;			/* EXIT_REASON_*, VMX_EXIT_REASONS_FAILED_VMENTRY with it */
	u32 intr_info;			/* valid for EXCEPTION_NMI only */
	u32 idt_info;
	u32 insn_error;			/* VM_INSTRUCTION_ERROR if the entry itself failed, else 0 */

	/* MSRs the CPU does not switch: swapped once per stay in the fast loop. */
	u64 msr_guest[4], host_kernel_gs;
	const u64 *host_syscall;	/* the first three as they were before: constants, or what was found */
	u64 found_syscall[3];
	bool syscall_loaded;		/* between begin and end: the first three are in the CPU */
	union {				/* the task's; nearly always none */
		struct {
			u16 host_ds, host_es, host_fs, host_gs;
		};
		u64 host_selectors;
	};
	u64 host_debugctl;		/* before the last entry */
	u64 freeze_in_smm;		/* of that, in the guest's, too, which does not see it */
	u64 host_umwait;
	u64 tsx_ctrl, host_tsx_ctrl;	/* what the guest is to run with; what was there before, if that is not the same */
	struct vmx_msr_area *area;	/* MSRs exchanged with the host's perf: pmu.c */
	u8 area_used;
	unsigned long irqs_taken;	/* when perf was last asked what to exchange; VMX_ASK_PERF: ask */
	struct desc_ptr host_gdt;	/* of the CPU it is loaded on */
};

#define VMX_ASK_PERF		(~0UL)

/* What a next entry has to do first: once... */
#define VMX_LOAD_TSC		BIT(0)	/* tsc_offset, tsc_ratio are not in the VMCS yet */
#define VMX_STOP_PEBS		BIT(1)	/* ...or each time: pmu.c */
#define VMX_NOTIFY		BIT(2)	/* apicv.c */
#define VMX_UMWAIT		BIT(3)	/* ...each time, with its pair below: the guest has another UMWAIT_CONTROL */
#define VMX_ENTRY_WORK		0x00ffff
/* What an exit has to do each time. */
#define VMX_DRAIN_PML		BIT(0)
#define VMX_DEBUGCTL		BIT(1)	/* host.c */
#define VMX_UMWAIT_BACK		BIT(2)
#define VMX_EXIT_WORK		0xffff00

static inline struct vmx_vcpu *to_vmx(struct keel_vcpu *vcpu)
{
	return container_of(vcpu, struct vmx_vcpu, vcpu);
}

/* What the CPU has, and the controls every vCPU starts from. */
struct vmx_features {
	u32 revision;			/* first word of VMXON regions and VMCSs */
	u32 pin_ctl, cpu_ctl, cpu2_ctl, exit_ctl, entry_ctl;
	u64 cr4_fixed0;			/* CR4 bits that must be 1 in VMX operation */
	u32 kept;			/* bit per keel_reg: what a guest changes only through us */
	bool ept_ad, invept_single, pml, apicv, posted;
	bool global_ctrl;		/* entries and exits can load PERF_GLOBAL_CTRL */
	bool cet;			/* and S_CET, SSP and the table of SSPs */
};
/* What runs a LAPIC, all on or all off. */
#define VMX_APICV	(SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE | SECONDARY_EXEC_APIC_REGISTER_VIRT | \
			 SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY)
#define VMX_PML_ENTRIES	512
extern struct vmx_features vmx_has;
extern u8 *vmx_msr_bitmap[2][KEEL_NR_MSR_MAPS];	/* the second with x2APIC registers that the CPU runs */

/* What a CPU has of VMCSs.  Touched on the CPU only, with IRQs off. */
struct vmx_cpu {
	struct page *vmxon;
	struct list_head loaded;	/* vmx_vcpu.loaded */
	struct vmx_vcpu *current_vmcs;	/* own mode */
	struct vmx_vcpu *user;		/* shared, all three: the vCPU that is, or was last, loaded here */
	u64 mine;			/* the VMCS that keel made current and left so last */
	u64 found;			/* and the one that was so when a window was opened */
	bool enabled;			/* VMXON was ours, or others' is borrowed */
};
DECLARE_PER_CPU(struct vmx_cpu, vmx_cpu);
#define VMX_NO_VMCS	(~0ULL)		/* what VMPTRST says when none is current */

/* ------------------------------------------------------------- VMCS access
 * The VMCS reached is the one current on this CPU: every operation runs with its vCPU loaded.  Beside kvm.ko that may be
 * one of kvm's: then the way is by a window (window.c), unless the caller is in one, says so (_here), or is in the fast loop
 * and needs none.
 *
 * A reboot turns VMX off under whoever is still in here; the instructions raise #UD then.  They are stepped over by the
 * exception table: nothing runs any more that what they did not do could matter to.
 */
void __cold vmx_write_failed(unsigned long field, u64 val);

DECLARE_PER_CPU(bool, vmx_guarded);
/* Called as below. */
u64 vmx_guarded_read(unsigned long field);
void vmx_guarded_write(unsigned long field, u64 val);
static __always_inline bool vmx_is_guarded(void)
{
	return keel_hw_shared() && this_cpu_read(vmx_guarded);
}

/* Not checked: what is read is there on every CPU that keel loads on.  What is written is not always. */
static __always_inline u64 vmcs_read_here(unsigned long field)
{
	u64 val;

	asm volatile("1: vmread %1, %0\n2:\n" _ASM_EXTABLE(1b, 2b) : "=r" (val) : "r" (field) : "cc");
	return val;
}

static __always_inline void vmcs_write_here(unsigned long field, u64 val)
{
	bool failed;

	asm volatile("1: vmwrite %1, %2\n2:\n" _ASM_EXTABLE(1b, 2b) : "=@ccna" (failed) : "r" (val), "r" (field));
	if (unlikely(failed))
		vmx_write_failed(field, val);
}

/* enter.S: they leave all registers as they are but the answer's, so that no caller has to save any in case it comes here. */
static __always_inline u64 vmcs_read(unsigned long field)
{
	u64 val = field;

	if (!vmx_is_guarded())
		return vmcs_read_here(field);
	asm volatile("call vmx_guarded_read_saved" : "+a" (val), ASM_CALL_CONSTRAINT : : "cc");
	return val;
}

static __always_inline void vmcs_write(unsigned long field, u64 val)
{
	if (!vmx_is_guarded())
		vmcs_write_here(field, val);
	else
		asm volatile("call vmx_guarded_write_saved" : ASM_CALL_CONSTRAINT : "a" (field), "d" (val) : "cc");
}

/* Around code with many accesses that does not sleep: one window for all. */
void __vmx_block_begin(unsigned long *flags);
void __vmx_block_end(unsigned long flags);
static __always_inline bool vmx_block_begin(unsigned long *flags)
{
	bool guarded = vmx_is_guarded();

	if (guarded)
		__vmx_block_begin(flags);
	return guarded;
}

static __always_inline void vmx_block_end(bool begun, unsigned long flags)
{
	if (begun)
		__vmx_block_end(flags);
}

/* A bit of a control of which there is a copy. */
static __always_inline void vmx_change_ctl(u32 *copy, unsigned long field, u32 bit, bool on)
{
	u32 val = on ? *copy | bit : *copy & ~bit;

	if (val == *copy)
		return;
	*copy = val;
	vmcs_write(field, val);
}

static inline void vmx_cpu_ctl(struct vmx_vcpu *vmx, u32 bit, bool on)
{
	vmx_change_ctl(&vmx->cpu_ctl, CPU_BASED_VM_EXEC_CONTROL, bit, on);
}

static inline void vmx_exit_ctl(struct vmx_vcpu *vmx, u32 bit, bool on)
{
	vmx_change_ctl(&vmx->exit_ctl, VM_EXIT_CONTROLS, bit, on);
}

static inline void vmx_entry_ctl(struct vmx_vcpu *vmx, u32 bit, bool on)
{
	vmx_change_ctl(&vmx->entry_ctl, VM_ENTRY_CONTROLS, bit, on);
}

/* setup.c */
const char *vmx_cpu_enable(bool shared);
void vmx_cpu_disable(bool shared);
void vmx_cpu_emergency(void);
void vmx_vmcs_load(struct vmx_vcpu *vmx, int cpu);	/* preemption off */
void vmx_vmcs_forget(struct vmx_vcpu *vmx);		/* clear it wherever it is; may sleep */
void vmx_ptrld(u64 pa);
void vmx_make_current(struct vmx_vcpu *vmx, u64 found);	/* IRQs off, not cached elsewhere; @found is so now */
void vmx_clear_here(struct vmx_vcpu *vmx);		/* IRQs off, cached here */
u16 vmx_vpid_alloc(void);
void vmx_vpid_free(u16 vpid);
void vmx_flush_context(struct vmx_vcpu *vmx);

/* window.c */
void vmx_shared_load(struct vmx_vcpu *vmx, int cpu);	/* preemption off */
void vmx_window_enter(struct vmx_vcpu *vmx);		/* IRQs off */
void vmx_window_exit(struct vmx_vcpu *vmx);		/* IRQs off */
const char *vmx_borrow(void);

/* vmcs.c */
int vmx_vm_init(struct keel_vm *vm);
void vmx_vm_destroy(struct keel_vm *vm);
int vmx_vcpu_init(struct keel_vcpu *vcpu);
void vmx_vcpu_destroy(struct keel_vcpu *vcpu);
void vmx_vcpu_reset(struct keel_vcpu *vcpu, bool init);
bool vmx_can_enter(struct keel_vcpu *vcpu);
void vmx_load(struct keel_vcpu *vcpu, int cpu);
void vmx_put(struct keel_vcpu *vcpu);
void vmx_cache_reg(struct keel_vcpu *vcpu, unsigned int reg);
void vmx_get_segment(struct keel_vcpu *vcpu, struct kvm_segment *s, unsigned int seg);
void vmx_set_segment(struct keel_vcpu *vcpu, const struct kvm_segment *s, unsigned int seg);
u64 vmx_seg_base(struct keel_vcpu *vcpu, unsigned int seg);
u32 vmx_cs_mode(struct keel_vcpu *vcpu);
int vmx_cpl(struct keel_vcpu *vcpu);
void vmx_get_dt(struct keel_vcpu *vcpu, struct kvm_dtable *dt, bool idt);
void vmx_set_dt(struct keel_vcpu *vcpu, const struct kvm_dtable *dt, bool idt);
void vmx_set_cr0(struct keel_vcpu *vcpu, u64 val);
void vmx_set_cr3(struct keel_vcpu *vcpu, u64 val);
void vmx_set_cr4(struct keel_vcpu *vcpu, u64 val);
void vmx_set_efer(struct keel_vcpu *vcpu, u64 val);
void vmx_regs_given(struct keel_vcpu *vcpu);
u64 vmx_get_dr6(struct keel_vcpu *vcpu);
void vmx_set_dr6(struct keel_vcpu *vcpu, u64 val);
void vmx_set_dr7(struct keel_vcpu *vcpu, u64 val);
int vmx_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val);
int vmx_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val);
void vmx_update_intercepts(struct keel_vcpu *vcpu);
void vmx_load_root(struct keel_vcpu *vcpu, u64 root_pa);
void vmx_flush_tlb(struct keel_vcpu *vcpu);
void vmx_set_tsc(struct keel_vcpu *vcpu, u64 offset, u64 ratio);
void vmx_dump(struct keel_vcpu *vcpu);
void vmx_write_cpu2(struct vmx_vcpu *vmx);

/* pmu.c */
extern const struct keel_pmu_hw vmx_pmu_hw;
DECLARE_STATIC_KEY_FALSE(vmx_perf_used);	/* the host's perf has counters that guests are not to drive */
void vmx_perf_setup(void);
int vmx_perf_init(struct vmx_vcpu *vmx);
void vmx_perf_exchange(struct vmx_vcpu *vmx);	/* IRQs off */
/* May the answer be another than before the last entry? */
static __always_inline bool vmx_perf_stale(const struct vmx_vcpu *vmx)
{
	return !KEEL_PERF_TELLS || vmx->irqs_taken != keel_irqs_taken();
}

/* apicv.c */
extern const struct keel_lapic_hw vmx_lapic_hw;
void vmx_posted_init(struct vmx_vcpu *vmx);
void vmx_notify(struct keel_vcpu *vcpu);
void vmx_notify_again(struct vmx_vcpu *vmx);
void vmx_take_irq(struct keel_vcpu *vcpu);
int vmx_eoi_exit(struct keel_vcpu *vcpu);
int vmx_apic_write_exit(struct keel_vcpu *vcpu);

/* inject.c */
void vmx_inject(struct keel_vcpu *vcpu, const struct keel_event *ev);
void vmx_cancel_inject(struct keel_vcpu *vcpu);
bool vmx_event_blocked(struct keel_vcpu *vcpu, enum keel_event_type type);
void vmx_open_window(struct keel_vcpu *vcpu, enum keel_event_type type);
void vmx_close_window(struct keel_vcpu *vcpu);
u8 vmx_get_shadow(struct keel_vcpu *vcpu);
void vmx_set_shadow(struct keel_vcpu *vcpu, u8 mask);
void vmx_set_tpr_threshold(struct keel_vcpu *vcpu, int irr_class);
bool vmx_get_nmi_mask(struct keel_vcpu *vcpu);
void vmx_set_nmi_mask(struct keel_vcpu *vcpu, bool masked);
void vmx_requeue_vectoring(struct vmx_vcpu *vmx);

/* host.c */
bool vmx_host_setup(void);
void vmx_host_constant(void);
void vmx_host_cpu(struct vmx_vcpu *vmx);
void vmx_host_debugctl(struct vmx_vcpu *vmx);	/* before an entry: perf may have changed it */
void vmx_begin(struct keel_vcpu *vcpu);
void vmx_end(struct keel_vcpu *vcpu);
void vmx_swap_umwait(struct vmx_vcpu *vmx);	/* the guest's or the host's may be another now */
void vmx_update_tsx_ctrl(struct vmx_vcpu *vmx);
int vmx_switched_msr(u32 msr);	/* index in msr_guest[], -1 */

/* exit.c */
void vmx_enter(struct keel_vcpu *vcpu);
int vmx_exit_fast(struct keel_vcpu *vcpu);
int vmx_exit_slow(struct keel_vcpu *vcpu);
u64 vmx_next_rip(struct keel_vcpu *vcpu);
void vmx_hypercall_insn(u8 insn[3]);
#define VMX_EXIT_SLOTS	87
const char *vmx_exit_name(unsigned int slot);

/*
 * enter.S: GPRs of regs[] in, VMLAUNCH or VMRESUME, GPRs out; RSP and RIP are in the VMCS.  IRQs off.
 * Nonzero: the CPU refused, VM_INSTRUCTION_ERROR says why.
 */
asmlinkage int vmx_vmenter(u64 *regs, bool launched);
extern char vmx_vmexit[];		/* HOST_RIP */
extern char vmx_int[];			/* a piece of code for each vector that devices may have, which is INT */
#define VMX_INT_SIZE	16

#endif
