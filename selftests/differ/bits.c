// SPDX-License-Identifier: GPL-2.0-only
/*
 * The differ: each bit of what can be set, turned by itself: is it taken, and what is there then?
 */
#define _GNU_SOURCE
#include "differ.h"

struct part {
	const char *name;
	unsigned long get, set;
	u32 size;		/* of which the bits are turned, and compared */
	enum { MODE_RESET, MODE_PROT, MODE_LONG } mode;
	enum vm_kind kind;
	u32 skip;		/* a word of four bytes that goes by itself, if not 0 */
	void (*prepare)(struct vm *vm);
	bool of_vm;
};

static void nothing(u64 arg)
{
}

static struct vcpu *in_mode(struct vm *vm, int mode)
{
	static const u8 hlt[] = { 0xf4 };
	struct vcpu *v = vcpu_new(vm, 0);

	if (mode == MODE_LONG)
		vcpu_long(v, nothing, 0);
	else if (mode == MODE_PROT)
		vcpu_prot(v, hlt, 1);
	return v;
}

static void play_bits(const struct scenario *s)
{
	const struct part *p = s->what;
	struct vm *vm = vm_new(p->kind);
	u8 *base = calloc(1, 8192), *other = calloc(1, 8192), *after = calloc(1, 8192);
	struct vcpu *v;
	u32 bit, i;
	int fd, r;

	if (p->prepare)
		p->prepare(vm);
	v = in_mode(vm, p->mode);
	fd = p->of_vm ? vm->fd : v->fd;
	at("", 0);
	r = xioctl(fd, p->get, base);
	put("get", 0, r);
	if (r < 0)
		return;
	if (p->set == KVM_SET_XSAVE)
		((u64 *)base)[64] |= 3;		/* x87 and SSE state that is in use: else it is not looked at */
	put_bytes("base", base, p->size);
	for (bit = 0; bit < p->size * 8; bit++) {
		if (p->skip && bit / 32 == p->skip / 4)
			continue;
		if (p->set == KVM_SET_LAPIC && bit / 32 % 4)
			continue;		/* between the registers */
		memcpy(other, base, 8192);
		other[bit / 8] ^= 1 << bit % 8;
		at("bit", bit);
		r = xioctl(fd, p->set, other);
		put("set", 0, r);
		/* Refused, it has changed nothing; but that is said by the next, as the base's being set is */
		memcpy(after, base, 8192);
		r = xioctl(fd, p->get, after);
		if (r)
			put("get", 0, r);
		for (i = 0; i < p->size; i += 4)
			if (memcmp(after + i, base + i, 4) && (!p->skip || i != p->skip))
				put("after", i, *(u32 *)(after + i));
		r = xioctl(fd, p->set, base);
		if (r)
			put("back", 0, r);
	}
}

/* Bits of each MSR that the kernel's module lists, whichever is asked */
static void play_msr_bits(const struct scenario *s)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = in_mode(vm, MODE_LONG);
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + 1000 * sizeof(u32));
	unsigned int i, bit;
	int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC));

	l->nmsrs = 1000;
	must(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, l));
	close(kvm);
	for (i = 0; i < l->nmsrs; i++) {
		u32 msr = l->indices[i];
		u64 val, after;

		if (msr_tells_time(msr) || msr == 0x40000003 || vcpu_get_msr(v, msr, &val) != 1)
			continue;
		for (bit = 0; bit < 64; bit += bit < 15 ? 1 : bit == 15 ? 3 : 6) {
			int r = vcpu_set_msr(v, msr, val ^ 1ULL << bit);

			at("msr", msr);
			put("set bit", bit, r);
			after = val;
			vcpu_get_msr(v, msr, &after);
			if (after != val)
				put("after bit", bit, after);
			if (vcpu_set_msr(v, msr, val) != 1)
				put("back after bit", bit, 0);
		}
	}
}

/* CPUID as supported, but for one bit */
static void play_cpuid_bits(const struct scenario *s)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_bare(vm, 0);
	u32 i, reg, bit;

	for (i = 0; i < vm->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &vm->cpuid->entries[i];
		u32 *regs = &e->eax;

		if (e->function != 1 && e->function != 7 && e->function != 0xd && e->function != 0x80000001 &&
			e->function != 0x80000008 &&
		    e->function != 0x40000001)
			continue;
		for (reg = 0; reg < 4; reg++) {
			for (bit = 0; bit < 32; bit++) {
				struct kvm_sregs sregs;

				regs[reg] ^= 1U << bit;
				at("leaf", e->function);
				put("set", (u64)e->index << 16 | reg << 8 | bit, xioctl(v->fd, KVM_SET_CPUID2,
					vm->cpuid));
				/* What follows from it: bits of CR4 that may be set */
				if ((e->function == 1 && reg >= 2) || (e->function == 7 && reg)) {
					vcpu_get_sregs(v, &sregs);
					sregs.cr4 = 1ULL << (bit % 26);
					put("cr4", (u64)e->index << 16 | reg << 8 | bit, xioctl(v->fd, KVM_SET_SREGS,
						&sregs));
					sregs.cr4 = 0;
					ioctl(v->fd, KVM_SET_SREGS, &sregs);
				}
				regs[reg] ^= 1U << bit;
			}
		}
	}
}

/* Each state of KVM_SET_MP_STATE, each control of KVM_SET_GUEST_DEBUG */
static void play_states(const struct scenario *s)
{
	enum vm_kind kind;
	u32 i, n;

	for (kind = VM_PLAIN; kind <= VM_SPLIT; kind++) {
		struct vm *vm = vm_new(kind);

		for (n = 0; n < 2; n++) {
			struct vcpu *v = vcpu_new(vm, n);

			for (i = 0; i < 16; i++) {
				struct kvm_mp_state mp;

				at(n ? "mp_state of 1" : "mp_state of 0", kind);
				ioctl(v->fd, KVM_GET_MP_STATE, &mp);
				put("was", i, mp.mp_state);
				mp.mp_state = i;
				put("set", i, xioctl(v->fd, KVM_SET_MP_STATE, &mp));
				ioctl(v->fd, KVM_GET_MP_STATE, &mp);
				put("get", i, mp.mp_state);
			}
		}
		for (i = 0; i < 64; i++) {
			struct kvm_guest_debug d = { .control = (i < 32 ? 0 : 1) | 1U << (i & 31),
				.arch.debugreg[7] = 0x400 };

			at("guest debug", kind);
			put("set", i, xioctl(vm->vcpu[0]->fd, KVM_SET_GUEST_DEBUG, &d));
		}
	}
}

static void payload(struct vm *vm)
{
	vm_enable_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	vm_enable_cap(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
}

#define PART(n, N, type)	n, KVM_GET_##N, KVM_SET_##N, sizeof(struct type)

void add_bits(void)
{
	static const struct part parts[] = {
		{ PART("bits-regs", REGS, kvm_regs), MODE_LONG },
		{ PART("bits-sregs-reset", SREGS, kvm_sregs), MODE_RESET },
		{ PART("bits-sregs-prot", SREGS, kvm_sregs), MODE_PROT },
		{ PART("bits-sregs-long", SREGS, kvm_sregs), MODE_LONG },
		{ PART("bits-sregs-irqchip", SREGS, kvm_sregs), MODE_LONG, VM_IRQCHIP },
		{ PART("bits-sregs2", SREGS2, kvm_sregs2), MODE_LONG },
		{ PART("bits-fpu", FPU, kvm_fpu), MODE_LONG },
		{ PART("bits-xcrs", XCRS, kvm_xcrs), MODE_LONG },
		{ PART("bits-debugregs", DEBUGREGS, kvm_debugregs), MODE_LONG },
		{ PART("bits-events", VCPU_EVENTS, kvm_vcpu_events), MODE_LONG },
		{ PART("bits-events-irqchip", VCPU_EVENTS, kvm_vcpu_events), MODE_LONG, VM_IRQCHIP },
		{ PART("bits-events-payload", VCPU_EVENTS, kvm_vcpu_events), MODE_LONG, VM_PLAIN, 0, payload },
		{ PART("bits-lapic", LAPIC, kvm_lapic_state), MODE_LONG, VM_IRQCHIP, 0x390 },
		{ "bits-xsave", KVM_GET_XSAVE, KVM_SET_XSAVE, 32, MODE_LONG },
		{ "bits-pic", KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, sizeof(struct kvm_irqchip), MODE_LONG, VM_IRQCHIP,
		  0, NULL, true },
	};
	unsigned int i;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		add_scenario(parts[i].name, play_bits, &parts[i]);
	add_scenario("bits-msrs", play_msr_bits, NULL);
	add_scenario("bits-cpuid", play_cpuid_bits, NULL);
	add_scenario("states", play_states, NULL);
}
