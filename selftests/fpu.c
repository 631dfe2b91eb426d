// SPDX-License-Identifier: GPL-2.0-only
/*
 * x87, SSE, AVX, AVX-512 and protection-key state: the guest's is the guest's,
 * over every kind of exit, the host's is the host's; XCR0 and XSETBV.
 *
 * Nothing but the asm statements in here uses vector registers (the programs
 * are compiled for general registers only), so what they leave there stays.
 */
#include "test.h"

#include <asm/prctl.h>
#include <sys/syscall.h>

FIXTURE(fpu) {
	struct vm *vm;
	struct vcpu *v;
};

FIXTURE_SETUP(fpu)
{
	self->vm = vm_new(VM_PLAIN);
	self->v = vcpu_new(self->vm, 0);
}

FIXTURE_TEARDOWN(fpu)
{
	vm_free(self->vm);
}

#define XCR0_AVX	7UL
#define XCR0_AVX512	0xe7UL

/* Load or store all of what @width says; buf is 16 (32) times 64 bytes */
#define EACH(op)							\
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)			\
	op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define EACH_HIGH(op)							\
	op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23)		\
	op(24) op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define LOAD_X(n) "movups 64*" #n "(%0),%%xmm" #n "\n"
#define SAVE_X(n) "movups %%xmm" #n ",64*" #n "(%0)\n"
#define LOAD_Y(n) "vmovups 64*" #n "(%0),%%ymm" #n "\n"
#define SAVE_Y(n) "vmovups %%ymm" #n ",64*" #n "(%0)\n"
#define LOAD_Z(n) "vmovups 64*" #n "(%0),%%zmm" #n "\n"
#define SAVE_Z(n) "vmovups %%zmm" #n ",64*" #n "(%0)\n"

#define VEC(what, list)							\
	asm volatile(list :: "r"(what) : "memory")

static u8 bufs[2][32 * 64] __attribute__((aligned(64)));
static volatile u32 width;	/* 16, 32, 64 bytes */

static void load(u8 *b)
{
	switch (width) {
	case 16:
		VEC(b, EACH(LOAD_X));
		break;
	case 32:
		VEC(b, EACH(LOAD_Y));
		break;
	case 64:
		VEC(b, EACH(LOAD_Z));
		VEC(b, EACH_HIGH(LOAD_Z));
		break;
	}
}

static void save(u8 *b)
{
	switch (width) {
	case 16:
		VEC(b, EACH(SAVE_X));
		break;
	case 32:
		VEC(b, EACH(SAVE_Y));
		break;
	case 64:
		VEC(b, EACH(SAVE_Z));
		VEC(b, EACH_HIGH(SAVE_Z));
		break;
	}
}

static int nr_regs(void)
{
	return width == 64 ? 32 : 16;
}

static void fill(u8 *b, u32 seed)
{
	int i;

	for (i = 0; i < 32 * 64; i++)
		b[i] = seed * 31 + i * 7 + (i >> 6);
}

/* Where the registers' contents in @b are not what fill(@seed) gave: or -1 */
static int differ(u8 *b, u32 seed)
{
	u32 r, i;

	for (r = 0; r < nr_regs(); r++)
		for (i = 0; i < width; i++) {
			u32 k = r * 64 + i;

			if (b[k] != (u8)(seed * 31 + k * 7 + (k >> 6)))
				return k;
		}
	return -1;
}

static u64 wanted_xcr0(void)
{
	return width == 64 ? XCR0_AVX512 : width == 32 ? XCR0_AVX : 0;
}

static void xsetbv(u64 v)
{
	asm volatile("xsetbv" :: "a"((u32)v), "d"((u32)(v >> 32)), "c"(0));
}

static u64 xgetbv(void)
{
	u32 lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo | (u64)hi << 32;
}

static void vectors_on(void)
{
	if (wanted_xcr0()) {
		write_cr4(read_cr4() | 1 << 18);
		if (xgetbv() != wanted_xcr0())
			xsetbv(wanted_xcr0());
	}
}

/*
 * Start @fn with registers of @w bytes.  XCR0 is set from outside: QEMU's
 * emulator does not take the intercept of XSETBV.
 */
static void begin(struct vcpu *v, void (*fn)(u64), u64 arg, u32 w)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value =
			      w == 64 ? XCR0_AVX512 : w == 32 ? XCR0_AVX : 1 };

	vcpu_long(v, fn, arg);
	guest_var(v->vm, width) = w;
	if (w > 16)
		must(ioctl(v->fd, KVM_SET_XCRS, &x));
}

/* ---- the guest's state over exits, and apart from other vCPUs' ---- */

static void keep_guest(u64 seed)
{
	u8 *b = bufs[seed & 1];
	u32 i, r[4], msr_lo, msr_hi;

	vectors_on();
	fill(b, seed);
	load(b);
	for (i = 0; i < 20; i++) {
		guest_sync(i);				/* to userspace */
		cpuid(0, 0, r);				/* in the kernel */
		asm volatile("rdmsr" : "=a"(msr_lo), "=d"(msr_hi)
			     : "c"(MSR_IA32_APICBASE));
		(void)*(volatile u32 *)(HEAP_GPA + i * 4096 + seed * 0x100000);
		save(b);
		guest_eq(differ(b, seed), (u64)-1);
	}
	guest_done(0);
}

static u32 host_width(void)
{
	u32 r[4];
	u64 xcr0;

	cpuid(1, 0, r);
	if (!(r[2] & 1 << 27))
		return 16;
	xcr0 = xgetbv();
	cpuid(7, 0, r);
	if ((xcr0 & XCR0_AVX512) == XCR0_AVX512 && r[1] & 1 << 16)
		return 64;
	return (xcr0 & XCR0_AVX) == XCR0_AVX ? 32 : 16;
}

static u32 guest_width(struct vm *vm)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(vm->cpuid, 0xd, 0);

	if (e && (e->eax & XCR0_AVX512) == XCR0_AVX512)
		return 64;
	return e && (e->eax & XCR0_AVX) == XCR0_AVX ? 32 : 16;
}

TEST_F(fpu, kept_over_exits)
{
	struct vcpu *v[2] = { self->v, vcpu_new(self->vm, 1) };
	u32 w, i, k;

	for (w = 16; w <= guest_width(self->vm); w *= 2) {
		for (k = 0; k < 2; k++)
			begin(v[k], keep_guest, k, w);
		width = host_width();
		for (i = 0; i < 20; i++)
			for (k = 0; k < 2; k++) {
				/* other things in the host's, each time */
				fill(bufs[0], 100 + i);
				load(bufs[0]);
				EXPECT_EQ(i, vcpu_sync(v[k]));
			}
		for (k = 0; k < 2; k++)
			vcpu_done(v[k]);
	}
}

TEST_F(fpu, threads)
{
	struct vcpu *v[2] = { self->v, vcpu_new(self->vm, 1) };
	u32 i, k;

	for (k = 0; k < 2; k++)
		begin(v[k], keep_guest, k, guest_width(self->vm));
	for (i = 0; i < 20; i++)
		for (k = 0; k < 2; k++) {
			EXPECT_EQ(i, vcpu_sync(v[k]));
		}
	for (k = 0; k < 2; k++)
		vcpu_start(v[k]);
	for (k = 0; k < 2; k++)
		vcpu_join(v[k]);
}

/* ---- the host's ---- */

static void clobber_guest(u64 arg)
{
	u32 i;

	vectors_on();
	for (i = 0; i < 32 * 64; i++)
		bufs[0][i] = 0xee;
	load(bufs[0]);
	asm volatile("fninit; fldpi; fldpi; fldpi");
	asm volatile("ldmxcsr %0" :: "m"((u32){ 0x9fc0 }));
	for (;;)
		guest_sync(0);
}

/* KVM_RUN with nothing between it and the registers */
#define RUN_BETWEEN(fd, loads, saves) do {				\
	long ret__;							\
	asm volatile(loads						\
		     "syscall\n"					\
		     saves						\
		     : "=a"(ret__)					\
		     : "r"(bufs[0]), "r"(bufs[1]), "0"((long)SYS_ioctl), \
		       "D"((long)(fd)), "S"((long)KVM_RUN), "d"(0L)	\
		     : "rcx", "r11", "memory");				\
	if (ret__)							\
		die("KVM_RUN: %ld", ret__);				\
} while (0)

#define LOAD1_X(n) "movups 64*" #n "(%1),%%xmm" #n "\n"
#define SAVE2_X(n) "movups %%xmm" #n ",64*" #n "(%2)\n"
#define LOAD1_Y(n) "vmovups 64*" #n "(%1),%%ymm" #n "\n"
#define SAVE2_Y(n) "vmovups %%ymm" #n ",64*" #n "(%2)\n"
#define LOAD1_Z(n) "vmovups 64*" #n "(%1),%%zmm" #n "\n"
#define SAVE2_Z(n) "vmovups %%zmm" #n ",64*" #n "(%2)\n"

TEST_F(fpu, hosts_kept)
{
	u16 cw = 0x27f, cw2;
	u32 mxcsr = 0x1f80, mxcsr2, i;

	begin(self->v, clobber_guest, 0, guest_width(self->vm));
	width = host_width();
	for (i = 0; i < 5; i++) {
		fill(bufs[0], i + 7);
		asm volatile("fninit; fldcw %0; fld1; ldmxcsr %1"
			     :: "m"(cw), "m"(mxcsr));
		switch (width) {
		case 16:
			RUN_BETWEEN(self->v->fd, EACH(LOAD1_X), EACH(SAVE2_X));
			break;
		case 32:
			RUN_BETWEEN(self->v->fd, EACH(LOAD1_Y), EACH(SAVE2_Y));
			break;
		case 64:
			RUN_BETWEEN(self->v->fd,
				    EACH(LOAD1_Z) EACH_HIGH(LOAD1_Z),
				    EACH(SAVE2_Z) EACH_HIGH(SAVE2_Z));
			break;
		}
		EXPECT_EQ(-1, differ(bufs[1], i + 7));
		asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw2), "=m"(mxcsr2));
		EXPECT_EQ(cw, cw2);
		EXPECT_EQ(mxcsr, mxcsr2);
		asm volatile("fstp %%st(0); fninit" ::);
	}
}

/* Protection keys: a guest that shuts itself out does not shut us out */
static void pku_guest(u64 arg)
{
	u32 r[4], v, d;

	cpuid(7, 0, r);
	guest_assert(r[2] & 1 << 3);
	write_cr4(read_cr4() | 1 << 22);
	asm volatile("wrpkru" :: "a"(0xfffffffc), "c"(0), "d"(0));
	guest_sync(0);
	asm volatile("rdpkru" : "=a"(v), "=d"(d) : "c"(0));
	guest_eq(v, 0xfffffffc);
	guest_done(0);
}

TEST_F(fpu, protection_keys)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(self->vm->cpuid, 7, 0);
	u32 before, after, d;

	if (!e || !(e->ecx & 1 << 3))
		SKIP(return, "no protection keys");
	asm volatile("rdpkru" : "=a"(before), "=d"(d) : "c"(0));
	vcpu_long(self->v, pku_guest, 0);
	vcpu_sync(self->v);
	asm volatile("rdpkru" : "=a"(after), "=d"(d) : "c"(0));
	EXPECT_EQ(before, after);
	vcpu_done(self->v);
	asm volatile("rdpkru" : "=a"(after), "=d"(d) : "c"(0));
	EXPECT_EQ(before, after);
}

/* ---- XCR0 ---- */

static long try_xsetbv(u32 index, u64 v)
{
	return guest_try("xsetbv", "a"((u32)v), "d"((u32)(v >> 32)),
			 "c"(index));
}

static void xcr0_guest(u64 xsetbv_exits)
{
	u32 r[4], size;

	guest_eq(try_xsetbv(0, 3), UD);		/* CR4.OSXSAVE is off */
	guest_eq(guest_try("xgetbv", "c"(0), "a"(0), "d"(0)), UD);
	write_cr4(read_cr4() | 1 << 18);
	guest_eq(xgetbv(), 1);
	guest_eq(try_xsetbv(0, 0), GP0);
	guest_eq(try_xsetbv(0, 2), GP0);
	guest_eq(try_xsetbv(0, 5), GP0);
	guest_eq(try_xsetbv(0, 1UL << 62 | 3), GP0);
	guest_eq(try_xsetbv(1, 3), GP0);
	guest_eq(try_xsetbv(0, 3), NO_FAULT);
	guest_eq(xgetbv(), 3);
	cpuid(0xd, 0, r);
	size = r[1];
	guest_eq(size, 576);
	if (r[0] & 4) {
		/* AVX is not there before it is switched on */
		guest_eq(guest_try("vxorps %%ymm0,%%ymm0,%%ymm0", "a"(0)), UD);
		guest_eq(try_xsetbv(0, 7), NO_FAULT);
		guest_eq(guest_try("vxorps %%ymm0,%%ymm0,%%ymm0", "a"(0)),
			 NO_FAULT);
		cpuid(0xd, 0, r);		/* grows with XCR0 */
		guest_assert(r[1] > size || !xsetbv_exits);
	}
	guest_sync(xgetbv());
	guest_done(0);
}

TEST_F(fpu, xcr0)
{
	struct kvm_xcrs x;
	u32 v;

	NEED_CAP(self->vm, KVM_CAP_XCRS);
	vcpu_long(self->v, xcr0_guest, !on_tcg());
	v = vcpu_sync(self->v);
	must(ioctl(self->v->fd, KVM_GET_XCRS, &x));
	if (!on_tcg()) {
		EXPECT_EQ(v, x.xcrs[0].value);
	}
	vcpu_done(self->v);
}

/* ---- seen and set from outside ---- */

static void outside_guest(u64 arg)
{
	u8 *b = bufs[0];

	vectors_on();
	fill(b, 3);
	load(b);
	guest_sync(0);
	save(b);
	guest_eq(differ(b, 9), (u64)-1);
	guest_done(0);
}

TEST_F(fpu, outside)
{
	struct kvm_xsave *x = mem_alloc(16384);
	u8 *xmm = (u8 *)x->region + 160, *ymm = (u8 *)x->region + 576;
	u32 r;

	NEED_CAP(self->vm, KVM_CAP_XSAVE);
	/* up to AVX, whose place in the area is the same everywhere */
	width = guest_width(self->vm) > 16 ? 32 : 16;
	begin(self->v, outside_guest, 0, width);
	vcpu_sync(self->v);
	must(ioctl(self->v->fd, KVM_GET_XSAVE, x));
	fill(bufs[0], 3);
	for (r = 0; r < 16; r++) {
		EXPECT_EQ(0, memcmp(xmm + 16 * r, bufs[0] + 64 * r, 16));
		if (width > 16) {
			EXPECT_EQ(0, memcmp(ymm + 16 * r,
					    bufs[0] + 64 * r + 16, 16));
		}
	}
	fill(bufs[0], 9);
	for (r = 0; r < 16; r++) {
		memcpy(xmm + 16 * r, bufs[0] + 64 * r, 16);
		if (width > 16)
			memcpy(ymm + 16 * r, bufs[0] + 64 * r + 16, 16);
	}
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	vcpu_done(self->v);
}

static volatile bool toggling;

static void *toggle(void *page)
{
	while (toggling) {
		mprotect(page, 4096, PROT_NONE);
		mprotect(page, 4096, PROT_READ | PROT_WRITE);
	}
	return NULL;
}

/* A state of which half goes away while it is read is refused as a whole: then the old one is still there */
TEST_F(fpu, half_gone)
{
	u8 *given = (u8 *)mem_alloc(16384) + 2048, *last = mem_alloc(16384), *now = mem_alloc(16384);
	u64 end, refused = 0, taken = 0;
	bool mixed = false;
	pthread_t thread;

	NEED_CAP(self->vm, KVM_CAP_XSAVE);
	must(ioctl(self->v->fd, KVM_GET_XSAVE, last));
	memcpy(given, last, 4096);
	toggling = true;
	ASSERT_EQ(0, pthread_create(&thread, NULL, toggle, given + 2048));
	for (end = now_ns() + 2000000000; now_ns() < end && !mixed && (refused < 5000 || !taken); ) {
		/* behind the header: the upper halves of the first registers, anew each time */
		memset(given + 576, refused + taken, 2048 - 576);
		if (!ioctl(self->v->fd, KVM_SET_XSAVE, given)) {
			taken++;
			must(ioctl(self->v->fd, KVM_GET_XSAVE, last));
			continue;
		}
		refused++;
		must(ioctl(self->v->fd, KVM_GET_XSAVE, now));
		mixed = memcmp(last, now, 4096);
	}
	toggling = false;
	pthread_join(thread, NULL);
	TH_LOG("%lu refused, %lu taken", refused, taken);
	EXPECT_LT(0, refused);
	EXPECT_FALSE(mixed);
}

/* What the guest's CPUID does not tell of is not in what the VMM gets */
TEST_F(fpu, hidden)
{
	struct kvm_xsave *x = mem_alloc(16384);
	u64 *features = (u64 *)(x->region + 128);
	u8 *ymm = (u8 *)x->region + 576;
	struct kvm_cpuid_entry2 *d;
	struct vcpu *v;

	NEED_CAP(self->vm, KVM_CAP_XSAVE);
	d = cpuid_find(self->vm->cpuid, 0xd, 0);
	if (!d || !(d->eax & 4))
		SKIP(return, "no AVX");
	must(ioctl(self->v->fd, KVM_GET_XSAVE, x));
	*features = 7;
	memset(ymm, 0x5a, 256);
	EXPECT_EQ(0, xioctl(self->v->fd, KVM_SET_XSAVE, x));
	memset(x, 0, 4096);
	must(ioctl(self->v->fd, KVM_GET_XSAVE, x));
	EXPECT_EQ(4, *features & 4);
	EXPECT_EQ(0x5a, ymm[255]);

	d->eax = 3;
	d->edx = 0;
	v = vcpu_new(self->vm, 1);
	EXPECT_EQ(0, xioctl(v->fd, KVM_SET_XSAVE, x));
	must(ioctl(v->fd, KVM_GET_XSAVE, x));
	EXPECT_EQ(0, *features & ~3UL);
	EXPECT_EQ(0, ymm[0] | ymm[255]);
}

static void x87_guest(u64 arg)
{
	u16 cw = 0x27f, sw;
	u32 mxcsr = 0x5f80, m2;
	u64 out = 0;

	asm volatile("fninit; fldcw %0; fildq %1; fildq %1; ldmxcsr %2"
		     :: "m"(cw), "m"((u64){ 0x123456789ULL }), "m"(mxcsr));
	guest_sync(0);
	asm volatile("fistpq %0" : "=m"(out));
	guest_eq(out, 0x123456789ULL);
	cw = 0;
	asm volatile("fnstcw %0; fnstsw %1; stmxcsr %2"
		     : "=m"(cw), "=m"(sw), "=m"(m2));
	guest_eq(cw, 0x27f);
	guest_eq(sw >> 11 & 7, 7);
	guest_eq(m2, 0x5f80);
	guest_done(0);
}

TEST_F(fpu, x87)
{
	struct kvm_fpu f;

	vcpu_long(self->v, x87_guest, 0);
	vcpu_sync(self->v);
	must(ioctl(self->v->fd, KVM_GET_FPU, &f));
	EXPECT_EQ(0x27f, f.fcw);
	EXPECT_EQ(6, f.fsw >> 11 & 7);
	EXPECT_EQ(0xc0, f.ftwx);	/* two registers in use */
	asm volatile("fninit; fldz; fldz; fldz");
	vcpu_done(self->v);
	asm volatile("fninit");
}

/* ---- on a device, where all of them are emulated ---- */

static u8 pattern[1024] __attribute__((aligned(64))), seen[1024] __attribute__((aligned(64)));

static void device_guest(u64 xcr0)
{
	u8 *from = pattern, *to = seen;
	u64 dev = HOLE_GPA;
	u32 r[4];
	int i;

	for (i = 0; i < 1024; i++)
		from[i] = i * 7 + 3;
	if (xcr0 > 3)
		write_cr4(read_cr4() | 1 << 18);
	/* MMX and x87 */
	asm volatile("movq (%0),%%mm1; movq %%mm1,(%2); movq (%2),%%mm6; movq %%mm6,(%1)\n"
		     "movntq %%mm1,8(%2); emms\n"
		     "fninit; fildq (%2); fistpq 16(%2); fldl 8(%0); fstps 24(%2); fldt (%0); fstpt 32(%2)\n"
		     "fnstcw 48(%2); fldcw 48(%2); stmxcsr 52(%2); ldmxcsr 52(%2)\n"
		     :: "r"(from), "r"(to), "r"(dev) : "memory");
	/* masked by bytes; parts */
	asm volatile("movdqu (%0),%%xmm3; pcmpeqd %%xmm4,%%xmm4; psrldq $13,%%xmm4\n"
		     "lea 64(%2),%%rdi; maskmovdqu %%xmm4,%%xmm3; movups %%xmm3,80(%2); movlps %%xmm3,96(%2)\n"
		     :: "r"(from), "r"(to), "r"(dev) : "memory", "rdi");
	cpuid(1, 0, r);
	if (r[2] & 1 << 20)
		asm volatile("xor %%ecx,%%ecx; crc32q (%2),%%rcx; mov %%rcx,16(%1); pextrq $1,%%xmm3,112(%2)\n"
			     :: "r"(from), "r"(to), "r"(dev) : "memory", "rcx");
	if (xcr0 & 4)
		asm volatile("vmovdqu (%0),%%ymm7; vmovdqu %%ymm7,256(%2); vbroadcastss 256(%2),%%ymm8\n"
			     "vmovdqu %%ymm8,32(%1)\n"
			     :: "r"(from), "r"(to), "r"(dev) : "memory");
	if (xcr0 & 0xe0)
		asm volatile("vmovdqu64 64(%0),%%zmm17; vmovdqu64 %%zmm17,512(%2); vmovdqa64 512(%2),%%zmm31\n"
			     "vmovups %%zmm31,64(%1); mov $0x5,%%ecx; kmovw %%ecx,%%k2\n"
			     "vmovups %%zmm17,576(%2)%{%%k2%}\n"
			     :: "r"(from), "r"(to), "r"(dev) : "memory", "rcx");
	guest_done(0);
}

static u64 crc32c(const u8 *p, int n)
{
	u32 crc = 0;
	int k;

	while (n--) {
		crc ^= *p++;
		for (k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return crc;
}

TEST_F(fpu, device)
{
	u64 xcr0 = cpuid_find(self->vm->cpuid, 0xd, 0) ? cpuid_find(self->vm->cpuid, 0xd, 0)->eax & XCR0_AVX512 : 3;
	struct kvm_run *run = self->v->run;
	static u8 dev[1024], want[1024];
	struct kvm_cpuid_entry2 *one = cpuid_find(self->vm->cpuid, 1, 0);
	const u8 *to = self->vm->mem + (uintptr_t)seen;
	u32 single;
	int i;

	memset(dev, 0xcc, sizeof(dev));
	/* From outside: QEMU's CPU lets a guest's XSETBV through, unseen. */
	if (xcr0 > 3)
		must(ioctl(self->v->fd, KVM_SET_XCRS, &(struct kvm_xcrs){ .nr_xcrs = 1, .xcrs[0].value = xcr0 }));
	vcpu_long(self->v, device_guest, xcr0);
	while (vcpu_run(self->v) == KVM_EXIT_MMIO) {
		u64 at = run->mmio.phys_addr - HOLE_GPA;

		ASSERT_LE(at + run->mmio.len, sizeof(dev));
		if (run->mmio.is_write)
			memcpy(dev + at, run->mmio.data, run->mmio.len);
		else
			memcpy(run->mmio.data, dev + at, run->mmio.len);
	}
	ASSERT_EQ(KVM_EXIT_IO, run->exit_reason);
	ASSERT_EQ(PORT_DONE, run->io.port);
	for (i = 0; i < 1024; i++)
		want[i] = i * 7 + 3;
	EXPECT_EQ(0, memcmp(to, want, 8));
	EXPECT_EQ(0, memcmp(dev, want, 8));
	EXPECT_EQ(0, memcmp(dev + 8, want, 8));
	EXPECT_EQ(0, memcmp(dev + 16, want, 8));
	asm volatile("fninit; fldl %1; fstps %0; fninit" : "=m"(single) : "m"(*(u64 *)(want + 8)));
	EXPECT_EQ(single, *(u32 *)(dev + 24));
	EXPECT_EQ(0, memcmp(dev + 32, want, 10));
	EXPECT_EQ(0x37f, *(u16 *)(dev + 48));
	EXPECT_EQ(0x1f80, *(u32 *)(dev + 52));
	EXPECT_EQ(0, memcmp(dev + 64, want, 3));
	EXPECT_EQ(0xcc, dev[67]);
	EXPECT_EQ(0, memcmp(dev + 80, want, 16));
	EXPECT_EQ(0, memcmp(dev + 96, want, 8));
	if (one->ecx & 1 << 20) {
		EXPECT_EQ(crc32c(want, 8), *(u64 *)(to + 16));
		EXPECT_EQ(0, memcmp(dev + 112, want + 8, 8));
	}
	if (xcr0 & 4) {
		EXPECT_EQ(0, memcmp(dev + 256, want, 32));
		EXPECT_EQ(0, memcmp(to + 32 + 28, want, 4));
	}
	if (xcr0 & 0xe0) {
		EXPECT_EQ(0, memcmp(dev + 512, want + 64, 64));
		EXPECT_EQ(0, memcmp(to + 64, want + 64, 64));
		EXPECT_EQ(0, memcmp(dev + 576, want + 64, 4));
		EXPECT_EQ(0xcc, dev[580]);
		EXPECT_EQ(0, memcmp(dev + 584, want + 72, 4));
	}
}

TEST_HARNESS_MAIN
