// SPDX-License-Identifier: GPL-2.0-only
/*
 * synic.c - the synthetic interrupt controller: sixteen sources of interrupts, pages for messages and events, of which
 * userspace writes all but the timers' messages; and those timers, four of them (TLFS 11, 12).
 *
 * A timer's callback only asks its vCPU to look.  One in direct mode raises an interrupt; another sends a message,
 * which waits while the one before has not been taken, until the guest says that it has: EOM, or the end of the
 * source's interrupt.
 */
#include <linux/slab.h>
#include "internal.h"

/* ------------------------------------------------------------------ sources */

static bool raise_sint(struct keel_hv_vcpu *hv, unsigned int sint)
{
	u64 val = READ_ONCE(hv->sint[sint]);

	if (val & HV_SYNIC_SINT_MASKED || !hv->vcpu->apic)
		return false;
	irq_deliver_fixed(hv->vcpu, val & HV_SYNIC_SINT_VECTOR_MASK);
	return true;
}

int keel_hv_set_sint(struct keel_vm *vm, u32 vp_index, u32 sint)
{
	struct keel_vcpu *vcpu = hv_vcpu_by_vp(vm, vp_index);

	return vcpu && READ_ONCE(vcpu->hv->synic) && raise_sint(vcpu->hv, sint) ? 1 : -1;
}

static bool sint_is(const struct keel_hv_vcpu *hv, unsigned int n, u8 vector)
{
	return !(hv->sint[n] & HV_SYNIC_SINT_MASKED) && (u8)hv->sint[n] == vector;
}

bool keel_hv_auto_eoi(struct keel_vcpu *vcpu, u8 vector)
{
	struct keel_hv_vcpu *hv = vcpu->hv;
	unsigned int i;

	for (i = 0; hv->synic && i < HV_SYNIC_SINT_COUNT; i++)
		if (sint_is(hv, i, vector) && hv->sint[i] & HV_SYNIC_SINT_AUTO_EOI)
			return true;
	return false;
}

bool keel_hv_is_sint(struct keel_vcpu *vcpu, u8 vector)
{
	unsigned int i;

	for (i = 0; vcpu->hv->synic && i < HV_SYNIC_SINT_COUNT; i++)
		if (sint_is(vcpu->hv, i, vector))
			return true;
	return false;
}

static void look_at_timer(struct hv_stimer *t)
{
	struct keel_hv_vcpu *hv = t->hv;

	set_bit(t - hv->stimer, &hv->pending);
	keel_request(KEEL_REQ_HV, hv->vcpu);
}

/* The guest is done with what came from this source. */
static void sint_done(struct keel_hv_vcpu *hv, unsigned int sint)
{
	unsigned int i;

	irq_sint_acked(hv->vcpu->vm, hv->vp_index, sint);
	for (i = 0; i < HV_SYNIC_STIMER_COUNT; i++)
		if (hv->stimer[i].msg_waits && hv->stimer[i].config.sintx == sint)
			look_at_timer(&hv->stimer[i]);
}

void keel_hv_eoi(struct keel_vcpu *vcpu, u8 vector)
{
	unsigned int i;

	for (i = 0; vcpu->hv->synic && i < HV_SYNIC_SINT_COUNT; i++)
		if (sint_is(vcpu->hv, i, vector))
			sint_done(vcpu->hv, i);
}

HV_GET(hv_get_sint)
{
	*val = hv->sint[n];
	return 0;
}

HV_SET(hv_set_sint)
{
	bool masked = val & HV_SYNIC_SINT_MASKED;

	if (!hv->synic)
		return !host || val != HV_SYNIC_SINT_MASKED;
	if (!host && !masked && (u8)val < HV_SYNIC_FIRST_VALID_VECTOR)
		return 1;
	WRITE_ONCE(hv->sint[n], val);
	return 0;
}

/* ------------------------------------------------------------------ control, pages */

/* In the order of their MSRs: SCONTROL, SVERSION, SIEFP, SIMP, EOM */
enum { CONTROL, VERSION, EVENTS, MESSAGES, EOM };

HV_GET(hv_get_synic)
{
	const u64 now[] = { hv->control, hv->version, hv->siefp, hv->simp, 0 };

	*val = now[n];
	return 0;
}

static void tell_user(struct keel_hv_vcpu *hv, unsigned int n)
{
	hv->exit = (struct keel_state_hyperv_exit){
		.msr = HV_X64_MSR_SCONTROL + n, .control = hv->control, .evt_page = hv->siefp, .msg_page = hv->simp,
	};
	hv_exit_due(hv, KEEL_HYPERV_EXIT);
}

static int clear_guest_page(struct keel_vcpu *vcpu, u64 val)
{
	return keel_vcpu_write(vcpu, val & PAGE_MASK, page_address(ZERO_PAGE(0)), PAGE_SIZE);
}

HV_SET(hv_set_synic)
{
	unsigned int i;

	if (!hv->synic)
		return !host || val;
	switch (n) {
	case CONTROL:
		hv->control = val;
		break;
	case VERSION:
		if (!host)
			return 1;
		hv->version = val;
		return 0;
	case EVENTS:
	case MESSAGES:
		if (val & HV_SYNIC_SIMP_ENABLE && !host && !hv->keep_pages && clear_guest_page(hv->vcpu, val))
			return 1;
		*(n == EVENTS ? &hv->siefp : &hv->simp) = val;
		break;
	case EOM:
		for (i = 0; i < HV_SYNIC_SINT_COUNT; i++)
			sint_done(hv, i);
		return 0;
	}
	if (!host)
		tell_user(hv, n);
	return 0;
}

long keel_hv_enable_synic(struct keel_vcpu *vcpu, bool keep_pages)
{
	struct keel_hv_vcpu *hv;

	if (!vcpu->apic || keel_hv_enable(vcpu))
		return vcpu->apic ? -ENOMEM : -EINVAL;
	hv = vcpu->hv;
	hv->keep_pages = keep_pages;
	hv->control = HV_SYNIC_CONTROL_ENABLE;
	WRITE_ONCE(hv->synic, true);
	return 0;
}

/* ------------------------------------------------------------------ messages */

/* 0; -EAGAIN: the slot is taken, and will be heard of when it is free; another error: there is no page. */
static int send_message(struct keel_hv_vcpu *hv, unsigned int sint, const struct hv_message *msg)
{
	u64 gpa = (hv->simp & PAGE_MASK) + sint * sizeof(*msg);
	union hv_message_flags pending = { .msg_pending = 1 };
	size_t size = sizeof(msg->header) + msg->header.payload_size;
	u32 type;
	int err;

	if (!(hv->simp & HV_SYNIC_SIMP_ENABLE))
		return -ENOENT;
	err = keel_vcpu_read(hv->vcpu, gpa, &type, sizeof(type));
	if (!err && type != HVMSG_NONE) {
		err = keel_vcpu_write(hv->vcpu, gpa + offsetof(struct hv_message_header, message_flags), &pending,
				      sizeof(pending));
		return err ?: -EAGAIN;
	}
	if (!err)
		err = keel_vcpu_write(hv->vcpu, gpa, msg, size);
	if (!err && !raise_sint(hv, sint))
		err = -ENOENT;
	return err;
}

/* ------------------------------------------------------------------ timers */

static enum hrtimer_restart stimer_fires(struct hrtimer *timer)
{
	struct hv_stimer *t = container_of(timer, struct hv_stimer, timer);

	look_at_timer(t);
	keel_vcpu_kick(t->hv->vcpu);
	return HRTIMER_NORESTART;
}

static void stimer_stop(struct hv_stimer *t)
{
	hrtimer_cancel(&t->timer);
	clear_bit(t - t->hv->stimer, &t->hv->pending);
	__clear_bit(t - t->hv->stimer, &t->hv->stands);
	t->msg_waits = false;
	t->expires = 0;
}

/*
 * A guest may not keep the host busy with timer interrupts: no periodic timer is faster than this (100 ns); nor does
 * one come around, which the longest period would from now on.
 */
#define MIN_PERIOD	2000ULL
#define MAX_PERIOD	(U64_MAX / 4)

static void stimer_start(struct hv_stimer *t, u64 now)
{
	u64 period = clamp_t(u64, t->count, MIN_PERIOD, MAX_PERIOD), left;

	if (!t->config.periodic) {
		t->expires = t->count;
	} else if (!t->expires) {
		t->expires = now + period;
	} else if (now >= t->expires) {
		/* Ticks that went by unseen are not made up for. */
		u64 late;

		div64_u64_rem(now - t->expires, period, &late);
		t->expires = now + period - late;
	}
	if (now >= t->expires) {
		look_at_timer(t);
		return;
	}
	left = min_t(u64, t->expires - now, KTIME_MAX / 200) * 100;
	hrtimer_start(&t->timer, ktime_add_safe(ktime_get(), ns_to_ktime(left)), HRTIMER_MODE_ABS_HARD);
}

static int stimer_notify(struct hv_stimer *t)
{
	struct hv_message msg = {
		.header = { .message_type = HVMSG_TIMER_EXPIRED,
			    .payload_size = sizeof(struct hv_timer_message_payload) },
	};
	struct hv_timer_message_payload *payload = (void *)&msg.u;
	int r;

	if (t->config.direct_mode) {
		irq_deliver_fixed(t->hv->vcpu, t->config.apic_vector);
		return 0;
	}
	payload->timer_index = t - t->hv->stimer;
	payload->expiration_time = t->expires;
	payload->delivery_time = hv_time(t->hv->vcpu);
	r = send_message(t->hv, t->config.sintx, &msg);
	/* Of a periodic timer's ticks one is as good as the next. */
	return t->config.periodic ? 0 : r;
}

/* By one look at the clock: what it does not find due is not past when it is started. */
static void stimer_process(struct hv_stimer *t)
{
	u64 now = hv_time(t->hv->vcpu);

	if (!t->config.enable || !t->count) {
		stimer_stop(t);
		return;
	}
	if (t->expires && now >= t->expires) {
		t->msg_waits = stimer_notify(t) == -EAGAIN;
		if (!t->msg_waits && !t->config.periodic)
			t->config.enable = 0;
	}
	if (t->config.enable && !t->msg_waits)
		stimer_start(t, now);
}

/* A timer that is late already asks again at once; that is seen on the way to the guest. */
void hv_stimers_process(struct keel_hv_vcpu *hv)
{
	unsigned int i;

	if (hv->vcpu->smm)	/* messages are for memory that is not seen from there */
		return;
	for (i = 0; i < HV_SYNIC_STIMER_COUNT; i++)
		if (__test_and_clear_bit(i, &hv->stands) | test_and_clear_bit(i, &hv->pending))
			stimer_process(&hv->stimer[i]);
}

HV_GET(hv_get_stimer)
{
	const struct hv_stimer *t = &hv->stimer[n / 2];

	*val = n % 2 ? t->count : t->config.as_uint64;
	return 0;
}

/* CONFIG, COUNT of each in turn.  What a VMM restores runs from when the vCPU does: the VM's clock may come later. */
HV_SET(hv_set_stimer)
{
	struct hv_stimer *t = &hv->stimer[n / 2];

	if (!hv->synic)
		return !host || val;
	if (n % 2) {
		stimer_stop(t);
		t->count = val;
		if (!host && !val)
			t->config.enable = 0;
		else if (!host && t->config.auto_enable)
			t->config.enable = 1;
	} else {
		union hv_stimer_config config = { .as_uint64 = val };

		if (!host && config.direct_mode && !hv_has(hv, HV_FEAT_EDX, HV_STIMER_DIRECT_MODE_AVAILABLE))
			return 1;
		stimer_stop(t);
		/* Source 0 is not for timers. */
		if (!config.direct_mode && !config.sintx)
			config.enable = 0;
		t->config = config;
	}
	if (host)
		look_at_timer(t);
	else if (t->config.enable && t->count)
		stimer_start(t, hv_time(hv->vcpu));
	return 0;
}

/* ------------------------------------------------------------------ states */

void hv_synic_get_state(const struct keel_hv_vcpu *hv, struct keel_state_synic *s)
{
	unsigned int i;

	s->control = hv->control;
	s->version = hv->version;
	s->siefp = hv->siefp;
	s->simp = hv->simp;
	memcpy(s->sint, hv->sint, sizeof(s->sint));
	for (i = 0; i < HV_SYNIC_STIMER_COUNT; i++) {
		const struct hv_stimer *t = &hv->stimer[i];

		s->timer[i].config = t->config.as_uint64;
		s->timer[i].count = t->count;
		s->timer[i].expires = t->expires;
		s->waits |= t->msg_waits << i;
	}
	s->pending = READ_ONCE(hv->pending);
}

/* What ran runs on when the vCPU does: until all vCPUs' states are set the VM's clock is not to be asked. */
static void stimer_set_state(struct hv_stimer *t, u64 config, u64 count, u64 expires, bool waits, bool pending)
{
	stimer_stop(t);
	t->config.as_uint64 = config;
	t->count = count;
	t->expires = expires;
	t->msg_waits = waits;
	if (pending) {
		look_at_timer(t);
	} else if (!waits && expires && count && t->config.enable) {
		__set_bit(t - t->hv->stimer, &t->hv->stands);
		keel_request(KEEL_REQ_HV, t->hv->vcpu);
	}
}

int hv_synic_set_state(struct keel_hv_vcpu *hv, const struct keel_state_synic *s)
{
	struct keel_state_synic untouched = {};
	unsigned int i;

	BUILD_BUG_ON(sizeof(s->sint) != sizeof(hv->sint) || ARRAY_SIZE(s->timer) != ARRAY_SIZE(hv->stimer));
	if (!hv->synic) {
		hv_synic_get_state(hv, &untouched);
		return memcmp(s, &untouched, sizeof(untouched)) ? -EINVAL : 0;
	}
	if ((s->waits | s->pending) >> HV_SYNIC_STIMER_COUNT || memchr_inv(s->reserved, 0, sizeof(s->reserved)))
		return -EINVAL;
	for (i = 0; i < HV_SYNIC_STIMER_COUNT; i++) {
		union hv_stimer_config config = { .as_uint64 = s->timer[i].config };
		u64 expires = s->timer[i].expires;

		if ((expires && !config.periodic && expires != s->timer[i].count) ||
		    (s->waits & BIT(i) && (config.periodic || config.direct_mode)))
			return -EINVAL;
	}
	hv->control = s->control;
	hv->version = s->version;
	hv->siefp = s->siefp;
	hv->simp = s->simp;
	for (i = 0; i < HV_SYNIC_SINT_COUNT; i++)
		WRITE_ONCE(hv->sint[i], s->sint[i]);
	for (i = 0; i < HV_SYNIC_STIMER_COUNT; i++)
		stimer_set_state(&hv->stimer[i], s->timer[i].config, s->timer[i].count, s->timer[i].expires,
				 s->waits & BIT(i), s->pending & BIT(i));
	return 0;
}

/* ------------------------------------------------------------------ life */

void hv_stimers_stop(struct keel_hv_vcpu *hv)
{
	unsigned int i;

	for (i = 0; i < HV_SYNIC_STIMER_COUNT; i++)
		stimer_stop(&hv->stimer[i]);
}

void hv_synic_init(struct keel_hv_vcpu *hv)
{
	unsigned int i;

	hv->version = HV_SYNIC_VERSION_1;
	for (i = 0; i < HV_SYNIC_SINT_COUNT; i++)
		hv->sint[i] = HV_SYNIC_SINT_MASKED;
	for (i = 0; i < HV_SYNIC_STIMER_COUNT; i++) {
		hv->stimer[i].hv = hv;
		hrtimer_setup(&hv->stimer[i].timer, stimer_fires, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	}
}
