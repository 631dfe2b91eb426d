/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * keel.h - the two objects of the hypervisor, a virtual machine and a virtual
 * CPU, and what the rooms of the module offer each other.
 *
 * Lock order, outermost first.  A lock may be taken while those above it are
 * held, never the other way round:
 *
 *	hw_lock			virtualization on/off, count of VMs	(hw.c)
 *	vcpu->mutex		one vCPU's state			(vcpu.c)
 *	vm->lock		the VM's configuration			(vm.c)
 *	vm->slots_lock		memslots and I/O buses			(memslot.c)
 *	vm->pause		vCPUs out of the run loop		(vcpu.c)
 *	mmap_lock		the kernel's
 *	vm->mmu.lock		page tables the CPU walks		(mmu/)
 *	vm->mmu.notifier_lock	what the host invalidates		(mmu/notifier.c)
 *	vm->pause_lock		who is in the run loop, and flushes	(vcpu.c)
 *	irq room's spinlocks	see irq/irq.h
 *
 * Who may look at memslots and I/O buses: anyone who holds slots_lock, a vCPU
 * between keel_vcpu_begin() and keel_vcpu_end(), and, for memslots only,
 * whoever holds mmu.lock.  Writers hold slots_lock and have the VM paused, so
 * tables are changed in place and nobody waits for a grace period.
 */
#ifndef KEEL_H
#define KEEL_H

#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/percpu.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/rcuwait.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/xarray.h>
#include <asm/kvm.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

#include "compat.h"
#include <uapi/keel.h>
#include "emul/emul.h"

struct keel_vm;
struct keel_vcpu;

/*
 * An ioctl handler.  @buf: kernel copy of the argument, copied in and out by the table's dispatcher as the
 * ioctl's number says; @arg: the raw argument, for ioctls whose argument has no fixed size or is a number.
 */
#define SYS_IOCTL(fn)	long fn(void *buf, unsigned long arg)
#define VM_IOCTL(fn)	long fn(struct keel_vm *vm, void *buf, unsigned long arg)
#define VCPU_IOCTL(fn)	long fn(struct keel_vcpu *vcpu, void *buf, unsigned long arg)

/* The number of one that has ended is used again. */
struct keel_thread {
	u64 start;
	pid_t nr;
};

#include "stats.h"
#include "mem/memslot.h"
#include "mmu/mmu.h"
#include "irq/irq.h"
#include "pv/hyperv/hyperv.h"
#include "cpu/cpu.h"
#include "pv/pv.h"
#include "snap/snap.h"

/*
 * Habits of the ABI that a VMM may turn off (KVM_CAP_DISABLE_QUIRKS2).  Two it need not: a slot that goes takes nothing of
 * others with it, and on Intel no CPU enters a guest with CR0.CD or NW.
 */
#define KEEL_QUIRKS	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_LAPIC_MMIO_HOLE |	\
			 KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN |	\
			 KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS | KVM_X86_QUIRK_CD_NW_CLEARED | KVM_X86_QUIRK_SLOT_ZAP_ALL |	\
			 KVM_X86_QUIRK_STUFF_FEATURE_MSRS)
#define KEEL_EXIT_HYPERCALLS	BIT(KVM_HC_MAP_GPA_RANGE)

#define KEEL_CR3_LAM	(X86_CR3_LAM_U48 | X86_CR3_LAM_U57)
#define DR7_GD		BIT(13)		/* general detect: MOV DR raises #DB */

#define KEEL_MAX_VCPUS		1024	/* vCPUs a VM may have; ids are below KEEL_MAX_VCPU_ID */
#define KEEL_MAX_VCPU_ID	4096
#define KEEL_MAX_MEMSLOTS	32764

/* ------------------------------------------------------------------ requests
 * What others ask of a vCPU, which looks before each entry: a row each, in the order in which they are answered.
 *
 *	FAST(name, answer)		answered in the fast loop; wakes nobody
 *	SLOW(name, flags, answer)	where sleeping is allowed
 *
 * The answer is a function that run.c calls once the request is taken.
 */
#define KEEL_RQ_WAKES		1	/* a halted vCPU wakes for it; else it waits until something else has */
#define KEEL_RQ_BEFORE_SIPI	2	/* so does one that waits for INIT or SIPI, which answers no others in the slow loop */

#define KEEL_REQUESTS(FAST, SLOW)										\
	/* forget every translation of this guest */								\
	FAST(TLB_FLUSH, run_flush_tlb)										\
	/* rebuild the backend's intercepts (guest debug, CR8, MSRs, dirty log) */				\
	FAST(INTERCEPTS, run_intercepts)									\
	/* only leave the guest once */										\
	FAST(KICK, run_seen)											\
	/* look for an event to inject again; a halted vCPU wakes for the event itself */			\
	FAST(EVENT, run_events)											\
	/* host error in this VM: KVM_RUN answers -EIO */							\
	SLOW(VM_DEAD, KEEL_RQ_WAKES | KEEL_RQ_BEFORE_SIPI, run_dead)						\
	/* mp_state is no longer RUNNABLE: leave the fast loop and look at it */				\
	SLOW(HALT, 0, run_seen)											\
	/* leave the run loop until the VM is resumed; who sleeps has left it already */			\
	SLOW(PAUSE, 0, run_pause)										\
	/* come out of a sleep to where the VM's being paused is seen, and give the state out of hand there */	\
	SLOW(REST, KEEL_RQ_WAKES | KEEL_RQ_BEFORE_SIPI, run_seen)						\
	/* exit with KVM_EXIT_DIRTY_RING_FULL for as long as it is */						\
	SLOW(RING_FULL, KEEL_RQ_WAKES, run_ring_full)								\
	/* INIT or SIPI latched in vcpu->mp_events */								\
	SLOW(MP_EVENT, KEEL_RQ_WAKES | KEEL_RQ_BEFORE_SIPI, run_mp_events)					\
	/* enter system management mode, if nothing is in the way */						\
	SLOW(SMI, KEEL_RQ_WAKES, run_smi)									\
	/* the root is gone: get one and load it */								\
	SLOW(MMU_RELOAD, KEEL_RQ_WAKES, run_mmu_reload)								\
	/* may the CPU run the LAPIC by itself? */								\
	SLOW(APICV, 0, run_apicv)										\
	/* the guest has moved its LAPIC: the map of them is to be made again */				\
	SLOW(APIC_MAP, 0, run_apic_map)										\
	/* write the guest's kvmclock page, at which other vCPUs look, too */					\
	SLOW(CLOCK, KEEL_RQ_WAKES, run_clock)									\
	/* see whether others left a flush, tell the guest of time stolen */					\
	SLOW(STEAL, 0, run_steal)										\
	/* settle an offer that could not be in the fast loop */						\
	SLOW(PV_EOI, KEEL_RQ_WAKES, run_pv_eoi)									\
	/* see whether there is a page to tell the guest of */							\
	SLOW(APF, KEEL_RQ_WAKES, run_apf)									\
	/* Hyper-V's timers, and what its guest has to say to userspace */					\
	SLOW(HV, KEEL_RQ_WAKES, keel_hv_request)								\
	/* performance counters' events are to follow their registers */					\
	SLOW(PMU, KEEL_RQ_WAKES, run_pmu)									\
	/* exit with KVM_EXIT_DEBUG */										\
	SLOW(DEBUG, KEEL_RQ_WAKES, keel_debug_exit)								\
	/* exit with KVM_EXIT_SHUTDOWN */									\
	SLOW(TRIPLE_FAULT, KEEL_RQ_WAKES, run_triple_fault)							\
	/* split irqchip: exit with KVM_EXIT_IOAPIC_EOI */							\
	SLOW(IOAPIC_EOI, KEEL_RQ_WAKES, irq_ioapic_eoi_exit)

#define KEEL_RQ_NONE(...)
#define KEEL_RQ_NAME(name, ...)			KEEL_REQ_##name,
#define KEEL_RQ_BIT(name, ...)			| BIT(KEEL_REQ_##name)
#define KEEL_RQ_WAKES_BIT(name, flags, ...)	| ((flags) & KEEL_RQ_WAKES ? BIT(KEEL_REQ_##name) : 0)
#define KEEL_RQ_BEFORE_BIT(name, flags, ...)	| ((flags) & KEEL_RQ_BEFORE_SIPI ? BIT(KEEL_REQ_##name) : 0)

enum keel_request { KEEL_REQUESTS(KEEL_RQ_NAME, KEEL_RQ_NAME) };
#define KEEL_FAST_REQS		(0UL KEEL_REQUESTS(KEEL_RQ_BIT, KEEL_RQ_NONE))
#define KEEL_WAKING_REQS	(0UL KEEL_REQUESTS(KEEL_RQ_NONE, KEEL_RQ_WAKES_BIT))
#define KEEL_BEFORE_SIPI_REQS	(0UL KEEL_REQUESTS(KEEL_RQ_NONE, KEEL_RQ_BEFORE_BIT))

/* What an exit handler says about how to go on; negative is an errno for KVM_RUN. */
enum keel_next {
	KEEL_RESUME = 1,	/* back into the guest */
	KEEL_USER = 0,		/* kvm_run is filled: return to userspace */
	KEEL_SLOW = 2,		/* fast handlers only: do this where sleeping is allowed */
};

/* --------------------------------------------------------------------- vCPU */
enum keel_reg {			/* order of the ModRM encoding, as the emulator wants it */
	KEEL_RAX, KEEL_RCX, KEEL_RDX, KEEL_RBX, KEEL_RSP, KEEL_RBP, KEEL_RSI, KEEL_RDI,
	KEEL_R8, KEEL_R9, KEEL_R10, KEEL_R11, KEEL_R12, KEEL_R13, KEEL_R14, KEEL_R15,
	KEEL_RIP,
	KEEL_NR_REGS,
	/* not in regs[], but cached and written back the same way */
	KEEL_LAZY_RFLAGS = KEEL_NR_REGS,
	KEEL_LAZY_CR0, KEEL_LAZY_CR3, KEEL_LAZY_CR4,
	KEEL_LAZY_PDPTRS,	/* write only: new page directory pointers of a PAE guest */
};

enum keel_seg {			/* order of the sreg encoding, then the two system segments */
	KEEL_ES, KEEL_CS, KEEL_SS, KEEL_DS, KEEL_FS, KEEL_GS, KEEL_TR, KEEL_LDTR,
};

enum keel_event_type {
	KEEL_EV_NONE,
	KEEL_EV_INTR,		/* external interrupt */
	KEEL_EV_NMI,
	KEEL_EV_EXCEPTION,	/* hardware exception */
	KEEL_EV_SOFT_INTR,	/* INT n */
	KEEL_EV_SOFT_EXC,	/* INT3, INTO */
};

static inline bool keel_is_soft(u8 type)
{
	return type == KEEL_EV_SOFT_INTR || type == KEEL_EV_SOFT_EXC;
}

/* One event on its way into the guest, in no vendor's format. */
struct keel_event {
	u8 type;
	u8 vector;
	bool has_error;
	u8 insn_len;		/* of a software interrupt's instruction, which RIP is at until it is delivered */
	u32 error;
	bool has_payload;	/* #PF: CR2, #DB: DR6 bits, not yet written */
	u64 payload;
};

/* event.c: what waits to be delivered, and what was in delivery at the last exit. */
struct keel_events {
	struct keel_event exception;	/* raised, not yet injected (type NONE: none) */
	struct keel_event injected;	/* handed to the CPU; still here after an exit: reinject */
	unsigned int nmi_pending;	/* 0..2 */
	atomic_t nmi_queued;		/* arrived from other threads */
	bool again;			/* more could follow the injected one at once: come back before
					 * the guest's first instruction */
	int user_vector;		/* the VMM's interrupt, without an in-kernel PIC: vector, or -1 */
};

enum keel_mp_event { KEEL_MP_INIT, KEEL_MP_SIPI };

enum keel_mode { KEEL_OUTSIDE, KEEL_IN_GUEST };

struct keel_vcpu {
	/* what the run loop touches on every exit comes first */
	struct keel_vm *vm;
	unsigned long requests;		/* bit per keel_request */
	int mode;			/* enum keel_mode; IN_GUEST is set with IRQs off */
	bool atomic;			/* in the fast loop: must not sleep or fault */
	bool guest_irq_exit;		/* last exit was a host interrupt (backend sets) */
	bool vapic;			/* it has a VAPIC page: irq/vapic.c */
	u32 avail, dirty;		/* bit per keel_reg: cached copy valid / to be written back */
	u64 regs[KEEL_NR_REGS];
	u64 spec_ctrl;			/* mitigate.h; the entry code finds these two behind regs */
	u32 spec_ctrl_mode;
	u64 rflags;
	u64 cr0, cr2, cr3, cr4, efer;
	u64 cr8;			/* priority class: of the in-kernel LAPIC's TPR, or the VMM's */
	u64 next_rip;			/* as keel_measure_insn() has found it */
	u64 pdptrs[4];			/* as last loaded by keel, for a CPU that keeps them in registers */
	struct kvm_run *run;
	struct keel_events ev;
	struct keel_vcpu_stats stat;

	u32 id, idx;			/* the VMM's id; position in creation order */
	u64 serial;			/* never used again for another vCPU, as its address may be */
	int cpu;			/* physical CPU it is loaded on, -1 if none */
	bool in_loop;			/* between keel_vcpu_begin() and keel_vcpu_end() */
	bool listed;			/* on vm->active */
	bool awaited;			/* counted in vm->nr_awaited */
	bool owned;			/* one of its ioctls has its state; changes inside the run loop only */
	bool resting;			/* and has it out of hand; set outside the loop, taken back inside */
	unsigned int flushes;		/* vm->flushes when it came off the list */
	struct list_head active;
	bool has_run;
	bool opened;			/* there is a file of it, or was */
	bool arrived;			/* beside kvm.ko: on the CPU it is loaded on a guest may be entered, or was */
	struct task_struct *preempted;	/* this thread was, and waits for a CPU; to be looked at under RCU */
	u32 mp_state;			/* KVM_MP_STATE_* */
	unsigned long mp_events;	/* bit per keel_mp_event, set atomically by senders */
	u8 sipi_vector;
	struct mutex mutex;
	struct rcuwait wait;		/* HLT and wait-for-SIPI sleep here */
	struct preempt_notifier pn;
	struct keel_thread thread;	/* that was last in KVM_RUN */
	sigset_t sigset;
	bool sigset_active;

	/* continuation of an exit that userspace completes; run at the next KVM_RUN */
	int (*complete)(struct keel_vcpu *vcpu);
	void *pio_data;			/* one page, mapped behind kvm_run */
	struct keel_insn *insn;		/* instruction emulation in progress */

	struct keel_cpu_model model;	/* CPUID, what it allows */
	struct keel_msrs msrs;
	struct keel_pmu *pmu;		/* NULL: no performance counters */
	struct keel_fpu fpu;
	struct keel_debug debug;
	struct keel_vcpu_clock clock;
	struct keel_pv pv;
	struct keel_hv_vcpu *hv;	/* NULL until it is used */
	struct keel_vcpu_mmu mmu;
	struct keel_dirty_ring ring;
	struct keel_lapic *apic;	/* NULL without an in-kernel APIC */
	u64 apic_base;
	/* System management mode (smm.c); smm is also the number of the address space it looks into. */
	u64 smbase;
	bool smm;
	bool smm_in_nmi;		/* NMIs were blocked when it began */
	bool smi_pending;		/* set by any thread */
};

/* ----------------------------------------------------------------------- VM */
struct keel_vm {
	struct mm_struct *mm;
	refcount_t refs;
	struct mutex lock;
	struct mutex slots_lock;
	struct keel_memslots slots;
	struct keel_mmu mmu;
	struct keel_irq irq;
	struct keel_buses buses;
	struct keel_clock clock;
	struct xarray vcpus;		/* by idx; entries stay until the VM goes */
	struct xarray vcpus_by_id;	/* those whose id is another number */
	unsigned int nr_vcpus;		/* published with release after the xarray entries */
	u32 bsp_id;
	u32 max_vcpu_id;
	/* Pausing, see vcpu.c. */
	atomic_t pause;			/* > 0: vCPUs stay out of the run loop */
	spinlock_t pause_lock;		/* the list, what vCPUs have of it, and the numbers below */
	struct list_head active;	/* vCPUs that may be in the run loop; all that are, are here */
	unsigned int nr_awaited;	/* found in the run loop by those who pause, and not yet out of it */
	unsigned int flushes;		/* times that all TLBs were flushed */
	wait_queue_head_t pausers, paused;
	bool want_rest;			/* who is paused in KVM_RUN is to rest */
	bool dead;			/* after a host error: nothing runs any more */
	u32 event_flags;		/* KVM_VCPUEVENT_VALID_*: what KVM_SET_VCPU_EVENTS may have here */
	bool no_platform_info;		/* the guest's reads of it raise #GP */
	bool exit_on_emulation_failure;	/* always, and without #UD */
	u32 quirks_off;			/* KVM_X86_QUIRK_* */
	u32 exits_off;			/* KVM_X86_DISABLE_EXITS_* */
	u32 exit_hypercalls;		/* bit per hypercall that is userspace's to answer */
	u32 msr_exits;			/* KVM_MSR_EXIT_REASON_*: these failures are userspace's to mend */
	struct kvm_msr_filter *msr_filter;	/* bitmaps copied; NULL: all are allowed */
	struct kvm_pmu_event_filter *pmu_filter;	/* entries with masks, sorted; NULL: all are allowed */
	bool no_pmu;			/* KVM_PMU_CAP_DISABLE */
	void *spare_page;		/* taken and given back by xchg(): of the FPU state that came last */
	struct list_head list;		/* all VMs, under hw_lock */
	u64 serial;			/* tells it from all other VMs since the module was loaded */
	struct keel_hv *hv;		/* NULL until it is used */
	struct keel_apf_vm *apf;	/* NULL until it is used */
	struct keel_snaps *snaps;	/* NULL until there was a snapshot */
	struct keel_vm_stats stat;
	pid_t owner;
};

/* vCPU by creation order / by the VMM's id; no lock needed, NULL if there is none. */
struct keel_vcpu *keel_vcpu_by_idx(struct keel_vm *vm, unsigned int idx);
struct keel_vcpu *keel_vcpu_by_id(struct keel_vm *vm, u32 id);

#define keel_for_each_vcpu(vcpu, i, vm)						\
	for (i = 0; i < smp_load_acquire(&(vm)->nr_vcpus) &&			\
	     ((vcpu) = keel_vcpu_by_idx(vm, i)) != NULL; i++)

static inline struct keel_thread keel_this_thread(void)
{
	return (struct keel_thread){ .start = current->start_time, .nr = task_pid_nr(current) };
}

static inline bool keel_thread_is(const struct keel_thread *a, const struct keel_thread *b)
{
	return a->nr == b->nr && a->start == b->start;
}

/* --------------------------------------------------------- vcpu.c, run.c, vm.c */
static inline void keel_request(enum keel_request req, struct keel_vcpu *vcpu)
{
	smp_mb__before_atomic();	/* what the request is about is visible before it */
	set_bit(req, &vcpu->requests);
}

static inline bool keel_request_pending(struct keel_vcpu *vcpu)
{
	return READ_ONCE(vcpu->requests);
}

static inline bool keel_take_request(enum keel_request req, struct keel_vcpu *vcpu)
{
	if (!test_bit(req, &vcpu->requests))
		return false;
	clear_bit(req, &vcpu->requests);
	smp_mb__after_atomic();
	return true;
}

/* Wakes a halted vCPU, makes a running one exit.  Any context, IRQs off included. */
void keel_vcpu_kick(struct keel_vcpu *vcpu);
/* And has it look for events. */
void keel_vcpu_notify(struct keel_vcpu *vcpu);
/*
 * Sets @req on every vCPU, wakes those that sleep if its row says so, and interrupts those in the guest; with @wait
 * returns only when none of them is still in there.
 */
void keel_request_all(struct keel_vm *vm, enum keel_request req, bool wait);
/* The same for some, by creation order. */
void keel_request_some(struct keel_vm *vm, enum keel_request req, const unsigned long *which, bool wait);
/* No vCPU uses a translation from before any more when this returns.  Any lock may be held, IRQs are on. */
void keel_flush_tlbs(struct keel_vm *vm);

/* Keep all vCPUs of @vm out of the run loop and away from memslots and buses; may sleep. Nests. */
void keel_vm_pause(struct keel_vm *vm);
void keel_vm_resume(struct keel_vm *vm);
/*
 * The same, and every vCPU's state is the caller's, who loads and puts each to get at it; guest memory is not its affair.
 * NULL; or the vCPU that is in the midst of an ioctl, and nothing has happened.  vm->lock is held.  Ended by resuming.
 */
struct keel_vcpu *keel_vm_stop(struct keel_vm *vm);
/*
 * The same, and those whose threads are in KVM_RUN are made to rest; the caller's own does already.  slots_lock is held, too.
 * 0; -EINTR: a signal came first, and nothing has happened.
 */
int keel_vm_stop_all(struct keel_vm *vm);
/* For a thread in KVM_RUN, between begin and end: its vCPU's state is out of its hands from here on / again its own. */
void keel_vcpu_rest(struct keel_vcpu *vcpu);
void keel_vcpu_rested(struct keel_vcpu *vcpu);
void keel_vcpu_load(struct keel_vcpu *vcpu);
void keel_vcpu_put(struct keel_vcpu *vcpu);
/* The calling thread uses @vcpu and the VM's tables from here / no more.  May sleep (pause). */
int keel_vcpu_begin(struct keel_vcpu *vcpu);
void keel_vcpu_end(struct keel_vcpu *vcpu);

bool keel_vcpu_is_bsp(struct keel_vcpu *vcpu);
void keel_vcpu_reset(struct keel_vcpu *vcpu, bool init);
void keel_vm_get(struct keel_vm *vm);
void keel_vm_put(struct keel_vm *vm);
void keel_vm_free(struct keel_vm *vm);	/* last step, from the notifier's free callback */
/* A host-side error: no vCPU of @vm runs again. */
void keel_vm_kill(struct keel_vm *vm);

long keel_run(struct keel_vcpu *vcpu);
bool keel_vcpu_runnable(struct keel_vcpu *vcpu);
/* The CPU refused to enter; @reason is its own word for it.  With the parameter dump_failed_entry the log says more. */
int keel_exit_fail_entry(struct keel_vcpu *vcpu, u64 reason);
int keel_exit_internal_error(struct keel_vcpu *vcpu, u32 suberror, int ndata, const u64 *data);
/* The emulator does not know these bytes, as far as it has them. */
int keel_exit_emulation_failure(struct keel_vcpu *vcpu, const u8 *bytes, unsigned int have);
void keel_take_mp_events(struct keel_vcpu *vcpu);	/* INIT and SIPI that have arrived */
int keel_emulate_hlt(struct keel_vcpu *vcpu);	/* HLT was skipped already: sleep or exit */

/* smm.c: system management mode */
void keel_queue_smi(struct keel_vcpu *vcpu);		/* any context */
bool keel_smi_due(struct keel_vcpu *vcpu);		/* one waits, and is not held back by the mode */
void keel_smm_take(struct keel_vcpu *vcpu);		/* KEEL_REQ_SMI */
void keel_smm_change(struct keel_vcpu *vcpu, bool on);	/* only the mode and what follows from it */
void keel_smm_set(struct keel_vcpu *vcpu, bool on);	/* by a state, which says itself whether the clock's page is due */
void keel_smm_rsm(struct keel_vcpu *vcpu);		/* out of it; a state that cannot be is a shutdown */
VCPU_IOCTL(keel_ioctl_smi);

/* hw.c: virtualization on the physical CPUs */
int keel_hw_get(struct keel_vm *vm);	/* first VM turns it on; -EBUSY if someone else has it */
void keel_hw_put(struct keel_vm *vm);
void keel_hw_unlist(struct keel_vm *vm);	/* before it is taken apart */
int keel_hw_init(void);
void keel_hw_exit(void);
extern struct mutex keel_hw_lock;

/* share.c: beside kvm.ko, whose virtualization is borrowed.  Under keel_hw_lock but for the ioctl and setup. */
int keel_share_setup(void);
SYS_IOCTL(keel_beside_kvm);
bool keel_share_wanted(const char **why);	/* for the first VM; *why: it may not be, either way */
void keel_share_exit(void);
extern const struct attribute_group *keel_share_groups[];
bool keel_hw_in_use(void);
extern struct list_head keel_vms;
extern bool keel_rebooting;

/* Does the guest's CPUID show X86_FEATURE_* or KEEL_FEATURE_*, of leaves 1, 7, 0x80000001 ...? */
static inline bool keel_guest_has(struct keel_vcpu *vcpu, unsigned int x86_feature)
{
	return vcpu->model.caps[x86_feature / 32] & BIT(x86_feature & 31);
}

static inline bool keel_has_quirk(const struct keel_vm *vm, u32 quirk)
{
	return !(READ_ONCE(vm->quirks_off) & quirk);
}

/* --------------------------------------------------------- regs.c */
void keel_cache_reg(struct keel_vcpu *vcpu, unsigned int reg);

static inline u64 keel_reg(struct keel_vcpu *vcpu, unsigned int reg)
{
	if ((reg == KEEL_RSP || reg == KEEL_RIP) && !(vcpu->avail & BIT(reg)))
		keel_cache_reg(vcpu, reg);
	return vcpu->regs[reg];
}

static __always_inline void keel_set_reg(struct keel_vcpu *vcpu, unsigned int reg, u64 val)
{
	vcpu->regs[reg] = val;
	if (reg != KEEL_RSP && reg != KEEL_RIP)		/* the others are always here */
		return;
	vcpu->avail |= BIT(reg);
	vcpu->dirty |= BIT(reg);
}

#define KEEL_LAZY_ACCESSOR(name, REG)					\
static inline u64 keel_##name(struct keel_vcpu *vcpu)			\
{									\
	if (!(vcpu->avail & BIT(REG)))					\
		keel_cache_reg(vcpu, REG);				\
	return vcpu->name;						\
}
KEEL_LAZY_ACCESSOR(rflags, KEEL_LAZY_RFLAGS)
KEEL_LAZY_ACCESSOR(cr0, KEEL_LAZY_CR0)
KEEL_LAZY_ACCESSOR(cr3, KEEL_LAZY_CR3)
KEEL_LAZY_ACCESSOR(cr4, KEEL_LAZY_CR4)

static inline void keel_set_rflags(struct keel_vcpu *vcpu, u64 val)
{
	vcpu->rflags = val | X86_EFLAGS_FIXED;
	vcpu->avail |= BIT(KEEL_LAZY_RFLAGS);
	vcpu->dirty |= BIT(KEEL_LAZY_RFLAGS);
}

static inline u64 keel_read_edx_eax(struct keel_vcpu *vcpu)
{
	return (u32)vcpu->regs[KEEL_RAX] | vcpu->regs[KEEL_RDX] << 32;
}

static inline void keel_write_edx_eax(struct keel_vcpu *vcpu, u64 val)
{
	keel_set_reg(vcpu, KEEL_RAX, (u32)val);
	keel_set_reg(vcpu, KEEL_RDX, val >> 32);
}

static inline bool keel_is_protected(struct keel_vcpu *vcpu)
{
	return keel_cr0(vcpu) & X86_CR0_PE;
}

static inline bool keel_is_paging(struct keel_vcpu *vcpu)
{
	return keel_cr0(vcpu) & X86_CR0_PG;
}

static inline bool keel_is_long_mode(struct keel_vcpu *vcpu)
{
	return vcpu->efer & EFER_LMA;
}

bool keel_is_64bit(struct keel_vcpu *vcpu);	/* long mode with a 64-bit code segment */
int keel_cpl(struct keel_vcpu *vcpu);
u64 keel_linear_rip(struct keel_vcpu *vcpu);
/* Register writes as an instruction does them: nonzero means #GP, nothing changed. */
int keel_set_cr0(struct keel_vcpu *vcpu, u64 val);
int keel_set_cr3(struct keel_vcpu *vcpu, u64 val);
int keel_set_cr4(struct keel_vcpu *vcpu, u64 val);
int keel_set_cr8(struct keel_vcpu *vcpu, u64 val);
int keel_set_efer(struct keel_vcpu *vcpu, u64 val, bool host);
u64 keel_cr4_reserved(struct keel_vcpu *vcpu);	/* bits this guest's CPUID does not allow */
bool keel_is_canonical(u64 addr);	/* as MSRs take it: by what the CPU can do, whatever CR4.LA57 says */
/*
 * Length of the intercepted instruction at RIP, for a CPU that does not say: > 0, or -EAGAIN
 * (the bytes are not at hand in the fast loop), or -EFAULT (a fault was queued; just resume).
 */
int keel_insn_len(struct keel_vcpu *vcpu);
/* RIP past an instruction: ends the interrupt shadow, raises #DB if TF was set. */
void keel_advance(struct keel_vcpu *vcpu, u64 next_rip);
/* The slow half of keel_next_rip(), see ops.h: what it returns, and 0 with vcpu->next_rip. */
int keel_measure_insn(struct keel_vcpu *vcpu);
/* keel_insn_len() and keel_advance() in one; KEEL_RESUME when the instruction is done,
 * KEEL_SLOW to try again outside the fast loop, -1 if a fault was queued instead. */
int keel_skip(struct keel_vcpu *vcpu);

/* All of sregs at once, checked as a whole: 0 or -EINVAL with nothing changed. */
int keel_put_sregs(struct keel_vcpu *vcpu, const struct kvm_sregs *s);
void keel_take_sregs(struct keel_vcpu *vcpu, struct kvm_sregs *s);
void keel_put_regs(struct keel_vcpu *vcpu, const struct kvm_regs *r);
VCPU_IOCTL(keel_get_regs);
VCPU_IOCTL(keel_set_regs);
VCPU_IOCTL(keel_get_sregs);
VCPU_IOCTL(keel_set_sregs);
VCPU_IOCTL(keel_get_sregs2);
VCPU_IOCTL(keel_sregs_get_state);	/* the same, with what is still to be delivered as it is */
VCPU_IOCTL(keel_set_sregs2);
VCPU_IOCTL(keel_sregs_set_state);	/* the same, but touches no guest memory */

/* --------------------------------------------------------- event.c */
/* Raise an exception on the current instruction; merges into #DF and triple fault. */
void keel_raise(struct keel_vcpu *vcpu, u8 vector);
void keel_raise_error(struct keel_vcpu *vcpu, u8 vector, u32 error);
void keel_raise_pf(struct keel_vcpu *vcpu, u64 addr, u32 error);
void keel_raise_db(struct keel_vcpu *vcpu, u64 dr6_bits);
void keel_raise_bp(struct keel_vcpu *vcpu);	/* as if INT3 at RIP were executed */
void keel_raise_fault(struct keel_vcpu *vcpu, const struct emul_fault *fault);
void keel_queue_nmi(struct keel_vcpu *vcpu);	/* any context */
/* Before entry: pick what to inject, open windows.  Fast loop safe. */
void keel_events_deliver(struct keel_vcpu *vcpu);
/* CR2 and DR6 as VMMs without KVM_CAP_EXCEPTION_PAYLOAD find them. */
void keel_events_settle(struct keel_vcpu *vcpu);
/* After exit: @ev was being delivered when the exit came; it goes in again. */
void keel_events_requeue(struct keel_vcpu *vcpu, const struct keel_event *ev);
bool keel_events_pending(struct keel_vcpu *vcpu);	/* would wake a halted vCPU */
bool keel_irq_window_open(struct keel_vcpu *vcpu);	/* IF set, no shadow, nothing in delivery */
void keel_set_user_irq(struct keel_vcpu *vcpu, int vector);	/* as the VMM says what is in delivery; -1: nothing is */
/* Fast exit handler: the window that open_window asked for is there.  Nothing is left to a slow one. */
int keel_irq_window_exit(struct keel_vcpu *vcpu);
VCPU_IOCTL(keel_get_events);
VCPU_IOCTL(keel_set_events);
VCPU_IOCTL(keel_events_get_state);	/* a section of the state */
VCPU_IOCTL(keel_events_set_state);
VCPU_IOCTL(keel_ioctl_interrupt);
VCPU_IOCTL(keel_ioctl_nmi);

/* ----------------------------------------------- insn.c, deliver.c: emulator glue */
/* Emulate the instruction at RIP.  Fast loop safe (may answer KEEL_SLOW). */
int keel_emulate(struct keel_vcpu *vcpu);
int keel_emulate_cr(struct keel_vcpu *vcpu);	/* MOV CR; tells a VMM whose the TPR is */
/* The second dimension did not let an access (MMU_ACC_*) through: map, or emulate.  @info is for the trace. */
int keel_page_fault(struct keel_vcpu *vcpu, u64 gpa, u32 access, u64 info);
/* Deliver vcpu->ev.injected as the CPU would, where the CPU cannot: real mode only. */
int keel_emulate_event(struct keel_vcpu *vcpu);
int keel_delivery_failed(struct keel_vcpu *vcpu, u64 gpa, u64 info);
/* Finish a task switch to the TSS of @selector; vcpu->ev.injected came through the gate, if it was one. */
int keel_task_switch(struct keel_vcpu *vcpu, u16 selector, enum emul_switch why, u64 next_rip);
/* The guest's own page fault, intercepted: shadow paging only.  @error: the CPU's error code. */
int keel_shadow_fault(struct keel_vcpu *vcpu, u64 gva, u32 error);
int keel_insn_init(struct keel_vcpu *vcpu);
void keel_insn_free(struct keel_vcpu *vcpu);
void keel_insn_forget(struct keel_vcpu *vcpu);	/* what userspace was to answer is not waited for any more */
/* Userspace has set registers; @moved: RIP is elsewhere, where there is nothing to complete. */
void keel_insn_changed(struct keel_vcpu *vcpu, bool moved);
/* One IN/OUT of @size bytes from/to RAX; the backend gives the next RIP. */
int keel_pio(struct keel_vcpu *vcpu, u16 port, unsigned int size, bool in, u64 next_rip);
int keel_emulate_bp(struct keel_vcpu *vcpu);	/* #BP, intercepted for the VMM's breakpoints */
bool keel_wants_ud(struct keel_vcpu *vcpu);	/* may #UD be of something that is an instruction to the guest? */
int keel_emulate_ud(struct keel_vcpu *vcpu);	/* #UD, intercepted: the other vendor's calls */
int keel_emulate_mwait(struct keel_vcpu *vcpu);	/* MONITOR or MWAIT */
/* CPUID, RDMSR, WRMSR, hypercall and XSETBV of the guest, instruction length included. */
int keel_emulate_cpuid(struct keel_vcpu *vcpu);
int keel_emulate_rdmsr(struct keel_vcpu *vcpu);
int keel_emulate_wrmsr(struct keel_vcpu *vcpu);
int keel_emulate_xsetbv(struct keel_vcpu *vcpu);
int keel_emulate_hypercall(struct keel_vcpu *vcpu);	/* hypercall.c */

extern struct kmem_cache *keel_vcpu_cache;

#endif
