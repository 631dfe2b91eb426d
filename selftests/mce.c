// SPDX-License-Identifier: GPL-2.0-only
/*
 * Machine checks: what KVM_X86_SET_MCE does to a vCPU by the kind of the error and by what the guest and the VMM have
 * set up; the interrupt that tells of errors nobody needs to act upon at once (CMCI).
 */
#include "test.h"
#include <asm/processor-flags.h>

FIXTURE(mce) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(mce)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(mce)
{
	vm_free(self->vm);
}

#define MC0(n)		(0x400 + (n))		/* CTL, STATUS, ADDR, MISC */
#define MCI_VAL		(1ULL << 63)
#define MCI_OVER	(1ULL << 62)
#define MCI_UC		(1ULL << 61)
#define MCI_EN		(1ULL << 60)
#define MCI_PCC		(1ULL << 57)
#define MCI_S		(1ULL << 56)
#define MCI_AR		(1ULL << 55)
#define MCG_CTL_P	(1ULL << 8)
#define MCG_CMCI_P	(1ULL << 10)
#define MCG_SER_P	(1ULL << 24)
#define MCG_LMCE_P	(1ULL << 27)
#define MCG_RIPV	(1ULL << 0)
#define MCG_MCIP	(1ULL << 2)
#define CR4_MCE		(1ULL << 6)

static u64 msr_of(struct vcpu *v, u32 msr)
{
	u64 val = 0;

	must(vcpu_get_msr(v, msr, &val) == 1 ? 0 : -1);
	return val;
}

TEST_F(mce, banks)
{
	u64 cap = 10 | 1 << 8, val;
	struct kvm_x86_mce m = { .bank = 1, .status = 1ULL << 63 | 0x150,
				 .addr = 0x1000 };
	int fd = self->v->fd;

	EXPECT_EQ(0, xioctl(fd, KVM_X86_SETUP_MCE, &cap));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_MCG_CAP, &val));
	EXPECT_EQ(cap, val);
	/* recovery by software is what VMMs ask for, and Intel's */
	cap |= MCG_SER_P;
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SETUP_MCE, &cap));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_MCG_CAP, &val));
	EXPECT_EQ(guest_is_amd() ? cap & ~MCG_SER_P : cap, val);
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &m));
	EXPECT_EQ(1, vcpu_get_msr(self->v, 0x405, &val));
	EXPECT_EQ(m.status, val);
	EXPECT_EQ(1, vcpu_get_msr(self->v, 0x406, &val));
	EXPECT_EQ(0x1000, val);
	m.bank = 10;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_X86_SET_MCE, &m));
	m.bank = 1;
	m.status = 0;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_X86_SET_MCE, &m));
	cap = 0;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_X86_SETUP_MCE, &cap));
	cap = 33;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_X86_SETUP_MCE, &cap));
	cap = 10 | 1ULL << 40;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_X86_SETUP_MCE, &cap));
}

static volatile u64 mc_status, mc_addr, mc_mcg;

static void mc_handler(struct guest_frame *f)
{
	mc_status = rdmsr(MC0(1));
	mc_addr = rdmsr(MC0(2));
	mc_mcg = rdmsr(MSR_IA32_MCG_STATUS);
	wrmsr(MC0(1), 0);
	wrmsr(MSR_IA32_MCG_STATUS, 0);
}

static void mc_guest(u64 takes_them)
{
	u64 cr4;

	guest_on(18, mc_handler);
	if (takes_them)
		asm volatile("mov %%cr4,%0; or $0x40,%0; mov %0,%%cr4" : "=&r"(cr4));
	guest_sync(0);
	guest_eq(mc_status, MCI_VAL | MCI_UC | MCI_EN | 0x151);
	guest_eq(mc_addr, 0x2000);
	guest_eq(mc_mcg, MCG_RIPV | MCG_MCIP);
	guest_sync(1);
	guest_done(1);
}

/* What becomes of an error by its kind, and by what the guest has enabled */
TEST_F(mce, kinds)
{
	u64 cap = 10 | 1 << 8;
	struct kvm_x86_mce ce = { .status = MCI_VAL | MCI_EN | 0x150, .addr = 0x1000, .misc = 0x11 };
	struct kvm_x86_mce ue = { .status = MCI_VAL | MCI_UC | MCI_EN | 0x151, .addr = 0x2000,
				  .mcg_status = MCG_RIPV | MCG_MCIP };
	struct vcpu *v = self->v;
	int fd = v->fd;

	vcpu_long(v, mc_guest, 1);
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SETUP_MCE, &cap));
	EXPECT_EQ(0, vcpu_sync(v));

	/* corrected ones are noted, and the second tells that one was lost; nobody is interrupted */
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &ce));
	EXPECT_EQ(ce.status, msr_of(v, MC0(1)));
	EXPECT_EQ(0x11, msr_of(v, MC0(3)));
	ce.addr = 0x1800;
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &ce));
	EXPECT_EQ(ce.status | MCI_OVER, msr_of(v, MC0(1)));
	EXPECT_EQ(0x1800, msr_of(v, MC0(2)));
	EXPECT_EQ(1, vcpu_set_msr(v, MC0(1), 0));

	/* an uncorrected one is lost where the bank's CTL or MCG_CTL is off */
	EXPECT_EQ(1, vcpu_set_msr(v, MC0(0), 0));
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &ue));
	EXPECT_EQ(0, msr_of(v, MC0(1)));
	EXPECT_EQ(1, vcpu_set_msr(v, MC0(0), -1ULL));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MCG_CTL, 0));
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &ue));
	EXPECT_EQ(0, msr_of(v, MC0(1)));
	EXPECT_EQ(0, msr_of(v, MSR_IA32_MCG_STATUS));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MCG_CTL, -1ULL));

	/* else it is a #MC; a corrected one that follows does not take its place */
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &ue));
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &ce));
	EXPECT_EQ(ue.status | MCI_OVER, msr_of(v, MC0(1)));
	EXPECT_EQ(0x2000, msr_of(v, MC0(2)));
	EXPECT_EQ(1, vcpu_set_msr(v, MC0(1), ue.status));
	EXPECT_EQ(1, vcpu_sync(v));

	/* one while another is handled is the end */
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MCG_STATUS, MCG_MCIP));
	EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &ue));
	EXPECT_EQ(0, msr_of(v, MC0(1)));
	vcpu_expect(v, KVM_EXIT_SHUTDOWN);
}

/* Nobody is there to take it */
TEST_F(mce, without_cr4)
{
	u64 cap = 10;
	struct kvm_x86_mce ue = { .status = MCI_VAL | MCI_UC | MCI_EN | 0x151, .mcg_status = MCG_RIPV | MCG_MCIP };
	struct kvm_sregs s;

	EXPECT_EQ(0, xioctl(self->v->fd, KVM_X86_SETUP_MCE, &cap));
	vcpu_long(self->v, mc_guest, 0);
	EXPECT_EQ(0, vcpu_sync(self->v));
	must(ioctl(self->v->fd, KVM_GET_SREGS, &s));
	EXPECT_EQ(0, s.cr4 & CR4_MCE);
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_X86_SET_MCE, &ue));
	vcpu_expect(self->v, KVM_EXIT_SHUTDOWN);
}

/*
 * Uncorrected, and no action required: it is there to be found, whatever else is, and no exception, whatever the guest
 * has enabled. Each bit that makes it another kind makes it an exception.
 */
TEST_F(mce, no_action_required)
{
	static const u64 others[] = { MCI_PCC, MCI_S, MCI_AR, MCI_S | MCI_AR };
	u64 cap = 10 | MCG_CTL_P;
	struct kvm_x86_mce m = { .status = MCI_VAL | MCI_UC | MCI_EN | 0x9f, .addr = 0x3000, .misc = 0x8c, .bank = 1 };
	struct vcpu *v = self->v;
	struct kvm_vcpu_events e;
	int fd = v->fd;
	unsigned int i;

	EXPECT_EQ(0, xioctl(fd, KVM_X86_SETUP_MCE, &cap));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(1, vcpu_set_msr(v, MC0(4), i & 1 ? 0 : -1ULL));
		EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MCG_CTL, i & 2 ? 0 : -1ULL));
		EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MCG_STATUS, MCG_MCIP));
		EXPECT_EQ(1, vcpu_set_msr(v, MC0(5), i ? MCI_VAL | MCI_UC | 0x77 : 0));
		EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &m));
		EXPECT_EQ(m.status, msr_of(v, MC0(5)));
		EXPECT_EQ(0x3000, msr_of(v, MC0(6)));
		EXPECT_EQ(0x8c, msr_of(v, MC0(7)));
		EXPECT_EQ(0, msr_of(v, MSR_IA32_MCG_STATUS));
	}
	vcpu_long(v, mc_guest, 1);
	EXPECT_EQ(0, vcpu_sync(v));
	EXPECT_EQ(1, vcpu_set_msr(v, MC0(4), -1ULL));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_MCG_CTL, -1ULL));
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		struct kvm_x86_mce o = m;

		must(ioctl(fd, KVM_GET_VCPU_EVENTS, &e));
		EXPECT_EQ(0, e.exception.injected);
		o.status |= others[i];
		EXPECT_EQ(0, xioctl(fd, KVM_X86_SET_MCE, &o));
		EXPECT_EQ(o.status | MCI_OVER, msr_of(v, MC0(5)));
		must(ioctl(fd, KVM_GET_VCPU_EVENTS, &e));
		EXPECT_EQ(MC_VEC, e.exception.nr);
		EXPECT_EQ(1, e.exception.injected);
		e.exception.injected = 0;
		must(ioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	}
}

#define CTL2(bank)	(0x280 + (bank))
#define CTL2_EN		(1ULL << 30)
#define LVT_CMCI	0x2f0
#define MASKED		0x10000

static volatile u32 nr_nmis;

static void nmi_handler(struct guest_frame *f)
{
	nr_nmis++;
}

/* Each sync is an error of bank 3 */
static void cmci_guest(u64 x2)
{
	if (x2)
		x2apic_on();
	else
		apic_on();
	guest_eq(apic_read(0x30) >> 16 & 0xff, 6);
	guest_eq(apic_read(LVT_CMCI), MASKED);
	guest_eq(rdmsr(CTL2(9)), 0);
	guest_eq(rdmsr_try(CTL2(10), &(u64){ 0 }), GP0);
	guest_eq(wrmsr_try(CTL2(10), 0), GP0);
	guest_eq(wrmsr_try(CTL2(3), 1 << 29), GP0);
	guest_eq(wrmsr_try(CTL2(3), 1ULL << 31), GP0);
	wrmsr(CTL2(3), CTL2_EN | 0x7fff);
	guest_eq(rdmsr(CTL2(3)), CTL2_EN | 0x7fff);
	guest_irqs[0x63] = nr_nmis = 0;
	guest_on(0x63, guest_count_eoi);
	guest_on(NMI_VEC, nmi_handler);
	irq_on();
	apic_write(LVT_CMCI, MASKED | 0x63);
	guest_sync(0);
	guest_eq(guest_irqs[0x63], 0);
	apic_write(LVT_CMCI, 0x63);
	guest_eq(apic_read(LVT_CMCI), 0x63);
	guest_sync(1);
	guest_eq(guest_irqs[0x63], 1);
	wrmsr(CTL2(3), 0x7fff);
	guest_sync(2);
	guest_eq(guest_irqs[0x63], 1);
	wrmsr(CTL2(3), CTL2_EN);
	apic_write(LVT_CMCI, 0x400);
	guest_sync(3);
	guest_eq(guest_irqs[0x63], 1);
	guest_eq(nr_nmis, 1);
	/* an APIC that is switched off masks it like the others */
	apic_write(0xf0, 0xff);
	guest_eq(apic_read(LVT_CMCI), MASKED | 0x400);
	guest_done(0);
}

static void no_cmci_guest(u64 x2)
{
	u64 val;

	if (x2)
		x2apic_on();
	else
		apic_on();
	guest_eq(apic_read(0x30) >> 16 & 0xff, 5);
	if (x2)
		guest_eq(wrmsr_try(0x82f, MASKED), GP0);
	guest_eq(rdmsr_try(CTL2(3), &val), GP0);
	guest_eq(wrmsr_try(CTL2(3), 0), GP0);
	guest_done(0);
}

/* The interrupt that tells of it, where there is one */
TEST_F(mce, cmci)
{
	u64 cap = 0, x2, zero = 10, val;
	struct kvm_x86_mce m = { .status = MCI_VAL | MCI_UC | MCI_EN | 0x9f, .bank = 3 };
	u32 i;

	must(ioctl(self->vm->sys, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap));
	for (x2 = 0; x2 < 2; x2++) {
		struct vcpu *v = x2 ? vcpu_new(self->vm, 1) : self->v;

		EXPECT_EQ(0, xioctl(v->fd, KVM_X86_SETUP_MCE, &zero));
		EXPECT_EQ(1, vcpu_get_msr(v, CTL2(3), &val));
		EXPECT_EQ(0, val);
		EXPECT_EQ(0, vcpu_set_msr(v, CTL2(3), CTL2_EN));
		EXPECT_EQ(0, vcpu_get_msr(v, CTL2(10), &val));
		vcpu_long(v, no_cmci_guest, x2);
		vcpu_done(v);
	}
	if (!(cap & MCG_CMCI_P))
		SKIP(return, "no CMCI on this machine");
	cap = 10 | MCG_CMCI_P;
	for (x2 = 0; x2 < 2; x2++) {
		struct vcpu *v = vcpu_new(self->vm, 2 + x2);

		EXPECT_EQ(0, xioctl(v->fd, KVM_X86_SETUP_MCE, &cap));
		vcpu_long(v, cmci_guest, x2);
		for (i = 0; i < 4; i++) {
			EXPECT_EQ(i, vcpu_sync(v));
			m.addr = i << 12;
			EXPECT_EQ(0, xioctl(v->fd, KVM_X86_SET_MCE, &m));
			EXPECT_EQ(i << 12, msr_of(v, MC0(14)));
		}
		vcpu_done(v);
		EXPECT_EQ(CTL2_EN, msr_of(v, CTL2(3)));
	}
}

#define FEAT_CTL	0x3a
#define LOCKED		1
#define LMCE_ON		(1 << 20)
#define EXT_CTL		0x4d0

static void lmce_guest(u64 arg)
{
	u64 val;

	guest_eq(rdmsr(FEAT_CTL), 0);
	guest_eq(rdmsr_try(EXT_CTL, &val), GP0);
	guest_eq(wrmsr_try(EXT_CTL, 1), GP0);
	guest_eq(wrmsr_try(FEAT_CTL, 1ULL << 40), GP0);
	wrmsr(FEAT_CTL, LOCKED | LMCE_ON);
	guest_eq(wrmsr_try(FEAT_CTL, LMCE_ON), GP0);
	guest_eq(rdmsr(FEAT_CTL), LOCKED | LMCE_ON);
	guest_eq(wrmsr_try(EXT_CTL, 2), GP0);
	wrmsr(EXT_CTL, 1);
	guest_eq(rdmsr(EXT_CTL), 1);
	guest_done(0);
}

/* Machine checks for one CPU only: firmware lets the kernel ask for them, and locks that */
TEST_F(mce, local)
{
	u64 cap = 0;

	must(ioctl(self->vm->sys, KVM_X86_GET_MCE_CAP_SUPPORTED, &cap));
	if (!(cap & MCG_LMCE_P))
		SKIP(return, "no local machine checks on this machine");
	cap = 10 | MCG_LMCE_P;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_X86_SETUP_MCE, &cap));
	vcpu_long(self->v, lmce_guest, 0);
	vcpu_done(self->v);
	EXPECT_EQ(1, msr_of(self->v, EXT_CTL));
	EXPECT_EQ(1, vcpu_set_msr(self->v, FEAT_CTL, 0));
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_MCG_STATUS, 1 << 3));
}

TEST_HARNESS_MAIN
