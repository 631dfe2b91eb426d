// SPDX-License-Identifier: GPL-2.0-only
/*
 * One VM reset over and over: two vCPUs that write pages at random, take timer
 * interrupts and send each other IPIs, at the same time; after each reset memory
 * and state are the same, bit for bit, but for the moment at which the state was
 * taken (uapi/keel.h, struct keel_state_clock).
 *
 * RESETS in the environment: how many (1000).
 */
#include "test.h"
#include <keel.h>

#define PAGE	4096UL
#define ROOM	96		/* pages at HEAP_GPA that are written */
#define TICK	0x50
#define IPI	0x51
#define CLOCK_MOMENT	24	/* bytes of the clock's section that say when it was looked at */

struct blob {
	u8 data[128 * 1024] __attribute__((aligned(8)));
	u64 size;
};

static volatile u64 rounds[2];

static u64 next(u64 *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 33;
}

/* What it does depends on the host's time and on the other one: no two runs write the same */
static void restless_guest(u64 me)
{
	u64 seed, i;

	guest_on(TICK, guest_count_eoi);
	guest_on(IPI, guest_count_eoi);
	apic_on();
	apic_write(0x3e0, 0xb);			/* by one */
	apic_write(0x320, TICK | 0x20000);	/* periodic, and not soon: the snapshot is to be before the first */
	apic_write(0x380, 1000000000);
	guest_sync(0);
	irq_on();
	apic_write(0x380, 200000 + 1000 * me);
	for (seed = rdtsc() + me; ; rounds[me]++) {
		u64 n = 4 + next(&seed) % 24;

		for (i = 0; i < n; i++)
			*(volatile u64 *)(HEAP_GPA + next(&seed) % ROOM * PAGE + 8 * (next(&seed) % 512)) = seed;
		apic_icr(!me, IPI);
		if (next(&seed) % 4 == 0)
			guest_sync(1);
	}
}

static void state_get(struct vm *vm, struct blob *b)
{
	struct keel_state s = { .data = (u64)b->data, .size = sizeof(b->data) };

	must(ioctl(vm->fd, KEEL_GET_STATE, &s));
	b->size = s.size;
}

/* Where they differ; "": nowhere */
static const char *difference(const struct blob *a, const struct blob *b)
{
	static char text[128];
	const struct keel_section *s = (void *)(a->data + sizeof(struct keel_state_head));

	if (a->size != b->size || memcmp(a->data, b->data, sizeof(struct keel_state_head)))
		return "size";
	for (; (u8 *)s < a->data + a->size; s = (void *)(s + 1) + (s->length + 7) / 8 * 8) {
		const u8 *is = b->data + ((u8 *)s - a->data);
		u64 from = s->id == KEEL_SECTION_CLOCK ? CLOCK_MOMENT : 0;

		if (!memcmp(s, is, sizeof(*s)) && !memcmp((u8 *)(s + 1) + from, is + sizeof(*s) + from, s->length - from))
			continue;
		snprintf(text, sizeof(text), "section %u of vCPU %d", s->id, (int)s->vcpu);
		return text;
	}
	return "";
}

static u64 hash(const void *mem, u64 size)
{
	const u64 *p = mem;
	u64 h = 1, i;

	for (i = 0; i < size / 8; i++)
		h = (h ^ p[i]) * 0x9e3779b97f4a7c15ULL + (h >> 29);
	return h;
}

static void *one_turn(void *v)
{
	vcpu_sync(v);
	vcpu_settle(v);
	return NULL;
}

FIXTURE(resets) {
	struct vm *vm;
};

FIXTURE_SETUP(resets)
{
	self->vm = vm_new(VM_IRQCHIP);
}

FIXTURE_TEARDOWN(resets)
{
	vm_free(self->vm);
}

TEST_F_TIMEOUT(resets, same_each_time, 86400)
{
	const char *env = getenv("RESETS"), *differs;
	struct blob *want = calloc(1, sizeof(*want)), *is = calloc(1, sizeof(*is));
	unsigned long n = env ? strtoul(env, NULL, 0) : 1000, i, pages = 0, ticks = 0, ipis = 0;
	u64 memory, heap;
	struct vm *vm = self->vm;
	struct keel_snapshot snap = { 0 };
	struct keel_reset r;
	struct vcpu *v[2];
	pthread_t t[2];
	int k, tries;

	for (k = 0; k < 2; k++) {
		v[k] = vcpu_new(vm, k);
		vcpu_long(v[k], restless_guest, k);
		memset(gpa_hva(vm, HEAP_GPA), 1, ROOM * PAGE);
	}
	for (k = 0; k < 2; k++) {
		struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };

		must(ioctl(v[k]->fd, KVM_SET_MP_STATE, &mp));
		one_turn(v[k]);
	}
	must(ioctl(vm->fd, KEEL_SNAPSHOT, &snap));
	state_get(vm, want);
	memory = hash(vm->mem, MEM_SIZE);
	heap = hash(vm->mem + HEAP_GPA, ROOM * PAGE);
	for (i = 0; i < n; i++) {
		for (k = 0; k < 2; k++)
			pthread_create(&t[k], NULL, one_turn, v[k]);
		for (k = 0; k < 2; k++)
			pthread_join(t[k], NULL);
		ticks += guest_var(vm, guest_irqs[TICK]);
		ipis += guest_var(vm, guest_irqs[IPI]);
		/* A thread that had to wait for a CPU may find the timer due before it looks */
		for (tries = 0, differs = "never"; *differs && tries < 100; tries++) {
			r = (struct keel_reset){ .id = snap.id };
			ASSERT_EQ(0, xioctl(vm->fd, KEEL_RESET, &r));
			pages += r.pages;
			state_get(vm, is);
			differs = difference(want, is);
		}
		ASSERT_STREQ("", differs) TH_LOG("after %lu resets", i + 1);
		ASSERT_EQ(heap, hash(vm->mem + HEAP_GPA, ROOM * PAGE)) TH_LOG("after %lu resets", i + 1);
		/* All of it takes an emulated machine longer than the rest */
		if (i % 64 == 63 || i == n - 1) {
			ASSERT_EQ(memory, hash(vm->mem, MEM_SIZE)) TH_LOG("after %lu resets", i + 1);
		}
	}
	printf("# %lu resets, %lu pages, %lu ticks, %lu IPIs\n", n, pages, ticks, ipis);
	EXPECT_LE(n * 10, pages);
	EXPECT_NE(0, ticks);
	EXPECT_NE(0, ipis);
}

TEST_HARNESS_MAIN
