// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vCPU's state from outside: what is set is read back, what no CPU could be
 * in is refused, and what a fresh vCPU is in is what the manuals call reset.
 */
#include "test.h"
#include "snap.h"
#include <sys/utsname.h>
#include <asm/mtrr.h>
#include <asm/processor-flags.h>

FIXTURE(state) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(state)
{
	self->vm = vm_new(VM_IRQCHIP);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(state)
{
	vm_free(self->vm);
}

static void nop_guest(u64 arg)
{
	guest_sync(0);
	guest_done(0);
}

/* Before it has a CPUID a vCPU has 36 bits of physical address. */
TEST_F(state, no_cpuid)
{
	struct vcpu bare = { .fd = must(ioctl(self->vm->fd, KVM_CREATE_VCPU, 1)) };
	unsigned int major = 0, minor = 0;
	struct utsname name;
	struct kvm_sregs s;

	EXPECT_EQ(1, vcpu_set_msr(&bare, MTRRphysMask_MSR(0), 1UL << 35 | 0x800));
	EXPECT_EQ(0, vcpu_set_msr(&bare, MTRRphysMask_MSR(0), 1UL << 36 | 0x800));
	EXPECT_EQ(1, vcpu_set_msr(&bare, MTRRphysBase_MSR(0), 1UL << 35 | 6));
	EXPECT_EQ(0, vcpu_set_msr(&bare, MTRRphysBase_MSR(0), 1UL << 36 | 6));
	/* FSGSBASE is a feature, which KVM has nobody have since 6.14; PAE has every CPU */
	uname(&name);
	sscanf(name.release, "%u.%u", &major, &minor);
	must(ioctl(bare.fd, KVM_GET_SREGS, &s));
	s.cr4 |= 1 << 16;
	if ((major << 8 | minor) >= 0x60e) {
		EXPECT_EQ(-EINVAL, xioctl(bare.fd, KVM_SET_SREGS, &s));
	}
	s.cr4 ^= 1 << 16 | 1 << 5;
	EXPECT_EQ(0, xioctl(bare.fd, KVM_SET_SREGS, &s));
	close(bare.fd);
}

TEST_F(state, reset)
{
	struct kvm_vcpu_events e;
	struct kvm_debugregs d;
	struct kvm_mp_state mp;
	struct kvm_sregs s;
	struct kvm_regs r;
	u64 val;

	vcpu_get_regs(self->v, &r);
	EXPECT_EQ(0xfff0, r.rip);
	EXPECT_EQ(2, r.rflags);
	EXPECT_EQ(0, r.rax);
	EXPECT_EQ(0, r.rsp);
	vcpu_get_sregs(self->v, &s);
	EXPECT_EQ(0xf000, s.cs.selector);
	EXPECT_EQ(0xffff0000, s.cs.base);
	EXPECT_EQ(0xffff, s.cs.limit);
	EXPECT_EQ(1, s.cs.present);
	EXPECT_EQ(0, s.ds.selector);
	EXPECT_EQ(0xffff, s.ds.limit);
	EXPECT_EQ(0xffff, s.gdt.limit);
	EXPECT_EQ(0xffff, s.idt.limit);
	EXPECT_EQ(0x60000010, s.cr0);
	EXPECT_EQ(0, s.cr3);
	EXPECT_EQ(0, s.cr4);
	EXPECT_EQ(0, s.efer);
	EXPECT_EQ(LAPIC_GPA | 0x900, s.apic_base);
	must(ioctl(self->v->fd, KVM_GET_DEBUGREGS, &d));
	EXPECT_EQ(0xffff0ff0, d.dr6);
	EXPECT_EQ(0x400, d.dr7);
	must(ioctl(self->v->fd, KVM_GET_VCPU_EVENTS, &e));
	EXPECT_EQ(0, e.exception.injected);
	EXPECT_EQ(0, e.interrupt.injected);
	EXPECT_EQ(0, e.nmi.pending);
	EXPECT_EQ(0, e.nmi.masked);
	must(ioctl(self->v->fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(KVM_MP_STATE_RUNNABLE, mp.mp_state);
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_CR_PAT, &val));
	EXPECT_EQ(0x0007040600070406ULL, val);

	/* the others wait to be started */
	must(ioctl(vcpu_new(self->vm, 1)->fd, KVM_GET_MP_STATE, &mp));
	EXPECT_EQ(KVM_MP_STATE_UNINITIALIZED, mp.mp_state);
	vcpu_get_sregs(self->vm->vcpu[1], &s);
	EXPECT_EQ(LAPIC_GPA | 0x800, s.apic_base);
}

TEST_F(state, regs)
{
	struct kvm_regs r, q;
	u64 *p = (u64 *)&r;
	int i;

	for (i = 0; i < sizeof(r) / 8; i++)
		p[i] = 0x123456789abcdef0ULL + i * 0x1111111111111111ULL;
	r.rflags = 0x246;
	vcpu_set_regs(self->v, &r);
	vcpu_get_regs(self->v, &q);
	EXPECT_EQ(0, memcmp(&r, &q, sizeof(r)));
	/* bit 1 of RFLAGS is always one */
	r.rflags = 0;
	vcpu_set_regs(self->v, &r);
	vcpu_get_regs(self->v, &q);
	EXPECT_EQ(2, q.rflags);
}

TEST_F(state, sregs)
{
	struct kvm_sregs s, q;
	struct kvm_segment *seg;
	int i = 0;

	vcpu_long(self->v, nop_guest, 0);
	vcpu_get_sregs(self->v, &s);
	EXPECT_EQ(PT_GPA, s.cr3);
	EXPECT_EQ(0xd01, s.efer);
	for (seg = &s.ds; seg <= &s.gs; seg++, i++) {
		seg->base = 0x1000 * (i + 1);
		seg->selector = 0x18 + 8 * i;
		seg->limit = 0xffffffff;
		seg->g = 1;
	}
	s.fs.base = 0xffff888012345000ULL;
	s.gs.base = 0x00007fff12345000ULL;
	s.gdt.base = 0x9000;
	s.gdt.limit = 0x1ff;
	s.idt.base = 0xa000;
	s.idt.limit = 0x7ff;
	s.cr2 = 0xdeadbeef000ULL;
	s.cr8 = 5;
	s.cr3 = 0x7000;
	s.tr.base = 0x5000;
	s.tr.limit = 0x2067;
	s.ldt.base = 0x6000;
	s.ldt.limit = 0xff;
	s.ldt.present = 1;
	s.ldt.unusable = 0;
	s.ldt.selector = 0x50;
	vcpu_set_sregs(self->v, &s);
	vcpu_get_sregs(self->v, &q);
	for (i = 0, seg = &s.cs; seg <= &s.ldt; seg++, i++) {
		struct kvm_segment *t = &q.cs + i;

		EXPECT_EQ(seg->base, t->base);
		EXPECT_EQ(seg->limit, t->limit);
		EXPECT_EQ(seg->selector, t->selector);
		EXPECT_EQ(seg->type, t->type);
		EXPECT_EQ(seg->present, t->present);
		EXPECT_EQ(seg->dpl, t->dpl);
		EXPECT_EQ(seg->db, t->db);
		EXPECT_EQ(seg->s, t->s);
		EXPECT_EQ(seg->l, t->l);
		EXPECT_EQ(seg->g, t->g);
	}
	EXPECT_EQ(s.gdt.base, q.gdt.base);
	EXPECT_EQ(s.gdt.limit, q.gdt.limit);
	EXPECT_EQ(s.idt.base, q.idt.base);
	EXPECT_EQ(s.idt.limit, q.idt.limit);
	EXPECT_EQ(s.cr0, q.cr0);
	EXPECT_EQ(s.cr2, q.cr2);
	EXPECT_EQ(s.cr3, q.cr3);
	EXPECT_EQ(s.cr4, q.cr4);
	EXPECT_EQ(s.cr8, q.cr8);
	EXPECT_EQ(s.efer, q.efer);
}

TEST_F(state, sregs_refused)
{
	struct kvm_sregs good, s;
	int fd = self->v->fd;

	vcpu_long(self->v, nop_guest, 0);
	vcpu_get_sregs(self->v, &good);
#define REFUSED(change) do {						\
		s = good;						\
		change;							\
		EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_SREGS, &s))	\
			TH_LOG(#change);				\
	} while (0)
	REFUSED(s.cr4 &= ~X86_CR4_PAE);
	REFUSED(s.efer &= ~(1 << 10));			/* LMA */
	REFUSED(s.cr0 &= ~X86_CR0_PG);			/* LMA without */
	REFUSED(s.cr0 &= ~X86_CR0_PE);
	REFUSED(s.cr0 |= 1ULL << 32);
	REFUSED(s.cr0 = (s.cr0 & ~X86_CR0_CD) | X86_CR0_NW);
	REFUSED(s.cr4 |= 1ULL << 31);
	REFUSED(s.cr4 |= 1ULL << 40);
	REFUSED(s.cr3 |= 1ULL << 62);
	REFUSED(s.efer &= ~(3 << 8));			/* CS.L without */
	REFUSED(s.apic_base |= 1ULL << 60);
	REFUSED(s.apic_base = (s.apic_base & ~0x800ULL) | 0x400);
#undef REFUSED
	/* nothing of a refused one was taken */
	vcpu_get_sregs(self->v, &s);
	EXPECT_EQ(0, memcmp(&s, &good, sizeof(s)));
	EXPECT_EQ(0, xioctl(fd, KVM_SET_SREGS, &good));
	vcpu_sync(self->v);
}

TEST_F(state, sregs2)
{
	struct kvm_sregs2 s, q;
	u64 *pdpt = gpa_hva(self->vm, 0x3000);
	int i;

	NEED_CAP(self->vm, KVM_CAP_SREGS2);
	vcpu_long(self->v, nop_guest, 0);
	must(ioctl(self->v->fd, KVM_GET_SREGS2, &s));
	EXPECT_EQ(PT_GPA, s.cr3);
	EXPECT_EQ(0, s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID);
	s.cr2 = 0x1234;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_SREGS2, &s));
	must(ioctl(self->v->fd, KVM_GET_SREGS2, &q));
	EXPECT_EQ(0, memcmp(&s, &q, sizeof(s)));
	s.flags = 1 << 7;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_SREGS2, &s));
	s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_SREGS2, &s));

	/* PAE paging, where the four are state */
	s.efer = 0;
	s.cs.l = 0;
	s.cs.db = 1;
	s.cr3 = 0x3000;
	for (i = 0; i < 4; i++) {
		s.pdptrs[i] = 0x4001 + i * 0x1000;
		pdpt[i] = 0x4001 + i * 0x1000;
	}
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_SREGS2, &s));
	must(ioctl(self->v->fd, KVM_GET_SREGS2, &q));
	EXPECT_EQ(KVM_SREGS2_FLAGS_PDPTRS_VALID, q.flags);
	EXPECT_EQ(0, memcmp(s.pdptrs, q.pdptrs, sizeof(s.pdptrs)));
}

TEST_F(state, fpu)
{
	struct kvm_fpu f = { 0 }, g = { 0 };
	int i;

	for (i = 0; i < sizeof(f.fpr); i++)
		f.fpr[i / 16][i % 16] = i % 16 < 10 ? i + 1 : 0;
	for (i = 0; i < sizeof(f.xmm); i++)
		f.xmm[i / 16][i % 16] = i ^ 0x55;
	f.fcw = 0x27f;
	f.fsw = 0x3800;
	f.ftwx = 0xff;
	f.last_opcode = 0x123;
	f.last_ip = 0x12345678;
	f.last_dp = 0x9abcdef0;
	f.mxcsr = 0xffffffff;	/* which is not taken: a KVM does not tell it */
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_FPU, &f));
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_GET_FPU, &g));
	EXPECT_EQ(0, memcmp(f.fpr, g.fpr, sizeof(f.fpr)));
	EXPECT_EQ(0, memcmp(f.xmm, g.xmm, sizeof(f.xmm)));
	EXPECT_EQ(f.fcw, g.fcw);
	EXPECT_EQ(f.fsw, g.fsw);
	EXPECT_EQ(f.ftwx, g.ftwx);
	EXPECT_EQ(f.last_opcode, g.last_opcode);
	EXPECT_EQ(f.last_ip, g.last_ip);
	EXPECT_EQ(f.last_dp, g.last_dp);
	EXPECT_TRUE(g.mxcsr == 0x1f80 || g.mxcsr == 0);
}

/* No guests in guests: what a VMM saves says so, and goes back as it is */
TEST_F(state, nested)
{
	struct kvm_nested_state s = { .size = sizeof(s) - 1 }, was;
	int fd = self->v->fd;

	EXPECT_EQ(-E2BIG, xioctl(fd, KVM_GET_NESTED_STATE, &s));
	EXPECT_EQ(sizeof(s), s.size);
	EXPECT_EQ(0, xioctl(fd, KVM_GET_NESTED_STATE, &s));
	EXPECT_EQ(sizeof(s), s.size);
	was = s;
	if (s.format == KVM_STATE_NESTED_FORMAT_VMX) {
		EXPECT_EQ(-1ULL, s.hdr.vmx.vmxon_pa);
		EXPECT_EQ(-1ULL, s.hdr.vmx.vmcs12_pa);
		EXPECT_EQ(0, s.flags);
	} else {
		EXPECT_EQ(KVM_STATE_NESTED_FORMAT_SVM, s.format);
		EXPECT_EQ(KVM_STATE_NESTED_GIF_SET, s.flags);
	}
	EXPECT_EQ(0, xioctl(fd, KVM_SET_NESTED_STATE, &s));
	s.flags |= KVM_STATE_NESTED_GUEST_MODE;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_NESTED_STATE, &s));
	s = was;
	s.format = 2;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_NESTED_STATE, &s));
	s = was;
	s.size--;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_NESTED_STATE, &s));
	EXPECT_EQ(-EFAULT, xioctl(fd, KVM_GET_NESTED_STATE, NULL));
	EXPECT_EQ(-EFAULT, xioctl(fd, KVM_SET_NESTED_STATE, NULL));
}

TEST_F(state, fresh_fpu)
{
	struct kvm_fpu f;
	int i;

	EXPECT_EQ(0, xioctl(self->v->fd, KVM_GET_FPU, &f));
	EXPECT_EQ(0, f.fsw);
	for (i = 0; i < sizeof(f.xmm); i++) {
		ASSERT_EQ(0, f.xmm[i / 16][i % 16]);
	}
}

#define XSTATE_BV	(512 / 4)

TEST_F(state, xsave)
{
	struct kvm_xsave *x = mem_alloc(16384), *y = mem_alloc(16384);
	struct kvm_fpu f;
	u64 *bv = (u64 *)(x->region + XSTATE_BV);
	int i;

	NEED_CAP(self->vm, KVM_CAP_XSAVE);
	must(ioctl(self->v->fd, KVM_GET_XSAVE, x));
	*bv |= 3;
	x->region[0] = 0x37f;
	x->region[6] = 0x1f80;
	for (i = 160 / 4; i < 416 / 4; i++)	/* XMM0-15 */
		x->region[i] = 0x1000 + i;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_GET_XSAVE, y));
	EXPECT_EQ(0, memcmp(x->region + 40, y->region + 40, 256));
	/* and it is the same XMM registers KVM_GET_FPU knows */
	must(ioctl(self->v->fd, KVM_GET_FPU, &f));
	EXPECT_EQ(0, memcmp(f.xmm, x->region + 40, 256));
	/* reserved: MXCSR bits, XSTATE_BV bits, compacted form */
	x->region[6] = 0xffff0000;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	x->region[6] = 0x1f80;
	*bv |= 1ULL << 62;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	*bv &= ~(1ULL << 62);
	bv[1] = 1ULL << 63;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	bv[1] = 0;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XSAVE, x));
}

TEST_F(state, xcrs)
{
	struct kvm_xcrs x = { 0 }, y;

	NEED_CAP(self->vm, KVM_CAP_XCRS);
	must(ioctl(self->v->fd, KVM_GET_XCRS, &x));
	EXPECT_EQ(1, x.nr_xcrs);
	EXPECT_EQ(0, x.xcrs[0].xcr);
	EXPECT_EQ(1, x.xcrs[0].value);
	x.xcrs[0].value = 3;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XCRS, &x));
	must(ioctl(self->v->fd, KVM_GET_XCRS, &y));
	EXPECT_EQ(3, y.xcrs[0].value);
	x.xcrs[0].value = 2;			/* x87 must be on */
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
	x.xcrs[0].value = 5;			/* YMM without SSE */
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
	x.xcrs[0].value = 1ULL << 62 | 3;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
	x.xcrs[0].value = 3;
	x.flags = 1;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
	x.flags = 0;
	x.nr_xcrs = KVM_MAX_XCRS + 1;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_SET_XCRS, &x));
}

TEST_F(state, msrs)
{
	static const struct {
		u32 msr;
		u64 val;
	} m[] = {
		{ MSR_STAR, 0x0023001000000000ULL },
		{ MSR_LSTAR, 0xffffffff81000000ULL },
		{ MSR_CSTAR, 0xffffffff82000000ULL },
		{ MSR_SYSCALL_MASK, 0x47700 },
		{ MSR_KERNEL_GS_BASE, 0xffff888000000000ULL },
		{ MSR_FS_BASE, 0x7fff00001000ULL },
		{ MSR_GS_BASE, 0xffff888000001000ULL },
		{ MSR_IA32_SYSENTER_CS, 0x10 },
		{ MSR_IA32_SYSENTER_ESP, 0x81002000 },
		{ MSR_IA32_SYSENTER_EIP, 0x81001000 },
		{ MSR_IA32_CR_PAT, 0x0007010600070106ULL },
		{ MSR_TSC_AUX, 0x1234 },
		{ MSR_IA32_TSC_ADJUST, 0 },
		{ MSR_MTRRdefType, 0xc06 },
		{ MSR_MTRRfix4K_C0000, 0x0606060606060606ULL },
		{ 0x200, 0x80000006 }, { 0x201, 0xf80000800ULL },
		{ MSR_IA32_MCG_STATUS, 0 },
	};
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e[4];
	} l = { .h.nmsrs = 3 };
	struct kvm_sregs s;
	u64 val;
	int i;

	for (i = 0; i < ARRAY_SIZE(m); i++) {
		EXPECT_EQ(1, vcpu_set_msr(self->v, m[i].msr, m[i].val))
			TH_LOG("MSR %#x", m[i].msr);
	}
	for (i = 0; i < ARRAY_SIZE(m); i++) {
		EXPECT_EQ(1, vcpu_get_msr(self->v, m[i].msr, &val));
		EXPECT_EQ(m[i].val, val)
			TH_LOG("MSR %#x", m[i].msr);
	}
	/* none is such */
	EXPECT_EQ(0, vcpu_get_msr(self->v, 0x12345678, &val));
	EXPECT_EQ(0, vcpu_set_msr(self->v, 0x12345678, 0));
	/* no such value */
	EXPECT_EQ(0, vcpu_set_msr(self->v, MSR_IA32_CR_PAT, 0x0007040600070402ULL));
	EXPECT_EQ(0, vcpu_set_msr(self->v, MSR_LSTAR, 0x1234567812345678ULL));
	EXPECT_EQ(0, vcpu_set_msr(self->v, MSR_MTRRdefType, 0xc02));
	EXPECT_EQ(0, vcpu_set_msr(self->v, MSR_EFER, 1ULL << 40));
	/* whether long mode is active is not written with it */
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_EFER, 0xd00));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_EFER, &val));
	EXPECT_EQ(0x900, val);
	/* a list stops at the first that fails, and says how far it got */
	l.e[0].index = MSR_STAR;
	l.e[1].index = 0x12345678;
	l.e[2].index = MSR_LSTAR;
	EXPECT_EQ(1, xioctl(self->v->fd, KVM_GET_MSRS, &l));
	EXPECT_EQ(m[0].val, l.e[0].data);
	EXPECT_EQ(0, l.e[2].data);
	l.e[0].data = 0x0033002000000000ULL;
	EXPECT_EQ(1, xioctl(self->v->fd, KVM_SET_MSRS, &l));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_LSTAR, &val));
	EXPECT_EQ(m[1].val, val);
	l.h.nmsrs = 256;
	EXPECT_EQ(-E2BIG, xioctl(self->v->fd, KVM_GET_MSRS, &l));
	EXPECT_EQ(-E2BIG, xioctl(self->v->fd, KVM_SET_MSRS, &l));
	l.h.nmsrs = 0;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_GET_MSRS, &l));
	/* FS and GS bases are the segments' */
	vcpu_get_sregs(self->v, &s);
	EXPECT_EQ(0x7fff00001000ULL, s.fs.base);
	EXPECT_EQ(0xffff888000001000ULL, s.gs.base);
}

TEST_F(state, lapic)
{
	struct kvm_lapic_state a, b;
	struct kvm_sregs s;
	u32 *r = (u32 *)a.regs;
	struct vcpu *v;
	struct vm *vm;

	must(ioctl(self->v->fd, KVM_GET_LAPIC, &a));
	EXPECT_EQ(0, r[0x20 / 4]);
	EXPECT_EQ(0x14, r[0x30 / 4] & 0xff);	/* version */
	EXPECT_EQ(0xffffffff, r[0xe0 / 4]);
	EXPECT_EQ(0xff, r[0xf0 / 4]);
	EXPECT_EQ(0x10000, r[0x320 / 4]);
	r[0xf0 / 4] = 0x1ff;
	r[0x80 / 4] = 0x30;
	r[0xd0 / 4] = 0x01000000;
	r[0x320 / 4] = 0x20041;			/* periodic, vector 0x41 */
	r[0x3e0 / 4] = 0xb;
	r[0x350 / 4] = 0x700;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_LAPIC, &a));
	must(ioctl(self->v->fd, KVM_GET_LAPIC, &b));
	r = (u32 *)b.regs;
	EXPECT_EQ(0x1ff, r[0xf0 / 4]);
	EXPECT_EQ(0x30, r[0x80 / 4]);
	EXPECT_EQ(0x01000000, r[0xd0 / 4]);
	EXPECT_EQ(0x20041, r[0x320 / 4]);
	EXPECT_EQ(0xb, r[0x3e0 / 4]);
	/* the priority is CR8's as well */
	vcpu_get_sregs(self->v, &s);
	EXPECT_EQ(3, s.cr8);

	vm = vm_new_size(VM_PLAIN, 0);
	v = vcpu_new(vm, 0);
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_GET_LAPIC, &a));
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_LAPIC, &a));
	vm_free(vm);
}

TEST_F(state, x2apic_id_formats)
{
	struct kvm_lapic_state a;
	u32 *r = (u32 *)a.regs;
	struct vcpu *v = vcpu_new(self->vm, 3);
	struct kvm_sregs s;

	must(ioctl(v->fd, KVM_GET_LAPIC, &a));
	EXPECT_EQ(3 << 24, r[0x20 / 4]);
	vcpu_get_sregs(v, &s);
	s.apic_base |= 0xc00;
	vcpu_set_sregs(v, &s);
	must(ioctl(v->fd, KVM_GET_LAPIC, &a));
	EXPECT_EQ(3 << 24, r[0x20 / 4]);
	must(vm_enable_cap(self->vm, KVM_CAP_X2APIC_API,
			   KVM_X2APIC_API_USE_32BIT_IDS));
	must(ioctl(v->fd, KVM_GET_LAPIC, &a));
	EXPECT_EQ(3, r[0x20 / 4]);
	EXPECT_EQ(1 << 3, r[0xd0 / 4]);
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_LAPIC, &a));
	r[0x20 / 4] = 4;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_LAPIC, &a));
}

TEST_F(state, events)
{
	struct kvm_vcpu_events e, f;
	int fd = self->v->fd;

	vcpu_long(self->v, nop_guest, 0);
	must(ioctl(fd, KVM_GET_VCPU_EVENTS, &e));
	EXPECT_TRUE(e.flags & KVM_VCPUEVENT_VALID_NMI_PENDING);
	EXPECT_TRUE(e.flags & KVM_VCPUEVENT_VALID_SHADOW);
	e.exception.injected = 1;
	e.exception.nr = GP_VEC;
	e.exception.has_error_code = 1;
	e.exception.error_code = 0x18;
	e.nmi.pending = 1;
	e.nmi.masked = 1;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	EXPECT_EQ(0, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	must(ioctl(fd, KVM_GET_VCPU_EVENTS, &f));
	EXPECT_EQ(1, f.exception.injected);
	EXPECT_EQ(GP_VEC, f.exception.nr);
	EXPECT_EQ(1, f.exception.has_error_code);
	EXPECT_EQ(0x18, f.exception.error_code);
	EXPECT_EQ(1, f.nmi.pending);
	EXPECT_EQ(1, f.nmi.masked);
	EXPECT_NE(0, f.interrupt.shadow);

	e.exception.nr = 32;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	e.exception.nr = NMI_VEC;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	e.exception.injected = 0;
	EXPECT_EQ(0, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	e.flags |= 1 << 20;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	e.flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	e.flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));

	/* with payloads asked for, pending and injected are two things */
	must(vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1));
	must(ioctl(fd, KVM_GET_VCPU_EVENTS, &e));
	EXPECT_TRUE(e.flags & KVM_VCPUEVENT_VALID_PAYLOAD);
	e.exception.pending = 1;
	e.exception.nr = PF_VEC;
	e.exception.has_error_code = 1;
	e.exception.error_code = 2;
	e.exception_has_payload = 1;
	e.exception_payload = 0xabc000;
	EXPECT_EQ(0, xioctl(fd, KVM_SET_VCPU_EVENTS, &e));
	must(ioctl(fd, KVM_GET_VCPU_EVENTS, &f));
	EXPECT_EQ(0, f.exception.injected);
	EXPECT_EQ(1, f.exception.pending);
	EXPECT_EQ(1, f.exception_has_payload);
	EXPECT_EQ(0xabc000, f.exception_payload);
}

/* Whoever does not ask for payloads finds them in registers, whichever it reads first */
TEST_F(state, payloads_in_registers)
{
	struct kvm_vcpu_events e = {
		.flags = KVM_VCPUEVENT_VALID_PAYLOAD, .exception.pending = 1, .exception.nr = PF_VEC,
		.exception.has_error_code = 1, .exception_has_payload = 1, .exception_payload = 0xabc000,
	};
	struct kvm_debugregs d;
	struct kvm_sregs s;

	vcpu_long(self->v, nop_guest, 0);
	must(vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1));
	must(ioctl(self->v->fd, KVM_SET_VCPU_EVENTS, &e));
	vcpu_get_sregs(self->v, &s);
	EXPECT_EQ(0, s.cr2);
	must(vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 0));
	vcpu_get_sregs(self->v, &s);
	EXPECT_EQ(0xabc000, s.cr2);

	must(vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1));
	e.exception.nr = DB_VEC;
	e.exception.has_error_code = 0;
	e.exception_payload = 1 << 14;
	must(ioctl(self->v->fd, KVM_SET_VCPU_EVENTS, &e));
	must(ioctl(self->v->fd, KVM_GET_DEBUGREGS, &d));
	EXPECT_EQ(0, d.dr6 & 1 << 14);
	must(vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 0));
	must(ioctl(self->v->fd, KVM_GET_DEBUGREGS, &d));
	EXPECT_EQ(1 << 14, d.dr6 & 1 << 14);
}

TEST_F(state, debugregs)
{
	struct kvm_debugregs d, e;
	int i, fd = self->v->fd;

	must(ioctl(fd, KVM_GET_DEBUGREGS, &d));
	for (i = 0; i < 4; i++)
		d.db[i] = 0x1000 * (i + 1);
	d.dr6 = 0xffff0ff1;
	d.dr7 = 0x455;
	EXPECT_EQ(0, xioctl(fd, KVM_SET_DEBUGREGS, &d));
	must(ioctl(fd, KVM_GET_DEBUGREGS, &e));
	EXPECT_EQ(0, memcmp(d.db, e.db, sizeof(d.db)));
	EXPECT_EQ(d.dr6, e.dr6);
	EXPECT_EQ(d.dr7, e.dr7);
	d.dr6 = 1ULL << 32;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_DEBUGREGS, &d));
	d.dr6 = 0xffff0ff0;
	d.dr7 = 1ULL << 32;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_DEBUGREGS, &d));
	d.dr7 = 0x400;
	d.flags = 1;
	EXPECT_EQ(-EINVAL, xioctl(fd, KVM_SET_DEBUGREGS, &d));
}

TEST_F(state, mp_state)
{
	static const u32 good[] = {
		KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED,
		KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_RUNNABLE,
	};
	struct kvm_mp_state s;
	struct vcpu *v = vcpu_new(self->vm, 1);
	struct vm *vm;
	int i;

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		s.mp_state = good[i];
		EXPECT_EQ(0, xioctl(v->fd, KVM_SET_MP_STATE, &s));
		EXPECT_EQ(0, xioctl(v->fd, KVM_GET_MP_STATE, &s));
		EXPECT_EQ(good[i], s.mp_state);
	}
	s.mp_state = 99;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_MP_STATE, &s));
	s.mp_state = KVM_MP_STATE_STOPPED;	/* another architecture's */
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_MP_STATE, &s));

	/* without a LAPIC a vCPU only ever runs */
	vm = vm_new_size(VM_PLAIN, 0);
	v = vcpu_new(vm, 1);
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_MP_STATE, &s));
	EXPECT_EQ(KVM_MP_STATE_RUNNABLE, s.mp_state);
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_MP_STATE, &s));
	s.mp_state = KVM_MP_STATE_HALTED;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_MP_STATE, &s));
	vm_free(vm);
}

TEST_F(state, cpuid)
{
	struct {
		struct kvm_cpuid2 h;
		struct kvm_cpuid_entry2 e[64];
	} c = { .h.nent = 3 }, d = { .h.nent = 64 };
	struct vcpu *v = vcpu_bare(self->vm, 1);

	/* none to begin with */
	memset(d.e, 0x5a, sizeof(d.e));
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_CPUID2, &d));
	EXPECT_EQ(0x5a5a5a5a, d.e[0].eax);
	c.e[0] = (struct kvm_cpuid_entry2) { .function = 0, .eax = 0x10,
		.ebx = 0x12345678 };
	c.e[1] = (struct kvm_cpuid_entry2) { .function = 1, .eax = 0x600,
		.edx = 0x178bfbff };
	c.e[2] = (struct kvm_cpuid_entry2) { .function = 4, .index = 1,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 0x77 };
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID2, &c));
	d.h.nent = 64;
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_CPUID2, &d));
	EXPECT_EQ(0x12345678, d.e[0].ebx);
	EXPECT_EQ(0x77, d.e[2].eax);
	EXPECT_EQ(0x5a5a5a5a, d.e[3].eax);
	d.h.nent = 2;
	EXPECT_EQ(-E2BIG, xioctl(v->fd, KVM_GET_CPUID2, &d));
	/* all of what is supported can be set */
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID2, self->vm->cpuid));
	c.h.nent = 100000;
	EXPECT_EQ(-E2BIG, xioctl(v->fd, KVM_SET_CPUID2, &c));
	c.h.nent = 0;
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID2, &c));
}

/* After the vCPU has run its CPUID stays as it is; the same again is fine */
TEST_F(state, cpuid_after_run)
{
	struct vcpu *v = self->v;
	struct kvm_cpuid2 *c = self->vm->cpuid;
	struct kvm_cpuid_entry2 *e;

	vcpu_long(v, nop_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID2, c));
	/* as it is told, with what follows from the vCPU's state, too */
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_CPUID2, c));
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID2, c));
	e = cpuid_find(c, 1, 0);
	e->eax ^= 0x10;
	EXPECT_EQ(-EINVAL, xioctl(v->fd, KVM_SET_CPUID2, c));
}

/* Nor does what MSRs say of it; what was written before may be written again */
TEST_F(state, feature_msrs_after_run)
{
	struct vcpu *v = self->v;
	u64 val, other;

	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_ARCH_CAPABILITIES, &val));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_ARCH_CAPABILITIES, val ^ 1));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_ARCH_CAPABILITIES, val));
	vcpu_long(v, nop_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_IA32_ARCH_CAPABILITIES, val ^ 1));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_ARCH_CAPABILITIES, val));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_ARCH_CAPABILITIES, &other));
	EXPECT_EQ(val, other);
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_PLATFORM_INFO, &val));
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_PLATFORM_INFO, val ^ 0x100));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_PLATFORM_INFO, val));
	/* microcode is brought up to date while it runs */
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_UCODE_REV, &val));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_UCODE_REV, val + (1ULL << 32)));
}

static void misc_enable_guest(u64 arg)
{
	u64 val = rdmsr(MSR_IA32_MISC_ENABLE);

	guest_eq(val, MSR_IA32_MISC_ENABLE_BTS_UNAVAIL | MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL);
	guest_eq(wrmsr_try(MSR_IA32_MISC_ENABLE, val ^ MSR_IA32_MISC_ENABLE_BTS_UNAVAIL), GP0);
	guest_eq(wrmsr_try(MSR_IA32_MISC_ENABLE, val ^ MSR_IA32_MISC_ENABLE_PEBS_UNAVAIL), GP0);
	guest_eq(wrmsr_try(MSR_IA32_MISC_ENABLE, val | MSR_IA32_MISC_ENABLE_EMON), NO_FAULT);
	guest_eq(rdmsr(MSR_IA32_MISC_ENABLE), val);
	guest_eq(wrmsr_try(MSR_IA32_MISC_ENABLE, val | MSR_IA32_MISC_ENABLE_FAST_STRING), NO_FAULT);
	guest_eq(rdmsr(MSR_IA32_MISC_ENABLE), val | MSR_IA32_MISC_ENABLE_FAST_STRING);
	guest_done(0);
}

static void efer_guest(u64 arg)
{
	guest_sync(0);
	guest_eq(rdmsr(MSR_EFER), 0xd01);
	guest_done(0);
}

/* LMA stays what paging has made it, whatever a VMM writes beside it */
TEST_F(state, efer_of_vmm)
{
	struct vcpu *v = self->v;
	u64 val;

	vcpu_long(v, efer_guest, 0);
	vcpu_sync(v);
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_EFER, &val));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_EFER, 0x901));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_EFER, &val));
	EXPECT_EQ(0xd01, val);
	vcpu_done(v);
}

/* What there is of a debug store and of performance monitoring is not the guest's to say */
TEST_F(state, misc_enable)
{
	u64 val;

	vcpu_long(self->v, misc_enable_guest, 0);
	vcpu_done(self->v);
	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_MISC_ENABLE, MSR_IA32_MISC_ENABLE_EMON));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_MISC_ENABLE, &val));
	EXPECT_EQ(MSR_IA32_MISC_ENABLE_EMON, val);
}

static void tsc_aux_guest(u64 there)
{
	u64 val;

	guest_eq(rdmsr_try(MSR_TSC_AUX, &val), there ? NO_FAULT : GP0);
	guest_eq(wrmsr_try(MSR_TSC_AUX, 7), there ? NO_FAULT : GP0);
	guest_done(0);
}

/* Two instructions read it, and one is enough; of its upper half AMD's CPUs take no notice */
TEST_F(state, tsc_aux)
{
	static const u32 vendors[2][3] = {
		{ 0x756e6547, 0x6c65746e, 0x49656e69 }, { 0x68747541, 0x444d4163, 0x69746e65 },
	};
	struct kvm_cpuid2 *c = self->vm->cpuid;
	struct kvm_cpuid_entry2 *e = cpuid_find(c, 0, 0), *aux = cpuid_find(c, 0x80000001, 0), *pid = cpuid_find(c, 7, 0);
	bool rdpid = pid && pid->ecx & 1 << 22;
	struct vcpu *v = self->v;
	u64 val;
	int i;

	if (!(aux->edx & 1 << 27))
		SKIP(return, "no RDTSCP");
	for (i = 0; i < 2; i++) {
		e->ebx = vendors[i][0];
		e->ecx = vendors[i][1];
		e->edx = vendors[i][2];
		must(ioctl(v->fd, KVM_SET_CPUID2, c));
		EXPECT_EQ(i, vcpu_set_msr(v, MSR_TSC_AUX, 1ULL << 32 | 5));
		EXPECT_EQ(1, vcpu_get_msr(v, MSR_TSC_AUX, &val));
		EXPECT_EQ(i ? 5 : 0, val);
	}
	aux->edx &= ~(1 << 27);
	must(ioctl(v->fd, KVM_SET_CPUID2, c));
	vcpu_long(v, tsc_aux_guest, rdpid);
	vcpu_done(v);
	if (!rdpid)
		return;
	v = vcpu_bare(self->vm, 1);
	pid->ecx &= ~(1 << 22);
	must(ioctl(v->fd, KVM_SET_CPUID2, c));
	vcpu_long(v, tsc_aux_guest, 0);
	vcpu_done(v);
}

/* The older form, without index or flags */
TEST_F(state, cpuid1)
{
	struct {
		struct kvm_cpuid h;
		struct kvm_cpuid_entry e[2];
	} c = { .h.nent = 2, .e[0].eax = 1, .e[1] = { .function = 1, .eax = 9 } };
	struct {
		struct kvm_cpuid2 h;
		struct kvm_cpuid_entry2 e[2];
	} d = { .h.nent = 2 };
	struct vcpu *v = vcpu_bare(self->vm, 1);

	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID, &c));
	EXPECT_EQ(0, xioctl(v->fd, KVM_GET_CPUID2, &d));
	EXPECT_EQ(1, d.e[0].eax);
	EXPECT_EQ(9, d.e[1].eax);
	c.h.nent = 100000;
	EXPECT_EQ(-E2BIG, xioctl(v->fd, KVM_SET_CPUID, &c));
}

TEST_F(state, tsc)
{
	u64 a, b;
	int khz = xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0);

	EXPECT_GT(khz, 0);
	EXPECT_EQ(khz, xioctl(self->vm->fd, KVM_GET_TSC_KHZ, 0));
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_TSC_KHZ, khz));
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_TSC_KHZ, 0));
	EXPECT_EQ(khz, xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0));
	/* the VM's is for vCPUs to come, which from 6.17 on means before any */
	EXPECT_EQ(vm_cap(self->vm, KVM_CAP_ONE_REG) ? -EINVAL : 0, xioctl(self->vm->fd, KVM_SET_TSC_KHZ, khz));

	EXPECT_EQ(1, vcpu_set_msr(self->v, MSR_IA32_TSC, 1ULL << 50));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_TSC, &a));
	EXPECT_EQ(1, vcpu_get_msr(self->v, MSR_IA32_TSC, &b));
	EXPECT_GE(a, 1ULL << 50);
	EXPECT_LT(a, (1ULL << 50) + (1ULL << 45));
	/* a host whose CPUs disagree on the TSC may show a little less */
	EXPECT_GT(b + (1ULL << 32), a);
}

/* A VM's TSC frequency is what vCPUs made after it start with */
TEST_F(state, tsc_khz_of_vm)
{
	struct vm *vm = vm_new(VM_PLAIN);
	int khz = xioctl(vm->fd, KVM_GET_TSC_KHZ, 0);

	if (!vm_cap(vm, KVM_CAP_VM_TSC_CONTROL)) {
		vm_free(vm);
		SKIP(return, "no KVM_CAP_VM_TSC_CONTROL");
	}
	EXPECT_EQ(0, xioctl(vm->fd, KVM_SET_TSC_KHZ, khz / 2));
	EXPECT_EQ(khz / 2, xioctl(vm->fd, KVM_GET_TSC_KHZ, 0));
	EXPECT_EQ(khz / 2, xioctl(vcpu_new(vm, 0)->fd, KVM_GET_TSC_KHZ, 0));
	EXPECT_EQ(khz, xioctl(self->v->fd, KVM_GET_TSC_KHZ, 0));
	/* which one has it, others have, too; its own it may still choose */
	EXPECT_EQ(vm_cap(vm, KVM_CAP_ONE_REG) ? -EINVAL : 0, xioctl(vm->fd, KVM_SET_TSC_KHZ, khz));
	EXPECT_EQ(0, xioctl(vm->vcpu[0]->fd, KVM_SET_TSC_KHZ, khz));
	EXPECT_EQ(khz, xioctl(vm->vcpu[0]->fd, KVM_GET_TSC_KHZ, 0));
	vm_free(vm);
}

/* What is the CPU's own business may be written to HWCR, and does not stay; microcode has a revision from the start */
TEST_F(state, vendors_msrs)
{
	struct vcpu *v = self->v;
	u32 r[4];
	u64 val;

	EXPECT_EQ(1, vcpu_set_msr(v, MSR_K7_HWCR, 1 << 24 | 1 << 18 | 0x148));
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_K7_HWCR, &val));
	EXPECT_EQ(1 << 24 | 1 << 18, val);
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_K7_HWCR, 1 << 25));
	cpuid(0, 0, r);
	EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_UCODE_REV, &val));
	EXPECT_EQ(r[1] == 0x68747541 ? 0x01000065 : 0x100000000, val);
}

TEST_F(state, translate)
{
	struct kvm_translation t = { .linear_address = 0x123456 };
	u64 *pd = gpa_hva(self->vm, PT_GPA + 0x2000);

	vcpu_long(self->v, nop_guest, 0);
	pd[5] = 0;
	pd[6] = 0x800000 | 0x87;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_TRANSLATE, &t));
	EXPECT_EQ(1, t.valid);
	EXPECT_EQ(0x123456, t.physical_address);
	t.linear_address = 0xc12345;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_TRANSLATE, &t));
	EXPECT_EQ(1, t.valid);
	EXPECT_EQ(0x812345, t.physical_address);
	t.linear_address = 0xa00000;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_TRANSLATE, &t));
	EXPECT_EQ(0, t.valid);
	t.linear_address = 0xffff800000000000ULL;
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_TRANSLATE, &t));
	EXPECT_EQ(0, t.valid);
}

static void sync_guest(u64 arg)
{
	u64 bx;

	asm volatile("outl %%eax,%%dx" : "=b"(bx)
		     : "a"(0), "b"(0x1234), "d"(PORT_SYNC));
	guest_eq(bx, 0x5678);
	guest_done(0);
}

/* Registers in kvm_run, in place of ioctls */
TEST_F(state, sync_regs)
{
	struct kvm_run *run = self->v->run;
	int valid = vm_cap(self->vm, KVM_CAP_SYNC_REGS);

	NEED_CAP(self->vm, KVM_CAP_SYNC_REGS);
	EXPECT_EQ(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS,
		  valid);
	EXPECT_EQ(valid, xioctl(self->vm->sys, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS));
	vcpu_long(self->v, sync_guest, 0);
	run->kvm_valid_regs = 1 << 20;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_RUN, 0));
	run->kvm_valid_regs = 0;
	run->kvm_dirty_regs = 1 << 20;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_RUN, 0));
	run->kvm_dirty_regs = 0;
	run->kvm_valid_regs = valid;
	vcpu_sync(self->v);
	EXPECT_EQ(0x1234, run->s.regs.regs.rbx);
	EXPECT_EQ(PT_GPA, run->s.regs.sregs.cr3);
	/* not marked as changed, it is not taken */
	run->s.regs.regs.rbx = 0x9999;
	run->kvm_dirty_regs = 0;
	run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(self->v->fd, KVM_RUN, 0));
	run->immediate_exit = 0;
	EXPECT_EQ(0x1234, run->s.regs.regs.rbx);
	run->s.regs.regs.rbx = 0x5678;
	run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	vcpu_done(self->v);
	EXPECT_EQ(0, run->kvm_dirty_regs);
	/* what set_sregs would refuse is refused here */
	run->s.regs.sregs.cr4 |= 1ULL << 40;
	run->kvm_dirty_regs = KVM_SYNC_X86_SREGS;
	EXPECT_EQ(-EINVAL, xioctl(self->v->fd, KVM_RUN, 0));
}

static void lots_guest(u64 arg)
{
	guest_sync(1);
	guest_eq(rdmsr(MSR_KERNEL_GS_BASE), 0x1111);
	wrmsr(MSR_KERNEL_GS_BASE, 0x2222);
	wrmsr(MSR_LSTAR, 0x3333);
	wrmsr(MSR_FS_BASE, 0x4444);
	asm volatile("mov %0,%%dr0" :: "r"(0x5555UL));
	write_cr0(read_cr0() | X86_CR0_TS);
	asm volatile("mov %0,%%ds" :: "r"(SEL_DATA));
	guest_sync(2);
	guest_done(0);
}

/* What the guest changes is seen outside, and what is moved runs on elsewhere */
TEST_F(state, seen_and_moved)
{
	struct kvm_debugregs d;
	struct kvm_sregs s;
	struct kvm_regs r;
	struct vcpu *v = self->v, *w;
	u64 val;

	vcpu_long(v, lots_guest, 0);
	vcpu_sync(v);
	vcpu_set_msr(v, MSR_KERNEL_GS_BASE, 0x1111);
	EXPECT_EQ(2, vcpu_sync(v));
	vcpu_get_msr(v, MSR_KERNEL_GS_BASE, &val);
	EXPECT_EQ(0x2222, val);
	vcpu_get_msr(v, MSR_LSTAR, &val);
	EXPECT_EQ(0x3333, val);
	vcpu_get_sregs(v, &s);
	EXPECT_EQ(0x4444, s.fs.base);
	EXPECT_TRUE(s.cr0 & X86_CR0_TS);
	must(ioctl(v->fd, KVM_GET_DEBUGREGS, &d));
	EXPECT_EQ(0x5555, d.db[0]);

	/*
	 * Finish the out first: an exit's instruction is completed by the next
	 * KVM_RUN, which immediate_exit ends before the guest runs.
	 */
	v->run->immediate_exit = 1;
	EXPECT_EQ(-EINTR, xioctl(v->fd, KVM_RUN, 0));
	vcpu_get_regs(v, &r);
	vcpu_get_sregs(v, &s);
	w = vcpu_new(self->vm, 1);
	s.apic_base &= ~0x100ULL;
	vcpu_set_sregs(w, &s);
	vcpu_set_regs(w, &r);
	must(ioctl(w->fd, KVM_SET_MP_STATE,
		   &(struct kvm_mp_state) { KVM_MP_STATE_RUNNABLE }));
	vcpu_done(w);
}

/* A state is none of what is in guest memory: that of a PAE guest needs none, where the CPU has no registers for its pointers */
TEST(pae_without_memory)
{
	struct vm *vm = vm_new(VM_IRQCHIP);
	struct vcpu *v = vcpu_new(vm, 0);
	static struct blob before, after;
	struct keel_state arg;
	struct kvm_sregs s;

	stay_on(0, 0);
	vcpu_get_sregs(v, &s);
	s.cr0 |= X86_CR0_PE | X86_CR0_PG;
	s.cr4 |= X86_CR4_PAE;
	s.cr3 = HOLE_GPA;
	vcpu_set_sregs(v, &s);
	ASSERT_EQ(0, state_get(vm, &before, &arg));	/* the log of the kernel is looked at by the lab */
	ASSERT_EQ(0, state_set(vm, &before, 0, &arg));
	ASSERT_EQ(0, state_get(vm, &after, &arg));
	EXPECT_STREQ("", difference(&before, &after));
	snapshot(vm);
	vm_free(vm);
}

TEST_HARNESS_MAIN
