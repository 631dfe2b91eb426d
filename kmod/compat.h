/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * compat.h - what differs between the kernels keel builds on (6.1 to 7.2), here and nowhere else.  Where a version number
 * does not tell, since stable kernels take the change as well, Kbuild looks into the headers: KEEL_HAS_*.
 */
#ifndef KEEL_COMPAT_H
#define KEEL_COMPAT_H

#include <linux/context_tracking.h>
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/hardirq.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kernel_stat.h>
#include <linux/kobject.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/smp.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/syscore_ops.h>
#include <linux/task_work.h>
#include <linux/timekeeping.h>
#include <linux/version.h>
#ifdef KEEL_HAS_HVHDK			/* 6.14's names for it */
#include <hyperv/hvhdk.h>
#else
#include <asm/hyperv-tlfs.h>
#endif
#ifndef HV_FEATURE_EXT_GVA_RANGES_FLUSH	/* before 6.2 */
#define HV_FEATURE_EXT_GVA_RANGES_FLUSH	BIT(14)
#endif
#include <asm/asm.h>
#include <asm/cpu.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/hardirq.h>
#include <asm/ldt.h>
#include <asm/mce.h>
#include <asm/mmu_context.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>
#include <asm/perf_event.h>
#include <asm/processor.h>
#include <asm/reboot.h>
#include <asm/svm.h>
#include <asm/tlbflush.h>
#include <asm/tsc.h>
#include <asm/vmx.h>
#include <asm/irq_vectors.h>
#include <uapi/kvm-newer.h>
#ifdef KEEL_HAS_LINUX_UNALIGNED
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif
#ifdef KEEL_HAS_CPUID_API		/* with asm/processor.h on older kernels */
#include <asm/cpuid/api.h>
#endif

/* What there is no way around. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error keel needs Linux 6.1 or later
#endif
#ifndef CONFIG_X86_64
#error keel needs a 64-bit kernel (CONFIG_X86_64)
#endif
#ifndef CONFIG_MMU_NOTIFIER
#error keel needs a kernel with CONFIG_MMU_NOTIFIER, which CONFIG_KVM selects
#endif
#ifdef CONFIG_PREEMPT_RT
#error keel does not work on a kernel with CONFIG_PREEMPT_RT, whose spinlocks sleep: it takes some while a guest holds the CPU
#endif
#ifndef CONFIG_PREEMPT_NOTIFIERS
#error keel needs a kernel with CONFIG_PREEMPT_NOTIFIERS, which CONFIG_KVM selects
#endif

/* 6.16 renamed the 64-bit MSR accessors; the new names are ours everywhere. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0) && !defined(rdmsrq)
#define rdmsrq(msr, val)	rdmsrl(msr, val)
#define wrmsrq(msr, val)	wrmsrl(msr, val)
#define rdmsrq_safe(msr, p)	rdmsrl_safe(msr, p)
#define wrmsrq_safe(msr, val)	wrmsrl_safe(msr, val)
#endif

/*
 * Until a VMM says what CPU it is, KVM before 6.14 lets control registers have whatever the host's could, and VMMs may rely on
 * either: the kernel's own tests do, each version's on its own.
 */
#define KEEL_UNSAID_IS_NONE	(LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0))

/* A buffer that is filled before it is looked at: kernels that clear all of the stack need not clear it. */
#ifndef __uninitialized
#if __has_attribute(__uninitialized__)
#define __uninitialized		__attribute__((__uninitialized__))
#else
#define __uninitialized
#endif
#endif

/*
 * The accessors above go through a table of paravirtual operations, which is a call and costs more than the instruction.
 * These do not; they are for MSRs that are there.  keel runs on no hypervisor that must be told of them.
 */
static __always_inline u64 keel_rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("1: rdmsr\n2:\n" _ASM_EXTABLE_TYPE(1b, 2b, EX_TYPE_RDMSR) : "=a" (lo), "=d" (hi) : "c" (msr));
	return lo | (u64)hi << 32;
}

static __always_inline void keel_wrmsr(u32 msr, u64 val)
{
	asm volatile("1: wrmsr\n2:\n" _ASM_EXTABLE_TYPE(1b, 2b, EX_TYPE_WRMSR) : : "c" (msr), "a" ((u32)val),
		     "d" ((u32)(val >> 32)) : "memory");
}

#ifndef KEEL_HAS_HRTIMER_SETUP
static inline void hrtimer_setup(struct hrtimer *timer, enum hrtimer_restart (*fn)(struct hrtimer *),
				 clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock, mode);
	timer->function = fn;
}
#endif

/* 6.8 took the count away from eventfd_signal(). */
static inline void keel_eventfd_signal(struct eventfd_ctx *ctx)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
	eventfd_signal(ctx, 1);
#else
	eventfd_signal(ctx);
#endif
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 6.7 took over the allocation of shrinkers.  NULL: no memory for it. */
static inline struct shrinker *keel_shrinker_add(const char *name, int seeks,
						 typeof(((struct shrinker *)0)->count_objects) count,
						 typeof(((struct shrinker *)0)->scan_objects) scan)
{
	struct shrinker *shrinker;

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	shrinker = kzalloc(sizeof(*shrinker), GFP_KERNEL);
#else
	shrinker = shrinker_alloc(0, "%s", name);
#endif
	if (!shrinker)
		return NULL;
	shrinker->count_objects = count;
	shrinker->scan_objects = scan;
	shrinker->seeks = seeks;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	if (register_shrinker(shrinker, "%s", name)) {
		kfree(shrinker);
		return NULL;
	}
#else
	shrinker_register(shrinker);
#endif
	return shrinker;
}

static inline void keel_shrinker_free(struct shrinker *shrinker)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	unregister_shrinker(shrinker);
	kfree(shrinker);
#else
	shrinker_free(shrinker);
#endif
}

/* Names of the hardware's structures and bits that have changed. */
#ifdef SVM_MISC_ENABLE_NP
#define KEEL_SVM_ENABLE_NP	SVM_MISC_ENABLE_NP
#define keel_nested_ctl		misc_ctl
#else
#define KEEL_SVM_ENABLE_NP	SVM_NESTED_CTL_NP_ENABLE
#define keel_nested_ctl		nested_ctl
#endif
#ifndef EPT_VIOLATION_RWX_MASK
#define EPT_VIOLATION_RWX_MASK	EPT_VIOLATION_PROT_MASK
#endif
#ifndef SECONDARY_EXEC_XSAVES
#define SECONDARY_EXEC_XSAVES	SECONDARY_EXEC_ENABLE_XSAVES
#endif

/* 6.4: CPUID.(7,0):ECX; 6.18: SDM 3C 24.4.1, 24.5, 24.7.1, 24.8.1, appendix B.3 and B.4. */
#ifndef X86_FEATURE_SHSTK
#define X86_FEATURE_SHSTK	(16 * 32 + 7)
#endif
#ifndef VM_ENTRY_LOAD_CET_STATE
#define VM_ENTRY_LOAD_CET_STATE	BIT(20)
#define VM_EXIT_LOAD_CET_STATE	BIT(28)
#define GUEST_S_CET		0x6828
#define GUEST_SSP		0x682a
#define GUEST_INTR_SSP_TABLE	0x682c
#define HOST_S_CET		0x6c18
#define HOST_SSP		0x6c1a
#define HOST_INTR_SSP_TABLE	0x6c1c
#endif

/* 6.4 traces who sends the interrupt, and leaves it to the sender to know how. */
#ifdef smp_send_reschedule
#include <trace/events/ipi.h>
#endif

/* 6.10 marks what userspace can change at any time in its name, also for those who read it once. */
static inline bool keel_immediate_exit(const struct kvm_run *run)
{
#ifdef HINT_UNSAFE_IN_KVM
	return READ_ONCE(run->immediate_exit__unsafe);
#else
	return READ_ONCE(run->immediate_exit);
#endif
}

/* 6.4 makes flags of what was the guest's mode alone. */
static inline void keel_hypercall_mode(struct kvm_run *run, bool is64)
{
#ifdef KVM_EXIT_HYPERCALL_LONG_MODE
	run->hypercall.flags = is64 ? KVM_EXIT_HYPERCALL_LONG_MODE : 0;
#else
	run->hypercall.longmode = is64;
#endif
}

/* 7.2 takes a snapshot of one clock beside the raw one, of our choice. */
struct keel_time {
	u64 cycles;		/* of the clock source */
	ktime_t raw, real;
};

static inline void keel_time_snapshot(struct keel_time *t)
{
	struct system_time_snapshot s;

#ifndef KEEL_HAS_KTIME_SNAPSHOT_ID
	ktime_get_snapshot(&s);
	t->raw = s.raw;
	t->real = s.real;
#else
	ktime_get_snapshot_id(CLOCK_REALTIME, &s);
	t->raw = s.monoraw;
	t->real = s.systime;
#endif
	t->cycles = s.cycles;
}

/* Later kernels want it said which work queues have workers for each CPU; before that these were the rule. */
#ifndef KEEL_HAS_WQ_PERCPU
#define WQ_PERCPU	0
#endif

/* 6.19, and stable kernels before, gave the callbacks of suspend and resume a context. */
#ifndef KEEL_HAS_REGISTER_SYSCORE
#define KEEL_DEFINE_SYSCORE(name, suspend_fn, resume_fn)			\
static int name##_suspend(void) { return suspend_fn(); }			\
static void name##_resume(void) { resume_fn(); }				\
static struct syscore_ops name = { .suspend = name##_suspend, .resume = name##_resume }
#define keel_syscore_register(name)	register_syscore_ops(name)
#define keel_syscore_unregister(name)	unregister_syscore_ops(name)
#else
#define KEEL_DEFINE_SYSCORE(name, suspend_fn, resume_fn)			\
static int name##_suspend(void *unused) { return suspend_fn(); }		\
static void name##_resume(void *unused) { resume_fn(); }			\
static const struct syscore_ops name##_ops = { .suspend = name##_suspend, .resume = name##_resume };	\
static struct syscore name = { .ops = &name##_ops }
#define keel_syscore_register(name)	register_syscore(name)
#define keel_syscore_unregister(name)	unregister_syscore(name)
#endif

/*
 * The state of CPU hotplug whose teardown comes when no thread runs on the CPU any more: the states that modules get given
 * are torn down while threads are still moved away.  One that only another architecture has a use for.
 */
#define KEEL_CPUHP_DYING	CPUHP_AP_ARM64_ISNDEP_STARTING

/* What the notifiers of page age return. */
typedef typeof(((struct mmu_notifier_ops *)NULL)->test_young(NULL, NULL, 0)) keel_young_t;

/* 6.2 taught get_user_pages() to stop for a signal that does not kill. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define FOLL_INTERRUPTIBLE	0
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0) && !defined(fd_file)
#define fd_file(f)	((f).file)
#endif

/*
 * CR4 has a copy in the kernel, which must not be left behind.  Later kernels keep the one function that changes both
 * for kvm.ko: there a backend that needs a bit of CR4 says so and is not loaded.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define KEEL_MAY_SET_CR4	1
static inline void keel_cr4_set(unsigned long bit)
{
	cr4_set_bits(bit);
}

static inline void keel_cr4_clear(unsigned long bit)
{
	cr4_clear_bits(bit);
}
#else
#define KEEL_MAY_SET_CR4	0
static inline void keel_cr4_set(unsigned long bit) { }
static inline void keel_cr4_clear(unsigned long bit) { }
#endif

/* What the kernel does against L1TF, as an enum keel_l1d of mitigate.h.  Later kernels tell only kvm.ko. */
static inline int keel_l1tf_choice(void)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0) && IS_ENABLED(CONFIG_KVM_INTEL)
	if (l1tf_mitigation == L1TF_MITIGATION_OFF)
		return 0;
	return l1tf_mitigation == L1TF_MITIGATION_FULL || l1tf_mitigation == L1TF_MITIGATION_FULL_FORCE ? 2 : 1;
#else
	return cpu_mitigations_off() ? 0 : 1;
#endif
}

/* Does the kernel clear data of devices (MMIO stale data) by hand before entries?  Where it does not tell, it does if it does anything. */
static inline bool keel_mmio_stale_choice(void)
{
#ifdef KEEL_HAS_MMIO_STALE_DATA_CLEAR
	return static_key_enabled(&mmio_stale_data_clear);
#else
	return boot_cpu_has_bug(X86_BUG_MMIO_STALE_DATA) && !cpu_mitigations_off();
#endif
}

/* Interrupts, and what they led to, leave a note for kvm-intel; kernels that are built without it leave none. */
static inline bool keel_irq_filled_l1d(void)
{
#if IS_ENABLED(CONFIG_KVM_INTEL)
	return kvm_get_cpu_l1tf_flush_l1d();
#else
	return true;
#endif
}

static inline void keel_irq_forget_l1d(void)
{
#if IS_ENABLED(CONFIG_KVM_INTEL)
	kvm_clear_cpu_l1tf_flush_l1d();
#endif
}

/* perf's counters, and how to keep a guest's apart, are told of to kvm.ko only on those that keep CR4 for it, too. */
static inline void keel_perf_capability(struct x86_pmu_capability *cap)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	perf_get_x86_pmu_capability(cap);
#endif
}

/* Does it tell keel? */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define KEEL_PERF_TELLS	1
#else
#define KEEL_PERF_TELLS	0
#endif

/*
 * IRQs off.  Where the CPU could do PEBS in a guest perf looks into a struct of kvm.ko's, which some kernels allow to be
 * missing and others do not: they find zeros there, which is a guest without PEBS.
 */
static inline struct perf_guest_switch_msr *keel_perf_guest_msrs(int *n)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	return perf_guest_get_msrs(n, empty_zero_page);
#else
	return NULL;
#endif
}

/*
 * IRQs off.  Another number once this CPU has taken an interrupt in which perf may have changed what is counted here: a call
 * from another CPU, a timer, an NMI, or work that one left.  Others it counts as well, which does no harm.
 */
static inline unsigned long keel_irqs_taken(void)
{
	unsigned long n = 0;

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	n = this_cpu_read(kstat.irqs_sum) + this_cpu_read(irq_stat.apic_timer_irqs) +
	    this_cpu_read(irq_stat.apic_irq_work_irqs) + this_cpu_read(irq_stat.__nmi_count);
#ifdef CONFIG_SMP
	n += this_cpu_read(irq_stat.irq_call_count);
#endif
#ifdef CONFIG_X86_HV_CALLBACK_VECTOR	/* hypervisors above that have timers of their own */
	n += this_cpu_read(irq_stat.irq_hv_callback_count);
#endif
#if IS_ENABLED(CONFIG_HYPERV)
	n += this_cpu_read(irq_stat.hyperv_stimer0_count);
#endif
#endif
	return n;
}

/* IRQs off, this CPU has SVM on, or has it no more: only with it can perf's events that leave guests out do so. */
static inline void keel_perf_svm(bool on)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	if (on)
		amd_pmu_enable_virt();
	else
		amd_pmu_disable_virt();
#endif
}

/* Around VMX operation, in which some CPUs cannot trace: perf's events of Processor Trace pause. */
static inline void keel_perf_vmx(bool on)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0) && defined(CONFIG_CPU_SUP_INTEL)
	intel_pt_handle_vmx(on);
#endif
}

/*
 * The host's detection of split locks has stopped the guest: as for any task the kernel warns, slows this thread down and
 * lets it, or sends it SIGBUS; then false.  May sleep.  On kernels that say so to kvm.ko alone the VMM is told.
 */
static inline bool keel_guest_split_lock(unsigned long rip)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	return handle_guest_split_lock(rip);
#else
	return false;
#endif
}

/* Preemption off: has somebody asked to be told when this CPU goes back to user mode?  Only kvm.ko does that. */
static inline bool keel_user_return_awaited(void)
{
#ifdef CONFIG_USER_RETURN_NOTIFIER
	return test_thread_flag(TIF_USER_RETURN_NOTIFY);
#else
	return false;
#endif
}

/* Does the kernel put a branch prediction barrier between processes, and so between guests? */
static inline bool keel_wants_ibpb(void)
{
#ifdef X86_FEATURE_USE_IBPB
	return boot_cpu_has(X86_FEATURE_USE_IBPB);
#else
	return boot_cpu_has(X86_FEATURE_IBPB) && !cpu_mitigations_off();
#endif
}

/* How long this thread has waited for a CPU; sched_info_on() says whether that is known. */
static inline u64 keel_run_delay(void)
{
#ifdef CONFIG_SCHED_INFO
	return current->sched_info.run_delay;
#else
	return 0;
#endif
}

/* IRQs off: this CPU has just been in a guest, where it holds no reference RCU could wait for. */
static inline void keel_rcu_note_guest(void)
{
	rcu_note_context_switch(false);
}

/* Does the kernel take its events through FRED instead of the IDT (6.9)?  CPUID's bit is there also if it was built without. */
static inline bool keel_has_fred(void)
{
#ifdef X86_FEATURE_FRED
	return cpu_feature_enabled(X86_FEATURE_FRED);
#else
	return false;
#endif
}

/*
 * How a CPU gets out of virtualization when the kernel dies: before 6.5 it knows by itself; until 6.18, and in stable kernels
 * before, it calls back whoever has turned it on; in 7.2 it knows again.  In between only kvm.ko is called, which is of
 * little use to SVM: it holds off neither INIT nor the next kernel, but for the few instructions around VMRUN.
 *
 * There is room for one callback.  Before 6.12 kvm's modules take it for as long as they are loaded, and theirs does what
 * ours would; later for as long as they have virtualization on, when keel cannot.  But they take it before they try,
 * and warn if it is taken: while one is being loaded keel has none.
 */
#if defined(KEEL_HAS_EMERGENCY_CALLBACK) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define KEEL_EMERGENCY_CALLBACK	1
/* kvm's modules have it all the while that they are there. */
#define KEEL_EMERGENCY_KVM	(LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0))

static inline void keel_emergency_register(void (*callback)(void))
{
	cpu_emergency_register_virt_callback(callback);
}

static inline void keel_emergency_unregister(void (*callback)(void))
{
	cpu_emergency_unregister_virt_callback(callback);
}
#else
#define KEEL_EMERGENCY_CALLBACK	0
#define KEEL_EMERGENCY_KVM	0
static inline void keel_emergency_register(void (*callback)(void)) { }
static inline void keel_emergency_unregister(void (*callback)(void)) { }
#endif

/* A machine check, as if it had come in that place. */
static inline void keel_do_machine_check(struct pt_regs *regs)
{
#ifdef CONFIG_X86_MCE
	do_machine_check(regs);
#endif
}

/* All that the mask could set the guest's state sets. */
#define KEEL_FPU_NONE	0

/*
 * From 6.15 on who has the FPU holds back softirqs: what interrupts raise meanwhile waits.  What had been left to ksoftirqd
 * before is ksoftirqd's: keel_fpu_begin() returns it, and a guest runs beside that as any thread does.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0) && !defined(CONFIG_PREEMPT_RT)
static inline u32 keel_softirqs_held(u32 known)
{
	return local_softirq_pending() & ~known;
}

static inline u32 keel_fpu_begin(void)
{
	u32 known;

	kernel_fpu_begin_mask(KEEL_FPU_NONE);
	if (likely(!local_softirq_pending()))
		return 0;
	/* Left over, or raised just now?  They are run here, and it is looked again where nothing comes in between. */
	kernel_fpu_end();
	local_irq_disable();
	known = local_softirq_pending();
	local_bh_disable();
	local_irq_enable();
	kernel_fpu_begin_mask(KEEL_FPU_NONE);
	local_bh_enable();
	return known;
}

/*
 * And a tick that finds them held back takes the guest's time for the kernel's.  What has been added to that since it was
 * @before goes where account_guest_time() would have had it; a cgroup's statistics, and timers of a process's user time,
 * keep it as it was.
 */
static inline void keel_account_ticks(u64 before)
{
	bool nice = task_nice(current) > 0;
	u64 ticks = current->stime - before, *cpustat;

	if (likely(!ticks))
		return;
	local_irq_disable();
	current->stime -= ticks;
	current->utime += ticks;
	current->gtime += ticks;
	cpustat = kcpustat_this_cpu->cpustat;
	cpustat[CPUTIME_SYSTEM] -= ticks;
	cpustat[nice ? CPUTIME_NICE : CPUTIME_USER] += ticks;
	cpustat[nice ? CPUTIME_GUEST_NICE : CPUTIME_GUEST] += ticks;
	local_irq_enable();
}
#else
static inline void keel_account_ticks(u64 before)
{
}

static inline u32 keel_softirqs_held(u32 known)
{
	return 0;
}

static inline u32 keel_fpu_begin(void)
{
	kernel_fpu_begin_mask(KEEL_FPU_NONE);
	return 0;
}
#endif

/*
 * The state components that this process has asked for, for its guests (ARCH_REQ_XCOMP_GUEST_PERM).  The kernel tells only
 * kvm.ko, which keeps them from being asked for once there is a vCPU; the flag for that is in here, too.
 */
static inline u64 keel_guest_xfeatures(void)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0)
	const struct fpu *fpu = &current->group_leader->thread.fpu;
#else					/* x86_task_fpu(), which is not for modules if it checks its argument */
	const struct fpu *fpu = (void *)current->group_leader + sizeof(struct task_struct);
#endif
	return READ_ONCE(fpu->guest_perm.__state_perm);
}

#ifndef DEBUGCTLMSR_RTM_DEBUG		/* 6.17, and stable kernels since */
#define DEBUGCTLMSR_RTM_DEBUG	BIT(15)
#endif

#ifndef X86_FEATURE_AMX_FP16		/* 6.2 */
#define X86_FEATURE_AMX_FP16	(12 * 32 + 21)
#endif

/* 6.13 has a second flag for what is not urgent, and makes cond_resched() deaf to it. */
#ifdef _TIF_NEED_RESCHED_LAZY
#define KEEL_TIF_RESCHED	(_TIF_NEED_RESCHED | _TIF_NEED_RESCHED_LAZY)
#else
#define KEEL_TIF_RESCHED	_TIF_NEED_RESCHED
#endif

/*
 * This thread's LDT, which an exit takes out of the CPU.  Another thread may give the process one, or a new one, at any
 * time: the descriptor in the GDT is then as old as the interrupt that tells of it, and only the process knows which it
 * is.  The kernel has a function for that, which it does not export.
 */
static inline bool keel_has_ldt(void)
{
#ifdef CONFIG_MODIFY_LDT_SYSCALL
	return READ_ONCE(current->mm->context.ldt);
#else
	return false;
#endif
}

static inline void keel_load_ldt(void)
{
#ifdef CONFIG_MODIFY_LDT_SYSCALL
	const struct ldt_struct *ldt;
	const void *entries;
	unsigned long flags;

	/* Whoever frees it waits for an interrupt here first. */
	local_irq_save(flags);
	ldt = READ_ONCE(current->mm->context.ldt);
	entries = ldt->entries;
	/* Where page tables are isolated user mode has it elsewhere, in one of two slots. */
	if (boot_cpu_has(X86_FEATURE_PTI))
		entries = (const void *)(LDT_BASE_ADDR + ldt->slot * (unsigned long)(LDT_ENTRIES * LDT_ENTRY_SIZE));
	set_ldt(entries, ldt->nr_entries);
	local_irq_restore(flags);
#endif
}

/*
 * Must this thread do something before it may enter its guest?  entry-kvm.h has a helper for that, which
 * wants kvm.ko's own vCPU.  TIF_NOTIFY_RESUME by itself is no reason: restartable sequences set it at every
 * preemption, and only matter on the way to user mode.  Queued task work is run there too, so it is one.
 */
static inline bool keel_guest_mode_work_pending(void)
{
	unsigned long flags = read_thread_flags();

	if (likely(!(flags & (KEEL_TIF_RESCHED | _TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL | _TIF_NOTIFY_RESUME))))
		return false;
	return (flags & (KEEL_TIF_RESCHED | _TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL)) || task_work_pending(current);
}

/*
 * Do it, or answer -EINTR: there is a signal.  Queued work is done on the way to user mode, and nobody exports another
 * place for it; userspace is not to hear of it, so -ERESTARTNOHAND has it make the same call again.  Kernels from 6.4 to
 * 6.18 have such work for a busy thread ten times a second.
 */
static inline int keel_guest_mode_work(void)
{
	if (signal_pending(current))
		return -EINTR;
	if (task_work_pending(current))
		return -ERESTARTNOHAND;
	if (read_thread_flags() & KEEL_TIF_RESCHED)
		schedule();
	return 0;
}

/*
 * The vector for posted interrupts, for which kernels made without KVM have no gate: 0.  What comes there when no guest
 * is running is counted, and that is all.
 */
#if defined(CONFIG_HAVE_KVM) || IS_ENABLED(CONFIG_KVM)
#define KEEL_POSTED_VECTOR	POSTED_INTR_VECTOR
#else
#define KEEL_POSTED_VECTOR	0
#endif

/* Features and registers that CPUs have had longer than the oldest of these kernels has names for them. */
#ifndef X86_FEATURE_SHA512		/* 6.14, like the two below */
#define X86_FEATURE_SHA512		(12 * 32 + 0)
#define X86_FEATURE_SM3			(12 * 32 + 1)
#define X86_FEATURE_SM4			(12 * 32 + 2)
#endif
#ifndef X86_FEATURE_CMPCCXADD		/* 6.2 */
#define X86_FEATURE_CMPCCXADD		(12 * 32 + 7)
#endif
#ifndef X86_FEATURE_FZRM		/* 6.4 */
#define X86_FEATURE_FZRM		(12 * 32 + 10)
#define X86_FEATURE_FSRS		(12 * 32 + 11)
#define X86_FEATURE_FSRC		(12 * 32 + 12)
#endif
#ifndef X86_FEATURE_AVX_IFMA		/* 6.2 */
#define X86_FEATURE_AVX_IFMA		(12 * 32 + 23)
#endif
#ifndef X86_FEATURE_LAM			/* 6.4 */
#define X86_FEATURE_LAM			(12 * 32 + 26)
#endif
#ifndef X86_FEATURE_AMD_PSFD		/* 6.2 */
#define X86_FEATURE_AMD_PSFD		(13 * 32 + 28)
#endif
#ifndef X86_CR4_LAM_SUP
#define X86_CR4_LAM_SUP			BIT_ULL(28)
#define X86_CR3_LAM_U57			BIT_ULL(61)
#define X86_CR3_LAM_U48			BIT_ULL(62)
#endif

#endif
