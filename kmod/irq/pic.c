// SPDX-License-Identifier: GPL-2.0-only
/*
 * pic.c - two 8259A interrupt controllers, the second behind pin 2 of the first, with the ELCRs of PC chipsets
 * (8259A data sheet; "INTA sequence", "Operation command words").
 *
 * The state of a chip is the ABI's own struct kvm_pic_state.  pic->lock, raw and with IRQs off, guards all; it
 * is dropped before ack notifiers run and before a vCPU is told that the output rose.
 */
#include <linux/bitops.h>
#include <linux/slab.h>
#include "internal.h"

#define CASCADE		2
#define NONE		8	/* priority of no interrupt */

enum { MASTER = KVM_IRQCHIP_PIC_MASTER, SLAVE = KVM_IRQCHIP_PIC_SLAVE };

struct irq_pic {
	struct irq_device device;
	struct irq_bus_dev dev;
	raw_spinlock_t lock;
	struct kvm_pic_state chip[2];
	u8 sources[IRQ_PIC_PINS];	/* bit per irq_source */
	unsigned long acked;		/* pins acknowledged in this locked section */
	unsigned long unmasked;		/* and unmasked */
};

/* ------------------------------------------------------------- one chip */
/* Rank of the most urgent of @mask, 0 first, NONE if it is empty. */
static unsigned int chip_rank(const struct kvm_pic_state *s, u8 mask)
{
	return mask ? __ffs(ror8(mask, s->priority_add)) : NONE;
}

static unsigned int chip_irq(const struct kvm_pic_state *s, unsigned int rank)
{
	return (rank + s->priority_add) & 7;
}

/* Which input the chip asks an interrupt for; -1 none. */
static int chip_output(const struct kvm_pic_state *s, bool master)
{
	unsigned int rank = chip_rank(s, s->irr & ~s->imr);
	u8 busy = s->isr;

	if (rank == NONE)
		return -1;
	if (s->special_mask)
		busy &= ~s->imr;
	if (s->special_fully_nested_mode && master)
		busy &= ~BIT(CASCADE);
	return rank < chip_rank(s, busy) ? (int)chip_irq(s, rank) : -1;
}

/* Below 0 masked, 0 already pending, 1 noted. */
static int chip_set(struct kvm_pic_state *s, unsigned int irq, bool level)
{
	u8 bit = BIT(irq);
	int ret = 1;

	if (!level) {
		s->last_irr &= ~bit;
		if (s->elcr & bit)
			s->irr &= ~bit;
	} else {
		if ((s->elcr & bit) || !(s->last_irr & bit)) {
			ret = !(s->irr & bit);
			s->irr |= bit;
		} else {
			ret = 0;
		}
		s->last_irr |= bit;
	}
	return s->imr & bit ? -1 : ret;
}

/* ------------------------------------------------------------- the pair */
static void clear_isr(struct irq_pic *pic, unsigned int c, unsigned int irq)
{
	pic->chip[c].isr &= ~BIT(irq);
	pic->acked |= BIT(c * 8 + irq);
}

static void chip_ack(struct irq_pic *pic, unsigned int c, unsigned int irq)
{
	struct kvm_pic_state *s = &pic->chip[c];

	s->isr |= BIT(irq);
	if (!(s->elcr & BIT(irq)))
		s->irr &= ~BIT(irq);
	if (s->auto_eoi) {
		if (s->rotate_on_auto_eoi)
			s->priority_add = (irq + 1) & 7;
		clear_isr(pic, c, irq);
	}
}

/* The slave's output is the master's pin 2; true if the pair's output is up. */
static bool pair_output(struct irq_pic *pic)
{
	struct kvm_pic_state *m = &pic->chip[MASTER];

	if (chip_output(&pic->chip[SLAVE], false) >= 0)
		m->irr |= BIT(CASCADE);
	else
		m->irr &= ~BIT(CASCADE);
	return chip_output(m, true) >= 0;
}

static int pair_inta(struct irq_pic *pic)
{
	int irq = chip_output(&pic->chip[MASTER], true);

	/* Asked and gone again: the data sheet's spurious interrupt 7. */
	if (irq < 0)
		return pic->chip[MASTER].irq_base + 7;
	chip_ack(pic, MASTER, irq);
	if (irq != CASCADE)
		return pic->chip[MASTER].irq_base + irq;
	irq = chip_output(&pic->chip[SLAVE], false);
	if (irq < 0)
		return pic->chip[SLAVE].irq_base + 7;
	chip_ack(pic, SLAVE, irq);
	return pic->chip[SLAVE].irq_base + irq;
}

/* ------------------------------------------------------------- registers */
static void icw1(struct irq_pic *pic, unsigned int c, u8 val)
{
	struct kvm_pic_state *s = &pic->chip[c];
	u8 edges = s->irr & ~s->elcr;

	/* Nobody will acknowledge what is forgotten here. */
	pic->acked |= (unsigned long)(u8)(edges | s->isr) << (c * 8);
	s->init4 = val & 1;
	s->irr &= s->elcr;
	s->last_irr = 0;
	s->imr = 0;
	s->isr = 0;
	s->priority_add = 0;
	s->special_mask = 0;
	s->read_reg_select = 0;
	s->rotate_on_auto_eoi = 0;
	s->poll = 0;
	if (!s->init4) {
		s->special_fully_nested_mode = 0;
		s->auto_eoi = 0;
	}
	s->init_state = 1;
}

static void ocw2(struct irq_pic *pic, unsigned int c, u8 val)
{
	struct kvm_pic_state *s = &pic->chip[c];
	bool rotate = val & 0x80, specific = val & 0x40, eoi = val & 0x20;
	unsigned int irq = val & 7, rank;

	if (!eoi && !specific) {
		s->rotate_on_auto_eoi = rotate;
		return;
	}
	if (eoi && !specific) {
		rank = chip_rank(s, s->special_mask ? s->isr & ~s->imr : s->isr);
		if (rank == NONE)
			return;
		irq = chip_irq(s, rank);
	}
	if (rotate)
		s->priority_add = (irq + 1) & 7;
	if (eoi)
		clear_isr(pic, c, irq);
}

static void ocw3(struct kvm_pic_state *s, u8 val)
{
	if (val & 0x04)
		s->poll = 1;
	if (val & 0x02)
		s->read_reg_select = val & 1;
	if (val & 0x40)
		s->special_mask = val >> 5 & 1;
}

static void data_write(struct kvm_pic_state *s, u8 val)
{
	switch (s->init_state) {
	case 1:
		s->irq_base = val & 0xf8;
		s->init_state = 2;
		break;
	case 2:		/* how the chips are wired is known */
		s->init_state = s->init4 ? 3 : 0;
		break;
	case 3:
		s->special_fully_nested_mode = val >> 4 & 1;
		s->auto_eoi = val >> 1 & 1;
		s->init_state = 0;
		break;
	default:
		s->imr = val;
	}
}

static void port_write(struct irq_pic *pic, u16 port, u8 val)
{
	unsigned int c = port == 0x4d1 || (port & 0xfe) == 0xa0;
	struct kvm_pic_state *s = &pic->chip[c];
	u8 masked = s->imr;

	if (port >= 0x4d0)
		s->elcr = val & s->elcr_mask;
	else if (port & 1)
		data_write(s, val);
	else if (val & 0x10)
		icw1(pic, c, val);
	else if (val & 0x08)
		ocw3(s, val);
	else
		ocw2(pic, c, val);
	pic->unmasked |= (unsigned long)(u8)(masked & ~s->imr) << (c * 8);
}

static u8 port_read(struct irq_pic *pic, u16 port)
{
	unsigned int c = port == 0x4d1 || (port & 0xfe) == 0xa0;
	struct kvm_pic_state *s = &pic->chip[c];
	int irq;

	if (port >= 0x4d0)
		return s->elcr;
	if (s->poll) {		/* the read takes the place of the INTA cycle */
		s->poll = 0;
		irq = chip_output(s, c == MASTER);
		if (irq < 0)
			return 0;
		chip_ack(pic, c, irq);
		return 0x80 | irq;
	}
	if (port & 1)
		return s->imr;
	return s->read_reg_select ? s->isr : s->irr;
}

/* ------------------------------------------------------------- around the lock */

/* Seldom another than the boot CPU. */
static struct keel_vcpu *extint_taker(struct keel_vm *vm)
{
	struct keel_vcpu *vcpu;

	smp_mb();	/* who becomes one looks at the output behind that */
	vcpu = keel_vcpu_by_idx(vm, READ_ONCE(vm->irq.extint_taker));
	return vcpu && irq_extint_accepted(vcpu) ? vcpu : NULL;
}

/* Ends a locked section: @again also tells of an output that stayed up. */
static void pic_unlock(struct irq_pic *pic, unsigned long flags, bool again)
	__releases(&pic->lock)
{
	struct keel_vm *vm = pic->device.vm;
	unsigned long acked = pic->acked, unmasked = pic->unmasked;
	bool was = vm->irq.pic_raised, is = pair_output(pic);
	struct keel_vcpu *vcpu;
	unsigned int pin;

	pic->acked = pic->unmasked = 0;
	if (was != is)
		WRITE_ONCE(vm->irq.pic_raised, is);
	raw_spin_unlock_irqrestore(&pic->lock, flags);

	if (is && (again || !was)) {
		vcpu = extint_taker(vm);
		if (vcpu) {
			keel_request(KEEL_REQ_EVENT, vcpu);
			keel_vcpu_kick(vcpu);
		}
	}
	for_each_set_bit(pin, &unmasked, IRQ_PIC_PINS)
		irq_unmasked(vm, CHIP_PIC, pin);
	for_each_set_bit(pin, &acked, IRQ_PIC_PINS)
		irq_acked(vm, CHIP_PIC, pin);
}

int irq_pic_set(struct keel_vm *vm, unsigned int pin, enum irq_source source, bool level)
{
	struct irq_pic *pic = vm->irq.pic;
	unsigned long flags;
	int ret;

	raw_spin_lock_irqsave(&pic->lock, flags);
	if (level)
		pic->sources[pin] |= BIT(source);
	else
		pic->sources[pin] &= ~BIT(source);
	ret = chip_set(&pic->chip[pin / 8], pin % 8, pic->sources[pin]);
	pic_unlock(pic, flags, false);
	return ret;
}

int irq_pic_ack(struct keel_vm *vm)
{
	struct irq_pic *pic = vm->irq.pic;
	unsigned long flags;
	int vector;

	raw_spin_lock_irqsave(&pic->lock, flags);
	vector = pair_inta(pic);
	pic_unlock(pic, flags, true);
	return vector;
}

static int pic_read(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, void *data)
{
	struct irq_pic *pic = container_of(dev, struct irq_pic, dev);
	unsigned long flags;
	u8 *bytes = data;
	unsigned int i;

	raw_spin_lock_irqsave(&pic->lock, flags);
	for (i = 0; i < len; i++)
		bytes[i] = port_read(pic, addr + i);
	pic_unlock(pic, flags, true);
	return 0;
}

static int pic_write(struct irq_bus_dev *dev, struct keel_vcpu *vcpu, u64 addr, unsigned int len, const void *data)
{
	struct irq_pic *pic = container_of(dev, struct irq_pic, dev);
	const u8 *bytes = data;
	unsigned long flags;
	unsigned int i;

	raw_spin_lock_irqsave(&pic->lock, flags);
	for (i = 0; i < len; i++)
		port_write(pic, addr + i, bytes[i]);
	pic_unlock(pic, flags, true);
	return 0;
}

static const struct irq_bus_ops pic_ops = { .read = pic_read, .write = pic_write };

/* ------------------------------------------------------------- life, state */
static void pic_leave(struct irq_device *device)
{
	device->vm->irq.pic = NULL;
}

static void pic_get(struct irq_device *device, unsigned int chip, void *state)
{
	struct irq_pic *pic = container_of(device, struct irq_pic, device);
	unsigned long flags;

	raw_spin_lock_irqsave(&pic->lock, flags);
	*(struct kvm_pic_state *)state = pic->chip[chip];
	raw_spin_unlock_irqrestore(&pic->lock, flags);
}

static void chip_load(struct kvm_pic_state *c, const struct kvm_pic_state *state)
{
	u8 elcr_mask = c->elcr_mask;

	*c = *state;
	c->priority_add &= 7;
	c->init_state &= 3;
	c->elcr_mask = elcr_mask;
}

static void pic_load(struct irq_device *device, unsigned int chip, const void *state)
{
	struct irq_pic *pic = container_of(device, struct irq_pic, device);
	unsigned long flags;

	raw_spin_lock_irqsave(&pic->lock, flags);
	chip_load(&pic->chip[chip], state);
	pic_unlock(pic, flags, true);
}

VM_IOCTL(irq_pic_get_state)
{
	struct irq_pic *pic = vm->irq.pic;
	struct keel_state_pic *s = buf;
	unsigned long flags;
	unsigned int i;

	raw_spin_lock_irqsave(&pic->lock, flags);
	memcpy(s->chip, pic->chip, sizeof(s->chip));
	for (i = 0; i < IRQ_PIC_PINS; i++)
		s->sources[i] = pic->sources[i] & IRQ_STATE_SOURCES;
	raw_spin_unlock_irqrestore(&pic->lock, flags);
	return 0;
}

VM_IOCTL(irq_pic_set_state)
{
	struct irq_pic *pic = vm->irq.pic;
	const struct keel_state_pic *s = buf;
	unsigned long flags;
	unsigned int pin;
	bool valid, held = READ_ONCE(vm->irq.nr_resample);

	raw_spin_lock_irqsave(&pic->lock, flags);
	valid = irq_sources_set(pic->sources, s->sources, IRQ_PIC_PINS);
	if (valid) {
		chip_load(&pic->chip[MASTER], &s->chip[MASTER]);
		chip_load(&pic->chip[SLAVE], &s->chip[SLAVE]);
		/* Lines that are up now, by whom no state tells. */
		for (pin = 0; held && pin < IRQ_PIC_PINS; pin++)
			if (pic->sources[pin] & ~IRQ_STATE_SOURCES)
				chip_set(&pic->chip[pin / 8], pin % 8, true);
	}
	pic_unlock(pic, flags, true);
	return valid ? 0 : -EINVAL;
}

static const struct irq_range pic_ranges[] = {
	IRQ_RANGE(irq_pic, dev, BUS_PIO, 0x20, 2),
	IRQ_RANGE(irq_pic, dev, BUS_PIO, 0xa0, 2),
	IRQ_RANGE(irq_pic, dev, BUS_PIO, 0x4d0, 2),
};

static const struct irq_device_ops pic_device = {
	.ranges	= pic_ranges,
	.chips	= BIT(KVM_IRQCHIP_PIC_MASTER) | BIT(KVM_IRQCHIP_PIC_SLAVE),
	.get	= pic_get,
	.set	= pic_load,
	.leave	= pic_leave,
};

int irq_pic_create(struct keel_vm *vm)
{
	struct irq_pic *pic = kzalloc(sizeof(*pic), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!pic)
		return -ENOMEM;
	pic->dev.ops = &pic_ops;
	raw_spin_lock_init(&pic->lock);
	/* Timer, keyboard and cascade of the first, clock and FPU of the second are edge-triggered for good. */
	pic->chip[MASTER].elcr_mask = 0xf8;
	pic->chip[SLAVE].elcr_mask = 0xde;
	ret = irq_device_add(vm, &pic->device, &pic_device, ARRAY_SIZE(pic_ranges));
	if (!ret)
		vm->irq.pic = pic;
	return ret;
}
