/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * internal.h - what the files of the interrupt room share.  Locks: irq.h.
 */
#ifndef KEEL_IRQ_INTERNAL_H
#define KEEL_IRQ_INTERNAL_H

#include <linux/hrtimer.h>
#include <linux/rcupdate.h>
#include "keel.h"

/* ------------------------------------------------------------- bus.c */
struct irq_bus_dev;

struct irq_bus_ops {		/* 0 done, -EOPNOTSUPP not this device's after all */
	int (*read)(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, void *data);
	int (*write)(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, const void *data);
};

struct irq_bus_dev {		/* embedded in a device; one for each range that acts differently */
	const struct irq_bus_ops *ops;
	bool leaving;		/* slots_lock */
};

#define IRQ_BUS_MAX_RANGES	65536	/* ioeventfds of queues, mostly: a thousand vCPUs, some devices */
#define IRQ_BUS_MAX_ALIKE	8192	/* at one address, of which a write asks one after the other */

void irq_buses_init(struct keel_vm *vm);
void irq_buses_free(struct keel_vm *vm);
/* slots_lock held; both pause the VM.  Remove forgets every range of @dev on @bus. */
int irq_bus_add(struct keel_vm *vm, enum bus_id bus, u64 addr, u64 len, struct irq_bus_dev *dev);
void irq_bus_remove(struct keel_vm *vm, enum bus_id bus, struct irq_bus_dev *dev);
void irq_buses_sweep(struct keel_vm *vm);	/* removes all that are leaving, in one pause a bus */

extern struct workqueue_struct *irq_wq;	/* made with the room */

void irq_coalesced_free(struct keel_vm *vm);
void irq_ioeventfds_release(struct keel_vm *vm);
void irq_irqfds_release(struct keel_vm *vm);

/* ------------------------------------------------------------- route.c */
#define IRQ_IOAPIC_PINS		KVM_IOAPIC_NUM_PINS
#define IRQ_PIC_PINS		16

enum irq_chip { CHIP_PIC, CHIP_IOAPIC, CHIP_COUNT };

/* Who holds a line up; the line is low when none does. */
enum irq_source { SOURCE_USER, SOURCE_RESAMPLE, SOURCE_PIT };
#define IRQ_STATE_SOURCES	(BIT(SOURCE_USER) | BIT(SOURCE_PIT))	/* of a VM's state */

/* Who holds lines up, out of a state: false if that is not possible. */
bool irq_sources_set(u8 *sources, const u8 *state, unsigned int n);

/*
 * Set a GSI's level.  Below 0: nobody took it (masked, no route); 0: coalesced with one that is still
 * pending; above: how many took it.  Any context.
 */
int irq_set_gsi(struct keel_vm *vm, enum irq_source source, u32 gsi, bool level);
/* The guest acknowledged what came from this pin.  Any context, no chip's lock held. */
void irq_acked(struct keel_vm *vm, enum irq_chip chip, unsigned int pin);
void irq_unmasked(struct keel_vm *vm, enum irq_chip chip, unsigned int pin);	/* as before */
void irq_pit_unmasked(struct keel_vm *vm);
u32 irq_ioapic_pins_acked(struct keel_vm *vm);		/* pins whose interrupts somebody wants to hear the end of */
void irq_late_work(struct work_struct *work);	/* what irq_deliver() did not do at once */
void irq_late_queue(struct keel_vm *vm);
void irq_late_wait(struct keel_vm *vm);		/* for what has been queued; may sleep */
int irq_routes_init(void);	/* module load, unload */
void irq_routes_exit(void);
void irq_first_routes(struct keel_vm *vm, bool pc);	/* those that a PC has, or none */
void irq_routes_free(struct keel_vm *vm);

/* ------------------------------------------------------------- ack.c */
struct irq_ack;

struct irq_acker {		/* embedded in who waits, who is freed a grace period after leaving */
	struct list_head link;
	struct irq_ack *ack;
	bool holds_line;	/* by SOURCE_RESAMPLE, which an acknowledgement lets go */
	void (*acked)(struct irq_acker *acker);	/* any context, no chip's lock held */
};

int irq_ack_join(struct keel_vm *vm, u32 gsi, struct irq_acker *acker);	/* irq.lock held; -EBUSY: too many */
void irq_ack_leave(struct keel_vm *vm, struct irq_acker *acker);	/* and the line goes down, if nobody else holds it */
bool irq_ack_wanted(struct keel_vm *vm, u32 gsi);			/* any context */
void irq_ack_tell(struct keel_vm *vm, u32 gsi);				/* any context, no chip's lock held */
void irq_acks_free(struct keel_vm *vm);

/* ------------------------------------------------------------- ipi.c */
struct irq_msg {
	u32 dest;
	u32 mode;		/* APIC_DM_* */
	u32 shorthand;		/* 0 or APIC_DEST_SELF, _ALLINC, _ALLBUT */
	u8 vector;
	bool logical;
	bool level;		/* trigger mode */
	bool assert;
	bool lowest;		/* one of the addressed is enough */
};

enum irq_logical { LOGICAL_SCAN, LOGICAL_X2APIC, LOGICAL_FLAT, LOGICAL_CLUSTER };

struct irq_apics {
	struct rcu_head rcu;
	u32 size;
	struct keel_lapic *apic[];
};

/* It is for many, and interrupts are off: not yet. */
#define IRQ_LATER	INT_MIN
/* Deliver to whom it is for; @src NULL: from a device.  Result as irq_set_gsi()'s, or IRQ_LATER.  Any context. */
int irq_deliver(struct keel_vm *vm, struct keel_lapic *src, const struct irq_msg *msg);
/* Is @apic one of those that a device's message is for? */
bool irq_msg_reaches(const struct keel_lapic *apic, const struct irq_msg *msg);
/* The map of LAPICs is no longer true; until it is made again each of them is asked. */
void irq_map_stale(struct keel_vm *vm);
int irq_map_add(struct keel_lapic *apic);
void irq_map_remove(struct keel_lapic *apic);

/* ------------------------------------------------------------- lapic.c */
enum irq_eoi_offer {
	EOI_NONE,
	EOI_OFFERED,		/* the guest may end what is in service by clearing a bit */
	EOI_WRITTEN,		/* and it has written the register since: what the bit says comes first */
};

struct keel_lapic {
	struct keel_vcpu *vcpu;
	u8 *regs;			/* the register page */
	u8 irr_words;			/* bit n: IRR word n may have something */
	int isr_top;			/* highest vector in service, -1 none */
	u8 ppr;
	u8 eoi_vector;			/* split irqchip: whose EOI userspace has to hear of */
	bool enabled;			/* by APIC base and SPIV: takes fixed interrupts */
	bool extint;			/* LVT0 lets ExtINT through, or the APIC is off */
	unsigned long esr;		/* errors not latched into the ESR yet; set by anyone */
	struct irq_inbox inbox;		/* written by anyone */

	/* lapic_timer.c */
	struct hrtimer timer;
	u32 timer_mode;			/* APIC_LVT_TIMER_* */
	u64 tick_ns;			/* of the count */
	u64 period;			/* ns */
	ktime_t target;			/* when the count reaches zero; moved on by the callback */
	u64 deadline;			/* guest TSC; 0: none, or it is in the IRR */
	u64 armed;			/* deadline the timer was started for; it may have been put off since */

	u64 vapic_addr;			/* vapic.c; 0: none */

	/* pv_eoi.c */
	u8 eoi_offer;			/* enum irq_eoi_offer */

	/* apicv.c */
	bool by_cpu;			/* the CPU runs this LAPIC */
	bool watched_stale;		/* it has not been told of watched[] yet */
	DECLARE_BITMAP(watched, 256);	/* vectors whose EOI exits */
};

int irq_highest_irr(struct keel_lapic *apic);	/* -1 none */
int irq_highest(struct keel_lapic *apic, unsigned int base);	/* of the ISR or IRR as the page has it, -1 none */
/* Is the end of this interrupt nobody's business but the guest's? */
bool irq_ends_unnoticed(struct keel_lapic *apic, u8 vector);
void irq_rebuild_copies(struct keel_lapic *apic);	/* of what the page says of priorities */

/* ------------------------------------------------------------- inbox.c */
/* Of which the vCPU's thread has to know before its guest does; as irq_set_gsi().  Any context. */
int irq_inbox_tell(struct keel_lapic *apic, u8 vector, bool level);
/* The rest is the vCPU's thread's.  What has arrived is in the IRR then; the timer is another matter. */
void irq_inbox_fold(struct keel_lapic *apic);
void irq_inbox_discard(struct keel_lapic *apic);

static inline bool irq_inbox_full(const struct keel_lapic *apic)
{
	return READ_ONCE(apic->inbox.control) & BIT(INBOX_ON) || READ_ONCE(apic->inbox.news);
}

/* Where the CPU's idea of the IRR is not brought up to date, too: that follows, on request. */
static inline void irq_inbox_look(struct keel_lapic *apic)
{
	if (!irq_inbox_full(apic))
		return;
	irq_inbox_fold(apic);
	keel_request(KEEL_REQ_EVENT, apic->vcpu);
}

static inline u32 apic_reg(const struct keel_lapic *apic, unsigned int reg)
{
	return READ_ONCE(*(u32 *)(apic->regs + reg));
}

static inline void apic_set_reg(struct keel_lapic *apic, unsigned int reg, u32 val)
{
	WRITE_ONCE(*(u32 *)(apic->regs + reg), val);
}

static inline bool apic_on(const struct keel_lapic *apic)
{
	return READ_ONCE(apic->vcpu->apic_base) & XAPIC_ENABLE;
}

static inline bool apic_is_x2(const struct keel_lapic *apic)
{
	const u64 both = XAPIC_ENABLE | X2APIC_ENABLE;

	return (READ_ONCE(apic->vcpu->apic_base) & both) == both;
}

/* The word of a 256-bit register (@base) that holds @vector; for bit operations with vector & 31. */
static inline unsigned long *apic_vec_word(struct keel_lapic *apic, unsigned int base, u8 vector)
{
	return (unsigned long *)(apic->regs + base + (vector >> 5) * 0x10);
}

/* Into one word of the IRR, with their trigger modes.  The vCPU's thread. */
static __always_inline void irq_into_irr(struct keel_lapic *apic, unsigned int word, u32 vectors, u32 levels)
{
	u32 *irr = (u32 *)(apic->regs + APIC_IRR + word * 0x10), *tmr = (u32 *)(apic->regs + APIC_TMR + word * 0x10);

	if (!vectors)
		return;
	WRITE_ONCE(*irr, *irr | vectors);
	if (unlikely((*tmr & vectors) != levels))
		WRITE_ONCE(*tmr, (*tmr & ~vectors) | levels);
	apic->irr_words |= BIT(word);
}

static inline u32 apic_x2_ldr(const struct keel_lapic *apic)
{
	return apic->vcpu->id >> 4 << 16 | BIT(apic->vcpu->id & 0xf);
}

/* One message arrives at one LAPIC; as irq_set_gsi().  Any context. */
int irq_apic_accept(struct keel_lapic *apic, const struct irq_msg *msg);
/* An interrupt source inside the LAPIC: @lvt is the register offset.  Any context. */
void irq_apic_local(struct keel_lapic *apic, unsigned int lvt);
void irq_apic_timer(struct keel_lapic *apic);	/* the timer's, in the vCPU's thread */

void irq_apic_eoi(struct keel_lapic *apic);	/* of what is in service; the vCPU's thread */

/* apicv.c */
void irq_apicv_watch(struct keel_lapic *apic, u8 vector);	/* if its end has to be heard of, it exits */
void irq_apicv_sync(struct keel_lapic *apic);		/* what arrived is in the IRR, and the CPU knows; vCPU loaded */
bool irq_apicv_pending(struct keel_lapic *apic);

/* pv_eoi.c */
void irq_pv_eoi_offer(struct keel_lapic *apic);
bool irq_pv_eoi_written(struct keel_lapic *apic);

/* lapic_timer.c */
#define IRQ_TIMER_MAX_SHIFT	7	/* it counts every 128th cycle of the bus at most */
void apic_timer_init(struct keel_lapic *apic);
void apic_timer_stop(struct keel_lapic *apic);
void apic_timer_reset(struct keel_lapic *apic);
u32 apic_timer_count(struct keel_lapic *apic);
void apic_timer_set_count(struct keel_lapic *apic, u32 count);
void apic_timer_set_divider(struct keel_lapic *apic, u32 tdcr);
void apic_timer_set_mode(struct keel_lapic *apic, u32 lvtt);
void apic_timer_restore(struct keel_lapic *apic, u32 count);	/* TMICT, TDCR, LVTT were loaded */
void apic_timer_set_deadline(struct keel_lapic *apic, u64 tsc);		/* by the guest */
void apic_timer_load_deadline(struct keel_lapic *apic, u64 tsc);	/* by the VMM, perhaps before LVTT */
void apic_timer_take(struct keel_lapic *apic);
/* Only in KVM_RUN, or where the guest's access is carried out: what is due becomes an interrupt. */
static inline void apic_timer_settle(struct keel_lapic *apic)
{
	if (unlikely(test_bit(INBOX_TIMER, &apic->inbox.news)))
		apic_timer_take(apic);
}

u64 apic_timer_deadline(struct keel_lapic *apic);
void apic_timer_get_state(struct keel_lapic *apic, struct keel_state_lapic *s);
void apic_timer_set_state(struct keel_lapic *apic, const struct keel_state_lapic *s);

/* ------------------------------------------------------------- irqchip.c */
struct irq_device;

struct irq_range {			/* of a bus, that a device answers for */
	enum bus_id bus;
	u16 bus_dev;			/* where in the device its irq_bus_dev is */
	u32 addr, len;
};
#define IRQ_RANGE(type, member, b, a, n) \
	{ .bus = b, .bus_dev = offsetof(struct type, member), .addr = a, .len = n }

struct irq_device_ops {
	const struct irq_range *ranges;
	u32 chips;			/* a bit for each KVM_IRQCHIP_* that it is */
	void (*get)(struct irq_device *dev, unsigned int chip, void *state);
	void (*set)(struct irq_device *dev, unsigned int chip, const void *state);
	void (*stop)(struct irq_device *dev);	/* no timer of it reaches a vCPU any more; NULL: it has none */
	void (*still)(struct irq_device *dev);	/* likewise, until it is set to a state (VM_SECTION) */
	void (*leave)(struct irq_device *dev);	/* nobody finds it any more */
};

/*
 * What a VM has beside its CPUs' LAPICs: first in a device's structure, which goes with it.  Its lines are not here:
 * they are called each by its name, from where interrupts pass by.
 */
struct irq_device {
	const struct irq_device_ops *ops;
	unsigned int nr_ranges;
	struct keel_vm *vm;
	struct list_head link;
};

/* irq.lock and slots_lock held.  Into the list and onto its buses, or @dev is freed. */
int irq_device_add(struct keel_vm *vm, struct irq_device *dev, const struct irq_device_ops *ops,
		   unsigned int nr_ranges);
/* slots_lock held: out again. */
void irq_device_remove(struct irq_device *dev);

/* ------------------------------------------------------------- the chips */
int irq_pic_create(struct keel_vm *vm);		/* irq.lock and slots_lock held */
int irq_pic_set(struct keel_vm *vm, unsigned int pin, enum irq_source source, bool level);
int irq_pic_ack(struct keel_vm *vm);		/* INTA: the vector */

int irq_ioapic_create(struct keel_vm *vm);	/* irq.lock and slots_lock held */
void irq_ioapic_send_late(struct keel_vm *vm, unsigned int pin);
int irq_ioapic_set(struct keel_vm *vm, unsigned int pin, enum irq_source source, bool level);
/* That LAPIC ended an interrupt that came as a level, or as an edge. */
void irq_ioapic_eoi(struct keel_lapic *apic, u8 vector, bool level);
void irq_ioapic_apics_changed(struct keel_vm *vm);	/* ids, modes, logical destinations */
void irq_ioapic_rescan(struct keel_vm *vm);	/* routes or ack notifiers changed */

#endif
