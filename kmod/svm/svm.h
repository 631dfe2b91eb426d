/* SPDX-License-Identifier: GPL-2.0-only */
/* svm.h - AMD SVM: what the files of this room share. APM volume 2, chapter 15. */
#ifndef KEEL_SVM_H
#define KEEL_SVM_H

#include <asm/asm.h>
#include <asm/io.h>
#include <asm/svm.h>
#include <asm/trapnr.h>
#include "mmu/pte.h"
#include "ops.h"
#include "page.h"

/* VMCB clean bits, APM 15.15.3: state the CPU may keep from the last VMRUN of this VMCB. */
enum svm_clean {
	CLEAN_INTERCEPTS	= BIT(0),	/* intercepts, TSC offset, pause filter */
	CLEAN_PERM		= BIT(1),	/* addresses of the I/O and MSR permission maps */
	CLEAN_ASID		= BIT(2),
	CLEAN_INTR		= BIT(3),	/* int_ctl, int_vector */
	CLEAN_NPT		= BIT(4),	/* nested CR3, guest PAT */
	CLEAN_CR		= BIT(5),	/* CR0, CR3, CR4, EFER */
	CLEAN_DR		= BIT(6),
	CLEAN_DT		= BIT(7),	/* GDT, IDT */
	CLEAN_SEG		= BIT(8),	/* CS, DS, SS, ES, CPL */
	CLEAN_CR2		= BIT(9),
	CLEAN_ALL		= GENMASK(9, 0),
};

struct svm_vcpu {
	struct keel_vcpu vcpu;		/* first: the backend's object is the generic one */
	struct vmcb *vmcb;
	phys_addr_t vmcb_pa;
	u32 clean;			/* enum svm_clean the next VMRUN may rely on */
	u32 asid;
	u64 asid_generation;		/* 0: needs a new ASID */
	int asid_cpu;
	u64 next_rip;			/* told by the exit itself (IN/OUT), 0 if not */
	u8 tpr_class;			/* V_TPR as last written or read */
	bool irq_window;
	/* NMI window without hardware help: see inject.c */
	bool nmi_masked;
	u64 iret_rip;
	u64 dr6;			/* MOV DR and #DB exit: the guest's never is in the CPU */
	union {				/* what an exit is to be looked at for, so that one look tells that there is nothing */
		struct {
			bool iret_started;
			bool step;		/* TF is ours */
			bool in_shadow;		/* the interrupt shadow, for a CPU that loses it: see inject.c */
			bool unused;
		};
		u32 watched;
	};
	bool step_tf;			/* the guest's own TF meanwhile */
	bool step_popped;		/* an IRET was stepped over: TF is what it has brought */
	bool shadow_lost;		/* it did */
	u64 shadow_rip;
	u64 tsc_ratio;
	u32 sysenter_high[2];		/* of SYSENTER_ESP and SYSENTER_EIP, for guests that take this for a CPU of Intel's */
	u16 host_ds, host_es;		/* between begin and end, of a task with an LDT */
	u64 inject_rip;			/* RIP when an event was last injected */
	u64 host_debugctl;		/* between begin and end */
};

static inline struct svm_vcpu *to_svm(struct keel_vcpu *vcpu)
{
	return container_of(vcpu, struct svm_vcpu, vcpu);
}

/* Newer kernels make one field of the code and the sign's extension above it. */
static inline u32 svm_exit_code(const struct vmcb_control_area *c)
{
	return c->exit_code;
}

/*
 * Is the guest in an interrupt shadow?  Newer CPUs write RFLAGS.IF beside that bit at each exit (APM appendix B), which none of
 * the lab's emulators does.
 */
static inline bool svm_in_shadow(const struct vmcb_control_area *c)
{
	return c->int_state & SVM_INTERRUPT_SHADOW_MASK;
}

static inline void svm_touch(struct svm_vcpu *svm, enum svm_clean bits)
{
	svm->clean &= ~bits;
}

static inline void svm_intercept(struct svm_vcpu *svm, unsigned int bit, bool on)
{
	u32 *word = &svm->vmcb->control.intercepts[bit / 32];
	u32 val = on ? *word | BIT(bit % 32) : *word & ~BIT(bit % 32);

	if (val != *word) {
		*word = val;
		svm_touch(svm, CLEAN_INTERCEPTS);
	}
}

/* What keel has for each CPU. */
struct svm_cpu {
	struct page *hsave;	/* the CPU's own host save area, MSR_VM_HSAVE_PA; shared: the VMCB that flushes */
	struct page *host;	/* VMSAVE's picture of the host, for the VMLOAD after an exit */
	u64 asid_generation;	/* starts at 1; 0 is a vCPU's "none" */
	u32 asid_next;
	u64 tsc_ratio;		/* in MSR_AMD64_TSC_RATIO, 0: unknown */
	u64 tsc_found;		/* shared: what was there before, 0: still is */
	bool enabled;		/* EFER.SVME was set by us */
};
DECLARE_PER_CPU(struct svm_cpu, svm_cpu);

/* What the CPU has, of the features of CPUID 8000000A that this room uses. */
struct svm_features {
	bool nrips, tsc_scale, cet;
	u32 nr_asids;
	u32 kept;	/* bit per keel_reg: what a guest changes only through us, and what svm_enter() reads at each exit */
};
extern struct svm_features svm_has;

/* setup.c */
int svm_setup(struct keel_ops *ops, const char **why);
void svm_unsetup(void);
const char *svm_cpu_enable(bool shared);
void svm_cpu_disable(bool shared);
void svm_cpu_emergency(void);
void svm_assign_asid(struct svm_vcpu *svm);
/* Preemption off: is the one that it had on this CPU still its own, with nothing to flush? */
static __always_inline bool svm_keeps_asid(const struct svm_vcpu *svm)
{
	return svm->asid_cpu == smp_processor_id() && svm->asid_generation == this_cpu_read(svm_cpu.asid_generation);
}

void svm_restart_asids(void);
void svm_load_tsc_ratio(struct svm_vcpu *svm);
DECLARE_PER_CPU(phys_addr_t, svm_host_pa);	/* of VMSAVE's picture of the host */
/*
 * To set up SEV-SNP the kernel's driver takes the host save area from each CPU, by an IPI, at any time; VMRUN raises #GP then,
 * at a place where the host's GS is not loaded.  CPUs without SNP have nobody who would.
 */
#define SVM_CPU_HAS_SNP	BIT(4)		/* CPUID leaf 0x8000001f EAX */
DECLARE_STATIC_KEY_FALSE(svm_may_lose_area);
static __always_inline bool svm_lost_area(void)
{
	return static_branch_unlikely(&svm_may_lose_area) && !keel_rdmsr(MSR_VM_HSAVE_PA);
}

static inline phys_addr_t svm_host_save_pa(void)
{
	return __this_cpu_read(svm_host_pa);
}

extern phys_addr_t svm_iopm_pa, svm_msrpm_pa[KEEL_NR_MSR_MAPS];

/* vmcb.c */
int svm_vm_init(struct keel_vm *vm);
void svm_vm_destroy(struct keel_vm *vm);
int svm_vcpu_init(struct keel_vcpu *vcpu);
void svm_vcpu_destroy(struct keel_vcpu *vcpu);
void svm_vcpu_reset(struct keel_vcpu *vcpu, bool init);
void svm_cache_reg(struct keel_vcpu *vcpu, unsigned int reg);
void svm_get_segment(struct keel_vcpu *vcpu, struct kvm_segment *s, unsigned int seg);
void svm_set_segment(struct keel_vcpu *vcpu, const struct kvm_segment *s, unsigned int seg);
u64 svm_seg_base(struct keel_vcpu *vcpu, unsigned int seg);
u32 svm_cs_mode(struct keel_vcpu *vcpu);
int svm_cpl(struct keel_vcpu *vcpu);
void svm_get_dt(struct keel_vcpu *vcpu, struct kvm_dtable *dt, bool idt);
void svm_set_dt(struct keel_vcpu *vcpu, const struct kvm_dtable *dt, bool idt);
void svm_set_cr0(struct keel_vcpu *vcpu, u64 val);
void svm_set_cr3(struct keel_vcpu *vcpu, u64 val);
void svm_set_cr4(struct keel_vcpu *vcpu, u64 val);
void svm_set_efer(struct keel_vcpu *vcpu, u64 val);
void svm_regs_given(struct keel_vcpu *vcpu);
u64 svm_get_dr6(struct keel_vcpu *vcpu);
void svm_set_dr6(struct keel_vcpu *vcpu, u64 val);
void svm_set_dr7(struct keel_vcpu *vcpu, u64 val);
int svm_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val);
int svm_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val);
void svm_update_intercepts(struct keel_vcpu *vcpu);
void svm_load_root(struct keel_vcpu *vcpu, u64 root_pa);
void svm_flush_tlb(struct keel_vcpu *vcpu);
void svm_set_tsc(struct keel_vcpu *vcpu, u64 offset, u64 ratio);
void svm_dump(struct keel_vcpu *vcpu);

/* pmu.c */
extern const struct keel_pmu_hw svm_pmu_hw;

/* inject.c */
void svm_inject(struct keel_vcpu *vcpu, const struct keel_event *ev);
void svm_cancel_inject(struct keel_vcpu *vcpu);
bool svm_event_blocked(struct keel_vcpu *vcpu, enum keel_event_type type);
void svm_open_window(struct keel_vcpu *vcpu, enum keel_event_type type);
void svm_close_window(struct keel_vcpu *vcpu);
u8 svm_get_shadow(struct keel_vcpu *vcpu);
void svm_set_shadow(struct keel_vcpu *vcpu, u8 mask);
void svm_set_tpr_threshold(struct keel_vcpu *vcpu, int irr_class);
bool svm_get_nmi_mask(struct keel_vcpu *vcpu);
void svm_set_nmi_mask(struct keel_vcpu *vcpu, bool masked);
enum keel_event_type svm_vectoring_type(u32 info);
void svm_requeue_vectoring(struct svm_vcpu *svm);
void svm_iret_seen(struct svm_vcpu *svm);
void svm_step_end(struct svm_vcpu *svm);
u64 svm_step_done(struct svm_vcpu *svm, u64 dr6);
void svm_keep_shadow(struct svm_vcpu *svm);

/* exit.c */
void svm_begin(struct keel_vcpu *vcpu);
void svm_end(struct keel_vcpu *vcpu);
void svm_enter(struct keel_vcpu *vcpu);
int svm_exit_fast(struct keel_vcpu *vcpu);
int svm_exit_slow(struct keel_vcpu *vcpu);
u64 svm_next_rip(struct keel_vcpu *vcpu);
void svm_hypercall_insn(u8 insn[3]);
#define SVM_NPF_FINAL	BIT_ULL(32)	/* EXITINFO1: the access itself faulted, not a page table's (APM 15.25.6) */
#define SVM_NPF_SHSTK	BIT_ULL(6)	/* and was a shadow stack's (18.9) */
#define SVM_EXIT_SLOTS	0xc1		/* codes below 0xc0, and the last for nested page faults */
const char *svm_exit_name(unsigned int slot);

/* enter.S: GPRs of regs[] in, VMRUN, GPRs out; RAX and RSP are in the VMCB.  IRQs off, GIF clear. */
asmlinkage void svm_vmrun(u64 *regs, u64 vmcb_pa, u64 host_pa);

#endif
