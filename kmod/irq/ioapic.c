// SPDX-License-Identifier: GPL-2.0-only
/*
 * ioapic.c - the I/O APIC: 24 pins, each with a redirection entry (82093AA data sheet).
 *
 * ioapic->lock, raw and with IRQs off, guards all changes: lines move in hard interrupt context.  It is dropped
 * while those who wait for acknowledgements are told, since they move lines; whose an EOI is is looked up without it.
 */
#include <linux/nospec.h>
#include <linux/slab.h>
#include "internal.h"

#define IOAPIC_SIZE	0x100
#define REG_SELECT	0x00
#define REG_WINDOW	0x10

#define IOAPIC_VERSION	0x11
#define RTC_PIN		8

/* A line that is up again after each of so many EOIs in a row gets a pause: the guest cannot handle it. */
#define STORM_EOIS	10000
#define STORM_PAUSE_NS	(10 * NSEC_PER_MSEC)

#define ENTRY_REMOTE_IRR	BIT_ULL(14)
#define ENTRY_READ_ONLY		(BIT_ULL(12) | ENTRY_REMOTE_IRR)

typedef typeof(((struct kvm_ioapic_state *)0)->redirtbl[0]) ioapic_entry;

struct irq_ioapic {
	struct irq_device device;
	struct irq_bus_dev dev;
	raw_spinlock_t lock;
	u32 select;
	u32 id;
	u32 irr;			/* lines that are up; edge pins: since the last edge */
	u32 paused;			/* level pins the storm timer will look at again */
	u32 moved;			/* whose destination has changed since they sent */
	bool stopped;			/* the VM is going */
	ioapic_entry pins[IRQ_IOAPIC_PINS];
	ioapic_entry late[IRQ_IOAPIC_PINS];	/* as it was when it was sent, for irq.late_pins */
	u8 sources[IRQ_IOAPIC_PINS];	/* bit per irq_source */
	u16 eois[IRQ_IOAPIC_PINS];	/* in a row with the line up */
	struct hrtimer storm;
};

static struct irq_msg pin_msg(const ioapic_entry *e)
{
	return (struct irq_msg) {
		.dest = e->fields.dest_id,
		.logical = e->fields.dest_mode,
		.mode = e->fields.delivery_mode << 8,
		.lowest = e->fields.delivery_mode << 8 == APIC_DM_LOWEST,
		.vector = e->fields.vector,
		.level = e->fields.trig_mode,
		.assert = true,
	};
}

/* Send what the pin asks for.  Result as irq_set_gsi()'s. */
static int pin_send(struct irq_ioapic *io, unsigned int pin)
{
	ioapic_entry *e = &io->pins[pin];
	struct irq_msg msg = pin_msg(e);
	int ret;

	if (e->fields.mask || (e->fields.trig_mode && e->fields.remote_irr))
		return -1;
	ret = irq_deliver(io->device.vm, NULL, &msg);
	if (unlikely(ret == IRQ_LATER)) {
		io->late[pin] = *e;
		set_bit(pin, &io->device.vm->irq.late_pins);
		irq_late_queue(io->device.vm);
		ret = 1;
	}
	if (e->fields.trig_mode && ret >= 0)
		e->fields.remote_irr = 1;
	/*
	 * The ABI calls it delivered even if a LAPIC held the same request still; but the clock's lost ticks are
	 * made up for by VMMs, so they must hear of them.
	 */
	return ret || pin == RTC_PIN ? ret : 1;
}

int irq_ioapic_set(struct keel_vm *vm, unsigned int pin, enum irq_source source, bool level)
{
	struct irq_ioapic *io = vm->irq.ioapic;
	unsigned long flags;
	int ret = 1;
	bool was_up;

	raw_spin_lock_irqsave(&io->lock, flags);
	if (level)
		io->sources[pin] |= BIT(source);
	else
		io->sources[pin] &= ~BIT(source);
	was_up = io->irr & BIT(pin);
	if (!io->sources[pin]) {
		io->irr &= ~BIT(pin);
	} else {
		io->irr |= BIT(pin);
		if (was_up && !io->pins[pin].fields.trig_mode)
			ret = 0;
		else
			ret = pin_send(io, pin);
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
	return ret;
}

/* ------------------------------------------------------------- EOI */
static void update_wants_eoi(struct irq_ioapic *io)
{
	DECLARE_BITMAP(want, 256) = {};
	u32 acked = irq_ioapic_pins_acked(io->device.vm);
	unsigned int pin;

	for (pin = 0; pin < IRQ_IOAPIC_PINS; pin++) {
		if (io->pins[pin].fields.trig_mode || acked & BIT(pin))
			__set_bit(io->pins[pin].fields.vector, want);
	}
	bitmap_copy(io->device.vm->irq.wants_eoi, want, 256);
}

void irq_ioapic_rescan(struct keel_vm *vm)
{
	struct irq_ioapic *io = vm->irq.ioapic;
	unsigned long flags;

	if (!io)
		return;
	raw_spin_lock_irqsave(&io->lock, flags);
	update_wants_eoi(io);
	raw_spin_unlock_irqrestore(&io->lock, flags);
}

/* The line is still up after an EOI: once more, or after a pause. */
static void pin_again(struct irq_ioapic *io, unsigned int pin)
{
	if (++io->eois[pin] < STORM_EOIS) {
		pin_send(io, pin);
		return;
	}
	io->eois[pin] = 0;
	if (!io->paused && !io->stopped)
		hrtimer_start(&io->storm, ns_to_ktime(STORM_PAUSE_NS), HRTIMER_MODE_REL_HARD);
	io->paused |= BIT(pin);
}

static enum hrtimer_restart storm_over(struct hrtimer *timer)
{
	struct irq_ioapic *io = container_of(timer, struct irq_ioapic, storm);
	unsigned long flags, paused;
	unsigned int pin;

	raw_spin_lock_irqsave(&io->lock, flags);
	paused = io->paused & io->irr;
	io->paused = 0;
	for_each_set_bit(pin, &paused, IRQ_IOAPIC_PINS) {
		if (io->pins[pin].fields.trig_mode)
			pin_send(io, pin);
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
	return HRTIMER_NORESTART;
}

/*
 * Is it the pin's interrupt that was ended?  Others may have the vector: messages, and pins that lead to other CPUs.  A
 * pin that was given another destination while its interrupt was under way goes by the vector alone.
 */
static bool pin_ended(const struct irq_ioapic *io, unsigned int pin, const struct keel_lapic *apic, u8 vector, bool level)
{
	ioapic_entry e = { .bits = READ_ONCE(io->pins[pin].bits) };
	struct irq_msg msg = pin_msg(&e);

	if (e.fields.vector != vector || e.fields.trig_mode != level)
		return false;
	smp_rmb();	/* with set_pin() */
	return irq_msg_reaches(apic, &msg) || (READ_ONCE(io->moved) & BIT(pin));
}

void irq_ioapic_eoi(struct keel_lapic *apic, u8 vector, bool level)
{
	struct keel_vm *vm = apic->vcpu->vm;
	struct irq_ioapic *io = vm->irq.ioapic;
	unsigned long flags, pins = 0;
	unsigned int pin;

	for (pin = 0; pin < IRQ_IOAPIC_PINS; pin++) {
		if (pin_ended(io, pin, apic, vector, level))
			pins |= BIT(pin);
	}
	if (!pins)
		return;

	/* First those who hold the line, so that it is sent again only if it is still wanted. */
	for_each_set_bit(pin, &pins, IRQ_IOAPIC_PINS)
		irq_acked(vm, CHIP_IOAPIC, pin);
	if (!level)
		return;

	raw_spin_lock_irqsave(&io->lock, flags);
	for_each_set_bit(pin, &pins, IRQ_IOAPIC_PINS) {
		ioapic_entry *e = &io->pins[pin];

		if (e->fields.vector != vector || !e->fields.trig_mode || !e->fields.remote_irr)
			continue;
		e->fields.remote_irr = 0;
		io->moved &= ~BIT(pin);
		if ((io->irr & BIT(pin)) && !e->fields.mask)
			pin_again(io, pin);
		else
			io->eois[pin] = 0;
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
}

/* ------------------------------------------------------------- registers */
static u32 window_read(struct irq_ioapic *io)
{
	u32 reg = io->select, pin = (reg - 0x10) >> 1;

	switch (reg) {
	case 0:
	case 2:
		return (io->id & 0xf) << 24;
	case 1:
		return (IRQ_IOAPIC_PINS - 1) << 16 | IOAPIC_VERSION;
	}
	if (reg < 0x10 || pin >= IRQ_IOAPIC_PINS)
		return 0;
	return io->pins[array_index_nospec(pin, IRQ_IOAPIC_PINS)].bits >> (reg & 1 ? 32 : 0);
}

/* An interrupt that is under way was sent by the old entry. */
static void set_pin(struct irq_ioapic *io, unsigned int pin, ioapic_entry new)
{
	const ioapic_entry *old = &io->pins[pin];

	if (new.fields.remote_irr && (new.fields.dest_id != old->fields.dest_id || new.fields.dest_mode != old->fields.dest_mode))
		WRITE_ONCE(io->moved, io->moved | BIT(pin));
	smp_wmb();	/* with pin_ended() */
	WRITE_ONCE(io->pins[pin].bits, new.bits);
	if (!new.fields.remote_irr)
		WRITE_ONCE(io->moved, io->moved & ~BIT(pin));
}

void irq_ioapic_apics_changed(struct keel_vm *vm)
{
	struct irq_ioapic *io = vm->irq.ioapic;
	unsigned long flags;
	unsigned int pin;

	if (!io)
		return;
	raw_spin_lock_irqsave(&io->lock, flags);
	for (pin = 0; pin < IRQ_IOAPIC_PINS; pin++)
		if (io->pins[pin].fields.remote_irr)
			WRITE_ONCE(io->moved, io->moved | BIT(pin));
	raw_spin_unlock_irqrestore(&io->lock, flags);
}

/* A level that is up is sent, unless it pauses. */
static void pin_look(struct irq_ioapic *io, unsigned int pin)
{
	if (io->pins[pin].fields.trig_mode && (io->irr & BIT(pin)) && !(io->paused & BIT(pin)))
		pin_send(io, pin);
}

/* A level message that was not sent after all: the pin is looked at as if it had not been. */
static void pin_unsent(struct irq_ioapic *io, unsigned int pin, bool again)
{
	ioapic_entry *e = &io->pins[pin];

	if (!e->fields.trig_mode || !e->fields.remote_irr)
		return;
	e->fields.remote_irr = 0;
	if (again)
		pin_look(io, pin);
}

/* The pin said that it was sent; if nobody took it, or the guest has masked it or made it another, it was not. */
void irq_ioapic_send_late(struct keel_vm *vm, unsigned int pin)
{
	struct irq_ioapic *io = vm->irq.ioapic;
	ioapic_entry *e = &io->pins[pin], was;
	unsigned long flags;
	struct irq_msg msg;
	bool wanted;

	raw_spin_lock_irqsave(&io->lock, flags);
	was = io->late[pin];
	msg = pin_msg(&was);
	/* An edge is sent once, and has been as far as anybody can tell. */
	wanted = !msg.level || (!e->fields.mask && e->fields.trig_mode && e->fields.remote_irr);
	if (!wanted)
		pin_unsent(io, pin, true);
	raw_spin_unlock_irqrestore(&io->lock, flags);
	if (!wanted || irq_deliver(vm, NULL, &msg) >= 0 || !msg.level)
		return;
	raw_spin_lock_irqsave(&io->lock, flags);
	/* As it was, it would find nobody again. */
	was.fields.remote_irr = e->fields.remote_irr;
	pin_unsent(io, pin, e->bits != was.bits);
	raw_spin_unlock_irqrestore(&io->lock, flags);
}

/* Whose line is to be asked for again before it is sent, and which pin has been unmasked; -1: none. */
static int window_write(struct irq_ioapic *io, u32 val, int *unmasked)
{
	u32 reg = io->select, pin = (reg - 0x10) >> 1;
	ioapic_entry e, was;

	if (reg == 0)
		io->id = val >> 24 & 0xf;
	if (reg < 0x10 || pin >= IRQ_IOAPIC_PINS)
		return -1;

	pin = array_index_nospec(pin, IRQ_IOAPIC_PINS);
	e = was = io->pins[pin];
	if (reg & 1) {
		e.bits = (u32)e.bits | (u64)val << 32;
	} else {
		e.bits = (e.bits & ~(u64)U32_MAX & ~ENTRY_READ_ONLY) | (val & ~ENTRY_READ_ONLY) | (e.bits & ENTRY_READ_ONLY);
		/* How drivers drop a stuck remote IRR where there is no EOI register: via edge and back. */
		if (!e.fields.trig_mode)
			e.fields.remote_irr = 0;
	}
	e.fields.reserve = 0;
	set_pin(io, pin, e);
	update_wants_eoi(io);
	if (was.fields.mask && !e.fields.mask)
		*unmasked = pin;
	/*
	 * Who handles an interrupt in a thread has it masked from its end until the device has been served, which
	 * took it for ended sooner, and may have raised its line in between.
	 */
	if (was.fields.mask && !e.fields.mask && e.fields.trig_mode && !e.fields.remote_irr &&
	    io->sources[pin] & BIT(SOURCE_RESAMPLE))
		return pin;
	pin_look(io, pin);
	return -1;
}

static int ioapic_read(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, void *data)
{
	struct irq_ioapic *io = container_of(dev, struct irq_ioapic, dev);
	unsigned long flags;
	u32 val = 0;

	memset(data, 0, len);
	if (addr & 0xf)
		return 0;
	raw_spin_lock_irqsave(&io->lock, flags);
	switch (addr & 0xff) {
	case REG_SELECT:
		val = io->select;
		break;
	case REG_WINDOW:
		val = window_read(io);
		break;
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
	memcpy(data, &val, min_t(unsigned int, len, sizeof(val)));
	return 0;
}

static int ioapic_write(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len,
			const void *data)
{
	struct irq_ioapic *io = container_of(dev, struct irq_ioapic, dev);
	int resample = -1, unmasked = -1;
	unsigned long flags;
	u32 val = 0;

	if (addr & 0xf)
		return 0;
	memcpy(&val, data, min_t(unsigned int, len, sizeof(val)));
	raw_spin_lock_irqsave(&io->lock, flags);
	switch (addr & 0xff) {
	case REG_SELECT:
		io->select = val & 0xff;
		break;
	case REG_WINDOW:
		resample = window_write(io, val, &unmasked);
		break;
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
	if (unmasked >= 0)
		irq_unmasked(io->device.vm, CHIP_IOAPIC, unmasked);
	if (resample < 0)
		return 0;
	irq_acked(io->device.vm, CHIP_IOAPIC, resample);
	raw_spin_lock_irqsave(&io->lock, flags);
	pin_look(io, resample);
	raw_spin_unlock_irqrestore(&io->lock, flags);
	return 0;
}

static const struct irq_bus_ops ioapic_ops = { .read = ioapic_read, .write = ioapic_write };

/* ------------------------------------------------------------- life, state */
static struct irq_ioapic *to_ioapic(struct irq_device *device)
{
	return container_of(device, struct irq_ioapic, device);
}

static void ioapic_stop(struct irq_device *device)
{
	struct irq_ioapic *io = to_ioapic(device);
	unsigned long flags;

	raw_spin_lock_irqsave(&io->lock, flags);
	io->stopped = true;
	raw_spin_unlock_irqrestore(&io->lock, flags);
	hrtimer_cancel(&io->storm);
}

static void ioapic_still(struct irq_device *device)
{
	hrtimer_cancel(&to_ioapic(device)->storm);
}

static void ioapic_leave(struct irq_device *device)
{
	device->vm->irq.ioapic = NULL;
}

static void ioapic_get(struct irq_device *device, unsigned int chip, void *state)
{
	struct irq_ioapic *io = to_ioapic(device);
	struct kvm_ioapic_state *s = state;
	unsigned long flags;
	unsigned int pin;

	memset(s, 0, sizeof(*s));
	raw_spin_lock_irqsave(&io->lock, flags);
	s->base_address = IO_APIC_DEFAULT_PHYS_BASE;
	s->ioregsel = io->select;
	s->id = io->id;
	for (pin = 0; pin < IRQ_IOAPIC_PINS; pin++) {	/* an edge was sent when it came */
		if (io->pins[pin].fields.trig_mode)
			s->irr |= io->irr & BIT(pin);
	}
	memcpy(s->redirtbl, io->pins, sizeof(s->redirtbl));
	raw_spin_unlock_irqrestore(&io->lock, flags);
}

/* Lines that were up are sent on; what they stand for in sources[] their owners tell anew. */
static void ioapic_load(struct irq_device *device, unsigned int chip, const void *state)
{
	struct irq_ioapic *io = to_ioapic(device);
	const struct kvm_ioapic_state *s = state;
	unsigned long flags, up;
	unsigned int pin;

	raw_spin_lock_irqsave(&io->lock, flags);
	io->select = s->ioregsel & 0xff;
	io->id = s->id & 0xf;
	memcpy(io->pins, s->redirtbl, sizeof(io->pins));
	memset(io->eois, 0, sizeof(io->eois));
	/* Who the interrupts under way went to is not known here. */
	io->moved = 0;
	for (pin = 0; pin < IRQ_IOAPIC_PINS; pin++)
		if (io->pins[pin].fields.remote_irr)
			io->moved |= BIT(pin);
	io->irr = 0;
	update_wants_eoi(io);
	up = s->irr & GENMASK(IRQ_IOAPIC_PINS - 1, 0);
	for_each_set_bit(pin, &up, IRQ_IOAPIC_PINS) {
		if (io->pins[pin].fields.trig_mode)
			io->irr |= BIT(pin);
		pin_send(io, pin);
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
}

VM_IOCTL(irq_ioapic_get_state)
{
	struct irq_ioapic *io = vm->irq.ioapic;
	struct keel_state_ioapic *s = buf;
	unsigned long flags;
	unsigned int pin;

	BUILD_BUG_ON(sizeof(s->eois) != sizeof(io->eois));
	raw_spin_lock_irqsave(&io->lock, flags);
	s->state.base_address = IO_APIC_DEFAULT_PHYS_BASE;
	s->state.ioregsel = io->select;
	s->state.id = io->id;
	s->state.irr = io->irr;
	memcpy(s->state.redirtbl, io->pins, sizeof(io->pins));
	s->moved = io->moved;
	s->paused = io->paused;
	if (io->paused)
		s->paused_until = ktime_to_ns(hrtimer_get_expires(&io->storm)) - keel_clock_mono(vm);
	memcpy(s->eois, io->eois, sizeof(s->eois));
	for (pin = 0; pin < IRQ_IOAPIC_PINS; pin++)
		s->sources[pin] = io->sources[pin] & IRQ_STATE_SOURCES;
	raw_spin_unlock_irqrestore(&io->lock, flags);
	return 0;
}

/* Unlike ioapic_load(), which has not seen what LAPICs have: nothing is sent. */
VM_IOCTL(irq_ioapic_set_state)
{
	const u32 pins = GENMASK(IRQ_IOAPIC_PINS - 1, 0);
	struct irq_ioapic *io = vm->irq.ioapic;
	const struct keel_state_ioapic *s = buf;
	unsigned long flags;
	int err = -EINVAL;

	raw_spin_lock_irqsave(&io->lock, flags);
	if (!((s->state.irr | s->moved | s->paused) & ~pins) &&
	    irq_sources_set(io->sources, s->sources, IRQ_IOAPIC_PINS)) {
		io->select = s->state.ioregsel & 0xff;
		io->id = s->state.id & 0xf;
		io->irr = s->state.irr;
		io->moved = s->moved;
		io->paused = s->paused;
		memcpy(io->eois, s->eois, sizeof(io->eois));
		/* A guest programs it once. */
		if (memcmp(io->pins, s->state.redirtbl, sizeof(io->pins))) {
			memcpy(io->pins, s->state.redirtbl, sizeof(io->pins));
			update_wants_eoi(io);
		}
		if (io->paused && !io->stopped)
			hrtimer_set_expires(&io->storm, keel_clock_expires(vm, s->paused_until));	/* irq_ioapic_go() */
		err = 0;
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
	return err;
}

void irq_ioapic_go(struct keel_vm *vm, u32 moved)
{
	struct irq_ioapic *io = vm->irq.ioapic;
	bool held = READ_ONCE(vm->irq.nr_resample);
	unsigned long flags;
	unsigned int pin;

	raw_spin_lock_irqsave(&io->lock, flags);
	io->moved = moved;
	if (io->paused && !io->stopped)
		hrtimer_start(&io->storm, hrtimer_get_expires(&io->storm), HRTIMER_MODE_ABS_HARD);
	/* Lines that are up now, by whom no state tells. */
	for (pin = 0; held && pin < IRQ_IOAPIC_PINS; pin++) {
		if (!(io->sources[pin] & ~IRQ_STATE_SOURCES) || !io->pins[pin].fields.trig_mode)
			continue;
		io->irr |= BIT(pin);
		pin_look(io, pin);
	}
	raw_spin_unlock_irqrestore(&io->lock, flags);
}

static const struct irq_range ioapic_ranges[] = {
	IRQ_RANGE(irq_ioapic, dev, BUS_MMIO, IO_APIC_DEFAULT_PHYS_BASE, IOAPIC_SIZE),
};

static const struct irq_device_ops ioapic_device = {
	.ranges	= ioapic_ranges,
	.chips	= BIT(KVM_IRQCHIP_IOAPIC),
	.get	= ioapic_get,
	.set	= ioapic_load,
	.stop	= ioapic_stop,
	.still	= ioapic_still,
	.leave	= ioapic_leave,
};

int irq_ioapic_create(struct keel_vm *vm)
{
	struct irq_ioapic *io = kzalloc(sizeof(*io), GFP_KERNEL_ACCOUNT);
	unsigned int pin;
	int ret;

	if (!io)
		return -ENOMEM;
	io->dev.ops = &ioapic_ops;
	raw_spin_lock_init(&io->lock);
	hrtimer_setup(&io->storm, storm_over, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	for (pin = 0; pin < IRQ_IOAPIC_PINS; pin++)
		io->pins[pin].fields.mask = 1;
	ret = irq_device_add(vm, &io->device, &ioapic_device, ARRAY_SIZE(ioapic_ranges));
	if (!ret)
		vm->irq.ioapic = io;
	return ret;
}
