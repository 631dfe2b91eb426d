/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * irq.h - interrupts of a VM and the buses its in-kernel devices sit on: what the rest of the module calls.
 *
 * How an interrupt flows: a line (KVM_IRQ_LINE, irqfd, PIT) or a message (KVM_SIGNAL_MSI) enters in route.c,
 * which finds the pins and messages behind its GSI; pic.c and ioapic.c are the pins; ipi.c finds the LAPICs a
 * message is for; lapic.c leaves it in the LAPIC's inbox and asks the vCPU to look (KEEL_REQ_EVENT, kick), whose thread
 * moves it to the IRR (inbox.c).  Nothing on this way sleeps or allocates, all of it may run in hard interrupt context.
 *
 * Locks, outermost first; all are below those in keel.h:
 *
 *	irq.lock		mutex: set-up of chips, routes, LAPIC table; above slots_lock
 *	an eventfd's own lock	held by the kernel when it calls irqfd.c
 *	irqfds_lock		spinlock: lists of irqfds and of those who wait for acknowledgements
 *	pit->lock		raw, IRQs off: PIT state
 *	ioapic->lock, pic->lock	raw, IRQs off: one at a time, never nested in each other
 *	map_lock, extint_lock	spinlocks: logical map of LAPICs, who takes ExtINT; taken by vCPU threads only
 *	ring_lock		spinlock: coalesced ring
 *
 * A message for many LAPICs is not delivered where interrupts are off, as they are below an eventfd's lock and the
 * chips'.  A work item of the VM does it soon after; there is one, and what it has to do is a bit for each GSI and pin.
 *
 * Who waits for acknowledgements (PIT, resampling irqfds) is told with none of the chips' locks held.  Routes, the table
 * of LAPICs and who waits are read under RCU.  A LAPIC's registers belong to its vCPU's thread; others write to its
 * inbox, with atomics.
 */
#ifndef KEEL_IRQ_H
#define KEEL_IRQ_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

enum irq_mode {
	IRQCHIP_NONE,	/* no in-kernel interrupt controller */
	IRQCHIP_SPLIT,	/* LAPICs here, IOAPIC and PIC in the VMM */
	IRQCHIP_KERNEL,	/* all here */
};

#define IRQ_MAX_GSI	4096
#define IRQ_BUS_CYCLE_NS	1	/* of the clock that LAPIC timers count, unless the VMM says another */

/* IRQCHIP_SPLIT: may a guest keep the ends of level interrupts from the VMM's IOAPICs? */
enum irq_eoi_suppress {
	SUPPRESS_QUIRK,	/* it is told that it may, and it does not help: the ABI's old habit */
	SUPPRESS_ON,
	SUPPRESS_OFF,	/* it is not told so */
};

struct keel_irq {		/* embedded in the VM; owner of irq/ fills in */
	enum irq_mode mode;
	u32 split_pins;		/* IRQCHIP_SPLIT: GSIs reserved for the VMM's IOAPICs */
	bool x2apic_32bit_ids;	/* KVM_CAP_X2APIC_API */
	bool x2apic_no_bcast_quirk;
	u8 eoi_suppress;		/* enum irq_eoi_suppress */
	u64 bus_cycle_ns;		/* settled before the first vCPU */

	struct mutex lock;
	struct irq_routes __rcu *routes;
	struct irq_apics __rcu *apics;		/* LAPICs by APIC id as created */
	spinlock_t map_lock;
	u8 logical;				/* enum irq_logical: how logical destinations are looked up */
	bool pic_raised;			/* the PIC's output, for the vCPUs that take ExtINT: */
	spinlock_t extint_lock;			/* of the next */
	unsigned int extint_taker;		/* one of them, if there is any, by its place */
	bool ids_moved;				/* a guest changed an xAPIC id, or may have: the table above does not tell */
	struct keel_lapic *logical_map[64];	/* by LDR bit; clusters have 4 each */
	struct list_head devices;		/* the last one made first; irq.lock */
	struct irq_pic *pic;			/* these are among them */
	struct irq_ioapic *ioapic;
	struct irq_pit *pit;

	struct work_struct late;		/* sends on what late_gsis and late_pins say: route.c */
	bool has_late;				/* it was queued at least once */
	unsigned int nr_resample;		/* irqfds that may hold a line up: ack.c */
	DECLARE_BITMAP(late_gsis, IRQ_MAX_GSI);
	unsigned long late_pins;		/* of the IOAPIC */

	spinlock_t irqfds_lock;
	struct hlist_head *irqfds;		/* by eventfd; NULL until there is one */
	atomic_t irqfds_ending;			/* left to a work item */
	struct xarray acks;			/* by GSI: ack.c */
	DECLARE_BITMAP(wants_eoi, 256);		/* vectors whose EOI matters to the IOAPIC; written under its lock */
};

/*
 * What has arrived at a LAPIC and is not in its IRR yet.  The first 64 bytes are laid out as the descriptor that the
 * CPU finds posted interrupts in (SDM 3C, "Posted-Interrupt Processing"), of which it leaves all but the first two
 * fields alone.
 */
struct irq_inbox {
	DECLARE_BITMAP(posted, 256);	/* edges of whose end nobody has to hear: the CPU's to take, where it can */
	u64 control;			/* bit 0, ON: the vCPU was told to look, or is about to be */
#define INBOX_ON	0
	unsigned long news;		/* what else it has to look for, a bit each */
#define INBOX_TOLD	0		/* told[] */
#define INBOX_TIMER	1		/* the timer has come to its time */
	u64 rest[2];

	DECLARE_BITMAP(told, 256);	/* what the vCPU's thread has to see before the guest does */
	DECLARE_BITMAP(levels, 256);	/* which of those came as levels */
} __aligned(64);

/* ------------------------------------------------------------- I/O buses */
enum bus_id { BUS_PIO, BUS_MMIO, BUS_FAST_MMIO, BUS_COUNT };

struct irq_bus {			/* sorted by first address; read and changed as memslots are */
	struct irq_bus_range *ranges;
	unsigned int count, size;
	u64 longest;			/* no range is longer */
};

struct keel_buses {		/* embedded in the VM */
	struct irq_bus bus[BUS_COUNT];
	struct list_head ioeventfds;	/* slots_lock */
	struct list_head zones;		/* coalesced; slots_lock */
	spinlock_t ring_lock;
	struct page *ring;
};

/* Is @addr served in the kernel?  0 done (data in/out), -EOPNOTSUPP nobody there.  Never sleeps.
 * LAPIC registers are tried by the caller first through irq_lapic_mmio(). */
int irq_bus_read(struct keel_vcpu *vcpu, enum bus_id bus, u64 addr, unsigned int len, void *data);
int irq_bus_write(struct keel_vcpu *vcpu, enum bus_id bus, u64 addr, unsigned int len, const void *data);
/* A zero-length ioeventfd at exactly @gpa: signal it; false if there is none. */
bool irq_fast_mmio(struct keel_vcpu *vcpu, u64 gpa);

/* ------------------------------------------------------------- VM life */
/* Ioctls below take their own locks, except those said to want vm->lock, which keeps vCPUs from being created. */
int irq_room_init(void);
void irq_room_exit(void);
void irq_vm_init(struct keel_vm *vm);
/* The VM fd is closed: detach irqfds and ioeventfds. */
void irq_vm_release(struct keel_vm *vm);
/* Last reference gone: no timer of the chips reaches a vCPU any more. / vCPUs are freed: free the rest. */
void irq_vm_stop(struct keel_vm *vm);
void irq_vm_destroy(struct keel_vm *vm);
VM_IOCTL(irq_create_irqchip);		/* vm->lock held */
long irq_enable_split(struct keel_vm *vm, u64 pins);	/* KVM_CAP_SPLIT_IRQCHIP; vm->lock held */
long irq_enable_x2apic_api(struct keel_vm *vm, u64 flags);
u64 irq_x2apic_api(const struct keel_vm *vm);		/* the flags it was enabled with */
#define IRQ_X2APIC_API_FLAGS	(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK |	\
				 KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST | KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST)
long irq_set_bus_cycle(struct keel_vm *vm, u64 ns);	/* KVM_CAP_X86_APIC_BUS_CYCLES_NS; vm->lock held */
VM_IOCTL(irq_create_pit2);
bool irq_pit_config(struct keel_vm *vm, struct kvm_pit_config *config);	/* as it was created; false: there is none */
VM_IOCTL(irq_create_pit);
VM_IOCTL(irq_get_pit);
VM_IOCTL(irq_set_pit);		/* uses arg: its number says the wrong direction or none */
VM_IOCTL(irq_get_pit2);
VM_IOCTL(irq_set_pit2);
VM_IOCTL(irq_reinject_control);	/* uses arg: its number says the wrong direction or none */
VM_IOCTL(irq_get_irqchip);
VM_IOCTL(irq_set_irqchip);	/* uses arg: its number says the wrong direction or none */
VM_IOCTL(irq_line);			/* KVM_IRQ_LINE */
VM_IOCTL(irq_line_status);		/* KVM_IRQ_LINE_STATUS */
VM_IOCTL(irq_set_routing);		/* variable size: uses arg */
/* The same of the kernel's memory; how they are now, how many: NULL: only count.  vm->lock held. */
int irq_routes_set(struct keel_vm *vm, const struct kvm_irq_routing_entry *entries, u32 nr);
u32 irq_routes_get(struct keel_vm *vm, struct kvm_irq_routing_entry *entries);
bool irq_routes_are_new(struct keel_vm *vm);	/* nobody has set any */
VM_IOCTL(irq_signal_msi);
VM_IOCTL(irq_irqfd);
VM_IOCTL(irq_ioeventfd);
VM_IOCTL(irq_register_coalesced);
VM_IOCTL(irq_unregister_coalesced);
/* One ring a VM, mapped at KVM_COALESCED_MMIO_PAGE_OFFSET of each vCPU. */
struct page *irq_coalesced_page(struct keel_vm *vm);

/* ------------------------------------------------------------- LAPIC */
int irq_lapic_create(struct keel_vcpu *vcpu);	/* when vm->irq.mode != IRQCHIP_NONE; vm->lock held or not */
void irq_lapic_destroy(struct keel_vcpu *vcpu);
void irq_lapic_reset(struct keel_vcpu *vcpu, bool init);
/* @gpa is in the page that apic_base says.  True: it is done (data in/out, with room for 8 bytes); false: the LAPIC is
 * off or in x2APIC mode. */
bool irq_lapic_mmio(struct keel_vcpu *vcpu, u64 gpa, unsigned int len, void *data, bool write);
/* x2APIC MSRs 0x800..0x8ff, MSR_IA32_APICBASE, MSR_IA32_TSC_DEADLINE: 0 or 1 for #GP. */
int irq_lapic_get_msr(struct keel_vcpu *vcpu, u32 msr, u64 *val, bool host);
int irq_lapic_set_msr(struct keel_vcpu *vcpu, u32 msr, u64 val, bool host);
int irq_apic_base_set(struct keel_vcpu *vcpu, u64 val, bool host);
void irq_lapic_set_tpr(struct keel_vcpu *vcpu, u8 tpr);	/* vcpu->cr8 shows its upper half */
/* Highest vector (LAPIC, or ExtINT from PIC / KVM_INTERRUPT when the LAPIC lets it through) that could be
 * delivered with the present TPR; -1 none.  Does not look at RFLAGS.IF.  Of a LAPIC that the CPU runs: -1, and the CPU
 * is told what has arrived. */
int irq_pending(struct keel_vcpu *vcpu);
bool irq_wakes(struct keel_vcpu *vcpu);		/* is there one, whoever delivers it? */
int irq_ack(struct keel_vcpu *vcpu);		/* takes it: IRR to ISR, or PIC INTA; -1 if it went away */
int irq_pending_class(struct keel_vcpu *vcpu);	/* class (vector >> 4) of highest IRR entry the TPR masks or not; -1 */
void irq_pmi(struct keel_vcpu *vcpu, bool mask);		/* a performance counter's interrupt; any context but NMI */
/* An APIC id, mode, LDR or DFR changed: the map of LAPICs, from all of them.  vCPU threads only, not in the fast loop. */
void irq_map_update(struct keel_vm *vm);
bool irq_extint_accepted(struct keel_vcpu *vcpu); /* does this vCPU take ExtINT (LVT0, or APIC off)? */
void irq_lapic_new_model(struct keel_vcpu *vcpu);	/* its CPUID is another */
void irq_lapic_timer_settle(struct keel_vcpu *vcpu);	/* it is due: an interrupt, for which KEEL_REQ_EVENT is asked */
void irq_lapic_timer_sync(struct keel_vcpu *vcpu); /* the guest's TSC offset changed: re-arm the deadline */
/* Machine checks: MCG_CAP was set / an error that is signalled by an interrupt; the vCPU's thread. */
void irq_lapic_cmci_setup(struct keel_vcpu *vcpu);
void irq_lapic_cmci(struct keel_vcpu *vcpu);
int irq_ioapic_eoi_exit(struct keel_vcpu *vcpu);	/* KEEL_REQ_IOAPIC_EOI: fills kvm_run; KEEL_USER */
/* A fixed interrupt for this vCPU, from anywhere, and whether its LAPIC, which it must have, would take it. */
bool irq_takes_fixed(struct keel_vcpu *vcpu);
void irq_deliver_fixed(struct keel_vcpu *vcpu, u8 vector);
/* EOI, ICR and TPR in the form of one 64-bit register each, in either mode: 0, or 1 if that cannot be. */
int irq_lapic_read(struct keel_vcpu *vcpu, unsigned int reg, u64 *val);
int irq_lapic_write(struct keel_vcpu *vcpu, unsigned int reg, u64 val);
/* What came from a synthetic interrupt source has been acknowledged.  Any context. */
void irq_sint_acked(struct keel_vm *vm, u32 vp_index, u32 sint);
/*
 * One message to many, as KVM_HC_SEND_IPI has it: bit n of mask[i] is the APIC with id @first + i * @width + n, n <
 * @width. How many took it.
 */
long irq_send_ipis(struct keel_vcpu *vcpu, const u64 mask[2], unsigned int width, u32 first, u32 icr);
/*
 * A LAPIC the CPU runs by itself (apicv.c).  Something changed that decides whether it may: / KEEL_REQ_APICV, may
 * sleep. / The guest ended an interrupt with somebody waiting for that. / It wrote a register that is not the CPU's.
 */
void irq_apicv_check(struct keel_vcpu *vcpu);
void irq_apicv_update(struct keel_vcpu *vcpu);
void irq_apicv_ended(struct keel_vcpu *vcpu, u8 vector);
void irq_apicv_written(struct keel_vcpu *vcpu, unsigned int reg);
/* Is this x2APIC MSR one of those the CPU can read, or write, right without us? */
bool irq_x2apic_by_cpu(u32 msr, bool write);
u8 *irq_lapic_page(struct keel_vcpu *vcpu);		/* the registers; NULL: no LAPIC */
struct irq_inbox *irq_lapic_inbox(struct keel_vcpu *vcpu);
void irq_lapic_tpr_written(struct keel_vcpu *vcpu, u64 cr8);	/* by the CPU, in that page */
/* End of interrupt without an exit. */
int irq_pv_eoi_set(struct keel_vcpu *vcpu, u64 val);	/* 0, or 1 for #GP; may sleep */
void irq_pv_eoi_settle(struct keel_vcpu *vcpu);		/* if there is an offer; inside the fast loop it may have to wait */
/*
 * The VAPIC page of a vCPU that has one (vcpu->vapic): outside the fast loop, before the guest runs; after it did, -EAGAIN if
 * that has to be outside the loop, too.
 */
void irq_vapic_set(struct keel_vcpu *vcpu, u64 addr);	/* 0: none */
void irq_vapic_enter(struct keel_vcpu *vcpu);
int irq_vapic_leave(struct keel_vcpu *vcpu);
VCPU_IOCTL(irq_set_vapic_addr);
VCPU_IOCTL(irq_get_lapic);
VCPU_IOCTL(irq_set_lapic);

/* ------------------------------------------------------------- sections of the state (snap/state.c) */
VCPU_IOCTL(irq_lapic_get_state);
VCPU_IOCTL(irq_lapic_set_state);
VM_IOCTL(irq_pic_get_state);
VM_IOCTL(irq_pic_set_state);
VM_IOCTL(irq_ioapic_get_state);
VM_IOCTL(irq_ioapic_set_state);
void irq_ioapic_go(struct keel_vm *vm, u32 moved);	/* after the LAPICs' */
VM_IOCTL(irq_pit_get_state);
VM_IOCTL(irq_pit_set_state);
/* What was put off is delivered: nothing is on its way but what senders begin from here on.  May sleep. */
void irq_vm_settle(struct keel_vm *vm);
/*
 * Before all of them are set to another state, the VM stopped: no timer of a device runs, and nothing is on its way to a
 * LAPIC.  What arrives from here on is the new state's: of timers that it makes fire, and of senders from outside.
 */
void irq_vm_still(struct keel_vm *vm);

/* While the chips are looked at one by one, so that a tick of the PIT is in all of them or in none. */
void irq_pit_hold(struct keel_vm *vm);
void irq_pit_go(struct keel_vm *vm);

#endif
