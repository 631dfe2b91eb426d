// SPDX-License-Identifier: GPL-2.0-only
/*
 * irq_test.c - the PIC and the PIT against their data sheets: priorities and rotation, cascade, poll, automatic
 * EOI, spurious interrupts, counters and their latches, ticks that wait for acknowledgement.
 */
#include "irq_env/irq_env.h"
#include "../../kmod/irq/pic.c"
#include "../../kmod/irq/pit.c"
#include "tap.h"

static bool test_ok;

#define EXPECT(got, want) do {								\
	long long got_ = (got), want_ = (want);						\
	if (got_ != want_) {								\
		printf("# line %d: %s is %#llx, not %#llx\n", __LINE__, #got, got_, want_); \
		test_ok = false;							\
	}										\
} while (0)

static void line(unsigned int pin, bool level)
{
	irq_pic_set(&env_vm, pin, SOURCE_USER, level);
}

static void pulse(unsigned int pin)
{
	line(pin, true);
	line(pin, false);
}

static void pic_program(u8 icw4)
{
	outb(0x20, 0x11);
	outb(0x21, 0x30);
	outb(0x21, 4);
	outb(0x21, icw4);
	outb(0xa0, 0x11);
	outb(0xa1, 0x38);
	outb(0xa1, 2);
	outb(0xa1, icw4);
	memset(env_acks, 0, sizeof(env_acks));
}

static bool raised(void)
{
	return env_vm.irq.pic_raised;
}

static int ack(void)
{
	return irq_pic_ack(&env_vm);
}

static void test_priorities(void)
{
	pulse(5);
	pulse(3);
	EXPECT(raised(), true);
	EXPECT(ack(), 0x33);
	EXPECT(raised(), false);	/* 5 is below 3 in service */
	pulse(1);
	EXPECT(ack(), 0x31);
	outb(0x20, 0x20);
	EXPECT(raised(), false);
	outb(0x20, 0x20);
	EXPECT(env_acks[1], 1);
	EXPECT(env_acks[3], 1);
	EXPECT(ack(), 0x35);
	outb(0x20, 0x65);		/* specific */
	EXPECT(env_acks[5], 1);
	outb(0x20, 0x0b);
	EXPECT(inb(0x20), 0);
}

static void test_masks(void)
{
	outb(0x21, 0xff);
	EXPECT(irq_pic_set(&env_vm, 4, SOURCE_USER, true), -1);
	EXPECT(raised(), false);
	outb(0x20, 0x0a);
	EXPECT(inb(0x20), 0x10);
	env_kicks = 0;
	outb(0x21, 0xef);
	EXPECT(raised(), true);
	EXPECT(env_kicks, 1);
	EXPECT(inb(0x21), 0xef);
	line(4, false);
	EXPECT(irq_pic_set(&env_vm, 4, SOURCE_USER, true), 0);	/* coalesced: an edge waits */
	EXPECT(ack(), 0x34);
}

static void test_cascade(void)
{
	pulse(12);
	EXPECT(ack(), 0x3c);
	outb(0x20, 0x0b);
	outb(0xa0, 0x0b);
	EXPECT(inb(0x20), 4);
	EXPECT(inb(0xa0), 0x10);
	pulse(8);			/* higher on the slave, held by the master: not specially nested */
	EXPECT(raised(), false);
	outb(0x20, 0x20);
	EXPECT(ack(), 0x38);
	outb(0xa0, 0x20);
	outb(0xa0, 0x20);
	outb(0x20, 0x20);
	EXPECT(inb(0xa0), 0);
	EXPECT(inb(0x20), 0);
}

static void test_special_nesting(void)
{
	outb(0x20, 0x11);
	outb(0x21, 0x30);
	outb(0x21, 4);
	outb(0x21, 0x11);
	pulse(12);
	EXPECT(ack(), 0x3c);
	pulse(8);
	EXPECT(ack(), 0x38);
}

static void test_level(void)
{
	outb(0x4d0, 0xff);
	EXPECT(inb(0x4d0), 0xf8);	/* the first three cannot be */
	outb(0x4d1, 0xff);
	EXPECT(inb(0x4d1), 0xde);
	line(5, true);
	irq_pic_set(&env_vm, 5, SOURCE_RESAMPLE, true);
	EXPECT(ack(), 0x35);
	outb(0x20, 0x20);
	EXPECT(raised(), true);		/* still up */
	line(5, false);
	EXPECT(raised(), true);		/* the other holds it */
	irq_pic_set(&env_vm, 5, SOURCE_RESAMPLE, false);
	EXPECT(raised(), false);
	outb(0x4d0, 0);
	outb(0x4d1, 0);
}

static void test_spurious(void)
{
	outb(0x4d0, 0x20);
	line(5, true);
	line(5, false);
	EXPECT(ack(), 0x37);
	outb(0x20, 0x0b);
	EXPECT(inb(0x20), 0);		/* no bit in service for it */
	outb(0x4d0, 0);
}

static void test_rotation(void)
{
	outb(0x20, 0xc3);		/* 3 becomes the lowest, so 4 is the highest */
	pulse(3);
	pulse(4);
	EXPECT(ack(), 0x34);
	outb(0x20, 0xa0);		/* EOI that rotates: 4 is the lowest now */
	pulse(4);
	EXPECT(ack(), 0x33);
	outb(0x20, 0x20);
	EXPECT(ack(), 0x34);
	outb(0x20, 0x20);
}

static void test_auto_eoi(void)
{
	outb(0x20, 0x11);
	outb(0x21, 0x30);
	outb(0x21, 4);
	outb(0x21, 3);
	memset(env_acks, 0, sizeof(env_acks));
	pulse(6);
	EXPECT(ack(), 0x36);
	EXPECT(env_acks[6], 1);
	outb(0x20, 0x0b);
	EXPECT(inb(0x20), 0);
}

static void test_special_mask(void)
{
	pulse(2 + 1);
	EXPECT(ack(), 0x33);
	outb(0x21, 0x08);
	pulse(6);
	EXPECT(raised(), false);
	outb(0x20, 0x68);		/* masked ones in service hold nobody back */
	EXPECT(ack(), 0x36);
	outb(0x20, 0x20);		/* and are not what a plain EOI means */
	outb(0x20, 0x0b);
	EXPECT(inb(0x20), 0x08);
	outb(0x20, 0x48);
}

static void test_poll(void)
{
	outb(0x20, 0x0c);
	EXPECT(inb(0x20), 0);
	pulse(6);
	outb(0x20, 0x0c);
	EXPECT(inb(0x20), 0x86);
	EXPECT(raised(), false);
	outb(0x20, 0x0b);
	EXPECT(inb(0x20), 0x40);
}

static void test_init_acks(void)
{
	pulse(6);
	pulse(1);
	EXPECT(ack(), 0x31);
	outb(0x20, 0x11);		/* forgets both: their owners hear of it */
	EXPECT(env_acks[1], 1);
	EXPECT(env_acks[6], 1);
	EXPECT(raised(), false);
}

/* ------------------------------------------------------------- PIT */
#define TICK_NS(n)	((s64)((n) * NSEC_PER_SEC / PIT_TICK_RATE))

static void pit_load_counter(unsigned int c, unsigned int mode, u16 count)
{
	outb(0x43, c << 6 | 0x30 | mode << 1);
	outb(0x40 + c, count);
	outb(0x40 + c, count >> 8);
}

static u16 pit_latched(unsigned int c)
{
	u16 lo;

	outb(0x43, c << 6);
	lo = inb(0x40 + c);
	return lo | inb(0x40 + c) << 8;
}

static void test_counting(void)
{
	pit_load_counter(2, 0, 1000);
	env_pass(TICK_NS(400) + 1);
	EXPECT(pit_latched(2), 600);
	EXPECT(inb(0x61) & 0x20, 0);
	env_pass(TICK_NS(601));
	EXPECT(inb(0x61) & 0x20, 0x20);
	EXPECT(pit_latched(2), 0xffff);	/* and on, round */
	pit_load_counter(2, 2, 1000);
	env_pass(TICK_NS(2300) + 1);
	EXPECT(pit_latched(2), 700);
	pit_load_counter(2, 3, 1000);
	env_pass(TICK_NS(300) + 1);
	EXPECT(pit_latched(2), 400);
	EXPECT(inb(0x61) & 0x20, 0x20);
	env_pass(TICK_NS(300));
	EXPECT(inb(0x61) & 0x20, 0);
	pit_load_counter(2, 2, 0);	/* 65536 */
	env_pass(TICK_NS(0x10000 + 16) + 1);
	EXPECT(pit_latched(2), 0x10000 - 16);
}

static void test_latches(void)
{
	u16 first;

	pit_load_counter(2, 2, 5000);
	env_pass(TICK_NS(100) + 1);
	outb(0x43, 2 << 6);
	env_pass(TICK_NS(100) + 1);
	outb(0x43, 2 << 6);		/* the first stays */
	first = inb(0x42);
	first |= inb(0x42) << 8;
	EXPECT(first, 4900);
	outb(0x43, 0xc8);		/* read back count and status of 2: status comes first */
	EXPECT(inb(0x42), 0x80 | 0x30 | 2 << 1);
	first = inb(0x42);
	EXPECT(first | inb(0x42) << 8, 4800);
	outb(0x43, 2 << 6 | 0x20 | 2 << 1);	/* high byte only */
	outb(0x42, 0x10);
	env_pass(TICK_NS(1) + 1);
	EXPECT(inb(0x42), 0x0f);
	outb(0x43, 2 << 6);
	EXPECT(inb(0x42), 0x0f);
	outb(0x43, 2 << 6 | 0x10 | 2 << 1);	/* low byte only */
	outb(0x42, 0x80);
	EXPECT(inb(0x42), 0x80);
}

static void test_gate(void)
{
	pit_load_counter(2, 1, 1000);
	env_pass(TICK_NS(500));
	outb(0x61, 0);
	outb(0x61, 3);			/* the rising gate starts it over */
	EXPECT(inb(0x61) & 3, 3);
	env_pass(TICK_NS(10) + 1);
	EXPECT(pit_latched(2), 990);
}

static void test_reinjection(void)
{
	pit_load_counter(0, 2, 11932);		/* 10 ms */
	env_pass(10500000);
	EXPECT(ack(), 0x30);
	env_pass(30000000);			/* three more while it is in service */
	EXPECT(raised(), false);
	outb(0x20, 0x20);
	EXPECT(ack(), 0x30);
	outb(0x20, 0x20);
	EXPECT(ack(), 0x30);
	outb(0x20, 0x20);
	EXPECT(ack(), 0x30);
	outb(0x20, 0x20);
	EXPECT(raised(), false);
	/* masked, they are not owed */
	outb(0x21, 1);
	env_pass(100000000);
	outb(0x21, 0);
	EXPECT(ack(), 0x30);			/* the one edge the PIC kept */
	outb(0x20, 0x20);
	EXPECT(raised(), false);
}

static void test_fast_period(void)
{
	unsigned int n = 0;
	s64 end;

	pit_load_counter(0, 2, 2);
	for (end = env_now + 10000000; env_now < end; env_pass(10000)) {
		if (raised()) {
			ack();
			outb(0x20, 0x20);
			n++;
		}
	}
	EXPECT(n >= 45 && n <= 50, 1);		/* 5 kHz, not 600 */
}

static void test_one_shot(void)
{
	pit_load_counter(0, 0, 1193);
	env_pass(900000);
	EXPECT(raised(), false);
	env_pass(200000);
	EXPECT(ack(), 0x30);
	outb(0x20, 0x20);
	env_pass(100000000);
	EXPECT(raised(), false);
	outb(0x43, 0x34);			/* a mode without a count does not run */
	env_pass(100000000);
	EXPECT(raised(), false);
}

static const struct {
	const char *name;
	void (*fn)(void);
} tests[] = {
	{ "priorities and EOI", test_priorities },
	{ "masks", test_masks },
	{ "cascade", test_cascade },
	{ "special fully nested mode", test_special_nesting },
	{ "level lines, several sources", test_level },
	{ "spurious interrupt", test_spurious },
	{ "rotation", test_rotation },
	{ "automatic EOI", test_auto_eoi },
	{ "special mask mode", test_special_mask },
	{ "poll", test_poll },
	{ "initialization acknowledges what it forgets", test_init_acks },
	{ "counting", test_counting },
	{ "latches", test_latches },
	{ "gate", test_gate },
	{ "ticks wait for acknowledgement", test_reinjection },
	{ "shortest period", test_fast_period },
	{ "one shot", test_one_shot },
};

int main(void)
{
	struct kvm_pit_config config = { .flags = KVM_PIT_SPEAKER_DUMMY };
	unsigned int i;

	tap_plan(ARRAY_SIZE(tests));
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		test_ok = true;
		irq_pic_create(&env_vm);
		irq_create_pit2(&env_vm, &config, 0);
		pic_program(1);
		tests[i].fn();
		env_devices_end();
		env_vm.irq.pic_raised = false;
		tap_result(test_ok, "irq: %s", tests[i].name);
	}
	return tap_exit();
}
