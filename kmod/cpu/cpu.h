/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cpu.h - what makes a vCPU this model of CPU: CPUID, MSRs, FPU state, debug registers, clocks.
 */
#ifndef KEEL_CPU_H
#define KEEL_CPU_H

#include <linux/bits.h>
#include <linux/compiler.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <asm/cpufeatures.h>
#include "words.h"

/* -------------------------------------------------------------- features.c */
bool keel_offers(unsigned int feature);		/* X86_FEATURE_* or KEEL_FEATURE_*: may a guest have it here? */
u64 keel_arch_capabilities(void);		/* what of MSR_IA32_ARCH_CAPABILITIES is true of a guest here */

/* ----------------------------------------------------------------- cpuid.c */
struct keel_cpu_model {
	struct kvm_cpuid_entry2 *entries;	/* sorted by (function, index) */
	int nent;
	u8 memo[32];		/* number of the entry last found for what hashes there, plus one */
	/* Leaves above the highest read as zero, and what is reserved is ignored (AMD), or like the highest, and is an error (Intel). */
	bool lenient;
	u32 basic_max;		/* highest basic leaf */
	u32 caps[KEEL_NR_WORDS];	/* guest's feature words: the kernel's numbers of X86_FEATURE_*, then keel's own */
	u8 maxphyaddr;		/* what CPUID says, within reason; until it says anything, KEEL_PHYADDR_UNSAID */
	u64 xcr0_allowed, xss_allowed;
	u64 cr4_reserved;	/* bits #GP'd */
	u64 efer_reserved;
	bool foreign;		/* it is another vendor's CPU, with fast system calls that this one has not */
	u32 pv_features;	/* BIT(KVM_FEATURE_*) */
	bool is_hyperv;		/* the guest is told so... */
	u32 hv[HV_WORDS];	/* ...and what it may do */
};

#define KEEL_PHYADDR_UNSAID	36	/* of a CPU that has PAE and does not tell: SDM, CPUID leaf 0x80000008 */

/* Module load, after keel_fpu_setup() and the backend's setup: what host and backend can do; also msr.c's tables. */
void keel_cpuid_setup(void);
/* CPUID as the guest sees it: EAX, EBX, ECX, EDX in and out; never sleeps. */
void keel_cpuid(struct keel_vcpu *vcpu, u32 r[4]);
void keel_cpuid_unsaid(struct keel_vcpu *vcpu);	/* a new one: none so far */
void keel_cpuid_free(struct keel_vcpu *vcpu);
bool keel_guest_has_mwait(struct keel_vcpu *vcpu);
bool keel_mwait_is_ud(struct keel_vcpu *vcpu);
bool keel_cpuid_faults(struct keel_vcpu *vcpu);	/* would the instruction, here? */
SYS_IOCTL(keel_get_supported_cpuid);
/* A list for userspace, as the ioctls about CPUID give it. */
long keel_copy_cpuid(struct kvm_cpuid2 __user *user, const struct kvm_cpuid_entry2 *entries, unsigned int n);
SYS_IOCTL(keel_get_emulated_cpuid);
VCPU_IOCTL(keel_set_cpuid);
VCPU_IOCTL(keel_set_cpuid2);
int keel_cpuid_set(struct keel_vcpu *vcpu, const struct kvm_cpuid_entry2 *entries, unsigned int n);	/* are copied */
VCPU_IOCTL(keel_get_cpuid2);
u64 keel_supported_xcr0(void);
u64 keel_supported_xss(void);
bool keel_fpu_has_cet(void);		/* XSS has both of its parts */
u64 keel_permitted_xcr0(void);		/* to this process */
SYS_IOCTL(keel_sys_has_attr);		/* KVM_{HAS,GET}_DEVICE_ATTR on the node: KVM_X86_XCOMP_GUEST_SUPP */
SYS_IOCTL(keel_sys_get_attr);
u64 keel_host_cr4_mask(void);	/* CR4 bits a guest may have at all on this host */

/* ------------------------------------------------------------------- msr.c */
#define KEEL_MCE_BANKS	32
#define KEEL_VAR_MTRRS	8
#define KEEL_FIX_MTRRS	11

struct keel_msrs {	/* values of MSRs that live in memory only */
	u64 pat;		/* pat and tsc_aux: the backend is told through set_msr too */
	u64 misc_enable;
	u64 power_ctl;
	u64 tsc_aux;
	u64 tsc_adjust;
	u64 arch_capabilities;
	u64 umwait_control, tsx_ctrl;	/* the backend is told of these two, too */
	u64 platform_info;
	u64 misc_features;
	u64 ucode_rev;
	u64 de_cfg;
	u64 hwcr;
	u64 smi_count;
	u64 osvw_length, osvw_status;
	u64 debugctl;
	u64 mtrr_def;
	u64 mtrr_fix[KEEL_FIX_MTRRS];
	u64 mtrr_var[KEEL_VAR_MTRRS * 2];	/* base, mask, base, ... */
	u64 mcg_cap, mcg_status, mcg_ctl, mcg_ext_ctl, feat_ctl;
	u64 mce[KEEL_MCE_BANKS * 4];		/* CTL, STATUS, ADDR, MISC of each bank */
	u32 mce_ctl2[KEEL_MCE_BANKS];
};

int keel_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host);	/* 0, 1: #GP / unknown, -EAGAIN: fast loop */
int keel_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host);	/* may be called in the fast loop */
int keel_vmm_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val);		/* by an ioctl for one MSR */
/* RDMSR and WRMSR of the guest: 0, or why they fail, in the ABI's words (KVM_MSR_EXIT_REASON_*), or: */
#define KEEL_MSR_SLOW	BIT(31)	/* the value is not to be had, or set, in the fast loop */
u32 keel_guest_rdmsr(struct keel_vcpu *vcpu, u32 msr, u64 *val);
u32 keel_guest_wrmsr(struct keel_vcpu *vcpu, u32 msr, u64 val);
/* Which MSRs the guest reaches without an exit, beside the backend's choice: bits.  The backend has a bitmap for each set. */
enum {
	KEEL_MSRS_SPEC_CTRL	= 1,	/* KEEL_SPEC_OPEN */
	KEEL_MSRS_CSTATES	= 2,	/* read only: how long its CPU was in which C-state */
	KEEL_MSRS_APERFMPERF	= 4,	/* read only: how fast its CPU has been */
	KEEL_MSRS_CET		= 8,	/* all that keel_cet_open() is about */
	KEEL_MSRS_NONE		= 16,	/* none, alone: each access is put to the VMM's filter */
	KEEL_NR_MSR_MAPS
};
unsigned int keel_msr_map(struct keel_vcpu *vcpu);
/* Those of the sets that are only to be read. */
#define KEEL_NR_OPEN_MSRS	6
extern const struct keel_open_msr {
	u32 msr;
	u8 set;
} keel_open_msrs[KEEL_NR_OPEN_MSRS];
/* msr_filter.c: may the guest do so (KVM_MSR_FILTER_READ, _WRITE)? */
bool keel_msr_filter_allows(struct keel_vcpu *vcpu, u32 msr, u32 access);
VM_IOCTL(keel_set_msr_filter);
void keel_msr_filter_free(struct kvm_msr_filter *filter);
/* As a section of the set-up (snap/setup.c): how large, 0: there is none; NULL: only that.  And set from one. */
size_t keel_msr_filter_setup(const struct keel_vm *vm, void *buf);
long keel_msr_filter_from(struct keel_vm *vm, const void *buf, size_t size);
void keel_msrs_reset(struct keel_vcpu *vcpu, bool init);
VCPU_IOCTL(keel_get_nested_state);
VCPU_IOCTL(keel_set_nested_state);
VCPU_IOCTL(keel_get_one_reg);
VCPU_IOCTL(keel_set_one_reg);
VCPU_IOCTL(keel_get_reg_list);
SYS_IOCTL(keel_get_msr_index_list);
SYS_IOCTL(keel_get_msr_feature_index_list);
SYS_IOCTL(keel_get_system_msrs);
VCPU_IOCTL(keel_get_msrs);
VCPU_IOCTL(keel_set_msrs);
SYS_IOCTL(keel_get_mce_cap_supported);	/* KVM_X86_GET_MCE_CAP_SUPPORTED */
VCPU_IOCTL(keel_setup_mce);		/* KVM_X86_SETUP_MCE */
VCPU_IOCTL(keel_set_mce);		/* KVM_X86_SET_MCE */
/* Sections of the state.  @arg: bytes there are in @buf; the first answers how many it took. */
VCPU_IOCTL(keel_msrs_get_state);
VCPU_IOCTL(keel_msrs_set_state);
size_t keel_msrs_state_size(const struct keel_vcpu *vcpu);
VCPU_IOCTL(keel_mce_get_state);
VCPU_IOCTL(keel_mce_set_state);
void keel_msr_setup(void);		/* called by keel_cpuid_setup() */

/* ------------------------------------------------------------------- pmu.c */
void keel_pmu_setup(void);		/* module load: what there is to give */
u32 keel_pmu_leaf(u32 function, unsigned int reg);	/* what to offer in a leaf about them, EAX to EDX; 0: none such */
u64 keel_pmu_capabilities(void);	/* MSR_IA32_PERF_CAPABILITIES at most */
bool keel_pmu_lists(u32 msr);		/* is that a register a guest may have here? */
int keel_pmu_init(struct keel_vcpu *vcpu);
void keel_pmu_free(struct keel_vcpu *vcpu);
void keel_pmu_reset(struct keel_vcpu *vcpu);	/* may sleep, as all but the registers' */
void keel_pmu_refresh(struct keel_vcpu *vcpu, const struct kvm_cpuid_entry2 *leaf);	/* its CPUID is another */
void keel_pmu_update(struct keel_vcpu *vcpu);	/* KEEL_REQ_PMU */
void keel_pmu_new_thread(struct keel_vcpu *vcpu);	/* vcpu->thread is another */
/* 0, 1: #GP, or -EAGAIN: what the event has counted is not to be had in the fast loop.  Writes never sleep. */
int keel_pmu_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host);
int keel_pmu_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host);
int keel_rdpmc(struct keel_vcpu *vcpu, u32 ecx, u64 *val);
int keel_pmu_caps(void);		/* KVM_CAP_PMU_CAPABILITY */
long keel_pmu_enable_cap(struct keel_vm *vm, u64 arg);
VM_IOCTL(keel_set_pmu_event_filter);
size_t keel_pmu_filter_setup(const struct keel_vm *vm, void *buf);	/* as those of the MSR filter */
long keel_pmu_filter_from(struct keel_vm *vm, const void *buf, size_t size);

/* -------------------------------------------------------------- backdoor.c */
extern bool keel_vmware_backdoor;	/* #GPs are to exit, to: */
int keel_emulate_gp(struct keel_vcpu *vcpu, u32 error);
bool keel_backdoor_opens(enum emul_open what, u32 number);
u64 keel_backdoor_counter(struct keel_vcpu *vcpu, u32 number);	/* one that it opens */

/* ------------------------------------------------------------------- cet.c */
#define KEEL_CET_SWITCHED	5	/* U_CET, PL0_SSP to PL3_SSP */

struct keel_cet {	/* control-flow enforcement: MSRs that no entry and no exit switches */
	bool used;		/* the guest may have got at them: for good */
	bool loaded;		/* between load and save: they are in the CPU */
	u64 guest[KEEL_CET_SWITCHED], host[KEEL_CET_SWITCHED];
};

/* The shadow stack pointer, to the backend's get_msr and set_msr and to keel_cet_*_msr(): a number that no MSR has. */
#define KEEL_MSR_SSP		(~0U)
/*
 * Likewise the traps that the CPU owes the guest a #DB for, where it says so.  They are set with the state of a vCPU, which
 * is then awake.
 */
#define KEEL_MSR_TRAPS		(~1U)

#define KEEL_NR_CET_MSRS	7
extern const u32 keel_cet_msrs[KEEL_NR_CET_MSRS];	/* KEEL_MSRS_CET */
void keel_cet_setup(void);		/* module load, after the backend's setup */
u32 keel_cet_offers(unsigned int x86_feature);	/* the bit of X86_FEATURE_SHSTK, _IBT in its CPUID register, or 0 */
void keel_cet_derive(struct keel_vcpu *vcpu);	/* its CPUID is another */
bool keel_cet_lists(u32 msr);		/* is that a register a guest may have here? */
bool keel_cet_open(struct keel_vcpu *vcpu);	/* may it have the MSRs without an exit? */
/* Preemption off, inside kernel_fpu_begin()/end(), of a guest with cet.used. */
void keel_cet_load(struct keel_vcpu *vcpu);
void keel_cet_save(struct keel_vcpu *vcpu);
int keel_cet_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host);	/* 0, 1: #GP */
int keel_cet_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host);
/* CR4.CET is set: EMUL_CET_*, what is on at this privilege level, and at any. */
u8 keel_cet_tracks(struct keel_vcpu *vcpu, enum emul_mode mode, int cpl);

/* ------------------------------------------------------------------- fpu.c */
struct keel_fpu {
	void *state;		/* keel's own XSAVE (or FXSAVE) area, standard format, 64-byte aligned */
	u32 bytes;		/* of it: a page, or more */
	u32 swapped;		/* what XSAVE and XRSTOR move; 0: the host has FXSAVE only */
	u64 xfd, xfd_err;	/* guest's */
	u64 host_xfd;		/* between load and save, if there are tiles: MSR_IA32_XFD is the guest's */
	bool xfd_loaded;
	u64 xcr0, xss;		/* guest's */
	u32 pkru;
	u32 host_pkru;		/* between enter and leave */
	bool swaps;		/* between load and save: entries swap XCR0, XSS or PKRU */
	bool swap_xcr0, swap_xss, swap_pkru;
	u64 host_tsc_aux;	/* between load and save: MSR_TSC_AUX is the guest's */
	struct keel_cet cet;
};

int keel_fpu_setup(void);	/* module load: feature mask, area size */
int keel_fpu_init(struct keel_vcpu *vcpu);
void keel_fpu_reset(struct keel_vcpu *vcpu, bool init);
void keel_fpu_free(struct keel_vcpu *vcpu);
/* The guest's CPUID will have these in XCR0: room for them, or why not.  vcpu->mutex; may sleep. */
int keel_fpu_grow(struct keel_vcpu *vcpu, u64 features);
/* Inside kernel_fpu_begin()/end(): guest state into / out of the registers. */
void keel_fpu_load(struct keel_vcpu *vcpu);	/* also decides fpu.swaps */
void keel_fpu_save(struct keel_vcpu *vcpu);
/* IRQs off, around an entry (run.c) if fpu.swaps. */
void keel_fpu_swap_in(struct keel_vcpu *vcpu);
void keel_fpu_swap_out(struct keel_vcpu *vcpu);
int keel_set_xcr0(struct keel_vcpu *vcpu, u64 val);	/* 1: #GP */
int keel_set_xss(struct keel_vcpu *vcpu, u64 val);	/* 1: #GP; guest FPU not loaded */
void keel_fpu_set_xfd(struct keel_vcpu *vcpu, u64 val);
void keel_fpu_set_tsc_aux(struct keel_vcpu *vcpu, u32 val);
int keel_fpu_nm(struct keel_vcpu *vcpu);	/* preemption off since the exit; only for a guest that has fpu.xfd */
/* For the emulator, guest FPU not loaded: 16, 32 or 64 bytes of vector register 0 to 31; a mask register; x87 and SSE. */
void keel_fpu_read_vec(struct keel_vcpu *vcpu, unsigned int reg, void *buf, unsigned int bytes);
void keel_fpu_write_vec(struct keel_vcpu *vcpu, unsigned int reg, const void *buf, unsigned int bytes, bool zero_upper);
u64 keel_fpu_read_kmask(struct keel_vcpu *vcpu, unsigned int reg);
void *keel_fpu_legacy(struct keel_vcpu *vcpu);
VCPU_IOCTL(keel_get_fpu);
VCPU_IOCTL(keel_set_fpu);
VCPU_IOCTL(keel_get_xsave);
VCPU_IOCTL(keel_get_xsave2);
VCPU_IOCTL(keel_set_xsave);
VCPU_IOCTL(keel_fpu_get_state);	/* a section of the state, of keel_fpu_state_size() bytes */
VCPU_IOCTL(keel_fpu_set_state);
size_t keel_fpu_state_size(const struct keel_vcpu *vcpu);
VCPU_IOCTL(keel_get_xcrs);
VCPU_IOCTL(keel_set_xcrs);
size_t keel_xsave_size(void);	/* KVM_CAP_XSAVE2's answer, for this process */
/* Bytes an XSAVE area with @features takes, in the standard or the compacted format. */
u32 keel_xstate_bytes(u64 features, bool compacted);

/* ----------------------------------------------------------------- debug.c */
#define DR_RTM		BIT(16)		/* in DR6, of a #DB inside a transaction; the kernel has no name for it */

struct keel_debug {
	u64 dr[4];
	u64 dr7;
	u32 control;		/* KVM_GUESTDBG_*: what the VMM debugs the guest with */
	bool stepping;		/* its step has begun: TF is in the guest's flags, or on its stack */
	u64 user_dr[4], user_dr7;	/* its breakpoints, in place of the guest's while USE_HW_BP is set */
	u8 exit_vector;		/* KEEL_REQ_DEBUG: what to tell it of ... */
	u64 exit_dr6;		/* ... and why */
	bool armed;		/* DR7 enables a breakpoint: DR0-3 must be in the CPU */
	bool loaded;		/* between enter and leave: DR0-3 are the guest's */
	bool host_armed;	/* between enter and leave: the host has breakpoints of its own */
	unsigned long host_dr[4];
	unsigned long host_dr7;
};

void keel_debug_reset(struct keel_vcpu *vcpu);
void keel_debug_set_dr7(struct keel_vcpu *vcpu, u64 dr7);
int keel_get_dr(struct keel_vcpu *vcpu, unsigned int nr, u64 *val);	/* 1: #UD, 2: #GP as emulated MOV DR asks */
int keel_set_dr(struct keel_vcpu *vcpu, unsigned int nr, u64 val);
/* An exception of the guest's that is the VMM's instead: true, and KVM_RUN returns before the guest goes on. */
bool keel_debug_takes(struct keel_vcpu *vcpu, u8 vector, u64 dr6);
int keel_debug_exit(struct keel_vcpu *vcpu);	/* KEEL_REQ_DEBUG */
void keel_debug_step(struct keel_vcpu *vcpu);	/* at KVM_RUN, while KVM_GUESTDBG_SINGLESTEP is set */
#define KEEL_GUESTDBG	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |	\
			 KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP |	\
			 KVM_GUESTDBG_BLOCKIRQ)
VCPU_IOCTL(keel_set_guest_debug);
/* IRQs off, around an entry (run.c): DR0-3, DR6 and DR7 are the backend's. */
void keel_debug_swap_in(struct keel_vcpu *vcpu);
void keel_debug_swap_out(struct keel_vcpu *vcpu);
VCPU_IOCTL(keel_get_debugregs);
VCPU_IOCTL(keel_debugregs_get_state);
VCPU_IOCTL(keel_set_debugregs);

/* ----------------------------------------------------------------- clock.c */
struct keel_rate {		/* of a TSC: ns = (cycles << shift) * mult >> 32, and mult has its highest bit */
	u32 mult;
	s8 shift;
};

struct keel_axis {		/* where points in time are told from in a VM's state */
	u64 tsc, ns, mono;	/* of the host: TSC, raw time, monotonic time */
	u64 moment;		/* on the axis: when the state was taken that was set last */
};

struct keel_clock {		/* of the VM */
	spinlock_t lock;	/* all below */
	struct keel_axis axis;
	s64 offset;		/* kvmclock = host's raw boot time + offset */
	bool valid;		/* the line is up to date, or that there is none */
	bool stable;		/* all vCPUs' clocks are one line, through the master pair */
	bool pages_old;		/* the state that was set last has guest memory say another line than this host's */
	u32 epoch;		/* of the host's TSC, when that was worked out */
	u64 master_tsc;		/* host TSC ... */
	u64 master_ns;		/* ... when kvmclock showed this */
	u64 ratio;		/* of all vCPUs */
	struct keel_rate rate;	/* with that ratio */
	unsigned int enabled;	/* clock pages, and others that follow this clock */
	u64 wall_msr;
	u32 default_khz;	/* of vCPUs yet to be created */
	/* The last TSC that a vCPU was made with, or that userspace wrote, to recognize writes that mean "in step". */
	u8 written;		/* KEEL_TSC_* (uapi/keel.h) */
	u64 last_tsc, last_ns, last_offset, last_ratio;
};

struct keel_vcpu_clock {
	u64 tsc_offset;		/* guest TSC = host TSC * ratio + offset */
	u64 ratio;		/* fixed point, 0: one to one */
	u32 tsc_khz;		/* asked for, and told on request: see clock.c */
	struct keel_rate rate;	/* what it is */
	bool stopped;		/* tell the guest that it was; the host's sleep sets it, too */
	u64 time_msr;		/* clock page's address, bit 0: on */
	u32 epoch;		/* of the host's TSC: the hardware has the offset for this one */
	/* Where CPUs' TSCs differ: */
	int left_cpu;		/* the offset is for this CPU, -1: for those there were before they differed */
	u64 left_tsc;		/* the guest's when the vCPU was there last */
	u64 base_tsc, base_ns;	/* the line it is to follow, through this point; base_ns 0: none was set since they differ */
};

/* Can the host's TSC not be taken at its word: CPUs' differ, or it has been through a suspend?  Loads and puts look then. */
extern bool keel_tsc_wary;

void keel_clock_setup(void);	/* module load / unload: follow the host's choice of clocksource */
void keel_clock_exit(void);
void keel_clock_vm_init(struct keel_vm *vm);
void keel_clock_vcpu_init(struct keel_vcpu *vcpu);	/* guest TSC starts in step with its siblings'; it is not one of them yet */
void keel_clock_vcpu_joins(struct keel_vcpu *vcpu);	/* now it is */
void keel_clock_reset(struct keel_vcpu *vcpu);	/* without a page; also before the vCPU is freed */
void keel_clock_cpu_online(void);		/* on a CPU that no thread runs on yet */
void keel_clock_suspend(void);			/* IRQs off, nothing else runs */
void keel_clock_resume(void);
void keel_clock_load_wary(struct keel_vcpu *vcpu, int cpu);
void keel_clock_put_wary(struct keel_vcpu *vcpu);

/* Preemption off: the vCPU comes to this CPU, and leaves it. */
static inline void keel_clock_load(struct keel_vcpu *vcpu, int cpu)
{
	if (unlikely(data_race(keel_tsc_wary)))
		keel_clock_load_wary(vcpu, cpu);
}

static inline void keel_clock_put(struct keel_vcpu *vcpu)
{
	if (unlikely(data_race(keel_tsc_wary)))
		keel_clock_put_wary(vcpu);
}

void keel_clock_update(struct keel_vcpu *vcpu);		/* KEEL_REQ_CLOCK: write the guest's page; may sleep */
u64 keel_clock_ns(struct keel_vm *vm);			/* kvmclock */
/* Do all vCPUs' clocks show one line?  A point of it, in this vCPU's TSC and kvmclock, and how it goes on. */
bool keel_clock_line(struct keel_vcpu *vcpu, u64 *tsc, u64 *ns, struct keel_rate *rate);
/* Wall-clock time and this vCPU's TSC at one instant, to guest memory.  -EOPNOTSUPP, or as keel_vcpu_write(). */
int keel_clock_pair(struct keel_vcpu *vcpu, u64 gpa);
void keel_clock_watch(struct keel_vm *vm, bool on);	/* KEEL_REQ_CLOCK when that changes, without a page, too */
u64 keel_guest_tsc(struct keel_vcpu *vcpu);
u64 keel_guest_tsc_timer(struct keel_vcpu *vcpu, u64 expected);	/* on any CPU, where a timer says it is @expected */
u64 keel_guest_tsc_at(struct keel_vcpu *vcpu, u64 host_tsc);
u64 keel_guest_tsc_to_ns(struct keel_vcpu *vcpu, u64 cycles);
/* Called by msr.c */
int keel_clock_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val);	/* MSR_KVM_*CLOCK*, MSR_IA32_TSC, TSC_ADJUST */
int keel_clock_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host);
void keel_clock_set_tsc_adjust(struct keel_vcpu *vcpu, u64 val, bool host);
int keel_clock_flags(void);	/* KVM_CAP_ADJUST_CLOCK */
VM_IOCTL(keel_get_clock);
VM_IOCTL(keel_set_clock);
VM_IOCTL(keel_vm_set_tsc_khz);
VM_IOCTL(keel_vm_get_tsc_khz);
VCPU_IOCTL(keel_set_tsc_khz);
VCPU_IOCTL(keel_get_tsc_khz);
VCPU_IOCTL(keel_kvmclock_ctrl);
/* Sections of the state; the clock's moment anew; monotonic time where the axis begins. */
VM_IOCTL(keel_clock_get_state);
VM_IOCTL(keel_clock_set_state);
VCPU_IOCTL(keel_tsc_get_state);
VCPU_IOCTL(keel_tsc_set_state);
void keel_clock_now(struct keel_vm *vm, struct keel_state_clock *s);
u64 keel_clock_mono(struct keel_vm *vm);
ktime_t keel_clock_expires(struct keel_vm *vm, u64 ns);	/* what is at @ns of the axis */
/* KVM_{HAS,GET,SET}_DEVICE_ATTR on a vCPU: KVM_VCPU_TSC_CTRL. */
VCPU_IOCTL(keel_vcpu_has_attr);
VCPU_IOCTL(keel_vcpu_get_attr);
VCPU_IOCTL(keel_vcpu_set_attr);

#endif
