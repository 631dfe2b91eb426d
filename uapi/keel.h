/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * keel.h - what /dev/keel offers beside KVM's ABI.
 *
 * The ABI of the node itself is KVM's: <linux/kvm.h> and <asm/kvm.h> of the system, API version 12.  Each
 * addition stands here with its sizes, units, errors and the source section it comes from.
 */
#ifndef _UAPI_KEEL_H
#define _UAPI_KEEL_H

#include <linux/ioctl.h>
#include <linux/kvm.h>
#include <linux/types.h>

#define KEEL_NODE	"/dev/keel"	/* character device, dynamic minor: see /proc/misc */

#define KEEL_IOC	0xbb		/* not KVM's 0xae */

/*
 * On the node.  The argument is a file descriptor of a virtual machine of the kernel's own KVM, as KVM_CREATE_VM on /dev/kvm
 * answers: the token.  keel never looks into it, and it needs no vCPU and no memory.  While keel holds the file kvm.ko keeps
 * the CPUs' virtualization on and cannot be unloaded, and keel's VMs run beside kvm's: from the next VM of keel's that is the
 * first, that is from a moment at which it has none.  keel needs one token, holds the first one, and answers 0 for others,
 * which it does not keep.  The token outlives whoever gave it.  It goes back with -1 for an argument, or when keel is unloaded.
 * All or nothing; returns 0, or:
 *	EBADF		no open file
 *	EINVAL		not such a virtual machine: another file, or one of keel's
 *	EOPNOTSUPP	the module was loaded with mode=own
 * and for -1:
 *	EPERM		without CAP_SYS_MODULE: others may be about to start a VM
 *	EBUSY		keel has VMs that run by it
 */
#define KEEL_BESIDE_KVM	_IO(KEEL_IOC, 0x00)

/*
 * KEEL_GET_INFO, on the node or a VM: which of these calls there are, here and with this CPU.  Fields that a later
 * version adds come out of @reserved and read as zero where they are not known.  No errors but EFAULT and, of a VM that is
 * dead or another process's, EIO.
 */
struct keel_info {
	__u64 features;		/* KEEL_FEATURE_* */
	__u64 state_version;	/* of what KEEL_GET_STATE gives: KEEL_STATE_VERSION */
	__u32 max_snapshots;	/* that a VM may have */
	__u32 max_depth;	/* from one without a parent down */
	__u64 reserved[13];
};

#define KEEL_FEATURE_STATE	(1ULL << 0)	/* KEEL_GET_STATE, KEEL_SET_STATE */
#define KEEL_FEATURE_SNAPSHOT	(1ULL << 1)	/* KEEL_SNAPSHOT, KEEL_RESET, KEEL_DROP, KEEL_MARK_DIRTY */
#define KEEL_FEATURE_WORKING_SET (1ULL << 2)	/* pages that each run writes cost no exit */
#define KEEL_FEATURE_RESET_RUN	(1ULL << 3)	/* KEEL_RESET_RUN */
#define KEEL_FEATURE_ALLOW_RESET (1ULL << 4)	/* KEEL_ALLOW_RESET, KEEL_HC_RESET */
#define KEEL_FEATURE_ACCESSED	(1ULL << 5)	/* KEEL_WORKING_SET: the CPU marks what it accesses */
#define KEEL_FEATURE_CREATE_FROM (1ULL << 8)	/* KEEL_WITH_SETUP, KEEL_CREATE_VM_FROM: templates, and fork(2) */

#define KEEL_GET_INFO		_IOR(KEEL_IOC, 0x01, struct keel_info)

/* ------------------------------------------------------------------ the state of a VM (kmod/snap/state.c)
 *
 * KEEL_GET_STATE and KEEL_SET_STATE, on a VM: what the machine is in the midst of, of the VM and all its vCPUs, in one
 * piece: what KVM's ioctls get and set, and what they lose.  Not memory, and not how the machine was set up (memslots,
 * routes, CPUID, capabilities, filters, eventfds): a state goes to a VM set up as the one that it was taken of.  With
 * KEEL_WITH_SETUP KEEL_GET_STATE puts the set-up before it: for KEEL_CREATE_VM_FROM, below, and KEEL_SET_STATE refuses it.
 *
 * It consists of a struct keel_state_head and sections, each a struct keel_section and its data, padded to 8 bytes; first
 * those of the VM, then those of each vCPU in the order in which they were created.  Which there are, and in which order,
 * follows from how the VM was set up; KEEL_SET_STATE takes them as KEEL_GET_STATE of the same VM would give them.
 *
 * Points in time are told on the VM's own axes, of which the clock's section says where they stood at the moment of the
 * look: so a state that is set and got again is the same, bit for bit, but for that one section's first fields.  Setting it
 * moves the axes, and guests' clocks, TSCs and timers go on where they were; with KEEL_TIME_GOES_ON the axes stay, and it
 * is to the guest as if it had been stopped for that long.  On a host whose CPUs' TSCs differ a vCPU's TSC is set anew by the
 * host's time whenever it is used on another CPU, by these calls as well: there it is the same only if asked for on one CPU.
 *
 * No vCPU may be in KVM_RUN or another of its ioctls, or in the midst of an exit that its next KVM_RUN completes: call that
 * with immediate_exit first.  Devices of the VMM, and irqfds, are to be quiet; an interrupt that comes meanwhile is in the
 * state, or comes after.
 *
 * Errors, of both:
 *	EBUSY		a vCPU is in an ioctl; section.id is 0, section.vcpu says whose
 *	EINPROGRESS	a vCPU's exit waits to be completed, likewise
 *	EAGAIN		a page that the guest waits for asynchronously is on its way: let it run on
 *	ENOMEM, EFAULT, EINVAL (flags, reserved not zero)
 * of KEEL_GET_STATE:
 *	E2BIG		@size is too small, and says now what is enough
 * of KEEL_SET_STATE:
 *	EINVAL		no state, or a value in @section cannot be set
 *	EPROTO		another version, or a section that is not known: @section
 *	ENODEV		of a VM that is set up otherwise: @section is not what should be there
 * After an error the VM is as it was.  If that cannot be had it is dead: EIO, from then on and for all its ioctls.
 */
struct keel_section {
	__u32 id;		/* KEEL_SECTION_* */
	__u32 vcpu;		/* the id it was created with; KEEL_SECTION_VM: none */
	__u32 length;		/* of the data, without padding */
	__u32 reserved;		/* 0 */
};

#define KEEL_SECTION_VM		0xffffffffU

struct keel_state_head {
	__u64 magic;		/* KEEL_STATE_MAGIC */
	__u32 version;		/* KEEL_STATE_VERSION */
	__u32 sections;		/* how many follow */
};

#define KEEL_STATE_MAGIC	0x65746174734c454bULL	/* "KELstate" */
#define KEEL_STATE_VERSION	3

struct keel_state {
	__u64 data;		/* its address */
	__u64 size;		/* bytes there; KEEL_GET_STATE: out, bytes of the state */
	__u32 flags;		/* KEEL_GET_STATE: KEEL_WITH_SETUP; KEEL_SET_STATE: KEEL_TIME_GOES_ON; else 0 */
	__u32 reserved;		/* 0 */
	struct keel_section section;	/* out, where an error is about one */
};

#define KEEL_TIME_GOES_ON	(1U << 0)
#define KEEL_WITH_SETUP		(1U << 2)

#define KEEL_GET_STATE		_IOWR(KEEL_IOC, 0x02, struct keel_state)
#define KEEL_SET_STATE		_IOWR(KEEL_IOC, 0x03, struct keel_state)

/* The VM's: */
#define KEEL_SECTION_CLOCK	1	/* struct keel_state_clock */
#define KEEL_SECTION_PIC	2	/* struct keel_state_pic, with an interrupt controller in the kernel */
#define KEEL_SECTION_IOAPIC	3	/* struct keel_state_ioapic, likewise */
#define KEEL_SECTION_PIT	4	/* struct keel_state_pit, with a PIT */
#define KEEL_SECTION_HYPERV	5	/* struct keel_state_hyperv, where a vCPU has Hyper-V's interface */
/* A vCPU's: */
#define KEEL_SECTION_TSC	16	/* struct keel_state_tsc */
#define KEEL_SECTION_REGS	17	/* struct kvm_regs */
#define KEEL_SECTION_SREGS	18	/* struct kvm_sregs2 */
#define KEEL_SECTION_FPU	19	/* struct keel_state_fpu and an XSAVE area in its standard format */
#define KEEL_SECTION_DEBUGREGS	20	/* struct kvm_debugregs */
#define KEEL_SECTION_MSRS	21	/* struct kvm_msr_entry, as many as there are */
#define KEEL_SECTION_MCE	22	/* struct keel_state_mce */
#define KEEL_SECTION_PV		23	/* struct keel_state_pv */
#define KEEL_SECTION_EVENTS	24	/* struct keel_state_events */
#define KEEL_SECTION_LAPIC	25	/* struct keel_state_lapic, with a LAPIC in the kernel */
#define KEEL_SECTION_HYPERV_VCPU 26	/* struct keel_state_hyperv_vcpu, likewise; empty for vCPUs without */

struct keel_state_clock {
	__u64 tsc;		/* the host's TSC on the VM's axis, at the moment of the look */
	__u64 raw_ns;		/* and its raw time, that asleep included, */
	__u64 mono_ns;		/* and its monotonic time, to which timers run */
	__u64 offset;		/* kvmclock is raw_ns and this, where it is no line: */
	__u64 line_tsc, line_ns;	/* a point of the line, where the TSC is on its axis, and kvmclock */
	__u64 line_ratio;	/* of the TSCs, in the CPU's fixed point; 0: the host's rate */
	__u64 wall_msr;		/* MSR_KVM_WALL_CLOCK */
	__u64 written_tsc, written_ns, written_offset, written_ratio;	/* the last TSC that a vCPU was given, if any */
	__u32 mult;		/* the line's rate, as guests see it */
	__s8 shift;
	__u8 stable;		/* there is a line */
	__u8 written;		/* KEEL_TSC_* */
	__u8 reserved;
};

#define KEEL_TSC_MADE	1	/* by KVM_CREATE_VCPU */
#define KEEL_TSC_BY_VMM	2	/* by KVM_SET_MSRS or KVM_VCPU_TSC_OFFSET at least once */

struct keel_state_tsc {
	__u64 offset;		/* guest's TSC = the axis' TSC * ratio + offset */
	__u64 ratio;
	__u64 time_msr;		/* MSR_KVM_SYSTEM_TIME */
	__u32 khz;
	__u8 stopped;		/* the guest is to be told that it was (KVM_KVMCLOCK_CTRL, or the host slept) */
	__u8 page_due;		/* clock pages, Hyper-V's too, are to be written when the vCPU runs: they do not say this yet */
	__u8 reserved[2];
};

struct keel_state_pic {
	struct kvm_pic_state chip[2];
	__u8 sources[16];	/* by pin: bit 0, the VMM holds the line up; bit 2, the PIT does */
};

struct keel_state_ioapic {
	struct kvm_ioapic_state state;	/* irr: as it is, edges too */
	__u32 moved;		/* pins whose destination has changed since they sent */
	__u32 paused;		/* level pins that were up again too often ... */
	__u64 paused_until;	/* ... until then, mono_ns; 0: none */
	__u16 eois[24];		/* by pin: ends in a row with the line up */
	__u8 sources[24];	/* as above */
};

struct keel_state_pit {
	struct kvm_pit_state2 state;	/* count_load_time: mono_ns */
	__u64 expires;		/* mono_ns: the next tick, if armed */
	__u64 period;		/* ns; 0: it comes once */
	__u32 pending;		/* ticks that wait for an acknowledgement */
	__u8 armed, acked, reinject;
	__u8 reserved;
};

struct keel_state_fpu {
	__u64 xcr0, xss;
	__u64 ssp;		/* shadow stack pointer */
	__u32 pkru;
	__u32 reserved;
};

struct keel_state_mce {
	__u64 bank[32][4];	/* CTL, STATUS, ADDR, MISC */
	__u64 status, ctl, ext_ctl;	/* MSR_IA32_MCG_* */
	__u32 ctl2[32];
};

struct keel_state_pv {
	__u64 steal;		/* MSR_KVM_STEAL_TIME */
	__u64 eoi;		/* MSR_KVM_PV_EOI_EN */
	__u64 apf;		/* MSR_KVM_ASYNC_PF_EN */
	__u8 apf_vector;	/* MSR_KVM_ASYNC_PF_INT */
	__u8 apf_wake_all;	/* the guest is to be told that all pages are there */
	__u8 poll_off, migration_off;
	__u8 unhalted;		/* kicked: the next HLT ends at once */
	__u8 reserved[3];
};

struct keel_state_event {
	__u8 type;		/* 0: none, 1: interrupt, 2: NMI, 3: exception, 4: INT n, 5: INT3 or INTO */
	__u8 vector;
	__u8 has_error;
	__u8 insn_len;		/* of a software interrupt's instruction, at which RIP is */
	__u32 error;
	__u64 payload;		/* of #PF: CR2, of #DB: bits of DR6; not written yet */
	__u64 has_payload;
};

struct keel_state_events {
	struct keel_state_event exception;	/* raised and not delivered */
	struct keel_state_event injected;	/* in delivery when the guest was left: it goes in again */
	__u32 mp_state;		/* KVM_MP_STATE_* */
	__u32 mp_events;	/* latched: bit 0, INIT; bit 1, SIPI */
	__s32 user_vector;	/* of KVM_INTERRUPT, waiting; -1: none */
	__u8 nmi_pending;	/* 0 to 2 */
	__u8 nmi_masked;
	__u8 shadow;		/* KVM_X86_SHADOW_INT_* */
	__u8 smm;
	__u8 smm_in_nmi;
	__u8 smi_pending;
	__u8 sipi_vector;
	__u8 pending;		/* KEEL_PENDING_*: exits that are due */
	__u8 debug_vector;	/* of KVM_EXIT_DEBUG */
	__u8 reserved;
	__u16 traps;		/* Intel's: KEEL_TRAPS, that the CPU owes the guest a #DB for; else 0 */
	__u64 debug_dr6;
};

/* Bits 0 to 3, breakpoints; 11, a bus lock; 12, a breakpoint that is enabled; 14, a step.  SDM vol. 3 25.4.2 */
#define KEEL_TRAPS		0x580f

#define KEEL_PENDING_SHUTDOWN	(1U << 0)
#define KEEL_PENDING_DEBUG	(1U << 1)
#define KEEL_PENDING_EOI	(1U << 2)

struct keel_state_lapic {
	struct kvm_lapic_state state;	/* the current count is 0: */
	__u64 expires;		/* mono_ns: when the count reaches zero; 0: it does not run */
	__u64 deadline;		/* guest's TSC; 0: none */
	__u64 vapic_addr;	/* KVM_SET_VAPIC_ADDR */
	__u32 esr;		/* errors not latched yet */
	__u8 due;		/* the timer has come to its time, and is no interrupt yet */
	__u8 eoi_vector;	/* of KVM_EXIT_IOAPIC_EOI */
	__u8 reserved[2];
};

/*
 * Of Hyper-V's interface (TLFS), in the units of its MSRs: times in 100 ns of the partition's reference counter.
 * MSRs that tell what others do are not in it; what the guest gave pages for is memory's.
 */
struct keel_state_hyperv {
	__u64 guest_os_id;	/* HV_X64_MSR_*: */
	__u64 hypercall;
	__u64 reference_tsc;
	__u64 reenlightenment[3];	/* REENLIGHTENMENT_CONTROL, TSC_EMULATION_CONTROL, TSC_EMULATION_STATUS */
	__u64 crash[5], crash_ctl;
	__u64 invariant_tsc;	/* TSC_INVARIANT_CONTROL */
	__u64 debugger[6];	/* the synthetic debugger's: 0x400000F1 to 0x400000F5 and 0x400000FF */
	__u64 tsc_scale;	/* that the page of HV_X64_MSR_REFERENCE_TSC says, */
	__s64 tsc_offset;
	__u32 tsc_sequence;
	__u8 tsc_written;	/* if it is valid */
	__u8 tsc_restored;	/* 1: what it says when the interface comes to it is another host's, and to be kept */
	__u8 reserved[2];
};

struct keel_state_synic {
	__u64 control, version, siefp, simp;	/* HV_X64_MSR_SCONTROL, SVERSION, SIEFP, SIMP */
	__u64 sint[16];
	struct {
		__u64 config, count;	/* HV_X64_MSR_STIMERn_CONFIG, _COUNT */
		__u64 expires;	/* 0: it was not started; of one that is not periodic else @count */
	} timer[4];
	__u8 waits;		/* bit a timer: its message found the slot taken */
	__u8 pending;		/* bit a timer: to be looked at, since it came to its time or was set */
	__u8 reserved[6];
};

struct keel_state_hyperv_exit {	/* KVM_EXIT_HYPERV_SYNIC, as it will be told */
	__u64 control, evt_page, msg_page;
	__u32 msr;
	__u32 reserved;
};

struct keel_state_hyperv_vcpu {
	__u64 assist;		/* HV_X64_MSR_VP_ASSIST_PAGE */
	__u64 runtime;		/* HV_X64_MSR_VP_RUNTIME */
	struct keel_state_synic synic;	/* without KVM_CAP_HYPERV_SYNIC, as it is in a new vCPU */
	struct keel_state_hyperv_exit exit;	/* where it is due, else 0 */
	__u32 vp_index;		/* HV_X64_MSR_VP_INDEX; of two that have the same the later one is called by it */
	__u8 due;		/* KEEL_HYPERV_*: exits that are */
	__u8 reserved[3];
};

#define KEEL_HYPERV_EXIT	(1U << 0)	/* KVM_EXIT_HYPERV_SYNIC */
#define KEEL_HYPERV_RESET	(1U << 1)	/* KVM_SYSTEM_EVENT_RESET */
#define KEEL_HYPERV_CRASH	(1U << 2)	/* KVM_SYSTEM_EVENT_CRASH */
#define KEEL_HYPERV_DEBUGGER_CONTROL (1U << 3)	/* KVM_EXIT_HYPERV_SYNDBG, of MSR 0x400000F1, */
#define KEEL_HYPERV_DEBUGGER_PENDING (1U << 4)	/* of MSR 0x400000F5 */

/* ------------------------------------------------------------------ a VM made from a state (kmod/snap/setup.c)
 *
 * KEEL_CREATE_VM_FROM, on the node: a VM that is set up as the one whose state was taken with KEEL_WITH_SETUP, and is in that
 * state, as after KEEL_SET_STATE without flags.  Returns its file descriptor, as KVM_CREATE_VM does.  @data and @size of struct
 * keel_state say where the state is, 64 MiB at most; @section is written with an error, when that is about one.
 *
 * It has the vCPUs, in the order in which they were created.  KVM_CREATE_VCPU for the id of each, once, gives its file
 * descriptor; others may be added as to any VM.  It has the interrupt controllers, the PIT, and all else that the sections
 * below say.  It has no eventfds (KVM_IRQFD, KVM_IOEVENTFD, KVM_HYPERV_EVENTFD), zones of coalesced I/O, signal
 * masks, dirty logs' content or snapshots; those are made anew, before the first KVM_RUN.  An eventfd interrupts one
 * VM: KVM_IRQFD with one that another VM has, a parent's in its child, is EBUSY.
 *
 * Memory:
 *
 *	From a template.  Without flags there are no memslots: the VMM makes them, with what was in memory when the state was
 *	taken behind them.  A memory file, sealed and mapped MAP_PRIVATE, is shared by all VMs made of it until they write.
 *
 *	By fork(2).  With KEEL_WITH_MEMSLOTS the memslots are made as they were, at the same addresses of the caller's.  A VMM
 *	gets the state and calls fork(2); the child opens the node and makes its VM of the state, which fork(2) has copied with
 *	all the rest.  For both to be of one moment no vCPU may be in KVM_RUN, nor anything else write guest memory, from
 *	KEEL_GET_STATE until fork(2) has returned; then the parent's may go on.  It is not stopped by what the child does, and
 *	may end before it.  Of private memory the child has a copy (on write); memory mapped MAP_SHARED it shares, and memory
 *	with MADV_DONTFORK it lacks.  The parent's files, which it inherits, are of no use to it: EIO, as with KVM; it closes
 *	them, and unmaps their kvm_run, which it shares.
 *
 * Each section has the effect of the ioctl that it is named after, in the order in which they stand; what is not there is
 * as it is in a new VM.  All or nothing.  Errors, beside those of KVM_CREATE_VM and of KEEL_SET_STATE, which name the section:
 *	EINVAL		flags, reserved not zero; no state, or a section cannot be what it is
 *	E2BIG		more than 64 MiB; or as the ioctl says
 *	EPROTO		another version, or a section that is not known
 *	ENODEV		the state is none of a VM so set up
 *	EEXIST		a vCPU is there already, or memslots overlap
 *	EMFILE, ENFILE, EBUSY, ENOMEM, EFAULT, EINTR (deadly signal)
 */
#define KEEL_WITH_MEMSLOTS	(1U << 3)

#define KEEL_CREATE_VM_FROM	_IOWR(KEEL_IOC, 0x10, struct keel_state)

/* The VM's: */
#define KEEL_SECTION_CAPS	64	/* struct keel_setup_cap, as many as there are */
#define KEEL_SECTION_MACHINE	65	/* struct keel_setup_vm */
#define KEEL_SECTION_ROUTES	66	/* struct kvm_irq_routing_entry, likewise; without it those that a new VM has */
#define KEEL_SECTION_MSR_FILTER	67	/* struct keel_setup_msr_filter and its bitmaps */
#define KEEL_SECTION_PMU_FILTER	68	/* struct kvm_pmu_event_filter and its events */
#define KEEL_SECTION_MEMSLOTS	69	/* struct kvm_userspace_memory_region, likewise */
#define KEEL_SECTION_LATE_CAPS	70	/* struct keel_setup_cap, likewise: of those that come behind KEEL_SECTION_MACHINE */
/* A vCPU's, the first of which makes it: */
#define KEEL_SECTION_VCPU	80	/* struct keel_setup_vcpu */
#define KEEL_SECTION_CPUID	81	/* struct kvm_cpuid_entry2, likewise */

struct keel_setup_cap {		/* KVM_ENABLE_CAP on the VM */
	__u32 cap;
	__u32 reserved;		/* 0 */
	__u64 arg;		/* args[0] */
};

struct keel_setup_vm {
	__u32 irqchip;		/* 1: KVM_CREATE_IRQCHIP; 0: not, or split, which is a capability */
	__u32 pit;		/* 1: KVM_CREATE_PIT2, with @pit_flags */
	__u32 pit_flags;
	__u32 boot_cpu;		/* KVM_SET_BOOT_CPU_ID */
	__u32 tsc_khz;		/* KVM_SET_TSC_KHZ on the VM */
	__u32 mmu_pages;	/* KVM_SET_NR_MMU_PAGES; 0: not */
};

struct keel_setup_msr_filter {	/* KVM_X86_SET_MSR_FILTER */
	__u32 flags;		/* KVM_MSR_FILTER_DEFAULT_* */
	__u32 reserved;		/* 0 */
	struct {
		__u32 flags;	/* KVM_MSR_FILTER_* */
		__u32 nmsrs;	/* 0: no range */
		__u32 base;
		__u32 reserved;	/* 0 */
	} range[16];
	/* and of each range its bitmap, (nmsrs + 7) / 8 bytes, one right behind the other */
};

struct keel_setup_vcpu {
	__u64 mcg_cap;		/* KVM_X86_SETUP_MCE */
	__u32 enforce_pv;	/* KVM_CAP_ENFORCE_PV_FEATURE_CPUID */
	__u32 hyperv;		/* KEEL_SETUP_HYPERV* */
	struct kvm_guest_debug debug;	/* KVM_SET_GUEST_DEBUG; control 0: not */
};

#define KEEL_SETUP_HYPERV	(1U << 0)	/* it has Hyper-V's interface, by its CPUID or by use */
#define KEEL_SETUP_HYPERV_ENFORCED (1U << 1)	/* KVM_CAP_HYPERV_ENFORCE_CPUID; each of these needs the first */
#define KEEL_SETUP_SYNIC	(1U << 2)	/* KVM_CAP_HYPERV_SYNIC, or with the next */
#define KEEL_SETUP_SYNIC2	(1U << 3)	/* KVM_CAP_HYPERV_SYNIC2 */

/* ------------------------------------------------------------------ snapshots (kmod/snap/snapshot.c)
 *
 * A snapshot is the state of a VM and the content of its memory.  What it keeps of memory are the pages that are written
 * afterwards, as they were: each once, before its first write, by whoever writes.  A VM goes on from the one that was taken
 * last, or that it was reset to: its current one, whose child the next will be.
 *
 * All of them: vCPUs and devices are as with KEEL_GET_STATE, with the same errors.  Memory that is kept is the caller's, or
 * the vCPU's thread's that writes, and counted to its cgroup.
 *
 *	EBUSY, EINPROGRESS, EAGAIN, ENOMEM, EFAULT, EINVAL as above; nothing has changed
 *	ENOENT		there is no such snapshot
 *	EIO		it began and could not be ended (the user's memory was gone): the VM is dead
 *
 * Memory is the user's memory behind memslots.  Of the VMM's own writes, and of the host's on its behalf (devices' DMA,
 * read() into it, MADV_DONTNEED, another mapping of a file), nobody here knows: KEEL_MARK_DIRTY before each.  What the host
 * does to pages without changing their content is no matter.  Memory that is a device's, mapped by its driver, is not kept.
 * Who serves the faults of guest memory (userfaultfd) must not need the VM for it.  With a snapshot there are no memslots
 * made, moved and deleted: KVM_SET_USER_MEMORY_REGION answers EBUSY, but for the dirty log's flag.  What the guest writes is
 * mapped in 4 KiB pages; what it only reads stays as it is.
 */

/*
 * KEEL_SNAPSHOT: take one.  E2BIG: there are as many, or it would be as deep, as struct keel_info says.  Its cost does not
 * depend on how much memory there is, but on how much was written since the current one.
 */
struct keel_snapshot {
	__u32 id;		/* out: above 0, and not used again */
	__u32 flags;		/* 0 */
	__u64 reserved[3];	/* 0 */
};

/*
 * KEEL_RESET: to snapshot @id, which is the current one then; others stay as they are.  Costs what was written since, and
 * to get to another what lies between the two.  An exit that waits to be completed, or a page on its way, is no obstacle:
 * nothing comes of it any more.  With KEEL_TIME_GOES_ON as for KEEL_SET_STATE.  KEEL_RESET_MEMORY: memory
 * alone, vCPUs and devices stay as they are; so exits and pages have to be waited for (EINPROGRESS, EAGAIN), and what keel
 * writes to guest memory (clocks, steal time, Hyper-V's pages) is as it was, too, until their MSRs are set.  Where writes are
 * logged, the pages that it writes are in the dirty log.
 *	EFAULT		the structure cannot be read, nothing has happened; or not written, and the VM was reset
 *	ENODEV		the VM is set up otherwise than it was
 *	ENODATA		what it would need was not kept, since there was no memory for it when keel itself wrote a page
 *	ENOSPC		dirty rings have no room for it: harvest them.  Where all of them would not do, end the logging of its slots
 *			for the reset
 * A vCPU that finds no memory to keep a page its guest writes returns from KVM_RUN with ENOMEM, and has done nothing.
 */
struct keel_reset {
	__u32 id;
	__u32 flags;		/* KEEL_TIME_GOES_ON, KEEL_RESET_MEMORY */
	__u64 pages;		/* 0; out: pages of memory put back */
	__u64 reserved[2];	/* 0 */
};

#define KEEL_RESET_MEMORY	(1U << 1)

/*
 * KEEL_DROP: forget snapshot @arg, a number.  Of the current one its parent is the current one then; without one nothing is
 * kept any more.  ENOTEMPTY: it has children.
 */

/*
 * KEEL_MARK_DIRTY: the caller is about to write there; called after the write it keeps what was written, and a reset does
 * not undo it.  ENOENT: no memslot at some page; those before it are kept.  ENOMEM, EFAULT: likewise.  EINTR: likewise, by a
 * deadly signal.  Without a snapshot nothing is kept, and it is no error.
 */
struct keel_range {
	__u64 gpa, size;	/* bytes; whole pages count */
	__u32 space;		/* address space: 0, or 1 for that of system management mode */
	__u32 flags;		/* 0 */
};

#define KEEL_SNAPSHOT		_IOWR(KEEL_IOC, 0x04, struct keel_snapshot)
#define KEEL_RESET		_IOWR(KEEL_IOC, 0x05, struct keel_reset)
#define KEEL_DROP		_IO(KEEL_IOC, 0x06)
#define KEEL_MARK_DIRTY		_IOW(KEEL_IOC, 0x07, struct keel_range)

/*
 * KEEL_RESET_RUN, on a vCPU: KEEL_RESET of its VM, and KVM_RUN of the vCPU, in one call.  Once the VM was reset @id is 0 and
 * @pages says how many pages that were, and all errors from there on are KVM_RUN's; as long as @id is not 0 they are KEEL_RESET's,
 * and the vCPU has not run.  With 0 for @id it is KVM_RUN, and nothing else of the structure is looked at: a call that a signal
 * ended can be made again as it is.  EFAULT: the structure cannot be read, nothing has happened; or not written, and the
 * VM was reset.  What kvm_run asks for at KVM_RUN (immediate_exit, registers to be set) comes after the reset.
 */
#define KEEL_RESET_RUN		_IOWR(KEEL_IOC, 0x08, struct keel_reset)

/*
 * KEEL_ALLOW_RESET: the guest may have the VM reset to snapshot @id, by hypercall KEEL_HC_RESET, until the snapshot is dropped or this
 * is called with 0 for @id.  Unless told so it gets -KVM_ENOSYS, as for any number that there is not.  The VMM is not told when it
 * happens (the VM's counter "resets" is); devices and threads of its own are its affair.
 *	ENOENT		there is no such snapshot
 *	EINVAL		other flags, or @reserved is not 0
 *
 * The hypercall has no arguments, and like KVM's is the kernel's to make (-KVM_EPERM above CPL 0); also of a kernel
 * that has Hyper-V's.  It does not return: that vCPU and all others are where they were when the snapshot was taken.
 * Those in KVM_RUN go on there from the new state, by no exit.  The thread of the vCPU that asks does the work, and
 * waits for those of the others to come out of the guest; a signal to that thread ends the wait, KVM_RUN returns with EINTR,
 * and the hypercall is made anew by the next one.  A second vCPU that asks meanwhile waits for the first.  What else
 * KEEL_RESET could answer ENODEV, ENODATA, ENOSPC, ENOMEM or EIO for is KVM_RUN's errno, with the hypercall not done, either.
 */
struct keel_allow_reset {
	__u32 id;
	__u32 flags;		/* KEEL_TIME_GOES_ON */
	__u64 reserved[3];	/* 0 */
};

#define KEEL_ALLOW_RESET	_IOW(KEEL_IOC, 0x09, struct keel_allow_reset)
#define KEEL_HC_RESET		0x4b45454c	/* in RAX; none of KVM's, which are small numbers, nor of Xen's or Hyper-V's */

/* ------------------------------------------------------------------ what a guest uses (kmod/mmu/ahead.c)
 *
 * KEEL_WORKING_SET, on a VM: which guest memory its vCPUs accessed since this was last asked, from @gpa on, as ranges of whole
 * pages in order.  To have a VM, or a clone of it, run without faults that it is known to have, each range goes to
 * KVM_PRE_FAULT_MEMORY of one of its vCPUs first.  Accesses are those of the CPU, its page walks included, not keel's own on the
 * guest's behalf.  What is mapped in large pages is told as these.  A page may be missing that the host took back meanwhile, or
 * looked at the age of; so it is good for what comes sooner, not for what must not be missed.
 *
 * What is listed is not listed again until the CPU accesses it anew, unless @flags has KEEL_WORKING_SET_KEEP.  With no @room
 * nothing is listed, and all is looked at anew from then on.  Stops where @room is full: @gpa and @size say then what is left, for the
 * next call; of a size of ~0 (rounded to pages) too.  No more is written than @room entries, 16 bytes each.
 *	EOPNOTSUPP	the CPU does not mark pages (KEEL_FEATURE_ACCESSED): nothing has happened
 *	EINVAL		@gpa or @size are no multiple of 4096 or more than there are addresses, @space, @flags, @count or @reserved
 *	EFAULT		@ranges cannot be written: pages that were not are not taken to be listed
 *	EINTR		a deadly signal;  ENOMEM
 */
struct keel_gpa_range {
	__u64 gpa, size;	/* bytes */
};

struct keel_working_set {
	__u64 gpa, size;	/* what to look at; out: what is left */
	__u64 ranges;		/* address of struct keel_gpa_range[@room] */
	__u32 room;
	__u32 count;		/* 0; out: as many are listed */
	__u32 space;		/* address space: 0, or 1 for that of system management mode */
	__u32 flags;		/* KEEL_WORKING_SET_KEEP */
	__u64 reserved;		/* 0 */
};

#define KEEL_WORKING_SET_KEEP	(1U << 0)

#define KEEL_WORKING_SET	_IOWR(KEEL_IOC, 0x0a, struct keel_working_set)

#endif
