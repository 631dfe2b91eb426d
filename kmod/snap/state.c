// SPDX-License-Identifier: GPL-2.0-only
/*
 * state.c - the state of a VM and its vCPUs in one piece (KEEL_GET_STATE, KEEL_SET_STATE: uapi/keel.h).
 *
 * One table: a row a section, with its reader and its writer, which live where the state does.  Where KVM's structure has
 * all there is they are those of KVM's ioctls; else they are beside them.  A state is the sections that the table has for
 * this VM, in its order; so what is set is compared with what would be got, and nothing has to be searched for.
 *
 * Writers check what they are given, each as a whole, but what one has done is not undone by itself when the next refuses:
 * before the first of them runs a state is taken, which is set then.
 *
 * Lock: vm->lock, and the VM stopped: every vCPU's state is this thread's.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "ops.h"
#include "internal.h"

#define OF_VM		BIT(0)
#define UP_TO		BIT(1)	/* there may be less of it than its size */

static bool has_pic(struct keel_vm *vm)
{
	return vm->irq.pic;
}

static bool has_ioapic(struct keel_vm *vm)
{
	return vm->irq.ioapic;
}

static bool has_pit(struct keel_vm *vm)
{
	return vm->irq.pit;
}

static bool has_lapics(struct keel_vm *vm)
{
	return vm->irq.mode != IRQCHIP_NONE;
}

/*
 * Readers fill what is zeroed before, and answer how much that was, if UP_TO.  The argument of writers is how much there
 * is.  In this order: time is first, and what later ones would touch again is later.
 */
static const struct section {
	u32 id;
	u32 flags;
	size_t size;
	size_t (*size_of)(const struct keel_vcpu *vcpu);	/* where it depends on that, or the host */
	bool (*has)(struct keel_vm *vm);	/* NULL: always */
	union {
		struct {
			VM_IOCTL((*get));
			VM_IOCTL((*set));
		} vm;
		struct {
			VCPU_IOCTL((*get));
			VCPU_IOCTL((*set));
		} vcpu;
	};
} sections[] = {
#define VM_SECTION(name, type, needs, get, set)		\
	{ .id = KEEL_SECTION_##name, .flags = OF_VM, .size = sizeof(type), .has = needs, .vm = { get, set } }
#define VCPU_SECTION(name, type, needs, get, set)	\
	{ .id = KEEL_SECTION_##name, .size = sizeof(type), .has = needs, .vcpu = { get, set } }
#define SIZED_SECTION(name, more, how_large, needs, get, set)	\
	{ .id = KEEL_SECTION_##name, .flags = more, .size_of = how_large, .has = needs, .vcpu = { get, set } }
	VM_SECTION(CLOCK, struct keel_state_clock, NULL, keel_clock_get_state, keel_clock_set_state),
	VM_SECTION(PIC, struct keel_state_pic, has_pic, irq_pic_get_state, irq_pic_set_state),
	VM_SECTION(IOAPIC, struct keel_state_ioapic, has_ioapic, irq_ioapic_get_state, irq_ioapic_set_state),
	VM_SECTION(PIT, struct keel_state_pit, has_pit, irq_pit_get_state, irq_pit_set_state),
	VM_SECTION(HYPERV, struct keel_state_hyperv, keel_hv_in_use, keel_hv_get_state, keel_hv_set_state),
	VCPU_SECTION(TSC, struct keel_state_tsc, NULL, keel_tsc_get_state, keel_tsc_set_state),
	VCPU_SECTION(REGS, struct kvm_regs, NULL, keel_get_regs, keel_set_regs),
	VCPU_SECTION(SREGS, struct kvm_sregs2, NULL, keel_sregs_get_state, keel_sregs_set_state),
	SIZED_SECTION(FPU, 0, keel_fpu_state_size, NULL, keel_fpu_get_state, keel_fpu_set_state),
	VCPU_SECTION(DEBUGREGS, struct kvm_debugregs, NULL, keel_debugregs_get_state, keel_set_debugregs),
	SIZED_SECTION(MSRS, UP_TO, keel_msrs_state_size, NULL, keel_msrs_get_state, keel_msrs_set_state),
	VCPU_SECTION(MCE, struct keel_state_mce, NULL, keel_mce_get_state, keel_mce_set_state),
	VCPU_SECTION(PV, struct keel_state_pv, NULL, keel_pv_get_state, keel_pv_set_state),
	VCPU_SECTION(EVENTS, struct keel_state_events, NULL, keel_events_get_state, keel_events_set_state),
	VCPU_SECTION(LAPIC, struct keel_state_lapic, has_lapics, irq_lapic_get_state, irq_lapic_set_state),
	SIZED_SECTION(HYPERV_VCPU, 0, keel_hv_vcpu_state_size, keel_hv_in_use, keel_hv_vcpu_get_state,
		      keel_hv_vcpu_set_state),
};

static bool known(u32 id)
{
	const struct section *s;

	for (s = sections; s < sections + ARRAY_SIZE(sections); s++)
		if (s->id == id)
			return true;
	return false;
}

/* ------------------------------------------------------------- one section after the other */

/* Where one is: which of the table's, of whom.  Starts with all zero; the vCPU is loaded while it is its turn. */
struct walk {
	struct keel_vm *vm;
	const struct section *s;
	struct keel_vcpu *vcpu;
	unsigned int next;		/* in the table */
	unsigned int idx;		/* of the vCPU; those of the VM come before */
	bool of_vcpus;
	bool looks;			/* at no vCPU's state: none is loaded */
};

static void walk_end(struct walk *w)
{
	if (w->vcpu && !w->looks)
		keel_vcpu_put(w->vcpu);
	w->vcpu = NULL;
}

/* To the next section that there is in this VM.  False: there is none. */
static bool walk_next(struct walk *w)
{
	for (;;) {
		if (w->next == ARRAY_SIZE(sections) || !w->s) {
			if (w->s) {
				walk_end(w);
				w->idx += w->of_vcpus;
				w->of_vcpus = true;
				w->vcpu = keel_vcpu_by_idx(w->vm, w->idx);
				if (!w->vcpu)
					return false;
				if (!w->looks)
					keel_vcpu_load(w->vcpu);
			}
			w->next = 0;
		}
		w->s = &sections[w->next++];
		if (!(w->s->flags & OF_VM) == w->of_vcpus && (!w->s->has || w->s->has(w->vm)))
			return true;
	}
}

static struct keel_section walk_section(const struct walk *w)
{
	return (struct keel_section){
		.id = w->s->id,
		.vcpu = w->vcpu ? w->vcpu->id : KEEL_SECTION_VM,
		.length = w->s->size_of ? w->s->size_of(w->vcpu) : w->s->size,
	};
}

/* ------------------------------------------------------------- get */

/* At most. */
static size_t state_size(struct keel_vm *vm)
{
	size_t size = sizeof(struct keel_state_head);
	const struct section *s;
	struct keel_vcpu *vcpu;
	unsigned int i;

	for (s = sections; s < sections + ARRAY_SIZE(sections); s++) {
		if (s->has && !s->has(vm))
			continue;
		if (!s->size_of)
			size += snap_section_bytes(s->size) * (s->flags & OF_VM ? 1 : vm->nr_vcpus);
		else
			keel_for_each_vcpu(vcpu, i, vm)
				size += snap_section_bytes(s->size_of(vcpu));
	}
	return size;
}

static int state_get(struct keel_vm *vm, struct snap_state *state, bool with_setup, struct keel_section *bad)
{
	struct keel_state_head *head;
	struct walk w = { .vm = vm };
	long err = 0;
	void *at;

	state->data = kvzalloc(state_size(vm) + (with_setup ? snap_setup_size(vm) : 0), GFP_KERNEL_ACCOUNT);
	if (!state->data)
		return -ENOMEM;
	head = state->data;
	head->magic = KEEL_STATE_MAGIC;
	head->version = KEEL_STATE_VERSION;
	at = head + 1;
	if (with_setup)
		at = snap_setup_get(vm, at, &head->sections);
	irq_pit_hold(vm);
	while (walk_next(&w)) {
		struct keel_section *section = at;
		long r;

		*section = walk_section(&w);
		r = w.vcpu ? w.s->vcpu.get(w.vcpu, section + 1, 0) : w.s->vm.get(vm, section + 1, 0);
		if (r < 0) {
			*bad = *section;
			walk_end(&w);
			err = r;
			break;
		}
		if (w.s->flags & UP_TO)
			section->length = r;
		at += snap_section_bytes(section->length);
		head->sections++;
	}
	irq_pit_go(vm);
	if (err)
		snap_state_free(state);
	else
		state->size = at - state->data;
	return err;
}

int snap_state_get(struct keel_vm *vm, struct snap_state *state, struct keel_section *bad)
{
	return state_get(vm, state, false, bad);
}

void snap_state_free(struct snap_state *state)
{
	kvfree(state->data);
	state->data = NULL;
}

/* ------------------------------------------------------------- set */

/* Is it one for this VM?  All that can be told without its values. */
int snap_state_fits(struct keel_vm *vm, const struct snap_state *state, struct keel_section *bad)
{
	const struct keel_state_head *head = state->data;
	size_t left = state->size;
	struct walk w = { .vm = vm, .looks = true };
	unsigned int n = 0;
	const void *at;
	int err = 0;

	if (left < sizeof(*head) || head->magic != KEEL_STATE_MAGIC)
		return -EINVAL;
	if (head->version != KEEL_STATE_VERSION)
		return -EPROTO;
	at = head + 1;
	left -= sizeof(*head);
	for (; !err && walk_next(&w); n++) {
		struct keel_section want = walk_section(&w);
		const struct keel_section *is = at;
		bool fits;

		if (left < sizeof(*is)) {
			*bad = want;
			err = -ENODEV;
			break;
		}
		fits = w.s->flags & UP_TO ? is->length <= want.length && is->length % sizeof(struct kvm_msr_entry) == 0 :
					    is->length == want.length;
		*bad = *is;
		if (is->id != want.id || is->vcpu != want.vcpu)
			err = known(is->id) ? -ENODEV : -EPROTO;
		else if (!fits || is->reserved || left < snap_section_bytes(is->length))
			err = -EINVAL;
		else
			left -= snap_section_bytes(is->length);
		at += snap_section_bytes(is->length);
	}
	walk_end(&w);
	if (err)
		return err;
	if (left) {
		*bad = left < sizeof(*bad) ? (struct keel_section){} : *(const struct keel_section *)at;
		return -ENODEV;
	}
	*bad = (struct keel_section){};
	return n == head->sections ? 0 : -EINVAL;
}

/* Nothing of what the vCPU was in the midst of is waited for any more. */
static void vcpu_changed(struct keel_vcpu *vcpu)
{
	keel_insn_forget(vcpu);
	keel_request(KEEL_REQ_EVENT, vcpu);
	keel_request(KEEL_REQ_TLB_FLUSH, vcpu);
}

int snap_state_apply(struct keel_vm *vm, const struct snap_state *state, bool time_goes_on, struct keel_section *bad)
{
	const void *at = state->data + sizeof(struct keel_state_head);
	const struct keel_state_ioapic *ioapic = NULL;
	struct walk w = { .vm = vm };
	struct keel_vcpu *vcpu = NULL;

	irq_vm_still(vm);
	while (walk_next(&w)) {
		const struct keel_section *section = at;
		struct keel_state_clock clock;
		void *data = (void *)(section + 1);
		long r;

		if (w.vcpu && w.vcpu != vcpu)
			vcpu_changed(w.vcpu);
		vcpu = w.vcpu;
		if (w.s->id == KEEL_SECTION_IOAPIC)
			ioapic = data;
		if (w.s->id == KEEL_SECTION_CLOCK && time_goes_on) {
			clock = *(const struct keel_state_clock *)data;
			keel_clock_now(vm, &clock);
			data = &clock;
		}
		r = w.vcpu ? w.s->vcpu.set(w.vcpu, data, section->length) : w.s->vm.set(vm, data, section->length);
		if (r) {
			*bad = *section;
			walk_end(&w);
			return r;
		}
		/* Without a LAPIC here KVM_RUN takes it from there. */
		if (w.s->id == KEEL_SECTION_SREGS)
			w.vcpu->run->cr8 = w.vcpu->cr8;
		at += snap_section_bytes(section->length);
	}
	/*
	 * What sends interrupts, only now that LAPICs can take them and are found.  These got their numbers after the IOAPIC:
	 * that they changed is none of the guest's doing.
	 */
	irq_vm_settle(vm);
	if (ioapic)
		irq_ioapic_go(vm, ioapic->moved);
	irq_pit_go(vm);
	return 0;
}

static int state_set(struct keel_vm *vm, const struct snap_state *state, bool time_goes_on, struct keel_section *bad)
{
	struct keel_axis axis = vm->clock.axis;
	struct keel_section other;
	struct snap_state before;
	int err;

	err = snap_state_fits(vm, state, bad);
	if (!err)
		err = snap_state_get(vm, &before, bad);
	if (err)
		return err;
	err = snap_state_apply(vm, state, time_goes_on, bad);
	if (err) {
		vm->clock.axis = axis;		/* on which it has gone on */
		if (snap_state_apply(vm, &before, true, &other)) {
			keel_vm_kill(vm);
			err = -EIO;
		}
	}
	snap_state_free(&before);
	return err;
}

/* ------------------------------------------------------------- ioctls */

int snap_stop_all(struct keel_vm *vm)
{
	int err = keel_vm_stop_all(vm);

	if (!err)
		irq_vm_settle(vm);
	return err;
}

int snap_stop(struct keel_vm *vm, bool forget, struct keel_section *bad)
{
	struct keel_vcpu *vcpu;
	unsigned int i;
	int err = 0;

	vcpu = keel_vm_stop(vm);
	if (vcpu) {
		bad->vcpu = vcpu->id;
		return -EBUSY;
	}
	irq_vm_settle(vm);
	for (i = 0; !forget && (vcpu = keel_vcpu_by_idx(vm, i)) != NULL; i++) {
		err = vcpu->complete ? -EINPROGRESS : keel_apf_busy(vcpu) ? -EAGAIN : 0;
		if (!err)
			continue;
		bad->vcpu = vcpu->id;
		keel_vm_resume(vm);
		break;
	}
	return err;
}

static long get_state(struct keel_vm *vm, struct keel_state *arg)
{
	struct snap_state state;
	long err;

	if (arg->flags & ~KEEL_WITH_SETUP || arg->reserved)
		return -EINVAL;
	mutex_lock(&vm->slots_lock);
	err = snap_stop(vm, false, &arg->section);
	if (!err) {
		err = state_get(vm, &state, arg->flags & KEEL_WITH_SETUP, &arg->section);
		keel_vm_resume(vm);
	}
	mutex_unlock(&vm->slots_lock);
	if (err)
		return err;
	if (arg->size < state.size)
		err = -E2BIG;
	else if (copy_to_user((void __user *)(unsigned long)arg->data, state.data, state.size))
		err = -EFAULT;
	arg->size = state.size;
	snap_state_free(&state);
	return err;
}

static long set_state(struct keel_vm *vm, struct keel_state *arg)
{
	struct snap_state state = { .size = arg->size };
	long err;

	if (arg->flags & ~KEEL_TIME_GOES_ON || arg->reserved)
		return -EINVAL;
	/* What is larger would not fit; nor is memory to be had for it. */
	if (arg->size > state_size(vm))
		return -ENODEV;
	state.data = kvmalloc(max_t(size_t, arg->size, 8), GFP_KERNEL_ACCOUNT);
	if (!state.data)
		return -ENOMEM;
	if (copy_from_user(state.data, (void __user *)(unsigned long)arg->data, arg->size)) {
		err = -EFAULT;
		goto out;
	}
	err = snap_stop(vm, false, &arg->section);
	if (err)
		goto out;
	err = state_set(vm, &state, arg->flags & KEEL_TIME_GOES_ON, &arg->section);
	keel_vm_resume(vm);
out:
	snap_state_free(&state);
	return err;
}

/* What they say of a section, or of a size, goes back with an error, too; with nothing to say the argument is only read. */
static long with_argument(struct keel_vm *vm, unsigned long uarg, bool answers,
			  long (*call)(struct keel_vm *vm, struct keel_state *arg))
{
	struct keel_state __user *user = (void __user *)uarg;
	struct keel_state arg;
	long err;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	memset(&arg.section, 0, sizeof(arg.section));
	err = call(vm, &arg);
	if (!err && !answers)
		return 0;
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : err;
}

VM_IOCTL(keel_get_state)
{
	return with_argument(vm, arg, true, get_state);
}

VM_IOCTL(keel_set_state)
{
	return with_argument(vm, arg, false, set_state);
}
