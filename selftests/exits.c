// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a guest does that its VMM has to see: ports, MMIO of every form, halt,
 * shutdown, MSRs passed to userspace, what cannot be emulated.
 */
#include "test.h"

FIXTURE(exits) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(exits)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(exits)
{
	vm_free(self->vm);
}

/* ---- ports ---- */

static void port_guest(u64 arg)
{
	u64 rax = 0x1122334455667788ULL;

	outb(0x10, 0xa1);
	outw(0x1234, 0xa1a2);
	outl(0xffff, 0xa1a2a3a4);
	guest_eq(inb(0x80), 0x5a);
	guest_eq(inw(0x1234), 0x5a5b);
	guest_eq(inl(0xcf8), 0x5a5b5c5d);
	/* what in leaves alone of RAX, and what it clears */
	asm volatile("inb $0x10,%%al" : "+a"(rax));
	guest_eq(rax, 0x11223344556677ffULL);
	asm volatile("inw $0x10,%%ax" : "+a"(rax));
	guest_eq(rax, 0x112233445566fffeULL);
	asm volatile("inl $0x10,%%eax" : "+a"(rax));
	guest_eq(rax, 0xfffffffdULL);
	guest_done(0);
}

TEST_F(exits, port)
{
	struct vcpu *v = self->v;
	u8 *p;

	vcpu_long(v, port_guest, 0);
	p = vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
	EXPECT_EQ(0xa1, *p);
	p = vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x1234, 2, 1);
	EXPECT_EQ(0xa1a2, *(u16 *)p);
	p = vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0xffff, 4, 1);
	EXPECT_EQ(0xa1a2a3a4, *(u32 *)p);
	p = vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x80, 1, 1);
	*p = 0x5a;
	p = vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x1234, 2, 1);
	*(u16 *)p = 0x5a5b;
	p = vcpu_expect_io(v, KVM_EXIT_IO_IN, 0xcf8, 4, 1);
	*(u32 *)p = 0x5a5b5c5d;
	*vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x10, 1, 1) = 0xff;
	*(u16 *)vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x10, 2, 1) = 0xfffe;
	*(u32 *)vcpu_expect_io(v, KVM_EXIT_IO_IN, 0x10, 4, 1) = 0xfffffffd;
	vcpu_done(v);
}

static u8 string[4096 * 3] __attribute__((aligned(4096)));

static void string_guest(u64 arg)
{
	u64 si, di, cx;
	int i;

	for (i = 0; i < 300; i++)
		string[i] = i;
	si = (u64)string, cx = 300;
	asm volatile("rep outsb" : "+S"(si), "+c"(cx) : "d"(0x70) : "memory");
	guest_eq(cx, 0);
	guest_eq(si, (u64)string + 300);
	/* in words, from where a page ends in the middle of one */
	si = (u64)string + 4095, cx = 3;
	*(u16 *)(string + 4095) = 0x1234;
	*(u16 *)(string + 4097) = 0x5678;
	*(u16 *)(string + 4099) = 0x9abc;
	asm volatile("rep outsw" : "+S"(si), "+c"(cx) : "d"(0x71) : "memory");
	guest_eq(cx, 0);
	/* none at all */
	asm volatile("rep outsb" : "+S"(si), "+c"(cx) : "d"(0x72) : "memory");
	/* input, across a page */
	di = (u64)string + 4000, cx = 200;
	asm volatile("rep insb" : "+D"(di), "+c"(cx) : "d"(0x73) : "memory");
	guest_eq(cx, 0);
	guest_eq(di, (u64)string + 4200);
	for (i = 0; i < 200; i++)
		guest_eq(string[4000 + i], (u8)(i * 7));
	/* backwards */
	di = (u64)string + 16, cx = 4;
	asm volatile("std; rep insl; cld" : "+D"(di), "+c"(cx) : "d"(0x74)
		     : "memory");
	guest_eq(di, (u64)string);
	for (i = 0; i < 4; i++)
		guest_eq(*(u32 *)(string + 16 - 4 * i), i + 100);
	/* one, without rep */
	asm volatile("insw" : "=D"(di) : "D"(string), "d"(0x75) : "memory");
	guest_eq(*(u16 *)string, 0x4321);
	guest_done(0);
}

/* Collect a string instruction's data, in whatever pieces it is given */
static void string_io(struct vcpu *v, int dir, u16 port, int size, void *buf,
		      u32 count)
{
	struct kvm_run *run = v->run;
	u8 *p = buf;

	while (count) {
		vcpu_expect(v, KVM_EXIT_IO);
		if (run->io.direction != dir || run->io.port != port ||
		    run->io.size != size || !run->io.count ||
		    run->io.count > count)
			die("port %#x, size %d, %u times, of %u left",
			    run->io.port, run->io.size, run->io.count, count);
		if (dir == KVM_EXIT_IO_OUT)
			memcpy(p, (u8 *)run + run->io.data_offset,
			       size * run->io.count);
		else
			memcpy((u8 *)run + run->io.data_offset, p,
			       size * run->io.count);
		p += size * run->io.count;
		count -= run->io.count;
	}
}

TEST_F(exits, string)
{
	struct vcpu *v = self->v;
	u8 buf[512];
	u32 w[4] = { 100, 101, 102, 103 };
	u16 h[3], one = 0x4321;
	int i;

	vcpu_long(v, string_guest, 0);
	string_io(v, KVM_EXIT_IO_OUT, 0x70, 1, buf, 300);
	for (i = 0; i < 300; i++) {
		ASSERT_EQ((u8)i, buf[i]);
	}
	string_io(v, KVM_EXIT_IO_OUT, 0x71, 2, h, 3);
	EXPECT_EQ(0x1234, h[0]);
	EXPECT_EQ(0x5678, h[1]);
	EXPECT_EQ(0x9abc, h[2]);
	for (i = 0; i < 200; i++)
		buf[i] = i * 7;
	string_io(v, KVM_EXIT_IO_IN, 0x73, 1, buf, 200);
	string_io(v, KVM_EXIT_IO_IN, 0x74, 4, w, 4);
	string_io(v, KVM_EXIT_IO_IN, 0x75, 2, &one, 1);
	vcpu_done(v);
}

/* ---- MMIO ---- */

#define M	HOLE_GPA

static void mmio_guest(u64 arg)
{
	u64 a, b;

	asm volatile("movb %b0,(%1)" :: "q"(0x11UL), "r"(M) : "memory");
	asm volatile("movw %w0,(%1)" :: "r"(0x2222UL), "r"(M + 2) : "memory");
	asm volatile("movl %k0,(%1)" :: "r"(0x33333333UL), "r"(M + 4) : "memory");
	asm volatile("movq %0,(%1)" :: "r"(0x4444444455555555UL), "r"(M + 8)
		     : "memory");
	asm volatile("movl $0x12345678,(%0)" :: "r"(M + 16) : "memory");
	a = ~0UL;
	asm volatile("movb (%1),%b0" : "+q"(a) : "r"(M));
	guest_eq(a, 0xffffffffffffffa1UL);
	asm volatile("movw (%1),%w0" : "+r"(a) : "r"(M + 2));
	guest_eq(a, 0xffffffffffffb1b2UL);
	asm volatile("movl (%1),%k0" : "+r"(a) : "r"(M + 4));
	guest_eq(a, 0xc1c2c3c4UL);
	asm volatile("movq (%1),%0" : "+r"(a) : "r"(M + 8));
	guest_eq(a, 0xd1d2d3d4d5d6d7d8UL);
	asm volatile("movzbl (%1),%k0" : "=r"(a) : "r"(M));
	guest_eq(a, 0x80);
	asm volatile("movsbq (%1),%0" : "=r"(a) : "r"(M));
	guest_eq(a, 0xffffffffffffff80UL);
	asm volatile("movzwl (%1),%k0" : "=r"(a) : "r"(M));
	guest_eq(a, 0x8001);
	asm volatile("movslq (%1),%0" : "=r"(a) : "r"(M));
	guest_eq(a, 0xffffffff80000000UL);
	/* read, compute, write */
	asm volatile("addl $5,(%0)" :: "r"(M) : "memory");
	asm volatile("orb $0x80,(%0)" :: "r"(M) : "memory");
	asm volatile("xorq %0,(%1)" :: "r"(0xffUL), "r"(M) : "memory");
	a = 0x77;
	asm volatile("xchgl %k0,(%1)" : "+r"(a) : "r"(M) : "memory");
	guest_eq(a, 0x99);
	asm volatile("lock incl (%0)" :: "r"(M) : "memory");
	/* flags only */
	asm volatile("cmpl $0x1234,(%1); setz %b0" : "=q"(b) : "r"(M) : "cc");
	guest_eq(b & 0xff, 1);
	asm volatile("testb $4,(%1); setnz %b0" : "=q"(b) : "r"(M) : "cc");
	guest_eq(b & 0xff, 1);
	/* push and pop of it */
	asm volatile("pushq (%1); popq %0" : "=r"(a) : "r"(M));
	guest_eq(a, 0x8877665544332211UL);
	guest_done(0);
}

static void mmio_w(struct vcpu *v, u64 gpa, int len, u64 val)
{
	struct kvm_run *run = vcpu_expect_mmio(v, true, gpa, len);
	u64 got = 0;

	memcpy(&got, run->mmio.data, len);
	if (got != val)
		die("MMIO write of %#llx, not %#llx", (unsigned long long)got,
		    (unsigned long long)val);
}

static void mmio_r(struct vcpu *v, u64 gpa, int len, u64 val)
{
	struct kvm_run *run = vcpu_expect_mmio(v, false, gpa, len);

	memcpy(run->mmio.data, &val, len);
}

TEST_F(exits, mmio)
{
	struct vcpu *v = self->v;

	vcpu_long(v, mmio_guest, 0);
	mmio_w(v, M, 1, 0x11);
	mmio_w(v, M + 2, 2, 0x2222);
	mmio_w(v, M + 4, 4, 0x33333333);
	mmio_w(v, M + 8, 8, 0x4444444455555555UL);
	mmio_w(v, M + 16, 4, 0x12345678);
	mmio_r(v, M, 1, 0xa1);
	mmio_r(v, M + 2, 2, 0xb1b2);
	mmio_r(v, M + 4, 4, 0xc1c2c3c4);
	mmio_r(v, M + 8, 8, 0xd1d2d3d4d5d6d7d8UL);
	mmio_r(v, M, 1, 0x80);
	mmio_r(v, M, 1, 0x80);
	mmio_r(v, M, 2, 0x8001);
	mmio_r(v, M, 4, 0x80000000);
	mmio_r(v, M, 4, 10);
	mmio_w(v, M, 4, 15);
	mmio_r(v, M, 1, 1);
	mmio_w(v, M, 1, 0x81);
	mmio_r(v, M, 8, 0xf0f0f0f0f0f0f0f0UL);
	mmio_w(v, M, 8, 0xf0f0f0f0f0f0f00fUL);
	mmio_r(v, M, 4, 0x99);
	mmio_w(v, M, 4, 0x77);
	mmio_r(v, M, 4, 41);
	mmio_w(v, M, 4, 42);
	mmio_r(v, M, 4, 0x1234);
	mmio_r(v, M, 1, 0xff);
	mmio_r(v, M, 8, 0x8877665544332211UL);
	vcpu_done(v);
}

#define EDGE	MEM_SIZE	/* where slot 0 ends */

static void mmio_crossing_guest(u64 arg)
{
	u64 a;

	/* between two pages of the hole */
	asm volatile("movq %0,(%1)" :: "r"(0x1122334455667788UL),
		     "r"(M + 0x1000 - 3) : "memory");
	asm volatile("movq (%1),%0" : "=r"(a) : "r"(M + 0x1000 - 3));
	guest_eq(a, 0x8877665544332211UL);
	/* from memory into the hole behind it */
	asm volatile("movl %k0,(%1)" :: "r"(0xaabbccddUL), "r"(EDGE - 2)
		     : "memory");
	guest_eq(*(volatile u16 *)(EDGE - 2), 0xccdd);
	*(volatile u16 *)(EDGE - 2) = 0x5566;
	asm volatile("movl (%1),%k0" : "=r"(a) : "r"(EDGE - 2));
	guest_eq(a, 0x77885566);
	guest_done(0);
}

TEST_F(exits, mmio_crossing)
{
	struct vcpu *v = self->v;

	vcpu_long(v, mmio_crossing_guest, 0);
	mmio_w(v, M + 0x1000 - 3, 3, 0x667788);
	mmio_w(v, M + 0x1000, 5, 0x1122334455UL);
	mmio_r(v, M + 0x1000 - 3, 3, 0x332211);
	mmio_r(v, M + 0x1000, 5, 0x8877665544UL);
	mmio_w(v, EDGE, 2, 0xaabb);
	mmio_r(v, EDGE, 2, 0x7788);
	vcpu_done(v);
}

static void mmio_string_guest(u64 arg)
{
	u64 si, di, cx;
	int i;

	for (i = 0; i < 16; i++)
		string[i] = i + 1;
	si = (u64)string, di = M, cx = 4;
	asm volatile("rep movsl" : "+S"(si), "+D"(di), "+c"(cx) :: "memory");
	guest_eq(cx, 0);
	guest_eq(si, (u64)string + 16);
	guest_eq(di, M + 16);
	si = M, di = (u64)string + 64, cx = 3;
	asm volatile("rep movsw" : "+S"(si), "+D"(di), "+c"(cx) :: "memory");
	guest_eq(cx, 0);
	guest_eq(*(u32 *)(string + 64), 0x00010000);
	guest_eq(*(u16 *)(string + 68), 2);
	/* from device to device */
	si = M, di = M + 0x2000;
	asm volatile("movsb" : "+S"(si), "+D"(di) :: "memory");
	di = M, cx = 3;
	asm volatile("rep stosq" : "+D"(di), "+c"(cx) : "a"(0x1234UL)
		     : "memory");
	guest_eq(di, M + 24);
	asm volatile("lodsl" : "=a"(cx), "=S"(si) : "S"(M), "0"(0UL));
	guest_eq(cx, 0x42);
	guest_done(0);
}

TEST_F(exits, mmio_string)
{
	struct vcpu *v = self->v;
	int i;

	vcpu_long(v, mmio_string_guest, 0);
	for (i = 0; i < 4; i++)
		mmio_w(v, M + 4 * i, 4, 0x04030201 + i * 0x04040404UL);
	for (i = 0; i < 3; i++)
		mmio_r(v, M + 2 * i, 2, i);
	mmio_r(v, M, 1, 0xee);
	mmio_w(v, M + 0x2000, 1, 0xee);
	for (i = 0; i < 3; i++)
		mmio_w(v, M + 8 * i, 8, 0x1234);
	mmio_r(v, M, 4, 0x42);
	vcpu_done(v);
}

static void mmio_sse_guest(u64 arg)
{
	asm volatile("movups (%0),%%xmm0; movups %%xmm0,(%1)"
		     :: "r"(string), "r"(M) : "memory");
	asm volatile("movdqu (%0),%%xmm1; movdqu %%xmm1,(%1)"
		     :: "r"(M), "r"(string + 32) : "memory");
	guest_eq(*(u64 *)(string + 32), 0x1111111111111111UL);
	guest_eq(*(u64 *)(string + 40), 0x2222222222222222UL);
	guest_done(0);
}

/* Sixteen bytes come as two times eight */
TEST_F(exits, mmio_sse)
{
	struct vcpu *v = self->v;

	vcpu_long(v, mmio_sse_guest, 0);
	memset((void *)&guest_var(self->vm, string), 0x77, 16);
	mmio_w(v, M, 8, 0x7777777777777777UL);
	mmio_w(v, M + 8, 8, 0x7777777777777777UL);
	mmio_r(v, M, 8, 0x1111111111111111UL);
	mmio_r(v, M + 8, 8, 0x2222222222222222UL);
	vcpu_done(v);
}

/* ---- halt, shutdown ---- */

CODE16(hlt_code, "hlt; mov $1,%al; out %al,$0x10; hlt");

TEST_F(exits, halt)
{
	struct kvm_regs r;

	vcpu_real(self->v, hlt_code, code_size(hlt_code));
	vcpu_expect(self->v, KVM_EXIT_HLT);
	vcpu_get_regs(self->v, &r);
	EXPECT_EQ(CODE_GPA + 1, r.rip);
	vcpu_expect_io(self->v, KVM_EXIT_IO_OUT, 0x10, 1, 1);
	vcpu_expect(self->v, KVM_EXIT_HLT);
}

static void triple_guest(u64 arg)
{
	static struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) none;

	asm volatile("lidt %0; ud2" :: "m"(none));
}

TEST_F(exits, triple_fault)
{
	struct kvm_regs r;

	vcpu_long(self->v, triple_guest, 0);
	vcpu_expect(self->v, KVM_EXIT_SHUTDOWN);
	/* it can be made to run again */
	vcpu_real(self->v, hlt_code, code_size(hlt_code));
	vcpu_get_regs(self->v, &r);
}

/* Its first instruction is where no memory is */
TEST_F(exits, nothing_to_run)
{
	struct kvm_run *run = self->v->run;

	vcpu_run(self->v);
	EXPECT_EQ(KVM_EXIT_INTERNAL_ERROR, run->exit_reason);
	EXPECT_EQ(KVM_INTERNAL_ERROR_EMULATION, run->internal.suberror);
}

static void idle_guest(u64 arg)
{
	guest_sync(0);
	guest_done(0);
}

/* A state no CPU has: Intel's refuses to enter with it, AMD's may not look. It is the VMM's to put right. */
TEST_F(exits, refused_entry)
{
	struct kvm_run *run = self->v->run;
	struct kvm_regs r;

	vcpu_long(self->v, idle_guest, 0);
	vcpu_sync(self->v);
	vcpu_settle(self->v);
	vcpu_get_regs(self->v, &r);
	r.rflags |= 1UL << 40;
	vcpu_set_regs(self->v, &r);
	vcpu_run(self->v);
	if (!guest_is_amd()) {
		ASSERT_EQ(KVM_EXIT_FAIL_ENTRY, run->exit_reason);
		/* the basic reason is 33, invalid guest state; bit 31: at the entry */
		EXPECT_EQ(0x80000021, run->fail_entry.hardware_entry_failure_reason);
	}
	if (run->exit_reason == KVM_EXIT_FAIL_ENTRY) {
		r.rflags &= ~(1UL << 40);
		vcpu_set_regs(self->v, &r);
		vcpu_done(self->v);
	}
}

/* The same before it has ever run: Intel's CPU has not launched it then, and is to do so next. */
TEST_F(exits, refused_first_entry)
{
	struct kvm_run *run = self->v->run;
	struct kvm_regs r;

	vcpu_long(self->v, idle_guest, 0);
	vcpu_get_regs(self->v, &r);
	r.rflags |= 1UL << 40;
	vcpu_set_regs(self->v, &r);
	vcpu_run(self->v);
	if (run->exit_reason != KVM_EXIT_FAIL_ENTRY)
		SKIP(return, "this CPU does not look at the upper half of RFLAGS");
	EXPECT_EQ(0x80000021, run->fail_entry.hardware_entry_failure_reason);
	r.rflags &= ~(1UL << 40);
	vcpu_set_regs(self->v, &r);
	vcpu_sync(self->v);
	vcpu_done(self->v);
}

static void syncing_guest(u64 arg)
{
	for (;;)
		guest_sync(0);
}

/*
 * Refused entries between those of two guests, all of which want an address space nothing is cached of: where address
 * spaces are few, some of the refused are to flush them all.  That what the next guests get is flushed after all, the
 * lab's AMD machine with NRIPS looks at; the others' emulators keep nothing, or have too many.
 */
TEST_F(exits, flush_in_refused_entry)
{
	struct vcpu *v[] = { self->v, vcpu_new(self->vm, 1), vcpu_new(self->vm, 2) };
	struct kvm_sregs s[3];
	unsigned int i, n;

	for (i = 0; i < 3; i++) {
		vcpu_long(v[i], syncing_guest, 0);
		vcpu_sync(v[i]);
		vcpu_get_sregs(v[i], &s[i]);
	}
	s[2].cs.db = 1;		/* and L: what both vendors' CPUs look at */
	for (n = 0; n < 30; n++) {
		for (i = 0; i < 2; i++) {
			vcpu_set_sregs(v[i], &s[i]);
			vcpu_sync(v[i]);
		}
		vcpu_set_sregs(v[2], &s[2]);
		vcpu_run(v[2]);
		ASSERT_EQ(KVM_EXIT_FAIL_ENTRY, v[2]->run->exit_reason);
	}
}

static void deaf_guest(u64 arg)
{
	irq_off();
	guest_sync(0);
	for (;;)
		;
}

static void on_alarm(int sig)
{
}

/* After a refusal, too, the host's interrupts reach the CPU while a guest runs that wants none. */
TEST_F(exits, interrupted_after_refusal)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 0x80000008, 0);
	struct sigaction alarmed = { .sa_handler = on_alarm };
	struct kvm_sregs s;
	struct kvm_regs r;
	int ran;

	e->eax = (e->eax & ~0xffU) | 52;
	must(ioctl(self->v->fd, KVM_SET_CPUID2, self->vm->cpuid));
	sigaction(SIGALRM, &alarmed, NULL);
	vcpu_long(self->v, deaf_guest, 0);
	vcpu_sync(self->v);
	vcpu_settle(self->v);
	vcpu_get_regs(self->v, &r);
	vcpu_get_sregs(self->v, &s);
	s.cr3 |= 1UL << 51;		/* there is no such memory: what both vendors' CPUs look at */
	vcpu_set_sregs(self->v, &s);
	ualarm(100000, 100000);		/* a first one may come before KVM_RUN */
	ran = xioctl(self->v->fd, KVM_RUN, 0);
	ualarm(0, 0);
	if (ran == -EINTR)
		SKIP(return, "this CPU does not look at what CR3 has");
	if (self->v->run->exit_reason == KVM_EXIT_SHUTDOWN)
		SKIP(return, "guests' page tables are shadowed: the CPU does not see that CR3");
	ASSERT_EQ(KVM_EXIT_FAIL_ENTRY, self->v->run->exit_reason);
	s.cr3 &= ~(1UL << 51);
	vcpu_set_sregs(self->v, &s);
	vcpu_set_regs(self->v, &r);
	ualarm(100000, 100000);
	EXPECT_EQ(-EINTR, xioctl(self->v->fd, KVM_RUN, 0));
	ualarm(0, 0);
}

static void unemulated_guest(u64 arg)
{
	/* no emulator needs this one on MMIO: AES on a device */
	asm volatile("aesenc (%0),%%xmm0" :: "r"(M) : "memory");
	guest_done(0);
}

TEST_F(exits, emulation_failure)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 1, 0);
	struct kvm_run *run = self->v->run;
	struct kvm_regs r;

	if (!(e->ecx & 1 << 25))
		SKIP(return, "no AES");
	vcpu_long(self->v, unemulated_guest, 0);
	vcpu_run(self->v);
	EXPECT_EQ(KVM_EXIT_INTERNAL_ERROR, run->exit_reason);
	EXPECT_EQ(KVM_INTERNAL_ERROR_EMULATION, run->emulation_failure.suberror);
	/* the bytes of the instruction are there to look at */
	ASSERT_GE(run->emulation_failure.ndata, 3);
	EXPECT_TRUE(run->emulation_failure.flags &
		    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	EXPECT_EQ(0x66, run->emulation_failure.insn_bytes[0]);
	EXPECT_EQ(0x0f, run->emulation_failure.insn_bytes[1]);
	/* the guest is still at it, so a VMM can go on by itself */
	vcpu_get_regs(self->v, &r);
	r.rip += 5;
	vcpu_set_regs(self->v, &r);
	vcpu_done(self->v);
}

/* One that writes to a device and reads it then: there is no answer to the one before the other */
static void enter_guest(u64 arg)
{
	asm volatile("mov %%rsp, %%rbx; mov %%rbp, %%rsi; mov %0, %%rsp; mov %0, %%rbp; test %1, %1; jz 1f\n\t.byte 0xf3\n1:"
		     "enter $8, $2; mov %%rbx, %%rsp; mov %%rsi, %%rbp" :: "r"(HOLE_GPA + 0x800), "r"(arg) : "rbx", "rsi", "memory");
	guest_done(0);
}

TEST_F(exits, written_then_read)
{
	u64 rep;

	for (rep = 0; rep < 2; rep++) {
		vcpu_long(self->v, enter_guest, rep);
		vcpu_run(self->v);
		EXPECT_EQ(KVM_EXIT_INTERNAL_ERROR, self->v->run->exit_reason);
	}
}

/* AMD's CR8 of every mode */
CODE16(lock_cr8_code, "mov $5,%eax; lock; mov %eax,%cr0; xor %ebx,%ebx; lock; mov %cr0,%ebx; hlt\n");

TEST_F(exits, lock_mov_cr0)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 0x80000001, 0);
	struct kvm_regs r;

	if (!e || !(e->ecx & 1 << 4))
		SKIP(return, "no CR8 outside long mode");
	vcpu_real(self->v, lock_cr8_code, code_size(lock_cr8_code));
	vcpu_expect(self->v, KVM_EXIT_HLT);
	vcpu_get_regs(self->v, &r);
	EXPECT_EQ(5, r.rbx);
	EXPECT_EQ(5, self->v->run->cr8);
}

/* ---- where RIP is at an OUT ---- */

CODE32(out_code,
	"mov $1,%eax; out %al,$0x10; mov $2,%eax; out %al,$0x10; mov $3,%eax; out %al,$0x10\n"
	"mov $4,%eax; out %al,$0x7e; mov $5,%eax; out %al,$0x7e; out %al,$0x11; hlt\n");

static u64 opcode_at_rip(struct vcpu *v, struct kvm_regs *r)
{
	vcpu_get_regs(v, r);
	return *(u16 *)gpa_hva(v->vm, r->rip);
}

TEST_F(exits, out_rip)
{
	struct vcpu *v = self->v;
	struct kvm_regs r;

	vcpu_prot(v, out_code, code_size(out_code));
	EXPECT_EQ(1, *vcpu_expect_io(v, 1, 0x10, 1, 1));
	EXPECT_EQ(0x10e6, opcode_at_rip(v, &r));
	vcpu_set_regs(v, &r);			/* where it was: the instruction is still to be ended */
	EXPECT_EQ(2, *vcpu_expect_io(v, 1, 0x10, 1, 1));
	EXPECT_EQ(0x10e6, opcode_at_rip(v, &r));
	r.rip += 2;				/* by the VMM itself, then */
	vcpu_set_regs(v, &r);
	EXPECT_EQ(3, *vcpu_expect_io(v, 1, 0x10, 1, 1));
	vcpu_settle(v);
	EXPECT_EQ(0x04b8, opcode_at_rip(v, &r));
	/* one port is another matter, unless the VMM says that it is not */
	EXPECT_EQ(4, *vcpu_expect_io(v, 1, 0x7e, 1, 1));
	EXPECT_EQ(0x05b8, opcode_at_rip(v, &r));
	NEED_CAP(self->vm, KVM_CAP_DISABLE_QUIRKS2);
	must(vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_OUT_7E_INC_RIP));
	EXPECT_EQ(5, *vcpu_expect_io(v, 1, 0x7e, 1, 1));
	EXPECT_EQ(0x7ee6, opcode_at_rip(v, &r));
	EXPECT_EQ(5, *vcpu_expect_io(v, 1, 0x11, 1, 1));
	vcpu_expect(v, KVM_EXIT_HLT);
}

/* ---- hypercalls ---- */

static void hypercall_guest(u64 arg)
{
	guest_eq(hypercall(0x1000, 0, 0), -1000);	/* -KVM_ENOSYS */
	guest_eq(hypercall(KVM_HC_VAPIC_POLL_IRQ, 0, 0), 0);
	guest_done(0);
}

TEST_F(exits, hypercall)
{
	vcpu_long(self->v, hypercall_guest, 0);
	vcpu_done(self->v);
}

static void user_hypercall_guest(u64 arg)
{
	u16 cs;

	/* to ring 3: SS, RSP, RFLAGS, CS, RIP */
	asm volatile("pushq %0; pushq %1; pushq $0x3002; pushq %2; pushq $1f\n"
		     "iretq\n1:"
		     :: "i"(SEL_UDATA), "r"(HEAP_GPA + 0x8000),
		     "i"(SEL_UCODE64) : "memory");
	asm volatile("mov %%cs,%0" : "=r"(cs));
	guest_eq(cs, SEL_UCODE64);
	guest_eq(hypercall(KVM_HC_VAPIC_POLL_IRQ, 0, 0), -1);	/* -KVM_EPERM */
	guest_done(0);
}

TEST_F(exits, hypercall_from_user)
{
	vcpu_long(self->v, user_hypercall_guest, 0);
	vcpu_done(self->v);
}

/* The other vendor's form is rewritten, or raises #UD without that quirk */
static void wrong_hypercall_guest(u64 quirk)
{
	static const u8 vmcall[] = { 0x0f, 0x01, 0xc1, 0xc3 };
	static const u8 vmmcall[] = { 0x0f, 0x01, 0xd9, 0xc3 };
	volatile u8 *p = (u8 *)HEAP_GPA;
	long ret;
	int i;

	for (i = 0; i < 4; i++)
		p[i] = guest_is_amd() ? vmcall[i] : vmmcall[i];
	if (quirk) {
		asm volatile("call *%1" : "=a"(ret)
			     : "r"(p), "0"((long)KVM_HC_VAPIC_POLL_IRQ)
			     : "rbx", "rcx", "rdx", "rsi", "memory");
		guest_eq(ret, 0);
	} else {
		guest_eq(guest_is_amd() ?
			 guest_try("vmcall", "a"(1)) :
			 guest_try("vmmcall", "a"(1)), UD);
	}
	guest_done(0);
}

TEST_F(exits, wrong_hypercall)
{
	NEED_CAP(self->vm, KVM_CAP_DISABLE_QUIRKS);
	vcpu_long(self->v, wrong_hypercall_guest, 1);
	vcpu_done(self->v);
	must(vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS,
			   KVM_X86_QUIRK_FIX_HYPERCALL_INSN));
	vcpu_long(self->v, wrong_hypercall_guest, 0);
	vcpu_done(self->v);
}

/* A fast system call from 32-bit code in long mode, which the CPU that the guest is told of has and the host's has not */
static u64 call_stack[64], left_at;
extern char called_here[];

static void foreign_call_guest(u64 intel)
{
	if (intel) {
		/* Of which AMD's CPUs keep the lower half. */
		wrmsr(MSR_IA32_SYSENTER_ESP, 0xffffc90000001000);
		wrmsr(MSR_IA32_SYSENTER_EIP, 0xffffffff81000000);
		guest_eq(rdmsr(MSR_IA32_SYSENTER_ESP), 0xffffc90000001000);
		guest_eq(rdmsr(MSR_IA32_SYSENTER_EIP), 0xffffffff81000000);
		wrmsr(MSR_IA32_SYSENTER_CS, SEL_CODE64);
		wrmsr(MSR_IA32_SYSENTER_ESP, (u64)&call_stack[64]);
		wrmsr(MSR_IA32_SYSENTER_EIP, (u64)called_here);
	} else {
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
		wrmsr(MSR_STAR, (u64)SEL_CODE64 << 32);
		wrmsr(MSR_CSTAR, (u64)called_here);
	}
	asm volatile("mov %%rsp,%0; pushq %1; lea 1f(%%rip),%%rax; push %%rax; lretq\n"
		     ".code32\n1: test %%edi,%%edi; jz 2f; sysenter\n2: syscall\n.code64\n"
		     "called_here: mov %%rsp,%%rbx; mov %0,%%rsp"
		     : "+m"(left_at) : "i"(SEL_CODE32), "D"(intel) : "rax", "rbx", "rcx", "rdx", "r11", "memory");
	guest_done(0);
}

TEST_F(exits, foreign_system_call)
{
	bool amd = guest_is_amd();
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 0, 0);

	if (!amd && !access("/dev/results", F_OK))
		SKIP(return, "Bochs' CPUs have SYSCALL there, like AMD's");
	memcpy(&e->ebx, amd ? "Genu" : "Auth", 4);
	memcpy(&e->edx, amd ? "ineI" : "enti", 4);
	memcpy(&e->ecx, amd ? "ntel" : "cAMD", 4);
	must(ioctl(self->v->fd, KVM_SET_CPUID2, self->vm->cpuid));
	must(vm_enable_cap(self->vm, KVM_CAP_DISABLE_QUIRKS, KVM_X86_QUIRK_FIX_HYPERCALL_INSN));
	vcpu_long(self->v, foreign_call_guest, amd);
	vcpu_done(self->v);
}

/* ---- MSRs ---- */

static void msr_guest(u64 arg)
{
	u64 v;

	guest_eq(rdmsr_try(0x12345678, &v), GP0);
	guest_eq(wrmsr_try(0x12345678, 0), GP0);
	guest_eq(wrmsr_try(MSR_EFER, 1ULL << 40), GP0);
	guest_eq(wrmsr_try(MSR_EFER, 0), GP0);		/* LME off under paging */
	guest_eq(wrmsr_try(MSR_IA32_CR_PAT, 2), GP0);
	guest_eq(wrmsr_try(MSR_KERNEL_GS_BASE, 0x1234), NO_FAULT);
	guest_eq(rdmsr(MSR_KERNEL_GS_BASE), 0x1234);
	wrmsr(MSR_LSTAR, 0xffffffff81000000UL);
	guest_eq(rdmsr(MSR_LSTAR), 0xffffffff81000000UL);
	wrmsr(MSR_FS_BASE, 0x7000);
	guest_eq(rdmsr(MSR_FS_BASE), 0x7000);
	guest_eq(rdmsr(MSR_EFER), 0xd01);
	wrmsr(MSR_IA32_CR_PAT, 0x0007010600070106UL);
	guest_eq(rdmsr(MSR_IA32_CR_PAT), 0x0007010600070106UL);
	guest_eq(rdmsr(MSR_MTRRcap) & 0xff, 8);
	/* Linux on Intel does so at boot */
	guest_eq(wrmsr_try(MSR_IA32_UCODE_REV, 0), NO_FAULT);
	guest_done(0);
}

/* What systems read as they boot, on CPUs of either vendor: the answers are KVM's. */
static void boot_msrs_guest(u64 arg)
{
	static const struct {
		u32 msr;
		u64 val;
	} msrs[] = {
		{ 0x17, 0 }, { 0x2c, 1 << 24 }, { 0xcd, 3 }, { 0x198, 4ULL << 40 | 1000 },
		{ 0xc0010117, 0 }, { 0xc0011022, 0 }, { 0xc0011023, 0 }, { 0xc001102a, 0 }, { 0xc001102c, 0 },
	};
	unsigned int i;
	u64 v;

	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		v = ~0ULL;
		guest_eq(rdmsr_try(msrs[i].msr, &v), NO_FAULT);
		guest_eq(v, msrs[i].val);
	}
	/* Intel's alone: what firmware lets a system have. Nothing here; it may be locked, once. */
	if (!(arg & 1))
		guest_done(0);
	guest_eq(rdmsr_try(0x3a, &v), NO_FAULT);
	guest_eq(v, 0);
	guest_eq(wrmsr_try(0x3a, 1 << 20), GP0);
	guest_eq(wrmsr_try(0x3a, 1), NO_FAULT);
	guest_eq(wrmsr_try(0x3a, 0), GP0);
	guest_eq(rdmsr(0x3a), 1);
	guest_done(0);
}

TEST_F(exits, boot_msrs)
{
	u32 a = 0, b, c = 0, d;

	asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	vcpu_long(self->v, boot_msrs_guest, b == 0x756e6547);	/* Genu */
	vcpu_done(self->v);
}

TEST_F(exits, msr)
{
	vcpu_long(self->v, msr_guest, 0);
	vcpu_done(self->v);
}

/* SPEC_CTRL is the guest's from its first bit on, and the host's in between. */
static void spec_ctrl_guest(u64 bits)
{
	u64 v;
	int i;

	guest_eq(rdmsr_try(MSR_IA32_SPEC_CTRL, &v), NO_FAULT);
	guest_eq(v, 0);
	guest_eq(wrmsr_try(MSR_IA32_SPEC_CTRL, 1UL << 40), GP0);
	for (i = 0; i < 20; i++) {
		guest_eq(wrmsr_try(MSR_IA32_SPEC_CTRL, i & bits), NO_FAULT);
		outb(0x80, 0);
		guest_eq(rdmsr_try(MSR_IA32_SPEC_CTRL, &v), NO_FAULT);
		guest_eq(v, i & bits);
	}
	guest_eq(wrmsr_try(MSR_IA32_SPEC_CTRL, bits), NO_FAULT);
	guest_sync(0);
	/* the VMM has set it to zero */
	guest_eq(rdmsr_try(MSR_IA32_SPEC_CTRL, &v), NO_FAULT);
	guest_eq(v, 0);
	guest_done(0);
}

static void no_spec_ctrl_guest(u64 arg)
{
	u64 v;

	guest_eq(rdmsr_try(MSR_IA32_SPEC_CTRL, &v), GP0);
	guest_eq(wrmsr_try(MSR_IA32_SPEC_CTRL, 0), GP0);
	guest_done(0);
}

TEST_F(exits, spec_ctrl)
{
	struct kvm_cpuid_entry2 *intel = cpuid_find(self->vm->cpuid, 7, 0);
	struct kvm_cpuid_entry2 *amd = cpuid_find(self->vm->cpuid, 0x80000008, 0);
	int msrs = open("/dev/cpu/0/msr", O_RDONLY);
	u64 bits = 0, before = 0, now = 0, val;
	cpu_set_t one = {};
	struct vcpu *v = self->v;
	int i;

	if (intel && intel->edx & 1u << 26)
		bits |= 1 | (intel->edx >> 27 & 1) << 1 | (intel->edx >> 31) << 2;
	if (amd && amd->ebx & 1u << 14)
		bits |= 1;
	if (!bits)
		SKIP(return, "this CPU has no SPEC_CTRL");
	CPU_SET(0, &one);
	must(sched_setaffinity(0, sizeof(one), &one));
	if (msrs >= 0)
		EXPECT_EQ(8, pread(msrs, &before, 8, MSR_IA32_SPEC_CTRL));
	vcpu_long(v, spec_ctrl_guest, bits);
	for (i = 0; i < 20; i++) {
		vcpu_expect_io(v, KVM_EXIT_IO_OUT, 0x80, 1, 1);
		EXPECT_EQ(1, vcpu_get_msr(v, MSR_IA32_SPEC_CTRL, &val));
		EXPECT_EQ(i & bits, val);
		if (msrs >= 0)
			EXPECT_EQ(8, pread(msrs, &now, 8, MSR_IA32_SPEC_CTRL));
		EXPECT_EQ(before, now);
	}
	vcpu_sync(v);
	EXPECT_EQ(0, vcpu_set_msr(v, MSR_IA32_SPEC_CTRL, 1UL << 20));
	EXPECT_EQ(1, vcpu_set_msr(v, MSR_IA32_SPEC_CTRL, 0));
	vcpu_done(v);

	/* a guest that was not told of it does not have it */
	v = vcpu_new(self->vm, 1);
	if (intel)
		intel->edx &= ~(1u << 26 | 1u << 27 | 1u << 31);
	if (amd)
		amd->ebx &= ~(1u << 14 | 1u << 15 | 1u << 24 | 1u << 28);
	if (cpuid_find(self->vm->cpuid, 7, 2))
		cpuid_find(self->vm->cpuid, 7, 2)->edx = 0;
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_CPUID2, self->vm->cpuid));
	vcpu_long(v, no_spec_ctrl_guest, 0);
	vcpu_done(v);
	if (msrs >= 0)
		close(msrs);
}

static void user_msr_guest(u64 arg)
{
	u64 v;

	guest_eq(rdmsr_try(0x12345678, &v), NO_FAULT);
	guest_eq(v, 0x1122334455667788UL);
	guest_eq(wrmsr_try(0x12345678, 0xaabbccdd11223344UL), NO_FAULT);
	guest_eq(rdmsr_try(0x12345678, &v), GP0);
	guest_eq(wrmsr_try(0x12345678, 1), GP0);
	guest_done(0);
}

TEST_F(exits, unknown_msr_to_user)
{
	struct vcpu *v = self->v;

	NEED_CAP(self->vm, KVM_CAP_X86_USER_SPACE_MSR);
	must(vm_enable_cap(self->vm, KVM_CAP_X86_USER_SPACE_MSR,
			   KVM_MSR_EXIT_REASON_UNKNOWN));
	vcpu_long(v, user_msr_guest, 0);
	vcpu_expect(v, KVM_EXIT_X86_RDMSR);
	EXPECT_EQ(0x12345678, v->run->msr.index);
	EXPECT_EQ(KVM_MSR_EXIT_REASON_UNKNOWN, v->run->msr.reason);
	v->run->msr.data = 0x1122334455667788UL;
	vcpu_expect(v, KVM_EXIT_X86_WRMSR);
	EXPECT_EQ(0x12345678, v->run->msr.index);
	EXPECT_EQ(0xaabbccdd11223344UL, v->run->msr.data);
	vcpu_expect(v, KVM_EXIT_X86_RDMSR);
	v->run->msr.error = 1;
	vcpu_expect(v, KVM_EXIT_X86_WRMSR);
	v->run->msr.error = 1;
	vcpu_done(v);
}

static void filtered_msr_guest(u64 arg)
{
	u64 v;

	guest_eq(rdmsr_try(MSR_LSTAR, &v), GP0);
	guest_eq(wrmsr_try(MSR_LSTAR, 0x5000), NO_FAULT);
	guest_eq(rdmsr_try(MSR_STAR, &v), NO_FAULT);
	guest_sync(0);
	/* lifted */
	guest_eq(rdmsr_try(MSR_LSTAR, &v), NO_FAULT);
	guest_eq(v, 0x5000);
	guest_sync(1);
	/* to userspace */
	guest_eq(rdmsr_try(MSR_LSTAR, &v), NO_FAULT);
	guest_eq(v, 0x6000);
	guest_done(0);
}

TEST_F(exits, msr_filter)
{
	struct vcpu *v = self->v;
	u8 bits[1] = { 0xff & ~4 };	/* of STAR up: LSTAR is the second, LSTAR+1 */
	struct kvm_msr_filter f = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = { .flags = KVM_MSR_FILTER_READ, .nmsrs = 8,
			       .base = MSR_LSTAR - 2, .bitmap = bits },
	};

	NEED_CAP(self->vm, KVM_CAP_X86_MSR_FILTER);
	f.flags = 1 << 5;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
	f.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
	f.ranges[0].flags = 1 << 5;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[0].flags = KVM_MSR_FILTER_READ;
	f.ranges[0].nmsrs = 0x600 * 8 + 1;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[0].nmsrs = 8;
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
	vcpu_long(v, filtered_msr_guest, 0);
	vcpu_sync(v);
	memset(&f, 0, sizeof(f));
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
	EXPECT_EQ(1, vcpu_sync(v));
	f.ranges[0] = (struct kvm_msr_filter_range) {
		.flags = KVM_MSR_FILTER_READ, .nmsrs = 8,
		.base = MSR_LSTAR - 2, .bitmap = bits };
	EXPECT_EQ(0, xioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
	must(vm_enable_cap(self->vm, KVM_CAP_X86_USER_SPACE_MSR,
			   KVM_MSR_EXIT_REASON_FILTER));
	vcpu_expect(v, KVM_EXIT_X86_RDMSR);
	EXPECT_EQ(KVM_MSR_EXIT_REASON_FILTER, v->run->msr.reason);
	EXPECT_EQ(MSR_LSTAR, v->run->msr.index);
	v->run->msr.data = 0x6000;
	vcpu_done(v);
	/* deny all by default, without a range, makes no sense */
	memset(&f, 0, sizeof(f));
	f.flags = KVM_MSR_FILTER_DEFAULT_DENY;
	EXPECT_EQ(-EINVAL, xioctl(self->vm->fd, KVM_X86_SET_MSR_FILTER, &f));
}

/* ---- CPUID, as the guest sees it ---- */

struct cpuid_case {
	u32 fn, index, r[4];
};
static struct cpuid_case cpuid_cases[8];

static void cpuid_guest(u64 n)
{
	u32 r[4];
	u64 i, j;

	for (i = 0; i < n; i++) {
		cpuid(cpuid_cases[i].fn, cpuid_cases[i].index, r);
		for (j = 0; j < 4; j++)
			guest_eq(r[j], cpuid_cases[i].r[j]);
	}
	guest_done(0);
}

TEST_F(exits, cpuid)
{
	struct {
		struct kvm_cpuid2 h;
		struct kvm_cpuid_entry2 e[8];
	} c = { .h.nent = 6 };
	struct cpuid_case cases[] = {
		{ 0, 0, { 4, 0x68747541, 0x444d4163, 0x69746e65 } },
		{ 2, 0, { 0x2a, 0x2b, 0x2c, 0x2d } },
		{ 4, 0, { 0x40, 0x41, 0x42, 0x43 } },
		{ 4, 1, { 0x50, 0x51, 0x52, 0x53 } },
		/* an index that is not there */
		{ 4, 2, { 0, 0, 0, 0 } },
		/* a function between that is not there */
		{ 3, 0, { 0, 0, 0, 0 } },
		{ 0x80000000, 0, { 0x80000001, 0, 0, 0 } },
		/* this vendor's leaves end in zeroes */
		{ 0x80000005, 0, { 0, 0, 0, 0 } },
	};
	struct vcpu *v = vcpu_bare(self->vm, 1);
	int i, n = 0;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kvm_cpuid_entry2 *e = &c.e[n];

		if (!(cases[i].r[0] | cases[i].r[1]))
			continue;
		e->function = cases[i].fn;
		e->index = cases[i].index;
		if (e->function == 4)
			e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e->eax = cases[i].r[0];
		e->ebx = cases[i].r[1];
		e->ecx = cases[i].r[2];
		e->edx = cases[i].r[3];
		n++;
	}
	c.e[n++] = (struct kvm_cpuid_entry2) { .function = 0x80000001,
		.edx = 1 << 29 | 1 << 20 | 1 << 11 };
	c.h.nent = n;
	must(ioctl(v->fd, KVM_SET_CPUID2, &c));
	vcpu_long(v, cpuid_guest, ARRAY_SIZE(cases));
	memcpy((void *)&guest_var(self->vm, cpuid_cases), cases, sizeof(cases));
	vcpu_done(v);
}

static void cpuid_live_guest(u64 arg)
{
	u32 r[4];

	cpuid(1, 0, r);
	guest_assert(!(r[2] & 1 << 27));
	write_cr4(read_cr4() | 1 << 18);	/* OSXSAVE shows in CPUID */
	cpuid(1, 0, r);
	guest_assert(r[2] & 1 << 27);
	write_cr4(read_cr4() & ~(1 << 18));
	cpuid(1, 0, r);
	guest_assert(!(r[2] & 1 << 27));
	/* and the features of a guest under KVM's ABI */
	cpuid(KVM_CPUID_SIGNATURE, 0, r);
	guest_eq(r[1], 0x4b4d564b);
	guest_done(0);
}

TEST_F(exits, cpuid_live)
{
	NEED_CAP(self->vm, KVM_CAP_XCRS);
	vcpu_long(self->v, cpuid_live_guest, 0);
	vcpu_done(self->v);
}

/* ---- instructions a guest must not have ---- */

static void not_offered_guest(u64 arg)
{
	u64 v;

	guest_eq(guest_try("vmrun", "a"(0x9000)), UD);
	guest_eq(guest_try("vmload", "a"(0x9000)), UD);
	guest_eq(guest_try("vmsave", "a"(0x9000)), UD);
	guest_eq(guest_try("rsm"), UD);
	guest_eq(rdmsr_try(MSR_VM_HSAVE_PA, &v) == NO_FAULT &&
		 wrmsr_try(MSR_EFER, rdmsr(MSR_EFER) | 1 << 12) == NO_FAULT, 0);
	guest_done(0);
}

TEST_F(exits, not_offered)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 0x80000001, 0);
	struct vcpu *v;

	e->ecx &= ~(1 << 2);			/* no SVM for this one */
	v = vcpu_new(self->vm, 1);
	vcpu_long(v, not_offered_guest, 0);
	vcpu_done(v);
}

static void monitor_guest(u64 arg)
{
	/* MWAIT and MONITOR are taken for NOPs, as the ABI has it */
	guest_eq(guest_try("monitor", "a"(HEAP_GPA), "c"(0), "d"(0)), NO_FAULT);
	guest_eq(guest_try("mwait", "a"(0), "c"(0)), NO_FAULT);
	asm volatile("wbinvd");
	asm volatile("invlpg (%0)" :: "r"(HEAP_GPA));
	guest_done(0);
}

TEST_F(exits, monitor)
{
	vcpu_long(self->v, monitor_guest, 0);
	vcpu_done(self->v);
}

/* The guest's own page tables come before any of it */
static void mmio_fault_guest(u64 arg)
{
	guest_eq(guest_try("movl %k1,(%2)", "r"(1UL), "r"(0x100000000UL)),
		 fault(PF_VEC, 2));
	guest_eq(read_cr2(), 0x100000000UL);
	guest_eq(guest_try("movl %k1,(%2)", "r"(1UL), "r"(0x8000000000000000UL)),
		 GP0);
	guest_done(0);
}

TEST_F(exits, faults)
{
	vcpu_long(self->v, mmio_fault_guest, 0);
	vcpu_done(self->v);
}

/*
 * What was compared is no flag: not behind an instruction that only sets ZF, nor behind an exit.  (An emulator that got
 * this wrong made kernels clear memory downwards.)
 */
static void flags_guest(u64 arg)
{
	u64 mem[2] __attribute__((aligned(16))) = { 1, 2 }, before, behind;

	asm volatile("pushfq; popq %%rax; pushq %%rax; popfq\n"
		     "movl $0xc1277633,%%r9d; movl $5,%%r8d; movl $1,%%eax; movl $2,%%edx; movl $3,%%ebx; movl $4,%%ecx\n"
		     "cmpq %%r9,%%r8; lock cmpxchg16b %2\n"
		     "pushfq; popq %0; xorl %%eax,%%eax; pushq %0; popfq; cpuid; pushfq; popq %1"
		     : "=&m"(before), "=&m"(behind), "+m"(mem) :: "rax", "rbx", "rcx", "rdx", "r8", "r9", "cc", "memory");
	guest_eq(before & ~0x8d5UL, X86_EFLAGS_FIXED);
	guest_eq(before & X86_EFLAGS_ZF, X86_EFLAGS_ZF);
	guest_eq(behind & ~0x8d5UL, X86_EFLAGS_FIXED);
	guest_eq(mem[0], 3);
	guest_eq(mem[1], 4);
	guest_done(0);
}

TEST_F(exits, flags)
{
	vcpu_long(self->v, flags_guest, 0);
	vcpu_done(self->v);
}

TEST_HARNESS_MAIN
