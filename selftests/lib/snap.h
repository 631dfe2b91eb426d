/* SPDX-License-Identifier: GPL-2.0-only */
/* What tests of states and snapshots (uapi/keel.h) have in common */
#ifndef SELFTESTS_SNAP_H
#define SELFTESTS_SNAP_H

#include <keel.h>
#include "guest.h"

#define PAGE	4096UL
#define TICK	0x50		/* vectors */
#define IPI	0x51

struct blob {
	u8 data[256 * 1024] __attribute__((aligned(8)));
	u64 size;
};

static inline int state_get(struct vm *vm, struct blob *b, struct keel_state *arg)
{
	int r;

	*arg = (struct keel_state){ .data = (u64)b->data, .size = sizeof(b->data) };
	r = xioctl(vm->fd, KEEL_GET_STATE, arg);
	b->size = arg->size;
	return r;
}

static inline int state_set(struct vm *vm, const struct blob *b, u32 flags, struct keel_state *arg)
{
	*arg = (struct keel_state){ .data = (u64)b->data, .size = b->size, .flags = flags };
	return xioctl(vm->fd, KEEL_SET_STATE, arg);
}

/* Data of a section; NULL: there is none */
static inline void *section_of(struct blob *b, u32 id, u32 vcpu)
{
	struct keel_section *s = (void *)(b->data + sizeof(struct keel_state_head));

	while ((u8 *)s < b->data + b->size) {
		if (s->id == id && s->vcpu == vcpu)
			return s + 1;
		s = (void *)(s + 1) + (s->length + 7) / 8 * 8;
	}
	return NULL;
}

/*
 * Where they differ: but for the moment at which each was taken.  Empty: nowhere.  Where CPUs' TSCs differ a vCPU that is
 * loaded on another CPU has another offset: who compares once stays on one.
 */
static inline const char *difference(const struct blob *a, const struct blob *b)
{
	static char text[128];
	const struct keel_section *s = (void *)(a->data + sizeof(struct keel_state_head));
	u64 at, i;

	if (a->size != b->size || memcmp(a->data, b->data, sizeof(struct keel_state_head)))
		return "size, or number of sections";
	while ((u8 *)s < a->data + a->size) {
		at = (u8 *)(s + 1) - a->data;
		if (memcmp(s, b->data + at - sizeof(*s), sizeof(*s)))
			return "which sections there are";
		for (i = s->id == KEEL_SECTION_CLOCK ? 24 : 0; i < s->length; i++) {
			if (a->data[at + i] == b->data[at + i])
				continue;
			i &= ~7UL;
			snprintf(text, sizeof(text), "section %u of vCPU %d, byte %lu: %lx, %lx", s->id, (int)s->vcpu, i,
				 *(u64 *)(a->data + at + i), *(u64 *)(b->data + at + i));
			return text;
		}
		s = (void *)(s + 1) + (s->length + 7) / 8 * 8;
	}
	return "";
}

static inline u32 snapshot(struct vm *vm)
{
	struct keel_snapshot s = { 0 };

	must(ioctl(vm->fd, KEEL_SNAPSHOT, &s));
	return s.id;
}

static inline int reset_to(struct vm *vm, u32 id, u32 flags, u64 *pages)
{
	struct keel_reset r = { .id = id, .flags = flags };
	int ret = xioctl(vm->fd, KEEL_RESET, &r);

	if (pages)
		*pages = r.pages;
	return ret;
}

static inline u64 hash(const void *mem, u64 size)
{
	const u64 *p = mem;
	u64 h = 1, i;

	for (i = 0; i < size / 8; i++)
		h = (h ^ p[i]) * 0x9e3779b97f4a7c15ULL + (h >> 29);
	return h;
}

/* A vCPU's thread is in KVM_RUN, halted, until there is an IPI */
static inline void halting_guest(u64 me)
{
	apic_on();
	guest_on(IPI, guest_count_eoi);
	for (;;) {
		irq_halt();
		guest_sync(me);
	}
}

static inline void *runs(void *v)
{
	vcpu_sync(v);
	return NULL;
}

#endif
